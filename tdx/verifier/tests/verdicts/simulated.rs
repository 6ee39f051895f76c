//! Evidence with one thing wrong, each refused by its own reason.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};
use zipnet_core::id::{PeerId, UniqueId};
use zipnet_tdx::binding::report_data;
use zipnet_tdx::date::{DAY, Date};
use zipnet_tdx::manifest::ReleaseSecret;
use zipnet_tdx::measurement::{Fmspc, Measurement, Platform};
use zipnet_tdx::quote::QUOTE_BYTES_MAX;
use zipnet_tdx::refused::Reason;
use zipnet_tdx::tcb::{Lift, Status};
use zipnet_tdx::verifier::Verifier;
use zipnet_tdx_mock::platform::{Build, Form, Guest, Machine};
use zipnet_tdx_mock::vendor::{Level, Vendor};

use crate::scene::{IMAGE, ISSUED, NOW, SINCE, Scene, release};

/// What is wrong, and what that is called.
type Wrong = (&'static str, fn(&mut Scene), Reason);

const WRONG: &[Wrong] = &[
    ("too many bytes", |scene| scene.quote = |quote| quote.resize(QUOTE_BYTES_MAX + 1, 0), Reason::TooLong),
    (
        "the last byte is missing",
        |scene| scene.quote = |quote| quote.truncate(quote.len() - 1),
        Reason::Undecodable,
    ),
    ("a byte behind the end", |scene| scene.quote = |quote| quote.push(1), Reason::Undecodable),
    ("no quote", |scene| scene.quote = Vec::clear, Reason::Undecodable),
    ("the quote of an enclave", |scene| scene.quote = |quote| quote[0] = 3, Reason::NotTdx),
    ("time before the floor", |scene| scene.floor = NOW.after(1), Reason::ClockTurnedBack),
    ("time before the manifest", |scene| scene.manifest.issued = NOW.after(1), Reason::ClockTurnedBack),
    ("time before the collateral", |scene| scene.now = Date(ISSUED.0 - 1), Reason::CollateralFromTheFuture),
    (
        "a list of revoked certificates that is not valid yet",
        |scene| scene.bulletin.pck_list.0 = NOW.after(1),
        Reason::CollateralFromTheFuture,
    ),
    ("the next update is due", |scene| scene.now = scene.bulletin.next_update, Reason::CollateralExpired),
    (
        "a list of revoked certificates that is over",
        |scene| scene.bulletin.pck_list.1 = NOW,
        Reason::CollateralExpired,
    ),
    (
        "the root's list of revoked certificates is over",
        |scene| scene.bulletin.root_list.1 = NOW,
        Reason::CollateralExpired,
    ),
    ("a machine of another kind", |scene| scene.build.fmspc = Fmspc([1; 6]), Reason::NoCollateral),
    (
        "collateral that was altered",
        |scene| scene.collateral = |text| text.replace(r#"DataNumber\":20"#, r#"DataNumber\":21"#),
        Reason::CollateralUnsound,
    ),
    ("the list of another issuer", |scene| scene.collateral = root_list_twice, Reason::CollateralUnsound),
    ("another root", |scene| scene.root = Vendor::new(b"another", SINCE).root(), Reason::ForeignRoot),
    (
        "a machine below another root",
        |scene| {
            scene.quote = |quote| {
                let vendor = Vendor::new(b"another", SINCE);
                let machine = Machine::new(&vendor, "machine", Build::default());
                *quote = machine.quote(&Guest::new(IMAGE), &Scene::new().expected);
            };
        },
        Reason::ForeignRoot,
    ),
    (
        "a machine whose certificate was revoked",
        |scene| scene.bulletin.revoked = vec![scene.machine().serial()],
        Reason::CertificateRevoked,
    ),
    ("a body that was altered", |scene| scene.quote = |quote| quote[48 + 136] ^= 1, Reason::BadSignature),
    (
        "another enclave's report",
        |scene| scene.quote = |quote| quote[632 + 4 + 134] ^= 1,
        Reason::BadSignature,
    ),
    ("an old quoting enclave", |scene| scene.build.enclave = 3, Reason::QuotingEnclave),
    ("a debug guest", |scene| scene.guest.attributes[0] = 1, Reason::DebugTd),
    ("a migratable guest", |scene| scene.guest.attributes[3] |= 0x20, Reason::MigratableTd),
    ("a profiled guest", |scene| scene.guest.attributes[0] = 0x10, Reason::TdAttributes),
    ("a guest without sept-ve-disable", |scene| scene.guest.attributes[3] = 0, Reason::TdAttributes),
    ("an old TDX module", |scene| scene.guest.tdx[0] = 1, Reason::TdxModule),
    ("a TDX module that nobody knows", |scene| scene.guest.tdx[1] = 9, Reason::TdxModule),
    ("a platform older than every level", |scene| scene.build.sgx[0] = 3, Reason::BelowEveryLevel),
    (
        "a level that was revoked",
        |scene| scene.bulletin.levels[0].status = Status::Revoked,
        Reason::TcbRevoked,
    ),
    (
        "a revoked level that the manifest would accept if it could",
        |scene| {
            scene.bulletin.modules[0].status = Status::Revoked;
            scene.manifest.accepted_statuses = vec![Status::UpToDate, Status::OutOfDate];
        },
        Reason::TcbRevoked,
    ),
    (
        "the quote of another process",
        |scene| scene.said = report_data(&UniqueId([1; 32]), &PeerId([2; 32]), &[9; 32]),
        Reason::ReportData,
    ),
    ("an unknown image", |scene| scene.guest.mr_td = Measurement([0x12; 48]), Reason::UnknownMeasurement),
    ("an empty list", |scene| scene.manifest.releases.clear(), Reason::UnknownMeasurement),
    (
        "a pinned register in which nothing was measured",
        |scene| {
            scene.guest.rtmr = [Measurement([0; 48]); 4];
            scene.manifest.releases[0].rtmr1 = Some(Measurement([0x41; 48]));
        },
        Reason::RegisterAbsent,
    ),
    (
        "another kernel",
        |scene| scene.manifest.releases[0].rtmr1 = Some(Measurement([9; 48])),
        Reason::RegisterDiffers,
    ),
    (
        "another command line",
        |scene| {
            scene.manifest.releases[0].rtmr1 = Some(Measurement([0x41; 48]));
            scene.manifest.releases[0].rtmr2 = Some(Measurement([0x41; 48]));
        },
        Reason::RegisterDiffers,
    ),
    ("a release too early", |scene| scene.manifest.releases[0].not_before = NOW.after(1), Reason::NotYet),
    ("a release too late", |scene| scene.manifest.releases[0].not_after = Date(NOW.0 - 1), Reason::Retired),
    (
        "a number below the least one",
        |scene| scene.manifest.evaluation_number_min = 21,
        Reason::EvaluationNumber,
    ),
    ("out of date", |scene| scene.bulletin.levels[0].status = Status::OutOfDate, Reason::TcbStatus),
    (
        "an enclave out of date",
        |scene| scene.bulletin.enclaves[0].status = Status::OutOfDate,
        Reason::TcbStatus,
    ),
    ("nothing is accepted", |scene| scene.manifest.accepted_statuses.clear(), Reason::TcbStatus),
    ("out of date for too long", |scene| out_of_date(scene, 3, 2), Reason::GraceOver),
    (
        "a weakness that is not accepted",
        |scene| {
            scene.bulletin.levels[0].advisories =
                vec!["INTEL-SA-00001".to_owned(), "INTEL-SA-00002".to_owned()]
        },
        Reason::Advisory,
    ),
    (
        "another machine",
        |scene| scene.manifest.platforms = Some(vec![Platform([9; 16])]),
        Reason::PlatformNotListed,
    ),
    ("no machine is listed", |scene| scene.manifest.platforms = Some(vec![]), Reason::PlatformNotListed),
    ("a manifest without a signature", |scene| scene.file = unsigned, Reason::ManifestUnsigned),
    (
        "a manifest of another key",
        |scene| scene.signer = ReleaseSecret::from_seed(&[8; 32]),
        Reason::ManifestKey,
    ),
    (
        "a manifest that was altered",
        |scene| scene.file = |file| file.replace("\"number\": 1", "\"number\": 2"),
        Reason::ManifestSignature,
    ),
];

/// The platform went out of date some days ago, and the manifest gives it some.
fn out_of_date(scene: &mut Scene, days_ago: u64, grace_days: u16) {
    scene.bulletin.levels[0].status = Status::OutOfDate;
    scene.bulletin.levels[0].date = Date(NOW.0 - days_ago * DAY);
    scene.bulletin.modules[0].date = ISSUED;
    scene.manifest.accepted_statuses.push(Status::OutOfDate);
    scene.manifest.grace_days = grace_days;
}

/// The root's list stands in the place of the platform CA's, as if the collateral were for machines of another issuer.
fn root_list_twice(file: String) -> String {
    let mut file: serde_json::Value = serde_json::from_str(&file).unwrap();
    file["pck_crl"] = file["root_ca_crl"].clone();
    file.to_string()
}

fn unsigned(file: String) -> String {
    let lines = file.lines().filter(|line| !line.contains("\"sign"));
    let text: Vec<_> = lines.collect();
    text.join("\n").replace("\"grace_days\": 0,", "\"grace_days\": 0")
}

#[test]
fn each_thing_that_is_wrong_is_refused_by_its_own_reason() {
    for (what, spoil, reason) in WRONG {
        for form in [Form::V4, Form::V5, Form::V5Td15] {
            // The two places that are altered by their number are those of version 4.
            if form != Form::V4 && *reason == Reason::BadSignature {
                continue;
            }
            let mut scene = Scene::new();
            scene.guest.form = form;
            spoil(&mut scene);
            let refused = scene.judge().expect_err(what);
            assert_eq!(refused.reason(), *reason, "{what}, {form:?}: {refused}");
            assert!(!refused.have().is_empty() && !refused.need().is_empty(), "{what}: {refused}");
        }
    }
    let shown: BTreeSet<_> = WRONG.iter().map(|(_, _, reason)| *reason).collect();
    let all: BTreeSet<_> = Reason::ALL.iter().copied().collect();
    // By this name goes what the library says in words that nobody has met yet.
    assert_eq!(all.difference(&shown).collect::<Vec<_>>(), [&Reason::NotVerified]);
}

#[test]
fn what_is_right_is_admitted() {
    for form in [Form::V4, Form::V5, Form::V5Td15] {
        let mut scene = Scene::new();
        scene.guest.form = form;
        let attested = scene.judge().unwrap();
        assert_eq!(attested.release(), "v1");
        assert_eq!(attested.until(), scene.bulletin.next_update);
        let genuine = attested.genuine();
        assert_eq!((genuine.mr_td(), genuine.report_data()), (IMAGE, scene.expected));
        assert_eq!((genuine.platform(), genuine.fmspc()), (scene.machine().platform(), scene.build.fmspc));
        assert_eq!((genuine.status(), genuine.evaluation_number()), (Status::UpToDate, 20));
        assert_eq!(genuine.newest(), ISSUED);
        assert!(genuine.advisories().is_empty() && genuine.shortfalls().is_empty());
        assert_eq!(*genuine.rtmr(), scene.guest.rtmr);
    }
}

/// What is unusual, and how it comes to that.
type Right = (&'static str, fn(&mut Scene));

/// What lies just inside a limit is admitted, so that the refusals above are refusals of what they say.
#[test]
fn limits_belong_to_what_is_admitted() {
    let right: &[Right] = &[
        ("the first second of the collateral", |scene| scene.now = ISSUED),
        ("its last second", |scene| scene.now = Date(scene.bulletin.next_update.0 - 1)),
        ("the floor", |scene| scene.floor = NOW),
        ("the first second of a release", |scene| scene.manifest.releases[0].not_before = NOW),
        ("its last second", |scene| scene.manifest.releases[0].not_after = NOW),
        ("zeros behind the end", |scene| scene.quote = |quote| quote.resize(QUOTE_BYTES_MAX, 0)),
        ("within its grace", |scene| out_of_date(scene, 3, 3)),
        ("an accepted weakness", |scene| {
            scene.bulletin.levels[0].advisories = vec!["INTEL-SA-00001".to_owned()];
            scene.manifest.accepted_advisories = vec!["INTEL-SA-00001".to_owned()];
        }),
        ("a listed machine", |scene| scene.manifest.platforms = Some(vec![scene.machine().platform()])),
        ("pinned registers", |scene| {
            scene.manifest.releases[0].rtmr1 = Some(Measurement([0x41; 48]));
            scene.manifest.releases[0].rtmr2 = Some(Measurement([0x42; 48]));
        }),
        ("another release besides", |scene| {
            scene.manifest.releases.insert(0, release("v0", Measurement([5; 48])))
        }),
        ("the same image, pinned otherwise before", |scene| {
            let mut pinned = release("v0", IMAGE);
            pinned.rtmr1 = Some(Measurement([5; 48]));
            scene.manifest.releases.insert(0, pinned);
        }),
    ];
    for (what, change) in right {
        let mut scene = Scene::new();
        change(&mut scene);
        if let Err(refused) = scene.judge() {
            panic!("{what}: {refused}");
        }
    }
}

#[test]
fn collateral_is_taken_for_the_kind_of_platform() {
    let scene = Scene::new();
    let mut other = Scene::new();
    other.bulletin.fmspc = Fmspc([1; 6]);
    let verifier = Verifier::new(scene.root.clone());
    let both = [other.collateral(), scene.collateral()];
    let policy = scene.policy().unwrap();
    assert!(verifier.judge(&scene.bytes(), &both, &policy, &scene.expected, NOW).is_ok());
    let refused = verifier.judge(&scene.bytes(), &both[..1], &policy, &scene.expected, NOW).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "no-collateral-for-platform: have collateral for [010101010101]; need for FMSPC \
        50806f000000; remedy: fetch collateral for this FMSPC and give it besides the other"
    );
}

#[test]
fn a_refusal_says_by_how_much_and_in_which_component() {
    let mut scene = Scene::new();
    let newer = Level {
        sgx: {
            let mut sgx = scene.build.sgx;
            sgx[1] = 6;
            sgx
        },
        pce: 13,
        ..Level::default_at(ISSUED)
    };
    scene.bulletin.levels[0].status = Status::OutOfDate;
    scene.bulletin.levels.insert(0, newer);
    scene
        .bulletin
        .enclaves
        .insert(0, zipnet_tdx_mock::vendor::Version { svn: 8, ..scene.bulletin.enclaves[0].clone() });
    let refused = scene.judge().unwrap_err();
    assert_eq!(refused.reason(), Reason::TcbStatus);
    for part in [
        "SGX 1 (SGX Late Microcode Update): have 4, need 6; update BIOS or microcode",
        "PCE: have 11, need 13; update Intel's quote service",
        "TD quoting enclave: have 4, need 8",
    ] {
        assert!(refused.have().contains(part), "{part} is not in: {refused}");
    }
    let genuine =
        Verifier::new(scene.root.clone()).examine(&scene.bytes(), &[scene.collateral()], NOW).unwrap();
    let lifts: Vec<_> = genuine.shortfalls().iter().map(|one| one.lift).collect();
    assert_eq!(lifts, [Lift::Firmware, Lift::QuoteService, Lift::QuoteService]);
}

#[test]
fn a_simulated_platform_is_the_same_from_run_to_run() {
    let digests = [
        (Form::V4, "41af252d4597bcb70971c94694b83ceab9a506b506f64a6097f5efe0cb032e32"),
        (Form::V5, "0eec448183c8cd92ea296f0c213b7af444ae269ecc72620aef5e7f36dc0978e5"),
        (Form::V5Td15, "163d63bddc458b3f45d80549d2363976cc60772d5346d44ca2755de900e01c85"),
    ];
    for (form, expected) in digests {
        let mut scene = Scene::new();
        scene.guest.form = form;
        assert_eq!(hex(&Sha256::digest(scene.bytes())), expected, "{form:?}");
        assert_eq!(scene.bytes(), Scene { guest: scene.guest.clone(), ..Scene::new() }.bytes());
    }
    let collateral = || Scene::new().vendor.collateral(&Scene::new().bulletin);
    assert_eq!(collateral(), collateral());
    assert_eq!(
        hex(&Sha256::digest(collateral())),
        "6e907238f5b7745993fe672ba7d59e463b75f34809410558f169cab718f7e332"
    );
    let another = Vendor::new(b"another", SINCE);
    assert_ne!(another.root(), Scene::new().root);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
