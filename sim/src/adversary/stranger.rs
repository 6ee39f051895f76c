//! Strangers: nodes that nobody asked for, and a server that knows the committee secret and does not behave.
//!
//! What they run is a real node, which dials whom it was pointed to, again and again. What it says gives the stranger the
//! occasion to say something else, or more. What it is told to end for does not reach it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use zipnet_core::bitmap::Bitmap;
use zipnet_core::id::{
    Counter, Digest, Epoch, LogId, PeerId, RaftId, RegistryVersion, Role, Round, StoreId, UniqueId,
};
use zipnet_core::key::{Identity, NodeSecret, PublicKey, Signature};
use zipnet_core::message::{
    Header, HeaderSignature, LiveHeader, Message, Record, RecordSignature, RosterServer,
};
use zipnet_core::wire;
use zipnet_node::consensus::codec::{self, Reply};
use zipnet_node::frame::{Farewell, Frame, Hello, Refusal};
use zipnet_node::gossip::book::{ENTRIES_LEN_MAX, PeerEntry};
use zipnet_node::world::{Address, Channel};
use zipnet_scenarios::words::Deviation;

use crate::random::Random;

/// How far ahead a round is that never was.
const FAR_AHEAD: u64 = 1_000_000_000;

/// How many records of such rounds are told of at a time.
const RECORDS_AT_ONCE: u64 = 4;

/// How often each thing is asked for at a time.
const REQUESTS_AT_ONCE: u64 = 8;

/// How many messages of others are remembered, to be said again in other forms.
const HEARD_MAX: usize = 64;

/// The most messages that are made up at a time.
const BABBLE_AT_ONCE: u64 = 4;

/// The longest message that is made of nothing.
const NONSENSE_BYTES_MAX: u64 = 300;

/// Whether this deviation is one of a stranger.
pub(super) const fn is_one(deviation: Deviation) -> bool {
    matches!(
        deviation,
        Deviation::ClaimLog
            | Deviation::RefuseEverybody
            | Deviation::Usurp
            | Deviation::Flood
            | Deviation::Babble
    )
}

/// What any client is told, and tells the others of its kind. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hearsay(Arc<Mutex<Public>>);

#[derive(Debug, Default)]
struct Public {
    header: Option<Header>,
    record: Option<Record>,
}

