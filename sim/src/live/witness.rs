//! What is known of a run, folded from the lines that nodes print.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use zipnet_core::id::Round;
use zipnet_core::machine::Outcome as CoreOutcome;
use zipnet_core::refused::Refused;
use zipnet_core::time::Time;
use zipnet_facts::{Fact, Farewell, RoundEnd};
use zipnet_scenarios::node::Role;
use zipnet_scenarios::verbs::Always;
use zipnet_scenarios::words::Outcome;

use super::broadcast::Broadcasts;
use super::line::{Line, short};
use super::property::{Breach, Committee, Process, Properties};
use crate::cluster::NodeId;

/// Lines of each node's log that are kept for whoever looks for a cause.
const LINES_KEPT: usize = 64;

/// Payloads that are looked for in logs, the newest ones: a log tells what happens, not what happened.
const PAYLOADS_KEPT: usize = 64;

/// Who prints.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) home: usize,
    pub(super) role: Role,
}

/// What is known of one node.
#[derive(Debug)]
pub(super) struct Known {
    subject: Subject,
    /// The first ten digits of its peer id, as lines print it.
    short: String,
    up: bool,
    /// Which of its processes this is, for the properties.
    process: Process,
    /// The committee that the process was started for; servers only.
    committee: Option<Committee>,
    /// Who leads, as the latest process says: the term, the first digits of the leader, whether it is this node.
    pub(super) leader: Option<(u64, Option<String>, bool)>,
    /// By the `event` field: how many lines were printed.
    lines: BTreeMap<String, u64>,
    /// The same at the latest start.
    lines_at_start: BTreeMap<String, u64>,
    /// The first line of each kind since the latest start, by its place among all lines.
    first: BTreeMap<String, u64>,
    kept: VecDeque<String>,
    /// What became of messages of the latest process.
    published: BTreeMap<u64, Fate>,
    /// Rounds that the latest process saw open and not end.
    open: BTreeMap<u64, Time>,
    /// The longest round of this node.
    pub(super) longest_round: Option<Duration>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// One that a scenario can ask for.
    Known(Outcome),
    /// It collided or was dropped.
    Lost,
}

/// A moment in the run that later counts begin at.
#[derive(Clone, Debug, Default)]
pub(super) struct Mark {
    pub(super) seq: u64,
    pub(super) at: Time,
    lines: Vec<BTreeMap<String, u64>>,
}

/// A round as it was first seen to open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    pub(super) seq: u64,
    pub(super) home: usize,
    pub(super) committee: Committee,
    pub(super) round: u64,
}

/// Something that happened to a peer.
#[derive(Clone, Debug)]
struct About {
    seq: u64,
    /// The first digits of the peer.
    peer: String,
    /// Why, if it was refused.
    reason: String,
}

/// Knows everything that was printed.
#[derive(Debug)]
pub(super) struct Witness {
    nodes: Vec<Known>,
    pub(super) properties: Properties,
    pub(super) broadcasts: Broadcasts,
    /// Rises with every line.
    pub(super) seq: u64,
    processes: u64,
    opened: Vec<Opened>,
    rounds: BTreeSet<(Committee, u64)>,
    finalized: BTreeSet<(Committee, u64)>,
    /// By deployment: when rounds were finalised, oldest first.
    finalized_at: BTreeMap<usize, Vec<Time>>,
    abandoned: BTreeSet<(Committee, u64)>,
    pub(super) abandoned_last: u64,
    elections: BTreeSet<(Committee, u64)>,
    /// By deployment: who became leader last.
    leaders: BTreeMap<usize, NodeId>,
    pub(super) leader_changed: u64,
    refused: Vec<About>,
    goodbyes: Vec<About>,
    left: Vec<About>,
    /// What no line may hold, for ever.
    secrets: BTreeSet<String>,
    /// What no line may hold: payloads as text and in hexadecimal.
    payloads: VecDeque<String>,
}

impl Witness {
    pub(super) fn new(subjects: impl Iterator<Item = Subject>, properties: Properties) -> Self {
        let known = |subject| Known {
            subject,
            short: String::new(),
            up: false,
            process: Process(0),
            committee: None,
            leader: None,
            lines: BTreeMap::new(),
            lines_at_start: BTreeMap::new(),
            first: BTreeMap::new(),
            kept: VecDeque::new(),
            published: BTreeMap::new(),
            open: BTreeMap::new(),
            longest_round: None,
        };
        Self {
            nodes: subjects.map(known).collect(),
            properties,
            broadcasts: Broadcasts::default(),
            seq: 0,
            processes: 0,
            opened: Vec::new(),
            rounds: BTreeSet::new(),
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
            secrets: BTreeSet::new(),
            payloads: VecDeque::new(),
        }
    }

