//! Whom an aggregator believes.
//!
//! An aggregator does not know the committee secret, so to it a server is whoever says that it is one. What servers tell
//! is therefore taken from *believed* ones only: from those that the operator named, else from those that were believed
//! when the process before ended, else from the first committee that is seen. From there belief follows the committee: a
//! live header that a majority of the believed stands for adds its roster.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::committee::is_majority;
use crate::id::PeerId;

/// What an aggregator keeps on its disk of whom it believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Believed {
    /// The servers that were believed, in rising order.
    pub servers: Vec<PeerId>,
    /// Whom the operator had named when that was learnt, in rising order. Empty: these servers were seen first.
    pub named: Vec<PeerId>,
}

/// A server is forgotten after so many believed headers without it: long enough that one which is left out of some
/// rounds is not, short enough that the dead do not outnumber the living.
const HEADERS_REMEMBERED: u64 = 64;

/// Whom an aggregator believes.
#[derive(Clone, Debug)]
pub(crate) struct Belief {
    /// The operator's word, which says as much as a whole committee.
    pins: BTreeSet<PeerId>,
    /// Whom the operator pointed this node to. What of them are servers shows when they are linked.
    bootstrap: BTreeSet<PeerId>,
    /// Those of `bootstrap` that were linked as servers.
    vouched: BTreeSet<PeerId>,
    /// The servers of the newest believed headers, each with the number of the last header that listed it.
    learnt: BTreeMap<PeerId, u64>,
    /// The roster of the last believed header; all of it stands in `learnt`.
    roster: BTreeSet<PeerId>,
    /// How many headers were believed.
    headers: u64,
    /// Whom the operator had named when `learnt` was begun.
    named: Vec<PeerId>,
}

impl Belief {
    /// At the start of a process, with what the one before kept. Pins say which committee is meant: what was learnt
    /// under others, or under none, is not used.
    pub(crate) fn new(pins: &[PeerId], bootstrap: &[PeerId], kept: Believed) -> Self {
        let mut belief = Self {
            pins: pins.iter().copied().collect(),
            bootstrap: bootstrap.iter().copied().collect(),
            vouched: BTreeSet::new(),
            learnt: BTreeMap::new(),
            roster: BTreeSet::new(),
            headers: 0,
            named: kept.named,
        };
        if belief.pins.is_empty() || belief.named == belief.operator() {
            belief.learnt = kept.servers.into_iter().map(|server| (server, 0)).collect();
            belief.roster = belief.learnt.keys().copied().collect();
        }
        belief
    }

    /// Whom the operator named, in rising order.
    fn operator(&self) -> Vec<PeerId> {
        let named = if self.pins.is_empty() { &self.bootstrap } else { &self.pins };
        named.iter().copied().collect()
    }

    /// Nothing says whom to believe: until the first live header, every server is.
    pub(crate) fn is_blank(&self) -> bool {
        self.pins.is_empty() && self.vouched.is_empty() && self.learnt.is_empty()
    }

    /// Whether a peer that says it is a server is believed.
    pub(crate) fn believes(&self, server: &PeerId) -> bool {
        self.is_blank()
            || self.pins.contains(server)
            || self.vouched.contains(server)
            || self.learnt.contains_key(server)
    }

    /// A peer was linked as a server. True: whatever was heard from servers before is worth nothing, because the
    /// operator's word says who is to be believed, and those were others.
    pub(crate) fn meet(&mut self, server: PeerId) -> bool {
        if !self.pins.is_empty() || !self.bootstrap.contains(&server) {
            return false;
        }
        let was_blank = self.is_blank();
        self.vouched.insert(server);
        if self.learnt.is_empty() {
            return was_blank;
        }
        if self.named == self.operator() {
            return false;
        }
        self.named = self.operator();
        if self.learnt.contains_key(&server) {
            // The committee that was seen first is the one that the operator means.
            return false;
        }
        self.learnt.clear();
        self.roster.clear();
        true
    }

