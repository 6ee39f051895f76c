//! One zipnet node around the core, generic over the world it runs in.
#![forbid(unsafe_code)]

pub mod consensus;
pub mod event;
pub mod world;
