//! Peers that lie: whoever is no member is refused by name, and a member cannot stop a node by what it sends.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select;
use openraft::entry::RaftEntry;
use zipnet_node::consensus::codec::{Ballot, Frame, Reply, Request, decode_frame, encode_frame};
use zipnet_node::consensus::guard::{COUNTER_MAX, TERM_AHEAD_MAX};
use zipnet_node::consensus::types::{
    Entry, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Vote,
};
use zipnet_node::consensus::{Believed, ChangeError, Command, Consensus, Event, NodeId, Refusal, Role};

use crate::world::{Memory, lock};
use crate::{FOLLOW, Group, Journal, Wire, block_on, change, eventually, id};

type Node = Consensus<Memory, Journal, Wire>;

#[test]
fn whoever_is_no_member_is_refused_and_changes_nothing() {
    block_on(async {
        let group = Group::start(3).await;
        group.propose(0..10).await;
        group.settle(&[1, 2, 3], 10).await;
        let far = LogId::new_term_index(1000, 1_000_000);
        let vote = Vote::new_committed(1000, NodeId(id(9)));
        let ballot = Ballot { vote: Vote::new(1000, NodeId(id(9))), last: Some(far), transfer: true };
        let requests = [
            snapshot(vote, far, members(&[9]), &[]),
            Request::Append { vote, prev: None, entries: vec![], commit: None },
            Request::Append { vote, prev: None, entries: vec![entry(1000, 0, vec![1])], commit: Some(far) },
            Request::Vote(ballot),
            Request::PreVote(ballot),
        ];
        for number in 1..=3 {
            // Whatever points to it is no excuse for the first server, which was pointed to itself.
            group.node(number).believe(Believed { pointed: [id(1)].into(), ..Believed::default() });
            let before = group.node(number).state();
            for request in &requests {
                assert_eq!(
                    send(&group.node(number), 9, request.clone()),
                    Err(Refusal::NotMember),
                    "{request:?}"
                );
            }
            let transfer = Request::Transfer { from: vote, to: id(number), last: None };
            assert_eq!(send(&group.node(number), 9, transfer), Err(Refusal::NotMember));
            let after = group.node(number).state();
            assert_eq!(
                (before.term, before.committed, before.members),
                (after.term, after.committed, after.members)
            );
        }
        group.propose(10..20).await;
        group.settle(&[1, 2, 3], 20).await;
        group.check_events();
    });
}

#[test]
fn whoever_is_about_to_found_a_group_gives_no_vote_before() {
    block_on(async {
        let group = Group::default();
        group.open(1).await;
        let voters: BTreeSet<_> = (1..=3).map(id).collect();
        let named = || Believed { named: voters.clone(), ..Believed::default() };
        group.node(1).believe(Believed { holds_vote: true, ..named() });
        let ballot = Ballot { vote: Vote::new(1, NodeId(id(2))), last: None, transfer: false };
        for request in [Request::Vote(ballot), Request::PreVote(ballot)] {
            assert_eq!(send(&group.node(1), 2, request), Err(Refusal::Busy));
        }
        // The same goes for the word of a leader that brings no log, or one that begins with nobody in the group.
        let leads = Vote::new_committed(1, NodeId(id(2)));
        let blank = Entry::new(LogId::new_term_index(1, 0), Payload::Blank);
        for entries in [vec![], vec![blank]] {
            let append = Request::Append { vote: leads, prev: None, entries, commit: None };
            assert_eq!(send(&group.node(1), 2, append), Err(Refusal::Busy));
        }
        // Whoever goes on from an entry is told that it is not here.
        let prev = Some(LogId::new_term_index(1, 7));
        let append = Request::Append { vote: leads, prev, entries: vec![], commit: None };
        assert_eq!(send(&group.node(1), 2, append), Ok(()));
        // And rubbish is no log.
        let meta = SnapshotMeta { last_log_id: prev, last_membership: StoredMembership::default() };
        send(&group.node(1), 2, Request::Snapshot(leads, meta, Bytes::from_static(b"rubbish"))).ok();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(group.node(1).state().term, 0);
        group.node(1).found_group(voters.clone()).await.expect("it has given none");
        let later = Ballot {
            vote: Vote::new(9, NodeId(id(2))),
            last: Some(LogId::new_term_index(0, 0)),
            transfer: false,
        };
        eventually("it votes", || send(&group.node(1), 2, Request::Vote(later)).is_ok()).await;

        // Whoever has voted cannot found any more: this is what the rule is for.
        group.open(3).await;
        group.node(3).believe(named());
        send(&group.node(3), 2, Request::Vote(ballot)).expect("nothing holds it back");
        eventually("it has voted", || group.node(3).state().term == 1).await;
        assert_eq!(group.node(3).found_group(voters.clone()).await, Err(ChangeError::AlreadyStarted));
    });
}

