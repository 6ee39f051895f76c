//! What a server says is on its disk before it says it; and rounds do not ask the wall clock.
//!
//! Three servers run on disks whose syncs take their time and are recorded. For every message that leaves, the disk is
//! looked at as a power failure at this moment would leave it: what the message claims has to be there.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use zipnet_core::id::{PeerId, Role};
use zipnet_core::machine::Report;
use zipnet_core::message::{Command, Message};
use zipnet_core::wire;
use zipnet_node::consensus::codec::{self, Frame, Reply, Request};
use zipnet_node::consensus::types::{Payload, Vote};
use zipnet_node::event::Event;
use zipnet_node::world::{Channel, Disk};
use zipnet_world::disk::Folder;

#[path = "support/world.rs"]
mod world;

use world::{Task, Watch, variables};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a disk does what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syncs {
    /// A sync returns once what was written is safe.
    Wait,
    /// A sync returns at once, and what was written is safe some time later.
    Lie,
}

/// A file as it was written, and as a power failure would leave it.
#[derive(Debug, Default)]
struct Image {
    safe: Vec<u8>,
    /// Written, but not safe yet.
    pending: Vec<Write>,
    /// How often something became safe.
    syncs: u64,
}

#[derive(Debug)]
enum Write {
    Len(u64),
    Bytes(u64, Vec<u8>),
}

impl Image {
    /// The oldest writes become safe.
    fn settle(&mut self, count: usize) {
        for write in self.pending.drain(..count) {
            let place = |at: u64| usize::try_from(at).expect("files of tests are small");
            match write {
                Write::Len(len) => self.safe.resize(place(len), 0),
                Write::Bytes(at, bytes) => {
                    let (from, to) = (place(at), place(at) + bytes.len());
                    if self.safe.len() < to {
                        self.safe.resize(to, 0);
                    }
                    self.safe[from..to].copy_from_slice(&bytes);
                }
            }
        }
        self.syncs += 1;
    }
}

/// A state folder whose syncs are slow and recorded.
#[derive(Clone)]
struct SlowDisk {
    folder: Folder,
    syncs: Syncs,
    images: Arc<Mutex<BTreeMap<String, Image>>>,
    /// What was read of the log, and after how many syncs.
    read: Arc<Mutex<(u64, Kept)>>,
}

/// What the log on a disk holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Kept {
    vote: Option<Vote>,
    last: Option<u64>,
}

impl SlowDisk {
    fn new(folder: &Path, syncs: Syncs) -> Self {
        let folder = Folder::open(folder).expect("it is a temporary folder");
        Self { folder, syncs, images: Arc::default(), read: Arc::default() }
    }

    /// What the log would hold after a power failure.
    fn kept(&self) -> Kept {
        let mut read = lock(&self.read);
        let (syncs, image) = {
            let images = lock(&self.images);
            let Some(image) = images.get("log.redb") else { return Kept::default() };
            if image.syncs == read.0 {
                return read.1;
            }
            (image.syncs, image.safe.clone())
        };
        *read = (syncs, look(&image));
        read.1
    }
}

/// Reads a log as a node does that starts after a power failure.
fn look(image: &[u8]) -> Kept {
    const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
    const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
    let memory = InMemoryBackend::new();
    memory.set_len(image.len().try_into().expect("it fits")).expect("memory does not fail");
    memory.write(0, image).expect("memory does not fail");
    let database = redb::Builder::new().create_with_backend(memory).expect("a power failure damages nothing");
    let reading = database.begin_read().expect("it can be read");
    let vote = reading.open_table(META).ok().and_then(|meta| {
        let vote = meta.get("vote").expect("it can be read")?;
        Some(codec::decode_vote(vote.value()).expect("it was written by a node"))
    });
    let last = reading.open_table(LOG).ok().and_then(|log| {
        let last = log.last().expect("it can be read")?;
        Some(last.0.value())
    });
    Kept { vote, last }
}

impl Disk for SlowDisk {
    type Backend = SlowFile;

