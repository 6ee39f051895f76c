//! The environment of a process: what the scenario writes, with names of nodes replaced by what those nodes print.

use std::collections::BTreeMap;

use zipnet_scenarios::env::{Holds, SECRET_PREFIX, variable_named};
use zipnet_scenarios::node::{NodeRef, Role, Which};

use super::{Cluster, Hint, Member, NodeId, instance_of};

impl Cluster {
    /// The variables that a process on this node is started with.
    pub(super) fn variables(&self, node: NodeId, hint: &Hint) -> BTreeMap<String, String> {
        let member = self.get(node);
        let mut env = BTreeMap::new();
        for (name, text) in &member.env {
            let holds = variable_named(name).map(|variable| variable.holds);
            let value = match holds {
                Some(Holds::Secret) => {
                    text.strip_prefix(SECRET_PREFIX).map_or_else(String::new, |label| self.secret(label))
                }
                Some(Holds::Nodes) => self.peers(name, text),
                Some(Holds::Text | Holds::Duration | Holds::Count { .. } | Holds::Flag | Holds::Engine)
                | None => text.clone(),
            };
            env.insert((*name).to_owned(), value);
        }
        let unset = |env: &BTreeMap<String, String>, name: &str| env.get(name).is_none_or(String::is_empty);
        if !member.env.contains_key("ZIPNET_INSTANCE") {
            env.insert("ZIPNET_INSTANCE".to_owned(), self.instance(member.home));
        }
        if unset(&env, "ZIPNET_SECRET") {
            env.insert("ZIPNET_SECRET".to_owned(), member.secret.clone());
        }
        if member.role == Role::Server {
            if !member.env.contains_key("ZIPNET_COMMITTEE_SECRET") {
                let label = format!("committee of {}", self.instance(member.home));
                env.insert("ZIPNET_COMMITTEE_SECRET".to_owned(), self.secret(&label));
            }
            let voters = self.deployments.get(member.home).map_or(3, |deployment| deployment.first_voters);
            env.entry("ZIPNET_FIRST_VOTERS".to_owned()).or_insert_with(|| voters.to_string());
        }
        match hint {
            Hint::Default => {
                if unset(&env, "ZIPNET_BOOTSTRAP")
                    && let Some(first) =
                        self.of_role(member.home, Role::Server).next().filter(|first| *first != node)
                {
                    env.insert("ZIPNET_BOOTSTRAP".to_owned(), self.printed(self.get(first)));
                }
            }
            Hint::Nobody => {
                env.remove("ZIPNET_BOOTSTRAP");
            }
            Hint::Nodes(nodes) => {
                let printed: Vec<_> = nodes.iter().map(|node| self.printed(self.get(*node))).collect();
                env.insert("ZIPNET_BOOTSTRAP".to_owned(), printed.join(","));
            }
        }
        env.insert("ZIPNET_LISTEN".to_owned(), member.host.address().to_string());
        env
    }

    fn instance(&self, home: usize) -> String {
        instance_of(self.deployments.get(home).expect("nodes have a deployment"))
    }

    /// Names of nodes, each replaced by its peer id; for the bootstrap, with its address.
    fn peers(&self, variable: &str, text: &str) -> String {
        let instances: Vec<_> =
            self.deployments.iter().skip(1).map(|deployment| deployment.name.as_str()).collect();
        let mut peers = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let Some(reference) = NodeRef::parse(name, instances.iter().copied()) else { continue };
            for node in self.meant(&reference) {
                let member = self.get(node);
                peers.push(match variable {
                    "ZIPNET_BOOTSTRAP" => self.printed(member),
                    _ => member.host.peer().to_string(),
                });
            }
        }
        peers.join(",")
    }

    /// The nodes that a name in a variable means: one, or all of a role.
    fn meant(&self, reference: &NodeRef) -> Vec<NodeId> {
        match reference.which {
            Which::Number(_) => self.find(reference).into_iter().collect(),
            Which::All
            | Which::Any
            | Which::Each
            | Which::Rest
            | Which::Leader
            | Which::Follower
            | Which::Target => self.of_role(self.home(reference), reference.role).collect(),
        }
    }

    /// The `peer=` value that a node prints at its start.
    fn printed(&self, member: &Member) -> String {
        format!("{}@{}", member.host.peer(), member.host.address())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use zipnet_scenarios::env::VARIABLES;

    use crate::cluster::witness::role;

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
