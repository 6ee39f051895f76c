//! What consensus puts on disks and wires: postcard of mirror structs, behind a version.
//!
//! openraft's own serde encodings are no format, so none is used. Whatever comes from a peer is checked here for
//! everything that openraft takes for granted, because openraft asserts it: consecutive indexes, terms that do not
//! fall, memberships with voters, counters that cannot overflow.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zipnet_core::id::RaftId;
use zipnet_core::wire::is_canonical;

use super::types::{
    Command, Entry, LogId, Membership, NodeId, Payload, SnapshotMeta, StoredMembership, Vote, term,
};

/// The version of frames and of stored values. Both change together; a reader refuses every other one.
pub const FORMAT: u8 = 1;
/// The longest command: room for a vector of 64 MiB, the largest that the protocol allows, and what surrounds it.
pub const COMMAND_BYTES_MAX: usize = 80 << 20;
/// The most entries in one request.
pub const ENTRIES_MAX: usize = 1024;
/// The most nodes in a membership.
pub const MEMBERS_MAX: usize = 1024;
/// Terms and indexes stay below this, so that no sum of them overflows.
pub const COUNTER_MAX: u64 = 1 << 62;

/// A message between two nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Asks for something. The answer carries the same number.
    Request(u64, Request),
    /// Answers the request of that number.
    Reply(u64, Reply),
}

/// What one node asks of another.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Take these entries; without entries, know that I lead.
    Append {
        /// The leader's vote.
        vote: Vote,
        /// The entry before the first.
        prev: Option<LogId>,
        /// Consecutive entries.
        entries: Vec<Entry>,
        /// What is committed as far as the leader knows.
        commit: Option<LogId>,
    },
    /// Vote for me.
    Vote(Ballot),
    /// Would you vote for me?
    PreVote(Ballot),
    /// Replace your machine by what these bytes say.
    Snapshot(Vote, SnapshotMeta, Bytes),
    /// Stand for election, I step down for you.
    Transfer {
        /// The leader that steps down.
        from: Vote,
        /// Who is to follow.
        to: RaftId,
        /// What the successor needs to have.
        last: Option<LogId>,
    },
}

/// A candidate's claim.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ballot {
    /// The candidate and its term.
    pub vote: Vote,
    /// The end of its log.
    pub last: Option<LogId>,
    /// The leader asked for this election, so its lease does not count.
    pub transfer: bool,
}

/// The answers. [`Reply::Failed`] answers anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reply {
    /// All entries are on disk.
    Appended,
    /// The entries up to this one are.
    AppendedUpTo(Option<LogId>),
    /// The entry before the first is not in the log.
    Conflict,
    /// A higher vote is known.
    HigherVote(Vote),
    /// To [`Request::Vote`] and [`Request::PreVote`].
    Voted {
        /// The vote that counts at the answering node.
        vote: Vote,
        /// Whether the candidate gets it.
        granted: bool,
        /// The end of the answering node's log.
        last: Option<LogId>,
    },
    /// To [`Request::Snapshot`], with the vote that counts at the answering node.
    SnapshotInstalled(Vote),
    /// To [`Request::Transfer`].
    Transferring,
    /// To [`Request::Transfer`]: expected and actual vote.
    VoteChanged(Vote, Vote),
    /// To [`Request::Transfer`]: expected and actual end of the log.
    LogBehind(Option<LogId>, Option<LogId>),
    /// The node cannot answer, for example because it is shutting down.
    Failed,
}

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Another version wrote them, or nothing of ours.
    Version(Option<u8>),
    /// They do not follow the format, in which every value has one encoding and lists are short.
    Syntax,
    /// Bytes follow after the end.
    Trailing(usize),
    /// A counter or the number of nodes above its bound.
    Bound,
    /// The entries are not consecutive, or their terms fall or exceed the leader's.
    Entries,
    /// A membership without voters or with voters that are no nodes.
    Membership,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(Some(found)) => write!(f, "read version {found}, only {FORMAT} is known"),
            Self::Version(None) => f.write_str("read an empty value"),
            Self::Syntax => f.write_str("parse the value"),
            Self::Trailing(count) => write!(f, "parse the value: {count} bytes follow its end"),
            Self::Bound => f.write_str("accept the value: a number in it exceeds its bound"),
            Self::Entries => f.write_str("accept the entries: they do not follow each other"),
            Self::Membership => {
                f.write_str("accept the membership: it names no voters, or voters it does not know")
            }
        }
    }
}

