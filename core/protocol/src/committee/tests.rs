//! What the committee machine accepts, refuses and reports.
#![expect(clippy::unwrap_used, reason = "a test that meets something else has failed")]

extern crate std;

use alloc::vec;
use std::format;

use super::*;
use crate::checks::Strict;
use crate::id::{Epoch, RegistryVersion};
use crate::key::{PublicKey, Signature};
use crate::message::Floors;

pub(crate) mod cast;
mod sequences;
mod switches;

use cast::{Cast, LOG, Member, OTHER_LOG, Stage, Step, break_signature};

/// A change of a valid thing, by name, with the reason for which the result is refused.
type Wrong<T> = (&'static str, Refused, fn(&mut T));

/// Every wrong thing is refused for its reason, and the valid one is accepted then.
fn only_right<T: Clone>(stage: &mut Stage, valid: &T, command: fn(T) -> Command, wrong: &[Wrong<T>]) {
    for (what, reason, change) in wrong {
        let mut changed = valid.clone();
        change(&mut changed);
        stage.refuses(what, *reason, &command(changed));
    }
    stage.accepts(&command(valid.clone()));
}

#[test]
fn a_log_starts_once() {
    let mut stage = Stage::new();
    let reports = stage.accepts(&Command::StartLog { log: LOG });
    assert!(matches!(reports[..], [Report::LogStarted { log: LOG }]));
    stage.refuses("another name", Refused::LogStarted, &Command::StartLog { log: OTHER_LOG });
    assert_eq!(stage.machine.log(), Some(LOG));
}

#[test]
fn nothing_is_accepted_before_the_log_has_started() {
    let mut stage = Stage::at(Step::Confirmed);
    let commands = core::mem::take(&mut stage.applied);
    let mut empty = Stage::new();
    for command in commands.iter().filter(|command| !matches!(command, Command::StartLog { .. })) {
        empty.refuses("without a log", Refused::WrongLog, command);
    }
}

#[test]
fn a_header_that_does_not_fit_opens_no_round() {
    let mut stage = Stage::at(Step::Enrolled);
    let header = stage.cast.header(&stage.machine);
    let wrong: &[Wrong<Header>] = &[
        ("another log", Refused::WrongLog, |header| header.log = OTHER_LOG),
        ("another committee", Refused::WrongGroup, |header| header.group = GroupId([9; 32])),
        ("other parameters", Refused::ParamsMismatch, |header| header.params = RoundParams::DEFAULT),
        ("no round", Refused::WrongRound, |header| header.round = Round(0)),
        ("a round too far", Refused::WrongRound, |header| header.round = Round(2)),
        ("an old registry", Refused::WrongRegistry, |header| header.clients.version = RegistryVersion(0)),
        ("a registry to come", Refused::WrongRegistry, |header| header.clients.version = RegistryVersion(2)),
        ("other clients", Refused::WrongRegistry, |header| header.clients.root = Digest([9; 32])),
        ("more clients", Refused::WrongRegistry, |header| header.clients.count += 1),
        ("no servers", Refused::UnsortedRoster, |header| header.servers.clear()),
        ("servers in disorder", Refused::UnsortedRoster, |header| header.servers.reverse()),
        ("a server twice", Refused::UnsortedRoster, |header| header.servers[1] = header.servers[0]),
        ("an old epoch", Refused::WrongRoster, |header| header.servers[1].epoch = Epoch(0)),
        ("another key", Refused::WrongRoster, |header| header.servers[1].round_key = PublicKey([9; 32])),
        ("an unknown server", Refused::WrongRoster, |header| header.servers[2].peer = PeerId([0xff; 32])),
        ("a server less", Refused::RosterTooSmall, |header| header.servers.truncate(2)),
        ("below the floor", Refused::BelowFloor, |header| header.min_participants = 1),
        ("above the clients", Refused::TooFewParticipants, |header| header.min_participants = 4),
    ];
    only_right(&mut stage, &header, Command::OpenRound, wrong);
}

#[test]
fn a_departed_server_is_in_no_roster() {
    let mut stage = Stage::at(Step::Enrolled);
    let before = stage.cast.header(&stage.machine);
    let departure = stage.cast.servers[1].announce(2, Standing::Departed);
    stage.accepts(&Command::DepartServer(departure));
    stage.refuses("the roster of before", Refused::WrongRoster, &Command::OpenRound(before));
    let header = stage.cast.header(&stage.machine);
    assert_eq!(header.servers.len(), 2);
    stage.accepts(&Command::OpenRound(header));
}

#[test]
fn rosters_shrink_down_to_the_largest_floor() {
    let floors = |servers| Floors { participants: 2, servers: Some(servers) };
    let mut stage = Stage::with(Cast::with_floors(floors(1)), Strict);
    stage.cast.servers[2] = Member::new("cautious", Role::Server, Some(floors(2)));
    let mut voters = stage.cast.voters();
    voters.insert(stage.cast.server(2));
    stage.machine.set_voters(voters);
    stage.go(Step::Enrolled);
    assert_eq!(stage.machine.roster_floor(), 2);
    let mut header = stage.cast.header(&stage.machine);
    header.servers.pop();
    let mut smaller = header.clone();
    smaller.servers.pop();
    stage.refuses("below a floor", Refused::RosterTooSmall, &Command::OpenRound(smaller));
    stage.accepts(&Command::OpenRound(header));
}

#[test]
fn a_header_is_signed_once_by_each_rostered_server() {
    let mut stage = Stage::at(Step::Opened);
    let header = Arc::clone(&stage.open().header);
    let stranger = stage.cast.servers[4].sign_header(&header, &[]);
    let signature = stage.cast.servers[0].sign_header(&header, &[]);
    stage.refuses("a stranger", Refused::NotInRoster, &Command::SignHeader(stranger));
    let wrong: &[Wrong<HeaderSignature>] = &[
        ("another log", Refused::WrongLog, |signed| signed.log = OTHER_LOG),
        ("the next round", Refused::WrongRound, |signed| signed.round = Round(2)),
        ("another header", Refused::WrongHeader, |signed| signed.header = Digest([9; 32])),
        ("other clients", Refused::WrongLength, |signed| signed.refused = Bitmap::new(4)),
        ("other refusals", Refused::BadSignature, |signed| signed.refused.set(0)),
        ("a broken signature", Refused::BadSignature, |signed| break_signature(&mut signed.signature)),
    ];
    only_right(&mut stage, &signature, Command::SignHeader, wrong);
    let second = stage.cast.servers[0].sign_header(&header, &[1]);
    stage.refuses("another signature", Refused::Duplicate, &Command::SignHeader(second));

    let mut idle = Stage::at(Step::Enrolled);
    idle.refuses("no round", Refused::NoRound, &Command::SignHeader(signature));
}

#[test]
fn a_header_is_live_without_the_clients_that_some_server_refuses() {
    let mut stage = Stage::at(Step::Opened);
    let header = Arc::clone(&stage.open().header);
    for (server, refused) in [(0, &[0][..]), (1, &[])] {
        let signature = stage.cast.servers[server].sign_header(&header, refused);
        assert!(stage.accepts(&Command::SignHeader(signature)).is_empty());
        assert!(stage.open().live().is_none());
    }
    let signature = stage.cast.servers[2].sign_header(&header, &[2]);
    let reports = stage.accepts(&Command::SignHeader(signature));
    let [Report::HeaderLive { refused, .. }] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!(refused.iter_ones().collect::<Vec<_>>(), [0, 2]);
    let live = stage.open().live().expect("every server has signed");
    assert_eq!(live.verify().as_ref(), Ok(refused));
}

#[test]
fn the_first_valid_aggregate_wins() {
    let mut stage = Stage::at(Step::Opened);
    let open = stage.open();
    let aggregate = stage.cast.fold(&open, &[0, 1], b"first");
    stage.refuses("too early", Refused::NotLive, &Command::SubmitAggregate(aggregate.clone()));
    for (server, refused) in [(0, &[2][..]), (1, &[]), (2, &[])] {
        let signature = stage.cast.servers[server].sign_header(&open.header, refused);
        stage.accepts(&Command::SignHeader(signature));
    }
    let refused = stage.cast.fold(&open, &[0, 2], b"");
    stage.refuses("a refused client", Refused::RefusedClient, &Command::SubmitAggregate(refused));
    let few = stage.cast.fold(&open, &[1], b"");
    stage.refuses("one client", Refused::TooFewParticipants, &Command::SubmitAggregate(few));
    let rival =
        stage.cast.rival.aggregate(&open.header, aggregate.participants.clone(), aggregate.body.clone());
    stage.refuses("another aggregator", Refused::BadSignature, &Command::SubmitAggregate(rival));
    let wrong: &[Wrong<Aggregate>] = &[
        ("another log", Refused::WrongLog, |aggregate| aggregate.log = OTHER_LOG),
        ("the next round", Refused::WrongRound, |aggregate| aggregate.round = Round(2)),
        ("another header", Refused::WrongHeader, |aggregate| aggregate.header = Digest([9; 32])),
        ("a short vector", Refused::WrongLength, |aggregate| aggregate.body.truncate(1)),
        ("a long vector", Refused::WrongLength, |aggregate| aggregate.body.push(0)),
        ("other clients", Refused::WrongLength, |aggregate| aggregate.participants = Bitmap::new(4)),
        ("another vector", Refused::BadSignature, |aggregate| aggregate.body[0] ^= 1),
    ];
    only_right(&mut stage, &aggregate, Command::SubmitAggregate, wrong);
    let second = stage.cast.fold(&open, &[0, 1], b"second");
    stage.refuses("a second one", Refused::AggregateIn, &Command::SubmitAggregate(second));

    let mut idle = Stage::at(Step::Finalized);
    idle.refuses("no round", Refused::NoRound, &Command::SubmitAggregate(aggregate));
}

#[test]
fn a_header_names_the_aggregator_of_the_log_and_only_that_one_folds() {
    let floors = Floors { participants: 0, servers: None };
    let mut stage = Stage::with(Cast::with_floors(floors), Strict);
    stage.go(Step::Registered);
    let header = stage.cast.header(&stage.machine);
    stage.refuses("without an aggregator", Refused::NotAggregator, &Command::OpenRound(header));

    let mut stage = Stage::at(Step::Enrolled);
    let mut header = stage.cast.header(&stage.machine);
    header.aggregator = stage.cast.rival.peer();
    stage.refuses("another one", Refused::NotAggregator, &Command::OpenRound(header));
    stage.go(Step::Live);
    let open = stage.open();
    let mut aggregate = stage.cast.fold(&open, &[0, 1], b"");
    let (participants, body) = (aggregate.participants.clone(), aggregate.body.clone());
    let by_rival = stage.cast.rival.aggregate(&open.header, participants, body);
    stage.refuses("the rival's", Refused::BadSignature, &Command::SubmitAggregate(by_rival));

    // The approval of another one gives up the round that names the one before, unless that one has folded it.
    let rival = stage.cast.rival.bundle.clone();
    for server in [0, 1] {
        let approval = stage.cast.servers[server].approve(&rival);
        stage.accepts(&Command::ApproveAggregator(approval));
    }
    assert!(stage.machine.open().is_none());
    aggregate.round = Round(9);
    stage.refuses("too late", Refused::NoRound, &Command::SubmitAggregate(aggregate));

    let mut folded = Stage::at(Step::Aggregated);
    for server in [0, 1] {
        let approval = folded.cast.servers[server].approve(&rival);
        folded.accepts(&Command::ApproveAggregator(approval));
    }
    folded.take(Step::Finalized);
    assert_eq!(folded.machine.records().len(), 1, "what was folded is unblinded");
}

#[test]
fn retired_voters_have_no_word_in_approvals_and_testimonies() {
    let mut stage = Stage::at(Step::Registered);
    let gone = stage.cast.server(2);
    for command in [
        Command::RetireServer(stage.cast.servers[2].announce(2, Standing::Leaving)),
        Command::DepartServer(stage.cast.servers[2].announce(3, Standing::Departed)),
    ] {
        stage.accepts(&command);
    }
    assert!(stage.machine.retired().contains(&gone) && stage.machine.voters().contains(&gone));
    let bundle = stage.cast.aggregator.bundle.clone();
    let approval = stage.cast.servers[2].approve(&bundle);
    stage.refuses("its approval", Refused::NotVoter, &Command::ApproveAggregator(approval));
    let witness = stage.cast.server(0);
    let testimony = stage.cast.servers[2].testify(witness, 1);
    stage.refuses("its testimony", Refused::NotVoter, &Command::TestifyDead(testimony));
    // Nor does it count for what is a majority: of the two that are left, both must approve.
    let approval = stage.cast.servers[0].approve(&bundle);
    stage.accepts(&Command::ApproveAggregator(approval));
    assert!(stage.machine.aggregator().is_none());
    let approval = stage.cast.servers[1].approve(&bundle);
    stage.accepts(&Command::ApproveAggregator(approval));
    assert_eq!(stage.machine.aggregator(), Some(&bundle));
}

#[test]
fn a_record_says_what_it_was_made_of() {
    let mut stage = Stage::at(Step::Aggregated);
    stage.machine.chain(40, b"an entry");
    let aggregate = stage.open().aggregate.unwrap().digest;
    let mut digests = vec![];
    let mut last = 0;
    while let Some(command) = stage.cast.next(&stage.machine, Step::Finalized) {
        let Command::SubmitPartial(partial) = &command else { panic!() };
        digests.push(partial.digest());
        last = u64::try_from(stage.applied.len()).unwrap();
        stage.accepts(&command);
    }
    let kept = stage.machine.records().back().unwrap().clone();
    let record = &kept.record;
    assert_eq!((record.aggregate, record.index), (aggregate, last));
    assert_eq!(record.partials, digests, "in roster order");
    assert_eq!(record.chain, chain_digest(&Digest::default(), 40, b"an entry"));
    // The next chain begins with this record.
    stage.machine.chain(50, b"another entry");
    stage.go(Step::Finalized);
    let next = stage.machine.records().back().unwrap();
    assert_eq!(next.record.chain, chain_digest(&kept.digest, 50, b"another entry"));
    for change in [
        |record: &mut Record| record.aggregate = Digest([1; 32]),
        |record: &mut Record| record.partials[1] = Digest([1; 32]),
        |record: &mut Record| record.partials.truncate(2),
        |record: &mut Record| record.index += 1,
        |record: &mut Record| record.chain = Digest([1; 32]),
    ] {
        let mut other = Record::clone(record);
        change(&mut other);
        assert_ne!(other.digest(), kept.digest);
    }
}

/// What a peer's snapshot may not do to a machine.
#[test]
fn a_snapshot_of_a_peer_is_examined() {
    type Change = (BadSnapshot, &'static str, fn(&mut State));
    let changes: [Change; 25] = [
        (BadSnapshot::OtherLog, "another log", |state| move_to(state, OTHER_LOG)),
        (BadSnapshot::OtherLog, "no log", |state| *state = State::default()),
        (BadSnapshot::GoesBack, "an earlier round", |state| {
            state.opened = Round(0);
            state.open = None;
            state.records.clear();
            state.previous = Previous::default();
        }),
        (BadSnapshot::GoesBack, "no record", |state| {
            state.records.clear();
            state.previous = Previous::default();
        }),
        (BadSnapshot::GoesBack, "an earlier registry", |state| state.clients = ClientRegistry::new()),
        (BadSnapshot::GoesBack, "without this server", |state| drop(state.servers.pop_first())),
        (BadSnapshot::GoesBack, "an earlier counter of this server", |state| {
            state.servers.values_mut().next().unwrap().counter = Counter(0);
        }),
        (BadSnapshot::LacksRetired, "a barred identity", |state| state.retired.clear()),
        (BadSnapshot::Contradicts, "another record of the round", |state| {
            let kept = state.records.back_mut().unwrap();
            Arc::make_mut(&mut kept.record).broadcast[0] ^= 1;
            kept.digest = kept.record.digest();
            kept.signatures.clear();
            state.previous.record = kept.digest;
        }),
        (BadSnapshot::Contradicts, "another state after the record", |state| {
            state.previous.state = Digest([9; 32]);
        }),
        (BadSnapshot::Contradicts, "another header of the round", |state| {
            let open = state.open.as_mut().unwrap();
            Arc::make_mut(&mut open.header).nonce = [9; 32];
            open.digest = open.header.digest();
            open.signatures.clear();
            open.refused = None;
            open.aggregate = None;
        }),
        (BadSnapshot::OutOfRange, "a round near the end", |state| {
            state.opened = Round(u64::MAX);
            state.open = None;
        }),
        (BadSnapshot::OutOfRange, "an epoch near the end", |state| {
            state.servers.values_mut().nth(1).unwrap().bundle.epoch = Epoch(u64::MAX);
        }),
        (BadSnapshot::OutOfRange, "a counter near the end", |state| {
            state.servers.values_mut().nth(1).unwrap().counter = Counter(1 << 62);
        }),
        (BadSnapshot::BadSignature, "a bundle that nobody signed", |state| {
            break_signature(&mut state.servers.values_mut().nth(1).unwrap().bundle.signature);
        }),
        (BadSnapshot::BadSignature, "a record signature that nobody gave", |state| {
            let kept = state.records.back_mut().unwrap();
            break_signature(&mut kept.signatures.values_mut().next().unwrap().signature);
        }),
        (BadSnapshot::BadSignature, "a header signature that nobody gave", |state| {
            let open = state.open.as_mut().unwrap();
            break_signature(&mut open.signatures.values_mut().next().unwrap().signature);
        }),
        (BadSnapshot::BadSignature, "an aggregator that nobody announced", |state| {
            break_signature(&mut state.aggregator.as_mut().unwrap().signature);
        }),
        (BadSnapshot::Inconsistent, "a digest that is not the header's", |state| {
            state.open.as_mut().unwrap().digest = Digest([9; 32]);
        }),
        (BadSnapshot::Inconsistent, "a digest that is not the record's", |state| {
            state.records.back_mut().unwrap().digest = Digest([9; 32]);
        }),
        (BadSnapshot::Inconsistent, "live without all signatures", |state| {
            state.open.as_mut().unwrap().signatures.pop_first();
        }),
        (BadSnapshot::Inconsistent, "partials of strangers", |state| {
            let open = state.open.as_mut().unwrap();
            open.partials.insert(PeerId([9; 32]), Digest::default());
        }),
        (BadSnapshot::Inconsistent, "more records than are kept", |state| {
            let kept = state.records.back().unwrap().clone();
            state.records.extend(core::iter::repeat_n(kept, RECORDS_KEPT));
        }),
        (BadSnapshot::Inconsistent, "a round above the last one opened", |state| state.opened = Round(1)),
        (BadSnapshot::Inconsistent, "a barred server that takes part", |state| {
            let server = *state.servers.keys().nth(1).unwrap();
            state.retired.insert(server);
        }),
    ];
    let mut stage = Stage::at(Step::Confirmed);
    stage.machine.state.retired.insert(PeerId([7; 32]));
    for step in [Step::Opened, Step::Live, Step::Aggregated] {
        stage.take(step);
    }
    let me = stage.cast.server(0);
    let good = stage.machine.snapshot();
    let same = stage.machine.examine(&good, &me).expect("its own state is not refused");
    assert_eq!(same.snapshot(), good);
    for (reason, what, change) in changes {
        let mut other = stage.machine.clone();
        change(&mut other.state);
        assert_eq!(stage.machine.examine(&other.snapshot(), &me).err(), Some(reason), "{what}");
    }
    // Whoever has seen nothing takes what is whole; a later state takes the place of an earlier one.
    let fresh = Committee::new(Cast::config(), Strict);
    assert!(fresh.examine(&good, &me).is_ok());
    let early = Stage::at(Step::Finalized);
    stage.machine.state.retired.clear();
    assert!(early.machine.examine(&stage.machine.snapshot(), &me).is_ok());
}

/// Each clause of the assertion is broken by one change.
#[test]
fn every_flaw_of_a_state_is_noticed() {
    type Change = (&'static str, fn(&mut State));
    fn open(state: &mut State) -> &mut OpenRound {
        state.open.as_mut().unwrap()
    }
    fn header(state: &mut State) -> &mut Header {
        Arc::make_mut(&mut open(state).header)
    }
    fn record(state: &mut State) -> &mut Record {
        Arc::make_mut(&mut state.records.back_mut().unwrap().record)
    }
    let changes: [Change; 22] = [
        ("more records than are kept", |state| {
            let kept = state.records.back().unwrap().clone();
            state.records.extend(core::iter::repeat_n(kept, RECORDS_KEPT));
        }),
        ("more farewells than are kept", |state| {
            let word = *state.farewells.back().unwrap();
            state.farewells.extend(core::iter::repeat_n(word, FAREWELLS_KEPT));
        }),
        ("more candidates than are kept", |state| {
            let bundle = state.aggregator.clone().unwrap();
            for number in 0..=CANDIDATES_MAX {
                let peer = PeerId([u8::try_from(number).unwrap(); 32]);
                let candidate = Candidate { bundle: bundle.clone(), approvals: BTreeSet::new() };
                state.candidates.insert(peer, candidate);
            }
        }),
        ("a record of another log", |state| record(state).log = OTHER_LOG),
        ("a signature under another record", |state| {
            let kept = state.records.back_mut().unwrap();
            kept.signatures.values_mut().next().unwrap().record = Digest([9; 32]);
        }),
        ("another newest record", |state| state.previous.record = Digest([9; 32])),
        ("a record of a round that was not opened", |state| state.opened = Round(0)),
        ("records that do not follow each other", |state| {
            Arc::make_mut(&mut state.records.get_mut(1).unwrap().record).previous = Digest([9; 32]);
        }),
        ("rounds that do not rise", |state| {
            let newest = state.records.back().unwrap().record.round;
            let first = state.records.front_mut().unwrap();
            Arc::make_mut(&mut first.record).round = newest;
            first.signatures.clear();
        }),
        ("a server under another name or role", |state| {
            state.servers.values_mut().next().unwrap().bundle.role = Role::Client;
        }),
        ("a server that is barred", |state| {
            let server = *state.servers.keys().next().unwrap();
            state.retired.insert(server);
        }),
        ("a farewell of somebody who stays, or to another log", |state| {
            state.farewells.back_mut().unwrap().standing = Standing::Departed;
        }),
        ("an aggregator of another role", |state| state.aggregator.as_mut().unwrap().role = Role::Server),
        ("an open round that is not the last one opened", |state| state.opened = Round(1_000)),
        ("an open round of another log", |state| header(state).log = OTHER_LOG),
        ("a roster of nobody, or out of order", |state| header(state).servers.reverse()),
        ("a signature under another header, or of a stranger", |state| {
            open(state).signatures.values_mut().next().unwrap().header = Digest([9; 32]);
        }),
        ("a round that is live without every signature, or not with them", |state| {
            open(state).refused = None;
        }),
        ("an aggregate in a round that is not live", |state| {
            open(state).signatures.pop_first();
            open(state).refused = None;
        }),
        ("a partial without an aggregate", |state| {
            let server = open(state).header.servers[0].peer;
            open(state).partials.insert(server, Digest::default());
            open(state).aggregate = None;
        }),
        ("an open round with every partial", |state| {
            let servers: Vec<_> = open(state).header.servers.iter().map(|server| server.peer).collect();
            open(state).partials.extend(servers.into_iter().map(|server| (server, Digest::default())));
        }),
        ("a partial of a stranger", |state| {
            open(state).partials.insert(PeerId([9; 32]), Digest::default());
        }),
    ];
    let mut stage = Stage::at(Step::Confirmed);
    stage.go(Step::Confirmed);
    for step in [Step::Opened, Step::Live, Step::Aggregated] {
        stage.take(step);
    }
    let leaving = stage.cast.servers[2].announce(9, Standing::Leaving);
    stage.machine.state.farewells.push_back(leaving);
    stage.machine.check();
    for (flaw, change) in changes {
        let mut broken = stage.machine.state.clone();
        change(&mut broken);
        assert_eq!(broken.flaw(&Strict), Some(flaw));
    }
}

/// The whole state as if it were of another log.
fn move_to(state: &mut State, log: LogId) {
    state.log = Some(log);
    state.open = None;
    state.records.clear();
    state.previous = Previous::default();
    state.farewells.clear();
}

#[test]
fn a_partial_counts_once_and_for_the_applied_aggregate() {
    let mut stage = Stage::at(Step::Live);
    let mut other = Stage::at(Step::Live);
    let open = other.open();
    let aggregate = other.cast.fold(&open, &[0, 1], b"another");
    other.accepts(&Command::SubmitAggregate(aggregate));
    let open = other.open();
    let foreign = other.cast.servers[0].partial(&open);
    stage.refuses("no aggregate", Refused::WrongAggregate, &Command::SubmitPartial(foreign.clone()));
    stage.go(Step::Aggregated);
    stage.refuses("another aggregate", Refused::WrongAggregate, &Command::SubmitPartial(foreign));
    let open = stage.open();
    let partial = stage.cast.servers[0].partial(&open);
    let wrong: &[Wrong<Partial>] = &[
        ("another log", Refused::WrongLog, |partial| partial.log = OTHER_LOG),
        ("the next round", Refused::WrongRound, |partial| partial.round = Round(2)),
        ("another header", Refused::WrongHeader, |partial| partial.header = Digest([9; 32])),
        ("a stranger", Refused::NotInRoster, |partial| partial.server = PeerId([9; 32])),
        ("a short vector", Refused::WrongLength, |partial| partial.body.truncate(1)),
        ("a long vector", Refused::WrongLength, |partial| partial.body.push(0)),
        ("another vector", Refused::BadSignature, |partial| partial.body[0] ^= 1),
    ];
    only_right(&mut stage, &partial, Command::SubmitPartial, wrong);
    let mut again = partial.clone();
    again.body[0] ^= 1;
    stage.refuses("a second one", Refused::Duplicate, &Command::SubmitPartial(again));

    let mut idle = Stage::at(Step::Finalized);
    idle.refuses("no round", Refused::NoRound, &Command::SubmitPartial(partial));
}

#[test]
fn a_record_is_signed_once_by_each_server_of_its_roster() {
    let mut stage = Stage::at(Step::Finalized);
    let kept = stage.machine.records()[0].clone();
    let stranger = stage.cast.servers[4].sign_record(&kept);
    stage.refuses("a stranger", Refused::NotInRoster, &Command::SignRecord(stranger));
    let signature = stage.cast.servers[0].sign_record(&kept);
    let wrong: &[Wrong<RecordSignature>] = &[
        ("another log", Refused::WrongLog, |signed| signed.log = OTHER_LOG),
        ("another round", Refused::WrongRound, |signed| signed.round = Round(2)),
        ("another record", Refused::UnknownRecord, |signed| signed.record = Digest([9; 32])),
        ("a broken signature", Refused::BadSignature, |signed| break_signature(&mut signed.signature)),
    ];
    only_right(&mut stage, &signature, Command::SignRecord, wrong);
    let mut again = signature;
    break_signature(&mut again.signature);
    stage.refuses("a second one", Refused::Duplicate, &Command::SignRecord(again));
}

type Registration = (Bundle, Announcement);

fn registration((bundle, announcement): Registration) -> Command {
    Command::RegisterServer { bundle, announcement }
}

#[test]
fn a_server_registers_with_fresh_keys_by_its_own_word() {
    let mut stage = Stage::at(Step::Registered);
    let bundle = stage.cast.servers[0].renew(2);
    let stale = stage.cast.servers[0].announce(1, Standing::Registered);
    let announcement = stage.cast.servers[0].announce(2, Standing::Registered);
    let old_counter = registration((bundle.clone(), stale));
    stage.refuses("an old counter", Refused::StaleCounter, &old_counter);
    let wrong: &[Wrong<Registration>] = &[
        ("another log", Refused::WrongLog, |it| it.1.log = OTHER_LOG),
        ("a client", Refused::WrongRole, |it| it.0.role = Role::Client),
        ("no floors", Refused::WrongRole, |it| it.0.floors = None),
        ("a farewell", Refused::WrongRole, |it| it.1.standing = Standing::Departed),
        ("another's word", Refused::Malformed, |it| it.1.server = PeerId([9; 32])),
        ("a word about other keys", Refused::Malformed, |it| it.1.epoch = Epoch(3)),
        ("another instance", Refused::WrongInstance, |it| it.0.instance = UniqueId([9; 32])),
        ("a weak key", Refused::WeakKey, |it| it.0.round_key = PublicKey([0; 32])),
        ("other floors", Refused::BadSignature, |it| {
            it.0.floors = Some(Floors { participants: 0, servers: None });
        }),
        ("a broken bundle", Refused::BadSignature, |it| break_signature(&mut it.0.signature)),
        ("a broken word", Refused::BadSignature, |it| break_signature(&mut it.1.signature)),
        ("the same epoch", Refused::StaleEpoch, |it| {
            it.0.epoch = Epoch(1);
            it.1.epoch = Epoch(1);
        }),
    ];
    only_right(&mut stage, &(bundle, announcement), registration, wrong);
    let learner = stage.cast.servers[3].register(1);
    stage.refuses("no voter", Refused::NotVoter, &learner);
}

#[test]
fn who_leaves_for_good_does_not_register_again() {
    let mut stage = Stage::at(Step::Registered);
    let farewell = stage.cast.servers[0].announce(2, Standing::Leaving);
    stage.accepts(&Command::RetireServer(farewell));
    stage.cast.servers[0].renew(2);
    let again = stage.cast.servers[0].register(3);
    stage.refuses("while leaving", Refused::Retired, &again);
    stage.cast.servers[0].bundle.epoch = Epoch(1);
    let departure = stage.cast.servers[0].announce(3, Standing::Departed);
    stage.accepts(&Command::DepartServer(departure));
    stage.cast.servers[0].renew(3);
    let again = stage.cast.servers[0].register(4);
    stage.refuses("after that", Refused::Retired, &again);
}

/// What every announcement of a registered server is refused for, but for its own kind's reasons.
const WRONG_WORDS: &[Wrong<Announcement>] = &[
    ("another log", Refused::WrongLog, |word| word.log = OTHER_LOG),
    ("a registration", Refused::Malformed, |word| word.standing = Standing::Registered),
    ("a stranger", Refused::NotRegistered, |word| word.server = PeerId([9; 32])),
    ("other keys", Refused::StaleEpoch, |word| word.epoch = Epoch(2)),
    ("an old counter", Refused::StaleCounter, |word| word.counter = Counter(1)),
    ("another counter", Refused::BadSignature, |word| word.counter = Counter(3)),
    ("a broken signature", Refused::BadSignature, |word| break_signature(&mut word.signature)),
];

#[test]
fn a_server_departs_by_its_own_word() {
    let mut stage = Stage::at(Step::Registered);
    let word = stage.cast.servers[0].announce(2, Standing::Departed);
    let leaving = stage.cast.servers[0].announce(2, Standing::Leaving);
    stage.refuses("another word", Refused::Malformed, &Command::DepartServer(leaving));
    only_right(&mut stage, &word, Command::DepartServer, WRONG_WORDS);
    let again = stage.cast.servers[0].announce(3, Standing::Departed);
    stage.refuses("again", Refused::Duplicate, &Command::DepartServer(again));
    assert!(!stage.machine.servers()[&stage.cast.server(0)].takes_part());
    stage.cast.servers[0].renew(2);
    let back = stage.cast.servers[0].register(3);
    stage.accepts(&back);
    assert_eq!(stage.machine.roster().len(), 3);
}

#[test]
fn a_server_retires_by_its_own_word() {
    let mut stage = Stage::at(Step::Registered);
    let word = stage.cast.servers[0].announce(2, Standing::Leaving);
    let departed = stage.cast.servers[0].announce(2, Standing::Departed);
    stage.refuses("another word", Refused::Malformed, &Command::RetireServer(departed));
    only_right(&mut stage, &word, Command::RetireServer, WRONG_WORDS);
    let again = stage.cast.servers[0].announce(3, Standing::Leaving);
    stage.refuses("again", Refused::Duplicate, &Command::RetireServer(again));
    assert_eq!(stage.machine.roster().len(), 3, "a leaving server serves on until it departs");
    assert_eq!(stage.machine.farewells().iter().collect::<Vec<_>>(), [&word]);
    let departure = stage.cast.servers[0].announce(3, Standing::Departed);
    let reports = stage.accepts(&Command::DepartServer(departure));
    let [Report::ServerDeparted { .. }, Report::ServerRetired { server, forced: false }] = reports[..] else {
        panic!("{reports:?}")
    };
    assert!(stage.machine.retired().contains(&server));
    assert!(!stage.machine.servers().contains_key(&server));
}

#[test]
fn a_departed_server_may_still_retire() {
    let mut stage = Stage::at(Step::Registered);
    let departure = stage.cast.servers[0].announce(2, Standing::Departed);
    stage.accepts(&Command::DepartServer(departure));
    let word = stage.cast.servers[0].announce(3, Standing::Leaving);
    let reports = stage.accepts(&Command::RetireServer(word));
    assert!(matches!(reports[..], [Report::ServerRetired { forced: false, .. }]));
}

#[test]
fn most_of_the_others_retire_a_dead_server() {
    let mut stage = Stage::at(Step::Registered);
    let dead = stage.cast.server(2);
    let by_itself = stage.cast.servers[2].testify(dead, 1);
    stage.refuses("by itself", Refused::NotVoter, &Command::TestifyDead(by_itself));
    let by_learner = stage.cast.servers[3].testify(dead, 1);
    stage.refuses("by a learner", Refused::NotVoter, &Command::TestifyDead(by_learner));
    let testimony = stage.cast.servers[0].testify(dead, 1);
    let wrong: &[Wrong<Testimony>] = &[
        ("another log", Refused::WrongLog, |word| word.log = OTHER_LOG),
        ("an unknown server", Refused::NotRegistered, |word| word.server = PeerId([9; 32])),
        ("other keys", Refused::StaleEpoch, |word| word.epoch = Epoch(2)),
        ("a broken signature", Refused::BadSignature, |word| break_signature(&mut word.signature)),
    ];
    only_right(&mut stage, &testimony, Command::TestifyDead, wrong);
    stage.refuses("again", Refused::Duplicate, &Command::TestifyDead(testimony));
    let testimony = stage.cast.servers[1].testify(dead, 1);
    let reports = stage.accepts(&Command::TestifyDead(testimony));
    let [Report::ServerRetired { server, forced: true }] = reports[..] else { panic!("{reports:?}") };
    assert_eq!(server, dead);
    assert!(stage.machine.farewells().is_empty(), "it did not say so itself");
    stage.cast.servers[2].renew(2);
    let back = stage.cast.servers[2].register(2);
    stage.refuses("back from the dead", Refused::Retired, &back);
}

#[test]
fn a_registration_voids_what_was_testified_before() {
    let mut stage = Stage::at(Step::Registered);
    let dead = stage.cast.server(2);
    let testimony = stage.cast.servers[0].testify(dead, 1);
    stage.accepts(&Command::TestifyDead(testimony));
    stage.cast.servers[2].renew(2);
    let back = stage.cast.servers[2].register(2);
    stage.accepts(&back);
    let late = stage.cast.servers[1].testify(dead, 1);
    stage.refuses("of old keys", Refused::StaleEpoch, &Command::TestifyDead(late));
    assert!(stage.machine.servers()[&dead].testimonies.is_empty());
}

#[test]
fn the_word_of_a_former_voter_does_not_retire() {
    let mut stage = Stage::new();
    let five: BTreeSet<_> = stage.cast.servers.iter().map(Member::peer).collect();
    stage.machine.set_voters(five);
    stage.go(Step::Registered);
    let dead = stage.cast.server(2);
    for witness in [3, 4] {
        let testimony = stage.cast.servers[witness].testify(dead, 1);
        stage.accepts(&Command::TestifyDead(testimony));
    }
    let fewer = stage.cast.voters();
    stage.machine.set_voters(fewer);
    let testimony = stage.cast.servers[0].testify(dead, 1);
    assert!(stage.accepts(&Command::TestifyDead(testimony)).is_empty());
    let testimony = stage.cast.servers[1].testify(dead, 1);
    let reports = stage.accepts(&Command::TestifyDead(testimony));
    assert!(matches!(reports[..], [Report::ServerRetired { forced: true, .. }]));
}

#[test]
fn most_servers_approve_the_aggregator() {
    let mut stage = Stage::at(Step::Registered);
    let bundle = stage.cast.aggregator.bundle.clone();
    let learner = stage.cast.servers[3].approve(&bundle);
    stage.refuses("a learner", Refused::NotVoter, &Command::ApproveAggregator(learner));
    let approval = stage.cast.servers[0].approve(&bundle);
    let wrong: &[Wrong<Approval>] = &[
        ("another log", Refused::WrongLog, |it| it.log = OTHER_LOG),
        ("a client", Refused::WrongRole, |it| it.bundle.role = Role::Client),
        ("another instance", Refused::WrongInstance, |it| it.bundle.instance = UniqueId([9; 32])),
        ("a weak key", Refused::WeakKey, |it| it.bundle.round_key = PublicKey([0; 32])),
        ("a broken bundle", Refused::BadSignature, |it| break_signature(&mut it.bundle.signature)),
        ("a broken approval", Refused::BadSignature, |it| break_signature(&mut it.signature)),
    ];
    only_right(&mut stage, &approval, Command::ApproveAggregator, wrong);
    stage.refuses("again", Refused::Duplicate, &Command::ApproveAggregator(approval));
    assert!(stage.machine.aggregator().is_none());
    let approval = stage.cast.servers[1].approve(&bundle);
    let reports = stage.accepts(&Command::ApproveAggregator(approval));
    assert!(matches!(reports[..], [Report::AggregatorRegistered { .. }]));
    assert_eq!(stage.machine.aggregator(), Some(&bundle));
    let late = stage.cast.servers[2].approve(&bundle);
    stage.refuses("when it is in", Refused::Duplicate, &Command::ApproveAggregator(late));
}

#[test]
fn a_newer_bundle_replaces_that_of_the_aggregator() {
    let mut stage = Stage::at(Step::Approved);
    let first = stage.cast.aggregator.bundle.clone();
    let third = stage.cast.aggregator.renew(3);
    let approval = stage.cast.servers[0].approve(&third);
    stage.accepts(&Command::ApproveAggregator(approval));
    let second = stage.cast.aggregator.renew(2);
    let approval = stage.cast.servers[1].approve(&second);
    stage.refuses("older than a candidate", Refused::StaleEpoch, &Command::ApproveAggregator(approval));
    assert_eq!(stage.machine.aggregator(), Some(&first));
    let approval = stage.cast.servers[1].approve(&third);
    stage.accepts(&Command::ApproveAggregator(approval));
    assert_eq!(stage.machine.aggregator(), Some(&third));
    let approval = stage.cast.servers[1].approve(&second);
    stage.refuses("older than the present", Refused::StaleEpoch, &Command::ApproveAggregator(approval));
}

#[test]
fn approvals_of_a_replaced_aggregator_do_not_bring_it_back() {
    let mut stage = Stage::at(Step::Approved);
    let rival = stage.cast.rival.bundle.clone();
    for server in 0..2 {
        let approval = stage.cast.servers[server].approve(&rival);
        stage.accepts(&Command::ApproveAggregator(approval));
    }
    assert_eq!(stage.machine.aggregator(), Some(&rival));
    let old = stage.cast.aggregator.bundle.clone();
    let approval = stage.cast.servers[0].approve(&old);
    stage.refuses("said before", Refused::Duplicate, &Command::ApproveAggregator(approval));
    let back = stage.cast.aggregator.renew(2);
    for server in 0..2 {
        let approval = stage.cast.servers[server].approve(&back);
        stage.accepts(&Command::ApproveAggregator(approval));
    }
    assert_eq!(stage.machine.aggregator(), Some(&back));
}

#[test]
fn candidates_for_aggregator_are_few() {
    let mut stage = Stage::at(Step::Registered);
    for number in 0..=CANDIDATES_MAX {
        let bundle = Member::new(&format!("candidate {number}"), Role::Aggregator, None).bundle;
        let command = Command::ApproveAggregator(stage.cast.servers[0].approve(&bundle));
        if number < CANDIDATES_MAX {
            stage.accepts(&command);
        } else {
            stage.refuses("one too many", Refused::TooMany, &command);
        }
    }
}

#[test]
fn the_aggregator_changes_the_clients() {
    let mut stage = Stage::at(Step::Enrolled);
    let newcomer = stage.cast.clients[3].bundle.clone();
    let gone = (stage.cast.client(0), Epoch(1));
    let mut batch = |counter, register: &[&Bundle]| {
        let register = register.iter().copied().cloned().collect();
        Command::ChangeClients(stage.cast.aggregator.batch(counter, register, vec![gone]))
    };
    let changed = |change: fn(&mut Bundle)| {
        let mut bundle = newcomer.clone();
        change(&mut bundle);
        bundle
    };
    let known = stage.cast.clients[1].bundle.clone();
    let refused = [
        ("an old counter", Refused::StaleCounter, batch(1, &[])),
        ("a counter too far", Refused::StaleCounter, batch(3, &[])),
        ("a server", Refused::WrongRole, batch(2, &[&changed(|bundle| bundle.role = Role::Server)])),
        ("known keys", Refused::StaleEpoch, batch(2, &[&known])),
        (
            "another instance",
            Refused::WrongInstance,
            batch(2, &[&changed(|bundle| bundle.instance = UniqueId([9; 32]))]),
        ),
        (
            "a weak key",
            Refused::WeakKey,
            batch(2, &[&changed(|bundle| bundle.round_key = PublicKey([0; 32]))]),
        ),
        (
            "a bad bundle behind a good one",
            Refused::BadSignature,
            batch(2, &[&newcomer, &changed(|bundle| break_signature(&mut bundle.signature))]),
        ),
        ("too many", Refused::TooMany, batch(2, &[&newcomer; ClientBatch::LEN_MAX + 1])),
    ];
    for (what, reason, command) in &refused {
        stage.refuses(what, *reason, command);
    }
    let expire = vec![gone; ClientBatch::LEN_MAX + 1];
    let many = stage.cast.aggregator.batch(2, vec![], expire);
    stage.refuses("too many go", Refused::TooMany, &Command::ChangeClients(many));
    let rival = stage.cast.rival.batch(2, vec![], vec![]);
    stage.refuses("another aggregator", Refused::BadSignature, &Command::ChangeClients(rival));
    let valid = stage.cast.aggregator.batch(2, vec![newcomer], vec![gone]);
    let wrong: &[Wrong<ClientBatch>] = &[
        ("another log", Refused::WrongLog, |batch| batch.log = OTHER_LOG),
        ("others go", Refused::BadSignature, |batch| batch.expire.clear()),
        ("others come", Refused::BadSignature, |batch| batch.register.clear()),
    ];
    only_right(&mut stage, &valid, Command::ChangeClients, wrong);
    assert_eq!(stage.machine.clients().len(), 3);
    assert_eq!(stage.machine.clients().version(), RegistryVersion(2));

    let mut nobody = Stage::at(Step::Registered);
    nobody.refuses("without an aggregator", Refused::NotAggregator, &Command::ChangeClients(valid));
}

#[test]
fn a_full_registry_takes_nobody() {
    let mut stage = Stage::at(Step::Approved);
    let bundle = stage.cast.clients[0].bundle.clone();
    let numbered = |number: u32| {
        let mut peer = [0; 32];
        peer[..4].copy_from_slice(&number.to_be_bytes());
        Bundle { peer: PeerId(peer), ..bundle.clone() }
    };
    let all = (0..crate::registry::CLIENTS_MAX).map(numbered).collect();
    stage.machine.state.clients =
        ClientRegistry::from_parts(RegistryVersion(1), Counter(0), all).expect("so many are allowed");
    let batch = Command::ChangeClients(stage.cast.aggregator.batch(1, vec![bundle], vec![]));
    let result = stage.machine.apply(9, &batch, &mut Vec::new());
    assert_eq!(result, Err(Refused::TooMany));
}

#[test]
fn a_refused_client_is_out_and_stays_out_for_a_while() {
    let mut stage = Stage::at(Step::Enrolled);
    let client = stage.cast.clients[0].bundle.clone();
    let unknown = stage.cast.clients[3].bundle.clone();
    let stranger = stage.cast.servers[3].refuse(1, &client, true);
    stage.refuses("a stranger", Refused::NotRegistered, &Command::RefuseClient(stranger));
    let nobody = stage.cast.servers[0].refuse(1, &unknown, true);
    stage.refuses("an unknown client", Refused::NotInRegistry, &Command::RefuseClient(nobody));
    let refusal = stage.cast.servers[0].refuse(2, &client, true);
    let newer = Bundle { epoch: Epoch(2), ..client };
    let other = stage.cast.servers[0].refuse(2, &newer, true);
    stage.refuses("other keys", Refused::StaleEpoch, &Command::RefuseClient(other));
    let wrong: &[Wrong<ClientRefusal>] = &[
        ("another log", Refused::WrongLog, |it| it.log = OTHER_LOG),
        ("an old counter", Refused::StaleCounter, |it| it.counter = Counter(0)),
        ("the opposite", Refused::BadSignature, |it| it.refuse = false),
    ];
    only_right(&mut stage, &refusal, Command::RefuseClient, wrong);
    assert_eq!(stage.machine.clients().len(), 2);
    assert_eq!(stage.machine.clients().version(), RegistryVersion(2));
    let again = stage.cast.clients[0].renew(2);
    let batch = |stage: &mut Stage| {
        Command::ChangeClients(stage.cast.aggregator.batch(2, vec![again.clone()], vec![]))
    };
    let barred = batch(&mut stage);
    stage.refuses("at once", Refused::Barred, &barred);
    let withdrawal = stage.cast.servers[0].refuse(3, &client, false);
    stage.accepts(&Command::RefuseClient(withdrawal));
    stage.refuses("after the withdrawal", Refused::Barred, &barred);
    for _ in 0..BARRED_ROUNDS {
        stage.refuses("some rounds later", Refused::Barred, &barred);
        let header = stage.cast.header(&stage.machine);
        stage.accepts(&Command::OpenRound(header));
    }
    stage.accepts(&barred);
}

#[test]
fn a_refusal_holds_until_its_server_withdraws_renews_or_leaves() {
    let ends: [fn(&mut Stage) -> Command; 3] = [
        |stage| {
            let client = stage.cast.clients[0].bundle.clone();
            Command::RefuseClient(stage.cast.servers[0].refuse(2, &client, false))
        },
        |stage| {
            stage.cast.servers[0].renew(2);
            stage.cast.servers[0].register(2)
        },
        |stage| Command::DepartServer(stage.cast.servers[0].announce(2, Standing::Departed)),
    ];
    for end in ends {
        let mut stage = Stage::at(Step::Enrolled);
        let client = stage.cast.clients[0].bundle.clone();
        let refusal = stage.cast.servers[0].refuse(1, &client, true);
        stage.accepts(&Command::RefuseClient(refusal));
        stage.machine.state.barred.clear();
        assert!(stage.machine.is_barred(&client.peer));
        let command = end(&mut stage);
        stage.accepts(&command);
        assert!(!stage.machine.is_barred(&client.peer));
    }
}

#[test]
fn a_departed_server_refuses_nobody() {
    let mut stage = Stage::at(Step::Enrolled);
    let departure = stage.cast.servers[0].announce(2, Standing::Departed);
    stage.accepts(&Command::DepartServer(departure));
    let client = stage.cast.clients[0].bundle.clone();
    let refusal = stage.cast.servers[0].refuse(1, &client, true);
    stage.refuses("departed", Refused::NotRegistered, &Command::RefuseClient(refusal));
}

#[test]
fn bars_that_are_over_are_forgotten() {
    let mut stage = Stage::at(Step::Enrolled);
    let [first, second] = [0, 1].map(|client| stage.cast.clients[client].bundle.clone());
    let refusal = stage.cast.servers[0].refuse(1, &first, true);
    stage.accepts(&Command::RefuseClient(refusal));
    let withdrawal = stage.cast.servers[0].refuse(2, &first, false);
    stage.accepts(&Command::RefuseClient(withdrawal));
    for _ in 0..BARRED_ROUNDS {
        let header = stage.cast.header(&stage.machine);
        stage.accepts(&Command::OpenRound(header));
    }
    assert!(!stage.machine.is_barred(&first.peer));
    let refusal = stage.cast.servers[0].refuse(3, &second, true);
    stage.accepts(&Command::RefuseClient(refusal));
    assert_eq!(stage.machine.state.barred.keys().collect::<Vec<_>>(), [&second.peer]);
}

/// A registry of so many clients, the first of which are those of the cast.
fn crowd(stage: &mut Stage, count: u32) {
    let mut bundles: Vec<_> = stage.machine.clients().iter().map(|(_, bundle)| bundle.clone()).collect();
    let numbered = |number: u32| {
        let mut peer = [0xff; 32];
        peer[28..].copy_from_slice(&number.to_be_bytes());
        Bundle { peer: PeerId(peer), ..bundles[0].clone() }
    };
    let missing = count - stage.machine.clients().len();
    let more: Vec<_> = (0..missing).map(numbered).collect();
    bundles.extend(more);
    stage.machine.state.clients =
        ClientRegistry::from_parts(RegistryVersion(1), Counter(1), bundles).expect("in order");
    stage.twice = false;
}

fn registered(stage: &Stage) -> Vec<Bundle> {
    stage.machine.clients().iter().map(|(_, bundle)| bundle.clone()).collect()
}

#[test]
fn one_server_refuses_a_quarter_of_the_registry_or_sixteen() {
    assert_eq!([0, 16, 63, 64, 67, 68, 1000].map(refused_max), [16, 16, 16, 16, 16, 17, 250]);
    let mut stage = Stage::at(Step::Enrolled);
    crowd(&mut stage, 40);
    let me = stage.cast.server(0);
    for (client, counter) in registered(&stage).iter().zip(1..=16) {
        let refusal = stage.cast.servers[0].refuse(counter, client, true);
        let reports = stage.accepts(&Command::RefuseClient(refusal));
        let [Report::ClientsChanged { .. }, Report::ClientRefused { server, client: refused }] = reports[..]
        else {
            panic!("{reports:?}")
        };
        assert_eq!((server, refused), (me, client.peer));
    }
    assert_eq!((stage.machine.refused_by(&me).count(), stage.machine.clients().len()), (16, 24));
    let seventeenth = registered(&stage)[0].clone();
    let one_more = stage.cast.servers[0].refuse(17, &seventeenth, true);
    stage.refuses("one more", Refused::TooMany, &Command::RefuseClient(one_more));

    // Neither withdrawals nor new keys make room at once: whoever was refused may not come back yet.
    let first = stage.machine.refused_by(&me).next().copied().expect("there are some");
    let withdrawal = stage.cast.servers[0].refuse(17, &Bundle { peer: first, ..seventeenth }, false);
    let reports = stage.accepts(&Command::RefuseClient(withdrawal));
    assert!(
        matches!(reports[..], [Report::RefusalWithdrawn { server, client }] if (server, client) == (me, first))
    );
    let one_more = stage.cast.servers[0].refuse(18, &seventeenth, true);
    stage.refuses("after a withdrawal", Refused::TooMany, &Command::RefuseClient(one_more));
    stage.cast.servers[0].renew(2);
    let registration = stage.cast.servers[0].register(2);
    stage.accepts(&registration);
    assert_eq!(stage.machine.refused_by(&me).count(), 0);
    stage.refuses("after new keys", Refused::TooMany, &Command::RefuseClient(one_more));

    // Another server has its own room, and that of the first one comes back with the end of the bars.
    let other = stage.cast.servers[1].refuse(1, &seventeenth, true);
    stage.accepts(&Command::RefuseClient(other));
    for _ in 0..BARRED_ROUNDS {
        let header = stage.cast.header(&stage.machine);
        stage.accepts(&Command::OpenRound(header));
    }
    let next = registered(&stage)[0].clone();
    let one_more = stage.cast.servers[0].refuse(18, &next, true);
    stage.accepts(&Command::RefuseClient(one_more));
}

#[test]
fn a_larger_registry_makes_room_for_more_refusals() {
    let mut stage = Stage::at(Step::Enrolled);
    crowd(&mut stage, 100);
    let mut counter = 0;
    while stage.machine.refused_by(&stage.cast.server(0)).count() < refused_max(stage.machine.clients().len())
    {
        let client = registered(&stage)[0].clone();
        counter += 1;
        let refusal = stage.cast.servers[0].refuse(counter, &client, true);
        stage.accepts(&Command::RefuseClient(refusal));
    }
    assert_eq!((counter, stage.machine.clients().len()), (20, 80));
    let client = registered(&stage)[0].clone();
    let refusal = stage.cast.servers[0].refuse(counter + 1, &client, true);
    stage.refuses("one more", Refused::TooMany, &Command::RefuseClient(refusal));
}

#[test]
fn what_is_left_of_refusals_does_not_keep_rounds_from_being_opened() {
    let mut stage = Stage::at(Step::Enrolled);
    let all = registered(&stage);
    for (client, counter) in all.iter().zip(1..) {
        let refusal = stage.cast.servers[0].refuse(counter, client, true);
        stage.accepts(&Command::RefuseClient(refusal));
    }
    assert!(stage.machine.clients().is_empty());
    let batch = stage.cast.aggregator.batch(2, vec![all[0].clone()], vec![]);
    stage.refuses("refused", Refused::Barred, &Command::ChangeClients(batch.clone()));
    for (client, counter) in all.iter().zip(4..) {
        let withdrawal = stage.cast.servers[0].refuse(counter, client, false);
        stage.accepts(&Command::RefuseClient(withdrawal));
    }
    // No round can be opened, so none would ever end a bar.
    stage.accepts(&Command::ChangeClients(batch));
    let batch = stage.cast.aggregator.batch(3, vec![all[1].clone()], vec![]);
    stage.accepts(&Command::ChangeClients(batch));
    let batch = stage.cast.aggregator.batch(4, vec![all[2].clone()], vec![]);
    stage.refuses("two are enough for a round", Refused::Barred, &Command::ChangeClients(batch));
}

#[test]
fn a_signature_leaves_out_no_more_than_a_server_may_refuse() {
    let mut stage = Stage::at(Step::Enrolled);
    crowd(&mut stage, 20);
    stage.take(Step::Opened);
    let header = stage.open().header;
    let all: Vec<u32> = (0..17).collect();
    let greedy = stage.cast.servers[0].sign_header(&header, &all);
    stage.refuses("seventeen of twenty", Refused::TooMany, &Command::SignHeader(greedy));
    // Whom the server refuses since the opening counts as well, and only once.
    for (client, counter) in registered(&stage)[..2].iter().zip(1..) {
        let refusal = stage.cast.servers[0].refuse(counter, client, true);
        stage.accepts(&Command::RefuseClient(refusal));
    }
    let greedy = stage.cast.servers[0].sign_header(&header, &all[2..]);
    stage.refuses("two and fifteen", Refused::TooMany, &Command::SignHeader(greedy));
    let modest = stage.cast.servers[0].sign_header(&header, &all[..16]);
    stage.accepts(&Command::SignHeader(modest));
}

#[test]
fn a_round_is_not_opened_for_fewer_clients_than_its_floor_once_some_are_refused() {
    let mut stage = Stage::at(Step::Enrolled);
    for (client, counter) in registered(&stage)[..2].iter().zip(1..) {
        let refusal = stage.cast.servers[0].refuse(counter, client, true);
        stage.accepts(&Command::RefuseClient(refusal));
    }
    let header = stage.cast.header(&stage.machine);
    assert_eq!((header.clients.count, header.min_participants), (1, 2));
    stage.refuses("one client", Refused::TooFewParticipants, &Command::OpenRound(header));
}

/// The names of reports, in order.
fn names(reports: &[Report]) -> Vec<&'static str> {
    let name = |report: &Report| match report {
        Report::LogStarted { .. } => "log started",
        Report::RoundOpened { .. } => "round opened",
        Report::HeaderLive { .. } => "header live",
        Report::AggregateApplied { .. } => "aggregate applied",
        Report::PartialApplied { .. } => "partial applied",
        Report::RoundFinalized { .. } => "round finalized",
        Report::RoundAbandoned { .. } => "round abandoned",
        Report::RecordConfirmed { .. } => "record confirmed",
        Report::ServerRegistered { .. } => "server registered",
        Report::AggregatorRegistered { .. } => "aggregator registered",
        Report::ClientsChanged { .. } => "clients changed",
        other => panic!("{other:?}"),
    };
    reports.iter().map(name).collect()
}

#[test]
fn a_log_goes_from_its_start_to_a_confirmed_record() {
    let mut stage = Stage::new();
    let mut steps = Vec::new();
    for step in Step::ALL {
        steps.extend(names(&stage.take(step)));
    }
    assert_eq!(
        steps,
        [
            "log started",
            "server registered",
            "server registered",
            "server registered",
            "aggregator registered",
            "clients changed",
            "round opened",
            "header live",
            "aggregate applied",
            "partial applied",
            "partial applied",
            "partial applied",
            "round finalized",
            "record confirmed",
        ]
    );
    let kept = stage.machine.records()[0].clone();
    assert!(kept.provisional() && kept.confirmed());
    assert_eq!(kept.record.digest(), kept.digest);
    assert_eq!(stage.machine.previous().record, kept.digest);
    assert_eq!(kept.record.previous, Digest::default());
    assert_eq!(kept.record.servers, stage.cast.voters().into_iter().collect::<Vec<_>>());
    assert_eq!(written(&kept), [b"words of r1".to_vec()]);
}

/// The messages of a record, without their zeros.
fn written(kept: &SignedRecord) -> Vec<Vec<u8>> {
    let params = Cast::config().params;
    let slots = crate::slot::read_slots(&params, &kept.record.header, &kept.record.broadcast);
    let text = |payload: &[u8]| payload.iter().copied().take_while(|byte| *byte != 0).collect();
    slots
        .filter_map(|content| match content {
            crate::slot::SlotContent::Message(payload) => Some(text(payload)),
            crate::slot::SlotContent::Empty => None,
            crate::slot::SlotContent::Garbled => panic!("nobody else writes"),
        })
        .collect()
}

#[test]
fn records_form_a_chain_of_which_the_newest_are_kept() {
    let mut stage = Stage::new();
    let mut previous = Digest::default();
    for round in 1..=10_u64 {
        stage.go(Step::Finalized);
        stage.take(Step::Confirmed);
        let kept = stage.machine.records().back().unwrap();
        assert_eq!(kept.record.round, Round(round));
        assert_eq!(kept.record.previous, previous);
        assert_eq!(written(kept), [format!("words of r{round}").into_bytes()]);
        previous = kept.digest;
    }
    assert_eq!(stage.machine.records().len(), RECORDS_KEPT);
}

#[test]
fn a_majority_of_signatures_makes_a_record_provisional() {
    let mut stage = Stage::at(Step::Finalized);
    let expected = [(false, false), (false, false), (true, false), (true, true)];
    for (signatures, expected) in expected.into_iter().enumerate() {
        let kept = stage.machine.records().back().unwrap().clone();
        assert_eq!(kept.signatures.len(), signatures);
        assert_eq!((kept.provisional(), kept.confirmed()), expected);
        if let Some(command) = stage.cast.next(&stage.machine, Step::Confirmed) {
            stage.accepts(&command);
        }
    }
}

/// Abandonments among the reports.
fn abandoned(reports: &[Report]) -> Vec<(Abandonment, Vec<PeerId>)> {
    reports
        .iter()
        .filter_map(|report| match report {
            Report::RoundAbandoned { reason, missing, .. } => Some((*reason, missing.clone())),
            _ => None,
        })
        .collect()
}

#[test]
fn an_opening_abandons_the_open_round_and_says_what_was_missing() {
    let mut stage = Stage::at(Step::Opened);
    let missing = |stage: &Stage, from: usize| stage.cast.voters().into_iter().skip(from).collect::<Vec<_>>();
    let reopen = |stage: &mut Stage| {
        let header = stage.cast.header(&stage.machine);
        abandoned(&stage.accepts(&Command::OpenRound(header)))
    };
    let signature = stage.cast.next(&stage.machine, Step::Live).unwrap();
    stage.accepts(&signature);
    assert_eq!(reopen(&mut stage), [(Abandonment::Unsigned, missing(&stage, 1))]);
    stage.go(Step::Live);
    assert_eq!(reopen(&mut stage), [(Abandonment::NoAggregate, vec![])]);
    stage.go(Step::Aggregated);
    let partial = stage.cast.next(&stage.machine, Step::Finalized).unwrap();
    stage.accepts(&partial);
    assert_eq!(reopen(&mut stage), [(Abandonment::MissingPartial, missing(&stage, 1))]);
    assert_eq!(stage.machine.opened(), Round(4));
    assert_eq!(stage.machine.previous(), Previous::default(), "only records count as past");
    stage.go(Step::Finalized);
    assert_eq!(stage.machine.previous().round, Round(4));
}

#[test]
fn who_leaves_or_renews_before_its_partial_ends_the_round() {
    let ends: [fn(&mut Stage, usize) -> Vec<Command>; 3] = [
        |stage, server| {
            vec![Command::DepartServer(stage.cast.servers[server].announce(2, Standing::Departed))]
        },
        |stage, server| {
            stage.cast.servers[server].renew(2);
            vec![stage.cast.servers[server].register(2)]
        },
        |stage, server| {
            let dead = stage.cast.server(server);
            let others = (0..3).filter(|other| *other != server);
            others.map(|other| Command::TestifyDead(stage.cast.servers[other].testify(dead, 1))).collect()
        },
    ];
    for end in ends {
        for (server, ends_it) in [(0, false), (1, true)] {
            let mut stage = Stage::at(Step::Aggregated);
            let partial = stage.cast.next(&stage.machine, Step::Finalized).unwrap();
            stage.accepts(&partial);
            let mut reports = Vec::new();
            for command in end(&mut stage, server) {
                reports.extend(stage.accepts(&command));
            }
            assert_eq!(stage.machine.open().is_none(), ends_it);
            assert_eq!(abandoned(&reports).len(), usize::from(ends_it));
        }
    }
}

#[test]
fn a_round_lives_on_with_the_clients_that_its_header_pins() {
    let mut stage = Stage::at(Step::Live);
    let expire = (0..3).map(|client| (stage.cast.client(client), Epoch(1))).collect();
    let register = vec![stage.cast.clients[3].bundle.clone()];
    let batch = stage.cast.aggregator.batch(2, register, expire);
    stage.accepts(&Command::ChangeClients(batch));
    assert_eq!(stage.machine.clients().len(), 1);
    stage.go(Step::Finalized);
    assert_eq!(written(stage.machine.records().back().unwrap()), [b"words of r1".to_vec()]);
}

#[test]
fn machines_that_differ_find_out_at_the_next_record() {
    let mut one = Stage::at(Step::Aggregated);
    let mut other = Stage::at(Step::Aggregated);
    let learner = other.cast.server(3);
    other.machine.state.retired.insert(learner);
    for stage in [&mut one, &mut other] {
        stage.go(Step::Finalized);
    }
    let (one, other) = (one.machine.previous(), other.machine.previous());
    assert_eq!((one.round, one.record), (other.round, other.record));
    assert_ne!(one.state, other.state);
}

#[test]
fn a_snapshot_is_the_whole_machine() {
    for step in Step::ALL {
        let mut stage = Stage::at(step);
        let snapshot = stage.machine.snapshot();
        let mut restored = Committee::new(Cast::config(), Strict);
        restored.restore(&snapshot).expect("it was taken by a machine");
        assert_eq!(restored.snapshot(), snapshot);
        stage.machine = restored;
        for later in Step::ALL.into_iter().filter(|later| *later > step) {
            stage.take(later);
        }
        assert_eq!(stage.machine.snapshot(), Stage::at(Step::Confirmed).machine.snapshot());
    }
}

#[test]
fn every_truncation_of_a_snapshot_is_refused() {
    for step in [Step::Started, Step::Aggregated, Step::Confirmed] {
        let stage = Stage::at(step);
        let snapshot = stage.machine.snapshot();
        let mut other = Committee::new(Cast::config(), Strict);
        let empty = other.snapshot();
        for len in 0..snapshot.len() {
            assert_eq!(
                other.restore(&snapshot[..len]),
                Err(BadSnapshot::Malformed),
                "{len} of {}",
                snapshot.len()
            );
        }
        let mut longer = snapshot.clone();
        longer.push(0);
        assert_eq!(other.restore(&longer), Err(BadSnapshot::Malformed));
        assert_eq!(other.snapshot(), empty, "what is refused changes nothing");
    }
}

#[test]
fn a_snapshot_whose_open_round_does_not_fit_is_refused() {
    type Change = (&'static str, fn(&mut OpenRound));
    let changes: [Change; 6] = [
        ("another registry", |open| open.clients = ClientRegistry::new()),
        ("refusals over other clients", |open| open.refused = Some(Bitmap::new(9))),
        ("participants over other clients", |open| {
            open.aggregate.as_mut().unwrap().participants = Bitmap::new(9);
        }),
        ("a short vector", |open| open.aggregate.as_mut().unwrap().body.truncate(1)),
        ("other parameters", |open| Arc::make_mut(&mut open.header).params = RoundParams::DEFAULT),
        ("a signature over other clients", |open| {
            open.signatures.values_mut().next().unwrap().refused = Bitmap::new(9);
        }),
    ];
    for (what, change) in changes {
        let mut stage = Stage::at(Step::Aggregated);
        change(stage.machine.state.open.as_mut().unwrap());
        let snapshot = stage.machine.snapshot();
        let mut other = Committee::new(Cast::config(), Strict);
        assert_eq!(other.restore(&snapshot), Err(BadSnapshot::Inconsistent), "{what}");
    }
}

#[test]
fn reasons_have_stable_names() {
    let names = [
        (Refused::WrongLog, "wrong-log"),
        (Refused::NotInRegistry, "not-in-registry"),
        (Refused::StillAlive, "still-alive"),
    ];
    for (reason, name) in names {
        assert_eq!(reason.name(), name);
        assert_eq!(format!("{reason}"), name);
    }
}
