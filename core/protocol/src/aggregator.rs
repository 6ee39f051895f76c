//! The role of the aggregator: it brings clients into the registry, shows them live headers, folds their envelopes and
//! hands the committee's records on. It is trusted for liveness only and learns nothing.
//!
//! It takes the word of servers that it has reason to believe, and of no others: whoever says that he is a server may be a
//! stranger. All linked servers get its bundle, because those that have to approve it are more than those that it knows.
//!
//! ```text
//! servers ── Registry, RegistryChanged, Live, Record, Retired ──▶ aggregator ── LiveFor, Record, Retired ──▶ clients
//! servers ◀── Bundle, Propose(ChangeClients), Aggregate ───────── aggregator ◀── Bundle, Envelope ────────── clients
//! servers ── Disclaimed: by one server ─────────────────────────▶ aggregator ── Disclaimed: by the roster ─▶ clients
//! ```
//!
//! Whatever matters is repeated until its effect shows: the bundle until a server speaks of its log, a batch until it is
//! in the registry, the aggregate until it is applied. A lost message costs time and nothing else.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::belief::Belief;
pub use crate::belief::Believed;
use crate::bitmap::{Bitmap, index};
use crate::checks::{Check, Checks};
use crate::committee::{FAREWELLS_KEPT, is_majority};
use crate::fold::Fold;
use crate::id::{Counter, Digest, Epoch, LogId, PeerId, RegistryVersion, Role, Round, UniqueId};
use crate::key::Signature;
use crate::machine::{Deadline, Done, Effect, Job, Outbox, Report};
use crate::message::{
    Announcement, Bundle, ClientBatch, Command, Disclaimer, Envelope, Header, LiveHeader, Message, Record,
    RecordSignature, Standing, Turnout,
};
use crate::params::RoundParams;
use crate::refused::Refused;
use crate::registry::ClientRegistry;
use crate::retry::Retry;
use crate::signing::Invalid;
use crate::time::Time;
use crate::wire::{self, ShownHeader};

/// What an aggregator is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: PeerId,
    /// The instance.
    pub instance: UniqueId,
    /// The epoch of the first bundle: one above the last one used, as far as that is known. A server that knows a later
    /// one says so.
    pub epoch: Epoch,
    /// The shape of the vector; headers with another one are refused.
    pub params: RoundParams,
    /// Servers that are believed (`ZIPNET_SERVERS`).
    pub pins: Vec<PeerId>,
    /// Whom the operator pointed this node to (`ZIPNET_BOOTSTRAP`). Without pins, the servers among them are believed.
    pub bootstrap: Vec<PeerId>,
    /// What the process before kept of whom it believed.
    pub believed: Believed,
    /// How long after the receipt of a live header envelopes are waited for, if enough came earlier.
    pub fold_deadline: Duration,
    /// After how long something without a visible effect is sent again.
    pub resend: Duration,
    /// For how long a registered client may be without a link before it is expired.
    pub expire_after: Duration,
}

/// What happened to an aggregator. Complete: a log of (time, input) is a whole run, and holds no secret.
#[derive(Clone, Debug)]
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
        /// What it claims to be.
        role: Role,
    },
    /// A peer can no longer be reached.
    Unlinked {
        /// Who.
        peer: PeerId,
    },
    /// A job is done.
    Done(Done),
    /// Leave now. The aggregator holds nothing that others need; a round that it folds is lost.
    Stop,
}

/// The most records that are kept for clients that ask.
pub const RECORDS_KEPT: usize = 64;

/// The most bytes of broadcasts that are kept for clients that ask; the newest record is kept in any case.
pub const RECORD_BYTES_KEPT: usize = 64 << 20;

/// The most records sent for one request.
const RECORDS_PER_ANSWER: usize = 16;

/// Earlier versions of the registry that are kept for headers that pin them.
const REPLICAS_KEPT: usize = 4;

/// Headers whose rosters are kept to check records with.
const HEADERS_KEPT: usize = 64;

/// The most logs whose newest round is remembered after the aggregator has turned to another one.
const LOGS_KEPT: usize = 16;

/// The most disclaimed headers that a client is told of when it links or asks: the newest.
const DISCLAIMED_PER_ANSWER: usize = 4;

/// A bundle is repeated this many times less often than other things: servers that know it send the registry each time.
const BUNDLE_PACE: u32 = 5;

/// While too few clients take part, the servers are told so this many times less often than other things.
const TURNOUT_PACE: u32 = 2;

/// After so many repetitions without effect a batch is given up, and a smaller one is tried.
const BATCH_PATIENCE: u32 = 5;

/// How often a missing record is asked for before it is given up.
const RECORD_PATIENCE: u32 = 5;

/// A client whose bundle alone was not accepted waits for so many times [`Config::resend`].
const CLIENT_PENALTY: u32 = 5;

/// The machine of an aggregator.
#[derive(Debug)]
pub struct Aggregator<C> {
    config: Config,
    checks: C,
    /// The latest moment that this machine was told about.
    now: Time,
    /// This process's bundle, once made.
    bundle: Option<Bundle>,
    /// The epoch of the bundle that is being made.
    making: Option<Epoch>,
    /// Which servers are believed.
    belief: Belief,
    /// Linked servers, also those that are not believed.
    servers: BTreeMap<PeerId, Server>,
    clients: BTreeMap<PeerId, Client>,
    /// Linked clients whose bundle is not in the registry, in the order they came.
    queue: VecDeque<PeerId>,
    /// Those whose bundle was not accepted, by when their turn comes again.
    later: BTreeSet<(Time, PeerId)>,
    /// The log that most believed linked servers speak of.
    log: Option<LogId>,
    /// The newest version, and some before it, oldest first; all of `log`.
    replicas: VecDeque<ClientRegistry>,
    /// The registry must be asked for.
    wanted: Option<Retry>,
    /// Registered clients that are not linked, with the moment since when.
    absent: BTreeMap<PeerId, Time>,
    /// The same, by moment.
    absent_since: BTreeSet<(Time, PeerId)>,
    batch: Option<Batch>,
    /// The most entries of the next batch.
    batch_len: usize,
    current: Option<Current>,
    /// Rosters of the newest live headers, oldest first; all of `log`.
    headers: VecDeque<Known>,
    /// The newest live round of logs that this aggregator worked for before: there is no way back behind it.
    rounds: VecDeque<(LogId, Round)>,
    /// All of `log`.
    records: BTreeMap<Round, Kept>,
    /// A record that clients may wait for and that has not come.
    missing: Option<(Round, Retry)>,
    farewells: BTreeMap<PeerId, Announcement>,
    stopped: bool,
}

/// What a live round waits for at its aggregator.
#[derive(Clone, Debug)]
pub struct Waiting<'a> {
    /// Of the round.
    pub header: &'a Header,
    /// Since when it waits for that.
    pub since: Time,
    /// Servers that have not put the aggregate into the log; `None`: it is not made yet.
    pub missing: Option<Vec<PeerId>>,
}

/// A linked server.
#[derive(Clone, Copy, Debug)]
struct Server {
    /// The log that it spoke of since it was linked and told of the present bundle.
    log: Option<LogId>,
    /// The header that it said is live, last.
    said: Option<Digest>,
    /// Why it does not take the bundle, as it said last.
    refused: Option<Refused>,
    /// When it is told of the bundle again.
    bundle: Retry,
}

impl Server {
    /// One that was linked just now, or has to be told of another bundle.
    const fn new(now: Time) -> Self {
        Self { log: None, said: None, refused: None, bundle: Retry::at(now) }
    }
}

