//! Carries out a scenario: one run, from the seed to the verdict.
//!
//! The engine is one task. Between two looks it sleeps, for a tenth of a second or until something is due; at each look
//! it takes the exit codes of processes that ended, lets faults and workloads do what is due, and sees whether the run
//! is over (`Run::look`). Everything that waits, waits by `Run::pass`.
//!
//! - `procedure`: the steps, in order
//! - `act`: what a step does
//! - `condition`: what is waited for
//! - `examine`: what must be so
//! - `select`: which nodes a name means
//! - `fault`, `paths`, `workload`: what happens meanwhile

use core::iter;
use core::ops::Range;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::{Either, select};
use openraft_rt::AsyncRuntime;
use zipnet_core::machine::RequestId;
use zipnet_core::time::Time;
use zipnet_reports::properties;
use zipnet_reports::{Checkpoint, Counts, Failure, RunResult, Seconds, Step, Verdict};
use zipnet_scenarios::Scenario;
use zipnet_scenarios::scenario::{Expectation, Resolved, StepId};
use zipnet_scenarios::verbs::{Always, Check as Examined, Sometimes};
use zipnet_scenarios::words::{Metric, Word as _};

use crate::chain::{Log, Recorder};
use crate::cluster::{Breach, Cluster, Hint, Mark, Named, NodeId, Witness};
use crate::defect::{Defect, Planted};
use crate::network::NetworkConfig;
use crate::random::Random;
use crate::runtime::SimRuntime;
use crate::wires::{self, Paths, Wires};
use crate::world::{Simulation, simulate};

mod act;
mod condition;
mod examine;
mod fault;
mod paths;
mod procedure;
mod select;
mod workload;

pub(crate) use condition::{fits, tells};

use condition::Wait;
use fault::Faults;
use workload::Workloads;

/// The longest time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// How often a repeated check compares metrics with thresholds and stalls with their limits.
const SAMPLE: Duration = Duration::from_millis(1_000);

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

/// Why a run ends before its procedure does.
#[derive(Clone, Debug)]
struct Found {
    verdict: Verdict,
    /// The always-on property, or the id of the step or expectation.
    property: String,
    sentence: String,
    line: u32,
    node: Option<String>,
    detail: String,
    /// Where it was noticed, if that is not here and now.
    place: Option<(u64, Time)>,
}

/// Whether the run goes on.
type Going<T = ()> = Result<T, Box<Found>>;

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
    let resolved = resolve(scenario, seed);
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
    let witness = Witness::new(recorder.clone(), named(scenario));
    let sink = witness.clone();
    let config = NetworkConfig { model: wires::model(scenario), ..NetworkConfig::default() };
    let ended = simulate(
        seed,
        config,
        recorder.clone(),
        Arc::new(move |node, now, event| sink.observe(node, now, event)),
        async |simulation| {
            disturbance.iter().for_each(|word| simulation.note(word));
            let mut run = Run::new(scenario, simulation, witness, defect);
            let end = run.carry_out().await;
            run.finish(end)
        },
    );
    recorder.finish().map_err(|reason| format!("write the event log: {reason}"))?;
    let mut result = ended;
    result.seed = seed;
    result.window = if options.window.is_some() { recorder.lines() } else { Vec::new() };
    Ok(result)
}

