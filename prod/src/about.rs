//! What a binary was built as: what must match across an instance, and what may differ.

use serde::{Deserialize, Serialize};
use zipnet_core::instance::machine_signature;
use zipnet_node::config::Build;

/// What a binary was built as. Field names are an interface: [`crate::tool`] compares two of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Of the package.
    pub version: String,
    /// How messages are encoded.
    pub wire_version: u8,
    /// How the committee machine applies commands.
    pub machine_version: u32,
    /// The shape of a round.
    pub params: Params,
    /// The digest that distinguishes committee machines.
    pub machine_signature: String,
}

/// The shape of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// Slots of a vector.
    pub num_slots: u32,
    /// Bytes of a slot.
    pub slot_bytes: usize,
    /// Bytes of a slot's tag.
    pub tag_len: usize,
}

impl About {
    /// This binary.
    #[must_use]
    pub fn this() -> Self {
        Self::of(&Build::CURRENT)
    }

    fn of(build: &Build) -> Self {
        let Build { params, wire_version, machine_version } = *build;
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wire_version,
            machine_version,
            params: Params {
                num_slots: params.num_slots(),
                slot_bytes: params.slot_bytes(),
                tag_len: params.tag_len(),
            },
            machine_signature: machine_signature(wire_version, machine_version, &params).to_string(),
        }
    }

    /// The boundaries that lie between two binaries: nodes on the two sides refuse each other. Empty for a patch.
    #[must_use]
    pub fn boundaries(&self, other: &Self) -> Vec<String> {
        let mut crossed = Vec::new();
        if self.wire_version != other.wire_version {
            crossed.push(format!("wire format: {} and {}", self.wire_version, other.wire_version));
        }
        if self.params != other.params {
            crossed.push(format!("round parameters: {} and {}", self.params, other.params));
        }
        if self.machine_version != other.machine_version {
            crossed.push(format!("machine version: {} and {}", self.machine_version, other.machine_version));
        }
        if crossed.is_empty() && self.machine_signature != other.machine_signature {
            crossed.push(format!(
                "machine signature: {} and {}",
                self.machine_signature, other.machine_signature
            ));
        }
        crossed
    }
}

impl core::fmt::Display for Params {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "num_slots={} slot_bytes={} tag_len={}", self.num_slots, self.slot_bytes, self.tag_len)
    }
}

impl core::fmt::Display for About {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        writeln!(f, "{:<18}{}", "version", self.version)?;
        writeln!(f, "{:<18}{}", "wire version", self.wire_version)?;
        writeln!(f, "{:<18}{}", "machine version", self.machine_version)?;
        writeln!(f, "{:<18}{}", "parameters", self.params)?;
        writeln!(f, "{:<18}{}", "machine signature", self.machine_signature)
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::params::RoundParams;

    use super::*;

    #[test]
    fn each_boundary_is_named() {
        let this = About::this();
        assert_eq!(
            this.boundaries(&About { version: "9.9.9".to_owned(), ..this.clone() }),
            Vec::<String>::new()
        );
        let params = RoundParams::new(128, 256, 16).unwrap();
        let table = [
            (Build { wire_version: 2, ..Build::CURRENT }, "wire format: 1 and 2"),
            (Build { machine_version: 2, ..Build::CURRENT }, "machine version: 1 and 2"),
            (
                Build { params, ..Build::CURRENT },
                "round parameters: num_slots=64 slot_bytes=256 tag_len=16 and num_slots=128 slot_bytes=256 tag_len=16",
            ),
        ];
        for (build, expected) in table {
            assert_eq!(this.boundaries(&About::of(&build)), [expected]);
        }
        let drifted = About { machine_signature: "00".to_owned(), ..this.clone() };
        assert_eq!(this.boundaries(&drifted).len(), 1);
    }
}
