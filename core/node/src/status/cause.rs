//! Why rounds do not finish, as data: what every node can be waiting for, in words, and what helps.
//!
//! [`causes`] is a function of a [`View`]: the same causes stand in status, readiness, metrics and log.

use core::fmt;
use core::time::Duration;

use zipnet_core::id::{PeerId, Role, Round};
use zipnet_core::message::Turnout;
use zipnet_core::refused::Refused;

use super::{Awaits, CONNECT_TIMEOUT, OpenRound, View, connect_timeout, count, names};
use crate::founding::{Step, explain};
use crate::meeting::{ServerState, majority};

/// Why a node is not ready. Displayed as a sentence that names the cause and, where it is not plain, the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A server has no log.
    NotInCommittee {
        /// What it waits for, once it has waited for some time.
        astray: Option<Step>,
    },
    /// Too few voters are reachable to agree on anything.
    NoQuorum {
        /// Whether somebody leads all the same, as far as this node knows.
        led: bool,
        /// How many answer.
        alive: usize,
        /// How many there are.
        voters: usize,
        /// Who does not answer.
        absent: Vec<PeerId>,
        /// Who answers and has lost its vote with its disk.
        forgot: Vec<PeerId>,
    },
    /// Enough voters answer, and none leads.
    Election,
    /// Two servers do not reach each other, and rounds need both.
    LinkCut {
        /// The lower of the two.
        one: PeerId,
        /// The higher.
        other: PeerId,
    },
    /// A server has a new disk, and its vote is that of the old one.
    VoteOfOldDisk,
    /// A server gets the log and has no vote.
    CatchingUp,
    /// A server has announced that it leaves for good.
    Leaving,
    /// A server was retired.
    Retired,
    /// A server's own bundle is not in the registry.
    NotRegistered,
    /// Bundles of linked voters are not in the registry.
    BundlesMissing(Vec<PeerId>),
    /// The first round waits for votes.
    FirstVoters {
        /// How many there are.
        voters: usize,
        /// How many it waits for.
        wanted: u32,
    },
    /// The log has no aggregator.
    NoAggregator,
    /// The log's aggregator is not linked with this server.
    AggregatorAway(PeerId),
    /// Fewer clients are registered than a round needs.
    TooFewClients {
        /// Registered.
        clients: u32,
        /// Needed.
        floor: u32,
    },
    /// Fewer servers take part than a server's `ZIPNET_MIN_SERVERS` asks for.
    TooFewServers {
        /// Registered and not away.
        servers: usize,
        /// Needed.
        floor: usize,
    },
    /// A round waits for signatures under its header.
    Unsigned {
        /// The round.
        round: Round,
        /// From whom, and whether each is linked.
        missing: Vec<(PeerId, bool)>,
    },
    /// A round waits for envelopes: clients are away, or take no part.
    TooFewEnvelopes {
        /// The fewest that make a round.
        floor: u32,
        /// As the aggregator counts.
        turnout: Turnout,
        /// Servers that are registered and away.
        away: Vec<PeerId>,
    },
    /// A round waits for its aggregator.
    NoAggregate {
        /// The round.
        round: Round,
        /// Who folds it.
        aggregator: Option<PeerId>,
    },
    /// A round waits for partials.
    MissingPartial {
        /// The round.
        round: Round,
        /// From whom, and whether each is linked.
        missing: Vec<(PeerId, bool)>,
    },
    /// Nothing that this server knows of stands in the way, and no round ends.
    NoRounds,
    /// A round with one participant names its author. Rounds go on.
    NoAnonymity,
    /// An aggregator without servers.
    NoServer,
    /// An aggregator that believes none of the servers that it is linked with.
    StrangersOnly,
    /// An aggregator that too few servers approve of.
    NotApproved {
        /// Servers that have said no, and why.
        refused: Vec<(PeerId, Refused)>,
    },
    /// The aggregator's work is done, and servers have not put it into the log.
    AggregateNotApplied {
        /// The round.
        round: Round,
        /// Servers that have not confirmed it.
        missing: Vec<PeerId>,
    },
    /// The servers open no round that this aggregator could fold.
    NoHeader,
    /// A client or reader is in no instance.
    ConnectTimeout {
        /// Its name.
        instance: String,
        /// An aggregator answers.
        answers: bool,
    },
    /// A client has not heard of an aggregator.
    NoAggregatorKnown,
    /// A client is not linked with the aggregator.
    AggregatorUnreachable(PeerId),
    /// Servers refuse a client.
    Barred,
    /// A client is not registered.
    NotEnrolled,
    /// A client takes no part in the rounds that it is shown.
    Declines {
        /// Why.
        reason: Refused,
        /// How many servers the last roster has.
        servers: usize,
        /// How many this client insists on.
        floor: usize,
        /// Those of them that are not in it.
        missing: Vec<PeerId>,
    },
    /// A client does its part, or a reader listens, and no broadcast comes.
    NoBroadcast,
    /// A reader has nobody to ask.
    NobodyLinked,
}

