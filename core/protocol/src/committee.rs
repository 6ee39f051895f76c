//! The replicated machine of the committee: what the log means.
//!
//! Every server applies the same commands in the same order and reaches the same state. A refused command changes
//! nothing and says why; every command is idempotent. There is no clock and no I/O here.
//!
//! ```text
//! StartLog → RegisterServer… → ApproveAggregator… → ChangeClients…
//!          ┌──────────────────────────────────────────────────────────────┐
//!          ▼                                                              │
//!      OpenRound → SignHeader (all) = live → SubmitAggregate → SubmitPartial (all) = finalised → SignRecord
//!          │                                                   ▲
//!          └── OpenRound, departure, new key before the end: abandoned
//! ```

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bitmap::{Bitmap, index};
use crate::checks::{Check, Checks};
use crate::digest::{chain_digest, state_digest};
use crate::fold::xor_into;
use crate::id::{Counter, Digest, GroupId, LogId, PeerId, Role, Round, UniqueId};
use crate::machine::{Abandonment, Report};
use crate::message::{
    Aggregate, Announcement, Approval, Bundle, ClientBatch, ClientRefusal, Command, Header, HeaderSignature,
    LiveHeader, Partial, Previous, Record, RecordSignature, RosterServer, Standing, Testimony,
};
use crate::params::RoundParams;
use crate::refused::Refused;
use crate::registry::ClientRegistry;

mod snapshot;

pub use snapshot::BadSnapshot;

/// What every server of a committee has in common.
#[derive(Clone, Debug)]
pub struct Config {
    /// The instance.
    pub instance: UniqueId,
    /// The committee.
    pub group: GroupId,
    /// The shape of the vector.
    pub params: RoundParams,
}

/// A registered server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its newest bundle.
    pub bundle: Bundle,
    /// Of its last announcement.
    pub counter: Counter,
    /// What it last announced.
    pub standing: Standing,
    /// Who testified that it is dead, since it registered.
    pub testimonies: BTreeSet<PeerId>,
    /// Of its last refusal of a client.
    pub refusal_counter: Counter,
}

impl Server {
    /// Whether headers list it: it has not departed.
    #[must_use]
    pub fn takes_part(&self) -> bool {
        match self.standing {
            Standing::Registered | Standing::Leaving => true,
            Standing::Departed => false,
        }
    }
}

/// The round between its header and its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenRound {
    /// The header.
    pub header: Arc<Header>,
    /// Of the header.
    pub digest: Digest,
    /// The client registry as the header pins it.
    pub clients: ClientRegistry,
    /// So far.
    pub signatures: BTreeMap<PeerId, HeaderSignature>,
    /// Once all have signed: the union of refused clients.
    pub refused: Option<Bitmap>,
    /// Once applied.
    pub aggregate: Option<Applied>,
    /// Whose partial is in, with its digest.
    pub partials: BTreeMap<PeerId, Digest>,
}

/// The aggregate of a round and what was stripped from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Applied {
    /// Of the aggregate.
    pub digest: Digest,
    /// Whose envelopes are in.
    pub participants: Bitmap,
    /// The aggregate XOR the partials so far.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl OpenRound {
    /// Whether the server is in the roster.
    #[must_use]
    pub fn lists(&self, server: &PeerId) -> bool {
        self.header.servers.iter().any(|listed| listed.peer == *server)
    }

    /// The signed header, once every rostered server has signed.
    #[must_use]
    pub fn live(&self) -> Option<LiveHeader> {
        self.refused.as_ref()?;
        let signatures = self.signatures.values().cloned().collect();
        Some(LiveHeader { header: Header::clone(&self.header), signatures })
    }

    /// What the round waits for, and from whom.
    #[must_use]
    pub fn awaited(&self) -> (Abandonment, Vec<PeerId>) {
        let roster = || self.header.servers.iter().map(|server| server.peer);
        if self.refused.is_none() {
            (Abandonment::Unsigned, roster().filter(|peer| !self.signatures.contains_key(peer)).collect())
        } else if self.aggregate.is_none() {
            (Abandonment::NoAggregate, Vec::new())
        } else {
            (Abandonment::MissingPartial, roster().filter(|peer| !self.partials.contains_key(peer)).collect())
        }
    }
}

/// A finalised round with the signatures it has so far.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignedRecord {
    /// The record.
    pub record: Arc<Record>,
    /// Of the record.
    pub digest: Digest,
    /// By server.
    pub signatures: BTreeMap<PeerId, RecordSignature>,
}

impl SignedRecord {
    /// Whether more than half of the roster has signed.
    #[must_use]
    pub fn provisional(&self) -> bool {
        is_majority(self.signatures.len(), self.record.servers.len())
    }

    /// Whether the whole roster has signed.
    #[must_use]
    pub fn confirmed(&self) -> bool {
        self.signatures.len() == self.record.servers.len()
    }
}

