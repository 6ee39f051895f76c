//! A line of a node's log, as it stands in the file.

use serde::Deserialize;
use zipnet_facts::{Account, Fact};

/// A line that a node printed with `ZIPNET_FORMAT=json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The stable name of what happened.
    pub(super) event: String,
    /// The text that people read.
    pub(super) message: String,
    /// What happened; none if a node of another build tells what this one does not know.
    pub(super) fact: Option<Fact>,
}

/// What every line has.
#[derive(Deserialize)]
struct Named {
    event: String,
    message: String,
}

impl Line {
    /// Reads a line. None if it is not one of a node's own: a panic, or what a loader complains about.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let Named { event, message } = serde_json::from_str(text).ok()?;
        let fact = serde_json::from_str(text).ok().map(|account: Account| account.fact);
        Some(Self { event, message, fact })
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::id::Round;

    use super::*;

    #[test]
    fn a_recorded_line_is_read() {
        let text = r#"{"timestamp":"2026-11-27T01:02:03.123456Z","level":"INFO","target":"zipnet_node::roles::aggregator","seq":40,"node":"0909090909090909090909090909090909090909090909090909090909090909","event":"aggregate-forwarded","round":7,"participants":3,"message":"aggregator: forwarded aggregate round=r7 participants=3"}"#;
        let read = Line::parse(text).expect("a line");
        assert_eq!(read.event, "aggregate-forwarded");
        assert_eq!(read.message, "aggregator: forwarded aggregate round=r7 participants=3");
        assert_eq!(read.fact, Some(Fact::AggregateForwarded { round: Round(7), participants: 3 }));
    }

    #[test]
    fn a_line_of_another_build_is_counted() {
        let read = Line::parse(r#"{"event":"new-in-the-next","message":"what it says"}"#).expect("a line");
        assert_eq!((read.event.as_str(), read.fact), ("new-in-the-next", None));
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for text in ["", "thread 'main' panicked at src/main.rs:1", "{}", r#"{"event":"up"}"#, "[1]"] {
            assert_eq!(Line::parse(text), None, "{text}");
        }
    }
}
