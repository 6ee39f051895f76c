//! What must be so at the end of a step.

use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::id::PeerId;
use zipnet_core::time::Time;
use zipnet_scenarios::node::{Nodes, Role};
use zipnet_scenarios::scenario::StepId;
use zipnet_scenarios::value::Span;
use zipnet_scenarios::verbs::Check;
use zipnet_scenarios::words::{Metric, Word as _};

use super::select::Purpose;
use super::{Going, Run};
use crate::cast::NodeId;
use crate::site::{Judged, Site};

/// Whether something is as it must be, or else how it is.
type Verdict = Result<(), String>;

impl<S: Site> Run<'_, S> {
    /// Looks once.
    pub(super) async fn examine(&mut self, check: &Check) -> Going<Judged> {
        Ok(match check {
            Check::ExitCode { node, equals } => {
                let nodes = self.those_or_acted(node.as_ref()).await?;
                self.each_of(&nodes, |node| match self.site.exit(node) {
                    Some(exit) if exit.is(equals.get()) => Ok(()),
                    Some(exit) => Err(format!("ended with {}", exit.how)),
                    None => Err("did not end by itself".to_owned()),
                })
            }
            Check::AnnouncedDeparture { node } => {
                let nodes = self.those_or_acted(node.as_ref()).await?;
                self.each_of(&nodes, |node| {
                    let printed = self.witness.of(node).lines_since_start("departing") > 0;
                    let heard = self.witness.said_goodbye_since(self.site.cast().peer(node), &self.mark);
                    match (printed, heard) {
                        (true, true) => Ok(()),
                        (false, _) => Err("did not print departing".to_owned()),
                        (true, false) => Err("was not heard saying goodbye".to_owned()),
                    }
                })
            }
            Check::Leaders { exactly } => {
                let up = self.servers_up(0);
                let leaders = up.iter().filter(|node| self.witness.of(**node).leads()).count();
                expected("leaders", count(leaders), exactly.get()).into()
            }
            Check::Voters { exactly, includes, excludes } => {
                let includes = self.choose_some(includes.as_ref()).await?;
                let excludes = self.choose_some(excludes.as_ref()).await?;
                let voters = self.voters(&includes, &excludes);
                voters.and_then(|voters| expected("voters", voters, exactly.get())).into()
            }
            Check::NoRoundFinalized {} => match self.witness.last_finalized() {
                Some(last) if last >= self.mark.at => {
                    Err(format!("a round was finalised at {}", shown(last))).into()
                }
                Some(_) | None => Judged::Holds,
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
                        let first = self.witness.of(node).first(event.name());
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
                verdict.into()
            }
            Check::Readiness { node, ready, cause } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                let mut verdict = Ok(());
                for node in nodes {
                    let name = self.name(node);
                    let own = match self.site.readiness(node).await {
                        Err(answer) => Err(format!("{name} {answer}")),
                        Ok((is, _)) if is == *ready => Ok(()),
                        Ok((is, why)) => {
                            Err(format!("{name} is {}: {why}", if is { "ready" } else { "not ready" }))
                        }
                    };
                    verdict = verdict.and(own);
                    if let Some(cause) = cause {
                        verdict = verdict.and(self.has_cause(node, *cause, None).await);
                    }
                }
                verdict.into()
            }
            Check::Plan { node, step, server, rounds } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                let server = self.choose_one(server, Purpose::Look).await?;
                let peer = self.site.cast().peer(server);
                let mut verdict = Ok(());
                for node in nodes {
                    let name = self.name(node);
                    let own = match self.site.plan(node, *step, peer).await {
                        Err(answer) => Err(format!("{name} {answer}")),
                        Ok(plan) if plan.rounds == rounds.name() => Ok(()),
                        Ok(plan) => Err(format!("{name} foretells {}: {:?}", plan.rounds, plan.consequences)),
                    };
                    verdict = verdict.and(own);
                }
                verdict.into()
            }
            Check::GroupId { node, since: StepId(since), changed } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                let mut groups = BTreeMap::new();
                for node in &nodes {
                    groups.insert(*node, self.site.group(*node).await);
                }
                self.each_of(&nodes, |node| {
                    let before = |node: NodeId| self.groups.get(since)?.get(node)?.as_ref();
                    let home = self.site.cast().get(node).home;
                    let shared = || self.site.cast().of_role(home, Role::Server).find_map(before);
                    let before =
                        before(node).or_else(shared).ok_or("no group was told at the end of that step")?;
                    let now = groups.get(&node).and_then(Option::as_ref).ok_or("does not tell its group")?;
                    match (before == now, changed) {
                        (true, false) | (false, true) => Ok(()),
                        (true, true) => Err("has the same group id".to_owned()),
                        (false, false) => Err("has another group id".to_owned()),
                    }
                })
            }
            Check::SameLog { node } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                let mut logs = BTreeSet::new();
                for node in nodes {
                    logs.insert(self.site.status(node).await.map(|status| (status.group, status.log)));
                }
                let told = logs.iter().all(|log| matches!(log, Some((Some(_), Some(_)))));
                match logs.len() {
                    1 if told => Judged::Holds,
                    1 => Err("they do not tell their log".to_owned()).into(),
                    len => Err(format!("they have {len} logs: {logs:?}")).into(),
                }
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
            Check::Registry { servers, clients } => self
                .registries(servers.map(|servers| servers.get()), clients.map(|clients| clients.get()))
                .into(),
            Check::Roster { count: wanted, includes, excludes } => {
                let includes = self.peers(includes.as_ref()).await?;
                let excludes = self.peers(excludes.as_ref()).await?;
                let roster = self.witness.roster(0);
                let verdict = if let Some(wanted) = wanted
                    && count(roster.len()) != wanted.get()
                {
                    Err(format!("it has {} servers, expected {}", roster.len(), wanted.get()))
                } else if let Some(missing) = includes.iter().find(|peer| !roster.contains(peer)) {
                    Err(format!("it lacks {}", self.called(missing)))
                } else if let Some(left) = excludes.iter().find(|peer| roster.contains(peer)) {
                    Err(format!("it holds {}", self.called(left)))
                } else {
                    Ok(())
                };
                verdict.into()
            }
            Check::Metric { node, name, equals, at_least } => {
                let nodes = self.choose(node, Purpose::Look).await?;
                self.each_of(&nodes, |node| {
                    let value = self.metric(node, *name);
                    let value = value.ok_or_else(|| format!("does not show {}", name.name()))?;
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
                self.each_of(&nodes, |node| match self.site.left_on_disk(node)? {
                    None => Ok(()),
                    Some(left) => Err(format!("still has {left}")),
                })
            }
            Check::OpensNoPastRound { node } => {
                for node in self.choose(node, Purpose::Look).await? {
                    let judged = self.site.break_in(node);
                    let judged = self.wait_for(judged).await?;
                    if judged != Judged::Holds {
                        return Ok(judged);
                    }
                }
                Judged::Holds
            }
            Check::RoundNumbersContinue {} => self.round_numbers_continue().into(),
            Check::RoundsWentOn { since: StepId(since), gap } => self.rounds_went_on(since, *gap).into(),
        })
    }

    /// The verdict over several nodes: the first that is not as it must be.
    fn each_of(&self, nodes: &[NodeId], look: impl Fn(NodeId) -> Verdict) -> Judged {
        for node in nodes {
            if let Err(how) = look(*node) {
                return Judged::Fails { node: Some(*node), how: format!("{} {how}", self.name(*node)) };
            }
        }
        Judged::Holds
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
        Ok(nodes.into_iter().map(|node| self.site.cast().peer(node)).collect())
    }

    /// The name of whoever last was this peer.
    pub(super) fn called(&self, peer: &PeerId) -> String {
        self.site.cast().node_of(peer).map_or_else(|| peer.short(), |node| self.name(node).to_owned())
    }

    /// A metric summed over its labels; lengths of time in whole seconds.
    fn metric(&self, node: NodeId, metric: Metric) -> Option<u64> {
        match metric {
            Metric::Anonymity => None,
            Metric::RoundDuration => self.witness.of(node).longest_round.map(|longest| longest.as_secs()),
            _ => self.site.metric(node, metric.name()).map(|thousandths| thousandths / 1_000),
        }
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
        let moments = self.witness.finalized_at(0).iter().copied().filter(|at| *at >= began);
        for at in moments.chain([self.now()]) {
            if at.since(last) > gap.duration() {
                return Err(format!("no round was finalised from {} to {}", shown(last), shown(at)));
            }
            last = at;
        }
        Ok(())
    }
}

/// A moment of the run, in seconds.
pub(super) fn shown(at: Time) -> String {
    let millis = at.0 / 1_000_000;
    format!("{}.{:03}s", millis / 1_000, millis % 1_000)
}

fn expected(what: &str, found: u64, wanted: u64) -> Verdict {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found}, expected {wanted}")) }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
