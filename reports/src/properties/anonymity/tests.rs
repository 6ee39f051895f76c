use zipnet_core::id::{Epoch, GroupId, LogId, RegistryVersion, Role};
use zipnet_core::key::PublicKey;
use zipnet_core::machine::{Abandonment, Outcome};
use zipnet_core::message::{ClientSet, Header, Previous, RosterServer};
use zipnet_core::params::RoundParams;
use zipnet_facts::RoundEnd;

use super::super::sample::{lines_lost, peer, started};
use super::*;

const LOG: LogId = LogId([1; 32]);
const THREE: [&str; 3] = ["client-1", "client-2", "client-3"];

/// A committee of two servers, and what its nodes mix.
struct Play {
    property: Anonymity,
    liars: BTreeSet<&'static str>,
}

/// How a play goes on, or what is wrong.
type Going = Result<(), String>;

impl Play {
    fn new() -> Self {
        Self::lying([])
    }

    fn lying(liars: impl IntoIterator<Item = &'static str>) -> Self {
        let mut play = Self { property: Anonymity::default(), liars: liars.into_iter().collect() };
        for name in ["server-1", "server-2", "client-1", "client-2", "client-3"] {
            play.see(name, started()).expect("nobody has done anything");
        }
        play
    }

    fn see(&mut self, name: &str, seen: Seen<'_>) -> Going {
        let role = if name.starts_with("client") { Role::Client } else { Role::Server };
        let liar = self.liars.contains(name);
        let subject = Subject { node: 0, name: name.to_owned(), peer: peer(name), role, liar };
        self.property.see(Time::default(), &subject, seen)
    }

    fn mix(&mut self, name: &str, round: u64, what: Mixture<'_>, pads: &[(&str, Pad)], body: &[u8]) -> Going {
        let header = header(round);
        let pads: Vec<_> = pads.iter().map(|(with, pad)| (peer(with), *pad)).collect();
        let digest = header.digest();
        let mixed = Mixed { peer: peer(name), header: &header, digest, what, pads: &pads, body };
        self.see(name, Seen::Mixed(&mixed))
    }

    /// A client mixes an envelope with these pads; `content` tells it from others of the same client.
    fn envelope_with(&mut self, client: &str, round: u64, pads: &[(&str, Pad)], content: u8) -> Going {
        self.mix(client, round, Mixture::Envelope { payload: None }, pads, &[content])
    }

    fn partial_with(&mut self, server: &str, round: u64, pads: &[(&str, Pad)], aggregate: u8) -> Going {
        let aggregate = Digest([aggregate; 32]);
        self.mix(server, round, Mixture::Partial { aggregate }, pads, &[])
    }

    /// These clients mix envelopes as they should.
    fn envelopes(&mut self, round: u64, clients: &[&str]) -> Going {
        clients.iter().try_for_each(|client| {
            let pads = ["server-1", "server-2"].map(|server| (server, pad(client, server, round)));
            self.envelope_with(client, round, &pads, 0)
        })
    }

    /// A server mixes its partial of these clients as it should.
    fn partial(&mut self, server: &str, round: u64, clients: &[&str], aggregate: u8) -> Going {
        let pads: Vec<_> = clients.iter().map(|client| (*client, pad(client, server, round))).collect();
        self.partial_with(server, round, &pads, aggregate)
    }

    fn partials(&mut self, round: u64, clients: &[&str]) -> Going {
        ["server-1", "server-2"].iter().try_for_each(|server| self.partial(server, round, clients, 0))
    }

    fn fact(&mut self, name: &str, fact: Fact) -> Going {
        self.see(name, Seen::Fact(&fact))
    }

    fn finalize(&mut self, round: u64) -> Going {
        let servers = vec![peer("server-1"), peer("server-2")];
        let end = RoundEnd {
            log: LOG,
            round: Round(round),
            index: 1,
            term: None,
            header: header(round).digest(),
            record: Digest([9; 32]),
            previous: Digest::default(),
            participants: 3,
            signed: servers.clone(),
            partials: servers.clone(),
            servers,
        };
        self.fact("server-1", Fact::RoundFinalized { end })
    }

    fn abandon(&mut self, round: u64) -> Going {
        let (header, reason) = (header(round).digest(), Abandonment::MissingPartial);
        let round = Round(round);
        self.fact("server-1", Fact::RoundAbandoned { index: 1, round, header, reason, missing: Vec::new() })
    }

