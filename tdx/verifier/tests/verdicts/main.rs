//! Verdicts about real quotes and simulated ones, and what holds whatever is judged.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod dependencies;
mod firmware;
mod manifests;
mod mutations;
mod real;
mod scene;
mod simulated;
mod timelines;
