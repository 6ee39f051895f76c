//! A quote as it is written. Nothing here is proven: whoever made the bytes chose them.

use crate::measurement::{Measurement, ReportData};
use crate::refused::{Reason, Refused};

/// The longest quote that is looked at. Real ones have about 5 KB.
pub const QUOTE_BYTES_MAX: usize = 32 << 10;

const HEADER: usize = 48;
const TD_10: usize = 584;
const TD_15: usize = 648;
const TD_15_EX: usize = 885;
const SIGNATURE: usize = 64;
const KEY: usize = 64;
const ENCLAVE_REPORT: usize = 384;

const TEE_TDX: u32 = 0x81;
const KEY_ECDSA_P256: u16 = 2;
/// Certification data: the quoting enclave's report, and behind it its own certification data.
const CERTIFIED_BY_REPORT: u16 = 6;
/// The certificates from the PCK certificate to the root, as PEM.
const CERTIFIED_BY_CHAIN: u16 = 5;

/// A quote, with every length in it checked against what is there.
#[derive(Clone, Debug)]
pub struct Quote<'a> {
    bytes: &'a [u8],
    version: u16,
    body: &'a [u8],
    enclave_report: &'a [u8],
    chain: &'a [u8],
}

impl<'a> Quote<'a> {
    /// Reads the structure and allocates nothing.
    ///
    /// Platforms give quotes in buffers of a fixed size: zeros behind the end are left out, anything else there is
    /// refused.
    ///
    /// # Errors
    /// If there are too many bytes, if they end too early or go on too long, or if they are a quote of another kind.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Refused> {
        if bytes.len() > QUOTE_BYTES_MAX {
            let have = format_args!("{} bytes", bytes.len());
            return Err(Refused::new(Reason::TooLong, have, format_args!("at most {QUOTE_BYTES_MAX}")));
        }
        let mut rest = Rest { bytes, whole: bytes.len() };
        let header = rest.take(HEADER, "the header")?;
        let version = u16_at(header, 0);
        let refuse = |have: String, need| Err(Refused::new(Reason::Undecodable, have, need));
        if !matches!(version, 3..=5) {
            return refuse(format!("version {version}"), "4 or 5");
        }
        if u16_at(header, 2) != KEY_ECDSA_P256 {
            return refuse(
                format!("an attestation key of type {}", u16_at(header, 2)),
                "2, ECDSA with P-256",
            );
        }
        let tee = u32_at(header, 4);
        let not_tdx = |have: String| Err(Refused::new(Reason::NotTdx, have, "a quote of a TDX guest"));
        if version == 3 || tee != TEE_TDX {
            return not_tdx(format!("version {version} and environment {tee:#x}"));
        }
        let body_len = if version == 4 {
            TD_10
        } else {
            let kind = rest.take(6, "the kind of the body")?;
            let body_len = match u16_at(kind, 0) {
                1 => return not_tdx("the report of an enclave".to_owned()),
                2 => TD_10,
                3 => TD_15,
                4 => TD_15_EX,
                other => return refuse(format!("a body of type {other}"), "2, 3 or 4"),
            };
            if u32_at(kind, 2) as usize != body_len {
                return refuse(format!("a body of {} bytes", u32_at(kind, 2)), "the length of its type");
            }
            body_len
        };
        let body = rest.take(body_len, "the body")?;
        let mut auth = rest.counted("the signature data")?;
        if rest.bytes.iter().any(|byte| *byte != 0) {
            return refuse(format!("{} bytes behind the end", rest.bytes.len()), "zeros or nothing");
        }
        let end = bytes.len() - rest.bytes.len();
        auth.take(SIGNATURE + KEY, "signature and key")?;
        let mut certified = auth.certified(CERTIFIED_BY_REPORT)?;
        auth.ended()?;
        let enclave_report = certified.take(ENCLAVE_REPORT, "the quoting enclave's report")?;
        certified.take(SIGNATURE, "the signature of the report")?;
        let auth_len = u16_at(certified.take(2, "a length")?, 0);
        certified.take(usize::from(auth_len), "the authentication data")?;
        let chain = certified.certified(CERTIFIED_BY_CHAIN)?.bytes;
        certified.ended()?;
        Ok(Self { bytes: &bytes[..end], version, body, enclave_report, chain })
    }

    /// The bytes, without zeros behind the end.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// 4 or 5.
    #[must_use]
    pub const fn version(&self) -> u16 {
        self.version
    }

    /// What the platform measured before the guest ran.
    #[must_use]
    pub fn mr_td(&self) -> Measurement {
        self.register(136)
    }

    /// What the guest measured while it booted: RTMR0 to RTMR3.
    #[must_use]
    pub fn rtmr(&self) -> [Measurement; 4] {
        [328, 376, 424, 472].map(|at| self.register(at))
    }

    /// What the guest had put into the quote.
    #[must_use]
    pub fn report_data(&self) -> ReportData {
        ReportData(array(self.body, 520))
    }

    /// Debug, migratable and the like.
    #[must_use]
    pub fn attributes(&self) -> [u8; 8] {
        array(self.body, 120)
    }

    /// The versions of TDX module and its loader when the guest was started.
    #[must_use]
    pub fn tee_tcb_svn(&self) -> [u8; 16] {
        array(self.body, 0)
    }

    /// The version of the enclave that signs quotes.
    #[must_use]
    pub fn enclave_svn(&self) -> u16 {
        u16_at(self.enclave_report, 258)
    }

    /// The certificates from the PCK certificate on, as PEM.
    #[must_use]
    pub const fn chain(&self) -> &'a [u8] {
        self.chain
    }

    fn register(&self, at: usize) -> Measurement {
        Measurement(array(self.body, at))
    }
}

/// What of a part is not read yet.
struct Rest<'a> {
    bytes: &'a [u8],
    whole: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], Refused> {
        let Some((taken, rest)) = self.bytes.split_at_checked(len) else {
            let have = format_args!("{} bytes left of {}", self.bytes.len(), self.whole);
            return Err(Refused::new(Reason::Undecodable, have, format_args!("{len} for {what}")));
        };
        self.bytes = rest;
        Ok(taken)
    }

    /// A part with its length before it.
    fn counted(&mut self, what: &str) -> Result<Self, Refused> {
        let len = u32_at(self.take(4, "a length")?, 0) as usize;
        let bytes = self.take(len, what)?;
        Ok(Self { bytes, whole: len })
    }

    /// Certification data of a type.
    fn certified(&mut self, kind: u16) -> Result<Self, Refused> {
        let found = u16_at(self.take(2, "the type of certification data")?, 0);
        if found != kind {
            let have = format_args!("certification data of type {found}");
            return Err(Refused::new(Reason::Undecodable, have, format_args!("type {kind}")));
        }
        self.counted("certification data")
    }

    fn ended(&self) -> Result<(), Refused> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let have = format_args!("{} bytes that nothing announces", self.bytes.len());
        Err(Refused::new(Reason::Undecodable, have, "lengths that add up"))
    }
}

fn array<const LEN: usize>(bytes: &[u8], at: usize) -> [u8; LEN] {
    bytes[at..at + LEN].try_into().expect("the slice has this length")
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}
