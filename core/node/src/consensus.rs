//! Consensus: replicates opaque commands to all members and drives a deterministic machine with them.
//!
//! This is the only module that names openraft's types. Start with [`Consensus::open`]; what it needs is a [`World`],
//! a [`Machine`] and a [`Transport`], what it tells comes as [`Event`]s and as [`State`].
//!
//! - `types`: openraft bound to our types
//! - `codec`: the encodings on disk and wire
//! - `database`: a redb file, opened with care
//! - `storage`: the log, durable before it is acknowledged
//! - `machine`: the machine in memory, its snapshots on disk
//! - `guard`: what is taken from peers, and from whom
//! - `network`, `pace`: requests and replies between nodes, and how much one carries
//! - [`recording`]: what a stopped node has on its disk

pub mod codec;
mod database;
pub mod guard;
mod machine;
mod network;
mod pace;
pub mod recording;
mod storage;
pub mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::mpsc;
use futures_util::StreamExt;
use openraft::errors::{ChangeMembershipError, ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::{ChangeMembers, Config, ServerState, SnapshotPolicy, StepDownPolicy};
use openraft_rt::{AsyncRuntime, Instant, WatchReceiver};
use zipnet_core::checks::Checks;
use zipnet_core::id::{Digest, RaftId};

use self::database::Database;
pub(crate) use self::database::lock;
pub use self::guard::{Believed, Refusal};
pub use self::machine::{
    CorruptSnapshot, FILE as MACHINE_FILE, Machine, MachineStore, SnapshotBuilder, Source,
};
pub use self::network::Transport;
use self::network::{Calls, Network, Raft, Taker};
pub use self::storage::{FILE as LOG_FILE, LogStore};
pub use self::types::{Command, Members, NodeId, Types};
use crate::world::World;

/// Proposals that wait for openraft to take them.
const PROPOSALS_MAX: usize = 256;

/// Called with every event, in the order in which they happened. Must not block, and must not call back.
pub type OnEvent = Arc<dyn Fn(Event) + Send + Sync>;

/// What happened, for logs, metrics and checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node's view of who leads changed.
    Leader {
        /// The term.
        term: u64,
        /// The leader, if one is known.
        leader: Option<RaftId>,
        /// Whether it is this node.
        me: bool,
    },
    /// This node gives its vote; not to be told to anybody before [`Event::VoteSynced`].
    Voted {
        /// The term.
        term: u64,
        /// Who gets it; perhaps this node.
        candidate: RaftId,
    },
    /// The vote is on disk.
    VoteSynced {
        /// The term.
        term: u64,
        /// Who got it.
        candidate: RaftId,
    },
    /// Entries are on disk and about to be acknowledged.
    Appended {
        /// The last of them.
        last_index: u64,
        /// Its term.
        term: u64,
    },
    /// The end of the log was removed, because the leader's log differs.
    Truncated {
        /// The last entry that stays.
        after: Option<u64>,
    },
    /// An entry was applied to the machine.
    Applied {
        /// The entry.
        index: u64,
        /// Its term.
        term: u64,
        /// The blake3 hash of the command, of nothing for a blank entry, of the encoded entry for a membership.
        digest: Digest,
    },
    /// A change of membership was applied.
    MembersChanged {
        /// The entry.
        index: u64,
        /// Who takes part from there on.
        members: Members,
    },
    /// A snapshot of the machine is on disk.
    SnapshotTaken {
        /// The last entry it covers.
        index: u64,
    },
    /// The machine was replaced by a snapshot of the leader, which is on disk.
    SnapshotInstalled {
        /// The last entry it covers.
        index: u64,
    },
    /// A message of a peer was let in and then refused, because it does not fit what this node has.
    Refused {
        /// Who sent it.
        from: RaftId,
        /// Why.
        refusal: Refusal,
    },
    /// This node cannot go on, most often because of its disk. Nothing follows.
    Failed {
        /// Whose fault it is.
        fault: Fault,
        /// What went wrong.
        reason: String,
    },
}

/// Why a node cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk did not do what was asked for: it is full, or broken.
    Disk,
    /// What is stored is damaged.
    Data,
    /// An invariant broke.
    Core,
}

