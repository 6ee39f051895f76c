//! What goes wrong now and then, as far as processes are concerned.

use std::collections::BTreeMap;

use zipnet_core::time::Time;
use zipnet_scenarios::Scenario;
use zipnet_scenarios::node::{NodeRef, Which};
use zipnet_scenarios::value::{Span, Spread};
use zipnet_scenarios::verbs::FaultDo;

use super::cluster::Hint;
use super::{Going, Run};
use crate::cluster::NodeId;
use crate::firing::{self, Firing};
use crate::random::Random;
use crate::wires::Hindrance;

/// The faults of a run that can be made.
#[derive(Debug)]
pub(super) struct Faults {
    active: Vec<Firing<Trouble>>,
    random: Random,
}

type Hold = firing::Hold<Trouble>;

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It is down.
    Down,
    /// It is frozen.
    Paused,
    /// Its paths are cut or bad.
    Hindered(Hindrance),
}

impl Faults {
    /// The faults of a scenario, and those of them that are left out, each with its verb.
    pub(super) fn new(scenario: &Scenario, random: &Random) -> (Self, Vec<String>) {
        let (made, left_out): (Vec<_>, Vec<_>) =
            scenario.faults.iter().partition(|fault| is_controlled(&fault.act));
        let active = made.into_iter().map(Firing::new);
        let faults = Self { active: active.collect(), random: random.fork("faults") };
        let names = left_out.iter().map(|fault| format!("the fault {} ({})", fault.id, fault.act.verb()));
        (faults, names.collect())
    }

    /// How often each fault fired.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.active.iter().map(|active| (active.fault.id.clone(), active.fired)).collect()
    }

    /// The nodes whose paths are cut or bad.
    pub(super) fn hindered(&self) -> impl Iterator<Item = (NodeId, Hindrance)> {
        self.active.iter().flat_map(|active| &active.holds).filter_map(|hold| match hold.trouble {
            Trouble::Hindered(hindrance) => Some((hold.node, hindrance)),
            Trouble::Down | Trouble::Paused => None,
        })
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

    /// When something is due.
    pub(super) fn due(&self) -> Time {
        let ends =
            |active: &Firing<Trouble>| active.holds.iter().map(|hold| hold.ends).min().unwrap_or(Time::NEVER);
        self.active.iter().map(|active| active.due().min(ends(active))).min().unwrap_or(Time::NEVER)
    }
}

impl Trouble {
    /// Whether nothing else can be done to the node.
    const fn stops(self) -> bool {
        match self {
            Self::Down | Self::Paused => true,
            Self::Hindered(_) => false,
        }
    }
}

impl Run<'_> {
    /// A step begins, or the last one has ended: faults of other steps end, those of this one begin.
    pub(super) fn turn_faults(&mut self, step: Option<&str>) -> Going {
        let now = self.now();
        let mut over = Vec::new();
        let faults = &mut self.faults;
        for active in &mut faults.active {
            over.extend(active.turn(now, step, &mut faults.random));
        }
        self.rewire();
        over.into_iter().try_for_each(|hold| self.release(hold))
    }

    /// Makes the network as steps and faults want it.
    pub(super) fn rewire(&mut self) {
        self.cluster.relay.set(self.wires.paths(self.faults.hindered()));
    }

    /// Lets go what is over and fires what is due.
    pub(super) fn drive_faults(&mut self) -> Going {
        let now = self.now();
        for place in 0..self.faults.active.len() {
            let held = self.faults.held_against(place);
            let Some(active) = self.faults.active.get_mut(place) else { continue };
            let over = active.over(now, &mut self.faults.random);
            let fires = active.fires(now, &mut self.faults.random);
            if !over.is_empty() {
                self.rewire();
            }
            for hold in over {
                self.release(hold)?;
            }
            if fires {
                self.fire(place, &held)?;
            }
        }
        Ok(())
    }

    fn fire(&mut self, place: usize, held: &[NodeId]) -> Going {
        let Some(fault) = self.faults.active.get(place).map(|active| active.fault.clone()) else {
            return Ok(());
        };
        let (target, span) = match &fault.act {
            FaultDo::Crash { target, down, .. } => (target, down),
            FaultDo::Pause { target, lasts, .. }
            | FaultDo::Partition { target, lasts, .. }
            | FaultDo::Slow { target, lasts, .. }
            | FaultDo::Lossy { target, lasts, .. } => (target, lasts),
            FaultDo::Clock { .. } => return Ok(()),
        };
        let mut candidates = self.candidates(target);
        candidates.retain(|node| !held.contains(node));
        let Some(node) = self.faults.random.pick(&candidates).copied() else { return Ok(()) };
        let lasts = drawn(span, &mut self.faults.random);
        let trouble = match &fault.act {
            FaultDo::Crash { disk, .. } => {
                self.power_failure(*disk);
                self.kill(node)?;
                self.cluster.crashes += 1;
                Trouble::Down
            }
            FaultDo::Pause { .. } => {
                self.cluster.pause(node);
                Trouble::Paused
            }
            FaultDo::Partition { one_way, .. } => Trouble::Hindered(Hindrance::CutOff { one_way: *one_way }),
            FaultDo::Slow { latency, .. } => Trouble::Hindered(Hindrance::slow(latency)),
            FaultDo::Lossy { loss, .. } => Trouble::Hindered(Hindrance::lossy(loss)),
            FaultDo::Clock { .. } => return Ok(()),
        };
        let ends = self.now().after(lasts.duration());
        if let Some(active) = self.faults.active.get_mut(place) {
            active.count();
            active.holds.push(Hold { node, ends, trouble });
        }
        self.rewire();
        Ok(())
    }

    /// Nodes that a fault may strike: only those that are up.
    fn candidates(&self, target: &NodeRef) -> Vec<NodeId> {
        let home = self.cluster.home(target);
        let up = |node: &NodeId| self.cluster.is_up(*node);
        match target.which {
            Which::Number(_) => self.cluster.find(target).into_iter().filter(up).collect(),
            Which::Leader => self.leader(home).into_iter().collect(),
            Which::Follower => {
                let leader = self.leader(home);
                self.cluster.servers_up(home).into_iter().filter(|node| Some(*node) != leader).collect()
            }
            Which::All | Which::Any | Which::Each | Which::Rest | Which::Target => {
                self.cluster.of_role(home, target.role).filter(up).collect()
            }
        }
    }

    /// A step takes a node into its own hands: it is neither frozen nor about to be started any more.
    pub(super) fn let_go(&mut self, node: NodeId) {
        for active in &mut self.faults.active {
            active.holds.retain(|hold| hold.node != node || !hold.trouble.stops());
        }
        self.cluster.resume(node);
    }

    fn release(&mut self, hold: Hold) -> Going {
        match hold.trouble {
            Trouble::Down => {
                if !self.cluster.is_up(hold.node) && !self.cluster.is_kept_down(hold.node) {
                    self.start(hold.node, &Hint::Default)?;
                }
            }
            Trouble::Paused => self.cluster.resume(hold.node),
            Trouble::Hindered(_) => {}
        }
        Ok(())
    }
}

const fn is_controlled(act: &FaultDo) -> bool {
    match act {
        FaultDo::Crash { .. }
        | FaultDo::Pause { .. }
        | FaultDo::Partition { .. }
        | FaultDo::Slow { .. }
        | FaultDo::Lossy { .. } => true,
        FaultDo::Clock { .. } => false,
    }
}

fn drawn(span: &Spread<Span>, random: &mut Random) -> Span {
    span.draw(&mut |bound| random.below(bound))
}
