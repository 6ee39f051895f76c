//! Which nodes a name means at this moment.

use core::time::Duration;

use zipnet_reports::Verdict;
use zipnet_scenarios::node::{NodeRef, Nodes, Role, Which};

use super::{End, Going, Run};
use crate::cast::NodeId;
use crate::site::Site;

/// How long a run waits for the leader that a step speaks of.
const LEADER_WAIT: Duration = Duration::from_secs(10);

/// What the nodes are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be started: all are those that are down.
    Start,
    /// To be changed: all are all.
    Install,
    /// For anything else that a step does: all are those that are up.
    Act,
    /// To be looked at or dialled; does not change the target.
    Look,
}

impl<S: Site> Run<'_, S> {
    /// Every node that a reference can ever mean.
    pub(super) fn everyone(&self, reference: &NodeRef) -> Vec<NodeId> {
        match reference.which {
            Which::Number(_) => self.site.cast().find(reference).into_iter().collect(),
            Which::Each => self.each.into_iter().collect(),
            Which::All | Which::Any | Which::Rest | Which::Leader | Which::Follower | Which::Target => {
                self.site.cast().of_role(self.site.cast().home(reference), reference.role).collect()
            }
        }
    }

    /// The nodes that several references mean, each once, in their order.
    pub(super) async fn choose(&mut self, nodes: &Nodes, purpose: Purpose) -> Going<Vec<NodeId>> {
        let mut chosen = Vec::new();
        for reference in &nodes.0 {
            for node in self.choose_by(reference, purpose).await? {
                if !chosen.contains(&node) {
                    chosen.push(node);
                }
            }
        }
        Ok(chosen)
    }

    /// The one node that a reference means.
    pub(super) async fn choose_one(&mut self, reference: &NodeRef, purpose: Purpose) -> Going<NodeId> {
        let chosen = self.choose_by(reference, purpose).await?;
        chosen.first().copied().ok_or_else(|| self.nobody(reference))
    }

    async fn choose_by(&mut self, reference: &NodeRef, purpose: Purpose) -> Going<Vec<NodeId>> {
        let home = self.site.cast().home(reference);
        let chosen = match reference.which {
            Which::Number(_) => self.site.cast().find(reference).into_iter().collect(),
            Which::Each => self.each.into_iter().collect(),
            Which::Target => self.target.into_iter().collect(),
            Which::All => {
                let all: Vec<_> = self.site.cast().of_role(home, reference.role).collect();
                match purpose {
                    // Nobody has to be down.
                    Purpose::Start => {
                        return Ok(all.into_iter().filter(|node| !self.site.is_up(*node)).collect());
                    }
                    Purpose::Install => all,
                    Purpose::Act | Purpose::Look => {
                        all.into_iter().filter(|node| self.site.is_up(*node)).collect()
                    }
                }
            }
            Which::Rest => {
                let without = self.each.or(self.target);
                let up = self.up(home, reference.role).into_iter();
                up.filter(|node| Some(*node) != without).collect()
            }
            Which::Any => {
                let up = self.up(home, reference.role);
                self.random.pick(&up).copied().into_iter().collect()
            }
            Which::Leader => self.wait_for_leader(home).await?.into_iter().collect(),
            Which::Follower => {
                let leader = self.wait_for_leader(home).await?;
                let mut up = self.up(home, reference.role);
                up.retain(|node| Some(*node) != leader);
                self.random.pick(&up).copied().into_iter().collect()
            }
        };
        if chosen.is_empty() {
            return Err(self.nobody(reference));
        }
        let marks = match reference.which {
            Which::Any | Which::Leader | Which::Follower => purpose != Purpose::Look,
            Which::Number(_) | Which::All | Which::Each | Which::Rest | Which::Target => false,
        };
        if marks {
            self.target = chosen.first().copied();
        }
        Ok(chosen)
    }

    /// The nodes of a role of a deployment that are up.
    pub(super) fn up(&self, home: usize, role: Role) -> Vec<NodeId> {
        self.site.cast().of_role(home, role).filter(|node| self.site.is_up(*node)).collect()
    }

    async fn wait_for_leader(&mut self, home: usize) -> Going<Option<NodeId>> {
        let until = self.now().after(LEADER_WAIT);
        loop {
            let leader = self.leader(home);
            if leader.is_some() || self.now() >= until {
                return Ok(leader);
            }
            self.pass(self.now().after(S::LOOK)).await?;
        }
    }

    fn nobody(&self, reference: &NodeRef) -> End {
        self.failed(Verdict::NotConverged, None, format!("no node is meant by {reference} at this moment"))
    }
}
