//! Carries out a scenario: one run, from the seed to the verdict, wherever its nodes are.
//!
//! The engine is one task. Between two looks it sleeps, for a fraction of a second or until something is due; at each look
//! it takes in what nodes told and how processes ended, lets faults and workloads do what is due, and sees whether the run
//! is over (`Run::look`). Everything that waits, waits by `Run::pass`. Nodes are a [`Site`]'s: the engine decides what is
//! done and what must be so, and draws the same numbers in the same order in a simulation and on real processes.
//!
//! - `procedure`: the steps, in order
//! - `act`: what a step does
//! - `condition`: what is waited for
//! - `examine`: what must be so
//! - `select`: which nodes a name means
//! - `fault`, `firing`, `workload`: what happens meanwhile
//! - `witness`: what is known

use core::iter;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::machine::RequestId;
use zipnet_core::time::Time;
use zipnet_reports::{Counts, Failure, RunResult, Seconds, Step, Verdict};
use zipnet_scenarios::Scenario;
use zipnet_scenarios::node::Role;
use zipnet_scenarios::scenario::{Expectation, Resolved, StepId};
use zipnet_scenarios::verbs::{Check as Examined, Sometimes};
use zipnet_scenarios::words::{Metric, Word as _};

use crate::cast::{Hint, NodeId};
use crate::random::Random;
use crate::site::{Breach, Heard, Outcome, Site, Stop};
use crate::wires::Wires;

mod act;
mod condition;
mod examine;
mod fault;
mod firing;
mod procedure;
mod select;
mod witness;
mod workload;

use condition::Wait;
use fault::Faults;
use witness::{Mark, Witness};
use workload::Workloads;

/// How often metrics are compared with thresholds.
const SAMPLE: Duration = Duration::from_millis(1_000);

/// Lines of a node's log that a failure shows.
const LINES_SHOWN: usize = 10;

/// How long what is still to be heard is waited for at the end.
const HEARING: Duration = Duration::from_secs(5);

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

/// Why a run does not go on.
#[derive(Clone, Debug)]
enum End {
    /// Something was found.
    Found(Box<Found>),
    /// Somebody wants it to end.
    Interrupted,
    /// This machine does not do what it must; nothing is known about the nodes.
    Broken(String),
}

/// Whether the run goes on.
type Going<T = ()> = Result<T, End>;

/// Something of the scenario that could not be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NotJudged {
    property: String,
    sentence: String,
    line: u32,
    why: String,
}

/// Carries out a scenario that was resolved for a seed. None if somebody wanted it to end.
///
/// The result lacks what only the caller knows: the name of the file, the seed, the command that shows the run again, and
/// measured times.
///
/// # Errors
/// If this machine cannot carry it out.
pub(crate) async fn carry_out<S: Site>(
    scenario: &Scenario,
    site: S,
    random: &Random,
) -> Result<Option<RunResult>, String> {
    let mut run = Run::new(scenario, site, random);
    let found = match run.carry_out().await {
        Err(End::Broken(reason)) => return Err(reason),
        Err(End::Interrupted) => return Ok(None),
        Err(End::Found(found)) => Some(*found),
        Ok(()) => run.unseen(),
    };
    Ok(Some(run.finish(found)))
}

/// The scenario with everything decided that the seed decides beforehand.
pub(crate) fn resolve(scenario: &Scenario, seed: u64) -> Resolved {
    let mut random = Random::new(seed).fork("scenario");
    scenario.resolve(&mut |bound| random.below(bound))
}

/// One run.
struct Run<'a, S> {
    scenario: &'a Scenario,
    site: S,
    witness: Witness,
    /// What steps draw from.
    random: Random,
    faults: Faults,
    wires: Wires,
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
    groups: BTreeMap<String, Vec<Option<String>>>,
    /// How processes may end in the step that is carried out.
    allowed_exits: Vec<(NodeId, u64)>,
    /// The last message that a step gave to each client: to which process, and its number there.
    requests: BTreeMap<NodeId, (u64, RequestId)>,
    /// What is waited for without holding up the procedure.
    pending: Vec<Pending>,
    sometimes: BTreeMap<String, bool>,
    samples: BTreeMap<Metric, u64>,
    sampled_at: Time,
    steps: Vec<Step>,
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

