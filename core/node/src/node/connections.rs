//! From a fresh connection to a link: hellos, refusals, duplicates, farewells, and what arrives.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::AsyncRuntime;
use zipnet_core::checks::{Check, Checks};
use zipnet_core::id::{LogId, PeerId, RaftId, Role};

use super::links::{Entry, Gone};
use super::{BACKOFF_MAX, Conn, End, Feed, Machine, Node, lock, read};
use crate::allowance::{Deed, Rate};
use crate::believed::Pointers;
use crate::config::{Part, PeerAddress};
use crate::consensus;
use crate::event::{Event, Observer};
use crate::frame::{Farewell, Frame, Hello, Present, Refusal, Stage, judge_hello};
use crate::gossip;
use crate::meeting::{Arrival, ConnectionId, LogView, Order, Verdict, YIELDS_MAX, two_logs};
use crate::slots::Standing;
use crate::world::{Address, Channel, Connection, Link};

/// What an operator reads about a voter that is not on the list.
pub(super) fn unlisted_voter(peer: &PeerId) -> String {
    format!(
        "server {} has a vote and is not in ZIPNET_ALLOWED_SERVERS: another server has let it in; agree on the lists, or \
         retire it",
        peer.short()
    )
}

/// How often a peer's pings are answered: a second node of one identity causes one each.
const PINGS: Rate = Rate { most: 16, every: Duration::from_millis(250) };
/// How often a peer's requests for entries are answered: one comes with each link and each announce interval.
const PEERS_WANTED: Rate = Rate { most: 4, every: Duration::from_secs(1) };

impl<W: Observer, C: Checks> Node<W, C> {
    pub(super) fn connected(&mut self, connection: Conn<W>) {
        let (peer, exporter) = (connection.peer(), connection.exporter());
        let (now, id) = (self.world.now(), self.links.number());
        if connection.dialled().is_none() {
            let known = standing(&self.machine, &self.members, &peer);
            match self.links.slots.arrive(now, id, peer, connection.origin(), known) {
                Ok(None) => {}
                Ok(Some(slow)) => {
                    if let Some(entry) = self.links.get(slow) {
                        self.rejected("hello", "overdue", entry.peer);
                    }
                    self.closed(slow, None);
                }
                Err(full) => {
                    self.rejected("link", full.name(), peer);
                    return connection.close(0);
                }
            }
        }
        self.links.add(now, id, connection.clone());
        let present = self.present();
        if let Some(entry) = self.links.get_mut(id) {
            entry.said = present.log;
        }
        let hello = self.own.hello(&exporter, &peer, present);
        self.links.send(id, &Frame::Hello(Box::new(hello)));
        drop(W::Runtime::spawn(read(id, connection, self.arrivals.clone())));
    }

    pub(super) fn present(&self) -> Present {
        let (log, has_records) = match &self.machine {
            Machine::Server { member, .. } => {
                let member = lock(member);
                let committee = member.server.committee();
                (committee.log(), !committee.records().is_empty())
            }
            Machine::Aggregator(_) | Machine::Client(_) | Machine::Reader(_) => (None, false),
        };
        let address = match self.own.role {
            Role::Server | Role::Aggregator => Some(self.address()),
            Role::Client => None,
        };
        Present { log, has_records, steadfast: self.steadfast, store: self.store, address }
    }

    pub(super) fn address(&self) -> Address {
        self.config.advertise.clone().unwrap_or_else(|| self.world.link().address())
    }