impl std::error::Error for Malformed {}

/// The bytes of a frame.
pub fn encode_frame(frame: &Frame) -> Vec<u8> {
    encode(&WireFrame::from(frame))
}

/// Reads a frame.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode_frame(bytes: &[u8]) -> Result<Frame, Malformed> {
    decode::<WireFrame<'_>>(bytes)?.try_into()
}

/// The bytes of an entry on disk.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    encode(&WireEntry::from(entry))
}

/// Reads an entry from disk.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, Malformed> {
    decode::<WireEntry<'_>>(bytes)?.try_into()
}

/// The bytes of a vote on disk.
pub fn encode_vote(vote: &Vote) -> Vec<u8> {
    encode(&WireVote::from(vote))
}

/// Reads a vote from disk.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode_vote(bytes: &[u8]) -> Result<Vote, Malformed> {
    decode::<WireVote>(bytes)?.try_into()
}

/// The bytes of a log id on disk.
pub fn encode_log_id(id: &LogId) -> Vec<u8> {
    encode(&WireLogId::from(id))
}

/// Reads a log id from disk.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode_log_id(bytes: &[u8]) -> Result<LogId, Malformed> {
    decode::<WireLogId>(bytes)?.try_into()
}

/// The bytes of what a snapshot covers, on disk.
pub fn encode_snapshot_meta(meta: &SnapshotMeta) -> Vec<u8> {
    encode(&WireMeta::from(meta))
}

/// Reads what a snapshot covers, from disk.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode_snapshot_meta(bytes: &[u8]) -> Result<SnapshotMeta, Malformed> {
    decode::<WireMeta>(bytes)?.try_into()
}

/// The bytes of a node's identity on disk.
pub fn encode_node(id: &RaftId) -> Vec<u8> {
    encode(id)
}

/// Reads a node's identity from disk.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode_node(bytes: &[u8]) -> Result<RaftId, Malformed> {
    decode(bytes)
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![FORMAT]).expect("mirror structs have lengths, and memory grows or aborts")
}

fn decode<'a, T: Deserialize<'a> + Serialize>(bytes: &'a [u8]) -> Result<T, Malformed> {
    let (version, rest) = bytes.split_first().ok_or(Malformed::Version(None))?;
    if *version != FORMAT {
        return Err(Malformed::Version(Some(*version)));
    }
    let (value, trailing) = postcard::take_from_bytes(rest).map_err(|_| Malformed::Syntax)?;
    if !trailing.is_empty() {
        return Err(Malformed::Trailing(trailing.len()));
    }
    if is_canonical(&value, rest) { Ok(value) } else { Err(Malformed::Syntax) }
}

#[derive(Serialize, Deserialize)]
enum WireFrame<'a> {
    Request(u64, #[serde(borrow)] WireRequest<'a>),
    Reply(u64, WireReply),
}

#[derive(Serialize, Deserialize)]
enum WireRequest<'a> {
    Append {
        vote: WireVote,
        prev: Option<WireLogId>,
        #[serde(borrow)]
        entries: Few<WireEntry<'a>, ENTRIES_MAX>,
        commit: Option<WireLogId>,
    },
    Vote(WireBallot),
    PreVote(WireBallot),
    Snapshot(WireVote, WireMeta, #[serde(borrow)] Blob<'a>),
    Transfer {
        from: WireVote,
        to: RaftId,
        last: Option<WireLogId>,
    },
}

#[derive(Serialize, Deserialize)]
enum WireReply {
    Appended,
    AppendedUpTo(Option<WireLogId>),
    Conflict,
    HigherVote(WireVote),
    Voted { vote: WireVote, granted: bool, last: Option<WireLogId> },
    SnapshotInstalled(WireVote),
    Transferring,
    VoteChanged(WireVote, WireVote),
    LogBehind(Option<WireLogId>, Option<WireLogId>),
    Failed,
}

