//! What two nodes say about their connection, and the peer entries that travel in it.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use zipnet_core::checks::Strict;
use zipnet_core::id::{Digest, LogId, RaftId, Role, StoreId, UniqueId};
use zipnet_core::key::{CommitteeSecret, Identity, NodeSecret};
use zipnet_core::time::Time;
use zipnet_node::frame::{Farewell, Frame, Own, Present, Refusal, judge_hello};
use zipnet_node::gossip::book::{
    DIGEST_LEN_MAX, ENTRIES_LEN_MAX, EntryRefused, PeerBook, PeerEntry, STRANGERS_MAX, Source,
};
use zipnet_node::world::Address;

use crate::Verdict;
use crate::draw::{Draw, Script};
use crate::memory::bounded;
use crate::network::{INSTANCE, LOG, params, peer};
use crate::wires::cut;

const EXPORTER: [u8; 32] = [7; 32];

/// A frame has one encoding, and any hello can be judged.
pub(crate) fn frame(bytes: &[u8]) -> Verdict {
    let Ok(frame) = bounded(bytes, || Frame::decode(bytes)) else { return Verdict::Refused };
    assert_eq!(frame.encode(), bytes, "{frame:?} has two encodings");
    if let Frame::Hello(hello) = &frame {
        for role in [Role::Server, Role::Aggregator, Role::Client] {
            let verdict = judge_hello(&own(0, role), hello, &EXPORTER, &peer(1), &Strict);
            assert!(
                verdict != Ok(()) || hello.instance == INSTANCE,
                "a hello of another instance was accepted"
            );
        }
    }
    Verdict::Taken
}

fn own(place: usize, role: Role) -> Own {
    static SECRET: LazyLock<Arc<CommitteeSecret>> =
        LazyLock::new(|| Arc::new(CommitteeSecret::from_bytes([0x5c; 32])));
    Own {
        peer: peer(place),
        role,
        instance: INSTANCE,
        universe: UniqueId([4; 32]),
        wire_version: 1,
        params: params(),
        machine_signature: Digest([5; 32]),
        committee_secret: (role == Role::Server).then(|| Arc::clone(&SECRET)),
        incarnation: [9; 16],
    }
}

pub(crate) fn frame_seeds() -> Vec<(String, Vec<u8>)> {
    let hello = |role, present| Frame::Hello(Box::new(own(1, role).hello(&EXPORTER, &peer(0), present)));
    let at_home = Present {
        log: Some(LogId([6; 32])),
        has_records: true,
        steadfast: false,
        store: Some(StoreId(900)),
        address: Some(Address("10.0.0.7:4000".to_owned())),
    };
    let mut attested = own(1, Role::Client).hello(&EXPORTER, &peer(0), Present::default());
    attested.attestation = Some(vec![1, 2, 3]);
    let voter = |place: usize| RaftId { peer: peer(place), store: StoreId(900) };
    let voters: BTreeSet<_> = (0..3).map(voter).collect();
    let frames = [
        ("hello-server", hello(Role::Server, at_home.clone())),
        ("hello-aggregator", hello(Role::Aggregator, Present { store: None, ..at_home })),
        ("hello-client", hello(Role::Client, Present::default())),
        ("hello-attested", Frame::Hello(Box::new(attested))),
        ("hello-refused", Frame::HelloRefused { reason: Refusal::GroupProof }),
        ("hello-refused-full", Frame::HelloRefused { reason: Refusal::Full }),
        ("welcome", Frame::Welcome),
        ("ping", Frame::Ping { nonce: u64::MAX }),
        ("pong", Frame::Pong { nonce: 0 }),
        ("goodbye", Frame::Goodbye { reason: Farewell::Departing }),
        ("peers-wanted", Frame::PeersWanted { have: vec![(peer(0), 1), (peer(1), 300)] }),
        ("peers", Frame::Peers { entries: vec![entry(1, 1), entry(2, 300)] }),
        ("members", Frame::Members { log: Some(LogId([6; 32])), index: 300, voters }),
        ("members-none", Frame::Members { log: None, index: 0, voters: BTreeSet::new() }),
        ("reach", Frame::Reach { servers: (0..3).map(peer).collect() }),
        ("reach-nobody", Frame::Reach { servers: BTreeSet::new() }),
    ];
    let frames = frames.into_iter().map(|(name, frame)| (name.to_owned(), frame.encode()));
    frames.chain([cut(&Frame::Welcome.encode())]).collect()
}

fn identity(number: u16) -> Identity {
    Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text(&format!("stranger {number}")).0))
}

fn entry(number: u16, sequence: u64) -> PeerEntry {
    let address = Address(format!("10.0.0.{number}:4000"));
    PeerEntry::sign(&identity(number), INSTANCE, Role::Server, Some(address), sequence)
}

/// More than a book takes.
fn crowd() -> &'static [PeerEntry] {
    static CROWD: LazyLock<Vec<PeerEntry>> =
        LazyLock::new(|| (100..400).map(|number| entry(number, 1)).collect());
    &CROWD
}

