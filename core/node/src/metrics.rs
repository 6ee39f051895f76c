//! Numbers for monitoring, folded from events and written as Prometheus text.
//!
//! Names and labels are those of the operator contract, and the test below holds the whole text. None singles out a
//! client, a slot or a payload. Everything is counted in whole numbers; durations are milliseconds inside and written as
//! seconds.

use core::fmt::Write as _;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::id::{PeerId, Role};
use zipnet_core::machine::Report;
use zipnet_core::time::Time;

use crate::consensus;
use crate::event::{Event, Holds};
use crate::frame::Refusal;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    /// Milliseconds, written as seconds.
    GaugeSeconds,
    /// Of milliseconds, written as seconds.
    Histogram,
}

const LEADER_IS_LOCAL: &str = "mosaik_groups_leader_is_local";
const BONDS: &str = "mosaik_groups_bonds";
const COMMITTED_INDEX: &str = "mosaik_groups_committed_index";
const FINALIZED: &str = "zipnet_rounds_finalized_total";
const OPENED: &str = "zipnet_rounds_opened_total";
const ABANDONED: &str = "zipnet_rounds_abandoned_total";
const PARTIALS: &str = "zipnet_partials_submitted_total";
const CLIENTS: &str = "zipnet_client_registry_size";
const CLIENTS_REFUSED: &str = "zipnet_clients_refused_total";
const SERVERS: &str = "zipnet_server_registry_size";
const PARTICIPANTS: &str = "zipnet_round_participants";
const MIN_PARTICIPANTS: &str = "zipnet_min_participants";
const ROSTER: &str = "zipnet_roster_servers";
const ROSTER_LIVE: &str = "zipnet_roster_servers_live";
const ROUND_DURATION: &str = "zipnet_round_duration_seconds";
const STALLED: &str = "zipnet_round_stalled_seconds";
const STALL_CAUSE: &str = "zipnet_round_stall_cause";
const ENVELOPES_MISSING: &str = "zipnet_round_envelopes_missing";
const REJECTED: &str = "zipnet_rejected_total";
const ATTESTATION_REJECTED: &str = "zipnet_attestation_rejected_total";
const BUILD_INFO: &str = "zipnet_build_info";

/// Every metric by name, with its help text.
const TABLE: &[(&str, Kind, &str)] = &[
    (BONDS, Kind::Gauge, "Whether this node is linked with a server or the aggregator."),
    (COMMITTED_INDEX, Kind::Gauge, "The last position of the log that this server has applied."),
    (LEADER_IS_LOCAL, Kind::Gauge, "Whether this server leads. Exactly one 1 across a healthy committee."),
    (ATTESTATION_REJECTED, Kind::Counter, "Peers refused for what they run on."),
    (BUILD_INFO, Kind::Gauge, "Always 1; the labels say what this binary is."),
    (CLIENTS, Kind::Gauge, "Clients in the registry."),
    (CLIENTS_REFUSED, Kind::Counter, "Refusals of clients that were applied, by server."),
    (MIN_PARTICIPANTS, Kind::Gauge, "The smallest round this server takes part in."),
    (PARTIALS, Kind::Counter, "Partials of this server that stand in the log."),
    (REJECTED, Kind::Counter, "Messages, commands and links refused."),
    (ROSTER, Kind::Gauge, "Servers in the roster of the last opened round."),
    (ROSTER_LIVE, Kind::Gauge, "Servers of that roster that this server is linked with, itself included."),
    (ROUND_DURATION, Kind::Histogram, "From the opening of a round to its broadcast."),
    (
        ENVELOPES_MISSING,
        Kind::Gauge,
        "Clients that take no part in the open round, by their own reason or absent, once too few do.",
    ),
    (PARTICIPANTS, Kind::Gauge, "Participants of the last finalised round."),
    (STALL_CAUSE, Kind::Gauge, "Whether this is why rounds stall, as status names it."),
    (STALLED, Kind::GaugeSeconds, "How long ago a round was last finalised, or this node started."),
    (ABANDONED, Kind::Counter, "Rounds given up."),
    (FINALIZED, Kind::Counter, "Rounds finalised."),
    (OPENED, Kind::Counter, "Rounds opened."),
    (SERVERS, Kind::Gauge, "Registered, undeparted servers."),
];

