//! The published vectors of what nodes say over links: frames, peer entries, consensus and rumours. As those of
//! `zipnet-core`: computed here, compared with the file, and read again by the reference in Python. `UPDATE=1` writes the
//! file anew; a change of a value is a change of the protocol.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use zipnet_core::id::{Digest, LogId, PeerId, RaftId, Role, StoreId, UNIVERSE, UniqueId};
use zipnet_core::key::{CommitteeSecret, Identity, NodeSecret};
use zipnet_core::params::RoundParams;
use zipnet_core::random::Random;
use zipnet_core::time::Time;
use zipnet_node::consensus::codec::{Ballot, Frame as Message, Reply, Request, encode_frame};
use zipnet_node::consensus::types::{
    self, Entry, Membership, NodeId, Payload, SnapshotMeta, StoredMembership, Vote,
};
use zipnet_node::frame::{Farewell, Frame, Hello, Own, Present, Refusal};
use zipnet_node::gossip::book::PeerEntry;
use zipnet_node::gossip::{Effect, Gossip, Input};
use zipnet_node::world::Address;

const EXPORTER: [u8; 32] = [0x65; 32];
const SECRET: [u8; 32] = [0x5e; 32];

fn directory(package: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("tests/vectors")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn identity(name: u8) -> Identity {
    Identity::from_secret(&NodeSecret::from_bytes([name; 32]))
}

fn address() -> Address {
    Address("server-1.example:4000".to_owned())
}

fn entry(name: u8, address: Option<Address>) -> PeerEntry {
    PeerEntry::sign(&identity(name), UniqueId([0x69; 32]), Role::Server, address, 300)
}

fn hello(role: Role) -> Hello {
    let own = Own {
        peer: identity(1).peer(),
        role,
        instance: UniqueId([0x69; 32]),
        universe: UNIVERSE,
        wire_version: 1,
        params: RoundParams::DEFAULT,
        machine_signature: Digest([0x6d; 32]),
        committee_secret: (role == Role::Server).then(|| Arc::new(CommitteeSecret::from_bytes(SECRET))),
        incarnation: [0x63; 16],
    };
    let server = role == Role::Server;
    let present = Present {
        log: server.then_some(LogId([0x4c; 32])),
        has_records: server,
        steadfast: false,
        store: server.then_some(StoreId(u64::MAX)),
        address: (role != Role::Client).then(address),
    };
    own.hello(&EXPORTER, &identity(2).peer(), present)
}

fn frames() -> Vec<(&'static str, Frame)> {
    let attested = Hello { attestation: Some(vec![1, 2, 3]), ..hello(Role::Server) };
    vec![
        ("a server's hello", Frame::Hello(Box::new(hello(Role::Server)))),
        ("one with evidence", Frame::Hello(Box::new(attested))),
        ("an aggregator's", Frame::Hello(Box::new(hello(Role::Aggregator)))),
        ("a client's", Frame::Hello(Box::new(hello(Role::Client)))),
        ("a refusal", Frame::HelloRefused { reason: Refusal::GroupProof }),
        ("a ping", Frame::Ping { nonce: 300 }),
        ("a pong", Frame::Pong { nonce: 300 }),
        ("a farewell", Frame::Goodbye { reason: Farewell::Yielding }),
        ("a request for entries", Frame::PeersWanted { have: vec![(identity(1).peer(), 300)] }),
        (
            "an entry of a server, and one of a server that has left",
            Frame::Peers { entries: vec![entry(1, Some(address())), entry(2, None)] },
        ),
        ("a welcome", Frame::Welcome),
        (
            "who has a vote",
            Frame::Members {
                log: Some(LogId([0x4c; 32])),
                index: 300,
                voters: [node(1), node(2), RaftId { store: StoreId(70_000), ..node(2) }].into(),
            },
        ),
        ("who is reached", Frame::Reach { servers: [identity(1).peer(), identity(2).peer()].into() }),
    ]
}

fn node(name: u8) -> RaftId {
    RaftId { peer: identity(name).peer(), store: StoreId(300) }
}

fn log_id(term: u64, index: u64) -> types::LogId {
    types::LogId::new_term_index(term, index)
}

fn consensus() -> Vec<(&'static str, Message)> {
    let (led, asked) = (Vote::new_committed(2, NodeId(node(1))), Vote::new(3, NodeId(node(1))));
    let both = [[1, 2], [2, 3]].map(|half| half.into_iter().map(|name| NodeId(node(name))).collect());
    let nodes: std::collections::BTreeMap<NodeId, ()> =
        (1..=4).map(|name| (NodeId(node(name)), ())).collect();
    let membership = Membership::new(both.to_vec(), nodes).expect("the voters are nodes");
    let at = |index, payload| Entry { log_id: log_id(2, index), payload };
    let command = types::Command(Bytes::from_static(b"a command"));
    let entries = vec![
        at(301, Payload::Blank),
        at(302, Payload::Normal(command)),
        at(303, Payload::Membership(membership.clone())),
    ];
    let ballot = Ballot { vote: asked, last: Some(log_id(2, 303)), transfer: true };
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(2, 303)),
        last_membership: StoredMembership::new(Some(log_id(2, 303)), membership),
    };
    let transfer = Request::Transfer { from: led, to: node(2), last: Some(log_id(2, 303)) };
    let append =
        Request::Append { vote: led, prev: Some(log_id(1, 300)), entries, commit: Some(log_id(1, 300)) };
    let voted = Reply::Voted { vote: asked, granted: true, last: None };
    vec![
        ("entries of every kind; the membership is in transition", Message::Request(1, append)),
        ("a vote", Message::Request(2, Request::Vote(ballot))),
        ("the same, asked before", Message::Request(3, Request::PreVote(ballot))),
        ("a snapshot", Message::Request(4, Request::Snapshot(led, meta, Bytes::from_static(b"a state")))),
        ("a transfer", Message::Request(5, transfer)),
        ("all entries are on disk", Message::Reply(u64::MAX, Reply::Appended)),
        ("some are", Message::Reply(1, Reply::AppendedUpTo(Some(log_id(2, 301))))),
        ("they do not follow", Message::Reply(1, Reply::Conflict)),
        ("a higher vote", Message::Reply(1, Reply::HigherVote(asked))),
        ("the vote is given", Message::Reply(2, voted)),
        ("the snapshot is installed", Message::Reply(4, Reply::SnapshotInstalled(led))),
        ("it stands for election", Message::Reply(5, Reply::Transferring)),
        ("another vote", Message::Reply(5, Reply::VoteChanged(led, asked))),
        ("the log is behind", Message::Reply(5, Reply::LogBehind(Some(log_id(2, 303)), None))),
        ("no answer", Message::Reply(6, Reply::Failed)),
    ]
}

