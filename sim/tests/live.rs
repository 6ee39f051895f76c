//! Runs on real processes, with scripts in the place of the nodes.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use zipnet_reports::{RunResult, Verdict};

/// A folder with binaries, and with a scenario.
struct Stage {
    folder: PathBuf,
}

/// What a script does before it sleeps, by role; nothing but the lines of a start unless it is given.
#[derive(Clone, Copy, Default)]
struct Cast<'a> {
    server: &'a str,
    client: &'a str,
    reader: &'a str,
}

const STARTS: &str = r#"
[[step]]
id = "start"
say = "Everybody boots."
until.log-event = { node = ["server:all", "aggregator-1", "client-1"], event = "booting", since = "run", within = "20s" }
check.log-order = { node = "server:all", events = ["spawning", "up", "booting"] }
"#;

impl Stage {
    fn new(name: &str, cast: Cast<'_>, steps: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("live-{name}"));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(folder.join("bin")).unwrap();
        let stage = Self { folder };
        stage.script("server", cast.server);
        stage.script("aggregator", "");
        stage.script("client", cast.client);
        stage.reader(cast.reader);
        let scenario = format!(
            "schema = 1\ntitle = \"A stage\"\nprose = \"Scripts in the place of nodes.\"\n\
             [topology]\nservers = 3\naggregators = 1\nclients = 1\n{steps}"
        );
        fs::write(stage.folder.join("scenario.toml"), scenario).unwrap();
        stage
    }

    fn reader(&self, act: &str) {
        let pids = self.folder.join("readers");
        self.binary("zipnet", &format!("echo $$ >> '{}'\n{act}\nexec sleep 600\n", pids.display()));
    }

