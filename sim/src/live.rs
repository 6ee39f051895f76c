//! Carries out a scenario on real processes: one run, from the seed to the verdict.
//!
//! The same procedures as in [`crate::engine`], with real binaries on loopback in the place of the simulation. What is
//! known of them is what an operator knows: their logs, what they answer when they are asked, and how they end. Time is
//! real, so a run is repeated by its draws and not by its events. What only a simulation controls is left out and said; a
//! step that needs it ends the run.
//!
//! One thread looks at everything, twenty times a second (`Run::look`). Everything that waits, waits by `Run::pass`.
//!
//! - `build`: the binaries
//! - `process`, `tail`, `admin`, `line`: one process, its log, and what it answers
//! - `cluster`, `relay`: all machines, and the network between them
//! - `reader`: whoever reads the broadcasts
//! - `witness`, `property`, `broadcast`, `loot`: what is known, and what must hold
//! - `procedure`, `act`, `condition`, `examine`, `select`: the steps
//! - `fault`, `workload`: what happens meanwhile

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use zipnet_core::time::Time;
use zipnet_facts::Fact;
use zipnet_reports::{Counts, Failure, RunResult, Seconds, Step, Verdict};
use zipnet_scenarios::Scenario;
use zipnet_scenarios::node::Role;
use zipnet_scenarios::scenario::{Expectation, StepId};
use zipnet_scenarios::verbs::{Always, Check as Examined, Sometimes};
use zipnet_scenarios::words::{Metric, Word as _};

use crate::cluster::NodeId;
use crate::engine;
use crate::random::Random;
use crate::stopwatch::{Stopwatch, sleep};
use crate::wires::Wires;

mod act;
mod admin;
mod broadcast;
mod build;
mod cluster;
mod condition;
mod examine;
mod fault;
mod line;
mod loot;
mod procedure;
pub(crate) mod process;
mod property;
mod reader;
mod relay;
mod select;
mod tail;
mod witness;
mod workload;

pub(crate) use build::{BUILD, Binaries};

use admin::Record;
use cluster::{Cluster, Hint};
use condition::Wait;
use fault::Faults;
use loot::Loot;
use property::{Breach, Committee, Named, Process, Properties};
use witness::{Mark, Subject, Witness};

/// The longest time between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// How often servers are asked for their records.
const RECORDS: Duration = Duration::from_millis(300);

/// How often servers are asked for what a threshold is about.
const SAMPLE: Duration = Duration::from_millis(1_000);

/// Lines of a node's log that a failure shows.
const LINES_SHOWN: usize = 10;

/// How long a reader may take at the end to have read what clients were told.
const READING: Duration = Duration::from_secs(5);

/// Why a run ends before its procedure does.
#[derive(Clone, Debug)]
struct Found {
    verdict: Verdict,
    /// The property, or the id of the step or expectation.
    property: String,
    sentence: String,
    line: u32,
    node: Option<String>,
    detail: String,
}

/// Why a run does not go on.
#[derive(Clone, Debug)]
enum Stop {
    /// Something was found.
    Found(Box<Found>),
    /// Somebody wants it to end.
    Interrupted,
    /// This machine does not do what it must; nothing is known about the nodes.
    Broken(String),
}

/// Whether the run goes on.
type Going<T = ()> = Result<T, Stop>;

/// Something of the scenario that could not be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NotJudged {
    property: String,
    sentence: String,
    line: u32,
    why: String,
}

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
    let mut run = Run::new(resolved.scenario(), seed, binaries, &state, kept, interrupt)
        .map_err(|reason| format!("make a network on loopback: {reason}"))?;
    let end = run.carry_out();
    run.cluster.end();
    let result = match end {
        Err(Stop::Broken(reason)) => Err(reason),
        Err(Stop::Interrupted) => Ok(None),
        Err(Stop::Found(found)) => Ok(Some(run.finish(Some(*found), kept))),
        Ok(()) => {
            let unseen = run.unseen();
            Ok(Some(run.finish(unseen, kept)))
        }
    };
    let held = matches!(&result, Ok(Some(result)) if result.verdict == Verdict::Held);
    let over = matches!(&result, Ok(None));
    // What is left behind is in nobody's way.
    drop(fs::remove_dir_all(if held || over || logs.is_some() { &home } else { &state }));
    result.map(|result| result.map(|result| RunResult { seed, ..result }))
}

