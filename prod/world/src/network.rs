//! Connections over QUIC. The key of a node is its [`PeerId`](zipnet_core::id::PeerId); the handshake proves it, and nothing else is believed.
//!
//! Each connection has one stream per channel and direction, so that a snapshot does not hold up a heartbeat, and
//! datagrams for gossip. Limits keep strangers small: until the node trusts a peer that dialled it, messages and their
//! rate are bounded by what a client may need.
//!
//! - [`framing`]: messages on a stream
//! - `connection`: one connection
//! - `tls`: keys instead of certificates

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use quinn::{EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use zipnet_core::key::Identity;
use zipnet_core::time::Time;
use zipnet_node::gossip::DATAGRAM_BYTES_MAX;
use zipnet_node::slots::{self, Door, Origin};
use zipnet_node::world::{Address, Link, LinkError};

mod connection;
pub mod framing;
mod tls;

pub use connection::QuicConnection;

/// How long a path may be cut, or a peer dead, before the connection breaks.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection with a dead peer may look alive: whatever is sent first after the peer fell silent begins its idle
/// time anew, and that is a keep-alive at the latest.
pub const DEAD_AFTER: Duration = Duration::from_secs(14);
const _: () = assert!(DEAD_AFTER.as_secs() > IDLE_TIMEOUT.as_secs() + KEEP_ALIVE.as_secs());
/// How often an idle connection is used, so that it stays open.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// How long a handshake may take, in both directions.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How much earlier than the next one an address of a name is dialled.
const HEAD_START: Duration = Duration::from_millis(250);
/// The most addresses of one name that are dialled.
const ADDRESSES_MAX: usize = 8;
const _: () = assert!(HEAD_START.as_millis() * (ADDRESSES_MAX as u128) < HANDSHAKE_TIMEOUT.as_millis() / 2);
/// The most connections in all. Whom the node keeps is judged by [`zipnet_node::slots`]; beside those there are some that are just
/// coming or going.
const CONNECTIONS_MAX: usize = 2 * slots::CONNECTIONS_MAX;
/// From so many unfinished handshakes on, whoever dials must first show that it can be reached at its address.
const HANDSHAKES_CALM: usize = 64;
/// The most unfinished handshakes. One that takes long gives way to the next then.
const HANDSHAKES_MAX: usize = 1_024;
/// The most unfinished handshakes of one network address.
const HANDSHAKES_OF_ONE: usize = HANDSHAKES_MAX / 4;
/// Connections that wait to be accepted by the node.
const BACKLOG_MAX: usize = 1_024;
/// What the system should keep of arrived packets while the process is busy: a round of a hundred clients.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long the last words of a node may take to arrive.
pub const FAREWELL: Duration = Duration::from_millis(700);

/// How much a connection may hold, by the size of a vector.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The bytes of one round's vector.
    pub vector_bytes: usize,
}

impl Limits {
    /// What a message of a client may have besides a vector.
    const BESIDES: usize = 16 << 10;

    /// The longest message of a peer that is not trusted.
    const fn stranger_message(self) -> usize {
        self.vector_bytes.saturating_add(Self::BESIDES)
    }

    /// How long so many bytes of such a peer should take.
    fn stranger_time(self, bytes: usize) -> Duration {
        let rate = self.stranger_message().saturating_mul(8);
        Duration::from_nanos(
            u64::try_from(bytes as u128 * 1_000_000_000 / rate.max(1) as u128).unwrap_or(u64::MAX),
        )
    }

    /// The most bytes that wait to be sent to one peer.
    const fn queue(self, trusted: bool) -> usize {
        if trusted { 64 << 20 } else { self.stranger_message().saturating_mul(32) }
    }

    /// The most bytes of a connection that have arrived and are not read yet.
    fn window(self, trusted: bool) -> VarInt {
        let window = if trusted { 4 << 20 } else { self.stranger_message().saturating_mul(4) };
        VarInt::try_from(u64::try_from(window).unwrap_or(u64::MAX)).unwrap_or(VarInt::MAX)
    }

    /// The most bytes that are taken from a stream at once.
    const fn chunk(self) -> usize {
        self.vector_bytes.saturating_add(4 << 10)
    }
}

/// The network as one process reaches it. Clones are the same.
#[derive(Clone)]
pub struct QuicLink(Arc<Inner>);

struct Inner {
    endpoint: quinn::Endpoint,
    client: quinn::ClientConfig,
    address: Address,
    limits: Limits,
    incoming: tokio::sync::Mutex<mpsc::Receiver<QuicConnection>>,
    /// Why the last dial of an address failed, for people. One for each address that the node dials.
    failures: Mutex<BTreeMap<Address, String>>,
    /// The task that answers handshakes; it holds the port.
    accepting: AbortHandle,
}

