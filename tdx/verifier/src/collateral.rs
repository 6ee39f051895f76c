//! Collateral: what Intel says about a kind of platform, and for how long it stands by it. It comes as a file, and
//! nothing is fetched while a quote is judged.

use core::fmt;

use dcap_qvl::{QeIdentity, QuoteCollateralV3, TcbInfo};
use serde::Serialize;

use crate::certificate::{chain, list_of_revoked};
use crate::date::{DAY, Date};
use crate::measurement::Fmspc;

/// The longest file that is read. Real ones have about 20 KB.
pub const COLLATERAL_BYTES_MAX: usize = 1 << 20;

/// A part that has less time left than this is soon over, however long it is valid.
const SOON: u64 = 30 * DAY;

/// What is judged with, for one kind of platform. Its signatures are the verifier's business.
#[derive(Clone)]
pub struct Collateral {
    inner: QuoteCollateralV3,
    tcb_info: TcbInfo,
    qe_identity: QeIdentity,
    fmspc: Fmspc,
    parts: Vec<Part>,
}

/// A part of collateral with a validity of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is.
    pub name: &'static str,
    /// From when on it is valid.
    pub issued: Date,
    /// Before when: Intel's `nextUpdate`, or the end of a certificate. At that moment it is over.
    pub until: Date,
}

/// How much time a part has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Standing {
    /// Enough.
    Ok,
    /// Half of its time is over, and less than 30 days are left: what fetches it does not work as it should.
    Soon,
    /// It is not valid any more, or not yet.
    Expired,
}

impl Standing {
    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Soon => "SOON",
            Self::Expired => "EXPIRED",
        }
    }
}

impl Part {
    /// How it stands at a time.
    #[must_use]
    pub fn standing(&self, now: Date) -> Standing {
        if now < self.issued || now >= self.until {
            return Standing::Expired;
        }
        let left = now.until(self.until);
        if left < SOON.min(self.issued.until(self.until) / 2) { Standing::Soon } else { Standing::Ok }
    }
}

impl Collateral {
    /// Reads a file: a JSON object as Intel's libraries and `dcap-qvl` write it.
    ///
    /// A PCK chain in it is left out: each quote brings its own.
    ///
    /// # Errors
    /// If a part cannot be read.
    pub fn from_json(text: &str) -> Result<Self, CollateralError> {
        let failed = |what: &str, reason: &dyn fmt::Display| CollateralError(format!("{what}: {reason}"));
        if text.len() > COLLATERAL_BYTES_MAX {
            return Err(failed(
                "the file",
                &format_args!("{} bytes exceed {COLLATERAL_BYTES_MAX}", text.len()),
            ));
        }
        let mut inner: QuoteCollateralV3 =
            serde_json::from_str(text).map_err(|reason| failed("the file", &reason))?;
        inner.pck_certificate_chain = None;
        let tcb_info: TcbInfo =
            serde_json::from_str(&inner.tcb_info).map_err(|reason| failed("tcb_info", &reason))?;
        let qe_identity: QeIdentity =
            serde_json::from_str(&inner.qe_identity).map_err(|reason| failed("qe_identity", &reason))?;
        if tcb_info.id != "TDX" || qe_identity.id != "TD_QE" {
            let have = format_args!("it is for {:?} and {:?}, not for TDX", tcb_info.id, qe_identity.id);
            return Err(failed("the file", &have));
        }
        let fmspc = tcb_info.fmspc.parse().map_err(|reason| failed("fmspc", &reason))?;
        let date = |what: &str, text: &str| text.parse::<Date>().map_err(|reason| failed(what, &reason));
        let signer = |name: &'static str, what: &str, pem: &str| {
            let certificates = chain(pem.as_bytes()).map_err(|reason| failed(what, &reason))?;
            let signer = &certificates[0];
            Ok(Part { name, issued: signer.issued, until: signer.until })
        };
        let list = |name: &'static str, der: &[u8]| {
            let (issued, until) = list_of_revoked(der).map_err(|reason| failed(name, &reason))?;
            Ok(Part { name, issued, until })
        };
        let parts = vec![
            Part {
                name: "TCB info",
                issued: date("tcb_info.issueDate", &tcb_info.issue_date)?,
                until: date("tcb_info.nextUpdate", &tcb_info.next_update)?,
            },
            Part {
                name: "QE identity",
                issued: date("qe_identity.issueDate", &qe_identity.issue_date)?,
                until: date("qe_identity.nextUpdate", &qe_identity.next_update)?,
            },
            list("root CRL", &inner.root_ca_crl)?,
            list("PCK CRL", &inner.pck_crl)?,
            signer("TCB info signer", "tcb_info_issuer_chain", &inner.tcb_info_issuer_chain)?,
            signer("QE identity signer", "qe_identity_issuer_chain", &inner.qe_identity_issuer_chain)?,
            signer("PCK CRL signer", "pck_crl_issuer_chain", &inner.pck_crl_issuer_chain)?,
        ];
        Ok(Self { inner, tcb_info, qe_identity, fmspc, parts })
    }

    /// The kind of platform that it is for.
    #[must_use]
    pub const fn fmspc(&self) -> Fmspc {
        self.fmspc
    }

    /// What it is made of, each with its time.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// How the part stands that stands worst.
    #[must_use]
    pub fn standing(&self, now: Date) -> Standing {
        self.parts.iter().map(|part| part.standing(now)).max().unwrap_or(Standing::Expired)
    }

    /// How many recoveries Intel has taken into account: the lower number of its two parts.
    #[must_use]
    pub fn evaluation_number(&self) -> u32 {
        self.tcb_info.tcb_evaluation_data_number.min(self.qe_identity.tcb_evaluation_data_number)
    }

    pub(crate) const fn inner(&self) -> &QuoteCollateralV3 {
        &self.inner
    }

    pub(crate) const fn tcb_info(&self) -> &TcbInfo {
        &self.tcb_info
    }

    pub(crate) const fn qe_identity(&self) -> &QeIdentity {
        &self.qe_identity
    }
}

impl fmt::Debug for Collateral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collateral")
            .field("fmspc", &self.fmspc)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

/// Why a file is no collateral.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollateralError(String);

impl fmt::Display for CollateralError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read collateral: {}", self.0)
    }
}

impl core::error::Error for CollateralError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_soon_over_at_half_of_its_life_and_within_30_days() {
        let month = Part { name: "", issued: Date(100 * DAY), until: Date(130 * DAY) };
        let year = Part { name: "", issued: Date(100 * DAY), until: Date(465 * DAY) };
        for (part, day, standing) in [
            (&month, 99, Standing::Expired),
            (&month, 100, Standing::Ok),
            (&month, 115, Standing::Ok),
            (&month, 116, Standing::Soon),
            (&month, 129, Standing::Soon),
            (&month, 130, Standing::Expired),
            (&year, 400, Standing::Ok),
            (&year, 436, Standing::Soon),
        ] {
            assert_eq!(part.standing(Date(day * DAY)), standing, "{part:?} on day {day}");
        }
        assert_eq!(month.standing(Date(130 * DAY - 1)), Standing::Soon);
    }
}
