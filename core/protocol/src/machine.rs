//! What the role machines have in common: effects, jobs and reports.
//!
//! A role machine ([`crate::server`], [`crate::aggregator`], [`crate::client`], [`crate::reader`]) is driven by three
//! rules.
//!
//! 1. Call `handle(now, input, &mut out)` for everything that happens, with a time that never goes back.
//! 2. Carry out every [`Effect`] of the [`Outbox`], in order, before the next call.
//! 3. Ask `deadline()` afterwards; when it is due, call `handle` with `Tick`.
//!
//! Machines hold no secret. Whatever needs one leaves as an [`Effect::Work`] and comes back as an input with the
//! [`Done`] that [`crate::keyring::Keyring::perform`] made of it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bitmap::Bitmap;
use crate::evidence::Contradiction;
use crate::id::{Counter, Digest, Epoch, LogId, PeerId, RegistryVersion, Round};
use crate::message::{
    Aggregate, Announcement, Approval, Bundle, ClientBatch, ClientRefusal, Command, Disclaimer, Envelope,
    Header, HeaderSignature, Partial, Record, RecordSignature, Standing, Testimony, Turnout,
};
use crate::pad::End;
use crate::refused::Refused;
use crate::slot::Payload;
use crate::time::Time;

/// Something a machine wants done. Effects are carried out in the order they were pushed.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Give this encoded [`crate::message::Message`] to a linked peer. If there is no link, it is lost; machines repeat
    /// what matters.
    Send {
        /// To whom.
        to: PeerId,
        /// Encoded by [`crate::wire`].
        bytes: Arc<[u8]>,
    },
    /// Bring this command into the log: through consensus on the leader, as a [`crate::message::Message::Propose`] to
    /// the leader elsewhere. May get lost; machines repeat until they see it applied.
    Propose(Command),
    /// Perform with the keyring and return the result as an input.
    Work(Job),
    /// Something happened that operators, metrics or auditors want to know.
    Report(Report),
    /// The log says this of the time before this process took part: history, which a server reads again after a restart,
    /// and whole after the loss of its disk. It is no news, and only auditors want to know.
    Past(Report),
    /// Ask consensus to give the leadership to another voter.
    HandOver,
    /// The machine has finished an orderly stop; the node may say goodbye and exit.
    Stopped,
}

/// Effects in order.
#[derive(Clone, Debug, Default)]
pub struct Outbox(VecDeque<Effect>);

impl Outbox {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Adds an effect at the end.
    pub fn push(&mut self, effect: Effect) {
        self.0.push_back(effect);
    }

    /// Adds a report at the end.
    pub fn report(&mut self, report: Report) {
        self.push(Effect::Report(report));
    }

    /// Adds what the log tells at the end: as news, or as history.
    pub fn tell(&mut self, report: Report, is_news: bool) {
        self.push(if is_news { Effect::Report(report) } else { Effect::Past(report) });
    }

    /// Takes the oldest effect.
    pub fn pop(&mut self) -> Option<Effect> {
        self.0.pop_front()
    }

    /// Whether everything was carried out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The next moment at which a machine wants a tick, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// [`Time::NEVER`] if nothing is awaited.
    pub at: Time,
    /// In words, for status pages.
    pub why: &'static str,
}

impl Deadline {
    /// Nothing is awaited.
    pub const NONE: Self = Self { at: Time::NEVER, why: "nothing" };

    /// The earlier of two.
    #[must_use]
    pub fn or(self, at: Time, why: &'static str) -> Self {
        if at < self.at { Self { at, why } } else { self }
    }
}

