//! A short log, from its first command to its second record: what the machine makes of it, entry by entry, and the parts
//! of its records.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use zipnet_core::bitmap::Bitmap;
use zipnet_core::checks::Strict;
use zipnet_core::committee::{Committee, Config};
use zipnet_core::fold::Fold;
use zipnet_core::id::{Counter, Epoch, PeerId, Role};
use zipnet_core::instance::Instance;
use zipnet_core::key::NodeSecret;
use zipnet_core::keyring::Keyring;
use zipnet_core::machine::{Done, Job, Report};
use zipnet_core::message::{Bundle, Command, Floors, Header, Message, Standing};
use zipnet_core::pad::End;
use zipnet_core::params::RoundParams;
use zipnet_core::slot::Payload;
use zipnet_core::wire::{encode, encode_command};

use super::{GROUP, LOG, check, hex};

/// Takes what a job gives.
macro_rules! done {
    ($actor:expr, $job:expr, $variant:ident) => {
        match $actor.keyring.perform(&$job, || [0x5a; 32]) {
            Done::$variant(made) => made,
            other => panic!("{other:?}"),
        }
    };
}

struct Actor {
    keyring: Keyring,
    bundle: Bundle,
}

impl Actor {
    fn new(name: &str, role: Role, servers: Option<u32>) -> Self {
        let seed = *blake3::hash(name.as_bytes()).as_bytes();
        let floors = (role == Role::Server).then_some(Floors { participants: 2, servers });
        let group = (role == Role::Server).then_some(GROUP);
        let instance = Instance::new("testnet").expect("the name is good").id();
        let mut keyring = Keyring::new(&NodeSecret::from_bytes(seed), role, instance, group, floors, seed);
        let job = Job::MakeBundle { epoch: Epoch(1), fresh_key: true };
        let Done::BundleMade(bundle) = keyring.perform(&job, || [0x5a; 32]) else { panic!("it is a bundle") };
        Self { keyring, bundle }
    }

    fn peer(&self) -> PeerId {
        self.bundle.peer
    }

    fn all(kind: &str, role: Role, servers: [Option<u32>; 3]) -> Vec<Self> {
        let all = ["0", "1", "2"].into_iter().zip(servers);
        let mut all: Vec<_> =
            all.map(|(name, floor)| Self::new(&format!("{kind} {name}"), role, floor)).collect();
        all.sort_by_key(Self::peer);
        all
    }
}

struct Story {
    committee: Committee<Strict>,
    params: RoundParams,
    servers: Vec<Actor>,
    clients: Vec<Actor>,
    index: u64,
    entries: Vec<Value>,
    records: Vec<Value>,
}

impl Story {
    fn enter_bytes(&mut self, bytes: &[u8]) {
        self.index += 1;
        self.committee.chain(self.index, bytes);
        self.entries.push(json!({ "index": self.index, "bytes": hex(bytes) }));
    }

    fn enter(&mut self, command: &Command) {
        self.enter_bytes(&encode_command(command));
        let mut reports = Vec::new();
        self.committee.apply(self.index, command, &mut reports).expect("the story is in order");
        for report in reports {
            if let Report::RoundFinalized { record, digest, .. } = report {
                let job = Job::SignRecord { log: LOG, round: record.round, record: digest };
                let signatures =
                    self.servers.iter_mut().map(|server| done!(server, job, RecordSigned)).collect();
                let message = Message::Record { record: (*record).clone(), signatures };
                self.records.push(json!({
                    "digest": digest.to_string(),
                    "state": self.committee.previous().state.to_string(),
                    "message": hex(&encode(&message)),
                }));
            }
        }
    }

    fn header(&self, nonce: u8) -> Arc<Header> {
        Arc::new(Header {
            log: LOG,
            round: self.committee.opened().next(),
            nonce: [nonce; 32],
            group: GROUP,
            params: self.params,
            previous: self.committee.previous(),
            servers: self.committee.roster(),
            clients: self.committee.clients().set(),
            min_participants: 2,
            aggregator: self.committee.aggregator().expect("it was approved").peer,
        })
    }

    fn sign_header(&mut self, header: &Header, server: usize, refused: &[u32]) {
        let refused = Bitmap::from_ones(header.clients.count, refused.iter().copied()).expect("inside");
        let (log, round, header, key_epoch) = (header.log, header.round, header.digest(), Epoch(1));
        let job = Job::SignHeader { key_epoch, log, round, header, refused };
        let signed = done!(self.servers[server], job, HeaderSigned);
        self.enter(&Command::SignHeader(signed));
    }

