//! The network between processes: whatever one of them sends to another passes through here.
//!
//! Every node has two addresses on loopback. It listens at one of them, which nobody is told. The other is what it
//! advertises, and belongs to the relay: a datagram that comes to it is judged by the path from its sender, and then
//! goes on to the node from the address that the sender advertises. So nodes see one another where they are told that
//! they are, and QUIC notices nothing but the path. Datagrams of one path keep their order unless the path reorders, and
//! those that are sent together take as long. They wait for bandwidth, in a queue that has no end.
//!
//! The addresses of a run are its own: their host is made of the number of this process where loopback has many (Linux),
//! and their ports are below those that systems give away, so that nobody takes the address of a node that is down.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use zipnet_core::time::Time;

use crate::cast::NodeId;
use crate::network::Model;
use crate::random::Random;
use crate::stopwatch::Stopwatch;
use crate::wires::Paths;

/// The first port at which nodes may listen.
const INNER: u16 = 10_000;

/// The first port at which the relay may.
const OUTER: u16 = 20_000;

/// The most nodes that a run can have.
const NODES_MAX: u16 = 1_000;

/// How many ranges of ports are tried: a container beside this one may have the same host and the same process number.
const RANGES: u16 = 10;

/// The longest time until a relay that is dropped ends.
const LOOK: Duration = Duration::from_millis(20);

/// How long a path keeps the latency that was drawn for it: what a network does to packets it does to their neighbours.
const LULL: Duration = Duration::from_millis(100);

/// How many datagrams are taken from a node in a row.
const BATCH: usize = 64;

/// No datagram is longer.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// The network between the nodes of a run. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Relay {
    shared: Arc<Shared>,
    addresses: Addresses,
    thread: Option<JoinHandle<()>>,
}

/// Where the nodes of a run are.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    host: Ipv4Addr,
    /// How far ports are moved up.
    range: u16,
}

#[derive(Debug)]
struct Shared {
    base: Model,
    paths: Mutex<Paths>,
    over: AtomicBool,
    passed: AtomicU64,
    dropped: AtomicU64,
    repeated: AtomicU64,
}

/// Datagrams that were carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) passed: u64,
    /// Lost, cut off, or from nobody who belongs to the run.
    pub(super) dropped: u64,
    pub(super) repeated: u64,
}

