//! Nodes as operators run them: processes, signals, state folders, exit codes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use support::{
    COMMITTEE_SECRET, Instance, Line, NAME, Node, Process, binary, run, secret_of, until, variables,
};

#[expect(dead_code, reason = "each file of tests uses a part of it")]
#[path = "support/processes.rs"]
mod support;

/// As the operators' document has it.
const ONE_SHOT: &str = r#"ZIPNET_INSTANCE="acme.mainnet" \
ZIPNET_COMMITTEE_SECRET="your-committee-secret" \
ZIPNET_SECRET="stable-node-seed" \
ZIPNET_MIN_PARTICIPANTS=2 \
ZIPNET_ROUND_PERIOD=3s \
ZIPNET_ROUND_DEADLINE=15s \
./zipnet-server --bootstrap <peer_id_of_another_server>
"#;

/// Runs a line in a shell, in a folder that has the binaries, as a user whose home it is.
fn shell(name: &str, home: &Path, line: &str) -> Process {
    // The shell gives way to the node, so that signals reach it.
    let line = line.replace("./zipnet-", "exec ./zipnet-");
    let environment = variables([("HOME", &home.display().to_string()), ("PATH", "/usr/bin:/bin")]);
    Process::start(name, Command::new("sh").arg("-c").arg(line).current_dir(home), &environment)
}

#[test]
fn the_documented_lines_bring_up_a_committee() {
    let home = tempfile::tempdir().unwrap();
    for role in ["server", "aggregator", "client"] {
        std::os::unix::fs::symlink(binary(role), home.path().join(format!("zipnet-{role}"))).unwrap();
    }
    let first = ONE_SHOT.replace(" --bootstrap <peer_id_of_another_server>", "");
    assert_ne!(first, ONE_SHOT);
    let mut servers = vec![shell("server-1", home.path(), &first)];
    // What the document says to grab: what stands behind peer= at startup.
    let up = servers[0].wait_text("zipnet up: ");
    let peer = up.field("peer").unwrap().to_owned();
    for number in 2..=3 {
        let line = ONE_SHOT
            .replace("<peer_id_of_another_server>", &peer)
            .replace("stable-node-seed", &format!("stable-node-seed-{number}"));
        servers.push(shell(&format!("server-{number}"), home.path(), &line));
    }
    let line = format!(
        "ZIPNET_INSTANCE=\"acme.mainnet\" ZIPNET_SECRET=\"aggregator-seed\" ./zipnet-aggregator --bootstrap {peer}"
    );
    let aggregator = shell("aggregator", home.path(), &line);
    let clients: Vec<_> = (1..=2)
        .map(|number| {
            let line = format!("ZIPNET_INSTANCE=\"acme.mainnet\" ./zipnet-client --bootstrap {peer}");
            shell(&format!("client-{number}"), home.path(), &line)
        })
        .collect();

    for server in &servers {
        let mut from = 0;
        // In this order, in these words.
        for expected in [
            "INFO zipnet_server: spawning zipnet server server=",
            "INFO zipnet_node::roles::common: zipnet up: network=mosaik.universe instance=acme.mainnet peer=",
            "INFO zipnet_node::roles::server: server booting; waiting for collections + group",
            "INFO zipnet_node::roles::server: submitted partial unblind at ",
            "INFO zipnet_node::committee: committee: round finalized round=r1 participants=2",
        ] {
            (from, _) = server.wait_for(from, expected, |line| line.raw.contains(expected));
            from += 1;
        }
        let spawning = server.wait_text("spawning zipnet server");
        let short = spawning.field("server").unwrap();
        assert!(short.len() == 10 && short.chars().all(|c| c.is_ascii_hexdigit()), "{short}");
        let up = server.wait_text("zipnet up: ");
        assert!(up.field("peer").unwrap().starts_with(short), "{}", up.raw);
        // The secrets of the document are short, and are not repeated.
        server.wait_text("ZIPNET_SECRET is short");
        for line in server.lines() {
            let secret = line.raw.contains("stable-node-seed") || line.raw.contains("your-committee-secret");
            assert!(!secret, "{}", line.raw);
        }
    }
    let opening = |server: &&Process| {
        let text = "INFO zipnet_node::committee: committee: opening round at index ";
        server.lines().iter().any(|line| line.raw.contains(text))
    };
    assert!(servers.iter().any(|server| opening(&server)), "whoever leads says so");
    aggregator.wait_text("aggregator booting; waiting for collections to come online");
    aggregator.wait_text("registering client bundle client=");
    aggregator.wait_text("aggregator: forwarded aggregate round=r1 participants=2");
    // Where state lies was chosen by instance and peer.
    let state = home.path().join(".local/state/zipnet/acme.mainnet");
    assert!(fs::read_dir(state).unwrap().count() >= 4);
    for mut process in servers.into_iter().chain([aggregator]).chain(clients) {
        process.signal(Signal::SIGTERM);
        assert_eq!(process.code(), 0, "{}", process.tail());
    }
}

