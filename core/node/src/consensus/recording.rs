//! What a stopped node has on its disk: the newest snapshot and the entries after it, for whoever wants to apply them once
//! more elsewhere.

use bytes::Bytes;
use redb::{ReadOnlyDatabase, ReadableDatabase, TableError};
use zipnet_core::id::RaftId;

use super::OpenError;
use super::codec;
use super::database::{META, corrupted, meta};
use super::machine::{FILE as MACHINE_FILE, newest};
use super::storage::{COMMITTED, FILE as LOG_FILE, LOG};
use super::types::{Command, Members, Payload};

/// A committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// A command of the replicated machine.
    Command {
        /// Its position in the log.
        index: u64,
        /// As it was proposed.
        command: Bytes,
    },
    /// A change of the membership.
    Members(Members),
}

/// The state of one node.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The machine, where the entries begin in the middle of the log.
    pub snapshot: Option<Bytes>,
    /// Everything committed after that, in order.
    pub entries: Vec<Recorded>,
}

/// Reads both files. Nothing is changed; the node must have stopped in order.
///
/// # Errors
/// If the files are in use, damaged, or of another format.
pub fn read(log: &ReadOnlyDatabase, machine: &ReadOnlyDatabase) -> Result<Recording, OpenError> {
    let snapshot = snapshot(machine).map_err(|error| OpenError::from_redb(MACHINE_FILE, error))?;
    let (covered, snapshot) = snapshot.map_or((None, None), |(covered, bytes)| (covered, Some(bytes)));
    let entries = entries(log, covered).map_err(|error| OpenError::from_redb(LOG_FILE, error))?;
    Ok(Recording { snapshot, entries })
}

fn snapshot(machine: &ReadOnlyDatabase) -> Result<Option<(Option<u64>, Bytes)>, redb::Error> {
    let newest = newest(&machine.begin_read()?)?;
    Ok(newest.map(|newest| (newest.meta.last_log_id.map(|last| last.index), newest.snapshot)))
}

fn entries(log: &ReadOnlyDatabase, covered: Option<u64>) -> Result<Vec<Recorded>, redb::Error> {
    let transaction = log.begin_read()?;
    let committed = meta(&transaction.open_table(META)?, COMMITTED, codec::decode_log_id)?;
    let Some(committed) = committed else { return Ok(Vec::new()) };
    let table = match transaction.open_table(LOG) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let first = covered.map_or(0, |covered| covered.saturating_add(1));
    let mut entries = Vec::new();
    let mut expected = None;
    for row in table.range(first..=committed.index)? {
        let (index, value) = row?;
        let index = index.value();
        if expected.is_some_and(|expected| expected != index) {
            return Err(redb::Error::Corrupted(format!("entry {index} does not follow the one before it")));
        }
        expected = index.checked_add(1);
        let entry = codec::decode_entry(value.value())
            .map_err(|reason| corrupted(format_args!("entry {index}"), reason))?;
        match entry.payload {
            Payload::Normal(Command(command)) => entries.push(Recorded::Command { index, command }),
            Payload::Membership(membership) => entries.push(Recorded::Members(Members::from(&membership))),
            Payload::Blank => {}
        }
    }
    Ok(entries)
}

impl Members {
    /// The voters by name.
    #[must_use]
    pub fn peers(&self) -> std::collections::BTreeSet<zipnet_core::id::PeerId> {
        self.voters.iter().map(|RaftId { peer, .. }| *peer).collect()
    }
}
