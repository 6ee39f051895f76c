//! The algebra of a round: what goes in comes out, without its author, whatever the order.

use std::collections::BTreeMap;

use aes::cipher::{KeyIvInit, StreamCipher};
use proptest::prelude::*;
use zipnet_core::fold::{Fold, WrongLength, xor_into};
use zipnet_core::id::{Digest, GroupId, PeerId};
use zipnet_core::key::{PublicKey, RoundSecret};
use zipnet_core::pad::{End, PairKey, pad_key, pair_key, xor_pad};
use zipnet_core::params::RoundParams;
use zipnet_core::partial::{finalise, partial_body};
use zipnet_core::seal::seal;
use zipnet_core::slot::{SlotContent, read_slots};

const GROUP: GroupId = GroupId([0x77; 32]);

fn round_secret(role: u8, number: usize) -> RoundSecret {
    // Not at the start: X25519 clears the lowest three bits of the first byte.
    let mut seed = [role; 32];
    seed[8..16].copy_from_slice(&(number as u64).to_le_bytes());
    RoundSecret::from_seed(seed)
}

/// The end of a pad with a peer of its own for each round key.
fn end(kind: u8, secret: &RoundSecret) -> End {
    let round_key = secret.public();
    let mut peer = round_key.0;
    peer[0] = kind;
    End { peer: PeerId(peer), round_key }
}

/// Seals as a client does that writes this message, or nothing.
fn sealed(
    params: &RoundParams,
    header: &Digest,
    pairs: &[PairKey],
    message: Option<(u32, &[u8])>,
) -> Vec<u8> {
    let blank = vec![0; params.payload_bytes()];
    let (slot, payload) = message.unwrap_or((0, &blank));
    seal(params, header, pairs, slot, payload, message.is_none(), |_| {})
}

/// The pair keys of client `row` with every server, computed by the client; and of server `column` with every client,
/// computed by the server.
struct Keys {
    clients: Vec<Vec<PairKey>>,
    servers: Vec<Vec<PairKey>>,
}

impl Keys {
    fn new(clients: usize, servers: usize) -> Self {
        let clients: Vec<_> = (0..clients).map(|number| round_secret(1, number)).collect();
        let servers: Vec<_> = (0..servers).map(|number| round_secret(2, number)).collect();
        let shared = |own: &RoundSecret, peer: &PublicKey| own.agree(peer).expect("honest keys contribute");
        let by_client = |client: &RoundSecret| {
            let pair = |server: &RoundSecret| {
                pair_key(&shared(client, &server.public()), &end(1, client), &end(2, server), &GROUP)
            };
            servers.iter().map(pair).collect()
        };
        let by_server = |server: &RoundSecret| {
            let pair = |client: &RoundSecret| {
                pair_key(&shared(server, &client.public()), &end(1, client), &end(2, server), &GROUP)
            };
            clients.iter().map(pair).collect()
        };
        Self {
            clients: clients.iter().map(by_client).collect(),
            servers: servers.iter().map(by_server).collect(),
        }
    }
}

fn params() -> RoundParams {
    RoundParams::new(5, 27, 9).expect("the parameters are good")
}

#[derive(Clone, Debug)]
struct Client {
    takes_part: bool,
    message: Option<(u32, Vec<u8>)>,
}

