use std::time::Duration;

use zipnet_core::aggregator::{Aggregator, Believed, Config, Input};
use zipnet_core::checks::{Check, Checks, Strict};
use zipnet_core::id::{Counter, Digest, Epoch, LogId, PeerId, RegistryVersion, Role, Round};
use zipnet_core::machine::{Done, Effect, Job, Report};
use zipnet_core::message::{
    Aggregate, Bundle, ClientBatch, Command, Disclaimer, Envelope, LiveHeader, Message, Record, Standing,
    Turnout,
};
use zipnet_core::refused::Refused;

use crate::cast::{Cast, LOG, Machine, Plan, Play, RESEND, made, sent};

/// Skips one rule.
#[derive(Clone, Debug)]
struct Without(Check);

impl Checks for Without {
    fn enforce(&self, check: Check) -> bool {
        check != self.0
    }
}

fn refusals(effects: &[Effect]) -> Vec<(&'static str, Refused)> {
    let refusal = |effect: &Effect| match effect {
        Effect::Report(Report::Refused { kind, reason, .. }) => Some((*kind, *reason)),
        _ => None,
    };
    effects.iter().filter_map(refusal).collect()
}

fn registry(cast: &Cast, version: u64, clients: &[usize]) -> Message {
    let clients = cast.registry(version, clients).bundles().to_vec();
    Message::Registry { log: LOG, version: RegistryVersion(version), counter: Counter(version), clients }
}

/// Three linked servers, three linked clients in version 1.
fn registered<C: Checks>(checks: C) -> Play<Aggregator<C>> {
    let cast = Cast::new();
    let machine = Aggregator::new(cast.aggregator_config(), checks);
    let mut play = Play::new(cast, machine);
    for index in 0..3 {
        let peer = play.cast.server(index);
        play.feed(Input::Linked { peer, role: Role::Server });
    }
    let message = registry(&play.cast, 1, &[0, 1, 2]);
    let server = play.cast.server(0);
    play.hear(server, &message);
    for index in 0..3 {
        let peer = play.cast.client(index);
        play.feed(Input::Linked { peer, role: Role::Client });
        let bundle = play.cast.clients[index].bundle.clone();
        play.hear(peer, &Message::Bundle(bundle));
    }
    play
}

fn live<C: Checks>(play: &mut Play<Aggregator<C>>, plan: &Plan) -> LiveHeader {
    let live = play.cast.live(plan);
    let server = play.cast.server(0);
    let effects = play.hear(server, &Message::Live(live.clone()));
    assert_eq!(refusals(&effects), []);
    live
}

/// What a client sends.
fn send<C: Checks>(play: &mut Play<Aggregator<C>>, client: usize, envelope: &Envelope) -> Vec<Effect> {
    let from = play.cast.client(client);
    play.hear(from, &Message::Envelope(envelope.clone()))
}

fn aggregates(effects: &[Effect]) -> Vec<Aggregate> {
    let aggregate = |(_, message)| match message {
        Message::Aggregate(aggregate) => Some(aggregate),
        _ => None,
    };
    sent(effects).into_iter().filter_map(aggregate).collect()
}

fn batches(effects: &[Effect]) -> Vec<ClientBatch> {
    let batch = |(_, message)| match message {
        Message::Propose(Command::ChangeClients(batch)) => Some(batch),
        _ => None,
    };
    sent(effects).into_iter().filter_map(batch).collect()
}

#[test]
fn envelope_that_does_not_fit_is_refused_with_its_reason() {
    type Change = fn(&mut Envelope);
    let table: [(&str, Change, Refused); 6] = [
        ("another log", |e| e.log = LogId([9; 32]), Refused::WrongLog),
        ("another round", |e| e.round = Round(2), Refused::WrongRound),
        ("another header", |e| e.header = Digest([9; 32]), Refused::WrongHeader),
        ("another epoch", |e| e.epoch = Epoch(9), Refused::StaleEpoch),
        ("a byte too few", |e| e.body.truncate(191), Refused::WrongLength),
        ("a byte too many", |e| e.body.push(0), Refused::WrongLength),
    ];
    let mut play = registered(Strict);
    let live = live(&mut play, &Plan::round(1));
    for (what, change, reason) in table {
        let mut envelope = play.cast.envelope(0, &live);
        change(&mut envelope);
        let effects = send(&mut play, 0, &envelope);
        assert_eq!(refusals(&effects), [("envelope", reason)], "{what}");
    }
    assert_eq!(play.machine.round(), Some((Round(1), 0)), "nothing was folded");
}

