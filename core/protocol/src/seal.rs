//! What a client sends: its message, or nothing, under one pad per server.

use alloc::vec;
use alloc::vec::Vec;

use crate::id::Digest;
use crate::pad::{Pads, PairKey};
use crate::params::RoundParams;
use crate::slot::write_slot;

/// Makes the body of an envelope. `pairs` are the pair keys with every server of the header's roster, each once. Cover
/// traffic takes the same steps with a payload that is masked to nothing, so that neither the bytes nor the time that
/// they took tell it from a message. `seen` is shown the body before the first pad and after each.
///
/// # Panics
/// If slot or payload do not fit the parameters. They are the client's own.
pub fn seal<'a>(
    params: &RoundParams,
    header: &Digest,
    pairs: impl IntoIterator<Item = &'a PairKey>,
    slot: u32,
    payload: &[u8],
    cover: bool,
    mut seen: impl FnMut(&[u8]),
) -> Vec<u8> {
    let mut body = vec![0; params.vector_bytes()];
    let mask = u8::from(cover).wrapping_sub(1);
    write_slot(params, header, slot, payload, mask, &mut body);
    seen(&body);
    let mut pads = Pads::new();
    for pair in pairs {
        pads.xor(pair, header, &mut body);
        seen(&body);
    }
    body
}
