//! What the machine lets through when one rule is switched off: the simulator's properties must notice exactly that.

use super::cast::Without;
use super::*;

fn apply<C: Checks>(stage: &mut Stage<C>, command: &Command) -> Result<Vec<Report>, Refused> {
    let mut reports = Vec::new();
    stage.machine.apply(99, command, &mut reports)?;
    Ok(reports)
}

/// After an honest run up to a step, without one rule.
fn at(step: Step, check: Check) -> Stage<Without> {
    let mut stage = Stage::with(Cast::new(), Without(check));
    stage.twice = false;
    stage.go(step);
    stage
}

fn finalized(reports: &[Report]) -> bool {
    reports.iter().any(|report| matches!(report, Report::RoundFinalized { .. }))
}

#[test]
fn without_complete_roster_a_majority_of_partials_finalises() {
    let mut stage = at(Step::Aggregated, Check::CompleteRoster);
    let open = stage.open();
    let partials = [0, 1].map(|server| Command::SubmitPartial(stage.cast.servers[server].partial(&open)));
    assert!(!finalized(&apply(&mut stage, &partials[0]).unwrap()));
    assert!(finalized(&apply(&mut stage, &partials[1]).unwrap()));
}

#[test]
fn without_one_aggregate_a_second_one_is_mixed_in() {
    let mut stage = at(Step::Aggregated, Check::OneAggregate);
    let first = stage.open().aggregate.unwrap();
    let open = stage.open();
    let second = stage.cast.fold(&open, &[0, 1], b"second");
    apply(&mut stage, &Command::SubmitAggregate(second.clone())).unwrap();
    let mixed = stage.open().aggregate.unwrap();
    assert_eq!(mixed.digest, second.digest());
    let mut expected = first.body;
    xor_into(&mut expected, &second.body);
    assert_eq!(mixed.body, expected);
}

#[test]
fn without_partial_of_round_any_partial_counts() {
    let mut stage = at(Step::Aggregated, Check::PartialOfRound);
    let open = stage.open();
    let foreign = stage.cast.servers[0].partial(&open);
    let header = stage.cast.header(&stage.machine);
    apply(&mut stage, &Command::OpenRound(header)).unwrap();
    stage.go(Step::Aggregated);
    apply(&mut stage, &Command::SubmitPartial(foreign)).unwrap();
    assert_eq!(stage.open().partials.len(), 1);
}

#[test]
fn without_participant_floor_one_client_is_enough() {
    let mut stage = at(Step::Enrolled, Check::ParticipantFloor);
    let mut header = stage.cast.header(&stage.machine);
    header.min_participants = 2;
    let mut low = header.clone();
    low.min_participants = 0;
    low.round = header.round.next();
    apply(&mut stage, &Command::OpenRound(header)).unwrap();
    stage.go(Step::Live);
    let open = stage.open();
    let alone = stage.cast.fold(&open, &[0], b"alone");
    apply(&mut stage, &Command::SubmitAggregate(alone)).unwrap();
    apply(&mut stage, &Command::OpenRound(low)).unwrap();
}

#[test]
fn without_round_rises_a_number_repeats() {
    let mut stage = at(Step::Confirmed, Check::RoundRises);
    let mut header = stage.cast.header(&stage.machine);
    header.round = Round(1);
    apply(&mut stage, &Command::OpenRound(header)).unwrap();
    assert_eq!(stage.machine.opened(), Round(1));
}

#[test]
fn without_canonical_record_servers_stand_in_another_order() {
    let stage = at(Step::Finalized, Check::CanonicalRecord);
    let strict = Stage::at(Step::Finalized);
    let mut servers = strict.machine.records()[0].record.servers.clone();
    servers.reverse();
    assert_eq!(stage.machine.records()[0].record.servers, servers);
}

#[test]
fn without_chain_records_the_past_is_not_named() {
    let mut stage = at(Step::Confirmed, Check::ChainRecords);
    stage.go(Step::Finalized);
    let [first, second] = [0, 1].map(|place| stage.machine.records()[place].clone());
    assert_ne!(second.digest, first.digest);
    assert_eq!(second.record.previous, Digest::default());
}

#[test]
fn without_retired_barred_the_dead_come_back() {
    let mut stage = at(Step::Registered, Check::RetiredBarred);
    let dead = stage.cast.server(2);
    for witness in [0, 1] {
        let testimony = stage.cast.servers[witness].testify(dead, 1);
        apply(&mut stage, &Command::TestifyDead(testimony)).unwrap();
    }
    stage.cast.servers[2].renew(2);
    let back = stage.cast.servers[2].register(2);
    apply(&mut stage, &back).unwrap();
    assert_eq!(stage.machine.roster().len(), 3);
}

#[test]
fn without_few_refused_one_server_leaves_out_as_many_as_it_likes() {
    for (check, refused) in [(Check::FewRefused, Ok(())), (Check::FreshNonce, Err(Refused::TooMany))] {
        let mut stage = at(Step::Enrolled, check);
        let bundle = stage.cast.clients[0].bundle.clone();
        let numbered = |number| Bundle { peer: PeerId([number; 32]), ..bundle.clone() };
        let all: Vec<_> = (1..=20).map(numbered).collect();
        stage.machine.state.clients =
            ClientRegistry::from_parts(RegistryVersion(1), Counter(1), all.clone()).unwrap();
        stage.take(Step::Opened);
        let header = stage.open().header;
        let signature = stage.cast.servers[0].sign_header(&header, &(0..20).collect::<Vec<_>>());
        assert_eq!(apply(&mut stage, &Command::SignHeader(signature)).map(drop), refused);
        let mut last = Ok(());
        for (client, counter) in all.iter().zip(1..) {
            let refusal = stage.cast.servers[0].refuse(counter, client, true);
            last = apply(&mut stage, &Command::RefuseClient(refusal)).map(drop);
        }
        assert_eq!(last, refused);
    }
}
