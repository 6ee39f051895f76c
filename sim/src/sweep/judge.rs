//! What the runs of a scenario add up to.

use zipnet_reports::{Exit, RunResult, Verdict};
use zipnet_scenarios::scenario::Threshold;
use zipnet_scenarios::words::{Stat, Word as _};

use super::selection::{Demand, bound};
use super::task::{Hunt, Task};

/// What a scenario came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// The gravest of everything in it.
    pub(crate) exit: Exit,
    /// What no single run shows. Empty if each run speaks for itself.
    pub(crate) findings: Vec<Finding>,
    /// One clause about the planted defect, if there was one.
    pub(crate) hunt: Option<String>,
}

/// Something that is wrong with a scenario as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What kind of wrong.
    pub(crate) exit: Exit,
    /// What was not met.
    pub(crate) property: String,
    /// What the scenario says about it.
    pub(crate) sentence: String,
    /// Its line in the scenario file.
    pub(crate) line: u32,
    /// What was found instead.
    pub(crate) detail: String,
}

/// Judges a scenario; `cut` is why it could not be finished.
pub(crate) fn judge(task: &Task, cut: Option<&str>) -> Judgement {
    let mut findings = Vec::new();
    let unfinished = !task.is_finished();
    if unfinished {
        let made = task.runs();
        findings.push(Finding {
            exit: Exit::Inconclusive,
            property: "completeness".to_owned(),
            sentence: "Every run that was asked for is made.".to_owned(),
            line: 1,
            detail: format!("only {made} were made: {}", cut.unwrap_or("the sweep ended early")),
        });
    }
    // A demand that some seed meets needs all seeds; so does a statistic. What already happened stays happened.
    // Without any result there is nothing to judge, and the broken runs say enough.
    let results: Vec<&RunResult> = task.sweep.results().collect();
    if task.judged_over_seeds && !unfinished && !results.is_empty() {
        let seeds = results.len();
        for demand in &task.scenario.sometimes {
            if !results.iter().any(|result| result.sometimes.get(&demand.id) == Some(&true)) {
                findings.push(never(demand, format!("it happened in none of {seeds} seeds")));
            }
        }
        for fault in &task.scenario.faults {
            if !results.iter().any(|result| result.faults.get(&fault.id).is_some_and(|times| *times > 0)) {
                findings.push(never(fault, format!("the fault fired in none of {seeds} seeds")));
            }
        }
        findings
            .extend(task.scenario.thresholds.iter().filter_map(|threshold| exceeded(threshold, &results)));
    }
    let hunt = task.hunt.as_ref().map(|hunt| hunted(task, hunt, unfinished, &mut findings));

    let mut exit = Exit::Held;
    for done in task.sweep.done.values() {
        exit = exit.and(done.as_ref().map_or(Exit::Internal, RunResult::exit));
    }
    if let Some(hunt) = &task.hunt
        && hunt.done.values().any(Result::is_err)
    {
        exit = exit.and(Exit::Internal);
    }
    for finding in &findings {
        exit = exit.and(finding.exit);
    }
    Judgement { exit, findings, hunt }
}

fn never(demand: &Demand, detail: String) -> Finding {
    Finding {
        exit: Exit::Inconclusive,
        property: demand.id.clone(),
        sentence: demand.say.clone(),
        line: demand.line,
        detail,
    }
}

/// Says what came of a planted defect.
fn hunted(task: &Task, hunt: &Hunt, unfinished: bool, findings: &mut Vec<Finding>) -> String {
    let defect = &hunt.planted.defect;
    let expected = hunt.planted.property.as_deref().unwrap_or("a failure of any kind");
    let seeds = hunt.done.len();
    let mut wrong = |detail: String| {
        findings.push(Finding {
            exit: Exit::Violated,
            property: "defect-is-found".to_owned(),
            sentence: format!("Without the guard {defect} this scenario fails, reported as {expected}."),
            line: 1,
            detail: detail.clone(),
        });
        detail
    };
    let Some(seed) = hunt.end() else {
        return if unfinished {
            format!("{defect} not found so far, in {seeds} seeds")
        } else {
            wrong(format!("{defect} was not found in {seeds} seeds"))
        };
    };
    let Ok(result) = &hunt.done[&seed] else {
        return format!("the run with {defect} broke at seed {seed}");
    };
    let seen = result.failure.as_ref().map_or("nothing", |failure| failure.property.as_str());
    if !hunt.is_find(result) {
        return wrong(format!(
            "{defect} was reported as {seen} at seed {seed}, which is wrong: expected {expected}"
        ));
    }
    let mut clause = format!("{defect} found at seed {seed} as {seen}");
    if task.scenario.canary.is_some() {
        let control = task.sweep.results().filter(|result| result.verdict == Verdict::Held).count();
        let (first, last) = (hunt.done.keys().next(), hunt.done.keys().next_back());
        let (first, last) = (first.unwrap_or(&seed), last.unwrap_or(&seed));
        clause.push_str(&if control == seeds {
            format!("; without it {first}..{last} held")
        } else {
            format!("; without it only {control} of {seeds} seeds held")
        });
    }
    clause
}

