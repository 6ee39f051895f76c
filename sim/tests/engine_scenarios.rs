//! Scenarios through the binary: what is held, what is found, what is the same at every repeat.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const SMALL: &str = r#"
schema = 1
title = "Three servers, one aggregator and four clients finalise rounds"
prose = "The smallest deployment."

[topology]
servers = 3
aggregators = 1
clients = 4
[topology.server_env]
ZIPNET_MIN_PARTICIPANTS = "2"

[[workload]]
id = "chatter"
say = "Everybody publishes."
do.publish = { permille = 1000 }

[[step]]
id = "rounds"
say = "Rounds are finalised."
until.rounds-finalized = { count = 3, within = "60s" }
"#;

/// A folder for one test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes a scenario and returns its path.
fn scenario(test: &str, more: &str) -> String {
    let path = folder(test).join("small.toml");
    std::fs::write(&path, format!("{SMALL}{more}")).unwrap();
    path.display().to_string()
}

fn zipnet_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zipnet-sim")).args(arguments).output().unwrap()
}

/// The result lines of a sweep.
fn run(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let mut all = vec!["run", "--format", "json"];
    all.extend(arguments);
    let output = zipnet_sim(&all);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    (output.status.code(), lines.filter(|line| line.get("chain").is_some()).collect())
}

fn verdict(line: &Value) -> &str {
    line["verdict"].as_str().unwrap()
}

fn property(line: &Value) -> &str {
    line["failure"]["property"].as_str().unwrap()
}

#[test]
fn rounds_are_finalised_and_counted() {
    let (code, lines) = run(&[&scenario("finalised", ""), "--seeds", "2"]);
    assert_eq!(code, Some(0));
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert_eq!(verdict(line), "held");
        for count in ["elections", "syncs", "messages", "starts", "rounds_opened"] {
            assert!(line["counts"][count].as_u64().unwrap() > 0, "{count}");
        }
        assert!(line["counts"]["rounds_finalized"].as_u64().unwrap() >= 3);
        assert_eq!(line["counts"]["starts"], 8);
    }
    assert_ne!(lines[0]["chain"], lines[1]["chain"], "two seeds do two things");
}

#[test]
fn a_run_is_a_function_of_scenario_and_seed() {
    let path = scenario("repeat", "");
    let (code, alone) = run(&[&path, "--seed", "1", "--check-determinism", "1"]);
    assert_eq!(code, Some(0));
    let (_, sweep) = run(&[&path, "--seeds", "2", "--jobs", "2"]);
    let again = sweep.iter().find(|line| line["seed"] == 1).unwrap();
    assert_eq!(alone[0]["chain"], again["chain"]);
    assert_eq!(alone[0]["events"], again["events"]);
}

#[test]
fn what_depends_on_more_than_the_seed_is_noticed() {
    let path = scenario("disturbed", "");
    for defect in ["wall-clock-read", "map-iteration"] {
        let (code, _) = run(&[&path, "--seed", "0", "--defect", defect, "--check-determinism", "1"]);
        assert_eq!(code, Some(5), "{defect}");
    }
}

#[test]
fn a_fault_fires_as_often_as_it_may_in_each_step() {
    let more = r#"
[[step]]
id = "again"
say = "Done for three servers in turn."
for_each = "server"
do.wait = { for = "10s" }
[[fault]]
id = "restless"
say = "A client is frozen again and again."
during = ["again"]
do.pause = { target = "client-1", mean_gap = "100ms", lasts = "100ms" }
[[fault]]
id = "twice"
say = "Another one is frozen twice in each turn."
during = ["again"]
times = 2
do.pause = { target = "client-2", mean_gap = "100ms", lasts = "100ms" }
"#;
    let (code, lines) = run(&[&scenario("times", more), "--seed", "0"]);
    assert_eq!((code, verdict(&lines[0])), (Some(0), "held"));
    let faults = &lines[0]["faults"];
    assert_eq!(faults["twice"], 6);
    assert!(faults["restless"].as_u64().unwrap() > 30, "{faults}");
}

#[test]
fn a_wait_that_does_not_end_is_not_converged() {
    let path = scenario(
        "waits",
        "[[step]]\nid = \"never\"\nsay = \"Nobody ends.\"\nuntil.exited = { node = \"server-1\", code = 0, within = \"3s\" }\n",
    );
    let (code, lines) = run(&[&path, "--seed", "0"]);
    assert_eq!((code, verdict(&lines[0]), property(&lines[0])), (Some(6), "not-converged", "never"));
    assert_eq!(lines[0]["failure"]["line"], 25);
}

