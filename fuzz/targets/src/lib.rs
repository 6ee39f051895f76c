//! The fuzz targets: for every decoder that takes bytes or text from a peer, a disk or a person, a function that feeds
//! it and asserts what must hold.
//!
//! They are plain functions, so that the fuzzer on nightly (`fuzz/fuzz_targets`) and the replay of the corpus on stable
//! (`tests/corpus.rs`) run the same code. `docs/fuzzing.md` says how to run them and what each one holds.
//!
//! Start at [`TARGETS`].
//!
//! - `wires`: protocol messages and commands.
//! - `frames`: what two nodes say about their connection, and the peer entries in it.
//! - `consensus`: the frames and stored values of consensus.
//! - `snapshot`: the state of the committee, as a leader sends it or a disk returns it.
//! - `framing`: a stream of a real link.
//! - `rumours`: datagrams of gossip.
//! - `roles`: the role machines, fed with altered messages.
//! - `texts`: variables and scenario files.
//! - `evidence`: quotes, and what they are judged by.
//! - `network`: a small honest network, whose conversation the seeds and the role targets are made of.
//! - `draw`: how bytes become decisions.
//! - [`memory`]: how much is allocated meanwhile.

mod consensus;
mod draw;
mod evidence;
mod frames;
mod framing;
pub mod memory;
mod network;
mod roles;
mod rumours;
mod snapshot;
mod texts;
mod wires;

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Something in it was accepted.
    Taken,
    /// It was refused as a whole.
    Refused,
}

/// A decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Of the folder in `fuzz/corpus` and the file in `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Feeds the decoder and asserts what must hold.
    ///
    /// # Panics
    /// If something does not hold. That is a finding.
    pub run: fn(&[u8]) -> Verdict,
    /// Named inputs made of real values, from which a corpus starts.
    pub seeds: fn() -> Vec<(String, Vec<u8>)>,
}

/// All of them.
pub const TARGETS: [Target; 19] = [
    Target { name: "wire_message", run: wires::message, seeds: wires::message_seeds },
    Target { name: "wire_command", run: wires::command, seeds: wires::command_seeds },
    Target { name: "frame", run: frames::frame, seeds: frames::frame_seeds },
    Target { name: "peer_book", run: frames::peer_book, seeds: frames::peer_book_seeds },
    Target { name: "consensus_frame", run: consensus::frame, seeds: consensus::frame_seeds },
    Target { name: "consensus_value", run: consensus::value, seeds: consensus::value_seeds },
    Target { name: "snapshot", run: snapshot::snapshot, seeds: snapshot::seeds },
    Target { name: "gossip", run: rumours::gossip, seeds: rumours::seeds },
    Target { name: "server", run: roles::server, seeds: roles::server_seeds },
    Target { name: "aggregator", run: roles::aggregator, seeds: roles::aggregator_seeds },
    Target { name: "client", run: roles::client, seeds: roles::client_seeds },
    Target { name: "environment", run: texts::environment, seeds: texts::environment_seeds },
    Target { name: "address", run: texts::address, seeds: texts::address_seeds },
    Target { name: "stream", run: framing::stream, seeds: framing::seeds },
    Target { name: "scenario", run: texts::scenario, seeds: texts::scenario_seeds },
    Target { name: "quote", run: evidence::quote, seeds: evidence::quote_seeds },
    Target { name: "collateral", run: evidence::collateral, seeds: evidence::collateral_seeds },
    Target { name: "manifest", run: evidence::manifest, seeds: evidence::manifest_seeds },
    Target { name: "firmware", run: evidence::firmware, seeds: evidence::firmware_seeds },
];

/// The target of this name.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn target(name: &str) -> Target {
    *TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target is called {name}"))
}
