//! Signatures that were verified before.
//!
//! A broadcast signature is verified by every node that receives it. Where all nodes share a process, one of them
//! verifies and the others ask; whether a signature is right depends on nothing but the question, so a run does the
//! same either way, in less than half the time.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use zipnet_core::checks::{Check, Checks, Mixed};
use zipnet_core::id::{Digest, PeerId};
use zipnet_core::key::{self, PublicKey, Signature};

/// More verdicts than a round of the largest cluster has; then all are forgotten.
const KEPT_MAX: usize = 1_024;

/// A signature, who should have made it, and over what.
type Question = ([u8; 64], PeerId, Digest);

/// What is known about signatures. Clones know the same.
#[derive(Clone, Default)]
pub struct Verdicts(Arc<Mutex<BTreeMap<Question, bool>>>);

impl Verdicts {
    fn verify(&self, peer: &PeerId, digest: &Digest, signature: &Signature) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let question = (signature.0, *peer, *digest);
        if let Some(verdict) = known.get(&question) {
            return *verdict;
        }
        let verdict = key::verify(peer, digest, signature);
        if known.len() == KEPT_MAX {
            known.clear();
        }
        known.insert(question, verdict);
        verdict
    }
}

impl fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verdicts(..)")
    }
}

/// Checks that verify no signature twice in a run.
#[derive(Clone, Debug)]
pub struct Remembering<C> {
    checks: C,
    verdicts: Verdicts,
}

impl<C: Checks> Remembering<C> {
    /// The same checks with what is known about signatures.
    pub const fn new(checks: C, verdicts: Verdicts) -> Self {
        Self { checks, verdicts }
    }
}

impl<C: Checks> Checks for Remembering<C> {
    const OBSERVES: bool = C::OBSERVES;

    fn mixed(&self, mixed: &Mixed<'_>) {
        self.checks.mixed(mixed);
    }

    fn announced(&self, own: PublicKey) -> PublicKey {
        self.checks.announced(own)
    }

    fn enforce(&self, check: Check) -> bool {
        self.checks.enforce(check)
    }

    fn verify(&self, peer: &PeerId, digest: &Digest, signature: &Signature) -> bool {
        self.verdicts.verify(peer, digest, signature)
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::checks::Strict;
    use zipnet_core::id::UniqueId;
    use zipnet_core::key::{Identity, NodeSecret};

    use super::*;

    #[test]
    fn whatever_is_remembered_is_what_verifying_says() {
        let checks = Remembering::new(Strict, Verdicts::default());
        let identity =
            |name: &str| Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text(name).0));
        let (one, other) = (identity("one"), identity("other"));
        let digests = (0_u8..4).map(|byte| Digest([byte; 32]));
        let signatures: Vec<_> = digests.clone().map(|digest| one.sign(&digest)).collect();
        for _ in 0..2 {
            for (digest, signature) in digests.clone().zip(&signatures) {
                for peer in [one.peer(), other.peer()] {
                    for asked in digests.clone() {
                        let right = peer == one.peer() && asked == digest;
                        assert_eq!(checks.verify(&peer, &asked, signature), right);
                    }
                }
            }
        }
    }

    #[test]
    fn more_than_is_kept_is_verified_anew() {
        let verdicts = Verdicts::default();
        for number in 0..2 * KEPT_MAX {
            let mut signature = [0; 64];
            signature[..8].copy_from_slice(&u64::try_from(number).unwrap().to_le_bytes());
            assert!(!verdicts.verify(&PeerId([1; 32]), &Digest([2; 32]), &Signature(signature)));
        }
        assert_eq!(verdicts.0.lock().unwrap().len(), KEPT_MAX);
    }
}