/// How fast, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often a leader reports to its followers. A request without entries is given up after three quarters of it, so
    /// it has to exceed the slowest round trip including a disk sync.
    pub heartbeat: Duration,
    /// A follower that heard nothing for between this…
    pub election_min: Duration,
    /// …and this stands for election. The minimum exceeds the heartbeat; three heartbeats are a good choice.
    pub election_max: Duration,
    /// A snapshot is taken every so many entries.
    pub snapshot_every: u64,
    /// So many entries that the snapshot covers stay in the log, for followers that are only a little behind.
    pub keep_after_snapshot: u64,
    /// How long sending and installing a snapshot may take.
    pub snapshot_timeout: Duration,
    /// The most entries in one request.
    pub entries_per_request: u64,
}

impl Default for Settings {
    /// Suits links of 150 ms across continents: a lost leader is noticed within one round of three seconds.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(500),
            election_min: Duration::from_millis(1500),
            election_max: Duration::from_millis(3000),
            snapshot_every: 500,
            keep_after_snapshot: 100,
            snapshot_timeout: Duration::from_secs(30),
            entries_per_request: 64,
        }
    }
}

/// What a node can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Receives the log, has no vote. Also a node that no group knows yet.
    Learner,
    /// Votes and follows.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Takes part in nothing any more.
    Stopped,
}

/// How consensus stands at this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The highest term this node knows.
    pub term: u64,
    /// What this node is.
    pub role: Role,
    /// Who leads, as far as this node knows.
    pub leader: Option<RaftId>,
    /// The last entry that the machine has.
    pub applied: Option<u64>,
    /// The last entry that this node knows to be committed.
    pub committed: Option<u64>,
    /// The last entry of this node's log.
    pub last_log: Option<u64>,
    /// The last entry of the newest snapshot.
    pub snapshot: Option<u64>,
    /// Who takes part, by the last membership in the log, committed or not.
    pub members: Members,
    /// Whether that membership is committed. While it is not, further changes are refused.
    pub members_committed: bool,
    /// On a leader: how long ago a majority was last heard of.
    pub quorum_acked: Option<Duration>,
    /// On a leader: how far the others are.
    pub followers: BTreeMap<RaftId, Follower>,
    /// Why this node cannot go on, if so.
    pub failure: Option<String>,
}

/// How far a follower or learner is, as its leader knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Follower {
    /// The last entry that it is known to have.
    pub matched: Option<u64>,
    /// How long ago it answered.
    pub acked: Option<Duration>,
}

/// Consensus of one node. Clones are the same node; it goes on until [`Consensus::shutdown`], also without any of them.
pub struct Consensus<W: World, M: Machine, T>(Arc<Inner<W, M, T>>);

struct Inner<W: World, M: Machine, T> {
    raft: Raft<W, M>,
    taker: Taker<W, M>,
    calls: Calls<T>,
    log: LogStore<W>,
    snapshots: Database<W>,
    proposals: Mutex<mpsc::Sender<Command>>,
    failure: Arc<Mutex<Option<String>>>,
    stopping: Arc<AtomicBool>,
    fresh: bool,
}

impl<W: World, M: Machine, T: Transport> Consensus<W, M, T> {
    /// Opens what is stored in the world's disk, restores the machine from it and starts to take part.
    ///
    /// A node whose log is empty takes no initiative: [`Consensus::start_group`] makes it a group of one, or a leader
    /// elsewhere adds it as a learner.
    ///
    /// # Errors
    /// The disk's; that the files are not this node's or damaged; or that the settings contradict each other.
    pub async fn open<C: Checks>(
        world: W,
        checks: C,
        me: RaftId,
        settings: Settings,
        machine: Arc<Mutex<M>>,
        transport: T,
        on_event: OnEvent,
    ) -> Result<Self, OpenError> {
        let config = settings.config()?;
        let failure = Arc::new(Mutex::new(None));
        let log =
            LogStore::open_with(&world, &checks, me, Arc::clone(&failure), Arc::clone(&on_event)).await?;
        let store = MachineStore::open_with(
            &world,
            me,
            Arc::clone(&machine),
            Arc::clone(&failure),
            Arc::clone(&on_event),
        )
        .await?;
        let snapshots = store.database().clone();
        let fresh = log.is_pristine();
        let entropy = world.entropy();
        let first = u64::from_le_bytes(*entropy.first_chunk().expect("32 bytes contain 8"));
        let calls = Calls::new(me, transport, first, settings.snapshot_timeout, log.committed(), &checks);
        let raft = Raft::<W, M>::new(NodeId(me), config, Network(calls.clone()), log.clone(), store)
            .await
            .map_err(|error| OpenError::Inconsistent(error.to_string()))?;
        // The first answer means that the state that was read is also the state that is shown.
        raft.with_raft_state(|_| ()).await.map_err(|error| OpenError::Inconsistent(error.to_string()))?;

        let taker = Taker { raft: raft.clone(), machine, log: log.clone(), on_event: Arc::clone(&on_event) };
        let stopping = Arc::new(AtomicBool::new(false));
        let watch = watch(raft.clone(), Arc::clone(&stopping), Arc::clone(&failure), on_event);
        drop(W::Runtime::spawn(watch));
        let (proposals, waiting) = mpsc::channel(PROPOSALS_MAX);
        drop(W::Runtime::spawn(forward(raft.clone(), waiting)));
        let proposals = Mutex::new(proposals);
        Ok(Self(Arc::new(Inner { raft, taker, calls, log, snapshots, proposals, failure, stopping, fresh })))
    }

