//! Nodes of one instance as processes on this machine, in a folder that is removed at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::{Arg, ArgMatches};
use serde::Deserialize as _;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc;
use zipnet_facts::{Account, Fact};

use super::fresh_secret;
use crate::{admin, flags};

/// How long a node may take to say where it is reached.
const START: Duration = Duration::from_secs(20);
/// How long an orderly stop may take.
const STOP: Duration = Duration::from_secs(8);

/// What a node said, by its name.
pub(super) type Said = (String, Value);

/// Where the nodes' binaries are.
pub(super) fn bin_dir() -> Arg {
    Arg::new("bin-dir")
        .long("bin-dir")
        .value_name("FOLDER")
        .help("Where the binaries of the nodes are [default: beside this one]")
}

/// Where the nodes keep their state.
pub(super) fn keep() -> Arg {
    Arg::new("keep").long("keep").value_name("FOLDER").help(
        "Keep the state folders of the nodes there [default: a temporary folder that is removed at the end]",
    )
}

/// A running node.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    /// What others write behind `--bootstrap`.
    pub(super) peer: String,
    child: Child,
}

impl Node {
    /// The number of the process, while it runs.
    pub(super) fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// Fails once the process has ended.
    pub(super) fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(format!("{} ended by itself: {status}", self.name)),
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

/// What all nodes of the instance have in common.
pub(super) struct Network {
    binaries: PathBuf,
    scratch: PathBuf,
    /// The folder is left behind.
    kept: bool,
    instance: &'static str,
    committee_secret: String,
    /// Variables for every server, besides those that each node has anyway.
    pub(super) servers: Vec<(&'static str, String)>,
    /// The same for the aggregator.
    pub(super) aggregator: Vec<(&'static str, String)>,
    log: &'static str,
    secrets: BTreeMap<String, String>,
    bootstrap: Option<String>,
    said: mpsc::UnboundedSender<Said>,
    /// What the nodes say.
    pub(super) sayings: mpsc::UnboundedReceiver<Said>,
}

impl Network {
    /// Nothing runs yet.
    ///
    /// # Errors
    /// If the nodes' binaries are not there, or the folder cannot be made.
    pub(super) fn new(
        matches: &ArgMatches,
        instance: &'static str,
        log: &'static str,
    ) -> Result<Self, String> {
        let binaries = binaries(matches)?;
        let kept = matches.try_get_one::<String>("keep").ok().flatten().map(PathBuf::from);
        let scratch = kept
            .clone()
            .unwrap_or_else(|| std::env::temp_dir().join(format!("zipnet-{}", std::process::id())));
        std::fs::create_dir_all(&scratch)
            .map_err(|reason| format!("failed to make the folder {}: {reason}", scratch.display()))?;
        let (said, sayings) = mpsc::unbounded_channel();
        Ok(Self {
            binaries,
            scratch,
            kept: kept.is_some(),
            instance,
            committee_secret: fresh_secret().trim().to_owned(),
            servers: Vec::new(),
            aggregator: Vec::new(),
            log,
            secrets: BTreeMap::new(),
            bootstrap: None,
            said,
            sayings,
        })
    }

    /// The instance's name.
    pub(super) const fn instance(&self) -> &'static str {
        self.instance
    }

    /// A folder for what is not a node's own.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// What newcomers write behind `--bootstrap`.
    pub(super) fn bootstrap(&self) -> Option<&str> {
        self.bootstrap.as_deref()
    }

    /// Starts a node called after its role and number, and waits until it says where it is reached. One that was started
    /// before has its identity and state again.
    ///
    /// # Errors
    /// If it does not start.
    pub(super) async fn start(&mut self, role: &str, name: &str) -> Result<Node, String> {
        let folder = self.folder(name);
        let secret = self.secrets.entry(name.to_owned()).or_insert_with(|| fresh_secret().trim().to_owned());
        let mut variables: BTreeMap<&str, String> = BTreeMap::from([
            ("ZIPNET_INSTANCE", self.instance.to_owned()),
            ("ZIPNET_SECRET", secret.clone()),
            ("ZIPNET_STATE_DIR", folder.display().to_string()),
            ("ZIPNET_LISTEN", "127.0.0.1:0".to_owned()),
            ("ZIPNET_FORMAT", "json".to_owned()),
            ("RUST_LOG", self.log.to_owned()),
        ]);
        match role {
            "server" => {
                variables.insert("ZIPNET_COMMITTEE_SECRET", self.committee_secret.clone());
                variables.extend(self.servers.iter().cloned());
            }
            "aggregator" => variables.extend(self.aggregator.iter().cloned()),
            _ => {}
        }
        if let Some(bootstrap) = &self.bootstrap {
            variables.insert("ZIPNET_BOOTSTRAP", bootstrap.clone());
        }
        let path = self.binaries.join(format!("zipnet-{role}"));
        let mut child = Command::new(&path)
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
        drop(tokio::spawn(listen(name.to_owned(), lines, self.said.clone())));
        let mut others = Vec::new();
        let up = async {
            while let Some((who, line)) = self.sayings.recv().await {
                let text = line["message"].as_str().unwrap_or_default();
                if who != name {
                    others.push((who, line));
                } else if let Ok(Account { fact: Fact::Up { peer, address, .. }, .. }) =
                    Account::deserialize(&line)
                {
                    return Some(
                        address.map_or_else(|| peer.to_string(), |address| format!("{peer}@{address}")),
                    );
                } else if line["event"] == "exiting" || line["event"].is_null() {
                    flags::say(&format!("{name}: {text}"));
                }
            }
            None
        };
        let peer = tokio::time::timeout(START, up).await.ok().flatten();
        let peer = peer.ok_or_else(|| format!("{name} did not start within {} s", START.as_secs()))?;
        // What the others said meanwhile is not lost.
        others.into_iter().for_each(|said| self.said.send(said).unwrap_or_default());
        self.bootstrap.get_or_insert_with(|| peer.clone());
        Ok(Node { name: name.to_owned(), folder, peer, child })
    }

    /// Stops nodes in order: those that depend on others first.
    ///
    /// # Errors
    /// If one of them does not end in order.
    pub(super) async fn stop(&self, nodes: Vec<Node>) -> Result<(), String> {
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
}

impl Drop for Network {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed is a temporary folder.
            drop(std::fs::remove_dir_all(&self.scratch));
        }
    }
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

/// Reads the lines of a node. What is no JSON, such as a refusal before the node began, is taken as it is.
async fn listen(name: String, lines: ChildStderr, said: mpsc::UnboundedSender<Said>) {
    let mut lines = BufReader::new(lines).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = serde_json::from_str(&line).unwrap_or_else(|_| serde_json::json!({ "message": line }));
        if said.send((name.clone(), line)).is_err() {
            return;
        }
    }
}
