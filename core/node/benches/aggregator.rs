//! What a client costs the aggregator in a round, as its node does it: a node at its full length, whose connections end
//! in memory. The network is left out, and nothing else.
//!
//! `cargo bench -p zipnet-node --bench aggregator` runs it; numbers behind `--` are other counts of clients. Two things
//! are shown: an envelope costs little more than reading it, and no more when there are more clients.
#![expect(clippy::print_stdout, reason = "prints what it measured")]
#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "it is the world, and has a clock")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_channel::mpsc;
use futures_util::StreamExt;
use openraft_rt::AsyncRuntime;
use openraft_rt_tokio::TokioRuntime;
use zipnet_core::bitmap::Bitmap;
use zipnet_core::checks::Strict;
use zipnet_core::id::{Counter, Epoch, GroupId, LogId, PeerId, RegistryVersion, Role, Round, StoreId};
use zipnet_core::instance::{Instance, machine_signature};
use zipnet_core::key::{Identity, NodeSecret, PublicKey, Signature};
use zipnet_core::message::{
    Bundle, Envelope, Header, HeaderSignature, LiveHeader, Message, Previous, RosterServer,
};
use zipnet_core::registry::ClientRegistry;
use zipnet_core::time::Time;
use zipnet_core::wire;
use zipnet_node::config::{AggregatorPart, Build, Config, Format, Part};
use zipnet_node::event::{Event, Observer};
use zipnet_node::frame::{Frame, Own, Present};
use zipnet_node::node::{control, run};
use zipnet_node::world::{Address, Channel, Connection, Disk, Link, LinkError, World};

/// How many rounds are timed; the fastest counts, since whatever else runs on the machine can only slow one down.
const ROUNDS: u64 = 12;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let named: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
    if !words.iter().any(|word| word == "--bench") {
        // `cargo test --benches`: whether it runs at all.
        measure(3, 1);
        return;
    }
    let counts = if named.is_empty() { vec![1000, 4000] } else { named };
    for clients in counts {
        let took = measure(clients, ROUNDS);
        let each = |time: Duration| time.as_nanos() / clients.max(1) as u128;
        let of = |part: Duration, whole: Duration| part.as_nanos() as f64 / whole.as_nanos().max(1) as f64;
        println!(
            "{clients} clients: per envelope {} ns; blake3 + XOR {} ns, {:.2} x that; XOR {} ns, {:.2} x that",
            each(took.envelopes),
            each(took.hash_and_xor),
            of(took.envelopes, took.hash_and_xor),
            each(took.xor),
            of(took.envelopes, took.xor),
        );
        println!(
            "  to show it the header {} ns, to take it in at the start {} ns",
            each(took.headers),
            each(took.links)
        );
    }
}

/// How long it took for all clients together.
struct Took {
    /// Until all were linked.
    links: Duration,
    /// From a live header to the last client's copy of it.
    headers: Duration,
    /// From the first envelope to the aggregate.
    envelopes: Duration,
    /// What cannot be done without if every envelope is digested.
    hash_and_xor: Duration,
    /// What cannot be done without.
    xor: Duration,
}

fn measure(clients: usize, rounds: u64) -> Took {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(play(clients, rounds))
}

