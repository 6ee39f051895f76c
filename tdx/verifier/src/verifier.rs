//! The verdict about a quote.

use core::fmt;

use dcap_qvl::intel::{PckExtension, parse_pck_extension};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteClaims, QuotePolicy};

use crate::certificate::{self, Certificate};
use crate::collateral::{Collateral, Part};
use crate::date::Date;
use crate::measurement::{Fmspc, Measurement, Platform, ReportData};
use crate::policy::Policy;
use crate::quote::Quote;
use crate::refused::{Reason, Refused};
use crate::tcb::{Shortfall, Status, module_version_min, shortfalls};

/// Proof that a quote was judged and admitted. Only [`Verifier::judge`] makes one, and it cannot be copied.
#[derive(Debug)]
#[must_use]
pub struct Attested {
    genuine: Genuine,
    release: String,
    until: Date,
}

impl Attested {
    /// The label of the release that it runs.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// What the quote proved.
    pub const fn genuine(&self) -> &Genuine {
        &self.genuine
    }

    /// When it must be judged again if nothing is given anew: the release is retired, collateral expires, or a grace is
    /// over.
    #[must_use]
    pub const fn until(&self) -> Date {
        self.until
    }
}

/// A quote that a platform of the root has signed, and what it proves. Whether that is what one wants to see is another
/// question, which [`Policy`] answers.
#[derive(Debug)]
#[must_use]
pub struct Genuine {
    pub(crate) mr_td: Measurement,
    pub(crate) rtmr: [Measurement; 4],
    pub(crate) report_data: ReportData,
    pub(crate) platform: Platform,
    pub(crate) fmspc: Fmspc,
    pub(crate) status: Status,
    pub(crate) advisories: Vec<String>,
    pub(crate) evaluation_number: u32,
    /// The date of each level that is out of date: the platform's, the quoting enclave's.
    pub(crate) out_of_date: Vec<Date>,
    pub(crate) shortfalls: Vec<Shortfall>,
    newest: Date,
    until: Date,
}

impl Genuine {
    /// What the platform measured before the guest ran.
    #[must_use]
    pub const fn mr_td(&self) -> Measurement {
        self.mr_td
    }

    /// What the guest measured while it booted.
    #[must_use]
    pub const fn rtmr(&self) -> &[Measurement; 4] {
        &self.rtmr
    }

    /// What the guest had put into the quote.
    #[must_use]
    pub const fn report_data(&self) -> ReportData {
        self.report_data
    }

    /// The machine.
    #[must_use]
    pub const fn platform(&self) -> Platform {
        self.platform
    }

    /// Its kind.
    #[must_use]
    pub const fn fmspc(&self) -> Fmspc {
        self.fmspc
    }

    /// Its state.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.status
    }

    /// The weaknesses that Intel lists for its state.
    #[must_use]
    pub fn advisories(&self) -> &[String] {
        &self.advisories
    }

    /// How many recoveries the collateral takes into account.
    #[must_use]
    pub const fn evaluation_number(&self) -> u32 {
        self.evaluation_number
    }

    /// In what it falls short of the newest level.
    #[must_use]
    pub fn shortfalls(&self) -> &[Shortfall] {
        &self.shortfalls
    }

    /// The newest date that Intel has signed in what this was judged with. Time has come so far: keep the latest one, and
    /// give it to [`Policy::new`] as the floor.
    #[must_use]
    pub const fn newest(&self) -> Date {
        self.newest
    }

    /// When the first part of what this was judged with expires.
    #[must_use]
    pub const fn until(&self) -> Date {
        self.until
    }
}

/// Judges quotes of the platforms below one root.
#[derive(Clone)]
pub struct Verifier {
    /// None is Intel's, which comes with the library.
    root: Option<Vec<u8>>,
}

impl Verifier {
    /// Intel's root, which is the only one that anything real is below.
    #[must_use]
    pub const fn intel() -> Self {
        Self { root: None }
    }

    /// Another root, as a certificate in DER. For simulated platforms.
    #[must_use]
    pub const fn new(root: Vec<u8>) -> Self {
        Self { root: Some(root) }
    }

    /// Whether a process that shows this quote is to be admitted: the quote is genuine, speaks for the process with this
    /// report data (see [`crate::binding::report_data`]), and satisfies the policy.
    ///
    /// `collateral` may hold one for each kind of platform; that of the quote's is taken.
    ///
    /// # Errors
    /// If not, with the first reason that was found. Whatever is missing is a reason.
    pub fn judge(
        &self,
        quote: &[u8],
        collateral: &[Collateral],
        policy: &Policy,
        expected: &ReportData,
        now: Date,
    ) -> Result<Attested, Refused> {
        policy.check_time(now)?;
        let genuine = self.examine(quote, collateral, now)?;
        if genuine.report_data != *expected {
            return Err(Refused::new(Reason::ReportData, genuine.report_data, expected));
        }
        let release = policy.check_image(&genuine, now)?;
        let state_until = policy.check_platform(&genuine, now)?;
        let until = genuine.until.min(release.not_after).min(state_until);
        Ok(Attested { release: release.label.clone(), until, genuine })
    }

