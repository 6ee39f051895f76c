//! One zipnet node around the core, generic over the world it runs in.
#![forbid(unsafe_code)]

pub mod config;
pub mod consensus;
pub mod event;
pub mod frame;
pub mod gossip;
pub mod meeting;
pub mod metrics;
pub mod node;
pub mod status;
pub mod world;