#[test]
fn a_wait_for_what_is_so_already_is_inconclusive() {
    let step = |act: &str, until: &str| {
        format!("[[step]]\nid = \"vain\"\nsay = \"Three vote.\"\n{act}until.{until}\n")
    };
    let voters = "voters = { count = 3 }";
    let wait = "do.wait = { for = \"1s\" }\n";
    let table = [
        // The act changes nothing.
        (step(wait, voters), Some(3)),
        // A step that only waits says how things are.
        (step("", voters), Some(0)),
        // The act undoes what it is waited for.
        (step("do.restart = { node = \"server:all\" }\n", "leader = { within = \"60s\" }"), Some(0)),
        // Nothing of the kind was so before.
        (step(wait, "rounds-finalized = { count = 1, within = \"60s\" }"), Some(0)),
    ];
    for (place, (more, expected)) in table.into_iter().enumerate() {
        let path = scenario(&format!("vain-{place}"), &more);
        let (code, lines) = run(&[&path, "--seed", "0"]);
        assert_eq!(code, expected, "{more}");
        if expected == Some(3) {
            assert_eq!((verdict(&lines[0]), property(&lines[0])), ("inconclusive", "vain"));
            let detail = lines[0]["failure"]["detail"].as_str().unwrap();
            assert!(detail.starts_with("voters was so before the `do`"), "{detail}");
        }
    }
}

#[test]
fn a_vote_of_a_lost_disk_is_no_voter() {
    let lost = "[[step]]\nid = \"lost\"\nsay = \"A disk is lost.\"\n\
                do = [{ crash = { node = \"server-3\", disk = \"lose-all\" } }, { wipe = { node = \"server-3\" } }]\n\
                check.voters = { exactly = 3 }\n";
    let (code, lines) = run(&[&scenario("lost-disk", lost), "--seed", "0"]);
    assert_eq!((code, verdict(&lines[0]), property(&lines[0])), (Some(1), "violated", "lost"));
    let detail = lines[0]["failure"]["detail"].as_str().unwrap();
    assert!(detail.contains("the vote of server-3 is that of a disk that is gone"), "{detail}");
}

#[test]
fn a_check_that_does_not_hold_is_a_violation() {
    let path =
        scenario("checks", "[[step]]\nid = \"two\"\nsay = \"Two lead.\"\ncheck.leaders = { exactly = 2 }\n");
    let (code, lines) = run(&[&path, "--seed", "0"]);
    assert_eq!((code, verdict(&lines[0]), property(&lines[0])), (Some(1), "violated", "two"));
    assert_eq!(lines[0]["failure"]["sentence"], "Two lead.");
}

#[test]
fn a_process_that_ends_unasked_is_a_violation() {
    let path = scenario(
        "exits",
        "[[step]]\nid = \"typo\"\nsay = \"A secret is mistyped.\"\ndo = [{ stop = { node = \"server-3\" } }, \
         { start = { node = \"server-3\", env = { ZIPNET_COMMITTEE_SECRET = \"secret:other\" } } }, \
         { wait = { for = \"20s\" } }]\n",
    );
    let (code, lines) = run(&[&path, "--seed", "0"]);
    assert_eq!((code, verdict(&lines[0]), property(&lines[0])), (Some(1), "violated", "unexpected-exit"));
    assert_eq!(lines[0]["failure"]["node"], "server-3");
}

#[test]
fn a_limit_makes_a_run_inconclusive() {
    let path = scenario("limits", "");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("[topology]\n", "[limits]\nmax_events = 500\n\n[topology]\n"))
        .unwrap();
    let (code, lines) = run(&[&path, "--seed", "0"]);
    assert_eq!((code, verdict(&lines[0]), property(&lines[0])), (Some(3), "inconclusive", "max_events"));
}

#[test]
fn a_defect_is_found_under_the_name_of_its_property() {
    let path = scenario("defect", "");
    let (code, lines) = run(&[&path, "--seed", "0", "--defect", "chain-records"]);
    assert_eq!((code, verdict(&lines[0]), property(&lines[0])), (Some(1), "violated", "chain"));
    let (code, _) = run(&[&path, "--seed", "0", "--defect", "no-such-thing"]);
    assert_eq!(code, Some(78));
}

#[test]
fn what_a_server_refuses_lasts_as_long_as_its_disk() {
    let refuse = "[[step]]\nid = \"refuse\"\nsay = \"A client is refused.\"\n\
         do.refuse = { node = \"server-3\", client = \"client-4\" }\nuntil.registered = { clients = 3, within = \"60s\" }\n";
    let again = |wipe: &str| {
        format!(
            "[[step]]\nid = \"again\"\nsay = \"The server is started anew.\"\n\
             do = [{{ stop = {{ node = \"server-3\" }} }}, {wipe} {{ start = {{ node = \"server-3\" }} }}]\n"
        )
    };
    let kept = "until.rounds-finalized = { count = 20, within = \"150s\" }\n\
                check.registry = { servers = 3, clients = 3 }\n";
    let lost = "until.registered = { servers = 3, clients = 4, within = \"240s\" }\n";
    let wipe = "{ wipe = { node = \"server-3\" } },";
    for (name, steps) in
        [("kept", format!("{}{kept}", again(""))), ("lost", format!("{}{lost}", again(wipe)))]
    {
        let path = scenario(&format!("state-{name}"), &format!("{refuse}{steps}"));
        let (code, lines) = run(&[&path, "--seed", "0"]);
        assert_eq!(code, Some(0), "{name}: {}", lines[0]["failure"]);
    }
}
