//! A disk that keeps only what was synced.
//!
//! A [`Platter`] is the disk of a machine; it survives restarts. [`Platter::mount`] gives it to one incarnation of the
//! node as a [`SimDisk`]; an earlier mount is dead from then on. Writes go to a cache that reads see at once. At a power
//! failure, [`Crash`] decides what of the cache had reached the platter.

use core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zipnet_node::world::Disk;

use crate::chain::{Kind, NodeIndex, Recorder, Tamper};
use crate::random::Random;

mod file;

use file::File;

/// What a power failure leaves of the operations that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Each operation survives, vanishes or is torn (each sector of 512 bytes for itself), whatever happened to others.
    Torn,
    /// The first so many survive: a cache that keeps the order.
    Prefix,
    /// None survives.
    LoseAll,
    /// All survive: the process was killed, the machine went on.
    KeepAll,
}

impl Crash {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Torn, Self::Prefix, Self::LoseAll, Self::KeepAll];

    /// The word in event logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Torn => "torn",
            Self::Prefix => "prefix",
            Self::LoseAll => "lose-all",
            Self::KeepAll => "keep-all",
        }
    }
}

/// What a disk did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Writes and changes of length.
    pub writes: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Power failures, [`Crash::KeepAll`] included.
    pub crashes: u64,
    /// Operations that were not synced and did not survive a power failure whole.
    pub lost: u64,
}

/// The disk of a machine. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Platter(Arc<Mutex<State>>);

impl Platter {
    /// An empty disk. `random` decides what survives power failures.
    #[must_use]
    pub fn new(node: NodeIndex, recorder: Recorder, random: Random) -> Self {
        Self(Arc::new(Mutex::new(State {
            node,
            recorder,
            random,
            files: BTreeMap::new(),
            generation: 0,
            off: false,
            fails_at: None,
            lies: false,
            delay_max: Duration::from_millis(2),
            history: None,
            counts: DiskCounts::default(),
        })))
    }

    /// Gives the disk to a new incarnation of the node. Handles of earlier ones fail from then on.
    #[must_use]
    pub fn mount(&self) -> SimDisk {
        let mut state = self.state();
        state.generation += 1;
        state.files.values_mut().for_each(|file| file.opened = false);
        let generation = state.generation;
        drop(state);
        SimDisk { platter: self.clone(), generation }
    }

    /// Switches the power off: every operation fails until [`Platter::crash`].
    pub fn power_off(&self) {
        self.state().off = true;
    }

    /// Whether the power is off, be it by [`Platter::power_off`] or by [`Platter::arm`].
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// The power will fail at the n-th write, change of length or sync from this moment (1 is the next one), which
    /// does not complete.
    ///
    /// # Panics
    /// If `operations` is 0.
    pub fn arm(&self, operations: u64) {
        assert!(operations > 0, "the power cannot fail at an operation that has passed");
        let mut state = self.state();
        state.fails_at = Some(state.counts.writes + state.counts.syncs + operations);
    }

    /// Takes [`Platter::arm`] back. A power failure that has happened stays.
    pub fn disarm(&self) {
        self.state().fails_at = None;
    }

    /// Decides what survived and switches the power on. Old handles stay dead; [`Platter::mount`] makes a new one.
    pub fn crash(&self, crash: Crash) {
        self.state().crash(crash);
    }

    /// The disk reports every sync as done and keeps nothing (a drive that lies about its cache), or stops doing so.
    pub fn lie_about_syncs(&self, lies: bool) {
        self.state().lies = lies;
    }

    /// Destroys all files: the machine has a new disk.
    pub fn replace(&self) {
        let mut state = self.state();
        state.files.clear();
        state.generation += 1;
        let text = "the disk was replaced by an empty one";
        state.recorder.note(crate::runtime::now(), state.node, Kind::DiskCrash, text);
    }

    /// From now on every byte written is kept for [`Platter::held`], whatever happens to the files.
    pub fn keep_history(&self) {
        self.state().history.get_or_insert_default();
    }

