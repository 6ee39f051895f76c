//! Requests and replies over a transport of unreliable messages, as openraft wants them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft_rt::{AsyncRuntime, Instant as _, Select2};
use zipnet_core::id::RaftId;

use super::codec::{self, Ballot, Frame, Malformed, Reply, Request};
use super::database::lock;
use super::machine::{Machine, MachineStore};
use super::pace::Pace;
use super::types::{Command, Entry, LogId, NodeId, Payload, Snapshot, Types, Vote};
use crate::world::{Channel, LinkError, World};

/// Requests of one peer that are worked on at the same time. An honest one has a handful.
const PENDING_PER_PEER_MAX: usize = 64;

/// Sends messages to the other nodes. Messages may be lost, repeated and reordered.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Queues a message.
    ///
    /// # Errors
    /// Whatever is known at once to keep the message from arriving.
    fn send(&self, to: RaftId, channel: Channel, message: Bytes) -> Result<(), LinkError>;
}

/// openraft's handle of this node.
pub(super) type Raft<W, M> = openraft::Raft<Types<<W as World>::Runtime>, MachineStore<W, M>>;

/// Why a message from a peer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are no frame.
    Malformed(Malformed),
    /// The peer speaks for another node, or as a leader without being one.
    Impersonation,
    /// The request is meant for another node.
    Misdirected,
    /// The machine does not take the snapshot.
    Snapshot,
    /// The peer asks for too much at once. Honest ones repeat it later.
    Busy,
}

impl Refusal {
    /// The stable name, as metrics spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Impersonation => "impersonation",
            Self::Misdirected => "misdirected",
            Self::Snapshot => "snapshot",
            Self::Busy => "busy",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(reason) => reason.fmt(f),
            Self::Impersonation => f.write_str("accept the message: its sender speaks for another node"),
            Self::Misdirected => f.write_str("accept the message: it is meant for another node"),
            Self::Snapshot => f.write_str("accept the snapshot: the machine can not read it"),
            Self::Busy => f.write_str("accept the message: too many of this sender are waiting"),
        }
    }
}

impl std::error::Error for Refusal {}

/// All requests between this node and the others. Clones are the same.
pub(super) struct Calls<T>(Arc<Inner<T>>);

struct Inner<T> {
    me: RaftId,
    transport: T,
    state: Mutex<State>,
}

struct State {
    /// The number of the next request. Starts at random, so that a late reply to a request of this node's previous
    /// life answers none of this one.
    next: u64,
    /// Who waits for which reply of whom.
    waiting: BTreeMap<(RaftId, u64), oneshot::Sender<Reply>>,
    /// How many requests of whom are worked on.
    serving: BTreeMap<RaftId, usize>,
}

/// Why a request got no reply.
enum Unanswered {
    Link(LinkError),
    Timeout(Duration),
}

impl<T: Transport> Calls<T> {
    pub(super) fn new(me: RaftId, transport: T, first: u64) -> Self {
        let state = State { next: first, waiting: BTreeMap::new(), serving: BTreeMap::new() };
        Self(Arc::new(Inner { me, transport, state: Mutex::new(state) }))
    }

    /// Takes a message from a peer: a reply to whoever waits for it, a request to openraft.
    pub(super) fn receive<W: World, M: Machine>(
        &self,
        raft: &Raft<W, M>,
        machine: &Mutex<M>,
        from: RaftId,
        message: &[u8],
    ) -> Result<(), Refusal> {
        match codec::decode_frame(message).map_err(Refusal::Malformed)? {
            Frame::Reply(number, reply) => {
                // Nobody waits: it came after the time for it was over.
                if let Some(waiting) = lock(&self.0.state).waiting.remove(&(from, number)) {
                    waiting.send(reply).ok();
                }
                Ok(())
            }
            Frame::Request(number, request) => {
                self.check(from, &request)?;
                if let Request::Snapshot(_, _, snapshot) = &request {
                    lock(machine).examine(snapshot).map_err(|_| Refusal::Snapshot)?;
                }
                let serving = Serving::begin(self, from).ok_or(Refusal::Busy)?;
                let raft = raft.clone();
                drop(W::Runtime::spawn(async move {
                    let channel = channel(&request);
                    let reply = answer(&raft, request).await;
                    let message = codec::encode_frame(&Frame::Reply(number, reply));
                    // A lost reply is a lost message; the peer asks again.
                    serving.calls.0.transport.send(from, channel, message.into()).ok();
                }));
                Ok(())
            }
        }
    }

    /// A request counts only from whom it speaks of.
    fn check(&self, from: RaftId, request: &Request) -> Result<(), Refusal> {
        let (vote, leads) = match request {
            Request::Append { vote, .. } | Request::Snapshot(vote, ..) => (vote, true),
            Request::Vote(ballot) | Request::PreVote(ballot) => (&ballot.vote, false),
            Request::Transfer { to, .. } if *to != self.0.me => return Err(Refusal::Misdirected),
            Request::Transfer { from, .. } => (from, true),
        };
        if vote.leader_id.voted_for.0 != from || vote.committed != leads || from == self.0.me {
            return Err(Refusal::Impersonation);
        }
        Ok(())
    }