impl<'a, S: Site> Run<'a, S> {
    fn new(scenario: &'a Scenario, site: S, random: &Random) -> Self {
        Self {
            scenario,
            faults: Faults::new(scenario, random),
            wires: Wires::new(scenario, site.cast().len()),
            workloads: Workloads::new(random),
            random: random.fork("steps"),
            witness: Witness::new(site.cast()),
            site,
            step: None,
            mark: Mark::default(),
            acted: BTreeSet::new(),
            each: None,
            target: None,
            begun: BTreeMap::new(),
            groups: BTreeMap::new(),
            allowed_exits: Vec::new(),
            requests: BTreeMap::new(),
            pending: Vec::new(),
            sometimes: BTreeMap::new(),
            samples: BTreeMap::new(),
            sampled_at: Time::default(),
            steps: Vec::new(),
            not_judged: Vec::new(),
        }
    }

    /// The whole scenario.
    async fn carry_out(&mut self) -> Going {
        for expect in &self.scenario.expects {
            if let Expectation::Sometimes { .. } = expect.what {
                self.sometimes.insert(expect.id.clone(), false);
            }
        }
        if let Some(canary) = &self.scenario.canary {
            let planted = self.site.plant(canary.defect.name());
            planted.map_err(|refusal| self.impossible("canary", 1, refusal))?;
        }
        self.keep_histories();
        let starting: Vec<_> =
            (0..self.site.cast().len()).filter(|node| self.site.cast().starts(*node)).collect();
        for node in starting {
            self.start(node, &Hint::Default)?;
        }
        self.procedure().await?;
        self.turn_faults(None)?;
        for expect in 0..self.scenario.expects.len() {
            self.begin_eventually(expect, None).await?;
        }
        while !self.pending.is_empty() {
            self.pass(self.now().after(S::LOOK)).await?;
        }
        let end = self.now().after(HEARING);
        while self.site.is_awaited() && self.now() < end {
            self.pass(self.now().after(S::LOOK)).await?;
        }
        self.site.conclude().map_err(|stop| self.stopped(stop))
    }

    /// Disks that a check wants to search remember everything.
    fn keep_histories(&mut self) {
        let checks = self.scenario.steps.iter().flat_map(|step| &step.checks);
        for check in checks {
            if let Examined::OpensNoPastRound { node } = &check.verb {
                let nodes: Vec<_> = node.0.iter().flat_map(|node| self.everyone(node)).collect();
                nodes.into_iter().for_each(|node| self.site.keep_history(node));
            }
        }
    }

    fn now(&self) -> Time {
        self.site.now()
    }

    fn name(&self, node: NodeId) -> &str {
        self.site.cast().name(node)
    }

    /// Lets time pass, and lets happen what is due.
    async fn pass(&mut self, until: Time) -> Going {
        loop {
            self.look()?;
            self.check_pending().await?;
            let now = self.now();
            if now >= until {
                return Ok(());
            }
            let next = until.min(now.after(S::LOOK)).min(self.faults.due());
            self.site.sleep(next.since(now).max(Duration::from_millis(1))).await;
        }
    }

    /// One look at everything that does not wait.
    fn look(&mut self) -> Going {
        self.take_in()?;
        let now = self.now();
        let limits = self.scenario.limits;
        let limit = if self.site.events() > limits.max_events {
            Some(("max_events", format!("more than {} events happened", limits.max_events)))
        } else if now > Time::default().after(limits.time_limit.duration()) {
            Some(("time_limit", format!("more than {} passed", limits.time_limit)))
        } else {
            None
        };
        if let Some((limit, detail)) = limit {
            return Err(End::Found(Box::new(Found {
                verdict: Verdict::Inconclusive,
                property: limit.to_owned(),
                sentence: "The scenario ends within its limits.".to_owned(),
                line: 1,
                node: None,
                detail,
                place: None,
            })));
        }
        self.drive_faults()?;
        self.drive_workloads();
        if self.sampled_at.after(SAMPLE) <= now {
            self.sampled_at = now;
            self.sample();
        }
        self.note_situations();
        Ok(())
    }

