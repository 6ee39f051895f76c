//! The machines of a run and what is installed on them, handled as an operator handles them.
//!
//! A [`Cluster`] starts processes with the documented variables, stops them with signals, and takes their exit codes.
//! What they say goes to the [`Witness`].
//!
//! - `witness`: what is known of a run
//! - `variables`: the environment of a process

use core::fmt::Write as _;
use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::checks::Check;
use zipnet_core::committee::{self, MACHINE_VERSION};
use zipnet_core::id::{GroupId, PeerId, UniqueId};
use zipnet_core::instance::{Instance, machine_signature};
use zipnet_core::key::{CommitteeSecret, Identity, NodeSecret};
use zipnet_core::params::RoundParams;
use zipnet_core::wire::WIRE_VERSION;
use zipnet_node::config::{Build, Config, Part};
use zipnet_node::event::{Event, Observer};
use zipnet_node::metrics::BuildInfo;
use zipnet_node::node::{self, Exit, Handle};
use zipnet_node::world::Address;
use zipnet_reports::properties::Subject;
use zipnet_scenarios::Scenario;
use zipnet_scenarios::node::{NodeRef, Role, Which};
use zipnet_scenarios::scenario::Deployment;
use zipnet_scenarios::verbs::Do;
use zipnet_scenarios::words::Deviation;

use crate::adversary::{self, Hearsay, Liar, Overheard};
use crate::chain::NodeIndex;
use crate::defect::{Defects, Onlooker, Planted};
use crate::disk::Crash;
use crate::memory::{Remembering, Verdicts};
use crate::random::Random;
use crate::runtime::now;
use crate::world::{Host, Process, Simulation};

mod variables;
mod witness;

pub(crate) use witness::{Breach, Mark, Named, Witness};

use witness::Start;

/// A node of the run, by its place among all of them.
pub(crate) type NodeId = usize;

/// A machine and what is installed on it.
#[derive(Debug)]
pub(crate) struct Member {
    /// As scenarios call it.
    pub(crate) name: String,
    /// Its place among the deployments.
    pub(crate) home: usize,
    /// What it is.
    pub(crate) role: Role,
    /// Counted from one, within its role and deployment.
    pub(crate) number: u32,
    host: Host,
    /// The variables as the scenario writes them.
    env: BTreeMap<&'static str, String>,
    /// `ZIPNET_SECRET`, unless the variables have one.
    secret: String,
    /// How often it got a secret that nobody had before.
    fresh: u32,
    build: Build,
    /// The binary applies commands in another way than its signature says.
    drifted: bool,
    handle: Option<Handle>,
    process: Option<Process<Exit>>,
    /// How the latest process ended, if it ended by itself.
    exit: Option<Exit>,
    /// The clients that its operator refuses.
    refused: BTreeSet<PeerId>,
    /// An orderly stop was asked for.
    told_to_stop: bool,
    /// A step has stopped it: no fault may start it.
    stopped_by_step: bool,
    liar: Liar,
}

/// Whom a process dials first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// What its variables say, or else the first server of the deployment.
    Default,
    /// Nobody.
    Nobody,
    /// These.
    Nodes(Vec<NodeId>),
}

/// A process that ended by itself.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) node: NodeId,
    pub(crate) exit: Exit,
    /// It was told to stop.
    pub(crate) told: bool,
}

/// All machines.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) simulation: Simulation,
    pub(crate) witness: Witness,
    members: Vec<Member>,
    deployments: Vec<Deployment>,
    secrets: Random,
    planted: Planted,
    /// Which signatures were found to be right or wrong, by any node.
    verdicts: Verdicts,
    /// What strangers tell each other.
    hearsay: Hearsay,
    /// Processes started.
    pub(crate) starts: u64,
    /// Machines that lost their power.
    pub(crate) crashes: u64,
}

impl Cluster {
    /// Every node of a scenario, none of them running.
    pub(crate) fn new(simulation: Simulation, witness: Witness, scenario: &Scenario) -> Self {
        let secrets = simulation.random("secrets");
        let mut cluster = Self {
            simulation,
            witness,
            members: Vec::new(),
            deployments: scenario.deployments.clone(),
            secrets,
            planted: Planted::default(),
            verdicts: Verdicts::default(),
            hearsay: Hearsay::default(),
            starts: 0,
            crashes: 0,
        };
        let acts = scenario.steps.iter().flat_map(|step| &step.acts);
        let mut deviations = acts.filter_map(|act| match &act.verb {
            Do::Lie { deviation, .. } => Some(*deviation),
            _ => None,
        });
        let listens = deviations.any(adversary::concerns_log);
        for (home, deployment) in scenario.deployments.iter().enumerate() {
            let overheard = if listens { Overheard::listening() } else { Overheard::default() };
            for role in Role::ALL {
                for number in 1..=deployment.count(role) {
                    cluster.add(home, deployment, role, number, &overheard);
                }
            }
        }
        cluster
    }

