//! Things that are tried again and again until what they are for shows.

use core::time::Duration;

use crate::time::Time;

/// The longest wait between two tries of something large, in waits between two of something small.
const WAITS_MAX: u32 = 4;

/// When something is tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) due: Time,
    pub(crate) attempts: u32,
}

impl Retry {
    /// First at this moment.
    pub(crate) const fn at(due: Time) -> Self {
        Self { due, attempts: 0 }
    }

    /// It was tried: again after `wait`.
    pub(crate) fn again(&mut self, now: Time, wait: Duration) {
        self.due = now.after(wait);
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Something that holds a vector was tried: again after `wait`, then after twice as long, and so on up to four times
    /// as long. A narrow path on which it is still under way would carry nothing else.
    pub(crate) fn back_off(&mut self, now: Time, wait: Duration) {
        let waits = 1_u32.checked_shl(self.attempts).map_or(WAITS_MAX, |waits| waits.clamp(1, WAITS_MAX));
        self.again(now, wait.saturating_mul(waits));
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn what_is_large_waits_longer_each_time_and_never_too_long() {
        let (mut retry, wait) = (Retry::at(Time(5)), Duration::from_secs(1));
        let mut waits = Vec::new();
        for _ in 0..40 {
            let now = retry.due;
            retry.back_off(now, wait);
            waits.push(retry.due.since(now).as_secs());
        }
        assert_eq!(waits[..5], [1, 2, 4, 4, 4]);
        assert!(waits[5..].iter().all(|wait| *wait == 4), "{waits:?}");
        let now = retry.due;
        retry.again(now, wait);
        assert_eq!((retry.due.since(now), retry.attempts), (wait, 41));
    }
}
