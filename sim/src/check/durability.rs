//! What a server has acknowledged survives its crash.

use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::id::{PeerId, StoreId};
use zipnet_core::time::Time;
use zipnet_node::consensus;
use zipnet_node::event::Event;

use super::{Property, Seen, Subject};

/// A server whose disk was not lost comes back with every log entry that it has acknowledged.
#[derive(Debug, Default)]
pub struct Durability {
    store: BTreeMap<PeerId, StoreId>,
    /// The last entry that each has acknowledged. Entries are counted from zero, so none is not the same as zero.
    acknowledged: BTreeMap<(PeerId, StoreId), Option<u64>>,
    /// What stood on disks that are gone: whoever comes back under such a name has forgotten what it voted.
    lost: BTreeSet<(PeerId, StoreId)>,
}

impl Property for Durability {
    fn name(&self) -> &'static str {
        "durability"
    }

    fn sentence(&self) -> &'static str {
        "What a server has acknowledged survives its crash."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        let peer = subject.peer;
        match seen {
            Seen::Event(Event::Opened { store, last_log, .. }) => {
                self.store.insert(peer, *store);
                if self.lost.contains(&(peer, *store)) {
                    return Err(format!(
                        "{} lost its disk and came back as the same store {:x}",
                        subject.name, store.0
                    ));
                }
                let acknowledged = self.acknowledged.get(&(peer, *store)).copied().flatten();
                if acknowledged > *last_log {
                    let last = last_log.map_or_else(|| "nothing".to_owned(), |last| format!("entry {last}"));
                    return Err(format!(
                        "{} acknowledged entry {} and came back with {last}",
                        subject.name,
                        acknowledged.unwrap_or_default(),
                    ));
                }
            }
            Seen::Event(Event::Consensus(event)) => {
                let Some(store) = self.store.get(&peer) else { return Ok(()) };
                let acknowledged = self.acknowledged.entry((peer, *store)).or_default();
                match event {
                    consensus::Event::Appended { last_index, .. } => {
                        *acknowledged = (*acknowledged).max(Some(*last_index));
                    }
                    consensus::Event::SnapshotInstalled { index } => {
                        *acknowledged = (*acknowledged).max(Some(*index));
                    }
                    // Entries that the leader replaced were never committed.
                    consensus::Event::Truncated { after } => {
                        *acknowledged = (*acknowledged).min(*after);
                    }
                    _ => {}
                }
            }
            Seen::DiskLost => {
                self.acknowledged.retain(|(owner, _), _| *owner != peer);
                self.lost.extend(self.store.remove(&peer).map(|store| (peer, store)));
            }
            Seen::Event(_) | Seen::Mixed(_) | Seen::Started | Seen::Exited { .. } | Seen::Killed => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Judge;
    use super::*;

    fn opened(last_log: Option<u64>) -> Event {
        Event::Opened { store: StoreId(1), last_log, term: 1 }
    }

    fn appended(last_index: u64) -> Event {
        Event::Consensus(consensus::Event::Appended { last_index, term: 1 })
    }

    #[test]
    fn what_was_acknowledged_is_back() {
        let mut judge = Judge::new(Durability::default());
        judge.event("server-1", &opened(None)).expect("empty");
        judge.event("server-1", &appended(5)).expect("entries");
        judge.see("server-1", Seen::Killed).expect("a crash");
        judge.event("server-1", &opened(Some(5))).expect("all of them");
    }

    #[test]
    fn a_lost_entry_is_a_violation() {
        let mut judge = Judge::new(Durability::default());
        judge.event("server-1", &opened(None)).expect("empty");
        judge.event("server-1", &appended(5)).expect("entries");
        judge.event("server-1", &opened(Some(4))).expect_err("one is missing");
    }

    #[test]
    fn a_truncated_entry_may_be_gone() {
        let mut judge = Judge::new(Durability::default());
        judge.event("server-1", &opened(None)).expect("empty");
        judge.event("server-1", &appended(5)).expect("entries");
        let truncated = Event::Consensus(consensus::Event::Truncated { after: Some(3) });
        judge.event("server-1", &truncated).expect("the leader has others");
        judge.event("server-1", &opened(Some(3))).expect("what is left");
    }

    #[test]
    fn who_has_acknowledged_nothing_owes_nothing() {
        let mut judge = Judge::new(Durability::default());
        judge.event("server-1", &opened(None)).expect("empty");
        let leads = consensus::Event::Leader { term: 1, leader: None, me: false };
        judge.event("server-1", &Event::Consensus(leads)).expect("no entry");
        judge.event("server-1", &opened(None)).expect("empty still");
        judge.event("server-1", &appended(0)).expect("the first entry");
        judge.event("server-1", &opened(None)).expect_err("it is missing");
    }

    #[test]
    fn what_is_said_of_a_disk_that_is_not_known_is_owed_by_none() {
        let mut judge = Judge::new(Durability::default());
        judge.event("server-1", &appended(5)).expect("of which disk?");
        judge.event("server-1", &opened(None)).expect("an empty one");
    }

    #[test]
    fn a_log_that_was_truncated_to_nothing_owes_nothing() {
        let mut judge = Judge::new(Durability::default());
        judge.event("server-1", &opened(None)).expect("empty");
        judge.event("server-1", &appended(2)).expect("entries");
        let truncated = Event::Consensus(consensus::Event::Truncated { after: None });
        judge.event("server-1", &truncated).expect("the leader has others");
        judge.event("server-1", &opened(None)).expect("nothing is left");
    }

    #[test]
    fn a_lost_disk_owes_nothing() {
        let mut judge = Judge::new(Durability::default());
        judge.event("server-1", &opened(None)).expect("empty");
        judge.event("server-1", &appended(5)).expect("entries");
        judge.see("server-1", Seen::DiskLost).expect("a wiped disk");
        let fresh = Event::Opened { store: StoreId(2), last_log: None, term: 1 };
        judge.event("server-1", &fresh).expect("empty again, as another store");
    }

    #[test]
    fn a_store_does_not_come_back_after_its_disk_was_lost() {
        let mut judge = Judge::new(Durability::default());
        judge.event("server-1", &opened(None)).expect("empty");
        judge.see("server-1", Seen::DiskLost).expect("a wiped disk");
        judge.event("server-1", &opened(None)).expect_err("it has forgotten its vote");
    }
}