/// An aggregator that some servers approve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Candidate {
    bundle: Bundle,
    approvals: BTreeSet<PeerId>,
}

/// What is replicated.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    log: Option<LogId>,
    voters: BTreeSet<PeerId>,
    servers: BTreeMap<PeerId, Server>,
    retired: BTreeSet<PeerId>,
    /// The words by which servers said that they leave for good; clients lower their floors by them.
    farewells: VecDeque<Announcement>,
    aggregator: Option<Bundle>,
    /// The newest bundle of every aggregator that another one replaced: approvals of it were said before.
    replaced: BTreeMap<PeerId, Bundle>,
    candidates: BTreeMap<PeerId, Candidate>,
    clients: ClientRegistry,
    /// Who refuses whom; a refused client is out of the registry.
    refusals: BTreeMap<PeerId, BTreeSet<PeerId>>,
    /// Until which round a refused client may not register, by the server that refused it.
    barred: BTreeMap<PeerId, BTreeMap<PeerId, Round>>,
    opened: Round,
    open: Option<OpenRound>,
    previous: Previous,
    records: VecDeque<SignedRecord>,
    /// Over every command entry since the newest record.
    chain: Digest,
}

/// The version of the rules in this module. It is part of the machine signature: whoever changes what a command does, or
/// when it is refused, raises it, so that nodes which would disagree refuse each other.
pub const MACHINE_VERSION: u32 = 1;

/// How many finalised records the machine keeps for readers and signatures that come late.
pub const RECORDS_KEPT: usize = 8;

/// For how many rounds a refused client may not register again.
pub const BARRED_ROUNDS: u64 = 16;

/// How many clients one server may refuse in any case. Above that it is one of [`REFUSED_SHARE`] of the registry.
pub const REFUSED_MIN: u32 = 16;

/// See [`REFUSED_MIN`].
pub const REFUSED_SHARE: u32 = 4;

/// How many farewells are kept for clients.
pub const FAREWELLS_KEPT: usize = 16;

/// Candidates for aggregator that are remembered at a time.
const CANDIDATES_MAX: usize = 8;

/// The replicated machine.
#[derive(Clone, Debug)]
pub struct Committee<C> {
    config: Config,
    checks: C,
    state: State,
}

/// How many clients one server may refuse where so many are registered: without a bound it could thin out a round until
/// one message has nobody to hide among.
#[must_use]
pub fn refused_max(registered: u32) -> usize {
    index(REFUSED_MIN.max(registered / REFUSED_SHARE))
}

/// Whether `some` are more than half of `all`.
#[must_use]
pub const fn is_majority(some: usize, all: usize) -> bool {
    some > all / 2
}

impl<C: Checks> Committee<C> {
    /// The machine of an empty log.
    pub fn new(config: Config, checks: C) -> Self {
        Self { config, checks, state: State::default() }
    }

    /// Takes note of an entry of the log that carries a command, also of one that will be refused or cannot be read:
    /// called for each, before the command is applied.
    pub fn chain(&mut self, index: u64, entry: &[u8]) {
        self.state.chain = chain_digest(&self.state.chain, index, entry);
    }

    /// Applies a command.
    ///
    /// # Errors
    /// Why the command is refused; the state is unchanged then.
    pub fn apply(&mut self, index: u64, command: &Command, reports: &mut Vec<Report>) -> Result<(), Refused> {
        self.change(index, command, reports)?;
        self.check();
        Ok(())
    }

    /// Asserts what holds of the state between any two commands, but for digests and signatures.
    fn check(&self) {
        let flaw = self.state.flaw(&self.checks);
        assert_eq!(flaw, None, "the state of the committee has what no command brings about");
    }

    fn change(&mut self, index: u64, command: &Command, reports: &mut Vec<Report>) -> Result<(), Refused> {
        match command {
            Command::StartLog { log } => self.start_log(*log, reports),
            Command::OpenRound(header) => self.open_round(index, header, reports),
            Command::SignHeader(signature) => self.sign_header(signature, reports),
            Command::SubmitAggregate(aggregate) => self.submit_aggregate(index, aggregate, reports),
            Command::SubmitPartial(partial) => self.submit_partial(index, partial, reports),
            Command::SignRecord(signature) => self.sign_record(signature, reports),
            Command::RegisterServer { bundle, announcement } => {
                self.register_server(index, bundle, announcement, reports)
            }
            Command::DepartServer(announcement) => self.depart_server(index, announcement, reports),
            Command::RetireServer(announcement) => self.retire_server(announcement, reports),
            Command::TestifyDead(testimony) => self.testify_dead(index, testimony, reports),
            Command::ApproveAggregator(approval) => self.approve_aggregator(index, approval, reports),
            Command::ChangeClients(batch) => self.change_clients(batch, reports),
            Command::RefuseClient(refusal) => self.refuse_client(refusal, reports),
        }
    }

    /// Takes note of the voters of the group.
    pub fn set_voters(&mut self, voters: BTreeSet<PeerId>) {
        self.state.voters = voters;
    }

