//! What must be so at the end of a step.

use std::collections::BTreeSet;

use zipnet_core::time::Time;
use zipnet_scenarios::node::{Nodes, Role};
use zipnet_scenarios::scenario::StepId;
use zipnet_scenarios::value::Span;
use zipnet_scenarios::verbs::Check;
use zipnet_scenarios::words::{Metric, Word as _};

use super::admin::Foreseen;
use super::select::Purpose;
use super::{Going, Run};
use crate::cluster::NodeId;

/// What came of a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    Holds,
    /// It is not as it must be.
    Fails {
        /// Where, if it is one node.
        node: Option<NodeId>,
        /// How it is.
        how: String,
    },
    /// Nothing can be seen of it, because of this.
    Unseen(&'static str),
}

impl From<Result<(), String>> for Judged {
    fn from(verdict: Result<(), String>) -> Self {
        verdict.map_or_else(|how| Self::Fails { node: None, how }, |()| Self::Holds)
    }
}

impl Run<'_> {
    /// Looks once.
    pub(super) fn examine(&mut self, check: &Check) -> Going<Judged> {
        Ok(match check {
            Check::ExitCode { node, equals } => {
                let nodes = self.those_or_acted(node.as_ref())?;
                self.each_of(&nodes, |node| match self.cluster.exit(node) {
                    Some(exit) if exit.is(equals.get()) => Ok(()),
                    Some(exit) => Err(format!("ended with {exit}")),
                    None => Err("did not end by itself".to_owned()),
                })
            }
            Check::AnnouncedDeparture { node } => {
                let nodes = self.those_or_acted(node.as_ref())?;
                self.each_of(&nodes, |node| {
                    let printed = self.witness.of(node).lines_since_start("departing") > 0;
                    let peer = self.cluster.get(node).peer.to_string();
                    match (printed, self.witness.said_goodbye_since(&peer, &self.mark)) {
                        (true, true) => Ok(()),
                        (false, _) => Err("did not print departing".to_owned()),
                        (true, false) => Err("was not heard saying goodbye".to_owned()),
                    }
                })
            }
            Check::Leaders { exactly } => {
                let up = self.cluster.servers_up(0);
                let leaders = up.iter().filter(|node| self.witness.of(**node).leads()).count();
                expected("leaders", count(leaders), exactly.get()).into()
            }
            Check::Voters { exactly, includes, excludes } => {
                let includes = self.choose_some(includes.as_ref())?;
                let excludes = self.choose_some(excludes.as_ref())?;
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
                let nodes = self.choose(node, Purpose::Look)?;
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
                let nodes = self.choose(node, Purpose::Look)?;
                self.each_of(&nodes, |node| match self.lines(node, event.name(), *since, &self.mark) {
                    0 => Ok(()),
                    lines => Err(format!("printed {event} {lines} times")),
                })
            }
            Check::LogOrder { node, events } => {
                let nodes = self.choose(node, Purpose::Look)?;
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
                let nodes = self.choose(node, Purpose::Look)?;
                let names = match names {
                    Some(names) => Some(self.choose_one(names, Purpose::Look)?),
                    None => None,
                };
                nodes.iter().try_for_each(|node| self.has_cause(*node, *cause, names)).into()
            }
            Check::Readiness { node, ready, cause } => {
                let nodes = self.choose(node, Purpose::Look)?;
                let verdict = nodes.iter().try_for_each(|node| {
                    self.readiness(*node, *ready)?;
                    cause.map_or(Ok(()), |cause| self.has_cause(*node, cause, None))
                });
                verdict.into()
            }
            Check::Plan { node, step, server, rounds } => {
                let nodes = self.choose(node, Purpose::Look)?;
                let server = self.choose_one(server, Purpose::Look)?;
                let path = format!("/plan/{}/{}", step.name(), self.cluster.get(server).peer);
                self.each_of(&nodes, |node| {
                    let answer = self.cluster.ask(node, &path, None).ok_or("it does not answer")?;
                    let plan: Foreseen =
                        serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
                    if plan.rounds == rounds.name() {
                        Ok(())
                    } else {
                        Err(format!("it foretells {}: {:?}", plan.rounds, plan.consequences))
                    }
                })
            }
            Check::GroupId { node, since: StepId(since), changed } => {
                let nodes = self.choose(node, Purpose::Look)?;
                self.each_of(&nodes, |node| {
                    let before = self.groups.get(since);
                    let home = self.cluster.get(node).home;
                    let own = before.and_then(|groups| groups.get(node).cloned().flatten());
                    let shared = || {
                        let mut servers = self.cluster.of_role(home, Role::Server);
                        servers.find_map(|server| {
                            before.and_then(|groups| groups.get(server).cloned().flatten())
                        })
                    };
                    let before = own.or_else(shared).ok_or("no group was told at the end of that step")?;
                    let now = self.cluster.status(node).and_then(|status| status.group);
                    let now = now.ok_or("does not tell its group")?;
                    match (before == now, changed) {
                        (true, false) | (false, true) => Ok(()),
                        (true, true) => Err("has the same group id".to_owned()),
                        (false, false) => Err("has another group id".to_owned()),
                    }
                })
            }
            Check::SameLog { node } => {
                let nodes = self.choose(node, Purpose::Look)?;
                let logs: BTreeSet<_> = nodes
                    .iter()
                    .map(|node| self.cluster.status(*node).map(|status| (status.group, status.log)))
                    .collect();
                let told = logs.iter().all(|log| matches!(log, Some((Some(_), Some(_)))));
                match logs.len() {
                    1 if told => Judged::Holds,
                    1 => Err("they do not tell their log".to_owned()).into(),
                    len => Err(format!("they have {len} logs: {logs:?}")).into(),
                }
            }
            Check::Refused { node, reason } => {
                let nodes = self.choose(node, Purpose::Look)?;
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
                let includes = self.choose_some(includes.as_ref())?;
                let excludes = self.choose_some(excludes.as_ref())?;
                self.roster(wanted.map(|wanted| wanted.get()), &includes, &excludes).into()
            }
            Check::Metric { node, name, equals, at_least } => {
                let nodes = self.choose(node, Purpose::Look)?;
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
                let nodes = self.choose(node, Purpose::Look)?;
                self.each_of(&nodes, |node| match self.cluster.get(node).state.read_dir() {
                    Ok(mut left) => match left.next() {
                        None => Ok(()),
                        Some(Ok(file)) => Err(format!("still has {}", file.path().display())),
                        Some(Err(reason)) => Err(format!("has a state folder that cannot be read: {reason}")),
                    },
                    Err(reason) if reason.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    Err(reason) => Err(format!("has a state folder that cannot be read: {reason}")),
                })
            }
            Check::OpensNoPastRound { node } => {
                for node in self.choose(node, Purpose::Look)? {
                    let judged = self.break_in(node)?;
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
    fn each_of(&self, nodes: &[NodeId], look: impl Fn(NodeId) -> Result<(), String>) -> Judged {
        for node in nodes {
            if let Err(how) = look(*node) {
                let how = format!("{} {how}", self.cluster.name(*node));
                return Judged::Fails { node: Some(*node), how };
            }
        }
        Judged::Holds
    }

    /// The named nodes, or those of the step's `do`.
    fn those_or_acted(&mut self, nodes: Option<&Nodes>) -> Going<Vec<NodeId>> {
        match nodes {
            Some(nodes) => self.choose(nodes, Purpose::Install),
            None => Ok(self.acted.iter().copied().collect()),
        }
    }

    /// A burglar has what was on the disk of a machine whenever a process of it ended. Which round keys does that give?
    fn break_in(&mut self, node: NodeId) -> Going<Judged> {
        let loot = self.loot.get(&node).cloned().unwrap_or_default();
        if !loot.has_keys() {
            return Ok(Judged::Unseen("no log on its disk told which round keys it announced"));
        }
        let found = self.meanwhile(move || loot.search())?;
        Ok(found.map_or(Judged::Holds, |key| Judged::Fails {
            node: Some(node),
            how: format!(
                "{} had the private half of the round key {key:?} on its disk",
                self.cluster.name(node)
            ),
        }))
    }

    /// Readiness as probes ask for it.
    fn readiness(&self, node: NodeId, wanted: bool) -> Result<(), String> {
        let name = self.cluster.name(node);
        let answer = self.cluster.ask(node, "/readyz?verbose", None);
        let answer = answer.ok_or_else(|| format!("{name} does not answer"))?;
        let is = match answer.status {
            200 => true,
            503 => false,
            other => return Err(format!("{name} answers {other} when it is asked whether it is ready")),
        };
        if is == wanted {
            return Ok(());
        }
        Err(format!(
            "{name} is {}: {}",
            if is { "ready" } else { "not ready" },
            answer.body.trim().replace('\n', "; ")
        ))
    }

    /// The servers of the newest record of the main deployment.
    fn roster(&self, wanted: Option<u64>, includes: &[NodeId], excludes: &[NodeId]) -> Result<(), String> {
        let servers = self.cluster.servers_up(0).into_iter();
        let newest = servers.filter_map(|node| self.records(node)?.pop()).max_by_key(|record| record.round);
        let roster = newest.ok_or("no server shows a record")?.servers;
        let holds = |node: &NodeId| roster.contains(&self.cluster.get(*node).peer.to_string());
        if let Some(wanted) = wanted
            && count(roster.len()) != wanted
        {
            return Err(format!("it has {} servers, expected {wanted}", roster.len()));
        }
        if let Some(missing) = includes.iter().find(|node| !holds(node)) {
            return Err(format!("it lacks {}", self.cluster.name(*missing)));
        }
        if let Some(left) = excludes.iter().find(|node| holds(node)) {
            return Err(format!("it holds {}", self.cluster.name(*left)));
        }
        Ok(())
    }

    /// A metric summed over its labels; lengths of time in whole seconds.
    pub(super) fn metric(&self, node: NodeId, metric: Metric) -> Option<u64> {
        match metric {
            Metric::RoundDuration => self.witness.of(node).longest_round.map(|longest| longest.as_secs()),
            _ => self.cluster.metric(node, metric.name()).map(|thousandths| thousandths / 1_000),
        }
    }

    fn round_numbers_continue(&self) -> Result<(), String> {
        let main: Vec<_> = self.witness.opened_from(0).iter().filter(|round| round.home == 0).collect();
        let first = main.iter().find(|round| round.seq > self.mark.seq).ok_or("no round was opened")?;
        let mut before = main
            .iter()
            .rev()
            .filter(|round| round.seq <= self.mark.seq && round.committee == first.committee);
        let last = before.next().ok_or("no round was opened before")?;
        expected("the first round is number", first.round, last.round + 1)
    }

    fn rounds_went_on(&self, since: &str, gap: Span) -> Result<(), String> {
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

fn shown(at: Time) -> String {
    let millis = at.0 / 1_000_000;
    format!("{}.{:03}s", millis / 1_000, millis % 1_000)
}

fn expected(what: &str, found: u64, wanted: u64) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found}, expected {wanted}")) }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
