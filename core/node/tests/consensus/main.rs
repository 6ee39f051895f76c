//! Consensus on tokio: openraft's storage suite, disks that crash, and groups in one process.

mod hostile;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft_rt_tokio::TokioRuntime;
use zipnet_core::checks::{Check, Checks, Strict};
use zipnet_core::id::{PeerId, RaftId, StoreId};
use zipnet_node::consensus::codec::{Ballot, Frame, Reply, Request, encode_frame};
use zipnet_node::consensus::recording::Voters;
use zipnet_node::consensus::types::{Entry, LogId, Membership, Payload, Vote};
use zipnet_node::consensus::{
    Believed, ChangeError, Command, Consensus, CorruptSnapshot, Event, LOG_FILE, LogStore, Machine,
    MachineStore, Members, NodeId, OnEvent, OpenError, Refusal, Role, Settings, Source, Transport, Types,
    recording,
};
use zipnet_node::world::{Channel, LinkError};

use crate::world::{Memory, lock};

type C = Types<TokioRuntime>;

#[test]
fn openraft_accepts_the_storage() {
    block_on(async {
        Suite::<C, _, _, _, _>::test_all(Builder).await.expect("openraft's suite passes");
    });
}

struct Builder;

impl StoreBuilder<C, LogStore<Memory>, MachineStore<Memory, Journal>> for Builder {
    async fn build(
        &self,
    ) -> Result<((), LogStore<Memory>, MachineStore<Memory, Journal>), openraft::StorageError<C>> {
        let world = Memory::default();
        let log = LogStore::open(&world, &Strict, id(1), deaf()).await.expect("the disk is empty");
        let machine = Arc::new(Mutex::new(Journal::default()));
        let machine = MachineStore::open(&world, id(1), machine, deaf()).await.expect("the disk is empty");
        Ok(((), log, machine))
    }
}

#[test]
fn what_was_acknowledged_survives_a_crash() {
    block_on(async {
        let world = Memory::default();
        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        assert!(log.is_pristine());
        let vote = Vote::new(3, NodeId(id(2)));
        log.save_vote(&vote).await.unwrap();
        log.blocking_append(entries(0..40)).await.unwrap();
        world.disk.crash();

        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        assert!(!log.is_pristine());
        assert_eq!(log.read_vote().await.unwrap(), Some(vote));
        assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries(0..40));
    });
}

#[test]
fn a_build_that_does_not_sync_loses_what_it_acknowledged() {
    block_on(async {
        let world = Memory::default();
        let mut log = LogStore::open(&world, &Without(Check::VoteSynced), id(1), deaf()).await.unwrap();
        log.save_vote(&Vote::new(3, NodeId(id(2)))).await.unwrap();
        world.disk.crash();
        let mut log = LogStore::open(&world, &Without(Check::AppendSynced), id(1), deaf()).await.unwrap();
        assert_eq!(log.read_vote().await.unwrap(), None);

        log.blocking_append(entries(0..40)).await.unwrap();
        world.disk.crash();
        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        assert_eq!(log.try_get_log_entries(..).await.unwrap(), []);
    });
}

#[test]
fn entries_come_from_memory_and_disk_alike() {
    block_on(async {
        let world = Memory::default();
        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        // Far more than what is kept in memory.
        let all: Vec<Entry> = (0..60).map(|index| entry(index, vec![1; 64 << 10])).collect();
        for some in all.chunks(7) {
            log.blocking_append(some.to_vec()).await.unwrap();
        }
        for (start, end) in [(0, 60), (0, 1), (10, 50), (59, 60), (40, 60), (5, 5), (55, 100), (60, 70)] {
            let expected = all.get(start..end.min(60)).unwrap_or_default();
            let range = start as u64..end as u64;
            assert_eq!(log.try_get_log_entries(range).await.unwrap(), expected, "{start}..{end}");
        }
        let some = log.limited_get_log_entries(2, 60).await.unwrap();
        assert!(!some.is_empty() && some.len() < 8);
        assert_eq!(some, all[2..2 + some.len()]);
        let one = log.limited_get_log_entries(58, 59).await.unwrap();
        assert_eq!(one, all[58..59]);
    });
}

