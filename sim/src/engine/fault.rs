//! What goes wrong now and then.

use core::time::Duration;
use std::collections::BTreeMap;

use zipnet_core::time::Time;
use zipnet_scenarios::Scenario;
use zipnet_scenarios::node::{NodeRef, Which};
use zipnet_scenarios::value::{Span, Spread};
use zipnet_scenarios::verbs::FaultDo;
use zipnet_scenarios::words::DiskFate;

use crate::cluster::{Cluster, Hint, NodeId};
use crate::disk::Crash;
use crate::firing::{self, Firing};
use crate::random::Random;
use crate::wires::Hindrance;

/// How many disk operations a machine may still make after its power began to fail, at most.
pub(super) const ARMED_MAX: u64 = 24;
/// How long it may take, at most.
const ARMED: Duration = Duration::from_millis(600);

/// All faults of a run.
#[derive(Debug)]
pub(super) struct Faults {
    faults: Vec<Firing<Trouble>>,
    random: Random,
}

/// A node that a fault has in its hold.
pub(super) type Hold = firing::Hold<Trouble>;

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
        Self { faults: scenario.faults.iter().map(Firing::new).collect(), random: random.fork("faults") }
    }

    /// A step begins, or the last one has ended: faults of other steps end, those of this one begin. Says whether
    /// anything was let go.
    pub(super) fn turn(&mut self, cluster: &mut Cluster, step: Option<&str>) -> bool {
        let now = cluster.simulation.now();
        let mut changed = false;
        for active in &mut self.faults {
            for hold in active.turn(now, step, &mut self.random) {
                changed = true;
                release(cluster, &hold);
            }
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
            for hold in active.over(now, &mut self.random) {
                changed = true;
                release(cluster, &hold);
            }
            if active.fires(now, &mut self.random) {
                changed |= active.fire(cluster, &mut self.random, now, &held_by_others);
            }
        }
        changed
    }

    /// When something is due.
    pub(super) fn due(&self) -> Time {
        let end = |hold: &Hold| match hold.trouble {
            Trouble::Dying { by, .. } => by.min(hold.ends),
            _ => hold.ends,
        };
        let ends = |active: &Firing<Trouble>| active.holds.iter().map(end).min().unwrap_or(Time::NEVER);
        self.faults.iter().map(|active| active.due().min(ends(active))).min().unwrap_or(Time::NEVER)
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

impl Firing<Trouble> {
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
