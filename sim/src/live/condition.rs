//! What is waited for.

use zipnet_core::time::Time;
use zipnet_reports::Verdict;
use zipnet_scenarios::node::{Nodes, Role, Which};
use zipnet_scenarios::verbs::Condition;
use zipnet_scenarios::words::{Cause, Outcome, Reason, Since, Word as _};

use super::line::short;
use super::select::Purpose;
use super::witness::{Fate, Mark};
use super::{Going, Run};
use crate::cluster::NodeId;
use crate::engine::{fits, tells};

/// A condition with its nodes, from the moment on from which it is waited for.
#[derive(Clone, Debug)]
pub(super) struct Wait {
    condition: Condition,
    /// The nodes that it is about, apart from `:all` of [`Condition::RoundsFinalized`].
    nodes: Vec<NodeId>,
    /// Deployments all of whose servers that are up it is about.
    all_of: Vec<usize>,
    /// The node that a sentence names.
    names: Option<NodeId>,
    includes: Vec<NodeId>,
    excludes: Vec<NodeId>,
    mark: Mark,
    since: Time,
}

impl Wait {
    pub(super) const fn verb(&self) -> &'static str {
        self.condition.verb()
    }

    /// The node whose log is most likely to tell more.
    pub(super) fn about(&self) -> Option<NodeId> {
        self.nodes.first().copied()
    }
}