#[test]
fn truncated_and_purged_entries_are_gone_also_after_a_restart() {
    block_on(async {
        let world = Memory::default();
        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        log.blocking_append(entries(0..40)).await.unwrap();
        log.truncate_after(Some(log_id(29))).await.unwrap();
        log.purge(log_id(9)).await.unwrap();
        log.save_committed(Some(log_id(20))).await.unwrap();
        for _ in 0..2 {
            let state = log.get_log_state().await.unwrap();
            assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(9)), Some(log_id(29))));
            assert_eq!(log.read_committed().await.unwrap(), Some(log_id(20)));
            assert_eq!(log.try_get_log_entries(0..50).await.unwrap(), entries(10..30));
            log.close().await;
            log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        }
    });
}

#[test]
fn purging_and_committing_alone_write_nothing() {
    block_on(async {
        let world = Memory::default();
        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        log.blocking_append(entries(0..40)).await.unwrap();
        let before = world.disk.syncs();
        log.save_committed(Some(log_id(20))).await.unwrap();
        log.purge(log_id(9)).await.unwrap();
        assert_eq!(world.disk.syncs(), before);
    });
}

#[test]
fn the_committed_position_is_durable_once_it_was_waited_for() {
    block_on(async {
        let world = Memory::default();
        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        log.blocking_append(entries(0..40)).await.unwrap();
        log.save_committed(Some(log_id(20))).await.unwrap();
        log.sync_committed().await.unwrap();
        let before = world.disk.syncs();
        log.sync_committed().await.unwrap();
        assert_eq!(world.disk.syncs(), before, "it is there");
        log.save_committed(Some(log_id(30))).await.unwrap();
        world.disk.crash();
        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        assert_eq!(log.read_committed().await.unwrap(), Some(log_id(20)), "nobody waited for the rest");
        // Whatever is written next takes it along.
        log.save_committed(Some(log_id(30))).await.unwrap();
        log.blocking_append(entries(40..41)).await.unwrap();
        let before = world.disk.syncs();
        log.sync_committed().await.unwrap();
        assert_eq!(world.disk.syncs(), before);
    });
}

#[test]
fn a_membership_on_top_of_another_says_that_that_one_is_committed() {
    block_on(async {
        let world = Memory::default();
        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        let membership = |index| {
            let members = Membership::new_with_defaults(vec![[NodeId(id(1))].into()], []);
            Entry::new(log_id(index), Payload::Membership(members))
        };
        log.blocking_append(entries(0..5)).await.unwrap();
        log.blocking_append([membership(5)]).await.unwrap();
        log.save_committed(Some(log_id(3))).await.unwrap();
        log.sync_committed().await.unwrap();
        log.blocking_append(entries(6..9)).await.unwrap();
        world.disk.crash();
        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        assert_eq!(log.read_committed().await.unwrap(), Some(log_id(3)));
        log.blocking_append([membership(9)]).await.unwrap();
        world.disk.crash();
        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        assert_eq!(log.read_committed().await.unwrap(), Some(log_id(5)));
    });
}

#[test]
fn files_of_others_and_rubbish_are_refused_by_name() {
    block_on(async {
        let world = Memory::default();
        let log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        log.close().await;
        let error = LogStore::open(&world, &Strict, id(2), deaf()).await.unwrap_err();
        assert!(matches!(error, OpenError::Foreign { .. }) && error.is_data(), "{error}");

        world.disk.overwrite(LOG_FILE, &[7; 8192]);
        let error = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }) && error.is_data(), "{error}");

        let world = Memory::default();
        world.disk.set_broken(true);
        let error = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap_err();
        assert!(matches!(error, OpenError::Disk { .. }) && !error.is_data(), "{error}");
    });
}

