//! Where the others are: signed entries, gossip, and whom to dial.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::AsyncRuntime;
use zipnet_core::checks::Checks;
use zipnet_core::id::{PeerId, Role};
use zipnet_core::server;
use zipnet_core::time::Time;

use super::{BACKOFF_MAX, BACKOFF_MIN, Conn, Happening, Machine, Node, lock};
use crate::allowance::{Deed, Rate};
use crate::config::Part;
use crate::event::{Event, Observer};
use crate::frame::Frame;
use crate::gossip;
use crate::gossip::book::{ENTRIES_LEN_MAX, EntryRefused, PeerEntry, Source};
use crate::remembered;
use crate::status::{CONNECT_TIMEOUT, connect_timeout};
use crate::world::{Address, Channel, Connection, Disk, Link, LinkError, on_disk};

/// How often the address book is looked at for the next process, at least.
const REMEMBER: Duration = Duration::from_secs(2);

/// How many entries are taken over one link in an announce interval: as many as one answer has. Entries of the other end
/// itself, and of peers that matter, are counted apart, so that strangers do not keep them out.
const ENTRIES_MOST: u32 = 64;
/// The same for strangers' entries, over the link of somebody who is not trusted to tell who there is.
const STRANGERS_MOST: u32 = 16;

const _: () = assert!(ENTRIES_LEN_MAX == 64, "one answer is taken whole");

