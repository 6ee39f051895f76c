//! The machine's state as bytes, and what of a peer's snapshot is believed.
//!
//! Nobody signs a snapshot. Whoever leads, or says so, can make one up, and most of what it holds cannot be checked: the
//! open round's vector, standings, testimonies and approvals stand in it without the words they came from. So nothing
//! that a server promises may rest on it (see [`crate::server::Server::install`]); what is examined here keeps a server
//! from being moved to another log, back in time, or into a state that its own code would stumble over.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;

use super::{
    CANDIDATES_MAX, Committee, FAREWELLS_KEPT, OpenRound, RECORDS_KEPT, Server, SignedRecord, State,
};
use crate::checks::{Check, Checks};
use crate::id::{LogId, PeerId, Role, Round};
use crate::message::{Announcement, Bundle, Standing};
use crate::params::RoundParams;
use crate::wire::is_canonical;

/// Numbers that only rise are refused from here on: whatever counts on from a snapshot must not come to the end of its
/// range.
const NUMBER_MAX: u64 = 1 << 62;

/// Why a snapshot is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSnapshot {
    /// Its bytes are not what a state of this format has as its only encoding.
    Malformed,
    /// Its parts do not fit each other: no machine can have come to this state.
    Inconsistent,
    /// A signature in it is not the named signer's.
    BadSignature,
    /// A number is near the end of its range.
    OutOfRange,
    /// It is of another log.
    OtherLog,
    /// It lies before this machine's own state.
    GoesBack,
    /// It has forgotten an identity that is barred for good.
    LacksRetired,
    /// It contradicts what this machine has seen made: a record, or the header of a round.
    Contradicts,
}

impl BadSnapshot {
    /// The stable name, as metrics spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Inconsistent => "inconsistent",
            Self::BadSignature => "bad-signature",
            Self::OutOfRange => "out-of-range",
            Self::OtherLog => "other-log",
            Self::GoesBack => "goes-back",
            Self::LacksRetired => "lacks-retired",
            Self::Contradicts => "contradicts",
        }
    }
}

impl fmt::Display for BadSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "take the snapshot: {}", self.name())
    }
}

impl core::error::Error for BadSnapshot {}

impl<C: Checks> Committee<C> {
    /// The whole state as bytes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        postcard::to_allocvec(&self.state).expect("the state holds nothing that postcard cannot encode")
    }

    /// Replaces the state by that of a snapshot of this node's own. A peer's is [examined](Self::examine) instead.
    ///
    /// # Errors
    /// If the bytes are not what a state of this format has as its only encoding, or its parts do not fit each other; the
    /// state is unchanged then.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), BadSnapshot> {
        let state = self.read(snapshot)?;
        if state.flaw(&self.checks).is_some() {
            return Err(BadSnapshot::Inconsistent);
        }
        self.state = state;
        Ok(())
    }

    /// What a peer's snapshot would make of this machine, as the server `me` sees it.
    ///
    /// # Errors
    /// Why it may not take the place of this state.
    pub fn examine(&self, snapshot: &[u8], me: &PeerId) -> Result<Self, BadSnapshot> {
        let state = self.read(snapshot)?;
        state.judge_numbers()?;
        if !state.coheres(&self.checks) {
            return Err(BadSnapshot::Inconsistent);
        }
        self.judge_signatures(&state)?;
        let own = &self.state;
        if own.log.is_some() && state.log != own.log {
            return Err(BadSnapshot::OtherLog);
        }
        let gone = |mine: &Server| match state.servers.get(me) {
            Some(theirs) => theirs.bundle.epoch < mine.bundle.epoch || theirs.counter < mine.counter,
            None => !state.retired.contains(me),
        };
        if state.opened < own.opened
            || (state.previous.round < own.previous.round && self.checks.enforce(Check::RecordsApplied))
            || state.clients.version() < own.clients.version()
            || state.clients.counter() < own.clients.counter()
            || own.servers.get(me).is_some_and(gone)
        {
            return Err(BadSnapshot::GoesBack);
        }
        if !own.retired.is_subset(&state.retired) {
            return Err(BadSnapshot::LacksRetired);
        }
        if own.contradicts(&state, &self.checks) {
            return Err(BadSnapshot::Contradicts);
        }
        Ok(Self { config: self.config.clone(), checks: self.checks.clone(), state })
    }

    fn read(&self, snapshot: &[u8]) -> Result<State, BadSnapshot> {
        match postcard::take_from_bytes::<State>(snapshot) {
            Ok((state, [])) if is_canonical(&state, snapshot) => {
                if state.fits(&self.config.params) {
                    Ok(state)
                } else {
                    Err(BadSnapshot::Inconsistent)
                }
            }
            Ok(_) | Err(_) => Err(BadSnapshot::Malformed),
        }
    }

    /// Signatures that are few: those of servers. The clients' bundles are judged by each client for its own, when it is
    /// shown its place.
    fn judge_signatures(&self, state: &State) -> Result<(), BadSnapshot> {
        let open = state.open.iter().flat_map(|open| open.signatures.values());
        let records = state.records.iter().flat_map(|kept| kept.signatures.values());
        let good = state.servers.values().all(|server| server.bundle.verify())
            && state.farewells.iter().all(Announcement::verify)
            && state.aggregator.iter().all(Bundle::verify)
            && open.into_iter().all(|signature| signature.verify_with(&self.checks))
            && records.into_iter().all(|signature| signature.verify_with(&self.checks));
        if good { Ok(()) } else { Err(BadSnapshot::BadSignature) }
    }
}

