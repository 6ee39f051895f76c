//! A small network of honest nodes around a perfect log, and what was said in it: the seeds are made of that, and the
//! machines under test start somewhere in it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use zipnet_core::aggregator::{self, Aggregator};
use zipnet_core::checks::{Check, Checks};
use zipnet_core::client::{self, Client};
use zipnet_core::committee;
use zipnet_core::id::{Digest, Epoch, GroupId, LogId, PeerId, Role, UniqueId};
use zipnet_core::key::{self, Identity, NodeSecret, Signature};
use zipnet_core::keyring::Keyring;
use zipnet_core::machine::{Done, Effect, Outbox, RequestId};
use zipnet_core::message::{Command, Floors, Message};
use zipnet_core::params::RoundParams;
use zipnet_core::server::{self, Server};
use zipnet_core::time::Time;
use zipnet_core::wire;

pub(crate) const LOG: LogId = LogId([0x10; 32]);
pub(crate) const INSTANCE: UniqueId = UniqueId([0x40; 32]);
const GROUP: GroupId = GroupId([0x30; 32]);
const SERVERS: usize = 3;
/// Its place among the nodes; the clients come behind it.
pub(crate) const AGGREGATOR: usize = SERVERS;
const CLIENTS: usize = 3;
pub(crate) const NODES: usize = SERVERS + 1 + CLIENTS;
pub(crate) const RESEND: Duration = Duration::from_secs(1);

/// Small, so that inputs are.
pub(crate) fn params() -> RoundParams {
    RoundParams::new(4, 32, 8).expect("a valid shape")
}

/// The secret of the node at this place.
fn secret(place: usize) -> NodeSecret {
    NodeSecret::from_bytes(UniqueId::from_text(&format!("node {place} of the fuzz targets")).0)
}

/// The nodes' ids by place.
pub(crate) fn peer(place: usize) -> PeerId {
    static PEERS: LazyLock<Vec<PeerId>> =
        LazyLock::new(|| (0..NODES).map(|place| Identity::from_secret(&secret(place)).peer()).collect());
    PEERS[place]
}

/// What the node at this place is.
pub(crate) const fn role(place: usize) -> Role {
    match place {
        0..SERVERS => Role::Server,
        AGGREGATOR => Role::Aggregator,
        _ => Role::Client,
    }
}

/// Whether the two ever talk to each other.
fn acquainted(one: usize, other: usize) -> bool {
    one != other && (one.max(other) <= AGGREGATOR || one == AGGREGATOR || other == AGGREGATOR)
}

/// Enforces every rule, but takes everybody else's signature for good: the others are one adversary who holds all their
/// keys, so that altered messages come further than the first check. Nobody can sign for the node itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surrounded {
    pub(crate) me: PeerId,
}

impl Checks for Surrounded {
    fn enforce(&self, _: Check) -> bool {
        true
    }

    fn verify(&self, peer: &PeerId, digest: &Digest, signature: &Signature) -> bool {
        *peer != self.me || key::verify(peer, digest, signature)
    }
}

/// Something that happens to a node of any role.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "each is moved once, into the machine that it happens to")]
pub(crate) enum Event {
    Tick,
    Received {
        from: PeerId,
        bytes: Vec<u8>,
    },
    Linked(usize),
    Unlinked(usize),
    Publish {
        request: RequestId,
        payload: Vec<u8>,
    },
    Stop,
    /// Only servers.
    Server(server::Input),
}

#[derive(Debug)]
pub(crate) enum Machine {
    Server(Box<Server<Surrounded>>),
    Aggregator(Box<Aggregator<Surrounded>>),
    Client(Box<Client<Surrounded>>),
}

/// A machine and its secrets.
#[derive(Debug)]
pub(crate) struct Node {
    place: usize,
    pub(crate) machine: Machine,
    keyring: Keyring,
}

pub(crate) fn committee_config() -> committee::Config {
    committee::Config { instance: INSTANCE, group: GROUP, params: params() }
}