#[test]
fn refused_client_and_stranger_are_not_folded() {
    let mut play = registered(Strict);
    let live = live(&mut play, &Plan { clients: vec![0, 1], version: 1, ..Plan::round(1) });
    let envelope = play.cast.envelope(2, &live);
    // The pinned version is not known here: nobody can take part.
    assert_eq!(refusals(&send(&mut play, 2, &envelope)), [("envelope", Refused::WrongRegistry)]);

    let mut play = registered(Strict);
    let live = self::live(&mut play, &Plan { refused: vec![1], ..Plan::round(1) });
    let envelope = play.cast.envelope(1, &live);
    assert_eq!(refusals(&send(&mut play, 1, &envelope)), [("envelope", Refused::RefusedClient)]);
    // The two others are everybody.
    let first = play.cast.envelope(0, &live);
    assert_eq!(aggregates(&send(&mut play, 0, &first)).len(), 0);
    let third = play.cast.envelope(2, &live);
    let aggregate = aggregates(&send(&mut play, 2, &third)).remove(0);
    assert_eq!(aggregate.participants.iter_ones().collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn envelopes_in_any_order_and_number_give_one_aggregate() {
    let orders: [&[usize]; 4] = [&[0, 1, 2], &[2, 0, 1], &[1, 1, 0, 0, 2], &[2, 2, 2, 1, 0, 1]];
    let mut results = Vec::new();
    for order in orders {
        let mut play = registered(Strict);
        let live = live(&mut play, &Plan::round(1));
        let mut effects = Vec::new();
        for client in order {
            let envelope = play.cast.envelope(*client, &live);
            effects.extend(send(&mut play, *client, &envelope));
            effects.extend(send(&mut play, *client, &envelope));
        }
        assert_eq!(refusals(&effects), []);
        let aggregates = aggregates(&effects);
        assert!(aggregates.windows(2).all(|pair| pair[0] == pair[1]), "one aggregate per header");
        results.push(aggregates[0].clone());
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "the order does not matter");
}

#[test]
fn a_second_envelope_is_the_same_or_it_is_refused_and_the_first_stays() {
    type Change = fn(&mut Envelope);
    let other: [Change; 3] =
        [|it| it.body[0] ^= 1, |it| *it.body.last_mut().unwrap() ^= 0x80, |it| it.signature.0[0] ^= 1];
    let mut first = None;
    for (place, change) in other.into_iter().enumerate() {
        for repeats in 0..3 {
            let mut play = registered(Strict);
            let live = live(&mut play, &Plan::round(1));
            let envelope = play.cast.envelope(0, &live);
            for _ in 0..=repeats {
                assert_eq!(refusals(&send(&mut play, 0, &envelope)), []);
            }
            let mut second = envelope.clone();
            change(&mut second);
            for _ in 0..2 {
                let refused = refusals(&send(&mut play, 0, &second));
                assert_eq!(refused, [("envelope", Refused::Equivocation)], "{place} {repeats}");
            }
            let mut aggregate = Vec::new();
            for client in [1, 2] {
                let envelope = play.cast.envelope(client, &live);
                aggregate.extend(aggregates(&send(&mut play, client, &envelope)));
            }
            assert_eq!(*first.get_or_insert_with(|| aggregate[0].clone()), aggregate[0]);
        }
    }
}

#[test]
fn aggregate_opens_to_a_broadcast_of_nothing_but_messages() {
    let mut play = registered(Strict);
    let plan = Plan::round(1);
    let live = live(&mut play, &plan);
    let mut aggregate = None;
    for client in 0..3 {
        let envelope = play.cast.envelope(client, &live);
        aggregate = aggregates(&send(&mut play, client, &envelope)).pop();
    }
    let mut envelopes = vec![(0, aggregate.expect("everybody is in").body)];
    let zero = vec![0; play.cast.params.vector_bytes()];
    envelopes.extend([(1, zero.clone()), (2, zero.clone())]);
    let record = play.cast.record(&plan, &live, &envelopes);
    assert_eq!(record.broadcast, zero, "three clients sent cover");
}

#[test]
fn without_its_rule_an_envelope_is_folded_twice() {
    let mut play = registered(Without(Check::FoldOnce));
    let live = live(&mut play, &Plan::round(1));
    let mut bodies = Vec::new();
    for client in [0, 0, 1, 2] {
        let envelope = play.cast.envelope(client, &live);
        bodies.extend(aggregates(&send(&mut play, client, &envelope)));
    }
    let mut strict = registered(Strict);
    let live = self::live(&mut strict, &Plan::round(1));
    let mut right = Vec::new();
    for client in [0, 1, 2] {
        let envelope = strict.cast.envelope(client, &live);
        right.extend(aggregates(&send(&mut strict, client, &envelope)));
    }
    assert_ne!(bodies[0].body, right[0].body);
}

#[test]
fn without_the_floor_a_single_envelope_is_forwarded() {
    for (floor, expected) in [(true, 0), (false, 3)] {
        let mut count = 0;
        if floor {
            let mut play = registered(Strict);
            let live = live(&mut play, &Plan::round(1));
            let envelope = play.cast.envelope(0, &live);
            send(&mut play, 0, &envelope);
            count += aggregates(&play.wait(Duration::from_secs(9))).len();
        } else {
            let mut play = registered(Without(Check::ParticipantFloor));
            let live = live(&mut play, &Plan::round(1));
            let envelope = play.cast.envelope(0, &live);
            send(&mut play, 0, &envelope);
            count += aggregates(&play.wait(Duration::from_secs(9))).len();
        }
        assert_eq!(count, expected);
    }
}

#[test]
fn header_that_not_every_server_signed_is_refused() {
    type Change = fn(&mut LiveHeader);
    let table: [(&str, Change, Refused); 5] = [
        ("one signature missing", |l| drop(l.signatures.pop()), Refused::NotLive),
        ("one altered", |l| l.signatures[1].signature.0[0] ^= 1, Refused::BadSignature),
        ("another header", |l| l.header.nonce[0] ^= 1, Refused::WrongHeader),
        (
            "no roster",
            |l| {
                l.header.servers.clear();
                l.signatures.clear();
            },
            Refused::UnsortedRoster,
        ),
        ("swapped", |l| l.signatures.swap(0, 1), Refused::NotInRoster),
    ];
    let mut play = registered(Strict);
    let good = play.cast.live(&Plan::round(1));
    for (what, change, reason) in table {
        let mut bad = good.clone();
        change(&mut bad);
        let server = play.cast.server(0);
        let effects = play.hear(server, &Message::Live(bad));
        assert_eq!(refusals(&effects), [("live", reason)], "{what}");
    }
    assert_eq!(play.machine.round(), None);
}

#[test]
fn only_servers_speak_for_the_committee_and_only_clients_send_envelopes() {
    let mut play = registered(Strict);
    let plan = Plan::round(1);
    let live = play.cast.live(&plan);
    let (server, client) = (play.cast.server(0), play.cast.client(0));
    let refused = [("message", Refused::WrongRole)];
    assert_eq!(refusals(&play.hear(client, &Message::Live(live.clone()))), refused);
    let message = registry(&play.cast, 9, &[0]);
    assert_eq!(refusals(&play.hear(client, &message)), refused);
    let envelope = play.cast.envelope(0, &live);
    assert_eq!(refusals(&play.hear(server, &Message::Envelope(envelope))), refused);
}

#[test]
fn client_bundle_that_does_not_fit_is_refused_with_its_reason() {
    type Change = fn(&mut Bundle);
    let table: [(&str, Change, Refused); 5] = [
        ("another role", |b| b.role = Role::Server, Refused::WrongRole),
        ("another instance", |b| b.instance.0[0] ^= 1, Refused::WrongInstance),
        ("a weak key", |b| b.round_key.0 = [0; 32], Refused::WeakKey),
        ("an altered signature", |b| b.signature.0[0] ^= 1, Refused::StaleEpoch),
        ("an altered epoch", |b| b.epoch = Epoch(2), Refused::BadSignature),
    ];
    for (what, change, reason) in table {
        let mut play = registered(Strict);
        let client = play.cast.client(0);
        let mut bundle = play.cast.clients[0].bundle.clone();
        change(&mut bundle);
        assert_eq!(refusals(&play.hear(client, &Message::Bundle(bundle))), [("bundle", reason)], "{what}");
    }
    let mut play = registered(Strict);
    let (client, bundle) = (play.cast.client(0), play.cast.clients[1].bundle.clone());
    let effects = play.hear(client, &Message::Bundle(bundle));
    assert_eq!(refusals(&effects), [("bundle", Refused::WrongRole)], "somebody else's");
}

#[test]
fn batch_that_is_never_applied_is_made_smaller_and_does_not_hold_up_others() {
    let cast = Cast::new();
    let machine = Aggregator::new(cast.aggregator_config(), Strict);
    let mut play = Play::new(cast, machine);
    let server = play.cast.server(0);
    play.feed(Input::Linked { peer: server, role: Role::Server });
    let message = registry(&play.cast, 0, &[]);
    play.hear(server, &message);
    for index in 0..3 {
        let peer = play.cast.client(index);
        play.feed(Input::Linked { peer, role: Role::Client });
        let bundle = play.cast.clients[index].bundle.clone();
        play.hear(peer, &Message::Bundle(bundle));
    }
    // The committee refuses every batch with the first client in it, for a reason that the aggregator does not know.
    let poison = play.cast.client(0);
    let (mut version, mut applied) = (0, Vec::new());
    for _ in 0..120 {
        for batch in batches(&play.wait(RESEND)) {
            let peers: Vec<_> = batch.register.iter().map(|bundle| bundle.peer).collect();
            if batch.counter.0 == version + 1 && !peers.contains(&poison) {
                version += 1;
                applied.extend(peers);
                play.hear(server, &Message::RegistryChanged { version: RegistryVersion(version), batch });
            }
        }
    }
    applied.sort();
    assert_eq!(applied, [play.cast.client(1), play.cast.client(2)]);
}

#[test]
fn client_that_most_servers_bar_is_set_aside_and_told_and_the_others_are_registered() {
    let cast = Cast::new();
    let machine = Aggregator::new(cast.aggregator_config(), Strict);
    let mut play = Play::new(cast, machine);
    let servers: Vec<_> = (0..3).map(|index| play.cast.server(index)).collect();
    let message = registry(&play.cast, 0, &[]);
    for server in &servers {
        play.feed(Input::Linked { peer: *server, role: Role::Server });
        play.hear(*server, &message);
    }
    for index in 0..2 {
        let peer = play.cast.client(index);
        play.feed(Input::Linked { peer, role: Role::Client });
        let bundle = play.cast.clients[index].bundle.clone();
        play.hear(peer, &Message::Bundle(bundle));
    }
    let barred = play.cast.clients[0].bundle.clone();
    let says = Message::BundleRefused { reason: Refused::Barred, last: Some(barred.clone()) };
    // The first client has a batch of its own, and the second waits for its end.
    let asked_next = |effects: &[Effect]| {
        let to: Vec<_> = sent(effects)
            .into_iter()
            .filter(|(_, message)| matches!(message, Message::Propose(Command::ChangeClients(_))))
            .map(|(to, _)| to)
            .collect();
        to
    };
    let effects = play.hear(servers[0], &says);
    assert_eq!(
        asked_next(&effects),
        [servers[1]],
        "one server does not decide, and another is asked at once"
    );
    assert!(play.hear(servers[0], &says).is_empty(), "nor by saying it twice");
    let effects = play.hear(servers[1], &says);
    let told = Message::BundleRefused { reason: Refused::Barred, last: None };
    assert!(sent(&effects).contains(&(barred.peer, told)), "{effects:?}");
    let [batch] = &batches(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(batch.register, [play.cast.clients[1].bundle.clone()]);
    assert!(play.hear(servers[2], &says).is_empty(), "a late word changes nothing");
}

#[test]
fn registry_of_another_log_waits_until_most_servers_speak_of_it() {
    let mut play = registered(Strict);
    let other = LogId([0x99; 32]);
    let clients = play.cast.registry(5, &[0]).bundles().to_vec();
    let message = |counter| Message::Registry {
        log: other,
        version: RegistryVersion(5),
        counter,
        clients: clients.clone(),
    };
    let (second, third) = (play.cast.server(1), play.cast.server(2));
    assert_eq!(refusals(&play.hear(second, &message(Counter(5)))), [("registry", Refused::WrongLog)]);
    assert_eq!(play.machine.log(), Some(LOG));
    play.hear(third, &message(Counter(5)));
    assert_eq!(play.machine.log(), Some(other));
    assert_eq!(play.machine.registry().map(|registry| registry.len()), Some(1));
}

#[test]
fn record_that_does_not_fit_its_header_is_refused() {
    let mut play = registered(Strict);
    let plan = Plan::round(1);
    let live = live(&mut play, &plan);
    let server = play.cast.server(0);
    let good = play.cast.record(&plan, &live, &[]);
    type Change = fn(&mut Record);
    let table: [(&str, Change, &[usize], Refused); 5] = [
        ("another log", |r| r.log = LogId([9; 32]), &[0, 1, 2], Refused::WrongLog),
        ("another header", |r| r.header = Digest([9; 32]), &[0, 1, 2], Refused::WrongHeader),
        ("another roster", |r| r.servers.truncate(2), &[0, 1], Refused::WrongRoster),
        ("another past", |r| r.previous = Digest([9; 32]), &[0, 1, 2], Refused::WrongPrevious),
        ("a minority", |_| (), &[0], Refused::BadSignature),
    ];
    for (what, change, signers, reason) in table {
        let mut record = good.clone();
        change(&mut record);
        let signatures = play.cast.sign_record(&record, signers);
        let effects = play.hear(server, &Message::Record { record, signatures });
        assert_eq!(refusals(&effects), [("record", reason)], "{what}");
    }
    let signatures = play.cast.sign_record(&good, &[0, 1, 2]);
    let effects = play.hear(server, &Message::Record { record: good, signatures });
    assert_eq!(sent(&effects).len(), 3, "each client gets it");
}

#[test]
fn stopped_aggregator_does_nothing_more() {
    let mut play = registered(Strict);
    play.feed(Input::Stop);
    let live = play.cast.live(&Plan::round(1));
    let server = play.cast.server(0);
    assert!(play.hear(server, &Message::Live(live)).is_empty());
    assert_eq!(play.machine.deadline().at, zipnet_core::time::Time::NEVER);
}

#[test]
fn late_results_of_jobs_change_nothing() {
    let mut play = registered(Strict);
    let live = live(&mut play, &Plan::round(1));
    let job = Job::SignAggregate {
        log: LOG,
        round: Round(1),
        header: live.header.digest(),
        participants: zipnet_core::bitmap::Bitmap::new(3),
        body: vec![0; 192],
    };
    let done = play.cast.aggregator.keyring.perform(&job, || [0x5a; 32]);
    assert!(play.feed(Input::Done(done)).is_empty(), "nothing was asked for");
    let header = live.header.digest();
    assert!(play.feed(Input::Done(Done::Withheld { round: Round(1), header })).is_empty());
    assert!(Machine::deadline(&play.machine).at > play.now);
}

#[test]
fn client_that_is_linked_anew_is_registered_once_and_shown_the_round_again() {
    let mut play = registered(Strict);
    let (server, client) = (play.cast.server(0), play.cast.client(0));
    // A batch is under way, so that others wait.
    for epoch in [2, 3] {
        let job = Job::MakeBundle { epoch: Epoch(epoch), fresh_key: true };
        let index = usize::from(epoch == 3);
        play.cast.clients[index].bundle = made(play.cast.clients[index].keyring.perform(&job, || [0x5a; 32]));
    }
    let second = play.cast.client(1);
    let renewed = play.cast.clients[1].bundle.clone();
    let first = batches(&play.hear(second, &Message::Bundle(renewed))).remove(0);
    for _ in 0..3 {
        play.feed(Input::Unlinked { peer: client });
        play.feed(Input::Linked { peer: client, role: Role::Client });
        let bundle = play.cast.clients[0].bundle.clone();
        play.hear(client, &Message::Bundle(bundle));
    }
    let effects = play.hear(server, &Message::RegistryChanged { version: RegistryVersion(2), batch: first });
    let batch = batches(&effects).remove(0);
    assert_eq!(batch.register.len(), 1);
    play.hear(server, &Message::RegistryChanged { version: RegistryVersion(3), batch });

    live(&mut play, &Plan { version: 3, ..Plan::round(1) });
    play.feed(Input::Linked { peer: client, role: Role::Client });
    let bundle = play.cast.clients[0].bundle.clone();
    let effects = play.hear(client, &Message::Bundle(bundle));
    assert!(matches!(&sent(&effects)[..], [(to, Message::LiveFor { .. })] if *to == client));
}

fn turnouts(effects: &[Effect]) -> Vec<(PeerId, Turnout)> {
    let turnout = |(to, message)| match message {
        Message::Turnout(turnout) => Some((to, turnout)),
        _ => None,
    };
    sent(effects).into_iter().filter_map(turnout).collect()
}

#[test]
fn servers_are_told_why_too_few_take_part() {
    let mut play = registered(Strict);
    let live = live(&mut play, &Plan { min_participants: 3, ..Plan::round(1) });
    let (round, header) = (live.header.round, live.header.digest());
    let decline = |play: &mut Play<Aggregator<Strict>>, client: usize, header, reason| {
        let from = play.cast.client(client);
        assert_eq!(refusals(&play.hear(from, &Message::Declined { round, header, reason })), []);
    };
    // Once each, for this header, and only by clients of its client set.
    decline(&mut play, 0, header, Refused::PinMissing);
    decline(&mut play, 0, header, Refused::RosterTooSmall);
    decline(&mut play, 1, Digest([9; 32]), Refused::RosterTooSmall);
    let server = play.cast.server(0);
    let declined = Message::Declined { round, header, reason: Refused::RosterTooSmall };
    assert_eq!(refusals(&play.hear(server, &declined)), [("message", Refused::WrongRole)]);
    let gone = play.cast.client(2);
    play.feed(Input::Unlinked { peer: gone });
    assert!(turnouts(&play.wait(Duration::from_millis(1999))).is_empty(), "they may still come");

    let turnout =
        Turnout { round, header, envelopes: 0, absent: 1, declined: vec![(Refused::RosterTooSmall, 1)] };
    let effects = play.wait(Duration::from_millis(1));
    let all: Vec<_> = (0..3).map(|server| (play.cast.server(server), turnout.clone())).collect();
    assert_eq!(turnouts(&effects), all);
    let reported = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::Report(Report::TurnoutLow { floor: 3, .. })))
    };
    assert!(reported(&effects));
    let effects = play.wait(Duration::from_secs(2));
    assert_eq!((turnouts(&effects).len(), reported(&effects)), (3, false), "repeated, and reported once");

    // Whoever takes part after all has not declined.
    let envelope = play.cast.envelope(0, &live);
    send(&mut play, 0, &envelope);
    decline(&mut play, 0, header, Refused::RosterTooSmall);
    let effects = play.wait(Duration::from_secs(2));
    let better = Turnout { envelopes: 1, declined: vec![], ..turnout };
    assert_eq!(turnouts(&effects)[0].1, better);
    assert!(reported(&effects));
    for client in [1, 2] {
        let envelope = play.cast.envelope(client, &live);
        let peer = play.cast.client(client);
        play.feed(Input::Linked { peer, role: Role::Client });
        send(&mut play, client, &envelope);
    }
    assert!(turnouts(&play.wait(Duration::from_secs(10))).is_empty(), "it is folded");
    assert_eq!(play.machine.turnout(), Some(better), "as long as the log does not have it");
    for server in 0..2 {
        let applied = Message::AggregateApplied { round, header };
        let server = play.cast.server(server);
        play.hear(server, &applied);
    }
    assert_eq!(play.machine.turnout(), None);
}

