//! What a node tells about itself, and the table that makes log lines of it.
//!
//! [`Event::line`] is that table. Its texts and `event` fields are an interface: operators grep them, scenarios quote
//! them, and the tests below hold every one. No line holds a payload, a key, a pad or a client's network address.

use std::fmt::Write as _;

use zipnet_core::evidence::Contradiction;
use zipnet_core::id::{LogId, PeerId, Role, StoreId, UniqueId};
use zipnet_core::machine::{Abandonment, Outcome, Report};
use zipnet_core::refused::Refused;

use crate::config::role_name;
use crate::consensus;
use crate::frame::{Farewell, Refusal};
use crate::meeting::Change;
use crate::status::Cause;
use crate::world::Address;

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
        /// Where others dial it.
        address: Address,
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

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The node can not go on.
    Error,
    /// An operator should look at it in the morning.
    Warn,
    /// What a healthy node says.
    Info,
    /// For whoever looks for a cause.
    Debug,
}

impl Level {
    /// As logs print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
        }
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How much it matters.
    pub level: Level,
    /// Where it belongs; what `RUST_LOG` filters by.
    pub target: &'static str,
    /// The stable `event` field of JSON logs.
    pub name: &'static str,
    /// The text.
    pub text: String,
}

/// Targets as the operator documents print them.
mod target {
    pub(super) const SERVER: &str = "zipnet_server";
    pub(super) const AGGREGATOR: &str = "zipnet_aggregator";
    pub(super) const CLIENT: &str = "zipnet_client";
    pub(super) const COMMON: &str = "zipnet_node::roles::common";
    pub(super) const SERVER_ROLE: &str = "zipnet_node::roles::server";
    pub(super) const AGGREGATOR_ROLE: &str = "zipnet_node::roles::aggregator";
    pub(super) const CLIENT_ROLE: &str = "zipnet_node::roles::client";
    pub(super) const COMMITTEE: &str = "zipnet_node::committee";
    pub(super) const LINKS: &str = "zipnet_node::links";
    pub(super) const GOSSIP: &str = "zipnet_node::gossip";
    pub(super) const CONSENSUS: &str = "zipnet_node::consensus";
}

/// The identifier that `role=` of the `zipnet up` line abbreviates: equal for all nodes of a role.
#[must_use]
pub fn role_tag(role: Role) -> UniqueId {
    UniqueId::from_text(match role {
        Role::Server => "zipnet.server",
        Role::Aggregator => "zipnet.aggregator",
        Role::Client => "zipnet.client",
    })
}

