//! What a sweep prints while it goes on, and what it leaves behind.

use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};

use zipnet_reports::{Case, Counts, Exit, Outcome as CaseOutcome, RunResult, Seconds, Suite, Verdict, junit};

use super::Options;
use super::judge::{Finding, Judgement, judge};
use super::process::{Broken, Job, Outcome, Part};
use super::task::Task;
use crate::say::{Format, note, say, warn};
use crate::stopwatch::Stopwatch;

/// Failures shown in full per scenario; the rest is counted.
const SHOWN: usize = 3;

/// Lines that are shown of the beginning of a broken run's own words, and of their end.
const SAID: usize = 12;

/// Prints what happens. Results go to standard output, progress to standard error.
#[derive(Debug)]
pub(crate) struct Reporter<'o> {
    options: &'o Options,
    watch: Stopwatch,
    /// By task: when its first run began, and how many failures were shown.
    started: BTreeMap<usize, Stopwatch>,
    shown: BTreeMap<usize, usize>,
    /// Tasks before this one have their line.
    settled: usize,
    exit: Exit,
    tally: Tally,
    suites: Vec<Suite>,
    width: usize,
    has_progress: bool,
    progress_is_shown: bool,
    is_coloured: bool,
    annotates: bool,
}

#[derive(Debug, Default)]
struct Tally {
    scenarios: usize,
    runs: usize,
    passed: usize,
    failed: usize,
    repeated: usize,
    simulated: Seconds,
    cpu: Seconds,
}

impl<'o> Reporter<'o> {
    /// A reporter that has printed nothing.
    pub(crate) fn new(options: &'o Options, tasks: &[Task]) -> Self {
        let is_human = options.format == Format::Human;
        Self {
            options,
            watch: Stopwatch::start(),
            started: BTreeMap::new(),
            shown: BTreeMap::new(),
            settled: 0,
            exit: Exit::Held,
            tally: Tally::default(),
            suites: Vec::new(),
            width: tasks.iter().map(|task| task.scenario.name.chars().count()).max().unwrap_or(0),
            has_progress: std::io::stderr().is_terminal(),
            progress_is_shown: false,
            is_coloured: is_human && std::io::stdout().is_terminal() && !is_set("NO_COLOR"),
            annotates: is_set("GITHUB_ACTIONS"),
        }
    }

    /// Notes that a run of this task begins.
    pub(crate) fn begin(&mut self, task: usize) {
        self.started.entry(task).or_insert_with(Stopwatch::start);
    }

    /// Shows how far the sweep is, on a terminal.
    pub(crate) fn progress(&mut self, tasks: &[Task]) {
        if !self.has_progress {
            return;
        }
        let runs: usize = tasks.iter().map(Task::runs).sum();
        let planned: u64 = tasks.iter().map(|task| task.sweep.len()).sum();
        let current = tasks.iter().find(|task| !task.is_finished());
        let current = current.map_or("", |task| task.scenario.name.as_str());
        let line =
            format!("{runs} runs of about {planned}, {}: {current}", time(self.watch.elapsed().into()));
        let mut to = std::io::stderr().lock();
        drop(write!(to, "\r\x1b[2K{line}").and_then(|()| to.flush()));
        self.progress_is_shown = true;
    }

    /// Prints what came of one run: a result line, or a failure in full.
    pub(crate) fn run(&mut self, task: &Task, job: &Job, outcome: &Outcome) {
        match outcome {
            Outcome::Cut => {}
            Outcome::Broken(broken) => {
                self.clear();
                warn(&describe_broken(&task.scenario.path, job.seed, broken));
                self.annotate(&task.scenario.path, 1, &broken.what);
            }
            Outcome::Finished(result) => {
                if self.options.format == Format::Json {
                    self.clear();
                    note(result.without_checkpoints().write_line(std::io::stdout().lock()));
                }
                if job.part == Part::Sweep && result.verdict != Verdict::Held {
                    self.failure(task, job, result);
                }
            }
        }
    }

    fn failure(&mut self, task: &Task, job: &Job, result: &RunResult) {
        let shown = self.shown.entry(job.task).or_default();
        *shown += 1;
        if *shown > SHOWN {
            return;
        }
        if self.options.format == Format::Human {
            let word = self.word(result.verdict.name(), result.verdict.exit());
            self.line(&format!("{word} {} seed {}\n{}", task.scenario.name, result.seed, describe(result)));
        }
        if let Some(failure) = &result.failure {
            let text = format!("{}: {} {}", failure.property, failure.sentence, failure.detail);
            self.annotate(&failure.file, failure.line, &text);
        }
    }

