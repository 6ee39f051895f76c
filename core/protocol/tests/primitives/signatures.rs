//! What is signed covers every field, under a context of its own.

use std::collections::BTreeSet;

use zipnet_core::bitmap::Bitmap;
use zipnet_core::digest::{Context, Fields};
use zipnet_core::id::{Epoch, Role};
use zipnet_core::key::PublicKey;
use zipnet_core::message::{Command, Disclaimer, Floors, Message, RecordSignature};
use zipnet_core::signing::Invalid;
use zipnet_core::wire::{decode, decode_command, encode, encode_command};

use crate::sample::{self, bundle, header_signature, identity, live};

#[test]
fn no_two_contexts_are_the_same() {
    let texts: BTreeSet<_> = Context::ALL.iter().map(|context| context.text()).collect();
    assert_eq!(texts.len(), Context::ALL.len(), "a context string stands twice in the table");
    let digests: BTreeSet<_> = Context::ALL.iter().map(|context| Fields::new(*context).digest()).collect();
    assert_eq!(digests.len(), Context::ALL.len());
    assert!(texts.iter().all(|text| text.starts_with("zipnet v1 ") && text.len() > 12));
}

/// Whether a command's signature verifies; none for commands without one.
fn verifies(command: &Command) -> Option<bool> {
    let aggregator = identity("aggregator").peer();
    match command {
        Command::StartLog { .. } | Command::OpenRound(_) => None,
        Command::SignHeader(signature) => Some(signature.verify()),
        Command::SubmitAggregate(aggregate) => Some(aggregate.verify(&aggregator)),
        Command::SubmitPartial(partial) => Some(partial.verify()),
        Command::SignRecord(signature) => Some(signature.verify()),
        Command::RegisterServer { bundle, announcement } => Some(bundle.verify() && announcement.verify()),
        Command::DepartServer(announcement) | Command::RetireServer(announcement) => {
            Some(announcement.verify())
        }
        Command::TestifyDead(testimony) => Some(testimony.verify()),
        Command::ApproveAggregator(approval) => Some(approval.verify()),
        Command::ChangeClients(batch) => {
            Some(batch.verify(&aggregator) && batch.register.iter().all(|bundle| bundle.verify()))
        }
        Command::RefuseClient(refusal) => Some(refusal.verify()),
    }
}

#[test]
fn no_bit_of_a_signed_command_can_be_changed() {
    for command in sample::commands() {
        let Some(good) = verifies(&command) else { continue };
        assert!(good, "{command:?}");
        let bytes = encode_command(&command);
        // The first two bytes say what it is: departing and leaving differ in the kind and in the standing, and the
        // committee compares those.
        for bit in 16..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = decode_command(&flipped) {
                assert_eq!(verifies(&other), Some(false), "bit {bit} of {command:?}");
            }
        }
    }
}

#[test]
fn no_bit_of_a_disclaimer_can_be_changed() {
    let good = sample::disclaimer(&identity("server"));
    assert!(good.verify());
    let bytes = encode(&Message::Disclaimed { disclaimers: vec![good] });
    // Behind version, kind and the number of disclaimers.
    for bit in 24..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(Message::Disclaimed { disclaimers }) = decode(&flipped) {
            assert!(disclaimers.iter().all(|disclaimer| !disclaimer.verify()), "bit {bit}");
        }
    }
}

/// A record's signature with the same fields does not count as a disclaimer, nor the other way round.
#[test]
fn a_disclaimer_is_no_signature_of_anything_else() {
    let server = identity("server");
    let disclaimer = sample::disclaimer(&server);
    let mut signed = RecordSignature {
        log: disclaimer.log,
        round: disclaimer.round,
        record: disclaimer.header,
        server: disclaimer.server,
        signature: disclaimer.signature,
    };
    assert!(!signed.verify());
    signed.signature = server.sign(&signed.signed_digest());
    assert!(signed.verify());
    assert!(!Disclaimer { signature: signed.signature, ..disclaimer }.verify());
}

#[test]
fn an_envelope_is_signed_by_its_client() {
    let client = identity("client");
    let envelope = sample::envelope(&client, vec![1, 2, 3]);
    assert!(envelope.verify(&client.peer()));
    assert!(!envelope.verify(&identity("another").peer()));
    let mut changed = envelope.clone();
    changed.body[0] ^= 1;
    assert!(!changed.verify(&client.peer()));
    assert!(!encode(&Message::Envelope(envelope)).is_empty());
}

