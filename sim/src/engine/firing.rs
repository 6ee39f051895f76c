//! When a fault strikes, and whom it has in its hold.

use core::time::Duration;

use zipnet_core::time::Time;
use zipnet_scenarios::scenario::Fault;
use zipnet_scenarios::verbs::FaultDo;

use crate::cast::NodeId;
use crate::random::Random;

/// A fault of a scenario at work. What it does to a node is the engine's.
#[derive(Debug)]
pub(crate) struct Firing<T> {
    pub(crate) fault: Fault,
    /// How often it has fired.
    pub(crate) fired: u64,
    /// Its time runs.
    on: bool,
    /// When it fires next, unless it holds as many nodes as it may.
    next: Time,
    /// How often it may still fire in this step, if that is limited.
    left: Option<u64>,
    pub(crate) holds: Vec<Hold<T>>,
}

/// A node that a fault has in its hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold<T> {
    pub(crate) node: NodeId,
    pub(crate) ends: Time,
    /// What is done to it.
    pub(crate) trouble: T,
}

impl<T> Firing<T> {
    pub(crate) fn new(fault: &Fault) -> Self {
        Self { fault: fault.clone(), fired: 0, on: false, next: Time::NEVER, left: None, holds: Vec::new() }
    }

    /// A step begins, or the last one has ended. What this fault is to let go, if it is over with that.
    pub(crate) fn turn(&mut self, now: Time, step: Option<&str>, random: &mut Random) -> Vec<Hold<T>> {
        let during = &self.fault.during;
        let on = step.is_some_and(|step| during.is_empty() || during.iter().any(|id| id.0 == step));
        let (was_on, was_spent) = (self.on, self.is_spent());
        (self.on, self.left) = (on, self.fault.times);
        if on && (!was_on || was_spent) {
            self.plan(now, random);
        }
        if was_on && !on { std::mem::take(&mut self.holds) } else { Vec::new() }
    }

    /// What is to be let go because its time is over.
    pub(crate) fn over(&mut self, now: Time, random: &mut Random) -> Vec<Hold<T>> {
        let was_full = self.is_full();
        let (over, kept): (Vec<_>, Vec<_>) = self.holds.drain(..).partition(|hold| hold.ends <= now);
        self.holds = kept;
        if was_full && !self.is_full() {
            self.plan(now, random);
        }
        over
    }

    /// Whether it fires now.
    pub(crate) fn fires(&mut self, now: Time, random: &mut Random) -> bool {
        let fires = self.due() <= now;
        if fires {
            self.plan(now, random);
        }
        fires
    }

    /// When it fires next.
    pub(crate) fn due(&self) -> Time {
        if self.on && !self.is_full() && !self.is_spent() { self.next } else { Time::NEVER }
    }

    /// It has fired.
    pub(crate) fn count(&mut self) {
        self.fired += 1;
        self.left = self.left.map(|left| left.saturating_sub(1));
    }

    fn plan(&mut self, now: Time, random: &mut Random) {
        self.next = now.after(exponential(random, mean_gap(&self.fault.act)));
    }

    fn is_full(&self) -> bool {
        u64::try_from(self.holds.len()).unwrap_or(u64::MAX) >= self.fault.at_once
    }

    /// Whether it has fired as often as it may in this step.
    fn is_spent(&self) -> bool {
        self.left == Some(0)
    }
}

/// The mean of the time between two firings.
const fn mean_gap(act: &FaultDo) -> Duration {
    match act {
        FaultDo::Crash { mean_gap, .. }
        | FaultDo::Partition { mean_gap, .. }
        | FaultDo::Slow { mean_gap, .. }
        | FaultDo::Lossy { mean_gap, .. }
        | FaultDo::Pause { mean_gap, .. }
        | FaultDo::Clock { mean_gap, .. } => mean_gap.duration(),
    }
}

/// (quantile in permille, thousandths of the mean) of the exponential distribution; linear in between. The longest gap
/// is seven times the mean.
const EXPONENTIAL: [(u64, u64); 15] = [
    (0, 0),
    (100, 105),
    (200, 223),
    (300, 357),
    (400, 511),
    (500, 693),
    (600, 916),
    (700, 1_204),
    (800, 1_609),
    (850, 1_897),
    (900, 2_303),
    (950, 2_996),
    (980, 3_912),
    (990, 4_605),
    (1_000, 7_000),
];

/// Draws a gap with this mean.
fn exponential(random: &mut Random, mean: Duration) -> Duration {
    let drawn = random.below(1_000_000);
    for pair in EXPONENTIAL.windows(2) {
        let [(from, low), (to, high)] = *pair else { continue };
        let (from, to) = (from * 1_000, to * 1_000);
        if drawn < to {
            // Millionths of the mean.
            let share = low * 1_000 + (high - low) * 1_000 * (drawn - from) / (to - from);
            let nanos = mean.as_nanos() * u128::from(share) / 1_000_000;
            return Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        }
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_their_mean() {
        let mut random = Random::new(1);
        let mean = Duration::from_secs(10);
        let total: Duration = (0..10_000).map(|_| exponential(&mut random, mean)).sum();
        let measured = total / 10_000;
        assert!((9_800..10_500).contains(&measured.as_millis()), "{measured:?}");
    }
}
