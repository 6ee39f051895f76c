//! Which checks the code makes: all of them.
//!
//! Every rule whose loss the simulator must be able to notice asks its [`Checks`] before it enforces. [`Strict`] is the
//! only implementation in the crates that production is built from; it is a constant, so the question costs nothing.
//! The simulator brings another implementation that skips one rule, to prove that its properties notice.

use core::fmt::Debug;

use crate::id::{Digest, PeerId};
use crate::key::{self, PublicKey, Signature};
use crate::message::Header;

/// A rule that a defective build could lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// A round is finalised only with the partial of every rostered server.
    CompleteRoster,
    /// A record is a function of the log alone, down to the order of its servers.
    CanonicalRecord,
    /// The first valid aggregate of a round wins; a second one changes nothing.
    OneAggregate,
    /// A partial counts only for the header and the aggregate that it names.
    PartialOfRound,
    /// Rounds below the participant floor are neither opened, aggregated nor unblinded.
    ParticipantFloor,
    /// A round's number is the last opened one plus one.
    RoundRises,
    /// The nonce of a header is drawn fresh.
    FreshNonce,
    /// A client seals one envelope per header, and only for rounds above every round it has sealed.
    SealOnce,
    /// A client's envelope is folded once.
    FoldOnce,
    /// A record names the digest of the record before it.
    ChainRecords,
    /// A vote is on disk before it is answered.
    VoteSynced,
    /// Log entries are on disk before they are acknowledged.
    AppendSynced,
    /// A peer proves that it knows the committee secret before it is treated as a server.
    GroupProof,
    /// Two live nodes with one identity: the newcomer is refused.
    UniqueIdentity,
    /// A retired identity stays barred.
    RetiredBarred,
    /// A client refuses rosters below its floor or without its pinned servers.
    ClientFloor,
    /// Two nodes that disagree on the machine's state find out at the next header.
    StateDigest,
    /// A log without records yields to one with records.
    LogYields,
    /// A server with an empty state folder is a new voter, whatever its identity.
    FreshStore,
    /// A voter is removed only after its own announcement or a forced retirement.
    AnnouncedRemoval,
    /// A retirement that would cost the majority is refused.
    MajorityKept,
    /// A server is declared dead only after probes that it did not answer.
    ProbedDead,
    /// One server keeps out no more clients than a share of the registry.
    FewRefused,
    /// Peers of another wire version, machine signature or parameters are refused by name.
    Compatibility,
    /// Entries and snapshots of the log are taken from voters that a server knows.
    KnownLeader,
    /// A pad belongs to the two peers that share it, not to their keys.
    PadEnds,
    /// A round key signs one header per round and gives one partial or one disclaimer under it, whatever the replicated
    /// state says; a snapshot of a peer costs the key.
    PromiseKept,
    /// A server signs the records that it has seen made by the entries of its log, and one per round.
    RecordsApplied,
    /// An aggregator takes the word of servers that it believes, and of no others.
    ServersBelieved,
    /// Only peers that the operator named end a server by refusing it, or make it give up its log.
    NamedJudges,
    /// Only servers speak of a log when they say hello.
    ServersHaveLogs,
    /// An aggregator serves a log once a majority of its voters have approved it.
    MajorityApproves,
    /// Servers whose log was set aside found another one together, by a majority of those who had a vote.
    FoundTogether,
}

/// A vector that a keyring has made, and what it made it of: for whoever judges from outside what a run gives away.
#[derive(Debug)]
pub struct Mixed<'a> {
    /// Whose keyring.
    pub peer: PeerId,
    /// Under which header.
    pub header: &'a Header,
    /// Of the header.
    pub digest: Digest,
    /// What was mixed.
    pub what: Mixture<'a>,
    /// The first bytes of each pad that was XORed into it, and with whom the keyring believes to share it.
    pub pads: &'a [(PeerId, [u8; Mixed::HEAD])],
    /// The vector as it leaves.
    pub body: &'a [u8],
}

impl Mixed<'_> {
    /// How many bytes name a pad; a shorter vector is filled up with zeros.
    pub const HEAD: usize = 32;
}

/// What a vector is.
#[derive(Clone, Copy, Debug)]
pub enum Mixture<'a> {
    /// A client's envelope.
    Envelope {
        /// What it holds under the pads; `None` for cover traffic.
        payload: Option<&'a [u8]>,
    },
    /// A server's partial.
    Partial {
        /// For which aggregate.
        aggregate: Digest,
    },
}

/// Says which rules are enforced.
pub trait Checks: Clone + Debug + Send + Sync + 'static {
    /// Whether the rule is enforced.
    fn enforce(&self, check: Check) -> bool;

    /// Whether [`Checks::mixed`] is to be called.
    const OBSERVES: bool = false;

    /// A keyring has made a vector.
    fn mixed(&self, _: &Mixed<'_>) {}

    /// The round key that bundles announce for the present one: itself. Only a liar says something else.
    fn announced(&self, own: PublicKey) -> PublicKey {
        own
    }

    /// Whether the peer signed the digest. The answer depends on nothing else, so whoever runs many nodes in one process
    /// may remember it.
    fn verify(&self, peer: &PeerId, digest: &Digest, signature: &Signature) -> bool {
        key::verify(peer, digest, signature)
    }
}

/// Enforces every rule. What production runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Strict;

impl Checks for Strict {
    #[inline(always)]
    fn enforce(&self, _: Check) -> bool {
        true
    }
}
