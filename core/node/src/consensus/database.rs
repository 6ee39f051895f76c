//! A redb file of consensus: opened with its format checked, used off the async threads, closed on demand.

use std::fmt;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use openraft_rt::AsyncRuntime;
use redb::{
    Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableHandle,
    WriteTransaction,
};
use zipnet_core::id::RaftId;

use super::codec::{self, FORMAT, Malformed};
use super::{Event, Fault, OnEvent, OpenError};
use crate::world::{Disk, World};

/// Single values by name.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Under this name stand the format and what kind of file it is.
const KIND: &str = "kind";
/// Under this name stands whose file it is.
const OWNER: &str = "owner";
/// What redb may keep of the file in memory. The newest entries are kept beside it, so that it is rarely needed.
const CACHE_BYTES: usize = 1 << 20;

/// An open file. Clones are the same file.
pub(super) struct Database<W> {
    world: W,
    name: &'static str,
    /// `None` once closed. Taken by the threads of blocking work only, never across an await.
    file: Arc<Mutex<Option<redb::Database>>>,
    /// The first failure; later operations are refused with it, since what they build on may be missing.
    failure: Arc<Mutex<Option<String>>>,
    on_event: OnEvent,
}

impl<W: World> Database<W> {
    /// Opens or creates the file, checks that this node wrote it, and reads what `load` wants of it. `failure` is
    /// shared by all files of a node.
    pub(super) async fn open<T: Send + 'static>(
        world: &W,
        name: &'static str,
        owner: RaftId,
        failure: Arc<Mutex<Option<String>>>,
        on_event: OnEvent,
        load: fn(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<(Self, T), OpenError> {
        let disk = world.disk().clone();
        let opening = Name(name);
        let (file, loaded) = unfrozen(world, move || {
            let name = opening.get();
            let backend = disk.open(name).map_err(|error| OpenError::Disk { file: name, error })?;
            let file = redb::Builder::new()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(backend)
                .map_err(|error| OpenError::from_redb(name, error.into()))?;
            check(&file, name, owner)?;
            let loaded = file
                .begin_read()
                .map_err(redb::Error::from)
                .and_then(|transaction| load(&transaction))
                .map_err(|error| OpenError::from_redb(name, error))?;
            Ok((file, loaded))
        })
        .await
        .unwrap_or_else(|error| Err(OpenError::Disk { file: name, error }))?;
        let file = Arc::new(Mutex::new(Some(file)));
        Ok((Self { world: world.clone(), name, file, failure, on_event }, loaded))
    }

    /// Runs one transaction. It is durable when this returns, or nobody asked for that.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        durable: bool,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> io::Result<T> {
        self.run(move |file| {
            let mut transaction = file.begin_write()?;
            if durable {
                transaction.set_durability(Durability::Immediate)?;
                transaction.set_two_phase_commit(true);
            } else {
                transaction.set_durability(Durability::None)?;
            }
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
        .await
    }

    /// Reads.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> io::Result<T> {
        self.run(move |file| work(&file.begin_read()?)).await
    }

    /// Closes the file; every later operation fails.
    pub(super) async fn close(&self) {
        let file = Arc::clone(&self.file);
        // Closing ignores errors by design: whatever had to be durable was committed as such.
        drop(unfrozen(&self.world, move || drop(lock(&file).take())).await);
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&redb::Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> io::Result<T> {
        let (file, failure, used) = (Arc::clone(&self.file), Arc::clone(&self.failure), Name(self.name));
        let result = unfrozen(&self.world, move || {
            let name = used.get();
            let refused = |reason: String| (Fault::Disk, io::Error::other(reason));
            if let Some(reason) = lock(&failure).as_ref() {
                return Err(refused(format!("use {name} after a failure: {reason}")));
            }
            match lock(&file).as_ref() {
                None => Err(refused(format!("use {name}: it is closed"))),
                Some(file) => work(file)
                    .map_err(|error| (Fault::of(&error), io::Error::other(format!("use {name}: {error}")))),
            }
        })
        .await
        .unwrap_or_else(|error| Err((Fault::Core, error)));
        result.map_err(|(fault, error)| {
            self.fail(fault, &error);
            error
        })
    }

    /// Remembers the failure and reports it, unless there was one, or the file was closed on purpose.
    pub(super) fn fail(&self, fault: Fault, error: &io::Error) {
        if lock(&self.file).is_none() {
            return;
        }
        let reason = {
            let mut failure = lock(&self.failure);
            if failure.is_some() {
                return;
            }
            failure.insert(error.to_string()).clone()
        };
        (self.on_event)(Event::Failed { fault, reason });
    }
}

/// Carries the name of a file into a closure. A closure that captures the reference itself does not pass for `'static`
/// once the compiler has erased the lifetimes of the future around it (rust-lang/rust#110338).
#[derive(Clone, Copy)]
struct Name(&'static str);

impl Name {
    fn get(self) -> &'static str {
        self.0
    }
}

/// Refuses a file of another kind, format or node; marks a fresh one.
fn check(file: &redb::Database, name: &'static str, owner: RaftId) -> Result<(), OpenError> {
    let failed = |error| OpenError::from_redb(name, error);
    if !is_kind(file, name)? {
        let mark = || {
            let mut transaction = file.begin_write()?;
            transaction.set_two_phase_commit(true);
            {
                let mut meta = transaction.open_table(META)?;
                meta.insert(KIND, kind(name).as_slice())?;
                meta.insert(OWNER, codec::encode_node(&owner).as_slice())?;
            }
            transaction.commit()?;
            Ok(())
        };
        return mark().map_err(failed);
    }
    let found = value(file, OWNER).map_err(failed)?.unwrap_or_default();
    match codec::decode_node(&found) {
        Ok(found) if found == owner => Ok(()),
        Ok(found) => {
            let found = format!("the state of node {found}, this is {owner}");
            Err(OpenError::Foreign { file: name, found })
        }
        Err(reason) => Err(OpenError::Corrupt { file: name, reason: reason.to_string() }),
    }
}

/// Whether this is such a file, whoever made it. Without anything in it, it is none yet; another one is refused.
pub(super) fn is_kind(file: &redb::Database, name: &'static str) -> Result<bool, OpenError> {
    let failed = |error| OpenError::from_redb(name, error);
    let foreign = |found: String| OpenError::Foreign { file: name, found };
    let tables: Vec<String> = (|| {
        let tables = file.begin_read()?.list_tables()?.map(|table| table.name().to_owned()).collect();
        Ok(tables)
    })()
    .map_err(failed)?;
    if tables.is_empty() {
        return Ok(false);
    }
    if !tables.iter().any(|table| table == META.name()) {
        return Err(foreign("other tables".to_owned()));
    }
    match value(file, KIND).map_err(failed)? {
        Some(found) if found == kind(name) => Ok(true),
        Some(found) if found.get(1..) == Some(name.as_bytes()) => {
            Err(foreign(format!("format {}, only {FORMAT} is known", found[0])))
        }
        Some(_) | None => Err(foreign("another kind of file".to_owned())),
    }
}

/// What stands under [`KIND`].
fn kind(name: &str) -> Vec<u8> {
    [&[FORMAT], name.as_bytes()].concat()
}

/// What stands under a name of [`META`].
fn value(file: &redb::Database, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
    let transaction = file.begin_read()?;
    let meta = transaction.open_table(META)?;
    Ok(meta.get(key)?.map(|value| value.value().to_vec()))
}

/// Reads a named value of [`META`].
pub(super) fn meta<T>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
    decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<Option<T>, redb::Error> {
    meta.get(key)?.map(|value| decode(value.value()).map_err(|reason| corrupted(key, reason))).transpose()
}

/// A stored value that cannot be read.
pub(super) fn corrupted(what: impl fmt::Display, reason: Malformed) -> redb::Error {
    redb::Error::Corrupted(format!("{what}: failed to {reason}"))
}

/// Runs disk work off the async threads. A node whose disk was switched off stops here for ever: neither a success nor
/// an error of such a disk may become visible.
async fn unfrozen<W: World, T: Send + 'static>(
    world: &W,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let result = W::Runtime::spawn_blocking(work).await;
    if world.disk().is_frozen() {
        pending::<()>().await;
    }
    result
}

/// Locks for a moment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("whoever panicked with the lock held took the process with it")
}

impl<W: Clone> Clone for Database<W> {
    fn clone(&self) -> Self {
        Self {
            world: self.world.clone(),
            name: self.name,
            file: Arc::clone(&self.file),
            failure: Arc::clone(&self.failure),
            on_event: Arc::clone(&self.on_event),
        }
    }
}
