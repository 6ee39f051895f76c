//! No two nodes ever disagree about the output of a finished round.

use std::collections::BTreeMap;

use zipnet_core::id::{Digest, LogId, Round};
use zipnet_core::machine::Report;
use zipnet_core::time::Time;
use zipnet_node::event::Event;

use super::{Property, Seen, Subject};

/// One record per (log, round), on every server and every client, for ever.
#[derive(Debug, Default)]
pub struct Agreement {
    /// The first record seen, and at which node.
    outputs: BTreeMap<(LogId, Round), (Digest, String)>,
}

impl Property for Agreement {
    fn name(&self) -> &'static str {
        "agreement"
    }

    fn sentence(&self) -> &'static str {
        "No two nodes ever disagree about the output of a finished round."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        let (Report::RoundFinalized { record, digest, .. } | Report::RecordSeen { record, digest, .. }) =
            (match seen {
                Seen::Event(Event::Core(report) | Event::Past(report)) if !subject.liar => report,
                _ => return Ok(()),
            })
        else {
            return Ok(());
        };
        let first =
            self.outputs.entry((record.log, record.round)).or_insert_with(|| (*digest, subject.name.clone()));
        if first.0 == *digest {
            return Ok(());
        }
        Err(format!(
            "{} has record {} of {}, {} has {}",
            subject.name,
            digest.short(),
            record.round,
            first.1,
            first.0.short()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, record};
    use super::*;

    #[test]
    fn equal_records_agree() {
        let mut judge = Judge::new(Agreement::default());
        let record = record(1, Digest::default());
        judge.core("server-1", record.finalized()).expect("the first output");
        judge.core("server-2", record.finalized()).expect("the same output");
        judge.core("client-1", record.seen()).expect("the same output");
    }

    #[test]
    fn whoever_only_reads_agrees_as_well() {
        let mut judge = Judge::new(Agreement::default());
        let mut other = record(1, Digest::default());
        judge.event("server-1", &Event::Past(other.finalized())).expect("the first output");
        other.0.broadcast[0] ^= 1;
        judge.event("server-2", &Event::Past(other.finalized())).expect_err("another output");
    }

    #[test]
    fn a_different_record_is_a_violation() {
        let mut judge = Judge::new(Agreement::default());
        judge.core("server-1", record(1, Digest::default()).finalized()).expect("the first output");
        let mut other = record(1, Digest::default());
        other.0.broadcast[0] ^= 1;
        judge.core("client-1", other.seen()).expect_err("another output");
    }
}
