//! What clients do all the time.

use std::collections::BTreeMap;

use zipnet_core::machine::RequestId;
use zipnet_scenarios::Scenario;
use zipnet_scenarios::node::{Role, Which};
use zipnet_scenarios::verbs::WorkloadDo;

use crate::cluster::{Cluster, NodeId};
use crate::random::Random;

/// All workloads of a run.
#[derive(Debug)]
pub(super) struct Workloads {
    random: Random,
    /// Rounds that were answered.
    seen: usize,
}

impl Workloads {
    pub(super) fn new(random: &Random) -> Self {
        Self { random: random.fork("workloads"), seen: 0 }
    }

    /// For each round that has opened since the last look, hands payloads to some clients of its deployment.
    pub(super) fn drive(
        &mut self,
        cluster: &Cluster,
        scenario: &Scenario,
        step: Option<&str>,
        last_request: &mut u64,
    ) {
        let opened = cluster.witness.opened_from(self.seen);
        if opened.is_empty() {
            return;
        }
        self.seen += opened.len();
        let mut rounds: BTreeMap<usize, usize> = BTreeMap::new();
        for round in &opened {
            *rounds.entry(round.home).or_default() += 1;
        }
        for workload in &scenario.workloads {
            let during = &workload.during;
            let on = step.is_some_and(|step| during.is_empty() || during.iter().any(|id| id.0 == step));
            if !on {
                continue;
            }
            let WorkloadDo::Publish { node, permille, payload_bytes } = &workload.act;
            for reference in &node.0 {
                let home = cluster.home(reference);
                let clients: Vec<NodeId> = match reference.which {
                    Which::Number(_) => cluster.find(reference).into_iter().collect(),
                    _ => cluster.of_role(home, Role::Client).collect(),
                };
                for _ in 0..rounds.get(&home).copied().unwrap_or(0) {
                    for client in &clients {
                        let share = u32::try_from(permille.get().get()).unwrap_or(1_000);
                        if !self.random.permille(share) {
                            continue;
                        }
                        let len = payload_bytes.draw(&mut |bound| self.random.below(bound)).get();
                        let longest = cluster.params(*client).payload_bytes();
                        let mut payload = vec![0; usize::try_from(len).unwrap_or(longest).min(longest)];
                        self.random.fill(&mut payload);
                        if let Some(handle) = cluster.handle(*client) {
                            *last_request += 1;
                            handle.publish(RequestId(*last_request), payload);
                        }
                    }
                }
            }
        }
    }
}
