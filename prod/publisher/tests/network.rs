//! A whole instance in one process: three servers and an aggregator on loopback, with publishers and readers.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use zipnet::{Broadcast, Config, ConnectError, Doubt, Outcome, Publisher, Reader, Refusal, Round, SendError};
use zipnet_core::id::{Role, UniqueId};
use zipnet_core::params::RoundParams;
use zipnet_node::config::{Build, Config as NodeConfig};
use zipnet_node::node::{self, Exit, Handle};
use zipnet_node::world::Link;
use zipnet_world::ground::Ground;
use zipnet_world::network::FAREWELL;
use zipnet_world::world::{RealWorld, run};

const INSTANCE: &str = "test.publisher";
const COMMITTEE_SECRET: &str = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a publisher without others waits for a round.
const ALONE: Duration = Duration::from_secs(15);

struct Node {
    peer: String,
    handle: Handle,
    task: JoinHandle<Exit>,
}

struct Network {
    scratch: tempfile::TempDir,
    nodes: Vec<Node>,
}

impl Network {
    async fn start(build: Build) -> Self {
        let mut network = Self { scratch: tempfile::tempdir().unwrap(), nodes: Vec::new() };
        for number in 1..=3 {
            network.node(Role::Server, &format!("server-{number}"), build);
        }
        network.node(Role::Aggregator, "aggregator", build);
        network
    }

