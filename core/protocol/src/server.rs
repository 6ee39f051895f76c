//! The role of a committee server: what it signs, unblinds and proposes, and how it leaves.
//!
//! The machine is level-triggered. Every input updates what the server knows; then `advance` lists what it *wants*
//! (`Want`) and does what is due. A want that was tried is tried again after [`Config::resend`] until the replicated
//! state shows that it is fulfilled, so a lost proposal costs time and nothing else.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::bitmap::Bitmap;
use crate::checks::{Check, Checks};
use crate::committee::{self, Committee, OpenRound, SignedRecord};
use crate::id::{Digest, Epoch, LogId, PeerId, Role, Round};
use crate::machine::{Abandonment, Deadline, Done, Effect, Job, Outbox, Report};
use crate::message::{
    Aggregate, Announcement, Bundle, Command, Disclaimer, Floors, Header, HeaderSignature, Message, Partial,
    RosterServer, Standing, Turnout,
};
use crate::pad::End;
use crate::parts::Parts;
use crate::random::Random;
use crate::refused::Refused;
use crate::registry::ClientRegistry;
use crate::retry::Retry;
use crate::time::Time;
use crate::wire;

/// What one server is told at its start. All but `committee` may differ between the servers of a committee.
#[derive(Clone, Debug)]
pub struct Config {
    /// What all servers have in common.
    pub committee: committee::Config,
    /// This server.
    pub me: PeerId,
    /// The smallest rounds that this server takes part in.
    pub floors: Floors,
    /// From one opening to the next (`ZIPNET_ROUND_PERIOD`).
    pub round_period: Duration,
    /// How long a round may stay open (`ZIPNET_ROUND_DEADLINE`).
    pub round_deadline: Duration,
    /// The only aggregator that this server approves; `None`: the first one seen.
    pub aggregator: Option<PeerId>,
    /// How many voters the first round of a log waits for.
    pub first_round_voters: usize,
    /// After how long something that did not show up in the log is tried again.
    pub resend: Duration,
    /// After how long the round key is replaced, between rounds.
    pub rekey_after: Duration,
    /// After how long it is wiped, whatever is open: a leader that never lets a round end keeps no key alive by it.
    pub key_age_max: Duration,
    /// How long a stop may wait for the partial of the open round.
    pub partial_budget: Duration,
    /// After how long a stop is over, whatever is still missing.
    pub stop_budget: Duration,
}

/// What happened to a server. Complete: a log of (time, input) is a whole run, and holds no secret.
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
    /// A peer can be reached; servers have proven to know the committee secret.
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
    /// So many attempts in a row to reach a server have failed.
    ProbesFailed {
        /// Who does not answer.
        peer: PeerId,
        /// In a row.
        failures: u32,
    },
    /// A job is done.
    Done(Done),
    /// The next command of the log is committed.
    Committed {
        /// Its position.
        index: u64,
        /// Encoded by [`wire::encode_command`].
        command: Vec<u8>,
    },
    /// The voters of the group changed.
    Voters {
        /// All of them.
        voters: BTreeSet<PeerId>,
    },
    /// Who leads the group.
    Led {
        /// `None` while nobody does.
        leader: Option<PeerId>,
    },
    /// Whether this server has applied what the leader had committed when it was last heard.
    CaughtUp(bool),
    /// First boot of a committee: start a log of this name as soon as this server leads.
    StartLog {
        /// Fresh.
        log: LogId,
    },
    /// The operator removes this server for good: announce it.
    Retire,
    /// The operator says that another server is dead for good.
    RetireDead {
        /// Who.
        server: PeerId,
    },
    /// The operator of this server approves an aggregator, whatever was configured.
    Approve {
        /// Who.
        aggregator: PeerId,
    },
    /// All clients that the operator of this server refuses. Whoever is not among them is refused no more.
    Refuse {
        /// Whom.
        clients: BTreeSet<PeerId>,
    },
    /// Leave now, in order.
    Stop,
}

/// Something the server wants to see in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    StartLog,
    Register,
    Approve(PeerId),
    SignHeader(Digest),
    Aggregate(Digest),
    Partial(Digest),
    SignRecord(Digest),
    Open(Round),
    Retire,
    Testify(PeerId),
    Refuse(PeerId),
    Withdraw(PeerId),
    Depart,
    Carry(PeerId),
}

/// Where the server stands with the open round.
#[derive(Clone, Debug)]
struct Promise {
    header: Digest,
    /// Its conscience's verdict, as of the log position of the opening.
    verdict: Result<(), Refused>,
    /// Of the bundle whose key the header lists.
    key_epoch: Epoch,
    signature: Option<HeaderSignature>,
    partial: Option<Box<Partial>>,
    /// The keyring does not hold the key that the header lists, or has promised otherwise with it.
    withheld: bool,
}

/// What a peer asks a server for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    /// The newest records.
    Records,
    /// The client registry.
    Registry,
    /// To be approved as the aggregator.
    Approval,
    /// To tell the operator how many clients take part.
    Turnout,
}

impl Asked {
    /// How often it is answered within [`Config::resend`]. An aggregator that is told of its last epoch, or that misses a
    /// change of the registry while it gets another, asks again at once.
    const fn most(self) -> u8 {
        match self {
            Self::Records => 1,
            Self::Registry | Self::Turnout => 2,
            Self::Approval => 4,
        }
    }
}

/// A round that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// Which.
    pub round: Round,
    /// When this server saw that.
    pub at: Time,
    /// Why.
    pub reason: Abandonment,
    /// The servers that it waited for.
    pub missing: Vec<PeerId>,
}

/// How far an orderly stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stopping {
    since: Time,
    handed_over: Option<Time>,
    finished: bool,
}

/// The machine of a committee server.
#[derive(Debug)]
pub struct Server<C> {
    config: Config,
    checks: C,
    random: Random,
    committee: Committee<C>,
    parts: Parts,
    now: Time,
    links: BTreeMap<PeerId, Role>,
    /// What peers asked for within [`Config::resend`], and how often that was answered.
    asked: BTreeMap<(PeerId, Asked), u8>,
    /// The same by when each was asked for first, oldest first.
    asked_since: VecDeque<(Time, (PeerId, Asked))>,
    failures: BTreeMap<PeerId, u32>,
    leader: Option<PeerId>,
    caught_up: bool,
    new_log: Option<LogId>,
    /// This process's own registration was applied, and no snapshot of a peer since: what the log says from there on
    /// happens while this process takes part. All before it may be history, whoever it is about.
    present: bool,
    /// The open round was opened while this process took part, or by it.
    round_is_news: bool,
    /// The newest header that this process proposed.
    own_opening: Option<Digest>,
    /// How many rounds this process has seen finished while it took part.
    rounds: u64,
    /// The last of them: which, how many participants, and when this server saw it.
    newest: Option<(Round, u32, Time)>,
    /// This process's bundle, once made.
    bundle: Option<Bundle>,
    /// The registry with whose clients keys were agreed on, or are being, and the epoch of the bundle with the round key.
    agreed: Option<(Epoch, ClientRegistry)>,
    bundle_made: Time,
    bundle_wanted: bool,
    promise: Option<Promise>,
    /// Partials that are being made: how many participants each has, by header.
    making: BTreeMap<Digest, u32>,
    /// The last round whose header this process began to sign, and its log: never another header of that round, of an
    /// earlier one, or of another log. Never forgotten.
    signed: Option<(LogId, Round)>,
    /// The newest records that this process began to sign, by round: never another one of these rounds, nor one of an
    /// earlier round.
    records_signed: BTreeMap<Round, Digest>,
    /// The last round for which this store had to rely on others; `None` until it has registered. It signs no record up
    /// to it.
    followed: Option<Round>,
    /// Headers for which a disclaimer is being signed.
    disclaiming: BTreeSet<Digest>,
    /// The newest disclaimers, oldest first, for an aggregator that was away.
    disclaimers: VecDeque<Disclaimer>,
    /// When this server saw the open round opened, or took over the leadership.
    opened_at: Time,
    /// When the open round came to wait for something else.
    advanced_at: Time,
    last_opened: Option<Time>,
    /// A server outside the open round's roster has registered.
    newcomer: bool,
    /// Servers that the last abandoned round waited for in vain.
    silent: BTreeSet<PeerId>,
    /// The last round that this process saw given up, until one is finalised.
    abandoned: Option<Abandoned>,
    /// When this server saw the newest record made.
    finalized_at: Time,
    /// The newest record that this leader gave to the aggregator, and whether it was confirmed.
    published: Option<(Digest, bool)>,
    /// What the aggregator said last about the turnout of a round, until one is finalised, or given up for another reason.
    turnout: Option<Turnout>,
    /// What the aggregator sent for the live round.
    held: Option<Box<Aggregate>>,
    /// Since when.
    held_at: Time,
    /// The aggregator that asks to be approved and may be: the configured one, or else the first one seen.
    offer: Option<Bundle>,
    /// The aggregator that the operator of this process has approved since its start.
    approved: Option<PeerId>,
    retiring: bool,
    /// The clients that the operator of this server refuses.
    unwanted: BTreeSet<PeerId>,
    dead: BTreeSet<PeerId>,
    /// What other servers said when they left and nobody led, by server: it is brought into the log once they are gone.
    entrusted: BTreeMap<PeerId, Announcement>,
    stopping: Option<Stopping>,
    tried: BTreeMap<Want, Retry>,
}

