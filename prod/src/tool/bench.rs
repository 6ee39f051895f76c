//! A committee under load on this machine: how long rounds take, whether memory and open files stay flat, and whether every
//! message has the fate that its receipt says.
//!
//! Servers and aggregator are processes; the clients are nodes inside this process, each with an identity, a socket and
//! connections of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clap::{Arg, ArgAction, ArgMatches, Command};
use hdrhistogram::Histogram;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use tokio::task::JoinHandle;
use zipnet_core::id::{Role, Round};
use zipnet_core::key::{Identity, NodeSecret};
use zipnet_core::machine::{Outcome, Report, RequestId};
use zipnet_core::params::RoundParams;
use zipnet_core::slot::{SlotContent, read_slots};
use zipnet_facts::{Account, Fact};
use zipnet_node::config::{Build, Config};
use zipnet_node::event::Event;
use zipnet_node::node::{self, Exit, Handle, Known};
use zipnet_world::disk::Folder;
use zipnet_world::network::{Limits, QuicLink};
use zipnet_world::world::{RealWorld, random, run as run_node};

use super::Outcome as Ended;
use super::node::page;
use super::processes::{Network, Node, bin_dir};
use crate::flags;

/// How long all clients may take to be registered.
const ENROL: Duration = Duration::from_secs(120);
/// How long the last receipts may take.
const SETTLE: Duration = Duration::from_secs(60);
/// How often memory and open files are looked at.
const SAMPLE: Duration = Duration::from_secs(2);
/// Memory may grow by so much between the first fifth and the end: what a sample differs from the next one anyway.
const FLAT_KIB: f64 = 3.0 * 1024.0;
/// Bytes of a message: enough that no two are equal.
const MESSAGE: usize = 32;

/// The command line.
pub(super) fn command() -> Command {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .default_value(default)
            .value_parser(clap::value_parser!(u16).range(1..=10_000))
            .help(help)
    };
    let time = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("TIME")
            .default_value(default)
            .value_parser(super::duration)
            .help(help)
    };
    Command::new("bench").about("Measure").subcommand_required(true).arg_required_else_help(true).subcommand(
        Command::new("live")
            .about("Run a committee with many clients on loopback, and measure rounds, memory and open files")
            .arg(number("servers", "3", "Servers"))
            .arg(number("clients", "100", "Clients, each with an identity and a connection of its own"))
            .arg(time("period", "500ms", "How often a round is opened"))
            .arg(time("for", "1m", "How long to measure, once every client is registered"))
            .arg(
                number("publish", "160", "How many clients of a thousand publish in a round")
                    .value_parser(clap::value_parser!(u16).range(0..=1_000)),
            )
            .arg(
                Arg::new("rolling-restart")
                    .long("rolling-restart")
                    .action(ArgAction::SetTrue)
                    .help("Restart every server in turn, half-way"),
            )
            .arg(bin_dir())
            .arg(flags::format_argument()),
    )
}

/// Measures, prints what came of it, and fails if something was lost, abandoned without a reason, or grew.
///
/// # Errors
/// If a node cannot be started, or ends by itself.
pub(super) async fn run(matches: &ArgMatches) -> Ended {
    let Some(("live", matches)) = matches.subcommand() else { unreachable!("clap requires it") };
    let number = |name: &str| usize::from(*matches.get_one::<u16>(name).expect("it has a default"));
    let time = |name: &str| *matches.get_one::<Duration>(name).expect("it has a default");
    let plan = Plan {
        servers: number("servers"),
        clients: number("clients"),
        publish: number("publish"),
        period: time("period"),
        lasts: time("for"),
        rolling: matches.get_flag("rolling-restart"),
    };
    let asked = super::asked_to_end()?;
    let mut network = Network::new(matches, "bench.live", "info,zipnet_node::committee=debug")?;
    let period = format!("{}ms", plan.period.as_millis());
    network.servers = vec![
        ("ZIPNET_ROUND_PERIOD", period.clone()),
        ("ZIPNET_MIN_PARTICIPANTS", "2".to_owned()),
        ("ZIPNET_FIRST_VOTERS", plan.servers.min(3).to_string()),
    ];
    network.aggregator = vec![("ZIPNET_FOLD_DEADLINE", period)];
    let mut nodes = Vec::new();
    let measured = tokio::select! {
        measured = measure(&plan, &mut network, &mut nodes) => measured,
        () = asked => Err("interrupted".to_owned()),
    };
    let stopped = network.stop(nodes).await;
    let summary = measured?;
    stopped?;
    match matches.get_one::<String>("format").map(String::as_str) {
        Some("json") => flags::print(&(serde_json::to_string(&summary).expect("it is plain data") + "\n")),
        _ => flags::print(&summary.to_string()),
    }
    summary.failures.iter().for_each(|failure| flags::say(&format!("error: {failure}")));
    Ok(u8::from(!summary.failures.is_empty()))
}

