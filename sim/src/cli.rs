//! The command line: flags in, an exit code out.

use core::time::Duration;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use zipnet_reports::Exit;

use crate::defect::Defect;
use crate::live::process::{self, Guard};
use crate::live::{self, Binaries};
use crate::say::{Format, finish, note, say, warn};
use crate::sweep::choice::{Choice, Permille, Seeds, Shard};
use crate::sweep::selection::{self, Unreadable};
use crate::{conform, doctor, one, sweep};

const EXIT_CODES: &str = "\
Exit codes, gravest first where several apply: 1 an expectation was violated, 70 a bug in the simulator, 65 a scenario
file is invalid, 5 a repeated run diverged, 6 no convergence, 3 inconclusive (a limit was hit, the sweep was
interrupted, or something that must happen in some seed never did), 0 every expectation held.
Before anything runs: 2 a flag is mistyped, 78 a value is wrong or missing, 4 nothing was selected.";

/// Runs zipnet scenarios in a deterministic simulation, over many seeds, or on real processes.
#[derive(Debug, Parser)]
#[command(name = "zipnet-sim", version, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios over seeds.
    ///
    /// For example: zipnet-sim run scenarios/runbooks --seeds 20
    ///
    /// With --live the same procedures are carried out on real processes on this machine, in real time. What only a
    /// simulation controls (disk, clock, other builds, liars) is left out and said as "not controlled"; a
    /// scenario that needs it, or asks for what is not seen from outside, is inconclusive.
    Run(RunFlags),
    /// Read scenarios and say what is wrong with them; run nothing.
    Check(SelectFlags),
    /// List the scenarios that would run.
    List(SelectFlags),
    /// Print the JSON Schema of the scenario format.
    Schema,
    /// Feed the log of a real server to the core, and compare the records with those that a reader got.
    ///
    /// The server must have stopped in order; its state folder is only read. The records are lines of JSON, as
    /// zipnet tail --format json prints them.
    Conform(conform::Flags),
    /// Say whether this machine and this build can run simulations.
    Doctor(DoctorFlags),
    /// Run one scenario with one seed in this process. How `run` starts its runs.
    #[command(hide = true)]
    One(one::Flags),
    /// Become a command that is killed when the parent is gone. How `run --live` starts nodes.
    #[command(hide = true)]
    Guard(Guard),
}

#[derive(Debug, Args)]
struct SelectFlags {
    /// Scenario files, or folders that hold them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only scenarios with this tag; repeat for several, any of which will do.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// How to print the results.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Debug, Args)]
struct RunFlags {
    #[command(flatten)]
    select: SelectFlags,
    /// Run real processes instead of a simulation. The seed still decides every draw.
    #[arg(long, conflicts_with_all = ["control", "defect", "check_determinism"])]
    live: bool,
    /// Where zipnet-server, zipnet-aggregator and zipnet-client are [default: beside this binary].
    #[arg(long, value_name = "DIR", requires = "live")]
    bin_dir: Option<PathBuf>,
    /// The seeds: a count N for 0 to N-1, or A..B for A to B, both included [default: 20; a canary: up to 50; with
    /// --live: seed 0].
    #[arg(long, value_name = "N|A..B", value_parser = seeds, conflicts_with = "seed")]
    seeds: Option<Seeds>,
    /// One single seed. What must happen in some seed of a sweep is not judged then.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// How many runs at a time [default: one per core; with --live: one].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Run the I-th of N equal shares of the seeds. A share is a sweep of its own and judged as one.
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<Shard>,
    /// Stop after this time, for example 90s, 10m or 2h. What was not run by then makes the sweep inconclusive.
    #[arg(long, value_name = "TIME", value_parser = budget)]
    wall_budget: Option<Duration>,
    /// Start no further run once one did not hold.
    #[arg(long)]
    fail_fast: bool,
    /// The share of all runs, from 0 to 1, that is made a second time and must do exactly the same.
    #[arg(long, value_name = "F", value_parser = permille, default_value = "0.05")]
    check_determinism: Permille,
    /// Also run every scenario that has a `[control]` with its guard removed; it must fail then.
    #[arg(long)]
    control: bool,
    /// Plant this defect in every run, to see whether the checks notice it.
    #[arg(long, value_name = "NAME", conflicts_with = "control", value_parser = defects(), hide_possible_values = true)]
    defect: Option<String>,
    /// Write a JUnit file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the resolved scenario, the result and the event log (with --live: the logs of all nodes) of each run into a
    /// folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct DoctorFlags {
    /// The folder that results would be written to.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

/// Does what the command line asks for.
#[must_use]
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => {
            let asked_for_help = !refusal.use_stderr();
            note(refusal.print());
            return finish(match refusal.kind() {
                _ if asked_for_help => Exit::Held,
                ErrorKind::InvalidValue
                | ErrorKind::ValueValidation
                | ErrorKind::NoEquals
                | ErrorKind::TooManyValues
                | ErrorKind::TooFewValues
                | ErrorKind::WrongNumberOfValues
                | ErrorKind::MissingRequiredArgument => Exit::Configuration,
                _ => Exit::Usage,
            });
        }
    };
    finish(match cli.command {
        Command::Run(flags) => run(flags),
        Command::Check(flags) => check(&flags),
        Command::List(flags) => list(&flags),
        Command::Schema => schema(),
        Command::Conform(flags) => conform::run(&flags),
        Command::Doctor(flags) => doctor::examine(&flags.out),
        Command::One(flags) => one::run(&flags),
        Command::Guard(flags) => process::guard(&flags),
    })
}