/// Work that needs a secret.
///
/// Jobs that use a round key, or promise something for it, name the epoch of the bundle that announced it: if the keyring
/// holds another key by the time it comes to them, nothing is made ([`Done::Withheld`]).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a job lives for one call")]
pub enum Job {
    /// Makes and signs a bundle of the keyring's role, with the present round key or a fresh one.
    MakeBundle {
        /// Of the bundle.
        epoch: Epoch,
        /// Draw a new round key first; the old one and its pair keys are wiped.
        fresh_key: bool,
    },
    /// Wipes the round key, its pair keys and what was promised for it.
    ForgetKey,
    /// Server: promises a partial.
    SignHeader {
        /// Of the present bundle.
        key_epoch: Epoch,
        /// The log.
        log: LogId,
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
        /// Clients not accepted.
        refused: Bitmap,
    },
    /// Server: agrees on keys with clients before a round needs them. Heavy.
    Agree {
        /// Of the present bundle.
        key_epoch: Epoch,
        /// Clients that are new in the registry.
        clients: Arc<[End]>,
    },
    /// Server: XORs the pads with the participants. Heavy.
    MakePartial {
        /// Of the present bundle.
        key_epoch: Epoch,
        /// The header.
        header: Arc<Header>,
        /// Digest of the aggregate.
        aggregate: Digest,
        /// The participants.
        clients: Arc<[End]>,
    },
    /// Server: confirms a record.
    SignRecord {
        /// The log.
        log: LogId,
        /// The round.
        round: Round,
        /// Of the record.
        record: Digest,
    },
    /// Server: says that it gave no partial under a header and never will.
    Disclaim {
        /// Of the bundle that the header lists.
        key_epoch: Epoch,
        /// The log.
        log: LogId,
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
    },
    /// Server: speaks about its own membership.
    Announce {
        /// The log.
        log: LogId,
        /// Of its current bundle.
        epoch: Epoch,
        /// Last one plus one.
        counter: Counter,
        /// What to say.
        standing: Standing,
    },
    /// Server: testifies that another server is dead.
    Testify {
        /// The log.
        log: LogId,
        /// Who is dead.
        server: PeerId,
        /// Of its registered bundle.
        epoch: Epoch,
    },
    /// Server: approves an aggregator.
    Approve {
        /// The log.
        log: LogId,
        /// The aggregator's bundle.
        bundle: Bundle,
    },
    /// Server: refuses a client, or withdraws that.
    Refuse {
        /// The log.
        log: LogId,
        /// Last one plus one.
        counter: Counter,
        /// Whom.
        client: PeerId,
        /// Of the client's bundle.
        epoch: Epoch,
        /// Refuse or withdraw.
        refuse: bool,
    },
    /// Aggregator: signs what it folded.
    SignAggregate {
        /// The log.
        log: LogId,
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
        /// Whose envelopes are in.
        participants: Bitmap,
        /// The XOR of the envelopes.
        body: Vec<u8>,
    },
    /// Aggregator: signs a change of the client registry.
    SignBatch {
        /// The log.
        log: LogId,
        /// Last applied plus one.
        counter: Counter,
        /// Clients that come.
        register: Vec<Bundle>,
        /// Clients that go.
        expire: Vec<(PeerId, Epoch)>,
    },
    /// Client: makes the envelope of a round.
    Seal {
        /// The header.
        header: Arc<Header>,
        /// Of the client's bundle.
        epoch: Epoch,
        /// Exactly [`crate::params::RoundParams::payload_bytes`] bytes, also of cover traffic: it takes the same way and
        /// is masked at its end.
        payload: Payload,
        /// Nothing is written: cover traffic.
        cover: bool,
    },
}

/// What became of a [`Job`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Of [`Job::MakeBundle`].
    BundleMade(Bundle),
    /// Of [`Job::ForgetKey`].
    KeyForgotten,
    /// Of [`Job::SignHeader`].
    HeaderSigned(HeaderSignature),
    /// Of [`Job::Agree`].
    Agreed,
    /// Of [`Job::MakePartial`].
    PartialMade(Box<Partial>),
    /// Of [`Job::SignRecord`].
    RecordSigned(RecordSignature),
    /// Of [`Job::Disclaim`].
    Disclaimed(Disclaimer),
    /// Of [`Job::Announce`].
    Announced(Announcement),
    /// Of [`Job::Testify`].
    Testified(Testimony),
    /// Of [`Job::Approve`].
    Approved(Approval),
    /// Of [`Job::Refuse`].
    RefusalSigned(ClientRefusal),
    /// Of [`Job::SignAggregate`].
    AggregateSigned(Box<Aggregate>),
    /// Of [`Job::SignBatch`].
    BatchSigned(Box<ClientBatch>),
    /// Of [`Job::Seal`].
    Sealed {
        /// The envelope.
        envelope: Box<Envelope>,
        /// The slot that the payload went to; `None` for cover traffic.
        slot: Option<u32>,
    },
    /// The keyring does not hold the key that the header lists for this node, or what it has promised with that key
    /// forbids the job: nothing was made, and never will be.
    Withheld {
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
    },
}

