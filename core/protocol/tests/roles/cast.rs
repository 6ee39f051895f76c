//! Who plays in the tests of the roles: servers, clients and an aggregator with real keys, of whom one is the machine
//! under test and the others say what a test has them say.

use std::collections::VecDeque;
use std::time::Duration;

use zipnet_core::aggregator::{self, Aggregator};
use zipnet_core::bitmap::Bitmap;
use zipnet_core::checks::{Check, Checks};
use zipnet_core::client::{self, Client};
use zipnet_core::fold::{Fold, xor_into};
use zipnet_core::id::{
    Counter, Digest, Epoch, GroupId, LogId, PeerId, RegistryVersion, Role, Round, UniqueId,
};
use zipnet_core::key::NodeSecret;
use zipnet_core::keyring::Keyring;
use zipnet_core::machine::{Deadline, Done, Effect, Job, Outbox};
use zipnet_core::message::{
    Announcement, Bundle, Disclaimer, Envelope, Floors, Header, LiveHeader, Message, Previous, Record,
    RecordSignature, RosterServer, Standing,
};
use zipnet_core::pad::End;
use zipnet_core::params::RoundParams;
use zipnet_core::reader::{self, Reader};
use zipnet_core::registry::ClientRegistry;
use zipnet_core::slot::Payload;
use zipnet_core::time::Time;
use zipnet_core::wire;

pub(crate) const LOG: LogId = LogId([0x10; 32]);
pub(crate) const RESEND: Duration = Duration::from_secs(1);

/// Lets keys contradict themselves: the cast says what a test has it say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unbound;

impl Checks for Unbound {
    fn enforce(&self, check: Check) -> bool {
        check != Check::PromiseKept
    }
}

pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) keyring: Keyring<Unbound>,
    pub(crate) bundle: Bundle,
}

pub(crate) struct Cast {
    pub(crate) servers: Vec<Member>,
    pub(crate) clients: Vec<Member>,
    pub(crate) aggregator: Member,
    pub(crate) params: RoundParams,
    pub(crate) instance: UniqueId,
}

/// A round as a test wants it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) log: LogId,
    pub(crate) round: u64,
    pub(crate) roster: Vec<usize>,
    pub(crate) clients: Vec<usize>,
    pub(crate) version: u64,
    pub(crate) previous: (u64, Digest),
    pub(crate) min_participants: u32,
    pub(crate) refused: Vec<u32>,
}

impl Plan {
    pub(crate) fn round(round: u64) -> Self {
        Self {
            log: LOG,
            round,
            roster: vec![0, 1, 2],
            clients: vec![0, 1, 2],
            version: 1,
            previous: (0, Digest::default()),
            min_participants: 2,
            refused: vec![],
        }
    }
}

impl Cast {
    /// Four servers, three clients and an aggregator; 4 slots of 48 bytes.
    pub(crate) fn new() -> Self {
        let instance = UniqueId::from_text("the instance of the tests");
        let floors = Floors { participants: 2, servers: None };
        let member = |name: &str, role, group, floors| {
            // Everybody has keys of its own, as in life.
            let entropy = *blake3::hash(name.as_bytes()).as_bytes();
            let mut keyring = Keyring::with_checks(
                Unbound,
                &NodeSecret::from_bytes(UniqueId::from_text(name).0),
                role,
                instance,
                group,
                floors,
                entropy,
            );
            let bundle =
                made(keyring.perform(&Job::MakeBundle { epoch: Epoch(1), fresh_key: true }, || [0x5a; 32]));
            Member { name: String::new(), keyring, bundle }
        };
        let sorted = |kind: &str, mut members: Vec<Member>| {
            members.sort_by_key(|member| member.keyring.peer());
            for (index, member) in members.iter_mut().enumerate() {
                member.name = format!("{kind}-{}", index + 1);
            }
            members
        };
        let group = Some(GroupId([0x30; 32]));
        let servers =
            (0..4).map(|i| member(&format!("server {i}"), Role::Server, group, Some(floors))).collect();
        let clients = (0..3).map(|i| member(&format!("client {i}"), Role::Client, None, None)).collect();
        let mut aggregator = member("aggregator", Role::Aggregator, None, None);
        aggregator.name = "aggregator".into();
        Self {
            servers: sorted("server", servers),
            clients: sorted("client", clients),
            aggregator,
            params: RoundParams::new(4, 48, 16).unwrap(),
            instance,
        }
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.servers.iter().chain(&self.clients).chain([&self.aggregator])
    }

