//! Who is alive, by rumour: a sans-IO wrapper of foca (SWIM) among servers and the aggregator.
//!
//! Gossip alone decides nothing. It hints at whom to dial, and its silence makes nobody lose a vote; membership is
//! [`crate::meeting`]'s, by what the log says. Addresses travel as signed entries in [`book`].
//!
//! Driven like the role machines: [`Gossip::handle`] for everything that happens, [`Gossip::deadline`] for the next tick.

pub mod book;

use core::convert::Infallible;
use core::fmt;
use core::num::{NonZeroU8, NonZeroUsize};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes};
use foca::{
    AccumulatingRuntime, Codec as _, Foca, Header, Member, Message, NoCustomBroadcast, OwnedNotification,
    State, Timer,
};
use zipnet_core::id::PeerId;
use zipnet_core::random::Random;
use zipnet_core::time::Time;

/// The first byte of every datagram.
pub const GOSSIP_VERSION: u8 = 1;

/// The longest datagram, version byte included: fits any network.
pub const DATAGRAM_BYTES_MAX: usize = 1200;

/// The most peers that are remembered, dead ones included, besides those that matter.
pub const PEERS_MAX: usize = 256;

/// How often an announcement to contacts is repeated while nobody has answered: foca never repeats one.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(2);

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A datagram came from a linked server or aggregator.
    Received {
        /// From whom, as the link says.
        from: PeerId,
        /// What came.
        bytes: Bytes,
    },
    /// Time passed. Harmless at any moment.
    Tick,
    /// This server or aggregator is linked: say hello to it.
    Announce {
        /// Whom.
        peer: PeerId,
    },
    /// The link with a peer is gone for good: no more announcements to it.
    Forget {
        /// Whom.
        peer: PeerId,
    },
    /// This node stops: tell the others. Everything after this is ignored.
    Leave,
}

/// Something that gossip wants done, or believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a datagram, if the peer is linked.
    Send {
        /// To whom.
        to: PeerId,
        /// What.
        bytes: Bytes,
    },
    /// A peer is believed to live.
    Alive {
        /// Who.
        peer: PeerId,
    },
    /// A peer is believed to be dead or to have left.
    Dead {
        /// Who.
        peer: PeerId,
    },
    /// A datagram was refused; nothing changed.
    Rejected {
        /// From whom it came.
        from: PeerId,
    },
}

/// Gossip of one node.
pub struct Gossip {
    own: PeerId,
    foca: Foca<Rumoured, Codec, Rng, NoCustomBroadcast>,
    /// Every peer that an accepted datagram named. At most [`PEERS_MAX`], and as many that matter.
    known: BTreeSet<PeerId>,
    /// Peers for which there is room however many others were named.
    precious: BTreeSet<PeerId>,
    /// Ordered by time, then by when they were set.
    timers: BTreeMap<(Time, u64), Timer<Rumoured>>,
    timers_set: u64,
    /// Linked peers to announce to. At most [`PEERS_MAX`], and those that matter.
    contacts: BTreeSet<PeerId>,
    announce_at: Time,
    alive: BTreeSet<PeerId>,
    left: bool,
}

impl Gossip {
    /// Starts gossip of the node `own`.
    ///
    /// `incarnation` should rise with every start of the node; seconds of the wall clock will do. If it does not, the
    /// others say that this incarnation is dead, and the node takes higher ones until they believe it.
    #[must_use]
    pub fn new(own: PeerId, incarnation: u64, random: Random) -> Self {
        let me = Rumoured { peer: own, incarnation: incarnation.min(INCARNATION_MAX) };
        Self {
            own,
            foca: Foca::new(me, config(), Rng(random), Codec),
            known: BTreeSet::from([own]),
            precious: BTreeSet::new(),
            timers: BTreeMap::new(),
            timers_set: 0,
            contacts: BTreeSet::new(),
            announce_at: Time::NEVER,
            alive: BTreeSet::new(),
            left: false,
        }
    }

