//! How a committee whose log was set aside begins another one, whatever its servers were told to start from.
//!
//! A change of the committee secret, of the parameters or of the machine makes another group: each server sets its log
//! aside, and none has a log of the new group. What was set aside names the servers whose votes counted there, the *former
//! voters*. They found the new log together: each that reaches a majority of them, and nobody with a log of this group,
//! makes the same first entry of its log that every other one makes, with all former voters as voters, and stands for
//! election.
//!
//! Two cannot found two logs, at whatever moment each does so, whoever is cut off and whoever crashes in between: the
//! first entries are equal, votes are durable, and who leads has the votes of a majority of the former voters. That the
//! entries are equal follows from the store ids: that of a former voter is drawn from everything that its old log said of
//! the voters ([`Former::store_of`]). Whoever knew other voters, or comes with another disk, is none of them, and two
//! majorities cannot have known different ones: the old log changes its voters by one at a time, and with the agreement
//! of a majority. What others say of themselves only decides whether a server begins; it is never a reason to begin what a
//! majority has not agreed to.
//!
//! A former voter gives no vote before its own first entry: whoever has given one cannot make that entry any more, and if
//! those who asked for it are gone for good, nobody could.
//!
//! A server whose folder names nobody founds nothing, unless its operator says so (`ZIPNET_NEW_LOG`, or no
//! `ZIPNET_BOOTSTRAP` with an empty folder).

use core::fmt::Write as _;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::digest::{Context, Fields};
use zipnet_core::id::{GroupId, PeerId, RaftId, StoreId};

use crate::config::parse_peer;
use crate::meeting::majority;

/// The file of the state folder that names the former voters.
pub const FILE: &str = "former-voters";

/// The line that says that the place was taken.
const TAKEN: &str = "taken";

/// After so long without a log a server says what it waits for.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The servers whose votes counted in the log that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// The group in which they found another one.
    pub group: GroupId,
    /// With the disks that they had.
    pub voters: BTreeSet<RaftId>,
    /// Whether this server has taken its place among them. Whoever loses what it has promised there does not take it again.
    pub taken: bool,
}

impl Former {
    /// The store id with which a former voter takes part in the new group; none if it was no voter.
    ///
    /// It is another one for every other set of voters and every other group, so a vote that was given under it was given
    /// among these.
    #[must_use]
    pub fn store_of(&self, peer: &PeerId) -> Option<StoreId> {
        self.founders().into_iter().find(|founder| founder.peer == *peer).map(|founder| founder.store)
    }

    /// The voters of the new log.
    #[must_use]
    pub fn founders(&self) -> BTreeSet<RaftId> {
        let store = |id: &RaftId| {
            let mut fields = Fields::new(Context::FounderStore);
            fields.bytes(&self.group.0).u64(self.voters.len() as u64);
            for voter in &self.voters {
                fields.bytes(&voter.peer.0).u64(voter.store.0);
            }
            let digest = fields.bytes(&id.peer.0).u64(id.store.0).digest();
            u64::from_le_bytes(*digest.0.first_chunk().expect("a digest has 32 bytes"))
        };
        self.voters.iter().map(|id| RaftId { peer: id.peer, store: StoreId(store(id)) }).collect()
    }

    /// The text of the file: the group, then whether the place was taken, then a voter on each line.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("group {}\n", self.group);
        if self.taken {
            text.push_str(TAKEN);
            text.push('\n');
        }
        for RaftId { peer, store } in &self.voters {
            writeln!(text, "{peer} {}", store.0).expect("writing to a string does not fail");
        }
        text
    }

    /// What a file says; none if it is no such text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines().peekable();
        let group = GroupId(parse_peer(lines.next()?.strip_prefix("group ")?)?.0);
        let taken = lines.next_if_eq(&TAKEN).is_some();
        let voter = |line: &str| {
            let (peer, store) = line.split_once(' ')?;
            Some(RaftId { peer: parse_peer(peer)?, store: StoreId(store.parse().ok()?) })
        };
        Some(Self { group, voters: lines.map(voter).collect::<Option<_>>()?, taken })
    }
}

