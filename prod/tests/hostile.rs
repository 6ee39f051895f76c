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
use zipnet_core::id::{PeerId, StoreId, UNIVERSE, UniqueId};
use zipnet_core::instance::machine_signature;
use zipnet_core::key::{CommitteeSecret, Identity, NodeSecret};
use zipnet_core::message::{Message, Role};
use zipnet_core::params::RoundParams;
use zipnet_core::wire;
use zipnet_node::config::Build;
use zipnet_node::consensus::codec::{self, Request};
use zipnet_node::frame::{FRAME_BYTES_MAX, Frame, Hello, Own, Present};
use zipnet_node::gossip::book::PeerEntry;
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
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let link = QuicLink::bind(&identity, any, None, LIMITS).expect("loopback has free ports");
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

    // A thousand connections that say nothing.
    let before = memory(target);
    let crowd = Arc::new(Attacker::new("crowd", Role::Client, None));
    let silent: Vec<_> = (0..20)
        .map(|_| {
            let (crowd, to) = (Arc::clone(&crowd), to.clone());
            runtime.spawn(async move {
                let mut connections = Vec::new();
                for _ in 0..50 {
                    connections.push(crowd.dial(&to).await);
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
            let connection = stranger.dial(&to).await;
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
        // Where others are, in its own words.
        let mut entry =
            PeerEntry::sign(&stranger.identity, stranger.own.instance, Role::Server, Some(to.clone()), 1);
        entry.peer = PeerId([9; 32]);
        say(&connection, &Frame::Peers { entries: vec![entry] });
        // Datagrams may be lost, and are dropped first.
        while counted(target, "gossip", "malformed") == 0 {
            sleep(Duration::from_millis(50)).await;
            connection.send(Channel::Datagram, rubbish(100, 1)).unwrap();
        }
        connection
    });
    // Channels are independent: what ends the connection may overtake the rest.
    wait_counted(target, "message", "malformed", 10);
    wait_counted(target, "consensus", "wrong-role", 20);
    wait_counted(target, "peer-entry", "bad-signature", 1);
    connection.send(Channel::Control, rubbish(100, 4)).unwrap();
    runtime.block_on(shown_out(&connection));
    wait_counted(target, "hello", "malformed", malformed + 26);
    instance.wait_rounds(2);
    servers_that_are_none(&instance, &runtime, target);
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
