//! What a process holds before its node begins: the state folder, the port, and a configuration that both complete.

use core::fmt;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use zipnet_core::id::{PeerId, Role};
use zipnet_core::key::{Identity, NodeSecret};
use zipnet_node::config::{Config, is_wildcard};
use zipnet_node::world::Link;

use crate::addresses;
use crate::disk::{Folder, FolderError};
use crate::network::{Limits, QuicLink};
use crate::world::random;

/// A node that could begin.
#[derive(Debug)]
pub struct Ground {
    /// With a secret, and with an address for every peer to start from.
    pub config: Config,
    /// Held until the last clone of it is dropped.
    pub folder: Folder,
    /// Listens already, or, for a client, only dials.
    pub link: QuicLink,
    /// Who the node is.
    pub me: PeerId,
    /// The folder of a node that nobody will be again.
    pub passing: Passing,
}

/// The state folder of a client without a secret: nobody will be this client again.
#[derive(Clone, Debug, Default)]
pub struct Passing(Option<PathBuf>);

impl Passing {
    /// Removes it, if there is one. Call it once the node has ended.
    pub fn forget(self) {
        if let Some(path) = self.0 {
            // What cannot be removed does no harm.
            drop(std::fs::remove_dir_all(path));
        }
    }
}

/// Why a node cannot begin. Each text is a whole sentence for operators.
#[derive(Debug)]
pub enum GroundError {
    /// No state folder is configured, and nothing says where state belongs.
    NoFolder(String),
    /// The state folder cannot be used.
    Folder(FolderError),
    /// A peer to start from has no address.
    Bootstrap(String),
    /// The port cannot be had.
    Listen(String),
}

impl GroundError {
    /// Whether a value is wrong or missing, rather than the world refusing.
    #[must_use]
    pub const fn is_config(&self) -> bool {
        match self {
            Self::NoFolder(_) | Self::Bootstrap(_) => true,
            Self::Folder(_) | Self::Listen(_) => false,
        }
    }
}

impl fmt::Display for GroundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFolder(sentence) | Self::Bootstrap(sentence) | Self::Listen(sentence) => {
                f.write_str(sentence)
            }
            Self::Folder(reason) => write!(f, "failed to {reason}"),
        }
    }
}

impl core::error::Error for GroundError {}

impl Ground {
    /// Takes the state folder and the port, and completes the configuration by what both say. Call it within a runtime.
    /// Of `environment` it looks at `HOME` and `XDG_STATE_HOME`.
    ///
    /// # Errors
    /// If the folder or the port cannot be had, or a peer to start from has no address.
    pub fn take(mut config: Config, environment: &BTreeMap<String, String>) -> Result<Self, GroundError> {
        let drawn = config.secret.is_none();
        let secret = config.secret.clone().unwrap_or_else(|| Arc::new(NodeSecret::from_bytes(random())));
        let identity = Identity::from_secret(&secret);
        let me = identity.peer();
        config.secret = Some(secret);
        let path = match &config.state_dir {
            Some(path) => PathBuf::from(path),
            None => addresses::default_folder(environment, config.instance.name(), me)
                .map_err(GroundError::NoFolder)?,
        };
        let folder = Folder::open(&path).map_err(GroundError::Folder)?;
        let passing = Passing((drawn && config.state_dir.is_none()).then_some(path));
        match Self::reach(&mut config, &identity, &folder) {
            Ok(link) => Ok(Self { config, folder, link, me, passing }),
            Err(refusal) => {
                passing.forget();
                Err(refusal)
            }
        }
    }

    fn reach(config: &mut Config, identity: &Identity, folder: &Folder) -> Result<QuicLink, GroundError> {
        config.bootstrap = addresses::bootstrap(folder, &config.bootstrap).map_err(GroundError::Bootstrap)?;
        let limits = Limits { vector_bytes: config.build.params.vector_bytes() };
        let link = addresses::listen(identity, folder, &config.listen, config.advertise.clone(), limits)
            .map_err(GroundError::Listen)?;
        match config.role() {
            Role::Client => link.only_dial(),
            Role::Server | Role::Aggregator => {}
        }
        Ok(link)
    }

    /// What an operator should know about where this node is reached.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let asked = match self.config.role() {
            Role::Server | Role::Aggregator => {
                self.config.advertise.is_none() && is_wildcard(&self.config.listen)
            }
            Role::Client => false,
        };
        asked.then(|| {
            format!(
                "ZIPNET_ADVERTISE is not set and this node listens on every interface: it tells others that it is \
                 reached at {}; set ZIPNET_ADVERTISE=host:port if it is not",
                self.link.address()
            )
        })
    }
}
