//! The nodes of a scenario: what they are called, who they are, and what their processes are told. The same in a
//! simulation and on real processes.

use std::collections::BTreeMap;

use zipnet_core::id::{GroupId, PeerId, UniqueId};
use zipnet_core::instance::machine_signature;
use zipnet_core::key::{Identity, NodeSecret};
use zipnet_node::config::{Config, Part};
use zipnet_scenarios::Scenario;
use zipnet_scenarios::env::{Holds, SECRET_PREFIX, variable_named};
use zipnet_scenarios::node::{NodeRef, Role, Which};
use zipnet_scenarios::scenario::Deployment;

use crate::random::Random;

/// A node of the run, by its place among all of them.
pub(crate) type NodeId = usize;

/// All nodes.
#[derive(Debug)]
pub(crate) struct Cast {
    members: Vec<Member>,
    deployments: Vec<Deployment>,
    secrets: Random,
}

/// A node.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// As scenarios call it.
    pub(crate) name: String,
    /// Its place among the deployments.
    pub(crate) home: usize,
    /// What it is.
    pub(crate) role: Role,
    /// Counted from one, within its role and deployment.
    number: u32,
    /// Who its process is, or the next one will be.
    pub(crate) peer: PeerId,
    /// The variables as the scenario writes them.
    env: BTreeMap<&'static str, String>,
    /// `ZIPNET_SECRET`, unless the variables have one.
    secret: String,
    /// How often it got a secret that nobody had before.
    fresh: u32,
    /// A step has stopped it: no fault may start it.
    stopped_by_step: bool,
}

/// Whom a process dials first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// What its variables say, or else the first server of the deployment.
    Default,
    /// Nobody.
    Nobody,
    /// These.
    Nodes(Vec<NodeId>),
}

impl Cast {
    /// Every node of a scenario. Secrets come from `secrets`, by name.
    pub(crate) fn new(scenario: &Scenario, secrets: Random) -> Self {
        let mut members = Vec::new();
        for (home, deployment) in scenario.deployments.iter().enumerate() {
            for role in Role::ALL {
                for number in 1..=deployment.count(role) {
                    let prefix = if home == 0 { String::new() } else { format!("{}-", deployment.name) };
                    let name = format!("{prefix}{role}-{number}");
                    let secret = secret(&secrets, &format!("node {name}"));
                    let env = deployment.env_of(role).0.into_iter();
                    members.push(Member {
                        name,
                        home,
                        role,
                        number,
                        peer: peer_of(&secret),
                        env: env.map(|(name, setting)| (name, setting.text().to_owned())).collect(),
                        secret,
                        fresh: 0,
                        stopped_by_step: false,
                    });
                }
            }
        }
        Self { members, deployments: scenario.deployments.clone(), secrets }
    }

    /// How many nodes there are.
    pub(crate) const fn len(&self) -> usize {
        self.members.len()
    }

    /// Every node.
    pub(crate) fn all(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().enumerate()
    }

    /// One node.
    pub(crate) fn get(&self, node: NodeId) -> &Member {
        self.members.get(node).expect("nodes are never taken away")
    }

    fn get_mut(&mut self, node: NodeId) -> &mut Member {
        self.members.get_mut(node).expect("nodes are never taken away")
    }

    /// Its name.
    pub(crate) fn name(&self, node: NodeId) -> &str {
        &self.get(node).name
    }

    /// Who its process is, or the next one will be.
    pub(crate) fn peer(&self, node: NodeId) -> PeerId {
        self.get(node).peer
    }

    /// The node that last was this peer.
    pub(crate) fn node_of(&self, peer: &PeerId) -> Option<NodeId> {
        self.members.iter().position(|member| member.peer == *peer)
    }

    /// The deployment of a node.
    pub(crate) fn deployment(&self, node: NodeId) -> &Deployment {
        self.deployments.get(self.get(node).home).expect("nodes have a deployment")
    }

    /// Every deployment.
    pub(crate) fn deployments(&self) -> &[Deployment] {
        &self.deployments
    }

    /// The node that a name without a selector means.
    pub(crate) fn find(&self, reference: &NodeRef) -> Option<NodeId> {
        let Which::Number(number) = reference.which else { return None };
        let wanted = (self.home(reference), reference.role, number);
        self.members.iter().position(|member| (member.home, member.role, member.number) == wanted)
    }

    /// The deployment that a reference means.
    pub(crate) fn home(&self, reference: &NodeRef) -> usize {
        let name = reference.instance.as_deref().unwrap_or("");
        self.deployments.iter().position(|deployment| deployment.name == name).unwrap_or(0)
    }

