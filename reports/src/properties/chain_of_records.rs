//! Every record names the digest of the record before it.

use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::id::{Digest, LogId, Round};
use zipnet_core::time::Time;
use zipnet_facts::{Fact, RoundEnd};

use super::{Property, Seen, Subject};

/// So a reader who trusts one record cannot be shown another past.
///
/// A record that names another one than the newest that is known can be a broken chain, or there is a record between them
/// that nobody told of. It is taken for broken where the latter cannot be: as long as everything is told; where the
/// process that tells of it has told of the one before; and where the record that it names is known to be an older one.
#[derive(Debug, Default)]
pub struct ChainOfRecords {
    /// By log: the digest of each record that was told of.
    known: BTreeMap<LogId, BTreeMap<Round, Digest>>,
    /// By node: the log and, if its process has told of one and nothing is missing since, the round of its last record.
    told: BTreeMap<usize, (LogId, Round)>,
    /// Nodes whose processes were started by whoever watches.
    started: BTreeSet<usize>,
    /// Something was not told: it was lost, or the process was there before the watch.
    missing: bool,
    /// Some record had a record before it that is known, or none because it is the first.
    judged: bool,
}

impl ChainOfRecords {
    fn judge(&mut self, subject: &Subject, end: &RoundEnd) -> Result<(), String> {
        let told = self.told.insert(subject.node, (end.log, end.round));
        let known = self.known.entry(end.log).or_default();
        let (last, before) =
            known.last_key_value().map(|(round, digest)| (*round, *digest)).unwrap_or_default();
        // Whoever applies a record first has applied all before it; the others are compared by `agreement`.
        if end.round <= last {
            known.entry(end.round).or_insert(end.record);
            return Ok(());
        }
        let follows = told.is_some_and(|(log, round)| log == end.log && round < end.round);
        let is_other = known.values().any(|digest| *digest == end.previous)
            || end.previous == Digest::default()
            || end.round == Round(1);
        known.insert(end.round, end.record);
        if end.previous == before {
            self.judged = true;
            return Ok(());
        }
        if self.missing && !follows && !is_other {
            return Ok(());
        }
        Err(format!(
            "{} finished {} after a record {}, the one of {last} is {}",
            subject.name,
            end.round,
            end.previous.short(),
            before.short()
        ))
    }
}