    /// Whether these bytes were ever written in one piece since [`Platter::keep_history`].
    #[must_use]
    pub fn held(&self, wanted: &[u8]) -> bool {
        let state = self.state();
        let history = state.history.as_deref().unwrap_or_default();
        history.windows(wanted.len().max(1)).any(|window| window == wanted)
    }

    /// How long blocking work takes at most; 2 ms unless told otherwise.
    pub fn set_delay_max(&self, delay_max: Duration) {
        self.state().delay_max = delay_max;
    }

    /// Draws how long a piece of blocking work takes.
    #[must_use]
    pub fn delay(&self, random: &mut Random) -> Duration {
        let delay_max = self.state().delay_max;
        random.duration(Duration::ZERO, delay_max)
    }

    /// What the disk did so far.
    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        self.state().counts
    }

    /// The names of all files, also of those set aside.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().files.keys().cloned().collect()
    }

    /// Bytes that the files occupy in the memory of the simulator.
    #[must_use]
    pub fn footprint(&self) -> usize {
        self.state().files.values().map(File::footprint).sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state folder of one incarnation of a node.
#[derive(Clone, Debug)]
pub struct SimDisk {
    platter: Platter,
    generation: u64,
}

impl SimDisk {
    fn act<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.platter.state();
        if state.off || state.generation != self.generation {
            return Err(power_failure());
        }
        act(&mut state)
    }
}

impl Disk for SimDisk {
    type Backend = SimBackend;

    /// A file that does not exist appears as an empty database, whole and durable: what a temporary file, written,
    /// synced and renamed, leaves.
    fn open(&self, name: &str) -> io::Result<SimBackend> {
        let exists = self.exists(name)?;
        let image = if exists { None } else { Some(file::empty_database()?) };
        self.act(|state| {
            if let Some(image) = image {
                state.note(Kind::DiskWrite, &format!("create {name}"));
                state.files.insert(name.to_owned(), image);
            }
            let file = state.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
            if file.opened {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "the file is open already"));
            }
            file.opened = true;
            Ok(SimBackend { disk: self.clone(), name: name.to_owned() })
        })
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.act(|state| Ok(state.files.contains_key(name)))
    }

    /// The power may fail before each of the files.
    fn set_aside(&self, names: &[&str]) -> io::Result<()> {
        self.act(|state| {
            let number = state.files.keys().filter(|name| name.starts_with("aside-")).count();
            for name in names {
                if !state.files.contains_key(*name) {
                    continue;
                }
                state.counts.writes += 1;
                state.power()?;
                if let Some(file) = state.files.remove(*name) {
                    state.files.insert(format!("aside-{number}/{name}"), file);
                }
                state.note(Kind::DiskWrite, &format!("set aside {name}"));
            }
            Ok(())
        })
    }

    fn read(&self, name: &str) -> io::Result<Option<String>> {
        self.act(|state| state.files.get(name).map(File::text).transpose())
    }

    /// What a temporary file, written, synced and renamed, leaves: before the power fails the old text, or the new one.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        self.act(|state| {
            state.counts.writes += 1;
            state.counts.bytes += u64::try_from(text.len()).expect("lengths fit 64 bits");
            state.record(Kind::DiskWrite, name, b"replace", &[text.as_bytes()], || {
                format!("{name} replace {}", text.len())
            });
            if let Some(history) = &mut state.history {
                history.extend_from_slice(text.as_bytes());
            }
            state.power()?;
            state.files.insert(name.to_owned(), File::whole(text.as_bytes()));
            Ok(())
        })
    }

    fn is_frozen(&self) -> bool {
        let state = self.platter.state();
        state.off || state.generation != self.generation
    }
}

/// An open file.
#[derive(Debug)]
pub struct SimBackend {
    disk: SimDisk,
    name: String,
}

impl SimBackend {
    fn act<T>(&self, act: impl FnOnce(&mut State, &mut File) -> io::Result<T>) -> io::Result<T> {
        self.disk.act(|state| {
            // Taken out for the time of the operation, so that file and disk can be borrowed at once.
            let mut file = state.files.remove(&self.name).ok_or(io::ErrorKind::NotFound)?;
            let result = act(state, &mut file);
            state.files.insert(self.name.clone(), file);
            result
        })
    }
}

