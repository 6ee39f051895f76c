//! The role of a reader: it follows the broadcasts of an instance without taking part.
//!
//! A reader holds no secret, is in no registry and says nothing but which records it wants. It asks the aggregator, which
//! keeps the newest 64 records, and one server after the other, which keep 8; whoever answers is believed nothing. What
//! counts are the signatures of servers that the reader has reason to trust: the pinned ones, or else those of the last
//! roster that it believed. A record with a majority of them is *provisional*, with all of its roster *confirmed*.
//!
//! ```text
//! received ──▶ believed: signatures, roster, length ──▶ chained: names the record before it ──▶ shown
//! ```
//!
//! Records are shown in the order of their chain. One that lacks its predecessor waits for it; if nobody has it, the gap is
//! reported, and the chain begins anew behind it. Two records of one round are reported with the servers that signed the other
//! one, and with both signatures of those who signed both.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use crate::aggregator::RECORD_BYTES_KEPT;
use crate::bitmap::index;
use crate::checks::Checks;
use crate::committee::{RECORDS_KEPT, is_majority};
use crate::evidence::Contradiction;
use crate::id::{Digest, LogId, PeerId, Role, Round};
use crate::machine::{Deadline, Effect, Outbox, Report};
use crate::message::{Message, Record, RecordSignature};
use crate::params::RoundParams;
use crate::refused::Refused;
use crate::time::Time;
use crate::wire;

/// What a reader is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Servers that must be in every roster (`ZIPNET_SERVERS`), and a majority of which must have signed. Empty: the first
    /// roster seen is believed, and a majority of each roster must be in the next one and have signed under it.
    pub pins: Vec<PeerId>,
    /// The smallest roster (`ZIPNET_MIN_SERVERS`). `None`: as many as there are pins.
    pub min_servers: Option<u32>,
    /// The first round wanted, of the first log seen. `None`: the oldest that can be had, whichever that is.
    pub from: Option<Round>,
    /// The shape of the vector; records with another one are refused.
    pub params: RoundParams,
    /// How often records are asked for.
    pub resend: Duration,
}

/// What happened to a reader. Complete: a log of (time, input) is a whole run, and holds no secret.
#[derive(Clone)]
pub enum Input {
    /// Time passed. Harmless at any moment.
    Tick,
    /// Bytes arrived over a link authenticated as `from`. Decoding happens inside.
    Received {
        /// Who sent them.
        from: PeerId,
        /// An encoded [`Message`].
        bytes: Bytes,
    },
    /// A peer can be reached. Repeated for a new link in the place of an old one.
    Linked {
        /// Who.
        peer: PeerId,
        /// What it claims to be: a reader cannot check the proof of a server.
        role: Role,
    },
    /// A peer can no longer be reached.
    Unlinked {
        /// Who.
        peer: PeerId,
    },
    /// Leave now.
    Stop,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick => f.write_str("Tick"),
            Self::Received { from, bytes } => write!(f, "Received({from:?}, {} bytes)", bytes.len()),
            Self::Linked { peer, role } => write!(f, "Linked({peer:?}, {role:?})"),
            Self::Unlinked { peer } => write!(f, "Unlinked({peer:?})"),
            Self::Stop => f.write_str("Stop"),
        }
    }
}

/// So many times [`Config::resend`] the oldest record is looked for before the chain begins with the oldest that came.
pub const START_PATIENCE: u32 = 2;

/// So many times [`Config::resend`] a missing record is looked for before it counts as lost.
pub const GAP_PATIENCE: u32 = 8;

/// So many times [`Config::resend`] the last signatures of a record are waited for before it is shown as provisional.
pub const CONFIRM_PATIENCE: u32 = 5;

/// Every n-th request also asks for what was shown as provisional.
const LATE_PACE: u32 = 4;

/// After so many requests in vain, and after each doubling of them, one asks from the first round on: the instance may
/// have begun another log.
const QUIET: u32 = 8;

/// Digests of believed records that are remembered to notice contradictions, for each log.
const SEEN_MAX: usize = 1024;

/// Rounds whose signatures are remembered to convict who signs another record, for each log.
const SIGNED_MAX: usize = 64;

