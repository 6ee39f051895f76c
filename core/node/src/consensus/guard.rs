//! What is taken from peers, and from whom, before openraft sees it.
//!
//! openraft trusts its peers: it asserts what an honest leader never breaks, and stops. A member of the group may be
//! dishonest, so everything that a message can break is refused here. Three questions are asked, each by a pure function:
//! who may send this (`may_send`), are its numbers possible (`check_numbers`, `check_reply`), and does it fit what
//! this node has committed (`judge_append`, `judge_snapshot`). The answer to the last one holds only as long as nothing
//! else changes the log, which is why `network` lets one such request in at a time.
//!
//! What a peer could reach in openraft 0.10.0-alpha.37, and which rule is in the way. "Debug" means that only a build with
//! debug assertions stops; what would happen otherwise is worse in all of these.
//!
//! | place | what it takes for granted | rule |
//! |---|---|---|
//! | `FollowingHandler::install_full_snapshot`, assert | a snapshot ends at or below the term of its leader's vote | `check_numbers` |
//! | the same, assert | it ends above the index of what is committed | `judge_snapshot` |
//! | `MembershipState::append`, `install_membership_snapshot`, debug | the membership of a snapshot is not newer than its end, and not older than the committed one; one entry has one membership | `check_numbers`, `judge_snapshot` |
//! | `LogIdList::purge`, debug | a snapshot that ends above the log ends there in a later term | `judge_snapshot`: the end of the log is cut before |
//! | `LogStateReader::has_log_id`, debug | whatever stands at or below what is committed is what is committed | `judge_append` |
//! | `FollowingHandler::append_entries`, `do_append_entries`, `LogIdList::append`, debug | entries follow each other and what is before them, in terms that do not fall | `codec` |
//! | `MembershipState::truncate`, debug | all memberships of a log but the last one are committed | `judge_append` |
//! | `RaftCore::apply_to_state_machine`, `sm::Worker::apply`, unwrap and assert | what a leader calls committed is in the log | `judge_append` replaces it by an entry that is |
//! | `RaftState::accept_log_io`, debug | a term has one leader, also across a restart of this node | `one_leader` |
//! | `IOProgress::submit`, debug | a leader's log does not go back, and a snapshot ends above what was taken from its leader | `judge_append`, `judge_snapshot`: what it has sent before is remembered |
//! | `Leader::new`, debug | no entry is of a later term than the vote of who sent it | `codec`, `check_numbers` |
//! | `VoteHandler::become_leader`, `Engine::establish_leader`, debug | nobody answers with a vote for this node that it never asked for | `check_reply` |
//! | `Updater::update_conflicting`, debug | a follower does not lose what it has acknowledged | `network` remembers what each acknowledged |
//! | `AppendEntriesResponse`, unwrap; `Inflight::ack`, debug | answers are about what was asked | `network` |
//! | `Engine::do_elect`, `become_following`, debug | who is asked to take over has a vote | `check_transfer` |
//! | `RaftTerm::next`, index arithmetic, overflow | counters do not come near their end | `check_numbers` |
//! | `RaftStateMachine::install_snapshot`, an error ends openraft | the machine takes what is installed | `network` asks [`Machine::examine`](super::Machine::examine) when everything before it is applied |

use std::collections::BTreeSet;
use std::fmt;

use zipnet_core::id::{PeerId, RaftId};

use super::codec::{Malformed, Reply, Request};
use super::types::{Entry, LogId, Membership, NodeId, Payload, SnapshotMeta, StoredMembership, Vote, term};

/// The highest term and index that a peer may name: 2^48 entries would take a million years.
pub const COUNTER_MAX: u64 = 1 << 48;
/// A peer's term is above this node's by so much at most: an election a second for twelve days.
pub const TERM_AHEAD_MAX: u64 = 1 << 20;

/// Why a message from a peer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are no frame.
    Malformed(Malformed),
    /// The peer speaks for another node, or as a leader without being one.
    Impersonation,
    /// The request is meant for another node, or for one that has a vote.
    Misdirected,
    /// The peer is no voter that this node knows, or was pointed to, or heard of from one of these.
    NotMember,
    /// The peer was retired.
    Retired,
    /// A number that no honest peer names: too far ahead, or out of the order that it has to have.
    Numbers,
    /// It differs from what is committed, or from what the same leader has said before.
    Contradiction,
    /// The machine does not take the snapshot.
    Snapshot,
    /// The peer asks for too much at once. Honest ones repeat it later.
    Busy,
}

impl Refusal {
    /// Every reason that can be named without saying what is wrong with bytes, in declaration order.
    pub const ALL: [Self; 9] = [
        Self::Malformed(Malformed::Syntax),
        Self::Impersonation,
        Self::Misdirected,
        Self::NotMember,
        Self::Retired,
        Self::Numbers,
        Self::Contradiction,
        Self::Snapshot,
        Self::Busy,
    ];