    /// The log, once started.
    #[must_use]
    pub fn log(&self) -> Option<LogId> {
        self.state.log
    }

    /// The voters of the group.
    #[must_use]
    pub fn voters(&self) -> &BTreeSet<PeerId> {
        &self.state.voters
    }

    /// Every server that ever registered and was not retired.
    #[must_use]
    pub fn servers(&self) -> &BTreeMap<PeerId, Server> {
        &self.state.servers
    }

    /// Identities that are barred for good.
    #[must_use]
    pub fn retired(&self) -> &BTreeSet<PeerId> {
        &self.state.retired
    }

    /// The newest announcements of servers that leave for good, oldest first.
    #[must_use]
    pub fn farewells(&self) -> &VecDeque<Announcement> {
        &self.state.farewells
    }

    /// The aggregator of the log.
    #[must_use]
    pub fn aggregator(&self) -> Option<&Bundle> {
        self.state.aggregator.as_ref()
    }

    /// The newest bundle with which this peer was the aggregator of the log.
    #[must_use]
    pub fn last_aggregator(&self, peer: &PeerId) -> Option<&Bundle> {
        let current = self.state.aggregator.as_ref().filter(|current| current.peer == *peer);
        current.or_else(|| self.state.replaced.get(peer))
    }

    /// Whether this server's approval of this bundle is in the log.
    #[must_use]
    pub fn approves(&self, server: &PeerId, bundle: &Bundle) -> bool {
        self.state.aggregator.as_ref() == Some(bundle)
            || self
                .state
                .candidates
                .get(&bundle.peer)
                .is_some_and(|candidate| candidate.bundle == *bundle && candidate.approvals.contains(server))
    }

    /// The client registry.
    #[must_use]
    pub fn clients(&self) -> &ClientRegistry {
        &self.state.clients
    }

    /// The clients that this server keeps out: those that it refuses, and those that it refused so lately that they may
    /// not come back yet.
    #[must_use]
    pub fn kept_out_by(&self, server: &PeerId) -> BTreeSet<PeerId> {
        let refused = self.refused_by(server);
        let opened = self.state.opened;
        let lately = self
            .state
            .barred
            .iter()
            .filter(|(_, until)| until.get(server).is_some_and(|until| opened < *until));
        refused.copied().chain(lately.map(|(client, _)| *client)).collect()
    }

    /// The clients that this server refuses, in PeerId order.
    pub fn refused_by(&self, server: &PeerId) -> impl Iterator<Item = &PeerId> {
        self.state.refusals.iter().filter(|(_, servers)| servers.contains(server)).map(|(client, _)| client)
    }

    /// Who refuses whom, by client.
    #[must_use]
    pub fn refusals(&self) -> &BTreeMap<PeerId, BTreeSet<PeerId>> {
        &self.state.refusals
    }

    /// The last opened round.
    #[must_use]
    pub fn opened(&self) -> Round {
        self.state.opened
    }

    /// The open round.
    #[must_use]
    pub fn open(&self) -> Option<&OpenRound> {
        self.state.open.as_ref()
    }

    /// What the next header must name as its past.
    #[must_use]
    pub fn previous(&self) -> Previous {
        self.state.previous
    }

    /// The newest finalised records, oldest first.
    #[must_use]
    pub fn records(&self) -> &VecDeque<SignedRecord> {
        &self.state.records
    }

    /// The roster of a header opened now with every server that takes part, in PeerId order.
    #[must_use]
    pub fn roster(&self) -> Vec<RosterServer> {
        let servers = self.state.servers.values().filter(|server| server.takes_part());
        servers.map(|server| RosterServer::from(&server.bundle)).collect()
    }

    /// The fewest servers that a roster may have: the largest floor of any registered server. An unset floor counts as
    /// every registered server that takes part.
    #[must_use]
    pub fn roster_floor(&self) -> usize {
        let all = self.state.servers.values().filter(|server| server.takes_part()).count();
        let floor = |server: &Server| {
            let set = server.bundle.floors.and_then(|floors| floors.servers);
            set.map_or(all, |floor| usize::try_from(floor).unwrap_or(usize::MAX))
        };
        self.state.servers.values().filter(|server| server.takes_part()).map(floor).max().unwrap_or(0)
    }

