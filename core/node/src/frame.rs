//! What two nodes say to each other about their connection, on [`Channel::Control`](crate::world::Channel::Control).
//!
//! A frame is a version byte, a kind byte and a postcard body. The version is that of the framing alone, so that nodes of
//! different wire versions can still tell each other so: what may differ between builds stands inside [`Hello`].
//!
//! Both ends send [`Hello`] at once, before anything else, and judge the other's with [`judge_hello`]. Which frame is read
//! when, [`Frame::is_read`] says; whatever else comes is dropped:
//!
//! | frame, by [`Stage`] | fresh | refused | waiting | used | linked |
//! |---|---|---|---|---|---|
//! | hello | read | | | | |
//! | hello-refused, goodbye | read | read | read | read | read |
//! | welcome | | | read | read | |
//! | ping | | | read | read | read |
//! | pong | | | | read | read |
//! | peers-wanted, peers, members, reach | | | | | read |
//!
//! A welcome is said once, so it is read while this end has not decided between two connections. The other end may then
//! use the connection already, and ask over it whether this node lives.

use core::fmt;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zipnet_core::checks::{Check, Checks};
use zipnet_core::id::{Digest, LogId, PeerId, RaftId, Role, StoreId, UniqueId};
use zipnet_core::key::CommitteeSecret;
use zipnet_core::params::RoundParams;
use zipnet_core::wire::is_canonical;
pub use zipnet_facts::{Farewell, Refusal};

use crate::config::ADDRESS_LEN_MAX;
use crate::consensus::codec::MEMBERS_MAX;
use crate::gossip::book::{DIGEST_LEN_MAX, ENTRIES_LEN_MAX, PeerEntry};
use crate::world::Address;

/// The version of the framing. Never changes within a wire version.
pub const FRAME_VERSION: u8 = 1;

/// The longest frame.
pub const FRAME_BYTES_MAX: usize = 64 << 10;

/// The longest attestation evidence.
pub const ATTESTATION_BYTES_MAX: usize = 32 << 10;

/// The most voters in a frame.
pub const VOTERS_LEN_MAX: usize = MEMBERS_MAX;

/// A message about the connection itself, or about how others are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first frame of each end.
    Hello(Box<Hello>),
    /// The other end's hello was refused; the connection closes after this.
    HelloRefused {
        /// Why.
        reason: Refusal,
    },
    /// The other end's hello was accepted, and this connection is the one that the sender uses with it.
    Welcome,
    /// Asks for a [`Frame::Pong`]: whoever answers is alive.
    Ping {
        /// Repeated in the answer.
        nonce: u64,
    },
    /// Answers a [`Frame::Ping`].
    Pong {
        /// Of the ping.
        nonce: u64,
    },
    /// The sender closes the connection on purpose.
    Goodbye {
        /// Why.
        reason: Farewell,
    },
    /// Asks for the peer entries that the receiver has and the sender lacks.
    PeersWanted {
        /// The newest sequence that the sender has of each peer, in PeerId order. At most [`DIGEST_LEN_MAX`].
        have: Vec<(PeerId, u64)>,
    },
    /// Peer entries that the receiver asked for. At most [`ENTRIES_LEN_MAX`]; the rest follows on the next request.
    Peers {
        /// Each signed by its peer.
        entries: Vec<PeerEntry>,
    },
    /// From server to server: whose votes count in the sender's log. Sent when a link is up, and when they change.
    Members {
        /// The sender's log, if it has one.
        log: Option<LogId>,
        /// The entry of the log since which this holds.
        index: u64,
        /// In ascending order. At most [`VOTERS_LEN_MAX`].
        voters: BTreeSet<RaftId>,
    },
    /// From server to server: which servers the sender is linked with. Sent when a link is up, and when they change.
    Reach {
        /// In ascending order. At most [`VOTERS_LEN_MAX`].
        servers: BTreeSet<PeerId>,
    },
}

/// How far a connection is, as one of its ends sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The other end's hello was not judged yet.
    Fresh,
    /// This end refused the hello, has said so, and waits for the other end's word.
    Refused,
    /// This end accepted the hello, and another connection is in use for the peer.
    Waiting,
    /// This end uses the connection and has said so.
    Used,
    /// Both ends do.
    Linked,
}

