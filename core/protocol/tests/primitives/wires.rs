//! Bytes from a peer are one message exactly, or refused.

use zipnet_core::bitmap::Bitmap;
use zipnet_core::id::{Digest, Epoch, Round};
use zipnet_core::message::{ClientBatch, Command, Envelope, Message, Turnout};
use zipnet_core::refused::Refused;
use zipnet_core::wire::{
    DecodeError, MESSAGE_BYTES_MAX, SERVERS_MAX, ShownHeader, WIRE_VERSION, command_kind, decode,
    decode_command, decode_envelope, encode, encode_command, kind,
};

use crate::sample;

#[test]
fn every_kind_survives_the_wire_and_stands_at_its_place() {
    for (number, message) in (0u8..).zip(sample::messages()) {
        let bytes = encode(&message);
        assert_eq!(bytes[..2], [WIRE_VERSION, number], "{message:?}");
        assert_eq!(kind(&message), number);
        assert_eq!(decode(&bytes), Ok(message));
    }
    for (number, command) in (0u8..).zip(sample::commands()) {
        let bytes = encode_command(&command);
        assert_eq!(bytes[..2], [WIRE_VERSION, number], "{command:?}");
        assert_eq!(command_kind(&command), number);
        assert_eq!(decode_command(&bytes), Ok(command.clone()));
        let proposal = Message::Propose(command);
        assert_eq!(decode(&encode(&proposal)), Ok(proposal));
    }
}

#[test]
fn a_header_that_is_encoded_for_all_clients_is_for_each_what_it_would_be_alone() {
    let (_, registry, live) = sample::live(2, 3);
    let shown = ShownHeader::new(&live);
    let client = sample::identity("client 0").peer();
    for place in [registry.proof(&client), None] {
        let alone = encode(&Message::LiveFor { live: Box::new(live.clone()), place: place.clone() });
        assert_eq!(shown.to(place.as_ref()), alone);
    }
}

#[test]
fn what_a_client_is_shown_hardly_grows_with_the_number_of_clients() {
    let [few, many] = [100, 10_000].map(|clients| {
        let (_, _, live) = sample::live(8, clients);
        ShownHeader::new(&live).to(None).len()
    });
    assert!(many - few < 64, "{few} bytes among a hundred clients, {many} among ten thousand");
}

#[test]
fn kinds_that_do_not_exist_are_refused_by_number() {
    let messages = u8::try_from(sample::messages().len()).expect("there are few kinds");
    let commands = u8::try_from(sample::commands().len()).expect("there are few kinds");
    for unknown in messages..=255 {
        assert_eq!(decode(&[WIRE_VERSION, unknown]), Err(DecodeError::Kind { kind: unknown }));
    }
    for unknown in commands..=255 {
        assert_eq!(decode_command(&[WIRE_VERSION, unknown]), Err(DecodeError::Kind { kind: unknown }));
    }
}

#[test]
fn every_truncation_is_refused() {
    for message in sample::messages() {
        let bytes = encode(&message);
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len} bytes of {message:?}");
        }
    }
    for command in sample::commands() {
        let bytes = encode_command(&command);
        for len in 0..bytes.len() {
            assert!(decode_command(&bytes[..len]).is_err(), "{len} bytes of {command:?}");
        }
    }
}

#[test]
fn trailing_bytes_are_refused() {
    for message in sample::messages() {
        let mut bytes = encode(&message).to_vec();
        bytes.push(0);
        assert_eq!(decode(&bytes), Err(DecodeError::Trailing { bytes: 1 }), "{message:?}");
    }
    for command in sample::commands() {
        let mut bytes = encode_command(&command).to_vec();
        bytes.extend([1, 2]);
        assert_eq!(decode_command(&bytes), Err(DecodeError::Trailing { bytes: 2 }), "{command:?}");
    }
}

#[test]
fn a_flipped_bit_is_refused_or_is_another_message() {
    for message in sample::messages() {
        let bytes = encode(&message);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = decode(&flipped) {
                assert_ne!(other, message, "bit {bit}");
                assert_eq!(decode(&encode(&other)), Ok(other), "bit {bit}");
            }
        }
    }
    for command in sample::commands() {
        let bytes = encode_command(&command);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = decode_command(&flipped) {
                assert_ne!(other, command, "bit {bit}");
            }
        }
    }
}

#[test]
fn a_number_with_more_bytes_than_it_needs_is_refused() {
    let wanted = Message::RecordsWanted { from: Round(1) };
    let bytes = encode(&wanted);
    assert_eq!(bytes[2..], [1]);
    for long in [&[0x81, 0][..], &[0x81, 0x80, 0]] {
        let bytes = [&bytes[..2], long].concat();
        assert_eq!(decode(&bytes), Err(DecodeError::Malformed), "{bytes:?}");
    }
}

