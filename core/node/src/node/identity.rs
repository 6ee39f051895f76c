//! What a state folder says about itself: its store id.

use std::io;

use openraft_rt::AsyncRuntime;
use redb::{Database, ReadableDatabase, TableDefinition};
use zipnet_core::id::{GroupId, PeerId, StoreId};

use crate::consensus::Fault;
use crate::world::{Disk, World};

/// The file.
pub(super) const FILE: &str = "node.redb";
/// The version of this file's format.
const FORMAT: u64 = 1;
/// Numbers by name.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Bytes by name.
const BYTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("bytes");

/// Why a state folder can not be used.
#[derive(Debug)]
pub(super) enum StoreError {
    /// The disk failed.
    Disk(String),
    /// It is of another version, or damaged.
    Damaged(String),
    /// The folder belongs to another node.
    OtherPeer(String),
    /// The folder is this node's, from the time when it belonged to another committee.
    OtherGroup,
}

/// Reads the store id of the state folder, or draws one from `entropy` and keeps it.
pub(super) async fn store_id<W: World>(
    world: &W,
    me: PeerId,
    group: GroupId,
    entropy: [u8; 32],
) -> Result<StoreId, StoreError> {
    let disk = world.disk().clone();
    let frozen = disk.clone();
    let opened = W::Runtime::spawn_blocking(move || read_or_create(&disk, me, group, entropy)).await;
    if frozen.is_frozen() {
        std::future::pending::<()>().await;
    }
    opened.map_err(|error| StoreError::Disk(error.to_string()))?
}

fn read_or_create(
    disk: &impl Disk,
    me: PeerId,
    group: GroupId,
    entropy: [u8; 32],
) -> Result<StoreId, StoreError> {
    let backend =
        disk.open(FILE).map_err(|error: io::Error| StoreError::Disk(format!("open {FILE}: {error}")))?;
    let database =
        redb::Builder::new().set_cache_size(1 << 16).create_with_backend(backend).map_err(failed)?;
    let reading = database.begin_read().map_err(failed)?;
    let numbers = match reading.open_table(NUMBERS) {
        Ok(numbers) => numbers,
        Err(redb::TableError::TableDoesNotExist(_)) => return create(&database, me, group, entropy),
        Err(error) => return Err(failed(error)),
    };
    let number = |name| -> Result<Option<u64>, StoreError> {
        Ok(numbers.get(name).map_err(failed)?.map(|value| value.value()))
    };
    match number("format")? {
        Some(FORMAT) => {}
        found => {
            let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
            return Err(damaged(format!("expected format {FORMAT}, found format {found}")));
        }
    }
    let bytes = reading.open_table(BYTES).map_err(failed)?;
    let read = |name: &str| -> Result<Vec<u8>, StoreError> {
        let value = bytes.get(name).map_err(failed)?.map(|value| value.value().to_vec());
        value.ok_or_else(|| damaged(format!("the {name} is missing")))
    };
    if read("peer")? != me.0 {
        return Err(StoreError::OtherPeer(format!(
            "read {FILE}: the state folder belongs to another peer than {}: compare ZIPNET_SECRET and ZIPNET_STATE_DIR",
            me.short()
        )));
    }
    if read("group")? != group.0 {
        return Err(StoreError::OtherGroup);
    }
    let store = number("store")?.ok_or_else(|| damaged("the store id is missing".to_owned()))?;
    Ok(StoreId(store))
}

fn create(database: &Database, me: PeerId, group: GroupId, entropy: [u8; 32]) -> Result<StoreId, StoreError> {
    let store = u64::from_le_bytes(*entropy.first_chunk().expect("32 bytes contain 8"));
    let writing = database.begin_write().map_err(failed)?;
    {
        let mut numbers = writing.open_table(NUMBERS).map_err(failed)?;
        numbers.insert("format", FORMAT).map_err(failed)?;
        numbers.insert("store", store).map_err(failed)?;
        let mut bytes = writing.open_table(BYTES).map_err(failed)?;
        bytes.insert("peer", me.0.as_slice()).map_err(failed)?;
        bytes.insert("group", group.0.as_slice()).map_err(failed)?;
    }
    writing.commit().map_err(failed)?;
    Ok(StoreId(store))
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    let error = error.into();
    match Fault::of(&error) {
        Fault::Disk => StoreError::Disk(format!("use {FILE}: {error}")),
        Fault::Data | Fault::Core => damaged(error.to_string()),
    }
}

fn damaged(reason: String) -> StoreError {
    StoreError::Damaged(format!("read {FILE}: {reason}"))
}