impl State {
    /// Whether the parts fit what later commands combine them with.
    fn fits(&self, params: &RoundParams) -> bool {
        self.open.as_ref().is_none_or(|open| open.fits(params))
    }

    /// Whether a machine can have come to this state.
    fn coheres(&self, checks: &impl Checks) -> bool {
        self.flaw(checks).is_none()
            && self.records.iter().all(|kept| kept.digest == kept.record.digest())
            && self.open.iter().all(|open| open.digest == open.header.digest())
    }

    /// What in this state no machine can have come to, without what takes long to look at: digests and signatures.
    pub(super) fn flaw(&self, checks: &impl Checks) -> Option<&'static str> {
        let log = self.log.unwrap_or_default();
        let rounds = self.records.iter().map(|kept| kept.record.round);
        let newest = self.records.back().map_or(Round::default(), |kept| kept.record.round);
        let last = self.records.back().map(|kept| kept.digest).unwrap_or_default();
        let mut pairs = self.records.iter().zip(self.records.iter().skip(1));
        let chained = pairs.all(|(one, next)| next.record.previous == one.digest);
        let rising = rounds.clone().zip(rounds.skip(1)).all(|(one, next)| one < next)
            && self.open.as_ref().is_none_or(|open| newest < open.header.round);
        let barred = |peer: &PeerId| self.retired.contains(peer) && checks.enforce(Check::RetiredBarred);
        let clauses = [
            ("more records than are kept", self.records.len() <= RECORDS_KEPT),
            ("more farewells than are kept", self.farewells.len() <= FAREWELLS_KEPT),
            ("more candidates than are kept", self.candidates.len() <= CANDIDATES_MAX),
            ("a record of another log", self.records.iter().all(|kept| kept.record.log == log)),
            ("a signature under another record", self.records.iter().all(SignedRecord::is_signed_by_its_own)),
            ("another newest record", (self.previous.round, self.previous.record) == (newest, last)),
            ("a record of a round that was not opened", newest <= self.opened),
            ("records that do not follow each other", chained || !checks.enforce(Check::ChainRecords)),
            ("rounds that do not rise", rising || !checks.enforce(Check::RoundRises)),
            (
                "a server under another name or role",
                self.servers
                    .iter()
                    .all(|(peer, server)| server.bundle.peer == *peer && server.bundle.role == Role::Server),
            ),
            ("a server that is barred", !self.servers.keys().any(barred)),
            (
                "a farewell of somebody who stays, or to another log",
                self.farewells.iter().all(|word| word.standing == Standing::Leaving && word.log == log),
            ),
            (
                "an aggregator of another role",
                self.aggregator.iter().all(|bundle| bundle.role == Role::Aggregator),
            ),
            (
                "an open round that is not the last one opened",
                self.open.iter().all(|open| open.header.round == self.opened),
            ),
        ];
        let broken = clauses.iter().find(|(_, holds)| !holds).map(|(flaw, _)| *flaw);
        broken.or_else(|| self.open.as_ref()?.flaw(log))
    }

    /// Whether every number that only rises has room to.
    fn judge_numbers(&self) -> Result<(), BadSnapshot> {
        let servers = self
            .servers
            .values()
            .flat_map(|server| [server.bundle.epoch.0, server.counter.0, server.refusal_counter.0]);
        let aggregators = self.aggregator.iter().chain(self.replaced.values());
        let candidates = self.candidates.values().map(|candidate| candidate.bundle.epoch.0);
        let clients = self.clients.iter().map(|(_, bundle)| bundle.epoch.0);
        let records = self.records.iter().map(|kept| kept.record.index);
        let mut numbers = [self.opened.0, self.clients.version().0, self.clients.counter().0]
            .into_iter()
            .chain(servers)
            .chain(aggregators.map(|bundle| bundle.epoch.0))
            .chain(candidates)
            .chain(clients)
            .chain(records)
            .chain(self.farewells.iter().map(|farewell| farewell.counter.0))
            .chain(self.barred.values().flat_map(|bars| bars.values()).map(|until| until.0));
        if numbers.all(|number| number < NUMBER_MAX) { Ok(()) } else { Err(BadSnapshot::OutOfRange) }
    }

    /// Whether another state says of a round that this one knows something else than this one.
    fn contradicts(&self, other: &Self, checks: &impl Checks) -> bool {
        let known = |round: Round| self.records.iter().find(|kept| kept.record.round == round);
        let record = other
            .records
            .iter()
            .any(|kept| known(kept.record.round).is_some_and(|known| known.digest != kept.digest));
        // Between two records there is none: what lies before the newest of both is the same for both.
        let common = self.previous.round;
        let skipped = common == other.previous.round && self.previous != other.previous;
        let invented = self.records.front().is_some_and(|oldest| {
            let inside = |round: Round| oldest.record.round <= round && round <= common;
            other.records.iter().any(|kept| inside(kept.record.round) && known(kept.record.round).is_none())
        });
        let header = match (&self.open, &other.open) {
            (Some(own), Some(theirs)) => {
                own.header.round == theirs.header.round && own.digest != theirs.digest
            }
            (Some(_) | None, Some(_) | None) => false,
        };
        ((record || skipped || invented) && checks.enforce(Check::RecordsApplied)) || header
    }
}