#[test]
fn clients_are_not_too_few_before_they_were_waited_for() {
    let mut play = registered(Strict);
    live(&mut play, &Plan { min_participants: 3, ..Plan::round(1) });
    assert_eq!(play.machine.turnout(), None, "they may still come");
    play.wait(Duration::from_secs(2));
    let lacked = play.machine.turnout().expect("nobody has come");
    assert_eq!((lacked.round, lacked.envelopes), (Round(1), 0));
    // Of the next round nothing is known for as long.
    let next = live(&mut play, &Plan { min_participants: 3, ..Plan::round(2) });
    let envelope = play.cast.envelope(0, &next);
    send(&mut play, 0, &envelope);
    assert_eq!(play.machine.turnout(), Some(lacked));
    play.wait(Duration::from_secs(2));
    let now = play.machine.turnout().expect("one has come");
    assert_eq!((now.round, now.envelopes), (Round(2), 1));
}

#[test]
fn aggregator_knows_who_does_not_approve_it() {
    let mut play = registered(Strict);
    let server = play.cast.server(1);
    assert_eq!(play.machine.disapproved().count(), 0);
    let refused = Message::BundleRefused { reason: Refused::AggregatorNotConfigured, last: None };
    assert_eq!(refusals(&play.hear(server, &refused)), [("bundle", Refused::AggregatorNotConfigured)]);
    assert_eq!(play.machine.disapproved().collect::<Vec<_>>(), [(server, Refused::AggregatorNotConfigured)]);
    let registry = registry(&play.cast, 1, &[0, 1, 2]);
    play.hear(server, &registry);
    assert_eq!(play.machine.disapproved().count(), 0, "it speaks of its log now");
}

