//! How fast a run is: simulated seconds for each second of processor time, beside bare madsim that carries the same
//! messages between as many nodes; what the hash chain costs; and whether memory grows with simulated time.
//!
//! `cargo bench -p zipnet-sim --bench speed` runs it and needs no network; `-- --clients 4 --seed 7` has another number of
//! clients and another seed. Processor time comes from the operating system, whose clocks a simulation does not replace there.
//! Absolute numbers drift from machine to machine; the ratios do so far less.
#![expect(clippy::print_stdout, reason = "prints what it measured")]

use core::time::Duration;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::Command;
use std::sync::{Arc, Mutex};

use madsim::net::Endpoint;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use openraft_rt::AsyncRuntime;
use zipnet_core::checks::Strict;
use zipnet_core::id::{Role, UniqueId};
use zipnet_core::key::{Identity, NodeSecret};
use zipnet_core::machine::{Report, RequestId};
use zipnet_core::params::RoundParams;
use zipnet_core::time::Time;
use zipnet_node::config::{Build, Config};
use zipnet_node::event::Event;
use zipnet_node::node;
use zipnet_node::world::Address;
use zipnet_reports::properties::{Seen, Subject, Watch};
use zipnet_sim::chain::{Kind, Log, NodeIndex, Recorder};
use zipnet_sim::memory::{Remembering, Verdicts};
use zipnet_sim::network::{Delivery, NetworkConfig, Observer};
use zipnet_sim::runtime::SimRuntime;
use zipnet_sim::world::{Simulation, Sink, simulate};

const SERVERS: usize = 3;
const CLIENTS: usize = 24;
/// How much is simulated at a time.
const SHORT: u64 = 5 * 60;
/// Memory has to stay as it is for so much longer.
const LONG: u64 = 20 * 60;

/// One message, without what it says.
#[derive(Clone, Copy)]
struct Carried {
    at: Time,
    from: usize,
    to: usize,
    bytes: usize,
}

/// What is looked at in a run.
#[derive(Clone, Default)]
struct Look {
    /// Where deliveries are noted.
    carried: Option<Arc<Mutex<Vec<Carried>>>>,
    /// Where events are kept.
    observed: Option<Arc<Mutex<Vec<Event>>>>,
}

/// What came out of a run.
struct Ran {
    recorder: Recorder,
    /// Rounds of which some server made a record.
    rounds: u64,
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let number = |name: &str| {
        let place = words.iter().position(|word| word == name)?;
        words.get(place + 1)?.parse::<u64>().ok()
    };
    let clients = number("--clients").map_or(CLIENTS, |clients| usize::try_from(clients).unwrap_or(CLIENTS));
    let seed = number("--seed").unwrap_or(1);
    // A run by itself: a profile of it shows nothing else, and the most memory it used is its own.
    if let Some(seconds) = number("--only") {
        let (ran, used) = timed(|| cluster(seed, clients, seconds, &Look::default()));
        let chain: String = ran.recorder.chain()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{} {} {} {} {chain}", used.as_micros(), peak_kib(), ran.rounds, ran.recorder.events());
        return;
    }
    if words.iter().any(|word| word == "--bench") {
        compare(seed, clients);
    } else {
        // `cargo test --benches`: whether it runs at all.
        drop(cluster(seed, clients, 30, &Look::default()));
    }
}

fn compare(seed: u64, clients: usize) {
    println!("{SERVERS} servers, 1 aggregator, {clients} clients, {SHORT} simulated seconds, no faults");
    // First: a process inherits the peak of the one that starts it.
    for seconds in [SHORT, LONG] {
        if let Some(mebibytes) = peak_of_another(clients, seconds) {
            println!("  peak memory of a run of {seconds} simulated seconds: {mebibytes:.0} MiB");
        }
    }
    let look = Look { carried: Some(Arc::default()), observed: Some(Arc::default()) };
    drop(cluster(seed, clients, SHORT, &look));
    let carried = look.carried.map(|all| core::mem::take(&mut *lock(&all))).unwrap_or_default();
    let observed = look.observed.map(|all| core::mem::take(&mut *lock(&all))).unwrap_or_default();

    let (ran, ours) = timed(|| cluster(seed, clients, SHORT, &Look::default()));
    let bytes: usize = carried.iter().map(|one| one.bytes).sum();
    println!(
        "  {} rounds, {} messages of {} MiB, {} events in the chain",
        ran.rounds,
        carried.len(),
        bytes >> 20,
        ran.recorder.events()
    );
    print_speed("zipnet, all checks on", ours);

    let nodes = SERVERS + 1 + clients;
    let ((), bare) = timed(|| carry(nodes, &carried));
    print_speed("bare madsim, the same messages", bare);
    println!("  zipnet takes {:.2} times as long as bare madsim", ours.as_secs_f64() / bare.as_secs_f64());

    let ((), chain) = timed(|| chain_again(&ran.recorder, &carried));
    let ((), words) = timed(|| {
        for event in &observed {
            black_box(describe(event));
        }
    });
    println!(
        "  the chain is {:.1} % of the run: {:.0} ms for its bytes, {:.0} ms to put {} observations into words",
        100.0 * (chain + words).as_secs_f64() / ours.as_secs_f64(),
        chain.as_secs_f64() * 1e3,
        words.as_secs_f64() * 1e3,
        observed.len()
    );
}