    /// Whether a platform of the root has signed this quote, for a guest that its host can neither read nor move, and in
    /// a state that Intel has not given up. Says nothing about what the guest runs.
    ///
    /// # Errors
    /// If not, with the first reason that was found.
    pub fn examine(&self, quote: &[u8], collateral: &[Collateral], now: Date) -> Result<Genuine, Refused> {
        let quote = Quote::read(quote)?;
        let undecodable =
            |what: &str| Refused::new(Reason::Undecodable, what, "the certificate chain of the platform");
        let chain = certificate::chain(quote.chain()).map_err(undecodable)?;
        let platform = parse_pck_extension(&chain[0].der)
            .map_err(|_| undecodable("a first certificate that describes no platform"))?;
        let fmspc = Fmspc(platform.fmspc);
        let Some(collateral) = collateral.iter().find(|one| one.fmspc() == fmspc) else {
            let kinds: Vec<_> = collateral.iter().map(|one| one.fmspc().to_string()).collect();
            let have = format_args!("collateral for [{}]", kinds.join(", "));
            return Err(Refused::new(Reason::NoCollateral, have, format_args!("for FMSPC {fmspc}")));
        };
        check_dates(&chain, collateral, now)?;
        let claims = self
            .root
            .clone()
            .map_or_else(QuoteVerifier::new_prod, QuoteVerifier::new)
            .verify_with_policy(quote.bytes(), collateral.inner(), now.0, &QuotePolicy::claims_only(now.0))
            .map_err(|error| refusal(&format!("{error:#}"), &quote, &platform, collateral))?;
        genuine(&quote, &platform, &claims, collateral)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

/// Every part has its own time; the worst one is named before signatures are looked at.
fn check_dates(chain: &[Certificate], collateral: &Collateral, now: Date) -> Result<(), Refused> {
    let certificate = |certificate: &Certificate| Part {
        name: "a certificate of the quote",
        issued: certificate.issued,
        until: certificate.until,
    };
    for part in collateral.parts().iter().cloned().chain(chain.iter().map(certificate)) {
        let Part { name, issued, until } = part;
        if now < issued {
            let need = format_args!("a time from {issued} on, when {name} was issued");
            return Err(Refused::new(Reason::CollateralFromTheFuture, format_args!("the time {now}"), need));
        }
        if now >= until {
            let have = format_args!("{name}, valid before {until}");
            return Err(Refused::new(
                Reason::CollateralExpired,
                have,
                format_args!("one that is valid on {now}"),
            ));
        }
    }
    Ok(())
}

fn genuine(
    quote: &Quote<'_>,
    platform: &PckExtension,
    claims: &QuoteClaims,
    collateral: &Collateral,
) -> Result<Genuine, Refused> {
    let different = |what: &str| Refused::new(Reason::NotVerified, what, "one reading of the quote");
    let body = claims.report.as_td10().ok_or_else(|| different("no report of a trust domain"))?;
    // What was verified and what is judged must be the same bytes, whoever reads them.
    let same = body.mr_td == quote.mr_td().0
        && body.report_data == quote.report_data().0
        && [body.rt_mr0, body.rt_mr1, body.rt_mr2, body.rt_mr3] == quote.rtmr().map(|register| register.0);
    if !same {
        return Err(different("two readings of the measurements"));
    }
    let ppid =
        claims.platform.pck.ppid.as_slice().try_into().map_err(|_| different("a PPID of another length"))?;
    let status = Status::of(claims.tcb.status);
    let level = &claims.platform.tcb_level;
    let enclave = &claims.qe.tcb_level;
    let mut out_of_date = Vec::new();
    if status.is_out_of_date() && Status::of(level.tcb_status).is_out_of_date() {
        out_of_date.push(Date(claims.platform.tcb_date_tag));
    }
    if Status::of(enclave.tcb_status).is_out_of_date() {
        out_of_date.push(enclave.tcb_date.parse().map_err(|_| different("a level without a date"))?);
    }
    let mut advisories = claims.tcb.advisory_ids.clone();
    advisories.extend(claims.platform.current_tcb_level.iter().flat_map(|level| level.advisory_ids.clone()));
    advisories.sort_unstable();
    advisories.dedup();
    Ok(Genuine {
        mr_td: quote.mr_td(),
        rtmr: quote.rtmr(),
        report_data: quote.report_data(),
        platform: Platform(ppid),
        fmspc: collateral.fmspc(),
        status,
        advisories,
        evaluation_number: claims.tcb.eval_data_number,
        out_of_date,
        shortfalls: shortfalls(quote, platform, collateral),
        newest: Date(claims.latest_issue_date),
        until: Date(claims.earliest_expiration_date),
    })
}

/// What the library's words mean, in the order in which they are looked for, and what is needed. It has no kinds of errors,
/// and is pinned to the patch. Words that are not here are a refusal as well, by the name [`Reason::NotVerified`].
const WORDS: &[(&str, Reason, &str)] = &[
    ("CertRevoked", Reason::CertificateRevoked, "a certificate that is not revoked"),
    ("root CA CRL: InvalidCrlSignature", Reason::ForeignRoot, LEADS_TO_ROOT),
    ("UnknownIssuer", Reason::ForeignRoot, LEADS_TO_ROOT),
    ("certificate chain: InvalidSignatureForPublicKey", Reason::ForeignRoot, LEADS_TO_ROOT),
    ("CertExpired", Reason::CollateralExpired, VALID),
    ("CrlExpired", Reason::CollateralExpired, VALID),
    ("CertNotValidYet", Reason::CollateralFromTheFuture, VALID),
    ("signer must be issued directly by the root CA", Reason::CollateralUnsound, AS_SIGNED),
    ("Signature is invalid for tcb_info", Reason::CollateralUnsound, AS_SIGNED),
    ("Signature is invalid for qe_identity", Reason::CollateralUnsound, AS_SIGNED),
    (
        "UnknownRevocationStatus",
        Reason::CollateralUnsound,
        "the list of revoked certificates of this machine's issuer",
    ),
    ("Crl", Reason::CollateralUnsound, AS_SIGNED),
    ("CRL", Reason::CollateralUnsound, AS_SIGNED),
    ("Signature is invalid for qe_report", Reason::BadSignature, AS_GIVEN),
    ("QE report hash mismatch", Reason::BadSignature, AS_GIVEN),
    ("ISV enclave report signature is invalid", Reason::BadSignature, AS_GIVEN),
    ("Unknown QE vendor ID", Reason::QuotingEnclave, INTELS_ENCLAVE),
    ("QE report validation failed", Reason::QuotingEnclave, INTELS_ENCLAVE),
    ("QE MRSIGNER", Reason::QuotingEnclave, INTELS_ENCLAVE),
    ("QE ISVPRODID", Reason::QuotingEnclave, INTELS_ENCLAVE),
    ("QE MISCSELECT", Reason::QuotingEnclave, INTELS_ENCLAVE),
    ("QE ATTRIBUTES", Reason::QuotingEnclave, INTELS_ENCLAVE),
    ("QE ISVSVN", Reason::QuotingEnclave, INTELS_ENCLAVE),
    ("Debug mode is enabled", Reason::DebugTd, "bit 0 clear"),
    ("TD migration is enabled", Reason::MigratableTd, "bit 29 clear"),
    ("TD profiling is enabled", Reason::TdAttributes, "bits 4 to 6 clear"),
    ("TD attributes are set", Reason::TdAttributes, "bits that nobody has defined clear"),
    ("SERVTD_EXT is enabled", Reason::TdAttributes, "bit 17 clear"),
    ("SEPT_VE_DISABLE is not enabled", Reason::TdAttributes, "bit 28 set"),
    ("Invalid MR service TD", Reason::TdAttributes, "no service TD"),
    ("TDX module", Reason::TdxModule, "a module that Intel has signed and lists"),
    ("No matching TCB level", Reason::BelowEveryLevel, "a level that Intel lists"),
    ("TCB status is invalid: Revoked", Reason::TcbRevoked, "a level that Intel has not revoked"),
];

const LEADS_TO_ROOT: &str = "certificates and lists that are signed up to the root";
const VALID: &str = "certificates and lists that are valid at this time";
const AS_SIGNED: &str = "collateral as Intel has signed it";
const AS_GIVEN: &str = "a quote as the platform has signed it";
const INTELS_ENCLAVE: &str = "Intel's quoting enclave, at a version that Intel lists";

/// The refusal for what the library has said.
fn refusal(words: &str, quote: &Quote<'_>, platform: &PckExtension, collateral: &Collateral) -> Refused {
    let known = WORDS.iter().find(|(known, ..)| words.contains(known));
    let (reason, need) = known
        .map_or((Reason::NotVerified, "evidence that keeps Intel's rules"), |(_, reason, need)| {
            (*reason, *need)
        });
    if [Reason::DebugTd, Reason::MigratableTd, Reason::TdAttributes].contains(&reason) {
        let attributes = hex::encode(quote.attributes());
        return Refused::new(reason, format_args!("the attributes {attributes}: {words}"), need);
    }
    if [Reason::BelowEveryLevel, Reason::TcbRevoked].contains(&reason) {
        let missing: Vec<_> =
            shortfalls(quote, platform, collateral).iter().map(ToString::to_string).collect();
        return Refused::new(
            reason,
            if missing.is_empty() { words.to_owned() } else { missing.join(" / ") },
            need,
        );
    }
    if reason == Reason::TdxModule {
        let [version, family, ..] = quote.tee_tcb_svn();
        let have = format_args!("TDX module {family}.{version}: {words}");
        return match module_version_min(collateral.tcb_info(), &quote.tee_tcb_svn()) {
            Some(least) => {
                Refused::new(reason, have, format_args!("{family}.{least} or newer, signed by Intel"))
            }
            None => Refused::new(reason, have, need),
        };
    }
    if reason == Reason::CertificateRevoked {
        return Refused::new(
            reason,
            format_args!("that of platform {}: {words}", hex::encode(&platform.ppid)),
            need,
        );
    }
    Refused::new(reason, words, need)
}
