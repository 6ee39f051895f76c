//! openraft's types, bound to ours. None of the types that reach a disk or a wire depends on the runtime.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use openraft::vote::RaftLeaderId;
use openraft_rt::AsyncRuntime;
use zipnet_core::id::{PeerId, RaftId, StoreId};

/// Binds openraft to this crate's types, on the runtime `R`.
pub struct Types<R>(PhantomData<fn() -> R>);

impl<R: AsyncRuntime> openraft::RaftTypeConfig for Types<R> {
    type D = Command;
    type R = ();
    type NodeId = NodeId;
    type Node = ();
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = R;
    type Responder<T>
        = openraft::impls::ProgressResponder<Self, T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// A [`RaftId`] as openraft wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub RaftId);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a node by its store alone: openraft's storage suite makes its nodes from numbers.
impl From<u64> for NodeId {
    fn from(store: u64) -> Self {
        Self(RaftId { peer: PeerId::default(), store: StoreId(store) })
    }
}

/// The opaque bytes of one log entry.
#[derive(Clone, PartialEq, Eq)]
pub struct Command(pub Bytes);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.0.len())
    }
}

/// A term and who leads it.
pub type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>;
/// The leader of a committed entry: the term says it all.
pub type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
/// A vote, or the leadership that came of it.
pub type Vote = openraft::impls::Vote<LeaderId>;
/// What an entry carries.
pub type Payload = openraft::EntryPayload<Command, NodeId, ()>;
/// One entry of the log.
pub type Entry = openraft::Entry<CommittedLeaderId, Payload>;
/// Term and index of an entry.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// Voters, learners and joint configurations.
pub type Membership = openraft::Membership<NodeId, ()>;
/// A membership and the entry that set it.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, NodeId, ()>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, NodeId, ()>;
/// A snapshot with its bytes.
pub type Snapshot = openraft::Snapshot<CommittedLeaderId, NodeId, (), Bytes>;

/// Who takes part in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Whose agreement counts; in a joint configuration the voters of both halves.
    pub voters: BTreeSet<RaftId>,
    /// Who receives the log without a vote.
    pub learners: BTreeSet<RaftId>,
    /// A change of voters is half done: majorities of the old and of the new voters are both needed. If the leader
    /// that began it is gone, [`complete_change`](super::Consensus::complete_change) on the current one completes it.
    pub joint: bool,
}

impl From<&Membership> for Members {
    fn from(membership: &Membership) -> Self {
        Self {
            voters: membership.voter_ids().map(|id| id.0).collect(),
            learners: membership.learner_ids().map(|id| id.0).collect(),
            joint: membership.get_joint_config().len() > 1,
        }
    }
}

/// The term of an entry.
pub(super) fn term(id: &LogId) -> u64 {
    id.committed_leader_id().term
}

// By hand, because deriving would ask the runtime for the same traits.
impl<R> Clone for Types<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Types<R> {}

impl<R> Default for Types<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R> fmt::Debug for Types<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}

impl<R> PartialEq for Types<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<R> Eq for Types<R> {}

impl<R> PartialOrd for Types<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for Types<R> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}