impl Cause {
    /// All names, in the order of the documentation.
    pub const NAMES: [&'static str; 34] = [
        "not-in-committee",
        "no-quorum",
        "election",
        "link-cut",
        "vote-of-old-disk",
        "catching-up",
        "leaving",
        "retired",
        "not-registered",
        "bundles-missing",
        "first-voters",
        "no-aggregator",
        "aggregator-away",
        "too-few-clients",
        "too-few-servers",
        "unsigned",
        "too-few-envelopes",
        "no-aggregate",
        "missing-partial",
        "no-rounds",
        "no-anonymity",
        "no-server",
        "strangers-only",
        "not-approved",
        "aggregate-not-applied",
        "no-header",
        "connect-timeout",
        "no-aggregator-known",
        "aggregator-unreachable",
        "barred",
        "not-enrolled",
        "declines",
        "no-broadcast",
        "nobody-linked",
    ];

    /// The stable name, as metrics, scripts and scenarios spell it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotInCommittee { .. } => "not-in-committee",
            Self::NoQuorum { .. } => "no-quorum",
            Self::Election => "election",
            Self::LinkCut { .. } => "link-cut",
            Self::VoteOfOldDisk => "vote-of-old-disk",
            Self::CatchingUp => "catching-up",
            Self::Leaving => "leaving",
            Self::Retired => "retired",
            Self::NotRegistered => "not-registered",
            Self::BundlesMissing(_) => "bundles-missing",
            Self::FirstVoters { .. } => "first-voters",
            Self::NoAggregator => "no-aggregator",
            Self::AggregatorAway(_) => "aggregator-away",
            Self::TooFewClients { .. } => "too-few-clients",
            Self::TooFewServers { .. } => "too-few-servers",
            Self::Unsigned { .. } => "unsigned",
            Self::TooFewEnvelopes { .. } => "too-few-envelopes",
            Self::NoAggregate { .. } => "no-aggregate",
            Self::MissingPartial { .. } => "missing-partial",
            Self::NoRounds => "no-rounds",
            Self::NoAnonymity => "no-anonymity",
            Self::NoServer => "no-server",
            Self::StrangersOnly => "strangers-only",
            Self::NotApproved { .. } => "not-approved",
            Self::AggregateNotApplied { .. } => "aggregate-not-applied",
            Self::NoHeader => "no-header",
            Self::ConnectTimeout { .. } => "connect-timeout",
            Self::NoAggregatorKnown => "no-aggregator-known",
            Self::AggregatorUnreachable(_) => "aggregator-unreachable",
            Self::Barred => "barred",
            Self::NotEnrolled => "not-enrolled",
            Self::Declines { .. } => "declines",
            Self::NoBroadcast => "no-broadcast",
            Self::NobodyLinked => "nobody-linked",
        }
    }
}

