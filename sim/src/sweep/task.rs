//! One scenario of a sweep: which runs it needs, in which order, and when it is done.

use core::ops::RangeInclusive;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use zipnet_reports::{RunResult, Verdict};

use super::Options;
use super::choice::{Choice, DEFAULT_SEEDS, HUNT_SEEDS, Permille, Seeds, Shard};
use super::process::{Broken, Job, Outcome, Part};
use super::selection::{Planted, Selected};
use crate::determinism;

/// A scenario and its runs.
#[derive(Debug)]
pub(crate) struct Task {
    /// The scenario.
    pub(crate) scenario: Selected,
    /// The runs that must hold.
    pub(crate) sweep: Sweep,
    /// The runs that must fail, if there are such.
    pub(crate) hunt: Option<Hunt>,
    /// Whether what must happen in some seed is judged.
    pub(crate) judged_over_seeds: bool,
    check_determinism: Permille,
    live: Option<PathBuf>,
    defect: Option<String>,
    out: Option<PathBuf>,
}

/// Runs that must hold.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    waiting: Schedule,
    running: BTreeSet<u64>,
    /// A run was ended before it had a result.
    is_cut: bool,
    /// What came of each finished run.
    pub(crate) done: BTreeMap<u64, Result<RunResult, Broken>>,
}

/// Runs with a planted defect, until it is found.
#[derive(Debug)]
pub(crate) struct Hunt {
    /// What is planted and what must be seen.
    pub(crate) planted: Planted,
    /// Whether the same seeds are run without the defect once it is found.
    then_without: bool,
    waiting: Schedule,
    running: BTreeSet<u64>,
    /// A run was ended before it had a result.
    is_cut: bool,
    /// What came of each finished run.
    pub(crate) done: BTreeMap<u64, Result<RunResult, Broken>>,
    is_over: bool,
}

/// Seeds that wait to be run, smallest first.
#[derive(Clone, Debug, Default)]
struct Schedule {
    seeds: Option<RangeInclusive<u64>>,
    /// Every how many seeds one is ours; zero stands for one.
    stride: u64,
}

impl Task {
    /// The task that runs a scenario as the options say.
    pub(crate) fn new(scenario: Selected, options: &Options) -> Self {
        let schedule = |default| match options.seeds {
            Choice::Default => Schedule::new(Seeds::count(default), options.shard),
            Choice::One(seed) => {
                Schedule::new(Seeds::Through { first: seed, last: seed }, Shard { index: 0, count: 1 })
            }
            Choice::Sweep(seeds) => Schedule::new(seeds, options.shard),
        };
        let hunt_for = |planted: &Planted, then_without| {
            let waiting = schedule(HUNT_SEEDS);
            Hunt {
                planted: planted.clone(),
                then_without,
                is_over: waiting.is_empty(),
                waiting,
                running: BTreeSet::new(),
                is_cut: false,
                done: BTreeMap::new(),
            }
        };
        let planted_by_hand = options.defect.is_some();
        // Nothing can be planted in real binaries.
        let hunts = !planted_by_hand && options.live.is_none();
        let canary = scenario.canary.as_ref().filter(|_| hunts);
        let control = scenario.control.as_ref().filter(|_| options.control);
        let hunt = canary
            .map(|planted| hunt_for(planted, true))
            .or_else(|| control.map(|planted| hunt_for(planted, false)));
        // The control of a canary is run once it is known over which seeds.
        let waiting = if canary.is_some() { Schedule::default() } else { schedule(DEFAULT_SEEDS) };
        let judged_over_seeds = canary.is_none() && hunts && !matches!(options.seeds, Choice::One(_));
        Self {
            scenario,
            sweep: Sweep { waiting, ..Sweep::default() },
            hunt,
            judged_over_seeds,
            check_determinism: options.check_determinism,
            live: options.live.clone(),
            defect: options.defect.clone(),
            out: options.out.clone(),
        }
    }

