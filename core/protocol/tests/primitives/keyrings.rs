//! The keyring makes what its machine asks for, and a pad with no other key than the listed one.

use std::sync::Arc;

use zipnet_core::bitmap::Bitmap;
use zipnet_core::checks::Strict;
use zipnet_core::fold::{Fold, xor_into};
use zipnet_core::id::{Counter, Digest, Epoch, GroupId, LogId, PeerId, Role, Round, UniqueId};
use zipnet_core::key::{NodeSecret, PublicKey, RoundSecret};
use zipnet_core::keyring::{Begun, Keyring, Share};
use zipnet_core::machine::{Done, Job};
use zipnet_core::message::{Bundle, Envelope, Floors, Header, RosterServer, Standing};
use zipnet_core::pad::End;
use zipnet_core::params::RoundParams;
use zipnet_core::partial::finalise;
use zipnet_core::registry::ClientRegistry;
use zipnet_core::slot::{Payload, SlotContent, read_slots};

use crate::sample::{self, LOG, ROUND};

const GROUP: GroupId = GroupId([0x30; 32]);

fn keyring(name: &str, role: Role) -> Keyring {
    let server = role == Role::Server;
    Keyring::new(
        &NodeSecret::from_bytes(UniqueId::from_text(name).0),
        role,
        UniqueId::from_text("an instance"),
        server.then_some(GROUP),
        server.then_some(Floors { participants: 1, servers: None }),
        *blake3::hash(name.as_bytes()).as_bytes(),
    )
}

fn announce(keyring: &mut Keyring, epoch: u64, fresh_key: bool) -> Bundle {
    match keyring.perform(&Job::MakeBundle { epoch: Epoch(epoch), fresh_key }, || [0x5a; 32]) {
        Done::BundleMade(bundle) => bundle,
        other => panic!("a bundle was asked for: {other:?}"),
    }
}

struct Story {
    servers: Vec<Keyring>,
    clients: Vec<Keyring>,
    registry: ClientRegistry,
    header: Arc<Header>,
}

fn story() -> Story {
    let make = |kind: &str, count: usize, role: Role| {
        let mut all: Vec<_> = (0..count).map(|number| keyring(&format!("{kind} {number}"), role)).collect();
        all.sort_by_key(Keyring::peer);
        let bundles: Vec<_> = all.iter_mut().map(|keyring| announce(keyring, 1, true)).collect();
        (all, bundles)
    };
    let (servers, roster) = make("server", 3, Role::Server);
    let (clients, bundles) = make("client", 4, Role::Client);
    let mut registry = ClientRegistry::new();
    registry.apply(&bundles, &[], Counter(1));
    let params = RoundParams::new(4, 32, 8).expect("the parameters are good");
    let mut header = sample::header(&[], registry.set(), params);
    header.servers = roster.iter().map(RosterServer::from).collect();
    Story { servers, clients, registry, header: Arc::new(header) }
}

fn seal(keyring: &mut Keyring, header: &Arc<Header>, epoch: u64, text: Option<Vec<u8>>) -> Done {
    let (header, epoch, cover) = (Arc::clone(header), Epoch(epoch), text.is_none());
    let payload = Payload::new(&text.unwrap_or_default(), &header.params).expect("it fits");
    keyring.perform(&Job::Seal { header, epoch, payload, cover }, || [0x5a; 32])
}

fn sealed(keyring: &mut Keyring, header: &Arc<Header>, payload: Option<Vec<u8>>) -> (Envelope, Option<u32>) {
    match seal(keyring, header, 1, payload) {
        Done::Sealed { envelope, slot } => (*envelope, slot),
        other => panic!("an envelope was asked for: {other:?}"),
    }
}

fn withheld(header: &Header) -> Done {
    Done::Withheld { round: header.round, header: header.digest() }
}

fn ends(registry: &ClientRegistry) -> Arc<[End]> {
    registry.iter().map(|(_, bundle)| End::from(bundle)).collect()
}