    pub(super) fn received(&mut self, id: ConnectionId, channel: Channel, message: Bytes) {
        let Some(entry) = self.links.get(id) else { return };
        let peer = entry.peer;
        if channel == Channel::Control {
            return match Frame::decode(&message) {
                Ok(frame) => self.frame(id, peer, frame),
                Err(_) => self.refuse(id, peer, Refusal::Malformed),
            };
        }
        // Before this end uses the connection, whatever comes is repeated later.
        let Some(hello) = entry.hello.as_ref().filter(|_| entry.used) else { return };
        let (role, store) = (hello.role, hello.store);
        match channel {
            Channel::Protocol => self.feed(Feed::Received { from: peer, bytes: message }),
            Channel::Datagram if role == Role::Client => self.rejected("gossip", "wrong-role", peer),
            // Rumours of whoever is not trusted to tell who there is are none. An aggregator that is not approved yet is
            // honest all the same.
            Channel::Datagram if !self.vouches(&peer, role) => {}
            Channel::Datagram => self.gossip(gossip::Input::Received { from: peer, bytes: message }),
            Channel::Consensus | Channel::Bulk => {
                let received = match (&self.machine, role, store) {
                    (Machine::Server { group, .. }, Role::Server, Some(store)) => {
                        group.receive(RaftId { peer, store }, message).map_err(consensus::Refusal::name)
                    }
                    _ => Err("wrong-role"),
                };
                // What was refused is repeated by whoever was honest.
                if let Err(reason) = received {
                    if reason == consensus::Refusal::NotMember.name() {
                        self.stranger_at = Some(self.world.now());
                    }
                    self.rejected("consensus", reason, peer);
                }
            }
            Channel::Control => unreachable!("handled above"),
        }
    }

    pub(super) fn rejected(&self, kind: &'static str, reason: &'static str, peer: PeerId) {
        self.world.observe(Event::Rejected { kind, reason, peer });
    }

    pub(super) fn frame(&mut self, id: ConnectionId, peer: PeerId, frame: Frame) {
        let Some(stage) = self.links.get(id).map(Entry::stage) else { return };
        if !frame.is_read(stage) {
            // Refusals cross with what an honest node says to one whose hello it has accepted.
            if stage != Stage::Refused {
                self.rejected(frame.name(), "out-of-turn", peer);
            }
            return;
        }
        let now = self.world.now();
        let answered = match &frame {
            Frame::Ping { .. } => self.allowances.take(now, peer, Deed::Ping, PINGS),
            Frame::PeersWanted { .. } => self.allowances.take(now, peer, Deed::PeersWanted, PEERS_WANTED),
            Frame::Hello(_)
            | Frame::HelloRefused { .. }
            | Frame::Welcome
            | Frame::Pong { .. }
            | Frame::Goodbye { .. }
            | Frame::Peers { .. }
            | Frame::Members { .. }
            | Frame::Reach { .. } => true,
        };
        if !answered {
            return self.rejected(frame.name(), "too-often", peer);
        }
        match frame {
            Frame::Hello(hello) => self.greeted(id, peer, *hello),
            Frame::HelloRefused { reason } => self.refused_by(id, peer, reason),
            Frame::Welcome => {
                if let Some(entry) = self.links.get_mut(id) {
                    entry.welcomed = true;
                    self.establish(id);
                }
            }
            Frame::Ping { nonce } => self.links.send(id, &Frame::Pong { nonce }),
            Frame::Pong { nonce } => {
                let mut orders = Vec::new();
                self.duplicates.answer(peer, id, nonce, &mut orders);
                self.obey(orders);
            }
            Frame::Goodbye { reason } => {
                if let Some(entry) = self.links.get_mut(id) {
                    entry.farewell = Some(reason);
                }
            }
            Frame::PeersWanted { have } => {
                let entries = self.book.missing(&have);
                if !entries.is_empty() {
                    self.links.send(id, &Frame::Peers { entries });
                }
            }
            Frame::Peers { entries } => self.learn(peer, entries),
            Frame::Members { log, index, voters } => self.voters_named(id, log, index, voters),
            Frame::Reach { servers } => {
                let Some(entry) = self.links.get_mut(id) else { return };
                // Nobody else has proven the committee secret, and nothing of a stranger is kept.
                if entry.hello.as_ref().is_some_and(|hello| hello.role == Role::Server) {
                    entry.reach = servers;
                } else {
                    self.rejected("reach", "wrong-role", peer);
                }
            }
        }
    }

    /// Whoever has come to belong here takes no stranger's place any longer.
    pub(super) fn make_room(&mut self) {
        self.links.slots.promote(|peer| standing(&self.machine, &self.members, peer));
    }

