//! Slots are found where they were written, and nowhere else.

use zipnet_core::id::Digest;
use zipnet_core::params::RoundParams;
use zipnet_core::slot::{PayloadTooLong, SlotContent, pad_payload, read_slots, write_slot};

const HEADER: Digest = Digest([6; 32]);

fn params() -> RoundParams {
    RoundParams::new(4, 48, 16).expect("the parameters are good")
}

#[test]
fn an_untouched_vector_is_empty() {
    let vector = vec![0; params().vector_bytes()];
    assert!(read_slots(&params(), &HEADER, &vector).all(|slot| slot == SlotContent::Empty));
    assert_eq!(read_slots(&params(), &HEADER, &vector).count(), 4);
}

#[test]
fn a_payload_is_read_where_it_was_written() {
    let mut vector = vec![0; params().vector_bytes()];
    // All zeros is a payload as well: its tag tells it from an empty slot.
    let (zeros, text) = ([0; 32], pad_payload(b"hello", &params()).expect("it fits"));
    write_slot(&params(), &HEADER, 0, &zeros, 0xff, &mut vector);
    write_slot(&params(), &HEADER, 3, &text, 0xff, &mut vector);
    let slots: Vec<_> = read_slots(&params(), &HEADER, &vector).collect();
    assert_eq!(
        slots,
        [SlotContent::Message(&zeros), SlotContent::Empty, SlotContent::Empty, SlotContent::Message(&text)]
    );
}

#[test]
fn a_payload_is_garbage_under_another_header_or_in_another_slot() {
    let mut vector = vec![0; params().vector_bytes()];
    write_slot(&params(), &HEADER, 1, &[9; 32], 0xff, &mut vector);
    let other = read_slots(&params(), &Digest([7; 32]), &vector).nth(1);
    assert_eq!(other, Some(SlotContent::Garbled));
    vector.rotate_left(48);
    assert_eq!(read_slots(&params(), &HEADER, &vector).next(), Some(SlotContent::Garbled));
}

#[test]
fn two_writers_of_one_slot_lose_both() {
    let mut vector = vec![0; params().vector_bytes()];
    write_slot(&params(), &HEADER, 2, &[1; 32], 0xff, &mut vector);
    write_slot(&params(), &HEADER, 2, &[2; 32], 0xff, &mut vector);
    assert_eq!(read_slots(&params(), &HEADER, &vector).nth(2), Some(SlotContent::Garbled));
    // The same payload twice cancels out: its writers see an empty slot.
    write_slot(&params(), &HEADER, 1, &[3; 32], 0xff, &mut vector);
    write_slot(&params(), &HEADER, 1, &[3; 32], 0xff, &mut vector);
    assert_eq!(read_slots(&params(), &HEADER, &vector).nth(1), Some(SlotContent::Empty));
}

#[test]
fn every_flipped_bit_garbles_its_slot() {
    let mut vector = vec![0; params().vector_bytes()];
    write_slot(&params(), &HEADER, 2, &[1; 32], 0xff, &mut vector);
    for bit in 0..48 * 8 {
        let mut flipped = vector.clone();
        flipped[96 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(read_slots(&params(), &HEADER, &flipped).nth(2), Some(SlotContent::Garbled), "bit {bit}");
    }
}

#[test]
fn a_text_is_filled_up_and_a_long_one_is_refused_with_both_sizes() {
    let params = params();
    assert_eq!(pad_payload(b"", &params), Ok(vec![0; 32]));
    assert_eq!(pad_payload(&[5; 32], &params), Ok(vec![5; 32]));
    let refused = pad_payload(&[5; 33], &params).expect_err("it does not fit");
    assert_eq!(refused, PayloadTooLong { bytes: 33, payload_bytes: 32 });
    assert_eq!(refused.to_string(), "accept payload: 33 bytes exceed the 32 of a slot");
}

#[test]
fn a_broadcast_of_another_length_gives_its_whole_slots_only() {
    for len in [0, 47, 48, 191, 193, 500] {
        let vector = vec![1; len];
        assert_eq!(read_slots(&params(), &HEADER, &vector).count(), (len / 48).min(4), "{len}");
    }
}
