//! What the machines of aggregator, client and reader accept, refuse and survive.

#![expect(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod aggregator;
mod cast;
mod client;
mod noise;
mod reader;
