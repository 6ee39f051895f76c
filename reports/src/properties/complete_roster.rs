//! A finished round has the signature and the partial of every server of its roster.

use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::id::{Digest, PeerId};
use zipnet_core::time::Time;
use zipnet_facts::{Fact, RoundEnd};

use super::{Property, Seen, Subject};

/// As long as one server of the roster is honest, nobody can unblind without it: so nobody may, and a partial that was
/// made for something else does not count.
#[derive(Debug, Default)]
pub struct CompleteRoster {
    /// By server: its open round.
    open: BTreeMap<usize, Open>,
    /// A record was told of.
    told: bool,
}

/// What a server has told of a round since it was opened.
#[derive(Debug)]
struct Open {
    header: Digest,
    aggregate: Option<Digest>,
    partials: BTreeSet<PeerId>,
}

impl CompleteRoster {
    fn see_partial(
        &mut self,
        subject: &Subject,
        header: &Digest,
        aggregate: &Digest,
        server: &PeerId,
    ) -> Result<(), String> {
        // A server that learnt of the round from a snapshot has not told of its opening.
        let Some(open) = self.open.get_mut(&subject.node) else { return Ok(()) };
        open.partials.insert(*server);
        let counts = open.header == *header && open.aggregate.is_none_or(|applied| applied == *aggregate);
        if counts || subject.liar {
            return Ok(());
        }
        Err(format!("{} counted a partial that was made for another header or aggregate", subject.name))
    }

    fn see_end(&mut self, subject: &Subject, end: &RoundEnd) -> Result<(), String> {
        self.told = true;
        let roster: BTreeSet<_> = end.servers.iter().collect();
        for (what, have) in [("signatures", &end.signed), ("partials", &end.partials)] {
            let have: BTreeSet<_> = have.iter().collect();
            if have != roster {
                return Err(format!(
                    "{} finished {} with {} of {} {what}",
                    subject.name,
                    end.round,
                    have.len(),
                    roster.len()
                ));
            }
        }
        let open = self.open.get(&subject.node).filter(|open| open.header == end.header);
        match open.and_then(|open| end.servers.iter().find(|server| !open.partials.contains(server))) {
            Some(missing) => Err(format!(
                "{} finished {}, and did not tell of the partial of {}",
                subject.name,
                end.round,
                missing.short()
            )),
            None => Ok(()),
        }
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
        if seen.begins() || seen.is_gap() {
            self.open.remove(&subject.node);
        }
        match seen.fact() {
            Some(Fact::SnapshotInstalled { .. }) => {
                self.open.remove(&subject.node);
            }
            Some(Fact::RoundOpened { header, .. }) => {
                let open = Open { header: *header, aggregate: None, partials: BTreeSet::new() };
                self.open.insert(subject.node, open);
            }
            Some(Fact::AggregateApplied { aggregate, .. }) => {
                if let Some(open) = self.open.get_mut(&subject.node) {
                    open.aggregate.get_or_insert(*aggregate);
                }
            }
            Some(Fact::PartialApplied { header, aggregate, server, .. }) => {
                return self.see_partial(subject, header, aggregate, server);
            }
            Some(Fact::RoundFinalized { end } | Fact::RoundApplied { end }) if !subject.liar => {
                return self.see_end(subject, end);
            }
            _ => {}
        }
        Ok(())
    }

    fn cannot_tell(&self) -> Option<&'static str> {
        (!self.told).then_some("no record was told of")
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{
        Judge, header_digest, lines_lost, opened, partial, partial_of, record, started,
    };
    use super::*;

    fn finished(change: impl FnOnce(&mut RoundEnd)) -> Fact {
        let mut end = record(1, Digest::default()).end();
        change(&mut end);
        Fact::RoundFinalized { end }
    }

    #[test]
    fn a_complete_roster_holds() {
        let mut judge = Judge::new(CompleteRoster::default());
        judge.fact("server-1", finished(|_| ())).expect("all are there");
    }

    #[test]
    fn a_missing_partial_is_a_violation() {
        let mut judge = Judge::new(CompleteRoster::default());
        let fact = finished(|end| end.partials.truncate(1));
        judge.fact("server-1", fact).expect_err("one partial is missing");
    }

    #[test]
    fn a_missing_signature_is_a_violation() {
        let mut judge = Judge::new(CompleteRoster::default());
        let fact = finished(|end| end.signed.truncate(1));
        judge.fact("server-1", fact).expect_err("one signature is missing");
    }

    #[test]
    fn a_partial_of_a_round_whose_opening_is_not_known_is_not_judged() {
        let mut judge = Judge::new(CompleteRoster::default());
        judge
            .fact("server-1", partial(1, header_digest(1, 1), 7))
            .expect("a snapshot may have told of the round");
        judge.see("server-1", started()).expect("a start");
        judge.fact("server-1", partial(2, header_digest(2, 1), 7)).expect("nor is this one known");
    }

    #[test]
    fn a_partial_of_the_open_round_counts() {
        let mut judge = Judge::new(CompleteRoster::default());
        judge.fact("server-1", opened(1, 1)).expect("a round");
        judge.fact("server-1", partial(1, header_digest(1, 1), 7)).expect("its partial");
    }

    #[test]
    fn a_partial_of_another_round_is_a_violation() {
        let mut judge = Judge::new(CompleteRoster::default());
        judge.fact("server-1", opened(2, 1)).expect("a round");
        judge.fact("server-1", partial(1, header_digest(1, 1), 7)).expect_err("the partial of the last one");
    }

    #[test]
    fn a_round_that_a_server_followed_ends_with_every_partial_that_it_told_of() {
        for (partials, lost, holds) in [(2, false, true), (1, false, false), (1, true, true)] {
            let mut judge = Judge::new(CompleteRoster::default());
            judge.fact("server-1", opened(1, 1)).expect("a round");
            for server in ["server-1", "server-2"].into_iter().take(partials) {
                judge.fact("server-1", partial_of(1, header_digest(1, 1), 7, server)).expect("a partial");
            }
            if lost {
                judge.fact("server-1", lines_lost()).expect("a gap");
            }
            assert_eq!(judge.fact("server-1", finished(|_| ())).is_ok(), holds, "{partials} {lost}");
        }
    }

    #[test]
    fn what_a_liar_told_counts_once_it_lies_no_more() {
        let mut judge = Judge::new(CompleteRoster::default());
        judge.fact("server-1", opened(1, 1)).expect("a round");
        for server in ["server-1", "server-2"] {
            judge.lie("server-1", partial_of(1, header_digest(1, 1), 7, server)).expect("a partial");
        }
        judge.lie("server-1", partial(9, header_digest(9, 1), 7)).expect("what a liar says proves nothing");
        judge.fact("server-1", finished(|_| ())).expect("both partials are there");
    }

    #[test]
    fn without_a_record_nothing_is_said() {
        let mut judge = Judge::new(CompleteRoster::default());
        judge.fact("server-1", opened(1, 1)).expect("a round");
        assert_eq!(judge.cannot_tell(), Some("no record was told of"));
        judge.fact("server-2", finished(|_| ())).expect("all are there");
        assert_eq!(judge.cannot_tell(), None);
    }
}
