//! One connection: a stream for each channel in each direction, opened when it is first needed.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;
use quinn::{ConnectionError, SendDatagramError, VarInt};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use zipnet_core::id::PeerId;
use zipnet_core::wire::MESSAGE_BYTES_MAX;
use zipnet_node::frame::FRAME_BYTES_MAX;
use zipnet_node::slots::Origin;
use zipnet_node::world::{Address, Channel, Connection, LinkError, Violation};

use super::framing::{Deframer, channel_byte, header};
use super::{Limits, tls};

/// The peer broke the rules of [`super::framing`].
const PROTOCOL_VIOLATION: u32 = 1;

/// How long a closed connection waits until what was queued has arrived and the other end has let go.
const LINGER: Duration = Duration::from_millis(500);

/// Arrived messages that wait to be received.
const INBOUND_MAX: usize = 16;

/// An established connection.
#[derive(Clone)]
pub struct QuicConnection(Arc<Inner>);

struct Inner {
    peer: PeerId,
    exporter: [u8; 32],
    dialled: Option<Address>,
    quic: quinn::Connection,
    limits: Limits,
    outgoing: Mutex<Outgoing>,
    /// Bytes that wait to be sent, on all channels.
    queued: Arc<AtomicUsize>,
    inbound: tokio::sync::Mutex<mpsc::Receiver<(Channel, Bytes)>>,
    shared: Arc<Shared>,
}

/// What the tasks of a connection know of each other.
#[derive(Debug, Default)]
struct Shared {
    /// The peer is held to no more than what messages need at all.
    trusted: AtomicBool,
    /// The peer has sent everything that it had to say.
    finished: AtomicBool,
    /// Wakes the task that accepts streams when that is so.
    done: Notify,
    /// Channels whose stream was opened by the peer.
    opened: Mutex<BTreeSet<Channel>>,
    /// How the peer broke the rules, if that is why the connection is closed.
    violation: Mutex<Option<Violation>>,
}

#[derive(Debug, Default)]
struct Outgoing {
    channels: BTreeMap<Channel, mpsc::UnboundedSender<Bytes>>,
    writers: Vec<JoinHandle<()>>,
    closed: bool,
}

impl QuicConnection {
    /// Takes a connection whose handshake is done. `None` if the peer has shown no key.
    pub(super) fn new(quic: quinn::Connection, dialled: Option<Address>, limits: Limits) -> Option<Self> {
        let peer = tls::peer(&quic)?;
        let mut exporter = [0; 32];
        quic.export_keying_material(&mut exporter, b"EXPORTER-zipnet-link-v1", b"").ok()?;
        let (arrived, inbound) = mpsc::channel(INBOUND_MAX);
        let shared = Arc::new(Shared::default());
        drop(tokio::spawn(accept_streams(quic.clone(), arrived.clone(), Arc::clone(&shared), limits)));
        drop(tokio::spawn(read_datagrams(quic.clone(), arrived, Arc::clone(&shared))));
        let whom_this_node_sought_out = dialled.is_some();
        let connection = Self(Arc::new(Inner {
            peer,
            exporter,
            dialled,
            quic,
            limits,
            outgoing: Mutex::default(),
            queued: Arc::default(),
            inbound: tokio::sync::Mutex::new(inbound),
            shared,
        }));
        if whom_this_node_sought_out {
            connection.trust();
        }
        Some(connection)
    }
}

impl fmt::Debug for QuicConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicConnection").field("peer", &self.0.peer).finish_non_exhaustive()
    }
}

impl Connection for QuicConnection {
    fn peer(&self) -> PeerId {
        self.0.peer
    }

    fn exporter(&self) -> [u8; 32] {
        self.0.exporter
    }

    fn dialled(&self) -> Option<Address> {
        self.0.dialled.clone()
    }

    fn origin(&self) -> Option<Origin> {
        Some(Origin::of(self.0.quic.remote_address().ip()))
    }

    fn trust(&self) {
        if !self.0.shared.trusted.swap(true, Ordering::Relaxed) {
            self.0.quic.set_receive_window(self.0.limits.window(true));
        }
    }

