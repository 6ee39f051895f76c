//! The clients of a log: an ordered, versioned list with a Merkle root, so that a round's header commits to ten
//! thousand clients in 44 bytes and each of them can check its own entry.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::bitmap::{PLACES_MAX, index};
use crate::digest::{Context, Fields};
use crate::id::{Counter, Digest, Epoch, PeerId, RegistryVersion};
use crate::message::{Bundle, ClientSet, Proof};

/// The most clients of one log.
pub const CLIENTS_MAX: u32 = PLACES_MAX;

/// The longest path of a [`Proof`].
pub const PATH_MAX: usize = 18;

const _: () = assert!(1 << PATH_MAX >= CLIENTS_MAX, "a path reaches every client");

/// The registered clients in PeerId order. Cloning is cheap.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "RawRegistry", into = "RawRegistry")]
pub struct ClientRegistry(Arc<Inner>);

struct Inner {
    version: RegistryVersion,
    counter: Counter,
    bundles: Vec<Bundle>,
    /// Leaves first; each next level is half as long, rounded up, and the last has at most one digest.
    levels: Vec<Vec<Digest>>,
}

impl ClientRegistry {
    /// No clients, version and counter zero.
    #[must_use]
    pub fn new() -> Self {
        Self::build(RegistryVersion::default(), Counter::default(), Vec::new(), Vec::new())
    }

    /// A registry as another node sent it. The caller has verified the bundles, or compares [`Self::set`] with one that
    /// the committee signed.
    ///
    /// # Errors
    /// If the bundles are not in rising order of PeerId, each peer once, or are more than [`CLIENTS_MAX`].
    pub fn from_parts(
        version: RegistryVersion,
        counter: Counter,
        bundles: Vec<Bundle>,
    ) -> Result<Self, Disordered> {
        let few = u32::try_from(bundles.len()).is_ok_and(|count| count <= CLIENTS_MAX);
        if !few || !bundles.is_sorted_by(|one, next| one.peer < next.peer) {
            return Err(Disordered);
        }
        let leaves = bundles.iter().map(leaf).collect();
        Ok(Self::build(version, counter, bundles, leaves))
    }

    fn build(version: RegistryVersion, counter: Counter, bundles: Vec<Bundle>, leaves: Vec<Digest>) -> Self {
        let mut levels = Vec::new();
        let mut level = leaves;
        while level.len() > 1 {
            let above = level
                .chunks(2)
                .map(|pair| match pair {
                    [left, right] => node(left, right),
                    // The last of an odd number rises as it is.
                    single => single[0],
                })
                .collect();
            levels.push(core::mem::replace(&mut level, above));
        }
        levels.push(level);
        Self(Arc::new(Inner { version, counter, bundles, levels }))
    }

    /// Applies a change that the committee has verified: `expire` first, each only if the entry still has that epoch,
    /// then `register`, each in place of the peer's older bundle, if any. The version rises by one.
    ///
    /// # Panics
    /// If there would be more than [`CLIENTS_MAX`] clients: see [`Self::has_room`].
    pub fn apply(&mut self, register: &[Bundle], expire: &[(PeerId, Epoch)], counter: Counter) {
        let inner = &self.0;
        let mut expire: Vec<_> = expire.to_vec();
        expire.sort_unstable();
        let mut fresh: Vec<&Bundle> = register.iter().collect();
        // Stable: of several bundles of one peer the last one stays.
        fresh.sort_by_key(|bundle| bundle.peer);
        fresh.reverse();
        fresh.dedup_by_key(|bundle| bundle.peer);

        // `fresh` is in falling order now: its next entry is at its end.
        let capacity = inner.bundles.len().saturating_add(fresh.len());
        let mut bundles = Vec::with_capacity(capacity);
        let mut leaves = Vec::with_capacity(capacity);
        let mut put = |bundle: &Bundle, digest: Digest| {
            bundles.push(bundle.clone());
            leaves.push(digest);
        };
        for (old, digest) in inner.bundles.iter().zip(inner.leaves()) {
            while let Some(new) = fresh.pop_if(|new| new.peer < old.peer) {
                put(new, leaf(new));
            }
            if let Some(new) = fresh.pop_if(|new| new.peer == old.peer) {
                put(new, leaf(new));
            } else if expire.binary_search(&(old.peer, old.epoch)).is_err() {
                put(old, *digest);
            }
        }
        while let Some(new) = fresh.pop() {
            put(new, leaf(new));
        }
        let version = inner.version.next();
        assert!(
            u32::try_from(bundles.len()).is_ok_and(|count| count <= CLIENTS_MAX),
            "whoever applies has asked has_room"
        );
        *self = Self::build(version, counter, bundles, leaves);
    }

    /// Whether so many more clients fit under [`CLIENTS_MAX`].
    #[must_use]
    pub fn has_room(&self, more: usize) -> bool {
        self.0.bundles.len().saturating_add(more) <= index(CLIENTS_MAX)
    }

