//! Three servers, an aggregator and four clients with real keys around a log that is perfect: what the machines do by
//! themselves, driven by nothing but their deadlines, over a network that loses, repeats and reorders.
#![expect(clippy::unwrap_used, reason = "a test that meets something else has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use zipnet_core::aggregator::{self, Aggregator};
use zipnet_core::checks::Strict;
use zipnet_core::client::{self, Client};
use zipnet_core::committee;
use zipnet_core::id::{Digest, Epoch, GroupId, LogId, PeerId, Role, UniqueId};
use zipnet_core::key::NodeSecret;
use zipnet_core::keyring::Keyring;
use zipnet_core::machine::{Effect, Outbox, Outcome, Report, RequestId};
use zipnet_core::message::{Command, Floors, Message, Record};
use zipnet_core::params::RoundParams;
use zipnet_core::random::Random;
use zipnet_core::server::{self, Server};
use zipnet_core::slot::{SlotContent, read_slots};
use zipnet_core::time::Time;
use zipnet_core::wire;

const LOG: LogId = LogId([0x10; 32]);
const INSTANCE: UniqueId = UniqueId([0x40; 32]);
const GROUP: GroupId = GroupId([0x30; 32]);
const SERVERS: usize = 3;
const CLIENTS: usize = 4;
/// Its place among the nodes; the clients come behind it.
const AGGREGATOR: usize = SERVERS;
const NODES: usize = SERVERS + 1 + CLIENTS;

fn params() -> RoundParams {
    RoundParams::new(32, 48, 16).unwrap()
}

enum Machine {
    Server(Box<Server<Strict>>),
    Aggregator(Box<Aggregator<Strict>>),
    Client(Box<Client<Strict>>),
}

