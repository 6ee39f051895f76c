//! The log on disk: entries, vote, and what was purged and committed.
//!
//! All writes go through one task in the order in which they were asked for, and whatever waits is written in one
//! transaction. Appending therefore does not hold up openraft: it goes on, and is told when the entries are on disk.
//! What may be lost in a crash (the purge of entries that a snapshot covers, the committed position) waits for the
//! next transaction that something else needs.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex};

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft_rt::AsyncRuntime;
use redb::{ReadableTable, TableDefinition, TableError, WriteTransaction};
use zipnet_core::checks::{Check, Checks};
use zipnet_core::id::RaftId;

use super::codec;
use super::database::{Database, META, corrupted, lock, meta};
use super::types::{Command, Entry, LogId, Payload, Types, Vote, term};
use super::{Event, OnEvent, OpenError};
use crate::world::World;

/// The file.
pub const FILE: &str = "log.redb";
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
pub(super) const VOTE: &str = "vote";
const PURGED: &str = "purged";
pub(super) const COMMITTED: &str = "committed";

/// Entries that are on disk stay in memory as well up to this many bytes: applying and replicating rarely read disks.
const TAIL_BYTES: usize = 1 << 20;
/// A request to a follower carries about this much at most, but at least one entry.
const REQUEST_BYTES: usize = 256 << 10;
/// What an entry costs beside its command, about.
const ENTRY_BYTES: usize = 128;

/// The log of one node, as openraft wants it. Clones are the same log.
pub struct LogStore<W: World> {
    inner: Arc<Inner<W>>,
    writer: mpsc::UnboundedSender<Operation<W>>,
}

struct Inner<W> {
    database: Database<W>,
    memory: Mutex<Memory>,
    on_event: OnEvent,
    vote_synced: bool,
    append_synced: bool,
}

/// What is known without reading the disk. Runs ahead of it by what waits in the writer.
#[derive(Default)]
struct Memory {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The end of the log, without gaps. Holds at least what is not on disk yet.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    /// Entries up to this one are on disk.
    flushed: Option<u64>,
    /// The next transaction writes [`Self::committed`].
    committed_waits: bool,
    /// The committed position in the file, which a crash may take back.
    committed_written: Option<LogId>,
    /// The committed position that survives a crash.
    committed_synced: Option<LogId>,
    /// The next transaction writes [`Self::purged`] and removes what it covers.
    purge_waits: bool,
}

/// What the writer is asked for.
enum Operation<W: World> {
    Vote(Vote, oneshot::Sender<io::Result<()>>),
    Append(Vec<Entry>, IOFlushed<Types<W::Runtime>>),
    TruncateFrom(u64, oneshot::Sender<io::Result<()>>),
    /// Write what waits for a transaction.
    Flush(oneshot::Sender<io::Result<()>>),
}

/// What of an operation goes to the disk.
enum Change {
    Vote(Vote),
    Append(Vec<Entry>),
    TruncateFrom(u64),
}

impl<W: World> LogStore<W> {
    /// Opens or creates the log of the node `owner` on the disk of its world.
    ///
    /// # Errors
    /// The disk's, or that the file is not such a log, or damaged.
    pub async fn open<C: Checks>(
        world: &W,
        checks: &C,
        owner: RaftId,
        on_event: OnEvent,
    ) -> Result<Self, OpenError> {
        Self::open_with(world, checks, owner, Arc::default(), on_event).await
    }

    /// As [`LogStore::open`], with a note of the first failure that all files of the node share.
    pub(super) async fn open_with<C: Checks>(
        world: &W,
        checks: &C,
        owner: RaftId,
        failure: Arc<Mutex<Option<String>>>,
        on_event: OnEvent,
    ) -> Result<Self, OpenError> {
        let (database, memory) =
            Database::open(world, FILE, owner, failure, Arc::clone(&on_event), load).await?;
        let inner = Arc::new(Inner {
            database,
            memory: Mutex::new(memory),
            on_event,
            vote_synced: checks.enforce(Check::VoteSynced),
            append_synced: checks.enforce(Check::AppendSynced),
        });
        let (writer, operations) = mpsc::unbounded();
        // The task ends with the last clone of the sender.
        drop(W::Runtime::spawn(write(Arc::clone(&inner), operations)));
        Ok(Self { inner, writer })
    }

