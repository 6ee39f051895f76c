//! A server's part in its group: who leads, who votes, and whether two logs have met.

use std::collections::{BTreeMap, BTreeSet};

use openraft_rt::AsyncRuntime;
use zipnet_core::checks::{Check, Checks};
use zipnet_core::id::{LogId, PeerId, RaftId, Role};
use zipnet_core::server;
use zipnet_core::time::Time;

use super::{DESERTED, Happening, Machine, Node, OUTREACHED, lock, view};
use crate::believed::named;
use crate::consensus::{self, Believed};
use crate::event::{Event, Observer};
use crate::frame::{Frame, VOTERS_LEN_MAX};
use crate::meeting::{CAUGHT_UP_LAG, Change, ConnectionId, Membership, farther_reaching, membership_plan};

impl<W: Observer, C: Checks> Node<W, C> {
    /// Asks the voter that is furthest to take over.
    pub(super) fn hand_over(&self) {
        let Machine::Server { group, .. } = &self.machine else { return };
        let state = group.state();
        let me = self.own.peer;
        let others =
            state.members.voters.iter().filter(|voter| voter.peer != me && self.links.is_linked(&voter.peer));
        let matched = |voter: &&RaftId| state.followers.get(voter).and_then(|follower| follower.matched);
        let Some(best) = others.max_by_key(matched).copied() else { return };
        let group = group.clone();
        drop(W::Runtime::spawn(async move {
            // A hand-over that fails leaves the group to its election timeout.
            drop(group.transfer_leadership(best).await);
        }));
    }

    pub(super) fn led(&mut self, leader: Option<PeerId>) {
        if self.leader != leader {
            self.led_since = self.world.now();
        }
        self.leader = leader;
        let Machine::Server { member, .. } = &self.machine else { return };
        let mut member = lock(member);
        if leader == Some(self.own.peer) && member.server.committee().log().is_none() {
            member.handle(server::Input::StartLog { log: LogId(self.random.bytes()) });
        }
        member.handle(server::Input::Led { leader });
    }

    /// Two servers may be linked before they have a log, and then join different ones. They have to meet again, so that
    /// one of the logs yields.
    pub(super) fn part_from_other_logs(&mut self) {
        let Machine::Server { group, .. } = &self.machine else { return };
        let Some(own) = self.log() else { return };
        let members = group.state().members;
        let strangers: Vec<_> = self
            .links
            .linked_entries()
            .filter(|(_, entry, hello)| {
                let Some(store) = hello.store.filter(|_| hello.role == Role::Server) else { return false };
                let id = RaftId { peer: entry.peer, store };
                let is_member = members.voters.contains(&id) || members.learners.contains(&id);
                match hello.log {
                    Some(log) => log != own,
                    None => entry.said != Some(own) && !is_member,
                }
            })
            .map(|(id, ..)| id)
            .collect();
        for id in strangers {
            self.closed(id, None);
        }
    }

    /// Tells one linked server whose votes count here.
    pub(super) fn name_voters(&self, id: ConnectionId) {
        let Machine::Server { group, .. } = &self.machine else { return };
        if let (Some(index), voters) = group.voters() {
            self.links.send(id, &Frame::Members { log: self.log(), index, voters });
        }
    }

    /// Tells every linked server whose votes count here, if that has changed.
    pub(super) fn tell_voters(&mut self) {
        let Machine::Server { group, .. } = &self.machine else { return };
        let voters = group.voters();
        if voters != self.told_voters {
            self.told_voters = voters;
            for id in self.links.of_role(Role::Server) {
                self.name_voters(id);
            }
        }
    }

    /// Who of the servers is linked with which servers: this one as it is, the linked ones as they say.
    pub(super) fn reach(&self) -> BTreeMap<PeerId, BTreeSet<PeerId>> {
        let servers = || self.links.linked_entries().filter(|(_, _, hello)| hello.role == Role::Server);
        let mut reach: BTreeMap<PeerId, BTreeSet<PeerId>> =
            servers().map(|(_, entry, _)| (entry.peer, entry.reach.clone())).collect();
        let own = servers().map(|(_, entry, _)| entry.peer).take(VOTERS_LEN_MAX);
        reach.insert(self.own.peer, own.collect());
        reach
    }

