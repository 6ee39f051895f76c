//! Which seeds a scenario runs with, and which of its runs are made twice.

use core::ops::RangeInclusive;

/// Which seeds were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// None in particular: [`DEFAULT_SEEDS`] for a sweep, up to [`HUNT_SEEDS`] for a canary.
    Default,
    /// A single one. What must happen in some seed is not judged.
    One(u64),
    /// These.
    Sweep(Seeds),
}

/// How many seeds a scenario is run with.
pub(crate) const DEFAULT_SEEDS: u64 = 20;

/// Within how many seeds a planted defect must be found.
pub(crate) const HUNT_SEEDS: u64 = 50;

/// Consecutive seeds; possibly none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seeds {
    /// Not a single one.
    None,
    /// From the first to the last, both included.
    Through {
        /// The first seed.
        first: u64,
        /// The last seed, not below the first.
        last: u64,
    },
}

/// One of several equal shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// Which one, counted from zero.
    pub(crate) index: u64,
    /// Of how many; at least one.
    pub(crate) count: u64,
}

/// A share in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permille(pub(crate) u16);

impl Seeds {
    /// The first `count` seeds.
    pub(crate) const fn count(count: u64) -> Self {
        match count.checked_sub(1) {
            Some(last) => Self::Through { first: 0, last },
            None => Self::None,
        }
    }

    /// The range, if there is a seed in it.
    pub(crate) const fn range(self) -> Option<RangeInclusive<u64>> {
        match self {
            Self::None => None,
            Self::Through { first, last } => Some(first..=last),
        }
    }
}