    /// A client has sealed a request.
    fn sealed(&mut self, client: &str, round: u64, request: u64) -> Going {
        let (request, header) = (RequestId(request), header(round).digest());
        self.see(client, Seen::Sealed { request, header })
    }

    fn round(&mut self, round: u64, clients: &[&str]) -> Going {
        self.envelopes(round, clients)?;
        self.partials(round, clients)?;
        self.finalize(round)
    }
}

fn header(round: u64) -> Header {
    let server = |name| RosterServer { peer: peer(name), epoch: Epoch(1), round_key: PublicKey([1; 32]) };
    Header {
        log: LOG,
        round: Round(round),
        nonce: [0; 32],
        group: GroupId([2; 32]),
        params: RoundParams::DEFAULT,
        previous: Previous::default(),
        servers: vec![server("server-1"), server("server-2")],
        clients: ClientSet { version: RegistryVersion(1), count: 3, root: Digest::default() },
        min_participants: 1,
        aggregator: peer("aggregator"),
    }
}

/// The pad of a pair and a round.
fn pad(client: &str, server: &str, round: u64) -> Pad {
    *blake3::hash(format!("{client} {server} {round}").as_bytes()).as_bytes()
}

fn violated(found: Going, parts: &[&str]) {
    let detail = found.expect_err("a violation");
    for part in parts {
        assert!(detail.contains(part), "{part:?} is not in {detail:?}");
    }
}

#[test]
fn honest_rounds_hold() {
    let mut play = Play::new();
    for round in 1..200 {
        play.round(round, &THREE).expect("nothing but sums of three");
    }
    assert_eq!(play.property.crowds, BTreeMap::from([(3, 199)]));
    assert_eq!(play.property.headers.len(), HEADERS_MAX);
    let remembered =
        play.property.headers.values().flat_map(Trace::pads).map(|(_, pad)| pad).collect::<BTreeSet<_>>();
    assert_eq!(play.property.uses.len(), remembered.len(), "what is forgotten is forgotten");
}

#[test]
fn pads_that_cancel_lay_an_envelope_open() {
    let mut play = Play::lying(["server-2"]);
    play.envelopes(1, &["client-2", "client-3"]).expect("nothing is judged before the end");
    let twice = pad("client-1", "server-1", 1);
    play.envelope_with("client-1", 1, &[("server-1", twice), ("server-2", twice)], 0).expect("not judged");
    // The liar mixes something else: it does not know the pad either.
    play.partial("server-2", 1, &THREE, 0).expect("a liar's partial");
    play.partial("server-1", 1, &THREE, 0).expect("not judged");
    let what = "knows the vector of client-1 in r1, which is not the sum of a crowd";
    violated(play.finalize(1), &["but server-1", what, "it is the envelope of client-1 in r1"]);
}

#[test]
fn a_server_that_mixes_the_pads_of_another_one_knows_them() {
    let mut play = Play::new();
    let same = |client| pad(client, "server-1", 1);
    for client in THREE {
        let pads = [("server-1", same(client)), ("server-2", pad(client, "server-2", 1))];
        play.envelope_with(client, 1, &pads, 0).expect("not judged");
    }
    play.partial_with("server-2", 1, &[("client-1", same("client-1"))], 0).expect("not judged");
    violated(play.abandon(1), &["but server-1", "knows the vector of client-1 in r1"]);
}

#[test]
fn clients_with_one_pad_leave_a_third_one_alone() {
    // A client that announces the key of another one: the server's pads with the two are equal.
    let mut play = Play::lying(["client-3"]);
    play.envelopes(1, &THREE).expect("not judged");
    let pads = [("client-1", "client-1"), ("client-2", "client-2"), ("client-3", "client-2")].map(
        |(whose, with)| {
            let pad = pad(with, "server-1", 1);
            (whose, pad)
        },
    );
    play.partial_with("server-1", 1, &pads, 0).expect("not judged");
    let combination = "the envelope of client-1 in r1";
    violated(
        play.finalize(1),
        &["knows the vector of client-1 in r1", combination, "XOR the partial of server-1"],
    );
}

#[test]
fn two_partials_under_one_header_give_away_the_difference() {
    let mut play = Play::new();
    play.envelopes(1, &THREE).expect("not judged");
    play.partials(1, &THREE).expect("not judged");
    play.finalize(1).expect("one sum of three");
    play.partial("server-1", 1, &["client-1", "client-2"], 1).expect("not judged");
    // It came after the end of its round, and is judged at the next one.
    violated(
        play.round(2, &THREE),
        &["but server-1", "knows the vector of client-3 in r1", "for aggregate 01"],
    );
}