/// The rounds that a server has said it finalised, over all of its lives.
fn finalized(lines: &[Line]) -> Vec<u64> {
    let lines = lines.iter().filter(|line| line.event == "round-finalized");
    lines.map(|line| line.field("round").unwrap().trim_start_matches('r').parse().unwrap()).collect()
}

/// The digests of the records that a server shows, by round.
fn records(server: &Node) -> BTreeMap<u64, String> {
    let records = server.data("/records");
    let records = records.as_array().cloned().unwrap_or_default();
    let entry = |record: &serde_json::Value| {
        (record["round"].as_u64().unwrap(), record["digest"].as_str().unwrap().to_owned())
    };
    records.iter().map(entry).collect()
}

/// Adds what the servers show to what they have shown before: no record may ever change.
fn compare_records(servers: &[Node], known: &mut BTreeMap<u64, String>) {
    for server in servers {
        for (round, digest) in records(server) {
            let before = known.entry(round).or_insert_with(|| digest.clone());
            assert_eq!(*before, digest, "{} has another record of r{round}", server.name);
        }
    }
}

#[test]
fn a_server_that_is_asked_to_stop_leaves_in_order_at_any_moment() {
    let mut instance = Instance::start(3, |_| {});
    // The leader every other time, and other moments of a round of 300 ms.
    for (turn, delay) in [0, 170, 40, 260, 110, 220].into_iter().enumerate() {
        let leader = instance.leader();
        let number = if turn % 2 == 0 { leader } else { (leader + 1) % 3 };
        let others: Vec<_> = (0..3).filter(|other| *other != number).collect();
        let seen: Vec<_> =
            others.iter().map(|other| instance.servers[*other].process().lines().len()).collect();
        sleep(Duration::from_millis(delay));
        let asked = Instant::now();
        let server = instance.servers[number].process_mut();
        server.signal(Signal::SIGTERM);
        assert_eq!(server.code(), 0, "{}", server.tail());
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(5), "it took {took:?}{}", server.tail());
        server.wait_event("departing");
        assert_eq!(server.wait_event("exiting").message, "exiting code=0: stopped in order");

        let id = instance.servers[number].id()[..10].to_owned();
        for (other, from) in others.iter().zip(seen) {
            let other = instance.servers[*other].process();
            other.wait_for(from, "a goodbye", |line| {
                line.event == "unlinked" && line.message == format!("unlinked server={id} reason=departing")
            });
            other.wait_for(from, "the departure in the log", |line| {
                line.event == "server-departed" && line.field("server") == Some(&id)
            });
            if number == leader {
                other.wait_for(from, "another leader", |line| {
                    line.event == "leader" && ![Some("none"), Some(&*id)].contains(&line.field("leader"))
                });
            }
        }
        instance.servers[number].start();
        instance.wait_rounds(1);
    }
}

#[test]
fn a_server_stops_in_time_beside_one_that_hangs() {
    let mut instance = Instance::start(2, |_| {});
    let leader = instance.leader();
    let (hanging, stopping) = ((leader + 1) % 3, (leader + 2) % 3);
    instance.servers[hanging].process().signal(Signal::SIGSTOP);
    // A round is open that cannot be finished.
    sleep(Duration::from_millis(700));
    for number in [stopping, leader] {
        let asked = Instant::now();
        let server = instance.servers[number].process_mut();
        server.signal(Signal::SIGTERM);
        assert_eq!(server.code(), 0, "{}", server.tail());
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(5), "it took {took:?}{}", server.tail());
    }
    instance.servers[hanging].process().signal(Signal::SIGCONT);
}

