//! Simulated TDX platforms: everything that Intel and its hardware do for a quote, below a root of their own.
//!
//! The verifier that judges these quotes is the one that judges real ones; only the root differs. So nothing that ships
//! may depend on this crate, and tests hold that. All keys follow from a seed, signatures are deterministic (RFC 6979),
//! and time is an argument: the same calls give the same bytes.
//!
//! Start at [`vendor::Vendor`].
//!
//! - [`vendor`]: the root, the certificates below it, and collateral.
//! - [`platform`]: a machine and the quotes of its guests.
//! - [`timeline`]: what the vendor publishes when, and what a machine that fetches it gets.
//! - [`firmware`]: small images that can be measured.
//! - `certificates`, `key`: what these are made of.

mod certificates;
pub mod firmware;
mod key;
pub mod platform;
pub mod timeline;
pub mod vendor;

/// Stands in every certificate made here. What ships does not hold it.
pub const MARKER: &str = "Simulated TDX, not of Intel";
