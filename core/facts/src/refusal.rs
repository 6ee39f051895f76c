//! Why two nodes do not talk to each other, or no longer.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Why a connection is closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Farewell {
    /// The node stops and is expected back.
    Departing,
    /// The node stops for good.
    Leaving,
    /// Another connection of the same two processes is kept.
    Spare,
    /// A newer process of the same identity took over.
    Replaced,
    /// The node sets its log aside and starts anew.
    Yielding,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The frame could not be read, or was not a hello.
    Malformed,
    /// Another universe.
    Universe,
    /// Another instance.
    Instance,
    /// Messages are encoded differently.
    WireVersion,
    /// Rounds have another shape.
    Parameters,
    /// The committee machine applies commands differently.
    MachineSignature,
    /// Two nodes of these roles have nothing to say to each other, or a role lacks what it must have.
    Role,
    /// A server does not know the committee secret.
    GroupProof,
    /// The evidence of what the node runs on was not accepted.
    Attestation,
    /// The identity was retired.
    Retired,
    /// Another living node has this identity.
    DuplicateIdentity,
    /// The node has another log of the same committee.
    TwoLogs,
    /// The node met itself.
    Myself,
    /// The operator does not allow this server.
    NotListed,
    /// There is no room for another connection of a peer that the node does not know.
    Full,
}

impl Farewell {
    /// Every reason, in declaration order.
    pub const ALL: [Self; 5] = [Self::Departing, Self::Leaving, Self::Spare, Self::Replaced, Self::Yielding];

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Departing => "departing",
            Self::Leaving => "leaving",
            Self::Spare => "spare",
            Self::Replaced => "replaced",
            Self::Yielding => "yielding",
        }
    }
}

impl Refusal {
    /// Every reason, in declaration order.
    pub const ALL: [Self; 15] = [
        Self::Malformed,
        Self::Universe,
        Self::Instance,
        Self::WireVersion,
        Self::Parameters,
        Self::MachineSignature,
        Self::Role,
        Self::GroupProof,
        Self::Attestation,
        Self::Retired,
        Self::DuplicateIdentity,
        Self::TwoLogs,
        Self::Myself,
        Self::NotListed,
        Self::Full,
    ];

    /// The stable name, as metrics and scenarios spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Universe => "universe",
            Self::Instance => "instance",
            Self::WireVersion => "wire-version",
            Self::Parameters => "parameters",
            Self::MachineSignature => "machine-signature",
            Self::Role => "role",
            Self::GroupProof => "group-proof",
            Self::Attestation => "attestation",
            Self::Retired => "retired",
            Self::DuplicateIdentity => "duplicate-identity",
            Self::TwoLogs => "two-logs",
            Self::Myself => "myself",
            Self::NotListed => "not-listed",
            Self::Full => "full",
        }
    }

    /// The code that the refused node exits with once the committee has decided so; `None` if it goes on.
    #[must_use]
    pub const fn exit_code(self) -> Option<u8> {
        match self {
            Self::WireVersion
            | Self::Parameters
            | Self::MachineSignature
            | Self::GroupProof
            | Self::Retired
            | Self::DuplicateIdentity => Some(77),
            // Somebody else's network, an accident, decided by the node itself, or over once whoever judges has changed a
            // list, or what it judges evidence by, or once others have gone.
            Self::Malformed
            | Self::Universe
            | Self::Instance
            | Self::Role
            | Self::Attestation
            | Self::TwoLogs
            | Self::Myself
            | Self::NotListed
            | Self::Full => None,
        }
    }

    /// Which of the four compatibility boundaries was crossed, if one was.
    #[must_use]
    pub const fn boundary(self) -> Option<&'static str> {
        match self {
            Self::WireVersion => Some("wire format"),
            Self::Parameters => Some("round parameters"),
            Self::MachineSignature => Some("machine signature"),
            Self::Attestation => Some("measurement"),
            Self::Malformed
            | Self::Universe
            | Self::Instance
            | Self::Role
            | Self::GroupProof
            | Self::Retired
            | Self::DuplicateIdentity
            | Self::TwoLogs
            | Self::Myself
            | Self::NotListed
            | Self::Full => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it does not speak this protocol",
            Self::Universe => "it belongs to another universe: compare ZIPNET_UNIVERSE",
            Self::Instance => "it belongs to another instance: compare ZIPNET_INSTANCE",
            Self::WireVersion => "it was built with another wire format: upgrade the whole instance together",
            Self::Parameters => "it was built with other round parameters: they must match across the instance",
            Self::MachineSignature => "it was built with another machine signature: upgrade the whole instance together",
            Self::Role => "the two roles do not talk to each other",
            Self::GroupProof => {
                "it does not know the committee secret of this instance: compare ZIPNET_COMMITTEE_SECRET, and whether \
                 another operator uses the same instance name"
            }
            Self::Attestation => "its measurement is not accepted",
            Self::Retired => "its identity was retired: give the server a fresh ZIPNET_SECRET and add it again",
            Self::DuplicateIdentity => {
                "another living node has this identity: ZIPNET_SECRET must be unique to each node"
            }
            Self::TwoLogs => "it has another log of this committee: two servers were started as the first",
            Self::Myself => "it is this node itself",
            Self::NotListed => "it is not among the servers that ZIPNET_ALLOWED_SERVERS allows",
            Self::Full => "there is no room for more connections of nodes that are in no registry: it tries again",
        })
    }
}