#[test]
fn a_server_that_is_killed_at_any_moment_loses_nothing() {
    // A round that misses a partial is given up soon.
    let mut instance = Instance::start(3, |node| {
        if node.role == "server" {
            node.variables.insert("ZIPNET_ROUND_DEADLINE".to_owned(), "2s".to_owned());
        }
    });
    let mut known = BTreeMap::new();
    let kill = |instance: &mut Instance, victims: &[usize], known: &mut BTreeMap<u64, String>| {
        compare_records(&instance.servers, known);
        let mut said = Vec::new();
        for victim in victims {
            let process = instance.servers[*victim].process_mut();
            process.kill();
            said.push(finalized(&process.lines()));
        }
        for victim in victims {
            instance.servers[*victim].start();
        }
        instance.wait_rounds(1);
        compare_records(&instance.servers, known);
        for (victim, said) in victims.iter().zip(said) {
            let server = &instance.servers[*victim];
            assert!(said.is_sorted_by(|one, next| one < next), "{said:?}");
            let last = said.last().copied().unwrap_or(0);
            let kept = records(server);
            assert!(last == 0 || kept.contains_key(&last), "{} lost r{last}: {kept:?}", server.name);
            let again = finalized(&server.process().lines());
            assert!(
                again.iter().all(|round| *round > last),
                "{} went from r{last} to {again:?}",
                server.name
            );
        }
    };
    for (turn, delay) in [30, 290, 90, 200, 150].into_iter().enumerate() {
        sleep(Duration::from_millis(delay));
        kill(&mut instance, &[turn % 3], &mut known);
    }
    // A power failure of the whole committee.
    sleep(Duration::from_millis(120));
    kill(&mut instance, &[0, 1, 2], &mut known);
    assert!(!known.is_empty());
}

#[test]
fn everything_that_was_stopped_comes_up_again_whatever_it_is_told_to_start_from() {
    let mut instance = Instance::start(3, |_| {});
    // As the page on deploying advises: bootstrap peers everywhere, the first server's own included.
    let peers: Vec<String> = instance.servers.iter().map(|server| server.peer.clone()).collect();
    for node in instance.nodes_mut() {
        node.variables.insert("ZIPNET_BOOTSTRAP".to_owned(), peers.join(","));
    }
    let secrets = [COMMITTEE_SECRET.to_owned(), secret_of("another committee"), secret_of("a third one")];
    for (turn, secret) in secrets.into_iter().enumerate() {
        let mut nodes: Vec<&mut Node> = instance.nodes_mut().collect();
        for (place, node) in nodes.iter_mut().enumerate() {
            if (place + turn) % 2 == 0 {
                node.process_mut().kill();
            } else {
                node.process_mut().signal(Signal::SIGTERM);
                assert_eq!(node.process_mut().code(), 0, "{}", node.process().tail());
            }
            if node.role == "server" {
                node.variables.insert("ZIPNET_COMMITTEE_SECRET".to_owned(), secret.clone());
            }
        }
        let count = nodes.len();
        nodes.rotate_left(turn * 2 % count);
        if turn % 2 == 1 {
            nodes.reverse();
        }
        for node in nodes {
            node.start();
        }
        let started = Instant::now();
        instance.wait_rounds(1);
        let took = started.elapsed();
        // Two deadlines of a round, and what a busy machine adds.
        assert!(took < Duration::from_secs(2 * 5 + 10), "turn {turn}: it took {took:?}");
        instance.leader();
    }
}