impl Hearsay {
    fn with<T>(&self, act: impl FnOnce(&mut Public) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One stranger.
pub(super) struct Stranger {
    hearsay: Hearsay,
    identity: Option<Identity>,
    random: Random,
    /// What the others said that they are, in their last hello.
    roles: BTreeMap<PeerId, Role>,
    /// Where the own node said that it is.
    instance: UniqueId,
    role: Role,
    /// What others said, oldest first once it is full.
    heard: Vec<(Channel, Bytes)>,
    /// Entries of peers that do not exist.
    invented: Vec<PeerEntry>,
}

impl Stranger {
    pub(super) fn new(hearsay: Hearsay) -> Self {
        Self {
            hearsay,
            identity: None,
            random: Random::new(0),
            roles: BTreeMap::new(),
            instance: UniqueId([0; 32]),
            role: Role::Client,
            heard: Vec::new(),
            invented: Vec::new(),
        }
    }

    /// Signs as this node; what it draws follows from its secret, and so from the seed of the run.
    pub(super) fn is_called(&mut self, identity: Identity, secret: &[u8; 32]) {
        let [a, b, c, d, e, f, g, h, ..] = *secret;
        self.identity = Some(identity);
        self.random = Random::new(u64::from_le_bytes([a, b, c, d, e, f, g, h])).fork("stranger");
        self.invented.clear();
    }

    /// Something arrived. Whether the node is let know.
    pub(super) fn hears(
        &mut self,
        deviation: Deviation,
        from: PeerId,
        channel: Channel,
        message: &Bytes,
    ) -> bool {
        if deviation == Deviation::Babble {
            self.remember(channel, message);
        }
        match channel {
            Channel::Control => match Frame::decode(message) {
                Ok(Frame::Hello(hello)) => {
                    self.roles.insert(from, hello.role);
                    true
                }
                // Whoever is told that it is not wanted comes again.
                Ok(Frame::HelloRefused { .. }) => false,
                Ok(_) | Err(_) => true,
            },
            Channel::Protocol if deviation == Deviation::Usurp => {
                match wire::decode(message) {
                    Ok(Message::LiveFor { live, .. }) => {
                        self.hearsay.with(|public| public.header = Some(live.header));
                    }
                    Ok(Message::Record { record, .. }) => {
                        self.hearsay.with(|public| public.record = Some(record));
                    }
                    Ok(_) | Err(_) => {}
                }
                true
            }
            Channel::Protocol | Channel::Consensus | Channel::Bulk | Channel::Datagram => true,
        }
    }

    fn remember(&mut self, channel: Channel, message: &Bytes) {
        if self.heard.len() < HEARD_MAX {
            self.heard.push((channel, message.clone()));
        } else {
            let place = self.random.index(HEARD_MAX);
            self.heard[place] = (channel, message.clone());
        }
    }

    /// What is said instead of a message, in order.
    pub(super) fn says(
        &mut self,
        deviation: Deviation,
        to: PeerId,
        channel: Channel,
        message: &Bytes,
    ) -> Vec<(Channel, Bytes)> {
        let hello = match (channel, Frame::decode(message)) {
            (Channel::Control, Ok(Frame::Hello(hello))) => Some(*hello),
            _ => None,
        };
        if let Some(hello) = &hello {
            (self.instance, self.role) = (hello.instance, hello.role);
        }
        let own = (channel, message.clone());
        match deviation {
            Deviation::ClaimLog => vec![hello.map_or(own, |hello| control(&claiming(hello)))],
            Deviation::RefuseEverybody => self.refuse(hello.is_some(), own),
            Deviation::Usurp => {
                let mut said = vec![own];
                if self.role == Role::Server && self.roles.get(&to) == Some(&Role::Aggregator) {
                    said.extend(self.usurp());
                }
                said
            }
            Deviation::Flood if hello.is_some() => {
                let mut said = self.out_of_turn();
                said.push(own);
                said
            }
            Deviation::Flood => {
                let mut said = vec![own];
                said.extend(self.flood());
                said
            }
            Deviation::Babble => self.babble(hello.is_some(), own),
            _ => vec![own],
        }
    }

    /// A refusal in the place of whatever was to be said; of a hello, sometimes after it.
    fn refuse(&mut self, is_hello: bool, own: (Channel, Bytes)) -> Vec<(Channel, Bytes)> {
        let reason = Refusal::ALL[self.random.index(Refusal::ALL.len())];
        let farewells = [Farewell::Departing, Farewell::Leaving, Farewell::Replaced, Farewell::Yielding];
        let farewell = farewells[self.random.index(farewells.len())];
        let mut said = Vec::new();
        if is_hello && self.random.permille(500) {
            said.push(own);
        }
        said.push(control(&Frame::Goodbye { reason: farewell }));
        said.push(control(&Frame::HelloRefused { reason }));
        said
    }

    /// As a server that has gone on without the committee: its log is the committee's, and its rounds are far ahead.
    fn usurp(&self) -> Vec<(Channel, Bytes)> {
        let Some(identity) = &self.identity else { return Vec::new() };
        let (header, record) = self.hearsay.with(|public| (public.header.clone(), public.record.clone()));
        let Some(header) = header else { return Vec::new() };
        let (version, counter) = (RegistryVersion(1), Counter(1));
        let registry = Message::Registry { log: header.log, version, counter, clients: Vec::new() };
        let mut said = vec![protocol(&registry), protocol(&Message::Live(live(header, identity)))];
        let records = record.into_iter().flat_map(|record| {
            (0..RECORDS_AT_ONCE).map(move |number| ahead(record.clone(), number, identity))
        });
        said.extend(records.map(|record| protocol(&record)));
        said
    }

    /// What nobody reads before a hello.
    fn out_of_turn(&mut self) -> Vec<(Channel, Bytes)> {
        let nonce = self.random.bits();
        let voters = (1..=3).map(|byte| RaftId { peer: PeerId([byte; 32]), store: StoreId(1) }).collect();
        let frames = [
            Frame::Welcome,
            Frame::PeersWanted { have: Vec::new() },
            Frame::Peers { entries: self.invent() },
            Frame::Members { log: Some(LogId([0; 32])), index: u64::MAX >> 1, voters },
            Frame::Ping { nonce },
            Frame::Pong { nonce },
        ];
        let mut said: Vec<_> = frames.iter().map(control).collect();
        said.extend(self.nonsense_everywhere());
        said
    }

    /// Peers that do not exist, rumours that are none, and requests.
    fn flood(&mut self) -> Vec<(Channel, Bytes)> {
        let mut said = vec![control(&Frame::Peers { entries: self.invent() })];
        for nonce in 0..REQUESTS_AT_ONCE {
            said.push(control(&Frame::Ping { nonce }));
            said.push(control(&Frame::PeersWanted { have: Vec::new() }));
            said.push(protocol(&Message::RecordsWanted { from: Round(nonce) }));
            said.push(protocol(&Message::RegistryWanted));
        }
        said.extend(self.nonsense_everywhere());
        said
    }

    /// As many entries as a frame holds, each of them newer than the last time.
    fn invent(&mut self) -> Vec<PeerEntry> {
        let nowhere = Some(Address("10.255.255.1:1".to_owned()));
        let role = if self.random.permille(500) { Role::Server } else { Role::Aggregator };
        if self.invented.len() < 2 * ENTRIES_LEN_MAX {
            for _ in 0..ENTRIES_LEN_MAX {
                let nobody = Identity::from_secret(&NodeSecret::from_bytes(self.random.bytes()));
                let sequence = self.random.bits() >> 1;
                self.invented.push(PeerEntry::sign(&nobody, self.instance, role, nowhere.clone(), sequence));
            }
        }
        let first = self.invented.len() - ENTRIES_LEN_MAX;
        let first = self.random.index(first + 1);
        self.invented[first..first + ENTRIES_LEN_MAX].to_vec()
    }

    fn nonsense_everywhere(&mut self) -> Vec<(Channel, Bytes)> {
        let channels = [Channel::Protocol, Channel::Consensus, Channel::Bulk, Channel::Datagram];
        channels.map(|channel| (channel, self.nonsense())).to_vec()
    }

    fn nonsense(&mut self) -> Bytes {
        let mut bytes = vec![0; usize::try_from(self.random.below(NONSENSE_BYTES_MAX)).unwrap_or_default()];
        self.random.fill(&mut bytes);
        bytes.into()
    }

    /// What links is said as it is. Everything else is said in other forms, and what was heard besides.
    fn babble(&mut self, is_hello: bool, own: (Channel, Bytes)) -> Vec<(Channel, Bytes)> {
        if is_hello {
            return vec![own];
        }
        let mut said = Vec::new();
        if own.0 == Channel::Control {
            said.push(own);
        } else {
            said.push((own.0, self.mutated(&own.1)));
        }
        for _ in 0..self.random.range(1, BABBLE_AT_ONCE) {
            let Some((channel, message)) = self.random.pick(&self.heard).cloned() else { break };
            // What cannot be read ends the connection, so there is little of it.
            if channel != Channel::Control || self.random.permille(30) {
                said.push((channel, self.mutated(&message)));
            }
        }
        said.retain(|(channel, message)| !has_the_log(*channel, message));
        said
    }

    /// Another form of a message.
    fn mutated(&mut self, message: &Bytes) -> Bytes {
        let mut bytes = message.to_vec();
        match self.random.below(6) {
            0 | 1 if !bytes.is_empty() => {
                for _ in 0..self.random.range(1, 4) {
                    let place = self.random.index(bytes.len());
                    bytes[place] ^= 1 << self.random.below(8);
                }
            }
            2 if !bytes.is_empty() => bytes.truncate(self.random.index(message.len())),
            3 => bytes.extend_from_slice(&self.nonsense()),
            4 => return self.nonsense(),
            // As it is: said by somebody else, to somebody else, or again.
            _ => {}
        }
        bytes.into()
    }
}

/// Whether a message says that its sender has what the leader sent: who says so honestly gets a vote.
fn has_the_log(channel: Channel, message: &Bytes) -> bool {
    if !matches!(channel, Channel::Consensus | Channel::Bulk) {
        return false;
    }
    match codec::decode_frame(message) {
        Ok(codec::Frame::Reply(_, reply)) => match reply {
            Reply::Appended | Reply::AppendedUpTo(_) | Reply::SnapshotInstalled(_) => true,
            Reply::Conflict
            | Reply::HigherVote(_)
            | Reply::Voted { .. }
            | Reply::Transferring
            | Reply::VoteChanged(..)
            | Reply::LogBehind(..)
            | Reply::Failed => false,
        },
        Ok(codec::Frame::Request(..)) | Err(_) => false,
    }
}

/// A hello that names a log with records.
fn claiming(mut hello: Hello) -> Frame {
    hello.log = Some(LogId([0; 32]));
    hello.has_records = true;
    Frame::Hello(Box::new(hello))
}

/// A header of a round far ahead that its only server has signed.
fn live(mut header: Header, identity: &Identity) -> LiveHeader {
    let server = identity.peer();
    header.round = Round(header.round.0.saturating_add(FAR_AHEAD));
    header.servers = vec![RosterServer { peer: server, epoch: Epoch(1), round_key: PublicKey([9; 32]) }];
    let mut signature = HeaderSignature {
        log: header.log,
        round: header.round,
        header: header.digest(),
        server,
        refused: Bitmap::new(header.clients.count),
        signature: Signature::default(),
    };
    signature.signature = identity.sign(&signature.signed_digest());
    LiveHeader { header, signatures: vec![signature] }
}

/// The record of such a round.
fn ahead(mut record: Record, number: u64, identity: &Identity) -> Message {
    let server = identity.peer();
    record.round = Round(record.round.0.saturating_add(FAR_AHEAD).saturating_add(number));
    record.header = Digest([9; 32]);
    record.servers = vec![server];
    record.partials.truncate(1);
    let mut signature = RecordSignature {
        log: record.log,
        round: record.round,
        record: record.digest(),
        server,
        signature: Signature::default(),
    };
    signature.signature = identity.sign(&signature.signed_digest());
    Message::Record { record, signatures: vec![signature] }
}

fn control(frame: &Frame) -> (Channel, Bytes) {
    (Channel::Control, frame.encode().into())
}

fn protocol(message: &Message) -> (Channel, Bytes) {
    (Channel::Protocol, Bytes::from_owner(wire::encode(message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: PeerId = PeerId([7; 32]);

    fn stranger(secret: u8) -> Stranger {
        let mut stranger = Stranger::new(Hearsay::default());
        let identity = Identity::from_secret(&NodeSecret::from_bytes([secret; 32]));
        stranger.is_called(identity, &[secret; 32]);
        stranger
    }

    fn everything_said(secret: u8) -> Vec<(Channel, Bytes)> {
        let mut stranger = stranger(secret);
        let (channel, pong) = control(&Frame::Pong { nonce: 1 });
        let mut said = Vec::new();
        for deviation in [Deviation::RefuseEverybody, Deviation::Flood, Deviation::Babble] {
            for _ in 0..20 {
                stranger.hears(deviation, OTHER, channel, &pong);
                said.extend(stranger.says(deviation, OTHER, channel, &pong));
            }
        }
        said
    }

    #[test]
    fn what_a_stranger_says_follows_from_its_secret() {
        assert!(everything_said(1) == everything_said(1));
        assert!(everything_said(1) != everything_said(2));
    }

    #[test]
    fn whoever_babbles_never_says_that_it_has_the_log() {
        let mut stranger = stranger(1);
        let bytes = |reply| Bytes::from(codec::encode_frame(&codec::Frame::Reply(3, reply)));
        let (has, lacks) = (bytes(Reply::Appended), bytes(Reply::Conflict));
        assert!(has_the_log(Channel::Consensus, &has) && !has_the_log(Channel::Consensus, &lacks));
        let (mut all, mut unchanged) = (0, 0);
        for _ in 0..2_000 {
            stranger.hears(Deviation::Babble, OTHER, Channel::Consensus, &has);
            for message in [&has, &lacks] {
                for (channel, said) in stranger.says(Deviation::Babble, OTHER, Channel::Consensus, message) {
                    assert!(!has_the_log(channel, &said), "{said:?}");
                    all += 1;
                    unchanged += usize::from(said == lacks);
                }
            }
        }
        assert!(all > 4_000 && unchanged > 200, "{unchanged} of {all} are as they were");
    }
}