impl Cause {
    /// Whom it is about.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerId> {
        let of = |pairs: &[(PeerId, bool)]| pairs.iter().map(|(peer, _)| *peer).collect();
        match self {
            Self::NoQuorum { absent, forgot, .. } => absent.iter().chain(forgot).copied().collect(),
            Self::LinkCut { one, other } => vec![*one, *other],
            Self::BundlesMissing(missing)
            | Self::AggregateNotApplied { missing, .. }
            | Self::Declines { missing, .. } => missing.clone(),
            Self::AggregatorAway(aggregator) | Self::AggregatorUnreachable(aggregator) => vec![*aggregator],
            Self::Unsigned { missing, .. } | Self::MissingPartial { missing, .. } => of(missing),
            Self::TooFewEnvelopes { away, .. } => away.clone(),
            Self::NoAggregate { aggregator, .. } => aggregator.iter().copied().collect(),
            Self::NotApproved { refused } => refused.iter().map(|(peer, _)| *peer).collect(),
            Self::NotInCommittee { astray: Some(Step::Follow(peer)) } => vec![*peer],
            Self::NotInCommittee { astray: Some(Step::Wait { missing, .. }) } => missing.clone(),
            Self::NotInCommittee { .. }
            | Self::Election
            | Self::VoteOfOldDisk
            | Self::CatchingUp
            | Self::Leaving
            | Self::Retired
            | Self::NotRegistered
            | Self::FirstVoters { .. }
            | Self::NoAggregator
            | Self::TooFewClients { .. }
            | Self::TooFewServers { .. }
            | Self::NoRounds
            | Self::NoAnonymity
            | Self::NoServer
            | Self::StrangersOnly
            | Self::NoHeader
            | Self::ConnectTimeout { .. }
            | Self::NoAggregatorKnown
            | Self::Barred
            | Self::NotEnrolled
            | Self::NoBroadcast
            | Self::NobodyLinked => Vec::new(),
        }
    }
}

/// What stands in the way of rounds, as far as a node can tell. Empty: the node is ready.
#[must_use]
pub fn causes(view: &View) -> Vec<Cause> {
    match view.role {
        Role::Server => of_server(view),
        Role::Aggregator => of_aggregator(view),
        Role::Client if view.reads => of_reader(view),
        Role::Client => of_client(view),
    }
}

