//! A committee that goes on while others do their worst: strangers on the network, and nodes that lie with real keys.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use zipnet_core::bitmap::Bitmap;
use zipnet_core::id::{
    Counter, Epoch, LogId, RaftId, RegistryVersion, Role, Round, StoreId, UNIVERSE, UniqueId,
};
use zipnet_core::instance::machine_signature;
use zipnet_core::key::{CommitteeSecret, Identity, NodeSecret, PublicKey, Signature};
use zipnet_core::message::{Command, Header, HeaderSignature, LiveHeader, Message, RosterServer};
use zipnet_core::params::RoundParams;
use zipnet_core::wire;
use zipnet_node::config::Build;
use zipnet_node::consensus::codec::{self, Request};
use zipnet_node::consensus::types::{Entry, LogId as EntryId, Membership, Payload, Vote};
use zipnet_node::consensus::{self, NodeId};
use zipnet_node::frame::{FRAME_BYTES_MAX, Frame, Hello, Own, Present, Refusal};
use zipnet_node::gossip::book::PeerEntry;
use zipnet_node::meeting::YIELDS_MAX;
use zipnet_node::world::{Address, Channel, Connection, Link, LinkError};
use zipnet_world::disk::Folder;
use zipnet_world::network::{Limits, QuicConnection, QuicLink};

use support::{COMMITTEE_SECRET, Instance, NAME, Node, PATIENCE, secret_of, until};
use world::{Task, Watch};

#[expect(dead_code, reason = "each file of tests uses a part of it")]
#[path = "support/processes.rs"]
mod support;
#[expect(dead_code, reason = "each file of tests uses a part of it")]
#[path = "../world/tests/support/world.rs"]
mod world;

/// What a node of [`Instance`] holds strangers to.
const LIMITS: Limits = Limits { vector_bytes: 16 << 10 };

/// Somebody on the network who knows what is public, and perhaps more.
struct Attacker {
    own: Own,
    identity: Identity,
    link: QuicLink,
}

impl Attacker {
    /// Call it within a runtime.
    fn new(name: &str, role: Role, committee_secret: Option<&str>) -> Self {
        Self::from(Ipv4Addr::LOCALHOST, name, role, committee_secret)
    }

    /// Who speaks from this address of the loopback network.
    fn from(address: Ipv4Addr, name: &str, role: Role, committee_secret: Option<&str>) -> Self {
        let identity = identity(name);
        let build = Build::CURRENT;
        let instance = zipnet_core::instance::Instance::new(NAME).expect("it is a name");
        let own = Own {
            peer: identity.peer(),
            role,
            instance: instance.id(),
            universe: UNIVERSE,
            wire_version: build.wire_version,
            params: RoundParams::DEFAULT,
            machine_signature: machine_signature(build.wire_version, build.machine_version, &build.params),
            committee_secret: committee_secret
                .map(|secret| Arc::new(CommitteeSecret::from_text(secret, &instance))),
            incarnation: [7; 16],
        };
        let link =
            QuicLink::bind(&identity, (address, 0).into(), None, LIMITS).expect("loopback has free ports");
        Self { own, identity, link }
    }

    async fn dial(&self, to: &Address) -> QuicConnection {
        // Under attack a handshake may take its time.
        for _ in 0..20 {
            if let Ok(connection) = self.link.dial(to).await {
                return connection;
            }
        }
        panic!("{to} does not answer any more");
    }

    fn hello(&self, connection: &QuicConnection) -> Hello {
        let server = self.own.role == Role::Server;
        let address = server.then(|| self.link.address());
        let store = server.then_some(StoreId(77));
        let present = Present { store, address, ..Present::default() };
        self.own.hello(&connection.exporter(), &connection.peer(), present)
    }

    /// Dials, and is let in unless the node is away or going.
    async fn try_enter(&self, to: &Address) -> Option<QuicConnection> {
        let connection = self.link.dial(to).await.ok()?;
        let hello = Frame::Hello(Box::new(self.hello(&connection)));
        connection.send(Channel::Control, hello.encode().into()).ok()?;
        loop {
            let (channel, frame) = connection.receive().await.ok()?;
            if channel == Channel::Control && matches!(Frame::decode(&frame), Ok(Frame::Welcome)) {
                break;
            }
        }
        connection.send(Channel::Control, Frame::Welcome.encode().into()).ok()?;
        Some(connection)
    }

    /// Dials and is let in.
    async fn enter(&self, to: &Address) -> QuicConnection {
        let connection = self.dial(to).await;
        say(&connection, &Frame::Hello(Box::new(self.hello(&connection))));
        loop {
            match hear(&connection).await {
                Ok((Channel::Control, frame)) => match Frame::decode(&frame) {
                    Ok(Frame::Welcome) => break,
                    Ok(Frame::HelloRefused { reason }) => panic!("refused: {reason}"),
                    _ => {}
                },
                Ok(_) => {}
                Err(error) => panic!("failed to {error}"),
            }
        }
        say(&connection, &Frame::Welcome);
        connection
    }
}

fn identity(name: &str) -> Identity {
    Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text(&secret_of(name)).0))
}

fn say(connection: &QuicConnection, frame: &Frame) {
    connection.send(Channel::Control, frame.encode().into()).expect("it is open");
}

async fn hear(connection: &QuicConnection) -> Result<(Channel, Bytes), LinkError> {
    timeout(PATIENCE, connection.receive()).await.expect("a node says something, or closes")
}

/// Waits until the node has closed the connection.
async fn shown_out(connection: &QuicConnection) {
    while hear(connection).await.is_ok() {}
}

fn address(node: &Node) -> Address {
    Address(node.peer.split('@').nth(1).expect("it is up").to_owned())
}

/// Bytes that mean nothing, the same in every run.
fn rubbish(len: usize, seed: u32) -> Bytes {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect::<Vec<_>>().into()
}

/// A refusal by its kind and reason.
fn counted(node: &Node, kind: &str, reason: &str) -> u64 {
    node.metric("zipnet_rejected_total", &format!("kind=\"{kind}\",reason=\"{reason}\""))
}

fn wait_counted(node: &Node, kind: &str, reason: &str, least: u64) {
    until(&format!("{least} of {kind} {reason} at {}", node.name), || {
        (counted(node, kind, reason) >= least).then_some(())
    });
}

/// Memory of a process in MiB.
fn memory(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.process().id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("it is a number") / 1024
}

