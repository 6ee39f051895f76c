//! What goes wrong now and then.

use core::time::Duration;
use std::collections::BTreeMap;

use zipnet_core::time::Time;
use zipnet_scenarios::Scenario;
use zipnet_scenarios::node::{NodeRef, Which};
use zipnet_scenarios::value::{Span, Spread};
use zipnet_scenarios::verbs::FaultDo;
use zipnet_scenarios::words::DiskFate;

use super::firing::{self, Firing};
use super::{Going, Run};
use crate::cast::{Hint, NodeId};
use crate::random::Random;
use crate::site::Site;
use crate::wires::Hindrance;

/// How many disk operations a machine may still make after its power began to fail, at most.
pub(super) const ARMED_MAX: u64 = 24;
/// How long it may take, at most.
const ARMED: Duration = Duration::from_millis(600);

/// All faults of a run.
#[derive(Debug)]
pub(super) struct Faults {
    active: Vec<Firing<Trouble>>,
    random: Random,
}

/// A node that a fault has in its hold.
type Hold = firing::Hold<Trouble>;

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Its power is about to fail, at one of its next disk operations, or at this moment at the latest.
    Dying {
        /// What the failure leaves of its disk.
        disk: DiskFate,
        by: Time,
    },
    /// It is down.
    Down,
    /// Its paths are cut or bad.
    Hindered(Hindrance),
    /// It is frozen.
    Paused,
}

impl Trouble {
    /// Whether nothing else can be done to the node.
    const fn stops(self) -> bool {
        match self {
            Self::Dying { .. } | Self::Down | Self::Paused => true,
            Self::Hindered(_) => false,
        }
    }
}

impl Faults {
    pub(super) fn new(scenario: &Scenario, random: &Random) -> Self {
        Self { active: scenario.faults.iter().map(Firing::new).collect(), random: random.fork("faults") }
    }

    /// What is drawn from.
    pub(super) const fn stream(&self) -> &Random {
        &self.random
    }

    /// When something is due.
    pub(super) fn due(&self) -> Time {
        let end = |hold: &Hold| match hold.trouble {
            Trouble::Dying { by, .. } => by.min(hold.ends),
            Trouble::Down | Trouble::Hindered(_) | Trouble::Paused => hold.ends,
        };
        let ends = |active: &Firing<Trouble>| active.holds.iter().map(end).min().unwrap_or(Time::NEVER);
        self.active.iter().map(|active| active.due().min(ends(active))).min().unwrap_or(Time::NEVER)
    }

    /// The nodes whose paths are cut or bad.
    pub(super) fn hindered(&self) -> impl Iterator<Item = (NodeId, Hindrance)> {
        self.active.iter().flat_map(|active| &active.holds).filter_map(|hold| match hold.trouble {
            Trouble::Hindered(hindrance) => Some((hold.node, hindrance)),
            Trouble::Dying { .. } | Trouble::Down | Trouble::Paused => None,
        })
    }

    /// How often a fault fired.
    pub(super) fn fired(&self, id: &str) -> u64 {
        self.active.iter().find(|active| active.fault.id == id).map_or(0, |active| active.fired)
    }

    /// How often each fault fired.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.active.iter().map(|active| (active.fault.id.clone(), active.fired)).collect()
    }

    /// Nodes that this fault cannot strike: it has them already, or another one has stopped them.
    fn held_against(&self, place: usize) -> Vec<NodeId> {
        let mut held = Vec::new();
        for (other, active) in self.active.iter().enumerate() {
            let against = active.holds.iter().filter(|hold| other == place || hold.trouble.stops());
            held.extend(against.map(|hold| hold.node));
        }
        held
    }
}

