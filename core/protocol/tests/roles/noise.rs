//! Whatever bytes come, from whomever: no panic, and the machine still works.

use proptest::prelude::*;
use zipnet_core::aggregator::{self, Aggregator};
use zipnet_core::checks::Strict;
use zipnet_core::client::{self, Client};
use zipnet_core::id::{Counter, RegistryVersion, Role, Round};
use zipnet_core::machine::RequestId;
use zipnet_core::message::{Message, Standing};
use zipnet_core::reader::{Config, Reader};
use zipnet_core::refused::Refused;
use zipnet_core::wire;

use crate::cast::{Cast, LOG, Machine, Plan, Play};

/// One of everything that the machines know what to do with, signed by whom it must be.
fn valid(cast: &mut Cast) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for round in 1..4 {
        let plan = Plan::round(round);
        let live = cast.live(&plan);
        let envelopes: Vec<_> = (0..3).map(|client| (client, cast.envelope(client, &live).body)).collect();
        let record = cast.record(&plan, &live, &envelopes);
        let signatures = cast.sign_record(&record, &[0, 1, 2]);
        let place = cast.registry(1, &plan.clients).proof(&cast.client(0));
        messages.push(Message::LiveFor { live: Box::new(live.clone()), place });
        messages.push(Message::AggregateApplied { round: Round(round), header: live.header.digest() });
        messages.push(Message::Disclaimed { disclaimers: cast.disclaim(&live.header, &[0, 1, 2]) });
        messages.extend((0..3).map(|client| Message::Envelope(cast.envelope(client, &live))));
        messages.push(Message::Live(live));
        messages.push(Message::Record { record, signatures: signatures[..2].to_vec() });
        messages.push(Message::RecordSigned { signatures });
        messages.push(Message::RecordsWanted { from: Round(round) });
    }
    for (version, clients) in
        [(1, vec![0, 1, 2]), (2, vec![0]), (u64::MAX, vec![0, 1]), (u64::MAX - 1, vec![])]
    {
        let clients = cast.registry(version, &clients).bundles().to_vec();
        let (version, counter) = (RegistryVersion(version), Counter(version));
        messages.push(Message::Registry { log: LOG, version, counter, clients });
    }
    messages.push(Message::Retired { announcements: vec![cast.announce(2, Standing::Leaving)] });
    messages.extend(cast.clients.iter().map(|client| Message::Bundle(client.bundle.clone())));
    let last = Some(cast.clients[0].bundle.clone());
    messages.push(Message::BundleRefused { reason: Refused::StaleEpoch, last });
    messages.push(Message::RegistryWanted);
    messages.iter().map(|message| wire::encode(message).to_vec()).collect()
}

#[derive(Clone, Debug)]
enum Deed {
    /// A whole message, or one with a byte changed, or cut short.
    Say {
        who: usize,
        what: prop::sample::Index,
        change: Option<(prop::sample::Index, u8)>,
        cut: bool,
    },
    Noise {
        who: usize,
        bytes: Vec<u8>,
    },
    Link {
        who: usize,
    },
    Unlink {
        who: usize,
    },
    Wait {
        ms: u64,
    },
}

fn deed() -> impl Strategy<Value = Deed> {
    let change = prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
    prop_oneof![
        8 => (0..8usize, any::<prop::sample::Index>(), change, prop::bool::weighted(0.05))
            .prop_map(|(who, what, change, cut)| Deed::Say { who, what, change, cut }),
        1 => (0..8usize, prop::collection::vec(any::<u8>(), 0..80)).prop_map(|(who, bytes)| Deed::Noise { who, bytes }),
        2 => (0..8usize).prop_map(|who| Deed::Link { who }),
        1 => (0..8usize).prop_map(|who| Deed::Unlink { who }),
        2 => (0..90_000u64).prop_map(|ms| Deed::Wait { ms }),
    ]
}

fn run<M: Machine>(mut play: Play<M>, deeds: &[Deed]) {
    let valid = valid(&mut play.cast);
    let names: Vec<_> = play.cast.members().map(|member| member.name.clone()).collect();
    let role = |name: &str| match name.split('-').next() {
        Some("server") => Role::Server,
        Some("client") => Role::Client,
        _ => Role::Aggregator,
    };
    for name in &names {
        let peer = play.cast.peer(name);
        play.feed(M::linked(peer, role(name)));
    }
    for deed in deeds {
        match deed {
            Deed::Say { who, what, change, cut } => {
                let mut bytes = what.get(&valid).clone();
                if let Some((place, value)) = change {
                    let place = place.index(bytes.len());
                    bytes[place] = *value;
                }
                if *cut {
                    bytes.pop();
                }
                let from = play.cast.peer(&names[*who]);
                play.feed(M::received(from, bytes));
            }
            Deed::Noise { who, bytes } => {
                let from = play.cast.peer(&names[*who]);
                play.feed(M::received(from, bytes.clone()));
            }
            Deed::Link { who } => {
                let peer = play.cast.peer(&names[*who]);
                play.feed(M::linked(peer, role(&names[*who])));
            }
            Deed::Unlink { who } => {
                let peer = play.cast.peer(&names[*who]);
                play.feed(M::unlinked(peer));
            }
            Deed::Wait { ms } => {
                play.wait(std::time::Duration::from_millis(*ms));
            }
        }
        assert!(play.machine.deadline().at > play.now, "what is due was left open");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_stop_an_aggregator(deeds in prop::collection::vec(deed(), 0..60)) {
        let cast = Cast::new();
        let machine: Aggregator<Strict> = Aggregator::new(cast.aggregator_config(), Strict);
        let mut play = Play::new(cast, machine);
        play.feed(aggregator::Input::Tick);
        run(play, &deeds);
    }

    #[test]
    fn no_bytes_stop_a_client(deeds in prop::collection::vec(deed(), 0..60)) {
        let cast = Cast::new();
        let machine: Client<Strict> = Client::new(cast.client_config(), Strict);
        let mut play = Play::new(cast, machine);
        for request in 0..4 {
            let request = RequestId(request);
            play.feed(client::Input::Publish { request, payload: vec![7; 20] });
        }
        run(play, &deeds);
    }

    #[test]
    fn no_bytes_stop_a_reader(
        deeds in prop::collection::vec(deed(), 0..60),
        from in prop::option::of(0..4u64),
        pins in 0..3usize,
    ) {
        let cast = Cast::new();
        let pins = (0..pins).map(|index| cast.server(index)).collect();
        let config = Config { pins, from: from.map(Round), ..cast.reader_config() };
        let machine: Reader<Strict> = Reader::new(config, Strict);
        run(Play::new(cast, machine), &deeds);
    }
}
