//! The role of a client: it seals one envelope for every live round that it has reason to trust, with a message in it
//! or nothing, and tells its publisher what became of each message.
//!
//! What a client insists on is its *conscience*: every rostered server has signed the header, the roster is not smaller
//! than it may be and holds every pinned server, the client's own keys stand in the client set, and the round is above
//! every round that it has sealed in this log. It sends its envelope to the aggregator that the header names, to no other,
//! and seals only while it is linked with that one: whoever else calls himself an aggregator gets nothing. A message is sealed under one header only. It is sealed again, under a later
//! header, without asking only if the word of the whole roster shows that nobody can have read it: a record without the
//! client in it, or the disclaimers of an abandoned header.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;
use zeroize::Zeroize;

use crate::aggregator::{reason, succeeding};
use crate::bitmap::index;
use crate::checks::{Check, Checks};
use crate::committee::is_majority;
use crate::id::{Digest, Epoch, LogId, PeerId, Role, Round, UniqueId};
use crate::machine::{Deadline, Done, Effect, Job, Outbox, Outcome, Report, RequestId};
use crate::message::{
    Announcement, Bundle, Disclaimer, Envelope, Header, LiveHeader, Message, Proof, Record, RecordSignature,
    Standing,
};
use crate::params::RoundParams;
use crate::refused::Refused;
use crate::slot::{Payload, SlotContent, read_slots};
use crate::time::Time;
use crate::wire;

/// What a client is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: PeerId,
    /// The instance.
    pub instance: UniqueId,
    /// The epoch of the first bundle: one above the last one used, as far as that is known. An aggregator that knows a
    /// later one says so.
    pub epoch: Epoch,
    /// Servers that must be in every roster (`ZIPNET_SERVERS`).
    pub pins: Vec<PeerId>,
    /// The smallest roster (`ZIPNET_MIN_SERVERS`). `None`: as many as there are pins; without pins, the largest roster
    /// that this process has accepted, less the servers that said themselves that they leave.
    pub min_servers: Option<u32>,
    /// Messages go into the rounds whose number is a multiple of this (`ZIPNET_CADENCE`); the others get cover traffic.
    /// Zero counts as one.
    pub cadence: u32,
    /// The shape of the vector; headers with another one are refused.
    pub params: RoundParams,
    /// The most messages that wait for their round.
    pub queue_max: usize,
    /// After how long something without a visible effect is sent again.
    pub resend: Duration,
    /// After how long the round key is replaced, between rounds.
    pub rekey_after: Duration,
    /// After how long it is replaced whatever is under way: an aggregator that lets no round end keeps no key alive by it.
    pub key_age_max: Duration,
}

/// What happened to a client. Complete: a log of (time, input) is a whole run. It holds no key, but it does hold the
/// messages: production writes no such log.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "an input lives for one call")]
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
        /// What it proved or claims to be.
        role: Role,
    },
    /// A peer can no longer be reached.
    Unlinked {
        /// Who.
        peer: PeerId,
    },
    /// A job is done.
    Done(Done),
    /// The publisher has a message. Ask [`Client::accepts`] first: a message that is not accepted is reported as
    /// refused and forgotten.
    Publish {
        /// The publisher's number for it; comes back with the outcome.
        request: RequestId,
        /// At most [`RoundParams::payload_bytes`]; filled with zeros.
        payload: Vec<u8>,
    },
    /// Leave now. The fate of messages under way is not reported.
    Stop,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick => f.write_str("Tick"),
            Self::Received { from, bytes } => write!(f, "Received({from:?}, {} bytes)", bytes.len()),
            Self::Linked { peer, role } => write!(f, "Linked({peer:?}, {role:?})"),
            Self::Unlinked { peer } => write!(f, "Unlinked({peer:?})"),
            Self::Done(_) => f.write_str("Done"),
            Self::Publish { request, payload } => write!(f, "Publish({request:?}, {} bytes)", payload.len()),
            Self::Stop => f.write_str("Stop"),
        }
    }
}

/// How often a message that nobody can have read is sealed again before the publisher is told.
pub const ATTEMPTS_MAX: u32 = 3;

/// So many rounds after its own, a message whose record is still not confirmed counts as [`Outcome::Unknown`]. More than
/// the servers keep records for.
pub const ROUNDS_WAITED: u64 = 16;

/// So many times [`Config::resend`] after a client learned that a round was abandoned, its message counts as
/// [`Outcome::Unknown`], unless all servers have disclaimed the round by then.
pub const DISCLAIM_PATIENCE: u32 = 5;

/// Live headers and records that are kept to check records and outcomes with.
const ROUNDS_KEPT: usize = 32;

/// The most logs in which this process seals. One more means that something is badly wrong.
const LOGS_MAX: usize = 64;

/// The most servers whose farewell is remembered.
const FAREWELLS_MAX: usize = 64;

/// How often a record that no message waits for is asked for.
const RECORD_PATIENCE: u32 = 3;

