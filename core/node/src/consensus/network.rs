//! Requests and replies over a transport of unreliable messages, as openraft wants them.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::lock::Mutex as Turns;
use openraft::RaftState;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft_rt::{AsyncRuntime, Instant as _, Select2, WatchReceiver};
use zipnet_core::checks::{Check, Checks};
use zipnet_core::id::RaftId;

use super::codec::{self, Ballot, Frame, Reply, Request};
use super::database::lock;
use super::guard::{
    Believed, Bounds, Empty, Installation, Known, Office, Refusal, Standing, check_numbers, check_reply,
    check_sender, check_transfer, judge_append, judge_snapshot, may_send, one_leader,
};
use super::machine::{Machine, MachineStore};
use super::pace::Pace;
use super::storage::LogStore;
use super::types::{Command, Entry, LogId, NodeId, Payload, Snapshot, SnapshotMeta, Types, Vote};
use super::{Event, OnEvent};
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

/// All requests between this node and the others. Clones are the same.
pub(super) struct Calls<T>(Arc<Inner<T>>);

struct Inner<T> {
    me: RaftId,
    transport: T,
    state: Mutex<State>,
    /// Requests that change the log are judged and carried out one at a time. Holds what was taken last, and under whose
    /// vote.
    turns: Turns<Option<(Vote, LogId)>>,
    /// A snapshot of a peer is being examined or installed.
    installing: AtomicBool,
    /// How long that may wait for what is committed to be applied.
    install_patience: Duration,
    /// Whether it matters who sends a request. It does, unless a defect is tried.
    knows_leaders: bool,
    /// What this node knew to be committed when it started. openraft says nothing of that before it has committed something
    /// as a leader, and a follower that lacks the word takes no membership on top of another.
    committed_before: Option<LogId>,
}

struct State {
    /// The number of the next request. Starts at random, so that a late reply to a request of this node's previous
    /// life answers none of this one.
    next: u64,
    /// Who waits for which reply of whom.
    waiting: BTreeMap<(RaftId, u64), Waiting>,
    /// How many requests of whom are worked on.
    serving: BTreeMap<RaftId, usize>,
    /// Whom this node believes beside the voters in its log.
    believed: Believed,
    /// The last entry that each peer has acknowledged under this node's vote.
    acknowledged: Option<(Vote, BTreeMap<RaftId, LogId>)>,
}

/// A request that has no reply yet.
struct Waiting {
    answer: oneshot::Sender<Reply>,
    /// The term that it named.
    term: u64,
    /// It asked what would be, for a term that does not exist yet.
    probes: bool,
}

/// Why a request got no reply.
enum Unanswered {
    Link(LinkError),
    Timeout(Duration),
}

/// What takes requests: openraft, and what is asked before it.
pub(super) struct Taker<W: World, M: Machine> {
    pub(super) raft: Raft<W, M>,
    pub(super) machine: Arc<Mutex<M>>,
    pub(super) log: LogStore<W>,
    pub(super) on_event: OnEvent,
}

impl<T: Transport> Calls<T> {
    pub(super) fn new<C: Checks>(
        me: RaftId,
        transport: T,
        first: u64,
        install_patience: Duration,
        committed_before: Option<LogId>,
        checks: &C,
    ) -> Self {
        let state = State {
            next: first,
            waiting: BTreeMap::new(),
            serving: BTreeMap::new(),
            believed: Believed::default(),
            acknowledged: None,
        };
        Self(Arc::new(Inner {
            me,
            transport,
            state: Mutex::new(state),
            turns: Turns::new(None),
            installing: AtomicBool::new(false),
            install_patience,
            knows_leaders: checks.enforce(Check::KnownLeader),
            committed_before,
        }))
    }

    /// Says whom to believe from here on, beside the voters in the log.
    pub(super) fn believe(&self, believed: Believed) {
        lock(&self.0.state).believed = believed;
    }

    /// The link with a peer is gone, and with it the replies that were still to come. Who waits for one hears of it.
    pub(super) fn parted(&self, peer: RaftId) {
        let mut state = lock(&self.0.state);
        let (first, last) = ((peer, u64::MIN), (peer, u64::MAX));
        let numbers: Vec<_> = state.waiting.range(first..=last).map(|(key, _)| *key).collect();
        for key in numbers {
            state.waiting.remove(&key);
        }
    }

