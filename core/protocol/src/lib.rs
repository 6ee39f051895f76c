//! The ZIPNet protocol as sans-IO state machines.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod aggregator;
pub mod bitmap;
pub mod checks;
pub mod client;
pub mod committee;
pub mod fold;
pub mod id;
pub mod instance;
pub mod key;
pub mod keyring;
pub mod machine;
pub mod message;
pub mod pad;
pub mod params;
pub mod partial;
pub mod random;
pub mod registry;
pub mod seal;
pub mod server;
pub mod signing;
pub mod slot;
pub mod time;
pub mod wire;