/// The machine of a client.
pub struct Client<C> {
    config: Config,
    checks: C,
    /// The latest moment that this machine was told about.
    now: Time,
    /// This process's bundle, once made.
    bundle: Option<Bundle>,
    /// The epoch of the bundle that is being made.
    making: Option<Epoch>,
    rekey_at: Time,
    key_ends_at: Time,
    /// What cover traffic is made of.
    blank: Payload,
    /// Linked peers that call themselves aggregators.
    aggregators: BTreeSet<PeerId>,
    /// The aggregator that the newest trusted header of the log names.
    named: Option<PeerId>,
    /// When an aggregator that a header of another log names may be shown the bundle next.
    elsewhere_due: Time,
    /// The present bundle stood in the client set of a header.
    enrolled: bool,
    /// The aggregator has said that servers refuse this client.
    barred: bool,
    bundle_due: Time,
    /// The log of the last header with this client in it.
    log: Option<LogId>,
    /// The highest round sealed, by log. Never forgotten.
    sealed: BTreeMap<LogId, Round>,
    /// The largest roster that was accepted, not counting servers that have said farewell.
    basis: BTreeSet<PeerId>,
    /// Who said that it leaves which log for good.
    farewells: BTreeSet<(LogId, PeerId)>,
    /// A header whose roster was too small; a farewell that comes late may justify it.
    small: Option<(PeerId, LiveHeader, Option<Proof>)>,
    /// Messages that wait for their round, in the order of the publisher.
    queue: BTreeMap<u64, Request>,
    /// How many messages there were.
    requests: u64,
    current: Option<Current>,
    /// Messages under way, by round; all of `log`.
    pending: BTreeMap<Round, Pending>,
    /// Messages of abandoned rounds, each with the moment until which the servers may disclaim it; all of `log`.
    abandoned: BTreeMap<Round, (Time, Pending)>,
    /// Headers that every rostered server signed; all of `log`.
    headers: BTreeMap<Round, Known>,
    /// All of `log`.
    records: BTreeMap<Round, Kept>,
    records_due: Time,
    /// The last header, if this client takes no part under it.
    untrusted: Option<Untrusted>,
    stopped: bool,
}

/// A header under which a client takes no part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untrusted {
    header: Digest,
    /// Why.
    pub reason: Refused,
    /// The roster that the header names, whoever made it.
    pub roster: Vec<PeerId>,
}

/// A message of the publisher.
#[derive(Clone)]
struct Request {
    request: RequestId,
    payload: Payload,
    /// How often it was sealed before.
    attempts: u32,
}

/// The round that this client takes part in.
#[derive(Clone)]
struct Current {
    header: Arc<Header>,
    digest: Digest,
    place: u32,
    /// What goes into the envelope: its number and itself. Moves to [`Client::pending`] with the envelope.
    request: Option<(u64, Request)>,
    envelope: Option<Arc<[u8]>>,
    /// A record or a later header exists, or nobody will ever open the round: the envelope is not sent any more.
    over: bool,
}

/// A message under way.
#[derive(Clone)]
struct Pending {
    number: u64,
    request: Request,
    header: Digest,
    /// Of the header.
    roster: Vec<PeerId>,
    place: u32,
    /// Forgotten with the outcome.
    slot: Option<u32>,
}

/// A live header as records and outcomes need it.
#[derive(Clone)]
struct Known {
    digest: Digest,
    roster: Vec<PeerId>,
    clients: u32,
    previous: (Round, Digest),
    /// How often its record was asked for.
    asked: u32,
}

/// A record.
#[derive(Clone)]
struct Kept {
    digest: Digest,
    previous: Digest,
    /// Until it is confirmed.
    record: Option<Arc<Record>>,
    /// All verified.
    signatures: BTreeMap<PeerId, RecordSignature>,
}

impl<C: Checks> Client<C> {
    /// A client at its start.
    pub fn new(config: Config, checks: C) -> Self {
        let blank = Payload::blank(&config.params);
        Self {
            config,
            checks,
            now: Time::default(),
            bundle: None,
            making: None,
            rekey_at: Time::NEVER,
            key_ends_at: Time::NEVER,
            blank,
            aggregators: BTreeSet::new(),
            named: None,
            elsewhere_due: Time::default(),
            enrolled: false,
            barred: false,
            bundle_due: Time::default(),
            log: None,
            sealed: BTreeMap::new(),
            basis: BTreeSet::new(),
            farewells: BTreeSet::new(),
            small: None,
            queue: BTreeMap::new(),
            requests: 0,
            current: None,
            pending: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            headers: BTreeMap::new(),
            records: BTreeMap::new(),
            records_due: Time::NEVER,
            untrusted: None,
            stopped: false,
        }
    }