impl<S: Site> Run<'_, S> {
    /// A step begins, or the last one has ended: faults of other steps end, those of this one begin.
    pub(super) fn turn_faults(&mut self, step: Option<&str>) -> Going {
        let now = self.now();
        for place in 0..self.faults.active.len() {
            let faults = &mut self.faults;
            let Some(active) = faults.active.get_mut(place) else { continue };
            let over = active.turn(now, step, &mut faults.random);
            for hold in over {
                self.release(hold)?;
            }
        }
        self.rewire();
        Ok(())
    }

    /// Lets go what is over and fires what is due.
    pub(super) fn drive_faults(&mut self) -> Going {
        let now = self.now();
        let mut changed = false;
        for place in 0..self.faults.active.len() {
            changed |= self.cut_power(place)?;
            let faults = &mut self.faults;
            let Some(active) = faults.active.get_mut(place) else { continue };
            let over = active.over(now, &mut faults.random);
            let fires = active.fires(now, &mut faults.random);
            changed |= fires || !over.is_empty();
            for hold in over {
                self.release(hold)?;
            }
            if fires {
                self.fire(place)?;
            }
        }
        if changed {
            self.rewire();
        }
        Ok(())
    }

    fn fire(&mut self, place: usize) -> Going {
        let Some(fault) = self.faults.active.get(place).map(|active| active.fault.clone()) else {
            return Ok(());
        };
        let target = match &fault.act {
            FaultDo::Crash { target, .. }
            | FaultDo::Partition { target, .. }
            | FaultDo::Slow { target, .. }
            | FaultDo::Lossy { target, .. }
            | FaultDo::Pause { target, .. }
            | FaultDo::Clock { target, .. } => target,
        };
        let held = self.faults.held_against(place);
        let mut candidates = self.candidates(target);
        candidates.retain(|node| !held.contains(node));
        let now = self.now();
        let random = &mut self.faults.random;
        let Some(node) = random.pick(&candidates).copied() else { return Ok(()) };
        let mut lasting =
            |spread: &Spread<Span>| now.after(spread.draw(&mut |bound| random.below(bound)).duration());
        let (ends, trouble) = match &fault.act {
            FaultDo::Crash { down, disk, .. } => {
                let ends = lasting(down);
                // Power fails in the middle of a write as well as between two.
                let operations = random.range(0, ARMED_MAX);
                let dies = operations > 0 && self.site.arm(node, operations);
                let by = if dies { now.after(ARMED) } else { now };
                (ends.after(by.since(now)), Trouble::Dying { disk: *disk, by })
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
                self.site.pause(node);
                (ends, Trouble::Paused)
            }
            FaultDo::Clock { jump, back, .. } => {
                let seconds = jump.draw(&mut |bound| random.below(bound)).millis() / 1_000;
                let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
                if self.site.set_clock(node, if *back { -seconds } else { seconds }) {
                    self.fired(place, node);
                }
                return Ok(());
            }
        };
        self.fired(place, node);
        if let Some(active) = self.faults.active.get_mut(place) {
            active.holds.push(Hold { node, ends, trouble });
        }
        self.cut_power(place)?;
        Ok(())
    }

    fn fired(&mut self, place: usize, node: NodeId) {
        let Some(active) = self.faults.active.get_mut(place) else { return };
        active.count();
        let id = active.fault.id.clone();
        self.site.note(&format!("fault {id} on {}", self.name(node)));
    }

    /// Cuts the power of machines whose disk has failed under them, or whose time has come. Says whether it did.
    fn cut_power(&mut self, place: usize) -> Going<bool> {
        let now = self.now();
        let mut cut = false;
        let holds = self.faults.active.get(place).map_or(0, |active| active.holds.len());
        for held in 0..holds {
            let hold = self.faults.active.get(place).and_then(|active| active.holds.get(held)).copied();
            let Some(Hold { node, ends, trouble: Trouble::Dying { disk, by } }) = hold else { continue };
            if by > now && !self.site.is_frozen(node) {
                continue;
            }
            let early = u64::try_from(by.since(now).as_nanos()).unwrap_or(0);
            self.crash(node, disk)?;
            let ends = Time(ends.0.saturating_sub(early));
            let holds = self.faults.active.get_mut(place).map(|active| &mut active.holds);
            if let Some(hold) = holds.and_then(|holds| holds.get_mut(held)) {
                *hold = Hold { node, ends, trouble: Trouble::Down };
            }
            cut = true;
        }
        Ok(cut)
    }

    /// Nodes that a fault may strike: only those that are up.
    fn candidates(&self, target: &NodeRef) -> Vec<NodeId> {
        let home = self.site.cast().home(target);
        match target.which {
            Which::Number(_) => {
                let node = self.site.cast().find(target);
                node.into_iter().filter(|node| self.site.is_up(*node)).collect()
            }
            Which::Leader => self.leader(home).into_iter().collect(),
            Which::Follower => {
                let leader = self.leader(home);
                self.servers_up(home).into_iter().filter(|node| Some(*node) != leader).collect()
            }
            Which::All | Which::Any | Which::Each | Which::Rest | Which::Target => self.up(home, target.role),
        }
    }

    /// A step takes a node into its own hands: it is neither frozen nor about to be stopped or started any more.
    pub(super) fn let_go(&mut self, node: NodeId) -> Going {
        let mut taken = Vec::new();
        for active in &mut self.faults.active {
            taken.extend(
                active
                    .holds
                    .extract_if(.., |hold| hold.node == node && hold.trouble.stops())
                    .collect::<Vec<_>>(),
            );
        }
        for hold in taken {
            match hold.trouble {
                // What has failed stays failed.
                Trouble::Dying { disk, .. } if self.site.is_frozen(node) => self.crash(node, disk)?,
                Trouble::Dying { .. } => self.site.disarm(node),
                Trouble::Paused => self.site.resume(node),
                Trouble::Down | Trouble::Hindered(_) => {}
            }
        }
        Ok(())
    }

    fn release(&mut self, hold: Hold) -> Going {
        match hold.trouble {
            Trouble::Down if self.site.cast().is_kept_down(hold.node) => {}
            Trouble::Down => self.start(hold.node, &Hint::Default)?,
            Trouble::Paused => self.site.resume(hold.node),
            Trouble::Dying { .. } => self.site.disarm(hold.node),
            Trouble::Hindered(_) => {}
        }
        Ok(())
    }
}
