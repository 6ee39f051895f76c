//! Small reports for the tests of the properties.

use std::sync::Arc;

use zipnet_core::bitmap::Bitmap;
use zipnet_core::checks::{Mixed, Mixture};
use zipnet_core::id::{Digest, GroupId, LogId, PeerId, RegistryVersion, Role, Round};
use zipnet_core::machine::Report;
use zipnet_core::message::{ClientSet, Header, Previous, Record};
use zipnet_core::params::RoundParams;
use zipnet_core::time::Time;
use zipnet_node::event::Event;

use super::{Property, Seen, Subject};
use crate::chain::NodeIndex;

const LOG: LogId = LogId([1; 32]);

/// Shows things to one property.
#[derive(Debug)]
pub(super) struct Judge<P>(P);

impl<P: Property> Judge<P> {
    pub(super) fn new(property: P) -> Self {
        Self(property)
    }

    pub(super) fn see(&mut self, name: &str, seen: Seen<'_>) -> Result<(), String> {
        let role = if name.starts_with("client") { Role::Client } else { Role::Server };
        let index = NodeIndex(name.bytes().map(u32::from).sum());
        let subject = Subject { index, name: name.to_owned(), peer: peer(name), role, liar: false };
        self.0.see(Time::default(), &subject, seen)
    }

    pub(super) fn event(&mut self, name: &str, event: &Event) -> Result<(), String> {
        self.see(name, Seen::Event(event))
    }

    /// A client's keyring makes an envelope under the header of nonce 1.
    pub(super) fn envelope(&mut self, name: &str, round: u64, payload: Option<&[u8]>) -> Result<(), String> {
        let header = header(round, 1);
        let (digest, what) = (header.digest(), Mixture::Envelope { payload });
        let mixed = Mixed { peer: peer(name), header: &header, digest, what, pads: &[], body: &[] };
        self.see(name, Seen::Mixed(&mixed))
    }

    pub(super) fn core(&mut self, name: &str, report: Report) -> Result<(), String> {
        self.event(name, &Event::Core(report))
    }
}

/// The peer that a name stands for.
pub(super) fn peer(name: &str) -> PeerId {
    PeerId(*zipnet_core::id::UniqueId::from_text(name).as_bytes())
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

pub(super) fn opened(round: u64, nonce: u8) -> Report {
    let header = header(round, nonce);
    let digest = header.digest();
    Report::RoundOpened { index: round, header: Arc::new(header), digest }
}

/// An envelope under the header of nonce 1.
pub(super) fn sealed(round: u64, vector: u8) -> Report {
    Report::Sealed {
        log: LOG,
        round: Round(round),
        header: header_digest(round, 1),
        envelope: Digest([vector; 32]),
        servers: Vec::new(),
        request: None,
    }
}

/// A partial under the header of nonce 1.
pub(super) fn made(round: u64, aggregate: u8, participants: u32, floor: u32) -> Report {
    Report::PartialMade {
        log: LOG,
        round: Round(round),
        header: header_digest(round, 1),
        aggregate: Digest([aggregate; 32]),
        participants,
        floor,
    }
}

/// A partial in the log.
pub(super) fn partial(round: u64, header: Digest, aggregate: u8) -> Report {
    let (round, aggregate) = (Round(round), Digest([aggregate; 32]));
    Report::PartialApplied { index: 1, round, header, aggregate, server: peer("server-1") }
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
    pub(super) fn finalized(&self) -> Report {
        let (record, digest) = (Arc::new(self.0.clone()), self.0.digest());
        let (signed, partials) = (record.servers.clone(), record.servers.clone());
        Report::RoundFinalized { index: 1, record, digest, signed, partials, rostered: true }
    }

    pub(super) fn seen(&self) -> Report {
        let (record, digest) = (Arc::new(self.0.clone()), self.0.digest());
        Report::RecordSeen { record, digest, confirmed: true }
    }
}
