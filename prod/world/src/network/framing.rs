//! Messages on a stream.
//!
//! A stream carries one channel in one direction. Its first byte names the channel; then every message is its length, four
//! bytes with the highest first, and its bytes.
//!
//! ```text
//! ┌─────────┬────────┬───────────┬────────┬──────────
//! │ channel │ length │ message … │ length │ …
//! │ 1 byte  │ 4      │ length    │ 4      │
//! └─────────┴────────┴───────────┴────────┴──────────
//! ```

use bytes::{Buf, Bytes, BytesMut};
use zipnet_node::world::{Channel, Violation};

/// The bytes of a length.
const HEADER: usize = 4;

/// The byte that stands for a channel; none for what needs no stream.
#[must_use]
pub const fn channel_byte(channel: Channel) -> Option<u8> {
    match channel {
        Channel::Control => Some(1),
        Channel::Consensus => Some(2),
        Channel::Bulk => Some(3),
        Channel::Protocol => Some(4),
        Channel::Datagram => None,
    }
}

/// The channel that a byte stands for.
#[must_use]
pub const fn channel_of(byte: u8) -> Option<Channel> {
    match byte {
        1 => Some(Channel::Control),
        2 => Some(Channel::Consensus),
        3 => Some(Channel::Bulk),
        4 => Some(Channel::Protocol),
        _ => None,
    }
}

/// What stands before a message of this many bytes; none if it is longer than a length can say.
#[must_use]
pub fn header(len: usize) -> Option<[u8; HEADER]> {
    u32::try_from(len).ok().map(u32::to_be_bytes)
}

/// A message is longer than it may be, or the stream names no channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The length that it announces.
    TooLong(u32),
    /// The byte that should name a channel.
    NoChannel(u8),
}

impl From<Malformed> for Violation {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::TooLong(_) => Self::TooLong,
            Malformed::NoChannel(_) => Self::NoChannel,
        }
    }
}

/// Takes the bytes of a stream apart into messages. What is kept is never more than what has arrived.
#[derive(Debug, Default)]
pub struct Deframer {
    channel: Option<Channel>,
    /// The beginning of a message, its length included.
    begun: BytesMut,
}

impl Deframer {
    /// The channel of the stream, once its first byte was read.
    #[must_use]
    pub const fn channel(&self) -> Option<Channel> {
        self.channel
    }

    /// Takes in what arrived, and gives the messages that are complete by that. `limit` says how long a message of a
    /// channel may be, and is asked before anything of the message is kept.
    ///
    /// # Errors
    /// If the stream is not made of messages within the limit. It cannot be read any further.
    pub fn push(
        &mut self,
        mut chunk: Bytes,
        limit: impl Fn(Channel) -> usize,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Malformed> {
        let channel = match self.channel {
            Some(channel) => channel,
            None if chunk.is_empty() => return Ok(()),
            None => {
                let byte = chunk.get_u8();
                *self.channel.insert(channel_of(byte).ok_or(Malformed::NoChannel(byte))?)
            }
        };
        let limit = limit(channel);
        loop {
            if self.begun.is_empty()
                && let Some(len) = announced(&chunk, limit)?
                && chunk.len() - HEADER >= len
            {
                // Whole messages are not copied.
                chunk.advance(HEADER);
                out.push(chunk.split_to(len));
                continue;
            }
            let wanted = match announced(&self.begun, limit)? {
                Some(len) => HEADER + len,
                None => HEADER,
            };
            let taken = chunk.split_to(chunk.len().min(wanted - self.begun.len()));
            self.begun.extend_from_slice(&taken);
            if self.begun.len() < wanted {
                return Ok(());
            }
            // Only the length is known by now, unless the message is empty.
            if let Some(len) = announced(&self.begun, limit)?
                && self.begun.len() == HEADER + len
            {
                self.begun.advance(HEADER);
                out.push(core::mem::take(&mut self.begun).freeze());
            }
            if chunk.is_empty() {
                return Ok(());
            }
        }
    }

    /// Whether the stream may end here: no message is cut off.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.begun.is_empty()
    }
}

/// The length that stands at the beginning, if it is all there.
fn announced(bytes: &[u8], limit: usize) -> Result<Option<usize>, Malformed> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let announced = u32::from_be_bytes(*header);
    match usize::try_from(announced) {
        Ok(len) if len <= limit => Ok(Some(len)),
        Ok(_) | Err(_) => Err(Malformed::TooLong(announced)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(messages: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![4];
        for message in messages {
            bytes.extend(header(message.len()).unwrap());
            bytes.extend(*message);
        }
        bytes
    }

    fn read(bytes: &[u8], size: usize, limit: usize) -> Result<Vec<Bytes>, Malformed> {
        let (mut deframer, mut out) = (Deframer::default(), Vec::new());
        for chunk in bytes.chunks(size) {
            deframer.push(Bytes::copy_from_slice(chunk), |_| limit, &mut out)?;
        }
        assert!(deframer.is_between_messages());
        assert_eq!(deframer.channel(), Some(Channel::Protocol));
        Ok(out)
    }

    #[test]
    fn messages_are_the_same_however_the_stream_is_cut() {
        let messages: [&[u8]; 6] = [b"one", b"", b"three", &[7; 1000], b"", b"last"];
        let bytes = stream(&messages);
        for size in (1..40).chain([999, 1003, 1004, 1005, bytes.len()]) {
            assert_eq!(read(&bytes, size, 1000).unwrap(), messages, "in pieces of {size}");
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_the_message_arrives() {
        for size in [1, 3, 100] {
            let bytes = [stream(&[b"ok"]), 1001_u32.to_be_bytes().to_vec()].concat();
            assert_eq!(read(&bytes, size, 1000), Err(Malformed::TooLong(1001)));
        }
        let bytes = [vec![4], vec![0xff; 4]].concat();
        assert_eq!(read(&bytes, 9, 80 << 20), Err(Malformed::TooLong(u32::MAX)));
    }

    #[test]
    fn a_stream_of_no_channel_is_refused() {
        for byte in [0, 5, 255] {
            let refused = Deframer::default().push(Bytes::copy_from_slice(&[byte]), |_| 10, &mut Vec::new());
            assert_eq!(refused, Err(Malformed::NoChannel(byte)));
        }
        for channel in [Channel::Control, Channel::Consensus, Channel::Bulk, Channel::Protocol] {
            assert_eq!(channel_of(channel_byte(channel).unwrap()), Some(channel));
        }
        assert_eq!(channel_byte(Channel::Datagram), None);
    }

    #[test]
    fn a_cut_off_message_is_noticed() {
        let bytes = stream(&[b"message"]);
        for len in 2..bytes.len() {
            let mut deframer = Deframer::default();
            let mut out = Vec::new();
            deframer.push(Bytes::copy_from_slice(&bytes[..len]), |_| 100, &mut out).unwrap();
            assert!(out.is_empty() && !deframer.is_between_messages(), "after {len}");
        }
    }
}