    /// The stable name, as metrics spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Impersonation => "impersonation",
            Self::Misdirected => "misdirected",
            Self::NotMember => "not-member",
            Self::Retired => "retired",
            Self::Numbers => "numbers",
            Self::Contradiction => "contradiction",
            Self::Snapshot => "snapshot",
            Self::Busy => "busy",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(reason) => return reason.fmt(f),
            Self::Impersonation => "accept the message: its sender speaks for another node",
            Self::Misdirected => "accept the message: it is meant for another node",
            Self::NotMember => "accept the message: its sender is no voter that this node knows",
            Self::Retired => "accept the message: its sender was retired",
            Self::Numbers => "accept the message: its numbers are impossible",
            Self::Contradiction => "accept the message: it contradicts what is committed",
            Self::Snapshot => "accept the snapshot: the machine does not take it",
            Self::Busy => "accept the message: too many of this sender are waiting",
        })
    }
}

impl std::error::Error for Refusal {}

/// Whom this node believes beside the voters in its own log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Believed {
    /// Servers that its operator pointed it to.
    pub pointed: BTreeSet<RaftId>,
    /// Voters that a linked voter, or a linked server of `pointed`, has named.
    pub named: BTreeSet<RaftId>,
    /// Identities that the committee has barred for good.
    pub retired: BTreeSet<PeerId>,
    /// Whether this node, as long as it has neither given a vote nor has an entry, takes nothing but a log: it is about to
    /// make the first entry itself, and could not do so once it has followed anybody.
    pub holds_vote: bool,
}

/// What the sender of a request must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Office {
    /// It leads: entries, snapshots, and the wish to hand over.
    Leader,
    /// It stands for election.
    Candidate,
}

impl Office {
    /// What the sender of this request must be.
    pub const fn of(request: &Request) -> Self {
        match request {
            Request::Append { .. } | Request::Snapshot(..) | Request::Transfer { .. } => Self::Leader,
            Request::Vote(_) | Request::PreVote(_) => Self::Candidate,
        }
    }
}

/// Whose word counts at this node.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// This node.
    pub me: RaftId,
    /// The last membership in its log.
    pub effective: &'a Membership,
    /// The last one that is committed. Differs while a change is under way.
    pub committed: &'a Membership,
    /// Whom it believes beside these.
    pub believed: &'a Believed,
}

impl Known<'_> {
    /// Whether this is a voter of the membership, or was one until the change that is under way.
    pub fn is_voter(&self, id: RaftId) -> bool {
        [self.effective, self.committed].iter().any(|members| members.voter_ids().any(|voter| voter.0 == id))
    }

    /// Whether this node takes somebody's word for who leads.
    pub fn believes(&self, id: RaftId) -> bool {
        self.is_voter(id) || self.believed.pointed.contains(&id) || self.believed.named.contains(&id)
    }

    fn is_learner(&self, id: RaftId) -> bool {
        [self.effective, self.committed].iter().any(|members| members.get_node(&NodeId(id)).is_some())
    }
}

/// Whether a peer may send such a request at all.
///
/// Learners may stand for election because a promotion may be in the log of everybody but this node.
///
/// # Errors
/// Why not.
pub fn may_send(office: Office, from: RaftId, known: Known<'_>) -> Result<(), Refusal> {
    if from.peer == known.me.peer && from.store == known.me.store {
        return Err(Refusal::Impersonation);
    }
    if known.believed.retired.contains(&from.peer) {
        return Err(Refusal::Retired);
    }
    let may = known.believes(from)
        || match office {
            Office::Leader => false,
            Office::Candidate => known.is_learner(from),
        };
    if may { Ok(()) } else { Err(Refusal::NotMember) }
}

/// A request counts only from whom it speaks of, and at whom it is meant for.
pub(super) fn check_sender(me: RaftId, from: RaftId, request: &Request) -> Result<(), Refusal> {
    let (vote, leads) = match request {
        Request::Append { vote, .. } | Request::Snapshot(vote, ..) => (vote, true),
        Request::Vote(ballot) | Request::PreVote(ballot) => (&ballot.vote, false),
        Request::Transfer { to, .. } if *to != me => return Err(Refusal::Misdirected),
        Request::Transfer { from, .. } => (from, true),
    };
    if vote.leader_id.voted_for.0 != from || vote.committed != leads || from == me {
        return Err(Refusal::Impersonation);
    }
    Ok(())
}

/// What a node that has nothing, and takes nothing but a log, does with a request. Whatever else it took would only leave a
/// vote behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Empty {
    /// It is the log from its beginning, and with it who is in the group.
    Takes,
    /// It goes on from an entry: the sender has to begin further in front.
    Lacks,
    /// It brings no log.
    Refuses,
}

