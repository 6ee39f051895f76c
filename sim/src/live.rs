//! Carries out a scenario on real processes: real binaries on loopback in the place of a simulation.
//!
//! What is known of them is what an operator knows: their logs, what they answer when they are asked, and how they end.
//! Time is real, so a run is repeated by its draws and not by its events. What only a simulation controls is left out and
//! said; a step that needs it ends the run.
//!
//! - `build`: the binaries
//! - `process`, `tail`, `admin`, `line`: one process, its log, and what it answers
//! - `relay`: the network between all machines
//! - `reader`: whoever reads the broadcasts
//! - `broadcast`, `discretion`, `loot`: what must hold beside the properties

use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zipnet_core::id::PeerId;
use zipnet_core::machine::{Outcome as Fate, RequestId};
use zipnet_core::time::Time;
use zipnet_facts::Fact;
use zipnet_node::config::Config;
use zipnet_node::status::Status;
use zipnet_reports::properties::{Seen, Start, Subject, Watch};
use zipnet_reports::{Counts, RunResult, Verdict};
use zipnet_scenarios::Scenario;
use zipnet_scenarios::node::Role;
use zipnet_scenarios::verbs::{Always, FaultDo};
use zipnet_scenarios::words::{self, Apply, Deviation, DiskFate, Word as _};

use crate::cast::{self, Cast, Hint, NodeId, group_of, instance_of};
use crate::engine;
use crate::random::Random;
use crate::site::{
    Breach, Ended, Foreseen, Heard, Judged, Later, Order, Outcome, Refusal, Retired, Site, Started, Stop,
    Told, Upgrade, named,
};
use crate::stopwatch::{Stopwatch, sleep};
use crate::wires::{self, Paths};

mod admin;
mod broadcast;
mod build;
mod discretion;
mod line;
mod loot;
pub(crate) mod process;
mod reader;
mod relay;
mod tail;

pub(crate) use build::{BUILD, Binaries};

use admin::Answer;
use broadcast::Broadcasts;
use build::Build;
use discretion::Discretion;
use line::Line;
use loot::Loot;
use process::Process;
use reader::Reader;
use relay::Relay;
use tail::Tail;

/// How long a node may take to say how it stands.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a server may think about a retirement: it waits until links with dead ones break.
const RETIRE_PATIENCE: Duration = Duration::from_secs(20);

/// What no log may hold: secrets and payloads among the variables.
const CONFIDENTIAL: [&str; 3] = ["ZIPNET_SECRET", "ZIPNET_COMMITTEE_SECRET", "ZIPNET_MESSAGE"];

/// A request to end, from outside.
#[derive(Debug, Default)]
pub(crate) struct Interrupt(AtomicBool);

impl Interrupt {
    /// Asks for the end.
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs a scenario with a seed. None if it was interrupted.
///
/// What nodes print goes into `logs`; without it into a folder that is kept only if the run does not hold. The result
/// lacks what only the caller knows: the name of the file, the command that shows the run again, and measured times.
///
/// # Errors
/// If this machine cannot run it.
pub(crate) fn run(
    scenario: &Scenario,
    seed: u64,
    binaries: &Binaries,
    logs: Option<&Path>,
    interrupt: &Interrupt,
) -> Result<Option<RunResult>, String> {
    let resolved = engine::resolve(scenario, seed);
    let home = std::env::temp_dir().join(format!("zipnet-live-{}", std::process::id()));
    let own_logs = home.join("logs");
    let (state, kept) = (home.join("state"), logs.unwrap_or(&own_logs));
    // Lines of an earlier run with this folder are not lines of this one.
    drop(fs::remove_dir_all(kept));
    for folder in [&state, kept] {
        fs::create_dir_all(folder).map_err(|reason| format!("make {}: {reason}", folder.display()))?;
    }
    let origin = Random::new(seed);
    let machines = Machines::new(resolved.scenario(), &origin, binaries, &state, kept, interrupt)
        .map_err(|reason| format!("make a network on loopback: {reason}"))?;
    let result = at_once(engine::carry_out(resolved.scenario(), machines, &origin.fork("engine")));
    let held = matches!(&result, Ok(Some(result)) if result.verdict == Verdict::Held);
    let over = matches!(&result, Ok(None));
    // What is left behind is in nobody's way.
    drop(fs::remove_dir_all(if held || over || logs.is_some() { &home } else { &state }));
    result.map(|result| result.map(|result| RunResult { seed, ..result }))
}

/// Carries out what never pends: here everything waits by sleeping.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("whoever waits for processes sleeps"),
    }
}