impl Event {
    /// The line that operators see; `None` for what only metrics and checks are interested in.
    #[must_use]
    pub fn line(&self) -> Option<Line> {
        use Level::{Debug, Error, Info, Warn};
        let (level, target, name, text) = match self {
            Self::Spawning { role, peer } => {
                let target = match role {
                    Role::Server => target::SERVER,
                    Role::Aggregator => target::AGGREGATOR,
                    Role::Client => target::CLIENT,
                };
                let role = role_name(*role);
                (Info, target, "spawning", format!("spawning zipnet {role} {role}={}", peer.short()))
            }
            Self::Up { network, instance, peer, address, role } => {
                let tag = role_tag(*role).short();
                let text = format!(
                    "zipnet up: network={network} instance={instance} peer={peer}@{address} role={tag}"
                );
                (Info, target::COMMON, "up", text)
            }
            Self::Booting { role } => {
                let (target, text) = match role {
                    Role::Server => (target::SERVER_ROLE, "server booting; waiting for collections + group"),
                    Role::Aggregator => (
                        target::AGGREGATOR_ROLE,
                        "aggregator booting; waiting for collections to come online",
                    ),
                    Role::Client => (target::CLIENT_ROLE, "client booting; waiting for an aggregator"),
                };
                (Info, target, "booting", text.to_owned())
            }
            Self::Opened { store, last_log, term } => {
                let last = last_log.map_or_else(|| "none".to_owned(), |last| last.to_string());
                let text = format!("disk opened store={:x} last-log={last} term={term}", store.0);
                (Debug, target::CONSENSUS, "opened", text)
            }
            Self::Restored { index, clients, servers } => {
                let servers = servers.len();
                let text = format!("state restored index={index} servers={servers} clients={clients}");
                (Info, target::SERVER_ROLE, "restored", text)
            }
            Self::Holds(_) => return None,
            Self::Core(report) => return report_line(report),
            Self::Past(report) => {
                let text = format!("read again: {}", report_line(report)?.text);
                (Debug, target::COMMITTEE, "read-again", text)
            }
            Self::Consensus(event) => return consensus_line(event),
            Self::OpeningRound { index } => {
                let text = format!("committee: opening round at index {index}");
                (Info, target::COMMITTEE, "opening-round", text)
            }
            Self::PartialSubmitted { index } => {
                let text = format!("submitted partial unblind at {index}");
                (Info, target::SERVER_ROLE, "partial-submitted", text)
            }
            Self::Linked { peer, role } => {
                let text = format!("linked {}={}", role_name(*role), peer.short());
                (client_is_debug(*role), target::LINKS, "linked", text)
            }
            Self::Unlinked { peer, role, farewell } => {
                let mut text = format!("unlinked {}={}", role_name(*role), peer.short());
                if let Some(farewell) = farewell {
                    text.push_str(" reason=");
                    text.push_str(match farewell {
                        Farewell::Departing => "departing",
                        Farewell::Leaving => "leaving",
                        Farewell::Spare => "spare",
                        Farewell::Replaced => "replaced",
                        Farewell::Yielding => "yielding",
                    });
                }
                (client_is_debug(*role), target::LINKS, "unlinked", text)
            }
            Self::PeerRefused { peer, reason } => {
                let level = if *reason == Refusal::Myself { Debug } else { Warn };
                let text = format!("refused peer={} reason={}: {reason}", peer.short(), reason.name());
                (level, target::LINKS, "peer-refused", text)
            }
            Self::Rejected { kind, reason, peer } => {
                let text = format!("rejected {kind} reason={reason} from={}", peer.short());
                (Debug, target::LINKS, "rejected", text)
            }
            Self::RefusedByPeer { peer, reason } => {
                let level = if *reason == Refusal::Myself { Debug } else { Warn };
                let text = format!(
                    "refused by peer={} reason={}; what it says of this node: {reason}",
                    peer.short(),
                    reason.name()
                );
                (level, target::LINKS, "refused-by-peer", text)
            }
            Self::Challenged { peer } => {
                let text = format!(
                    "a second node with the identity of peer={} appeared; challenging the first",
                    peer.short()
                );
                (Warn, target::LINKS, "challenged", text)
            }
            Self::DialFailed { peer, address } => {
                let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.short());
                (Debug, target::LINKS, "dial-failed", format!("dial failed peer={peer} address={address}"))
            }
            Self::GossipAlive { peer } => {
                (Debug, target::GOSSIP, "gossip-alive", format!("gossip: peer={} is alive", peer.short()))
            }
            Self::GossipDead { peer } => {
                (Info, target::GOSSIP, "gossip-dead", format!("gossip: peer={} is gone", peer.short()))
            }
            Self::MembershipChange(change) => {
                (Info, target::CONSENSUS, "membership-change", format!("committee: {change}"))
            }
            Self::Stalled { causes } => {
                let names: Vec<_> = causes.iter().map(Cause::name).collect();
                let sentences: Vec<_> = causes.iter().map(Cause::to_string).collect();
                let text = format!("rounds stall cause={}: {}", names.join(","), sentences.join("; "));
                (Warn, target::COMMON, "stalled", text)
            }
            Self::GoesOn => (Info, target::COMMON, "goes-on", "rounds go on".to_owned()),
            Self::Founding { voters } => {
                let text = format!(
                    "founding a log with the servers that had a vote in the one that was set aside{}",
                    list("voters", voters)
                );
                (Info, target::SERVER_ROLE, "founding", text)
            }
            Self::LogYielded { own, other, store } => {
                let text = format!(
                    "this server's log={} has no records and yields to log={}; joining as store={:x}",
                    own.short(),
                    other.short(),
                    store.0
                );
                (Warn, target::SERVER_ROLE, "log-yielded", text)
            }
            Self::Departing => (
                Info,
                target::COMMON,
                "departing",
                "departing: finishing the round and saying goodbye".to_owned(),
            ),
            Self::Exiting { code, reason } => {
                let level = if *code == 0 { Info } else { Error };
                (level, target::COMMON, "exiting", format!("exiting code={code}: {reason}"))
            }
            Self::Warned(text) => (Warn, target::COMMON, "warning", text.clone()),
            Self::Fatal(text) => (Error, target::COMMON, "fatal", format!("stopping on purpose: {text}")),
        };
        Some(Line { level, target, name, text })
    }
}

