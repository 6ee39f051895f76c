//! The frames that consensus sends and the values that it stores.

use std::collections::BTreeMap;

use bytes::Bytes;
use zipnet_core::id::{RaftId, StoreId};
use zipnet_node::consensus::codec::{self, Ballot, Frame, Malformed, Reply, Request};
use zipnet_node::consensus::types::{
    Command, Entry, LogId, Membership, NodeId, Payload, SnapshotMeta, StoredMembership, Vote,
};

use crate::Verdict;
use crate::memory::bounded;
use crate::network::peer;
use crate::wires::cut;

/// A frame has one encoding, and what openraft takes for granted is true of it.
pub(crate) fn frame(bytes: &[u8]) -> Verdict {
    let Ok(frame) = bounded(bytes, || codec::decode_frame(bytes)) else { return Verdict::Refused };
    assert_eq!(codec::encode_frame(&frame), bytes, "{frame:?} has two encodings");
    if let Frame::Request(_, Request::Append { prev, entries, .. }) = &frame {
        assert!(entries.len() <= codec::ENTRIES_MAX);
        let ids = prev.iter().chain(entries.iter().map(|entry| &entry.log_id));
        let ids: Vec<&LogId> = ids.collect();
        assert!(ids.is_sorted_by(|one, next| one.index + 1 == next.index), "entries follow each other");
        for entry in entries {
            if let Payload::Membership(membership) = &entry.payload {
                assert!(membership.voter_ids().count() > 0, "a membership without voters");
            }
        }
    }
    Verdict::Taken
}

/// The first byte says which kind of value the others are. Each has one encoding.
pub(crate) fn value(bytes: &[u8]) -> Verdict {
    let Some((kind, value)) = bytes.split_first() else { return Verdict::Refused };
    match kind % 5 {
        0 => same(value, codec::decode_entry, codec::encode_entry),
        1 => same(value, codec::decode_vote, codec::encode_vote),
        2 => same(value, codec::decode_log_id, codec::encode_log_id),
        3 => same(value, codec::decode_snapshot_meta, codec::encode_snapshot_meta),
        _ => same(value, codec::decode_node, codec::encode_node),
    }
}

fn same<T>(
    bytes: &[u8],
    decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    encode: impl FnOnce(&T) -> Vec<u8>,
) -> Verdict {
    let Ok(value) = bounded(bytes, || decode(bytes)) else { return Verdict::Refused };
    assert_eq!(encode(&value), bytes, "a value has two encodings");
    Verdict::Taken
}

fn node(place: usize) -> NodeId {
    NodeId(RaftId { peer: peer(place), store: StoreId(7) })
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

fn membership(voters: &[usize], learners: &[usize]) -> Membership {
    let nodes = voters.iter().chain(learners).map(|place| (node(*place), ()));
    let voters = voters.iter().map(|place| node(*place)).collect();
    Membership::new(vec![voters], nodes.collect::<BTreeMap<_, _>>()).expect("voters are nodes")
}

fn entries() -> Vec<Entry> {
    let payloads = [
        Payload::Blank,
        Payload::Normal(Command(Bytes::from_static(b"command"))),
        Payload::Membership(membership(&[0, 1], &[2])),
    ];
    payloads
        .into_iter()
        .zip(5..)
        .map(|(payload, index)| Entry { log_id: log_id(3, index), payload })
        .collect()
}

pub(crate) fn frame_seeds() -> Vec<(String, Vec<u8>)> {
    let vote = Vote::new_committed(3, node(0));
    let (prev, commit) = (Some(log_id(2, 4)), Some(log_id(3, 5)));
    let ballot = Ballot { vote: Vote::new(4, node(1)), last: Some(log_id(3, 300)), transfer: false };
    let meta = SnapshotMeta {
        last_log_id: commit,
        last_membership: StoredMembership::new(Some(log_id(1, 1)), membership(&[0, 1, 2], &[])),
    };
    let requests = [
        ("append", Request::Append { vote, prev, entries: entries(), commit }),
        ("heartbeat", Request::Append { vote, prev, entries: vec![], commit }),
        ("vote", Request::Vote(ballot)),
        ("pre-vote", Request::PreVote(Ballot { last: None, transfer: true, ..ballot })),
        ("snapshot", Request::Snapshot(vote, meta, Bytes::from_static(b"state"))),
        ("transfer", Request::Transfer { from: vote, to: node(2).0, last: commit }),
    ];
    let replies = [
        ("appended", Reply::Appended),
        ("appended-up-to", Reply::AppendedUpTo(commit)),
        ("conflict", Reply::Conflict),
        ("higher-vote", Reply::HigherVote(vote)),
        ("voted", Reply::Voted { vote, granted: true, last: commit }),
        ("installed", Reply::SnapshotInstalled(vote)),
        ("transferring", Reply::Transferring),
        ("vote-changed", Reply::VoteChanged(vote, vote)),
        ("log-behind", Reply::LogBehind(commit, None)),
        ("failed", Reply::Failed),
    ];
    let requests = requests.into_iter().map(|(name, request)| (name, Frame::Request(9, request)));
    let replies = replies.into_iter().map(|(name, reply)| (name, Frame::Reply(300, reply)));
    let frames = requests.chain(replies).map(|(name, frame)| (name.to_owned(), codec::encode_frame(&frame)));
    frames.chain([cut(&codec::encode_frame(&Frame::Reply(300, Reply::Failed)))]).collect()
}

pub(crate) fn value_seeds() -> Vec<(String, Vec<u8>)> {
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(3, 5)),
        last_membership: StoredMembership::new(Some(log_id(1, 1)), membership(&[0, 1], &[2])),
    };
    let mut seeds: Vec<(String, u8, Vec<u8>)> = entries()
        .iter()
        .map(|entry| (format!("entry-{}", entry.log_id.index), 0, codec::encode_entry(entry)))
        .collect();
    seeds.push(("vote".to_owned(), 1, codec::encode_vote(&Vote::new(4, node(1)))));
    seeds.push(("log-id".to_owned(), 2, codec::encode_log_id(&log_id(3, 300))));
    seeds.push(("meta".to_owned(), 3, codec::encode_snapshot_meta(&meta)));
    seeds.push(("meta-of-nothing".to_owned(), 3, codec::encode_snapshot_meta(&SnapshotMeta::default())));
    seeds.push(("node".to_owned(), 4, codec::encode_node(&node(0).0)));
    seeds.push(("unknown-format".to_owned(), 1, vec![9]));
    seeds.into_iter().map(|(name, kind, value)| (name, [vec![kind], value].concat())).collect()
}