struct Plan {
    servers: usize,
    clients: usize,
    /// Of a thousand.
    publish: usize,
    period: Duration,
    lasts: Duration,
    rolling: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Summary {
    servers: usize,
    clients: usize,
    period_ms: u128,
    measured_s: u64,
    rounds_finalized: u64,
    rounds_abandoned: u64,
    participants_min: u64,
    round_ms_p50: f64,
    round_ms_p99: f64,
    round_ms_max: f64,
    messages: BTreeMap<&'static str, usize>,
    processes: Vec<Usage>,
    failures: Vec<String>,
}

/// Memory and open files of one process.
#[derive(Clone, Debug, Serialize)]
struct Usage {
    name: String,
    rss_kib_max: f64,
    rss_kib_per_minute: f64,
    files_max: f64,
    files_per_minute: f64,
}

impl core::fmt::Display for Summary {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        writeln!(
            f,
            "{} servers, {} clients, a round every {} ms, measured for {} s",
            self.servers, self.clients, self.period_ms, self.measured_s
        )?;
        writeln!(
            f,
            "rounds     {} finalized, {} abandoned, {} participants at least",
            self.rounds_finalized, self.rounds_abandoned, self.participants_min
        )?;
        writeln!(
            f,
            "duration   p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            self.round_ms_p50, self.round_ms_p99, self.round_ms_max
        )?;
        let fates: Vec<_> = self.messages.iter().map(|(fate, count)| format!("{count} {fate}")).collect();
        writeln!(f, "messages   {}", fates.join(", "))?;
        for usage in &self.processes {
            writeln!(
                f,
                "{:<13} RSS at most {:.1} MiB, {:+.0} KiB per minute; open files at most {}, {:+.2} per minute",
                usage.name,
                usage.rss_kib_max / 1024.0,
                usage.rss_kib_per_minute,
                usage.files_max,
                usage.files_per_minute
            )?;
        }
        Ok(())
    }
}

async fn measure(plan: &Plan, network: &mut Network, nodes: &mut Vec<Node>) -> Result<Summary, String> {
    for (role, count) in [("server", plan.servers), ("aggregator", 1)] {
        for number in 1..=count {
            nodes.push(network.start(role, &format!("{role}-{number}")).await?);
        }
    }
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let bootstrap = network.bootstrap().unwrap_or_default().to_owned();
    let mut clients = Vec::new();
    for number in 0..plan.clients {
        let folder = network.folder(&format!("client-{number}"));
        clients.push(Client::start(network.instance(), &bootstrap, folder, number, Arc::clone(&ledger))?);
    }
    flags::say(&format!(
        "{} servers, an aggregator and {} clients run; waiting for all to be registered",
        plan.servers, plan.clients
    ));
    enrolled(network, nodes, plan.clients).await?;

    flags::say(&format!("measuring for {} s", plan.lasts.as_secs()));
    let mut watch = Watch::new(nodes);
    let started = Instant::now();
    let mut restarts = if plan.rolling { (1..=plan.servers).collect() } else { Vec::new() };
    restarts.reverse();
    let mut rounds = Rounds::default();
    let mut publish = tokio::time::interval(plan.period);
    let mut sample = tokio::time::interval(SAMPLE);
    while started.elapsed() < plan.lasts {
        tokio::select! {
            said = network.sayings.recv() => {
                if let Some((name, line)) = said {
                    rounds.hear(&name, &line);
                }
            }
            _ = publish.tick() => {
                for client in clients.iter_mut().filter(|_| drawn(plan.publish)) {
                    client.publish(&ledger);
                }
            }
            _ = sample.tick() => {
                nodes.iter_mut().try_for_each(Node::check)?;
                watch.look(started.elapsed(), nodes);
            }
        }
        if started.elapsed() >= plan.lasts / 2
            && let Some(number) = restarts.pop()
        {
            rounds.restarting = true;
            restart(network, nodes, number, &mut rounds).await?;
            watch.forget(&format!("server-{number}"));
        }
    }
    let measured_s = started.elapsed().as_secs();
    settle(network, &ledger, &mut rounds).await;
    for client in &clients {
        client.handle.stop();
    }
    for client in clients {
        // A client that cannot stop in order says so by its exit.
        drop(tokio::time::timeout(Duration::from_secs(5), client.running).await);
    }
    Ok(summary(plan, measured_s, &rounds, &lock(&ledger), &watch))
}