    /// Tells the linked servers whom this one reaches; a leader that others outreach hands over to the one that reaches
    /// most.
    pub(super) fn look_after_reach(&mut self, now: Time) {
        let Machine::Server { group, .. } = &self.machine else { return };
        let mut reach = self.reach();
        let own = reach.remove(&self.own.peer).unwrap_or_default();
        if own != self.told_reach {
            self.told_reach.clone_from(&own);
            let frame = Frame::Reach { servers: own.clone() };
            for id in self.links.of_role(Role::Server) {
                self.links.send(id, &frame);
            }
        }
        let state = group.state();
        if state.role != consensus::Role::Leader || self.stopping {
            self.outreached = None;
            return;
        }
        // Only who can take over: with the disk that has the vote, and with the log.
        let committed = state.committed.unwrap_or(0);
        let can_lead = |peer: &PeerId| {
            let store = self.links.hello(peer).and_then(|hello| hello.store);
            let matched =
                store.and_then(|store| state.followers.get(&RaftId { peer: *peer, store })?.matched);
            matched.is_some_and(|matched| matched.saturating_add(CAUGHT_UP_LAG) >= committed)
        };
        reach.retain(|peer, _| can_lead(peer));
        let Some(better) = farther_reaching(self.own.peer, &own, &reach, &state.members) else {
            self.outreached = None;
            return;
        };
        let since = *self.outreached.get_or_insert(now);
        if now.since(since) >= OUTREACHED {
            // If it does not take over, it is asked again after as long.
            self.outreached = None;
            self.world.observe(Event::Warned(format!(
                "server {} reaches servers that this one does not: it is asked to lead",
                better.peer.short()
            )));
            let group = group.clone();
            drop(W::Runtime::spawn(async move { drop(group.transfer_leadership(better).await) }));
        }
    }

    /// A linked server says whose votes count at its end. Whether that is believed is decided whenever it matters.
    pub(super) fn voters_named(
        &mut self,
        id: ConnectionId,
        log: Option<LogId>,
        index: u64,
        voters: BTreeSet<RaftId>,
    ) {
        let own = self.log();
        let Some(entry) = self.links.get_mut(id) else { return };
        let is_server = entry.hello.as_ref().is_some_and(|hello| hello.role == Role::Server);
        let is_other_log = own.is_some() && log.is_some() && own != log;
        let is_older = entry.named.as_ref().is_some_and(|(known, _)| *known > index);
        if !is_server || !entry.used || is_other_log || is_older {
            return;
        }
        entry.named = Some((index, voters));
        self.look_whom_to_believe();
    }

    /// Has consensus take messages from whoever is believed here beside the voters in the log.
    pub(super) fn look_whom_to_believe(&self) {
        let Machine::Server { member, group } = &self.machine else { return };
        let (_, voters) = group.voters();
        let linked = self.links.linked_entries().filter(|(_, _, hello)| hello.role == Role::Server);
        let linked: BTreeMap<RaftId, Option<&BTreeSet<RaftId>>> = linked
            .filter_map(|(_, entry, hello)| {
                let id = RaftId { peer: entry.peer, store: hello.store? };
                Some((id, entry.named.as_ref().map(|(_, voters)| voters)))
            })
            .collect();
        let pointers = self.pointers(&self.bootstrap, !voters.is_empty());
        let pointed = pointers.pointed(&linked.keys().copied().collect());
        let mut named = named(&linked, &voters, &pointed);
        let is_fresh = voters.is_empty();
        if is_fresh {
            let listed = |id: &&RaftId| self.allowed().is_none_or(|allowed| allowed.contains(&id.peer));
            named.extend(self.founders.iter().filter(listed));
        }
        let retired = if self.checks.enforce(Check::RetiredBarred) {
            lock(member).server.committee().retired().iter().copied().collect()
        } else {
            BTreeSet::new()
        };
        group.believe(Believed { pointed, named, retired, holds_vote: is_fresh && self.holds_vote() });
    }