/// The names that `--defect` takes.
fn defects() -> PossibleValuesParser {
    PossibleValuesParser::new(Defect::names())
}

fn run(flags: RunFlags) -> Exit {
    let scenarios = match select(&flags.select) {
        Ok(scenarios) => scenarios,
        Err(exit) => return exit,
    };
    let binaries = match flags.live.then(|| find_binaries(flags.bin_dir.as_deref())).transpose() {
        Ok(binaries) => binaries,
        Err(reason) => {
            warn(&format!("error: {reason}"));
            return Exit::Configuration;
        }
    };
    let seeds = match (flags.seed, flags.seeds) {
        (Some(seed), _) => Choice::One(seed),
        (None, Some(seeds)) => Choice::Sweep(seeds),
        (None, None) if flags.live => Choice::One(0),
        (None, None) => Choice::Default,
    };
    let jobs = || if flags.live { 1 } else { doctor::cores() };
    sweep::run(
        scenarios,
        &sweep::Options {
            seeds,
            jobs: flags.jobs.map_or_else(jobs, usize::from),
            live: binaries.map(|binaries| binaries.folder().to_owned()),
            shard: flags.shard.unwrap_or(Shard { index: 0, count: 1 }),
            wall_budget: flags.wall_budget,
            fail_fast: flags.fail_fast,
            check_determinism: if flags.live { Permille(0) } else { flags.check_determinism },
            control: flags.control,
            defect: flags.defect,
            junit: flags.junit,
            format: flags.select.format,
            out: flags.out,
        },
    )
}

/// The binaries in a folder, by default that of this binary.
fn find_binaries(folder: Option<&Path>) -> Result<Binaries, String> {
    let own = || {
        let own = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
        own.ok_or_else(|| {
            format!("this binary does not know where it is; build with `{}` and use --bin-dir", live::BUILD)
        })
    };
    let folder = folder.map_or_else(own, |folder| Ok(folder.to_owned()))?;
    // Processes are started by their path, and a run may have another working directory.
    Binaries::find(&folder.canonicalize().unwrap_or(folder))
}

fn check(flags: &SelectFlags) -> Exit {
    let scenarios = match select(flags) {
        Ok(scenarios) => scenarios,
        Err(exit) => return exit,
    };
    for scenario in &scenarios {
        match flags.format {
            Format::Human => say(&format!("ok    {}", scenario.path)),
            Format::Json => say(&serde_json::json!({ "scenario": scenario.path, "valid": true }).to_string()),
        }
    }
    Exit::Held
}

fn list(flags: &SelectFlags) -> Exit {
    let scenarios = match select(flags) {
        Ok(scenarios) => scenarios,
        Err(exit) => return exit,
    };
    let width = scenarios.iter().map(|scenario| scenario.path.chars().count()).max().unwrap_or(0);
    for scenario in &scenarios {
        match flags.format {
            Format::Human => say(&format!("{:width$}  {}", scenario.path, scenario.title)),
            Format::Json => say(&serde_json::json!({
                "scenario": scenario.path,
                "title": scenario.title,
                "tags": scenario.tags,
                "canary": scenario.canary.as_ref().map(|planted| &planted.defect),
                "control": scenario.control.as_ref().map(|planted| &planted.defect),
            })
            .to_string()),
        }
    }
    Exit::Held
}

fn schema() -> Exit {
    say(zipnet_scenarios::schema::text().trim_end());
    Exit::Held
}

/// Reads what the paths stand for. Says what is wrong, and with which exit code the process ends, if anything is.
fn select(flags: &SelectFlags) -> Result<Vec<selection::Selected>, Exit> {
    let all = selection::read(&flags.paths).map_err(|refusals| {
        let mut exit = Exit::Held;
        for refusal in refusals {
            exit = exit.and(refusal.exit());
            refuse(&refusal, flags.format);
        }
        exit
    })?;
    let found = all.len();
    let selected: Vec<_> = all
        .into_iter()
        .filter(|scenario| flags.tags.is_empty() || scenario.tags.iter().any(|tag| flags.tags.contains(tag)))
        .collect();
    if selected.is_empty() {
        let paths: Vec<_> = flags.paths.iter().map(|path| path.display().to_string()).collect();
        let paths = paths.join(", ");
        warn(&if found == 0 {
            format!("error: nothing was selected: there is no scenario file in {paths}")
        } else {
            let tags = flags.tags.join(" or ");
            format!(
                "error: nothing was selected: none of the {found} scenarios in {paths} has the tag {tags}"
            )
        });
        return Err(Exit::NothingSelected);
    }
    Ok(selected)
}