    /// Takes a message from a peer: a reply to whoever waits for it, a request to openraft.
    pub(super) fn receive<W: World, M: Machine>(
        &self,
        taker: &Taker<W, M>,
        from: RaftId,
        message: &[u8],
    ) -> Result<(), Refusal> {
        match codec::decode_frame(message).map_err(Refusal::Malformed)? {
            Frame::Reply(number, reply) => {
                let Some(waiting) = lock(&self.0.state).waiting.remove(&(from, number)) else {
                    // Nobody waits: it came after the time for it was over.
                    return Ok(());
                };
                let term = taker.raft.metrics().borrow_watched().current_term.max(waiting.term);
                check_reply(self.0.me, waiting.term, waiting.probes, &reply, Bounds::at(Some(term)))?;
                waiting.answer.send(reply).ok();
                Ok(())
            }
            Frame::Request(number, request) => {
                let Some(request) = self.admit(taker, from, request)? else {
                    let message = codec::encode_frame(&Frame::Reply(number, Reply::Conflict));
                    // A lost reply is a lost message; the peer asks again.
                    self.0.transport.send(from, Channel::Consensus, message.into()).ok();
                    return Ok(());
                };
                let installing = match &request {
                    Request::Snapshot(..) => Some(Installing::begin(self).ok_or(Refusal::Busy)?),
                    Request::Append { entries, .. } if !entries.is_empty() && self.is_installing() => {
                        return Err(Refusal::Busy);
                    }
                    Request::Append { .. }
                    | Request::Vote(_)
                    | Request::PreVote(_)
                    | Request::Transfer { .. } => None,
                };
                let serving = Serving::begin(self, from).ok_or(Refusal::Busy)?;
                let taker = taker.clone();
                drop(W::Runtime::spawn(async move {
                    let channel = channel(&request);
                    let answer = serving.calls.answer(&taker, request).await;
                    drop(installing);
                    match answer {
                        // A lost reply is a lost message; the peer asks again.
                        Ok(reply) => {
                            let message = codec::encode_frame(&Frame::Reply(number, reply));
                            serving.calls.0.transport.send(from, channel, message.into()).ok();
                        }
                        Err(refusal) => (taker.on_event)(Event::Refused { from, refusal }),
                    }
                }));
                Ok(())
            }
        }
    }

    fn is_installing(&self) -> bool {
        self.0.installing.load(Ordering::Relaxed)
    }

    /// Lets a request in if this peer may send it and its numbers are possible. None if it goes on from an entry that this
    /// node, which takes nothing but a log from its beginning, does not have.
    fn admit<W: World, M: Machine>(
        &self,
        taker: &Taker<W, M>,
        from: RaftId,
        mut request: Request,
    ) -> Result<Option<Request>, Refusal> {
        check_sender(self.0.me, from, &request)?;
        let metrics = taker.raft.metrics();
        let metrics = metrics.borrow_watched();
        let state = lock(&self.0.state);
        let known = Known {
            me: self.0.me,
            effective: metrics.membership_config.membership(),
            committed: metrics.committed_membership_config.membership(),
            believed: &state.believed,
        };
        match may_send(Office::of(&request), from, known) {
            Err(Refusal::NotMember) if !self.0.knows_leaders => {}
            judged => judged?,
        }
        check_transfer(&request, known)?;
        let is_fresh = metrics.current_term == 0 && metrics.last_log_index.is_none();
        check_numbers(&request, Bounds::at((!is_fresh).then_some(metrics.current_term)))?;
        if is_fresh && state.believed.holds_vote {
            match Empty::of(&request) {
                Empty::Takes => {}
                Empty::Lacks => return Ok(None),
                Empty::Refuses => return Err(Refusal::Busy),
            }
        }
        if let Request::Vote(ballot) | Request::PreVote(ballot) = &mut request
            && !known.believes(from)
        {
            // A leader hands over to a voter. Whoever is none cannot do without the leader's silence.
            ballot.transfer = false;
        }
        Ok(Some(request))
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
            let (term, probes) = (asked_term(&request), matches!(request, Request::PreVote(_)));
            state.waiting.insert((to, number), Waiting { answer: waiting, term, probes });
            number
        };
        // Also if this future is dropped half-way.
        let _forget = Forget { calls: self, key: (to, number) };
        let channel = channel(&request);
        let message = codec::encode_frame(&Frame::Request(number, request));
        self.0.transport.send(to, channel, message.into()).map_err(Unanswered::Link)?;
        match R::timeout(patience, reply).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(Unanswered::Link(LinkError::Closed(0))),
            Err(_) => Err(Unanswered::Timeout(patience)),
        }
    }
}

