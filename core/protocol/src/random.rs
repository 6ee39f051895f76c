//! The only randomness of the machines: a generator from a seed that the driver passes in.

use core::fmt;

use zeroize::Zeroize;

use crate::digest::Context;

/// Output bytes made at a time.
const BLOCK: usize = 224;

/// A generator that erases behind itself: what was drawn cannot be computed from a later state, so a stolen memory
/// image tells nothing of keys and slots that are gone.
///
/// Each step expands the 32-byte key with blake3's extendable output to the next key and a block of output; output is
/// wiped as it is handed out. Not `Clone`: two copies would repeat each other.
pub struct Random {
    key: [u8; 32],
    block: [u8; BLOCK],
    used: usize,
}

impl Random {
    /// From 32 secret random bytes, or in a simulation from 32 known ones.
    #[must_use]
    pub const fn new(seed: [u8; 32]) -> Self {
        Self { key: seed, block: [0; BLOCK], used: BLOCK }
    }

    /// A generator for one concern. Depends on the label and on this generator's present key, not on other forks, so
    /// that a further fork shifts nobody: fork first, draw later. The same label twice is the same generator twice.
    #[must_use]
    pub fn fork(&self, label: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(Context::RandomFork.text());
        hasher.update(&self.key).update(label.as_bytes());
        let fork = Self::new(*hasher.finalize().as_bytes());
        hasher.zeroize();
        fork
    }

    /// Mixes fresh randomness in: whoever knew the generator's state, by a copy of the memory say, does not know what is
    /// drawn from here on.
    pub fn stir(&mut self, entropy: &[u8; 32]) {
        let mut hasher = blake3::Hasher::new_derive_key(Context::RandomStir.text());
        hasher.update(&self.key).update(entropy);
        let mut output = hasher.finalize_xof();
        output.fill(&mut self.key);
        self.block.zeroize();
        self.used = BLOCK;
        output.zeroize();
        hasher.zeroize();
    }

    /// Fills a buffer.
    pub fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            if self.used == BLOCK {
                self.refill();
            }
            let ready = &mut self.block[self.used..];
            let take = ready.len().min(out.len());
            let (head, tail) = out.split_at_mut(take);
            head.copy_from_slice(&ready[..take]);
            ready[..take].zeroize();
            self.used = self.used.saturating_add(take);
            out = tail;
        }
    }

    /// Draws 32 bytes.
    #[must_use]
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.fill(&mut bytes);
        bytes
    }

    /// Draws a number.
    #[must_use]
    pub fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Draws a number below `n`, all equally likely: draws from the incomplete last span of 64-bit numbers are thrown
    /// away and repeated.
    ///
    /// # Panics
    /// If `n` is zero.
    #[must_use]
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "there is no number below zero");
        // 2^64 mod n numbers at the low end are one too many.
        let surplus = n.wrapping_neg().checked_rem(n).expect("n is not zero");
        loop {
            let drawn = self.next_u64();
            if drawn >= surplus {
                return drawn.checked_rem(n).expect("n is not zero");
            }
        }
    }

    fn refill(&mut self) {
        let mut hasher = blake3::Hasher::new_derive_key(Context::RandomStep.text());
        hasher.update(&self.key);
        let mut output = hasher.finalize_xof();
        output.fill(&mut self.key);
        output.fill(&mut self.block);
        self.used = 0;
        output.zeroize();
        hasher.zeroize();
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        self.key.zeroize();
        self.block.zeroize();
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random(..)")
    }
}
