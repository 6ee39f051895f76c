//! What the world supplies to a node. `prod` and `sim` each implement it once; nothing else differs between them.

use core::fmt;
use core::future::Future;

use bytes::Bytes;
use openraft_rt::AsyncRuntime;
use zipnet_core::id::PeerId;
use zipnet_core::time::Time;

use crate::slots::Origin;

/// Everything a node needs from outside. Cheap to clone; all clones are the same world of the same node.
pub trait World: Clone + fmt::Debug + Send + Sync + 'static {
    /// Tasks, sleeping and channels.
    type Runtime: AsyncRuntime;
    /// Authenticated connections to other nodes.
    type Link: Link;
    /// Durable files.
    type Disk: Disk;

    /// The network as this node reaches it.
    fn link(&self) -> &Self::Link;
    /// The state folder of this node.
    fn disk(&self) -> &Self::Disk;
    /// Monotonic time; never goes back while the node runs.
    fn now(&self) -> Time;
    /// Seconds since the Unix epoch by a clock that may jump or lie. Nothing is decided by it.
    fn wall_clock(&self) -> u64;
    /// Fresh secret randomness.
    fn entropy(&self) -> [u8; 32];
    /// Over how many threads heavy work is spread. One wherever everything has to happen in the same order each time.
    fn threads(&self) -> usize {
        1
    }
}

/// Where a node can be reached: `host:port` in production.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Address(pub String);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Dials and accepts connections whose peers have proven to hold the key that their [`PeerId`] is.
pub trait Link: Clone + Send + Sync + 'static {
    /// An established connection.
    type Connection: Connection;

    /// The address that others dial.
    fn address(&self) -> Address;

    /// Opens a connection to the peer that listens at `address`.
    ///
    /// Whoever needs a certain peer compares [`Connection::peer`] afterwards.
    fn dial(&self, address: &Address) -> impl Future<Output = Result<Self::Connection, LinkError>> + Send;

    /// The next connection that another node opened. One task at a time may wait here.
    fn accept(&self) -> impl Future<Output = Result<Self::Connection, LinkError>> + Send;
}

/// A connection between two nodes. Clones are the same connection; it is closed when the last clone is dropped.
pub trait Connection: Clone + Send + Sync + 'static {
    /// Who is at the other end, proven by the handshake.
    fn peer(&self) -> PeerId;
    /// A secret of exactly this connection that both ends know (RFC 5705); equal at both ends, different elsewhere.
    fn exporter(&self) -> [u8; 32];
    /// Where the other end can be dialled if this end dialled it.
    fn dialled(&self) -> Option<Address>;

    /// From where the other end speaks, where strangers are counted by it.
    fn origin(&self) -> Option<Origin> {
        None
    }

    /// The peer belongs to the instance, as it has proven or the log says: the limits that keep strangers small no longer hold. Whom
    /// this node dialled is no stranger. Harmless when repeated; does
    /// nothing where there are no such limits.
    fn trust(&self) {}

    /// Queues a message. Messages on one channel arrive in order, or the connection breaks; messages on different
    /// channels may overtake each other. [`Channel::Datagram`] may lose, repeat and reorder.
    ///
    /// # Errors
    /// [`LinkError::Full`] if the peer takes messages too slowly (this message is dropped), [`LinkError::Closed`] if the
    /// connection is gone. All protocol messages are repeated or refetched, so neither loses more than time.
    fn send(&self, channel: Channel, message: Bytes) -> Result<(), LinkError>;

    /// The next message on any channel. One task at a time may wait here; dropping the future loses no message.
    ///
    /// # Errors
    /// [`LinkError::Closed`] once the connection is gone, with the code that the other end gave.
    fn receive(&self) -> impl Future<Output = Result<(Channel, Bytes), LinkError>> + Send;

    /// Closes the connection; messages queued before are still delivered if the network allows.
    fn close(&self, code: u32);
}

/// Streams of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Hello, pings, and what else concerns the connection itself.
    Control,
    /// Raft votes and heartbeats.
    Consensus,
    /// Raft log entries and snapshots, which must not delay heartbeats.
    Bulk,
    /// Messages of the protocol roles.
    Protocol,
    /// Unreliable: gossip.
    Datagram,
}

/// Why a message was not sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The queue to this peer is full; the message was dropped.
    Full,
    /// The connection is closed; 0 where no code was given (peer vanished, idle timeout).
    Closed(u32),
    /// Nobody answered at the address.
    Unreachable,
    /// The message exceeds what a channel carries.
    TooLarge,
    /// This end closed the connection, because the other end broke its rules.
    Violation(Violation),
}

/// How the other end of a connection broke its rules. Honest nodes never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Violation {
    /// A message is longer than its channel or its sender may have it.
    TooLong,
    /// A stream is of no known channel.
    NoChannel,
    /// A stream ends within a message.
    CutOff,
    /// A channel has a stream already.
    SecondStream,
}

impl Violation {
    /// The stable name, as metrics spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::NoChannel => "no-channel",
            Self::CutOff => "cut-off",
            Self::SecondStream => "second-stream",
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("queue a message: the peer takes messages too slowly"),
            Self::Closed(code) => write!(f, "use the connection: closed with code {code}"),
            Self::Unreachable => f.write_str("reach the peer: nobody answered"),
            Self::TooLarge => f.write_str("send the message: it is larger than a channel carries"),
            Self::Violation(violation) => {
                write!(f, "use the connection: the other end broke its rules ({})", violation.name())
            }
        }
    }
}

impl core::error::Error for LinkError {}

/// A state folder.
pub trait Disk: Clone + Send + Sync + 'static {
    /// What redb writes through.
    type Backend: redb::StorageBackend;

    /// Opens a database file, creating it atomically (temporary file, then rename) if it does not exist.
    ///
    /// # Errors
    /// What the file system says; a second process that holds the folder is an error as well.
    fn open(&self, name: &str) -> std::io::Result<Self::Backend>;

    /// Whether the file exists.
    ///
    /// # Errors
    /// What the file system says.
    fn exists(&self, name: &str) -> std::io::Result<bool>;

    /// Moves these files out of the way, in this order and as far as they exist (an archive in production, so that nothing
    /// is lost by mistake). A crash leaves what comes later in its place.
    ///
    /// # Errors
    /// What the file system says.
    fn set_aside(&self, names: &[&str]) -> std::io::Result<()>;

    /// The text of a small file; `None` if it does not exist.
    ///
    /// # Errors
    /// What the file system says.
    fn read(&self, name: &str) -> std::io::Result<Option<String>>;

    /// Replaces a small file durably and at once: after a crash it holds the old text or the new one.
    ///
    /// # Errors
    /// What the file system says.
    fn write(&self, name: &str, text: &str) -> std::io::Result<()>;

    /// Whether the storage below was switched off under the node. A frozen node must never answer: consensus parks
    /// the task that sees this. Always false in production.
    fn is_frozen(&self) -> bool {
        false
    }
}

/// Does something with the disk, away from the loop. Whoever waits for it on a disk that was switched off waits for ever.
///
/// # Errors
/// If the work was given up or broke, in words.
pub(crate) async fn on_disk<W: World, T: Send + 'static>(
    disk: W::Disk,
    work: impl FnOnce(&W::Disk) -> T + Send + 'static,
) -> Result<T, String> {
    let frozen = disk.clone();
    let done = W::Runtime::spawn_blocking(move || work(&disk)).await;
    if frozen.is_frozen() {
        core::future::pending::<()>().await;
    }
    done.map_err(|error| error.to_string())
}
