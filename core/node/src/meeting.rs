//! Who comes and leaves: the decisions, without the doing.
//!
//! - [`two_logs`]: two servers of one group have different logs
//! - [`Duplicates`]: a second connection with one identity
//! - [`Admission`]: whether the committee has refused this node
//! - [`membership_plan`]: the next change of the Raft membership, for the leader
//! - [`may_retire`]: whether a server can be taken away, for the operator's tool

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::checks::{Check, Checks};
use zipnet_core::id::{LogId, PeerId, RaftId, StoreId};
use zipnet_core::time::Time;
pub use zipnet_facts::Change;

use crate::consensus::Members;
use crate::frame::Refusal;

/// What one side of a meeting knows about its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogView {
    /// The log, if the server has one.
    pub log: Option<LogId>,
    /// Whether it holds a finalised round.
    pub has_records: bool,
    /// Whether the server was told to start a log and to yield to no other.
    pub steadfast: bool,
}

/// What becomes of a meeting of two logs, for the side that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The logs are the same, or one side has none: talk.
    Same,
    /// This side sets its log aside, draws a new store id and joins the other.
    Yield,
    /// The other side has to yield; do not talk until it has.
    Keep,
    /// Both go on with their own; do not talk.
    RefuseLink,
}

/// What to do when a server meets another one of its group.
///
/// Both sides decide for themselves, and never both to yield. What the other says of its log is its word alone, so it
/// never ends this server: the most that it can bring about is that a log without records is given up, and that only if
/// `may_yield` says that the other is one to which this server's operator pointed it.
#[must_use]
pub fn two_logs(own: LogView, other: LogView, may_yield: bool, checks: &impl Checks) -> Verdict {
    let (Some(own_log), Some(other_log)) = (own.log, other.log) else { return Verdict::Same };
    if own_log == other_log {
        return Verdict::Same;
    }
    match (own.steadfast, other.steadfast) {
        (true, true) => return Verdict::RefuseLink,
        (true, false) => return Verdict::Keep,
        // The other side was told to begin anew, because a majority of the stores was lost. Whoever still has records
        // is joined to it by its operator's hand, never by itself.
        (false, true) if own.has_records => return Verdict::RefuseLink,
        (false, true | false) => {}
    }
    let yields = match (own.has_records, other.has_records) {
        (true, true) => return Verdict::RefuseLink,
        (true, false) => false,
        (false, true) => true,
        (false, false) => other.steadfast || other_log < own_log,
    };
    if yields && may_yield && checks.enforce(Check::LogYields) { Verdict::Yield } else { Verdict::Keep }
}

/// How often a server gives up a log without records in the life of its process. Servers that were started as the first
/// by mistake need one or two; each leaves a folder behind.
pub const YIELDS_MAX: u32 = 3;

/// How long the older of two connections with one identity has to answer.
pub const CHALLENGE: Duration = Duration::from_secs(2);

/// The number that the caller gave a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// What to do with connections. In the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Use this connection for the peer.
    Use(ConnectionId),
    /// Send [`Frame::Ping`](crate::frame::Frame::Ping) with this nonce.
    Challenge(ConnectionId, u64),
    /// Close: another connection of the same two processes is kept.
    CloseSpare(ConnectionId),
    /// Close: it did not answer, and a newer process of this identity is here.
    CloseGhost(ConnectionId),
    /// Refuse with [`Refusal::DuplicateIdentity`] and close.
    Refuse(ConnectionId),
}

/// Keeps one connection per peer, and decides between two nodes of one identity: the newcomer waits until the older one
/// has answered a challenge or [`CHALLENGE`] has passed. A fast restart wins over its own ghost.
#[derive(Clone, Debug)]
pub struct Duplicates {
    own: PeerId,
    peers: BTreeMap<PeerId, Kept>,
    /// The peers with a challenge, by when it ends.
    challenged: BTreeSet<(Time, PeerId)>,
    /// Of the last challenge; rises.
    nonce: u64,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    current: Arrival,
    /// The newcomer that waits for the decision.
    challenge: Option<Challenge>,
}

#[derive(Clone, Copy, Debug)]
struct Challenge {
    newcomer: Arrival,
    nonce: u64,
    until: Time,
}

/// A connection whose hello was accepted otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The connection.
    pub connection: ConnectionId,
    /// Of the hello.
    pub incarnation: [u8; 16],
    /// Whether this node opened it.
    pub dialled: bool,
}

impl Duplicates {
    /// Without connections. Nonces count on from `seed`, so that they are not guessed.
    #[must_use]
    pub const fn new(own: PeerId, seed: u64) -> Self {
        Self { own, peers: BTreeMap::new(), challenged: BTreeSet::new(), nonce: seed }
    }

    /// A connection is up and its hello was accepted.
    pub fn arrive(
        &mut self,
        now: Time,
        peer: PeerId,
        arrival: Arrival,
        checks: &impl Checks,
        out: &mut Vec<Order>,
    ) {
        let own = self.own;
        let Some(kept) = self.peers.get_mut(&peer) else {
            self.peers.insert(peer, Kept { current: arrival, challenge: None });
            out.push(Order::Use(arrival.connection));
            return;
        };
        if kept.current.incarnation == arrival.incarnation {
            if is_spare(kept.current, arrival, own < peer) {
                out.push(Order::CloseSpare(arrival.connection));
                return;
            }
            out.push(Order::CloseSpare(kept.current.connection));
            kept.current = arrival;
            out.push(Order::Use(arrival.connection));
            // What was queued while this node stood still may be of a process that is dead by now: it is no answer.
            if let Some(challenge) = &mut kept.challenge {
                self.challenged.remove(&(challenge.until, peer));
                self.nonce = self.nonce.wrapping_add(1);
                (challenge.nonce, challenge.until) = (self.nonce, now.after(CHALLENGE));
                self.challenged.insert((challenge.until, peer));
                out.push(Order::Challenge(arrival.connection, challenge.nonce));
            }
            return;
        }
        if !checks.enforce(Check::UniqueIdentity) {
            kept.current = arrival;
            out.push(Order::Use(arrival.connection));
            return;
        }
        match &mut kept.challenge {
            None => {
                self.nonce = self.nonce.wrapping_add(1);
                let until = now.after(CHALLENGE);
                kept.challenge = Some(Challenge { newcomer: arrival, nonce: self.nonce, until });
                self.challenged.insert((until, peer));
                out.push(Order::Challenge(kept.current.connection, self.nonce));
            }
            Some(challenge) if challenge.newcomer.incarnation == arrival.incarnation => {
                if is_spare(challenge.newcomer, arrival, own < peer) {
                    out.push(Order::CloseSpare(arrival.connection));
                } else {
                    out.push(Order::CloseSpare(challenge.newcomer.connection));
                    challenge.newcomer = arrival;
                }
            }
            // The last to come is the most likely to live.
            Some(challenge) => {
                out.push(Order::CloseGhost(challenge.newcomer.connection));
                challenge.newcomer = arrival;
            }
        }
    }

