//! What can be broken on purpose, to prove that the properties notice.
//!
//! A defect is a rule of the core or the node that is not enforced, on some nodes or all. Two more are defects of the
//! simulator itself, which the repeat check has to notice. None of them can be built into a shipped node: the core asks
//! its [`Checks`], and this is the only implementation that ever says no.

use core::fmt;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use zipnet_core::checks::{Check, Checks, Mixed};
use zipnet_core::key::PublicKey;

use crate::chain::{NodeIndex, Tamper};

/// In front of every name, as it stands in the binary.
const MARKER: &str = "zipnet-canary:";

/// Every rule, with the marker that is found in a binary that can leave it out.
const RULES: &[(Check, &str)] = &[
    (Check::CompleteRoster, "zipnet-canary:complete-roster"),
    (Check::CanonicalRecord, "zipnet-canary:canonical-record"),
    (Check::OneAggregate, "zipnet-canary:one-aggregate"),
    (Check::PartialOfRound, "zipnet-canary:partial-of-round"),
    (Check::ParticipantFloor, "zipnet-canary:participant-floor"),
    (Check::RoundRises, "zipnet-canary:round-rises"),
    (Check::FreshNonce, "zipnet-canary:fresh-nonce"),
    (Check::SealOnce, "zipnet-canary:seal-once"),
    (Check::FoldOnce, "zipnet-canary:fold-once"),
    (Check::ChainRecords, "zipnet-canary:chain-records"),
    (Check::VoteSynced, "zipnet-canary:vote-synced"),
    (Check::AppendSynced, "zipnet-canary:append-synced"),
    (Check::GroupProof, "zipnet-canary:group-proof"),
    (Check::UniqueIdentity, "zipnet-canary:unique-identity"),
    (Check::RetiredBarred, "zipnet-canary:retired-barred"),
    (Check::ClientFloor, "zipnet-canary:client-floor"),
    (Check::StateDigest, "zipnet-canary:state-digest"),
    (Check::LogYields, "zipnet-canary:log-yields"),
    (Check::FreshStore, "zipnet-canary:fresh-store"),
    (Check::AnnouncedRemoval, "zipnet-canary:announced-removal"),
    (Check::MajorityKept, "zipnet-canary:majority-kept"),
    (Check::ProbedDead, "zipnet-canary:probed-dead"),
    (Check::FewRefused, "zipnet-canary:few-refused"),
    (Check::Compatibility, "zipnet-canary:compatibility"),
    (Check::KnownLeader, "zipnet-canary:known-leader"),
    (Check::PadEnds, "zipnet-canary:pad-ends"),
    (Check::PromiseKept, "zipnet-canary:promise-kept"),
    (Check::RecordsApplied, "zipnet-canary:records-applied"),
    (Check::ServersBelieved, "zipnet-canary:servers-believed"),
    (Check::NamedJudges, "zipnet-canary:named-judges"),
    (Check::ServersHaveLogs, "zipnet-canary:servers-have-logs"),
    (Check::MajorityApproves, "zipnet-canary:majority-approves"),
    (Check::FoundTogether, "zipnet-canary:found-together"),
];

/// The engine reads the clock of the machine that it runs on.
const WALL_CLOCK: &str = "zipnet-canary:wall-clock-read";
/// The engine goes through a map whose order differs between processes.
const MAP_ORDER: &str = "zipnet-canary:map-iteration";

/// Single slips of the simulated world, at a place in the middle of any run.
const TAMPERS: &[(Tamper, &str)] = &[
    (Tamper::FlipByte { delivery: 300 }, "zipnet-canary:flipped-byte"),
    (Tamper::SwapDeliveries { delivery: 300 }, "zipnet-canary:swapped-deliveries"),
    (Tamper::ExtraSync { sync: 100 }, "zipnet-canary:extra-sync"),
];

/// Something broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// A rule is not enforced.
    Without(Check),
    /// The simulator reads the wall clock.
    WallClock,
    /// The simulator depends on the order of a hash map.
    MapOrder,
    /// Network or disk do one thing differently, once.
    Tampered(Tamper),
}

impl Defect {
    /// The defect of this name, with its marker.
    pub(crate) fn named(name: &str) -> Option<(Self, &'static str)> {
        let others = [(Self::WallClock, WALL_CLOCK), (Self::MapOrder, MAP_ORDER)];
        let rules = RULES.iter().map(|(check, marker)| (Self::Without(*check), *marker));
        let tampers = TAMPERS.iter().map(|(tamper, marker)| (Self::Tampered(*tamper), *marker));
        rules.chain(others).chain(tampers).find(|(_, marker)| marker.strip_prefix(MARKER) == Some(name))
    }

    /// The name behind a marker.
    pub(crate) fn name(marker: &str) -> &str {
        marker.strip_prefix(MARKER).unwrap_or(marker)
    }

    /// Every name.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        markers().filter_map(|marker| marker.strip_prefix(MARKER))
    }
}

/// Every marker: what stands in a binary that can be defective on purpose.
pub fn markers() -> impl Iterator<Item = &'static str> {
    let tampers = TAMPERS.iter().map(|(_, marker)| *marker);
    RULES.iter().map(|(_, marker)| *marker).chain([WALL_CLOCK, MAP_ORDER]).chain(tampers)
}

/// The rules that one node leaves out, which round key it announces, and who watches what its keyring makes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defects {
    always: u64,
    at_will: Switch,
    announced: Announced,
    onlooker: Onlooker,
}