    /// The version; +1 with each [`Self::apply`].
    #[must_use]
    pub fn version(&self) -> RegistryVersion {
        self.0.version
    }

    /// The counter of the last applied batch.
    #[must_use]
    pub fn counter(&self) -> Counter {
        self.0.counter
    }

    /// How many clients there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.0.bundles.len()).expect("there are at most CLIENTS_MAX clients")
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.bundles.is_empty()
    }

    /// A client's bundle.
    #[must_use]
    pub fn get(&self, client: &PeerId) -> Option<&Bundle> {
        self.position(client).and_then(|place| self.0.bundles.get(place))
    }

    /// A client's place: its bit in the bitmaps of a round over this version.
    #[must_use]
    pub fn index_of(&self, client: &PeerId) -> Option<u32> {
        self.position(client).and_then(|place| u32::try_from(place).ok())
    }

    /// The client at a place.
    #[must_use]
    pub fn at(&self, place: u32) -> Option<(&PeerId, &Bundle)> {
        self.0.bundles.get(index(place)).map(|bundle| (&bundle.peer, bundle))
    }

    /// All clients in PeerId order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&PeerId, &Bundle)> + DoubleEndedIterator {
        self.0.bundles.iter().map(|bundle| (&bundle.peer, bundle))
    }

    /// The bundles in PeerId order: what [`Self::from_parts`] takes.
    #[must_use]
    pub fn bundles(&self) -> &[Bundle] {
        &self.0.bundles
    }

    /// What a header says about this version. The root was computed when the version was made.
    #[must_use]
    pub fn set(&self) -> ClientSet {
        let root = self.0.levels.last().and_then(|top| top.first()).copied().unwrap_or_default();
        ClientSet { version: self.0.version, count: self.len(), root }
    }

    /// A client's entry with its path to the root.
    #[must_use]
    pub fn proof(&self, client: &PeerId) -> Option<Proof> {
        let mut place = self.position(client)?;
        let bundle = self.0.bundles.get(place)?.clone();
        let index = u32::try_from(place).ok()?;
        let mut path = Vec::new();
        for level in &self.0.levels {
            path.extend(level.get(place ^ 1));
            place >>= 1;
        }
        Some(Proof { index, bundle, path })
    }

    fn position(&self, client: &PeerId) -> Option<usize> {
        self.0.bundles.binary_search_by_key(client, |bundle| bundle.peer).ok()
    }
}

impl Inner {
    fn leaves(&self) -> &[Digest] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }
}

impl Default for ClientRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for ClientRegistry {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.counter == other.0.counter && self.set() == other.set())
    }
}

impl Eq for ClientRegistry {}

impl fmt::Debug for ClientRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientRegistry({} at version {})", self.len(), self.0.version.0)
    }
}

impl Proof {
    /// Whether the bundle stands at this place of the set. The set's version is not covered: it comes from the header.
    #[must_use]
    pub fn verify(&self, set: &ClientSet) -> bool {
        if self.index >= set.count || set.count > CLIENTS_MAX || self.path.len() > PATH_MAX {
            return false;
        }
        let mut path = self.path.iter();
        let mut digest = leaf(&self.bundle);
        let (mut place, mut width) = (self.index, set.count);
        while width > 1 {
            if place & 1 == 1 {
                let Some(left) = path.next() else { return false };
                digest = node(left, &digest);
            } else if (place | 1) < width {
                let Some(right) = path.next() else { return false };
                digest = node(&digest, right);
            }
            place >>= 1;
            width = width.div_ceil(2);
        }
        path.next().is_none() && digest == set.root
    }
}

fn leaf(bundle: &Bundle) -> Digest {
    Fields::new(Context::RegistryLeaf).bytes(&bundle.digest().0).signature(&bundle.signature.0).digest()
}

fn node(left: &Digest, right: &Digest) -> Digest {
    Fields::new(Context::RegistryNode).bytes(&left.0).bytes(&right.0).digest()
}

/// The entries are not in rising order, each peer once, or too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disordered;

impl fmt::Display for Disordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accept client registry: entries are not in rising order or exceed {CLIENTS_MAX}")
    }
}

impl core::error::Error for Disordered {}

#[derive(Serialize, Deserialize)]
struct RawRegistry {
    version: RegistryVersion,
    counter: Counter,
    bundles: Vec<Bundle>,
}

impl From<ClientRegistry> for RawRegistry {
    fn from(registry: ClientRegistry) -> Self {
        let Inner { version, counter, ref bundles, levels: _ } = *registry.0;
        Self { version, counter, bundles: bundles.clone() }
    }
}

impl TryFrom<RawRegistry> for ClientRegistry {
    type Error = Disordered;

    fn try_from(raw: RawRegistry) -> Result<Self, Disordered> {
        Self::from_parts(raw.version, raw.counter, raw.bundles)
    }
}
