//! What a client sends: its message, or nothing, under one pad per server.

use alloc::vec;
use alloc::vec::Vec;

use crate::id::Digest;
use crate::pad::{PairKey, xor_pad};
use crate::params::RoundParams;
use crate::slot::write_slot;

/// Makes the body of an envelope. `pairs` are the pair keys with every server of the header's roster, each once;
/// `message` is the slot and the payload, or `None` for cover traffic, which nobody can tell apart.
///
/// # Panics
/// If slot or payload do not fit the parameters. They are the client's own.
pub fn seal<'a>(
    params: &RoundParams,
    header: &Digest,
    pairs: impl IntoIterator<Item = &'a PairKey>,
    message: Option<(u32, &[u8])>,
) -> Vec<u8> {
    let mut body = vec![0; params.vector_bytes()];
    if let Some((slot, payload)) = message {
        write_slot(params, header, slot, payload, &mut body);
    }
    for pair in pairs {
        xor_pad(pair, header, &mut body);
    }
    body
}