/// The properties that the scenario asks for beyond those that are always on.
fn named(scenario: &Scenario) -> Named {
    let mut named = Named::default();
    for expect in &scenario.expects {
        match &expect.what {
            Expectation::Always(Always::NoMixedGroups {}) => named.no_mixed_groups = true,
            Expectation::Always(Always::NeverUnblinded { below }) => {
                named.never_unblinded_below = Some(below.get());
            }
            _ => {}
        }
    }
    named
}

/// One run.
struct Run<'a> {
    scenario: &'a Scenario,
    interrupt: &'a Interrupt,
    watch: Stopwatch,
    cluster: Cluster,
    witness: Witness,
    /// What steps draw from.
    random: Random,
    /// What workloads draw from.
    publishing: Random,
    /// Rounds for which workloads were asked.
    answered: usize,
    faults: Faults,
    wires: Wires,
    /// The step that is carried out.
    step: Option<usize>,
    /// When it began.
    mark: Mark,
    /// The nodes of its `do`.
    acted: BTreeSet<NodeId>,
    /// Whose turn it is.
    each: Option<NodeId>,
    /// The node that a `do` chose last.
    target: Option<NodeId>,
    /// When each step began for the first time.
    begun: BTreeMap<String, Time>,
    /// The group of each server at the end of each step.
    groups: BTreeMap<String, Vec<Option<String>>>,
    /// How processes may end in the step that is carried out.
    allowed_exits: Vec<(NodeId, u64)>,
    /// The last message that a step gave to each client: to which process, and its number there.
    requests: BTreeMap<NodeId, (Process, u64)>,
    /// What was on the disks that a check wants to search.
    loot: BTreeMap<NodeId, Loot>,
    /// Instances with their committee secrets.
    committees: Vec<(String, String)>,
    /// What is waited for without holding up the procedure.
    pending: Vec<Pending>,
    sometimes: BTreeMap<String, bool>,
    samples: BTreeMap<Metric, u64>,
    sampled_at: Time,
    records_at: Time,
    steps: Vec<Step>,
    not_controlled: Vec<String>,
    not_judged: Vec<NotJudged>,
}

/// An `eventually` whose time runs.
#[derive(Clone, Debug)]
struct Pending {
    /// Its place among the expectations.
    expect: usize,
    wait: Wait,
    until: Time,
}

impl<'a> Run<'a> {
    fn new(
        scenario: &'a Scenario,
        seed: u64,
        binaries: &Binaries,
        state: &Path,
        logs: &Path,
        interrupt: &'a Interrupt,
    ) -> std::io::Result<Self> {
        let origin = Random::new(seed);
        let random = origin.fork("engine");
        let cluster = Cluster::new(scenario, &origin, binaries, state, logs)?;
        let wires = Wires::new(scenario, cluster.all().count());
        let (faults, left_out) = Faults::new(scenario, &random);
        let subjects = cluster.all().map(|(_, machine)| Subject {
            name: machine.name.clone(),
            home: machine.home,
            role: machine.role,
        });
        let witness = Witness::new(subjects, Properties::new(named(scenario)));
        Ok(Self {
            scenario,
            interrupt,
            watch: Stopwatch::start(),
            cluster,
            witness,
            publishing: random.fork("workloads"),
            answered: 0,
            random: random.fork("steps"),
            faults,
            wires,
            step: None,
            mark: Mark::default(),
            acted: BTreeSet::new(),
            each: None,
            target: None,
            begun: BTreeMap::new(),
            groups: BTreeMap::new(),
            allowed_exits: Vec::new(),
            requests: BTreeMap::new(),
            loot: BTreeMap::new(),
            committees: Vec::new(),
            pending: Vec::new(),
            sometimes: BTreeMap::new(),
            samples: BTreeMap::new(),
            sampled_at: Time::default(),
            records_at: Time::default(),
            steps: Vec::new(),
            not_controlled: left_out,
            not_judged: Vec::new(),
        })
    }