    /// Says so once when somebody speaks as a member whom this server does not know, and nobody leads whom it knows: its
    /// whole committee may have been replaced while it was away.
    fn look_after_strangers(&mut self, leads: bool) {
        if leads {
            (self.warned_strangers, self.stranger_at) = (false, None);
            return;
        }
        let now = self.world.now();
        let recent = self.stranger_at.is_some_and(|at| now.since(at) <= DESERTED);
        if recent && !self.warned_strangers && now.since(self.started) >= DESERTED {
            self.warned_strangers = true;
            let text = "no server that this one knows leads, but others speak as members: if the committee was replaced \
                        while this server was away, restart it with ZIPNET_BOOTSTRAP set to a present server";
            self.world.observe(Event::Warned(text.to_owned()));
        }
    }

    /// Tells the machine how consensus stands; the leader also looks after the membership.
    pub(super) fn look_after_members(&mut self) {
        let now = self.world.now();
        self.tell_voters();
        self.look_whom_to_believe();
        let Machine::Server { group, .. } = &self.machine else { return };
        let state = group.state();
        // A leader keeps its office until another one is elected, and its followers remember it as long. Without a
        // majority there is none, whoever that was.
        let leads = state.role == consensus::Role::Leader;
        let leader = state.leader.filter(|leader| {
            if leads {
                state.quorum_acked.is_none_or(|ago| ago <= DESERTED)
            } else {
                // One that came back with another disk leads nothing.
                self.links.hello(&leader.peer).is_some_and(|hello| hello.store == Some(leader.store))
            }
        });
        if leader.map(|leader| leader.peer) != self.leader {
            let told = consensus::Event::Leader { term: state.term, leader, me: leads && leader.is_some() };
            self.world.observe(Event::Consensus(told));
            self.led(leader.map(|leader| leader.peer));
        }
        self.look_after_strangers(self.leader.is_some());
        let Machine::Server { member, group } = &self.machine else { return };
        let caught_up = state.leader.is_some() && state.applied.is_some() && state.applied >= state.committed;
        let mut member = lock(member);
        member.handle(server::Input::CaughtUp(caught_up));
        if caught_up && !self.restored {
            self.restored = true;
            let committee = member.server.committee();
            let present = committee.servers().iter().filter(|(_, entry)| entry.takes_part());
            self.world.observe(Event::Restored {
                index: state.applied.unwrap_or(0),
                clients: committee.clients().len(),
                servers: present.map(|(peer, _)| *peer).collect(),
            });
        }
        if self.changing || self.stopping || state.role != consensus::Role::Leader || !state.members_committed
        {
            return;
        }
        let committee = member.server.committee();
        let linked = self.links.linked().filter_map(|(peer, hello)| Some((*peer, hello.store?)));
        let matched = state.followers.iter().filter_map(|(id, follower)| Some((*id, follower.matched?)));
        let membership = Membership {
            leader: RaftId { peer: self.own.peer, store: self.store.unwrap_or_default() },
            voters: state.members.voters.clone(),
            learners: state.members.learners.clone(),
            servers: view::server_states(committee),
            linked: linked.collect(),
            matched: matched.collect(),
            committed: state.committed.unwrap_or(0),
            allowed: self.allowed().cloned(),
            members_at: group.voters().0.unwrap_or(0),
            founders: if now.since(self.led_since) >= DESERTED {
                self.founders.clone()
            } else {
                BTreeSet::new()
            },
        };
        // A change of voters that another leader left half done comes first.
        let change = if state.members.joint { None } else { membership_plan(&membership, &self.checks) };
        if !state.members.joint && change.is_none() {
            return;
        }
        if let Some(change) = change {
            self.world.observe(Event::MembershipChange(change));
        }
        self.changing = true;
        let (group, sender, voters) = (group.clone(), self.sender.clone(), state.members.voters);
        drop(member);
        drop(W::Runtime::spawn(async move {
            // Whatever was not done is planned again.
            match change {
                Some(Change::AddLearner(id)) => drop(group.add_learner(id).await),
                Some(Change::RemoveLearner(id)) => drop(group.remove_learners(BTreeSet::from([id])).await),
                Some(change) => drop(group.change_voters(change.voters(&voters), false).await),
                None => drop(group.complete_change().await),
            }
            drop(sender.unbounded_send(Happening::Changed));
        }));
    }
}
