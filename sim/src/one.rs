//! One scenario, one seed, one process: what the parent of a sweep starts, and how its answer is read.
//!
//! Process-wide state leaks from one run into the next, so each run has a process of its own. The answer is one
//! result line on standard output; everything else on standard output is an error.

use core::ops::Range;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use zipnet_reports::{Exit, RunResult, Seconds};
use zipnet_scenarios::Scenario;

use crate::live::{Binaries, Interrupt};
use crate::say::warn;
use crate::stopwatch::{Stopwatch, processor_time, processor_time_of_children};
use crate::sweep::selection::{self, Unreadable};
use crate::{engine, live, simulated};

/// What a run is made of.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// The scenario file.
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: PathBuf,
    /// The file was read already: its text comes on standard input.
    #[arg(long)]
    pub(crate) read_stdin: bool,
    /// What every random choice is drawn from.
    #[arg(long)]
    pub(crate) seed: u64,
    /// A folder for the resolved scenario, the result and the event log.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The defect to plant.
    #[arg(long, value_name = "NAME", conflicts_with = "strict")]
    pub(crate) defect: Option<String>,
    /// Plant no defect, whatever the scenario says. The same as naming none.
    #[arg(long)]
    pub(crate) strict: bool,
    /// The events to put into words: from A up to, but without, B.
    #[arg(long, value_name = "A..B", value_parser = window)]
    pub(crate) window: Option<Range<u64>>,
    /// The folder of the binaries to run instead of a simulation.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["defect", "window"])]
    pub(crate) live: Option<PathBuf>,
    /// The process without which this one must not go on.
    #[arg(long, requires = "live")]
    pub(crate) parent: Option<i32>,
}

/// Runs, prints the result line, and fails only if there is none.
pub(crate) fn run(flags: &Flags) -> Exit {
    let scenario = match read(flags) {
        Ok(scenario) => scenario,
        Err(refusal) => {
            warn(&refusal.to_string());
            return refusal.exit();
        }
    };
    let done = match &flags.live {
        None => simulate(&scenario, flags),
        Some(folder) => run_live(&scenario, flags, folder),
    };
    match done {
        Ok(exit) => exit,
        Err(reason) => {
            warn(&format!("error: failed to {reason}"));
            Exit::Internal
        }
    }
}

fn read(flags: &Flags) -> Result<Scenario, Unreadable> {
    if !flags.read_stdin {
        return selection::read_one(&flags.scenario);
    }
    let text = std::io::read_to_string(std::io::stdin())
        .map_err(|reason| Unreadable::Path { path: flags.scenario.clone(), reason })?;
    selection::parse(&flags.scenario, &text)
}

/// Writes what is going to be run.
fn prepare(scenario: &Scenario, flags: &Flags) -> Result<(), String> {
    if let Some(out) = &flags.out {
        fs::create_dir_all(out).map_err(|reason| format!("make {}: {reason}", out.display()))?;
        write(&out.join("scenario.toml"), engine::resolve(scenario, flags.seed).to_toml().as_bytes())?;
    }
    Ok(())
}

fn simulate(scenario: &Scenario, flags: &Flags) -> Result<Exit, String> {
    // What cannot be written is no reason to know less of the run.
    let mut unwritten = prepare(scenario, flags).err();
    let watch = Stopwatch::start();
    let used_before = processor_time();
    let mut options = simulated::Options {
        defect: flags.defect.clone(),
        window: flags.window.clone(),
        event_log: flags.out.as_ref().filter(|_| unwritten.is_none()).map(|out| out.join("events.log")),
    };
    let mut ran = simulated::run(scenario, flags.seed, &options);
    if let (Err(reason), true) = (&ran, options.event_log.is_some()) {
        unwritten = Some(reason.clone());
        options.event_log = None;
        ran = simulated::run(scenario, flags.seed, &options);
    }
    let mut result = ran?;
    result.cpu_s = Seconds::from(processor_time().saturating_sub(used_before));
    result.wall_s = Seconds::from(watch.elapsed());
    conclude(result, unwritten, flags)
}