/// What a server without a log knows.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// This server.
    pub me: RaftId,
    /// The voters of the log that it would found; none if its folder names none, or not itself.
    pub founders: BTreeSet<RaftId>,
    /// The servers that are linked, and whether each has a log of this group that is not theirs to found.
    pub linked: BTreeMap<RaftId, bool>,
    /// Whether it has given a vote, and cannot make a first entry any more.
    pub voted: bool,
}

/// What a server without a log does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It founds one.
    Found,
    /// It waits for the log that this server has.
    Follow(PeerId),
    /// It has given a vote, and waits for the log of whom it chose.
    Chose,
    /// It waits for former voters: so many are needed, and these are not reached.
    Wait {
        /// Itself included.
        needed: usize,
        /// In order.
        missing: Vec<PeerId>,
    },
    /// It founds none by itself.
    Ask,
}

/// What a server without a log does. See the module.
#[must_use]
pub fn step(sight: &Sight) -> Step {
    if let Some((id, _)) = sight.linked.iter().find(|(_, has_log)| **has_log) {
        return Step::Follow(id.peer);
    }
    if !sight.founders.contains(&sight.me) {
        return Step::Ask;
    }
    let is_here = |id: &&RaftId| **id == sight.me || sight.linked.contains_key(*id);
    let (here, away): (Vec<&RaftId>, Vec<&RaftId>) = sight.founders.iter().partition(is_here);
    let needed = majority(sight.founders.len());
    if here.len() < needed {
        return Step::Wait { needed, missing: away.into_iter().map(|id| id.peer).collect() };
    }
    if sight.voted { Step::Chose } else { Step::Found }
}