enum Event {
    Deliver {
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    /// The servers learn of one more entry of the log.
    Apply {
        to: usize,
    },
    Link {
        one: usize,
        other: usize,
        up: bool,
    },
    Lead(usize),
    Start(usize),
}

struct Node {
    machine: Machine,
    keyring: Keyring,
    /// Entries of the log that it has applied, if it is a server.
    applied: usize,
    stopped: bool,
}

/// What a network does to messages, each in 100.
#[derive(Clone, Copy)]
struct Faults {
    lost: u64,
    repeated: u64,
    delay_ms: u64,
    /// Links break and leaders change now and then.
    unrest: bool,
}

const PERFECT: Faults = Faults { lost: 0, repeated: 0, delay_ms: 5, unrest: false };

struct World {
    nodes: Vec<Node>,
    now: Time,
    events: BTreeMap<(Time, u64), Event>,
    pushed: u64,
    log: Vec<Vec<u8>>,
    leader: usize,
    down: BTreeSet<(usize, usize)>,
    faults: Faults,
    random: Random,
    starts: u8,
    /// As the first server reports them.
    records: Vec<Record>,
    abandoned: usize,
    /// Headers under which some server made its partial, and those that it disclaimed.
    partials: BTreeSet<(usize, Digest)>,
    disclaimed: BTreeSet<(usize, Digest)>,
    /// Envelopes with a message in them.
    sealed: usize,
    /// Messages that somebody may have read and that did not land.
    unknown: usize,
    /// What each client still has to bring into a record, by request.
    texts: BTreeMap<(usize, u64), Vec<u8>>,
    landed: Vec<Vec<u8>>,
    requests: u64,
}

fn role(node: usize) -> Role {
    match node {
        0..SERVERS => Role::Server,
        AGGREGATOR => Role::Aggregator,
        _ => Role::Client,
    }
}

/// A node at the start of a process; `start` tells its processes apart.
fn node(place: usize, start: u8, everybody: &[PeerId]) -> Node {
    let floors = Floors { participants: 2, servers: None };
    let (group, floors) = if place < SERVERS { (Some(GROUP), Some(floors)) } else { (None, None) };
    let mut seed = [start; 32];
    seed[0] = u8::try_from(place).unwrap();
    let keyring = Keyring::new(
        &NodeSecret::from_bytes(UniqueId::from_text(&name(place)).0),
        role(place),
        INSTANCE,
        group,
        floors,
        seed,
    );
    let (me, resend) = (everybody[place], Duration::from_secs(1));
    let machine = match role(place) {
        Role::Server => {
            let config = server::Config {
                committee: committee::Config { instance: INSTANCE, group: GROUP, params: params() },
                me,
                floors: floors.unwrap(),
                round_period: Duration::from_secs(5),
                round_deadline: Duration::from_secs(15),
                aggregator: None,
                first_round_voters: SERVERS,
                resend,
                rekey_after: Duration::from_secs(120),
                key_age_max: Duration::from_secs(180),
                partial_budget: Duration::from_secs(2),
                stop_budget: Duration::from_secs(4),
            };
            Machine::Server(Box::new(Server::new(config, Strict, seed)))
        }
        Role::Aggregator => {
            let config = aggregator::Config {
                me,
                instance: INSTANCE,
                epoch: Epoch(1),
                params: params(),
                pins: vec![],
                bootstrap: vec![],
                believed: aggregator::Believed::default(),
                fold_deadline: Duration::from_secs(2),
                resend,
                expire_after: Duration::from_secs(60),
            };
            Machine::Aggregator(Box::new(Aggregator::new(config, Strict)))
        }
        Role::Client => {
            let config = client::Config {
                me,
                instance: INSTANCE,
                epoch: Epoch(1),
                pins: vec![],
                min_servers: Some(2),
                cadence: 1,
                params: params(),
                queue_max: 16,
                resend,
                rekey_after: Duration::from_secs(150),
                key_age_max: Duration::from_secs(210),
            };
            Machine::Client(Box::new(Client::new(config, Strict)))
        }
    };
    Node { machine, keyring, applied: 0, stopped: false }
}

fn name(place: usize) -> String {
    format!("node {place} of the rounds")
}

impl World {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let blank = |place: usize| {
            let floors = (place < SERVERS).then_some(Floors { participants: 2, servers: None });
            let secret = NodeSecret::from_bytes(UniqueId::from_text(&name(place)).0);
            Keyring::new(&secret, role(place), INSTANCE, None, floors, [0; 32]).peer()
        };
        let everybody: Vec<_> = (0..NODES).map(blank).collect();
        let nodes = (0..NODES).map(|place| node(place, 1, &everybody)).collect();
        let mut world = Self {
            nodes,
            now: Time::default(),
            events: BTreeMap::new(),
            pushed: 0,
            log: vec![],
            leader: 0,
            down: BTreeSet::new(),
            faults: PERFECT,
            random: Random::new(bytes),
            starts: 1,
            records: vec![],
            abandoned: 0,
            partials: BTreeSet::new(),
            disclaimed: BTreeSet::new(),
            sealed: 0,
            unknown: 0,
            texts: BTreeMap::new(),
            landed: vec![],
            requests: 0,
        };
        for place in 0..NODES {
            world.boot(place);
        }
        world.feed_server(0, server::Input::StartLog { log: LOG });
        world
    }

    fn peer(&self, place: usize) -> PeerId {
        self.nodes[place].keyring.peer()
    }

    fn place(&self, peer: &PeerId) -> usize {
        self.nodes.iter().position(|node| node.keyring.peer() == *peer).unwrap()
    }

    /// Whether the two ever talk to each other.
    fn acquainted(one: usize, other: usize) -> bool {
        one != other && (one.max(other) <= AGGREGATOR || one == AGGREGATOR || other == AGGREGATOR)
    }

    /// A process starts: it learns of the log, the group and its links.
    fn boot(&mut self, place: usize) {
        if place < SERVERS {
            let voters = (0..SERVERS).map(|server| self.peer(server)).collect();
            self.feed_server(place, server::Input::Voters { voters });
            for (index, command) in self.log.clone().into_iter().enumerate() {
                let index = u64::try_from(index).unwrap();
                self.feed_server(place, server::Input::Committed { index, command });
                self.nodes[place].applied += 1;
            }
            let leader = Some(self.peer(self.leader));
            self.feed_server(place, server::Input::Led { leader });
            self.feed_server(place, server::Input::CaughtUp(true));
        }
        for other in (0..NODES).filter(|other| Self::acquainted(place, *other)) {
            self.link(place, other, true);
        }
        self.tick(place);
    }