async fn play(clients: usize, rounds: u64) -> Took {
    let instance = Instance::new("local:bench").expect("a name");
    let build = Build::CURRENT;
    let secret = Arc::new(NodeSecret::from_bytes([1; 32]));
    let server = Identity::from_secret(&NodeSecret::from_bytes([2; 32]));
    let aggregator = Identity::from_secret(&secret).peer();
    let config = Config {
        build,
        universe_name: "bench".to_owned(),
        universe: instance.id(),
        secret: Some(secret),
        bootstrap: Vec::new(),
        listen: Address("memory:0".to_owned()),
        advertise: None,
        state_dir: None,
        announce_interval: Duration::from_secs(60),
        strangers_max: zipnet_node::slots::STRANGERS_MAX,
        metrics: None,
        log_filter: String::new(),
        format: Format::default(),
        part: Part::Aggregator(AggregatorPart {
            fold_deadline: Duration::from_secs(60),
            pins: BTreeSet::from([server.peer()]),
        }),
        instance,
    };
    let hello = |role, peer: PeerId| {
        let own = Own {
            peer,
            role,
            instance: config.instance.id(),
            universe: config.universe,
            wire_version: build.wire_version,
            params: build.params,
            machine_signature: machine_signature(build.wire_version, build.machine_version, &build.params),
            committee_secret: None,
            incarnation: [7; 16],
        };
        let store = (role == Role::Server).then_some(StoreId(1));
        Frame::Hello(Box::new(own.hello(&[0; 32], &aggregator, Present { store, ..Present::default() })))
    };
    let world = Memory::new();
    let (said, mut heard) = mpsc::unbounded();
    let (to_server, connection) = Wire::new(server.peer(), Some(said), &world);
    for frame in [hello(Role::Server, server.peer()), Frame::Welcome] {
        to_server.unbounded_send((Channel::Control, frame.encode().into())).expect("the node is there");
    }
    world.arrive(connection);

    let bundles = registry(clients, &config);
    let (handle, controls) = control();
    let node = TokioRuntime::spawn({
        let (world, config) = (world.clone(), config.clone());
        async move { run(world, Strict, config, controls).await }
    });

    let start = Instant::now();
    let mut wires = Vec::new();
    for (peer, _) in bundles.iter() {
        let (wire, connection) = Wire::new(*peer, None, &world);
        for frame in [hello(Role::Client, *peer), Frame::Welcome] {
            wire.unbounded_send((Channel::Control, frame.encode().into())).expect("the node is there");
        }
        world.arrive(connection);
        wires.push(wire);
    }
    until(|| world.linked() == clients as u64 + 1).await;
    let links = start.elapsed();
    let log = LogId([3; 32]);
    let (version, counter) = (bundles.version(), bundles.counter());
    let registry = Message::Registry { log, version, counter, clients: bundles.bundles().to_vec() };
    say(&to_server, &registry);

    let bodies: Vec<Vec<u8>> = (0..clients).map(|number| body(number, &config)).collect();
    let mut acc = vec![0; build.params.vector_bytes()];
    let mut took = Took {
        links,
        headers: Duration::MAX,
        envelopes: Duration::MAX,
        hash_and_xor: Duration::MAX,
        xor: Duration::MAX,
    };
    for round in 1..=rounds {
        let live = live(Round(round), log, &server, aggregator, &bundles, &config);
        let header = live.header.digest();
        let shown = world.shown();
        let start = Instant::now();
        say(&to_server, &Message::Live(live));
        until(|| world.shown() == shown + clients as u64).await;
        took.headers = took.headers.min(start.elapsed());

        let envelopes: Vec<Bytes> = bodies
            .iter()
            .map(|body| {
                let (round, epoch, signature) = (Round(round), Epoch(1), Signature([9; 64]));
                let envelope = Envelope { log, round, header, epoch, body: body.clone(), signature };
                Bytes::from(wire::encode(&Message::Envelope(envelope)).to_vec())
            })
            .collect();
        let start = Instant::now();
        for (wire, envelope) in wires.iter().zip(envelopes) {
            wire.unbounded_send((Channel::Protocol, envelope)).expect("the node is there");
        }
        let aggregate = loop {
            if let Message::Aggregate(aggregate) = heard.next().await.expect("the node is there") {
                break aggregate;
            }
        };
        took.envelopes = took.envelopes.min(start.elapsed());
        assert_eq!(aggregate.participants.count_ones() as usize, clients, "everybody is in");
        say(&to_server, &Message::AggregateApplied { round: Round(round), header });

        let start = Instant::now();
        for body in &bodies {
            black_box(blake3::hash(body));
            xor(&mut acc, body);
        }
        took.hash_and_xor = took.hash_and_xor.min(start.elapsed());
        let start = Instant::now();
        for body in &bodies {
            xor(&mut acc, body);
        }
        took.xor = took.xor.min(start.elapsed());
        black_box(&mut acc);
    }
    handle.stop();
    drop(node.await);
    took
}

