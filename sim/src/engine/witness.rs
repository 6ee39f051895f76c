//! What is known of a run, folded from what nodes tell. It never tells a node anything.

use core::time::Duration;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use zipnet_core::id::{Digest, GroupId, LogId, PeerId, Round, StoreId};
use zipnet_core::machine::{Outcome, RequestId};
use zipnet_core::refused::Refused;
use zipnet_core::time::Time;
use zipnet_facts::{Fact, Farewell, Level, RoundEnd};
use zipnet_scenarios::node::Role;

use crate::cast::{Cast, NodeId};
use crate::site::{Started, Told};

/// Lines of each node's log that are kept for whoever looks for a cause.
const LINES_KEPT: usize = 64;

/// What is known of one node.
#[derive(Debug)]
pub(super) struct Known {
    home: usize,
    role: Role,
    /// A process lives.
    up: bool,
    /// Which of its processes this is, counted from one.
    process: u64,
    /// Who the latest process is.
    peer: PeerId,
    /// The group of the latest process, as far as it is known beforehand; servers only.
    group: Option<GroupId>,
    /// It deviates on purpose: what it says about rounds proves nothing.
    liar: bool,
    /// Its disk, as consensus knows it; `None` while that is lost, or before it was first used.
    pub(super) store: Option<StoreId>,
    /// Who leads, as the latest process says: the term, the leader, whether it is this node.
    pub(super) leader: Option<(u64, Option<PeerId>, bool)>,
    /// The last membership that was applied.
    pub(super) members: Option<Members>,
    /// By the `event` field: how many lines were printed.
    lines: BTreeMap<Cow<'static, str>, u64>,
    /// The same at the latest start.
    lines_at_start: BTreeMap<Cow<'static, str>, u64>,
    /// The first line of each kind since the latest start, by its place among all lines.
    first: BTreeMap<Cow<'static, str>, u64>,
    /// The newest lines.
    kept: VecDeque<(Time, Told)>,
    /// What became of messages, by process and number.
    published: BTreeMap<(u64, RequestId), Outcome>,
    /// Rounds that this node saw open and not end, with the moment of opening.
    open: BTreeMap<Digest, Time>,
    /// The longest round of this node.
    pub(super) longest_round: Option<Duration>,
}

/// Who votes.
#[derive(Clone, Debug)]
pub(super) struct Members {
    /// With which disk.
    pub(super) voters: Vec<(PeerId, StoreId)>,
    /// A change is under way.
    pub(super) joint: bool,
}

/// A moment in the run that later counts begin at.
#[derive(Clone, Debug, Default)]
pub(super) struct Mark {
    pub(super) seq: u64,
    pub(super) at: Time,
    lines: Vec<BTreeMap<Cow<'static, str>, u64>>,
}

/// A round as it was first seen to open.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) seq: u64,
    pub(super) home: usize,
    pub(super) log: LogId,
    pub(super) round: Round,
    roster: Vec<PeerId>,
}

/// Something that happened to a peer.
#[derive(Clone, Copy, Debug)]
struct About {
    seq: u64,
    peer: PeerId,
    /// Why, if it was refused.
    reason: &'static str,
}

/// What is counted over all nodes of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) elections: u64,
    pub(super) opened: u64,
    pub(super) finalized: u64,
    pub(super) abandoned: u64,
}

/// Knows everything that was told.
#[derive(Debug)]
pub(super) struct Witness {
    nodes: Vec<Known>,
    /// Rises with everything that happens.
    seq: u64,
    opened: Vec<Opened>,
    /// Which header is which entry of `opened`.
    headers: BTreeMap<Digest, usize>,
    live: BTreeSet<Digest>,
    /// By deployment: the roster of the last header that became live.
    rosters: BTreeMap<usize, Vec<PeerId>>,
    finalized: BTreeSet<(LogId, Round)>,
    /// By deployment: when rounds were finalised, oldest first.
    finalized_at: BTreeMap<usize, Vec<Time>>,
    abandoned: BTreeSet<Digest>,
    abandoned_last: u64,
    elections: BTreeSet<(usize, Option<GroupId>, u64)>,
    /// By deployment: who became leader last.
    leaders: BTreeMap<usize, PeerId>,
    leader_changed: u64,
    refused: Vec<About>,
    goodbyes: Vec<About>,
    /// Servers that have announced that they leave for good, or were retired.
    left: Vec<About>,
}

