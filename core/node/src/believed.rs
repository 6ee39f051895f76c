//! Whom a server believes beside the voters in its own log: whoever its operator pointed it to, and whom these name.
//!
//! The committee secret admits a server; it does not make it a member. A server that joins has no log and knows no member,
//! and the leader that adds it is rarely the server that it was pointed to. So it believes that one, and the voters that
//! that one names.

use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::id::{PeerId, RaftId};

/// What points a server to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointers {
    /// The peers that its operator named.
    pub bootstrap: BTreeSet<PeerId>,
    /// Those of them that are known to be no servers, by their own word.
    pub no_servers: BTreeSet<PeerId>,
    /// Whether the server has voters in its log.
    pub has_voters: bool,
    /// Whom its operator allows to be a server; `None`: whoever knows the committee secret. If that was said, it decides.
    pub allowed: Option<BTreeSet<PeerId>>,
}

impl Pointers {
    /// Whether the operator pointed to this server, which has proven that it knows the committee secret.
    ///
    /// A server without a log that was pointed to no server, but to the aggregator or to nobody, has nothing else to go by
    /// than that proof. A peer that was not met yet may be a server.
    #[must_use]
    pub fn points_to(&self, server: &PeerId) -> bool {
        let has_server = !self.bootstrap.is_subset(&self.no_servers);
        let anybody = !has_server && !self.has_voters;
        match &self.allowed {
            Some(allowed) => allowed.contains(server),
            None => anybody || self.bootstrap.contains(server),
        }
    }

    /// Those of the linked servers that the operator pointed to.
    #[must_use]
    pub fn pointed(&self, linked: &BTreeSet<RaftId>) -> BTreeSet<RaftId> {
        linked.iter().copied().filter(|id| self.points_to(&id.peer)).collect()
    }
}

/// The voters that believed servers name: those that are linked, and voters or pointed to.
#[must_use]
pub fn named(
    linked: &BTreeMap<RaftId, Option<&BTreeSet<RaftId>>>,
    voters: &BTreeSet<RaftId>,
    pointed: &BTreeSet<RaftId>,
) -> BTreeSet<RaftId> {
    let believed = linked.iter().filter(|(id, _)| voters.contains(id) || pointed.contains(id));
    believed.filter_map(|(_, named)| *named).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use zipnet_core::id::StoreId;

    use super::*;

    fn raft(number: u8) -> RaftId {
        RaftId { peer: peer(number), store: StoreId(1) }
    }

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    #[test]
    fn the_operator_points_and_only_a_server_without_voters_believes_whoever_has_the_secret() {
        let linked: BTreeSet<_> = (1..=3).map(raft).collect();
        let all: &[u8] = &[1, 2, 3];
        // What the operator named, what of it is no server, whether there are voters, who is believed.
        type Row<'a> = (&'a [u8], &'a [u8], bool, &'a [u8]);
        let table: [Row<'_>; 9] = [
            (&[1], &[], false, &[1]),
            (&[1], &[], true, &[1]),
            (&[1, 2, 8], &[], false, &[1, 2]),
            // It is not here, or nothing is known of it yet.
            (&[8], &[], false, &[]),
            // The aggregator.
            (&[9], &[9], false, all),
            (&[9], &[9], true, &[]),
            (&[9, 1], &[9], false, &[1]),
            (&[], &[], false, all),
            (&[], &[], true, &[]),
        ];
        for (bootstrap, no_servers, has_voters, expected) in table {
            let peers = |numbers: &[u8]| numbers.iter().copied().map(peer).collect();
            let (bootstrap_peers, no_servers_peers) = (peers(bootstrap), peers(no_servers));
            let pointers = Pointers {
                bootstrap: bootstrap_peers,
                no_servers: no_servers_peers,
                has_voters,
                allowed: None,
            };
            let expected: BTreeSet<_> = expected.iter().copied().map(raft).collect();
            assert_eq!(pointers.pointed(&linked), expected, "{bootstrap:?} {no_servers:?} {has_voters}");
            // A list of the operator decides alone.
            let listed = Pointers { allowed: Some([peer(2), peer(7)].into()), ..pointers };
            assert_eq!(
                listed.pointed(&linked),
                [raft(2)].into(),
                "{bootstrap:?} {no_servers:?} {has_voters}"
            );
        }
    }

    #[test]
    fn voters_are_named_by_voters_and_by_whoever_the_operator_pointed_to() {
        let said: BTreeMap<u8, BTreeSet<_>> =
            (1..=3).map(|number| (number, [raft(number + 10)].into())).collect();
        let mut linked: BTreeMap<_, _> =
            said.iter().map(|(number, said)| (raft(*number), Some(said))).collect();
        linked.insert(raft(4), None);
        let found = named(&linked, &[raft(1), raft(4), raft(5)].into(), &[raft(2)].into());
        assert_eq!(found, [raft(11), raft(12)].into(), "not 13: nobody believes the third");
    }
}
