//! Certificates and lists of revoked ones, as far as people are told about them. What they are worth is for the
//! verifier to find out.

use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;

use crate::date::Date;

/// More certificates are in no chain of Intel's.
const CHAIN_MAX: usize = 5;

/// A certificate.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// As it was issued.
    pub der: Vec<u8>,
    /// From when on it is valid.
    pub issued: Date,
    /// Until when.
    pub until: Date,
}

/// The certificates of a chain in PEM, the first one first.
///
/// # Errors
/// If there is none, if there are more than a chain has, or if one cannot be read.
pub fn chain(pem: &[u8]) -> Result<Vec<Certificate>, &'static str> {
    let blocks = pem::parse_many(pem).map_err(|_| "certificates that are no PEM")?;
    if blocks.is_empty() || blocks.len() > CHAIN_MAX {
        return Err("no certificate, or too many");
    }
    blocks.into_iter().map(|block| certificate(block.into_contents())).collect()
}

fn certificate(der: Vec<u8>) -> Result<Certificate, &'static str> {
    let read = x509_cert::Certificate::from_der(&der).map_err(|_| "a certificate that is no X.509")?;
    let validity = read.tbs_certificate().validity();
    let issued = Date(validity.not_before.to_unix_duration().as_secs());
    let until = Date(validity.not_after.to_unix_duration().as_secs());
    Ok(Certificate { der, issued, until })
}

/// When a list of revoked certificates was issued, and until when it is valid.
///
/// # Errors
/// If it cannot be read, or is valid for ever.
pub fn list_of_revoked(der: &[u8]) -> Result<(Date, Date), &'static str> {
    let list = CertificateList::<Rfc5280>::from_der(der)
        .map_err(|_| "a list of revoked certificates that is none")?;
    let dates = list.tbs_cert_list;
    let until = dates.next_update.ok_or("a list of revoked certificates that names no next update")?;
    Ok((Date(dates.this_update.to_unix_duration().as_secs()), Date(until.to_unix_duration().as_secs())))
}