    fn link(&mut self, one: usize, other: usize, up: bool) {
        let pair = (one.min(other), one.max(other));
        if up {
            self.down.remove(&pair);
        } else {
            self.down.insert(pair);
        }
        for (to, other) in [(one, other), (other, one)] {
            let (peer, role) = (self.peer(other), role(other));
            match (&self.nodes[to].machine, up) {
                (Machine::Server(_), true) => self.feed_server(to, server::Input::Linked { peer, role }),
                (Machine::Server(_), false) => self.feed_server(to, server::Input::Unlinked { peer }),
                (Machine::Aggregator(_), true) => {
                    self.feed_aggregator(to, aggregator::Input::Linked { peer, role });
                }
                (Machine::Aggregator(_), false) => {
                    self.feed_aggregator(to, aggregator::Input::Unlinked { peer });
                }
                (Machine::Client(_), true) => self.feed_client(to, client::Input::Linked { peer, role }),
                (Machine::Client(_), false) => self.feed_client(to, client::Input::Unlinked { peer }),
            }
        }
    }

    fn push(&mut self, after_ms: u64, event: Event) {
        self.pushed += 1;
        let at = self.now.after(Duration::from_millis(after_ms));
        self.events.insert((at, self.pushed), event);
    }

    fn feed_server(&mut self, place: usize, input: server::Input) {
        let mut out = Outbox::new();
        if let Machine::Server(machine) = &mut self.nodes[place].machine {
            machine.handle(self.now, input, &mut out);
        }
        self.carry_out(place, out);
    }

    fn feed_aggregator(&mut self, place: usize, input: aggregator::Input) {
        let mut out = Outbox::new();
        if let Machine::Aggregator(machine) = &mut self.nodes[place].machine {
            machine.handle(self.now, input, &mut out);
        }
        self.carry_out(place, out);
    }

    fn feed_client(&mut self, place: usize, input: client::Input) {
        let mut out = Outbox::new();
        if let Machine::Client(machine) = &mut self.nodes[place].machine {
            machine.handle(self.now, input, &mut out);
        }
        self.carry_out(place, out);
    }

    fn carry_out(&mut self, place: usize, mut out: Outbox) {
        while let Some(effect) = out.pop() {
            match effect {
                Effect::Send { to, bytes } => {
                    let to = self.place(&to);
                    self.transmit(place, to, &bytes);
                }
                Effect::Propose(command) if place == self.leader => self.append(&command),
                Effect::Propose(command) => {
                    let bytes = wire::encode(&Message::Propose(command));
                    self.transmit(place, self.leader, &bytes);
                }
                Effect::Work(job) => {
                    let done = self.nodes[place].keyring.perform(&job, || [0x5a; 32]);
                    match role(place) {
                        Role::Server => self.feed_server(place, server::Input::Done(done)),
                        Role::Aggregator => self.feed_aggregator(place, aggregator::Input::Done(done)),
                        Role::Client => self.feed_client(place, client::Input::Done(done)),
                    }
                }
                Effect::Report(report) => self.note(place, report),
                Effect::Past(report) => self.note_past(place, report),
                Effect::HandOver => self.push(10, Event::Lead((place + 1) % SERVERS)),
                Effect::Stopped => self.nodes[place].stopped = true,
            }
        }
    }

    fn transmit(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let copies = 1 + u64::from(self.random.below(100) < self.faults.repeated);
        for _ in 0..copies {
            if self.random.below(100) >= self.faults.lost {
                let delay = 1 + self.random.below(self.faults.delay_ms);
                self.push(delay, Event::Deliver { from, to, bytes: bytes.to_vec() });
            }
        }
    }

    /// The log is perfect, but servers learn of its entries at different times.
    fn append(&mut self, command: &Command) {
        self.log.push(wire::encode_command(command).to_vec());
        for to in 0..SERVERS {
            let delay = 1 + self.random.below(self.faults.delay_ms);
            self.push(delay, Event::Apply { to });
        }
    }

