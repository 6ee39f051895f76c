//! What proves what a peer runs on, and what that is judged by: quotes, collateral, release manifests, firmware.

use std::sync::LazyLock;

use zipnet_tdx::collateral::Collateral;
use zipnet_tdx::date::{DAY, Date};
use zipnet_tdx::firmware::{Firmware, Order};
use zipnet_tdx::manifest::{Manifest, Release, ReleaseSecret, SignedManifest};
use zipnet_tdx::measurement::{Measurement, ReportData};
use zipnet_tdx::policy::Policy;
use zipnet_tdx::quote::{QUOTE_BYTES_MAX, Quote};
use zipnet_tdx::refused::{Reason, Refused};
use zipnet_tdx::tcb::Status;
use zipnet_tdx::verifier::Verifier;
use zipnet_tdx_mock::firmware::{image, sections};
use zipnet_tdx_mock::platform::{Build, FMSPC, Form, Guest, Machine};
use zipnet_tdx_mock::vendor::{Bulletin, Vendor};

use crate::Verdict;
use crate::memory::bounded;

const SINCE: Date = Date(1_767_225_600);
const NOW: Date = SINCE.after(10 * DAY);
const REPORT_DATA: ReportData = ReportData([5; 64]);

/// More memory takes longer to measure than a run should.
const MEASURED_MAX: u64 = 16 << 20;

/// A simulated platform whose guest is admitted, and what admits it.
struct Scene {
    quotes: Vec<(&'static str, Vec<u8>)>,
    verifier: Verifier,
    collateral: Collateral,
    /// The same platform, said to be out of date.
    out_of_date: String,
    manifest: Manifest,
    signed: SignedManifest,
    policy: Policy,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let vendor = Vendor::new(b"fuzz", SINCE);
    let machine = Machine::new(&vendor, "machine", Build::default());
    let image = Measurement([1; 48]);
    let quote = |form| machine.quote(&Guest { form, ..Guest::new(image) }, &REPORT_DATA);
    let mut bulletin = Bulletin::quiet(FMSPC, NOW);
    let collateral = vendor.collateral(&bulletin);
    bulletin.levels[0].status = Status::OutOfDate;
    let secret = ReleaseSecret::from_seed(&[7; 32]);
    let manifest = Manifest {
        releases: vec![Release {
            label: "v1".to_owned(),
            mr_td: image,
            rtmr1: None,
            rtmr2: None,
            not_before: SINCE,
            not_after: SINCE.after(365 * DAY),
        }],
        accepted_statuses: vec![Status::UpToDate],
        ..Manifest::new(1, SINCE)
    };
    let signed = manifest.clone().sign(&secret).expect("it keeps the rules");
    Scene {
        quotes: [("v4", Form::V4), ("v5", Form::V5), ("v5-td15", Form::V5Td15)]
            .map(|(name, form)| (name, quote(form)))
            .to_vec(),
        verifier: Verifier::new(vendor.root()),
        collateral: Collateral::from_json(&collateral).expect("it was made to be read"),
        out_of_date: vendor.collateral(&bulletin),
        policy: Policy::new(signed.clone(), &secret.public(), SINCE).expect("it is signed"),
        manifest,
        signed,
    }
});

/// What is admitted says what the platform has signed; what is refused is refused in words that may be shown.
pub(crate) fn quote(bytes: &[u8]) -> Verdict {
    let scene = &*SCENE;
    let read = bounded(bytes, || Quote::read(bytes));
    let judge = || {
        scene.verifier.judge(bytes, std::slice::from_ref(&scene.collateral), &scene.policy, &REPORT_DATA, NOW)
    };
    match bounded(bytes, judge) {
        Ok(attested) => {
            let signed =
                |bytes| Quote::read(bytes).ok().map(|quote| (quote.version(), quote.mr_td(), quote.rtmr()));
            assert!(
                scene.quotes.iter().any(|(_, known)| signed(known) == signed(bytes)),
                "a forged quote was admitted"
            );
            assert_eq!(attested.release(), "v1");
            Verdict::Taken
        }
        Err(refused) => {
            check(&refused);
            assert_eq!(refused.reason() == Reason::TooLong, bytes.len() > QUOTE_BYTES_MAX);
            // What can be read was looked at more closely.
            if read.is_ok() { Verdict::Taken } else { Verdict::Refused }
        }
    }
}

