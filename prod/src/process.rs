//! A node from its flags to its exit code.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use clap::ArgMatches;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use zipnet_core::key::Identity;
use zipnet_core::machine::{Outcome, Report, RequestId};
use zipnet_core::message::Role;
use zipnet_node::config::{Config, Part, PeerAddress, Warning};
use zipnet_node::event::Event;
use zipnet_node::metrics::{BuildInfo, Metrics};
use zipnet_node::node::{self, Handle};
use zipnet_node::world::{Address, Link};
use zipnet_world::addresses;
use zipnet_world::ground::{Ground, GroundError, remember};
use zipnet_world::network::{FAREWELL, QuicLink};
use zipnet_world::world::{RealWorld, run as run_node};

use crate::about::About;
use crate::journal::Journal;
use crate::observation::{Observed, pages};
use crate::refusals::Refusals;
use crate::settings::Settings;
use crate::{admin, flags};

/// Another error.
const EXIT_ERROR: u8 = 1;
/// An invariant broke.
const EXIT_BROKEN: u8 = 70;
/// A value is wrong or missing.
const EXIT_CONFIG: u8 = 78;

/// How long an orderly stop may take up to its last words, so that it is over in less than the documented 5 s.
const EXIT_BUDGET: Duration = Duration::from_millis(4_500);
/// What last words get in any case.
const EXIT_RESERVE: Duration = Duration::from_millis(200);

/// What `main` of a node's binary is.
#[must_use]
pub fn main(role: Role) -> ExitCode {
    ExitCode::from(match flags::parse(flags::command(role)) {
        Ok(matches) => act(role, &matches),
        Err(code) => code,
    })
}

/// Does what the command line asks for.
fn act(role: Role, matches: &ArgMatches) -> u8 {
    if flags::print_generated(flags::command(role), matches) {
        return 0;
    }
    if let Some(("build-info", matches)) = matches.subcommand() {
        print_about(matches);
        return 0;
    }
    let environment: BTreeMap<_, _> = std::env::vars().collect();
    let settings = match Settings::collect(role, matches, &environment) {
        Ok(settings) => settings,
        Err(sentence) => return refuse(&[sentence]),
    };
    if let Some(("config", matches)) = matches.subcommand()
        && let Some(("show", matches)) = matches.subcommand()
    {
        flags::print(&settings.show(role, matches.get_flag("origin")));
        return 0;
    }
    let (config, warnings) = match settings.config(role) {
        Ok(config) => config,
        Err(mistakes) => return refuse(&mistakes),
    };
    let stdin = role == Role::Client && matches.get_flag("stdin");
    match matches.subcommand() {
        Some(("keys", _)) => match &config.secret {
            Some(secret) => {
                flags::print(&format!("{}\n", Identity::from_secret(secret).peer()));
                0
            }
            None => refuse(&["ZIPNET_SECRET is not set: this client draws another identity at every start"]),
        },
        Some(("check", _)) => check(config, &warnings, &environment),
        _ => run(config, &warnings, &environment, stdin),
    }
}

/// Prints what this binary was built as.
pub fn print_about(matches: &ArgMatches) {
    let about = About::this();
    let text = match matches.get_one::<String>("format").map(String::as_str) {
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
fn check(config: Config, warnings: &[Warning], environment: &BTreeMap<String, String>) -> u8 {
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
fn run(config: Config, warnings: &[Warning], environment: &BTreeMap<String, String>, stdin: bool) -> u8 {
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
    journal.close();
    // Blocking work that is under way must not hold up the end: what it was for is over.
    runtime.shutdown_background();
    code.unwrap_or_else(|refusal| fail(&refusal))
}

/// A panic anywhere is a broken invariant: the process says so and ends, rather than going on with half of its tasks.
pub fn stop_on_panic(journal: &Journal) {
    let journal = journal.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line()));
        let text = format!("{}{}", panic.payload_as_str().unwrap_or("a panic"), place.unwrap_or_default());
        for event in [Event::Fatal(text.clone()), Event::Exiting { code: EXIT_BROKEN, reason: text }] {
            if let Some(line) = event.line() {
                journal.write(&line);
            }
        }
        journal.close();
        std::process::exit(i32::from(EXIT_BROKEN));
    }));
}

