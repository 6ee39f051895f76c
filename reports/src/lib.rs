//! What came of a run, as data, and what must hold in every run.
//!
//! The simulator and the tools around it write and read their results through this crate and nowhere else. It runs
//! nothing: it knows what a result looks like, how it becomes a line of JSON or a JUnit file, and which exit code a set of
//! verdicts adds up to. And it holds the one set of [`properties`], judged by what nodes tell, wherever they run.
//!
//! Start with [`RunResult`], the record of one run, or with [`properties::Watch`].

#![forbid(unsafe_code)]

/// Exit codes, and how several outcomes add up to one.
mod exit;
/// A JUnit file for CI.
mod junit;
pub mod properties;
/// One run: its verdict, its counts, what it did and where it failed.
mod run;
/// Simulated and measured time as decimal seconds, without floating point.
mod seconds;
/// The five things a run can come to.
mod verdict;

pub use exit::Exit;
pub use junit::{Case, Outcome, Suite, junit};
pub use run::{Checkpoint, Counts, Failure, LineError, RunResult, Step, StepOutcome};
pub use seconds::{Seconds, SecondsError};
pub use verdict::Verdict;