    /// Whether there is nothing to run from the start.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_finished()
            && self.sweep.done.is_empty()
            && self.hunt.as_ref().is_none_or(|hunt| hunt.done.is_empty())
    }

    /// Whether every run that is needed was made.
    pub(crate) fn is_finished(&self) -> bool {
        self.sweep.is_finished() && self.hunt.as_ref().is_none_or(Hunt::is_finished)
    }

    /// How many runs were made.
    pub(crate) fn runs(&self) -> usize {
        self.sweep.done.len() + self.hunt.as_ref().map_or(0, |hunt| hunt.done.len())
    }

    /// The next run to make, if one can be made right now.
    pub(crate) fn next(&mut self, index: usize) -> Option<Job> {
        if let Some((seed, defect)) =
            self.hunt.as_mut().and_then(|hunt| Some((hunt.next()?, hunt.planted.defect.clone())))
        {
            return Some(self.job(index, Part::Hunt, seed, Some(defect), false));
        }
        let seed = self.sweep.next()?;
        let repeat = determinism::is_selected(&self.scenario.path, seed, self.check_determinism);
        Some(self.job(index, Part::Sweep, seed, self.defect.clone(), repeat))
    }

    fn job(&self, task: usize, part: Part, seed: u64, defect: Option<String>, repeat: bool) -> Job {
        let folder = match (part, &defect) {
            (Part::Hunt, Some(name)) => format!("{seed}-with-{name}"),
            (Part::Hunt, None) | (Part::Sweep, _) => seed.to_string(),
        };
        let out = self.out.as_ref().map(|out| out.join(&self.scenario.name).join(folder));
        let (scenario, live) = (PathBuf::from(&self.scenario.path), self.live.clone());
        let text = Arc::clone(&self.scenario.text);
        Job { task, part, scenario, text, seed, live, defect, repeat, out }
    }

    /// Takes in what came of a run. Returns whether it went wrong.
    pub(crate) fn take(&mut self, job: &Job, outcome: Outcome) -> bool {
        let result = match outcome {
            Outcome::Finished(result) => Ok(RunResult { steps: Vec::new(), ..result.without_checkpoints() }),
            Outcome::Broken(broken) => Err(broken),
            Outcome::Cut => {
                // Not made after all: the sweep is about to end.
                let (running, is_cut) = match job.part {
                    Part::Sweep => (&mut self.sweep.running, &mut self.sweep.is_cut),
                    Part::Hunt => {
                        let hunt = self.hunt.as_mut().expect("the job came from it");
                        (&mut hunt.running, &mut hunt.is_cut)
                    }
                };
                running.remove(&job.seed);
                *is_cut = true;
                return false;
            }
        };
        match job.part {
            Part::Sweep => {
                let went_wrong = result.as_ref().map_or(true, |result| result.verdict != Verdict::Held);
                self.sweep.running.remove(&job.seed);
                self.sweep.done.insert(job.seed, result);
                went_wrong
            }
            Part::Hunt => {
                let broken = result.is_err();
                let hunt = self.hunt.as_mut().expect("the job came from it");
                hunt.take(job.seed, result);
                if hunt.is_finished() && hunt.then_without {
                    hunt.then_without = false;
                    self.sweep.waiting = Schedule::from_seeds(hunt.done.keys().copied());
                }
                broken
            }
        }
    }
}

impl Sweep {
    fn next(&mut self) -> Option<u64> {
        let seed = self.waiting.next()?;
        self.running.insert(seed);
        Some(seed)
    }

    fn is_finished(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && !self.is_cut
    }

    /// How many runs there will be in the end, those that were made included.
    pub(crate) fn len(&self) -> u64 {
        let here = u64::try_from(self.done.len().saturating_add(self.running.len())).unwrap_or(u64::MAX);
        here.saturating_add(self.waiting.len())
    }

    /// The results of the runs that have one, by seed.
    pub(crate) fn results(&self) -> impl Iterator<Item = &RunResult> {
        self.done.values().filter_map(|done| done.as_ref().ok())
    }
}

impl Hunt {
    fn next(&mut self) -> Option<u64> {
        if self.is_over {
            return None;
        }
        let seed = self.waiting.next()?;
        self.running.insert(seed);
        Some(seed)
    }

    fn take(&mut self, seed: u64, result: Result<RunResult, Broken>) {
        self.running.remove(&seed);
        self.done.insert(seed, result);
        // Seeds that were started before are waited for, so that the smallest one is reported with any number of jobs.
        self.is_over = self.end().is_some() || self.waiting.is_empty();
        if let Some(end) = self.end()
            && self.running.range(..end).next().is_none()
        {
            self.done.retain(|seed, _| *seed <= end);
        }
    }

    /// The smallest seed whose run settles the hunt, among those that finished.
    pub(crate) fn end(&self) -> Option<u64> {
        self.done.iter().find(|(_, done)| self.settles(done)).map(|(seed, _)| *seed)
    }

