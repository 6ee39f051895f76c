//! The cuts and delays that steps and faults ask for, carried over to the network.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::{Hold, Trouble};
use crate::chain::NodeIndex;
use crate::cluster::{Cluster, NodeId};
use crate::network::{Model, Ways};

/// What the network was told last.
#[derive(Debug)]
pub(super) struct Wires {
    base: Model,
    /// Cuts that steps made: from whom to whom.
    partitions: BTreeSet<(NodeIndex, NodeIndex)>,
    cut: BTreeSet<(NodeIndex, NodeIndex)>,
    models: BTreeMap<(NodeIndex, NodeIndex), Model>,
}

impl Wires {
    pub(super) const fn new(base: Model) -> Self {
        Self { base, partitions: BTreeSet::new(), cut: BTreeSet::new(), models: BTreeMap::new() }
    }

    /// A step cuts some off from others.
    pub(super) fn partition(&mut self, from: &[NodeIndex], to: &[NodeIndex], one_way: bool) {
        for one in from {
            for other in to.iter().filter(|other| *other != one) {
                self.partitions.insert((*one, *other));
                if !one_way {
                    self.partitions.insert((*other, *one));
                }
            }
        }
    }

    /// Every cut that a step made is over.
    pub(super) fn heal(&mut self) {
        self.partitions.clear();
    }

    /// Makes the network as steps and faults want it.
    pub(super) fn apply<'h>(&mut self, cluster: &Cluster, holds: impl Iterator<Item = &'h Hold>) {
        let all: Vec<_> = cluster.all().map(|(node, _)| cluster.index(node)).collect();
        let index = |node: NodeId| cluster.index(node);
        let mut cut = self.partitions.clone();
        let mut models: BTreeMap<(NodeIndex, NodeIndex), Model> = BTreeMap::new();
        for hold in holds {
            let node = index(hold.node);
            for other in all.iter().copied().filter(|other| *other != node) {
                let mut both_models = |change: &dyn Fn(&mut Model)| {
                    for link in [(node, other), (other, node)] {
                        change(models.entry(link).or_insert(self.base));
                    }
                };
                match hold.trouble {
                    Trouble::CutOff { one_way } => {
                        cut.insert((node, other));
                        if !one_way {
                            cut.insert((other, node));
                        }
                    }
                    Trouble::Slow(latency) => both_models(&|model| model.latency = latency),
                    Trouble::Lossy(loss) => {
                        both_models(&|model| model.loss_permille = (model.loss_permille + loss).min(1_000));
                    }
                    Trouble::Dying { .. } | Trouble::Down | Trouble::Paused => {}
                }
            }
        }
        self.apply_cuts(cluster, cut);
        if models != self.models {
            let network = cluster.simulation.network();
            network.reset_models();
            for ((from, to), model) in &models {
                network.set_model(*from, *to, *model);
            }
            self.models = models;
        }
    }

    fn apply_cuts(&mut self, cluster: &Cluster, cut: BTreeSet<(NodeIndex, NodeIndex)>) {
        let network = cluster.simulation.network();
        let over: Vec<_> = self.cut.difference(&cut).copied().collect();
        for (from, to) in over {
            if !self.cut.contains(&(from, to)) {
                continue;
            }
            // Mending is for both directions.
            network.mend(from, to);
            self.cut.remove(&(from, to));
            self.cut.remove(&(to, from));
        }
        for (from, to) in &cut {
            if !self.cut.contains(&(*from, *to)) {
                network.cut(*from, *to, Ways::One);
            }
        }
        self.cut = cut;
    }
}
