//! What a node says when it is asked how things are: a table for people, the same as data, and the cause in words when
//! rounds do not finish.
//!
//! [`Status::of`] is a function of a [`View`], which the node fills in; nothing is remembered here.

mod cause;

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use zipnet_core::id::{Digest, GroupId, LogId, PeerId, Role, Round};
use zipnet_core::message::{Record, Turnout};
use zipnet_core::refused::Refused;
use zipnet_facts::fact::Name;

pub use self::cause::{Cause, causes};
use crate::founding::Step;
use crate::meeting::{Removal, ServerState};

/// What a node knows of itself and the others.
#[derive(Clone, Debug)]
pub struct View {
    /// The instance's name.
    pub instance: String,
    /// This node.
    pub me: PeerId,
    /// What it is.
    pub role: Role,
    /// How long it has been up.
    pub uptime: Duration,
    /// The committee that a server belongs to.
    pub group: Option<GroupId>,
    /// The log of a server's committee.
    pub log: Option<LogId>,
    /// Whether no change of the voters is under way. True on clients and the aggregator.
    pub members_settled: bool,
    /// Who leads, as far as this node knows.
    pub leader: Option<PeerId>,
    /// Servers whose vote counts. Empty on clients and the aggregator.
    pub voters: BTreeSet<PeerId>,
    /// Servers that receive the log without a vote.
    pub learners: BTreeSet<PeerId>,
    /// Those of the voters, as far as this node knows, that have another disk than the one that has the vote: nobody can
    /// cast it until it moves to the new disk.
    pub old_disks: BTreeSet<PeerId>,
    /// Whether the disk of this server has a vote, agreed upon, and no other disk of it has one.
    pub votes: bool,
    /// What the committee says about each server it has heard of.
    pub servers: BTreeMap<PeerId, ServerState>,
    /// Servers and aggregator that this node is linked with.
    pub linked: BTreeSet<PeerId>,
    /// How many voters the first round waits for.
    pub first_voters: u32,
    /// What a server that has had no log for some time waits for.
    pub astray: Option<Step>,
    /// The aggregator of the log, or the one that a client uses.
    pub aggregator: Option<PeerId>,
    /// The only aggregator that a server's `ZIPNET_AGGREGATOR` allows.
    pub configured: Option<PeerId>,
    /// The open round.
    pub open: Option<OpenRound>,
    /// The last round, if it was given up, and how long ago that was. Empty on clients and the aggregator.
    pub abandoned: Option<OpenRound>,
    /// How long rounds have stalled without anything in the way that a server knows of.
    pub unexplained: Duration,
    /// The roster of the open round, or of the last one.
    pub roster: Vec<PeerId>,
    /// Clients in the registry.
    pub clients: u32,
    /// The clients that each server refuses; servers that refuse none are left out.
    pub refusals: BTreeMap<PeerId, BTreeSet<PeerId>>,
    /// The clients that the operator of this server refuses and that are registered all the same.
    pub unrefused: BTreeSet<PeerId>,
    /// How many clients one server may keep out.
    pub refused_max: usize,
    /// The largest participant floor among the registered servers.
    pub min_participants: u32,
    /// The largest roster floor among the registered servers; `None`: all of them.
    pub min_servers: Option<u32>,
    /// The fewest servers that a roster may have, as the registered servers ask for.
    pub roster_floor: usize,
    /// Links between voters that have been cut for some time, each by the lower and the higher of the two.
    pub cut: BTreeSet<(PeerId, PeerId)>,
    /// How many clients take part in the open round, from the moment on when they were waited for long enough; until then,
    /// how many took part in the last one if too few did.
    pub turnout: Option<Turnout>,
    /// Servers that do not approve this aggregator, and why.
    pub disapproved: Vec<(PeerId, Refused)>,
    /// The last header that a client was shown, if it takes no part under it.
    pub declined: Option<Declined>,
    /// The last round that this process saw finalised while it took part, and how long ago that was.
    pub finalized: Option<Finalized>,
    /// How many there were.
    pub finalized_count: u64,
    /// The newest finalised rounds that a server holds, oldest first.
    pub records: Vec<RecordView>,
    /// How long a round may take: a server's period and deadline together; elsewhere their defaults, or longer if rounds
    /// are seen to be rarer.
    pub patience: Duration,
    /// Whether an aggregator is linked with servers, and believes none of them.
    pub strangers_only: bool,
    /// Whether a client is in the registry.
    pub enrolled: bool,
    /// Whether a client was told that servers refuse it.
    pub barred: bool,
    /// How long a client has been without an aggregator or out of the registry, or a reader without anybody to ask.
    pub unbonded: Duration,
    /// Whether a client only reads.
    pub reads: bool,
    /// What else an operator should know.
    pub warnings: Vec<String>,
}

/// The open round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRound {
    /// Its number.
    pub round: Round,
    /// How long it has waited for that.
    pub age: Duration,
    /// What it waits for.
    pub awaits: Awaits,
}

/// What a round waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// Signatures under the header.
    HeaderSignatures(Vec<PeerId>),
    /// The aggregate.
    Aggregate,
    /// Partials.
    Partials(Vec<PeerId>),
    /// On an aggregator: servers that have not put the aggregate into the log.
    Servers(Vec<PeerId>),
}

/// A header under which a client takes no part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// Why.
    pub reason: Refused,
    /// How many servers its roster has.
    pub servers: usize,
    /// How many the client insists on.
    pub floor: usize,
    /// Those of them that are not in the roster.
    pub missing: Vec<PeerId>,
}

/// The last finalised round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finalized {
    /// Its number.
    pub round: Round,
    /// How many took part.
    pub participants: u32,
    /// How long ago.
    pub age: Duration,
}