#[test]
fn a_second_partial_for_the_same_participants_gives_nothing_away() {
    let mut play = Play::new();
    play.envelopes(1, &THREE).expect("not judged");
    play.partials(1, &THREE).expect("not judged");
    play.partial("server-1", 1, &THREE, 1).expect("not judged");
    play.finalize(1).expect("one sum of three");
}

#[test]
fn a_pad_under_two_headers_is_a_violation() {
    let mut play = Play::new();
    play.round(1, &THREE).expect("a sum of three");
    play.envelopes(2, &["client-2", "client-3"]).expect("not judged");
    let old = pad("client-1", "server-1", 1);
    let pads = [("server-1", old), ("server-2", pad("client-1", "server-2", 2))];
    play.envelope_with("client-1", 2, &pads, 0).expect("not judged");
    violated(
        play.abandon(2),
        &["the vector of client-1 in r1 XOR the vector of client-1 in r2", "the envelope of client-1 in r2"],
    );
}

#[test]
fn two_vectors_under_one_pad_are_a_violation() {
    let mut play = Play::new();
    play.envelopes(1, &THREE).expect("not judged");
    let pads = ["server-1", "server-2"].map(|server| (server, pad("client-1", server, 1)));
    play.envelope_with("client-1", 1, &pads, 1).expect("not judged");
    violated(play.abandon(1), &["the vector of client-1 in r1 XOR the vector of client-1 in r1"]);
}

#[test]
fn sealing_again_what_is_in_a_known_sum_is_a_violation() {
    let mut play = Play::new();
    play.envelopes(1, &THREE).expect("not judged");
    play.sealed("client-1", 1, 7).expect("once");
    play.partial("server-1", 1, &THREE, 0).expect("not judged");
    play.abandon(1).expect("a sum of three is known to all but the first");
    play.envelopes(2, &THREE).expect("not judged");
    violated(
        play.sealed("client-1", 2, 7),
        &[
            "client-1 has sealed its message of r1 again",
            "all servers but server-1",
            "the partial of server-1",
        ],
    );
}

#[test]
fn a_partial_after_the_message_was_sealed_again_is_a_violation() {
    let mut play = Play::new();
    play.envelopes(1, &THREE).expect("not judged");
    play.sealed("client-1", 1, 7).expect("once");
    play.abandon(1).expect("nothing is known");
    play.envelopes(2, &THREE).expect("not judged");
    play.sealed("client-1", 2, 7).expect("nobody has read it");
    play.partial("server-1", 1, &THREE, 0).expect("not judged");
    play.partials(2, &THREE).expect("not judged");
    violated(play.finalize(2), &["client-1 has sealed its message of r1 again"]);
}

#[test]
fn sealing_again_what_nobody_read_holds() {
    let mut play = Play::new();
    play.envelopes(1, &THREE).expect("not judged");
    play.sealed("client-1", 1, 7).expect("once");
    play.sealed("client-1", 1, 7).expect("the same envelope, said twice");
    // The others were read, this client was not among them.
    play.partials(1, &["client-2", "client-3"]).expect("not judged");
    play.finalize(1).expect("a sum of two");
    play.envelopes(2, &THREE).expect("not judged");
    play.sealed("client-1", 2, 7).expect("nobody has read it");
    play.partials(2, &THREE).expect("not judged");
    play.finalize(2).expect("a sum of three");
}

#[test]
fn another_request_of_the_same_number_is_not_the_same() {
    let mut play = Play::new();
    play.sealed("client-1", 1, 7).expect("once");
    play.round(1, &THREE).expect("a sum of three");
    play.see("client-1", started()).expect("a fresh process counts from the beginning");
    play.envelopes(2, &THREE).expect("not judged");
    play.sealed("client-1", 2, 7).expect("another message");
    let landed = Fact::Published { request: RequestId(7), outcome: Outcome::Landed, round: Round(2) };
    play.partials(2, &THREE).expect("not judged");
    play.fact("client-1", landed).expect("it is decided");
    play.finalize(2).expect("a sum of three");
    play.sealed("client-1", 3, 7).expect("its number is free");
}

#[test]
fn a_crowd_of_one_is_a_number_and_no_violation() {
    let mut play = Play::lying(["client-2"]);
    play.round(1, &["client-1"]).expect("the round had one participant");
    // A participant that lies is no company.
    play.round(2, &["client-1", "client-2"]).expect("the round had one honest participant");
    // The first partial says who takes part, whatever was announced.
    play.envelopes(3, &THREE).expect("not judged");
    play.partials(3, &["client-1"]).expect("not judged");
    play.finalize(3).expect("the round had one participant");
    assert_eq!(play.property.crowds, BTreeMap::from([(1, 3)]));
}

