//! Why a quote, or a manifest, is refused: by name, with what was found, what is needed, and what helps.

use core::fmt;

use serde::{Serialize, Serializer};

/// Defines the table of reasons.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $remedy:literal;)*) => {
        /// What is wrong. Names are an interface: they stand in logs, in metrics and in `docs/attestation.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What helps.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$name => $remedy,)*
                }
            }
        }
    };
}

reasons! {
    /// More bytes than a quote may have.
    TooLong = "quote-too-long", "send the quote alone, as the platform gives it";
    /// Not a quote that this verifier reads.
    Undecodable = "quote-unreadable",
        "take a quote of version 4 or 5 with the certificate chain in it, as configfs-tsm and Intel's quote service give it";
    /// A quote of something else than a trust domain.
    NotTdx = "not-tdx", "take the quote inside a TDX guest";
    /// The time that was given lies before something that has certainly happened.
    ClockTurnedBack = "clock-turned-back",
        "set the clock of the machine that judges; if it is right, a manifest or collateral was dated by a wrong one";
    /// Collateral, or a certificate, that is not valid yet.
    CollateralFromTheFuture = "collateral-from-the-future",
        "set the clock of the machine that judges; if it is right, fetch the collateral again";
    /// Collateral, or a certificate, whose time is over. There is no grace.
    CollateralExpired = "collateral-expired",
        "fetch the collateral again and give it to every machine that judges; find out what kept that from happening in time";
    /// No collateral at hand is for this kind of platform.
    NoCollateral = "no-collateral-for-platform", "fetch collateral for this FMSPC and give it besides the other";
    /// Collateral that its signer has not signed, or that is not what it should be.
    CollateralUnsound = "collateral-unsound", "fetch the collateral again, from Intel or a cache that you trust";
    /// Signed by somebody whom this verifier has no reason to believe.
    ForeignRoot = "foreign-root",
        "take quote and collateral of a real platform; if they are, the machine is not provisioned with Intel's keys";
    /// A certificate that was taken back.
    CertificateRevoked = "certificate-revoked", "the keys of this machine are not trusted any more: replace the machine";
    /// A signature in the quote that does not fit: it was altered, or put together from several.
    BadSignature = "bad-signature", "take a fresh quote; if it is refused as well, somebody alters it on its way";
    /// The enclave that signs quotes is not Intel's, or is too old.
    QuotingEnclave = "quoting-enclave", "update Intel's quote service (the TD quoting enclave) on the host";
    /// A trust domain whose memory its host can read.
    DebugTd = "debug-td", "start the guest without the debug attribute";
    /// A trust domain that its host can move to another machine.
    MigratableTd = "migratable-td", "start the guest without the migratable attribute";
    /// Other attributes that weaken a trust domain.
    TdAttributes = "td-attributes",
        "start the guest with sept-ve-disable and without profiling, service TDs and attributes that nobody has defined";
    /// The TDX module is not Intel's, or is older than anything that Intel lists.
    TdxModule = "tdx-module", "update the TDX module on the host, and start the guest again";
    /// The platform is older than anything that Intel lists.
    BelowEveryLevel = "tcb-below-every-level", "update BIOS, microcode and TDX module of the host";
    /// Intel has taken back its trust in platforms of this state.
    TcbRevoked = "tcb-revoked", "update BIOS, microcode and TDX module of the host, and have it provisioned again";
    /// Another rule that Intel's evidence breaks.
    NotVerified = "not-verified", "read what was found; take a fresh quote and fresh collateral";
    /// The quote speaks for another process.
    ReportData = "report-data",
        "take the quote in the process that shows it; if it was, somebody shows the quote of another one";
    /// An image that nobody has released.
    UnknownMeasurement = "measurement-unknown",
        "run a released image, or release this one: add it to the manifest, sign, and give the manifest to every node";
    /// The manifest pins a register in which nothing was measured.
    RegisterAbsent = "register-absent",
        "boot the image so that kernel and command line are measured; clouds that measure nothing cannot run it";
    /// A register is not what the manifest pins.
    RegisterDiffers = "register-differs", "boot the released kernel, initrd and command line with this firmware";
    /// A release whose time has not come.
    NotYet = "release-not-yet", "run the image that the manifest admits today, or sign an earlier beginning";
    /// A release whose time is over.
    Retired = "release-retired", "roll this machine to a release that the manifest admits";
    /// Collateral from before a recovery that the manifest asks for.
    EvaluationNumber = "evaluation-number", "fetch newer collateral; with `update=early` if the standard one has a lower number";
    /// The platform's state is not one that the manifest accepts.
    TcbStatus = "tcb-status", "update what falls short; `zipnet-tdx tcb-status` names it";
    /// The state is one that the manifest accepts for a while, and the while is over.
    GraceOver = "grace-over", "update what falls short; `zipnet-tdx tcb-status` names it";
    /// A weakness of the platform that the manifest does not accept.
    Advisory = "advisory", "do what the advisory says; or accept it by its name in the manifest";
    /// A machine that the manifest does not list.
    PlatformNotListed = "platform-not-listed", "run on a listed machine, or add this one to the platforms of the manifest";
    /// A manifest that nobody has signed.
    ManifestUnsigned = "manifest-unsigned", "sign it: `zipnet-tdx manifest sign`";
    /// A manifest that another key has signed.
    ManifestKey = "manifest-key", "take the manifest of your release key, or have the key that you expect sign it";
    /// A manifest that was changed after it was signed.
    ManifestSignature = "manifest-signature", "take the manifest as it was published, or sign the changed one";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// So many characters of what was found are repeated.
const CHARS_MAX: usize = 400;

/// A refusal. What is in it may be shown: it is short, and holds nothing that acts on a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    reason: Reason,
    have: String,
    need: String,
}

impl Refused {
    pub(crate) fn new(reason: Reason, have: impl fmt::Display, need: impl fmt::Display) -> Self {
        let tame = |text: String| -> String {
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARS_MAX).collect()
        };
        Self { reason, have: tame(have.to_string()), need: tame(need.to_string()) }
    }

    /// The name.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// What was found.
    #[must_use]
    pub fn have(&self) -> &str {
        &self.have
    }

    /// What is needed.
    #[must_use]
    pub fn need(&self) -> &str {
        &self.need
    }

    /// What helps.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        self.reason.remedy()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, have, need } = self;
        write!(f, "{reason}: have {have}; need {need}; remedy: {}", reason.remedy())
    }
}

impl core::error::Error for Refused {}

impl Serialize for Refused {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut fields = serializer.serialize_struct("Refused", 4)?;
        fields.serialize_field("reason", &self.reason)?;
        fields.serialize_field("have", &self.have)?;
        fields.serialize_field("need", &self.need)?;
        fields.serialize_field("remedy", self.remedy())?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own_and_a_row_on_the_page() {
        let page = include_str!("../../../docs/attestation.md");
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(page.contains(&format!("| `{reason}` |")), "{reason} has no row");
            assert!(!reason.remedy().is_empty());
        }
    }

    #[test]
    fn what_was_found_is_repeated_in_short_and_does_not_act() {
        let refused = Refused::new(Reason::NotVerified, "\x1b[2J".repeat(1_000), "a\nb");
        assert_eq!(refused.have().len(), CHARS_MAX);
        assert!(!refused.to_string().contains(char::is_control), "{refused}");
    }
}