fn of_server(view: &View) -> Vec<Cause> {
    if view.servers.get(&view.me) == Some(&ServerState::Retired) {
        // Nothing else concerns it any more.
        return vec![Cause::Retired];
    }
    if view.voters.is_empty() {
        // Whoever has no log knows nothing else.
        return vec![Cause::NotInCommittee { astray: view.astray.clone() }];
    }
    let mut causes = Vec::new();
    let alive = view.voters.iter().filter(|voter| view.can_vote(voter)).count();
    let led = view.leader.is_some();
    if alive < majority(view.voters.len()) && (!led || view.is_stalled()) {
        let absent = view.voters.iter().filter(|voter| !view.answers(voter)).copied().collect();
        let forgot = view.old_disks.iter().copied().collect();
        causes.push(Cause::NoQuorum { led, alive, voters: view.voters.len(), absent, forgot });
    } else if !led {
        causes.push(cut_to(view, view.me).unwrap_or(Cause::Election));
    }
    let votes = view.voters.contains(&view.me);
    let agrees = causes.is_empty();
    if view.old_disks.contains(&view.me) {
        causes.push(Cause::VoteOfOldDisk);
    } else if !votes {
        // In the part of the log that it has so far it may not even be a learner.
        causes.push(Cause::CatchingUp);
    }
    match view.servers.get(&view.me) {
        Some(ServerState::Registered) => {}
        Some(ServerState::Leaving) => causes.push(Cause::Leaving),
        Some(ServerState::Departed | ServerState::Retired) | None => causes.push(Cause::NotRegistered),
    }
    if !votes {
        // What its log says of everybody else may be long past.
        return causes;
    }
    let is_missing = |voter: &&PeerId| {
        **voter != view.me && view.linked.contains(*voter) && !view.servers.contains_key(*voter)
    };
    let missing: Vec<PeerId> = view.voters.iter().filter(is_missing).copied().collect();
    if !missing.is_empty() {
        causes.push(Cause::BundlesMissing(missing));
    }
    let is_new = view.finalized.is_none() && view.records.is_empty();
    if is_new && count(view.voters.len()) < view.first_voters {
        causes.push(Cause::FirstVoters { voters: view.voters.len(), wanted: view.first_voters });
    }
    let stalled = view.is_stalled();
    match view.aggregator {
        None => causes.push(Cause::NoAggregator),
        Some(aggregator) if stalled && !view.linked.contains(&aggregator) => {
            causes.push(Cause::AggregatorAway(aggregator));
        }
        Some(_) => {}
    }
    if view.clients < view.min_participants {
        causes.push(Cause::TooFewClients { clients: view.clients, floor: view.min_participants });
    }
    let servers = view.servers.values().filter(|state| **state == ServerState::Registered).count();
    if view.open.is_none() && servers > 0 && servers < view.roster_floor {
        causes.push(Cause::TooFewServers { servers, floor: view.roster_floor });
    }
    // Where nothing can be agreed on, nobody is to blame for what a round waits for.
    if stalled && agrees {
        if let Some(open) = late(view) {
            causes.extend(awaited(view, open.round, &open.awaits));
        } else if causes.is_empty() {
            // As long as nothing is known of the next round, it is what the last one waited for.
            match view.abandoned.as_ref().filter(|abandoned| abandoned.age <= view.patience) {
                Some(abandoned) => causes.extend(awaited(view, abandoned.round, &abandoned.awaits)),
                None if view.open.is_some() || view.unexplained < LATE => {}
                None => causes.push(Cause::NoRounds),
            }
        }
    }
    if view.min_participants < 2 {
        causes.push(Cause::NoAnonymity);
    }
    causes
}

/// After so long something that takes a moment in every round is missed.
const LATE: Duration = Duration::from_secs(3);

/// The open round, if what it waits for takes longer than it should.
fn late(view: &View) -> Option<&OpenRound> {
    view.open.as_ref().filter(|open| open.age >= LATE)
}

/// What an open round waits for, as a server sees it.
fn awaited(view: &View, round: Round, awaits: &Awaits) -> Vec<Cause> {
    let linked =
        |missing: &[PeerId]| missing.iter().map(|peer| (*peer, view.answers(peer))).collect::<Vec<_>>();
    // Whoever misses a server that others reach sees half of the matter.
    let cut = |missing: &[PeerId]| missing.iter().find_map(|peer| cut_to(view, *peer));
    let servers = |cause: Cause, missing: &[PeerId]| [cause].into_iter().chain(cut(missing)).collect();
    match awaits {
        Awaits::HeaderSignatures(missing) => {
            servers(Cause::Unsigned { round, missing: linked(missing) }, missing)
        }
        Awaits::Partials(missing) => {
            servers(Cause::MissingPartial { round, missing: linked(missing) }, missing)
        }
        Awaits::Aggregate => match &view.turnout {
            // What was said of an earlier round says nothing of this one.
            Some(turnout) if turnout.round == round => vec![lacking(view, turnout)],
            // Whoever is away is a cause of its own.
            _ if view.aggregator.is_some_and(|aggregator| !view.linked.contains(&aggregator)) => Vec::new(),
            _ => vec![Cause::NoAggregate { round, aggregator: view.aggregator }],
        },
        // Of an aggregator.
        Awaits::Servers(_) => Vec::new(),
    }
}

/// A cut link between a server and another voter.
fn cut_to(view: &View, server: PeerId) -> Option<Cause> {
    let (one, other) = *view.cut.iter().find(|(one, other)| *one == server || *other == server)?;
    Some(Cause::LinkCut { one, other })
}

