//! Certificates and lists of revoked ones, as Intel issues them.

use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, RevocationReason, RevokedCertParams, SerialNumber,
};
use time::OffsetDateTime;
use zipnet_tdx::date::Date;

use crate::MARKER;
use crate::key::Key;

/// What is below Intel's SGX extension in a PCK certificate: 1.2.840.113741.1.13.1.
const EXTENSION: [u64; 7] = [1, 2, 840, 113_741, 1, 13, 1];

const INTEGER: u8 = 2;
const OCTETS: u8 = 4;
const OBJECT: u8 = 6;
const ENUMERATED: u8 = 10;
const BOOLEAN: u8 = 1;
const SEQUENCE: u8 = 0x30;

/// What makes a certificate.
pub(crate) struct Template {
    pub(crate) name: &'static str,
    pub(crate) serial: u64,
    pub(crate) key_id: u8,
    pub(crate) is_ca: bool,
    pub(crate) valid: (Date, Date),
}

impl Template {
    pub(crate) fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.name);
        params.distinguished_name.push(DnType::OrganizationName, MARKER);
        params.serial_number = Some(SerialNumber::from(self.serial));
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![self.key_id; 20]);
        params.not_before = moment(self.valid.0);
        params.not_after = moment(self.valid.1);
        params.use_authority_key_identifier_extension = true;
        if self.is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        } else {
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }
        params
    }

    pub(crate) fn signed_by(
        &self,
        key: &Key,
        issuer: &Issuer<'_, &Key>,
        extension: Option<CustomExtension>,
    ) -> Vec<u8> {
        let mut params = self.params();
        params.custom_extensions.extend(extension);
        let certificate = params.signed_by(key, issuer).expect("the template makes a certificate");
        certificate.der().to_vec()
    }
}

/// A list of revoked certificates.
pub(crate) fn revoked(
    issuer: &Issuer<'_, &Key>,
    key_id: u8,
    valid: (Date, Date),
    serials: &[u64],
) -> Vec<u8> {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: moment(valid.0),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: moment(valid.0),
        next_update: moment(valid.1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::PreSpecified(vec![key_id; 20]),
    };
    params.signed_by(issuer).expect("the parameters make a list").der().to_vec()
}

/// What Intel says about a machine in its PCK certificate.
pub(crate) struct Described {
    pub(crate) ppid: [u8; 16],
    pub(crate) cpu_svn: [u8; 16],
    pub(crate) pce_svn: u16,
    pub(crate) fmspc: [u8; 6],
}

impl Described {
    pub(crate) fn extension(&self) -> CustomExtension {
        let mut levels = Vec::new();
        for (place, svn) in (1_u8..).zip(self.cpu_svn) {
            levels.push(entry(&[2, place], &value(INTEGER, &[svn])));
        }
        levels.push(entry(&[2, 17], &value(INTEGER, &self.pce_svn.to_be_bytes())));
        levels.push(entry(&[2, 18], &value(OCTETS, &self.cpu_svn)));
        // A server as they are: it may get more processors, has cached keys and runs two threads on a core.
        let configuration: Vec<_> =
            (1_u8..=3).map(|flag| entry(&[7, flag], &value(BOOLEAN, &[0xff]))).collect();
        let all = [
            entry(&[1], &value(OCTETS, &self.ppid)),
            entry(&[2], &value(SEQUENCE, &levels.concat())),
            entry(&[3], &value(OCTETS, &[0, 0])),
            entry(&[4], &value(OCTETS, &self.fmspc)),
            entry(&[5], &value(ENUMERATED, &[1])),
            entry(&[7], &value(SEQUENCE, &configuration.concat())),
        ];
        CustomExtension::from_oid_content(&EXTENSION, value(SEQUENCE, &all.concat()))
    }
}

/// A name below the extension, and its value.
fn entry(below: &[u8], of: &[u8]) -> Vec<u8> {
    let name = [&[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01], below].concat();
    value(SEQUENCE, &[&value(OBJECT, &name), of].concat())
}

/// A value in DER.
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let len = match u8::try_from(len) {
        Ok(len) if len < 0x80 => vec![len],
        Ok(len) => vec![0x81, len],
        Err(_) => {
            let len = u16::try_from(len).expect("no value here is longer");
            [&[0x82][..], &len.to_be_bytes()].concat()
        }
    };
    [&[tag][..], &len, content].concat()
}

/// Certificates as PEM, one behind the other.
pub(crate) fn pem(certificates: &[&[u8]]) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    let block = |der: &&[u8]| pem::encode_config(&Pem::new("CERTIFICATE", *der), config);
    certificates.iter().map(block).collect()
}

fn moment(date: Date) -> OffsetDateTime {
    let seconds = i64::try_from(date.0).expect("dates here lie in this age");
    OffsetDateTime::from_unix_timestamp(seconds).expect("dates here lie in this age")
}