fn check(refused: &Refused) {
    let said = refused.to_string();
    assert!(!said.contains(char::is_control) && said.len() < 4_096, "{said:?}");
}

pub(crate) fn quote_seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds: Vec<_> =
        SCENE.quotes.iter().map(|(name, quote)| ((*name).to_owned(), quote.clone())).collect();
    let whole = &SCENE.quotes[0].1;
    seeds.push(("padded".to_owned(), [&whole[..], &[0; 70]].concat()));
    seeds.push(("cut".to_owned(), whole[..whole.len() - 1].to_vec()));
    seeds
}

/// Collateral that somebody has changed makes no platform better than what was signed about it.
pub(crate) fn collateral(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes);
    let Ok(collateral) = bounded(bytes, || Collateral::from_json(&text)) else { return Verdict::Refused };
    let _standing = collateral.standing(NOW);
    match SCENE.verifier.examine(&SCENE.quotes[0].1, &[collateral], NOW) {
        Ok(genuine) => assert_eq!(genuine.status(), Status::OutOfDate, "forged collateral was believed"),
        Err(refused) => check(&refused),
    }
    Verdict::Taken
}

pub(crate) fn collateral_seeds() -> Vec<(String, Vec<u8>)> {
    let whole = SCENE.out_of_date.clone().into_bytes();
    let cut = whole[..whole.len() - 1].to_vec();
    vec![("out-of-date".to_owned(), whole), ("cut".to_owned(), cut)]
}

/// A manifest is written as it is read, and what a key has signed is what is in it.
pub(crate) fn manifest(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes);
    let read = match bounded(bytes, || text.parse::<SignedManifest>()) {
        Ok(read) => read,
        Err(reason) => {
            assert!(!reason.to_string().is_empty());
            return Verdict::Refused;
        }
    };
    assert_eq!(read.to_json().parse().as_ref(), Ok(&read), "it changes with writing");
    let key = SCENE.signed.signed_by().expect("it is signed");
    match read.open(&key) {
        Ok(manifest) => assert_eq!(manifest, SCENE.manifest, "a forged manifest was believed"),
        Err(refused) => check(&refused),
    }
    Verdict::Taken
}

pub(crate) fn manifest_seeds() -> Vec<(String, Vec<u8>)> {
    let signed = SCENE.signed.to_json();
    let unsigned = SignedManifest::from(SCENE.manifest.clone()).to_json();
    let unknown = signed.replace("grace_days", "grace_weeks");
    let seeds = [("signed", signed), ("unsigned", unsigned), ("unknown-key", unknown)];
    seeds.map(|(name, text)| (name.to_owned(), text.into_bytes())).to_vec()
}

/// Parts of an image lie within it, and it has the same value each time.
pub(crate) fn firmware(bytes: &[u8]) -> Verdict {
    let Ok(firmware) = bounded(bytes, || Firmware::read(bytes)) else { return Verdict::Refused };
    for section in firmware.sections() {
        assert!(section.offset as usize + section.bytes as usize <= bytes.len(), "{section:?}");
        assert!(!section.is_measured || section.is_added, "{section:?}");
    }
    let added = firmware.sections().iter().filter(|section| section.is_added).map(|section| section.memory);
    if added.sum::<u64>() <= MEASURED_MAX {
        for order in Order::ALL {
            assert_eq!(firmware.mr_td(order), firmware.mr_td(order));
        }
    }
    Verdict::Taken
}

pub(crate) fn firmware_seeds() -> Vec<(String, Vec<u8>)> {
    let whole = image(&sections());
    let cut = whole[..whole.len() - 1].to_vec();
    vec![("whole".to_owned(), whole), ("cut".to_owned(), cut)]
}
