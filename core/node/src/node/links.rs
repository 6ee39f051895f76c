//! The connections of one node: which of them are links, and where consensus finds them.
//!
//! A connection becomes a *link* once both ends use it: each has accepted the other's hello, decided that this is the
//! connection for the peer ([`crate::meeting::Duplicates`]), and said so with a welcome. There is at most one link per peer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use zipnet_core::id::{LogId, PeerId, RaftId, Role, StoreId};
use zipnet_core::time::Time;

use crate::consensus::Transport;
use crate::frame::{Farewell, Frame, Hello, Stage};
use crate::meeting::ConnectionId;
use crate::slots::Slots;
use crate::world::{Channel, Connection, LinkError};

/// How long the hellos of a connection may take.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection.
#[derive(Debug)]
pub(super) struct Entry<N> {
    pub(super) connection: N,
    pub(super) peer: PeerId,
    pub(super) opened: Time,
    /// The other end's, once this end has accepted it.
    pub(super) hello: Option<Hello>,
    /// The log of this end as its hello named it.
    pub(super) said: Option<LogId>,
    /// The voters in the other end's log, as it named them last, and the entry since which they are.
    pub(super) named: Option<(u64, BTreeSet<RaftId>)>,
    /// The servers that the other end is linked with, as it says.
    pub(super) reach: BTreeSet<PeerId>,
    /// This end does not want to talk, has said so, and waits for the other end's word.
    pub(super) refused: bool,
    /// This end uses the connection for the peer.
    pub(super) used: bool,
    /// The other end does.
    pub(super) welcomed: bool,
    pub(super) farewell: Option<Farewell>,
}

impl<N> Entry<N> {
    /// How far this connection is.
    pub(super) const fn stage(&self) -> Stage {
        match (&self.hello, self.refused, self.used, self.welcomed) {
            (_, true, ..) => Stage::Refused,
            (None, false, ..) => Stage::Fresh,
            (Some(_), false, false, _) => Stage::Waiting,
            (Some(_), false, true, false) => Stage::Used,
            (Some(_), false, true, true) => Stage::Linked,
        }
    }
}

/// A link that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) peer: PeerId,
    pub(super) role: Role,
    /// The disk that it ran with, if it is a server.
    pub(super) store: Option<StoreId>,
    pub(super) farewell: Option<Farewell>,
}

/// Where consensus finds the links of servers.
#[derive(Debug)]
pub(super) struct Routes<N>(Arc<Mutex<BTreeMap<RaftId, N>>>);

impl<N> Clone for Routes<N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<N> Routes<N> {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<RaftId, N>) -> T) -> T {
        act(&mut self.0.lock().expect("nobody panics while holding the lock"))
    }
}