    /// Sets the peers that matter: names of others do not keep them out.
    pub fn set_precious(&mut self, peers: BTreeSet<PeerId>) {
        self.precious = peers;
    }

    /// Applies one input. The only function that changes gossip, but for [`Gossip::set_precious`].
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Effect>) {
        if self.left {
            return;
        }
        let mut runtime = AccumulatingRuntime::new();
        match input {
            Input::Received { from, bytes } => self.receive(from, &bytes, &mut runtime, out),
            Input::Tick => self.tick(now, &mut runtime, out),
            Input::Announce { peer } => {
                let room = self.contacts.len() < PEERS_MAX || self.precious.contains(&peer);
                if peer != self.own && (room || self.contacts.contains(&peer)) {
                    self.contacts.insert(peer);
                    self.announce(now, peer, &mut runtime);
                }
            }
            Input::Forget { peer } => {
                self.contacts.remove(&peer);
            }
            Input::Leave => {
                tolerate(self.foca.leave_cluster(&mut runtime));
                self.left = true;
            }
        }
        self.drain(now, &mut runtime, out);
        if self.left {
            self.timers.clear();
            self.announce_at = Time::NEVER;
        }
    }

    /// When to call [`Gossip::handle`] with [`Input::Tick`] if nothing else happens first.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let timer = self.timers.first_key_value().map_or(Time::NEVER, |((at, _), _)| *at);
        timer.min(self.announce_at)
    }

    /// Peers that are believed to live, without this node.
    #[must_use]
    pub const fn alive(&self) -> &BTreeSet<PeerId> {
        &self.alive
    }

    fn receive(
        &mut self,
        from: PeerId,
        bytes: &[u8],
        runtime: &mut AccumulatingRuntime<Rumoured>,
        out: &mut Vec<Effect>,
    ) {
        let packet = match bytes {
            [GOSSIP_VERSION, packet @ ..] if bytes.len() <= DATAGRAM_BYTES_MAX => packet,
            _ => return out.push(Effect::Rejected { from }),
        };
        // The sender stands first. A rumour has to come from who claims to tell it.
        if from == self.own || packet.first_chunk::<32>() != Some(from.as_bytes()) {
            return out.push(Effect::Rejected { from });
        }
        let Ok(named) = self.named(packet) else { return out.push(Effect::Rejected { from }) };
        self.known.extend(named);
        if self.foca.handle_data(packet, &mut *runtime).is_err() {
            out.push(Effect::Rejected { from });
        }
    }

    /// Reads a packet to its end and says whom it names. foca acts on each part of a packet before it looks at the next
    /// one, so what it would refuse too late is refused here: bytes behind the end, an indirect probe of this node that
    /// comes from itself, and more peers than are remembered.
    fn named(&self, mut packet: &[u8]) -> Result<BTreeSet<PeerId>, Malformed> {
        let header = Codec.decode_header(&mut packet)?;
        let mut named = BTreeSet::from([header.src.peer, header.dst.peer]);
        match header.message {
            Message::PingReq { target: third, .. }
            | Message::IndirectPing { origin: third, .. }
            | Message::IndirectAck { target: third, .. }
            | Message::ForwardedAck { origin: third, .. } => {
                if third.peer == self.own {
                    return Err(Malformed);
                }
                named.insert(third.peer);
            }
            Message::Announce if !packet.is_empty() => return Err(Malformed),
            Message::Ping(_)
            | Message::Ack(_)
            | Message::Announce
            | Message::Feed
            | Message::Gossip
            | Message::Broadcast
            | Message::TurnUndead => {}
        }
        if !packet.is_empty() {
            let members = if packet.len() < 2 { Err(Malformed) } else { Ok(packet.get_u16()) }?;
            for _ in 0..members {
                named.insert(Codec.decode_member(&mut packet)?.id().peer);
            }
        }
        let fresh = named.difference(&self.known).count();
        let strangers = named.difference(&self.known).filter(|peer| !self.precious.contains(*peer)).count();
        // Who mattered once counts as a stranger later, so the sum is bounded as well.
        let known = self.known.difference(&self.precious).count();
        let room = strangers == 0 || known.saturating_add(strangers) <= PEERS_MAX;
        let bounded = self.known.len().saturating_add(fresh) <= 2 * PEERS_MAX;
        if packet.is_empty() && room && bounded { Ok(named) } else { Err(Malformed) }
    }

    fn tick(&mut self, now: Time, runtime: &mut AccumulatingRuntime<Rumoured>, out: &mut Vec<Effect>) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let timer = entry.remove();
            tolerate(self.foca.handle_timer(timer, &mut *runtime));
            self.drain(now, runtime, out);
        }
        if self.announce_at <= now {
            self.announce_at = Time::NEVER;
            if self.foca.num_members() == 0 {
                for peer in self.contacts.clone() {
                    self.announce(now, peer, runtime);
                }
            }
        }
    }

    fn announce(&mut self, now: Time, peer: PeerId, runtime: &mut AccumulatingRuntime<Rumoured>) {
        tolerate(self.foca.announce(Rumoured { peer, incarnation: 0 }, runtime));
        self.announce_at = self.announce_at.min(now.after(ANNOUNCE_AGAIN));
    }

    fn drain(&mut self, now: Time, runtime: &mut AccumulatingRuntime<Rumoured>, out: &mut Vec<Effect>) {
        while let Some((to, packet)) = runtime.to_send() {
            // foca keeps other incarnations of this node as members that are down, and announces itself to them.
            if to.peer == self.own {
                continue;
            }
            let mut bytes = Vec::with_capacity(packet.len().saturating_add(1));
            bytes.push(GOSSIP_VERSION);
            bytes.extend_from_slice(&packet);
            out.push(Effect::Send { to: to.peer, bytes: bytes.into() });
        }
        while let Some((after, timer)) = runtime.to_schedule() {
            self.timers.insert((now.after(after), self.timers_set), timer);
            self.timers_set = self.timers_set.wrapping_add(1);
        }
        while let Some(notification) = runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(member) if member.peer != self.own => {
                    if self.alive.insert(member.peer) {
                        out.push(Effect::Alive { peer: member.peer });
                    }
                }
                OwnedNotification::MemberDown(member) => {
                    if self.alive.remove(&member.peer) {
                        out.push(Effect::Dead { peer: member.peer });
                    }
                }
                // Alone: keep announcing to whoever is linked.
                OwnedNotification::Idle => self.announce_at = self.announce_at.min(now.after(ANNOUNCE_AGAIN)),
                OwnedNotification::MemberUp(_)
                | OwnedNotification::Rename(..)
                | OwnedNotification::Active
                | OwnedNotification::Defunct
                | OwnedNotification::Rejoin(_) => {}
            }
        }
    }
}