fn disclaimed(effects: &[Effect]) -> Vec<(PeerId, Vec<PeerId>)> {
    let set = |(to, message)| match message {
        Message::Disclaimed { disclaimers } => {
            Some((to, disclaimers.iter().map(|disclaimer| disclaimer.server).collect()))
        }
        _ => None,
    };
    sent(effects).into_iter().filter_map(set).collect()
}

#[test]
fn disclaimers_are_handed_on_only_when_the_whole_roster_has_given_them() {
    let mut play = registered(Strict);
    let live = live(&mut play, &Plan::round(1));
    let server = play.cast.server(0);
    let good = play.cast.disclaim(&live.header, &[0, 1, 2]);
    let hear = |play: &mut Play<Aggregator<Strict>>, disclaimers: &[Disclaimer]| {
        play.hear(server, &Message::Disclaimed { disclaimers: disclaimers.to_vec() })
    };
    let client = play.cast.client(0);
    // In any order, repeated, with a forged one and a stranger's among them.
    let mut forged = good[1];
    forged.signature = good[0].signature;
    let mut misdated = good[1];
    misdated.round = Round(2);
    let stranger = play.cast.disclaim(&live.header, &[3]);
    assert_eq!(disclaimed(&hear(&mut play, &[good[2], good[2]])), []);
    assert_eq!(disclaimed(&hear(&mut play, &good[..1])), []);
    for (bad, reason) in [
        (forged, Refused::BadSignature),
        (misdated, Refused::WrongRound),
        (stranger[0], Refused::NotInRoster),
    ] {
        let effects = hear(&mut play, &[bad]);
        assert_eq!((refusals(&effects), disclaimed(&effects)), (vec![("disclaimed", reason)], vec![]));
    }
    let wanted = Message::RecordsWanted { from: Round(1) };
    assert_eq!(disclaimed(&play.hear(client, &wanted)), [], "nor to one that asks");
    let roster: Vec<_> = (0..3).map(|index| play.cast.server(index)).collect();
    let told = disclaimed(&hear(&mut play, &good[1..2]));
    assert_eq!(told.len(), 3, "each client hears of it");
    assert!(told.iter().all(|(_, servers)| *servers == roster), "in roster order");
    assert_eq!(disclaimed(&hear(&mut play, &good)), [], "once");
    play.wait(RESEND);
    assert_eq!(disclaimed(&play.hear(client, &wanted)).len(), 1);
    assert_eq!(disclaimed(&play.feed(Input::Linked { peer: client, role: Role::Client })).len(), 1);
}