#[test]
fn a_broken_disk_is_reported_and_a_frozen_one_never_answers() {
    block_on(async {
        let world = Memory::default();
        let (events, on_event) = ears();
        let mut log = LogStore::open(&world, &Strict, id(1), on_event).await.unwrap();
        world.disk.set_broken(true);
        world.disk.set_frozen(true);
        let vote = Vote::new(3, NodeId(id(2)));
        let silence = tokio::time::timeout(Duration::from_millis(200), log.save_vote(&vote)).await;
        assert!(silence.is_err());
        assert!(!lock(&events).iter().any(|event| matches!(event, Event::Failed { .. })));

        let world = Memory::default();
        let (events, on_event) = ears();
        let mut log = LogStore::open(&world, &Strict, id(1), on_event).await.unwrap();
        world.disk.set_broken(true);
        assert!(log.save_vote(&vote).await.is_err());
        assert!(log.blocking_append(entries(0..1)).await.is_err());
        let failures = |event: &&Event| matches!(event, Event::Failed { .. });
        assert_eq!(lock(&events).iter().filter(failures).count(), 1);
    });
}

#[test]
fn a_group_elects_replicates_and_hands_over() {
    block_on(async {
        let group = Group::start(3).await;
        group.propose(0..20).await;
        group.settle(&[1, 2, 3], 20).await;

        group.node(1).transfer_leadership(id(2)).await.unwrap();
        group.leader(2).await;
        group.propose(20..30).await;
        group.settle(&[1, 2, 3], 30).await;

        let state = group.node(2).state();
        assert_eq!(state.role, Role::Leader);
        assert_eq!(state.followers.keys().copied().collect::<BTreeSet<_>>(), [id(1), id(2), id(3)].into());
        assert!(state.quorum_acked.is_some() && state.members_committed);
        assert!(!group.node(1).propose(b"from a follower".to_vec()));
        let wrong = group.node(1).add_learner(id(9)).await;
        assert_eq!(wrong, Err(ChangeError::NotLeader(Some(id(2)))));
        assert_eq!(group.node(2).start_group().await, Err(ChangeError::AlreadyStarted));
        group.check_events();
    });
}

#[test]
fn whoever_votes_alone_is_a_majority_for_as_long_as_it_leads() {
    block_on(async {
        let group = Group::start(1).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(group.node(1).state().quorum_acked, Some(Duration::ZERO));
    });
}

#[test]
fn any_number_found_one_group_and_each_disk_tells_who_voted() {
    block_on(async {
        let group = Group::default();
        let voters: BTreeSet<_> = (1..=5).map(id).collect();
        for number in 1..=4 {
            group.open(number).await;
        }
        assert_eq!(recording::voters(&Memory::default().disk).unwrap(), Voters::Pristine);
        // Three found it, one gets it from them before it would do so itself, and one never comes.
        for number in [1, 2, 4] {
            let named = voters.clone();
            group.node(number).believe(Believed { named, holds_vote: true, ..Believed::default() });
        }
        for number in [1, 2, 4] {
            group.node(number).found_group(voters.clone()).await.expect("the node is fresh");
        }
        // The leader has so many entries by then that it does not begin with the first one.
        group.propose(0..40).await;
        group.settle(&[1, 2, 4], 40).await;
        let named = voters.clone();
        group.node(3).believe(Believed { named, holds_vote: true, ..Believed::default() });
        group.settle(&[1, 2, 3, 4], 40).await;
        assert_eq!(group.node(3).found_group(voters.clone()).await, Err(ChangeError::AlreadyStarted));

        let fewer: BTreeSet<_> = (1..=4).map(id).collect();
        change(async || {
            let leader = group.leading().unwrap_or(1);
            group.node(leader).change_voters(fewer.clone(), false).await
        })
        .await;
        eventually("all know it", || {
            (1..=4).all(|number| group.node(number).state().members.voters == fewer)
        })
        .await;
        for number in 1..=4 {
            group.node(number).shutdown().await;
            assert_eq!(
                recording::voters(&group.disk(number)).unwrap(),
                Voters::Known(fewer.clone()),
                "{number}"
            );
        }
    });
}