    /// Takes in what nodes told, and judges how processes ended.
    fn take_in(&mut self) -> Going {
        let heard = self.site.hear().map_err(|stop| self.stopped(stop))?;
        for heard in heard {
            match heard {
                Heard::Told { node, at, told } => self.witness.told(node, at, told),
                Heard::Ended { node, asked } => {
                    self.witness.ended(node);
                    self.judge_end(node, asked)?;
                }
            }
        }
        Ok(())
    }

    /// A process ends only when it is told to, or when a step says how.
    fn judge_end(&self, node: NodeId, asked: bool) -> Going {
        let Some(ended) = self.site.exit(node) else { return Ok(()) };
        let mut allowed = self.allowed_exits.iter();
        if asked && ended.is(0) || allowed.any(|(other, code)| *other == node && ended.is(*code)) {
            return Ok(());
        }
        let name = self.name(node).to_owned();
        // Where there is more to be seen, they are shown with every failure.
        let lines = if self.site.more().is_some() {
            String::new()
        } else {
            let lines: Vec<_> = self.witness.of(node).newest_lines(LINES_SHOWN).collect();
            format!(". Its last lines: {}", lines.join("; "))
        };
        Err(End::Found(Box::new(Found {
            verdict: Verdict::Violated,
            property: "unexpected-exit".to_owned(),
            sentence: "A process ends only when it is told to, or when a step says how.".to_owned(),
            line: 1,
            detail: format!("{name} ended with {}{lines}", ended.how),
            node: Some(name),
            place: None,
        })))
    }

    /// Why the site stops, for the result.
    fn stopped(&self, stop: Stop) -> End {
        match stop {
            Stop::Interrupted => End::Interrupted,
            Stop::Broken(reason) => End::Broken(reason),
            Stop::Breach(breach) => self.broken_by(breach),
        }
    }