impl Empty {
    /// What becomes of this request.
    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::Append { prev: Some(_), .. } => Self::Lacks,
            Request::Append { prev: None, entries, .. } => {
                match entries.first().map(|entry| &entry.payload) {
                    Some(Payload::Membership(_)) => Self::Takes,
                    Some(Payload::Normal(_) | Payload::Blank) | None => Self::Refuses,
                }
            }
            Request::Snapshot(..) => Self::Takes,
            Request::Vote(_) | Request::PreVote(_) | Request::Transfer { .. } => Self::Refuses,
        }
    }
}

/// Only a voter can be asked to take over.
pub(super) fn check_transfer(request: &Request, known: Known<'_>) -> Result<(), Refusal> {
    match request {
        Request::Transfer { .. } if !known.is_voter(known.me) => Err(Refusal::Misdirected),
        Request::Append { .. }
        | Request::Vote(_)
        | Request::PreVote(_)
        | Request::Snapshot(..)
        | Request::Transfer { .. } => Ok(()),
    }
}

/// How far a peer's terms may go, by the highest term that this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    term_max: u64,
}

impl Bounds {
    /// For a node at this term. One that has never heard of any, `None`, has nothing to compare with.
    #[must_use]
    pub fn at(term: Option<u64>) -> Self {
        Self {
            term_max: term.map_or(COUNTER_MAX, |term| term.saturating_add(TERM_AHEAD_MAX).min(COUNTER_MAX)),
        }
    }

    fn vote(self, vote: &Vote) -> Result<(), Refusal> {
        if vote.leader_id.term <= self.term_max { Ok(()) } else { Err(Refusal::Numbers) }
    }

    /// An entry's place, which is never of a later term than the vote of whoever names it.
    fn place(self, id: Option<&LogId>, vote: &Vote) -> Result<(), Refusal> {
        let possible = id.is_none_or(|id| id.index <= COUNTER_MAX && term(id) <= vote.leader_id.term);
        if possible { Ok(()) } else { Err(Refusal::Numbers) }
    }
}

/// Whether the numbers of a request are possible, whatever this node has in its log.
///
/// # Errors
/// That they are not.
pub fn check_numbers(request: &Request, bounds: Bounds) -> Result<(), Refusal> {
    match request {
        Request::Append { vote, prev, entries, commit } => {
            bounds.vote(vote)?;
            bounds.place(prev.as_ref(), vote)?;
            bounds.place(commit.as_ref(), vote)?;
            entries.iter().try_for_each(|entry| bounds.place(Some(&entry.log_id), vote))
        }
        Request::Snapshot(vote, meta, _) => {
            bounds.vote(vote)?;
            bounds.place(meta.last_log_id.as_ref(), vote)?;
            let (Some(last), Some(at)) = (&meta.last_log_id, meta.last_membership.log_id()) else {
                return Err(Refusal::Numbers);
            };
            let has_voters = meta.last_membership.membership().voter_ids().next().is_some();
            let possible = at.index <= last.index && term(at) <= term(last) && has_voters;
            if possible { Ok(()) } else { Err(Refusal::Numbers) }
        }
        Request::Vote(ballot) | Request::PreVote(ballot) => {
            bounds.vote(&ballot.vote)?;
            bounds.place(ballot.last.as_ref(), &ballot.vote)
        }
        Request::Transfer { from, last, .. } => {
            bounds.vote(from)?;
            bounds.place(last.as_ref(), from)
        }
    }
}

/// Whether a reply to a request of this term is possible. `probes` for a pre-vote, which names a term that does not exist yet.
///
/// A vote for this node in a term that it never asked for would make openraft lead in it.
///
/// # Errors
/// That it is not.
pub fn check_reply(
    me: RaftId,
    asked: u64,
    probes: bool,
    reply: &Reply,
    bounds: Bounds,
) -> Result<(), Refusal> {
    let check = |vote: &Vote| {
        bounds.vote(vote)?;
        let mine = vote.leader_id.voted_for.0 == me;
        let asked_for = vote.leader_id.term < asked || (vote.leader_id.term == asked && !probes);
        if mine && !asked_for { Err(Refusal::Impersonation) } else { Ok(()) }
    };
    let place = |id: &Option<LogId>| {
        let possible = id.as_ref().is_none_or(|id| id.index <= COUNTER_MAX && term(id) <= bounds.term_max);
        if possible { Ok(()) } else { Err(Refusal::Numbers) }
    };
    match reply {
        Reply::HigherVote(vote) | Reply::SnapshotInstalled(vote) => check(vote),
        Reply::Voted { vote, last, .. } => check(vote).and_then(|()| place(last)),
        Reply::VoteChanged(expected, actual) => bounds.vote(expected).and_then(|()| bounds.vote(actual)),
        Reply::LogBehind(expected, actual) => place(expected).and_then(|()| place(actual)),
        Reply::AppendedUpTo(last) => place(last),
        Reply::Appended | Reply::Conflict | Reply::Transferring | Reply::Failed => Ok(()),
    }
}