fn run_live(scenario: &Scenario, flags: &Flags, folder: &Path) -> Result<Exit, String> {
    let interrupt = Arc::new(Interrupt::default());
    let raised = Arc::clone(&interrupt);
    ctrlc::set_handler(move || raised.raise()).map_err(|reason| format!("listen to signals: {reason}"))?;
    if let Some(parent) = flags.parent {
        live::process::end_with(parent)
            .map_err(|reason| format!("end together with its parent: {reason}"))?;
    }
    let unwritten = prepare(scenario, flags).err();
    let binaries = Binaries::find(folder)?;
    let logs = flags.out.as_ref().map(|out| out.join("nodes"));
    let watch = Stopwatch::start();
    let Some(mut result) = live::run(scenario, flags.seed, &binaries, logs.as_deref(), &interrupt)? else {
        return Ok(Exit::Inconclusive);
    };
    result.cpu_s = Seconds::from(processor_time() + processor_time_of_children());
    result.wall_s = Seconds::from(watch.elapsed());
    conclude(result, unwritten, flags)
}

/// Adds what only this process knows, and prints the result, also if something beside it could not be written.
fn conclude(mut result: RunResult, mut unwritten: Option<String>, flags: &Flags) -> Result<Exit, String> {
    // The engine knows a scenario and a seed; where they came from is known here.
    result.scenario = flags.scenario.display().to_string();
    result.seed = flags.seed;
    result.defect.clone_from(&flags.defect);
    if let Some(failure) = &mut result.failure {
        failure.file.clone_from(&result.scenario);
        failure.reproduce = match &flags.live {
            None => reproduce(&flags.scenario, flags.seed, flags.defect.as_deref()),
            Some(folder) => reproduce_live(&flags.scenario, flags.seed, folder),
        };
    }
    if let Some(out) = &flags.out {
        let written = write(&out.join("result.json"), result.to_line().as_bytes());
        unwritten = unwritten.or(written.err());
    }
    result.write_line(std::io::stdout().lock()).map_err(|reason| format!("print the result: {reason}"))?;
    if let Some(reason) = unwritten {
        warn(&format!("error: failed to {reason}"));
        return Ok(Exit::Configuration);
    }
    Ok(Exit::Held)
}

/// The command that shows a run again.
pub(crate) fn reproduce(scenario: &Path, seed: u64, defect: Option<&str>) -> String {
    let defect = defect.map(|name| format!(" --defect {name}")).unwrap_or_default();
    format!("zipnet-sim run {} --seed {seed}{defect}", quoted(&scenario.display().to_string()))
}

/// The command that makes a run on real processes again.
pub(crate) fn reproduce_live(scenario: &Path, seed: u64, folder: &Path) -> String {
    let own = std::env::current_exe().ok();
    let is_default = own.as_deref().and_then(Path::parent).is_some_and(|own| own == folder);
    let folder = if is_default {
        String::new()
    } else {
        format!(" --bin-dir {}", quoted(&folder.display().to_string()))
    };
    format!("{} --live{folder}", reproduce(scenario, seed, None))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Reads the answer of a run that ended.
pub(crate) fn answer(stdout: &str) -> Result<RunResult, String> {
    RunResult::from_line(stdout).map_err(|refusal| refusal.to_string())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|reason| format!("write {}: {reason}", path.display()))
}

fn window(text: &str) -> Result<Range<u64>, String> {
    let expected = || format!("expected events such as 1024..2048, found `{text}`");
    let (from, to) = text.split_once("..").ok_or_else(expected)?;
    let (from, to) = (from.parse().ok().ok_or_else(expected)?, to.parse().ok().ok_or_else(expected)?);
    if from < to { Ok(from..to) } else { Err(expected()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_shows_a_run_again_can_be_pasted() {
        assert_eq!(reproduce(Path::new("a/b-1.toml"), 7, None), "zipnet-sim run a/b-1.toml --seed 7");
        assert_eq!(
            reproduce(Path::new("it's here.toml"), 7, Some("floor-ignored")),
            r"zipnet-sim run 'it'\''s here.toml' --seed 7 --defect floor-ignored"
        );
    }

    #[test]
    fn a_window_is_not_empty() {
        assert_eq!(window("0..1024"), Ok(0..1024));
        for wrong in ["", "5", "5..5", "6..5", "a..b"] {
            assert!(window(wrong).is_err(), "{wrong} was read");
        }
    }
}
