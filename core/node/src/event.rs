//! What happens in a node, for whoever observes it. [`Event::fact`] is what may be told of it.

use std::collections::BTreeSet;

use zipnet_core::evidence::Contradiction;
use zipnet_core::id::{LogId, PeerId, RaftId, Role, StoreId};
use zipnet_core::machine::Report;
use zipnet_core::refused::Refused;
use zipnet_facts::{Fact, Line, RoundEnd, Stall};

use crate::consensus;
use crate::frame::{Farewell, Refusal};
use crate::meeting::Change;
use crate::status::Cause;
use crate::world::{Address, World};

/// Something that happened inside a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// The process has read its configuration and starts the node.
    Spawning {
        /// As what.
        role: Role,
        /// Who.
        peer: PeerId,
    },
    /// The node listens.
    Up {
        /// The universe, as the operator wrote it.
        network: String,
        /// The instance's name.
        instance: String,
        /// Who.
        peer: PeerId,
        /// Where others dial it; none of a client, which nobody dials.
        address: Option<Address>,
        /// As what.
        role: Role,
    },
    /// The node waits for the others.
    Booting {
        /// As what.
        role: Role,
    },
    /// This server's disk was read: where its log and its promises stand.
    Opened {
        /// Which disk.
        store: StoreId,
        /// The last entry of the log.
        last_log: Option<u64>,
        /// The highest term in which it voted or followed.
        term: u64,
    },
    /// The state of an earlier process was read back; what it holds is not reported again.
    Restored {
        /// The last applied position.
        index: u64,
        /// Clients in the registry.
        clients: u32,
        /// Registered, undeparted servers.
        servers: Vec<PeerId>,
    },
    /// What the replicated state holds of this server has changed, by an entry of the log or by a snapshot.
    Holds(Holds),
    /// A role machine reports.
    Core(Report),
    /// A round is finished: what the report before says, with the term of the entry that finished it.
    Finished {
        /// The report; always [`Report::RoundFinalized`].
        report: Report,
        /// The term.
        term: u64,
    },
    /// The log says this of the time before this process took part. It is no news: nothing is counted by it.
    Past(Report),
    /// Consensus reports.
    Consensus(consensus::Event),
    /// This server leads, and its header of a new round stands in the log.
    OpeningRound {
        /// Position in the log.
        index: u64,
    },
    /// This server's partial stands in the log.
    PartialSubmitted {
        /// Position in the log.
        index: u64,
    },
    /// A connection is up and both hellos were accepted.
    Linked {
        /// With whom.
        peer: PeerId,
        /// What it is.
        role: Role,
    },
    /// The last connection with a peer is gone.
    Unlinked {
        /// With whom.
        peer: PeerId,
        /// What it is.
        role: Role,
        /// What it said before, if it said goodbye.
        farewell: Option<Farewell>,
    },
    /// This node does not talk to a peer.
    PeerRefused {
        /// Whom.
        peer: PeerId,
        /// Why.
        reason: Refusal,
    },
    /// What a peer sent was refused before it reached a role machine; nothing changed.
    Rejected {
        /// What it was.
        kind: &'static str,
        /// The stable name of the reason.
        reason: &'static str,
        /// From whom it came.
        peer: PeerId,
    },
    /// A peer does not talk to this node.
    RefusedByPeer {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: Refusal,
    },
    /// A second node with a linked peer's identity appeared; the older connection must answer to keep it.
    Challenged {
        /// Whose identity.
        peer: PeerId,
    },
    /// Nobody answered where a peer was expected.
    DialFailed {
        /// Whom, if that is known.
        peer: Option<PeerId>,
        /// Where. Only servers and the aggregator are ever dialled.
        address: Address,
    },
    /// Gossip believes that a peer lives.
    GossipAlive {
        /// Who.
        peer: PeerId,
    },
    /// Gossip believes that a peer is dead or has left.
    GossipDead {
        /// Who.
        peer: PeerId,
    },
    /// This leader asks for a change of the Raft membership.
    MembershipChange(Change),
    /// No round was finalised for longer than a round may take, or the causes of that have changed.
    Stalled {
        /// Why, as far as this node knows.
        causes: Vec<Cause>,
    },
    /// Rounds were stalled, and are no more.
    GoesOn,
    /// This server founds a log with the servers that had a vote in the one that was set aside.
    Founding {
        /// Its voters.
        voters: Vec<PeerId>,
    },
    /// This server found another log of its committee and gives up its own, which has no records.
    LogYielded {
        /// What it gave up.
        own: LogId,
        /// What it joins.
        other: LogId,
        /// Its new disk.
        store: StoreId,
    },
    /// An orderly stop was asked for.
    Departing,
    /// The node ends.
    Exiting {
        /// Of the process.
        code: u8,
        /// Why, as a sentence.
        reason: String,
    },
    /// Something that works but that an operator should know.
    Warned(String),
    /// An invariant broke or the disk failed; the node stops on purpose.
    Fatal(String),
}

