//! The machines of a simulation, handled as an operator handles them.
//!
//! Processes are started with the documented variables, stopped with signals, and end with exit codes. What they tell goes
//! to an `Ear`, which judges it at once.
//!
//! - `ear`: what nodes tell
//! - `paths`: the network as steps and faults want it
//! - `burglar`: what a disk gives away

use core::ops::Range;
use core::time::Duration;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::select;
use openraft_rt::AsyncRuntime;
use zipnet_core::checks::Check;
use zipnet_core::committee::{self, MACHINE_VERSION};
use zipnet_core::id::PeerId;
use zipnet_core::machine::RequestId;
use zipnet_core::params::RoundParams;
use zipnet_core::time::Time;
use zipnet_core::wire::WIRE_VERSION;
use zipnet_node::config::{Build, Config, Part};
use zipnet_node::event::{Event, Observer};
use zipnet_node::meeting::{Removal, may_retire};
use zipnet_node::metrics::BuildInfo;
use zipnet_node::node::{self, Exit, Handle};
use zipnet_node::plan::{Plan, Step};
use zipnet_node::status::{Status, View};
use zipnet_node::world::Address;
use zipnet_reports::properties::Subject;
use zipnet_reports::{Checkpoint, Counts, RunResult};
use zipnet_scenarios::Scenario;
use zipnet_scenarios::node::Which;
use zipnet_scenarios::scenario::Deployment;
use zipnet_scenarios::verbs::{Always, Do};
use zipnet_scenarios::words::{self, Apply, Deviation, DiskFate, Metric, Word as _};

use crate::adversary::{self, Hearsay, Liar, Overheard};
use crate::cast::{Cast, Hint, NodeId, group_of, role};
use crate::chain::{Log, NodeIndex, Recorder};
use crate::defect::{Defect, Defects, Onlooker, Planted};
use crate::disk::Crash;
use crate::engine;
use crate::memory::{Remembering, Verdicts};
use crate::network::NetworkConfig;
use crate::runtime::{SimRuntime, now};
use crate::site::{
    Ended, Foreseen, Heard, Judged, Later, Order, Outcome, Refusal, Retired, Site, Started, Stop, Told,
    Upgrade, named,
};
use crate::wires::{self, Paths};
use crate::world::{Host, Process, Simulation, simulate};

mod burglar;
mod ear;
mod paths;

use ear::{Ear, Start};

/// How long a node may take to say how it stands.
const VIEW_WAIT: Duration = Duration::from_secs(1);

/// How long the tool waits for a server.
const TOOL_WAIT: Duration = Duration::from_secs(60);

/// What a run is told beside its scenario and seed. None of it changes what happens, except the defect.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The defect to plant, by name; none in an ordinary run.
    pub defect: Option<String>,
    /// The events to return in words.
    pub window: Option<Range<u64>>,
    /// Where to write every event in words.
    pub event_log: Option<PathBuf>,
}

/// Runs a scenario with a seed.
///
/// What the run came to is in the result, which lacks what only the caller knows: the name of the file, the command that
/// shows the run again, and measured times.
///
/// # Errors
/// If a defect is asked for that does not exist, or the event log cannot be written.
pub fn run(scenario: &Scenario, seed: u64, options: &Options) -> Result<RunResult, String> {
    let defect = match &options.defect {
        None => None,
        Some(name) => Some(Defect::named(name).ok_or_else(|| {
            let known: Vec<_> = Defect::names().collect();
            format!("plant the defect {name}: expected one of {}", known.join(", "))
        })?),
    };
    let resolved = engine::resolve(scenario, seed);
    let scenario = resolved.scenario();
    let log = match (&options.event_log, &options.window) {
        (Some(path), _) => {
            let file = File::create(path).map_err(|reason| format!("write {}: {reason}", path.display()))?;
            Log::To(Box::new(BufWriter::new(file)))
        }
        (None, Some(window)) => Log::Window(window.clone()),
        (None, None) => Log::Off,
    };
    let disturbance = defect.map(|(defect, _)| disturbance(defect)).unwrap_or_default();
    let recorder = match defect {
        Some((Defect::Tampered(tamper), _)) => Recorder::with_tamper(log, tamper),
        Some(_) | None => Recorder::new(log),
    };
    let ear = Ear::new(recorder.clone(), named(scenario));
    let sink = ear.clone();
    let config = NetworkConfig { model: wires::model(scenario), ..NetworkConfig::default() };
    let ended = simulate(
        seed,
        config,
        recorder.clone(),
        Arc::new(move |node, now, event| sink.observe(node, now, event)),
        async |simulation| {
            disturbance.iter().for_each(|word| simulation.note(word));
            let random = simulation.random("engine");
            let mut machines = Machines::new(simulation, ear, scenario);
            if let Some((defect, marker)) = defect {
                machines.plant(scenario, defect, marker);
            }
            engine::carry_out(scenario, machines, &random).await
        },
    );
    recorder.finish().map_err(|reason| format!("write the event log: {reason}"))?;
    let mut result = ended?.expect("nobody interrupts a simulation");
    result.seed = seed;
    result.window = if options.window.is_some() { recorder.lines() } else { Vec::new() };
    Ok(result)
}