    fn node(&mut self, role: Role, name: &str, build: Build) {
        let folder = self.scratch.path().join(name);
        let mut variables: BTreeMap<String, String> = [
            ("ZIPNET_INSTANCE", INSTANCE),
            (
                "ZIPNET_SECRET",
                &UniqueId::from_text(&format!("the secret of {name} in this test")).to_string(),
            ),
            ("ZIPNET_STATE_DIR", folder.to_str().unwrap()),
            ("ZIPNET_LISTEN", "127.0.0.1:0"),
            ("ZIPNET_ANNOUNCE_INTERVAL", "1s"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let more: &[(&str, &str)] = match role {
            Role::Server => &[
                ("ZIPNET_COMMITTEE_SECRET", COMMITTEE_SECRET),
                ("ZIPNET_MIN_PARTICIPANTS", "2"),
                ("ZIPNET_ROUND_PERIOD", "300ms"),
            ],
            Role::Aggregator => &[("ZIPNET_FOLD_DEADLINE", "300ms")],
            Role::Client => &[],
        };
        variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        if let Some(first) = self.nodes.first() {
            variables.insert("ZIPNET_BOOTSTRAP".to_owned(), first.peer.clone());
        }
        let (config, _) = NodeConfig::from_env(role, &variables, build).unwrap();
        let Ground { config, folder, link, me, .. } = Ground::take(config, &BTreeMap::new()).unwrap();
        let peer = format!("{me}@{}", link.address());
        let world = RealWorld::new(link.clone(), folder, Arc::new(|_| ()));
        let (handle, controls) = node::control();
        let task = tokio::spawn(async move {
            let exit = run(world, config, controls).await;
            link.shut_down(FAREWELL).await;
            exit
        });
        self.nodes.push(Node { peer, handle, task });
    }

    /// Of a client that starts from the first server, with its state in a folder of this name.
    fn config(&self, name: &str) -> Config {
        Config::new(INSTANCE)
            .unwrap()
            .bootstrap(self.nodes[0].peer.parse().unwrap())
            .listen("127.0.0.1:0".parse().unwrap())
            .state_dir(&self.scratch.path().join(name))
            .connect_timeout(PATIENCE)
    }

    async fn stop(self) {
        for node in self.nodes.into_iter().rev() {
            node.handle.stop();
            assert_eq!(node.task.await.unwrap().code, 0);
        }
    }
}

async fn next(reader: &mut Reader) -> Result<Broadcast, Doubt> {
    tokio::time::timeout(PATIENCE, reader.next())
        .await
        .expect("a broadcast in time")
        .expect("the reader runs")
}

/// Reads until every text was said and all of it is confirmed. Returns the rounds.
async fn read(reader: &mut Reader, texts: &[&str]) -> Vec<Broadcast> {
    let mut missing: BTreeSet<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    // One that was provisional comes again.
    let mut broadcasts: BTreeMap<Round, Broadcast> = BTreeMap::new();
    while !missing.is_empty() || broadcasts.values().any(|broadcast| !broadcast.confirmed) {
        let broadcast = next(reader).await.expect("nothing to doubt");
        for message in &broadcast.messages {
            missing.remove(message.trimmed());
        }
        broadcasts.insert(broadcast.round, broadcast);
    }
    broadcasts.into_values().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_published_lands_and_is_read() {
    let network = Network::start(Build::CURRENT).await;
    // The servers want two participants.
    let mut alone = Publisher::connect(network.config("alone").connect_timeout(ALONE)).await.unwrap();
    let refused = alone.ready().await.expect_err("no round opens for one");
    assert!(matches!(refused, ConnectError::ConnectTimeout { answered: true, .. }), "{refused}");
    assert!(refused.to_string().contains("no round counted this client in for 15000 ms"), "{refused}");
    alone.close().await.unwrap();

    let mut one = Publisher::connect(network.config("one")).await.unwrap();
    let mut other = Publisher::connect(network.config("other")).await.unwrap();
    one.ready().await.unwrap();
    other.ready().await.unwrap();
    let pins = network.nodes[..3].iter().fold(network.config("reader"), |config, node| {
        config.server(node.peer.parse::<zipnet::PeerAddress>().unwrap().peer)
    });
    let mut reader = Reader::connect(pins).await.unwrap();

    // Two messages of one round collide now and then: then each is published again, as its receipt advises.
    for (publisher, text) in [(&one, "from one"), (&other, "from the other")] {
        loop {
            let receipt = publisher.send(text).await.unwrap();
            let publication = tokio::time::timeout(PATIENCE, receipt).await.expect("its fate in time");
            assert!(publication.round.is_some());
            if publication.outcome == Outcome::Landed {
                break;
            }
            assert_eq!(publication.outcome, Outcome::Collided);
        }
    }
    let broadcasts = read(&mut reader, &["from one", "from the other"]).await;
    for (before, after) in broadcasts.iter().zip(&broadcasts[1..]) {
        assert!(before.round < after.round);
        assert_eq!(after.previous, before.digest);
        assert_eq!(after.log, before.log);
    }
    let last = broadcasts.last().unwrap();
    assert_eq!((last.confirmed, last.servers.len()), (true, 3));
    assert!(last.participants >= 2);

    // Too long by one, with both sizes.
    let payload_bytes = network.config("none").payload_bytes();
    let refused = one.send(vec![b'x'; payload_bytes + 1]).await.expect_err("too long");
    assert_eq!(refused, SendError::TooLong { bytes: payload_bytes + 1, payload_bytes });
    assert_eq!(refused.to_string(), "send a message: 241 bytes exceed the 240 of a slot");

    // One that comes later has the rounds before, and is told which of those that it wants are gone.
    let from = broadcasts[0].round;
    let mut late = Reader::connect(network.config("late").from(from)).await.unwrap();
    let first = next(&mut late).await.unwrap();
    assert_eq!((first.round, first.digest), (from, broadcasts[0].digest));
    late.close().await.unwrap();

    // A message that is under way when its publisher ends has no known fate.
    let receipt = other.send("too late").await.unwrap();
    other.close().await.unwrap();
    assert_eq!(receipt.await.outcome, Outcome::Unknown);
    reader.close().await.unwrap();
    one.close().await.unwrap();
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_can_not_connect_is_told_why() {
    let params = RoundParams::new(32, 256, 16).unwrap();
    let network = Network::start(Build { params, ..Build::CURRENT }).await;

    // The servers are of another build than this library.
    let refused = Publisher::connect(network.config("other-build")).await.expect_err("other parameters");
    assert!(matches!(refused, ConnectError::Refused { reason: Refusal::Parameters, .. }), "{refused}");
    let refused = Reader::connect(network.config("other-build")).await.expect_err("other parameters");
    assert!(matches!(refused, ConnectError::Refused { reason: Refusal::Parameters, .. }), "{refused}");

    // Nobody is there at all.
    let unused = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = format!("{}@{}", "ab".repeat(32), unused.local_addr().unwrap());
    let timeout = Duration::from_millis(700);
    let config = |name: &str| {
        let config = Config::new("test.retired").unwrap().bootstrap(nobody.parse().unwrap());
        let folder = network.scratch.path().join(name);
        config.listen("127.0.0.1:0".parse().unwrap()).state_dir(&folder).connect_timeout(timeout)
    };
    let refused = Publisher::connect(config("nobody")).await.expect_err("nobody serves it");
    assert!(
        matches!(&refused, ConnectError::ConnectTimeout { instance, after, answered: false } if instance == "test.retired" && *after == timeout),
        "{refused}"
    );
    assert_eq!(
        refused.to_string(),
        "ConnectTimeout: nobody of instance test.retired answered for 700 ms; it may have been retired"
    );
    // The folder was let go.
    let refused = Reader::connect(config("nobody").from(Round(1))).await.expect_err("nobody serves it");
    assert!(matches!(refused, ConnectError::ConnectTimeout { .. }), "{refused}");

    // A name that others use is refused by name.
    let other = Config::new("test.another").unwrap().bootstrap(network.nodes[0].peer.parse().unwrap());
    let other =
        other.listen("127.0.0.1:0".parse().unwrap()).state_dir(&network.scratch.path().join("another"));
    let refused = Publisher::connect(other.connect_timeout(timeout)).await.expect_err("another instance");
    assert!(matches!(refused, ConnectError::Refused { reason: Refusal::Instance, .. }), "{refused}");

    // A folder that another node holds.
    let held = Config::new(INSTANCE).unwrap().state_dir(&network.scratch.path().join("server-1"));
    let refused = Publisher::connect(held).await.expect_err("it is held").to_string();
    assert!(refused.contains("another process holds it"), "{refused}");
    network.stop().await;
}
