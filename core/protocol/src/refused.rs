//! Why commands, messages and headers are refused: one name for each reason.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Defines the table of reasons.
macro_rules! refused {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a command, message or header was refused. The names are stable: metrics and scenarios use them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Refused {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Refused {
            /// All of them, in declaration order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The stable name, as metrics and scenarios spell it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

refused! {
    /// It names another log, or none was started.
    WrongLog = "wrong-log",
    /// The log has a name already.
    LogStarted = "log-started",
    /// It names another committee.
    WrongGroup = "wrong-group",
    /// It names another instance.
    WrongInstance = "wrong-instance",
    /// Other round parameters.
    ParamsMismatch = "params-mismatch",
    /// A round other than the expected one. Honest nodes say this after a delay.
    WrongRound = "wrong-round",
    /// A header other than the current one. Honest nodes say this after a delay.
    WrongHeader = "wrong-header",
    /// An aggregate other than the applied one.
    WrongAggregate = "wrong-aggregate",
    /// The client registry is at another version, or has another content at that version.
    WrongRegistry = "wrong-registry",
    /// What came before is not what this node has: two nodes disagree about the machine.
    WrongPrevious = "wrong-previous",
    /// A vector or bitmap of the wrong length.
    WrongLength = "wrong-length",
    /// A role that may not say this.
    WrongRole = "wrong-role",
    /// The bytes are not a message.
    Malformed = "malformed",
    /// The signature is not the named signer's.
    BadSignature = "bad-signature",
    /// The X25519 key is of low order: it would make every pad known.
    WeakKey = "weak-key",
    /// The epoch is not above the last one.
    StaleEpoch = "stale-epoch",
    /// The counter is not above the last one.
    StaleCounter = "stale-counter",
    /// It was there already; nothing changes.
    Duplicate = "duplicate",
    /// A second, different contribution. Only a faulty peer does this.
    Equivocation = "equivocation",
    /// The sender is not in the registry.
    NotRegistered = "not-registered",
    /// The server is not a voter of the group.
    NotVoter = "not-voter",
    /// The server is not in the roster of the round.
    NotInRoster = "not-in-roster",
    /// The roster is not sorted by peer, lists one twice, or is empty.
    UnsortedRoster = "unsorted-roster",
    /// The roster lists a server that is not registered, has left, or has other keys.
    WrongRoster = "wrong-roster",
    /// The roster lacks a registered server, and floors do not allow that.
    RosterTooSmall = "roster-too-small",
    /// The header allows fewer participants than some floor in its roster.
    BelowFloor = "below-floor",
    /// Fewer clients are registered, or took part, than the round needs.
    TooFewParticipants = "too-few-participants",
    /// Not every rostered server has signed the header.
    NotLive = "not-live",
    /// No round is open.
    NoRound = "no-round",
    /// The round has its aggregate.
    AggregateIn = "aggregate-in",
    /// A client that some server refuses takes part.
    RefusedClient = "refused-client",
    /// The sender is not the aggregator of the log.
    NotAggregator = "not-aggregator",
    /// Another aggregator is configured.
    AggregatorNotConfigured = "aggregator-not-configured",
    /// No such record is kept.
    UnknownRecord = "unknown-record",
    /// The server was retired; its identity is barred.
    Retired = "retired",
    /// The client is barred for some rounds after a refusal.
    Barred = "barred",
    /// More entries than a message may carry.
    TooMany = "too-many",
    /// The round key in the header is not the one that this node holds.
    ForeignKey = "foreign-key",
    /// This node signed, sealed or unblinded another one.
    AlreadyPromised = "already-promised",
    /// This node is not in the client set of the header, or not with its present keys.
    NotInRegistry = "not-in-registry",
    /// A pinned server is not in the roster.
    PinMissing = "pin-missing",
    /// The node is stopping.
    Stopping = "stopping",
    /// The sender probes are not exhausted: the server answers.
    StillAlive = "still-alive",
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Refused {}
