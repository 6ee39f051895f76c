//! What a state folder says about itself: its store id, and whom it belonged to before.

use std::collections::BTreeSet;
use std::io;

use redb::{Database, ReadableDatabase, TableDefinition};
use zipnet_core::id::{GroupId, PeerId, StoreId};

use crate::consensus::recording::{self, Voters};
use crate::consensus::{Fault, LOG_FILE, MACHINE_FILE};
use crate::founding::{self, Former};
use crate::world::{Disk, World, on_disk};

/// The file.
const FILE: &str = "node.redb";
/// The version of this file's format.
const FORMAT: u64 = 1;
/// Numbers by name.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Bytes by name.
const BYTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("bytes");

/// Why a state folder cannot be used.
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

/// A state folder that is ready to be used.
#[derive(Debug)]
pub(super) struct Settled {
    /// Its store id.
    pub(super) store: StoreId,
    /// Whose votes counted in the log that was set aside for this group.
    pub(super) former: Option<Former>,
    /// Of another group, and set aside just now; if its log could not be read, why.
    pub(super) moved: Option<Result<(), String>>,
}

/// What belongs to one log, in the order in which it is set aside. The store id goes first: what is left without one was
/// left by a crash.
const OF_A_LOG: [&str; 3] = [FILE, LOG_FILE, MACHINE_FILE];
/// The same with the place that the server had in it.
const OF_A_PLACE: [&str; 4] = [founding::FILE, FILE, LOG_FILE, MACHINE_FILE];

/// Reads the store id of the state folder, or draws one from `entropy` and keeps it. A folder of another group is set aside
/// before, and named is whose votes counted in it.
pub(super) async fn settle<W: World>(
    world: &W,
    me: PeerId,
    group: GroupId,
    entropy: [u8; 32],
) -> Result<Settled, StoreError> {
    let settled = on_disk::<W, _>(world.disk().clone(), move |disk| settle_on(disk, me, group, entropy));
    settled.await.map_err(StoreError::Disk).flatten()
}

/// Moves everything that belongs to a log out of the way. Nothing is deleted: a person may want it back.
pub(super) async fn set_aside<W: World>(world: &W) -> Result<(), StoreError> {
    let failed = |error| StoreError::Disk(format!("set the old state aside: {error}"));
    let aside = on_disk::<W, _>(world.disk().clone(), |disk| disk.set_aside(&OF_A_PLACE));
    aside.await.map_err(StoreError::Disk)?.map_err(failed)
}

fn settle_on(disk: &impl Disk, me: PeerId, group: GroupId, entropy: [u8; 32]) -> Result<Settled, StoreError> {
    let failed = |error| StoreError::Disk(format!("set the old state aside: {error}"));
    let read = disk.read(founding::FILE).map_err(failed)?;
    let mut former = read.as_deref().and_then(Former::from_text);
    let drawn = StoreId(u64::from_le_bytes(*entropy.first_chunk().expect("32 bytes contain 8")));
    let fresh = |former: &Option<Former>| {
        let of_group = former.as_ref().filter(|former| former.group == group && !former.taken);
        of_group.and_then(|former| former.store_of(&me)).unwrap_or(drawn)
    };
    if !disk.exists(FILE).map_err(failed)? {
        disk.set_aside(&OF_A_LOG).map_err(failed)?;
    }
    let mut moved = None;
    let store = match read_or_create(disk, me, group, fresh(&former)) {
        Err(StoreError::OtherGroup) => {
            // What was noted for this group before a crash is whole; the log may be gone since.
            if former.as_ref().is_none_or(|former| former.group != group) {
                let (voters, read) = match recording::voters(disk) {
                    Ok(Voters::Known(voters)) => (Some(voters), Ok(())),
                    // Nothing has happened here since those voters were noted, or since the folder was new.
                    Ok(Voters::Pristine) => (former.map(|former| former.voters), Ok(())),
                    Ok(Voters::Unknown) => (Some(BTreeSet::new()), Ok(())),
                    Err(error) => (Some(BTreeSet::new()), Err(error.to_string())),
                };
                former = voters.map(|voters| Former { group, voters, taken: false });
                if let Some(noted) = &former {
                    disk.write(founding::FILE, &noted.text()).map_err(failed)?;
                }
                moved = Some(read);
            }
            disk.set_aside(&OF_A_LOG).map_err(failed)?;
            moved.get_or_insert(Ok(()));
            read_or_create(disk, me, group, fresh(&former))?
        }
        store => {
            let store = store?;
            if former.as_ref().is_some_and(|former| former.group != group) {
                // A rotation was begun and taken back. The log has gone on, perhaps with other voters.
                disk.set_aside(&[founding::FILE]).map_err(failed)?;
            }
            store
        }
    };
    let mut former = former.filter(|former| former.group == group);
    if let Some(former) = &mut former
        && !former.taken
        && former.store_of(&me) == Some(store)
    {
        // Before anything is promised under this id.
        former.taken = true;
        disk.write(founding::FILE, &former.text()).map_err(failed)?;
    }
    Ok(Settled { store, former, moved })
}