    /// Which rule which nodes leave out from their next start on.
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    fn add(&mut self, home: usize, deployment: &Deployment, role: Role, number: u32, overheard: &Overheard) {
        let prefix = if home == 0 { String::new() } else { format!("{}-", deployment.name) };
        let name = format!("{prefix}{role}-{number}");
        let secret = self.secret(&format!("node {name}"));
        let peer = peer_of(&secret);
        let address = Address(format!("{name}:7000"));
        let host = self.simulation.host(&name, address, peer);
        let env =
            deployment.env_of(role).0.into_iter().map(|(name, setting)| (name, setting.text().to_owned()));
        self.witness.enrol(
            Subject {
                node: self.members.len(),
                name: name.clone(),
                peer,
                role: witness::role(role),
                liar: false,
            },
            home,
        );
        self.members.push(Member {
            name,
            home,
            role,
            number,
            host,
            env: env.collect(),
            secret,
            fresh: 0,
            build: build_of(deployment),
            drifted: false,
            handle: None,
            process: None,
            exit: None,
            refused: BTreeSet::new(),
            told_to_stop: false,
            stopped_by_step: false,
            liar: Liar::new(overheard.clone(), self.hearsay.clone()),
        });
    }

    fn secret(&self, label: &str) -> String {
        secret(&self.secrets, label)
    }

    /// Every node.
    pub(crate) fn all(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().enumerate()
    }

    /// One node.
    pub(crate) fn get(&self, node: NodeId) -> &Member {
        self.members.get(node).expect("nodes are never taken away")
    }

    fn get_mut(&mut self, node: NodeId) -> &mut Member {
        self.members.get_mut(node).expect("nodes are never taken away")
    }

    /// Its name.
    pub(crate) fn name(&self, node: NodeId) -> &str {
        &self.get(node).name
    }

    /// The node that a name without a selector means.
    pub(crate) fn find(&self, reference: &NodeRef) -> Option<NodeId> {
        let Which::Number(number) = reference.which else { return None };
        let home = self.home(reference);
        self.members
            .iter()
            .position(|member| (member.home, member.role, member.number) == (home, reference.role, number))
    }

    /// The deployment that a reference means.
    pub(crate) fn home(&self, reference: &NodeRef) -> usize {
        let name = reference.instance.as_deref().unwrap_or("");
        let named = |deployment: &Deployment| deployment.name == name;
        self.deployments.iter().position(named).unwrap_or(0)
    }

    /// Nodes of a role of a deployment, by number.
    pub(crate) fn of_role(&self, home: usize, role: Role) -> impl Iterator<Item = NodeId> {
        let fits = move |member: &Member| member.home == home && member.role == role;
        self.members.iter().enumerate().filter(move |(_, member)| fits(member)).map(|(node, _)| node)
    }