#[test]
fn strangers_do_not_stop_a_committee() {
    let instance = Instance::start(3, |_| {});
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let target = &instance.servers[instance.leader()];
    let to = address(target);
    let stranger = Attacker::new("stranger", Role::Client, None);

    // A thousand connections that say nothing, from four addresses.
    let before = memory(target);
    let silent: Vec<_> = (0..200_u8)
        .map(|number| {
            let address = Ipv4Addr::new(127, 0, 0, 2 + number % 4);
            let one = Attacker::from(address, &format!("silent-{number}"), Role::Client, None);
            let to = to.clone();
            runtime.spawn(async move {
                let mut connections = Vec::new();
                for _ in 0..5 {
                    connections.push(one.dial(&to).await);
                }
                connections
            })
        })
        .collect();
    instance.wait_rounds(2);
    let silent: Vec<QuicConnection> = runtime
        .block_on(async { futures_util::future::join_all(silent).await })
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    assert_eq!(silent.len(), 1_000);
    let (during, allowed) = (memory(target), 400);
    assert!(during < before + allowed, "from {before} MiB to {during} MiB");
    wait_counted(target, "hello", "overdue", 1_000);
    runtime.block_on(async {
        for connection in &silent {
            shown_out(connection).await;
        }
    });
    drop(silent);
    instance.wait_rounds(2);

    // Whoever says hello with rubbish, or half a hello.
    let malformed = counted(target, "hello", "malformed");
    let refused: Vec<_> = runtime.block_on(async {
        let mut refused = Vec::new();
        for seed in 0..20 {
            let one = Attacker::new(&format!("rubbish-{seed}"), Role::Client, None);
            let connection = one.dial(&to).await;
            connection.send(Channel::Control, rubbish(64 * seed as usize + 1, seed)).unwrap();
            refused.push(connection);
        }
        let hello = Frame::Hello(Box::new(stranger.hello(&refused[0]))).encode();
        for len in [0, 1, 2, hello.len() / 2, hello.len() - 1] {
            let connection = stranger.dial(&to).await;
            connection.send(Channel::Control, Bytes::copy_from_slice(&hello[..len])).unwrap();
            refused.push(connection);
        }
        refused
    });
    wait_counted(target, "hello", "malformed", malformed + 25);
    runtime.block_on(async {
        for connection in &refused {
            shown_out(connection).await;
        }
    });

    // Whatever is sent before a hello, on any channel, is not even looked at; what is too long ends it.
    runtime.block_on(async {
        for (seed, channel) in
            [Channel::Consensus, Channel::Bulk, Channel::Protocol, Channel::Datagram].into_iter().enumerate()
        {
            let connection = stranger.dial(&to).await;
            for len in [0, 1, 100, 1_000] {
                connection.send(channel, rubbish(len, u32::try_from(seed).unwrap())).unwrap();
            }
            if channel != Channel::Datagram {
                connection.send(channel, rubbish(1 << 20, 1)).unwrap();
                shown_out(&connection).await;
            }
        }
        let connection = stranger.dial(&to).await;
        connection.send(Channel::Control, rubbish(FRAME_BYTES_MAX + 1, 1)).unwrap();
        shown_out(&connection).await;
    });
    wait_counted(target, "link", "too-long", 4);

    // A client that is let in, and talks rubbish then.
    let connection = runtime.block_on(async {
        let connection = stranger.enter(&to).await;
        for seed in 0..10 {
            connection.send(Channel::Protocol, rubbish(10 + 100 * seed as usize, seed)).unwrap();
            connection.send(Channel::Consensus, rubbish(100, seed)).unwrap();
            connection.send(Channel::Bulk, rubbish(100, seed)).unwrap();
            connection.send(Channel::Datagram, rubbish(100, seed)).unwrap();
        }
        // Where others are, which no client is asked.
        let entry =
            PeerEntry::sign(&stranger.identity, stranger.own.instance, Role::Server, Some(to.clone()), 1);
        say(&connection, &Frame::Peers { entries: vec![entry] });
        // Datagrams may be lost, and are dropped first.
        while counted(target, "gossip", "wrong-role") == 0 {
            sleep(Duration::from_millis(50)).await;
            connection.send(Channel::Datagram, rubbish(100, 1)).unwrap();
        }
        connection
    });
    // Channels are independent: what ends the connection may overtake the rest.
    wait_counted(target, "message", "malformed", 10);
    wait_counted(target, "consensus", "wrong-role", 20);
    wait_counted(target, "peer-entry", "wrong-role", 1);
    connection.send(Channel::Control, rubbish(100, 4)).unwrap();
    runtime.block_on(shown_out(&connection));
    wait_counted(target, "hello", "malformed", malformed + 26);
    instance.wait_rounds(2);
    servers_that_are_none(&instance, &runtime, target);
}

#[test]
fn strangers_take_no_room_of_those_who_belong_here() {
    let mut instance = Instance::new(3, |node| {
        if node.role != "client" {
            node.variables.insert("ZIPNET_STRANGERS_MAX".to_owned(), "8".to_owned());
        }
        if node.name == "client-3" {
            node.variables.insert("ZIPNET_MESSAGE".to_owned(), "late, and heard".to_owned());
        }
    });
    let mut late = instance.clients.pop().unwrap();
    instance.start_all();
    late.variables.insert("ZIPNET_BOOTSTRAP".to_owned(), instance.servers[0].peer.clone());
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();

    // Clients that never register fill what strangers have, at whoever is asked first and at the aggregator.
    let targets = [address(&instance.servers[0]), address(&instance.aggregator)];
    let number = AtomicU64::new(0);
    let stranger = |host: u8| {
        let name = format!("stranger-{}", number.fetch_add(1, Ordering::Relaxed));
        Attacker::from(Ipv4Addr::new(127, 0, 0, host), &name, Role::Client, None)
    };
    let refused = |stranger: &Attacker, to: &Address| {
        runtime.block_on(async {
            let connection = stranger.dial(to).await;
            say(&connection, &Frame::Hello(Box::new(stranger.hello(&connection))));
            loop {
                let (_, frame) = hear(&connection).await.expect("a reason comes before the end");
                match Frame::decode(&frame) {
                    Ok(Frame::HelloRefused { reason }) => break reason,
                    Ok(Frame::Welcome) => panic!("it was let in"),
                    _ => {}
                }
            }
        })
    };
    let mut here = Vec::new();
    for to in &targets {
        for host in [11, 11, 12, 12, 13, 13, 14, 14] {
            let one = stranger(host);
            // Clients that have just registered stand among the strangers for a moment.
            let connection = until("a place", || runtime.block_on(one.try_enter(to)));
            here.push((one, connection));
            if here.len() % targets.len() == 0 && host == 11 {
                assert_eq!(refused(&stranger(11), to), Refusal::Full, "from the same address");
            }
        }
        assert_eq!(refused(&stranger(15), to), Refusal::Full);
    }
    for node in [&instance.servers[0], &instance.aggregator] {
        wait_counted(node, "link", "address-full", 1);
        wait_counted(node, "link", "strangers-full", 1);
    }

    // Whoever is registered comes back all the same, and rounds need both clients and all servers.
    for killed in 0..2 {
        let node = if killed == 0 { &mut instance.servers[1] } else { &mut instance.clients[0] };
        node.process_mut().kill();
        node.start();
        instance.wait_rounds(2);
    }
    // A client that nobody knows waits until there is room, and is told why.
    late.start();
    late.process().wait_for(0, "why it is not let in", |line| {
        line.event == "refused-by-peer" && line.message.contains("reason=full;")
    });
    drop(here);
    late.process().wait_text("message landed");

    // One peer has few connections, whoever it is.
    let one = stranger(16);
    let many = runtime.block_on(async {
        let mut many = Vec::new();
        for _ in 0..12 {
            many.push(one.dial(&targets[0]).await);
        }
        many
    });
    wait_counted(&instance.servers[0], "link", "peer-full", 4);
    drop(many);
}

