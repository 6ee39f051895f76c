//! A whole instance on this machine: real processes, real sockets on loopback, in a folder that is removed at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command as Process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::Outcome;
use crate::{admin, flags, tool};

/// How long a node may take to say where it is reached.
const START: Duration = Duration::from_secs(20);
/// How long an orderly stop may take.
const STOP: Duration = Duration::from_secs(8);

/// The command line.
pub(super) fn command() -> Command {
    let count = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .default_value(default)
            .value_parser(clap::value_parser!(u16).range(1..=1000))
            .help(help)
    };
    Command::new("local")
        .about("Run a whole instance on this machine until Ctrl-C: servers, an aggregator and clients as processes")
        .arg(count("servers", "3", "Servers"))
        .arg(count("clients", "4", "Clients; each publishes a message in every round"))
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .value_name("N")
                .value_parser(clap::value_parser!(u64).range(1..))
                .help("Stop by itself after so many rounds"),
        )
        .arg(
            Arg::new("period")
                .long("period")
                .value_name("TIME")
                .default_value("2s")
                .value_parser(super::duration)
                .help("How often a round is opened"),
        )
        .arg(
            Arg::new("bin-dir")
                .long("bin-dir")
                .value_name("FOLDER")
                .help("Where the binaries of the nodes are [default: beside this one]"),
        )
}

/// A node of the network.
struct Node {
    name: String,
    child: Child,
    folder: PathBuf,
    /// What others write behind `--bootstrap`.
    peer: String,
}

/// What a node said, by its name.
type Said = (String, Value);

/// Runs the network.
///
/// # Errors
/// If a node can not be started, or ends by itself.
pub(super) async fn run(matches: &ArgMatches) -> Outcome {
    let number = |name: &str| usize::from(*matches.get_one::<u16>(name).expect("it has a default"));
    let binaries = binaries(matches)?;
    let scratch = std::env::temp_dir().join(format!("zipnet-local-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)
        .map_err(|reason| format!("failed to make the folder {}: {reason}", scratch.display()))?;
    let network = Network {
        binaries,
        scratch: scratch.clone(),
        committee_secret: tool::fresh_secret().trim().to_owned(),
        period: *matches.get_one("period").expect("it has a default"),
        participants: number("clients").min(2),
    };
    let outcome = network.run(number("servers"), number("clients"), matches.get_one("rounds").copied()).await;
    // What is left behind is a temporary folder.
    drop(std::fs::remove_dir_all(&scratch));
    outcome
}

fn binaries(matches: &ArgMatches) -> Result<PathBuf, String> {
    let folder = match matches.get_one::<String>("bin-dir") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let this =
                std::env::current_exe().map_err(|reason| format!("failed to find this command: {reason}"))?;
            this.parent().map(Path::to_owned).unwrap_or_default()
        }
    };
    for name in ["zipnet-server", "zipnet-aggregator", "zipnet-client"] {
        if !folder.join(name).exists() {
            return Err(format!(
                "{} has no {name}: build the nodes with cargo build --release -p zipnet-prod, or set --bin-dir",
                folder.display()
            ));
        }
    }
    Ok(folder)
}

struct Network {
    binaries: PathBuf,
    scratch: PathBuf,
    committee_secret: String,
    period: Duration,
    participants: usize,
}

impl Network {
    async fn run(&self, servers: usize, clients: usize, rounds: Option<u64>) -> Outcome {
        let interrupted =
            |kind| signal(kind).map_err(|reason| format!("failed to listen for signals: {reason}"));
        let (mut interrupt, mut terminate) =
            (interrupted(SignalKind::interrupt())?, interrupted(SignalKind::terminate())?);
        let (said, mut sayings) = mpsc::unbounded_channel();
        let mut nodes = Vec::new();
        let outcome = tokio::select! {
            outcome = self.go_on(&mut nodes, servers, clients, rounds, &said, &mut sayings) => outcome,
            _ = interrupt.recv() => Ok(0),
            _ = terminate.recv() => Ok(0),
        };
        flags::say("stopping every node in order");
        let ended = stop(nodes).await;
        outcome.and_then(|code| ended.map(|()| code))
    }

