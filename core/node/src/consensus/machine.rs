//! The replicated machine in memory, and its snapshots on disk.
//!
//! The machine itself is never written: after a start it is what the last snapshot says, and openraft applies the
//! entries after that again, which is why a purge waits until the snapshot is durable.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use redb::{ReadTransaction, TableDefinition, TableError};
use zipnet_core::id::{Digest, RaftId};

use super::codec;
use super::database::{Database, META, lock, meta};
use super::types::{Command, LogId, Members, Payload, Snapshot, SnapshotMeta, StoredMembership, Types, term};
use super::{Event, OnEvent, OpenError};
use crate::world::World;

/// The file.
pub const FILE: &str = "machine.redb";
/// The bytes of the newest snapshot, under [`NEWEST`]. What it covers stands in the table of single values.
const SNAPSHOT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshot");
const NEWEST: &str = "newest";
const COVERS: &str = "covers";

/// The replicated state machine, as consensus sees it. It lives in memory; snapshots and the log make it durable.
///
/// Equal calls in equal order must lead to equal states on every node: no clock, no randomness, nothing local.
pub trait Machine: Send + 'static {
    /// Applies the next command. Called in the order of the log, once per entry after a start or a restore; indexes of
    /// entries that carry no command are left out.
    fn apply(&mut self, index: u64, term: u64, command: &[u8]);

    /// A change of membership was applied.
    fn members(&mut self, index: u64, members: &Members);

    /// The whole state.
    fn snapshot(&self) -> Vec<u8>;

    /// Replaces the whole state.
    ///
    /// # Errors
    /// If these are not the bytes of a snapshot. The state is then unchanged, and the node stops.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), CorruptSnapshot>;

    /// Whether [`Machine::restore`] would take these bytes. Snapshots from peers are asked about before they are
    /// accepted, so that a peer that sends rubbish is refused, while a node that accepted rubbish has to stop.
    ///
    /// # Errors
    /// If these are not the bytes of a snapshot.
    fn examine(&self, snapshot: &[u8]) -> Result<(), CorruptSnapshot> {
        let _ = snapshot;
        Ok(())
    }
}

/// The bytes of a snapshot can not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptSnapshot(pub String);

impl fmt::Display for CorruptSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read the snapshot: {}", self.0)
    }
}

impl std::error::Error for CorruptSnapshot {}

/// The machine and its snapshots, as openraft wants them.
pub struct MachineStore<W, M> {
    database: Database<W>,
    machine: Arc<Mutex<M>>,
    applied: Option<LogId>,
    membership: StoredMembership,
    on_event: OnEvent,
}

/// A snapshot that was taken and is yet to be stored.
pub struct SnapshotBuilder<W> {
    database: Database<W>,
    snapshot: Snapshot,
    on_event: OnEvent,
}

impl<W: World, M: Machine> MachineStore<W, M> {
    /// Opens or creates the snapshots of the node `owner` on the disk of its world, and restores the newest.
    ///
    /// # Errors
    /// The disk's, or that the file is not of this kind, or damaged.
    pub async fn open(
        world: &W,
        owner: RaftId,
        machine: Arc<Mutex<M>>,
        on_event: OnEvent,
    ) -> Result<Self, OpenError> {
        Self::open_with(world, owner, machine, Arc::default(), on_event).await
    }

    /// As [`MachineStore::open`], with a note of the first failure that all files of the node share.
    pub(super) async fn open_with(
        world: &W,
        owner: RaftId,
        machine: Arc<Mutex<M>>,
        failure: Arc<Mutex<Option<String>>>,
        on_event: OnEvent,
    ) -> Result<Self, OpenError> {
        let (database, newest) =
            Database::open(world, FILE, owner, failure, Arc::clone(&on_event), newest).await?;
        let meta = match newest {
            None => SnapshotMeta::default(),
            Some(Snapshot { meta, snapshot }) => {
                lock(&machine)
                    .restore(&snapshot)
                    .map_err(|reason| OpenError::Corrupt { file: FILE, reason: reason.to_string() })?;
                meta
            }
        };
        Ok(Self { database, machine, applied: meta.last_log_id, membership: meta.last_membership, on_event })
    }

