//! A node from its flags to its exit code.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use clap::ArgMatches;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use zipnet_core::id::Role;
use zipnet_core::key::Identity;
use zipnet_core::machine::{Outcome, RequestId};
use zipnet_facts::Fact;
use zipnet_node::config::{Config, Part, PeerAddress};
use zipnet_node::event::Event;
use zipnet_node::metrics::{BuildInfo, Metrics};
use zipnet_node::node::{self, Handle, Known, Receipt};
use zipnet_node::world::{Address, Link};
use zipnet_world::addresses;
use zipnet_world::environment;
use zipnet_world::ground::{Ground, GroundError};
use zipnet_world::network::{FAREWELL, QuicLink};
use zipnet_world::world::{RealWorld, run as run_node};

use crate::about::About;
use crate::journal::Journal;
use crate::observation::{self, Observed, pages};
use crate::refusals::Refusals;
use crate::settings::Settings;
use crate::{admin, flags};

/// Another error.
const EXIT_ERROR: u8 = 1;
/// An invariant broke.
const EXIT_BROKEN: u8 = 70;
/// A value is wrong or missing.
pub(crate) const EXIT_CONFIG: u8 = 78;

/// How long an orderly stop may take up to its last words, so that it is over in less than the documented 5 s.
const EXIT_BUDGET: Duration = Duration::from_millis(4_500);
/// What last words get in any case.
const EXIT_RESERVE: Duration = Duration::from_millis(200);

/// How long it may take to print what became of the last lines.
const LAST_FATES: Duration = Duration::from_millis(200);

/// What `main` of a node's binary is.
#[must_use]
pub fn main(role: Role) -> ExitCode {
    let code = match flags::parse(flags::command(role)) {
        Ok(matches) => act(role, &matches),
        Err(code) => flags::finish(code),
    };
    ExitCode::from(code)
}

/// Does what the command line asks for.
fn act(role: Role, matches: &ArgMatches) -> u8 {
    match answer(role, matches) {
        Ok(code) => flags::finish(code),
        Err(task) => {
            let Task { config, warnings, environment, stdin } = *task;
            run(config, &warnings, &environment, stdin)
        }
    }
}

/// A node that is to run.
struct Task {
    config: Config,
    warnings: Vec<String>,
    environment: BTreeMap<String, String>,
    stdin: bool,
}

/// Answers what can be answered without a running node; otherwise, the node that is to run.
fn answer(role: Role, matches: &ArgMatches) -> Result<u8, Box<Task>> {
    if flags::print_generated(flags::command(role), matches) {
        return Ok(0);
    }
    if let Some(("build-info", matches)) = matches.subcommand() {
        print_about(matches);
        return Ok(0);
    }
    let environment = match environment::of_process() {
        Ok(environment) => environment,
        Err(mistakes) => return Ok(refuse(&mistakes)),
    };
    let settings = match Settings::collect(role, matches, &environment) {
        Ok(settings) => settings,
        Err(sentences) => return Ok(refuse(&sentences)),
    };
    if let Some(("config", matches)) = matches.subcommand()
        && let Some(("show", matches)) = matches.subcommand()
    {
        flags::print(&settings.show(role, matches.get_flag("origin")));
        return Ok(0);
    }
    let (config, warnings) = match settings.config(role) {
        Ok(config) => config,
        Err(mistakes) => return Ok(refuse(&mistakes)),
    };
    let stdin = role == Role::Client && matches.get_flag("stdin");
    Ok(match matches.subcommand() {
        Some(("keys", _)) => match &config.secret {
            Some(secret) => {
                flags::print(&format!("{}\n", Identity::from_secret(secret).peer()));
                0
            }
            None => refuse(&["ZIPNET_SECRET is not set: this client draws another identity at every start"]),
        },
        Some(("check", _)) => check(config, &warnings, &environment),
        _ => return Err(Box::new(Task { config, warnings, environment, stdin })),
    })
}

/// Prints what this binary was built as.
pub fn print_about(matches: &ArgMatches) {
    let about = About::this();
    // Nodes have one format for everything.
    let format = |name| matches.try_get_one::<String>(name).ok().flatten();
    let text = match format("format").or_else(|| format("ZIPNET_FORMAT")).map(String::as_str) {
        Some("json") => serde_json::to_string(&about).expect("it is plain data") + "\n",
        _ => about.to_string(),
    };
    flags::print(&text);
}