fn promise(keyring: &mut Keyring, key_epoch: u64, header: &Header) -> Done {
    let (key_epoch, log, round) = (Epoch(key_epoch), header.log, header.round);
    let refused = Bitmap::new(header.clients.count);
    keyring
        .perform(&Job::SignHeader { key_epoch, log, round, header: header.digest(), refused }, || [0x5a; 32])
}

fn promised(keyring: &mut Keyring, key_epoch: u64, header: &Header) {
    let done = promise(keyring, key_epoch, header);
    assert!(matches!(done, Done::HeaderSigned(_)), "{done:?}");
}

fn partial(keyring: &mut Keyring, key_epoch: u64, header: &Arc<Header>, clients: &Arc<[End]>) -> Done {
    let (key_epoch, header, clients) = (Epoch(key_epoch), Arc::clone(header), Arc::clone(clients));
    let aggregate = Digest([1; 32]);
    keyring.perform(&Job::MakePartial { key_epoch, header, aggregate, clients }, || [0x5a; 32])
}

fn disclaim(keyring: &mut Keyring, key_epoch: u64, header: &Header) -> Done {
    let (key_epoch, log, round) = (Epoch(key_epoch), header.log, header.round);
    keyring.perform(&Job::Disclaim { key_epoch, log, round, header: header.digest() }, || [0x5a; 32])
}

/// A later header of the same roster and clients.
fn later(header: &Header, rounds: u64) -> Arc<Header> {
    let mut later = header.clone();
    later.round = Round(header.round.0 + rounds);
    later.nonce = [0x21; 32];
    Arc::new(later)
}

#[test]
fn a_round_of_keyrings_carries_a_message() {
    let Story { mut servers, mut clients, registry, header } = story();
    let mut fold = Fold::new(header.params.vector_bytes());
    let mut written = None;
    for (number, client) in clients.iter_mut().enumerate() {
        let payload = (number == 2).then(|| vec![0x42; header.params.payload_bytes()]);
        let (envelope, slot) = sealed(client, &header, payload);
        assert!(envelope.verify(&client.peer()));
        assert_eq!(envelope.header, header.digest());
        fold.add(&envelope.body).expect("the length fits");
        written = written.or(slot);
    }
    let clients = ends(&registry);
    let partials: Vec<_> = servers
        .iter_mut()
        .map(|server| {
            promised(server, 1, &header);
            match partial(server, 1, &header, &clients) {
                Done::PartialMade(partial) => {
                    assert!(partial.verify());
                    assert_eq!((partial.server, partial.aggregate), (server.peer(), Digest([1; 32])));
                    partial.body
                }
                other => panic!("a partial was asked for: {other:?}"),
            }
        })
        .collect();
    let broadcast = finalise(fold.as_bytes(), partials.iter().map(Vec::as_slice));
    let messages: Vec<_> = (0u32..)
        .zip(read_slots(&header.params, &header.digest(), &broadcast))
        .filter(|(_, content)| *content != SlotContent::Empty)
        .collect();
    let slot = written.expect("one client wrote");
    assert_eq!(messages, [(slot, SlotContent::Message(&[0x42; 24]))]);
}

#[test]
fn a_server_that_took_a_new_key_makes_no_partial_of_the_old_round() {
    let Story { mut servers, registry, header, .. } = story();
    let clients = ends(&registry);
    servers.iter_mut().for_each(|server| promised(server, 1, &header));
    announce(&mut servers[0], 2, false);
    let done = partial(&mut servers[0], 2, &header, &clients);
    assert!(matches!(done, Done::PartialMade(_)), "a new epoch of the same key is fine: {done:?}");
    announce(&mut servers[1], 3, true);
    for epoch in [1, 3] {
        assert_eq!(partial(&mut servers[1], epoch, &header, &clients), withheld(&header), "epoch {epoch}");
    }
    let done = servers[2].perform(&Job::ForgetKey, || unreachable!("no key is drawn"));
    assert_eq!((done, servers[2].round_key()), (Done::KeyForgotten, None));
    assert_eq!(partial(&mut servers[2], 1, &header, &clients), withheld(&header));
    // Nor does a server that the roster does not list, nor under another committee's header.
    let mut stranger = keyring("a stranger", Role::Server);
    announce(&mut stranger, 1, true);
    promised(&mut stranger, 1, &header);
    assert_eq!(partial(&mut stranger, 1, &header, &clients), withheld(&header));
    let mut foreign = Header::clone(&later(&header, 1));
    foreign.group = GroupId([0x31; 32]);
    let foreign = Arc::new(foreign);
    promised(&mut servers[0], 2, &foreign);
    assert_eq!(partial(&mut servers[0], 2, &foreign, &clients), withheld(&foreign));
}

