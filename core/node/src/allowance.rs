//! How much of one peer a node takes and answers in a while, whatever the peer sends.
//!
//! Honest nodes stay far below; what is beyond is dropped, and asked or told again by whoever was honest.

use core::time::Duration;
use std::collections::BTreeMap;

use zipnet_core::id::PeerId;
use zipnet_core::time::Time;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// A ping was answered.
    Ping,
    /// A request for peer entries was answered.
    PeersWanted,
    /// The peer told of itself, or of one that matters.
    Member,
    /// The peer told of another one.
    Stranger,
}

/// So much at once, and one more after each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once. At least one.
    pub most: u32,
    /// Until one more is allowed.
    pub every: Duration,
}

/// What each peer has left of its allowance. A peer that has done nothing for a while takes no room.
#[derive(Clone, Debug, Default)]
pub struct Allowances(BTreeMap<(PeerId, Deed), Spent>);

/// How much was taken, as of a moment from which it is paid back.
#[derive(Clone, Copy, Debug)]
struct Spent {
    count: u32,
    since: Time,
    /// When nothing of it is left.
    over: Time,
}

impl Allowances {
    /// Nobody has done anything yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Whether the peer may do this once more, and counts it if so.
    pub fn take(&mut self, now: Time, peer: PeerId, deed: Deed, rate: Rate) -> bool {
        let fresh = Spent { count: 0, since: now, over: now };
        let spent = self.0.entry((peer, deed)).or_insert(fresh);
        while spent.count > 0 && spent.since.after(rate.every) <= now {
            spent.count = spent.count.saturating_sub(1);
            spent.since = spent.since.after(rate.every);
        }
        if spent.count == 0 {
            spent.since = now;
        }
        if spent.count >= rate.most.max(1) {
            return false;
        }
        spent.count = spent.count.saturating_add(1);
        spent.over = spent.since.after(rate.every.saturating_mul(spent.count));
        true
    }

    /// Forgets peers whose allowance is whole again.
    pub fn expire(&mut self, now: Time) {
        self.0.retain(|_, spent| spent.over > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { most: 3, every: Duration::from_secs(1) };

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn at(millis: u64) -> Time {
        Time(millis * 1_000_000)
    }

    #[test]
    fn so_much_is_allowed_at_once_and_then_in_its_time() {
        let mut allowances = Allowances::new();
        let mut take = |now| allowances.take(now, peer(1), Deed::Ping, RATE);
        assert_eq!([take(at(0)), take(at(0)), take(at(0)), take(at(0))], [true, true, true, false]);
        assert!(!take(at(999)));
        assert!(take(at(1000)) && !take(at(1000)));
        // Two intervals have gone by, not more.
        assert!(take(at(3500)) && take(at(3500)) && !take(at(3500)));
        assert_eq!(
            [take(at(60_000)), take(at(60_000)), take(at(60_000)), take(at(60_000))],
            [true, true, true, false]
        );
    }

    #[test]
    fn peers_and_deeds_are_counted_apart_and_a_new_connection_changes_nothing() {
        let mut allowances = Allowances::new();
        for _ in 0..3 {
            assert!(allowances.take(at(0), peer(1), Deed::Ping, RATE));
        }
        assert!(!allowances.take(at(0), peer(1), Deed::Ping, RATE));
        assert!(allowances.take(at(0), peer(1), Deed::PeersWanted, RATE));
        assert!(allowances.take(at(0), peer(2), Deed::Ping, RATE));
    }

    #[test]
    fn who_has_done_nothing_for_a_while_is_forgotten_and_nobody_earlier() {
        let mut allowances = Allowances::new();
        for number in 0..200 {
            allowances.take(at(0), peer(number), Deed::Ping, RATE);
            allowances.take(at(0), peer(number), Deed::Ping, RATE);
        }
        allowances.expire(at(1999));
        assert_eq!(allowances.0.len(), 200);
        allowances.expire(at(2000));
        assert_eq!(allowances.0.len(), 0);
    }
}