#[test]
fn disclaimers_of_headers_that_no_client_was_shown_are_not_kept() {
    let mut play = registered(Strict);
    live(&mut play, &Plan::round(1));
    let (server, client) = (play.cast.server(0), play.cast.client(0));
    let unseen = play.cast.live(&Plan::round(2)).header;
    let foreign = play.cast.live(&Plan { log: LogId([9; 32]), ..Plan::round(1) }).header;
    for header in [unseen, foreign] {
        let disclaimers = play.cast.disclaim(&header, &[0, 1, 2]);
        let message = Message::Disclaimed { disclaimers };
        assert!(play.hear(server, &message).is_empty());
        assert_eq!(refusals(&play.hear(client, &message)), [("message", Refused::WrongRole)]);
    }
    assert_eq!(disclaimed(&play.feed(Input::Linked { peer: client, role: Role::Client })), []);
}

/// Three linked servers that no header was seen of yet, and three clients in version 1, at an aggregator that was told
/// something about its servers.
fn told(change: impl FnOnce(&Cast, &mut Config)) -> Play<Aggregator<Strict>> {
    let cast = Cast::new();
    let mut config = cast.aggregator_config();
    change(&cast, &mut config);
    let machine = Aggregator::new(config, Strict);
    let mut play = Play::new(cast, machine);
    for index in 0..3 {
        let peer = play.cast.server(index);
        play.feed(Input::Linked { peer, role: Role::Server });
    }
    play
}

