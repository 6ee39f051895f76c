//! What the machines of aggregator and client accept, refuse and survive.

mod aggregator;
mod cast;
mod client;
mod noise;