fn refuse<T: ToString>(mistakes: &[T]) -> u8 {
    for mistake in mistakes {
        flags::say(&format!("error: {}", mistake.to_string()));
    }
    EXIT_CONFIG
}

/// Why a process ends before its node begins.
struct NoStart {
    code: u8,
    sentence: String,
}

impl NoStart {
    const fn new(code: u8, sentence: String) -> Self {
        Self { code, sentence }
    }
}

impl From<GroundError> for NoStart {
    fn from(refusal: GroundError) -> Self {
        let code = if refusal.is_config() { EXIT_CONFIG } else { EXIT_ERROR };
        Self::new(code, refusal.to_string())
    }
}

/// Says whether the node could start.
fn check(config: Config, warnings: &[String], environment: &BTreeMap<String, String>) -> u8 {
    for warning in warnings {
        flags::say(&format!("warning: {warning}"));
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(reason) => return fail(&NoStart::new(EXIT_ERROR, format!("failed to start threads: {reason}"))),
    };
    let _entered = runtime.enter();
    match Ground::take(config, environment) {
        Ok(ground) => {
            if let Some(warning) = ground.warning() {
                flags::say(&format!("warning: {warning}"));
            }
            if let (Role::Server, Err(sentence)) = (ground.config.role(), Refusals::check(&ground.folder)) {
                return refuse(&[sentence]);
            }
            let state = ground.folder.path().display();
            flags::print(&format!("ok: {}@{} with its state in {state}\n", ground.me, ground.link.address()));
            0
        }
        Err(refusal) => fail(&refusal.into()),
    }
}

fn fail(refusal: &NoStart) -> u8 {
    flags::say(&format!("error: {}", refusal.sentence));
    refusal.code
}

/// Runs the node.
fn run(config: Config, warnings: &[String], environment: &BTreeMap<String, String>, stdin: bool) -> u8 {
    let journal = match Journal::start(config.format, &config.log_filter) {
        Ok(journal) => journal,
        Err(sentence) => return refuse(&[sentence]),
    };
    stop_on_panic(&journal);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(reason) => return fail(&NoStart::new(EXIT_ERROR, format!("failed to start threads: {reason}"))),
    };
    let code = runtime.block_on(async {
        let ground = Ground::take(config, environment)?;
        serve(ground, warnings, &journal, stdin).await
    });
    let written = journal.close();
    // Blocking work that is under way must not hold up the end: what it was for is over.
    runtime.shutdown_background();
    match code {
        // Whoever does not read lines would hold up this one as well.
        Ok(code) if !written => code,
        Err(refusal) if !written => refusal.code,
        Ok(code) => flags::finish(code),
        Err(refusal) => fail(&refusal),
    }
}

/// A panic anywhere is a broken invariant: the process says so and ends, rather than going on with half of its tasks.
pub fn stop_on_panic(journal: &Journal) {
    let journal = journal.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line()));
        let text = format!("{}{}", panic.payload_as_str().unwrap_or("a panic"), place.unwrap_or_default());
        journal.tell(Fact::Fatal { text: text.clone() });
        journal.tell(Fact::Exiting { code: EXIT_BROKEN, reason: text });
        // Whoever does not read them does not keep a broken process.
        let _written = journal.close();
        std::process::exit(i32::from(EXIT_BROKEN));
    }));
}