impl OpenRound {
    /// Whether all vectors and bitmaps are as long as the header says.
    fn fits(&self, params: &RoundParams) -> bool {
        let count = self.header.clients.count;
        self.header.params == *params
            && self.clients.set() == self.header.clients
            && self.signatures.values().all(|signed| signed.refused.len() == count)
            && self.refused.iter().all(|refused| refused.len() == count)
            && self.aggregate.iter().all(|applied| {
                applied.participants.len() == count && applied.body.len() == params.vector_bytes()
            })
    }

    /// What in it no machine can have come to. See [`State::flaw`].
    fn flaw(&self, log: LogId) -> Option<&'static str> {
        let header = &self.header;
        let roster: BTreeSet<PeerId> = header.servers.iter().map(|server| server.peer).collect();
        let complete = self.signatures.len() == roster.len();
        let signed = self.signatures.iter().all(|(peer, signed)| {
            let place = (signed.log, signed.round, signed.header);
            roster.contains(peer) && signed.server == *peer && place == (log, header.round, self.digest)
        });
        let sorted = header.servers.is_sorted_by(|one, next| one.peer < next.peer);
        let clauses = [
            ("an open round of another log", header.log == log),
            ("a roster of nobody, or out of order", !roster.is_empty() && sorted),
            ("a signature under another header, or of a stranger", signed),
            (
                "a round that is live without every signature, or not with them",
                self.refused.is_some() == complete,
            ),
            ("an aggregate in a round that is not live", self.aggregate.is_none() || complete),
            ("a partial without an aggregate", self.partials.is_empty() || self.aggregate.is_some()),
            ("an open round with every partial", self.partials.len() < roster.len()),
            ("a partial of a stranger", self.partials.keys().all(|peer| roster.contains(peer))),
        ];
        clauses.iter().find(|(_, holds)| !holds).map(|(flaw, _)| *flaw)
    }
}

impl SignedRecord {
    /// Whether every signature is of one of its servers, and says of itself that it is under this record.
    fn is_signed_by_its_own(&self) -> bool {
        let record = &self.record;
        self.signatures.iter().all(|(peer, signed)| {
            let place = (signed.log, signed.round, signed.record);
            record.servers.contains(peer)
                && signed.server == *peer
                && place == (record.log, record.round, self.digest)
        })
    }
}