    /// Whether nothing was ever stored.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        let memory = lock(&self.inner.memory);
        memory.vote.is_none() && memory.last.is_none()
    }

    /// What is known to be committed.
    pub(super) fn committed(&self) -> Option<LogId> {
        lock(&self.inner.memory).committed
    }

    /// The vote that is stored, or about to be.
    pub(super) fn vote(&self) -> Option<Vote> {
        lock(&self.inner.memory).vote
    }

    /// Waits until the committed position is on disk. Writes only if it is not there yet.
    pub async fn sync_committed(&self) -> io::Result<()> {
        let is_synced = {
            let memory = lock(&self.inner.memory);
            memory.committed <= memory.committed_synced
        };
        if is_synced { Ok(()) } else { self.ask(Operation::Flush).await }
    }

    /// Writes what waits and closes the file; every later operation fails.
    pub async fn close(&self) {
        // A failure was reported where it happened, and the file is closed either way.
        drop(self.ask(Operation::Flush).await);
        self.inner.database.close().await;
    }

    async fn ask(
        &self,
        operation: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Operation<W>,
    ) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.send(operation(done))?;
        answer.await.map_err(|_| io::Error::other("write to the log: its writer is gone"))?
    }

    fn send(&self, operation: Operation<W>) -> io::Result<()> {
        self.writer
            .unbounded_send(operation)
            .map_err(|_| io::Error::other("write to the log: its writer is gone"))
    }

    /// The entries from `start` up to `end` exclusively, as many as there are, about `bytes` of them at most.
    async fn entries(&self, start: u64, end: u64, bytes: usize) -> io::Result<Vec<Entry>> {
        let (disk, mut found) = lock(&self.inner.memory).tail(start, end, bytes);
        if let Some((start, end)) = disk {
            let mut entries = self
                .inner
                .database
                .read(move |transaction| {
                    let log = match transaction.open_table(LOG) {
                        Ok(log) => log,
                        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                        Err(error) => return Err(error.into()),
                    };
                    let mut entries = Vec::new();
                    let mut left = bytes;
                    for row in log.range(start..end)? {
                        let (index, value) = row?;
                        let entry = codec::decode_entry(value.value())
                            .map_err(|reason| corrupted(format_args!("entry {}", index.value()), reason))?;
                        let size = size(&entry);
                        if !entries.is_empty() && size > left {
                            break;
                        }
                        left = left.saturating_sub(size);
                        entries.push(entry);
                    }
                    Ok(entries)
                })
                .await?;
            // A limit that was not reached on the disk may be reached in the tail, but a request need not be full.
            if bytes == usize::MAX {
                entries.append(&mut found);
            }
            return Ok(entries);
        }
        Ok(found)
    }
}

impl<W: World> RaftLogReader<Types<W::Runtime>> for LogStore<W> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + fmt::Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.entries(start, end, REQUEST_BYTES).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(lock(&self.inner.memory).vote)
    }
}

impl<W: World> RaftLogStorage<Types<W::Runtime>> for LogStore<W> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<W::Runtime>>> {
        let memory = lock(&self.inner.memory);
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (voted, term) = (vote.leader_id.voted_for.0, vote.leader_id.term);
        lock(&self.inner.memory).vote = Some(*vote);
        if !vote.committed {
            (self.inner.on_event)(Event::Voted { term, candidate: voted });
        }
        self.ask(|done| Operation::Vote(*vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut memory = lock(&self.inner.memory);
        memory.committed = committed;
        memory.committed_waits = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(lock(&self.inner.memory).committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<W::Runtime>>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        lock(&self.inner.memory).append(&entries);
        self.send(Operation::Append(entries, callback))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        lock(&self.inner.memory).truncate_after(last);
        self.ask(|done| Operation::TruncateFrom(from, done)).await?;
        // Only now: appends that were asked for before this have raised it meanwhile, and none comes in between.
        {
            let mut memory = lock(&self.inner.memory);
            memory.flushed = memory.flushed.min(from.checked_sub(1));
        }
        (self.inner.on_event)(Event::Truncated { after: last.map(|last| last.index) });
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        lock(&self.inner.memory).purge(upto);
        Ok(())
    }
}

impl Memory {
    fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.tail_bytes += size(entry);
            self.tail.push_back(entry.clone());
            self.last = Some(entry.log_id);
        }
    }