#[test]
fn strangers_and_copies_are_refused_and_the_committee_goes_on() {
    let mut instance = Instance::start(2, |_| {});
    let bootstrap = instance.servers[0].peer.clone();
    let begin = |instance: &Instance, name: &str, change: &[(&str, &str)]| {
        let mut variables = instance.servers[1].variables.clone();
        let folder = instance.folder().join(name).display().to_string();
        for (variable, value) in
            [("ZIPNET_STATE_DIR", folder.as_str()), ("ZIPNET_BOOTSTRAP", &bootstrap)].iter().chain(change)
        {
            variables.insert((*variable).to_owned(), (*value).to_owned());
        }
        Process::start(name, &mut Command::new(binary("server")), &variables)
    };

    // Another process has the folder.
    let folder = instance.servers[1].folder.display().to_string();
    let mut second = begin(&instance, "second", &[("ZIPNET_STATE_DIR", &folder)]);
    assert_eq!(second.code(), 1);
    second.wait_text("another process holds it; stop that one first, or set another ZIPNET_STATE_DIR");

    // The identity of a server that lives.
    let mut copy = begin(&instance, "copy", &[]);
    assert_eq!(copy.code(), 77, "{}", copy.tail());
    copy.wait_text("ZIPNET_SECRET must be unique to each node");

    // Not of this committee.
    let mut stranger = begin(
        &instance,
        "stranger",
        &[
            ("ZIPNET_SECRET", &secret_of("stranger")),
            ("ZIPNET_COMMITTEE_SECRET", "another committee's secret, also long enough for no warning"),
        ],
    );
    assert_eq!(stranger.code(), 77, "{}", stranger.tail());
    stranger.wait_text("compare ZIPNET_COMMITTEE_SECRET");
    let refused: u64 =
        instance.servers.iter().map(|server| server.metric("zipnet_rejected_total", "group-proof")).sum();
    assert!(refused > 0, "the refusal is counted");

    // Nobody resolves the name; the node goes on trying, and says so.
    let name = format!("{}@no-such-host.invalid:4000", "ab".repeat(32));
    let secret = secret_of("lost");
    let mut lost = begin(&instance, "lost", &[("ZIPNET_SECRET", &secret), ("ZIPNET_BOOTSTRAP", &name)]);
    let warned = lost.wait_text("no-such-host.invalid:4000");
    assert_eq!(warned.level, "WARN", "{}", warned.raw);
    assert!(warned.message.contains("trying again"), "{}", warned.raw);
    assert!(warned.message.contains("the name does not resolve"), "{}", warned.raw);
    lost.signal(Signal::SIGTERM);
    assert_eq!(lost.code(), 0, "{}", lost.tail());

    // A port that somebody has; the saved one is left for another.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = socket.local_addr().unwrap().to_string();
    let mut listener = begin(&instance, "listener", &[("ZIPNET_SECRET", &secret), ("ZIPNET_LISTEN", &taken)]);
    assert_eq!(listener.code(), 1);
    listener.wait_text("stop whoever uses it, or set another ZIPNET_LISTEN");
    drop(socket);
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = metrics.local_addr().unwrap().to_string();
    let mut monitored =
        begin(&instance, "listener", &[("ZIPNET_SECRET", &secret), ("ZIPNET_METRICS", &taken)]);
    assert_eq!(monitored.code(), 1);
    monitored.wait_text(&format!("failed to listen on ZIPNET_METRICS={taken}"));
    let mut nameless = begin(
        &instance,
        "listener",
        &[("ZIPNET_SECRET", &secret), ("ZIPNET_LISTEN", "no-such-host.invalid:0")],
    );
    assert_eq!(nameless.code(), 1);
    nameless.wait_text("failed to resolve no-such-host.invalid:0");

    instance.wait_rounds(2);
    for server in &mut instance.servers {
        server.process().signal(Signal::SIGTERM);
    }
}

