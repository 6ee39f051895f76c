//! What clients do all the time.

use std::collections::BTreeMap;

use zipnet_scenarios::node::{Role, Which};
use zipnet_scenarios::verbs::WorkloadDo;

use super::Run;
use crate::cast::NodeId;
use crate::random::Random;
use crate::site::Site;

/// All workloads of a run.
#[derive(Debug)]
pub(super) struct Workloads {
    random: Random,
    /// Rounds that were answered.
    answered: usize,
}

impl Workloads {
    pub(super) fn new(random: &Random) -> Self {
        Self { random: random.fork("workloads"), answered: 0 }
    }

    /// What is drawn from.
    pub(super) const fn stream(&self) -> &Random {
        &self.random
    }
}

impl<S: Site> Run<'_, S> {
    /// For each round that has opened since the last look, hands payloads to some clients of its deployment.
    pub(super) fn drive_workloads(&mut self) {
        let opened = self.witness.opened_from(self.workloads.answered);
        if opened.is_empty() {
            return;
        }
        let mut rounds: BTreeMap<usize, usize> = BTreeMap::new();
        for round in opened {
            *rounds.entry(round.home).or_default() += 1;
        }
        self.workloads.answered += opened.len();
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
                let home = self.site.cast().home(reference);
                let clients: Vec<NodeId> = match reference.which {
                    Which::Number(_) => self.site.cast().find(reference).into_iter().collect(),
                    _ => self.site.cast().of_role(home, Role::Client).collect(),
                };
                for _ in 0..rounds.get(&home).copied().unwrap_or(0) {
                    for client in &clients {
                        let random = &mut self.workloads.random;
                        if !random.permille(share) {
                            continue;
                        }
                        let len = payload_bytes.draw(&mut |bound| random.below(bound)).get();
                        let longest = self.site.payload_bytes(*client);
                        let mut payload = vec![0; usize::try_from(len).unwrap_or(longest).min(longest)];
                        random.fill(&mut payload);
                        // A client that is down or still starting misses it.
                        drop(self.site.publish(*client, payload));
                    }
                }
            }
        }
    }
}