/// A finalised round, without its broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordView {
    /// Of the log.
    pub log: LogId,
    /// Its number.
    pub round: Round,
    /// Of the record.
    pub digest: Digest,
    /// Of the record before it.
    pub previous: Digest,
    /// How many took part.
    pub participants: u32,
    /// The roster.
    pub servers: Vec<PeerId>,
    /// Whether every server of the roster has signed it.
    pub confirmed: bool,
}

impl RecordView {
    /// What is shown of a record.
    #[must_use]
    pub fn of(record: &Record, digest: Digest, confirmed: bool) -> Self {
        Self {
            log: record.log,
            round: record.round,
            digest,
            previous: record.previous,
            participants: record.participants.count_ones(),
            servers: record.servers.clone(),
            confirmed,
        }
    }
}

impl View {
    /// A node that has just started and has not met anybody.
    #[must_use]
    pub fn lonely(instance: &str, me: PeerId, role: Role) -> Self {
        Self {
            instance: instance.to_owned(),
            me,
            role,
            uptime: Duration::ZERO,
            group: None,
            log: None,
            members_settled: true,
            leader: None,
            voters: BTreeSet::new(),
            learners: BTreeSet::new(),
            old_disks: BTreeSet::new(),
            votes: false,
            servers: BTreeMap::new(),
            linked: BTreeSet::new(),
            first_voters: 3,
            astray: None,
            aggregator: None,
            configured: None,
            open: None,
            abandoned: None,
            unexplained: Duration::ZERO,
            roster: Vec::new(),
            clients: 0,
            refusals: BTreeMap::new(),
            unrefused: BTreeSet::new(),
            refused_max: 0,
            min_participants: 1,
            min_servers: None,
            roster_floor: 0,
            cut: BTreeSet::new(),
            turnout: None,
            disapproved: Vec::new(),
            declined: None,
            finalized: None,
            finalized_count: 0,
            records: Vec::new(),
            patience: Duration::from_secs(18),
            strangers_only: false,
            enrolled: false,
            barred: false,
            unbonded: Duration::ZERO,
            reads: false,
            warnings: Vec::new(),
        }
    }
}

impl Default for View {
    /// A server without a name, for tests and for filling in.
    fn default() -> Self {
        Self::lonely("", PeerId::default(), Role::Server)
    }
}

/// Something that an operator should know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Matter {
    /// What it is: a stable name.
    pub name: Name,
    /// Whom it is about, in full.
    pub peers: Vec<String>,
    /// A sentence, which also says what helps.
    pub text: String,
}

impl Matter {
    fn new(name: &'static str, peers: &[PeerId], text: impl Into<String>) -> Self {
        let peers = peers.iter().map(PeerId::to_string).collect();
        Self { name: Name::Borrowed(name), peers, text: text.into() }
    }

    fn of(cause: &Cause) -> Self {
        Self::new(cause.name(), &cause.peers(), cause.to_string())
    }
}

impl fmt::Display for Matter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How a node stands, as it is told and as whoever asks reads it. Field names are an interface for scripts. What a node of
/// another build does not tell is read as nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The instance's name.
    pub instance: String,
    /// This node, in full.
    pub peer: String,
    /// What it is.
    pub role: Name,
    /// Whether rounds finish and hide their participants, as far as this node can tell.
    pub ready: bool,
    /// Why not; the names are [`Cause::NAMES`].
    pub causes: Vec<Matter>,
    /// What an operator should know although rounds may finish.
    pub notes: Vec<Matter>,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// The committee that a server belongs to: instance, committee secret and machine signature together.
    pub group: Option<String>,
    /// The log of a server's committee.
    pub log: Option<String>,
    /// Whether no change of the voters is under way.
    pub members_settled: bool,
    /// Whether the disk of this server has a vote, agreed upon, and no other disk of it has one.
    pub votes: bool,
    /// Who leads.
    pub leader: Option<String>,
    /// One line per server.
    pub servers: Vec<ServerStatus>,
    /// The aggregator.
    pub aggregator: Option<String>,
    /// Clients in the registry.
    pub clients: u32,
    /// How many clients each server refuses, by its peer id; servers that refuse none are left out.
    pub refusals: BTreeMap<String, usize>,
    /// The smallest round.
    pub min_participants: u32,
    /// The smallest roster, if it is not every server.
    pub min_servers: Option<u32>,
    /// The open round.
    pub open_round: Option<u64>,
    /// What it waits for, in words.
    pub awaits: Option<String>,
    /// How many rounds this process has seen finalised while it took part.
    pub finalized_count: u64,
    /// The last of them.
    pub finalized_round: Option<u64>,
    /// Its participants.
    pub finalized_participants: Option<u32>,
    /// Seconds since then.
    pub finalized_age_s: Option<u64>,
}

/// How one server stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerStatus {
    /// The first ten digits of its peer id.
    pub server: String,
    /// Its peer id.
    pub peer: String,
    /// Whether it leads.
    pub leader: bool,
    /// `voter`, `learner` or `none`; `old-disk` if the vote is that of a disk which the server no longer has.
    pub vote: Name,
    /// `registered`, `departed`, `leaving`, `retired` or `unknown`.
    pub standing: Name,
    /// Whether it is this node or linked with it.
    pub linked: bool,
    /// Whether the last roster lists it.
    pub in_roster: bool,
}

