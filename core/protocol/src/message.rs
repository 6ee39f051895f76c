//! Everything that nodes say to each other about the protocol, as types. How they become bytes is in [`crate::wire`],
//! what is signed and digested is in [`crate::signing`].

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::bitmap::Bitmap;
use crate::id::{Counter, Digest, Epoch, GroupId, LogId, PeerId, RegistryVersion, Role, Round, UniqueId};
use crate::key::{PublicKey, Signature};
use crate::params::RoundParams;
use crate::refused::Refused;

/// The smallest rounds that a server takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Floors {
    /// Fewest participants of a round (`ZIPNET_MIN_PARTICIPANTS`).
    pub participants: u32,
    /// Fewest servers of a roster (`ZIPNET_MIN_SERVERS`); `None`: every registered, undeparted server.
    pub servers: Option<u32>,
}

/// What a node announces about itself. A bundle replaces those of the same peer with lower epochs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Whose bundle it is.
    pub peer: PeerId,
    /// As what the peer takes part.
    pub role: Role,
    /// The instance that it takes part in.
    pub instance: UniqueId,
    /// Rises with each bundle of the peer.
    pub epoch: Epoch,
    /// The X25519 key that pads are derived from; drawn at process start.
    pub round_key: PublicKey,
    /// Floors; only servers have them.
    pub floors: Option<Floors>,
    /// What ties the round key to a measured boot. This version accepts it and draws no conclusion from it.
    pub boot: Option<Boot>,
    /// By the peer, over all of the above.
    pub signature: Signature,
}

/// The word of a boot key, which was born with the process and which a quote of the platform names, for a round key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The ed25519 public key of the boot.
    pub key: [u8; 32],
    /// By the boot key, over [`Bundle::boot_digest`].
    pub signature: Signature,
    /// blake3 of the quote, which travels apart.
    pub quote: Digest,
}

/// A server as a header lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterServer {
    /// Who.
    pub peer: PeerId,
    /// Of its bundle.
    pub epoch: Epoch,
    /// Of its bundle.
    pub round_key: PublicKey,
}

/// The clients that a header allows: the registry in PeerId order at one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSet {
    /// Of the registry.
    pub version: RegistryVersion,
    /// How many clients; the length of every bitmap of the round.
    pub count: u32,
    /// Merkle root over the registry's entries.
    pub root: Digest,
}

/// A client's entry in a [`ClientSet`], with the digests that lead from it to the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The client's place.
    pub index: u32,
    /// Its bundle.
    pub bundle: Bundle,
    /// The other child at each level that has one, leaves first.
    pub path: Vec<Digest>,
}

/// The state from which a header was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// The last finalised round; 0 if none.
    pub round: Round,
    /// The digest of its record; zero if none.
    pub record: Digest,
    /// The digest of the committee machine right after the entry that made that record; zero if none.
    pub state: Digest,
}

/// What a round is: everything that its pads depend on. Holds no clock times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The log.
    pub log: LogId,
    /// Last opened round plus one.
    pub round: Round,
    /// 32 fresh random bytes of the leader.
    pub nonce: [u8; 32],
    /// The committee.
    pub group: GroupId,
    /// The shape of the vector.
    pub params: RoundParams,
    /// What came before.
    pub previous: Previous,
    /// The roster in PeerId order.
    pub servers: Vec<RosterServer>,
    /// The clients that may take part.
    pub clients: ClientSet,
    /// Fewest participants.
    pub min_participants: u32,
    /// Who folds the round: the log's aggregator at the opening. Clients send their envelopes to it alone.
    pub aggregator: PeerId,
}

/// A server's promise of a partial for any valid aggregate under this header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderSignature {
    /// The log.
    pub log: LogId,
    /// The round.
    pub round: Round,
    /// Of the header.
    pub header: Digest,
    /// Who promises.
    pub server: PeerId,
    /// Clients that this server does not accept; over the header's client set.
    pub refused: Bitmap,
    /// By the server, over all of the above.
    pub signature: Signature,
}