impl Witness {
    /// Nothing has happened yet.
    pub(super) fn new(cast: &Cast) -> Self {
        let known = |(_, member): (NodeId, &crate::cast::Member)| Known {
            home: member.home,
            role: member.role,
            up: false,
            process: 0,
            peer: member.peer,
            group: None,
            liar: false,
            store: None,
            leader: None,
            members: None,
            lines: BTreeMap::new(),
            lines_at_start: BTreeMap::new(),
            first: BTreeMap::new(),
            kept: VecDeque::new(),
            published: BTreeMap::new(),
            open: BTreeMap::new(),
            longest_round: None,
        };
        Self {
            nodes: cast.all().map(known).collect(),
            seq: 0,
            opened: Vec::new(),
            headers: BTreeMap::new(),
            live: BTreeSet::new(),
            rosters: BTreeMap::new(),
            finalized: BTreeSet::new(),
            finalized_at: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            abandoned_last: 0,
            elections: BTreeSet::new(),
            leaders: BTreeMap::new(),
            leader_changed: 0,
            refused: Vec::new(),
            goodbyes: Vec::new(),
            left: Vec::new(),
        }
    }

    /// A process of a node begins.
    pub(super) fn started(&mut self, node: NodeId, peer: PeerId, start: Started) {
        self.seq += 1;
        let Some(known) = self.nodes.get_mut(node) else { return };
        if known.peer != peer || known.group != start.group {
            known.members = None;
        }
        known.peer = peer;
        known.group = start.group;
        known.liar = start.liar;
        known.up = true;
        known.process += 1;
        known.leader = None;
        known.open.clear();
        known.first.clear();
        known.lines_at_start.clone_from(&known.lines);
    }

    /// A process is over.
    pub(super) fn ended(&mut self, node: NodeId) {
        self.seq += 1;
        if let Some(known) = self.nodes.get_mut(node) {
            known.up = false;
            known.leader = None;
        }
    }

    /// A disk was emptied.
    pub(super) fn disk_lost(&mut self, node: NodeId) {
        self.seq += 1;
        if let Some(known) = self.nodes.get_mut(node) {
            known.store = None;
            known.members = None;
        }
    }

    /// From this moment on the node deviates on purpose, or does no longer.
    pub(super) fn lies(&mut self, node: NodeId, liar: bool) {
        if let Some(known) = self.nodes.get_mut(node) {
            known.liar = liar;
        }
    }

    /// This moment.
    pub(super) fn mark(&self, now: Time) -> Mark {
        let lines = self.nodes.iter().map(|known| known.lines.clone()).collect();
        Mark { seq: self.seq, at: now, lines }
    }

    /// One node.
    pub(super) fn of(&self, node: NodeId) -> &Known {
        self.nodes.get(node).expect("every node is known from the beginning")
    }

    /// Lines with this `event` that a node printed since a moment.
    pub(super) fn lines_since(&self, node: NodeId, name: &str, mark: &Mark) -> u64 {
        let before = mark.lines.get(node).and_then(|lines| lines.get(name)).copied().unwrap_or(0);
        self.of(node).lines_in_all(name).saturating_sub(before)
    }

    /// Whether somebody refused this peer for a reason, or it refused itself, since a moment.
    pub(super) fn refused_since(&self, peer: PeerId, mark: &Mark, is_reason: impl Fn(&str) -> bool) -> bool {
        newer(&self.refused, mark).any(|one| one.peer == peer && is_reason(one.reason))
    }

    /// Whether a node has heard this peer say goodbye since a moment.
    pub(super) fn said_goodbye_since(&self, peer: PeerId, mark: &Mark) -> bool {
        newer(&self.goodbyes, mark).any(|one| one.peer == peer)
    }

    /// Whether the log says since a moment that this server leaves for good.
    pub(super) fn left_since(&self, peer: PeerId, mark: &Mark) -> bool {
        newer(&self.left, mark).any(|one| one.peer == peer)
    }

    /// The roster of the last live header of a deployment.
    pub(super) fn roster(&self, home: usize) -> &[PeerId] {
        self.rosters.get(&home).map_or(&[], Vec::as_slice)
    }

