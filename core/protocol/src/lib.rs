//! The ZIPNet protocol as sans-IO state machines.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod checks;
pub mod committee;
pub mod id;
pub mod time;