/// A header with the signature of every server of its roster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveHeader {
    /// The header.
    pub header: Header,
    /// In roster order.
    pub signatures: Vec<HeaderSignature>,
}

/// Prints a vector as its length and its hash: in numbers, it would fill pages.
struct Vector<'a>(&'a [u8]);

impl fmt::Debug for Vector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes #{}", self.0.len(), blake3::hash(self.0))
    }
}

/// A client's vector: message (or nothing) XOR one pad per server. `B` is where its bytes are: whoever only reads them
/// leaves them in the message that they came in ([`crate::wire::decode_envelope`]).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(serialize = "B: serde_bytes::Serialize", deserialize = "B: serde_bytes::Deserialize<'de>"))]
pub struct Envelope<B = Vec<u8>> {
    /// The log.
    pub log: LogId,
    /// The round.
    pub round: Round,
    /// Of the header.
    pub header: Digest,
    /// Of the client's bundle.
    pub epoch: Epoch,
    /// The vector.
    #[serde(with = "serde_bytes")]
    pub body: B,
    /// By the client, over all of the above; checked only in a dispute.
    pub signature: Signature,
}

impl<B: AsRef<[u8]>> fmt::Debug for Envelope<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, round, header, epoch, body, signature } = self;
        f.debug_struct("Envelope")
            .field("log", log)
            .field("round", round)
            .field("header", header)
            .field("epoch", epoch)
            .field("body", &Vector(body.as_ref()))
            .field("signature", signature)
            .finish()
    }
}

/// The XOR of the participants' envelopes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// The log.
    pub log: LogId,
    /// The round.
    pub round: Round,
    /// Of the header.
    pub header: Digest,
    /// Whose envelopes are in, over the header's client set.
    pub participants: Bitmap,
    /// The vector.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// By the aggregator, over all of the above.
    pub signature: Signature,
}

impl fmt::Debug for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, round, header, participants, body, signature } = self;
        f.debug_struct("Aggregate")
            .field("log", log)
            .field("round", round)
            .field("header", header)
            .field("participants", participants)
            .field("body", &Vector(body))
            .field("signature", signature)
            .finish()
    }
}

/// The XOR of one server's pads with the participants.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// The log.
    pub log: LogId,
    /// The round.
    pub round: Round,
    /// Of the header.
    pub header: Digest,
    /// Of the applied aggregate, its bitmap included.
    pub aggregate: Digest,
    /// Whose pads.
    pub server: PeerId,
    /// The vector.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// By the server, over all of the above.
    pub signature: Signature,
}

impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, round, header, aggregate, server, body, signature } = self;
        f.debug_struct("Partial")
            .field("log", log)
            .field("round", round)
            .field("header", header)
            .field("aggregate", aggregate)
            .field("server", server)
            .field("body", &Vector(body))
            .field("signature", signature)
            .finish()
    }
}

/// A finalised round, with what it was made of.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The log.
    pub log: LogId,
    /// The round.
    pub round: Round,
    /// Of the header.
    pub header: Digest,
    /// Whose envelopes are in, over the header's client set.
    pub participants: Bitmap,
    /// The roster in PeerId order.
    pub servers: Vec<PeerId>,
    /// The slots.
    #[serde(with = "serde_bytes")]
    pub broadcast: Vec<u8>,
    /// Digest of the record before it; zero for the first.
    pub previous: Digest,
    /// Digest of the aggregate.
    pub aggregate: Digest,
    /// Digests of the partials, in roster order.
    pub partials: Vec<Digest>,
    /// Position in the log of the entry that finalised the round.
    pub index: u64,
    /// Over every command entry of the log since the record before this one, up to that position.
    pub chain: Digest,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            log,
            round,
            header,
            participants,
            servers,
            broadcast,
            previous,
            aggregate,
            partials,
            index,
            chain,
        } = self;
        f.debug_struct("Record")
            .field("log", log)
            .field("round", round)
            .field("header", header)
            .field("participants", participants)
            .field("servers", servers)
            .field("broadcast", &Vector(broadcast))
            .field("previous", previous)
            .field("aggregate", aggregate)
            .field("partials", partials)
            .field("index", index)
            .field("chain", chain)
            .finish()
    }
}