    /// Applies one input. The only function that changes a client.
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
                self.aggregators.remove(&peer);
            }
            Input::Done(done) => self.done(done, out),
            Input::Publish { request, mut payload } => {
                self.publish(request, &payload, out);
                payload.zeroize();
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
        if self.introduces_itself() {
            note(self.bundle_due, "a place in the client registry");
        }
        if self.wanted_records().is_some() {
            note(self.records_due, "a record");
        }
        for (until, _) in self.abandoned.values() {
            note(*until, "the disclaimers of an abandoned round");
        }
        if self.between_rounds() {
            note(self.rekey_at, "a fresh round key");
        }
        note(self.key_ends_at, "the end of the round key");
        deadline
    }

    /// Whether [`Input::Publish`] would take this message.
    ///
    /// # Errors
    /// Why it would not.
    pub fn accepts(&self, payload: &[u8]) -> Result<(), PublishError> {
        let payload_bytes = self.config.params.payload_bytes();
        if self.stopped {
            Err(PublishError::Stopping)
        } else if payload.len() > payload_bytes {
            Err(PublishError::TooLong { bytes: payload.len(), payload_bytes })
        } else if self.queue.len() >= self.config.queue_max {
            Err(PublishError::QueueFull { queue_max: self.config.queue_max })
        } else {
            Ok(())
        }
    }

    /// This process's bundle, once made.
    #[must_use]
    pub fn bundle(&self) -> Option<&Bundle> {
        self.bundle.as_ref()
    }

    /// Whether the present bundle stood in the client set of the last header.
    #[must_use]
    pub fn is_enrolled(&self) -> bool {
        self.enrolled
    }

    /// The aggregator that the newest trusted header names, if this client is not linked with it: without that one, it
    /// takes part in nothing.
    #[must_use]
    pub fn wanted_aggregator(&self) -> Option<PeerId> {
        self.named.filter(|named| !self.aggregators.contains(named))
    }

    /// The aggregator that the newest trusted header names.
    #[must_use]
    pub fn named_aggregator(&self) -> Option<PeerId> {
        self.named
    }

    /// Whether the aggregator has said that servers refuse this client, since it was last in a client set.
    #[must_use]
    pub fn is_barred(&self) -> bool {
        self.barred
    }

    /// Why this client takes no part under the last header that it was shown; `None` if it does.
    #[must_use]
    pub fn untrusted(&self) -> Option<&Untrusted> {
        self.untrusted.as_ref()
    }

    /// Servers that this client insists on and that are not in a roster: its pins; without pins, those of the largest
    /// roster that it has accepted and that have not said farewell.
    #[must_use]
    pub fn missed_in(&self, roster: &[PeerId]) -> Vec<PeerId> {
        let log = self.log.unwrap_or_default();
        let stays = |server: &&PeerId| !self.farewells.contains(&(log, **server));
        let missed = |server: &&PeerId| !roster.contains(server);
        if self.config.pins.is_empty() {
            self.basis.iter().filter(stays).filter(missed).copied().collect()
        } else {
            self.config.pins.iter().filter(missed).copied().collect()
        }
    }

    /// How many messages wait for their round, and how many wait for their outcome.
    #[must_use]
    pub fn backlog(&self) -> (usize, usize) {
        (self.queue.len(), self.pending.len().saturating_add(self.abandoned.len()))
    }

    /// The fewest servers that a roster must have at present.
    #[must_use]
    pub fn roster_floor(&self) -> usize {
        self.floor_in(self.log.unwrap_or_default())
    }

    fn floor_in(&self, log: LogId) -> usize {
        if let Some(floor) = self.config.min_servers {
            return index(floor);
        }
        let pins: BTreeSet<&PeerId> = self.config.pins.iter().collect();
        if pins.is_empty() { self.staying(log, &self.basis) } else { pins.len() }
    }

    fn linked(&mut self, peer: PeerId, role: Role, out: &mut Outbox) {
        match role {
            Role::Aggregator => {}
            Role::Server | Role::Client => return,
        }
        self.aggregators.insert(peer);
        match self.bundle.clone() {
            Some(bundle) if self.enrolled => {
                if self.addressees().contains(&peer) {
                    send(out, peer, &Message::Bundle(bundle));
                }
            }
            Some(_) | None => self.bundle_due = self.now,
        }
        if let Some(current) = &self.current
            && current.header.aggregator == peer
            && let (Some(envelope), false) = (&current.envelope, current.over)
        {
            out.push(Effect::Send { to: peer, bytes: Arc::clone(envelope) });
        }
        if let Some(from) = self.pending.keys().next().copied() {
            send(out, peer, &Message::RecordsWanted { from });
        }
    }

    fn received(&mut self, from: PeerId, bytes: &[u8], out: &mut Outbox) {
        let Ok(message) = wire::decode(bytes) else {
            return refuse(out, "message", Refused::Malformed, Some(from));
        };
        let known = self.aggregators.contains(&from);
        let result = match message {
            Message::LiveFor { live, place } if known => self.live(from, *live, place, out),
            Message::BundleRefused { reason, last } if known => self.bundle_refused(reason, last, out),
            Message::Record { record, signatures } if known => self.record(record, &signatures, out),
            Message::RecordSigned { signatures } if known => {
                self.record_signed(&signatures, out);
                Ok(())
            }
            Message::Retired { announcements } if known => self.farewell(&announcements, out),
            Message::Disclaimed { disclaimers } if known => self.disclaimed(&disclaimers, out),
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
            refuse(out, kind, reason, Some(from));
        }
    }

    fn done(&mut self, done: Done, out: &mut Outbox) {
        match done {
            Done::BundleMade(bundle) => {
                if self.making == Some(bundle.epoch) {
                    self.making = None;
                    self.bundle = Some(bundle);
                    self.enrolled = false;
                    self.bundle_due = self.now;
                    self.rekey_at = self.now.after(self.config.rekey_after);
                    self.key_ends_at = self.now.after(self.config.key_age_max);
                }
            }
            Done::Sealed { envelope, slot } => self.envelope_sealed(*envelope, slot, out),
            Done::Withheld { header, .. } => {
                // Nothing was made, so the message is still unread. A key of its own makes the next header fit.
                if self.current.as_ref().is_some_and(|current| current.digest == header) {
                    self.withdraw();
                    if let (Some(bundle), None) = (&self.bundle, self.making) {
                        self.make_bundle(bundle.epoch.next(), true, out);
                    }
                }
            }
            Done::KeyForgotten
            | Done::Agreed
            | Done::HeaderSigned(_)
            | Done::PartialMade(_)
            | Done::RecordSigned(_)
            | Done::Disclaimed(_)
            | Done::Announced(_)
            | Done::Testified(_)
            | Done::Approved(_)
            | Done::RefusalSigned(_)
            | Done::AggregateSigned(_)
            | Done::BatchSigned(_) => {}
        }
    }

    fn publish(&mut self, request: RequestId, payload: &[u8], out: &mut Outbox) {
        let padded = self
            .accepts(payload)
            .map_err(|error| error.reason())
            .and_then(|()| Payload::new(payload, &self.config.params).map_err(|_| Refused::WrongLength));
        match padded {
            Ok(payload) => {
                self.queue.insert(self.requests, Request { request, payload, attempts: 0 });
                self.requests = self.requests.checked_add(1).expect("2^64 messages are never reached");
            }
            Err(reason) => refuse(out, "publish", reason, None),
        }
    }

    /// The aggregator does not take this bundle. If it knows a later one that is really this node's, the next epoch is
    /// free.
    fn bundle_refused(&mut self, reason: Refused, last: Option<Bundle>, out: &mut Outbox) -> Verdict {
        if reason == Refused::Barred {
            // It is said again with every attempt to register.
            return if core::mem::replace(&mut self.barred, true) { Ok(()) } else { Err(("bundle", reason)) };
        }
        if reason != Refused::StaleEpoch {
            return Err(("bundle", reason));
        }
        let (Some(own), Some(last)) = (&self.bundle, last) else { return Ok(()) };
        if last.epoch < own.epoch || last == *own || self.making.is_some() {
            return Ok(());
        }
        let Some(epoch) = succeeding(&last, &self.config.me, Role::Client) else {
            return Err(("bundle", Refused::BadSignature));
        };
        self.make_bundle(epoch, false, out);
        Ok(())
    }

    fn make_bundle(&mut self, epoch: Epoch, fresh_key: bool, out: &mut Outbox) {
        self.making = Some(epoch);
        out.push(Effect::Work(Job::MakeBundle { epoch, fresh_key }));
    }

    /// A round is live.
    fn live(&mut self, from: PeerId, live: LiveHeader, place: Option<Proof>, out: &mut Outbox) -> Verdict {
        let digest = live.header.digest();
        if let Some(current) = &self.current
            && current.digest == digest
            && self.checks.enforce(Check::SealOnce)
        {
            // The aggregator may have lost the envelope: it gets the same bytes. Whoever showed the header gets nothing.
            let to = current.header.aggregator;
            if let (Some(envelope), false) = (&current.envelope, current.over || to != from) {
                out.push(Effect::Send { to, bytes: Arc::clone(envelope) });
            }
            return Ok(());
        }
        let round = live.header.round;
        let roster = live.header.servers.iter().map(|server| server.peer).collect();
        self.small = None;
        if let Err(reason) = self.join(from, live, digest, place, out) {
            if reason == Refused::WrongRound {
                return Err(("live", reason));
            }
            let untrusted = Some(Untrusted { header: digest, reason, roster });
            if self.untrusted != untrusted {
                self.untrusted = untrusted;
                out.report(Report::HeaderUntrusted { round, reason });
            }
            send(out, from, &Message::Declined { round, header: digest, reason });
        } else {
            self.untrusted = None;
        }
        Ok(())
    }

    /// Judges a header, and has an envelope sealed under it.
    fn join(
        &mut self,
        from: PeerId,
        live: LiveHeader,
        digest: Digest,
        place: Option<Proof>,
        out: &mut Outbox,
    ) -> Result<(), Refused> {
        let LiveHeader { ref header, .. } = live;
        let (log, round) = (header.log, header.round);
        let same_log = self.log == Some(log);
        let newest = self.headers.last_key_value().filter(|_| same_log);
        if newest.is_some_and(|(newest, _)| *newest > round) {
            return Err(Refused::WrongRound);
        }
        if newest.is_some_and(|(newest, known)| *newest == round && known.digest != digest) {
            return Err(Refused::Equivocation);
        }
        let refused = live.verify_with(&self.checks).map_err(|invalid| reason(&invalid))?;
        if header.params != self.config.params {
            return Err(Refused::ParamsMismatch);
        }
        if let Err(reason) = self.judge_roster(header) {
            if reason == Refused::RosterTooSmall {
                self.small = Some((from, live, place));
            }
            return Err(reason);
        }
        let own = self.own_place(header, place.as_ref());
        if !same_log {
            // Only a header that lists the present key cannot be from the past: it may name another log.
            if own.is_err() {
                self.introduce_elsewhere(header.aggregator, out);
                return Err(if self.log.is_some() { Refused::WrongLog } else { Refused::NotInRegistry });
            }
            self.start_log(log, out);
        }
        self.named = Some(header.aggregator);
        self.learn_header(header, digest, out);
        let place = match own {
            Ok(place) => place,
            Err(reason) => {
                self.enrolled = false;
                return Err(reason);
            }
        };
        self.barred = false;
        if !self.enrolled {
            self.enrolled = true;
            out.report(Report::Enrolled { version: header.clients.version });
        }
        if refused.get(place) {
            return Err(Refused::RefusedClient);
        }
        let sealed = self.sealed.get(&log).copied().unwrap_or_default();
        if round <= sealed && self.checks.enforce(Check::SealOnce) {
            return Err(Refused::AlreadyPromised);
        }
        if !self.sealed.contains_key(&log) && self.sealed.len() >= LOGS_MAX {
            return Err(Refused::TooMany);
        }
        if !self.aggregators.contains(&header.aggregator) {
            // The envelope could go to nobody. Once that one is linked, it shows the header again if there is time.
            return Err(Refused::NotAggregator);
        }
        self.sealed.insert(log, sealed.max(round));
        self.accept_roster(header);
        let cadence = u64::from(self.config.cadence.max(1));
        let skipped = round.0.checked_rem(cadence) != Some(0) || self.pending.contains_key(&round);
        let request = if skipped { None } else { self.queue.pop_first() };
        let epoch = self.bundle.as_ref().expect("its bundle stands in the client set").epoch;
        // Cover takes the way of a message, so that nobody can tell them by the time between header and envelope.
        let cover = request.is_none();
        let payload = request.as_ref().map_or(&self.blank, |(_, request)| &request.payload).clone();
        let header = Arc::new(live.header);
        out.push(Effect::Work(Job::Seal { header: Arc::clone(&header), epoch, payload, cover }));
        self.current = Some(Current { header, digest, place, request, envelope: None, over: false });
        Ok(())
    }

    /// Whether this roster is one that the client may trust.
    fn judge_roster(&self, header: &Header) -> Result<(), Refused> {
        if !self.checks.enforce(Check::ClientFloor) {
            return Ok(());
        }
        let roster: BTreeSet<PeerId> = header.servers.iter().map(|server| server.peer).collect();
        self.judge_servers(header.log, &roster)
    }

    fn judge_servers(&self, log: LogId, roster: &BTreeSet<PeerId>) -> Result<(), Refused> {
        if !self.config.pins.iter().all(|pin| roster.contains(pin)) {
            return Err(Refused::PinMissing);
        }
        if roster.len() < self.floor_in(log) {
            return Err(Refused::RosterTooSmall);
        }
        Ok(())
    }

    /// How many of these servers have not said farewell to the log.
    fn staying(&self, log: LogId, roster: &BTreeSet<PeerId>) -> usize {
        roster.iter().filter(|server| !self.farewells.contains(&(log, **server))).count()
    }

    fn accept_roster(&mut self, header: &Header) {
        let roster: BTreeSet<PeerId> = header.servers.iter().map(|server| server.peer).collect();
        if self.staying(header.log, &roster) >= self.staying(header.log, &self.basis) {
            self.basis = roster;
        }
    }

    /// This client's place in the client set of the header, with its present keys.
    fn own_place(&self, header: &Header, place: Option<&Proof>) -> Result<u32, Refused> {
        let (Some(proof), Some(own)) = (place, &self.bundle) else { return Err(Refused::NotInRegistry) };
        if proof.bundle != *own || self.making.is_some() || !proof.verify(&header.clients) {
            return Err(Refused::NotInRegistry);
        }
        Ok(proof.index)
    }

    /// Another log: what was under way in the last one is lost from sight.
    fn start_log(&mut self, log: LogId, out: &mut Outbox) {
        self.withdraw();
        self.log = Some(log);
        let mut lost = core::mem::take(&mut self.pending);
        lost.extend(core::mem::take(&mut self.abandoned).into_iter().map(|(round, (_, it))| (round, it)));
        for (round, pending) in lost {
            self.publish_outcome(&pending.request, Outcome::Unknown, round, out);
        }
        self.headers.clear();
        self.records.clear();
    }

    /// Takes note of a trusted header of the log: earlier rounds are over, and it says which of them has a record.
    fn learn_header(&mut self, header: &Header, digest: Digest, out: &mut Outbox) {
        if self.current.as_ref().is_some_and(|current| current.digest != digest) {
            self.withdraw();
        }
        let previous = (header.previous.round, header.previous.record);
        if self.headers.len() == ROUNDS_KEPT && !self.headers.contains_key(&header.round) {
            self.headers.pop_first();
        }
        self.headers.entry(header.round).or_insert_with(|| Known {
            digest,
            roster: header.servers.iter().map(|server| server.peer).collect(),
            clients: header.clients.count,
            previous,
            asked: 0,
        });
        self.skip_rounds(previous.0, header.round);
        // The outcome of messages whose records are long gone will not be known.
        let waited = Round(header.round.0.saturating_sub(ROUNDS_WAITED));
        let recent = self.pending.split_off(&waited);
        for (round, pending) in core::mem::replace(&mut self.pending, recent) {
            self.publish_outcome(&pending.request, Outcome::Unknown, round, out);
        }
    }

    /// Rounds after `finalised` and before `opened` were abandoned: perhaps the servers disclaim them.
    fn skip_rounds(&mut self, finalised: Round, opened: Round) {
        let Some(first) = finalised.0.checked_add(1).map(Round).filter(|first| *first < opened) else {
            return;
        };
        let until = self.now.after(self.config.resend.saturating_mul(DISCLAIM_PATIENCE));
        let mut later = self.pending.split_off(&first);
        let mut rest = later.split_off(&opened);
        self.abandoned.extend(later.into_iter().map(|(round, pending)| (round, (until, pending))));
        self.pending.append(&mut rest);
    }

    /// Messages of abandoned rounds that were not disclaimed in time: somebody may have read them.
    fn give_up(&mut self, out: &mut Outbox) {
        let due = |until: Time| until <= self.now;
        let lost: Vec<Round> =
            self.abandoned.iter().filter(|(_, (until, _))| due(*until)).map(|(round, _)| *round).collect();
        for round in lost {
            if let Some((_, pending)) = self.abandoned.remove(&round) {
                self.publish_outcome(&pending.request, Outcome::Unknown, round, out);
            }
        }
    }

    /// The whole roster of a header says that nothing sealed under it was or will be read. What this client sealed under
    /// it may go into a later round.
    fn disclaimed(&mut self, disclaimers: &[Disclaimer], out: &mut Outbox) -> Verdict {
        let refused = |reason| Err(("disclaimed", reason));
        let Some(Disclaimer { log, round, header, .. }) = disclaimers.first().copied() else {
            return refused(Refused::Malformed);
        };
        let current = self.current.as_ref().filter(|current| current.digest == header);
        let pending = self.pending.get(&round).or(self.abandoned.get(&round).map(|(_, pending)| pending));
        let pending = pending.filter(|pending| pending.header == header);
        let roster: Vec<PeerId> = match (current, pending) {
            (Some(current), _) => current.header.servers.iter().map(|server| server.peer).collect(),
            (None, Some(pending)) => pending.roster.clone(),
            // Nothing hangs on it.
            (None, None) => return Ok(()),
        };
        if self.log != Some(log) || disclaimers.iter().any(|each| each.log != log) {
            return refused(Refused::WrongLog);
        }
        if current.is_some_and(|current| current.header.round != round)
            || disclaimers.iter().any(|each| each.round != round)
        {
            return refused(Refused::WrongRound);
        }
        if disclaimers.iter().any(|each| each.header != header) {
            return refused(Refused::WrongHeader);
        }
        if !disclaimers.iter().map(|each| each.server).eq(roster) {
            return refused(Refused::WrongRoster);
        }
        if !disclaimers.iter().all(|each| each.verify_with(&self.checks)) {
            return refused(Refused::BadSignature);
        }
        if let Some(current) = self.current.as_mut().filter(|current| current.digest == header) {
            // Also under cover, so that nobody can tell. A message that is being sealed goes back as well.
            current.over = true;
            if let Some((number, request)) = current.request.take() {
                self.queue.insert(number, request);
            }
        }
        if let Some(pending) = self.undecided(round, header) {
            self.seal_again(pending, round, out);
        }
        Ok(())
    }

    /// Takes the message that was sealed under this header, if its outcome is not decided.
    fn undecided(&mut self, round: Round, header: Digest) -> Option<Pending> {
        if self.pending.get(&round).is_some_and(|pending| pending.header == header) {
            return self.pending.remove(&round);
        }
        if self.abandoned.get(&round).is_some_and(|(_, pending)| pending.header == header) {
            return self.abandoned.remove(&round).map(|(_, pending)| pending);
        }
        None
    }

    /// Nobody can have read this message: it goes back to its place in the queue, unless that has happened too often.
    fn seal_again(&mut self, pending: Pending, round: Round, out: &mut Outbox) {
        let Pending { number, mut request, .. } = pending;
        request.attempts = request.attempts.saturating_add(1);
        if request.attempts < ATTEMPTS_MAX {
            self.queue.insert(number, request);
        } else {
            self.publish_outcome(&request, Outcome::Dropped, round, out);
        }
    }

    /// The current round is over for this client. A message whose envelope was not made goes back to its place.
    fn withdraw(&mut self) {
        if let Some(mut current) = self.current.take()
            && let Some((number, request)) = current.request.take()
        {
            self.queue.insert(number, request);
        }
    }

    fn envelope_sealed(&mut self, envelope: Envelope, slot: Option<u32>, out: &mut Outbox) {
        let Some(current) = &mut self.current else { return };
        if current.digest != envelope.header
            || (current.envelope.is_some() && self.checks.enforce(Check::SealOnce))
            || (current.envelope.is_none() && current.over)
        {
            return;
        }
        let request = current.request.take();
        out.report(Report::Sealed {
            log: envelope.log,
            round: envelope.round,
            header: envelope.header,
            envelope: Digest(*blake3::hash(&envelope.body).as_bytes()),
            servers: current.header.servers.iter().map(|server| server.peer).collect(),
            request: request.as_ref().map(|(_, request)| request.request),
        });
        if let Some((number, request)) = request {
            let (header, place) = (current.digest, current.place);
            let roster = current.header.servers.iter().map(|server| server.peer).collect();
            self.pending.insert(envelope.round, Pending { number, request, header, roster, place, slot });
        }
        let bytes = wire::encode(&Message::Envelope(envelope));
        let to = current.header.aggregator;
        if self.aggregators.contains(&to) {
            out.push(Effect::Send { to, bytes: Arc::clone(&bytes) });
        }
        current.envelope = Some(bytes);
    }

    /// A finalised round.
    fn record(&mut self, record: Record, signatures: &[RecordSignature], out: &mut Outbox) -> Verdict {
        let refused = |reason| Err(("record", reason));
        if Some(record.log) != self.log {
            return refused(Refused::WrongLog);
        }
        let digest = record.digest();
        if let Some(kept) = self.records.get(&record.round) {
            if kept.digest != digest {
                return refused(Refused::Equivocation);
            }
            self.record_signed(signatures, out);
            return Ok(());
        }
        self.judge_record(&record).map_err(|reason| ("record", reason))?;
        let round = record.round;
        let (previous, servers) = (record.previous, record.servers.len());
        let mut kept = Kept { digest, previous, record: Some(Arc::new(record)), signatures: BTreeMap::new() };
        kept.add(signatures, &self.checks);
        if !is_majority(kept.signatures.len(), servers) {
            return refused(Refused::BadSignature);
        }
        if let Some(current) = &mut self.current
            && current.header.round == round
            && current.envelope.is_some()
        {
            current.over = true;
        }
        if self.records.len() == ROUNDS_KEPT {
            self.records.pop_first();
        }
        let confirmed = kept.signatures.len() == servers;
        if let (Some(record), false) = (&kept.record, confirmed) {
            out.report(Report::RecordSeen { record: Arc::clone(record), digest, confirmed });
        }
        self.records.insert(round, kept);
        self.confirm(round, out);
        Ok(())
    }

    /// Whether a record fits what this client knows of its round.
    fn judge_record(&self, record: &Record) -> Result<(), Refused> {
        if record.broadcast.len() != self.config.params.vector_bytes() {
            return Err(Refused::WrongLength);
        }
        let chained = self.checks.enforce(Check::ChainRecords);
        if let Some(known) = self.headers.get(&record.round) {
            if record.header != known.digest {
                return Err(Refused::WrongHeader);
            }
            if record.servers != known.roster {
                return Err(Refused::WrongRoster);
            }
            if record.participants.len() != known.clients {
                return Err(Refused::WrongLength);
            }
            if record.previous != known.previous.1 && chained {
                return Err(Refused::WrongPrevious);
            }
        } else {
            // This client has not seen the header: it takes the word of servers that it trusted in another one.
            let servers: BTreeSet<PeerId> = record.servers.iter().copied().collect();
            let trusted = |server| self.headers.values().any(|known| known.roster.contains(server));
            if servers.len() != record.servers.len() || !servers.iter().all(trusted) {
                return Err(Refused::WrongRoster);
            }
            self.judge_servers(record.log, &servers)?;
        }
        // The record before it is known for sure if its round is the one before.
        let before = record.round.0.checked_sub(1).and_then(|round| self.records.get(&Round(round)));
        if before.is_some_and(|before| before.digest != record.previous) && chained {
            return Err(Refused::WrongPrevious);
        }
        Ok(())
    }

    /// Further signatures of a record came.
    fn record_signed(&mut self, signatures: &[RecordSignature], out: &mut Outbox) {
        let rounds: BTreeSet<Round> = signatures.iter().map(|signature| signature.round).collect();
        for round in rounds {
            if let Some(kept) = self.records.get_mut(&round) {
                kept.add(signatures, &self.checks);
                self.confirm(round, out);
            }
        }
    }

    /// Tells what a record means, once the whole roster has signed it.
    fn confirm(&mut self, round: Round, out: &mut Outbox) {
        let Some(kept) = self.records.get_mut(&round) else { return };
        let Some(record) = kept.record.take_if(|record| kept.signatures.len() == record.servers.len()) else {
            return;
        };
        let (digest, previous) = (kept.digest, kept.previous);
        out.report(Report::RecordSeen { record: Arc::clone(&record), digest, confirmed: true });
        // Whatever lies between this record and the one before it was abandoned.
        let before = self.records.range(..round).find(|(_, earlier)| earlier.digest == previous);
        let before = before.map(|(round, _)| *round);
        if let Some(before) = before.or_else(|| self.headers.get(&round).map(|known| known.previous.0)) {
            self.skip_rounds(before, round);
        }
        if let Some(pending) = self.undecided(round, record.header) {
            self.decide(pending, &record, out);
        }
    }

    fn decide(&mut self, pending: Pending, record: &Record, out: &mut Outbox) {
        if !record.participants.get(pending.place) {
            return self.seal_again(pending, record.round, out);
        }
        let Pending { request, slot, .. } = pending;
        let mut slots = read_slots(&self.config.params, &record.header, &record.broadcast);
        let content = slot.and_then(|slot| slots.nth(index(slot)));
        let outcome = match content {
            Some(SlotContent::Message(payload)) if payload == request.payload.as_bytes() => Outcome::Landed,
            Some(SlotContent::Message(_) | SlotContent::Garbled | SlotContent::Empty) | None => {
                Outcome::Collided
            }
        };
        self.publish_outcome(&request, outcome, record.round, out);
    }

    fn publish_outcome(&self, request: &Request, outcome: Outcome, round: Round, out: &mut Outbox) {
        out.report(Report::Published { request: request.request, outcome, round });
    }

    /// Servers say that they leave for good: the roster may lack them.
    fn farewell(&mut self, announcements: &[Announcement], out: &mut Outbox) -> Verdict {
        for announcement in announcements {
            let farewell = (announcement.log, announcement.server);
            if self.farewells.contains(&farewell) {
                continue;
            }
            if announcement.standing != Standing::Leaving {
                return Err(("retired", Refused::Malformed));
            }
            if !announcement.verify() {
                return Err(("retired", Refused::BadSignature));
            }
            if self.farewells.len() >= FAREWELLS_MAX {
                let stranger =
                    self.farewells.iter().find(|(_, server)| !self.basis.contains(server)).copied();
                let Some(stranger) = stranger else { return Err(("retired", Refused::TooMany)) };
                self.farewells.remove(&stranger);
            }
            self.farewells.insert(farewell);
        }
        match self.small.take() {
            Some((from, live, place)) => self.live(from, live, place, out),
            None => Ok(()),
        }
    }

    /// Whom this client introduces itself to: the named aggregator; all, as long as none is named or that one is out of
    /// reach, since another may have taken its place.
    fn addressees(&self) -> BTreeSet<PeerId> {
        match self.named.filter(|named| self.aggregators.contains(named)) {
            Some(named) => [named].into(),
            None => self.aggregators.clone(),
        }
    }

    /// A header of another log names this aggregator, and does not list this client: perhaps the committee has begun anew
    /// with an aggregator that does not know it yet. An old header that somebody repeats costs a bundle, which is no secret.
    fn introduce_elsewhere(&mut self, aggregator: PeerId, out: &mut Outbox) {
        if self.named.is_some_and(|named| named != aggregator)
            && self.aggregators.contains(&aggregator)
            && self.elsewhere_due <= self.now
            && let (Some(bundle), None) = (self.bundle.clone(), self.making)
        {
            self.elsewhere_due = self.now.after(self.config.resend);
            send(out, aggregator, &Message::Bundle(bundle));
        }
    }

    fn introduces_itself(&self) -> bool {
        self.bundle.is_some() && !self.enrolled && !self.aggregators.is_empty()
    }

    /// Whether no envelope of this client is under way, so that its round key may change.
    fn between_rounds(&self) -> bool {
        self.making.is_none() && self.current.as_ref().is_none_or(|current| current.over)
    }

    /// The first round whose record should be here and is not.
    fn wanted_records(&self) -> Option<Round> {
        let (newest, latest) = self.headers.last_key_value()?;
        let unconfirmed = |round: &Round| self.records.get(round).is_none_or(|kept| kept.record.is_some());
        let provisional = |round: &Round| self.records.contains_key(round);
        let pending = self.pending.keys().find(|round| *round < newest || provisional(round)).copied();
        let seen = self.headers.get(&latest.previous.0);
        let quiet =
            seen.is_some_and(|known| known.asked < RECORD_PATIENCE) && unconfirmed(&latest.previous.0);
        let chained = quiet.then_some(latest.previous.0);
        pending.into_iter().chain(chained).min()
    }

    /// Does what is due.
    fn advance(&mut self, out: &mut Outbox) {
        self.give_up(out);
        if self.bundle.is_none() && self.making.is_none() {
            self.make_bundle(self.config.epoch, true, out);
        }
        let overdue = self.key_ends_at <= self.now && self.making.is_none();
        if (overdue || (self.between_rounds() && self.rekey_at <= self.now))
            && let Some(bundle) = &self.bundle
            && let Some(epoch) = bundle.epoch.0.checked_add(1).map(Epoch)
        {
            (self.rekey_at, self.key_ends_at) = (Time::NEVER, Time::NEVER);
            if overdue && let Some(current) = &mut self.current {
                current.over = true;
            }
            self.make_bundle(epoch, true, out);
        }
        if self.introduces_itself()
            && self.making.is_none()
            && self.bundle_due <= self.now
            && let Some(bundle) = self.bundle.clone()
        {
            self.bundle_due = self.now.after(self.config.resend);
            let bytes = wire::encode(&Message::Bundle(bundle));
            for to in self.addressees() {
                out.push(Effect::Send { to, bytes: Arc::clone(&bytes) });
            }
        }
        let wanted = self.wanted_records();
        if wanted.is_none() {
            self.records_due = Time::NEVER;
        } else if self.records_due == Time::NEVER {
            self.records_due = self.now.after(self.config.resend);
        }
        if let Some(from) = wanted.filter(|_| self.records_due <= self.now) {
            self.records_due = self.now.after(self.config.resend);
            if let Some(known) = self.headers.get_mut(&from) {
                known.asked = known.asked.saturating_add(1);
            }
            for peer in &self.aggregators {
                send(out, *peer, &Message::RecordsWanted { from });
            }
        }
    }

    /// What holds between any two inputs.
    fn check(&self) {
        assert!(self.headers.len() <= ROUNDS_KEPT, "old headers are forgotten");
        assert!(self.records.len() <= ROUNDS_KEPT, "old records are forgotten");
        let under_way = self.pending.len().saturating_add(self.abandoned.len());
        assert!(self.log.is_some() || under_way == 0, "messages are under way in a log");
        if let (Some(current), Some(log)) = (&self.current, self.log) {
            assert!(current.header.log == log, "the current round is one of the log");
            assert!(
                self.sealed.get(&log).is_some_and(|sealed| *sealed >= current.header.round),
                "a round is counted as sealed before its envelope is made"
            );
        }
        let waiting: usize = self.current.iter().filter(|current| current.request.is_some()).count();
        let inside = self.queue.len().saturating_add(under_way).saturating_add(waiting);
        assert!(
            u64::try_from(inside).is_ok_and(|inside| inside <= self.requests),
            "no message is there twice"
        );
    }
}

