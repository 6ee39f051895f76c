//! What a node shows of itself to status pages and operators.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::checks::Checks;
use zipnet_core::committee;
use zipnet_core::id::{PeerId, RaftId, Role, StoreId};
use zipnet_core::machine::Abandonment;
use zipnet_core::message::{Standing, Turnout};
use zipnet_core::time::Time;

use super::connections::unlisted_voter;
use super::{Machine, Node, OUTREACHED, lock};
use crate::config::Part;
use crate::event::{Event, Observer};
use crate::meeting::{ServerState, cut_links};
use crate::status::{Awaits, Cause, Declined, Finalized, OpenRound, RecordView, View, causes};

/// See [`patience`].
const PATIENCE_MAX: Duration = Duration::from_secs(10 * 60);

impl<W: Observer, C: Checks> Node<W, C> {
    /// Tells operators why rounds stall, whenever that changes, and that they go on.
    pub(super) fn look_after_causes(&mut self) {
        let now = self.world.now();
        self.look_for_cut_links(now);
        let stalled = self.pace().is_stalled();
        let causes = if stalled { causes(&self.view()) } else { Vec::new() };
        // These two say nothing of what stands in the way.
        let explains = |cause: &Cause| !matches!(cause, Cause::NoRounds | Cause::NoAnonymity);
        if !stalled || causes.iter().any(explains) {
            self.explained_at = now;
        }
        if causes.is_empty() && stalled {
            // A round was opened just now, or is about to be.
            return;
        }
        let names: Vec<_> = causes.iter().map(Cause::name).collect();
        if names != self.told_causes {
            self.world.observe(if causes.is_empty() { Event::GoesOn } else { Event::Stalled { causes } });
            self.told_causes = names;
        }
    }

    /// Notes which links between voters are cut. Links come up and break one after the other, so that a cut counts once it
    /// lasts.
    fn look_for_cut_links(&mut self, now: Time) {
        let Machine::Server { group, .. } = &self.machine else { return };
        let voters = group.state().members.voters.iter().map(|voter| voter.peer).collect();
        let cut = cut_links(&voters, &self.reach());
        self.cut.retain(|link, _| cut.contains(link));
        for link in cut {
            self.cut.entry(link).or_insert(now);
        }
    }

    /// How rounds go at present, without anything that takes longer to find out.
    fn pace(&self) -> View {
        let now = self.world.now();
        let mut view = View::lonely(self.config.instance.name(), self.own.peer, self.own.role);
        view.uptime = now.since(self.started);
        if let Machine::Server { member, .. } = &self.machine {
            let server = &lock(member).server;
            let newest = server.newest();
            view.finalized =
                newest.map(|(round, participants, at)| Finalized { round, participants, age: now.since(at) });
            view.finalized_count = server.rounds();
        } else {
            view.finalized = self.last_seen.map(|(seen, at)| Finalized { age: now.since(at), ..seen });
            view.finalized_count = self.rounds_seen;
            view.patience = patience(view.patience, self.gaps);
        }
        if let Part::Server(part) = &self.config.part {
            view.patience = part.round_period.saturating_add(part.round_deadline);
        }
        view
    }

