//! The shape of a round's vector.

use core::fmt;

use serde::{Deserialize, Serialize};

/// How the broadcast vector is cut into slots. Checked at construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawParams", into = "RawParams")]
pub struct RoundParams {
    num_slots: u32,
    slot_bytes: u32,
    tag_len: u32,
}

/// The longest vector that [`RoundParams`] accepts: 64 MiB.
pub const VECTOR_BYTES_MAX: u32 = 64 << 20;

impl RoundParams {
    /// 64 slots of 256 bytes with tags of 16 bytes: a vector of 16 KiB, payloads of 240 bytes.
    pub const DEFAULT: Self = Self { num_slots: 64, slot_bytes: 256, tag_len: 16 };

    /// Checks and makes parameters.
    ///
    /// # Errors
    /// If a number is zero, the tag does not leave room for a payload or is longer than a blake3 hash (32 bytes), or
    /// the vector is longer than [`VECTOR_BYTES_MAX`].
    pub const fn new(num_slots: u32, slot_bytes: u32, tag_len: u32) -> Result<Self, ParamsError> {
        if num_slots == 0 || slot_bytes == 0 || tag_len == 0 {
            return Err(ParamsError::Zero);
        }
        if tag_len >= slot_bytes || tag_len > 32 {
            return Err(ParamsError::Tag { tag_len, slot_bytes });
        }
        match num_slots.checked_mul(slot_bytes) {
            Some(bytes) if bytes <= VECTOR_BYTES_MAX => Ok(Self { num_slots, slot_bytes, tag_len }),
            _ => Err(ParamsError::TooLarge { num_slots, slot_bytes }),
        }
    }

    /// Number of slots.
    #[must_use]
    pub const fn num_slots(&self) -> u32 {
        self.num_slots
    }

    /// Bytes of one slot: payload and tag.
    #[must_use]
    #[expect(clippy::as_conversions, reason = "constant, and a usize has at least 32 bits here")]
    pub const fn slot_bytes(&self) -> usize {
        self.slot_bytes as usize
    }

    /// Bytes of the tag at the end of a slot.
    #[must_use]
    #[expect(clippy::as_conversions, reason = "constant, and a usize has at least 32 bits here")]
    pub const fn tag_len(&self) -> usize {
        self.tag_len as usize
    }

    /// Bytes of the payload at the start of a slot.
    #[must_use]
    pub const fn payload_bytes(&self) -> usize {
        self.slot_bytes().saturating_sub(self.tag_len())
    }

    /// Bytes of the whole vector.
    #[must_use]
    #[expect(clippy::as_conversions, reason = "constant, and a usize has at least 32 bits here")]
    pub const fn vector_bytes(&self) -> usize {
        (self.num_slots as usize).saturating_mul(self.slot_bytes())
    }
}

impl Default for RoundParams {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why parameters were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamsError {
    /// A number is zero.
    Zero,
    /// The tag leaves no payload, or is longer than 32 bytes.
    Tag {
        /// Asked for.
        tag_len: u32,
        /// Must be larger.
        slot_bytes: u32,
    },
    /// The vector would be longer than [`VECTOR_BYTES_MAX`].
    TooLarge {
        /// Asked for.
        num_slots: u32,
        /// Asked for.
        slot_bytes: u32,
    },
}

impl fmt::Display for ParamsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("accept round parameters: a number is zero"),
            Self::Tag { tag_len, slot_bytes } => write!(
                f,
                "accept round parameters: a tag of {tag_len} bytes must be shorter than a slot of {slot_bytes} and at most 32"
            ),
            Self::TooLarge { num_slots, slot_bytes } => write!(
                f,
                "accept round parameters: {num_slots} slots of {slot_bytes} bytes exceed {VECTOR_BYTES_MAX} bytes"
            ),
        }
    }
}

impl core::error::Error for ParamsError {}

#[derive(Serialize, Deserialize)]
struct RawParams {
    num_slots: u32,
    slot_bytes: u32,
    tag_len: u32,
}

impl TryFrom<RawParams> for RoundParams {
    type Error = ParamsError;

    fn try_from(raw: RawParams) -> Result<Self, ParamsError> {
        Self::new(raw.num_slots, raw.slot_bytes, raw.tag_len)
    }
}

impl From<RoundParams> for RawParams {
    fn from(params: RoundParams) -> Self {
        Self { num_slots: params.num_slots, slot_bytes: params.slot_bytes, tag_len: params.tag_len }
    }
}
