//! What a step does.

use core::time::Duration;

use serde::Deserialize;
use zipnet_reports::Verdict;
use zipnet_scenarios::env::Env;
use zipnet_scenarios::node::{NodeRef, Nodes, Role};
use zipnet_scenarios::scenario::{Bootstrap, Identity};
use zipnet_scenarios::value::Span;
use zipnet_scenarios::verbs::Do;
use zipnet_scenarios::words::{Apply, DiskFate, Reason, Signal, State, Word as _};

use super::admin::{self, Answer};
use super::cluster::{Cluster, Hint};
use super::select::Purpose;
use super::{Going, LOOK, Run};
use crate::cluster::NodeId;

/// How long a retirement may take to get into the log.
const RETIRE_WAIT: Duration = Duration::from_secs(60);

/// How long a server may think about a retirement: it waits until links with dead ones break.
const RETIRE_PATIENCE: Duration = Duration::from_secs(20);

/// How long a process may take to say where it listens, or to open its socket.
const START_WAIT: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Accepted {
    request: u64,
}

#[derive(Deserialize)]
struct Refusal {
    refused: String,
    reason: Option<String>,
}

impl Run<'_> {
    /// Does it, and returns when it is done.
    pub(super) fn act(&mut self, act: &Do, line: u32) -> Going {
        match act {
            Do::Start { node, identity, state, env, bootstrap } => {
                self.start_nodes(node, identity, *state, env, bootstrap, line)
            }
            Do::Stop { node, signal, within } => {
                let nodes = self.choose(node, Purpose::Act)?;
                self.acted.extend(&nodes);
                self.stop(&nodes, *signal, *within, line)
            }
            Do::Crash { node, disk } => {
                let nodes = self.choose(node, Purpose::Act)?;
                self.power_failure(*disk);
                self.acted.extend(&nodes);
                for node in nodes {
                    self.let_go(node);
                    self.cluster.keep_down(node);
                    self.kill(node)?;
                    self.cluster.crashes += 1;
                }
                Ok(())
            }
            Do::Restart { node, signal, down } => {
                let nodes = self.choose(node, Purpose::Act)?;
                self.acted.extend(&nodes);
                let within = Span::from_millis(5_000).expect("five seconds are less than a day");
                self.stop(&nodes, *signal, within, line)?;
                self.pass(self.now().after(down.get().duration()))?;
                for node in nodes {
                    self.start(node, &Hint::Default)?;
                }
                Ok(())
            }
            Do::Wait { r#for } => self.pass(self.now().after(r#for.get().duration())),
            Do::SetEnv { node, env } => {
                for node in self.choose(node, Purpose::Install)? {
                    self.set_env(node, env);
                }
                Ok(())
            }
            Do::Wipe { node } => {
                for node in self.choose(node, Purpose::Install)? {
                    if self.cluster.is_up(node) {
                        let detail = format!("{} runs and cannot be wiped", self.cluster.name(node));
                        return Err(self.failed_on(Verdict::NotConverged, line, Some(node), detail));
                    }
                    self.wipe(node)?;
                }
                Ok(())
            }
            Do::Retire { node, dead, refused } => self.retire(node, *dead, *refused, line),
            Do::Approve { node, aggregator } => {
                let servers = self.choose(node, Purpose::Act)?;
                let aggregator = self.choose_one(aggregator, Purpose::Look)?;
                let path = format!("/approve/{}", self.cluster.get(aggregator).peer);
                for server in servers {
                    self.order(server, &path, line)?;
                }
                Ok(())
            }
            Do::Refuse { node, client, withdraw } => {
                let servers = self.choose(node, Purpose::Act)?;
                let clients = self.choose(client, Purpose::Look)?;
                for server in servers {
                    for client in &clients {
                        self.refuse(server, *client, *withdraw, line)?;
                    }
                }
                Ok(())
            }
            Do::Publish { node, payload } => {
                for node in self.choose(node, Purpose::Act)? {
                    self.publish(node, payload.as_bytes(), line)?;
                }
                Ok(())
            }
            Do::Partition { node, from, one_way } => {
                let some = self.choose(node, Purpose::Install)?;
                let from = from.as_ref().map(|from| self.choose(from, Purpose::Install)).transpose()?;
                self.wires.partition(&some, from.as_deref(), *one_way);
                self.rewire();
                Ok(())
            }
            Do::Heal {} => {
                self.wires.heal();
                self.rewire();
                Ok(())
            }
            Do::Upgrade { apply: Apply::Drifted, .. } => {
                let what = "a build that changes the state in another way than it says";
                Err(self.uncontrolled(what, act.verb(), line))
            }
            Do::Upgrade {
                node,
                wire_version,
                machine_version,
                num_slots,
                slot_bytes,
                apply: Apply::Same,
            } => {
                for node in self.choose(node, Purpose::Install)? {
                    self.cluster.install(node, |build| {
                        build.wire_version = wire_version.map_or(build.wire_version, |version| version.get());
                        build.machine_version =
                            machine_version.map_or(build.machine_version, |version| version.get());
                        let params = &mut build.params;
                        params.num_slots = num_slots.map_or(params.num_slots, |slots| slots.get());
                        params.slot_bytes = slot_bytes.map_or(params.slot_bytes, |bytes| bytes.get());
                    });
                    self.has_binary(node, act.verb(), line)?;
                }
                Ok(())
            }
            Do::Lie { .. } => Err(self.uncontrolled("a node that lies", act.verb(), line)),
        }
    }

    fn start_nodes(
        &mut self,
        nodes: &Nodes,
        identity: &Identity,
        state: State,
        env: &Env,
        bootstrap: &Bootstrap,
        line: u32,
    ) -> Going {
        let nodes = self.choose(nodes, Purpose::Start)?;
        let hint = match bootstrap {
            Bootstrap::Default => Hint::Default,
            Bootstrap::None => Hint::Nobody,
            Bootstrap::Nodes(nodes) => Hint::Nodes(self.choose(nodes, Purpose::Look)?),
        };
        self.acted.extend(&nodes);
        for node in nodes {
            self.let_go(node);
            if self.cluster.is_up(node) {
                continue;
            }
            self.has_binary(node, "start", line)?;
            match identity {
                Identity::Same => {}
                Identity::Fresh => self.cluster.renew_identity(node),
                Identity::Of(other) => {
                    let other = self.choose_one(other, Purpose::Look)?;
                    self.cluster.copy_identity(node, other);
                }
            }
            if state == State::Empty {
                self.wipe(node)?;
            }
            self.set_env(node, env);
            self.start(node, &hint)?;
        }
        Ok(())
    }

    /// Starts a process, once those whom it is to dial have said where they listen.
    pub(super) fn start(&mut self, node: NodeId, hint: &Hint) -> Going {
        let end = self.now().after(START_WAIT);
        let dials = self.cluster.dials(node, hint);
        loop {
            // Clients do not say where they are.
            let silent = |node: &NodeId| {
                let machine = self.cluster.get(*node);
                machine.role != Role::Client && self.cluster.is_up(*node) && machine.address.is_none()
            };
            let Some(silent) = dials.iter().copied().find(silent) else { break };
            if self.now() >= end {
                let name = self.cluster.name(silent);
                let detail = format!("{name} did not say within {} s where it listens", START_WAIT.as_secs());
                return Err(self.failed_on(Verdict::NotConverged, self.line(), Some(silent), detail));
            }
            self.pass(self.now().after(LOOK))?;
        }
        if self.cluster.is_up(node) {
            return Ok(());
        }
        let start = self.cluster.variables(node, hint);
        if let Some(message) = start.env.get("ZIPNET_MESSAGE") {
            self.witness.broadcasts.give(message.as_bytes());
        }
        for secret in Cluster::confidential(&start) {
            self.witness.keep_secret(secret);
        }
        let committee = (self.cluster.get(node).role == Role::Server).then(|| {
            let of = |name: &str| start.env.get(name).cloned().unwrap_or_default();
            self.committee(of("ZIPNET_INSTANCE"), of("ZIPNET_COMMITTEE_SECRET"))
        });
        let floor =
            start.env.get("ZIPNET_MIN_PARTICIPANTS").and_then(|floor| floor.parse().ok()).unwrap_or(1);
        self.witness.started(node, &start.peer.to_string(), committee, floor);
        self.cluster.start(node, &start).map_err(|reason| self.broken(&format!("start a node: {reason}")))
    }

    /// Ends a process without a word, and reads what it still printed.
    pub(super) fn kill(&mut self, node: NodeId) -> Going {
        self.cluster.kill(node);
        self.read(node, true)?;
        self.witness.ended(node);
        self.rob(node)
    }

    fn wipe(&mut self, node: NodeId) -> Going {
        self.cluster.wipe(node).map_err(|reason| self.broken(&format!("wipe a state folder: {reason}")))?;
        self.witness.properties.wiped(node);
        Ok(())
    }

    fn set_env(&mut self, node: NodeId, env: &Env) {
        for (name, setting) in &env.0 {
            self.cluster.set_variable(node, name, setting.text());
        }
    }

    fn stop(&mut self, nodes: &[NodeId], signal: Signal, within: Span, line: u32) -> Going {
        for node in nodes {
            self.let_go(*node);
            self.cluster.keep_down(*node);
            match signal {
                Signal::Term => self.cluster.terminate(*node),
                Signal::Kill => self.kill(*node)?,
            }
        }
        let end = self.now().after(within.duration());
        loop {
            self.look()?;
            let slow = nodes.iter().copied().find(|node| self.cluster.is_up(*node));
            let Some(slow) = slow else { return Ok(()) };
            if self.now() >= end {
                let detail = format!("{} did not stop within {within}", self.cluster.name(slow));
                return Err(self.failed_on(Verdict::Violated, line, Some(slow), detail));
            }
            self.pass(end.min(self.now().after(LOOK)))?;
        }
    }

    /// Has a server refuse a client, or withdraw that, as `zipnet refuse` does.
    fn refuse(&mut self, server: NodeId, client: NodeId, withdraw: bool, line: u32) -> Going {
        let peer = self.cluster.get(client).peer;
        self.order(server, &format!("/{}/{peer}", if withdraw { "unrefuse" } else { "refuse" }), line)
    }

    /// Gives a server an order, as soon as it listens.
    fn order(&mut self, server: NodeId, path: &str, line: u32) -> Going {
        let end = self.now().after(START_WAIT);
        loop {
            let answer = self.cluster.ask(server, path, Some(&[]));
            if answer.as_ref().is_some_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if self.now() >= end {
                let said =
                    answer.map_or_else(|| "nothing".to_owned(), |answer| answer.body.trim().to_owned());
                let detail = format!("{} does not take the order {path}: {said}", self.cluster.name(server));
                return Err(self.failed_on(Verdict::NotConverged, line, Some(server), detail));
            }
            // It has just been started.
            self.pass(self.now().after(LOOK))?;
        }
    }

    /// Gives a client a message, and remembers which one it was.
    fn publish(&mut self, node: NodeId, payload: &[u8], line: u32) -> Going {
        let end = self.now().after(START_WAIT);
        loop {
            match self.hand_over(node, payload) {
                Ok(request) => {
                    self.requests.insert(node, (self.witness.process(node), request));
                    return Ok(());
                }
                Err(refusal) if self.now() >= end => {
                    let detail = format!("{} does not {refusal}", self.cluster.name(node));
                    return Err(self.failed_on(Verdict::NotConverged, line, Some(node), detail));
                }
                // It has just been started.
                Err(_) => {}
            }
            self.pass(self.now().after(LOOK))?;
        }
    }

    /// Asks a client to publish a payload; the number under which it takes it.
    ///
    /// # Errors
    /// What the client does not do.
    pub(super) fn hand_over(&mut self, node: NodeId, payload: &[u8]) -> Result<u64, String> {
        self.witness.keep_private(payload);
        self.witness.broadcasts.give(payload);
        match self.cluster.ask(node, "/publish", Some(payload)) {
            Some(Answer { status: 202, body }) => {
                let accepted: Accepted = serde_json::from_str(&body)
                    .map_err(|reason| format!("say what it took: {reason}: {}", body.trim()))?;
                self.witness.broadcasts.requested(self.witness.process(node), accepted.request, payload);
                Ok(accepted.request)
            }
            Some(Answer { status, body }) => Err(format!("take the message: {status} {}", body.trim())),
            None => Err("answer".to_owned()),
        }
    }

    /// Asks for a retirement as an operator does: at the server itself, or for a dead one at another.
    fn retire(&mut self, node: &NodeRef, dead: bool, refused: Option<Reason>, line: u32) -> Going {
        let target = self.choose_one(node, Purpose::Look)?;
        let home = self.cluster.get(target).home;
        let mark = self.witness.mark(self.now());
        let peer = self.cluster.get(target).peer.to_string();
        let (asked, path) = if dead {
            let others = self.cluster.servers_up(home).into_iter().find(|node| *node != target);
            let leader = self.leader(home).filter(|leader| *leader != target);
            let Some(asked) = leader.or(others) else {
                let detail = "no other server is up to be asked".to_owned();
                return Err(self.failed(Verdict::NotConverged, Some(line), detail));
            };
            (asked, format!("/retire/{peer}"))
        } else {
            (target, "/retire".to_owned())
        };
        let state = self.cluster.get(asked).state.clone();
        let answer = self.meanwhile(move || admin::ask(&state, &path, Some(&[]), RETIRE_PATIENCE))?;
        let Ok(answer) = answer else {
            let detail = format!("{} does not answer", self.cluster.name(asked));
            return Err(self.failed_on(Verdict::NotConverged, line, Some(asked), detail));
        };
        let refusal = match answer.status {
            200 => None,
            409 => serde_json::from_str(&answer.body).ok(),
            _ => Some(Refusal {
                refused: format!("it answers {}: {}", answer.status, answer.body.trim()),
                reason: None,
            }),
        };
        let wrong = match (refusal, refused) {
            (None, None) => None,
            (Some(Refusal { reason: Some(given), .. }), Some(reason)) if given == reason.name() => {
                return Ok(());
            }
            (Some(refusal), _) => Some(format!("the server refuses: {}", refusal.refused)),
            (None, Some(reason)) => {
                Some(format!("the server agrees, expected a refusal for {}", reason.name()))
            }
        };
        if let Some(detail) = wrong {
            return Err(self.failed_on(Verdict::Violated, line, Some(asked), detail));
        }
        let end = self.now().after(RETIRE_WAIT);
        while !self.witness.left_since(&peer, &mark) {
            if self.now() >= end {
                let name = self.cluster.name(target);
                let detail = format!("the retirement of {name} did not get into the log");
                return Err(self.failed_on(Verdict::NotConverged, line, Some(asked), detail));
            }
            self.pass(self.now().after(LOOK))?;
        }
        Ok(())
    }

    /// A killed process is all that there is of a power failure.
    pub(super) fn power_failure(&mut self, disk: DiskFate) {
        if disk != DiskFate::KeepAll {
            self.left_out("what a power failure leaves of a disk".to_owned());
        }
    }
}
