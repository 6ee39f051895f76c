//! A machine, and the quotes of its guests.

use sha2::{Digest as _, Sha256};
use zipnet_tdx::measurement::{Fmspc, Measurement, Platform, ReportData};

use crate::certificates::{Described, Template};
use crate::key::Key;
use crate::vendor::{ENCLAVE_PRODUCT, ENCLAVE_SIGNER, PCE, PCK_KEY_ID, SGX, TDX, Vendor};

/// Intel's quoting enclaves carry this in the header of their quotes.
const QE_VENDOR: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];

/// A kind of platform, for tests that need one.
pub const FMSPC: Fmspc = Fmspc([0x50, 0x80, 0x6f, 0, 0, 0]);

/// The machine of a vendor.
pub struct Machine {
    described: Described,
    serial: u64,
    pck_key: Key,
    attestation_key: Key,
    chain: String,
    enclave_svn: u16,
}

/// What a machine is like, if not like others.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// Its kind.
    pub fmspc: Fmspc,
    /// Versions of SGX's components.
    pub sgx: [u8; 16],
    /// Version of the PCE.
    pub pce: u16,
    /// Version of the quoting enclave.
    pub enclave: u16,
}

impl Default for Build {
    fn default() -> Self {
        Self { fmspc: FMSPC, sgx: SGX, pce: PCE, enclave: 4 }
    }
}

impl Machine {
    /// The machine of this name. What it is like does not change who it is.
    #[must_use]
    pub fn new(vendor: &Vendor, name: &str, build: Build) -> Self {
        let digest = Sha256::digest([vendor.seed(), b"\0machine\0", name.as_bytes()].concat());
        let ppid = digest[..16].try_into().expect("a digest has 32 bytes");
        let serial =
            u64::from_be_bytes(digest[16..24].try_into().expect("a digest has 32 bytes")) >> 1 | 1 << 62;
        let described = Described { ppid, cpu_svn: build.sgx, pce_svn: build.pce, fmspc: build.fmspc.0 };
        let pck_key = Key::derive(vendor.seed(), &format!("PCK of {name}"));
        let attestation_key = Key::derive(vendor.seed(), &format!("attestation key of {name}"));
        let template = Template {
            name: "Simulated SGX PCK Certificate",
            serial,
            key_id: PCK_KEY_ID,
            is_ca: false,
            valid: vendor.valid(),
        };
        let chain = vendor.certify(&pck_key, &template, described.extension());
        Self { described, serial, pck_key, attestation_key, chain, enclave_svn: build.enclave }
    }

    /// Its PPID.
    #[must_use]
    pub const fn platform(&self) -> Platform {
        Platform(self.described.ppid)
    }

    /// The serial number of its PCK certificate.
    #[must_use]
    pub const fn serial(&self) -> u64 {
        self.serial
    }

    /// A quote of a guest.
    #[must_use]
    pub fn quote(&self, guest: &Guest, report_data: &ReportData) -> Vec<u8> {
        let mut quote = Vec::new();
        let version: u16 = if guest.form == Form::V4 { 4 } else { 5 };
        quote.extend(version.to_le_bytes());
        quote.extend(2_u16.to_le_bytes());
        quote.extend(0x81_u32.to_le_bytes());
        quote.extend([0; 4]);
        quote.extend(QE_VENDOR);
        quote.extend([0; 20]);
        match guest.form {
            Form::V4 => {}
            Form::V5 => {
                quote.extend(2_u16.to_le_bytes());
                quote.extend(584_u32.to_le_bytes());
            }
            Form::V5Td15 => {
                quote.extend(3_u16.to_le_bytes());
                quote.extend(648_u32.to_le_bytes());
            }
        }
        quote.extend(guest.body(report_data));
        let signature = self.attestation_key.sign_raw(&quote);
        let certified = self.certified();
        let auth = [
            &signature[..],
            &self.attestation_key.public_raw(),
            &6_u16.to_le_bytes(),
            &len(&certified).to_le_bytes(),
            &certified,
        ]
        .concat();
        quote.extend(len(&auth).to_le_bytes());
        quote.extend(auth);
        quote
    }

    /// The quoting enclave's report, which the platform has signed, and the certificates.
    fn certified(&self) -> Vec<u8> {
        let auth_data = [0x33_u8; 32];
        let mut report = [0_u8; 384];
        report[48] = 0x11;
        report[128..160].copy_from_slice(&ENCLAVE_SIGNER);
        report[256..258].copy_from_slice(&ENCLAVE_PRODUCT.to_le_bytes());
        report[258..260].copy_from_slice(&self.enclave_svn.to_le_bytes());
        let bound = Sha256::digest([&self.attestation_key.public_raw()[..], &auth_data].concat());
        report[320..352].copy_from_slice(&bound);
        [
            &report[..],
            &self.pck_key.sign_raw(&report),
            &32_u16.to_le_bytes(),
            &auth_data,
            &5_u16.to_le_bytes(),
            &len(self.chain.as_bytes()).to_le_bytes(),
            self.chain.as_bytes(),
        ]
        .concat()
    }
}

impl core::fmt::Debug for Machine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Machine({})", self.platform())
    }
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a quote is short")
}

/// How a quote is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Version 4.
    V4,
    /// Version 5, with the body of version 4.
    V5,
    /// Version 5, with the body of TDX 1.5.
    V5Td15,
}

/// A guest.
#[derive(Clone, Debug)]
pub struct Guest {
    /// How its quotes are written.
    pub form: Form,
    /// What the platform measured before it ran.
    pub mr_td: Measurement,
    /// What it measured while it booted.
    pub rtmr: [Measurement; 4],
    /// Debug, migratable and the like.
    pub attributes: [u8; 8],
    /// Versions of TDX's components when it was started.
    pub tdx: [u8; 16],
}

/// The attributes of a guest that nothing is wrong with.
pub const ATTRIBUTES: [u8; 8] = [0, 0, 0, 0x10, 0, 0, 0, 0];

impl Guest {
    /// A guest that booted from this image.
    #[must_use]
    pub const fn new(mr_td: Measurement) -> Self {
        let rtmr =
            [Measurement([0x40; 48]), Measurement([0x41; 48]), Measurement([0x42; 48]), Measurement([0; 48])];
        Self { form: Form::V4, mr_td, rtmr, attributes: ATTRIBUTES, tdx: TDX }
    }

    fn body(&self, report_data: &ReportData) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(self.tdx);
        body.extend([0x5e; 48]);
        body.extend([0; 48 + 8]);
        body.extend(self.attributes);
        body.extend([0xe7, 0x02, 0x06, 0, 0, 0, 0, 0]);
        body.extend(self.mr_td.0);
        body.extend([0; 3 * 48]);
        self.rtmr.iter().for_each(|register| body.extend(register.0));
        body.extend(report_data.0);
        if self.form == Form::V5Td15 {
            body.extend(self.tdx);
            body.extend([0; 48]);
        }
        body
    }
}