/// Whatever the machine was told, and by whomsoever: the key itself remembers what it has promised.
#[test]
fn a_round_key_keeps_its_promises() {
    let Story { mut servers, registry, header, .. } = story();
    let clients = ends(&registry);
    let fewer: Arc<[End]> = clients[1..].into();
    let server = &mut servers[0];
    assert_eq!(partial(server, 1, &header, &clients), withheld(&header), "nothing was promised");
    assert_eq!(disclaim(server, 1, &header), withheld(&header), "nor is there anything to disclaim");

    promised(server, 1, &header);
    let mut other = Header::clone(&header);
    other.nonce = [0x22; 32];
    assert_eq!(promise(server, 1, &other), withheld(&other), "another header of the same round");
    let mut elsewhere = Header::clone(&later(&header, 1));
    elsewhere.log = LogId([0x11; 32]);
    assert_eq!(promise(server, 1, &elsewhere), withheld(&elsewhere), "another log");
    let earlier = {
        let mut earlier = Header::clone(&header);
        earlier.round = Round(header.round.0 - 1);
        earlier
    };
    assert_eq!(promise(server, 1, &earlier), withheld(&earlier), "an earlier round");

    assert!(matches!(partial(server, 1, &header, &clients), Done::PartialMade(_)));
    assert_eq!(partial(server, 1, &header, &fewer), withheld(&header), "a second partial under one header");
    assert_eq!(disclaim(server, 1, &header), withheld(&header), "it has given one");
    promised(server, 1, &header);
    assert_eq!(partial(server, 1, &header, &fewer), withheld(&header), "signing again changes nothing");

    let next = later(&header, 1);
    promised(server, 1, &next);
    assert_eq!(promise(server, 1, &header), withheld(&header), "the newest promise only");
    assert!(matches!(disclaim(server, 1, &next), Done::Disclaimed(_)));
    assert!(matches!(disclaim(server, 1, &next), Done::Disclaimed(_)), "said again, it is the same");
    assert_eq!(partial(server, 1, &next, &clients), withheld(&next), "it was disclaimed");
    assert_eq!(promise(server, 1, &next), withheld(&next), "and is not promised again");

    let last = later(&header, 2);
    promised(server, 1, &last);
    announce(server, 2, true);
    for epoch in [1, 2] {
        assert_eq!(
            partial(server, epoch, &last, &clients),
            withheld(&last),
            "by the key before, epoch {epoch}"
        );
        assert_eq!(disclaim(server, epoch, &last), withheld(&last), "epoch {epoch}");
    }
}

#[test]
fn a_header_is_signed_again_with_the_refusals_of_the_first_time() {
    let Story { mut servers, header, .. } = story();
    let sign = |keyring: &mut Keyring, places: &[u32]| {
        let refused = Bitmap::from_ones(header.clients.count, places.iter().copied()).expect("inside");
        let (key_epoch, log, round) = (Epoch(1), header.log, header.round);
        match keyring
            .perform(&Job::SignHeader { key_epoch, log, round, header: header.digest(), refused }, || [0; 32])
        {
            Done::HeaderSigned(signed) => signed,
            other => panic!("{other:?}"),
        }
    };
    let first = sign(&mut servers[0], &[2]);
    assert_eq!(sign(&mut servers[0], &[1, 3]), first);
}