    /// Nodes of a role of a deployment, by number.
    pub(crate) fn of_role(&self, home: usize, role: Role) -> impl Iterator<Item = NodeId> {
        let fits = move |member: &Member| member.home == home && member.role == role;
        self.members.iter().enumerate().filter(move |(_, member)| fits(member)).map(|(node, _)| node)
    }

    /// Whether a node runs from the beginning.
    pub(crate) fn starts(&self, node: NodeId) -> bool {
        let member = self.get(node);
        self.deployment(node).starts(member.role, member.number)
    }

    /// A step has stopped this node: no fault may start it.
    pub(crate) fn keep_down(&mut self, node: NodeId) {
        self.get_mut(node).stopped_by_step = true;
    }

    /// Whether a step has stopped this node.
    pub(crate) fn is_kept_down(&self, node: NodeId) -> bool {
        self.get(node).stopped_by_step
    }

    /// Gives a node a secret that nobody had before; it keeps it.
    pub(crate) fn renew_identity(&mut self, node: NodeId) {
        let fresh = self.get(node).fresh + 1;
        let secret = self.secret(&format!("node {} {fresh}", self.name(node)));
        self.get_mut(node).fresh = fresh;
        self.give_secret(node, secret);
    }

    /// Gives a node the secret of another one.
    pub(crate) fn copy_identity(&mut self, node: NodeId, other: NodeId) {
        let nowhere = |_: NodeId| String::new();
        let secret = self.variables(other, &Hint::Nobody, &nowhere).remove("ZIPNET_SECRET");
        self.give_secret(node, secret.unwrap_or_default());
    }

    fn give_secret(&mut self, node: NodeId, secret: String) {
        let member = self.get_mut(node);
        member.peer = peer_of(&secret);
        member.secret = secret;
        member.env.remove("ZIPNET_SECRET");
    }

    /// Changes a variable; the next process reads it.
    pub(crate) fn set_variable(&mut self, node: NodeId, name: &'static str, value: &str) {
        self.get_mut(node).env.insert(name, value.to_owned());
    }

    /// A process begins, told this.
    pub(crate) fn begins(&mut self, node: NodeId, env: &BTreeMap<String, String>) {
        let member = self.get_mut(node);
        member.stopped_by_step = false;
        if let Some(secret) = env.get("ZIPNET_SECRET") {
            member.peer = peer_of(secret);
        }
    }

    /// What a process on this node is told: the variables that the scenario writes, with names of nodes replaced by what
    /// those nodes print. `address` tells where a node listens, or will listen.
    pub(crate) fn variables(
        &self,
        node: NodeId,
        hint: &Hint,
        address: &dyn Fn(NodeId) -> String,
    ) -> BTreeMap<String, String> {
        let member = self.get(node);
        let mut env = BTreeMap::new();
        for (name, text) in &member.env {
            let value = match variable_named(name).map(|variable| variable.holds) {
                Some(Holds::Secret) => {
                    text.strip_prefix(SECRET_PREFIX).map_or_else(String::new, |label| self.secret(label))
                }
                Some(Holds::Nodes) if *name == "ZIPNET_BOOTSTRAP" => self.printed(&self.named(text), address),
                Some(Holds::Nodes) => {
                    let peers = self.named(text).into_iter().map(|node| self.peer(node).to_string());
                    peers.collect::<Vec<_>>().join(",")
                }
                Some(Holds::Text | Holds::Duration | Holds::Count { .. } | Holds::Flag | Holds::Engine)
                | None => text.clone(),
            };
            env.insert((*name).to_owned(), value);
        }
        let unset = |env: &BTreeMap<String, String>, name: &str| env.get(name).is_none_or(String::is_empty);
        let instance = instance_of(self.deployment(node));
        if !member.env.contains_key("ZIPNET_INSTANCE") {
            env.insert("ZIPNET_INSTANCE".to_owned(), instance.clone());
        }
        if unset(&env, "ZIPNET_SECRET") {
            env.insert("ZIPNET_SECRET".to_owned(), member.secret.clone());
        }
        if member.role == Role::Server {
            if !member.env.contains_key("ZIPNET_COMMITTEE_SECRET") {
                let secret = self.secret(&format!("committee of {instance}"));
                env.insert("ZIPNET_COMMITTEE_SECRET".to_owned(), secret);
            }
            let voters = self.deployment(node).first_voters;
            env.entry("ZIPNET_FIRST_VOTERS".to_owned()).or_insert_with(|| voters.to_string());
        }
        match hint {
            Hint::Default if unset(&env, "ZIPNET_BOOTSTRAP") => {
                let first = self.default_bootstrap(node);
                // The first server dials nobody, and is told of nobody.
                if !first.is_empty() {
                    env.insert("ZIPNET_BOOTSTRAP".to_owned(), self.printed(&first, address));
                }
            }
            Hint::Default => {}
            Hint::Nobody => {
                env.remove("ZIPNET_BOOTSTRAP");
            }
            Hint::Nodes(nodes) => {
                env.insert("ZIPNET_BOOTSTRAP".to_owned(), self.printed(nodes, address));
            }
        }
        env
    }

