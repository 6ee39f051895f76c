//! The generator repeats by seed, forks by label, forgets, and is not biased.

use proptest::prelude::*;
use zipnet_core::random::Random;

#[test]
fn the_same_seed_draws_the_same_and_another_does_not() {
    let draw = |seed| {
        let mut random = Random::new([seed; 32]);
        (0..100).map(|_| random.next_u64()).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn pieces_of_any_size_make_one_stream() {
    let mut whole = [0; 1000];
    Random::new([3; 32]).fill(&mut whole);
    let mut random = Random::new([3; 32]);
    let mut pieces = Vec::new();
    for size in [0, 1, 7, 31, 32, 33, 223, 224, 225, 224] {
        let mut piece = vec![0; size];
        random.fill(&mut piece);
        pieces.extend(piece);
    }
    assert_eq!(pieces, whole);
}

#[test]
fn forks_do_not_shift_each_other() {
    let parent = Random::new([4; 32]);
    let mut alone = parent.fork("slots");
    let parent = Random::new([4; 32]);
    let _nonces = parent.fork("nonces");
    assert_eq!(alone.bytes(), parent.fork("slots").bytes());
    assert_ne!(parent.fork("slots").bytes(), parent.fork("nonces").bytes());
    assert_ne!(parent.fork("slots").bytes(), Random::new([4; 32]).bytes());
}

#[test]
fn every_slot_is_drawn_about_equally_often() {
    let mut random = Random::new([5; 32]);
    let mut counts = [0u32; 60];
    for _ in 0..60_000 {
        counts[usize::try_from(random.below(60)).expect("it is below 60")] += 1;
    }
    // The standard deviation is 32; six of them are exceeded once in a hundred million runs, and this seed is fixed.
    assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
}

proptest! {
    #[test]
    fn draws_are_below_their_bound(seed: [u8; 32], bound in 1u64..) {
        prop_assert!(Random::new(seed).below(bound) < bound);
    }
}