/// Who a node is and what it was built as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// How messages on the other channels are encoded.
    pub wire_version: u8,
    /// As what the sender takes part.
    pub role: Role,
    /// In which instance.
    pub instance: UniqueId,
    /// In which universe.
    pub universe: UniqueId,
    /// A server's proof that it knows the committee secret, bound to this connection, its role and both ids.
    pub group_proof: Option<[u8; 32]>,
    /// The shape of a round.
    pub params: RoundParams,
    /// The digest that distinguishes committee machines.
    pub machine_signature: Digest,
    /// The log of the sender, if it has one.
    pub log: Option<LogId>,
    /// Whether that log holds a finalised round.
    pub has_records: bool,
    /// Whether the sender was told to start a log and to yield to no other.
    pub steadfast: bool,
    /// A server's disk.
    pub store: Option<StoreId>,
    /// Where the sender can be dialled; clients have none.
    pub address: Option<Address>,
    /// Drawn at process start: two connections of one process carry the same, two processes of one identity do not.
    pub incarnation: [u8; 16],
    /// Evidence of what the sender runs on; empty committees of gates ignore it. At most [`ATTESTATION_BYTES_MAX`].
    pub attestation: Option<Vec<u8>>,
}

/// What a node compares a hello with, and makes its own of.
#[derive(Clone, Debug)]
pub struct Own {
    /// This node.
    pub peer: PeerId,
    /// As what it takes part.
    pub role: Role,
    /// In which instance.
    pub instance: UniqueId,
    /// In which universe.
    pub universe: UniqueId,
    /// How it encodes messages.
    pub wire_version: u8,
    /// The shape of its rounds.
    pub params: RoundParams,
    /// The digest that distinguishes its committee machine.
    pub machine_signature: Digest,
    /// Servers only.
    pub committee_secret: Option<Arc<CommitteeSecret>>,
    /// Drawn at process start.
    pub incarnation: [u8; 16],
}

/// The part of a hello that changes while a node runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The log of this node, if it has one.
    pub log: Option<LogId>,
    /// Whether that log holds a finalised round.
    pub has_records: bool,
    /// Whether this node yields to no other log.
    pub steadfast: bool,
    /// A server's disk.
    pub store: Option<StoreId>,
    /// Where this node can be dialled.
    pub address: Option<Address>,
}

impl Own {
    /// The hello for the connection with `peer` whose exporter this is.
    #[must_use]
    pub fn hello(&self, exporter: &[u8; 32], peer: &PeerId, present: Present) -> Hello {
        let proof = |secret: &Arc<CommitteeSecret>| secret.group_proof(exporter, self.role, &self.peer, peer);
        Hello {
            wire_version: self.wire_version,
            role: self.role,
            instance: self.instance,
            universe: self.universe,
            group_proof: self.committee_secret.as_ref().map(proof),
            params: self.params,
            machine_signature: self.machine_signature,
            log: present.log,
            has_records: present.has_records,
            steadfast: present.steadfast,
            store: present.store,
            address: present.address,
            incarnation: self.incarnation,
            attestation: None,
        }
    }
}

/// Whether to talk to `peer`, which sent `hello` over the connection with this exporter.
///
/// The order is part of the contract: whose network it is, then which compatibility boundary was crossed, then what the
/// sender must prove. So a mistake in a configuration is named as what it is, although it makes every proof fail as well.
/// Retired and duplicate identities and second logs are judged afterwards, by [`crate::meeting`].
///
/// # Errors
/// The first reason that applies.
pub fn judge_hello(
    own: &Own,
    hello: &Hello,
    exporter: &[u8; 32],
    peer: &PeerId,
    checks: &impl Checks,
) -> Result<(), Refusal> {
    if *peer == own.peer {
        let myself = hello.incarnation == own.incarnation;
        return Err(if myself { Refusal::Myself } else { Refusal::DuplicateIdentity });
    }
    if hello.universe != own.universe {
        return Err(Refusal::Universe);
    }
    if hello.instance != own.instance {
        return Err(Refusal::Instance);
    }
    if checks.enforce(Check::Compatibility) {
        if hello.wire_version != own.wire_version {
            return Err(Refusal::WireVersion);
        }
        if hello.params != own.params {
            return Err(Refusal::Parameters);
        }
        if hello.machine_signature != own.machine_signature {
            return Err(Refusal::MachineSignature);
        }
    }
    let meaningful = match (own.role, hello.role) {
        (Role::Client, Role::Client) => false,
        (Role::Server | Role::Aggregator, _) | (_, Role::Server | Role::Aggregator) => true,
    };
    let complete = match hello.role {
        Role::Server => hello.store.is_some(),
        Role::Aggregator | Role::Client => true,
    };
    if !meaningful || !complete {
        return Err(Refusal::Role);
    }
    if !is_becoming(hello) && checks.enforce(Check::ServersHaveLogs) {
        return Err(Refusal::Malformed);
    }
    // Whoever does not hold the secret cannot check the proof: clients and the aggregator learn who the servers are
    // from headers that every one of them signed.
    if hello.role == Role::Server
        && let Some(secret) = &own.committee_secret
        && checks.enforce(Check::GroupProof)
    {
        let proven = hello
            .group_proof
            .is_some_and(|proof| secret.check_group_proof(exporter, hello.role, peer, &own.peer, &proof));
        if !proven {
            return Err(Refusal::GroupProof);
        }
    }
    Ok(())
}

