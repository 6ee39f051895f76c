//! What a step does.

use core::time::Duration;

use zipnet_core::id::PeerId;
use zipnet_reports::Verdict;
use zipnet_scenarios::env::Env;
use zipnet_scenarios::node::{NodeRef, Nodes};
use zipnet_scenarios::scenario::{Bootstrap, Identity};
use zipnet_scenarios::value::Span;
use zipnet_scenarios::verbs::Do;
use zipnet_scenarios::words::{DiskFate, Reason, Signal, State, Word as _};

use super::fault::ARMED_MAX;
use super::select::Purpose;
use super::{End, Going, Run};
use crate::cast::{Hint, NodeId};
use crate::site::{Later, Order, Refusal, Retired, Site, Upgrade};

/// How long the power may hold on until a disk operation at which it can fail.
const POWER_WAIT: Duration = Duration::from_secs(5);

/// How long a retirement may take to get into the log.
const RETIRE_WAIT: Duration = Duration::from_secs(60);

/// How long a process may take until it takes an order.
const START_WAIT: Duration = Duration::from_secs(10);

impl<S: Site> Run<'_, S> {
    /// Does it, and returns when it is done.
    pub(super) async fn act(&mut self, act: &Do, line: u32) -> Going {
        match act {
            Do::Start { node, identity, state, env, bootstrap } => {
                self.start_nodes(node, identity, *state, env, bootstrap).await
            }
            Do::Stop { node, signal, within } => {
                let nodes = self.choose(node, Purpose::Act).await?;
                self.stop(&nodes, *signal, *within, line).await
            }
            Do::Crash { node, disk } => {
                let nodes = self.choose(node, Purpose::Act).await?;
                for node in &nodes {
                    self.acted.insert(*node);
                    self.let_go(*node)?;
                    self.site.cast_mut().keep_down(*node);
                }
                self.fail_power(&nodes).await?;
                for node in nodes {
                    self.crash(node, *disk)?;
                }
                Ok(())
            }
            Do::Restart { node, signal, down } => {
                let nodes = self.choose(node, Purpose::Act).await?;
                let within = Span::from_millis(5_000).expect("five seconds are less than a day");
                self.stop(&nodes, *signal, within, line).await?;
                self.pass(self.now().after(down.get().duration())).await?;
                for node in nodes {
                    self.start(node, &Hint::Default)?;
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
                for node in self.choose(node, Purpose::Install).await? {
                    if self.site.is_up(node) {
                        let detail = format!("{} runs and cannot be wiped", self.name(node));
                        return Err(self.failed_on(Verdict::NotConverged, line, Some(node), detail));
                    }
                    self.wipe(node)?;
                }
                Ok(())
            }
            Do::Retire { node, dead, refused } => self.retire(node, *dead, *refused, line).await,
            Do::Approve { node, aggregator } => {
                let servers = self.choose(node, Purpose::Act).await?;
                let aggregator = self.choose_one(aggregator, Purpose::Look).await?;
                let order = Order::Approve(self.site.cast().peer(aggregator));
                for server in servers {
                    self.order(server, &order, line).await?;
                }
                Ok(())
            }
            Do::Refuse { node, client, withdraw } => {
                let servers = self.choose(node, Purpose::Act).await?;
                let clients = self.choose(client, Purpose::Look).await?;
                for server in servers {
                    for client in &clients {
                        let client = self.site.cast().peer(*client);
                        self.order(server, &Order::Refuse { client, withdraw: *withdraw }, line).await?;
                    }
                }
                Ok(())
            }
            Do::Publish { node, payload } => {
                for node in self.choose(node, Purpose::Act).await? {
                    self.publish(node, payload.as_bytes(), line).await?;
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
                let upgrade = Upgrade {
                    wire_version: wire_version.map(|version| version.get()),
                    machine_version: machine_version.map(|version| version.get()),
                    num_slots: num_slots.map(|slots| slots.get()),
                    slot_bytes: slot_bytes.map(|bytes| bytes.get()),
                    apply: *apply,
                };
                for node in self.choose(node, Purpose::Install).await? {
                    let installed = self.site.install(node, &upgrade);
                    installed.map_err(|refusal| self.impossible(act.verb(), line, refusal))?;
                }
                Ok(())
            }
            Do::Lie { node, deviation } => {
                for property in deviation.overrules() {
                    self.site.waive(property.name());
                }
                for node in self.choose(node, Purpose::Act).await? {
                    let lies = self.site.deviate(node, *deviation);
                    let lies = lies.map_err(|refusal| self.impossible(act.verb(), line, refusal))?;
                    self.witness.lies(node, lies);
                }
                Ok(())
            }
        }
    }

    async fn start_nodes(
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
            self.let_go(node)?;
            if self.site.is_up(node) {
                continue;
            }
            match identity {
                Identity::Same => {}
                Identity::Fresh => self.site.cast_mut().renew_identity(node),
                Identity::Of(other) => {
                    let other = self.choose_one(other, Purpose::Look).await?;
                    self.site.cast_mut().copy_identity(node, other);
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

    /// Starts a process.
    pub(super) fn start(&mut self, node: NodeId, hint: &Hint) -> Going {
        // A fault may have started it meanwhile.
        if self.site.is_up(node) {
            return Ok(());
        }
        self.take_in()?;
        let started = self.site.start(node, hint);
        let started = started.map_err(|refusal| self.impossible("start", self.line(), refusal))?;
        let peer = self.site.cast().peer(node);
        self.witness.started(node, peer, started);
        Ok(())
    }

    /// Ends a process without a word.
    fn kill(&mut self, node: NodeId) -> Going {
        self.site.kill(node).map_err(|stop| self.stopped(stop))?;
        self.is_over(node)
    }

    /// Cuts the power of a machine.
    pub(super) fn crash(&mut self, node: NodeId, disk: DiskFate) -> Going {
        self.site.crash(node, disk).map_err(|stop| self.stopped(stop))?;
        self.is_over(node)
    }

    fn is_over(&mut self, node: NodeId) -> Going {
        // What it still said is said by a process that lived.
        self.take_in()?;
        self.witness.ended(node);
        Ok(())
    }

    /// Waits for a moment at which power fails: with the same chance between two writes and in the middle of one.
    async fn fail_power(&mut self, nodes: &[NodeId]) -> Going {
        let operations = self.random.range(0, 2 * ARMED_MAX).saturating_sub(ARMED_MAX);
        if operations == 0 {
            return Ok(());
        }
        let mut armed = false;
        for node in nodes {
            armed |= self.site.arm(*node, operations);
        }
        let end = self.now().after(POWER_WAIT);
        while armed && self.now() < end && !nodes.iter().any(|node| self.site.is_frozen(*node)) {
            self.pass(self.now().after(Duration::from_millis(1))).await?;
        }
        Ok(())
    }

    fn wipe(&mut self, node: NodeId) -> Going {
        self.take_in()?;
        self.site.empty_disk(node).map_err(|stop| self.stopped(stop))?;
        self.witness.disk_lost(node);
        Ok(())
    }

    fn set_env(&mut self, node: NodeId, env: &Env) {
        for (name, setting) in &env.0 {
            self.site.cast_mut().set_variable(node, name, setting.text());
        }
    }

    async fn stop(&mut self, nodes: &[NodeId], signal: Signal, within: Span, line: u32) -> Going {
        self.acted.extend(nodes);
        for node in nodes {
            self.site.cast_mut().keep_down(*node);
        }
        for node in nodes {
            self.let_go(*node)?;
            match signal {
                Signal::Term => self.site.terminate(*node),
                Signal::Kill => self.kill(*node)?,
            }
        }
        let end = self.now().after(within.duration());
        loop {
            self.look()?;
            let slow: Vec<_> = nodes.iter().copied().filter(|node| self.site.is_up(*node)).collect();
            let Some(first) = slow.first() else { return Ok(()) };
            if self.now() >= end {
                let names: Vec<_> = slow.iter().map(|node| self.name(*node)).collect();
                let detail = format!("{} did not stop within {within}", names.join(", "));
                return Err(self.failed_on(Verdict::Violated, line, Some(*first), detail));
            }
            self.pass(end.min(self.now().after(S::LOOK))).await?;
        }
    }

    /// Gives a server an order, as soon as it takes it.
    async fn order(&mut self, server: NodeId, order: &Order, line: u32) -> Going {
        let end = self.now().after(START_WAIT);
        loop {
            let Err(said) = self.site.order(server, order) else { return Ok(()) };
            if self.now() >= end {
                let detail = format!("{} does not take the order {order}: {said}", self.name(server));
                return Err(self.failed_on(Verdict::NotConverged, line, Some(server), detail));
            }
            // It has just been started.
            self.pass(self.now().after(S::LOOK)).await?;
        }
    }

    /// Gives a client a message, as soon as it takes it, and remembers which one it was.
    async fn publish(&mut self, node: NodeId, payload: &[u8], line: u32) -> Going {
        let end = self.now().after(START_WAIT);
        loop {
            match self.site.publish(node, payload.to_vec()) {
                Ok(request) => {
                    self.requests.insert(node, (self.witness.of(node).process(), request));
                    return Ok(());
                }
                Err(refusal) if self.now() >= end => {
                    let detail = format!("{} does not {refusal}", self.name(node));
                    return Err(self.failed_on(Verdict::NotConverged, line, Some(node), detail));
                }
                // It has just been started.
                Err(_) => {}
            }
            self.pass(self.now().after(S::LOOK)).await?;
        }
    }

    /// Asks for a retirement as an operator does.
    async fn retire(&mut self, node: &NodeRef, dead: bool, refused: Option<Reason>, line: u32) -> Going {
        let target = self.choose_one(node, Purpose::Look).await?;
        let cast = self.site.cast();
        let (home, peer) = (cast.get(target).home, cast.peer(target));
        let mark = self.witness.mark(self.now());
        let leader = self.leader(home).filter(|leader| *leader != target);
        let asked = leader.or_else(|| self.servers_up(home).into_iter().find(|node| *node != target));
        let answer = self.site.retire(target, asked, dead).await;
        let wrong = match (self.wait_for(answer).await?, refused) {
            (Retired::NotAsked(why), _) => {
                return Err(self.failed(Verdict::NotConverged, Some(line), why));
            }
            (Retired::Refused { reason, .. }, Some(expected))
                if reason.as_deref() == Some(expected.name()) =>
            {
                return Ok(());
            }
            (Retired::Refused { text, .. }, _) => Some(format!("the tool refuses: {text}")),
            (Retired::Agreed, Some(expected)) => {
                Some(format!("the tool agrees, expected a refusal for {expected}"))
            }
            (Retired::Agreed, None) => None,
        };
        if let Some(detail) = wrong {
            return Err(self.failed(Verdict::Violated, Some(line), detail));
        }
        self.wait_until_left(target, peer, &mark, line).await
    }

    async fn wait_until_left(
        &mut self,
        target: NodeId,
        peer: PeerId,
        mark: &super::Mark,
        line: u32,
    ) -> Going {
        let end = self.now().after(RETIRE_WAIT);
        while !self.witness.left_since(peer, mark) {
            if self.now() >= end {
                let detail = format!("the retirement of {} did not get into the log", self.name(target));
                return Err(self.failed(Verdict::NotConverged, Some(line), detail));
            }
            self.pass(self.now().after(S::LOOK)).await?;
        }
        Ok(())
    }

    /// Lets time pass until something is there.
    pub(super) async fn wait_for<T>(&mut self, later: Later<T>) -> Going<T> {
        let mut soon = match later {
            Later::Now(value) => return Ok(value),
            Later::Soon(soon) => soon,
        };
        loop {
            if let Some(value) = soon() {
                return Ok(value);
            }
            self.pass(self.now().after(S::LOOK)).await?;
        }
    }

    /// The run cannot go on, because what is needed next is not done here.
    pub(super) fn impossible(&self, verb: &str, line: u32, refusal: Refusal) -> End {
        let detail = format!("{verb}: {}, so the run ends here", refusal.0);
        self.failed(Verdict::Inconclusive, Some(line), detail)
    }
}
