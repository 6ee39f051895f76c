//! Manifests: what is read, what is signed, and what is said about what is wrong.

use zipnet_tdx::date::Date;
use zipnet_tdx::manifest::{MANIFEST_BYTES_MAX, Manifest, ReleaseSecret, SignedManifest};
use zipnet_tdx::measurement::{Measurement, Platform};
use zipnet_tdx::refused::Reason;
use zipnet_tdx::tcb::Status;

use crate::scene::release;

fn secret() -> ReleaseSecret {
    ReleaseSecret::from_seed(&[7; 32])
}

/// With something in every field.
fn full() -> Manifest {
    let mut pinned = release("v1.2 page-by-page", Measurement([1; 48]));
    pinned.rtmr1 = Some(Measurement([2; 48]));
    pinned.rtmr2 = Some(Measurement([3; 48]));
    Manifest {
        releases: vec![pinned, release("v1.1", Measurement([4; 48]))],
        platforms: Some(vec![Platform([5; 16])]),
        evaluation_number_min: 17,
        accepted_statuses: vec![Status::UpToDate, Status::OutOfDate],
        accepted_advisories: vec!["INTEL-SA-00001".to_owned()],
        grace_days: 14,
        ..Manifest::new(3, Date(1_768_176_000))
    }
}

#[test]
fn what_was_signed_is_what_is_read() {
    for manifest in [Manifest::new(0, Date(0)), full()] {
        let signed = manifest.clone().sign(&secret()).unwrap();
        let read: SignedManifest = signed.to_json().parse().unwrap();
        assert_eq!(read, signed);
        assert_eq!(read.signed_by(), Some(secret().public()));
        assert_eq!(read.open(&secret().public()), Ok(manifest.clone()));
        let unsigned = SignedManifest::from(manifest.clone());
        assert_eq!(unsigned.to_json().parse(), Ok(unsigned.clone()));
        assert_eq!(unsigned.unproven(), &manifest);
    }
    // The values are signed, not their spelling.
    let text = full().sign(&secret()).unwrap().to_json();
    let spelt: SignedManifest = text.replace("\n", "\r\n    ").parse().unwrap();
    assert!(spelt.open(&secret().public()).is_ok());
}

/// The fields in the order of `docs/protocol.md`, digested by hand.
#[test]
fn the_digest_is_what_the_page_says() {
    let bytes = |bytes: &[u8]| {
        let digest = blake3::derive_key("zipnet v1 vector", bytes);
        [&(bytes.len() as u64).to_le_bytes()[..], &digest].concat()
    };
    let word = |number: u64| number.to_le_bytes().to_vec();
    let (from, to) =
        (release("", Measurement([0; 48])).not_before.0, release("", Measurement([0; 48])).not_after.0);
    let fields = [
        word(3),
        word(1_768_176_000),
        word(2),
        bytes(b"v1.2 page-by-page"),
        bytes(&[1; 48]),
        vec![1],
        bytes(&[2; 48]),
        vec![1],
        bytes(&[3; 48]),
        word(from),
        word(to),
        bytes(b"v1.1"),
        bytes(&[4; 48]),
        vec![0],
        vec![0],
        word(from),
        word(to),
        vec![1],
        word(1),
        bytes(&[5; 16]),
        17_u32.to_le_bytes().to_vec(),
        word(2),
        vec![0, 4],
        word(1),
        bytes(b"INTEL-SA-00001"),
        14_u32.to_le_bytes().to_vec(),
    ];
    assert_eq!(full().digest().0, blake3::derive_key("zipnet v1 release manifest", &fields.concat()));
}

