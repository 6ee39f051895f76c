//! Keys and the texts they come from. Every secret here is wiped when dropped, has no `Debug` of its content and no
//! `Serialize`, and compares in constant time.

use alloc::vec;
use core::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use x25519_dalek::StaticSecret;
use zeroize::{Zeroize, Zeroizing};

use crate::digest::{Context, Fields};
use crate::id::{Digest, GroupId, PeerId, Role, UniqueId, decode_hex};
use crate::instance::Instance;

/// A text secret with fewer characters than this can be guessed: operators are warned.
pub const SECRET_CHARS_MIN: usize = 20;

/// An X25519 public key: the public half of a [`RoundSecret`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Whether pads can be agreed on with this key. False for the seven encodings of points of small order, with
    /// which every shared secret is zero; the top bit is ignored, as X25519 does.
    #[must_use]
    pub fn is_contributory(&self) -> bool {
        let [low @ .., high] = self.0;
        !SMALL_ORDER.iter().any(|[point @ .., top]| *point == low && *top == high & 0x7f)
    }
}

/// The u-coordinates of small order below 2^255, little-endian.
const SMALL_ORDER: [[u8; 32]; 7] = [
    small(0, 0),
    small(1, 0),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    small(0xec, 0xff),
    small(0xed, 0xff),
    small(0xee, 0xff),
];

/// A number whose lowest byte is `low` and whose other bytes are `rest`, cut to 255 bits.
const fn small(low: u8, rest: u8) -> [u8; 32] {
    let mut bytes = [rest; 32];
    bytes[0] = low;
    bytes[31] = rest & 0x7f;
    bytes
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(")?;
        self.0.iter().take(5).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// An ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 64]);

impl Default for Signature {
    /// A placeholder that verifies nothing.
    fn default() -> Self {
        Self([0; 64])
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (halves, _) = self.0.as_chunks::<32>();
        let [first, second] = halves else { unreachable!("64 bytes are two halves of 32") };
        (first, second).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (first, second) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        let (head, tail) = bytes.split_at_mut(32);
        head.copy_from_slice(&first);
        tail.copy_from_slice(&second);
        Ok(Self(bytes))
    }
}

/// Whether `signature` is `peer`'s over `digest`. Strict: keys of small order and signatures of another form than the
/// canonical one are refused. Never panics, whatever the bytes.
#[must_use]
pub fn verify(peer: &PeerId, digest: &Digest, signature: &Signature) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(&peer.0) else { return false };
    key.verify_strict(&digest.0, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
}

/// Wipes a secret with a field `0` of bytes when it is dropped, and implements its comparison and silent `Debug`.
macro_rules! secret {
    ($name:ident) => {
        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}
pub(crate) use secret;

/// How a secret that is a text becomes 32 bytes: argon2id (version 0x13) over the text's [`UniqueId`], with the constants
/// below. The salt is the context string followed by the instance's id, so that no table of texts serves two instances,
/// and none serves both kinds of secrets. It takes a tenth of a second, and is done once when a node starts.
#[derive(Clone, Copy, Debug)]
pub struct Stretch;

impl Stretch {
    /// Memory in KiB.
    pub const MEMORY_KIB: u32 = 64 << 10;
    /// Passes over it.
    pub const PASSES: u32 = 3;
    /// Lanes.
    pub const LANES: u32 = 1;

    fn of(context: Context, text: &str, instance: &Instance) -> [u8; 32] {
        let params = argon2::Params::new(Self::MEMORY_KIB, Self::PASSES, Self::LANES, Some(32))
            .expect("the constants are within argon2's limits");
        let hashed = Zeroizing::new(UniqueId::from_text(text).0);
        let salt = [context.text().as_bytes(), instance.id().as_bytes()].concat();
        // The result follows from what is in this memory at the end.
        let mut blocks = Zeroizing::new(vec![argon2::Block::default(); params.block_count()]);
        let mut stretched = [0; 32];
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
            .hash_password_into_with_memory(hashed.as_slice(), &salt, &mut stretched, blocks.as_mut_slice())
            .expect("salt and output are within argon2's limits");
        stretched
    }
}

/// A node's one permanent secret. Its identity and the key of its state at rest follow from it; pads never do.
#[derive(Clone)]
pub struct NodeSecret([u8; 32]);

secret!(NodeSecret);

impl NodeSecret {
    /// 64 hexadecimal digits are decoded. Any other text is hashed and then stretched for this instance, see
    /// [`Stretch`]: the identity that follows is public, and must not be a fast way to try texts.
    #[must_use]
    pub fn from_text(text: &str, instance: &Instance) -> Self {
        decode_hex(text).map_or_else(|| Self(Stretch::of(Context::NodeStretch, text, instance)), Self)
    }

    /// From 32 bytes, for nodes that draw a secret of their own.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Whether the text can be guessed: not 64 hexadecimal digits, and shorter than [`SECRET_CHARS_MIN`] characters.
    #[must_use]
    pub fn is_short(text: &str) -> bool {
        decode_hex(text).is_none() && text.chars().count() < SECRET_CHARS_MIN
    }

    /// Wraps what the node keeps on disk.
    #[must_use]
    pub fn state_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*Fields::new(Context::StateKey).bytes(&self.0).digest().as_bytes())
    }
}

/// A node's signing key.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// Derives the key from the node's secret.
    #[must_use]
    pub fn from_secret(secret: &NodeSecret) -> Self {
        let seed = Zeroizing::new(Fields::new(Context::Identity).bytes(&secret.0).digest().0);
        Self { key: SigningKey::from_bytes(&seed) }
    }

    /// The public half.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        PeerId(self.key.verifying_key().to_bytes())
    }

    /// Signs a digest of [`crate::signing`], whose context says what is signed.
    #[must_use]
    pub fn sign(&self, digest: &Digest) -> Signature {
        Signature(self.key.sign(&digest.0).to_bytes())
    }

    /// The seed of the ed25519 key, for a transport that authenticates links with the same identity.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer().short())
    }
}