#[test]
fn every_mistake_in_the_configuration_is_named_at_once() {
    let complete = variables([
        ("ZIPNET_INSTANCE", NAME),
        ("ZIPNET_SECRET", &secret_of("server")),
        ("ZIPNET_COMMITTEE_SECRET", COMMITTEE_SECRET),
        ("ZIPNET_STATE_DIR", "/no/such/folder"),
    ]);
    let with = |change: &[(&str, &str)]| {
        let mut variables = complete.clone();
        for (name, value) in change {
            variables.insert((*name).to_owned(), (*value).to_owned());
        }
        variables
    };

    let several = with(&[
        ("ZIPNET_ROUND_PERIOD", "three"),
        ("ZIPNET_MIN_PARTICIPANTS", "-1"),
        ("ZIPNET_LISTEN", "everywhere"),
        ("ZIPNET_INSTANSE", "acme"),
    ]);
    let refused = run("server", &[], &several);
    assert_eq!(refused.code, 78, "{}", refused.stderr);
    for expected in [
        "error: ZIPNET_ROUND_PERIOD=three is not understood: write ",
        "error: ZIPNET_MIN_PARTICIPANTS=-1 is not understood: write ",
        "error: ZIPNET_LISTEN=everywhere is not understood: write ",
        "error: ZIPNET_INSTANSE is not a variable of zipnet: did you mean ZIPNET_INSTANCE?",
    ] {
        assert!(refused.stderr.contains(expected), "{expected}: {}", refused.stderr);
    }
    assert!(refused.stdout.is_empty());

    let refused = run("client", &[], &complete);
    assert_eq!(refused.code, 78);
    assert!(refused.stderr.contains("only committee servers may hold it"), "{}", refused.stderr);
    assert!(!refused.stderr.contains(COMMITTEE_SECRET));
    let refused = run("aggregator", &[], &complete);
    assert_eq!(refused.code, 78);
    let refused = run("server", &[], &BTreeMap::new());
    assert_eq!(refused.code, 78);
    assert!(refused.stderr.contains("ZIPNET_COMMITTEE_SECRET is not set: a server requires it"));

    let mistyped = run("server", &["--round-periode", "3s"], &complete);
    assert_eq!(mistyped.code, 2, "{}", mistyped.stderr);
    assert!(mistyped.stderr.contains("--round-period"), "{}", mistyped.stderr);
    let wrong = run("server", &["--round-period", "three"], &complete);
    assert_eq!(wrong.code, 78, "{}", wrong.stderr);
    let wrong = run("server", &[], &with(&[("RUST_LOG", "zipnet=loud"), ("ZIPNET_STATE_DIR", "/proc/none")]));
    assert_eq!(wrong.code, 78, "{}", wrong.stderr);
    assert!(wrong.stderr.contains("RUST_LOG=zipnet=loud is not understood"), "{}", wrong.stderr);
    assert_eq!(run("server", &["--help"], &BTreeMap::new()).code, 0);
}

#[test]
fn questions_about_a_node_are_answered_without_starting_it() {
    let scratch = tempfile::tempdir().unwrap();
    let credentials = scratch.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let secret = secret_of("questions");
    fs::write(credentials.join("zipnet-secret"), format!("{secret}\n")).unwrap();
    fs::write(credentials.join("zipnet-committee-secret"), format!("{COMMITTEE_SECRET}\n")).unwrap();
    let folder = scratch.path().join("state");
    let environment = variables([
        ("ZIPNET_INSTANCE", NAME),
        ("ZIPNET_STATE_DIR", &folder.display().to_string()),
        ("ZIPNET_LISTEN", "127.0.0.1:0"),
        ("CREDENTIALS_DIRECTORY", &credentials.display().to_string()),
    ]);

    let id = run("server", &["keys", "id"], &environment);
    assert_eq!((id.code, id.stderr.as_str()), (0, ""));
    let id = id.stdout.trim();
    assert_eq!(id.len(), 64);
    assert!(!folder.exists(), "asking makes nothing");

    let checked = run("server", &["check"], &environment);
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    assert!(checked.stdout.starts_with(&format!("ok: {id}@127.0.0.1:")), "{}", checked.stdout);
    assert!(checked.stderr.contains("warning: ZIPNET_AGGREGATOR is not set"), "{}", checked.stderr);

    for arguments in [&["config", "show"] as &[&str], &["config", "show", "--origin"]] {
        let mut environment = environment.clone();
        environment.insert("ZIPNET_ROUND_PERIOD".to_owned(), "7s".to_owned());
        for (variable, value) in [("ZIPNET_SECRET", &*secret), ("ZIPNET_COMMITTEE_SECRET", COMMITTEE_SECRET)]
        {
            // From the credential, then from the environment.
            let shown = run("server", arguments, &environment);
            assert_eq!(shown.code, 0, "{}", shown.stderr);
            let all = shown.stdout + &shown.stderr;
            assert!(!all.contains(&secret) && !all.contains(COMMITTEE_SECRET), "{all}");
            assert!(all.contains("ZIPNET_ROUND_PERIOD=7s"), "{all}");
            assert_eq!(all.contains("ZIPNET_ROUND_PERIOD=7s  # variable"), arguments.len() == 3, "{all}");
            environment.insert(variable.to_owned(), value.to_owned());
        }
        let all = run("server", arguments, &environment).stdout;
        assert!(all.contains("ZIPNET_SECRET=(not shown)") && !all.contains(&secret), "{all}");
        assert!(all.contains("ZIPNET_COMMITTEE_SECRET=(not shown)"), "{all}");
    }

    // The node itself takes its secrets from there as well.
    let mut server = Process::start("server", &mut Command::new(binary("server")), &environment);
    assert!(server.wait_text("zipnet up: ").field("peer").unwrap().starts_with(id));
    server.signal(Signal::SIGINT);
    assert_eq!(server.code(), 0, "{}", server.tail());

    for name in ["server", "aggregator", "client", "zipnet"] {
        let built = run(name, &["build-info", "--format", "json"], &BTreeMap::new());
        let built: serde_json::Value = serde_json::from_str(&built.stdout).unwrap();
        assert!(built["wire_version"].is_number() && built["machine_signature"].is_string(), "{built}");
        let completions = run(name, &["completions", "bash"], &BTreeMap::new());
        assert!(completions.code == 0 && completions.stdout.contains("complete -F"), "{name}");
        let manual = run(name, &["man"], &BTreeMap::new());
        assert!(manual.code == 0 && manual.stdout.contains(".TH "), "{name}");
        let version = run(name, &["--version"], &BTreeMap::new());
        assert!(version.code == 0 && version.stdout.contains(env!("CARGO_PKG_VERSION")), "{name}");
    }
}