fn peers(cast: &Cast, servers: &[usize]) -> Vec<PeerId> {
    servers.iter().map(|index| cast.server(*index)).collect()
}

/// A peer that calls itself a server.
fn stranger(play: &mut Play<Aggregator<Strict>>, number: u8) -> PeerId {
    let peer = PeerId([number; 32]);
    play.feed(Input::Linked { peer, role: Role::Server });
    peer
}

#[test]
fn header_of_a_stranger_changes_nothing() {
    let mut play = registered(Strict);
    live(&mut play, &Plan::round(1));
    let believed = play.machine.believed();
    assert_eq!(believed, Believed { servers: peers(&play.cast, &[0, 1, 2]), named: vec![] });

    // The fourth server of the cast is none of this committee.
    let (stranger, insider) = (play.cast.server(3), play.cast.server(2));
    play.feed(Input::Linked { peer: stranger, role: Role::Server });
    let far = play.cast.live(&Plan { roster: vec![3], ..Plan::round(1_000_000_000) });
    let effects = play.hear(stranger, &Message::Live(far.clone()));
    assert_eq!(refusals(&effects), [("message", Refused::NotInRoster)]);
    // Nor does it when a believed server hands it on, with the committee's own signatures missing.
    let effects = play.hear(insider, &Message::Live(far));
    assert_eq!(refusals(&effects), [("live", Refused::WrongRoster)]);
    let mixed = play.cast.live(&Plan { roster: vec![2, 3], ..Plan::round(1_000_000_000) });
    let effects = play.hear(insider, &Message::Live(mixed));
    assert_eq!(refusals(&effects), [("live", Refused::WrongRoster)]);
    play.feed(Input::Unlinked { peer: stranger });

    assert_eq!(play.machine.round().map(|(round, _)| round), Some(Round(1)));
    assert_eq!(play.machine.believed(), believed);
    live(&mut play, &Plan::round(2));
    assert_eq!(play.machine.round().map(|(round, _)| round), Some(Round(2)));
}

#[test]
fn without_its_rule_a_stranger_moves_the_aggregator() {
    let mut play = registered(Without(Check::ServersBelieved));
    live(&mut play, &Plan::round(1));
    let stranger = play.cast.server(3);
    play.feed(Input::Linked { peer: stranger, role: Role::Server });
    let far = play.cast.live(&Plan { roster: vec![3], ..Plan::round(1_000_000_000) });
    play.hear(stranger, &Message::Live(far));
    assert_eq!(play.machine.round().map(|(round, _)| round), Some(Round(1_000_000_000)));
}

#[test]
fn strangers_do_not_choose_the_log_or_hear_of_aggregates() {
    let mut play = registered(Strict);
    let live = live(&mut play, &Plan::round(1));
    let strangers: Vec<_> = (0..40).map(|number| stranger(&mut play, 0x80 + number)).collect();
    let clients = play.cast.registry(5, &[0]).bundles().to_vec();
    for peer in &strangers {
        let message = Message::Registry {
            log: LogId([0x99; 32]),
            version: RegistryVersion(5),
            counter: Counter(5),
            clients: clients.clone(),
        };
        assert_eq!(refusals(&play.hear(*peer, &message)), [("message", Refused::NotInRoster)]);
    }
    assert_eq!(play.machine.log(), Some(LOG));
    assert_eq!(play.machine.registry().map(|registry| registry.len()), Some(3));
    let mut effects = Vec::new();
    for client in 0..3 {
        let envelope = play.cast.envelope(client, &live);
        effects.extend(send(&mut play, client, &envelope));
    }
    let told: Vec<_> = sent(&effects).into_iter().map(|(to, _)| to).collect();
    assert_eq!(told, peers(&play.cast, &[0, 1, 2]), "the aggregate goes to those who are believed");
    // They are shown the bundle like everybody who says that he is a server, less and less often.
    let mut shown = 0;
    for _ in 0..60 {
        let effects = sent(&play.wait(RESEND));
        shown += effects.iter().filter(|(to, _)| *to == strangers[0]).count();
    }
    assert!((2..5).contains(&shown), "{shown}");
}