/// Clients come and go by the thousands.
const fn client_is_debug(role: Role) -> Level {
    match role {
        Role::Server | Role::Aggregator => Level::Info,
        Role::Client => Level::Debug,
    }
}

fn report_line(report: &Report) -> Option<Line> {
    use Level::{Debug, Error, Info, Warn};
    let (level, target, name, text) = match report {
        Report::LogStarted { log } => {
            (Info, target::COMMITTEE, "log-started", format!("committee: log started log={}", log.short()))
        }
        Report::RoundOpened { index, header, .. } => {
            let text = format!(
                "committee: round opened round={} index={index} servers={} clients={}",
                header.round,
                header.servers.len(),
                header.clients.count
            );
            (Debug, target::COMMITTEE, "round-opened", text)
        }
        Report::HeaderLive { round, refused, .. } => {
            let text = format!("committee: round live round={round} refused={}", refused.count_ones());
            (Debug, target::COMMITTEE, "round-live", text)
        }
        Report::AggregateApplied { round, participants, .. } => {
            let text = format!(
                "committee: aggregate applied round={round} participants={}",
                participants.count_ones()
            );
            (Debug, target::COMMITTEE, "aggregate-applied", text)
        }
        Report::PartialApplied { round, server, .. } => {
            let text = format!("committee: partial applied round={round} server={}", server.short());
            (Debug, target::COMMITTEE, "partial-applied", text)
        }
        // Catching up is no sign of health: the line that operators wait for is about this server's own rounds.
        Report::RoundFinalized { record, rostered: false, .. } => {
            let text = format!(
                "committee: round applied without this server round={} participants={}",
                record.round,
                record.participants.count_ones()
            );
            (Debug, target::COMMITTEE, "round-applied", text)
        }
        Report::RoundFinalized { record, rostered: true, .. } => {
            let text = format!(
                "committee: round finalized round={} participants={}",
                record.round,
                record.participants.count_ones()
            );
            (Info, target::COMMITTEE, "round-finalized", text)
        }
        Report::RoundAbandoned { round, reason, missing, .. } => {
            let reason = abandonment_name(*reason);
            let text = format!(
                "committee: round abandoned round={round} reason={reason}{}",
                list("missing", missing)
            );
            (Warn, target::COMMITTEE, "round-abandoned", text)
        }
        Report::RecordConfirmed { round, .. } => (
            Debug,
            target::COMMITTEE,
            "record-confirmed",
            format!("committee: record confirmed round={round}"),
        ),
        Report::ServerRegistered { server, epoch } => {
            let text = format!("committee: server registered server={} epoch={}", server.short(), epoch.0);
            (Info, target::COMMITTEE, "server-registered", text)
        }
        Report::ServerDeparted { server } => {
            let text = format!("committee: server departed server={}", server.short());
            (Info, target::COMMITTEE, "server-departed", text)
        }
        Report::ServerLeaving { server } => {
            let text = format!("committee: server leaving for good server={}", server.short());
            (Info, target::COMMITTEE, "server-leaving", text)
        }
        Report::ServerRetired { server, forced } => {
            let text = format!("committee: server retired server={} forced={forced}", server.short());
            (Warn, target::COMMITTEE, "server-retired", text)
        }
        Report::AggregatorRegistered { aggregator } => {
            let text = format!("committee: aggregator registered aggregator={}", aggregator.short());
            (Info, target::COMMITTEE, "aggregator-registered", text)
        }
        Report::ClientsChanged { version, count } => {
            let text = format!("committee: client registry changed version={} clients={count}", version.0);
            (Debug, target::COMMITTEE, "clients-changed", text)
        }
        Report::ClientRefused { server, client } => {
            let text =
                format!("committee: client refused client={} by server={}", client.short(), server.short());
            (Info, target::COMMITTEE, "client-refused", text)
        }
        Report::RefusalWithdrawn { server, client } => {
            let text = format!(
                "committee: refusal withdrawn client={} by server={}",
                client.short(),
                server.short()
            );
            (Info, target::COMMITTEE, "refusal-withdrawn", text)
        }
        Report::Refused { kind: "bundle", reason: Refused::Barred, from: Some(_) } => {
            let text = "client: refused by a server of the committee: this client is in no round before that server's \
                        operator withdraws it, and 16 rounds have passed";
            (Warn, target::CLIENT_ROLE, "client-barred", text.to_owned())
        }
        Report::Refused { kind, reason, from } => {
            let from = from.map_or_else(|| "log".to_owned(), |peer| peer.short());
            let text = format!("refused {kind} reason={} from={from}", reason.name());
            (Debug, target::COMMITTEE, "refused", text)
        }
        Report::HeaderSigned { round, .. } => {
            (Debug, target::SERVER_ROLE, "header-signed", format!("signed header round={round}"))
        }
        Report::HeaderDeclined { round, reason, .. } => {
            let text = format!("declined to sign header round={round} reason={}", reason.name());
            (Warn, target::SERVER_ROLE, "header-declined", text)
        }
        Report::PartialMade { round, participants, .. } => {
            let text = format!("made partial unblind round={round} participants={participants}");
            (Debug, target::SERVER_ROLE, "partial-made", text)
        }
        Report::Disclaimed { round, .. } => {
            (Debug, target::SERVER_ROLE, "disclaimed", format!("disclaimed round={round}"))
        }
        Report::AggregateForwarded { round, participants } => {
            let text = format!("aggregator: forwarded aggregate round={round} participants={participants}");
            (Info, target::AGGREGATOR_ROLE, "aggregate-forwarded", text)
        }
        Report::TurnoutLow { floor, turnout } => {
            let declined: Vec<_> =
                turnout.declined.iter().map(|(reason, clients)| format!("{reason}:{clients}")).collect();
            let declined =
                if declined.is_empty() { String::new() } else { format!(" declined={}", declined.join(",")) };
            let text = format!(
                "too few envelopes round={} envelopes={} floor={floor} absent={}{declined}",
                turnout.round, turnout.envelopes, turnout.absent
            );
            (Warn, target::COMMON, "turnout-low", text)
        }
        Report::ClientSeen { client } => {
            let text = format!("registering client bundle client={}", client.short());
            (Info, target::AGGREGATOR_ROLE, "client-seen", text)
        }
        Report::ServersBelieved { servers } => {
            let names: Vec<_> = servers.iter().map(PeerId::short).collect();
            let text = format!("aggregator: believing servers={}", names.join(","));
            (Info, target::AGGREGATOR_ROLE, "servers-believed", text)
        }
        Report::Enrolled { version } => {
            let text = format!("client: enrolled registry={}", version.0);
            (Info, target::CLIENT_ROLE, "enrolled", text)
        }
        // Whether an envelope carried a message is for nobody to read.
        Report::Sealed { round, .. } => {
            (Debug, target::CLIENT_ROLE, "sealed", format!("client: sealed envelope round={round}"))
        }
        Report::HeaderUntrusted { round, reason: Refused::RefusedClient } => {
            let text = format!(
                "client: does not take part round={round} reason=refused-client: the operator of a server refuses this \
                 client"
            );
            (Warn, target::CLIENT_ROLE, "header-untrusted", text)
        }
        Report::HeaderUntrusted { round, reason } => {
            let text = format!("client: does not take part round={round} reason={}", reason.name());
            (Warn, target::CLIENT_ROLE, "header-untrusted", text)
        }
        Report::Published { request, outcome, round } => {
            let level = if *outcome == Outcome::Landed { Info } else { Warn };
            let text =
                format!("client: message {} request={} round={round}", outcome_name(*outcome), request.0);
            (level, target::CLIENT_ROLE, "published", text)
        }
        Report::RecordSeen { record, confirmed, .. } => {
            let text = format!(
                "client: broadcast seen round={} participants={} confirmed={confirmed}",
                record.round,
                record.participants.count_ones()
            );
            (Debug, target::CLIENT_ROLE, "record-seen", text)
        }
        Report::RecordsMissing { log, from, oldest } => {
            let text = format!(
                "reader: records missing log={} from={from}: the oldest record that can be had is {oldest}",
                log.short()
            );
            (Warn, target::CLIENT_ROLE, "records-missing", text)
        }
        Report::RecordContradicted { log, round, seen, other, servers, evidence } => {
            let convicted: Vec<_> = evidence.iter().map(Contradiction::server).collect();
            let text = format!(
                "reader: two signed records of one round log={} round={round} seen={} other={}{}{}",
                log.short(),
                seen.short(),
                other.short(),
                list("servers", servers),
                list("both", &convicted)
            );
            (Error, target::CLIENT_ROLE, "record-contradicted", text)
        }
    };
    Some(Line { level, target, name, text })
}