impl QuicLink {
    /// Listens. Call it within a tokio runtime. `advertise` is where others reach this node; without it, that is where it
    /// listens, or, where it listens on every interface, the address that the system would send from.
    ///
    /// # Errors
    /// What the system says: most likely that the port is in use.
    pub fn bind(
        identity: &Identity,
        listen: SocketAddr,
        advertise: Option<Address>,
        limits: Limits,
    ) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(listen), socket2::Type::DGRAM, None)?;
        // Systems cap it silently; less is slower, not wrong.
        drop(socket.set_recv_buffer_size(RECEIVE_BUFFER));
        socket.set_nonblocking(true)?;
        socket.bind(&listen.into())?;
        let socket = UdpSocket::from(socket);
        let transport = Arc::new(transport(limits));
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls::server(identity)));
        server.transport_config(Arc::clone(&transport)).migration(true);
        let mut client = quinn::ClientConfig::new(Arc::new(tls::client(identity)));
        client.transport_config(transport);
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime)?;
        let address = match advertise {
            Some(address) => address,
            None => Address(reachable(endpoint.local_addr()?).to_string()),
        };
        let (accepted, incoming) = mpsc::channel(BACKLOG_MAX);
        let accepting = tokio::spawn(accept(endpoint.clone(), accepted, limits)).abort_handle();
        let incoming = tokio::sync::Mutex::new(incoming);
        let failures = Mutex::default();
        Ok(Self(Arc::new(Inner { endpoint, client, address, limits, incoming, failures, accepting })))
    }

    /// Where the process listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.endpoint.local_addr()
    }

    /// Answers nobody from now on, and only dials: what a client does, which nobody has a reason to reach.
    pub fn only_dial(&self) {
        self.0.endpoint.set_server_config(None);
    }

    /// Why nobody was reached at an address, if the last dial of it failed.
    #[must_use]
    pub fn why_unreachable(&self, address: &Address) -> Option<String> {
        self.failures().get(address).cloned()
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<Address, String>> {
        self.0.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shakes hands at whichever address answers first. They are begun one after the other, each a little later: one that
    /// is dead holds up none behind it.
    async fn connect(
        &self,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> Result<(SocketAddr, quinn::Connection), String> {
        let Inner { endpoint, client, .. } = &*self.0;
        let mut after = Duration::ZERO;
        let mut begun: FuturesUnordered<_> = addresses
            .take(ADDRESSES_MAX)
            .map(|to| {
                let wait = after;
                after += HEAD_START;
                async move {
                    tokio::time::sleep(wait).await;
                    let connecting = endpoint
                        .connect_with(client.clone(), to, tls::SERVER_NAME)
                        .map_err(|reason| format!("{to} cannot be dialled: {reason}"))?;
                    let quic =
                        connecting.await.map_err(|reason| format!("{to} does not shake hands: {reason}"))?;
                    Ok((to, quic))
                }
            })
            .collect();
        let mut why = "the name has no address".to_owned();
        while let Some(outcome) = begun.next().await {
            match outcome {
                Ok(connected) => return Ok(connected),
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }

    /// Lets the last words of closed connections arrive, which may take [`FAREWELL`] if there is time, and closes the rest.
    pub async fn shut_down(&self, within: Duration) {
        self.only_dial();
        // What is still open is closed below.
        drop(timeout(within, self.0.endpoint.wait_idle()).await);
        self.0.endpoint.close(VarInt::from_u32(0), b"");
    }
}

impl Drop for Inner {
    /// Lets go of the port once the last connection is gone, also where nobody has shut down.
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl fmt::Debug for QuicLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicLink").field("address", &self.0.address).finish_non_exhaustive()
    }
}

impl Link for QuicLink {
    type Connection = QuicConnection;

    fn address(&self) -> Address {
        self.0.address.clone()
    }

    async fn dial(&self, address: &Address) -> Result<QuicConnection, LinkError> {
        let mut resolved = false;
        let dialling = async {
            let found = tokio::net::lookup_host(&address.0)
                .await
                .map_err(|reason| format!("the name does not resolve ({reason})"))?;
            resolved = true;
            let (to, quic) = self.connect(found).await?;
            QuicConnection::new(quic, Some(address.clone()), self.0.limits)
                .ok_or_else(|| format!("{to} shows no key"))
        };
        let dialled = timeout(HANDSHAKE_TIMEOUT, dialling).await;
        let why = match dialled {
            Ok(Ok(connection)) => {
                self.failures().remove(address);
                return Ok(connection);
            }
            Ok(Err(why)) => why,
            Err(_) if resolved => format!("nobody answers within {} s", HANDSHAKE_TIMEOUT.as_secs()),
            Err(_) => format!("the name does not resolve within {} s", HANDSHAKE_TIMEOUT.as_secs()),
        };
        self.failures().insert(address.clone(), why);
        Err(LinkError::Unreachable)
    }

    async fn accept(&self) -> Result<QuicConnection, LinkError> {
        self.0.incoming.lock().await.recv().await.ok_or(LinkError::Closed(0))
    }
}

/// Unfinished handshakes, and what ends them.
struct Handshakes {
    door: Door,
    running: BTreeMap<u64, AbortHandle>,
    last: u64,
    began: Instant,
}

impl Handshakes {
    fn new() -> Self {
        let door = Door::new(HANDSHAKES_MAX, HANDSHAKES_OF_ONE);
        Self { door, running: BTreeMap::new(), last: 0, began: Instant::now() }
    }

    /// Makes room for another one, if there is any, and gives its number.
    fn begin(&mut self, from: IpAddr) -> Option<u64> {
        let now = Time(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.last = self.last.wrapping_add(1);
        if let Some(slow) = self.door.enter(now, self.last, Some(Origin::of(from))).ok()? {
            self.running.remove(&slow).inspect(AbortHandle::abort);
        }
        Some(self.last)
    }

    /// Forgets one that has come to its end.
    fn end(&mut self, number: u64) {
        self.door.leave(number);
        self.running.remove(&number);
    }
}

/// Answers handshakes.
async fn accept(endpoint: quinn::Endpoint, accepted: mpsc::Sender<QuicConnection>, limits: Limits) {
    let handshakes = Arc::new(Mutex::new(Handshakes::new()));
    while let Some(incoming) = endpoint.accept().await {
        if endpoint.open_connections() >= CONNECTIONS_MAX {
            incoming.refuse();
            continue;
        }
        let mut waiting = handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.door.len() >= HANDSHAKES_CALM && !incoming.remote_address_validated() {
            // A retry fails only for an address that was shown to be reachable.
            drop(incoming.retry());
            continue;
        }
        let Some(number) = waiting.begin(incoming.remote_address().ip()) else {
            incoming.refuse();
            continue;
        };
        let (shared, accepted) = (Arc::clone(&handshakes), accepted.clone());
        let shaking = tokio::spawn(async move {
            let established = match incoming.accept() {
                Ok(connecting) => timeout(HANDSHAKE_TIMEOUT, connecting).await.ok().and_then(Result::ok),
                Err(_) => None,
            };
            shared.lock().unwrap_or_else(PoisonError::into_inner).end(number);
            if let Some(connection) = established.and_then(|quic| QuicConnection::new(quic, None, limits)) {
                drop(accepted.send(connection).await);
            }
        });
        // It waits for the lock at its end, so it is not forgotten before it is known.
        waiting.running.insert(number, shaking.abort_handle());
    }
}

fn transport(limits: Limits) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("ten seconds fit");
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        // One for each channel.
        .max_concurrent_uni_streams(VarInt::from_u32(4))
        .stream_receive_window(VarInt::from_u32(2 << 20))
        .receive_window(limits.window(false))
        .send_window(8 << 20)
        .datagram_receive_buffer_size(Some(64 * DATAGRAM_BYTES_MAX))
        .datagram_send_buffer_size(64 * DATAGRAM_BYTES_MAX);
    transport
}

/// Where others on the same network most likely reach a socket.
fn reachable(bound: SocketAddr) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    // Connecting a datagram socket sends nothing, but has the system choose the address that it would send from.
    let chosen = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    let ip = chosen.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |chosen| chosen.ip());
    SocketAddr::new(ip, bound.port())
}

#[cfg(test)]
mod tests {
    use zipnet_core::key::NodeSecret;

    use super::*;

    fn link(number: u8) -> QuicLink {
        let identity = Identity::from_secret(&NodeSecret::from_bytes([number; 32]));
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        QuicLink::bind(&identity, any, None, Limits { vector_bytes: 1024 }).unwrap()
    }

    #[tokio::test]
    async fn a_dead_address_holds_up_none_behind_it() {
        let (mine, other) = (link(1), link(2));
        // Takes packets and answers none.
        let dead = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (silent, alive) = (dead.local_addr().unwrap(), other.local_address().unwrap());
        for order in [vec![silent, alive], vec![alive, silent], vec![silent, silent, silent, alive]] {
            let connected = timeout(HANDSHAKE_TIMEOUT, mine.connect(order.into_iter())).await;
            let (to, _quic) = connected.expect("one of them answers in time").unwrap();
            assert_eq!(to, alive);
        }
        let refused = mine.connect(std::iter::empty()).await.expect_err("nowhere");
        assert_eq!(refused, "the name has no address");
    }
}