    /// The whole scenario.
    fn carry_out(&mut self) -> Going {
        if let Some(canary) = &self.scenario.canary {
            return Err(self.uncontrolled(&format!("the defect {}", canary.defect.name()), "canary", 1));
        }
        for step in &self.scenario.steps {
            for check in &step.checks {
                if let Examined::OpensNoPastRound { node } = &check.verb {
                    let nodes = node.0.iter().flat_map(|node| self.everyone(node)).collect::<Vec<_>>();
                    self.loot.extend(nodes.into_iter().map(|node| (node, Loot::default())));
                }
            }
        }
        let starting: Vec<_> = self
            .cluster
            .all()
            .filter(|(node, machine)| self.cluster.deployment(*node).starts(machine.role, machine.number))
            .map(|(node, _)| node)
            .collect();
        for node in &starting {
            let name = self.cluster.name(*node).to_owned();
            self.has_binary(*node, &name, 1)?;
        }
        for node in starting {
            self.start(node, &Hint::Default)?;
        }
        self.procedure()?;
        self.turn_faults(None)?;
        for expect in 0..self.scenario.expects.len() {
            self.begin_eventually(expect, None)?;
        }
        while !self.pending.is_empty() {
            self.pass(self.now().after(LOOK))?;
        }
        let end = self.now().after(READING);
        while self.witness.broadcasts.is_awaited() && self.now() < end {
            self.pass(self.now().after(LOOK))?;
        }
        // What was printed at the very end is judged as well.
        self.look()?;
        self.show_records()?;
        let rounds = self.witness.properties.rounds();
        for home in 0..self.scenario.deployments.len() {
            if self.cluster.is_unique(home) {
                let judged = self.witness.broadcasts.judge(home, &rounds);
                judged.map_err(|breach| self.broken_by(breach))?;
            }
        }
        Ok(())
    }

    fn now(&self) -> Time {
        Time::default().after(self.watch.elapsed())
    }

    /// Lets time pass, and lets happen what is due.
    fn pass(&mut self, until: Time) -> Going {
        loop {
            self.look()?;
            self.check_pending()?;
            let now = self.now();
            if now >= until {
                return Ok(());
            }
            let next = until.min(now.after(LOOK)).min(self.faults.due());
            sleep(next.since(now).max(Duration::from_millis(1)));
        }
    }

    /// One look at everything that does not wait.
    fn look(&mut self) -> Going {
        if self.interrupt.is_raised() {
            return Err(Stop::Interrupted);
        }
        let gone =
            self.cluster.harvest().map_err(|reason| self.broken(&format!("wait for a node: {reason}")))?;
        let over: BTreeSet<_> = gone.iter().map(|gone| gone.node).collect();
        for node in 0..self.cluster.all().count() {
            self.read(node, over.contains(&node))?;
        }
        let broadcasts = self.cluster.broadcasts(self.now());
        for (home, line) in broadcasts.map_err(|reason| self.broken(&format!("run a reader: {reason}")))? {
            self.witness.broadcasts.read(home, &line).map_err(|breach| self.broken_by(breach))?;
        }
        for gone in gone {
            self.witness.ended(gone.node);
            self.rob(gone.node)?;
            let asked = gone.told && gone.how.is(0);
            let allowed =
                self.allowed_exits.iter().any(|(node, code)| *node == gone.node && gone.how.is(*code));
            if !asked && !allowed {
                let name = self.cluster.name(gone.node).to_owned();
                return Err(Stop::Found(Box::new(Found {
                    verdict: Verdict::Violated,
                    property: "unexpected-exit".to_owned(),
                    sentence: "A process ends only when it is told to, or when a step says how.".to_owned(),
                    line: 1,
                    detail: format!("{name} ended with {}", gone.how),
                    node: Some(name),
                })));
            }
        }
        let limit = self.scenario.limits.time_limit;
        if self.now() > Time::default().after(limit.duration()) {
            return Err(Stop::Found(Box::new(Found {
                verdict: Verdict::Inconclusive,
                property: "time_limit".to_owned(),
                sentence: "The scenario ends within its limits.".to_owned(),
                line: 1,
                node: None,
                detail: format!("more than {limit} passed"),
            })));
        }
        self.drive_faults()?;
        self.drive_workloads();
        if self.records_at.after(RECORDS) <= self.now() {
            self.show_records()?;
            self.records_at = self.now();
        }
        if self.sampled_at.after(SAMPLE) <= self.now() {
            self.learn_logs()?;
            self.sample();
            self.sampled_at = self.now();
        }
        self.note_situations();
        Ok(())
    }

