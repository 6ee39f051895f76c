//! One of everything, small enough to try every prefix and every bit.

use zipnet_core::bitmap::Bitmap;
use zipnet_core::id::{
    Counter, Digest, Epoch, GroupId, LogId, PeerId, RegistryVersion, Role, Round, UniqueId,
};
use zipnet_core::key::{Identity, NodeSecret, RoundSecret, Signature};
use zipnet_core::message::{
    Aggregate, Announcement, Approval, Bundle, ClientBatch, ClientRefusal, ClientSet, Command, Disclaimer,
    Envelope, Floors, Header, HeaderSignature, LiveHeader, Message, Partial, Previous, Record,
    RecordSignature, RosterServer, Standing, Testimony, Turnout,
};
use zipnet_core::params::RoundParams;
use zipnet_core::refused::Refused;
use zipnet_core::registry::ClientRegistry;

pub(crate) const LOG: LogId = LogId([0x10; 32]);
pub(crate) const ROUND: Round = Round(300);

pub(crate) fn identity(name: &str) -> Identity {
    Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text(name).0))
}

/// Identities in PeerId order.
pub(crate) fn identities(kind: &str, count: usize) -> Vec<Identity> {
    let mut all: Vec<_> = (0..count).map(|number| identity(&format!("{kind} {number}"))).collect();
    all.sort_by_key(Identity::peer);
    all
}

pub(crate) fn bundle(identity: &Identity, role: Role, epoch: u64) -> Bundle {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&epoch.to_le_bytes());
    seed[8..].copy_from_slice(&identity.peer().0[..24]);
    let mut bundle = Bundle {
        peer: identity.peer(),
        role,
        instance: UniqueId::from_text("an instance"),
        epoch: Epoch(epoch),
        round_key: RoundSecret::from_seed(seed).public(),
        floors: (role == Role::Server).then_some(Floors { participants: 3, servers: Some(2) }),
        boot: None,
        signature: Signature::default(),
    };
    bundle.signature = identity.sign(&bundle.digest());
    bundle
}

pub(crate) fn registry(clients: usize) -> ClientRegistry {
    let bundles =
        identities("client", clients).iter().map(|client| bundle(client, Role::Client, 1)).collect();
    ClientRegistry::from_parts(RegistryVersion(7), Counter(5), bundles).expect("the clients are in order")
}

pub(crate) fn header(servers: &[Identity], clients: ClientSet, params: RoundParams) -> Header {
    Header {
        log: LOG,
        round: ROUND,
        nonce: [0x20; 32],
        group: GroupId([0x30; 32]),
        params,
        previous: Previous { round: Round(299), record: Digest([0x40; 32]), state: Digest([0x50; 32]) },
        servers: servers.iter().map(|server| RosterServer::from(&bundle(server, Role::Server, 2))).collect(),
        clients,
        min_participants: 3,
        aggregator: identity("aggregator").peer(),
    }
}

pub(crate) fn header_signature(header: &Header, server: &Identity, refused: Bitmap) -> HeaderSignature {
    let mut signed = HeaderSignature {
        log: header.log,
        round: header.round,
        header: header.digest(),
        server: server.peer(),
        refused,
        signature: Signature::default(),
    };
    signed.signature = server.sign(&signed.signed_digest());
    signed
}

/// A live header of `servers` servers over `clients` clients; server `i` refuses client `i`.
pub(crate) fn live(servers: usize, clients: usize) -> (Vec<Identity>, ClientRegistry, LiveHeader) {
    let (servers, registry) = (identities("server", servers), registry(clients));
    let params = RoundParams::new(2, 24, 8).expect("the parameters are good");
    let header = header(&servers, registry.set(), params);
    let count = header.clients.count;
    let signatures = (0..)
        .zip(&servers)
        .map(|(place, server)| {
            let refused = Bitmap::from_ones(count, [place].into_iter().filter(|place| *place < count));
            header_signature(&header, server, refused.expect("the place is inside"))
        })
        .collect();
    (servers, registry, LiveHeader { header, signatures })
}