impl fmt::Debug for Gossip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gossip").field("own", &self.own).field("alive", &self.alive).finish_non_exhaustive()
    }
}

/// foca's errors are told by value and leave it usable; what they mean for a datagram, [`Effect::Rejected`] says.
fn tolerate(result: Result<(), foca::Error>) {
    drop(result);
}

/// A committee is small and its nodes are hosts in data centres: a dead one is noticed by all within about 8 s.
fn config() -> foca::Config {
    const ONE: NonZeroUsize = NonZeroUsize::MIN;
    const THREE: NonZeroUsize = NonZeroUsize::new(3).expect("three is not zero");
    let every = |seconds, num_members| {
        Some(foca::PeriodicParams { frequency: Duration::from_secs(seconds), num_members })
    };
    foca::Config {
        probe_period: Duration::from_millis(1500),
        probe_rtt: Duration::from_millis(500),
        num_indirect_probes: THREE,
        max_transmissions: NonZeroU8::new(6).expect("six is not zero"),
        suspect_to_down_after: Duration::from_secs(4),
        // Bounded by `Gossip::named` instead, which admits no more than `PEERS_MAX` peers.
        remove_down_after: None,
        max_packet_size: NonZeroUsize::new(DATAGRAM_BYTES_MAX - 1).expect("a datagram has room"),
        notify_down_members: true,
        periodic_announce: every(10, ONE),
        periodic_announce_to_down_members: every(15, ONE),
        periodic_gossip: every(1, THREE),
    }
}

