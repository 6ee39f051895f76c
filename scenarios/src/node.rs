//! How a scenario names nodes.

use core::fmt;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A committee server.
    Server,
    /// An aggregator.
    Aggregator,
    /// A client.
    Client,
}

impl Role {
    /// Every role, in the order in which a deployment is started.
    pub const ALL: [Self; 3] = [Self::Server, Self::Aggregator, Self::Client];

    /// Its name in a scenario file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Aggregator => "aggregator",
            Self::Client => "client",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which nodes of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// The one with this number, counted from one.
    Number(u32),
    /// Every one: for `start` those that are down, for `set-env` and `upgrade` all, for everything else those that are up.
    All,
    /// One that is up, drawn from the seed.
    Any,
    /// The one whose turn it is in a `for_each`.
    Each,
    /// Every one that is up, except the one whose turn it is, or else the target.
    Rest,
    /// The server that leads.
    Leader,
    /// A server that is up and does not lead, drawn from the seed.
    Follower,
    /// The node that the latest `any`, `leader` or `follower` of a step's `do` chose.
    Target,
}

impl Which {
    /// The selectors, as they stand behind the colon.
    pub const SELECTORS: [(Self, &'static str); 7] = [
        (Self::All, "all"),
        (Self::Any, "any"),
        (Self::Each, "each"),
        (Self::Rest, "rest"),
        (Self::Leader, "leader"),
        (Self::Follower, "follower"),
        (Self::Target, "target"),
    ];
}

/// One or several nodes of one role in one deployment.
///
/// Written `server-1`, `client:any`, and `v2-server:all` for the deployment that the file calls `v2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRef {
    /// The `name` of an `[[instance]]`; none is the deployment of `[topology]`.
    pub instance: Option<String>,
    /// Their role.
    pub role: Role,
    /// Which of them.
    pub which: Which,
}

impl NodeRef {
    /// A selector over the main deployment.
    #[must_use]
    pub const fn new(role: Role, which: Which) -> Self {
        Self { instance: None, role, which }
    }

    /// Reads the form of the name only; whether such a node exists depends on the topology.
    ///
    /// `instances` are the names that may stand in front.
    #[must_use]
    pub fn parse<'a>(text: &str, instances: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let (instance, rest) = instances
            .into_iter()
            .find_map(|name| Some((name, text.strip_prefix(name)?.strip_prefix('-')?)))
            .map_or((None, text), |(name, rest)| (Some(name.to_owned()), rest));
        let role = Role::ALL.into_iter().find(|role| rest.starts_with(role.name()))?;
        let rest = &rest[role.name().len()..];
        let which = if let Some(number) = rest.strip_prefix('-') {
            let number: u32 = number.parse().ok()?;
            // `server-01` and `server-+1` would be second names for one node.
            (number.to_string() == rest[1..]).then_some(Which::Number(number))?
        } else {
            let selector = rest.strip_prefix(':')?;
            Which::SELECTORS.into_iter().find(|(_, name)| *name == selector).map(|(which, _)| which)?
        };
        Some(Self { instance, role, which })
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(instance) = &self.instance {
            write!(f, "{instance}-")?;
        }
        match self.which {
            Which::Number(number) => write!(f, "{}-{number}", self.role),
            which @ (Which::All
            | Which::Any
            | Which::Each
            | Which::Rest
            | Which::Leader
            | Which::Follower
            | Which::Target) => {
                let (_, name) = Which::SELECTORS
                    .into_iter()
                    .find(|(selector, _)| *selector == which)
                    .expect("every selector is in the list");
                write!(f, "{}:{name}", self.role)
            }
        }
    }
}

/// One reference or a list of them: `"server-1"` or `["server-1", "client:all"]`. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes(pub Vec<NodeRef>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for text in [
            "server-1",
            "client-24",
            "aggregator-1",
            "server:each",
            "client:any",
            "v2-server:all",
            "v2-client-3",
        ] {
            let node = NodeRef::parse(text, ["v2"]).expect(text);
            assert_eq!(node.to_string(), text);
        }
    }

    #[test]
    fn near_misses_are_not_names() {
        for text in [
            "",
            "server",
            "server-",
            "server-01",
            "server-+1",
            "server--1",
            "server:",
            "server:none",
            "v3-server-1",
            "servers-1",
            "server-99999999999",
        ] {
            assert_eq!(NodeRef::parse(text, ["v2"]), None, "{text}");
        }
    }
}