impl<N: Connection> Transport for Routes<N> {
    fn send(&self, to: RaftId, channel: Channel, message: Bytes) -> Result<(), LinkError> {
        self.with(|routes| routes.get(&to).ok_or(LinkError::Unreachable)?.send(channel, message))
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Links<N> {
    entries: BTreeMap<ConnectionId, Entry<N>>,
    links: BTreeMap<PeerId, ConnectionId>,
    routes: Routes<N>,
    /// Of the connections that others opened.
    pub(super) slots: Slots,
    last: u64,
}

impl<N: Connection> Links<N> {
    pub(super) fn new(slots: Slots) -> Self {
        let routes = Routes(Arc::new(Mutex::new(BTreeMap::new())));
        Self { entries: BTreeMap::new(), links: BTreeMap::new(), routes, slots, last: 0 }
    }

    pub(super) fn routes(&self) -> Routes<N> {
        self.routes.clone()
    }

    /// The number of the next connection.
    pub(super) fn number(&mut self) -> ConnectionId {
        self.last = self.last.checked_add(1).expect("64 bits of connections do not run out");
        ConnectionId(self.last)
    }

    /// Takes a connection that was just opened.
    pub(super) fn add(&mut self, now: Time, id: ConnectionId, connection: N) {
        let peer = connection.peer();
        self.entries.insert(
            id,
            Entry {
                connection,
                peer,
                opened: now,
                hello: None,
                said: None,
                named: None,
                reach: BTreeSet::new(),
                refused: false,
                used: false,
                welcomed: false,
                farewell: None,
            },
        );
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Entry<N>> {
        self.entries.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Entry<N>> {
        self.entries.get_mut(&id)
    }

    pub(super) fn is_linked(&self, peer: &PeerId) -> bool {
        self.links.contains_key(peer)
    }

    /// Whether any connection with this peer exists, be it a link or not yet.
    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.entries.values().any(|entry| entry.peer == *peer)
    }

    /// Every linked peer with its hello, in PeerId order.
    pub(super) fn linked(&self) -> impl Iterator<Item = (&PeerId, &Hello)> {
        self.links.iter().filter_map(|(peer, id)| Some((peer, self.entries.get(id)?.hello.as_ref()?)))
    }

    /// The hello of a linked peer.
    pub(super) fn hello(&self, peer: &PeerId) -> Option<&Hello> {
        self.entries.get(self.links.get(peer)?)?.hello.as_ref()
    }

    /// The links with peers of a role.
    pub(super) fn of_role(&self, role: Role) -> Vec<ConnectionId> {
        let is = |id: &&ConnectionId| {
            let hello = self.entries.get(id).and_then(|entry| entry.hello.as_ref());
            hello.is_some_and(|hello| hello.role == role)
        };
        self.links.values().filter(is).copied().collect()
    }

    /// Every link with its connection and the other end's hello, in PeerId order.
    pub(super) fn linked_entries(&self) -> impl Iterator<Item = (ConnectionId, &Entry<N>, &Hello)> {
        self.links.values().filter_map(|id| {
            let entry = self.entries.get(id)?;
            Some((*id, entry, entry.hello.as_ref()?))
        })
    }

    /// Connections whose hellos take too long.
    pub(super) fn overdue(&self, now: Time) -> Vec<ConnectionId> {
        let overdue = |entry: &Entry<N>| entry.hello.is_none() && entry.opened.after(HELLO_TIMEOUT) <= now;
        self.entries.iter().filter(|(_, entry)| overdue(entry)).map(|(id, _)| *id).collect()
    }

    /// Makes a connection the link of its peer if both ends use it. Says who it is, and what.
    pub(super) fn establish(&mut self, id: ConnectionId) -> Option<(PeerId, Role)> {
        let entry = self.entries.get(&id).filter(|entry| entry.used && entry.welcomed)?;
        let hello = entry.hello.as_ref()?;
        let (peer, role) = (entry.peer, hello.role);
        if let (Role::Server, Some(store)) = (role, hello.store) {
            let connection = entry.connection.clone();
            self.routes.with(|routes| routes.insert(RaftId { peer, store }, connection));
        }
        (self.links.insert(peer, id) != Some(id)).then_some((peer, role))
    }

    /// Closes and forgets a connection. Says whose link it was, if it was one.
    pub(super) fn close(&mut self, id: ConnectionId, farewell: Option<Farewell>) -> Option<Gone> {
        if let Some(reason) = farewell {
            self.send(id, &Frame::Goodbye { reason });
        }
        let entry = self.entries.remove(&id)?;
        self.slots.leave(id);
        entry.connection.close(0);
        if self.links.get(&entry.peer) != Some(&id) {
            return None;
        }
        self.links.remove(&entry.peer);
        let hello = entry.hello?;
        if let Some(store) = hello.store {
            self.routes.with(|routes| routes.remove(&RaftId { peer: entry.peer, store }));
        }
        Some(Gone { peer: entry.peer, role: hello.role, store: hello.store, farewell: entry.farewell })
    }

    /// Closes everything with a goodbye.
    pub(super) fn close_all(&mut self, farewell: Farewell) {
        let all: Vec<_> = self.entries.keys().copied().collect();
        for id in all {
            self.close(id, Some(farewell));
        }
    }

    /// Sends a frame on a connection. One that is gone or full says so through its reader, or repeats itself.
    pub(super) fn send(&self, id: ConnectionId, frame: &Frame) {
        if let Some(entry) = self.entries.get(&id) {
            entry.connection.send(Channel::Control, frame.encode().into()).unwrap_or_default();
        }
    }

    /// Sends a message to a linked peer; what is lost is repeated by whoever wanted it sent.
    pub(super) fn send_to(&self, peer: &PeerId, channel: Channel, message: Bytes) {
        if let Some(entry) = self.links.get(peer).and_then(|id| self.entries.get(id)) {
            entry.connection.send(channel, message).unwrap_or_default();
        }
    }
}
