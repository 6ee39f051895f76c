//! The machines of a run: folders and processes, handled as an operator handles them.

use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use zipnet_core::id::PeerId;
use zipnet_core::time::Time;
use zipnet_node::status::Status;
use zipnet_scenarios::Scenario;
use zipnet_scenarios::env::{Holds, SECRET_PREFIX, variable_named};
use zipnet_scenarios::node::{NodeRef, Role, Which};
use zipnet_scenarios::scenario::{Deployment, Params};

use super::admin::{self, Answer};
use super::build::{self, Binaries, Build};
use super::process::{Ended, Process};
use super::reader::Reader;
use super::relay::Relay;
use super::tail::Tail;
use crate::cluster::{self, NodeId, instance_of, peer_of};
use crate::random::Random;
use crate::wires;

/// How long a node may take to say how it stands.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// A machine and what is installed on it.
#[derive(Debug)]
pub(super) struct Machine {
    /// As scenarios call it.
    pub(super) name: String,
    /// Its place among the deployments.
    pub(super) home: usize,
    pub(super) role: Role,
    /// Counted from one, within its role and deployment.
    pub(super) number: u32,
    /// The variables as the scenario writes them.
    env: BTreeMap<&'static str, String>,
    /// `ZIPNET_SECRET`, unless the variables have one.
    secret: String,
    /// How often it got a secret that nobody had before.
    fresh: u32,
    /// Who its process is, or the next one will be.
    pub(super) peer: PeerId,
    /// The build that is installed.
    pub(super) build: Build,
    /// Its state folder.
    pub(super) state: PathBuf,
    stdout: PathBuf,
    pub(super) log: Tail,
    process: Option<Process>,
    /// Where its latest process said that it listens.
    pub(super) address: Option<String>,
    /// How the latest process ended, if it ended by itself.
    exit: Option<Ended>,
    /// An orderly stop was asked for.
    told_to_stop: bool,
    /// A step has stopped it: no fault may start it.
    stopped_by_step: bool,
}

/// Whom a process dials first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// What its variables say, or else the first server of the deployment.
    Default,
    /// Nobody.
    Nobody,
    /// These.
    Nodes(Vec<NodeId>),
}

/// A process that ended by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone {
    pub(super) node: NodeId,
    pub(super) how: Ended,
    /// It was told to stop.
    pub(super) told: bool,
}

/// What a process is started with.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// Its variables.
    pub(super) env: BTreeMap<String, String>,
    pub(super) peer: PeerId,
}

/// All machines.
#[derive(Debug)]
pub(super) struct Cluster {
    machines: Vec<Machine>,
    deployments: Vec<Deployment>,
    /// By deployment.
    readers: Vec<Reader>,
    secrets: Random,
    binaries: Binaries,
    /// What passes between them.
    pub(super) relay: Relay,
    /// Processes started.
    pub(super) starts: u64,
    /// Processes killed in the place of a power failure.
    pub(super) crashes: u64,
}

