//! Something goes wrong once in a step of a procedure that changes the committee: a server, the leader or the aggregator
//! loses its power, is killed, cut off or frozen, and comes back. The procedure ends, and rounds go on.
//!
//! Two of three cases are run once. With `ZIPNET_STRUCK_SEEDS` every case is run over so many seeds (a hundred take hours of
//! one core), and `ZIPNET_STRUCK_ONLY` takes those with this text in them:
//! `ZIPNET_STRUCK_SEEDS=100 ZIPNET_STRUCK_ONLY=03-add cargo test --release -p zipnet-sim --test struck_steps`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use zipnet_scenarios::node::{NodeRef, Nodes, Role, Which};
use zipnet_scenarios::scenario::{Expectation, Placed, Step};
use zipnet_scenarios::value::{Draw, Drawn, Span};
use zipnet_scenarios::verbs::{Check, Condition, Do};
use zipnet_scenarios::words::LogEvent;
use zipnet_scenarios::{Scenario, read};
use zipnet_sim::random::Random;

/// The procedures.
const PROCEDURES: [&str; 14] = [
    "runbooks/02-rolling-restart.toml",
    "runbooks/02-rolling-restart-client-floor.toml",
    "runbooks/03-add-server.toml",
    "runbooks/04-remove-server.toml",
    "runbooks/05-rotate-long-term-key.toml",
    "runbooks/06-rotate-committee-secret.toml",
    "runbooks/06-rotate-committee-secret-bootstraps.toml",
    "runbooks/07-change-round-parameters.toml",
    "runbooks/10-patch-upgrade.toml",
    "runbooks/15-replace-the-aggregator.toml",
    "runbooks/16-server-dead-for-good.toml",
    "runbooks/17-replace-a-disk.toml",
    "faults/announced-then-dead.toml",
    "faults/first-server-gone.toml",
];

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Killed,
    PowerLost,
    CutOff,
    CutOffForLong,
    Unheard,
    Frozen,
}

impl Trouble {
    const ALL: [Self; 6] =
        [Self::Killed, Self::PowerLost, Self::CutOff, Self::CutOffForLong, Self::Unheard, Self::Frozen];
    /// Those that leave the process as it is.
    const BESIDE: [Self; 4] = [Self::CutOff, Self::CutOffForLong, Self::Unheard, Self::Frozen];

    /// Whether the process ends.
    const fn ends(self) -> bool {
        matches!(self, Self::Killed | Self::PowerLost)
    }

    fn verb(self, victim: &str, gap: &str, stays_down: bool) -> String {
        let down = if stays_down { "\"1h\"" } else { "{ min = \"1s\", max = \"5s\" }" };
        let target = format!("target = \"{victim}\", mean_gap = \"{gap}\"");
        match self {
            Self::Killed => format!("crash = {{ {target}, down = {down}, disk = \"keep-all\" }}"),
            Self::PowerLost => format!("crash = {{ {target}, down = {down} }}"),
            Self::CutOff => format!("partition = {{ {target}, lasts = {{ min = \"2s\", max = \"8s\" }} }}"),
            Self::CutOffForLong => {
                format!("partition = {{ {target}, lasts = {{ min = \"15s\", max = \"25s\" }} }}")
            }
            Self::Unheard => {
                format!(
                    "partition = {{ {target}, lasts = {{ min = \"2s\", max = \"8s\" }}, one_way = true }}"
                )
            }
            // Shorter than a stop may take.
            Self::Frozen => format!("pause = {{ {target}, lasts = {{ min = \"1s\", max = \"3s\" }} }}"),
        }
    }
}

/// A step of a procedure, and who is struck in it.
#[derive(Clone, Debug)]
struct Case {
    procedure: &'static str,
    step: String,
    victim: String,
}

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn procedure(name: &str) -> Scenario {
    parsed(name, &std::fs::read_to_string(scenarios().join(name)).unwrap())
}

fn parsed(name: &str, text: &str) -> Scenario {
    read(name, text).unwrap_or_else(|wrong| panic!("{name}: {}\n{text}", wrong[0]))
}