fn print_speed(what: &str, used: Duration) {
    let speed = f64::from(u32::try_from(SHORT).unwrap_or(u32::MAX)) / used.as_secs_f64();
    println!("  {what}: {:.3} s of processor time, {speed:.0} simulated seconds each", used.as_secs_f64());
}

/// A process of this program that does one run and nothing else; the most memory it used.
fn peak_of_another(clients: usize, seconds: u64) -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    let (clients, seconds) = (clients.to_string(), seconds.to_string());
    let output = Command::new(program).args(["--clients", &clients, "--only", &seconds]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let kib: f64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// The cluster with its documented timings: nothing is configured but who belongs to it.
fn cluster(seed: u64, clients: usize, seconds: u64, look: &Look) -> Ran {
    let subjects: Arc<Mutex<BTreeMap<NodeIndex, Subject>>> = Arc::default();
    let watch = Mutex::new(Watch::default());
    let rounds = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    let (known, finalized, observed) = (Arc::clone(&subjects), Arc::clone(&rounds), look.observed.clone());
    let sink: Sink = Arc::new(move |index, now, event| {
        let known = lock(&known);
        let subject = known.get(&index).expect("every node is enrolled before it starts");
        if let Some(fact) = event.fact()
            && let Err(violation) = lock(&watch).see(now, subject, Seen::Fact(&fact))
        {
            panic!("violated: {}: {}", violation.property, violation.detail);
        }
        if let Event::Core(Report::RoundFinalized { record, .. }) = event {
            lock(&finalized).insert(record.round);
        }
        if let Some(observed) = &observed {
            lock(observed).push(event.clone());
        }
    });
    let recorder = Recorder::new(Log::Off);
    let look = look.clone();
    simulate(seed, NetworkConfig::default(), recorder.clone(), sink, |simulation| async move {
        if let Some(carried) = look.carried {
            simulation.network().observe(note_into(carried));
        }
        run_cluster(&simulation, clients, seconds, &subjects).await;
    });
    let rounds = u64::try_from(lock(&rounds).len()).unwrap_or(u64::MAX);
    Ran { recorder, rounds }
}

fn note_into(carried: Arc<Mutex<Vec<Carried>>>) -> Observer {
    Arc::new(move |Delivery { at, from, to, message, .. }: &Delivery| {
        let place = |node: &NodeIndex| usize::try_from(node.0).expect("nodes are few");
        lock(&carried).push(Carried { at: *at, from: place(from), to: place(to), bytes: message.len() });
    })
}

async fn run_cluster(
    simulation: &Simulation,
    clients: usize,
    seconds: u64,
    subjects: &Mutex<BTreeMap<NodeIndex, Subject>>,
) {
    let roles = (0..SERVERS + 1 + clients).map(|place| match place {
        0..SERVERS => Role::Server,
        SERVERS => Role::Aggregator,
        _ => Role::Client,
    });
    let (mut hosts, mut handles, mut bootstrap) = (Vec::new(), Vec::new(), None);
    let verdicts = Verdicts::default();
    for (place, role) in roles.enumerate() {
        let name = format!("{}-{place}", role.name());
        let secret = UniqueId::from_text(&format!("the secret of {name}"));
        let peer = Identity::from_secret(&NodeSecret::from_bytes(secret.0)).peer();
        let address = Address(format!("{name}:7000"));
        let mut env = BTreeMap::from([
            ("ZIPNET_INSTANCE".to_owned(), "acme.bench".to_owned()),
            ("ZIPNET_SECRET".to_owned(), secret.to_string()),
        ]);
        if role == Role::Server {
            env.insert("ZIPNET_COMMITTEE_SECRET".to_owned(), "11".repeat(32));
            env.insert("ZIPNET_MIN_PARTICIPANTS".to_owned(), "2".to_owned());
            env.insert("ZIPNET_ROUND_PERIOD".to_owned(), "3s".to_owned());
            env.insert("ZIPNET_ROUND_DEADLINE".to_owned(), "15s".to_owned());
        }
        let first = bootstrap.get_or_insert_with(|| format!("{peer}@{address}"));
        if place > 0 {
            env.insert("ZIPNET_BOOTSTRAP".to_owned(), first.clone());
        }
        let build = Build { params: RoundParams::DEFAULT, wire_version: 1, machine_version: 1 };
        let (config, _) = Config::from_env(role, &env, build).expect("the variables are right");
        let mut host = simulation.host(&name, address, peer);
        lock(subjects).insert(host.index(), Subject { node: place, name, peer, role, liar: false });
        let (handle, controls) = node::control();
        let checks = Remembering::new(Strict, verdicts.clone());
        drop(host.start(move |world| node::run(world, checks, config, controls)));
        hosts.push(host);
        handles.push((role, handle));
    }
    let mut publishers = handles.iter().filter(|(role, _)| *role == Role::Client).cycle();
    for second in 0..seconds {
        SimRuntime::sleep(Duration::from_secs(1)).await;
        if let Some((_, handle)) = publishers.next() {
            handle.publish(RequestId(second), format!("hello {second}").into_bytes());
        }
    }
}

/// Sends messages of these sizes at these times between as many nodes, with nothing but madsim.
fn carry(nodes: usize, carried: &[Carried]) {
    // Forgets the nodes of earlier runs; without any, nothing is recorded.
    let mut runtime = SimRuntime::for_seed(0);
    let largest = carried.iter().map(|one| one.bytes).max().unwrap_or(0);
    let address = |node: usize| format!("10.0.0.{}:1", node + 1);
    runtime.block_on(async {
        let mut senders = Vec::new();
        for node in 0..nodes {
            let own: Vec<Carried> = carried.iter().filter(|one| one.from == node).copied().collect();
            let address_of_own = address(node);
            let machine = madsim::runtime::Handle::current()
                .create_node()
                .ip(address_of_own.trim_end_matches(":1").parse().expect("an address of four numbers"))
                .build();
            let addresses: Vec<String> = (0..nodes).map(address).collect();
            senders.push(machine.spawn(async move {
                let endpoint = Arc::new(Endpoint::bind(address_of_own).await.expect("nobody else has it"));
                let receiver = Arc::clone(&endpoint);
                drop(madsim::task::spawn(async move {
                    let mut buffer = vec![0; largest];
                    while receiver.recv_from(1, &mut buffer).await.is_ok() {}
                }));
                let content = vec![7; largest];
                // Every node has to listen before the first message.
                SimRuntime::sleep(Duration::from_millis(10)).await;
                for one in own {
                    let now = zipnet_sim::runtime::now();
                    if one.at > now {
                        SimRuntime::sleep(one.at.since(now)).await;
                    }
                    let to = addresses[one.to].as_str();
                    endpoint.send_to(to, 1, &content[..one.bytes]).await.expect("the network is whole");
                }
            }));
        }
        for sender in senders {
            sender.await.expect("senders do not panic");
        }
    });
}

/// Puts as many events of the same size into a chain: each message when it is sent and when it is delivered, everything
/// else without a body of length.
fn chain_again(ran: &Recorder, carried: &[Carried]) {
    let recorder = Recorder::new(Log::Off);
    let largest = carried.iter().map(|one| one.bytes).max().unwrap_or(0);
    let content = vec![7; largest];
    let mut left: u64 = ran.events();
    for one in carried {
        for kind in [Kind::Sent, Kind::Delivered] {
            recorder.record(
                one.at,
                NodeIndex(0),
                kind,
                &[&[0; 16], &[0], &content[..one.bytes]],
                String::new,
            );
            left = left.saturating_sub(1);
        }
    }
    let (at, small) = (carried.last().map_or(Time(0), |one| one.at), [0; 64]);
    for _ in 0..left {
        recorder.record(at, NodeIndex(0), Kind::Timer, &[&small], String::new);
    }
    black_box(recorder.chain());
}

/// What the chain takes of an observation.
fn describe(event: &Event) -> String {
    format!("{event:?}")
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = processor_time();
    let result = work();
    (result, processor_time().saturating_sub(before))
}

fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the system counts processor time");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// The most memory that this process had in use.
fn peak_kib() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
