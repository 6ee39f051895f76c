//! Nodes as processes: started, listened to, asked, and never left behind.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use zipnet_core::id::UniqueId;

/// How long anything may take on a machine that is busy. Whoever waits goes on as soon as it has happened.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// How often something is looked at that does not tell by itself.
const LOOK: Duration = Duration::from_millis(50);

/// The binaries that are tested.
pub(crate) fn binary(name: &str) -> &'static str {
    match name {
        "server" => env!("CARGO_BIN_EXE_zipnet-server"),
        "aggregator" => env!("CARGO_BIN_EXE_zipnet-aggregator"),
        "client" => env!("CARGO_BIN_EXE_zipnet-client"),
        "zipnet" => env!("CARGO_BIN_EXE_zipnet"),
        _ => panic!("there is no binary {name}"),
    }
}

/// Waits until `look` finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain: {what}");
        sleep(LOOK);
    }
}

/// A line that a process wrote.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// As it was written.
    pub(crate) raw: String,
    /// The stable name; empty where lines are for people.
    pub(crate) event: String,
    /// The text; the whole line where lines are for people.
    pub(crate) message: String,
    /// How much it matters; empty where lines are for people.
    pub(crate) level: String,
}

impl Line {
    fn read(raw: String) -> Self {
        let Ok(Value::Object(json)) = serde_json::from_str(&raw) else {
            return Self { event: String::new(), message: raw.clone(), level: String::new(), raw };
        };
        let field = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { event: field("event"), message: field("message"), level: field("level"), raw }
    }

    /// What stands behind `name=` in the text.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.message.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

#[derive(Debug, Default)]
struct Said {
    lines: Mutex<Vec<Line>>,
    more: Condvar,
}

/// A process. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    said: Arc<Said>,
}

impl Process {
    /// Starts a process whose environment is `variables` and nothing else.
    pub(crate) fn start(name: &str, command: &mut Command, variables: &BTreeMap<String, String>) -> Self {
        let mut child = command
            .env_clear()
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binaries are built before their tests");
        let said = Arc::new(Said::default());
        listen(child.stdout.take().expect("it is piped"), &said);
        listen(child.stderr.take().expect("it is piped"), &said);
        Self { name: name.to_owned(), child, said }
    }

    /// Everything that it has written.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.said.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line, among those that were written already or come. `from` lines are skipped.
    pub(crate) fn wait_for(&self, from: usize, what: &str, fits: impl Fn(&Line) -> bool) -> (usize, Line) {
        let end = Instant::now() + PATIENCE;
        let mut lines = self.said.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = from;
        loop {
            if let Some((place, line)) = lines.iter().enumerate().skip(seen).find(|(_, line)| fits(line)) {
                return (place, line.clone());
            }
            seen = seen.max(lines.len());
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(lines);
                panic!("{} did not say {what} within {PATIENCE:?}{}", self.name, self.tail());
            }
            (lines, _) = self.said.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for a line with this event.
    pub(crate) fn wait_event(&self, event: &str) -> Line {
        self.wait_for(0, event, |line| line.event == event).1
    }

    /// Waits for a line with this text in it.
    pub(crate) fn wait_text(&self, text: &str) -> Line {
        self.wait_for(0, text, |line| line.message.contains(text)).1
    }

    /// The identifier of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process ids fit");
        kill(Pid::from_raw(id), signal).expect("it is a child that was not waited for");
    }

