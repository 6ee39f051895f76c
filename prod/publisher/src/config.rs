//! Which instance, by whom it is found, and whom to trust.

use core::fmt;
use core::num::NonZeroU32;
use core::time::Duration;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use zipnet_core::id::{PeerId, Role, Round, UniqueId};
use zipnet_core::key::NodeSecret;
use zipnet_node::config::{Build, Config as NodeConfig, ConfigError, Part, PeerAddress, read_files};
use zipnet_node::status::CONNECT_TIMEOUT;
use zipnet_node::world::Address;
use zipnet_world::environment;

/// What a [`crate::Publisher`] or a [`crate::Reader`] is told.
///
/// [`Config::new`] and [`Config::from_variables`] check everything, so that later steps cannot fail for a mistake that was
/// made here.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of a client.
    node: NodeConfig,
    pub(crate) connect_timeout: Duration,
    from: Option<Round>,
}

/// Every mistake in a configuration, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<ConfigError>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, mistake) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "\n" };
            write!(f, "{separator}{mistake}")?;
        }
        Ok(())
    }
}

impl core::error::Error for Mistakes {}

impl Config {
    /// Of the instance of this name, like `acme.mixer.mainnet`. Unless more is said: a fresh identity, nobody to start
    /// from, no pinned servers, a port of the system's choice, and a state folder that is removed at the end.
    ///
    /// # Errors
    /// If the name is not one.
    pub fn new(instance: &str) -> Result<Self, Mistakes> {
        Self::from_variables(&BTreeMap::from([("ZIPNET_INSTANCE".to_owned(), instance.to_owned())]))
    }

    /// From the variables of this process that a client reads, as `docs/operating.md` lists them.
    ///
    /// # Errors
    /// Every mistake in them.
    pub fn from_env() -> Result<Self, Mistakes> {
        let mut variables = environment::of_process().map_err(Mistakes)?;
        // ZIPNET_CONFIG names a file of the binaries.
        variables.retain(|name, _| name.starts_with("ZIPNET_") && name != "ZIPNET_CONFIG");
        Self::from_variables(&variables)
    }

