//! Which checks the code makes: all of them.
//!
//! Every rule whose loss the simulator must be able to notice asks its [`Checks`] before it enforces. [`Strict`] is the
//! only implementation in the crates that production is built from; it is a constant, so the question costs nothing.
//! The simulator brings another implementation that skips one rule, to prove that its properties notice.

use core::fmt::Debug;

use crate::id::{Digest, PeerId};
use crate::key::{self, Signature};

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
}

/// Says which rules are enforced.
pub trait Checks: Clone + Debug + Send + Sync + 'static {
    /// Whether the rule is enforced.
    fn enforce(&self, check: Check) -> bool;

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
