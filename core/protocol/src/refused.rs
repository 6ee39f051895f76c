//! Why commands, messages and headers are refused: one name for each reason.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

/// Why a command, message or header was refused. The names are stable: metrics and scenarios use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Refused {
    /// It names another log, or none was started.
    WrongLog,
    /// The log has a name already.
    LogStarted,
    /// It names another committee.
    WrongGroup,
    /// It names another instance.
    WrongInstance,
    /// Other round parameters.
    ParamsMismatch,
    /// A round other than the expected one. Honest nodes say this after a delay.
    WrongRound,
    /// A header other than the current one. Honest nodes say this after a delay.
    WrongHeader,
    /// An aggregate other than the applied one.
    WrongAggregate,
    /// The client registry is at another version, or has another content at that version.
    WrongRegistry,
    /// What came before is not what this node has: two nodes disagree about the machine.
    WrongPrevious,
    /// A vector or bitmap of the wrong length.
    WrongLength,
    /// A role that may not say this.
    WrongRole,
    /// The bytes are not a message.
    Malformed,
    /// The signature is not the named signer's.
    BadSignature,
    /// The X25519 key is of low order: it would make every pad known.
    WeakKey,
    /// The epoch is not above the last one.
    StaleEpoch,
    /// The counter is not above the last one.
    StaleCounter,
    /// It was there already; nothing changes.
    Duplicate,
    /// A second, different contribution. Only a faulty peer does this.
    Equivocation,
    /// The sender is not in the registry.
    NotRegistered,
    /// The server is not a voter of the group.
    NotVoter,
    /// The server is not in the roster of the round.
    NotInRoster,
    /// The roster is not sorted by peer, lists one twice, or is empty.
    UnsortedRoster,
    /// The roster lists a server that is not registered, has left, or has other keys.
    WrongRoster,
    /// The roster lacks a registered server, and floors do not allow that.
    RosterTooSmall,
    /// The header allows fewer participants than some floor in its roster.
    BelowFloor,
    /// Fewer clients are registered, or took part, than the round needs.
    TooFewParticipants,
    /// Not every rostered server has signed the header.
    NotLive,
    /// No round is open.
    NoRound,
    /// The round has its aggregate.
    AggregateIn,
    /// A client that some server refuses takes part.
    RefusedClient,
    /// The sender is not the aggregator of the log.
    NotAggregator,
    /// Another aggregator is configured.
    AggregatorNotConfigured,
    /// No such record is kept.
    UnknownRecord,
    /// The server was retired; its identity is barred.
    Retired,
    /// The client is barred for some rounds after a refusal.
    Barred,
    /// More entries than a message may carry.
    TooMany,
    /// The round key in the header is not the one that this node holds.
    ForeignKey,
    /// This node signed, sealed or unblinded another one.
    AlreadyPromised,
    /// This node is not in the client set of the header, or not with its present keys.
    NotInRegistry,
    /// A pinned server is not in the roster.
    PinMissing,
    /// The node is stopping.
    Stopping,
    /// The sender probes are not exhausted: the server answers.
    StillAlive,
}

impl Refused {
    /// The stable name, as metrics and scenarios spell it.
    #[must_use]
    pub fn name(&self) -> String {
        let mut name = String::new();
        for c in alloc::format!("{self:?}").chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl core::error::Error for Refused {}