fn refuse(refusal: &Unreadable, format: Format) {
    match (refusal, format) {
        (Unreadable::Invalid { diagnostics }, Format::Json) => {
            for diagnostic in diagnostics {
                say(&serde_json::to_string(diagnostic).expect("a diagnostic is plain data"));
            }
        }
        (Unreadable::Invalid { .. } | Unreadable::Path { .. }, Format::Human)
        | (Unreadable::Path { .. }, Format::Json) => warn(&refusal.to_string()),
    }
}

fn seeds(text: &str) -> Result<Seeds, String> {
    let number = |text: &str| {
        let decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        decimal.then(|| text.parse::<u64>().ok()).flatten()
    };
    let expected = || {
        format!(
            "expected a count such as 20 or a range such as 100..199, in decimal and up to {}, found `{text}`",
            u64::MAX
        )
    };
    match text.split_once("..") {
        None => number(text).map(Seeds::count).ok_or_else(expected),
        Some((first, last)) => {
            let (first, last) = (number(first).ok_or_else(expected)?, number(last).ok_or_else(expected)?);
            if first > last {
                return Err(format!("expected the smaller seed first, found `{text}`"));
            }
            Ok(Seeds::Through { first, last })
        }
    }
}

fn shard(text: &str) -> Result<Shard, String> {
    let expected = || format!("expected a share such as 1/4, from 1/N to N/N, found `{text}`");
    let (index, count) = text.split_once('/').ok_or_else(expected)?;
    let index: u64 = index.parse().ok().ok_or_else(expected)?;
    let count: u64 = count.parse().ok().ok_or_else(expected)?;
    match index.checked_sub(1) {
        Some(index) if index < count => Ok(Shard { index, count }),
        Some(_) | None => Err(expected()),
    }
}

fn permille(text: &str) -> Result<Permille, String> {
    let expected = || format!("expected a share from 0 to 1 with at most three decimals, found `{text}`");
    let seconds: zipnet_reports::Seconds = text.parse().ok().ok_or_else(expected)?;
    match u16::try_from(seconds.millis()) {
        Ok(permille @ 0..=1_000) => Ok(Permille(permille)),
        Ok(_) | Err(_) => Err(expected()),
    }
}

fn budget(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a time with its unit such as 90s, 10m or 2h, found `{text}`");
    let seconds_per_unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some(_) | None => return Err(expected()),
    };
    let count = text.get(..text.len() - 1).ok_or_else(expected)?;
    let count: u64 = count.parse().ok().ok_or_else(expected)?;
    match count.checked_mul(seconds_per_unit) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err(expected()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_count_of_seeds_begins_with_zero_and_a_range_includes_both_ends() {
        assert_eq!(seeds("20"), Ok(Seeds::Through { first: 0, last: 19 }));
        assert_eq!(seeds("1"), Ok(Seeds::Through { first: 0, last: 0 }));
        assert_eq!(seeds("0"), Ok(Seeds::None));
        assert_eq!(seeds("5..5"), Ok(Seeds::Through { first: 5, last: 5 }));
        assert_eq!(seeds("0..18446744073709551615"), Ok(Seeds::Through { first: 0, last: u64::MAX }));
        for wrong in ["", "x", "-1", "+1", "0x10", "1..", "..1", "2..1", "1...2", "18446744073709551616"] {
            assert!(seeds(wrong).is_err(), "{wrong} was read");
        }
    }

    #[test]
    fn shards_are_counted_from_one() {
        assert_eq!(shard("1/4"), Ok(Shard { index: 0, count: 4 }));
        assert_eq!(shard("4/4"), Ok(Shard { index: 3, count: 4 }));
        for wrong in ["", "1", "0/4", "5/4", "1/0", "a/b"] {
            assert!(shard(wrong).is_err(), "{wrong} was read");
        }
    }

    #[test]
    fn a_fraction_is_read_without_rounding() {
        for (text, expected) in [("0", 0), ("0.05", 50), ("0.001", 1), ("1", 1_000), ("1.000", 1_000)] {
            assert_eq!(permille(text), Ok(Permille(expected)));
        }
        for wrong in ["", "1.001", "2", "-0.1", "0.0001", "5%", "nan"] {
            assert!(permille(wrong).is_err(), "{wrong} was read");
        }
    }

    #[test]
    fn a_budget_names_its_unit() {
        assert_eq!(budget("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(budget("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(budget("2h"), Ok(Duration::from_secs(7_200)));
        for wrong in ["", "s", "10", "0s", "1d", "1ms", "-1s", "99999999999999999999h", "5ü"] {
            assert!(budget(wrong).is_err(), "{wrong} was read");
        }
    }
}
