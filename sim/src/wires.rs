//! Which paths between nodes are cut or bad, as steps and faults want it.

use std::collections::{BTreeMap, BTreeSet};

use zipnet_scenarios::Scenario;
use zipnet_scenarios::scenario::Latency;
use zipnet_scenarios::value::Share;

use crate::cast::NodeId;
use crate::network::Model;
use crate::random::Quantiles;

/// What a fault does to the paths of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// Nothing passes between it and others.
    CutOff {
        /// Only what it sends is lost.
        one_way: bool,
    },
    /// Its messages take this long.
    Slow(Quantiles),
    /// So many of 1,000 of its messages are lost besides.
    Lossy(u32),
}

impl Hindrance {
    /// Messages take this long.
    pub(crate) fn slow(latency: &Latency) -> Self {
        Self::Slow(quantiles(latency))
    }

    /// This share of messages is lost besides.
    pub(crate) fn lossy(loss: &Share) -> Self {
        Self::Lossy(permille(loss))
    }
}

/// What steps and faults ask for.
#[derive(Debug)]
pub(crate) struct Wires {
    nodes: usize,
    base: Model,
    /// Cuts that steps made: from whom to whom.
    partitions: BTreeSet<(NodeId, NodeId)>,
}

/// The paths that are not as they were at the beginning: from whom to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    pub(crate) models: BTreeMap<(NodeId, NodeId), Model>,
}

impl Wires {
    /// Every path between so many nodes as the scenario says.
    pub(crate) fn new(scenario: &Scenario, nodes: usize) -> Self {
        Self { nodes, base: model(scenario), partitions: BTreeSet::new() }
    }

    /// A step cuts some off from these, or from all others.
    pub(crate) fn partition(&mut self, some: &[NodeId], from: Option<&[NodeId]>, one_way: bool) {
        for one in some {
            for other in 0..self.nodes {
                if other == *one || from.map_or(some.contains(&other), |from| !from.contains(&other)) {
                    continue;
                }
                self.partitions.insert((*one, other));
                if !one_way {
                    self.partitions.insert((other, *one));
                }
            }
        }
    }

    /// Every cut that a step made is over.
    pub(crate) fn heal(&mut self) {
        self.partitions.clear();
    }

    /// What follows if faults hinder these.
    pub(crate) fn paths(&self, hindered: impl Iterator<Item = (NodeId, Hindrance)>) -> Paths {
        let mut paths = Paths { cut: self.partitions.clone(), models: BTreeMap::new() };
        for (node, hindrance) in hindered {
            for other in (0..self.nodes).filter(|other| *other != node) {
                let both = [(node, other), (other, node)];
                let mut change = |change: &dyn Fn(&mut Model)| {
                    for path in both {
                        change(paths.models.entry(path).or_insert(self.base));
                    }
                };
                match hindrance {
                    Hindrance::CutOff { one_way } => {
                        paths.cut.extend(both.into_iter().take(if one_way { 1 } else { 2 }));
                    }
                    Hindrance::Slow(latency) => change(&|model| model.latency = latency),
                    Hindrance::Lossy(loss) => {
                        change(&|model| model.loss_permille = (model.loss_permille + loss).min(1_000));
                    }
                }
            }
        }
        paths
    }
}

/// How links behave before any fault.
pub(crate) fn model(scenario: &Scenario) -> Model {
    let network = &scenario.network;
    Model {
        latency: quantiles(&network.latency),
        loss_permille: permille(&network.loss),
        duplicate_permille: permille(&network.duplicate),
        reorder_permille: permille(&network.reorder),
        bandwidth: Some(network.bandwidth_kib.get().get() * 1_024).filter(|bytes| *bytes > 0),
    }
}

fn permille(share: &Share) -> u32 {
    u32::try_from(share.permille()).unwrap_or(1_000)
}

fn quantiles(latency: &Latency) -> Quantiles {
    Quantiles::new(latency.median.get().duration(), latency.p99.get().duration())
}