#[test]
fn a_leader_that_was_restarted_says_what_it_knew_to_be_committed() {
    block_on(async {
        let group = Group::default();
        // The first server has a change of voters that nobody else has; the others lack the word that what is before it is
        // committed. Two of three have to agree to each half of it, and one of the others is not there.
        let founding = |index, halves: &[&[u64]]| {
            let nodes = |numbers: &&[u64]| numbers.iter().map(|number| NodeId(id(*number))).collect();
            let members = Membership::new_with_defaults(halves.iter().map(nodes).collect(), []);
            Entry::new(LogId::new_term_index(u64::from(index > 0), index), Payload::Membership(members))
        };
        for number in 1..=2 {
            let world = Memory::default();
            let mut log = LogStore::open(&world, &Strict, id(number), deaf()).await.unwrap();
            log.blocking_append([founding(0, &[&[1, 2, 3]])]).await.unwrap();
            if number == 1 {
                log.blocking_append([founding(1, &[&[1, 2, 3], &[1, 2]])]).await.unwrap();
                log.save_vote(&Vote::new(1, NodeId(id(1)))).await.unwrap();
            }
            log.close().await;
            group.place(number, world);
            group.open(number).await;
        }
        eventually("the change is agreed on", || group.node(2).state().committed >= Some(1)).await;
        group.check_events();
    });
}

#[test]
fn the_voters_of_a_log_are_those_of_its_end_or_of_the_snapshot_that_goes_beyond_it() {
    block_on(async {
        let world = Memory::default();
        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        log.save_vote(&Vote::new(3, NodeId(id(2)))).await.unwrap();
        log.close().await;
        assert_eq!(recording::voters(&world.disk).unwrap(), Voters::Unknown, "it has voted");

        let voters =
            |numbers: &[u64]| numbers.iter().map(|number| NodeId(id(*number))).collect::<BTreeSet<_>>();
        let change = |index, halves: &[&[u64]]| {
            let halves = halves.iter().map(|numbers| voters(numbers)).collect();
            Entry::new(log_id(index), Payload::Membership(Membership::new_with_defaults(halves, [])))
        };
        let known = |numbers: &[u64]| Voters::Known(numbers.iter().map(|number| id(*number)).collect());
        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        log.blocking_append([change(0, &[&[1, 2]])]).await.unwrap();
        log.blocking_append(entries(1..5)).await.unwrap();
        log.close().await;
        assert_eq!(recording::voters(&world.disk).unwrap(), known(&[1, 2]));
        let mut log = LogStore::open(&world, &Strict, id(1), deaf()).await.unwrap();
        log.blocking_append([change(5, &[&[1, 2], &[1, 2, 3]])]).await.unwrap();
        log.close().await;
        assert_eq!(
            recording::voters(&world.disk).unwrap(),
            known(&[1, 2, 3]),
            "where a change under way leads to"
        );

        world.disk.overwrite(LOG_FILE, &[7; 5000]);
        assert!(recording::voters(&world.disk).is_err(), "rubbish");
    });
}

#[test]
fn a_late_learner_gets_a_snapshot_and_is_promoted() {
    block_on(async {
        let group = Group::start(1).await;
        group.propose(0..100).await;
        group.settle(&[1], 100).await;
        eventually("the log is purged", || group.node(1).state().snapshot >= Some(80)).await;

        group.open(2).await;
        change(async || group.node(1).add_learner(id(2)).await).await;
        group.settle(&[1, 2], 100).await;
        assert!(group.events(2).iter().any(|event| matches!(event, Event::SnapshotInstalled { .. })));

        let unknown = group.node(1).change_voters([id(1), id(9)].into(), false).await;
        assert_eq!(unknown, Err(ChangeError::UnknownLearner(id(9))));
        change(async || group.node(1).change_voters([id(1), id(2)].into(), false).await).await;
        eventually("both vote", || group.node(2).state().members.voters == [id(1), id(2)].into()).await;

        group.propose(100..110).await;
        group.settle(&[1, 2], 110).await;
        let journal = group.journal(2);
        assert_eq!(journal.members.voters, [id(1), id(2)].into());
        group.check_events();
    });
}

