//! Every kind of value: there and back, cut short, and with something behind it; and what peers must not get through.

use zipnet_core::id::{PeerId, StoreId};

use super::*;

#[test]
fn frames_survive_the_way_there_and_back() {
    for frame in frames() {
        assert_eq!(decode_frame(&encode_frame(&frame)), Ok(frame.clone()), "{frame:?}");
    }
}

#[test]
fn every_truncation_of_a_frame_is_refused() {
    for frame in frames() {
        let bytes = encode_frame(&frame);
        for len in 0..bytes.len() {
            assert!(decode_frame(&bytes[..len]).is_err(), "{len} of {} bytes of {frame:?}", bytes.len());
        }
    }
}

#[test]
fn trailing_bytes_are_refused() {
    for frame in frames() {
        let mut bytes = encode_frame(&frame);
        bytes.extend([0, 0]);
        assert_eq!(decode_frame(&bytes), Err(Malformed::Trailing(2)), "{frame:?}");
    }
}

#[test]
fn no_single_changed_byte_panics() {
    for frame in frames() {
        let bytes = encode_frame(&frame);
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                drop(decode_frame(&bytes));
            }
        }
    }
}

#[test]
fn stored_values_survive_and_are_refused_when_cut_or_continued() {
    fn check<T: PartialEq + fmt::Debug>(
        value: T,
        encode: impl Fn(&T) -> Vec<u8>,
        decode: impl Fn(&[u8]) -> Result<T, Malformed>,
    ) {
        let bytes = encode(&value);
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len} of {} bytes of {value:?}", bytes.len());
        }
        assert_eq!(decode(&[bytes.as_slice(), &[9]].concat()), Err(Malformed::Trailing(1)));
        assert_eq!(decode(&bytes), Ok(value));
    }
    for entry in entries() {
        check(entry, encode_entry, decode_entry);
    }
    check(vote(3, 1), encode_vote, decode_vote);
    check(Vote::new_committed(4, node(2)), encode_vote, decode_vote);
    check(log_id(3, 7), encode_log_id, decode_log_id);
    check(SnapshotMeta::default(), encode_snapshot_meta, decode_snapshot_meta);
    check(meta(), encode_snapshot_meta, decode_snapshot_meta);
    check(node(5).0, encode_node, decode_node);
}

#[test]
fn sets_that_do_not_rise_and_numbers_that_are_too_long_are_refused() {
    let vote = encode_vote(&vote(3, 1));
    assert_eq!(vote[..2], [FORMAT, 3]);
    assert_eq!(decode_vote(&[&[FORMAT, 0x83, 0], &vote[2..]].concat()), Err(Malformed::Syntax));
    let bytes = encode_entry(&entries()[3]);
    let (one, two) = (encode_node(&node(1).0), encode_node(&node(2).0));
    let voters = [&one[1..], &two[1..]].concat();
    let at = bytes.windows(voters.len()).position(|window| window == voters).expect("the first voters");
    for wrong in [[&two[1..], &one[1..]].concat(), [&one[1..], &one[1..]].concat()] {
        let mut bytes = bytes.clone();
        bytes[at..at + wrong.len()].copy_from_slice(&wrong);
        assert_eq!(decode_entry(&bytes), Err(Malformed::Syntax));
    }
}

#[test]
fn other_versions_are_refused_by_number() {
    let mut bytes = encode_frame(&Frame::Reply(1, Reply::Appended));
    bytes[0] = FORMAT + 1;
    assert_eq!(decode_frame(&bytes), Err(Malformed::Version(Some(FORMAT + 1))));
    assert_eq!(decode_frame(&[]), Err(Malformed::Version(None)));
}