    /// Whether a process lives.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.get(node).process.is_some()
    }

    /// The servers of a deployment that are up.
    pub(crate) fn servers_up(&self, home: usize) -> Vec<NodeId> {
        self.of_role(home, Role::Server).filter(|node| self.is_up(*node)).collect()
    }

    /// The server of a deployment that leads: of several that say so, the one with the newest term.
    pub(crate) fn leader(&self, home: usize) -> Option<NodeId> {
        let term =
            |node: &NodeId| self.witness.of(*node, |known| known.leads().then_some(known.leader)).flatten();
        self.servers_up(home).into_iter().filter(|node| term(node).is_some()).max_by_key(|node| term(node))
    }

    /// Talks to the process on a node.
    pub(crate) fn handle(&self, node: NodeId) -> Option<Handle> {
        self.get(node).handle.clone()
    }

    /// Who the process on a node is, or the next one will be.
    pub(crate) fn peer(&self, node: NodeId) -> PeerId {
        self.get(node).host.peer()
    }

    /// The node that last was this peer.
    pub(crate) fn node_of(&self, peer: &PeerId) -> Option<NodeId> {
        (0..self.members.len()).find(|node| self.peer(*node) == *peer)
    }

    /// The place on the network.
    pub(crate) fn index(&self, node: NodeId) -> NodeIndex {
        self.get(node).host.index()
    }

    /// The machine.
    pub(crate) fn host(&self, node: NodeId) -> &Host {
        &self.get(node).host
    }

    /// Starts a process.
    ///
    /// # Panics
    /// If one lives.
    pub(crate) fn start(&mut self, node: NodeId, hint: &Hint) {
        let env = self.variables(node, hint);
        let secret = env.get("ZIPNET_SECRET").cloned().unwrap_or_default();
        let checks = Remembering::new(self.checks(node), self.verdicts.clone());
        let now = self.simulation.now();
        self.starts += 1;
        let witness = self.witness.clone();
        let member = self.get_mut(node);
        let peer = peer_of(&secret);
        member.host.set_peer(peer);
        member.liar.is_called(&secret);
        member.exit = None;
        member.told_to_stop = false;
        member.stopped_by_step = false;
        let role = witness::role(member.role);
        let build = member.build;
        let configured = Config::from_env(role, &env, build);
        let group = configured.as_ref().ok().and_then(|(config, _)| group_of(config));
        if let (Ok((config, _)), Some(group)) = (&configured, group) {
            let instance = config.instance.id();
            member.liar.serves(&committee::Config { instance, group, params: build.params });
        }
        let info = BuildInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wire_version: build.wire_version,
            machine_version: build.machine_version,
            role,
        };
        let floor = match configured.as_ref().map(|(config, _)| &config.part) {
            Ok(Part::Server(part)) => Some(part.floors.participants),
            Ok(Part::Aggregator(_) | Part::Client(_) | Part::Reader(_)) | Err(_) => None,
        };
        let instance = configured.as_ref().map_or("", |(config, _)| config.instance.name());
        let lies = member.liar.is_lying() || member.drifted;
        witness.lies(member.host.index(), lies);
        witness.started(member.host.index(), now, peer, Start { instance, build: info, floor, group });
        let (handle, controls) = node::control();
        if !member.refused.is_empty() {
            handle.refuse(member.refused.clone());
        }
        member.handle = Some(handle);
        let tap = (member.role != Role::Client || lies).then(|| member.liar.tap());
        member.host.set_tap(tap);
        member.process = Some(member.host.start(async move |world| match configured {
            Ok((config, warnings)) => {
                for warning in warnings {
                    world.observe(Event::Warned(warning.to_string()));
                }
                node::run(world, checks, config, controls).await
            }
            Err(mistakes) => {
                let reason = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                let exit = Exit { code: zipnet_node::config::EXIT_CONFIG, reason };
                world.observe(Event::Exiting { code: exit.code, reason: exit.reason.clone() });
                exit
            }
        }));
    }

    /// Has the operator of a server refuse clients, or withdraw that. It is remembered as a file of the server would.
    pub(crate) fn refuse(&mut self, server: NodeId, clients: &[NodeId], withdraw: bool) {
        let clients: Vec<_> = clients.iter().map(|client| self.peer(*client)).collect();
        let member = self.get_mut(server);
        for client in clients {
            if withdraw {
                member.refused.remove(&client);
            } else {
                member.refused.insert(client);
            }
        }
        if let Some(handle) = &member.handle {
            handle.refuse(member.refused.clone());
        }
    }

    /// Which rules a node enforces.
    pub(crate) fn checks(&self, node: NodeId) -> Defects {
        let member = self.get(node);
        let planted = self.planted.on(member.host.index()).with_switch(member.liar.switch());
        let planted = planted.announcing(member.liar.announced());
        let (witness, index) = (self.witness.clone(), member.host.index());
        let planted = planted.watched_by(Onlooker::new(move |mixed| witness.mixed(index, now(), mixed)));
        // A record that no other server makes of the same log: the plainest way to apply differently.
        if member.drifted { planted.without(Check::ChainRecords) } else { planted }
    }

    /// Gives a node a secret that nobody had before; it keeps it.
    pub(crate) fn renew_identity(&mut self, node: NodeId) {
        let fresh = self.get(node).fresh + 1;
        let secret = self.secret(&format!("node {} {fresh}", self.get(node).name));
        let member = self.get_mut(node);
        member.fresh = fresh;
        member.secret = secret;
        member.env.remove("ZIPNET_SECRET");
        member.host.set_peer(peer_of(&member.secret));
    }

    /// Gives a node the secret of another one.
    pub(crate) fn copy_identity(&mut self, node: NodeId, other: NodeId) {
        let secret = self.variables(other, &Hint::Nobody).remove("ZIPNET_SECRET").unwrap_or_default();
        let member = self.get_mut(node);
        member.secret = secret;
        member.env.remove("ZIPNET_SECRET");
        member.host.set_peer(peer_of(&member.secret));
    }

    /// Changes a variable; the next process reads it.
    pub(crate) fn set_variable(&mut self, node: NodeId, name: &'static str, value: &str) {
        self.get_mut(node).env.insert(name, value.to_owned());
    }

    /// Installs another binary; the next process is of it.
    pub(crate) fn install(&mut self, node: NodeId, drifted: bool, change: impl FnOnce(&mut Build)) {
        let mut build = build_of(self.deployments.get(self.get(node).home).expect("nodes have a deployment"));
        change(&mut build);
        let member = self.get_mut(node);
        member.build = build;
        member.drifted = drifted;
    }

    /// The rounds that the installed binary makes.
    pub(crate) fn params(&self, node: NodeId) -> RoundParams {
        self.get(node).build.params
    }

    /// Asks for an orderly stop. [`Cluster::harvest`] sees the end.
    pub(crate) fn terminate(&mut self, node: NodeId) {
        let member = self.get_mut(node);
        member.told_to_stop = true;
        if let Some(handle) = &member.handle {
            handle.stop();
        }
    }

    /// Ends a process without a word; what it wrote stays.
    pub(crate) fn kill(&mut self, node: NodeId) {
        self.cut_off(node, Crash::KeepAll);
    }

    /// Cuts the power of a machine.
    pub(crate) fn crash(&mut self, node: NodeId, disk: Crash) {
        self.crashes += 1;
        self.cut_off(node, disk);
    }

    fn cut_off(&mut self, node: NodeId, disk: Crash) {
        let now = self.simulation.now();
        let member = self.get_mut(node);
        member.host.resume();
        member.host.kill(disk);
        member.handle = None;
        member.process = None;
        member.exit = None;
        let index = member.host.index();
        self.witness.killed(index, now);
    }

    /// A step has stopped this node: no fault may start it.
    pub(crate) fn keep_down(&mut self, node: NodeId) {
        self.get_mut(node).stopped_by_step = true;
    }

    /// Whether a step has stopped this node.
    pub(crate) fn is_kept_down(&self, node: NodeId) -> bool {
        self.get(node).stopped_by_step
    }

    /// Deletes the state folder of a machine on which nothing runs.
    pub(crate) fn empty_disk(&mut self, node: NodeId) {
        self.get_mut(node).refused.clear();
        let host = &self.get(node).host;
        host.platter().replace();
        self.witness.disk_lost(host.index(), self.simulation.now());
    }

    /// How the latest process ended, if it ended by itself.
    pub(crate) fn exit(&self, node: NodeId) -> Option<&Exit> {
        self.get(node).exit.as_ref()
    }

    /// From now on a node deviates. A key is copied from the first honest node of its role that is not itself.
    pub(crate) fn deviate(&self, node: NodeId, deviation: Deviation) {
        let Member { home, role, liar, .. } = self.get(node);
        let mut others = self.of_role(*home, *role).filter(|other| *other != node);
        let other = others.find(|other| !self.get(*other).liar.is_lying());
        liar.deviate(deviation, other.map(|other| &self.get(other).liar));
    }

    /// Takes note of every process that has ended by itself.
    pub(crate) fn harvest(&mut self) -> Vec<Ended> {
        let now = self.simulation.now();
        let mut ended = Vec::new();
        for (node, member) in self.members.iter_mut().enumerate() {
            let Some(exit) = member.process.as_ref().and_then(Process::take) else { continue };
            member.process = None;
            member.handle = None;
            member.exit = Some(exit.clone());
            self.witness.exited(member.host.index(), now, exit.code);
            ended.push(Ended { node, exit, told: member.told_to_stop });
        }
        ended
    }
}

