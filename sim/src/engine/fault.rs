//! What goes wrong now and then.

use core::time::Duration;
use std::collections::BTreeMap;

use zipnet_core::time::Time;
use zipnet_scenarios::Scenario;
use zipnet_scenarios::node::{NodeRef, Which};
use zipnet_scenarios::scenario::Fault;
use zipnet_scenarios::value::{Span, Spread};
use zipnet_scenarios::verbs::FaultDo;
use zipnet_scenarios::words::DiskFate;

use crate::cluster::{Cluster, Hint, NodeId};
use crate::disk::Crash;
use crate::random::Random;
use crate::wires::Hindrance;

/// How many disk operations a machine may still make after its power began to fail, at most.
pub(super) const ARMED_MAX: u64 = 24;
/// How long it may take, at most.
const ARMED: Duration = Duration::from_millis(600);

/// All faults of a run.
#[derive(Debug)]
pub(super) struct Faults {
    faults: Vec<Active>,
    random: Random,
}

#[derive(Debug)]
struct Active {
    fault: Fault,
    fired: u64,
    /// Its time runs.
    on: bool,
    /// When it fires next, unless it holds as many nodes as it may.
    next: Time,
    /// How often it may still fire in this step, if that is limited.
    left: Option<u64>,
    holds: Vec<Hold>,
}

/// A node that a fault has in its hold.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) node: NodeId,
    ends: Time,
    pub(super) trouble: Trouble,
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Its power is about to fail, at one of its next disk operations, or at this moment at the latest.
    Dying {
        /// What the failure leaves of its disk.
        disk: Crash,
        by: Time,
    },
    /// It is down.
    Down,
    /// Its paths are cut or bad.
    Hindered(Hindrance),
    /// It is frozen.
    Paused,
}

impl Faults {
    pub(super) fn new(scenario: &Scenario, random: &Random) -> Self {
        let active = |fault: &Fault| Active {
            fault: fault.clone(),
            fired: 0,
            on: false,
            next: Time::NEVER,
            left: None,
            holds: Vec::new(),
        };
        Self { faults: scenario.faults.iter().map(active).collect(), random: random.fork("faults") }
    }

    /// A step begins, or the last one has ended: faults of other steps end, those of this one begin. Says whether
    /// anything was let go.
    pub(super) fn turn(&mut self, cluster: &mut Cluster, step: Option<&str>) -> bool {
        let now = cluster.simulation.now();
        let mut changed = false;
        for active in &mut self.faults {
            let during = &active.fault.during;
            let on = step.is_some_and(|step| during.is_empty() || during.iter().any(|id| id.0 == step));
            let spent = active.is_spent();
            active.left = active.fault.times;
            if on && (!active.on || spent) {
                active.next = now.after(exponential(&mut self.random, mean_gap(&active.fault.act)));
            } else if active.on && !on {
                changed |= !active.holds.is_empty();
                for hold in active.holds.drain(..) {
                    release(cluster, &hold);
                }
            }
            active.on = on;
        }
        changed
    }

    /// All faults are over.
    pub(super) fn end(&mut self, cluster: &mut Cluster) {
        self.turn(cluster, None);
    }

    /// Lets go what is over and fires what is due. Says whether anything happened.
    pub(super) fn drive(&mut self, cluster: &mut Cluster, now: Time) -> bool {
        let mut changed = false;
        for place in 0..self.faults.len() {
            let held_by_others: Vec<_> = self.held_except(place);
            let Some(active) = self.faults.get_mut(place) else { continue };
            changed |= active.power(cluster, now);
            let full = active.is_full();
            let (over, kept): (Vec<_>, Vec<_>) = active.holds.drain(..).partition(|hold| hold.ends <= now);
            active.holds = kept;
            for hold in &over {
                changed = true;
                release(cluster, hold);
            }
            if full && !active.is_full() {
                active.next = now.after(exponential(&mut self.random, mean_gap(&active.fault.act)));
            }
            if !active.is_ready() || active.next > now {
                continue;
            }
            active.next = now.after(exponential(&mut self.random, mean_gap(&active.fault.act)));
            changed |= active.fire(cluster, &mut self.random, now, &held_by_others);
        }
        changed
    }