    /// A process of a node begins. `floor` is the smallest round that it may take part in.
    pub(super) fn started(&mut self, node: NodeId, peer: &str, committee: Option<Committee>, floor: u64) {
        self.seq += 1;
        self.processes += 1;
        let process = Process(self.processes);
        let Some(known) = self.nodes.get_mut(node) else { return };
        known.short = short(peer).to_owned();
        known.up = true;
        known.process = process;
        known.committee = committee;
        known.leader = None;
        known.first.clear();
        known.open.clear();
        known.published.clear();
        known.lines_at_start = known.lines.clone();
        self.properties.started(process, node, peer, committee, floor);
    }

    /// A process is over.
    pub(super) fn ended(&mut self, node: NodeId) {
        self.seq += 1;
        if let Some(known) = self.nodes.get_mut(node) {
            known.up = false;
            known.leader = None;
        }
    }

    /// No line may hold this from now on.
    pub(super) fn keep_secret(&mut self, secret: String) {
        self.secrets.insert(secret);
    }

    /// No line may hold this payload, nor its beginning in hexadecimal. Short ones may stand in a line by chance.
    pub(super) fn keep_private(&mut self, payload: &[u8]) {
        if payload.len() < 8 {
            return;
        }
        if let Ok(text) = str::from_utf8(payload) {
            self.payloads.push_back(text.to_owned());
        }
        let hex: String = payload.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.payloads.push_back(hex);
        while self.payloads.len() > PAYLOADS_KEPT {
            self.payloads.pop_front();
        }
    }