/// The defects of the simulator itself: words that depend on more than scenario and seed. Within a simulation, clock and
/// hash maps are those of the runtime and repeat themselves, so these look outside.
fn disturbance(defect: Defect) -> Vec<String> {
    match defect {
        Defect::WallClock => {
            #[expect(
                clippy::disallowed_methods,
                clippy::disallowed_types,
                reason = "the defect that is planted"
            )]
            let read = std::time::SystemTime::now();
            vec![format!("{read:?}")]
        }
        Defect::MapOrder => {
            #[expect(clippy::disallowed_types, reason = "the defect that is planted")]
            let map: std::collections::HashMap<usize, ()> = (0..16).map(|number| (number, ())).collect();
            map.into_keys().map(|number| number.to_string()).collect()
        }
        Defect::Without(_) | Defect::Tampered(_) => Vec::new(),
    }
}

/// A machine and what is installed on it.
#[derive(Debug)]
struct Machine {
    host: Host,
    build: Build,
    /// The binary applies commands in another way than its signature says.
    drifted: bool,
    handle: Option<Handle>,
    process: Option<Process<Exit>>,
    /// How the latest process ended, if it ended by itself.
    exit: Option<Ended>,
    /// The clients that its operator refuses.
    refused: BTreeSet<PeerId>,
    /// An orderly stop was asked for.
    told_to_stop: bool,
    liar: Liar,
}

/// All machines.
#[derive(Debug)]
struct Machines {
    simulation: Simulation,
    ear: Ear,
    cast: Cast,
    machines: Vec<Machine>,
    planted: Planted,
    /// Which signatures were found to be right or wrong, by any node.
    verdicts: Verdicts,
    /// What the network was told last.
    paths: Paths,
    last_request: u64,
    /// Processes started.
    starts: u64,
    /// Machines that lost their power.
    crashes: u64,
}

impl Machines {
    /// Every node of a scenario, none of them running.
    fn new(simulation: Simulation, ear: Ear, scenario: &Scenario) -> Self {
        let cast = Cast::new(scenario, simulation.random("secrets"));
        let acts = scenario.steps.iter().flat_map(|step| &step.acts);
        let mut deviations = acts.filter_map(|act| match &act.verb {
            Do::Lie { deviation, .. } => Some(*deviation),
            _ => None,
        });
        let listens = deviations.any(adversary::concerns_log);
        let overheard: Vec<_> = cast
            .deployments()
            .iter()
            .map(|_| if listens { Overheard::listening() } else { Overheard::default() })
            .collect();
        // What strangers tell each other.
        let hearsay = Hearsay::default();
        let mut machines = Vec::new();
        for (node, member) in cast.all() {
            let host = simulation.host(&member.name, Address(format!("{}:7000", member.name)), member.peer);
            let heard = overheard.get(member.home).cloned().unwrap_or_default();
            ear.enrol(Subject {
                node,
                name: member.name.clone(),
                peer: member.peer,
                role: role(member.role),
                liar: false,
            });
            machines.push(Machine {
                host,
                build: build_of(cast.deployment(node)),
                drifted: false,
                handle: None,
                process: None,
                exit: None,
                refused: BTreeSet::new(),
                told_to_stop: false,
                liar: Liar::new(heard, hearsay.clone()),
            });
        }
        Self {
            simulation,
            ear,
            cast,
            machines,
            planted: Planted::default(),
            verdicts: Verdicts::default(),
            paths: Paths::default(),
            last_request: 0,
            starts: 0,
            crashes: 0,
        }
    }