/// A server that announces the round key of another one has none of that one's pads.
#[test]
fn pads_of_equal_round_keys_do_not_cancel() {
    let Story { mut servers, mut clients, header, .. } = story();
    let mut copied = Header::clone(&header);
    copied.servers[1].round_key = copied.servers[0].round_key;
    let copied = Arc::new(copied);
    let (envelope, _) = sealed(&mut clients[0], &copied, Some(vec![0x42; 24]));
    let all: Arc<[End]> =
        [End { peer: clients[0].peer(), round_key: clients[0].round_key().expect("drawn") }].into();
    let mut opened = envelope.body;
    // Without the two whose keys are equal: their pads are still on.
    promised(&mut servers[2], 1, &copied);
    let Done::PartialMade(last) = partial(&mut servers[2], 1, &copied, &all) else {
        panic!("it is promised")
    };
    xor_into(&mut opened, &last.body);
    let slots: Vec<_> = read_slots(&header.params, &copied.digest(), &opened).collect();
    assert!(slots.iter().all(|slot| *slot == SlotContent::Garbled), "{slots:?}");
}

/// Two clients with one round key have two pads with a server.
#[test]
fn a_copied_client_key_takes_nobody_s_pad_out_of_a_partial() {
    let Story { mut servers, mut clients, registry, header } = story();
    let mut ends = ends(&registry).to_vec();
    ends[1].round_key = ends[0].round_key;
    let (envelope, _) = sealed(&mut clients[2], &header, Some(vec![0x42; 24]));
    let mut opened = envelope.body;
    for server in &mut servers {
        promised(server, 1, &header);
        let all: Arc<[End]> = ends[..3].into();
        let Done::PartialMade(made) = partial(server, 1, &header, &all) else { panic!("it is promised") };
        xor_into(&mut opened, &made.body);
    }
    let slots: Vec<_> = read_slots(&header.params, &header.digest(), &opened).collect();
    assert!(slots.iter().all(|slot| *slot == SlotContent::Garbled), "two pads are on: {slots:?}");
}

#[test]
fn fresh_randomness_goes_into_every_new_key() {
    let key = |first: u8, second: u8| {
        let mut keyring = keyring("a node", Role::Client);
        let mut drawn = [first, second].into_iter();
        [1, 2].map(|epoch| {
            let job = Job::MakeBundle { epoch: Epoch(epoch), fresh_key: true };
            let Done::BundleMade(bundle) = keyring.perform(&job, || [drawn.next().expect("two"); 32]) else {
                panic!("a bundle was asked for")
            };
            bundle.round_key
        })
    };
    let (one, other) = (key(1, 2), key(1, 3));
    assert_eq!(one[0], other[0], "a copy of the memory and of the randomness gives the same key");
    assert_ne!(one[1], other[1], "and another one once the randomness differs");
    let mut kept = keyring("a node", Role::Client);
    announce(&mut kept, 1, true);
    let again = Job::MakeBundle { epoch: Epoch(2), fresh_key: false };
    assert!(matches!(kept.perform(&again, || unreachable!("the key stays")), Done::BundleMade(_)));
}

#[test]
fn a_client_seals_only_with_the_key_of_its_registered_bundle() {
    let Story { mut clients, header, .. } = story();
    let client = &mut clients[0];
    assert_eq!(seal(client, &header, 2, None), withheld(&header), "an epoch that was not announced");
    announce(client, 2, false);
    assert!(matches!(seal(client, &header, 1, None), Done::Sealed { .. }));
    assert!(matches!(seal(client, &header, 2, None), Done::Sealed { .. }));
    announce(client, 3, true);
    assert_eq!(seal(client, &header, 2, None), withheld(&header), "an epoch of the key before");
    let mut unannounced = keyring("a newcomer", Role::Client);
    assert_eq!(seal(&mut unannounced, &header, 1, None), withheld(&header));
}

#[test]
fn a_peer_key_that_agrees_on_nothing_gets_nothing() {
    let Story { mut servers, mut clients, header, .. } = story();
    let mut weak = Header::clone(&header);
    weak.servers[1].round_key = PublicKey([0; 32]);
    let weak = Arc::new(weak);
    assert_eq!(seal(&mut clients[0], &weak, 1, None), withheld(&weak));
    promised(&mut servers[0], 1, &header);
    let nobody = End { peer: clients[0].peer(), round_key: PublicKey([0; 32]) };
    assert_eq!(partial(&mut servers[0], 1, &header, &[nobody].into()), withheld(&header));
}