    /// A pong came over a connection.
    pub fn answer(&mut self, peer: PeerId, connection: ConnectionId, nonce: u64, out: &mut Vec<Order>) {
        let Some(kept) = self.peers.get_mut(&peer) else { return };
        let Some(challenge) = kept.challenge else { return };
        if kept.current.connection == connection && challenge.nonce == nonce {
            kept.challenge = None;
            self.challenged.remove(&(challenge.until, peer));
            out.push(Order::Refuse(challenge.newcomer.connection));
        }
    }

    /// A connection is gone, for whatever reason. Returns whether it was the last one used for the peer.
    pub fn closed(&mut self, peer: PeerId, connection: ConnectionId, out: &mut Vec<Order>) -> bool {
        let Some(kept) = self.peers.get_mut(&peer) else { return false };
        if kept.current.connection == connection {
            let Some(challenge) = kept.challenge.take() else {
                self.peers.remove(&peer);
                return true;
            };
            self.challenged.remove(&(challenge.until, peer));
            kept.current = challenge.newcomer;
            out.push(Order::Use(challenge.newcomer.connection));
        } else if let Some(challenge) =
            kept.challenge.take_if(|challenge| challenge.newcomer.connection == connection)
        {
            self.challenged.remove(&(challenge.until, peer));
        }
        false
    }

    /// Time passed. Harmless at any moment.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Order>) {
        while let Some((until, peer)) = self.challenged.first().copied().filter(|(until, _)| *until <= now) {
            self.challenged.remove(&(until, peer));
            let Some(kept) = self.peers.get_mut(&peer) else { continue };
            let Some(challenge) = kept.challenge.take() else { continue };
            out.push(Order::CloseGhost(kept.current.connection));
            out.push(Order::Use(challenge.newcomer.connection));
            kept.current = challenge.newcomer;
        }
    }

    /// When to call [`Duplicates::tick`]. Asked after everything that happens to a node, so it walks through nothing.
    #[must_use]
    pub fn deadline(&self) -> Time {
        self.challenged.first().map_or(Time::NEVER, |(until, _)| *until)
    }

    /// The connection that is used for a peer.
    #[must_use]
    pub fn current(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.peers.get(peer).map(|kept| kept.current.connection)
    }
}

/// Whether the later of two connections between the same two processes goes.
///
/// Both dialled at once, or one side has lost a connection and the other does not know yet. Both sides keep the one that
/// the lower peer dialled, and among equals the later one.
const fn is_spare(earlier: Arrival, later: Arrival, prefers_dialled: bool) -> bool {
    earlier.dialled == prefers_dialled && later.dialled != prefers_dialled
}

/// Whether the committee has refused this node: some peer that its operator named did, for a reason of the committee, and
/// no server accepted it.
///
/// One server alone must not be able to stop another that the rest accepts, and whoever was met by rumour stops nobody.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    accepted: bool,
    refused: BTreeMap<PeerId, Refusal>,
}

impl Admission {
    /// Nobody has said anything yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { accepted: false, refused: BTreeMap::new() }
    }

    /// A server accepted this node's hello. Holds for the life of the process.
    pub fn accepted(&mut self, server: PeerId) {
        self.accepted = true;
        self.refused.remove(&server);
    }

    /// A peer that the operator named refused this node's hello.
    pub fn refused(&mut self, peer: PeerId, reason: Refusal) {
        self.refused.insert(peer, reason);
    }

    /// The reason to stop for, with its exit code.
    #[must_use]
    pub fn verdict(&self) -> Option<(Refusal, u8)> {
        if self.accepted {
            return None;
        }
        self.refused.values().find_map(|reason| Some((*reason, reason.exit_code()?)))
    }
}

/// What the committee machine says about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerState {
    /// It takes part.
    Registered,
    /// It left for now and is expected back.
    Departed,
    /// It has announced that it leaves for good; it takes part until it departs or is unreachable.
    Leaving,
    /// It is barred for good.
    Retired,
}

/// What the leader knows when it plans the next change.
#[derive(Clone, Debug, Default)]
pub struct Membership {
    /// The leader itself.
    pub leader: RaftId,
    /// Whose agreement counts.
    pub voters: BTreeSet<RaftId>,
    /// Who receives the log without a vote.
    pub learners: BTreeSet<RaftId>,
    /// What the committee machine says; a server it has never heard of is missing.
    pub servers: BTreeMap<PeerId, ServerState>,
    /// Servers that are linked, with the disk that their hello named. The leader itself need not be listed.
    pub linked: BTreeMap<PeerId, StoreId>,
    /// The last entry that each member is known to have.
    pub matched: BTreeMap<RaftId, u64>,
    /// The last committed entry.
    pub committed: u64,
    /// Whom the leader's operator allows to be a server; `None`: whoever knows the committee secret.
    pub allowed: Option<BTreeSet<PeerId>>,
    /// The entry that made the present voters.
    pub members_at: u64,
    /// Those for whom the log was founded, once they have had the time to come.
    pub founders: BTreeSet<RaftId>,
}

/// A learner has caught up when it lacks at most so many committed entries: a round has about ten.
pub const CAUGHT_UP_LAG: u64 = 16;

/// The next change of the Raft membership, if one is due.
///
/// In this order: votes of servers that are gone for good end; a server back with a new disk gets its vote back; who has
/// caught up gets a vote; who is linked gets the log; who is not needed stops getting it. A change that would leave the
/// group without a living majority is never planned.
///
/// Nothing changes before every linked voter that stays has the change before: whoever lacks it does not take the one whom
/// it made a voter for one.
#[must_use]
pub fn membership_plan(membership: &Membership, checks: &impl Checks) -> Option<Change> {
    let m = membership;
    if !m.is_known_to_all(checks) {
        return None;
    }
    let changes = m.removable_voters(checks).map(Change::RemoveVoter);
    let changes = changes.chain(m.ready_learners(checks).map(|new| match m.old_voter(new) {
        Some(old) => Change::ReplaceStore { old, new },
        None => Change::Promote(new),
    }));
    let changes = changes.chain(m.welcome(checks).map(Change::AddLearner));
    let changes = changes.chain(m.idle_learners(checks).map(Change::RemoveLearner));
    changes.into_iter().find(|change| m.has_majority(&change.voters(&m.voters)))
}