/// The secret half of a round key: drawn at every process start and at least daily, kept in memory only.
#[derive(Clone)]
pub struct RoundSecret {
    key: StaticSecret,
}

impl RoundSecret {
    /// From 32 random bytes.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { key: StaticSecret::from(seed) }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_dalek::PublicKey::from(&self.key).to_bytes())
    }

    /// X25519 with a peer's public key; `None` if that key is of small order, so that the result would be zero.
    #[must_use]
    pub fn agree(&self, peer: &PublicKey) -> Option<Zeroizing<[u8; 32]>> {
        let shared = self.key.diffie_hellman(&x25519_dalek::PublicKey::from(peer.0));
        shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
    }
}

impl fmt::Debug for RoundSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoundSecret({:?})", self.public())
    }
}

/// What the servers of a committee share. Whoever knows it may become a server.
#[derive(Clone)]
pub struct CommitteeSecret([u8; 32]);

secret!(CommitteeSecret);

impl CommitteeSecret {
    /// From 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// 64 hexadecimal digits are decoded. Any other text is hashed and then stretched for this instance, see
    /// [`Stretch`]: a [`GroupId`] is public, and must not be a fast way to try passwords.
    #[must_use]
    pub fn from_text(text: &str, instance: &Instance) -> Self {
        decode_hex(text).map_or_else(|| Self(Stretch::of(Context::CommitteeStretch, text, instance)), Self)
    }

    /// Whether the text can be guessed: not 64 hexadecimal digits, and shorter than [`SECRET_CHARS_MIN`] characters.
    #[must_use]
    pub fn weak(text: &str) -> bool {
        NodeSecret::is_short(text)
    }

    /// The committee that this secret makes in an instance. Independent of who its members are.
    #[must_use]
    pub fn group_id(&self, instance: &Instance, signature: &Digest) -> GroupId {
        let mut fields = Fields::new(Context::GroupId);
        fields.bytes(&instance.committee().0).bytes(&self.0).bytes(&signature.0);
        GroupId(fields.digest().0)
    }

    /// What `prover` sends to `verifier` over one link, to show that it knows the secret without showing it. `exporter`
    /// is the link's exported keying material, so that the proof is worth nothing on another link; `role` is what the
    /// prover claims to be.
    #[must_use]
    pub fn group_proof(
        &self,
        exporter: &[u8; 32],
        role: Role,
        prover: &PeerId,
        verifier: &PeerId,
    ) -> [u8; 32] {
        let key = Zeroizing::new(Fields::new(Context::GroupProof).bytes(&self.0).digest().0);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(exporter).update(&[role.code()]).update(&prover.0).update(&verifier.0);
        *hasher.finalize().as_bytes()
    }

    /// Whether `proof` is the [`Self::group_proof`] of `prover` towards `verifier`; in constant time.
    #[must_use]
    pub fn check_group_proof(
        &self,
        exporter: &[u8; 32],
        role: Role,
        prover: &PeerId,
        verifier: &PeerId,
        proof: &[u8; 32],
    ) -> bool {
        self.group_proof(exporter, role, prover, verifier).ct_eq(proof).into()
    }
}