#[derive(Serialize, Deserialize)]
struct WireBallot {
    vote: WireVote,
    last: Option<WireLogId>,
    transfer: bool,
}

#[derive(Serialize, Deserialize)]
struct WireVote {
    term: u64,
    node: RaftId,
    committed: bool,
}

#[derive(Serialize, Deserialize)]
struct WireLogId {
    term: u64,
    index: u64,
}

#[derive(Serialize, Deserialize)]
struct WireEntry<'a> {
    id: WireLogId,
    #[serde(borrow)]
    payload: WirePayload<'a>,
}

#[derive(Serialize, Deserialize)]
enum WirePayload<'a> {
    Blank,
    #[serde(borrow)]
    Command(Blob<'a>),
    Membership(WireMembership),
}

#[derive(Serialize, Deserialize)]
struct WireMembership {
    configs: Few<BTreeSet<RaftId>, 2>,
    nodes: BTreeSet<RaftId>,
}

#[derive(Serialize, Deserialize)]
struct WireMeta {
    last: Option<WireLogId>,
    membership_at: Option<WireLogId>,
    membership: WireMembership,
}

/// A list that is read only as far as one element more than it may have: elements of three bytes take twenty times as
/// much in memory, so a long list must be refused before all of it is there.
#[derive(Serialize)]
#[serde(transparent)]
struct Few<T, const MAX: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Few<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self(Vec::new()))
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Few<T, MAX> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self, A::Error> {
        while let Some(element) = list.next_element()? {
            self.0.push(element);
            if self.0.len() > MAX {
                return Err(A::Error::invalid_length(self.0.len(), &self));
            }
        }
        Ok(self)
    }
}

/// Bytes that serde handles at once and not one by one.
struct Blob<'a>(&'a [u8]);

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Blob<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'de [u8]>::deserialize(deserializer).map(Self)
    }
}

impl<'a> From<&'a Frame> for WireFrame<'a> {
    fn from(frame: &'a Frame) -> Self {
        match frame {
            Frame::Request(number, request) => Self::Request(*number, request.into()),
            Frame::Reply(number, reply) => Self::Reply(*number, reply.into()),
        }
    }
}

impl TryFrom<WireFrame<'_>> for Frame {
    type Error = Malformed;

    fn try_from(wire: WireFrame<'_>) -> Result<Self, Malformed> {
        Ok(match wire {
            WireFrame::Request(number, request) => Self::Request(number, request.try_into()?),
            WireFrame::Reply(number, reply) => Self::Reply(number, reply.try_into()?),
        })
    }
}

impl<'a> From<&'a Request> for WireRequest<'a> {
    fn from(request: &'a Request) -> Self {
        match request {
            Request::Append { vote, prev, entries, commit } => Self::Append {
                vote: vote.into(),
                prev: wire_id(prev),
                entries: Few(entries.iter().map(WireEntry::from).collect()),
                commit: wire_id(commit),
            },
            Request::Vote(ballot) => Self::Vote(ballot.into()),
            Request::PreVote(ballot) => Self::PreVote(ballot.into()),
            Request::Snapshot(vote, meta, data) => Self::Snapshot(vote.into(), meta.into(), Blob(data)),
            Request::Transfer { from, to, last } => {
                Self::Transfer { from: from.into(), to: *to, last: wire_id(last) }
            }
        }
    }
}

impl TryFrom<WireRequest<'_>> for Request {
    type Error = Malformed;

    fn try_from(wire: WireRequest<'_>) -> Result<Self, Malformed> {
        Ok(match wire {
            WireRequest::Append { vote, prev, entries: Few(entries), commit } => {
                let vote = Vote::try_from(vote)?;
                let prev = log_id(prev)?;
                let entries: Vec<Entry> =
                    entries.into_iter().map(Entry::try_from).collect::<Result<_, _>>()?;
                check_consecutive(&vote, prev, &entries)?;
                Self::Append { vote, prev, entries, commit: log_id(commit)? }
            }
            WireRequest::Vote(ballot) => Self::Vote(ballot.try_into()?),
            WireRequest::PreVote(ballot) => Self::PreVote(ballot.try_into()?),
            WireRequest::Snapshot(vote, meta, Blob(data)) => {
                let meta = SnapshotMeta::try_from(meta)?;
                if meta.last_log_id.is_none() || meta.last_membership.log_id().is_none() {
                    return Err(Malformed::Membership);
                }
                Self::Snapshot(vote.try_into()?, meta, Bytes::copy_from_slice(data))
            }
            WireRequest::Transfer { from, to, last } => {
                Self::Transfer { from: from.try_into()?, to, last: log_id(last)? }
            }
        })
    }
}

