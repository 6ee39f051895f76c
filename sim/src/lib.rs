//! Driver 1: the production node in a deterministic simulation.
//!
//! A run is a pure function of (scenario, seed, binary). Nothing here knows the protocol better than `zipnet-node`
//! does; this crate supplies the world around it, breaks that world on purpose, and watches. What must hold in every run is
//! judged by `zipnet_reports::properties`.
//!
//! Start at [`world`], or at [`cli`] for what a person sees. From the bottom up:
//!
//! - [`random`]: the only source of chance, forked by name.
//! - [`chain`]: the hash chain over everything that happens; how two runs are compared.
//! - [`watch`], [`runtime`]: openraft's runtime on madsim's tasks and virtual time.
//! - [`disk`]: files that lose, tear and reorder what was not synced.
//! - [`network`]: connections over links that delay, lose, repeat and are cut.
//! - [`world`]: the three of them as the world of one node, and the host that starts and kills it.
//! - `cast`: the nodes of a scenario, and what their processes are told.
//! - `engine`: carries out a scenario, wherever its nodes are; `site`: what it asks of that place.
//! - [`simulated`], `live`: the two places, simulated machines and real processes.
//! - `defect`, `adversary`: what is broken on purpose, and who lies.
//! - [`memory`]: signatures that were verified before.
//! - `one`: one scenario, one seed, one process, one result line.
//! - `conform`: whether real nodes and the core come to the same records.
//! - `determinism`: whether a run repeated does the same, and where two runs part.
//! - `sweep`: many scenarios over many seeds, and what they add up to.
//! - [`cli`], `say`, `doctor`, `stopwatch`: the command line.
#![forbid(unsafe_code)]

#[cfg(not(madsim))]
compile_error!(
    "zipnet-sim needs the compiler flag `--cfg madsim`, which .cargo/config.toml of this repository sets. It is lost \
     if RUSTFLAGS is set in the environment (unset it), or if cargo is started outside the repository (change into \
     it, or install with `cargo install --locked --path sim` from within)."
);

#[cfg(madsim)]
mod adversary;
#[cfg(madsim)]
mod cast;
#[cfg(madsim)]
pub mod chain;
#[cfg(madsim)]
pub mod cli;
#[cfg(madsim)]
mod conform;
#[cfg(madsim)]
pub mod defect;
#[cfg(madsim)]
mod determinism;
#[cfg(madsim)]
pub mod disk;
#[cfg(madsim)]
mod doctor;
#[cfg(madsim)]
mod engine;
#[cfg(madsim)]
mod live;
#[cfg(madsim)]
pub mod memory;
#[cfg(madsim)]
pub mod network;
#[cfg(madsim)]
mod one;
#[cfg(madsim)]
pub mod random;
#[cfg(madsim)]
pub mod runtime;
#[cfg(madsim)]
mod say;
#[cfg(madsim)]
pub mod simulated;
#[cfg(madsim)]
mod site;
#[cfg(madsim)]
mod stopwatch;
#[cfg(madsim)]
mod sweep;
#[cfg(madsim)]
pub mod watch;
#[cfg(madsim)]
mod wires;
#[cfg(madsim)]
pub mod world;