impl<T> Calls<T> {
    /// A peer has said that it has everything up to this entry, under this vote of this node's.
    fn acknowledged(&self, peer: RaftId, vote: Vote, upto: Option<LogId>) {
        let Some(upto) = upto else { return };
        let mut state = lock(&self.0.state);
        let (of, known) = state.acknowledged.get_or_insert_with(|| (vote, BTreeMap::new()));
        if *of != vote {
            *of = vote;
            known.clear();
        }
        let last = known.entry(peer).or_insert(upto);
        *last = upto.max(*last);
    }

    fn has_acknowledged(&self, peer: RaftId, vote: Vote, id: &LogId) -> bool {
        let state = lock(&self.0.state);
        let known = state.acknowledged.as_ref().filter(|(of, _)| *of == vote);
        known.and_then(|(_, known)| known.get(&peer)).is_some_and(|last| id.index <= last.index)
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

/// The term that a request names.
fn asked_term(request: &Request) -> u64 {
    let vote = match request {
        Request::Append { vote, .. } | Request::Snapshot(vote, ..) => vote,
        Request::Vote(ballot) | Request::PreVote(ballot) => &ballot.vote,
        Request::Transfer { from, .. } => from,
    };
    vote.leader_id.term
}

/// The verdict on a leader's request, once openraft follows it.
enum Verdict<T> {
    /// Another vote counts at this node. Nothing was judged.
    Unfollowed(Vote),
    /// As judged.
    Judged(Result<T, Refusal>),
}

impl<T: Transport> Calls<T> {
    /// What this node replies to a request.
    async fn answer<W: World, M: Machine>(
        &self,
        taker: &Taker<W, M>,
        request: Request,
    ) -> Result<Reply, Refusal> {
        let raft = &taker.raft;
        Ok(match request {
            Request::Append { vote, prev, entries, commit } => {
                return self.append(taker, vote, prev, entries, commit).await;
            }
            Request::Snapshot(vote, meta, snapshot) => {
                return self.install(taker, vote, meta, snapshot).await;
            }
            Request::Vote(ballot) => raft.vote(ballot.into()).await.map_or(Reply::Failed, voted),
            Request::PreVote(ballot) => raft.pre_vote(ballot.into()).await.map_or(Reply::Failed, voted),
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
        })
    }

    /// Has openraft take entries that contradict nothing, at their turn.
    ///
    /// A message without entries does not wait for its turn: while another request is in work, it says only who leads,
    /// which changes nothing that a judgement builds on but the vote, and openraft compares that once more.
    async fn append<W: World, M: Machine>(
        &self,
        taker: &Taker<W, M>,
        vote: Vote,
        prev: Option<LogId>,
        entries: Vec<Entry>,
        commit: Option<LogId>,
    ) -> Result<Reply, Refusal> {
        one_leader(taker.log.vote().as_ref(), &vote)?;
        let turn = if entries.is_empty() { self.0.turns.try_lock() } else { Some(self.0.turns.lock().await) };
        let Some(mut turn) = turn else { return Ok(append(&taker.raft, vote, None, Vec::new(), None).await) };
        let taken = turn.filter(|(of, _)| *of == vote).map(|(_, taken)| taken);
        let (entries, commit) =
            match follow(&taker.raft, vote, taken, (prev, entries, commit), move |standing, said| {
                judge_append(standing, vote.leader_id.term, said.0.as_ref(), &said.1, said.2.as_ref())
            })
            .await
            {
                Ok(((_, entries, _), commit)) => (entries, commit?),
                Err(reply) => return Ok(reply),
            };
        let upto = entries.last().map(|entry| entry.log_id).or(prev);
        let reply = append(&taker.raft, vote, prev, entries, commit).await;
        if let (Reply::Appended, Some(upto)) = (reply, upto)
            && taken.is_none_or(|taken| taken.index < upto.index)
        {
            *turn = Some((vote, upto));
        }
        Ok(reply)
    }

    /// Has openraft install a snapshot that contradicts nothing and that the machine takes, at its turn.
    ///
    /// From the judgement to the end, nothing else from a peer changes the log or what of it is committed, and this node
    /// follows the sender: so the machine is asked about the very state that the snapshot replaces.
    async fn install<W: World, M: Machine>(
        &self,
        taker: &Taker<W, M>,
        vote: Vote,
        meta: SnapshotMeta,
        snapshot: Bytes,
    ) -> Result<Reply, Refusal> {
        one_leader(taker.log.vote().as_ref(), &vote)?;
        let mut turn = self.0.turns.lock().await;
        if taker.log.vote().is_none() {
            // Whoever follows nobody yet follows nobody for what it does not take.
            lock(&taker.machine).examine(&snapshot).map_err(|_| Refusal::Snapshot)?;
        }
        let taken = turn.filter(|(of, _)| *of == vote).map(|(_, taken)| taken);
        let (meta, verdict) = match follow(&taker.raft, vote, taken, meta, move |standing, meta| {
            judge_snapshot(standing, &vote, meta).map(|installation| (installation, standing.committed))
        })
        .await
        {
            Ok(judged) => judged,
            Err(reply) => return Ok(reply),
        };
        let (installation, committed) = verdict?;
        if installation == Installation::Known {
            return Ok(Reply::SnapshotInstalled(vote));
        }
        if !applied(&taker.raft, committed, self.0.install_patience).await {
            return Ok(Reply::Failed);
        }
        lock(&taker.machine).examine(&snapshot).map_err(|_| Refusal::Snapshot)?;
        if installation == Installation::CutAndReplace {
            let next = committed.map_or(0, |committed| committed.index.saturating_add(1));
            let absent = LogId::new_term_index(vote.leader_id.term, next);
            if append(&taker.raft, vote, Some(absent), Vec::new(), None).await != Reply::Conflict {
                return Ok(Reply::Failed);
            }
        }
        let last = meta.last_log_id;
        let Ok(installed) = taker.raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await else {
            return Ok(Reply::Failed);
        };
        if installed.vote == vote {
            *turn = last.map(|last| (vote, last));
        }
        Ok(Reply::SnapshotInstalled(installed.vote))
    }
}

/// Has openraft follow the sender of a request if its vote counts, and judges the request by what this node has then. The
/// error is the reply to a sender whose vote does not count.
///
/// Whoever follows nobody yet follows nobody for what it does not take: it may be about to found a group, and could not with
/// a vote of its own.
async fn follow<W: World, M: Machine, Said: Send + 'static, T: Send + 'static>(
    raft: &Raft<W, M>,
    vote: Vote,
    taken: Option<LogId>,
    said: Said,
    judge: impl Fn(&Standing<'_>, &Said) -> Result<T, Refusal> + Copy + Send + 'static,
) -> Result<(Said, Result<T, Refusal>), Reply> {
    let mut said = said;
    for first in [true, false] {
        let look = move |state: &RaftState<Types<W::Runtime>>| {
            let followed = *state.vote_ref();
            let is_first = followed.leader_id.term == 0;
            let verdict = if followed == vote || is_first {
                let standing = Standing {
                    committed: state.local_committed().copied(),
                    last: state.log_ids.last().copied(),
                    taken,
                    entry: &|index| state.log_ids.get(index),
                    settled: state.membership_state.committed(),
                    effective: state.membership_state.effective(),
                };
                match judge(&standing, &said) {
                    Ok(_) if followed != vote => Verdict::Unfollowed(followed),
                    judged => Verdict::Judged(judged),
                }
            } else {
                Verdict::Unfollowed(followed)
            };
            (said, verdict)
        };
        let (kept, verdict) = raft.with_raft_state(look).await.map_err(|_| Reply::Failed)?;
        said = kept;
        match verdict {
            Verdict::Judged(judged) => return Ok((said, judged)),
            Verdict::Unfollowed(_) if first => {
                let reply = append(raft, vote, None, Vec::new(), None).await;
                if reply != Reply::Appended {
                    return Err(reply);
                }
            }
            Verdict::Unfollowed(other) => return Err(Reply::HigherVote(other)),
        }
    }
    unreachable!("the second look has ended it")
}

async fn append<W: World, M: Machine>(
    raft: &Raft<W, M>,
    vote: Vote,
    prev: Option<LogId>,
    entries: Vec<Entry>,
    commit: Option<LogId>,
) -> Reply {
    let request = AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit: commit };
    raft.append_entries(request).await.map_or(Reply::Failed, |response| match response {
        AppendEntriesResponse::Success => Reply::Appended,
        AppendEntriesResponse::PartialSuccess(last) => Reply::AppendedUpTo(last),
        AppendEntriesResponse::Conflict => Reply::Conflict,
        AppendEntriesResponse::HigherVote(vote) => Reply::HigherVote(vote),
    })
}

/// Waits until the machine has everything up to an entry, but not for ever.
async fn applied<W: World, M: Machine>(raft: &Raft<W, M>, upto: Option<LogId>, patience: Duration) -> bool {
    let mut metrics = raft.metrics();
    let wait = async move {
        while metrics.borrow_and_update().last_applied < upto {
            if metrics.changed().await.is_err() {
                return false;
            }
        }
        true
    };
    W::Runtime::timeout(patience, wait).await.unwrap_or(false)
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
        self.told(self.calls.call::<R>(self.to.0, request, patience).await, action)
    }

    /// What openraft is told of an answer.
    fn told<R: AsyncRuntime>(
        &self,
        answer: Result<Reply, Unanswered>,
        action: RPCTypes,
    ) -> Result<Reply, RPCError<Types<R>>> {
        match answer {
            // To openraft a node that cannot answer is one that cannot be reached: it tries again later.
            Ok(Reply::Failed) => {
                Err(RPCError::Unreachable(Unreachable::from_string("the node cannot answer")))
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
        let commit = commit.max(self.calls.0.committed_before);
        let asked = entries.len();
        entries.truncate(self.pace.fits(entries.iter().map(len)));
        let ids: Vec<LogId> = entries.iter().map(|entry| entry.log_id).collect();
        let (bytes, is_heartbeat) = (entries.iter().map(len).sum(), entries.is_empty());
        let usual = option.soft_ttl();
        let patience = if is_heartbeat { usual } else { self.pace.patience(usual) };
        let begun = R::Instant::now();
        let request = Request::Append { vote, prev, entries, commit };
        let answer = self.calls.call::<R>(self.to.0, request, patience).await;
        if !is_heartbeat {
            match &answer {
                Ok(Reply::Failed) => {}
                Ok(_) => self.pace.arrived(bytes, begun.elapsed(), usual),
                Err(Unanswered::Timeout(_)) => self.pace.late(),
                // Whoever went may come back by another path.
                Err(Unanswered::Link(
                    LinkError::Closed(_) | LinkError::Unreachable | LinkError::Violation(_),
                )) => self.pace.parted(),
                // The link is there, and was not asked to carry it.
                Err(Unanswered::Link(LinkError::Full | LinkError::TooLarge)) => {}
            }
        }
        let reply = self.told(answer, RPCTypes::AppendEntries)?;
        match reply {
            Reply::Appended => self.calls.acknowledged(self.to.0, vote, ids.last().copied().or(prev)),
            Reply::AppendedUpTo(last) if last.is_some_and(|last| ids.contains(&last)) => {
                self.calls.acknowledged(self.to.0, vote, last);
            }
            _ => {}
        }
        match reply {
            // The rest is asked for again.
            Reply::Appended if ids.len() < asked => {
                Ok(AppendEntriesResponse::PartialSuccess(ids.last().copied()))
            }
            Reply::Appended => Ok(AppendEntriesResponse::Success),
            Reply::AppendedUpTo(last) if last == prev || last.is_some_and(|last| ids.contains(&last)) => {
                Ok(AppendEntriesResponse::PartialSuccess(last))
            }
            // Nothing conflicts with the start of the log, nor with what was acknowledged; openraft relies on that.
            Reply::Conflict
                if prev.is_some_and(|prev| !self.calls.has_acknowledged(self.to.0, vote, &prev)) =>
            {
                Ok(AppendEntriesResponse::Conflict)
            }
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
        let last = snapshot.meta.last_log_id;
        let request = Request::Snapshot(vote, snapshot.meta, snapshot.snapshot);
        let call = pin!(self.call(request, RPCTypes::InstallSnapshot, option.soft_ttl()));
        match R::select2(pin!(cancel), call).await {
            Select2::First(closed) => Err(StreamingError::Closed(closed)),
            Select2::Second(Ok(Reply::SnapshotInstalled(theirs))) => {
                if theirs.leader_id.term <= vote.leader_id.term {
                    self.calls.acknowledged(self.to.0, vote, last);
                }
                Ok(SnapshotResponse::new(theirs))
            }
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

/// Keeps other snapshots, and entries, out while a snapshot of a peer is in work.
struct Installing<T>(Calls<T>);

impl<T> Installing<T> {
    fn begin(calls: &Calls<T>) -> Option<Self> {
        (!calls.0.installing.swap(true, Ordering::Relaxed)).then(|| Self(calls.clone()))
    }
}

impl<T> Drop for Installing<T> {
    fn drop(&mut self) {
        self.0.0.installing.store(false, Ordering::Relaxed);
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

impl<W: World, M: Machine> Clone for Taker<W, M> {
    fn clone(&self) -> Self {
        Self {
            raft: self.raft.clone(),
            machine: Arc::clone(&self.machine),
            log: self.log.clone(),
            on_event: Arc::clone(&self.on_event),
        }
    }
}