/// Who is shown the vectors that a keyring makes.
#[derive(Clone, Default)]
pub(crate) struct Onlooker(Option<Arc<Look>>);

/// Is called for each vector.
type Look = dyn Fn(&Mixed<'_>) + Send + Sync;

impl Onlooker {
    /// Calls this for each vector.
    pub(crate) fn new(look: impl Fn(&Mixed<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(look)))
    }
}

impl fmt::Debug for Onlooker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Onlooker({})", self.0.is_some())
    }
}

/// Which round key a node announces: its own, or that of another one. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Announced(Arc<Mutex<Keys>>);

#[derive(Default)]
struct Keys {
    /// Drawn last.
    own: Option<PublicKey>,
    copied: Option<Announced>,
}

impl Announced {
    /// From the next round key on, the one that another node has drawn last is announced, or again the own one.
    pub(crate) fn copy(&self, other: Option<Self>) {
        self.keys(|keys| keys.copied = other);
    }

    /// Takes note of a round key that was drawn.
    fn instead_of(&self, own: PublicKey) -> PublicKey {
        let copied = self.keys(|keys| {
            keys.own = Some(own);
            keys.copied.clone()
        });
        copied.and_then(|other| other.keys(|keys| keys.own)).unwrap_or(own)
    }

    fn keys<T>(&self, act: impl FnOnce(&mut Keys) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Announced(copied: {})", self.keys(|keys| keys.copied.is_some()))
    }
}

/// Rules that a node leaves out for as long as somebody wants. Clones are the same switch.
#[derive(Clone, Default)]
pub(crate) struct Switch(pub(crate) Arc<AtomicU64>);

impl Switch {
    /// The place of a rule.
    pub(crate) const fn bit(check: Check) -> u64 {
        1 << check as u32
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Switch({:b})", self.0.load(Ordering::SeqCst))
    }
}

impl Defects {
    /// The same, and this rule as well.
    #[must_use]
    pub(crate) fn without(self, check: Check) -> Self {
        Self { always: self.always | Switch::bit(check), ..self }
    }

    /// The same, and what the switch says.
    #[must_use]
    pub(crate) fn with_switch(self, at_will: Switch) -> Self {
        Self { at_will, ..self }
    }

    /// The same, with what is announced.
    #[must_use]
    pub(crate) fn announcing(self, announced: Announced) -> Self {
        Self { announced, ..self }
    }

    /// The same, watched.
    #[must_use]
    pub(crate) fn watched_by(self, onlooker: Onlooker) -> Self {
        Self { onlooker, ..self }
    }
}

impl Checks for Defects {
    const OBSERVES: bool = true;

    fn mixed(&self, mixed: &Mixed<'_>) {
        if let Onlooker(Some(look)) = &self.onlooker {
            look(mixed);
        }
    }

    fn announced(&self, own: PublicKey) -> PublicKey {
        self.announced.instead_of(own)
    }

    fn enforce(&self, check: Check) -> bool {
        (self.always | self.at_will.0.load(Ordering::SeqCst)) & Switch::bit(check) == 0
    }
}

/// The defect of a run, and where it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Planted {
    /// The rule that is left out.
    pub(crate) check: Option<Check>,
    /// On these nodes only; none is everywhere.
    pub(crate) nodes: Option<BTreeSet<NodeIndex>>,
}

impl Planted {
    /// What a node leaves out.
    pub(crate) fn on(&self, node: NodeIndex) -> Defects {
        let here = self.nodes.as_ref().is_none_or(|nodes| nodes.contains(&node));
        self.check.filter(|_| here).map_or_else(Defects::default, |check| Defects::default().without(check))
    }
}

#[cfg(test)]
mod keys;

#[cfg(test)]
mod tests {
    use zipnet_scenarios::words::{Guard, Word as _};

    use super::*;

    #[test]
    fn every_guard_of_a_scenario_is_a_defect() {
        for (_, name, _) in Guard::ALL {
            assert!(Defect::named(name).is_some(), "{name}");
        }
    }

    #[test]
    fn names_are_those_of_the_rules() {
        for (check, marker) in RULES {
            let mut kebab = String::new();
            for c in format!("{check:?}").chars() {
                if c.is_ascii_uppercase() && !kebab.is_empty() {
                    kebab.push('-');
                }
                kebab.push(c.to_ascii_lowercase());
            }
            assert_eq!(*marker, format!("{MARKER}{kebab}"));
        }
    }

    #[test]
    fn a_copied_key_is_the_one_that_the_other_node_drew_last() {
        let (node, other) = (Announced::default(), Announced::default());
        let [one, two, own] = [1, 2, 3].map(|byte| PublicKey([byte; 32]));
        node.copy(Some(other.clone()));
        assert_eq!(node.instead_of(own), own, "there is nothing to copy");
        for drawn in [one, two] {
            assert_eq!(other.instead_of(drawn), drawn);
            assert_eq!(node.instead_of(own), drawn);
        }
        node.copy(None);
        assert_eq!(node.instead_of(own), own);
    }

    #[test]
    fn one_rule_is_left_out_and_no_other() {
        let defects = Defects::default().without(Check::SealOnce);
        for (check, _) in RULES {
            assert_eq!(defects.enforce(*check), *check != Check::SealOnce);
            assert!(Defects::default().enforce(*check));
        }
    }
}
