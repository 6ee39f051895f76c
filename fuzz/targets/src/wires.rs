//! Protocol messages and commands of the log.

use std::collections::BTreeMap;

use zipnet_core::id::{Counter, Digest, Epoch, Round};
use zipnet_core::key::Signature;
use zipnet_core::message::{ClientRefusal, Command, Message};
use zipnet_core::refused::Refused;
use zipnet_core::wire;

use crate::Verdict;
use crate::memory::bounded;
use crate::network::{self, peer};

/// A message has one encoding, and verifying it never panics, whatever stands in it.
pub(crate) fn message(bytes: &[u8]) -> Verdict {
    let message = bounded(bytes, || wire::decode(bytes));
    if let Some(envelope) = wire::decode_envelope(bytes) {
        assert_eq!(
            envelope.map(|_| ()),
            message.as_ref().map(|_| ()).map_err(|error| *error),
            "two readings"
        );
    }
    let Ok(message) = message else { return Verdict::Refused };
    assert_eq!(&wire::encode(&message)[..], bytes, "{message:?} has two encodings");
    verify_message(&message);
    Verdict::Taken
}

/// As [`message`], for commands.
pub(crate) fn command(bytes: &[u8]) -> Verdict {
    let Ok(command) = bounded(bytes, || wire::decode_command(bytes)) else { return Verdict::Refused };
    assert_eq!(&wire::encode_command(&command)[..], bytes, "{command:?} has two encodings");
    verify(&command);
    Verdict::Taken
}

/// Asks whether everything in the message is signed as it should be.
fn verify_message(message: &Message) -> bool {
    let anybody = peer(0);
    match message {
        Message::Propose(command) => verify(command),
        Message::Bundle(bundle) => bundle.verify(),
        Message::BundleRefused { last, .. } => last.as_ref().is_some_and(|bundle| bundle.verify()),
        Message::Live(live) => live.verify().is_ok(),
        Message::LiveFor { live, place } => {
            let placed = place.as_ref().is_some_and(|place| place.verify(&live.header.clients));
            live.verify().is_ok() && placed
        }
        Message::Envelope(envelope) => envelope.verify(&anybody),
        Message::Aggregate(aggregate) => aggregate.verify(&anybody),
        Message::RegistryChanged { batch, .. } => batch.verify(&anybody),
        Message::Record { record, signatures } => {
            let digest = record.digest();
            signatures.iter().all(|signed| signed.record == digest && signed.verify())
        }
        Message::RecordSigned { signatures } => signatures.iter().all(|signed| signed.verify()),
        Message::Retired { announcements } => announcements.iter().all(|said| said.verify()),
        Message::Disclaimed { disclaimers } => disclaimers.iter().all(|said| said.verify()),
        Message::AggregateApplied { .. }
        | Message::Registry { .. }
        | Message::RegistryWanted
        | Message::RecordsWanted { .. }
        | Message::TestifyWanted { .. }
        | Message::Declined { .. }
        | Message::Turnout(_) => false,
    }
}

fn verify(command: &Command) -> bool {
    let anybody = peer(0);
    match command {
        Command::StartLog { .. } => false,
        Command::OpenRound(header) => header.digest() == Digest::default(),
        Command::SignHeader(signature) => signature.verify(),
        Command::SubmitAggregate(aggregate) => aggregate.verify(&anybody),
        Command::SubmitPartial(partial) => partial.verify(),
        Command::SignRecord(signature) => signature.verify(),
        Command::RegisterServer { bundle, announcement } => bundle.verify() && announcement.verify(),
        Command::DepartServer(announcement) | Command::RetireServer(announcement) => announcement.verify(),
        Command::TestifyDead(testimony) => testimony.verify(),
        Command::ApproveAggregator(approval) => approval.verify(),
        Command::ChangeClients(batch) => batch.verify(&anybody),
        Command::RefuseClient(refusal) => refusal.verify(),
    }
}

/// The published vectors, and one of every kind that the honest network sent.
pub(crate) fn message_seeds() -> Vec<(String, Vec<u8>)> {
    let mut kinds = BTreeMap::new();
    let sent = &network::history().sent;
    for (_, _, bytes) in sent {
        let kept: &mut Vec<u8> = kinds.entry(bytes[1]).or_insert_with(|| bytes.clone());
        // A proposal is a command inside a message; the commands have a target of their own.
        if bytes.len() < kept.len() {
            kept.clone_from(bytes);
        }
    }
    let signatures = sent.iter().find_map(|(_, _, bytes)| match wire::decode(bytes) {
        Ok(Message::Record { signatures, .. }) => Some(signatures),
        _ => None,
    });
    for message in [
        Message::RecordSigned { signatures: signatures.expect("there were records") },
        Message::BundleRefused { reason: Refused::StaleEpoch, last: None },
        Message::RegistryWanted,
        Message::RecordsWanted { from: Round(300) },
        Message::TestifyWanted { server: peer(1) },
    ] {
        kinds.entry(wire::kind(&message)).or_insert_with(|| wire::encode(&message).to_vec());
    }
    let seeds = kinds.into_iter().map(|(kind, bytes)| (format!("kind-{kind:02}"), bytes));
    let vectors = include_str!("../../../core/protocol/tests/vectors/wire.json");
    let vectors =
        vectors.lines().filter_map(|line| line.trim().strip_prefix("\"message\": \"")?.strip_suffix("\","));
    let vectors = vectors.enumerate().map(|(place, digits)| (format!("vector-{place}"), from_hex(digits)));
    seeds.chain(vectors).chain([cut(&wire::encode(&Message::RegistryWanted))]).collect()
}

/// One of every kind that came into the log.
pub(crate) fn command_seeds() -> Vec<(String, Vec<u8>)> {
    let mut kinds = BTreeMap::new();
    for bytes in &network::history().log {
        kinds.entry(bytes[1]).or_insert_with(|| bytes.clone());
    }
    let refusal = ClientRefusal {
        log: network::LOG,
        server: peer(0),
        counter: Counter(1),
        client: peer(network::AGGREGATOR + 1),
        epoch: Epoch(1),
        refuse: true,
        signature: Signature::default(),
    };
    let refusal = wire::encode_command(&Command::RefuseClient(refusal)).to_vec();
    kinds.insert(refusal[1], refusal);
    let first = network::history().log[0].clone();
    let seeds = kinds.into_iter().map(|(kind, bytes)| (format!("kind-{kind:02}"), bytes));
    seeds.chain([cut(&first)]).collect()
}

/// An input that ends early.
pub(crate) fn cut(bytes: &[u8]) -> (String, Vec<u8>) {
    ("cut".to_owned(), bytes[..bytes.len() - 1].to_vec())
}

fn from_hex(digits: &str) -> Vec<u8> {
    let byte = |place| u8::from_str_radix(&digits[place..place + 2], 16).expect("vectors are hexadecimal");
    (0..digits.len()).step_by(2).map(byte).collect()
}