/// What gauges show of the replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Registered, undeparted servers.
    pub servers: u32,
    /// Clients in the registry.
    pub clients: u32,
    /// The servers of the last opened round, as far as the state tells.
    pub roster: Vec<PeerId>,
}

/// Observes what happens in a node, beside the world that it lives in.
pub trait Observer: World {
    /// Something worth telling happened; called in the order in which it happened. Must not block.
    fn observe(&self, event: Event);
}

impl Event {
    /// The line that operators see, if there is one.
    #[must_use]
    pub fn line(&self) -> Option<Line> {
        self.fact().map(|fact| fact.line())
    }

    /// What may be told of it; `None` for what only metrics and checks are interested in.
    #[must_use]
    pub fn fact(&self) -> Option<Fact> {
        Some(match self {
            Self::Spawning { role, peer } => Fact::Spawning { role: *role, peer: *peer },
            Self::Up { network, instance, peer, address, role } => Fact::Up {
                network: network.clone(),
                instance: instance.clone(),
                peer: *peer,
                address: address.as_ref().map(|address| address.0.clone()),
                role: *role,
            },
            Self::Booting { role } => Fact::Booting { role: *role },
            Self::Opened { store, last_log, term } => {
                Fact::Opened { store: *store, last_log: *last_log, term: *term }
            }
            Self::Restored { index, clients, servers } => {
                Fact::Restored { index: *index, servers: servers.clone(), clients: *clients }
            }
            // Told with its term.
            Self::Core(Report::RoundFinalized { .. }) => return None,
            Self::Core(report) => report_fact(report, None),
            Self::Finished { report, term } => report_fact(report, Some(*term)),
            Self::Past(report) => Fact::ReadAgain { again: Box::new(report_fact(report, None)) },
            Self::Consensus(event) => return consensus_fact(event),
            Self::OpeningRound { index } => Fact::OpeningRound { index: *index },
            Self::PartialSubmitted { index } => Fact::PartialSubmitted { index: *index },
            Self::Linked { peer, role } => Fact::Linked { peer: *peer, role: *role },
            Self::Unlinked { peer, role, farewell } => {
                Fact::Unlinked { peer: *peer, role: *role, reason: *farewell }
            }
            Self::PeerRefused { peer, reason } => Fact::PeerRefused { peer: *peer, reason: *reason },
            Self::Rejected { kind, reason, peer } => {
                Fact::Rejected { kind: (*kind).into(), reason: (*reason).into(), from: *peer }
            }
            Self::RefusedByPeer { peer, reason } => Fact::RefusedByPeer { peer: *peer, reason: *reason },
            Self::Challenged { peer } => Fact::Challenged { peer: *peer },
            Self::DialFailed { peer, address } => {
                Fact::DialFailed { peer: *peer, address: address.0.clone() }
            }
            Self::GossipAlive { peer } => Fact::GossipAlive { peer: *peer },
            Self::GossipDead { peer } => Fact::GossipDead { peer: *peer },
            Self::MembershipChange(change) => Fact::MembershipChange { change: *change },
            Self::Stalled { causes } => {
                let stall = |cause: &Cause| Stall { cause: cause.name().into(), text: cause.to_string() };
                Fact::Stalled { causes: causes.iter().map(stall).collect() }
            }
            Self::GoesOn => Fact::GoesOn,
            Self::Founding { voters } => Fact::Founding { voters: voters.clone() },
            Self::LogYielded { own, other, store } => {
                Fact::LogYielded { own: *own, other: *other, store: *store }
            }
            Self::Departing => Fact::Departing,
            Self::Exiting { code, reason } => Fact::Exiting { code: *code, reason: reason.clone() },
            Self::Warned(text) => Fact::Warning { text: text.clone() },
            Self::Fatal(text) => Fact::Fatal { text: text.clone() },
            Self::Holds(_) => return None,
        })
    }
}