impl Node {
    pub(crate) fn new(place: usize) -> Self {
        let floors = Floors { participants: 2, servers: None };
        let (me, role, instance, epoch) = (peer(place), role(place), INSTANCE, Epoch(1));
        let checks = Surrounded { me };
        let seed = [u8::try_from(place).expect("few nodes"); 32];
        let (group, announced) =
            if role == Role::Server { (Some(GROUP), Some(floors)) } else { (None, None) };
        let keyring = Keyring::new(&secret(place), role, instance, group, announced, seed);
        let rekey_after = Duration::from_secs(600);
        let machine = match role {
            Role::Server => {
                let config = server::Config {
                    committee: committee_config(),
                    me,
                    floors,
                    round_period: Duration::from_secs(5),
                    round_deadline: Duration::from_secs(15),
                    aggregator: None,
                    first_round_voters: SERVERS,
                    resend: RESEND,
                    rekey_after,
                    key_age_max: rekey_after.saturating_mul(2),
                    partial_budget: Duration::from_secs(2),
                    stop_budget: Duration::from_secs(4),
                };
                Machine::Server(Box::new(Server::new(config, checks, seed)))
            }
            Role::Aggregator => {
                let config = aggregator::Config {
                    me,
                    instance,
                    epoch,
                    params: params(),
                    pins: vec![],
                    bootstrap: vec![],
                    believed: aggregator::Believed::default(),
                    fold_deadline: Duration::from_secs(2),
                    resend: RESEND,
                    expire_after: Duration::from_secs(60),
                };
                Machine::Aggregator(Box::new(Aggregator::new(config, checks)))
            }
            Role::Client => {
                let config = client::Config {
                    me,
                    instance,
                    epoch,
                    pins: vec![],
                    min_servers: None,
                    cadence: 1,
                    params: params(),
                    queue_max: 16,
                    resend: RESEND,
                    rekey_after,
                    key_age_max: rekey_after.saturating_mul(2),
                };
                Machine::Client(Box::new(Client::new(config, checks)))
            }
        };
        Self { place, machine, keyring }
    }

    pub(crate) fn deadline(&self) -> Time {
        match &self.machine {
            Machine::Server(machine) => machine.deadline().at,
            Machine::Aggregator(machine) => machine.deadline().at,
            Machine::Client(machine) => machine.deadline().at,
        }
    }

    /// Feeds an event and what its jobs give; returns all other effects in order.
    pub(crate) fn feed(&mut self, now: Time, event: Event) -> Vec<Effect> {
        let (mut effects, mut out) = (Vec::new(), Outbox::new());
        self.handle(now, event, &mut out);
        let mut jobs = VecDeque::new();
        loop {
            while let Some(effect) = out.pop() {
                match effect {
                    Effect::Work(job) => jobs.push_back(job),
                    other @ (Effect::Send { .. }
                    | Effect::Propose(_)
                    | Effect::Report(_)
                    | Effect::Past(_)
                    | Effect::HandOver
                    | Effect::Stopped) => effects.push(other),
                }
            }
            let Some(job) = jobs.pop_front() else { return effects };
            let done = self.keyring.perform(&job, || [0x5a; 32]);
            self.done(now, done, &mut out);
        }
    }

