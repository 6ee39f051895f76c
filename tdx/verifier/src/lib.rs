//! Is this TDX quote acceptable? Quote, collateral, policy and time go in; [`verifier::Attested`] or
//! [`refused::Refused`] comes out.
//!
//! Pure: no clock, no file, no network, so a verdict can be repeated years later from what was recorded. What a quote
//! proves and what it does not stands in `docs/attestation.md`.
//!
//! Start at [`verifier::Verifier::judge`].
//!
//! - [`verifier`]: the verdict.
//! - [`policy`]: what is asked of a genuine quote: image, state of the platform, time.
//! - [`manifest`]: which images a release key admits, and how it says so.
//! - [`binding`]: what a quote must say of whom it speaks for.
//! - [`refused`]: every reason, with what was found, what is needed, and what helps.
//! - [`quote`]: a quote as it is written, which proves nothing yet.
//! - [`collateral`]: what Intel says about a kind of platform, and for how long.
//! - [`tcb`]: how up to date a platform is, and in what it falls short.
//! - [`firmware`]: what MR_TD a firmware image will have.
//! - [`certificate`], [`date`], [`measurement`]: what these are made of.

pub mod binding;
pub mod certificate;
pub mod collateral;
pub mod date;
pub mod firmware;
pub mod manifest;
pub mod measurement;
pub mod policy;
pub mod quote;
pub mod refused;
pub mod tcb;
pub mod verifier;
