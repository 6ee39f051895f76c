//! The ZIPNet protocol as sans-IO state machines: no clock, no socket, no thread, no file, no randomness of its own.
//!
//! In reading order: [`id`], [`params`], [`message`] and [`refused`] say what there is; [`committee`] says what the
//! replicated log means; [`server`], [`aggregator`] and [`client`] are the roles, and a [`reader`] follows the broadcasts
//! without taking part, all driven as [`machine`] tells. They compute with [`pad`], [`slot`], [`seal`], [`fold`] and
//! [`partial`], over [`bitmap`]s of the client [`registry`]. Secrets are in [`key`] and used by the [`keyring`] only; what
//! is signed stands in [`signing`], what travels in [`wire`], and what convicts a server in [`evidence`]. What records were made of is kept
//! in [`parts`].
#![no_std]
#![forbid(unsafe_code)]
// No bytes from a peer may panic, wrap or be cut, and a new variant must break every place that has not thought of it.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::float_arithmetic,
        clippy::wildcard_enum_match_arm
    )
)]

extern crate alloc;

pub mod aggregator;
mod belief;
pub mod bitmap;
pub mod checks;
pub mod client;
pub mod committee;
pub mod digest;
pub mod evidence;
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
pub mod parts;
pub mod random;
pub mod reader;
pub mod refused;
pub mod registry;
mod retry;
pub mod seal;
pub mod server;
pub mod signing;
pub mod slot;
pub mod time;
pub mod wire;
