//! How things are digested: a context of its own for every kind, and typed fields. Independent of the wire encoding:
//! [`Fields`] is the whole rule, and a digest covers values, not the bytes they happened to travel in.

use core::fmt;

use zeroize::Zeroize;

use crate::bitmap::Bitmap;
use crate::id::{Digest, LogId, Round};
use crate::params::RoundParams;

/// Defines the table of contexts.
macro_rules! contexts {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Every hash, MAC and signature of the protocol has a context string of its own: blake3's key derivation mode
        /// keeps what was computed under one from meaning anything under another. This is the one table of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Context {
            $($(#[$doc])* $name,)*
        }

        impl Context {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The string.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

contexts! {
    /// Node secret to ed25519 seed.
    Identity = "zipnet v1 identity key",
    /// Node secret to the key of state at rest.
    StateKey = "zipnet v1 state key",
    /// Beginning of argon2id's salt for a node secret that is a text.
    NodeStretch = "zipnet v1 node secret",
    /// The same for a committee secret.
    CommitteeStretch = "zipnet v1 committee secret",
    /// The committee's identifier.
    GroupId = "zipnet v1 group id",
    /// Committee secret to the key of group proofs.
    GroupProof = "zipnet v1 group proof",
    /// What two servers must share.
    MachineSignature = "zipnet v1 machine signature",
    /// X25519 result to pair key.
    PairKey = "zipnet v1 pair key",
    /// Header and slot to tag key.
    SlotTag = "zipnet v1 slot tag",
    /// State of the committee machine.
    State = "zipnet v1 committee state",
    /// A command entry behind those before it.
    Chain = "zipnet v1 log chain",
    /// A vector or other long bytes, inside of what is digested.
    Vector = "zipnet v1 vector",
    /// Leaf of the client registry's tree.
    RegistryLeaf = "zipnet v1 registry leaf",
    /// Inner node of the client registry's tree.
    RegistryNode = "zipnet v1 registry node",
    /// Generator to the generator of one concern.
    RandomFork = "zipnet v1 random fork",
    /// Generator's key and fresh randomness to the next key.
    RandomStir = "zipnet v1 random stir",
    /// Generator's key to the next key and output.
    RandomStep = "zipnet v1 random step",
    /// [`crate::message::Bundle`], signed.
    Bundle = "zipnet v1 bundle",
    /// [`crate::message::Boot`], signed by the boot key.
    Boot = "zipnet v1 boot",
    /// [`crate::message::Header`].
    Header = "zipnet v1 round header",
    /// [`crate::message::HeaderSignature`], signed.
    HeaderSignature = "zipnet v1 header signature",
    /// [`crate::message::Envelope`], signed.
    Envelope = "zipnet v1 envelope",
    /// [`crate::message::Aggregate`], signed.
    Aggregate = "zipnet v1 aggregate",
    /// [`crate::message::Partial`], signed.
    Partial = "zipnet v1 partial",
    /// [`crate::message::Record`].
    Record = "zipnet v1 broadcast record",
    /// [`crate::message::RecordSignature`], signed.
    RecordSignature = "zipnet v1 record signature",
    /// [`crate::message::Disclaimer`], signed.
    Disclaimer = "zipnet v1 disclaimer",
    /// [`crate::message::Announcement`], signed.
    Announcement = "zipnet v1 server announcement",
    /// [`crate::message::Testimony`], signed.
    Testimony = "zipnet v1 dead server testimony",
    /// [`crate::message::Approval`], signed.
    Approval = "zipnet v1 aggregator approval",
    /// [`crate::message::ClientBatch`], signed.
    ClientBatch = "zipnet v1 client batch",
    /// [`crate::message::ClientRefusal`], signed.
    ClientRefusal = "zipnet v1 client refusal",
    /// The disk of a voter of a log that was set aside, in the log that takes its place, which is `zipnet_node`'s.
    FounderStore = "zipnet v1 founder store",
    /// Where a peer is reached, signed: an entry of the address book, which is `zipnet_node`'s.
    PeerEntry = "zipnet v1 peer entry",
    /// What a release key signs: which images are admitted, which is `zipnet_tdx`'s.
    ReleaseManifest = "zipnet v1 release manifest",
    /// What stands first in the SHA-512 digest that a quote carries, which is `zipnet_tdx`'s.
    ReportData = "zipnet v1 report data",
}

/// What is left out of bitmaps.
const ZEROS: [u8; 1024] = [0; 1024];

/// Feeds typed fields into blake3's key derivation mode. Numbers are little-endian and of fixed width, identifiers are
/// their bytes, anything of variable length is preceded by its length: two different lists of fields never give the
/// same bytes.
pub struct Fields(blake3::Hasher);

impl Fields {
    /// Starts a digest of the given kind.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self(blake3::Hasher::new_derive_key(context.text()))
    }

    /// One byte.
    pub fn byte(&mut self, value: u8) -> &mut Self {
        self.0.update(&[value]);
        self
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.update(&value.to_le_bytes());
        self
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.update(&value.to_le_bytes());
        self
    }

    /// Bytes of a length that the kind of digest fixes, as they are.
    pub fn bytes(&mut self, value: &[u8; 32]) -> &mut Self {
        self.0.update(value);
        self
    }

    /// A number of entries, as eight bytes.
    pub fn count(&mut self, value: usize) -> &mut Self {
        self.u64(u64::try_from(value).expect("a usize has at most 64 bits"))
    }

    /// Bytes of any length: their number as eight bytes, and their digest under [`Context::Vector`]. The digest of a
    /// long vector by itself takes less than half the time that it takes behind other fields, where it would begin in the
    /// middle of one of blake3's chunks.
    pub fn vector(&mut self, value: &[u8]) -> &mut Self {
        let mut hasher = blake3::Hasher::new_derive_key(Context::Vector.text());
        self.count(value.len()).bytes(hasher.update(value).finalize().as_bytes())
    }

    /// The number of places as four bytes, then all bytes of the bits, whose number follows from it.
    pub fn bitmap(&mut self, value: &Bitmap) -> &mut Self {
        self.u32(value.len());
        self.0.update(value.as_bytes());
        let mut omitted = value.omitted();
        while omitted > 0 {
            let zeros = omitted.min(ZEROS.len());
            self.0.update(&ZEROS[..zeros]);
            omitted = omitted.saturating_sub(zeros);
        }
        self
    }

    /// The 64 bytes of a signature.
    pub fn signature(&mut self, value: &[u8; 64]) -> &mut Self {
        self.0.update(value);
        self
    }

    /// Number of slots, bytes of a slot and bytes of a tag, four bytes each.
    pub fn params(&mut self, value: &RoundParams) -> &mut Self {
        let narrow = |bytes: usize| u32::try_from(bytes).expect("parameters are made of 32-bit numbers");
        self.u32(value.num_slots()).u32(narrow(value.slot_bytes())).u32(narrow(value.tag_len()))
    }

    /// Log, round and header digest: what most signatures begin with.
    pub(crate) fn place(&mut self, log: &LogId, round: Round, header: &Digest) -> &mut Self {
        self.bytes(&log.0).u64(round.0).bytes(&header.0)
    }

    /// The digest of all fields so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl Drop for Fields {
    /// Keys are derived through this type as well.
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fields(..)")
    }
}

/// The chain over the command entries of a log, with one more entry: its position and its bytes.
#[must_use]
pub fn chain_digest(chain: &Digest, index: u64, entry: &[u8]) -> Digest {
    Fields::new(Context::Chain).bytes(&chain.0).u64(index).vector(entry).digest()
}

/// The digest of the committee machine's state, which the machine has written as bytes.
#[must_use]
pub fn state_digest(state: &[u8]) -> Digest {
    Fields::new(Context::State).vector(state).digest()
}
