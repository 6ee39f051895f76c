//! The one table that makes sentences of facts. Its texts and `event` names are an interface: operators grep them and
//! runbooks quote them. Programs read the fields.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;

use zipnet_core::id::{PeerId, Role, UniqueId};
use zipnet_core::machine::Outcome;
use zipnet_core::refused::Refused;

use crate::fact::{Fact, RoundEnd};
use crate::refusal::Refusal;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The node cannot go on.
    Error,
    /// An operator should look at it in the morning.
    Warn,
    /// What a healthy node says.
    Info,
    /// For whoever looks for a cause.
    Debug,
    /// For programs that judge what consensus does: several for each round.
    Trace,
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
            Self::Trace => "TRACE",
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
    /// The stable name: the tag of the fact.
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

impl Fact {
    /// The line that operators see.
    #[must_use]
    pub fn line(&self) -> Line {
        let (level, target) = self.heading();
        Line { level, target, name: self.name(), text: self.text() }
    }

    /// How much it matters.
    #[must_use]
    pub fn level(&self) -> Level {
        self.heading().0
    }

    /// Where it belongs; what `RUST_LOG` filters by.
    #[must_use]
    pub fn target(&self) -> &'static str {
        self.heading().1
    }

    fn heading(&self) -> (Level, &'static str) {
        use Level::{Debug, Error, Info, Trace, Warn};
        match self {
            Self::Spawning { role, .. } => {
                let target = match role {
                    Role::Server => target::SERVER,
                    Role::Aggregator => target::AGGREGATOR,
                    Role::Client => target::CLIENT,
                };
                (Info, target)
            }
            Self::Up { .. } => (Info, target::COMMON),
            Self::Booting { role } => {
                let target = match role {
                    Role::Server => target::SERVER_ROLE,
                    Role::Aggregator => target::AGGREGATOR_ROLE,
                    Role::Client => target::CLIENT_ROLE,
                };
                (Info, target)
            }
            Self::Opened { .. } => (Debug, target::CONSENSUS),
            Self::Restored { .. } => (Info, target::SERVER_ROLE),
            Self::ReadAgain { .. } => (Debug, target::COMMITTEE),
            Self::OpeningRound { .. } => (Info, target::COMMITTEE),
            Self::PartialSubmitted { .. } => (Info, target::SERVER_ROLE),
            Self::Linked { role, .. } => (client_is_debug(*role), target::LINKS),
            Self::Unlinked { role, .. } => (client_is_debug(*role), target::LINKS),
            Self::PeerRefused { reason, .. } => (myself_is_debug(*reason), target::LINKS),
            Self::Rejected { .. } => (Debug, target::LINKS),
            Self::RefusedByPeer { reason, .. } => (myself_is_debug(*reason), target::LINKS),
            Self::Challenged { .. } => (Warn, target::LINKS),
            Self::DialFailed { .. } => (Debug, target::LINKS),
            Self::GossipAlive { .. } => (Debug, target::GOSSIP),
            Self::GossipDead { .. } => (Info, target::GOSSIP),
            Self::MembershipChange { .. } => (Info, target::CONSENSUS),
            Self::Stalled { .. } => (Warn, target::COMMON),
            Self::GoesOn => (Info, target::COMMON),
            Self::Founding { .. } => (Info, target::SERVER_ROLE),
            Self::LogYielded { .. } => (Warn, target::SERVER_ROLE),
            Self::Departing => (Info, target::COMMON),
            Self::Exiting { code: 0, .. } => (Info, target::COMMON),
            Self::Exiting { .. } => (Error, target::COMMON),
            Self::Warning { .. } => (Warn, target::COMMON),
            Self::Fatal { .. } => (Error, target::COMMON),
            Self::LinesLost { .. } => (Warn, target::COMMON),
            Self::Leader { .. } => (Info, target::CONSENSUS),
            Self::MembersChanged { .. } => (Info, target::CONSENSUS),
            Self::VoteSynced { .. } => (Trace, target::CONSENSUS),
            Self::Appended { .. } => (Trace, target::CONSENSUS),
            Self::EntryApplied { .. } => (Trace, target::CONSENSUS),
            Self::Truncated { .. } => (Warn, target::CONSENSUS),
            Self::SnapshotTaken { .. } => (Debug, target::CONSENSUS),
            Self::SnapshotInstalled { .. } => (Info, target::CONSENSUS),
            Self::ConsensusFailed { .. } => (Error, target::CONSENSUS),
            Self::LogStarted { .. } => (Info, target::COMMITTEE),
            Self::RoundOpened { .. } => (Debug, target::COMMITTEE),
            Self::RoundLive { .. } => (Debug, target::COMMITTEE),
            Self::AggregateApplied { .. } => (Debug, target::COMMITTEE),
            Self::PartialApplied { .. } => (Debug, target::COMMITTEE),
            Self::RoundFinalized { .. } => (Info, target::COMMITTEE),
            // Catching up is no sign of health: the line that operators wait for is about this server's own rounds.
            Self::RoundApplied { .. } => (Debug, target::COMMITTEE),
            Self::RoundAbandoned { .. } => (Warn, target::COMMITTEE),
            Self::RecordConfirmed { .. } => (Debug, target::COMMITTEE),
            Self::ServerRegistered { .. } => (Info, target::COMMITTEE),
            Self::ServerDeparted { .. } => (Info, target::COMMITTEE),
            Self::ServerLeaving { .. } => (Info, target::COMMITTEE),
            Self::ServerRetired { .. } => (Warn, target::COMMITTEE),
            Self::AggregatorRegistered { .. } => (Info, target::COMMITTEE),
            Self::ClientsChanged { .. } => (Debug, target::COMMITTEE),
            Self::ClientRefused { .. } => (Info, target::COMMITTEE),
            Self::RefusalWithdrawn { .. } => (Info, target::COMMITTEE),
            Self::ClientBarred { .. } => (Warn, target::CLIENT_ROLE),
            Self::Refused { .. } => (Debug, target::COMMITTEE),
            Self::HeaderSigned { .. } => (Debug, target::SERVER_ROLE),
            Self::HeaderDeclined { .. } => (Warn, target::SERVER_ROLE),
            Self::PartialMade { .. } => (Debug, target::SERVER_ROLE),
            Self::Disclaimed { .. } => (Debug, target::SERVER_ROLE),
            Self::AggregateForwarded { .. } => (Info, target::AGGREGATOR_ROLE),
            Self::TurnoutLow { .. } => (Warn, target::COMMON),
            Self::ClientSeen { .. } => (Info, target::AGGREGATOR_ROLE),
            Self::ServersBelieved { .. } => (Info, target::AGGREGATOR_ROLE),
            Self::Enrolled { .. } => (Info, target::CLIENT_ROLE),
            Self::Sealed { .. } => (Debug, target::CLIENT_ROLE),
            Self::HeaderUntrusted { .. } => (Warn, target::CLIENT_ROLE),
            Self::Published { outcome: Outcome::Landed, .. } => (Info, target::CLIENT_ROLE),
            Self::Published { .. } => (Warn, target::CLIENT_ROLE),
            Self::RecordSeen { .. } => (Debug, target::CLIENT_ROLE),
            Self::RecordsMissing { .. } => (Warn, target::CLIENT_ROLE),
            Self::RecordContradicted { .. } => (Error, target::CLIENT_ROLE),
        }
    }
    /// The sentence.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Spawning { role, peer } => {
                let role = role.name();
                format!("spawning zipnet {role} {role}={}", peer.short())
            }
            Self::Up { network, instance, peer, address, role } => {
                let address = address.as_ref().map_or_else(String::new, |address| format!("@{address}"));
                let tag = role_tag(*role).short();
                format!("zipnet up: network={network} instance={instance} peer={peer}{address} role={tag}")
            }
            Self::Booting { role: Role::Server } => {
                "server booting; waiting for collections + group".to_owned()
            }
            Self::Booting { role: Role::Aggregator } => {
                "aggregator booting; waiting for collections to come online".to_owned()
            }
            Self::Booting { role: Role::Client } => "client booting; waiting for an aggregator".to_owned(),
            Self::Opened { store, last_log, term } => {
                let last = last_log.map_or_else(|| "none".to_owned(), |last| last.to_string());
                format!("disk opened store={:x} last-log={last} term={term}", store.0)
            }
            Self::Restored { index, servers, clients } => {
                format!("state restored index={index} servers={} clients={clients}", servers.len())
            }
            Self::ReadAgain { again } => format!("read again: {}", again.text()),
            Self::OpeningRound { index } => format!("committee: opening round at index {index}"),
            Self::PartialSubmitted { index } => format!("submitted partial unblind at {index}"),
            Self::Linked { peer, role } => format!("linked {}={}", role.name(), peer.short()),
            Self::Unlinked { peer, role, reason } => {
                let reason = reason.map_or_else(String::new, |reason| format!(" reason={}", reason.name()));
                format!("unlinked {}={}{reason}", role.name(), peer.short())
            }
            Self::PeerRefused { peer, reason } => {
                format!("refused peer={} reason={}: {reason}", peer.short(), reason.name())
            }
            Self::Rejected { kind, reason, from } => {
                format!("rejected {kind} reason={reason} from={}", from.short())
            }
            Self::RefusedByPeer { peer, reason } => format!(
                "refused by peer={} reason={}; what it says of this node: {reason}",
                peer.short(),
                reason.name()
            ),
            Self::Challenged { peer } => format!(
                "a second node with the identity of peer={} appeared; challenging the first",
                peer.short()
            ),
            Self::DialFailed { peer, address } => {
                let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.short());
                format!("dial failed peer={peer} address={address}")
            }
            Self::GossipAlive { peer } => format!("gossip: peer={} is alive", peer.short()),
            Self::GossipDead { peer } => format!("gossip: peer={} is gone", peer.short()),
            Self::MembershipChange { change } => format!("committee: {change}"),
            Self::Stalled { causes } => {
                let names: Vec<_> = causes.iter().map(|stall| &*stall.cause).collect();
                let sentences: Vec<_> = causes.iter().map(|stall| stall.text.as_str()).collect();
                format!("rounds stall cause={}: {}", names.join(","), sentences.join("; "))
            }
            Self::GoesOn => "rounds go on".to_owned(),
            Self::Founding { voters } => format!(
                "founding a log with the servers that had a vote in the one that was set aside{}",
                list("voters", voters)
            ),
            Self::LogYielded { own, other, store } => format!(
                "this server's log={} has no records and yields to log={}; joining as store={:x}",
                own.short(),
                other.short(),
                store.0
            ),
            Self::Departing => "departing: finishing the round and saying goodbye".to_owned(),
            Self::Exiting { code, reason } => format!("exiting code={code}: {reason}"),
            Self::Warning { text } => text.clone(),
            Self::Fatal { text } => format!("stopping on purpose: {text}"),
            Self::LinesLost { count } => {
                format!("{count} lines were lost: whoever reads them is too slow")
            }
            Self::Leader { leader, term, local, .. } => {
                let leader = leader.map_or_else(|| "none".to_owned(), |leader| leader.short());
                format!("committee: leader={leader} term={term} local={local}")
            }
            Self::MembersChanged { index, voters, stores: _, learners, joint } => format!(
                "committee: members changed index={index} voters={} learners={} joint={joint}",
                voters.len(),
                learners.len()
            ),
            Self::VoteSynced { term, candidate, store } => format!(
                "committee: vote on disk term={term} candidate={} store={:x}",
                candidate.short(),
                store.0
            ),
            Self::Appended { index, term } => {
                format!("committee: entries on disk last={index} term={term}")
            }
            Self::EntryApplied { index, term, digest } => {
                format!("committee: entry applied index={index} term={term} digest={}", digest.short())
            }
            Self::Truncated { after } => {
                let after = after.map_or_else(|| "start".to_owned(), |after| after.to_string());
                format!("committee: log cut back after={after}: the leader's differs")
            }
            Self::SnapshotTaken { index } => format!("committee: snapshot taken index={index}"),
            Self::SnapshotInstalled { index } => {
                format!("committee: snapshot of the leader installed index={index}")
            }
            Self::ConsensusFailed { reason } => format!("consensus stopped: {reason}"),
            Self::LogStarted { log } => format!("committee: log started log={}", log.short()),
            Self::RoundOpened { round, index, servers, clients, .. } => format!(
                "committee: round opened round={round} index={index} servers={} clients={clients}",
                servers.len()
            ),
            Self::RoundLive { round, refused, .. } => {
                format!("committee: round live round={round} refused={refused}")
            }
            Self::AggregateApplied { round, participants, .. } => {
                format!("committee: aggregate applied round={round} participants={participants}")
            }
            Self::PartialApplied { round, server, .. } => {
                format!("committee: partial applied round={round} server={}", server.short())
            }
            Self::RoundFinalized { end: RoundEnd { round, participants, .. } } => {
                format!("committee: round finalized round={round} participants={participants}")
            }
            Self::RoundApplied { end: RoundEnd { round, participants, .. } } => format!(
                "committee: round applied without this server round={round} participants={participants}"
            ),
            Self::RoundAbandoned { round, reason, missing, .. } => format!(
                "committee: round abandoned round={round} reason={}{}",
                reason.name(),
                list("missing", missing)
            ),
            Self::RecordConfirmed { round, .. } => format!("committee: record confirmed round={round}"),
            Self::ServerRegistered { server, epoch } => {
                format!("committee: server registered server={} epoch={}", server.short(), epoch.0)
            }
            Self::ServerDeparted { server } => {
                format!("committee: server departed server={}", server.short())
            }
            Self::ServerLeaving { server } => {
                format!("committee: server leaving for good server={}", server.short())
            }
            Self::ServerRetired { server, forced } => {
                format!("committee: server retired server={} forced={forced}", server.short())
            }
            Self::AggregatorRegistered { aggregator } => {
                format!("committee: aggregator registered aggregator={}", aggregator.short())
            }
            Self::ClientsChanged { version, clients } => {
                format!("committee: client registry changed version={} clients={clients}", version.0)
            }
            Self::ClientRefused { client, server } => {
                format!("committee: client refused client={} by server={}", client.short(), server.short())
            }
            Self::RefusalWithdrawn { client, server } => format!(
                "committee: refusal withdrawn client={} by server={}",
                client.short(),
                server.short()
            ),
            Self::ClientBarred { .. } => {
                "client: refused by a server of the committee: this client is in no round before that server's operator \
                 withdraws it, and 16 rounds have passed"
                    .to_owned()
            }
            Self::Refused { kind, reason, from } => {
                let from = from.map_or_else(|| "log".to_owned(), |peer| peer.short());
                format!("refused {kind} reason={} from={from}", reason.name())
            }
            Self::HeaderSigned { round, .. } => format!("signed header round={round}"),
            Self::HeaderDeclined { round, reason, .. } => {
                format!("declined to sign header round={round} reason={}", reason.name())
            }
            Self::PartialMade { round, participants, .. } => {
                format!("made partial unblind round={round} participants={participants}")
            }
            Self::Disclaimed { round, .. } => format!("disclaimed round={round}"),
            Self::AggregateForwarded { round, participants } => {
                format!("aggregator: forwarded aggregate round={round} participants={participants}")
            }
            Self::TurnoutLow { round, envelopes, floor, absent, declined, .. } => {
                let mut text = format!(
                    "too few envelopes round={round} envelopes={envelopes} floor={floor} absent={absent}"
                );
                for (place, (reason, clients)) in declined.iter().enumerate() {
                    let separator = if place == 0 { " declined=" } else { "," };
                    write!(text, "{separator}{reason}:{clients}").expect("writing to a string does not fail");
                }
                text
            }
            Self::ClientSeen { client } => format!("registering client bundle client={}", client.short()),
            Self::ServersBelieved { servers } => {
                let names: Vec<_> = servers.iter().map(PeerId::short).collect();
                format!("aggregator: believing servers={}", names.join(","))
            }
            Self::Enrolled { version } => format!("client: enrolled registry={}", version.0),
            Self::Sealed { round, .. } => format!("client: sealed envelope round={round}"),
            Self::HeaderUntrusted { round, reason: Refused::RefusedClient } => format!(
                "client: does not take part round={round} reason=refused-client: the operator of a server refuses this \
                 client"
            ),
            Self::HeaderUntrusted { round, reason } => {
                format!("client: does not take part round={round} reason={}", reason.name())
            }
            Self::Published { request, outcome, round } => {
                format!("client: message {} request={} round={round}", outcome.name(), request.0)
            }
            Self::RecordSeen { round, participants, confirmed, .. } => format!(
                "client: broadcast seen round={round} participants={participants} confirmed={confirmed}"
            ),
            Self::RecordsMissing { log, from, oldest } => format!(
                "reader: records missing log={} from={from}: the oldest record that can be had is {oldest}",
                log.short()
            ),
            Self::RecordContradicted { log, round, seen, other, servers, both } => format!(
                "reader: two signed records of one round log={} round={round} seen={} other={}{}{}",
                log.short(),
                seen.short(),
                other.short(),
                list("servers", servers),
                list("both", both)
            ),
        }
    }
}

/// Clients come and go by the thousands.
const fn client_is_debug(role: Role) -> Level {
    match role {
        Role::Server | Role::Aggregator => Level::Info,
        Role::Client => Level::Debug,
    }
}

/// Whoever meets itself by an accident of addresses need not tell anybody.
const fn myself_is_debug(reason: Refusal) -> Level {
    if matches!(reason, Refusal::Myself) { Level::Debug } else { Level::Warn }
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