/// A server that has a log of its own, and has stopped.
fn stopped_server(scratch: &Path) -> BTreeMap<String, String> {
    let environment = variables([
        ("ZIPNET_INSTANCE", NAME),
        ("ZIPNET_SECRET", &secret_of("kept")),
        ("ZIPNET_COMMITTEE_SECRET", COMMITTEE_SECRET),
        ("ZIPNET_STATE_DIR", &scratch.join("state").display().to_string()),
        ("ZIPNET_LISTEN", "127.0.0.1:0"),
        ("ZIPNET_FORMAT", "json"),
    ]);
    let mut server = Process::start("kept", &mut Command::new(binary("server")), &environment);
    server.wait_event("log-started");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.code(), 0, "{}", server.tail());
    environment
}

/// Starts a server that cannot go on with what it finds, and gives what it says and its code.
fn refused_start(environment: &BTreeMap<String, String>) -> (i32, String) {
    let mut server = Process::start("refused", &mut Command::new(binary("server")), environment);
    let code = server.code();
    (code, server.wait_event("exiting").message)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().filter_map(Result::ok) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn state_that_can_not_be_used_ends_with_65_and_with_what_to_do() {
    const META: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
    const NUMBERS: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("numbers");
    let scratch = tempfile::tempdir().unwrap();
    let mut environment = stopped_server(scratch.path());
    let folder = PathBuf::from(&environment["ZIPNET_STATE_DIR"]);
    let good = scratch.path().join("good");
    copy(&folder, &good);
    let restore = || {
        fs::remove_dir_all(&folder).unwrap();
        copy(&good, &folder);
    };
    for file in ["node.redb", "log.redb", "machine.redb"] {
        let path = folder.join(file);
        let damages: [(&str, &dyn Fn()); 4] = [
            ("cut off", &|| {
                let len = fs::metadata(&path).unwrap().len();
                fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len / 2).unwrap();
            }),
            ("no database", &|| fs::write(&path, "these are no pages of a database".repeat(512)).unwrap()),
            ("overwritten", &|| {
                let mut bytes = fs::read(&path).unwrap();
                bytes.iter_mut().skip(64).for_each(|byte| *byte ^= 0x5a);
                fs::write(&path, bytes).unwrap();
            }),
            ("of a later format", &|| {
                let database = redb::Database::open(&path).unwrap();
                let writing = database.begin_write().unwrap();
                if file == "node.redb" {
                    writing.open_table(NUMBERS).unwrap().insert("format", 99).unwrap();
                } else {
                    let kind = [&[99], file.as_bytes()].concat();
                    writing.open_table(META).unwrap().insert("kind", kind.as_slice()).unwrap();
                }
                writing.commit().unwrap();
            }),
        ];
        for (damage, act) in damages {
            restore();
            act();
            let (code, said) = refused_start(&environment);
            assert_eq!(code, 65, "{file} {damage}: {said}");
            assert!(said.contains(file), "{file} {damage}: {said}");
            assert!(said.contains("the server then joins as a new one"), "{file} {damage}: {said}");
            assert!(damage != "of a later format" || said.contains("format 99"), "{file} {damage}: {said}");
        }
    }
    // Nothing was touched meanwhile that the good copy does not have.
    restore();
    environment.insert("ZIPNET_SECRET".to_owned(), secret_of("somebody else"));
    let (code, said) = refused_start(&environment);
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("compare ZIPNET_SECRET and ZIPNET_STATE_DIR"), "{said}");

    environment.insert("ZIPNET_SECRET".to_owned(), secret_of("kept"));
    let mut server = Process::start("kept", &mut Command::new(binary("server")), &environment);
    server.wait_event("restored");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.code(), 0, "{}", server.tail());
}