    /// When rounds of a deployment were finalised.
    pub(super) fn finalized_at(&self, home: usize) -> &[Time] {
        self.finalized_at.get(&home).map_or(&[], Vec::as_slice)
    }

    /// When a round was finalised anywhere for the last time.
    pub(super) fn last_finalized(&self) -> Option<Time> {
        self.finalized_at.values().filter_map(|all| all.last()).max().copied()
    }

    /// Rounds in the order in which they were first seen to open, from the given one on.
    pub(super) fn opened_from(&self, first: usize) -> &[Opened] {
        self.opened.get(first..).unwrap_or_default()
    }

    /// The place of the last abandoned round, or zero.
    pub(super) const fn abandoned_last(&self) -> u64 {
        self.abandoned_last
    }

    /// The place of the last change of a leader, or zero.
    pub(super) const fn leader_changed(&self) -> u64 {
        self.leader_changed
    }

    /// Counts over all nodes.
    pub(super) fn totals(&self) -> Totals {
        let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        Totals {
            elections: count(self.elections.len()),
            opened: count(self.opened.len()),
            finalized: count(self.finalized.len()),
            abandoned: count(self.abandoned.len()),
        }
    }

    /// Something that a node told.
    pub(super) fn told(&mut self, node: NodeId, now: Time, told: Told) {
        self.seq += 1;
        let seq = self.seq;
        if told.fact().is_some_and(|fact| fact.level() == Level::Trace) {
            // What is written and applied is for the properties.
            return;
        }
        let Some(known) = self.nodes.get_mut(node) else { return };
        if let Some(name) = told.name() {
            *known.lines.entry(name.clone()).or_default() += 1;
            known.first.entry(name).or_insert(seq);
        }
        if let Some(fact) = told.fact() {
            self.fold(node, now, fact);
        }
        let Some(known) = self.nodes.get_mut(node) else { return };
        if known.kept.len() == LINES_KEPT {
            known.kept.pop_front();
        }
        known.kept.push_back((now, told));
    }

    fn fold(&mut self, node: NodeId, now: Time, fact: &Fact) {
        let seq = self.seq;
        let Some(known) = self.nodes.get_mut(node) else { return };
        let (home, own, group, process) = (known.home, known.peer, known.group, known.process);
        let about = |peer: PeerId, reason: &'static str| About { seq, peer, reason };
        match fact {
            // Somebody has told most of it before, and reading takes no time worth measuring.
            Fact::ReadAgain { again } => {
                if matches!(
                    **again,
                    Fact::RoundOpened { .. }
                        | Fact::RoundLive { .. }
                        | Fact::RoundFinalized { .. }
                        | Fact::RoundApplied { .. }
                        | Fact::RoundAbandoned { .. }
                ) {
                    self.fold(node, now, again);
                }
                if let Some(known) = self.nodes.get_mut(node) {
                    known.open.clear();
                }
            }
            Fact::Opened { store, .. } => known.store = Some(*store),
            Fact::LogYielded { .. } => known.members = None,
            Fact::Leader { leader, term, local, .. } => {
                known.leader = Some((*term, *leader, *local));
                if *local {
                    self.elections.insert((home, group, *term));
                    let before = self.leaders.insert(home, own);
                    if before.is_some_and(|before| before != own) {
                        self.leader_changed = seq;
                    }
                }
            }
            Fact::MembersChanged { voters, stores, joint, .. } => {
                let voters = voters.iter().copied().zip(stores.iter().copied()).collect();
                known.members = Some(Members { voters, joint: *joint });
            }
            Fact::RoundOpened { log, round, header, servers, .. } => {
                known.open.insert(*header, now);
                if !self.headers.contains_key(header) {
                    self.headers.insert(*header, self.opened.len());
                    let (log, round, roster) = (*log, *round, servers.clone());
                    self.opened.push(Opened { seq, home, log, round, roster });
                }
            }
            Fact::RoundLive { header, .. } => {
                let opened = self.headers.get(header).and_then(|place| self.opened.get(*place));
                if let Some(opened) = opened
                    && self.live.insert(*header)
                {
                    self.rosters.insert(opened.home, opened.roster.clone());
                }
            }
            Fact::RoundFinalized { end: RoundEnd { log, round, header, .. } }
            | Fact::RoundApplied { end: RoundEnd { log, round, header, .. } } => {
                if let Some(opened) = known.open.remove(header) {
                    known.longest_round = known.longest_round.max(Some(now.since(opened)));
                }
                if !known.liar && self.finalized.insert((*log, *round)) {
                    self.finalized_at.entry(home).or_default().push(now);
                }
            }
            Fact::RoundAbandoned { header, .. } => {
                known.open.remove(header);
                if self.abandoned.insert(*header) {
                    self.abandoned_last = seq;
                }
            }
            Fact::Published { request, outcome, .. } => {
                known.published.insert((process, *request), *outcome);
            }
            Fact::PeerRefused { peer, reason } => self.refused.push(about(*peer, reason.name())),
            Fact::RefusedByPeer { reason, .. } => self.refused.push(about(own, reason.name())),
            Fact::HeaderUntrusted { reason, .. } => self.refused.push(about(own, reason.name())),
            Fact::HeaderDeclined { reason, .. } => {
                let leader = known.leader.and_then(|(_, leader, _)| leader);
                self.refused
                    .extend([Some(own), leader].into_iter().flatten().map(|peer| about(peer, reason.name())));
            }
            // The log refuses what the aggregator signed, whoever proposed it.
            Fact::Refused { kind, reason, from: None } if kind == "submit-aggregate" => {
                let aggregators =
                    self.nodes.iter().filter(|known| known.home == home && known.role == Role::Aggregator);
                self.refused.extend(aggregators.map(|known| about(known.peer, reason.name())));
            }
            Fact::Refused { reason, from: Some(from), .. } => self.refused.push(about(*from, reason.name())),
            Fact::ClientBarred { from } => self.refused.push(about(*from, Refused::Barred.name())),
            Fact::Unlinked { peer, reason: Some(Farewell::Departing | Farewell::Leaving), .. } => {
                self.goodbyes.push(about(*peer, ""));
            }
            Fact::ServerDeparted { server } => self.goodbyes.push(about(*server, "")),
            Fact::ServerLeaving { server } => {
                self.goodbyes.push(about(*server, ""));
                self.left.push(about(*server, ""));
            }
            Fact::ServerRetired { server, .. } => self.left.push(about(*server, "")),
            _ => {}
        }
    }
}