    /// The other end's hello arrived.
    pub(super) fn greeted(&mut self, id: ConnectionId, peer: PeerId, hello: Hello) {
        let Some(entry) = self.links.get(id).filter(|entry| entry.hello.is_none() && !entry.refused) else {
            return;
        };
        let exporter = entry.connection.exporter();
        let dialled = entry.connection.dialled().is_some();
        if let Err(reason) = judge_hello(&self.own, &hello, &exporter, &peer, &self.checks) {
            return self.refuse(id, peer, reason);
        }
        if hello.role == Role::Server && self.is_retired(&peer) {
            return self.refuse(id, peer, Refusal::Retired);
        }
        if hello.role == Role::Server && !self.may_be_linked(&peer) {
            return self.refuse(id, peer, Refusal::NotListed);
        }
        let mut known = standing(&self.machine, &self.members, &peer);
        if hello.role == Role::Server && self.own.committee_secret.is_some() {
            entry.connection.trust();
            known = known.min(Standing::Newcomer);
        }
        if let Err(full) = self.links.slots.settle(id, known) {
            self.rejected("link", full.name(), peer);
            return self.refuse(id, peer, Refusal::Full);
        }
        match self.meet(&peer, &hello) {
            Verdict::Same => {}
            Verdict::Yield => {
                let address = hello.address.clone();
                let (own, other) = (self.log().unwrap_or_default(), hello.log.unwrap_or_default());
                let store = self.store.unwrap_or_default();
                self.world.observe(Event::LogYielded { own, other, store });
                self.end = Some(End::Yield(vec![PeerAddress { peer, address }]));
                return;
            }
            Verdict::Keep => return self.refuse(id, peer, Refusal::TwoLogs),
            Verdict::RefuseLink => {
                self.other_log = hello.log.map(|log| (peer, log, self.world.now()));
                return self.refuse(id, peer, Refusal::TwoLogs);
            }
        }
        let incarnation = hello.incarnation;
        if let Some(entry) = self.links.get_mut(id) {
            entry.hello = Some(hello);
        }
        let mut orders = Vec::new();
        let arrival = Arrival { connection: id, incarnation, dialled };
        self.duplicates.arrive(self.world.now(), peer, arrival, &self.checks, &mut orders);
        self.obey(orders);
    }

    /// Lets the aggregator of the log send what only it has: a thousand clients at once.
    pub(super) fn trust_aggregator(&self) {
        let Machine::Server { member, .. } = &self.machine else { return };
        let aggregator = lock(member).server.committee().aggregator().map(|bundle| bundle.peer);
        let links = self.links.linked_entries();
        for (_, entry, _) in links.filter(|(_, entry, _)| Some(entry.peer) == aggregator) {
            entry.connection.trust();
        }
    }

    pub(super) fn is_retired(&self, peer: &PeerId) -> bool {
        let Machine::Server { member, .. } = &self.machine else { return false };
        lock(member).server.committee().retired().contains(peer) && self.checks.enforce(Check::RetiredBarred)
    }

    pub(super) fn log(&self) -> Option<LogId> {
        self.present().log
    }

    /// What becomes of this server's log when it meets another server of its group. Whoever is none has no log to meet.
    pub(super) fn meet(&self, peer: &PeerId, hello: &Hello) -> Verdict {
        let speaks = hello.role == Role::Server || !self.checks.enforce(Check::ServersHaveLogs);
        if !speaks || !matches!(self.machine, Machine::Server { .. }) {
            return Verdict::Same;
        }
        let present = self.present();
        let (log, has_records) = (present.log, present.has_records);
        let own = LogView { log, has_records, steadfast: self.steadfast };
        let other = LogView { log: hello.log, has_records: hello.has_records, steadfast: hello.steadfast };
        // A log without records has a voter, this server itself, and that one gives it up.
        let pointers = self.pointers(&self.config.bootstrap, false);
        let may_take = pointers.points_to(peer) || !self.checks.enforce(Check::NamedJudges);
        let may_yield = self.yields < YIELDS_MAX && may_take;
        two_logs(own, other, may_yield, &self.checks)
    }

    /// What points this server to others, if its operator named these.
    pub(super) fn pointers(&self, named: &[PeerAddress], has_voters: bool) -> Pointers {
        let role = |peer: &PeerId| {
            let said = self.links.hello(peer).map(|hello| hello.role);
            said.or_else(|| self.book.get(peer).map(|entry| entry.role))
        };
        let bootstrap: BTreeSet<PeerId> = named.iter().map(|named| named.peer).collect();
        let is_none = |peer: &PeerId| role(peer).is_some_and(|role| role != Role::Server);
        let no_servers = bootstrap.iter().copied().filter(is_none).collect();
        Pointers { bootstrap, no_servers, has_voters, allowed: self.allowed().cloned() }
    }