#[test]
fn sums_of_two_rounds_hold() {
    // A coincidence of pads makes one equation of two rounds: the sum of both crowds follows twice.
    let mut play = Play::new();
    play.round(1, &THREE).expect("a sum of three");
    play.envelopes(2, &THREE).expect("not judged");
    play.partials(2, &THREE).expect("not judged");
    let both: Vec<_> = [1, 2]
        .into_iter()
        .flat_map(|round| THREE.map(|client| (client, pad(client, "server-1", round))))
        .collect();
    play.partial_with("server-1", 2, &both, 1).expect("not judged");
    play.finalize(2).expect("two sums of three");
    assert!(!play.property.links.is_empty(), "both rounds were judged together");
}

#[test]
fn envelopes_made_again_and_envelopes_that_are_missing_hold() {
    let mut play = Play::new();
    play.envelopes(1, &THREE).expect("not judged");
    play.envelopes(1, &THREE).expect("the same bytes");
    play.partials(1, &["client-1", "client-2"]).expect("not judged");
    play.finalize(1).expect("one came too late");
    // Pads of a client whose envelope nobody has: nothing follows from the others.
    play.envelopes(2, &["client-1", "client-2"]).expect("not judged");
    play.partials(2, &THREE).expect("not judged");
    play.finalize(2).expect("a pad is left");
    play.envelopes(2, &["client-3"]).expect("not judged");
    play.round(3, &THREE).expect("it is complete after all");
}

#[test]
fn abandoned_rounds_hold() {
    let mut play = Play::new();
    play.envelopes(1, &THREE).expect("not judged");
    play.abandon(1).expect("envelopes alone say nothing");
    play.envelopes(2, &THREE).expect("not judged");
    play.partial("server-2", 2, &THREE, 0).expect("not judged");
    play.abandon(2).expect("a sum of three for all but one");
    play.round(3, &THREE).expect("a sum of three");
}

#[test]
fn a_roster_without_an_honest_server_says_nothing() {
    let mut play = Play::lying(["server-1", "server-2"]);
    play.envelopes(1, &THREE).expect("not judged");
    for clients in [&THREE[..], &THREE[..1]] {
        play.partials(1, clients).expect("not judged");
    }
    play.finalize(1).expect("nothing was promised");
    assert!(play.property.crowds.is_empty());
}

#[test]
fn who_turns_liar_later_had_no_secrets() {
    // With the key of the client that takes part beside it, the other one is alone, and that is its crowd.
    let mut play = Play::new();
    play.round(1, &THREE[..2]).expect("a sum of two");
    play.liars.insert("client-2");
    play.round(2, &THREE).expect("a sum of two honest ones");
    // A second partial that was harmless among friends.
    play.partial("server-1", 1, &["client-1"], 1).expect("not judged");
    play.round(3, &THREE).expect("the same sum of one");
}

#[test]
fn what_is_forgotten_is_judged_before() {
    let mut play = Play::new();
    play.envelopes(1, &THREE).expect("not judged");
    play.partials(1, &THREE).expect("not judged");
    play.partial("server-1", 1, &["client-1"], 1).expect("not judged");
    // Nobody ever says that the round is over.
    let found = (2..).take(HEADERS_MAX).try_for_each(|round| play.envelopes(round, &["client-1"]));
    violated(found, &["knows the vector of client-1 in r1"]);
}

#[test]
fn a_request_behind_a_gap_may_be_another_one() {
    let mut play = Play::new();
    play.envelopes(1, &THREE).expect("not judged");
    play.sealed("client-1", 1, 7).expect("once");
    play.partials(1, &THREE).expect("not judged");
    play.finalize(1).expect("a sum of three");
    play.fact("client-1", lines_lost()).expect("a gap, with another process in it");
    play.envelopes(2, &THREE).expect("not judged");
    play.sealed("client-1", 2, 7).expect("another message");
}

#[test]
fn where_nobody_is_seen_to_mix_nothing_is_said() {
    let mut play = Play::new();
    play.finalize(1).expect("a round");
    assert_eq!(play.property.cannot_tell(), Some("nothing shows what is mixed"));
    play.envelopes(2, &THREE).expect("not judged");
    assert_eq!(play.property.cannot_tell(), None);
}