    /// Prints the line of each scenario that is finished, in the order of the selection.
    pub(crate) fn settle(&mut self, tasks: &[Task]) {
        while let Some(task) = tasks.get(self.settled).filter(|task| task.is_finished()) {
            self.scenario(task, None);
        }
    }

    /// Prints the rest and the summary, writes what was asked for, and returns the exit code.
    /// `unwritten` says what could not be written meanwhile.
    pub(crate) fn conclude(mut self, tasks: &mut [Task], cut: Option<&str>, unwritten: Option<&str>) -> Exit {
        while let Some(task) = tasks.get(self.settled) {
            self.scenario(task, cut);
        }
        self.clear();
        if let Some(path) = &self.options.junit
            && let Err(reason) = std::fs::write(path, junit(&self.suites))
        {
            warn(&format!("error: failed to write {}: {reason}", path.display()));
            self.exit = self.exit.and(Exit::Violated);
        }
        if let Some(sentence) = unwritten {
            warn(&format!("{sentence}\nThe results of this and perhaps of other runs are not complete."));
            self.exit = self.exit.and(Exit::Violated);
        }
        let tally = &self.tally;
        let mut summary = String::new();
        if let Some(reason) = cut {
            writeln!(summary, "stopped early: {reason}").expect("text grows without limit");
        }
        let (how, passed) = match &self.options.live {
            None => (format!("{} made twice and compared", tally.repeated), "simulated"),
            Some(folder) => (format!("on processes of {}", folder.display()), "of runs"),
        };
        write!(
            summary,
            "{}, {}, {how}: {}; {} {passed} in {}, {} CPU\n{} passed, {} failed",
            counted(tally.scenarios, "scenario"),
            counted(tally.runs, "run"),
            self.exit,
            time(tally.simulated),
            time(self.watch.elapsed().into()),
            time(tally.cpu),
            tally.passed,
            tally.failed,
        )
        .expect("text grows without limit");
        self.line(&summary);
        self.exit
    }

    fn scenario(&mut self, task: &Task, cut: Option<&str>) {
        let judgement = judge(task, cut);
        let elapsed = self.started.get(&self.settled).map_or(Seconds::ZERO, |watch| watch.elapsed().into());
        let hidden = self.shown.get(&self.settled).copied().unwrap_or(0).saturating_sub(SHOWN);
        self.settled += 1;
        self.exit = self.exit.and(judgement.exit);
        self.suites.push(suite(task, &judgement));
        for finding in &judgement.findings {
            self.annotate(&task.scenario.path, finding.line.into(), &clause(finding));
        }

        let all = results(task);
        let sums = Sums::of(&all);
        self.tally.scenarios += 1;
        self.tally.runs += task.runs();
        let held = task.sweep.results().filter(|result| result.verdict == Verdict::Held).count();
        self.tally.passed += held;
        self.tally.failed += task.sweep.done.len() - held + judgement.findings.len();
        if let Some(hunt) = &task.hunt {
            // What a hunt had to find counts as one run that passed; what it should not have seen is a finding.
            let broken = hunt.done.values().filter(|done| done.is_err()).count();
            self.tally.failed += broken;
            self.tally.passed += hunt.done.len() - broken;
        }
        self.tally.repeated += all.iter().filter(|result| result.repeated).count();
        self.tally.simulated = self.tally.simulated + sums.simulated;
        self.tally.cpu = self.tally.cpu + sums.cpu;

        let word = self.word(outcome_word(judgement.exit), judgement.exit);
        let passed = if self.options.live.is_some() { "of runs" } else { "simulated" };
        let mut text = format!(
            "{word} {:width$}  {:>9}  {:>12} {passed}  {:>8} wall  {:>8} CPU",
            task.scenario.name,
            counted(seeds(task), "seed"),
            time(sums.simulated),
            time(elapsed),
            time(sums.cpu),
            width = self.width,
        );
        let mut more = |line: &str| write!(text, "\n{INDENT}{line}").expect("text grows without limit");
        more(&sums.to_string());
        if !sums.not_controlled.is_empty() {
            more(&format!("not controlled: {}", sums.not_controlled.join(", ")));
        }
        // A finding about the hunt says the same at more length.
        if let Some(hunt) =
            judgement.hunt.as_ref().filter(|hunt| judgement.findings.iter().all(|f| f.detail != **hunt))
        {
            more(hunt);
        }
        for finding in &judgement.findings {
            more(&clause(finding));
            more(&format!("{}:{}", task.scenario.path, finding.line));
        }
        if hidden > 0 {
            more(&format!("and {} that did not hold", counted(hidden, "further run")));
        }
        self.line(&text);
    }