    /// Breaks something on purpose, where the scenario says.
    fn plant(&mut self, scenario: &Scenario, defect: Defect, marker: &str) {
        if matches!(defect, Defect::Tampered(_)) {
            // A word in the chain would change it by itself.
            return;
        }
        self.simulation.note(marker);
        let Defect::Without(check) = defect else { return };
        let name = Defect::name(marker);
        let canary = scenario.canary.as_ref().map(|canary| (canary.defect, &canary.nodes));
        let control = scenario.control.as_ref().map(|control| (control.guard, &control.nodes));
        let here = [canary, control].into_iter().flatten().find(|(guard, _)| guard.name() == name);
        let nodes = here.and_then(|(_, nodes)| nodes.as_ref()).map(|nodes| {
            let meant = nodes.0.iter().flat_map(|reference| match reference.which {
                Which::Number(_) => self.cast.find(reference).into_iter().collect::<Vec<_>>(),
                _ => self.cast.of_role(self.cast.home(reference), reference.role).collect(),
            });
            meant.map(|node| self.index(node)).collect()
        });
        self.planted = Planted { check: Some(check), nodes };
    }

    fn get(&self, node: NodeId) -> &Machine {
        self.machines.get(node).expect("machines are never taken away")
    }

    fn get_mut(&mut self, node: NodeId) -> &mut Machine {
        self.machines.get_mut(node).expect("machines are never taken away")
    }

    /// The place on the network.
    fn index(&self, node: NodeId) -> NodeIndex {
        self.get(node).host.index()
    }

    /// Where a node listens.
    fn address(&self, node: NodeId) -> String {
        self.get(node).host.address().to_string()
    }

    /// Which rules a node enforces.
    fn checks(&self, node: NodeId) -> Defects {
        let machine = self.get(node);
        let planted = self.planted.on(machine.host.index()).with_switch(machine.liar.switch());
        let planted = planted.announcing(machine.liar.announced());
        let ear = self.ear.clone();
        let planted = planted.watched_by(Onlooker::new(move |mixed| ear.mixed(node, now(), mixed)));
        // A record that no other server makes of the same log: the plainest way to apply differently.
        if machine.drifted { planted.without(Check::ChainRecords) } else { planted }
    }

    fn cut_off(&mut self, node: NodeId, disk: Crash) {
        let now = self.simulation.now();
        let machine = self.get_mut(node);
        machine.host.resume();
        machine.host.kill(disk);
        machine.handle = None;
        machine.process = None;
        machine.exit = None;
        self.ear.killed(node, now);
    }

    /// What a node knows. None if it does not answer.
    async fn view(&self, node: NodeId, patience: Duration) -> Option<View> {
        let handle = self.get(node).handle.clone()?;
        SimRuntime::timeout(patience, handle.view()).await.ok()?
    }
}

impl Site for Machines {
    const LOOK: Duration = Duration::from_millis(100);

    fn cast(&self) -> &Cast {
        &self.cast
    }

    fn cast_mut(&mut self) -> &mut Cast {
        &mut self.cast
    }

    fn now(&self) -> Time {
        self.simulation.now()
    }

    async fn sleep(&mut self, wait: Duration) {
        let broken = std::pin::pin!(self.ear.broken());
        let sleep = std::pin::pin!(SimRuntime::sleep(wait));
        let _first = select(broken, sleep).await;
    }