impl Run<'_> {
    /// Decides which nodes a condition is about. Counts begin at `mark`.
    pub(super) fn begin_wait(&mut self, condition: &Condition, mark: Mark) -> Going<Wait> {
        let mut wait = Wait {
            condition: condition.clone(),
            nodes: Vec::new(),
            all_of: Vec::new(),
            names: None,
            includes: Vec::new(),
            excludes: Vec::new(),
            mark,
            since: self.now(),
        };
        match condition {
            Condition::RoundsFinalized { node, .. } => {
                let (all, some): (Vec<_>, Vec<_>) = node
                    .0
                    .iter()
                    .cloned()
                    .partition(|node| node.which == Which::All && node.role == Role::Server);
                wait.all_of = all.iter().map(|node| self.cluster.home(node)).collect();
                if !some.is_empty() {
                    wait.nodes = self.choose(&Nodes(some), Purpose::Look)?;
                }
            }
            Condition::LogEvent { node, .. }
            | Condition::Exited { node, .. }
            | Condition::Refused { node, .. }
            | Condition::Outcome { node, .. } => wait.nodes = self.choose(node, Purpose::Look)?,
            Condition::Status { node, names, .. } => {
                wait.nodes = self.choose(node, Purpose::Look)?;
                if let Some(names) = names {
                    wait.names = Some(self.choose_one(names, Purpose::Look)?);
                }
            }
            Condition::Voters { includes, excludes, .. } => {
                wait.includes = self.choose_some(includes.as_ref())?;
                wait.excludes = self.choose_some(excludes.as_ref())?;
            }
            Condition::Leader {} | Condition::Registered { .. } | Condition::Stalled { .. } => {}
        }
        Ok(wait)
    }

    /// Whether the condition holds at this moment.
    pub(super) fn is_met(&self, wait: &Wait, line: u32) -> Going<bool> {
        let nodes = &wait.nodes;
        Ok(match &wait.condition {
            Condition::RoundsFinalized { count, .. } => {
                let mut all = nodes.clone();
                for home in &wait.all_of {
                    let up = self.cluster.servers_up(*home);
                    if up.is_empty() {
                        return Ok(false);
                    }
                    all.extend(up);
                }
                let count = count.get().get();
                all.iter().all(|node| self.witness.lines_since(*node, "round-finalized", &wait.mark) >= count)
            }
            Condition::LogEvent { event, count, since, .. } => {
                nodes.iter().all(|node| self.lines(*node, event.name(), *since, &wait.mark) >= count.get())
            }
            Condition::Leader {} => self.is_led(),
            Condition::Voters { count, .. } => {
                self.voters(&wait.includes, &wait.excludes).is_ok_and(|voters| voters == count.get())
            }
            Condition::Registered { servers, clients } => self
                .registries(servers.map(|servers| servers.get()), clients.map(|clients| clients.get()))
                .is_ok(),
            Condition::Exited { code, .. } => {
                for node in nodes {
                    match self.cluster.exit(*node) {
                        Some(exit) if exit.is(code.get()) => {}
                        Some(exit) => {
                            let detail = format!("{} ended with {exit}", self.cluster.name(*node));
                            return Err(self.failed_on(Verdict::Violated, line, Some(*node), detail));
                        }
                        None => return Ok(false),
                    }
                }
                true
            }
            Condition::Stalled { r#for } => {
                let last = self.witness.last_finalized().unwrap_or_default().max(wait.since);
                self.now().since(last) >= r#for.duration()
            }
            Condition::Status { cause, .. } => {
                nodes.iter().all(|node| self.has_cause(*node, *cause, wait.names).is_ok())
            }
            Condition::Refused { reason, .. } => {
                nodes.iter().all(|node| self.is_refused(*node, *reason, &wait.mark))
            }
            Condition::Outcome { equals, .. } => {
                nodes.iter().all(|node| self.fate(*node) == Some(Fate::Known(*equals)))
            }
        })
    }

    /// How things stand with a condition that does not hold, for whoever reads the failure.
    pub(super) fn told(&self, wait: &Wait) -> String {
        let each = |nodes: &[NodeId], tell: &dyn Fn(NodeId) -> String| {
            let told: Vec<_> =
                nodes.iter().map(|node| format!("{} {}", self.cluster.name(*node), tell(*node))).collect();
            if told.is_empty() { "no server is up".to_owned() } else { told.join(", ") }
        };
        match &wait.condition {
            Condition::RoundsFinalized { .. } => {
                let mut all = wait.nodes.clone();
                all.extend(wait.all_of.iter().flat_map(|home| self.cluster.servers_up(*home)));
                each(&all, &|node| {
                    let count = self.witness.lines_since(node, "round-finalized", &wait.mark);
                    format!("saw {count} ({})", self.causes(node))
                })
            }
            Condition::LogEvent { event, since, .. } => each(&wait.nodes, &|node| {
                format!("printed {event} {} times", self.lines(node, event.name(), *since, &wait.mark))
            }),
            Condition::Leader {} => {
                each(&self.cluster.servers_up(0), &|node| match &self.witness.of(node).leader {
                    Some((term, leader, _)) => {
                        format!("says {} in term {term}", leader.as_deref().unwrap_or("nobody"))
                    }
                    None => "has said nothing".to_owned(),
                })
            }
            Condition::Voters { .. } => match self.voters(&wait.includes, &wait.excludes) {
                Ok(count) => format!("{count} vote"),
                Err(told) => told,
            },
            Condition::Registered { servers, clients } => self
                .registries(servers.map(|servers| servers.get()), clients.map(|clients| clients.get()))
                .err()
                .unwrap_or_default(),
            Condition::Exited { .. } => each(&wait.nodes, &|node| {
                if self.cluster.is_up(node) { "runs".to_owned() } else { "did not end by itself".to_owned() }
            }),
            Condition::Stalled { .. } => match self.witness.last_finalized() {
                Some(last) => format!("the last round was finalised at {} ms", last.0 / 1_000_000),
                None => "no round was finalised at all".to_owned(),
            },
            Condition::Status { cause, .. } => {
                let told =
                    wait.nodes.iter().filter_map(|node| self.has_cause(*node, *cause, wait.names).err());
                told.collect::<Vec<_>>().join(", ")
            }
            Condition::Refused { reason, .. } => each(&wait.nodes, &|node| {
                let is = self.is_refused(node, *reason, &wait.mark);
                format!("{} refused for {reason}", if is { "was" } else { "was not" })
            }),
            Condition::Outcome { .. } => each(&wait.nodes, &|node| match self.fate(node) {
                Some(Fate::Known(Outcome::Landed)) => "knows that it landed".to_owned(),
                Some(Fate::Known(Outcome::Unknown)) => "does not know its fate".to_owned(),
                Some(Fate::Lost) => "lost it".to_owned(),
                None => "has not told its fate".to_owned(),
            }),
        }
    }

    /// Lines that a node printed.
    pub(super) fn lines(&self, node: NodeId, event: &str, since: Since, mark: &Mark) -> u64 {
        match since {
            Since::Step => self.witness.lines_since(node, event, mark),
            Since::Start => self.witness.of(node).lines_since_start(event),
            Since::Run => self.witness.of(node).lines_in_all(event),
        }
    }

    /// Whether exactly one server of the main deployment leads, and the others that are up follow it.
    fn is_led(&self) -> bool {
        let up = self.cluster.servers_up(0);
        let leaders: Vec<_> = up.iter().filter(|node| self.witness.of(**node).leads()).collect();
        let [leader] = leaders.as_slice() else { return false };
        let peer = self.cluster.get(**leader).peer.to_string();
        up.iter().all(|node| {
            let known = self.witness.of(*node).leader.as_ref();
            known.and_then(|(_, leader, _)| leader.as_deref()) == Some(short(&peer))
        })
    }

    /// How many vote in the committed membership, as the leader of the main deployment says.
    pub(super) fn voters(&self, includes: &[NodeId], excludes: &[NodeId]) -> Result<u64, String> {
        let leader = self.leader(0).ok_or("nobody leads")?;
        let name = self.cluster.name(leader);
        let status =
            self.cluster.status(leader).ok_or_else(|| format!("{name}, which leads, does not answer"))?;
        if !status.members_settled {
            return Err("a change of voters is in progress".to_owned());
        }
        if let Some(learner) = status.servers.iter().find(|server| server.vote == "learner") {
            return Err(format!("{} is a learner", self.called(&learner.server)));
        }
        if let Some(old) = status.servers.iter().find(|server| server.vote == "old-disk") {
            return Err(format!("the vote of {} is that of a disk that is gone", self.called(&old.server)));
        }
        let voters: Vec<_> = status.servers.iter().filter(|server| server.vote == "voter").collect();
        let votes = |node: &NodeId| {
            let peer = self.cluster.get(*node).peer.to_string();
            voters.iter().any(|voter| voter.server == short(&peer))
        };
        if let Some(missing) = includes.iter().find(|node| !votes(node)) {
            return Err(format!("{} has no vote", self.cluster.name(*missing)));
        }
        if let Some(left) = excludes.iter().find(|node| votes(node)) {
            return Err(format!("{} has a vote", self.cluster.name(*left)));
        }
        Ok(u64::try_from(voters.len()).unwrap_or(u64::MAX))
    }

    /// The name of whoever has a peer id that begins with these digits.
    pub(super) fn called(&self, digits: &str) -> String {
        self.cluster.node_of(digits).map_or(short(digits), |node| self.cluster.name(node)).to_owned()
    }

    /// Whether the registries of every server of the main deployment that is up hold as many nodes.
    pub(super) fn registries(&self, servers: Option<u64>, clients: Option<u64>) -> Result<(), String> {
        let up = self.cluster.servers_up(0);
        if up.is_empty() {
            return Err("no server is up".to_owned());
        }
        for node in up {
            for (wanted, metric) in
                [(servers, "zipnet_server_registry_size"), (clients, "zipnet_client_registry_size")]
            {
                let Some(wanted) = wanted else { continue };
                let name = self.cluster.name(node);
                let size = self.cluster.metric(node, metric).map(|thousandths| thousandths / 1_000);
                let size = size.ok_or_else(|| format!("{name} does not show {metric}"))?;
                if size != wanted {
                    return Err(format!("{metric} of {name} is {size}, expected {wanted}"));
                }
            }
        }
        Ok(())
    }

    /// What a node says about why it is not ready.
    fn causes(&self, node: NodeId) -> String {
        match self.cluster.status(node) {
            None => "does not answer".to_owned(),
            Some(status) if status.causes.is_empty() => "is ready".to_owned(),
            Some(status) => status.causes.join("; "),
        }
    }

    /// Whether the status of a node has this cause in words, and names a node.
    pub(super) fn has_cause(&self, node: NodeId, cause: Cause, names: Option<NodeId>) -> Result<(), String> {
        let name = self.cluster.name(node);
        let Some(status) = self.cluster.status(node) else { return Err(format!("{name} does not answer")) };
        let named = names.map(|named| self.cluster.get(named).peer.to_string());
        let named = named.as_deref().map(short);
        if tells(&status, cause, named) {
            return Ok(());
        }
        Err(format!("{name} says {:?}, notes {:?}", status.causes, status.notes))
    }

    /// Whether a node was refused for a reason since a moment.
    pub(super) fn is_refused(&self, node: NodeId, reason: Reason, mark: &Mark) -> bool {
        let peer = self.cluster.get(node).peer.to_string();
        self.witness.refused_since(&peer, mark, |name| fits(name, reason))
    }

    /// What became of the latest message that a step gave to a client.
    fn fate(&self, node: NodeId) -> Option<Fate> {
        let (process, request) = self.requests.get(&node)?;
        // Whoever was asked may be gone, and its requests with it.
        (self.witness.process(node) == *process).then(|| self.witness.of(node).fate(*request)).flatten()
    }
}