    /// Asks a peer and waits for its reply, but not longer than `patience`.
    async fn call<R: AsyncRuntime>(
        &self,
        to: RaftId,
        request: Request,
        patience: Duration,
    ) -> Result<Reply, Unanswered> {
        let (waiting, reply) = oneshot::channel();
        let number = {
            let mut state = lock(&self.0.state);
            let number = state.next;
            state.next = number.wrapping_add(1);
            state.waiting.insert((to, number), waiting);
            number
        };
        // Also if this future is dropped half-way.
        let _forget = Forget { calls: self, key: (to, number) };
        let channel = channel(&request);
        let message = codec::encode_frame(&Frame::Request(number, request));
        self.0.transport.send(to, channel, message.into()).map_err(Unanswered::Link)?;
        match R::timeout(patience, reply).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) | Err(_) => Err(Unanswered::Timeout(patience)),
        }
    }
}

/// Snapshots and entries travel apart, so that they do not hold up heartbeats.
fn channel(request: &Request) -> Channel {
    match request {
        Request::Snapshot(..) => Channel::Bulk,
        Request::Append { entries, .. } if !entries.is_empty() => Channel::Bulk,
        Request::Append { .. } | Request::Vote(_) | Request::PreVote(_) | Request::Transfer { .. } => {
            Channel::Consensus
        }
    }
}

/// What this node replies to a request.
async fn answer<W: World, M: Machine>(raft: &Raft<W, M>, request: Request) -> Reply {
    match request {
        Request::Append { vote, prev, entries, commit } => {
            let request = AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit: commit };
            raft.append_entries(request).await.map_or(Reply::Failed, |response| match response {
                AppendEntriesResponse::Success => Reply::Appended,
                AppendEntriesResponse::PartialSuccess(last) => Reply::AppendedUpTo(last),
                AppendEntriesResponse::Conflict => Reply::Conflict,
                AppendEntriesResponse::HigherVote(vote) => Reply::HigherVote(vote),
            })
        }
        Request::Vote(ballot) => raft.vote(ballot.into()).await.map_or(Reply::Failed, voted),
        Request::PreVote(ballot) => raft.pre_vote(ballot.into()).await.map_or(Reply::Failed, voted),
        Request::Snapshot(vote, meta, snapshot) => raft
            .install_full_snapshot(vote, Snapshot { meta, snapshot })
            .await
            .map_or(Reply::Failed, |response| Reply::SnapshotInstalled(response.vote)),
        Request::Transfer { from, to, last } => {
            let request = TransferLeaderRequest::new(from, NodeId(to), last);
            raft.handle_transfer_leader(request).await.map_or(Reply::Failed, |response| match response {
                Ok(()) => Reply::Transferring,
                Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                    Reply::VoteChanged(expected, actual)
                }
                Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                    Reply::LogBehind(expected, actual)
                }
            })
        }
    }
}

fn voted<R: AsyncRuntime>(response: VoteResponse<Types<R>>) -> Reply {
    Reply::Voted { vote: response.vote, granted: response.vote_granted, last: response.last_log_id }
}

/// Makes openraft's clients.
pub(super) struct Network<T>(pub(super) Calls<T>);

/// openraft's way to one peer.
pub(super) struct Client<T> {
    calls: Calls<T>,
    to: NodeId,
    pace: Pace,
}

impl<T: Transport, R: AsyncRuntime> RaftNetworkFactory<Types<R>> for Network<T> {
    type Network = Client<T>;

    async fn new_client(&mut self, to: NodeId, (): &()) -> Client<T> {
        Client { calls: self.0.clone(), to, pace: Pace::default() }
    }
}

impl<T: Transport> Client<T> {
    async fn call<R: AsyncRuntime>(
        &self,
        request: Request,
        action: RPCTypes,
        patience: Duration,
    ) -> Result<Reply, RPCError<Types<R>>> {
        match self.calls.call::<R>(self.to.0, request, patience).await {
            // To openraft a node that can not answer is one that can not be reached: it tries again later.
            Ok(Reply::Failed) => {
                Err(RPCError::Unreachable(Unreachable::from_string("the node can not answer")))
            }
            Ok(reply) => Ok(reply),
            Err(Unanswered::Link(error)) => Err(RPCError::Unreachable(Unreachable::new(&error))),
            Err(Unanswered::Timeout(timeout)) => {
                let id = NodeId(self.calls.0.me);
                Err(RPCError::Timeout(Timeout { action, id, target: self.to, timeout }))
            }
        }
    }

    async fn ballot<R: AsyncRuntime>(
        &self,
        request: Request,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        match self.call(request, RPCTypes::Vote, option.soft_ttl()).await? {
            Reply::Voted { vote, granted, last } => {
                Ok(VoteResponse { vote, vote_granted: granted, last_log_id: last })
            }
            other => Err(unexpected(&other)),
        }
    }
}