impl Status {
    /// Makes a status of what a node knows.
    #[must_use]
    pub fn of(view: &View) -> Self {
        let causes = causes(view);
        let causes: Vec<_> = causes.iter().map(Matter::of).collect();
        let mut all: BTreeSet<PeerId> = view.voters.union(&view.learners).copied().collect();
        all.extend(view.servers.keys());
        let servers = all.iter().map(|peer| ServerStatus {
            server: peer.short(),
            peer: peer.to_string(),
            leader: view.leader == Some(*peer),
            vote: Name::Borrowed(if view.old_disks.contains(peer) {
                "old-disk"
            } else if view.voters.contains(peer) {
                "voter"
            } else if view.learners.contains(peer) {
                "learner"
            } else {
                "none"
            }),
            standing: Name::Borrowed(match view.servers.get(peer) {
                Some(ServerState::Registered) => "registered",
                Some(ServerState::Departed) => "departed",
                Some(ServerState::Leaving) => "leaving",
                Some(ServerState::Retired) => "retired",
                None => "unknown",
            }),
            linked: view.answers(peer),
            in_roster: view.roster.contains(peer),
        });
        Self {
            instance: view.instance.clone(),
            peer: view.me.to_string(),
            role: Name::Borrowed(if view.reads { "reader" } else { view.role.name() }),
            ready: causes.is_empty(),
            causes,
            notes: notes(view),
            uptime_s: view.uptime.as_secs(),
            group: view.group.map(|group| group.to_string()),
            log: view.log.map(|log| log.to_string()),
            members_settled: view.members_settled,
            votes: view.votes,
            leader: view.leader.map(|leader| leader.short()),
            servers: servers.collect(),
            aggregator: view.aggregator.map(|aggregator| aggregator.short()),
            clients: view.clients,
            refusals: view
                .refusals
                .iter()
                .map(|(server, clients)| (server.to_string(), clients.len()))
                .collect(),
            min_participants: view.min_participants,
            min_servers: view.min_servers,
            open_round: view.open.as_ref().map(|open| open.round.0),
            awaits: view.open.as_ref().map(|open| awaited(view, open)),
            finalized_count: view.finalized_count,
            finalized_round: view.finalized.map(|finalized| finalized.round.0),
            finalized_participants: view.finalized.map(|finalized| finalized.participants),
            finalized_age_s: view.finalized.map(|finalized| finalized.age.as_secs()),
        }
    }

    /// Whether rounds finish and hide their participants, as far as this node can tell.
    ///
    /// # Errors
    /// The causes, each a sentence.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        if self.causes.is_empty() { Ok(()) } else { Err(self.causes.iter().map(Matter::to_string).collect()) }
    }
}

/// After how long without an aggregator, or in no round's registry, a client gives its publisher a `ConnectTimeout`.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a publisher sees whose instance does not answer: it was retired, or never existed under this name. An aggregator
/// that has no server any more still answers.
#[must_use]
pub fn connect_timeout(instance: &str, answers: bool) -> String {
    let seconds = CONNECT_TIMEOUT.as_secs();
    if answers {
        format!(
            "ConnectTimeout: an aggregator of instance {instance} answers, but no round counted this client in for {seconds} s; \
             the instance may have been retired, or wait for servers or clients"
        )
    } else {
        format!(
            "ConnectTimeout: no aggregator of instance {instance} answered for {seconds} s; it may have been retired"
        )
    }
}

impl View {
    fn answers(&self, peer: &PeerId) -> bool {
        *peer == self.me || self.linked.contains(peer)
    }

    /// Whether this voter's vote can be cast, as far as this node knows.
    #[must_use]
    pub fn can_vote(&self, voter: &PeerId) -> bool {
        self.answers(voter) && !self.old_disks.contains(voter)
    }

    /// What [`crate::meeting::may_retire`] wants to know, as far as this node knows it.
    #[must_use]
    pub fn removal(&self, target: PeerId, dead: bool) -> Removal {
        let asked = self.voters.iter().chain([&target]);
        let alive = asked.filter(|peer| self.can_vote(peer) || (**peer == target && self.answers(peer)));
        let alive = alive.copied().collect();
        let listed = self.servers.get(&target).is_some_and(|state| *state != ServerState::Retired);
        Removal { voters: self.voters.clone(), alive, target, listed, dead }
    }

    /// Whether no round was finalised for longer than a round may take.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        let since = self.finalized.map_or(self.uptime, |finalized| finalized.age);
        since > self.patience
    }
}

