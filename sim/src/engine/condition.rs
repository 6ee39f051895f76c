//! What is waited for.

use zipnet_core::machine::Outcome as Fate;
use zipnet_core::time::Time;
use zipnet_node::status::{Matter, Status};
use zipnet_reports::Verdict;
use zipnet_scenarios::node::{Nodes, Role, Which};
use zipnet_scenarios::verbs::Condition;
use zipnet_scenarios::words::{Cause, Outcome, Reason, Since, Word as _};

use super::examine::shown;
use super::select::Purpose;
use super::{Going, Mark, Run};
use crate::cast::NodeId;
use crate::site::Site;

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

impl<S: Site> Run<'_, S> {
    /// Decides which nodes a condition is about. Counts begin at `mark`.
    pub(super) async fn begin_wait(&mut self, condition: &Condition, mark: Mark) -> Going<Wait> {
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
                wait.all_of = all.iter().map(|node| self.site.cast().home(node)).collect();
                if !some.is_empty() {
                    wait.nodes = self.choose(&Nodes(some), Purpose::Look).await?;
                }
            }
            Condition::LogEvent { node, .. }
            | Condition::Exited { node, .. }
            | Condition::Refused { node, .. }
            | Condition::Outcome { node, .. } => wait.nodes = self.choose(node, Purpose::Look).await?,
            Condition::Status { node, names, .. } => {
                wait.nodes = self.choose(node, Purpose::Look).await?;
                if let Some(names) = names {
                    wait.names = Some(self.choose_one(names, Purpose::Look).await?);
                }
            }
            Condition::Voters { includes, excludes, .. } => {
                wait.includes = self.choose_some(includes.as_ref()).await?;
                wait.excludes = self.choose_some(excludes.as_ref()).await?;
            }
            Condition::Leader {} | Condition::Registered { .. } | Condition::Stalled { .. } => {}
        }
        Ok(wait)
    }

    /// The nodes, or none.
    pub(super) async fn choose_some(&mut self, nodes: Option<&Nodes>) -> Going<Vec<NodeId>> {
        match nodes {
            Some(nodes) => self.choose(nodes, Purpose::Look).await,
            None => Ok(Vec::new()),
        }
    }

    /// Whether the condition holds at this moment.
    pub(super) async fn is_met(&self, wait: &Wait, line: u32) -> Going<bool> {
        let nodes = &wait.nodes;
        Ok(match &wait.condition {
            Condition::RoundsFinalized { count, .. } => {
                let mut all = nodes.clone();
                for home in &wait.all_of {
                    let up = self.servers_up(*home);
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
                    match self.site.exit(*node) {
                        Some(exit) if exit.is(code.get()) => {}
                        Some(exit) => {
                            let detail = format!("{} ended with {}", self.name(*node), exit.how);
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
                for node in nodes {
                    if self.has_cause(*node, *cause, wait.names).await.is_err() {
                        return Ok(false);
                    }
                }
                true
            }
            Condition::Refused { reason, .. } => {
                nodes.iter().all(|node| self.is_refused(*node, *reason, &wait.mark))
            }
            Condition::Outcome { equals, .. } => {
                nodes.iter().all(|node| self.outcome(*node) == Some(*equals))
            }
        })
    }

    /// How things stand with a condition that does not hold, for whoever reads the failure.
    pub(super) async fn told(&self, wait: &Wait) -> String {
        let named = |node: &NodeId| self.name(*node).to_owned();
        let each = |tell: &dyn Fn(NodeId) -> String| {
            let told: Vec<_> =
                wait.nodes.iter().map(|node| format!("{} {}", named(node), tell(*node))).collect();
            told.join(", ")
        };
        match &wait.condition {
            Condition::RoundsFinalized { .. } => {
                let mut all = wait.nodes.clone();
                all.extend(wait.all_of.iter().flat_map(|home| self.servers_up(*home)));
                let mut told = Vec::new();
                for node in all {
                    let count = self.witness.lines_since(node, "round-finalized", &wait.mark);
                    told.push(format!("{} saw {count} ({})", named(&node), self.causes(node).await));
                }
                if told.is_empty() { "no server is up".to_owned() } else { told.join(", ") }
            }
            Condition::LogEvent { event, since, .. } => each(&|node| {
                format!("printed {} {} times", event, self.lines(node, event.name(), *since, &wait.mark))
            }),
            Condition::Leader {} => {
                let all = self.servers_up(0);
                let told: Vec<_> = all
                    .iter()
                    .map(|node| match self.witness.of(*node).leader {
                        Some((term, Some(leader), _)) => {
                            format!("{} says that {} leads term {term}", named(node), self.called(&leader))
                        }
                        Some((_, None, _)) | None => format!("{} knows of no leader", named(node)),
                    })
                    .collect();
                told.join(", ")
            }
            Condition::Voters { .. } => match self.voters(&wait.includes, &wait.excludes) {
                Ok(count) => format!("{count} vote"),
                Err(told) => told,
            },
            Condition::Registered { servers, clients } => self
                .registries(servers.map(|servers| servers.get()), clients.map(|clients| clients.get()))
                .err()
                .unwrap_or_default(),
            Condition::Exited { .. } => each(&|node| {
                if self.site.is_up(node) { "runs".to_owned() } else { "did not end by itself".to_owned() }
            }),
            Condition::Stalled { .. } => match self.witness.last_finalized() {
                Some(last) => format!("the last round was finalised at {}", shown(last)),
                None => "no round was finalised at all".to_owned(),
            },
            Condition::Status { cause, .. } => {
                let mut told = Vec::new();
                for node in &wait.nodes {
                    if let Err(text) = self.has_cause(*node, *cause, wait.names).await {
                        told.push(text);
                    }
                }
                told.join(", ")
            }
            Condition::Refused { reason, .. } => each(&|node| {
                let is = self.is_refused(node, *reason, &wait.mark);
                format!("{} refused for {reason}", if is { "was" } else { "was not" })
            }),
            Condition::Outcome { .. } => each(&|node| match self.fate(node) {
                Some(Fate::Landed) => "knows that it landed".to_owned(),
                Some(Fate::Unknown) => "does not know its fate".to_owned(),
                Some(Fate::Collided | Fate::Dropped) => "lost it".to_owned(),
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
        let up = self.servers_up(0);
        let leaders: Vec<_> = up.iter().filter(|node| self.witness.of(**node).leads()).collect();
        let [leader] = leaders.as_slice() else { return false };
        let peer = self.site.cast().peer(**leader);
        let follows =
            |node: &NodeId| self.witness.of(*node).leader.and_then(|(_, leader, _)| leader) == Some(peer);
        up.iter().all(follows)
    }

    /// How many vote in the committed membership, as the leader of the main deployment applies it.
    pub(super) fn voters(&self, includes: &[NodeId], excludes: &[NodeId]) -> Result<u64, String> {
        let leader = self.leader(0).ok_or("nobody leads")?;
        let members = self.witness.of(leader).members.as_ref();
        let members = members.ok_or("the leader has not applied a membership")?;
        if members.joint {
            return Err("a change of voters is in progress".to_owned());
        }
        // A vote is that of a disk: with another one a node cannot cast it, and has forgotten how it was cast.
        for (voter, store) in &members.voters {
            let owners = || {
                let all = self.site.cast().of_role(0, Role::Server);
                all.filter(|node| self.site.cast().peer(*node) == *voter)
            };
            let has_disk = |node| self.witness.of(node).store == Some(*store);
            if let Some(owner) = owners().next()
                && !owners().any(has_disk)
            {
                return Err(format!("the vote of {} is that of a disk that is gone", self.name(owner)));
            }
        }
        let votes =
            |node: &NodeId| members.voters.iter().any(|(voter, _)| *voter == self.site.cast().peer(*node));
        if let Some(missing) = includes.iter().find(|node| !votes(node)) {
            return Err(format!("{} has no vote", self.name(*missing)));
        }
        if let Some(left) = excludes.iter().find(|node| votes(node)) {
            return Err(format!("{} has a vote", self.name(*left)));
        }
        Ok(u64::try_from(members.voters.len()).unwrap_or(u64::MAX))
    }

    /// Whether the registries of every server of the main deployment that is up hold as many nodes.
    pub(super) fn registries(&self, servers: Option<u64>, clients: Option<u64>) -> Result<(), String> {
        let up = self.servers_up(0);
        if up.is_empty() {
            return Err("no server is up".to_owned());
        }
        for node in up {
            for (wanted, metric) in
                [(servers, "zipnet_server_registry_size"), (clients, "zipnet_client_registry_size")]
            {
                let Some(wanted) = wanted else { continue };
                let name = self.name(node);
                let size = self.site.metric(node, metric).map(|thousandths| thousandths / 1_000);
                let size = size.ok_or_else(|| format!("{name} does not show {metric}"))?;
                if size != wanted {
                    return Err(format!("{metric} of {name} is {size}, expected {wanted}"));
                }
            }
        }
        Ok(())
    }

    /// What a node says about why it is not ready.
    async fn causes(&self, node: NodeId) -> String {
        match self.site.status(node).await {
            None => "does not answer".to_owned(),
            Some(status) if status.causes.is_empty() => "is ready".to_owned(),
            Some(status) => said(&status.causes),
        }
    }

    /// Whether the status of a node has this cause in words, and names a node.
    pub(super) async fn has_cause(
        &self,
        node: NodeId,
        cause: Cause,
        names: Option<NodeId>,
    ) -> Result<(), String> {
        let name = self.name(node);
        let Some(status) = self.site.status(node).await else {
            return Err(format!("{name} does not answer"));
        };
        let named = names.map(|named| self.site.cast().peer(named).to_string());
        if tells(&status, cause, named.as_deref()) {
            return Ok(());
        }
        Err(format!("{name} says [{}], notes [{}]", said(&status.causes), said(&status.notes)))
    }

    /// Whether a node was refused for a reason since a moment.
    pub(super) fn is_refused(&self, node: NodeId, reason: Reason, mark: &Mark) -> bool {
        self.witness.refused_since(self.site.cast().peer(node), mark, |name| fits(name, reason))
    }

    /// What became of the latest message that a step gave to a client.
    fn outcome(&self, node: NodeId) -> Option<Outcome> {
        match self.fate(node)? {
            Fate::Landed => Some(Outcome::Landed),
            Fate::Unknown => Some(Outcome::Unknown),
            Fate::Collided | Fate::Dropped => None,
        }
    }

    fn fate(&self, node: NodeId) -> Option<Fate> {
        let (process, request) = self.requests.get(&node)?;
        self.witness.of(node).outcome(*process, *request)
    }
}

/// What a status says, in words.
fn said(matters: &[Matter]) -> String {
    matters.iter().map(|matter| matter.text.as_str()).collect::<Vec<_>>().join("; ")
}

/// Whether a refusal of this name was made for this reason.
fn fits(name: &str, reason: Reason) -> bool {
    match reason {
        Reason::RosterTooSmall => name == "roster-too-small" || name == "pin-missing",
        Reason::TooFewParticipants => name == "too-few-participants" || name == "below-floor",
        _ => name == reason.name(),
    }
}

/// Whether a status names a cause, and a peer with it.
fn tells(status: &Status, cause: Cause, named: Option<&str>) -> bool {
    let names = cause.names();
    let led = status.leader.is_some();
    let fits = |matter: &Matter| {
        names.contains(&&*matter.name)
            && named.is_none_or(|named| matter.peers.iter().any(|peer| peer == named))
            && !(led && cause == Cause::NoLeader)
    };
    status.causes.iter().chain(&status.notes).any(fits)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use zipnet_node::status;
    use zipnet_scenarios::{list, read};

    use super::*;

    #[test]
    fn every_cause_of_a_node_can_be_asked_for() {
        for name in status::Cause::NAMES {
            assert!(Cause::ALL.iter().any(|(_, word, _)| *word == name), "no scenario can ask for {name}");
        }
    }

    #[test]
    fn whatever_a_scenario_asks_for_a_node_can_say() {
        let notes = ["vote-still-counts"];
        for (cause, word, _) in Cause::ALL {
            for name in cause.names() {
                assert!(status::Cause::NAMES.contains(&name) || notes.contains(&name), "{word}: {name}");
            }
        }
    }

    #[test]
    fn a_cause_is_told_by_its_name_and_whom_it_is_about() {
        let about = |name: &'static str, peers: &[&str]| Matter {
            name: name.into(),
            peers: peers.iter().map(|peer| (*peer).to_owned()).collect(),
            text: String::new(),
        };
        let status = Status {
            causes: vec![about("no-quorum", &["aa"])],
            notes: vec![about("vote-still-counts", &["bb"])],
            ..Status::default()
        };
        assert!(tells(&status, Cause::NoQuorum, Some("aa")) && !tells(&status, Cause::NoQuorum, Some("bb")));
        assert!(tells(&status, Cause::VoteStillCounts, Some("bb")) && !tells(&status, Cause::Election, None));
        assert!(tells(&status, Cause::NoLeader, None));
        let led = Status { leader: Some("cc".to_owned()), ..status };
        assert!(tells(&led, Cause::NoQuorum, None) && !tells(&led, Cause::NoLeader, None));
    }

    #[test]
    fn every_cause_of_a_node_is_brought_about_by_a_scenario() {
        // A reader is no node of a scenario.
        let elsewhere = ["nobody-linked"];
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let mut waited_for = BTreeSet::new();
        for path in list(&files).unwrap() {
            let text = fs::read_to_string(&path).unwrap();
            let scenario = read(&path.display().to_string(), &text).unwrap();
            for until in scenario.steps.iter().flat_map(|step| &step.untils) {
                if let Condition::Status { cause, .. } = &until.condition {
                    waited_for.insert(cause.name());
                }
            }
        }
        let missing: Vec<_> =
            status::Cause::NAMES.into_iter().filter(|name| !waited_for.contains(name)).collect();
        assert_eq!(missing, elsewhere);
    }
}