async fn serve(ground: Ground, warnings: &[Warning], journal: &Journal, stdin: bool) -> Result<u8, NoStart> {
    let warned = warnings.iter().map(ToString::to_string).chain(ground.warning());
    for text in warned {
        if let Some(line) = Event::Warned(text).line() {
            journal.write(&line);
        }
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
    let publications = Publications::default();
    let started = Instant::now();
    let now =
        move || zipnet_core::time::Time(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let metrics = Metrics::new(now(), config.instance.name(), me, &about, floor);
    let observed = Observed::new(handle.clone(), metrics, now);
    let departed = Arc::new(OnceLock::new());
    let sink = {
        let (observed, journal, publications) = (observed.clone(), journal.clone(), publications.clone());
        let departed = Arc::clone(&departed);
        let unanswered = Unanswered::new(link.clone(), &config.bootstrap);
        move |event: Event| {
            if matches!(event, Event::Departing) {
                // A stop begins once.
                departed.set(Instant::now()).unwrap_or_default();
            }
            observed.observe(&event);
            publications.observe(&event);
            if let Some(line) = unanswered.observe(&event).and_then(|text| Event::Warned(text).line()) {
                journal.write(&line);
            }
            if let Some(line) = event.line() {
                journal.write(&line);
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
        drop(tokio::spawn(async move { axum::serve(listener, pages().with_state(observed)).await }));
    }
    stop_on_signals(&handle).map_err(|reason| failed("listen for signals", reason))?;
    let lines = journal.clone();
    let unsaved = move |text| {
        if let Some(line) = Event::Warned(text).line() {
            lines.write(&line);
        }
    };
    drop(tokio::spawn(remember(handle.clone(), folder.clone(), config.announce_interval, unsaved)));
    if let Some(refusals) = refusals {
        let lines = journal.clone();
        let warn = move |text| {
            if let Some(line) = Event::Warned(text).line() {
                lines.write(&line);
            }
        };
        drop(tokio::spawn(refusals.watch(warn)));
    }
    let publishing = stdin.then(|| tokio::spawn(publish_lines(handle.clone(), publications)));

    let exit = run_node(world, config, controls).await;
    let spent = departed.get().map_or(Duration::ZERO, Instant::elapsed);
    link.shut_down(EXIT_BUDGET.saturating_sub(spent).clamp(EXIT_RESERVE, FAREWELL)).await;
    admin::close(folder.path());
    let unpublished = match publishing {
        Some(publishing) => {
            // Stopped from elsewhere, it waits for lines and fates that do not come.
            if !publishing.is_finished() {
                publishing.abort();
            }
            !publishing.await.unwrap_or(false)
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

/// What became of a message, and in which round.
type Fate = (RequestId, Outcome, u64);

/// What became of messages, for whoever published them. Clones are the same.
#[derive(Clone, Debug, Default)]
struct Publications(Arc<Mutex<Option<mpsc::UnboundedSender<Fate>>>>);

impl Publications {
    fn observe(&self, event: &Event) {
        if let Event::Core(Report::Published { request, outcome, round }) = event
            && let Some(told) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
        {
            // Nobody listens once the last line was published.
            told.send((*request, *outcome, round.0)).ok();
        }
    }

    fn listen(&self) -> mpsc::UnboundedReceiver<Fate> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }
}

/// Requests of lines are numbered from here, apart from those of the admin socket.
const LINES_FROM: u64 = 1 << 32;

/// Publishes every line of standard input, prints what became of each, and stops the node after the last one. True if
/// all of them landed.
async fn publish_lines(handle: Handle, publications: Publications) -> bool {
    let mut told = publications.listen();
    let (sender, mut lines) = mpsc::channel(1);
    // Reading blocks, and can not be given up: the thread ends with the process.
    drop(std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    }));
    let mut waiting: BTreeMap<RequestId, u64> = BTreeMap::new();
    let (mut number, mut more, mut all_landed) = (0, true, true);
    while more || !waiting.is_empty() {
        tokio::select! {
            line = lines.recv(), if more => match line {
                None => more = false,
                Some(line) => {
                    number += 1;
                    let request = RequestId(LINES_FROM + number);
                    // A full queue empties by a message a round.
                    match submit(&handle, request, line).await {
                        Some(Ok(())) => drop(waiting.insert(request, number)),
                        Some(Err(reason)) => {
                            flags::print(&format!("refused line={number}: {reason}\n"));
                            all_landed = false;
                        }
                        None => return false,
                    }
                }
            },
            fate = told.recv() => match fate {
                None => return false,
                Some((request, outcome, round)) => if let Some(number) = waiting.remove(&request) {
                    let word = match outcome {
                        Outcome::Landed => "landed",
                        Outcome::Collided => "collided",
                        Outcome::Dropped => "dropped",
                        Outcome::Unknown => "unknown",
                    };
                    all_landed &= outcome == Outcome::Landed;
                    flags::print(&format!("{word} line={number} round=r{round}\n"));
                }
            },
        }
    }
    handle.stop();
    all_landed
}

/// Waits for a place in the queue.
async fn submit(
    handle: &Handle,
    request: RequestId,
    line: String,
) -> Option<Result<(), zipnet_core::client::PublishError>> {
    use zipnet_core::client::PublishError;
    loop {
        match handle.submit(request, line.clone().into_bytes()).await? {
            Err(PublishError::QueueFull { .. }) => tokio::time::sleep(Duration::from_millis(200)).await,
            answer => return Some(answer),
        }
    }
}