/// A mounted file system, unmounted when this is dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None`, with the reason printed, where that is not possible.
    fn tmpfs(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).expect("the parent is a temporary folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Some(Self(at.to_owned())),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(reason) => reason.to_string(),
        };
        let text = format!("left out, because mounting needs rights that this user lacks: {why}\n");
        drop(std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()));
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

#[test]
fn a_folder_that_can_not_be_written_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("read-only");
    let mount = Mount::tmpfs(&folder, "ro");
    if mount.is_none() {
        // Whoever may not mount is held by permissions.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    }
    let environment = variables([
        ("ZIPNET_INSTANCE", NAME),
        ("ZIPNET_SECRET", &secret_of("server")),
        ("ZIPNET_COMMITTEE_SECRET", COMMITTEE_SECRET),
        ("ZIPNET_STATE_DIR", &folder.display().to_string()),
        ("ZIPNET_LISTEN", "127.0.0.1:0"),
    ]);
    for arguments in [&[] as &[&str], &["check"]] {
        let refused = run("server", arguments, &environment);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        let expected = format!("error: failed to use the state folder {}: ", folder.display());
        assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
        assert!(refused.stderr.contains("make it writable for this user"), "{}", refused.stderr);
    }
}

#[test]
fn a_full_disk_stops_a_server_with_a_reason_and_loses_nothing() {
    let mut instance = Instance::new(2, |_| {});
    let Some(_mount) = Mount::tmpfs(&instance.servers[2].folder.clone(), "size=16m") else { return };
    instance.start_all();
    let mut known = BTreeMap::new();
    compare_records(&instance.servers, &mut known);
    let ballast = instance.servers[2].folder.join("ballast");
    // As much as there is room for, and again for what is freed meanwhile.
    let fill = || {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &[7; 4096]).is_ok() {}
    };
    let ended = until("the server to notice that its disk is full", || {
        fill();
        instance.servers[2].process_mut().ended_within(Duration::ZERO)
    });
    let process = instance.servers[2].process();
    assert_eq!(ended.code(), Some(1), "{}", process.tail());
    let exiting = process.wait_event("exiting").message;
    assert!(exiting.contains("No space left on device"), "{exiting}");
    assert!(exiting.contains("start the node again"), "{exiting}");
    let last = finalized(&process.lines()).last().copied().unwrap_or(0);
    assert!(last > 0);

    // Without room it says the same at the start.
    instance.servers[2].begin();
    let process = instance.servers[2].process_mut();
    if let Some(status) = process.ended_within(Duration::from_secs(3)) {
        assert_eq!(status.code(), Some(1), "{}", process.tail());
        process.wait_text("No space left on device");
    } else {
        process.kill();
    }

    fs::remove_file(&ballast).unwrap();
    instance.servers[2].start();
    instance.wait_rounds(2);
    compare_records(&instance.servers, &mut known);
    assert!(finalized(&instance.servers[2].process().lines()).iter().all(|round| *round > last));
}

/// Two ends of a pipe whose reading end nobody reads.
fn pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    std::io::pipe().unwrap()
}

/// Fills a pipe, so that whoever writes next waits.
fn fill(writer: &std::io::PipeWriter) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(writer));
    let nonblocking = 0o4000;
    let mut same = fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(path).unwrap();
    while std::io::Write::write(&mut same, &[b'x'; 4096]).is_ok() {}
    while std::io::Write::write(&mut same, b"x").is_ok() {}
}

#[test]
fn a_reader_that_is_stuck_keeps_no_node_from_ending() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("state");
    let environment = variables([
        ("ZIPNET_INSTANCE", NAME),
        ("ZIPNET_SECRET", &secret_of("stuck")),
        ("ZIPNET_COMMITTEE_SECRET", COMMITTEE_SECRET),
        ("ZIPNET_STATE_DIR", &folder.display().to_string()),
        ("ZIPNET_LISTEN", "127.0.0.1:0"),
        ("RUST_LOG", "debug"),
    ]);
    let (reader, writer) = pipe();
    fill(&writer);
    let mut node = Command::new(binary("server"))
        .env_clear()
        .envs(&environment)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(writer)
        .spawn()
        .unwrap();
    until("the node answers", || support::page(&folder, "/livez"));
    let begun = Instant::now();
    let id = nix::unistd::Pid::from_raw(i32::try_from(node.id()).unwrap());
    nix::sys::signal::kill(id, Signal::SIGTERM).unwrap();
    let ended = until("the node ends", || node.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(reader);
}

