//! A world of memory on tokio: disks that lose what was not synced, and no links.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use openraft_rt_tokio::TokioRuntime;
use zipnet_core::id::PeerId;
use zipnet_core::time::Time;
use zipnet_node::world::{Address, Channel, Connection, Disk, Link, LinkError, World};

/// A world with an empty disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) disk: Files,
    link: NoLink,
    drawn: Arc<AtomicU64>,
}

impl World for Memory {
    type Runtime = TokioRuntime;
    type Link = NoLink;
    type Disk = Files;

    fn link(&self) -> &NoLink {
        &self.link
    }

    fn disk(&self) -> &Files {
        &self.disk
    }

    fn now(&self) -> Time {
        Time(0)
    }

    fn wall_clock(&self) -> u64 {
        0
    }

    fn entropy(&self) -> [u8; 32] {
        let count = self.drawn.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        std::array::from_fn(|at| count[at % 8])
    }
}

/// Files in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: Mutex<BTreeMap<String, Content>>,
    /// Rises with every crash: what was opened before it can write no more.
    life: AtomicU64,
    broken: AtomicBool,
    frozen: AtomicBool,
    syncs: AtomicU64,
}

#[derive(Debug, Default)]
struct Content {
    view: Vec<u8>,
    synced: Vec<u8>,
}

impl Files {
    /// Cuts the power: all that was not synced is gone, and whoever had files open has lost them.
    pub(crate) fn crash(&self) {
        let mut files = lock(&self.0.files);
        self.0.life.fetch_add(1, Ordering::Relaxed);
        for content in files.values_mut() {
            content.view.clone_from(&content.synced);
        }
    }

    /// Makes every further operation fail, or work again.
    pub(crate) fn set_broken(&self, broken: bool) {
        self.0.broken.store(broken, Ordering::Relaxed);
    }

    /// Makes the node believe that its disk is switched off, or on again.
    pub(crate) fn set_frozen(&self, frozen: bool) {
        self.0.frozen.store(frozen, Ordering::Relaxed);
    }

    /// Replaces the contents of a file.
    pub(crate) fn overwrite(&self, name: &str, bytes: &[u8]) {
        let content = Content { view: bytes.to_vec(), synced: bytes.to_vec() };
        lock(&self.0.files).insert(name.to_owned(), content);
    }

    /// How often anything was synced.
    pub(crate) fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::Relaxed)
    }
}

impl Disk for Files {
    type Backend = File;

    fn open(&self, name: &str) -> io::Result<File> {
        lock(&self.0.files).entry(name.to_owned()).or_default();
        Ok(File { disk: self.clone(), name: name.to_owned(), life: self.0.life.load(Ordering::Relaxed) })
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(lock(&self.0.files).contains_key(name))
    }

    fn set_aside(&self, names: &[&str]) -> io::Result<()> {
        lock(&self.0.files).retain(|name, _| !names.contains(&name.as_str()));
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Option<String>> {
        let files = lock(&self.0.files);
        files
            .get(name)
            .map(|content| String::from_utf8(content.view.clone()).map_err(io::Error::other))
            .transpose()
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        self.overwrite(name, text.as_bytes());
        Ok(())
    }

    fn is_frozen(&self) -> bool {
        self.0.frozen.load(Ordering::Relaxed)
    }
}

/// An open file.
#[derive(Debug)]
pub(crate) struct File {
    disk: Files,
    name: String,
    life: u64,
}

impl File {
    fn with<T>(&self, work: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        let mut files = lock(&self.disk.0.files);
        if self.life != self.disk.0.life.load(Ordering::Relaxed) || self.disk.0.broken.load(Ordering::Relaxed)
        {
            return Err(io::Error::other("the disk is gone"));
        }
        work(files.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?)
    }
}

impl redb::StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        self.with(|content| Ok(content.view.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|content| {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let bytes = content.view.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|content| {
            content.view.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.0.syncs.fetch_add(1, Ordering::Relaxed);
        self.with(|content| {
            content.synced.clone_from(&content.view);
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|content| {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let bytes =
                content.view.get_mut(start..start + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            bytes.copy_from_slice(data);
            Ok(())
        })
    }
}

/// A network without anybody: consensus gets its transport passed in.
#[derive(Clone, Debug, Default)]
pub(crate) struct NoLink;

impl Link for NoLink {
    type Connection = NoConnection;

    fn address(&self) -> Address {
        Address(String::new())
    }

    async fn dial(&self, _: &Address) -> Result<NoConnection, LinkError> {
        Err(LinkError::Unreachable)
    }

    async fn accept(&self) -> Result<NoConnection, LinkError> {
        pending().await
    }
}

/// A connection that nobody has.
#[derive(Clone, Debug)]
pub(crate) enum NoConnection {}

impl Connection for NoConnection {
    fn peer(&self) -> PeerId {
        match *self {}
    }

    fn exporter(&self) -> [u8; 32] {
        match *self {}
    }

    fn dialled(&self) -> Option<Address> {
        match *self {}
    }

    fn send(&self, _: Channel, _: Bytes) -> Result<(), LinkError> {
        match *self {}
    }

    async fn receive(&self) -> Result<(Channel, Bytes), LinkError> {
        match *self {}
    }

    fn close(&self, _: u32) {
        match *self {}
    }
}

/// Locks for a moment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a test that panicked is over")
}