/// How many clients take part in a live round, as the aggregator counts them once it has waited for them. For operators
/// only: nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turnout {
    /// The round.
    pub round: Round,
    /// Of the header.
    pub header: Digest,
    /// Envelopes that are in.
    pub envelopes: u32,
    /// Clients of the header's client set that the aggregator has no link with.
    pub absent: u32,
    /// Clients that said why they take no part, by reason in the order of [`Refused`]; each reason once.
    pub declined: Vec<(Refused, u32)>,
}

/// A server's word that the committee finalised a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSignature {
    /// The log.
    pub log: LogId,
    /// The round.
    pub round: Round,
    /// Of the record.
    pub record: Digest,
    /// Who signs.
    pub server: PeerId,
    /// By the server, over all of the above.
    pub signature: Signature,
}

/// A server's word that it gave no partial under an abandoned header and never will. With the word of the whole roster,
/// nothing sealed under that header can ever be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disclaimer {
    /// The log.
    pub log: LogId,
    /// The round.
    pub round: Round,
    /// Of the header.
    pub header: Digest,
    /// Who says so.
    pub server: PeerId,
    /// By the server, over all of the above.
    pub signature: Signature,
}

/// What a server says about its own membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// It takes part, with the bundle of this epoch.
    Registered,
    /// It leaves for now and is expected back; out of the roster, still a voter.
    Departed,
    /// It is going to leave for good.
    Leaving,
}

/// A server's signed word about its own membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The log.
    pub log: LogId,
    /// Who.
    pub server: PeerId,
    /// Of its current bundle.
    pub epoch: Epoch,
    /// Rises with each announcement of the server.
    pub counter: Counter,
    /// What.
    pub standing: Standing,
    /// By the server, over all of the above.
    pub signature: Signature,
}

/// A server's word that another one is dead: its own probes failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// The log.
    pub log: LogId,
    /// Who is dead.
    pub server: PeerId,
    /// The epoch of the dead server's registered bundle; a later registration voids the testimony.
    pub epoch: Epoch,
    /// Who says so.
    pub witness: PeerId,
    /// By the witness, over all of the above.
    pub signature: Signature,
}

/// A server's approval of an aggregator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The log.
    pub log: LogId,
    /// The aggregator's bundle.
    pub bundle: Bundle,
    /// Who approves.
    pub server: PeerId,
    /// By the server, over log, digest of the bundle, and server.
    pub signature: Signature,
}

/// A change of the client registry, made by the aggregator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientBatch {
    /// The log.
    pub log: LogId,
    /// Last applied batch of the log plus one.
    pub counter: Counter,
    /// Clients that come, or renew their bundle; each signed by its client. At most [`ClientBatch::LEN_MAX`].
    pub register: Vec<Bundle>,
    /// Clients that go, with the epoch that is expired. At most [`ClientBatch::LEN_MAX`].
    pub expire: Vec<(PeerId, Epoch)>,
    /// By the aggregator, over all of the above.
    pub signature: Signature,
}

impl ClientBatch {
    /// The most entries of each list.
    pub const LEN_MAX: usize = 1024;
}

/// A server does not accept a client: it holds until that server withdraws it, re-keys or leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRefusal {
    /// The log.
    pub log: LogId,
    /// Who refuses.
    pub server: PeerId,
    /// Rises with each refusal and withdrawal of the server.
    pub counter: Counter,
    /// Whom.
    pub client: PeerId,
    /// Of the refused bundle.
    pub epoch: Epoch,
    /// True: refuse. False: withdraw.
    pub refuse: bool,
    /// By the server, over all of the above.
    pub signature: Signature,
}