    /// When something is due.
    pub(super) fn due(&self) -> Time {
        let next = |active: &Active| if active.is_ready() { active.next } else { Time::NEVER };
        let end = |hold: &Hold| match hold.trouble {
            Trouble::Dying { by, .. } => by.min(hold.ends),
            _ => hold.ends,
        };
        let ends = |active: &Active| active.holds.iter().map(end).min().unwrap_or(Time::NEVER);
        self.faults.iter().map(|active| next(active).min(ends(active))).min().unwrap_or(Time::NEVER)
    }

    /// Everything that is held.
    pub(super) fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.faults.iter().flat_map(|active| &active.holds)
    }

    /// A step takes a node into its own hands: it is neither frozen nor about to be stopped or started any more.
    pub(super) fn let_go(&mut self, cluster: &mut Cluster, node: NodeId) {
        for active in &mut self.faults {
            let (taken, kept): (Vec<_>, Vec<_>) = active.holds.drain(..).partition(|hold| {
                let held = matches!(hold.trouble, Trouble::Dying { .. } | Trouble::Down | Trouble::Paused);
                hold.node == node && held
            });
            active.holds = kept;
            for hold in taken {
                match hold.trouble {
                    // What has failed stays failed.
                    Trouble::Dying { disk, .. } if cluster.host(node).is_frozen() => {
                        cluster.crash(node, disk)
                    }
                    Trouble::Dying { .. } => cluster.host(node).platter().disarm(),
                    Trouble::Paused => cluster.host(node).resume(),
                    Trouble::Down | Trouble::Hindered(_) => {}
                }
            }
        }
    }

    /// How often a fault fired.
    pub(super) fn fired(&self, id: &str) -> u64 {
        self.faults.iter().find(|active| active.fault.id == id).map_or(0, |active| active.fired)
    }

    /// How often each fault fired.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.faults.iter().map(|active| (active.fault.id.clone(), active.fired)).collect()
    }

    /// Nodes that other faults have stopped or frozen.
    fn held_except(&self, place: usize) -> Vec<NodeId> {
        let others = self.faults.iter().enumerate().filter(|(other, _)| *other != place);
        let holds = others.flat_map(|(_, active)| &active.holds);
        holds
            .filter(|hold| matches!(hold.trouble, Trouble::Dying { .. } | Trouble::Down | Trouble::Paused))
            .map(|hold| hold.node)
            .collect()
    }
}

impl Active {
    fn is_full(&self) -> bool {
        u64::try_from(self.holds.len()).unwrap_or(u64::MAX) >= self.fault.at_once
    }

    /// Whether it has fired as often as it may in this step.
    fn is_spent(&self) -> bool {
        self.left == Some(0)
    }

    /// Whether it fires once its time has come.
    fn is_ready(&self) -> bool {
        self.on && !self.is_full() && !self.is_spent()
    }

    /// It has fired.
    fn count(&mut self) {
        self.fired += 1;
        self.left = self.left.map(|left| left.saturating_sub(1));
    }

