//! Gossip among peers who send whatever they like, each in its own name.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use zipnet_core::id::PeerId;
use zipnet_core::random::Random;
use zipnet_core::time::Time;
use zipnet_node::gossip::{DATAGRAM_BYTES_MAX, Effect, GOSSIP_VERSION, Gossip, Input, PEERS_MAX};

use crate::Verdict;
use crate::draw::{Draw, Script};

const PEERS: u8 = 4;

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn node(number: u8) -> Gossip {
    Gossip::new(peer(number), 1, Random::new([number; 32]))
}

/// A refused datagram changes nobody's standing, what is sent fits a datagram, and strangers fill no memory.
pub(crate) fn gossip(bytes: &[u8]) -> Verdict {
    let mut draw = Draw::new(bytes);
    let (mut gossip, mut now, mut taken) = (node(1), Time(0), false);
    for _ in 0..64 {
        let Some(deed) = draw.byte() else { break };
        match deed % 8 {
            0..=2 => {
                let Some((from, bytes)) = draw.one(heard()) else { continue };
                let mut bytes = bytes.to_vec();
                draw.alter(&mut bytes);
                taken |= feed(&mut gossip, now, Input::Received { from: *from, bytes: bytes.into() });
            }
            3 => {
                let from = peer(draw.byte().unwrap_or(0));
                // Version and sender stand in front in any case: nothing else would come further.
                let bytes = [&[GOSSIP_VERSION], &from.0[..], draw.chunk()].concat();
                taken |= feed(&mut gossip, now, Input::Received { from, bytes: bytes.into() });
            }
            4 => taken |= feed(&mut gossip, now, Input::Announce { peer: peer(draw.byte().unwrap_or(0)) }),
            5 => taken |= feed(&mut gossip, now, Input::Forget { peer: peer(draw.byte().unwrap_or(0)) }),
            6 => {
                now = now.after(Duration::from_millis(u64::from(draw.short())));
                feed(&mut gossip, now, Input::Tick);
                assert!(gossip.deadline() > now, "what is due was left open");
            }
            _ if deed == 0xff => taken |= feed(&mut gossip, now, Input::Leave),
            _ => {
                let (from, bytes) = (peer(2), draw.chunk().to_vec());
                taken |= feed(&mut gossip, now, Input::Received { from, bytes: bytes.into() });
            }
        }
    }
    if taken { Verdict::Taken } else { Verdict::Refused }
}

/// Whether the input was accepted.
fn feed(gossip: &mut Gossip, now: Time, input: Input) -> bool {
    let alive = gossip.alive().clone();
    let mut out = Vec::new();
    gossip.handle(now, input, &mut out);
    let rejected = out.iter().any(|effect| matches!(effect, Effect::Rejected { .. }));
    for effect in &out {
        match effect {
            Effect::Send { to, bytes } => {
                assert!(bytes.len() <= DATAGRAM_BYTES_MAX, "a datagram of {} bytes", bytes.len());
                assert!(*to != peer(1), "it talks to itself");
            }
            Effect::Alive { peer: who } | Effect::Dead { peer: who } => {
                assert!(*who != peer(1), "it gossips about itself");
            }
            Effect::Rejected { .. } => {}
        }
    }
    assert!(!rejected || *gossip.alive() == alive, "a refused datagram changed who is alive");
    assert!(gossip.alive().len() < PEERS_MAX && !gossip.alive().contains(&peer(1)));
    !rejected
}

/// What came to the first of four honest nodes, of whom one falls silent and one leaves.
fn heard() -> &'static [(PeerId, Bytes)] {
    static HEARD: LazyLock<Vec<(PeerId, Bytes)>> = LazyLock::new(listen);
    &HEARD
}

fn listen() -> Vec<(PeerId, Bytes)> {
    let mut nodes: Vec<Gossip> = (1..=PEERS).map(node).collect();
    let (mut now, mut heard, mut queue) = (Time(0), Vec::new(), VecDeque::new());
    for number in 2..=PEERS {
        queue.push_back((number, Input::Announce { peer: peer(1) }));
    }
    while now < Time(0).after(Duration::from_secs(40)) {
        while let Some((number, input)) = queue.pop_front() {
            // From the twentieth second on the third is silent.
            if number == 3 && now > Time(0).after(Duration::from_secs(20)) {
                continue;
            }
            let mut out = Vec::new();
            nodes[usize::from(number - 1)].handle(now, input, &mut out);
            for effect in out {
                if let Effect::Send { to, bytes } = effect {
                    if to == peer(1) {
                        heard.push((peer(number), bytes.clone()));
                    }
                    queue.push_back((to.0[0], Input::Received { from: peer(number), bytes }));
                }
            }
        }
        let due = nodes.iter().map(Gossip::deadline).min().unwrap_or(Time::NEVER);
        now = due.max(now.after(Duration::from_millis(10)));
        for (node, number) in nodes.iter().zip(1..) {
            if node.deadline() <= now {
                queue.push_back((number, Input::Tick));
            }
        }
        if now > Time(0).after(Duration::from_secs(35)) {
            queue.push_back((4, Input::Leave));
        }
    }
    heard.sort_by_key(|(_, bytes)| bytes.get(83).copied());
    heard.dedup_by_key(|(from, bytes)| (*from, bytes.get(83).copied(), bytes.len()));
    heard
}

pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = vec![
        ("noise".to_owned(), Script::default().byte(7).chunk(b"noise").0),
        ("own-name".to_owned(), Script::default().byte(3).byte(1).chunk(&[0; 60]).0),
    ];
    let everything = (0..heard().len().min(30)).fold(Script::default().byte(4).byte(2), |script, place| {
        script.byte(0).short(place).byte(0).byte(6).short(300)
    });
    seeds.push(("a-life".to_owned(), everything.byte(5).byte(2).byte(0xff).0));
    for place in 0..8 {
        let script = Script::default().byte(0).short(place * heard().len() / 8).byte(1).short(70).byte(3);
        seeds.push((format!("altered-{place}"), script.byte(6).short(1500).byte(6).short(1500).0));
    }
    seeds
}