/// A peer as rumours name it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rumoured {
    peer: PeerId,
    /// Of the peer's process. Not to be mixed up with foca's own, which counts refuted suspicions.
    incarnation: u64,
}

/// Bounds what a rumour can make a node count up to.
const INCARNATION_MAX: u64 = 1 << 62;

/// How far a node that was declared dead jumps ahead: twelve days of seconds, so that a clock that went back is made up
/// for within a few messages.
const RENEWAL: u64 = 1 << 20;

impl fmt::Debug for Rumoured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.peer.short(), self.incarnation)
    }
}

impl foca::Identity for Rumoured {
    type Addr = PeerId;

    fn renew(&self) -> Option<Self> {
        let incarnation = self.incarnation.checked_add(RENEWAL).filter(|next| *next <= INCARNATION_MAX)?;
        Some(Self { incarnation, ..*self })
    }

    fn addr(&self) -> PeerId {
        self.peer
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.incarnation > adversary.incarnation
    }
}

/// Fixed-size fields in order; the sender's peer id comes first.
struct Codec;

/// A datagram is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("read a rumour: it is malformed")
    }
}

impl core::error::Error for Malformed {}

const PEER_BYTES: usize = 32 + 8;

impl Codec {
    fn peer(buf: &mut impl Buf) -> Result<Rumoured, Malformed> {
        if buf.remaining() < PEER_BYTES {
            return Err(Malformed);
        }
        let mut peer = [0; 32];
        buf.copy_to_slice(&mut peer);
        let peer = PeerId(peer);
        let incarnation = buf.get_u64_le();
        if incarnation > INCARNATION_MAX {
            return Err(Malformed);
        }
        Ok(Rumoured { peer, incarnation })
    }

    fn byte(buf: &mut impl Buf) -> Result<u8, Malformed> {
        if buf.has_remaining() { Ok(buf.get_u8()) } else { Err(Malformed) }
    }

    fn short(buf: &mut impl Buf) -> Result<u16, Malformed> {
        if buf.remaining() < 2 { Err(Malformed) } else { Ok(buf.get_u16_le()) }
    }
}

fn put_peer(peer: &Rumoured, buf: &mut impl BufMut) -> Result<(), Malformed> {
    if buf.remaining_mut() < PEER_BYTES {
        return Err(Malformed);
    }
    buf.put_slice(peer.peer.as_bytes());
    buf.put_u64_le(peer.incarnation);
    Ok(())
}

fn put(bytes: &[u8], buf: &mut impl BufMut) -> Result<(), Malformed> {
    if buf.remaining_mut() < bytes.len() {
        return Err(Malformed);
    }
    buf.put_slice(bytes);
    Ok(())
}

impl foca::Codec<Rumoured> for Codec {
    type Error = Malformed;

