//! A finished round has the signature and the partial of every server of its roster.

use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::id::Digest;
use zipnet_core::machine::Report;
use zipnet_core::time::Time;
use zipnet_node::consensus;
use zipnet_node::event::Event;

use super::{Property, Seen, Subject};
use crate::chain::NodeIndex;

/// As long as one server of the roster is honest, nobody can unblind without it: so nobody may, and a partial that was
/// made for something else does not count.
#[derive(Debug, Default)]
pub struct CompleteRoster {
    /// By server: the header and the aggregate of its open round.
    open: BTreeMap<NodeIndex, (Digest, Option<Digest>)>,
}

impl CompleteRoster {
    fn see_partial(&self, subject: &Subject, header: &Digest, aggregate: &Digest) -> Result<(), String> {
        // A server that learnt of the round from a snapshot has not reported its opening.
        let Some((open, applied)) = self.open.get(&subject.index) else { return Ok(()) };
        if open == header && applied.is_none_or(|applied| applied == *aggregate) {
            return Ok(());
        }
        Err(format!("{} counted a partial that was made for another header or aggregate", subject.name))
    }
}

impl Property for CompleteRoster {
    fn name(&self) -> &'static str {
        "complete-roster"
    }

    fn sentence(&self) -> &'static str {
        "A finished round has the signature and the partial of every server of its roster."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        let report = match seen {
            Seen::Event(Event::Core(report) | Event::Past(report)) => report,
            Seen::Event(Event::Consensus(consensus::Event::SnapshotInstalled { .. })) | Seen::Started => {
                self.open.remove(&subject.index);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let (record, signed, partials) = match report {
            Report::RoundOpened { digest, .. } => {
                self.open.insert(subject.index, (*digest, None));
                return Ok(());
            }
            Report::AggregateApplied { aggregate, .. } => {
                if let Some((_, applied)) = self.open.get_mut(&subject.index) {
                    applied.get_or_insert(*aggregate);
                }
                return Ok(());
            }
            Report::PartialApplied { header, aggregate, .. } if !subject.liar => {
                return self.see_partial(subject, header, aggregate);
            }
            Report::RoundFinalized { record, signed, partials, .. } => (record, signed, partials),
            _ => return Ok(()),
        };
        let roster: BTreeSet<_> = record.servers.iter().collect();
        for (what, have) in [("signatures", signed), ("partials", partials)] {
            let have: BTreeSet<_> = have.iter().collect();
            if have != roster && !subject.liar {
                return Err(format!(
                    "{} finished {} with {} of {} {what}",
                    subject.name,
                    record.round,
                    have.len(),
                    roster.len()
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::id::Digest;

    use super::super::sample::{Judge, header_digest, opened, partial, record};
    use super::*;

    #[test]
    fn a_complete_roster_holds() {
        let mut judge = Judge::new(CompleteRoster::default());
        judge.core("server-1", record(1, Digest::default()).finalized()).expect("all are there");
    }

    #[test]
    fn a_missing_partial_is_a_violation() {
        let mut judge = Judge::new(CompleteRoster::default());
        let mut report = record(1, Digest::default()).finalized();
        if let Report::RoundFinalized { partials, .. } = &mut report {
            partials.pop();
        }
        judge.core("server-1", report).expect_err("one partial is missing");
    }

    #[test]
    fn a_missing_signature_is_a_violation() {
        let mut judge = Judge::new(CompleteRoster::default());
        let mut report = record(1, Digest::default()).finalized();
        if let Report::RoundFinalized { signed, .. } = &mut report {
            signed.pop();
        }
        judge.core("server-1", report).expect_err("one signature is missing");
    }

    #[test]
    fn a_partial_of_a_round_whose_opening_is_not_known_is_not_judged() {
        let mut judge = Judge::new(CompleteRoster::default());
        judge
            .core("server-1", partial(1, header_digest(1, 1), 7))
            .expect("a snapshot may have told of the round");
        judge.see("server-1", Seen::Started).expect("a start");
        judge.core("server-1", partial(2, header_digest(2, 1), 7)).expect("nor is this one known");
    }

    #[test]
    fn a_partial_of_the_open_round_counts() {
        let mut judge = Judge::new(CompleteRoster::default());
        judge.core("server-1", opened(1, 1)).expect("a round");
        judge.core("server-1", partial(1, header_digest(1, 1), 7)).expect("its partial");
    }

    #[test]
    fn a_partial_of_another_round_is_a_violation() {
        let mut judge = Judge::new(CompleteRoster::default());
        judge.core("server-1", opened(2, 1)).expect("a round");
        judge.core("server-1", partial(1, header_digest(1, 1), 7)).expect_err("the partial of the last one");
    }
}