/// After how many failed probes a server testifies that another is gone for good.
pub const PROBES_MIN: u32 = 3;

/// How many records a server remembers to have signed.
const RECORDS_SIGNED: usize = committee::RECORDS_KEPT;

/// The most disclaimers that a server keeps for its aggregator.
pub const DISCLAIMERS_KEPT: usize = 8;

impl<C: Checks> Server<C> {
    /// A server at its start. `seed` must be fresh: the nonces of headers come from it.
    pub fn new(config: Config, checks: C, seed: [u8; 32]) -> Self {
        let committee = Committee::new(config.committee.clone(), checks.clone());
        Self {
            config,
            checks,
            random: Random::new(seed),
            committee,
            parts: Parts::new(),
            now: Time::default(),
            links: BTreeMap::new(),
            asked: BTreeMap::new(),
            asked_since: VecDeque::new(),
            failures: BTreeMap::new(),
            leader: None,
            caught_up: false,
            new_log: None,
            present: false,
            round_is_news: false,
            own_opening: None,
            rounds: 0,
            newest: None,
            bundle: None,
            agreed: None,
            bundle_made: Time::default(),
            bundle_wanted: false,
            promise: None,
            making: BTreeMap::new(),
            signed: None,
            records_signed: BTreeMap::new(),
            followed: None,
            disclaiming: BTreeSet::new(),
            disclaimers: VecDeque::new(),
            opened_at: Time::default(),
            advanced_at: Time::default(),
            last_opened: None,
            newcomer: false,
            silent: BTreeSet::new(),
            abandoned: None,
            finalized_at: Time::default(),
            published: None,
            turnout: None,
            held: None,
            held_at: Time::default(),
            offer: None,
            approved: None,
            retiring: false,
            unwanted: BTreeSet::new(),
            dead: BTreeSet::new(),
            entrusted: BTreeMap::new(),
            stopping: None,
            tried: BTreeMap::new(),
        }
    }

