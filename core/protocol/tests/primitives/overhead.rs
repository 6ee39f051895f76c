//! What the wire adds to a vector, in bytes: asserted exactly, because a byte more is a decision.

use zipnet_core::bitmap::Bitmap;
use zipnet_core::message::{Command, Message};
use zipnet_core::params::RoundParams;
use zipnet_core::wire::{encode, encode_command};

use crate::sample;

const CLIENTS: u32 = 1000;

fn added(bytes: usize) -> usize {
    bytes - RoundParams::DEFAULT.vector_bytes()
}

#[test]
fn an_envelope_adds_136_bytes() {
    let body = vec![1; RoundParams::DEFAULT.vector_bytes()];
    let bytes = encode(&Message::Envelope(sample::envelope(&sample::identity("client"), body)));
    // Version, kind, log 32, round 2, header 32, epoch 1, length 3, signature 64; rounds and epochs grow by a byte
    // per seven bits.
    assert_eq!(added(bytes.len()), 136);
}

#[test]
fn an_aggregate_adds_one_bit_per_client() {
    let body = vec![1; RoundParams::DEFAULT.vector_bytes()];
    let all = Bitmap::from_ones(CLIENTS, 0..CLIENTS).expect("all places are inside");
    let aggregate = sample::aggregate(&sample::identity("aggregator"), all, body);
    let message = encode(&Message::Aggregate(aggregate.clone()));
    let command = encode_command(&Command::SubmitAggregate(aggregate));
    assert_eq!(message.len(), command.len());
    // As an envelope without the epoch, and the bitmap: its length 2, its bytes' number 1, its bytes.
    assert_eq!(added(message.len()), 135 + 3 + 125);
    // The target: below 1 % and 200 bytes, apart from the bitmap.
    assert!(added(message.len()) - 125 < 163 + 200);
}

#[test]
fn a_partial_adds_199_bytes() {
    let body = vec![1; RoundParams::DEFAULT.vector_bytes()];
    let partial = sample::partial(&sample::identity("server"), body);
    let bytes = encode_command(&Command::SubmitPartial(partial));
    // As an envelope without the epoch, digest of the aggregate 32, server 32.
    assert_eq!(added(bytes.len()), 135 + 64);
}