#[test]
fn a_restarted_node_resumes_and_a_restarted_group_goes_on() {
    block_on(async {
        let group = Group::start(3).await;
        group.propose(0..35).await;
        group.settle(&[1, 2, 3], 35).await;

        group.node(3).shutdown().await;
        group.forget(3);
        group.propose(35..50).await;
        group.open(3).await;
        assert!(!group.node(3).was_fresh());
        group.settle(&[1, 2, 3], 50).await;

        for number in 1..=3 {
            // Power fails: nothing is closed, and what was not synced is gone.
            group.disk(number).crash();
            group.forget(number);
        }
        for number in 1..=3 {
            group.open(number).await;
        }
        eventually("somebody leads again", || group.leading().is_some()).await;
        group.propose(50..60).await;
        group.settle(&[1, 2, 3], 60).await;
        group.check_events();
    });
}

#[test]
fn a_voter_is_replaced_in_one_change() {
    block_on(async {
        let group = Group::start(3).await;
        group.propose(0..5).await;
        group.open(4).await;
        change(async || group.node(1).add_learner(id(4)).await).await;
        change(async || group.node(1).change_voters([id(1), id(2), id(4)].into(), false).await).await;
        let members = group.node(1).state().members;
        let expected = Members { voters: [id(1), id(2), id(4)].into(), learners: [].into(), joint: false };
        assert_eq!(members, expected);
        group.propose(5..10).await;
        group.settle(&[1, 2, 4], 10).await;
    });
}

#[test]
fn a_change_that_was_left_half_done_ends_as_it_was_meant() {
    // Somebody gets a vote in the place of another one, in addition, or somebody loses it.
    for meant in [vec![1, 2, 4], vec![1, 2, 3, 4], vec![1, 2]] {
        block_on(async {
            let group = Group::default();
            let meant: BTreeSet<_> = meant.into_iter().map(id).collect();
            let present: Vec<u64> = (1..=4).filter(|number| *number != 3 || meant.contains(&id(3))).collect();
            for number in &present {
                let world = Memory::default();
                let mut log = LogStore::open(&world, &Strict, id(*number), deaf()).await.unwrap();
                let entry = |index, halves: Vec<BTreeSet<NodeId>>| {
                    let members = Membership::new_with_defaults(halves, [NodeId(id(4))]);
                    Entry::new(
                        LogId::new_term_index(u64::from(index > 0), index),
                        Payload::Membership(members),
                    )
                };
                let before: BTreeSet<_> = (1..=3).map(|number| NodeId(id(number))).collect();
                let after = meant.iter().copied().map(NodeId).collect();
                let entries = [entry(0, vec![before.clone()]), entry(1, vec![before, after])];
                log.blocking_append(entries).await.unwrap();
                log.close().await;
                group.place(*number, world);
                group.open(*number).await;
            }
            eventually("one of them leads", || group.leading().is_some()).await;
            change(async || {
                let leader = group.leading().unwrap_or(1);
                group.node(leader).complete_change().await
            })
            .await;
            eventually("all know it", || {
                meant.iter().all(|voter| {
                    let number = present.iter().find(|number| id(**number) == *voter);
                    let members = group.node(*number.unwrap()).state().members;
                    members.voters == meant && !members.joint
                })
            })
            .await;
            group.check_events();
        });
    }
}

#[test]
fn an_idle_group_writes_nothing() {
    block_on(async {
        let group = Group::start(3).await;
        group.propose(0..5).await;
        group.settle(&[1, 2, 3], 5).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let syncs = || (1..=3).map(|number| group.disk(number).syncs()).collect::<Vec<_>>();
        let (leader, before) = (group.leading(), syncs());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(syncs() == before || group.leading() != leader, "heartbeats are written down");
    });
}

#[test]
fn a_failing_disk_stops_the_node_and_the_others_go_on() {
    block_on(async {
        let group = Group::start(3).await;
        group.propose(0..5).await;
        group.settle(&[1, 2, 3], 5).await;
        group.disk(1).set_broken(true);
        group.node(1).propose(b"not to be stored".to_vec());
        eventually("the node stops", || group.node(1).state().role == Role::Stopped).await;
        assert!(group.node(1).state().failure.is_some());
        assert!(group.events(1).iter().any(|event| matches!(event, Event::Failed { .. })));
        eventually("another leads", || group.leading().is_some_and(|leader| leader != 1)).await;
    });
}

