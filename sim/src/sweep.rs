//! Many runs of many scenarios, each in a process of its own, and what they add up to.
//!
//! - [`selection`]: from paths to scenarios.
//! - [`choice`]: which seeds each of them runs with, and which runs are repeated.
//! - [`task`]: one scenario: which runs it needs, in which order, and when it is done. A state machine without threads.
//! - [`process`]: one run: starts the process, reads its answer, repeats it where determinism is checked.
//! - [`judge`]: what the runs of a scenario add up to.
//! - [`report`]: what is printed and written.

use core::time::Duration;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use zipnet_reports::Exit;

use crate::say::{Format, warn};
use crate::stopwatch::Stopwatch;

pub(crate) mod choice;
pub(crate) mod judge;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod selection;
pub(crate) mod task;
#[cfg(test)]
pub(crate) mod tests;

use choice::{Choice, Permille, Shard};
use process::{Fence, Job, Outcome};
use report::Reporter;
use selection::Selected;
use task::Task;

/// What to run and how.
#[derive(Debug)]
pub(crate) struct Options {
    /// Which seeds.
    pub(crate) seeds: Choice,
    /// The folder of the binaries to run instead of simulations.
    pub(crate) live: Option<PathBuf>,
    /// How many runs at a time.
    pub(crate) jobs: usize,
    /// Which share of the seeds.
    pub(crate) shard: Shard,
    /// When to stop.
    pub(crate) wall_budget: Option<Duration>,
    /// Whether to stop at the first run that does not hold.
    pub(crate) fail_fast: bool,
    /// Which share of the runs is made twice.
    pub(crate) check_determinism: Permille,
    /// Whether scenarios with a control are also run without their guard.
    pub(crate) control: bool,
    /// A defect to plant in every run.
    pub(crate) defect: Option<String>,
    /// Where to write a JUnit file.
    pub(crate) junit: Option<PathBuf>,
    /// How to print results.
    pub(crate) format: Format,
    /// Where to write the artefacts of each run.
    pub(crate) out: Option<PathBuf>,
}

/// Runs everything, prints what it comes to, and returns the exit code.
pub(crate) fn run(scenarios: Vec<Selected>, options: &Options) -> Exit {
    let mut tasks: Vec<Task> = scenarios
        .into_iter()
        .map(|scenario| Task::new(scenario, options))
        .filter(|task| !task.is_idle())
        .collect();
    if tasks.is_empty() {
        warn("error: nothing was selected: there is no seed to run");
        return Exit::NothingSelected;
    }
    if let Some(out) = &options.out
        && let Err(reason) = std::fs::create_dir_all(out)
    {
        warn(&format!("error: failed to make the folder {} for the results: {reason}", out.display()));
        return Exit::Configuration;
    }
    if let Some(path) = &options.junit
        && let Err(reason) = std::fs::OpenOptions::new().create(true).append(true).open(path)
    {
        warn(&format!("error: failed to write {}: {reason}", path.display()));
        return Exit::Configuration;
    }

    let fence = Arc::new(Fence::default());
    let at_interrupt = Arc::clone(&fence);
    if let Err(reason) = ctrlc::set_handler(move || at_interrupt.close("the sweep was interrupted")) {
        warn(&format!("warning: an interrupt will end the sweep without a summary: {reason}"));
    }

    let mut reporter = Reporter::new(options, &tasks);
    carry_out(&mut tasks, options, &fence, &mut reporter);
    reporter.conclude(&mut tasks, fence.reason(), fence.unwritten().as_deref())
}

/// Hands out jobs to as many threads as asked for, until there are none or the fence is closed.
fn carry_out(tasks: &mut [Task], options: &Options, fence: &Fence, reporter: &mut Reporter<'_>) {
    let watch = Stopwatch::start();
    let (to_workers, jobs) = mpsc::channel::<Job>();
    let jobs = Mutex::new(jobs);
    let (to_here, outcomes) = mpsc::channel::<(Job, Outcome)>();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            let (jobs, to_here) = (&jobs, to_here.clone());
            scope.spawn(move || {
                loop {
                    let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    let outcome = process::run(&job, fence);
                    if to_here.send((job, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        let mut in_flight = 0_usize;
        let mut is_spent = false;
        loop {
            while in_flight < options.jobs && !fence.is_closed() {
                let Some(job) = tasks.iter_mut().enumerate().find_map(|(index, task)| task.next(index))
                else {
                    break;
                };
                reporter.begin(job.task);
                to_workers.send(job).expect("the workers wait for jobs until this end is dropped");
                in_flight += 1;
            }
            if in_flight == 0 {
                break;
            }
            reporter.progress(tasks);
            match outcomes.recv_timeout(Duration::from_millis(200)) {
                Ok((job, outcome)) => {
                    in_flight -= 1;
                    let task = &mut tasks[job.task];
                    reporter.run(task, &job, &outcome);
                    let went_wrong = task.take(&job, outcome);
                    if went_wrong && options.fail_fast {
                        fence.close_softly("a run did not hold and --fail-fast was given");
                    }
                    reporter.settle(tasks);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            if !is_spent && options.wall_budget.is_some_and(|budget| watch.elapsed() >= budget) {
                is_spent = true;
                fence.close("the wall budget was used up");
            }
        }
        drop(to_workers);
    });
}
