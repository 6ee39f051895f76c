//! What a step does.

use core::time::Duration;

use openraft_rt::AsyncRuntime;
use zipnet_core::id::PeerId;
use zipnet_core::machine::RequestId;
use zipnet_core::params::RoundParams;
use zipnet_node::meeting::{Removal, may_retire};
use zipnet_reports::Verdict;
use zipnet_scenarios::env::Env;
use zipnet_scenarios::node::{NodeRef, Nodes, Role};
use zipnet_scenarios::scenario::{Bootstrap, Identity};
use zipnet_scenarios::value::Span;
use zipnet_scenarios::verbs::Do;
use zipnet_scenarios::words::{Apply, Deviation, Reason, Signal, State, Word as _};

use super::fault::{ARMED_MAX, fate};
use super::select::Purpose;
use super::{Going, LOOK, Run};
use crate::cluster::{Hint, NodeId};
use crate::runtime::SimRuntime;

/// How long the power may hold on until a disk operation at which it can fail.
const POWER_WAIT: Duration = Duration::from_secs(5);

/// How long a retirement may take to get into the log.
const RETIRE_WAIT: Duration = Duration::from_secs(60);

impl Run<'_> {
    /// Does it, and returns when it is done.
    pub(super) async fn act(&mut self, act: &Do, line: u32) -> Going {
        match act {
            Do::Start { node, identity, state, env, bootstrap } => {
                self.start(node, identity, *state, env, bootstrap).await
            }
            Do::Stop { node, signal, within } => {
                let nodes = self.choose(node, Purpose::Act).await?;
                self.acted.extend(&nodes);
                for node in &nodes {
                    self.cluster.keep_down(*node);
                }
                self.stop(&nodes, *signal, *within, line).await
            }
            Do::Crash { node, disk } => {
                let nodes = self.choose(node, Purpose::Act).await?;
                for node in &nodes {
                    self.take(*node);
                    self.cluster.keep_down(*node);
                }
                self.fail_power(&nodes).await?;
                for node in nodes {
                    self.cluster.crash(node, fate(*disk));
                }
                Ok(())
            }
            Do::Restart { node, signal, down } => {
                let nodes = self.choose(node, Purpose::Act).await?;
                self.acted.extend(&nodes);
                let within = Span::from_millis(5_000).expect("five seconds are less than a day");
                for node in &nodes {
                    self.cluster.keep_down(*node);
                }
                self.stop(&nodes, *signal, within, line).await?;
                self.pass(self.now().after(down.get().duration())).await?;
                for node in nodes {
                    self.cluster.start(node, &Hint::Default);
                }
                Ok(())
            }
            Do::Wait { r#for } => self.pass(self.now().after(r#for.get().duration())).await,
            Do::SetEnv { node, env } => {
                for node in self.choose(node, Purpose::Install).await? {
                    self.set_env(node, env);
                }
                Ok(())
            }
            Do::Wipe { node } => {
                let nodes = self.choose(node, Purpose::Install).await?;
                for node in nodes {
                    if self.cluster.is_up(node) {
                        let detail = format!("{} runs and cannot be wiped", self.cluster.name(node));
                        return Err(self.failed(Verdict::NotConverged, Some(line), detail));
                    }
                    self.cluster.empty_disk(node);
                }
                Ok(())
            }
            Do::Retire { node, dead, refused } => self.retire(node, *dead, *refused, line).await,
            Do::Approve { node, aggregator } => {
                let servers = self.choose(node, Purpose::Act).await?;
                let aggregator = self.choose_one(aggregator, Purpose::Look).await?;
                let peer = self.cluster.peer(aggregator);
                for handle in servers.into_iter().filter_map(|server| self.cluster.handle(server)) {
                    handle.approve(peer);
                }
                Ok(())
            }
            Do::Refuse { node, client, withdraw } => {
                let servers = self.choose(node, Purpose::Act).await?;
                let clients = self.choose(client, Purpose::Look).await?;
                for server in servers {
                    self.cluster.refuse(server, &clients, *withdraw);
                }
                Ok(())
            }
            Do::Publish { node, payload } => {
                for node in self.choose(node, Purpose::Act).await? {
                    self.last_request += 1;
                    let request = RequestId(self.last_request);
                    if let Some(handle) = self.cluster.handle(node) {
                        handle.publish(request, payload.clone().into_bytes());
                        self.requests.insert(node, request);
                    }
                }
                Ok(())
            }
            Do::Partition { node, from, one_way } => {
                let some = self.choose(node, Purpose::Install).await?;
                let from = match from {
                    Some(from) => Some(self.choose(from, Purpose::Install).await?),
                    None => None,
                };
                self.wires.partition(&some, from.as_deref(), *one_way);
                self.rewire();
                Ok(())
            }
            Do::Heal {} => {
                self.wires.heal();
                self.rewire();
                Ok(())
            }
            Do::Upgrade { node, wire_version, machine_version, num_slots, slot_bytes, apply } => {
                let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
                for node in self.choose(node, Purpose::Install).await? {
                    let drifted = *apply == Apply::Drifted;
                    let mut fits = true;
                    self.cluster.install(node, drifted, |build| {
                        if let Some(version) = wire_version {
                            build.wire_version = u8::try_from(version.get()).unwrap_or(u8::MAX);
                        }
                        if let Some(version) = machine_version {
                            build.machine_version = small(version.get());
                        }
                        let own = build.params;
                        let slots = num_slots.map_or(own.num_slots(), |slots| small(slots.get()));
                        let bytes =
                            slot_bytes.map_or(small(number(own.slot_bytes())), |bytes| small(bytes.get()));
                        match RoundParams::new(slots, bytes, small(number(own.tag_len()))) {
                            Ok(params) => build.params = params,
                            Err(_) => fits = false,
                        }
                    });
                    if !fits {
                        let detail = "the binary would have impossible rounds".to_owned();
                        return Err(self.failed(Verdict::Inconclusive, Some(line), detail));
                    }
                }
                Ok(())
            }
            Do::Lie { node, deviation } => {
                for property in deviation.overrules() {
                    self.witness.waive(property.name());
                }
                for node in self.choose(node, Purpose::Act).await? {
                    self.cluster.deviate(node, *deviation);
                    self.witness.lies(self.cluster.index(node), *deviation != Deviation::Honest);
                }
                Ok(())
            }
        }
    }

    async fn start(
        &mut self,
        nodes: &Nodes,
        identity: &Identity,
        state: State,
        env: &Env,
        bootstrap: &Bootstrap,
    ) -> Going {
        let nodes = self.choose(nodes, Purpose::Start).await?;
        let hint = match bootstrap {
            Bootstrap::Default => Hint::Default,
            Bootstrap::None => Hint::Nobody,
            Bootstrap::Nodes(nodes) => Hint::Nodes(self.choose(nodes, Purpose::Look).await?),
        };
        self.acted.extend(&nodes);
        for node in nodes {
            self.faults.let_go(&mut self.cluster, node);
            if self.cluster.is_up(node) {
                continue;
            }
            match identity {
                Identity::Same => {}
                Identity::Fresh => self.cluster.renew_identity(node),
                Identity::Of(other) => {
                    let other = self.choose_one(other, Purpose::Look).await?;
                    self.cluster.copy_identity(node, other);
                }
            }
            if state == State::Empty {
                self.cluster.empty_disk(node);
            }
            self.set_env(node, env);
            self.cluster.start(node, &hint);
        }
        Ok(())
    }

    /// Waits for a moment at which power fails: with the same chance between two writes and in the middle of one.
    async fn fail_power(&mut self, nodes: &[NodeId]) -> Going {
        let operations = self.random.range(0, 2 * ARMED_MAX).saturating_sub(ARMED_MAX);
        if operations == 0 {
            return Ok(());
        }
        for node in nodes {
            self.cluster.host(*node).platter().arm(operations);
        }
        let end = self.now().after(POWER_WAIT);
        while self.now() < end && !nodes.iter().any(|node| self.cluster.host(*node).is_frozen()) {
            self.pass(self.now().after(Duration::from_millis(1))).await?;
        }
        Ok(())
    }

    fn set_env(&mut self, node: NodeId, env: &Env) {
        for (name, setting) in &env.0 {
            self.cluster.set_variable(node, name, setting.text());
        }
    }

    /// A step takes a node into its hands.
    fn take(&mut self, node: NodeId) {
        self.acted.insert(node);
        self.faults.let_go(&mut self.cluster, node);
    }

    async fn stop(&mut self, nodes: &[NodeId], signal: Signal, within: Span, line: u32) -> Going {
        for node in nodes {
            self.faults.let_go(&mut self.cluster, *node);
            match signal {
                Signal::Term => self.cluster.terminate(*node),
                Signal::Kill => self.cluster.kill(*node),
            }
        }
        let end = self.now().after(within.duration());
        loop {
            self.look()?;
            let slow: Vec<_> = nodes
                .iter()
                .filter(|node| self.cluster.is_up(**node))
                .map(|node| self.cluster.name(*node))
                .collect();
            if slow.is_empty() {
                return Ok(());
            }
            if self.now() >= end {
                let detail = format!("{} did not stop within {within}", slow.join(", "));
                return Err(self.failed(Verdict::Violated, Some(line), detail));
            }
            self.pass(end.min(self.now().after(LOOK))).await?;
        }
    }

    /// What the operator's tool does: ask a server how things stand, judge, and give the order.
    async fn retire(&mut self, node: &NodeRef, dead: bool, refused: Option<Reason>, line: u32) -> Going {
        let target = self.choose_one(node, Purpose::Look).await?;
        let home = self.cluster.get(target).home;
        let servers: Vec<_> = self.cluster.of_role(home, Role::Server).collect();
        let mut askable = servers.into_iter().filter(|node| *node != target && self.cluster.is_up(*node));
        let leader = self.cluster.leader(home).filter(|leader| *leader != target);
        let Some(asked) = leader.or_else(|| askable.next()) else {
            let detail = "no other server is up to be asked".to_owned();
            return Err(self.failed(Verdict::NotConverged, Some(line), detail));
        };
        let peer = self.cluster.peer(target);
        let handle = self.cluster.handle(asked);
        let view = match &handle {
            Some(handle) => SimRuntime::timeout(RETIRE_WAIT, handle.view()).await.ok().flatten(),
            None => None,
        };
        let Some(view) = view else {
            let detail = format!("{} does not answer", self.cluster.name(asked));
            return Err(self.failed(Verdict::NotConverged, Some(line), detail));
        };
        // The tool asks each server itself: a link to one that is gone lasts until its idle timeout.
        let answers = |peer: &PeerId| self.cluster.node_of(peer).is_some_and(|node| self.cluster.is_up(node));
        let alive = view.linked.iter().copied().chain([view.me]).filter(answers).collect();
        let removal = Removal { alive, ..view.removal(peer, dead) };
        let judged = may_retire(&removal, &self.cluster.checks(asked));
        let wrong = match (judged, refused) {
            (Ok(_), None) => None,
            (Err(refusal), Some(reason)) if refusal.why.name() == reason.name() => return Ok(()),
            (Err(refusal), _) => Some(format!("the tool refuses: {refusal}")),
            (Ok(_), Some(reason)) => Some(format!("the tool agrees, expected a refusal for {reason}")),
        };
        if let Some(detail) = wrong {
            return Err(self.failed(Verdict::Violated, Some(line), detail));
        }
        if dead {
            if let Some(handle) = handle {
                handle.retire_dead(peer);
            }
        } else if let Some(handle) = self.cluster.handle(target) {
            handle.retire();
        }
        let mark = self.witness.mark(self.now());
        let end = self.now().after(RETIRE_WAIT);
        while !self.witness.left_since(peer, &mark) {
            if self.now() >= end {
                let detail =
                    format!("the retirement of {} did not get into the log", self.cluster.name(target));
                return Err(self.failed(Verdict::NotConverged, Some(line), detail));
            }
            self.pass(self.now().after(LOOK)).await?;
        }
        Ok(())
    }
}

fn number(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
