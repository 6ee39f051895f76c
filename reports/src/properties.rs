//! What must hold wherever nodes run, judged by what they tell while it goes on.
//!
//! One set for simulations, for runs on real processes and for whoever reads journals. A property sees what nodes tell,
//! in the order in which each told it, and what is done to them; it never knows which defect is built in. It judges by
//! facts wherever these suffice, so that it means the same everywhere. What no fact tells (the vectors that keyrings mix,
//! whole records, in which envelope a message is) is shown where somebody can show it. A property that has seen nothing to
//! judge by says so: that is not the same as holding.
//!
//! **What is missing proves nothing.** Where facts of a process are missing (whoever reads was too slow, or begins late, or
//! the process was killed before its last lines were written), whoever shows the others shows [`Fact::LinesLost`] in their
//! place, and nobody is accused by the gap. Facts of level trace may be left out without a word, as long as all of a kind
//! are.
//!
//! A [`Watch`] holds them all. One file each:
//!
//! | name | file | judged by |
//! | --- | --- | --- |
//! | `complete-roster` | [`complete_roster`] | facts |
//! | `participant-floor` | [`participant_floor`] | facts |
//! | `round-numbers` | [`round_numbers`] | facts |
//! | `keystream-once` | [`keystream_once`] | facts; more by what is mixed |
//! | `chain` | [`chain_of_records`] | facts |
//! | `agreement` | [`agreement`] | facts |
//! | `validity` | [`validity`] | what is mixed, and whole records |
//! | `durability` | [`durability`] | facts, also those of level trace |
//! | `one-leader` | [`one_leader`] | facts; more by those of level trace |
//! | `anonymity` | [`anonymity`] | what is mixed, and facts |
//! | `no-mixed-groups` | [`no_mixed_groups`] | facts, and who was started in which group |
//! | `never-unblinded` | [`never_unblinded`] | facts |
//!
//! The last two are on where somebody names them.

pub mod agreement;
pub mod anonymity;
pub mod chain_of_records;
pub mod complete_roster;
pub mod durability;
pub mod keystream_once;
pub mod never_unblinded;
pub mod no_mixed_groups;
pub mod one_leader;
pub mod participant_floor;
pub mod round_numbers;
pub mod validity;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::checks::Mixed;
use zipnet_core::id::{Digest, GroupId, PeerId, Role};
use zipnet_core::machine::RequestId;
use zipnet_core::message::Record;
use zipnet_core::time::Time;
use zipnet_facts::Fact;

/// A node as a property knows it. A restart keeps it, a fresh identity does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its place among the nodes that are watched.
    pub node: usize,
    /// As scenarios or operators call it.
    pub name: String,
    /// Who it is.
    pub peer: PeerId,
    /// What it is.
    pub role: Role,
    /// Whether it deviates on purpose: what it says about itself proves nothing.
    pub liar: bool,
}

/// Something that a property sees.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// A node tells something. All that a real process or a journal gives.
    Fact(&'a Fact),
    /// A node's keyring has made a vector.
    Mixed(&'a Mixed<'a>),
    /// A client has sealed this request of its publisher. No fact tells whether a message is in an envelope.
    Sealed {
        /// Which.
        request: RequestId,
        /// Digest of the header under which.
        header: Digest,
    },
    /// A node has this record, and this is the whole of it.
    Record(&'a Record),
    /// A process of the node begins. Shown by whoever starts the processes, and before anything that the process tells.
    Started(Start),
    /// The process ended by itself.
    Exited {
        /// Its exit code.
        code: u8,
    },
    /// The process or the whole machine was stopped from outside. Synced data survives.
    Killed,
    /// The node's disk was emptied or set back on purpose: what was on it is gone.
    DiskLost,
}

/// How a process begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The group that its committee secret makes; servers only.
    pub group: Option<GroupId>,
}

impl<'a> Seen<'a> {
    /// What is told, be it of the time before the process took part.
    #[must_use]
    pub fn fact(self) -> Option<&'a Fact> {
        match self {
            Self::Fact(Fact::ReadAgain { again }) => Some(again),
            Self::Fact(fact) => Some(fact),
            Self::Mixed(_)
            | Self::Sealed { .. }
            | Self::Record(_)
            | Self::Started(_)
            | Self::Exited { .. }
            | Self::Killed
            | Self::DiskLost => None,
        }
    }

    /// Whether a process begins, as whoever starts it says or as it says itself.
    #[must_use]
    pub const fn begins(self) -> bool {
        matches!(self, Self::Started(_) | Self::Fact(Fact::Spawning { .. }))
    }

    /// Whether something is missing in what the node tells.
    #[must_use]
    pub const fn is_gap(self) -> bool {
        matches!(self, Self::Fact(Fact::LinesLost { .. }))
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The name of the property.
    pub property: &'static str,
    /// What was seen, as a sentence fragment that fits behind "violated: ".
    pub detail: String,
}