    /// Takes in what a node has printed. `all` if it prints nothing more.
    fn read(&mut self, node: NodeId, all: bool) -> Going {
        let now = self.now();
        let lines = self.cluster.get_mut(node).log.lines(all);
        let lines = lines.map_err(|reason| self.broken(&format!("read a node's log: {reason}")))?;
        for text in lines {
            let line = line::Line::parse(&text);
            if let Some(Fact::Up { address, .. }) = line.as_ref().and_then(|line| line.fact.as_ref()) {
                self.cluster.get_mut(node).address.clone_from(address);
            }
            self.witness.observe(node, now, &text, line).map_err(|breach| self.broken_by(breach))?;
        }
        Ok(())
    }

    /// Takes what is on the disk of a node that has ended, if a check wants to search it.
    fn rob(&mut self, node: NodeId) -> Going {
        let machine = self.cluster.get(node);
        let taken = self.loot.get_mut(&node).map(|loot| loot.take(&machine.state, machine.peer));
        taken.transpose().map(drop).map_err(|reason| self.broken(&format!("read a state folder: {reason}")))
    }

    /// Does something that takes its time, and lets time pass meanwhile.
    fn meanwhile<T: Send>(&mut self, act: impl FnOnce() -> T + Send) -> Going<T> {
        std::thread::scope(|scope| {
            let acting = scope.spawn(act);
            while !acting.is_finished() {
                self.pass(self.now().after(LOOK))?;
            }
            acting.join().map_err(|_| self.broken("do something beside the run: it panicked"))
        })
    }

    /// The newest records of a server.
    fn records(&self, node: NodeId) -> Option<Vec<Record>> {
        let answer = self.cluster.ask(node, "/records", None).filter(|answer| answer.status == 200)?;
        serde_json::from_str(&answer.body).ok()
    }

    /// Judges what every server holds.
    fn show_records(&mut self) -> Going {
        for node in self.servers_up() {
            let Some(records) = self.records(node) else { continue };
            let process = self.witness.process(node);
            let shown = self.witness.properties.show(process, self.cluster.name(node), &records);
            shown.map_err(|breach| self.broken_by(breach))?;
        }
        Ok(())
    }

    /// Asks servers which log they replicate: one that was caught up does not print it.
    fn learn_logs(&mut self) -> Going {
        for node in self.servers_up() {
            let Some(status) = self.cluster.status(node) else { continue };
            let process = self.witness.process(node);
            let learnt = self.witness.properties.learn(process, status.log);
            learnt.map_err(|breach| self.broken_by(breach))?;
        }
        Ok(())
    }

    fn servers_up(&self) -> Vec<NodeId> {
        (0..self.scenario.deployments.len()).flat_map(|home| self.cluster.servers_up(home)).collect()
    }

    /// The number of an instance with a committee secret.
    fn committee(&mut self, instance: String, secret: String) -> Committee {
        let committee = (instance, secret);
        let known = self.committees.iter().position(|known| *known == committee);
        Committee(known.unwrap_or_else(|| {
            self.committees.push(committee);
            self.committees.len() - 1
        }))
    }