/// Whether a hello says nothing that its role has not: only a server has a disk, a log and a proof, and what it says of
/// its log it says of one that it names. A client has no address.
const fn is_becoming(hello: &Hello) -> bool {
    let Hello { log, has_records, steadfast, store, address, group_proof, .. } = hello;
    match hello.role {
        Role::Server => log.is_some() || !*has_records,
        Role::Aggregator | Role::Client => {
            let like_a_server = log.is_some() || *has_records || *steadfast || store.is_some();
            let hidden = matches!(hello.role, Role::Aggregator) || address.is_none();
            !like_a_server && group_proof.is_none() && hidden
        }
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Shorter than version and kind, or the body ends early.
    Truncated,
    /// Longer than [`FRAME_BYTES_MAX`].
    TooLong,
    /// Another version of the framing.
    Version(u8),
    /// No frame has this kind.
    Kind(u8),
    /// The body is not what the kind says, or is encoded in another way than the only one.
    Body,
    /// Bytes follow the body.
    Trailing,
    /// A list or text is longer than its limit.
    Limit,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("read a frame: it ends early"),
            Self::TooLong => write!(f, "read a frame: longer than {FRAME_BYTES_MAX} bytes"),
            Self::Version(version) => {
                write!(f, "read a frame: expected version {FRAME_VERSION}, found {version}")
            }
            Self::Kind(kind) => write!(f, "read a frame: unknown kind {kind}"),
            Self::Body => f.write_str("read a frame: the body is not what the kind says"),
            Self::Trailing => f.write_str("read a frame: bytes follow it"),
            Self::Limit => f.write_str("read a frame: a list or text exceeds its limit"),
        }
    }
}

impl core::error::Error for FrameError {}

const HELLO: u8 = 1;
const HELLO_REFUSED: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;
const GOODBYE: u8 = 5;
const PEERS_WANTED: u8 = 6;
const PEERS: u8 = 7;
const WELCOME: u8 = 8;
const MEMBERS: u8 = 9;
const REACH: u8 = 10;