fn lacking(view: &View, turnout: &Turnout) -> Cause {
    let is_away = |(_, state): &(&PeerId, &ServerState)| **state == ServerState::Departed;
    let away = view.servers.iter().filter(is_away).map(|(peer, _)| *peer).collect();
    Cause::TooFewEnvelopes { floor: view.min_participants, turnout: turnout.clone(), away }
}

fn of_aggregator(view: &View) -> Vec<Cause> {
    // Each of these leaves nothing to say of those that follow.
    let cause = if view.linked.is_empty() {
        Cause::NoServer
    } else if view.strangers_only {
        Cause::StrangersOnly
    } else if view.aggregator.is_none() {
        Cause::NotApproved { refused: view.disapproved.clone() }
    } else if view.clients < view.min_participants {
        Cause::TooFewClients { clients: view.clients, floor: view.min_participants }
    } else if !view.is_stalled() {
        return Vec::new();
    } else if let Some(OpenRound { round, awaits: Awaits::Servers(missing), .. }) = late(view) {
        Cause::AggregateNotApplied { round: *round, missing: missing.clone() }
    } else if let Some(turnout) = &view.turnout {
        lacking(view, turnout)
    } else {
        Cause::NoHeader
    };
    vec![cause]
}

fn of_client(view: &View) -> Vec<Cause> {
    let mut causes = Vec::new();
    if view.unbonded >= CONNECT_TIMEOUT {
        let answers = view.aggregator.is_some_and(|aggregator| view.linked.contains(&aggregator));
        causes.push(Cause::ConnectTimeout { instance: view.instance.clone(), answers });
    }
    match (view.aggregator, &view.declined) {
        (None, _) => causes.push(Cause::NoAggregatorKnown),
        (Some(aggregator), _) if !view.linked.contains(&aggregator) => {
            causes.push(Cause::AggregatorUnreachable(aggregator));
        }
        (Some(_), _) if view.barred => causes.push(Cause::Barred),
        // Its place in the client set is named in other words.
        (Some(_), Some(declined)) if declined.reason != Refused::NotInRegistry => {
            causes.push(Cause::Declines {
                reason: declined.reason,
                servers: declined.servers,
                floor: declined.floor,
                missing: declined.missing.clone(),
            });
        }
        (Some(_), _) if !view.enrolled => causes.push(Cause::NotEnrolled),
        (Some(_), _) => {}
    }
    if causes.is_empty() && view.is_stalled() {
        causes.push(Cause::NoBroadcast);
    }
    causes
}

fn of_reader(view: &View) -> Vec<Cause> {
    let mut causes = Vec::new();
    if view.unbonded >= CONNECT_TIMEOUT {
        causes.push(Cause::ConnectTimeout { instance: view.instance.clone(), answers: false });
    }
    if view.linked.is_empty() {
        causes.push(Cause::NobodyLinked);
    } else if view.is_stalled() {
        causes.push(Cause::NoBroadcast);
    }
    causes
}

/// Servers that a round waits for: what helps depends on whether they answer.
fn awaited_servers(f: &mut fmt::Formatter<'_>, missing: &[(PeerId, bool)]) -> fmt::Result {
    f.write_str(&names(missing.iter().map(|(peer, _)| peer)))?;
    let gone: Vec<&PeerId> = missing.iter().filter(|(_, linked)| !linked).map(|(peer, _)| peer).collect();
    if gone.is_empty() {
        return f.write_str(", linked with this node: the log of that server says why");
    }
    let which = if gone.len() == missing.len() { String::new() } else { format!(" {}", names(gone)) };
    write!(
        f,
        "; not reachable{which}: start it again, or retire it with zipnet retire --dead if it is gone for good"
    )
}

/// What lies behind a reason for which a client takes no part, and what helps. Servers, aggregators and clients say the
/// same.
const fn decline_hint(reason: Refused) -> &'static str {
    match reason {
        Refused::RosterTooSmall => {
            "the roster is smaller than it may be for them: bring the missing server back or add one, restart the clients, or \
             set ZIPNET_MIN_SERVERS on them"
        }
        Refused::PinMissing => "a server of their ZIPNET_SERVERS is not in the roster",
        Refused::ParamsMismatch => "they run with other round parameters",
        Refused::NotInRegistry => "they wait for their place in the registry",
        Refused::RefusedClient => "the operator of a server refuses them",
        Refused::NotAggregator => "they are not linked with the aggregator that the round names",
        Refused::WrongLog => "they know another log: were they pointed to two committees?",
        _ => "their own status says more",
    }
}

