//! One of every message and command, what has to be refused, and the paths of the registry's tree.

use serde_json::{Value, json};
use zipnet_core::id::Digest;
use zipnet_core::message::{Approval, Bundle, ClientBatch, Command, LiveHeader, Message};
use zipnet_core::refused::Refused;
use zipnet_core::wire::{decode, decode_command, encode, encode_command};

use super::{check, hex, sample};

/// What is digested in a value, in the order in which the parts of the value end.
fn digests(message: &Message) -> Vec<Digest> {
    let bundles = |bundles: &[Bundle]| bundles.iter().map(Bundle::digest).collect::<Vec<_>>();
    match message {
        Message::Propose(command) => digests_of_command(command),
        Message::Bundle(bundle) => vec![bundle.digest()],
        Message::BundleRefused { last, .. } => last.iter().map(Bundle::digest).collect(),
        Message::Live(live) => digests_of_live(live),
        Message::LiveFor { live, place } => {
            let mut digests = digests_of_live(live);
            digests.extend(place.iter().map(|place| place.bundle.digest()));
            digests
        }
        Message::Envelope(envelope) => vec![envelope.signed_digest()],
        Message::Aggregate(aggregate) => vec![aggregate.digest()],
        Message::Registry { clients, .. } => bundles(clients),
        Message::RegistryChanged { batch, .. } => digests_of_batch(batch),
        Message::Record { record, signatures } => {
            let signed = signatures.iter().map(|signature| signature.signed_digest());
            [record.digest()].into_iter().chain(signed).collect()
        }
        Message::RecordSigned { signatures } => signatures.iter().map(|each| each.signed_digest()).collect(),
        Message::Retired { announcements } => announcements.iter().map(|each| each.signed_digest()).collect(),
        Message::Disclaimed { disclaimers } => disclaimers.iter().map(|each| each.signed_digest()).collect(),
        Message::AggregateApplied { .. }
        | Message::RegistryWanted
        | Message::RecordsWanted { .. }
        | Message::TestifyWanted { .. }
        | Message::Declined { .. }
        | Message::Turnout(_) => Vec::new(),
    }
}

fn digests_of_live(live: &LiveHeader) -> Vec<Digest> {
    let signed = live.signatures.iter().map(|signature| signature.signed_digest());
    [live.header.digest()].into_iter().chain(signed).collect()
}

fn digests_of_batch(batch: &ClientBatch) -> Vec<Digest> {
    let ClientBatch { register, .. } = batch;
    register.iter().map(Bundle::digest).chain([batch.signed_digest()]).collect()
}

fn digests_of_command(command: &Command) -> Vec<Digest> {
    match command {
        Command::StartLog { .. } => Vec::new(),
        Command::OpenRound(header) => vec![header.digest()],
        Command::SignHeader(signature) => vec![signature.signed_digest()],
        Command::SubmitAggregate(aggregate) => vec![aggregate.digest()],
        Command::SubmitPartial(partial) => vec![partial.digest()],
        Command::SignRecord(signature) => vec![signature.signed_digest()],
        Command::RegisterServer { bundle, announcement } => {
            vec![bundle.digest(), announcement.signed_digest()]
        }
        Command::DepartServer(announcement) | Command::RetireServer(announcement) => {
            vec![announcement.signed_digest()]
        }
        Command::TestifyDead(testimony) => vec![testimony.signed_digest()],
        Command::ApproveAggregator(approval) => {
            let Approval { bundle, .. } = approval;
            vec![bundle.digest(), approval.signed_digest()]
        }
        Command::ChangeClients(batch) => digests_of_batch(batch),
        Command::RefuseClient(refusal) => vec![refusal.signed_digest()],
    }
}

fn texts(digests: &[Digest]) -> Vec<String> {
    digests.iter().map(ToString::to_string).collect()
}

