//! The scenario files of zipnet, and the crate that reads and checks them.
//!
//! A scenario is a procedure that an operator follows, the faults that happen meanwhile, and what must be seen. This
//! crate turns the text into a [`Scenario`] or into a list of [`Diagnostic`]s; it runs nothing, and it knows no other
//! crate of the workspace. What each verb means to an engine is written in `docs/scenarios.md`.
//!
//! Start at [`read`] and [`Scenario`], then [`verbs`].
//!
//! - [`scenario`]: the model, and how it is read.
//! - [`verbs`]: the one table of verbs; the model's enums, the reader and the schema come from it.
//! - [`words`]: the closed lists of names (signals, log events, reasons, metrics, rules).
//! - [`node`]: how a scenario names nodes.
//! - [`value`]: durations, bounded integers, and values that are drawn from the seed.
//! - [`env`](mod@env): the documented `ZIPNET_*` variables.
//! - [`diagnostic`]: what is wrong with a file, where, and what was probably meant.
//! - [`folder`]: which files a path on the command line stands for.
//! - [`schema`]: the JSON Schema for editors.

pub mod diagnostic;
pub mod env;
pub mod folder;
pub mod node;
pub mod scenario;
pub mod schema;
pub mod value;
pub mod verbs;
pub mod words;

mod argument;
mod body;
mod reader;
mod runbook;
mod write;

pub use diagnostic::{Diagnostic, Kind};
pub use folder::list;
pub use scenario::{Resolved, Scenario, read};