impl Property for ChainOfRecords {
    fn name(&self) -> &'static str {
        "chain"
    }

    fn sentence(&self) -> &'static str {
        "Every record names the digest of the record before it."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        if let Seen::Started(_) = seen {
            self.started.insert(subject.node);
        }
        // What a liar has told is no record before another one.
        if seen.begins() || subject.liar {
            self.told.remove(&subject.node);
        }
        match seen.fact() {
            Some(Fact::LinesLost { .. }) => {
                self.told.remove(&subject.node);
                self.missing = true;
            }
            // What these stand for is not told one by one.
            Some(Fact::Restored { .. } | Fact::SnapshotInstalled { .. } | Fact::LogYielded { .. }) => {
                self.told.remove(&subject.node);
            }
            Some(Fact::LogStarted { log }) if !subject.liar => {
                self.told.insert(subject.node, (*log, Round::default()));
            }
            // A round may be finished before any server takes part again, so that all of them only read of it.
            Some(Fact::RoundFinalized { end } | Fact::RoundApplied { end }) if !subject.liar => {
                self.missing |= !self.started.contains(&subject.node);
                return self.judge(subject, end);
            }
            _ => {}
        }
        Ok(())
    }

    fn cannot_tell(&self) -> Option<&'static str> {
        (!self.judged).then_some("no record was told of with the one before it")
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, again, lines_lost, log_started, record, started};
    use super::*;

    /// Of processes that were all started by whoever watches.
    fn judge() -> Judge<ChainOfRecords> {
        let mut judge = Judge::new(ChainOfRecords::default());
        for name in ["server-1", "server-2"] {
            judge.see(name, started()).expect("a start");
        }
        judge
    }

    #[test]
    fn a_chain_holds() {
        let mut judge = judge();
        let first = record(1, Digest::default());
        judge.fact("server-1", first.finalized()).expect("the first");
        judge.fact("server-2", record(4, first.0.digest()).finalized()).expect("the next");
        judge.fact("server-2", first.finalized()).expect("an old one, late");
    }

    #[test]
    fn a_round_that_is_only_read_of_is_a_link() {
        // All servers were started again after its last entry was written and before it was applied.
        let mut judge = judge();
        let first = record(1, Digest::default());
        judge.fact("server-1", again(first.finalized())).expect("nobody has seen it happen");
        judge.fact("server-2", record(2, first.0.digest()).finalized()).expect("the next");
        judge.fact("server-1", again(record(3, Digest([1; 32])).finalized())).expect_err("another past");
    }

    #[test]
    fn a_broken_chain_is_a_violation() {
        let mut judge = judge();
        judge.fact("server-1", record(1, Digest::default()).finalized()).expect("the first");
        judge.fact("server-1", record(2, Digest::default()).finalized()).expect_err("it forgets the first");
    }

    #[test]
    fn a_first_record_has_nothing_before_it() {
        for round in [1, 2] {
            judge()
                .fact("server-1", record(round, Digest([1; 32])).finalized())
                .expect_err("there was none before");
        }
    }

    #[test]
    fn a_record_that_nobody_told_of_is_no_broken_chain() {
        // A journal that begins late.
        let mut late = Judge::new(ChainOfRecords::default());
        late.fact("server-1", record(7, Digest([1; 32])).finalized()).expect("the sixth is not known");
        // Lines that were lost, with a record in them.
        let mut gap = judge();
        gap.fact("server-1", record(1, Digest::default()).finalized()).expect("the first");
        gap.fact("server-1", lines_lost()).expect("a gap");
        gap.fact("server-1", record(3, Digest([1; 32])).finalized()).expect("the second is not known");
        // A liar's record is not believed.
        let mut liar = judge();
        liar.fact("server-1", record(1, Digest::default()).finalized()).expect("the first");
        liar.lie("server-1", record(2, Digest([1; 32])).finalized()).expect("a lie");
        liar.fact("server-2", lines_lost()).expect("a gap");
        liar.fact("server-1", record(3, Digest([2; 32])).finalized()).expect("the second is not known");
        // A snapshot covers records of which another server may have lost the lines.
        let mut snapshot = judge();
        let first = record(1, Digest::default());
        for name in ["server-1", "server-2"] {
            snapshot.fact(name, first.finalized()).expect("the first");
        }
        snapshot.fact("server-2", lines_lost()).expect("a gap");
        snapshot.fact("server-1", Fact::SnapshotInstalled { index: 9 }).expect("a snapshot");
        snapshot.fact("server-1", record(3, Digest([1; 32])).finalized()).expect("the second is not known");
    }

    #[test]
    fn a_chain_that_is_broken_behind_a_gap_is_a_violation() {
        // The process has told of the one before.
        let mut follows = Judge::new(ChainOfRecords::default());
        follows.fact("server-1", record(7, Digest([1; 32])).finalized()).expect("the sixth is not known");
        follows.fact("server-1", record(8, Digest([1; 32])).finalized()).expect_err("it forgets the seventh");
        // It has told of how the log began.
        let mut begins = Judge::new(ChainOfRecords::default());
        begins.fact("server-1", log_started(1)).expect("a log");
        begins.fact("server-1", record(2, Digest([1; 32])).finalized()).expect_err("there was none before");
        // What it names is older than the newest.
        let mut older = judge();
        let first = record(1, Digest::default());
        let second = record(2, first.0.digest());
        older.fact("server-1", first.finalized()).expect("the first");
        older.fact("server-1", second.finalized()).expect("the second");
        older.fact("server-2", lines_lost()).expect("a gap");
        older.fact("server-2", record(3, first.0.digest()).finalized()).expect_err("it forgets the second");
    }

    #[test]
    fn without_a_record_and_the_one_before_it_nothing_is_said() {
        let mut judge = Judge::new(ChainOfRecords::default());
        assert!(judge.cannot_tell().is_some());
        let seventh = record(7, Digest([1; 32]));
        judge.fact("server-1", seventh.finalized()).expect("the sixth is not known");
        assert_eq!(judge.cannot_tell(), Some("no record was told of with the one before it"));
        judge.fact("server-1", record(8, seventh.0.digest()).finalized()).expect("the next");
        assert_eq!(judge.cannot_tell(), None);
    }
}
