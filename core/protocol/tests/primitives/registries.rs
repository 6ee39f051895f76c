//! The client registry: its order, its versions, its root and the proofs under it.

use proptest::prelude::*;
use zipnet_core::id::{Counter, Epoch, RegistryVersion, Role};
use zipnet_core::message::Bundle;
use zipnet_core::registry::{ClientRegistry, Disordered};

use crate::sample::{bundle, identities, registry};

#[test]
fn every_client_of_every_size_has_a_proof() {
    let all = registry(34).bundles().to_vec();
    for size in 0..=34 {
        let part = ClientRegistry::from_parts(RegistryVersion(1), Counter(1), all[..size].to_vec())
            .expect("a part is in order as well");
        let set = part.set();
        assert_eq!(set.count as usize, size);
        for (place, bundle) in (0u32..).zip(&all[..size]) {
            let proof = part.proof(&bundle.peer).expect("it is registered");
            assert_eq!((proof.index, &proof.bundle), (place, bundle));
            assert!(proof.verify(&set), "{place} of {size}");
            assert_eq!(part.index_of(&bundle.peer), Some(place));
            assert_eq!(part.at(place), Some((&bundle.peer, bundle)));
        }
        assert_eq!(part.at(set.count), None);
        if let Some(stranger) = all.get(size) {
            assert_eq!(part.proof(&stranger.peer), None);
        }
    }
}

#[test]
fn a_proof_of_anything_else_is_refused() {
    let registry = registry(11);
    let set = registry.set();
    for (client, _) in registry.iter() {
        let proof = registry.proof(client).expect("it is registered");
        for place in (0..20).filter(|place| *place != proof.index) {
            let mut moved = proof.clone();
            moved.index = place;
            assert!(!moved.verify(&set), "{} moved to {place}", proof.index);
        }
        for step in 0..proof.path.len() {
            let mut bent = proof.clone();
            bent.path[step].0[0] ^= 1;
            assert!(!bent.verify(&set));
            let mut cut = proof.clone();
            cut.path.remove(step);
            assert!(!cut.verify(&set));
        }
        let mut longer = proof.clone();
        longer.path.push(set.root);
        assert!(!longer.verify(&set));
        let mut endless = proof.clone();
        endless.path = vec![set.root; 1000];
        assert!(!endless.verify(&set));
        let mut renewed = proof.clone();
        renewed.bundle.epoch = renewed.bundle.epoch.next();
        assert!(!renewed.verify(&set));
        let mut resigned = proof.clone();
        resigned.bundle.signature.0[0] ^= 1;
        assert!(!resigned.verify(&set));
        for count in (0..30).filter(|count| *count != set.count) {
            // Some other counts give the same path; then the root is the only thing that ties the count, and the
            // header's digest covers both.
            let other = zipnet_core::message::ClientSet { count, ..set };
            if proof.verify(&other) {
                assert!(count > proof.index);
            }
        }
    }
}

#[test]
fn lists_out_of_order_are_refused() {
    let good = registry(3).bundles().to_vec();
    let try_parts =
        |bundles: Vec<Bundle>| ClientRegistry::from_parts(RegistryVersion(1), Counter(1), bundles);
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    assert_eq!(try_parts(swapped.clone()), Err(Disordered));
    let twice = vec![good[0].clone(), good[0].clone()];
    assert_eq!(try_parts(twice), Err(Disordered));
    // The same at decoding, where the type is part of a snapshot.
    let bytes = postcard::to_allocvec(&(RegistryVersion(1), Counter(1), swapped)).expect("it is encoded");
    assert!(postcard::from_bytes::<ClientRegistry>(&bytes).is_err());
}

#[test]
fn a_registry_survives_its_encoding() {
    let registry = registry(9);
    let bytes = postcard::to_allocvec(&registry).expect("it is encoded");
    let back: ClientRegistry = postcard::from_bytes(&bytes).expect("it was just encoded");
    assert_eq!(back, registry);
    assert_eq!(back.bundles(), registry.bundles());
}

#[test]
fn an_expiry_of_an_older_epoch_changes_nothing() {
    let client = &identities("client", 1)[0];
    let mut registry = ClientRegistry::new();
    registry.apply(&[bundle(client, Role::Client, 5)], &[], Counter(1));
    registry.apply(&[], &[(client.peer(), Epoch(4))], Counter(2));
    assert_eq!((registry.len(), registry.version(), registry.counter()), (1, RegistryVersion(2), Counter(2)));
    registry.apply(&[], &[(client.peer(), Epoch(5))], Counter(3));
    assert_eq!((registry.len(), registry.version()), (0, RegistryVersion(3)));
    // One batch may expire and register again: the registration stays.
    registry.apply(&[bundle(client, Role::Client, 6)], &[], Counter(4));
    registry.apply(&[bundle(client, Role::Client, 7)], &[(client.peer(), Epoch(6))], Counter(5));
    assert_eq!(registry.get(&client.peer()).map(|bundle| bundle.epoch), Some(Epoch(7)));
}

#[test]
fn a_copy_keeps_its_version_while_the_original_moves_on() {
    let mut registry = registry(4);
    let (pinned, before) = (registry.clone(), registry.set());
    registry.apply(&[bundle(&identities("late", 1)[0], Role::Client, 1)], &[], Counter(6));
    assert_eq!(pinned.set(), before);
    assert_ne!(registry.set().root, before.root);
    assert_eq!(registry.set().count, before.count + 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Applying batches is the same as a map, and the same as building the result at once.
    #[test]
    fn batches_make_a_map(
        batches in prop::collection::vec(
            (prop::collection::vec((0usize..12, 1u64..4), 0..8), prop::collection::vec((0usize..12, 1u64..4), 0..5)),
            1..8,
        )
    ) {
        let people = identities("client", 12);
        let mut registry = ClientRegistry::new();
        let mut map = std::collections::BTreeMap::new();
        for (counter, (register, expire)) in (1..).zip(&batches) {
            let register: Vec<_> =
                register.iter().map(|(who, epoch)| bundle(&people[*who], Role::Client, *epoch)).collect();
            let expire: Vec<_> = expire.iter().map(|(who, epoch)| (people[*who].peer(), Epoch(*epoch))).collect();
            registry.apply(&register, &expire, Counter(counter));
            for (peer, epoch) in expire {
                if map.get(&peer).is_some_and(|bundle: &Bundle| bundle.epoch == epoch) {
                    map.remove(&peer);
                }
            }
            map.extend(register.into_iter().map(|bundle| (bundle.peer, bundle)));
        }
        let bundles: Vec<_> = map.into_values().collect();
        prop_assert_eq!(registry.bundles(), &bundles[..]);
        let at_once = ClientRegistry::from_parts(registry.version(), registry.counter(), bundles);
        prop_assert_eq!(at_once.map(|other| other.set()), Ok(registry.set()));
    }
}
