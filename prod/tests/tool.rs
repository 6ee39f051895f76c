//! The command `zipnet` and the pages of a node, against a committee that runs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use support::{Ended, Instance, NAME, Node, Process, binary, exchange, run, until, variables};

#[expect(dead_code, reason = "each file of tests uses a part of it")]
#[path = "support/processes.rs"]
mod support;

/// Asks the tool about a node.
fn ask(node: &Node, arguments: &[&str]) -> Ended {
    let folder = node.folder.display().to_string();
    run("zipnet", &[arguments, &["--state-dir", &folder]].concat(), &BTreeMap::new())
}

/// The same, for data.
fn data(node: &Node, arguments: &[&str]) -> Value {
    let asked = ask(node, &[arguments, &["--format", "json"]].concat());
    assert_eq!((asked.code, asked.stderr.as_str()), (0, ""), "{arguments:?}");
    serde_json::from_str(&asked.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", asked.stdout))
}

/// The tool refuses with a sentence that has this in it.
fn refused(ended: &Ended, sentence: &str) {
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(sentence), "{}", ended.stderr);
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_committee_is_watched_and_changed_with_the_tool() {
    let port = free_port();
    let mut instance = Instance::start(2, |node| {
        if node.name == "server-1" {
            node.variables.insert("ZIPNET_METRICS".to_owned(), format!("127.0.0.1:{port}"));
        }
        // Servers leave for good until one is left, and clients are to go on.
        if node.role == "client" {
            node.variables.insert("ZIPNET_MIN_SERVERS".to_owned(), "1".to_owned());
        }
    });
    let server = &instance.servers[0];
    watch(server, &instance);
    tail(server, &instance);
    pages(port, server);

    // Several nodes of the instance are here: it must be said which one is meant.
    let several = variables([("XDG_STATE_HOME", &instance.folder().join("none").display().to_string())]);
    refused(
        &run("zipnet", &["status", "--instance", NAME], &several),
        "no node of acme.tests runs with its state in",
    );
    refused(&run("zipnet", &["status"], &BTreeMap::new()), "say which node is meant");
    let wrong = run("zipnet", &["wait", "rounds", "--within", "long"], &BTreeMap::new());
    assert_eq!(wrong.code, 78, "{}", wrong.stderr);
    assert_eq!(run("zipnet", &["statsu"], &BTreeMap::new()).code, 2);

    stop_and_wipe(&mut instance);
    retire(&mut instance);
}

/// What is broadcast is printed, and what does not hold is said.
fn tail(server: &Node, instance: &Instance) {
    let home = instance.folder().join("readers");
    let environment = variables([("XDG_STATE_HOME", &home.display().to_string())]);
    let tail = |arguments: &[&str]| {
        let ours = ["tail", "--instance", NAME, "--bootstrap", &server.peer];
        run("zipnet", &[&ours, arguments].concat(), &environment)
    };
    let ids: Vec<_> = instance.servers.iter().map(Node::id).collect();
    let pins = ids.join(",");
    let read = tail(&["--servers", &pins, "--count", "2", "--within", "60s", "--format", "json"]);
    assert_eq!((read.code, read.stderr.as_str()), (0, ""), "{}", read.stdout);
    let records: Vec<Value> = read.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let distinct: std::collections::BTreeSet<_> =
        records.iter().map(|record| record["round"].as_u64()).collect();
    assert_eq!(distinct.len(), 2, "{}", read.stdout);
    for record in &records {
        let servers: Vec<_> =
            record["servers"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(ids.iter().all(|id| servers.contains(id)), "{record}");
        assert_eq!((&record["participants"], &record["collisions"]), (&2.into(), &0.into()), "{record}");
    }
    let from = records[0]["round"].to_string();
    let again = tail(&["--servers", &pins, "--from", &from, "--count", "1", "--within", "60s"]);
    assert!(
        again.code == 0 && again.stdout.starts_with(&format!("r{from}  2 participants  ")),
        "{}",
        again.stdout
    );

    let strange = tail(&["--servers", instance.aggregator.id(), "--count", "1", "--within", "3s"]);
    assert_eq!((strange.code, strange.stdout.as_str()), (1, ""), "{}", strange.stderr);
    assert!(strange.stderr.contains(" was refused: pin-missing\n"), "{}", strange.stderr);
    let mistyped = tail(&["--min-servers", "0"]);
    assert_eq!((mistyped.code, mistyped.stdout.as_str()), (78, ""), "{}", mistyped.stderr);
    let left = fs::read_dir(home.join("zipnet").join(NAME)).unwrap().count();
    assert_eq!(left, 0, "nobody is these readers again");
}

fn watch(server: &Node, instance: &Instance) {
    let ready = ask(server, &["wait", "ready"]);
    assert_eq!(ready.code, 0, "{}", ready.stderr);
    let before = server.round();
    assert_eq!(ask(server, &["wait", "rounds", "--count", "2"]).code, 0);
    assert!(server.round() >= before + 2);
    assert_eq!(ask(server, &["wait", "leader", "--within", "30s"]).code, 0);
    let in_vain = ask(server, &["wait", "rounds", "--count", "100000", "--within", "300ms"]);
    refused(&in_vain, "waited 300 ms for rounds in vain: ");

    let status = data(server, &["status"]);
    assert_eq!(status["instance"], NAME);
    assert_eq!(status["peer"], server.id());
    assert_eq!(status["role"], "server");
    assert_eq!(status["ready"], true);
    assert_eq!(status["causes"], serde_json::json!([]));
    assert_eq!((&status["clients"], &status["min_participants"]), (&2.into(), &2.into()));
    assert!(
        status["leader"].is_string() && status["group"].is_string() && status["log"].is_string(),
        "{status}"
    );
    assert!(status["finalized_round"].as_u64() >= Some(before), "{status}");
    assert_eq!(status["aggregator"].as_str().map(|peer| &peer[..10]), Some(&instance.aggregator.id()[..10]));
    let table = ask(server, &["status"]);
    assert!(table.code == 0 && table.stdout.contains(NAME), "{}", table.stdout);

    let members = data(server, &["members"]);
    let members = members.as_array().unwrap();
    assert_eq!(members.len(), 3);
    for member in members {
        assert!(instance.servers.iter().any(|server| member["peer"] == server.id()), "{member}");
        assert_eq!((&member["vote"], &member["standing"]), (&"voter".into(), &"registered".into()));
        assert_eq!((&member["linked"], &member["in_roster"]), (&true.into(), &true.into()));
    }
    assert_eq!(members.iter().filter(|member| member["leader"] == true).count(), 1);
    let table = ask(server, &["members"]);
    assert_eq!(table.stdout.lines().filter(|line| line.ends_with("leads")).count(), 1, "{}", table.stdout);

    let rounds = data(server, &["rounds"]);
    let rounds = rounds.as_array().unwrap();
    assert!(!rounds.is_empty());
    let newest = rounds.last().unwrap();
    let parts = ask(server, &["parts", &format!("r{}", newest["round"])]);
    assert_eq!(parts.code, 0, "{}", parts.stderr);
    let parts: Value = serde_json::from_str(&parts.stdout).unwrap();
    assert_eq!((&parts["format"], &parts["digest"]), (&"zipnet parts 1".into(), &newest["digest"]));
    assert!(parts["entries"].as_array().is_some_and(|entries| entries.len() > 3), "{parts}");
    refused(&ask(server, &["parts", "r100000"]), "this node does not hold the parts of that round");
    for round in rounds {
        assert_eq!(round["servers"].as_array().map(Vec::len), Some(3), "{round}");
        assert!(round["round"].is_u64() && round["digest"].is_string() && round["confirmed"].is_boolean());
        assert_eq!(round["participants"], 2);
    }
    assert!(ask(server, &["rounds"]).stdout.contains("confirmed"));

    // A client and the aggregator answer as well.
    assert_eq!(data(&instance.aggregator, &["status"])["role"], "aggregator");
    assert_eq!(ask(&instance.clients[0], &["wait", "ready"]).code, 0);
    assert_eq!(data(&instance.clients[0], &["status"])["role"], "client");

    let stop = data(server, &["plan", "stop"]);
    assert_eq!((&stop["safe"], &stop["may_leave"]), (&true.into(), &0.into()));
    assert!(stop["consequences"][0].as_str().unwrap().contains("2 of 3 votes remain"), "{stop}");
    assert_eq!(data(server, &["plan", "add"])["may_leave"], 1);
    assert_eq!(ask(server, &["wait", "vote"]).code, 0);
    let disk = ask(server, &["plan", "replace-disk", &instance.servers[2].id()[..6]]);
    assert!(disk.code == 0 && disk.stdout.contains("before zipnet wait vote"), "{}", disk.stdout);
    let remove = ask(server, &["plan", "remove", &instance.servers[2].id()[..6]]);
    assert!(remove.code == 0 && remove.stdout.contains("two servers remain"), "{}", remove.stdout);
    refused(
        &ask(server, &["plan", "remove", "zz"]),
        "no server of the committee has a peer id that begins with zz",
    );
}

/// What is offered over `ZIPNET_METRICS`.
fn pages(port: u16, server: &Node) {
    let get = |path: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        exchange(&mut stream, path).unwrap_or_else(|| panic!("{path} is no page"))
    };
    assert_eq!(get("/livez"), (200, "ok\n".to_owned()));
    assert_eq!(get("/readyz"), (200, "ready\n".to_owned()));
    let (code, text) = get("/readyz?verbose");
    assert!(code == 200 && text.starts_with("ready\n") && !text.contains("cause: "), "{text}");
    let (code, text) = get("/status");
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &status["peer"]), (200, &server.id().into()));
    let (code, text) = get("/metrics");
    assert_eq!(code, 200);
    for name in [
        "process_start_time_seconds",
        "process_resident_memory_bytes",
        "mosaik_groups_leader_is_local",
        "mosaik_groups_bonds",
        "mosaik_groups_committed_index",
        "zipnet_rounds_finalized_total",
        "zipnet_rounds_opened_total",
        "zipnet_partials_submitted_total",
        "zipnet_client_registry_size",
        "zipnet_server_registry_size",
        "zipnet_round_participants",
        "zipnet_min_participants",
        "zipnet_roster_servers",
        "zipnet_roster_servers_live",
        "zipnet_round_duration_seconds_bucket",
        "zipnet_round_stalled_seconds",
        "zipnet_build_info",
    ] {
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name} is missing: {text}"));
        // What is said of a process has the names and labels that Prometheus has for it: none.
        let is_ours = !name.starts_with("process_");
        assert_eq!(line.contains("instance_name=\"acme.tests\""), is_ours, "{line}");
    }
    assert_eq!(get("/nothing").0, 404);
    // Orders are not given over the network.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Write::write_all(
        &mut stream,
        b"POST /stop HTTP/1.1\r\nhost: zipnet\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