/// What may be told of a report. The term is that of the entry behind it, where that is known.
fn report_fact(report: &Report, term: Option<u64>) -> Fact {
    match report {
        Report::LogStarted { log } => Fact::LogStarted { log: *log },
        Report::RoundOpened { index, header, digest } => Fact::RoundOpened {
            log: header.log,
            round: header.round,
            index: *index,
            header: *digest,
            servers: header.servers.iter().map(|server| server.peer).collect(),
            clients: header.clients.count,
            min_participants: header.min_participants,
            aggregator: header.aggregator,
        },
        Report::HeaderLive { round, header, refused } => {
            Fact::RoundLive { round: *round, header: *header, refused: refused.count_ones() }
        }
        Report::AggregateApplied { index, round, header, aggregate, participants } => {
            Fact::AggregateApplied {
                round: *round,
                index: *index,
                header: *header,
                aggregate: *aggregate,
                participants: participants.count_ones(),
            }
        }
        Report::PartialApplied { index, round, header, aggregate, server } => Fact::PartialApplied {
            round: *round,
            index: *index,
            header: *header,
            aggregate: *aggregate,
            server: *server,
        },
        Report::RoundFinalized { index, record, digest, signed, partials, rostered } => {
            let end = RoundEnd {
                log: record.log,
                round: record.round,
                index: *index,
                term,
                header: record.header,
                record: *digest,
                previous: record.previous,
                participants: record.participants.count_ones(),
                servers: record.servers.clone(),
                signed: signed.clone(),
                partials: partials.clone(),
            };
            if *rostered { Fact::RoundFinalized { end } } else { Fact::RoundApplied { end } }
        }
        Report::RoundAbandoned { index, round, header, reason, missing } => Fact::RoundAbandoned {
            round: *round,
            index: *index,
            header: *header,
            reason: *reason,
            missing: missing.clone(),
        },
        Report::RecordConfirmed { round, record } => Fact::RecordConfirmed { round: *round, record: *record },
        Report::ServerRegistered { server, epoch } => {
            Fact::ServerRegistered { server: *server, epoch: *epoch }
        }
        Report::ServerDeparted { server } => Fact::ServerDeparted { server: *server },
        Report::ServerLeaving { server } => Fact::ServerLeaving { server: *server },
        Report::ServerRetired { server, forced } => Fact::ServerRetired { server: *server, forced: *forced },
        Report::AggregatorRegistered { aggregator } => Fact::AggregatorRegistered { aggregator: *aggregator },
        Report::ClientsChanged { version, count } => {
            Fact::ClientsChanged { version: *version, clients: *count }
        }
        Report::ClientRefused { server, client } => Fact::ClientRefused { client: *client, server: *server },
        Report::RefusalWithdrawn { server, client } => {
            Fact::RefusalWithdrawn { client: *client, server: *server }
        }
        Report::Refused { kind: "bundle", reason: Refused::Barred, from: Some(from) } => {
            Fact::ClientBarred { from: *from }
        }
        Report::Refused { kind, reason, from } => {
            Fact::Refused { kind: (*kind).into(), reason: *reason, from: *from }
        }
        Report::HeaderSigned { round, header } => Fact::HeaderSigned { round: *round, header: *header },
        Report::HeaderDeclined { round, header, reason } => {
            Fact::HeaderDeclined { round: *round, header: *header, reason: *reason }
        }
        Report::PartialMade { log, round, header, aggregate, participants, floor } => Fact::PartialMade {
            log: *log,
            round: *round,
            header: *header,
            aggregate: *aggregate,
            participants: *participants,
            floor: *floor,
        },
        Report::Disclaimed { round, header } => Fact::Disclaimed { round: *round, header: *header },
        Report::AggregateForwarded { round, participants } => {
            Fact::AggregateForwarded { round: *round, participants: *participants }
        }
        Report::TurnoutLow { floor, turnout } => Fact::TurnoutLow {
            round: turnout.round,
            header: turnout.header,
            envelopes: turnout.envelopes,
            floor: *floor,
            absent: turnout.absent,
            declined: turnout.declined.iter().copied().collect(),
        },
        Report::ClientSeen { client } => Fact::ClientSeen { client: *client },
        Report::ServersBelieved { servers } => Fact::ServersBelieved { servers: servers.clone() },
        Report::Enrolled { version } => Fact::Enrolled { version: *version },
        Report::Sealed { log, round, header, servers, envelope: _, request: _ } => {
            Fact::Sealed { log: *log, round: *round, header: *header, servers: servers.clone() }
        }
        Report::HeaderUntrusted { round, reason } => Fact::HeaderUntrusted { round: *round, reason: *reason },
        Report::Published { request, outcome, round } => {
            Fact::Published { request: *request, outcome: *outcome, round: *round }
        }
        Report::RecordSeen { record, digest, confirmed } => Fact::RecordSeen {
            log: record.log,
            round: record.round,
            record: *digest,
            participants: record.participants.count_ones(),
            confirmed: *confirmed,
        },
        Report::RecordsMissing { log, from, oldest } => {
            Fact::RecordsMissing { log: *log, from: *from, oldest: *oldest }
        }
        Report::RecordContradicted { log, round, seen, other, servers, evidence } => {
            Fact::RecordContradicted {
                log: *log,
                round: *round,
                seen: *seen,
                other: *other,
                servers: servers.clone(),
                both: evidence.iter().map(Contradiction::server).collect(),
            }
        }
    }
}

