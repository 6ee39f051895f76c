//! Golden conversations: what a machine does, step by step, readable by anyone.
//!
//! A file is a list of blocks, separated by empty lines. A block is prose (`# …`), then what happens (`<time> <what>`),
//! `----`, and what the machine does about it, with the next moment that it waits for. `UPDATE=1 cargo test --test
//! golden` writes what the machines do into the files; the diff is the review.
//!
//! A role takes part with a folder of the same name and a [`golden::Stage`] that understands its lines.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "golden/aggregator.rs"]
mod aggregator;
#[expect(dead_code, reason = "shared with the tests of the roles; each uses a part")]
#[path = "roles/cast.rs"]
mod cast;
#[path = "golden/client.rs"]
mod client;
#[path = "golden/golden.rs"]
mod golden;
#[path = "golden/reader.rs"]
mod reader;
#[path = "golden/server.rs"]
mod server;
#[path = "golden/words.rs"]
mod words;

#[test]
fn aggregator_conversations_are_as_written() {
    golden::check("aggregator", aggregator::Stage::new);
}

#[test]
fn client_conversations_are_as_written() {
    golden::check("client", client::Stage::new);
}

#[test]
fn reader_conversations_are_as_written() {
    golden::check("reader", reader::Stage::new);
}

#[test]
fn server_conversations_are_as_written() {
    golden::check("server", server::Stage::new);
}