/// A book among peers that send frames and sign whatever they like. It stays within its bounds, so that what it says
/// fits a frame; an entry that is refused changes nothing in it.
pub(crate) fn peer_book(bytes: &[u8]) -> Verdict {
    const OWN: u16 = 0;
    let mut draw = Draw::new(bytes);
    let mut book = PeerBook::new(identity(OWN).peer(), INSTANCE, Duration::from_secs(15));
    let (mut now, mut taken, mut deeds, mut crowded) = (Time(0), false, 0, 0);
    while let Some(deed) = draw.byte() {
        deeds += 1;
        if deeds > 64 {
            break;
        }
        match deed % 8 {
            0..=1 => match Frame::decode(draw.chunk()) {
                Ok(Frame::Peers { entries }) => {
                    for entry in entries {
                        taken |= receive(&mut book, now, entry);
                    }
                }
                Ok(Frame::PeersWanted { have }) => {
                    let missing = book.missing(&have);
                    assert!(missing.len() <= ENTRIES_LEN_MAX);
                    for entry in &missing {
                        let known = have.iter().rfind(|(peer, _)| *peer == entry.peer);
                        assert!(known.is_none_or(|(_, sequence)| *sequence < entry.sequence), "it was known");
                    }
                    assert!(Frame::decode(&Frame::Peers { entries: missing }.encode()).is_ok());
                }
                _ => {}
            },
            2..=3 => {
                let (number, how) = (u16::from(draw.byte().unwrap_or(0) % 8), draw.byte().unwrap_or(0));
                let role = [Role::Server, Role::Aggregator, Role::Client][usize::from(how % 3)];
                let instance = if how & 0x70 == 0x70 { UniqueId([9; 32]) } else { INSTANCE };
                let sequence = if how >= 0x80 { u64::MAX } else { u64::from(draw.short()) };
                let address =
                    (how & 4 == 0).then(|| Address(String::from_utf8_lossy(draw.chunk()).into_owned()));
                let entry = PeerEntry::sign(&identity(number), instance, role, address, sequence);
                taken |= receive(&mut book, now, entry);
            }
            4 => {
                let from = usize::from(draw.short()) % crowd().len();
                // Verifying takes time, and one crowd is more than a book takes.
                let count = usize::from(draw.short()) % crowd().len().saturating_sub(crowded).max(1);
                crowded += count;
                // Told by somebody trusted, or by one stranger, or each by itself.
                let source = |entry: &PeerEntry| match from % 3 {
                    0 => Source { from: entry.peer, vouches: true },
                    1 => Source { from: identity(1).peer(), vouches: false },
                    _ => Source { from: entry.peer, vouches: false },
                };
                let dear: Vec<_> = book.iter().map(|entry| entry.peer).collect();
                let dear: Vec<_> = dear.into_iter().filter(|peer| book.is_precious(peer)).collect();
                for entry in crowd().iter().cycle().skip(from).take(count) {
                    taken |= book.receive_from(now, entry.clone(), source(entry)).is_ok();
                }
                assert!(
                    dear.iter().all(|peer| book.get(peer).is_some()),
                    "a crowd pushed out one that matters"
                );
                let strangers = book.iter().filter(|entry| !book.hands_on(&entry.peer)).count();
                assert!(strangers <= STRANGERS_MAX, "{strangers} strangers");
            }
            5 => {
                let entry =
                    PeerEntry::sign(&identity(OWN), INSTANCE, Role::Server, None, book.next_sequence());
                book.announce(now, entry);
            }
            6 => {
                now = now.after(Duration::from_millis(u64::from(draw.short())));
                book.expire(now);
                assert!(book.deadline() > now, "what is expired was kept");
            }
            _ => {
                let few = usize::from(draw.short()) % 300;
                let precious: BTreeSet<_> = book.iter().map(|entry| entry.peer).take(few).collect();
                book.set_precious(precious);
            }
        }
        let digest = book.digest();
        assert!(digest.len() <= DIGEST_LEN_MAX, "the book has {} entries", digest.len());
        assert!(Frame::decode(&Frame::PeersWanted { have: digest }.encode()).is_ok());
    }
    if taken { Verdict::Taken } else { Verdict::Refused }
}

fn receive(book: &mut PeerBook, now: Time, entry: PeerEntry) -> bool {
    let before: Vec<_> = book.iter().cloned().collect();
    let (peer, sequence) = (entry.peer, book.next_sequence());
    match book.receive(now, entry) {
        Ok(()) => {
            assert!(book.get(&peer).is_some(), "it was taken and is not there");
            true
        }
        Err(reason) => {
            assert!(book.iter().eq(&before), "a refused entry changed the book");
            assert!(reason == EntryRefused::Own || book.next_sequence() == sequence);
            false
        }
    }
}

pub(crate) fn peer_book_seeds() -> Vec<(String, Vec<u8>)> {
    let peers = Frame::Peers { entries: vec![entry(1, 1), entry(2, 300)] }.encode();
    let forged = Frame::Peers { entries: vec![PeerEntry { sequence: 9, ..entry(1, 1) }] }.encode();
    let wanted = Frame::PeersWanted { have: vec![(identity(1).peer(), 1)] }.encode();
    let script = Script::default;
    let signed = |script: Script, number, how, sequence| {
        script.byte(2).byte(number).byte(how).short(sequence).chunk(b"10.0.0.7:4000")
    };
    let own = signed(signed(script().byte(5), 0, 0, 9), 0, 0x70, 10);
    let renewed = signed(signed(script(), 1, 0, 5), 1, 1, 6).byte(0).chunk(&peers).byte(6).short(60_000);
    vec![
        ("asked".to_owned(), script().byte(5).byte(0).chunk(&peers).byte(0).chunk(&wanted).0),
        ("forged".to_owned(), script().byte(0).chunk(&forged).0),
        (
            "crowd".to_owned(),
            script().byte(5).byte(4).short(0).short(299).byte(7).short(299).byte(4).short(0).short(299).0,
        ),
        ("own".to_owned(), own.byte(5).0),
        ("renewed".to_owned(), renewed.byte(6).short(60_000).0),
        ("log".to_owned(), script().byte(0).chunk(LOG.0.as_slice()).0),
    ]
}
