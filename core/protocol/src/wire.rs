//! How messages and commands become bytes: version, kind, then the fields in postcard's encoding.
//!
//! ```text
//! ┌─────────┬──────┬────────────────┐
//! │ version │ kind │ fields …       │
//! │ 1 byte  │ 1    │ postcard       │
//! └─────────┴──────┴────────────────┘
//! ```
//!
//! A value has one encoding. What postcard would read as well is refused: a number with more bytes than it needs, or a set
//! whose elements do not rise ([`is_canonical`]). So equal bytes and equal values are the same thing, for whoever compares
//! hashes of the log or looks for what was said before.
//!
//! The kind is the number of the enum's variant in postcard's own encoding, which is one byte below 128; the functions
//! `kind` and `command_kind` pin the numbers, so that a variant moved in the source breaks a test and not the network.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use crate::bitmap::index;
use crate::message::{Bundle, ClientBatch, Command, Envelope, Header, LiveHeader, Message, Proof, Record};
use crate::params::VECTOR_BYTES_MAX;
use crate::registry::{CLIENTS_MAX, PATH_MAX};

/// The version of everything in this module and in [`crate::signing`]. Nodes of different versions refuse each other.
pub const WIRE_VERSION: u8 = 1;

/// The longest message or command: 80 MiB, which is the longest vector and room for the rest.
pub const MESSAGE_BYTES_MAX: usize = 80 << 20;

/// The most servers of a roster, and so the most signatures of a header or record.
pub const SERVERS_MAX: usize = 256;

/// The kind of [`Message::Envelope`].
const ENVELOPE: u8 = 5;

/// Kinds of [`Message`] are below this.
const KINDS: u8 = 19;

/// Kinds of [`Command`] are below this.
const COMMAND_KINDS: u8 = 13;

/// Encodes a message.
#[must_use]
pub fn encode(message: &Message) -> Arc<[u8]> {
    to_bytes(message, message_body(message)).into()
}

/// A live header as clients are shown it, encoded once for all of them: only the place is another for each.
#[derive(Clone)]
pub struct ShownHeader(Vec<u8>);

impl ShownHeader {
    /// Encodes what is the same for all.
    #[must_use]
    pub fn new(live: &LiveHeader) -> Self {
        let message = Message::LiveFor { live: Box::new(live.clone()), place: None };
        let mut bytes = to_bytes(&message, message_body(&message));
        let none = bytes.pop();
        debug_assert_eq!(none, Some(0), "the place comes last");
        Self(bytes)
    }

    /// The [`Message::LiveFor`] of a client with this place, encoded.
    #[must_use]
    pub fn to(&self, place: Option<&Proof>) -> Arc<[u8]> {
        let mut bytes = Vec::with_capacity(self.0.len().saturating_add(1024));
        bytes.extend_from_slice(&self.0);
        let bytes = postcard::to_extend(&place, bytes);
        bytes.expect("a vector takes all bytes, and all types know their length").into()
    }
}

impl fmt::Debug for ShownHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShownHeader({} bytes)", self.0.len())
    }
}

/// Decodes a message.
///
/// # Errors
/// If the bytes are not exactly one message of this version, or one of its lists is too long.
pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    let message = from_bytes(bytes, KINDS)?;
    check_message(&message)?;
    Ok(message)
}

/// Decodes an envelope, whose vector stays where it is: what there is most of is read once, by whoever adds it up. `None`
/// if the bytes are another message; for them there is [`decode`], which gives the same of these.
///
/// # Errors
/// If the bytes are not exactly one envelope.
#[must_use]
pub fn decode_envelope(bytes: &[u8]) -> Option<Result<Envelope<&[u8]>, DecodeError>> {
    if bytes.get(..2) != Some(&[WIRE_VERSION, ENVELOPE]) {
        return None;
    }
    let fields = fields(bytes, KINDS).map(|fields| fields.get(1..).unwrap_or_default());
    Some(fields.and_then(value).and_then(|envelope: Envelope<&[u8]>| {
        check_vector(envelope.body)?;
        Ok(envelope)
    }))
}