    pub(super) fn view(&self) -> View {
        let now = self.world.now();
        let mut view = self.pace();
        let known = self.links.linked().filter(|(_, hello)| hello.role != Role::Client);
        view.linked = known.map(|(peer, _)| *peer).collect();
        let aggregator = self.links.linked().find(|(_, hello)| hello.role == Role::Aggregator);
        view.aggregator = aggregator.map(|(peer, _)| *peer);
        view.warnings.extend(self.unlisted.iter().map(unlisted_voter));
        if let Some((peer, log, _)) = self.other_log {
            view.warnings.push(format!(
                "server {} has another log={} of this committee, with records: two servers were started as the first; \
                 decide which log goes on, and restart the others with ZIPNET_BOOTSTRAP",
                peer.short(),
                log.short()
            ));
        }
        view.warnings.extend(self.turned_away.iter().map(|(peer, (reason, _))| {
            format!("{} refuses this node; what it says of it: {reason}", peer.short())
        }));
        match &self.machine {
            Machine::Server { member, group } => {
                let member = lock(member);
                view.leader = member.server.leader();
                let state = group.state();
                let is_agreed = state.members_committed && !state.members.joint;
                view.members_settled = is_agreed && !self.changing;
                view.voters = state.members.voters.iter().map(|voter| voter.peer).collect();
                view.learners = state.members.learners.iter().map(|learner| learner.peer).collect();
                let linked = self
                    .links
                    .linked()
                    .filter_map(|(peer, hello)| Some(RaftId { peer: *peer, store: hello.store? }));
                let own = self.store.map(|store| RaftId { peer: self.own.peer, store });
                view.old_disks = old_disks(&state.members.voters, linked.chain(own));
                view.votes = is_agreed
                    && own.is_some_and(|own| state.members.voters.contains(&own))
                    && !view.old_disks.contains(&self.own.peer);
                let committee = member.server.committee();
                let secret = self.own.committee_secret.as_ref();
                view.group =
                    secret.map(|secret| secret.group_id(&self.config.instance, &self.own.machine_signature));
                view.log = committee.log();
                let records = committee.records().iter();
                let records = records.map(|kept| RecordView::of(&kept.record, kept.digest, kept.confirmed()));
                view.records = records.collect();
                view.servers = server_states(committee);
                // What stands in the registry of this server is of an earlier process as long as its own is not there.
                if !member.server.is_registered()
                    && view.servers.get(&self.own.peer) == Some(&ServerState::Registered)
                {
                    view.servers.remove(&self.own.peer);
                }
                view.aggregator = committee.aggregator().map(|bundle| bundle.peer);
                view.roster = match (committee.open(), committee.records().back()) {
                    (Some(open), _) => open.header.servers.iter().map(|server| server.peer).collect(),
                    (None, Some(kept)) => kept.record.servers.clone(),
                    (None, None) => Vec::new(),
                };
                view.open = committee.open().map(|open| {
                    let (lacks, missing) = open.awaited();
                    OpenRound {
                        round: open.header.round,
                        age: now.since(member.server.waits_since()),
                        awaits: awaits(lacks, missing),
                    }
                });
                view.abandoned = member.server.abandoned().map(|abandoned| OpenRound {
                    round: abandoned.round,
                    age: now.since(abandoned.at),
                    awaits: awaits(abandoned.reason, abandoned.missing.clone()),
                });
                view.turnout = member.server.turnout().filter(|_| !member.server.holds_aggregate()).cloned();
                view.roster_floor = committee.roster_floor();
                let lasts = self.cut.iter().filter(|(_, since)| now.since(**since) >= OUTREACHED);
                view.cut = lasts.map(|(link, _)| *link).collect();
                view.unexplained = now.since(self.explained_at);
                view.clients = committee.clients().len();
                let mut refusals: BTreeMap<PeerId, BTreeSet<PeerId>> = BTreeMap::new();
                for (client, servers) in committee.refusals() {
                    for server in servers {
                        refusals.entry(*server).or_default().insert(*client);
                    }
                }
                view.refusals = refusals;
                let registered = |client: &&PeerId| committee.clients().get(client).is_some();
                view.unrefused = member.server.unwanted().iter().filter(registered).copied().collect();
                view.refused_max = committee::refused_max(committee.clients().len());
                view.min_participants = committee.participant_floor(committee.servers().keys());
                let floors = committee.servers().values().filter_map(|entry| entry.bundle.floors);
                let set = floors.into_iter().any(|floors| floors.servers.is_some());
                view.min_servers = u32::try_from(committee.roster_floor()).ok().filter(|_| set);
            }
            Machine::Aggregator(aggregator) => {
                view.aggregator = aggregator.registry().map(|_| self.own.peer);
                view.disapproved = aggregator.disapproved().collect();
                view.clients = aggregator.registry().map_or(0, |registry| registry.len());
                view.log = aggregator.log();
                view.turnout = aggregator.turnout();
                if let Some(waiting) = aggregator.waiting() {
                    view.min_participants = waiting.header.min_participants;
                    view.roster = waiting.header.servers.iter().map(|server| server.peer).collect();
                    let lacks = |turnout: &Turnout| turnout.round == waiting.header.round;
                    let awaits = match waiting.missing {
                        Some(missing) => Some(Awaits::Servers(missing)),
                        None => view.turnout.as_ref().is_some_and(lacks).then_some(Awaits::Aggregate),
                    };
                    view.open = awaits.map(|awaits| OpenRound {
                        round: waiting.header.round,
                        age: now.since(waiting.since),
                        awaits,
                    });
                }
                let records = aggregator.records();
                let records =
                    records.map(|(record, digest, confirmed)| RecordView::of(record, digest, confirmed));
                view.records = records.collect();
                // Another aggregator is of no use to this one.
                let servers = self.links.linked().filter(|(_, hello)| hello.role == Role::Server);
                view.linked = servers.map(|(peer, _)| *peer).collect();
                view.strangers_only = !view.linked.is_empty() && !aggregator.knows_server();
            }
            Machine::Client(client) => {
                view.enrolled = client.is_enrolled();
                view.aggregator = client.named_aggregator().or(view.aggregator);
                view.barred = client.is_barred();
                view.declined = client.untrusted().map(|untrusted| Declined {
                    reason: untrusted.reason,
                    servers: untrusted.roster.len(),
                    floor: client.roster_floor(),
                    missing: client.missed_in(&untrusted.roster),
                });
                view.unbonded = now.since(self.bonded_at);
            }
            Machine::Reader(reader) => {
                view.reads = true;
                view.unbonded = now.since(self.bonded_at);
                view.log = reader.tip().map(|(log, ..)| log);
            }
        }
        if let Part::Server(part) = &self.config.part {
            view.configured = part.aggregator;
            view.first_voters = u32::try_from(self.first_voters).unwrap_or(u32::MAX).min(part.first_voters);
            view.astray = self.waits_astray(now);
            view.min_participants = view.min_participants.max(part.floors.participants);
        }
        view
    }
}