/// The voter that should lead in the place of the leader: it is linked with all voters that the leader is linked with, and
/// with more; of these the one with the most. A leader that a voter cannot be reached from gives it no entries, and rounds
/// wait for it.
///
/// What servers say of themselves is taken as it is: whoever lies about it becomes leader, which every voter may.
#[must_use]
pub fn farther_reaching(
    leader: PeerId,
    own: &BTreeSet<PeerId>,
    reach: &BTreeMap<PeerId, BTreeSet<PeerId>>,
    members: &Members,
) -> Option<RaftId> {
    let peers: BTreeSet<PeerId> = members.voters.iter().map(|voter| voter.peer).collect();
    // A candidate is linked with the leader, whatever it says.
    let with = |peer: PeerId, reach: &BTreeSet<PeerId>| {
        let all = reach.iter().chain([&peer, &leader]).filter(|reached| peers.contains(*reached));
        all.copied().collect::<BTreeSet<PeerId>>()
    };
    let mine = with(leader, own);
    let candidates = members.voters.iter().filter(|voter| own.contains(&voter.peer));
    let better = candidates.filter_map(|voter| {
        let theirs = with(voter.peer, reach.get(&voter.peer)?);
        (theirs.is_superset(&mine) && theirs != mine).then_some((theirs.len(), *voter))
    });
    better.max_by_key(|(len, voter)| (*len, core::cmp::Reverse(*voter))).map(|(_, voter)| voter)
}

/// Cut links, each by the lower and the higher of two voters: one of the two misses the other, and another voter reaches both.
#[must_use]
pub fn cut_links(
    voters: &BTreeSet<PeerId>,
    reach: &BTreeMap<PeerId, BTreeSet<PeerId>>,
) -> BTreeSet<(PeerId, PeerId)> {
    let reaches = |from: &PeerId, to: &PeerId| reach.get(from).map(|reach| reach.contains(to));
    let is_cut = |(one, other): &(&PeerId, &PeerId)| {
        let missed = [reaches(one, other), reaches(other, one)].contains(&Some(false));
        let is_bridge =
            |bridge: &PeerId| reaches(bridge, one) == Some(true) && reaches(bridge, other) == Some(true);
        one < other && missed && voters.iter().any(is_bridge)
    };
    let pairs = voters.iter().flat_map(|one| voters.iter().map(move |other| (one, other)));
    pairs.filter(is_cut).map(|(one, other)| (*one, *other)).collect()
}

impl Membership {
    /// Voters of servers that are gone for good: retired, or leaving, and departed or unreachable. And of those that had a
    /// vote from the beginning and did not come.
    fn removable_voters(&self, checks: &impl Checks) -> impl Iterator<Item = RaftId> {
        self.voters.iter().copied().filter(|id| {
            let gone = match self.servers.get(&id.peer) {
                Some(ServerState::Retired) => true,
                Some(ServerState::Leaving) => !self.is_linked(*id),
                Some(ServerState::Departed) => !checks.enforce(Check::AnnouncedRemoval),
                Some(ServerState::Registered) => false,
                // It had a vote in the log that was set aside, and has never been here.
                None => self.founders.contains(id) && !self.is_linked(*id),
            };
            // A leader that retires hands over first.
            gone && *id != self.leader
        })
    }

    /// Learners that have caught up, are linked, and stay.
    fn ready_learners(&self, checks: &impl Checks) -> impl Iterator<Item = RaftId> {
        self.learners.iter().copied().filter(|id| {
            let matched = self.matched.get(id).copied();
            let caught_up =
                matched.is_some_and(|matched| matched.saturating_add(CAUGHT_UP_LAG) >= self.committed);
            caught_up && self.is_linked(*id) && self.is_wanted(id.peer, checks)
        })
    }

    /// Linked servers that are not members with the disk that they have.
    fn welcome(&self, checks: &impl Checks) -> impl Iterator<Item = RaftId> {
        let linked = self.linked.iter().map(|(peer, store)| RaftId { peer: *peer, store: *store });
        linked.filter(|id| {
            let member = self.voters.contains(id) || self.learners.contains(id);
            !member && id.peer != self.leader.peer && self.is_wanted(id.peer, checks)
        })
    }

    /// Learners whose server has another disk, or is gone for good.
    fn idle_learners(&self, checks: &impl Checks) -> impl Iterator<Item = RaftId> {
        self.learners.iter().copied().filter(|id| {
            let replaced = self.linked.get(&id.peer).is_some_and(|store| *store != id.store);
            let has_vote = self.voters.iter().any(|voter| voter.peer == id.peer && self.is_linked(*voter));
            replaced || has_vote || !self.is_wanted(id.peer, checks)
        })
    }

    /// The voter with another disk of the same server.
    fn old_voter(&self, new: RaftId) -> Option<RaftId> {
        self.voters.iter().copied().find(|old| old.peer == new.peer && old.store != new.store)
    }

    /// Whether a server may become a member. Whoever has a vote is one, also with another disk: to cut off voters that
    /// other leaders let in would cost the majority.
    fn may_be_in(&self, peer: PeerId) -> bool {
        let listed = self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&peer));
        listed || self.voters.iter().any(|voter| voter.peer == peer)
    }

    /// Whether every linked voter that stays has the entry that made the present voters.
    fn is_known_to_all(&self, checks: &impl Checks) -> bool {
        let leaves: BTreeSet<RaftId> = self.removable_voters(checks).collect();
        self.voters
            .difference(&leaves)
            .filter(|id| **id != self.leader && self.is_linked(**id))
            .all(|id| self.matched.get(id).is_some_and(|matched| *matched >= self.members_at))
    }

    fn is_wanted(&self, peer: PeerId, checks: &impl Checks) -> bool {
        if !self.may_be_in(peer) {
            return false;
        }
        match self.servers.get(&peer) {
            None | Some(ServerState::Registered | ServerState::Departed) => true,
            Some(ServerState::Leaving) => false,
            Some(ServerState::Retired) => !checks.enforce(Check::RetiredBarred),
        }
    }

    fn is_linked(&self, id: RaftId) -> bool {
        id == self.leader || self.linked.get(&id.peer) == Some(&id.store)
    }

    fn has_majority(&self, voters: &BTreeSet<RaftId>) -> bool {
        let alive = voters.iter().filter(|id| self.is_linked(**id)).count();
        alive >= majority(voters.len())
    }
}