/// Upper bounds of the histogram in milliseconds, from a LAN's round to the default deadline and beyond.
const BUCKETS_MS: [u64; 12] =
    [100, 250, 500, 1_000, 2_000, 3_000, 5_000, 8_000, 12_000, 15_000, 30_000, 60_000];

/// Labels in name order, without `instance_name`, which every metric has.
type Labels = Vec<(&'static str, String)>;

/// The numbers of one node.
#[derive(Clone, Debug)]
pub struct Metrics {
    instance_name: String,
    own: PeerId,
    values: BTreeMap<(&'static str, Labels), u64>,
    durations: Durations,
    /// Of the last opened round.
    roster: BTreeSet<PeerId>,
    /// Linked servers.
    linked: BTreeSet<PeerId>,
    /// When the open round was opened.
    opened: Option<Time>,
    /// When a round was last finalised, or this node started.
    finalized: Time,
}

#[derive(Clone, Debug, Default)]
struct Durations {
    /// Rounds that took at most as long as the bucket says and longer than the one before.
    buckets: [u64; BUCKETS_MS.len()],
    count: u64,
    sum_ms: u64,
}

/// What the labels of `zipnet_build_info` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// Of the package.
    pub version: String,
    /// How messages are encoded.
    pub wire_version: u8,
    /// How the committee machine applies commands.
    pub machine_version: u32,
    /// What the node is.
    pub role: Role,
}

impl Metrics {
    /// All counters at zero. `min_participants` is a server's floor.
    #[must_use]
    pub fn new(
        now: Time,
        instance_name: &str,
        own: PeerId,
        build: &BuildInfo,
        min_participants: Option<u32>,
    ) -> Self {
        let mut metrics = Self {
            instance_name: instance_name.to_owned(),
            own,
            values: BTreeMap::new(),
            durations: Durations::default(),
            roster: BTreeSet::new(),
            linked: BTreeSet::new(),
            opened: None,
            finalized: now,
        };
        let labels = vec![
            ("machine_version", build.machine_version.to_string()),
            ("role", build.role.name().to_owned()),
            ("version", build.version.clone()),
            ("wire_version", build.wire_version.to_string()),
        ];
        metrics.values.insert((BUILD_INFO, labels), 1);
        if let Some(floor) = min_participants {
            metrics.set(MIN_PARTICIPANTS, floor.into());
        }
        match build.role {
            Role::Server => {
                for name in [LEADER_IS_LOCAL, COMMITTED_INDEX, FINALIZED, OPENED, PARTIALS, CLIENTS, SERVERS]
                {
                    metrics.set(name, 0);
                }
                for name in [PARTICIPANTS, ROSTER, ROSTER_LIVE] {
                    metrics.set(name, 0);
                }
            }
            Role::Aggregator => metrics.set(CLIENTS, 0),
            Role::Client => {}
        }
        metrics
    }

    /// Takes in an event.
    pub fn observe(&mut self, now: Time, event: &Event) {
        match event {
            Event::Core(report) => self.report(now, report),
            Event::Consensus(event) => self.consensus(event),
            Event::Restored { index, .. } => self.committed(*index),
            Event::Holds(Holds { servers, clients, roster }) => {
                self.set(SERVERS, (*servers).into());
                self.set(CLIENTS, (*clients).into());
                self.roster = roster.iter().copied().collect();
                self.count_roster();
            }
            Event::PartialSubmitted { .. } => self.add(PARTIALS, Labels::new()),
            Event::Stalled { causes } => {
                self.clear(STALL_CAUSE);
                for cause in causes {
                    self.values.insert((STALL_CAUSE, vec![("cause", cause.name().to_owned())]), 1);
                }
            }
            Event::GoesOn => self.clear(STALL_CAUSE),
            Event::Linked { peer, role } => self.bond(*peer, *role, true),
            Event::Unlinked { peer, role, .. } => self.bond(*peer, *role, false),
            Event::PeerRefused { reason, .. } => {
                self.reject("hello", reason.name());
                if *reason == Refusal::Attestation {
                    self.add(ATTESTATION_REJECTED, vec![("reason", reason.name().to_owned())]);
                }
            }
            Event::Rejected { kind, reason, .. } => self.reject(kind, reason),
            Event::Spawning { .. }
            | Event::Up { .. }
            | Event::Booting { .. }
            | Event::Opened { .. }
            | Event::Finished { .. }
            | Event::Past(_)
            | Event::OpeningRound { .. }
            | Event::RefusedByPeer { .. }
            | Event::Challenged { .. }
            | Event::DialFailed { .. }
            | Event::GossipAlive { .. }
            | Event::GossipDead { .. }
            | Event::MembershipChange(_)
            | Event::Founding { .. }
            | Event::LogYielded { .. }
            | Event::Departing
            | Event::Exiting { .. }
            | Event::Warned(_)
            | Event::Fatal(_) => {}
        }
    }

    /// A value by name and labels, without `instance_name`: `None` if it was never set. Of the histogram there are
    /// `_count`, `_sum` in milliseconds, and `_bucket` with the label `le` in seconds.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        if let Some(part) = name.strip_prefix(ROUND_DURATION) {
            return self.durations.value(part, labels);
        }
        let wanted = |(metric, have): &&(&'static str, Labels)| {
            *metric == name
                && have.len() == labels.len()
                && labels.iter().all(|(name, value)| have.iter().any(|(n, v)| n == name && v == value))
        };
        let key = self.values.keys().find(wanted)?;
        self.values.get(key).copied()
    }

    /// The sum of a metric over all its labels.
    #[must_use]
    pub fn total(&self, name: &str) -> u64 {
        let values = self.values.iter().filter(|((metric, _), _)| *metric == name);
        values.map(|(_, value)| value).sum()
    }

    /// How long ago a round was last finalised, or the node started.
    #[must_use]
    pub const fn stalled(&self, now: Time) -> Duration {
        now.since(self.finalized)
    }

    /// The text that Prometheus reads. Sorted, so that equal numbers give equal texts.
    #[must_use]
    pub fn render(&self, now: Time) -> String {
        let mut text = String::new();
        for (name, kind, help) in TABLE {
            let mut lines = String::new();
            match kind {
                Kind::Counter | Kind::Gauge => {
                    for ((_, labels), value) in self.values.iter().filter(|((metric, _), _)| metric == name) {
                        self.line(&mut lines, name, labels, &value.to_string());
                    }
                }
                Kind::GaugeSeconds => {
                    if self.values.contains_key(&(FINALIZED, Labels::new())) {
                        let stalled = u64::try_from(self.stalled(now).as_millis()).unwrap_or(u64::MAX);
                        self.line(&mut lines, name, &[], &seconds(stalled));
                    }
                }
                Kind::Histogram => self.histogram(&mut lines, name),
            }
            if lines.is_empty() {
                continue;
            }
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge | Kind::GaugeSeconds => "gauge",
                Kind::Histogram => "histogram",
            };
            write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}").expect(INFALLIBLE);
        }
        text
    }

    fn report(&mut self, now: Time, report: &Report) {
        match report {
            Report::RoundOpened { index, .. } => {
                self.committed(*index);
                self.add(OPENED, Labels::new());
                self.opened = Some(now);
            }
            Report::AggregateApplied { index, .. } | Report::PartialApplied { index, .. } => {
                self.committed(*index)
            }
            Report::TurnoutLow { turnout, .. } => {
                self.clear(ENVELOPES_MISSING);
                let declined = turnout.declined.iter().map(|(reason, clients)| (reason.name(), *clients));
                for (reason, clients) in declined.chain([("absent", turnout.absent)]) {
                    self.values
                        .insert((ENVELOPES_MISSING, vec![("reason", reason.to_owned())]), clients.into());
                }
            }
            Report::AggregateForwarded { .. } => self.clear(ENVELOPES_MISSING),
            Report::RoundFinalized { index, record, rostered, .. } => {
                self.clear(ENVELOPES_MISSING);
                self.committed(*index);
                self.add(FINALIZED, Labels::new());
                self.set(PARTICIPANTS, record.participants.count_ones().into());
                self.finalized = now;
                // Rounds that are caught up with take no time worth measuring.
                if let Some(opened) = self.opened.take().filter(|_| *rostered) {
                    self.durations.add(now.since(opened));
                }
            }
            Report::RoundAbandoned { index, reason, .. } => {
                self.committed(*index);
                self.add(ABANDONED, vec![("reason", reason.name().to_owned())]);
                self.opened = None;
            }
            // Of an aggregator; a server's stands in its state as well.
            Report::ClientsChanged { count, .. } => self.set(CLIENTS, (*count).into()),
            Report::ClientRefused { server, .. } => {
                self.add(CLIENTS_REFUSED, vec![("server", server.short())]);
            }
            Report::Refused { kind, reason, .. } => self.reject(kind, reason.name()),
            Report::HeaderDeclined { reason, .. } => self.reject("header", reason.name()),
            Report::HeaderUntrusted { reason, .. } => self.reject("live-header", reason.name()),
            Report::RecordsMissing { .. } => self.reject("record", "missing"),
            Report::RecordContradicted { .. } => self.reject("record", "contradicted"),
            Report::LogStarted { .. }
            | Report::HeaderLive { .. }
            | Report::RecordConfirmed { .. }
            | Report::ServerRegistered { .. }
            | Report::ServerDeparted { .. }
            | Report::ServerLeaving { .. }
            | Report::ServerRetired { .. }
            | Report::AggregatorRegistered { .. }
            | Report::RefusalWithdrawn { .. }
            | Report::HeaderSigned { .. }
            | Report::PartialMade { .. }
            | Report::Disclaimed { .. }
            | Report::ClientSeen { .. }
            | Report::Enrolled { .. }
            | Report::ServersBelieved { .. }
            | Report::Sealed { .. }
            | Report::Published { .. }
            | Report::RecordSeen { .. } => {}
        }
    }

    fn consensus(&mut self, event: &consensus::Event) {
        match event {
            consensus::Event::Leader { me, .. } => self.set(LEADER_IS_LOCAL, (*me).into()),
            consensus::Event::Applied { index, .. }
            | consensus::Event::MembersChanged { index, .. }
            | consensus::Event::SnapshotInstalled { index } => self.committed(*index),
            consensus::Event::Failed { .. } => self.set(LEADER_IS_LOCAL, 0),
            consensus::Event::Voted { .. }
            | consensus::Event::VoteSynced { .. }
            | consensus::Event::Appended { .. }
            | consensus::Event::Truncated { .. }
            | consensus::Event::Refused { .. }
            | consensus::Event::SnapshotTaken { .. } => {}
        }
    }

    /// Only servers and the aggregator have a line of their own; a client's would single it out.
    fn bond(&mut self, peer: PeerId, role: Role, linked: bool) {
        match role {
            Role::Client => return,
            Role::Aggregator => {}
            Role::Server => {
                if linked {
                    self.linked.insert(peer);
                } else {
                    self.linked.remove(&peer);
                }
            }
        }
        self.values.insert((BONDS, vec![("peer", peer.short())]), linked.into());
        self.count_roster();
    }

    fn count_roster(&mut self) {
        if !self.values.contains_key(&(ROSTER, Labels::new())) {
            return;
        }
        let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let live = self.roster.iter().filter(|peer| **peer == self.own || self.linked.contains(peer)).count();
        self.set(ROSTER, count(self.roster.len()));
        self.set(ROSTER_LIVE, count(live));
    }

    fn committed(&mut self, index: u64) {
        let value = self.values.entry((COMMITTED_INDEX, Labels::new())).or_default();
        *value = index.max(*value);
    }

    fn reject(&mut self, kind: &str, reason: &str) {
        self.add(REJECTED, vec![("kind", kind.to_owned()), ("reason", reason.to_owned())]);
    }

    fn set(&mut self, name: &'static str, value: u64) {
        self.values.insert((name, Labels::new()), value);
    }

    /// Whatever labels a gauge has had, none of them counts any more.
    fn clear(&mut self, name: &'static str) {
        let known = self.values.iter_mut().filter(|((metric, _), _)| *metric == name);
        known.for_each(|(_, value)| *value = 0);
    }

    fn add(&mut self, name: &'static str, labels: Labels) {
        let value = self.values.entry((name, labels)).or_default();
        *value = value.saturating_add(1);
    }

    fn line(&self, text: &mut String, name: &str, labels: &[(&'static str, String)], value: &str) {
        write!(text, "{name}{{instance_name=\"{}\"", escaped(&self.instance_name)).expect(INFALLIBLE);
        for (label, content) in labels {
            write!(text, ",{label}=\"{}\"", escaped(content)).expect(INFALLIBLE);
        }
        writeln!(text, "}} {value}").expect(INFALLIBLE);
    }

    fn histogram(&self, text: &mut String, name: &str) {
        if !self.values.contains_key(&(FINALIZED, Labels::new())) {
            return;
        }
        let mut below: u64 = 0;
        let bucket = format!("{name}_bucket");
        for (bound, count) in BUCKETS_MS.iter().zip(self.durations.buckets) {
            below = below.saturating_add(count);
            self.line(text, &bucket, &[("le", seconds(*bound))], &below.to_string());
        }
        let count = self.durations.count.to_string();
        self.line(text, &bucket, &[("le", "+Inf".to_owned())], &count);
        self.line(text, &format!("{name}_sum"), &[], &seconds(self.durations.sum_ms));
        self.line(text, &format!("{name}_count"), &[], &count);
    }
}

impl Durations {
    fn add(&mut self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.count = self.count.saturating_add(1);
        self.sum_ms = self.sum_ms.saturating_add(ms);
        if let Some((_, bucket)) = BUCKETS_MS.iter().zip(&mut self.buckets).find(|(bound, _)| ms <= **bound) {
            *bucket = bucket.saturating_add(1);
        }
    }

    fn value(&self, part: &str, labels: &[(&str, &str)]) -> Option<u64> {
        match (part, labels) {
            ("_count", []) | ("_bucket", [("le", "+Inf")]) => Some(self.count),
            ("_sum", []) => Some(self.sum_ms),
            ("_bucket", [("le", bound)]) => {
                let last = BUCKETS_MS.iter().position(|ms| seconds(*ms) == *bound)?;
                Some(self.buckets.iter().take(last.saturating_add(1)).sum())
            }
            _ => None,
        }
    }
}

const INFALLIBLE: &str = "writing to a string does not fail";

/// Milliseconds as seconds: `1500` is `1.5`.
fn seconds(ms: u64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zipnet_core::bitmap::Bitmap;
    use zipnet_core::id::{Digest, Epoch, GroupId, LogId, RaftId, RegistryVersion, Round, StoreId};
    use zipnet_core::key::PublicKey;
    use zipnet_core::machine::Abandonment;
    use zipnet_core::message::{ClientSet, Header, Previous, Record, RosterServer, Turnout};
    use zipnet_core::params::RoundParams;
    use zipnet_core::refused::Refused;

    use super::*;
    use crate::status::Cause;

    const SECOND: u64 = 1_000_000_000;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn build(role: Role) -> BuildInfo {
        BuildInfo { version: "0.1.0".to_owned(), wire_version: 1, machine_version: 1, role }
    }

    fn opened(index: u64, round: u64) -> Event {
        let server =
            |number| RosterServer { peer: peer(number), epoch: Epoch(1), round_key: PublicKey([0; 32]) };
        let header = Header {
            log: LogId([1; 32]),
            round: Round(round),
            nonce: [0; 32],
            group: GroupId([2; 32]),
            params: RoundParams::DEFAULT,
            previous: Previous { round: Round(0), record: Digest([0; 32]), state: Digest([0; 32]) },
            servers: (1..=3).map(server).collect(),
            clients: ClientSet { version: RegistryVersion(1), count: 4, root: Digest([0; 32]) },
            min_participants: 2,
            aggregator: PeerId([9; 32]),
        };
        Event::Core(Report::RoundOpened { index, header: Arc::new(header), digest: Digest([0; 32]) })
    }

    fn finalized(index: u64, round: u64) -> Event {
        let record = Record {
            log: LogId([1; 32]),
            round: Round(round),
            header: Digest([0; 32]),
            participants: Bitmap::from_ones(4, [0, 2, 3]).expect("within the length"),
            servers: (1..=3).map(peer).collect(),
            broadcast: vec![],
            previous: Digest([0; 32]),
            aggregate: Digest([0; 32]),
            partials: vec![],
            index,
            chain: Digest([0; 32]),
        };
        Event::Core(Report::RoundFinalized {
            index,
            record: Arc::new(record),
            digest: Digest([0; 32]),
            signed: vec![],
            partials: vec![],
            rostered: true,
        })
    }

    fn abandoned(index: u64, round: u64) -> Event {
        Event::Core(Report::RoundAbandoned {
            index,
            round: Round(round),
            header: Digest([0; 32]),
            reason: Abandonment::NoAggregate,
            missing: vec![],
        })
    }

    /// A server that has seen a bit of everything.
    fn busy() -> Metrics {
        let mut metrics = Metrics::new(Time(0), "acme.mainnet", peer(1), &build(Role::Server), Some(2));
        let leader = RaftId { peer: peer(1), store: StoreId(1) };
        let events = [
            Event::Restored { index: 5, clients: 3, servers: vec![peer(1), peer(2)] },
            Event::Consensus(consensus::Event::Leader { term: 1, leader: Some(leader), me: true }),
            Event::Linked { peer: peer(2), role: Role::Server },
            Event::Linked { peer: peer(3), role: Role::Server },
            Event::Linked { peer: peer(9), role: Role::Aggregator },
            Event::Linked { peer: peer(0xc1), role: Role::Client },
            Event::Core(Report::ServerRegistered { server: peer(3), epoch: Epoch(1) }),
            Event::Holds(Holds { servers: 3, clients: 4, roster: (1..=3).map(peer).collect() }),
            opened(10, 1),
            Event::PartialSubmitted { index: 13 },
            finalized(14, 1),
            opened(15, 2),
            abandoned(16, 2),
            Event::Core(Report::TurnoutLow {
                floor: 2,
                turnout: Turnout {
                    round: Round(2),
                    header: Digest([0; 32]),
                    envelopes: 1,
                    absent: 1,
                    declined: vec![(Refused::RosterTooSmall, 2)],
                },
            }),
            Event::Stalled { causes: vec![Cause::NoRounds] },
            Event::Stalled {
                causes: vec![Cause::NoAggregator, Cause::TooFewClients { clients: 1, floor: 2 }],
            },
            Event::PeerRefused { peer: peer(4), reason: Refusal::GroupProof },
            Event::PeerRefused { peer: peer(4), reason: Refusal::GroupProof },
            Event::PeerRefused { peer: peer(5), reason: Refusal::Attestation },
            Event::Core(Report::Refused {
                kind: "partial",
                reason: Refused::WrongRound,
                from: Some(peer(3)),
            }),
            Event::Unlinked { peer: peer(3), role: Role::Server, farewell: None },
            Event::Core(Report::ClientRefused { server: peer(2), client: peer(0xc1) }),
        ];
        for (second, event) in events.iter().enumerate() {
            let now = Time(u64::try_from(second).expect("few") * SECOND);
            metrics.observe(now, event);
        }
        metrics
    }

    #[test]
    fn text_is_an_interface() {
        assert_eq!(busy().render(Time(20 * SECOND + SECOND / 2)), include_str!("metrics/server.txt"));
    }

    #[test]
    fn what_no_longer_stands_in_the_way_counts_no_more() {
        let mut metrics = busy();
        assert_eq!((metrics.total(STALL_CAUSE), metrics.total(ENVELOPES_MISSING)), (2, 3));
        metrics.observe(Time(30 * SECOND), &finalized(20, 3));
        metrics.observe(Time(30 * SECOND), &Event::GoesOn);
        assert_eq!((metrics.total(STALL_CAUSE), metrics.total(ENVELOPES_MISSING)), (0, 0));
        assert_eq!(
            metrics.value(STALL_CAUSE, &[("cause", "no-aggregator")]),
            Some(0),
            "a series does not vanish"
        );
    }

    #[test]
    fn history_counts_for_nothing() {
        let mut metrics = Metrics::new(Time(0), "acme.mainnet", peer(1), &build(Role::Server), None);
        let before = metrics.render(Time(5 * SECOND));
        let refused = Report::Refused { kind: "partial", reason: Refused::WrongRound, from: None };
        let left = Report::ClientRefused { server: peer(2), client: peer(0xc1) };
        for event in [opened(10, 1), finalized(14, 1), opened(15, 2), abandoned(16, 2)] {
            let Event::Core(report) = event else { panic!("{event:?}") };
            metrics.observe(Time(SECOND), &Event::Past(report));
        }
        metrics.observe(Time(SECOND), &Event::Past(refused));
        metrics.observe(Time(SECOND), &Event::Past(left));
        assert_eq!(metrics.render(Time(5 * SECOND)), before, "the stall goes on as well");
    }

    #[test]
    fn numbers_of_the_state_are_those_of_the_state() {
        let mut metrics = busy();
        // A snapshot brought it up to date: no entry says what has changed.
        metrics.observe(
            Time(20 * SECOND),
            &Event::Holds(Holds { servers: 5, clients: 9, roster: vec![peer(2)] }),
        );
        for (name, value) in [(SERVERS, 5), (CLIENTS, 9), (ROSTER, 1), (ROSTER_LIVE, 1)] {
            assert_eq!(metrics.value(name, &[]), Some(value), "{name}");
        }
    }

    #[test]
    fn values_are_found_by_name_and_labels() {
        let metrics = busy();
        type Row = (&'static str, &'static [(&'static str, &'static str)], Option<u64>);
        let table: &[Row] = &[
            (LEADER_IS_LOCAL, &[], Some(1)),
            (BONDS, &[("peer", "0202020202")], Some(1)),
            (BONDS, &[("peer", "0303030303")], Some(0)),
            (BONDS, &[("peer", "c1c1c1c1c1")], None),
            (COMMITTED_INDEX, &[], Some(16)),
            (FINALIZED, &[], Some(1)),
            (OPENED, &[], Some(2)),
            (ABANDONED, &[("reason", "no-aggregate")], Some(1)),
            (PARTIALS, &[], Some(1)),
            (CLIENTS, &[], Some(4)),
            (SERVERS, &[], Some(3)),
            (PARTICIPANTS, &[], Some(3)),
            (MIN_PARTICIPANTS, &[], Some(2)),
            (ROSTER, &[], Some(3)),
            (ROSTER_LIVE, &[], Some(2)),
            (REJECTED, &[("reason", "group-proof"), ("kind", "hello")], Some(2)),
            (ATTESTATION_REJECTED, &[("reason", "attestation")], Some(1)),
            ("zipnet_round_duration_seconds_count", &[], Some(1)),
            ("zipnet_round_duration_seconds_sum", &[], Some(2000)),
            ("zipnet_round_duration_seconds_bucket", &[("le", "1")], Some(0)),
            ("zipnet_round_duration_seconds_bucket", &[("le", "2")], Some(1)),
            ("zipnet_no_such_thing", &[], None),
        ];
        for (name, labels, value) in table {
            assert_eq!(metrics.value(name, labels), *value, "{name} {labels:?}");
        }
        assert_eq!(metrics.total(REJECTED), 4);
        assert_eq!(metrics.stalled(Time(20 * SECOND)), Duration::from_secs(10));
    }

    #[test]
    fn table_is_sorted_and_documented() {
        assert!(TABLE.is_sorted_by_key(|(name, ..)| *name));
        assert!(TABLE.iter().all(|(_, _, help)| help.ends_with('.')));
        let page = include_str!("../../../docs/operating.md");
        for (name, ..) in TABLE {
            assert!(page.contains(&format!("`{name}`")) || page.contains(&format!("`{name}{{")), "{name}");
        }
    }

    #[test]
    fn a_client_shows_no_committee_numbers() {
        let metrics = Metrics::new(Time(0), "a\"b", peer(1), &build(Role::Client), None);
        assert_eq!(
            metrics.render(Time(0)),
            "# HELP zipnet_build_info Always 1; the labels say what this binary is.\n\
             # TYPE zipnet_build_info gauge\n\
             zipnet_build_info{instance_name=\"a\\\"b\",machine_version=\"1\",role=\"client\",version=\"0.1.0\",wire_version=\"1\"} 1\n"
        );
    }

    #[test]
    fn durations_are_written_without_floats() {
        let table = [
            (0, "0"),
            (100, "0.1"),
            (250, "0.25"),
            (1000, "1"),
            (15_000, "15"),
            (100_000, "100"),
            (1, "0.001"),
        ];
        for (ms, text) in table {
            assert_eq!(seconds(ms), text);
        }
    }
}