    fn send(&self, channel: Channel, message: Bytes) -> Result<(), LinkError> {
        let Inner { quic, queued, limits, shared, outgoing, .. } = &*self.0;
        let Some(byte) = channel_byte(channel) else {
            return quic.send_datagram(message).map_err(|error| match error {
                SendDatagramError::ConnectionLost(_) => LinkError::Closed(close_code(quic)),
                SendDatagramError::UnsupportedByPeer
                | SendDatagramError::Disabled
                | SendDatagramError::TooLarge => LinkError::TooLarge,
            });
        };
        let len = message.len();
        if len > MESSAGE_BYTES_MAX {
            return Err(LinkError::TooLarge);
        }
        let mut outgoing = lock(outgoing);
        if outgoing.closed || quic.close_reason().is_some() {
            return Err(LinkError::Closed(close_code(quic)));
        }
        // A message that is longer than the queue goes through an empty one.
        let waiting = queued.load(Ordering::Relaxed);
        if waiting > 0 && waiting.saturating_add(len) > limits.queue(shared.trusted.load(Ordering::Relaxed)) {
            return Err(LinkError::Full);
        }
        let queue = match outgoing.channels.get(&channel) {
            Some(queue) => queue.clone(),
            None => {
                let (queue, messages) = mpsc::unbounded_channel();
                let writer = write(quic.clone(), channel, byte, messages, Arc::clone(queued));
                outgoing.writers.push(tokio::spawn(writer));
                outgoing.channels.insert(channel, queue.clone());
                queue
            }
        };
        queued.fetch_add(len, Ordering::Relaxed);
        queue.send(message).map_err(|_| LinkError::Closed(close_code(quic)))
    }

    async fn receive(&self) -> Result<(Channel, Bytes), LinkError> {
        let arrived = self.0.inbound.lock().await.recv().await;
        arrived.ok_or_else(|| match *lock(&self.0.shared.violation) {
            Some(violation) => LinkError::Violation(violation),
            None => LinkError::Closed(close_code(&self.0.quic)),
        })
    }

    fn close(&self, code: u32) {
        self.0.close(code);
    }
}

impl Inner {
    /// Lets what was queued arrive, then closes. Does nothing the second time.
    fn close(&self, code: u32) {
        let writers = {
            let mut outgoing = lock(&self.outgoing);
            outgoing.closed = true;
            outgoing.channels.clear();
            core::mem::take(&mut outgoing.writers)
        };
        if writers.is_empty() {
            // Closed before, or nothing was ever sent: a second close changes nothing.
            if self.quic.close_reason().is_none() && self.queued.load(Ordering::Relaxed) == 0 {
                self.quic.close(VarInt::from_u32(code), b"");
            }
            return;
        }
        let (quic, shared) = (self.quic.clone(), Arc::clone(&self.shared));
        let closing = async move {
            let delivered = async {
                drop(join_all(writers).await);
                if !shared.finished.load(Ordering::Relaxed) {
                    // What arrived may not have been read yet: the other end closes once it has.
                    drop(quic.closed().await);
                }
            };
            drop(timeout(LINGER, delivered).await);
            quic.close(VarInt::from_u32(code), b"");
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(closing)),
            Err(_) => self.quic.close(VarInt::from_u32(code), b""),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close(0);
    }
}

/// Writes the messages of one channel in order, until the queue ends or the connection does.
async fn write(
    quic: quinn::Connection,
    channel: Channel,
    byte: u8,
    mut messages: mpsc::UnboundedReceiver<Bytes>,
    queued: Arc<AtomicUsize>,
) {
    let Ok(mut stream) = quic.open_uni().await else { return };
    // Heartbeats pass vectors, and vectors pass snapshots.
    let priority = match channel {
        Channel::Control | Channel::Consensus => 2,
        Channel::Protocol | Channel::Datagram => 1,
        Channel::Bulk => 0,
    };
    if stream.set_priority(priority).is_err() || stream.write_all(&[byte]).await.is_err() {
        return;
    }
    while let Some(message) = messages.recv().await {
        let len = message.len();
        let header = header(len).expect("messages are checked before they are queued");
        let mut chunks = [Bytes::copy_from_slice(&header), message];
        let written = stream.write_all_chunks(&mut chunks).await;
        queued.fetch_sub(len, Ordering::Relaxed);
        if written.is_err() {
            return;
        }
    }
    if stream.finish().is_ok() {
        drop(stream.stopped().await);
    }
}

