//! Monotonic time as a number that the driver passes in.

use core::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds since a moment that the driver chose, for example the start of the process. Never a calendar time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// Later than every moment that happens.
    pub const NEVER: Self = Self(u64::MAX);

    /// This moment plus `duration`; [`Time::NEVER`] where that does not fit.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
