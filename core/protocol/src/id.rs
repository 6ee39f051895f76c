//! Identifiers: fixed 32-byte values and the counters of the protocol, each with a type of its own.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Defines a 32-byte identifier whose `Debug` and `Display` print hexadecimal digits.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // On the wire the bytes, in what people read the digits.
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if !deserializer.is_human_readable() {
                    return Deserialize::deserialize(deserializer).map(Self);
                }
                let digits = String::deserialize(deserializer)?;
                decode_hex(&digits).map(Self).ok_or_else(|| de::Error::custom("expected 64 hexadecimal digits"))
            }
        }

        impl $name {
            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first ten hexadecimal digits: what log lines and tables print.
            #[must_use]
            pub fn short(&self) -> String {
                let mut text = alloc::format!("{self}");
                text.truncate(10);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }
    };
}

identifier! {
    /// A public 32-byte name: universe, instance, and what is derived from them.
    UniqueId
}
identifier! {
    /// An ed25519 public key; the identity of a node. `ServerId` and `ClientId` of the paper are this.
    PeerId
}
identifier! {
    /// Drawn at random when a log is started. (`LogId`, [`Round`]) never repeats.
    LogId
}
identifier! {
    /// The committee: instance, committee secret and machine signature. Independent of who its members are.
    GroupId
}
identifier! {
    /// A blake3 digest; what it covers is said where it stands.
    Digest
}

/// Drawn at random when a state folder is made. Together with the [`PeerId`] it names a Raft node, so that a server
/// that lost its disk is a new node to Raft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u64);

impl Serialize for StoreId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Many readers of JSON have no numbers of 64 bits.
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("{:x}", self.0))
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for StoreId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Deserialize::deserialize(deserializer).map(Self);
        }
        let digits = String::deserialize(deserializer)?;
        u64::from_str_radix(&digits, 16).map(Self).map_err(de::Error::custom)
    }
}

/// A member of the Raft group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RaftId {
    /// Whose node it is.
    pub peer: PeerId,
    /// Which of its disks.
    pub store: StoreId,
}

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.peer.short(), self.store.0)
    }
}

/// Defines a counter that only rises.
macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl $name {
            /// The next one.
            ///
            /// # Panics
            /// Once 2^64 were used up.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a counter of 64 bits does not run out"))
            }
        }
    };
}

counter! {
    /// The number of a round; the first round of a log is 1, 0 means "none yet".
    Round
}
counter! {
    /// Orders the bundles of one peer: a bundle replaces those of lower epochs.
    Epoch
}
counter! {
    /// The version of the client registry; +1 for every applied change.
    RegistryVersion
}
counter! {
    /// Orders the signed announcements and batches of one peer.
    Counter
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A committee server.
    Server,
    /// The aggregator.
    Aggregator,
    /// A client, who publishes or sends cover traffic.
    Client,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Server, Self::Aggregator, Self::Client];

    /// The name, as lines and tables print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Aggregator => "aggregator",
            Self::Client => "client",
        }
    }

    /// The byte that stands for the role in digests.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Server => 0,
            Self::Aggregator => 1,
            Self::Client => 2,
        }
    }
}

/// The universe that nodes are in unless they are told another: the id of the text `mosaik.universe`.
pub const UNIVERSE: UniqueId = UniqueId([
    0xb8, 0x2b, 0x6f, 0x3b, 0x4a, 0x1e, 0x53, 0xd2, 0xd5, 0x65, 0x23, 0xf5, 0xa7, 0xb1, 0x97, 0x4e, 0x38,
    0x42, 0xac, 0x37, 0xa0, 0x68, 0xcc, 0x30, 0x22, 0x86, 0x06, 0x5a, 0x88, 0x53, 0xcf, 0x43,
]);

impl UniqueId {
    /// Exactly 64 hexadecimal digits are decoded; any other text is hashed with blake3.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(decode_hex(text).unwrap_or_else(|| *blake3::hash(text.as_bytes()).as_bytes()))
    }

    /// `blake3(id ‖ label)`.
    #[must_use]
    pub fn derive(&self, label: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(label.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

/// Decodes exactly 64 hexadecimal digits of either case.
pub(crate) fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (hex_digit(*high)? << 4) | hex_digit(*low)?;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}
