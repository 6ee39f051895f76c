//! One leader per term, one vote per server and term, one command per index.

use std::collections::BTreeMap;

use zipnet_core::id::{Digest, LogId, PeerId, RaftId, StoreId};
use zipnet_core::time::Time;
use zipnet_facts::Fact;

use super::{Property, Seen, Subject};

/// Terms and indexes belong to a log. A server learns the name of its log from the log, so what it said before that is
/// judged as soon as the name is known.
#[derive(Debug, Default)]
pub struct OneLeader {
    leaders: BTreeMap<(LogId, u64), RaftId>,
    commands: BTreeMap<(LogId, u64), (u64, Digest)>,
    votes: BTreeMap<(PeerId, StoreId, u64), RaftId>,
    servers: BTreeMap<PeerId, Server>,
    /// A leader was told of.
    told: bool,
}

/// What is known of one server.
#[derive(Debug, Default)]
struct Server {
    /// None until it has opened its disk.
    store: Option<StoreId>,
    log: Option<LogId>,
    waiting: Vec<Claim>,
}

/// What a server says about its log.
#[derive(Clone, Copy, Debug)]
enum Claim {
    Leads { term: u64, leader: RaftId },
    Applied { index: u64, term: u64, digest: Digest },
}

impl OneLeader {
    fn judge(&mut self, log: LogId, claim: Claim, name: &str) -> Result<(), String> {
        match claim {
            Claim::Leads { term, leader } => {
                let first = self.leaders.entry((log, term)).or_insert(leader);
                if *first != leader {
                    return Err(format!("{name} saw {leader} lead term {term}, which {first} leads"));
                }
            }
            Claim::Applied { index, term, digest } => {
                let first = self.commands.entry((log, index)).or_insert((term, digest));
                if *first != (term, digest) {
                    return Err(format!(
                        "{name} applied another command at index {index}: term {term} {}, elsewhere term {} {}",
                        digest.short(),
                        first.0,
                        first.1.short()
                    ));
                }
            }
        }
        Ok(())
    }

    fn claim(&mut self, subject: &Subject, claim: Claim) -> Result<(), String> {
        let server = self.servers.entry(subject.peer).or_default();
        match server.log {
            Some(log) => self.judge(log, claim, &subject.name),
            None => {
                server.waiting.push(claim);
                Ok(())
            }
        }
    }

    fn named(&mut self, subject: &Subject, log: LogId) -> Result<(), String> {
        let server = self.servers.entry(subject.peer).or_default();
        server.log = Some(log);
        let waiting = std::mem::take(&mut server.waiting);
        waiting.into_iter().try_for_each(|claim| self.judge(log, claim, &subject.name))
    }

    fn voted(&mut self, subject: &Subject, term: u64, candidate: RaftId) -> Result<(), String> {
        // A vote is that of a disk: one that is not known is nobody's.
        let Some(store) = self.servers.entry(subject.peer).or_default().store else { return Ok(()) };
        let first = self.votes.entry((subject.peer, store, term)).or_insert(candidate);
        if *first == candidate {
            return Ok(());
        }
        Err(format!("{} voted for {candidate} in term {term}, after {first}", subject.name))
    }
}