    /// Whether the disk held no log when it was opened: this node has never been part of a group.
    #[must_use]
    pub fn was_fresh(&self) -> bool {
        self.0.fresh
    }

    /// Whether this node thinks that it leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0.raft.is_leader()
    }

    /// Has the command appended to the log if this node leads. Says whether it tried; whether the command is ever
    /// applied, only the machine sees.
    pub fn propose(&self, command: Vec<u8>) -> bool {
        command.len() <= codec::COMMAND_BYTES_MAX
            && self.is_leader()
            && lock(&self.0.proposals).try_send(Command(command.into())).is_ok()
    }

    /// Takes a message that came from the peer over [`Transport`] on either of its channels.
    ///
    /// # Errors
    /// Why the message was refused; nothing has changed then. What is refused later, because it does not fit what this
    /// node has, is told as [`Event::Refused`]. To honest peers only [`Refusal::Busy`] happens, and
    /// [`Refusal::NotMember`] until their membership has come around.
    pub fn receive(&self, from: RaftId, message: Bytes) -> Result<(), Refusal> {
        self.0.calls.receive(&self.0.taker, from, &message)
    }

    /// The link with a peer is gone: nothing that it was asked over it is waited for any more.
    pub fn parted(&self, peer: RaftId) {
        self.0.calls.parted(peer);
    }

    /// Says whom to believe from here on, beside the voters of the last and of the last committed membership in the log.
    /// A node that has no log believes nobody before.
    pub fn believe(&self, believed: Believed) {
        self.0.calls.believe(believed);
    }

    /// The voters of the last membership in the log and of the last committed one, and at which entry they became so.
    #[must_use]
    pub fn voters(&self) -> (Option<u64>, BTreeSet<RaftId>) {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (effective, committed) = (&metrics.membership_config, &metrics.committed_membership_config);
        let voters = effective.membership().voter_ids().chain(committed.membership().voter_ids());
        (effective.log_id().map(|id| id.index), voters.map(|id| id.0).collect())
    }

    /// Waits until what this node has applied is also what it applies again after a crash.
    ///
    /// The committed position is written with whatever is written next. An entry that was applied and is not known as
    /// committed on the disk could be replaced after a crash, by a leader that lies about what is committed.
    ///
    /// # Errors
    /// The disk's.
    pub async fn sync_committed(&self) -> io::Result<()> {
        self.0.log.sync_committed().await
    }

    /// How consensus stands at this node.
    #[must_use]
    pub fn state(&self) -> State {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<types::LogId>| id.map(|id| id.index);
        let failure = lock(&self.0.failure).clone();
        let stopped = metrics.running_state.is_err() || failure.is_some();
        let mut followers: BTreeMap<RaftId, Follower> = BTreeMap::new();
        for (id, matched) in metrics.replication.iter().flatten() {
            followers.entry(id.0).or_default().matched = index(matched);
        }
        for (id, acked) in metrics.heartbeat.iter().flatten() {
            followers.entry(id.0).or_default().acked = acked.map(|acked| acked.elapsed());
        }
        let members = Members::from(metrics.membership_config.membership());
        // openraft counts what others answer, and whoever votes alone needs nobody's answer.
        let alone = metrics.state == ServerState::Leader && members.voters == [metrics.id.0].into();
        let quorum_acked = metrics.last_quorum_acked.map(|acked| acked.elapsed());
        State {
            term: metrics.current_term,
            role: if stopped { Role::Stopped } else { metrics.state.into() },
            leader: metrics.current_leader.map(|leader| leader.0),
            applied: index(&metrics.last_applied),
            committed: index(&metrics.local_committed),
            last_log: metrics.last_log_index,
            snapshot: index(&metrics.snapshot),
            members,
            members_committed: metrics.membership_config.log_id()
                == metrics.committed_membership_config.log_id(),
            quorum_acked: if alone { Some(Duration::ZERO) } else { quorum_acked },
            followers,
            failure,
        }
    }

    /// Makes a node that has never been part of a group the only member of one.
    ///
    /// # Errors
    /// If it is part of a group, or stopped.
    pub async fn start_group(&self) -> Result<(), ChangeError> {
        self.found_group(BTreeSet::from([self.0.raft.node_id().0])).await
    }

    /// Makes a node that has never been part of a group a member of one with these voters, of which it is one itself, and
    /// has it stand for election. Any number of them may do so, as long as all name the same voters: the first entry is the
    /// same at each, and a majority of these voters decides about the others.
    ///
    /// # Errors
    /// If it is part of a group, has given a vote, or is stopped.
    pub async fn found_group(&self, voters: BTreeSet<RaftId>) -> Result<(), ChangeError> {
        let voters: BTreeSet<NodeId> = voters.into_iter().map(NodeId).collect();
        self.0.raft.initialize(voters).await.map_err(|error| match error {
            RaftError::APIError(InitializeError::NotAllowed(_)) => ChangeError::AlreadyStarted,
            RaftError::APIError(InitializeError::NotInMembers(error)) => {
                ChangeError::Refused(error.to_string())
            }
            RaftError::Fatal(_) => ChangeError::Stopped,
        })
    }

    /// Has the log sent to a node that has no vote yet. Returns once the membership is committed, without waiting for
    /// the learner; repeating it does no harm. Waits as long as there is no majority.
    ///
    /// # Errors
    /// Why not. [`ChangeError::InProgress`] passes by itself; it also occurs right after an election.
    pub async fn add_learner(&self, id: RaftId) -> Result<u64, ChangeError> {
        let response = self.0.raft.add_learner(NodeId(id), (), false).await.map_err(ChangeError::from)?;
        Ok(response.log_id.index)
    }

    /// Ends the replication to nodes that have no vote.
    ///
    /// # Errors
    /// Why not; voters are not removed like this.
    pub async fn remove_learners(&self, ids: BTreeSet<RaftId>) -> Result<u64, ChangeError> {
        self.change(ChangeMembers::RemoveNodes(ids.into_iter().map(NodeId).collect()), true).await
    }

    /// Replaces the voters; each of them has to be a voter or a learner. Former voters become learners or leave.
    ///
    /// Returns the index at which the change is complete, after a joint configuration if one was necessary. Waits as
    /// long as there is no majority. If it is interrupted half-way the group stays in the joint configuration,
    /// which [`Members::joint`] shows; [`complete_change`](Self::complete_change), on whoever leads then, completes it.
    ///
    /// # Errors
    /// Why not. [`ChangeError::InProgress`] passes by itself; it also occurs right after an election.
    pub async fn change_voters(
        &self,
        voters: BTreeSet<RaftId>,
        retain_removed_as_learners: bool,
    ) -> Result<u64, ChangeError> {
        let voters = voters.into_iter().map(NodeId).collect();
        self.change(ChangeMembers::ReplaceAllVoters(voters), retain_removed_as_learners).await
    }

    /// Completes a change of voters that was left half done: the new half has the votes from then on, and nobody else.
    ///
    /// # Errors
    /// As for [`change_voters`](Self::change_voters).
    pub async fn complete_change(&self) -> Result<u64, ChangeError> {
        // Changes are made to the new half: with nobody added it is what was wanted.
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await
    }

    async fn change(&self, change: ChangeMembers<NodeId, ()>, retain: bool) -> Result<u64, ChangeError> {
        let response = self.0.raft.change_membership(change, retain).await.map_err(ChangeError::from)?;
        Ok(response.log_id.index)
    }

    /// Asks another voter to take over at once. Does nothing on a node that does not lead; success shows in
    /// [`State::leader`].
    ///
    /// # Errors
    /// If consensus is stopped.
    pub async fn transfer_leadership(&self, to: RaftId) -> Result<(), ChangeError> {
        self.0.raft.trigger().transfer_leader(NodeId(to)).await.map_err(|_| ChangeError::Stopped)
    }

    /// Has a snapshot taken, whatever the settings say.
    ///
    /// # Errors
    /// If consensus is stopped.
    pub async fn trigger_snapshot(&self) -> Result<(), ChangeError> {
        self.0.raft.trigger().snapshot().await.map_err(|_| ChangeError::Stopped)
    }

    /// Stops taking part and closes the files. A leader hands over first, if it wants to.
    pub async fn shutdown(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
        // The core task's own end, good or bad, has been reported already.
        drop(self.0.raft.shutdown().await);
        self.0.log.close().await;
        self.0.snapshots.close().await;
    }
}