impl Cluster {
    /// Every node of a scenario, none of them running. State goes below `state`, what they print into `logs`.
    ///
    /// # Errors
    /// If their network cannot be had.
    pub(super) fn new(
        scenario: &Scenario,
        random: &Random,
        binaries: &Binaries,
        state: &Path,
        logs: &Path,
    ) -> io::Result<Self> {
        let counts = scenario.deployments.iter().flat_map(|home| Role::ALL.map(|role| home.count(role)));
        let nodes =
            counts.map(|count| usize::try_from(count).unwrap_or(usize::MAX)).fold(0, usize::saturating_add);
        let mut cluster = Self {
            readers: Vec::new(),
            // Whoever reads is on the network behind all nodes.
            relay: Relay::start(nodes + scenario.deployments.len(), wires::model(scenario), random)?,
            machines: Vec::new(),
            deployments: scenario.deployments.clone(),
            secrets: random.fork("secrets"),
            binaries: binaries.clone(),
            starts: 0,
            crashes: 0,
        };
        for (home, deployment) in scenario.deployments.iter().enumerate() {
            let name = if home == 0 { "reader".to_owned() } else { format!("{}-reader", deployment.name) };
            let (instance, listens) = (instance_of(deployment), cluster.relay.listens(nodes + home));
            let build = binaries.with(&deployment.params);
            // A deployment whose build is missing does not run at all.
            let folder = binaries.of(build).unwrap_or_else(|| binaries.folder());
            cluster.readers.push(Reader::new(&name, &instance, folder, listens, state, logs));
            for role in Role::ALL {
                for number in 1..=deployment.count(role) {
                    let prefix = if home == 0 { String::new() } else { format!("{}-", deployment.name) };
                    let name = format!("{prefix}{role}-{number}");
                    let secret = cluster.secret(&format!("node {name}"));
                    let env = deployment.env_of(role).0.into_iter();
                    cluster.machines.push(Machine {
                        home,
                        role,
                        number,
                        env: env.map(|(name, setting)| (name, setting.text().to_owned())).collect(),
                        peer: peer_of(&secret),
                        secret,
                        fresh: 0,
                        build,
                        state: state.join(&name),
                        stdout: logs.join(format!("{name}.out")),
                        log: Tail::new(logs.join(format!("{name}.log"))),
                        name,
                        process: None,
                        address: None,
                        exit: None,
                        told_to_stop: false,
                        stopped_by_step: false,
                    });
                }
            }
        }
        Ok(cluster)
    }

    fn secret(&self, label: &str) -> String {
        cluster::secret(&self.secrets, label)
    }

    /// Every node.
    pub(super) fn all(&self) -> impl Iterator<Item = (NodeId, &Machine)> {
        self.machines.iter().enumerate()
    }

    /// One node.
    pub(super) fn get(&self, node: NodeId) -> &Machine {
        self.machines.get(node).expect("nodes are never taken away")
    }

    /// One node.
    pub(super) fn get_mut(&mut self, node: NodeId) -> &mut Machine {
        self.machines.get_mut(node).expect("nodes are never taken away")
    }

    /// Its name.
    pub(super) fn name(&self, node: NodeId) -> &str {
        &self.get(node).name
    }

    /// The deployment of a node.
    pub(super) fn deployment(&self, node: NodeId) -> &Deployment {
        self.deployments.get(self.get(node).home).expect("nodes have a deployment")
    }

    /// The node that a name without a selector means.
    pub(super) fn find(&self, reference: &NodeRef) -> Option<NodeId> {
        let Which::Number(number) = reference.which else { return None };
        let wanted = (self.home(reference), reference.role, number);
        self.machines.iter().position(|machine| (machine.home, machine.role, machine.number) == wanted)
    }

    /// The deployment that a reference means.
    pub(super) fn home(&self, reference: &NodeRef) -> usize {
        let name = reference.instance.as_deref().unwrap_or("");
        self.deployments.iter().position(|deployment| deployment.name == name).unwrap_or(0)
    }

    /// Nodes of a role of a deployment, by number.
    pub(super) fn of_role(&self, home: usize, role: Role) -> impl Iterator<Item = NodeId> {
        let machines = self.machines.iter().enumerate();
        machines
            .filter(move |(_, machine)| machine.home == home && machine.role == role)
            .map(|(node, _)| node)
    }

