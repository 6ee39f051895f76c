//! Reading broadcasts.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_core::Stream;
use tokio::sync::mpsc;
use zipnet_core::evidence::Contradiction;
use zipnet_core::id::{Digest, LogId, PeerId, Role, Round};
use zipnet_core::machine::Report;
use zipnet_core::message::Record;
use zipnet_core::params::RoundParams;
use zipnet_core::refused::Refused;
use zipnet_core::slot::{SlotContent, read_slots};
use zipnet_node::event::Event;

use crate::config::Config;
use crate::running::{ConnectError, Ended, Running};

/// The most bytes of broadcasts that wait to be read.
const WAITING_BYTES: usize = 64 << 20;
/// The fewest and the most broadcasts that wait to be read.
const WAITING: (usize, usize) = (16, 4096);

/// Follows the broadcasts of an instance without taking part, as a stream. Every signature, the chain of records and the
/// rosters are checked; what does not hold is an item as well, a [`Doubt`], and the stream goes on behind it.
///
/// Broadcasts come in the order of their rounds. One that lacks signatures after some seconds comes as provisional, and once
/// more when it is confirmed. The stream ends when the node ends. What is not read waits in memory, up to 4,096 broadcasts
/// of the default size; what came beyond that is reported as [`Doubt::Behind`].
///
/// Dropping it stops the reader in order, without waiting for that.
#[derive(Debug)]
pub struct Reader {
    running: Running,
    params: RoundParams,
    seen: mpsc::Receiver<Seen>,
    /// What was received and not given out.
    ready: VecDeque<Result<Broadcast, Doubt>>,
}

/// Something the node has seen, and how much was lost before it because nobody read.
#[derive(Debug)]
struct Seen {
    lost: u64,
    sight: Sight,
}

#[derive(Debug)]
enum Sight {
    Record { record: Arc<Record>, digest: Digest, confirmed: bool },
    Doubt(Doubt),
}

impl Reader {
    /// Starts a reader and waits until it is linked with a server or the aggregator of the instance. Call it within a tokio
    /// runtime with network and time.
    ///
    /// # Errors
    /// See [`ConnectError`]; after an error nothing runs any more.
    pub async fn connect(config: Config) -> Result<Self, ConnectError> {
        let timeout = config.connect_timeout;
        let config = config.reader();
        let params = config.build.params;
        let fit = WAITING_BYTES.checked_div(params.vector_bytes()).unwrap_or(WAITING.1);
        let (sender, seen) = mpsc::channel(fit.clamp(WAITING.0, WAITING.1));
        let (sender, lost) = (Mutex::new(Some(sender)), AtomicU64::new(0));
        let observe = move |event: &Event| {
            let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(event, Event::Exiting { .. }) {
                *sender = None;
            }
            let (Some(sender), Some(sight)) = (sender.as_ref(), Sight::of(event)) else { return };
            let before = lost.swap(0, Ordering::Relaxed);
            if sender.try_send(Seen { lost: before, sight }).is_err() {
                lost.store(before.saturating_add(1), Ordering::Relaxed);
            }
        };
        let running = Running::start(config, timeout, &[Role::Server, Role::Aggregator], observe).await?;
        Ok(Self { running, params, seen, ready: VecDeque::new() })
    }

    /// The next broadcast or doubt; `None` once the node has ended. Giving the future up loses nothing.
    pub async fn next(&mut self) -> Option<Result<Broadcast, Doubt>> {
        core::future::poll_fn(|context| self.poll_item(context)).await
    }

    /// Stops the reader in order and waits for its end.
    ///
    /// # Errors
    /// If it had ended by itself, or did not end in order.
    pub async fn close(mut self) -> Result<(), Ended> {
        self.running.end().await
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Broadcast, Doubt>>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Poll::Ready(Some(item));
            }
            match self.seen.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Seen { lost, sight })) => {
                    if lost > 0 {
                        self.ready.push_back(Err(Doubt::Behind { lost }));
                    }
                    self.ready.push_back(match sight {
                        Sight::Record { record, digest, confirmed } => {
                            Ok(Broadcast::of(&self.params, &record, digest, confirmed))
                        }
                        Sight::Doubt(doubt) => Err(doubt),
                    });
                }
            }
        }
    }
}

impl Stream for Reader {
    type Item = Result<Broadcast, Doubt>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(context)
    }
}