fn summary(plan: &Plan, measured_s: u64, rounds: &Rounds, ledger: &Ledger, watch: &Watch) -> Summary {
    let ms = |quantile: f64| rounds.micros.value_at_quantile(quantile) as f64 / 1000.0;
    let processes = watch.usage();
    let (messages, mut failures) = ledger.settle();
    if rounds.finalized == 0 {
        failures.push("no round was finalized".to_owned());
    }
    if rounds.abandoned > rounds.excused {
        failures.push(format!(
            "{} rounds were abandoned although nobody was restarted",
            rounds.abandoned - rounds.excused
        ));
    }
    let minutes = measured_s as f64 / 60.0 * 0.8;
    for usage in &processes {
        if usage.rss_kib_per_minute * minutes > FLAT_KIB {
            failures.push(format!(
                "the memory of {} grows by {:.0} KiB per minute",
                usage.name, usage.rss_kib_per_minute
            ));
        }
        if usage.files_per_minute * minutes > 2.0 {
            failures.push(format!(
                "the open files of {} grow by {:.1} per minute",
                usage.name, usage.files_per_minute
            ));
        }
    }
    Summary {
        servers: plan.servers,
        clients: plan.clients,
        period_ms: plan.period.as_millis(),
        measured_s,
        rounds_finalized: rounds.finalized,
        rounds_abandoned: rounds.abandoned,
        participants_min: rounds.participants_min.unwrap_or(0),
        round_ms_p50: ms(0.5),
        round_ms_p99: ms(0.99),
        round_ms_max: rounds.micros.max() as f64 / 1000.0,
        messages,
        processes,
        failures,
    }
}