pub(crate) fn record(servers: &[Identity], participants: Bitmap, broadcast: Vec<u8>) -> Record {
    Record {
        log: LOG,
        round: ROUND,
        header: Digest([0x60; 32]),
        participants,
        servers: servers.iter().map(Identity::peer).collect(),
        broadcast,
        previous: Digest([0x70; 32]),
        aggregate: Digest([0x71; 32]),
        partials: servers.iter().map(|server| Digest(server.peer().0)).collect(),
        index: 700,
        chain: Digest([0x72; 32]),
    }
}

pub(crate) fn announcement(server: &Identity, standing: Standing) -> Announcement {
    let mut announcement = Announcement {
        log: LOG,
        server: server.peer(),
        epoch: Epoch(2),
        counter: Counter(200),
        standing,
        signature: Signature::default(),
    };
    announcement.signature = server.sign(&announcement.signed_digest());
    announcement
}

pub(crate) fn envelope(client: &Identity, body: Vec<u8>) -> Envelope {
    let mut envelope = Envelope {
        log: LOG,
        round: ROUND,
        header: Digest([0x60; 32]),
        epoch: Epoch(1),
        body,
        signature: Signature::default(),
    };
    envelope.signature = client.sign(&envelope.signed_digest());
    envelope
}

pub(crate) fn aggregate(aggregator: &Identity, participants: Bitmap, body: Vec<u8>) -> Aggregate {
    let mut aggregate = Aggregate {
        log: LOG,
        round: ROUND,
        header: Digest([0x60; 32]),
        participants,
        body,
        signature: Signature::default(),
    };
    aggregate.signature = aggregator.sign(&aggregate.digest());
    aggregate
}

pub(crate) fn partial(server: &Identity, body: Vec<u8>) -> Partial {
    let mut partial = Partial {
        log: LOG,
        round: ROUND,
        header: Digest([0x60; 32]),
        aggregate: Digest([0x61; 32]),
        server: server.peer(),
        body,
        signature: Signature::default(),
    };
    partial.signature = server.sign(&partial.digest());
    partial
}

pub(crate) fn batch(
    aggregator: &Identity,
    register: Vec<Bundle>,
    expire: Vec<(PeerId, Epoch)>,
) -> ClientBatch {
    let mut batch =
        ClientBatch { log: LOG, counter: Counter(9), register, expire, signature: Signature::default() };
    batch.signature = aggregator.sign(&batch.signed_digest());
    batch
}

pub(crate) fn record_signature(server: &Identity, record: &Record) -> RecordSignature {
    let mut signed = RecordSignature {
        log: record.log,
        round: record.round,
        record: record.digest(),
        server: server.peer(),
        signature: Signature::default(),
    };
    signed.signature = server.sign(&signed.signed_digest());
    signed
}

pub(crate) fn disclaimer(server: &Identity) -> Disclaimer {
    let mut disclaimer = Disclaimer {
        log: LOG,
        round: ROUND,
        header: Digest([0x60; 32]),
        server: server.peer(),
        signature: Signature::default(),
    };
    disclaimer.signature = server.sign(&disclaimer.signed_digest());
    disclaimer
}

pub(crate) fn testimony(witness: &Identity, server: &Identity) -> Testimony {
    let mut testimony = Testimony {
        log: LOG,
        server: server.peer(),
        epoch: Epoch(2),
        witness: witness.peer(),
        signature: Signature::default(),
    };
    testimony.signature = witness.sign(&testimony.signed_digest());
    testimony
}

pub(crate) fn approval(server: &Identity, aggregator: &Identity) -> Approval {
    let mut approval = Approval {
        log: LOG,
        bundle: bundle(aggregator, Role::Aggregator, 4),
        server: server.peer(),
        signature: Signature::default(),
    };
    approval.signature = server.sign(&approval.signed_digest());
    approval
}

