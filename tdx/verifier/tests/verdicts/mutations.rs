//! Bytes that somebody has changed: nothing panics, and nothing that was not signed is admitted.

use proptest::prelude::*;
use zipnet_tdx::collateral::Collateral;
use zipnet_tdx::firmware::{Firmware, Order};
use zipnet_tdx::manifest::SignedManifest;
use zipnet_tdx::quote::Quote;
use zipnet_tdx::verifier::Verifier;
use zipnet_tdx_mock::firmware::{image, sections};
use zipnet_tdx_mock::platform::Form;

use crate::real::{V4, V4_TIME, V5, v4_collateral, v4_policy, v4_report_data};
use crate::scene::Scene;

/// Changes at places that are drawn: a byte becomes another one, some are left out or put in.
fn changes() -> impl Strategy<Value = Vec<(u16, u8, u8)>> {
    prop::collection::vec(any::<(u16, u8, u8)>(), 1..8)
}

fn change(mut bytes: Vec<u8>, changes: &[(u16, u8, u8)]) -> Vec<u8> {
    for (place, what, value) in changes {
        if bytes.is_empty() {
            break;
        }
        let place = usize::from(*place) % bytes.len();
        match what % 8 {
            0 => bytes.truncate(place),
            1 => bytes.insert(place, *value),
            2 => drop(bytes.remove(place)),
            _ => bytes[place] = *value,
        }
    }
    bytes
}

/// Header and body are what the platform signs.
fn signed_part(quote: &[u8]) -> Option<&[u8]> {
    let quote = Quote::read(quote).ok()?;
    let len = match quote.version() {
        4 => 48 + 584,
        _ => 48 + 6 + 648,
    };
    quote.bytes().get(..len)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_real_quote_is_refused_or_says_the_same(changes in changes()) {
        let changed = change(V4.to_vec(), &changes);
        let verdict = Verifier::intel().judge(&changed, &[v4_collateral()], &v4_policy(), &v4_report_data(), V4_TIME);
        if verdict.is_ok() {
            prop_assert_eq!(signed_part(&changed), signed_part(V4));
        }
    }

    #[test]
    fn a_changed_simulated_quote_is_refused_or_says_the_same(changes in changes()) {
        let mut scene = Scene::new();
        scene.guest.form = Form::V5Td15;
        let whole = scene.bytes();
        let changed = change(whole.clone(), &changes);
        let verdict = Verifier::new(scene.root.clone()).judge(
            &changed,
            &[scene.collateral()],
            &scene.policy().unwrap(),
            &scene.expected,
            scene.now,
        );
        if verdict.is_ok() {
            prop_assert_eq!(signed_part(&changed), signed_part(&whole));
        }
    }

    #[test]
    fn changed_collateral_admits_nobody_more(changes in changes()) {
        let mut scene = Scene::new();
        // What would be refused stays refused.
        scene.bulletin.levels[0].status = zipnet_tdx::tcb::Status::OutOfDate;
        let changed = change(scene.vendor.collateral(&scene.bulletin).into_bytes(), &changes);
        if let Ok(collateral) = Collateral::from_json(&String::from_utf8_lossy(&changed)) {
            let verifier = Verifier::new(scene.root.clone());
            let verdict =
                verifier.judge(&scene.bytes(), &[collateral], &scene.policy().unwrap(), &scene.expected, scene.now);
            prop_assert!(verdict.is_err());
        }
    }

    #[test]
    fn a_changed_manifest_is_refused_or_says_the_same(changes in changes()) {
        let scene = Scene::new();
        let signed = scene.manifest.clone().sign(&scene.signer).unwrap();
        let changed = change(signed.to_json().into_bytes(), &changes);
        if let Ok(read) = String::from_utf8_lossy(&changed).parse::<SignedManifest>()
            && let Ok(opened) = read.open(&scene.key)
        {
            prop_assert_eq!(opened, scene.manifest);
        }
    }

    #[test]
    fn changed_firmware_is_refused_or_measured(changes in changes()) {
        let changed = change(image(&sections()), &changes);
        if let Ok(firmware) = Firmware::read(&changed) {
            for order in Order::ALL {
                let _value = firmware.mr_td(order);
            }
        }
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(Quote::read(&bytes).is_err());
        prop_assert!(Firmware::read(&bytes).is_err());
    }
}

#[test]
fn every_truncation_is_refused() {
    for whole in [V4, V5] {
        let end = Quote::read(whole).unwrap().bytes().len();
        assert!((0..end).all(|len| Quote::read(&whole[..len]).is_err()));
        assert!(Quote::read(&whole[..end]).is_ok());
    }
}