/// The most records that are kept whole, for each log.
const KEPT_MAX: usize = 64;

/// The most logs that are followed. One more means that something is badly wrong.
const LOGS_MAX: usize = 64;

/// The machine of a reader.
#[derive(Debug)]
pub struct Reader<C> {
    config: Config,
    checks: C,
    /// The latest moment that this machine was told about.
    now: Time,
    /// Linked aggregators and servers.
    peers: BTreeMap<PeerId, Role>,
    chains: BTreeMap<LogId, Chain>,
    /// The newest believed record of the log that grew last, and its roster.
    newest: Option<Newest>,
    /// When records are asked for again.
    ask_due: Time,
    /// How often records were asked for.
    asks: u32,
    /// How often since the last believed record.
    in_vain: u32,
    stopped: bool,
}

/// What rosters are compared with if no server is pinned.
#[derive(Clone, Debug)]
struct Newest {
    log: LogId,
    round: Round,
    roster: Vec<PeerId>,
}

/// The records of one log.
#[derive(Debug, Default)]
struct Chain {
    /// The first round wanted; `None`: any.
    from: Option<Round>,
    /// Of believed records, the newest.
    seen: BTreeMap<Round, Seen>,
    /// The first good signature of each trusted server, for the newest rounds; `None` once the server is convicted.
    signed: BTreeMap<Round, BTreeMap<PeerId, Option<RecordSignature>>>,
    /// Believed records that are not confirmed or not shown.
    kept: BTreeMap<Round, Kept>,
    /// The last record that is chained.
    tip: Option<(Round, Digest)>,
    /// Since when a record waits for the one before it.
    waiting: Option<Time>,
}

/// What is remembered of a record.
#[derive(Clone, Copy, Debug)]
struct Seen {
    digest: Digest,
    previous: Digest,
    /// A contradiction was reported.
    contradicted: bool,
}

/// A record.
#[derive(Clone, Debug)]
struct Kept {
    record: Arc<Record>,
    digest: Digest,
    /// Who has signed it; all verified.
    signers: BTreeSet<PeerId>,
    /// From whom it came.
    from: PeerId,
    stage: Stage,
}

/// How far a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its predecessor is not known.
    Held,
    /// Waits for its last signatures since then.
    Chained(Time),
    /// Shown as provisional.
    Shown,
}

impl<C: Checks> Reader<C> {
    /// A reader at its start.
    pub fn new(config: Config, checks: C) -> Self {
        Self {
            config,
            checks,
            now: Time::default(),
            peers: BTreeMap::new(),
            chains: BTreeMap::new(),
            newest: None,
            ask_due: Time::default(),
            asks: 0,
            in_vain: 0,
            stopped: false,
        }
    }