fn notes(view: &View) -> Vec<Matter> {
    let mut notes: Vec<_> =
        view.warnings.iter().map(|warning| Matter::new("warning", &[], warning.as_str())).collect();
    let mut note = |name, peers: &[PeerId], text: String| notes.push(Matter::new(name, peers, text));
    if view.reads && !view.linked.is_empty() {
        match view.aggregator {
            None => note(
                "no-aggregator-linked",
                &[],
                "no aggregator is linked: servers keep the newest 8 broadcasts only, and show them when asked"
                    .to_owned(),
            ),
            Some(aggregator) if view.linked.iter().all(|peer| *peer == aggregator) => note(
                "no-server-linked",
                &[aggregator],
                "no server is linked: the aggregator alone decides which broadcasts are seen".to_owned(),
            ),
            Some(_) => {}
        }
    }
    for voter in &view.voters {
        let name = voter.short();
        if view.old_disks.contains(voter) && *voter != view.me {
            let text = format!(
                "server {name} has a new disk, and its vote is still that of the old one: replace no other disk before it \
                 votes"
            );
            note("vote-of-old-disk", &[*voter], text);
        }
        if view.answers(voter) {
            continue;
        }
        match view.servers.get(voter) {
            Some(ServerState::Departed) => note(
                "vote-still-counts",
                &[*voter],
                format!(
                    "server {name} has departed and is expected back; its vote still counts: if it was removed, run zipnet \
                     retire --dead"
                ),
            ),
            Some(ServerState::Registered) | None => note(
                "vote-still-counts",
                &[*voter],
                format!("server {name} is not reachable and has announced nothing; its vote still counts"),
            ),
            Some(ServerState::Leaving | ServerState::Retired) => note(
                "vote-about-to-be-removed",
                &[*voter],
                format!("server {name} is gone for good; its vote is about to be removed"),
            ),
        }
    }
    if let (Some(configured), Some(aggregator)) = (view.configured, view.aggregator)
        && configured != aggregator
    {
        let text = format!(
            "the aggregator of the log is {}, and ZIPNET_AGGREGATOR names {}: set it to the first before this server starts \
             again, or it approves no later key of that one",
            aggregator.short(),
            configured.short()
        );
        note("another-aggregator", &[aggregator, configured], text);
    }
    let refused = view.refusals.get(&view.me).map_or(0, BTreeSet::len);
    if !view.unrefused.is_empty() && refused >= view.refused_max {
        let text = format!(
            "{} of the clients that zipnet refuse lists on this server are registered and not refused: one server may \
             keep out {}",
            view.unrefused.len(),
            view.refused_max
        );
        note("refuses-too-many", &[], text);
    }
    let voters = view.voters.len();
    if (1..3).contains(&voters) {
        let text = format!(
            "{voters} of the advised 3 servers have a vote: rounds and changes stop when one of them stops"
        );
        note("few-voters", &[], text);
    } else if voters > 0 && voters.is_multiple_of(2) {
        let fewer = voters - 1;
        let text =
            format!("{voters} servers have a vote: an even number tolerates no more failures than {fewer}");
        note("even-voters", &[], text);
    }
    if let Some(floor) = view.min_servers
        && !view.roster.is_empty()
        && count(view.roster.len()) < count(view.servers.len())
    {
        let text = format!(
            "the roster has {} of {} known servers; at least {floor} are required",
            view.roster.len(),
            view.servers.len()
        );
        note("roster-incomplete", &[], text);
    }
    notes
}

fn awaited(view: &View, open: &OpenRound) -> String {
    match &open.awaits {
        Awaits::HeaderSignatures(from) => format!("waiting for the header signature of {}", names(from)),
        Awaits::Aggregate => match (&view.turnout, view.aggregator) {
            (Some(turnout), _) if turnout.round == open.round => format!(
                "waiting for clients: {} of {} envelopes have come",
                turnout.envelopes, view.min_participants
            ),
            (_, Some(aggregator)) => format!("waiting for the aggregate of {}", aggregator.short()),
            (_, None) => "waiting for an aggregate".to_owned(),
        },
        Awaits::Partials(from) => format!("waiting for the partial of {}", names(from)),
        Awaits::Servers(from) => format!("waiting for {} to put the aggregate into the log", names(from)),
    }
}