/// A machine and what is installed on it.
#[derive(Debug)]
struct Machine {
    /// The build that is installed.
    build: Build,
    /// Its state folder.
    state: PathBuf,
    stdout: PathBuf,
    log: Tail,
    process: Option<Process>,
    /// Which of all processes its latest one is.
    number: u64,
    /// How the latest process ended, if it ended by itself.
    exit: Option<Ended>,
    /// An orderly stop was asked for.
    told_to_stop: bool,
    subject: Subject,
    /// What was on its disk, if a check wants to search it.
    loot: Option<Loot>,
}

/// All machines.
#[derive(Debug)]
struct Machines<'a> {
    interrupt: &'a Interrupt,
    watch: Stopwatch,
    cast: Cast,
    machines: Vec<Machine>,
    binaries: Binaries,
    logs: PathBuf,
    /// What passes between them.
    relay: Relay,
    /// By deployment.
    readers: Vec<Reader>,
    properties: Watch,
    broadcasts: Broadcasts,
    discretion: Discretion,
    /// What was heard and not yet handed on.
    heard: Vec<Heard>,
    /// Lines that were printed.
    lines: u64,
    left_out: Vec<String>,
    /// Processes started.
    starts: u64,
    /// Processes killed in the place of a power failure.
    crashes: u64,
}

impl<'a> Machines<'a> {
    /// Every node of a scenario, none of them running. State goes below `state`, what they print into `logs`.
    ///
    /// # Errors
    /// If their network cannot be had.
    fn new(
        scenario: &Scenario,
        random: &Random,
        binaries: &Binaries,
        state: &Path,
        logs: &Path,
        interrupt: &'a Interrupt,
    ) -> io::Result<Self> {
        let cast = Cast::new(scenario, random.fork("secrets"));
        // Whoever reads is on the network behind all nodes.
        let relay = Relay::start(cast.len() + scenario.deployments.len(), wires::model(scenario), random)?;
        let mut readers = Vec::new();
        for (home, deployment) in scenario.deployments.iter().enumerate() {
            let name = if home == 0 { "reader".to_owned() } else { format!("{}-reader", deployment.name) };
            // A deployment whose build is missing does not run at all.
            let folder = binaries.of(binaries.with(&deployment.params)).unwrap_or_else(|| binaries.folder());
            let (instance, listens) = (instance_of(deployment), relay.listens(cast.len() + home));
            readers.push(Reader::new(&name, &instance, folder, listens, state, logs));
        }
        let machine = |(node, member): (NodeId, &cast::Member)| Machine {
            build: binaries.with(&cast.deployment(node).params),
            state: state.join(&member.name),
            stdout: logs.join(format!("{}.out", member.name)),
            log: Tail::new(logs.join(format!("{}.log", member.name))),
            process: None,
            number: 0,
            exit: None,
            told_to_stop: false,
            subject: Subject {
                node,
                name: member.name.clone(),
                peer: member.peer,
                role: cast::role(member.role),
                liar: false,
            },
            loot: None,
        };
        let clocks = scenario.faults.iter().filter(|fault| matches!(fault.act, FaultDo::Clock { .. }));
        Ok(Self {
            interrupt,
            watch: Stopwatch::start(),
            machines: cast.all().map(machine).collect(),
            cast,
            binaries: binaries.clone(),
            logs: logs.to_owned(),
            relay,
            readers,
            properties: Watch::new(named(scenario)),
            broadcasts: Broadcasts::default(),
            discretion: Discretion::default(),
            heard: Vec::new(),
            lines: 0,
            left_out: clocks.map(|fault| format!("the fault {} ({})", fault.id, fault.act.verb())).collect(),
            starts: 0,
            crashes: 0,
        })
    }

