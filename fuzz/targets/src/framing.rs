//! How a stream of a real link is taken apart into messages.

use bytes::Bytes;
use zipnet_node::world::Channel;
use zipnet_world::network::framing::{Deframer, Malformed, channel_byte, channel_of, header};

use crate::Verdict;
use crate::memory::bounded;

/// The first byte says how long the pieces are in which the others arrive. However a stream is cut, the same messages
/// come out of it; what comes out is all that went in; and a length that was only announced takes no memory.
pub(crate) fn stream(bytes: &[u8]) -> Verdict {
    let Some((piece, stream)) = bytes.split_first() else { return Verdict::Refused };
    let piece = usize::from(*piece).max(1);
    let (messages, end) = bounded(stream, || read(stream, stream.len().max(1)));
    assert_eq!((&messages, end), (&read(stream, piece).0, read(stream, piece).1), "in pieces of {piece}");
    if end == Ok(true) {
        let mut again: Vec<u8> = stream.iter().take(1).copied().collect();
        for message in &messages {
            again.extend(header(message.len()).expect("it came with a header"));
            again.extend_from_slice(message);
        }
        assert_eq!(again, stream, "something was lost or added");
    }
    if messages.is_empty() { Verdict::Refused } else { Verdict::Taken }
}

/// As short as in a test for one channel, as long as for a vector of the largest round on another.
fn limit(channel: Channel) -> usize {
    match channel {
        Channel::Control => 16,
        Channel::Consensus | Channel::Bulk | Channel::Datagram => 300,
        Channel::Protocol => 80 << 20,
    }
}

/// The messages, and whether the stream ended between two of them or why it could not be read to its end.
fn read(stream: &[u8], piece: usize) -> (Vec<Bytes>, Result<bool, Malformed>) {
    let (mut deframer, mut messages) = (Deframer::default(), Vec::new());
    let refused = stream
        .chunks(piece)
        .find_map(|chunk| deframer.push(Bytes::copy_from_slice(chunk), limit, &mut messages).err());
    if let Some(channel) = deframer.channel() {
        assert_eq!(stream.first().copied().and_then(channel_of), Some(channel));
        assert!(messages.iter().all(|message| message.len() <= limit(channel)), "longer than the limit");
    }
    (messages, refused.map_or(Ok(deframer.is_between_messages()), Err))
}

pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let stream = |channel, messages: &[&[u8]]| {
        let mut bytes: Vec<u8> = channel_byte(channel).into_iter().collect();
        for message in messages {
            bytes.extend(header(message.len()).expect("short"));
            bytes.extend_from_slice(message);
        }
        bytes
    };
    let all = [
        ("messages", 3, stream(Channel::Protocol, &[b"one", b"", b"three", &[7; 40]])),
        ("too-long", 5, stream(Channel::Control, &[b"short", &[7; 17]])),
        ("announced", 2, [stream(Channel::Protocol, &[]), vec![4, 0, 0, 0, 1]].concat()),
        ("no-channel", 1, vec![9, 0, 0, 0, 0]),
    ];
    all.into_iter().map(|(name, piece, stream)| (name.to_owned(), [vec![piece], stream].concat())).collect()
}