impl<T: Transport, R: AsyncRuntime> RaftNetworkV2<Types<R>> for Client<T> {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<R>>, RPCError<Types<R>>> {
        let AppendEntriesRequest { vote, prev_log_id: prev, mut entries, leader_commit: commit } = request;
        let asked = entries.len();
        entries.truncate(self.pace.fits(entries.iter().map(len)));
        let ids: Vec<LogId> = entries.iter().map(|entry| entry.log_id).collect();
        let (bytes, is_heartbeat) = (entries.iter().map(len).sum(), entries.is_empty());
        let usual = option.soft_ttl();
        let patience = if is_heartbeat { usual } else { self.pace.patience(usual) };
        let begun = R::Instant::now();
        let reply = self
            .call(Request::Append { vote, prev, entries, commit }, RPCTypes::AppendEntries, patience)
            .await;
        if !is_heartbeat {
            match &reply {
                Ok(_) => self.pace.arrived(bytes, begun.elapsed(), usual),
                Err(RPCError::Timeout(_)) => self.pace.late(),
                // Nothing was sent.
                Err(_) => {}
            }
        }
        match reply? {
            // The rest is asked for again.
            Reply::Appended if ids.len() < asked => {
                Ok(AppendEntriesResponse::PartialSuccess(ids.last().copied()))
            }
            Reply::Appended => Ok(AppendEntriesResponse::Success),
            Reply::AppendedUpTo(last) if last == prev || last.is_some_and(|last| ids.contains(&last)) => {
                Ok(AppendEntriesResponse::PartialSuccess(last))
            }
            // Nothing conflicts with the start of the log; openraft relies on that.
            Reply::Conflict if prev.is_some() => Ok(AppendEntriesResponse::Conflict),
            Reply::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote)),
            other => Err(unexpected(&other)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        self.ballot(Request::Vote(request.into()), option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        self.ballot(Request::PreVote(request.into()), option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let request = Request::Snapshot(vote, snapshot.meta, snapshot.snapshot);
        let call = pin!(self.call(request, RPCTypes::InstallSnapshot, option.soft_ttl()));
        match R::select2(pin!(cancel), call).await {
            Select2::First(closed) => Err(StreamingError::Closed(closed)),
            Select2::Second(Ok(Reply::SnapshotInstalled(vote))) => Ok(SnapshotResponse::new(vote)),
            Select2::Second(Ok(other)) => Err(unexpected(&other).into()),
            Select2::Second(Err(error)) => Err(error.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<R>>, RPCError<Types<R>>> {
        let request = Request::Transfer {
            from: *request.from_leader(),
            to: request.to_node_id().0,
            last: request.last_log_id().copied(),
        };
        match self.call(request, RPCTypes::TransferLeader, option.soft_ttl()).await? {
            Reply::Transferring => Ok(Ok(())),
            Reply::VoteChanged(expected, actual) => {
                Ok(Err(TransferLeaderError::VoteChanged { expected, actual }))
            }
            Reply::LogBehind(expected, actual) => {
                Ok(Err(TransferLeaderError::LogNotFlushed { expected, actual }))
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// The bytes of an entry that count.
fn len(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Normal(Command(bytes)) => bytes.len(),
        Payload::Blank | Payload::Membership(_) => 0,
    }
}

/// The peer answered another question than it was asked.
fn unexpected<R: AsyncRuntime>(reply: &Reply) -> RPCError<Types<R>> {
    let error = io::Error::new(io::ErrorKind::InvalidData, format!("the reply does not fit: {reply:?}"));
    RPCError::Network(NetworkError::new(&error))
}

impl<R: AsyncRuntime> From<VoteRequest<Types<R>>> for Ballot {
    fn from(request: VoteRequest<Types<R>>) -> Self {
        Self { vote: request.vote, last: request.last_log_id, transfer: request.leadership_transfer }
    }
}

impl<R: AsyncRuntime> From<Ballot> for VoteRequest<Types<R>> {
    fn from(ballot: Ballot) -> Self {
        Self { vote: ballot.vote, last_log_id: ballot.last, leadership_transfer: ballot.transfer }
    }
}

/// Stops waiting for a reply when dropped.
struct Forget<'a, T> {
    calls: &'a Calls<T>,
    key: (RaftId, u64),
}

impl<T> Drop for Forget<'_, T> {
    fn drop(&mut self) {
        lock(&self.calls.0.state).waiting.remove(&self.key);
    }
}

/// Counts a request of a peer while it is worked on.
struct Serving<T> {
    calls: Calls<T>,
    from: RaftId,
}

impl<T> Serving<T> {
    fn begin(calls: &Calls<T>, from: RaftId) -> Option<Self> {
        let mut state = lock(&calls.0.state);
        let count = state.serving.entry(from).or_default();
        if *count >= PENDING_PER_PEER_MAX {
            return None;
        }
        *count += 1;
        Some(Self { calls: calls.clone(), from })
    }
}

impl<T> Drop for Serving<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.calls.0.state);
        if let Some(count) = state.serving.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                state.serving.remove(&self.from);
            }
        }
    }
}

impl<T> Clone for Calls<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