    fn default_bootstrap(&self, node: NodeId) -> Vec<NodeId> {
        let first = self.of_role(self.get(node).home, Role::Server).next();
        first.filter(|first| *first != node).into_iter().collect()
    }

    /// The nodes that a text of a variable names.
    fn named(&self, text: &str) -> Vec<NodeId> {
        let instances: Vec<_> =
            self.deployments.iter().skip(1).map(|deployment| deployment.name.as_str()).collect();
        let names = text.split(',').map(str::trim);
        let references = names.filter_map(|name| NodeRef::parse(name, instances.iter().copied()));
        let meant = |reference: NodeRef| match reference.which {
            Which::Number(_) => self.find(&reference).into_iter().collect(),
            Which::All
            | Which::Any
            | Which::Each
            | Which::Rest
            | Which::Leader
            | Which::Follower
            | Which::Target => self.of_role(self.home(&reference), reference.role).collect::<Vec<_>>(),
        };
        references.flat_map(meant).collect()
    }

    /// The `peer=` values that nodes print at their starts, or would print.
    pub(crate) fn printed(&self, nodes: &[NodeId], address: &dyn Fn(NodeId) -> String) -> String {
        let printed = nodes.iter().map(|node| format!("{}@{}", self.peer(*node), address(*node)));
        printed.collect::<Vec<_>>().join(",")
    }

    /// 64 hexadecimal digits that belong to a label: what `openssl rand -hex 32` prints.
    fn secret(&self, label: &str) -> String {
        secret(&self.secrets, label)
    }
}

fn secret(secrets: &Random, label: &str) -> String {
    hex::encode(secrets.fork(label).bytes())
}

/// The name of a deployment's instance.
pub(crate) fn instance_of(deployment: &Deployment) -> String {
    let written = deployment.env.get("ZIPNET_INSTANCE").map(str::to_owned);
    written.unwrap_or_else(|| {
        if deployment.name.is_empty() {
            "acme.mainnet".to_owned()
        } else {
            format!("acme.mainnet.{}", deployment.name)
        }
    })
}

/// Who has this secret of a scenario: 64 hexadecimal digits, so that no instance is needed and nothing is stretched.
pub(crate) fn peer_of(secret: &str) -> PeerId {
    Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text(secret).0)).peer()
}

/// The roles of the core by those of scenarios.
pub(crate) const fn role(role: Role) -> zipnet_core::id::Role {
    match role {
        Role::Server => zipnet_core::id::Role::Server,
        Role::Aggregator => zipnet_core::id::Role::Aggregator,
        Role::Client => zipnet_core::id::Role::Client,
    }
}

/// The group of a configuration; servers only.
pub(crate) fn group_of(config: &Config) -> Option<GroupId> {
    let Part::Server(part) = &config.part else { return None };
    let build = config.build;
    let signature = machine_signature(build.wire_version, build.machine_version, &build.params);
    Some(part.committee_secret.group_id(&config.instance, &signature))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use zipnet_scenarios::env::VARIABLES;

    use super::role;

    #[test]
    fn scenarios_know_the_variables_of_nodes_and_no_others() {
        let written: BTreeMap<&str, BTreeSet<_>> = VARIABLES
            .iter()
            .map(|variable| (variable.name, variable.roles.iter().map(|one| role(*one)).collect()))
            .collect();
        let mut read: BTreeMap<&str, BTreeSet<_>> = zipnet_node::config::VARIABLES
            .iter()
            .map(|(name, roles)| (*name, roles.iter().copied().collect()))
            .collect();
        // The loader of the process reads it, and every process has one.
        read.insert("RUST_LOG", zipnet_core::id::Role::ALL.into());
        assert_eq!(written, read);
    }
}