    pub(crate) fn peer(&self, name: &str) -> PeerId {
        self.members()
            .find(|member| member.name == name)
            .unwrap_or_else(|| panic!("no {name}"))
            .keyring
            .peer()
    }

    pub(crate) fn server(&self, index: usize) -> PeerId {
        self.servers[index].keyring.peer()
    }

    pub(crate) fn client(&self, index: usize) -> PeerId {
        self.clients[index].keyring.peer()
    }

    pub(crate) fn registry(&self, version: u64, clients: &[usize]) -> ClientRegistry {
        let bundles = clients.iter().map(|index| self.clients[*index].bundle.clone()).collect();
        ClientRegistry::from_parts(RegistryVersion(version), Counter(version), bundles).unwrap()
    }

    pub(crate) fn live(&mut self, plan: &Plan) -> LiveHeader {
        let header = Header {
            log: plan.log,
            round: Round(plan.round),
            nonce: [0x20; 32],
            group: GroupId([0x30; 32]),
            params: self.params,
            previous: Previous {
                round: Round(plan.previous.0),
                record: plan.previous.1,
                state: Digest::default(),
            },
            servers: plan
                .roster
                .iter()
                .map(|index| RosterServer::from(&self.servers[*index].bundle))
                .collect(),
            clients: self.registry(plan.version, &plan.clients).set(),
            min_participants: plan.min_participants,
            aggregator: self.aggregator.keyring.peer(),
        };
        self.sign_header(header, &plan.roster, &plan.refused)
    }

    pub(crate) fn sign_header(&mut self, header: Header, roster: &[usize], refused: &[u32]) -> LiveHeader {
        let digest = header.digest();
        let refused = Bitmap::from_ones(header.clients.count, refused.iter().copied()).unwrap();
        let (log, round) = (header.log, header.round);
        let sign = |index: &usize| {
            let key_epoch = self.servers[*index].bundle.epoch;
            let job = Job::SignHeader { key_epoch, log, round, header: digest, refused: refused.clone() };
            match self.servers[*index].keyring.perform(&job, || [0x5a; 32]) {
                Done::HeaderSigned(signature) => signature,
                other => panic!("{other:?}"),
            }
        };
        let signatures = roster.iter().map(sign).collect();
        LiveHeader { header, signatures }
    }

    /// An envelope of a client that is not the one under test.
    pub(crate) fn envelope(&mut self, client: usize, live: &LiveHeader) -> Envelope {
        let member = &mut self.clients[client];
        let header = live.header.clone().into();
        let payload = Payload::blank(&live.header.params);
        let job = Job::Seal { header, epoch: member.bundle.epoch, payload, cover: true };
        match member.keyring.perform(&job, || [0x5a; 32]) {
            Done::Sealed { envelope, .. } => *envelope,
            other => panic!("{other:?}"),
        }
    }

    /// The record that the committee makes of these envelopes.
    pub(crate) fn record(
        &mut self,
        plan: &Plan,
        live: &LiveHeader,
        envelopes: &[(usize, Vec<u8>)],
    ) -> Record {
        let registry = self.registry(plan.version, &plan.clients);
        let mut fold = Fold::new(self.params.vector_bytes());
        let mut participants = Bitmap::new(live.header.clients.count);
        for (client, body) in envelopes {
            fold.add(body).unwrap();
            participants.set(registry.index_of(&self.client(*client)).unwrap());
        }
        let clients =
            participants.iter_ones().map(|place| End::from(registry.at(place).unwrap().1)).collect();
        let header = live.header.clone().into();
        let job = Job::MakePartial { key_epoch: Epoch(1), header, aggregate: Digest::default(), clients };
        let mut broadcast = fold.into_body();
        let mut partials = Vec::new();
        for index in &plan.roster {
            match self.servers[*index].keyring.perform(&job, || [0x5a; 32]) {
                Done::PartialMade(partial) => {
                    xor_into(&mut broadcast, &partial.body);
                    partials.push(partial.digest());
                }
                other => panic!("{other:?}"),
            }
        }
        Record {
            log: live.header.log,
            round: live.header.round,
            header: live.header.digest(),
            participants,
            servers: plan.roster.iter().map(|index| self.server(*index)).collect(),
            broadcast,
            previous: plan.previous.1,
            aggregate: Digest::default(),
            partials,
            index: 10 * live.header.round.0,
            chain: Digest([0x55; 32]),
        }
    }