    fn encode_header(&mut self, header: &Header<Rumoured>, mut buf: impl BufMut) -> Result<(), Malformed> {
        put_peer(&header.src, &mut buf)?;
        put(&header.src_incarnation.to_le_bytes(), &mut buf)?;
        put_peer(&header.dst, &mut buf)?;
        let (kind, number, third) = match &header.message {
            Message::Ping(number) => (0, Some(*number), None),
            Message::Ack(number) => (1, Some(*number), None),
            Message::PingReq { target, probe_number } => (2, Some(*probe_number), Some(target)),
            Message::IndirectPing { origin, probe_number } => (3, Some(*probe_number), Some(origin)),
            Message::IndirectAck { target, probe_number } => (4, Some(*probe_number), Some(target)),
            Message::ForwardedAck { origin, probe_number } => (5, Some(*probe_number), Some(origin)),
            Message::Announce => (6, None, None),
            Message::Feed => (7, None, None),
            Message::Gossip => (8, None, None),
            Message::Broadcast => (9, None, None),
            Message::TurnUndead => (10, None, None),
        };
        put(&[kind], &mut buf)?;
        if let Some(number) = number {
            put(&[number], &mut buf)?;
        }
        third.map_or(Ok(()), |third| put_peer(third, &mut buf))
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Rumoured>, Malformed> {
        let src = Self::peer(&mut buf)?;
        let src_incarnation = Self::short(&mut buf)?;
        let dst = Self::peer(&mut buf)?;
        let message = match Self::byte(&mut buf)? {
            0 => Message::Ping(Self::byte(&mut buf)?),
            1 => Message::Ack(Self::byte(&mut buf)?),
            2 => {
                let probe_number = Self::byte(&mut buf)?;
                Message::PingReq { target: Self::peer(&mut buf)?, probe_number }
            }
            3 => {
                let probe_number = Self::byte(&mut buf)?;
                Message::IndirectPing { origin: Self::peer(&mut buf)?, probe_number }
            }
            4 => {
                let probe_number = Self::byte(&mut buf)?;
                Message::IndirectAck { target: Self::peer(&mut buf)?, probe_number }
            }
            5 => {
                let probe_number = Self::byte(&mut buf)?;
                Message::ForwardedAck { origin: Self::peer(&mut buf)?, probe_number }
            }
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            10 => Message::TurnUndead,
            // 9 carries nothing but broadcasts, which are not used.
            _ => return Err(Malformed),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &Member<Rumoured>, mut buf: impl BufMut) -> Result<(), Malformed> {
        put_peer(member.id(), &mut buf)?;
        put(&member.incarnation().to_le_bytes(), &mut buf)?;
        let state = match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        };
        put(&[state], &mut buf)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Rumoured>, Malformed> {
        let peer = Self::peer(&mut buf)?;
        let incarnation = Self::short(&mut buf)?;
        let state = match Self::byte(&mut buf)? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(Malformed),
        };
        Ok(Member::new(peer, incarnation, state))
    }
}

/// The generator of the tree, as foca wants it.
struct Rng(Random);

impl rand_core::TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(5);

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    /// Nodes with links between all of them, and a switch for each.
    struct Cluster {
        now: Time,
        nodes: Vec<Gossip>,
        up: Vec<bool>,
        queue: BTreeMap<(Time, u64), (PeerId, PeerId, Bytes)>,
        sent: u64,
        /// Everything that was ever sent to the first node.
        to_first: Vec<(PeerId, Bytes)>,
        trace: blake3::Hasher,
    }

    impl Cluster {
        fn new(count: u8, seed: u8) -> Self {
            let node = |number| Gossip::new(peer(number), 1, Random::new([seed ^ number; 32]));
            let nodes: Vec<_> = (1..=count).map(node).collect();
            let up = vec![true; nodes.len()];
            let mut cluster = Self {
                now: Time(0),
                nodes,
                up,
                queue: BTreeMap::new(),
                sent: 0,
                to_first: Vec::new(),
                trace: blake3::Hasher::new(),
            };
            // Everybody knows the first one only.
            for number in 2..=count {
                cluster.input(number, Input::Announce { peer: peer(1) });
            }
            cluster
        }