/// A linked client.
#[derive(Clone, Debug, Default)]
struct Client {
    /// The newest one, verified.
    bundle: Option<Bundle>,
    /// In [`Aggregator::queue`] or in the outstanding batch.
    queued: bool,
    /// Its bundle was not accepted: not before this moment.
    not_before: Time,
    /// When it was last shown a header because it had sent its bundle.
    shown: Option<Time>,
    /// When it was last sent records because it had asked.
    served: Option<Time>,
}

/// The outstanding change of the registry.
#[derive(Clone, Debug)]
struct Batch {
    counter: Counter,
    register: Vec<PeerId>,
    expire: Vec<PeerId>,
    /// Servers that say of a client to register that it may not.
    barred: BTreeMap<PeerId, BTreeSet<PeerId>>,
    /// Once signed.
    message: Option<Arc<[u8]>>,
    retry: Retry,
}

/// The newest live round.
#[derive(Clone, Debug)]
struct Current {
    live: LiveHeader,
    /// The same as clients are shown it.
    shown: ShownHeader,
    digest: Digest,
    refused: Bitmap,
    /// How many clients may take part.
    everyone: usize,
    /// When this aggregator saw it first.
    since: Time,
    /// The registry as the header pins it, once known.
    clients: Option<ClientRegistry>,
    participants: Bitmap,
    /// What is kept of each envelope that is in, by its client's place.
    heard: BTreeMap<u32, Heard>,
    /// Why clients take no part, by their places, as they say.
    declined: BTreeMap<u32, Refused>,
    /// What the servers were told of the turnout last.
    told: Option<Turnout>,
    /// The turnout of the round before if that was never folded, then that of this one before it was enough.
    lacked: Option<Turnout>,
    /// When they are told again.
    tell: Retry,
    stage: Stage,
}

/// What is kept of an envelope to tell its repetition from another one. It was read once, when it was folded, and no digest
/// of it was made: few are ever sent again.
#[derive(Clone, Debug)]
struct Heard {
    signature: Signature,
    again: Again,
}

/// What a client sent after its first envelope of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Nothing,
    /// The same: this is what it has signed.
    TheSame(Digest),
    /// Something else.
    Another,
}

/// Where the newest live round stands.
#[derive(Clone, Debug)]
enum Stage {
    Folding(Fold),
    Signing,
    Forwarding { since: Time, message: Arc<[u8]>, retry: Retry, applied: BTreeSet<PeerId> },
    Over,
}

/// A live header as records need it.
#[derive(Clone, Debug)]
struct Known {
    round: Round,
    digest: Digest,
    roster: Vec<PeerId>,
    previous: Digest,
    /// By servers of the roster, all verified.
    disclaimers: BTreeMap<PeerId, Disclaimer>,
}

/// A record with what was done about it.
#[derive(Clone, Debug)]
struct Kept {
    record: Record,
    digest: Digest,
    /// All verified.
    signatures: BTreeMap<PeerId, RecordSignature>,
    forwarded: bool,
    confirmed: bool,
}

impl<C: Checks> Aggregator<C> {
    /// An aggregator at its start.
    pub fn new(config: Config, checks: C) -> Self {
        Self {
            belief: Belief::new(&config.pins, &config.bootstrap, config.believed.clone()),
            config,
            checks,
            now: Time::default(),
            bundle: None,
            making: None,
            servers: BTreeMap::new(),
            clients: BTreeMap::new(),
            queue: VecDeque::new(),
            later: BTreeSet::new(),
            log: None,
            replicas: VecDeque::new(),
            wanted: None,
            absent: BTreeMap::new(),
            absent_since: BTreeSet::new(),
            batch: None,
            batch_len: ClientBatch::LEN_MAX,
            current: None,
            headers: VecDeque::new(),
            rounds: VecDeque::new(),
            records: BTreeMap::new(),
            missing: None,
            farewells: BTreeMap::new(),
            stopped: false,
        }
    }