async fn serve(ground: Ground, warnings: &[String], journal: &Journal, stdin: bool) -> Result<u8, NoStart> {
    journal.identify(ground.me);
    let warned = warnings.iter().cloned().chain(ground.warning());
    for text in warned {
        journal.tell(Fact::Warning { text });
    }
    let Ground { config, folder, link, me, passing } = ground;
    let failed =
        |what: &str, reason: std::io::Error| NoStart::new(EXIT_ERROR, format!("failed to {what}: {reason}"));
    addresses::leave_note(&folder, me, &link.address())
        .map_err(|reason| failed("write the state folder", reason))?;

    let (handle, controls) = node::control();
    let about = BuildInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        wire_version: config.build.wire_version,
        machine_version: config.build.machine_version,
        role: config.role(),
    };
    let floor = match &config.part {
        Part::Server(part) => Some(part.floors.participants),
        Part::Aggregator(_) | Part::Client(_) | Part::Reader(_) => None,
    };
    let started = Instant::now();
    let now =
        move || zipnet_core::time::Time(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let metrics = Metrics::new(now(), config.instance.name(), me, &about, floor);
    let observed = Observed::new(handle.clone(), metrics, now);
    let departed = Arc::new(OnceLock::new());
    let sink = {
        let (observed, journal) = (observed.clone(), journal.clone());
        let departed = Arc::clone(&departed);
        let unanswered = Unanswered::new(link.clone(), &config.bootstrap);
        move |event: Event| {
            if matches!(event, Event::Departing) {
                // A stop begins once.
                departed.set(Instant::now()).unwrap_or_default();
            }
            observed.observe(&event);
            if let Some(text) = unanswered.observe(&event) {
                journal.tell(Fact::Warning { text });
            }
            if let Some(fact) = event.fact() {
                journal.tell(fact);
            }
        }
    };
    let world = RealWorld::new(link.clone(), folder.clone(), Arc::new(sink));

    let refusals = match config.role() {
        Role::Server => Some(
            Refusals::start(folder.clone(), handle.clone())
                .map_err(|sentence| NoStart::new(EXIT_CONFIG, sentence))?,
        ),
        Role::Aggregator | Role::Client => None,
    };
    let socket = admin::open(folder.path()).map_err(|reason| failed("open the admin socket", reason))?;
    drop(tokio::spawn(admin::serve(socket, observed.clone(), refusals.clone())));
    if let Some(address) = &config.metrics {
        let listener = TcpListener::bind(&address.0).await.map_err(|reason| {
            let what = format!("listen on ZIPNET_METRICS={address}");
            failed(&what, reason)
        })?;
        drop(tokio::spawn(observation::serve(listener, pages().with_state(observed))));
    }
    stop_on_signals(&handle).map_err(|reason| failed("listen for signals", reason))?;
    if let Some(refusals) = refusals {
        let lines = journal.clone();
        let warn = move |text| lines.tell(Fact::Warning { text });
        drop(tokio::spawn(refusals.watch(warn)));
    }
    let (ended, end) = oneshot::channel();
    let publishing = stdin.then(|| tokio::spawn(publish_lines(handle.clone(), end)));

    let exit = run_node(world, config, controls).await;
    let spent = departed.get().map_or(Duration::ZERO, Instant::elapsed);
    link.shut_down(EXIT_BUDGET.saturating_sub(spent).clamp(EXIT_RESERVE, FAREWELL)).await;
    admin::close(folder.path());
    let unpublished = match publishing {
        Some(publishing) => {
            // It may have ended before.
            ended.send(()).unwrap_or_default();
            // Whoever does not read what became of lines does not hold up the end.
            !matches!(tokio::time::timeout(LAST_FATES, publishing).await, Ok(Ok(true)))
        }
        None => false,
    };
    passing.forget();
    Ok(if exit.code == 0 && unpublished { EXIT_ERROR } else { exit.code })
}

/// SIGTERM and SIGINT ask for an orderly stop; asking again changes nothing.
fn stop_on_signals(handle: &Handle) -> std::io::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signals, handle) = (signal(kind)?, handle.clone());
        drop(tokio::spawn(async move {
            while signals.recv().await.is_some() {
                handle.stop();
            }
        }));
    }
    Ok(())
}

/// Failed dials of those that this node was told to start from. A single one is nothing; a name that does not resolve, or
/// a port that is closed, is for the operator.
struct Unanswered {
    link: QuicLink,
    failed: Mutex<BTreeMap<Address, u32>>,
}

impl Unanswered {
    /// Failures in a row that are told: after about three seconds, and then every five minutes.
    const TOLD: u32 = 3;
    const AGAIN: u32 = 60;

    fn new(link: QuicLink, bootstrap: &[PeerAddress]) -> Self {
        let addresses = bootstrap.iter().filter_map(|peer| peer.address.clone());
        Self { link, failed: Mutex::new(addresses.map(|address| (address, 0)).collect()) }
    }

    /// The warning that an event is worth.
    fn observe(&self, event: &Event) -> Option<String> {
        let Event::DialFailed { peer, address } = event else { return None };
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let times = failed.get_mut(address)?;
        let why = self.link.why_unreachable(address)?;
        *times = times.saturating_add(1);
        let told = *times == Self::TOLD || *times % Self::AGAIN == 0;
        told.then(|| {
            let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.short());
            format!("failed to reach peer={peer} at {address}, {times} times so far: {why}; trying again")
        })
    }
}

/// Requests of lines are numbered from here, apart from those of the admin socket.
const LINES_FROM: u64 = 1 << 32;

