//! The simulated world: each part alone, and that a run is a function of its seed.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its child reports by printing"
)]

#[path = "world/chain.rs"]
mod chain;
#[path = "world/disk.rs"]
mod disk;
#[path = "world/host.rs"]
mod host;
#[path = "world/network.rs"]
mod network;
#[path = "world/random.rs"]
mod random;
#[path = "world/runtime.rs"]
mod runtime;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft_rt::AsyncRuntime;
use zipnet_core::id::PeerId;
use zipnet_node::world::Address;
use zipnet_sim::chain::{Log, Recorder};
use zipnet_sim::network::NetworkConfig;
use zipnet_sim::runtime::SimRuntime;
use zipnet_sim::world::{Host, Simulation, simulate};

/// A run whose events nobody keeps.
fn run<T, F: Future<Output = T>>(seed: u64, body: impl FnOnce(Simulation) -> F) -> T {
    simulate(seed, NetworkConfig::default(), Recorder::new(Log::Off), Arc::new(|_, _, _| {}), body)
}

/// The n-th machine: it listens at `node-<n>:7000`, and its identity is 32 times n.
fn host(simulation: &Simulation, n: u8) -> Host {
    simulation.host(&format!("node-{n}"), address(n), PeerId([n; 32]))
}

fn address(n: u8) -> Address {
    Address(format!("node-{n}:7000"))
}

async fn sleep(millis: u64) {
    SimRuntime::sleep(Duration::from_millis(millis)).await;
}