    /// Applies one input. The only function that changes a reader.
    ///
    /// # Panics
    /// If effects of an earlier call were not drained, or an invariant of the core is broken.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Outbox) {
        assert!(out.is_empty(), "the driver drains all effects before the next input");
        self.now = self.now.max(now);
        if self.stopped {
            return;
        }
        match input {
            Input::Tick => {}
            Input::Received { from, bytes } => self.received(from, &bytes, out),
            Input::Linked { peer, role } => self.linked(peer, role, out),
            Input::Unlinked { peer } => {
                self.peers.remove(&peer);
            }
            Input::Stop => {
                self.stopped = true;
                out.push(Effect::Stopped);
                return;
            }
        }
        self.advance(out);
        self.check();
    }

    /// When to call `handle` with `Tick` if nothing else happens first, and what for.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        let mut deadline = Deadline::NONE;
        if self.stopped {
            return deadline;
        }
        let mut note = |at: Time, why| {
            if at > self.now {
                deadline = deadline.or(at, why);
            }
        };
        if !self.peers.is_empty() {
            note(self.ask_due, "a record");
        }
        for chain in self.chains.values() {
            if let Some(since) = chain.waiting {
                note(since.after(self.patience(chain)), "the record before one that came");
            }
            for kept in chain.kept.values() {
                if let Stage::Chained(since) = kept.stage {
                    note(since.after(self.times(CONFIRM_PATIENCE)), "the signatures of a record");
                }
            }
        }
        deadline
    }

    /// The newest record that was shown or is about to be: its log, its round and its digest.
    #[must_use]
    pub fn tip(&self) -> Option<(LogId, Round, Digest)> {
        let log = self.newest.as_ref()?.log;
        let (round, digest) = self.chains.get(&log)?.tip?;
        Some((log, round, digest))
    }

    /// How many records wait for one before them that has not come.
    #[must_use]
    pub fn held(&self) -> usize {
        let held = |chain: &Chain| chain.kept.values().filter(|kept| kept.stage == Stage::Held).count();
        self.chains.values().map(held).fold(0, usize::saturating_add)
    }

    fn times(&self, patience: u32) -> Duration {
        self.config.resend.saturating_mul(patience)
    }

    /// How long a record waits for the one before it.
    fn patience(&self, chain: &Chain) -> Duration {
        self.times(if chain.tip.is_some() { GAP_PATIENCE } else { START_PATIENCE })
    }

    fn linked(&mut self, peer: PeerId, role: Role, out: &mut Outbox) {
        match role {
            Role::Server | Role::Aggregator => {}
            Role::Client => return,
        }
        self.peers.insert(peer, role);
        let from = self.wanted();
        send(out, peer, &Message::RecordsWanted { from });
        if self.peers.len() == 1 {
            self.ask_due = self.now.after(self.config.resend);
        }
    }

    fn received(&mut self, from: PeerId, bytes: &[u8], out: &mut Outbox) {
        let Ok(message) = wire::decode(bytes) else {
            return refuse(out, "message", Refused::Malformed, from);
        };
        let known = self.peers.contains_key(&from);
        let result = match message {
            Message::Record { record, signatures } if known => self.record(from, record, &signatures, out),
            Message::RecordSigned { signatures } if known => self.record_signed(&signatures, out),
            // What an aggregator tells those who take part.
            Message::LiveFor { .. } | Message::Retired { .. } | Message::Disclaimed { .. } if known => Ok(()),
            Message::Propose(_)
            | Message::Bundle(_)
            | Message::BundleRefused { .. }
            | Message::Live(_)
            | Message::LiveFor { .. }
            | Message::Envelope(_)
            | Message::Aggregate(_)
            | Message::AggregateApplied { .. }
            | Message::Registry { .. }
            | Message::RegistryChanged { .. }
            | Message::RegistryWanted
            | Message::Record { .. }
            | Message::RecordSigned { .. }
            | Message::RecordsWanted { .. }
            | Message::TestifyWanted { .. }
            | Message::Retired { .. }
            | Message::Disclaimed { .. }
            | Message::Declined { .. }
            | Message::Turnout(_) => Err(("message", Refused::WrongRole)),
        };
        if let Err((kind, reason)) = result {
            refuse(out, kind, reason, from);
        }
    }

    /// A finalised round.
    fn record(
        &mut self,
        from: PeerId,
        record: Record,
        signatures: &[RecordSignature],
        out: &mut Outbox,
    ) -> Verdict {
        let refused = |reason| Err(("record", reason));
        let (log, round, digest) = (record.log, record.round, record.digest());
        let seen = self.chains.get(&log).and_then(|chain| chain.seen.get(&round)).copied();
        if seen.is_some_and(|seen| seen.digest == digest) {
            return self.more_signatures(log, round, signatures, out);
        }
        self.judge_record(&record).map_err(|reason| ("record", reason))?;
        let signers = self.signers(&record, &digest, signatures).map_err(|reason| ("record", reason))?;
        if seen.is_some() {
            let trusted = self.trusted(&record);
            let theirs = signatures.iter().filter(|signature| trusted.contains(&signature.server));
            return self.contradicted(log, round, digest, theirs.copied().collect(), out);
        }
        let trusted = self.trusted(&record);
        if !is_majority(signers.len(), record.servers.len())
            || !is_majority(signers.intersection(&trusted).count(), trusted.len())
        {
            return refused(Refused::BadSignature);
        }
        if !self.chains.contains_key(&log) {
            if self.chains.len() >= LOGS_MAX {
                return refused(Refused::TooMany);
            }
            let from = if self.chains.is_empty() { self.config.from } else { None };
            self.chains.insert(log, Chain { from, ..Chain::default() });
        }
        let kept_max = self.kept_max();
        let Some(chain) = self.chains.get_mut(&log) else { return Ok(()) };
        let previous = record.previous;
        if chain.from.is_some_and(|first| round < first) {
            // Not wanted itself, but it may be what the first one names.
            chain.remember(round, Seen { digest, previous, contradicted: false });
            return Ok(());
        }
        if chain.tip.is_some_and(|(tip, _)| round < tip) {
            // Older than what can be looked at, or from a gap that was reported: too late. But between two records of
            // which the later names the earlier one there is no room.
            return if chain.has_room_at(round) { Ok(()) } else { refused(Refused::WrongRound) };
        }
        let roster = record.servers.clone();
        let kept = Kept { record: Arc::new(record), digest, signers, from, stage: Stage::Held };
        if !chain.keep(kept, previous, kept_max) {
            return Ok(());
        }
        let theirs = signatures.iter().filter(|signature| trusted.contains(&signature.server));
        // Of a record of this round that had to go again.
        let evidence: Vec<_> = theirs.filter_map(|signature| chain.note(signature)).collect();
        if let Some(pair) = evidence.first() {
            let (other, servers) = (pair.one.record, evidence.iter().map(Contradiction::server).collect());
            out.report(Report::RecordContradicted { log, round, seen: digest, other, servers, evidence });
        }
        self.in_vain = 0;
        if self.newest.as_ref().is_none_or(|newest| newest.log != log || newest.round < round) {
            self.newest = Some(Newest { log, round, roster });
        }
        Ok(())
    }

    /// Whether a record is of the right shape and of servers that this reader has reason to believe.
    fn judge_record(&self, record: &Record) -> Result<(), Refused> {
        if record.broadcast.len() != self.config.params.vector_bytes() {
            return Err(Refused::WrongLength);
        }
        if record.round == Round(0) {
            return Err(Refused::WrongRound);
        }
        let roster = &record.servers;
        if roster.is_empty() || !roster.is_sorted_by(|one, next| one < next) {
            return Err(Refused::UnsortedRoster);
        }
        if !self.config.pins.iter().all(|pin| roster.contains(pin)) {
            return Err(Refused::PinMissing);
        }
        if roster.len() < self.floor() {
            return Err(Refused::RosterTooSmall);
        }
        if let (Some(newest), true) = (&self.newest, self.config.pins.is_empty()) {
            let shared = newest.roster.iter().filter(|server| roster.contains(server)).count();
            if !is_majority(shared, newest.roster.len()) {
                return Err(Refused::WrongRoster);
            }
        }
        Ok(())
    }

    fn floor(&self) -> usize {
        let pins: BTreeSet<&PeerId> = self.config.pins.iter().collect();
        self.config.min_servers.map_or(pins.len(), index)
    }

    /// Those whose word this reader takes under a record: whoever else stands in its roster may be anybody.
    fn trusted(&self, record: &Record) -> BTreeSet<PeerId> {
        if !self.config.pins.is_empty() {
            return self.config.pins.iter().copied().collect();
        }
        let roster = self.newest.as_ref().map_or(&record.servers, |newest| &newest.roster);
        roster.iter().copied().collect()
    }

    /// Who signed the record. A signature that is not what it should be spoils the message: whoever is honest has
    /// verified it before.
    fn signers(
        &self,
        record: &Record,
        digest: &Digest,
        signatures: &[RecordSignature],
    ) -> Result<BTreeSet<PeerId>, Refused> {
        let mut signers = BTreeSet::new();
        for signature in signatures {
            if (signature.log, signature.round, signature.record) != (record.log, record.round, *digest) {
                return Err(Refused::BadSignature);
            }
            if !record.servers.contains(&signature.server) {
                return Err(Refused::NotInRoster);
            }
            if !signers.insert(signature.server) {
                return Err(Refused::Duplicate);
            }
            if !signature.verify_with(&self.checks) {
                return Err(Refused::BadSignature);
            }
        }
        Ok(signers)
    }

    /// Further signatures came, perhaps of several records.
    fn record_signed(&mut self, signatures: &[RecordSignature], out: &mut Outbox) -> Verdict {
        for signature in signatures {
            let (log, round, record) = (signature.log, signature.round, signature.record);
            // Of a record that is not here: it is asked for as a whole.
            let seen = self.chains.get(&log).and_then(|chain| chain.seen.get(&round)).copied();
            let Some(seen) = seen else { continue };
            if seen.digest == record {
                self.more_signatures(log, round, core::slice::from_ref(signature), out)?;
            } else {
                let pinned = self.config.pins.contains(&signature.server);
                let newest = self.newest.as_ref();
                let rostered = newest.is_some_and(|newest| newest.roster.contains(&signature.server));
                if !(pinned || rostered) || !signature.verify_with(&self.checks) {
                    return Err(("record-signature", Refused::BadSignature));
                }
                self.contradicted(log, round, record, [*signature].into(), out)
                    .map_err(|(_, why)| ("record-signature", why))?;
            }
        }
        Ok(())
    }

    /// Adds signatures to a believed record that lacks some.
    fn more_signatures(
        &mut self,
        log: LogId,
        round: Round,
        signatures: &[RecordSignature],
        out: &mut Outbox,
    ) -> Verdict {
        let Some(kept) = self.chains.get(&log).and_then(|chain| chain.kept.get(&round)) else {
            return Ok(());
        };
        let signers = self
            .signers(&kept.record, &kept.digest, signatures)
            .map_err(|reason| ("record-signature", reason))?;
        let (trusted, seen) = (self.trusted(&kept.record), kept.digest);
        let Some(chain) = self.chains.get_mut(&log) else { return Ok(()) };
        if let Some(kept) = chain.kept.get_mut(&round) {
            kept.signers.extend(signers);
        }
        for signature in signatures.iter().filter(|signature| trusted.contains(&signature.server)) {
            // It has signed another one before.
            if let Some(pair) = chain.note(signature) {
                let (other, servers, evidence) = (pair.one.record, [pair.server()].into(), [pair].into());
                out.report(Report::RecordContradicted { log, round, seen, other, servers, evidence });
            }
        }
        Ok(())
    }

    /// These good signatures are under another record of a round than the one that was believed. Told once for each round,
    /// and for each server that has signed both.
    fn contradicted(
        &mut self,
        log: LogId,
        round: Round,
        other: Digest,
        signatures: Vec<RecordSignature>,
        out: &mut Outbox,
    ) -> Verdict {
        // Without a signature it is just bytes.
        let chain = self.chains.get_mut(&log).filter(|_| !signatures.is_empty());
        let Some(chain) = chain else { return Err(("record", Refused::BadSignature)) };
        let evidence: Vec<_> = signatures.iter().filter_map(|signature| chain.note(signature)).collect();
        let Some(seen) = chain.seen.get_mut(&round) else { return Err(("record", Refused::BadSignature)) };
        if !seen.contradicted || !evidence.is_empty() {
            seen.contradicted = true;
            let servers = signatures.iter().map(|signature| signature.server).collect();
            out.report(Report::RecordContradicted {
                log,
                round,
                seen: seen.digest,
                other,
                servers,
                evidence,
            });
        }
        Err(("record", Refused::Equivocation))
    }

    /// How many records of a log are kept: fewer if they are large.
    fn kept_max(&self) -> usize {
        let fit = RECORD_BYTES_KEPT.checked_div(self.config.params.vector_bytes()).unwrap_or(KEPT_MAX);
        fit.clamp(2, KEPT_MAX)
    }

    /// The first round whose record should be here and is not.
    fn wanted(&self) -> Round {
        // With the one before it, it is clear whether a first record is missing or its round was abandoned.
        let before =
            |from: Option<Round>| from.map_or(Round(1), |from| Round(from.0.saturating_sub(1).max(1)));
        let first = before(self.config.from);
        let chain = self.newest.as_ref().and_then(|newest| self.chains.get(&newest.log));
        let Some(chain) = chain else { return first };
        let unsigned = chain.kept.iter().find(|(_, kept)| matches!(kept.stage, Stage::Chained(_)));
        if let Some((round, _)) = unsigned {
            return *round;
        }
        match chain.tip {
            Some((round, _)) => round.0.checked_add(1).map_or(round, Round),
            None => before(chain.from),
        }
    }

    /// What the next request asks for: now and then more than the next record.
    fn next_request(&self) -> Round {
        let late = self.asks.is_multiple_of(LATE_PACE);
        let chain = self.newest.as_ref().and_then(|newest| self.chains.get(&newest.log));
        let shown = chain.and_then(|chain| chain.kept.keys().next().copied()).filter(|_| late);
        if self.in_vain >= QUIET && self.in_vain.is_power_of_two() && chain.is_some() {
            return Round(1);
        }
        shown.map_or_else(|| self.wanted(), |shown| shown.min(self.wanted()))
    }

    /// Asks the aggregators, and one of the servers after the other.
    fn ask(&mut self, out: &mut Outbox) {
        let from = self.next_request();
        self.asks = self.asks.wrapping_add(1);
        self.in_vain = self.in_vain.saturating_add(1);
        let servers: Vec<PeerId> =
            self.peers.iter().filter(|(_, role)| **role == Role::Server).map(|(peer, _)| *peer).collect();
        let turn = index(self.asks).checked_rem(servers.len()).and_then(|turn| servers.get(turn)).copied();
        let aggregators =
            self.peers.iter().filter(|(_, role)| **role == Role::Aggregator).map(|(peer, _)| *peer);
        for peer in aggregators.chain(turn) {
            send(out, peer, &Message::RecordsWanted { from });
        }
    }

    /// Does what is due.
    fn advance(&mut self, out: &mut Outbox) {
        let (now, confirm) = (self.now, self.times(CONFIRM_PATIENCE));
        let (start, gap) = (self.times(START_PATIENCE), self.times(GAP_PATIENCE));
        // Servers do not keep more either, and what waits for signatures must not take all the room.
        let shown_max = RECORDS_KEPT.min(self.kept_max().div_ceil(2));
        for (log, chain) in &mut self.chains {
            chain.grow(*log, now, (start, gap), out);
            chain.show(now, confirm, shown_max, out);
        }
        if !self.peers.is_empty() && self.ask_due <= self.now {
            self.ask_due = self.now.after(self.config.resend);
            self.ask(out);
        }
    }

    /// What holds between any two inputs.
    fn check(&self) {
        assert!(self.chains.len() <= LOGS_MAX, "logs are counted");
        for chain in self.chains.values() {
            assert!(chain.seen.len() <= SEEN_MAX, "old digests are forgotten");
            assert!(chain.kept.len() <= self.kept_max(), "records are not hoarded");
            assert!(chain.signed.len() <= SIGNED_MAX, "old signatures are forgotten");
            let chained = |kept: &Kept| kept.stage != Stage::Held;
            assert!(
                chain
                    .kept
                    .iter()
                    .all(|(round, kept)| chained(kept) == chain.tip.is_some_and(|(tip, _)| *round <= tip)),
                "what is chained is not behind the tip, and nothing else is"
            );
        }
    }
}