/// What a receiver refuses, and why.
fn refused() -> Vec<Value> {
    let wanted = |number: &[u8]| [&[1, 13], number].concat();
    // Signature of a header: log, round 1, header, server, then the bitmap.
    let signature = |bitmap: &[u8]| [&[1, 2][..], &[0; 32], &[1], &[0; 64], bitmap, &[0; 64]].concat();
    let testify = |server: &[u8]| [&[1, 14], server].concat();
    // A bundle of a client, up to its floors.
    let bundle =
        |rest: &[u8]| [&[1, 1][..], &[0; 32], &[2], &[0; 32], &[1], &[0; 32], rest, &[0; 64]].concat();
    let role = [&[1, 1][..], &[0; 32], &[3], &[0; 32], &[1], &[0; 32], &[0, 0], &[0; 64]].concat();
    let messages = [
        (vec![], "nothing"),
        (vec![1], "a version and no kind"),
        (vec![2, 10], "another version"),
        (vec![1, 17], "a kind that does not exist"),
        (vec![1, 10, 0], "a byte behind the last field"),
        (wanted(&[0x81, 0x00]), "a number in two bytes that needs one"),
        (wanted(&[0xff; 10]), "a number of more than 64 bits"),
        (wanted(&[0x80]), "a number that does not end"),
        (testify(&[0; 31]), "an identifier that ends early"),
        (bundle(&[2, 0]), "neither a value nor none"),
        (role, "a role that does not exist"),
    ];
    let commands = [
        (signature(&[3, 1, 0b1000]), "a bitmap with a bit behind its last place"),
        (signature(&[9, 1, 0]), "a bitmap with too few bytes"),
        (signature(&[0x81, 0x80, 0x10, 0]), "a bitmap of 2^18 + 1 places, without its bytes"),
    ];
    let messages = messages.map(|(bytes, why)| {
        decode(&bytes).expect_err(why);
        json!({ "why": why, "message": hex(&bytes) })
    });
    let commands = commands.map(|(bytes, why)| {
        decode_command(&bytes).expect_err(why);
        json!({ "why": why, "command": hex(&bytes) })
    });
    assert!(decode(&bundle(&[0, 0])).is_ok() && decode_command(&signature(&[3, 1, 0b100])).is_ok());
    messages.into_iter().chain(commands).collect()
}

/// The names of all reasons, by their numbers.
pub(super) fn reasons() -> Vec<&'static str> {
    let reason = |number: u8| match decode(&[1, 2, number, 0]) {
        Ok(Message::BundleRefused { reason, last: None }) => Some(reason.name()),
        _ => None,
    };
    (0..128).map_while(reason).collect()
}

#[test]
fn messages() {
    let messages = sample::messages().into_iter().map(|message| {
        let bytes = encode(&message);
        json!({ "message": hex(&bytes), "digests": texts(&digests(&message)) })
    });
    let commands = sample::commands().into_iter().map(|command| {
        let bytes = encode_command(&command);
        json!({ "command": hex(&bytes), "digests": texts(&digests_of_command(&command)) })
    });
    let reasons = reasons();
    assert_eq!(reasons, Refused::ALL.iter().map(|reason| reason.name()).collect::<Vec<_>>());
    check(
        "messages.json",
        &json!({
            "_comment": "Sections 6 and 7 of docs/protocol.md: one of every message and command in the order of kinds, \
                         with the digests of all that is digested in it, in the order in which the parts end. What is \
                         not signed by whom it names is signed by the client or the aggregator.",
            "client": sample::identity("client 0").peer().to_string(),
            "aggregator": sample::identity("aggregator").peer().to_string(),
            "messages": messages.collect::<Vec<_>>(),
            "commands": commands.collect::<Vec<_>>(),
            "refused": refused(),
            "reasons": reasons,
        }),
    );
}

#[test]
fn proofs() {
    let sizes = [
        (1, "a single client: the root is its leaf"),
        (2, "one level"),
        (3, "the last leaf rises as it is"),
        (5, "the last leaf rises twice"),
        (6, "a node in the second level rises"),
        (8, "a full tree"),
    ];
    let cases = sizes.map(|(size, why)| {
        let registry = sample::registry(size);
        let set = registry.set();
        let places = registry.iter().map(|(client, bundle)| {
            let proof = registry.proof(client).expect("it is registered");
            assert!(proof.verify(&set));
            json!({
                "client": client.to_string(),
                "bundle_digest": bundle.digest().to_string(),
                "bundle_signature": hex(&bundle.signature.0),
                "path": texts(&proof.path),
            })
        });
        json!({ "why": why, "root": set.root.to_string(), "places": places.collect::<Vec<_>>() })
    });
    check(
        "proofs.json",
        &json!({
            "_comment": "Section 5 of docs/protocol.md: the path of every place, in registries of several sizes.",
            "registries": cases,
        }),
    );
}
