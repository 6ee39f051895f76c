//! The hot paths, each beside the operation that it cannot be faster than, in one run. Absolute times drift from
//! machine to machine and from minute to minute; the ratios, printed first, do so far less.
//!
//! `cargo bench -p zipnet-core` runs it; a word behind `--` selects by name. Without `--bench` only the ratios' code
//! is tried, once.

#[cfg(target_arch = "x86_64")]
#[path = "primitives/vaes.rs"]
mod vaes;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aes::Aes128;
use aes::cipher::{KeyIvInit, StreamCipher};
use criterion::{Criterion, Throughput};
use ctr::{Ctr64BE, Ctr128BE};
use zipnet_core::bitmap::Bitmap;
use zipnet_core::checks::{Check, Checks};
use zipnet_core::fold::xor_into;
use zipnet_core::id::{Digest, Epoch, GroupId, LogId, PeerId, RegistryVersion, Role, Round, UniqueId};
use zipnet_core::key::{NodeSecret, PublicKey, RoundSecret};
use zipnet_core::keyring::Keyring;
use zipnet_core::machine::{Done, Job};
use zipnet_core::message::{ClientSet, Floors, Header, Previous, Record, RosterServer};
use zipnet_core::pad::{End, PairKey, pair_key, xor_pad};
use zipnet_core::params::RoundParams;
use zipnet_core::partial::{finalise, partial_body};
use zipnet_core::seal::seal;

const PARAMS: RoundParams = RoundParams::DEFAULT;
const HEADER: Digest = Digest([3; 32]);
const CLIENTS: usize = 1000;

/// One of our operations and its reference. Each call does the whole thing once.
struct Pair {
    name: &'static str,
    /// How often a call does what the target is about: clients, envelopes.
    per_call: u32,
    target: &'static str,
    ours: Box<dyn FnMut()>,
    reference: Box<dyn FnMut()>,
}

fn end(number: u8) -> End {
    End { peer: PeerId([number; 32]), round_key: PublicKey([number; 32]) }
}

fn pair_keys(count: usize) -> Vec<PairKey> {
    let key = |number: usize| *blake3::hash(&number.to_le_bytes()).as_bytes();
    (0..count).map(|number| pair_key(&key(number), &end(1), &end(2), &GroupId([3; 32]))).collect()
}

fn bytes(seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; PARAMS.vector_bytes()];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A pad as the stock crates make it: one keyed hash, the key schedule, the key stream into the accumulator.
fn bare_pad(key: &[u8; 32], acc: &mut [u8]) {
    let hash = blake3::keyed_hash(key, &HEADER.0);
    let round: &[u8; 16] = hash.as_bytes().first_chunk().expect("32 bytes have a first half");
    Ctr64BE::<Aes128>::new(round.into(), &[0; 16].into()).apply_keystream(acc);
}

fn bare_xor(acc: &mut [u8], body: &[u8]) {
    acc.iter_mut().zip(body).for_each(|(byte, more)| *byte ^= more);
}

/// XORs a pad with a key into a vector.
type XorPad = Box<dyn FnMut(&[u8; 32], &mut [u8])>;

/// Keyed blake3, and a loop of the processor's own instructions, written by hand. It is the same however everything around
/// it was compiled, so that a bad profile shows. `None` on a processor without them.
#[cfg(target_arch = "x86_64")]
fn by_hand() -> Option<XorPad> {
    let kernel = vaes::Kernel::detect()?;
    let pad = move |key: &[u8; 32], acc: &mut [u8]| {
        let hash = blake3::keyed_hash(key, &HEADER.0);
        kernel.xor_key_stream(hash.as_bytes().first_chunk().expect("32 bytes have a first half"), acc);
    };
    let (mut same, mut acc) = (bytes(1), bytes(1));
    bare_pad(&[7; 32], &mut same);
    pad(&[7; 32], &mut acc);
    assert_eq!(same, acc, "the loop makes the pads of the protocol");
    Some(Box::new(pad))
}

#[cfg(not(target_arch = "x86_64"))]
const fn by_hand() -> Option<XorPad> {
    None
}

/// The reference of P1, and the target that goes with it.
fn pads() -> (&'static str, Box<dyn FnMut()>) {
    let (target, mut pad) = match by_hand() {
        Some(pad) => ("<= 1.9 x keyed blake3 + VAES by hand", pad),
        None => ("<= 1.25 x keyed blake3 + Ctr64BE", Box::new(bare_pad) as XorPad),
    };
    let keys: Vec<[u8; 32]> =
        (0..CLIENTS).map(|number| *blake3::hash(&number.to_le_bytes()).as_bytes()).collect();
    let mut acc = vec![0; PARAMS.vector_bytes()];
    let reference = move || {
        for key in black_box(&keys) {
            pad(key, &mut acc);
        }
        black_box(&mut acc);
    };
    (target, Box::new(reference))
}

