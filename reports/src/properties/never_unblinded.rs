//! No aggregate of fewer participants is unblinded.

use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::id::{Digest, PeerId, Round};
use zipnet_core::time::Time;
use zipnet_facts::Fact;

use super::{Property, Seen, Subject};

/// An aggregate is unblinded as soon as every server of the roster has made its partial of it, whether or not a record
/// comes of that: whoever has them all can add them up. A finished round is unblinded in any case.
#[derive(Debug)]
pub struct NeverUnblinded {
    below: u32,
    /// By header.
    rosters: BTreeMap<Digest, Vec<PeerId>>,
    /// By header and aggregate: who has made a partial of it. Only of aggregates with too few participants.
    made: BTreeMap<(Digest, Digest), BTreeSet<PeerId>>,
    /// A partial or a record was told of.
    told: bool,
}

impl NeverUnblinded {
    /// No aggregate of fewer participants than this.
    #[must_use]
    pub const fn new(below: u32) -> Self {
        Self { below, rosters: BTreeMap::new(), made: BTreeMap::new(), told: false }
    }

    /// Whether there is an aggregate of too few participants under a header of which all have made a partial.
    fn judge(&self, header: &Digest, round: Round) -> Result<(), String> {
        let Some(roster) = self.rosters.get(header) else { return Ok(()) };
        let aggregates = self.made.range((*header, Digest([0; 32]))..=(*header, Digest([0xff; 32])));
        for ((_, aggregate), made) in aggregates {
            if roster.iter().all(|server| made.contains(server)) {
                return Err(format!(
                    "all {} servers of {round} made a partial of the aggregate {}, which has fewer than {} participants",
                    roster.len(),
                    aggregate.short(),
                    self.below
                ));
            }
        }
        Ok(())
    }
}

impl Property for NeverUnblinded {
    fn name(&self) -> &'static str {
        "never-unblinded"
    }

    fn sentence(&self) -> &'static str {
        "No aggregate of fewer participants is unblinded."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        match seen.fact() {
            Some(Fact::RoundOpened { header, round, servers, .. }) => {
                self.rosters.entry(*header).or_insert_with(|| servers.clone());
                self.judge(header, *round)
            }
            Some(Fact::PartialMade { header, aggregate, participants, round, .. }) => {
                self.told = true;
                if *participants >= self.below {
                    return Ok(());
                }
                self.made.entry((*header, *aggregate)).or_default().insert(subject.peer);
                self.judge(header, *round)
            }
            Some(Fact::RoundFinalized { end } | Fact::RoundApplied { end }) if !subject.liar => {
                self.told = true;
                if end.participants >= self.below {
                    return Ok(());
                }
                Err(format!("{} was unblinded with {} participants", end.round, end.participants))
            }
            _ => Ok(()),
        }
    }

    fn cannot_tell(&self) -> Option<&'static str> {
        (!self.told).then_some("no partial and no record was told of")
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, again, lines_lost, made, opened, record};
    use super::*;

    fn finished(participants: u32) -> Fact {
        let mut end = record(1, Digest::default()).end();
        end.participants = participants;
        Fact::RoundApplied { end }
    }

    #[test]
    fn a_record_of_as_many_as_wanted_holds() {
        Judge::new(NeverUnblinded::new(2)).fact("server-1", finished(2)).expect("two are enough");
    }

    #[test]
    fn a_record_of_fewer_is_a_violation() {
        Judge::new(NeverUnblinded::new(2)).fact("server-1", finished(1)).expect_err("one is not enough");
        Judge::new(NeverUnblinded::new(2))
            .fact("server-1", again(finished(1)))
            .expect_err("nor was it before");
    }

    #[test]
    fn partials_of_all_are_a_violation_before_there_is_a_record() {
        for first in [true, false] {
            let mut judge = Judge::new(NeverUnblinded::new(2));
            if first {
                judge.fact("server-1", opened(1, 1)).expect("a round");
            }
            judge.fact("server-1", made(1, 7, 1, 1)).expect("the other partial is missing");
            judge.fact("server-1", lines_lost()).expect("a gap makes nothing unknown");
            let last = judge.fact("server-2", made(1, 7, 1, 1));
            if first {
                last.expect_err("all are there");
            } else {
                last.expect("of which roster?");
                judge.fact("server-2", opened(1, 1)).expect_err("of this one");
            }
        }
    }

    #[test]
    fn partials_of_other_aggregates_and_of_enough_hold() {
        let mut judge = Judge::new(NeverUnblinded::new(2));
        judge.fact("server-1", opened(1, 1)).expect("a round");
        judge.fact("server-1", made(1, 7, 1, 1)).expect("one aggregate");
        judge.fact("server-2", made(1, 8, 1, 1)).expect("another one");
        for server in ["server-1", "server-2"] {
            judge.fact(server, made(1, 9, 2, 1)).expect("two are enough");
        }
    }

    #[test]
    fn without_a_partial_and_a_record_nothing_is_said() {
        for fact in [made(1, 7, 2, 2), finished(2)] {
            let mut judge = Judge::new(NeverUnblinded::new(2));
            judge.fact("server-1", opened(1, 1)).expect("a round");
            assert_eq!(judge.cannot_tell(), Some("no partial and no record was told of"));
            judge.fact("server-1", fact).expect("two are enough");
            assert_eq!(judge.cannot_tell(), None);
        }
    }
}