fn xor(acc: &mut [u8], body: &[u8]) {
    acc.iter_mut().zip(black_box(body)).for_each(|(byte, more)| *byte ^= more);
}

fn digest(what: u8, number: usize) -> [u8; 32] {
    *blake3::hash(&[&[what], number.to_le_bytes().as_slice()].concat()).as_bytes()
}

/// Nobody looks at the signatures: whoever takes a registry compares it with what the committee has signed.
fn registry(clients: usize, config: &Config) -> ClientRegistry {
    let bundle = |number| Bundle {
        peer: PeerId(digest(0, number)),
        role: Role::Client,
        instance: config.instance.id(),
        epoch: Epoch(1),
        round_key: PublicKey(digest(1, number)),
        floors: None,
        boot: None,
        signature: Signature::default(),
    };
    let mut bundles: Vec<Bundle> = (0..clients).map(bundle).collect();
    bundles.sort_by_key(|bundle| bundle.peer);
    ClientRegistry::from_parts(RegistryVersion(1), Counter(1), bundles).expect("they are in order")
}

fn body(number: usize, config: &Config) -> Vec<u8> {
    let mut body = vec![0; config.build.params.vector_bytes()];
    blake3::Hasher::new().update(&digest(2, number)).finalize_xof().fill(&mut body);
    body
}

fn live(
    round: Round,
    log: LogId,
    server: &Identity,
    aggregator: PeerId,
    clients: &ClientRegistry,
    config: &Config,
) -> LiveHeader {
    let peer = server.peer();
    let header = Header {
        log,
        round,
        nonce: [4; 32],
        group: GroupId([5; 32]),
        params: config.build.params,
        previous: Previous { round: Round(round.0 - 1), ..Previous::default() },
        servers: vec![RosterServer { peer, epoch: Epoch(1), round_key: PublicKey([6; 32]) }],
        clients: clients.set(),
        min_participants: 1,
        aggregator,
    };
    let mut signed = HeaderSignature {
        log,
        round,
        header: header.digest(),
        server: peer,
        refused: Bitmap::new(clients.len()),
        signature: Signature::default(),
    };
    signed.signature = server.sign(&signed.signed_digest());
    LiveHeader { header, signatures: vec![signed] }
}

fn say(wire: &mpsc::UnboundedSender<(Channel, Bytes)>, message: &Message) {
    let bytes = wire::encode(message).to_vec().into();
    wire.unbounded_send((Channel::Protocol, bytes)).expect("the node is there");
}

/// Lets the node work until something is so.
async fn until(is: impl Fn() -> bool) {
    while !is() {
        tokio::task::yield_now().await;
    }
}

/// A world whose peers are played.
#[derive(Clone, Debug)]
struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: Doors,
    disk: File,
    started: Instant,
    drawn: AtomicU64,
    linked: AtomicU64,
}

impl Memory {
    fn new() -> Self {
        let (sender, receiver) = mpsc::unbounded();
        let link = Doors {
            sender,
            receiver: Arc::new(tokio::sync::Mutex::new(receiver)),
            shown: Arc::new(AtomicU64::new(0)),
        };
        let (disk, started) = (File::default(), Instant::now());
        Self(Arc::new(Inner { link, disk, started, drawn: AtomicU64::new(0), linked: AtomicU64::new(0) }))
    }

    fn arrive(&self, connection: Wire) {
        self.0.link.sender.unbounded_send(connection).expect("the node listens");
    }

    /// How many peers were linked.
    fn linked(&self) -> u64 {
        self.0.linked.load(Ordering::Relaxed)
    }

    /// How many messages of the protocol clients were sent.
    fn shown(&self) -> u64 {
        self.0.link.shown.load(Ordering::Relaxed)
    }
}