    /// A property is broken.
    fn broken_by(&self, breach: Breach) -> End {
        let named = self.scenario.expects.iter().find(|expect| match &expect.what {
            Expectation::Always(always) => always.verb() == breach.property,
            Expectation::Eventually { .. } | Expectation::Sometimes { .. } => false,
        });
        End::Found(Box::new(Found {
            verdict: Verdict::Violated,
            property: breach.property.to_owned(),
            sentence: named.map_or_else(|| breach.sentence.to_owned(), |expect| expect.say.clone()),
            line: named.map_or(1, |expect| expect.place.line),
            node: Some(breach.node),
            detail: breach.detail,
            place: breach.place,
        }))
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
                && let Some(why) = self.site.cannot_tell(always)
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
            place: None,
        })
    }

    fn step_id(&self) -> Option<&'a str> {
        let scenario: &'a Scenario = self.scenario;
        self.step.and_then(|step| scenario.steps.get(step)).map(|step| step.id.as_str())
    }

    /// The line of the step that is carried out.
    fn line(&self) -> u32 {
        self.step.and_then(|step| self.scenario.steps.get(step)).map_or(1, |step| step.place.line)
    }

    /// The servers of a deployment that are up.
    fn servers_up(&self, home: usize) -> Vec<NodeId> {
        self.up(home, Role::Server)
    }

    /// The server of a deployment that leads: of several that say so, the one with the newest term.
    fn leader(&self, home: usize) -> Option<NodeId> {
        let term = |node: &NodeId| {
            let known = self.witness.of(*node);
            known.leader.filter(|_| known.leads())
        };
        self.servers_up(home).into_iter().filter(|node| term(node).is_some()).max_by_key(term)
    }

    /// Makes the network as steps and faults want it.
    fn rewire(&mut self) {
        self.site.wire(self.wires.paths(self.faults.hindered()));
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
                Sometimes::WritesLost {} => self.site.writes_were_lost(),
                Sometimes::FaultFired { fault } => self.faults.fired(&fault.0) > 0,
            };
            if happened {
                self.sometimes.insert(expect.id.clone(), true);
            }
        }
    }

    /// The greatest value that any server shows, for each metric that a threshold is about; lengths of time in
    /// milliseconds.
    fn sample(&mut self) {
        for threshold in &self.scenario.thresholds {
            let metric = threshold.metric;
            for node in self.servers_up(0) {
                let value = match metric {
                    // One for each round, at the end.
                    Metric::Anonymity => None,
                    Metric::RoundDuration => {
                        let longest = self.witness.of(node).longest_round;
                        longest.and_then(|longest| u64::try_from(longest.as_millis()).ok())
                    }
                    Metric::RoundStalled => self.site.metric(node, metric.name()),
                    _ => self.site.metric(node, metric.name()).map(|thousandths| thousandths / 1_000),
                };
                let Some(value) = value else { continue };
                let greatest = self.samples.entry(metric).or_default();
                *greatest = value.max(*greatest);
            }
        }
    }

    /// What the run came to.
    fn finish(mut self, found: Option<Found>) -> RunResult {
        self.sample();
        self.note_situations();
        let now = self.now();
        let verdict = found.as_ref().map_or(Verdict::Held, |found| found.verdict);
        let failure = found.map(|found| self.failure(found));
        let Outcome { counts, live, chain, events, checkpoints, crowds } = self.site.outcome();
        let totals = self.witness.totals();
        let thresholds = self.scenario.thresholds.iter().map(|threshold| {
            let samples = if threshold.metric == Metric::Anonymity {
                let times = |rounds: u64| usize::try_from(rounds).unwrap_or(usize::MAX);
                crowds.iter().flat_map(|(crowd, rounds)| iter::repeat_n(*crowd, times(*rounds))).collect()
            } else {
                self.samples.get(&threshold.metric).copied().into_iter().collect()
            };
            (threshold.id.clone(), samples)
        });
        RunResult {
            scenario: String::new(),
            title: self.scenario.title.clone(),
            seed: 0,
            defect: None,
            live,
            verdict,
            chain,
            events,
            simulated_s: Seconds::from_nanos(now.0),
            cpu_s: Seconds::ZERO,
            wall_s: Seconds::ZERO,
            repeated: false,
            counts: Counts {
                elections: totals.elections,
                rounds_opened: totals.opened,
                rounds_finalized: totals.finalized,
                rounds_abandoned: totals.abandoned,
                ..counts
            },
            faults: self.faults.counts(),
            sometimes: self.sometimes.clone(),
            thresholds: thresholds.collect(),
            steps: self.steps.clone(),
            draws: self.draws(),
            not_controlled: self.site.left_out(),
            failure,
            checkpoints,
            window: Vec::new(),
        }
    }

    /// Where each stream stands.
    fn draws(&self) -> BTreeMap<String, String> {
        let streams = [
            ("steps", &self.random),
            ("faults", self.faults.stream()),
            ("workloads", self.workloads.stream()),
        ];
        streams.map(|(name, random)| (name.to_owned(), format!("{:016x}", random.standing()))).into()
    }

    fn failure(&self, found: Found) -> Failure {
        let here = (self.site.events().saturating_sub(1), self.now());
        let (event, at) = found.place.unwrap_or(here);
        self.site.note(&format!("{} {}: {}", found.verdict, found.property, found.detail));
        let mut detail = found.detail;
        if let Some(more) = self.site.more() {
            let named = |name: &String| self.site.cast().all().find(|(_, member)| member.name == *name);
            if let Some((node, member)) = found.node.as_ref().and_then(named) {
                detail.push_str(&format!("\nthe last lines of {}:", member.name));
                for line in self.witness.of(node).newest_lines(LINES_SHOWN) {
                    detail.push_str(&format!("\n  {line}"));
                }
            }
            detail.push_str(&format!("\n{more}"));
        }
        Failure {
            property: found.property,
            event,
            at_s: Seconds::from_nanos(at.0),
            node: found.node,
            sentence: found.sentence,
            file: String::new(),
            line: u64::from(found.line),
            detail,
            reproduce: String::new(),
        }
    }
}