impl Known {
    /// Lines with this `event` in the whole run.
    pub(super) fn lines_in_all(&self, name: &str) -> u64 {
        self.lines.get(name).copied().unwrap_or(0)
    }

    /// Lines with this `event` since the latest start.
    pub(super) fn lines_since_start(&self, name: &str) -> u64 {
        let before = self.lines_at_start.get(name).copied().unwrap_or(0);
        self.lines_in_all(name).saturating_sub(before)
    }

    /// The place of the first line with this `event` since the latest start.
    pub(super) fn first(&self, name: &str) -> Option<u64> {
        self.first.get(name).copied()
    }

    /// The newest lines, oldest first.
    pub(super) fn newest_lines(&self, count: usize) -> impl Iterator<Item = String> {
        self.kept.iter().skip(self.kept.len().saturating_sub(count)).map(|(at, told)| {
            let millis = at.0 / 1_000_000;
            format!("{}.{:03} {}", millis / 1_000, millis % 1_000, told.text())
        })
    }

    /// Whether this node says that it leads.
    pub(super) fn leads(&self) -> bool {
        self.up && self.leader.is_some_and(|(_, _, me)| me)
    }

    /// Which of its processes this is.
    pub(super) const fn process(&self) -> u64 {
        self.process
    }

    /// What became of a message that this process was given.
    pub(super) fn outcome(&self, process: u64, request: RequestId) -> Option<Outcome> {
        self.published.get(&(process, request)).copied()
    }
}

fn newer<'a>(all: &'a [About], mark: &Mark) -> impl Iterator<Item = &'a About> {
    let seq = mark.seq;
    all.iter().rev().take_while(move |one| one.seq > seq)
}

#[cfg(test)]
mod tests {
    use zipnet_facts::Refusal;

    use super::*;
    use crate::random::Random;

    const SECOND: u64 = 1_000_000_000;