/// A property of all runs.
pub trait Property: std::fmt::Debug + Send {
    /// As expectations and canaries spell it.
    fn name(&self) -> &'static str;

    /// The sentence that a report shows.
    fn sentence(&self) -> &'static str;

    /// Takes note of something.
    ///
    /// # Errors
    /// What is wrong, if this breaks the property.
    fn see(&mut self, now: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String>;

    /// Why nothing can be said so far, if that is so.
    fn cannot_tell(&self) -> Option<&'static str>;

    /// How many finalised rounds had a crowd of each size, if it looks at that.
    fn crowds(&self) -> Option<&BTreeMap<u64, u64>> {
        None
    }
}

/// Every property that is always on, in the order in which they judge.
#[must_use]
pub fn all() -> Vec<Box<dyn Property>> {
    vec![
        Box::new(complete_roster::CompleteRoster::default()),
        Box::new(participant_floor::ParticipantFloor::default()),
        Box::new(round_numbers::RoundNumbers::default()),
        Box::new(keystream_once::KeystreamOnce::default()),
        Box::new(chain_of_records::ChainOfRecords::default()),
        Box::new(agreement::Agreement::default()),
        Box::new(validity::Validity::default()),
        Box::new(durability::Durability::default()),
        Box::new(one_leader::OneLeader::default()),
        Box::new(anonymity::Anonymity::default()),
    ]
}

/// Further properties, which are on where a scenario names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// No record is made of contributions of two groups or logs.
    pub no_mixed_groups: bool,
    /// No vector of fewer participants is unblinded.
    pub never_unblinded_below: Option<u32>,
}

impl Named {
    /// These, in the order in which they judge.
    #[must_use]
    pub fn properties(self) -> Vec<Box<dyn Property>> {
        let mut properties: Vec<Box<dyn Property>> = Vec::new();
        if let Some(below) = self.never_unblinded_below {
            properties.push(Box::new(never_unblinded::NeverUnblinded::new(below)));
        }
        if self.no_mixed_groups {
            properties.push(Box::new(no_mixed_groups::NoMixedGroups::default()));
        }
        properties
    }
}

/// What a property says about itself, if there is one of this name.
#[must_use]
pub fn sentence(name: &str) -> Option<&'static str> {
    let every = Named { no_mixed_groups: true, never_unblinded_below: Some(0) };
    let mut properties = all().into_iter().chain(every.properties());
    properties.find(|property| property.name() == name).map(|property| property.sentence())
}

/// All properties together.
#[derive(Debug)]
pub struct Watch {
    properties: Vec<Box<dyn Property>>,
    /// Those that are not judged any more.
    waived: BTreeSet<&'static str>,
}

impl Default for Watch {
    fn default() -> Self {
        Self::new(Named::default())
    }
}

impl Watch {
    /// The properties that are always on, and those that are named.
    #[must_use]
    pub fn new(named: Named) -> Self {
        let properties = all().into_iter().chain(named.properties()).collect();
        Self { properties, waived: BTreeSet::new() }
    }

    /// Shows something to every property.
    ///
    /// # Errors
    /// The first violation.
    pub fn see(&mut self, now: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), Violation> {
        for property in &mut self.properties {
            if let Err(detail) = property.see(now, subject, seen) {
                return Err(Violation { property: property.name(), detail });
            }
        }
        Ok(())
    }

    /// From here on this property is not judged: somebody deviates in a way against which it is not promised.
    pub fn waive(&mut self, name: &str) {
        let waived = &mut self.waived;
        self.properties.retain(|property| {
            let stays = property.name() != name;
            if !stays {
                waived.insert(property.name());
            }
            stays
        });
    }

    /// Why nothing can be said about a property so far, if that is so.
    #[must_use]
    pub fn cannot_tell(&self, name: &str) -> Option<&'static str> {
        if self.waived.contains(name) {
            return Some("somebody deviates in a way against which it is not promised");
        }
        self.properties.iter().find(|property| property.name() == name)?.cannot_tell()
    }

    /// How many finalised rounds had a crowd of each size.
    #[must_use]
    pub fn crowds(&self) -> BTreeMap<u64, u64> {
        self.properties.iter().find_map(|property| property.crowds()).cloned().unwrap_or_default()
    }
}