impl Relay {
    /// A network of so many nodes, with all paths alike.
    ///
    /// # Errors
    /// If the addresses or the thread cannot be had.
    pub(super) fn start(nodes: usize, base: Model, random: &Random) -> io::Result<Self> {
        let nodes = u16::try_from(nodes).ok().filter(|nodes| *nodes <= NODES_MAX).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("a run has at most {NODES_MAX} nodes"))
        })?;
        let (addresses, sockets) = Addresses::bind(nodes)?;
        let shared = Arc::new(Shared {
            base,
            paths: Mutex::default(),
            over: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
        });
        let carrier = Carrier {
            shared: Arc::clone(&shared),
            listens: (0..nodes).map(|node| addresses.of(INNER, node)).collect(),
            sockets,
            random: random.fork("network"),
            watch: Stopwatch::start(),
            links: BTreeMap::new(),
            under_way: BinaryHeap::new(),
            taken: 0,
        };
        let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(move || carrier.run())?;
        Ok(Self { shared, addresses, thread: Some(thread) })
    }

    /// Where a node is to listen.
    pub(super) fn listens(&self, node: NodeId) -> SocketAddr {
        self.addresses.of(INNER, u16::try_from(node).unwrap_or(NODES_MAX))
    }

    /// Where others reach it.
    pub(super) fn advertises(&self, node: NodeId) -> SocketAddr {
        self.addresses.of(OUTER, u16::try_from(node).unwrap_or(NODES_MAX))
    }

    /// Makes the paths as steps and faults want them, for datagrams to come.
    pub(super) fn set(&self, paths: Paths) {
        *self.shared.paths() = paths;
    }

    /// What was carried so far.
    pub(super) fn carried(&self) -> Carried {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Carried {
            passed: of(&self.shared.passed),
            dropped: of(&self.shared.dropped),
            repeated: of(&self.shared.repeated),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panicked: there is no network any more, and the run is over.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn paths(&self) -> MutexGuard<'_, Paths> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Addresses {
    /// Addresses that are free, with the sockets of the relay.
    fn bind(nodes: u16) -> io::Result<(Self, Vec<UdpSocket>)> {
        let host = host(std::process::id());
        let mut failed = io::Error::from(io::ErrorKind::AddrInUse);
        for range in 0..RANGES {
            let addresses = Self { host, range: range * NODES_MAX };
            let bound = (0..nodes).map(|node| {
                drop(UdpSocket::bind(addresses.of(INNER, node))?);
                let socket = UdpSocket::bind(addresses.of(OUTER, node))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
            match bound.collect::<io::Result<Vec<_>>>() {
                Ok(sockets) => return Ok((addresses, sockets)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    const fn of(self, first: u16, node: u16) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(self.host, first + self.range + node))
    }
}

/// An address on loopback for the number of a process. Where there is only one, it is that.
fn host(process: u32) -> Ipv4Addr {
    if cfg!(target_os = "linux") {
        let [_, high, middle, low] = process.to_be_bytes();
        // 127.0.0.0/16 is left to others.
        Ipv4Addr::new(127, high.max(1), middle, low)
    } else {
        Ipv4Addr::LOCALHOST
    }
}

/// A datagram that is under way, by when it arrives.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    at: Time,
    /// In the order in which they were sent.
    number: u64,
    from: NodeId,
    to: NodeId,
    bytes: Vec<u8>,
}

/// What is known of a path.
#[derive(Debug, Default)]
struct Link {
    /// What its latency was drawn from.
    model: Option<Model>,
    latency: Duration,
    /// How long it stays so.
    until: Time,
    /// When the last byte that it was given has left.
    free_at: Time,
    /// When the newest datagram arrives that was not held back.
    newest: Time,
}

/// What the thread of a relay works with.
struct Carrier {
    shared: Arc<Shared>,
    /// Where each node listens.
    listens: Vec<SocketAddr>,
    /// Where others reach it.
    sockets: Vec<UdpSocket>,
    random: Random,
    watch: Stopwatch,
    links: BTreeMap<(NodeId, NodeId), Link>,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    taken: u64,
}

impl Carrier {
    fn run(mut self) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while !self.shared.over.load(Ordering::Relaxed) {
            for node in self.wait() {
                self.take(node, &mut buffer);
            }
            self.deliver();
        }
    }

    fn now(&self) -> Time {
        Time::default().after(self.watch.elapsed())
    }

    /// Waits until a datagram comes or is due; the nodes for which some came.
    fn wait(&self) -> Vec<NodeId> {
        let due = self.under_way.peek().map_or(LOOK, |Reverse(next)| next.at.since(self.now()));
        let mut asked: Vec<_> =
            self.sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        match ppoll(&mut asked, Some(TimeSpec::from(due.min(LOOK))), None) {
            Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => panic!("waiting for datagrams failed: {error}"),
        }
        let came = asked.iter().enumerate().filter(|(_, asked)| asked.any() == Some(true));
        came.map(|(node, _)| node).collect()
    }

    /// Takes what was sent to a node.
    fn take(&mut self, to: NodeId, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let Some(socket) = self.sockets.get(to) else { return };
            // Nothing more is there; or an earlier datagram found nobody, which is its sender's loss.
            let Ok((len, sender)) = socket.recv_from(buffer) else { return };
            let Some(from) = self.listens.iter().position(|listens| *listens == sender) else {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let bytes = buffer.get(..len).unwrap_or_default();
            self.judge(from, to, bytes);
        }
    }

    /// Decides what becomes of a datagram.
    fn judge(&mut self, from: NodeId, to: NodeId, bytes: &[u8]) {
        let (cut, model) = {
            let paths = self.shared.paths();
            let model = paths.models.get(&(from, to)).copied().unwrap_or(self.shared.base);
            (paths.cut.contains(&(from, to)), model)
        };
        if cut || self.random.permille(model.loss_permille) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let now = self.now();
        let link = self.links.entry((from, to)).or_default();
        if link.model != Some(model) || link.until <= now {
            link.model = Some(model);
            link.until = now.after(LULL);
            link.latency = model.latency.draw(&mut self.random);
        }
        link.free_at = link.free_at.max(now).after(model.transmission(bytes.len()));
        let latency = link.latency;
        let in_order = link.free_at.after(latency).max(link.newest);
        let at = if self.random.permille(model.reorder_permille) {
            in_order.after(latency * 3)
        } else {
            link.newest = in_order;
            in_order
        };
        self.send_off(from, to, at, bytes.to_vec());
        if self.random.permille(model.duplicate_permille) {
            self.shared.repeated.fetch_add(1, Ordering::Relaxed);
            self.send_off(from, to, at.after(latency), bytes.to_vec());
        }
    }

    fn send_off(&mut self, from: NodeId, to: NodeId, at: Time, bytes: Vec<u8>) {
        self.taken += 1;
        self.under_way.push(Reverse(UnderWay { at, number: self.taken, from, to, bytes }));
    }

    /// Hands over what has arrived.
    fn deliver(&mut self) {
        let now = self.now();
        while let Some(Reverse(next)) = self.under_way.peek()
            && next.at <= now
            && let Some(Reverse(next)) = self.under_way.pop()
            && let (Some(socket), Some(listens)) = (self.sockets.get(next.from), self.listens.get(next.to))
        {
            let count = match socket.send_to(&next.bytes, listens) {
                Ok(_) => &self.shared.passed,
                // Nobody listens, or the queue of the system is full: such is the network.
                Err(_) => &self.shared.dropped,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::random::Quantiles;

    /// How many datagrams are sent at once, well below what queues of the system hold.
    const MANY: u64 = 200;

    /// Longer than anything takes here on a machine that is busy.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn network(base: Model) -> (Relay, Vec<UdpSocket>) {
        let relay = Relay::start(3, base, &Random::new(1)).expect("loopback has addresses");
        let listen = |node| {
            let socket = UdpSocket::bind(relay.listens(node)).expect("it is free");
            socket.set_read_timeout(Some(PATIENCE)).expect("it is more than nothing");
            socket
        };
        let nodes = (0..3).map(listen).collect();
        (relay, nodes)
    }

    fn send(relay: &Relay, nodes: &[UdpSocket], from: usize, to: usize, text: &str) {
        nodes[from].send_to(text.as_bytes(), relay.advertises(to)).expect("there is room");
    }

    fn next(node: &UdpSocket) -> (String, SocketAddr) {
        let mut buffer = [0; 100];
        let (len, sender) = node.recv_from(&mut buffer).expect("something comes");
        (String::from_utf8_lossy(&buffer[..len]).into_owned(), sender)
    }

    fn until(what: &str, happened: impl Fn() -> bool) {
        let watch = Stopwatch::start();
        while !happened() {
            assert!(watch.elapsed() < PATIENCE, "waited in vain: {what}");
            crate::stopwatch::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn nodes_meet_at_the_addresses_that_they_advertise() {
        let (relay, nodes) = network(Model::local());
        send(&relay, &nodes, 0, 1, "hello");
        assert_eq!(next(&nodes[1]), ("hello".to_owned(), relay.advertises(0)));
        send(&relay, &nodes, 1, 0, "to you");
        assert_eq!(next(&nodes[0]), ("to you".to_owned(), relay.advertises(1)));
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("it is free");
        stranger.send_to(b"let me in", relay.advertises(0)).expect("there is room");
        until("the stranger to be dropped", || relay.carried().dropped == 1);
        assert_eq!(relay.carried(), Carried { passed: 2, dropped: 1, repeated: 0 });
    }

    #[test]
    fn paths_are_cut_in_one_direction_and_healed() {
        let (relay, nodes) = network(Model::local());
        relay.set(Paths { cut: BTreeSet::from([(0, 1)]), ..Paths::default() });
        send(&relay, &nodes, 0, 1, "lost");
        until("it to be dropped", || relay.carried().dropped == 1);
        send(&relay, &nodes, 1, 0, "the other way");
        send(&relay, &nodes, 0, 2, "another path");
        assert_eq!(next(&nodes[0]).0, "the other way");
        assert_eq!(next(&nodes[2]).0, "another path");
        relay.set(Paths::default());
        send(&relay, &nodes, 0, 1, "healed");
        assert_eq!(next(&nodes[1]).0, "healed");
    }

    #[test]
    fn datagrams_keep_their_order_and_take_their_time() {
        let latency = Quantiles::constant(Duration::from_millis(25));
        let (relay, nodes) = network(Model { latency, ..Model::local() });
        let watch = Stopwatch::start();
        for number in 0..MANY {
            send(&relay, &nodes, 0, 1, &number.to_string());
        }
        let came: Vec<_> = (0..MANY).map(|_| next(&nodes[1]).0).collect();
        assert!(watch.elapsed() >= Duration::from_millis(25), "{:?}", watch.elapsed());
        assert_eq!(came, (0..MANY).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_narrow_path_takes_its_time_for_every_byte() {
        let (relay, nodes) = network(Model { bandwidth: Some(10_000), ..Model::local() });
        let (watch, text) = (Stopwatch::start(), "x".repeat(100));
        for _ in 0..20 {
            send(&relay, &nodes, 0, 1, &text);
        }
        send(&relay, &nodes, 1, 0, "the other direction is free");
        assert_eq!(next(&nodes[0]).0, "the other direction is free");
        (0..20).for_each(|_| assert_eq!(next(&nodes[1]).0, text));
        assert!(watch.elapsed() >= Duration::from_millis(200), "{:?}", watch.elapsed());
    }

    #[test]
    fn bad_paths_lose_repeat_and_reorder() {
        let bad =
            Model { loss_permille: 300, duplicate_permille: 300, reorder_permille: 300, ..Model::local() };
        let (relay, nodes) = network(Model::local());
        relay.set(Paths { models: BTreeMap::from([((0, 1), bad)]), ..Paths::default() });
        for number in 0..MANY {
            send(&relay, &nodes, 0, 1, &number.to_string());
        }
        until("all of it to be carried", || {
            let carried = relay.carried();
            carried.passed + carried.dropped == MANY + carried.repeated
        });
        let carried = relay.carried();
        assert!((30..90).contains(&carried.dropped) && (20..70).contains(&carried.repeated), "{carried:?}");
        let came: Vec<u64> =
            (0..carried.passed).map(|_| next(&nodes[1]).0.parse().expect("it is a number")).collect();
        assert!(!came.is_sorted(), "nothing was overtaken");
    }
}