    fn handle(&mut self, now: Time, event: Event, out: &mut Outbox) {
        let linked = |place| (peer(place), role(place));
        match &mut self.machine {
            Machine::Server(machine) => {
                let input = match event {
                    Event::Tick => server::Input::Tick,
                    Event::Received { from, bytes } => server::Input::Received { from, bytes: bytes.into() },
                    Event::Linked(place) => {
                        let (peer, role) = linked(place);
                        server::Input::Linked { peer, role }
                    }
                    Event::Unlinked(place) => server::Input::Unlinked { peer: peer(place) },
                    Event::Stop => server::Input::Stop,
                    Event::Server(input) => input,
                    Event::Publish { .. } => return,
                };
                machine.handle(now, input, out);
            }
            Machine::Aggregator(machine) => {
                let input = match event {
                    Event::Tick => aggregator::Input::Tick,
                    Event::Received { from, bytes } => {
                        aggregator::Input::Received { from, bytes: bytes.into() }
                    }
                    Event::Linked(place) => {
                        let (peer, role) = linked(place);
                        aggregator::Input::Linked { peer, role }
                    }
                    Event::Unlinked(place) => aggregator::Input::Unlinked { peer: peer(place) },
                    Event::Stop => aggregator::Input::Stop,
                    Event::Publish { .. } | Event::Server(_) => return,
                };
                machine.handle(now, input, out);
            }
            Machine::Client(machine) => {
                let input = match event {
                    Event::Tick => client::Input::Tick,
                    Event::Received { from, bytes } => client::Input::Received { from, bytes: bytes.into() },
                    Event::Linked(place) => {
                        let (peer, role) = linked(place);
                        client::Input::Linked { peer, role }
                    }
                    Event::Unlinked(place) => client::Input::Unlinked { peer: peer(place) },
                    Event::Publish { request, payload } => client::Input::Publish { request, payload },
                    Event::Stop => client::Input::Stop,
                    Event::Server(_) => return,
                };
                machine.handle(now, input, out);
            }
        }
    }

    fn done(&mut self, now: Time, done: Done, out: &mut Outbox) {
        match &mut self.machine {
            Machine::Server(machine) => machine.handle(now, server::Input::Done(done), out),
            Machine::Aggregator(machine) => machine.handle(now, aggregator::Input::Done(done), out),
            Machine::Client(machine) => machine.handle(now, client::Input::Done(done), out),
        }
    }
}

/// Everything that was said and that happened.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// What happened to each node, by place. Results of jobs are left out: a node does them again.
    pub(crate) events: Vec<Vec<(Time, Event)>>,
    /// Messages, each with the places of sender and receiver.
    pub(crate) sent: Vec<(usize, usize, Vec<u8>)>,
    /// Encoded commands.
    pub(crate) log: Vec<Vec<u8>>,
    /// The state of the committee after each command.
    pub(crate) snapshots: Vec<Vec<u8>>,
}

/// The same every time.
pub(crate) fn history() -> &'static History {
    static HISTORY: LazyLock<History> = LazyLock::new(|| Network::new().live());
    &HISTORY
}

enum Delivery {
    Message { from: usize, to: usize, bytes: Arc<[u8]> },
    Entry { to: usize, index: usize },
}

struct Network {
    nodes: Vec<Node>,
    now: Time,
    leader: usize,
    queue: VecDeque<Delivery>,
    down: BTreeSet<usize>,
    requests: u64,
    history: History,
}

impl Network {
    fn new() -> Self {
        Self {
            nodes: (0..NODES).map(Node::new).collect(),
            now: Time::default(),
            leader: 0,
            queue: VecDeque::new(),
            down: BTreeSet::new(),
            requests: 0,
            history: History { events: vec![vec![]; NODES], ..History::default() },
        }
    }

    /// The life of the network: rounds, then one that is abandoned and disclaimed, a refusal of a stale bundle, then
    /// servers that leave, die and stop.
    fn live(mut self) -> History {
        for place in 0..SERVERS {
            let voters = (0..SERVERS).map(peer).collect();
            self.feed(place, Event::Server(server::Input::Voters { voters }));
            self.feed(place, Event::Server(server::Input::Led { leader: Some(peer(self.leader)) }));
            self.feed(place, Event::Server(server::Input::CaughtUp(true)));
        }
        for place in 0..NODES {
            for other in (0..NODES).filter(|other| acquainted(place, *other)) {
                self.feed(place, Event::Linked(other));
            }
        }
        self.feed(0, Event::Server(server::Input::StartLog { log: LOG }));
        self.publish();
        self.run(Duration::from_secs(17));
        self.publish();
        self.switch(1, false);
        self.run(Duration::from_secs(25));
        self.switch(1, true);
        self.publish();
        self.run(Duration::from_secs(20));
        self.feed(1, Event::Server(server::Input::Retire));
        self.run(Duration::from_secs(10));
        self.switch(2, false);
        for failures in 1..=server::PROBES_MIN {
            self.feed(0, Event::Server(server::Input::ProbesFailed { peer: peer(2), failures }));
        }
        self.feed(0, Event::Server(server::Input::RetireDead { server: peer(2) }));
        self.run(Duration::from_secs(10));
        self.feed(0, Event::Stop);
        self.run(Duration::from_secs(10));
        self.history
    }