impl Frame {
    /// The bytes of this frame.
    ///
    /// # Panics
    /// If a list or text exceeds its limit: whoever builds a frame keeps them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.within_limits(), "a frame was built beyond its limits");
        let bytes = match self {
            Self::Hello(hello) => body(HELLO, hello),
            Self::HelloRefused { reason } => body(HELLO_REFUSED, reason),
            Self::Ping { nonce } => body(PING, nonce),
            Self::Pong { nonce } => body(PONG, nonce),
            Self::Goodbye { reason } => body(GOODBYE, reason),
            Self::PeersWanted { have } => body(PEERS_WANTED, have),
            Self::Peers { entries } => body(PEERS, entries),
            Self::Welcome => body(WELCOME, &()),
            Self::Members { log, index, voters } => body(MEMBERS, &(log, index, voters)),
            Self::Reach { servers } => body(REACH, servers),
        };
        assert!(bytes.len() <= FRAME_BYTES_MAX, "the limits of a frame's parts keep it short");
        bytes
    }

    /// Reads a frame. Signatures and proofs inside are not checked here.
    ///
    /// # Errors
    /// If the bytes are not exactly one frame within all limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong);
        }
        let [version, kind, rest @ ..] = bytes else { return Err(FrameError::Truncated) };
        if *version != FRAME_VERSION {
            return Err(FrameError::Version(*version));
        }
        let frame = match *kind {
            HELLO => Self::Hello(Box::new(whole(rest)?)),
            HELLO_REFUSED => Self::HelloRefused { reason: whole(rest)? },
            PING => Self::Ping { nonce: whole(rest)? },
            PONG => Self::Pong { nonce: whole(rest)? },
            GOODBYE => Self::Goodbye { reason: whole(rest)? },
            PEERS_WANTED => Self::PeersWanted { have: whole(rest)? },
            PEERS => Self::Peers { entries: whole(rest)? },
            WELCOME => whole(rest).map(|()| Self::Welcome)?,
            MEMBERS => whole(rest).map(|(log, index, voters)| Self::Members { log, index, voters })?,
            REACH => Self::Reach { servers: whole(rest)? },
            kind => return Err(FrameError::Kind(kind)),
        };
        if frame.within_limits() { Ok(frame) } else { Err(FrameError::Limit) }
    }

    /// The stable name, as metrics spell it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::HelloRefused { .. } => "hello-refused",
            Self::Welcome => "welcome",
            Self::Ping { .. } => "ping",
            Self::Pong { .. } => "pong",
            Self::Goodbye { .. } => "goodbye",
            Self::PeersWanted { .. } => "peers-wanted",
            Self::Peers { .. } => "peers",
            Self::Members { .. } => "members",
            Self::Reach { .. } => "reach",
        }
    }

    /// Whether this frame is read at this stage of its connection: the table of this module.
    #[must_use]
    pub const fn is_read(&self, stage: Stage) -> bool {
        match self {
            Self::Hello(_) => matches!(stage, Stage::Fresh),
            Self::HelloRefused { .. } | Self::Goodbye { .. } => true,
            Self::Welcome => matches!(stage, Stage::Waiting | Stage::Used),
            Self::Ping { .. } => matches!(stage, Stage::Waiting | Stage::Used | Stage::Linked),
            Self::Pong { .. } => matches!(stage, Stage::Used | Stage::Linked),
            Self::PeersWanted { .. } | Self::Peers { .. } | Self::Members { .. } | Self::Reach { .. } => {
                matches!(stage, Stage::Linked)
            }
        }
    }

    fn within_limits(&self) -> bool {
        match self {
            Self::Hello(hello) => {
                hello.address.as_ref().is_none_or(|address| address.0.len() <= ADDRESS_LEN_MAX)
                    && hello.attestation.as_ref().is_none_or(|bytes| bytes.len() <= ATTESTATION_BYTES_MAX)
            }
            Self::PeersWanted { have } => have.len() <= DIGEST_LEN_MAX,
            Self::Peers { entries } => {
                entries.len() <= ENTRIES_LEN_MAX && entries.iter().all(PeerEntry::within_limits)
            }
            Self::Members { voters, .. } => voters.len() <= VOTERS_LEN_MAX,
            Self::Reach { servers } => servers.len() <= VOTERS_LEN_MAX,
            Self::HelloRefused { .. }
            | Self::Welcome
            | Self::Ping { .. }
            | Self::Pong { .. }
            | Self::Goodbye { .. } => true,
        }
    }
}

fn body<T: Serialize>(kind: u8, value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![FRAME_VERSION, kind]).expect("growing a vector does not fail")
}

