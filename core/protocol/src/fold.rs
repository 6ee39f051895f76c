//! What the aggregator does: XOR.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// XORs `body` into `acc`.
///
/// # Panics
/// If the lengths differ. Lengths of what a peer sent are compared with the parameters before.
#[inline]
pub fn xor_into(acc: &mut [u8], body: &[u8]) {
    assert_eq!(acc.len(), body.len(), "only vectors of one length are combined");
    for (byte, more) in acc.iter_mut().zip(body) {
        *byte ^= more;
    }
}

/// The XOR of the vectors added so far.
#[derive(Clone, PartialEq, Eq)]
pub struct Fold {
    acc: Vec<u8>,
}

impl Fold {
    /// Of no vectors of `bytes` bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { acc: vec![0; bytes] }
    }

    /// Adds a vector.
    ///
    /// # Errors
    /// If it has another length; nothing is changed then.
    pub fn add(&mut self, body: &[u8]) -> Result<(), WrongLength> {
        if body.len() != self.acc.len() {
            return Err(WrongLength { expected: self.acc.len(), found: body.len() });
        }
        xor_into(&mut self.acc, body);
        Ok(())
    }

    /// The XOR so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.acc
    }

    /// The XOR.
    #[must_use]
    pub fn into_body(self) -> Vec<u8> {
        self.acc
    }
}

impl fmt::Debug for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fold({} bytes)", self.acc.len())
    }
}

/// A vector does not fit the round's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongLength {
    /// By the parameters.
    pub expected: usize,
    /// Of the vector.
    pub found: usize,
}

impl fmt::Display for WrongLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fold vector: it has {} bytes instead of {}", self.found, self.expected)
    }
}

impl core::error::Error for WrongLength {}