/// Whether a list of nodes names this one, by its number or with all others.
fn names(nodes: &Nodes, node: &NodeRef) -> bool {
    let named = |other: &NodeRef| {
        other.instance.is_none()
            && other.role == node.role
            && (other.which == node.which || other.which == Which::All)
    };
    nodes.0.iter().any(named)
}

/// The nodes that are up at some time of a step. Those who have their turns in a group come back in it.
fn up_in(scenario: &Scenario, place: usize) -> Vec<NodeRef> {
    let main = scenario.main();
    let every = [Role::Server, Role::Aggregator]
        .into_iter()
        .flat_map(|role| (1..=main.count(role)).map(move |number| NodeRef::new(role, Which::Number(number))));
    let starts = |step: &Step, node: &NodeRef| {
        step.acts.iter().any(|act| matches!(&act.verb, Do::Start { node: nodes, .. } if names(nodes, node)))
    };
    every
        .filter(|node| {
            let Which::Number(number) = node.which else { return false };
            let mut up = main.starts(node.role, number);
            for step in &scenario.steps[..place] {
                for act in &step.acts {
                    match &act.verb {
                        Do::Stop { node: nodes, .. } | Do::Crash { node: nodes, .. }
                            if names(nodes, node) =>
                        {
                            up = false;
                        }
                        Do::Start { node: nodes, .. } if names(nodes, node) => up = true,
                        _ => {}
                    }
                }
            }
            up || starts(&scenario.steps[place], node)
        })
        .collect()
}

/// The step in which a server announces its leave, and the one in which it is stopped.
fn leave(scenario: &Scenario) -> Option<(NodeRef, usize, usize)> {
    let (announced, node) = scenario.steps.iter().enumerate().find_map(|(place, step)| {
        step.acts.iter().find_map(|act| match &act.verb {
            Do::Retire { node, dead: false, .. } => Some((place, node.clone())),
            _ => None,
        })
    })?;
    let stopped = scenario.steps.iter().position(|step| {
        step.acts.iter().any(|act| match &act.verb {
            Do::Stop { node: nodes, .. } | Do::Crash { node: nodes, .. } => names(nodes, &node),
            _ => false,
        })
    })?;
    Some((node, announced, stopped))
}

/// Every step of every procedure with everybody who can be struck in it.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in PROCEDURES {
        let scenario = procedure(name);
        for (place, step) in scenario.steps.iter().enumerate().skip(1) {
            let up = up_in(&scenario, place);
            let mut victims: Vec<String> = up.iter().map(ToString::to_string).collect();
            if up.iter().any(|node| node.role == Role::Server) {
                victims.push("server:leader".to_owned());
            }
            cases.extend(victims.into_iter().map(|victim| Case {
                procedure: name,
                step: step.id.clone(),
                victim,
            }));
        }
    }
    cases
}

/// A step that waits for a while longer than it says, for a node is away in it.
fn longer(span: Span, by: u64) -> Span {
    Span::from_millis(span.millis() + by).unwrap()
}

