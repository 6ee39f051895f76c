//! Every record names the digest of the record before it.

use std::collections::BTreeMap;

use zipnet_core::id::{Digest, LogId, Round};
use zipnet_core::machine::Report;
use zipnet_core::time::Time;
use zipnet_node::event::Event;

use super::{Property, Seen, Subject};

/// So a reader who trusts one record cannot be shown another past.
#[derive(Debug, Default)]
pub struct ChainOfRecords {
    /// By log: the round and digest of its newest record.
    newest: BTreeMap<LogId, (Round, Digest)>,
}

impl Property for ChainOfRecords {
    fn name(&self) -> &'static str {
        "chain"
    }

    fn sentence(&self) -> &'static str {
        "Every record names the digest of the record before it."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        // A round may be finished before any server takes part again, so that all of them only read of it.
        let Seen::Event(Event::Core(report) | Event::Past(report)) = seen else { return Ok(()) };
        let Report::RoundFinalized { record, digest, .. } = report else { return Ok(()) };
        let newest = self.newest.entry(record.log).or_default();
        // Whoever applies a record first has applied all before it; the others are compared by `agreement`.
        if record.round <= newest.0 || subject.liar {
            return Ok(());
        }
        if record.previous != newest.1 {
            return Err(format!(
                "{} finished {} after a record {}, the one of {} is {}",
                subject.name,
                record.round,
                record.previous.short(),
                newest.0,
                newest.1.short()
            ));
        }
        *newest = (record.round, *digest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, record};
    use super::*;

    #[test]
    fn a_chain_holds() {
        let mut judge = Judge::new(ChainOfRecords::default());
        let first = record(1, Digest::default());
        judge.core("server-1", first.finalized()).expect("the first");
        judge.core("server-2", record(4, first.0.digest()).finalized()).expect("the next");
        judge.core("server-2", first.finalized()).expect("an old one, late");
    }

    #[test]
    fn a_round_that_is_only_read_of_is_a_link() {
        // All servers were started again after its last entry was written and before it was applied.
        let mut judge = Judge::new(ChainOfRecords::default());
        let first = record(1, Digest::default());
        judge.event("server-1", &Event::Past(first.finalized())).expect("nobody has seen it happen");
        judge.core("server-2", record(2, first.0.digest()).finalized()).expect("the next");
        judge
            .event("server-1", &Event::Past(record(3, Digest([1; 32])).finalized()))
            .expect_err("another past");
    }

    #[test]
    fn a_broken_chain_is_a_violation() {
        let mut judge = Judge::new(ChainOfRecords::default());
        judge.core("server-1", record(1, Digest::default()).finalized()).expect("the first");
        judge.core("server-1", record(2, Digest::default()).finalized()).expect_err("it forgets the first");
    }

    #[test]
    fn a_first_record_has_nothing_before_it() {
        let mut judge = Judge::new(ChainOfRecords::default());
        judge.core("server-1", record(1, Digest([1; 32])).finalized()).expect_err("there was none before");
    }
}