    fn get(&self, node: NodeId) -> &Machine {
        self.machines.get(node).expect("machines are never taken away")
    }

    fn get_mut(&mut self, node: NodeId) -> &mut Machine {
        self.machines.get_mut(node).expect("machines are never taken away")
    }

    fn elapsed(&self) -> Time {
        Time::default().after(self.watch.elapsed())
    }

    /// Something is left out because only a simulation controls it.
    fn leave_out(&mut self, what: String) {
        if !self.left_out.contains(&what) {
            self.left_out.push(what);
        }
    }

    /// What is needed next is controlled by a simulation only.
    fn uncontrolled(&mut self, what: String) -> Refusal {
        let refusal = Refusal(format!("{what} is not controlled with --live"));
        self.leave_out(what);
        refusal
    }

    /// Where the binaries of the build are that is installed on a node.
    fn binaries_of(&mut self, node: NodeId) -> Result<PathBuf, Refusal> {
        let build = self.get(node).build;
        match self.binaries.of(build) {
            Some(folder) => Ok(folder.to_owned()),
            None => Err(self.uncontrolled(format!("another build of the binaries ({build})"))),
        }
    }

    /// Asks the process on a node, or gives it an order. None if it is down, frozen, or does not answer.
    fn ask(&self, node: NodeId, path: &str, payload: Option<&[u8]>) -> Option<Answer> {
        let machine = self.get(node);
        machine.process.as_ref().filter(|process| !process.paused)?;
        admin::ask(&machine.state, path, payload, PATIENCE).ok()
    }

    /// Takes in what a node has printed. `all` if it prints nothing more.
    fn read(&mut self, node: NodeId, all: bool) -> Result<(), Stop> {
        let now = self.elapsed();
        let home = self.cast.get(node).home;
        let machine = self.machines.get_mut(node).expect("machines are never taken away");
        let lines = machine.log.lines(all).map_err(|reason| broken("read a node's log", &reason))?;
        for text in lines {
            self.lines += 1;
            if let Some(what) = self.discretion.breach(&text) {
                let node = machine.subject.name.clone();
                return Err(Stop::Breach(Breach {
                    property: discretion::PROPERTY,
                    sentence: discretion::SENTENCE,
                    detail: format!("{node} printed {what} into its log"),
                    node,
                    place: None,
                }));
            }
            let told = match Line::parse(&text) {
                Some(line) => Told::Line { event: Some(line.event), text: line.message, fact: line.fact },
                None => Told::Line { event: None, text, fact: None },
            };
            if let Some(fact) = told.fact() {
                match fact {
                    Fact::Published { request, outcome: Fate::Landed, round } => {
                        let name = &machine.subject.name;
                        self.broadcasts.told(machine.number, *request, home, name, *round);
                    }
                    Fact::RoundFinalized { end } | Fact::RoundApplied { end } => {
                        self.broadcasts.finished(home, end.log, end.round);
                    }
                    _ => {}
                }
                let seen = self.properties.see(now, &machine.subject, Seen::Fact(fact));
                seen.map_err(|violation| Stop::Breach(Breach::of(violation, &machine.subject.name)))?;
            }
            self.heard.push(Heard::Told { node, at: now, told });
        }
        Ok(())
    }

    /// Shows something that is done to a node, or that it does, to the properties.
    fn show(&mut self, node: NodeId, seen: Seen<'_>) -> Result<(), Stop> {
        let (now, machine) = (self.elapsed(), self.machines.get(node));
        let subject = &machine.expect("machines are never taken away").subject;
        self.properties
            .see(now, subject, seen)
            .map_err(|violation| Stop::Breach(Breach::of(violation, &subject.name)))
    }