/// Whoever reads an envelope where it lies sees what everybody sees, and refuses it for the same reason.
#[test]
fn an_envelope_is_read_where_it_lies_and_is_the_same() {
    let same = |bytes: &[u8]| {
        let found = decode_envelope(bytes).expect("its kind is that of an envelope");
        let (lies, found) = match found {
            Ok(Envelope { log, round, header, epoch, body, signature }) => {
                let lies = bytes.as_ptr_range().contains(&body.as_ptr());
                let body = body.to_vec();
                (lies, Ok(Message::Envelope(Envelope { log, round, header, epoch, body, signature })))
            }
            Err(error) => (true, Err(error)),
        };
        assert!(lies, "it was copied");
        assert_eq!(found, decode(bytes), "{bytes:02x?}");
        found.is_ok()
    };
    for message in sample::messages() {
        let bytes = encode(&message).to_vec();
        if !matches!(message, Message::Envelope(_)) {
            assert!(decode_envelope(&bytes).is_none(), "{message:?}");
            continue;
        }
        assert!(same(&bytes));
        assert!(!same(&[&bytes[..], &[0]].concat()));
        let mut taken = 0;
        for len in 2..bytes.len() {
            assert!(!same(&bytes[..len]));
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[len] ^= 1 << bit;
                taken += u32::from(same(&other));
            }
            // A number with more bytes than it needs, wherever there is one.
            let mut longer = bytes.clone();
            longer[len] |= 0x80;
            longer.insert(len + 1, 0);
            same(&longer);
        }
        assert!(taken > 0);
        assert!(decode_envelope(&bytes[..1]).is_none() && decode_envelope(&[]).is_none());
    }
}

#[test]
fn another_version_is_refused_by_number() {
    let mut bytes = encode(&Message::RegistryWanted).to_vec();
    bytes[0] = 2;
    assert_eq!(decode(&bytes), Err(DecodeError::Version { theirs: 2 }));
    assert_eq!(decode(&[]), Err(DecodeError::Truncated));
    assert_eq!(decode(&[WIRE_VERSION]), Err(DecodeError::Truncated));
}

#[test]
fn a_message_that_is_too_long_is_refused_unread() {
    let bytes = vec![WIRE_VERSION; MESSAGE_BYTES_MAX + 1];
    assert_eq!(decode(&bytes), Err(DecodeError::TooLong { bytes: MESSAGE_BYTES_MAX + 1 }));
}

#[test]
fn a_length_that_the_bytes_do_not_have_allocates_nothing() {
    // A registry that claims 2^32 - 1 clients, and an envelope that claims 2^60 bytes.
    let mut registry = vec![WIRE_VERSION, 8];
    registry.extend([0; 32]);
    registry.extend([1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(decode(&registry), Err(DecodeError::Malformed));
    let mut envelope = vec![WIRE_VERSION, 5];
    envelope.extend([0; 32]);
    envelope.push(1);
    envelope.extend([0; 32]);
    envelope.push(1);
    envelope.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]);
    assert_eq!(decode(&envelope), Err(DecodeError::Malformed));
}

#[test]
fn lists_longer_than_honest_ones_are_refused() {
    let aggregator = sample::identity("aggregator");
    let peer = aggregator.peer();
    let many = vec![(peer, Epoch(1)); ClientBatch::LEN_MAX + 1];
    let batch = Command::ChangeClients(sample::batch(&aggregator, Vec::new(), many));
    assert_eq!(decode_command(&encode_command(&batch)), Err(DecodeError::Count { what: "expirations" }));

    let (servers, _, mut live) = sample::live(1, 1);
    let signature = live.signatures[0].clone();
    live.signatures = vec![signature; SERVERS_MAX + 1];
    assert_eq!(decode(&encode(&Message::Live(live))), Err(DecodeError::Count { what: "signatures" }));

    let disclaimers = vec![sample::disclaimer(&servers[0]); SERVERS_MAX + 1];
    let many = Message::Disclaimed { disclaimers };
    assert_eq!(decode(&encode(&many)), Err(DecodeError::Count { what: "disclaimers" }));

    for reasons in [[Refused::PinMissing; 2], [Refused::PinMissing, Refused::RosterTooSmall]] {
        let declined = reasons.map(|reason| (reason, 1)).to_vec();
        let (round, header) = (sample::ROUND, Digest::default());
        let turnout = Message::Turnout(Turnout { round, header, envelopes: 0, absent: 0, declined });
        assert_eq!(
            decode(&encode(&turnout)),
            Err(DecodeError::Malformed),
            "each reason once, in their order"
        );
    }

    let wide = sample::record(&servers, Bitmap::new((1 << 18) + 1), Vec::new());
    let wide = Message::Record { record: wide, signatures: Vec::new() };
    assert_eq!(decode(&encode(&wide)), Err(DecodeError::Malformed));
}
