//! Slots: how a payload stands in the broadcast vector, and how it is found there again.

use alloc::vec::Vec;
use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::bitmap::index;
use crate::digest::{Context, Fields};
use crate::id::Digest;
use crate::key::secret;
use crate::params::RoundParams;

/// What a slot of a broadcast holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotContent<'a> {
    /// All bytes are zero: nobody wrote.
    Empty,
    /// The payload of exactly one client.
    Message(&'a [u8]),
    /// The tag does not fit: two clients wrote, or one wrote garbage. Counted and dropped.
    Garbled,
}

/// What a client writes into a slot, filled with zeros to the length of a payload. Wiped when it is dropped, and never
/// printed: who wrote it is what the protocol hides.
#[derive(Clone)]
pub struct Payload(Vec<u8>);

secret!(Payload);

impl Payload {
    /// Fills a text with zeros, so that its length does not tell who wrote it.
    ///
    /// # Errors
    /// If it is longer than a payload.
    pub fn new(text: &[u8], params: &RoundParams) -> Result<Self, PayloadTooLong> {
        pad_payload(text, params).map(Self)
    }

    /// What goes the way of a payload where there is none.
    #[must_use]
    pub fn blank(params: &RoundParams) -> Self {
        Self(alloc::vec![0; params.payload_bytes()])
    }

    /// Exactly [`RoundParams::payload_bytes`] bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The tag of a payload: bound to the header and the slot, so that it is worth nothing elsewhere. The first
/// [`RoundParams::tag_len`] bytes are used.
#[must_use]
pub fn tag(header: &Digest, slot: u32, payload: &[u8]) -> [u8; 32] {
    let key = Fields::new(Context::SlotTag).bytes(&header.0).u32(slot).digest();
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    let tag = *hasher.update(payload).finalize().as_bytes();
    hasher.zeroize();
    tag
}

/// XORs a payload with its tag into a slot of the vector; every byte of both is masked by `mask`, so that with a mask of
/// zero the same is done and nothing is written.
///
/// # Panics
/// If slot, payload or vector do not fit the parameters. They are the client's own.
pub fn write_slot(
    params: &RoundParams,
    header: &Digest,
    slot: u32,
    payload: &[u8],
    mask: u8,
    vector: &mut [u8],
) {
    assert_eq!(payload.len(), params.payload_bytes(), "a payload fills its slot up to the tag");
    assert_eq!(vector.len(), params.vector_bytes(), "a vector has all slots");
    assert!(slot < params.num_slots(), "slot {slot} is outside {}", params.num_slots());
    let tag = tag(header, slot, payload);
    let place = vector
        .chunks_exact_mut(params.slot_bytes())
        .nth(index(slot))
        .expect("the vector has all slots and this is one of them");
    let content = payload.iter().chain(&tag[..params.tag_len()]);
    for (byte, written) in place.iter_mut().zip(content) {
        *byte ^= written & mask;
    }
}

/// The slots of a broadcast, in order. A broadcast of another length than the parameters say gives only the slots that
/// are whole; whoever takes one from a peer compares the length first.
pub fn read_slots<'a>(
    params: &RoundParams,
    header: &Digest,
    broadcast: &'a [u8],
) -> impl Iterator<Item = SlotContent<'a>> + use<'a> {
    let (header, payload_bytes, tag_len) = (*header, params.payload_bytes(), params.tag_len());
    (0..params.num_slots()).zip(broadcast.chunks_exact(params.slot_bytes())).map(move |(slot, content)| {
        if content.iter().all(|byte| *byte == 0) {
            return SlotContent::Empty;
        }
        let (payload, found) = content.split_at(payload_bytes);
        if tag(&header, slot, payload)[..tag_len] == *found {
            SlotContent::Message(payload)
        } else {
            SlotContent::Garbled
        }
    })
}

/// Fills a text with zeros up to the length of a payload, so that its length does not tell who wrote it.
///
/// # Errors
/// If it is longer than a payload.
pub fn pad_payload(text: &[u8], params: &RoundParams) -> Result<Vec<u8>, PayloadTooLong> {
    if text.len() > params.payload_bytes() {
        return Err(PayloadTooLong { bytes: text.len(), payload_bytes: params.payload_bytes() });
    }
    let mut payload = text.to_vec();
    payload.resize(params.payload_bytes(), 0);
    Ok(payload)
}

/// A text does not fit into a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadTooLong {
    /// Bytes of the text.
    pub bytes: usize,
    /// Bytes of a payload.
    pub payload_bytes: usize,
}

impl fmt::Display for PayloadTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accept payload: {} bytes exceed the {} of a slot", self.bytes, self.payload_bytes)
    }
}

impl core::error::Error for PayloadTooLong {}