    /// Whether those who stand for a header or a record are a majority of the believed, not counting those that said
    /// farewell.
    ///
    /// Of the believed means of the last roster, or of all that were listed lately, or of the pins: each is a majority
    /// that strangers cannot make up, and the committee may keep one and lose another, by servers that die or that are
    /// left out in turn. Before anything was learnt, the bootstrap servers that speak of the log decide: one of them may
    /// be on its way in, or have lost its way.
    pub(crate) fn is_vouched(
        &self,
        vouchers: &BTreeSet<PeerId>,
        has_left: impl Fn(&PeerId) -> bool,
        speaks: impl Fn(&PeerId) -> bool,
    ) -> bool {
        let holds = |believed: &mut dyn Iterator<Item = &PeerId>| {
            let (mut some, mut all) = (0_usize, 0_usize);
            for server in believed.filter(|server| !has_left(server)) {
                all = all.saturating_add(1);
                some = some.saturating_add(usize::from(vouchers.contains(server)));
            }
            is_majority(some, all)
        };
        if self.is_blank() || holds(&mut self.pins.iter()) {
            return true;
        }
        if self.learnt.is_empty() {
            return self.pins.is_empty() && holds(&mut self.vouched.iter().filter(|server| speaks(server)));
        }
        holds(&mut self.roster.iter()) || holds(&mut self.learnt.keys())
    }

    /// A header with this roster is believed. True: others are believed than before.
    pub(crate) fn learn(&mut self, roster: impl IntoIterator<Item = PeerId>) -> bool {
        if self.learnt.is_empty() {
            self.named = if self.is_blank() { Vec::new() } else { self.operator() };
        }
        self.headers = self.headers.saturating_add(1);
        self.roster = roster.into_iter().collect();
        let mut changed = false;
        for server in &self.roster {
            changed |= self.learnt.insert(*server, self.headers).is_none();
        }
        let oldest = self.headers.saturating_sub(HEADERS_REMEMBERED);
        let grown = self.learnt.len();
        self.learnt.retain(|_, last| *last >= oldest);
        changed || self.learnt.len() != grown
    }

    /// What the next process should know; nothing if there is nothing to know beyond the operator's word.
    pub(crate) fn kept(&self) -> Believed {
        let servers = self.learnt.keys().copied().collect();
        Believed { servers, named: if self.learnt.is_empty() { Vec::new() } else { self.named.clone() } }
    }

