//! A set of places in a list: participants, or refused clients, over the client set of a header.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

/// One bit per place. The bit of place `i` is bit `i mod 8` (lowest first) of byte `i / 8`; spare bits are zero.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "RawBitmap", into = "RawBitmap")]
pub struct Bitmap {
    len: u32,
    bytes: Vec<u8>,
}

impl Bitmap {
    /// No bit of `len` set.
    #[must_use]
    pub fn new(len: u32) -> Self {
        Self { len, bytes: vec![0; bytes_for(len)] }
    }

    /// The given places of `len` set; `None` if one of them is not below `len`.
    #[must_use]
    pub fn from_ones(len: u32, ones: impl IntoIterator<Item = u32>) -> Option<Self> {
        let mut bitmap = Self::new(len);
        for place in ones {
            if place >= len {
                return None;
            }
            bitmap.set(place);
        }
        Some(bitmap)
    }

    /// How many places there are.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether no bit is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }

    /// The bits, eight to a byte.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sets the bit of a place.
    ///
    /// # Panics
    /// If the place is not below [`Self::len`]. Places come from one's own registry, not from a peer.
    pub fn set(&mut self, place: u32) {
        assert!(place < self.len, "place {place} is outside a bitmap of {}", self.len);
        let (byte, mask) = position(place);
        self.bytes[byte] |= mask;
    }

    /// Whether the bit of a place is set; false outside.
    #[must_use]
    pub fn get(&self, place: u32) -> bool {
        let (byte, mask) = position(place);
        self.bytes.get(byte).is_some_and(|bits| bits & mask != 0)
    }

    /// How many bits are set.
    #[must_use]
    pub fn count_ones(&self) -> u32 {
        self.bytes.iter().map(|byte| byte.count_ones()).sum()
    }

    /// The set places, rising.
    pub fn iter_ones(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).step_by(8).zip(&self.bytes).flat_map(|(first, byte)| {
            (0u32..8).filter(move |bit| (byte >> bit) & 1 == 1).map(move |bit| first | bit)
        })
    }

    /// Adds the set places of another bitmap.
    ///
    /// # Panics
    /// If the lengths differ. Whoever has a bitmap from a peer compares its length with the client set's first.
    pub fn union_with(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "only bitmaps over one list are combined");
        for (byte, more) in self.bytes.iter_mut().zip(&other.bytes) {
            *byte |= more;
        }
    }

    /// Whether both have the same length and no set place in common. Bitmaps of different lengths are about different
    /// lists: for them the answer is no.
    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.len == other.len && self.bytes.iter().zip(&other.bytes).all(|(this, that)| this & that == 0)
    }
}

/// The number of places as an index; every platform that this crate runs on has at least 32 bits.
pub(crate) fn index(place: u32) -> usize {
    usize::try_from(place).expect("a usize has at least 32 bits")
}

fn bytes_for(len: u32) -> usize {
    index(len.div_ceil(8))
}

fn position(place: u32) -> (usize, u8) {
    (index(place / 8), 1 << (place % 8))
}

impl fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bitmap({} of {})", self.count_ones(), self.len)
    }
}

#[derive(Serialize, Deserialize)]
struct RawBitmap {
    len: u32,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

impl From<Bitmap> for RawBitmap {
    fn from(bitmap: Bitmap) -> Self {
        Self { len: bitmap.len, bytes: bitmap.bytes }
    }
}

impl TryFrom<RawBitmap> for Bitmap {
    type Error = BitmapError;

    fn try_from(raw: RawBitmap) -> Result<Self, BitmapError> {
        if raw.bytes.len() != bytes_for(raw.len) {
            return Err(BitmapError::Bytes { len: raw.len, bytes: raw.bytes.len() });
        }
        let spare_clear = match (raw.len % 8, raw.bytes.last()) {
            (0, _) | (_, None) => true,
            (used, Some(last)) => last >> used == 0,
        };
        if !spare_clear {
            return Err(BitmapError::SpareBits);
        }
        Ok(Self { len: raw.len, bytes: raw.bytes })
    }
}

/// Why a bitmap was refused at decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BitmapError {
    Bytes { len: u32, bytes: usize },
    SpareBits,
}

impl fmt::Display for BitmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes { len, bytes } => write!(f, "decode bitmap: {bytes} bytes do not fit {len} places"),
            Self::SpareBits => f.write_str("decode bitmap: a bit behind the last place is set"),
        }
    }
}