    /// Prints a line for people: with the results, or beside them where these are for machines.
    fn line(&mut self, text: &str) {
        self.clear();
        match self.options.format {
            Format::Human => say(text),
            Format::Json => warn(text),
        }
    }

    fn clear(&mut self) {
        if self.progress_is_shown {
            let mut to = std::io::stderr().lock();
            drop(write!(to, "\r\x1b[2K").and_then(|()| to.flush()));
            self.progress_is_shown = false;
        }
    }

    fn word(&self, word: &str, exit: Exit) -> String {
        if !self.is_coloured {
            return format!("{word:13}");
        }
        let colour = match exit {
            Exit::Held => 32,
            Exit::Inconclusive => 33,
            Exit::Violated
            | Exit::Usage
            | Exit::NothingSelected
            | Exit::Diverged
            | Exit::NotConverged
            | Exit::InvalidScenario
            | Exit::Internal
            | Exit::Configuration => 31,
        };
        format!("\x1b[{colour}m{word:13}\x1b[0m")
    }

    fn annotate(&self, file: &str, line: u64, message: &str) {
        if self.annotates {
            warn(&annotation(file, line, message));
        }
    }
}

/// Aligned with what stands behind the verdict.
const INDENT: &str = "              ";

/// What the runs of a scenario add up to.
#[derive(Debug, Default)]
struct Sums {
    simulated: Seconds,
    cpu: Seconds,
    counts: Counts,
    faults: BTreeMap<String, u64>,
    /// They were made on real processes.
    live: bool,
    /// What those left out, each once.
    not_controlled: Vec<String>,
}

impl Sums {
    fn of(results: &[&RunResult]) -> Self {
        let mut sums = Self::default();
        for result in results {
            sums.simulated = sums.simulated + result.simulated_s;
            sums.cpu = sums.cpu + result.cpu_s;
            sums.counts.add(&result.counts);
            sums.live |= result.live;
            for (fault, times) in &result.faults {
                let sum = sums.faults.entry(fault.clone()).or_default();
                *sum = sum.saturating_add(*times);
            }
            for what in &result.not_controlled {
                if !sums.not_controlled.contains(what) {
                    sums.not_controlled.push(what.clone());
                }
            }
        }
        sums
    }
}

impl core::fmt::Display for Sums {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut counts = self.counts.named().to_vec();
        if self.live {
            // Disks and links are the system's: nobody counts there.
            counts.retain(|(name, _)| !["syncs", "messages", "drops", "duplicates"].contains(name));
        }
        let counts: Vec<_> = counts.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
        f.write_str(&counts.join(", "))?;
        let faults: Vec<_> = self.faults.iter().map(|(fault, times)| format!("{fault} {times}")).collect();
        if faults.is_empty() { Ok(()) } else { write!(f, "; faults: {}", faults.join(", ")) }
    }
}

fn results(task: &Task) -> Vec<&RunResult> {
    let hunted = task.hunt.iter().flat_map(|hunt| hunt.done.values()).filter_map(|done| done.as_ref().ok());
    task.sweep.results().chain(hunted).collect()
}

/// How many different seeds a scenario was run with.
fn seeds(task: &Task) -> usize {
    let hunted = task.hunt.iter().flat_map(|hunt| hunt.done.keys());
    task.sweep.done.keys().chain(hunted).collect::<std::collections::BTreeSet<_>>().len()
}

const fn outcome_word(exit: Exit) -> &'static str {
    match exit {
        Exit::Held => Verdict::Held.name(),
        Exit::Violated => Verdict::Violated.name(),
        Exit::Inconclusive => Verdict::Inconclusive.name(),
        Exit::Diverged => Verdict::Diverged.name(),
        Exit::NotConverged => Verdict::NotConverged.name(),
        Exit::Usage
        | Exit::NothingSelected
        | Exit::InvalidScenario
        | Exit::Internal
        | Exit::Configuration => "broken",
    }
}