#[test]
fn forged_records_evict_nothing() {
    let mut play = registered(Strict);
    let plan = Plan::round(1);
    let live = live(&mut play, &plan);
    let server = play.cast.server(0);
    let record = play.cast.record(&plan, &live, &[]);
    let signatures = play.cast.sign_record(&record, &[0, 1, 2]);
    assert_eq!(refusals(&play.hear(server, &Message::Record { record: record.clone(), signatures })), []);
    let stranger = play.cast.server(3);
    play.feed(Input::Linked { peer: stranger, role: Role::Server });
    for round in 0..80 {
        let mut forged = record.clone();
        (forged.round, forged.servers) = (Round(1_000_000 + round), vec![stranger]);
        let signatures = play.cast.sign_record(&forged, &[3]);
        let message = Message::Record { record: forged, signatures };
        assert_eq!(refusals(&play.hear(stranger, &message)), [("message", Refused::NotInRoster)]);
        assert_eq!(refusals(&play.hear(server, &message)), [("record", Refused::WrongRoster)]);
    }
    let client = play.cast.client(0);
    let answer = sent(&play.hear(client, &Message::RecordsWanted { from: Round(1) }));
    assert!(matches!(&answer[..], [(_, Message::Record { record, .. })] if record.round == Round(1)));

    // One whose header was missed is taken on the word of a majority of those who are believed, however high.
    let mut missed = record.clone();
    missed.round = Round(40);
    let few = play.cast.sign_record(&missed, &[0]);
    let most = play.cast.sign_record(&missed, &[0, 1]);
    let message = |signatures| Message::Record { record: missed.clone(), signatures };
    assert_eq!(refusals(&play.hear(server, &message(few))), [("record", Refused::BadSignature)]);
    assert_eq!(refusals(&play.hear(server, &message(most))), []);
    assert_eq!(play.machine.newest().map(|record| record.round), Some(Round(40)));
}

#[test]
fn record_before_the_first_header_is_not_taken_on_its_own_word() {
    let mut play = registered(Strict);
    let plan = Plan::round(1);
    let header = play.cast.live(&plan);
    let server = play.cast.server(0);
    let record = play.cast.record(&plan, &header, &[]);
    let signatures = play.cast.sign_record(&record, &[0, 1, 2]);
    let message = Message::Record { record, signatures };
    assert_eq!(refusals(&play.hear(server, &message)), [("record", Refused::WrongRoster)]);
    live(&mut play, &Plan::round(2));
    assert_eq!(refusals(&play.hear(server, &message)), []);
}

#[test]
fn pinned_servers_are_believed_and_others_are_not() {
    let mut play = told(|cast, config| {
        config.pins = peers(cast, &[0, 1, 2]);
        config.bootstrap = peers(cast, &[3]);
    });
    let message = registry(&play.cast, 1, &[0, 1, 2]);
    let (first, second, fourth) = (play.cast.server(0), play.cast.server(1), play.cast.server(3));
    play.feed(Input::Linked { peer: fourth, role: Role::Server });
    assert_eq!(refusals(&play.hear(fourth, &message)), [("message", Refused::NotInRoster)]);
    assert_eq!(play.machine.log(), None);
    assert_eq!(refusals(&play.hear(first, &message)), []);
    assert_eq!(play.machine.log(), Some(LOG));
    // A roster with a single pinned server in it is not the committee that the operator means.
    let partly = play.cast.live(&Plan { roster: vec![0, 3], ..Plan::round(1) });
    let effects = play.hear(first, &Message::Live(partly.clone()));
    assert_eq!(refusals(&effects), [("live", Refused::WrongRoster)]);
    // Unless a majority of the pinned ones say so themselves.
    assert_eq!(refusals(&play.hear(second, &Message::Live(partly))), []);
    assert_eq!(play.machine.believed().servers, peers(&play.cast, &[0, 3]));
    assert_eq!(play.machine.believed().named, peers(&play.cast, &[0, 1, 2]));
}

#[test]
fn bootstrap_server_overrides_what_strangers_said_first() {
    let mut play = told(|cast, config| config.bootstrap = vec![cast.server(3)]);
    // Nothing says whom to believe, and the first who come are strangers.
    let (false_server, genuine) = (play.cast.server(0), play.cast.server(3));
    let message = registry(&play.cast, 7, &[0]);
    play.hear(false_server, &message);
    let far = play.cast.live(&Plan { roster: vec![0], ..Plan::round(1_000_000_000) });
    let effects = play.hear(false_server, &Message::Live(far));
    assert_eq!(refusals(&effects), []);
    assert!(play.machine.knows_server());
    assert_eq!(play.machine.believed(), Believed { servers: vec![false_server], named: vec![] });

    play.feed(Input::Linked { peer: genuine, role: Role::Server });
    assert_eq!((play.machine.log(), play.machine.round()), (None, None));
    assert_eq!(refusals(&play.hear(false_server, &message)), [("message", Refused::NotInRoster)]);
    let mut plan = Plan { roster: vec![1, 2, 3], ..Plan::round(1) };
    plan.log = LogId([0x55; 32]);
    let clients = play.cast.registry(1, &[0, 1, 2]).bundles().to_vec();
    let (version, counter) = (RegistryVersion(1), Counter(1));
    play.hear(genuine, &Message::Registry { log: plan.log, version, counter, clients });
    let header = play.cast.live(&plan);
    assert_eq!(refusals(&play.hear(genuine, &Message::Live(header))), []);
    let named = vec![genuine];
    assert_eq!(play.machine.believed(), Believed { servers: peers(&play.cast, &[1, 2, 3]), named });
    play.feed(Input::Unlinked { peer: genuine });
    for index in [1, 2] {
        let peer = play.cast.server(index);
        play.feed(Input::Unlinked { peer });
    }
    assert!(!play.machine.knows_server(), "a linked stranger is nobody");
}

