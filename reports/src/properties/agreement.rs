//! No two nodes ever disagree about the output of a finished round.

use std::collections::BTreeMap;

use zipnet_core::id::{Digest, LogId, Round};
use zipnet_core::time::Time;
use zipnet_facts::Fact;

use super::{Property, Seen, Subject};

/// One record per (log, round), on every server and every client, for ever.
#[derive(Debug, Default)]
pub struct Agreement {
    /// The first record that was told of, and at which node.
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
        let (log, round, record) = match seen.fact() {
            Some(Fact::RoundFinalized { end } | Fact::RoundApplied { end }) => {
                (end.log, end.round, end.record)
            }
            Some(Fact::RecordSeen { log, round, record, .. }) => (*log, *round, *record),
            _ => return Ok(()),
        };
        if subject.liar {
            return Ok(());
        }
        let first = self.outputs.entry((log, round)).or_insert_with(|| (record, subject.name.clone()));
        if first.0 == record {
            return Ok(());
        }
        Err(format!(
            "{} has record {} of {round}, {} has {}",
            subject.name,
            record.short(),
            first.1,
            first.0.short()
        ))
    }

    fn cannot_tell(&self) -> Option<&'static str> {
        self.outputs.is_empty().then_some("no record was told of")
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, again, record};
    use super::*;

    #[test]
    fn equal_records_agree() {
        let mut judge = Judge::new(Agreement::default());
        let record = record(1, Digest::default());
        judge.fact("server-1", record.finalized()).expect("the first output");
        judge.fact("server-2", record.applied()).expect("the same output");
        judge.fact("client-1", record.seen()).expect("the same output");
    }

    #[test]
    fn whoever_only_reads_agrees_as_well() {
        let mut judge = Judge::new(Agreement::default());
        let mut other = record(1, Digest::default());
        judge.fact("server-1", again(other.finalized())).expect("the first output");
        other.0.broadcast[0] ^= 1;
        judge.fact("server-2", again(other.finalized())).expect_err("another output");
    }

    #[test]
    fn a_different_record_is_a_violation() {
        let mut judge = Judge::new(Agreement::default());
        judge.fact("server-1", record(1, Digest::default()).finalized()).expect("the first output");
        let mut other = record(1, Digest::default());
        other.0.broadcast[0] ^= 1;
        judge.fact("client-1", other.seen()).expect_err("another output");
    }

    #[test]
    fn without_a_record_nothing_is_said() {
        let mut judge = Judge::new(Agreement::default());
        assert_eq!(judge.cannot_tell(), Some("no record was told of"));
        judge.fact("client-1", record(1, Digest::default()).seen()).expect("the first output");
        assert_eq!(judge.cannot_tell(), None);
    }
}