    /// Whom the operator allows to be a server, if that was said.
    pub(super) fn allowed(&self) -> Option<&BTreeSet<PeerId>> {
        match &self.config.part {
            Part::Server(part) => part.allowed.as_ref(),
            Part::Aggregator(_) | Part::Client(_) | Part::Reader(_) => None,
        }
    }

    /// Whether this server links with another one: with whom its operator allows, and with the voters of its group, whom
    /// other servers may have let in.
    fn may_be_linked(&self, peer: &PeerId) -> bool {
        let Machine::Server { group, .. } = &self.machine else { return true };
        let listed = self.allowed().is_none_or(|allowed| allowed.contains(peer));
        listed || group.state().members.voters.iter().any(|voter| voter.peer == *peer)
    }

    /// Raises an alarm about voters that the operator does not allow.
    pub(super) fn look_for_unlisted_voters(&mut self) {
        let (Machine::Server { group, .. }, Some(allowed)) = (&self.machine, self.allowed()) else { return };
        let voters = group.state().members.voters;
        let unlisted: BTreeSet<PeerId> = voters
            .iter()
            .map(|voter| voter.peer)
            .filter(|peer| *peer != self.own.peer && !allowed.contains(peer))
            .collect();
        for peer in &unlisted {
            // Counted as long as it lasts, and said once.
            self.rejected("voter", Refusal::NotListed.name(), *peer);
            if !self.unlisted.contains(peer) {
                self.world.observe(Event::Warned(unlisted_voter(peer)));
            }
        }
        self.unlisted = unlisted;
    }

    pub(super) fn refuse(&mut self, id: ConnectionId, peer: PeerId, reason: Refusal) {
        self.world.observe(Event::PeerRefused { peer, reason });
        self.links.send(id, &Frame::HelloRefused { reason });
        // The other end may be refusing for the same reason: its word is waited for, so that both know.
        match self.links.get_mut(id) {
            Some(entry) if entry.hello.is_none() && !entry.refused => entry.refused = true,
            Some(_) | None => self.closed(id, None),
        }
    }

    /// A peer does not want to talk. If this node came to join and nobody has accepted it, it gives up.
    pub(super) fn refused_by(&mut self, id: ConnectionId, peer: PeerId, reason: Refusal) {
        self.world.observe(Event::RefusedByPeer { peer, reason });
        let address = self.links.get(id).and_then(|entry| entry.connection.dialled());
        let dialled = address.is_some();
        if reason == Refusal::Full
            && let Some(dial) = address.and_then(|address| self.dials.get_mut(&address))
        {
            // Room comes with time, and not sooner if all who wait for it ask at once.
            let jitter = Duration::from_millis(self.random.below(1_000));
            dial.next = self.world.now().after(BACKOFF_MAX.saturating_add(jitter));
        }
        // Whoever else is met, by rumour or from an earlier life, does not speak for the committee.
        if (dialled && self.names(&peer)) || !self.checks.enforce(Check::NamedJudges) {
            self.admission.refused(peer, reason);
            if let Some((reason, code)) = self.admission.verdict() {
                self.exit(code, self.refused_for(reason));
            }
        }
        if self.names(&peer) || self.members.contains(&peer) {
            self.turned_away.insert(peer, (reason, self.world.now()));
        }
        self.closed(id, None);
    }

    /// What the operator reads when the committee wants nothing more of this node.
    pub(super) fn refused_for(&self, reason: Refusal) -> String {
        let me = self.own.peer;
        let announced = match &self.machine {
            Machine::Server { member, .. } => {
                lock(member).server.committee().farewells().iter().any(|farewell| farewell.server == me)
            }
            Machine::Aggregator(_) | Machine::Client(_) | Machine::Reader(_) => false,
        };
        if announced && reason == Refusal::Retired {
            return "refused by the committee: this server had announced that it leaves for good, and the committee has let it \
                    go. See to it that nothing starts it again; if a server is wanted here, give it a fresh ZIPNET_SECRET \
                    and add it as a new one"
                .to_owned();
        }
        format!("refused by the committee: {reason}")
    }

