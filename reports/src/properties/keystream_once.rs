//! No pad masks two different vectors, and none enters two partials.

use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::checks::{Mixed, Mixture};
use zipnet_core::id::{Digest, PeerId};
use zipnet_core::time::Time;
use zipnet_facts::Fact;

use super::{Property, Seen, Subject};

/// A pad is a function of client, server and header. So a client seals one vector per header, a server unblinds one
/// aggregate per header, and a header is never made again: its nonce is fresh.
///
/// Facts tell how often a process has sealed. Its vectors and the nonces of headers show where keyrings are seen.
#[derive(Debug, Default)]
pub struct KeystreamOnce {
    /// By client: the headers under which its process has sealed.
    sealed: BTreeMap<usize, BTreeSet<Digest>>,
    /// By client and header: the hash of the first vector.
    vectors: BTreeMap<(PeerId, Digest), [u8; 32]>,
    /// By server and header: the first aggregate.
    unblinded: BTreeMap<(PeerId, Digest), Digest>,
    nonces: BTreeMap<[u8; 32], Digest>,
    /// An envelope or a partial was told of.
    told: bool,
}

impl KeystreamOnce {
    fn see_mixed(&mut self, subject: &Subject, mixed: &Mixed<'_>) -> Result<(), String> {
        self.told = true;
        let round = mixed.header.round;
        if *self.nonces.entry(mixed.header.nonce).or_insert(mixed.digest) != mixed.digest {
            return Err(format!(
                "{} saw a nonce in two headers, the second under the header of {round}",
                subject.name
            ));
        }
        // A partial is told of.
        if let Mixture::Envelope { .. } = mixed.what {
            let vector = *blake3::hash(mixed.body).as_bytes();
            if *self.vectors.entry((subject.peer, mixed.digest)).or_insert(vector) != vector {
                return Err(format!("{} sealed two vectors under the header of {round}", subject.name));
            }
        }
        Ok(())
    }
}

impl Property for KeystreamOnce {
    fn name(&self) -> &'static str {
        "keystream-once"
    }

    fn sentence(&self) -> &'static str {
        "No pad masks two different vectors, and none enters two partials."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        // Another process has other keys.
        if seen.begins() || seen.is_gap() {
            self.sealed.remove(&subject.node);
        }
        if subject.liar {
            return Ok(());
        }
        if let Seen::Mixed(mixed) = seen {
            return self.see_mixed(subject, mixed);
        }
        match seen.fact() {
            Some(Fact::Sealed { header, round, .. }) => {
                self.told = true;
                if !self.sealed.entry(subject.node).or_default().insert(*header) {
                    return Err(format!("{} sealed twice under the header of {round}", subject.name));
                }
            }
            Some(Fact::PartialMade { header, aggregate, round, .. }) => {
                self.told = true;
                let first = self.unblinded.entry((subject.peer, *header)).or_insert(*aggregate);
                if first != aggregate {
                    return Err(format!(
                        "{} unblinded two aggregates under the header of {round}",
                        subject.name
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn cannot_tell(&self) -> Option<&'static str> {
        (!self.told).then_some("no envelope and no partial was told of")
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, lines_lost, made, sealed, started};
    use super::*;

    #[test]
    fn the_same_again_holds() {
        let mut judge = Judge::new(KeystreamOnce::default());
        for _ in 0..2 {
            judge.vector("client-1", 1, 7).expect("one vector under one header");
            judge.fact("server-1", made(1, 7, 2, 2)).expect("one aggregate");
        }
        judge.vector("client-2", 1, 8).expect("another client's vector");
        for client in ["client-1", "client-2"] {
            judge.fact(client, sealed(1)).expect("one envelope");
        }
    }

    #[test]
    fn a_second_vector_is_a_violation() {
        let mut judge = Judge::new(KeystreamOnce::default());
        judge.vector("client-1", 1, 7).expect("one vector");
        judge.vector("client-1", 1, 8).expect_err("another vector");
    }

    #[test]
    fn a_process_that_seals_twice_is_a_violation() {
        let mut judge = Judge::new(KeystreamOnce::default());
        judge.fact("client-1", sealed(1)).expect("one envelope");
        judge.fact("client-1", sealed(1)).expect_err("another envelope");
        for begins in [started(), Seen::Fact(&lines_lost())] {
            judge.see("client-1", begins).expect("a start, or it is lost in a gap");
            judge.fact("client-1", sealed(1)).expect("another process has other keys");
        }
    }

    #[test]
    fn a_second_aggregate_is_a_violation() {
        let mut judge = Judge::new(KeystreamOnce::default());
        judge.fact("server-1", made(1, 7, 2, 2)).expect("one aggregate");
        judge.fact("server-1", made(1, 8, 2, 2)).expect_err("another aggregate");
    }

    #[test]
    fn a_nonce_that_returns_is_a_violation() {
        let mut judge = Judge::new(KeystreamOnce::default());
        judge.vector("client-1", 1, 7).expect("one header");
        judge.vector("client-2", 2, 7).expect_err("its nonce again");
    }

    #[test]
    fn without_an_envelope_and_a_partial_nothing_is_said() {
        for fact in [sealed(1), made(1, 7, 2, 2)] {
            let mut judge = Judge::new(KeystreamOnce::default());
            assert_eq!(judge.cannot_tell(), Some("no envelope and no partial was told of"));
            judge.fact("server-1", fact).expect("one of them");
            assert_eq!(judge.cannot_tell(), None);
        }
    }
}
