//! One leader per term, one vote per server and term, one command per index.

use std::collections::BTreeMap;

use zipnet_core::id::{Digest, LogId, PeerId, RaftId, StoreId};
use zipnet_core::machine::Report;
use zipnet_core::time::Time;
use zipnet_node::consensus;
use zipnet_node::event::Event;

use super::{Property, Seen, Subject};

/// Terms and indexes belong to a log. A server learns the name of its log from the log, so what it said before that is
/// judged as soon as the name is known.
#[derive(Debug, Default)]
pub struct OneLeader {
    leaders: BTreeMap<(LogId, u64), RaftId>,
    commands: BTreeMap<(LogId, u64), (u64, Digest)>,
    votes: BTreeMap<(PeerId, StoreId, u64), RaftId>,
    servers: BTreeMap<PeerId, Server>,
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
        match seen {
            Seen::Event(Event::Opened { store, .. }) => {
                let server = self.servers.entry(subject.peer).or_default();
                if server.store != Some(*store) {
                    *server = Server { store: Some(*store), ..Server::default() };
                }
                Ok(())
            }
            Seen::Event(Event::Consensus(event)) => match *event {
                consensus::Event::Leader { term, leader: Some(leader), .. } => {
                    self.claim(subject, Claim::Leads { term, leader })
                }
                consensus::Event::Applied { index, term, digest } => {
                    self.claim(subject, Claim::Applied { index, term, digest })
                }
                consensus::Event::VoteSynced { term, candidate } => self.voted(subject, term, candidate),
                _ => Ok(()),
            },
            Seen::Event(Event::Core(report) | Event::Past(report)) => match report {
                Report::LogStarted { log } => self.named(subject, *log),
                Report::RoundOpened { header, .. } => self.named(subject, header.log),
                _ => Ok(()),
            },
            Seen::Event(_) | Seen::Mixed(_) | Seen::Started | Seen::Exited { .. } | Seen::Killed => Ok(()),
            Seen::DiskLost => {
                self.servers.remove(&subject.peer);
                self.votes.retain(|(peer, ..), _| *peer != subject.peer);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, peer};
    use super::*;

    fn id(name: &str) -> RaftId {
        RaftId { peer: peer(name), store: StoreId(1) }
    }

    fn leads(term: u64, name: &str) -> Event {
        let leader = Some(id(name));
        Event::Consensus(consensus::Event::Leader { term, leader, me: false })
    }

    fn applied(index: u64, content: u8) -> Event {
        let digest = Digest([content; 32]);
        Event::Consensus(consensus::Event::Applied { index, term: 1, digest })
    }

    fn voted(term: u64, name: &str) -> Event {
        Event::Consensus(consensus::Event::VoteSynced { term, candidate: id(name) })
    }

    fn opened(store: u64) -> Event {
        Event::Opened { store: StoreId(store), last_log: None, term: 0 }
    }

    fn started(log: u8) -> Report {
        Report::LogStarted { log: LogId([log; 32]) }
    }

    #[test]
    fn one_of_each_holds() {
        let mut judge = Judge::new(OneLeader::default());
        for name in ["server-1", "server-2"] {
            judge.event(name, &opened(1)).expect("a disk");
            judge.event(name, &leads(1, "server-1")).expect("one leader");
            judge.event(name, &applied(1, 1)).expect("one command");
            judge.event(name, &voted(1, "server-1")).expect("one vote");
            judge.core(name, started(1)).expect("one log");
            judge.event(name, &leads(2, "server-2")).expect("the next leader");
        }
    }

    #[test]
    fn two_leaders_of_a_term_are_a_violation() {
        let mut judge = Judge::new(OneLeader::default());
        judge.core("server-1", started(1)).expect("a log");
        judge.core("server-2", started(1)).expect("the same log");
        judge.event("server-1", &leads(1, "server-1")).expect("one leader");
        judge.event("server-2", &leads(1, "server-2")).expect_err("another leader");
    }

    #[test]
    fn two_logs_may_have_a_leader_each() {
        let mut judge = Judge::new(OneLeader::default());
        judge.core("server-1", started(1)).expect("a log");
        judge.core("server-2", started(2)).expect("another log");
        judge.event("server-1", &leads(1, "server-1")).expect("its leader");
        judge.event("server-2", &leads(1, "server-2")).expect("its own leader");
    }

    #[test]
    fn two_commands_at_an_index_are_a_violation_even_if_the_log_is_named_later() {
        let mut judge = Judge::new(OneLeader::default());
        judge.event("server-1", &applied(1, 1)).expect("a command");
        judge.event("server-2", &applied(1, 2)).expect("its log is unknown");
        judge.core("server-1", started(1)).expect("a log");
        judge.core("server-2", started(1)).expect_err("another command of the same log");
    }

    #[test]
    fn two_votes_in_a_term_are_a_violation() {
        let mut judge = Judge::new(OneLeader::default());
        judge.event("server-1", &opened(1)).expect("a disk");
        judge.event("server-1", &voted(1, "server-1")).expect("a vote");
        judge.event("server-1", &voted(1, "server-2")).expect_err("another vote");
    }

    #[test]
    fn votes_of_two_disks_are_not_two_votes() {
        let mut judge = Judge::new(OneLeader::default());
        judge.event("server-1", &voted(1, "server-1")).expect("of a disk that is not known");
        judge.event("server-1", &voted(1, "server-2")).expect("nor is this one's");
        judge.event("server-1", &opened(1)).expect("a disk");
        judge.event("server-1", &voted(1, "server-1")).expect("its first vote");
        judge.see("server-1", Seen::DiskLost).expect("a lost disk");
        judge.event("server-1", &opened(2)).expect("another disk");
        judge.event("server-1", &voted(1, "server-2")).expect("its first vote as well");
    }
}