    /// Applies one input. The only function that changes an aggregator.
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
            Input::Unlinked { peer } => self.unlinked(&peer),
            Input::Done(done) => self.done(done, out),
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
        if self.bundle.is_some() {
            for server in self.servers.values().filter(|server| server.log.is_none()) {
                note(server.bundle.due, "a server that takes this aggregator");
            }
        }
        if let Some(wanted) = &self.wanted {
            note(wanted.due, "the client registry");
        }
        if let Some(batch) = &self.batch {
            note(batch.retry.due, "a change of the client registry");
        } else {
            let registry = self.registry();
            if registry.is_some()
                && let Some((since, _)) = self.absent_since.first()
            {
                note(since.after(self.config.expire_after), "the expiry of a client");
            }
            if let Some((at, _)) = self.later.first() {
                note(*at, "another attempt to register a client");
            }
        }
        if let Some(current) = &self.current {
            match &current.stage {
                Stage::Folding(_) => {
                    note(current.since.after(self.config.fold_deadline), "the fold deadline");
                    note(current.tell.due, "the turnout of the round");
                }
                Stage::Forwarding { retry, .. } => note(retry.due, "the aggregate in the log"),
                Stage::Signing | Stage::Over => {}
            }
        }
        if let Some((_, retry)) = &self.missing {
            note(retry.due, "a record");
        }
        deadline
    }

    /// This process's bundle, once made.
    #[must_use]
    pub fn bundle(&self) -> Option<&Bundle> {
        self.bundle.as_ref()
    }

    /// The log that this aggregator works for.
    #[must_use]
    pub fn log(&self) -> Option<LogId> {
        self.log
    }

    /// The newest known client registry.
    #[must_use]
    pub fn registry(&self) -> Option<&ClientRegistry> {
        self.replicas.back()
    }

    /// The newest live round, and how many envelopes of it are in.
    #[must_use]
    pub fn round(&self) -> Option<(Round, u32)> {
        self.current.as_ref().map(|current| (current.live.header.round, current.participants.count_ones()))
    }

    /// The newest record that it holds.
    #[must_use]
    pub fn newest(&self) -> Option<&Record> {
        self.records.last_key_value().map(|(_, kept)| &kept.record)
    }

    /// What the newest live round waits for here; `None` once its aggregate is in the log.
    #[must_use]
    pub fn waiting(&self) -> Option<Waiting<'_>> {
        let current = self.current.as_ref()?;
        let header = &current.live.header;
        let (since, missing) = match &current.stage {
            Stage::Folding(_) | Stage::Signing => (current.since, None),
            Stage::Forwarding { since, applied, .. } => {
                let roster = header.servers.iter().map(|server| server.peer);
                (*since, Some(roster.filter(|server| !applied.contains(server)).collect()))
            }
            Stage::Over => return None,
        };
        Some(Waiting { header, since, missing })
    }

    /// The newest finalised rounds that it holds, oldest first: each with its digest, and whether its whole roster has
    /// signed it.
    pub fn records(&self) -> impl Iterator<Item = (&Record, Digest, bool)> {
        self.records.values().map(|kept| (&kept.record, kept.digest, kept.confirmed))
    }

    /// Linked servers that do not approve this aggregator, and why.
    pub fn disapproved(&self) -> impl Iterator<Item = (PeerId, Refused)> {
        self.servers.iter().filter_map(|(peer, server)| Some((*peer, server.refused?)))
    }

    /// How many clients are linked.
    #[must_use]
    pub fn linked_clients(&self) -> usize {
        self.clients.len()
    }

    /// What the next process of this aggregator should know about whom to believe.
    #[must_use]
    pub fn believed(&self) -> Believed {
        self.belief.kept()
    }

    /// Whether a linked server is believed.
    #[must_use]
    pub fn knows_server(&self) -> bool {
        self.servers.keys().any(|server| self.belief.believes(server))
    }

    fn linked(&mut self, peer: PeerId, role: Role, out: &mut Outbox) {
        match role {
            Role::Server => {
                if self.belief.meet(peer) {
                    self.forget();
                }
                self.servers.insert(peer, Server::new(self.now));
                if self.belief.believes(&peer)
                    && let Some(Stage::Forwarding { message, .. }) =
                        self.current.as_ref().map(|current| &current.stage)
                {
                    out.push(Effect::Send { to: peer, bytes: Arc::clone(message) });
                }
            }
            Role::Client => {
                let client = self.clients.entry(peer).or_default();
                // What went over the link before may be lost.
                client.shown = None;
                client.served = None;
                self.present(&peer);
                if !self.farewells.is_empty() {
                    send(out, peer, &self.retired());
                }
                self.send_disclaimed(peer, Round(0), out);
            }
            Role::Aggregator => {}
        }
    }

    fn unlinked(&mut self, peer: &PeerId) {
        if self.servers.remove(peer).is_some() {
            self.choose_log();
        }
        let client = self.clients.remove(peer);
        if let Some(client) = &client {
            self.later.remove(&(client.not_before, *peer));
        }
        if client.is_some() && self.registry().is_some_and(|registry| registry.get(peer).is_some()) {
            self.missed(*peer);
        }
    }

    fn received(&mut self, from: PeerId, bytes: &[u8], out: &mut Outbox) {
        if self.clients.contains_key(&from)
            && let Some(envelope) = wire::decode_envelope(bytes)
        {
            let envelope = envelope.map_err(|_| ("message", Refused::Malformed));
            if let Err((kind, reason)) = envelope.and_then(|envelope| self.envelope(from, &envelope)) {
                refuse(out, kind, reason, from);
            }
            return;
        }
        let Ok(message) = wire::decode(bytes) else {
            return refuse(out, "message", Refused::Malformed, from);
        };
        let says_server = self.servers.contains_key(&from);
        let is_server = says_server && self.believes(&from);
        let misplaced = if says_server && !is_server { Refused::NotInRoster } else { Refused::WrongRole };
        let is_client = self.clients.contains_key(&from);
        let result = match message {
            Message::Bundle(bundle) if is_client => self.client_bundle(from, bundle, out),
            Message::RecordsWanted { from: round } if is_client => {
                self.records_wanted(from, round, out);
                Ok(())
            }
            Message::Declined { round: _, header, reason } if is_client => {
                self.declined(from, header, reason);
                Ok(())
            }
            Message::BundleRefused { reason: Refused::Barred, last: Some(bundle) } if is_server => {
                self.client_barred(from, &bundle.peer, out);
                Ok(())
            }
            Message::BundleRefused { reason, last } if is_server => {
                self.bundle_refused(from, reason, last, out)
            }
            Message::Live(live) if is_server => self.live(from, live, out),
            Message::AggregateApplied { round, header } if is_server => {
                self.aggregate_applied(from, round, header);
                Ok(())
            }
            Message::Registry { log, version, counter, clients } if is_server => {
                self.registry_sent(from, log, version, counter, clients)
            }
            Message::RegistryChanged { version, batch } if is_server => {
                self.registry_changed(from, version, &batch);
                Ok(())
            }
            Message::Record { record, signatures } if is_server => self.record(record, &signatures, out),
            Message::RecordSigned { signatures } if is_server => {
                self.record_signed(&signatures, out);
                Ok(())
            }
            Message::Retired { announcements } if is_server => self.farewell(&announcements, out),
            Message::Disclaimed { disclaimers } if is_server => self.disclaimed(&disclaimers, out),
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
            | Message::Turnout(_) => Err(("message", misplaced)),
        };
        if let Err((kind, reason)) = result {
            refuse(out, kind, reason, from);
        }
    }

    fn done(&mut self, done: Done, out: &mut Outbox) {
        match done {
            Done::BundleMade(bundle) => {
                if self.making == Some(bundle.epoch) {
                    self.making = None;
                    self.bundle = Some(bundle);
                    // All servers are told, also those that know an earlier bundle.
                    let server = Server::new(self.now);
                    self.servers.values_mut().for_each(|known| *known = server);
                }
            }
            Done::BatchSigned(batch) => {
                let log = self.log;
                if let Some(outstanding) = &mut self.batch
                    && Some(batch.log) == log
                    && outstanding.counter == batch.counter
                    && outstanding.message.is_none()
                {
                    let message = Message::Propose(Command::ChangeClients(*batch));
                    outstanding.message = Some(wire::encode(&message));
                    outstanding.retry.due = self.now;
                }
            }
            Done::AggregateSigned(aggregate) => {
                if let Some(current) = &mut self.current
                    && current.digest == aggregate.header
                    && matches!(current.stage, Stage::Signing)
                {
                    let (round, participants) = (aggregate.round, aggregate.participants.count_ones());
                    let message = wire::encode(&Message::Aggregate(*aggregate));
                    let (since, retry) = (self.now, Retry::at(self.now));
                    current.stage = Stage::Forwarding { since, message, retry, applied: BTreeSet::new() };
                    out.report(Report::AggregateForwarded { round, participants });
                }
            }
            Done::HeaderSigned(_)
            | Done::PartialMade(_)
            | Done::RecordSigned(_)
            | Done::Disclaimed(_)
            | Done::Announced(_)
            | Done::Testified(_)
            | Done::Approved(_)
            | Done::RefusalSigned(_)
            | Done::Sealed { .. }
            | Done::KeyForgotten
            | Done::Agreed
            | Done::Withheld { .. } => {}
        }
    }

    /// A server does not take this bundle. If it knows a later one that is really this node's, the next epoch is free.
    fn bundle_refused(
        &mut self,
        from: PeerId,
        reason: Refused,
        last: Option<Bundle>,
        out: &mut Outbox,
    ) -> Verdict {
        if reason != Refused::StaleEpoch {
            if let Some(server) = self.servers.get_mut(&from) {
                server.refused = Some(reason);
            }
            return Err(("bundle", reason));
        }
        let (Some(own), Some(last)) = (&self.bundle, last) else { return Ok(()) };
        if last.epoch < own.epoch || last == *own || self.making.is_some() {
            return Ok(());
        }
        let Some(epoch) = succeeding(&last, &self.config.me, Role::Aggregator) else {
            return Err(("bundle", Refused::BadSignature));
        };
        self.make_bundle(epoch, false, out);
        Ok(())
    }

    fn make_bundle(&mut self, epoch: Epoch, fresh_key: bool, out: &mut Outbox) {
        self.making = Some(epoch);
        out.push(Effect::Work(Job::MakeBundle { epoch, fresh_key }));
    }

    /// A client introduces itself.
    fn client_bundle(&mut self, from: PeerId, bundle: Bundle, out: &mut Outbox) -> Verdict {
        let refused = |reason| Err(("bundle", reason));
        let registered = self.replicas.back().and_then(|registry| registry.get(&from));
        let client = self.clients.get_mut(&from).expect("the caller has looked");
        let mut known = client.bundle.as_ref();
        if known == Some(&bundle) {
            // It came before the registry was known, and is not the newest one.
            if let Some(last) = registered.filter(|last| bundle.epoch <= last.epoch && **last != bundle) {
                let last = Some(last.clone());
                send(out, from, &Message::BundleRefused { reason: Refused::StaleEpoch, last });
                return refused(Refused::StaleEpoch);
            }
            // It repeats itself because it has not seen its place in a header.
            let lately = client.shown.is_some_and(|at| self.now < at.after(self.config.resend));
            if registered == known && !lately {
                client.shown = Some(self.now);
                self.show_round(from, out);
            }
            return Ok(());
        }
        if bundle.peer != from || bundle.role != Role::Client {
            return refused(Refused::WrongRole);
        }
        if bundle.instance != self.config.instance {
            return refused(Refused::WrongInstance);
        }
        if !bundle.round_key.is_contributory() {
            return refused(Refused::WeakKey);
        }
        if known.is_none_or(|known| registered.is_some_and(|registered| registered.epoch > known.epoch)) {
            known = registered;
        }
        if let Some(last) = known.filter(|known| bundle.epoch <= known.epoch && **known != bundle) {
            let last = Some(last.clone());
            send(out, from, &Message::BundleRefused { reason: Refused::StaleEpoch, last });
            return refused(Refused::StaleEpoch);
        }
        if !bundle.verify() {
            return refused(Refused::BadSignature);
        }
        let registered = registered == Some(&bundle);
        client.bundle = Some(bundle);
        if self.later.remove(&(client.not_before, from)) {
            self.queue.push_back(from);
        }
        client.not_before = Time::default();
        if registered {
            client.shown = Some(self.now);
            self.show_round(from, out);
        } else {
            out.report(Report::ClientSeen { client: from });
            self.enqueue(from);
        }
        Ok(())
    }

    /// Has the client registered with one of the next batches, if it must be.
    fn enqueue(&mut self, peer: PeerId) {
        let registered = self.replicas.back().and_then(|registry| registry.get(&peer));
        let Some(client) = self.clients.get_mut(&peer) else { return };
        let Some(bundle) = &client.bundle else { return };
        if !client.queued && registered.is_none_or(|registered| registered.epoch < bundle.epoch) {
            client.queued = true;
            self.queue.push_back(peer);
        }
    }

    /// The client is linked: it does not expire.
    fn present(&mut self, peer: &PeerId) {
        if let Some(since) = self.absent.remove(peer) {
            self.absent_since.remove(&(since, *peer));
        }
    }

    /// The client is registered and not linked: it expires some time from now.
    fn missed(&mut self, peer: PeerId) {
        if let alloc::collections::btree_map::Entry::Vacant(entry) = self.absent.entry(peer) {
            entry.insert(self.now);
            self.absent_since.insert((self.now, peer));
        }
    }

    /// Takes note of the log that a server speaks of. False: it is not the log that this aggregator works for.
    fn speaks_of(&mut self, server: PeerId, log: LogId) -> bool {
        if let Some(server) = self.servers.get_mut(&server) {
            (server.log, server.refused) = (Some(log), None);
        }
        self.choose_log();
        self.log == Some(log)
    }

    /// Works for the log that most believed linked servers speak of. A tie changes nothing, unless no server speaks of the
    /// present one.
    fn choose_log(&mut self) {
        let mut votes: BTreeMap<LogId, usize> = BTreeMap::new();
        for (_, server) in self.believed_servers() {
            let Some(log) = server.log else { continue };
            let count = votes.entry(log).or_default();
            *count = count.saturating_add(1);
        }
        let present = self.log.and_then(|log| votes.get(&log)).copied().unwrap_or(0);
        let most = votes.values().copied().max().unwrap_or(0);
        if most > present {
            let log = votes.into_iter().find(|(_, count)| *count == most).map(|(log, _)| log);
            if self.log != log {
                self.start_log(log);
            }
        }
    }

    /// Whether a peer that says it is a server is believed.
    fn believes(&self, server: &PeerId) -> bool {
        self.belief.believes(server) || !self.checks.enforce(Check::ServersBelieved)
    }

    /// Linked servers that are believed.
    fn believed_servers(&self) -> impl Iterator<Item = (&PeerId, &Server)> {
        self.servers.iter().filter(|(server, _)| self.believes(server))
    }

    /// What servers said so far is worth nothing.
    fn forget(&mut self) {
        let server = Server::new(self.now);
        self.servers.values_mut().for_each(|known| *known = server);
        self.start_log(None);
        // Whoever takes the bundle sends it.
        self.wanted = None;
    }

    fn start_log(&mut self, log: Option<LogId>) {
        if let (Some(last), Some(newest)) = (self.log, self.headers.back()) {
            self.rounds.retain(|(log, _)| *log != last);
            self.rounds.push_back((last, newest.round));
            if self.rounds.len() > LOGS_KEPT {
                self.rounds.pop_front();
            }
        }
        self.log = log;
        self.replicas.clear();
        self.wanted = Some(Retry::at(self.now));
        self.absent.clear();
        self.absent_since.clear();
        self.batch = None;
        self.batch_len = ClientBatch::LEN_MAX;
        self.current = None;
        self.headers.clear();
        self.records.clear();
        self.missing = None;
        self.farewells.clear();
        self.queue.clear();
        self.later.clear();
        for client in self.clients.values_mut() {
            client.queued = false;
            client.not_before = Time::default();
        }
    }

    fn registry_sent(
        &mut self,
        from: PeerId,
        log: LogId,
        version: RegistryVersion,
        counter: Counter,
        clients: Vec<Bundle>,
    ) -> Verdict {
        if version.0 == u64::MAX || counter.0 == u64::MAX {
            return Err(("registry", Refused::Malformed));
        }
        if !self.speaks_of(from, log) {
            return Err(("registry", Refused::WrongLog));
        }
        // An older version than one's own comes from a server that lags behind, unless all servers send it.
        let asked = self.wanted.map(|wanted| usize::try_from(wanted.attempts).unwrap_or(usize::MAX));
        let wanted = self.registry().is_none_or(|registry| match asked {
            None => registry.version() < version,
            Some(asked) => registry.version() <= version || asked > self.believed_servers().count(),
        });
        if !wanted {
            return Ok(());
        }
        let Ok(registry) = ClientRegistry::from_parts(version, counter, clients) else {
            return Err(("registry", Refused::Malformed));
        };
        self.wanted = None;
        // What was wrong, or is from the time before a server lost entries, goes.
        self.replicas.retain(|replica| replica.version() < version);
        let peers: Vec<PeerId> = registry.iter().map(|(peer, _)| *peer).collect();
        self.take_registry(registry);
        let gone: Vec<PeerId> = self.absent.keys().copied().collect();
        for peer in gone {
            if self.registry().is_some_and(|registry| registry.get(&peer).is_none()) {
                self.present(&peer);
            }
        }
        for peer in peers {
            if !self.clients.contains_key(&peer) {
                self.missed(peer);
            }
        }
        let linked: Vec<PeerId> = self.clients.keys().copied().collect();
        for peer in linked {
            self.enqueue(peer);
        }
        Ok(())
    }

    fn registry_changed(&mut self, from: PeerId, version: RegistryVersion, batch: &ClientBatch) {
        if !self.speaks_of(from, batch.log) {
            return;
        }
        let Some(registry) = self.registry() else { return };
        if version <= registry.version() {
            return;
        }
        // Only this node makes batches. One of an earlier aggregator, or a gap, is made good by the whole.
        if version != registry.version().next()
            || batch.counter != registry.counter().next()
            || !registry.has_room(batch.register.len())
            || version.0 == u64::MAX
            || batch.counter.0 == u64::MAX
            || !batch.verify(&self.config.me)
        {
            self.wanted.get_or_insert(Retry::at(self.now));
            return;
        }
        let mut registry = registry.clone();
        registry.apply(&batch.register, &batch.expire, batch.counter);
        self.take_registry(registry);
        self.batch_len = self.batch_len.saturating_mul(2).min(ClientBatch::LEN_MAX);
        for (peer, _) in &batch.expire {
            self.present(peer);
            self.enqueue(*peer);
        }
        for bundle in &batch.register {
            if self.clients.contains_key(&bundle.peer) {
                self.enqueue(bundle.peer);
            } else {
                self.missed(bundle.peer);
            }
        }
    }

    /// The registry has a new version: an outstanding batch is in it, or void.
    fn take_registry(&mut self, registry: ClientRegistry) {
        let over = self.batch.as_ref().is_some_and(|batch| batch.counter <= registry.counter());
        if self.replicas.len() == REPLICAS_KEPT {
            self.replicas.pop_front();
        }
        self.replicas.push_back(registry);
        if over {
            for peer in self.end_batch() {
                self.enqueue(peer);
            }
        }
    }

    /// Forgets the outstanding batch; its clients come again if they must.
    fn end_batch(&mut self) -> Vec<PeerId> {
        let Some(batch) = self.batch.take() else { return Vec::new() };
        for peer in &batch.register {
            if let Some(client) = self.clients.get_mut(peer) {
                client.queued = false;
            }
        }
        batch.register
    }

    /// A server says that a round is live.
    fn live(&mut self, from: PeerId, live: LiveHeader, out: &mut Outbox) -> Verdict {
        let refused = |reason| Err(("live", reason));
        let (log, round) = (live.header.log, live.header.round);
        let digest = live.header.digest();
        if self.current.as_ref().is_some_and(|current| current.digest == digest) {
            if let Some(server) = self.servers.get_mut(&from) {
                server.log = Some(log);
            }
            return Ok(());
        }
        if !self.speaks_of(from, log) {
            return refused(Refused::WrongLog);
        }
        if live.header.aggregator != self.config.me {
            // Another one folds this round, and clients send that one their envelopes.
            return refused(Refused::NotAggregator);
        }
        match self.headers.back() {
            Some(newest) if newest.round == round => return refused(Refused::Equivocation),
            Some(newest) if newest.round > round => return refused(Refused::WrongRound),
            Some(_) | None => {}
        }
        if self.rounds.iter().any(|(known, newest)| *known == log && *newest >= round) {
            return refused(Refused::WrongRound);
        }
        if live.header.params != self.config.params {
            return refused(Refused::ParamsMismatch);
        }
        let union = live.verify_with(&self.checks).map_err(|invalid| ("live", reason(&invalid)))?;
        if let Some(server) = self.servers.get_mut(&from) {
            server.said = Some(digest);
        }
        if !self.is_vouched(&live, digest) {
            return refused(Refused::WrongRoster);
        }
        self.believe(&live.header, out);
        let header = &live.header;
        let everyone = index(header.clients.count.saturating_sub(union.count_ones()));
        if self.headers.len() == HEADERS_KEPT {
            self.headers.pop_front();
        }
        self.headers.push_back(Known {
            round,
            digest,
            roster: header.servers.iter().map(|server| server.peer).collect(),
            previous: header.previous.record,
            disclaimers: BTreeMap::new(),
        });
        let unfolded = self.current.as_mut().filter(|current| matches!(current.stage, Stage::Folding(_)));
        let lacked = unfolded.and_then(|current| current.told.take());
        let before = header.previous.round;
        let have = self.records.get(&before).is_some_and(|kept| kept.confirmed);
        self.missing = (before.0 > 0 && !have).then_some((before, Retry::at(self.now)));
        self.current = Some(Current {
            shown: ShownHeader::new(&live),
            digest,
            refused: union,
            everyone,
            since: self.now,
            clients: None,
            participants: Bitmap::new(header.clients.count),
            heard: BTreeMap::new(),
            declined: BTreeMap::new(),
            told: None,
            lacked,
            tell: Retry::at(self.now.after(self.config.fold_deadline)),
            stage: Stage::Folding(Fold::new(header.params.vector_bytes())),
            live,
        });
        self.pin(out);
        if self.current.as_ref().is_some_and(|current| current.clients.is_none()) {
            self.wanted.get_or_insert(Retry::at(self.now));
        }
        Ok(())
    }

    /// Whether a majority of the believed has signed the header, or says that it is live.
    fn is_vouched(&self, live: &LiveHeader, digest: Digest) -> bool {
        let said = self.believed_servers().filter(|(_, server)| server.said == Some(digest));
        let signed = live.header.servers.iter().map(|server| server.peer);
        let vouchers = said.map(|(server, _)| *server).chain(signed).collect();
        self.stand_for(&vouchers)
    }

    /// Whether these are a majority of the believed.
    fn stand_for(&self, vouchers: &BTreeSet<PeerId>) -> bool {
        let has_left = |server: &PeerId| self.farewells.contains_key(server);
        let speaks = |server: &PeerId| self.servers.get(server).is_some_and(|known| known.log == self.log);
        self.belief.is_vouched(vouchers, has_left, speaks) || !self.checks.enforce(Check::ServersBelieved)
    }

    /// The roster of a header that is vouched for is believed.
    fn believe(&mut self, header: &Header, out: &mut Outbox) {
        let was_blank = self.belief.is_blank();
        if self.belief.learn(header.servers.iter().map(|server| server.peer)) {
            out.report(Report::ServersBelieved { servers: self.belief.kept().servers });
        }
        if was_blank && !self.replicas.iter().any(|replica| replica.set() == header.clients) {
            // Anybody may have sent it.
            self.replicas.clear();
        }
    }

    /// Finds the registry that the live header pins, and shows the header to everyone once it is found.
    fn pin(&mut self, out: &mut Outbox) {
        let Some(current) = &mut self.current else { return };
        if current.clients.is_some() {
            return;
        }
        let set = current.live.header.clients;
        current.clients = self.replicas.iter().find(|replica| replica.set() == set).cloned();
        if current.clients.is_some() {
            let clients: Vec<PeerId> = self.clients.keys().copied().collect();
            for peer in clients {
                self.show_round(peer, out);
            }
        }
    }

    /// Shows the live header to a client, with its place. Not once the fold is over: it could not take part.
    fn show_round(&self, peer: PeerId, out: &mut Outbox) {
        let Some(current) = &self.current else { return };
        if let (Stage::Folding(_), Some(clients)) = (&current.stage, &current.clients) {
            let bytes = current.shown.to(clients.proof(&peer).as_ref());
            out.push(Effect::Send { to: peer, bytes });
        }
    }

    /// Folds an envelope. Its signature is not checked: the link says who sent it.
    fn envelope(&mut self, from: PeerId, envelope: &Envelope<&[u8]>) -> Verdict {
        let refused = |reason| Err(("envelope", reason));
        let Some(current) = &mut self.current else { return refused(Refused::NoRound) };
        let header = &current.live.header;
        if envelope.log != header.log {
            return refused(Refused::WrongLog);
        }
        if envelope.round != header.round {
            return refused(Refused::WrongRound);
        }
        if envelope.header != current.digest {
            return refused(Refused::WrongHeader);
        }
        let Some(clients) = &current.clients else { return refused(Refused::WrongRegistry) };
        let Some(place) = clients.index_of(&from) else { return refused(Refused::NotInRegistry) };
        if clients.at(place).is_none_or(|(_, bundle)| bundle.epoch != envelope.epoch) {
            return refused(Refused::StaleEpoch);
        }
        if current.refused.get(place) {
            return refused(Refused::RefusedClient);
        }
        if envelope.body.len() != header.params.vector_bytes() {
            return refused(Refused::WrongLength);
        }
        if let Some(first) = current.heard.get_mut(&place)
            && self.checks.enforce(Check::FoldOnce)
        {
            return if first.is_repeated_by(&from, envelope, &self.checks) {
                Ok(())
            } else {
                refused(Refused::Equivocation)
            };
        }
        let Stage::Folding(fold) = &mut current.stage else { return refused(Refused::AggregateIn) };
        if fold.add(envelope.body).is_err() {
            return refused(Refused::WrongLength);
        }
        current.participants.set(place);
        current.heard.insert(place, Heard { signature: envelope.signature, again: Again::Nothing });
        Ok(())
    }

    /// A client says why it takes no part under a header.
    fn declined(&mut self, from: PeerId, header: Digest, reason: Refused) {
        let Some(current) = self.current.as_mut().filter(|current| current.digest == header) else { return };
        let place = current.clients.as_ref().and_then(|clients| clients.index_of(&from));
        if let Some(place) = place.filter(|place| !current.participants.get(*place)) {
            current.declined.insert(place, reason);
        }
    }

    /// How many clients take part in the newest live round if they are too few, once it has waited for them long enough;
    /// until then, and until its aggregate is in the log, how many were too few last.
    #[must_use]
    pub fn turnout(&self) -> Option<Turnout> {
        let current = self.current.as_ref()?;
        match &current.stage {
            Stage::Folding(_) if current.told.is_some() => self.count_turnout(),
            Stage::Folding(_) | Stage::Signing | Stage::Forwarding { .. } => current.lacked.clone(),
            Stage::Over => None,
        }
    }

    /// How many clients take part in the newest live round, as long as it is not folded.
    fn count_turnout(&self) -> Option<Turnout> {
        let current = self.current.as_ref()?;
        let (Stage::Folding(_), Some(clients)) = (&current.stage, &current.clients) else { return None };
        let is_absent = |(place, peer): &(u32, &PeerId)| {
            !self.clients.contains_key(*peer)
                && !current.participants.get(*place)
                && !current.refused.get(*place)
        };
        let absent = (0..).zip(clients.iter().map(|(peer, _)| peer)).filter(is_absent).count();
        let mut declined: BTreeMap<Refused, u32> = BTreeMap::new();
        for (place, reason) in &current.declined {
            if !current.participants.get(*place) {
                let count = declined.entry(*reason).or_default();
                *count = count.saturating_add(1);
            }
        }
        Some(Turnout {
            round: current.live.header.round,
            header: current.digest,
            envelopes: current.participants.count_ones(),
            absent: u32::try_from(absent).unwrap_or(u32::MAX),
            declined: declined.into_iter().collect(),
        })
    }

    /// Tells the servers that too few take part, once the fold is late: a round that waits for clients does not wait for
    /// this aggregator.
    fn tell_turnout(&mut self, out: &mut Outbox) {
        let is_due = |current: &&mut Current| {
            matches!(current.stage, Stage::Folding(_)) && current.tell.due <= self.now
        };
        if self.current.as_mut().filter(is_due).is_none() {
            return;
        }
        let turnout = self.count_turnout();
        let Some(current) = &mut self.current else { return };
        current.tell.again(self.now, self.config.resend.saturating_mul(TURNOUT_PACE));
        let Some(turnout) = turnout else { return };
        if current.told.as_ref() != Some(&turnout) {
            let floor = current.live.header.min_participants;
            current.told = Some(turnout.clone());
            out.report(Report::TurnoutLow { floor, turnout: turnout.clone() });
        }
        let bytes = wire::encode(&Message::Turnout(turnout));
        for (server, _) in self.believed_servers() {
            out.push(Effect::Send { to: *server, bytes: Arc::clone(&bytes) });
        }
    }

    /// Ends the fold once everyone is in, or the deadline has passed and enough are in.
    fn finish_fold(&mut self, out: &mut Outbox) {
        let Some(current) = &mut self.current else { return };
        let header = &current.live.header;
        // Asked after every envelope, so it counts no bits.
        let (count, everyone) = (current.heard.len(), current.heard.len() == current.everyone);
        let late = current.since.after(self.config.fold_deadline) <= self.now;
        let floor = if self.checks.enforce(Check::ParticipantFloor) { header.min_participants } else { 0 };
        if count < index(floor.max(1)) || !(everyone || late) {
            return;
        }
        if let Stage::Folding(fold) = &mut current.stage {
            assert!(
                index(current.participants.count_ones()) == count,
                "for every participant the evidence is kept"
            );
            assert!(current.participants.is_disjoint(&current.refused), "no refused client is folded");
            let body = core::mem::replace(fold, Fold::new(0)).into_body();
            current.stage = Stage::Signing;
            current.lacked = current.told.take();
            out.push(Effect::Work(Job::SignAggregate {
                log: header.log,
                round: header.round,
                header: current.digest,
                participants: current.participants.clone(),
                body,
            }));
        }
    }

    fn aggregate_applied(&mut self, from: PeerId, round: Round, header: Digest) {
        let Some(current) = &mut self.current else { return };
        if current.digest != header || current.live.header.round != round {
            return;
        }
        if let Stage::Forwarding { applied, .. } = &mut current.stage {
            applied.insert(from);
            let roster = &current.live.header.servers;
            let confirmed = roster.iter().filter(|server| applied.contains(&server.peer)).count();
            if is_majority(confirmed, roster.len()) {
                current.stage = Stage::Over;
            }
        }
    }

    /// A server sent a finalised round.
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
        if let Some(known) = self.headers.iter().find(|known| known.round == record.round) {
            if known.digest != record.header {
                return refused(Refused::WrongHeader);
            }
            if known.roster != record.servers {
                return refused(Refused::WrongRoster);
            }
            if known.previous != record.previous && self.checks.enforce(Check::ChainRecords) {
                return refused(Refused::WrongPrevious);
            }
        }
        let is_known = self.headers.iter().any(|known| known.round == record.round);
        let mut kept =
            Kept { record, digest, signatures: BTreeMap::new(), forwarded: false, confirmed: false };
        kept.add(signatures, &self.checks);
        if !is_majority(kept.signatures.len(), kept.record.servers.len()) {
            return refused(Refused::BadSignature);
        }
        // Without its header, the roster is the record's own word.
        let signers = kept.signatures.keys().copied().collect();
        if !is_known && (self.belief.is_blank() || !self.stand_for(&signers)) {
            return refused(Refused::WrongRoster);
        }
        if let Some(current) = &mut self.current
            && current.digest == kept.record.header
        {
            current.stage = Stage::Over;
        }
        self.records.insert(kept.record.round, kept);
        self.prune_records();
        self.forward_records(out);
        Ok(())
    }

    /// Further signatures of a record came.
    fn record_signed(&mut self, signatures: &[RecordSignature], out: &mut Outbox) {
        let rounds: BTreeSet<Round> = signatures.iter().map(|signature| signature.round).collect();
        for round in rounds {
            if let Some(kept) = self.records.get_mut(&round) {
                kept.add(signatures, &self.checks);
            }
        }
        self.forward_records(out);
    }

    /// Hands records to all clients, once when they have a majority and once when they have all signatures.
    fn forward_records(&mut self, out: &mut Outbox) {
        for kept in self.records.values_mut() {
            let message = if kept.forwarded {
                if kept.confirmed || !kept.complete() {
                    continue;
                }
                Message::RecordSigned { signatures: kept.signatures.values().copied().collect() }
            } else {
                kept.message()
            };
            kept.forwarded = true;
            kept.confirmed = kept.complete();
            let bytes = wire::encode(&message);
            for peer in self.clients.keys() {
                out.push(Effect::Send { to: *peer, bytes: Arc::clone(&bytes) });
            }
        }
        if let Some((round, _)) = &self.missing
            && self.records.get(round).is_some_and(|kept| kept.confirmed)
        {
            self.missing = None;
        }
    }

    fn prune_records(&mut self) {
        let bytes = |records: &BTreeMap<Round, Kept>| {
            records.values().map(|kept| kept.record.broadcast.len()).fold(0, usize::saturating_add)
        };
        while self.records.len() > 1
            && (self.records.len() > RECORDS_KEPT || bytes(&self.records) > RECORD_BYTES_KEPT)
        {
            self.records.pop_first();
        }
    }

    /// A client asks for records; answered at most once per [`Config::resend`].
    fn records_wanted(&mut self, from: PeerId, round: Round, out: &mut Outbox) {
        let client = self.clients.get_mut(&from).expect("the caller has looked");
        if client.served.is_some_and(|at| self.now < at.after(self.config.resend)) {
            return;
        }
        client.served = Some(self.now);
        for kept in self.records.range(round..).map(|(_, kept)| kept).take(RECORDS_PER_ANSWER) {
            send(out, from, &kept.message());
        }
        self.send_disclaimed(from, round, out);
    }

    /// Servers say that they gave no partial under abandoned headers. Clients are told of each header once, as soon as
    /// its whole roster has said so: before that, it means nothing to them.
    fn disclaimed(&mut self, disclaimers: &[Disclaimer], out: &mut Outbox) -> Verdict {
        for disclaimer in disclaimers {
            let known = self.headers.iter_mut().find(|known| known.digest == disclaimer.header);
            // A header that no client was shown, or that is too old, is of no interest.
            let Some(known) = known.filter(|_| self.log == Some(disclaimer.log)) else { continue };
            if known.disclaimers.contains_key(&disclaimer.server) {
                continue;
            }
            if known.round != disclaimer.round {
                return Err(("disclaimed", Refused::WrongRound));
            }
            if !known.roster.contains(&disclaimer.server) {
                return Err(("disclaimed", Refused::NotInRoster));
            }
            if !disclaimer.verify_with(&self.checks) {
                return Err(("disclaimed", Refused::BadSignature));
            }
            known.disclaimers.insert(disclaimer.server, *disclaimer);
            if let Some(message) = known.disclaimed() {
                let bytes = wire::encode(&message);
                for peer in self.clients.keys() {
                    out.push(Effect::Send { to: *peer, bytes: Arc::clone(&bytes) });
                }
            }
        }
        Ok(())
    }

    /// Tells a client of the newest disclaimed headers from this round on.
    fn send_disclaimed(&self, to: PeerId, from: Round, out: &mut Outbox) {
        let newest = self.headers.iter().rev().take_while(|known| known.round >= from);
        for message in newest.filter_map(Known::disclaimed).take(DISCLAIMED_PER_ANSWER) {
            send(out, to, &message);
        }
    }

    /// Servers say that they leave for good. Clients are told once of each, and when they link.
    fn farewell(&mut self, announcements: &[Announcement], out: &mut Outbox) -> Verdict {
        let mut fresh = false;
        for announcement in announcements {
            let known = self.farewells.get(&announcement.server);
            if Some(announcement.log) != self.log
                || known.is_some_and(|known| known.counter >= announcement.counter)
            {
                continue;
            }
            if announcement.standing != Standing::Leaving {
                return Err(("retired", Refused::Malformed));
            }
            if !announcement.verify() {
                return Err(("retired", Refused::BadSignature));
            }
            if known.is_none() && self.farewells.len() >= FAREWELLS_KEPT {
                self.farewells.pop_first();
            }
            self.farewells.insert(announcement.server, *announcement);
            fresh = true;
        }
        if fresh {
            let bytes = wire::encode(&self.retired());
            for peer in self.clients.keys() {
                out.push(Effect::Send { to: *peer, bytes: Arc::clone(&bytes) });
            }
        }
        Ok(())
    }

    fn retired(&self) -> Message {
        Message::Retired { announcements: self.farewells.values().copied().collect() }
    }

    /// Does what is due.
    fn advance(&mut self, out: &mut Outbox) {
        if self.bundle.is_none() && self.making.is_none() {
            self.make_bundle(self.config.epoch, true, out);
        }
        self.repeat_bundle(out);
        self.repeat_batch(out);
        self.repeat_wanted(out);
        self.plan_batch(out);
        self.pin(out);
        self.finish_fold(out);
        self.tell_turnout(out);
        self.repeat_aggregate(out);
        self.repeat_missing(out);
    }

    fn repeat_bundle(&mut self, out: &mut Outbox) {
        let (Some(bundle), None) = (&self.bundle, self.making) else { return };
        let pace = self.config.resend.saturating_mul(BUNDLE_PACE);
        let mut message = None;
        for (peer, server) in &mut self.servers {
            if server.log.is_none() && server.bundle.due <= self.now {
                if self.belief.believes(peer) {
                    server.bundle.again(self.now, pace);
                } else {
                    // It may answer with the whole registry each time, and not be heard.
                    server.bundle.back_off(self.now, pace);
                }
                let bytes = message.get_or_insert_with(|| wire::encode(&Message::Bundle(bundle.clone())));
                out.push(Effect::Send { to: *peer, bytes: Arc::clone(bytes) });
            }
        }
    }

    /// The server for an attempt: the lowest that speaks of the log first, then one after the other.
    fn server(&self, attempts: u32) -> Option<PeerId> {
        let speak = self.believed_servers().filter(|(_, server)| server.log == self.log);
        let servers: Vec<PeerId> = speak.map(|(peer, _)| *peer).collect();
        let attempts = usize::try_from(attempts).unwrap_or(0);
        servers.get(attempts.checked_rem(servers.len())?).copied()
    }

    fn repeat_wanted(&mut self, out: &mut Outbox) {
        let Some(mut wanted) = self.wanted.filter(|wanted| wanted.due <= self.now) else { return };
        match self.server(wanted.attempts) {
            Some(server) => {
                send(out, server, &Message::RegistryWanted);
                wanted.again(self.now, self.config.resend);
            }
            None => wanted.due = self.now.after(self.config.resend),
        }
        self.wanted = Some(wanted);
    }

    fn repeat_batch(&mut self, out: &mut Outbox) {
        let (now, resend) = (self.now, self.config.resend);
        let Some(batch) = self.batch.as_ref() else { return };
        let (Some(message), true) = (batch.message.clone(), batch.retry.due <= now) else { return };
        if batch.retry.attempts >= BATCH_PATIENCE {
            // Perhaps one entry makes the committee refuse them all: try fewer, and set a single culprit aside.
            self.batch_len = (self.batch_len.min(batch.register.len().max(batch.expire.len())) / 2).max(1);
            // Or this node's idea of the registry is wrong.
            self.wanted.get_or_insert(Retry::at(now));
            let peers = self.end_batch();
            if let [peer] = peers.as_slice()
                && let Some(client) = self.clients.get_mut(peer)
            {
                client.not_before = now.after(resend.saturating_mul(CLIENT_PENALTY));
            }
            for peer in peers {
                self.enqueue(peer);
            }
            return;
        }
        let server = self.server(batch.retry.attempts);
        let Some(batch) = &mut self.batch else { return };
        match server {
            Some(to) => {
                batch.retry.again(now, resend);
                out.push(Effect::Send { to, bytes: message });
            }
            None => batch.retry.due = now.after(resend),
        }
    }

    /// A server says that a client of the outstanding batch may not register. Once most servers say so, the client is
    /// set aside and told: one server alone must not be able to keep a client out.
    fn client_barred(&mut self, server: PeerId, client: &PeerId, out: &mut Outbox) {
        let servers = self.servers.values().filter(|server| server.log == self.log).count();
        let Some(batch) = &mut self.batch else { return };
        if !batch.register.contains(client) {
            return;
        }
        let says = batch.barred.entry(*client).or_default();
        let fresh = says.insert(server);
        if !is_majority(says.len(), servers) {
            // Another one may take it.
            if fresh {
                batch.retry.due = self.now;
            }
            return;
        }
        let not_before = self.now.after(self.config.resend.saturating_mul(CLIENT_PENALTY));
        if let Some(client) = self.clients.get_mut(client) {
            client.not_before = not_before;
        }
        for peer in self.end_batch() {
            self.enqueue(peer);
        }
        send(out, *client, &Message::BundleRefused { reason: Refused::Barred, last: None });
    }

    /// Has the next change of the registry signed, if there is something to change.
    fn plan_batch(&mut self, out: &mut Outbox) {
        let (None, Some(log), Some(registry)) = (&self.batch, self.log, self.replicas.back()) else { return };
        while let Some((at, peer)) = self.later.first().copied().filter(|(at, _)| *at <= self.now) {
            self.later.remove(&(at, peer));
            self.queue.push_back(peer);
        }
        let mut register = Vec::new();
        // A client that was linked anew may stand in the queue twice.
        let mut taken = BTreeSet::new();
        while register.len() < self.batch_len
            && let Some(peer) = self.queue.pop_front()
        {
            let Some(client) = self.clients.get_mut(&peer).filter(|_| taken.insert(peer)) else { continue };
            let entry = registry.get(&peer);
            match &client.bundle {
                Some(bundle) if entry.is_none_or(|entry| entry.epoch < bundle.epoch) => {
                    if client.not_before > self.now {
                        self.later.insert((client.not_before, peer));
                    } else {
                        register.push(bundle.clone());
                    }
                }
                Some(_) | None => client.queued = false,
            }
        }
        let due = |since: &Time| since.after(self.config.expire_after) <= self.now;
        let expire: Vec<(PeerId, Epoch)> = self
            .absent_since
            .iter()
            .take_while(|(since, _)| due(since))
            .filter_map(|(_, peer)| Some((*peer, registry.get(peer)?.epoch)))
            .take(self.batch_len)
            .collect();
        if register.is_empty() && expire.is_empty() {
            return;
        }
        let counter = registry.counter().next();
        self.batch = Some(Batch {
            counter,
            register: register.iter().map(|bundle| bundle.peer).collect(),
            expire: expire.iter().map(|(peer, _)| *peer).collect(),
            barred: BTreeMap::new(),
            message: None,
            retry: Retry::at(Time::NEVER),
        });
        out.push(Effect::Work(Job::SignBatch { log, counter, register, expire }));
    }

    fn repeat_aggregate(&mut self, out: &mut Outbox) {
        let Some(current) = &mut self.current else { return };
        if let Stage::Forwarding { message, retry, applied, .. } = &mut current.stage
            && retry.due <= self.now
        {
            retry.back_off(self.now, self.config.resend);
            let believed = self.servers.keys().filter(|server| self.belief.believes(server));
            for peer in believed.filter(|peer| !applied.contains(*peer)) {
                out.push(Effect::Send { to: *peer, bytes: Arc::clone(message) });
            }
        }
    }

    fn repeat_missing(&mut self, out: &mut Outbox) {
        let Some((round, mut retry)) = self.missing.filter(|(_, retry)| retry.due <= self.now) else {
            return;
        };
        if retry.attempts >= RECORD_PATIENCE {
            self.missing = None;
            return;
        }
        if let Some(server) = self.server(retry.attempts) {
            send(out, server, &Message::RecordsWanted { from: round });
        }
        retry.again(self.now, self.config.resend);
        self.missing = Some((round, retry));
    }

    /// What holds between any two inputs.
    fn check(&self) {
        self.belief.check();
        assert!(self.rounds.len() <= LOGS_KEPT, "old logs are forgotten");
        assert_eq!(self.absent.len(), self.absent_since.len(), "both lists of absent clients are one");
        assert!(self.records.len() <= RECORDS_KEPT, "old records are forgotten");
        assert!(self.replicas.len() <= REPLICAS_KEPT, "old versions are forgotten");
        assert!(self.log.is_some() || self.replicas.is_empty(), "a registry is that of a log");
        if let Some(current) = &self.current {
            assert!(self.log == Some(current.live.header.log), "the live round is one of the log");
        }
    }
}