    fn remember_groups(&mut self, step: &str) {
        let all: Vec<_> = self.cluster.all().map(|(node, machine)| (node, machine.role)).collect();
        let group = |(node, role): (NodeId, Role)| match role {
            Role::Server => self.cluster.status(node)?.group,
            Role::Aggregator | Role::Client => None,
        };
        let groups = all.into_iter().map(group).collect();
        self.groups.insert(step.to_owned(), groups);
    }

    fn step_id(&self) -> Option<&'a str> {
        let scenario: &'a Scenario = self.scenario;
        self.step.and_then(|step| scenario.steps.get(step)).map(|step| step.id.as_str())
    }

    /// The line of the step that is carried out.
    fn line(&self) -> u32 {
        self.step.and_then(|step| self.scenario.steps.get(step)).map_or(1, |step| step.place.line)
    }

    /// Something is left out because only a simulation controls it.
    fn left_out(&mut self, what: String) {
        if !self.not_controlled.contains(&what) {
            self.not_controlled.push(what);
        }
    }

    /// There is a binary of the build that a node is to run.
    fn has_binary(&mut self, node: NodeId, verb: &str, line: u32) -> Going {
        if self.cluster.binaries_of(node).is_some() {
            return Ok(());
        }
        let what = format!("another build of the binaries ({})", self.cluster.get(node).build);
        Err(self.uncontrolled(&what, verb, line))
    }

    /// The run cannot go on, because only a simulation controls what is needed next.
    fn uncontrolled(&mut self, what: &str, verb: &str, line: u32) -> Stop {
        self.left_out(what.to_owned());
        let detail = format!("{verb}: {what} is not controlled with --live, so the run ends here");
        self.failed(Verdict::Inconclusive, Some(line), detail)
    }

    /// Something leaves no trace that can be judged.
    fn not_judged(&mut self, property: &str, sentence: &str, line: u32, why: String) {
        let one = NotJudged { property: property.to_owned(), sentence: sentence.to_owned(), line, why };
        if !self.not_judged.contains(&one) {
            self.not_judged.push(one);
        }
    }

    /// What was not judged in a run that went through.
    fn unseen(&mut self) -> Option<Found> {
        for expect in &self.scenario.expects {
            if let Expectation::Always(always) = &expect.what
                && let Some(why) = self.witness.blind_to(always)
            {
                let why = format!("{}: {why}", always.verb());
                self.not_judged(&expect.id, &expect.say, expect.place.line, why);
            }
        }
        let first = self.not_judged.first()?;
        let all: Vec<_> = self.not_judged.iter().map(|one| format!("not judged: {}", one.why)).collect();
        Some(Found {
            verdict: Verdict::Inconclusive,
            property: first.property.clone(),
            sentence: first.sentence.clone(),
            line: first.line,
            node: None,
            detail: all.join("\n"),
        })
    }

    fn broken(&self, what: &str) -> Stop {
        Stop::Broken(what.to_owned())
    }

    /// A property is broken.
    fn broken_by(&self, breach: Breach) -> Stop {
        let named = self.scenario.expects.iter().find(|expect| match &expect.what {
            Expectation::Always(always) => always.verb() == breach.property,
            Expectation::Eventually { .. } | Expectation::Sometimes { .. } => false,
        });
        let own = || property::sentence(breach.property).to_owned();
        Stop::Found(Box::new(Found {
            verdict: Verdict::Violated,
            property: breach.property.to_owned(),
            sentence: named.map_or_else(own, |expect| expect.say.clone()),
            line: named.map_or(1, |expect| expect.place.line),
            node: Some(breach.node),
            detail: breach.detail,
        }))
    }

    /// What should happen in some run: did it, as far as it is seen?
    fn note_situations(&mut self) {
        let now = self.now();
        for expect in &self.scenario.expects {
            let Expectation::Sometimes { situation, during } = &expect.what else { continue };
            let since = match during {
                None => Some((0, Time::default())),
                Some(StepId(id)) if self.step_id() == Some(id) => Some((self.mark.seq, self.mark.at)),
                Some(_) => None,
            };
            let happened = since.is_some_and(|(seq, at)| match situation {
                Sometimes::RoundAbandoned {} => self.witness.abandoned_last > seq,
                Sometimes::LeaderChanged {} => self.witness.leader_changed > seq,
                Sometimes::RoundStalled { r#for } => {
                    let last = self.witness.last_finalized().unwrap_or_default().max(at);
                    now.since(last) >= r#for.duration()
                }
                Sometimes::WritesLost {} => false,
                Sometimes::FaultFired { fault } => {
                    self.faults.counts().get(&fault.0).is_some_and(|times| *times > 0)
                }
            });
            *self.sometimes.entry(expect.id.clone()).or_default() |= happened;
        }
    }

    /// The greatest value that any server shows, for each metric that a threshold is about.
    fn sample(&mut self) {
        for threshold in &self.scenario.thresholds {
            let metric = threshold.metric;
            for node in self.cluster.servers_up(0) {
                let value = match metric {
                    Metric::RoundDuration => {
                        let longest = self.witness.of(node).longest_round;
                        longest.and_then(|longest| u64::try_from(longest.as_millis()).ok())
                    }
                    Metric::RoundStalled => self.cluster.metric(node, metric.name()),
                    _ => self.metric(node, metric),
                };
                let Some(value) = value else { continue };
                let greatest = self.samples.entry(metric).or_default();
                *greatest = value.max(*greatest);
            }
        }
    }

    /// What the run came to.
    fn finish(&mut self, found: Option<Found>, logs: &Path) -> RunResult {
        let now = self.now();
        let verdict = found.as_ref().map_or(Verdict::Held, |found| found.verdict);
        let failure = found.map(|found| {
            let mut detail = found.detail;
            let node = found.node.as_ref().and_then(|name| {
                self.cluster.all().find(|(_, machine)| machine.name == *name).map(|(node, _)| node)
            });
            if let Some(node) = node {
                detail.push_str(&format!("\nthe last lines of {}:", self.cluster.name(node)));
                for line in self.witness.of(node).newest_lines(LINES_SHOWN) {
                    detail.push_str(&format!("\n  {line}"));
                }
            }
            detail.push_str(&format!("\nlogs of all nodes: {}", logs.display()));
            Failure {
                property: found.property,
                event: self.witness.seq.saturating_sub(1),
                at_s: Seconds::from_nanos(now.0),
                node: found.node,
                sentence: found.sentence,
                file: String::new(),
                line: u64::from(found.line),
                detail,
                reproduce: String::new(),
            }
        });
        let carried = self.cluster.relay.carried();
        let [elections, rounds_opened, rounds_finalized, rounds_abandoned] = self.witness.totals();
        let thresholds = self.scenario.thresholds.iter().map(|threshold| {
            (threshold.id.clone(), self.samples.get(&threshold.metric).copied().into_iter().collect())
        });
        RunResult {
            scenario: String::new(),
            title: self.scenario.title.clone(),
            seed: 0,
            defect: None,
            live: true,
            verdict,
            chain: String::new(),
            events: self.witness.seq,
            simulated_s: Seconds::from_nanos(now.0),
            cpu_s: Seconds::ZERO,
            wall_s: Seconds::ZERO,
            repeated: false,
            counts: Counts {
                elections,
                messages: carried.passed,
                drops: carried.dropped,
                duplicates: carried.repeated,
                crashes: self.cluster.crashes,
                starts: self.cluster.starts,
                rounds_opened,
                rounds_finalized,
                rounds_abandoned,
                syncs: 0,
            },
            faults: self.faults.counts(),
            sometimes: self.sometimes.clone(),
            thresholds: thresholds.collect(),
            steps: self.steps.clone(),
            not_controlled: self.not_controlled.clone(),
            failure,
            checkpoints: Vec::new(),
            window: Vec::new(),
        }
    }
}
