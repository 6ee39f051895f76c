//! The published test vectors: computed here, compared with the files in `vectors/`, and computed again by the
//! reference in Python, which was written from `docs/protocol.md` and shares no code with this crate.
//!
//! `UPDATE=1 cargo test -p zipnet-core --test vectors` writes the files anew. A change of a value is a change of the
//! protocol: it needs another `WIRE_VERSION`, or has a reason in the commit.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use zipnet_core::bitmap::Bitmap;
use zipnet_core::digest::{Context, chain_digest};
use zipnet_core::fold::Fold;
use zipnet_core::id::{
    Counter, Digest, Epoch, GroupId, LogId, PeerId, RegistryVersion, Role, Round, UNIVERSE, UniqueId,
};
use zipnet_core::instance::{Instance, machine_signature};
use zipnet_core::key::{CommitteeSecret, Identity, NodeSecret, RoundSecret, Signature};
use zipnet_core::message::{
    Aggregate, Boot, Bundle, ClientSet, Envelope, Floors, Header, HeaderSignature, Message, Partial,
    Previous, Record, RecordSignature, RosterServer,
};
use zipnet_core::pad::{End, PairKey, pad_key, pair_key, xor_pad};
use zipnet_core::params::RoundParams;
use zipnet_core::partial::{finalise, partial_body};
use zipnet_core::registry::ClientRegistry;
use zipnet_core::seal::seal;
use zipnet_core::slot::tag;
use zipnet_core::wire::{WIRE_VERSION, encode};

#[path = "vectors/machine.rs"]
mod machine;
#[path = "vectors/messages.rs"]
mod messages;
#[path = "primitives/sample.rs"]
mod sample;

const GROUP: GroupId = GroupId([0x47; 32]);
const LOG: LogId = LogId([0x4c; 32]);

/// The only entry between two records of the examples.
const ENTRY: &[u8] = b"a command";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn check(name: &str, value: &Value) {
    let path = directory().join(name);
    let mut text = serde_json::to_string_pretty(value).expect("a value has a text");
    text.push('\n');
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).expect("the vectors can be written");
    }
    let kept = std::fs::read_to_string(&path).expect("the vectors are part of the source");
    let kept: Value = serde_json::from_str(&kept).expect("the vectors are JSON");
    assert_eq!(&kept, value, "{name} does not hold what is computed; UPDATE=1 rewrites it");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn round_secret(name: &str) -> (String, RoundSecret) {
    let seed = *blake3::hash(name.as_bytes()).as_bytes();
    (hex(&seed), RoundSecret::from_seed(seed))
}

fn pair(client: &RoundSecret, server: &RoundSecret, peers: (PeerId, PeerId)) -> PairKey {
    let shared = client.agree(&server.public()).expect("honest keys contribute");
    let end = |peer: PeerId, secret: &RoundSecret| End { peer, round_key: secret.public() };
    pair_key(&shared, &end(peers.0, client), &end(peers.1, server), &GROUP)
}

/// The longer vectors stand in the files as their hash and their end.
fn summary(bytes: &[u8]) -> Value {
    if bytes.len() <= 192 {
        return json!({ "bytes": bytes.len(), "hex": hex(bytes) });
    }
    json!({
        "bytes": bytes.len(),
        "blake3": hex(blake3::hash(bytes).as_bytes()),
        "last_32": hex(&bytes[bytes.len() - 32..]),
    })
}