fn stop_and_wipe(instance: &mut Instance) {
    let folder = instance.clients[1].folder.clone();
    let path = folder.display().to_string();
    let wipe =
        |more: &[&str]| run("zipnet", &[&["wipe", "--state-dir", &path], more].concat(), &BTreeMap::new());
    refused(&wipe(&["--yes"]), "another process holds it; stop that one first");
    assert!(folder.exists());

    assert_eq!(ask(&instance.clients[1], &["stop"]).code, 0);
    assert_eq!(instance.clients[1].process_mut().code(), 0);
    refused(&ask(&instance.clients[1], &["stop"]), "no node answers in ");
    let in_vain = ask(&instance.clients[1], &["wait", "ready", "--within", "200ms"]);
    refused(&in_vain, "waited 200 ms for ready in vain: no node answers in ");

    // Through a link, the folder is what is wiped.
    let link = folder.with_file_name("link");
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    let path = link.display().to_string();
    let wipe =
        |more: &[&str]| run("zipnet", &[&["wipe", "--state-dir", &path], more].concat(), &BTreeMap::new());
    let asked = wipe(&[]);
    assert_eq!(asked.code, 1);
    assert!(asked.stderr.contains("Run again with --yes"), "{}", asked.stderr);
    assert!(folder.exists());
    let wiped = wipe(&["--yes"]);
    assert_eq!(wiped.code, 0, "{}", wiped.stderr);
    assert!(!folder.exists());
    refused(&wipe(&["--yes"]), "there is no such folder");
    fs::remove_file(&link).unwrap();
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("lock"), "of another program").unwrap();
    fs::write(other.path().join("thesis.txt"), "mine").unwrap();
    let path = other.path().display().to_string();
    refused(
        &run("zipnet", &["wipe", "--yes", "--state-dir", &path], &BTreeMap::new()),
        "it is no state folder of a node",
    );
    assert!(other.path().join("thesis.txt").exists());
    instance.clients[1].start();
    instance.wait_rounds(1);
}