#[test]
fn what_is_refused_leaves_no_vote_behind_in_whoever_is_about_to_found_a_group() {
    block_on(async {
        let voters: BTreeSet<_> = (1..=3).map(id).collect();
        let leads = Vote::new_committed(1, NodeId(id(2)));
        let at = |index| LogId::new_term_index(1, index);
        let append = |entries, commit| Request::Append { vote: leads, prev: None, entries, commit };
        let first = || membership(1, 0, &[1, 2, 3]);
        let nowhere = SnapshotMeta { last_log_id: None, last_membership: StoredMembership::default() };
        let rounds = Bytes::from(postcard::to_allocvec(&[vec![1_u8]]).expect("memory suffices"));
        let liars = [
            // Logs that no leader has: a second change before the first one is agreed on, and agreement on what is not in it.
            append(vec![first(), membership(1, 1, &[1, 2])], None),
            append(vec![first()], Some(LogId::new_term_index(0, 0))),
            // Snapshots that end nowhere, or with a membership of which they do not say where it stands.
            Request::Snapshot(leads, nowhere, rounds.clone()),
            Request::Snapshot(
                leads,
                SnapshotMeta {
                    last_log_id: Some(at(7)),
                    last_membership: StoredMembership::new(None, members(&[1, 2, 3])),
                },
                rounds,
            ),
        ];
        for request in liars {
            let group = Group::default();
            group.open(1).await;
            let node = group.node(1);
            node.believe(Believed { named: voters.clone(), holds_vote: true, ..Believed::default() });
            if send(&node, 2, request.clone()).is_ok() {
                eventually("it is refused", || !group.refused(1).is_empty()).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(node.state().term, 0, "{request:?}");
            node.found_group(voters.clone()).await.expect("it has followed nobody");
        }
    });
}

#[test]
fn a_retired_voter_is_not_heard() {
    block_on(async {
        let group = Group::start(3).await;
        let retired = Believed { retired: [id(2).peer].into(), ..Believed::default() };
        group.node(1).believe(retired);
        let vote = Vote::new_committed(9, NodeId(id(2)));
        let append = Request::Append { vote, prev: None, entries: vec![], commit: None };
        assert_eq!(send(&group.node(1), 2, append), Err(Refusal::Retired));
        assert_eq!(group.node(1).state().role, Role::Leader);
    });
}

#[test]
fn a_joiner_is_added_by_a_leader_that_its_pointer_names() {
    block_on(async {
        let group = Group::start(3).await;
        group.propose(0..10).await;
        group.open(4).await;
        let joiner = group.node(4);
        joiner.believe(Believed { pointed: [id(2)].into(), ..Believed::default() });
        let leader = group.node(1);
        assert!(leader.is_leader());
        change(async || leader.add_learner(id(4)).await).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(joiner.state().last_log, None, "it was not pointed to the leader, and nobody named it");
        assert!(group.refused(4).contains(&Refusal::NotMember));

        // What the server that it was pointed to says of the voters, the node passes on.
        let (_, voters) = group.node(2).voters();
        assert_eq!(voters, (1..=3).map(id).collect());
        joiner.believe(Believed { pointed: [id(2)].into(), named: voters, ..Believed::default() });
        group.settle(&[4], 10).await;
        // From here on its own log says who votes.
        joiner.believe(Believed::default());
        change(async || leader.change_voters((1..=4).map(id).collect(), false).await).await;
        group.propose(10..20).await;
        group.settle(&[1, 2, 3, 4], 20).await;
    });
}

#[test]
fn a_learner_may_stand_but_not_lead() {
    block_on(async {
        let group = Group::start(1).await;
        group.puppet(2);
        change(async || group.node(1).add_learner(id(2)).await).await;
        let node = group.node(1);
        node.believe(Believed::default());
        let term = node.state().term;
        let ballot = Ballot { vote: Vote::new(term + 1, NodeId(id(2))), last: None, transfer: true };
        assert_eq!(send(&node, 2, Request::PreVote(ballot)), Ok(()));
        assert_eq!(send(&node, 2, Request::Vote(ballot)), Ok(()));
        let vote = Vote::new_committed(term + 1, NodeId(id(2)));
        let append = Request::Append { vote, prev: None, entries: vec![], commit: None };
        assert_eq!(send(&node, 2, append), Err(Refusal::NotMember));
        // The leader did not ask for this election, whatever a learner says.
        let replies = eventually_heard(&group, 2, 2).await;
        let refused = |reply: &Reply| matches!(reply, Reply::Voted { granted: false, .. });
        assert!(replies.iter().filter(|reply| refused(reply)).count() >= 1, "{replies:?}");
        assert!(node.is_leader());
    });
}

#[test]
fn impossible_numbers_are_refused_before_anything_is_believed() {
    block_on(async {
        let (_group, node) = followed_puppet().await;
        let term = node.state().term;
        let vote = |term| Vote::new_committed(term, NodeId(id(1)));
        let append = |vote, prev, entries, commit| Request::Append { vote, prev, entries, commit };
        let at = LogId::new_term_index;
        let table = [
            append(vote(term + TERM_AHEAD_MAX + 1), None, vec![], None),
            append(vote(COUNTER_MAX + 1), None, vec![], None),
            append(vote(term), Some(at(term + 1, 3)), vec![], None),
            append(vote(term), None, vec![], Some(at(term + 1, 3))),
            append(vote(term), None, vec![], Some(at(term, COUNTER_MAX + 1))),
            snapshot(vote(term), at(term + 1, 300), members(&[1, 2]), &[]),
            snapshot(vote(term), at(term, COUNTER_MAX + 1), members(&[1, 2]), &[]),
            Request::Vote(Ballot {
                vote: Vote::new(term + TERM_AHEAD_MAX + 1, NodeId(id(1))),
                last: None,
                transfer: true,
            }),
        ];
        for request in table {
            assert_eq!(send(&node, 1, request.clone()), Err(Refusal::Numbers), "{request:?}");
        }
        // Its membership is newer than its end, in the one way that the order of entries does not show.
        let meta = SnapshotMeta {
            last_log_id: Some(at(term, 300)),
            last_membership: StoredMembership::new(Some(at(term - 1, 400)), members(&[1, 2])),
        };
        assert_eq!(send(&node, 1, Request::Snapshot(vote(term), meta, Bytes::new())), Err(Refusal::Numbers));
        assert_eq!(node.state().term, term);
    });
}

#[test]
fn what_is_committed_is_not_contradicted_and_a_leader_does_not_contradict_itself() {
    block_on(async {
        let (group, node) = followed_puppet().await;
        let (term, at) = (5, LogId::new_term_index);
        let vote = Vote::new_committed(term, NodeId(id(1)));
        let append =
            |prev, entries, commit| Request::Append { vote, prev: Some(prev), entries, commit: Some(commit) };
        let good = (1..=9).map(|index| entry(5, index, vec![1])).collect();
        ask(&group, &node, append(at(5, 0), good, at(5, 6))).await;
        eventually("it is applied", || node.state().applied == Some(6)).await;
        let contradictions = [
            // At and below what is committed.
            append(at(4, 3), vec![], at(5, 6)),
            append(at(5, 5), vec![entry(5, 6, vec![2]), entry(5, 7, vec![2])], at(4, 7)),
            // A committed entry that is not in the log, which would have all of it applied.
            append(at(5, 9), vec![], at(4, 8)),
            append(at(5, 8), vec![entry(5, 9, vec![])], at(3, 9)),
            // Two memberships, neither of which is committed.
            append(at(5, 9), vec![membership(5, 10, &[1, 2]), membership(5, 11, &[1, 2, 3])], at(5, 9)),
            // Snapshots that go back, in term or in membership.
            snapshot(vote, at(4, 6), members(&[1, 2]), &[]),
            snapshot(vote, at(4, 20), members(&[1, 2]), &[]),
        ];
        for request in contradictions {
            let before = node.state();
            let refused = group.refused(2).len();
            assert_eq!(
                send(&node, 1, request.clone()),
                Ok(()),
                "what it contradicts is found out at its turn"
            );
            eventually("it is refused", || group.refused(2).len() > refused).await;
            assert_eq!(group.refused(2).last(), Some(&Refusal::Contradiction), "{request:?}");
            let after = node.state();
            assert_eq!((before.last_log, before.committed), (after.last_log, after.committed), "{request:?}");
        }
        // Another leader of the same term.
        let other = Vote::new_committed(term, NodeId(id(3)));
        let request = Request::Append { vote: other, prev: None, entries: vec![], commit: None };
        assert_eq!(send(&node, 3, request), Ok(()));
        eventually("it is refused", || group.refused(2).len() == 8).await;
        // What is not committed, another leader replaces.
        let vote = Vote::new_committed(term + 1, NodeId(id(3)));
        let entries = vec![entry(6, 8, vec![3])];
        let request = Request::Append { vote, prev: Some(at(5, 7)), entries, commit: Some(at(6, 8)) };
        assert_eq!(send(&node, 3, request), Ok(()));
        eventually("it is taken", || node.state().applied == Some(8)).await;
        assert!(!group.failed(2));
    });
}

#[test]
fn a_snapshot_that_the_machine_refuses_leaves_the_node_as_it_was() {
    block_on(async {
        let (group, node) = followed_puppet().await;
        let at = LogId::new_term_index;
        let vote = Vote::new_committed(5, NodeId(id(1)));
        let entries = (1..=5).map(|index| entry(5, index, vec![index as u8])).collect();
        ask(&group, &node, Request::Append { vote, prev: Some(at(5, 0)), entries, commit: Some(at(5, 5)) })
            .await;
        // It lacks what was applied in the very moment before: the machine is asked when all that is done.
        let lacking: Vec<_> = (1..=4).map(|byte| vec![byte]).collect();
        assert_eq!(send(&node, 1, snapshot(vote, at(5, 50), members(&[1, 2]), &lacking)), Ok(()));
        eventually("it is refused", || group.refused(2) == [Refusal::Snapshot]).await;
        assert_eq!(group.journal(2).followed, None);
        assert_eq!(
            send(
                &node,
                1,
                Request::Snapshot(vote, meta(at(5, 50), members(&[1, 2])), Bytes::from_static(&[9]))
            ),
            Ok(())
        );
        eventually("it is refused", || group.refused(2).len() == 2).await;
        assert_eq!(node.state().applied, Some(5));

        let whole: Vec<_> = (1..=7).map(|byte| vec![byte]).collect();
        let reply = ask(&group, &node, snapshot(vote, at(5, 50), members(&[1, 2]), &whole)).await;
        assert_eq!(reply, Reply::SnapshotInstalled(vote));
        assert_eq!((node.state().applied, group.journal(2).followed), (Some(50), Some(7)));
        // Once more, and one that is older: they are known, and change nothing.
        for index in [50, 40] {
            let reply = ask(&group, &node, snapshot(vote, at(5, index), members(&[1, 2]), &lacking)).await;
            assert_eq!(reply, Reply::SnapshotInstalled(vote));
        }
        assert_eq!(group.journal(2).commands, whole);

        // That it relied on others, it remembers whatever happens, and beside the snapshot.
        group.disk(2).crash();
        group.forget(2);
        group.open(2).await;
        assert_eq!((group.journal(2).commands, group.journal(2).followed), (whole, Some(7)));
    });
}

#[test]
fn what_a_command_makes_the_machine_rely_on_is_on_disk_before_the_next_is_applied() {
    block_on(async {
        let (group, node) = followed_puppet().await;
        let at = LogId::new_term_index;
        let vote = Vote::new_committed(5, NodeId(id(1)));
        let entries = vec![entry(5, 1, [FOLLOW, &[9]].concat()), entry(5, 2, vec![1])];
        ask(&group, &node, Request::Append { vote, prev: Some(at(5, 0)), entries, commit: Some(at(5, 2)) })
            .await;
        eventually("it is applied", || node.state().applied == Some(2)).await;
        group.disk(2).crash();
        group.forget(2);
        group.open(2).await;
        assert_eq!(group.journal(2).followed, Some(9), "although no entry was applied again");
    });
}

#[test]
fn a_snapshot_replaces_a_longer_term_that_was_never_committed() {
    block_on(async {
        let (group, node) = followed_puppet().await;
        let at = LogId::new_term_index;
        // A leader of term 7 has failed before anything of it was committed.
        let vote = Vote::new_committed(7, NodeId(id(1)));
        let entries = (1..=9).map(|index| entry(7, index, vec![1])).collect();
        ask(&group, &node, Request::Append { vote, prev: Some(at(5, 0)), entries, commit: None }).await;
        // The next one has a longer log of an earlier term.
        let vote = Vote::new_committed(8, NodeId(id(3)));
        let reply = ask_as(&group, &node, 3, snapshot(vote, at(6, 30), members(&[1, 2, 3]), &[])).await;
        assert_eq!(reply, Reply::SnapshotInstalled(vote));
        assert_eq!((node.state().applied, node.state().last_log), (Some(30), Some(30)));
        assert!(!group.failed(2));
    });
}

#[test]
fn answers_do_not_make_a_leader_out_of_the_one_who_asked() {
    block_on(async {
        let group = led_by_puppets().await;
        let node = group.node(1);
        let term = node.state().term;
        let me = NodeId(id(1));
        for (reply, expected) in [
            (Reply::HigherVote(Vote::new_committed(term + 1, me)), Refusal::Impersonation),
            (Reply::HigherVote(Vote::new(term + 9, me)), Refusal::Impersonation),
            (Reply::HigherVote(Vote::new_committed(COUNTER_MAX + 1, NodeId(id(2)))), Refusal::Numbers),
            (Reply::HigherVote(Vote::new(term + TERM_AHEAD_MAX + 1, NodeId(id(2)))), Refusal::Numbers),
        ] {
            let number = group.asked(2).await;
            let message = encode_frame(&Frame::Reply(number, reply));
            assert_eq!(node.receive(id(2), message.clone().into()), Err(expected), "{reply:?}");
            assert_eq!(node.receive(id(2), message.into()), Ok(()), "nobody waits for a second answer");
        }
        assert_eq!((node.state().term, node.state().role), (term, Role::Leader));
    });
}

/// Thousands of messages from two members that know the log, each of which is nearly right.
#[test]
fn no_message_of_a_member_stops_a_follower() {
    let seen = Mutex::new(BTreeMap::<&str, u32>::new());
    for seed in 1..=6 {
        block_on(async {
            let (group, node) = followed_puppet().await;
            // Whatever memberships they make up: both are heard to the end.
            node.believe(Believed { pointed: [id(1), id(3)].into(), ..Believed::default() });
            let mut random = Random(seed);
            let mut ids: BTreeMap<u64, LogId> = [(0, LogId::new_term_index(5, 0))].into();
            for turn in 0..700 {
                let request = any_request(&mut random, &node, &ids);
                let sender = match &request {
                    Request::Append { vote, .. } | Request::Snapshot(vote, ..) => vote,
                    Request::Vote(ballot) | Request::PreVote(ballot) => &ballot.vote,
                    Request::Transfer { from, .. } => from,
                };
                let from = if random.below(50) == 0 { 4 } else { sender.leader_id.voted_for.0.store.0 };
                let taken = send(&node, from, request.clone());
                // Some come together, most one after the other.
                if random.below(4) > 0 {
                    tokio::time::sleep(Duration::from_micros(500)).await;
                }
                // What it has by now, as far as it shows.
                if let Request::Append { entries, .. } = &request
                    && entries.last().map(|entry| entry.log_id.index) == node.state().last_log
                {
                    ids.extend(entries.iter().map(|entry| (entry.log_id.index, entry.log_id)));
                }
                for event in lock(&group.member(2).events).iter() {
                    if let Event::Applied { index, term, .. } = event {
                        ids.insert(*index, LogId::new_term_index(*term, *index));
                    }
                }
                ids.retain(|index, _| Some(*index) <= node.state().last_log);
                assert!(
                    !group.failed(2),
                    "seed {seed}, turn {turn}: {request:?}, {taken:?}, {:?}",
                    group.events(2).last()
                );
                drop((group.take_heard(1), group.take_heard(3)));
            }
            // It goes on: whoever leads next is heard, once what came before is through.
            assert_ne!(node.state().role, Role::Stopped);
            let mut conflicts = false;
            for _ in 0..200 {
                let vote = Vote::new_committed(node.state().term + 1, NodeId(id(1)));
                let beyond =
                    LogId::new_term_index(vote.leader_id.term, node.state().last_log.unwrap_or(0) + 9);
                let request = Request::Append { vote, prev: Some(beyond), entries: vec![], commit: None };
                drop(group.take_heard(1));
                if send(&node, 1, request) == Ok(()) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let answers = group.take_heard(1);
                conflicts =
                    answers.iter().any(|answer| decode_frame(answer) == Ok(Frame::Reply(7, Reply::Conflict)));
                if conflicts {
                    break;
                }
            }
            assert!(conflicts, "seed {seed}: {:?} {:?}", node.state(), group.refused(2).last());
            assert!(!group.failed(2));
            for event in group.events(2) {
                let kind = match event {
                    Event::Applied { .. } => "applied",
                    Event::Truncated { .. } => "truncated",
                    Event::SnapshotInstalled { .. } => "installed",
                    Event::Refused { refusal, .. } => refusal.name(),
                    _ => continue,
                };
                *seen.lock().expect("no test panics with it").entry(kind).or_insert(0) += 1;
            }
            group.node(2).shutdown().await;
        });
    }
    // Nearly right means that much of it is taken.
    let seen = seen.into_inner().expect("no test panics with it");
    for (kind, least) in
        [("applied", 50), ("truncated", 10), ("installed", 5), ("contradiction", 100), ("snapshot", 5)]
    {
        assert!(seen.get(kind).is_some_and(|count| *count >= least), "{kind}: {seen:?}");
    }
}

/// A leader whose followers answer with whatever comes to their mind, now and then as they should.
#[test]
fn no_answer_of_a_member_stops_a_leader() {
    for seed in 1..=4 {
        block_on(async {
            let group = led_by_puppets().await;
            let node = group.node(1);
            let mut random = Random(seed + 100);
            let mut led = 0;
            for turn in 0..1500_u64 {
                if node.is_leader() {
                    led += 1;
                    node.propose(turn.to_be_bytes().to_vec());
                }
                for puppet in [2, 3] {
                    let heard = group.take_heard(puppet);
                    for message in heard {
                        let Ok(Frame::Request(number, request)) = decode_frame(&message) else { continue };
                        let reply = if random.below(3) > 0 {
                            honest(&request)
                        } else {
                            any_reply(&mut random, &node, &request)
                        };
                        // Whether it is taken does not matter here.
                        node.receive(id(puppet), encode_frame(&Frame::Reply(number, reply)).into())
                            .unwrap_or_default();
                    }
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(!group.failed(1), "seed {seed}, turn {turn}: {:?}", group.events(1).last());
            }
            assert_ne!(node.state().role, Role::Stopped);
            assert!(led > 100, "it has hardly led: {led}");
            group.node(1).shutdown().await;
        });
    }
}

#[test]
fn a_lost_link_is_not_waited_for() {
    block_on(async {
        let group = Group::start(1).await;
        group.propose(0..5).await;
        let node = group.node(1);
        group.puppet(2);
        change(async || node.add_learner(id(2)).await).await;
        let asked = || {
            let heard = group.heard(2);
            let requests = heard.iter().filter(|message| {
                let request = decode_frame(message);
                matches!(request, Ok(Frame::Request(_, Request::Append { entries, .. })) if !entries.is_empty())
            });
            requests.count()
        };
        // It takes what it is sent and says nothing, so that it is waited for longer and longer: in the end for seconds.
        eventually("it was asked again and again", || asked() >= 7).await;
        let before = asked();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(asked(), before, "it is waited for");
        node.parted(id(2));
        tokio::time::sleep(Duration::from_secs(1)).await;
        // With the patience that a first request is met with.
        assert!(asked() >= before + 2, "{} and then {}", before, asked());
    });
}

/// A node whose log was begun by a leader that the test plays, with a vote for itself, the leader and a third.
async fn followed_puppet() -> (Group, Node) {
    let group = Group::default();
    group.puppet(1);
    group.puppet(3);
    group.open(2).await;
    let node = group.node(2);
    let vote = Vote::new_committed(5, NodeId(id(1)));
    let entries = vec![membership(5, 0, &[1, 2, 3])];
    let commit = Some(LogId::new_term_index(5, 0));
    let reply = ask(&group, &node, Request::Append { vote, prev: None, entries, commit }).await;
    assert_eq!(reply, Reply::Appended);
    eventually("it is applied", || node.state().applied == Some(0)).await;
    node.believe(Believed::default());
    (group, node)
}

/// A node that leads two others that the test plays.
async fn led_by_puppets() -> Group {
    let group = Group::start(1).await;
    let node = group.node(1);
    group.puppet(2);
    group.puppet(3);
    let changing = async {
        for number in [2, 3] {
            change(async || node.add_learner(id(number)).await).await;
        }
        change(async || node.change_voters((1..=3).map(id).collect(), false).await).await;
    };
    let answering = async {
        loop {
            for puppet in [2, 3] {
                for message in group.take_heard(puppet) {
                    if let Ok(Frame::Request(number, request)) = decode_frame(&message) {
                        let reply = encode_frame(&Frame::Reply(number, honest(&request)));
                        node.receive(id(puppet), reply.into()).expect("it was asked");
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    select(pin!(changing), pin!(answering)).await;
    node.believe(Believed::default());
    group
}

fn honest(request: &Request) -> Reply {
    match request {
        Request::Append { .. } => Reply::Appended,
        Request::Vote(ballot) => Reply::Voted { vote: ballot.vote, granted: true, last: None },
        Request::PreVote(ballot) => {
            let before = Vote::new(ballot.vote.leader_id.term - 1, NodeId(id(1)));
            Reply::Voted { vote: before, granted: true, last: None }
        }
        Request::Snapshot(vote, ..) => Reply::SnapshotInstalled(*vote),
        Request::Transfer { .. } => Reply::Transferring,
    }
}

fn any_reply(random: &mut Random, node: &Node, request: &Request) -> Reply {
    let state = node.state();
    let vote = any_vote(random, state.term);
    let near = [state.committed.unwrap_or(0), state.last_log.unwrap_or(0)];
    let place = any_id(random, state.term, &near);
    match random.below(9) {
        0 => Reply::AppendedUpTo(place),
        1 | 2 => Reply::Conflict,
        // Often enough that it leads most of the time.
        3 if random.below(8) == 0 => Reply::HigherVote(vote),
        4 => Reply::Voted { vote, granted: random.below(2) == 0, last: place },
        5 if random.below(8) == 0 => Reply::SnapshotInstalled(vote),
        6 => match request {
            Request::Append { prev, .. } => Reply::AppendedUpTo(*prev),
            _ => Reply::Appended,
        },
        7 => Reply::LogBehind(place, None),
        _ => Reply::Failed,
    }
}

fn any_request(random: &mut Random, node: &Node, ids: &BTreeMap<u64, LogId>) -> Request {
    let state = node.state();
    let leader = match state.leader {
        Some(leader) if leader != id(2) && random.below(6) > 0 => leader.store.0,
        _ => 1 + 2 * random.below(2),
    };
    let term = match random.below(12) {
        0 => state.term + 1,
        1 => state.term.saturating_sub(1),
        2 => any_number(random, &[state.term]),
        _ => state.term,
    };
    let vote = Vote::new_committed(term, NodeId(id(leader)));
    let near = [state.committed.unwrap_or(0), state.last_log.unwrap_or(0), state.snapshot.unwrap_or(0)];
    let known = |random: &mut Random, index: u64| match ids.get(&index) {
        Some(known) if random.below(6) > 0 => *known,
        _ => LogId::new_term_index(any_number(random, &[term]).min(term), index),
    };
    match random.below(20) {
        0..=11 => {
            let place = any_number(random, &near).min(COUNTER_MAX);
            let prev = (random.below(12) > 0).then(|| known(random, place));
            let first = prev.map_or(0, |prev| prev.index + 1);
            let mut entries = Vec::new();
            let mut last = prev.map_or(0, |prev| prev.committed_leader_id().term);
            for index in first..first + random.below(5) {
                let of = match ids.get(&index) {
                    Some(known) if random.below(3) > 0 => known.committed_leader_id().term,
                    _ => term,
                };
                last = last.max(of);
                let made = if random.below(5) == 0 {
                    let voters: BTreeSet<u64> = (0..=random.below(3)).map(|_| 1 + random.below(4)).collect();
                    membership(last, index, &voters.into_iter().collect::<Vec<_>>())
                } else {
                    entry(last, index, vec![random.below(5) as u8])
                };
                entries.push(made);
            }
            let commit = match random.below(4) {
                0 => None,
                1 => entries.last().map(|entry| entry.log_id).or(prev),
                2 => {
                    let place = any_number(random, &near);
                    Some(known(random, place))
                }
                _ => any_id(random, term, &near),
            };
            Request::Append { vote, prev, entries, commit }
        }
        12..=15 => {
            let place = any_number(random, &near);
            let last = known(random, place);
            let at = match random.below(3) {
                0 => last,
                1 => LogId::new_term_index(5, 0),
                _ => any_id(random, term, &near).unwrap_or(last),
            };
            let voters: Vec<u64> = (1..=1 + random.below(3)).collect();
            let meta = SnapshotMeta {
                last_log_id: Some(last),
                last_membership: StoredMembership::new(Some(at), members(&voters)),
            };
            let commands: Vec<Vec<u8>> = (0..random.below(7)).map(|byte| vec![byte as u8]).collect();
            Request::Snapshot(vote, meta, postcard::to_allocvec(&commands).expect("memory suffices").into())
        }
        16 | 17 => {
            let ballot = Ballot {
                vote: Vote::new(term + random.below(2), NodeId(id(leader))),
                last: any_id(random, term, &near),
                transfer: random.below(2) == 0,
            };
            if random.below(2) == 0 { Request::Vote(ballot) } else { Request::PreVote(ballot) }
        }
        18 => Request::Transfer { from: vote, to: id(2), last: any_id(random, term, &near) },
        _ => Request::Append { vote, prev: None, entries: vec![], commit: any_id(random, term, &near) },
    }
}

fn any_id(random: &mut Random, term: u64, near: &[u64]) -> Option<LogId> {
    let of = if random.below(2) == 0 { term } else { any_number(random, &[term]) };
    (random.below(8) > 0).then(|| LogId::new_term_index(of.min(1 << 61), any_number(random, near)))
}

fn any_vote(random: &mut Random, term: u64) -> Vote {
    let node = NodeId(id(1 + random.below(4)));
    let term = if random.below(3) == 0 { any_number(random, &[term]) } else { term };
    if random.below(2) == 0 { Vote::new(term, node) } else { Vote::new_committed(term, node) }
}

/// Near one of these, and sometimes at an end of the range.
fn any_number(random: &mut Random, near: &[u64]) -> u64 {
    let at = near[usize::try_from(random.below(near.len() as u64)).expect("it is short")];
    match random.below(24) {
        0 => (1 << 62) - 1 - random.below(2),
        // Not the highest itself: a snapshot that ends there ends what can be tried.
        1 => COUNTER_MAX + 1 + random.below(2),
        2 => 0,
        3 => at + TERM_AHEAD_MAX + random.below(2),
        4..=8 => at.saturating_sub(random.below(4)),
        _ => (at + random.below(3)).min((1 << 62) - 1),
    }
}

/// Sends a request as this node.
fn send(node: &Node, from: u64, request: Request) -> Result<(), Refusal> {
    // The number does not matter to whoever does not wait for the reply.
    node.receive(id(from), encode_frame(&Frame::Request(7, request)).into())
}

/// Sends a request as the first node and waits for the reply.
async fn ask(group: &Group, node: &Node, request: Request) -> Reply {
    ask_as(group, node, 1, request).await
}

async fn ask_as(group: &Group, node: &Node, from: u64, request: Request) -> Reply {
    drop(group.take_heard(from));
    assert_eq!(send(node, from, request), Ok(()));
    eventually_heard(group, from, 1).await[0]
}

/// The replies that came to a node that the test plays, once there are so many.
async fn eventually_heard(group: &Group, puppet: u64, count: usize) -> Vec<Reply> {
    let replies = || {
        let heard = group.heard(puppet);
        let replies = heard.iter().filter_map(|message| match decode_frame(message) {
            Ok(Frame::Reply(_, reply)) => Some(reply),
            _ => None,
        });
        replies.collect::<Vec<_>>()
    };
    eventually("it answers", || replies().len() >= count).await;
    replies()
}

impl Group {
    /// From here on the test plays this node.
    fn puppet(&self, number: u64) {
        lock(&self.0).entry(id(number)).or_default().is_puppet = true;
    }

    /// What a node that the test plays was sent.
    fn heard(&self, number: u64) -> Vec<Bytes> {
        lock(&lock(&self.0)[&id(number)].heard).clone()
    }

    /// The same, and forgets it.
    fn take_heard(&self, number: u64) -> Vec<Bytes> {
        std::mem::take(&mut *lock(&lock(&self.0)[&id(number)].heard))
    }

    /// The number of a request to a node that the test plays.
    async fn asked(&self, number: u64) -> u64 {
        let request = || {
            let heard = self.take_heard(number);
            heard.iter().rev().find_map(|message| match decode_frame(message) {
                Ok(Frame::Request(number, Request::Append { .. })) => Some(number),
                _ => None,
            })
        };
        for _ in 0..1500 {
            if let Some(number) = request() {
                return number;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("nothing was asked");
    }

    fn refused(&self, number: u64) -> Vec<Refusal> {
        let at_the_door = lock(&self.member(number).refused).clone();
        let later = self.events(number).into_iter().filter_map(|event| match event {
            Event::Refused { refusal, .. } => Some(refusal),
            _ => None,
        });
        at_the_door.into_iter().chain(later).collect()
    }

    fn failed(&self, number: u64) -> bool {
        let member = self.member(number);
        let failed = lock(&member.events).iter().any(|event| matches!(event, Event::Failed { .. }));
        failed || self.node(number).state().failure.is_some()
    }
}

/// Numbers that look drawn, the same for the same seed (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

fn entry(term: u64, index: u64, command: Vec<u8>) -> Entry {
    Entry::new(LogId::new_term_index(term, index), Payload::Normal(Command(command.into())))
}

fn membership(term: u64, index: u64, voters: &[u64]) -> Entry {
    Entry::new(LogId::new_term_index(term, index), Payload::Membership(members(voters)))
}

fn members(voters: &[u64]) -> Membership {
    let voters: BTreeSet<NodeId> = voters.iter().map(|number| NodeId(id(*number))).collect();
    Membership::new_with_defaults(vec![voters], [])
}

/// Of a snapshot whose membership is the one that the log began with.
fn meta(last: LogId, members: Membership) -> SnapshotMeta {
    let at = if members == self::members(&[1, 2, 3]) { LogId::new_term_index(5, 0) } else { last };
    SnapshotMeta { last_log_id: Some(last), last_membership: StoredMembership::new(Some(at), members) }
}

fn snapshot(vote: Vote, last: LogId, members: Membership, commands: &[Vec<u8>]) -> Request {
    let bytes = postcard::to_allocvec(commands).expect("memory suffices");
    Request::Snapshot(vote, meta(last, members), bytes.into())
}
