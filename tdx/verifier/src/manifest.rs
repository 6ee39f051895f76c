//! Which images are admitted: a list that a release key has signed. An operator's own list would let each operator
//! admit anything to his own node.
//!
//! It is a file of JSON. The signature covers the values and not their spelling, so it survives another indentation;
//! `docs/protocol.md` has the fields in their order.

use core::fmt;
use core::str::FromStr;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zipnet_core::digest::{Context, Fields};
use zipnet_core::id::Digest;

use crate::date::Date;
use crate::measurement::{Measurement, Platform};
use crate::refused::{Reason, Refused};
use crate::tcb::Status;

/// The longest file that is read.
pub const MANIFEST_BYTES_MAX: usize = 256 << 10;

/// The most entries of a list.
const ENTRIES_MAX: usize = 1_000;
/// The longest label, and the longest name of an advisory, in bytes.
const LABEL_BYTES_MAX: usize = 100;
/// The version of the file.
const FORMAT: u32 = 1;

/// What is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Rises with every manifest of a key. Whoever has seen one takes none with a lower number.
    pub number: u64,
    /// When it was written. No time before that is believed.
    pub issued: Date,
    /// The images. None: nobody is admitted.
    pub releases: Vec<Release>,
    /// The machines, if not every machine will do. An empty list admits nobody.
    pub platforms: Option<Vec<Platform>>,
    /// Collateral must take at least so many recoveries into account.
    pub evaluation_number_min: u32,
    /// States of a platform that will do.
    pub accepted_statuses: Vec<Status>,
    /// Weaknesses of a platform that will do.
    pub accepted_advisories: Vec<String>,
    /// How long after its date a level that is out of date will do, if its state is among those accepted.
    pub grace_days: u16,
}

/// An image that is admitted for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// What people call it.
    pub label: String,
    /// The firmware and what it commits to.
    pub mr_td: Measurement,
    /// The kernel, if it is pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtmr1: Option<Measurement>,
    /// Command line and initrd, if they are pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtmr2: Option<Measurement>,
    /// The first moment.
    pub not_before: Date,
    /// The last moment.
    pub not_after: Date,
}

/// As the file has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with the fields of a manifest")]
struct File {
    format: u32,
    number: u64,
    issued: Date,
    releases: Vec<Release>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platforms: Option<Vec<Platform>>,
    evaluation_number_min: u32,
    accepted_statuses: Vec<Status>,
    accepted_advisories: Vec<String>,
    grace_days: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed_by: Option<ReleaseKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

impl Manifest {
    /// One with nothing in it, which admits nobody and accepts nothing but platforms that are up to date.
    #[must_use]
    pub const fn new(number: u64, issued: Date) -> Self {
        Self {
            number,
            issued,
            releases: Vec::new(),
            platforms: None,
            evaluation_number_min: 0,
            accepted_statuses: Vec::new(),
            accepted_advisories: Vec::new(),
            grace_days: 0,
        }
    }