#[test]
fn identifiers() {
    let digits = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    let cases = [
        ("", "the empty text is hashed like any other"),
        ("mosaik.universe", "the text of the default universe"),
        (digits, "64 digits of either case are decoded"),
        (&digits[1..], "63 digits are a text"),
        ("zipnet ✓", "a text is hashed as UTF-8"),
    ];
    let texts: Vec<_> = cases
        .iter()
        .map(|(text, why)| json!({ "text": text, "why": why, "id": UniqueId::from_text(text).to_string() }))
        .collect();
    let instance = Instance::new("testnet").expect("the name is good");
    let secret = "5e".repeat(32);
    let committee = CommitteeSecret::from_text(&secret, &instance);
    let signature = machine_signature(WIRE_VERSION, 1, &RoundParams::DEFAULT);
    let node_text = "1d".repeat(32);
    let node = NodeSecret::from_text(&node_text, &instance);
    let (exporter, peer) = ([0x65; 32], PeerId([0x70; 32]));
    let prover = Identity::from_secret(&node).peer();
    check(
        "identifiers.json",
        &json!({
            "_comment": "Sections 1 and 2 of docs/protocol.md.",
            "texts": texts,
            "universe": UNIVERSE.to_string(),
            "instance": {
                "name": instance.name(),
                "id": instance.id().to_string(),
                "committee": instance.committee().to_string(),
                "submit": instance.submit().to_string(),
                "register": instance.register().to_string(),
                "broadcasts": instance.broadcasts().to_string(),
                "live-round": instance.live_round().to_string(),
                "client-registry": instance.client_registry().to_string(),
                "server-registry": instance.server_registry().to_string(),
            },
            "machine": {
                "wire_version": WIRE_VERSION,
                "machine_version": 1,
                "params": [64, 256, 16],
                "signature": signature.to_string(),
            },
            "committee": {
                "secret": secret,
                "group_id": committee.group_id(&instance, &signature).to_string(),
                "exporter": hex(&exporter),
                "verifier": peer.to_string(),
                "proof_of_a_server": hex(&committee.group_proof(&exporter, Role::Server, &prover, &peer)),
            },
            "stretched": stretched(&instance, &signature),
            "node": {
                "text": node_text,
                "ed25519_seed": hex(&*Identity::from_secret(&node).seed()),
                "peer": prover.to_string(),
                "state_key": hex(&*node.state_key()),
            },
            "contexts": Context::ALL.iter().map(|context| context.text()).collect::<Vec<_>>(),
        }),
    );
}

/// Secrets that are texts. argon2id is called here with what the page says, and what the crate makes follows from it.
fn stretched(instance: &Instance, signature: &Digest) -> Value {
    let text = "correct horse battery staple";
    let stretch = |context: &str| {
        let salt = [context.as_bytes(), instance.id().as_bytes()].concat();
        let params = argon2::Params::new(64 << 10, 3, 1, Some(32)).expect("within the limits");
        let mut output = [0; 32];
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
            .hash_password_into(UniqueId::from_text(text).as_bytes(), &salt, &mut output)
            .expect("within the limits");
        (hex(&salt), output)
    };
    let (node_salt, node_output) = stretch("zipnet v1 node secret");
    let node = Identity::from_secret(&NodeSecret::from_text(text, instance)).peer();
    assert_eq!(node, Identity::from_secret(&NodeSecret::from_bytes(node_output)).peer());
    let (committee_salt, committee_output) = stretch("zipnet v1 committee secret");
    let group = CommitteeSecret::from_text(text, instance).group_id(instance, signature);
    assert_eq!(group, CommitteeSecret::from_bytes(committee_output).group_id(instance, signature));
    json!({
        "_comment": "argon2id, version 0x13, 64 MiB, 3 passes, 1 lane; the reference checks what goes in and what follows",
        "text": text,
        "password": UniqueId::from_text(text).to_string(),
        "node": {
            "salt": node_salt,
            "output": hex(&node_output),
            "ed25519_seed": hex(&*Identity::from_secret(&NodeSecret::from_bytes(node_output)).seed()),
            "peer": node.to_string(),
        },
        "committee": {
            "salt": committee_salt,
            "output": hex(&committee_output),
            "group_id": group.to_string(),
        },
    })
}

#[test]
fn pads() {
    let sizes = [
        (1, "less than a block"),
        (15, "one byte less than a block"),
        (16, "a block"),
        (17, "one byte more than a block"),
        (128, "eight blocks: implementations work on so many at once"),
        (129, "one byte more than eight blocks"),
        (4080, "255 blocks: the last counter of one byte is 254"),
        (4096, "256 blocks: the counter's lowest byte is full"),
        (4097, "257 blocks: the counter carries into its second byte"),
        (16384, "the default vector"),
        (16385, "one byte more than the default vector"),
    ];
    let ((client_secret, client), (server_secret, server)) =
        (round_secret("client 0"), round_secret("server 0"));
    let peers = (PeerId([0x63; 32]), PeerId([0x73; 32]));
    let pair = pair(&client, &server, peers);
    let header = Digest([0x68; 32]);
    let cases: Vec<_> = sizes
        .iter()
        .map(|(size, why)| {
            let mut acc = vec![0; *size];
            xor_pad(&pair, &header, &mut acc);
            json!({ "why": why, "pad": summary(&acc) })
        })
        .collect();
    check(
        "pads.json",
        &json!({
            "_comment": "Section 3 of docs/protocol.md.",
            "client_peer": peers.0.to_string(),
            "client_secret": client_secret,
            "client_public": client.public().to_string(),
            "server_peer": peers.1.to_string(),
            "server_secret": server_secret,
            "server_public": server.public().to_string(),
            "shared": hex(&*client.agree(&server.public()).expect("honest keys contribute")),
            "group": GROUP.to_string(),
            "header": header.to_string(),
            "pad_key": hex(&*pad_key(&pair, &header)),
            "pads": cases,
        }),
    );
}