fn consensus_fact(event: &consensus::Event) -> Option<Fact> {
    Some(match event {
        consensus::Event::Leader { term, leader, me } => Fact::Leader {
            leader: leader.map(|leader| leader.peer),
            store: leader.map(|leader| leader.store),
            term: *term,
            local: *me,
        },
        consensus::Event::MembersChanged { index, members } => {
            let peers = |ids: &BTreeSet<RaftId>| ids.iter().map(|id| id.peer).collect();
            Fact::MembersChanged {
                index: *index,
                voters: peers(&members.voters),
                stores: members.voters.iter().map(|id| id.store).collect(),
                learners: peers(&members.learners),
                joint: members.joint,
            }
        }
        consensus::Event::VoteSynced { term, candidate } => {
            Fact::VoteSynced { term: *term, candidate: candidate.peer, store: candidate.store }
        }
        consensus::Event::Appended { last_index, term } => Fact::Appended { index: *last_index, term: *term },
        consensus::Event::Applied { index, term, digest } => {
            Fact::EntryApplied { index: *index, term: *term, digest: *digest }
        }
        consensus::Event::Truncated { after } => Fact::Truncated { after: *after },
        consensus::Event::SnapshotTaken { index } => Fact::SnapshotTaken { index: *index },
        consensus::Event::SnapshotInstalled { index } => Fact::SnapshotInstalled { index: *index },
        consensus::Event::Failed { reason, .. } => Fact::ConsensusFailed { reason: reason.clone() },
        // Told by what they lead to.
        consensus::Event::Voted { .. } | consensus::Event::Refused { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use zipnet_core::bitmap::Bitmap;
    use zipnet_core::id::{Digest, Epoch, GroupId, RaftId, RegistryVersion, Round};
    use zipnet_core::key::PublicKey;
    use zipnet_core::machine::{Abandonment, Outcome, RequestId};
    use zipnet_core::message::{ClientSet, Header, Previous, Record, RosterServer, Turnout};
    use zipnet_core::params::RoundParams;
    use zipnet_core::refused::Refused;
    use zipnet_facts::{Account, Level};

    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn header() -> Arc<Header> {
        let server =
            |number| RosterServer { peer: peer(number), epoch: Epoch(1), round_key: PublicKey([0xee; 32]) };
        Arc::new(Header {
            log: LogId([1; 32]),
            round: Round(7),
            nonce: [0xdd; 32],
            group: GroupId([2; 32]),
            params: RoundParams::DEFAULT,
            previous: Previous { round: Round(6), record: Digest([3; 32]), state: Digest([4; 32]) },
            servers: (1..=3).map(server).collect(),
            clients: ClientSet { version: RegistryVersion(5), count: 4, root: Digest([5; 32]) },
            min_participants: 2,
            aggregator: peer(9),
        })
    }

    fn record() -> Arc<Record> {
        Arc::new(Record {
            log: LogId([1; 32]),
            round: Round(7),
            header: Digest([6; 32]),
            participants: participants(),
            servers: (1..=3).map(peer).collect(),
            broadcast: vec![0xbb; 32],
            previous: Digest::default(),
            aggregate: Digest([7; 32]),
            partials: vec![Digest([8; 32]); 3],
            index: 70,
            chain: Digest([9; 32]),
        })
    }

    fn participants() -> Bitmap {
        Bitmap::from_ones(4, [0, 2, 3]).expect("within the length")
    }

    fn reports() -> Vec<Report> {
        let (round, header_digest, log) = (Round(7), Digest([6; 32]), LogId([1; 32]));
        vec![
            Report::LogStarted { log },
            Report::RoundOpened { index: 40, header: header(), digest: header_digest },
            Report::HeaderLive { round, header: header_digest, refused: Bitmap::new(4) },
            Report::AggregateApplied {
                index: 41,
                round,
                header: header_digest,
                aggregate: Digest([8; 32]),
                participants: participants(),
            },
            Report::PartialApplied {
                index: 42,
                round,
                header: header_digest,
                aggregate: Digest([8; 32]),
                server: peer(2),
            },
            Report::RoundFinalized {
                index: 43,
                record: record(),
                digest: Digest([9; 32]),
                signed: vec![peer(1)],
                partials: vec![peer(1)],
                rostered: true,
            },
            Report::RoundFinalized {
                index: 43,
                record: record(),
                digest: Digest([9; 32]),
                signed: vec![peer(1)],
                partials: vec![peer(1)],
                rostered: false,
            },
            Report::RoundAbandoned {
                index: 44,
                round,
                header: header_digest,
                reason: Abandonment::MissingPartial,
                missing: vec![peer(2), peer(3)],
            },
            Report::RoundAbandoned {
                index: 45,
                round,
                header: header_digest,
                reason: Abandonment::NoAggregate,
                missing: vec![],
            },
            Report::RecordConfirmed { round, record: Digest([9; 32]) },
            Report::ServerRegistered { server: peer(2), epoch: Epoch(3) },
            Report::ServerDeparted { server: peer(2) },
            Report::ServerLeaving { server: peer(2) },
            Report::ServerRetired { server: peer(2), forced: true },
            Report::AggregatorRegistered { aggregator: peer(9) },
            Report::ClientsChanged { version: RegistryVersion(5), count: 4 },
            Report::ClientRefused { server: peer(2), client: peer(0xc1) },
            Report::RefusalWithdrawn { server: peer(2), client: peer(0xc1) },
            Report::Refused { kind: "bundle", reason: Refused::Barred, from: Some(peer(9)) },
            Report::Refused { kind: "partial", reason: Refused::WrongRound, from: Some(peer(3)) },
            Report::Refused { kind: "open-round", reason: Refused::BelowFloor, from: None },
            Report::HeaderSigned { round, header: header_digest },
            Report::HeaderDeclined { round, header: header_digest, reason: Refused::WrongPrevious },
            Report::PartialMade {
                log,
                round,
                header: header_digest,
                aggregate: Digest([8; 32]),
                participants: 3,
                floor: 2,
            },
            Report::Disclaimed { round, header: header_digest },
            Report::AggregateForwarded { round, participants: 3 },
            Report::TurnoutLow {
                floor: 2,
                turnout: Turnout {
                    round,
                    header: header_digest,
                    envelopes: 1,
                    absent: 2,
                    declined: vec![(Refused::RosterTooSmall, 3), (Refused::PinMissing, 1)],
                },
            },
            Report::ClientSeen { client: peer(0xc1) },
            Report::ServersBelieved { servers: vec![peer(1), peer(2)] },
            Report::Enrolled { version: RegistryVersion(5) },
            Report::Sealed {
                log,
                round,
                header: header_digest,
                envelope: Digest([0xaa; 32]),
                servers: vec![peer(1)],
                request: Some(RequestId(1)),
            },
            Report::HeaderUntrusted { round, reason: Refused::PinMissing },
            Report::HeaderUntrusted { round, reason: Refused::RefusedClient },
            Report::Published { request: RequestId(1), outcome: Outcome::Landed, round },
            Report::Published { request: RequestId(2), outcome: Outcome::Unknown, round },
            Report::RecordSeen { record: record(), digest: Digest([9; 32]), confirmed: true },
            Report::RecordsMissing { log, from: round, oldest: Round(9) },
            Report::RecordContradicted {
                log,
                round,
                seen: Digest([9; 32]),
                other: Digest([8; 32]),
                servers: vec![peer(1), peer(2)],
                evidence: vec![],
            },
        ]
    }

    fn every_event() -> Vec<Event> {
        let raft = |number, store| RaftId { peer: peer(number), store: StoreId(store) };
        let address = || Address("10.0.0.7:4000".to_owned());
        let mut events = vec![
            Event::Spawning { role: Role::Server, peer: peer(1) },
            Event::Spawning { role: Role::Aggregator, peer: peer(9) },
            Event::Spawning { role: Role::Client, peer: peer(0xc1) },
            Event::Up {
                network: "mosaik.universe".to_owned(),
                instance: "acme.mainnet".to_owned(),
                peer: peer(1),
                address: Some(address()),
                role: Role::Server,
            },
            Event::Up {
                network: "mosaik.universe".to_owned(),
                instance: "acme.mainnet".to_owned(),
                peer: peer(0xc1),
                address: None,
                role: Role::Client,
            },
            Event::Booting { role: Role::Server },
            Event::Booting { role: Role::Aggregator },
            Event::Booting { role: Role::Client },
            Event::Opened { store: StoreId(10), last_log: Some(39), term: 2 },
            Event::Opened { store: StoreId(10), last_log: None, term: 0 },
            Event::Restored { index: 39, clients: 4, servers: vec![peer(1), peer(2)] },
            Event::OpeningRound { index: 40 },
            Event::PartialSubmitted { index: 42 },
            Event::Linked { peer: peer(2), role: Role::Server },
            Event::Linked { peer: peer(0xc1), role: Role::Client },
            Event::Unlinked { peer: peer(2), role: Role::Server, farewell: Some(Farewell::Departing) },
            Event::Unlinked { peer: peer(9), role: Role::Aggregator, farewell: None },
            Event::PeerRefused { peer: peer(4), reason: Refusal::GroupProof },
            Event::Rejected { kind: "consensus", reason: "impersonation", peer: peer(4) },
            Event::RefusedByPeer { peer: peer(4), reason: Refusal::Parameters },
            Event::Challenged { peer: peer(2) },
            Event::DialFailed { peer: Some(peer(2)), address: address() },
            Event::DialFailed { peer: None, address: address() },
            Event::GossipAlive { peer: peer(2) },
            Event::GossipDead { peer: peer(2) },
            Event::Stalled {
                causes: vec![
                    Cause::TooFewClients { clients: 1, floor: 2 },
                    Cause::Unsigned { round: Round(7), missing: vec![(peer(3), false)] },
                ],
            },
            Event::GoesOn,
            Event::MembershipChange(Change::AddLearner(raft(4, 10))),
            Event::MembershipChange(Change::Promote(raft(4, 10))),
            Event::MembershipChange(Change::ReplaceStore { old: raft(4, 10), new: raft(4, 11) }),
            Event::MembershipChange(Change::RemoveVoter(raft(4, 11))),
            Event::MembershipChange(Change::RemoveLearner(raft(4, 10))),
            Event::Founding { voters: vec![peer(1), peer(2), peer(3)] },
            Event::LogYielded { own: LogId([2; 32]), other: LogId([1; 32]), store: StoreId(12) },
            Event::Departing,
            Event::Exiting { code: 0, reason: "stopped".to_owned() },
            Event::Exiting { code: 77, reason: Refusal::GroupProof.to_string() },
            Event::Warned("something works, but".to_owned()),
            Event::Fatal("the disk failed".to_owned()),
        ];
        let members = consensus::Members { voters: BTreeSet::from([raft(1, 1)]), ..Default::default() };
        events.extend(
            [
                consensus::Event::Leader { term: 3, leader: Some(raft(1, 1)), me: true },
                consensus::Event::Leader { term: 4, leader: None, me: false },
                consensus::Event::Voted { term: 3, candidate: raft(1, 1) },
                consensus::Event::VoteSynced { term: 3, candidate: raft(1, 1) },
                consensus::Event::Appended { last_index: 9, term: 3 },
                consensus::Event::Truncated { after: Some(8) },
                consensus::Event::Truncated { after: None },
                consensus::Event::Applied { index: 9, term: 3, digest: Digest::default() },
                consensus::Event::MembersChanged { index: 10, members },
                consensus::Event::SnapshotTaken { index: 10 },
                consensus::Event::SnapshotInstalled { index: 10 },
                consensus::Event::Refused { from: raft(4, 1), refusal: consensus::Refusal::Contradiction },
                consensus::Event::Failed {
                    fault: consensus::Fault::Disk,
                    reason: "the disk failed".to_owned(),
                },
            ]
            .map(Event::Consensus),
        );
        events.extend(reports().into_iter().map(|report| match report {
            Report::RoundFinalized { .. } => Event::Finished { report, term: 3 },
            report => Event::Core(report),
        }));
        events.extend(reports().into_iter().take(1).map(Event::Past));
        events.push(Event::Holds(Holds::default()));
        events
    }

    #[test]
    fn a_fact_is_read_as_it_was_written() {
        for fact in every_event().iter().filter_map(Event::fact) {
            let account = Account { seq: 7, node: Some(peer(1)), fact };
            let text = serde_json::to_string(&account).expect("it is data");
            assert_eq!(serde_json::from_str::<Account>(&text).expect(&text), account, "{text}");
            let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
            assert_eq!(json["event"], account.fact.name(), "{text}");
        }
    }

    #[test]
    fn the_schema_of_lines_has_the_fields_of_each() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../docs/lines.schema.json")).expect("it is JSON");
        let facts = schema["$defs"]["fact"]["oneOf"].as_array().expect("a list");
        let of = |name: &str| facts.iter().find(|fact| fact["properties"]["event"]["const"] == name);
        for fact in every_event().iter().filter_map(Event::fact) {
            let json = serde_json::to_value(&fact).expect("it is data");
            let told: BTreeSet<_> = json.as_object().expect("an object").keys().collect();
            let fields = &of(fact.name()).expect("each fact has an entry")["properties"];
            let known: BTreeSet<_> = fields.as_object().expect("an object").keys().collect();
            assert_eq!(told, known, "{}", fact.name());
        }
    }

    #[test]
    fn a_finished_round_tells_its_fields() {
        let finished = reports().into_iter().find(|report| matches!(report, Report::RoundFinalized { .. }));
        let event = Event::Finished { report: finished.expect("there is one"), term: 3 };
        let json = serde_json::to_value(event.fact().expect("it is told")).expect("it is data");
        let log = LogId([1; 32]).to_string();
        for (field, value) in [
            ("event", serde_json::json!("round-finalized")),
            ("round", serde_json::json!(7)),
            ("participants", serde_json::json!(3)),
            ("log", serde_json::json!(log)),
            ("term", serde_json::json!(3)),
        ] {
            assert_eq!(json[field], value, "{json}");
        }
    }

    fn printed(event: &Event) -> Option<String> {
        let line = event.line()?;
        Some(format!("{} {}: {} [{}]\n", line.level.name(), line.target, line.text, line.name))
    }

    #[test]
    fn lines_are_an_interface() {
        let lines: String = every_event().iter().filter_map(printed).collect();
        let expected = include_str!("event/lines.txt");
        assert_eq!(lines, expected);
    }

    #[test]
    fn no_line_tells_a_key_or_an_envelope() {
        for event in every_event() {
            let json = event.fact().map(|fact| serde_json::to_string(&fact).expect("it is data"));
            let line = printed(&event).unwrap_or_default() + &json.unwrap_or_default();
            for secret in ["eeeeee", "dddddd", "bbbbbb", "aaaaaa"] {
                assert!(!line.contains(secret), "{line}");
            }
        }
    }

    #[test]
    fn a_message_and_cover_traffic_read_alike() {
        let sealed = |request| {
            Event::Core(Report::Sealed {
                log: LogId::default(),
                round: Round(7),
                header: Digest::default(),
                envelope: Digest::default(),
                servers: vec![],
                request,
            })
        };
        assert_eq!(sealed(Some(RequestId(1))).line(), sealed(None).line());
    }

    #[test]
    fn one_name_belongs_to_one_target_unless_roles_share_it() {
        let mut targets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for line in every_event().iter().filter_map(Event::line) {
            targets.entry(line.name).or_default().insert(line.target);
        }
        targets.retain(|_, targets| targets.len() > 1);
        assert_eq!(targets.into_keys().collect::<Vec<_>>(), ["booting", "spawning"]);
    }

    #[test]
    fn info_lines_are_documented_by_name() {
        let page = include_str!("../../../docs/operating.md");
        for line in every_event().iter().filter_map(Event::line).filter(|line| line.level <= Level::Info) {
            assert!(page.contains(&format!("`{}`", line.name)), "{}", line.name);
        }
    }
}