impl Chain {
    /// Takes a record, if there is room for it.
    fn keep(&mut self, kept: Kept, previous: Digest, kept_max: usize) -> bool {
        let (round, digest) = (kept.record.round, kept.digest);
        if self.kept.len() >= kept_max {
            // The earlier ones come first: the later ones are asked for again.
            match self.kept.last_key_value() {
                Some((last, held)) if round < *last && held.stage == Stage::Held => {
                    let last = *last;
                    self.kept.remove(&last);
                    self.seen.remove(&last);
                }
                Some(_) | None => return false,
            }
        }
        self.remember(round, Seen { digest, previous, contradicted: false });
        self.kept.insert(round, kept);
        true
    }

    /// Remembers a good signature of a trusted server. If it has signed another record of the round: both signatures.
    fn note(&mut self, signature: &RecordSignature) -> Option<Contradiction> {
        let known = self.signed.entry(signature.round).or_default();
        let first = known.entry(signature.server).or_insert(Some(*signature));
        let pair = first.take_if(|first| first.record != signature.record);
        if self.signed.len() > SIGNED_MAX {
            self.signed.pop_first();
        }
        pair.map(|one| Contradiction { one, other: *signature })
    }

    fn remember(&mut self, round: Round, seen: Seen) {
        if self.seen.len() == SEEN_MAX {
            self.seen.pop_first();
        }
        self.seen.insert(round, seen);
    }