/// What openraft assumes of the entries in a request.
fn check_consecutive(vote: &Vote, prev: Option<LogId>, entries: &[Entry]) -> Result<(), Malformed> {
    let mut before = prev;
    for entry in entries {
        let id = entry.log_id;
        let follows =
            before.map_or(id.index == 0, |before| id.index == before.index + 1 && term(&id) >= term(&before));
        if !follows || term(&id) > vote.leader_id.term {
            return Err(Malformed::Entries);
        }
        before = Some(id);
    }
    Ok(())
}

impl From<&Reply> for WireReply {
    fn from(reply: &Reply) -> Self {
        match reply {
            Reply::Appended => Self::Appended,
            Reply::AppendedUpTo(last) => Self::AppendedUpTo(wire_id(last)),
            Reply::Conflict => Self::Conflict,
            Reply::HigherVote(vote) => Self::HigherVote(vote.into()),
            Reply::Voted { vote, granted, last } => {
                Self::Voted { vote: vote.into(), granted: *granted, last: wire_id(last) }
            }
            Reply::SnapshotInstalled(vote) => Self::SnapshotInstalled(vote.into()),
            Reply::Transferring => Self::Transferring,
            Reply::VoteChanged(expected, actual) => Self::VoteChanged(expected.into(), actual.into()),
            Reply::LogBehind(expected, actual) => Self::LogBehind(wire_id(expected), wire_id(actual)),
            Reply::Failed => Self::Failed,
        }
    }
}

impl TryFrom<WireReply> for Reply {
    type Error = Malformed;

    fn try_from(wire: WireReply) -> Result<Self, Malformed> {
        Ok(match wire {
            WireReply::Appended => Self::Appended,
            WireReply::AppendedUpTo(last) => Self::AppendedUpTo(log_id(last)?),
            WireReply::Conflict => Self::Conflict,
            WireReply::HigherVote(vote) => Self::HigherVote(vote.try_into()?),
            WireReply::Voted { vote, granted, last } => {
                Self::Voted { vote: vote.try_into()?, granted, last: log_id(last)? }
            }
            WireReply::SnapshotInstalled(vote) => Self::SnapshotInstalled(vote.try_into()?),
            WireReply::Transferring => Self::Transferring,
            WireReply::VoteChanged(expected, actual) => {
                Self::VoteChanged(expected.try_into()?, actual.try_into()?)
            }
            WireReply::LogBehind(expected, actual) => Self::LogBehind(log_id(expected)?, log_id(actual)?),
            WireReply::Failed => Self::Failed,
        })
    }
}

impl From<&Ballot> for WireBallot {
    fn from(ballot: &Ballot) -> Self {
        Self { vote: (&ballot.vote).into(), last: wire_id(&ballot.last), transfer: ballot.transfer }
    }
}

impl TryFrom<WireBallot> for Ballot {
    type Error = Malformed;

    fn try_from(wire: WireBallot) -> Result<Self, Malformed> {
        Ok(Self { vote: wire.vote.try_into()?, last: log_id(wire.last)?, transfer: wire.transfer })
    }
}

impl From<&Vote> for WireVote {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.voted_for.0, committed: vote.committed }
    }
}

impl TryFrom<WireVote> for Vote {
    type Error = Malformed;

    fn try_from(wire: WireVote) -> Result<Self, Malformed> {
        let term = bounded(wire.term)?;
        let node = NodeId(wire.node);
        Ok(if wire.committed { Self::new_committed(term, node) } else { Self::new(term, node) })
    }
}

