//! A machine, a guest on it, and what it is judged by. As it begins, nothing is wrong with it.

use zipnet_core::id::{PeerId, UniqueId};
use zipnet_tdx::binding::report_data;
use zipnet_tdx::collateral::Collateral;
use zipnet_tdx::date::{DAY, Date};
use zipnet_tdx::manifest::{Manifest, Release, ReleaseKey, ReleaseSecret, SignedManifest};
use zipnet_tdx::measurement::{Measurement, ReportData};
use zipnet_tdx::policy::Policy;
use zipnet_tdx::refused::Refused;
use zipnet_tdx::tcb::Status;
use zipnet_tdx::verifier::{Attested, Verifier};
use zipnet_tdx_mock::platform::{Build, FMSPC, Guest, Machine};
use zipnet_tdx_mock::vendor::{Bulletin, Vendor};

/// When the vendor was founded.
pub(crate) const SINCE: Date = Date(1_767_225_600);
/// When collateral was issued.
pub(crate) const ISSUED: Date = SINCE.after(100 * DAY);
/// When it is judged.
pub(crate) const NOW: Date = ISSUED.after(DAY);

pub(crate) const IMAGE: Measurement = Measurement([0x11; 48]);

pub(crate) struct Scene {
    pub(crate) vendor: Vendor,
    pub(crate) build: Build,
    pub(crate) guest: Guest,
    pub(crate) said: ReportData,
    pub(crate) quote: fn(&mut Vec<u8>),
    pub(crate) bulletin: Bulletin,
    pub(crate) collateral: fn(String) -> String,
    pub(crate) root: Vec<u8>,
    pub(crate) manifest: Manifest,
    pub(crate) signer: ReleaseSecret,
    pub(crate) key: ReleaseKey,
    pub(crate) file: fn(String) -> String,
    pub(crate) floor: Date,
    pub(crate) expected: ReportData,
    pub(crate) now: Date,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let vendor = Vendor::new(b"scene", SINCE);
        let signer = ReleaseSecret::from_seed(&[7; 32]);
        let report = report_data(&UniqueId([1; 32]), &PeerId([2; 32]), &[3; 32]);
        Self {
            root: vendor.root(),
            vendor,
            build: Build::default(),
            guest: Guest::new(IMAGE),
            said: report,
            quote: |_| {},
            bulletin: Bulletin::quiet(FMSPC, ISSUED),
            collateral: |text| text,
            manifest: Manifest {
                releases: vec![release("v1", IMAGE)],
                evaluation_number_min: 20,
                accepted_statuses: vec![Status::UpToDate],
                ..Manifest::new(1, SINCE)
            },
            key: signer.public(),
            signer,
            file: |text| text,
            floor: SINCE,
            expected: report,
            now: NOW,
        }
    }

    pub(crate) fn machine(&self) -> Machine {
        Machine::new(&self.vendor, "machine", self.build)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.machine().quote(&self.guest, &self.said);
        (self.quote)(&mut bytes);
        bytes
    }

    pub(crate) fn collateral(&self) -> Collateral {
        Collateral::from_json(&(self.collateral)(self.vendor.collateral(&self.bulletin))).unwrap()
    }

    /// The manifest, signed, and then as somebody has altered the file.
    pub(crate) fn signed(&self) -> SignedManifest {
        let signed = self.manifest.clone().sign(&self.signer).unwrap();
        (self.file)(signed.to_json()).parse().unwrap()
    }

    pub(crate) fn policy(&self) -> Result<Policy, Refused> {
        Policy::new(self.signed(), &self.key, self.floor)
    }

    pub(crate) fn judge(&self) -> Result<Attested, Refused> {
        let verifier = Verifier::new(self.root.clone());
        verifier.judge(&self.bytes(), &[self.collateral()], &self.policy()?, &self.expected, self.now)
    }
}

pub(crate) fn release(label: &str, mr_td: Measurement) -> Release {
    Release {
        label: label.to_owned(),
        mr_td,
        rtmr1: None,
        rtmr2: None,
        not_before: SINCE,
        not_after: SINCE.after(365 * DAY),
    }
}
