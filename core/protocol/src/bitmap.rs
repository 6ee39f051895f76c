//! A set of places in a list: participants, or refused clients, over the client set of a header.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

/// The most places of a set: one for each client of a log.
pub const PLACES_MAX: u32 = 1 << 18;

/// One bit per place. The bit of place `i` is bit `i mod 8` (lowest first) of byte `i / 8`. Bytes behind the last one that has a
/// bit are left out, so that a set of which nothing is known takes no room, however long the list is.
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
        Self { len, bytes: Vec::new() }
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
        self.bytes.is_empty()
    }

    /// The bits, eight to a byte, up to the last byte that is not zero.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many zero bytes are left out behind [`Self::as_bytes`].
    #[must_use]
    pub fn omitted(&self) -> usize {
        bytes_for(self.len).saturating_sub(self.bytes.len())
    }

    /// Sets the bit of a place.
    ///
    /// # Panics
    /// If the place is not below [`Self::len`]. Places come from one's own registry, not from a peer.
    pub fn set(&mut self, place: u32) {
        assert!(place < self.len, "place {place} is outside a bitmap of {}", self.len);
        let (byte, mask) = position(place);
        if self.bytes.len() <= byte {
            self.bytes.resize(byte.saturating_add(1), 0);
        }
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
        if self.bytes.len() < other.bytes.len() {
            self.bytes.resize(other.bytes.len(), 0);
        }
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
        if raw.len > PLACES_MAX || raw.bytes.len() > bytes_for(raw.len) {
            return Err(BitmapError::Bytes { len: raw.len, bytes: raw.bytes.len() });
        }
        if raw.bytes.last() == Some(&0) {
            return Err(BitmapError::ZeroByte);
        }
        let is_whole = raw.bytes.len() == bytes_for(raw.len);
        let spare_clear = match (raw.len % 8, raw.bytes.last()) {
            (used @ 1.., Some(last)) if is_whole => last >> used == 0,
            _ => true,
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
    ZeroByte,
    SpareBits,
}

impl fmt::Display for BitmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes { len, bytes } => write!(f, "decode bitmap: {bytes} bytes do not fit {len} places"),
            Self::ZeroByte => f.write_str("decode bitmap: its last byte is zero, and would be left out"),
            Self::SpareBits => f.write_str("decode bitmap: a bit behind the last place is set"),
        }
    }
}