#[test]
fn every_round_key_is_new_and_none_follows_from_the_node_secret() {
    let mut one = keyring("a node", Role::Client);
    let keys: Vec<_> = (1..5).map(|epoch| announce(&mut one, epoch, true).round_key).collect();
    let mut distinct = keys.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), keys.len());
    let mut restarted = Keyring::new(
        &NodeSecret::from_bytes(UniqueId::from_text("a node").0),
        Role::Client,
        UniqueId::from_text("an instance"),
        None,
        None,
        [0x99; 32],
    );
    assert_eq!(restarted.peer(), one.peer());
    assert!(!keys.contains(&announce(&mut restarted, 1, true).round_key));
}

#[test]
fn messages_go_to_every_slot() {
    let Story { mut clients, header, .. } = story();
    let payload = vec![1; header.params.payload_bytes()];
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let (_, slot) = sealed(&mut clients[0], &header, Some(payload.clone()));
        seen.insert(slot.expect("a payload was given"));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(sealed(&mut clients[0], &header, None).1, None);
}

#[test]
fn everything_it_signs_verifies() {
    let mut server = keyring("server 0", Role::Server);
    let bundle = announce(&mut server, 7, true);
    assert!(bundle.verify());
    let mut aggregator = keyring("aggregator", Role::Aggregator);
    let candidate = announce(&mut aggregator, 1, true);
    let client = keyring("client", Role::Client).peer();
    let (log, round, header) = (LOG, ROUND, Digest([2; 32]));
    let jobs = [
        Job::SignHeader { key_epoch: Epoch(7), log, round, header, refused: Bitmap::new(3) },
        Job::SignRecord { log, round, record: header },
        Job::Disclaim { key_epoch: Epoch(7), log, round, header },
        Job::Announce { log, epoch: Epoch(7), counter: Counter(1), standing: Standing::Registered },
        Job::Testify { log, server: client, epoch: Epoch(1) },
        Job::Approve { log, bundle: candidate },
        Job::Refuse { log, counter: Counter(1), client, epoch: Epoch(1), refuse: true },
        Job::SignAggregate { log, round, header, participants: Bitmap::new(3), body: vec![1] },
        Job::SignBatch { log, counter: Counter(1), register: vec![bundle], expire: vec![(client, Epoch(1))] },
    ];
    let me = server.peer();
    for job in jobs {
        let good = match server.perform(&job, || [0x5a; 32]) {
            Done::HeaderSigned(signed) => signed.verify() && signed.server == me,
            Done::RecordSigned(signed) => signed.verify() && signed.server == me,
            Done::Disclaimed(disclaimer) => disclaimer.verify() && disclaimer.server == me,
            Done::Announced(announcement) => announcement.verify() && announcement.server == me,
            Done::Testified(testimony) => testimony.verify() && testimony.witness == me,
            Done::Approved(approval) => approval.verify() && approval.server == me,
            Done::RefusalSigned(refusal) => refusal.verify() && refusal.server == me,
            Done::AggregateSigned(aggregate) => aggregate.verify(&me),
            Done::BatchSigned(batch) => batch.verify(&me),
            other => panic!("{job:?} gave {other:?}"),
        };
        assert!(good, "{job:?}");
    }
}

fn begun(keyring: &mut Keyring, job: &Job, threads: usize) -> Vec<Share<Strict>> {
    match keyring.begin(job, threads, || unreachable!("no key is drawn")) {
        Begun::Shared(shares) => shares,
        Begun::Done(done) => panic!("it has shares: {done:?}"),
    }
}

/// A server with its promise, and so many clients in order.
fn crowd(number: usize) -> (Keyring, Arc<Header>, Arc<[End]>) {
    let Story { mut servers, header, .. } = story();
    let mut server = servers.remove(0);
    promised(&mut server, 1, &header);
    let seed = |number: usize| *blake3::hash(&number.to_le_bytes()).as_bytes();
    let end =
        |number| End { peer: PeerId(seed(number)), round_key: RoundSecret::from_seed(seed(number)).public() };
    let mut clients: Vec<_> = (0..number).map(end).collect();
    clients.sort_unstable();
    (server, header, clients.into())
}

