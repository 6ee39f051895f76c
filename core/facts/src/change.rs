//! Changes of who takes part in consensus.

use alloc::collections::BTreeSet;
use core::fmt;

use serde::{Deserialize, Serialize};
use zipnet_core::id::RaftId;

/// A change of the Raft membership. One at a time; the next is planned once it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Send the log to a server.
    AddLearner(RaftId),
    /// Give a learner that has caught up a vote.
    Promote(RaftId),
    /// Give a learner that has caught up the vote of its old disk.
    ReplaceStore {
        /// Loses its vote, in the same change.
        old: RaftId,
        /// Gets it.
        new: RaftId,
    },
    /// Take the vote of a server that is gone for good.
    RemoveVoter(RaftId),
    /// No longer send the log to a server.
    RemoveLearner(RaftId),
}

impl Change {
    /// The voters after this change.
    #[must_use]
    pub fn voters(&self, voters: &BTreeSet<RaftId>) -> BTreeSet<RaftId> {
        let mut voters = voters.clone();
        match self {
            Self::AddLearner(_) => {}
            Self::Promote(id) => {
                voters.insert(*id);
            }
            Self::ReplaceStore { old, new } => {
                voters.remove(old);
                voters.insert(*new);
            }
            Self::RemoveVoter(id) | Self::RemoveLearner(id) => {
                voters.remove(id);
            }
        }
        voters
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddLearner(id) => write!(f, "sending the log to server={id}"),
            Self::Promote(id) => write!(f, "giving a vote to server={id}"),
            Self::ReplaceStore { old, new } => {
                write!(f, "giving the vote of server={old} to its new disk {new}")
            }
            Self::RemoveVoter(id) => write!(f, "taking the vote of server={id}, which is gone for good"),
            Self::RemoveLearner(id) => write!(f, "no longer sending the log to server={id}"),
        }
    }
}