/// What an operator should know of a server that has been without a log for some time.
#[must_use]
pub fn explain(step: &Step) -> Option<String> {
    let decide = "restart one of the servers, and only one, with ZIPNET_NEW_LOG=true";
    match step {
        Step::Found => None,
        Step::Follow(peer) => Some(format!(
            "not in the committee yet: server {} has a log, and this server has not got it from the leader. See whether \
             the server that leads reaches this one, and compare ZIPNET_ALLOWED_SERVERS there",
            peer.short()
        )),
        Step::Chose => Some(format!(
            "not in the committee yet: this server has given another one its vote, and has not got the log from it. Start \
             the servers that had a log; if they are lost for good, {decide}"
        )),
        Step::Wait { needed, missing } => {
            let missing: Vec<_> = missing.iter().map(PeerId::short).collect();
            Some(format!(
                "not in the committee yet: the log was set aside, and a majority of the servers that had a vote in it \
                 founds the new one; {needed} are needed, not reached: {}. Start these with the same committee secret and \
                 build; if most of the servers are lost for good, {decide}",
                missing.join(", ")
            ))
        }
        Step::Ask => Some(format!(
            "not in the committee yet: no server that this one reaches has a log, and none founds one by itself. Start the \
             servers that have it, or compare ZIPNET_BOOTSTRAP; if the committee is new, or most of its state is lost for \
             good, {decide}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raft(number: u8, store: u64) -> RaftId {
        RaftId { peer: PeerId([number; 32]), store: StoreId(store) }
    }

    fn former(group: u8, voters: &[RaftId]) -> Former {
        Former { group: GroupId([group; 32]), voters: voters.iter().copied().collect(), taken: false }
    }

    #[test]
    fn what_was_noted_is_read_and_nothing_else() {
        let taken = Former { taken: true, ..former(7, &[raft(1, 10)]) };
        for noted in [former(7, &[raft(1, 10), raft(2, u64::MAX)]), former(8, &[]), taken] {
            assert_eq!(Former::from_text(&noted.text()), Some(noted));
        }
        let text = former(7, &[raft(1, 10)]).text();
        let lower = |text: &str| text.replacen("0101", "+1+1", 1);
        for bad in [
            "",
            "group 07\n",
            &text[1..],
            &text.replace(" 10", ""),
            &text.replace("10\n", "x\n"),
            &lower(&text),
        ] {
            assert_eq!(Former::from_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn all_who_knew_the_same_voters_name_the_same_founders_and_nobody_else_does() {
        let voters = [raft(1, 10), raft(2, 20), raft(3, 30)];
        let founders = former(7, &voters).founders();
        let peers: Vec<_> = founders.iter().map(|id| id.peer).collect();
        assert_eq!(peers, voters.map(|id| id.peer));
        // Another group, one more, one less, another disk: none of them has a founder in common.
        let others = [
            former(8, &voters),
            former(7, &[raft(1, 10), raft(2, 20), raft(3, 30), raft(4, 40)]),
            former(7, &voters[..2]),
            former(7, &[raft(1, 10), raft(2, 20), raft(3, 31)]),
            former(7, &founders.iter().copied().collect::<Vec<_>>()),
        ];
        for other in others {
            assert!(other.founders().is_disjoint(&founders), "{other:?}");
        }
        assert_eq!(former(7, &voters).store_of(&PeerId([4; 32])), None);
    }

    #[test]
    fn a_log_is_founded_by_a_majority_that_reaches_no_other_log() {
        let founders: BTreeSet<_> = (1..=5).map(|number| raft(number, 1)).collect();
        let sight = |linked: &[(RaftId, bool)]| Sight {
            me: raft(3, 1),
            founders: founders.clone(),
            linked: linked.iter().copied().collect(),
            voted: false,
        };
        let (first, second, strange) = ((raft(1, 1), false), (raft(2, 1), false), (raft(9, 1), false));
        let missing = |numbers: &[u8]| numbers.iter().map(|number| PeerId([*number; 32])).collect();
        let table: [(&[_], Step); 7] = [
            (&[], Step::Wait { needed: 3, missing: missing(&[1, 2, 4, 5]) }),
            (&[first, strange], Step::Wait { needed: 3, missing: missing(&[2, 4, 5]) }),
            (&[first, second], Step::Found),
            // Another disk is another server.
            (&[first, (raft(2, 2), false)], Step::Wait { needed: 3, missing: missing(&[2, 4, 5]) }),
            (&[first, (raft(2, 1), true)], Step::Follow(PeerId([2; 32]))),
            (&[first, second, (raft(9, 1), true)], Step::Follow(PeerId([9; 32]))),
            (&[first, second, strange], Step::Found),
        ];
        for (linked, expected) in table {
            assert_eq!(step(&sight(linked)), expected, "{linked:?}");
        }
        let stranger = Sight { me: raft(3, 2), ..sight(&[first, second]) };
        assert_eq!(step(&stranger), Step::Ask, "it is none of them with this disk");
        assert_eq!(step(&Sight { founders: BTreeSet::new(), ..sight(&[first, second]) }), Step::Ask);
        let alone = Sight { founders: [raft(3, 1)].into(), ..sight(&[]) };
        assert_eq!(step(&alone), Step::Found);
        assert_eq!(step(&Sight { voted: true, ..alone }), Step::Chose);
    }

    #[test]
    fn whoever_waits_in_vain_reads_what_decides() {
        let waits = explain(&Step::Wait { needed: 2, missing: vec![PeerId([2; 32])] }).expect("it waits");
        assert!(waits.contains("0202020202") && waits.contains("ZIPNET_NEW_LOG=true"), "{waits}");
        assert!(explain(&Step::Ask).expect("it waits").contains("ZIPNET_NEW_LOG=true"));
        assert!(explain(&Step::Chose).expect("it waits").contains("ZIPNET_NEW_LOG=true"));
        let follows = explain(&Step::Follow(PeerId([2; 32]))).expect("it waits");
        assert!(follows.contains("0202020202") && follows.contains("ZIPNET_ALLOWED_SERVERS"), "{follows}");
        assert_eq!(explain(&Step::Found), None);
    }
}