        fn input(&mut self, number: u8, input: Input) {
            let mut out = Vec::new();
            let index = usize::from(number - 1);
            self.nodes[index].handle(self.now, input, &mut out);
            for effect in out {
                self.trace.update(format!("{:?} {number} {effect:?}", self.now).as_bytes());
                if let Effect::Send { to, bytes } = effect {
                    if to == peer(1) {
                        self.to_first.push((peer(number), bytes.clone()));
                    }
                    self.queue.insert((self.now.after(LATENCY), self.sent), (peer(number), to, bytes));
                    self.sent += 1;
                }
            }
        }

        fn run(&mut self, duration: Duration) {
            let end = self.now.after(duration);
            loop {
                let message = self.queue.first_key_value().map_or(Time::NEVER, |((at, _), _)| *at);
                let up = self.nodes.iter().zip(&self.up).filter(|(_, up)| **up);
                let timer = up.map(|(node, _)| node.deadline()).min().unwrap_or(Time::NEVER);
                let next = message.min(timer);
                if next > end {
                    self.now = end;
                    return;
                }
                self.now = next;
                if message <= timer {
                    let (_, (from, to, bytes)) = self.queue.pop_first().expect("a message is due");
                    if self.up[usize::from(to.0[0] - 1)] && self.up[usize::from(from.0[0] - 1)] {
                        self.input(to.0[0], Input::Received { from, bytes });
                    }
                } else {
                    for number in 1..=u8::try_from(self.nodes.len()).expect("few") {
                        let index = usize::from(number - 1);
                        if self.up[index] && self.nodes[index].deadline() <= self.now {
                            self.input(number, Input::Tick);
                        }
                    }
                }
            }
        }

        fn sees(&self, number: u8) -> Vec<u8> {
            self.nodes[usize::from(number - 1)].alive().iter().map(|peer| peer.0[0]).collect()
        }
    }

    #[test]
    fn everybody_finds_everybody_through_one() {
        let mut cluster = Cluster::new(5, 0);
        cluster.run(Duration::from_secs(15));
        for number in 1..=5_u8 {
            let others: Vec<_> = (1..=5).filter(|other| *other != number).collect();
            assert_eq!(cluster.sees(number), others, "as node {number} sees it");
        }
    }

    #[test]
    fn a_crash_is_noticed_and_a_restart_is_welcome() {
        let mut cluster = Cluster::new(4, 1);
        cluster.run(Duration::from_secs(15));
        cluster.up[2] = false;
        cluster.run(Duration::from_secs(15));
        assert_eq!(cluster.sees(1), [2, 4]);
        // Back with an incarnation that did not rise: the clock went back.
        cluster.nodes[2] = Gossip::new(peer(3), 0, Random::new([99; 32]));
        cluster.up[2] = true;
        cluster.input(3, Input::Announce { peer: peer(1) });
        cluster.run(Duration::from_secs(15));
        for number in [1, 2, 4] {
            assert!(cluster.sees(number).contains(&3), "as node {number} sees it");
        }
        assert_eq!(cluster.sees(3), [1, 2, 4]);
    }

    #[test]
    fn a_departure_is_noticed_at_once() {
        let mut cluster = Cluster::new(4, 2);
        cluster.run(Duration::from_secs(15));
        cluster.input(2, Input::Leave);
        assert_eq!(cluster.nodes[1].deadline(), Time::NEVER);
        cluster.run(Duration::from_secs(3));
        assert_eq!(cluster.sees(1), [3, 4]);
        assert_eq!(cluster.sees(4), [1, 3]);
    }

    #[test]
    fn a_lost_announcement_is_repeated() {
        let mut cluster = Cluster::new(2, 3);
        cluster.queue.clear();
        cluster.run(Duration::from_secs(5));
        assert_eq!(cluster.sees(1), [2]);
        assert_eq!(cluster.sees(2), [1]);
    }

    #[test]
    fn equal_seeds_give_equal_histories() {
        let history = |seed| {
            let mut cluster = Cluster::new(5, seed);
            cluster.run(Duration::from_secs(30));
            cluster.trace.finalize()
        };
        assert_eq!(history(4), history(4));
        assert_ne!(history(4), history(5));
    }