pub(crate) fn refusal(server: &Identity, client: &Identity, refuse: bool) -> ClientRefusal {
    let mut refusal = ClientRefusal {
        log: LOG,
        server: server.peer(),
        counter: Counter(11),
        client: client.peer(),
        epoch: Epoch(1),
        refuse,
        signature: Signature::default(),
    };
    refusal.signature = server.sign(&refusal.signed_digest());
    refusal
}

/// Every command, in the order of kinds.
pub(crate) fn commands() -> Vec<Command> {
    let (servers, registry, live) = live(2, 3);
    let (aggregator, client) = (identity("aggregator"), identity("client 0"));
    let body = vec![0xa5; 48];
    let (_, newcomer) = registry.at(0).expect("there are clients");
    let record = record(&servers, Bitmap::new(3), body.clone());
    vec![
        Command::StartLog { log: LOG },
        Command::OpenRound(live.header.clone()),
        Command::SignHeader(live.signatures[0].clone()),
        Command::SubmitAggregate(aggregate(
            &aggregator,
            Bitmap::from_ones(3, [1, 2]).expect("inside"),
            body.clone(),
        )),
        Command::SubmitPartial(partial(&servers[0], body)),
        Command::SignRecord(record_signature(&servers[0], &record)),
        Command::RegisterServer {
            bundle: bundle(&servers[0], Role::Server, 2),
            announcement: announcement(&servers[0], Standing::Registered),
        },
        Command::DepartServer(announcement(&servers[0], Standing::Departed)),
        Command::RetireServer(announcement(&servers[0], Standing::Leaving)),
        Command::TestifyDead(testimony(&servers[0], &servers[1])),
        Command::ApproveAggregator(approval(&servers[0], &aggregator)),
        Command::ChangeClients(batch(&aggregator, vec![newcomer.clone()], vec![(client.peer(), Epoch(1))])),
        Command::RefuseClient(refusal(&servers[0], &client, true)),
    ]
}

/// Every message, in the order of kinds.
pub(crate) fn messages() -> Vec<Message> {
    let (servers, registry, live) = live(2, 3);
    let (aggregator, client) = (identity("aggregator"), identity("client 0"));
    let body = vec![0x5a; 48];
    let record = record(&servers, Bitmap::from_ones(3, [0]).expect("inside"), body.clone());
    let signatures: Vec<_> = servers.iter().map(|server| record_signature(server, &record)).collect();
    let clients = registry.bundles().to_vec();
    let batch = batch(&aggregator, clients.clone(), vec![(client.peer(), Epoch(1))]);
    vec![
        Message::Propose(Command::StartLog { log: LOG }),
        Message::Bundle(bundle(&client, Role::Client, 1)),
        Message::BundleRefused {
            reason: Refused::WrongInstance,
            last: Some(bundle(&client, Role::Client, 1)),
        },
        Message::Live(live.clone()),
        Message::LiveFor { live: Box::new(live), place: registry.proof(&client.peer()) },
        Message::Envelope(envelope(&client, body.clone())),
        Message::Aggregate(aggregate(&aggregator, Bitmap::from_ones(3, [1]).expect("inside"), body)),
        Message::AggregateApplied { round: ROUND, header: Digest([0x60; 32]) },
        Message::Registry { log: LOG, version: registry.version(), counter: registry.counter(), clients },
        Message::RegistryChanged { version: RegistryVersion(8), batch },
        Message::RegistryWanted,
        Message::Record { record, signatures: signatures.clone() },
        Message::RecordSigned { signatures },
        Message::RecordsWanted { from: ROUND },
        Message::TestifyWanted { server: servers[0].peer() },
        Message::Retired { announcements: vec![announcement(&servers[0], Standing::Leaving)] },
        Message::Disclaimed { disclaimers: servers.iter().map(disclaimer).collect() },
        Message::Declined { round: ROUND, header: Digest([0x60; 32]), reason: Refused::RosterTooSmall },
        Message::Turnout(Turnout {
            round: ROUND,
            header: Digest([0x60; 32]),
            envelopes: 1,
            absent: 2,
            declined: vec![(Refused::RosterTooSmall, 3), (Refused::PinMissing, 300)],
        }),
    ]
}