/// Encodes a command for the log.
#[must_use]
pub fn encode_command(command: &Command) -> Arc<[u8]> {
    to_bytes(command, command_body(command)).into()
}

/// Decodes a command of the log.
///
/// # Errors
/// If the bytes are not exactly one command of this version, or one of its lists is too long.
pub fn decode_command(bytes: &[u8]) -> Result<Command, DecodeError> {
    let command = from_bytes(bytes, COMMAND_KINDS)?;
    check_command(&command)?;
    Ok(command)
}

/// The kind byte of a message.
#[must_use]
pub const fn kind(message: &Message) -> u8 {
    match message {
        Message::Propose(_) => 0,
        Message::Bundle(_) => 1,
        Message::BundleRefused { .. } => 2,
        Message::Live(_) => 3,
        Message::LiveFor { .. } => 4,
        Message::Envelope(_) => ENVELOPE,
        Message::Aggregate(_) => 6,
        Message::AggregateApplied { .. } => 7,
        Message::Registry { .. } => 8,
        Message::RegistryChanged { .. } => 9,
        Message::RegistryWanted => 10,
        Message::Record { .. } => 11,
        Message::RecordSigned { .. } => 12,
        Message::RecordsWanted { .. } => 13,
        Message::TestifyWanted { .. } => 14,
        Message::Retired { .. } => 15,
        Message::Disclaimed { .. } => 16,
        Message::Declined { .. } => 17,
        Message::Turnout(_) => 18,
    }
}

/// The kind byte of a command.
#[must_use]
pub const fn command_kind(command: &Command) -> u8 {
    match command {
        Command::StartLog { .. } => 0,
        Command::OpenRound(_) => 1,
        Command::SignHeader(_) => 2,
        Command::SubmitAggregate(_) => 3,
        Command::SubmitPartial(_) => 4,
        Command::SignRecord(_) => 5,
        Command::RegisterServer { .. } => 6,
        Command::DepartServer(_) => 7,
        Command::RetireServer(_) => 8,
        Command::TestifyDead(_) => 9,
        Command::ApproveAggregator(_) => 10,
        Command::ChangeClients(_) => 11,
        Command::RefuseClient(_) => 12,
    }
}

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// More than [`MESSAGE_BYTES_MAX`] bytes; nothing was decoded or allocated.
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// Fewer bytes than version and kind.
    Truncated,
    /// Another version than [`WIRE_VERSION`].
    Version {
        /// The sender's.
        theirs: u8,
    },
    /// No such kind in this version.
    Kind {
        /// The kind byte.
        kind: u8,
    },
    /// The fields are not what the kind says, end early, or are encoded in another way than the only one.
    Malformed,
    /// Something stands behind the last field.
    Trailing {
        /// How many bytes.
        bytes: usize,
    },
    /// A list is longer than it can honestly be.
    Count {
        /// Of what.
        what: &'static str,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("decode message: ")?;
        match self {
            Self::TooLong { bytes } => write!(f, "{bytes} bytes exceed {MESSAGE_BYTES_MAX}"),
            Self::Truncated => f.write_str("it has no version and kind"),
            Self::Version { theirs } => write!(f, "wire version {theirs} instead of {WIRE_VERSION}"),
            Self::Kind { kind } => write!(f, "kind {kind} does not exist in this version"),
            Self::Malformed => f.write_str("its fields do not fit its kind"),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes stand behind its end"),
            Self::Count { what } => write!(f, "too many {what}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Encodes into a vector that is made in the right size at once: `body` is the length of the vectors inside.
fn to_bytes<T: Serialize>(value: &T, body: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.saturating_add(1024));
    bytes.push(WIRE_VERSION);
    postcard::to_extend(value, bytes).expect("a vector takes all bytes, and all types know their length")
}

fn from_bytes<'a, T: Deserialize<'a> + Serialize>(bytes: &'a [u8], kinds: u8) -> Result<T, DecodeError> {
    fields(bytes, kinds).and_then(value)
}

/// What stands behind the version: the kind, which is below `kinds`, and the fields.
fn fields(bytes: &[u8], kinds: u8) -> Result<&[u8], DecodeError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(DecodeError::TooLong { bytes: bytes.len() });
    }
    let [version, fields @ ..] = bytes else { return Err(DecodeError::Truncated) };
    if *version != WIRE_VERSION {
        return Err(DecodeError::Version { theirs: *version });
    }
    match fields.first() {
        None => Err(DecodeError::Truncated),
        Some(kind) if *kind >= kinds => Err(DecodeError::Kind { kind: *kind }),
        Some(_) => Ok(fields),
    }
}