    /// Takes in what the readers have printed.
    fn read_broadcasts(&mut self) -> Result<(), Stop> {
        let now = self.elapsed();
        for home in 0..self.readers.len() {
            let serving = [Role::Server, Role::Aggregator].into_iter();
            let mut nodes: Vec<_> = serving.flat_map(|role| self.cast.of_role(home, role)).collect();
            nodes.retain(|node| self.get(*node).process.is_some());
            let peers = self.cast.printed(&nodes, &|node| self.relay.advertises(node).to_string());
            let Some(reader) = self.readers.get_mut(home) else { continue };
            let lines = reader.look(now, &peers).map_err(|reason| broken("run a reader", &reason))?;
            for line in lines {
                self.broadcasts.read(home, &line).map_err(Stop::Breach)?;
            }
        }
        Ok(())
    }

    /// Takes what is on the disk of a node that has ended, if a check wants to search it.
    fn rob(&mut self, node: NodeId) -> Result<(), Stop> {
        let peer = self.cast.peer(node);
        let machine = self.get_mut(node);
        let taken = machine.loot.as_mut().map(|loot| loot.take(&machine.state, peer));
        taken.transpose().map(drop).map_err(|reason| broken("read a state folder", &reason))
    }

    /// Whether no other deployment has the name of this one's instance.
    fn is_unique(&self, home: usize) -> bool {
        let all = self.cast.deployments();
        let own = all.get(home).map(instance_of);
        all.iter().filter(|other| Some(instance_of(other)) == own).count() == 1
    }
}