    /// The same from a map. An empty value counts as unset; `…_FILE` variables are read.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn from_variables(variables: &BTreeMap<String, String>) -> Result<Self, Mistakes> {
        let mut variables = variables.clone();
        let read = |path: &str| std::fs::read_to_string(path).map_err(|reason| reason.to_string());
        read_files(&mut variables, read).map_err(Mistakes)?;
        let (node, _) = NodeConfig::from_env(Role::Client, &variables, Build::CURRENT).map_err(Mistakes)?;
        Ok(Self { node, connect_timeout: CONNECT_TIMEOUT, from: None })
    }

    /// Another universe than `mosaik.universe`: only for federations that must not meet others.
    #[must_use]
    pub fn universe(mut self, name: &str) -> Self {
        self.node.universe = UniqueId::from_text(name);
        self.node.universe_name = name.to_owned();
        self
    }

    /// Who this node is. Without it, a fresh identity is drawn: nobody can tell that two runs are of one publisher, and
    /// each run registers anew.
    #[must_use]
    pub fn secret(mut self, secret: NodeSecret) -> Self {
        self.node.secret = Some(Arc::new(secret));
        self
    }

    /// A node to start from: any server or the aggregator, as it prints itself behind `peer=` at its start. Call it for
    /// each; the text is parsed with `"…@host:port".parse()`.
    #[must_use]
    pub fn bootstrap(mut self, peer: PeerAddress) -> Self {
        self.node.bootstrap.push(peer);
        self
    }

    /// A server that must be in every roster. Call it for each. Without any, anonymity rests on the network's word about
    /// who the servers are, and a reader believes the first roster that it sees.
    #[must_use]
    pub fn server(mut self, server: PeerId) -> Self {
        if let Part::Client(part) = &mut self.node.part {
            part.pins.insert(server);
        }
        self
    }

    /// The smallest roster. Without it: as many servers as are pinned; without pins, the largest that was accepted.
    #[must_use]
    pub fn min_servers(mut self, count: NonZeroU32) -> Self {
        if let Part::Client(part) = &mut self.node.part {
            part.min_servers = Some(count.get());
        }
        self
    }

    /// Messages go into every n-th round, 1 unless said otherwise; the others carry cover traffic. A reader ignores
    /// it.
    #[must_use]
    pub fn cadence(mut self, rounds: NonZeroU32) -> Self {
        if let Part::Client(part) = &mut self.node.part {
            part.cadence = rounds.get();
        }
        self
    }

    /// Where the socket is bound (UDP). Unless said otherwise, `0.0.0.0:0`.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.node.listen = Address(address.to_string());
        self
    }

    /// Where to keep the address book. Without it: below the user's state folder, and removed at the end if there is no
    /// [`Config::secret`] either.
    #[must_use]
    pub fn state_dir(mut self, folder: &Path) -> Self {
        self.node.state_dir = Some(folder.to_string_lossy().into_owned());
        self
    }

    /// How long [`crate::Publisher::connect`] and [`crate::Reader::connect`] may take, 30 seconds unless said otherwise.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Which round a reader begins with. Without it: the oldest that can be had. A publisher ignores it.
    #[must_use]
    pub const fn from(mut self, round: Round) -> Self {
        self.from = Some(round);
        self
    }

    /// The most bytes of a message.
    #[must_use]
    pub const fn payload_bytes(&self) -> usize {
        self.node.build.params.payload_bytes()
    }

    pub(crate) fn publisher(mut self) -> NodeConfig {
        if let Part::Client(part) = &mut self.node.part {
            // What a publisher publishes, it is given with a receipt.
            part.message = None;
        }
        self.node
    }

    pub(crate) fn reader(self) -> NodeConfig {
        self.node.into_reader(self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_told_at_once() {
        let variables = [("ZIPNET_CADENCE", "0"), ("ZIPNET_BOOTSTRAP", "nobody")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mistakes = Config::from_variables(&variables).expect_err("three mistakes").to_string();
        assert_eq!(mistakes.lines().count(), 3, "{mistakes}");
        assert!(mistakes.starts_with("ZIPNET_INSTANCE is not set"), "{mistakes}");
        assert!(Config::new("").is_err());
    }

    #[test]
    fn setters_say_what_the_variables_say() {
        let peer = format!("{}@127.0.0.1:7", "ab".repeat(32));
        let pin = "cd".repeat(32);
        let variables = [
            ("ZIPNET_INSTANCE", "acme.mainnet"),
            ("ZIPNET_UNIVERSE", "elsewhere"),
            ("ZIPNET_BOOTSTRAP", &peer),
            ("ZIPNET_SERVERS", &pin),
            ("ZIPNET_MIN_SERVERS", "2"),
            ("ZIPNET_CADENCE", "3"),
            ("ZIPNET_LISTEN", "127.0.0.1:0"),
            ("ZIPNET_STATE_DIR", "/tmp/state"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let read = Config::from_variables(&variables).unwrap();
        let (two, three) = (NonZeroU32::new(2).unwrap(), NonZeroU32::new(3).unwrap());
        let set = Config::new("acme.mainnet").unwrap().universe("elsewhere").bootstrap(peer.parse().unwrap());
        let set = set.server(PeerId([0xcd; 32])).min_servers(two).cadence(three);
        let set = set.listen("127.0.0.1:0".parse().unwrap()).state_dir(Path::new("/tmp/state"));
        assert_eq!(format!("{set:?}"), format!("{read:?}"));
        let reader = set.from(Round(7)).reader();
        let Part::Reader(part) = reader.part else { panic!("a reader has its part") };
        assert_eq!((part.from, part.min_servers, part.pins.len()), (Some(Round(7)), Some(2), 1));
    }
}