#[test]
fn messages_that_lie_about_their_sender_are_refused() {
    block_on(async {
        let group = Group::start(1).await;
        let node = group.node(1);
        node.believe(Believed { pointed: [id(2), id(3)].into(), ..Believed::default() });
        let vote = |committed| {
            let node = NodeId(id(2));
            if committed { Vote::new_committed(9, node) } else { Vote::new(9, node) }
        };
        let ballot = |vote| Request::Vote(Ballot { vote, last: None, transfer: false });
        let append = |vote| Request::Append { vote, prev: None, entries: vec![], commit: None };
        let transfer = |to| Request::Transfer { from: vote(true), to, last: None };
        let table = [
            (id(2), ballot(vote(false)), Ok(())),
            (id(3), ballot(vote(false)), Err(Refusal::Impersonation)),
            (id(2), ballot(vote(true)), Err(Refusal::Impersonation)),
            (id(3), append(vote(true)), Err(Refusal::Impersonation)),
            (id(2), append(vote(false)), Err(Refusal::Impersonation)),
            (id(3), transfer(id(1)), Err(Refusal::Impersonation)),
            (id(2), transfer(id(3)), Err(Refusal::Misdirected)),
        ];
        for (from, request, expected) in table {
            let message = encode_frame(&Frame::Request(1, request.clone()));
            assert_eq!(node.receive(from, message.into()), expected, "{request:?}");
        }
        // Nobody waits for this reply.
        assert_eq!(node.receive(id(2), encode_frame(&Frame::Reply(7, Reply::Appended)).into()), Ok(()));
        assert!(matches!(node.receive(id(2), Bytes::from_static(b"x")), Err(Refusal::Malformed(_))));
    });
}

/// Nodes in one process, joined by function calls.
#[derive(Clone, Default)]
struct Group(Arc<Mutex<BTreeMap<RaftId, Member>>>);

#[derive(Clone, Default)]
struct Member {
    world: Memory,
    journal: Arc<Mutex<Journal>>,
    events: Arc<Mutex<Vec<Event>>>,
    /// Rises with every start.
    life: u64,
    /// The test plays this node: what it is sent stands in `heard`.
    is_puppet: bool,
    heard: Arc<Mutex<Vec<Bytes>>>,
    /// Why what others sent was refused at once.
    refused: Arc<Mutex<Vec<Refusal>>>,
    /// `None` while the node is down.
    consensus: Option<Consensus<Memory, Journal, Wire>>,
}

impl Group {
    /// A group led by its first node.
    async fn start(count: u64) -> Self {
        let group = Self::default();
        group.open(1).await;
        assert!(group.node(1).was_fresh());
        group.node(1).start_group().await.expect("the node is fresh");
        group.leader(1).await;
        for number in 2..=count {
            group.open(number).await;
            change(async || group.node(1).add_learner(id(number)).await).await;
        }
        if count > 1 {
            change(async || group.node(1).change_voters((1..=count).map(id).collect(), false).await).await;
        }
        group
    }

    /// Starts a node on the disk that it has.
    async fn open(&self, number: u64) {
        let member = {
            let mut members = lock(&self.0);
            let member = members.entry(id(number)).or_default();
            member.journal = Arc::default();
            member.life += 1;
            member.clone()
        };
        let settings = Settings {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(800),
            snapshot_every: 20,
            keep_after_snapshot: 0,
            ..Settings::default()
        };
        let events = Arc::clone(&member.events);
        let consensus = Consensus::open(
            member.world,
            Strict,
            id(number),
            settings,
            member.journal,
            Wire { from: id(number), life: member.life, group: self.clone() },
            Arc::new(move |event| lock(&events).push(event)),
        )
        .await
        .expect("the disk is in order");
        // As a server is pointed to the one that began.
        consensus.believe(Believed { pointed: [id(1)].into(), ..Believed::default() });
        lock(&self.0).get_mut(&id(number)).expect("the node was opened").consensus = Some(consensus);
    }