/// The procedure in which this goes wrong, as the seed decides.
fn struck(case: &Case, seed: u64) -> (Trouble, String) {
    let mut random = Random::new(seed).fork(case.procedure).fork(&case.step).fork(&case.victim);
    let whole = procedure(case.procedure);
    let place = whole.steps.iter().position(|step| step.id == case.step).unwrap();
    let leave = leave(&whole);
    // Who has announced its leave is not wanted back: it is refused if it is started again, or leaves as before.
    let leaving = leave.as_ref().filter(|(_, from, to)| (*from..=*to).contains(&place));
    let leaves = leaving.is_some_and(|(node, ..)| node.to_string() == case.victim);
    let may_leave = leaving.is_some() && case.victim == "server:leader";
    // Whoever is down when all are stopped is not kept from coming back.
    let stops_all = whole.steps[place].acts.iter().any(|act| match &act.verb {
        Do::Stop { node, .. } => node.0.iter().any(|node| node.which == Which::All),
        _ => false,
    });
    let stops = whole.steps[place].acts.iter().any(|act| matches!(act.verb, Do::Stop { .. }));
    let troubles: &[Trouble] = if may_leave || stops_all { &Trouble::BESIDE } else { &Trouble::ALL };
    let trouble = *random.pick(troubles).unwrap();
    let gap = random.pick(&["50ms", "300ms", "2s"]).unwrap();
    let stays_down = leaves && trouble.ends();
    let end = if stays_down { leaving.map_or(place, |(.., to)| *to) } else { place };
    let during: Vec<String> =
        whole.steps[place..=end].iter().map(|step| format!("\"{}\"", step.id)).collect();
    let text = std::fs::read_to_string(scenarios().join(case.procedure)).unwrap();
    let text = format!(
        "{text}\n[[fault]]\nid = \"trouble\"\nsay = \"Once in the step.\"\nduring = [{}]\ntimes = 1\ndo.{}\n",
        during.join(", "),
        trouble.verb(&case.victim, gap, stays_down)
    );
    let mut scenario = parsed(case.procedure, &text);
    scenario.faults.retain(|fault| fault.id == "trouble");
    scenario.thresholds.clear();
    scenario.expects.retain(|expect| !matches!(expect.what, Expectation::Sometimes { .. }));
    for expect in &mut scenario.expects {
        if let Expectation::Eventually { within, .. } = &mut expect.what {
            *within = longer(*within, 60_000);
        }
    }
    for (number, step) in scenario.steps.iter_mut().enumerate() {
        let is_struck = number >= place && number <= end;
        for until in &mut step.untils {
            until.within = longer(until.within, 60_000);
        }
        if is_struck && step.untils.is_empty() {
            // Time in which it can happen.
            let time = Draw(Drawn::Fixed(Span::from_millis(5_000).unwrap()));
            step.acts.push(Placed { place: step.place, verb: Do::Wait { r#for: time } });
        }
        for check in &mut step.checks {
            if let Check::RoundsWentOn { gap, .. } = &mut check.verb {
                *gap = longer(*gap, 45_000);
            }
        }
        if is_struck {
            // Whoever is struck while it is stopped may end in another way, and is not heard saying goodbye. What holds at
            // one moment may not hold at that of the trouble.
            step.checks.retain(|check| match check.verb {
                Check::ExitCode { .. } => !trouble.ends() && trouble != Trouble::Frozen,
                Check::AnnouncedDeparture { .. } | Check::Metric { .. } | Check::Readiness { .. } => false,
                _ => true,
            });
        }
        if stops {
            // One that could not tell a majority that it goes is waited for until it is back, and the others say so.
            let by_the_rest = |node: &Nodes| node.0.iter().any(|node| node.which == Which::Rest);
            step.untils.retain(|until| {
                !matches!(&until.condition, Condition::RoundsFinalized { node, .. } if by_the_rest(node))
            });
        }
        if is_struck && trouble.ends() {
            // A process that began in this step reads what happened before it, and does not print it.
            let read_again = [LogEvent::AggregatorRegistered, LogEvent::GoesOn];
            step.untils.retain(|until| {
                !matches!(&until.condition, Condition::LogEvent { event, .. } if read_again.contains(event))
            });
        }
    }
    if stays_down && !scenario.steps[end].untils.is_empty() {
        // The others do not wait for the stop of one that is down already.
        let step = &mut scenario.steps[end];
        let rest = Step {
            id: format!("{}-then", step.id),
            acts: Vec::new(),
            untils: core::mem::take(&mut step.untils),
            checks: core::mem::take(&mut step.checks),
            ..step.clone()
        };
        scenario.steps.insert(end + 1, rest);
    }
    (trouble, scenario.to_toml())
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// What became of a run: how often the trouble came, or all that is needed to repeat it.
fn outcome(folder: &Path, case: &Case, seed: u64) -> (Trouble, Result<u64, String>) {
    let (trouble, text) = struck(case, seed);
    let name = Path::new(case.procedure).file_stem().unwrap().display();
    let victim = case.victim.replace(':', "-");
    let path = folder.join(format!("{name}.{}.{victim}.{seed}.toml", case.step));
    std::fs::write(&path, &text).unwrap();
    let file = path.display().to_string();
    let arguments =
        ["run", &file, "--seed", &seed.to_string(), "--format", "json", "--check-determinism", "0"];
    let output = Command::new(env!("CARGO_BIN_EXE_zipnet-sim")).args(arguments).output().unwrap();
    let lines = String::from_utf8_lossy(&output.stdout);
    let run = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let Some(run) = run.into_iter().find(|run| run.get("chain").is_some()) else {
        return (trouble, Err(format!("{case:?} {trouble:?} seed {seed}: no result\n{lines}")));
    };
    if output.status.success() {
        std::fs::remove_file(&path).unwrap();
        return (trouble, Ok(run["faults"]["trouble"].as_u64().unwrap()));
    }
    let failure = &run["failure"];
    let what = format!(
        "{} in {}: {}\n    zipnet-sim run {file} --seed {seed}",
        run["verdict"], failure["property"], failure["detail"]
    );
    (
        trouble,
        Err(format!("{}: {} of {}, {trouble:?}\n    {what}\n{text}", case.procedure, case.step, case.victim)),
    )
}

/// Makes these runs on every core, and says how many of them each kind of trouble came in.
fn sweep(name: &str, runs: &[(Case, u64)]) -> BTreeMap<Trouble, usize> {
    let (folder, next) = (folder(name), AtomicUsize::new(0));
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let work = || {
            let all = std::iter::from_fn(|| runs.get(next.fetch_add(1, Ordering::Relaxed)));
            all.map(|(case, seed)| outcome(&folder, case, *seed)).collect::<Vec<_>>()
        };
        let jobs: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        jobs.into_iter().flat_map(|job| job.join().unwrap()).collect()
    });
    let (mut came, mut failures) = (BTreeMap::new(), Vec::new());
    for (trouble, outcome) in outcomes {
        match outcome {
            Ok(times) => *came.entry(trouble).or_default() += usize::from(times > 0),
            Err(failure) => failures.push(failure),
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), runs.len(), failures.join("\n"));
    came
}

/// The cases that are run, each with its seed, and whether they are the sample.
#[expect(clippy::disallowed_methods, reason = "whoever runs this by hand says how much of it")]
fn chosen() -> (Vec<(Case, u64)>, bool) {
    let Ok(seeds) = std::env::var("ZIPNET_STRUCK_SEEDS") else {
        // Two of three, each once.
        return (cases().into_iter().zip(0..).filter(|(_, seed)| seed % 3 > 0).collect(), true);
    };
    let seeds: u64 = seeds.parse().unwrap();
    let only = std::env::var("ZIPNET_STRUCK_ONLY").unwrap_or_default();
    let cases = cases().into_iter().filter(|case| format!("{case:?}").contains(&only));
    (cases.flat_map(|case| (0..seeds).map(move |seed| (case.clone(), 1_000 + seed))).collect(), false)
}

#[test]
fn procedures_end_whoever_is_struck_in_whichever_step() {
    let (runs, is_sample) = chosen();
    assert!(!runs.is_empty(), "no case is chosen");
    let came = sweep("struck-steps", &runs);
    if is_sample {
        let steps: BTreeSet<_> = runs.iter().map(|(case, _)| (case.procedure, case.step.clone())).collect();
        assert!(steps.len() > 50 && runs.len() > 150, "{} {}", steps.len(), runs.len());
        assert_eq!(came.len(), Trouble::ALL.len(), "{came:?}");
        let all: usize = came.values().sum();
        assert!(all * 10 > runs.len() * 6, "the trouble hardly ever comes: {came:?}");
        assert!(came.values().all(|times| *times > 10), "{came:?}");
    }
}

#[test]
fn nothing_is_lost_when_every_disk_is_replaced_in_turn() {
    let file = scenarios().join("runbooks/17-replace-a-disk.toml").display().to_string();
    let arguments = ["run", &file, "--seeds", "100", "--check-determinism", "0"];
    let output = Command::new(env!("CARGO_BIN_EXE_zipnet-sim")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