fn envelopes(f: &mut fmt::Formatter<'_>, floor: u32, turnout: &Turnout, away: &[PeerId]) -> fmt::Result {
    let Turnout { round, envelopes, absent, declined, .. } = turnout;
    write!(f, "round {round} is waiting for clients: {envelopes} of {floor} envelopes have come")?;
    if *absent > 0 {
        write!(f, "; {absent} registered clients are not linked with the aggregator")?;
    }
    for (reason, clients) in declined {
        write!(f, "; {clients} take no part, reason {reason}: {}", decline_hint(*reason))?;
    }
    if !away.is_empty() {
        write!(f, "; servers that are away: {}", names(away))?;
    }
    Ok(())
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInCommittee { astray } => f.write_str(
                &astray
                    .as_ref()
                    .and_then(explain)
                    .unwrap_or_else(|| "not in the committee yet: waiting for a leader to send the log".to_owned()),
            ),
            Self::NoQuorum { led, alive, voters, absent, forgot } => {
                let what = if *led { "no majority" } else { "no leader" };
                let needed = majority(*voters);
                write!(f, "{what}: {alive} of {voters} voters are reachable and {needed} are needed")?;
                if !absent.is_empty() {
                    write!(f, "; not reachable: {}", names(absent))?;
                }
                if !forgot.is_empty() {
                    write!(f, "; lost with a disk: the vote of {}", names(forgot))?;
                }
                Ok(())
            }
            Self::Election => f.write_str("no leader: an election is under way"),
            Self::LinkCut { one, other } => write!(
                f,
                "{} and {} do not reach each other, although other servers reach both: see to the network between them",
                names([one]),
                names([other])
            ),
            Self::VoteOfOldDisk => f.write_str(
                "this server has a new disk, and its vote is still that of the old one: it is catching up; replace no other disk \
                 before it votes",
            ),
            Self::CatchingUp => f.write_str("this server has no vote yet: it is catching up with the log"),
            Self::Leaving => f.write_str("this server is leaving for good"),
            Self::Retired => f.write_str("this server was retired; its identity is barred"),
            Self::NotRegistered => {
                f.write_str("bundles are not replicated: this server's own is not in the registry")
            }
            Self::BundlesMissing(missing) => {
                write!(f, "bundles are not replicated: not in the registry: {}", names(missing))
            }
            Self::FirstVoters { voters, wanted } => {
                write!(f, "the first round waits for servers: {voters} of {wanted} have a vote")
            }
            Self::NoAggregator => {
                f.write_str("no aggregator is registered: start one, and if ZIPNET_AGGREGATOR is set, the one that it names")
            }
            Self::AggregatorAway(aggregator) => write!(
                f,
                "the aggregator {} is not linked with this server: start it again, or if it is gone for good, start another \
                 one and run zipnet approve on a majority of the servers",
                aggregator.short()
            ),
            Self::TooFewClients { clients, floor } => {
                write!(f, "too few clients: {clients} of {floor} are registered")
            }
            Self::TooFewServers { servers, floor } => write!(
                f,
                "too few servers: {servers} take part, and the largest ZIPNET_MIN_SERVERS among them is {floor}"
            ),
            Self::Unsigned { round, missing } => {
                write!(f, "round {round} is waiting for the header signature of ")?;
                awaited_servers(f, missing)
            }
            Self::TooFewEnvelopes { floor, turnout, away } => envelopes(f, *floor, turnout, away),
            Self::NoAggregate { round, aggregator } => match aggregator {
                Some(aggregator) => write!(
                    f,
                    "round {round} is waiting for the aggregate of {}, which is linked: its own status says why",
                    aggregator.short()
                ),
                None => write!(f, "round {round} is waiting for an aggregate"),
            },
            Self::MissingPartial { round, missing } => {
                write!(f, "round {round} is waiting for the partial of ")?;
                awaited_servers(f, missing)
            }
            Self::NoRounds => f.write_str(
                "no round was finalised for longer than a round of this server may take: the log of the leader says why, or \
                 its ZIPNET_ROUND_PERIOD is a longer one",
            ),
            Self::NoAnonymity => f.write_str(
                "no anonymity: ZIPNET_MIN_PARTICIPANTS is 1, so a round with one participant names its author",
            ),
            Self::NoServer => f.write_str("no server is linked: compare ZIPNET_BOOTSTRAP"),
            Self::StrangersOnly => f.write_str(
                "no server it knows is linked: compare ZIPNET_SERVERS; if all servers were replaced, restart this aggregator \
                 with ZIPNET_BOOTSTRAP",
            ),
            Self::NotApproved { refused } => {
                f.write_str("not approved yet: a majority of the servers must approve this aggregator")?;
                for (server, reason) in refused {
                    let hint = match reason {
                        Refused::AggregatorNotConfigured => "its ZIPNET_AGGREGATOR names another one",
                        Refused::NotAggregator => "the log has another one",
                        _ => "its log says more",
                    };
                    write!(f, "; {} says {reason}: {hint}", names([server]))?;
                }
                if refused.is_empty() {
                    return Ok(());
                }
                f.write_str("; to replace the aggregator of the log, run zipnet approve on a majority of the servers")
            }
            Self::AggregateNotApplied { round, missing } => write!(
                f,
                "the aggregate of round {round} was sent and is not in the log: waiting for {}; the status of a server says why",
                names(missing)
            ),
            Self::NoHeader => f.write_str(
                "no round was finalised for longer than a round may take, and none that the servers have opened has waited \
                 for this aggregator for long: ask a server for its status",
            ),
            Self::ConnectTimeout { instance, answers } => f.write_str(&connect_timeout(instance, *answers)),
            Self::NoAggregatorKnown => {
                f.write_str("no aggregator is known: compare ZIPNET_BOOTSTRAP and ZIPNET_INSTANCE")
            }
            Self::AggregatorUnreachable(aggregator) => {
                write!(f, "the aggregator {} is not reachable", aggregator.short())
            }
            Self::Barred => f.write_str(
                "refused: the operator of a server refuses this client, or has done so within the last 16 rounds",
            ),
            Self::NotEnrolled => f.write_str("not in the client registry yet"),
            Self::Declines { reason: Refused::RosterTooSmall, servers, floor, missing } => write!(
                f,
                "this client takes no part, reason {}: the roster has {servers} servers, and it insists on {floor}{}; it goes \
                 on once they are enough, and a restart or ZIPNET_MIN_SERVERS accepts fewer",
                Refused::RosterTooSmall,
                and_missing(missing)
            ),
            Self::Declines { reason: Refused::PinMissing, missing, .. } => write!(
                f,
                "this client takes no part, reason {}: its ZIPNET_SERVERS names servers that are not in the roster{}",
                Refused::PinMissing,
                and_missing(missing)
            ),
            Self::Declines { reason: Refused::ParamsMismatch, .. } => write!(
                f,
                "this client takes no part, reason {}: it runs with other round parameters than the servers",
                Refused::ParamsMismatch
            ),
            Self::Declines { reason: Refused::RefusedClient, .. } => write!(
                f,
                "this client takes no part, reason {}: the operator of a server refuses it",
                Refused::RefusedClient
            ),
            Self::Declines { reason, .. } => write!(f, "this client takes no part, reason {reason}"),
            Self::NoBroadcast => f.write_str(
                "no broadcast was seen for longer than a round may take: the status of a server or of the aggregator says why",
            ),
            Self::NobodyLinked => f.write_str(
                "no server and no aggregator is linked: compare ZIPNET_BOOTSTRAP and ZIPNET_INSTANCE",
            ),
        }
    }
}

