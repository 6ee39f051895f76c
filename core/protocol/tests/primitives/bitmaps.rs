//! Bitmaps are one bit per place and have one encoding.

use std::collections::BTreeSet;

use proptest::prelude::*;
use zipnet_core::bitmap::Bitmap;
use zipnet_core::digest::{Context, Fields};

fn encode(bitmap: &Bitmap) -> Vec<u8> {
    postcard::to_allocvec(bitmap).expect("a bitmap is encoded")
}

#[test]
fn only_the_bytes_up_to_the_last_bit_and_clear_spare_bits_are_decoded() {
    let bitmap = Bitmap::from_ones(11, [0, 7, 8, 10]).expect("all places are inside");
    assert_eq!(encode(&bitmap), [11, 2, 0b1000_0001, 0b0000_0101]);
    let decode = |bytes: &[u8]| postcard::from_bytes::<Bitmap>(bytes).ok();
    assert_eq!(decode(&[11, 2, 0b1000_0001, 0b0000_0101]), Some(bitmap));
    assert_eq!(decode(&[11, 1, 0xff]), Bitmap::from_ones(11, 0..8), "the byte behind is zero");
    assert_eq!(decode(&[11, 2, 0xff, 0]), None, "a zero byte at the end");
    assert_eq!(decode(&[11, 3, 0xff, 0, 1]), None, "a byte too many");
    assert_eq!(decode(&[11, 2, 0, 0b0000_1000]), None, "a spare bit");
    assert_eq!(decode(&[8, 1, 0xff]).map(|full| full.count_ones()), Some(8));
    assert_eq!(decode(&[0, 0]), Some(Bitmap::new(0)));
    assert_eq!(decode(&[0, 1, 0]), None);
    assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]), None, "more places than there are clients");
    assert_eq!(encode(&Bitmap::new(1 << 18)).len(), 4, "nothing takes no room");
}

#[test]
fn what_is_left_out_is_digested_all_the_same() {
    let bitmap = Bitmap::from_ones(20_000, [3]).expect("it is inside");
    let mut whole = Fields::new(Context::HeaderSignature);
    whole.u32(20_000).byte(0b1000);
    for _ in 1..2_500 {
        whole.byte(0);
    }
    assert_eq!(Fields::new(Context::HeaderSignature).bitmap(&bitmap).digest(), whole.digest());
}

#[test]
fn places_outside_are_never_set() {
    assert_eq!(Bitmap::from_ones(3, [3]), None);
    assert!(!Bitmap::from_ones(3, [0, 1, 2]).expect("all places are inside").get(3));
    assert!(!Bitmap::new(3).get(u32::MAX));
}

#[test]
fn bitmaps_over_different_lists_are_not_disjoint() {
    assert!(Bitmap::new(3).is_disjoint(&Bitmap::new(3)));
    assert!(!Bitmap::new(3).is_disjoint(&Bitmap::new(4)));
}

proptest! {
    #[test]
    fn a_bitmap_is_a_set(
        len in 1u32..300,
        ones in prop::collection::btree_set(0u32..300, 0..60),
        more in prop::collection::btree_set(0u32..300, 0..60),
    ) {
        let cut = |set: &BTreeSet<u32>| set.iter().copied().filter(|place| *place < len).collect::<BTreeSet<_>>();
        let (ones, more) = (cut(&ones), cut(&more));
        let make = |set: &BTreeSet<u32>| Bitmap::from_ones(len, set.iter().copied()).expect("all places are inside");
        let (mut one, two) = (make(&ones), make(&more));
        prop_assert_eq!(&one.iter_ones().collect::<BTreeSet<_>>(), &ones);
        prop_assert_eq!(one.count_ones() as usize, ones.len());
        prop_assert_eq!(one.is_empty(), ones.is_empty());
        prop_assert_eq!(one.is_disjoint(&two), ones.is_disjoint(&more));
        prop_assert!((0..400).all(|place| one.get(place) == ones.contains(&place)));
        prop_assert_eq!(&postcard::from_bytes::<Bitmap>(&encode(&one)).expect("it was just encoded"), &one);
        one.union_with(&two);
        prop_assert_eq!(one.iter_ones().collect::<BTreeSet<_>>(), &ones | &more);
    }
}