    fn publish(&mut self) {
        for place in AGGREGATOR + 1..NODES {
            self.requests += 1;
            let (request, payload) = (RequestId(self.requests), vec![7; 20]);
            self.feed(place, Event::Publish { request, payload });
        }
    }

    /// Takes a node's links away or gives them back.
    fn switch(&mut self, place: usize, up: bool) {
        if up {
            self.down.remove(&place)
        } else {
            self.down.insert(place)
        };
        for other in (0..NODES).filter(|other| acquainted(place, *other)) {
            let event = |place| if up { Event::Linked(place) } else { Event::Unlinked(place) };
            self.feed(place, event(other));
            self.feed(other, event(place));
        }
        if up {
            for index in 0..self.history.log.len() {
                self.queue.push_back(Delivery::Entry { to: place, index });
            }
        }
    }

    /// Lets so much time pass; messages take none.
    fn run(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        loop {
            if let Some(delivery) = self.queue.pop_front() {
                self.deliver(delivery);
                continue;
            }
            let due = self.nodes.iter().map(Node::deadline).min().unwrap_or(Time::NEVER);
            if due > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(due);
            for place in 0..NODES {
                if self.nodes[place].deadline() <= self.now {
                    self.feed(place, Event::Tick);
                }
            }
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Message { from, to, bytes } => {
                if !self.down.contains(&from) && !self.down.contains(&to) {
                    let (from, bytes) = (peer(from), bytes.to_vec());
                    self.feed(to, Event::Received { from, bytes });
                }
            }
            Delivery::Entry { to, index } => {
                let known = self.history.events[to]
                    .iter()
                    .filter(|(_, event)| matches!(event, Event::Server(server::Input::Committed { .. })));
                if known.count() == index && !self.down.contains(&to) {
                    let command = self.history.log[index].clone();
                    let index = u64::try_from(index).expect("a short log");
                    self.feed(to, Event::Server(server::Input::Committed { index, command }));
                    if let (0, Machine::Server(machine)) = (to, &self.nodes[0].machine) {
                        self.history.snapshots.push(machine.committee().snapshot());
                    }
                }
            }
        }
    }

    fn feed(&mut self, place: usize, event: Event) {
        self.history.events[place].push((self.now, event.clone()));
        for effect in self.nodes[place].feed(self.now, event) {
            match effect {
                Effect::Send { to, bytes } => {
                    let to = (0..NODES).find(|place| peer(*place) == to).expect("nobody else is known");
                    self.send(place, to, bytes);
                }
                Effect::Propose(command) if place == self.leader => self.commit(&command),
                Effect::Propose(command) => {
                    self.send(place, self.leader, wire::encode(&Message::Propose(command)));
                }
                Effect::HandOver
                | Effect::Stopped
                | Effect::Report(_)
                | Effect::Past(_)
                | Effect::Work(_) => {}
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Arc<[u8]>) {
        self.history.sent.push((from, to, bytes.to_vec()));
        self.queue.push_back(Delivery::Message { from, to, bytes });
    }

    fn commit(&mut self, command: &Command) {
        let index = self.history.log.len();
        self.history.log.push(wire::encode_command(command).to_vec());
        self.queue.extend((0..SERVERS).map(|to| Delivery::Entry { to, index }));
    }
}

impl Node {
    /// The node at this place as it was after so many of its events, and when that was.
    pub(crate) fn after(place: usize, events: usize) -> (Self, Time) {
        let (mut node, mut now) = (Self::new(place), Time::default());
        for (at, event) in history().events[place].iter().take(events) {
            now = *at;
            drop(node.feed(now, event.clone()));
        }
        (node, now)
    }

    /// Who it is.
    pub(crate) const fn place(&self) -> usize {
        self.place
    }
}