    fn member(&self, number: u64) -> Member {
        lock(&self.0)[&id(number)].clone()
    }

    /// Gives a node a world in which something happened before.
    fn place(&self, number: u64, world: Memory) {
        lock(&self.0).entry(id(number)).or_default().world = world;
    }

    fn node(&self, number: u64) -> Consensus<Memory, Journal, Wire> {
        self.member(number).consensus.expect("the node is up")
    }

    fn disk(&self, number: u64) -> world::Files {
        self.member(number).world.disk
    }

    fn journal(&self, number: u64) -> Journal {
        lock(&self.member(number).journal).clone()
    }

    fn events(&self, number: u64) -> Vec<Event> {
        lock(&self.member(number).events).clone()
    }

    /// No message reaches or leaves the node from here on.
    fn forget(&self, number: u64) {
        let consensus = lock(&self.0).get_mut(&id(number)).expect("the node was opened").consensus.take();
        drop(consensus);
    }

    fn leading(&self) -> Option<u64> {
        let members = lock(&self.0).clone();
        members.iter().find_map(|(id, member)| {
            let state = member.consensus.as_ref()?.state();
            (state.role == Role::Leader).then_some(id.store.0)
        })
    }

    async fn leader(&self, number: u64) {
        eventually("the node leads", || self.node(number).is_leader()).await;
    }