/// Waits until every client is registered.
async fn enrolled(network: &mut Network, nodes: &mut [Node], clients: usize) -> Result<(), String> {
    let until = Instant::now() + ENROL;
    loop {
        while network.sayings.try_recv().is_ok() {}
        nodes.iter_mut().try_for_each(Node::check)?;
        let first = nodes.first().map(|node| node.folder.clone()).unwrap_or_default();
        let status: Value = page(&first, "/status").await?;
        let known = status["clients"].as_u64().unwrap_or(0);
        if usize::try_from(known).is_ok_and(|known| known >= clients) && status["finalized_round"].is_u64() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!(
                "{known} of {clients} clients were registered within {} s: {}",
                ENROL.as_secs(),
                status["causes"]
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Rolls one server, as the document says: stop, start with the same secrets, wait for its `round finalized`.
async fn restart(
    network: &mut Network,
    nodes: &mut Vec<Node>,
    number: usize,
    rounds: &mut Rounds,
) -> Result<(), String> {
    let name = format!("server-{number}");
    let Some(place) = nodes.iter().position(|node| node.name == name) else { return Ok(()) };
    let node = nodes.remove(place);
    flags::say(&format!("restarting {name}"));
    network.stop(vec![node]).await?;
    nodes.insert(place, network.start("server", &name).await?);
    let finalized = async {
        while let Some((who, line)) = network.sayings.recv().await {
            rounds.hear(&who, &line);
            if who == name && line["event"] == "round-finalized" {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), finalized)
        .await
        .map_err(|_| format!("{name} did not finalize a round within a minute of its restart"))
}

/// Waits until the fate of every message is known.
async fn settle(network: &mut Network, ledger: &Mutex<Ledger>, rounds: &mut Rounds) {
    let until = Instant::now() + SETTLE;
    while lock(ledger).pending() > 0 && Instant::now() < until {
        if let Ok(Some((name, line))) =
            tokio::time::timeout(Duration::from_millis(100), network.sayings.recv()).await
        {
            rounds.hear(&name, &line);
        }
    }
}

/// What the first server says of rounds.
struct Rounds {
    micros: Histogram<u64>,
    opened: BTreeMap<Round, SystemTime>,
    finalized: u64,
    abandoned: u64,
    /// Of those, how many after a restart had begun.
    excused: u64,
    participants_min: Option<u64>,
    restarting: bool,
}

impl Default for Rounds {
    fn default() -> Self {
        let micros = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are in order");
        Self {
            micros,
            opened: BTreeMap::new(),
            finalized: 0,
            abandoned: 0,
            excused: 0,
            participants_min: None,
            restarting: false,
        }
    }
}

impl Rounds {
    fn hear(&mut self, name: &str, line: &Value) {
        if name != "server-1" {
            return;
        }
        let at = line["timestamp"].as_str().and_then(|at| humantime::parse_rfc3339(at).ok());
        let account = Account::deserialize(line).ok();
        let (Some(Account { fact, .. }), Some(at)) = (account, at) else { return };
        match fact {
            Fact::RoundOpened { round, .. } => drop(self.opened.insert(round, at)),
            Fact::RoundFinalized { end } => {
                self.finalized += 1;
                let took = self.opened.remove(&end.round).and_then(|opened| at.duration_since(opened).ok());
                if let Some(took) = took {
                    self.micros.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                }
                let participants = u64::from(end.participants);
                self.participants_min = self.participants_min.into_iter().chain([participants]).min();
            }
            Fact::RoundAbandoned { round, .. } => {
                self.opened.remove(&round);
                self.abandoned += 1;
                self.excused += u64::from(self.restarting);
            }
            _ => {}
        }
    }
}

/// A message, by the client and the request.
type Sent = (usize, RequestId);

/// Every message and every broadcast.
#[derive(Debug, Default)]
struct Ledger {
    messages: BTreeMap<Sent, Vec<u8>>,
    fates: BTreeMap<Sent, (Outcome, u64)>,
    refused: usize,
    /// What stood in the slots of each confirmed round.
    broadcasts: BTreeMap<u64, BTreeSet<Vec<u8>>>,
}

impl Ledger {
    fn pending(&self) -> usize {
        self.messages.len().saturating_sub(self.fates.len())
    }

    fn observe(&mut self, event: &Event) {
        let Event::Core(Report::RecordSeen { record, confirmed: true, .. }) = event else { return };
        self.broadcasts.entry(record.round.0).or_insert_with(|| {
            let slots = read_slots(&RoundParams::DEFAULT, &record.header, &record.broadcast);
            let messages = slots.filter_map(|slot| match slot {
                SlotContent::Message(payload) => Some(payload[..MESSAGE].to_vec()),
                SlotContent::Empty | SlotContent::Garbled => None,
            });
            messages.collect()
        });
    }

    /// Counts fates, and compares each with what the broadcasts hold.
    fn settle(&self) -> (BTreeMap<&'static str, usize>, Vec<String>) {
        let (mut counts, mut failures) = (BTreeMap::new(), Vec::new());
        for (sent, payload) in &self.messages {
            let holds =
                |round: &u64| self.broadcasts.get(round).is_some_and(|messages| messages.contains(payload));
            let fate = match self.fates.get(sent) {
                None => {
                    failures
                        .push(format!("the fate of message {} of client {} is not known", sent.1.0, sent.0));
                    "pending"
                }
                Some((Outcome::Landed, round)) => {
                    if !holds(round) {
                        failures.push(format!(
                            "a message of client {} landed in round {round}, which does not hold it",
                            sent.0
                        ));
                    }
                    "landed"
                }
                Some((Outcome::Collided, round)) => {
                    if holds(round) {
                        failures.push(format!(
                            "a message of client {} collided in round {round}, which holds it",
                            sent.0
                        ));
                    }
                    "collided"
                }
                Some((Outcome::Dropped, _)) => "dropped",
                Some((Outcome::Unknown, _)) => "unknown",
            };
            *counts.entry(fate).or_default() += 1;
        }
        if self.refused > 0 {
            counts.insert("refused by a full queue", self.refused);
        }
        (counts, failures)
    }
}

/// A client inside this process.
struct Client {
    number: usize,
    handle: Handle,
    running: JoinHandle<Exit>,
    requests: u64,
}

impl Client {
    fn start(
        instance: &str,
        bootstrap: &str,
        folder: PathBuf,
        number: usize,
        ledger: Arc<Mutex<Ledger>>,
    ) -> Result<Self, String> {
        let secret = NodeSecret::from_bytes(random());
        let identity = Identity::from_secret(&secret);
        let variables = BTreeMap::from([
            ("ZIPNET_INSTANCE".to_owned(), instance.to_owned()),
            ("ZIPNET_BOOTSTRAP".to_owned(), bootstrap.to_owned()),
        ]);
        let (mut config, _) = Config::from_env(Role::Client, &variables, Build::CURRENT)
            .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        config.secret = Some(Arc::new(secret));
        let failed =
            |what: &str, reason: String| format!("failed to start client {number}: {what}: {reason}");
        let disk = Folder::open(&folder).map_err(|reason| failed("its folder", reason.to_string()))?;
        let limits = Limits { vector_bytes: config.build.params.vector_bytes() };
        let link = QuicLink::bind(&identity, ([127, 0, 0, 1], 0).into(), None, limits)
            .map_err(|reason| failed("its socket", reason.to_string()))?;
        link.only_dial();
        let sink = move |event: Event| lock(&ledger).observe(&event);
        let (handle, controls) = node::control();
        let running = tokio::spawn(run_node(RealWorld::new(link, disk, Arc::new(sink)), config, controls));
        Ok(Self { number, handle, running, requests: 0 })
    }

    /// Publishes a message that no other one is like.
    fn publish(&mut self, ledger: &Arc<Mutex<Ledger>>) {
        self.requests += 1;
        let (request, payload) = (RequestId(self.requests), random().to_vec());
        let (handle, ledger, sent) = (self.handle.clone(), Arc::clone(ledger), (self.number, request));
        lock(&ledger).messages.insert(sent, payload.clone());
        drop(tokio::spawn(async move {
            match handle.submit(request, payload).await {
                Some(Ok(receipt)) => {
                    if let Some(Known { outcome, round }) = receipt.await {
                        lock(&ledger).fates.insert(sent, (outcome, round.0));
                    }
                }
                Some(Err(_)) | None => {
                    let mut ledger = lock(&ledger);
                    ledger.messages.remove(&sent);
                    ledger.refused += 1;
                }
            }
        }));
    }
}

/// True so often of a thousand times.
fn drawn(permille: usize) -> bool {
    let [low, high, ..] = random();
    usize::from(u16::from_le_bytes([low, high])) % 1000 < permille
}

/// What processes use, over time.
#[derive(Debug, Default)]
struct Watch {
    /// (minutes, KiB, files) by name.
    samples: BTreeMap<String, Vec<(f64, f64, f64)>>,
}

impl Watch {
    fn new(nodes: &[Node]) -> Self {
        Self { samples: nodes.iter().map(|node| (node.name.clone(), Vec::new())).collect() }
    }

    fn look(&mut self, elapsed: Duration, nodes: &[Node]) {
        for node in nodes {
            let Some(process) = node.process() else { continue };
            let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            let rss = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
            let files = std::fs::read_dir(format!("/proc/{process}/fd")).map(Iterator::count);
            if let (Some(rss), Ok(files)) = (rss, files) {
                let sample = (elapsed.as_secs_f64() / 60.0, rss, files as f64);
                self.samples.entry(node.name.clone()).or_default().push(sample);
            }
        }
    }

    /// A process was replaced: what the old one used says nothing about the new one.
    fn forget(&mut self, name: &str) {
        self.samples.insert(name.to_owned(), Vec::new());
    }

    fn usage(&self) -> Vec<Usage> {
        let usage = self.samples.iter().map(|(name, samples)| {
            // The first fifth is for filling caches.
            let steady = &samples[samples.len() / 5..];
            let column = |pick: fn(&(f64, f64, f64)) -> f64| {
                steady.iter().map(|sample| (sample.0, pick(sample))).collect::<Vec<_>>()
            };
            let (memory, files) = (column(|sample| sample.1), column(|sample| sample.2));
            let max = |column: &[(f64, f64)]| column.iter().map(|(_, value)| *value).fold(0.0, f64::max);
            Usage {
                name: name.clone(),
                rss_kib_max: max(&memory),
                rss_kib_per_minute: slope(&memory),
                files_max: max(&files),
                files_per_minute: slope(&files),
            }
        });
        usage.collect()
    }
}

/// The slope of the line that lies nearest to the points (least squares).
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let shared: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    if spread > 0.0 { shared / spread } else { 0.0 }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use zipnet_core::id::{Digest, LogId, PeerId};
    use zipnet_core::machine::Abandonment;
    use zipnet_facts::RoundEnd;

    use super::*;

    #[test]
    fn slopes_are_those_of_the_nearest_line() {
        let line: Vec<_> = (0..10).map(|x| (f64::from(x), 7.0 + 2.0 * f64::from(x))).collect();
        assert!((slope(&line) - 2.0).abs() < 1e-9);
        assert!(slope(&[(0.0, 1.0), (1.0, 2.0), (2.0, 1.0)]).abs() < 1e-9);
        assert!(slope(&[]).abs() < 1e-9 && slope(&[(1.0, 5.0)]).abs() < 1e-9);
    }

    #[test]
    fn a_message_that_landed_must_stand_in_its_round() {
        let mut ledger = Ledger::default();
        let (kept, lost) = (vec![1; MESSAGE], vec![2; MESSAGE]);
        ledger.broadcasts.insert(7, BTreeSet::from([kept.clone()]));
        ledger.messages.insert((0, RequestId(1)), kept);
        ledger.fates.insert((0, RequestId(1)), (Outcome::Landed, 7));
        assert_eq!(ledger.settle(), (BTreeMap::from([("landed", 1)]), Vec::new()));
        ledger.messages.insert((1, RequestId(1)), lost);
        assert_eq!(ledger.pending(), 1);
        assert_eq!(ledger.settle().1, ["the fate of message 1 of client 1 is not known"]);
        ledger.fates.insert((1, RequestId(1)), (Outcome::Landed, 7));
        assert_eq!(ledger.settle().1, ["a message of client 1 landed in round 7, which does not hold it"]);
        ledger.fates.insert((0, RequestId(1)), (Outcome::Collided, 7));
        assert!(
            ledger
                .settle()
                .1
                .contains(&"a message of client 0 collided in round 7, which holds it".to_owned())
        );
    }

    #[test]
    fn rounds_are_timed_by_what_the_first_server_says() {
        let mut rounds = Rounds::default();
        let line = |at: &str, fact: Fact| {
            let mut line = serde_json::to_value(Account { seq: 0, node: None, fact }).expect("it is data");
            line["timestamp"] = at.into();
            line
        };
        let (log, header, server) = (LogId::default(), Digest::default(), PeerId::default());
        let opened = Fact::RoundOpened {
            log,
            round: Round(7),
            index: 4,
            header,
            servers: vec![server],
            clients: 3,
            min_participants: 2,
            aggregator: server,
        };
        let opened = line("2026-01-01T00:00:00.000000Z", opened);
        let end = RoundEnd {
            log,
            round: Round(7),
            index: 9,
            term: Some(1),
            header,
            record: header,
            previous: header,
            participants: 3,
            servers: vec![server],
            signed: vec![server],
            partials: vec![server],
        };
        let finalized = line("2026-01-01T00:00:00.250000Z", Fact::RoundFinalized { end });
        rounds.hear("server-2", &opened);
        rounds.hear("server-1", &opened);
        rounds.hear("server-1", &finalized);
        let abandoned = Fact::RoundAbandoned {
            round: Round(8),
            index: 12,
            header,
            reason: Abandonment::Unsigned,
            missing: vec![],
        };
        rounds.hear("server-1", &line("2026-01-01T00:00:01Z", abandoned));
        assert_eq!((rounds.finalized, rounds.abandoned, rounds.excused), (1, 1, 0));
        assert_eq!(rounds.participants_min, Some(3));
        assert!((249_000..=251_000).contains(&rounds.micros.value_at_quantile(0.5)));
    }
}
