//! The instance: one named network, and the public identifiers that follow from its name.

use alloc::string::String;
use core::fmt;

use crate::digest::{Context, Fields};
use crate::id::{Digest, UniqueId};
use crate::params::RoundParams;

/// A network by name. Nodes of different instances do not talk to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    name: String,
    id: UniqueId,
}

impl Instance {
    /// The longest name, in bytes of UTF-8.
    pub const NAME_BYTES_MAX: usize = 200;

    /// Checks the name and derives the identifier.
    ///
    /// # Errors
    /// If the name is empty, longer than [`Self::NAME_BYTES_MAX`], or has a control character: a name that cannot be
    /// seen cannot be compared by two operators.
    pub fn new(name: &str) -> Result<Self, InstanceError> {
        if name.is_empty() {
            return Err(InstanceError::Empty);
        }
        if name.len() > Self::NAME_BYTES_MAX {
            return Err(InstanceError::TooLong { bytes: name.len() });
        }
        if name.chars().any(char::is_control) {
            return Err(InstanceError::Unprintable);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"zipnet.").update(name.as_bytes());
        Ok(Self { name: name.into(), id: UniqueId(*hasher.finalize().as_bytes()) })
    }

    /// The name as given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `blake3("zipnet." ‖ name)`.
    #[must_use]
    pub const fn id(&self) -> UniqueId {
        self.id
    }

    /// Where the committee's consensus meets.
    #[must_use]
    pub fn committee(&self) -> UniqueId {
        self.id.derive("committee")
    }

    /// Where envelopes go.
    #[must_use]
    pub fn submit(&self) -> UniqueId {
        self.id.derive("submit")
    }

    /// Where bundles go.
    #[must_use]
    pub fn register(&self) -> UniqueId {
        self.id.derive("register")
    }

    /// Where finalised rounds are announced.
    #[must_use]
    pub fn broadcasts(&self) -> UniqueId {
        self.id.derive("broadcasts")
    }

    /// Where live headers are announced.
    #[must_use]
    pub fn live_round(&self) -> UniqueId {
        self.id.derive("live-round")
    }

    /// Where the client registry is announced.
    #[must_use]
    pub fn client_registry(&self) -> UniqueId {
        self.id.derive("client-registry")
    }

    /// Where the servers' bundles are announced.
    #[must_use]
    pub fn server_registry(&self) -> UniqueId {
        self.id.derive("server-registry")
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceError {
    /// There is none.
    Empty,
    /// It is longer than [`Instance::NAME_BYTES_MAX`].
    TooLong {
        /// Bytes of UTF-8.
        bytes: usize,
    },
    /// It has a control character.
    Unprintable,
}

impl fmt::Display for InstanceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("accept instance name: it is empty"),
            Self::TooLong { bytes } => {
                write!(f, "accept instance name: {bytes} bytes exceed {}", Instance::NAME_BYTES_MAX)
            }
            Self::Unprintable => f.write_str("accept instance name: it has a control character"),
        }
    }
}

impl core::error::Error for InstanceError {}

/// What two nodes must share to replicate one machine: the wire version, the version of the committee machine and the
/// round parameters. Nothing else is in it, so that floors and accepted measurements change by a rolling restart and a
/// renamed type forks nobody.
#[must_use]
pub fn machine_signature(wire_version: u8, machine_version: u32, params: &RoundParams) -> Digest {
    let mut fields = Fields::new(Context::MachineSignature);
    fields.byte(wire_version).u32(machine_version).params(params);
    fields.digest()
}