impl<W: Observer, C: Checks> Node<W, C> {
    /// Whom the operator named: the peers to start from, and those that must or may be there.
    fn named(&self) -> impl Iterator<Item = PeerId> + '_ {
        let (pins, aggregator) = match &self.config.part {
            Part::Server(part) => (None, part.aggregator),
            Part::Aggregator(part) => (Some(&part.pins), None),
            Part::Client(part) => (Some(&part.pins), None),
            Part::Reader(part) => (Some(&part.pins), None),
        };
        let bootstrap = self.config.bootstrap.iter().map(|peer| peer.peer);
        bootstrap.chain(pins.into_iter().flatten().copied()).chain(aggregator)
    }

    /// Whether the operator told this node to start from a peer.
    pub(super) fn names(&self, peer: &PeerId) -> bool {
        self.config.bootstrap.iter().any(|named| named.peer == *peer)
    }

    /// Whether a linked peer is trusted to tell who else there is.
    ///
    /// Servers trust those that have proven the committee secret, and the aggregator of the log. The others, who cannot
    /// check a proof, trust whom the operator named and whom those vouch for; if nobody was named, whoever they find. An
    /// aggregator also trusts the servers that it believes.
    pub(super) fn vouches(&self, peer: &PeerId, role: Role) -> bool {
        let named = self.named().any(|named| named == *peer);
        match (&self.machine, role) {
            (Machine::Aggregator(machine), _) if machine.believed().servers.contains(peer) => true,
            (_, Role::Client) => false,
            (Machine::Server { .. }, Role::Server) => true,
            (Machine::Server { member, .. }, Role::Aggregator) => {
                named || lock(member).server.committee().aggregator().is_some_and(|known| known.peer == *peer)
            }
            (
                Machine::Aggregator(_) | Machine::Client(_) | Machine::Reader(_),
                Role::Server | Role::Aggregator,
            ) => named || self.book.hands_on(peer) || self.named().next().is_none(),
        }
    }

    /// Peers whose entries and rumours no stranger keeps out: whom the operator named, the members of the log, and the
    /// servers that an aggregator believes.
    fn members(&self) -> BTreeSet<PeerId> {
        let mut members: BTreeSet<PeerId> = self.named().collect();
        if let Machine::Server { member, group } = &self.machine {
            let state = group.state();
            let member = lock(member);
            let committee = member.server.committee();
            members.extend(state.members.voters.iter().chain(&state.members.learners).map(|id| id.peer));
            members.extend(committee.servers().keys());
            members.extend(committee.aggregator().map(|bundle| bundle.peer));
        }
        if let Machine::Aggregator(machine) = &self.machine {
            members.extend(machine.believed().servers);
        }
        members.remove(&self.own.peer);
        members
    }

    /// Keeps up with who is a member, and with whom there are rumours.
    pub(super) fn look_after_book(&mut self, now: Time) {
        self.allowances.expire(now);
        let members = self.members();
        if members != self.members {
            self.members.clone_from(&members);
            if let Some(gossip) = &mut self.gossip {
                gossip.set_precious(members.clone());
            }
            let fresh = self.book.set_precious(members);
            self.spread(None, &fresh);
        }
        let linked: Vec<_> = self.links.linked().map(|(peer, hello)| (*peer, hello.role)).collect();
        for (peer, role) in linked {
            if !self.rumoured.contains(&peer) {
                self.rumour_with(peer, role);
            }
        }
    }

    /// Announces this node to a linked peer whose rumours are listened to.
    pub(super) fn rumour_with(&mut self, peer: PeerId, role: Role) {
        if self.gossip.is_some() && self.vouches(&peer, role) {
            self.rumoured.insert(peer);
            self.gossip(gossip::Input::Announce { peer });
        }
    }

    /// Signs and keeps this node's own entry, so that others learn where it is.
    pub(super) fn announce(&mut self) {
        let address = match self.own.role {
            Role::Server | Role::Aggregator => (!self.stopping).then(|| self.address()),
            Role::Client => return,
        };
        let sequence = self.book.next_sequence().max(self.world.wall_clock());
        let entry = PeerEntry::sign(&self.identity, self.own.instance, self.own.role, address, sequence);
        self.book.announce(self.world.now(), entry.clone());
        self.spread(None, &[entry]);
    }

    /// Gives entries to every linked node but the one that they came from. Clients only ask.
    pub(super) fn spread(&self, from: Option<PeerId>, entries: &[PeerEntry]) {
        if entries.is_empty() || self.own.role == Role::Client {
            return;
        }
        let frame: Bytes = Frame::Peers { entries: entries.to_vec() }.encode().into();
        for (peer, _) in self.links.linked().filter(|(peer, _)| Some(**peer) != from) {
            self.links.send_to(peer, Channel::Control, frame.clone());
        }
    }

    pub(super) fn learn(&mut self, from: PeerId, entries: Vec<PeerEntry>) {
        let now = self.world.now();
        let Some(role) = self.links.hello(&from).map(|hello| hello.role) else { return };
        if role == Role::Client {
            return self.rejected("peer-entry", EntryRefused::WrongRole.name(), from);
        }
        let source = Source { from, vouches: self.vouches(&from, role) };
        let (mut fresh, mut learned) = (Vec::new(), false);
        for entry in entries {
            if self.book.is_news(&entry)
                && let Err(reason) = self.admit(now, source, role, &entry)
            {
                self.rejected("peer-entry", reason, from);
                continue;
            }
            match self.book.receive_from(now, entry.clone(), source) {
                Ok(()) if self.book.hands_on(&entry.peer) => fresh.push(entry),
                Ok(()) => learned = true,
                // Everybody hears of everything more than once.
                Err(EntryRefused::Own | EntryRefused::Stale) => {}
                Err(reason) => self.rejected("peer-entry", reason.name(), from),
            }
        }
        if learned || !fresh.is_empty() {
            self.spread(Some(from), &fresh);
            self.dial(now);
        }
    }

    /// Whether the signature of an entry is worth looking at, by who tells of whom, and how often.
    fn admit(
        &mut self,
        now: Time,
        source: Source,
        role: Role,
        entry: &PeerEntry,
    ) -> Result<(), &'static str> {
        let own = entry.peer == source.from;
        if own && entry.role != role {
            return Err(EntryRefused::WrongRole.name());
        }
        let matters = own || entry.peer == self.own.peer || self.book.is_precious(&entry.peer);
        // Servers meet each other; they need nobody's word on who else there is but that of those who belong there.
        if !matters && !source.vouches && self.own.role == Role::Server {
            return Err("stranger");
        }
        let (deed, most) = match (matters, source.vouches) {
            (true, _) => (Deed::Member, ENTRIES_MOST),
            (false, true) => (Deed::Stranger, ENTRIES_MOST),
            (false, false) => (Deed::Stranger, STRANGERS_MOST),
        };
        let every = self.config.announce_interval.checked_div(most).unwrap_or(self.config.announce_interval);
        let allowed = self.allowances.take(now, source.from, deed, Rate { most, every });
        if allowed { Ok(()) } else { Err("too-often") }
    }

    pub(super) fn gossip(&mut self, input: gossip::Input) {
        let Some(gossip) = &mut self.gossip else { return };
        let mut effects = Vec::new();
        gossip.handle(self.world.now(), input, &mut effects);
        for effect in effects {
            match effect {
                gossip::Effect::Send { to, bytes } => self.links.send_to(&to, Channel::Datagram, bytes),
                gossip::Effect::Alive { peer } => self.world.observe(Event::GossipAlive { peer }),
                gossip::Effect::Dead { peer } => self.world.observe(Event::GossipDead { peer }),
                gossip::Effect::Rejected { from } => self.rejected("gossip", "malformed", from),
            }
        }
    }

    /// Tells a publisher, or a reader, when its instance has not answered for too long.
    pub(super) fn look_after_bond(&mut self, now: Time) {
        let (reads, taken) = match &self.machine {
            Machine::Reader(_) => (true, true),
            Machine::Client(client) => (false, client.is_enrolled()),
            Machine::Server { .. } | Machine::Aggregator(_) => (false, false),
        };
        let answers = self.links.linked().any(|(_, hello)| reads || hello.role == Role::Aggregator);
        if answers && taken {
            self.bonded_at = now;
            self.timed_out = false;
        } else if !self.timed_out && now.since(self.bonded_at) >= CONNECT_TIMEOUT {
            self.timed_out = true;
            self.world.observe(Event::Warned(connect_timeout(self.config.instance.name(), answers)));
        }
    }

    /// The aggregator that a client needs and is not linked with, if a header has named one.
    pub(super) fn wanted_aggregator(&self) -> Option<PeerId> {
        match &self.machine {
            Machine::Client(client) => client.wanted_aggregator(),
            Machine::Server { .. } | Machine::Aggregator(_) | Machine::Reader(_) => None,
        }
    }

    /// Whether a client is linked with its aggregator, or knows it and has not dialled it in vain. As long as no header
    /// has named one, any will do.
    pub(super) fn finds_aggregator(&self) -> bool {
        let wanted = self.wanted_aggregator();
        let will_do = |peer: &PeerId| wanted.is_none_or(|wanted| wanted == *peer);
        let aggregators =
            self.book.iter().filter(|entry| entry.role == Role::Aggregator && will_do(&entry.peer));
        let reachable = |entry: &PeerEntry| {
            let dial = entry.address.as_ref().map(|address| self.dials.get(address));
            dial.is_some_and(|dial| dial.is_none_or(|dial| dial.failures == 0))
        };
        self.links.linked().any(|(peer, hello)| hello.role == Role::Aggregator && will_do(peer))
            || aggregators.into_iter().any(reachable)
    }

    /// Dials whoever this node should be linked with and is not.
    pub(super) fn dial(&mut self, now: Time) {
        if self.stopping {
            return;
        }
        let mut wanted: BTreeSet<(PeerId, Address)> = BTreeSet::new();
        // A client needs servers only to find the aggregator; ten thousand of them must not hold links to all.
        // A reader keeps one of them as well: what the aggregator alone shows could be less than there is.
        let lacks_server = matches!(self.machine, Machine::Reader(_))
            && self.links.linked().all(|(_, hello)| hello.role != Role::Server);
        let searches = self.own.role == Role::Client && (lacks_server || !self.finds_aggregator());
        if self.own.role != Role::Client || searches {
            let named = self.bootstrap.iter().filter_map(|named| Some((named.peer, named.address.clone()?)));
            let known = self.known.iter().map(|(peer, address)| (*peer, address.clone()));
            wanted.extend(named.chain(known));
        }
        for entry in self.book.iter() {
            let needed = match (self.own.role, entry.role) {
                (Role::Server | Role::Aggregator, Role::Server) | (Role::Client, Role::Aggregator) => true,
                (Role::Client, Role::Server) => searches,
                (_, Role::Client) | (Role::Server | Role::Aggregator, Role::Aggregator) => false,
            };
            if let (true, Some(address)) = (needed, &entry.address) {
                wanted.insert((entry.peer, address.clone()));
            }
        }
        // What nobody wants to reach is forgotten, or whoever announces ever other addresses fills the memory.
        let listed = |address: &Address| wanted.iter().any(|(_, wanted)| wanted == address);
        self.dials.retain(|address, dial| dial.running || dial.next > now || listed(address));
        for (peer, address) in wanted {
            if peer == self.own.peer || self.links.is_connected(&peer) || self.is_retired(&peer) {
                continue;
            }
            let dial = self.dials.entry(address.clone()).or_default();
            if dial.running || dial.next > now {
                continue;
            }
            dial.running = true;
            let (link, sender) = (self.world.link().clone(), self.sender.clone());
            drop(W::Runtime::spawn(async move {
                let result = link.dial(&address).await;
                // Nobody waits for the result of a node that has ended.
                drop(sender.unbounded_send(Happening::Dialled { address, result }));
            }));
        }
    }

    pub(super) fn dialled(&mut self, address: Address, result: Result<Conn<W>, LinkError>) {
        let now = self.world.now();
        let expected = self.peer_at(&address);
        // Somebody else at the address of a peer is nobody: the key is the peer.
        let result = match result {
            Ok(connection) if !self.belongs(&address, connection.peer()) => {
                self.rejected("link", "other-peer", connection.peer());
                connection.close(0);
                Err(LinkError::Unreachable)
            }
            result => result,
        };
        let dial = self.dials.entry(address.clone()).or_default();
        dial.running = false;
        match result {
            Ok(connection) => {
                dial.failures = 0;
                dial.next = now.after(BACKOFF_MIN);
                self.connected(connection);
            }
            Err(_) => {
                dial.failures = dial.failures.saturating_add(1);
                let doublings = dial.failures.saturating_sub(1).min(8);
                let wait = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
                let jitter = Duration::from_millis(self.random.below(100));
                dial.next = now.after(wait.saturating_add(jitter));
                let failures = dial.failures;
                self.world.observe(Event::DialFailed { peer: expected, address });
                if let (Some(peer), Machine::Server { member, .. }) = (expected, &self.machine) {
                    lock(member).handle(server::Input::ProbesFailed { peer, failures });
                }
            }
        }
    }

    /// Who is expected to answer at an address, if that is one.
    pub(super) fn peer_at(&self, address: &Address) -> Option<PeerId> {
        self.peers_at(address).next()
    }

    /// Whether an address is said to be a peer's, by the operator or by the peer's own signed entry.
    fn belongs(&self, address: &Address, peer: PeerId) -> bool {
        self.peers_at(address).any(|listed| listed == peer)
    }

    fn peers_at<'a>(&'a self, address: &'a Address) -> impl Iterator<Item = PeerId> + 'a {
        let named = self.bootstrap.iter().filter(|peer| peer.address.as_ref() == Some(address));
        let known = self.known.iter().filter(move |(_, known)| *known == address);
        let listed = named.map(|peer| peer.peer).chain(known.map(|(peer, _)| *peer));
        let told = self.book.iter().filter(|entry| entry.address.as_ref() == Some(address));
        listed.chain(told.map(|entry| entry.peer))
    }

    /// Where others can be dialled, as far as this node would hand that on; without itself.
    pub(super) fn addresses(&self) -> BTreeMap<PeerId, Address> {
        let known = self.book.iter().filter(|entry| entry.peer != self.own.peer);
        let known = known.filter(|entry| self.book.hands_on(&entry.peer));
        known.filter_map(|entry| Some((entry.peer, entry.address.clone()?))).collect()
    }

    /// Keeps for the next process where others are, when that has changed. One write at a time, away from the loop.
    pub(super) fn remember(&mut self, now: Time) {
        if self.remembering || now < self.remember_at {
            return;
        }
        self.remember_at = now.after(self.config.announce_interval.min(REMEMBER));
        let addresses = self.addresses();
        if addresses.is_empty() || addresses == self.remembered {
            return;
        }
        self.remembering = true;
        let text = remembered::text(&addresses);
        self.remembered = addresses;
        let (disk, sender) = (self.world.disk().clone(), self.sender.clone());
        drop(W::Runtime::spawn(async move {
            let written = on_disk::<W, _>(disk, move |disk| disk.write(remembered::FILE, &text)).await;
            let result = written.and_then(|written| written.map_err(|error| error.to_string()));
            // Nobody waits for the result of a node that has ended.
            drop(sender.unbounded_send(Happening::Remembered(result)));
        }));
    }

    /// A write of the address book has come to its end.
    pub(super) fn has_remembered(&mut self, result: Result<(), String>) {
        self.remembering = false;
        if let Err(reason) = result {
            self.remembered.clear();
            self.world.observe(Event::Warned(format!("the address book could not be saved: {reason}")));
        }
    }
}
