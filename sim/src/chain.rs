//! The hash chain over everything that happens in a run, and what is needed to compare two runs.
//!
//! Every event is a record: virtual time (8 bytes), node (4), kind (1), length of the body (8), all little endian,
//! then the body. A block is up to [`BLOCK`] records; the chain after a block is
//! `blake3(chain before ‖ records of the block)`, beginning with 32 zero bytes, and is kept as a [`Checkpoint`]. The
//! seed is not part of it: two seeds that make the same things happen have the same chain.
//!
//! Two runs are compared by their checkpoints. [`first_difference`] names the events between the last common one and
//! the first different one; a second run with a [`Recorder`] that keeps this window shows them in words.

use core::fmt;
use core::ops::Range;
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use zipnet_core::time::Time;

/// Events per checkpoint.
pub const BLOCK: u64 = 1_024;

/// Bytes that are hashed at once.
const BUFFER: usize = 128 << 10;

/// A simulated machine: its place in the order in which the machines of a run were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeIndex(pub u32);

impl NodeIndex {
    /// Nobody: what the simulator itself does.
    pub const NOBODY: Self = Self(u32::MAX);
}

impl fmt::Display for NodeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NOBODY { f.write_str("-") } else { write!(f, "n{}", self.0) }
    }
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Kind {
    /// A node handed a message to the network.
    Sent = 1,
    /// A message reached a node.
    Delivered = 2,
    /// A message was lost.
    Dropped = 3,
    /// A message will be delivered twice.
    Duplicated = 4,
    /// A connection was opened, refused, closed or broken.
    Connection = 5,
    /// A timer of a node ran out.
    Timer = 6,
    /// A write or a change of length of a file.
    DiskWrite = 7,
    /// A sync of a file.
    DiskSync = 8,
    /// The power of a disk failed, and what survived was decided.
    DiskCrash = 9,
    /// A fault began or ended.
    Fault = 10,
    /// A node told that something happened inside it.
    Effect = 11,
    /// Something that the simulator did or saw: nodes starting and stopping, steps, checks.
    Note = 12,
}

impl Kind {
    /// The word in event logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
            Self::Duplicated => "duplicated",
            Self::Connection => "connection",
            Self::Timer => "timer",
            Self::DiskWrite => "disk-write",
            Self::DiskSync => "disk-sync",
            Self::DiskCrash => "disk-crash",
            Self::Fault => "fault",
            Self::Effect => "effect",
            Self::Note => "note",
        }
    }
}

/// The chain after so many events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// How many events the chain covers.
    pub events: u64,
    /// When the last of them happened, in virtual nanoseconds.
    pub time: Time,
    /// The chain after it.
    pub chain: [u8; 32],
}

/// A defect of the simulator made on purpose, to prove that the chain notices. Counting begins with 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    /// The lowest bit of the last byte of this delivery is flipped on the way.
    FlipByte {
        /// Which delivery.
        delivery: u64,
    },
    /// This delivery and the next one change places.
    SwapDeliveries {
        /// Which delivery.
        delivery: u64,
    },
    /// The disk syncs once more after this sync.
    ExtraSync {
        /// Which sync.
        sync: u64,
    },
}

/// Which events a recorder keeps as text.
#[derive(Default)]
pub enum Log {
    /// None.
    #[default]
    Off,
    /// Every event, one line each, as it happens: the event log of `--out`.
    To(Box<dyn Write + Send>),
    /// The events with these numbers, in memory.
    Window(Range<u64>),
    /// The last so many events, in memory: what led to a failure.
    Last(usize),
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("Off"),
            Self::To(_) => f.write_str("To(..)"),
            Self::Window(range) => write!(f, "Window({range:?})"),
            Self::Last(count) => write!(f, "Last({count})"),
        }
    }
}

/// Keeps the chain. Clones are the same recorder.
#[derive(Clone, Debug)]
pub struct Recorder {
    inner: Arc<Mutex<Inner>>,
    tamper: Option<Tamper>,
}

