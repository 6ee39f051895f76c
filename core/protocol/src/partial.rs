//! What servers do: each XORs its pads with the participants, and all of them together open the round.

use alloc::vec;
use alloc::vec::Vec;

use crate::fold::xor_into;
use crate::id::Digest;
use crate::pad::{Pads, PairKey};
use crate::params::RoundParams;

/// The body of a server's partial: the XOR of its pads with every participant. `seen` is shown the body before the first
/// pad and after each.
pub fn partial_body<'a>(
    params: &RoundParams,
    header: &Digest,
    pairs: impl IntoIterator<Item = &'a PairKey>,
    mut seen: impl FnMut(&[u8]),
) -> Vec<u8> {
    let mut body = vec![0; params.vector_bytes()];
    seen(&body);
    let mut pads = Pads::new();
    for pair in pairs {
        pads.xor(pair, header, &mut body);
        seen(&body);
    }
    body
}

/// The broadcast: aggregate XOR all partials.
///
/// # Panics
/// If the lengths differ. The committee has compared them with the parameters when it applied each.
pub fn finalise<'a>(aggregate: &[u8], partials: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut broadcast = aggregate.to_vec();
    for partial in partials {
        xor_into(&mut broadcast, partial);
    }
    broadcast
}