fn and_missing(missing: &[PeerId]) -> String {
    if missing.is_empty() { String::new() } else { format!("; missing: {}", names(missing)) }
}

#[cfg(test)]
mod tests {
    use zipnet_core::id::Digest;

    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn every() -> Vec<Cause> {
        let (round, missing) = (Round(7), vec![(peer(3), false), (peer(4), true)]);
        let turnout =
            Turnout { round, header: Digest::default(), envelopes: 1, absent: 0, declined: Vec::new() };
        vec![
            Cause::NotInCommittee { astray: None },
            Cause::NoQuorum { led: false, alive: 1, voters: 3, absent: vec![peer(2)], forgot: Vec::new() },
            Cause::Election,
            Cause::LinkCut { one: peer(1), other: peer(2) },
            Cause::VoteOfOldDisk,
            Cause::CatchingUp,
            Cause::Leaving,
            Cause::Retired,
            Cause::NotRegistered,
            Cause::BundlesMissing(vec![peer(2)]),
            Cause::FirstVoters { voters: 1, wanted: 3 },
            Cause::NoAggregator,
            Cause::AggregatorAway(peer(9)),
            Cause::TooFewClients { clients: 1, floor: 2 },
            Cause::TooFewServers { servers: 2, floor: 3 },
            Cause::Unsigned { round, missing: missing.clone() },
            Cause::TooFewEnvelopes { floor: 2, turnout, away: Vec::new() },
            Cause::NoAggregate { round, aggregator: Some(peer(9)) },
            Cause::MissingPartial { round, missing },
            Cause::NoRounds,
            Cause::NoAnonymity,
            Cause::NoServer,
            Cause::StrangersOnly,
            Cause::NotApproved { refused: Vec::new() },
            Cause::AggregateNotApplied { round, missing: vec![peer(2)] },
            Cause::NoHeader,
            Cause::ConnectTimeout { instance: "acme".to_owned(), answers: true },
            Cause::NoAggregatorKnown,
            Cause::AggregatorUnreachable(peer(9)),
            Cause::Barred,
            Cause::NotEnrolled,
            Cause::Declines { reason: Refused::PinMissing, servers: 2, floor: 3, missing: vec![peer(3)] },
            Cause::NoBroadcast,
            Cause::NobodyLinked,
        ]
    }