    /// Has whoever leads propose these numbers, each until it is applied: a proposal may be lost with the lead.
    async fn propose(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let command = number.to_be_bytes().to_vec();
            for turn in 0.. {
                assert!(turn < 30_000, "{number} is never applied");
                let leader = self.leading();
                if leader.is_some_and(|leader| self.journal(leader).commands.contains(&command)) {
                    break;
                }
                if turn % 500 == 0 || leader.is_none() {
                    leader.map(|leader| self.node(leader).propose(command.clone()));
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }

    /// Waits until these nodes have applied so many commands, and compares them.
    async fn settle(&self, numbers: &[u64], count: u64) {
        let expected: Vec<Vec<u8>> = (0..count).map(|number| number.to_be_bytes().to_vec()).collect();
        for number in numbers {
            eventually("all commands are applied", || self.journal(*number).commands.len() >= expected.len())
                .await;
            assert_eq!(self.journal(*number).commands, expected, "node {number}");
        }
    }

    /// One leader per term, one command per index, nothing told before it is on disk.
    fn check_events(&self) {
        for (id, member) in lock(&self.0).iter() {
            let unexpected = |refusal: &&Refusal| **refusal != Refusal::Misdirected;
            let refused = lock(&member.refused).clone();
            assert_eq!(refused.iter().find(unexpected), None, "{id} refuses what honest nodes send");
        }
        let mut leaders = BTreeMap::new();
        let mut applied = BTreeMap::new();
        let members = lock(&self.0).clone();
        for (id, member) in members {
            for event in lock(&member.events).iter() {
                match event {
                    Event::Leader { term, me: true, .. } => {
                        assert_eq!(*leaders.entry(*term).or_insert(id), id, "two leaders of term {term}");
                    }
                    Event::Applied { index, term, digest } => {
                        let entry = (*term, *digest);
                        assert_eq!(*applied.entry(*index).or_insert(entry), entry, "two entries at {index}");
                    }
                    Event::Leader { .. }
                    | Event::Voted { .. }
                    | Event::VoteSynced { .. }
                    | Event::Appended { .. }
                    | Event::Truncated { .. }
                    | Event::MembersChanged { .. }
                    | Event::SnapshotTaken { .. }
                    | Event::SnapshotInstalled { .. }
                    | Event::Failed { .. } => {}
                    Event::Refused { .. } => panic!("{event:?} of what honest nodes send"),
                }
            }
        }
    }
}

/// Delivers at once, or not at all.
#[derive(Clone)]
struct Wire {
    from: RaftId,
    /// What an earlier life of the node still says is not heard.
    life: u64,
    group: Group,
}

impl Transport for Wire {
    fn send(&self, to: RaftId, _: Channel, message: Bytes) -> Result<(), LinkError> {
        let target = {
            let members = lock(&self.group.0);
            let sender = members.get(&self.from);
            let up = sender.is_some_and(|sender| sender.consensus.is_some() && sender.life == self.life);
            members.get(&to).filter(|_| up).cloned()
        };
        let target = target.ok_or(LinkError::Unreachable)?;
        if target.is_puppet {
            lock(&target.heard).push(message);
            return Ok(());
        }
        let taken = target.consensus.ok_or(LinkError::Unreachable)?.receive(self.from, message);
        if let Err(refusal) = taken {
            lock(&target.refused).push(refusal);
        }
        Ok(())
    }
}

/// Remembers all commands, once each.
#[derive(Clone, Debug, Default)]
struct Journal {
    commands: Vec<Vec<u8>>,
    members: Members,
    /// How many commands there were in the last snapshot of a peer, and what a command says that starts with [`FOLLOW`].
    followed: Option<u64>,
}

const FOLLOW: &[u8] = b"follow";

fn read(snapshot: &[u8]) -> Result<Vec<Vec<u8>>, CorruptSnapshot> {
    postcard::from_bytes(snapshot).map_err(|error| CorruptSnapshot(error.to_string()))
}

impl Machine for Journal {
    fn apply(&mut self, _: u64, _: u64, command: &[u8]) {
        if !self.commands.iter().any(|known| known == command) {
            self.commands.push(command.to_vec());
        }
        if let Some([to]) = command.strip_prefix(FOLLOW) {
            self.followed = self.followed.max(Some(u64::from(*to)));
        }
    }

    fn members(&mut self, _: u64, members: &Members) {
        self.members = members.clone();
    }

    fn snapshot(&self) -> Vec<u8> {
        postcard::to_allocvec(&self.commands).expect("memory suffices")
    }

    fn restore(&mut self, snapshot: &[u8], source: Source) -> Result<(), CorruptSnapshot> {
        self.commands = read(snapshot)?;
        if source == Source::Peer {
            self.followed = self.followed.max(Some(self.commands.len() as u64));
        }
        Ok(())
    }

    /// Commands never go away.
    fn examine(&self, snapshot: &[u8]) -> Result<(), CorruptSnapshot> {
        let commands = read(snapshot)?;
        let all = self.commands.iter().all(|known| commands.contains(known));
        if all { Ok(()) } else { Err(CorruptSnapshot("it lacks a command".to_owned())) }
    }

    fn followed(&self) -> Option<u64> {
        self.followed
    }

    fn follow(&mut self, followed: Option<u64>) {
        self.followed = followed;
    }
}

/// Enforces everything but one rule.
#[derive(Clone, Copy, Debug)]
struct Without(Check);

impl Checks for Without {
    fn enforce(&self, check: Check) -> bool {
        check != self.0
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited in vain: {what}");
}

/// Repeats a change of membership until earlier ones are through.
async fn change(attempt: impl AsyncFn() -> Result<u64, ChangeError>) {
    for _ in 0..1500 {
        match attempt().await {
            Ok(_) => return,
            Err(ChangeError::InProgress) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("failed to {error}"),
        }
    }
    panic!("earlier changes never ended");
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let runtime = runtime.expect("threads can be started");
    runtime.block_on(test);
    // Nodes that a test cut off wait for ever.
    runtime.shutdown_background();
}

fn id(number: u64) -> RaftId {
    RaftId { peer: PeerId([7; 32]), store: StoreId(number) }
}

fn log_id(index: u64) -> LogId {
    LogId::new_term_index(1, index)
}

fn entry(index: u64, command: Vec<u8>) -> Entry {
    Entry::new(log_id(index), Payload::Normal(Command(command.into())))
}

fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(|index| entry(index, index.to_be_bytes().to_vec())).collect()
}

fn deaf() -> OnEvent {
    Arc::new(|_| ())
}

fn ears() -> (Arc<Mutex<Vec<Event>>>, OnEvent) {
    let heard: Arc<Mutex<Vec<Event>>> = Arc::default();
    let events = Arc::clone(&heard);
    (heard, Arc::new(move |event| lock(&events).push(event)))
}