#[test]
fn every_value_is_signed() {
    let text = full().sign(&secret()).unwrap().to_json();
    for (from, to) in [
        ("\"number\": 3", "\"number\": 4"),
        ("\"issued\": \"2026-01-12T00:00:00Z\"", "\"issued\": \"2026-01-12T00:00:01Z\""),
        ("v1.2", "v1.3"),
        (&"01".repeat(48), &"11".repeat(48)),
        (&"02".repeat(48), &"12".repeat(48)),
        (&"03".repeat(48), &"13".repeat(48)),
        ("\"not_before\": \"2026-01-01", "\"not_before\": \"2026-01-02"),
        ("\"not_after\": \"2027-01-01", "\"not_after\": \"2028-01-01"),
        (&"05".repeat(16), &"15".repeat(16)),
        ("\"evaluation_number_min\": 17", "\"evaluation_number_min\": 16"),
        ("\"OutOfDate\"", "\"SWHardeningNeeded\",\"OutOfDate\""),
        ("INTEL-SA-00001", "INTEL-SA-00002"),
        ("\"grace_days\": 14", "\"grace_days\": 15"),
    ] {
        assert!(text.contains(from), "{from} is not in {text}");
        let changed: SignedManifest = text.replacen(from, to, 1).parse().unwrap();
        let refused = changed.open(&secret().public()).unwrap_err();
        assert_eq!(refused.reason(), Reason::ManifestSignature, "{from}: {refused}");
    }
    let kept: SignedManifest = text.parse().unwrap();
    let stranger = ReleaseSecret::from_seed(&[8; 32]);
    assert_eq!(kept.open(&stranger.public()).unwrap_err().reason(), Reason::ManifestKey);
    // Somebody else's name beside the right signature, and the other way round.
    let key = secret().public().to_string();
    let claimed: SignedManifest = text.replace(&key, &stranger.public().to_string()).parse().unwrap();
    assert_eq!(claimed.clone().open(&stranger.public()).unwrap_err().reason(), Reason::ManifestSignature);
    assert_eq!(claimed.open(&secret().public()).unwrap_err().reason(), Reason::ManifestKey);
}

#[test]
fn what_is_wrong_is_said() {
    let text = full().sign(&secret()).unwrap().to_json();
    let cases: &[(&str, &str, &str)] = &[
        ("\"format\": 1", "\"format\": 2", "it has format 2; this version reads 1"),
        ("\"number\": 3", "\"numbr\": 3", "unknown field `numbr`"),
        ("\"number\": 3,", "", "missing field `number`"),
        ("\"issued\": \"2026-01-12T00:00:00Z\"", "\"issued\": \"today\"", "expected a date after 1970"),
        ("\"v1.1\"", "\"\"", "release 2 (): a label has 1 to 100 bytes"),
        ("\"v1.1\"", "\"v\\u001b\"", "a label has 1 to 100 bytes"),
        (&"04".repeat(48), &"04".repeat(47), "expected 96 hexadecimal digits"),
        (&"04".repeat(48), &"00".repeat(48), "a register of zeros"),
        (&"02".repeat(48), &"00".repeat(48), "a register of zeros"),
        ("\"not_after\": \"2027", "\"not_after\": \"2026", "which is not after its beginning"),
        ("\"OutOfDate\"", "\"Revoked\"", "Revoked is accepted by nobody"),
        ("\"OutOfDate\"", "\"Outdated\"", "unknown variant `Outdated`"),
        ("\"OutOfDate\"", "\"UpToDate\"", "grace_days: they help only with OutOfDate"),
        ("INTEL-SA-00001", " ", "no name of an advisory"),
        ("\"signature\": \"", "\"signature\": \"0", "expected 128 hexadecimal digits"),
        ("\"signed_by\": \"", "\"signed_by\": \"0", "a release key has 64 hexadecimal digits"),
        ("\"label\"", "\"hint\": 1, \"label\"", "unknown field `hint`"),
    ];
    for (from, to, expected) in cases {
        assert!(text.contains(from), "{from} is not in {text}");
        let reason = text.replacen(from, to, 1).parse::<SignedManifest>().unwrap_err().to_string();
        assert!(reason.contains(expected) && reason.starts_with("read the manifest: "), "{to}: {reason}");
    }
    for (text, expected) in [
        (String::new(), "EOF while parsing"),
        ("[]".to_owned(), "expected an object with the fields of a manifest"),
        (" ".repeat(MANIFEST_BYTES_MAX + 1), "262145 bytes exceed 262144"),
    ] {
        let reason = text.parse::<SignedManifest>().unwrap_err().to_string();
        assert!(reason.contains(expected), "{reason}");
    }
    let mut twice = full();
    twice.releases[1] = twice.releases[0].clone();
    twice.releases[1].label = "again".to_owned();
    let reason = twice.sign(&secret()).unwrap_err().to_string();
    assert!(reason.ends_with("release 2 (again): the same measurements as v1.2 page-by-page"), "{reason}");
    let mut long = full();
    long.accepted_advisories = (0..=1_000).map(|number| number.to_string()).collect();
    assert!(long.sign(&secret()).is_err());
}
