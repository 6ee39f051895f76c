//! Whom an aggregator believed, across its restarts: a small file in its state folder.
//!
//! Losing it costs nothing but certainty: the aggregator then believes whom its operator names, or whom it meets first.

use openraft_rt::AsyncRuntime;
use redb::{Database, ReadableDatabase, TableDefinition};
use zipnet_core::aggregator::Believed;
use zipnet_core::checks::Checks;
use zipnet_core::id::{PeerId, UniqueId};

use super::{Happening, Machine, Node};
use crate::event::{Event, Observer};
use crate::world::{Disk, on_disk};

/// The file.
const FILE: &str = "believed.redb";
/// Lists of 32 bytes each, by name.
const LISTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("lists");
/// The instance whose servers these are: a folder that serves another one is no reason to believe its servers.
const INSTANCE: &str = "instance";
/// The servers.
const SERVERS: &str = "servers";
/// Whom the operator had named.
const NAMED: &str = "named";

/// What an earlier process kept; nothing if there is none, or if it cannot be read.
pub(super) async fn load<W: Observer>(world: &W, instance: UniqueId) -> Believed {
    let read = on_disk::<W, _>(world.disk().clone(), move |disk| read(disk, instance)).await.flatten();
    read.unwrap_or_else(|reason| {
        let text = format!(
            "failed to read whom this aggregator believed: {reason}; it believes as at its first start"
        );
        world.observe(Event::Warned(text));
        Believed::default()
    })
}

fn read(disk: &impl Disk, instance: UniqueId) -> Result<Believed, String> {
    if !disk.exists(FILE).map_err(|error| error.to_string())? {
        return Ok(Believed::default());
    }
    let database = open(disk)?;
    let reading = database.begin_read().map_err(failed)?;
    let lists = match reading.open_table(LISTS) {
        Ok(lists) => lists,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Believed::default()),
        Err(error) => return Err(failed(error)),
    };
    let list = |name: &str| -> Result<Vec<[u8; 32]>, String> {
        let value = lists.get(name).map_err(failed)?;
        let (list, rest) = value.as_ref().map_or(&[][..], redb::AccessGuard::value).as_chunks();
        if rest.is_empty() { Ok(list.to_vec()) } else { Err(format!("{FILE}: {name} is cut off")) }
    };
    if list(INSTANCE)? != [instance.0] {
        return Ok(Believed::default());
    }
    let peers = |name| Ok::<_, String>(list(name)?.into_iter().map(PeerId).collect());
    Ok(Believed { servers: peers(SERVERS)?, named: peers(NAMED)? })
}

fn write(disk: &impl Disk, instance: UniqueId, believed: &Believed) -> Result<(), String> {
    let database = open(disk)?;
    let writing = database.begin_write().map_err(failed)?;
    {
        let mut lists = writing.open_table(LISTS).map_err(failed)?;
        let bytes = |peers: &[PeerId]| peers.iter().flat_map(|peer| peer.0).collect::<Vec<u8>>();
        lists.insert(INSTANCE, instance.0.as_slice()).map_err(failed)?;
        lists.insert(SERVERS, bytes(&believed.servers).as_slice()).map_err(failed)?;
        lists.insert(NAMED, bytes(&believed.named).as_slice()).map_err(failed)?;
    }
    writing.commit().map_err(failed)
}

fn open(disk: &impl Disk) -> Result<Database, String> {
    let backend = disk.open(FILE).map_err(|error| format!("open {FILE}: {error}"))?;
    redb::Builder::new().set_cache_size(1 << 16).create_with_backend(backend).map_err(failed)
}

fn failed(error: impl Into<redb::Error>) -> String {
    format!("use {FILE}: {}", error.into())
}

impl<W: Observer, C: Checks> Node<W, C> {
    /// Keeps whom an aggregator believes, when that has changed. One write at a time, away from the loop.
    pub(super) fn keep_believed(&mut self) {
        let Machine::Aggregator(machine) = &self.machine else { return };
        let believed = machine.believed();
        if self.keeping || self.kept == believed {
            return;
        }
        self.keeping = true;
        self.kept = believed.clone();
        let (disk, instance, sender) = (self.world.disk().clone(), self.own.instance, self.sender.clone());
        drop(W::Runtime::spawn(async move {
            let result = on_disk::<W, _>(disk, move |disk| write(disk, instance, &believed)).await.flatten();
            // Nobody waits for the result of a node that has ended.
            drop(sender.unbounded_send(Happening::Kept(result)));
        }));
    }

    /// A write has come to its end.
    pub(super) fn believed_kept(&mut self, result: Result<(), String>) {
        self.keeping = false;
        if let Err(reason) = result {
            let text = format!(
                "failed to keep whom this aggregator believes: {reason}; see to the disk of the state folder"
            );
            self.world.observe(Event::Warned(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Folder;
    use super::*;

    #[test]
    fn what_was_kept_is_read_by_the_same_instance_only() {
        let (folder, instance) = (Folder::default(), UniqueId::from_text("an instance"));
        assert_eq!(read(&folder, instance), Ok(Believed::default()));
        assert!(folder.names().is_empty(), "reading makes no file");
        for servers in [1..=3, 2..=250, 9..=9] {
            let servers: Vec<PeerId> = servers.map(|number| PeerId([number; 32])).collect();
            let believed = Believed { named: servers[..1].to_vec(), servers };
            write(&folder, instance, &believed).unwrap();
            assert_eq!(read(&folder, instance), Ok(believed));
            assert_eq!(read(&folder, UniqueId::from_text("another")), Ok(Believed::default()));
        }
    }

    #[test]
    fn a_file_that_is_none_is_said_and_believed_in_nothing() {
        let folder = Folder::default();
        folder.with(|inner| inner.files.insert(FILE.to_owned(), vec![7; 5000]));
        let refused = read(&folder, UniqueId::from_text("an instance")).expect_err("rubbish");
        assert!(refused.contains(FILE), "{refused}");
    }
}