/// The scenario with everything decided that the seed decides beforehand.
pub(crate) fn resolve(scenario: &Scenario, seed: u64) -> Resolved {
    let mut random = Random::new(seed).fork("scenario");
    scenario.resolve(&mut |bound| random.below(bound))
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

/// The properties that the scenario asks for beyond those that are always on.
fn named(scenario: &Scenario) -> Named {
    let mut named = Named::default();
    for expect in &scenario.expects {
        match &expect.what {
            Expectation::Always(Always::NoMixedGroups {}) => named.no_mixed_groups = true,
            Expectation::Always(Always::NeverUnblinded { below }) => {
                named.never_unblinded_below = u32::try_from(below.get()).ok();
            }
            _ => {}
        }
    }
    named
}

/// One run.
struct Run<'a> {
    scenario: &'a Scenario,
    cluster: Cluster,
    witness: Witness,
    /// What steps draw from.
    random: Random,
    faults: Faults,
    wires: Wires,
    /// What the network was told last.
    paths: Paths,
    workloads: Workloads,
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
    groups: BTreeMap<String, Vec<Option<zipnet_core::id::GroupId>>>,
    /// How processes may end in the step that is carried out.
    allowed_exits: Vec<(NodeId, u64)>,
    /// The last message that a step gave to each client.
    requests: BTreeMap<NodeId, RequestId>,
    last_request: u64,
    /// What is waited for without holding up the procedure.
    pending: Vec<Pending>,
    sometimes: BTreeMap<String, bool>,
    samples: BTreeMap<Metric, u64>,
    sampled_at: Time,
    steps: Vec<Step>,
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
        simulation: Simulation,
        witness: Witness,
        defect: Option<(Defect, &'static str)>,
    ) -> Self {
        let random = simulation.random("engine");
        let cluster = Cluster::new(simulation, witness.clone(), scenario);
        let mut run = Self {
            scenario,
            faults: Faults::new(scenario, &random),
            wires: Wires::new(scenario, cluster.all().count()),
            paths: Paths::default(),
            workloads: Workloads::new(&random),
            random: random.fork("steps"),
            cluster,
            witness,
            step: None,
            mark: Mark::default(),
            acted: BTreeSet::new(),
            each: None,
            target: None,
            begun: BTreeMap::new(),
            groups: BTreeMap::new(),
            allowed_exits: Vec::new(),
            requests: BTreeMap::new(),
            last_request: 0,
            pending: Vec::new(),
            sometimes: BTreeMap::new(),
            samples: BTreeMap::new(),
            sampled_at: Time::default(),
            steps: Vec::new(),
        };
        if let Some((defect, marker)) = defect {
            run.plant(defect, marker);
        }
        run
    }

    /// Breaks something on purpose, where the scenario says.
    fn plant(&mut self, defect: Defect, marker: &str) {
        if matches!(defect, Defect::Tampered(_)) {
            // A word in the chain would change it by itself.
            return;
        }
        self.cluster.simulation.note(marker);
        let Defect::Without(check) = defect else { return };
        let name = Defect::name(marker);
        let canary = self.scenario.canary.as_ref().map(|canary| (canary.defect, &canary.nodes));
        let control = self.scenario.control.as_ref().map(|control| (control.guard, &control.nodes));
        let here = [canary, control].into_iter().flatten().find(|(guard, _)| guard.name() == name);
        let nodes = here.and_then(|(_, nodes)| nodes.as_ref()).map(|nodes| {
            nodes.0.iter().flat_map(|node| self.everyone(node)).map(|node| self.cluster.index(node)).collect()
        });
        self.cluster.plant(Planted { check: Some(check), nodes });
    }

    /// The whole scenario.
    async fn carry_out(&mut self) -> Going {
        for expect in &self.scenario.expects {
            if let Expectation::Sometimes { .. } = expect.what {
                self.sometimes.insert(expect.id.clone(), false);
            }
        }
        self.watch_disks();
        let starting: Vec<_> = self
            .cluster
            .all()
            .filter(|(_, member)| {
                let deployment = self.scenario.deployments.get(member.home);
                deployment.is_some_and(|deployment| deployment.starts(member.role, member.number))
            })
            .map(|(node, _)| node)
            .collect();
        for node in starting {
            self.cluster.start(node, &Hint::Default);
        }
        self.procedure().await?;
        self.faults.end(&mut self.cluster);
        self.rewire();
        for expect in 0..self.scenario.expects.len() {
            self.begin_eventually(expect, None).await?;
        }
        while !self.pending.is_empty() {
            self.pass(self.now().after(LOOK)).await?;
        }
        Ok(())
    }

    /// Disks that a check wants to search remember everything.
    fn watch_disks(&self) {
        for step in &self.scenario.steps {
            for check in &step.checks {
                if let Examined::OpensNoPastRound { node } = &check.verb {
                    for node in node.0.iter().flat_map(|node| self.everyone(node)) {
                        self.cluster.host(node).platter().keep_history();
                    }
                }
            }
        }
    }

    fn now(&self) -> Time {
        self.cluster.simulation.now()
    }

    /// Lets time pass, and lets happen what is due.
    async fn pass(&mut self, until: Time) -> Going {
        loop {
            self.look()?;
            let due = self.check_pending().await?;
            let now = self.now();
            if now >= until {
                return Ok(());
            }
            let next = until.min(now.after(LOOK)).min(self.faults.due()).min(due);
            let wait = next.since(now).max(Duration::from_millis(1));
            let witness = self.witness.clone();
            let broken = std::pin::pin!(witness.broken());
            let sleep = std::pin::pin!(SimRuntime::sleep(wait));
            if let Either::Left(_) = select(broken, sleep).await {
                return Err(self.breach());
            }
        }
    }

    /// One look at everything that does not wait.
    fn look(&mut self) -> Going {
        if self.witness.breach().is_some() {
            return Err(self.breach());
        }
        for ended in self.cluster.harvest() {
            let code = u64::from(ended.exit.code);
            let asked = ended.told && code == 0;
            if !asked && !self.allowed_exits.contains(&(ended.node, code)) {
                let name = self.cluster.name(ended.node).to_owned();
                let lines = self.witness.of(ended.node, |known| {
                    let lines: Vec<_> = known.newest_lines().collect();
                    lines.get(lines.len().saturating_sub(6)..).unwrap_or_default().join("; ")
                });
                return Err(Box::new(Found {
                    verdict: Verdict::Violated,
                    property: "unexpected-exit".to_owned(),
                    sentence: "A process ends only when it is told to, or when a step says how.".to_owned(),
                    line: 1,
                    node: Some(name.clone()),
                    detail: format!(
                        "{name} ended with code {code}: {}. Its last lines: {lines}",
                        ended.exit.reason
                    ),
                    place: None,
                }));
            }
        }
        let now = self.now();
        let limits = self.scenario.limits;
        let events = self.cluster.simulation.recorder().events();
        let limit = if events > limits.max_events {
            Some(("max_events", format!("more than {} events happened", limits.max_events)))
        } else if now > Time::default().after(limits.time_limit.duration()) {
            Some(("time_limit", format!("more than {} passed", limits.time_limit)))
        } else {
            None
        };
        if let Some((limit, detail)) = limit {
            return Err(Box::new(Found {
                verdict: Verdict::Inconclusive,
                property: limit.to_owned(),
                sentence: "The scenario ends within its limits.".to_owned(),
                line: 1,
                node: None,
                detail,
                place: None,
            }));
        }
        let fired = self.faults.drive(&mut self.cluster, now);
        if fired {
            self.rewire();
        }
        let step = self.step_id();
        self.workloads.drive(&self.cluster, self.scenario, step, &mut self.last_request);
        if self.sampled_at.after(SAMPLE) <= now {
            self.sampled_at = now;
            self.sample();
        }
        self.note_situations();
        Ok(())
    }

    fn step_id(&self) -> Option<&'a str> {
        let scenario: &'a Scenario = self.scenario;
        self.step.and_then(|step| scenario.steps.get(step)).map(|step| step.id.as_str())
    }

    /// What must happen in some run: did it?
    fn note_situations(&mut self) {
        let now = self.now();
        for expect in &self.scenario.expects {
            let Expectation::Sometimes { situation, during } = &expect.what else { continue };
            if self.sometimes.get(&expect.id) == Some(&true) {
                continue;
            }
            let since = match during {
                None => Some((0, Time::default())),
                Some(StepId(id)) if self.step_id() == Some(id) => Some((self.mark.seq, self.mark.at)),
                Some(_) => None,
            };
            let Some((seq, at)) = since else { continue };
            let happened = match situation {
                Sometimes::RoundAbandoned {} => self.witness.abandoned_last() > seq,
                Sometimes::LeaderChanged {} => self.witness.leader_changed() > seq,
                Sometimes::RoundStalled { r#for } => {
                    let last = self.witness.last_finalized().unwrap_or_default().max(at);
                    now.since(last) >= r#for.duration()
                }
                Sometimes::WritesLost {} => {
                    self.cluster.all().any(|(node, _)| self.cluster.host(node).platter().counts().lost > 0)
                }
                Sometimes::FaultFired { fault } => self.faults.fired(&fault.0) > 0,
            };
            if happened {
                self.sometimes.insert(expect.id.clone(), true);
            }
        }
    }

    /// The greatest value that any server shows, for each metric that a threshold is about.
    fn sample(&mut self) {
        for threshold in &self.scenario.thresholds {
            let metric = threshold.metric;
            if metric == Metric::Anonymity {
                continue;
            }
            let now = self.now();
            for node in self.cluster.servers_up(0) {
                let value = self.witness.of(node, |known| match metric {
                    Metric::RoundDuration => known.longest_round.map(|longest| longest.as_millis()),
                    Metric::RoundStalled => {
                        known.metrics.as_ref().map(|metrics| metrics.stalled(now).as_millis())
                    }
                    _ => known.metrics.as_ref().map(|metrics| u128::from(metrics.total(metric.name()))),
                });
                let Some(value) = value.and_then(|value| u64::try_from(value).ok()) else { continue };
                let greatest = self.samples.entry(metric).or_default();
                *greatest = value.max(*greatest);
            }
        }
    }

    /// A property is broken.
    fn breach(&self) -> Box<Found> {
        let Breach { violation, event, at, node } = self.witness.breach().expect("the caller saw one");
        let named = self.scenario.expects.iter().find(|expect| match &expect.what {
            Expectation::Always(always) => always.verb() == violation.property,
            Expectation::Eventually { .. } | Expectation::Sometimes { .. } => false,
        });
        let own = properties::sentence(violation.property);
        Box::new(Found {
            verdict: Verdict::Violated,
            property: violation.property.to_owned(),
            sentence: named.map_or_else(|| own.unwrap_or_default().to_owned(), |expect| expect.say.clone()),
            line: named.map_or(1, |expect| expect.place.line),
            node: Some(node),
            detail: violation.detail,
            place: Some((event, at)),
        })
    }

    /// What the run came to.
    fn finish(mut self, end: Going) -> RunResult {
        self.sample();
        self.note_situations();
        let simulation = &self.cluster.simulation;
        let recorder = simulation.recorder();
        let now = self.now();
        let failure = end.err().map(|found| {
            let (event, at) = found.place.unwrap_or((recorder.events().saturating_sub(1), now));
            let failure = Failure {
                property: found.property,
                event,
                at_s: Seconds::from_nanos(at.0),
                node: found.node,
                sentence: found.sentence,
                file: String::new(),
                line: u64::from(found.line),
                detail: found.detail,
                reproduce: String::new(),
            };
            simulation.note(&format!("{} {}: {}", found.verdict, failure.property, failure.detail));
            (found.verdict, failure)
        });
        recorder.seal();
        let totals = self.witness.totals();
        let network = simulation.network().counts();
        let disks = self.cluster.all().map(|(node, _)| self.cluster.host(node).platter().counts());
        let crowds = self.witness.crowds();
        let thresholds = self.scenario.thresholds.iter().map(|threshold| {
            let samples = if threshold.metric == Metric::Anonymity {
                // One for each round.
                let times = |rounds: u64| usize::try_from(rounds).unwrap_or(usize::MAX);
                let each = crowds.iter().map(|(crowd, rounds)| iter::repeat_n(*crowd, times(*rounds)));
                each.flatten().collect()
            } else {
                self.samples.get(&threshold.metric).copied().into_iter().collect()
            };
            (threshold.id.clone(), samples)
        });
        let hex = |chain: [u8; 32]| blake3::Hash::from_bytes(chain).to_hex().to_string();
        let (verdict, failure) =
            failure.map_or((Verdict::Held, None), |(verdict, failure)| (verdict, Some(failure)));
        RunResult {
            scenario: String::new(),
            title: self.scenario.title.clone(),
            seed: 0,
            defect: None,
            live: false,
            verdict,
            chain: hex(recorder.chain()),
            events: recorder.events(),
            simulated_s: Seconds::from_nanos(now.0),
            cpu_s: Seconds::ZERO,
            wall_s: Seconds::ZERO,
            repeated: false,
            counts: Counts {
                elections: totals.elections,
                syncs: disks.map(|disk| disk.syncs).sum(),
                messages: network.delivered,
                drops: network.dropped,
                duplicates: network.duplicated,
                crashes: self.cluster.crashes,
                starts: self.cluster.starts,
                rounds_opened: totals.opened,
                rounds_finalized: totals.finalized,
                rounds_abandoned: totals.abandoned,
            },
            faults: self.faults.counts(),
            sometimes: self.sometimes.clone(),
            thresholds: thresholds.collect(),
            steps: self.steps.clone(),
            not_controlled: Vec::new(),
            failure,
            checkpoints: recorder
                .checkpoints()
                .into_iter()
                .map(|checkpoint| Checkpoint {
                    events: checkpoint.events,
                    at_ns: checkpoint.time.0,
                    chain: hex(checkpoint.chain),
                })
                .collect(),
            window: Vec::new(),
        }
    }
}
