//! What must be so at the end of a step.

use std::collections::BTreeSet;

use zipnet_core::id::PeerId;
use zipnet_core::key::RoundSecret;
use zipnet_core::random::Random as CoreRandom;
use zipnet_core::time::Time;
use zipnet_node::plan::{Plan, Step};
use zipnet_scenarios::node::{Nodes, Role};
use zipnet_scenarios::scenario::StepId;
use zipnet_scenarios::value::Span;
use zipnet_scenarios::verbs::Check;
use zipnet_scenarios::words::{self, Metric, Word as _};

use super::select::Purpose;
use super::{Going, Run};
use crate::cluster::NodeId;

/// Whether something is as it must be, or else how it is.
type Verdict = Result<(), String>;

impl Run<'_> {
    /// Looks once.
    pub(super) async fn examine(&mut self, check: &Check) -> Going<Verdict> {
        Ok(match check {
            Check::ExitCode { node, equals } => {
                let nodes = self.those_or_acted(node.as_ref()).await?;
                self.each_of(&nodes, |node| match self.cluster.exit(node) {
                    Some(exit) if u64::from(exit.code) == equals.get() => Ok(()),
                    Some(exit) => Err(format!("ended with code {}: {}", exit.code, exit.reason)),
                    None => Err("did not end by itself".to_owned()),
                })
            }
            Check::AnnouncedDeparture { node } => {
                let nodes = self.those_or_acted(node.as_ref()).await?;
                self.each_of(&nodes, |node| {
                    let printed = self.witness.of(node, |known| known.lines_since_start("departing")) > 0;
                    let heard = self.witness.said_goodbye_since(self.cluster.peer(node), &self.mark);
                    match (printed, heard) {
                        (true, true) => Ok(()),
                        (false, _) => Err("did not print departing".to_owned()),
                        (true, false) => Err("was not heard saying goodbye".to_owned()),
                    }
                })
            }
            Check::Leaders { exactly } => {
                let up = self.cluster.servers_up(0);
                let leaders = up.iter().filter(|node| self.witness.of(**node, |known| known.leads())).count();
                expected("leaders", count(leaders), exactly.get())
            }
            Check::Voters { exactly, includes, excludes } => {
                let includes = self.choose_some(includes.as_ref()).await?;
                let excludes = self.choose_some(excludes.as_ref()).await?;
                self.voters(&includes, &excludes).and_then(|voters| expected("voters", voters, exactly.get()))
            }
            Check::NoRoundFinalized {} => match self.witness.last_finalized() {
                Some(last) if last >= self.mark.at => Err(format!("a round was finalised at {last:?}")),
                Some(_) | None => Ok(()),
            },
            Check::LogEvent { node, event, at_least, since } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                self.each_of(&nodes, |node| {
                    let lines = self.lines(node, event.name(), *since, &self.mark);
                    if lines >= at_least.get() {
                        Ok(())
                    } else {
                        Err(format!("printed {event} {lines} times"))
                    }
                })
            }
            Check::NoLogEvent { node, event, since } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                self.each_of(&nodes, |node| match self.lines(node, event.name(), *since, &self.mark) {
                    0 => Ok(()),
                    lines => Err(format!("printed {event} {lines} times")),
                })
            }
            Check::LogOrder { node, events } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                self.each_of(&nodes, |node| {
                    let mut last = 0;
                    for event in events {
                        let first = self.witness.of(node, |known| known.first(event.name()));
                        let first = first.ok_or_else(|| format!("did not print {event} since its start"))?;
                        if first < last {
                            return Err(format!("printed {event} too early"));
                        }
                        last = first;
                    }
                    Ok(())
                })
            }
            Check::Status { node, cause, names } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                let names = match names {
                    Some(names) => Some(self.choose_one(names, Purpose::Look).await?),
                    None => None,
                };
                let mut verdict = Ok(());
                for node in nodes {
                    verdict = verdict.and(self.has_cause(node, *cause, names).await);
                }
                verdict
            }
            Check::Readiness { node, ready, cause } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                let mut verdict = Ok(());
                for node in nodes {
                    let name = self.cluster.name(node);
                    let own = match self.status(node).await {
                        None => Err(format!("{name} does not answer")),
                        Some(status) if status.ready != *ready => {
                            let state = if status.ready { "ready" } else { "not ready" };
                            Err(format!("{name} is {state}: {:?}", status.causes))
                        }
                        Some(_) => Ok(()),
                    };
                    verdict = verdict.and(own);
                    if let Some(cause) = cause {
                        verdict = verdict.and(self.has_cause(node, *cause, None).await);
                    }
                }
                verdict
            }
            Check::Plan { node, step, server, rounds } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                let server = self.choose_one(server, Purpose::Look).await?;
                let peer = self.cluster.peer(server);
                let step = match step {
                    words::Plan::Stop => Step::Stop(peer),
                    words::Plan::Remove => Step::Remove(peer),
                    words::Plan::Add => Step::Add,
                };
                let mut verdict = Ok(());
                for node in nodes {
                    let name = self.cluster.name(node);
                    let own = match self.view(node).await {
                        None => Err(format!("{name} does not answer")),
                        Some(view) => {
                            let plan = Plan::of(&view, step);
                            let said = serde_json::to_value(plan.rounds).unwrap_or_default();
                            if said == rounds.name() {
                                Ok(())
                            } else {
                                Err(format!("{name} foretells {said}: {:?}", plan.consequences))
                            }
                        }
                    };
                    verdict = verdict.and(own);
                }
                verdict
            }
            Check::GroupId { node, since: StepId(since), changed } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                self.each_of(&nodes, |node| {
                    let before = self.groups.get(since);
                    let home = self.cluster.get(node).home;
                    let own = before.and_then(|groups| groups.get(node).copied().flatten());
                    let shared = || {
                        let mut servers = self.cluster.of_role(home, Role::Server);
                        servers.find_map(|server| {
                            before.and_then(|groups| groups.get(server).copied().flatten())
                        })
                    };
                    let now = self.witness.of(node, |known| known.group);
                    match (own.or_else(shared) == now, changed) {
                        (true, false) | (false, true) => Ok(()),
                        (true, true) => Err("has the same group id".to_owned()),
                        (false, false) => Err("has another group id".to_owned()),
                    }
                })
            }
            Check::SameLog { node } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                let logs: BTreeSet<_> = nodes
                    .iter()
                    .map(|node| self.witness.of(*node, |known| (known.group, known.log)))
                    .collect();
                if logs.len() == 1 { Ok(()) } else { Err(format!("they have {} logs: {logs:?}", logs.len())) }
            }
            Check::Refused { node, reason } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                self.each_of(&nodes, |node| {
                    if self.is_refused(node, *reason, &self.mark) {
                        Ok(())
                    } else {
                        Err(format!("was not refused for {reason}"))
                    }
                })
            }
            Check::Registry { servers, clients } => {
                self.registries(servers.map(|servers| servers.get()), clients.map(|clients| clients.get()))
            }
            Check::Roster { count: wanted, includes, excludes } => {
                let includes = self.peers(includes.as_ref()).await?;
                let excludes = self.peers(excludes.as_ref()).await?;
                let roster = self.witness.roster(0).unwrap_or_default();
                if let Some(wanted) = wanted
                    && count(roster.len()) != wanted.get()
                {
                    Err(format!("it has {} servers, expected {}", roster.len(), wanted.get()))
                } else if let Some(missing) = includes.iter().find(|peer| !roster.contains(peer)) {
                    Err(format!("it lacks {}", self.called(missing)))
                } else if let Some(left) = excludes.iter().find(|peer| roster.contains(peer)) {
                    Err(format!("it holds {}", self.called(left)))
                } else {
                    Ok(())
                }
            }
            Check::Metric { node, name, equals, at_least } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                self.each_of(&nodes, |node| {
                    let value = self.metric(node, *name);
                    let value = value.ok_or_else(|| format!("has no {}", name.name()))?;
                    if equals.is_some_and(|equals| equals.get() != value)
                        || at_least.is_some_and(|least| least.get() > value)
                    {
                        return Err(format!("has {} at {value}", name.name()));
                    }
                    Ok(())
                })
            }
            Check::Wiped { node } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                self.each_of(&nodes, |node| {
                    let left = self.cluster.host(node).platter().names();
                    if left.is_empty() { Ok(()) } else { Err(format!("still has {}", left.join(", "))) }
                })
            }
            Check::OpensNoPastRound { node } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                self.each_of(&nodes, |node| self.break_in(node))
            }
            Check::RoundNumbersContinue {} => self.round_numbers_continue(),
            Check::RoundsWentOn { since: StepId(since), gap } => self.rounds_went_on(since, *gap),
        })
    }

    /// The verdict over several nodes: the first that is not as it must be.
    fn each_of(&self, nodes: &[NodeId], look: impl Fn(NodeId) -> Verdict) -> Verdict {
        nodes
            .iter()
            .try_for_each(|node| look(*node).map_err(|how| format!("{} {how}", self.cluster.name(*node))))
    }

    /// The named nodes, or those of the step's `do`.
    async fn those_or_acted(&mut self, nodes: Option<&Nodes>) -> Going<Vec<NodeId>> {
        match nodes {
            Some(nodes) => self.choose(nodes, Purpose::Install).await,
            None => Ok(self.acted.iter().copied().collect()),
        }
    }

    async fn peers(&mut self, nodes: Option<&Nodes>) -> Going<Vec<PeerId>> {
        let nodes = self.choose_some(nodes).await?;
        Ok(nodes.into_iter().map(|node| self.cluster.peer(node)).collect())
    }

    fn called(&self, peer: &PeerId) -> String {
        self.cluster.node_of(peer).map_or_else(|| peer.short(), |node| self.cluster.name(node).to_owned())
    }

    /// A metric summed over its labels; lengths of time in whole seconds.
    fn metric(&self, node: NodeId, metric: Metric) -> Option<u64> {
        let now = self.now();
        self.witness.of(node, |known| {
            let metrics = known.metrics.as_ref()?;
            Some(match metric {
                Metric::Anonymity => return None,
                Metric::RoundStalled => metrics.stalled(now).as_secs(),
                Metric::RoundDuration => known.longest_round?.as_secs(),
                _ => metrics.total(metric.name()),
            })
        })
    }

    /// A burglar has the machine: everything that is or ever was on its disk. Which round keys does that give?
    ///
    /// The engine knows all randomness that the machine drew, so it knows the private halves of the keys that it
    /// announced. It finds out for which of them that is so, by their public halves, and then searches the disk for the
    /// private half and for whatever it was made from.
    fn break_in(&self, node: NodeId) -> Verdict {
        let peer = self.cluster.peer(node);
        let opened = self.witness.opened_from(0);
        let announced: BTreeSet<_> = opened
            .iter()
            .flat_map(|round| &round.keys)
            .filter(|(server, _)| *server == peer)
            .map(|(_, key)| *key)
            .collect();
        if announced.is_empty() {
            return Err("announced no round key, so there is nothing to find".to_owned());
        }
        let mut known = BTreeSet::new();
        let platter = self.cluster.host(node).platter();
        let drawn = self.cluster.host(node).drawn_entropy();
        for (place, start) in drawn.iter().enumerate() {
            // What a process draws at its start, and for each of its keys soon after.
            let (mut stirred, mut next) = (Vec::new(), place + 1);
            while let Some((at, seed, public)) =
                (next..drawn.len().min(next + DRAWN_BETWEEN)).find_map(|at| {
                    let seed = round_key_seed(*start, &stirred, drawn[at]);
                    let public = RoundSecret::from_seed(seed).public();
                    announced.contains(&public).then_some((at, seed, public))
                })
            {
                known.insert(public);
                if [&seed, start, &drawn[at]].into_iter().any(|secret| platter.held(secret)) {
                    return Err(format!("has had the private half of the round key {public:?} on its disk"));
                }
                stirred.push(drawn[at]);
                next = at + 1;
            }
        }
        let missed = announced.difference(&known).count();
        if missed > 0 {
            return Err(format!(
                "announced {missed} round keys whose origin is not known, so the search proves nothing"
            ));
        }
        Ok(())
    }

    fn round_numbers_continue(&self) -> Verdict {
        let all = self.witness.opened_from(0);
        let main: Vec<_> = all.iter().filter(|round| round.home == 0).collect();
        let first = main.iter().find(|round| round.seq > self.mark.seq);
        let first = first.ok_or("no round was opened")?;
        let mut before =
            main.iter().rev().filter(|round| round.seq <= self.mark.seq && round.log == first.log);
        let last = before.next().ok_or("no round was opened before")?;
        expected("the first round is number", first.round.0, last.round.0 + 1)
    }

    fn rounds_went_on(&self, since: &str, gap: Span) -> Verdict {
        let began = self.begun.get(since).copied().ok_or("that step was not carried out")?;
        let mut last = began;
        let moments = self.witness.finalized_at(0).into_iter().filter(|at| *at >= began);
        for at in moments.chain([self.now()]) {
            if at.since(last) > gap.duration() {
                return Err(format!("no round was finalised from {} to {}", shown(last), shown(at)));
            }
            last = at;
        }
        Ok(())
    }
}

/// At most so many times a process draws randomness between its keyring's and that of a round key, or between those of
/// two round keys.
const DRAWN_BETWEEN: usize = 8;

/// The private half of a round key as a keyring draws it: `stirred` went into the keys before.
fn round_key_seed(start: [u8; 32], stirred: &[[u8; 32]], fresh: [u8; 32]) -> [u8; 32] {
    let mut keys = CoreRandom::new(start).fork("round keys");
    for entropy in stirred {
        keys.stir(entropy);
        keys.fill(&mut [0; 32]);
    }
    keys.stir(&fresh);
    keys.bytes()
}

fn shown(at: Time) -> String {
    let millis = at.0 / 1_000_000;
    format!("{}.{:03}s", millis / 1_000, millis % 1_000)
}

fn expected(what: &str, found: u64, wanted: u64) -> Verdict {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found}, expected {wanted}")) }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