impl Sight {
    /// What of an event whoever reads wants to know.
    fn of(event: &Event) -> Option<Self> {
        let Event::Core(report) = event else { return None };
        Some(match report {
            Report::RecordSeen { record, digest, confirmed } => {
                Self::Record { record: Arc::clone(record), digest: *digest, confirmed: *confirmed }
            }
            Report::RecordsMissing { log, from, oldest } => {
                Self::Doubt(Doubt::Missing { log: *log, from: *from, oldest: *oldest })
            }
            Report::RecordContradicted { log, round, seen, other, servers, evidence } => {
                Self::Doubt(Doubt::Contradicted {
                    log: *log,
                    round: *round,
                    seen: *seen,
                    other: *other,
                    servers: servers.clone(),
                    evidence: evidence.clone(),
                })
            }
            Report::Refused { kind: "record" | "record-signature", reason, from: Some(from) } => {
                Self::Doubt(Doubt::Refused { reason: *reason, from: *from })
            }
            _ => return None,
        })
    }
}

/// What one round has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast {
    /// The log. An instance begins another one only after it has lost the last.
    pub log: LogId,
    /// The round. Numbers rise within a log; those of abandoned rounds are left out.
    pub round: Round,
    /// Of the record.
    pub digest: Digest,
    /// Of the record before it; zero for the first of a log.
    pub previous: Digest,
    /// Every server of the roster has signed it. Otherwise just a majority: it may come again.
    pub confirmed: bool,
    /// How many clients took part, with a message or without.
    pub participants: u32,
    /// The roster, in the order of peer ids.
    pub servers: Vec<PeerId>,
    /// What was said, by slot.
    pub messages: Vec<Message>,
    /// Slots in which two messages collided, or somebody wrote garbage.
    pub garbled: u32,
}

/// A message. Nobody knows whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it stood in the broadcast, from 0. Drawn at random by its author.
    pub slot: u32,
    /// All bytes of the slot's payload: what was sent, and zeros behind it.
    pub bytes: Vec<u8>,
}

impl Message {
    /// The bytes without the zeros at the end.
    #[must_use]
    pub fn trimmed(&self) -> &[u8] {
        let len = self.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
        self.bytes.get(..len).unwrap_or_default()
    }
}

impl Broadcast {
    fn of(params: &RoundParams, record: &Record, digest: Digest, confirmed: bool) -> Self {
        let mut messages = Vec::new();
        let mut garbled = 0;
        for (slot, content) in (0_u32..).zip(read_slots(params, &record.header, &record.broadcast)) {
            match content {
                SlotContent::Empty => {}
                SlotContent::Message(bytes) => messages.push(Message { slot, bytes: bytes.to_vec() }),
                SlotContent::Garbled => garbled += 1,
            }
        }
        Self {
            log: record.log,
            round: record.round,
            digest,
            previous: record.previous,
            confirmed,
            participants: record.participants.count_ones(),
            servers: record.servers.clone(),
            messages,
            garbled,
        }
    }
}

/// Something that a reader cannot vouch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Nobody has given records that are wanted. The next broadcast does not follow the one before it. Rounds in between
    /// may have been abandoned as well.
    Missing {
        /// The log.
        log: LogId,
        /// The first round that was wanted.
        from: Round,
        /// The oldest record that can be had.
        oldest: Round,
    },
    /// Servers have signed two records of one round. This must never happen: the committee, or some of it, lies.
    Contradicted {
        /// The log.
        log: LogId,
        /// The round.
        round: Round,
        /// Of the record that was believed.
        seen: Digest,
        /// Of the other one.
        other: Digest,
        /// Who signed the other one.
        servers: Vec<PeerId>,
        /// Both signatures of those who signed both: they convince also whoever was not there. Each server once for each
        /// round.
        evidence: Vec<Contradiction>,
    },
    /// A peer sent a record or a signature that does not hold.
    Refused {
        /// Why.
        reason: Refused,
        /// Who sent it.
        from: PeerId,
    },
    /// Whoever reads was too slow.
    Behind {
        /// How many items were lost.
        lost: u64,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { log, from, oldest } => write!(
                f,
                "records from {from} on are missing in log {}: the oldest record that can be had is {oldest}",
                log.short()
            ),
            Self::Contradicted { log, round, seen, other, servers, evidence: _ } => {
                let servers: Vec<_> = servers.iter().map(PeerId::short).collect();
                write!(
                    f,
                    "two signed records of {round} in log {}: {seen} and {other}, the latter signed by {}",
                    log.short(),
                    servers.join(", ")
                )
            }
            Self::Refused { reason, from } => {
                write!(f, "a record from {} was refused: {reason}", from.short())
            }
            Self::Behind { lost } => write!(f, "{lost} broadcasts were lost: whoever reads them is too slow"),
        }
    }
}

impl core::error::Error for Doubt {}