/// `Ok`, or what was refused and why.
type Verdict = Result<(), (&'static str, Refused)>;

impl Heard {
    /// Whether an envelope is the one that is in. It has to be what the client signed, and then the first one was as well:
    /// an honest client signs one envelope of a round. Looked into once for each client and round, so that nobody makes
    /// this node check signatures as often as it likes.
    fn is_repeated_by(&mut self, client: &PeerId, envelope: &Envelope<&[u8]>, checks: &impl Checks) -> bool {
        if envelope.signature != self.signature {
            return false;
        }
        match self.again {
            Again::TheSame(digest) => digest == envelope.signed_digest(),
            Again::Another => false,
            Again::Nothing => {
                let digest = envelope.signed_digest();
                let same = checks.verify(client, &digest, &self.signature);
                self.again = if same { Again::TheSame(digest) } else { Again::Another };
                same
            }
        }
    }
}

impl Known {
    /// The disclaimers of the header, if its whole roster gave one.
    fn disclaimed(&self) -> Option<Message> {
        let disclaimers: Option<Vec<_>> =
            self.roster.iter().map(|server| self.disclaimers.get(server).copied()).collect();
        Some(Message::Disclaimed { disclaimers: disclaimers? })
    }
}

impl Kept {
    /// Adds the signatures of this record that are its servers', each verified once.
    fn add(&mut self, signatures: &[RecordSignature], checks: &impl Checks) {
        for signature in signatures {
            if signature.record == self.digest
                && signature.round == self.record.round
                && signature.log == self.record.log
                && self.record.servers.contains(&signature.server)
                && !self.signatures.contains_key(&signature.server)
                && signature.verify_with(checks)
            {
                self.signatures.insert(signature.server, *signature);
            }
        }
    }

    fn complete(&self) -> bool {
        self.signatures.len() == self.record.servers.len()
    }

    fn message(&self) -> Message {
        Message::Record {
            record: self.record.clone(),
            signatures: self.signatures.values().copied().collect(),
        }
    }
}

/// The epoch after a bundle that another node holds for this one's last; `None` if it is not this node's.
pub(crate) fn succeeding(last: &Bundle, me: &PeerId, role: Role) -> Option<Epoch> {
    let own = last.peer == *me && last.role == role && last.verify();
    own.then(|| last.epoch.0.checked_add(1)).flatten().map(Epoch)
}

/// The reason of a refusal, in the machine's terms.
pub(crate) const fn reason(invalid: &Invalid) -> Refused {
    match invalid {
        Invalid::EmptyRoster | Invalid::DisorderedRoster => Refused::UnsortedRoster,
        Invalid::SignatureCount { .. } => Refused::NotLive,
        Invalid::Signer { .. } => Refused::NotInRoster,
        Invalid::OtherHeader { .. } => Refused::WrongHeader,
        Invalid::Refusals { .. } => Refused::WrongLength,
        Invalid::Signature { .. } => Refused::BadSignature,
    }
}

fn send(out: &mut Outbox, to: PeerId, message: &Message) {
    out.push(Effect::Send { to, bytes: wire::encode(message) });
}

fn refuse(out: &mut Outbox, kind: &'static str, reason: Refused, from: PeerId) {
    out.report(Report::Refused { kind, reason, from: Some(from) });
}