impl Site for Machines<'_> {
    const LOOK: Duration = Duration::from_millis(50);

    fn cast(&self) -> &Cast {
        &self.cast
    }

    fn cast_mut(&mut self) -> &mut Cast {
        &mut self.cast
    }

    fn now(&self) -> Time {
        self.elapsed()
    }

    async fn sleep(&mut self, wait: Duration) {
        sleep(wait);
    }

    fn hear(&mut self) -> Result<Vec<Heard>, Stop> {
        if self.interrupt.is_raised() {
            return Err(Stop::Interrupted);
        }
        let mut over = BTreeMap::new();
        for (node, machine) in self.machines.iter_mut().enumerate() {
            let Some(process) = &mut machine.process else { continue };
            let Some(how) = process.ended().map_err(|reason| broken("wait for a node", &reason))? else {
                continue;
            };
            machine.process = None;
            machine.exit = Some(Ended { code: how.code(), how: how.to_string() });
            over.insert(node, how);
        }
        for node in 0..self.machines.len() {
            self.read(node, over.contains_key(&node))?;
        }
        self.read_broadcasts()?;
        for (node, how) in over {
            self.show(node, how.code().map_or(Seen::Killed, |code| Seen::Exited { code }))?;
            self.rob(node)?;
            self.heard.push(Heard::Ended { node, asked: self.get(node).told_to_stop });
        }
        Ok(core::mem::take(&mut self.heard))
    }

    fn conclude(&mut self) -> Result<(), Stop> {
        for home in 0..self.cast.deployments().len() {
            if self.is_unique(home) {
                self.broadcasts.judge(home).map_err(Stop::Breach)?;
            }
        }
        Ok(())
    }

    fn is_awaited(&mut self) -> bool {
        self.broadcasts.is_awaited()
    }

    fn events(&self) -> u64 {
        self.lines
    }

    fn note(&self, _: &str) {}

    fn plant(&mut self, defect: &str) -> Result<(), Refusal> {
        Err(self.uncontrolled(format!("the defect {defect}")))
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.get(node).process.is_some()
    }

    fn exit(&self, node: NodeId) -> Option<&Ended> {
        self.get(node).exit.as_ref()
    }

    fn start(&mut self, node: NodeId, hint: &Hint) -> Result<Started, Refusal> {
        let folder = self.binaries_of(node)?;
        let role = self.cast.get(node).role;
        let mut env = self.cast.variables(node, hint, &|node| self.relay.advertises(node).to_string());
        env.insert("ZIPNET_LISTEN".to_owned(), self.relay.listens(node).to_string());
        env.insert("ZIPNET_ADVERTISE".to_owned(), self.relay.advertises(node).to_string());
        env.insert("ZIPNET_STATE_DIR".to_owned(), self.get(node).state.display().to_string());
        env.insert("ZIPNET_FORMAT".to_owned(), "json".to_owned());
        // What is judged by stands in lines of this level.
        env.insert("RUST_LOG".to_owned(), "trace".to_owned());
        env.retain(|_, value| !value.is_empty());
        if let Some(message) = env.get("ZIPNET_MESSAGE") {
            self.broadcasts.give(message.as_bytes());
        }
        for secret in CONFIDENTIAL.into_iter().filter_map(|name| env.get(name)) {
            self.discretion.keep_secret(secret);
        }
        self.cast.begins(node, &env);
        self.starts += 1;
        let (peer, number) = (self.cast.peer(node), self.starts);
        // What is wrong with the variables the process says itself.
        let config = self
            .get(node)
            .build
            .node()
            .and_then(|build| Config::from_env(cast::role(role), &env, build).ok());
        let group = config.and_then(|(config, _)| group_of(&config));
        let machine = self.get_mut(node);
        machine.exit = None;
        machine.told_to_stop = false;
        machine.number = number;
        machine.subject.peer = peer;
        let binary = folder.join(build::binary(role));
        let process = fs::create_dir_all(&machine.state)
            .and_then(|()| Process::start(&binary, &[], &env, &machine.stdout, machine.log.path()));
        machine.process = Some(
            process.map_err(|reason| Refusal(format!("failed to start {}: {reason}", binary.display())))?,
        );
        // What begins breaks nothing.
        drop(self.show(node, Seen::Started(Start { group })));
        Ok(Started { group, liar: false })
    }

    fn terminate(&mut self, node: NodeId) {
        let machine = self.get_mut(node);
        machine.told_to_stop = true;
        if let Some(process) = &mut machine.process {
            process.terminate();
        }
    }

    fn kill(&mut self, node: NodeId) -> Result<(), Stop> {
        let machine = self.get_mut(node);
        machine.process = None;
        machine.exit = None;
        self.read(node, true)?;
        // Lines that it has not written any more.
        self.show(node, Seen::Fact(&Fact::LinesLost { count: 0 }))?;
        self.show(node, Seen::Killed)?;
        self.rob(node)
    }

    fn arm(&mut self, _: NodeId, _: u64) -> bool {
        false
    }

    fn disarm(&mut self, _: NodeId) {}

    fn is_frozen(&self, _: NodeId) -> bool {
        false
    }

    /// A killed process is all that there is of a power failure.
    fn crash(&mut self, node: NodeId, disk: DiskFate) -> Result<(), Stop> {
        if disk != DiskFate::KeepAll {
            self.leave_out("what a power failure leaves of a disk".to_owned());
        }
        self.crashes += 1;
        self.kill(node)
    }

    fn pause(&mut self, node: NodeId) {
        if let Some(process) = &mut self.get_mut(node).process {
            process.pause();
        }
    }

    fn resume(&mut self, node: NodeId) {
        if let Some(process) = &mut self.get_mut(node).process {
            process.resume();
        }
    }

    fn set_clock(&mut self, _: NodeId, _: i64) -> bool {
        false
    }

    fn empty_disk(&mut self, node: NodeId) -> Result<(), Stop> {
        match fs::remove_dir_all(&self.get(node).state) {
            Err(reason) if reason.kind() != io::ErrorKind::NotFound => {
                return Err(broken("wipe a state folder", &reason));
            }
            Ok(()) | Err(_) => {}
        }
        self.show(node, Seen::DiskLost)
    }

    fn install(&mut self, node: NodeId, upgrade: &Upgrade) -> Result<(), Refusal> {
        if upgrade.apply == Apply::Drifted {
            let what = "a build that changes the state in another way than it says";
            return Err(self.uncontrolled(what.to_owned()));
        }
        let mut build = self.binaries.with(&self.cast.deployment(node).params);
        build.wire_version = upgrade.wire_version.unwrap_or(build.wire_version);
        build.machine_version = upgrade.machine_version.unwrap_or(build.machine_version);
        build.params.num_slots = upgrade.num_slots.unwrap_or(build.params.num_slots);
        build.params.slot_bytes = upgrade.slot_bytes.unwrap_or(build.params.slot_bytes);
        self.get_mut(node).build = build;
        self.binaries_of(node).map(drop)
    }

    fn deviate(&mut self, _: NodeId, _: Deviation) -> Result<bool, Refusal> {
        Err(self.uncontrolled("a node that lies".to_owned()))
    }

    fn waive(&mut self, property: &str) {
        self.properties.waive(property);
    }

    fn wire(&mut self, paths: Paths) {
        self.relay.set(paths);
    }

    fn keep_history(&mut self, node: NodeId) {
        self.get_mut(node).loot.get_or_insert_default();
    }

    fn payload_bytes(&self, node: NodeId) -> usize {
        usize::try_from(self.cast.deployment(node).params.payload_len()).unwrap_or(usize::MAX)
    }

    fn publish(&mut self, node: NodeId, payload: Vec<u8>) -> Result<RequestId, String> {
        self.discretion.keep_private(&payload);
        self.broadcasts.give(&payload);
        match self.ask(node, "/publish", Some(&payload)) {
            Some(Answer { status: 202, body }) => {
                let accepted: Accepted = serde_json::from_str(&body)
                    .map_err(|reason| format!("say what it took: {reason}: {}", body.trim()))?;
                let request = RequestId(accepted.request);
                self.broadcasts.requested(self.get(node).number, request, &payload);
                Ok(request)
            }
            Some(Answer { status, body }) => Err(format!("take the message: {status} {}", body.trim())),
            None => Err("answer".to_owned()),
        }
    }

    fn order(&mut self, server: NodeId, order: &Order) -> Result<(), String> {
        let path = match order {
            Order::Approve(aggregator) => format!("/approve/{aggregator}"),
            Order::Refuse { client, withdraw: false } => format!("/refuse/{client}"),
            Order::Refuse { client, withdraw: true } => format!("/unrefuse/{client}"),
        };
        match self.ask(server, &path, Some(&[])) {
            Some(Answer { status: 200, .. }) => Ok(()),
            Some(Answer { status, body }) => Err(format!("{status} {}", body.trim())),
            None => Err("it does not answer".to_owned()),
        }
    }

    /// As an operator does: at the server itself, or for a dead one at another.
    async fn retire(&mut self, server: NodeId, asked: Option<NodeId>, dead: bool) -> Later<Retired> {
        let asked = if dead { asked } else { Some(server) };
        let Some(asked) = asked else {
            return Later::Now(Retired::NotAsked("no other server is up to be asked".to_owned()));
        };
        let path = if dead { format!("/retire/{}", self.cast.peer(server)) } else { "/retire".to_owned() };
        let (name, state) = (self.cast.name(asked).to_owned(), self.get(asked).state.clone());
        beside(
            move || admin::ask(&state, &path, Some(&[]), RETIRE_PATIENCE),
            move |answer| {
                let Some(Ok(Answer { status, body })) = answer else {
                    return Retired::NotAsked(format!("{name} does not answer"));
                };
                let refusal = match status {
                    200 => return Retired::Agreed,
                    409 => serde_json::from_str::<Refused>(&body).ok(),
                    _ => None,
                };
                refusal.map_or_else(
                    || Retired::Refused {
                        reason: None,
                        text: format!("it answers {status}: {}", body.trim()),
                    },
                    |refusal| Retired::Refused { reason: refusal.reason, text: refusal.refused },
                )
            },
        )
    }

    async fn status(&self, node: NodeId) -> Option<Status> {
        let answer = self.ask(node, "/status", None).filter(|answer| answer.status == 200)?;
        serde_json::from_str(&answer.body).ok()
    }

    /// As probes ask for it.
    async fn readiness(&self, node: NodeId) -> Result<(bool, String), String> {
        let answer = self.ask(node, "/readyz?verbose", None).ok_or("does not answer")?;
        let why = answer.body.trim().replace('\n', "; ");
        match answer.status {
            200 => Ok((true, why)),
            503 => Ok((false, why)),
            other => Err(format!("answers {other} when it is asked whether it is ready")),
        }
    }

    async fn plan(&self, node: NodeId, step: words::Plan, server: PeerId) -> Result<Foreseen, String> {
        let path = format!("/plan/{}/{server}", step.name());
        let answer = self.ask(node, &path, None).ok_or("does not answer")?;
        serde_json::from_str(&answer.body).map_err(|error| format!("does not say what it foretells: {error}"))
    }

    async fn group(&self, node: NodeId) -> Option<String> {
        if self.cast.get(node).role != Role::Server {
            return None;
        }
        self.status(node).await?.group
    }

    fn metric(&self, node: NodeId, name: &str) -> Option<u64> {
        let answer = self.ask(node, "/metrics", None).filter(|answer| answer.status == 200)?;
        admin::metric(&answer.body, name)
    }

    fn left_on_disk(&self, node: NodeId) -> Result<Option<String>, String> {
        let unreadable = |reason: io::Error| format!("has a state folder that cannot be read: {reason}");
        match self.get(node).state.read_dir() {
            Ok(mut left) => match left.next() {
                None => Ok(None),
                Some(Ok(file)) => Ok(Some(file.path().display().to_string())),
                Some(Err(reason)) => Err(unreadable(reason)),
            },
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(reason) => Err(unreadable(reason)),
        }
    }

    /// What is searched is what was on the disk whenever a process of the node ended.
    fn break_in(&self, node: NodeId) -> Later<Judged> {
        let loot = self.get(node).loot.clone().unwrap_or_default();
        if !loot.has_keys() {
            let why = "no log on its disk told which round keys it announced";
            return Later::Now(Judged::Unseen(why.to_owned()));
        }
        let name = self.cast.name(node).to_owned();
        beside(
            move || loot.search(),
            move |found| match found {
                Some(None) => Judged::Holds,
                Some(Some(key)) => Judged::Fails {
                    node: Some(node),
                    how: format!("{name} had the private half of the round key {key:?} on its disk"),
                },
                None => Judged::Unseen("the search failed".to_owned()),
            },
        )
    }

    fn writes_were_lost(&self) -> bool {
        false
    }

    fn left_out(&self) -> Vec<String> {
        self.left_out.clone()
    }

    fn cannot_tell(&self, always: &Always) -> Option<&'static str> {
        match always {
            Always::Validity {} if self.broadcasts.are_read() => None,
            Always::Validity {} => Some("no broadcast was read"),
            _ => self.properties.cannot_tell(always.verb()),
        }
    }

    fn more(&self) -> Option<String> {
        Some(format!("logs of all nodes: {}", self.logs.display()))
    }

    fn outcome(&self) -> Outcome {
        let carried = self.relay.carried();
        Outcome {
            counts: Counts {
                messages: carried.passed,
                drops: carried.dropped,
                duplicates: carried.repeated,
                crashes: self.crashes,
                starts: self.starts,
                ..Counts::default()
            },
            live: true,
            events: self.lines,
            ..Outcome::default()
        }
    }
}

/// What a client says that takes a message.
#[derive(Deserialize)]
struct Accepted {
    request: u64,
}

/// What a server says that refuses a retirement.
#[derive(Deserialize)]
struct Refused {
    refused: String,
    reason: Option<String>,
}

/// Does something that takes its time beside the run. Whoever reads the answer gets none if it panicked.
fn beside<T: Send + 'static, U>(
    act: impl FnOnce() -> T + Send + 'static,
    read: impl FnOnce(Option<T>) -> U + 'static,
) -> Later<U> {
    #[expect(
        clippy::disallowed_methods,
        reason = "what takes its time with real processes is no part of a simulation"
    )]
    let mut acting = Some((std::thread::spawn(act), read));
    Later::Soon(Box::new(move || {
        let (acting, read) = acting.take_if(|(acting, _)| acting.is_finished())?;
        Some(read(acting.join().ok()))
    }))
}

/// This machine does not do what it must.
fn broken(what: &str, reason: &io::Error) -> Stop {
    Stop::Broken(format!("{what}: {reason}"))
}