/// How long a round may take, as whoever is not told how often the servers open one has seen it. The shorter of the last
/// two gaps counts, as the other one may be a stall; where stalls are all there is, they are no pace.
fn patience(usual: Duration, gaps: [Duration; 2]) -> Duration {
    usual.max(gaps[0].min(gaps[1]).saturating_mul(2).min(PATIENCE_MAX))
}

/// What a round waits for that has come as far as this.
fn awaits(lacks: Abandonment, missing: Vec<PeerId>) -> Awaits {
    match lacks {
        Abandonment::Unsigned => Awaits::HeaderSignatures(missing),
        Abandonment::NoAggregate | Abandonment::TooFewEnvelopes => Awaits::Aggregate,
        Abandonment::MissingPartial => Awaits::Partials(missing),
    }
}

/// Servers whose vote is that of another disk than the one with which they are here.
fn old_disks(voters: &BTreeSet<RaftId>, present: impl Iterator<Item = RaftId>) -> BTreeSet<PeerId> {
    let present: BTreeMap<PeerId, StoreId> = present.map(|id| (id.peer, id.store)).collect();
    let is_old = |voter: &&RaftId| present.get(&voter.peer).is_some_and(|store| *store != voter.store);
    voters.iter().filter(is_old).map(|voter| voter.peer).collect()
}

/// What the committee machine says about each server it has heard of.
pub(super) fn server_states<C: Checks>(committee: &committee::Committee<C>) -> BTreeMap<PeerId, ServerState> {
    let standing = |entry: &committee::Server| match entry.standing {
        Standing::Registered => ServerState::Registered,
        Standing::Departed => ServerState::Departed,
        Standing::Leaving => ServerState::Leaving,
    };
    let known = committee.servers().iter().map(|(peer, entry)| (*peer, standing(entry)));
    let retired = committee.retired().iter().map(|peer| (*peer, ServerState::Retired));
    known.chain(retired).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_are_rare_on_purpose_do_not_stall() {
        let (usual, seconds) = (Duration::from_secs(18), Duration::from_secs);
        assert_eq!(patience(usual, [Duration::ZERO; 2]), usual, "nothing was seen yet");
        assert_eq!(patience(usual, [seconds(3), seconds(3)]), usual);
        assert_eq!(patience(usual, [seconds(60), seconds(62)]), seconds(120));
        assert_eq!(patience(usual, [seconds(3), seconds(600)]), usual, "a stall is no pace");
        assert_eq!(patience(usual, [seconds(600), seconds(3)]), usual);
    }

    #[test]
    fn a_vote_is_that_of_a_disk() {
        let id = |peer, store| RaftId { peer: PeerId([peer; 32]), store: StoreId(store) };
        let voters: BTreeSet<_> = [id(1, 10), id(2, 20), id(3, 30)].into();
        let old = |voters, present: &[RaftId]| old_disks(voters, present.iter().copied());
        assert!(old(&voters, &[id(1, 10), id(2, 20)]).is_empty(), "who is not here has the disk that it had");
        assert_eq!(old(&voters, &[id(1, 10), id(2, 21)]), [PeerId([2; 32])].into());
        // While the vote moves, both disks have it.
        let both: BTreeSet<_> = voters.iter().copied().chain([id(2, 21)]).collect();
        assert_eq!(old(&both, &[id(2, 21)]), [PeerId([2; 32])].into());
        let moved: BTreeSet<_> = [id(1, 10), id(2, 21), id(3, 30)].into();
        assert!(old(&moved, &[id(2, 21)]).is_empty());
    }
}