    /// Two servers, an aggregator and a client, all up.
    fn witness() -> Witness {
        let text = "schema = 1\ntitle = \"A cast\"\nprose = \"Four nodes.\"\n[topology]\nservers = 2\nfirst_voters = 2\naggregators = 1\n\
                    clients = 1\n[[step]]\nid = \"wait\"\nsay = \"Time passes.\"\n[[step.do]]\nwait = { for = \"1s\" }\n";
        let scenario = zipnet_scenarios::read("t.toml", text).expect("a scenario");
        let cast = Cast::new(&scenario, Random::new(1));
        let mut witness = Witness::new(&cast);
        for node in 0..cast.len() {
            start(&mut witness, node);
        }
        witness
    }

    fn start(witness: &mut Witness, node: NodeId) {
        let group = Some(GroupId([1; 32])).filter(|_| node < 2);
        witness.started(node, peer(node), Started { group, liar: false });
    }

    fn peer(node: NodeId) -> PeerId {
        PeerId([u8::try_from(node).expect("a few nodes"); 32])
    }

    fn tell(witness: &mut Witness, node: NodeId, second: u64, fact: Fact) {
        witness.told(node, Time(second * SECOND), Told::Fact(fact));
    }

    fn opened(round: u64) -> Fact {
        Fact::RoundOpened {
            log: LogId([9; 32]),
            round: Round(round),
            index: round,
            header: Digest([u8::try_from(round).expect("a few rounds"); 32]),
            servers: vec![peer(0), peer(1)],
            clients: 3,
            min_participants: 2,
            aggregator: peer(2),
        }
    }

    fn finalized(round: u64) -> Fact {
        Fact::RoundFinalized {
            end: RoundEnd {
                log: LogId([9; 32]),
                round: Round(round),
                index: round,
                term: Some(1),
                header: Digest([u8::try_from(round).expect("a few rounds"); 32]),
                record: Digest::default(),
                previous: Digest::default(),
                participants: 3,
                servers: vec![peer(0), peer(1)],
                signed: vec![peer(0), peer(1)],
                partials: vec![peer(0), peer(1)],
            },
        }
    }

    fn booting() -> Fact {
        Fact::Booting { role: zipnet_core::id::Role::Server }
    }

    #[test]
    fn lines_are_counted_since_a_mark_a_start_and_ever() {
        let mut witness = witness();
        tell(&mut witness, 0, 1, booting());
        let mark = witness.mark(Time(SECOND));
        tell(&mut witness, 0, 2, booting());
        // A line of another build has a name that this one may not know, and a panic has none.
        let text = "what it says".to_owned();
        let line = |event: Option<&str>| Told::Line {
            event: event.map(str::to_owned),
            text: text.clone(),
            fact: None,
        };
        witness.told(0, Time(2 * SECOND), line(Some("booting")));
        witness.told(0, Time(2 * SECOND), line(None));
        assert_eq!(witness.of(0).newest_lines(1).collect::<Vec<_>>(), ["2.000 what it says"]);
        start(&mut witness, 0);
        assert_eq!(witness.lines_since(0, "booting", &mark), 2);
        assert_eq!(witness.of(0).lines_in_all("booting"), 3);
        assert_eq!(witness.of(0).lines_since_start("booting"), 0);
        assert_eq!(witness.of(0).first("booting"), None);
    }

    #[test]
    fn a_round_counts_once_however_many_servers_finish_it() {
        let mut witness = witness();
        for (node, second) in [(0, 0), (1, 1)] {
            tell(&mut witness, node, second, opened(1));
            tell(&mut witness, node, second + 2, finalized(1));
        }
        let expected = Totals { elections: 0, opened: 1, finalized: 1, abandoned: 0 };
        assert_eq!(witness.totals(), expected);
        assert_eq!(witness.finalized_at(0), [Time(2 * SECOND)]);
        assert_eq!(witness.of(0).longest_round, Some(Duration::from_secs(2)));
    }

    #[test]
    fn what_is_read_again_counts_if_nobody_told_it_and_takes_no_time() {
        let mut witness = witness();
        for fact in [opened(1), finalized(1)] {
            tell(&mut witness, 0, 1, Fact::ReadAgain { again: Box::new(fact) });
        }
        tell(&mut witness, 1, 9, Fact::ReadAgain { again: Box::new(finalized(1)) });
        assert_eq!(witness.totals().finalized, 1);
        assert_eq!(witness.finalized_at(0), [Time(SECOND)]);
        assert_eq!(witness.of(0).longest_round, None);
    }