    #[test]
    fn each_cause_has_one_name_one_sentence_and_a_row_on_the_page() {
        let (names, sentences): (Vec<_>, Vec<_>) =
            every().iter().map(|cause| (cause.name(), cause.to_string())).unzip();
        assert_eq!(names, Cause::NAMES);
        let page = include_str!("../../../../docs/operating.md");
        let table = page.split("### Why rounds stall").nth(1).and_then(|rest| rest.split("\n#").next());
        let table = table.unwrap_or_default();
        for (name, sentence) in names.iter().zip(&sentences) {
            assert!(table.contains(&format!("`{name}`")), "{name} stands in no row of the page");
            assert!(!sentence.is_empty() && !sentence.ends_with('.'), "{name}: {sentence}");
        }
        assert_eq!(sentences.iter().collect::<std::collections::BTreeSet<_>>().len(), sentences.len());
    }

    #[test]
    fn what_helps_depends_on_who_answers() {
        let missing = |missing: &[(u8, bool)]| Cause::Unsigned {
            round: Round(7),
            missing: missing.iter().map(|(number, linked)| (peer(*number), *linked)).collect(),
        };
        let text = missing(&[(3, false)]).to_string();
        assert!(text.contains("server-0303030303; not reachable: start it again, or retire it"), "{text}");
        let text = missing(&[(3, false), (4, true)]).to_string();
        assert!(text.contains("; not reachable server-0303030303: start it again"), "{text}");
        assert!(missing(&[(4, true)]).to_string().ends_with("the log of that server says why"));
    }
}
