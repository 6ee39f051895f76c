//! Keys agree, prove and verify; and nothing from a peer makes them panic.

use proptest::prelude::*;
use zipnet_core::id::{Digest, GroupId, PeerId, Role, UniqueId};
use zipnet_core::key::{CommitteeSecret, Identity, NodeSecret, PublicKey, RoundSecret, Signature, verify};
use zipnet_core::pad::{End, pair_key};

fn identity(name: &str) -> Identity {
    Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text(name).0))
}

#[test]
fn a_signature_verifies_for_its_signer_and_digest_only() {
    let (ann, bob) = (identity("ann"), identity("bob"));
    let digest = Digest([7; 32]);
    let signature = ann.sign(&digest);
    assert!(verify(&ann.peer(), &digest, &signature));
    assert!(!verify(&bob.peer(), &digest, &signature));
    assert!(!verify(&ann.peer(), &Digest([8; 32]), &signature));
    for bit in 0..512 {
        let mut bytes = signature.0;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!verify(&ann.peer(), &digest, &Signature(bytes)), "bit {bit}");
    }
}

#[test]
fn keys_of_small_order_sign_nothing() {
    // The neutral element as a key accepts R = neutral, s = 0 for every message unless verification is strict.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    assert!(!verify(&PeerId(neutral), &Digest([1; 32]), &Signature(signature)));
}

#[test]
fn identity_and_state_key_are_independent_of_each_other() {
    let secret = NodeSecret::from_bytes(UniqueId::from_text("a node").0);
    let identity = Identity::from_secret(&secret);
    assert_ne!(*identity.seed(), *secret.state_key());
    assert_ne!(
        identity.peer(),
        Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text("another").0)).peer()
    );
}

fn end(peer: u8, round_key: PublicKey) -> End {
    End { peer: PeerId([peer; 32]), round_key }
}

#[test]
fn secrets_print_nothing() {
    let secret = NodeSecret::from_bytes([0xab; 32]);
    let committee = CommitteeSecret::from_bytes([0xab; 32]);
    let round = RoundSecret::from_seed([0xab; 32]);
    let pair =
        pair_key(&[0xab; 32], &end(1, PublicKey([1; 32])), &end(2, PublicKey([2; 32])), &GroupId([3; 32]));
    assert_eq!(
        format!("{secret:?} {committee:?} {pair:?}"),
        "NodeSecret(..) CommitteeSecret(..) PairKey(..)"
    );
    assert!(!format!("{round:?}").contains("abab"));
    assert_eq!(format!("{:?}", identity("x").sign(&Digest([0; 32]))), "Signature(..)");
}

#[test]
fn both_sides_agree_on_a_pair_key_and_the_order_of_keys_matters() {
    let (client, server) = (RoundSecret::from_seed([1; 32]), RoundSecret::from_seed([2; 32]));
    let shared = client.agree(&server.public()).expect("honest keys contribute");
    assert_eq!(*shared, *server.agree(&client.public()).expect("honest keys contribute"));
    let group = GroupId([9; 32]);
    let (one, other) = (end(1, client.public()), end(2, server.public()));
    let pair = pair_key(&shared, &one, &other, &group);
    assert_eq!(pair, pair_key(&shared, &one, &other, &group));
    assert_ne!(pair, pair_key(&shared, &other, &one, &group));
    assert_ne!(pair, pair_key(&shared, &one, &other, &GroupId([8; 32])));
    // Whoever announces the key of another one has no pad of that one.
    assert_ne!(pair, pair_key(&shared, &one, &end(3, server.public()), &group));
    assert_ne!(pair, pair_key(&shared, &end(3, client.public()), &other, &group));
}

#[test]
fn keys_of_small_order_are_exactly_those_that_agree_on_nothing() {
    let secret = RoundSecret::from_seed([5; 32]);
    // Every encoding that the curve reduces, on both sides of p and of 2^255.
    let mut found = 0;
    for top in [0x00, 0x80, 0x7f, 0xff] {
        for rest in [0x00, 0xff] {
            for low in 0..=255 {
                let mut key = [rest; 32];
                key[0] = low;
                key[31] = top;
                let key = PublicKey(key);
                assert_eq!(key.is_contributory(), secret.agree(&key).is_some(), "{key}");
                found += u32::from(!key.is_contributory());
            }
        }
    }
    assert_eq!(found, 10, "0, 1, p-1, p and p+1, each with the top bit clear and set");
    for text in [
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ] {
        let mut key = UniqueId::from_text(text).0;
        for _ in 0..2 {
            assert!(!PublicKey(key).is_contributory() && secret.agree(&PublicKey(key)).is_none(), "{text}");
            key[31] ^= 0x80;
        }
    }
}

#[test]
fn a_group_proof_is_worth_nothing_elsewhere() {
    let secret = CommitteeSecret::from_bytes([0x1b; 32]);
    let other = CommitteeSecret::from_bytes([0x1c; 32]);
    let (ann, bob) = (identity("ann").peer(), identity("bob").peer());
    let link = [4; 32];
    let proof = secret.group_proof(&link, Role::Server, &ann, &bob);
    assert!(secret.check_group_proof(&link, Role::Server, &ann, &bob, &proof));
    assert!(!other.check_group_proof(&link, Role::Server, &ann, &bob, &proof), "another committee");
    assert!(!secret.check_group_proof(&[5; 32], Role::Server, &ann, &bob, &proof), "another link");
    assert!(!secret.check_group_proof(&link, Role::Aggregator, &ann, &bob, &proof), "another role");
    assert!(!secret.check_group_proof(&link, Role::Server, &bob, &ann, &proof), "sent back to its maker");
    for bit in 0..256 {
        let mut forged = proof;
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(!secret.check_group_proof(&link, Role::Server, &ann, &bob, &forged), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_keys_panic(peer: [u8; 32], digest: [u8; 32], first: [u8; 32], second: [u8; 32]) {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&first);
        signature[32..].copy_from_slice(&second);
        prop_assert!(!verify(&PeerId(peer), &Digest(digest), &Signature(signature)));
        let agreed = RoundSecret::from_seed(digest).agree(&PublicKey(peer));
        prop_assert_eq!(agreed.is_some(), PublicKey(peer).is_contributory());
    }
}