    /// Whether a record of this round could be missing here: it is not, between two that follow each other.
    fn has_room_at(&self, round: Round) -> bool {
        let before = self.seen.range(..round).next_back();
        let after = self.seen.range(round..).next();
        match (before, after) {
            (Some((_, before)), Some((_, after))) => after.previous != before.digest,
            (Some(_) | None, None) | (None, Some(_)) => true,
        }
    }

    /// Chains what follows the tip.
    fn grow(&mut self, log: LogId, now: Time, (start, gap): (Duration, Duration), out: &mut Outbox) {
        loop {
            let held = self.kept.iter().find(|(_, kept)| kept.stage == Stage::Held);
            let Some((&round, kept)) = held else {
                self.waiting = None;
                return;
            };
            let (previous, digest, from) = (kept.record.previous, kept.digest, kept.from);
            let first = previous == Digest::default();
            let since = *self.waiting.get_or_insert(now);
            let mut lost = None;
            let fits = match self.tip {
                None => {
                    let earlier = self.seen.range(..round).any(|(_, earlier)| earlier.digest == previous);
                    let expected = first || earlier || self.from == Some(round);
                    let waited = since.after(start) <= now;
                    lost = self.from.filter(|_| waited && !expected);
                    expected || waited
                }
                Some((_, tip)) if previous == tip => true,
                Some((tip, _)) => {
                    let next = tip.0.checked_add(1) == Some(round.0);
                    let fork = self.seen.range(..tip).any(|(_, earlier)| earlier.digest == previous);
                    if first || next || fork {
                        self.kept.remove(&round);
                        self.seen.remove(&round);
                        refuse(out, "record", Refused::WrongPrevious, from);
                        continue;
                    }
                    let waited = since.after(gap) <= now;
                    lost = tip.0.checked_add(1).map(Round).filter(|_| waited);
                    waited
                }
            };
            if !fits {
                return;
            }
            if let Some(from) = lost {
                out.report(Report::RecordsMissing { log, from, oldest: round });
            }
            self.tip = Some((round, digest));
            self.waiting = None;
            if let Some(kept) = self.kept.get_mut(&round) {
                kept.stage = Stage::Chained(now);
            }
        }
    }