    #[test]
    fn a_round_of_a_liar_does_not_count() {
        let mut witness = witness();
        witness.lies(0, true);
        tell(&mut witness, 0, 1, finalized(1));
        assert_eq!(witness.last_finalized(), None);
        tell(&mut witness, 1, 2, finalized(1));
        assert_eq!(witness.last_finalized(), Some(Time(2 * SECOND)));
    }

    #[test]
    fn the_roster_is_that_of_the_last_live_header() {
        let mut witness = witness();
        tell(&mut witness, 0, 1, opened(1));
        assert_eq!(witness.roster(0), []);
        let header = Digest([1; 32]);
        tell(&mut witness, 0, 1, Fact::RoundLive { round: Round(1), header, refused: 0 });
        assert_eq!(witness.roster(0), [peer(0), peer(1)]);
    }

    #[test]
    fn the_refused_are_known_by_whoever_tells_it() {
        let mut witness = witness();
        let mark = witness.mark(Time(0));
        let refused = |witness: &Witness, node, reason: &str| {
            witness.refused_since(peer(node), &mark, |found| found == reason)
        };
        tell(&mut witness, 0, 1, Fact::PeerRefused { peer: peer(1), reason: Refusal::GroupProof });
        assert!(refused(&witness, 1, "group-proof") && !refused(&witness, 0, "group-proof"));
        tell(&mut witness, 0, 2, Fact::RefusedByPeer { peer: peer(1), reason: Refusal::Parameters });
        assert!(refused(&witness, 0, "parameters"));
        let fact = Fact::Refused { kind: "submit-aggregate".into(), reason: Refused::BelowFloor, from: None };
        tell(&mut witness, 0, 3, fact);
        assert!(refused(&witness, 2, "below-floor") && !refused(&witness, 1, "below-floor"));
    }

    #[test]
    fn a_leader_is_who_says_so_while_it_is_up() {
        let mut witness = witness();
        for node in [0, 1] {
            let store = Some(StoreId(1));
            tell(
                &mut witness,
                node,
                1,
                Fact::Leader { leader: Some(peer(0)), store, term: 3, local: node == 0 },
            );
        }
        assert!(witness.of(0).leads() && !witness.of(1).leads());
        witness.ended(0);
        assert!(!witness.of(0).leads());
    }

    #[test]
    fn a_goodbye_is_heard_by_others() {
        let mut witness = witness();
        let mark = witness.mark(Time(0));
        let role = zipnet_core::id::Role::Server;
        tell(&mut witness, 0, 1, Fact::Unlinked { peer: peer(1), role, reason: None });
        assert!(!witness.said_goodbye_since(peer(1), &mark));
        let reason = Some(Farewell::Departing);
        tell(&mut witness, 0, 1, Fact::Unlinked { peer: peer(1), role, reason });
        assert!(witness.said_goodbye_since(peer(1), &mark) && !witness.left_since(peer(1), &mark));
        tell(&mut witness, 0, 1, Fact::ServerRetired { server: peer(1), forced: true });
        assert!(witness.left_since(peer(1), &mark));
    }

    #[test]
    fn the_fate_of_a_message_is_told_by_the_process_that_took_it() {
        let mut witness = witness();
        let published = |outcome| Fact::Published { request: RequestId(1), outcome, round: Round(7) };
        let first = witness.of(3).process();
        tell(&mut witness, 3, 1, published(Outcome::Landed));
        start(&mut witness, 3);
        assert_eq!(witness.of(3).outcome(witness.of(3).process(), RequestId(1)), None);
        tell(&mut witness, 3, 2, published(Outcome::Collided));
        assert_eq!(witness.of(3).outcome(first, RequestId(1)), Some(Outcome::Landed));
    }

    #[test]
    fn votes_are_those_of_disks() {
        let mut witness = witness();
        let voters = vec![peer(0), peer(1)];
        let stores = vec![StoreId(4), StoreId(5)];
        tell(
            &mut witness,
            0,
            1,
            Fact::MembersChanged { index: 3, voters, stores, learners: Vec::new(), joint: false },
        );
        let members = witness.of(0).members.as_ref().expect("they were told");
        assert_eq!(members.voters, [(peer(0), StoreId(4)), (peer(1), StoreId(5))]);
        witness.disk_lost(0);
        assert!(witness.of(0).members.is_none());
    }
}
