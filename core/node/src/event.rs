//! What a node tells about itself, and the table that makes log lines of it.
//!
//! [`Event::line`] is that table. Its texts and `event` fields are an interface: operators grep them, scenarios quote
//! them, and the tests below hold every one. No line holds a payload, a key, a pad or a client's network address.

use std::fmt::Write as _;

use zipnet_core::id::{LogId, PeerId, StoreId, UniqueId};
use zipnet_core::machine::{Abandonment, Outcome, Report};
use zipnet_core::message::Role;

use crate::config::role_name;
use crate::consensus;
use crate::frame::{Farewell, Refusal};
use crate::meeting::Change;
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
    /// The state of an earlier process was read back; what it holds is not reported again.
    Restored {
        /// The last applied position.
        index: u64,
        /// Clients in the registry.
        clients: u32,
        /// Registered, undeparted servers.
        servers: Vec<PeerId>,
    },
    /// A role machine reports.
    Core(Report),
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
                let text =
                    format!("zipnet up: network={network} instance={instance} peer={peer}@{address} role={tag}");
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
            Self::Restored { index, clients, servers } => {
                let servers = servers.len();
                let text = format!("state restored index={index} servers={servers} clients={clients}");
                (Info, target::SERVER_ROLE, "restored", text)
            }
            Self::Core(report) => return report_line(report),
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
                let text = format!("a second node with the identity of peer={} appeared; challenging the first", peer.short());
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
            Self::LogYielded { own, other, store } => {
                let text = format!(
                    "this server's log={} has no records and yields to log={}; joining as store={:x}",
                    own.short(),
                    other.short(),
                    store.0
                );
                (Warn, target::SERVER_ROLE, "log-yielded", text)
            }
            Self::Departing => {
                (Info, target::COMMON, "departing", "departing: finishing the round and saying goodbye".to_owned())
            }
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
    use Level::{Debug, Info, Warn};
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
            let text =
                format!("committee: aggregate applied round={round} participants={}", participants.count_ones());
            (Debug, target::COMMITTEE, "aggregate-applied", text)
        }
        Report::PartialApplied { round, server, .. } => {
            let text = format!("committee: partial applied round={round} server={}", server.short());
            (Debug, target::COMMITTEE, "partial-applied", text)
        }
        Report::RoundFinalized { record, .. } => {
            let text = format!(
                "committee: round finalized round={} participants={}",
                record.round,
                record.participants.count_ones()
            );
            (Info, target::COMMITTEE, "round-finalized", text)
        }
        Report::RoundAbandoned { round, reason, missing, .. } => {
            let reason = abandonment_name(*reason);
            let text = format!("committee: round abandoned round={round} reason={reason}{}", list("missing", missing));
            (Warn, target::COMMITTEE, "round-abandoned", text)
        }
        Report::RecordConfirmed { round, .. } => {
            (Debug, target::COMMITTEE, "record-confirmed", format!("committee: record confirmed round={round}"))
        }
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
        Report::AggregateForwarded { round, participants } => {
            let text = format!("aggregator: forwarded aggregate round={round} participants={participants}");
            (Info, target::AGGREGATOR_ROLE, "aggregate-forwarded", text)
        }
        Report::ClientSeen { client } => {
            let text = format!("registering client bundle client={}", client.short());
            (Info, target::AGGREGATOR_ROLE, "client-seen", text)
        }
        Report::Enrolled { version } => {
            let text = format!("client: enrolled registry={}", version.0);
            (Info, target::CLIENT_ROLE, "enrolled", text)
        }
        // Whether an envelope carried a message is for nobody to read.
        Report::Sealed { round, .. } => {
            (Debug, target::CLIENT_ROLE, "sealed", format!("client: sealed envelope round={round}"))
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
        consensus::Event::Failed { reason } => (Error, "consensus-failed", format!("consensus stopped: {reason}")),
        // Several per round, and told by what they lead to.
        consensus::Event::Voted { .. }
        | consensus::Event::VoteSynced { .. }
        | consensus::Event::Appended { .. }
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
