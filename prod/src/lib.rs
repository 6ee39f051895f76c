//! The nodes that operators run, and the tool they run them with.
//!
//! A node is [`zipnet_node::node::run`] in the world of [`zipnet_world`]; this crate is what stands around it in a process.
//! Nothing here decides about the protocol.
//!
//! - [`process`]: a node from its flags to its exit code. Start here.
//! - [`flags`] and [`settings`]: what an operator sets, and where it came from.
//! - [`journal`]: lines for people and for machines.
//! - [`observation`]: metrics, readiness and status over HTTP.
//! - [`usage`]: what the process takes of its machine.
//! - [`admin`]: orders to a running node, over a socket in its state folder.
//! - `parts`: what a record was made of, piece by piece.
//! - [`refusals`]: the file of clients that a server refuses.
//! - [`about`]: what a binary was built as.
//! - [`tool`]: the command `zipnet`.
//! - [`attestation`]: the command `zipnet-tdx`.
#![forbid(unsafe_code)]

pub mod about;
pub mod admin;
pub mod attestation;
pub mod flags;
pub mod journal;
pub mod observation;
mod parts;
pub mod process;
pub mod refusals;
pub mod settings;
pub mod tool;
pub mod usage;