    fn fire(
        &mut self,
        cluster: &mut Cluster,
        random: &mut Random,
        now: Time,
        held_by_others: &[NodeId],
    ) -> bool {
        let target = match &self.fault.act {
            FaultDo::Crash { target, .. }
            | FaultDo::Partition { target, .. }
            | FaultDo::Slow { target, .. }
            | FaultDo::Lossy { target, .. }
            | FaultDo::Pause { target, .. }
            | FaultDo::Clock { target, .. } => target,
        };
        let mut candidates = candidates(cluster, target);
        candidates.retain(|node| {
            !self.holds.iter().any(|hold| hold.node == *node) && !held_by_others.contains(node)
        });
        let Some(node) = random.pick(&candidates).copied() else { return false };
        let mut lasting =
            |spread: &Spread<Span>| now.after(spread.draw(&mut |bound| random.below(bound)).duration());
        let (ends, trouble) = match &self.fault.act {
            FaultDo::Crash { down, disk, .. } => {
                let ends = lasting(down);
                // Power fails in the middle of a write as well as between two.
                let operations = random.range(0, ARMED_MAX);
                if operations > 0 {
                    cluster.host(node).platter().arm(operations);
                }
                let by = if operations > 0 { now.after(ARMED) } else { now };
                (ends.after(by.since(now)), Trouble::Dying { disk: fate(*disk), by })
            }
            FaultDo::Partition { lasts, one_way, .. } => {
                (lasting(lasts), Trouble::Hindered(Hindrance::CutOff { one_way: *one_way }))
            }
            FaultDo::Slow { lasts, latency, .. } => {
                (lasting(lasts), Trouble::Hindered(Hindrance::slow(latency)))
            }
            FaultDo::Lossy { lasts, loss, .. } => (lasting(lasts), Trouble::Hindered(Hindrance::lossy(loss))),
            FaultDo::Pause { lasts, .. } => {
                let ends = lasting(lasts);
                cluster.host(node).pause();
                (ends, Trouble::Paused)
            }
            FaultDo::Clock { jump, back, .. } => {
                let seconds = jump.draw(&mut |bound| random.below(bound)).millis() / 1_000;
                let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
                cluster.host(node).clock().jump(if *back { -seconds } else { seconds });
                self.count();
                cluster.simulation.note(&format!("fault {} on {}", self.fault.id, cluster.name(node)));
                return true;
            }
        };
        self.count();
        cluster.simulation.note(&format!("fault {} on {}", self.fault.id, cluster.name(node)));
        self.holds.push(Hold { node, ends, trouble });
        self.power(cluster, now);
        true
    }

    /// Cuts the power of machines whose disk has failed under them, or whose time has come. Says whether it did.
    fn power(&mut self, cluster: &mut Cluster, now: Time) -> bool {
        let mut cut = false;
        for hold in &mut self.holds {
            if let Trouble::Dying { disk, by } = hold.trouble
                && (by <= now || cluster.host(hold.node).is_frozen())
            {
                let early = by.since(now);
                cluster.crash(hold.node, disk);
                hold.trouble = Trouble::Down;
                hold.ends = Time(hold.ends.0.saturating_sub(u64::try_from(early.as_nanos()).unwrap_or(0)));
                cut = true;
            }
        }
        cut
    }
}

/// Nodes that a fault may strike: only those that are up.
fn candidates(cluster: &Cluster, target: &NodeRef) -> Vec<NodeId> {
    let home = cluster.home(target);
    let up = |node: &NodeId| cluster.is_up(*node);
    match target.which {
        Which::Number(_) => cluster.find(target).into_iter().filter(up).collect(),
        Which::Leader => cluster.leader(home).into_iter().collect(),
        Which::Follower => {
            let leader = cluster.leader(home);
            cluster.servers_up(home).into_iter().filter(|node| Some(*node) != leader).collect()
        }
        Which::All | Which::Any | Which::Each | Which::Rest | Which::Target => {
            cluster.of_role(home, target.role).filter(up).collect()
        }
    }
}

fn release(cluster: &mut Cluster, hold: &Hold) {
    match hold.trouble {
        Trouble::Down => {
            if !cluster.is_up(hold.node) && !cluster.is_kept_down(hold.node) {
                cluster.start(hold.node, &Hint::Default);
            }
        }
        Trouble::Paused => cluster.host(hold.node).resume(),
        Trouble::Dying { .. } => cluster.host(hold.node).platter().disarm(),
        Trouble::Hindered(_) => {}
    }
}

/// What a crash leaves of a disk.
pub(super) const fn fate(disk: DiskFate) -> Crash {
    match disk {
        DiskFate::Torn => Crash::Torn,
        DiskFate::Prefix => Crash::Prefix,
        DiskFate::LoseAll => Crash::LoseAll,
        DiskFate::KeepAll => Crash::KeepAll,
    }
}

/// The mean of the time between two firings.
pub(crate) const fn mean_gap(act: &FaultDo) -> Duration {
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
pub(crate) fn exponential(random: &mut Random, mean: Duration) -> Duration {
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
