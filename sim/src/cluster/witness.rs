//! What is known of a run, folded from everything that nodes report.
//!
//! The witness is the sink of the simulation: it shows each event to the properties, to the node's metrics and to the
//! tallies that conditions and checks are answered from. It never tells a node anything.

use core::future::poll_fn;
use core::task::{Poll, Waker};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zipnet_core::checks::Mixed;
use zipnet_core::id::{Digest, GroupId, LogId, PeerId, Role, Round, StoreId};
use zipnet_core::machine::{Outcome, Report, RequestId};
use zipnet_core::time::Time;
use zipnet_facts::{Fact, Level};
use zipnet_node::consensus::{self, Members};
use zipnet_node::event::Event;
use zipnet_node::frame::Farewell;
use zipnet_node::metrics::{BuildInfo, Metrics};
pub(crate) use zipnet_reports::properties::Named;
use zipnet_reports::properties::{self, Seen, Subject, Violation, Watch};

use crate::chain::{NodeIndex, Recorder};

/// Lines of each node's log that are kept for whoever looks for a cause.
const LINES_KEPT: usize = 64;

/// Knows everything that happened. Clones are the same witness.
#[derive(Clone, Debug)]
pub(crate) struct Witness(Arc<Mutex<State>>);

/// A property was broken.
#[derive(Clone, Debug)]
pub(crate) struct Breach {
    /// How.
    pub(crate) violation: Violation,
    /// The number of the event at which it was noticed.
    pub(crate) event: u64,
    /// When.
    pub(crate) at: Time,
    /// The node that reported last.
    pub(crate) node: String,
}

/// What is known of one node.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) subject: Subject,
    /// The deployment that it belongs to.
    pub(crate) home: usize,
    /// A process lives.
    pub(crate) up: bool,
    /// When the latest process began.
    pub(crate) started: Time,
    /// The group of the latest process; servers only.
    pub(crate) group: Option<GroupId>,
    /// Its disk, as consensus knows it; `None` while that is lost, or before it was first used.
    pub(crate) store: Option<StoreId>,
    /// The log that it replicates, as far as it said.
    pub(crate) log: Option<LogId>,
    pub(crate) metrics: Option<Metrics>,
    /// Who leads, as the latest process says: the term, the leader, whether it is this node.
    pub(crate) leader: Option<(u64, Option<PeerId>, bool)>,
    /// The last membership that was applied, with its index.
    pub(crate) members: Option<(u64, Members)>,
    /// By the `event` field: how many lines were printed.
    lines: BTreeMap<&'static str, u64>,
    /// The same at the latest start.
    lines_at_start: BTreeMap<&'static str, u64>,
    /// The first line of each kind since the latest start, by its place among all events.
    first: BTreeMap<&'static str, u64>,
    /// The newest lines.
    kept: VecDeque<String>,
    /// What became of messages.
    pub(crate) published: BTreeMap<RequestId, Outcome>,
    /// Rounds that this node saw open and not end, with the moment of opening.
    opened: BTreeMap<Digest, Time>,
    /// The longest round of this node.
    pub(crate) longest_round: Option<Duration>,
}

/// A moment in the run that later counts begin at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) seq: u64,
    pub(crate) at: Time,
    lines: Vec<BTreeMap<&'static str, u64>>,
}

/// A round as it was first seen to open.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) seq: u64,
    pub(crate) home: usize,
    pub(crate) log: LogId,
    pub(crate) round: Round,
    header: Digest,
    roster: Vec<PeerId>,
    /// The announced round key of each server in the roster.
    pub(crate) keys: Vec<(PeerId, zipnet_core::key::PublicKey)>,
}

/// Somebody was refused.
#[derive(Clone, Debug)]
struct RefusedOnce {
    seq: u64,
    about: PeerId,
    reason: String,
}

/// Somebody said goodbye, or was said to have left.
#[derive(Clone, Copy, Debug)]
struct Goodbye {
    seq: u64,
    peer: PeerId,
}

/// What is counted over all nodes of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) elections: u64,
    pub(crate) opened: u64,
    pub(crate) finalized: u64,
    pub(crate) abandoned: u64,
}