/// A publisher's number for one of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is in a confirmed broadcast.
    Landed,
    /// Another message was in the same slot; both are lost.
    Collided,
    /// The round was confirmed without this client's envelope, or abandoned and disclaimed by its whole roster: nobody
    /// has read it.
    Dropped,
    /// The round was abandoned after the envelope left, and not all servers disclaimed it: the committee may have read
    /// it.
    Unknown,
}

impl Outcome {
    /// All of them, in declaration order.
    pub const ALL: [Self; 4] = [Self::Landed, Self::Collided, Self::Dropped, Self::Unknown];

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Landed => "landed",
            Self::Collided => "collided",
            Self::Dropped => "dropped",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a round was abandoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Abandonment {
    /// Some rostered server did not sign the header in time.
    Unsigned,
    /// No valid aggregate came in time.
    NoAggregate,
    /// The same, and the aggregator has said that too few envelopes had come.
    TooFewEnvelopes,
    /// Some rostered server gave no partial in time, left or took a new key.
    MissingPartial,
}

impl Abandonment {
    /// All of them, in declaration order.
    pub const ALL: [Self; 4] =
        [Self::Unsigned, Self::NoAggregate, Self::TooFewEnvelopes, Self::MissingPartial];

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::NoAggregate => "no-aggregate",
            Self::TooFewEnvelopes => "too-few-envelopes",
            Self::MissingPartial => "missing-partial",
        }
    }
}

