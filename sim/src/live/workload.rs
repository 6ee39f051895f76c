//! What clients do all the time.

use std::collections::BTreeMap;

use zipnet_scenarios::node::{Role, Which};
use zipnet_scenarios::verbs::WorkloadDo;

use super::Run;
use crate::cluster::NodeId;

impl Run<'_> {
    /// For each round that has opened since the last look, hands payloads to some clients of its deployment.
    pub(super) fn drive_workloads(&mut self) {
        let opened = self.witness.opened_from(self.answered);
        if opened.is_empty() {
            return;
        }
        self.answered += opened.len();
        let mut rounds: BTreeMap<usize, usize> = BTreeMap::new();
        for round in opened {
            *rounds.entry(round.home).or_default() += 1;
        }
        let step = self.step_id();
        for workload in &self.scenario.workloads {
            let during = &workload.during;
            let on = step.is_some_and(|step| during.is_empty() || during.iter().any(|id| id.0 == step));
            if !on {
                continue;
            }
            let WorkloadDo::Publish { node, permille, payload_bytes } = &workload.act;
            let share = u32::try_from(permille.get().get()).unwrap_or(1_000);
            for reference in &node.0 {
                let home = self.cluster.home(reference);
                let clients: Vec<NodeId> = match reference.which {
                    Which::Number(_) => self.cluster.find(reference).into_iter().collect(),
                    _ => self.cluster.of_role(home, Role::Client).collect(),
                };
                for _ in 0..rounds.get(&home).copied().unwrap_or(0) {
                    for client in &clients {
                        if !self.publishing.permille(share) {
                            continue;
                        }
                        let random = &mut self.publishing;
                        let len = payload_bytes.draw(&mut |bound| random.below(bound)).get();
                        let len = len.min(self.cluster.params(*client).payload_len());
                        let mut payload = vec![0; usize::try_from(len).unwrap_or(0)];
                        random.fill(&mut payload);
                        // A client that is down or still starting misses it.
                        drop(self.hand_over(*client, &payload));
                    }
                }
            }
        }
    }
}