fn whole<'a, T: Deserialize<'a> + Serialize>(bytes: &'a [u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) if is_canonical(&value, bytes) => Ok(value),
        Ok((_, [])) => Err(FrameError::Body),
        Ok(_) => Err(FrameError::Trailing),
        Err(postcard::Error::DeserializeUnexpectedEnd) => Err(FrameError::Truncated),
        Err(_) => Err(FrameError::Body),
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::checks::Strict;
    use zipnet_core::key::{Identity, NodeSecret};

    use super::*;

    const EXPORTER: [u8; 32] = [7; 32];
    const A: PeerId = PeerId([1; 32]);
    const B: PeerId = PeerId([2; 32]);

    fn own(peer: PeerId, role: Role) -> Own {
        let secret = Arc::new(CommitteeSecret::from_bytes([0x5c; 32]));
        Own {
            peer,
            role,
            instance: UniqueId([3; 32]),
            universe: UniqueId([4; 32]),
            wire_version: 1,
            params: RoundParams::DEFAULT,
            machine_signature: Digest([5; 32]),
            committee_secret: (role == Role::Server).then_some(secret),
            incarnation: [peer.0[0]; 16],
        }
    }

    fn present(role: Role) -> Present {
        match role {
            Role::Server => Present {
                log: Some(LogId([6; 32])),
                has_records: true,
                steadfast: false,
                store: Some(StoreId(9)),
                address: Some(Address("10.0.0.7:4000".to_owned())),
            },
            Role::Aggregator => {
                Present { address: Some(Address("10.0.0.8:4000".to_owned())), ..Present::default() }
            }
            Role::Client => Present::default(),
        }
    }

    fn hello(role: Role) -> Hello {
        own(B, role).hello(&EXPORTER, &A, present(role))
    }

    fn entry() -> PeerEntry {
        let identity = Identity::from_secret(&NodeSecret::from_bytes([0x1d; 32]));
        PeerEntry::sign(
            &identity,
            UniqueId([3; 32]),
            Role::Server,
            Some(Address("10.0.0.7:4000".to_owned())),
            3,
        )
    }

    fn every_kind() -> Vec<Frame> {
        let attested = Hello { attestation: Some(vec![1, 2, 3]), ..hello(Role::Server) };
        vec![
            Frame::Hello(Box::new(attested)),
            Frame::Hello(Box::new(hello(Role::Client))),
            Frame::HelloRefused { reason: Refusal::GroupProof },
            Frame::Welcome,
            Frame::Ping { nonce: u64::MAX },
            Frame::Pong { nonce: 0 },
            Frame::Goodbye { reason: Farewell::Departing },
            Frame::PeersWanted { have: vec![(A, 1), (B, u64::MAX)] },
            Frame::Peers { entries: vec![entry(), entry()] },
            Frame::Members { log: Some(LogId([6; 32])), index: 300, voters: voters(3) },
            Frame::Members { log: None, index: 0, voters: voters(0) },
            Frame::Reach { servers: BTreeSet::from([A, B]) },
        ]
    }

    fn voters(count: usize) -> BTreeSet<RaftId> {
        let voter = |number: usize| RaftId { peer: A, store: StoreId(u64::MAX - number as u64) };
        (0..count).map(voter).collect()
    }

    #[test]
    fn frames_survive_the_wire() {
        for frame in every_kind() {
            assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn every_truncation_and_trailing_byte_is_refused() {
        for frame in every_kind() {
            let mut bytes = frame.encode();
            for len in 0..bytes.len() {
                assert!(Frame::decode(&bytes[..len]).is_err(), "{frame:?} cut to {len}");
            }
            bytes.push(0);
            assert_eq!(Frame::decode(&bytes), Err(FrameError::Trailing), "{frame:?}");
        }
    }

    #[test]
    fn flipped_bytes_never_panic() {
        for frame in every_kind() {
            let bytes = frame.encode();
            for position in 0..bytes.len() {
                for mask in [1, 0x80, 0xff] {
                    let mut bytes = bytes.clone();
                    bytes[position] ^= mask;
                    drop(Frame::decode(&bytes));
                }
            }
        }
    }

    #[test]
    fn limits_hold_before_anything_is_believed() {
        let long = "h".repeat(ADDRESS_LEN_MAX + 1);
        let far = Hello { address: Some(Address(long)), ..hello(Role::Server) };
        assert_eq!(Frame::decode(&body(HELLO, &far)), Err(FrameError::Limit));
        let fat = Hello { attestation: Some(vec![0; ATTESTATION_BYTES_MAX + 1]), ..hello(Role::Server) };
        assert_eq!(Frame::decode(&body(HELLO, &fat)), Err(FrameError::Limit));
        let many = vec![(A, 1_u64); DIGEST_LEN_MAX + 1];
        assert_eq!(Frame::decode(&body(PEERS_WANTED, &many)), Err(FrameError::Limit));
        let many = vec![entry(); ENTRIES_LEN_MAX + 1];
        assert_eq!(Frame::decode(&body(PEERS, &many)), Err(FrameError::Limit));
        let many = (Some(LogId([6; 32])), 1_u64, voters(VOTERS_LEN_MAX + 1));
        assert_eq!(Frame::decode(&body(MEMBERS, &many)), Err(FrameError::Limit));
        assert_eq!(Frame::decode(&vec![FRAME_VERSION; FRAME_BYTES_MAX + 1]), Err(FrameError::TooLong));
        assert_eq!(Frame::decode(&[2, PING, 0]), Err(FrameError::Version(2)));
        assert_eq!(Frame::decode(&[FRAME_VERSION, 99, 0]), Err(FrameError::Kind(99)));
        // One as a number of two bytes.
        assert_eq!(Frame::decode(&[FRAME_VERSION, PING, 0x81, 0]), Err(FrameError::Body));
        // A list that claims four billion entries.
        assert_eq!(
            Frame::decode(&[FRAME_VERSION, PEERS, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            Err(FrameError::Truncated)
        );
    }

    #[test]
    fn largest_frames_fit() {
        let full = Hello {
            address: Some(Address("h".repeat(ADDRESS_LEN_MAX))),
            attestation: Some(vec![0xff; ATTESTATION_BYTES_MAX]),
            ..hello(Role::Server)
        };
        let far =
            PeerEntry { address: Some(Address("h".repeat(ADDRESS_LEN_MAX))), sequence: u64::MAX, ..entry() };
        for frame in [
            Frame::Hello(Box::new(full)),
            Frame::PeersWanted { have: vec![(B, u64::MAX); DIGEST_LEN_MAX] },
            Frame::Peers { entries: vec![far; ENTRIES_LEN_MAX] },
            Frame::Members { log: Some(LogId([0xff; 32])), index: u64::MAX, voters: voters(VOTERS_LEN_MAX) },
        ] {
            assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn honest_hellos_are_accepted() {
        for me in [Role::Server, Role::Aggregator, Role::Client] {
            for other in [Role::Server, Role::Aggregator, Role::Client] {
                let verdict = judge_hello(&own(A, me), &hello(other), &EXPORTER, &B, &Strict);
                let expected =
                    if (me, other) == (Role::Client, Role::Client) { Err(Refusal::Role) } else { Ok(()) };
                assert_eq!(verdict, expected, "{other:?} says hello to {me:?}");
            }
        }
    }

    #[test]
    fn each_difference_is_refused_by_name() {
        let good = hello(Role::Server);
        let shape = RoundParams::new(32, 256, 16).expect("a valid shape");
        let table = [
            (Hello { universe: UniqueId([9; 32]), ..good.clone() }, Refusal::Universe),
            (Hello { instance: UniqueId([9; 32]), ..good.clone() }, Refusal::Instance),
            (Hello { wire_version: 2, ..good.clone() }, Refusal::WireVersion),
            // Other versions and parameters change the signature as well; the cause is what is named.
            (
                Hello { wire_version: 2, machine_signature: Digest([9; 32]), ..good.clone() },
                Refusal::WireVersion,
            ),
            (
                Hello {
                    params: shape,
                    machine_signature: Digest([9; 32]),
                    group_proof: None,
                    ..good.clone()
                },
                Refusal::Parameters,
            ),
            (Hello { machine_signature: Digest([9; 32]), ..good.clone() }, Refusal::MachineSignature),
            (Hello { store: None, ..good.clone() }, Refusal::Role),
            (Hello { log: None, ..good.clone() }, Refusal::Malformed),
            (Hello { group_proof: None, ..good.clone() }, Refusal::GroupProof),
            (Hello { group_proof: Some([0; 32]), ..good }, Refusal::GroupProof),
        ];
        for (hello, reason) in table {
            assert_eq!(judge_hello(&own(A, Role::Server), &hello, &EXPORTER, &B, &Strict), Err(reason));
        }
    }

    #[test]
    fn whoever_is_no_server_says_nothing_of_a_log() {
        for role in [Role::Client, Role::Aggregator] {
            let good = hello(role);
            let table = [
                Hello { log: Some(LogId([0; 32])), ..good.clone() },
                Hello { log: Some(LogId([0; 32])), has_records: true, ..good.clone() },
                Hello { has_records: true, ..good.clone() },
                Hello { steadfast: true, ..good.clone() },
                Hello { store: Some(StoreId(1)), ..good.clone() },
                Hello { group_proof: Some([0; 32]), ..good.clone() },
            ];
            for me in [Role::Server, Role::Aggregator] {
                assert_eq!(judge_hello(&own(A, me), &good, &EXPORTER, &B, &Strict), Ok(()));
                for hello in table.clone() {
                    let verdict = judge_hello(&own(A, me), &hello, &EXPORTER, &B, &Strict);
                    assert_eq!(verdict, Err(Refusal::Malformed), "{hello:?}");
                }
            }
        }
        let found = Hello { address: Some(Address("10.0.0.9:1".to_owned())), ..hello(Role::Client) };
        assert_eq!(
            judge_hello(&own(A, Role::Server), &found, &EXPORTER, &B, &Strict),
            Err(Refusal::Malformed)
        );
    }

    #[test]
    fn before_acceptance_only_hello_refusal_and_goodbye_are_read() {
        const STAGES: [Stage; 5] = [Stage::Fresh, Stage::Refused, Stage::Waiting, Stage::Used, Stage::Linked];
        for frame in every_kind() {
            let read: Vec<_> = STAGES.into_iter().filter(|stage| frame.is_read(*stage)).collect();
            let expected = match frame.name() {
                "hello" => &STAGES[..1],
                "hello-refused" | "goodbye" => &STAGES[..],
                "welcome" => &STAGES[2..4],
                "ping" => &STAGES[2..],
                "pong" => &STAGES[3..],
                "peers-wanted" | "peers" | "members" | "reach" => &STAGES[4..],
                name => panic!("{name} stands in no table"),
            };
            assert_eq!(read, expected, "{}", frame.name());
        }
    }

    #[test]
    fn evidence_that_is_not_accepted_ends_nobody() {
        assert_eq!(Refusal::Attestation.exit_code(), None);
    }

    #[test]
    fn proof_is_bound_to_connection_role_and_both_ids() {
        let me = own(A, Role::Server);
        let good = hello(Role::Server);
        let third = PeerId([3; 32]);
        assert_eq!(judge_hello(&me, &good, &[8; 32], &B, &Strict), Err(Refusal::GroupProof), "replayed");
        assert_eq!(judge_hello(&me, &good, &EXPORTER, &third, &Strict), Err(Refusal::GroupProof), "stolen");
        assert_eq!(
            judge_hello(&own(third, Role::Server), &good, &EXPORTER, &B, &Strict),
            Err(Refusal::GroupProof),
            "forwarded"
        );
        let mine = me.hello(&EXPORTER, &B, present(Role::Server));
        assert_eq!(judge_hello(&me, &mine, &EXPORTER, &B, &Strict), Err(Refusal::GroupProof), "reflected");
    }

    #[test]
    fn own_identity_is_told_from_a_second_node_of_it() {
        let me = own(A, Role::Server);
        let mine = me.hello(&EXPORTER, &A, present(Role::Server));
        assert_eq!(judge_hello(&me, &mine, &EXPORTER, &A, &Strict), Err(Refusal::Myself));
        let other = Hello { incarnation: [0; 16], ..mine };
        assert_eq!(judge_hello(&me, &other, &EXPORTER, &A, &Strict), Err(Refusal::DuplicateIdentity));
    }

    #[test]
    fn refusals_have_distinct_names_and_sentences() {
        let names: BTreeSet<_> = Refusal::ALL.iter().map(|reason| reason.name()).collect();
        let sentences: BTreeSet<_> = Refusal::ALL.iter().map(ToString::to_string).collect();
        assert_eq!((names.len(), sentences.len()), (Refusal::ALL.len(), Refusal::ALL.len()));
    }

    /// Lacks one rule.
    #[derive(Clone, Debug)]
    struct Without(Check);

    impl Checks for Without {
        fn enforce(&self, check: Check) -> bool {
            check != self.0
        }
    }

    #[test]
    fn a_build_without_the_rule_lets_in_whom_it_should_refuse() {
        let me = own(A, Role::Server);
        let stranger = Hello { group_proof: None, ..hello(Role::Server) };
        assert_eq!(judge_hello(&me, &stranger, &EXPORTER, &B, &Without(Check::GroupProof)), Ok(()));
        let old = Hello { wire_version: 9, ..hello(Role::Server) };
        assert_eq!(judge_hello(&me, &old, &EXPORTER, &B, &Without(Check::Compatibility)), Ok(()));
        let claiming = Hello { log: Some(LogId([6; 32])), has_records: true, ..hello(Role::Client) };
        assert_eq!(judge_hello(&me, &claiming, &EXPORTER, &B, &Strict), Err(Refusal::Malformed));
        assert_eq!(judge_hello(&me, &claiming, &EXPORTER, &B, &Without(Check::ServersHaveLogs)), Ok(()));
    }

    #[test]
    fn every_refusal_is_documented() {
        let page = include_str!("../../../docs/operating.md");
        for reason in Refusal::ALL {
            assert!(page.contains(&format!("`{}`", reason.name())), "{}", reason.name());
        }
    }
}
