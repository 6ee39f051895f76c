//! What a stopped node has on its disk: the newest snapshot and the entries after it, for whoever wants to apply them once
//! more elsewhere; and whose votes counted, for whoever begins another log in the place of this one.

use std::collections::BTreeSet;

use bytes::Bytes;
use redb::{ReadOnlyDatabase, ReadTransaction, ReadableDatabase, TableError};
use zipnet_core::id::RaftId;

use super::OpenError;
use super::codec;
use super::database::{META, corrupted, is_kind, meta};
use super::machine::{FILE as MACHINE_FILE, covered, newest};
use super::storage::{COMMITTED, FILE as LOG_FILE, LOG, VOTE};
use super::types::{Command, Members, Membership, Payload};
use crate::world::Disk;

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

/// Whose votes counted at the end of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Voters {
    /// Nothing was ever written, neither an entry nor a vote.
    Pristine,
    /// There are entries or a vote, and no membership.
    Unknown,
    /// The voters of the last membership, committed or not; of one in transition, those that it leads to.
    Known(BTreeSet<RaftId>),
}

/// Reads the voters from the files of a state folder, whoever they belonged to.
///
/// # Errors
/// If a file is in use, damaged, or of another format.
pub fn voters(disk: &impl Disk) -> Result<Voters, OpenError> {
    let snapshot = open(disk, MACHINE_FILE, covered)?.flatten();
    // What a snapshot covers may still stand in the log, also if it was replaced.
    let last = snapshot.as_ref().and_then(|meta| meta.last_log_id);
    let first = last.map_or(0, |last| last.index.saturating_add(1));
    let log = open(disk, LOG_FILE, |transaction| {
        let table = transaction.open_table(META)?;
        let voted = meta(&table, VOTE, codec::decode_vote)?.is_some();
        let log = match transaction.open_table(LOG) {
            Ok(log) => log,
            Err(TableError::TableDoesNotExist(_)) => return Ok((None, voted)),
            Err(error) => return Err(error.into()),
        };
        let mut wrote = voted;
        for row in log.range(first..)?.rev() {
            let (index, value) = row?;
            wrote = true;
            let entry = codec::decode_entry(value.value())
                .map_err(|reason| corrupted(format_args!("entry {}", index.value()), reason))?;
            if let Payload::Membership(membership) = entry.payload {
                return Ok((Some(membership), wrote));
            }
        }
        Ok((None, wrote))
    })?;
    let (membership, wrote) = log.unwrap_or((None, false));
    let membership = membership.or_else(|| snapshot.map(|meta| meta.last_membership.membership().clone()));
    Ok(match membership.as_ref().map(Membership::get_joint_config).and_then(|halves| halves.last()) {
        Some(voters) => Voters::Known(voters.iter().map(|id| id.0).collect()),
        None if wrote => Voters::Unknown,
        None => Voters::Pristine,
    })
}

/// Opens a file, if it exists and something was written to it, and reads.
fn open<T>(
    disk: &impl Disk,
    name: &'static str,
    read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
) -> Result<Option<T>, OpenError> {
    let failed = |error| OpenError::Disk { file: name, error };
    if !disk.exists(name).map_err(failed)? {
        return Ok(None);
    }
    let backend = disk.open(name).map_err(failed)?;
    let file = redb::Builder::new().set_cache_size(1 << 16).create_with_backend(backend);
    let file = file.map_err(|error| OpenError::from_redb(name, error.into()))?;
    if !is_kind(&file, name)? {
        return Ok(None);
    }
    let transaction = file.begin_read().map_err(|error| OpenError::from_redb(name, error.into()))?;
    read(&transaction).map(Some).map_err(|error| OpenError::from_redb(name, error))
}

impl Members {
    /// The voters by name.
    #[must_use]
    pub fn peers(&self) -> BTreeSet<zipnet_core::id::PeerId> {
        self.voters.iter().map(|RaftId { peer, .. }| *peer).collect()
    }
}