    /// Waits for the end of the process. `None` if it goes on.
    pub(crate) fn ended_within(&mut self, within: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the end of the process and gives its exit code.
    pub(crate) fn code(&mut self) -> i32 {
        let Some(status) = self.ended_within(PATIENCE) else {
            panic!("{} did not end within {PATIENCE:?}{}", self.name, self.tail());
        };
        // Its last lines may still be on their way.
        sleep(LOOK);
        status.code().unwrap_or_else(|| panic!("{} was ended by signal {:?}", self.name, status.signal()))
    }

    /// Ends it at once, as a power failure would.
    pub(crate) fn kill(&mut self) {
        // One that has ended already is as dead.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// The last lines, for failures.
    pub(crate) fn tail(&self) -> String {
        let lines = self.lines();
        let skipped = lines.len().saturating_sub(40);
        lines.iter().skip(skipped).map(|line| format!("\n    {}: {}", self.name, line.raw)).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn listen(from: impl Read + Send + 'static, said: &Arc<Said>) {
    let said = Arc::clone(said);
    drop(std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            said.lines.lock().unwrap_or_else(PoisonError::into_inner).push(Line::read(line));
            said.more.notify_all();
        }
    }));
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn run(name: &str, arguments: &[&str], variables: &BTreeMap<String, String>) -> Ended {
    let mut child = Command::new(binary(name))
        .args(arguments)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binaries are built before their tests");
    let collect = |mut from: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            // What is no text is no answer, and shows as an empty one.
            drop(from.read_to_string(&mut text));
            text
        })
    };
    let stdout = collect(Box::new(child.stdout.take().expect("it is piped")));
    let stderr = collect(Box::new(child.stderr.take().expect("it is piped")));
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is a child") {
            break status;
        }
        if Instant::now() >= end {
            drop(child.kill());
            drop(child.wait());
            panic!("{name} {arguments:?} did not end within {PATIENCE:?}");
        }
        sleep(Duration::from_millis(5));
    };
    let text = |reader: std::thread::JoinHandle<String>| reader.join().expect("reading does not panic");
    let (stdout, stderr) = (text(stdout), text(stderr));
    let code = status.code().unwrap_or_else(|| panic!("{name} was ended by {status}: {stderr}"));
    Ended { code, stdout, stderr }
}

/// A page of the node that uses a state folder: the status and the body. `None` if nobody answers.
pub(crate) fn page(folder: &Path, path: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(folder.join("admin.sock")).ok()?;
    exchange(&mut stream, path)
}

/// Asks for a page over any connection.
pub(crate) fn exchange(stream: &mut (impl Read + std::io::Write), path: &str) -> Option<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: zipnet\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Environment variables.
pub(crate) fn variables<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A node of an [`Instance`].
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) role: &'static str,
    pub(crate) folder: PathBuf,
    /// Its environment, for the next start as well.
    pub(crate) variables: BTreeMap<String, String>,
    /// What others write behind `--bootstrap`; empty before the first start.
    pub(crate) peer: String,
    process: Option<Process>,
}

impl Node {
    /// A further node of this role, with a name, an identity and a folder of its own.
    pub(crate) fn sibling(&self, name: &str) -> Self {
        let folder = self.folder.with_file_name(name);
        let mut variables = self.variables.clone();
        variables.insert("ZIPNET_SECRET".to_owned(), secret_of(name));
        variables.insert("ZIPNET_STATE_DIR".to_owned(), folder.display().to_string());
        variables.insert("ZIPNET_BOOTSTRAP".to_owned(), self.peer.clone());
        variables.remove("ZIPNET_METRICS");
        Self { name: name.to_owned(), role: self.role, folder, variables, peer: String::new(), process: None }
    }

    /// The process that runs, or ran last.
    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("{} was never started", self.name))
    }

    pub(crate) fn process_mut(&mut self) -> &mut Process {
        self.process.as_mut().unwrap_or_else(|| panic!("{} was never started", self.name))
    }

    /// The peer id.
    pub(crate) fn id(&self) -> &str {
        self.peer.split('@').next().unwrap_or_default()
    }

    /// Starts it, again if need be, and does not wait.
    pub(crate) fn begin(&mut self) {
        // The process before is gone before the next one looks at its folder.
        self.process = None;
        let mut command = Command::new(binary(self.role));
        self.process = Some(Process::start(&self.name, &mut command, &self.variables));
    }

    /// Starts it and waits until it is up.
    pub(crate) fn start(&mut self) {
        self.begin();
        let up = self.process().wait_for(0, "up", |line| line.event == "up" || line.event == "exiting").1;
        assert_eq!(up.event, "up", "{}", self.process().tail());
        self.peer = up.field("peer").expect("the line has it").to_owned();
    }

    /// A page of it.
    pub(crate) fn page(&self, path: &str) -> Option<(u16, String)> {
        page(&self.folder, path)
    }

    /// A page of data; nothing while it does not answer.
    pub(crate) fn data(&self, path: &str) -> Value {
        let body = self.page(path).filter(|(status, _)| *status == 200).map(|(_, body)| body);
        body.and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default()
    }

    /// A metric, summed over all labels that contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        let (_, text) = self.page("/metrics").unwrap_or_default();
        let fits = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')) && line.contains(label)
        };
        let values =
            text.lines().filter(fits).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        values.sum()
    }

    /// The newest round that a server holds.
    pub(crate) fn round(&self) -> u64 {
        self.data("/status")["finalized_round"].as_u64().unwrap_or(0)
    }

    /// Waits until this server has finalised so many rounds more, counted by what it says itself.
    pub(crate) fn wait_rounds(&self, count: usize) {
        let process = self.process();
        let mut from = process.lines().len();
        for _ in 0..count {
            let finalized = |line: &Line| line.event == "round-finalized";
            (from, _) = process.wait_for(from, "round finalized", finalized);
            from += 1;
        }
    }
}

