//! Keys that follow from a seed.

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use rcgen::{Error, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use sha2::{Digest as _, Sha256};

/// A key of the P-256 curve.
pub(crate) struct Key {
    secret: SigningKey,
    public: Vec<u8>,
}

impl Key {
    /// The key of this name.
    pub(crate) fn derive(seed: &[u8], name: &str) -> Self {
        let secret = (0_u32..)
            .find_map(|attempt| {
                let mut hasher = Sha256::new();
                hasher.update(b"zipnet simulated TDX key\0");
                hasher.update((seed.len() as u64).to_le_bytes());
                hasher.update(seed);
                hasher.update(attempt.to_le_bytes());
                hasher.update(name);
                // Almost every value is a key.
                SigningKey::from_slice(&hasher.finalize()).ok()
            })
            .expect("one of so many is a key");
        let public = secret.verifying_key().to_sec1_point(false).as_bytes().to_vec();
        Self { secret, public }
    }

    /// A signature as quotes and collateral have it: both numbers, 32 bytes each.
    pub(crate) fn sign_raw(&self, message: &[u8]) -> [u8; 64] {
        let signature: Signature = self.secret.sign(message);
        signature.to_bytes().into()
    }

    /// The public key as quotes have it: both coordinates.
    pub(crate) fn public_raw(&self) -> [u8; 64] {
        self.public[1..].try_into().expect("an uncompressed point has 65 bytes")
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature: Signature = self.secret.sign(message);
        Ok(signature.to_der().as_bytes().to_vec())
    }
}