impl Recorder {
    /// A recorder that has seen nothing.
    #[must_use]
    pub fn new(log: Log) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner::new(log))), tamper: None }
    }

    /// The same for a run with a defect in the simulator.
    #[must_use]
    pub fn with_tamper(log: Log, tamper: Tamper) -> Self {
        Self { tamper: Some(tamper), ..Self::new(log) }
    }

    /// The defect that network and disks carry out.
    #[must_use]
    pub const fn tamper(&self) -> Option<Tamper> {
        self.tamper
    }

    /// Appends an event. The body is the concatenation of its parts; `detail` is asked for only if the event is kept
    /// as text. Neither may depend on anything but the run.
    pub fn record(
        &self,
        at: Time,
        node: NodeIndex,
        kind: Kind,
        body: &[&[u8]],
        detail: impl FnOnce() -> String,
    ) {
        self.inner().record(at, node, kind, body, detail);
    }

    /// Appends a text as the whole body of an event.
    pub fn note(&self, at: Time, node: NodeIndex, kind: Kind, text: &str) {
        self.record(at, node, kind, &[text.as_bytes()], || text.to_owned());
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.inner().events
    }

    /// How many events there were of each kind.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Kind, u64> {
        self.inner().counts.clone()
    }

    /// The chain over all events up to this moment.
    #[must_use]
    pub fn chain(&self) -> [u8; 32] {
        self.inner().last().chain
    }

    /// Every checkpoint, and the chain of this moment as the last one.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        let inner = self.inner();
        let mut all = inner.checkpoints.clone();
        if inner.in_block > 0 {
            all.push(inner.last());
        }
        all
    }

    /// The lines that [`Log::Window`] or [`Log::Last`] kept, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.inner().kept.iter().cloned().collect()
    }

    /// Ends the recording: what happens from here on, while the nodes of a run are let go, is no part of it.
    pub fn seal(&self) {
        self.inner().sealed = true;
    }

    /// Writes buffered lines of [`Log::To`].
    ///
    /// # Errors
    /// The first error of any write, also of earlier ones.
    pub fn finish(&self) -> std::io::Result<()> {
        let mut inner = self.inner();
        if let Some(error) = inner.write_error.take() {
            return Err(error);
        }
        match &mut inner.log {
            Log::To(writer) => writer.flush(),
            Log::Off | Log::Window(_) | Log::Last(_) => Ok(()),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers of the events among which two runs differ for the first time; none if the shorter run is a prefix of
/// the longer one as far as both have checkpoints, and both are equally long.
#[must_use]
pub fn first_difference(left: &[Checkpoint], right: &[Checkpoint]) -> Option<Range<u64>> {
    let mut common = 0;
    for (one, other) in left.iter().zip(right) {
        if one != other {
            return Some(common..one.events.max(other.events));
        }
        common = one.events;
    }
    let longest = [left.last(), right.last()].into_iter().flatten().map(|last| last.events).max()?;
    (longest > common).then_some(common..longest)
}

#[derive(Debug)]
struct Inner {
    /// Has taken in the previous chain and the records of the unfinished block, except for what is buffered.
    hasher: blake3::Hasher,
    /// Records that wait to be hashed: one long piece is hashed several times as fast as many short ones.
    buffer: Vec<u8>,
    /// Records in the unfinished block; less than [`BLOCK`].
    in_block: u64,
    events: u64,
    /// When the last event happened. Never moves back.
    time: Time,
    counts: BTreeMap<Kind, u64>,
    /// One for every finished block.
    checkpoints: Vec<Checkpoint>,
    log: Log,
    kept: VecDeque<String>,
    write_error: Option<std::io::Error>,
    /// The run is over.
    sealed: bool,
}

impl Inner {
    fn new(log: Log) -> Self {
        Self {
            hasher: begin(&[0; 32]),
            buffer: Vec::with_capacity(2 * BUFFER),
            in_block: 0,
            events: 0,
            time: Time::default(),
            counts: BTreeMap::new(),
            checkpoints: Vec::new(),
            log,
            kept: VecDeque::new(),
            write_error: None,
            sealed: false,
        }
    }

    fn record(
        &mut self,
        at: Time,
        node: NodeIndex,
        kind: Kind,
        body: &[&[u8]],
        detail: impl FnOnce() -> String,
    ) {
        if self.sealed {
            return;
        }
        assert!(at >= self.time, "time ran backwards: {at:?} after {:?}", self.time);
        let len: usize = body.iter().map(|part| part.len()).sum();
        let len = u64::try_from(len).expect("lengths fit 64 bits");
        self.buffer.extend(at.0.to_le_bytes());
        self.buffer.extend(node.0.to_le_bytes());
        self.buffer.push(kind as u8);
        self.buffer.extend(len.to_le_bytes());
        for part in body {
            self.buffer.extend_from_slice(part);
        }
        if self.buffer.len() >= BUFFER {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }

        let keep = match &self.log {
            Log::Off => false,
            Log::To(_) | Log::Last(_) => true,
            Log::Window(range) => range.contains(&self.events),
        };
        if keep {
            let detail = detail();
            self.keep(&line(self.events, at, node, kind, &detail, body));
        }

        self.time = at;
        self.events += 1;
        *self.counts.entry(kind).or_default() += 1;
        self.in_block += 1;
        if self.in_block == BLOCK {
            let checkpoint = self.last();
            self.hasher = begin(&checkpoint.chain);
            self.buffer.clear();
            self.in_block = 0;
            self.checkpoints.push(checkpoint);
        }
    }

    /// The chain up to this moment as a checkpoint.
    fn last(&self) -> Checkpoint {
        if self.in_block == 0 {
            let start = Checkpoint { events: 0, time: Time::default(), chain: [0; 32] };
            return self.checkpoints.last().copied().unwrap_or(start);
        }
        Checkpoint {
            events: self.events,
            time: self.time,
            chain: *self.hasher.clone().update(&self.buffer).finalize().as_bytes(),
        }
    }

    fn keep(&mut self, line: &str) {
        match &mut self.log {
            Log::Off => {}
            Log::To(writer) => {
                if self.write_error.is_none() {
                    self.write_error = writeln!(writer, "{line}").err();
                }
            }
            Log::Window(_) => self.kept.push_back(line.to_owned()),
            Log::Last(count) => {
                self.kept.push_back(line.to_owned());
                while self.kept.len() > *count {
                    self.kept.pop_front();
                }
            }
        }
    }
}

fn begin(previous: &[u8; 32]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous);
    hasher
}

/// `<number> <t_ns> <node> <kind> <detail> #<first 8 hexadecimal digits of the hash of the body>`
fn line(number: u64, at: Time, node: NodeIndex, kind: Kind, detail: &str, body: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in body {
        hasher.update(part);
    }
    let digest = hasher.finalize().to_hex();
    // A line is a line, whatever a node says about itself.
    let detail = detail.replace(['\n', '\r'], " ");
    format!("{number} {} {node} {} {detail} #{}", at.0, kind.name(), &digest[..8])
}