impl Settings {
    fn config(&self) -> Result<Arc<Config>, OpenError> {
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = Config {
            cluster_name: "zipnet".to_owned(),
            heartbeat_interval: milliseconds(self.heartbeat),
            election_timeout_min: milliseconds(self.election_min),
            election_timeout_max: milliseconds(self.election_max),
            install_snapshot_timeout: milliseconds(self.snapshot_timeout),
            max_payload_entries: self.entries_per_request.min(codec::ENTRIES_MAX as u64),
            replication_lag_threshold: self.snapshot_every.saturating_mul(2),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.keep_after_snapshot,
            removed_leader_step_down: StepDownPolicy::After(milliseconds(self.heartbeat)),
            api_channel_size: Some(1024),
            notification_channel_size: Some(1024),
            enable_pre_vote: Some(true),
            // A leader that crashed and came back must be elected again: what it acknowledged right before the crash
            // may be missing from its machine until it hears what is committed.
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        config.validate().map(Arc::new).map_err(|error| OpenError::Settings(error.to_string()))
    }
}

/// Tells who leads, and when openraft ends without having been asked to.
async fn watch<W: World, M: Machine>(
    raft: Raft<W, M>,
    stopping: Arc<AtomicBool>,
    failure: Arc<Mutex<Option<String>>>,
    on_event: OnEvent,
) {
    let mut metrics = raft.server_metrics();
    let mut told = None;
    loop {
        let seen = {
            let metrics = metrics.borrow_and_update();
            (metrics.vote.leader_id.term, metrics.current_leader, metrics.state == ServerState::Leader)
        };
        if told.replace(seen) != Some(seen) {
            let (term, leader, me) = seen;
            on_event(Event::Leader { term, leader: leader.map(|leader| leader.0), me });
        }
        if metrics.changed().await.is_err() {
            break;
        }
    }
    if stopping.load(Ordering::Relaxed) {
        return;
    }
    let reason = match raft.with_raft_state(|_| ()).await {
        Ok(()) => "it ended by itself".to_owned(),
        Err(error) => error.to_string(),
    };
    {
        let mut failure = lock(&failure);
        if failure.is_some() {
            return;
        }
        *failure = Some(reason.clone());
    }
    on_event(Event::Failed { fault: Fault::Core, reason });
}

/// Hands proposals to openraft in the order in which they were made.
async fn forward<W: World, M: Machine>(raft: Raft<W, M>, mut proposals: mpsc::Receiver<Command>) {
    while let Some(command) = proposals.next().await {
        if raft.client_write_ff(command, None).await.is_err() {
            break;
        }
    }
}

/// Why consensus cannot start.
#[derive(Debug)]
pub enum OpenError {
    /// The disk failed.
    Disk {
        /// The file.
        file: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// The file is none that this node wrote.
    Foreign {
        /// The file.
        file: &'static str,
        /// What it is instead.
        found: String,
    },
    /// The file is damaged.
    Corrupt {
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The files do not fit each other.
    Inconsistent(String),
    /// The settings contradict each other.
    Settings(String),
}

impl OpenError {
    /// Whether the stored data is at fault: trying again does not help, and only a person may discard it.
    #[must_use]
    pub fn is_data(&self) -> bool {
        match self {
            Self::Foreign { .. } | Self::Corrupt { .. } | Self::Inconsistent(_) => true,
            Self::Disk { .. } | Self::Settings(_) => false,
        }
    }

    fn from_redb(file: &'static str, error: redb::Error) -> Self {
        match (Fault::of(&error), error) {
            (Fault::Disk, redb::Error::Io(error)) => Self::Disk { file, error },
            (Fault::Disk, error) => Self::Disk { file, error: io::Error::other(error.to_string()) },
            (Fault::Data | Fault::Core, error) => Self::Corrupt { file, reason: error.to_string() },
        }
    }
}

impl Fault {
    /// Whose fault it is that a database fails.
    pub(crate) fn of(error: &redb::Error) -> Self {
        match error {
            redb::Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => Self::Disk,
            redb::Error::PreviousIo | redb::Error::DatabaseAlreadyOpen => Self::Disk,
            _ => Self::Data,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { file, error } => write!(f, "open {file}: {error}"),
            Self::Foreign { file, found } => {
                write!(f, "open {file}: expected this node's own, found {found}")
            }
            Self::Corrupt { file, reason } => write!(f, "read {file}: {reason}"),
            Self::Inconsistent(reason) => write!(f, "resume from {LOG_FILE} and {MACHINE_FILE}: {reason}"),
            Self::Settings(reason) => write!(f, "accept the settings of consensus: {reason}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Why the group was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// This node does not lead; perhaps that one does.
    NotLeader(Option<RaftId>),
    /// An earlier change, or the first entry of the leader's term, is not committed yet.
    InProgress,
    /// A voter has to be a learner first.
    UnknownLearner(RaftId),
    /// No voters would remain.
    NoVoters,
    /// This node has been part of a group.
    AlreadyStarted,
    /// This node lost the lead meanwhile; whether the change happens is decided by the log.
    Unknown,
    /// Consensus is stopped.
    Stopped,
    /// openraft refuses for a reason of its own.
    Refused(String),
}

impl<C> From<RaftError<C, ClientWriteError<C>>> for ChangeError
where
    C: openraft::RaftTypeConfig<NodeId = NodeId, LeaderId = types::LeaderId>,
{
    fn from(error: RaftError<C, ClientWriteError<C>>) -> Self {
        match error {
            RaftError::Fatal(Fatal::StorageError(_) | Fatal::Panicked | Fatal::Stopped) => Self::Stopped,
            RaftError::APIError(error) => match error {
                ClientWriteError::ForwardToLeader(to) => Self::NotLeader(to.leader_id.map(|leader| leader.0)),
                ClientWriteError::LogEntryDiscarded(_) => Self::Unknown,
                ClientWriteError::PreconditionFailed(_) => Self::InProgress,
                ClientWriteError::ChangeMembershipError(error) => match error {
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
                        Self::InProgress
                    }
                    ChangeMembershipError::EmptyMembership(_) => Self::NoVoters,
                    ChangeMembershipError::LearnerNotFound(error) => Self::UnknownLearner(error.node_id.0),
                    ChangeMembershipError::UnsupportedMembershipTransition(error) => {
                        Self::Refused(error.to_string())
                    }
                    ChangeMembershipError::NodeMetadataChanged(error) => Self::Refused(error.to_string()),
                },
            },
        }
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("change the group: ")?;
        match self {
            Self::NotLeader(Some(leader)) => write!(f, "{leader} leads"),
            Self::NotLeader(None) => f.write_str("this node does not lead"),
            Self::InProgress => f.write_str("an earlier change is not committed yet"),
            Self::UnknownLearner(id) => write!(f, "{id} is not a learner"),
            Self::NoVoters => f.write_str("no voters would remain"),
            Self::AlreadyStarted => f.write_str("this node has been part of a group"),
            Self::Unknown => f.write_str("this node lost the lead before the change was committed"),
            Self::Stopped => f.write_str("consensus is stopped"),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for ChangeError {}

impl From<ServerState> for Role {
    fn from(state: ServerState) -> Self {
        match state {
            ServerState::Learner => Self::Learner,
            ServerState::Follower => Self::Follower,
            ServerState::Candidate => Self::Candidate,
            ServerState::Leader => Self::Leader,
            ServerState::Shutdown => Self::Stopped,
        }
    }
}

impl<W: World, M: Machine, T> Clone for Consensus<W, M, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W: World, M: Machine, T> fmt::Debug for Consensus<W, M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consensus").field("me", &self.0.raft.node_id().0).finish_non_exhaustive()
    }
}