    fn truncate_after(&mut self, last: Option<LogId>) {
        let from = last.map_or(0, |last| last.index + 1);
        while let Some(entry) = self.tail.pop_back_if(|entry| entry.log_id.index >= from) {
            self.tail_bytes -= size(&entry);
        }
        self.last = self.last.min(last).max(self.purged);
    }

    fn purge(&mut self, upto: LogId) {
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(self.purged);
        self.purge_waits = true;
        while let Some(entry) = self.tail.pop_front_if(|entry| entry.log_id.index <= upto.index) {
            self.tail_bytes -= size(&entry);
        }
    }

    /// The entries up to `last` are on disk.
    fn flush(&mut self, last: u64) {
        self.flushed = self.flushed.max(Some(last));
        let flushed = self.flushed;
        while self.tail_bytes > TAIL_BYTES {
            let Some(entry) = self.tail.pop_front_if(|entry| Some(entry.log_id.index) <= flushed) else {
                break;
            };
            self.tail_bytes -= size(&entry);
        }
    }

    /// Splits a range into what has to be read from disk and what is at hand.
    fn tail(&self, start: u64, end: u64, bytes: usize) -> (Option<(u64, u64)>, Vec<Entry>) {
        let start = self.purged.map_or(start, |purged| start.max(purged.index + 1));
        let end = end.min(self.last.map_or(0, |last| last.index + 1));
        if start >= end {
            return (None, Vec::new());
        }
        let first = self.tail.front().map_or(end, |entry| entry.log_id.index).min(end);
        let disk = (start < first).then_some((start, first));
        let skip = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        let take = usize::try_from(end - start.max(first)).unwrap_or(usize::MAX);
        let mut left = bytes;
        let mut entries = Vec::new();
        for entry in self.tail.iter().skip(skip).take(take) {
            let size = size(entry);
            if !entries.is_empty() && size > left {
                break;
            }
            left = left.saturating_sub(size);
            entries.push(entry.clone());
        }
        (disk, entries)
    }
}

/// Carries out what is asked for, as much as waits at once, until nobody can ask any more.
async fn write<W: World>(inner: Arc<Inner<W>>, mut operations: mpsc::UnboundedReceiver<Operation<W>>) {
    while let Some(first) = operations.next().await {
        let mut batch = vec![first];
        while let Ok(next) = operations.try_recv() {
            batch.push(next);
        }
        let mut durable = false;
        let mut changes = Vec::with_capacity(batch.len());
        for operation in &mut batch {
            match operation {
                Operation::Vote(vote, _) => {
                    durable |= inner.vote_synced;
                    changes.push(Change::Vote(*vote));
                }
                Operation::Append(entries, _) => {
                    durable |= inner.append_synced;
                    changes.push(Change::Append(entries.clone()));
                }
                Operation::TruncateFrom(from, _) => {
                    durable = true;
                    changes.push(Change::TruncateFrom(*from));
                }
                Operation::Flush(_) => durable = true,
            }
        }
        let waiting = lock(&inner.memory).take_waiting();
        let (committed, _) = waiting;
        let result =
            inner.database.write(durable, move |transaction| commit(transaction, &changes, waiting)).await;
        if result.is_ok() {
            let mut memory = lock(&inner.memory);
            memory.committed_written = memory.committed_written.max(committed);
            if durable {
                memory.committed_synced = memory.committed_written;
            }
        }
        for operation in batch {
            acknowledge(&inner, operation, &result);
        }
    }
}

impl Memory {
    /// What waits for a transaction: the committed position and the purged one.
    fn take_waiting(&mut self) -> (Option<LogId>, Option<LogId>) {
        let committed = if std::mem::take(&mut self.committed_waits) { self.committed } else { None };
        let purged = if std::mem::take(&mut self.purge_waits) { self.purged } else { None };
        (committed, purged)
    }
}