/// What is encoded as exactly these bytes.
fn value<'a, T: Deserialize<'a> + Serialize>(fields: &'a [u8]) -> Result<T, DecodeError> {
    // Allocation stays within a small multiple of the input: byte strings are copied from it after their length was
    // compared with what is left, and lists grow as their elements, of more than thirty bytes each, are read.
    let (value, rest) = postcard::take_from_bytes(fields).map_err(|_| DecodeError::Malformed)?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing { bytes: rest.len() });
    }
    if is_canonical(&value, fields) { Ok(value) } else { Err(DecodeError::Malformed) }
}

/// Whether postcard encodes the value as exactly these bytes. Allocates nothing: they are compared as they come. What the
/// value has borrowed from them is not read again.
#[must_use]
pub fn is_canonical<T: Serialize>(value: &T, bytes: &[u8]) -> bool {
    postcard::serialize_with_flavor(value, Expected(bytes)).is_ok_and(|rest| rest.is_empty())
}

/// The bytes that must come next.
struct Expected<'a>(&'a [u8]);

impl<'a> Flavor for Expected<'a> {
    type Output = &'a [u8];

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        let (next, rest) =
            self.0.split_at_checked(bytes.len()).ok_or(postcard::Error::SerializeBufferFull)?;
        if !core::ptr::eq(next, bytes) && next != bytes {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.0 = rest;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<&'a [u8]> {
        Ok(self.0)
    }
}

fn message_body(message: &Message) -> usize {
    match message {
        Message::Propose(command) => command_body(command),
        Message::Envelope(envelope) => envelope.body.len(),
        Message::Aggregate(aggregate) => {
            aggregate.body.len().saturating_add(aggregate.participants.as_bytes().len())
        }
        Message::Record { record, signatures } => record
            .broadcast
            .len()
            .saturating_add(record.participants.as_bytes().len())
            .saturating_add(record.servers.len().saturating_mul(64))
            .saturating_add(signatures.len().saturating_mul(160)),
        Message::Registry { clients, .. } => bundles_body(clients.len()),
        Message::RegistryChanged { batch, .. } => batch_body(batch),
        Message::Live(live) => live_body(live),
        Message::LiveFor { live, .. } => live_body(live),
        Message::Bundle(_)
        | Message::BundleRefused { .. }
        | Message::AggregateApplied { .. }
        | Message::RegistryWanted
        | Message::RecordSigned { .. }
        | Message::RecordsWanted { .. }
        | Message::TestifyWanted { .. }
        | Message::Retired { .. }
        | Message::Disclaimed { .. }
        | Message::Declined { .. }
        | Message::Turnout(_) => 0,
    }
}

fn command_body(command: &Command) -> usize {
    match command {
        Command::SubmitAggregate(aggregate) => {
            aggregate.body.len().saturating_add(aggregate.participants.as_bytes().len())
        }
        Command::SubmitPartial(partial) => partial.body.len(),
        Command::ChangeClients(batch) => batch_body(batch),
        Command::StartLog { .. }
        | Command::OpenRound(_)
        | Command::SignHeader(_)
        | Command::SignRecord(_)
        | Command::RegisterServer { .. }
        | Command::DepartServer(_)
        | Command::RetireServer(_)
        | Command::TestifyDead(_)
        | Command::ApproveAggregator(_)
        | Command::RefuseClient(_) => 0,
    }
}

/// A client's bundle without the word of a boot has at most 176 bytes.
const fn bundles_body(bundles: usize) -> usize {
    bundles.saturating_mul(176)
}

