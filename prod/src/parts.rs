//! A record and what it was made of, as the text that the reference in Python audits.
//!
//! It is twice as long as all the vectors of a round, so nobody ever holds the whole of it: it is made piece by piece, as fast as
//! whoever asked reads it.

use bytes::Bytes;
use zipnet_core::message::{Message, Record};
use zipnet_core::wire::encode;
use zipnet_node::node::Made;

/// How many bytes are written as hexadecimal digits at once.
const STEP: usize = 32 << 10;

/// The text, in pieces of at most twice [`STEP`].
pub(crate) fn pieces(Made { record, entries }: Made) -> impl Iterator<Item = Bytes> + Send {
    let message = Message::Record {
        record: Record::clone(&record.record),
        signatures: record.signatures.values().copied().collect(),
    };
    let head = format!(r#"{{"format":"zipnet parts 1","digest":"{}","message":""#, record.digest);
    let entries = entries.into_iter().enumerate().flat_map(|(at, (index, command))| {
        let comma = if at == 0 { "" } else { "," };
        let begins = format!(r#"{comma}{{"index":{index},"bytes":""#);
        text(begins).chain(hexadecimal(command)).chain(text(r#""}"#.to_owned()))
    });
    let record = text(head).chain(hexadecimal(encode(&message)));
    record.chain(text(r#"","entries":["#.to_owned())).chain(entries).chain(text("]}\n".to_owned()))
}

fn text(text: String) -> impl Iterator<Item = Bytes> + Send {
    std::iter::once(Bytes::from(text))
}

fn hexadecimal(bytes: impl AsRef<[u8]> + Send) -> impl Iterator<Item = Bytes> + Send {
    let steps = bytes.as_ref().len().div_ceil(STEP);
    (0..steps).map(move |step| {
        let rest = &bytes.as_ref()[step * STEP..];
        Bytes::from(hex::encode(&rest[..rest.len().min(STEP)]))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use zipnet_core::bitmap::Bitmap;
    use zipnet_core::committee::SignedRecord;
    use zipnet_core::id::{Digest, LogId, PeerId, Round};

    use super::*;

    fn record() -> SignedRecord {
        let record = Record {
            log: LogId([1; 32]),
            round: Round(7),
            header: Digest([2; 32]),
            participants: Bitmap::new(2),
            servers: vec![PeerId([3; 32])],
            broadcast: vec![4; 2 * STEP + 1],
            previous: Digest([5; 32]),
            aggregate: Digest([6; 32]),
            partials: vec![Digest([7; 32])],
            index: 9,
            chain: Digest([8; 32]),
        };
        let digest = record.digest();
        SignedRecord { record: Arc::new(record), digest, signatures: BTreeMap::new() }
    }

    #[test]
    fn pieces_are_small_and_make_up_one_text() {
        let long: Vec<u8> = (0..(5 * STEP + 7)).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let entries = [(7, long), (8, Vec::new()), (9, vec![255; STEP])];
        let entries: Vec<(u64, Arc<[u8]>)> =
            entries.into_iter().map(|(index, bytes)| (index, bytes.into())).collect();
        let record = record();
        let mut whole = Vec::new();
        for piece in pieces(Made { record: record.clone(), entries: entries.clone() }) {
            assert!(piece.len() <= 2 * STEP, "{} bytes at once", piece.len());
            whole.extend_from_slice(&piece);
        }
        let read: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!(read["format"], "zipnet parts 1");
        assert_eq!(read["digest"], record.digest.to_string());
        let bytes = |value: &serde_json::Value| {
            let digits = value.as_str().unwrap().as_bytes();
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            digits.chunks(2).map(byte).collect::<Vec<u8>>()
        };
        let message = zipnet_core::wire::decode(&bytes(&read["message"])).unwrap();
        assert!(matches!(message, Message::Record { record: read, .. } if read == *record.record));
        let listed = read["entries"].as_array().unwrap();
        assert_eq!(listed.len(), entries.len());
        for (listed, (index, command)) in listed.iter().zip(&entries) {
            assert_eq!(listed["index"], *index);
            assert_eq!(bytes(&listed["bytes"]), command.to_vec());
        }
    }
}