impl<C> fmt::Debug for Client<C> {
    /// Without messages and slots.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("me", &self.config.me)
            .field("log", &self.log)
            .field("enrolled", &self.enrolled)
            .field("queue", &self.queue.len())
            .field("pending", &self.pending.len())
            .field("abandoned", &self.abandoned.len())
            .finish_non_exhaustive()
    }
}

/// `Ok`, or what was refused and why.
type Verdict = Result<(), (&'static str, Refused)>;

impl Kept {
    /// Adds the signatures of this record that are its servers', each verified once.
    fn add(&mut self, signatures: &[RecordSignature], checks: &impl Checks) {
        let Some(record) = &self.record else { return };
        for signature in signatures {
            if signature.record == self.digest
                && signature.round == record.round
                && signature.log == record.log
                && record.servers.contains(&signature.server)
                && !self.signatures.contains_key(&signature.server)
                && signature.verify_with(checks)
            {
                self.signatures.insert(signature.server, *signature);
            }
        }
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// It does not fit into a slot.
    TooLong {
        /// Bytes of the message.
        bytes: usize,
        /// Bytes of a payload.
        payload_bytes: usize,
    },
    /// As many messages wait as may.
    QueueFull {
        /// How many may.
        queue_max: usize,
    },
    /// The client is stopping.
    Stopping,
}

impl PublishError {
    /// The reason in the machine's terms.
    #[must_use]
    pub const fn reason(&self) -> Refused {
        match self {
            Self::TooLong { .. } => Refused::WrongLength,
            Self::QueueFull { .. } => Refused::TooMany,
            Self::Stopping => Refused::Stopping,
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes, payload_bytes } => {
                write!(f, "accept message: {bytes} bytes exceed the {payload_bytes} of a slot")
            }
            Self::QueueFull { queue_max } => write!(f, "accept message: {queue_max} messages wait already"),
            Self::Stopping => f.write_str("accept message: the client is stopping"),
        }
    }
}

impl core::error::Error for PublishError {}

fn send(out: &mut Outbox, to: PeerId, message: &Message) {
    out.push(Effect::Send { to, bytes: wire::encode(message) });
}

fn refuse(out: &mut Outbox, kind: &'static str, reason: Refused, from: Option<PeerId>) {
    out.report(Report::Refused { kind, reason, from });
}