#[test]
fn what_openraft_takes_for_granted_is_checked() {
    let blank = |term, index| Entry { log_id: log_id(term, index), payload: Payload::Blank };
    let append = |prev, entries| Request::Append {
        vote: Vote::new_committed(5, node(1)),
        prev,
        entries,
        commit: None,
    };
    let members = |configs: Vec<Vec<u64>>, nodes: Vec<u64>| {
        let configs = configs.into_iter().map(|config| config.into_iter().map(node).collect()).collect();
        let membership = Membership::new_with_defaults(configs, nodes.into_iter().map(node));
        let payload = Payload::Membership(membership);
        append(None, vec![Entry { log_id: log_id(1, 0), payload }])
    };
    let table = [
        (append(Some(log_id(2, 3)), vec![blank(2, 4), blank(5, 5)]), None),
        (append(None, vec![blank(2, 0)]), None),
        (append(None, (0..ENTRIES_MAX as u64).map(|index| blank(1, index)).collect()), None),
        (append(None, vec![blank(2, 1)]), Some(Malformed::Entries)),
        (append(Some(log_id(2, 3)), vec![blank(2, 5)]), Some(Malformed::Entries)),
        (append(Some(log_id(2, 3)), vec![blank(1, 4)]), Some(Malformed::Entries)),
        (append(Some(log_id(2, 3)), vec![blank(6, 4)]), Some(Malformed::Entries)),
        (append(Some(log_id(2, 3)), vec![blank(3, 4), blank(3, 4)]), Some(Malformed::Entries)),
        (append(Some(log_id(2, COUNTER_MAX)), vec![]), Some(Malformed::Bound)),
        (
            Request::Vote(Ballot { vote: vote(COUNTER_MAX, 1), last: None, transfer: false }),
            Some(Malformed::Bound),
        ),
        (
            append(None, (0..=ENTRIES_MAX as u64).map(|index| blank(1, index)).collect()),
            Some(Malformed::Syntax),
        ),
        (members(vec![vec![1, 2]], vec![3]), None),
        (members(vec![vec![1, 2], vec![2, 3]], vec![]), None),
        (members(vec![], vec![1]), Some(Malformed::Membership)),
        (members(vec![vec![]], vec![1]), Some(Malformed::Membership)),
        (members(vec![vec![1], vec![2], vec![3]], vec![]), Some(Malformed::Syntax)),
        (members(vec![vec![1]], (0..=MEMBERS_MAX as u64).collect()), Some(Malformed::Bound)),
        (Request::Snapshot(vote(1, 1), SnapshotMeta::default(), Bytes::new()), Some(Malformed::Membership)),
    ];
    for (request, reason) in table {
        let found = decode_frame(&encode_frame(&Frame::Request(1, request.clone()))).err();
        assert_eq!(found, reason, "{request:?}");
    }
}

fn frames() -> Vec<Frame> {
    let ballot = Ballot { vote: vote(3, 1), last: Some(log_id(2, 300)), transfer: true };
    let requests = [
        Request::Append {
            vote: Vote::new_committed(9, node(1)),
            prev: Some(log_id(1, 299)),
            entries: entries(),
            commit: Some(log_id(1, 200)),
        },
        Request::Append { vote: Vote::new_committed(9, node(1)), prev: None, entries: vec![], commit: None },
        Request::Vote(ballot),
        Request::PreVote(Ballot { last: None, transfer: false, ..ballot }),
        Request::Snapshot(Vote::new_committed(9, node(1)), meta(), Bytes::from_static(b"state")),
        Request::Transfer { from: vote(3, 1), to: node(2).0, last: Some(log_id(3, 4)) },
    ];
    let replies = [
        Reply::Appended,
        Reply::AppendedUpTo(Some(log_id(3, 4))),
        Reply::AppendedUpTo(None),
        Reply::Conflict,
        Reply::HigherVote(vote(8, 2)),
        Reply::Voted { vote: vote(8, 2), granted: true, last: Some(log_id(1, 1)) },
        Reply::SnapshotInstalled(vote(8, 2)),
        Reply::Transferring,
        Reply::VoteChanged(vote(8, 2), vote(9, 1)),
        Reply::LogBehind(Some(log_id(3, 4)), None),
        Reply::Failed,
    ];
    let requests = requests.into_iter().map(|request| Frame::Request(77, request));
    let replies = replies.into_iter().map(|reply| Frame::Reply(u64::MAX, reply));
    requests.chain(replies).collect()
}

fn entries() -> Vec<Entry> {
    let payloads = [
        Payload::Blank,
        Payload::Normal(Command(Bytes::from_static(&[7; 300]))),
        Payload::Normal(Command(Bytes::new())),
        Payload::Membership(membership()),
    ];
    let entry = |(index, payload)| Entry { log_id: log_id(2, index), payload };
    (300..).zip(payloads).map(entry).collect()
}

fn meta() -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: Some(log_id(3, 40)),
        last_membership: StoredMembership::new(Some(log_id(2, 30)), membership()),
    }
}

fn membership() -> Membership {
    let configs = vec![[node(1), node(2)].into(), [node(2), node(3)].into()];
    Membership::new_with_defaults(configs, [node(4)])
}

fn vote(term: u64, store: u64) -> Vote {
    Vote::new(term, node(store))
}

fn node(store: u64) -> NodeId {
    NodeId(RaftId { peer: PeerId([3; 32]), store: StoreId(store) })
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}