    fn hear(&mut self) -> Result<Vec<Heard>, Stop> {
        let told = self.ear.take().map_err(Stop::Breach)?.into_iter();
        let mut heard: Vec<_> =
            told.map(|(node, at, fact)| Heard::Told { node, at, told: Told::Fact(fact) }).collect();
        let now = self.simulation.now();
        for (node, machine) in self.machines.iter_mut().enumerate() {
            let Some(Exit { code, reason }) = machine.process.as_ref().and_then(Process::take) else {
                continue;
            };
            machine.process = None;
            machine.handle = None;
            machine.exit = Some(Ended { code: Some(code), how: format!("code {code}: {reason}") });
            self.ear.exited(node, now, code);
            heard.push(Heard::Ended { node, asked: machine.told_to_stop });
        }
        Ok(heard)
    }

    fn conclude(&mut self) -> Result<(), Stop> {
        Ok(())
    }

    fn is_awaited(&mut self) -> bool {
        false
    }

    fn events(&self) -> u64 {
        self.simulation.recorder().events()
    }

    fn note(&self, text: &str) {
        self.simulation.note(text);
    }

    /// It was planted before the run began.
    fn plant(&mut self, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.get(node).process.is_some()
    }

    fn exit(&self, node: NodeId) -> Option<&Ended> {
        self.get(node).exit.as_ref()
    }

