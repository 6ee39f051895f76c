use std::time::Duration;

use zipnet_sim::random::{Quantiles, Random};

/// A changed number here gives every seed that was ever reported another meaning.
#[test]
fn seeds_keep_their_meaning() {
    let mut random = Random::new(0);
    let first: Vec<u64> = (0..4).map(|_| random.bits()).collect();
    assert_eq!(first, [11091344671253066420, 13793997310169335082, 1900383378846508768, 7684712102626143532]);
    let mut network = Random::new(3053).fork("network");
    let drawn: Vec<u64> = (0..4).map(|_| network.below(1_000)).collect();
    assert_eq!(drawn, [922, 437, 409, 926]);
    let mut items: Vec<u8> = (0..8).collect();
    network.shuffle(&mut items);
    assert_eq!(items, [0, 6, 4, 5, 7, 3, 1, 2]);
    let latency = Quantiles::new(Duration::from_millis(20), Duration::from_millis(150));
    let drawn: Vec<u128> = (0..4).map(|_| latency.draw(&mut network).as_nanos()).collect();
    assert_eq!(drawn, [10_928_040, 11_866_380, 19_757_780, 14_887_940]);
}

#[test]
fn a_fork_does_not_depend_on_what_was_drawn() {
    let mut random = Random::new(9);
    let before = random.fork("a").bits();
    random.bits();
    assert_eq!(random.fork("a").bits(), before);
    assert_ne!(random.fork("b").bits(), before);
    assert_ne!(Random::new(8).fork("a").bits(), before);
    assert_ne!(random.fork("a").fork("a").bits(), before);
}

#[test]
fn numbers_stay_in_their_bounds_and_meet_both_ends() {
    let mut random = Random::new(1);
    let drawn: std::collections::BTreeSet<u64> = (0..1_000).map(|_| random.range(3, 7)).collect();
    assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    assert!((0..1_000).all(|_| !random.permille(0) && random.permille(1_000)));
    let hits = (0..10_000).filter(|_| random.permille(200)).count();
    assert!((1_800..2_200).contains(&hits), "{hits}");
    assert_eq!(random.range(5, 5), 5);
    random.range(0, u64::MAX);
}