/// The smallest majority of so many voters.
#[must_use]
pub const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// What the operator's tool knows when it is asked to retire a server.
#[derive(Clone, Debug, Default)]
pub struct Removal {
    /// The servers whose vote counts.
    pub voters: BTreeSet<PeerId>,
    /// Those of them that answer, and the target if it does.
    pub alive: BTreeSet<PeerId>,
    /// Whom to retire.
    pub target: PeerId,
    /// Whether the committee still lists the target, with a vote or without: it has registered and was not retired.
    pub listed: bool,
    /// Whether the operator says that the target is dead for good.
    pub dead: bool,
}

/// Why a server is not taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRemoval {
    /// Whom.
    pub target: PeerId,
    /// Why not.
    pub why: WhyNot,
}

/// What is against taking a server away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// It has no vote, and rounds do not wait for it.
    NoVote,
    /// It is said to be dead, and answers.
    StillAlive,
    /// It does not answer, and is not said to be dead.
    Silent,
    /// Too few voters answer to agree on anything.
    NoQuorum {
        /// Who answers.
        present: usize,
        /// How many there are.
        voters: usize,
        /// How many have to agree.
        needed: usize,
    },
    /// Too few of the others answer to agree on anything once it is gone.
    MajorityLost {
        /// Others that answer.
        alive: usize,
        /// How many there are.
        voters: usize,
        /// How many have to agree.
        needed: usize,
    },
}

impl WhyNot {
    /// The stable name, as scenarios spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoVote => "no-vote",
            Self::StillAlive => "still-alive",
            Self::Silent => "silent",
            Self::NoQuorum { .. } | Self::MajorityLost { .. } => "no-majority",
        }
    }
}

impl fmt::Display for NoRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.short();
        match self.why {
            WhyNot::NoVote => write!(f, "retire server {target}: it has no vote in this committee"),
            WhyNot::StillAlive => {
                write!(
                    f,
                    "retire server {target} as dead: it answers; retire it in order instead, without --dead"
                )
            }
            WhyNot::Silent => write!(
                f,
                "retire server {target}: it does not answer, so it cannot sign its leave; if it is dead for good, use \
                 --dead"
            ),
            WhyNot::NoQuorum { present, voters, needed } => write!(
                f,
                "retire server {target}: {present} of {voters} voters answer and {needed} are needed to agree on anything"
            ),
            WhyNot::MajorityLost { alive, voters, needed } => write!(
                f,
                "retire server {target}: the majority would be lost, since {needed} of {voters} voters have to agree once \
                 it is gone, and {alive} others answer; add or restart servers first"
            ),
        }
    }
}

