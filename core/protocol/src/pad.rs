//! Pads: what one client and one server of a round both compute, and nobody else can.

use core::fmt;

use aes::Aes128;
use aes::cipher::{KeyIvInit, StreamCipher};
use ctr::Ctr64BE;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::id::{Digest, GroupId};
use crate::key::{PublicKey, secret};
use crate::signing::{Context, Fields};

/// What a client and a server share for the life of their two round keys.
#[derive(Clone)]
pub struct PairKey([u8; 32]);

secret!(PairKey);

/// Derives the pair key from the X25519 result. Both sides name the client's key first.
#[must_use]
pub fn pair_key(shared: &[u8; 32], client: &PublicKey, server: &PublicKey, group: &GroupId) -> PairKey {
    let mut fields = Fields::new(Context::PairKey);
    fields.bytes(shared).bytes(&client.0).bytes(&server.0).bytes(&group.0);
    let key = Zeroizing::new(fields.digest().0);
    PairKey(*key)
}

/// The AES-128 key of one round: the first 16 bytes of the header digest's keyed blake3 hash.
#[must_use]
pub fn round_key(pair: &PairKey, header: &Digest) -> Zeroizing<[u8; 16]> {
    let hash = Zeroizing::new(*blake3::keyed_hash(&pair.0, &header.0).as_bytes());
    let mut key = Zeroizing::new([0; 16]);
    key.copy_from_slice(&hash[..16]);
    key
}

/// XORs the pad of one pair and round into `acc`.
///
/// The pad is AES-128 in counter mode from a zero block. The counter is 64 bits wide here, which is faster than 128
/// and gives the same bytes up to 2^68 of them. The keystream goes straight into the accumulator: a scratch copy of
/// the pad would cost a quarter more.
#[inline]
pub fn xor_pad(pair: &PairKey, header: &Digest, acc: &mut [u8]) {
    Ctr64BE::<Aes128>::new((&*round_key(pair, header)).into(), &[0; 16].into()).apply_keystream(acc);
}