#[derive(Debug)]
struct State {
    recorder: Recorder,
    watch: Watch,
    nodes: Vec<Known>,
    /// Rises with every event.
    seq: u64,
    breach: Option<Breach>,
    waker: Option<Waker>,
    opened: Vec<Opened>,
    /// Which header is which entry of `opened`.
    headers: BTreeMap<Digest, usize>,
    live: BTreeMap<Digest, u64>,
    /// By deployment: the roster of the last header that became live.
    rosters: BTreeMap<usize, Vec<PeerId>>,
    finalized: BTreeSet<(LogId, Round)>,
    /// By deployment: when rounds were finalised, oldest first.
    finalized_at: BTreeMap<usize, Vec<Time>>,
    abandoned: BTreeSet<Digest>,
    abandoned_last: u64,
    elections: BTreeSet<(usize, Option<GroupId>, u64)>,
    /// By deployment: who became leader last, and the place of the last change.
    leaders: BTreeMap<usize, PeerId>,
    leader_changed: u64,
    refused: Vec<RefusedOnce>,
    goodbyes: Vec<Goodbye>,
    /// Servers that have announced that they leave for good, or were retired.
    left: Vec<Goodbye>,
}

impl Witness {
    pub(crate) fn new(recorder: Recorder, named: Named) -> Self {
        Self(Arc::new(Mutex::new(State {
            recorder,
            watch: Watch::new(named),
            nodes: Vec::new(),
            seq: 0,
            breach: None,
            waker: None,
            opened: Vec::new(),
            headers: BTreeMap::new(),
            live: BTreeMap::new(),
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
        })))
    }

    /// A node is part of the run. Called in the order of their indexes.
    pub(crate) fn enrol(&self, subject: Subject, home: usize) {
        self.state().nodes.push(Known {
            subject,
            home,
            up: false,
            started: Time::default(),
            group: None,
            store: None,
            log: None,
            metrics: None,
            leader: None,
            members: None,
            lines: BTreeMap::new(),
            lines_at_start: BTreeMap::new(),
            first: BTreeMap::new(),
            kept: VecDeque::new(),
            published: BTreeMap::new(),
            opened: BTreeMap::new(),
            longest_round: None,
        });
    }

    /// A process of a node begins.
    pub(crate) fn started(&self, node: NodeIndex, now: Time, peer: PeerId, start: Start<'_>) {
        let mut state = self.state();
        state.seq += 1;
        let Some(known) = state.known(node) else { return };
        if known.subject.peer != peer || known.group != start.group {
            known.log = None;
            known.members = None;
        }
        known.subject.peer = peer;
        known.up = true;
        known.started = now;
        known.group = start.group;
        known.leader = None;
        known.opened.clear();
        known.first.clear();
        known.lines_at_start = known.lines.clone();
        known.metrics = Some(Metrics::new(now, start.instance, peer, &start.build, start.floor));
        state.judge(node, now, Seen::Started(properties::Start { group: start.group }));
    }

    /// A process ended by itself.
    pub(crate) fn exited(&self, node: NodeIndex, now: Time, code: u8) {
        self.ended(node, now, Seen::Exited { code });
    }

    /// A process was ended from outside.
    pub(crate) fn killed(&self, node: NodeIndex, now: Time) {
        self.ended(node, now, Seen::Killed);
    }

    fn ended(&self, node: NodeIndex, now: Time, seen: Seen<'_>) {
        let mut state = self.state();
        state.seq += 1;
        if let Some(known) = state.known(node) {
            known.up = false;
            known.leader = None;
        }
        state.judge(node, now, seen);
    }

    /// A disk was emptied.
    pub(crate) fn disk_lost(&self, node: NodeIndex, now: Time) {
        let mut state = self.state();
        state.seq += 1;
        if let Some(known) = state.known(node) {
            known.store = None;
            known.log = None;
            known.members = None;
        }
        state.judge(node, now, Seen::DiskLost);
    }

    /// From this moment on this property is not judged.
    pub(crate) fn waive(&self, property: &str) {
        self.state().watch.waive(property);
    }

    /// From this moment on the node deviates on purpose, or does no longer.
    pub(crate) fn lies(&self, node: NodeIndex, liar: bool) {
        if let Some(known) = self.state().known(node) {
            known.subject.liar = liar;
        }
    }

    /// Something that a node reports.
    pub(crate) fn observe(&self, node: NodeIndex, now: Time, event: &Event) {
        self.state().observe(node, now, event);
    }