#[test]
fn slots() {
    let header = Digest([0x68; 32]);
    let cases = [
        (0, vec![0; 1], "one zero byte: the tag tells it from an empty slot"),
        (0, vec![1; 63], "one byte less than a blake3 block"),
        (1, vec![1; 64], "a blake3 block, in another slot"),
        (63, b"hello".to_vec(), "the last slot of the default parameters"),
        (256, vec![2; 240], "a default payload, and a slot whose number has two bytes"),
        (7, vec![3; 1024], "a blake3 chunk"),
        (7, vec![3; 1025], "one byte more: the tag's hash becomes a tree"),
    ];
    let cases: Vec<_> = cases
        .iter()
        .map(|(slot, payload, why)| {
            json!({
                "why": why,
                "slot": slot,
                "payload": hex(payload),
                "tag": hex(&tag(&header, *slot, payload)),
            })
        })
        .collect();
    check(
        "slots.json",
        &json!({
            "_comment": "Section 4 of docs/protocol.md. A slot holds the first tag_len bytes of the tag.",
            "header": header.to_string(),
            "tags": cases,
        }),
    );
}

/// One whole round, from secrets to the record.
struct Example {
    params: RoundParams,
    servers: Vec<(String, Identity, RoundSecret)>,
    clients: Vec<(String, Identity, RoundSecret)>,
    registry: ClientRegistry,
    header: Header,
}

fn bundle(identity: &Identity, round: &RoundSecret, role: Role, epoch: u64) -> Bundle {
    let mut bundle = Bundle {
        peer: identity.peer(),
        role,
        instance: Instance::new("testnet").expect("the name is good").id(),
        epoch: Epoch(epoch),
        round_key: round.public(),
        floors: (role == Role::Server).then_some(Floors { participants: 2, servers: None }),
        boot: None,
        signature: Signature::default(),
    };
    bundle.signature = identity.sign(&bundle.digest());
    bundle
}

impl Example {
    fn new(params: RoundParams, servers: usize, clients: usize) -> Self {
        let people = |kind: &str, count: usize| {
            let mut people: Vec<_> = (0..count)
                .map(|number| {
                    let (seed, secret) = round_secret(&format!("{kind} {number}"));
                    let node = NodeSecret::from_bytes(UniqueId::from_text(&format!("{kind} {number}")).0);
                    (seed, Identity::from_secret(&node), secret)
                })
                .collect();
            people.sort_by_key(|(_, identity, _)| identity.peer());
            people
        };
        let (servers, clients) = (people("server", servers), people("client", clients));
        let bundles =
            clients.iter().map(|(_, identity, round)| bundle(identity, round, Role::Client, 5)).collect();
        let registry = ClientRegistry::from_parts(RegistryVersion(3), Counter(2), bundles)
            .expect("the clients are in order");
        let header = Header {
            log: LOG,
            round: Round(9),
            nonce: [0x6e; 32],
            group: GROUP,
            params,
            previous: Previous { round: Round(8), record: Digest([0x72; 32]), state: Digest([0x73; 32]) },
            servers: servers
                .iter()
                .map(|(_, identity, round)| RosterServer {
                    peer: identity.peer(),
                    epoch: Epoch(2),
                    round_key: round.public(),
                })
                .collect(),
            clients: registry.set(),
            min_participants: 2,
            aggregator: PeerId([0x61; 32]),
        };
        Self { params, servers, clients, registry, header }
    }