    /// A handle to close the file by.
    pub(super) fn database(&self) -> &Database<W> {
        &self.database
    }
}

impl<W: World, M: Machine> RaftStateMachine<Types<W::Runtime>> for MachineStore<W, M> {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder<W>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<Types<W::Runtime>>, io::Error>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let (index, term) = (entry.log_id.index, term(&entry.log_id));
            let digest = match &entry.payload {
                Payload::Blank => blake3::hash(&[]),
                Payload::Normal(Command(bytes)) => {
                    lock(&self.machine).apply(index, term, bytes);
                    blake3::hash(bytes)
                }
                Payload::Membership(membership) => {
                    let members = Members::from(membership);
                    self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    lock(&self.machine).members(index, &members);
                    (self.on_event)(Event::MembersChanged { index, members });
                    blake3::hash(&codec::encode_entry(&entry))
                }
            };
            self.applied = Some(entry.log_id);
            (self.on_event)(Event::Applied { index, term, digest: Digest(digest.into()) });
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<W> {
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        SnapshotBuilder {
            database: self.database.clone(),
            snapshot: Snapshot { meta, snapshot: lock(&self.machine).snapshot().into() },
            on_event: Arc::clone(&self.on_event),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        lock(&self.machine).restore(&snapshot).map_err(io::Error::other)?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        store(&self.database, meta, snapshot, false).await?;
        if let Some(last) = meta.last_log_id {
            (self.on_event)(Event::SnapshotInstalled { index: last.index });
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.database.read(newest).await
    }
}

impl<W: World> RaftSnapshotBuilder<Types<W::Runtime>> for SnapshotBuilder<W> {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let Snapshot { meta, snapshot } = &self.snapshot;
        // One that was installed meanwhile may be newer.
        store(&self.database, meta, snapshot.clone(), true).await?;
        if let Some(last) = meta.last_log_id {
            (self.on_event)(Event::SnapshotTaken { index: last.index });
        }
        Ok(self.snapshot.clone())
    }
}

/// Makes a snapshot the newest one, durably.
async fn store<W: World>(
    database: &Database<W>,
    covers: &SnapshotMeta,
    snapshot: Bytes,
    unless_newer: bool,
) -> io::Result<()> {
    let covers = covers.clone();
    database
        .write(true, move |transaction| {
            let mut meta_table = transaction.open_table(META)?;
            if unless_newer
                && let Some(stored) = meta(&meta_table, COVERS, codec::decode_snapshot_meta)?
                && stored.last_log_id > covers.last_log_id
            {
                return Ok(());
            }
            meta_table.insert(COVERS, codec::encode_snapshot_meta(&covers).as_slice())?;
            transaction.open_table(SNAPSHOT)?.insert(NEWEST, &*snapshot)?;
            Ok(())
        })
        .await
}

pub(super) fn newest(transaction: &ReadTransaction) -> Result<Option<Snapshot>, redb::Error> {
    let Some(meta) = meta(&transaction.open_table(META)?, COVERS, codec::decode_snapshot_meta)? else {
        return Ok(None);
    };
    let missing = || redb::Error::Corrupted("the bytes of the snapshot are missing".to_owned());
    let snapshots = match transaction.open_table(SNAPSHOT) {
        Ok(snapshots) => snapshots,
        Err(TableError::TableDoesNotExist(_)) => return Err(missing()),
        Err(error) => return Err(error.into()),
    };
    let bytes = snapshots.get(NEWEST)?.map(|value| Bytes::copy_from_slice(value.value()));
    Ok(Some(Snapshot { meta, snapshot: bytes.ok_or_else(missing)? }))
}

impl<W, M> fmt::Debug for MachineStore<W, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineStore").field("applied", &self.applied).finish_non_exhaustive()
    }
}

impl<W> fmt::Debug for SnapshotBuilder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotBuilder").field("snapshot", &self.snapshot.meta).finish_non_exhaustive()
    }
}
