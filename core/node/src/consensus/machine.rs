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
use redb::{ReadTransaction, TableDefinition, TableError, WriteTransaction};
use zipnet_core::id::{Digest, RaftId};

use super::codec::{self, Malformed};
use super::database::{Database, META, lock, meta};
use super::types::{Command, LogId, Members, Payload, Snapshot, SnapshotMeta, StoredMembership, Types, term};
use super::{Event, Fault, OnEvent, OpenError};
use crate::world::World;

/// The file.
pub const FILE: &str = "machine.redb";
/// The bytes of the newest snapshot, under [`NEWEST`]. What it covers stands in the table of single values.
const SNAPSHOT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshot");
const NEWEST: &str = "newest";
const COVERS: &str = "covers";
/// Under this name stands what [`Machine::followed`] said last.
const FOLLOWED: &str = "followed";

/// Where a snapshot comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This store's own disk: what it says, this node has applied itself or taken from a peer before.
    Own,
    /// A peer. It is followed, and that is all.
    Peer,
}

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
    fn restore(&mut self, snapshot: &[u8], source: Source) -> Result<(), CorruptSnapshot>;

    /// Whether [`Machine::restore`] would take these bytes from a peer. It is asked when everything committed is applied,
    /// and nothing is applied before the snapshot is installed; so a peer that sends rubbish is refused, while a node that
    /// accepted rubbish has to stop.
    ///
    /// # Errors
    /// If these are not the bytes of a snapshot, or of one that contradicts the state.
    fn examine(&self, snapshot: &[u8]) -> Result<(), CorruptSnapshot>;

    /// The highest round for which this store had to rely on others, `None` until that is known. Never falls. It is kept
    /// on disk: asked after every command and every snapshot of a peer.
    fn followed(&self) -> Option<u64>;

    /// What [`Machine::followed`] said last, as the disk has kept it. Called once, before anything else.
    fn follow(&mut self, followed: Option<u64>);
}

/// The bytes of a snapshot cannot be read.
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
    /// As it is on disk.
    followed: Option<u64>,
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
        let (database, (newest, followed)) =
            Database::open(world, FILE, owner, failure, Arc::clone(&on_event), load).await?;
        lock(&machine).follow(followed);
        let meta = match newest {
            None => SnapshotMeta::default(),
            Some(Snapshot { meta, snapshot }) => {
                lock(&machine)
                    .restore(&snapshot, Source::Own)
                    .map_err(|reason| OpenError::Corrupt { file: FILE, reason: reason.to_string() })?;
                meta
            }
        };
        let (applied, membership) = (meta.last_log_id, meta.last_membership);
        Ok(Self { database, machine, applied, membership, followed, on_event })
    }

    /// A handle to close the file by.
    pub(super) fn database(&self) -> &Database<W> {
        &self.database
    }

    /// Keeps what the machine has to remember beside its state, if that has risen.
    async fn keep_followed(&mut self) -> io::Result<()> {
        let followed = lock(&self.machine).followed();
        if followed > self.followed {
            self.database.write(true, move |transaction| write_followed(transaction, followed)).await?;
            self.followed = followed;
        }
        Ok(())
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
                    self.keep_followed().await?;
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
        let followed = {
            let mut machine = lock(&self.machine);
            machine.restore(&snapshot, Source::Peer).map(|()| machine.followed())
        };
        let followed = followed.map_err(|refused| {
            // It was examined, so this does not happen. If it does, openraft ends; after a restart the node is as before.
            let error = io::Error::other(refused);
            self.database.fail(Fault::Disk, &error);
            error
        })?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        store(&self.database, meta, snapshot, Origin::Peer { followed }).await?;
        self.followed = self.followed.max(followed);
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
        store(&self.database, meta, snapshot.clone(), Origin::Own).await?;
        if let Some(last) = meta.last_log_id {
            (self.on_event)(Event::SnapshotTaken { index: last.index });
        }
        Ok(self.snapshot.clone())
    }
}

/// What stands beside a snapshot that is stored.
#[derive(Clone, Copy)]
enum Origin {
    /// It was taken here. A newer one stays.
    Own,
    /// It was installed, and the machine has to remember that it relied on it.
    Peer { followed: Option<u64> },
}

/// Makes a snapshot the newest one, durably.
async fn store<W: World>(
    database: &Database<W>,
    covers: &SnapshotMeta,
    snapshot: Bytes,
    origin: Origin,
) -> io::Result<()> {
    let covers = covers.clone();
    database
        .write(true, move |transaction| {
            if let Origin::Peer { followed } = origin {
                write_followed(transaction, followed)?;
            }
            let mut meta_table = transaction.open_table(META)?;
            if matches!(origin, Origin::Own)
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

fn write_followed(transaction: &WriteTransaction, followed: Option<u64>) -> Result<(), redb::Error> {
    if let Some(followed) = followed {
        transaction.open_table(META)?.insert(FOLLOWED, followed.to_le_bytes().as_slice())?;
    }
    Ok(())
}

/// What the disk says.
fn load(transaction: &ReadTransaction) -> Result<(Option<Snapshot>, Option<u64>), redb::Error> {
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).map_err(|_| Malformed::Syntax);
    let followed = meta(&transaction.open_table(META)?, FOLLOWED, number)?;
    Ok((newest(transaction)?, followed))
}

pub(super) fn newest(transaction: &ReadTransaction) -> Result<Option<Snapshot>, redb::Error> {
    let Some(meta) = covered(transaction)? else { return Ok(None) };
    let missing = || redb::Error::Corrupted("the bytes of the snapshot are missing".to_owned());
    let snapshots = match transaction.open_table(SNAPSHOT) {
        Ok(snapshots) => snapshots,
        Err(TableError::TableDoesNotExist(_)) => return Err(missing()),
        Err(error) => return Err(error.into()),
    };
    let bytes = snapshots.get(NEWEST)?.map(|value| Bytes::copy_from_slice(value.value()));
    Ok(Some(Snapshot { meta, snapshot: bytes.ok_or_else(missing)? }))
}

/// What the newest snapshot covers.
pub(super) fn covered(transaction: &ReadTransaction) -> Result<Option<SnapshotMeta>, redb::Error> {
    meta(&transaction.open_table(META)?, COVERS, codec::decode_snapshot_meta)
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