fn client() -> impl Strategy<Value = Client> {
    let message = prop::option::of((0u32..5, prop::collection::vec(any::<u8>(), 18)));
    (any::<bool>(), message).prop_map(|(takes_part, message)| Client { takes_part, message })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_round_gives_exactly_the_payloads_that_did_not_collide(
        servers in 1usize..5,
        clients in prop::collection::vec(client(), 0..8),
        header: [u8; 32],
        order in any::<prop::sample::Index>(),
    ) {
        let (params, header) = (params(), Digest(header));
        let keys = Keys::new(clients.len(), servers);
        let participants: Vec<usize> =
            (0..clients.len()).filter(|number| clients[*number].takes_part).collect();

        let envelopes: Vec<_> = participants
            .iter()
            .map(|number| {
                let message = clients[*number].message.as_ref().map(|(slot, text)| (*slot, &text[..]));
                sealed(&params, &header, &keys.clients[*number], message)
            })
            .collect();
        let fold = |envelopes: &mut dyn Iterator<Item = &Vec<u8>>| {
            let mut fold = Fold::new(params.vector_bytes());
            for envelope in envelopes {
                fold.add(envelope).expect("envelopes have the length of the vector");
            }
            fold.into_body()
        };
        let aggregate = fold(&mut envelopes.iter());
        let turn = if envelopes.is_empty() { 0 } else { order.index(envelopes.len()) };
        prop_assert_eq!(&fold(&mut envelopes.iter().rev().cycle().skip(turn).take(envelopes.len())), &aggregate);

        let partials: Vec<_> = keys
            .servers
            .iter()
            .map(|pairs| partial_body(&params, &header, participants.iter().map(|number| &pairs[*number]), |_| {}))
            .collect();
        let broadcast = finalise(&aggregate, partials.iter().map(Vec::as_slice));
        prop_assert_eq!(&finalise(&aggregate, partials.iter().rev().map(Vec::as_slice)), &broadcast);

        let mut written: BTreeMap<u32, Vec<&[u8]>> = BTreeMap::new();
        for number in &participants {
            if let Some((slot, text)) = &clients[*number].message {
                written.entry(*slot).or_default().push(text);
            }
        }
        for (slot, content) in (0u32..).zip(read_slots(&params, &header, &broadcast)) {
            match written.get(&slot).map(Vec::as_slice) {
                None => prop_assert_eq!(content, SlotContent::Empty),
                Some([text]) => prop_assert_eq!(content, SlotContent::Message(text)),
                Some(texts) => {
                    // Equal texts cancel in pairs; anything else is garbled. A text is never made of others.
                    let mut odd: Vec<&[u8]> = Vec::new();
                    for text in texts {
                        match odd.iter().position(|other| other == text) {
                            Some(place) => drop(odd.remove(place)),
                            None => odd.push(text),
                        }
                    }
                    let expected = match odd[..] {
                        [] => SlotContent::Empty,
                        [text] => SlotContent::Message(text),
                        _ => SlotContent::Garbled,
                    };
                    prop_assert_eq!(content, expected);
                }
            }
        }
    }

    /// Without the partial of any one server every slot stays hidden.
    #[test]
    fn a_missing_partial_opens_nothing(servers in 2usize..5, missing in any::<prop::sample::Index>(), header: [u8; 32]) {
        let (params, header) = (params(), Digest(header));
        let keys = Keys::new(3, servers);
        let mut aggregate = Fold::new(params.vector_bytes());
        for pairs in &keys.clients {
            aggregate.add(&sealed(&params, &header, pairs, Some((0, &[1; 18])))).expect("lengths fit");
        }
        let missing = missing.index(servers);
        let partials: Vec<_> = (0..servers)
            .filter(|number| *number != missing)
            .map(|number| partial_body(&params, &header, &keys.servers[number], |_| {}))
            .collect();
        let broadcast = finalise(aggregate.as_bytes(), partials.iter().map(Vec::as_slice));
        prop_assert!(read_slots(&params, &header, &broadcast).all(|slot| slot == SlotContent::Garbled));
    }
}

#[test]
fn a_pad_depends_on_pair_and_header_and_nothing_else() {
    let keys = Keys::new(2, 2);
    let pad = |pair: &PairKey, header: u8| {
        let mut acc = vec![0; 64];
        xor_pad(pair, &Digest([header; 32]), &mut acc);
        acc
    };
    let base = pad(&keys.clients[0][0], 1);
    assert_eq!(base, pad(&keys.servers[0][0], 1));
    assert_ne!(base, pad(&keys.clients[0][0], 2));
    assert_ne!(base, pad(&keys.clients[0][1], 1));
    assert_ne!(base, pad(&keys.clients[1][0], 1));
    // A shorter vector has a prefix of the pad, and the second time takes it away again.
    let mut short = vec![0; 37];
    xor_pad(&keys.clients[0][0], &Digest([1; 32]), &mut short);
    assert_eq!(short, base[..37]);
    xor_pad(&keys.clients[0][0], &Digest([1; 32]), &mut short);
    assert_eq!(short, [0; 37]);
}

#[test]
fn the_key_stream_is_that_of_a_counter_of_128_bits() {
    let pair = &Keys::new(1, 1).clients[0][0];
    let header = Digest([3; 32]);
    for bytes in [0, 1, 16, 4096, 16 << 10, (1 << 20) + 17] {
        let mut ours = vec![0xc3; bytes];
        xor_pad(pair, &header, &mut ours);
        let mut wide = vec![0xc3; bytes];
        ctr::Ctr128BE::<aes::Aes128>::new((&*pad_key(pair, &header)).into(), &[0; 16].into())
            .apply_keystream(&mut wide);
        assert!(ours == wide, "{bytes} bytes");
    }
}

#[test]
fn cover_and_message_can_not_be_told_apart_by_length() {
    let keys = Keys::new(1, 3);
    let header = Digest([3; 32]);
    let cover = sealed(&params(), &header, &keys.clients[0], None);
    let message = sealed(&params(), &header, &keys.clients[0], Some((2, &[1; 18])));
    assert_eq!(cover.len(), message.len());
    let mut difference = cover;
    xor_into(&mut difference, &message);
    assert_eq!(read_slots(&params(), &header, &difference).nth(2), Some(SlotContent::Message(&[1; 18])));
}

#[test]
fn a_vector_of_another_length_is_not_folded() {
    let mut fold = Fold::new(4);
    fold.add(&[1, 2, 3, 4]).expect("the length fits");
    assert_eq!(fold.add(&[1, 2, 3]), Err(WrongLength { expected: 4, found: 3 }));
    assert_eq!(fold.add(&[1, 2, 3, 4, 5]), Err(WrongLength { expected: 4, found: 5 }));
    assert_eq!(fold.as_bytes(), [1, 2, 3, 4]);
}