fn retire(instance: &mut Instance) {
    let ids: Vec<_> = instance.servers.iter().map(|server| server.id().to_owned()).collect();
    let others = ask(&instance.servers[0], &["retire", &ids[1]]);
    refused(&others, "a server announces its own leave");
    let living = ask(&instance.servers[0], &["retire", "--dead", &ids[1][..8]]);
    refused(&living, "it answers; retire it in order instead, without --dead");
    let stranger = ask(&instance.servers[0], &["retire", "--dead", &"ab".repeat(32)]);
    refused(&stranger, "it has no vote in this committee");

    // One is dead: another one may not leave.
    instance.servers[2].process_mut().kill();
    until("the link to break", || {
        let members = instance.servers[0].data("/status");
        let gone = |member: &Value| member["peer"] == ids[2].as_str() && member["linked"] == false;
        members["servers"].as_array()?.iter().any(gone).then_some(())
    });
    refused(&ask(&instance.servers[0], &["retire"]), "the majority would be lost");
    let plan = ask(&instance.servers[0], &["plan", "remove"]);
    assert!(plan.code == 1 && plan.stdout.contains("the majority would be lost"), "{}", plan.stdout);
    let disk = ask(&instance.servers[0], &["plan", "replace-disk"]);
    assert!(disk.code == 1 && disk.stdout.contains("the log would be lost"), "{}", disk.stdout);
    let stop = ask(&instance.servers[0], &["plan", "stop"]);
    assert!(
        stop.code == 1 && stop.stdout.contains("the committee stops until it is back"),
        "{}",
        stop.stdout
    );
    // Status names who is awaited, in words.
    let awaited = until("a cause", || {
        let (code, text) = instance.servers[0].page("/readyz?verbose")?;
        (code == 503 && text.contains(&ids[2][..10])).then_some(text)
    });
    assert!(awaited.contains("cause: "), "{awaited}");

    // Dead for good: its vote goes, and rounds go on with two.
    let dead = ask(&instance.servers[0], &["retire", "--dead", &ids[2][..8]]);
    assert_eq!(dead.code, 0, "{}", dead.stderr);
    assert!(dead.stderr.contains("advice: two servers remain"), "{}", dead.stderr);
    for server in &instance.servers[..2] {
        let retired = server.process().wait_event("server-retired");
        assert_eq!((retired.field("server"), retired.field("forced")), (Some(&ids[2][..10]), Some("true")));
        server.wait_rounds(2);
        let members = until("two voters", || {
            let members = server.data("/status")["servers"].clone();
            let voters = members.as_array()?.iter().filter(|member| member["vote"] == "voter").count();
            (voters == 2).then_some(members)
        });
        let standing = members.as_array().unwrap().iter().find(|member| member["peer"] == ids[2].as_str());
        assert_eq!(standing.map(|member| &member["standing"]), Some(&"retired".into()));
    }
    // Its identity is barred.
    instance.servers[2].begin();
    let process = instance.servers[2].process_mut();
    assert_eq!(process.code(), 77, "{}", process.tail());
    process.wait_text("give the server a fresh ZIPNET_SECRET and add it again");

    // Two could not agree any more that one of them is gone.
    refused(&ask(&instance.servers[1], &["retire"]), "the majority would be lost");
    let mut added = instance.servers[0].sibling("server-4");
    added.start();
    added.wait_rounds(1);
    until("three voters", || {
        let members = instance.servers[1].data("/status")["servers"].clone();
        let voters = members.as_array()?.iter().filter(|member| member["vote"] == "voter").count();
        (voters == 3).then_some(())
    });

    // In order: announced, then stopped.
    let asked = ask(&instance.servers[1], &["retire"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    assert!(asked.stderr.contains("advice: two servers remain"), "{}", asked.stderr);
    assert!(asked.stderr.contains("announced: stop the server one gossip cycle"), "{}", asked.stderr);
    let told = |line: &support::Line| {
        ["server-leaving", "server-retired"].contains(&&*line.event)
            && line.field("server") == Some(&ids[1][..10])
    };
    instance.servers[0].process().wait_for(0, "the leave", told);
    assert_eq!(ask(&instance.servers[1], &["stop"]).code, 0);
    let code = instance.servers[1].process_mut().code();
    assert_eq!(code, 0, "{}", instance.servers[1].process().tail());
    // What starts it again is told that it is over.
    instance.servers[1].begin();
    let process = instance.servers[1].process_mut();
    assert_eq!(process.code(), 77, "{}", process.tail());
    process.wait_text("this server had announced that it leaves for good");
    for server in [&instance.servers[0], &added] {
        server.wait_rounds(2);
        until("its vote to go", || {
            let members = server.data("/status")["servers"].clone();
            let votes = |member: &&Value| member["vote"] == "voter" && member["peer"] == ids[1].as_str();
            members.as_array()?.iter().find(votes).is_none().then_some(())
        });
    }
}

#[test]
fn two_binaries_are_compared() {
    let server = binary("server");
    let same = run("zipnet", &["compat", server, binary("client")], &BTreeMap::new());
    assert_eq!(same.code, 0, "{}", same.stderr);
    assert!(same.stdout.contains("may serve one instance: roll one node at a time"), "{}", same.stdout);
    let scratch = tempfile::tempdir().unwrap();
    let saved = scratch.path().join("old.json");
    let about = run("server", &["build-info", "--format", "json"], &BTreeMap::new()).stdout;
    let mut about: Value = serde_json::from_str(&about).unwrap();
    about["wire_version"] = 99.into();
    about["params"]["slot_bytes"] = 512.into();
    fs::write(&saved, about.to_string()).unwrap();
    let crossed = run("zipnet", &["compat", &saved.display().to_string(), server], &BTreeMap::new());
    assert_eq!(crossed.code, 1, "{}", crossed.stderr);
    assert!(crossed.stdout.contains("boundary crossed: wire format: 99 and "), "{}", crossed.stdout);
    assert!(crossed.stdout.contains("boundary crossed: round parameters: "), "{}", crossed.stdout);
    refused(&run("zipnet", &["compat", "/no/such/binary", server], &BTreeMap::new()), "/no/such/binary");
    refused(&run("zipnet", &["compat", "/bin/false", server], &BTreeMap::new()), "/bin/false");
}

/// A folder for temporary files that a local network gets. Whatever the network leaves running is killed with it.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn environment(&self) -> BTreeMap<String, String> {
        variables([("TMPDIR", &self.0.path().display().to_string())])
    }

    /// Processes that have the folder in their environment or command line: number and command line of each.
    fn processes(&self) -> Vec<(i32, String)> {
        let (folder, here) = (self.0.path().display().to_string(), std::process::id());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let Ok(id) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let all = [read("environ"), read("cmdline")].concat();
            if id.unsigned_abs() != here && String::from_utf8_lossy(&all).contains(&folder) {
                found.push((id, String::from_utf8_lossy(&read("cmdline")).into_owned()));
            }
        }
        found
    }

    fn assert_nothing_is_left(&self) {
        until("every process to be gone", || self.processes().is_empty().then_some(()));
        let left: Vec<_> =
            fs::read_dir(self.0.path()).unwrap().filter_map(Result::ok).map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for (id, _) in self.processes() {
            let _gone_before = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

#[test]
fn a_local_network_runs_and_leaves_nothing() {
    let scratch = Scratch::new();
    let environment = scratch.environment();
    let ran = run("zipnet", &["local", "--rounds", "3", "--clients", "2", "--period", "400ms"], &environment);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let broadcast = ran.stdout.lines().filter(|line| line.ends_with(" participants  confirmed")).count();
    assert_eq!(broadcast, 3, "{}", ran.stdout);
    assert!(ran.stdout.contains("    hello number 1 of client-1\n"), "{}", ran.stdout);
    assert!(ran.stderr.contains("stopping every node in order"), "{}", ran.stderr);
    scratch.assert_nothing_is_left();
}

#[test]
fn a_local_network_that_is_interrupted_leaves_nothing() {
    // While the first node starts, while others do, and in the middle of rounds.
    for moment in ["", "server-2", "client-1", "participants  confirmed"] {
        let scratch = Scratch::new();
        let environment = scratch.environment();
        let mut command = Command::new(binary("zipnet"));
        command.args(["local", "--clients", "2", "--period", "400ms"]);
        let mut local = Process::start("local", &mut command, &environment);
        if moment.is_empty() {
            until("the first node", || (scratch.processes().len() > 1).then_some(()));
        } else {
            local.wait_text(moment);
        }
        local.signal(Signal::SIGINT);
        assert_eq!(local.code(), 0, "at {moment:?}{}", local.tail());
        scratch.assert_nothing_is_left();
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_local_network_ends_with_its_terminal_and_with_its_reader() {
    for how in ["terminal", "reader"] {
        let scratch = Scratch::new();
        let mut local = Command::new(binary("zipnet"))
            .args(["local", "--servers", "1", "--clients", "2", "--period", "500ms"])
            .env_clear()
            .envs(scratch.environment())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(local.stdout.take().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        if how == "terminal" {
            kill(Pid::from_raw(i32::try_from(local.id()).unwrap()), Signal::SIGHUP).unwrap();
            std::io::copy(&mut lines, &mut std::io::sink()).unwrap();
        }
        drop(lines);
        let ended = until("the network to end", || local.try_wait().unwrap());
        assert_eq!(ended.code(), Some(0), "{how}");
        scratch.assert_nothing_is_left();
    }
}

#[test]
fn a_node_is_found_by_who_it_says_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let home = scratch.path().display().to_string();
    let begin = |instance: &str, secret: &str| {
        let environment = variables([
            ("HOME", &*home),
            ("ZIPNET_INSTANCE", instance),
            ("ZIPNET_SECRET", &support::secret_of(secret)),
            ("ZIPNET_LISTEN", "127.0.0.1:0"),
        ]);
        let node =
            Process::start(instance, Command::new(binary("client")).args(["--format", "json"]), &environment);
        node.wait_event("up");
        node
    };
    let tool = |arguments: &[&str]| run("zipnet", arguments, &variables([("HOME", &home)]));
    let mut colon = begin("acme:prod", "one");
    let instances = scratch.path().join(".local/state/zipnet");
    refused(&tool(&["stop", "--instance", "acme/prod"]), "no node of acme/prod runs");
    refused(&tool(&["stop", "--instance", "acme_prod"]), "no node of acme_prod runs");
    let folder = fs::read_dir(instances.join("acme%3Aprod")).unwrap().next().unwrap().unwrap().path();
    let path = folder.display().to_string();
    refused(
        &tool(&["stop", "--state-dir", &path, "--instance", "acme/prod"]),
        "is of the instance acme:prod, not of",
    );
    // Somebody moved it to where another instance lies.
    std::os::unix::fs::symlink(instances.join("acme%3Aprod"), instances.join("acme%2Fprod")).unwrap();
    refused(&tool(&["stop", "--instance", "acme/prod"]), "is of the instance acme:prod, not of acme/prod");
    assert!(colon.ended_within(Duration::from_millis(200)).is_none());

    let mut other = begin("acme:prod", "two");
    refused(&tool(&["status", "--instance", "acme:prod"]), "choose one with --state-dir");
    other.kill();
    assert_eq!(tool(&["status", "--instance", "acme:prod"]).code, 0, "one that was killed does not run");
    assert_eq!(tool(&["stop", "--instance", "acme:prod"]).code, 0);
    assert_eq!(colon.code(), 0);
}

#[test]
fn a_client_is_refused_by_the_operator_of_one_server() {
    let mut instance = Instance::start(3, |_| {});
    let client = instance.clients[2].id().to_owned();
    let registered = |server: &Node, count: u64| {
        until("the registry", || (server.data("/status")["clients"] == count).then_some(()));
    };
    registered(&instance.servers[0], 3);
    let server = &instance.servers[0];
    assert_eq!(data(server, &["refuse"]), serde_json::json!({ "clients": [], "most": 16 }));
    refused(&ask(server, &["refuse", "client-3"]), "client-3 is no peer id");
    refused(&ask(server, &["refuse", "00ff00ff00ff00ff"]), "write all of its 64 digits");
    refused(&ask(&instance.aggregator, &["refuse", &client]), "only a server refuses clients");

    // By the beginning of its id, as the aggregator's log prints it.
    let asked = ask(server, &["refuse", &client[..10]]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    assert!(asked.stderr.contains(&format!("refused: {client} is out of the registry")), "{}", asked.stderr);
    for other in &instance.servers {
        let line = other.process().wait_event("client-refused");
        assert_eq!(line.field("client"), Some(&client[..10]), "{}", line.raw);
        assert!(line.message.ends_with(&format!("by server={}", &server.id()[..10])), "{}", line.raw);
        assert_eq!(other.metric("zipnet_clients_refused_total", &server.id()[..10]), 1);
        registered(other, 2);
    }
    instance.clients[2].process().wait_event("client-barred");
    let status = ask(&instance.clients[2], &["status"]);
    assert!(
        status.stdout.contains("not ready: refused: the operator of a server refuses"),
        "{}",
        status.stdout
    );
    instance.wait_rounds(2);
    let again = ask(server, &["refuse", &client]);
    assert!(again.code == 0 && again.stderr.contains("was on the list"), "{}", again.stderr);
    let listed = serde_json::json!([{ "client": client, "refused": true, "registered": false }]);
    assert_eq!(data(server, &["refuse"])["clients"], listed);
    let table = ask(server, &["refuse"]);
    assert!(table.stdout.contains(&format!("{client}  refused\n")), "{}", table.stdout);
    let status = ask(&instance.servers[1], &["status"]);
    let line = format!("\nrefused       1 by {}\n", &server.id()[..10]);
    assert!(status.stdout.contains(&line), "{}", status.stdout);
    assert_eq!(data(&instance.servers[1], &["status"])["refusals"][server.id()], 1);

    // The file is the truth: it outlives the process, and a person may edit it.
    let file = server.folder.join("refused-clients");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text, format!("{client}\n"));
    let path = file.display().to_string();
    fs::write(&file, format!("# mine\n{text}rubbish\n")).unwrap();
    let wrong = format!("failed to read {path}: line 3: `rubbish` is no peer id of 64 hexadecimal digits");
    server.process().wait_text(&wrong);
    refused(&ask(server, &["refuse", &"ab".repeat(32)]), &wrong);
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("# mine\n{text}rubbish\n"));
    let server = &mut instance.servers[0];
    assert_eq!(ask(server, &["stop"]).code, 0);
    assert_eq!(server.process_mut().code(), 0);
    server.begin();
    assert_eq!(server.process_mut().code(), 78);
    server.process().wait_text(&wrong);
    fs::write(&file, format!("# mine\n{text}")).unwrap();
    server.start();
    instance.wait_rounds(1);
    for _ in 0..10 {
        instance.wait_rounds(2);
    }
    // The bar is over; whoever comes back is refused again, and was in none of the rounds.
    registered(&instance.servers[1], 2);
    for round in data(&instance.servers[1], &["rounds"]).as_array().unwrap() {
        assert_eq!(round["participants"], 2, "{round}");
    }

    // Withdrawn in the file by hand, and it comes back.
    fs::write(&file, "# mine\n").unwrap();
    for server in &instance.servers {
        server.process().wait_event("refusal-withdrawn");
        registered(server, 3);
    }
    let enrolled = |line: &support::Line| line.event == "enrolled";
    let client = instance.clients[2].process();
    let (first, _) = client.wait_for(0, "its first registration", enrolled);
    client.wait_for(first + 1, "its second registration", enrolled);
    let none = ask(&instance.servers[0], &["refuse", "--withdraw", &"ab".repeat(32)]);
    assert!(none.code == 0 && none.stderr.contains("was not on the list"), "{}", none.stderr);
}

#[test]
fn another_aggregator_is_approved_by_its_id() {
    let instance = Instance::start(2, |_| {});
    let server = &instance.servers[0];
    refused(&ask(server, &["approve", "aggregator-2"]), "aggregator-2 is no peer id");
    refused(&ask(&instance.aggregator, &["approve", &"ab".repeat(32)]), "only a server does that");
    let present = ask(server, &["approve", instance.aggregator.id()]);
    assert_eq!(present.code, 0, "{}", present.stderr);
    assert!(present.stderr.contains("it is the aggregator of the log already"), "{}", present.stderr);
    let other = ask(server, &["approve", &"ab".repeat(32)]);
    assert_eq!(other.code, 0, "{}", other.stderr);
    for text in ["approved: it becomes the aggregator", "is not linked with it yet", "set ZIPNET_AGGREGATOR"]
    {
        assert!(other.stderr.contains(text), "{text}: {}", other.stderr);
    }
    instance.wait_rounds(2);
}