    pub(super) fn obey(&mut self, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::Use(id) => {
                    if let Some(entry) = self.links.get_mut(id) {
                        entry.used = true;
                        self.links.send(id, &Frame::Welcome);
                        self.establish(id);
                    }
                }
                Order::Challenge(id, nonce) => {
                    if let Some(entry) = self.links.get(id) {
                        self.world.observe(Event::Challenged { peer: entry.peer });
                        self.links.send(id, &Frame::Ping { nonce });
                    }
                }
                Order::CloseSpare(id) => self.drop_connection(id, Farewell::Spare),
                Order::CloseGhost(id) => self.drop_connection(id, Farewell::Replaced),
                Order::Refuse(id) => {
                    if let Some(peer) = self.links.get(id).map(|entry| entry.peer) {
                        self.refuse(id, peer, Refusal::DuplicateIdentity);
                    }
                }
            }
        }
    }

    /// Closes a connection that [`Duplicates`] has already forgotten.
    pub(super) fn drop_connection(&mut self, id: ConnectionId, farewell: Farewell) {
        let gone = self.links.close(id, Some(farewell));
        self.unlinked(gone);
    }

    pub(super) fn establish(&mut self, id: ConnectionId) {
        let Some((peer, role)) = self.links.establish(id) else { return };
        if role == Role::Server {
            self.admission.accepted(peer);
        }
        self.turned_away.remove(&peer);
        self.world.observe(Event::Linked { peer, role });
        self.rumour_with(peer, role);
        self.links.send(id, &Frame::PeersWanted { have: self.book.digest() });
        if role == Role::Server {
            self.name_voters(id);
            self.links.send(id, &Frame::Reach { servers: self.told_reach.clone() });
            self.look_whom_to_believe();
        }
        self.feed(Feed::Linked { peer, role });
        match (&self.config.part, role) {
            (Part::Client(_) | Part::Reader(_), Role::Aggregator) | (Part::Reader(_), Role::Server) => {
                self.part_from_spare_servers();
            }
            _ => {}
        }
    }

    /// A client that has its aggregator needs no server, and a reader needs one.
    fn part_from_spare_servers(&mut self) {
        if self.links.of_role(Role::Aggregator).is_empty() || self.wanted_aggregator().is_some() {
            return;
        }
        let mut servers = self.links.of_role(Role::Server);
        if let Part::Reader(part) = &self.config.part {
            let is_pinned =
                |id: &ConnectionId| self.links.get(*id).is_some_and(|entry| part.pins.contains(&entry.peer));
            let kept = servers.iter().position(is_pinned).unwrap_or(0);
            if kept < servers.len() {
                servers.remove(kept);
            }
        }
        for id in servers {
            self.closed(id, Some(Farewell::Spare));
        }
    }

    /// A connection is gone, or has to go.
    pub(super) fn closed(&mut self, id: ConnectionId, farewell: Option<Farewell>) {
        let Some(peer) = self.links.get(id).map(|entry| entry.peer) else { return };
        let gone = self.links.close(id, farewell);
        self.unlinked(gone);
        let mut orders = Vec::new();
        self.duplicates.closed(peer, id, &mut orders);
        self.obey(orders);
    }

    pub(super) fn unlinked(&mut self, gone: Option<Gone>) {
        if let Some(Gone { peer, role, store, farewell }) = gone {
            if let (Machine::Server { group, .. }, Some(store)) = (&self.machine, store) {
                group.parted(RaftId { peer, store });
            }
            self.world.observe(Event::Unlinked { peer, role, farewell });
            if self.rumoured.remove(&peer) {
                self.gossip(gossip::Input::Forget { peer });
            }
            if role == Role::Server {
                self.look_whom_to_believe();
            }
            self.feed(Feed::Unlinked { peer });
        }
    }
}

/// What a node knows of a peer without having heard it.
fn standing<W: Observer, C: Checks>(
    machine: &Machine<W, C>,
    members: &BTreeSet<PeerId>,
    peer: &PeerId,
) -> Standing {
    let is_client = || match machine {
        Machine::Server { member, .. } => lock(member).server.committee().clients().get(peer).is_some(),
        Machine::Aggregator(machine) => machine.registry().is_some_and(|known| known.get(peer).is_some()),
        Machine::Client(_) | Machine::Reader(_) => false,
    };
    if members.contains(peer) {
        Standing::Member
    } else if is_client() {
        Standing::Client
    } else {
        Standing::Stranger
    }
}
