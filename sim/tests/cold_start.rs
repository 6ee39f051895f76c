//! Everything or some of it is stopped, in any order and in either way, and started again in any other: a deployment comes
//! up whatever its nodes were told to start from.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use zipnet_sim::random::Random;

const SEEDS: u64 = 100;

/// What is drawn of one case.
struct Case {
    scenario: String,
    /// The first server is gone for good.
    first_gone: bool,
    /// Everything was stopped, and the committee secret changed.
    rotated: bool,
    /// Every server of the committee was down at once.
    all_down: bool,
    killed: bool,
}

/// The numbers below `count` in an order that is drawn.
fn shuffled<T>(random: &mut Random, mut all: Vec<T>) -> Vec<T> {
    let mut order = Vec::new();
    while !all.is_empty() {
        order.push(all.remove(random.index(all.len())));
    }
    order
}

/// A deployment of three or four servers, an aggregator and five clients, and what happens to it.
fn case(seed: u64) -> Case {
    let mut random = Random::new(seed).fork("cold start");
    let servers = 3 + random.index(2);
    let first_gone = random.below(2) == 0;
    let rotated = random.below(3) == 0;
    let everywhere = random.below(2) == 0;
    let mut text = format!(
        r#"schema = 1
title = "Cold start {seed}"
prose = "Drawn."
[topology]
servers = {servers}
aggregators = 1
clients = 5
[topology.server_env]
ZIPNET_MIN_PARTICIPANTS = "2"
ZIPNET_COMMITTEE_SECRET = "secret:committee"
[network]
latency = {{ median = "20ms", p99 = "150ms" }}
loss = {{ min_permille = 0, max_permille = 10 }}
[[workload]]
id = "chatter"
say = "Half of the clients publish in every round."
do.publish = {{ permille = 500, payload_bytes = {{ min = 1, max = 200 }} }}
[[step]]
id = "before"
say = "Rounds are finalized; bootstraps are set for the next start."
do = [
"#
    );
    let set = |nodes: &str, value: &str| {
        format!("  {{ set-env = {{ node = {nodes}, env = {{ ZIPNET_BOOTSTRAP = \"{value}\" }} }} }},\n")
    };
    if everywhere {
        text += &set("[\"server:all\", \"aggregator:all\", \"client:all\"]", "server:all");
    } else {
        text += &set("\"server-1\"", "server-2");
        text += &set("[\"aggregator:all\", \"client:all\"]", "server-1");
    }
    text += "]\nuntil.rounds-finalized = { count = 2, within = \"60s\" }\n";
    let mut present: Vec<String> = (1..=servers).map(|number| format!("server-{number}")).collect();
    if first_gone {
        let left = servers - 1;
        write!(
            text,
            r#"[[step]]
id = "gone"
say = "The first server is retired and never comes back."
do = [
  {{ retire = {{ node = "server-1" }} }},
  {{ wait = {{ for = "15s" }} }},
  {{ stop = {{ node = "server-1" }} }},
  {{ wipe = {{ node = "server-1" }} }},
]
until = [
  {{ voters = {{ count = {left}, excludes = "server-1", within = "60s" }} }},
  {{ rounds-finalized = {{ count = 1, within = "60s" }} }},
]
"#
        )
        .unwrap();
        present.remove(0);
    }
    let committee: BTreeSet<String> = present.iter().cloned().collect();
    present.push("aggregator-1".to_owned());
    present.extend((1..=5).map(|number| format!("client-{number}")));
    // Some of them, or all; a rotation begins with all.
    let all = rotated || random.below(2) == 0;
    let drawn = shuffled(&mut random, present.clone());
    let count = if all { drawn.len() } else { 1 + random.index(drawn.len()) };
    let stopped: Vec<String> = drawn.into_iter().take(count).collect();
    let mut killed = false;
    text += "[[step]]\nid = \"down\"\nsay = \"They are stopped, one after the other.\"\ndo = [\n";
    for node in &stopped {
        let kill = random.below(2) == 0;
        killed |= kill;
        let signal = if kill { "KILL" } else { "TERM" };
        writeln!(text, "  {{ stop = {{ node = \"{node}\", signal = \"{signal}\", within = \"10s\" }} }},")
            .unwrap();
    }
    if rotated {
        text += "  { set-env = { node = \"server:all\", env = { ZIPNET_COMMITTEE_SECRET = \"secret:committee-2\" } } },\n";
    }
    text += "]\n[[step]]\nid = \"up\"\nsay = \"They are started in another order.\"\ndo = [\n";
    for node in shuffled(&mut random, stopped.clone()) {
        writeln!(text, "  {{ wait = {{ for = \"{}ms\" }} }},", random.below(2_000)).unwrap();
        writeln!(text, "  {{ start = {{ node = \"{node}\" }} }},").unwrap();
    }
    // Two deadlines of a round.
    text += "]\nuntil.rounds-finalized = { count = 1, within = \"30s\" }\ncheck = [{ same-log = {} }, { leaders = { exactly = 1 } }]\n";
    text += "[[expect]]\nid = \"one-leader\"\nsay = \"There is one leader in each term.\"\nalways.one-leader = {}\n";
    let down: BTreeSet<String> = stopped.into_iter().collect();
    Case { scenario: text, first_gone, rotated, all_down: committee.is_subset(&down), killed }
}

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cold-start");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// What became of a case, if it did not hold.
fn failure(folder: &Path, seed: u64) -> Option<String> {
    let path = folder.join(format!("seed-{seed}.toml"));
    std::fs::write(&path, case(seed).scenario).unwrap();
    let path = path.display().to_string();
    let run = ["run", &path, "--seed", &seed.to_string()].map(str::to_owned);
    let output = Command::new(env!("CARGO_BIN_EXE_zipnet-sim")).args(run).output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_deployment_comes_up_whatever_was_stopped_and_in_whatever_order_it_is_started() {
    let cases: Vec<Case> = (0..SEEDS).map(case).collect();
    let count = |what: fn(&Case) -> bool| cases.iter().filter(|case| what(case)).count();
    for drawn in [
        count(|case| case.all_down && !case.rotated && !case.first_gone),
        count(|case| case.all_down && !case.rotated && case.first_gone),
        count(|case| case.rotated && !case.first_gone),
        count(|case| case.rotated && case.first_gone),
        count(|case| !case.all_down),
        count(|case| case.killed),
    ] {
        assert!(drawn >= 5, "too few of some kind are drawn: {drawn}");
    }
    let (folder, next) = (folder(), AtomicU64::new(0));
    let mut failures = Vec::new();
    std::thread::scope(|scope| {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs: Vec<_> = (0..jobs)
            .map(|_| {
                scope.spawn(|| {
                    let seeds = std::iter::from_fn(|| {
                        Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < SEEDS)
                    });
                    seeds.filter_map(|seed| failure(&folder, seed)).collect::<Vec<_>>()
                })
            })
            .collect();
        for job in jobs {
            failures.extend(job.join().unwrap());
        }
    });
    assert!(failures.is_empty(), "{} of {SEEDS}:\n{}", failures.len(), failures.join("\n"));
}