    fn note(&mut self, place: usize, report: Report) {
        match report {
            Report::RoundFinalized { record, .. } if place == 0 => {
                let previous = self.records.last().map(Record::digest).unwrap_or_default();
                assert_eq!(record.previous, previous, "records form a chain");
                self.records.push(record.as_ref().clone());
            }
            Report::RoundAbandoned { .. } if place == 0 => self.abandoned += 1,
            Report::PartialMade { header, .. } => {
                assert!(!self.disclaimed.contains(&(place, header)), "it said that it never would");
                self.partials.insert((place, header));
            }
            Report::Disclaimed { header, .. } => {
                assert!(!self.partials.contains(&(place, header)), "it has given one");
                self.disclaimed.insert((place, header));
            }
            Report::Sealed { request: Some(_), .. } => self.sealed += 1,
            Report::Published { request, outcome, .. } => {
                self.unknown += usize::from(outcome == Outcome::Unknown);
                let text = self.texts.remove(&(place, request.0)).expect("it is told once");
                match outcome {
                    Outcome::Landed => self.landed.push(text),
                    Outcome::Collided | Outcome::Dropped | Outcome::Unknown => self.publish(place, text),
                }
            }
            _ => {}
        }
    }

    /// What a server reads of the time before it took part: again after a restart, or for the first time.
    fn note_past(&mut self, place: usize, report: Report) {
        let Report::RoundFinalized { record, rostered, .. } = &report else { return };
        assert!(!rostered, "it had no part in that");
        match self.records.iter().find(|known| known.round == record.round) {
            Some(known) => assert_eq!(known.digest(), record.digest(), "what was is what it was"),
            None => self.note(place, report),
        }
    }

    fn publish(&mut self, place: usize, text: Vec<u8>) {
        self.requests += 1;
        self.texts.insert((place, self.requests), text.clone());
        let request = RequestId(self.requests);
        self.feed_client(place, client::Input::Publish { request, payload: text });
    }

    /// Each client publishes so many messages.
    fn publish_all(&mut self, each: usize) -> BTreeSet<Vec<u8>> {
        let mut texts = BTreeSet::new();
        for number in 0..each {
            for place in AGGREGATOR + 1..NODES {
                let text = format!("message {number} of client {place}").into_bytes();
                texts.insert(text.clone());
                self.publish(place, text);
            }
        }
        texts
    }

    fn tick(&mut self, place: usize) {
        match role(place) {
            Role::Server => self.feed_server(place, server::Input::Tick),
            Role::Aggregator => self.feed_aggregator(place, aggregator::Input::Tick),
            Role::Client => self.feed_client(place, client::Input::Tick),
        }
    }

    fn deadline(&self, place: usize) -> Time {
        match &self.nodes[place].machine {
            Machine::Server(machine) => machine.deadline().at,
            Machine::Aggregator(machine) => machine.deadline().at,
            Machine::Client(machine) => machine.deadline().at,
        }
    }

    /// Runs until `done`, or for as long as this at most; says whether it is done.
    fn run(&mut self, most: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now.after(most);
        let mut unrest = self.now;
        while !done(self) {
            if self.faults.unrest && unrest <= self.now {
                self.disturb();
                unrest = self.now.after(Duration::from_secs(3));
            }
            let events = self.events.first_key_value().map_or(Time::NEVER, |((at, _), _)| *at);
            let due = (0..NODES).map(|place| self.deadline(place)).min().unwrap().min(events);
            if due > end {
                self.now = end;
                return done(self);
            }
            self.now = self.now.max(due);
            if events <= self.now {
                let (_, event) = self.events.pop_first().unwrap();
                self.happen(event);
            } else {
                for place in 0..NODES {
                    if self.deadline(place) <= self.now {
                        self.tick(place);
                        assert!(self.deadline(place) > self.now, "what is due was left open");
                    }
                }
            }
        }
        true
    }

