//! No pad masks two different vectors, and none enters two partials.

use std::collections::BTreeMap;

use zipnet_core::id::{Digest, PeerId};
use zipnet_core::machine::Report;
use zipnet_core::time::Time;
use zipnet_node::event::Event;

use super::{Property, Seen, Subject};

/// A pad is a function of client, server and header. So a client seals one vector per header, a server unblinds one
/// aggregate per header, and a header is never made again: its nonce is fresh.
#[derive(Debug, Default)]
pub struct KeystreamOnce {
    sealed: BTreeMap<(PeerId, Digest), Digest>,
    unblinded: BTreeMap<(PeerId, Digest), Digest>,
    nonces: BTreeMap<[u8; 32], Digest>,
}

impl Property for KeystreamOnce {
    fn name(&self) -> &'static str {
        "keystream-once"
    }

    fn sentence(&self) -> &'static str {
        "No pad masks two different vectors, and none enters two partials."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        let report = match seen {
            Seen::Event(Event::Core(report) | Event::Past(report)) if !subject.liar => report,
            _ => return Ok(()),
        };
        let (first, now, what, round) = match report {
            Report::Sealed { header, envelope, round, .. } => {
                let first = self.sealed.entry((subject.peer, *header)).or_insert(*envelope);
                (first, envelope, "sealed two vectors", round)
            }
            Report::PartialMade { header, aggregate, round, .. } => {
                let first = self.unblinded.entry((subject.peer, *header)).or_insert(*aggregate);
                (first, aggregate, "unblinded two aggregates", round)
            }
            Report::RoundOpened { header, digest, .. } => {
                let first = self.nonces.entry(header.nonce).or_insert(*digest);
                (first, digest, "saw a nonce in two headers, the second", &header.round)
            }
            _ => return Ok(()),
        };
        if first == now {
            Ok(())
        } else {
            Err(format!("{} {what} under the header of {round}", subject.name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, made, opened, sealed};
    use super::*;

    #[test]
    fn the_same_bytes_again_hold() {
        let mut judge = Judge::new(KeystreamOnce::default());
        for _ in 0..2 {
            judge.core("client-1", sealed(1, 7)).expect("one vector");
            judge.core("server-1", made(1, 7, 2, 2)).expect("one aggregate");
            judge.core("server-1", opened(1, 7)).expect("one header");
        }
        judge.core("client-2", sealed(1, 8)).expect("another client's vector");
    }

    #[test]
    fn a_second_vector_is_a_violation() {
        let mut judge = Judge::new(KeystreamOnce::default());
        judge.core("client-1", sealed(1, 7)).expect("one vector");
        judge.core("client-1", sealed(1, 8)).expect_err("another vector");
    }

    #[test]
    fn a_second_aggregate_is_a_violation() {
        let mut judge = Judge::new(KeystreamOnce::default());
        judge.core("server-1", made(1, 7, 2, 2)).expect("one aggregate");
        judge.core("server-1", made(1, 8, 2, 2)).expect_err("another aggregate");
    }

    #[test]
    fn a_nonce_that_returns_is_a_violation() {
        let mut judge = Judge::new(KeystreamOnce::default());
        judge.core("server-1", opened(1, 7)).expect("one header");
        judge.core("server-1", opened(2, 7)).expect_err("its nonce again");
    }
}
