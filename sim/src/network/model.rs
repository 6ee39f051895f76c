//! How links behave, the limits of connections, and what is counted.

use core::time::Duration;

use crate::random::Quantiles;

/// How one direction of a link between two nodes behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// How long a message is on its way, apart from waiting for bandwidth.
    pub latency: Quantiles,
    /// How many of 1,000 transmissions are lost. Reliable channels transmit again.
    pub loss_permille: u32,
    /// How many of 1,000 datagrams arrive twice.
    pub duplicate_permille: u32,
    /// How many of 1,000 datagrams take several times as long, so that later ones overtake them.
    pub reorder_permille: u32,
    /// How many bytes pass in a second; further ones queue. None: any number.
    pub bandwidth: Option<u64>,
}

impl Model {
    /// Half a millisecond, up to two; nothing is lost.
    #[must_use]
    pub fn local() -> Self {
        Self {
            latency: Quantiles::new(Duration::from_micros(500), Duration::from_millis(2)),
            loss_permille: 0,
            duplicate_permille: 0,
            reorder_permille: 0,
            bandwidth: None,
        }
    }

    /// How long these bytes take up the link.
    #[must_use]
    pub fn transmission(&self, bytes: usize) -> Duration {
        let Some(bandwidth) = self.bandwidth else { return Duration::ZERO };
        let bytes = u128::try_from(bytes).expect("lengths fit 128 bits");
        let nanos = bytes * 1_000_000_000 / u128::from(bandwidth.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How long a sender waits before it transmits a lost message for the n-th time (0 is the first repetition): twice
    /// the latency and 20 ms, doubled each time up to 64 times that.
    #[must_use]
    pub fn retransmission(&self, repetition: u32) -> Duration {
        (self.latency.median() * 2 + Duration::from_millis(20)) * (1 << repetition.min(6))
    }
}

/// Which directions of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// From the first to the second only.
    One,
    /// Both.
    Both,
}

/// The limits of connections, and the model of links that have none of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// How links behave.
    pub model: Model,
    /// How long a path may be cut, or a peer dead, before the connection breaks.
    pub idle_timeout: Duration,
    /// How long a dial waits for an answer.
    pub dial_timeout: Duration,
    /// How many bytes may be under way or unread in one direction of a connection.
    pub queue_bytes_max: usize,
    /// The longest message of a reliable channel.
    pub message_bytes_max: usize,
    /// The longest datagram; by default what gossip counts on.
    pub datagram_bytes_max: usize,
    /// How many connections may wait to be accepted.
    pub backlog_max: usize,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            model: Model::local(),
            idle_timeout: Duration::from_secs(10),
            dial_timeout: Duration::from_secs(5),
            queue_bytes_max: 64 << 20,
            message_bytes_max: 80 << 20,
            datagram_bytes_max: zipnet_node::gossip::DATAGRAM_BYTES_MAX,
            backlog_max: 1_024,
        }
    }
}

/// What happened on a network. "Fired" faults are those that changed something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Messages that nodes handed over.
    pub sent: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Messages that arrived, repetitions included.
    pub delivered: u64,
    /// Bytes of them.
    pub delivered_bytes: u64,
    /// Messages that never arrive.
    pub dropped: u64,
    /// Datagrams that arrive twice.
    pub duplicated: u64,
    /// Datagrams that were delayed so that others overtake them.
    pub reordered: u64,
    /// Transmissions of reliable messages that were lost and repeated.
    pub retransmitted: u64,
    /// Messages that waited for a cut to heal.
    pub held: u64,
    /// Messages refused because the queue was full.
    pub refused_full: u64,
    /// Connections that were established.
    pub connected: u64,
    /// Dials that failed.
    pub unreachable: u64,
    /// Connections that broke by the idle timeout.
    pub broken: u64,
    /// Calls of `partition`.
    pub partitions: u64,
    /// Calls of `cut`.
    pub cuts: u64,
    /// Calls of `isolate`.
    pub isolations: u64,
    /// Calls of `heal`.
    pub heals: u64,
    /// Changes of models.
    pub models: u64,
}