/// Publishes every line of standard input, prints what became of each, and stops the node after the last one. Once the node
/// has ended, nothing becomes of those that are under way. True if all of them landed.
async fn publish_lines(handle: Handle, mut end: oneshot::Receiver<()>) -> bool {
    let (sender, mut lines) = mpsc::channel(1);
    // Reading blocks, and cannot be given up: the thread ends with the process.
    drop(std::thread::spawn(move || read_lines(&mut std::io::stdin().lock(), &sender)));
    let mut known = FuturesUnordered::new();
    let mut waiting: BTreeSet<u64> = BTreeSet::new();
    let (mut number, mut more, mut all_landed, mut goes_on) = (0, true, true, true);
    while goes_on && (more || !waiting.is_empty()) {
        tokio::select! {
            // What was known before the end comes before it.
            biased;
            Some((number, known)) = known.next() => match known {
                None => goes_on = false,
                Some(Known { outcome, round }) => {
                    waiting.remove(&number);
                    all_landed &= outcome == Outcome::Landed;
                    print_fate(format!("{} line={number} round={round}\n", outcome.name())).await;
                }
            },
            line = lines.recv(), if more => match line {
                None => more = false,
                Some(Err(reason)) => {
                    flags::say(&format!("error: failed to read line {} of standard input: {reason}", number + 1));
                    (more, all_landed) = (false, false);
                }
                Some(Ok(line)) => {
                    number += 1;
                    // A full queue empties by a message a round.
                    match submit(&handle, RequestId(LINES_FROM + number), line).await {
                        Some(Ok(receipt)) => {
                            waiting.insert(number);
                            known.push(async move { (number, receipt.await) });
                        }
                        Some(Err(reason)) => {
                            print_fate(format!("refused line={number}: {reason}\n")).await;
                            all_landed = false;
                        }
                        None => {
                            waiting.insert(number);
                            goes_on = false;
                        }
                    }
                }
            },
            _ = &mut end => goes_on = false,
        }
    }
    for number in &waiting {
        print_fate(format!("unknown line={number}: this client has ended\n")).await;
    }
    handle.stop();
    // Lines that were not read were not published.
    all_landed && waiting.is_empty() && !more
}

/// Hands over the lines of a text without their ends, until it ends or cannot be read. A message is bytes: lines need not
/// be UTF-8.
fn read_lines(from: &mut impl BufRead, lines: &mpsc::Sender<std::io::Result<Vec<u8>>>) {
    loop {
        let mut line = Vec::new();
        match from.read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {
                let end: &[u8] = if line.ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
                let text = line.strip_suffix(end).unwrap_or(&line).to_vec();
                if lines.blocking_send(Ok(text)).is_err() {
                    return;
                }
            }
            Err(reason) => {
                // Nobody waits for lines any more if this is lost.
                lines.blocking_send(Err(reason)).ok();
                return;
            }
        }
    }
}

/// Prints on a thread that may wait for its reader.
async fn print_fate(text: String) {
    tokio::task::spawn_blocking(move || flags::print(&text)).await.unwrap_or_default();
}

/// Waits for a place in the queue.
async fn submit(
    handle: &Handle,
    request: RequestId,
    line: Vec<u8>,
) -> Option<Result<Receipt, zipnet_core::client::PublishError>> {
    use zipnet_core::client::PublishError;
    loop {
        match handle.submit(request, line.clone()).await? {
            Err(PublishError::QueueFull { .. }) => tokio::time::sleep(Duration::from_millis(200)).await,
            answer => return Some(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, BufReader, Read};

    use super::*;

    /// A text that ends with an error.
    struct Broken<'a>(&'a [u8]);

    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::ErrorKind::InvalidData.into()) } else { self.0.read(buffer) }
        }
    }

    #[test]
    fn every_line_is_read_whatever_its_bytes_and_an_error_is_no_end() {
        let read = |from: &mut dyn BufRead| {
            let (sender, mut lines) = mpsc::channel(9);
            read_lines(&mut { from }, &sender);
            drop(sender);
            let mut all = Vec::new();
            while let Some(line) = lines.blocking_recv() {
                all.push(line.map_err(|reason| reason.kind()));
            }
            all
        };
        let line = |bytes: &[u8]| Ok(bytes.to_vec());
        let text = b"one\n\xff\xfe\r\n\nlast";
        let expected = [line(b"one"), line(b"\xff\xfe"), line(b""), line(b"last")];
        assert_eq!(read(&mut text.as_slice()), expected);
        assert_eq!(
            read(&mut BufReader::new(Broken(b"one\n"))),
            [line(b"one"), Err(io::ErrorKind::InvalidData)]
        );
    }
}