/// A whole instance of processes on loopback, in a folder that goes away with it.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) servers: Vec<Node>,
    pub(crate) aggregator: Node,
    pub(crate) clients: Vec<Node>,
    scratch: TempDir,
}

/// What every server of an [`Instance`] shares.
pub(crate) const COMMITTEE_SECRET: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
/// The instance of [`Instance`].
pub(crate) const NAME: &str = "acme.tests";

impl Instance {
    /// An instance of which nothing runs yet. `tune` completes the environment of each node.
    pub(crate) fn new(clients: usize, tune: impl Fn(&mut Node)) -> Self {
        let scratch = tempfile::tempdir().expect("the machine has a temporary folder");
        let node = |role: &'static str, number: usize| {
            let name = format!("{role}-{number}");
            let folder = scratch.path().join(&name);
            let secret = secret_of(&name);
            let mut variables = variables([
                ("ZIPNET_INSTANCE", NAME),
                ("ZIPNET_SECRET", &secret),
                ("ZIPNET_STATE_DIR", &folder.display().to_string()),
                ("ZIPNET_LISTEN", "127.0.0.1:0"),
                ("ZIPNET_FORMAT", "json"),
                ("ZIPNET_ANNOUNCE_INTERVAL", "2s"),
            ]);
            let mut set = |name: &str, value: &str| drop(variables.insert(name.to_owned(), value.to_owned()));
            match role {
                "server" => {
                    set("ZIPNET_COMMITTEE_SECRET", COMMITTEE_SECRET);
                    set("ZIPNET_MIN_PARTICIPANTS", "2");
                    set("ZIPNET_ROUND_PERIOD", "300ms");
                    set("ZIPNET_ROUND_DEADLINE", "5s");
                }
                "aggregator" => set("ZIPNET_FOLD_DEADLINE", "300ms"),
                _ => {}
            }
            let mut node = Node { name, role, folder, variables, peer: String::new(), process: None };
            tune(&mut node);
            node
        };
        let servers = (1..=3).map(|number| node("server", number)).collect();
        let aggregator = node("aggregator", 1);
        let clients = (1..=clients).map(|number| node("client", number)).collect();
        Self { servers, aggregator, clients, scratch }
    }

    /// An instance in which the first round is finalised on every server.
    pub(crate) fn start(clients: usize, tune: impl Fn(&mut Node)) -> Self {
        let mut instance = Self::new(clients, tune);
        instance.start_all();
        instance
    }

    /// Starts every node, the first server without a bootstrap, and waits for a round on every server.
    pub(crate) fn start_all(&mut self) {
        let mut bootstrap: Option<String> = None;
        for node in self.nodes_mut() {
            if let Some(bootstrap) = &bootstrap {
                node.variables.insert("ZIPNET_BOOTSTRAP".to_owned(), bootstrap.clone());
            }
            node.start();
            bootstrap.get_or_insert_with(|| node.peer.clone());
        }
        self.wait_rounds(1);
    }

    /// Waits until every server that runs has finalised so many rounds more.
    pub(crate) fn wait_rounds(&self, count: usize) {
        for server in &self.servers {
            server.wait_rounds(count);
        }
    }

    /// Every node, servers first.
    pub(crate) fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        let Self { servers, aggregator, clients, .. } = self;
        servers.iter_mut().chain([aggregator]).chain(clients)
    }

    /// Where the state folders are.
    pub(crate) fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// Which server leads, as all three of them say.
    pub(crate) fn leader(&self) -> usize {
        until("one leader", || {
            let leads = |server: &Node| server.metric("mosaik_groups_leader_is_local", "") == 1;
            let leaders: Vec<_> = (0..3).filter(|number| leads(&self.servers[*number])).collect();
            let [leader] = leaders[..] else { return None };
            Some(leader)
        })
    }
}

/// The secret of a node by its name: digits, since a text would be stretched at each of many starts.
pub(crate) fn secret_of(name: &str) -> String {
    UniqueId::from_text(&format!("the secret of {name} in these tests")).to_string()
}
