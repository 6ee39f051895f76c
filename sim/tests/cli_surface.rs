//! What a person or a script sees of `zipnet-sim` before anything is simulated: flags, files, exit codes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn zipnet_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zipnet-sim"))
        .args(arguments)
        .env_remove("GITHUB_ACTIONS")
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

/// A folder of its own for a test, below cargo's.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Nothing but a message to people, and this exit code.
fn refuses(arguments: &[&str], expected: i32) {
    let output = zipnet_sim(arguments);
    assert_eq!(code(&output), expected, "{arguments:?}");
    assert_eq!(stdout(&output), "", "{arguments:?}");
    assert!(!stderr(&output).is_empty(), "{arguments:?}");
}

#[test]
fn a_wrong_or_missing_value_is_78() {
    for arguments in [
        &["run", "x", "--seeds", "many"][..],
        &["run", "x", "--seeds", "9..3"],
        &["run", "x", "--seed", "0x10"],
        &["run", "x", "--jobs", "0"],
        &["run", "x", "--shard", "3/2"],
        &["run", "x", "--check-determinism", "1.5"],
        &["run", "x", "--wall-budget", "10"],
        &["run", "x", "--format", "xml"],
        &["run", "x", "--defect", "round-rise"],
        &["run"],
    ] {
        refuses(arguments, 78);
    }
}

#[test]
fn a_mistyped_flag_is_2_and_named() {
    for arguments in
        [&["run", "x", "--sedes", "3"][..], &["run", "x", "--seed", "1", "--seeds", "2"], &["rnu"], &[]]
    {
        refuses(arguments, 2);
    }
    assert!(
        stderr(&zipnet_sim(&["run", "x", "--sedes", "3"])).contains("--seeds"),
        "the nearest flag is named"
    );
}

#[test]
fn help_names_the_exit_codes_and_no_hidden_command() {
    let output = zipnet_sim(&["--help"]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("4 nothing was selected"));
    assert!(!stdout(&output).lines().any(|line| line.trim_start().starts_with("one ")));
}

#[test]
fn a_path_that_is_not_there_is_78_and_named() {
    for command in ["run", "check", "list"] {
        let output = zipnet_sim(&[command, "nowhere/at-all.toml"]);
        assert_eq!(code(&output), 78, "{command}");
        assert!(stderr(&output).contains("failed to read nowhere/at-all.toml"), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn an_empty_folder_is_4_and_never_success() {
    let folder = folder("an-empty-folder");
    for command in ["run", "check", "list"] {
        let output = zipnet_sim(&[command, folder.to_str().unwrap()]);
        assert_eq!(code(&output), 4, "{command}");
        assert!(stderr(&output).contains("there is no scenario file in"), "{}", stderr(&output));
    }
}

#[test]
fn a_tag_that_no_scenario_has_is_4() {
    let runbooks = scenarios().join("runbooks");
    let output = zipnet_sim(&["run", runbooks.to_str().unwrap(), "--tag", "no-such-tag"]);
    assert_eq!(code(&output), 4);
    assert!(stderr(&output).contains("has the tag no-such-tag"), "{}", stderr(&output));
}

#[test]
fn no_seed_at_all_is_4() {
    let runbooks = scenarios().join("runbooks");
    for seeds in [&["--seeds", "0"][..], &["--seeds", "1", "--shard", "2/2"]] {
        let output = zipnet_sim(&[&["run", runbooks.to_str().unwrap()], seeds].concat());
        assert_eq!(code(&output), 4, "{seeds:?}");
        assert!(stderr(&output).contains("there is no seed to run"), "{}", stderr(&output));
    }
}

#[test]
fn a_misspelt_verb_is_65_with_line_column_and_the_nearest_name() {
    let original = std::fs::read_to_string(scenarios().join("runbooks/01-cold-start.toml")).unwrap();
    let misspelt = original.replacen(" rounds-finalized = {", " rounds-finalised = {", 1);
    assert_ne!(original, misspelt, "the scenario waits for finalized rounds");
    let line = misspelt.lines().position(|line| line.contains("rounds-finalised =")).unwrap() + 1;
    let file = folder("a-misspelt-verb").join("cold-start.toml");
    std::fs::write(&file, misspelt).unwrap();
    let file = file.to_str().unwrap();

    for command in ["run", "check", "list"] {
        let output = zipnet_sim(&[command, file]);
        assert_eq!(code(&output), 65, "{command}");
        let said = stderr(&output);
        assert!(said.contains(&format!("{file}:{line}:")), "{said}");
        assert!(said.contains("did you mean `rounds-finalized`?"), "{said}");
        assert_eq!(stdout(&output), "");
    }

    let output = zipnet_sim(&["check", file, "--format", "json"]);
    assert_eq!(code(&output), 65);
    let diagnostic: serde_json::Value =
        serde_json::from_str(stdout(&output).lines().next().unwrap()).unwrap();
    assert_eq!(diagnostic["line"], line);
    assert_eq!(diagnostic["suggestion"], "rounds-finalized");
}

#[test]
fn one_bad_file_among_good_ones_runs_nothing() {
    let folder = folder("one-bad-file").join("runbooks");
    std::fs::create_dir_all(&folder).unwrap();
    let good = scenarios().join("runbooks/01-cold-start.toml");
    std::fs::copy(good, folder.join("a.toml")).unwrap();
    std::fs::write(folder.join("b.toml"), "this is no scenario").unwrap();
    let output = zipnet_sim(&["run", folder.to_str().unwrap(), "--seeds", "1"]);
    assert_eq!(code(&output), 65);
    assert_eq!(stdout(&output), "");
}

#[test]
fn a_file_that_is_no_text_is_65() {
    let file = folder("no-text").join("bytes.toml");
    std::fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    assert_eq!(code(&zipnet_sim(&["check", file.to_str().unwrap()])), 65);
}

#[test]
fn every_scenario_of_the_repository_is_valid_and_listed() {
    let all = scenarios();
    let canaries = all.join("canaries");
    let paths = [all.to_str().unwrap(), canaries.to_str().unwrap()];
    let check = zipnet_sim(&[&["check"], &paths[..]].concat());
    assert_eq!(code(&check), 0, "{}", stderr(&check));
    let list = zipnet_sim(&[&["list", "--format", "json"], &paths[..]].concat());
    assert_eq!(code(&list), 0);
    assert_eq!(stdout(&check).lines().count(), stdout(&list).lines().count());
    for line in stdout(&list).lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let path = row["scenario"].as_str().unwrap();
        assert_eq!(row["canary"].is_string(), path.contains("/canaries/"), "{path}");
        assert_eq!(row["control"].is_string(), path.contains("/misuse/"), "{path}");
    }
}

#[test]
fn the_schema_is_json() {
    let output = zipnet_sim(&["schema"]);
    assert_eq!(code(&output), 0);
    let schema: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    assert!(schema.is_object());
}

#[test]
fn the_doctor_says_what_this_machine_offers() {
    let output = zipnet_sim(&["doctor", "--out", env!("CARGO_TARGET_TMPDIR")]);
    assert_eq!(code(&output), 0, "{}", stdout(&output));
    for what in ["compiler flag", "cores", "memory", "profile", "results"] {
        assert!(stdout(&output).contains(what), "{what} is missing");
    }
    let output = zipnet_sim(&["doctor", "--out", "/nowhere/at/all"]);
    assert_eq!(code(&output), 78);
}