fn names<'a>(peers: impl IntoIterator<Item = &'a PeerId>) -> String {
    let names: Vec<_> = peers.into_iter().map(|peer| format!("server-{}", peer.short())).collect();
    names.join(", ")
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &str| writeln!(f, "{name:<14}{value}");
        row("instance", &self.instance)?;
        row("node", &format!("{} {}", self.role, self.peer))?;
        row("ready", if self.ready { "yes" } else { "no" })?;
        // Only servers are told who leads.
        if self.role == Role::Server.name() {
            row("leader", self.leader.as_deref().unwrap_or("none"))?;
        }
        row("aggregator", self.aggregator.as_deref().unwrap_or("none"))?;
        // A client is told neither how many there are nor how many it takes.
        if self.role == Role::Server.name() || self.role == Role::Aggregator.name() {
            row("clients", &format!("{} (a round needs {})", self.clients, self.min_participants))?;
        }
        if !self.refusals.is_empty() {
            let short = |server: &str| server.get(..10).unwrap_or(server).to_owned();
            let by = self.refusals.iter().map(|(server, clients)| format!("{clients} by {}", short(server)));
            row("refused", &by.collect::<Vec<_>>().join(", "))?;
        }
        let open = match (self.open_round, &self.awaits) {
            (Some(round), Some(awaits)) => format!("r{round}, {awaits}"),
            _ => "none".to_owned(),
        };
        row("open round", &open)?;
        let last = match (self.finalized_round, self.finalized_participants, self.finalized_age_s) {
            (Some(round), Some(participants), Some(age)) => {
                format!("r{round}, {participants} participants, {age} s ago")
            }
            _ => "none since this node started".to_owned(),
        };
        row("last round", &last)?;
        if !self.servers.is_empty() {
            writeln!(f, "\n{:<12}{:<9}{:<12}{:<8}roster", "server", "vote", "standing", "linked")?;
        }
        for server in &self.servers {
            let yes = |yes| if yes { "yes" } else { "no" };
            let leads = if server.leader { "leads" } else { "" };
            let line = format!(
                "{:<12}{:<9}{:<12}{:<8}{:<8}{leads}",
                server.server,
                server.vote,
                server.standing,
                yes(server.linked),
                yes(server.in_roster)
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        for (title, matters) in [("not ready", &self.causes), ("note", &self.notes)] {
            if !matters.is_empty() {
                writeln!(f)?;
            }
            for matter in matters {
                writeln!(f, "{title}: {matter}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meeting::cut_links;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    /// Three servers, one aggregator, four clients, and all is well.
    fn healthy() -> View {
        View {
            uptime: Duration::from_secs(3600),
            leader: Some(peer(2)),
            voters: (1..=3).map(peer).collect(),
            servers: (1..=3).map(|number| (peer(number), ServerState::Registered)).collect(),
            linked: [2, 3, 9].into_iter().map(peer).collect(),
            aggregator: Some(peer(9)),
            roster: (1..=3).map(peer).collect(),
            clients: 4,
            min_participants: 2,
            finalized: Some(Finalized { round: Round(17), participants: 4, age: Duration::from_secs(2) }),
            ..View::lonely("acme.mainnet", peer(1), Role::Server)
        }
    }

    fn open(awaits: Awaits) -> Option<OpenRound> {
        Some(OpenRound { round: Round(18), age: Duration::from_secs(9), awaits })
    }

    fn causes(view: &View) -> Vec<String> {
        Status::of(view).readiness().err().unwrap_or_default()
    }

    /// The names of what stands in the way.
    fn names(status: &Status) -> Vec<String> {
        status.causes.iter().map(|cause| cause.name.to_string()).collect()
    }

    /// The sentences of the notes.
    fn noted(status: &Status) -> Vec<String> {
        status.notes.iter().map(|note| note.text.clone()).collect()
    }

    #[test]
    fn a_healthy_committee_is_ready_and_silent() {
        let status = Status::of(&healthy());
        assert_eq!(status.readiness(), Ok(()));
        assert_eq!(status.notes, []);
    }

    #[test]
    fn a_new_disk_is_no_voter_before_it_has_the_vote() {
        let view = View { old_disks: [peer(3)].into(), ..healthy() };
        let status = Status::of(&view);
        assert_eq!(status.readiness(), Ok(()), "rounds go on");
        assert!(
            status.notes[0]
                .text
                .starts_with("server 0303030303 has a new disk, and its vote is still that of the old one")
        );
        let votes: Vec<_> = status.servers.iter().map(|server| &*server.vote).collect();
        assert_eq!(votes, ["voter", "voter", "old-disk"]);
        let own = View { me: peer(3), linked: [1, 2, 9].map(peer).into(), ..view.clone() };
        assert!(
            causes(&own)[0]
                .starts_with("this server has a new disk, and its vote is still that of the old one")
        );
        // With the second disk the majority is gone, although everybody answers.
        let both = View { old_disks: [peer(2), peer(3)].into(), leader: None, ..view };
        assert_eq!(
            causes(&both)[0],
            "no leader: 1 of 3 voters are reachable and 2 are needed; lost with a disk: the vote of server-0202020202, \
             server-0303030303"
        );
    }

    #[test]
    fn causes_of_stuck_rounds_are_named_in_words() {
        let long_ago = Some(Finalized { round: Round(17), participants: 4, age: Duration::from_secs(60) });
        let table: [(View, &str); 9] = [
            (View { clients: 1, ..healthy() }, "too few clients: 1 of 2 are registered"),
            (
                View { leader: None, linked: BTreeSet::new(), ..healthy() },
                "no leader: 1 of 3 voters are reachable and 2 are needed; not reachable: server-0202020202, \
                 server-0303030303",
            ),
            (View { leader: None, ..healthy() }, "no leader: an election is under way"),
            (
                View {
                    finalized: long_ago,
                    open: open(Awaits::HeaderSignatures(vec![peer(3)])),
                    ..healthy()
                },
                "round r18 is waiting for the header signature of server-0303030303, linked with this node: the log of \
                 that server says why",
            ),
            (
                View { finalized: long_ago, open: open(Awaits::Aggregate), ..healthy() },
                "round r18 is waiting for the aggregate of 0909090909, which is linked: its own status says why",
            ),
            (
                View {
                    finalized: long_ago,
                    open: open(Awaits::Partials(vec![peer(2), peer(3)])),
                    ..healthy()
                },
                "round r18 is waiting for the partial of server-0202020202, server-0303030303, linked with this node: the \
                 log of that server says why",
            ),
            (
                View {
                    servers: [(peer(1), ServerState::Registered), (peer(2), ServerState::Registered)].into(),
                    ..healthy()
                },
                "bundles are not replicated: not in the registry: server-0303030303",
            ),
            (
                View { aggregator: None, ..healthy() },
                "no aggregator is registered: start one, and if ZIPNET_AGGREGATOR is set, the one that it names",
            ),
            (
                View { min_participants: 1, ..healthy() },
                "no anonymity: ZIPNET_MIN_PARTICIPANTS is 1, so a round with one participant names its author",
            ),
        ];
        for (view, cause) in table {
            assert_eq!(causes(&view), [cause]);
        }
    }

    /// A round stalls for clients: two of five are away, and two do not like the roster.
    fn unattended() -> View {
        let turnout = Turnout {
            round: Round(18),
            header: Digest::default(),
            envelopes: 1,
            absent: 2,
            declined: vec![(Refused::RosterTooSmall, 2)],
        };
        let mut view = View {
            finalized: Some(Finalized { round: Round(17), participants: 4, age: Duration::from_secs(60) }),
            open: open(Awaits::Aggregate),
            turnout: Some(turnout),
            ..healthy()
        };
        view.servers.insert(peer(3), ServerState::Departed);
        view
    }

    #[test]
    fn nobody_else_is_blamed_for_clients_that_stay_away() {
        let sentence = "round r18 is waiting for clients: 1 of 2 envelopes have come; 2 registered clients are not linked \
                        with the aggregator; 2 take no part, reason roster-too-small: the roster is smaller than it may be \
                        for them: bring the missing server back or add one, restart the clients, or set ZIPNET_MIN_SERVERS \
                        on them; servers that are away: server-0303030303";
        let status = Status::of(&unattended());
        assert_eq!(
            (status.causes[0].text.as_str(), &*status.causes[0].name),
            (sentence, "too-few-envelopes")
        );
        assert_eq!(status.awaits.as_deref(), Some("waiting for clients: 1 of 2 envelopes have come"));
        // The aggregator says the same.
        let aggregator =
            View { me: peer(9), role: Role::Aggregator, servers: BTreeMap::new(), ..unattended() };
        let status = Status::of(&aggregator);
        assert_eq!(names(&status), ["too-few-envelopes"]);
        assert!(sentence.starts_with(&status.causes[0].text), "{}", status.causes[0]);
        // And so does a client, in its own words.
        let declined =
            Declined { reason: Refused::RosterTooSmall, servers: 2, floor: 3, missing: vec![peer(3)] };
        let client = View {
            enrolled: true,
            aggregator: Some(peer(9)),
            linked: [peer(9)].into(),
            ..View::lonely("a", peer(7), Role::Client)
        };
        let client = View { declined: Some(declined), ..client };
        assert_eq!(
            causes(&client),
            [
                "this client takes no part, reason roster-too-small: the roster has 2 servers, and it insists on 3; missing: \
                 server-0303030303; it goes on once they are enough, and a restart or ZIPNET_MIN_SERVERS accepts fewer"
            ]
        );
    }

    #[test]
    fn a_cut_link_is_named_by_whoever_can_see_it() {
        let set = |peers: &[u8]| peers.iter().map(|number| peer(*number)).collect::<BTreeSet<_>>();
        let stalled = Some(Finalized { round: Round(17), participants: 4, age: Duration::from_secs(60) });
        let unsigned = |missing: u8| open(Awaits::HeaderSignatures(vec![peer(missing)]));
        let cut = |reach: &[(u8, &[u8])]| {
            let reach = reach.iter().map(|(who, whom)| (peer(*who), set(whom))).collect();
            cut_links(&healthy().voters, &reach)
        };
        // Between the second and the third; the first reaches both, and the second leads.
        let bridge = View {
            finalized: stalled,
            open: unsigned(3),
            cut: cut(&[(1, &[2, 3]), (2, &[1]), (3, &[1])]),
            ..healthy()
        };
        let leader = View {
            me: peer(2),
            linked: set(&[1, 9]),
            cut: cut(&[(2, &[1]), (1, &[2, 3])]),
            ..bridge.clone()
        };
        let cut_off = View {
            me: peer(3),
            leader: None,
            linked: set(&[1, 9]),
            open: None,
            cut: cut(&[(3, &[1]), (1, &[2, 3])]),
            ..bridge.clone()
        };
        for view in [&bridge, &leader, &cut_off] {
            let status = Status::of(view);
            assert!(names(&status).contains(&"link-cut".to_owned()), "{:?}", status.causes);
            let sentence =
                status.causes.iter().find(|cause| cause.text.contains("do not reach each other")).unwrap();
            assert_eq!(sentence.peers.len(), 2, "both are named: {sentence:?}");
            let sentence = &sentence.text;
            assert!(
                sentence.contains("server-0202020202") && sentence.contains("server-0303030303"),
                "{sentence}"
            );
        }
        // Without anybody who reaches both, there is no link to mend.
        let down = View { cut: cut(&[(1, &[2]), (2, &[1])]), ..bridge };
        assert_eq!(names(&Status::of(&down)), ["unsigned"]);
    }

    #[test]
    fn what_else_keeps_rounds_from_being_opened_has_a_name() {
        let stalled = Some(Finalized { round: Round(17), participants: 4, age: Duration::from_secs(60) });
        let names = |view: &View| names(&Status::of(view));
        let without = View { finalized: stalled, linked: [peer(2), peer(3)].into(), ..healthy() };
        assert_eq!(names(&without), ["aggregator-away"]);
        let folding = View { open: open(Awaits::Aggregate), ..without };
        assert_eq!(names(&folding), ["aggregator-away"], "once is enough");
        assert_eq!(names(&View { roster_floor: 4, ..healthy() }), ["too-few-servers"]);
        let silent = View { finalized: stalled, unexplained: Duration::from_secs(3), ..healthy() };
        assert_eq!(names(&silent), ["no-rounds"]);
        let at_once = View { unexplained: Duration::from_secs(2), ..silent };
        assert_eq!(names(&at_once), Vec::<&str>::new(), "the next round may be about to be opened");
        // A leader without a majority is remembered by its followers.
        let lost = View { linked: [peer(9)].into(), ..healthy() };
        assert_eq!(names(&lost), Vec::<&str>::new(), "the leader may still reach the others");
        let lost = View { finalized: stalled, ..lost };
        assert_eq!(names(&lost), ["no-quorum"]);
        assert!(
            causes(&lost)[0].starts_with("no majority: 1 of 3 voters are reachable"),
            "{:?}",
            causes(&lost)
        );

        let aggregator =
            View { finalized: stalled, ..View { me: peer(9), role: Role::Aggregator, ..healthy() } };
        assert_eq!(names(&aggregator), ["no-header"]);
        let sent = View { open: open(Awaits::Servers(vec![peer(3)])), ..aggregator.clone() };
        assert_eq!(names(&sent), ["aggregate-not-applied"]);
        let refused = vec![(peer(2), Refused::AggregatorNotConfigured)];
        let refused = View { aggregator: None, disapproved: refused, ..aggregator };
        assert_eq!(
            causes(&refused),
            [
                "not approved yet: a majority of the servers must approve this aggregator; server-0202020202 says \
                 aggregator-not-configured: its ZIPNET_AGGREGATOR names another one; to replace the aggregator of the log, run \
                 zipnet approve on a majority of the servers"
            ]
        );
    }

    #[test]
    fn until_a_round_is_late_it_is_what_the_last_one_waited_for() {
        let names = |view: &View| names(&Status::of(view));
        let round = |round, age, awaits| {
            Some(OpenRound { round: Round(round), age: Duration::from_millis(age), awaits })
        };
        let stalled = View {
            finalized: Some(Finalized { round: Round(17), participants: 4, age: Duration::from_secs(60) }),
            unexplained: Duration::from_secs(60),
            ..healthy()
        };
        let partials = || Awaits::Partials(vec![peer(3)]);
        let next = View {
            abandoned: round(18, 200, partials()),
            open: round(19, 200, Awaits::HeaderSignatures(vec![peer(2)])),
            ..stalled.clone()
        };
        assert_eq!(names(&next), ["missing-partial"]);
        assert!(causes(&next)[0].starts_with("round r18 is waiting for the partial of server-0303030303"));
        assert_eq!(names(&View { open: None, ..next.clone() }), ["missing-partial"], "nor is one open yet");
        let late = View { open: round(19, 3000, Awaits::HeaderSignatures(vec![peer(2)])), ..next.clone() };
        assert_eq!(names(&late), ["unsigned"], "it waits for something else");
        // What is known of the present comes first.
        let below = View { open: None, roster_floor: 4, ..next.clone() };
        assert_eq!(names(&below), ["too-few-servers"]);
        let long_ago = View { open: None, abandoned: round(18, 60_000, partials()), ..next };
        assert_eq!(names(&long_ago), ["no-rounds"], "none was opened since");
        let first = View { open: round(18, 200, Awaits::HeaderSignatures(vec![peer(2)])), ..stalled };
        assert_eq!(names(&first), Vec::<&str>::new(), "nothing is late yet");
    }

    #[test]
    fn a_server_without_a_vote_does_not_speak_of_the_past() {
        // In the part of the log that it has, there are one voter, no aggregator and no clients.
        let view = View {
            voters: [peer(2)].into(),
            servers: [(peer(2), ServerState::Registered)].into(),
            aggregator: None,
            clients: 0,
            finalized: None,
            ..healthy()
        };
        let status = Status::of(&view);
        assert_eq!(names(&status), ["catching-up", "not-registered"]);
        let unled = View { leader: None, linked: BTreeSet::new(), ..view };
        assert_eq!(names(&Status::of(&unled)), ["no-quorum", "catching-up", "not-registered"]);
    }

    #[test]
    fn nothing_concerns_a_retired_server_any_more() {
        let mut view = View { leader: None, linked: BTreeSet::new(), aggregator: None, ..healthy() };
        view.servers.insert(peer(1), ServerState::Retired);
        assert_eq!(causes(&view), ["this server was retired; its identity is barred"]);
    }

    #[test]
    fn an_aggregator_names_the_first_thing_that_is_wrong() {
        let names = |view: &View| names(&Status::of(view));
        let aggregator = View { me: peer(9), role: Role::Aggregator, ..unattended() };
        assert_eq!(names(&View { open: None, ..aggregator.clone() }), ["too-few-envelopes"], "of the last");
        let few = View { clients: 1, ..aggregator.clone() };
        assert_eq!(names(&few), ["too-few-clients"]);
        let unknown = View { aggregator: None, ..few };
        assert_eq!(names(&unknown), ["not-approved"]);
        let strangers = View { strangers_only: true, ..unknown };
        assert_eq!(names(&strangers), ["strangers-only"], "they have nothing to approve");
        assert_eq!(names(&View { linked: BTreeSet::new(), ..strangers }), ["no-server"]);
        // Servers take their time to put an aggregate into the log.
        let sent = |age| OpenRound {
            round: Round(18),
            age: Duration::from_millis(age),
            awaits: Awaits::Servers(vec![peer(3)]),
        };
        let sent = |age| View { turnout: None, open: Some(sent(age)), ..aggregator.clone() };
        assert_eq!(names(&sent(300)), ["no-header"]);
        assert_eq!(names(&sent(3300)), ["aggregate-not-applied"]);
    }

    #[test]
    fn an_aggregator_that_was_approved_by_hand_is_to_be_configured() {
        let status = Status::of(&View { configured: Some(peer(8)), ..healthy() });
        assert!(status.ready);
        assert!(
            status.notes[0].text.starts_with(
                "the aggregator of the log is 0909090909, and ZIPNET_AGGREGATOR names 0808080808"
            )
        );
        assert_eq!(Status::of(&View { configured: Some(peer(9)), ..healthy() }).notes, []);
    }

    #[test]
    fn a_server_on_its_way_in_says_where_it_is() {
        let mut view = View { voters: [peer(2), peer(3)].into(), ..healthy() };
        view.servers.remove(&peer(1));
        view.learners.insert(peer(1));
        assert_eq!(
            causes(&view),
            [
                "this server has no vote yet: it is catching up with the log",
                "bundles are not replicated: this server's own is not in the registry",
            ]
        );
        let view = View::lonely("acme.mainnet", peer(1), Role::Server);
        assert_eq!(causes(&view), ["not in the committee yet: waiting for a leader to send the log"]);
        let view = View { voters: [peer(1)].into(), finalized: None, uptime: Duration::ZERO, ..healthy() };
        assert!(causes(&view).contains(&"the first round waits for servers: 1 of 3 have a vote".to_owned()));
    }

    #[test]
    fn votes_of_absent_servers_still_count_and_status_says_so() {
        let mut view = healthy();
        view.linked.remove(&peer(3));
        assert_eq!(
            noted(&Status::of(&view)),
            ["server 0303030303 is not reachable and has announced nothing; its vote still counts"]
        );
        view.servers.insert(peer(3), ServerState::Departed);
        assert!(Status::of(&view).notes[0].text.contains("its vote still counts: if it was removed"));
        view.voters.insert(peer(4));
        view.linked.insert(peer(4));
        assert!(
            Status::of(&view).notes.iter().any(|note| note.text.contains("even number tolerates no more"))
        );
        view.voters = [peer(1), peer(2)].into();
        assert!(
            Status::of(&view).notes.iter().any(|note| note.text.starts_with("2 of the advised 3 servers"))
        );
    }

    #[test]
    fn clients_and_aggregators_know_their_own_causes() {
        let client = View::lonely("acme.mainnet", peer(1), Role::Client);
        assert_eq!(causes(&client), ["no aggregator is known: compare ZIPNET_BOOTSTRAP and ZIPNET_INSTANCE"]);
        let client = View { aggregator: Some(peer(9)), linked: [peer(9)].into(), ..client };
        assert_eq!(causes(&client), ["not in the client registry yet"]);
        let left_out = View { unbonded: CONNECT_TIMEOUT, ..client.clone() };
        assert!(
            causes(&left_out)[0]
                .starts_with("ConnectTimeout: an aggregator of instance acme.mainnet answers")
        );
        let client = View { enrolled: true, ..client };
        assert_eq!(causes(&client), Vec::<String>::new());
        let client = View { uptime: Duration::from_secs(60), ..client };
        let silent = "no broadcast was seen for longer than a round may take: the status of a server or of the aggregator says \
                      why";
        assert_eq!(causes(&client), [silent]);

        let reader = View { reads: true, ..View::lonely("acme.mainnet", peer(1), Role::Client) };
        assert_eq!(
            causes(&reader),
            ["no server and no aggregator is linked: compare ZIPNET_BOOTSTRAP and ZIPNET_INSTANCE"]
        );
        let lost = View { unbonded: CONNECT_TIMEOUT, ..reader.clone() };
        assert!(causes(&lost)[0].starts_with("ConnectTimeout: "), "{:?}", causes(&lost));
        let reader = View { linked: [peer(2)].into(), ..reader };
        assert_eq!(causes(&reader), Vec::<String>::new());
        assert!(Status::of(&reader).notes[0].text.starts_with("no aggregator is linked"));
        let reader = View { aggregator: Some(peer(2)), ..reader };
        assert!(Status::of(&reader).notes[0].text.starts_with("no server is linked"));
        let reader = View { linked: [peer(2), peer(3)].into(), ..reader };
        let status = Status::of(&reader);
        assert_eq!((&*status.role, status.notes), ("reader", vec![]));
        let reader = View { uptime: Duration::from_secs(60), ..reader };
        assert_eq!(causes(&reader), [silent]);

        let aggregator =
            View { linked: [peer(1)].into(), clients: 1, ..View::lonely("a", peer(9), Role::Aggregator) };
        assert_eq!(
            causes(&aggregator),
            ["not approved yet: a majority of the servers must approve this aggregator"]
        );
        let lost = View { strangers_only: true, ..aggregator };
        assert!(causes(&lost)[0].starts_with("no server it knows is linked"), "{:?}", causes(&lost));
    }

    #[test]
    fn table_for_people_is_stable() {
        let mut view = View { clients: 1, open: open(Awaits::Partials(vec![peer(3)])), ..healthy() };
        view.linked.remove(&peer(3));
        let expected = "\
instance      acme.mainnet
node          server 0101010101010101010101010101010101010101010101010101010101010101
ready         no
leader        0202020202
aggregator    0909090909
clients       1 (a round needs 2)
open round    r18, waiting for the partial of server-0303030303
last round    r17, 4 participants, 2 s ago

server      vote     standing    linked  roster
0101010101  voter    registered  yes     yes
0202020202  voter    registered  yes     yes     leads
0303030303  voter    registered  no      yes

not ready: too few clients: 1 of 2 are registered

note: server 0303030303 is not reachable and has announced nothing; its vote still counts
";
        assert_eq!(Status::of(&view).to_string(), expected);
    }

    #[test]
    fn whoever_is_refused_is_counted_and_told() {
        let refusing = View {
            refusals: [(peer(1), (100..116).map(peer).collect()), (peer(3), [peer(100)].into())].into(),
            ..healthy()
        };
        let status = Status::of(&refusing);
        assert_eq!((status.ready, status.notes.len()), (true, 0));
        assert!(
            status.to_string().contains("\nrefused       16 by 0101010101, 1 by 0303030303\n"),
            "{status}"
        );
        let full = View { unrefused: [peer(120), peer(121)].into(), refused_max: 16, ..refusing };
        assert_eq!(
            noted(&Status::of(&full)),
            [
                "2 of the clients that zipnet refuse lists on this server are registered and not refused: one server may \
              keep out 16"
            ]
        );
        let client = View {
            aggregator: Some(peer(9)),
            linked: [peer(9)].into(),
            barred: true,
            ..View::lonely("acme.mainnet", peer(1), Role::Client)
        };
        assert_eq!(
            causes(&client),
            [
                "refused: the operator of a server refuses this client, or has done so within the last 16 rounds"
            ]
        );
    }

    #[test]
    fn data_for_scripts_is_stable() {
        let json = serde_json::to_value(Status::of(&healthy())).unwrap();
        assert_eq!(json["ready"], true);
        assert_eq!(json["finalized_round"], 17);
        assert_eq!(json["servers"][1]["leader"], true);
        assert_eq!(json["open_round"], serde_json::Value::Null);
        let names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names.len(), 24, "{names:?}");
        let cause = serde_json::to_value(Matter::of(&Cause::Election)).unwrap();
        assert_eq!((&cause["name"], &cause["peers"]), (&"election".into(), &serde_json::json!([])));
    }
}
