//! Which of the connections that others open are kept when there is not room for all.
//!
//! Room is kept for those who belong to the instance, in this order: members of the committee and whom the operator
//! named; servers that have proven the committee secret and are in no log yet; registered clients; and whoever is left.
//! Connections that this node opens itself are not counted.
//!
//! - [`Door`]: those of whom nothing is known yet
//! - [`Slots`]: all of them

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::id::PeerId;
use zipnet_core::time::Time;

use crate::meeting::ConnectionId;

/// The most connections that others have opened.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Of these, so many are kept for members of the committee.
pub const MEMBERS_KEPT: usize = 512;
/// The most servers that have proven the committee secret and are in no log.
pub const NEWCOMERS_MAX: usize = 256;
/// The most connections whose other end has said nothing of itself yet.
pub const DOOR_MAX: usize = 1_024;
/// The most clients and strangers together.
pub const OUTSIDERS_MAX: usize = CONNECTIONS_MAX - MEMBERS_KEPT - NEWCOMERS_MAX - DOOR_MAX;
/// The most strangers unless the operator says otherwise: whoever is in no registry, and all who only read.
pub const STRANGERS_MAX: u32 = 4_096;
/// What an operator can set at the most. The rest is for registered clients.
pub const STRANGERS_MOST: u32 = 12_288;
/// The most connections of one peer: two that crossed, and those that its last processes have left behind.
pub const PEER_MAX: usize = 8;
/// At most one part in so many of the strangers comes from one network address.
const ADDRESS_SHARE: usize = 4;
/// How long a connection may stand at a door that is full.
pub const PATIENCE: Duration = Duration::from_secs(1);

const _: () = assert!(STRANGERS_MOST as usize <= OUTSIDERS_MAX, "registered clients have room of their own");

/// What a node knows of the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// A member of the committee, its aggregator, or named by the operator.
    Member,
    /// A server that has proven the committee secret and is in no log yet.
    Newcomer,
    /// A registered client.
    Client,
    /// Anybody else.
    Stranger,
}

/// Why there is no room for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Full {
    /// Too many say nothing of themselves.
    Door,
    /// Too many strangers come from this network address.
    Address,
    /// The peer has too many connections.
    Peer,
    /// There are too many strangers.
    Strangers,
    /// There are too many clients.
    Clients,
    /// Too many servers are in no log.
    Newcomers,
}

impl Full {
    /// The stable name, as metrics spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Door => "door-full",
            Self::Address => "address-full",
            Self::Peer => "peer-full",
            Self::Strangers => "strangers-full",
            Self::Clients => "clients-full",
            Self::Newcomers => "newcomers-full",
        }
    }
}

/// A network that has one holder, as far as strangers are counted by it: an address, or the 64 bits of an IPv6 address that
/// one subscriber gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(IpAddr);

impl Origin {
    /// Of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let prefix = v6.to_bits() >> 64 << 64;
                Self(IpAddr::V6(prefix.into()))
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

/// Those of whom nothing is known yet, by a number that rises. Whoever stands there for long gives way when there are too
/// many: an honest peer says at once what it has to say.
#[derive(Clone, Debug)]
pub struct Door {
    waiting: BTreeMap<u64, (Time, Option<Origin>)>,
    origins: BTreeMap<Origin, usize>,
    most: usize,
    most_of_one: usize,
}

impl Door {
    /// For so many in all, and so many of one origin.
    #[must_use]
    pub const fn new(most: usize, most_of_one: usize) -> Self {
        Self { waiting: BTreeMap::new(), origins: BTreeMap::new(), most, most_of_one }
    }

    /// Somebody comes. Returns who has to give way, if it is the first one: it is forgotten already.
    ///
    /// # Errors
    /// If there is no room.
    pub fn enter(&mut self, now: Time, number: u64, origin: Option<Origin>) -> Result<Option<u64>, Full> {
        let alike = origin.and_then(|origin| self.origins.get(&origin)).copied().unwrap_or(0);
        if alike >= self.most_of_one {
            return Err(Full::Address);
        }
        let mut gives_way = None;
        if self.waiting.len() >= self.most {
            let first = self.waiting.first_key_value();
            let (number, _) =
                first.filter(|(_, (since, _))| since.after(PATIENCE) <= now).ok_or(Full::Door)?;
            gives_way = Some(*number);
        }
        if let Some(number) = gives_way {
            self.leave(number);
        }
        self.waiting.insert(number, (now, origin));
        if let Some(origin) = origin {
            let count = self.origins.entry(origin).or_default();
            *count = count.saturating_add(1);
        }
        Ok(gives_way)
    }