fn making(header: &Arc<Header>, clients: &Arc<[End]>) -> Job {
    let (key_epoch, aggregate) = (Epoch(1), Digest([1; 32]));
    Job::MakePartial { key_epoch, header: Arc::clone(header), aggregate, clients: Arc::clone(clients) }
}

#[test]
fn a_partial_is_the_same_in_any_number_of_shares() {
    for number in [0, 1, 256, 257, 700] {
        let (mut alone, header, clients) = crowd(number);
        let job = making(&header, &clients);
        let whole = alone.perform(&job, || unreachable!("no key is drawn"));
        assert!(matches!(whole, Done::PartialMade(_)), "{whole:?}");
        for threads in [1, 2, 3, 64] {
            let (mut server, ..) = crowd(number);
            let shares = begun(&mut server, &job, threads);
            assert_eq!(shares.len(), threads.min(number.div_ceil(256)).max(1), "{number} among {threads}");
            // The last one is ready first.
            let mut worked: Vec<_> = shares.into_iter().rev().map(Share::work).collect();
            worked.reverse();
            assert_eq!(server.finish(&job, worked), whole, "{number} among {threads}");
        }
    }
}

#[test]
fn keys_that_were_agreed_on_ahead_are_not_agreed_on_in_a_round() {
    let (mut server, header, clients) = crowd(300);
    let missing = |server: &mut Keyring, job: &Job| -> usize {
        let shares = begun(server, job, 2);
        let missing = shares.iter().map(Share::missing).sum();
        let done = server.finish(job, shares.into_iter().map(Share::work).collect());
        assert!(matches!(done, Done::Agreed | Done::PartialMade(_)), "{done:?}");
        missing
    };
    let agree = |clients: &[End]| Job::Agree { key_epoch: Epoch(1), clients: clients.into() };
    assert_eq!(missing(&mut server, &agree(&clients[..200])), 200);
    assert_eq!(missing(&mut server, &agree(&clients[100..250])), 50, "the others are known");
    assert_eq!(missing(&mut server, &making(&header, &clients)), 50, "so are these");
    let next = later(&header, 1);
    promised(&mut server, 1, &next);
    assert_eq!(missing(&mut server, &making(&next, &clients)), 0);
    let mut turned = clients.to_vec();
    turned.reverse();
    assert_eq!(missing(&mut server, &agree(&turned)), 0, "in whatever order");
    // One that shares no key with anybody keeps nobody else from agreeing.
    let weak = End { round_key: PublicKey([0; 32]), ..clients[0] };
    assert_eq!(missing(&mut server, &agree(&[weak, clients[1]])), 1);
}

#[test]
fn nothing_comes_of_work_whose_key_was_forgotten_or_promised_elsewhere_meanwhile() {
    type Meanwhile = fn(&mut Keyring, &Header);
    let cases: [(Meanwhile, bool); 4] = [
        (|_, _| {}, true),
        (|server, _| server.forget_round_key(), false),
        (|server, _| assert_eq!(announce(server, 2, true).epoch, Epoch(2)), false),
        (|server, header| promised(server, 1, &later(header, 1)), false),
    ];
    for (place, (meanwhile, stands)) in cases.into_iter().enumerate() {
        let (mut server, header, clients) = crowd(3);
        let job = making(&header, &clients);
        let shares = begun(&mut server, &job, 1);
        // The keyring is free while they are worked on.
        meanwhile(&mut server, &header);
        let done = server.finish(&job, shares.into_iter().map(Share::work).collect());
        assert_eq!(matches!(done, Done::PartialMade(_)), stands, "case {place}: {done:?}");
        if !stands {
            assert_eq!(done, withheld(&header), "case {place}");
        }
        // What was agreed on with a key that is gone is not kept for another one.
        if place == 2 {
            let agree = Job::Agree { key_epoch: Epoch(2), clients };
            let missing: usize = begun(&mut server, &agree, 1).iter().map(Share::missing).sum();
            assert_eq!(missing, 3);
        }
    }
}