/// Those who claim to be servers: without the secret, with the word of others, and with the secret.
fn servers_that_are_none(instance: &Instance, runtime: &Runtime, target: &Node) {
    let to = address(target);
    let refused = counted(target, "hello", "group-proof");
    let insider = Attacker::new("insider", Role::Server, Some(COMMITTEE_SECRET));
    // They live until what they say was judged.
    let attack = runtime.block_on(async {
        let guesser = Attacker::new("guesser", Role::Server, Some("a guess at the committee secret"));
        let guessed = guesser.dial(&to).await;
        say(&guessed, &Frame::Hello(Box::new(guesser.hello(&guessed))));
        // A hello that was right on another connection, said again by the same node and by another.
        let first = insider.dial(&to).await;
        let hello = Frame::Hello(Box::new(insider.hello(&first)));
        let second = insider.dial(&to).await;
        say(&second, &hello);
        let thief = Attacker::new("thief", Role::Server, None);
        let third = thief.dial(&to).await;
        say(&third, &hello);
        ([guessed, first, second, third], guesser, thief)
    });
    wait_counted(target, "hello", "group-proof", refused + 3);
    drop(attack);
    instance.wait_rounds(2);

    // A server of the committee's own that has gone mad. Another may lead by now.
    let target = &instance.servers[instance.leader()];
    let to = address(target);
    let others: Vec<_> = instance.servers.iter().filter(|server| server.name != target.name).collect();
    let attack = runtime.block_on(async {
        let connection = insider.enter(&to).await;
        for seed in 0..10 {
            connection.send(Channel::Consensus, rubbish(50 + 100 * seed as usize, seed)).unwrap();
            connection.send(Channel::Bulk, rubbish(50 + 100 * seed as usize, seed)).unwrap();
        }
        // The leader sends it the log, and it hands on to the others, as its own, what the leader says.
        let led = async {
            loop {
                let (channel, message) = connection.receive().await.expect("the leader keeps it");
                if channel == Channel::Consensus
                    && let Ok(codec::Frame::Request(_, Request::Append { .. })) =
                        codec::decode_frame(&message)
                {
                    return message;
                }
            }
        };
        let led = timeout(PATIENCE, led).await.expect("the leader sends the log to a server that joins");
        let mut connections = vec![connection];
        for other in &others {
            let connection = insider.enter(&address(other)).await;
            connection.send(Channel::Consensus, led.clone()).unwrap();
            connection.send(Channel::Consensus, led.slice(..led.len() / 2)).unwrap();
            connections.push(connection);
        }
        connections
    });
    wait_counted(target, "consensus", "malformed", 20);
    for other in others {
        wait_counted(other, "consensus", "impersonation", 1);
        wait_counted(other, "consensus", "malformed", 1);
    }
    drop(attack);
    instance.wait_rounds(2);
}

/// Variables of a node as they are for a process, for a node within this one.
fn variables_of(node: &Node, instance: &Instance) -> BTreeMap<String, String> {
    let mut variables = node.variables.clone();
    variables.insert("ZIPNET_BOOTSTRAP".to_owned(), instance.servers[0].peer.clone());
    variables
}