    /// Whether a run ends the hunt: the defect was found, mistaken for another one, or nothing was learnt.
    fn settles(&self, done: &Result<RunResult, Broken>) -> bool {
        match done {
            Err(_) => true,
            Ok(result) => match result.verdict {
                Verdict::Violated | Verdict::Diverged => true,
                Verdict::NotConverged => self.is_find(result),
                Verdict::Held | Verdict::Inconclusive => false,
            },
        }
    }

    /// Whether a run found what it had to find.
    pub(crate) fn is_find(&self, result: &RunResult) -> bool {
        let failed = match result.verdict {
            Verdict::Violated | Verdict::Diverged | Verdict::NotConverged => true,
            Verdict::Held | Verdict::Inconclusive => false,
        };
        let seen = result.failure.as_ref().map(|failure| failure.property.as_str());
        failed && self.planted.property.as_deref().is_none_or(|expected| seen == Some(expected))
    }

    fn is_finished(&self) -> bool {
        self.is_over && self.running.is_empty() && !self.is_cut
    }
}

impl Schedule {
    fn new(seeds: Seeds, shard: Shard) -> Self {
        let seeds = seeds.range().and_then(|range| {
            let first = range.start().checked_add(shard.index)?;
            (first <= *range.end()).then(|| first..=*range.end())
        });
        Self { seeds, stride: shard.count }
    }

    /// Exactly these seeds, which are equally far from each other.
    fn from_seeds(mut seeds: impl Iterator<Item = u64>) -> Self {
        let Some(first) = seeds.next() else { return Self::default() };
        let second = seeds.next();
        let stride = second.map_or(1, |second| second.saturating_sub(first));
        let last = seeds.last().or(second).unwrap_or(first);
        Self { seeds: Some(first..=last), stride }
    }

    const fn is_empty(&self) -> bool {
        self.seeds.is_none()
    }

    fn len(&self) -> u64 {
        let span = self.seeds.as_ref().map(|seeds| seeds.end().saturating_sub(*seeds.start()));
        span.map_or(0, |span| (span / self.stride.max(1)).saturating_add(1))
    }

