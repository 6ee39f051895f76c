//! A line of a node's log, as it stands in the file.

use serde::Deserialize;

/// A line that a node printed with `ZIPNET_FORMAT=json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Line {
    /// The stable name of what happened.
    pub(super) event: String,
    /// The text that people read.
    pub(super) message: String,
}

impl Line {
    /// Reads a line. None if it is not one of a node's own: a panic, or what a loader complains about.
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The value behind `name=` in the text, without the punctuation that ends a clause.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.message.split_whitespace().find_map(|word| {
            let value = word.strip_prefix(name)?.strip_prefix('=')?;
            Some(value.trim_end_matches([':', ';', ',']))
        })
    }

    /// The number behind `name=`.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    /// The number of the round that the line is about.
    pub(super) fn round(&self) -> Option<u64> {
        self.field("round")?.strip_prefix('r')?.parse().ok()
    }
}

/// A peer id as lines print it.
pub(super) fn short(peer: &str) -> &str {
    peer.get(..10).unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &str, message: &str) -> Line {
        Line { event: event.to_owned(), message: message.to_owned() }
    }

    #[test]
    fn a_recorded_line_is_read() {
        let text = r#"{"event":"round-finalized","level":"INFO","message":"committee: round finalized round=r7 participants=3","target":"zipnet_node::committee","timestamp":"2026-11-27T01:02:03.123456Z"}"#;
        let read = Line::parse(text).expect("a line");
        assert_eq!(read, line("round-finalized", "committee: round finalized round=r7 participants=3"));
        assert_eq!((read.round(), read.number("participants")), (Some(7), Some(3)));
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for text in ["", "thread 'main' panicked at src/main.rs:1", "{}", r#"{"event":"up"}"#, "[1]"] {
            assert_eq!(Line::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_table_of_lines_has_the_fields_that_are_judged_by() {
        // The page of the node's crate that holds every line: `LEVEL target: text [event]`.
        let page = include_str!("../../../core/node/src/event/lines.txt");
        let all: Vec<Line> = page
            .lines()
            .map(|text| {
                let (text, event) =
                    text.strip_suffix(']').and_then(|text| text.rsplit_once(" [")).expect("an event");
                line(event, text.split_once(": ").expect("a target").1)
            })
            .collect();
        let of =
            |event: &str| all.iter().find(|line| line.event == event).unwrap_or_else(|| panic!("no {event}"));
        assert!(
            of("up").field("peer").is_some_and(|peer| peer.len() > 65 && peer.ends_with("@10.0.0.7:4000"))
        );
        assert_eq!(of("leader").field("leader"), Some("0101010101"));
        assert_eq!((of("leader").number("term"), of("leader").field("local")), (Some(3), Some("true")));
        assert_eq!(of("peer-refused").field("peer"), Some("0404040404"));
        assert_eq!(of("peer-refused").field("reason"), Some("group-proof"));
        assert_eq!(of("refused-by-peer").field("reason"), Some("parameters"));
        assert_eq!(of("refused").field("reason"), Some("wrong-round"));
        assert_eq!(of("refused").field("from"), Some("0303030303"));
        assert_eq!((of("round-opened").round(), of("round-opened").number("index")), (Some(7), Some(40)));
        assert_eq!(of("partial-applied").field("server"), Some("0202020202"));
        assert_eq!(
            (of("partial-made").round(), of("partial-made").number("participants")),
            (Some(7), Some(3))
        );
        assert_eq!((of("published").number("request"), of("published").round()), (Some(1), Some(7)));
        assert!(of("published").message.contains("message landed"));
        assert_eq!(of("unlinked").field("reason"), Some("departing"));
        assert_eq!(of("server-retired").field("server"), Some("0202020202"));
        assert_eq!(of("log-started").field("log"), Some("0101010101"));
        assert!(of("log-yielded").message.contains("yields to log=0101010101"));
        for event in [
            "sealed",
            "round-live",
            "round-applied",
            "round-abandoned",
            "header-untrusted",
            "header-declined",
        ] {
            assert_eq!(of(event).round(), Some(7), "{event}");
        }
    }
}