#[test]
fn a_bundle_without_a_use_is_refused_although_it_is_signed() {
    let peer = identity("a node");
    let good = bundle(&peer, Role::Client, 1);
    assert!(good.verify());
    let resign = |mut bundle: zipnet_core::message::Bundle| {
        bundle.signature = peer.sign(&bundle.digest());
        bundle
    };
    let mut weak = good.clone();
    weak.round_key = PublicKey([0; 32]);
    assert!(!resign(weak).verify());
    let mut floored = good;
    floored.floors = Some(Floors { participants: 1, servers: None });
    assert!(!resign(floored).verify());
    let mut floorless = bundle(&peer, Role::Server, 1);
    assert!(floorless.verify());
    floorless.floors = None;
    assert!(!resign(floorless).verify());
}

#[test]
fn a_live_header_gives_the_union_of_refusals() {
    let (_, _, live) = live(3, 5);
    assert_eq!(live.verify(), Ok(Bitmap::from_ones(5, [0, 1, 2]).expect("inside")));
}

#[test]
fn a_header_is_live_only_with_each_servers_signature_in_order() {
    let (servers, _, good) = live(3, 5);
    let (first, second) = (servers[0].peer(), servers[1].peer());

    let mut empty = good.clone();
    empty.header.servers.clear();
    assert_eq!(empty.verify(), Err(Invalid::EmptyRoster));

    let mut swapped = good.clone();
    swapped.header.servers.swap(0, 1);
    assert_eq!(swapped.verify(), Err(Invalid::DisorderedRoster));
    let mut twice = good.clone();
    twice.header.servers[1] = twice.header.servers[0];
    assert_eq!(twice.verify(), Err(Invalid::DisorderedRoster));

    let mut missing = good.clone();
    missing.signatures.pop();
    assert_eq!(missing.verify(), Err(Invalid::SignatureCount { servers: 3, signatures: 2 }));

    let mut repeated = good.clone();
    repeated.signatures[1] = repeated.signatures[0].clone();
    assert_eq!(repeated.verify(), Err(Invalid::Signer { expected: second, signer: first }));

    let mut changed = good.clone();
    changed.header.nonce[0] ^= 1;
    assert_eq!(changed.verify(), Err(Invalid::OtherHeader { server: first }));

    let mut narrow = good.clone();
    narrow.signatures[1] = header_signature(&narrow.header, &servers[1], Bitmap::new(4));
    assert_eq!(narrow.verify(), Err(Invalid::Refusals { server: second }));

    let mut hidden = good;
    hidden.signatures[1].refused = Bitmap::new(5);
    assert_eq!(hidden.verify(), Err(Invalid::Signature { server: second }));
}

#[test]
fn a_header_digest_depends_on_every_field() {
    let (_, _, live) = live(2, 3);
    let base = live.header;
    let mut all = BTreeSet::from([base.digest()]);
    let changes: [fn(&mut zipnet_core::message::Header); 14] = [
        |header| header.log.0[0] ^= 1,
        |header| header.round = header.round.next(),
        |header| header.nonce[31] ^= 1,
        |header| header.group.0[0] ^= 1,
        |header| header.params = zipnet_core::params::RoundParams::DEFAULT,
        |header| header.previous.round = header.round,
        |header| header.previous.record.0[0] ^= 1,
        |header| header.previous.state.0[0] ^= 1,
        |header| header.servers.truncate(1),
        |header| header.servers[0].epoch = Epoch(9),
        |header| header.servers[1].round_key.0[0] ^= 1,
        |header| header.clients.version = header.clients.version.next(),
        |header| header.clients.count += 1,
        |header| header.min_participants += 1,
    ];
    for change in changes {
        let mut header = base.clone();
        change(&mut header);
        all.insert(header.digest());
    }
    assert_eq!(all.len(), changes.len() + 1);
}

#[test]
fn a_record_digest_depends_on_every_field() {
    let servers = sample::identities("server", 2);
    let base = sample::record(&servers, Bitmap::new(9), vec![0; 16]);
    let mut all = BTreeSet::from([base.digest()]);
    let changes: [fn(&mut zipnet_core::message::Record); 8] = [
        |record| record.log.0[0] ^= 1,
        |record| record.round = record.round.next(),
        |record| record.header.0[0] ^= 1,
        |record| record.participants = Bitmap::new(10),
        |record| record.participants.set(8),
        |record| record.servers.truncate(1),
        |record| record.broadcast.push(0),
        |record| record.previous.0[0] ^= 1,
    ];
    for change in changes {
        let mut record = base.clone();
        change(&mut record);
        all.insert(record.digest());
    }
    assert_eq!(all.len(), changes.len() + 1);
}
