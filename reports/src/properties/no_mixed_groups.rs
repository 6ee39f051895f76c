//! No record is made of contributions of two groups or logs.

use std::collections::BTreeMap;

use zipnet_core::id::{GroupId, LogId, PeerId};
use zipnet_core::time::Time;
use zipnet_facts::{Fact, RoundEnd};

use super::{Property, Seen, Start, Subject};

/// Everybody whose signature or partial a round has was started in the group of whoever finishes it, and replicates its
/// log, as far as it said.
///
/// Judged by those who had their part in the round: of a past one it is not known who was in which group then.
#[derive(Debug, Default)]
pub struct NoMixedGroups {
    members: BTreeMap<PeerId, Member>,
    /// A record of somebody was judged whose group is known.
    judged: bool,
}

/// What is known of one server.
#[derive(Clone, Copy, Debug, Default)]
struct Member {
    /// Of its latest process.
    group: Option<GroupId>,
    /// The log that it replicates, as far as it said.
    log: Option<LogId>,
}

impl NoMixedGroups {
    fn judge(&mut self, subject: &Subject, end: &RoundEnd) -> Result<(), String> {
        let Some(group) = self.members.get(&subject.peer).and_then(|member| member.group) else {
            return Ok(());
        };
        self.judged = true;
        let belongs = |peer: &PeerId| {
            self.members.get(peer).is_some_and(|member| {
                member.group == Some(group) && member.log.is_none_or(|log| log == end.log)
            })
        };
        match end.signed.iter().chain(&end.partials).find(|peer| !belongs(peer)) {
            Some(stranger) => Err(format!(
                "{} holds a contribution of {}, which is in another group or log than {}",
                end.round,
                stranger.short(),
                subject.name
            )),
            None => Ok(()),
        }
    }
}

impl Property for NoMixedGroups {
    fn name(&self) -> &'static str {
        "no-mixed-groups"
    }

    fn sentence(&self) -> &'static str {
        "No record is made of contributions of two groups or logs."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        let mut learn = |log| self.members.entry(subject.peer).or_default().log = log;
        match seen {
            Seen::Started(Start { group }) => {
                let member = self.members.entry(subject.peer).or_default();
                if member.group != group {
                    *member = Member { group, log: None };
                }
            }
            Seen::DiskLost => learn(None),
            Seen::Fact(Fact::RoundFinalized { end } | Fact::RoundApplied { end }) if !subject.liar => {
                return self.judge(subject, end);
            }
            _ => match seen.fact() {
                Some(Fact::LinesLost { .. }) => learn(None),
                Some(Fact::LogStarted { log } | Fact::RoundOpened { log, .. }) => learn(Some(*log)),
                Some(Fact::LogYielded { other, .. }) => learn(Some(*other)),
                _ => {}
            },
        }
        Ok(())
    }

    fn cannot_tell(&self) -> Option<&'static str> {
        if self.judged {
            None
        } else if self.members.values().any(|member| member.group.is_some()) {
            Some("no record was told of")
        } else {
            Some("nobody said which server was started in which group")
        }
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::id::Digest;

    use super::super::sample::{Judge, again, lines_lost, log_started, record, started, started_in};
    use super::*;

    /// Two servers, which are those of the record, and one that has nothing to do with it.
    fn judge(groups: [u8; 2]) -> Judge<NoMixedGroups> {
        let mut judge = Judge::new(NoMixedGroups::default());
        for (name, group) in ["server-1", "server-2"].into_iter().zip(groups) {
            judge.see(name, started_in(group)).expect("a start");
        }
        judge
    }

    fn finished() -> Fact {
        record(1, Digest::default()).finalized()
    }

    #[test]
    fn contributions_of_one_group_hold() {
        judge([1, 1]).fact("server-1", finished()).expect("both are in it");
    }

    #[test]
    fn a_contribution_of_another_group_is_a_violation() {
        judge([1, 2]).fact("server-1", finished()).expect_err("the second is in another one");
    }

    #[test]
    fn a_contribution_of_nobody_is_a_violation() {
        let mut judge = Judge::new(NoMixedGroups::default());
        judge.see("server-1", started()).expect("a start");
        judge.fact("server-1", finished()).expect_err("the second was never started");
    }

    #[test]
    fn a_contribution_from_another_log_is_a_violation() {
        for (log, lost, holds) in [(1, false, true), (2, false, false), (2, true, true)] {
            let mut judge = judge([1, 1]);
            judge.fact("server-2", log_started(log)).expect("its log");
            if lost {
                judge.fact("server-2", lines_lost()).expect("a gap, with another log in it");
            }
            assert_eq!(judge.fact("server-1", finished()).is_ok(), holds, "{log} {lost}");
        }
    }

    #[test]
    fn an_identity_that_was_replaced_is_still_known() {
        let mut judge = judge([1, 1]);
        judge.see("server-3", started_in(1)).expect("the machine of the second, with another identity");
        judge.fact("server-1", finished()).expect("both were in it");
    }

    #[test]
    fn a_past_round_is_not_judged() {
        judge([1, 2]).fact("server-1", again(finished())).expect("who was in it then?");
    }

    #[test]
    fn without_groups_and_records_nothing_is_said() {
        let mut judge = Judge::new(NoMixedGroups::default());
        judge.fact("server-1", finished()).expect("nobody knows the groups");
        assert_eq!(judge.cannot_tell(), Some("nobody said which server was started in which group"));
        for name in ["server-1", "server-2"] {
            judge.see(name, started()).expect("a start");
        }
        assert_eq!(judge.cannot_tell(), Some("no record was told of"));
        judge.fact("server-1", finished()).expect("both are in it");
        assert_eq!(judge.cannot_tell(), None);
    }
}