    /// A link breaks for a while, and sometimes another server leads.
    fn disturb(&mut self) {
        let draw = |world: &mut Self, below: usize| {
            usize::try_from(world.random.below(u64::try_from(below).unwrap())).unwrap()
        };
        let (one, other) = (draw(self, NODES), draw(self, NODES));
        if Self::acquainted(one, other) {
            self.link(one, other, false);
            let after = 500 + self.random.below(3_000);
            self.push(after, Event::Link { one, other, up: true });
        }
        if draw(self, 4) == 0 {
            let leader = draw(self, SERVERS);
            self.push(1, Event::Lead(leader));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, bytes } => {
                let pair = (from.min(to), from.max(to));
                if self.down.contains(&pair) || self.nodes[to].stopped {
                    return;
                }
                let from = self.peer(from);
                match role(to) {
                    Role::Server => {
                        self.feed_server(to, server::Input::Received { from, bytes: bytes.into() })
                    }
                    Role::Aggregator => {
                        self.feed_aggregator(to, aggregator::Input::Received { from, bytes: bytes.into() })
                    }
                    Role::Client => {
                        self.feed_client(to, client::Input::Received { from, bytes: bytes.into() })
                    }
                }
            }
            Event::Apply { to } => {
                let node = &mut self.nodes[to];
                // A server that was away in the meantime has read more from the log than it is told of here.
                if let Some(command) = self.log.get(node.applied).filter(|_| !node.stopped) {
                    let index = u64::try_from(node.applied).unwrap();
                    node.applied += 1;
                    let command = command.clone();
                    self.feed_server(to, server::Input::Committed { index, command });
                }
            }
            Event::Link { one, other, up } => self.link(one, other, up),
            Event::Lead(leader) => {
                self.leader = leader;
                let leader = Some(self.peer(leader));
                for place in 0..SERVERS {
                    self.feed_server(place, server::Input::Led { leader });
                }
            }
            Event::Start(place) => {
                self.starts += 1;
                let everybody: Vec<_> = (0..NODES).map(|place| self.peer(place)).collect();
                self.nodes[place] = node(place, self.starts, &everybody);
                self.boot(place);
            }
        }
    }

    /// Every message in the records, in no order.
    fn written(&self) -> Vec<Vec<u8>> {
        let mut written = Vec::new();
        for record in &self.records {
            for content in read_slots(&params(), &record.header, &record.broadcast) {
                if let SlotContent::Message(payload) = content {
                    written.push(payload.iter().copied().take_while(|byte| *byte != 0).collect());
                }
            }
        }
        written
    }

    fn server(&self, place: usize) -> &Server<Strict> {
        match &self.nodes[place].machine {
            Machine::Server(machine) => machine,
            Machine::Aggregator(_) | Machine::Client(_) => panic!("node {place} is no server"),
        }
    }

    /// Servers that have applied as much have the same state.
    fn check_agreement(&self) {
        let mut states = BTreeMap::<usize, Vec<u8>>::new();
        for place in 0..SERVERS {
            let snapshot = self.server(place).committee().snapshot();
            let known = states.entry(self.nodes[place].applied).or_insert_with(|| snapshot.clone());
            assert_eq!(*known, snapshot, "server {place}");
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn on_a_perfect_network_every_message_lands_once() {
    let mut world = World::new(1);
    let texts = world.publish_all(3);
    assert!(world.run(5 * MINUTE, |world| world.texts.is_empty()), "{:?}", world.texts);
    let mut written = world.written();
    written.sort();
    assert_eq!(written, texts.into_iter().collect::<Vec<_>>(), "exactly what was published, each once");
    assert_eq!(world.abandoned, 0);
    world.check_agreement();
}

#[test]
fn rounds_follow_each_other_at_their_period_and_survive_renewed_keys() {
    let mut world = World::new(2);
    world.run(10 * MINUTE, |_| false);
    // A round each five seconds; a renewed key may cost one.
    assert!(world.records.len() > 100, "{}", world.records.len());
    let participants: Vec<_> = world.records.iter().map(|record| record.participants.count_ones()).collect();
    assert!(participants.iter().all(|count| *count >= 2));
    let epochs: Vec<_> = world.server(0).committee().servers().values().map(|it| it.bundle.epoch).collect();
    assert!(epochs.iter().all(|epoch| *epoch > Epoch(1)), "{epochs:?}");
    world.check_agreement();
}

#[test]
fn a_run_is_repeated_exactly_from_its_seed() {
    let run = || {
        let mut world = World::new(3);
        world.faults = Faults { lost: 10, repeated: 10, delay_ms: 300, unrest: true };
        world.publish_all(2);
        world.run(MINUTE, |_| false);
        (world.log, world.records.iter().map(Record::digest).collect::<Vec<Digest>>())
    };
    let first = run();
    assert!(!first.1.is_empty());
    assert_eq!(first, run());
}

#[test]
fn what_went_into_an_abandoned_round_lands_in_the_next_once_all_servers_disclaim_it() {
    let mut world = World::new(5);
    assert!(world.run(MINUTE, |world| world.records.len() == 3));
    let texts = world.publish_all(1);
    let sealed = world.sealed;
    assert!(world.run(MINUTE, |world| world.sealed == sealed + CLIENTS));
    // The aggregator loses all servers before it has all envelopes: nobody can have read anything.
    for server in 0..SERVERS {
        world.link(server, AGGREGATOR, false);
    }
    assert!(world.run(MINUTE, |world| world.abandoned == 1));
    for server in 0..SERVERS {
        world.link(server, AGGREGATOR, true);
    }
    assert!(world.run(2 * MINUTE, |world| world.texts.is_empty()));
    assert_eq!(world.disclaimed.len(), SERVERS);
    assert_eq!(world.unknown, 0, "no publisher had to decide");
    let mut written = world.written();
    written.sort();
    assert_eq!(written, texts.into_iter().collect::<Vec<_>>(), "each landed once");
    world.check_agreement();
}

#[test]
fn a_leader_stops_and_comes_back_while_rounds_go_on() {
    let mut world = World::new(4);
    assert!(world.run(MINUTE, |world| world.records.len() == 3));
    let begin = world.now;
    world.feed_server(1, server::Input::Tick);
    world.happen(Event::Lead(1));
    world.feed_server(1, server::Input::Stop);
    assert!(world.run(MINUTE, |world| world.nodes[1].stopped));
    assert!(world.now.since(begin) < Duration::from_secs(5));
    assert_ne!(world.leader, 1, "it has handed over");
    for other in [0, 2, AGGREGATOR] {
        world.link(1, other, false);
    }
    let stopped = world.peer(1);
    let shrunk = |world: &World| world.records.iter().any(|record| !record.servers.contains(&stopped));
    assert!(world.run(MINUTE, shrunk), "the others go on without it");
    world.happen(Event::Start(1));
    let count = world.records.len();
    let back = |world: &World| world.records[count..].iter().any(|record| record.servers.contains(&stopped));
    assert!(world.run(MINUTE, back), "and with it again");
    let texts = world.publish_all(1);
    assert!(world.run(2 * MINUTE, |world| world.texts.is_empty()));
    let written: BTreeSet<_> = world.written().into_iter().collect();
    assert_eq!(written, texts);
    world.check_agreement();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// First faults and safety, then peace and progress.
    #[test]
    fn whatever_the_network_does_messages_land_once_it_heals(
        seed in any::<u64>(),
        lost in 0..40_u64,
        repeated in 0..30_u64,
        delay_ms in 1..800_u64,
        unrest in any::<bool>(),
    ) {
        let mut world = World::new(seed);
        world.faults = Faults { lost, repeated, delay_ms, unrest };
        let texts = world.publish_all(2);
        world.run(2 * MINUTE, |_| false);
        world.check_agreement();
        world.faults = PERFECT;
        for one in 0..NODES {
            for other in (one + 1..NODES).filter(|other| World::acquainted(one, *other)) {
                world.link(one, other, true);
            }
        }
        let before = world.records.len();
        prop_assert!(world.run(5 * MINUTE, |world| world.texts.is_empty()), "waits for {:?}", world.texts);
        prop_assert!(world.run(2 * MINUTE, |world| world.records.len() > before + 2), "rounds go on");
        let written = world.written();
        let known: BTreeSet<_> = written.iter().cloned().collect();
        prop_assert_eq!(&known, &texts, "nothing but what was published, and all of it");
        for text in &texts {
            let landed = world.landed.iter().filter(|landed| *landed == text).count();
            prop_assert_eq!(landed, 1, "its publisher was told once that it landed");
        }
        world.run(MINUTE, |_| false);
        world.check_agreement();
    }
}