/// A term has one leader. `stored` is the vote on disk, which remembers a leader across restarts.
pub(super) fn one_leader(stored: Option<&Vote>, vote: &Vote) -> Result<(), Refusal> {
    let other = stored.is_some_and(|stored| {
        stored.committed
            && stored.leader_id.term == vote.leader_id.term
            && stored.leader_id.voted_for != vote.leader_id.voted_for
    });
    if other { Err(Refusal::Contradiction) } else { Ok(()) }
}

/// What this node has, as far as a leader's message can contradict it.
pub(super) struct Standing<'a> {
    /// The last entry that is known to be committed.
    pub(super) committed: Option<LogId>,
    /// The last entry of the log.
    pub(super) last: Option<LogId>,
    /// The last entry that was taken from the leader in question, in its present term.
    pub(super) taken: Option<LogId>,
    /// The entry at an index, unless it is purged or not there.
    pub(super) entry: &'a dyn Fn(u64) -> Option<LogId>,
    /// The membership before the last one; committed.
    pub(super) settled: &'a StoredMembership,
    /// The last membership in the log.
    pub(super) effective: &'a StoredMembership,
}

impl Standing<'_> {
    fn is_committed(&self, index: u64) -> bool {
        self.committed.is_some_and(|committed| index <= committed.index)
    }

    /// Whether an entry contradicts what cannot change any more: what is committed, and what this leader has sent.
    fn check(&self, id: &LogId) -> Result<(), Refusal> {
        let firm = self.is_committed(id.index) || self.taken.is_some_and(|taken| id.index <= taken.index);
        let contradicts = firm
            && match (self.entry)(id.index) {
                Some(known) => known != *id,
                // Purged: all that remains is that terms do not fall.
                None => self.committed.is_none_or(|committed| term(id) > term(&committed)),
            };
        if contradicts { Err(Refusal::Contradiction) } else { Ok(()) }
    }

    fn has(&self, id: &LogId) -> bool {
        self.is_committed(id.index) || (self.entry)(id.index) == Some(*id)
    }
}

/// Whether entries of the leader of this term fit what this node has. Says what of the leader's word about commitment to hand on: an entry that this
/// node has for sure once the request is through, or nothing.
pub(super) fn judge_append(
    standing: &Standing<'_>,
    leads: u64,
    prev: Option<&LogId>,
    entries: &[Entry],
    commit: Option<&LogId>,
) -> Result<Option<LogId>, Refusal> {
    if let Some(prev) = prev {
        standing.check(prev)?;
        if !standing.has(prev) {
            // It will be answered with a conflict, and nothing is taken.
            return Ok(None);
        }
    }
    entries.iter().try_for_each(|entry| standing.check(&entry.log_id))?;
    let mut commit = judge_commit(standing, prev, entries, commit)?;

    // A membership follows only one that is committed. Else the node could not go back to the one before, should
    // another leader replace both.
    let committed = commit.max(standing.committed);
    let since = entries.iter().position(|entry| !standing.has(&entry.log_id)).unwrap_or(entries.len());
    let (_, added) = entries.split_at(since);
    let Some(first) = added.first() else { return Ok(commit) };
    let is_replaced = |id: Option<LogId>| id.is_some_and(|id| id.index >= first.log_id.index);
    let mut before = *standing.effective.log_id();
    if is_replaced(before) {
        before = *standing.settled.log_id();
        if is_replaced(before) {
            return Err(Refusal::Contradiction);
        }
    }
    for entry in added {
        if matches!(entry.payload, Payload::Membership(_)) {
            if before > committed.max(commit) {
                // Who has made both knows that the first is committed, and says so. Who leads after that one may have been
                // started again meanwhile, and can have nothing of its own committed before both are with a majority.
                if term(&entry.log_id) >= leads {
                    return Err(Refusal::Contradiction);
                }
                commit = before;
            }
            before = Some(entry.log_id);
        }
    }
    Ok(commit)
}

