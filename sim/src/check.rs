//! What must hold in every run, judged while it goes on.
//!
//! A property sees everything that nodes report and everything that is done to them, in order, and never which defect is
//! built in. The first violation ends the run. One file each:
//!
//! | name | file |
//! | --- | --- |
//! | `agreement` | [`agreement`] |
//! | `complete-roster` | [`complete_roster`] |
//! | `validity` | [`validity`] |
//! | `keystream-once` | [`keystream_once`] |
//! | `participant-floor` | [`participant_floor`] |
//! | `durability` | [`durability`] |
//! | `round-numbers` | [`round_numbers`] |
//! | `chain` | [`chain_of_records`] |
//! | `one-leader` | [`one_leader`] |
//! | `anonymity` | [`anonymity`] |

pub mod agreement;
pub mod anonymity;
pub mod chain_of_records;
pub mod complete_roster;
pub mod durability;
pub mod keystream_once;
pub mod one_leader;
pub mod participant_floor;
pub mod round_numbers;
pub mod validity;

#[cfg(test)]
mod sample;

use std::collections::BTreeMap;

use zipnet_core::checks::Mixed;
use zipnet_core::id::{PeerId, Role};
use zipnet_core::time::Time;
use zipnet_node::event::Event;

use crate::chain::NodeIndex;

/// A node as a property knows it. A restart keeps it, a fresh identity does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its place among the hosts of the run.
    pub index: NodeIndex,
    /// As scenarios call it.
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
    /// A node reports.
    Event(&'a Event),
    /// A node's keyring has made a vector.
    Mixed(&'a Mixed<'a>),
    /// A process of the node begins.
    Started,
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
        Box::new(participant_floor::ParticipantFloor),
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

/// All properties together.
#[derive(Debug)]
pub struct Watch {
    properties: Vec<Box<dyn Property>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { properties: all() }
    }
}

impl Watch {
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
        self.properties.retain(|property| property.name() != name);
    }

    /// How many finalised rounds had a crowd of each size.
    #[must_use]
    pub fn crowds(&self) -> BTreeMap<u64, u64> {
        self.properties.iter().find_map(|property| property.crowds()).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::id::{Digest, RaftId, Round, StoreId};
    use zipnet_core::machine::{Abandonment, Report};
    use zipnet_node::consensus;

    use super::sample::{Judge, header_digest, made, opened, partial, peer, record, sealed};
    use super::*;

    impl Property for Box<dyn Property> {
        fn name(&self) -> &'static str {
            self.as_ref().name()
        }

        fn sentence(&self) -> &'static str {
            self.as_ref().sentence()
        }

        fn see(&mut self, now: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
            self.as_mut().see(now, subject, seen)
        }
    }

    /// What honest nodes may say before anything else was seen of them.
    fn first_events() -> Vec<Event> {
        let candidate = RaftId { peer: peer("server-1"), store: StoreId(1) };
        let consensus = [
            consensus::Event::Leader { term: 1, leader: Some(candidate), me: true },
            consensus::Event::Leader { term: 0, leader: None, me: false },
            consensus::Event::Voted { term: 1, candidate },
            consensus::Event::VoteSynced { term: 0, candidate },
            consensus::Event::Appended { last_index: 0, term: 0 },
            consensus::Event::Truncated { after: None },
            consensus::Event::Applied { index: 0, term: 0, digest: Digest::default() },
            consensus::Event::SnapshotTaken { index: 0 },
            consensus::Event::SnapshotInstalled { index: 0 },
        ];
        let abandoned = Report::RoundAbandoned {
            index: 0,
            round: Round(1),
            header: header_digest(1, 1),
            reason: Abandonment::Unsigned,
            missing: Vec::new(),
        };
        let first = record(1, Digest::default());
        let reports = [
            opened(1, 1),
            partial(1, header_digest(1, 1), 7),
            made(1, 7, 0, 0),
            sealed(1, 7),
            first.finalized(),
            first.seen(),
            abandoned,
        ];
        let past = reports.iter().cloned().map(Event::Past).collect::<Vec<_>>();
        let mut events: Vec<_> = consensus.into_iter().map(Event::Consensus).collect();
        events.extend(reports.into_iter().map(Event::Core));
        events.extend(past);
        events.push(Event::Opened { store: StoreId(1), last_log: None, term: 0 });
        events.push(Event::Opened { store: StoreId(1), last_log: Some(0), term: 0 });
        events
    }

    #[test]
    fn nobody_is_accused_by_what_comes_first() {
        for event in first_events() {
            for before in [None, Some(Seen::Started), Some(Seen::Killed), Some(Seen::DiskLost)] {
                for property in all() {
                    let name = property.name();
                    let mut judge = Judge::new(property);
                    if let Some(before) = before {
                        judge.see("server-1", before).unwrap_or_else(|told| panic!("{name}: {told}"));
                    }
                    judge
                        .event("server-1", &event)
                        .unwrap_or_else(|told| panic!("{name}, {event:?}: {told}"));
                    // Nor is somebody else who says the same.
                    judge
                        .event("server-2", &event)
                        .unwrap_or_else(|told| panic!("{name}, {event:?}: {told}"));
                }
            }
        }
    }

    #[test]
    fn nobody_is_accused_by_what_follows_a_first_event() {
        // In the order of one server's life, begun anywhere.
        let life = [
            Event::Opened { store: StoreId(1), last_log: None, term: 0 },
            Event::Consensus(consensus::Event::Appended { last_index: 0, term: 1 }),
            Event::Consensus(consensus::Event::Applied { index: 0, term: 1, digest: Digest::default() }),
            Event::Core(opened(1, 1)),
            Event::Core(partial(1, header_digest(1, 1), 7)),
            Event::Core(record(1, Digest::default()).finalized()),
            Event::Opened { store: StoreId(1), last_log: Some(0), term: 1 },
        ];
        for begin in 0..life.len() {
            for property in all() {
                let name = property.name();
                let mut judge = Judge::new(property);
                for event in life.iter().skip(begin) {
                    judge.event("server-1", event).unwrap_or_else(|told| panic!("{name}, {event:?}: {told}"));
                }
            }
        }
    }
}