#[test]
fn data_that_can_not_be_printed_is_an_error_and_a_closed_pipe_is_none() {
    let environment = variables([
        ("ZIPNET_INSTANCE", NAME),
        ("ZIPNET_SECRET", &secret_of("full")),
        ("ZIPNET_COMMITTEE_SECRET", COMMITTEE_SECRET),
    ]);
    for (name, arguments) in [
        ("zipnet", &["keys"] as &[&str]),
        ("zipnet", &["completions", "bash"]),
        ("zipnet", &["man"]),
        ("zipnet", &["build-info"]),
        ("zipnet", &["--help"]),
        ("zipnet", &["--version"]),
        ("server", &["keys", "id"]),
        ("server", &["config", "show"]),
        ("server", &["--help"]),
        ("client", &["man"]),
    ] {
        let started = |stdout: std::process::Stdio| {
            let mut command = Command::new(binary(name));
            command.args(arguments).env_clear().envs(&environment).stdout(stdout).output().unwrap()
        };
        let full = started(fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into());
        let said = String::from_utf8(full.stderr).unwrap();
        assert_eq!(full.status.code(), Some(1), "{name} {arguments:?}: {said}");
        assert!(said.contains("error: failed to print: No space left on device"), "{said}");
        let (reader, writer) = pipe();
        drop(reader);
        assert_eq!(started(writer.into()).status.code(), Some(0), "{name} {arguments:?}");
    }
}

#[test]
fn every_line_of_standard_input_has_a_fate() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("state");
    let environment = variables([
        ("ZIPNET_INSTANCE", NAME),
        ("ZIPNET_STATE_DIR", &folder.display().to_string()),
        ("ZIPNET_LISTEN", "127.0.0.1:0"),
    ]);
    let mut client = Command::new(binary("client"))
        .arg("--stdin")
        .env_clear()
        .envs(&environment)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = client.stdin.take().unwrap();
    let long = "x".repeat(1_000);
    std::io::Write::write_all(
        &mut lines,
        [b"one\n\xff\xfe\n", long.as_bytes(), b"\nlast\n"].concat().as_slice(),
    )
    .unwrap();
    // There is no instance: nothing lands, and nothing is told before the end.
    let mut told = std::io::BufReader::new(client.stdout.take().unwrap());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut told, &mut first).unwrap();
    assert!(first.starts_with("refused line=3: "), "{first}");
    sleep(Duration::from_millis(300));
    let id = nix::unistd::Pid::from_raw(i32::try_from(client.id()).unwrap());
    nix::sys::signal::kill(id, Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut told, &mut rest).unwrap();
    let expected: String =
        [1, 2, 4].iter().map(|line| format!("unknown line={line}: this client has ended\n")).collect();
    assert_eq!(rest, expected);
    assert_eq!(client.wait().unwrap().code(), Some(1));
    drop(lines);
}

#[test]
fn a_broken_invariant_ends_with_70() {
    // This very test, as a process of its own, is the one that breaks.
    if std::env::var_os("ZIPNET_TEST_BREAKS").is_some() {
        let journal =
            zipnet_prod::journal::Journal::start(zipnet_node::config::Format::Json, "info").unwrap();
        zipnet_prod::process::stop_on_panic(&journal);
        let broken = std::thread::spawn(|| panic!("the rounds of this test went backwards"));
        drop(broken.join());
        unreachable!("a panic in any thread ends the process");
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_broken_invariant_ends_with_70", "--nocapture"]);
    let mut process = Process::start("broken", &mut command, &variables([("ZIPNET_TEST_BREAKS", "1")]));
    assert_eq!(process.code(), 70, "{}", process.tail());
    assert!(process.wait_event("fatal").message.contains("the rounds of this test went backwards"));
    assert!(process.wait_event("exiting").message.starts_with("exiting code=70: "));
}