    fn open(&self, name: &str) -> io::Result<SlowFile> {
        let file = self.folder.open(name)?;
        let safe = std::fs::read(self.folder.path().join(name))?;
        lock(&self.images).insert(name.to_owned(), Image { safe, pending: Vec::new(), syncs: 1 });
        Ok(SlowFile { file, name: name.to_owned(), syncs: self.syncs, images: Arc::clone(&self.images) })
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.folder.exists(name)
    }

    fn set_aside(&self, names: &[&str]) -> io::Result<()> {
        self.folder.set_aside(names)
    }

    fn read(&self, name: &str) -> io::Result<Option<String>> {
        self.folder.read(name)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        self.folder.write(name, text)
    }
}

#[derive(Debug)]
struct SlowFile {
    file: FileBackend,
    name: String,
    syncs: Syncs,
    images: Arc<Mutex<BTreeMap<String, Image>>>,
}

impl SlowFile {
    fn image<T>(&self, act: impl FnOnce(&mut Image) -> T) -> T {
        act(lock(&self.images).get_mut(&self.name).expect("it was opened"))
    }
}

impl StorageBackend for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.image(|image| image.pending.push(Write::Len(len)));
        self.file.set_len(len)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.image(|image| image.pending.push(Write::Bytes(offset, data.to_vec())));
        self.file.write(offset, data)
    }

    fn sync_data(&self) -> io::Result<()> {
        let count = self.image(|image| image.pending.len());
        // Between 4 and 20 ms, never the same twice in a row.
        let delay = Duration::from_millis(4 + self.image(|image| image.syncs * 7 % 17));
        match self.syncs {
            Syncs::Wait => {
                thread::sleep(delay);
                self.file.sync_data()?;
                self.image(|image| image.settle(count));
            }
            Syncs::Lie => {
                let (images, name) = (Arc::clone(&self.images), self.name.clone());
                drop(thread::spawn(move || {
                    thread::sleep(delay * 8);
                    if let Some(image) = lock(&images).get_mut(&name) {
                        // Another one may have been quicker.
                        image.settle(count.min(image.pending.len()));
                    }
                }));
            }
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// What is claimed by messages, and looked for on disks.
const CLAIMS: [&str; 4] = ["vote", "append", "commit", "partial"];

/// What is known of all servers together.
#[derive(Default)]
struct Court {
    disks: BTreeMap<PeerId, SlowDisk>,
    /// By who asks whom under which number: the last entry that is offered, or the vote that is asked for.
    offered: BTreeMap<(PeerId, PeerId, u64), u64>,
    asked: BTreeMap<(PeerId, PeerId, u64), Vote>,
    /// Where each round's aggregate stands in the log.
    aggregates: BTreeMap<u64, u64>,
    /// Claims that were looked at, by what they were.
    seen: BTreeMap<&'static str, u64>,
    /// Claims that the disks do not bear out.
    broken: Vec<String>,
}

impl Court {
    fn kept(&self, server: PeerId) -> Kept {
        self.disks.get(&server).map(SlowDisk::kept).unwrap_or_default()
    }

    fn judge(&mut self, what: &'static str, holds: bool, detail: impl FnOnce() -> String) {
        *self.seen.entry(what).or_default() += 1;
        if !holds {
            self.broken.push(format!("{what}: {}", detail()));
        }
    }

    /// A server has voted, and may never vote otherwise in this term or an earlier one.
    fn voted(&mut self, server: PeerId, vote: Vote) {
        let kept = self.kept(server).vote;
        let same = |kept: Vote| {
            kept.leader_id.term > vote.leader_id.term
                || kept.leader_id.term == vote.leader_id.term
                    && kept.leader_id.voted_for == vote.leader_id.voted_for
        };
        self.judge("vote", kept.is_some_and(same), || {
            format!("{vote} left {}, {kept:?} is kept", server.short())
        });
    }

    fn appended(&mut self, server: PeerId, last: u64) {
        let kept = self.kept(server).last;
        self.judge("append", kept >= Some(last), || {
            format!("{last} left {}, {kept:?} is kept", server.short())
        });
    }

    /// Something is committed: a majority has it.
    fn committed(&mut self, what: &'static str, index: u64) {
        // As long as the committee is being put together, fewer are a majority.
        if self.disks.len() < 3 || !self.aggregates.values().any(|first| *first <= index) {
            return;
        }
        let kept: Vec<_> = self.disks.values().map(|disk| disk.kept().last).collect();
        let holders = kept.iter().filter(|last| **last >= Some(index)).count();
        self.judge(what, holders >= 2, || format!("{index} is said to be committed, kept are {kept:?}"));
    }

    /// A message leaves a server.
    fn leaves(&mut self, from: PeerId, to: PeerId, channel: Channel, message: &Bytes) {
        match channel {
            Channel::Consensus | Channel::Bulk => match codec::decode_frame(message) {
                Ok(Frame::Request(number, request)) => self.asks(from, to, number, request),
                Ok(Frame::Reply(number, reply)) => self.answers(from, to, number, reply),
                Err(error) => self.broken.push(format!("an honest server sent rubbish: {error}")),
            },
            Channel::Protocol => {
                if let Ok(Message::Propose(command)) = wire::decode(message) {
                    self.proposes(&command);
                }
            }
            Channel::Control | Channel::Datagram => {}
        }
    }

    fn asks(&mut self, from: PeerId, to: PeerId, number: u64, request: Request) {
        match request {
            Request::Append { vote, entries, commit, .. } => {
                // It leads by votes, its own among them.
                self.voted(from, vote);
                if let Some(commit) = commit {
                    self.committed("commit", commit.index);
                }
                for entry in &entries {
                    if let Payload::Normal(command) = &entry.payload
                        && let Ok(command) = wire::decode_command(&command.0)
                    {
                        self.proposes(&command);
                    }
                }
                if let Some(last) = entries.last() {
                    self.offered.insert((from, to, number), last.log_id.index);
                }
            }
            Request::Vote(ballot) => {
                self.voted(from, ballot.vote);
                self.asked.insert((from, to, number), ballot.vote);
            }
            Request::PreVote(_) | Request::Snapshot(..) | Request::Transfer { .. } => {}
        }
    }

    fn answers(&mut self, from: PeerId, to: PeerId, number: u64, reply: Reply) {
        let (offered, asked) =
            (self.offered.remove(&(to, from, number)), self.asked.remove(&(to, from, number)));
        match reply {
            Reply::Appended => {
                if let Some(last) = offered {
                    self.appended(from, last);
                }
            }
            Reply::AppendedUpTo(Some(last)) => self.appended(from, last.index),
            Reply::Voted { granted: true, .. } => {
                if let Some(vote) = asked {
                    self.voted(from, vote);
                }
            }
            _ => {}
        }
    }

    /// A partial opens a round for ever: what it opens has been agreed on by then, and cannot be lost.
    fn proposes(&mut self, command: &Command) {
        if let Command::SubmitPartial(partial) = command
            && let Some(index) = self.aggregates.get(&partial.round.0).copied()
        {
            self.committed("partial", index);
        }
    }
}

fn nothing() -> Watch {
    Arc::new(|_, _, _| None)
}

/// What happens in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Middle {
    /// The leader stops in order, and another one is elected.
    Election,
    /// Wall clocks go ahead, and some of them come back.
    Jumps,
}

/// A committee within this process, until it has finalised some rounds before and after something happens. The court has
/// seen all of it.
async fn rounds(syncs: Syncs, count: u64, middle: Middle) -> Court {
    let scratch = tempfile::tempdir().expect("the machine has a temporary folder");
    let court = Arc::new(Mutex::new(Court::default()));
    let finalized = Arc::new(Mutex::new(BTreeMap::<usize, u64>::new()));
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    let roles = [Role::Server, Role::Server, Role::Server, Role::Aggregator, Role::Client, Role::Client];
    let mut bootstrap: Option<String> = None;
    for (number, role) in roles.into_iter().enumerate() {
        let name = format!("node-{number}");
        let folder = scratch.path().join(&name);
        let variables = variables(role, &name, &folder, bootstrap.as_deref());
        let task = if role == Role::Server {
            let disk = SlowDisk::new(&folder, syncs);
            let secret = zipnet_core::key::NodeSecret::from_bytes(
                zipnet_core::id::UniqueId::from_text(&variables["ZIPNET_SECRET"]).0,
            );
            let me = zipnet_core::key::Identity::from_secret(&secret).peer();
            lock(&court).disks.insert(me, disk.clone());
            let (watched, ended) = (Arc::clone(&court), Arc::clone(&over));
            let watch: Watch = Arc::new(move |to, channel, message| {
                if !ended.load(Ordering::Relaxed) {
                    lock(&watched).leaves(me, to, channel, message);
                }
                None
            });
            let (noted, counted) = (Arc::clone(&court), Arc::clone(&finalized));
            let sink = Arc::new(move |event: Event| match event {
                Event::Core(Report::AggregateApplied { index, round, .. }) => {
                    lock(&noted).aggregates.insert(round.0, index);
                }
                Event::Core(Report::RoundFinalized { rostered: true, .. }) => {
                    *lock(&counted).entry(number).or_default() += 1;
                }
                _ => {}
            });
            Task::start(role, &variables, disk, watch, sink)
        } else {
            let disk = Folder::open(&folder).expect("it is a temporary folder");
            Task::start(role, &variables, disk, nothing(), Arc::new(|_| {}))
        };
        bootstrap.get_or_insert_with(|| task.peer.clone());
        tasks.push(task);
    }
    let wait = async |servers: &[usize], more: u64| {
        let finalized = |number: &usize| lock(&finalized).get(number).copied().unwrap_or(0);
        let wanted: Vec<_> = servers.iter().map(|number| finalized(number) + more).collect();
        let end = Instant::now() + PATIENCE;
        while servers.iter().zip(&wanted).any(|(number, wanted)| finalized(number) < *wanted) {
            let now: Vec<_> = servers.iter().map(finalized).collect();
            assert!(Instant::now() < end, "after {PATIENCE:?}: {now:?} of {wanted:?} rounds");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    wait(&[0, 1, 2], count).await;
    match middle {
        Middle::Election => {
            let leader =
                tasks[0].handle.view().await.and_then(|view| view.leader).expect("rounds have a leader");
            let number = tasks.iter().position(|task| task.peer.starts_with(&leader.to_string()));
            let number = number.expect("it is one of the servers");
            let others: Vec<_> = (0..3).filter(|other| *other != number).collect();
            assert_eq!(tasks.remove(number).stop().await.code, 0);
            wait(&others, count).await;
        }
        Middle::Jumps => {
            for (number, task) in tasks.iter().enumerate() {
                let hours = 1 + u64::from(number % 2 == 0);
                task.ahead.store(hours * 3_600, Ordering::Relaxed);
            }
            // Longer than the gossip cycle, so that announcements carry these times.
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            for task in &tasks[1..] {
                task.ahead.store(0, Ordering::Relaxed);
            }
            wait(&[0, 1, 2], count).await;
        }
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks.into_iter().rev() {
        assert_eq!(task.stop().await.code, 0);
    }
    drop(scratch);
    std::mem::take(&mut *lock(&court))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_leaves_a_server_before_it_is_on_disk() {
    let court = rounds(Syncs::Wait, 5, Middle::Election).await;
    for what in CLAIMS {
        assert!(court.seen.get(what).is_some_and(|count| *count >= 5), "too few to tell: {:?}", court.seen);
    }
    assert!(court.broken.is_empty(), "{} of {:?}: {:#?}", court.broken.len(), court.seen, court.broken);
}

/// The test above is able to fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn disks_that_lie_are_found_out() {
    let court = rounds(Syncs::Lie, 3, Middle::Election).await;
    for what in CLAIMS {
        let found = court.broken.iter().filter(|broken| broken.starts_with(what)).count();
        assert!(found > 0, "no {what} was found out: {:?}", court.seen);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clock_that_jumps_changes_nothing() {
    let court = rounds(Syncs::Wait, 3, Middle::Jumps).await;
    assert!(court.broken.is_empty(), "{:#?}", court.broken);
}