    /// Every client takes part but `absent`; `messages` are client, slot and the byte that fills the payload.
    fn run(&self, why: &str, absent: &[usize], messages: &[(usize, u32, u8)]) -> Value {
        let Self { params, servers, clients, registry, header } = self;
        let digest = header.digest();
        let pairs = |client: usize, server: usize| {
            let ((_, one, client), (_, other, server)) = (&clients[client], &servers[server]);
            pair(client, server, (one.peer(), other.peer()))
        };
        let present: Vec<_> = (0..clients.len()).filter(|client| !absent.contains(client)).collect();
        let mut fold = Fold::new(params.vector_bytes());
        let mut envelopes = Vec::new();
        let mut messages_out = Vec::new();
        for client in &present {
            let own: Vec<_> = (0..servers.len()).map(|server| pairs(*client, server)).collect();
            let message = messages.iter().find(|(author, ..)| author == client);
            let payload = message.map(|(_, slot, byte)| (*slot, vec![*byte; params.payload_bytes()]));
            if let Some((slot, payload)) = &payload {
                messages_out.push(json!({ "client": client, "slot": slot, "payload": hex(payload) }));
            }
            let cover = payload.is_none();
            let (slot, text) = payload.unwrap_or((0, vec![0; params.payload_bytes()]));
            let body = seal(params, &digest, &own, slot, &text, cover, |_| {});
            fold.add(&body).expect("the length fits");
            envelopes.push(body);
        }
        let count = u32::try_from(clients.len()).expect("there are few");
        let ones = present.iter().map(|client| u32::try_from(*client).expect("there are few"));
        let participants = Bitmap::from_ones(count, ones).expect("all places are inside");
        let aggregate = Aggregate {
            log: LOG,
            round: header.round,
            header: digest,
            participants: participants.clone(),
            body: fold.into_body(),
            signature: Signature::default(),
        };
        let partials: Vec<_> = servers
            .iter()
            .enumerate()
            .map(|(server, (_, identity, _))| {
                let all: Vec<_> = present.iter().map(|client| pairs(*client, server)).collect();
                Partial {
                    log: LOG,
                    round: header.round,
                    header: digest,
                    aggregate: aggregate.digest(),
                    server: identity.peer(),
                    body: partial_body(params, &digest, &all, |_| {}),
                    signature: Signature::default(),
                }
            })
            .collect();
        let record = Record {
            log: LOG,
            round: header.round,
            header: digest,
            participants: participants.clone(),
            servers: servers.iter().map(|(_, identity, _)| identity.peer()).collect(),
            broadcast: finalise(&aggregate.body, partials.iter().map(|partial| &partial.body[..])),
            previous: header.previous.record,
            aggregate: aggregate.digest(),
            partials: partials.iter().map(Partial::digest).collect(),
            index: 77,
            chain: chain_digest(&header.previous.record, 77, ENTRY),
        };
        let person = |(seed, identity, round): &(String, Identity, RoundSecret)| {
            json!({
                "round_secret": seed,
                "peer": identity.peer().to_string(),
                "round_key": round.public().to_string(),
            })
        };
        json!({
            "why": why,
            "params": [params.num_slots(), params.slot_bytes(), params.tag_len()],
            "servers": servers.iter().map(person).collect::<Vec<_>>(),
            "clients": clients.iter().map(person).collect::<Vec<_>>(),
            "client_bundles": registry
                .iter()
                .map(|(_, bundle)| json!({
                    "digest": bundle.digest().to_string(),
                    "signature": hex(&bundle.signature.0),
                }))
                .collect::<Vec<_>>(),
            "clients_root": header.clients.root.to_string(),
            "header_digest": digest.to_string(),
            "messages": messages_out,
            "participants": hex(participants.as_bytes()),
            "envelopes": envelopes.iter().map(|body| summary(body)).collect::<Vec<_>>(),
            "aggregate": summary(&aggregate.body),
            "aggregate_digest": aggregate.digest().to_string(),
            "partials": partials.iter().map(|partial| summary(&partial.body)).collect::<Vec<_>>(),
            "partial_digests": partials.iter().map(|partial| partial.digest().to_string()).collect::<Vec<_>>(),
            "broadcast": summary(&record.broadcast),
            "chain": record.chain.to_string(),
            "record_digest": record.digest().to_string(),
        })
    }
}

#[test]
fn rounds() {
    let params = |slots, bytes, tag| RoundParams::new(slots, bytes, tag).expect("the parameters are good");
    let cases = [
        Example::new(params(1, 2, 1), 1, 1).run("the smallest vector that there is", &[], &[(0, 0, 0xaa)]),
        Example::new(params(4, 17, 5), 3, 5).run(
            "slots that do not fall on blocks; one client is absent, two collide, one sends cover",
            &[3],
            &[(0, 3, 0x11), (1, 0, 0x22), (4, 0, 0x33)],
        ),
        Example::new(params(3, 64, 32), 2, 9).run(
            "the longest tag, and a bitmap of two bytes with spare bits",
            &[0, 1],
            &[(8, 2, 0x44)],
        ),
        Example::new(RoundParams::DEFAULT, 3, 3).run("the default parameters", &[], &[(1, 63, 0x55)]),
    ];
    check(
        "rounds.json",
        &json!({
            "_comment": "Sections 3 to 6 of docs/protocol.md. Rounds from the secrets to the record.",
            "log": LOG.to_string(),
            "round": 9,
            "nonce": hex(&[0x6e; 32]),
            "group": GROUP.to_string(),
            "previous": { "round": 8, "record": hex(&[0x72; 32]), "state": hex(&[0x73; 32]) },
            "server_epoch": 2,
            "registry_version": 3,
            "min_participants": 2,
            "aggregator": hex(&[0x61; 32]),
            "entry": { "index": 77, "bytes": hex(ENTRY) },
            "rounds": cases,
        }),
    );
}

