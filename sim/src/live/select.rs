//! Which nodes a name means at this moment.

use core::time::Duration;

use zipnet_reports::Verdict;
use zipnet_scenarios::node::{NodeRef, Nodes, Role, Which};

use super::{Going, LOOK, Run, Stop};
use crate::cluster::NodeId;

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

impl Run<'_> {
    /// Every node that a reference can ever mean.
    pub(super) fn everyone(&self, reference: &NodeRef) -> Vec<NodeId> {
        match reference.which {
            Which::Number(_) => self.cluster.find(reference).into_iter().collect(),
            Which::Each => self.each.into_iter().collect(),
            Which::All | Which::Any | Which::Rest | Which::Leader | Which::Follower | Which::Target => {
                self.cluster.of_role(self.cluster.home(reference), reference.role).collect()
            }
        }
    }

    /// The nodes that several references mean, each once, in their order.
    pub(super) fn choose(&mut self, nodes: &Nodes, purpose: Purpose) -> Going<Vec<NodeId>> {
        let mut chosen = Vec::new();
        for reference in &nodes.0 {
            for node in self.choose_by(reference, purpose)? {
                if !chosen.contains(&node) {
                    chosen.push(node);
                }
            }
        }
        Ok(chosen)
    }

    /// The nodes, or none.
    pub(super) fn choose_some(&mut self, nodes: Option<&Nodes>) -> Going<Vec<NodeId>> {
        nodes.map_or_else(|| Ok(Vec::new()), |nodes| self.choose(nodes, Purpose::Look))
    }

    /// The one node that a reference means.
    pub(super) fn choose_one(&mut self, reference: &NodeRef, purpose: Purpose) -> Going<NodeId> {
        let chosen = self.choose_by(reference, purpose)?;
        chosen.first().copied().ok_or_else(|| self.nobody(reference))
    }

    fn choose_by(&mut self, reference: &NodeRef, purpose: Purpose) -> Going<Vec<NodeId>> {
        let home = self.cluster.home(reference);
        let chosen = match reference.which {
            Which::Number(_) => self.cluster.find(reference).into_iter().collect(),
            Which::Each => self.each.into_iter().collect(),
            Which::Target => self.target.into_iter().collect(),
            Which::All => {
                let all: Vec<_> = self.cluster.of_role(home, reference.role).collect();
                match purpose {
                    // Nobody has to be down.
                    Purpose::Start => {
                        return Ok(all.into_iter().filter(|node| !self.cluster.is_up(*node)).collect());
                    }
                    Purpose::Install => all,
                    Purpose::Act | Purpose::Look => {
                        all.into_iter().filter(|node| self.cluster.is_up(*node)).collect()
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
            Which::Leader => self.wait_for_leader(home)?.into_iter().collect(),
            Which::Follower => {
                let leader = self.wait_for_leader(home)?;
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

    fn up(&self, home: usize, role: Role) -> Vec<NodeId> {
        self.cluster.of_role(home, role).filter(|node| self.cluster.is_up(*node)).collect()
    }

    /// The server of a deployment that leads: of several that say so, the one with the newest term.
    pub(super) fn leader(&self, home: usize) -> Option<NodeId> {
        let term = |node: &NodeId| {
            let known = self.witness.of(*node);
            known.leader.as_ref().filter(|_| known.leads()).map(|(term, _, _)| *term)
        };
        let servers = self.cluster.servers_up(home).into_iter();
        servers.filter(|node| term(node).is_some()).max_by_key(term)
    }

    fn wait_for_leader(&mut self, home: usize) -> Going<Option<NodeId>> {
        let until = self.now().after(LEADER_WAIT);
        loop {
            let leader = self.leader(home);
            if leader.is_some() || self.now() >= until {
                return Ok(leader);
            }
            self.pass(self.now().after(LOOK))?;
        }
    }

    fn nobody(&self, reference: &NodeRef) -> Stop {
        self.failed(Verdict::NotConverged, None, format!("no node is meant by {reference} at this moment"))
    }
}
