//! Small facts for the tests of the properties.

use zipnet_core::bitmap::Bitmap;
use zipnet_core::checks::{Mixed, Mixture};
use zipnet_core::id::{Digest, GroupId, LogId, PeerId, RegistryVersion, Role, Round};
use zipnet_core::message::{ClientSet, Header, Previous, Record};
use zipnet_core::params::RoundParams;
use zipnet_core::time::Time;
use zipnet_facts::{Fact, RoundEnd};

use super::{Property, Seen, Start, Subject};

const LOG: LogId = LogId([1; 32]);

/// Shows things to one property.
#[derive(Debug)]
pub(super) struct Judge<P>(P);

impl<P: Property> Judge<P> {
    pub(super) fn new(property: P) -> Self {
        Self(property)
    }

    pub(super) fn see(&mut self, name: &str, seen: Seen<'_>) -> Result<(), String> {
        self.0.see(Time::default(), &subject(name), seen)
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests make facts where they tell them")]
    pub(super) fn fact(&mut self, name: &str, fact: Fact) -> Result<(), String> {
        self.see(name, Seen::Fact(&fact))
    }

    /// The same, by a node that deviates on purpose.
    #[expect(clippy::needless_pass_by_value, reason = "tests make facts where they tell them")]
    pub(super) fn lie(&mut self, name: &str, fact: Fact) -> Result<(), String> {
        self.0.see(Time::default(), &Subject { liar: true, ..subject(name) }, Seen::Fact(&fact))
    }

    /// A client's keyring makes an envelope under the header of nonce 1.
    pub(super) fn envelope(&mut self, name: &str, round: u64, payload: Option<&[u8]>) -> Result<(), String> {
        self.mixed(name, round, payload, &[])
    }

    /// The same, of this content.
    pub(super) fn vector(&mut self, name: &str, round: u64, content: u8) -> Result<(), String> {
        self.mixed(name, round, None, &[content])
    }

    fn mixed(&mut self, name: &str, round: u64, payload: Option<&[u8]>, body: &[u8]) -> Result<(), String> {
        let header = header(round, 1);
        let (digest, what) = (header.digest(), Mixture::Envelope { payload });
        let mixed = Mixed { peer: peer(name), header: &header, digest, what, pads: &[], body };
        self.see(name, Seen::Mixed(&mixed))
    }

    pub(super) fn cannot_tell(&self) -> Option<&'static str> {
        self.0.cannot_tell()
    }
}

/// An honest node of this name.
pub(super) fn subject(name: &str) -> Subject {
    let role = if name.starts_with("client") { Role::Client } else { Role::Server };
    let node = name.bytes().map(usize::from).sum();
    Subject { node, name: name.to_owned(), peer: peer(name), role, liar: false }
}

/// The peer that a name stands for.
pub(super) fn peer(name: &str) -> PeerId {
    PeerId(*zipnet_core::id::UniqueId::from_text(name).as_bytes())
}

/// A process begins.
pub(super) const fn started() -> Seen<'static> {
    started_in(1)
}

/// A process of this group begins.
pub(super) const fn started_in(group: u8) -> Seen<'static> {
    Seen::Started(Start { group: Some(GroupId([group; 32])) })
}

/// A header of a round; `nonce` makes it unique.
fn header(round: u64, nonce: u8) -> Header {
    Header {
        log: LOG,
        round: Round(round),
        nonce: [nonce; 32],
        group: GroupId([2; 32]),
        params: RoundParams::DEFAULT,
        previous: Previous::default(),
        servers: Vec::new(),
        clients: ClientSet { version: RegistryVersion(1), count: 2, root: Digest::default() },
        min_participants: 1,
        aggregator: peer("aggregator"),
    }
}

pub(super) fn header_digest(round: u64, nonce: u8) -> Digest {
    header(round, nonce).digest()
}

/// It is of the time before the process took part.
pub(super) fn again(fact: Fact) -> Fact {
    Fact::ReadAgain { again: Box::new(fact) }
}

pub(super) const fn lines_lost() -> Fact {
    Fact::LinesLost { count: 1 }
}

pub(super) const fn log_started(log: u8) -> Fact {
    Fact::LogStarted { log: LogId([log; 32]) }
}

/// With a roster of two servers.
pub(super) fn opened(round: u64, nonce: u8) -> Fact {
    Fact::RoundOpened {
        log: LOG,
        round: Round(round),
        index: round,
        header: header_digest(round, nonce),
        servers: vec![peer("server-1"), peer("server-2")],
        clients: 2,
        min_participants: 1,
        aggregator: peer("aggregator"),
    }
}

/// An envelope under the header of nonce 1.
pub(super) fn sealed(round: u64) -> Fact {
    Fact::Sealed { log: LOG, round: Round(round), header: header_digest(round, 1), servers: Vec::new() }
}

/// A partial under the header of nonce 1.
pub(super) fn made(round: u64, aggregate: u8, participants: u32, floor: u32) -> Fact {
    Fact::PartialMade {
        log: LOG,
        round: Round(round),
        header: header_digest(round, 1),
        aggregate: Digest([aggregate; 32]),
        participants,
        floor,
    }
}

/// A partial in the log.
pub(super) fn partial(round: u64, header: Digest, aggregate: u8) -> Fact {
    partial_of(round, header, aggregate, "server-1")
}

/// A partial of this server in the log.
pub(super) fn partial_of(round: u64, header: Digest, aggregate: u8, server: &str) -> Fact {
    let (round, aggregate) = (Round(round), Digest([aggregate; 32]));
    Fact::PartialApplied { index: 1, round, header, aggregate, server: peer(server) }
}

/// A record with two servers and an empty broadcast.
#[derive(Clone, Debug)]
pub(super) struct RecordSample(pub(super) Record);

pub(super) fn record(round: u64, previous: Digest) -> RecordSample {
    RecordSample(Record {
        log: LOG,
        round: Round(round),
        header: header_digest(round, 1),
        participants: Bitmap::new(2),
        servers: vec![peer("server-1"), peer("server-2")],
        broadcast: vec![0; RoundParams::DEFAULT.vector_bytes()],
        previous,
        aggregate: Digest([1; 32]),
        partials: vec![Digest([2; 32]); 2],
        index: round,
        chain: Digest([3; 32]),
    })
}

impl RecordSample {
    pub(super) fn end(&self) -> RoundEnd {
        let record = &self.0;
        RoundEnd {
            log: record.log,
            round: record.round,
            index: record.index,
            term: Some(1),
            header: record.header,
            record: record.digest(),
            previous: record.previous,
            participants: record.participants.count_ones(),
            servers: record.servers.clone(),
            signed: record.servers.clone(),
            partials: record.servers.clone(),
        }
    }

    pub(super) fn finalized(&self) -> Fact {
        Fact::RoundFinalized { end: self.end() }
    }

    pub(super) fn applied(&self) -> Fact {
        Fact::RoundApplied { end: self.end() }
    }

    pub(super) fn seen(&self) -> Fact {
        Fact::RecordSeen {
            log: self.0.log,
            round: self.0.round,
            record: self.0.digest(),
            participants: self.0.participants.count_ones(),
            confirmed: true,
        }
    }

    pub(super) const fn whole(&self) -> Seen<'_> {
        Seen::Record(&self.0)
    }
}