    /// Somebody has come in, or has gone. Returns whether it stood there.
    pub fn leave(&mut self, number: u64) -> bool {
        let Some((_, origin)) = self.waiting.remove(&number) else { return false };
        less_of(&mut self.origins, origin);
        true
    }

    /// How many stand there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// The connections that others have opened.
#[derive(Clone, Debug)]
pub struct Slots {
    strangers_max: usize,
    door: Door,
    held: BTreeMap<ConnectionId, Held>,
    strangers: BTreeSet<ConnectionId>,
    newcomers: BTreeSet<ConnectionId>,
    clients: usize,
    peers: BTreeMap<PeerId, usize>,
    /// Of strangers.
    origins: BTreeMap<Origin, usize>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    peer: PeerId,
    origin: Option<Origin>,
    /// `None`: it stands at the door.
    standing: Option<Standing>,
}

impl Slots {
    /// With room for so many strangers.
    #[must_use]
    pub fn new(strangers_max: u32) -> Self {
        let strangers_max = usize::try_from(strangers_max).unwrap_or(usize::MAX);
        Self {
            strangers_max,
            door: Door::new(DOOR_MAX, DOOR_MAX / ADDRESS_SHARE),
            held: BTreeMap::new(),
            strangers: BTreeSet::new(),
            newcomers: BTreeSet::new(),
            clients: 0,
            peers: BTreeMap::new(),
            origins: BTreeMap::new(),
        }
    }

    /// A connection was opened by a peer of this standing. Members and registered clients have their place at once, the
    /// others stand at the door until they have said who they are. Returns which
    /// connection has to be closed instead, if one has.
    ///
    /// # Errors
    /// If there is no room; nothing has changed then.
    pub fn arrive(
        &mut self,
        now: Time,
        id: ConnectionId,
        peer: PeerId,
        origin: Option<Origin>,
        standing: Standing,
    ) -> Result<Option<ConnectionId>, Full> {
        if self.peers.get(&peer).is_some_and(|count| *count >= PEER_MAX) {
            return Err(Full::Peer);
        }
        let mut gives_way = None;
        let standing = match standing {
            Standing::Member | Standing::Client => {
                self.place(id, origin, standing)?;
                Some(standing)
            }
            Standing::Newcomer | Standing::Stranger => {
                gives_way = self.door.enter(now, id.0, origin)?.map(ConnectionId);
                None
            }
        };
        self.held.insert(id, Held { peer, origin, standing });
        let count = self.peers.entry(peer).or_default();
        *count = count.saturating_add(1);
        if let Some(id) = gives_way {
            self.leave(id);
        }
        Ok(gives_way)
    }

    /// The other end has said who it is. Changes nothing for connections that this node opened, and for those that have
    /// their place.
    ///
    /// # Errors
    /// If there is no room. It stays at the door until it is closed.
    pub fn settle(&mut self, id: ConnectionId, standing: Standing) -> Result<(), Full> {
        let Some(held) = self.held.get(&id).copied().filter(|held| held.standing.is_none()) else {
            return Ok(());
        };
        self.place(id, held.origin, standing)?;
        self.door.leave(id.0);
        self.held.insert(id, Held { standing: Some(standing), ..held });
        Ok(())
    }

    /// Gives those who have come to belong here the place of those who do, which makes room for others.
    pub fn promote(&mut self, standing: impl Fn(&PeerId) -> Standing) {
        let waiting: Vec<_> = self.strangers.iter().chain(&self.newcomers).copied().collect();
        for id in waiting {
            let Some(held) = self.held.get(&id).copied() else { continue };
            let now = standing(&held.peer);
            let belongs = matches!(now, Standing::Member | Standing::Client);
            if belongs && self.place(id, held.origin, now).is_ok() {
                self.displace(id, held);
                self.held.insert(id, Held { standing: Some(now), ..held });
            }
        }
    }

    /// A connection is gone.
    pub fn leave(&mut self, id: ConnectionId) {
        let Some(held) = self.held.remove(&id) else { return };
        self.displace(id, held);
        if let Some(count) = self.peers.get_mut(&held.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.peers.remove(&held.peer);
            }
        }
    }

