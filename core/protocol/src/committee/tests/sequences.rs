//! Sequences of valid, repeated, reordered and corrupted commands.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::wire;

/// A long honest run with everything that can happen in it.
static STORY: LazyLock<Vec<Command>> = LazyLock::new(|| {
    let mut stage = Stage::at(Step::Confirmed);
    let client = stage.cast.clients[2].bundle.clone();
    let refusal = stage.cast.servers[0].refuse(1, &client, true);
    stage.accepts(&Command::RefuseClient(refusal));
    let withdrawal = stage.cast.servers[0].refuse(2, &client, false);
    stage.accepts(&Command::RefuseClient(withdrawal));
    let register = vec![stage.cast.clients[3].bundle.clone(), stage.cast.clients[0].renew(2)];
    let batch = stage.cast.aggregator.batch(2, register, vec![(stage.cast.client(1), Epoch(1))]);
    stage.go(Step::Live);
    stage.accepts(&Command::ChangeClients(batch));
    let departure = stage.cast.servers[1].announce(2, Standing::Departed);
    stage.accepts(&Command::DepartServer(departure));
    stage.cast.servers[1].renew(2);
    let back = stage.cast.servers[1].register(3);
    stage.accepts(&back);
    let rival = stage.cast.rival.bundle.clone();
    for server in [0, 1] {
        let approval = stage.cast.servers[server].approve(&rival);
        stage.accepts(&Command::ApproveAggregator(approval));
    }
    core::mem::swap(&mut stage.cast.aggregator, &mut stage.cast.rival);
    let register = vec![stage.cast.clients[1].renew(2)];
    let batch = stage.cast.aggregator.batch(3, register, vec![]);
    stage.accepts(&Command::ChangeClients(batch));
    let header = stage.cast.header(&stage.machine);
    stage.accepts(&Command::OpenRound(header));
    let dead = stage.cast.server(2);
    for witness in [0, 1] {
        let testimony = stage.cast.servers[witness].testify(dead, 1);
        stage.accepts(&Command::TestifyDead(testimony));
    }
    let farewell = stage.cast.servers[0].announce(2, Standing::Leaving);
    stage.accepts(&Command::RetireServer(farewell));
    let departure = stage.cast.servers[0].announce(3, Standing::Departed);
    stage.accepts(&Command::DepartServer(departure));
    stage.applied
});

#[derive(Clone, Debug)]
enum Deed {
    /// The next command of the story.
    Next,
    /// Any of its commands, early or late.
    Any(prop::sample::Index),
    /// The next one with a changed byte.
    Corrupt(prop::sample::Index, u8),
    /// Voters come and go.
    Voters(usize),
    /// The third machine is made anew from a snapshot of the first.
    Restore,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        12 => Just(Deed::Next),
        2 => any::<prop::sample::Index>().prop_map(Deed::Any),
        3 => (any::<prop::sample::Index>(), 1..=255_u8).prop_map(|(place, change)| Deed::Corrupt(place, change)),
        1 => (2..=5_usize).prop_map(Deed::Voters),
        2 => Just(Deed::Restore),
    ]
}

fn fresh() -> Committee<Strict> {
    Committee::new(Cast::config(), Strict)
}

fn check(deeds: &[Deed]) {
    let cast = Cast::new();
    let mut machines = [fresh(), fresh(), fresh()];
    let voters = |count: usize| cast.servers[..count].iter().map(Member::peer).collect::<BTreeSet<_>>();
    machines.iter_mut().for_each(|machine| machine.set_voters(voters(3)));
    let mut place = 0;
    for (index, deed) in deeds.iter().enumerate() {
        let index = u64::try_from(index).unwrap();
        let next = STORY.get(place);
        let command = match deed {
            Deed::Next => {
                place += 1;
                next.cloned()
            }
            Deed::Any(any) => Some(any.get(&STORY).clone()),
            Deed::Corrupt(place, change) => next.and_then(|command| {
                let mut bytes = wire::encode_command(command).to_vec();
                let place = place.index(bytes.len());
                bytes[place] ^= change;
                wire::decode_command(&bytes).ok()
            }),
            Deed::Voters(count) => {
                machines.iter_mut().for_each(|machine| machine.set_voters(voters(*count)));
                None
            }
            Deed::Restore => {
                let snapshot = machines[0].snapshot();
                machines[2] = fresh();
                machines[2].restore(&snapshot).expect("it was taken by a machine");
                assert_eq!(machines[2].snapshot(), snapshot);
                None
            }
        };
        let Some(command) = command else { continue };
        let before = machines[0].snapshot();
        let outcomes = machines.each_mut().map(|machine| {
            let mut reports = Vec::new();
            let result = machine.apply(index, &command, &mut reports);
            (result, format!("{reports:?}"))
        });
        assert_eq!(outcomes[0], outcomes[1]);
        assert_eq!(outcomes[0], outcomes[2]);
        let after = machines[0].snapshot();
        assert_eq!(after, machines[1].snapshot());
        assert_eq!(after, machines[2].snapshot());
        if outcomes[0].0.is_err() {
            assert_eq!(before, after, "refused: {command:?}");
        }
        let mut again = machines[0].clone();
        assert!(again.apply(index, &command, &mut Vec::new()).is_err(), "twice: {command:?}");
        assert_eq!(again.snapshot(), after, "twice: {command:?}");
    }
}

#[test]
fn the_story_is_accepted_as_it_is() {
    assert!(STORY.len() > 30, "{}", STORY.len());
    let kinds: BTreeSet<_> = STORY.iter().map(wire::command_kind).collect();
    assert_eq!(kinds.len(), 13, "every command is in it");
    check(&vec![Deed::Next; STORY.len()]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn machines_that_apply_the_same_are_the_same(deeds in prop::collection::vec(deed(), 0..90)) {
        check(&deeds);
    }

    #[test]
    fn no_bytes_are_a_snapshot_that_harms(
        step in prop::sample::select(&Step::ALL[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let stage = Stage::at(step);
        let mut snapshot = stage.machine.snapshot();
        for (place, value) in changes {
            let place = place.index(snapshot.len());
            snapshot[place] = value;
        }
        let mut machine = fresh();
        if machine.restore(&snapshot).is_ok() {
            for command in STORY.iter() {
                machine.apply(1, command, &mut Vec::new()).ok();
            }
        }
    }
}