fn consensus_line(event: &consensus::Event) -> Option<Line> {
    use Level::{Debug, Error, Info, Warn};
    let (level, name, text) = match event {
        consensus::Event::Leader { term, leader, me } => {
            let leader = leader.map_or_else(|| "none".to_owned(), |leader| leader.peer.short());
            (Info, "leader", format!("committee: leader={leader} term={term} local={me}"))
        }
        consensus::Event::MembersChanged { index, members } => {
            let text = format!(
                "committee: members changed index={index} voters={} learners={} joint={}",
                members.voters.len(),
                members.learners.len(),
                members.joint
            );
            (Info, "members-changed", text)
        }
        consensus::Event::Truncated { after } => {
            let after = after.map_or_else(|| "start".to_owned(), |after| after.to_string());
            (Warn, "truncated", format!("committee: log cut back after={after}: the leader's differs"))
        }
        consensus::Event::SnapshotTaken { index } => {
            (Debug, "snapshot-taken", format!("committee: snapshot taken index={index}"))
        }
        consensus::Event::SnapshotInstalled { index } => {
            (Info, "snapshot-installed", format!("committee: snapshot of the leader installed index={index}"))
        }
        consensus::Event::Failed { reason, .. } => {
            (Error, "consensus-failed", format!("consensus stopped: {reason}"))
        }
        // Several per round, and told by what they lead to.
        consensus::Event::Voted { .. }
        | consensus::Event::VoteSynced { .. }
        | consensus::Event::Appended { .. }
        | consensus::Event::Refused { .. }
        | consensus::Event::Applied { .. } => return None,
    };
    Some(Line { level, target: target::CONSENSUS, name, text })
}