fn judge_commit(
    standing: &Standing<'_>,
    prev: Option<&LogId>,
    entries: &[Entry],
    commit: Option<&LogId>,
) -> Result<Option<LogId>, Refusal> {
    let sent = entries.last().map(|entry| &entry.log_id).or(prev);
    let upto = [sent.copied(), standing.taken].into_iter().flatten().max_by_key(|id| id.index);
    let (Some(commit), Some(upto)) = (commit, upto) else { return Ok(None) };
    if commit.index > upto.index {
        return if term(commit) < term(&upto) { Err(Refusal::Contradiction) } else { Ok(Some(upto)) };
    }
    if standing.is_committed(commit.index) {
        return Ok(None);
    }
    let at = entries.iter().map(|entry| entry.log_id).find(|id| id.index == commit.index);
    if at.or_else(|| (standing.entry)(commit.index)) == Some(*commit) {
        Ok(Some(*commit))
    } else {
        Err(Refusal::Contradiction)
    }
}

/// What to do with a snapshot that contradicts nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Installation {
    /// This node has the entry that it ends with, so it has all that it covers.
    Known,
    /// Install it.
    Replace,
    /// Cut off what is not committed, then install it: the end of the log is of a later term, and ends earlier.
    CutAndReplace,
}

/// Whether a snapshot fits what this node has.
pub(super) fn judge_snapshot(
    standing: &Standing<'_>,
    vote: &Vote,
    meta: &SnapshotMeta,
) -> Result<Installation, Refusal> {
    let (Some(last), Some(at)) = (&meta.last_log_id, meta.last_membership.log_id()) else {
        return Err(Refusal::Numbers);
    };
    standing.check(last)?;
    if standing.has(last) {
        return Ok(Installation::Known);
    }
    if standing.committed.is_some_and(|committed| term(last) < term(&committed)) {
        return Err(Refusal::Contradiction);
    }
    // What this leader has sent comes before the snapshot in its own log.
    if standing.taken.is_some_and(|taken| term(last) < term(&taken)) {
        return Err(Refusal::Contradiction);
    }
    standing.check(at)?;
    for known in [standing.settled, standing.effective] {
        if known.log_id().as_ref() == Some(at) && known.membership() != meta.last_membership.membership() {
            return Err(Refusal::Contradiction);
        }
    }
    if standing.settled.log_id().as_ref() > Some(at) {
        return Err(Refusal::Contradiction);
    }
    if !standing.last.is_some_and(|own| own.index < last.index && own > *last) {
        return Ok(Installation::Replace);
    }
    // The cut is asked for by naming an entry of the leader's own term that this node has not.
    let next = standing.committed.map_or(0, |committed| committed.index.saturating_add(1));
    let own = (standing.entry)(next).is_some_and(|id| term(&id) == vote.leader_id.term);
    if own { Err(Refusal::Contradiction) } else { Ok(Installation::CutAndReplace) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::entry::RaftEntry;
    use zipnet_core::id::StoreId;

    use super::super::codec::Ballot;
    use super::*;

    fn id(number: u8) -> RaftId {
        RaftId { peer: PeerId([number; 32]), store: StoreId(1) }
    }

    fn members(configs: &[&[u8]], learners: &[u8]) -> Membership {
        let nodes =
            |numbers: &[u8]| numbers.iter().map(|number| NodeId(id(*number))).collect::<BTreeSet<_>>();
        Membership::new_with_defaults(configs.iter().map(|config| nodes(config)).collect(), nodes(learners))
    }

    #[test]
    fn who_may_send_what() {
        // 1 is this node; 2 and 3 have votes; 4 gets one and 3 loses its own in a change under way; 5 and 6 learn.
        let (committed, effective) = (members(&[&[1, 2, 3]], &[5]), members(&[&[1, 2, 3], &[1, 2, 4]], &[6]));
        let believed = Believed {
            pointed: [id(7), id(9)].into(),
            named: [id(8), id(10)].into(),
            retired: [PeerId([9; 32]), PeerId([10; 32]), PeerId([11; 32])].into(),
            holds_vote: false,
        };
        let known = Known { me: id(1), effective: &effective, committed: &committed, believed: &believed };
        let old_disk = RaftId { store: StoreId(2), ..id(2) };
        let table = [
            (id(1), Err(Refusal::Impersonation), Err(Refusal::Impersonation)),
            (id(2), Ok(()), Ok(())),
            (id(3), Ok(()), Ok(())),
            (id(4), Ok(()), Ok(())),
            (id(5), Err(Refusal::NotMember), Ok(())),
            (id(6), Err(Refusal::NotMember), Ok(())),
            (id(7), Ok(()), Ok(())),
            (id(8), Ok(()), Ok(())),
            (id(9), Err(Refusal::Retired), Err(Refusal::Retired)),
            (id(10), Err(Refusal::Retired), Err(Refusal::Retired)),
            (id(11), Err(Refusal::Retired), Err(Refusal::Retired)),
            (id(12), Err(Refusal::NotMember), Err(Refusal::NotMember)),
            (old_disk, Err(Refusal::NotMember), Err(Refusal::NotMember)),
        ];
        for (from, leads, stands) in table {
            assert_eq!(may_send(Office::Leader, from, known), leads, "{from}");
            assert_eq!(may_send(Office::Candidate, from, known), stands, "{from}");
        }
        let none = Membership::default();
        let nobody = Believed::default();
        let fresh = Known { me: id(1), effective: &none, committed: &none, believed: &nobody };
        assert_eq!(may_send(Office::Leader, id(2), fresh), Err(Refusal::NotMember));
        assert_eq!(may_send(Office::Candidate, id(2), fresh), Err(Refusal::NotMember));
        let transfer =
            Request::Transfer { from: Vote::new_committed(1, NodeId(id(2))), to: id(1), last: None };
        assert_eq!(check_transfer(&transfer, known), Ok(()));
        assert_eq!(check_transfer(&transfer, fresh), Err(Refusal::Misdirected));
    }

    #[test]
    fn every_request_has_an_office() {
        let vote = Vote::new_committed(1, NodeId(id(2)));
        let ballot = Ballot { vote, last: None, transfer: false };
        let meta = SnapshotMeta::default();
        for request in [
            Request::Append { vote, prev: None, entries: vec![], commit: None },
            Request::Snapshot(vote, meta, Bytes::new()),
            Request::Transfer { from: vote, to: id(1), last: None },
        ] {
            assert_eq!(Office::of(&request), Office::Leader, "{request:?}");
        }
        for request in [Request::Vote(ballot), Request::PreVote(ballot)] {
            assert_eq!(Office::of(&request), Office::Candidate, "{request:?}");
        }
    }

    #[test]
    fn terms_are_bounded_by_what_this_node_knows() {
        let stands = |term| {
            Request::Vote(Ballot { vote: Vote::new(term, NodeId(id(2))), last: None, transfer: false })
        };
        let table = [
            (Some(5), 5 + TERM_AHEAD_MAX, Ok(())),
            (Some(5), 6 + TERM_AHEAD_MAX, Err(Refusal::Numbers)),
            (Some(0), TERM_AHEAD_MAX, Ok(())),
            (Some(COUNTER_MAX), COUNTER_MAX, Ok(())),
            (Some(COUNTER_MAX), COUNTER_MAX + 1, Err(Refusal::Numbers)),
            (None, COUNTER_MAX, Ok(())),
            (None, COUNTER_MAX + 1, Err(Refusal::Numbers)),
        ];
        for (own, term, expected) in table {
            assert_eq!(check_numbers(&stands(term), Bounds::at(own)), expected, "{own:?} {term}");
        }
    }

    #[test]
    fn replies_do_not_speak_for_this_node() {
        let (me, bounds) = (id(1), Bounds::at(Some(5)));
        let own = |term| Vote::new(term, NodeId(me));
        let other = |term| Vote::new_committed(term, NodeId(id(2)));
        let voted = |vote| Reply::Voted { vote, granted: true, last: None };
        let table = [
            (voted(own(5)), false, Ok(())),
            (voted(own(5)), true, Err(Refusal::Impersonation)),
            (voted(own(4)), true, Ok(())),
            (voted(own(6)), false, Err(Refusal::Impersonation)),
            (Reply::HigherVote(own(6)), false, Err(Refusal::Impersonation)),
            (Reply::HigherVote(other(6)), false, Ok(())),
            (Reply::HigherVote(other(6 + TERM_AHEAD_MAX)), false, Err(Refusal::Numbers)),
            (Reply::SnapshotInstalled(own(6)), false, Err(Refusal::Impersonation)),
            (Reply::SnapshotInstalled(other(COUNTER_MAX)), false, Err(Refusal::Numbers)),
            (Reply::VoteChanged(own(5), other(COUNTER_MAX)), false, Err(Refusal::Numbers)),
            (Reply::AppendedUpTo(Some(place(5, COUNTER_MAX + 1))), false, Err(Refusal::Numbers)),
            (Reply::LogBehind(None, Some(place(COUNTER_MAX, 1))), false, Err(Refusal::Numbers)),
            (
                Reply::Voted { vote: other(5), granted: false, last: Some(place(COUNTER_MAX, 1)) },
                false,
                Err(Refusal::Numbers),
            ),
            (Reply::Conflict, false, Ok(())),
        ];
        for (reply, probes, expected) in table {
            assert_eq!(check_reply(me, 5, probes, &reply, bounds), expected, "{reply:?}");
        }
    }

    /// Entries 10 to 29: to 19 of term 3, then of term 4; 24 is committed, and the membership of 22 is the last but one.
    fn judge<T>(taken: Option<LogId>, of: impl Fn(&Standing<'_>) -> T) -> T {
        let entry = |index| match index {
            10..=19 => Some(place(3, index)),
            20..=29 => Some(place(4, index)),
            _ => None,
        };
        let settled = StoredMembership::new(Some(place(4, 22)), members(&[&[1, 2]], &[]));
        let effective = StoredMembership::new(Some(place(4, 27)), members(&[&[1, 2, 3]], &[]));
        of(&Standing {
            committed: Some(place(4, 24)),
            last: Some(place(4, 29)),
            taken,
            entry: &entry,
            settled: &settled,
            effective: &effective,
        })
    }

    fn place(term: u64, index: u64) -> LogId {
        LogId::new_term_index(term, index)
    }

    fn blank(term: u64, index: u64) -> Entry {
        Entry::new(place(term, index), Payload::Blank)
    }

    fn votes(term: u64, index: u64) -> Entry {
        Entry::new(place(term, index), Payload::Membership(members(&[&[1, 2]], &[])))
    }

    #[test]
    fn entries_do_not_contradict_what_is_firm() {
        let no = Err(Refusal::Contradiction);
        // Before the entries, the entries, what the leader calls committed, what of that is handed on.
        type Row = (Option<LogId>, Vec<Entry>, Option<LogId>, Result<Option<LogId>, Refusal>);
        let table: [Row; 22] = [
            (Some(place(4, 29)), vec![blank(5, 30)], Some(place(5, 30)), Ok(Some(place(5, 30)))),
            // More is committed than this node has: as far as it has.
            (Some(place(4, 29)), vec![blank(5, 30)], Some(place(5, 99)), Ok(Some(place(5, 30)))),
            (Some(place(4, 29)), vec![blank(5, 30)], Some(place(4, 99)), no),
            (Some(place(4, 29)), vec![], Some(place(4, 29)), Ok(Some(place(4, 29)))),
            (Some(place(4, 29)), vec![], Some(place(3, 29)), no),
            (Some(place(4, 28)), vec![], Some(place(4, 29)), Ok(Some(place(4, 28)))),
            (Some(place(4, 28)), vec![], Some(place(4, 26)), Ok(Some(place(4, 26)))),
            (Some(place(4, 28)), vec![], Some(place(3, 26)), no),
            (Some(place(4, 28)), vec![], Some(place(4, 24)), Ok(None)),
            (None, vec![], Some(place(4, 99)), Ok(None)),
            // What is committed.
            (Some(place(4, 24)), vec![], None, Ok(None)),
            (Some(place(3, 24)), vec![], None, no),
            (Some(place(5, 24)), vec![], None, no),
            (Some(place(4, 22)), vec![blank(4, 23), blank(5, 24)], None, no),
            // Purged: as far as can be told.
            (Some(place(2, 5)), vec![], None, Ok(None)),
            (Some(place(5, 5)), vec![], None, no),
            // Not committed: answered with a conflict, and nothing of it is believed.
            (Some(place(5, 27)), vec![blank(5, 28)], Some(place(5, 28)), Ok(None)),
            (Some(place(4, 26)), vec![blank(5, 27)], Some(place(5, 27)), Ok(Some(place(5, 27)))),
            // Memberships.
            (Some(place(4, 29)), vec![votes(5, 30)], Some(place(4, 29)), Ok(Some(place(4, 29)))),
            (Some(place(4, 29)), vec![votes(5, 30)], Some(place(4, 26)), no),
            (Some(place(4, 26)), vec![votes(5, 27)], None, Ok(None)),
            (Some(place(4, 26)), vec![votes(5, 27), votes(5, 28)], Some(place(4, 26)), no),
        ];
        for (prev, entries, commit, expected) in table {
            let found =
                judge(None, |standing| judge_append(standing, 5, prev.as_ref(), &entries, commit.as_ref()));
            assert_eq!(found, expected, "{prev:?} {entries:?} {commit:?}");
        }
    }

    #[test]
    fn a_later_leader_need_not_know_that_the_membership_before_the_last_is_committed() {
        let end = Some(place(4, 29));
        // The last two, or one that follows the last that this node has.
        let table = [
            (Some(place(4, 26)), vec![votes(5, 27), votes(5, 28), blank(6, 29)], Some(place(5, 27))),
            (end, vec![votes(5, 30), blank(6, 31)], Some(place(4, 27))),
            // It knows, and says so.
            (end, vec![votes(5, 30), blank(6, 31)], Some(place(5, 30))),
        ];
        for (place, (prev, entries, expected)) in table.into_iter().enumerate() {
            let commit = expected.filter(|_| place == 2);
            let found =
                judge(None, |standing| judge_append(standing, 6, prev.as_ref(), &entries, commit.as_ref()));
            assert_eq!(found, Ok(expected), "{prev:?} {entries:?}");
        }
        // Of its own it does know.
        let entries = [votes(6, 30)];
        let found = judge(None, |standing| judge_append(standing, 6, end.as_ref(), &entries, None));
        assert_eq!(found, Err(Refusal::Contradiction));
    }

    #[test]
    fn a_leader_does_not_contradict_itself() {
        let taken = Some(place(4, 28));
        let table = [
            (Some(place(4, 26)), vec![blank(5, 27)], Err(Refusal::Contradiction)),
            (Some(place(5, 27)), vec![], Err(Refusal::Contradiction)),
            (Some(place(4, 28)), vec![blank(5, 29)], Ok(Some(place(4, 27)))),
            (None, vec![], Ok(Some(place(4, 27)))),
        ];
        for (prev, entries, expected) in table {
            let commit = place(4, 27);
            let found =
                judge(taken, |standing| judge_append(standing, 5, prev.as_ref(), &entries, Some(&commit)));
            assert_eq!(found, expected, "{prev:?} {entries:?}");
        }
        // What it has said before counts for how far its word about commitment goes.
        let commit = place(4, 99);
        let found =
            judge(taken, |standing| judge_append(standing, 5, Some(&place(4, 25)), &[], Some(&commit)));
        assert_eq!(found, Ok(taken));
    }

    #[test]
    fn snapshots_do_not_contradict_what_is_firm() {
        let (two, three) = (members(&[&[1, 2]], &[]), members(&[&[1, 2, 3]], &[]));
        let no = Err(Refusal::Contradiction);
        let table = [
            (place(4, 40), place(4, 27), &three, Ok(Installation::Replace)),
            (place(4, 40), place(4, 22), &two, Ok(Installation::Replace)),
            (place(5, 40), place(5, 33), &two, Ok(Installation::Replace)),
            (place(4, 26), place(4, 22), &two, Ok(Installation::Known)),
            (place(5, 26), place(4, 22), &two, Ok(Installation::Replace)),
            (place(5, 29), place(4, 22), &two, Ok(Installation::Replace)),
            (place(4, 24), place(4, 22), &two, Ok(Installation::Known)),
            (place(3, 12), place(3, 12), &two, Ok(Installation::Known)),
            (place(5, 24), place(4, 22), &two, no),
            (place(3, 40), place(3, 22), &two, no),
            // Its membership is not the one of that entry, or goes back.
            (place(4, 40), place(4, 27), &two, no),
            (place(4, 40), place(4, 22), &three, no),
            (place(4, 40), place(3, 21), &two, no),
            (place(4, 40), place(4, 21), &two, no),
        ];
        let vote = Vote::new_committed(6, NodeId(id(2)));
        for (last, at, membership, expected) in table {
            let meta = SnapshotMeta {
                last_log_id: Some(last),
                last_membership: StoredMembership::new(Some(at), membership.clone()),
            };
            let found = judge(None, |standing| judge_snapshot(standing, &vote, &meta));
            assert_eq!(found, expected, "{meta:?}");
        }
    }

    #[test]
    fn a_snapshot_does_not_contradict_what_its_leader_has_sent() {
        let vote = Vote::new_committed(6, NodeId(id(2)));
        let meta = |last| SnapshotMeta {
            last_log_id: Some(last),
            last_membership: StoredMembership::new(Some(place(4, 22)), members(&[&[1, 2]], &[])),
        };
        let found = |taken, last| judge(taken, |standing| judge_snapshot(standing, &vote, &meta(last)));
        let taken = Some(place(5, 30));
        assert_eq!(found(taken, place(4, 40)), Err(Refusal::Contradiction));
        assert_eq!(found(taken, place(5, 40)), Ok(Installation::Replace));
        assert_eq!(found(Some(place(4, 28)), place(5, 28)), Err(Refusal::Contradiction));
    }

    #[test]
    fn a_term_has_one_leader_also_after_a_restart() {
        let vote = |term, number| Vote::new_committed(term, NodeId(id(number)));
        assert_eq!(one_leader(None, &vote(5, 2)), Ok(()));
        assert_eq!(one_leader(Some(&vote(5, 2)), &vote(5, 2)), Ok(()));
        assert_eq!(one_leader(Some(&vote(5, 1)), &vote(5, 2)), Err(Refusal::Contradiction));
        assert_eq!(one_leader(Some(&vote(5, 1)), &vote(6, 2)), Ok(()));
        assert_eq!(one_leader(Some(&Vote::new(5, NodeId(id(1)))), &vote(5, 2)), Ok(()));
    }

    #[test]
    fn refusals_have_distinct_names_and_are_documented() {
        let page = include_str!("../../../../docs/operating.md");
        let names: BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.name()).collect();
        assert_eq!(names.len(), Refusal::ALL.len());
        for name in names {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }
}