    /// A whole round; these places of the registry take part, the first one with a message.
    fn round(&mut self, aggregator: &mut Actor, nonce: u8, participants: &[u32], refused: &[u32]) {
        let header = self.header(nonce);
        let (log, round, digest) = (header.log, header.round, header.digest());
        self.enter(&Command::OpenRound((*header).clone()));
        for server in 0..self.servers.len() {
            self.sign_header(&header, server, if server == 1 { refused } else { &[] });
        }
        let registry = self.committee.clients().clone();
        let place = |place: &u32| registry.at(*place).expect("it is registered").1.clone();
        let mut fold = Fold::new(self.params.vector_bytes());
        for (turn, bundle) in participants.iter().map(place).enumerate() {
            let client =
                self.clients.iter_mut().find(|client| client.peer() == bundle.peer).expect("a client");
            let payload = Payload::new(b"hello", &self.params).expect("it fits");
            let job = Job::Seal { header: Arc::clone(&header), epoch: Epoch(1), payload, cover: turn > 0 };
            match client.keyring.perform(&job, || [0x5a; 32]) {
                Done::Sealed { envelope, .. } => fold.add(&envelope.body).expect("the length fits"),
                other => panic!("{other:?}"),
            }
        }
        let bits = Bitmap::from_ones(header.clients.count, participants.iter().copied()).expect("inside");
        let job =
            Job::SignAggregate { log, round, header: digest, participants: bits, body: fold.into_body() };
        let aggregate = *done!(aggregator, job, AggregateSigned);
        self.enter(&Command::SubmitAggregate(aggregate.clone()));
        let clients: Arc<[End]> = participants.iter().map(|it| End::from(&place(it))).collect();
        for server in 0..self.servers.len() {
            let (header, aggregate) = (Arc::clone(&header), aggregate.digest());
            let job =
                Job::MakePartial { key_epoch: Epoch(1), header, aggregate, clients: Arc::clone(&clients) };
            let partial = *done!(self.servers[server], job, PartialMade);
            self.enter(&Command::SubmitPartial(partial));
        }
    }

    fn announce(&mut self, server: usize, counter: u64, standing: Standing) -> Command {
        let job = Job::Announce { log: LOG, epoch: Epoch(1), counter: Counter(counter), standing };
        let announcement = done!(self.servers[server], job, Announced);
        match standing {
            Standing::Registered => {
                Command::RegisterServer { bundle: self.servers[server].bundle.clone(), announcement }
            }
            Standing::Departed => Command::DepartServer(announcement),
            Standing::Leaving => Command::RetireServer(announcement),
        }
    }

    fn approve(&mut self, server: usize, aggregator: &Actor) {
        let job = Job::Approve { log: LOG, bundle: aggregator.bundle.clone() };
        let approval = done!(self.servers[server], job, Approved);
        self.enter(&Command::ApproveAggregator(approval));
    }

    fn change(&mut self, aggregator: &mut Actor, counter: u64, register: Vec<Bundle>, expire: &[PeerId]) {
        let expire = expire.iter().map(|client| (*client, Epoch(1))).collect();
        let batch = done!(
            aggregator,
            Job::SignBatch { log: LOG, counter: Counter(counter), register, expire },
            BatchSigned
        );
        self.enter(&Command::ChangeClients(*batch));
    }
}

#[test]
fn machine() {
    let params = RoundParams::new(4, 17, 5).expect("the parameters are good");
    let instance = Instance::new("testnet").expect("the name is good").id();
    let config = Config { instance, group: GROUP, params };
    let mut story = Story {
        committee: Committee::new(config, Strict),
        params,
        servers: Actor::all("server", Role::Server, [None, Some(2), Some(3)]),
        clients: Actor::all("client", Role::Client, [None; 3]),
        index: 0,
        entries: Vec::new(),
        records: Vec::new(),
    };
    let mut first = Actor::new("aggregator 0", Role::Aggregator, None);
    let mut second = Actor::new("aggregator 1", Role::Aggregator, None);
    let third = Actor::new("aggregator 2", Role::Aggregator, None);
    let voters: BTreeSet<PeerId> = story.servers.iter().map(Actor::peer).collect();
    story.committee.set_voters(voters.clone());

    story.enter(&Command::StartLog { log: LOG });
    for server in 0..3 {
        let command = story.announce(server, 1, Standing::Registered);
        story.enter(&command);
    }
    story.approve(0, &first);
    story.approve(1, &first);
    let bundles = story.clients.iter().map(|client| client.bundle.clone()).collect();
    story.change(&mut first, 1, bundles, &[]);
    // Neither is applied, both are in the chain. The index that is left out carries no command.
    story.enter_bytes(&[1, 99]);
    story.enter_bytes(&encode_command(&Command::StartLog { log: LOG }));
    story.index += 1;
    story.round(&mut first, 1, &[0, 2], &[1]);

    let witnessed = story.servers[2].peer();
    let job = Job::Testify { log: LOG, server: witnessed, epoch: Epoch(1) };
    let testimony = done!(story.servers[0], job, Testified);
    story.enter(&Command::TestifyDead(testimony));
    let farewell = story.announce(1, 2, Standing::Leaving);
    story.enter(&farewell);
    story.approve(1, &second);
    story.approve(2, &second);
    story.approve(0, &third);
    let gone = story.clients[1].peer();
    let job = Job::Refuse { log: LOG, counter: Counter(1), client: gone, epoch: Epoch(1), refuse: true };
    let refusal = done!(story.servers[2], job, RefusalSigned);
    story.enter(&Command::RefuseClient(refusal));
    // It is gone already: nothing changes but version and counter.
    story.change(&mut second, 2, Vec::new(), &[gone]);
    story.round(&mut second, 2, &[0, 1], &[]);

    // A third one is under way when the snapshot is taken.
    let header = story.header(3);
    story.enter(&Command::OpenRound((*header).clone()));
    story.sign_header(&header, 0, &[]);
    check(
        "machine.json",
        &json!({
            "_comment": "Section 9 of docs/protocol.md: the command entries of a log, the records and state digests that \
                         they make, and the snapshot behind the last one. The entries of each record's round are the \
                         parts that it was made of.",
            "instance": instance.to_string(),
            "group": GROUP.to_string(),
            "params": [params.num_slots(), params.slot_bytes(), params.tag_len()],
            "voters": voters.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "entries": story.entries,
            "records": story.records,
            "snapshot": hex(&story.committee.snapshot()),
        }),
    );
}