impl World for Memory {
    type Runtime = TokioRuntime;
    type Link = Doors;
    type Disk = File;

    fn link(&self) -> &Doors {
        &self.0.link
    }

    fn disk(&self) -> &File {
        &self.0.disk
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.0.started.elapsed().as_nanos()).expect("it does not take centuries"))
    }

    fn wall_clock(&self) -> u64 {
        0
    }

    fn entropy(&self) -> [u8; 32] {
        digest(
            3,
            usize::try_from(self.0.drawn.fetch_add(1, Ordering::Relaxed)).expect("it is not drawn often"),
        )
    }
}

impl Observer for Memory {
    fn observe(&self, event: Event) {
        if matches!(event, Event::Linked { .. }) {
            self.0.linked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where connections come in.
#[derive(Clone, Debug)]
struct Doors {
    sender: mpsc::UnboundedSender<Wire>,
    receiver: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Wire>>>,
    shown: Arc<AtomicU64>,
}

impl Link for Doors {
    type Connection = Wire;

    fn address(&self) -> Address {
        Address("memory:1".to_owned())
    }

    async fn dial(&self, _: &Address) -> Result<Wire, LinkError> {
        Err(LinkError::Unreachable)
    }

    async fn accept(&self) -> Result<Wire, LinkError> {
        self.receiver.lock().await.next().await.ok_or(LinkError::Unreachable)
    }
}

type Arriving = mpsc::UnboundedReceiver<(Channel, Bytes)>;

/// A connection with a peer that is played.
#[derive(Clone, Debug)]
struct Wire {
    peer: PeerId,
    arriving: Arc<tokio::sync::Mutex<Arriving>>,
    /// Where messages of the protocol go; those for clients are counted.
    said: Option<mpsc::UnboundedSender<Message>>,
    shown: Arc<AtomicU64>,
}

impl Wire {
    fn new(
        peer: PeerId,
        said: Option<mpsc::UnboundedSender<Message>>,
        world: &Memory,
    ) -> (mpsc::UnboundedSender<(Channel, Bytes)>, Self) {
        let (sender, receiver) = mpsc::unbounded();
        let arriving = Arc::new(tokio::sync::Mutex::new(receiver));
        (sender, Self { peer, arriving, said, shown: Arc::clone(&world.0.link.shown) })
    }
}

impl Connection for Wire {
    fn peer(&self) -> PeerId {
        self.peer
    }

    fn exporter(&self) -> [u8; 32] {
        [0; 32]
    }

    fn dialled(&self) -> Option<Address> {
        None
    }

    fn send(&self, channel: Channel, message: Bytes) -> Result<(), LinkError> {
        match (&self.said, channel) {
            (Some(said), Channel::Protocol) => {
                let message = wire::decode(&message).map_err(|_| LinkError::TooLarge)?;
                said.unbounded_send(message).map_err(|_| LinkError::Closed(0))
            }
            (None, Channel::Protocol) => {
                self.shown.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn receive(&self) -> Result<(Channel, Bytes), LinkError> {
        self.arriving.lock().await.next().await.ok_or(LinkError::Closed(0))
    }

    fn close(&self, _: u32) {}
}

/// The only database of an aggregator. What else it keeps, it does not need again.
#[derive(Clone, Debug, Default)]
struct File(Arc<Mutex<Vec<u8>>>);

impl File {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("nobody panics while holding the lock")
    }
}

impl Disk for File {
    type Backend = Self;

    fn open(&self, _: &str) -> io::Result<Self> {
        Ok(self.clone())
    }

    fn exists(&self, _: &str) -> io::Result<bool> {
        Ok(!self.lock().is_empty())
    }

    fn set_aside(&self, _: &[&str]) -> io::Result<()> {
        self.lock().clear();
        Ok(())
    }

    fn read(&self, _: &str) -> io::Result<Option<String>> {
        Ok(None)
    }

    fn write(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
}

impl redb::StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        out.copy_from_slice(&self.lock()[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.lock().resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        self.lock()[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}