/// Takes the streams that the peer opens.
async fn accept_streams(
    quic: quinn::Connection,
    arrived: mpsc::Sender<(Channel, Bytes)>,
    shared: Arc<Shared>,
    limits: Limits,
) {
    loop {
        let stream = tokio::select! {
            biased;
            stream = quic.accept_uni() => stream,
            () = shared.done.notified() => return,
        };
        let Ok(stream) = stream else { return };
        let reading = read(stream, arrived.clone(), Arc::clone(&shared), limits);
        let (quic, shared) = (quic.clone(), Arc::clone(&shared));
        drop(tokio::spawn(async move {
            if let Err(violation) = reading.await {
                lock(&shared.violation).get_or_insert(violation);
                quic.close(VarInt::from_u32(PROTOCOL_VIOLATION), b"");
            }
        }));
    }
}

/// Reads the messages of one stream until it ends.
async fn read(
    mut stream: quinn::RecvStream,
    arrived: mpsc::Sender<(Channel, Bytes)>,
    shared: Arc<Shared>,
    limits: Limits,
) -> Result<(), Violation> {
    let mut deframer = Deframer::default();
    let mut throttle = Throttle::default();
    let mut messages = Vec::new();
    loop {
        let chunk = match stream.read_chunk(limits.chunk(), true).await {
            Ok(Some(chunk)) => chunk.bytes,
            // A message may be cut off only by a connection that breaks.
            Ok(None) if !deframer.is_between_messages() => return Err(Violation::CutOff),
            Ok(None) => break,
            Err(_) => return Ok(()),
        };
        let trusted = shared.trusted.load(Ordering::Relaxed);
        if !trusted {
            throttle.pass(chunk.len(), limits).await;
        }
        let before = deframer.channel();
        deframer.push(chunk, |channel| longest(channel, trusted, limits), &mut messages)?;
        let Some(channel) = deframer.channel() else { continue };
        if before.is_none() && !lock(&shared.opened).insert(channel) {
            return Err(Violation::SecondStream);
        }
        for message in messages.drain(..) {
            if arrived.send((channel, message)).await.is_err() {
                return Ok(());
            }
        }
    }
    // A connection says goodbye by ending the channel that it began with.
    if deframer.channel() == Some(Channel::Control) {
        shared.finished.store(true, Ordering::Relaxed);
        shared.done.notify_waiters();
        shared.done.notify_one();
    }
    Ok(())
}

/// How long a message of a channel may be.
fn longest(channel: Channel, trusted: bool, limits: Limits) -> usize {
    match channel {
        Channel::Control => FRAME_BYTES_MAX,
        Channel::Consensus | Channel::Bulk | Channel::Protocol | Channel::Datagram => {
            if trusted {
                MESSAGE_BYTES_MAX
            } else {
                limits.stranger_message()
            }
        }
    }
}

async fn read_datagrams(
    quic: quinn::Connection,
    arrived: mpsc::Sender<(Channel, Bytes)>,
    shared: Arc<Shared>,
) {
    loop {
        let datagram = tokio::select! {
            biased;
            datagram = quic.read_datagram() => datagram,
            () = shared.done.notified() => return,
        };
        let Ok(datagram) = datagram else { return };
        // Datagrams may be lost, so they never hold up what may not.
        if let Err(mpsc::error::TrySendError::Closed(_)) = arrived.try_send((Channel::Datagram, datagram)) {
            return;
        }
    }
}

/// Lets bytes pass at a steady rate and a second's worth at once (the generic cell rate algorithm).
#[derive(Debug, Default)]
struct Throttle {
    /// When everything that has passed would have passed at the steady rate.
    due: Option<Instant>,
}

impl Throttle {
    const BURST: Duration = Duration::from_secs(1);

    async fn pass(&mut self, bytes: usize, limits: Limits) {
        let now = Instant::now();
        let due = self.due.map_or(now, |due| due.max(now)) + limits.stranger_time(bytes);
        self.due = Some(due);
        if let Some(early) = due.checked_sub(Self::BURST).filter(|early| *early > now) {
            sleep_until(early).await;
        }
    }
}

/// The code that the other end gave; 0 if it gave none.
fn close_code(quic: &quinn::Connection) -> u32 {
    match quic.close_reason() {
        Some(ConnectionError::ApplicationClosed(close)) => {
            u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX)
        }
        Some(_) | None => 0,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
