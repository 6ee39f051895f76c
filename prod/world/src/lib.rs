//! The real world for a zipnet node: what [`zipnet_node::world::World`] asks for, on tokio.
//!
//! The simulator implements the same traits in files of the same names; nothing else differs between a node that is
//! simulated and one that runs. Nothing here decides about the protocol.
//!
//! - [`world`]: everything together, for one process.
//! - [`ground`]: what must be had before a node begins.
//! - [`addresses`]: the port and the peers that a state folder remembers.
//! - [`environment`]: the variables of a process and of a file.
//! - [`network`]: authenticated connections over QUIC.
//! - [`disk`]: the state folder.
//! - [`runtime`]: tasks and time.
#![forbid(unsafe_code)]

pub mod addresses;
pub mod disk;
pub mod environment;
pub mod ground;
pub mod network;
pub mod runtime;
pub mod world;