impl redb::StorageBackend for SimBackend {
    fn len(&self) -> io::Result<u64> {
        self.disk.act(|state| Ok(state.file(&self.name)?.len()))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.act(|state| state.file(&self.name)?.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.act(|state, file| {
            state.counts.writes += 1;
            state.record(Kind::DiskWrite, &self.name, b"length", &[&len.to_le_bytes()], || {
                format!("{} length {len}", self.name)
            });
            state.power()?;
            file.set_len(len);
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.act(|state, file| {
            state.counts.writes += 1;
            state.counts.bytes += u64::try_from(data.len()).expect("lengths fit 64 bits");
            state.record(Kind::DiskWrite, &self.name, b"write", &[&offset.to_le_bytes(), data], || {
                format!("{} write {offset}+{}", self.name, data.len())
            });
            if let Some(history) = &mut state.history {
                history.extend_from_slice(data);
            }
            // Whether a write at which the power fails happened is for the crash to say.
            file.write(offset, data);
            state.power()
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.act(|state, file| {
            state.sync(&self.name, file)?;
            if state.recorder.tamper() == Some(Tamper::ExtraSync { sync: state.counts.syncs - 1 }) {
                state.sync(&self.name, file)?;
            }
            Ok(())
        })
    }

    fn close(&self) -> io::Result<()> {
        self.act(|_, file| {
            file.opened = false;
            Ok(())
        })
    }
}

impl Drop for SimBackend {
    fn drop(&mut self) {
        // Fails if the power is off or the file was set aside; then nobody holds it anyway.
        let closed = redb::StorageBackend::close(self);
        drop(closed);
    }
}

#[derive(Debug)]
struct State {
    node: NodeIndex,
    recorder: Recorder,
    random: Random,
    files: BTreeMap<String, File>,
    /// Rises with every mount; handles of other generations are dead.
    generation: u64,
    off: bool,
    /// The count of operations at which the power fails.
    fails_at: Option<u64>,
    lies: bool,
    delay_max: Duration,
    /// Every byte ever written, one write behind the other, if somebody wants to search it.
    history: Option<Vec<u8>>,
    counts: DiskCounts,
}

impl State {
    fn file(&self, name: &str) -> io::Result<&File> {
        self.files.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&mut self, name: &str, file: &mut File) -> io::Result<()> {
        // The operation counts for `arm` even if it is the one that fails.
        self.counts.syncs += 1;
        let failed = self.power();
        let word: &[u8] = if failed.is_ok() { b"sync" } else { b"sync failed" };
        self.record(Kind::DiskSync, name, word, &[], || {
            format!("{name} {}", if failed.is_ok() { "sync" } else { "sync failed" })
        });
        failed?;
        if !self.lies {
            file.sync();
        }
        Ok(())
    }

    /// Fails from the operation on that [`Platter::arm`] named.
    fn power(&mut self) -> io::Result<()> {
        if self.fails_at.is_some_and(|at| self.counts.writes + self.counts.syncs >= at) {
            self.off = true;
            self.fails_at = None;
            self.note(Kind::DiskCrash, "the power failed at an operation");
            return Err(power_failure());
        }
        Ok(())
    }

    fn crash(&mut self, crash: Crash) {
        for file in self.files.values_mut() {
            self.counts.lost += file.crash(crash, &mut self.random);
        }
        self.off = false;
        self.fails_at = None;
        self.generation += 1;
        self.counts.crashes += 1;
        self.note(Kind::DiskCrash, crash.name());
    }

    fn record(&self, kind: Kind, name: &str, word: &[u8], body: &[&[u8]], detail: impl FnOnce() -> String) {
        // Name and word are separated by a byte that no name holds.
        let mut parts: Vec<&[u8]> = vec![name.as_bytes(), b"\0", word, b"\0"];
        parts.extend(body);
        self.recorder.record(crate::runtime::now(), self.node, kind, &parts, detail);
    }

    fn note(&self, kind: Kind, text: &str) {
        self.recorder.note(crate::runtime::now(), self.node, kind, text);
    }
}

fn power_failure() -> io::Error {
    io::Error::other("simulated power failure")
}