fn exceeded(threshold: &Threshold, results: &[&RunResult]) -> Option<Finding> {
    let mut samples: Vec<u64> =
        results.iter().filter_map(|result| result.thresholds.get(&threshold.id)).flatten().copied().collect();
    samples.sort_unstable();
    let finding = |exit, detail| Finding {
        exit,
        property: threshold.id.clone(),
        sentence: threshold.say.clone(),
        line: threshold.place.line,
        detail,
    };
    let Some(value) = statistic(threshold.stat, &samples) else {
        return Some(finding(Exit::Inconclusive, "no run has a value for it".to_owned()));
    };
    let (metric, stat) = (threshold.metric.name(), threshold.stat.name());
    let unit = if threshold.metric.is_time() { " ms" } else { "" };
    let shown = |bound: u64, side: &str| {
        format!(
            "{stat} of {metric} over {} runs is {value}{unit}, expected {side} {bound}{unit}",
            samples.len()
        )
    };
    if let Some(min) = threshold.min.map(bound)
        && value < min
    {
        return Some(finding(Exit::Violated, shown(min, "at least")));
    }
    if let Some(max) = threshold.max.map(bound)
        && value > max
    {
        return Some(finding(Exit::Violated, shown(max, "at most")));
    }
    None
}

/// A statistic of sorted samples by nearest rank: always a value that was measured.
fn statistic(stat: Stat, sorted: &[u64]) -> Option<u64> {
    let percent = match stat {
        Stat::Min => 0,
        Stat::P50 => 50,
        Stat::P90 => 90,
        Stat::P99 => 99,
        Stat::Max => 100,
    };
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::Options;
    use crate::sweep::choice::Choice;
    use crate::sweep::process::{Broken, Job, Outcome};
    use crate::sweep::selection::{Planted, Selected};
    use crate::sweep::tests::{canary, failed, options, plain, result};

    fn drive(scenario: Selected, options: &Options, mut run: impl FnMut(&Job) -> RunResult) -> Judgement {
        let mut task = Task::new(scenario, options);
        while let Some(job) = task.next(0) {
            let result = run(&job);
            task.take(&job, Outcome::Finished(Box::new(result)));
        }
        judge(&task, None)
    }

    fn demand(id: &str) -> Demand {
        Demand { id: id.into(), say: "It must happen.".into(), line: 9 }
    }

    #[test]
    fn the_gravest_run_decides() {
        for (verdicts, expected) in [
            (vec![Verdict::Held], Exit::Held),
            (vec![Verdict::Held, Verdict::Inconclusive], Exit::Inconclusive),
            (vec![Verdict::Inconclusive, Verdict::NotConverged], Exit::NotConverged),
            (vec![Verdict::Violated, Verdict::NotConverged], Exit::Violated),
            (vec![Verdict::Violated, Verdict::Diverged, Verdict::Held], Exit::Violated),
            (vec![Verdict::Diverged, Verdict::NotConverged], Exit::Diverged),
        ] {
            let judgement = drive(plain(), &options(), |job| {
                let index = usize::try_from(job.seed).unwrap() % verdicts.len();
                result(job.seed, verdicts[index])
            });
            assert_eq!(judgement.exit, expected, "{verdicts:?}");
            assert!(judgement.findings.is_empty());
        }
    }

    #[test]
    fn a_broken_run_outranks_all_but_a_violation() {
        for (other, expected) in [
            (failed(0, "agreement"), Exit::Violated),
            (result(0, Verdict::NotConverged), Exit::Internal),
            (result(0, Verdict::Held), Exit::Internal),
        ] {
            let mut task = Task::new(plain(), &options());
            let job = task.next(0).unwrap();
            task.take(&job, Outcome::Finished(Box::new(other)));
            let job = task.next(0).unwrap();
            let broken = Broken { what: "killed".into(), said: String::new(), reproduce: String::new() };
            task.take(&job, Outcome::Broken(broken));
            assert_eq!(judge(&task, None).exit, expected);
        }
    }

    #[test]
    fn what_must_happen_in_some_seed_makes_a_sweep_inconclusive_if_it_never_does() {
        let scenario = || Selected { sometimes: vec![demand("abandoned")], ..plain() };
        let happens = |seed, when: Option<u64>| RunResult {
            sometimes: [("abandoned".to_owned(), Some(seed) == when)].into(),
            ..result(seed, Verdict::Held)
        };
        let never = drive(scenario(), &options(), |job| happens(job.seed, None));
        assert_eq!((never.exit, never.findings[0].line), (Exit::Inconclusive, 9));
        let once = drive(scenario(), &options(), |job| happens(job.seed, Some(19)));
        assert_eq!(once.exit, Exit::Held);
        let single = Options { seeds: Choice::One(3), ..options() };
        assert_eq!(drive(scenario(), &single, |job| happens(job.seed, None)).exit, Exit::Held);
    }

    #[test]
    fn a_fault_that_never_fired_makes_a_sweep_inconclusive() {
        let scenario = || Selected { faults: vec![demand("crash")], ..plain() };
        let fires = |seed, times| RunResult {
            faults: [("crash".to_owned(), times)].into(),
            ..result(seed, Verdict::Held)
        };
        assert_eq!(drive(scenario(), &options(), |job| fires(job.seed, 0)).exit, Exit::Inconclusive);
        assert_eq!(
            drive(scenario(), &options(), |job| result(job.seed, Verdict::Held)).exit,
            Exit::Inconclusive
        );
        assert_eq!(drive(scenario(), &options(), |job| fires(job.seed, job.seed / 19)).exit, Exit::Held);
    }

    #[test]
    fn a_sweep_that_was_cut_is_inconclusive_and_keeps_what_it_found() {
        let mut task = Task::new(plain(), &options());
        let job = task.next(0).unwrap();
        task.take(&job, Outcome::Finished(Box::new(result(0, Verdict::Held))));
        let cut = judge(&task, Some("the wall budget was used up"));
        assert_eq!(cut.exit, Exit::Inconclusive);
        assert!(cut.findings[0].detail.contains("only 1 were made: the wall budget was used up"));
        let job = task.next(0).unwrap();
        task.take(&job, Outcome::Finished(Box::new(failed(1, "agreement"))));
        assert_eq!(judge(&task, None).exit, Exit::Violated);
    }

    #[test]
    fn a_last_run_that_was_cut_is_not_made() {
        let single = Options { seeds: Choice::One(3), ..options() };
        let mut task = Task::new(plain(), &single);
        let job = task.next(0).unwrap();
        task.take(&job, Outcome::Cut);
        assert!(task.next(0).is_none() && !task.is_finished());
        assert_eq!(judge(&task, Some("the sweep was interrupted")).exit, Exit::Inconclusive);
    }

    #[test]
    fn a_canary_must_be_found_under_its_own_name_and_be_quiet_without_its_defect() {
        let hunt = |seen: &'static str, control: Verdict| {
            drive(canary(), &options(), move |job| match (&job.defect, job.seed) {
                (Some(_), 3) if !seen.is_empty() => failed(3, seen),
                (Some(_), seed) => result(seed, Verdict::Held),
                (None, seed) => result(seed, control),
            })
        };
        let found = hunt("agreement", Verdict::Held);
        assert_eq!(found.exit, Exit::Held);
        assert_eq!(
            found.hunt.as_deref(),
            Some("broadcast-from-log found at seed 3 as agreement; without it 0..3 held")
        );
        let wrong = hunt("durability", Verdict::Held);
        assert_eq!(wrong.exit, Exit::Violated);
        assert!(wrong.hunt.unwrap().contains("reported as durability at seed 3, which is wrong"));
        let missed = hunt("", Verdict::Held);
        assert_eq!(missed.exit, Exit::Violated);
        assert!(missed.hunt.unwrap().contains("was not found in 50 seeds"));
        assert_eq!(hunt("agreement", Verdict::Violated).exit, Exit::Violated);
    }

    #[test]
    fn a_misuse_must_fail_without_its_guard() {
        let planted = Planted { defect: "log-yields".into(), property: None };
        let misuse = || Selected { control: Some(planted.clone()), ..plain() };
        let with_control = Options { control: true, ..options() };
        let fails = drive(misuse(), &with_control, |job| match job.defect {
            Some(_) => failed(job.seed, "agreement"),
            None => result(job.seed, Verdict::Held),
        });
        assert_eq!(
            (fails.exit, fails.hunt.as_deref()),
            (Exit::Held, Some("log-yields found at seed 0 as agreement"))
        );
        let holds = drive(misuse(), &with_control, |job| result(job.seed, Verdict::Held));
        assert_eq!(holds.exit, Exit::Violated);
    }

    #[test]
    fn a_statistic_is_a_value_that_was_measured() {
        let samples: Vec<u64> = (1..=200).collect();
        for (stat, expected) in
            [(Stat::Min, 1), (Stat::P50, 100), (Stat::P90, 180), (Stat::P99, 198), (Stat::Max, 200)]
        {
            assert_eq!(statistic(stat, &samples), Some(expected), "{}", stat.name());
            assert_eq!(statistic(stat, &[7]), Some(7));
            assert_eq!(statistic(stat, &[]), None);
        }
    }
}