    /// Why nothing can be said about a property, if that is so.
    pub(super) fn blind_to(&self, always: &Always) -> Option<&'static str> {
        match always {
            Always::Validity {} if !self.broadcasts.are_read() => Some("no broadcast was read"),
            _ => self.properties.blind_to(always),
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

    /// The process of a node, for the properties.
    pub(super) fn process(&self, node: NodeId) -> Process {
        self.of(node).process
    }

    /// Lines with this `event` that a node printed since a moment.
    pub(super) fn lines_since(&self, node: NodeId, name: &str, mark: &Mark) -> u64 {
        let before = mark.lines.get(node).and_then(|lines| lines.get(name)).copied().unwrap_or(0);
        self.of(node).lines_in_all(name).saturating_sub(before)
    }

    /// Whether somebody refused this peer for a reason, or it refused itself, since a moment.
    pub(super) fn refused_since(&self, peer: &str, mark: &Mark, is_reason: impl Fn(&str) -> bool) -> bool {
        newer(&self.refused, mark).any(|one| one.peer == short(peer) && is_reason(&one.reason))
    }

    /// Whether a node has heard this peer say goodbye since a moment.
    pub(super) fn said_goodbye_since(&self, peer: &str, mark: &Mark) -> bool {
        newer(&self.goodbyes, mark).any(|one| one.peer == short(peer))
    }

    /// Whether the log says since a moment that this server leaves for good.
    pub(super) fn left_since(&self, peer: &str, mark: &Mark) -> bool {
        newer(&self.left, mark).any(|one| one.peer == short(peer))
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

    /// Leaders elected, rounds opened, finalised and abandoned.
    pub(super) fn totals(&self) -> [u64; 4] {
        [self.elections.len(), self.opened.len(), self.finalized.len(), self.abandoned.len()]
            .map(|len| u64::try_from(len).unwrap_or(u64::MAX))
    }

    /// A line that a node printed, and what it says if it is one of the node's own.
    ///
    /// # Errors
    /// What it breaks.
    pub(super) fn observe(
        &mut self,
        node: NodeId,
        now: Time,
        text: &str,
        line: Option<Line>,
    ) -> Result<(), Breach> {
        self.seq += 1;
        let seq = self.seq;
        self.discreet(node, text)?;
        let Some(known) = self.nodes.get_mut(node) else { return Ok(()) };
        if known.kept.len() == LINES_KEPT {
            known.kept.pop_front();
        }
        let millis = now.0 / 1_000_000;
        let said = line.as_ref().map_or(text, |line| line.message.as_str());
        known.kept.push_back(format!("{}.{:03} {said}", millis / 1_000, millis % 1_000));
        let Some(line) = line else { return Ok(()) };
        *known.lines.entry(line.event.clone()).or_default() += 1;
        known.first.entry(line.event.clone()).or_insert(seq);
        let Some(fact) = line.fact else { return Ok(()) };
        self.fold(node, now, &fact);
        let known = self.of(node);
        let (process, name) = (known.process, known.subject.name.clone());
        self.properties.observe(process, &name, &fact)
    }

    /// No line holds a payload or a secret.
    fn discreet(&self, node: NodeId, text: &str) -> Result<(), Breach> {
        let what = if self.secrets.iter().any(|secret| text.contains(secret.as_str())) {
            "a secret"
        } else if self.payloads.iter().any(|payload| text.contains(payload.as_str())) {
            "a payload"
        } else {
            return Ok(());
        };
        let name = self.of(node).subject.name.clone();
        Err(Breach::new("discretion", name.clone(), format!("{name} printed {what} into its log")))
    }

    fn fold(&mut self, node: NodeId, now: Time, fact: &Fact) {
        let seq = self.seq;
        let Some(known) = self.nodes.get_mut(node) else { return };
        let (home, committee, own) = (known.subject.home, known.committee, known.short.clone());
        let about = |peer: String, reason: &str| About { seq, peer, reason: reason.to_owned() };
        match (fact, committee) {
            (Fact::Leader { leader, term, local, .. }, Some(committee)) => {
                known.leader = Some((*term, leader.map(|leader| leader.short()), *local));
                if *local {
                    self.elections.insert((committee, *term));
                    let before = self.leaders.insert(home, node);
                    if before.is_some_and(|before| before != node) {
                        self.leader_changed = seq;
                    }
                }
            }
            (Fact::RoundOpened { round: Round(round), .. }, Some(committee)) => {
                known.open.insert(*round, now);
                if self.rounds.insert((committee, *round)) {
                    self.opened.push(Opened { seq, home, committee, round: *round });
                }
            }
            (
                Fact::RoundFinalized { end: RoundEnd { round: Round(round), .. } }
                | Fact::RoundApplied { end: RoundEnd { round: Round(round), .. } },
                Some(committee),
            ) => {
                if let Some(opened) = known.open.remove(round) {
                    known.longest_round = known.longest_round.max(Some(now.since(opened)));
                }
                if self.finalized.insert((committee, *round)) {
                    self.finalized_at.entry(home).or_default().push(now);
                }
            }
            (Fact::RoundAbandoned { round: Round(round), .. }, Some(committee)) => {
                known.open.remove(round);
                if self.abandoned.insert((committee, *round)) {
                    self.abandoned_last = seq;
                }
            }
            (Fact::Published { request, outcome, round }, _) => {
                let fate = match outcome {
                    CoreOutcome::Landed => {
                        let (process, name) = (known.process, &known.subject.name);
                        self.broadcasts.told(process, request.0, home, name, round.0);
                        Fate::Known(Outcome::Landed)
                    }
                    CoreOutcome::Unknown => Fate::Known(Outcome::Unknown),
                    CoreOutcome::Collided | CoreOutcome::Dropped => Fate::Lost,
                };
                known.published.insert(request.0, fate);
            }
            (Fact::PeerRefused { peer, reason }, _) => {
                self.refused.push(about(peer.short(), reason.name()));
            }
            (Fact::RefusedByPeer { reason, .. }, _) => self.refused.push(about(own, reason.name())),
            (Fact::HeaderUntrusted { reason, .. }, _) => self.refused.push(about(own, reason.name())),
            (Fact::HeaderDeclined { reason, .. }, _) => {
                let leader = known.leader.as_ref().and_then(|(_, leader, _)| leader.clone());
                self.refused.push(about(own, reason.name()));
                self.refused.extend(leader.map(|leader| about(leader, reason.name())));
            }
            // The log refuses what the aggregator signed, whoever proposed it.
            (Fact::Refused { kind, reason, from: None }, _) if kind == "submit-aggregate" => {
                let aggregators = self
                    .nodes
                    .iter()
                    .filter(|known| known.subject.home == home && known.subject.role == Role::Aggregator);
                self.refused.extend(aggregators.map(|known| about(known.short.clone(), reason.name())));
            }
            (Fact::Refused { reason, from: Some(from), .. }, _) => {
                self.refused.push(about(from.short(), reason.name()));
            }
            (Fact::ClientBarred { from }, _) => {
                self.refused.push(about(from.short(), Refused::Barred.name()));
            }
            (Fact::Unlinked { peer, reason: Some(Farewell::Departing | Farewell::Leaving), .. }, _) => {
                self.goodbyes.push(about(peer.short(), ""));
            }
            (Fact::ServerDeparted { server }, _) => self.goodbyes.push(about(server.short(), "")),
            (Fact::ServerLeaving { server }, _) => {
                self.goodbyes.push(about(server.short(), ""));
                self.left.push(about(server.short(), ""));
            }
            (Fact::ServerRetired { server, .. }, _) => self.left.push(about(server.short(), "")),
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
    pub(super) fn newest_lines(&self, count: usize) -> impl Iterator<Item = &str> {
        self.kept.iter().skip(self.kept.len().saturating_sub(count)).map(String::as_str)
    }

    /// Whether this node says that it leads.
    pub(super) fn leads(&self) -> bool {
        self.up && self.leader.as_ref().is_some_and(|(_, _, me)| *me)
    }

    /// What became of a message of the latest process.
    pub(super) fn fate(&self, request: u64) -> Option<Fate> {
        self.published.get(&request).copied()
    }
}

fn newer<'a>(all: &'a [About], mark: &Mark) -> impl Iterator<Item = &'a About> {
    let seq = mark.seq;
    all.iter().rev().take_while(move |one| one.seq > seq)
}

#[cfg(test)]
pub(super) mod tests {
    use zipnet_core::id::{Digest, LogId, PeerId, StoreId};
    use zipnet_core::machine::RequestId;
    use zipnet_facts::{Account, Refusal};

    use super::super::property::Named;
    use super::*;

    /// Two servers, an aggregator and a client, all up.
    pub(in super::super) fn witness() -> Witness {
        let roles = [Role::Server, Role::Server, Role::Aggregator, Role::Client];
        let subjects = roles.into_iter().enumerate().map(|(node, role)| Subject {
            name: format!("{role}-{node}"),
            home: 0,
            role,
        });
        let mut witness = Witness::new(subjects, Properties::new(Named::default()));
        for (node, role) in roles.into_iter().enumerate() {
            let committee = (role == Role::Server).then_some(Committee(0));
            witness.started(node, &peer(node), committee, 2);
        }
        witness
    }

    pub(in super::super) fn peer(node: usize) -> String {
        format!("{node:02x}").repeat(32)
    }

    /// The id of a node, as its lines have it.
    pub(in super::super) fn peer_id(node: usize) -> PeerId {
        PeerId([u8::try_from(node).expect("a few nodes"); 32])
    }

    /// A node prints the line of a fact.
    pub(in super::super) fn print(
        witness: &mut Witness,
        node: usize,
        second: u64,
        fact: Fact,
    ) -> Result<(), Breach> {
        let text = printed(fact);
        witness.observe(node, Time(second * 1_000_000_000), &text, Line::parse(&text))
    }

    fn printed(fact: Fact) -> String {
        let message = fact.text();
        let account = Account { seq: 0, node: None, fact };
        let mut json = serde_json::to_value(&account).expect("it is data");
        json["message"] = message.into();
        json.to_string()
    }

    pub(in super::super) fn round_end(round: u64) -> RoundEnd {
        RoundEnd {
            log: LogId::default(),
            round: Round(round),
            index: 9,
            term: Some(1),
            header: Digest::default(),
            record: Digest::default(),
            previous: Digest::default(),
            participants: 3,
            servers: vec![peer_id(0), peer_id(1)],
            signed: vec![peer_id(0), peer_id(1)],
            partials: vec![peer_id(0), peer_id(1)],
        }
    }

    pub(in super::super) fn opened(round: u64, index: u64) -> Fact {
        Fact::RoundOpened {
            log: LogId::default(),
            round: Round(round),
            index,
            header: Digest::default(),
            servers: vec![peer_id(0), peer_id(1)],
            clients: 3,
            min_participants: 2,
            aggregator: peer_id(2),
        }
    }

    pub(in super::super) fn leads(node: usize, term: u64, local: bool) -> Fact {
        Fact::Leader { leader: Some(peer_id(node)), store: Some(StoreId(1)), term, local }
    }

    fn booting() -> Fact {
        Fact::Booting { role: zipnet_core::id::Role::Server }
    }

    #[test]
    fn lines_are_counted_since_a_mark_a_start_and_ever() {
        let mut witness = witness();
        print(&mut witness, 0, 1, booting()).expect("a line");
        let mark = witness.mark(Time(2));
        print(&mut witness, 0, 2, booting()).expect("a line");
        witness.started(0, &peer(0), Some(Committee(0)), 2);
        assert_eq!(witness.lines_since(0, "booting", &mark), 1);
        assert_eq!(
            (witness.of(0).lines_in_all("booting"), witness.of(0).lines_since_start("booting")),
            (2, 0)
        );
        assert_eq!(witness.of(0).first("booting"), None);
    }

    #[test]
    fn a_round_counts_once_however_many_servers_finish_it() {
        let mut witness = witness();
        for node in [0, 1] {
            let second = u64::try_from(node).expect("small");
            print(&mut witness, node, second, opened(1, 5)).expect("opened");
            print(&mut witness, node, second + 2, Fact::RoundFinalized { end: round_end(1) })
                .expect("finished");
        }
        assert_eq!(witness.totals(), [0, 1, 1, 0]);
        assert_eq!(witness.finalized_at(0), [Time(2_000_000_000)]);
        assert_eq!(witness.of(0).longest_round, Some(Duration::from_secs(2)));
    }

    #[test]
    fn the_refused_are_known_by_whoever_prints_it() {
        let mut witness = witness();
        let mark = witness.mark(Time(0));
        let refused = |witness: &Witness, node, reason: &str| {
            witness.refused_since(&peer(node), &mark, |found| found == reason)
        };
        let fact = Fact::PeerRefused { peer: peer_id(1), reason: Refusal::GroupProof };
        print(&mut witness, 0, 1, fact).expect("a line");
        assert!(refused(&witness, 1, "group-proof") && !refused(&witness, 0, "group-proof"));
        let fact = Fact::RefusedByPeer { peer: peer_id(1), reason: Refusal::Parameters };
        print(&mut witness, 0, 2, fact).expect("a line");
        assert!(refused(&witness, 0, "parameters"));
        let fact = Fact::Refused { kind: "submit-aggregate".into(), reason: Refused::BelowFloor, from: None };
        print(&mut witness, 0, 3, fact).expect("a line");
        assert!(refused(&witness, 2, "below-floor") && !refused(&witness, 1, "below-floor"));
    }

    #[test]
    fn a_leader_is_who_says_so_while_it_is_up() {
        let mut witness = witness();
        print(&mut witness, 0, 1, leads(0, 3, true)).expect("a line");
        print(&mut witness, 1, 1, leads(0, 3, false)).expect("a line");
        assert!(witness.of(0).leads() && !witness.of(1).leads());
        witness.ended(0);
        assert!(!witness.of(0).leads());
    }

    #[test]
    fn a_goodbye_is_heard_by_others() {
        let mut witness = witness();
        let mark = witness.mark(Time(0));
        let unlinked =
            |reason| Fact::Unlinked { peer: peer_id(1), role: zipnet_core::id::Role::Server, reason };
        print(&mut witness, 0, 1, unlinked(None)).expect("a line");
        assert!(!witness.said_goodbye_since(&peer(1), &mark));
        print(&mut witness, 0, 1, unlinked(Some(Farewell::Departing))).expect("a line");
        assert!(witness.said_goodbye_since(&peer(1), &mark));
        assert!(!witness.left_since(&peer(1), &mark));
        print(&mut witness, 0, 1, Fact::ServerRetired { server: peer_id(1), forced: true }).expect("a line");
        assert!(witness.left_since(&peer(1), &mark));
    }

    #[test]
    fn the_fate_of_a_message_is_that_of_the_latest_process() {
        let mut witness = witness();
        let published =
            |request, outcome| Fact::Published { request: RequestId(request), outcome, round: Round(7) };
        print(&mut witness, 3, 1, published(1, CoreOutcome::Landed)).expect("a line");
        print(&mut witness, 3, 1, published(2, CoreOutcome::Collided)).expect("a line");
        assert_eq!(witness.of(3).fate(1), Some(Fate::Known(Outcome::Landed)));
        assert_eq!(witness.of(3).fate(2), Some(Fate::Lost));
        witness.started(3, &peer(3), None, 1);
        assert_eq!(witness.of(3).fate(1), None);
    }

    #[test]
    fn a_line_with_a_secret_or_a_payload_is_a_violation() {
        let mut witness = witness();
        witness.keep_secret("5ec2e7".repeat(10));
        witness.keep_private(b"hello from nobody");
        print(&mut witness, 0, 1, Fact::Warning { text: "nothing is wrong".to_owned() }).expect("harmless");
        for text in
            [format!("the secret {}", "5ec2e7".repeat(10)), "68656c6c6f2066726f6d206e6f626f64".to_owned()]
        {
            let breach = print(&mut witness, 0, 1, Fact::Warning { text }).expect_err("it is told");
            assert_eq!(breach.property, "discretion");
        }
        let raw = witness
            .observe(1, Time(1), "thread panicked: hello from nobody", None)
            .expect_err("a raw line counts");
        assert_eq!(raw.property, "discretion");
    }
}
