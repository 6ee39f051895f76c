//! How much of the log one request carries, and how long its reply may take.
//!
//! Entries hold vectors, so a request of a few of them takes a narrow or distant path longer than a heartbeat does. One
//! that is given up before it can have arrived is sent again for nothing, and holds up the next. So a request carries as
//! many bytes as the path has shown that it carries in good time, and a reply is waited for the longer the later the last
//! ones came: both double and halve, as senders on shared paths do (RFC 5681, RFC 6298).

use std::time::Duration;

/// Bytes of the first request to a peer.
const BYTES_START: usize = 64 << 10;
/// A request is not cut into less, and one entry is never cut.
const BYTES_MIN: usize = 16 << 10;
/// A request does not carry more, unless it is one entry.
const BYTES_MAX: usize = 4 << 20;
/// How often the patience doubles.
const DOUBLINGS_MAX: u32 = 6;

/// What the path to a peer has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    bytes: usize,
    doublings: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { bytes: BYTES_START, doublings: 0 }
    }
}

impl Pace {
    /// How many entries of these lengths go into one request: at least one, if there is one.
    pub(super) fn fits(self, lengths: impl Iterator<Item = usize>) -> usize {
        let mut total = 0_usize;
        lengths
            .enumerate()
            .take_while(|(place, len)| {
                total = total.saturating_add(*len);
                *place == 0 || total <= self.bytes
            })
            .count()
    }

    /// How long a reply may take, where one without entries may take `usual`.
    pub(super) fn patience(self, usual: Duration) -> Duration {
        usual * (1 << self.doublings)
    }

    /// A reply to a request with so many bytes of entries came after this time.
    pub(super) fn arrived(&mut self, bytes: usize, took: Duration, usual: Duration) {
        let lasting = (0..DOUBLINGS_MAX).find(|doublings| usual * (1 << doublings) >= took * 2);
        self.doublings = lasting.unwrap_or(DOUBLINGS_MAX);
        let used = bytes >= self.bytes / 2;
        if used && took * 2 <= usual * 3 {
            self.bytes = (self.bytes * 2).min(BYTES_MAX);
        }
    }

    /// The link is gone, and no reply was late: the first one on the next link may take as long as any first one.
    pub(super) fn parted(&mut self) {
        self.doublings = 0;
    }

    /// No reply came in time.
    pub(super) fn late(&mut self) {
        self.bytes = (self.bytes / 2).max(BYTES_MIN);
        self.doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_millis(375);

    #[test]
    fn a_request_holds_what_the_path_carries_and_at_least_one_entry() {
        let pace = Pace::default();
        assert_eq!(pace.fits([BYTES_START, 1].into_iter()), 1);
        assert_eq!(pace.fits([BYTES_START - 1, 1, 1].into_iter()), 2);
        assert_eq!(pace.fits([BYTES_MAX * 2].into_iter()), 1, "one entry is never cut");
        assert_eq!(pace.fits([usize::MAX, usize::MAX].into_iter()), 1);
        assert_eq!(pace.fits([0; 64].into_iter()), 64);
        assert_eq!(pace.fits(std::iter::empty()), 0);
    }

    #[test]
    fn quick_replies_let_requests_grow_and_late_ones_let_them_shrink() {
        let mut pace = Pace::default();
        pace.arrived(100, USUAL / 2, USUAL);
        assert_eq!(pace, Pace::default(), "a small request says nothing about large ones");
        for _ in 0..20 {
            pace.arrived(pace.bytes, USUAL / 2, USUAL);
        }
        assert_eq!((pace.bytes, pace.patience(USUAL)), (BYTES_MAX, USUAL));
        for _ in 0..20 {
            pace.late();
        }
        assert_eq!((pace.bytes, pace.patience(USUAL)), (BYTES_MIN, USUAL * 64));
    }

    #[test]
    fn a_lost_link_takes_the_patience_with_it_and_not_what_the_path_carries() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.late();
        }
        pace.parted();
        assert_eq!((pace.bytes, pace.patience(USUAL)), (BYTES_MIN, USUAL));
    }

    #[test]
    fn patience_settles_at_twice_what_replies_take() {
        let mut pace = Pace::default();
        for _ in 0..3 {
            pace.late();
        }
        pace.arrived(BYTES_MIN, Duration::from_millis(600), USUAL);
        assert_eq!((pace.bytes, pace.patience(USUAL)), (BYTES_MIN, USUAL * 4), "it would be late at less");
        pace.arrived(BYTES_MIN, Duration::from_millis(100), USUAL);
        assert_eq!((pace.bytes, pace.patience(USUAL)), (BYTES_MIN * 2, USUAL));
        pace.arrived(BYTES_MIN, Duration::MAX / 4, USUAL);
        assert_eq!(pace.patience(USUAL), USUAL * 64);
    }
}
