//! The facts.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use zipnet_core::id::{Digest, Epoch, LogId, PeerId, RegistryVersion, Role, Round, StoreId};
use zipnet_core::machine::{Abandonment, Outcome, RequestId};
use zipnet_core::refused::Refused;

use crate::change::Change;
use crate::refusal::{Farewell, Refusal};

/// A stable name that metrics and scenarios know: of a kind of message, or of a reason.
pub type Name = Cow<'static, str>;

/// One fact of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Rises by one with each fact that the process tells, from zero; whoever misses a number has lost a fact.
    pub seq: u64,
    /// Of whom; none as long as the process does not know its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<PeerId>,
    /// What.
    #[serde(flatten)]
    pub fact: Fact,
}

/// Defines the table of facts: what each is, the name that lines and scenarios know it by, and its fields.
macro_rules! facts {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident = $event:literal $({
            $($(#[doc = $meaning:literal])+ $(#[serde($serde:ident)])? $field:ident: $type:ty,)+
        })?,
    )+) => {
        /// Something that happened in a node. The tag `event` names it, as lines of logs and scenarios do.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "event")]
        pub enum Fact {
            $(
                $(#[doc = $doc])+
                #[serde(rename = $event)]
                $name $({ $($(#[doc = $meaning])+ $(#[serde($serde)])? $field: $type,)+ })?,
            )+
        }

        impl Fact {
            /// The stable name: the tag `event`.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => $event,)+
                }
            }
        }

        /// The same as data: name, what it is, and of each field the name, the type, and what it says.
        #[cfg(test)]
        pub(crate) const TABLE: &[Row] = &[
            $(Row {
                event: $event,
                doc: concat!($($doc),+),
                fields: &[$($((stringify!($field), stringify!($type), concat!($($meaning),+)),)+)?],
            },)+
        ];
    };
}

/// A row of the table.
#[cfg(test)]
pub(crate) struct Row {
    pub(crate) event: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) fields: &'static [(&'static str, &'static str, &'static str)],
}