    /// What holds at any time.
    pub(crate) fn check(&self) {
        assert!(self.roster.iter().all(|server| self.learnt.contains_key(server)), "a roster is learnt");
        assert!(self.vouched.is_subset(&self.bootstrap), "only the operator's word vouches");
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn peers(numbers: &[u8]) -> Vec<PeerId> {
        numbers.iter().copied().map(peer).collect()
    }

    fn set(numbers: &[u8]) -> BTreeSet<PeerId> {
        peers(numbers).into_iter().collect()
    }

    fn stayed(_: &PeerId) -> bool {
        false
    }

    fn speaks(_: &PeerId) -> bool {
        true
    }

    fn kept(servers: &[u8], named: &[u8]) -> Believed {
        Believed { servers: peers(servers), named: peers(named) }
    }

    fn believed(belief: &Belief) -> Vec<u8> {
        (0..=u8::MAX).filter(|number| belief.believes(&peer(*number))).collect()
    }

    #[test]
    fn pins_go_before_bootstrap_before_the_disk_before_the_first_seen() {
        let mut belief = Belief::new(&peers(&[1, 2, 3]), &peers(&[4]), kept(&[7, 8], &[4]));
        assert_eq!(believed(&belief), [1, 2, 3]);
        assert!(!belief.meet(peer(4)), "pins were there before");
        assert_eq!(believed(&belief), [1, 2, 3]);

        let mut belief = Belief::new(&[], &peers(&[4, 5]), kept(&[7, 8], &[]));
        assert_eq!(believed(&belief), [7, 8]);
        assert!(!belief.meet(peer(6)), "the operator did not name it");
        assert!(belief.meet(peer(4)));
        assert_eq!(believed(&belief), [4], "5 is no server until it is linked as one");
        assert!(!belief.meet(peer(5)));
        assert_eq!(believed(&belief), [4, 5]);

        let mut belief = Belief::new(&[], &[], Believed::default());
        assert!(belief.is_blank());
        assert_eq!(believed(&belief).len(), 256);
        assert!(belief.learn(peers(&[1, 2])));
        assert_eq!(believed(&belief), [1, 2]);
        assert_eq!(belief.kept(), kept(&[1, 2], &[]));
    }

    #[test]
    fn what_was_learnt_by_the_same_word_of_the_operator_stays() {
        // The bootstrap peer of old left the committee long ago and is still around.
        let mut belief = Belief::new(&[], &peers(&[1]), kept(&[4, 5, 6], &[1]));
        assert!(!belief.meet(peer(1)));
        assert_eq!(believed(&belief), [1, 4, 5, 6]);
        assert!(!belief.is_vouched(&set(&[1]), stayed, speaks), "alone it says nothing about headers");
        // Another word of the operator, about the same committee.
        let mut belief = Belief::new(&[], &peers(&[4]), kept(&[4, 5, 6], &[1]));
        assert!(!belief.meet(peer(4)));
        assert_eq!((believed(&belief), belief.kept().named), (vec![4, 5, 6], peers(&[4])));
        // And about another committee.
        let mut belief = Belief::new(&[], &peers(&[9]), kept(&[4, 5, 6], &[1]));
        assert!(belief.meet(peer(9)));
        assert_eq!(believed(&belief), [9]);
        let belief = Belief::new(&peers(&[1, 2]), &[], kept(&[4, 5, 6], &[1, 2]));
        assert_eq!(believed(&belief), [1, 2, 4, 5, 6]);
        let belief = Belief::new(&peers(&[1, 2, 3]), &[], kept(&[4, 5, 6], &[1, 2]));
        assert_eq!(believed(&belief), [1, 2, 3]);
    }

    #[test]
    fn only_a_majority_of_the_believed_vouches() {
        let mut belief = Belief::new(&[], &[], kept(&[1, 2, 3, 4], &[]));
        assert!(!belief.is_vouched(&set(&[]), stayed, speaks));
        assert!(!belief.is_vouched(&set(&[1, 2]), stayed, speaks));
        assert!(!belief.is_vouched(&set(&[1, 2, 7, 8, 9]), stayed, speaks), "strangers count for nothing");
        assert!(belief.is_vouched(&set(&[1, 2, 3]), stayed, speaks));
        assert!(belief.is_vouched(&set(&[1, 2]), |server| *server == peer(4), speaks), "4 said farewell");
        assert!(!belief.is_vouched(&set(&[]), |_| true, speaks), "nobody is left to vouch");

        // Two are left out, then two others: all four still count.
        belief.learn(peers(&[1, 2, 3]));
        assert!(belief.is_vouched(&set(&[2, 3, 4]), stayed, speaks));
        assert!(belief.is_vouched(&set(&[1, 2]), stayed, speaks), "a majority of the last roster");
        let mut pointed = Belief::new(&[], &peers(&[1, 2]), Believed::default());
        pointed.meet(peer(1));
        pointed.meet(peer(2));
        assert!(!pointed.is_vouched(&set(&[1, 3, 4]), stayed, speaks));
        assert!(pointed.is_vouched(&set(&[1, 3, 4]), stayed, |server| *server == peer(1)), "2 says nothing");
        assert!(!pointed.is_vouched(&set(&[3, 4]), stayed, |server| *server == peer(1)));
        let pinned = Belief::new(&peers(&[1, 2, 3]), &[], Believed::default());
        assert!(!pinned.is_vouched(&set(&[1]), stayed, speaks));
        assert!(pinned.is_vouched(&set(&[1, 2]), stayed, speaks));
    }

    #[test]
    fn belief_follows_the_committee_one_majority_at_a_time() {
        let mut belief = Belief::new(&[], &peers(&[1]), Believed::default());
        assert!(belief.meet(peer(1)), "whoever was heard before may have been a stranger");
        assert!(belief.is_vouched(&set(&[1, 2, 3]), stayed, speaks));
        assert!(belief.learn(peers(&[1, 2, 3])));
        assert!(!belief.learn(peers(&[1, 2, 3])));
        for next in 4..200_u8 {
            let roster = [next - 2, next - 1, next];
            assert!(
                belief.is_vouched(&set(&roster), stayed, speaks),
                "{next} comes and {} is dead",
                next - 3
            );
            assert!(belief.learn(peers(&roster)));
            assert!(!belief.is_vouched(&set(&[1, 250, 251]), stayed, speaks));
            belief.check();
        }
        for _ in 0..=HEADERS_REMEMBERED {
            belief.learn(peers(&[197, 198, 199]));
        }
        assert_eq!(
            believed(&belief),
            [1, 197, 198, 199],
            "the dead are forgotten, the operator's word is not"
        );
    }
}