impl Property for OneLeader {
    fn name(&self) -> &'static str {
        "one-leader"
    }

    fn sentence(&self) -> &'static str {
        "One leader per term, one vote per server and term, one command per index."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        if let Seen::DiskLost = seen {
            self.servers.remove(&subject.peer);
            self.votes.retain(|(peer, ..), _| *peer != subject.peer);
        }
        match seen.fact() {
            Some(Fact::Opened { store, .. }) => {
                let server = self.servers.entry(subject.peer).or_default();
                if server.store != Some(*store) {
                    *server = Server { store: Some(*store), ..Server::default() };
                }
                Ok(())
            }
            Some(Fact::Leader { leader: Some(peer), store: Some(store), term, .. }) => {
                self.told = true;
                let leader = RaftId { peer: *peer, store: *store };
                self.claim(subject, Claim::Leads { term: *term, leader })
            }
            Some(Fact::EntryApplied { index, term, digest }) => {
                self.claim(subject, Claim::Applied { index: *index, term: *term, digest: *digest })
            }
            Some(Fact::VoteSynced { term, candidate, store }) => {
                self.voted(subject, *term, RaftId { peer: *candidate, store: *store })
            }
            Some(Fact::LogStarted { log } | Fact::RoundOpened { log, .. }) => self.named(subject, *log),
            // What it said before was of its own log; of which one it speaks from here on shows with its new disk.
            Some(Fact::LogYielded { own, .. }) => {
                let judged = self.named(subject, *own);
                self.servers.remove(&subject.peer);
                judged
            }
            // Its log and its disk may be others.
            Some(Fact::LinesLost { .. }) => {
                self.servers.remove(&subject.peer);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn cannot_tell(&self) -> Option<&'static str> {
        (!self.told).then_some("nobody said who leads")
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, again, lines_lost, log_started, peer};
    use super::*;

    fn id(name: &str) -> RaftId {
        RaftId { peer: peer(name), store: StoreId(1) }
    }

    fn leads(term: u64, name: &str) -> Fact {
        let RaftId { peer, store } = id(name);
        Fact::Leader { leader: Some(peer), store: Some(store), term, local: false }
    }

    fn applied(index: u64, content: u8) -> Fact {
        Fact::EntryApplied { index, term: 1, digest: Digest([content; 32]) }
    }

    fn voted(term: u64, name: &str) -> Fact {
        let RaftId { peer, store } = id(name);
        Fact::VoteSynced { term, candidate: peer, store }
    }

    fn opened(store: u64) -> Fact {
        Fact::Opened { store: StoreId(store), last_log: None, term: 0 }
    }

    #[test]
    fn one_of_each_holds() {
        let mut judge = Judge::new(OneLeader::default());
        for name in ["server-1", "server-2"] {
            judge.fact(name, opened(1)).expect("a disk");
            judge.fact(name, leads(1, "server-1")).expect("one leader");
            judge.fact(name, applied(1, 1)).expect("one command");
            judge.fact(name, voted(1, "server-1")).expect("one vote");
            judge.fact(name, log_started(1)).expect("one log");
            judge.fact(name, leads(2, "server-2")).expect("the next leader");
        }
    }

    #[test]
    fn two_leaders_of_a_term_are_a_violation() {
        let mut judge = Judge::new(OneLeader::default());
        judge.fact("server-1", log_started(1)).expect("a log");
        judge.fact("server-2", log_started(1)).expect("the same log");
        judge.fact("server-1", leads(1, "server-1")).expect("one leader");
        judge.fact("server-2", leads(1, "server-2")).expect_err("another leader");
    }

    #[test]
    fn two_logs_may_have_a_leader_each() {
        let mut judge = Judge::new(OneLeader::default());
        judge.fact("server-1", log_started(1)).expect("a log");
        judge.fact("server-2", log_started(2)).expect("another log");
        judge.fact("server-1", leads(1, "server-1")).expect("its leader");
        judge.fact("server-2", leads(1, "server-2")).expect("its own leader");
    }

    #[test]
    fn two_commands_at_an_index_are_a_violation_even_if_the_log_is_named_later() {
        let mut judge = Judge::new(OneLeader::default());
        judge.fact("server-1", applied(1, 1)).expect("a command");
        judge.fact("server-2", applied(1, 2)).expect("its log is unknown");
        judge.fact("server-1", log_started(1)).expect("a log");
        judge.fact("server-2", log_started(1)).expect_err("another command of the same log");
    }

    #[test]
    fn two_votes_in_a_term_are_a_violation() {
        let mut judge = Judge::new(OneLeader::default());
        judge.fact("server-1", opened(1)).expect("a disk");
        judge.fact("server-1", voted(1, "server-1")).expect("a vote");
        judge.fact("server-1", voted(1, "server-2")).expect_err("another vote");
    }

    #[test]
    fn votes_of_two_disks_are_not_two_votes() {
        let mut judge = Judge::new(OneLeader::default());
        judge.fact("server-1", voted(1, "server-1")).expect("of a disk that is not known");
        judge.fact("server-1", voted(1, "server-2")).expect("nor is this one's");
        judge.fact("server-1", opened(1)).expect("a disk");
        judge.fact("server-1", voted(1, "server-1")).expect("its first vote");
        judge.see("server-1", Seen::DiskLost).expect("a lost disk");
        judge.fact("server-1", opened(2)).expect("another disk");
        judge.fact("server-1", voted(1, "server-2")).expect("its first vote as well");
    }

    #[test]
    fn a_log_that_is_read_again_has_a_name_as_well() {
        let mut judge = Judge::new(OneLeader::default());
        for (name, leader) in [("server-1", "server-1"), ("server-2", "server-2")] {
            judge.fact(name, leads(1, leader)).expect("of a log without a name");
        }
        judge.fact("server-1", log_started(1)).expect("a log");
        judge.fact("server-2", again(log_started(1))).expect_err("another leader of the same log");
    }

    #[test]
    fn whoever_led_a_log_that_it_gives_up_did_not_lead_the_other_one() {
        let yielded = || Fact::LogYielded { own: LogId([2; 32]), other: LogId([1; 32]), store: StoreId(9) };
        let mut judge = Judge::new(OneLeader::default());
        for name in ["server-1", "server-2"] {
            judge.fact(name, opened(1)).expect("a disk");
            judge.fact(name, leads(1, name)).expect("each leads its own log");
        }
        judge.fact("server-1", log_started(1)).expect("one log");
        judge.fact("server-2", yielded()).expect("another one");
        judge.fact("server-2", leads(1, "server-2")).expect("consensus ends a moment later");
        judge.fact("server-2", opened(9)).expect("its new disk");
        judge.fact("server-2", log_started(1)).expect("the other log");
        // Somebody else led the log that was given up.
        judge.fact("server-3", log_started(2)).expect("the log that was given up");
        judge.fact("server-3", leads(1, "server-3")).expect_err("another leader of its term");
    }

    #[test]
    fn behind_a_gap_the_log_and_the_disk_are_not_known() {
        let mut judge = Judge::new(OneLeader::default());
        for name in ["server-1", "server-2"] {
            judge.fact(name, opened(1)).expect("a disk");
            judge.fact(name, log_started(1)).expect("one log");
        }
        judge.fact("server-1", leads(1, "server-1")).expect("one leader");
        judge.fact("server-2", voted(1, "server-1")).expect("one vote");
        judge.fact("server-2", lines_lost()).expect("a gap, with another log on another disk in it");
        judge.fact("server-2", leads(1, "server-2")).expect("of which log?");
        judge.fact("server-2", voted(1, "server-2")).expect("of which disk?");
        judge.fact("server-2", log_started(2)).expect("of another one");
    }

    #[test]
    fn without_a_leader_nothing_is_said() {
        let mut judge = Judge::new(OneLeader::default());
        let none = Fact::Leader { leader: None, store: None, term: 1, local: false };
        judge.fact("server-1", none).expect("nobody leads");
        assert_eq!(judge.cannot_tell(), Some("nobody said who leads"));
        judge.fact("server-1", leads(1, "server-1")).expect("one leader");
        assert_eq!(judge.cannot_tell(), None);
    }
}