/// Whether a server may be taken away. The advice is for the operator to read and does not stop the tool.
///
/// # Errors
/// Why not.
pub fn may_retire(removal: &Removal, checks: &impl Checks) -> Result<Option<String>, NoRemoval> {
    let refused = |why| Err(NoRemoval { target: removal.target, why });
    // One that announced its leave and was lost has no vote any more, and rounds may still wait for it.
    let has_vote = removal.voters.contains(&removal.target);
    let is_listed = removal.dead && removal.listed;
    if !has_vote && !is_listed {
        return refused(WhyNot::NoVote);
    }
    let answers = removal.alive.contains(&removal.target);
    if removal.dead && answers && checks.enforce(Check::ProbedDead) {
        return refused(WhyNot::StillAlive);
    }
    if !removal.dead && !answers {
        return refused(WhyNot::Silent);
    }
    let remaining: BTreeSet<_> = removal.voters.iter().filter(|voter| **voter != removal.target).collect();
    let alive = remaining.iter().filter(|voter| removal.alive.contains(**voter)).count();
    let voting = removal.voters.iter().filter(|voter| removal.alive.contains(*voter)).count();
    let (needed, voters, present) = (majority(removal.voters.len()), removal.voters.len(), voting);
    if present < needed {
        return refused(WhyNot::NoQuorum { present, voters, needed });
    }
    // Its vote is taken once it is gone, and until then it counts: the others have to be a majority of all votes.
    if alive < needed && checks.enforce(Check::MajorityKept) {
        return refused(WhyNot::MajorityLost { alive, voters, needed });
    }
    Ok(match remaining.len() {
        2 => Some(
            "two servers remain, and rounds stop when one of them stops: add a server before removing one"
                .to_owned(),
        ),
        even if even.is_multiple_of(2) => Some(format!(
            "{even} servers remain: an even number tolerates no more failures than {}",
            even - 1
        )),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use zipnet_core::checks::Strict;
    use zipnet_core::random::Random;

    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn raft(number: u8, store: u64) -> RaftId {
        RaftId { peer: peer(number), store: StoreId(store) }
    }

    /// Lacks one rule.
    #[derive(Clone, Debug)]
    struct Without(Check);

    impl Checks for Without {
        fn enforce(&self, check: Check) -> bool {
            check != self.0
        }
    }

    fn view(log: u8, has_records: bool, steadfast: bool) -> LogView {
        LogView { log: Some(LogId([log; 32])), has_records, steadfast }
    }

    #[test]
    fn meetings_of_two_logs_follow_the_table() {
        let none = LogView { log: None, ..view(0, false, false) };
        let table = [
            (view(1, true, false), view(1, true, false), Verdict::Same),
            (none, view(1, true, false), Verdict::Same),
            (view(1, true, false), none, Verdict::Same),
            (view(1, false, false), view(2, true, false), Verdict::Yield),
            (view(1, true, false), view(2, false, false), Verdict::Keep),
            (view(1, false, false), view(2, false, false), Verdict::Keep),
            (view(2, false, false), view(1, false, false), Verdict::Yield),
            (view(1, true, false), view(2, true, false), Verdict::RefuseLink),
            (view(9, false, true), view(1, true, false), Verdict::Keep),
            (view(9, true, true), view(1, true, false), Verdict::Keep),
            (view(1, false, false), view(9, false, true), Verdict::Yield),
            (view(1, true, false), view(9, false, true), Verdict::RefuseLink),
            (view(1, false, true), view(9, false, true), Verdict::RefuseLink),
        ];
        for (own, other, expected) in table {
            assert_eq!(two_logs(own, other, true, &Strict), expected, "{own:?} meets {other:?}");
        }
    }

    #[test]
    fn never_do_both_yield_nor_both_talk_across_logs() {
        let options = [false, true];
        for (a, b) in [(1, 2), (2, 1)] {
            for bits in 0..64_u8 {
                let bit = |n: u8| options[usize::from(bits >> n & 1)];
                let left = view(a, bit(0), bit(1));
                let right = view(b, bit(2), bit(3));
                let verdicts =
                    (two_logs(left, right, bit(4), &Strict), two_logs(right, left, bit(5), &Strict));
                assert_ne!(verdicts, (Verdict::Yield, Verdict::Yield), "{left:?} {right:?}");
                assert!(verdicts.0 != Verdict::Same && verdicts.1 != Verdict::Same, "{left:?} {right:?}");
                if verdicts.0 == Verdict::Yield {
                    assert_eq!(verdicts.1, Verdict::Keep, "{left:?} {right:?}");
                }
            }
        }
    }

    #[test]
    fn a_build_without_the_rule_does_not_yield() {
        let verdict = two_logs(view(1, false, false), view(2, true, false), true, &Without(Check::LogYields));
        assert_eq!(verdict, Verdict::Keep);
    }

    #[test]
    fn a_log_is_given_up_only_for_one_to_whom_the_operator_pointed() {
        let (own, other) = (view(2, false, false), view(1, true, false));
        assert_eq!(two_logs(own, other, true, &Strict), Verdict::Yield);
        assert_eq!(two_logs(own, other, false, &Strict), Verdict::Keep);
    }

    #[test]
    fn two_logs_with_records_end_nobody() {
        for own in [view(1, true, false), view(1, true, true)] {
            for other in [view(2, true, false), view(2, true, true)] {
                let verdict = two_logs(own, other, true, &Strict);
                assert!(matches!(verdict, Verdict::RefuseLink | Verdict::Keep), "{own:?} meets {other:?}");
            }
        }
    }

    const SECOND: u64 = 1_000_000_000;

    fn arrival(connection: u64, incarnation: u8, dialled: bool) -> Arrival {
        Arrival { connection: ConnectionId(connection), incarnation: [incarnation; 16], dialled }
    }

    fn duplicates() -> (Duplicates, Vec<Order>) {
        let mut duplicates = Duplicates::new(peer(5), 100);
        let mut out = Vec::new();
        duplicates.arrive(Time(0), peer(7), arrival(1, 1, false), &Strict, &mut out);
        assert_eq!(core::mem::take(&mut out), [Order::Use(ConnectionId(1))]);
        duplicates.arrive(Time(0), peer(7), arrival(2, 2, false), &Strict, &mut out);
        assert_eq!(core::mem::take(&mut out), [Order::Challenge(ConnectionId(1), 101)]);
        assert_eq!(duplicates.deadline(), Time(2 * SECOND));
        (duplicates, out)
    }

    #[test]
    fn a_living_node_keeps_its_identity() {
        let (mut duplicates, mut out) = duplicates();
        duplicates.answer(peer(7), ConnectionId(2), 101, &mut out);
        duplicates.answer(peer(7), ConnectionId(1), 99, &mut out);
        assert_eq!(out, [], "only the older connection can answer, and only the question asked");
        duplicates.answer(peer(7), ConnectionId(1), 101, &mut out);
        assert_eq!(out, [Order::Refuse(ConnectionId(2))]);
        assert_eq!(duplicates.current(&peer(7)), Some(ConnectionId(1)));
        assert_eq!(duplicates.deadline(), Time::NEVER);
    }

    #[test]
    fn a_fast_restart_wins_over_its_ghost() {
        let (mut duplicates, mut out) = duplicates();
        duplicates.tick(Time(2 * SECOND - 1), &mut out);
        assert_eq!(out, []);
        duplicates.tick(Time(2 * SECOND), &mut out);
        assert_eq!(out, [Order::CloseGhost(ConnectionId(1)), Order::Use(ConnectionId(2))]);
        assert!(!duplicates.closed(peer(7), ConnectionId(1), &mut out), "the ghost was not in use any more");
        assert!(duplicates.closed(peer(7), ConnectionId(2), &mut out));
    }

    #[test]
    fn a_ghost_that_breaks_off_makes_room_at_once() {
        let (mut duplicates, mut out) = duplicates();
        assert!(!duplicates.closed(peer(7), ConnectionId(1), &mut out));
        assert_eq!(out, [Order::Use(ConnectionId(2))]);
    }

    #[test]
    fn an_old_connection_that_is_read_late_is_no_sign_of_life() {
        let (mut duplicates, mut out) = duplicates();
        duplicates.arrive(Time(SECOND), peer(7), arrival(3, 1, false), &Strict, &mut out);
        let asked_anew = [
            Order::CloseSpare(ConnectionId(1)),
            Order::Use(ConnectionId(3)),
            Order::Challenge(ConnectionId(3), 102),
        ];
        assert_eq!(core::mem::take(&mut out), asked_anew);
        duplicates.answer(peer(7), ConnectionId(3), 101, &mut out);
        duplicates.tick(Time(3 * SECOND - 1), &mut out);
        assert_eq!(out, [], "it was asked about the connection before");
        let mut alive = duplicates.clone();
        duplicates.tick(Time(3 * SECOND), &mut out);
        assert_eq!(out, [Order::CloseGhost(ConnectionId(3)), Order::Use(ConnectionId(2))], "it is dead");
        out.clear();
        alive.answer(peer(7), ConnectionId(3), 102, &mut out);
        assert_eq!(out, [Order::Refuse(ConnectionId(2))], "it lives");
    }

    #[test]
    fn a_newcomer_that_gives_up_leaves_the_older_one_alone() {
        let (mut duplicates, mut out) = duplicates();
        assert!(!duplicates.closed(peer(7), ConnectionId(2), &mut out));
        duplicates.tick(Time::NEVER, &mut out);
        assert_eq!(out, []);
        assert_eq!(duplicates.current(&peer(7)), Some(ConnectionId(1)));
    }

    #[test]
    fn of_several_newcomers_the_last_one_waits() {
        let (mut duplicates, mut out) = duplicates();
        duplicates.arrive(Time(1), peer(7), arrival(3, 3, false), &Strict, &mut out);
        assert_eq!(out, [Order::CloseGhost(ConnectionId(2))]);
        out.clear();
        duplicates.tick(Time(2 * SECOND), &mut out);
        assert_eq!(out, [Order::CloseGhost(ConnectionId(1)), Order::Use(ConnectionId(3))]);
    }

    #[test]
    fn crossed_connections_of_one_newcomer_are_one_newcomer() {
        let (mut duplicates, mut out) = duplicates();
        // Peer 5 is the lower one, so its own dial is kept.
        duplicates.arrive(Time(1), peer(7), arrival(3, 2, true), &Strict, &mut out);
        duplicates.arrive(Time(2), peer(7), arrival(4, 2, false), &Strict, &mut out);
        assert_eq!(out, [Order::CloseSpare(ConnectionId(2)), Order::CloseSpare(ConnectionId(4))]);
        out.clear();
        duplicates.tick(Time(2 * SECOND), &mut out);
        assert_eq!(out, [Order::CloseGhost(ConnectionId(1)), Order::Use(ConnectionId(3))]);
    }

    #[test]
    fn both_sides_keep_the_same_of_two_crossed_connections() {
        // Connection 1 was dialled by peer 5, connection 2 by peer 7.
        for (own, other) in [(5, 7), (7, 5)] {
            for order in [[1, 2], [2, 1]] {
                let mut duplicates = Duplicates::new(peer(own), 0);
                let mut out = Vec::new();
                for connection in order {
                    let dialled = (connection == 1) == (own == 5);
                    duplicates.arrive(
                        Time(0),
                        peer(other),
                        arrival(connection, 1, dialled),
                        &Strict,
                        &mut out,
                    );
                }
                assert_eq!(duplicates.current(&peer(other)), Some(ConnectionId(1)), "{own} saw {order:?}");
                assert!(out.contains(&Order::CloseSpare(ConnectionId(2))));
            }
        }
    }

    #[test]
    fn the_deadline_is_that_of_the_challenge_that_ends_first() {
        let mut random = Random::new([9; 32]);
        let mut duplicates = Duplicates::new(peer(5), 0);
        let (mut now, mut challenged) = (0, 0);
        for connection in 0..20_000 {
            now += random.below(SECOND / 4);
            let who = peer(u8::try_from(10 + random.below(40)).unwrap());
            let mut out = Vec::new();
            match random.below(8) {
                0..=3 => {
                    let incarnation = u8::try_from(random.below(3)).unwrap();
                    let arrival = arrival(connection, incarnation, random.below(2) == 0);
                    duplicates.arrive(Time(now), who, arrival, &Strict, &mut out);
                }
                4 => {
                    if let Some(kept) = duplicates.peers.get(&who).copied() {
                        let nonce = kept.challenge.map_or(0, |challenge| challenge.nonce);
                        duplicates.answer(who, kept.current.connection, nonce, &mut out);
                    }
                }
                5 | 6 => {
                    if let Some(kept) = duplicates.peers.get(&who).copied() {
                        let newcomer = kept.challenge.map(|challenge| challenge.newcomer);
                        let gone = newcomer.filter(|_| random.below(2) == 0).unwrap_or(kept.current);
                        duplicates.closed(who, gone.connection, &mut out);
                    }
                }
                _ => {
                    duplicates.tick(Time(now), &mut out);
                    assert!(duplicates.deadline() > Time(now), "what was due is done");
                }
            }
            let pending = duplicates.peers.values().filter_map(|kept| kept.challenge);
            let first = pending.map(|challenge| challenge.until).min();
            assert_eq!(duplicates.deadline(), first.unwrap_or(Time::NEVER), "after {connection} steps");
            challenged += u32::from(first.is_some());
        }
        assert!(challenged > 1000, "{challenged}");
    }

    #[test]
    fn a_build_without_the_rule_lets_a_second_node_in() {
        let mut duplicates = Duplicates::new(peer(5), 0);
        let mut out = Vec::new();
        let checks = Without(Check::UniqueIdentity);
        duplicates.arrive(Time(0), peer(7), arrival(1, 1, false), &checks, &mut out);
        duplicates.arrive(Time(0), peer(7), arrival(2, 2, false), &checks, &mut out);
        assert_eq!(out, [Order::Use(ConnectionId(1)), Order::Use(ConnectionId(2))]);
    }

    #[test]
    fn a_leader_gives_way_to_whoever_reaches_more() {
        let members = |voters: u8| Members {
            voters: (1..=voters).map(|number| raft(number, 1)).collect(),
            ..Members::default()
        };
        let set = |peers: &[u8]| peers.iter().map(|number| peer(*number)).collect::<BTreeSet<_>>();
        let reach = |all: &[(u8, &[u8])]| {
            all.iter().map(|(who, whom)| (peer(*who), set(whom))).collect::<BTreeMap<_, _>>()
        };
        let better = |own: &[u8], others: &[(u8, &[u8])], voters| {
            farther_reaching(peer(1), &set(own), &reach(others), &members(voters)).map(|voter| voter.peer)
        };
        // The first and the second do not reach each other, and the third reaches both.
        assert_eq!(better(&[3], &[(3, &[1, 2])], 3), Some(peer(3)));
        assert_eq!(better(&[2, 3], &[(2, &[1, 3]), (3, &[1, 2])], 3), None, "nobody is missed");
        assert_eq!(better(&[3], &[(3, &[1])], 3), None, "a server that is down is reached by nobody");
        assert_eq!(better(&[3], &[(2, &[3]), (3, &[1, 2])], 2), None, "it has no vote");
        assert_eq!(
            better(&[3], &[(3, &[2])], 3),
            Some(peer(3)),
            "it is linked with the leader, whatever it says"
        );
        // Nobody changes places for another gap.
        assert_eq!(better(&[3, 4], &[(3, &[1, 2]), (4, &[1, 3])], 4), None);
        assert_eq!(better(&[3, 4], &[(3, &[1, 2, 4]), (4, &[1, 3, 5])], 5), Some(peer(3)));
        assert_eq!(better(&[3, 4], &[(3, &[1, 2, 4]), (4, &[1, 2, 3, 5])], 5), Some(peer(4)), "the most");
        assert_eq!(better(&[3], &[], 3), None, "it has not said whom it reaches");
    }

    #[test]
    fn one_server_alone_stops_nobody_whom_another_accepts() {
        let mut admission = Admission::new();
        assert_eq!(admission.verdict(), None);
        admission.refused(peer(1), Refusal::TwoLogs);
        assert_eq!(admission.verdict(), None, "not a reason to stop for");
        admission.refused(peer(2), Refusal::GroupProof);
        assert_eq!(admission.verdict(), Some((Refusal::GroupProof, 77)));
        admission.accepted(peer(3));
        assert_eq!(admission.verdict(), None);
    }

    /// Three voters with disk 1, all linked, the first leads, all have everything.
    fn three() -> Membership {
        let voters: BTreeSet<_> = (1..=3).map(|number| raft(number, 1)).collect();
        Membership {
            leader: raft(1, 1),
            matched: voters.iter().map(|id| (*id, 1000)).collect(),
            linked: (2..=3).map(|number| (peer(number), StoreId(1))).collect(),
            servers: (1..=3).map(|number| (peer(number), ServerState::Registered)).collect(),
            voters,
            learners: BTreeSet::new(),
            committed: 1000,
            allowed: None,
            members_at: 900,
            founders: BTreeSet::new(),
        }
    }

    #[test]
    fn whoever_had_a_vote_from_the_beginning_and_never_came_has_none() {
        let mut absent = three();
        absent.linked.remove(&peer(3));
        absent.servers.remove(&peer(3));
        assert_eq!(membership_plan(&absent, &Strict), None, "others gave it that vote");
        absent.founders = absent.voters.clone();
        assert_eq!(membership_plan(&absent, &Strict), Some(Change::RemoveVoter(raft(3, 1))));
        let mut late = absent.clone();
        late.linked.insert(peer(3), StoreId(1));
        assert_eq!(membership_plan(&late, &Strict), None, "it is here, and has not registered yet");
        let mut away = absent.clone();
        away.servers.insert(peer(3), ServerState::Registered);
        assert_eq!(membership_plan(&away, &Strict), None, "it was here, and is expected back");
        absent.linked.clear();
        assert_eq!(membership_plan(&absent, &Strict), None, "no majority would be left");
    }

    #[test]
    fn a_settled_group_stays_as_it_is() {
        assert_eq!(membership_plan(&three(), &Strict), None);
        let mut departed = three();
        departed.servers.insert(peer(3), ServerState::Departed);
        departed.linked.remove(&peer(3));
        assert_eq!(membership_plan(&departed, &Strict), None, "it stays a voter: it is expected back");
        let mut crashed = three();
        crashed.linked.remove(&peer(3));
        assert_eq!(membership_plan(&crashed, &Strict), None);
    }

    #[test]
    fn a_server_is_learner_then_caught_up_then_voter() {
        let mut group = three();
        group.linked.insert(peer(4), StoreId(1));
        assert_eq!(membership_plan(&group, &Strict), Some(Change::AddLearner(raft(4, 1))));
        group.learners.insert(raft(4, 1));
        assert_eq!(membership_plan(&group, &Strict), None);
        group.matched.insert(raft(4, 1), 1000 - CAUGHT_UP_LAG - 1);
        assert_eq!(membership_plan(&group, &Strict), None);
        group.matched.insert(raft(4, 1), 1000 - CAUGHT_UP_LAG);
        assert_eq!(membership_plan(&group, &Strict), Some(Change::Promote(raft(4, 1))));
        group.linked.remove(&peer(4));
        assert_eq!(membership_plan(&group, &Strict), None, "a vote is for those who are here");
    }

    #[test]
    fn the_next_change_waits_until_every_linked_voter_that_stays_has_the_last_one() {
        let mut group = three();
        group.linked.insert(peer(4), StoreId(1));
        group.matched.insert(raft(3, 1), 899);
        assert_eq!(membership_plan(&group, &Strict), None);
        group.matched.remove(&raft(3, 1));
        assert_eq!(membership_plan(&group, &Strict), None);
        group.linked.remove(&peer(3));
        assert_eq!(membership_plan(&group, &Strict), Some(Change::AddLearner(raft(4, 1))), "it is not here");
        group.linked.insert(peer(3), StoreId(1));
        group.servers.insert(peer(3), ServerState::Retired);
        assert_eq!(
            membership_plan(&group, &Strict),
            Some(Change::RemoveVoter(raft(3, 1))),
            "whoever goes cannot hold up that it goes"
        );
        group.servers.remove(&peer(3));
        group.matched.insert(raft(3, 1), 900);
        assert_eq!(membership_plan(&group, &Strict), Some(Change::AddLearner(raft(4, 1))));
    }

    #[test]
    fn a_server_with_a_new_disk_replaces_its_old_self_in_one_change() {
        let mut group = three();
        group.linked.insert(peer(3), StoreId(2));
        assert_eq!(membership_plan(&group, &Strict), Some(Change::AddLearner(raft(3, 2))));
        group.learners.insert(raft(3, 2));
        assert_eq!(membership_plan(&group, &Strict), None);
        group.matched.insert(raft(3, 2), 1000);
        let change = membership_plan(&group, &Strict);
        assert_eq!(change, Some(Change::ReplaceStore { old: raft(3, 1), new: raft(3, 2) }));
        let voters = change.expect("planned").voters(&group.voters);
        assert_eq!(voters, BTreeSet::from([raft(1, 1), raft(2, 1), raft(3, 2)]));
        // It lost its disk once more while it was catching up.
        group.linked.insert(peer(3), StoreId(3));
        assert_eq!(membership_plan(&group, &Strict), Some(Change::AddLearner(raft(3, 3))));
        group.learners.insert(raft(3, 3));
        assert_eq!(membership_plan(&group, &Strict), Some(Change::RemoveLearner(raft(3, 2))));
    }

    #[test]
    fn a_leaving_server_loses_its_vote_once_it_is_gone() {
        let mut group = three();
        group.servers.insert(peer(3), ServerState::Leaving);
        assert_eq!(membership_plan(&group, &Strict), None, "it takes part until it goes");
        group.linked.remove(&peer(3));
        assert_eq!(membership_plan(&group, &Strict), Some(Change::RemoveVoter(raft(3, 1))));
        group.linked.remove(&peer(2));
        assert_eq!(membership_plan(&group, &Strict), None, "the two that stay would have no majority");
    }

    #[test]
    fn a_retired_server_loses_its_vote_and_does_not_come_back() {
        let mut group = three();
        group.servers.insert(peer(3), ServerState::Retired);
        assert_eq!(
            membership_plan(&group, &Strict),
            Some(Change::RemoveVoter(raft(3, 1))),
            "even while linked"
        );
        group.voters.remove(&raft(3, 1));
        assert_eq!(membership_plan(&group, &Strict), None, "it is linked, but barred");
        assert_eq!(
            membership_plan(&group, &Without(Check::RetiredBarred)),
            Some(Change::AddLearner(raft(3, 1)))
        );
        group.learners.insert(raft(3, 1));
        assert_eq!(membership_plan(&group, &Strict), Some(Change::RemoveLearner(raft(3, 1))));
    }

    #[test]
    fn whoever_is_not_allowed_becomes_no_member_and_present_voters_stay() {
        let mut group = three();
        group.allowed = Some([1, 2].map(peer).into());
        assert_eq!(membership_plan(&group, &Strict), None, "the third is a voter already");
        group.linked.insert(peer(4), StoreId(1));
        assert_eq!(membership_plan(&group, &Strict), None, "the fourth is not let in");
        // Another leader has let it in as a learner, and it has caught up.
        group.learners.insert(raft(4, 1));
        group.matched.insert(raft(4, 1), 1000);
        assert_eq!(membership_plan(&group, &Strict), Some(Change::RemoveLearner(raft(4, 1))));
        group.allowed = Some([1, 2, 4].map(peer).into());
        assert_eq!(membership_plan(&group, &Strict), Some(Change::Promote(raft(4, 1))));

        // A voter that lost its disk is a voter still.
        let mut group = three();
        group.allowed = Some([1, 2].map(peer).into());
        group.linked.insert(peer(3), StoreId(2));
        assert_eq!(membership_plan(&group, &Strict), Some(Change::AddLearner(raft(3, 2))));
    }

    #[test]
    fn a_leader_does_not_take_its_own_vote() {
        let mut group = three();
        group.servers.insert(peer(1), ServerState::Retired);
        assert_eq!(membership_plan(&group, &Strict), None);
    }

    #[test]
    fn plans_converge_from_every_start() {
        // Four servers, each of which is gone, retired, back with a new disk, or as it was.
        for code in 0..256_u32 {
            let mut group = three();
            group.voters.insert(raft(4, 1));
            group.matched.insert(raft(4, 1), 1000);
            group.linked.insert(peer(4), StoreId(1));
            for number in 2..=4_u8 {
                match code >> (2 * (number - 1)) & 3 {
                    0 => {}
                    1 => {
                        group.linked.remove(&peer(number));
                    }
                    2 => {
                        group.servers.insert(peer(number), ServerState::Retired);
                    }
                    _ => {
                        group.linked.insert(peer(number), StoreId(2));
                    }
                }
            }
            let mut steps = 0;
            while let Some(change) = membership_plan(&group, &Strict) {
                let before = group.voters.clone();
                group.voters = change.voters(&group.voters);
                match change {
                    Change::AddLearner(id) => {
                        group.learners.insert(id);
                        group.matched.insert(id, group.committed);
                    }
                    Change::Promote(id)
                    | Change::RemoveLearner(id)
                    | Change::ReplaceStore { new: id, .. } => {
                        group.learners.remove(&id);
                    }
                    Change::RemoveVoter(_) => {}
                }
                assert!(group.has_majority(&group.voters), "{change} left {:?} of {before:?}", group.voters);
                steps += 1;
                assert!(steps < 20, "{code}: no end");
            }
        }
    }

    #[test]
    fn retiring_is_refused_where_the_majority_would_be_lost() {
        let removal = |voters: &[u8], alive: &[u8], target: u8, dead: bool| Removal {
            voters: voters.iter().map(|number| peer(*number)).collect(),
            alive: alive.iter().map(|number| peer(*number)).collect(),
            target: peer(target),
            listed: voters.contains(&target),
            dead,
        };
        let refused = |removal: Removal| may_retire(&removal, &Strict).expect_err("refused").to_string();
        assert!(refused(removal(&[1, 2, 3], &[1, 2, 3], 9, false)).contains("has no vote"));
        assert!(refused(removal(&[1, 2, 3], &[1, 2, 3], 3, true)).contains("it answers"));
        assert!(refused(removal(&[1, 2, 3], &[1, 2], 3, false)).contains("use --dead"));
        assert!(refused(removal(&[1, 2, 3], &[1, 3], 3, false)).contains("majority would be lost"));
        assert!(
            refused(removal(&[1, 2, 3], &[1], 3, true)).contains("1 of 3 voters answer and 2 are needed")
        );
        assert!(refused(removal(&[1], &[1], 1, false)).contains("majority would be lost"));

        assert_eq!(may_retire(&removal(&[1, 2, 3, 4], &[1, 2, 3, 4], 4, false), &Strict), Ok(None));
        let advice = may_retire(&removal(&[1, 2, 3], &[1, 2, 3], 3, false), &Strict)
            .expect("allowed")
            .expect("advice");
        assert!(advice.contains("add a server before removing one"));
        let advice =
            may_retire(&removal(&[1, 2, 3], &[1, 2], 3, true), &Strict).expect("allowed").expect("advice");
        assert!(advice.starts_with("two servers remain"));
        // Two cannot agree that one of them is gone, nor can two of four.
        assert!(refused(removal(&[1, 2], &[1, 2], 2, false)).contains("majority would be lost"));
        assert!(refused(removal(&[1, 2, 3, 4], &[1, 2, 4], 4, false)).contains("majority would be lost"));
        let advice =
            may_retire(&removal(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5], 5, false), &Strict).expect("allowed");
        assert_eq!(
            advice.expect("advice"),
            "4 servers remain: an even number tolerates no more failures than 3"
        );
    }

    #[test]
    fn a_dead_server_without_a_vote_is_retired_as_long_as_it_is_listed() {
        let left = Removal {
            voters: [peer(1), peer(2)].into(),
            alive: [peer(1), peer(2)].into(),
            target: peer(3),
            listed: true,
            dead: true,
        };
        assert!(may_retire(&left, &Strict).is_ok());
        let refused = |removal: Removal| may_retire(&removal, &Strict).expect_err("refused").to_string();
        assert!(refused(Removal { listed: false, ..left.clone() }).contains("has no vote"));
        assert!(refused(Removal { dead: false, ..left.clone() }).contains("has no vote"));
        assert!(
            refused(Removal { alive: [1, 2, 3].map(peer).into(), ..left.clone() }).contains("it answers")
        );
        assert!(refused(Removal { alive: [peer(1)].into(), ..left }).contains("1 of 2 voters answer"));
    }

    #[test]
    fn a_build_without_the_rule_loses_the_majority() {
        let removal = Removal {
            voters: [peer(1), peer(2), peer(3)].into(),
            alive: [peer(1), peer(3)].into(),
            target: peer(3),
            listed: true,
            dead: false,
        };
        assert!(may_retire(&removal, &Strict).is_err());
        assert!(may_retire(&removal, &Without(Check::MajorityKept)).is_ok());
    }
}
