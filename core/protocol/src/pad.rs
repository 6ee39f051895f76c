//! Pads: what one client and one server of a round both compute, and nobody else can.

use alloc::vec::Vec;
use core::fmt;

use aes::Aes128Enc;
use aes::cipher::{Array, Block, BlockCipherEncrypt, KeyInit};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use serde::{Deserialize, Serialize};

use crate::digest::{Context, Fields};
use crate::fold::xor_into;
use crate::id::{Digest, GroupId, PeerId, Role};
use crate::key::{PublicKey, secret};
use crate::message::{Bundle, RosterServer};

/// One end of a pad: who, and the round key that it has announced.
///
/// A pad belongs to two peers, not to two keys: whoever announces the round key of somebody else shares no pad of
/// that one with anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct End {
    /// Who.
    pub peer: PeerId,
    /// Of its bundle.
    pub round_key: PublicKey,
}

impl From<&Bundle> for End {
    fn from(bundle: &Bundle) -> Self {
        Self { peer: bundle.peer, round_key: bundle.round_key }
    }
}

impl From<&RosterServer> for End {
    fn from(server: &RosterServer) -> Self {
        Self { peer: server.peer, round_key: server.round_key }
    }
}

/// What a client and a server share for the life of their two round keys.
#[derive(Clone)]
pub struct PairKey([u8; 32]);

secret!(PairKey);

/// Derives the pair key from the X25519 result. Both sides name the client's end first.
#[must_use]
pub fn pair_key(shared: &[u8; 32], client: &End, server: &End, group: &GroupId) -> PairKey {
    let mut fields = Fields::new(Context::PairKey);
    fields.bytes(shared);
    for (role, end) in [(Role::Client, client), (Role::Server, server)] {
        fields.byte(role.code()).bytes(&end.peer.0).bytes(&end.round_key.0);
    }
    let key = Zeroizing::new(fields.bytes(&group.0).digest().0);
    PairKey(*key)
}

/// The AES-128 key of one round: the first 16 bytes of the header digest's keyed blake3 hash.
#[must_use]
pub fn pad_key(pair: &PairKey, header: &Digest) -> Zeroizing<[u8; 16]> {
    let mut hasher = blake3::Hasher::new_keyed(&pair.0);
    hasher.update(&header.0);
    let mut output = hasher.finalize_xof();
    let mut key = Zeroizing::new([0; 16]);
    output.fill(&mut *key);
    output.zeroize();
    hasher.zeroize();
    key
}

/// XORs the pad of one pair and round into `acc`.
#[inline]
pub fn xor_pad(pair: &PairKey, header: &Digest, acc: &mut [u8]) {
    Pads::new().xor(pair, header, acc);
}

/// Blocks of key stream that are made at once: many enough for the widest processors, few enough to stay in the cache that
/// is next to them until they are used.
const RUN: usize = 64;

/// What AES encrypts for the first so many blocks of every pad. A vector of the default shape has as many.
static COUNTERS: Aligned<[[u8; 16]; 1024]> = Aligned(counters());

/// At the beginning of a cache line, so that the widest loads and stores touch no second one.
#[repr(align(64))]
struct Aligned<T>(T);

const fn counters() -> [[u8; 16]; 1024] {
    let mut counters = [[0; 16]; 1024];
    let (mut count, mut rest) = (0_u128, counters.as_mut_slice());
    while let Some((next, more)) = rest.split_first_mut() {
        *next = count.to_be_bytes();
        count = count.wrapping_add(1);
        rest = more;
    }
    counters
}

/// Makes pads, one after the other.
///
/// A pad is AES-128 in counter mode from a zero block. So what is encrypted is the same for all pads, and stands ready; the
/// cipher takes many blocks of it at once, and nothing is left between its instructions that a compiler could fail to
/// see through. The last piece of key stream is wiped with this value.
pub(crate) struct Pads {
    stream: Aligned<[Block<Aes128Enc>; RUN]>,
    /// What is encrypted behind [`COUNTERS`], if a vector is that long.
    further: Vec<[u8; 16]>,
}

impl Pads {
    pub(crate) fn new() -> Self {
        Self { stream: Aligned([Array([0; 16]); RUN]), further: Vec::new() }
    }

    /// XORs the pad of one pair and round into `acc`.
    pub(crate) fn xor(&mut self, pair: &PairKey, header: &Digest, acc: &mut [u8]) {
        let cipher = Aes128Enc::new((&*pad_key(pair, header)).into());
        let ready = &COUNTERS.0;
        let parts = acc.chunks_mut(ready.as_flattened().len());
        for (first, part) in (0_u128..).step_by(ready.len()).zip(parts) {
            let counters = if first == 0 {
                &ready[..]
            } else {
                let counter = |low: &[u8; 16]| (first | u128::from_be_bytes(*low)).to_be_bytes();
                self.further.clear();
                self.further.extend(ready.iter().map(counter));
                &self.further
            };
            let counters = Array::cast_slice_from_core(counters);
            for (bytes, counters) in part.chunks_mut(16 * RUN).zip(counters.chunks(RUN)) {
                let blocks = bytes.len().div_ceil(16);
                let (counters, stream) = (&counters[..blocks], &mut self.stream.0[..blocks]);
                cipher.encrypt_blocks_b2b(counters, stream).expect("both are as many blocks");
                xor_into(bytes, &Array::slice_as_flattened(stream)[..bytes.len()]);
            }
        }
    }
}

impl Drop for Pads {
    fn drop(&mut self) {
        self.stream.0.iter_mut().for_each(|block| block.0.zeroize());
    }
}
