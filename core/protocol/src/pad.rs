//! Pads: what one client and one server of a round both compute, and nobody else can.

use core::fmt;

use aes::Aes128;
use aes::cipher::{KeyIvInit, StreamCipher};
use ctr::Ctr64BE;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use serde::{Deserialize, Serialize};

use crate::id::{Digest, GroupId, PeerId};
use crate::key::{PublicKey, secret};
use crate::message::{Bundle, Role, RosterServer};
use crate::signing::{Context, Fields};

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
///
/// The pad is AES-128 in counter mode from a zero block. The counter is 64 bits wide here, which is faster than 128
/// and gives the same bytes up to 2^68 of them. The keystream goes straight into the accumulator: a scratch copy of
/// the pad would cost a quarter more.
#[inline]
pub fn xor_pad(pair: &PairKey, header: &Digest, acc: &mut [u8]) {
    Ctr64BE::<Aes128>::new((&*pad_key(pair, header)).into(), &[0; 16].into()).apply_keystream(acc);
}
