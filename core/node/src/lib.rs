//! One zipnet node around the core, generic over the world it runs in.
//!
//! It adds to the protocol what a process needs: connections, durable state, consensus and the operators' interface. It
//! has no runtime, socket, file or clock of its own; all of that is a [`World`](world::World).
//!
//! Start at [`node::run`] and [`world`].
//!
//! - [`world`]: what is supplied from outside.
//! - [`node`]: the loop that feeds a role machine and carries out its effects.
//! - [`consensus`]: the replicated log and its storage; the only module that names openraft.
//! - [`frame`]: what two nodes say to each other about their connection.
//! - [`believed`]: whom a server believes beside the voters in its own log.
//! - [`meeting`]: who comes and leaves; the decisions, without the doing.
//! - [`slots`]: which connections are kept when there is not room for all.
//! - [`allowance`]: how much of one peer is taken and answered in a while.
//! - [`gossip`]: who is alive, by rumour, and where peers can be reached.
//! - [`remembered`]: where they were, for the next process.
//! - [`founding`]: how a committee whose log was set aside begins another one.
//! - [`config`]: what an operator sets.
//! - [`event`], [`metrics`], [`status`], [`plan`]: what an operator sees.
#![forbid(unsafe_code)]

pub mod allowance;
pub mod believed;
pub mod config;
pub mod consensus;
pub mod event;
pub mod founding;
pub mod frame;
pub mod gossip;
pub mod meeting;
pub mod metrics;
pub mod node;
pub mod plan;
pub mod remembered;
pub mod slots;
pub mod status;
pub mod world;