/// The stable name of a reason.
#[must_use]
pub const fn abandonment_name(reason: Abandonment) -> &'static str {
    match reason {
        Abandonment::Unsigned => "unsigned",
        Abandonment::NoAggregate => "no-aggregate",
        Abandonment::TooFewEnvelopes => "too-few-envelopes",
        Abandonment::MissingPartial => "missing-partial",
    }
}

/// The stable name of an outcome.
#[must_use]
pub const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Landed => "landed",
        Outcome::Collided => "collided",
        Outcome::Dropped => "dropped",
        Outcome::Unknown => "unknown",
    }
}

/// ` name=a,b` or nothing.
fn list(name: &str, peers: &[PeerId]) -> String {
    let mut text = String::new();
    for (place, peer) in peers.iter().enumerate() {
        let separator = if place == 0 { format!(" {name}=") } else { ",".to_owned() };
        write!(text, "{separator}{}", peer.short()).expect("writing to a string does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use zipnet_core::bitmap::Bitmap;
    use zipnet_core::id::{Digest, Epoch, GroupId, RaftId, RegistryVersion, Round};
    use zipnet_core::key::PublicKey;
    use zipnet_core::machine::RequestId;
    use zipnet_core::message::{ClientSet, Header, Previous, Record, RosterServer, Turnout};
    use zipnet_core::params::RoundParams;
    use zipnet_core::refused::Refused;

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
                address: address(),
                role: Role::Server,
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
        events.extend(reports().into_iter().map(Event::Core));
        events.extend(reports().into_iter().take(1).map(Event::Past));
        events.push(Event::Holds(Holds::default()));
        events
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
            let line = printed(&event).unwrap_or_default();
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
