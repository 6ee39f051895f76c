//! What a server has acknowledged survives its crash.

use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::id::{PeerId, StoreId};
use zipnet_core::time::Time;
use zipnet_facts::Fact;

use super::{Property, Seen, Subject};

/// A server whose disk was not lost comes back with every log entry that it has acknowledged.
#[derive(Debug, Default)]
pub struct Durability {
    store: BTreeMap<PeerId, StoreId>,
    /// The last entry that each has acknowledged. Entries are counted from zero, so none is not the same as zero.
    acknowledged: BTreeMap<(PeerId, StoreId), Option<u64>>,
    /// What stood on disks that are gone: whoever comes back under such a name has forgotten what it voted.
    lost: BTreeSet<(PeerId, StoreId)>,
    /// Entries were acknowledged.
    told: bool,
}

impl Durability {
    fn acknowledge(&mut self, peer: PeerId, change: impl FnOnce(Option<u64>) -> Option<u64>) {
        let Some(store) = self.store.get(&peer) else { return };
        let acknowledged = self.acknowledged.entry((peer, *store)).or_default();
        *acknowledged = change(*acknowledged);
    }
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
        if let Seen::DiskLost = seen {
            self.acknowledged.retain(|(owner, _), _| *owner != peer);
            self.lost.extend(self.store.remove(&peer).map(|store| (peer, store)));
        }
        match seen.fact() {
            Some(Fact::Opened { store, last_log, .. }) => {
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
            Some(Fact::Appended { index, .. }) => {
                self.told = true;
                self.acknowledge(peer, |last| last.max(Some(*index)));
            }
            Some(Fact::SnapshotInstalled { index }) => self.acknowledge(peer, |last| last.max(Some(*index))),
            // Entries that the leader replaced were never committed.
            Some(Fact::Truncated { after }) => self.acknowledge(peer, |last| last.min(*after)),
            // Entries may have been replaced, and the disk by another one.
            Some(Fact::LinesLost { .. }) => {
                self.acknowledged.retain(|(owner, _), _| *owner != peer);
                self.store.remove(&peer);
            }
            _ => {}
        }
        Ok(())
    }

    fn cannot_tell(&self) -> Option<&'static str> {
        (!self.told).then_some("no server told what it has acknowledged")
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, lines_lost};
    use super::*;

    fn opened(last_log: Option<u64>) -> Fact {
        Fact::Opened { store: StoreId(1), last_log, term: 1 }
    }

    fn appended(index: u64) -> Fact {
        Fact::Appended { index, term: 1 }
    }

    #[test]
    fn what_was_acknowledged_is_back() {
        let mut judge = Judge::new(Durability::default());
        judge.fact("server-1", opened(None)).expect("empty");
        judge.fact("server-1", appended(5)).expect("entries");
        judge.see("server-1", Seen::Killed).expect("a crash");
        judge.fact("server-1", opened(Some(5))).expect("all of them");
    }

    #[test]
    fn a_lost_entry_is_a_violation() {
        let mut judge = Judge::new(Durability::default());
        judge.fact("server-1", opened(None)).expect("empty");
        judge.fact("server-1", appended(5)).expect("entries");
        judge.fact("server-1", opened(Some(4))).expect_err("one is missing");
    }

    #[test]
    fn a_truncated_entry_may_be_gone() {
        let mut judge = Judge::new(Durability::default());
        judge.fact("server-1", opened(None)).expect("empty");
        judge.fact("server-1", appended(5)).expect("entries");
        let truncated = Fact::Truncated { after: Some(3) };
        judge.fact("server-1", truncated).expect("the leader has others");
        judge.fact("server-1", opened(Some(3))).expect("what is left");
    }

    #[test]
    fn who_has_acknowledged_nothing_owes_nothing() {
        let mut judge = Judge::new(Durability::default());
        judge.fact("server-1", opened(None)).expect("empty");
        let leads = Fact::Leader { leader: None, store: None, term: 1, local: false };
        judge.fact("server-1", leads).expect("no entry");
        judge.fact("server-1", opened(None)).expect("empty still");
        judge.fact("server-1", appended(0)).expect("the first entry");
        judge.fact("server-1", opened(None)).expect_err("it is missing");
    }

    #[test]
    fn what_is_said_of_a_disk_that_is_not_known_is_owed_by_none() {
        let mut judge = Judge::new(Durability::default());
        judge.fact("server-1", appended(5)).expect("of which disk?");
        judge.fact("server-1", opened(None)).expect("an empty one");
    }

    #[test]
    fn a_log_that_was_truncated_to_nothing_owes_nothing() {
        let mut judge = Judge::new(Durability::default());
        judge.fact("server-1", opened(None)).expect("empty");
        judge.fact("server-1", appended(2)).expect("entries");
        let truncated = Fact::Truncated { after: None };
        judge.fact("server-1", truncated).expect("the leader has others");
        judge.fact("server-1", opened(None)).expect("nothing is left");
    }

    #[test]
    fn a_lost_disk_owes_nothing() {
        let mut judge = Judge::new(Durability::default());
        judge.fact("server-1", opened(None)).expect("empty");
        judge.fact("server-1", appended(5)).expect("entries");
        judge.see("server-1", Seen::DiskLost).expect("a wiped disk");
        let fresh = Fact::Opened { store: StoreId(2), last_log: None, term: 1 };
        judge.fact("server-1", fresh).expect("empty again, as another store");
    }

    #[test]
    fn a_store_does_not_come_back_after_its_disk_was_lost() {
        let mut judge = Judge::new(Durability::default());
        judge.fact("server-1", opened(None)).expect("empty");
        judge.see("server-1", Seen::DiskLost).expect("a wiped disk");
        judge.fact("server-1", opened(None)).expect_err("it has forgotten its vote");
    }

    #[test]
    fn what_was_replaced_in_a_gap_may_be_gone() {
        let mut judge = Judge::new(Durability::default());
        judge.fact("server-1", opened(None)).expect("empty");
        judge.fact("server-1", appended(5)).expect("entries");
        judge.fact("server-1", lines_lost()).expect("a gap");
        judge.fact("server-1", appended(4)).expect("of which disk?");
        judge.fact("server-1", opened(Some(3))).expect("the leader had others");
    }

    #[test]
    fn without_an_acknowledged_entry_nothing_is_said() {
        let mut judge = Judge::new(Durability::default());
        judge.fact("server-1", opened(Some(5))).expect("entries");
        assert_eq!(judge.cannot_tell(), Some("no server told what it has acknowledged"));
        judge.fact("server-1", appended(6)).expect("another one");
        assert_eq!(judge.cannot_tell(), None);
    }
}