    /// The largest participant floor among these servers.
    #[must_use]
    pub fn participant_floor<'a>(&self, roster: impl IntoIterator<Item = &'a PeerId>) -> u32 {
        let floors = roster.into_iter().filter_map(|peer| self.state.servers.get(peer)?.bundle.floors);
        floors.map(|floors| floors.participants).max().unwrap_or(0)
    }

    fn start_log(&mut self, log: LogId, reports: &mut Vec<Report>) -> Result<(), Refused> {
        if self.state.log.is_some() {
            return Err(Refused::LogStarted);
        }
        self.state.log = Some(log);
        reports.push(Report::LogStarted { log });
        Ok(())
    }

    fn open_round(&mut self, index: u64, header: &Header, reports: &mut Vec<Report>) -> Result<(), Refused> {
        self.require_log(header.log)?;
        if header.group != self.config.group {
            return Err(Refused::WrongGroup);
        }
        if header.params != self.config.params {
            return Err(Refused::ParamsMismatch);
        }
        if header.round != self.state.opened.next() && self.checks.enforce(Check::RoundRises) {
            return Err(Refused::WrongRound);
        }
        if header.clients != self.state.clients.set() {
            return Err(Refused::WrongRegistry);
        }
        if self.state.aggregator.as_ref().map(|bundle| bundle.peer) != Some(header.aggregator) {
            return Err(Refused::NotAggregator);
        }
        self.check_roster(&header.servers)?;
        if self.checks.enforce(Check::ParticipantFloor) {
            let roster = header.servers.iter().map(|server| &server.peer);
            if header.min_participants < self.participant_floor(roster) {
                return Err(Refused::BelowFloor);
            }
            if header.clients.count < header.min_participants {
                return Err(Refused::TooFewParticipants);
            }
        }
        self.abandon(index, reports);
        let digest = header.digest();
        let header = Arc::new(header.clone());
        self.state.opened = header.round;
        self.state.open = Some(OpenRound {
            header: Arc::clone(&header),
            digest,
            clients: self.state.clients.clone(),
            signatures: BTreeMap::new(),
            refused: None,
            aggregate: None,
            partials: BTreeMap::new(),
        });
        reports.push(Report::RoundOpened { index, header, digest });
        Ok(())
    }

    fn check_roster(&self, roster: &[RosterServer]) -> Result<(), Refused> {
        if roster.is_empty() || !roster.is_sorted_by(|a, b| a.peer < b.peer) {
            return Err(Refused::UnsortedRoster);
        }
        for listed in roster {
            let server = self.state.servers.get(&listed.peer).ok_or(Refused::WrongRoster)?;
            if !server.takes_part() || RosterServer::from(&server.bundle) != *listed {
                return Err(Refused::WrongRoster);
            }
        }
        if roster.len() < self.roster_floor() {
            return Err(Refused::RosterTooSmall);
        }
        Ok(())
    }

    fn sign_header(&mut self, signature: &HeaderSignature, reports: &mut Vec<Report>) -> Result<(), Refused> {
        let checks = self.checks.clone();
        let kept_out = self.kept_out_by(&signature.server);
        let open = self.current(signature.log, signature.round, signature.header)?;
        if !open.lists(&signature.server) {
            return Err(Refused::NotInRoster);
        }
        if open.signatures.contains_key(&signature.server) {
            return Err(Refused::Duplicate);
        }
        if signature.refused.len() != open.header.clients.count {
            return Err(Refused::WrongLength);
        }
        let named = signature.refused.iter_ones().filter_map(|place| open.clients.at(place));
        let more = named.filter(|(client, _)| !kept_out.contains(*client)).count();
        let all = kept_out.len().saturating_add(more);
        if more > 0 && all > refused_max(open.header.clients.count) && checks.enforce(Check::FewRefused) {
            return Err(Refused::TooMany);
        }
        if !signature.verify_with(&checks) {
            return Err(Refused::BadSignature);
        }
        open.signatures.insert(signature.server, signature.clone());
        if open.signatures.len() == open.header.servers.len() {
            let mut refused = Bitmap::new(open.header.clients.count);
            for signature in open.signatures.values() {
                refused.union_with(&signature.refused);
            }
            open.refused = Some(refused.clone());
            reports.push(Report::HeaderLive { round: signature.round, header: signature.header, refused });
        }
        Ok(())
    }

    fn submit_aggregate(
        &mut self,
        index: u64,
        aggregate: &Aggregate,
        reports: &mut Vec<Report>,
    ) -> Result<(), Refused> {
        let vector_bytes = self.config.params.vector_bytes();
        let (floors, once) =
            (self.checks.enforce(Check::ParticipantFloor), self.checks.enforce(Check::OneAggregate));
        let checks = self.checks.clone();
        let open = self.current(aggregate.log, aggregate.round, aggregate.header)?;
        let refused = open.refused.as_ref().ok_or(Refused::NotLive)?;
        if open.aggregate.is_some() && once {
            return Err(Refused::AggregateIn);
        }
        if aggregate.body.len() != vector_bytes || aggregate.participants.len() != open.header.clients.count {
            return Err(Refused::WrongLength);
        }
        if !aggregate.participants.is_disjoint(refused) {
            return Err(Refused::RefusedClient);
        }
        if aggregate.participants.count_ones() < open.header.min_participants && floors {
            return Err(Refused::TooFewParticipants);
        }
        let digest = aggregate.digest();
        if !checks.verify(&open.header.aggregator, &digest, &aggregate.signature) {
            return Err(Refused::BadSignature);
        }
        let mut body = aggregate.body.clone();
        if let Some(applied) = &open.aggregate {
            xor_into(&mut body, &applied.body);
        }
        open.aggregate = Some(Applied { digest, participants: aggregate.participants.clone(), body });
        reports.push(Report::AggregateApplied {
            index,
            round: aggregate.round,
            header: aggregate.header,
            aggregate: digest,
            participants: aggregate.participants.clone(),
        });
        Ok(())
    }

    fn submit_partial(
        &mut self,
        index: u64,
        partial: &Partial,
        reports: &mut Vec<Report>,
    ) -> Result<(), Refused> {
        let vector_bytes = self.config.params.vector_bytes();
        let strict = self.checks.enforce(Check::PartialOfRound);
        let complete_roster = self.checks.enforce(Check::CompleteRoster);
        let checks = self.checks.clone();
        let open = if strict {
            self.current(partial.log, partial.round, partial.header)?
        } else {
            self.state.open.as_mut().ok_or(Refused::NoRound)?
        };
        if !open.lists(&partial.server) {
            return Err(Refused::NotInRoster);
        }
        let applied = open.aggregate.as_mut().ok_or(Refused::WrongAggregate)?;
        if applied.digest != partial.aggregate && strict {
            return Err(Refused::WrongAggregate);
        }
        if open.partials.contains_key(&partial.server) {
            return Err(Refused::Duplicate);
        }
        if partial.body.len() != vector_bytes {
            return Err(Refused::WrongLength);
        }
        let digest = partial.digest();
        if !checks.verify(&partial.server, &digest, &partial.signature) {
            return Err(Refused::BadSignature);
        }
        xor_into(&mut applied.body, &partial.body);
        open.partials.insert(partial.server, digest);
        reports.push(Report::PartialApplied {
            index,
            round: partial.round,
            header: partial.header,
            aggregate: partial.aggregate,
            server: partial.server,
        });
        let (have, all) = (open.partials.len(), open.header.servers.len());
        if have == all || (!complete_roster && is_majority(have, all)) {
            self.finalize(index, reports);
        }
        Ok(())
    }

    fn finalize(&mut self, index: u64, reports: &mut Vec<Report>) {
        let open = self.state.open.take().expect("the caller has an open round");
        let applied = open.aggregate.expect("partials are accepted only after the aggregate");
        let previous = if self.checks.enforce(Check::ChainRecords) {
            self.state.previous.record
        } else {
            Digest::default()
        };
        let mut servers: Vec<_> = open.header.servers.iter().map(|server| server.peer).collect();
        // Both are in the order of the peers.
        let partials = open.partials.values().copied().collect();
        if !self.checks.enforce(Check::CanonicalRecord) {
            servers.reverse();
        }
        let record = Arc::new(Record {
            log: open.header.log,
            round: open.header.round,
            header: open.digest,
            participants: applied.participants,
            servers,
            broadcast: applied.body,
            previous,
            aggregate: applied.digest,
            partials,
            index,
            chain: self.state.chain,
        });
        let digest = record.digest();
        self.state.chain = digest;
        if self.state.records.len() == RECORDS_KEPT {
            self.state.records.pop_front();
        }
        let kept = SignedRecord { record: Arc::clone(&record), digest, signatures: BTreeMap::new() };
        self.state.records.push_back(kept);
        self.state.previous = Previous { round: record.round, record: digest, state: Digest::default() };
        self.state.previous.state = self.digest();
        reports.push(Report::RoundFinalized {
            index,
            record,
            digest,
            signed: open.signatures.into_keys().collect(),
            partials: open.partials.into_keys().collect(),
            rostered: false,
        });
    }

    /// Covers everything that later commands depend on, except what the open round and the kept records add: there is
    /// no open round when this is taken, and the records are covered by the chain.
    fn digest(&self) -> Digest {
        let state = &self.state;
        let covered = (
            (state.log, &state.voters, &state.servers, &state.retired, &state.farewells),
            (
                &state.aggregator,
                &state.replaced,
                &state.candidates,
                state.clients.set(),
                state.clients.counter(),
            ),
            (&state.refusals, &state.barred, state.opened, state.previous.round, state.previous.record),
        );
        let bytes =
            postcard::to_allocvec(&covered).expect("the state holds nothing that postcard cannot encode");
        state_digest(&bytes)
    }

    fn sign_record(&mut self, signature: &RecordSignature, reports: &mut Vec<Report>) -> Result<(), Refused> {
        self.require_log(signature.log)?;
        let kept = self.state.records.iter_mut().find(|kept| kept.digest == signature.record);
        let kept = kept.ok_or(Refused::UnknownRecord)?;
        if kept.record.round != signature.round {
            return Err(Refused::WrongRound);
        }
        if !kept.record.servers.contains(&signature.server) {
            return Err(Refused::NotInRoster);
        }
        if kept.signatures.contains_key(&signature.server) {
            return Err(Refused::Duplicate);
        }
        if !signature.verify_with(&self.checks) {
            return Err(Refused::BadSignature);
        }
        kept.signatures.insert(signature.server, *signature);
        if kept.confirmed() {
            reports.push(Report::RecordConfirmed { round: signature.round, record: signature.record });
        }
        Ok(())
    }

    fn register_server(
        &mut self,
        index: u64,
        bundle: &Bundle,
        announcement: &Announcement,
        reports: &mut Vec<Report>,
    ) -> Result<(), Refused> {
        self.require_log(announcement.log)?;
        let server = bundle.peer;
        if bundle.role != Role::Server
            || bundle.floors.is_none()
            || announcement.standing != Standing::Registered
        {
            return Err(Refused::WrongRole);
        }
        if announcement.server != server || announcement.epoch != bundle.epoch {
            return Err(Refused::Malformed);
        }
        if self.state.retired.contains(&server) && self.checks.enforce(Check::RetiredBarred) {
            return Err(Refused::Retired);
        }
        if !self.state.voters.contains(&server) {
            return Err(Refused::NotVoter);
        }
        let known = self.state.servers.get(&server);
        if let Some(known) = known {
            if bundle.epoch <= known.bundle.epoch {
                return Err(Refused::StaleEpoch);
            }
            if announcement.counter <= known.counter {
                return Err(Refused::StaleCounter);
            }
            if known.standing == Standing::Leaving {
                return Err(Refused::Retired);
            }
        }
        self.check_bundle(bundle)?;
        if !announcement.verify() {
            return Err(Refused::BadSignature);
        }
        let refusal_counter = known.map(|known| known.refusal_counter).unwrap_or_default();
        self.state.servers.insert(
            server,
            Server {
                bundle: bundle.clone(),
                counter: announcement.counter,
                standing: Standing::Registered,
                testimonies: BTreeSet::new(),
                refusal_counter,
            },
        );
        self.withdraw_refusals(&server);
        self.abandon_without(index, &server, reports);
        reports.push(Report::ServerRegistered { server, epoch: bundle.epoch });
        Ok(())
    }

    fn depart_server(
        &mut self,
        index: u64,
        announcement: &Announcement,
        reports: &mut Vec<Report>,
    ) -> Result<(), Refused> {
        let server = self.check_announcement(announcement, Standing::Departed)?;
        let leaving = server.standing == Standing::Leaving;
        server.counter = announcement.counter;
        server.standing = Standing::Departed;
        self.withdraw_refusals(&announcement.server);
        self.abandon_without(index, &announcement.server, reports);
        reports.push(Report::ServerDeparted { server: announcement.server });
        if leaving {
            self.retire(announcement.server, false, reports);
        }
        Ok(())
    }

    fn retire_server(
        &mut self,
        announcement: &Announcement,
        reports: &mut Vec<Report>,
    ) -> Result<(), Refused> {
        let server = self.check_announcement(announcement, Standing::Leaving)?;
        server.counter = announcement.counter;
        match server.standing {
            Standing::Registered | Standing::Leaving => {
                server.standing = Standing::Leaving;
                reports.push(Report::ServerLeaving { server: announcement.server });
            }
            Standing::Departed => self.retire(announcement.server, false, reports),
        }
        if self.state.farewells.len() == FAREWELLS_KEPT {
            self.state.farewells.pop_front();
        }
        self.state.farewells.push_back(*announcement);
        Ok(())
    }

    fn check_announcement(
        &mut self,
        announcement: &Announcement,
        standing: Standing,
    ) -> Result<&mut Server, Refused> {
        self.require_log(announcement.log)?;
        if announcement.standing != standing {
            return Err(Refused::Malformed);
        }
        let server = self.state.servers.get_mut(&announcement.server).ok_or(Refused::NotRegistered)?;
        if server.standing == standing {
            return Err(Refused::Duplicate);
        }
        if announcement.epoch != server.bundle.epoch {
            return Err(Refused::StaleEpoch);
        }
        if announcement.counter <= server.counter {
            return Err(Refused::StaleCounter);
        }
        if !announcement.verify() {
            return Err(Refused::BadSignature);
        }
        Ok(server)
    }

    fn testify_dead(
        &mut self,
        index: u64,
        testimony: &Testimony,
        reports: &mut Vec<Report>,
    ) -> Result<(), Refused> {
        self.require_log(testimony.log)?;
        let others: BTreeSet<_> =
            self.electorate().filter(|voter| **voter != testimony.server).copied().collect();
        if !others.contains(&testimony.witness) {
            return Err(Refused::NotVoter);
        }
        let server = self.state.servers.get_mut(&testimony.server).ok_or(Refused::NotRegistered)?;
        if testimony.epoch != server.bundle.epoch {
            return Err(Refused::StaleEpoch);
        }
        if server.testimonies.contains(&testimony.witness) {
            return Err(Refused::Duplicate);
        }
        if !testimony.verify() {
            return Err(Refused::BadSignature);
        }
        server.testimonies.insert(testimony.witness);
        let witnesses = server.testimonies.intersection(&others).count();
        if is_majority(witnesses, others.len()) {
            let forced = server.standing != Standing::Leaving;
            self.abandon_without(index, &testimony.server, reports);
            self.retire(testimony.server, forced, reports);
        }
        Ok(())
    }

    /// The voters whose word counts: the group's, less those that were retired and are still to be taken out of it.
    fn electorate(&self) -> impl Iterator<Item = &PeerId> {
        self.state.voters.difference(&self.state.retired)
    }

    fn retire(&mut self, server: PeerId, forced: bool, reports: &mut Vec<Report>) {
        self.state.servers.remove(&server);
        self.withdraw_refusals(&server);
        self.state.retired.insert(server);
        reports.push(Report::ServerRetired { server, forced });
    }

    fn approve_aggregator(
        &mut self,
        index: u64,
        approval: &Approval,
        reports: &mut Vec<Report>,
    ) -> Result<(), Refused> {
        self.require_log(approval.log)?;
        let bundle = &approval.bundle;
        if bundle.role != Role::Aggregator {
            return Err(Refused::WrongRole);
        }
        let electorate: BTreeSet<_> = self.electorate().copied().collect();
        if !electorate.contains(&approval.server) {
            return Err(Refused::NotVoter);
        }
        let same = self.last_aggregator(&bundle.peer);
        if same.is_some_and(|current| bundle.epoch <= current.epoch) {
            return Err(if same == Some(bundle) { Refused::Duplicate } else { Refused::StaleEpoch });
        }
        let candidate = self.state.candidates.get(&bundle.peer);
        match candidate {
            Some(candidate) if bundle.epoch < candidate.bundle.epoch => return Err(Refused::StaleEpoch),
            Some(candidate) if candidate.bundle == *bundle => {
                if candidate.approvals.contains(&approval.server) {
                    return Err(Refused::Duplicate);
                }
            }
            None if self.state.candidates.len() == CANDIDATES_MAX => return Err(Refused::TooMany),
            Some(_) | None => self.check_bundle(bundle)?,
        }
        if !approval.verify() {
            return Err(Refused::BadSignature);
        }
        let fresh = || Candidate { bundle: bundle.clone(), approvals: BTreeSet::new() };
        let candidate = self.state.candidates.entry(bundle.peer).or_insert_with(fresh);
        if candidate.bundle != *bundle {
            *candidate = fresh();
        }
        candidate.approvals.insert(approval.server);
        let approvals = candidate.approvals.intersection(&electorate).count();
        if is_majority(approvals, electorate.len()) || !self.checks.enforce(Check::MajorityApproves) {
            self.state.candidates.clear();
            self.state.replaced.remove(&bundle.peer);
            let before = self.state.aggregator.replace(bundle.clone());
            if let Some(before) = before.filter(|before| before.peer != bundle.peer) {
                self.state.replaced.insert(before.peer, before);
                // The open round names the one before. What that one has folded already is still good.
                if self.state.open.as_ref().is_some_and(|open| open.aggregate.is_none()) {
                    self.abandon(index, reports);
                }
            }
            reports.push(Report::AggregatorRegistered { aggregator: bundle.peer });
        }
        Ok(())
    }

    fn change_clients(&mut self, batch: &ClientBatch, reports: &mut Vec<Report>) -> Result<(), Refused> {
        self.require_log(batch.log)?;
        let aggregator = self.state.aggregator.as_ref().ok_or(Refused::NotAggregator)?;
        if batch.counter != self.state.clients.counter().next() {
            return Err(Refused::StaleCounter);
        }
        let room = self.state.clients.has_room(batch.register.len());
        if !room || batch.register.len() > ClientBatch::LEN_MAX || batch.expire.len() > ClientBatch::LEN_MAX {
            return Err(Refused::TooMany);
        }
        if !batch.verify(&aggregator.peer) {
            return Err(Refused::BadSignature);
        }
        for bundle in &batch.register {
            if bundle.role != Role::Client {
                return Err(Refused::WrongRole);
            }
            if self.state.clients.get(&bundle.peer).is_some_and(|known| bundle.epoch <= known.epoch) {
                return Err(Refused::StaleEpoch);
            }
            if self.is_barred(&bundle.peer) {
                return Err(Refused::Barred);
            }
            self.check_bundle(bundle)?;
        }
        self.state.clients.apply(&batch.register, &batch.expire, batch.counter);
        self.report_clients(reports);
        Ok(())
    }

    /// Whether a client may not register now. What remains of a refusal that was withdrawn holds only while there are
    /// clients for a round: without rounds it would never end.
    #[must_use]
    pub fn is_barred(&self, client: &PeerId) -> bool {
        let over = |until: &Round| *until <= self.state.opened;
        let enough = || self.state.clients.len() >= self.participant_floor(self.state.servers.keys());
        self.state.refusals.contains_key(client)
            || self.state.barred.get(client).is_some_and(|bars| !bars.values().all(over)) && enough()
    }

    fn refuse_client(&mut self, refusal: &ClientRefusal, reports: &mut Vec<Report>) -> Result<(), Refused> {
        self.require_log(refusal.log)?;
        let server = self.state.servers.get_mut(&refusal.server).ok_or(Refused::NotRegistered)?;
        if !server.takes_part() {
            return Err(Refused::NotRegistered);
        }
        if refusal.counter <= server.refusal_counter {
            return Err(Refused::StaleCounter);
        }
        if !refusal.verify() {
            return Err(Refused::BadSignature);
        }
        if refusal.refuse {
            let known = self.state.clients.get(&refusal.client).ok_or(Refused::NotInRegistry)?;
            if known.epoch != refusal.epoch {
                return Err(Refused::StaleEpoch);
            }
            let mut kept_out = self.kept_out_by(&refusal.server);
            kept_out.insert(refusal.client);
            if kept_out.len() > refused_max(self.state.clients.len())
                && self.checks.enforce(Check::FewRefused)
            {
                return Err(Refused::TooMany);
            }
            self.state.refusals.entry(refusal.client).or_default().insert(refusal.server);
            let opened = self.state.opened;
            let until = Round(opened.0.saturating_add(BARRED_ROUNDS));
            // Bars that are over say nothing any more.
            self.state.barred.retain(|_, bars| {
                bars.retain(|_, until| opened < *until);
                !bars.is_empty()
            });
            self.state.barred.entry(refusal.client).or_default().insert(refusal.server, until);
            let counter = self.state.clients.counter();
            self.state.clients.apply(&[], &[(refusal.client, refusal.epoch)], counter);
            self.report_clients(reports);
            reports.push(Report::ClientRefused { server: refusal.server, client: refusal.client });
        } else {
            self.withdraw(&refusal.client, &refusal.server);
            reports.push(Report::RefusalWithdrawn { server: refusal.server, client: refusal.client });
        }
        let server = self.state.servers.get_mut(&refusal.server).expect("it was found above");
        server.refusal_counter = refusal.counter;
        Ok(())
    }

    fn report_clients(&self, reports: &mut Vec<Report>) {
        let set = self.state.clients.set();
        reports.push(Report::ClientsChanged { version: set.version, count: set.count });
    }

    fn withdraw(&mut self, client: &PeerId, server: &PeerId) {
        if let Some(refusals) = self.state.refusals.get_mut(client) {
            refusals.remove(server);
            if refusals.is_empty() {
                self.state.refusals.remove(client);
            }
        }
    }

    fn withdraw_refusals(&mut self, server: &PeerId) {
        let clients: Vec<_> = self.state.refusals.keys().copied().collect();
        for client in clients {
            self.withdraw(&client, server);
        }
    }

    /// Gives up the open round if it lists the server and lacks its partial.
    fn abandon_without(&mut self, index: u64, server: &PeerId, reports: &mut Vec<Report>) {
        let lacks = |open: &OpenRound| open.lists(server) && !open.partials.contains_key(server);
        if self.state.open.as_ref().is_some_and(lacks) {
            self.abandon(index, reports);
        }
    }

    fn abandon(&mut self, index: u64, reports: &mut Vec<Report>) {
        if let Some(open) = self.state.open.take() {
            let (reason, missing) = open.awaited();
            reports.push(Report::RoundAbandoned {
                index,
                round: open.header.round,
                header: open.digest,
                reason,
                missing,
            });
        }
    }

    fn check_bundle(&self, bundle: &Bundle) -> Result<(), Refused> {
        if bundle.instance != self.config.instance {
            return Err(Refused::WrongInstance);
        }
        if !bundle.round_key.is_contributory() {
            return Err(Refused::WeakKey);
        }
        if !bundle.verify() {
            return Err(Refused::BadSignature);
        }
        Ok(())
    }

    fn require_log(&self, log: LogId) -> Result<(), Refused> {
        if self.state.log == Some(log) { Ok(()) } else { Err(Refused::WrongLog) }
    }

    /// The open round, if it is the named one.
    fn current(&mut self, log: LogId, round: Round, header: Digest) -> Result<&mut OpenRound, Refused> {
        self.require_log(log)?;
        let open = self.state.open.as_mut().ok_or(Refused::NoRound)?;
        if open.header.round != round {
            return Err(Refused::WrongRound);
        }
        if open.digest != header {
            return Err(Refused::WrongHeader);
        }
        Ok(open)
    }
}

impl From<&Bundle> for RosterServer {
    fn from(bundle: &Bundle) -> Self {
        Self { peer: bundle.peer, epoch: bundle.epoch, round_key: bundle.round_key }
    }
}

#[cfg(test)]
pub(crate) mod tests;