    /// Whether a process lives.
    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.get(node).process.is_some()
    }

    /// The servers of a deployment that are up.
    pub(super) fn servers_up(&self, home: usize) -> Vec<NodeId> {
        self.of_role(home, Role::Server).filter(|node| self.is_up(*node)).collect()
    }

    /// The node that last was the peer whose id begins with these digits.
    pub(super) fn node_of(&self, digits: &str) -> Option<NodeId> {
        self.machines.iter().position(|machine| machine.peer.to_string().starts_with(digits))
    }

    /// The shape of the rounds that a deployment was written for.
    pub(super) fn params(&self, node: NodeId) -> Params {
        self.deployment(node).params
    }

    /// The secrets and payloads of the variables of a node: what no log may hold.
    pub(super) fn confidential(start: &Start) -> impl Iterator<Item = String> {
        let names = ["ZIPNET_SECRET", "ZIPNET_COMMITTEE_SECRET", "ZIPNET_MESSAGE"];
        names.into_iter().filter_map(|name| start.env.get(name)).filter(|value| value.len() >= 8).cloned()
    }

    /// Starts a process with what [`Cluster::variables`] says.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn start(&mut self, node: NodeId, start: &Start) -> io::Result<()> {
        self.starts += 1;
        let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no binary of this build");
        let binary = self.binaries_of(node).ok_or_else(missing)?.join(build::binary(self.get(node).role));
        let machine = self.get_mut(node);
        fs::create_dir_all(&machine.state)?;
        let process = Process::start(&binary, &[], &start.env, &machine.stdout, machine.log.path())?;
        machine.process = Some(process);
        machine.peer = start.peer;
        machine.exit = None;
        machine.told_to_stop = false;
        machine.stopped_by_step = false;
        Ok(())
    }

    /// Where the binaries of the build are that is installed on a node, if they are anywhere.
    pub(super) fn binaries_of(&self, node: NodeId) -> Option<&Path> {
        self.binaries.of(self.get(node).build)
    }

    /// Installs a build, given that of the deployment; the next process runs it.
    pub(super) fn install(&mut self, node: NodeId, change: impl FnOnce(&mut Build)) {
        let mut build = self.binaries.with(&self.params(node));
        change(&mut build);
        self.get_mut(node).build = build;
    }

    /// The variables that a process on this node is started with.
    pub(super) fn variables(&self, node: NodeId, hint: &Hint) -> Start {
        let machine = self.get(node);
        let mut env = BTreeMap::new();
        for (name, text) in &machine.env {
            let value = match variable_named(name).map(|variable| variable.holds) {
                Some(Holds::Secret) => {
                    text.strip_prefix(SECRET_PREFIX).map_or_else(String::new, |label| self.secret(label))
                }
                Some(Holds::Nodes) => {
                    let nodes = self.named(text);
                    if *name == "ZIPNET_BOOTSTRAP" { self.printed(&nodes) } else { self.peers(&nodes) }
                }
                Some(Holds::Text | Holds::Duration | Holds::Count { .. } | Holds::Flag | Holds::Engine)
                | None => text.clone(),
            };
            env.insert((*name).to_owned(), value);
        }
        let unset = |env: &BTreeMap<String, String>, name: &str| env.get(name).is_none_or(String::is_empty);
        let instance = instance_of(self.deployment(node));
        if !machine.env.contains_key("ZIPNET_INSTANCE") {
            env.insert("ZIPNET_INSTANCE".to_owned(), instance.clone());
        }
        if unset(&env, "ZIPNET_SECRET") {
            env.insert("ZIPNET_SECRET".to_owned(), machine.secret.clone());
        }
        if machine.role == Role::Server {
            if !machine.env.contains_key("ZIPNET_COMMITTEE_SECRET") {
                env.insert(
                    "ZIPNET_COMMITTEE_SECRET".to_owned(),
                    self.secret(&format!("committee of {instance}")),
                );
            }
            let voters = self.deployment(node).first_voters;
            env.entry("ZIPNET_FIRST_VOTERS".to_owned()).or_insert_with(|| voters.to_string());
        }
        match hint {
            Hint::Default if unset(&env, "ZIPNET_BOOTSTRAP") => {
                let nodes = self.default_bootstrap(node);
                env.insert("ZIPNET_BOOTSTRAP".to_owned(), self.printed(&nodes));
            }
            Hint::Default => {}
            Hint::Nobody => {
                env.remove("ZIPNET_BOOTSTRAP");
            }
            Hint::Nodes(nodes) => {
                env.insert("ZIPNET_BOOTSTRAP".to_owned(), self.printed(nodes));
            }
        }
        env.insert("ZIPNET_LISTEN".to_owned(), self.relay.listens(node).to_string());
        env.insert("ZIPNET_ADVERTISE".to_owned(), self.relay.advertises(node).to_string());
        env.insert("ZIPNET_STATE_DIR".to_owned(), machine.state.display().to_string());
        env.insert("ZIPNET_FORMAT".to_owned(), "json".to_owned());
        // What is judged by stands in lines of this level.
        env.insert("RUST_LOG".to_owned(), "debug".to_owned());
        env.retain(|_, value| !value.is_empty());
        let peer = env.get("ZIPNET_SECRET").map_or(machine.peer, |secret| peer_of(secret));
        Start { env, peer }
    }

    /// The nodes that a process is going to dial by their addresses.
    pub(super) fn dials(&self, node: NodeId, hint: &Hint) -> Vec<NodeId> {
        match hint {
            Hint::Nobody => Vec::new(),
            Hint::Nodes(nodes) => nodes.clone(),
            Hint::Default => match self.get(node).env.get("ZIPNET_BOOTSTRAP").filter(|text| !text.is_empty())
            {
                Some(text) => self.named(text),
                None => self.default_bootstrap(node),
            },
        }
    }

    fn default_bootstrap(&self, node: NodeId) -> Vec<NodeId> {
        let first = self.of_role(self.get(node).home, Role::Server).next();
        first.filter(|first| *first != node).into_iter().collect()
    }

    /// The nodes that a text of a variable names.
    fn named(&self, text: &str) -> Vec<NodeId> {
        let instances: Vec<_> =
            self.deployments.iter().skip(1).map(|deployment| deployment.name.as_str()).collect();
        let names = text.split(',').map(str::trim);
        let references = names.filter_map(|name| NodeRef::parse(name, instances.iter().copied()));
        let meant = |reference: NodeRef| match reference.which {
            Which::Number(_) => self.find(&reference).into_iter().collect(),
            Which::All
            | Which::Any
            | Which::Each
            | Which::Rest
            | Which::Leader
            | Which::Follower
            | Which::Target => self.of_role(self.home(&reference), reference.role).collect::<Vec<_>>(),
        };
        references.flat_map(meant).collect()
    }

    fn peers(&self, nodes: &[NodeId]) -> String {
        nodes.iter().map(|node| self.get(*node).peer.to_string()).collect::<Vec<_>>().join(",")
    }

    /// The `peer=` values that nodes printed at their starts; nothing for those that never did.
    fn printed(&self, nodes: &[NodeId]) -> String {
        let printed = nodes.iter().filter_map(|node| {
            let machine = self.get(*node);
            Some(format!("{}@{}", machine.peer, machine.address.as_ref()?))
        });
        printed.collect::<Vec<_>>().join(",")
    }

    /// Gives a node a secret that nobody had before; it keeps it.
    pub(super) fn renew_identity(&mut self, node: NodeId) {
        let fresh = self.get(node).fresh + 1;
        let secret = self.secret(&format!("node {} {fresh}", self.get(node).name));
        let machine = self.get_mut(node);
        machine.fresh = fresh;
        machine.peer = peer_of(&secret);
        machine.secret = secret;
        machine.env.remove("ZIPNET_SECRET");
    }

    /// Gives a node the secret of another one.
    pub(super) fn copy_identity(&mut self, node: NodeId, other: NodeId) {
        let secret = self.variables(other, &Hint::Nobody).env.remove("ZIPNET_SECRET").unwrap_or_default();
        let machine = self.get_mut(node);
        machine.peer = peer_of(&secret);
        machine.secret = secret;
        machine.env.remove("ZIPNET_SECRET");
    }

    /// Changes a variable; the next process reads it.
    pub(super) fn set_variable(&mut self, node: NodeId, name: &'static str, value: &str) {
        self.get_mut(node).env.insert(name, value.to_owned());
    }

    /// Asks for an orderly stop. [`Cluster::harvest`] sees the end.
    pub(super) fn terminate(&mut self, node: NodeId) {
        let machine = self.get_mut(node);
        machine.told_to_stop = true;
        if let Some(process) = &mut machine.process {
            process.terminate();
        }
    }

    /// Ends a process without a word. What it printed before stands in its log.
    pub(super) fn kill(&mut self, node: NodeId) {
        let machine = self.get_mut(node);
        machine.process = None;
        machine.exit = None;
    }

    /// Freezes a process.
    pub(super) fn pause(&mut self, node: NodeId) {
        if let Some(process) = &mut self.get_mut(node).process {
            process.pause();
        }
    }

    /// Lets a frozen process go on.
    pub(super) fn resume(&mut self, node: NodeId) {
        if let Some(process) = &mut self.get_mut(node).process {
            process.resume();
        }
    }

    /// A step has stopped this node: no fault may start it.
    pub(super) fn keep_down(&mut self, node: NodeId) {
        self.get_mut(node).stopped_by_step = true;
    }

    /// Whether a step has stopped this node.
    pub(super) fn is_kept_down(&self, node: NodeId) -> bool {
        self.get(node).stopped_by_step
    }

    /// Deletes the state folder of a node that is down.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn wipe(&self, node: NodeId) -> io::Result<()> {
        match fs::remove_dir_all(&self.get(node).state) {
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// How the latest process ended, if it ended by itself.
    pub(super) fn exit(&self, node: NodeId) -> Option<Ended> {
        self.get(node).exit
    }

    /// Takes note of every process that has ended by itself.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn harvest(&mut self) -> io::Result<Vec<Gone>> {
        let mut gone = Vec::new();
        for (node, machine) in self.machines.iter_mut().enumerate() {
            let Some(process) = &mut machine.process else { continue };
            let Some(how) = process.ended()? else { continue };
            machine.process = None;
            machine.exit = Some(how);
            gone.push(Gone { node, how, told: machine.told_to_stop });
        }
        Ok(gone)
    }

    /// Asks the process on a node, or gives it an order. None if it is down, frozen, or does not answer.
    pub(super) fn ask(&self, node: NodeId, path: &str, payload: Option<&[u8]>) -> Option<Answer> {
        let machine = self.get(node);
        machine.process.as_ref().filter(|process| !process.paused)?;
        admin::ask(&machine.state, path, payload, PATIENCE).ok()
    }

    /// What the readers have printed since the last call, by deployment.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn broadcasts(&mut self, now: Time) -> io::Result<Vec<(usize, String)>> {
        let mut lines = Vec::new();
        for home in 0..self.readers.len() {
            let serving = [Role::Server, Role::Aggregator].into_iter();
            let nodes: Vec<_> = serving.flat_map(|role| self.of_role(home, role)).collect();
            let peers = self.printed(&nodes);
            let Some(reader) = self.readers.get_mut(home) else { continue };
            lines.extend(reader.look(now, &peers)?.into_iter().map(|line| (home, line)));
        }
        Ok(lines)
    }

    /// Whether no other deployment has the name of this one's instance.
    pub(super) fn is_unique(&self, home: usize) -> bool {
        let name = |deployment: &Deployment| instance_of(deployment);
        let own = self.deployments.get(home).map(name);
        self.deployments.iter().filter(|other| Some(name(other)) == own).count() == 1
    }

    /// How a node says that it stands.
    pub(super) fn status(&self, node: NodeId) -> Option<Status> {
        let answer = self.ask(node, "/status", None).filter(|answer| answer.status == 200)?;
        serde_json::from_str(&answer.body).ok()
    }

    /// A metric of a node in thousandths, summed over its labels.
    pub(super) fn metric(&self, node: NodeId, name: &str) -> Option<u64> {
        let answer = self.ask(node, "/metrics", None).filter(|answer| answer.status == 200)?;
        admin::metric(&answer.body, name)
    }

    /// Ends every process.
    pub(super) fn end(&mut self) {
        self.readers.iter_mut().for_each(Reader::end);
        for machine in &mut self.machines {
            machine.process = None;
        }
    }
}