fn describe(result: &RunResult) -> String {
    let Some(failure) = &result.failure else {
        return format!("{INDENT}the run does not say why");
    };
    let node = failure.node.as_ref().map(|node| format!(", on {node}")).unwrap_or_default();
    let place = if result.live { "line" } else { "event" };
    let mut lines = vec![
        format!("{} at {place} {}, {} s{node}", failure.property, failure.event, failure.at_s),
        failure.sentence.clone(),
    ];
    lines.extend(failure.detail.lines().map(str::to_owned));
    lines.push(format!("{}:{}", failure.file, failure.line));
    lines.push(failure.reproduce.clone());
    lines.iter().map(|line| format!("{INDENT}{line}")).collect::<Vec<_>>().join("\n")
}

fn describe_broken(scenario: &str, seed: u64, broken: &Broken) -> String {
    let mut lines = vec![format!("error: {scenario} with seed {seed} broke: {}", broken.what)];
    lines.extend(shortened(&broken.said).iter().map(|line| format!("  | {line}")));
    lines.push(format!("  reproduce: {}", broken.reproduce));
    lines.join("\n")
}

/// The beginning and the end of what a process said: the first of its errors is the cause of the others.
fn shortened(said: &str) -> Vec<String> {
    let lines: Vec<&str> = said.lines().collect();
    let left_out = lines.len().saturating_sub(2 * SAID);
    let (first, rest) = lines.split_at(if left_out == 0 { lines.len() } else { SAID });
    let gap = (left_out > 0).then(|| format!("… {left_out} more …"));
    let whole = |line: &&str| (*line).to_owned();
    first.iter().map(whole).chain(gap).chain(rest.iter().skip(left_out).map(whole)).collect()
}

fn clause(finding: &Finding) -> String {
    format!("{}: {}: {} {}", outcome_word(finding.exit), finding.property, finding.sentence, finding.detail)
}

fn suite(task: &Task, judgement: &Judgement) -> Suite {
    let mut cases: Vec<Case> =
        task.sweep.done.iter().map(|(seed, done)| case(format!("seed {seed}"), done.as_ref())).collect();
    if let Some(hunt) = &task.hunt {
        let wall = hunt.done.values().filter_map(|done| done.as_ref().ok()).map(|result| result.wall_s).sum();
        let broken = hunt.done.values().find_map(|done| done.as_ref().err());
        let settled = hunt.end().and_then(|seed| hunt.done.get(&seed)).and_then(|done| done.as_ref().ok());
        let found = settled.is_some_and(|result| hunt.is_find(result));
        let outcome = match broken {
            Some(broken) => CaseOutcome::Broken { message: broken.what.clone(), text: broken.said.clone() },
            None if found => CaseOutcome::Passed,
            None => CaseOutcome::Skipped { message: "judged over all seeds".to_owned() },
        };
        let properties = judgement.hunt.iter().map(|clause| ("hunt".to_owned(), clause.clone())).collect();
        cases.push(Case { name: format!("without {}", hunt.planted.defect), outcome, wall, properties });
    }
    let verdict = judgement.findings.iter().fold(Verdict::Held, |verdict, finding| {
        let own = Verdict::ALL.into_iter().find(|verdict| verdict.exit() == finding.exit);
        verdict.and(own.unwrap_or(Verdict::Violated))
    });
    let outcome = match judgement.findings.first() {
        None => CaseOutcome::Passed,
        Some(first) => CaseOutcome::Failed {
            verdict,
            message: clause(first),
            text: judgement.findings.iter().map(clause).collect::<Vec<_>>().join("\n"),
        },
    };
    cases.push(Case {
        name: "over all seeds".to_owned(),
        outcome,
        wall: Seconds::ZERO,
        properties: Vec::new(),
    });
    Suite { name: task.scenario.path.clone(), cases }
}

fn case(name: String, done: Result<&RunResult, &Broken>) -> Case {
    let result = match done {
        Ok(result) => result,
        Err(broken) => {
            let outcome = CaseOutcome::Broken { message: broken.what.clone(), text: broken.said.clone() };
            return Case { name, outcome, wall: Seconds::ZERO, properties: Vec::new() };
        }
    };
    let outcome = if result.verdict == Verdict::Held {
        CaseOutcome::Passed
    } else {
        let message =
            result.failure.as_ref().map(|failure| format!("{}: {}", failure.property, failure.sentence));
        CaseOutcome::Failed {
            verdict: result.verdict,
            message: message.unwrap_or_else(|| result.verdict.to_string()),
            text: describe(result),
        }
    };
    let mut properties = vec![
        ("seed".to_owned(), result.seed.to_string()),
        ("chain".to_owned(), result.chain.clone()),
        ("events".to_owned(), result.events.to_string()),
        ("simulated_s".to_owned(), result.simulated_s.to_string()),
    ];
    if result.live {
        properties.push(("not_controlled".to_owned(), result.not_controlled.join(", ")));
    }
    Case { name, outcome, wall: result.wall_s, properties }
}

