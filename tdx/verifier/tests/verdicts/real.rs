//! Quotes of real machines, under Intel's root. Their licence lies beside them.

use zipnet_tdx::collateral::{Collateral, Standing};
use zipnet_tdx::date::{DAY, Date};
use zipnet_tdx::manifest::{Manifest, Release, ReleaseSecret};
use zipnet_tdx::measurement::ReportData;
use zipnet_tdx::policy::Policy;
use zipnet_tdx::quote::Quote;
use zipnet_tdx::refused::{Reason, Refused};
use zipnet_tdx::tcb::Status;
use zipnet_tdx::verifier::{Attested, Verifier};

use crate::scene::Scene;

pub(crate) const V4: &[u8] = include_bytes!("../data/v4_td10.quote.bin");
const V4_COLLATERAL: &str = include_str!("../data/v4_td10.collateral.json");
pub(crate) const V5: &[u8] = include_bytes!("../data/v5_td15_azure_outdated.quote.bin");
const V5_COLLATERAL: &str = include_str!("../data/v5_td15_azure_outdated.collateral.json");

/// When the collateral of the first one was current.
pub(crate) const V4_TIME: Date = Date(1_750_329_148);
/// The same of the second one.
const V5_TIME: Date = Date(1_771_600_000);

const V4_MR_TD: &str =
    "91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7";
const V4_RTMR1: &str =
    "0084452c01668329d4bc06acdf58a7205c26743304509973949e5619bf81a6a7aea8c323c173019b3093d54e579e9378";
const V4_RTMR2: &str =
    "d833feef2cd945148aa38ead2c53e9b7f138190aaaebfc551dccd829fc207aa3ba80b70870d7330733642e01d48c3132";
const V4_REPORT_DATA: &str = "9a9d48e7f6799642d3d1b34e1e5e1742d4bb02dd6ddd551862c1211d35c304f9\
    eca3efdbb481601c163cf52493d6e44aed55d51ec39b7e518fadb92c2b523f20";

pub(crate) fn v4_collateral() -> Collateral {
    Collateral::from_json(V4_COLLATERAL).unwrap()
}

/// Admits the first quote, with its registers pinned.
pub(crate) fn v4_policy() -> Policy {
    let secret = ReleaseSecret::from_seed(&[1; 32]);
    let manifest = Manifest {
        releases: vec![Release {
            label: "real".to_owned(),
            mr_td: V4_MR_TD.parse().unwrap(),
            rtmr1: Some(V4_RTMR1.parse().unwrap()),
            rtmr2: Some(V4_RTMR2.parse().unwrap()),
            not_before: Date(0),
            not_after: Date(u64::MAX),
        }],
        evaluation_number_min: 17,
        accepted_statuses: vec![Status::UpToDate],
        ..Manifest::new(1, Date(0))
    };
    Policy::new(manifest.sign(&secret).unwrap(), &secret.public(), Date(0)).unwrap()
}

pub(crate) fn v4_report_data() -> ReportData {
    V4_REPORT_DATA.parse().unwrap()
}

fn judge(verifier: &Verifier, quote: &[u8], now: Date) -> Result<Attested, Refused> {
    verifier.judge(quote, &[v4_collateral()], &v4_policy(), &v4_report_data(), now)
}

#[test]
fn a_real_quote_is_admitted_at_its_time() {
    let attested = judge(&Verifier::intel(), V4, V4_TIME).unwrap();
    assert_eq!(attested.release(), "real");
    let genuine = attested.genuine();
    assert_eq!(genuine.status(), Status::UpToDate);
    assert_eq!(genuine.evaluation_number(), 17);
    assert_eq!(genuine.fmspc().to_string(), "b0c06f000000");
    assert!(genuine.advisories().is_empty() && genuine.shortfalls().is_empty());
    assert_eq!(attested.until(), "2025-07-19T10:00:35Z".parse().unwrap());
    assert_eq!(genuine.newest(), "2025-06-19T10:32:27Z".parse().unwrap());
    // It came in a buffer for the longer form.
    assert_eq!((V4.len(), Quote::read(V4).unwrap().bytes().len()), (5_006, 4_936));
}

#[test]
fn a_real_quote_of_an_old_platform_is_refused_with_what_it_lacks() {
    let collateral = Collateral::from_json(V5_COLLATERAL).unwrap();
    let refused = Verifier::intel().examine(V5, &[collateral], V5_TIME).unwrap_err();
    assert_eq!(refused.reason(), Reason::BelowEveryLevel, "{refused}");
    assert!(refused.have().contains(": have "), "{refused}");
    assert_eq!(Quote::read(V5).unwrap().version(), 5);
}

#[test]
fn a_real_quote_is_refused_at_another_time() {
    for (date, reason) in [
        ("2026-11-29", Reason::CollateralExpired),
        ("2025-07-20", Reason::CollateralExpired),
        ("2025-06-19T10:16:02Z", Reason::CollateralFromTheFuture),
        ("2020-01-01", Reason::CollateralFromTheFuture),
    ] {
        let refused = judge(&Verifier::intel(), V4, date.parse().unwrap()).unwrap_err();
        assert_eq!(refused.reason(), reason, "{date}: {refused}");
        assert_eq!(v4_collateral().standing(date.parse().unwrap()), Standing::Expired);
    }
    assert_eq!(v4_collateral().standing(V4_TIME), Standing::Ok);
    assert_eq!(v4_collateral().standing(V4_TIME.after(20 * DAY)), Standing::Soon);
}

#[test]
fn a_real_quote_is_refused_with_any_of_64_bytes_changed() {
    // Behind the last beginning stands the root, which nobody takes from a quote.
    let mut begins = V4.windows(27).enumerate().filter(|(_, text)| *text == b"-----BEGIN CERTIFICATE-----");
    let (root, _) = begins.next_back().unwrap();
    for place in (0..64).map(|number| number * root / 64) {
        for bit in [0x01, 0x40, 0x80] {
            let mut changed = V4.to_vec();
            changed[place] ^= bit;
            let refused = judge(&Verifier::intel(), &changed, V4_TIME);
            assert!(refused.is_err(), "byte {place} was changed by {bit:#x}");
        }
    }
}

#[test]
fn the_roots_do_not_know_each_other() {
    let scene = Scene::new();
    let refused = judge(&Verifier::new(scene.root.clone()), V4, V4_TIME).unwrap_err();
    assert_eq!(refused.reason(), Reason::ForeignRoot, "{refused}");
    let simulated = Verifier::intel().examine(&scene.bytes(), &[scene.collateral()], scene.now).unwrap_err();
    assert_eq!(simulated.reason(), Reason::ForeignRoot, "{simulated}");
    // A real quote with simulated collateral, for those who would mix them.
    let mut mixed = Scene::new();
    mixed.bulletin.fmspc = v4_collateral().fmspc();
    mixed.bulletin.issued = V4_TIME;
    let refused = Verifier::intel().examine(V4, &[mixed.collateral()], mixed.now).unwrap_err();
    assert_eq!(refused.reason(), Reason::ForeignRoot, "{refused}");
}