    /// Applies one input. The only function that changes a server, but for [`Server::restore`], [`Server::install`] and
    /// [`Server::follow`].
    ///
    /// # Panics
    /// If effects of an earlier call were not drained, or an invariant of the core is broken.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Outbox) {
        assert!(out.is_empty(), "the driver drains all effects before the next input");
        self.now = self.now.max(now);
        match input {
            Input::Tick => {}
            Input::Received { from, bytes } => self.received(from, &bytes, out),
            Input::Linked { peer, role } => self.linked(peer, role, out),
            Input::Unlinked { peer } => {
                self.links.remove(&peer);
                self.offer.take_if(|offer| offer.peer == peer);
            }
            Input::ProbesFailed { peer, failures } => {
                self.failures.insert(peer, failures);
            }
            Input::Done(done) => self.done(done, out),
            Input::Committed { index, command } => self.committed(index, &command, out),
            Input::Voters { voters } => self.committee.set_voters(voters),
            Input::Led { leader } => self.led(leader),
            Input::CaughtUp(caught_up) => self.caught_up = caught_up,
            Input::StartLog { log } => self.new_log = Some(log),
            Input::Retire => self.retiring = true,
            Input::RetireDead { server } => self.retire_dead(server, out),
            Input::Approve { aggregator } => {
                self.approved = Some(aggregator);
                self.offer.take_if(|offer| offer.peer != aggregator);
            }
            Input::Refuse { clients } => self.unwanted = clients,
            Input::Stop => {
                let stopping = Stopping { since: self.now, handed_over: None, finished: false };
                self.stopping.get_or_insert(stopping);
            }
        }
        self.advance(out);
        self.check();
    }

    /// When to call `handle` with `Tick` if nothing else happens first, and what for.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        let mut deadline = Deadline::NONE;
        // A moment that has passed waits for something else than time.
        let mut note = |at: Time, why| {
            if at > self.now {
                deadline = deadline.or(at, why);
            }
        };
        if let Some(stopping) = self.stopping {
            if stopping.finished {
                return deadline;
            }
            note(stopping.since.after(self.config.partial_budget), "the last partial");
            note(stopping.since.after(self.config.stop_budget), "the end of the stop");
        }
        for retry in self.tried.values() {
            note(retry.due, "an answer from the log");
        }
        if self.leads() && self.stopping.is_none() {
            match self.committee.open() {
                Some(_) => note(self.opened_at.after(self.config.round_deadline), "the open round"),
                None => note(self.next_opening(), "the next round"),
            }
        }
        if self.held.is_some() {
            note(self.held_at.after(self.config.resend), "the leader's own copy of the aggregate");
        }
        if self.unpublished().is_some() {
            note(self.finalized_at.after(self.config.resend), "the signatures of a record");
        }
        if self.bundle.is_some() {
            note(self.rekey_at(), "a fresh round key");
            note(self.key_ends_at(), "the end of the round key");
        }
        deadline
    }

    /// Starts from a snapshot that this server's own store has taken.
    ///
    /// # Errors
    /// If the bytes are not a snapshot; nothing changes then.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), committee::BadSnapshot> {
        self.parts.skip();
        self.committee.restore(snapshot)
    }

    /// Whether [`Server::install`] would take a peer's snapshot.
    ///
    /// # Errors
    /// Why it would not.
    pub fn examine(&self, snapshot: &[u8]) -> Result<(), committee::BadSnapshot> {
        self.examined(snapshot).map(drop)
    }

    fn examined(&self, snapshot: &[u8]) -> Result<Committee<C>, committee::BadSnapshot> {
        let committee = self.committee.examine(snapshot, &self.config.me)?;
        let signed = |kept: &SignedRecord| self.records_signed.get(&kept.record.round);
        let contradicts = |kept: &SignedRecord| signed(kept).is_some_and(|signed| *signed != kept.digest);
        if committee.records().iter().any(contradicts) {
            return Err(committee::BadSnapshot::Contradicts);
        }
        Ok(committee)
    }

    /// Replaces the replicated state by a peer's snapshot. Nobody vouches for what it holds, so nothing is promised on
    /// the ground of it: this costs the round key and whatever was promised for it, and the records up to here are
    /// followed, never signed. The server registers with another key once it has caught up.
    ///
    /// # Errors
    /// Why it is refused; nothing changes then.
    ///
    /// # Panics
    /// If effects of an earlier call were not drained.
    pub fn install(&mut self, snapshot: &[u8], out: &mut Outbox) -> Result<(), committee::BadSnapshot> {
        assert!(out.is_empty(), "the driver drains all effects before the next input");
        let committee = self.examined(snapshot)?;
        let kept = self.checks.enforce(Check::PromiseKept);
        if kept {
            self.forget_key(out);
        }
        self.promise = if kept { None } else { self.promise_by(&committee) };
        self.held = None;
        self.newcomer = false;
        self.silent.clear();
        self.abandoned = None;
        self.committee = committee;
        (self.present, self.round_is_news) = (false, false);
        self.parts.skip();
        let opened = self.committee.opened();
        self.followed = self.followed.map(|followed| followed.max(opened));
        self.check();
        Ok(())
    }

    /// What this server would have promised if the state were all that it remembers.
    fn promise_by(&self, committee: &Committee<C>) -> Option<Promise> {
        let open = committee.open()?;
        let signature = open.signatures.get(&self.config.me).cloned();
        let key_epoch = self.bundle.as_ref()?.epoch;
        Some(Promise {
            header: open.digest,
            verdict: Ok(()),
            key_epoch,
            signature,
            partial: None,
            withheld: false,
        })
    }

    /// The last round for which this store had to rely on others: its driver keeps it beside the store, and gives it to
    /// the next process by [`Server::follow`]. `None` until the store has registered for the first time.
    #[must_use]
    pub fn followed(&self) -> Option<Round> {
        self.followed
    }

    /// What [`Server::followed`] was when the store was last used. Called at the start, before anything else.
    pub fn follow(&mut self, followed: Option<Round>) {
        self.followed = followed;
    }

    /// Wipes the round key: no header that lists it gets anything from this server any more.
    fn forget_key(&mut self, out: &mut Outbox) {
        self.bundle = None;
        self.making.clear();
        if let Some(promise) = &mut self.promise {
            promise.withheld = true;
        }
        out.push(Effect::Work(Job::ForgetKey));
    }

    /// The replicated state as this server has applied it.
    #[must_use]
    pub fn committee(&self) -> &Committee<C> {
        &self.committee
    }

    /// What the newest records were made of, as far as this process has seen it.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Who leads, as far as this server knows.
    #[must_use]
    pub fn leader(&self) -> Option<PeerId> {
        self.leader
    }

    /// Peers that can be reached.
    #[must_use]
    pub fn links(&self) -> &BTreeMap<PeerId, Role> {
        &self.links
    }

    /// Whether this server's registration is in the log, with its present keys.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        let entry = self.committee.servers().get(&self.config.me);
        entry.is_some_and(|entry| entry.takes_part() && self.bundle.as_ref() == Some(&entry.bundle))
    }

    /// The last round that this process saw given up; `None` since a round was finalised.
    #[must_use]
    pub fn abandoned(&self) -> Option<&Abandoned> {
        self.abandoned.as_ref()
    }

    /// What the aggregator said last about a round that has too few participants; `None` since a round was finalised, or
    /// given up for another reason.
    #[must_use]
    pub fn turnout(&self) -> Option<&Turnout> {
        self.turnout.as_ref()
    }

    /// The only aggregator that this server approves, as its operator says; `None`: the first one seen.
    #[must_use]
    pub fn appointed(&self) -> Option<PeerId> {
        self.approved.or(self.config.aggregator)
    }

    /// Whether this server holds an aggregate that is not in the log yet.
    #[must_use]
    pub fn holds_aggregate(&self) -> bool {
        self.held.is_some()
    }

    /// Since when the open round waits for what it waits for, as this server saw it; since it took over the leadership, if
    /// that was later.
    #[must_use]
    pub fn waits_since(&self) -> Time {
        self.advanced_at.max(self.opened_at)
    }

    /// How many rounds this process has seen finished while it took part.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// The last of [`Server::rounds`]: which, how many participants, and when this server saw it.
    #[must_use]
    pub fn newest(&self) -> Option<(Round, u32, Time)> {
        self.newest
    }

    /// The newest header that this process proposed.
    #[must_use]
    pub fn own_opening(&self) -> Option<Digest> {
        self.own_opening
    }

    /// The clients that the operator of this server refuses, whatever the log says of them.
    #[must_use]
    pub fn unwanted(&self) -> &BTreeSet<PeerId> {
        &self.unwanted
    }

    /// Whether an orderly stop was asked for.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether this server's farewell is in the log and its departure is not.
    fn is_leaving(&self) -> bool {
        let entry = self.committee.servers().get(&self.config.me);
        entry.is_some_and(|entry| entry.standing == Standing::Leaving)
    }

    fn leads(&self) -> bool {
        self.leader == Some(self.config.me)
    }

    fn received(&mut self, from: PeerId, bytes: &[u8], out: &mut Outbox) {
        let Ok(message) = wire::decode(bytes) else {
            return refuse(out, "message", Refused::Malformed, from);
        };
        let role = self.links.get(&from).copied();
        match message {
            Message::Propose(command) => self.proposed(from, role, command, out),
            Message::Bundle(bundle) => self.offered(from, bundle, out),
            Message::Aggregate(aggregate) => self.aggregated(from, aggregate, out),
            Message::Turnout(turnout) => self.turned_out(from, turnout, out),
            Message::RegistryWanted => {
                if self.committee.aggregator().is_none_or(|aggregator| aggregator.peer != from) {
                    refuse(out, "registry-wanted", Refused::NotAggregator, from);
                } else if self.may_answer(from, Asked::Registry) {
                    self.send_registry(from, out);
                }
            }
            Message::RecordsWanted { from: round } => {
                if self.may_answer(from, Asked::Records) {
                    self.send_records(from, round, out);
                }
            }
            Message::TestifyWanted { server } => {
                if role != Some(Role::Server) {
                    refuse(out, "testify-wanted", Refused::WrongRole, from);
                } else if self.committee.servers().contains_key(&server) {
                    self.dead.insert(server);
                } else {
                    refuse(out, "testify-wanted", Refused::NotRegistered, from);
                }
            }
            Message::BundleRefused { .. }
            | Message::Live(_)
            | Message::LiveFor { .. }
            | Message::Envelope(_)
            | Message::AggregateApplied { .. }
            | Message::Registry { .. }
            | Message::RegistryChanged { .. }
            | Message::Record { .. }
            | Message::RecordSigned { .. }
            | Message::Retired { .. }
            | Message::Disclaimed { .. }
            | Message::Declined { .. } => refuse(out, "message", Refused::WrongRole, from),
        }
    }

    /// Whether a request of a peer is answered: only so often within [`Config::resend`], after which whoever was honest
    /// asks again. A request is a few bytes, and its answer can be megabytes. A new link changes nothing.
    fn may_answer(&mut self, peer: PeerId, what: Asked) -> bool {
        let (now, resend) = (self.now, self.config.resend);
        while let Some((_, over)) = self.asked_since.pop_front_if(|(since, _)| since.after(resend) <= now) {
            self.asked.remove(&over);
        }
        let count = self.asked.entry((peer, what)).or_insert_with(|| {
            self.asked_since.push_back((now, (peer, what)));
            0
        });
        if *count >= what.most() {
            return false;
        }
        *count = count.saturating_add(1);
        true
    }

    /// A proposal came over a link. Servers propose what they like, since each command is judged when it is applied;
    /// the aggregator proposes only changes of the client registry.
    fn proposed(&mut self, from: PeerId, role: Option<Role>, command: Command, out: &mut Outbox) {
        match role {
            Some(Role::Server) => {
                self.entrust(from, &command);
                if self.leads() {
                    out.push(Effect::Propose(command));
                }
            }
            Some(Role::Aggregator) if matches!(command, Command::ChangeClients(_)) => {
                if self.committee.aggregator().is_some_and(|aggregator| aggregator.peer == from) {
                    if !self.turns_away(from, &command, out) {
                        out.push(Effect::Propose(command));
                    }
                } else {
                    refuse(out, "propose", Refused::NotAggregator, from);
                }
            }
            Some(Role::Aggregator | Role::Client) | None => refuse(out, "propose", Refused::WrongRole, from),
        }
    }

    /// Keeps what a server says of its own leaving until the log has it: whoever says so may be gone before anybody leads.
    fn entrust(&mut self, from: PeerId, command: &Command) {
        let (Command::DepartServer(announcement) | Command::RetireServer(announcement)) = command else {
            return;
        };
        let fits = match announcement.standing {
            Standing::Registered => false,
            Standing::Departed => matches!(command, Command::DepartServer(_)),
            Standing::Leaving => matches!(command, Command::RetireServer(_)),
        };
        let is_own = announcement.server == from;
        if fits && is_own && is_missing(&self.committee, announcement) && announcement.verify() {
            self.entrusted.insert(from, *announcement);
        }
    }

    /// Says that this server leaves: to the log, and to every server that is here if nobody seems to bring it in there.
    fn say_farewell(&self, command: Command, out: &mut Outbox) {
        let is_away = |leader: PeerId| leader != self.config.me && !self.links.contains_key(&leader);
        let resend = self.config.resend;
        let is_late = self.stopping.is_some_and(|stopping| stopping.since.after(resend) <= self.now);
        if self.leader.is_none_or(is_away) || is_late {
            let others = self.links.iter().filter(|(peer, _)| self.leader != Some(**peer));
            for (peer, _) in others.filter(|(_, role)| **role == Role::Server) {
                send(out, *peer, &Message::Propose(command.clone()));
            }
        }
        out.push(Effect::Propose(command));
    }

    /// Whether a change of the registry lists clients that may not register. It would be refused as a whole, so the
    /// aggregator is told who they are.
    fn turns_away(&self, aggregator: PeerId, command: &Command, out: &mut Outbox) -> bool {
        let Command::ChangeClients(batch) = command else { return false };
        let barred: Vec<_> =
            batch.register.iter().filter(|bundle| self.committee.is_barred(&bundle.peer)).collect();
        for bundle in &barred {
            let (reason, last) = (Refused::Barred, Some(Bundle::clone(bundle)));
            send(out, aggregator, &Message::BundleRefused { reason, last });
        }
        if !barred.is_empty() {
            refuse(out, "propose", Refused::Barred, aggregator);
        }
        !barred.is_empty()
    }

    /// An aggregator shows its bundle.
    fn offered(&mut self, from: PeerId, bundle: Bundle, out: &mut Outbox) {
        if self.committee.aggregator() == Some(&bundle) && bundle.peer == from {
            if self.may_answer(from, Asked::Registry) {
                self.send_registry(from, out);
            }
            return;
        }
        if !self.may_answer(from, Asked::Approval) {
            return;
        }
        let registered = self.committee.aggregator();
        let last = self.committee.last_aggregator(&from);
        let other = |known: &Bundle| known.peer != from;
        let reason = if bundle.peer != from || bundle.role != Role::Aggregator {
            Some(Refused::WrongRole)
        } else if bundle.instance != self.config.committee.instance {
            Some(Refused::WrongInstance)
        } else if self.appointed().is_some_and(|appointed| appointed != from) {
            Some(Refused::AggregatorNotConfigured)
        } else if self.appointed().is_none() && registered.or(self.offer.as_ref()).is_some_and(other) {
            Some(Refused::NotAggregator)
        } else if last.is_some_and(|last| bundle.epoch <= last.epoch) {
            Some(Refused::StaleEpoch)
        } else if !bundle.verify() {
            Some(Refused::BadSignature)
        } else {
            None
        };
        match reason {
            Some(reason) => {
                let last = last.cloned();
                refuse(out, "bundle", reason, from);
                send(out, from, &Message::BundleRefused { reason, last });
            }
            None => self.offer = Some(bundle),
        }
    }

    /// The aggregator sent what it folded.
    fn aggregated(&mut self, from: PeerId, aggregate: Aggregate, out: &mut Outbox) {
        let reason = match self.committee.open() {
            None => Some(Refused::NoRound),
            Some(open) if open.header.aggregator != from => Some(Refused::NotAggregator),
            Some(open) if open.header.round != aggregate.round => Some(Refused::WrongRound),
            Some(open) if open.digest != aggregate.header => Some(Refused::WrongHeader),
            Some(open) if open.aggregate.is_some() => {
                let (round, header) = (aggregate.round, aggregate.header);
                return send(out, from, &Message::AggregateApplied { round, header });
            }
            // What the log would refuse does not have to be proposed first.
            Some(open) => match &open.refused {
                None => Some(Refused::NotLive),
                Some(refused) => {
                    let length = self.config.committee.params.vector_bytes();
                    let participants = &aggregate.participants;
                    let enough = participants.count_ones() >= open.header.min_participants
                        || !self.checks.enforce(Check::ParticipantFloor);
                    if aggregate.body.len() != length || participants.len() != open.header.clients.count {
                        Some(Refused::WrongLength)
                    } else if !participants.is_disjoint(refused) {
                        Some(Refused::RefusedClient)
                    } else {
                        (!enough).then_some(Refused::TooFewParticipants)
                    }
                }
            },
        };
        match reason {
            Some(reason) => refuse(out, "aggregate", reason, from),
            None => {
                if self.held.is_none() {
                    self.held_at = self.now;
                }
                self.held = Some(Box::new(aggregate));
            }
        }
    }

    /// The aggregator says that too few clients take part. It may be wrong about that as it may fold no round at all, so
    /// this is told to operators and used for nothing.
    fn turned_out(&mut self, from: PeerId, turnout: Turnout, out: &mut Outbox) {
        let Some(open) = self.committee.open() else { return };
        if open.header.aggregator != from {
            return refuse(out, "turnout", Refused::NotAggregator, from);
        }
        // What crosses with the end of a round or with an aggregate is no fault.
        if open.digest != turnout.header || open.header.round != turnout.round || open.aggregate.is_some() {
            return;
        }
        let floor = open.header.min_participants;
        if self.turnout.as_ref() != Some(&turnout) && self.may_answer(from, Asked::Turnout) {
            out.report(Report::TurnoutLow { floor, turnout: turnout.clone() });
            self.turnout = Some(turnout);
        }
    }

    fn linked(&mut self, peer: PeerId, role: Role, out: &mut Outbox) {
        self.links.insert(peer, role);
        self.failures.remove(&peer);
        // It lives: what an operator said about it is over, so that no later outage of it counts as its death.
        self.dead.remove(&peer);
        if self.leader == Some(peer) {
            // Whatever was proposed over the last link may be lost.
            self.tried.clear();
        }
        if self.committee.aggregator().is_some_and(|aggregator| aggregator.peer == peer) {
            self.published = None;
            self.send_farewells(out);
            self.send_live(out);
            if !self.disclaimers.is_empty() {
                let disclaimers = self.disclaimers.iter().copied().collect();
                send(out, peer, &Message::Disclaimed { disclaimers });
            }
        }
    }

    fn led(&mut self, leader: Option<PeerId>) {
        if self.leader == leader {
            return;
        }
        self.leader = leader;
        // Whatever was proposed to the last leader may be lost.
        self.tried.clear();
        if self.leads() {
            self.opened_at = self.now;
            self.published = None;
        }
    }

    fn retire_dead(&mut self, server: PeerId, out: &mut Outbox) {
        self.dead.insert(server);
        for (peer, role) in &self.links {
            if *role == Role::Server {
                send(out, *peer, &Message::TestifyWanted { server });
            }
        }
    }

    fn done(&mut self, done: Done, out: &mut Outbox) {
        match done {
            Done::KeyForgotten => {
                // A bundle that was made just before announces a key that is gone.
                self.bundle = None;
                self.bundle_wanted = false;
            }
            Done::Agreed => {}
            Done::BundleMade(bundle) => {
                self.bundle = Some(bundle);
                self.bundle_made = self.now;
                self.bundle_wanted = false;
                self.tried.remove(&Want::Register);
            }
            Done::Announced(announcement) => match announcement.standing {
                Standing::Registered => {
                    let fresh = self.bundle.as_ref().filter(|bundle| bundle.epoch == announcement.epoch);
                    if let Some(bundle) = fresh.cloned() {
                        out.push(Effect::Propose(Command::RegisterServer { bundle, announcement }));
                    }
                }
                Standing::Departed => self.say_farewell(Command::DepartServer(announcement), out),
                Standing::Leaving => self.say_farewell(Command::RetireServer(announcement), out),
            },
            Done::HeaderSigned(signature) => {
                let current = self.promise.as_mut().filter(|promise| promise.header == signature.header);
                if let Some(promise) = current.filter(|promise| !promise.withheld) {
                    let (round, header) = (signature.round, signature.header);
                    promise.signature = Some(signature.clone());
                    out.report(Report::HeaderSigned { round, header });
                    out.push(Effect::Propose(Command::SignHeader(signature)));
                }
            }
            Done::PartialMade(partial) => self.partial_made(partial, out),
            Done::RecordSigned(signature) => out.push(Effect::Propose(Command::SignRecord(signature))),
            Done::Disclaimed(disclaimer) => self.disclaimer_signed(disclaimer, out),
            Done::Testified(testimony) => out.push(Effect::Propose(Command::TestifyDead(testimony))),
            Done::Approved(approval) => out.push(Effect::Propose(Command::ApproveAggregator(approval))),
            Done::RefusalSigned(refusal) => out.push(Effect::Propose(Command::RefuseClient(refusal))),
            Done::Withheld { round: _, header } => {
                self.making.remove(&header);
                self.disclaiming.remove(&header);
                if let Some(promise) = self.promise.as_mut().filter(|promise| promise.header == header) {
                    promise.withheld = true;
                }
            }
            Done::AggregateSigned(_) | Done::BatchSigned(_) | Done::Sealed { .. } => {
                unreachable!("a server does not ask for the work of other roles")
            }
        }
    }

    fn partial_made(&mut self, partial: Box<Partial>, out: &mut Outbox) {
        let Some(participants) = self.making.remove(&partial.header) else { return };
        out.report(Report::PartialMade {
            log: partial.log,
            round: partial.round,
            header: partial.header,
            aggregate: partial.aggregate,
            participants,
            floor: self.config.floors.participants,
        });
        if let Some(promise) = self.promise.as_mut().filter(|promise| promise.header == partial.header) {
            promise.partial = Some(partial.clone());
            out.push(Effect::Propose(Command::SubmitPartial(*partial)));
        }
    }

    /// The round that this server promised a partial for is abandoned. If it has made none, it never will: the promise
    /// is forgotten, and the clients may know. Only the process that promised can tell.
    fn disclaim(&mut self, promise: &Promise, out: &mut Outbox) {
        let Some(signature) = &promise.signature else { return };
        let (log, round, header) = (signature.log, signature.round, promise.header);
        if promise.partial.is_some() || promise.withheld || self.making.contains_key(&header) {
            return;
        }
        self.disclaiming.insert(header);
        let key_epoch = promise.key_epoch;
        out.push(Effect::Work(Job::Disclaim { key_epoch, log, round, header }));
    }

    fn disclaimer_signed(&mut self, disclaimer: Disclaimer, out: &mut Outbox) {
        self.disclaiming.remove(&disclaimer.header);
        if self.disclaimers.len() == DISCLAIMERS_KEPT {
            self.disclaimers.pop_front();
        }
        self.disclaimers.push_back(disclaimer);
        out.report(Report::Disclaimed { round: disclaimer.round, header: disclaimer.header });
        if let Some(aggregator) = self.linked_aggregator() {
            send(out, aggregator, &Message::Disclaimed { disclaimers: [disclaimer].into() });
        }
    }

    fn committed(&mut self, index: u64, bytes: &[u8], out: &mut Outbox) {
        self.committee.chain(index, bytes);
        self.parts.enter(index, bytes);
        let Ok(command) = wire::decode_command(bytes) else {
            // The same bytes are in every server's log, so every server skips the entry.
            let report = Report::Refused { kind: "command", reason: Refused::Malformed, from: None };
            return out.tell(report, self.present);
        };
        let is_own = self.is_own(&command);
        let mut reports = Vec::new();
        let judged =
            if let Command::OpenRound(header) = &command { Some(self.judge_header(header)) } else { None };
        if let Err(reason) = self.committee.apply(index, &command, &mut reports) {
            let report = Report::Refused { kind: kind(&command), reason, from: None };
            out.tell(report, self.present || is_own);
            self.after_refusal(&command);
            return;
        }
        for mut report in reports {
            let is_news = self.is_news(&report, is_own);
            self.react(&mut report, judged, &command, is_news, out);
            out.tell(report, is_news);
        }
    }

    /// Whether this very process has brought the command into the log, as far as it can tell.
    fn is_own(&self, command: &Command) -> bool {
        match command {
            Command::StartLog { log } => self.new_log == Some(*log),
            Command::OpenRound(header) => self.own_opening.is_some_and(|own| own == header.digest()),
            Command::RegisterServer { bundle, .. } => self.bundle.as_ref() == Some(bundle),
            Command::SignHeader(_)
            | Command::SubmitAggregate(_)
            | Command::SubmitPartial(_)
            | Command::SignRecord(_)
            | Command::DepartServer(_)
            | Command::RetireServer(_)
            | Command::TestifyDead(_)
            | Command::ApproveAggregator(_)
            | Command::ChangeClients(_)
            | Command::RefuseClient(_) => false,
        }
    }

    /// Whether what the log says happens while this process takes part. The identity tells nothing: a server that has lost
    /// its disk reads of the rounds of its former one. Whatever is told of a round is news if its opening is.
    fn is_news(&mut self, report: &Report, is_own: bool) -> bool {
        let is_opening = matches!(report, Report::RoundOpened { .. });
        let is_of_round = matches!(
            report,
            Report::HeaderLive { .. }
                | Report::AggregateApplied { .. }
                | Report::PartialApplied { .. }
                | Report::RoundFinalized { .. }
                | Report::RoundAbandoned { .. }
        );
        if is_opening {
            self.round_is_news = self.present || is_own;
        }
        if is_opening || is_of_round { self.round_is_news } else { self.present || is_own }
    }

    /// A refused opening is made anew at once: the refusal says that the leader's view was old.
    fn after_refusal(&mut self, command: &Command) {
        if matches!(command, Command::OpenRound(_)) {
            self.tried.retain(|want, _| !matches!(want, Want::Open(_)));
        }
    }

    /// What follows from an applied command, on this server.
    fn react(
        &mut self,
        report: &mut Report,
        judged: Option<Result<(), Refused>>,
        command: &Command,
        is_news: bool,
        out: &mut Outbox,
    ) {
        let me = self.config.me;
        match report {
            Report::RoundOpened { header, digest, .. } => {
                self.opened_at = self.now;
                self.last_opened = Some(self.now);
                self.newcomer = false;
                self.held = None;
                let verdict = judged.unwrap_or(Err(Refused::NotInRoster));
                if let Err(reason) = verdict
                    && reason != Refused::NotInRoster
                {
                    let (round, header) = (header.round, *digest);
                    out.tell(Report::HeaderDeclined { round, header, reason }, is_news);
                }
                self.promise = Some(Promise {
                    header: *digest,
                    verdict,
                    key_epoch: self.bundle.as_ref().map(|bundle| bundle.epoch).unwrap_or_default(),
                    signature: None,
                    partial: None,
                    withheld: false,
                });
            }
            Report::HeaderLive { .. } => {
                self.advanced_at = self.now;
                self.send_live(out);
            }
            Report::AggregateApplied { round, header, .. } => {
                self.advanced_at = self.now;
                self.held = None;
                if let Some(aggregator) = self.linked_aggregator() {
                    let (round, header) = (*round, *header);
                    send(out, aggregator, &Message::AggregateApplied { round, header });
                }
            }
            Report::RoundFinalized { record, rostered, .. } => {
                *rostered = is_news && record.servers.contains(&me);
                if is_news {
                    self.rounds = self.rounds.saturating_add(1);
                    self.newest = Some((record.round, record.participants.count_ones(), self.now));
                }
                self.parts.finalised(record.round);
                self.promise = None;
                self.silent.clear();
                self.abandoned = None;
                self.turnout = None;
                self.finalized_at = self.now;
            }
            Report::RoundAbandoned { round, header, missing, reason, .. } => {
                let lacked = self.turnout.as_ref().is_some_and(|turnout| turnout.header == *header);
                if lacked && self.held.is_none() && *reason == Abandonment::NoAggregate {
                    *reason = Abandonment::TooFewEnvelopes;
                } else {
                    self.turnout = None;
                }
                self.abandoned = is_news.then(|| Abandoned {
                    round: *round,
                    at: self.now,
                    reason: *reason,
                    missing: missing.clone(),
                });
                if let Some(promise) = self.promise.take() {
                    self.disclaim(&promise, out);
                }
                self.silent = missing.iter().copied().filter(|peer| *peer != me).collect();
            }
            Report::ServerRegistered { server, .. } => {
                if *server == me && self.is_registered() {
                    self.present = true;
                    // Whatever an earlier store of this server did before its first registration, this one has only heard of.
                    self.followed.get_or_insert(self.committee.opened());
                }
                self.silent.remove(server);
                self.dead.remove(server);
                self.newcomer |= self.committee.open().is_some_and(|open| !open.lists(server));
            }
            Report::ServerRetired { server, .. } => {
                self.dead.remove(server);
            }
            Report::ServerLeaving { .. } => self.send_farewells(out),
            Report::AggregatorRegistered { aggregator } => {
                // Whoever is not configured has come too late.
                let appointed = self.appointed();
                let over =
                    |offer: &mut Bundle| appointed.is_none() || self.committee.aggregator() == Some(offer);
                self.offer.take_if(over);
                if self.links.contains_key(aggregator) {
                    self.send_registry(*aggregator, out);
                }
            }
            Report::ClientsChanged { version, .. } => {
                if let Some(aggregator) = self.linked_aggregator() {
                    if let Command::ChangeClients(batch) = command {
                        let (version, batch) = (*version, batch.clone());
                        send(out, aggregator, &Message::RegistryChanged { version, batch });
                    } else {
                        self.send_registry(aggregator, out);
                    }
                }
            }
            Report::LogStarted { .. }
            | Report::RecordConfirmed { .. }
            | Report::PartialApplied { .. }
            | Report::ServerDeparted { .. }
            | Report::ClientRefused { .. }
            | Report::RefusalWithdrawn { .. }
            | Report::Refused { .. }
            | Report::HeaderSigned { .. }
            | Report::HeaderDeclined { .. }
            | Report::PartialMade { .. }
            | Report::Disclaimed { .. }
            | Report::AggregateForwarded { .. }
            | Report::TurnoutLow { .. }
            | Report::ClientSeen { .. }
            | Report::Enrolled { .. }
            | Report::Sealed { .. }
            | Report::ServersBelieved { .. }
            | Report::HeaderUntrusted { .. }
            | Report::Published { .. }
            | Report::RecordSeen { .. }
            | Report::RecordsMissing { .. }
            | Report::RecordContradicted { .. } => {}
        }
    }

    /// A server's conscience: whether it signs this header, judged at the log position of the opening, before the
    /// opening is applied.
    fn judge_header(&self, header: &Header) -> Result<(), Refused> {
        let me = self.config.me;
        let listed = header.servers.iter().find(|server| server.peer == me).ok_or(Refused::NotInRoster)?;
        if self.stopping.is_some() {
            return Err(Refused::Stopping);
        }
        if self.committee.log() != Some(header.log) {
            return Err(Refused::WrongLog);
        }
        if header.group != self.config.committee.group {
            return Err(Refused::WrongGroup);
        }
        if self.bundle.as_ref().map(RosterServer::from) != Some(*listed) {
            return Err(Refused::ForeignKey);
        }
        if header.previous != self.committee.previous() && self.checks.enforce(Check::StateDigest) {
            return Err(Refused::WrongPrevious);
        }
        if header.min_participants < self.config.floors.participants
            && self.checks.enforce(Check::ParticipantFloor)
        {
            return Err(Refused::BelowFloor);
        }
        let all = self.committee.roster().len();
        let floor = self.config.floors.servers.and_then(|floor| usize::try_from(floor).ok()).unwrap_or(all);
        if header.servers.len() < floor {
            return Err(Refused::RosterTooSmall);
        }
        let promised = self.signed.is_some_and(|(log, round)| {
            if log == header.log {
                round >= header.round && self.checks.enforce(Check::RoundRises)
            } else {
                self.checks.enforce(Check::PromiseKept)
            }
        });
        if promised { Err(Refused::AlreadyPromised) } else { Ok(()) }
    }

    /// Whether this server may sign a record: it has seen it made by entries of its own log, from the opening on, and has
    /// signed no other one of that round.
    fn vouches_for(&self, kept: &SignedRecord) -> bool {
        if !self.checks.enforce(Check::RecordsApplied) {
            return true;
        }
        let round = kept.record.round;
        let signed = &self.records_signed;
        let forgotten = signed.len() >= RECORDS_SIGNED
            && signed.first_key_value().is_some_and(|(oldest, _)| round < *oldest);
        self.followed.is_some_and(|followed| round > followed)
            && !forgotten
            && signed.get(&round).is_none_or(|record| *record == kept.digest)
    }

    fn advance(&mut self, out: &mut Outbox) {
        if self.stopping.is_some_and(|stopping| stopping.finished) {
            return;
        }
        let idle = self.committee.open().is_none() && !self.is_leaving();
        if self.bundle.is_some() && self.key_ends_at() <= self.now {
            self.forget_key(out);
        } else if self.bundle.is_some() && self.rekey_at() <= self.now && idle {
            self.bundle = None;
        }
        self.entrusted.retain(|_, announcement| is_missing(&self.committee, announcement));
        let wanted = self.wanted();
        self.tried.retain(|want, _| wanted.contains(want));
        for want in wanted {
            let retry = self.tried.entry(want).or_insert(Retry::at(self.now));
            if retry.due <= self.now {
                match want {
                    Want::Aggregate(_) | Want::Partial(_) => retry.back_off(self.now, self.config.resend),
                    Want::StartLog
                    | Want::Register
                    | Want::Approve(_)
                    | Want::SignHeader(_)
                    | Want::SignRecord(_)
                    | Want::Open(_)
                    | Want::Retire
                    | Want::Testify(_)
                    | Want::Refuse(_)
                    | Want::Withdraw(_)
                    | Want::Depart
                    | Want::Carry(_) => retry.again(self.now, self.config.resend),
                }
                self.attempt(want, out);
            }
        }
        self.agree(out);
        self.publish(out);
        self.advance_stop(out);
    }

    /// Everything that this server wants to see in the log and does not see there, most urgent first.
    fn wanted(&self) -> Vec<Want> {
        let me = self.config.me;
        let mut wanted = Vec::new();
        let Some(_) = self.committee.log() else {
            if self.leads() && self.new_log.is_some() {
                wanted.push(Want::StartLog);
            }
            return wanted;
        };
        if self.committee.retired().contains(&me) && self.checks.enforce(Check::RetiredBarred) {
            return wanted;
        }
        let entry = self.committee.servers().get(&me);
        if let Some(open) = self.committee.open() {
            self.want_for_round(open, &mut wanted);
        }
        if entry.is_some_and(committee::Server::takes_part) {
            for kept in self.committee.records() {
                let listed = kept.record.servers.contains(&me);
                if listed && !kept.signatures.contains_key(&me) && self.vouches_for(kept) {
                    wanted.push(Want::SignRecord(kept.digest));
                }
            }
            wanted.extend(self.want_refusal());
        }
        if self.committee.voters().contains(&me) {
            if self.stopping.is_none() && self.caught_up && !self.is_registered() && !self.is_leaving() {
                wanted.push(Want::Register);
            }
            if let Some(offer) = self.offer.as_ref().filter(|offer| !self.committee.approves(&me, offer)) {
                wanted.push(Want::Approve(offer.peer));
            }
            for (server, known) in self.committee.servers() {
                if *server != me && !known.testimonies.contains(&me) && self.is_gone(server, known) {
                    wanted.push(Want::Testify(*server));
                }
            }
        }
        // One that leaves and has lost its keys cannot register again: nothing is left to it but to go.
        let keyless = self.is_leaving() && self.caught_up && !self.is_registered();
        if self.retiring && entry.is_some_and(|entry| entry.standing == Standing::Registered) {
            wanted.push(Want::Retire);
        } else if (self.may_depart() || keyless) && entry.is_some_and(committee::Server::takes_part) {
            wanted.push(Want::Depart);
        }
        let gone = self.entrusted.keys().filter(|server| !self.links.contains_key(*server));
        wanted.extend(gone.map(|server| Want::Carry(*server)));
        if self.wants_to_open() {
            wanted.push(Want::Open(self.next_round()));
        }
        wanted
    }

    /// Whether another server is gone for good: an operator or its own farewell says so, and it is out of reach.
    fn is_gone(&self, server: &PeerId, known: &committee::Server) -> bool {
        let linked = self.links.contains_key(server);
        let failures = self.failures.get(server).copied().unwrap_or(0);
        // Who has departed has no address any more at which it could be probed.
        let unreachable = failures >= PROBES_MIN || (!known.takes_part() && !linked);
        let declared = self.dead.contains(server);
        // Who leaves and has lost its vote gets no more entries, and does not get the vote back.
        let left = known.standing == Standing::Leaving
            && !linked
            && (unreachable || !self.committee.voters().contains(server));
        left || (declared && (unreachable || !self.checks.enforce(Check::ProbedDead)))
    }

    fn want_for_round(&self, open: &OpenRound, wanted: &mut Vec<Want>) {
        let me = self.config.me;
        // The leader brings the aggregate in; the others do if it seems not to have it.
        let late = self.held_at.after(self.config.resend) <= self.now;
        if (self.leads() || late) && self.held.is_some() && open.aggregate.is_none() {
            wanted.push(Want::Aggregate(open.digest));
        }
        let Some(promise) = self.promise.as_ref().filter(|promise| promise.header == open.digest) else {
            return;
        };
        if !open.lists(&me) || promise.verdict.is_err() || promise.withheld {
            return;
        }
        if !open.signatures.contains_key(&me) && self.stopping.is_none() {
            wanted.push(Want::SignHeader(open.digest));
        }
        if let Some(applied) = &open.aggregate {
            let floor = self.config.floors.participants;
            let enough =
                applied.participants.count_ones() >= floor || !self.checks.enforce(Check::ParticipantFloor);
            if !open.partials.contains_key(&me) && enough {
                wanted.push(Want::Partial(open.digest));
            }
        }
    }

    /// The next difference between what the operator of this server refuses and what the log says. One at a time, since
    /// refusals of one server are numbered.
    fn want_refusal(&self) -> Option<Want> {
        let (committee, me) = (&self.committee, &self.config.me);
        // A signature under way leaves out as many clients as there was room for when it was made.
        let signs = |open: &OpenRound| open.lists(me) && !open.signatures.contains_key(me);
        if !self.caught_up || self.stopping.is_some() || committee.open().is_some_and(signs) {
            return None;
        }
        let refused: BTreeSet<_> = committee.refused_by(me).collect();
        let registered = |client: &&PeerId| committee.clients().get(client).is_some();
        let next = self.unwanted.iter().filter(|client| !refused.contains(client)).find(registered);
        let room = || committee.kept_out_by(me).len() < self.refused_max(committee.clients().len());
        let withdrawn = || refused.iter().find(|client| !self.unwanted.contains(*client));
        let refuse = next.filter(|_| room()).map(|client| Want::Refuse(*client));
        refuse.or_else(|| withdrawn().map(|client| Want::Withdraw(**client)))
    }

    fn refused_max(&self, registered: u32) -> usize {
        if self.checks.enforce(Check::FewRefused) { committee::refused_max(registered) } else { usize::MAX }
    }

    /// The registered clients that this server would leave out of a round over them.
    fn leaves_out(&self, clients: &ClientRegistry) -> Bitmap {
        let mut left_out = Bitmap::new(clients.len());
        if self.unwanted.is_empty() {
            return left_out;
        }
        let kept_out = self.committee.kept_out_by(&self.config.me);
        let mut room = self.refused_max(clients.len()).saturating_sub(kept_out.len());
        for client in &self.unwanted {
            let Some(place) = clients.index_of(client) else { continue };
            if !kept_out.contains(client) {
                let Some(less) = room.checked_sub(1) else { continue };
                room = less;
            }
            left_out.set(place);
        }
        left_out
    }

    fn attempt(&mut self, want: Want, out: &mut Outbox) {
        let log = self.committee.log();
        match (want, log) {
            (Want::StartLog, _) => {
                if let Some(log) = self.new_log {
                    out.push(Effect::Propose(Command::StartLog { log }));
                }
            }
            (Want::Register, Some(log)) => self.attempt_register(log, out),
            (Want::Approve(_), Some(log)) => {
                let bundle = self.offer.clone().expect("wanted because it is offered");
                out.push(Effect::Work(Job::Approve { log, bundle }));
            }
            (Want::SignHeader(header), Some(log)) => self.attempt_sign_header(log, header, out),
            (Want::Aggregate(_), Some(_)) => {
                if let Some(held) = &self.held {
                    out.push(Effect::Propose(Command::SubmitAggregate(Aggregate::clone(held))));
                }
            }
            (Want::Partial(_), Some(_)) => self.attempt_partial(out),
            (Want::SignRecord(record), Some(log)) => {
                let kept = self.committee.records().iter().find(|kept| kept.digest == record);
                if let Some(kept) = kept {
                    let round = kept.record.round;
                    self.records_signed.insert(round, record);
                    if self.records_signed.len() > RECORDS_SIGNED {
                        self.records_signed.pop_first();
                    }
                    out.push(Effect::Work(Job::SignRecord { log, round, record }));
                }
            }
            (Want::Open(_), Some(log)) => self.attempt_open(log, out),
            (Want::Retire, Some(log)) => self.announce(log, Standing::Leaving, out),
            (Want::Depart, Some(log)) => self.announce(log, Standing::Departed, out),
            (Want::Carry(server), Some(_)) => {
                if let Some(said) = self.entrusted.get(&server).copied() {
                    out.push(Effect::Propose(match said.standing {
                        Standing::Leaving => Command::RetireServer(said),
                        Standing::Registered | Standing::Departed => Command::DepartServer(said),
                    }));
                }
            }
            (Want::Testify(server), Some(log)) => {
                if let Some(entry) = self.committee.servers().get(&server) {
                    let epoch = entry.bundle.epoch;
                    out.push(Effect::Work(Job::Testify { log, server, epoch }));
                }
            }
            (Want::Refuse(client), Some(log)) => {
                if let Some(bundle) = self.committee.clients().get(&client) {
                    self.attempt_refusal(log, client, bundle.epoch, true, out);
                }
            }
            (Want::Withdraw(client), Some(log)) => {
                self.attempt_refusal(log, client, Epoch::default(), false, out);
            }
            (_, None) => unreachable!("without a log, only its start is wanted"),
        }
    }

    /// A fresh bundle above every epoch of this identity in the log, then its announcement.
    fn attempt_register(&mut self, log: LogId, out: &mut Outbox) {
        let entry = self.committee.servers().get(&self.config.me);
        let last = entry.map(|entry| entry.bundle.epoch).unwrap_or_default();
        match &self.bundle {
            Some(bundle) if bundle.epoch > last && !self.bundle_wanted => {
                let (epoch, standing) = (bundle.epoch, Standing::Registered);
                let counter = entry.map(|entry| entry.counter).unwrap_or_default().next();
                out.push(Effect::Work(Job::Announce { log, epoch, counter, standing }));
            }
            Some(_) | None => {
                self.bundle_wanted = true;
                out.push(Effect::Work(Job::MakeBundle { epoch: last.next(), fresh_key: true }));
            }
        }
    }

    fn announce(&self, log: LogId, standing: Standing, out: &mut Outbox) {
        if let Some(entry) = self.committee.servers().get(&self.config.me) {
            let (epoch, counter): (Epoch, _) = (entry.bundle.epoch, entry.counter.next());
            out.push(Effect::Work(Job::Announce { log, epoch, counter, standing }));
        }
    }

    fn attempt_refusal(&self, log: LogId, client: PeerId, epoch: Epoch, refuse: bool, out: &mut Outbox) {
        if let Some(entry) = self.committee.servers().get(&self.config.me) {
            let counter = entry.refusal_counter.next();
            out.push(Effect::Work(Job::Refuse { log, counter, client, epoch, refuse }));
        }
    }

    fn attempt_sign_header(&mut self, log: LogId, header: Digest, out: &mut Outbox) {
        let (Some(open), Some(promise)) = (self.committee.open(), &self.promise) else { return };
        match &promise.signature {
            Some(signature) => out.push(Effect::Propose(Command::SignHeader(signature.clone()))),
            None => {
                let round = open.header.round;
                // Signed once more, it says the same, whatever the operator has said since: the keyring sees to that.
                let refused = self.leaves_out(&open.clients);
                let key_epoch = promise.key_epoch;
                self.signed = Some((log, round));
                out.push(Effect::Work(Job::SignHeader { key_epoch, log, round, header, refused }));
            }
        }
    }

    fn attempt_partial(&mut self, out: &mut Outbox) {
        let (Some(open), Some(promise)) = (self.committee.open(), &self.promise) else { return };
        let Some(applied) = &open.aggregate else { return };
        match &promise.partial {
            Some(partial) => {
                out.push(Effect::Propose(Command::SubmitPartial(Partial::clone(partial))));
            }
            // Under load it takes longer than the wait for an answer.
            None if self.making.contains_key(&open.digest) => {}
            None => {
                let disclaimed = self.disclaimers.iter().any(|kept| kept.header == open.digest);
                assert!(!disclaimed, "no partial is made under a disclaimed header");
                let participants = applied.participants.iter_ones();
                let clients: Arc<[End]> =
                    participants.filter_map(|index| Some(End::from(open.clients.at(index)?.1))).collect();
                let (header, aggregate) = (Arc::clone(&open.header), applied.digest);
                let key_epoch = promise.key_epoch;
                self.making.insert(open.digest, applied.participants.count_ones());
                out.push(Effect::Work(Job::MakePartial { key_epoch, header, aggregate, clients }));
            }
        }
    }

    /// Has keys agreed on with clients that are new in the registry, or with all of them for a fresh round key: an agreement
    /// takes as long as many pads, and a round waits for its partials.
    fn agree(&mut self, out: &mut Outbox) {
        let Some(bundle) = self.bundle.as_ref().filter(|_| self.caught_up) else { return };
        let (key_epoch, clients) = (bundle.epoch, self.committee.clients());
        let known = self.agreed.as_ref().filter(|(epoch, _)| *epoch == key_epoch).map(|(_, clients)| clients);
        if known == Some(clients) {
            return;
        }
        let mut before = known.into_iter().flat_map(ClientRegistry::bundles).map(End::from).peekable();
        let is_new = |client: &End| {
            while before.next_if(|known| known.peer < client.peer).is_some() {}
            before.peek() != Some(client)
        };
        let fresh: Arc<[End]> = clients.bundles().iter().map(End::from).filter(is_new).collect();
        self.agreed = Some((key_epoch, clients.clone()));
        if !fresh.is_empty() {
            out.push(Effect::Work(Job::Agree { key_epoch, clients: fresh }));
        }
    }

    fn next_round(&self) -> Round {
        let opened = self.committee.opened();
        if self.checks.enforce(Check::RoundRises) || opened == Round::default() {
            opened.next()
        } else {
            opened
        }
    }

    fn next_opening(&self) -> Time {
        self.last_opened.map_or(self.now, |last| last.after(self.config.round_period))
    }

    /// Whether this server leads and a round is due and possible.
    fn wants_to_open(&self) -> bool {
        if !self.leads() || self.stopping.is_some() || self.committee.aggregator().is_none() {
            return false;
        }
        let due = match self.committee.open() {
            None => self.next_opening() <= self.now,
            Some(open) => {
                let newcomer = self.newcomer && open.aggregate.is_none();
                newcomer || self.opened_at.after(self.config.round_deadline) <= self.now
            }
        };
        let first = self.committee.opened() == Round::default();
        if !due || (first && self.committee.voters().len() < self.config.first_round_voters) {
            return false;
        }
        let roster = self.next_roster();
        let floor = self.committee.participant_floor(roster.iter().map(|server| &server.peer));
        let clients = self.committee.clients();
        let left = clients.len().saturating_sub(self.leaves_out(clients).count_ones());
        let enough = left >= floor || !self.checks.enforce(Check::ParticipantFloor);
        // The first rosters of a log must not race the registration of the voters that the first round waits for.
        let gathered = !first || roster.len() >= self.config.first_round_voters;
        !roster.is_empty() && roster.len() >= self.committee.roster_floor() && enough && gathered
    }

    /// Every server that takes part, less those that are out of reach or kept the last header waiting, as far as floors
    /// allow.
    fn next_roster(&self) -> Vec<RosterServer> {
        let all = self.committee.roster();
        let floor = self.committee.roster_floor();
        let reachable = |server: &&RosterServer| {
            let linked = server.peer == self.config.me || self.links.contains_key(&server.peer);
            linked && !self.silent.contains(&server.peer)
        };
        let some: Vec<_> = all.iter().filter(reachable).copied().collect();
        if some.len() >= floor { some } else { all }
    }

    fn attempt_open(&mut self, log: LogId, out: &mut Outbox) {
        let Some(aggregator) = self.committee.aggregator().map(|bundle| bundle.peer) else { return };
        let servers = self.next_roster();
        let mut nonce = [0; 32];
        if self.checks.enforce(Check::FreshNonce) {
            self.random.fill(&mut nonce);
        }
        let roster = servers.iter().map(|server| &server.peer);
        let floor = self.committee.participant_floor(roster);
        let min_participants = if self.checks.enforce(Check::ParticipantFloor) { floor } else { 0 };
        let header = Header {
            log,
            round: self.next_round(),
            nonce,
            group: self.config.committee.group,
            params: self.config.committee.params,
            previous: self.committee.previous(),
            servers,
            clients: self.committee.clients().set(),
            min_participants,
            aggregator,
        };
        self.own_opening = Some(header.digest());
        out.push(Effect::Propose(Command::OpenRound(header)));
    }

    fn rekey_at(&self) -> Time {
        self.bundle_made.after(self.config.rekey_after)
    }

    fn key_ends_at(&self) -> Time {
        self.bundle_made.after(self.config.key_age_max)
    }

    /// Whether a stopping server has given its last partial, or waited for that long enough.
    fn may_depart(&self) -> bool {
        let Some(stopping) = self.stopping else { return false };
        let owed = self.committee.open().is_some_and(|open| {
            let promised = open.signatures.contains_key(&self.config.me);
            promised && open.aggregate.is_some() && !open.partials.contains_key(&self.config.me)
        });
        !owed || stopping.since.after(self.config.partial_budget) <= self.now
    }

    /// Departure first, while the leader may be this server itself and the log is at hand; then the leadership.
    fn advance_stop(&mut self, out: &mut Outbox) {
        let Some(mut stopping) = self.stopping else { return };
        let entry = self.committee.servers().get(&self.config.me);
        let departed = entry.is_none_or(|entry| !entry.takes_part());
        let over = stopping.since.after(self.config.stop_budget) <= self.now;
        let alone = self.committee.voters().len() <= 1;
        if departed && self.leads() && !alone && stopping.handed_over.is_none() {
            stopping.handed_over = Some(self.now);
            out.push(Effect::HandOver);
        }
        // Its own departure may have ended a round: its last word on that leaves before it does.
        if over || (departed && (alone || !self.leads()) && self.disclaiming.is_empty()) {
            stopping.finished = true;
            self.tried.clear();
            out.push(Effect::Stopped);
        }
        self.stopping = Some(stopping);
    }

    fn linked_aggregator(&self) -> Option<PeerId> {
        let peer = self.committee.aggregator()?.peer;
        self.links.contains_key(&peer).then_some(peer)
    }

    fn send_live(&self, out: &mut Outbox) {
        let live = self.committee.open().filter(|open| open.aggregate.is_none()).and_then(OpenRound::live);
        if let (Some(aggregator), Some(live)) = (self.linked_aggregator(), live) {
            send(out, aggregator, &Message::Live(live));
        }
    }

    fn send_farewells(&self, out: &mut Outbox) {
        let announcements: Vec<_> = self.committee.farewells().iter().copied().collect();
        if let Some(aggregator) = self.linked_aggregator()
            && !announcements.is_empty()
        {
            send(out, aggregator, &Message::Retired { announcements });
        }
    }

    fn send_registry(&self, to: PeerId, out: &mut Outbox) {
        let Some(log) = self.committee.log() else { return };
        let registry = self.committee.clients();
        let clients = registry.iter().map(|(_, bundle)| bundle.clone()).collect();
        let (version, counter) = (registry.version(), registry.counter());
        send(out, to, &Message::Registry { log, version, counter, clients });
        self.send_live(out);
        self.send_farewells(out);
    }

    fn send_records(&self, to: PeerId, from: Round, out: &mut Outbox) {
        for kept in self.committee.records() {
            if kept.record.round >= from && kept.provisional() {
                let signatures = kept.signatures.values().copied().collect();
                let record = kept.record.as_ref().clone();
                send(out, to, &Message::Record { record, signatures });
            }
        }
    }

    /// The newest record, if the aggregator does not have it from this leader with all its signatures.
    fn unpublished(&self) -> Option<&SignedRecord> {
        let kept = self.committee.records().back()?;
        (self.leads() && self.published != Some((kept.digest, true))).then_some(kept)
    }

    /// Gives the newest record to the aggregator: as soon as it is confirmed, or with a majority of the signatures if
    /// the others are late.
    fn publish(&mut self, out: &mut Outbox) {
        let (Some(aggregator), Some(kept)) = (self.linked_aggregator(), self.unpublished()) else { return };
        let late = self.finalized_at.after(self.config.resend) <= self.now;
        let sent = self.published.is_some_and(|(digest, _)| digest == kept.digest);
        let state = (kept.digest, kept.confirmed());
        if kept.confirmed() && sent {
            let signatures = kept.signatures.values().copied().collect();
            send(out, aggregator, &Message::RecordSigned { signatures });
        } else if kept.confirmed() || (kept.provisional() && late && !sent) {
            self.send_records(aggregator, kept.record.round, out);
        } else {
            return;
        }
        self.published = Some(state);
    }

    /// What holds between any two inputs.
    fn check(&self) {
        if let (Some(open), Some(promise)) = (self.committee.open(), &self.promise) {
            assert!(open.digest == promise.header, "the promise is about the open round");
        }
        for disclaimer in &self.disclaimers {
            let made = self.making.contains_key(&disclaimer.header)
                || self.promise.as_ref().is_some_and(|promise| {
                    promise.header == disclaimer.header
                        && (promise.verdict.is_ok() || promise.partial.is_some())
                });
            assert!(!made, "a disclaimed header is not promised again");
        }
        let stopped = self.stopping.is_some_and(|stopping| stopping.finished);
        assert!(!stopped || self.tried.is_empty(), "a stopped server wants nothing");
    }
}