const fn batch_body(batch: &ClientBatch) -> usize {
    bundles_body(batch.register.len()).saturating_add(batch.expire.len().saturating_mul(48))
}

fn live_body(live: &LiveHeader) -> usize {
    live.signatures
        .iter()
        .map(|signed| signed.refused.as_bytes().len().saturating_add(256))
        .fold(0, usize::saturating_add)
}

fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), DecodeError> {
    if count > most { Err(DecodeError::Count { what }) } else { Ok(()) }
}

fn check_message(message: &Message) -> Result<(), DecodeError> {
    match message {
        Message::Propose(command) => check_command(command),
        Message::Live(live) => check_live(live),
        Message::LiveFor { live, place } => {
            check_live(live)?;
            place.as_ref().map_or(Ok(()), check_proof)
        }
        Message::Envelope(envelope) => check_vector(&envelope.body),
        Message::Aggregate(aggregate) => check_vector(&aggregate.body),
        Message::Registry { clients, .. } => at_most("clients", clients.len(), index(CLIENTS_MAX)),
        Message::RegistryChanged { batch, .. } => check_batch(batch),
        Message::Record { record, signatures } => {
            check_record(record)?;
            at_most("signatures", signatures.len(), SERVERS_MAX)
        }
        Message::RecordSigned { signatures } => at_most("signatures", signatures.len(), SERVERS_MAX),
        Message::Retired { announcements } => at_most("announcements", announcements.len(), SERVERS_MAX),
        Message::Disclaimed { disclaimers } => at_most("disclaimers", disclaimers.len(), SERVERS_MAX),
        Message::Bundle(Bundle { .. })
        | Message::BundleRefused { .. }
        | Message::AggregateApplied { .. }
        | Message::RegistryWanted
        | Message::RecordsWanted { .. }
        | Message::TestifyWanted { .. }
        | Message::Declined { .. } => Ok(()),
        Message::Turnout(turnout) => {
            let reasons = turnout.declined.iter().map(|(reason, _)| reason);
            // There is one order, and no list is longer than there are reasons.
            if reasons.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(DecodeError::Malformed) }
        }
    }
}

fn check_command(command: &Command) -> Result<(), DecodeError> {
    match command {
        Command::OpenRound(header) => check_header(header),
        Command::SubmitAggregate(aggregate) => check_vector(&aggregate.body),
        Command::SubmitPartial(partial) => check_vector(&partial.body),
        Command::ChangeClients(batch) => check_batch(batch),
        Command::StartLog { .. }
        | Command::SignHeader(_)
        | Command::SignRecord(_)
        | Command::RegisterServer { .. }
        | Command::DepartServer(_)
        | Command::RetireServer(_)
        | Command::TestifyDead(_)
        | Command::ApproveAggregator(_)
        | Command::RefuseClient(_) => Ok(()),
    }
}

fn check_header(header: &Header) -> Result<(), DecodeError> {
    at_most("servers", header.servers.len(), SERVERS_MAX)?;
    at_most("clients", index(header.clients.count), index(CLIENTS_MAX))
}

fn check_live(live: &LiveHeader) -> Result<(), DecodeError> {
    check_header(&live.header)?;
    at_most("signatures", live.signatures.len(), SERVERS_MAX)
}

fn check_proof(proof: &Proof) -> Result<(), DecodeError> {
    at_most("digests of a path", proof.path.len(), PATH_MAX)
}

fn check_record(record: &Record) -> Result<(), DecodeError> {
    at_most("servers", record.servers.len(), SERVERS_MAX)?;
    at_most("partials", record.partials.len(), SERVERS_MAX)?;
    check_vector(&record.broadcast)
}

fn check_batch(batch: &ClientBatch) -> Result<(), DecodeError> {
    at_most("registrations", batch.register.len(), ClientBatch::LEN_MAX)?;
    at_most("expirations", batch.expire.len(), ClientBatch::LEN_MAX)
}

fn check_vector(vector: &[u8]) -> Result<(), DecodeError> {
    at_most("bytes of a vector", vector.len(), index(VECTOR_BYTES_MAX))
}