/// Something that happened, for log lines, metrics, the simulator's properties and auditors. None holds a pad, a key or
/// what a client writes.
#[derive(Clone, Debug)]
pub enum Report {
    /// Applied: a log was named.
    LogStarted {
        /// The log.
        log: LogId,
    },
    /// Applied: a round was opened.
    RoundOpened {
        /// Position in the log.
        index: u64,
        /// The header.
        header: Arc<Header>,
        /// Of the header.
        digest: Digest,
    },
    /// Applied: every rostered server has signed.
    HeaderLive {
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
        /// Clients that some server refuses.
        refused: Bitmap,
    },
    /// Applied: the aggregate of a round.
    AggregateApplied {
        /// Position in the log.
        index: u64,
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
        /// Of the aggregate.
        aggregate: Digest,
        /// Whose envelopes are in.
        participants: Bitmap,
    },
    /// Applied: a partial.
    PartialApplied {
        /// Position in the log.
        index: u64,
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
        /// The aggregate that the partial names.
        aggregate: Digest,
        /// Whose.
        server: PeerId,
    },
    /// Applied: a round is finished.
    RoundFinalized {
        /// Position in the log.
        index: u64,
        /// The record.
        record: Arc<Record>,
        /// Of the record.
        digest: Digest,
        /// Servers whose header signature the round had.
        signed: Vec<PeerId>,
        /// Servers whose partial the round had.
        partials: Vec<PeerId>,
        /// Whether this server is in the roster and this process has given its part: the health line of operators is about
        /// such rounds.
        rostered: bool,
    },
    /// Applied: a round is given up.
    RoundAbandoned {
        /// Position in the log.
        index: u64,
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
        /// What was missing.
        reason: Abandonment,
        /// From whom.
        missing: Vec<PeerId>,
    },
    /// Applied: every rostered server has signed the record.
    RecordConfirmed {
        /// The round.
        round: Round,
        /// Of the record.
        record: Digest,
    },
    /// Applied: a server takes part, or renewed its keys.
    ServerRegistered {
        /// Who.
        server: PeerId,
        /// Of its bundle.
        epoch: Epoch,
    },
    /// Applied: a server left for now.
    ServerDeparted {
        /// Who.
        server: PeerId,
    },
    /// Applied: a server has announced that it leaves for good.
    ServerLeaving {
        /// Who.
        server: PeerId,
    },
    /// Applied: a server is barred for good.
    ServerRetired {
        /// Who.
        server: PeerId,
        /// By the testimony of others instead of its own word.
        forced: bool,
    },
    /// Applied: the log has an aggregator.
    AggregatorRegistered {
        /// Who.
        aggregator: PeerId,
    },
    /// Applied: the client registry changed.
    ClientsChanged {
        /// Of the registry.
        version: RegistryVersion,
        /// Clients in it.
        count: u32,
    },
    /// Applied: a server refuses a client, which is out of the registry.
    ClientRefused {
        /// Who refuses.
        server: PeerId,
        /// Whom.
        client: PeerId,
    },
    /// Applied: a server no longer refuses a client, by its own word.
    RefusalWithdrawn {
        /// Who refused.
        server: PeerId,
        /// Whom.
        client: PeerId,
    },
    /// A command, message or header was refused; nothing changed.
    Refused {
        /// What it was.
        kind: &'static str,
        /// Why.
        reason: Refused,
        /// From whom it came over a link; `None` from the log.
        from: Option<PeerId>,
    },
    /// This server promises a partial.
    HeaderSigned {
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
    },
    /// This server withholds its signature under a header.
    HeaderDeclined {
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
        /// Why.
        reason: Refused,
    },
    /// This server made its partial; it is on its way to the log.
    PartialMade {
        /// The log.
        log: LogId,
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
        /// The aggregate that it names.
        aggregate: Digest,
        /// How many participants.
        participants: u32,
        /// This server's own floor.
        floor: u32,
    },
    /// This server gave no partial under an abandoned header, never will, and has signed that.
    Disclaimed {
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
    },
    /// This aggregator sent an aggregate to the servers for the first time.
    AggregateForwarded {
        /// The round.
        round: Round,
        /// How many envelopes are in.
        participants: u32,
    },
    /// Too few envelopes have come for a live round: this aggregator has counted them, or a server has been told so.
    TurnoutLow {
        /// Of the header: the fewest envelopes that make an aggregate.
        floor: u32,
        /// What was counted.
        turnout: Turnout,
    },
    /// This aggregator met a client that is not in the registry.
    ClientSeen {
        /// Who.
        client: PeerId,
    },
    /// This client is in the registry with its present bundle.
    Enrolled {
        /// Of the registry.
        version: RegistryVersion,
    },
    /// This client made an envelope.
    Sealed {
        /// The log.
        log: LogId,
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
        /// blake3 of the vector.
        envelope: Digest,
        /// The roster.
        servers: Vec<PeerId>,
        /// The publisher's number of the message in it; `None` for cover traffic.
        request: Option<RequestId>,
    },
    /// This aggregator takes the word of these servers, and of those that its operator named.
    ServersBelieved {
        /// In rising order.
        servers: Vec<PeerId>,
    },
    /// This client does not take part under a header.
    HeaderUntrusted {
        /// The round.
        round: Round,
        /// Why.
        reason: Refused,
    },
    /// This client knows what became of a message.
    Published {
        /// The publisher's number.
        request: RequestId,
        /// What.
        outcome: Outcome,
        /// In which round.
        round: Round,
    },
    /// This client or reader saw a record; `confirmed` once every rostered server signed it.
    RecordSeen {
        /// The record.
        record: Arc<Record>,
        /// Of the record.
        digest: Digest,
        /// All signatures, or just a majority.
        confirmed: bool,
    },
    /// This reader goes on without records that nobody has given it.
    RecordsMissing {
        /// The log.
        log: LogId,
        /// The first round that was wanted. It and those up to `oldest` may have been abandoned as well.
        from: Round,
        /// The oldest record behind it that can be had: the chain begins anew with it.
        oldest: Round,
    },
    /// Servers have signed two records of one round: this reader has seen both, or their signatures.
    RecordContradicted {
        /// The log.
        log: LogId,
        /// The round.
        round: Round,
        /// Of the record that was believed.
        seen: Digest,
        /// Of the other one.
        other: Digest,
        /// Who signed the other one, of those whom this reader has reason to believe.
        servers: Vec<PeerId>,
        /// Of those who signed both, the signatures. Each server is convicted once for each round.
        evidence: Vec<Contradiction>,
    },
}