/// Whether an announcement could be applied and is not.
fn is_missing<C: Checks>(committee: &Committee<C>, announcement: &Announcement) -> bool {
    let known = committee.servers().get(&announcement.server);
    committee.log() == Some(announcement.log)
        && known.is_some_and(|known| {
            known.bundle.epoch == announcement.epoch
                && known.counter < announcement.counter
                && known.standing != announcement.standing
        })
}

fn send(out: &mut Outbox, to: PeerId, message: &Message) {
    out.push(Effect::Send { to, bytes: wire::encode(message) });
}

fn refuse(out: &mut Outbox, kind: &'static str, reason: Refused, from: PeerId) {
    out.report(Report::Refused { kind, reason, from: Some(from) });
}

/// The stable name of a command, for metrics.
#[must_use]
pub fn kind(command: &Command) -> &'static str {
    match command {
        Command::StartLog { .. } => "start-log",
        Command::OpenRound(_) => "open-round",
        Command::SignHeader(_) => "sign-header",
        Command::SubmitAggregate(_) => "submit-aggregate",
        Command::SubmitPartial(_) => "submit-partial",
        Command::SignRecord(_) => "sign-record",
        Command::RegisterServer { .. } => "register-server",
        Command::DepartServer(_) => "depart-server",
        Command::RetireServer(_) => "retire-server",
        Command::TestifyDead(_) => "testify-dead",
        Command::ApproveAggregator(_) => "approve-aggregator",
        Command::ChangeClients(_) => "change-clients",
        Command::RefuseClient(_) => "refuse-client",
    }
}

#[cfg(test)]
mod tests;
