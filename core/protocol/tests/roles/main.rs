//! What the machines of aggregator, client and reader accept, refuse and survive.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod aggregator;
mod cast;
mod client;
mod noise;
mod reader;