facts! {
    /// The process has read its configuration and starts the node.
    Spawning = "spawning" {
        /// As what.
        role: Role,
        /// Who.
        peer: PeerId,
    },
    /// The node listens.
    Up = "up" {
        /// The universe, as the operator wrote it.
        network: String,
        /// The instance's name.
        instance: String,
        /// Who.
        peer: PeerId,
        /// Where others dial it: host and port. None of a client, which nobody dials.
        address: Option<String>,
        /// As what.
        role: Role,
    },
    /// The node waits for the others.
    Booting = "booting" {
        /// As what.
        role: Role,
    },
    /// This server's disk was read: where its log and its promises stand.
    Opened = "opened" {
        /// Which disk.
        store: StoreId,
        /// The last entry of the log.
        last_log: Option<u64>,
        /// The highest term in which it voted or followed.
        term: u64,
    },
    /// The state of an earlier process was read back; what it holds is not told again.
    Restored = "restored" {
        /// The last applied entry.
        index: u64,
        /// Registered, undeparted servers.
        servers: Vec<PeerId>,
        /// Clients in the registry.
        clients: u32,
    },
    /// The log says this of the time before this process took part: it is no news.
    ReadAgain = "read-again" {
        /// What it says.
        again: Box<Fact>,
    },
    /// This server leads, and its header of a new round stands in the log.
    OpeningRound = "opening-round" {
        /// The entry.
        index: u64,
    },
    /// This server's partial stands in the log.
    PartialSubmitted = "partial-submitted" {
        /// The entry.
        index: u64,
    },
    /// A connection is up and both hellos were accepted.
    Linked = "linked" {
        /// With whom.
        peer: PeerId,
        /// What it is.
        role: Role,
    },
    /// The last connection with a peer is gone.
    Unlinked = "unlinked" {
        /// With whom.
        peer: PeerId,
        /// What it is.
        role: Role,
        /// What it said before, if it said goodbye.
        reason: Option<Farewell>,
    },
    /// This node does not talk to a peer.
    PeerRefused = "peer-refused" {
        /// Whom.
        peer: PeerId,
        /// Why.
        reason: Refusal,
    },
    /// What a peer sent was refused before it reached a role machine; nothing changed.
    Rejected = "rejected" {
        /// What it was.
        kind: Name,
        /// Why.
        reason: Name,
        /// From whom it came.
        from: PeerId,
    },
    /// A peer does not talk to this node.
    RefusedByPeer = "refused-by-peer" {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: Refusal,
    },
    /// A second node with a linked peer's identity appeared; the older connection must answer to keep it.
    Challenged = "challenged" {
        /// Whose identity.
        peer: PeerId,
    },
    /// Nobody answered where a peer was expected.
    DialFailed = "dial-failed" {
        /// Whom, if that is known.
        peer: Option<PeerId>,
        /// Where: host and port. Only servers and the aggregator are ever dialled.
        address: String,
    },
    /// Gossip believes that a peer lives.
    GossipAlive = "gossip-alive" {
        /// Who.
        peer: PeerId,
    },
    /// Gossip believes that a peer is dead or has left.
    GossipDead = "gossip-dead" {
        /// Who.
        peer: PeerId,
    },
    /// This leader asks for a change of the Raft membership.
    MembershipChange = "membership-change" {
        /// Which.
        change: Change,
    },
    /// No round was finalised for longer than a round may take, or the causes of that have changed.
    Stalled = "stalled" {
        /// Why, as far as this node knows.
        causes: Vec<Stall>,
    },
    /// Rounds were stalled, and are no more.
    GoesOn = "goes-on",
    /// This server founds a log with the servers that had a vote in the one that was set aside.
    Founding = "founding" {
        /// Its voters.
        voters: Vec<PeerId>,
    },
    /// This server found another log of its committee and gives up its own, which has no records.
    LogYielded = "log-yielded" {
        /// What it gave up.
        own: LogId,
        /// What it joins.
        other: LogId,
        /// Its new disk.
        store: StoreId,
    },
    /// An orderly stop was asked for.
    Departing = "departing",
    /// The node ends.
    Exiting = "exiting" {
        /// Of the process.
        code: u8,
        /// Why, as a sentence.
        reason: String,
    },
    /// Something that works but that an operator should know.
    Warning = "warning" {
        /// A sentence.
        text: String,
    },
    /// An invariant broke or the disk failed; the node stops on purpose.
    Fatal = "fatal" {
        /// A sentence.
        text: String,
    },
    /// Whoever reads the lines is too slow: some were not written.
    LinesLost = "lines-lost" {
        /// How many.
        count: u64,
    },

    /// This node's view of who leads has changed.
    Leader = "leader" {
        /// The leader, if one is known.
        leader: Option<PeerId>,
        /// The leader's disk.
        store: Option<StoreId>,
        /// The term.
        term: u64,
        /// Whether it is this node.
        local: bool,
    },
    /// Applied: who takes part in consensus has changed.
    MembersChanged = "members-changed" {
        /// The entry.
        index: u64,
        /// Whose votes count.
        voters: Vec<PeerId>,
        /// With which disk each of them votes, in the same order.
        stores: Vec<StoreId>,
        /// Who receives the log without a vote.
        learners: Vec<PeerId>,
        /// Whether the change is under way: two majorities have to agree.
        joint: bool,
    },
    /// This server's vote is on disk, and may be told.
    VoteSynced = "vote-synced" {
        /// The term.
        term: u64,
        /// Who got it.
        candidate: PeerId,
        /// The disk of whoever got it.
        store: StoreId,
    },
    /// Entries are on disk, and about to be acknowledged.
    Appended = "appended" {
        /// The last of them.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// An entry of the log was applied.
    EntryApplied = "entry-applied" {
        /// The entry.
        index: u64,
        /// Its term.
        term: u64,
        /// Of what it says.
        digest: Digest,
    },
    /// The end of the log was removed, because the leader's differs.
    Truncated = "truncated" {
        /// The last entry that stays.
        after: Option<u64>,
    },
    /// A snapshot of the state is on disk.
    SnapshotTaken = "snapshot-taken" {
        /// The last entry that it covers.
        index: u64,
    },
    /// The state was replaced by a snapshot of the leader.
    SnapshotInstalled = "snapshot-installed" {
        /// The last entry that it covers.
        index: u64,
    },
    /// Consensus has stopped.
    ConsensusFailed = "consensus-failed" {
        /// Why, as a sentence.
        reason: String,
    },

    /// Applied: a log was named.
    LogStarted = "log-started" {
        /// The log.
        log: LogId,
    },
    /// Applied: a round was opened.
    RoundOpened = "round-opened" {
        /// The log.
        log: LogId,
        /// The round.
        round: Round,
        /// The entry.
        index: u64,
        /// Digest of the header.
        header: Digest,
        /// The roster.
        servers: Vec<PeerId>,
        /// Clients in the registry that the header names.
        clients: u32,
        /// The smallest crowd that the round may have.
        min_participants: u32,
        /// The aggregator.
        aggregator: PeerId,
    },
    /// Applied: every rostered server has signed the header.
    RoundLive = "round-live" {
        /// The round.
        round: Round,
        /// Digest of the header.
        header: Digest,
        /// How many clients some server refuses.
        refused: u32,
    },
    /// Applied: the aggregate of a round.
    AggregateApplied = "aggregate-applied" {
        /// The round.
        round: Round,
        /// The entry.
        index: u64,
        /// Digest of the header.
        header: Digest,
        /// Digest of the aggregate.
        aggregate: Digest,
        /// How many envelopes are in.
        participants: u32,
    },
    /// Applied: a partial.
    PartialApplied = "partial-applied" {
        /// The round.
        round: Round,
        /// The entry.
        index: u64,
        /// Digest of the header.
        header: Digest,
        /// Digest of the aggregate that it names.
        aggregate: Digest,
        /// Whose.
        server: PeerId,
    },
    /// Applied: a round is finished, and this process had its part in it.
    RoundFinalized = "round-finalized" {
        /// How.
        #[serde(flatten)]
        end: RoundEnd,
    },
    /// Applied: a round is finished, without this process.
    RoundApplied = "round-applied" {
        /// How.
        #[serde(flatten)]
        end: RoundEnd,
    },
    /// Applied: a round is given up.
    RoundAbandoned = "round-abandoned" {
        /// The round.
        round: Round,
        /// The entry.
        index: u64,
        /// Digest of the header.
        header: Digest,
        /// What was missing.
        reason: Abandonment,
        /// From whom.
        missing: Vec<PeerId>,
    },
    /// Applied: every rostered server has signed the record.
    RecordConfirmed = "record-confirmed" {
        /// The round.
        round: Round,
        /// Digest of the record.
        record: Digest,
    },
    /// Applied: a server takes part, or has renewed its keys.
    ServerRegistered = "server-registered" {
        /// Who.
        server: PeerId,
        /// Of its bundle.
        epoch: Epoch,
    },
    /// Applied: a server has left for now.
    ServerDeparted = "server-departed" {
        /// Who.
        server: PeerId,
    },
    /// Applied: a server has announced that it leaves for good.
    ServerLeaving = "server-leaving" {
        /// Who.
        server: PeerId,
    },
    /// Applied: a server is barred for good.
    ServerRetired = "server-retired" {
        /// Who.
        server: PeerId,
        /// By the testimony of others instead of its own word.
        forced: bool,
    },
    /// Applied: the log has an aggregator.
    AggregatorRegistered = "aggregator-registered" {
        /// Who.
        aggregator: PeerId,
    },
    /// Applied: the client registry has changed.
    ClientsChanged = "clients-changed" {
        /// Of the registry.
        version: RegistryVersion,
        /// Clients in it.
        clients: u32,
    },
    /// Applied: a server refuses a client, which is out of the registry.
    ClientRefused = "client-refused" {
        /// Whom.
        client: PeerId,
        /// Who refuses.
        server: PeerId,
    },
    /// Applied: a server no longer refuses a client.
    RefusalWithdrawn = "refusal-withdrawn" {
        /// Whom.
        client: PeerId,
        /// Who refused.
        server: PeerId,
    },
    /// The operator of a server refuses this client.
    ClientBarred = "client-barred" {
        /// Which server says so.
        from: PeerId,
    },
    /// A command, message or header was refused; nothing changed.
    Refused = "refused" {
        /// What it was.
        kind: Name,
        /// Why.
        reason: Refused,
        /// From whom it came over a link; none from the log.
        from: Option<PeerId>,
    },
    /// This server promises a partial.
    HeaderSigned = "header-signed" {
        /// The round.
        round: Round,
        /// Digest of the header.
        header: Digest,
    },
    /// This server withholds its signature under a header.
    HeaderDeclined = "header-declined" {
        /// The round.
        round: Round,
        /// Digest of the header.
        header: Digest,
        /// Why.
        reason: Refused,
    },
    /// This server has made its partial; it is on its way to the log.
    PartialMade = "partial-made" {
        /// The log.
        log: LogId,
        /// The round.
        round: Round,
        /// Digest of the header.
        header: Digest,
        /// Digest of the aggregate that it names.
        aggregate: Digest,
        /// How many envelopes are in.
        participants: u32,
        /// This server's own floor.
        floor: u32,
    },
    /// This server gave no partial under an abandoned header, never will, and has signed that.
    Disclaimed = "disclaimed" {
        /// The round.
        round: Round,
        /// Digest of the header.
        header: Digest,
    },
    /// This aggregator has sent an aggregate to the servers for the first time.
    AggregateForwarded = "aggregate-forwarded" {
        /// The round.
        round: Round,
        /// How many envelopes are in.
        participants: u32,
    },
    /// Too few envelopes have come for a live round.
    TurnoutLow = "turnout-low" {
        /// The round.
        round: Round,
        /// Digest of the header.
        header: Digest,
        /// Envelopes that are in.
        envelopes: u32,
        /// The fewest that make an aggregate.
        floor: u32,
        /// Clients that the aggregator has no link with.
        absent: u32,
        /// Clients that take no part, by the reason that they gave.
        declined: BTreeMap<Refused, u32>,
    },
    /// This aggregator has met a client that is not in the registry.
    ClientSeen = "client-seen" {
        /// Who.
        client: PeerId,
    },
    /// This aggregator takes the word of these servers, and of those that its operator named.
    ServersBelieved = "servers-believed" {
        /// In rising order.
        servers: Vec<PeerId>,
    },
    /// This client is in the registry with its present bundle.
    Enrolled = "enrolled" {
        /// Of the registry.
        version: RegistryVersion,
    },
    /// This client has made an envelope. Whether a message is in it is for nobody to read.
    Sealed = "sealed" {
        /// The log.
        log: LogId,
        /// The round.
        round: Round,
        /// Digest of the header.
        header: Digest,
        /// The roster.
        servers: Vec<PeerId>,
    },
    /// This client does not take part under a header.
    HeaderUntrusted = "header-untrusted" {
        /// The round.
        round: Round,
        /// Why.
        reason: Refused,
    },
    /// This client knows what became of a message.
    Published = "published" {
        /// The publisher's number.
        request: RequestId,
        /// What.
        outcome: Outcome,
        /// In which round.
        round: Round,
    },
    /// This client or reader has seen a record.
    RecordSeen = "record-seen" {
        /// The log.
        log: LogId,
        /// The round.
        round: Round,
        /// Digest of the record.
        record: Digest,
        /// How many envelopes are in.
        participants: u32,
        /// Every rostered server has signed it, not just a majority.
        confirmed: bool,
    },
    /// This reader goes on without records that nobody has given it.
    RecordsMissing = "records-missing" {
        /// The log.
        log: LogId,
        /// The first round that was wanted.
        from: Round,
        /// The oldest record behind it that can be had.
        oldest: Round,
    },
    /// Servers have signed two records of one round.
    RecordContradicted = "record-contradicted" {
        /// The log.
        log: LogId,
        /// The round.
        round: Round,
        /// Digest of the record that was believed.
        seen: Digest,
        /// Digest of the other one.
        other: Digest,
        /// Who has signed the other one, of those whom this reader has reason to believe.
        servers: Vec<PeerId>,
        /// Who has signed both, and is convicted by that.
        both: Vec<PeerId>,
    },
}

/// Defines what is told of a finished round.
macro_rules! round_end {
    ($($(#[doc = $meaning:literal])+ $field:ident: $type:ty,)+) => {
        /// How a round was finished.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct RoundEnd {
            $($(#[doc = $meaning])+ pub $field: $type,)+
        }

        /// Its fields as data.
        #[cfg(test)]
        pub(crate) const ROUND_END: &[(&str, &str, &str)] =
            &[$((stringify!($field), stringify!($type), concat!($($meaning),+)),)+];
    };
}

round_end! {
    /// The log.
    log: LogId,
    /// The round.
    round: Round,
    /// The entry that finished it.
    index: u64,
    /// The term of that entry; none in what is read again.
    term: Option<u64>,
    /// Digest of the header.
    header: Digest,
    /// Digest of the record.
    record: Digest,
    /// Digest of the record before it.
    previous: Digest,
    /// How many envelopes are in.
    participants: u32,
    /// The roster.
    servers: Vec<PeerId>,
    /// Whose signature under the header the round had.
    signed: Vec<PeerId>,
    /// Whose partial the round had.
    partials: Vec<PeerId>,
}

/// Why rounds stall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// The stable name.
    pub cause: Name,
    /// Who and what helps, as a sentence.
    pub text: String,
}