    pub(crate) fn sign_record(&mut self, record: &Record, servers: &[usize]) -> Vec<RecordSignature> {
        let job = Job::SignRecord { log: record.log, round: record.round, record: record.digest() };
        let sign = |index: &usize| match self.servers[*index].keyring.perform(&job, || [0x5a; 32]) {
            Done::RecordSigned(signature) => signature,
            other => panic!("{other:?}"),
        };
        servers.iter().map(sign).collect()
    }

    /// What these servers say of a header.
    pub(crate) fn disclaim(&mut self, header: &Header, servers: &[usize]) -> Vec<Disclaimer> {
        let job = Job::Disclaim {
            key_epoch: Epoch(1),
            log: header.log,
            round: header.round,
            header: header.digest(),
        };
        let sign = |index: &usize| match self.servers[*index].keyring.perform(&job, || [0x5a; 32]) {
            Done::Disclaimed(disclaimer) => disclaimer,
            other => panic!("{other:?}"),
        };
        servers.iter().map(sign).collect()
    }

    pub(crate) fn announce(&mut self, server: usize, standing: Standing) -> Announcement {
        let job = Job::Announce { log: LOG, epoch: Epoch(1), counter: Counter(2), standing };
        match self.servers[server].keyring.perform(&job, || [0x5a; 32]) {
            Done::Announced(announcement) => announcement,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn aggregator_config(&self) -> aggregator::Config {
        aggregator::Config {
            me: self.aggregator.keyring.peer(),
            instance: self.instance,
            epoch: Epoch(1),
            params: self.params,
            pins: vec![],
            bootstrap: vec![],
            believed: aggregator::Believed::default(),
            fold_deadline: Duration::from_secs(2),
            resend: RESEND,
            expire_after: Duration::from_secs(60),
        }
    }

    /// Of the first client.
    pub(crate) fn client_config(&self) -> client::Config {
        client::Config {
            me: self.client(0),
            instance: self.instance,
            epoch: Epoch(1),
            pins: vec![],
            min_servers: None,
            cadence: 1,
            params: self.params,
            queue_max: 4,
            resend: RESEND,
            key_age_max: Duration::from_secs(200_000),
            rekey_after: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Cast {
    /// Of a reader that pins nobody and takes the oldest records that it gets.
    pub(crate) fn reader_config(&self) -> reader::Config {
        reader::Config { pins: vec![], min_servers: None, from: None, params: self.params, resend: RESEND }
    }
}

/// The bundle that was made.
pub(crate) fn made(done: Done) -> Bundle {
    match done {
        Done::BundleMade(bundle) => bundle,
        other => panic!("{other:?}"),
    }
}

/// A machine under test.
pub(crate) trait Machine {
    type Input;
    fn handle(&mut self, now: Time, input: Self::Input, out: &mut Outbox);
    fn deadline(&self) -> Deadline;
    fn done(done: Done) -> Self::Input;
    fn tick() -> Self::Input;
    fn received(from: PeerId, bytes: Vec<u8>) -> Self::Input;
    fn linked(peer: PeerId, role: Role) -> Self::Input;
    fn unlinked(peer: PeerId) -> Self::Input;
    /// Its secrets.
    fn member(cast: &mut Cast) -> &mut Member;
}

macro_rules! machine {
    ($machine:ident, $module:ident, $member:expr) => {
        impl<C: Checks> Machine for $machine<C> {
            type Input = $module::Input;
            fn handle(&mut self, now: Time, input: Self::Input, out: &mut Outbox) {
                Self::handle(self, now, input, out);
            }
            fn deadline(&self) -> Deadline {
                Self::deadline(self)
            }
            fn done(done: Done) -> Self::Input {
                $module::Input::Done(done)
            }
            fn tick() -> Self::Input {
                $module::Input::Tick
            }
            fn received(from: PeerId, bytes: Vec<u8>) -> Self::Input {
                $module::Input::Received { from, bytes: bytes.into() }
            }
            fn linked(peer: PeerId, role: Role) -> Self::Input {
                $module::Input::Linked { peer, role }
            }
            fn unlinked(peer: PeerId) -> Self::Input {
                $module::Input::Unlinked { peer }
            }
            fn member(cast: &mut Cast) -> &mut Member {
                $member(cast)
            }
        }
    };
}

machine!(Aggregator, aggregator, aggregator_of);
machine!(Client, client, first_client_of);

impl<C: Checks> Machine for Reader<C> {
    type Input = reader::Input;
    fn handle(&mut self, now: Time, input: Self::Input, out: &mut Outbox) {
        Self::handle(self, now, input, out);
    }
    fn deadline(&self) -> Deadline {
        Self::deadline(self)
    }
    fn done(_: Done) -> Self::Input {
        unreachable!("a reader has no work that needs a secret")
    }
    fn tick() -> Self::Input {
        reader::Input::Tick
    }
    fn received(from: PeerId, bytes: Vec<u8>) -> Self::Input {
        reader::Input::Received { from, bytes: bytes.into() }
    }
    fn linked(peer: PeerId, role: Role) -> Self::Input {
        reader::Input::Linked { peer, role }
    }
    fn unlinked(peer: PeerId) -> Self::Input {
        reader::Input::Unlinked { peer }
    }
    fn member(_: &mut Cast) -> &mut Member {
        unreachable!("a reader has no secret")
    }
}

fn aggregator_of(cast: &mut Cast) -> &mut Member {
    &mut cast.aggregator
}

fn first_client_of(cast: &mut Cast) -> &mut Member {
    &mut cast.clients[0]
}

/// The machine under test among its cast. Jobs are performed at once.
pub(crate) struct Play<M> {
    pub(crate) cast: Cast,
    pub(crate) machine: M,
    pub(crate) now: Time,
}

impl<M: Machine> Play<M> {
    pub(crate) fn new(cast: Cast, machine: M) -> Self {
        Self { cast, machine, now: Time::default() }
    }

    /// Feeds an input, and what its jobs give; returns all effects in order.
    pub(crate) fn feed(&mut self, input: M::Input) -> Vec<Effect> {
        let mut inputs = VecDeque::from([input]);
        let (mut effects, mut out) = (Vec::new(), Outbox::new());
        while let Some(input) = inputs.pop_front() {
            self.machine.handle(self.now, input, &mut out);
            while let Some(effect) = out.pop() {
                if let Effect::Work(job) = &effect {
                    let member = M::member(&mut self.cast);
                    let done = member.keyring.perform(job, || [0x5a; 32]);
                    if let Done::BundleMade(bundle) = &done {
                        member.bundle = bundle.clone();
                    }
                    inputs.push_back(M::done(done));
                }
                effects.push(effect);
            }
        }
        effects
    }

    pub(crate) fn hear(&mut self, from: PeerId, message: &Message) -> Vec<Effect> {
        self.feed(M::received(from, wire::encode(message).to_vec()))
    }

    pub(crate) fn tick(&mut self) -> Vec<Effect> {
        self.feed(M::tick())
    }

    /// Lets time pass, with a tick at its end.
    pub(crate) fn wait(&mut self, duration: Duration) -> Vec<Effect> {
        self.now = self.now.after(duration);
        self.tick()
    }
}

/// The messages that were sent, with their receivers.
pub(crate) fn sent(effects: &[Effect]) -> Vec<(PeerId, Message)> {
    let decoded = |effect: &Effect| match effect {
        Effect::Send { to, bytes } => Some((*to, wire::decode(bytes).unwrap())),
        Effect::Propose(_)
        | Effect::Work(_)
        | Effect::Report(_)
        | Effect::Past(_)
        | Effect::HandOver
        | Effect::Stopped => None,
    };
    effects.iter().filter_map(decoded).collect()
}