/// 64 hexadecimal digits that belong to a label: what `openssl rand -hex 32` prints.
pub(crate) fn secret(secrets: &Random, label: &str) -> String {
    let mut text = String::new();
    for byte in secrets.fork(label).bytes() {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
    }
    text
}

/// The name of a deployment's instance.
pub(crate) fn instance_of(deployment: &Deployment) -> String {
    let written = deployment.env.get("ZIPNET_INSTANCE").map(str::to_owned);
    written.unwrap_or_else(|| {
        if deployment.name.is_empty() {
            "acme.mainnet".to_owned()
        } else {
            format!("acme.mainnet.{}", deployment.name)
        }
    })
}

/// Who has this secret of a scenario: 64 hexadecimal digits, so that no instance is needed and nothing is stretched.
pub(crate) fn peer_of(secret: &str) -> PeerId {
    Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text(secret).0)).peer()
}

/// The group of a configuration; servers only.
fn group_of(config: &Config) -> Option<GroupId> {
    let Part::Server(part) = &config.part else { return None };
    let build = config.build;
    let signature = machine_signature(build.wire_version, build.machine_version, &build.params);
    let instance: &Instance = &config.instance;
    let secret: &CommitteeSecret = &part.committee_secret;
    Some(secret.group_id(instance, &signature))
}

/// What the binaries of a deployment are built as.
fn build_of(deployment: &Deployment) -> Build {
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let params = deployment.params;
    let params =
        RoundParams::new(number(params.num_slots), number(params.slot_bytes), number(params.tag_len));
    Build {
        params: params.expect("scenarios are checked when they are read"),
        wire_version: WIRE_VERSION,
        machine_version: MACHINE_VERSION,
    }
}
