//! Identifiers come from texts by published rules.

use zipnet_core::id::{UNIVERSE, UniqueId};
use zipnet_core::instance::{Instance, InstanceError, machine_signature};
use zipnet_core::key::{CommitteeSecret, NodeSecret, SECRET_CHARS_MIN};
use zipnet_core::params::RoundParams;
use zipnet_core::wire::WIRE_VERSION;

const DIGITS: &str = "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff";

#[test]
fn the_universe_is_the_id_of_its_text() {
    assert_eq!(UNIVERSE, UniqueId::from_text("mosaik.universe"));
}

#[test]
fn exactly_sixty_four_digits_are_decoded_and_all_else_is_hashed() {
    let decoded = UniqueId::from_text(DIGITS);
    assert_eq!(decoded.to_string(), DIGITS.to_lowercase());
    for text in
        ["", "abc", &DIGITS[1..], &format!("{DIGITS}0"), &format!("g{}", &DIGITS[1..]), &format!(" {DIGITS}")]
    {
        assert_eq!(UniqueId::from_text(text).0, *blake3::hash(text.as_bytes()).as_bytes(), "{text:?}");
    }
    // A sign is no digit, although number parsers take one; neither are 64 bytes that are not 64 characters.
    let signed = format!("+{}", &DIGITS[1..]);
    assert_eq!(UniqueId::from_text(&signed).0, *blake3::hash(signed.as_bytes()).as_bytes());
    let umlauts = "ä".repeat(32);
    assert_eq!(UniqueId::from_text(&umlauts).0, *blake3::hash(umlauts.as_bytes()).as_bytes());
}

#[test]
fn an_instance_and_its_children_are_all_different() {
    let instance = Instance::new("testnet").expect("the name is good");
    assert_eq!(instance.id().0, *blake3::hash(b"zipnet.testnet").as_bytes());
    let mut ids = vec![
        instance.id(),
        instance.committee(),
        instance.submit(),
        instance.register(),
        instance.broadcasts(),
        instance.live_round(),
        instance.client_registry(),
        instance.server_registry(),
    ];
    assert_eq!(ids[1], instance.id().derive("committee"));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 8);
}

#[test]
fn names_that_operators_can_not_compare_are_refused() {
    assert_eq!(Instance::new(""), Err(InstanceError::Empty));
    assert_eq!(Instance::new("a\nb"), Err(InstanceError::Unprintable));
    assert_eq!(Instance::new(&"x".repeat(201)), Err(InstanceError::TooLong { bytes: 201 }));
    assert!(Instance::new(&"x".repeat(200)).is_ok());
}

#[test]
fn the_machine_signature_depends_on_every_part() {
    let base = (WIRE_VERSION, 1, RoundParams::DEFAULT);
    let shape = |slots, bytes, tag| RoundParams::new(slots, bytes, tag).expect("the parameters are good");
    let others = [
        (2, 1, RoundParams::DEFAULT),
        (WIRE_VERSION, 2, RoundParams::DEFAULT),
        (WIRE_VERSION, 1, shape(65, 256, 16)),
        (WIRE_VERSION, 1, shape(64, 257, 16)),
        (WIRE_VERSION, 1, shape(64, 256, 17)),
    ];
    for (wire, machine, params) in others {
        assert_ne!(machine_signature(base.0, base.1, &base.2), machine_signature(wire, machine, &params));
    }
}

#[test]
fn a_group_is_instance_secret_and_machine() {
    let [here, there] = ["here", "there"].map(|name| Instance::new(name).expect("the name is good"));
    let secret = CommitteeSecret::from_text(DIGITS, &here);
    let other = CommitteeSecret::from_text(&DIGITS.replace('0', "1"), &here);
    let signature = machine_signature(WIRE_VERSION, 1, &RoundParams::DEFAULT);
    let upgraded = machine_signature(WIRE_VERSION, 2, &RoundParams::DEFAULT);
    let group = secret.group_id(&here, &signature);
    assert_eq!(group, CommitteeSecret::from_text(&DIGITS.to_lowercase(), &there).group_id(&here, &signature));
    assert_ne!(group, other.group_id(&here, &signature));
    assert_ne!(group, secret.group_id(&there, &signature));
    assert_ne!(group, secret.group_id(&here, &upgraded));
}

#[test]
fn short_texts_are_noticed_and_digits_are_not() {
    assert!(NodeSecret::is_short(""));
    assert!(NodeSecret::is_short(&"ö".repeat(SECRET_CHARS_MIN - 1)));
    assert!(!NodeSecret::is_short(&"ö".repeat(SECRET_CHARS_MIN)));
    assert!(!NodeSecret::is_short(DIGITS));
    assert!(CommitteeSecret::weak("hunter2"));
    assert!(!CommitteeSecret::weak(DIGITS));
}

#[test]
fn texts_are_stretched_for_one_instance_and_digits_are_taken_as_they_are() {
    const TEXT: &str = "correct horse battery staple";
    let [here, there] = ["here", "there"].map(|name| Instance::new(name).expect("the name is good"));
    let hashed = UniqueId::from_text(TEXT);

    let committee = CommitteeSecret::from_text(TEXT, &here);
    assert_eq!(committee, CommitteeSecret::from_text(TEXT, &here));
    assert_ne!(
        committee,
        CommitteeSecret::from_text(TEXT, &there),
        "no table of passwords serves two instances"
    );
    assert_ne!(committee, CommitteeSecret::from_bytes(hashed.0), "a password is not merely hashed");

    let node = NodeSecret::from_text(TEXT, &here);
    assert_eq!(node, NodeSecret::from_text(TEXT, &here));
    assert_ne!(node, NodeSecret::from_text(TEXT, &there), "no table of texts serves two instances");
    assert_ne!(node, NodeSecret::from_bytes(hashed.0), "a text is not merely hashed");

    let digits = UniqueId::from_text(DIGITS).0;
    for instance in [&here, &there] {
        assert_eq!(NodeSecret::from_text(DIGITS, instance), NodeSecret::from_bytes(digits));
        assert_eq!(CommitteeSecret::from_text(DIGITS, instance), CommitteeSecret::from_bytes(digits));
    }
}