/// The first word of a node to one that it has just been linked with.
fn rumour() -> Vec<u8> {
    let mut gossip = Gossip::new(identity(1).peer(), 1_700_000_000, Random::new([7; 32]));
    let mut out = Vec::new();
    gossip.handle(Time::default(), Input::Announce { peer: identity(2).peer() }, &mut out);
    match &out[..] {
        [Effect::Send { to, bytes }] if *to == identity(2).peer() => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn vectors() -> Value {
    let frames = frames().into_iter().map(|(why, frame)| {
        let bytes = frame.encode();
        assert_eq!(Frame::decode(&bytes), Ok(frame));
        json!({ "why": why, "frame": hex(&bytes) })
    });
    let consensus = consensus()
        .into_iter()
        .map(|(why, message)| json!({ "why": why, "message": hex(&encode_frame(&message)) }));
    let peer = |name| PeerId::to_string(&identity(name).peer());
    json!({
        "_comment": "Section 13 of docs/protocol.md.",
        "committee_secret": hex(&SECRET),
        "exporter": hex(&EXPORTER),
        "sender": peer(1),
        "receiver": peer(2),
        "frames": frames.collect::<Vec<_>>(),
        "entry_digests": [entry(1, Some(address())).digest().to_string(), entry(2, None).digest().to_string()],
        "consensus": consensus.collect::<Vec<_>>(),
        "incarnation": 1_700_000_000,
        "announcement": hex(&rumour()),
    })
}

#[test]
#[expect(clippy::print_stderr, reason = "whoever runs the test should know what it did not do")]
#[expect(
    clippy::disallowed_methods,
    reason = "the vectors are a file of the source, and UPDATE is for whoever writes it"
)]
fn links() {
    let path = directory("node").join("links.json");
    let mut text = serde_json::to_string_pretty(&vectors()).expect("a value has a text");
    text.push('\n');
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).expect("the vectors can be written");
    }
    let kept = std::fs::read_to_string(&path).expect("the vectors are part of the source");
    assert!(kept == text, "links.json does not hold what is computed; UPDATE=1 rewrites it");
    let reference = directory("protocol").join("../reference/zipnet_messages.py");
    let run =
        Command::new("python3").arg("-B").arg(reference).args(["protocol", "node"].map(directory)).output();
    match run {
        Err(reason) => eprintln!("python3 cannot be run ({reason}): the reference was not consulted"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
        }
    }
}