    fn next(&mut self) -> Option<u64> {
        let seeds = self.seeds.take()?;
        let (seed, last) = (*seeds.start(), *seeds.end());
        self.seeds =
            seed.checked_add(self.stride.max(1)).filter(|next| *next <= last).map(|next| next..=last);
        Some(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::tests::{canary, failed, options, plain, result};

    fn all(mut schedule: Schedule) -> Vec<u64> {
        let len = schedule.len();
        let seeds: Vec<u64> = core::iter::from_fn(|| schedule.next()).collect();
        assert_eq!(u64::try_from(seeds.len()).unwrap(), len);
        seeds
    }

    /// Runs a task one job after the other; returns which seeds were run for what.
    fn drive(task: &mut Task, mut run: impl FnMut(&Job) -> RunResult) -> Vec<(Part, u64)> {
        let mut made = Vec::new();
        while let Some(job) = task.next(0) {
            made.push((job.part, job.seed));
            let result = run(&job);
            task.take(&job, Outcome::Finished(Box::new(result)));
        }
        assert!(task.is_finished());
        made
    }

    #[test]
    fn shards_share_out_every_seed_exactly_once() {
        let seeds = Seeds::Through { first: 10, last: 20 };
        let mut shared: Vec<u64> =
            (0..3).flat_map(|index| all(Schedule::new(seeds, Shard { index, count: 3 }))).collect();
        shared.sort_unstable();
        assert_eq!(shared, (10..=20).collect::<Vec<_>>());
        assert!(all(Schedule::new(Seeds::count(2), Shard { index: 2, count: 3 })).is_empty());
    }

    #[test]
    fn the_last_seed_of_all_is_run() {
        let seeds = Seeds::Through { first: u64::MAX - 1, last: u64::MAX };
        assert_eq!(all(Schedule::new(seeds, Shard { index: 0, count: 1 })), [u64::MAX - 1, u64::MAX]);
    }

    #[test]
    fn a_scenario_is_run_with_twenty_seeds_unless_told_otherwise() {
        let mut task = Task::new(plain(), &options());
        assert_eq!(drive(&mut task, |job| result(job.seed, Verdict::Held)).len(), 20);
        assert!(task.judged_over_seeds);
    }

    #[test]
    fn a_single_seed_is_not_judged_as_a_sweep() {
        let mut task = Task::new(plain(), &Options { seeds: Choice::One(7), ..options() });
        assert_eq!(drive(&mut task, |job| result(job.seed, Verdict::Held)), [(Part::Sweep, 7)]);
        assert!(!task.judged_over_seeds);
    }

    #[test]
    fn runs_on_real_processes_are_no_sweep() {
        let live = Some(PathBuf::from("target/release"));
        let mut task =
            Task::new(canary(), &Options { live, seeds: Choice::Sweep(Seeds::count(2)), ..options() });
        assert_eq!(
            drive(&mut task, |job| result(job.seed, Verdict::Held)),
            [(Part::Sweep, 0), (Part::Sweep, 1)]
        );
        assert!(!task.judged_over_seeds);
    }

    #[test]
    fn no_seed_makes_an_idle_task() {
        assert!(Task::new(plain(), &Options { seeds: Choice::Sweep(Seeds::None), ..options() }).is_idle());
        assert!(Task::new(canary(), &Options { seeds: Choice::Sweep(Seeds::None), ..options() }).is_idle());
    }

    #[test]
    fn a_found_canary_is_run_again_without_its_defect() {
        let mut task = Task::new(canary(), &options());
        let made = drive(&mut task, |job| match (&job.defect, job.seed) {
            (Some(_), 2) => failed(2, "agreement"),
            (Some(_) | None, seed) => result(seed, Verdict::Held),
        });
        let hunt = [0, 1, 2].map(|seed| (Part::Hunt, seed));
        let control = [0, 1, 2].map(|seed| (Part::Sweep, seed));
        assert_eq!(made, [hunt, control].concat());
        assert_eq!(task.hunt.unwrap().end(), Some(2));
    }

    #[test]
    fn a_canary_that_is_not_found_is_looked_for_in_fifty_seeds() {
        let mut task = Task::new(canary(), &options());
        let made = drive(&mut task, |job| result(job.seed, Verdict::Held));
        assert_eq!(made.iter().filter(|(part, _)| *part == Part::Hunt).count(), 50);
        assert_eq!(task.hunt.unwrap().end(), None);
    }

    #[test]
    fn the_smallest_seed_is_reported_however_runs_overtake_each_other() {
        let mut task = Task::new(canary(), &options());
        let jobs: Vec<Job> = (0..4).map(|_| task.next(0).unwrap()).collect();
        for index in [3, 2] {
            task.take(&jobs[index], Outcome::Finished(Box::new(failed(jobs[index].seed, "agreement"))));
        }
        assert!(task.next(0).is_none(), "no seed behind a find is started");
        assert!(!task.is_finished(), "seeds before the find are still running");
        task.take(&jobs[0], Outcome::Finished(Box::new(result(0, Verdict::Held))));
        task.take(&jobs[1], Outcome::Finished(Box::new(failed(1, "agreement"))));
        assert_eq!(task.hunt.as_ref().unwrap().end(), Some(1));
        let control = core::iter::from_fn(|| task.next(0)).map(|job| (job.part, job.seed));
        assert_eq!(control.collect::<Vec<_>>(), [(Part::Sweep, 0), (Part::Sweep, 1)]);
    }

    #[test]
    fn a_canary_that_is_no_other_failure_is_not_found_by_it() {
        let mut task = Task::new(canary(), &options());
        let hunt_before = drive(&mut task, |job| match (&job.defect, job.seed) {
            // A run that does not get anywhere is passed over, a violation of another property is not.
            (Some(_), 0) => RunResult { verdict: Verdict::NotConverged, ..failed(0, "rounds") },
            (Some(_), 1) => failed(1, "durability"),
            (Some(_) | None, seed) => result(seed, Verdict::Held),
        });
        assert_eq!(hunt_before.iter().filter(|(part, _)| *part == Part::Hunt).count(), 2);
        let hunt = task.hunt.unwrap();
        let settled = hunt.done[&hunt.end().unwrap()].as_ref().unwrap();
        assert!(!hunt.is_find(settled));
    }

    #[test]
    fn a_control_runs_beside_the_sweep_only_when_asked_for() {
        let planted = Planted { defect: "floor-ignored".into(), property: None };
        let misuse = || Selected { control: Some(planted.clone()), ..plain() };
        assert!(Task::new(misuse(), &options()).hunt.is_none());
        let mut task = Task::new(misuse(), &Options { control: true, ..options() });
        let made = drive(&mut task, |job| match &job.defect {
            Some(_) => RunResult { verdict: Verdict::NotConverged, ..failed(job.seed, "rounds") },
            None => result(job.seed, Verdict::Held),
        });
        assert_eq!(made.iter().filter(|(part, _)| *part == Part::Hunt).count(), 1);
        assert_eq!(made.iter().filter(|(part, _)| *part == Part::Sweep).count(), 20);
        assert!(task.judged_over_seeds);
    }
}