    /// What the release key signs.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let Self {
            number,
            issued,
            releases,
            platforms,
            evaluation_number_min,
            accepted_statuses,
            accepted_advisories,
            grace_days,
        } = self;
        let mut fields = Fields::new(Context::ReleaseManifest);
        fields.u64(*number).u64(issued.0).count(releases.len());
        for Release { label, mr_td, rtmr1, rtmr2, not_before, not_after } in releases {
            fields.vector(label.as_bytes()).vector(&mr_td.0);
            for register in [rtmr1, rtmr2] {
                match register {
                    None => fields.byte(0),
                    Some(register) => fields.byte(1).vector(&register.0),
                };
            }
            fields.u64(not_before.0).u64(not_after.0);
        }
        match platforms {
            None => {
                fields.byte(0);
            }
            Some(platforms) => {
                fields.byte(1).count(platforms.len());
                for platform in platforms {
                    fields.vector(&platform.0);
                }
            }
        }
        fields.u32(*evaluation_number_min).count(accepted_statuses.len());
        for status in accepted_statuses {
            fields.byte(status.code());
        }
        fields.count(accepted_advisories.len());
        for id in accepted_advisories {
            fields.vector(id.as_bytes());
        }
        fields.u32(u32::from(*grace_days)).digest()
    }

    /// Signs it.
    ///
    /// # Errors
    /// If it breaks a rule, so that nobody would read it.
    pub fn sign(self, secret: &ReleaseSecret) -> Result<SignedManifest, ManifestError> {
        self.check()?;
        let signature = secret.0.sign(&self.digest().0).to_bytes();
        Ok(SignedManifest { manifest: self, signed: Some((secret.public(), signature)) })
    }

    /// The rules that the types do not have.
    fn check(&self) -> Result<(), ManifestError> {
        let fail = |text: String| Err(ManifestError(text));
        let lists = [
            ("releases", self.releases.len()),
            ("platforms", self.platforms.as_ref().map_or(0, Vec::len)),
            ("accepted_statuses", self.accepted_statuses.len()),
            ("accepted_advisories", self.accepted_advisories.len()),
        ];
        if let Some((name, len)) = lists.iter().find(|(_, len)| *len > ENTRIES_MAX) {
            return fail(format!("{name} has {len} entries; {ENTRIES_MAX} are the most"));
        }
        for (place, release) in self.releases.iter().enumerate() {
            let Release { label, mr_td, rtmr1, rtmr2, not_before, not_after } = release;
            let name = format!("release {} ({})", place + 1, label.escape_debug());
            if !is_label(label) {
                return fail(format!(
                    "{name}: a label has 1 to {LABEL_BYTES_MAX} bytes, all of them to be seen"
                ));
            }
            if mr_td.is_zero()
                || rtmr1.is_some_and(|one| one.is_zero())
                || rtmr2.is_some_and(|one| one.is_zero())
            {
                return fail(format!("{name}: a register of zeros is one in which nothing was measured"));
            }
            if not_before >= not_after {
                return fail(format!(
                    "{name}: it ends at {not_after}, which is not after its beginning at {not_before}"
                ));
            }
            let same = |other: &&Release| (other.mr_td, other.rtmr1, other.rtmr2) == (*mr_td, *rtmr1, *rtmr2);
            if let Some(twin) = self.releases[..place].iter().find(same) {
                return fail(format!("{name}: the same measurements as {}", twin.label.escape_debug()));
            }
        }
        if let Some(id) = self.accepted_advisories.iter().find(|id| !is_label(id)) {
            return fail(format!("accepted_advisories: {:?} is no name of an advisory", id));
        }
        if self.accepted_statuses.contains(&Status::Revoked) {
            return fail("accepted_statuses: Revoked is accepted by nobody".to_owned());
        }
        if self.grace_days > 0 && !self.accepted_statuses.iter().any(|status| status.is_out_of_date()) {
            return fail("grace_days: they help only with OutOfDate among accepted_statuses".to_owned());
        }
        Ok(())
    }
}

fn is_label(text: &str) -> bool {
    let seen = |c: char| !c.is_control() && !c.is_whitespace() || c == ' ';
    !text.is_empty() && text.len() <= LABEL_BYTES_MAX && text.trim() == text && text.chars().all(seen)
}

/// A manifest as it came, signed or not. [`crate::policy::Policy::new`] finds out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedManifest {
    manifest: Manifest,
    signed: Option<(ReleaseKey, [u8; 64])>,
}