#[test]
fn lies_with_real_keys_are_refused_or_come_to_nothing() {
    let mut instance = Instance::start(2, |node| {
        if node.name == "client-1" {
            node.variables.insert("ZIPNET_MESSAGE".to_owned(), "the first message".to_owned());
        }
    });
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();

    // A client that seals two envelopes for each round, and later none.
    let (mute, sealed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let liar = Instance::new(3, |_| {}).clients.remove(2);
    let key = identity("client-3");
    let watch: Watch = {
        let (mute, sealed) = (Arc::clone(&mute), Arc::clone(&sealed));
        Arc::new(move |_, channel, message| {
            let (Channel::Protocol, Ok(Message::Envelope(envelope))) = (channel, wire::decode(message))
            else {
                return None;
            };
            sealed.fetch_add(1, Ordering::Relaxed);
            if mute.load(Ordering::Relaxed) {
                return Some(Vec::new());
            }
            let mut second = envelope;
            second.body[0] ^= 1;
            second.signature = key.sign(&second.signed_digest());
            let second = wire::encode(&Message::Envelope(second)).to_vec();
            Some(vec![message.clone(), second.into()])
        })
    };
    let disk = Folder::open(&instance.folder().join("liar")).unwrap();
    let liar = Task::start(Role::Client, &variables_of(&liar, &instance), disk, watch, Arc::new(|_| {}));
    wait_counted(&instance.aggregator, "envelope", "equivocation", 3);
    let opened = instance.servers[0].metric("zipnet_rounds_finalized_total", "");
    instance.wait_rounds(2);
    assert!(instance.servers[0].metric("zipnet_rounds_finalized_total", "") > opened);
    mute.store(true, Ordering::Relaxed);
    // The message of an honest client has landed all the same.
    instance.clients[0].process().wait_for(0, "its message to land", |line| {
        line.event == "published" && line.message.contains("message landed request=0")
    });

    // An aggregator that lies about who takes part. With the same keys, since the servers approve no other.
    instance.aggregator.process().signal(Signal::SIGTERM);
    assert_eq!(instance.aggregator.process_mut().code(), 0);
    let key = identity("aggregator-1");
    let forged = Arc::new(AtomicU64::new(0));
    let watch: Watch = {
        let forged = Arc::clone(&forged);
        Arc::new(move |_, channel, message| {
            let (Channel::Protocol, Ok(Message::Aggregate(honest))) = (channel, wire::decode(message)) else {
                return None;
            };
            let everybody = honest.participants.len();
            let lie = |participants: Bitmap| {
                let mut lie = honest.clone();
                lie.participants = participants;
                lie.signature = key.sign(&lie.digest());
                Bytes::from(wire::encode(&Message::Aggregate(lie)).to_vec())
            };
            let ones = |len: u32, count: u32| Bitmap::from_ones(len, 0..count).expect("within the length");
            match honest.round.0 % 3 {
                // Everybody is said to be in, also who has sent nothing.
                0 => {
                    if honest.participants.count_ones() < everybody {
                        forged.fetch_max(honest.round.0, Ordering::Relaxed);
                    }
                    Some(vec![lie(ones(everybody, everybody))])
                }
                // Only one is, so that everybody could read what it wrote.
                1 => Some(vec![lie(ones(everybody, 1)), message.clone()]),
                // More are than there are.
                _ => Some(vec![lie(ones(everybody + 1, everybody + 1)), message.clone()]),
            }
        })
    };
    let disk = Folder::open(&instance.folder().join("lying-aggregator")).unwrap();
    let variables = variables_of(&instance.aggregator, &instance);
    let aggregator = Task::start(Role::Aggregator, &variables, disk, watch, Arc::new(|_| {}));
    let sum = |reason: &str| {
        instance.servers.iter().map(|server| counted(server, "aggregate", reason)).sum::<u64>()
    };
    until("aggregates of one to be refused", || (sum("too-few-participants") >= 2).then_some(()));
    until("aggregates of too many to be refused", || (sum("wrong-length") >= 2).then_some(()));
    let round = until("a forged round", || match forged.load(Ordering::Relaxed) {
        0 => None,
        round => Some(round),
    });
    // It is garbled: nobody reads anything in it, and the next ones are made.
    let server = instance.servers[0].process();
    let line = server.wait_for(0, "the forged round", |line| {
        line.event == "round-finalized" && line.field("round") == Some(&*format!("r{round}"))
    });
    assert_eq!(line.1.field("participants"), Some("3"), "{}", line.1.raw);
    let landed = |line: &support::Line| {
        line.event == "published"
            && line.message.contains("landed")
            && line.field("round") == Some(&*format!("r{round}"))
    };
    assert!(!instance.clients[0].process().lines().iter().any(landed));
    instance.wait_rounds(4);
    let alone = instance.servers.iter().flat_map(|server| server.process().lines());
    let alone: Vec<_> = alone.filter(|line| line.field("participants") == Some("1")).collect();
    assert!(alone.is_empty(), "{alone:?}");
    assert!(sealed.load(Ordering::Relaxed) > 0);
    runtime.block_on(async {
        assert_eq!(aggregator.stop().await.code, 0);
        assert_eq!(liar.stop().await.code, 0);
    });
}

/// A hello of somebody who is no server, about a log with records.
fn hello_about_a_log(stranger: &Attacker, connection: &QuicConnection) -> Frame {
    let mut hello = stranger.hello(connection);
    hello.log = Some(LogId([0; 32]));
    hello.has_records = true;
    Frame::Hello(Box::new(hello))
}

/// Says such hellos to a node until the task is dropped.
fn pester(runtime: &Runtime, name: &str, role: Role, to: Address) -> tokio::task::JoinHandle<()> {
    let stranger = Attacker::new(name, role, None);
    runtime.spawn(async move {
        loop {
            if let Ok(connection) = stranger.link.dial(&to).await {
                let hello = hello_about_a_log(&stranger, &connection);
                // The node may have closed it already.
                connection.send(Channel::Control, hello.encode().into()).unwrap_or_default();
                sleep(Duration::from_millis(30)).await;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
}

#[test]
fn strangers_that_speak_of_a_log_end_no_server_without_a_leader() {
    let mut instance = Instance::start(2, |_| {});
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let leader = instance.leader();
    let mut tasks = Vec::new();
    for server in &instance.servers {
        for (number, role) in [Role::Client, Role::Aggregator].into_iter().enumerate() {
            let name = format!("stranger {number} of {}", server.name);
            tasks.push(pester(&runtime, &name, role, address(server)));
        }
    }
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    for other in &others {
        wait_counted(&instance.servers[*other], "hello", "malformed", 20);
    }
    // Nobody leads while the others elect, and then while two of three are away.
    instance.servers[leader].process_mut().kill();
    instance.servers[others[0]].process_mut().kill();
    let last = &mut instance.servers[others[1]];
    assert_eq!(last.process_mut().ended_within(Duration::from_secs(12)), None, "{}", last.process().tail());
    // Nor does a server know a leader when it starts.
    for number in [leader, others[0]] {
        instance.servers[number].start();
    }
    instance.wait_rounds(2);
    for task in tasks {
        task.abort();
    }
    for server in &instance.servers {
        let odd = |line: &&support::Line| ["log-yielded", "exiting"].contains(&line.event.as_str());
        assert!(server.process().lines().iter().find(odd).is_none(), "{}", server.process().tail());
    }
}

#[test]
fn strangers_that_speak_of_a_log_take_none_from_fresh_servers() {
    let mut instance = Instance::new(2, |_| {});
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let mut bootstrap: Option<String> = None;
    let mut tasks = Vec::new();
    for node in &mut instance.servers {
        if let Some(bootstrap) = &bootstrap {
            node.variables.insert("ZIPNET_BOOTSTRAP".to_owned(), bootstrap.clone());
        }
        node.start();
        let name = format!("stranger of {}", node.name);
        tasks.push(pester(&runtime, &name, Role::Client, address(node)));
        bootstrap.get_or_insert_with(|| node.peer.clone());
    }
    instance.leader();
    for server in &instance.servers {
        wait_counted(server, "hello", "malformed", 50);
    }
    for node in instance.nodes_mut().skip(3) {
        node.variables.insert("ZIPNET_BOOTSTRAP".to_owned(), bootstrap.clone().unwrap());
        node.start();
    }
    instance.wait_rounds(2);
    for task in tasks {
        task.abort();
    }
    for server in &instance.servers {
        let yielded = |line: &&support::Line| line.event == "log-yielded";
        assert!(server.process().lines().iter().find(yielded).is_none(), "{}", server.process().tail());
    }
}

/// Leads a server that has given up its log for this one into another one that has no rounds.
async fn lead_astray(leader: &Attacker, victim: &Node, number: u8) -> QuicConnection {
    let mut store = None;
    // What gave up its log may still be on its way out.
    let connection = 'entered: loop {
        let connection = leader.dial(&address(victim)).await;
        let hello = Frame::Hello(Box::new(leader.hello(&connection)));
        connection.send(Channel::Control, hello.encode().into()).unwrap_or_default();
        while let Ok((channel, frame)) = hear(&connection).await {
            match Frame::decode(&frame) {
                Ok(Frame::Hello(hello)) if channel == Channel::Control => store = hello.store,
                Ok(Frame::Welcome) if channel == Channel::Control => break 'entered connection,
                _ => {}
            }
        }
    };
    say(&connection, &Frame::Welcome);
    let me = RaftId { peer: leader.own.peer, store: StoreId(77) };
    let follower = RaftId { peer: identity(&victim.name).peer(), store: store.expect("a server has a disk") };
    let voters = [me, follower].map(NodeId).into();
    let at = |index| EntryId::new_term_index(1, index);
    let start = wire::encode_command(&Command::StartLog { log: LogId([number; 32]) }).to_vec();
    let entries = vec![
        Entry {
            log_id: at(0),
            payload: Payload::Membership(Membership::new_with_defaults(vec![voters], [])),
        },
        Entry { log_id: at(1), payload: Payload::Normal(consensus::Command(start.into())) },
    ];
    let vote = Vote::new_committed(1, NodeId(me));
    let append = Request::Append { vote, prev: None, entries, commit: Some(at(1)) };
    let append = Bytes::from(codec::encode_frame(&codec::Frame::Request(1, append)));
    // It believes its leader a moment after both have met.
    while victim.data("/status")["log"].is_null() {
        connection.send(Channel::Bulk, append.clone()).expect("it is open");
        sleep(Duration::from_millis(200)).await;
    }
    connection
}

#[test]
fn a_server_gives_up_so_many_logs_for_those_of_others_and_no_more() {
    let mut victim = Instance::new(0, |_| {}).servers.remove(0);
    victim.start();
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let yielded =
        |victim: &Node| victim.process().lines().iter().filter(|line| line.event == "log-yielded").count();
    let mut leaders = Vec::new();
    for number in 1..=YIELDS_MAX + 1 {
        until("a log", || victim.data("/status")["log"].is_string().then_some(()));
        let number = u8::try_from(number).unwrap();
        let liar = Attacker::new(&format!("liar-{number}"), Role::Server, Some(COMMITTEE_SECRET));
        let connection = runtime.block_on(async {
            let connection = liar.dial(&address(&victim)).await;
            let log = Some(LogId([0x80 | number; 32]));
            let address = Some(liar.link.address());
            let present =
                Present { log, has_records: true, store: Some(StoreId(77)), address, steadfast: false };
            let hello = liar.own.hello(&connection.exporter(), &connection.peer(), present);
            say(&connection, &Frame::Hello(Box::new(hello)));
            connection
        });
        if u32::from(number) > YIELDS_MAX {
            victim.process().wait_text("reason=two-logs");
            assert_eq!(yielded(&victim), YIELDS_MAX as usize, "it keeps its log");
            assert!(victim.data("/status")["log"].is_string());
            break;
        }
        until("the log to be given up", || (yielded(&victim) == usize::from(number)).then_some(()));
        drop(connection);
        let connection = runtime.block_on(async {
            timeout(PATIENCE, lead_astray(&liar, &victim, number))
                .await
                .expect("it follows whom it yielded to")
        });
        leaders.push((liar, connection));
    }
    drop(leaders);
}

/// Everything that a node says on the control channel within a while.
async fn overhear(connection: &QuicConnection, within: Duration) -> Vec<Frame> {
    let mut heard = Vec::new();
    let listen = async {
        while let Ok((channel, message)) = connection.receive().await {
            if channel == Channel::Control {
                heard.push(Frame::decode(&message).expect("a node says frames"));
            }
        }
    };
    // It ends when the node closes the connection, or when the time is over.
    drop(timeout(within, listen).await);
    heard
}

fn invented(stranger: &Attacker, batch: usize, role: Role) -> Frame {
    let nowhere = Some(Address("127.0.0.1:1".to_owned()));
    let one = |number| {
        let invented = identity(&format!("invented by {} {batch} {number}", stranger.own.peer.short()));
        PeerEntry::sign(&invented, stranger.own.instance, role, nowhere.clone(), 1)
    };
    Frame::Peers { entries: (0..64).map(one).collect() }
}

#[test]
fn nothing_is_read_before_acceptance_and_the_book_keeps_the_committee() {
    let instance = Instance::start(2, |_| {});
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let (server, aggregator) = (&instance.servers[0], &instance.aggregator);
    let mut genuine: Vec<String> =
        instance.servers.iter().chain([aggregator]).map(|node| node.id().to_owned()).collect();
    genuine.sort();

    let curious = Attacker::new("curious", Role::Client, None);
    let heard = runtime.block_on(async {
        let connection = curious.dial(&address(server)).await;
        say(&connection, &Frame::PeersWanted { have: vec![] });
        say(&connection, &Frame::Ping { nonce: 1 });
        say(&connection, &Frame::Pong { nonce: 1 });
        say(&connection, &Frame::Welcome);
        say(&connection, &invented(&curious, 0, Role::Aggregator));
        overhear(&connection, Duration::from_secs(2)).await
    });
    assert!(matches!(heard[..], [Frame::Hello(_)]), "it answers nothing: {heard:?}");
    for kind in ["peers-wanted", "ping", "pong", "welcome", "peers"] {
        wait_counted(server, kind, "out-of-turn", 1);
    }

    // Those who are let in tell of many that nobody has heard of, also in the place of the aggregator and of servers.
    let crowd = runtime.block_on(async {
        let mut crowd = Vec::new();
        for number in 0..12 {
            let role = [Role::Client, Role::Aggregator][number % 2];
            let stranger = Attacker::new(&format!("teller {number}"), role, None);
            let to_server = stranger.enter(&address(server)).await;
            let pretender = Attacker::new(&format!("pretender {number}"), Role::Server, None);
            let to_aggregator = pretender.enter(&address(aggregator)).await;
            for batch in 0..5 {
                say(&to_server, &invented(&stranger, batch, [Role::Aggregator, Role::Server][batch % 2]));
                say(&to_aggregator, &invented(&pretender, batch, Role::Server));
            }
            crowd.push((stranger, to_server, pretender, to_aggregator));
        }
        crowd
    });
    wait_counted(server, "peer-entry", "wrong-role", 6);
    wait_counted(server, "peer-entry", "stranger", 6 * 5 * 64);
    wait_counted(aggregator, "peer-entry", "too-often", 12 * 200);
    for node in [server, aggregator] {
        let told = runtime.block_on(async {
            let asker = Attacker::new(&format!("asker of {}", node.name), Role::Client, None);
            let connection = asker.enter(&address(node)).await;
            say(&connection, &Frame::PeersWanted { have: vec![] });
            overhear(&connection, Duration::from_secs(1)).await
        });
        let told = told.into_iter().find_map(|frame| match frame {
            Frame::Peers { entries } => Some(entries),
            _ => None,
        });
        let told = told.expect("it tells");
        let mut told: Vec<String> = told.iter().map(|entry| entry.peer.to_string()).collect();
        told.sort();
        assert_eq!(told, genuine, "{} tells of its own, and of nobody else", node.name);
    }

    // Whoever asks without end is answered now and then.
    let heard = runtime.block_on(async {
        let connection = curious.enter(&address(server)).await;
        for nonce in 0..500 {
            say(&connection, &Frame::Ping { nonce });
            say(&connection, &Frame::PeersWanted { have: vec![] });
        }
        overhear(&connection, Duration::from_secs(3)).await
    });
    let count = |fits: fn(&Frame) -> bool| heard.iter().filter(|frame| fits(frame)).count();
    let pongs = count(|frame| matches!(frame, Frame::Pong { .. }));
    let answers = count(|frame| matches!(frame, Frame::Peers { entries } if entries.len() > 1));
    assert!((1..=50).contains(&pongs) && (1..=10).contains(&answers), "{pongs} pongs, {answers} answers");
    wait_counted(server, "ping", "too-often", 400);
    wait_counted(server, "peers-wanted", "too-often", 400);
    drop(crowd);
    instance.wait_rounds(2);
}

#[test]
fn requests_without_end_are_answered_with_a_pace() {
    const ASKERS: usize = 4;
    let instance = Instance::start(2, |_| {});
    instance.wait_rounds(8);
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let to = address(&instance.servers[instance.leader()]);
    let begun = std::time::Instant::now();
    let asking = Duration::from_secs(6);
    let tasks: Vec<_> = (0..ASKERS)
        .map(|number| {
            let to = to.clone();
            let stranger = Attacker::new(&format!("asker {number}"), Role::Client, None);
            runtime.spawn(async move {
                let connection = stranger.enter(&to).await;
                let wanted = wire::encode(&Message::RecordsWanted { from: Round(1) });
                let wanted: Bytes = wanted.to_vec().into();
                let (mut asked, mut records) = (0, 0);
                while begun.elapsed() < asking {
                    for _ in 0..50 {
                        asked += usize::from(connection.send(Channel::Protocol, wanted.clone()).is_ok());
                    }
                    while let Ok(heard) = timeout(Duration::from_millis(5), connection.receive()).await {
                        let (channel, message) = heard.expect("it is not shown out for asking");
                        let is_record = channel == Channel::Protocol
                            && matches!(wire::decode(&message), Ok(Message::Record { .. }));
                        records += usize::from(is_record);
                    }
                }
                (asked, records)
            })
        })
        .collect();
    instance.wait_rounds(4);
    // At most the eight newest records a second.
    let most = 8 * (usize::try_from(asking.as_secs()).unwrap() + 2);
    for task in tasks {
        let (asked, records) = runtime.block_on(task).unwrap();
        assert!(asked > 1_000 && (1..=most).contains(&records), "{records} records for {asked} requests");
    }
}

#[test]
fn a_refusal_by_somebody_met_by_rumour_ends_no_joiner() {
    let mut instance = Instance::new(0, |_| {});
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    // The operator has named a server that does not answer yet, and somebody who tells of another one.
    instance.servers[0].start();
    let named = instance.servers[0].peer.clone();
    instance.servers[0].process_mut().kill();
    let teller = Attacker::new("teller", Role::Aggregator, None);
    let joiner = &mut instance.servers[1];
    let bootstrap = format!("{named},{}@{}", teller.own.peer, teller.link.address());
    joiner.variables.insert("ZIPNET_BOOTSTRAP".to_owned(), bootstrap);
    joiner.start();
    let to = address(joiner);

    let refuser = Attacker::new("refuser", Role::Server, Some(COMMITTEE_SECRET));
    let entry = PeerEntry::sign(
        &refuser.identity,
        refuser.own.instance,
        Role::Server,
        Some(refuser.link.address()),
        1,
    );
    let refusing = runtime.spawn(async move {
        let mut kept = Vec::new();
        for reason in [Refusal::WireVersion, Refusal::GroupProof, Refusal::Retired].into_iter().cycle() {
            let connection = refuser.link.accept().await.unwrap();
            say(&connection, &Frame::HelloRefused { reason });
            kept.push(connection);
        }
    });
    let _told = runtime.block_on(async {
        let connection = teller.enter(&to).await;
        say(&connection, &Frame::Peers { entries: vec![entry] });
        connection
    });
    joiner.process().wait_event("refused-by-peer");
    assert_eq!(joiner.process_mut().ended_within(Duration::from_secs(8)), None);
    refusing.abort();
    // The one that was named comes back and is believed.
    instance.servers[0].start();
    let voters = |node: &Node| {
        let servers = node.data("/status")["servers"].as_array().cloned().unwrap_or_default();
        servers.iter().filter(|server| server["vote"] == "voter").count()
    };
    until("the joiner to get a vote", || (voters(&instance.servers[1]) >= 2).then_some(()));
}

/// Rounds that a server has finished.
fn finalized(server: &Node) -> u64 {
    server.metric("zipnet_rounds_finalized_total", "")
}

/// A stranger who calls himself a server comes to the aggregator, and comes again, until he is stopped: each time he says that
/// the committee works for another log, and that a round far ahead is live.
async fn usurp(to: Address, number: usize, genuine: Arc<Header>, stop: Arc<AtomicBool>) {
    let stranger = Attacker::new(&format!("usurper {number}"), Role::Server, None);
    let peer = stranger.own.peer;
    let mut header = Header::clone(&genuine);
    header.round = Round(header.round.0 + 1_000_000_000);
    header.servers = vec![RosterServer { peer, epoch: Epoch(1), round_key: PublicKey([9; 32]) }];
    let mut signature = HeaderSignature {
        log: header.log,
        round: header.round,
        header: header.digest(),
        server: peer,
        refused: Bitmap::new(header.clients.count),
        signature: Signature::default(),
    };
    signature.signature = stranger.identity.sign(&signature.signed_digest());
    let live = LiveHeader { header, signatures: vec![signature] };
    let (version, counter) = (RegistryVersion(1), Counter(1));
    let registry = Message::Registry { log: LogId([9; 32]), version, counter, clients: vec![] };
    let lies = [wire::encode(&registry), wire::encode(&Message::Live(live))];
    while !stop.load(Ordering::Relaxed) {
        // The aggregator may be away, or on its way out.
        let entered = timeout(Duration::from_secs(2), stranger.try_enter(&to)).await;
        let Ok(Some(connection)) = entered else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        for _ in 0..20 {
            for lie in &lies {
                // The aggregator may have closed it.
                connection.send(Channel::Protocol, lie.to_vec().into()).unwrap_or_default();
            }
            sleep(Duration::from_millis(50)).await;
            let open =
                timeout(Duration::from_millis(1), async { while connection.receive().await.is_ok() {} });
            if open.await.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn strangers_who_call_themselves_servers_do_not_move_the_aggregator() {
    let mut instance = Instance::start(2, |node| {
        if node.role == "client" {
            node.variables.insert("ZIPNET_MIN_SERVERS".to_owned(), "2".to_owned());
        }
    });
    instance.wait_rounds(2);
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let to = address(&instance.aggregator);
    // What is public of a round is shown to anybody who says that he is a client.
    let header = runtime.block_on(async {
        let eavesdropper = Attacker::new("eavesdropper", Role::Client, None).enter(&to).await;
        loop {
            if let (Channel::Protocol, message) = hear(&eavesdropper).await.unwrap()
                && let Ok(Message::LiveFor { live, .. }) = wire::decode(&message)
            {
                return Arc::new(live.header.clone());
            }
        }
    });
    let stop = Arc::new(AtomicBool::new(false));
    let attack: Vec<_> = (0..5)
        .map(|number| runtime.spawn(usurp(to.clone(), number, Arc::clone(&header), Arc::clone(&stop))))
        .collect();
    wait_counted(&instance.aggregator, "message", "not-in-roster", 50);
    instance.wait_rounds(5);

    // The aggregator comes back while they are at its door, and while the one server that it was pointed to is away: it knows
    // the others of old.
    instance.aggregator.process().signal(Signal::SIGTERM);
    assert_eq!(instance.aggregator.process_mut().code(), 0);
    instance.servers[0].process().signal(Signal::SIGTERM);
    assert_eq!(instance.servers[0].process_mut().code(), 0);
    instance.aggregator.start();
    assert_eq!(address(&instance.aggregator), to, "it has the same port");
    wait_counted(&instance.aggregator, "message", "not-in-roster", 50);
    instance.servers[1].wait_rounds(3);
    instance.servers[0].start();
    instance.wait_rounds(2);

    stop.store(true, Ordering::Relaxed);
    for task in attack {
        runtime.block_on(task).unwrap();
    }
    let before = finalized(&instance.servers[1]);
    instance.wait_rounds(2);
    assert!(finalized(&instance.servers[1]) > before);
}

/// Takes whoever dials a false aggregator for a client of its own, and counts what it is sent.
async fn receive_clients(stranger: Arc<Attacker>, greeted: Arc<AtomicU64>, envelopes: Arc<AtomicU64>) {
    while let Ok(connection) = stranger.link.accept().await {
        let (stranger, greeted, envelopes) =
            (Arc::clone(&stranger), Arc::clone(&greeted), Arc::clone(&envelopes));
        tokio::spawn(async move {
            say(&connection, &Frame::Hello(Box::new(stranger.hello(&connection))));
            while let Ok((channel, message)) = connection.receive().await {
                match channel {
                    Channel::Control => match Frame::decode(&message) {
                        Ok(Frame::Hello(hello)) if hello.role == Role::Client => {
                            say(&connection, &Frame::Welcome);
                        }
                        Ok(Frame::Welcome) => drop(greeted.fetch_add(1, Ordering::Relaxed)),
                        _ => {}
                    },
                    Channel::Protocol => {
                        if matches!(wire::decode(&message), Ok(Message::Envelope(_))) {
                            envelopes.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    _ => {}
                }
            }
        });
    }
}

#[test]
fn whoever_calls_himself_an_aggregator_gets_no_envelope() {
    let instance = Instance::start(2, |_| {});
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let stranger = Arc::new(Attacker::new("false aggregator", Role::Aggregator, None));
    let (greeted, envelopes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let receiving = receive_clients(Arc::clone(&stranger), Arc::clone(&greeted), Arc::clone(&envelopes));
    drop(runtime.spawn(receiving));
    // A third client is pointed to both, and cannot tell them apart until a header names one.
    let third = Instance::new(3, |_| {}).clients.remove(2);
    let mut variables = third.variables;
    let both = format!("{},{}@{}", instance.aggregator.peer, stranger.own.peer, stranger.link.address());
    variables.insert("ZIPNET_BOOTSTRAP".to_owned(), both);
    let disk = Folder::open(&instance.folder().join("third")).unwrap();
    let sealed = Arc::new(AtomicU64::new(0));
    let watch: Watch = {
        let sealed = Arc::clone(&sealed);
        Arc::new(move |_, channel, message| {
            if channel == Channel::Protocol && matches!(wire::decode(message), Ok(Message::Envelope(_))) {
                sealed.fetch_add(1, Ordering::Relaxed);
            }
            None
        })
    };
    let client = Task::start(Role::Client, &variables, disk, watch, Arc::new(|_| {}));
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    until("the client to link with both", || (count(&greeted) >= 1 && count(&sealed) >= 5).then_some(()));
    instance.wait_rounds(2);
    assert_eq!(count(&envelopes), 0, "envelopes go to the aggregator that the header names");
    runtime.block_on(async { assert_eq!(client.stop().await.code, 0) });
}

#[test]
fn whoever_is_not_listed_is_not_let_in_and_a_voter_is_not_cut_off() {
    let list = |names: &[&str]| {
        names.iter().map(|name| identity(name).peer().to_string()).collect::<Vec<_>>().join(",")
    };
    let mut instance = Instance::start(2, |node| {
        if node.role == "server" {
            let all = list(&["server-1", "server-2", "server-3"]);
            node.variables.insert("ZIPNET_ALLOWED_SERVERS".to_owned(), all);
        }
    });
    let mut fourth = instance.servers[0].sibling("server-4");
    fourth.variables.remove("ZIPNET_ALLOWED_SERVERS");
    fourth.start();
    let refused = fourth.process().wait_event("refused-by-peer");
    assert_eq!(refused.field("reason"), Some("not-listed;"), "{}", refused.raw);
    let note = format!("{} refuses this node", &instance.servers[0].id()[..10]);
    until("its status to say so", || {
        let notes = fourth.data("/status")["notes"].to_string();
        (notes.contains(&note) && notes.contains("ZIPNET_ALLOWED_SERVERS")).then_some(())
    });
    instance.wait_rounds(3);
    assert_eq!(fourth.process_mut().ended_within(Duration::from_secs(1)), None, "it waits to be listed");
    let status = instance.servers[0].data("/status");
    let known = status["servers"].as_array().expect("servers are listed");
    assert!(known.iter().all(|server| server["peer"] != fourth.id()), "{status}");
    assert_eq!(known.iter().filter(|server| server["vote"] == "voter").count(), 3, "{status}");

    // One operator forgets a server that has a vote.
    let forgetful = &mut instance.servers[1];
    forgetful.process().signal(Signal::SIGTERM);
    assert_eq!(forgetful.process_mut().code(), 0);
    forgetful.variables.insert("ZIPNET_ALLOWED_SERVERS".to_owned(), list(&["server-1", "server-2"]));
    forgetful.start();
    forgetful.process().wait_text("has a vote and is not in ZIPNET_ALLOWED_SERVERS");
    wait_counted(forgetful, "voter", "not-listed", 2);
    instance.wait_rounds(2);
    let status = instance.servers[1].data("/status");
    assert!(status["notes"].to_string().contains("is not in ZIPNET_ALLOWED_SERVERS"), "{status}");
}

/// For how long trouble is made, and by how many: briefly and by few, unless `ZIPNET_TROUBLE_SECONDS` and
/// `ZIPNET_TROUBLE_MAKERS` say otherwise.
fn trouble() -> (Duration, usize) {
    let set = |name: &str, usual: usize| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("the variable holds a number"))
    };
    let seconds = u64::try_from(set("ZIPNET_TROUBLE_SECONDS", 10)).expect("it is no age of the world");
    (Duration::from_secs(seconds), set("ZIPNET_TROUBLE_MAKERS", 18))
}

/// Until it is stopped, a stranger does over and over what one of his kind can do to a node. Every send may fail, and
/// every connection may be closed: that is what the node is for.
async fn trouble_maker(number: usize, to: Address, stop: Arc<AtomicBool>) {
    let role = [Role::Client, Role::Client, Role::Server, Role::Aggregator][number % 4];
    let stranger = Attacker::new(&format!("trouble maker {number}"), role, None);
    let wanted: Bytes = wire::encode(&Message::RecordsWanted { from: Round(1) }).to_vec().into();
    let tell = |connection: &QuicConnection, frame: &Frame| {
        connection.send(Channel::Control, frame.encode().into()).unwrap_or_default();
    };
    let mut times: u32 = 0;
    while !stop.load(Ordering::Relaxed) {
        times += 1;
        let connection = match number % 3 {
            // Claims about a log, refusals, and frames that nobody asked for, before anything else.
            0 => {
                let dialled = timeout(Duration::from_secs(2), stranger.link.dial(&to)).await;
                let Ok(Ok(connection)) = dialled else { continue };
                tell(&connection, &Frame::PeersWanted { have: vec![] });
                tell(&connection, &invented(&stranger, 0, Role::Aggregator));
                if times.is_multiple_of(2) {
                    tell(&connection, &hello_about_a_log(&stranger, &connection));
                } else {
                    tell(&connection, &Frame::HelloRefused { reason: Refusal::WireVersion });
                }
                connection
            }
            _ => match timeout(Duration::from_secs(2), stranger.try_enter(&to)).await {
                Ok(Some(connection)) => connection,
                Ok(None) | Err(_) => continue,
            },
        };
        for nonce in 0..20 {
            tell(&connection, &Frame::Ping { nonce });
            tell(&connection, &Frame::PeersWanted { have: vec![] });
            tell(&connection, &invented(&stranger, 1, Role::Server));
            for _ in 0..20 {
                connection.send(Channel::Protocol, wanted.clone()).unwrap_or_default();
            }
            let seed = times.wrapping_mul(97).wrapping_add(u32::try_from(number).unwrap_or(0));
            for channel in [Channel::Protocol, Channel::Consensus, Channel::Bulk, Channel::Datagram] {
                connection.send(channel, rubbish(200, seed)).unwrap_or_default();
            }
            let listen = async { while connection.receive().await.is_ok() {} };
            if timeout(Duration::from_millis(20), listen).await.is_ok() || stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

/// Nobody of these has ended.
fn all_live<'a>(nodes: impl IntoIterator<Item = &'a Node>) {
    for node in nodes {
        let exiting = node.process().lines().into_iter().find(|line| line.event == "exiting");
        assert!(exiting.is_none(), "{}: {}", node.name, node.process().tail());
    }
}

#[test]
fn many_strangers_at_once_cost_no_round_and_no_memory() {
    let (lasting, strangers) = trouble();
    let instance = Instance::start(2, |_| {});
    instance.wait_rounds(3);
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let nodes: Vec<&Node> = instance.servers.iter().chain([&instance.aggregator]).collect();
    let abandoned = || -> u64 {
        instance
            .servers
            .iter()
            .map(|server| server.metric("zipnet_rounds_abandoned_total", ""))
            .max()
            .unwrap()
    };
    let (rounds, lost) = (finalized(&instance.servers[0]), abandoned());
    let stop = Arc::new(AtomicBool::new(false));
    let makers: Vec<_> = (0..strangers)
        .map(|number| {
            let to = address(nodes[number % nodes.len()]);
            runtime.spawn(trouble_maker(number, to, Arc::clone(&stop)))
        })
        .collect();
    std::thread::sleep(lasting / 4);
    let early: Vec<u64> = nodes.iter().map(|node| memory(node)).collect();
    std::thread::sleep(lasting - lasting / 4);
    let late: Vec<u64> = nodes.iter().map(|node| memory(node)).collect();
    let (finished, given_up) = (finalized(&instance.servers[0]) - rounds, abandoned() - lost);
    stop.store(true, Ordering::Relaxed);
    runtime.block_on(async { futures_util::future::join_all(makers).await });
    all_live(nodes.iter().copied());
    assert!(finished >= 3 && given_up == 0, "{finished} rounds were finished, {given_up} given up");
    for ((node, early), late) in nodes.iter().zip(&early).zip(&late) {
        assert!(*late <= early + 32, "{}: from {early} MiB to {late} MiB", node.name);
    }
    instance.wait_rounds(2);
}

/// Another form of what somebody sent: bytes changed, cut or doubled.
fn mutated(message: &Bytes, seed: u32) -> Bytes {
    let noise = rubbish(16, seed);
    let mut bytes = message.to_vec();
    if bytes.is_empty() {
        return noise;
    }
    let place = |at: usize, len: usize| usize::from(noise[at]) * 256 % len + usize::from(noise[at + 1]) % len;
    match noise[0] % 4 {
        0 => {
            for at in 0..=usize::from(noise[1] % 4) {
                let place = place(at + 2, bytes.len()) % bytes.len();
                bytes[place] ^= 1 << (noise[at + 3] % 8);
            }
        }
        1 => bytes.truncate(place(2, bytes.len())),
        2 => bytes.extend_from_slice(&noise),
        // As it is: said by somebody else, to somebody else, or again.
        _ => {}
    }
    bytes.into()
}

#[test]
fn a_holder_of_the_secret_ends_no_server_by_what_it_sends() {
    let (lasting, _) = trouble();
    let instance = Instance::start(2, |_| {});
    instance.wait_rounds(3);
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let targets: Vec<Address> = instance.servers.iter().map(address).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let insiders = (0..2).map(|number| {
        let (targets, stop) = (targets.clone(), Arc::clone(&stop));
        runtime.spawn(async move {
            let insider = Attacker::new(&format!("insider {number}"), Role::Server, Some(COMMITTEE_SECRET));
            let mut connections: Vec<Option<QuicConnection>> = targets.iter().map(|_| None).collect();
            // What the leader and the others say to it, as a server that joins.
            let mut heard: Vec<(Channel, Bytes)> = Vec::new();
            let mut seed: u32 = number;
            let mut sent: u64 = 0;
            while !stop.load(Ordering::Relaxed) {
                for (to, connection) in targets.iter().zip(&mut connections) {
                    if connection.is_none() {
                        let entered = timeout(Duration::from_secs(2), insider.try_enter(to)).await;
                        *connection = entered.ok().flatten();
                    }
                    let Some(open) = connection else { continue };
                    let listen = async {
                        while let Ok(message) = open.receive().await {
                            if heard.len() < 400 {
                                heard.push(message);
                            } else {
                                let place = usize::try_from(sent).unwrap_or(0) % heard.len();
                                heard[place] = message;
                            }
                        }
                    };
                    let over = timeout(Duration::from_millis(5), listen).await.is_ok();
                    for _ in 0..40 {
                        seed = seed.wrapping_add(2);
                        let chosen = usize::try_from(seed).unwrap_or(0) % heard.len().max(1);
                        let Some((channel, message)) = heard.get(chosen) else { break };
                        sent += u64::from(open.send(*channel, mutated(message, seed)).is_ok());
                    }
                    if over {
                        *connection = None;
                    }
                }
            }
            sent
        })
    });
    let insiders: Vec<_> = insiders.collect();
    std::thread::sleep(lasting);
    stop.store(true, Ordering::Relaxed);
    let sent = runtime.block_on(async { futures_util::future::join_all(insiders).await });
    let sent: u64 = sent.into_iter().map(Result::unwrap).sum();
    assert!(sent > 1_000, "only {sent} messages were sent");
    all_live(instance.servers.iter().chain([&instance.aggregator]));
    instance.wait_rounds(2);
    let refused: u64 = instance.servers.iter().map(|server| server.metric("zipnet_rejected_total", "")).sum();
    assert!(refused > 100, "{refused} of {sent} messages were refused by name");
}