    /// A script that says of itself that it makes 64 slots.
    fn binary(&self, name: &str, script: &str) {
        let path = self.folder.join("bin").join(name);
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = build-info ]; then\n  echo '{{\"wire_version\":1,\"machine_version\":1,\
             \"params\":{{\"num_slots\":64,\"slot_bytes\":256,\"tag_len\":16}}}}'\n  exit 0\nfi\n{script}"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The same scripts as another build, which says that it makes 32 slots.
    fn other_build(&self) {
        let folder = self.folder.join("bin/builds/fewer-slots");
        fs::create_dir_all(&folder).unwrap();
        for name in ["zipnet", "zipnet-server", "zipnet-aggregator", "zipnet-client"] {
            let script = fs::read_to_string(self.folder.join("bin").join(name)).unwrap();
            let script = script.replace("\"num_slots\":64", "\"num_slots\":32");
            fs::write(folder.join(name), script.replace("booting\"", "booting anew\"")).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn script(&self, role: &str, act: &str) {
        let pids = self.folder.join("pids");
        let text = format!(
            r#"echo $$ >> '{}'
say() {{ printf '{{"event":"%s","message":"%s"}}\n' "$1" "$2" >&2; }}
say spawning "spawning zipnet {role}"
printf '{{"seq":1,"event":"up","network":"n","instance":"i","peer":"{peer}","address":"127.0.0.1:1","role":"{role}","message":"zipnet up"}}\n' >&2
say booting "{role} booting"
{act}
exec sleep 600
"#,
            pids.display(),
            peer = "0".repeat(64)
        );
        self.binary(&format!("zipnet-{role}"), &text);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zipnet-sim"));
        command.arg("run").arg(self.folder.join("scenario.toml")).arg("--live").args(arguments);
        command.arg("--bin-dir").arg(self.folder.join("bin")).env_remove("GITHUB_ACTIONS");
        command.env("TMPDIR", &self.folder);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        self.is_empty();
        output
    }

    /// The result line of a run, and its exit code.
    fn result(&self) -> (RunResult, i32) {
        let output = self.run(&["--format", "json"]);
        let said = String::from_utf8_lossy(&output.stderr);
        let line = str::from_utf8(&output.stdout).unwrap();
        (RunResult::from_line(line).unwrap_or_else(|_| panic!("{line}{said}")), output.status.code().unwrap())
    }

    fn pids(&self) -> Vec<u32> {
        self.pids_in("pids")
    }

    fn pids_in(&self, file: &str) -> Vec<u32> {
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        text.lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// Nobody of the cast is left.
    fn is_empty(&self) {
        let all = || self.pids().into_iter().chain(self.pids_in("readers"));
        assert!(soon(|| !all().any(lives)), "a process was left behind");
    }

    /// Starts a run and waits until its nodes are up.
    fn start(&self) -> Child {
        let run = self.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        assert!(soon(|| self.pids().len() == 5), "the nodes were not started");
        run
    }
}

/// Whether a process runs. One that nobody has waited for does not.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn soon(happens: impl Fn() -> bool) -> bool {
    (0..400).any(|_| {
        #[expect(clippy::disallowed_methods, reason = "waits for real processes")]
        std::thread::sleep(Duration::from_millis(50));
        happens()
    })
}

#[test]
fn missing_binaries_are_78_with_the_command_that_builds_them() {
    let stage = Stage::new("missing", Cast::default(), STARTS);
    fs::remove_file(stage.folder.join("bin/zipnet-client")).unwrap();
    let output = stage.run(&[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("cargo build --release -p zipnet-prod") && said.contains("zipnet-client"),
        "{said}"
    );
    assert!(output.stdout.is_empty() && stage.pids().is_empty());
}

#[test]
fn a_procedure_that_is_seen_to_go_well_holds_and_says_what_was_left_out() {
    let fault = "[[fault]]\nid = \"jump\"\nsay = \"Clocks jump.\"\n\
                 do.clock = { target = \"server:any\", mean_gap = \"1s\", jump = \"1s\" }\n";
    let stage = Stage::new("held", Cast::default(), &format!("{fault}{STARTS}"));
    let out = stage.folder.join("out");
    let output = stage.run(&["--out", out.to_str().unwrap()]);
    let text = str::from_utf8(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("held "), "{text}");
    assert!(text.contains("not controlled: the fault jump (clock)"), "{text}");
    assert_eq!(text.lines().last(), Some("1 passed, 0 failed"));
    let own = out.join("live-held/scenario");
    let own = if own.is_dir() { own } else { out.join("scenario") };
    let own = own.join("0");
    let result = RunResult::from_line(&fs::read_to_string(own.join("result.json")).unwrap()).unwrap();
    assert!(result.live && result.verdict == Verdict::Held && result.counts.starts == 5);
    let log = fs::read_to_string(own.join("nodes/server-1.log")).unwrap();
    assert!(log.contains("server booting"), "{log}");
    assert_eq!(stage.pids().len(), 5);
}

#[test]
fn faults_of_the_network_fire() {
    let lasting = "target = \"server:any\", mean_gap = \"100ms\", lasts = \"50ms\"";
    let faults = [
        format!("partition = {{ {lasting} }}"),
        format!("slow = {{ {lasting}, latency = {{ median = \"10ms\", p99 = \"20ms\" }} }}"),
        format!("lossy = {{ {lasting}, loss = {{ permille = 500 }} }}"),
    ];
    let faults = faults.iter().enumerate().map(|(number, act)| {
        format!("[[fault]]\nid = \"fault-{number}\"\nsay = \"The network is bad.\"\ndo.{act}\n")
    });
    let steps = "[[step]]\nid = \"cut\"\nsay = \"It is alone.\"\ndo.partition = { node = \"server-1\" }\n\
                 [[step]]\nid = \"heal\"\nsay = \"It is not.\"\ndo.heal = {}\n\
                 [[step]]\nid = \"wait\"\nsay = \"Time passes.\"\ndo.wait = { for = \"2s\" }\n";
    let (result, code) =
        Stage::new("network", Cast::default(), &format!("{}{steps}", faults.collect::<String>())).result();
    assert_eq!(code, 0, "{:?}", result.failure);
    assert!(
        result.faults.len() == 3 && result.faults.values().all(|fired| *fired > 0),
        "{:?}",
        result.faults
    );
    assert!(result.not_controlled.is_empty(), "{:?}", result.not_controlled);
}

#[test]
fn a_step_that_only_a_simulation_can_make_is_inconclusive() {
    for (name, verb, what) in [
        (
            "lie",
            "lie = { node = \"aggregator-1\", deviation = \"honest\" }",
            "a node that lies is not controlled",
        ),
        (
            "drift",
            "upgrade = { node = \"server-1\", apply = \"drifted\" }",
            "a build that changes the state in another way than it says is not controlled",
        ),
    ] {
        let step = format!("[[step]]\nid = \"switch\"\nsay = \"It is needed.\"\ndo.{verb}\n");
        let stage = Stage::new(name, Cast::default(), &step);
        let (result, code) = stage.result();
        let failure = result.failure.unwrap();
        assert_eq!((result.verdict, code), (Verdict::Inconclusive, 3), "{failure:?}");
        assert!(failure.property == "switch" && failure.detail.contains(what), "{failure:?}");
    }
    let patch =
        "[[step]]\nid = \"patch\"\nsay = \"It is the same build.\"\ndo.upgrade = { node = \"server-1\" }\n";
    assert_eq!(Stage::new("patch", Cast::default(), patch).result().1, 0);
}

#[test]
fn nodes_are_upgraded_to_another_build_where_there_is_one() {
    let steps = "[[step]]\nid = \"upgrade\"\nsay = \"It gets another binary.\"\ndo = [\n\
                 { upgrade = { node = \"client-1\", num_slots = 32 } },\n\
                 { restart = { node = \"client-1\", signal = \"KILL\" } },\n]\n\
                 until.log-event = { node = \"client-1\", event = \"booting\", since = \"step\", within = \"20s\" }\n";
    let stage = Stage::new("builds", Cast::default(), &format!("{STARTS}{steps}"));
    let (result, code) = stage.result();
    let failure = result.failure.unwrap();
    let missing = "another build of the binaries (wire version 1, machine version 1, 32 slots of 256 bytes with tags \
                   of 16) is not controlled";
    assert_eq!((code, failure.property.as_str()), (3, "upgrade"), "{failure:?}");
    assert!(failure.detail.contains(missing), "{failure:?}");
    stage.other_build();
    let out = stage.folder.join("out");
    let output = stage.run(&["--out", out.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let log = |node: &str| {
        let logs =
            [out.join("live-builds/scenario"), out.join("scenario")].into_iter().find(|logs| logs.is_dir());
        fs::read_to_string(logs.unwrap().join("0/nodes").join(node)).unwrap()
    };
    assert!(log("client-1.log").contains("client booting anew"), "{}", log("client-1.log"));
    assert!(!log("server-1.log").contains("anew"));
}

#[test]
fn another_shape_of_rounds_is_another_build() {
    let stage = Stage::new("shape", Cast::default(), &format!("params = {{ num_slots = 32 }}\n{STARTS}"));
    let (result, code) = stage.result();
    assert_eq!(code, 3);
    assert!(
        result.failure.unwrap().detail.contains("32 slots of 256 bytes with tags of 16) is not controlled")
    );
    assert!(stage.pids().is_empty());
    stage.other_build();
    assert_eq!(stage.result().1, 0);
}

#[test]
fn a_broadcast_with_a_message_that_nobody_was_given_is_a_violation() {
    let round = r#"{"log":"00","round":1,"slots":[{"slot":1,"text":"from nowhere"}],"collisions":0}"#;
    let cast = Cast { reader: &format!("echo '{round}'"), ..Cast::default() };
    let wait = "[[step]]\nid = \"wait\"\nsay = \"Time passes.\"\ndo.wait = { for = \"20s\" }\n";
    let stage = Stage::new("nowhere", cast, wait);
    let (result, code) = stage.result();
    let failure = result.failure.unwrap();
    assert_eq!((code, failure.property.as_str()), (1, "validity"), "{failure:?}");
    assert!(failure.detail.contains("r1 holds a message that no client was given"), "{failure:?}");
    assert_eq!(stage.pids_in("readers").len(), 1);
}

#[test]
fn what_leaves_no_trace_is_inconclusive_and_the_run_goes_on() {
    let expect = "[[expect]]\nid = \"same\"\nsay = \"Nobody disagrees.\"\nalways.agreement = {}\n";
    let blind = "[[step]]\nid = \"keys\"\nsay = \"Nothing is found.\"\ncheck.opens-no-past-round = { node = \"server-1\" }\n";
    let stage = Stage::new("unseen", Cast::default(), &format!("{blind}{STARTS}{expect}"));
    let (result, code) = stage.result();
    let failure = result.failure.unwrap();
    assert_eq!((code, failure.property.as_str()), (3, "keys"), "{failure:?}");
    assert!(failure.detail.contains("not judged: opens-no-past-round: "), "{failure:?}");
    assert!(failure.detail.contains("not judged: agreement: no record was told of"), "{failure:?}");
    assert_eq!(result.steps.len(), 2, "the step behind it was made");
}

#[test]
fn a_process_that_ends_by_itself_is_a_violation() {
    for (name, act, how) in [
        ("panic", "say warning 'all is lost'; exit 101", "code 101, which is a panic"),
        ("signal", "kill -SEGV $$", "the signal SIGSEGV"),
    ] {
        let wait = "[[step]]\nid = \"wait\"\nsay = \"Nothing happens.\"\ndo.wait = { for = \"20s\" }\n";
        let stage = Stage::new(name, Cast { client: act, ..Cast::default() }, wait);
        let (result, code) = stage.result();
        let failure = result.failure.unwrap();
        assert_eq!((result.verdict, code), (Verdict::Violated, 1), "{failure:?}");
        assert_eq!(
            (failure.property.as_str(), failure.node.as_deref()),
            ("unexpected-exit", Some("client-1"))
        );
        assert!(failure.detail.contains(how) && failure.detail.contains("client booting"), "{failure:?}");
        let logs = failure.detail.rsplit_once("logs of all nodes: ").unwrap().1;
        assert!(Path::new(logs).starts_with(&stage.folder), "{logs}");
        assert!(Path::new(logs).join("client-1.log").is_file(), "the logs of a failure are kept");
        assert!(!Path::new(logs).with_file_name("state").exists(), "the state is not");
    }
}

#[test]
fn a_log_with_a_secret_in_it_is_a_violation() {
    let cast = Cast { server: "say warning \"the secret is $ZIPNET_SECRET\"", ..Cast::default() };
    let (result, code) = Stage::new("discretion", cast, STARTS).result();
    assert_eq!((code, result.failure.unwrap().property.as_str()), (1, "discretion"));
}

#[test]
fn a_server_that_does_not_stop_in_time_is_a_violation_and_is_killed() {
    let stop =
        "[[step]]\nid = \"stop\"\nsay = \"It leaves.\"\ndo.stop = { node = \"server-1\", within = \"1s\" }\n";
    // What is ignored stays ignored by what the script becomes.
    let cast = Cast { server: "trap '' TERM", ..Cast::default() };
    let (result, code) = Stage::new("stubborn", cast, &format!("{STARTS}{stop}")).result();
    let failure = result.failure.unwrap();
    assert_eq!((code, failure.property.as_str()), (1, "stop"), "{failure:?}");
    assert!(failure.detail.contains("server-1 did not stop within 1s"), "{failure:?}");
}

#[test]
fn a_condition_that_does_not_come_true_is_no_convergence() {
    let step = "[[step]]\nid = \"rounds\"\nsay = \"Rounds go on.\"\nuntil.rounds-finalized = { count = 1, within = \"1s\" }\n";
    let (result, code) = Stage::new("stuck", Cast::default(), step).result();
    assert_eq!((result.verdict, code), (Verdict::NotConverged, 6));
    assert!(result.failure.unwrap().detail.contains("server-1 saw 0 (does not answer)"));
}

#[test]
fn nobody_outlives_a_run_however_it_ends() {
    let wait = "[[step]]\nid = \"wait\"\nsay = \"Nothing happens.\"\ndo.wait = { for = \"5m\" }\n";
    for (signal, code) in [("TERM", Some(3)), ("INT", Some(3)), ("KILL", None)] {
        let stage = Stage::new(&format!("end-{signal}"), Cast::default(), wait);
        let run = stage.start();
        let sent =
            Command::new("kill").args([&format!("-{signal}"), &run.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let output = run.wait_with_output().unwrap();
        assert_eq!(output.status.code(), code, "{}", String::from_utf8_lossy(&output.stderr));
        stage.is_empty();
    }
}

#[test]
fn canaries_need_a_simulation() {
    let canary = "[canary]\ndefect = \"fold-once\"\nproperty = \"validity\"\n";
    let stage = Stage::new("canary", Cast::default(), &format!("{STARTS}{canary}"));
    let (result, code) = stage.result();
    assert_eq!(code, 3);
    assert!(result.failure.unwrap().detail.contains("the defect fold-once is not controlled"));
}