    #[test]
    fn nobody_speaks_for_another() {
        let mut cluster = Cluster::new(3, 6);
        cluster.run(Duration::from_secs(10));
        let mut out = Vec::new();
        let mut announcement = Vec::new();
        Gossip::new(peer(9), 1, Random::new([0; 32])).handle(
            Time(0),
            Input::Announce { peer: peer(1) },
            &mut announcement,
        );
        let [Effect::Send { bytes, .. }] = &announcement[..] else { panic!("one announcement") };
        let forged = Input::Received { from: peer(2), bytes: bytes.clone() };
        cluster.nodes[0].handle(cluster.now, forged, &mut out);
        assert_eq!(out, [Effect::Rejected { from: peer(2) }]);
        assert_eq!(cluster.sees(1), [2, 3]);
    }

    #[test]
    fn a_datagram_that_is_wrong_at_its_end_changes_nothing() {
        let mut cluster = Cluster::new(3, 8);
        cluster.run(Duration::from_secs(10));
        let mut rumour = Vec::new();
        let mut put_member = |number| {
            let member = Member::new(Rumoured { peer: peer(number), incarnation: 1 }, 0, State::Down);
            Codec.encode_member(&member, &mut rumour).expect("a vector has room");
        };
        put_member(3);
        put_member(9);
        let me = Rumoured { peer: peer(1), incarnation: 1 };
        let about_me = Message::PingReq { target: me, probe_number: 1 };
        for (message, end) in [(Message::Gossip, &[0_u8][..]), (about_me, &[])] {
            let src = Rumoured { peer: peer(2), incarnation: 1 };
            let header = Header { src, src_incarnation: 0, dst: me, message };
            let mut bytes = vec![GOSSIP_VERSION];
            Codec.encode_header(&header, &mut bytes).expect("a vector has room");
            bytes.extend([&2_u16.to_be_bytes(), &rumour[..], end].concat());
            let mut out = Vec::new();
            let input = Input::Received { from: peer(2), bytes: bytes.into() };
            cluster.nodes[0].handle(cluster.now, input, &mut out);
            assert_eq!(out, [Effect::Rejected { from: peer(2) }]);
            assert_eq!(cluster.sees(1), [2, 3]);
            assert!(!cluster.nodes[0].known.contains(&peer(9)), "whom it named is not remembered");
        }
    }

    #[test]
    fn a_rumour_of_another_incarnation_makes_no_node_talk_to_itself() {
        let mut cluster = Cluster::new(2, 9);
        cluster.run(Duration::from_secs(10));
        let me = Rumoured { peer: peer(1), incarnation: 1 };
        let header = Header {
            src: Rumoured { peer: peer(2), incarnation: 1 },
            src_incarnation: 0,
            dst: me,
            message: Message::Gossip,
        };
        let mut bytes = vec![GOSSIP_VERSION];
        Codec.encode_header(&header, &mut bytes).expect("a vector has room");
        bytes.extend(1_u16.to_be_bytes());
        let former = Member::new(Rumoured { incarnation: 0, ..me }, 0, State::Alive);
        Codec.encode_member(&former, &mut bytes).expect("a vector has room");
        cluster.input(1, Input::Received { from: peer(2), bytes: bytes.into() });
        cluster.run(Duration::from_secs(60));
        assert!(cluster.to_first.iter().all(|(from, _)| *from != peer(1)));
        assert_eq!(cluster.sees(1), [2]);
    }