impl SignedManifest {
    /// Reads a file.
    ///
    /// # Errors
    /// If it is no manifest, with the place and what is expected there.
    pub fn from_json(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError(format!("{} bytes exceed {MANIFEST_BYTES_MAX}", text.len())));
        }
        let file: File = serde_json::from_str(text).map_err(|reason| ManifestError(reason.to_string()))?;
        if file.format != FORMAT {
            let format = file.format;
            return Err(ManifestError(format!("it has format {format}; this version reads {FORMAT}")));
        }
        let signed = match (file.signed_by, file.signature) {
            (None, None) => None,
            (Some(key), Some(digits)) => {
                let mut signature = [0; 64];
                hex::decode_to_slice(&digits, &mut signature)
                    .map_err(|_| ManifestError("signature: expected 128 hexadecimal digits".to_owned()))?;
                Some((key, signature))
            }
            (Some(_), None) | (None, Some(_)) => {
                return Err(ManifestError("signed_by and signature stand there both, or neither".to_owned()));
            }
        };
        let manifest = Manifest {
            number: file.number,
            issued: file.issued,
            releases: file.releases,
            platforms: file.platforms,
            evaluation_number_min: file.evaluation_number_min,
            accepted_statuses: file.accepted_statuses,
            accepted_advisories: file.accepted_advisories,
            grace_days: file.grace_days,
        };
        manifest.check()?;
        Ok(Self { manifest, signed })
    }

    /// As it is written, with a newline at its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Manifest {
            number,
            issued,
            releases,
            platforms,
            evaluation_number_min,
            accepted_statuses,
            accepted_advisories,
            grace_days,
        } = self.manifest.clone();
        let file = File {
            format: FORMAT,
            number,
            issued,
            releases,
            platforms,
            evaluation_number_min,
            accepted_statuses,
            accepted_advisories,
            grace_days,
            signed_by: self.signed.map(|(key, _)| key),
            signature: self.signed.map(|(_, signature)| hex::encode(signature)),
        };
        let text = serde_json::to_string_pretty(&file).expect("every field has a text");
        text + "\n"
    }

    /// What it says, which nobody may have signed.
    #[must_use]
    pub const fn unproven(&self) -> &Manifest {
        &self.manifest
    }

    /// By whom it says that it is signed.
    #[must_use]
    pub fn signed_by(&self) -> Option<ReleaseKey> {
        self.signed.map(|(key, _)| key)
    }

    /// What this key has signed.
    ///
    /// # Errors
    /// If it has not signed this.
    pub fn open(self, key: &ReleaseKey) -> Result<Manifest, Refused> {
        let Some((signer, signature)) = self.signed else {
            return Err(Refused::new(
                Reason::ManifestUnsigned,
                "no signature",
                format_args!("that of {key}"),
            ));
        };
        if signer != *key {
            return Err(Refused::new(Reason::ManifestKey, format_args!("signed by {signer}"), key));
        }
        let digest = self.manifest.digest();
        let verified = VerifyingKey::from_bytes(&key.0)
            .is_ok_and(|key| key.verify_strict(&digest.0, &Signature::from_bytes(&signature)).is_ok());
        if !verified {
            let need = format_args!("one by {key} over {digest}");
            return Err(Refused::new(Reason::ManifestSignature, "a signature of something else", need));
        }
        Ok(self.manifest)
    }
}

impl FromStr for SignedManifest {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        Self::from_json(text)
    }
}

impl From<Manifest> for SignedManifest {
    fn from(manifest: Manifest) -> Self {
        Self { manifest, signed: None }
    }
}

/// Who releases images: an ed25519 public key. Whoever judges by it has it as configuration, which is part of the image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReleaseKey(pub [u8; 32]);

impl FromStr for ReleaseKey {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| ManifestError("a release key has 64 hexadecimal digits".to_owned()))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for ReleaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ReleaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReleaseKey({self})")
    }
}

impl Serialize for ReleaseKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReleaseKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What a release is signed with.
#[derive(Clone)]
pub struct ReleaseSecret(SigningKey);

impl ReleaseSecret {
    /// From 32 bytes that nobody can guess.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> ReleaseKey {
        ReleaseKey(self.0.verifying_key().to_bytes())
    }
}

impl fmt::Debug for ReleaseSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReleaseSecret(..)")
    }
}

/// Why a text is no manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError(String);

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read the manifest: {}", self.0)
    }
}

impl core::error::Error for ManifestError {}