    async fn go_on(
        &self,
        nodes: &mut Vec<Node>,
        servers: usize,
        clients: usize,
        rounds: Option<u64>,
        said: &mpsc::UnboundedSender<Said>,
        sayings: &mut mpsc::UnboundedReceiver<Said>,
    ) -> Outcome {
        let mut bootstrap = None;
        let named = |role: &'static str, count: usize| {
            (1..=count).map(move |number| (role, format!("{role}-{number}")))
        };
        let all = named("server", servers).chain(named("aggregator", 1)).chain(named("client", clients));
        for (role, name) in all {
            let node = self.start(role, &name, bootstrap.as_deref(), said, sayings).await?;
            flags::say(&format!("{name:<14}peer={}", node.peer));
            bootstrap.get_or_insert_with(|| node.peer.clone());
            nodes.push(node);
        }
        flags::say("every node is up; each client publishes a message in every round. Ctrl-C stops them all");
        let folders: Vec<_> = nodes
            .iter()
            .filter(|node| node.name.starts_with("client"))
            .map(|node| (node.name.clone(), node.folder.clone()))
            .collect();
        let publishing = tokio::spawn(publish(folders, self.period));
        let outcome = watch(nodes, rounds, sayings).await;
        publishing.abort();
        outcome
    }

    /// Starts a node and waits until it says where it is reached.
    async fn start(
        &self,
        role: &str,
        name: &str,
        bootstrap: Option<&str>,
        said: &mpsc::UnboundedSender<Said>,
        sayings: &mut mpsc::UnboundedReceiver<Said>,
    ) -> Result<Node, String> {
        let folder = self.scratch.join(name);
        let secret = tool::fresh_secret();
        let period = format!("{}ms", self.period.as_millis());
        let mut variables: BTreeMap<&str, String> = BTreeMap::from([
            ("ZIPNET_INSTANCE", "local.demo".to_owned()),
            ("ZIPNET_SECRET", secret.trim().to_owned()),
            ("ZIPNET_STATE_DIR", folder.display().to_string()),
            ("ZIPNET_LISTEN", "127.0.0.1:0".to_owned()),
            ("ZIPNET_FORMAT", "json".to_owned()),
            ("RUST_LOG", "info,zipnet_node::roles::client=debug".to_owned()),
        ]);
        match role {
            "server" => {
                variables.insert("ZIPNET_COMMITTEE_SECRET", self.committee_secret.clone());
                variables.insert("ZIPNET_MIN_PARTICIPANTS", self.participants.to_string());
                variables.insert("ZIPNET_ROUND_PERIOD", period);
            }
            "aggregator" => drop(variables.insert("ZIPNET_FOLD_DEADLINE", period)),
            _ => {}
        }
        if let Some(bootstrap) = bootstrap {
            variables.insert("ZIPNET_BOOTSTRAP", bootstrap.to_owned());
        }
        let path = self.binaries.join(format!("zipnet-{role}"));
        let mut child = Process::new(&path)
            .env_clear()
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for this process, which stops the others in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|reason| format!("failed to start {}: {reason}", path.display()))?;
        let lines = child.stderr.take().expect("it was asked for");
        drop(tokio::spawn(listen(name.to_owned(), lines, said.clone())));
        let up = async {
            while let Some((who, line)) = sayings.recv().await {
                if who == name && line["event"] == "up" {
                    let text = line["message"].as_str().unwrap_or_default();
                    return text
                        .split(" peer=")
                        .nth(1)
                        .and_then(|rest| rest.split(' ').next())
                        .map(str::to_owned);
                }
                if who == name && (line["event"] == "exiting" || line["event"].is_null()) {
                    flags::say(&format!("{name}: {}", line["message"].as_str().unwrap_or_default()));
                }
            }
            None
        };
        let peer = tokio::time::timeout(START, up).await.ok().flatten();
        let peer = peer.ok_or_else(|| format!("{name} did not start within {} s", START.as_secs()))?;
        Ok(Node { name: name.to_owned(), child, folder, peer })
    }
}

/// Reads the lines of a node. What is no JSON, such as a refusal before the node began, is taken as it is.
async fn listen(name: String, lines: tokio::process::ChildStderr, said: mpsc::UnboundedSender<Said>) {
    let mut lines = BufReader::new(lines).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = serde_json::from_str(&line).unwrap_or_else(|_| serde_json::json!({ "message": line }));
        if said.send((name.clone(), line)).is_err() {
            return;
        }
    }
}

/// Has every client publish now and then.
async fn publish(clients: Vec<(String, PathBuf)>, period: Duration) {
    for number in 1_u64.. {
        for (name, folder) in &clients {
            let text = format!("hello number {number} of {name}");
            // A client that is not ready yet keeps the message.
            drop(admin::ask(folder, "/publish", Some(text.into_bytes())).await);
        }
        tokio::time::sleep(period).await;
    }
}

/// Prints what is worth seeing until enough rounds have passed.
async fn watch(
    nodes: &mut [Node],
    rounds: Option<u64>,
    sayings: &mut mpsc::UnboundedReceiver<Said>,
) -> Outcome {
    let mut finalized = 0;
    let mut look = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            said = sayings.recv() => {
                let Some((name, line)) = said else { return Err("every node has ended".to_owned()) };
                let text = line["message"].as_str().unwrap_or_default();
                let level = line["level"].as_str().unwrap_or_default();
                match line["event"].as_str().unwrap_or_default() {
                    "round-finalized" if name == "server-1" => {
                        finalized += 1;
                        flags::print(&format!("{name:<14}{text}\n"));
                    }
                    "published" | "log-started" => flags::print(&format!("{name:<14}{text}\n")),
                    _ if level == "ERROR" => flags::print(&format!("{name:<14}{text}\n")),
                    _ => {}
                }
                if rounds.is_some_and(|rounds| finalized >= rounds) {
                    return Ok(0);
                }
            }
            _ = look.tick() => {
                for node in nodes.iter_mut() {
                    if let Ok(Some(status)) = node.child.try_wait() {
                        return Err(format!("{} ended by itself: {status}", node.name));
                    }
                }
            }
        }
    }
}

/// Stops clients first and servers last, each in order.
async fn stop(nodes: Vec<Node>) -> Result<(), String> {
    let mut failures = Vec::new();
    let (servers, others): (Vec<_>, Vec<_>) =
        nodes.into_iter().partition(|node| node.name.starts_with("server"));
    for group in [others, servers] {
        for node in &group {
            // One that does not answer is killed below.
            drop(admin::ask(&node.folder, "/stop", Some(Vec::new())).await);
        }
        for mut node in group {
            match tokio::time::timeout(STOP, node.child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                Ok(Ok(status)) => failures.push(format!("{} ended with {status}", node.name)),
                Ok(Err(_)) | Err(_) => {
                    failures.push(format!(
                        "{} did not stop within {} s and was killed",
                        node.name,
                        STOP.as_secs()
                    ));
                    drop(node.child.kill().await);
                }
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}