/// A workflow command of GitHub Actions. Its own separators are escaped as it demands.
fn annotation(file: &str, line: u64, message: &str) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    format!("::error file={},line={line}::{}", property(file), data(message))
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// A length of time as people read it: `12.3 s`, `4 m 05 s`, `1 h 52 m`.
fn time(seconds: Seconds) -> String {
    let millis = seconds.millis();
    let (minutes, hours) = (millis / 60_000, millis / 3_600_000);
    if hours > 0 {
        format!("{hours} h {:02} m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes} m {:02} s", millis / 1_000 % 60)
    } else {
        format!("{}.{} s", millis / 1_000, millis / 100 % 10)
    }
}

#[expect(clippy::disallowed_methods, reason = "asks how to print, which no run depends on")]
fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_words_of_a_broken_run_are_kept_as_well_as_its_last() {
        let said = |count: usize| (0..count).map(|number| format!("{number}\n")).collect::<String>();
        assert_eq!(shortened(&said(2 * SAID)).len(), 2 * SAID);
        let short = shortened(&said(100));
        assert_eq!(short.len(), 2 * SAID + 1);
        assert_eq!((short[0].as_str(), short[SAID].as_str()), ("0", "… 76 more …"));
        assert_eq!(short.last().map(String::as_str), Some("99"));
        assert!(shortened("").is_empty());
    }
    use crate::sweep::tests::{failed, options, plain, result};

    #[test]
    fn times_are_written_as_people_read_them() {
        for (millis, text) in [
            (0, "0.0 s"),
            (12_345, "12.3 s"),
            (245_000, "4 m 05 s"),
            (6_720_000, "1 h 52 m"),
            (90_000_000, "25 h 00 m"),
        ] {
            assert_eq!(time(Seconds::from_millis(millis)), text);
        }
    }

    #[test]
    fn an_annotation_keeps_its_separators() {
        assert_eq!(
            annotation("a,b:c.toml", 7, "100 %\nno: yes"),
            "::error file=a%2Cb%3Ac.toml,line=7::100 %25%0Ano: yes"
        );
    }

    #[test]
    fn a_failure_says_what_where_and_how_to_see_it_again() {
        let text = describe(&failed(7, "agreement"));
        for part in [
            "agreement at event 999, 41.310 s, on server-2",
            "It must hold.",
            "found, it did not",
            "scenarios/runbooks/sample.toml:79",
            "zipnet-sim run scenarios/runbooks/sample.toml --seed 7",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn a_suite_has_a_case_for_each_seed_and_one_for_all() {
        let mut task = Task::new(plain(), &options());
        while let Some(job) = task.next(0) {
            let done = if job.seed == 3 { failed(3, "agreement") } else { result(job.seed, Verdict::Held) };
            task.take(&job, Outcome::Finished(Box::new(done)));
        }
        let suite = suite(&task, &judge(&task, None));
        assert_eq!(suite.cases.len(), 21);
        let failures = suite.cases.iter().filter(|case| case.outcome != CaseOutcome::Passed);
        assert_eq!(failures.map(|case| case.name.as_str()).collect::<Vec<_>>(), ["seed 3"]);
    }

    #[test]
    fn runs_on_processes_say_what_they_left_out_once() {
        let one = RunResult {
            live: true,
            not_controlled: vec!["the network".to_owned()],
            ..result(0, Verdict::Held)
        };
        let sums = Sums::of(&[&one, &one]);
        assert_eq!(sums.not_controlled, ["the network"]);
        assert!(
            !sums.to_string().contains("syncs") && sums.to_string().contains("rounds finalized"),
            "{sums}"
        );
        assert!(Sums::of(&[&result(0, Verdict::Held)]).to_string().contains("syncs"));
    }

    #[test]
    fn what_runs_did_adds_up() {
        let one = RunResult { faults: [("crash".to_owned(), 2)].into(), ..result(0, Verdict::Held) };
        let sums = Sums::of(&[&one, &one]);
        assert_eq!(sums.simulated, Seconds::from_millis(120_000));
        assert!(sums.to_string().ends_with("; faults: crash 4"), "{sums}");
    }
}
