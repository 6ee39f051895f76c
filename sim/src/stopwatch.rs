//! Measured time: for people who wait, and for runs on real processes. Nothing inside a simulation reads it.

use core::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

#[expect(clippy::disallowed_types, reason = "measures how long a person waits; no run reads it")]
type Instant = std::time::Instant;

/// Time that passed on the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// A stopwatch that starts now.
    #[expect(clippy::disallowed_methods, reason = "measures how long a person waits; no run reads it")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since then.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Lets measured time pass.
#[expect(clippy::disallowed_methods, reason = "waits for real processes; no simulation waits here")]
pub(crate) fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

/// The processor time of the children of this process that have ended; zero where the system does not tell.
pub(crate) fn processor_time_of_children() -> Duration {
    used_by(UsageWho::RUSAGE_CHILDREN)
}

/// The processor time this process used so far, in all its threads; zero where the system does not tell.
pub(crate) fn processor_time() -> Duration {
    used_by(UsageWho::RUSAGE_SELF)
}

fn used_by(who: UsageWho) -> Duration {
    getrusage(who).map_or(Duration::ZERO, |usage| {
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    })
}
