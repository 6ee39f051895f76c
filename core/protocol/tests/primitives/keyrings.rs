//! The keyring makes what its machine asks for, and a pad with no other key than the listed one.

use std::sync::Arc;

use zipnet_core::bitmap::Bitmap;
use zipnet_core::fold::Fold;
use zipnet_core::id::{Counter, Digest, Epoch, GroupId, UniqueId};
use zipnet_core::key::{NodeSecret, PublicKey};
use zipnet_core::keyring::Keyring;
use zipnet_core::machine::{Done, Job};
use zipnet_core::message::{Bundle, Envelope, Floors, Header, Role, RosterServer, Standing};
use zipnet_core::params::RoundParams;
use zipnet_core::partial::finalise;
use zipnet_core::registry::ClientRegistry;
use zipnet_core::slot::{SlotContent, read_slots};

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
    match keyring.perform(&Job::MakeBundle { epoch: Epoch(epoch), fresh_key }) {
        Done::BundleMade(bundle) => bundle,
        other => panic!("a bundle was asked for: {other:?}"),
    }
}

struct Round {
    servers: Vec<Keyring>,
    clients: Vec<Keyring>,
    registry: ClientRegistry,
    header: Arc<Header>,
}

fn round() -> Round {
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
    Round { servers, clients, registry, header: Arc::new(header) }
}

fn seal(keyring: &mut Keyring, header: &Arc<Header>, epoch: u64, payload: Option<Vec<u8>>) -> Done {
    keyring.perform(&Job::Seal { header: Arc::clone(header), epoch: Epoch(epoch), payload })
}

fn sealed(keyring: &mut Keyring, header: &Arc<Header>, payload: Option<Vec<u8>>) -> (Envelope, Option<u32>) {
    match seal(keyring, header, 1, payload) {
        Done::Sealed { envelope, slot } => (*envelope, slot),
        other => panic!("an envelope was asked for: {other:?}"),
    }
}

fn no_key(header: &Header) -> Done {
    Done::NoKey { round: header.round, header: header.digest() }
}

fn keys(registry: &ClientRegistry) -> Arc<[PublicKey]> {
    registry.iter().map(|(_, bundle)| bundle.round_key).collect()
}

#[test]
fn a_round_of_keyrings_carries_a_message() {
    let Round { mut servers, mut clients, registry, header } = round();
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
    let job = Job::MakePartial {
        header: Arc::clone(&header),
        aggregate: Digest([1; 32]),
        clients: keys(&registry),
    };
    let partials: Vec<_> = servers
        .iter_mut()
        .map(|server| match server.perform(&job) {
            Done::PartialMade(partial) => {
                assert!(partial.verify());
                assert_eq!((partial.server, partial.aggregate), (server.peer(), Digest([1; 32])));
                // Made again, it is the same: pair keys come from the cache now.
                assert_eq!(server.perform(&job), Done::PartialMade(partial.clone()));
                partial.body
            }
            other => panic!("a partial was asked for: {other:?}"),
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
    let Round { mut servers, registry, header, .. } = round();
    let job = Job::MakePartial {
        header: Arc::clone(&header),
        aggregate: Digest([1; 32]),
        clients: keys(&registry),
    };
    announce(&mut servers[0], 2, false);
    assert!(matches!(servers[0].perform(&job), Done::PartialMade(_)), "a new epoch of the same key is fine");
    announce(&mut servers[0], 3, true);
    assert_eq!(servers[0].perform(&job), no_key(&header));
    servers[1].forget_round_key();
    assert_eq!(servers[1].perform(&job), no_key(&header));
    assert_eq!(servers[1].round_key(), None);
    // Nor does a server that the roster does not list, nor under another committee's header.
    let mut stranger = keyring("a stranger", Role::Server);
    announce(&mut stranger, 1, true);
    assert_eq!(stranger.perform(&job), no_key(&header));
    let mut foreign = Header::clone(&header);
    foreign.group = GroupId([0x31; 32]);
    let foreign = Arc::new(foreign);
    let job = Job::MakePartial {
        header: Arc::clone(&foreign),
        aggregate: Digest([1; 32]),
        clients: keys(&registry),
    };
    assert_eq!(servers[2].perform(&job), no_key(&foreign));
}

#[test]
fn a_client_seals_only_with_the_key_of_its_registered_bundle() {
    let Round { mut clients, header, .. } = round();
    let client = &mut clients[0];
    assert_eq!(seal(client, &header, 2, None), no_key(&header), "an epoch that was not announced");
    announce(client, 2, false);
    assert!(matches!(seal(client, &header, 1, None), Done::Sealed { .. }));
    assert!(matches!(seal(client, &header, 2, None), Done::Sealed { .. }));
    announce(client, 3, true);
    assert_eq!(seal(client, &header, 2, None), no_key(&header), "an epoch of the key before");
    let mut unannounced = keyring("a newcomer", Role::Client);
    assert_eq!(seal(&mut unannounced, &header, 1, None), no_key(&header));
}

#[test]
fn a_peer_key_that_agrees_on_nothing_gets_nothing() {
    let Round { mut servers, mut clients, header, .. } = round();
    let mut weak = Header::clone(&header);
    weak.servers[1].round_key = PublicKey([0; 32]);
    let weak = Arc::new(weak);
    assert_eq!(seal(&mut clients[0], &weak, 1, None), no_key(&weak));
    let job = Job::MakePartial {
        header: Arc::clone(&header),
        aggregate: Digest([1; 32]),
        clients: [PublicKey([0; 32])].into(),
    };
    assert_eq!(servers[0].perform(&job), no_key(&header));
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
    let Round { mut clients, header, .. } = round();
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
        Job::SignHeader { log, round, header, refused: Bitmap::new(3) },
        Job::SignRecord { log, round, record: header },
        Job::Disclaim { log, round, header },
        Job::Announce { log, epoch: Epoch(7), counter: Counter(1), standing: Standing::Registered },
        Job::Testify { log, server: client, epoch: Epoch(1) },
        Job::Approve { log, bundle: candidate },
        Job::Refuse { log, counter: Counter(1), client, epoch: Epoch(1), refuse: true },
        Job::SignAggregate { log, round, header, participants: Bitmap::new(3), body: vec![1] },
        Job::SignBatch { log, counter: Counter(1), register: vec![bundle], expire: vec![(client, Epoch(1))] },
    ];
    let me = server.peer();
    for job in jobs {
        let good = match server.perform(&job) {
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