impl From<&LogId> for WireLogId {
    fn from(id: &LogId) -> Self {
        Self { term: term(id), index: id.index }
    }
}

impl TryFrom<WireLogId> for LogId {
    type Error = Malformed;

    fn try_from(wire: WireLogId) -> Result<Self, Malformed> {
        Ok(Self::new_term_index(bounded(wire.term)?, bounded(wire.index)?))
    }
}

impl<'a> From<&'a Entry> for WireEntry<'a> {
    fn from(entry: &'a Entry) -> Self {
        let payload = match &entry.payload {
            Payload::Blank => WirePayload::Blank,
            Payload::Normal(Command(bytes)) => WirePayload::Command(Blob(bytes)),
            Payload::Membership(membership) => WirePayload::Membership(membership.into()),
        };
        Self { id: (&entry.log_id).into(), payload }
    }
}

impl TryFrom<WireEntry<'_>> for Entry {
    type Error = Malformed;

    fn try_from(wire: WireEntry<'_>) -> Result<Self, Malformed> {
        let payload = match wire.payload {
            WirePayload::Blank => Payload::Blank,
            WirePayload::Command(Blob(bytes)) if bytes.len() > COMMAND_BYTES_MAX => {
                return Err(Malformed::Bound);
            }
            WirePayload::Command(Blob(bytes)) => Payload::Normal(Command(Bytes::copy_from_slice(bytes))),
            WirePayload::Membership(membership) => Payload::Membership(membership.try_into()?),
        };
        Ok(Self { log_id: wire.id.try_into()?, payload })
    }
}

impl From<&Membership> for WireMembership {
    fn from(membership: &Membership) -> Self {
        Self {
            configs: Few(membership
                .get_joint_config()
                .iter()
                .map(|config| config.iter().map(|id| id.0).collect())
                .collect()),
            nodes: membership.nodes().map(|(id, ())| id.0).collect(),
        }
    }
}

impl TryFrom<WireMembership> for Membership {
    type Error = Malformed;

    fn try_from(wire: WireMembership) -> Result<Self, Malformed> {
        if wire.nodes.len() > MEMBERS_MAX {
            return Err(Malformed::Bound);
        }
        let Few(configs) = wire.configs;
        if configs.is_empty() {
            return Err(Malformed::Membership);
        }
        let configs = configs.into_iter().map(|config| config.into_iter().map(NodeId).collect()).collect();
        let nodes: BTreeMap<NodeId, ()> = wire.nodes.into_iter().map(|id| (NodeId(id), ())).collect();
        Self::new(configs, nodes).map_err(|_| Malformed::Membership)
    }
}

impl From<&SnapshotMeta> for WireMeta {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last: wire_id(&meta.last_log_id),
            membership_at: wire_id(meta.last_membership.log_id()),
            membership: meta.last_membership.membership().into(),
        }
    }
}

impl TryFrom<WireMeta> for SnapshotMeta {
    type Error = Malformed;

    fn try_from(wire: WireMeta) -> Result<Self, Malformed> {
        let last_log_id = log_id(wire.last)?;
        let membership_at = log_id(wire.membership_at)?;
        if membership_at > last_log_id {
            return Err(Malformed::Membership);
        }
        // Before the first entry there is no membership, which is not the same as a wrong one.
        let empty = membership_at.is_none()
            && wire.membership.configs.0.is_empty()
            && wire.membership.nodes.is_empty();
        let membership = if empty { Membership::default() } else { wire.membership.try_into()? };
        Ok(Self { last_log_id, last_membership: StoredMembership::new(membership_at, membership) })
    }
}

fn wire_id(id: &Option<LogId>) -> Option<WireLogId> {
    id.as_ref().map(WireLogId::from)
}

fn log_id(wire: Option<WireLogId>) -> Result<Option<LogId>, Malformed> {
    wire.map(LogId::try_from).transpose()
}

fn bounded(counter: u64) -> Result<u64, Malformed> {
    if counter < COUNTER_MAX { Ok(counter) } else { Err(Malformed::Bound) }
}

#[cfg(test)]
mod tests;