    fn start(&mut self, node: NodeId, hint: &Hint) -> Result<Started, Refusal> {
        let mut env = self.cast.variables(node, hint, &|node| self.address(node));
        env.insert("ZIPNET_LISTEN".to_owned(), self.address(node));
        let checks = Remembering::new(self.checks(node), self.verdicts.clone());
        let now = self.simulation.now();
        self.starts += 1;
        self.cast.begins(node, &env);
        let (peer, role) = (self.cast.peer(node), role(self.cast.get(node).role));
        let machine = self.machines.get_mut(node).expect("machines are never taken away");
        machine.host.set_peer(peer);
        machine.liar.is_called(env.get("ZIPNET_SECRET").map_or("", String::as_str));
        machine.exit = None;
        machine.told_to_stop = false;
        let build = machine.build;
        let configured = Config::from_env(role, &env, build);
        let group = configured.as_ref().ok().and_then(|(config, _)| group_of(config));
        if let (Ok((config, _)), Some(group)) = (&configured, group) {
            let instance = config.instance.id();
            machine.liar.serves(&committee::Config { instance, group, params: build.params });
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
        let liar = machine.liar.is_lying() || machine.drifted;
        self.ear.lies(node, liar);
        self.ear.started(node, now, peer, Start { instance, build: info, floor, group });
        let (handle, controls) = node::control();
        if !machine.refused.is_empty() {
            handle.refuse(machine.refused.clone());
        }
        machine.handle = Some(handle);
        let tap = (role != zipnet_core::id::Role::Client || liar).then(|| machine.liar.tap());
        machine.host.set_tap(tap);
        machine.process = Some(machine.host.start(async move |world| match configured {
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
        Ok(Started { group, liar })
    }

    fn terminate(&mut self, node: NodeId) {
        let machine = self.get_mut(node);
        machine.told_to_stop = true;
        if let Some(handle) = &machine.handle {
            handle.stop();
        }
    }

    fn kill(&mut self, node: NodeId) -> Result<(), Stop> {
        self.cut_off(node, Crash::KeepAll);
        Ok(())
    }

    fn arm(&mut self, node: NodeId, operations: u64) -> bool {
        self.get(node).host.platter().arm(operations);
        true
    }

    fn disarm(&mut self, node: NodeId) {
        self.get(node).host.platter().disarm();
    }

    fn is_frozen(&self, node: NodeId) -> bool {
        self.get(node).host.is_frozen()
    }

    fn crash(&mut self, node: NodeId, disk: DiskFate) -> Result<(), Stop> {
        self.crashes += 1;
        self.cut_off(
            node,
            match disk {
                DiskFate::Torn => Crash::Torn,
                DiskFate::Prefix => Crash::Prefix,
                DiskFate::LoseAll => Crash::LoseAll,
                DiskFate::KeepAll => Crash::KeepAll,
            },
        );
        Ok(())
    }

    fn pause(&mut self, node: NodeId) {
        self.get_mut(node).host.pause();
    }

    fn resume(&mut self, node: NodeId) {
        self.get_mut(node).host.resume();
    }

    fn set_clock(&mut self, node: NodeId, seconds: i64) -> bool {
        self.get(node).host.clock().jump(seconds);
        true
    }

    fn empty_disk(&mut self, node: NodeId) -> Result<(), Stop> {
        let machine = self.get_mut(node);
        machine.refused.clear();
        machine.host.platter().replace();
        self.ear.disk_lost(node, self.simulation.now());
        Ok(())
    }

    fn install(&mut self, node: NodeId, upgrade: &Upgrade) -> Result<(), Refusal> {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let number = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let mut build = build_of(self.cast.deployment(node));
        if let Some(version) = upgrade.wire_version {
            build.wire_version = u8::try_from(version).unwrap_or(u8::MAX);
        }
        build.machine_version = upgrade.machine_version.map_or(build.machine_version, small);
        let own = build.params;
        let slots = upgrade.num_slots.map_or(own.num_slots(), small);
        let bytes = upgrade.slot_bytes.map_or(number(own.slot_bytes()), small);
        build.params = RoundParams::new(slots, bytes, number(own.tag_len()))
            .map_err(|_| Refusal("the binary would have impossible rounds".to_owned()))?;
        let machine = self.get_mut(node);
        machine.build = build;
        machine.drifted = upgrade.apply == Apply::Drifted;
        Ok(())
    }

    /// A key is copied from the first honest node of its role that is not itself.
    fn deviate(&mut self, node: NodeId, deviation: Deviation) -> Result<bool, Refusal> {
        let member = self.cast.get(node);
        let mut others = self.cast.of_role(member.home, member.role).filter(|other| *other != node);
        let other = others.find(|other| !self.get(*other).liar.is_lying());
        self.get(node).liar.deviate(deviation, other.map(|other| &self.get(other).liar));
        let lies = deviation != Deviation::Honest;
        self.ear.lies(node, lies);
        Ok(lies)
    }

    fn waive(&mut self, property: &str) {
        self.ear.waive(property);
    }

    fn wire(&mut self, paths: Paths) {
        self.rewire(paths);
    }

    fn keep_history(&mut self, node: NodeId) {
        self.get(node).host.platter().keep_history();
    }

    fn payload_bytes(&self, node: NodeId) -> usize {
        self.get(node).build.params.payload_bytes()
    }

    fn publish(&mut self, node: NodeId, payload: Vec<u8>) -> Result<RequestId, String> {
        let request = RequestId(self.last_request + 1);
        let Some(handle) = &self.get(node).handle else {
            return Err("take a message, because it is down".to_owned());
        };
        handle.publish(request, payload);
        self.last_request = request.0;
        Ok(request)
    }

    /// Whom a server refuses is remembered as its file would, also while it is down.
    fn order(&mut self, server: NodeId, order: &Order) -> Result<(), String> {
        let machine = self.get_mut(server);
        match *order {
            Order::Approve(aggregator) => {
                let handle = machine.handle.as_ref().ok_or("it is down")?;
                handle.approve(aggregator);
            }
            Order::Refuse { client, withdraw } => {
                if withdraw {
                    machine.refused.remove(&client);
                } else {
                    machine.refused.insert(client);
                }
                if let Some(handle) = &machine.handle {
                    handle.refuse(machine.refused.clone());
                }
            }
        }
        Ok(())
    }

    /// What the operator's tool does: ask a server how things stand, judge, and give the order.
    async fn retire(&mut self, server: NodeId, asked: Option<NodeId>, dead: bool) -> Later<Retired> {
        let Some(asked) = asked else {
            return Later::Now(Retired::NotAsked("no other server is up to be asked".to_owned()));
        };
        let Some(view) = self.view(asked, TOOL_WAIT).await else {
            return Later::Now(Retired::NotAsked(format!("{} does not answer", self.cast.name(asked))));
        };
        // The tool asks each server itself: a link to one that is gone lasts until its idle timeout.
        let answers = |peer: &PeerId| self.cast.node_of(peer).is_some_and(|node| self.is_up(node));
        let alive = view.linked.iter().copied().chain([view.me]).filter(answers).collect();
        let peer = self.cast.peer(server);
        let removal = Removal { alive, ..view.removal(peer, dead) };
        if let Err(refusal) = may_retire(&removal, &self.checks(asked)) {
            let reason = Some(refusal.why.name().to_owned());
            return Later::Now(Retired::Refused { reason, text: refusal.to_string() });
        }
        let handle = &self.get(if dead { asked } else { server }).handle;
        match handle {
            Some(handle) if dead => handle.retire_dead(peer),
            Some(handle) => handle.retire(),
            None => {}
        }
        Later::Now(Retired::Agreed)
    }

    async fn status(&self, node: NodeId) -> Option<Status> {
        self.view(node, VIEW_WAIT).await.as_ref().map(Status::of)
    }

    async fn readiness(&self, node: NodeId) -> Result<(bool, String), String> {
        let status = self.status(node).await.ok_or("does not answer")?;
        let why: Vec<_> = status.causes.iter().map(ToString::to_string).collect();
        Ok((status.ready, why.join("; ")))
    }

    async fn plan(&self, node: NodeId, step: words::Plan, server: PeerId) -> Result<Foreseen, String> {
        let step = match step {
            words::Plan::Stop => Step::Stop(server),
            words::Plan::Remove => Step::Remove(server),
            words::Plan::Add => Step::Add,
        };
        let view = self.view(node, VIEW_WAIT).await.ok_or("does not answer")?;
        let plan = Plan::of(&view, step);
        let rounds = serde_json::to_value(plan.rounds).ok().and_then(|said| said.as_str().map(str::to_owned));
        let consequences = plan.consequences.iter().map(ToString::to_string).collect();
        Ok(Foreseen { rounds: rounds.unwrap_or_default(), consequences })
    }

    async fn group(&self, node: NodeId) -> Option<String> {
        self.ear.group(node).map(|group| group.to_string())
    }

    fn metric(&self, node: NodeId, name: &str) -> Option<u64> {
        let now = self.simulation.now();
        self.ear.metrics(node, |metrics| {
            if name == Metric::RoundStalled.name() {
                u64::try_from(metrics.stalled(now).as_millis()).unwrap_or(u64::MAX)
            } else {
                metrics.total(name).saturating_mul(1_000)
            }
        })
    }

    fn left_on_disk(&self, node: NodeId) -> Result<Option<String>, String> {
        let left = self.get(node).host.platter().names();
        Ok(Some(left.join(", ")).filter(|_| !left.is_empty()))
    }

    fn break_in(&self, node: NodeId) -> Later<Judged> {
        let host = &self.get(node).host;
        let found = burglar::break_in(host, &self.ear.announced(host.peer()));
        Later::Now(match found {
            Ok(()) => Judged::Holds,
            Err(how) => Judged::Fails { node: Some(node), how: format!("{} {how}", self.cast.name(node)) },
        })
    }

    fn writes_were_lost(&self) -> bool {
        self.machines.iter().any(|machine| machine.host.platter().counts().lost > 0)
    }

    fn left_out(&self) -> Vec<String> {
        Vec::new()
    }

    fn cannot_tell(&self, always: &Always) -> Option<&'static str> {
        self.ear.cannot_tell(always.verb())
    }

    fn more(&self) -> Option<String> {
        None
    }

    fn outcome(&self) -> Outcome {
        let recorder = self.simulation.recorder();
        recorder.seal();
        let network = self.simulation.network().counts();
        let disks = self.machines.iter().map(|machine| machine.host.platter().counts());
        let hex = |chain: [u8; 32]| blake3::Hash::from_bytes(chain).to_hex().to_string();
        Outcome {
            counts: Counts {
                syncs: disks.map(|disk| disk.syncs).sum(),
                messages: network.delivered,
                drops: network.dropped,
                duplicates: network.duplicated,
                crashes: self.crashes,
                starts: self.starts,
                ..Counts::default()
            },
            live: false,
            chain: hex(recorder.chain()),
            events: recorder.events(),
            checkpoints: recorder
                .checkpoints()
                .into_iter()
                .map(|checkpoint| Checkpoint {
                    events: checkpoint.events,
                    at_ns: checkpoint.time.0,
                    chain: hex(checkpoint.chain),
                })
                .collect(),
            crowds: self.ear.crowds().into_iter().collect(),
        }
    }
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