/// A command of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a log: names it.
    StartLog {
        /// Random.
        log: LogId,
    },
    /// Opens a round; the open one, if any, is abandoned.
    OpenRound(Header),
    /// A server promises a partial.
    SignHeader(HeaderSignature),
    /// The aggregate of the live round.
    SubmitAggregate(Aggregate),
    /// A server's partial.
    SubmitPartial(Partial),
    /// A server confirms a record.
    SignRecord(RecordSignature),
    /// A server takes part from the next round on.
    RegisterServer {
        /// Its keys and floors.
        bundle: Bundle,
        /// With [`Standing::Registered`].
        announcement: Announcement,
    },
    /// A server leaves for now.
    DepartServer(Announcement),
    /// A server leaves for good, by its own word.
    RetireServer(Announcement),
    /// A server testifies that another is dead; a majority of the others retires it.
    TestifyDead(Testimony),
    /// A server approves an aggregator; a majority makes it the aggregator of the log.
    ApproveAggregator(Approval),
    /// Clients come and go.
    ChangeClients(ClientBatch),
    /// A server refuses a client, or no longer does.
    RefuseClient(ClientRefusal),
}

/// A protocol message between two nodes. Who sent it is known from the link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Server to leader: please put this into the log.
    Propose(Command),
    /// Client to aggregator, aggregator to server: here I am.
    Bundle(Bundle),
    /// The bundle was not accepted. `last` is the receiver's own newest bundle that is known, so that it can take the
    /// next epoch; or, from a server to the aggregator, the bundle of a client that may not register.
    BundleRefused {
        /// Why, in the machine's terms.
        reason: Refused,
        /// The newest known bundle of the receiver.
        last: Option<Bundle>,
    },
    /// Server to aggregator: a round is live.
    Live(LiveHeader),
    /// Aggregator to client: a round is live, and this is your place in it.
    LiveFor {
        /// The signed header.
        live: Box<LiveHeader>,
        /// The receiver's place in the client set, if it has one.
        place: Option<Proof>,
    },
    /// Client to aggregator.
    Envelope(Envelope),
    /// Aggregator to server, until applied.
    Aggregate(Aggregate),
    /// Server to aggregator: this aggregate is in the log, stop sending.
    AggregateApplied {
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
    },
    /// Server to aggregator: the registry as of a version, in full.
    Registry {
        /// The log.
        log: LogId,
        /// Of the registry.
        version: RegistryVersion,
        /// The counter of the last applied batch.
        counter: Counter,
        /// In PeerId order.
        clients: Vec<Bundle>,
    },
    /// Server to aggregator: a batch was applied; `version` is the registry's version after it.
    RegistryChanged {
        /// Of the registry.
        version: RegistryVersion,
        /// What was applied.
        batch: ClientBatch,
    },
    /// Aggregator to server: please send the registry in full.
    RegistryWanted,
    /// Server to aggregator, aggregator to client: a finalised round.
    Record {
        /// The record.
        record: Record,
        /// At least a majority of its roster.
        signatures: Vec<RecordSignature>,
    },
    /// Further signatures of a record sent before.
    RecordSigned {
        /// All known signatures.
        signatures: Vec<RecordSignature>,
    },
    /// Anyone to server or aggregator: please send the records from this round on.
    RecordsWanted {
        /// The first round wanted.
        from: Round,
    },
    /// Server to server: an operator says that this server is dead; testify if your own probes fail.
    TestifyWanted {
        /// Who.
        server: PeerId,
    },
    /// Server to aggregator, aggregator to client: these servers leave for good, by their own word.
    Retired {
        /// Each signed by the server that leaves.
        announcements: Vec<Announcement>,
    },
    /// Server to aggregator: its own, of any headers. Aggregator to client: those of one header, by its whole roster.
    Disclaimed {
        /// From the aggregator: in roster order.
        disclaimers: Vec<Disclaimer>,
    },
    /// Client to aggregator: it takes no part under this header.
    Declined {
        /// The round.
        round: Round,
        /// Of the header.
        header: Digest,
        /// Why.
        reason: Refused,
    },
    /// Aggregator to server: too few envelopes have come, and why, as far as it knows.
    Turnout(Turnout),
}