    /// A vector that a node's keyring has made.
    pub(crate) fn mixed(&self, node: NodeIndex, now: Time, mixed: &Mixed<'_>) {
        self.state().judge(node, now, Seen::Mixed(mixed));
    }

    /// How many finalised rounds had a crowd of each size.
    pub(crate) fn crowds(&self) -> BTreeMap<u64, u64> {
        self.state().watch.crowds()
    }

    /// The first breach, if there was one.
    pub(crate) fn breach(&self) -> Option<Breach> {
        self.state().breach.clone()
    }

    /// Resolves when a property is broken.
    pub(crate) async fn broken(&self) {
        poll_fn(|context| {
            let mut state = self.state();
            if state.breach.is_some() {
                return Poll::Ready(());
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// This moment.
    pub(crate) fn mark(&self, now: Time) -> Mark {
        let state = self.state();
        let lines = state.nodes.iter().map(|known| known.lines.clone()).collect();
        Mark { seq: state.seq, at: now, lines }
    }

    /// Asks about one node.
    pub(crate) fn of<T>(&self, node: usize, ask: impl FnOnce(&Known) -> T) -> T {
        ask(self.state().nodes.get(node).expect("every node is enrolled when the run begins"))
    }

    /// Lines with this `event` that a node printed since a moment.
    pub(crate) fn lines_since(&self, node: usize, name: &str, mark: &Mark) -> u64 {
        let before = mark.lines.get(node).and_then(|lines| lines.get(name)).copied().unwrap_or(0);
        self.of(node, |known| known.lines_in_all(name)).saturating_sub(before)
    }

    /// Whether somebody refused this peer for a reason, or it refused itself, since a moment.
    pub(crate) fn refused_since(&self, about: PeerId, mark: &Mark, is_reason: impl Fn(&str) -> bool) -> bool {
        let state = self.state();
        let mut newest = state.refused.iter().rev().take_while(|refused| refused.seq > mark.seq);
        newest.any(|refused| refused.about == about && is_reason(&refused.reason))
    }

    /// Whether a node that is up has heard this peer say goodbye since a moment.
    pub(crate) fn said_goodbye_since(&self, peer: PeerId, mark: &Mark) -> bool {
        self.state()
            .goodbyes
            .iter()
            .rev()
            .take_while(|goodbye| goodbye.seq > mark.seq)
            .any(|one| one.peer == peer)
    }

    /// Whether the log says since a moment that this server leaves for good.
    pub(crate) fn left_since(&self, peer: PeerId, mark: &Mark) -> bool {
        self.state().left.iter().rev().take_while(|one| one.seq > mark.seq).any(|one| one.peer == peer)
    }

    /// The roster of the last live header of a deployment.
    pub(crate) fn roster(&self, home: usize) -> Option<Vec<PeerId>> {
        self.state().rosters.get(&home).cloned()
    }

    /// When rounds of a deployment were finalised.
    pub(crate) fn finalized_at(&self, home: usize) -> Vec<Time> {
        self.state().finalized_at.get(&home).cloned().unwrap_or_default()
    }

    /// When a round was finalised anywhere for the last time.
    pub(crate) fn last_finalized(&self) -> Option<Time> {
        self.state().finalized_at.values().filter_map(|all| all.last()).max().copied()
    }

    /// Rounds in the order in which they were first seen to open, from the given one on.
    pub(crate) fn opened_from(&self, first: usize) -> Vec<Opened> {
        self.state().opened.get(first..).unwrap_or_default().to_vec()
    }

    /// The place of the last abandoned round, or zero.
    pub(crate) fn abandoned_last(&self) -> u64 {
        self.state().abandoned_last
    }

    /// The place of the last change of a leader, or zero.
    pub(crate) fn leader_changed(&self) -> u64 {
        self.state().leader_changed
    }

    /// Counts over all nodes.
    pub(crate) fn totals(&self) -> Totals {
        let state = self.state();
        let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        Totals {
            elections: count(state.elections.len()),
            opened: count(state.opened.len()),
            finalized: count(state.finalized.len()),
            abandoned: count(state.abandoned.len()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a process begins.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) instance: &'a str,
    pub(crate) build: BuildInfo,
    pub(crate) floor: Option<u32>,
    pub(crate) group: Option<GroupId>,
}

impl Known {
    /// Lines with this `event` in the whole run.
    pub(crate) fn lines_in_all(&self, name: &str) -> u64 {
        self.lines.get(name).copied().unwrap_or(0)
    }

    /// Lines with this `event` since the latest start.
    pub(crate) fn lines_since_start(&self, name: &str) -> u64 {
        let before = self.lines_at_start.get(name).copied().unwrap_or(0);
        self.lines_in_all(name).saturating_sub(before)
    }

    /// The place of the first line with this `event` since the latest start.
    pub(crate) fn first(&self, name: &str) -> Option<u64> {
        self.first.get(name).copied()
    }

    /// The newest lines, oldest first.
    pub(crate) fn newest_lines(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().map(String::as_str)
    }

    /// Whether this node says that it leads.
    pub(crate) fn leads(&self) -> bool {
        self.up && self.leader.is_some_and(|(_, _, me)| me)
    }

    fn printed(&mut self, seq: u64, now: Time, fact: &Fact) {
        if fact.level() == Level::Trace {
            return;
        }
        let line = fact.line();
        *self.lines.entry(line.name).or_default() += 1;
        self.first.entry(line.name).or_insert(seq);
        if self.kept.len() == LINES_KEPT {
            self.kept.pop_front();
        }
        let millis = now.0 / 1_000_000;
        self.kept.push_back(format!("{}.{:03} {}", millis / 1_000, millis % 1_000, line.text));
    }
}

impl State {
    fn known(&mut self, node: NodeIndex) -> Option<&mut Known> {
        self.nodes.get_mut(usize::try_from(node.0).ok()?)
    }

    fn observe(&mut self, node: NodeIndex, now: Time, event: &Event) {
        self.seq += 1;
        let seq = self.seq;
        let fact = event.fact();
        let Some(known) = self.known(node) else { return };
        if let Some(fact) = &fact {
            known.printed(seq, now, fact);
        }
        if let Some(metrics) = &mut known.metrics {
            metrics.observe(now, event);
        }
        let (home, peer, group) = (known.home, known.subject.peer, known.group);
        match event {
            Event::Core(report) => self.reported(node, now, report),
            Event::Past(report) => self.read_again(node, now, report),
            Event::Consensus(consensus::Event::Leader { term, leader, me }) => {
                known.leader = Some((*term, leader.map(|leader| leader.peer), *me));
                if *me {
                    self.elections.insert((home, group, *term));
                    let before = self.leaders.insert(home, peer);
                    if before.is_some_and(|before| before != peer) {
                        self.leader_changed = seq;
                    }
                }
            }
            Event::Consensus(consensus::Event::MembersChanged { index, members }) => {
                known.members = Some((*index, members.clone()));
            }
            Event::Opened { store, .. } => known.store = Some(*store),
            Event::LogYielded { other, .. } => {
                known.log = Some(*other);
                known.members = None;
            }
            Event::PeerRefused { peer: about, reason } => self.refuse(*about, reason.name()),
            Event::RefusedByPeer { reason, .. } => self.refuse(peer, reason.name()),
            Event::Unlinked { peer, farewell: Some(Farewell::Departing | Farewell::Leaving), .. } => {
                self.goodbyes.push(Goodbye { seq, peer: *peer });
            }
            _ => {}
        }
        for seen in fact.iter().map(Seen::Fact).chain(beyond_facts(event)) {
            self.judge(node, now, seen);
        }
    }

    fn refuse(&mut self, about: PeerId, reason: impl Into<String>) {
        self.refused.push(RefusedOnce { seq: self.seq, about, reason: reason.into() });
    }

    fn reported(&mut self, node: NodeIndex, now: Time, report: &Report) {
        let seq = self.seq;
        let Some(known) = self.known(node) else { return };
        let (home, peer, liar) = (known.home, known.subject.peer, known.subject.liar);
        match report {
            Report::LogStarted { log } => known.log = Some(*log),
            Report::RoundOpened { header, digest, .. } => {
                known.log = Some(header.log);
                known.opened.insert(*digest, now);
                if !self.headers.contains_key(digest) {
                    self.headers.insert(*digest, self.opened.len());
                    self.opened.push(Opened {
                        seq,
                        home,
                        log: header.log,
                        round: header.round,
                        header: *digest,
                        roster: header.servers.iter().map(|server| server.peer).collect(),
                        keys: header.servers.iter().map(|server| (server.peer, server.round_key)).collect(),
                    });
                }
            }
            Report::HeaderLive { header, .. } => {
                if !self.live.contains_key(header)
                    && let Some(opened) = self.headers.get(header).and_then(|place| self.opened.get(*place))
                {
                    self.live.insert(opened.header, seq);
                    self.rosters.insert(opened.home, opened.roster.clone());
                }
            }
            Report::RoundFinalized { record, .. } => {
                if let Some(opened) = known.opened.remove(&record.header) {
                    known.longest_round = known.longest_round.max(Some(now.since(opened)));
                }
                if !liar && self.finalized.insert((record.log, record.round)) {
                    self.finalized_at.entry(home).or_default().push(now);
                }
            }
            Report::RoundAbandoned { header, .. } => {
                known.opened.remove(header);
                if self.abandoned.insert(*header) {
                    self.abandoned_last = seq;
                }
            }
            Report::ServerDeparted { server } => self.goodbyes.push(Goodbye { seq, peer: *server }),
            Report::ServerLeaving { server } => {
                self.goodbyes.push(Goodbye { seq, peer: *server });
                self.left.push(Goodbye { seq, peer: *server });
            }
            Report::ServerRetired { server, .. } => self.left.push(Goodbye { seq, peer: *server }),
            Report::Published { request, outcome, .. } => {
                known.published.insert(*request, *outcome);
            }
            Report::Refused { reason, from: Some(from), .. } => self.refuse(*from, reason.name()),
            // The log refuses what the aggregator signed, whoever proposed it.
            Report::Refused { kind: "submit-aggregate", reason, from: None } => {
                let aggregators = self.nodes.iter().map(|known| (known.home, &known.subject));
                let aggregators =
                    aggregators.filter(|(other, subject)| *other == home && subject.role == Role::Aggregator);
                let about: Vec<_> = aggregators.map(|(_, subject)| subject.peer).collect();
                for peer in about {
                    self.refuse(peer, reason.name());
                }
            }
            Report::HeaderDeclined { reason, .. } => {
                let leader = known.leader.and_then(|(_, leader, _)| leader);
                self.refuse(peer, reason.name());
                if let Some(leader) = leader {
                    self.refuse(leader, reason.name());
                }
            }
            Report::HeaderUntrusted { reason, .. } => self.refuse(peer, reason.name()),
            _ => {}
        }
    }

    /// What a server reads of the time before it took part. Somebody has reported most of it before.
    fn read_again(&mut self, node: NodeIndex, now: Time, report: &Report) {
        match report {
            Report::LogStarted { .. }
            | Report::RoundOpened { .. }
            | Report::HeaderLive { .. }
            | Report::RoundFinalized { .. }
            | Report::RoundAbandoned { .. } => self.reported(node, now, report),
            _ => {}
        }
        // Reading takes no time worth measuring.
        if let Some(known) = self.known(node) {
            known.opened.clear();
        }
    }

    fn judge(&mut self, node: NodeIndex, now: Time, seen: Seen<'_>) {
        if self.breach.is_some() {
            return;
        }
        let Some(known) = usize::try_from(node.0).ok().and_then(|node| self.nodes.get(node)) else { return };
        if let Err(violation) = self.watch.see(now, &known.subject, seen) {
            let name = known.subject.name.clone();
            self.break_off(violation, now, name);
        }
    }

    fn break_off(&mut self, violation: Violation, at: Time, node: String) {
        // The event itself was recorded before it was shown.
        let event = self.recorder.events().saturating_sub(1);
        self.breach = Some(Breach { violation, event, at, node });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What no fact tells of an event.
fn beyond_facts(event: &Event) -> Option<Seen<'_>> {
    match event {
        Event::Finished { report: Report::RoundFinalized { record, .. }, .. }
        | Event::Past(Report::RoundFinalized { record, .. })
        | Event::Core(Report::RecordSeen { record, .. }) => Some(Seen::Record(record)),
        Event::Core(Report::Sealed { header, request: Some(request), .. }) => {
            Some(Seen::Sealed { request: *request, header: *header })
        }
        _ => None,
    }
}

/// The roles of the core by those of scenarios.
pub(crate) const fn role(role: zipnet_scenarios::node::Role) -> Role {
    match role {
        zipnet_scenarios::node::Role::Server => Role::Server,
        zipnet_scenarios::node::Role::Aggregator => Role::Aggregator,
        zipnet_scenarios::node::Role::Client => Role::Client,
    }
}
