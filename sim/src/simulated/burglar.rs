//! What a burglar finds who has a machine: everything that is or ever was on its disk.
//!
//! The simulation knows all randomness that a machine drew, so it knows the private halves of the keys that it announced.
//! It finds out for which of them that is so, by their public halves, and then searches the disk for the private half and
//! for whatever it was made from.

use std::collections::BTreeSet;

use zipnet_core::key::{PublicKey, RoundSecret};
use zipnet_core::random::Random as CoreRandom;

use crate::world::Host;

/// At most so many times a process draws randomness between its keyring's and that of a round key, or between those of
/// two round keys.
const DRAWN_BETWEEN: usize = 8;

/// Which of the announced round keys does the machine give away?
///
/// # Errors
/// How it does, or why the search proves nothing.
pub(super) fn break_in(host: &Host, announced: &BTreeSet<PublicKey>) -> Result<(), String> {
    if announced.is_empty() {
        return Err("announced no round key, so there is nothing to find".to_owned());
    }
    let mut known = BTreeSet::new();
    let platter = host.platter();
    let drawn = host.drawn_entropy();
    for (place, start) in drawn.iter().enumerate() {
        // What a process draws at its start, and for each of its keys soon after.
        let (mut stirred, mut next) = (Vec::new(), place + 1);
        while let Some((at, seed, public)) = (next..drawn.len().min(next + DRAWN_BETWEEN)).find_map(|at| {
            let seed = round_key_seed(*start, &stirred, drawn[at]);
            let public = RoundSecret::from_seed(seed).public();
            announced.contains(&public).then_some((at, seed, public))
        }) {
            known.insert(public);
            if [&seed, start, &drawn[at]].into_iter().any(|secret| platter.held(secret)) {
                return Err(format!("has had the private half of the round key {public:?} on its disk"));
            }
            stirred.push(drawn[at]);
            next = at + 1;
        }
    }
    let missed = announced.difference(&known).count();
    if missed > 0 {
        return Err(format!(
            "announced {missed} round keys whose origin is not known, so the search proves nothing"
        ));
    }
    Ok(())
}

/// The private half of a round key as a keyring draws it: `stirred` went into the keys before.
fn round_key_seed(start: [u8; 32], stirred: &[[u8; 32]], fresh: [u8; 32]) -> [u8; 32] {
    let mut keys = CoreRandom::new(start).fork("round keys");
    for entropy in stirred {
        keys.stir(entropy);
        keys.fill(&mut [0; 32]);
    }
    keys.stir(&fresh);
    keys.bytes()
}