    /// Takes a place, if there is one.
    fn place(&mut self, id: ConnectionId, origin: Option<Origin>, standing: Standing) -> Result<(), Full> {
        let is_full = self.clients.saturating_add(self.strangers.len()) >= OUTSIDERS_MAX;
        match standing {
            // The log and the operator say who these are, so they are few.
            Standing::Member => {}
            Standing::Newcomer if self.newcomers.len() >= NEWCOMERS_MAX => return Err(Full::Newcomers),
            Standing::Newcomer => drop(self.newcomers.insert(id)),
            Standing::Client if is_full => return Err(Full::Clients),
            Standing::Client => self.clients = self.clients.saturating_add(1),
            Standing::Stranger => {
                let most_of_one = self.strangers_max.div_ceil(ADDRESS_SHARE);
                let alike = origin.and_then(|origin| self.origins.get(&origin)).copied().unwrap_or(0);
                if self.strangers.len() >= self.strangers_max || is_full {
                    return Err(Full::Strangers);
                }
                if alike >= most_of_one {
                    return Err(Full::Address);
                }
                self.strangers.insert(id);
                if let Some(origin) = origin {
                    self.origins.insert(origin, alike.saturating_add(1));
                }
            }
        }
        Ok(())
    }

    /// Gives up the place of a connection.
    fn displace(&mut self, id: ConnectionId, held: Held) {
        match held.standing {
            None => drop(self.door.leave(id.0)),
            Some(Standing::Member) => {}
            Some(Standing::Newcomer) => drop(self.newcomers.remove(&id)),
            Some(Standing::Client) => self.clients = self.clients.saturating_sub(1),
            Some(Standing::Stranger) => {
                self.strangers.remove(&id);
                less_of(&mut self.origins, held.origin);
            }
        }
    }
}

/// Counts one less of an origin.
fn less_of(origins: &mut BTreeMap<Origin, usize>, origin: Option<Origin>) {
    let Some(origin) = origin else { return };
    if let Some(count) = origins.get_mut(&origin) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            origins.remove(&origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn peer(number: usize) -> PeerId {
        let mut peer = [0; 32];
        peer[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
        PeerId(peer)
    }

    fn index(number: u64) -> usize {
        usize::try_from(number).unwrap()
    }

    fn at(millis: u64) -> Time {
        Time(millis * 1_000_000)
    }

    fn origin(number: usize) -> Option<Origin> {
        Some(Origin::of(Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into()))
    }

    /// Connections that come one after the other, each of another peer and from another address.
    struct Crowd {
        slots: Slots,
        last: u64,
    }

    impl Crowd {
        fn new(strangers_max: u32) -> Self {
            Self { slots: Slots::new(strangers_max), last: 0 }
        }

        fn come(&mut self, standing: Standing) -> Result<ConnectionId, Full> {
            self.last += 1;
            self.come_from(origin(index(self.last)), standing)
        }

        fn come_from(&mut self, origin: Option<Origin>, standing: Standing) -> Result<ConnectionId, Full> {
            self.last += 1;
            let id = ConnectionId(self.last);
            let peer = peer(index(self.last));
            assert_eq!(self.slots.arrive(at(0), id, peer, origin, standing)?, None);
            self.slots.settle(id, standing).map(|()| id).inspect_err(|_| self.slots.leave(id))
        }

        /// How many of a standing find a place until there is none, and why then.
        fn fill(&mut self, standing: Standing) -> (usize, Full) {
            for count in 0.. {
                if let Err(full) = self.come(standing) {
                    return (count, full);
                }
                assert!(count < 2 * CONNECTIONS_MAX, "without end");
            }
            unreachable!("it ends above")
        }
    }

    #[test]
    fn strangers_leave_room_for_clients_and_both_leave_room_for_servers() {
        let mut crowd = Crowd::new(STRANGERS_MAX);
        let strangers = usize::try_from(STRANGERS_MAX).unwrap();
        assert_eq!(crowd.fill(Standing::Stranger), (strangers, Full::Strangers));
        assert_eq!(crowd.fill(Standing::Client), (OUTSIDERS_MAX - strangers, Full::Clients));
        assert_eq!(crowd.fill(Standing::Newcomer), (NEWCOMERS_MAX, Full::Newcomers));
        for _ in 0..MEMBERS_KEPT {
            crowd.come(Standing::Member).unwrap();
        }
        assert_eq!(crowd.slots.held.len() + DOOR_MAX, CONNECTIONS_MAX);
        assert_eq!(crowd.come(Standing::Stranger), Err(Full::Strangers));
    }

    #[test]
    fn one_address_has_a_part_of_what_strangers_have() {
        let mut crowd = Crowd::new(10);
        let mut here = Vec::new();
        for _ in 0..3 {
            here.push(crowd.come_from(origin(1), Standing::Stranger).unwrap());
        }
        assert_eq!(crowd.come_from(origin(1), Standing::Stranger), Err(Full::Address));
        crowd.come_from(origin(2), Standing::Stranger).unwrap();
        crowd.come_from(origin(1), Standing::Client).unwrap();
        crowd.slots.leave(here[0]);
        crowd.come_from(origin(1), Standing::Stranger).unwrap();
        assert_eq!(crowd.come_from(origin(1), Standing::Stranger), Err(Full::Address));
        for _ in 0..6 {
            crowd.come_from(None, Standing::Stranger).unwrap();
        }
        assert_eq!(crowd.come_from(None, Standing::Stranger), Err(Full::Strangers));
        let v6 = |low: u128| Origin::of(Ipv6Addr::from_bits(0x2001_0db8 << 96 | 7 << 64 | low).into());
        assert_eq!(v6(1), v6(u128::from(u64::MAX)), "they have one subscriber");
        assert_ne!(v6(0), v6(8 << 64));
        let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
        assert_eq!(Origin::of(mapped.into()), Origin::of(Ipv4Addr::new(10, 0, 0, 1).into()));
    }

    #[test]
    fn whoever_is_registered_makes_room_for_the_next_stranger() {
        let mut crowd = Crowd::new(4);
        let first = crowd.come(Standing::Stranger).unwrap();
        assert_eq!(crowd.fill(Standing::Stranger), (3, Full::Strangers));
        crowd.slots.promote(|_| Standing::Stranger);
        assert_eq!(crowd.come(Standing::Stranger), Err(Full::Strangers));
        let registered = crowd.slots.held[&first].peer;
        crowd.slots.promote(|peer| if *peer == registered { Standing::Client } else { Standing::Stranger });
        crowd.come(Standing::Stranger).unwrap();
        assert_eq!(crowd.come(Standing::Stranger), Err(Full::Strangers));
        crowd.slots.leave(first);
        assert_eq!(crowd.slots.clients, 0);
        assert_eq!(crowd.come(Standing::Stranger), Err(Full::Strangers), "its place was another one");
    }

    #[test]
    fn whoever_says_nothing_gives_way_and_one_address_does_not_fill_the_door() {
        let mut slots = Slots::new(STRANGERS_MAX);
        let mut arrive = |now, number: usize, from| {
            let id = ConnectionId(u64::try_from(number).unwrap());
            slots.arrive(at(now), id, peer(number), from, Standing::Stranger)
        };
        for number in 0..DOOR_MAX / ADDRESS_SHARE {
            assert_eq!(arrive(0, number, origin(0)), Ok(None));
        }
        assert_eq!(arrive(0, 5000, origin(0)), Err(Full::Address));
        for number in DOOR_MAX / ADDRESS_SHARE..DOOR_MAX {
            assert_eq!(arrive(0, number, origin(number)), Ok(None));
        }
        assert_eq!(arrive(999, 6000, origin(6000)), Err(Full::Door), "all have just come");
        assert_eq!(arrive(1000, 6001, origin(6001)), Ok(Some(ConnectionId(0))));
        assert_eq!(arrive(1000, 6002, origin(0)), Ok(Some(ConnectionId(1))), "one of these has gone");
        assert_eq!(slots.door.len(), DOOR_MAX);
        let known = slots.arrive(at(0), ConnectionId(9000), peer(9000), origin(0), Standing::Member);
        assert_eq!(known, Ok(None), "a member does not stand at the door");
        assert_eq!(slots.settle(ConnectionId(9001), Standing::Stranger), Ok(()), "this node opened it");
    }

    #[test]
    fn one_peer_has_few_connections_whoever_it_is() {
        let mut slots = Slots::new(STRANGERS_MAX);
        let mut arrive = |id| slots.arrive(at(0), ConnectionId(id), peer(1), origin(1), Standing::Client);
        for id in 0..8 {
            assert_eq!(arrive(id), Ok(None));
        }
        assert_eq!(arrive(8), Err(Full::Peer));
        slots.leave(ConnectionId(3));
        let again = slots.arrive(at(0), ConnectionId(9), peer(1), origin(1), Standing::Client);
        assert_eq!(again, Ok(None));
        assert_eq!(slots.clients, PEER_MAX);
        for id in 0..10 {
            slots.leave(ConnectionId(id));
        }
        assert_eq!((slots.clients, slots.held.len(), slots.peers.len()), (0, 0, 0));
    }
}
