//! What a sweep prints, leaves behind and ends with, with real runs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use zipnet_reports::{RunResult, Verdict};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zipnet-sim"));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).env_remove("GITHUB_ACTIONS");
    command.arg("run").args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> Vec<RunResult> {
    let output = run(&[arguments, &["--format", "json"]].concat());
    let mut results = lines(str::from_utf8(&output.stdout).unwrap());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    results.sort_by_key(|result| result.seed);
    results
}

/// Every line is whole.
fn lines(text: &str) -> Vec<RunResult> {
    text.split_inclusive('\n').map(|line| RunResult::from_line(line).unwrap()).collect()
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

const COLD_START: &str = "scenarios/runbooks/01-cold-start.toml";

#[test]
fn a_run_is_the_same_alone_in_a_sweep_and_with_any_number_of_jobs() {
    let one_by_one = json(&[COLD_START, "--seeds", "3", "--jobs", "1"]);
    let together = json(&[COLD_START, "--seeds", "3", "--jobs", "3"]);
    let alone = json(&[COLD_START, "--seed", "2"]);
    assert_eq!(one_by_one.len(), 3);
    let identity =
        |result: &RunResult| (result.seed, result.chain.clone(), result.events, result.simulated_s);
    let identities = |results: &[RunResult]| results.iter().map(identity).collect::<Vec<_>>();
    assert_eq!(identities(&one_by_one), identities(&together));
    assert_eq!(identities(&one_by_one[2..]), identities(&alone));
    let chains: BTreeSet<_> = one_by_one.iter().map(|result| &result.chain).collect();
    assert_eq!(chains.len(), 3, "each seed gives an order of events of its own");
    for result in &one_by_one {
        assert_eq!(result.verdict, Verdict::Held);
        assert!(result.counts.elections > 0 && result.counts.syncs > 0 && result.counts.messages > 0);
    }
}

#[test]
fn a_sweep_for_people_ends_with_its_tally() {
    let output = run(&[COLD_START, "--seeds", "2", "--check-determinism", "1"]);
    let text = str::from_utf8(&output.stdout).unwrap();
    assert!(text.starts_with("held          runbooks/01-cold-start"), "{text}");
    assert!(text.contains("2 made twice and compared"), "{text}");
    assert_eq!(text.lines().last(), Some("2 passed, 0 failed"));
    assert!(output.status.success());
    assert!(!text.contains('\x1b') && output.stderr.is_empty(), "no colour and no progress off a terminal");
}

#[test]
fn the_artefacts_of_a_run_are_written() {
    let folder = folder("artefacts");
    let (out, junit) = (folder.join("out"), folder.join("junit.xml"));
    let results = json(&[
        COLD_START,
        "--seed",
        "1",
        "--out",
        out.to_str().unwrap(),
        "--junit",
        junit.to_str().unwrap(),
    ]);
    let own = out.join("runbooks/01-cold-start/1");
    let result = RunResult::from_line(&std::fs::read_to_string(own.join("result.json")).unwrap()).unwrap();
    assert_eq!((&result.chain, result.seed), (&results[0].chain, 1));
    assert!(!result.checkpoints.is_empty());
    let events = std::fs::read_to_string(own.join("events.log")).unwrap();
    assert_eq!(u64::try_from(events.lines().count()).unwrap(), result.events);
    assert!(std::fs::read_to_string(junit).unwrap().contains(&result.chain));

    // The resolved scenario is a scenario that leaves nothing to the seed, and the same run.
    let resolved = own.join("scenario.toml");
    let check = Command::new(env!("CARGO_BIN_EXE_zipnet-sim")).arg("check").arg(&resolved).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn results_that_can_not_be_printed_are_an_error_and_a_closed_pipe_is_none() {
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let told = |output: Output| {
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("error: failed to print: No space left on device"), "{said}");
    };
    for format in ["human", "json"] {
        told(command(&[COLD_START, "--seed", "0", "--format", format]).stdout(full()).output().unwrap());
    }
    for other in [&["list", "scenarios/runbooks"] as &[_], &["schema"], &["--help"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zipnet-sim"));
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).args(other);
        told(command.stdout(full()).output().unwrap());
    }
    let mut sweep = command(&[COLD_START, "--seeds", "2", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(sweep.stdout.take());
    let output = sweep.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_can_not_be_written_is_said_before_the_sweep_or_costs_no_verdict() {
    let folder = folder("unwritten");
    let junit = folder.join("no-such-folder/junit.xml");
    let output = run(&[COLD_START, "--seed", "0", "--junit", junit.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(output.stdout.is_empty(), "nothing was run");

    // Where a folder belongs, there is a file.
    std::fs::create_dir_all(folder.join("out/runbooks")).unwrap();
    std::fs::write(folder.join("out/runbooks/01-cold-start"), "").unwrap();
    let full = folder.join("full/runbooks/01-cold-start/0");
    std::fs::create_dir_all(&full).unwrap();
    std::os::unix::fs::symlink("/dev/full", full.join("events.log")).unwrap();
    for out in ["out", "full"] {
        let out = folder.join(out);
        let output = run(&[COLD_START, "--seed", "0", "--format", "json", "--out", out.to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("error: failed to ") && !said.contains("a bug in the simulator"), "{said}");
        let results = lines(str::from_utf8(&output.stdout).unwrap());
        assert_eq!(results.iter().map(|result| result.verdict).collect::<Vec<_>>(), [Verdict::Held]);
    }
}

#[test]
fn every_run_is_of_the_text_that_was_read_first() {
    let folder = folder("saved-meanwhile");
    let file = folder.join("a.toml");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::copy(root.join(COLD_START), &file).unwrap();
    let arguments = [
        file.to_str().unwrap(),
        "--seeds",
        "6",
        "--jobs",
        "1",
        "--check-determinism",
        "1",
        "--format",
        "json",
    ];
    let mut sweep = command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let first = first_lines(&mut sweep, 1);
    std::fs::write(&file, "no scenario any more").unwrap();
    let output = sweep.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results = lines(&(first + str::from_utf8(&output.stdout).unwrap()));
    assert_eq!(results.len(), 6);
    assert!(results.iter().all(|result| result.verdict == Verdict::Held && result.repeated));
}

#[test]
fn a_run_that_ends_while_a_node_is_paused_has_its_verdict() {
    let folder = folder("paused");
    let file = folder.join("short.toml");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let soak = std::fs::read_to_string(root.join("scenarios/faults/soak.toml")).unwrap();
    let short = soak.replacen("time_limit = \"20m\"", "time_limit = \"100s\"", 1);
    assert_ne!(short, soak);
    std::fs::write(&file, short).unwrap();
    let arguments = [file.to_str().unwrap(), "--seeds", "12", "--check-determinism", "0", "--format", "json"];
    let output = run(&arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert_eq!(lines(str::from_utf8(&output.stdout).unwrap()).len(), 12, "{said}");
}

#[test]
fn killing_a_sweep_leaves_whole_lines_for_what_was_finished() {
    let mut sweep = command(&[COLD_START, "--seeds", "100000", "--format", "json", "--jobs", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut text = first_lines(&mut sweep, 3);
    sweep.kill().unwrap();
    sweep.wait().unwrap();
    sweep.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(lines(&text).len() >= 3);
}

#[test]
fn an_interrupted_sweep_is_inconclusive_and_says_so() {
    let mut sweep = command(&[COLD_START, "--seeds", "100000", "--format", "json", "--jobs", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    first_lines(&mut sweep, 1);
    let killed = Command::new("kill").args(["-TERM", &sweep.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = sweep.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("stopped early: the sweep was interrupted"), "{said}");
}

#[test]
fn a_used_up_budget_is_inconclusive() {
    let output = run(&[COLD_START, "--seeds", "100000", "--wall-budget", "1s"]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(str::from_utf8(&output.stdout).unwrap().contains("the wall budget was used up"));
}

#[test]
fn a_planted_source_of_chance_makes_a_repeated_run_diverge() {
    for defect in ["wall-clock-read", "map-iteration"] {
        let output = run(&[COLD_START, "--seeds", "2", "--check-determinism", "1", "--defect", defect]);
        let text = str::from_utf8(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(5), "{defect}: {text}");
        assert!(text.contains("determinism at event"), "{defect}: {text}");
        assert!(text.contains("repeat  "), "both sides are shown: {text}");
    }
}

#[test]
fn twenty_seeds_are_twenty_different_orders_of_events() {
    let results = json(&[COLD_START, "--seeds", "20"]);
    let chains: BTreeSet<_> = results.iter().map(|result| &result.chain).collect();
    assert_eq!((results.len(), chains.len()), (20, 20));
}

#[test]
fn a_planted_defect_changes_the_chain() {
    let ordinary = json(&[COLD_START, "--seed", "0"]);
    for defect in ["flipped-byte", "swapped-deliveries", "extra-sync"] {
        let output = run(&[COLD_START, "--seed", "0", "--format", "json", "--defect", defect]);
        let results = lines(str::from_utf8(&output.stdout).unwrap());
        assert_eq!(results.len(), 1, "{defect}: {}", String::from_utf8_lossy(&output.stderr));
        assert_ne!(results[0].chain, ordinary[0].chain, "{defect}");
    }
}

/// Reads lines as soon as they are there, and nothing beyond them that stays unread.
fn first_lines(sweep: &mut Child, count: usize) -> String {
    let mut reader = BufReader::with_capacity(1, sweep.stdout.take().unwrap());
    let mut text = String::new();
    for _ in 0..count {
        reader.read_line(&mut text).unwrap();
    }
    sweep.stdout = Some(reader.into_inner());
    text
}