#[test]
fn wire() {
    let node = Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text("server 0").0));
    let (_, round) = round_secret("server 0");
    let bundle = bundle(&node, &round, Role::Server, 5);
    let booted = {
        let mut booted = bundle.clone();
        let boot = Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text("a boot").0));
        let signature = boot.sign(&booted.boot_digest());
        booted.boot = Some(Boot { key: boot.peer().0, signature, quote: Digest([0x71; 32]) });
        booted.signature = node.sign(&booted.digest());
        booted
    };
    let mut signed = HeaderSignature {
        log: LOG,
        round: Round(300),
        header: Digest([0x68; 32]),
        server: node.peer(),
        refused: Bitmap::from_ones(11, [0, 10]).expect("inside"),
        signature: Signature::default(),
    };
    signed.signature = node.sign(&signed.signed_digest());
    let mut envelope = Envelope {
        log: LOG,
        round: Round(300),
        header: Digest([0x68; 32]),
        epoch: Epoch(5),
        body: vec![0xbb; 4],
        signature: Signature::default(),
    };
    envelope.signature = node.sign(&envelope.signed_digest());
    let mut confirmed = RecordSignature {
        log: LOG,
        round: Round(300),
        record: Digest([0x72; 32]),
        server: node.peer(),
        signature: Signature::default(),
    };
    confirmed.signature = node.sign(&confirmed.signed_digest());
    let case = |why: &str, signed_digest: Digest, message: Message| json!({ "why": why, "signed_digest": signed_digest.to_string(), "message": hex(&encode(&message)) });
    check(
        "wire.json",
        &json!({
            "_comment": "Section 7 of docs/protocol.md. Signatures are ed25519 over the signed digest.",
            "signer": node.peer().to_string(),
            "boot_digest": booted.boot_digest().to_string(),
            "messages": [
                case("a bundle with floors", bundle.digest(), Message::Bundle(bundle)),
                case(
                    "a proposal: a command inside a message; the bitmap has spare bits, the round two bytes",
                    signed.signed_digest(),
                    Message::Propose(zipnet_core::message::Command::SignHeader(signed)),
                ),
                case("an envelope with a body of four bytes", envelope.signed_digest(), Message::Envelope(envelope)),
                case(
                    "a list of one signature",
                    confirmed.signed_digest(),
                    Message::RecordSigned { signatures: vec![confirmed] },
                ),
                case(
                    "a bundle with the word of a boot key",
                    booted.digest(),
                    Message::Bundle(booted),
                ),
            ],
        }),
    );
    // The set of clients is in the headers of `rounds.json`; an empty one has a root of zeros.
    let empty = ClientSet { version: RegistryVersion(0), count: 0, root: Digest([0; 32]) };
    assert_eq!(ClientRegistry::new().set(), empty);
}

#[test]
fn the_page_names_every_context_and_every_reason() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md");
    let page = std::fs::read_to_string(page).expect("the page is part of the source");
    for context in Context::ALL {
        let name = context.text().strip_prefix("zipnet v1 ").expect("all begin alike");
        let spelt = [format!("\"{name}\""), format!("`{name}`"), format!("`zipnet v1 {name}`")];
        // How a node draws is its own affair.
        let own = *context == Context::RandomFork;
        assert!(
            own || spelt.iter().any(|name| page.contains(name)),
            "the page does not say what {name:?} is"
        );
    }
    for reason in messages::reasons() {
        assert!(page.contains(&format!("`{reason}`")), "the page does not name {reason}");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "whoever runs the test should know what it did not do")]
fn the_python_reference_computes_the_same() {
    if std::env::var_os("UPDATE").is_some() {
        eprintln!("the vectors are being written: the reference is consulted without UPDATE");
        return;
    }
    for part in ["zipnet_reference.py", "zipnet_messages.py"] {
        let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(part);
        let run = Command::new("python3").arg("-B").arg(&reference).arg(directory()).output();
        match run {
            Err(reason) => eprintln!("python3 cannot be run ({reason}): the reference was not consulted"),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
            }
        }
    }
}