#[test]
fn process_goes_on_with_those_whom_the_one_before_believed() {
    let mut before = registered(Strict);
    live(&mut before, &Plan::round(1));
    let believed = before.machine.believed();
    let mut play = told(|_, config| config.believed = believed);
    let (first, fourth) = (play.cast.server(0), play.cast.server(3));
    play.feed(Input::Linked { peer: fourth, role: Role::Server });
    let message = registry(&play.cast, 1, &[0, 1, 2]);
    assert_eq!(refusals(&play.hear(fourth, &message)), [("message", Refused::NotInRoster)]);
    let far = play.cast.live(&Plan { roster: vec![3], ..Plan::round(1_000_000_000) });
    assert_eq!(refusals(&play.hear(fourth, &Message::Live(far))), [("message", Refused::NotInRoster)]);
    assert_eq!(refusals(&play.hear(first, &message)), []);
    // The committee has changed by one meanwhile, and many rounds have passed.
    let header = play.cast.live(&Plan { roster: vec![1, 2, 3], ..Plan::round(170_000) });
    assert_eq!(refusals(&play.hear(first, &Message::Live(header))), []);
    assert_eq!(play.machine.believed().servers, peers(&play.cast, &[0, 1, 2, 3]));
}

#[test]
fn farewells_let_the_committee_shrink_faster_than_half() {
    let mut play = registered(Strict);
    live(&mut play, &Plan::round(1));
    let server = play.cast.server(0);
    let alone = play.cast.live(&Plan { roster: vec![0], ..Plan::round(2) });
    let effects = play.hear(server, &Message::Live(alone.clone()));
    assert_eq!(refusals(&effects), [("live", Refused::WrongRoster)]);
    for index in [1, 2] {
        let announcements = vec![play.cast.announce(index, Standing::Leaving)];
        assert_eq!(refusals(&play.hear(server, &Message::Retired { announcements })), []);
    }
    assert_eq!(refusals(&play.hear(server, &Message::Live(alone))), []);
}

#[test]
fn registry_that_does_not_fit_the_first_header_is_forgotten() {
    let mut play = told(|_, _| ());
    let (first, second) = (play.cast.server(0), play.cast.server(1));
    let forged = registry(&play.cast, 1_000_000, &[2]);
    play.hear(second, &forged);
    let header = play.cast.live(&Plan::round(1));
    play.hear(first, &Message::Live(header));
    assert!(play.machine.registry().is_none());
    let message = registry(&play.cast, 1, &[0, 1, 2]);
    assert_eq!(refusals(&play.hear(first, &message)), []);
    assert_eq!(play.machine.registry().map(|registry| registry.version()), Some(RegistryVersion(1)));
}

#[test]
fn header_of_other_parameters_is_refused() {
    let mut play = registered(Strict);
    let server = play.cast.server(0);
    let mut header = play.cast.live(&Plan::round(1)).header;
    header.params = zipnet_core::params::RoundParams::new(1 << 13, 1 << 13, 16).unwrap();
    let other = play.cast.sign_header(header, &[0, 1, 2], &[]);
    let effects = play.hear(server, &Message::Live(other));
    assert_eq!(refusals(&effects), [("live", Refused::ParamsMismatch)]);
    live(&mut play, &Plan::round(1));
}

#[test]
fn rounds_rise_in_each_log() {
    let mut play = registered(Strict);
    live(&mut play, &Plan::round(7));
    let speak = |play: &mut Play<Aggregator<Strict>>, log: LogId, server: usize| {
        let peer = play.cast.server(server);
        let clients = play.cast.registry(1, &[0, 1, 2]).bundles().to_vec();
        let (version, counter) = (RegistryVersion(1), Counter(1));
        play.hear(peer, &Message::Registry { log, version, counter, clients });
    };
    let other = LogId([0x55; 32]);
    (0..3).for_each(|server| speak(&mut play, other, server));
    // The committee begins another log: its rounds begin anew.
    live(&mut play, &Plan { log: other, ..Plan::round(1) });
    (0..3).for_each(|server| speak(&mut play, LOG, server));
    let server = play.cast.server(0);
    for round in [3, 7] {
        let old = play.cast.live(&Plan { clients: vec![0, 1], ..Plan::round(round) });
        let effects = play.hear(server, &Message::Live(old));
        assert_eq!(refusals(&effects), [("live", Refused::WrongRound)]);
    }
    live(&mut play, &Plan::round(8));
}

#[test]
fn header_that_names_another_aggregator_is_ignored() {
    let mut play = registered(Strict);
    let server = play.cast.server(0);
    let mut header = play.cast.live(&Plan::round(1)).header;
    header.aggregator = PeerId([0x66; 32]);
    let other = play.cast.sign_header(header, &[0, 1, 2], &[]);
    let effects = play.hear(server, &Message::Live(other));
    assert_eq!(refusals(&effects), [("live", Refused::NotAggregator)]);
    assert!(sent(&effects).is_empty(), "no client is shown it");
    assert_eq!(play.machine.round(), None);
    live(&mut play, &Plan::round(2));
}

#[test]
fn bundle_that_came_before_the_registry_is_judged_by_it_when_it_comes_again() {
    let mut play = told(|_, _| ());
    let (server, client) = (play.cast.server(0), play.cast.client(0));
    play.feed(Input::Linked { peer: client, role: Role::Client });
    // The client has restarted and counts from one again; so has the aggregator.
    let stale = play.cast.clients[0].bundle.clone();
    assert_eq!(refusals(&play.hear(client, &Message::Bundle(stale.clone()))), []);
    let job = Job::MakeBundle { epoch: Epoch(4), fresh_key: true };
    let newest = made(play.cast.clients[0].keyring.perform(&job, || [0x5a; 32]));
    play.cast.clients[0].bundle = newest.clone();
    let message = registry(&play.cast, 9, &[0]);
    play.hear(server, &message);
    let effects = play.hear(client, &Message::Bundle(stale));
    assert_eq!(refusals(&effects), [("bundle", Refused::StaleEpoch)]);
    let answers = sent(&effects);
    let told = |message: &Message| matches!(message, Message::BundleRefused { last: Some(last), .. } if *last == newest);
    assert!(answers.iter().any(|(to, message)| *to == client && told(message)), "{answers:?}");
}