    #[test]
    fn random_and_damaged_datagrams_never_panic() {
        let mut cluster = Cluster::new(3, 7);
        let mut random = Random::new([42; 32]);
        cluster.run(Duration::from_secs(30));
        let seen = core::mem::take(&mut cluster.to_first);
        assert!(seen.len() > 10);
        for round in 0..20_000_u64 {
            let below = |random: &mut Random, n: usize| {
                usize::try_from(random.below(u64::try_from(n).expect("small"))).expect("small")
            };
            let (from, mut bytes) = if round % 4 == 0 {
                let mut bytes = vec![0; below(&mut random, DATAGRAM_BYTES_MAX + 10)];
                random.fill(&mut bytes);
                if let [first, ..] = &mut bytes[..] {
                    *first = GOSSIP_VERSION;
                }
                if let Some(sender) = bytes.get_mut(1..33) {
                    sender.fill(2);
                }
                (peer(2), bytes)
            } else {
                let chosen = below(&mut random, seen.len());
                (seen[chosen].0, seen[chosen].1.to_vec())
            };
            for _ in 0..round % 3 {
                if !bytes.is_empty() {
                    let position = below(&mut random, bytes.len());
                    bytes[position] ^= u8::try_from(random.below(256)).expect("a byte");
                }
            }
            if round % 5 == 0 {
                bytes.truncate(below(&mut random, bytes.len() + 1));
            }
            cluster.input(1, Input::Received { from, bytes: bytes.into() });
            if round % 50 == 0 {
                cluster.queue.clear();
                cluster.now = cluster.now.after(Duration::from_millis(200));
                cluster.input(1, Input::Tick);
            }
        }
        assert!(cluster.nodes[0].alive().len() <= PEERS_MAX);
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let mut gossip = Gossip::new(peer(1), 1, Random::new([0; 32]));
        let mut out = Vec::new();
        for number in 0..1000_u32 {
            let mut name = [7; 32];
            name[..4].copy_from_slice(&number.to_le_bytes());
            let stranger = PeerId(name);
            let mut announcement = Vec::new();
            Gossip::new(stranger, 1, Random::new([1; 32])).handle(
                Time(0),
                Input::Announce { peer: peer(1) },
                &mut announcement,
            );
            let [Effect::Send { bytes, .. }] = &announcement[..] else { panic!("one announcement") };
            gossip.handle(Time(0), Input::Received { from: stranger, bytes: bytes.clone() }, &mut out);
        }
        assert_eq!(gossip.alive().len(), PEERS_MAX - 1);

        // There is room for those that matter all the same, and for nobody else.
        let announcement = |number| {
            let mut announcement = Vec::new();
            let input = Input::Announce { peer: peer(1) };
            Gossip::new(peer(number), 1, Random::new([1; 32])).handle(Time(0), input, &mut announcement);
            let [Effect::Send { bytes, .. }] = &announcement[..] else { panic!("one announcement") };
            Input::Received { from: peer(number), bytes: bytes.clone() }
        };
        gossip.set_precious([peer(2), peer(3)].into());
        for number in 2..=4 {
            gossip.handle(Time(0), announcement(number), &mut out);
        }
        let alive = [2, 3, 4].map(|number| gossip.alive().contains(&peer(number)));
        assert_eq!(alive, [true, true, false]);
    }

    #[test]
    fn the_bound_holds_however_often_those_that_matter_change() {
        let mut gossip = Gossip::new(peer(1), 1, Random::new([0; 32]));
        for number in 0..1500_u32 {
            let mut name = [7; 32];
            name[..4].copy_from_slice(&number.to_le_bytes());
            let member = PeerId(name);
            gossip.set_precious([member].into());
            let (mut announcement, mut out) = (Vec::new(), Vec::new());
            let input = Input::Announce { peer: peer(1) };
            Gossip::new(member, 1, Random::new([1; 32])).handle(Time(0), input, &mut announcement);
            let [Effect::Send { bytes, .. }] = &announcement[..] else { panic!("one announcement") };
            gossip.handle(Time(0), Input::Received { from: member, bytes: bytes.clone() }, &mut out);
        }
        assert_eq!(gossip.known.len(), 2 * PEERS_MAX);
    }
}