fn partial() -> Pair {
    let pairs = pair_keys(CLIENTS);
    let (target, reference) = pads();
    Pair {
        name: "P1 partial, per client",
        per_call: 1000,
        target,
        ours: Box::new(move || {
            black_box(partial_body(&PARAMS, &HEADER, black_box(&pairs), |_| {}));
        }),
        reference,
    }
}

/// Lets a keyring make the partial of one header again and again.
#[derive(Clone, Copy, Debug)]
struct Again;

impl Checks for Again {
    fn enforce(&self, check: Check) -> bool {
        check != Check::PromiseKept
    }
}

/// The same as a server does it: keys from the cache, digests and signature included.
fn job() -> Pair {
    let mut keyring = Keyring::with_checks(
        Again,
        &NodeSecret::from_bytes(UniqueId::from_text("a server").0),
        Role::Server,
        UniqueId::default(),
        None,
        Some(Floors { participants: 1, servers: None }),
        [1; 32],
    );
    let Done::BundleMade(bundle) =
        keyring.perform(&Job::MakeBundle { epoch: Epoch(1), fresh_key: true }, || [0x5a; 32])
    else {
        unreachable!("a bundle was asked for")
    };
    let seed = |number: usize| *blake3::hash(&number.to_le_bytes()).as_bytes();
    let client = |number: usize| End {
        peer: PeerId(seed(number)),
        round_key: RoundSecret::from_seed(seed(number)).public(),
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    let header = Header {
        log: LogId([1; 32]),
        round: Round(1),
        nonce: [1; 32],
        group: GroupId([3; 32]),
        params: PARAMS,
        previous: Previous { round: Round(0), record: HEADER, state: HEADER },
        servers: vec![RosterServer { peer: bundle.peer, epoch: bundle.epoch, round_key: bundle.round_key }],
        clients: ClientSet { version: RegistryVersion(1), count: 1000, root: HEADER },
        min_participants: 1,
        aggregator: PeerId([4; 32]),
    };
    let (key_epoch, clients) = (bundle.epoch, clients.into());
    let job = Job::MakePartial { key_epoch, header: Arc::new(header), aggregate: HEADER, clients };
    let (target, reference) = pads();
    Pair {
        name: "P1 partial as a job of the keyring, per client",
        per_call: 1000,
        target,
        ours: Box::new(move || {
            black_box(keyring.perform(black_box(&job), || [0x5a; 32]));
        }),
        reference,
    }
}

fn record(broadcast: Vec<u8>) -> Record {
    Record {
        log: LogId([1; 32]),
        round: Round(1),
        header: HEADER,
        participants: Bitmap::new(1000),
        servers: (0..5).map(|number| PeerId([number; 32])).collect(),
        broadcast,
        previous: HEADER,
        aggregate: HEADER,
        partials: vec![HEADER; 5],
        index: 700,
        chain: HEADER,
    }
}

fn finish() -> Pair {
    let (aggregate, partials) = (bytes(0), (1..6).map(bytes).collect::<Vec<_>>());
    let (mut acc, others) = (aggregate.clone(), partials.clone());
    let kept = record(aggregate.clone());
    Pair {
        name: "P3 finalise 5 servers, record digest included",
        per_call: 1,
        target: "<= 2 x 5 XORs + digest of the record",
        ours: Box::new(move || {
            let broadcast = finalise(black_box(&aggregate), partials.iter().map(Vec::as_slice));
            black_box(record(broadcast).digest());
        }),
        reference: Box::new(move || {
            for _ in 0..2 {
                for partial in black_box(&others) {
                    bare_xor(&mut acc, partial);
                }
            }
            black_box(kept.digest());
        }),
    }
}

fn client() -> Pair {
    let (pairs, bare) = (pair_keys(3), pair_keys(3));
    let payload = vec![7; PARAMS.payload_bytes()];
    let mut acc = vec![0; PARAMS.vector_bytes()];
    Pair {
        name: "P4 seal for 3 servers, slot included",
        per_call: 1,
        target: "<= 1.3 x 3 pads",
        ours: Box::new(move || {
            black_box(seal(&PARAMS, &HEADER, black_box(&pairs), 11, &payload, false, |_| {}));
        }),
        reference: Box::new(move || {
            for pair in black_box(&bare) {
                xor_pad(pair, &HEADER, &mut acc);
            }
            black_box(&mut acc);
        }),
    }
}

/// Whether the network could tell a message from cover by the time it takes to seal.
fn cover() -> Pair {
    let (pairs, same) = (pair_keys(3), pair_keys(3));
    let (blank, payload) = (vec![0; PARAMS.payload_bytes()], vec![7; PARAMS.payload_bytes()]);
    Pair {
        name: "P4 seal cover, beside a message",
        per_call: 1,
        target: "0.97 to 1.03 x a message",
        ours: Box::new(move || {
            black_box(seal(&PARAMS, &HEADER, black_box(&pairs), 11, &blank, black_box(true), |_| {}));
        }),
        reference: Box::new(move || {
            black_box(seal(&PARAMS, &HEADER, black_box(&same), 11, &payload, black_box(false), |_| {}));
        }),
    }
}

fn xors() -> Pair {
    let (body, other) = (bytes(1), bytes(1));
    let (mut acc, mut copy) = (bytes(2), bytes(2));
    Pair {
        name: "XOR of a vector",
        per_call: 1,
        target: "none; the reference is a copy",
        ours: Box::new(move || xor_into(black_box(&mut acc), black_box(&body))),
        reference: Box::new(move || black_box(&mut copy).copy_from_slice(black_box(&other))),
    }
}

/// What was decided against: a counter of 128 bits.
fn wide_counter() -> Pair {
    let key = [5; 16];
    let (mut acc, mut other) = (bytes(1), bytes(1));
    Pair {
        name: "Ctr128BE into the accumulator",
        per_call: 1,
        target: "none; the reference is Ctr64BE",
        ours: Box::new(move || {
            Ctr128BE::<Aes128>::new((&key).into(), &[0; 16].into()).apply_keystream(black_box(&mut acc));
        }),
        reference: Box::new(move || {
            Ctr64BE::<Aes128>::new((&key).into(), &[0; 16].into()).apply_keystream(black_box(&mut other));
        }),
    }
}

/// What was decided against: a counter that is made anew for each pad.
fn counter() -> Pair {
    let (key, pair) = ([5; 32], pair_keys(1));
    let (mut acc, mut other) = (bytes(1), bytes(1));
    Pair {
        name: "Ctr64BE into the accumulator",
        per_call: 1,
        target: "none; the reference is a pad",
        ours: Box::new(move || bare_pad(black_box(&key), black_box(&mut acc))),
        reference: Box::new(move || xor_pad(&pair[0], &HEADER, black_box(&mut other))),
    }
}

/// What the caches save: the agreement on a pair key.
fn agreement() -> Pair {
    let (own, peer) = (RoundSecret::from_seed([1; 32]), RoundSecret::from_seed([2; 32]).public());
    let pair = pair_keys(1);
    let mut acc = vec![0; PARAMS.vector_bytes()];
    Pair {
        name: "X25519 agreement",
        per_call: 1,
        target: "none; the reference is a pad",
        ours: Box::new(move || {
            black_box(own.agree(black_box(&peer)));
        }),
        reference: Box::new(move || xor_pad(&pair[0], &HEADER, black_box(&mut acc))),
    }
}

fn all() -> [Pair; 9] {
    [partial(), job(), finish(), client(), cover(), xors(), wide_counter(), counter(), agreement()]
}

fn time(calls: u32, operation: &mut dyn FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..calls {
        operation();
    }
    start.elapsed()
}

/// Measures both in turns and compares the fastest turn of each: what else runs on the machine can only slow one down.
fn ratios(turns: u32) {
    for mut pair in all() {
        let calls = 2048_u32.div_ceil(pair.per_call);
        let (mut ours, mut reference) = (Duration::MAX, Duration::MAX);
        for _ in 0..turns {
            ours = ours.min(time(calls, &mut pair.ours));
            reference = reference.min(time(calls, &mut pair.reference));
        }
        let each = |total: Duration| total.as_nanos() / u128::from(calls) / u128::from(pair.per_call);
        let percent = ours.as_nanos() * 100 / reference.as_nanos().max(1);
        let (ours, reference) = (each(ours), each(reference));
        let (name, target) = (pair.name, pair.target);
        report(&format!("{name}: {ours} ns, reference {reference} ns, {percent} % of it (target {target})"));
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark talks to whoever started it")]
fn report(line: &str) {
    println!("{line}");
}

fn main() {
    if !std::env::args().any(|word| word == "--bench") {
        return ratios(1);
    }
    ratios(100);
    let mut criterion = Criterion::default().configure_from_args();
    for mut pair in all() {
        let mut group = criterion.benchmark_group(pair.name);
        group.throughput(Throughput::Elements(u64::from(pair.per_call)));
        group
            .sample_size(30)
            .measurement_time(Duration::from_secs(2))
            .warm_up_time(Duration::from_millis(500));
        group.bench_function("ours", |bencher| bencher.iter(&mut pair.ours));
        group.bench_function("reference", |bencher| bencher.iter(&mut pair.reference));
        group.finish();
    }
    criterion.final_summary();
}