    /// Shows what is chained, in its order: confirmed, or provisional if the last signatures do not come.
    fn show(&mut self, now: Time, patience: Duration, shown_max: usize, out: &mut Outbox) {
        let mut in_order = true;
        let mut done = Vec::new();
        for (round, kept) in &mut self.kept {
            let confirmed = kept.signers.len() == kept.record.servers.len();
            let show = match kept.stage {
                Stage::Held => break,
                Stage::Shown => confirmed,
                Stage::Chained(since) => {
                    in_order &= confirmed || since.after(patience) <= now;
                    in_order
                }
            };
            if show {
                let (record, digest) = (Arc::clone(&kept.record), kept.digest);
                out.report(Report::RecordSeen { record, digest, confirmed });
                kept.stage = Stage::Shown;
            }
            if confirmed && show {
                done.push(*round);
            }
        }
        for round in done {
            self.kept.remove(&round);
        }
        let shown: Vec<Round> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.stage == Stage::Shown)
            .map(|(round, _)| *round)
            .collect();
        for round in shown.iter().rev().skip(shown_max) {
            self.kept.remove(round);
        }
    }
}

/// `Ok`, or what was refused and why.
type Verdict = Result<(), (&'static str, Refused)>;

fn send(out: &mut Outbox, to: PeerId, message: &Message) {
    out.push(Effect::Send { to, bytes: wire::encode(message) });
}

fn refuse(out: &mut Outbox, kind: &'static str, reason: Refused, from: PeerId) {
    out.report(Report::Refused { kind, reason, from: Some(from) });
}