fn read_or_create(
    disk: &impl Disk,
    me: PeerId,
    group: GroupId,
    fresh: StoreId,
) -> Result<StoreId, StoreError> {
    let backend =
        disk.open(FILE).map_err(|error: io::Error| StoreError::Disk(format!("open {FILE}: {error}")))?;
    let database =
        redb::Builder::new().set_cache_size(1 << 16).create_with_backend(backend).map_err(failed)?;
    let reading = database.begin_read().map_err(failed)?;
    let numbers = match reading.open_table(NUMBERS) {
        Ok(numbers) => numbers,
        Err(redb::TableError::TableDoesNotExist(_)) => return create(&database, me, group, fresh),
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

fn create(database: &Database, me: PeerId, group: GroupId, store: StoreId) -> Result<StoreId, StoreError> {
    let writing = database.begin_write().map_err(failed)?;
    {
        let mut numbers = writing.open_table(NUMBERS).map_err(failed)?;
        numbers.insert("format", FORMAT).map_err(failed)?;
        numbers.insert("store", store.0).map_err(failed)?;
        let mut bytes = writing.open_table(BYTES).map_err(failed)?;
        bytes.insert("peer", me.0.as_slice()).map_err(failed)?;
        bytes.insert("group", group.0.as_slice()).map_err(failed)?;
    }
    writing.commit().map_err(failed)?;
    Ok(store)
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

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;
    use zipnet_core::id::RaftId;

    use super::super::memory::Folder;
    use super::*;
    use crate::consensus::codec::{FORMAT as LOG_FORMAT, encode_entry, encode_node};
    use crate::consensus::types::{Entry, LogId, Membership, NodeId, Payload};

    const ME: PeerId = PeerId([1; 32]);

    fn group(number: u8) -> GroupId {
        GroupId([number; 32])
    }

    /// Settles in a folder, with a fresh number each time.
    fn settled(folder: &Folder, group: GroupId, entropy: u8) -> Result<Settled, StoreError> {
        settle_on(folder, ME, group, [entropy; 32])
    }

    /// Writes a log of one entry, which names the voters.
    fn write_log(folder: &Folder, owner: RaftId, voters: &BTreeSet<RaftId>) {
        let voters = voters.iter().copied().map(NodeId).collect();
        let members = Membership::new_with_defaults(vec![voters], []);
        let entry: Entry = Entry::new(LogId::new_term_index(1, 4), Payload::Membership(members));
        let database = redb::Builder::new().create_with_backend(folder.open(LOG_FILE).unwrap()).unwrap();
        let writing = database.begin_write().unwrap();
        {
            let meta = TableDefinition::<'_, &str, &[u8]>::new("meta");
            let mut meta = writing.open_table(meta).unwrap();
            meta.insert("kind", [&[LOG_FORMAT], LOG_FILE.as_bytes()].concat().as_slice()).unwrap();
            meta.insert("owner", encode_node(&owner).as_slice()).unwrap();
            let log = TableDefinition::<'_, u64, &[u8]>::new("log");
            writing.open_table(log).unwrap().insert(4, encode_entry(&entry).as_slice()).unwrap();
        }
        writing.commit().unwrap();
    }

    /// A folder of the first group, with a log of three voters.
    fn used() -> (Folder, StoreId, BTreeSet<RaftId>) {
        let folder = Folder::default();
        let store = settled(&folder, group(1), 7).unwrap().store;
        let others = [2, 3].map(|number| RaftId { peer: PeerId([number; 32]), store: StoreId(9) });
        let voters = [RaftId { peer: ME, store }].into_iter().chain(others).collect();
        write_log(&folder, RaftId { peer: ME, store }, &voters);
        (folder, store, voters)
    }

    #[test]
    fn a_rotation_that_was_taken_back_is_forgotten() {
        let (folder, store, voters) = used();
        // It was begun, and the process died before the log was set aside.
        let note = Former { group: group(2), voters, taken: false };
        folder.write(founding::FILE, &note.text()).unwrap();
        let back = settled(&folder, group(1), 8).unwrap();
        assert_eq!((back.store, back.former), (store, None));
        // The log goes on with other voters. At the next rotation to that secret those count.
        let more = [4, 5].map(|number| RaftId { peer: PeerId([number; 32]), store: StoreId(9) });
        let grown: BTreeSet<_> = [RaftId { peer: ME, store }].into_iter().chain(more).collect();
        write_log(&folder, RaftId { peer: ME, store }, &grown);
        assert_eq!(settled(&folder, group(2), 9).unwrap().former.map(|former| former.voters), Some(grown));
    }

    #[test]
    fn a_folder_is_the_same_server_until_the_group_changes() {
        let (folder, store, voters) = used();
        let same = settled(&folder, group(1), 8).unwrap();
        assert_eq!((same.store, same.former, same.moved), (store, None, None));

        let moved = settled(&folder, group(2), 9).unwrap();
        let former = Former { group: group(2), voters, taken: true };
        assert_eq!(Some(moved.store), former.store_of(&ME));
        assert_eq!((moved.former.as_ref(), moved.moved), (Some(&former), Some(Ok(()))));
        assert!(!folder.names().iter().any(|name| name == LOG_FILE));
        let again = settled(&folder, group(2), 10).unwrap();
        assert_eq!((again.store, again.former, again.moved), (moved.store, Some(former.clone()), None));

        // Whoever has lost what it promised is somebody else.
        let lost = folder.copy();
        lost.with(|inner| inner.files.retain(|name, _| name == founding::FILE));
        assert_eq!(settled(&lost, group(2), 10).unwrap().store, StoreId(u64::from_le_bytes([10; 8])));

        // Nothing has happened in that group: the voters are still those of the first. Once it has voted, they are not.
        let carried = settled(&folder, group(3), 11).unwrap();
        let carried_on = Former { group: group(3), ..former };
        assert_eq!((Some(carried.store), carried.former), (carried_on.store_of(&ME), Some(carried_on)));
        write_log(&folder, RaftId { peer: ME, store: carried.store }, &BTreeSet::new());
        let forgotten = settled(&folder, group(4), 12).unwrap();
        assert_eq!(forgotten.former.map(|former| former.voters), Some(BTreeSet::new()));
        assert_eq!(forgotten.store, StoreId(u64::from_le_bytes([12; 8])), "it is drawn");
    }

    #[test]
    fn a_crash_while_state_is_set_aside_costs_neither_the_voters_nor_a_vote() {
        let mut crashes = 0;
        for changes in 0.. {
            let (folder, store, voters) = used();
            let expected = Former { group: group(2), voters, taken: true };
            folder.with(|inner| inner.left = Some(changes));
            if settled(&folder, group(2), 9).is_ok() {
                break;
            }
            crashes += 1;
            folder.with(|inner| inner.left = None);
            let other_way = folder.copy();
            let found = settled(&folder, group(2), 10).unwrap();
            assert_eq!(Some(found.store), expected.store_of(&ME), "{changes}");
            assert_eq!(found.former, Some(expected), "{changes}");
            assert!(!folder.names().iter().any(|name| name == LOG_FILE), "{changes}");

            // The operator thinks again: the old id comes back with its log, or not at all.
            let back = settled(&other_way, group(1), 11).unwrap();
            let has_log = other_way.names().iter().any(|name| name == LOG_FILE);
            assert_eq!(back.store == store, has_log, "{changes}");
        }
        assert_eq!(crashes, 4, "before the note, before the id, before the log, before the place is taken");
    }

    #[test]
    fn a_folder_in_which_nothing_has_happened_is_as_good_as_a_new_one() {
        let folder = Folder::default();
        settled(&folder, group(1), 7).unwrap();
        let moved = settled(&folder, group(2), 8).unwrap();
        assert_eq!((moved.former, moved.moved), (None, Some(Ok(()))));
        assert!(!folder.names().iter().any(|name| name == founding::FILE));
    }

    #[test]
    fn a_log_that_can_not_be_read_names_nobody_and_that_is_said() {
        let (folder, ..) = used();
        folder.with(|inner| inner.files.insert(LOG_FILE.to_owned(), vec![7; 5000]));
        let found = settled(&folder, group(2), 9).unwrap();
        assert!(found.moved.expect("it was set aside").expect_err("rubbish").contains(LOG_FILE));
        assert_eq!(found.former.map(|former| former.voters), Some(BTreeSet::new()));
    }
}