fn commit(
    transaction: &WriteTransaction,
    changes: &[Change],
    (committed, purged): (Option<LogId>, Option<LogId>),
) -> Result<(), redb::Error> {
    let mut log = transaction.open_table(LOG)?;
    let mut meta = transaction.open_table(META)?;
    for change in changes {
        match change {
            Change::Vote(vote) => {
                meta.insert(VOTE, codec::encode_vote(vote).as_slice())?;
            }
            Change::Append(entries) => {
                for entry in entries {
                    log.insert(entry.log_id.index, codec::encode_entry(entry).as_slice())?;
                }
            }
            Change::TruncateFrom(from) => log.retain_in(*from.., |_, _| false)?,
        }
    }
    // Last: entries that this transaction appended may be covered by a snapshot that came after them.
    if let Some(purged) = purged {
        meta.insert(PURGED, codec::encode_log_id(&purged).as_slice())?;
        log.retain_in(..=purged.index, |_, _| false)?;
    }
    if let Some(committed) = committed {
        meta.insert(COMMITTED, codec::encode_log_id(&committed).as_slice())?;
    }
    Ok(())
}

fn acknowledge<W: World>(inner: &Inner<W>, operation: Operation<W>, result: &io::Result<()>) {
    let answer = || match result {
        Ok(()) => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    };
    let done = match operation {
        Operation::Vote(vote, done) => {
            if result.is_ok() && !vote.committed {
                let (candidate, term) = (vote.leader_id.voted_for.0, vote.leader_id.term);
                (inner.on_event)(Event::VoteSynced { term, candidate });
            }
            done
        }
        Operation::Append(entries, callback) => {
            if result.is_ok()
                && let Some(last) = entries.last()
            {
                lock(&inner.memory).flush(last.log_id.index);
                (inner.on_event)(Event::Appended { last_index: last.log_id.index, term: term(&last.log_id) });
            }
            callback.io_completed(answer());
            return;
        }
        Operation::TruncateFrom(_, done) | Operation::Flush(done) => done,
    };
    // Whoever asked may have stopped waiting.
    drop(done.send(answer()));
}

/// What the disk says.
fn load(transaction: &redb::ReadTransaction) -> Result<Memory, redb::Error> {
    let table = transaction.open_table(META)?;
    let purged = meta(&table, PURGED, codec::decode_log_id)?;
    let last = match transaction.open_table(LOG) {
        Ok(log) => match log.last()? {
            Some((index, value)) => Some(
                codec::decode_entry(value.value())
                    .map_err(|reason| corrupted(format_args!("entry {}", index.value()), reason))?
                    .log_id,
            ),
            None => None,
        },
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let committed = meta(&table, COMMITTED, codec::decode_log_id)?;
    let committed = committed.max(settled(transaction, committed)?);
    Ok(Memory {
        vote: meta(&table, VOTE, codec::decode_vote)?,
        committed,
        committed_written: committed,
        committed_synced: committed,
        purged,
        last: last.max(purged),
        flushed: last.map(|last| last.index),
        ..Memory::default()
    })
}

/// The last membership but one, if it is above what was written down as committed.
///
/// A membership is taken only on top of a committed one, so this one was committed, whatever a crash has taken back. Whoever
/// sends both to a node that has neither has to say so.
fn settled(
    transaction: &redb::ReadTransaction,
    committed: Option<LogId>,
) -> Result<Option<LogId>, redb::Error> {
    let log = match transaction.open_table(LOG) {
        Ok(log) => log,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let first = committed.map_or(0, |committed| committed.index.saturating_add(1));
    let mut memberships = 0;
    for row in log.range(first..)?.rev() {
        let (index, value) = row?;
        let entry = codec::decode_entry(value.value())
            .map_err(|reason| corrupted(format_args!("entry {}", index.value()), reason))?;
        if matches!(entry.payload, Payload::Membership(_)) {
            memberships += 1;
            if memberships == 2 {
                return Ok(Some(entry.log_id));
            }
        }
    }
    Ok(None)
}

fn size(entry: &Entry) -> usize {
    ENTRY_BYTES
        + match &entry.payload {
            Payload::Normal(Command(bytes)) => bytes.len(),
            Payload::Blank | Payload::Membership(_) => 0,
        }
}

impl<W: World> Clone for LogStore<W> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), writer: self.writer.clone() }
    }
}

impl<W: World> fmt::Debug for LogStore<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").finish_non_exhaustive()
    }
}
