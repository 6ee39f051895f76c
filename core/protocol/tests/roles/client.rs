use std::time::Duration;

use zipnet_core::checks::{Check, Checks, Strict};
use zipnet_core::client::{Client, Config, DISCLAIM_PATIENCE, Input, PublishError};
use zipnet_core::id::{Digest, LogId, PeerId, Role, Round};
use zipnet_core::machine::{Done, Effect, Job, Outbox, Outcome, Report, RequestId};
use zipnet_core::message::{Disclaimer, LiveHeader, Message, Proof, Record, RecordSignature, Standing};
use zipnet_core::params::RoundParams;
use zipnet_core::refused::Refused;
use zipnet_core::time::Time;
use zipnet_core::wire;

use crate::cast::{Cast, Plan, Play, RESEND, sent};

/// Skips one rule.
#[derive(Clone, Debug)]
struct Without(Check);

impl Checks for Without {
    fn enforce(&self, check: Check) -> bool {
        check != self.0
    }
}

fn linked<C: Checks>(checks: C, change: impl Fn(&Cast, &mut Config)) -> Play<Client<C>> {
    let cast = Cast::new();
    let mut config = cast.client_config();
    change(&cast, &mut config);
    let mut play = Play::new(cast, Client::new(config, checks));
    let peer = aggregator(&play);
    play.feed(Input::Linked { peer, role: Role::Aggregator });
    play
}

fn plain() -> Play<Client<Strict>> {
    linked(Strict, |_, _| ())
}

fn aggregator<C>(play: &Play<Client<C>>) -> PeerId {
    play.cast.aggregator.keyring.peer()
}

fn place<C>(play: &Play<Client<C>>, plan: &Plan) -> Option<Proof> {
    play.cast.registry(plan.version, &plan.clients).proof(&play.cast.client(0))
}

fn show<C: Checks>(play: &mut Play<Client<C>>, live: LiveHeader, place: Option<Proof>) -> Vec<Effect> {
    let from = aggregator(play);
    play.hear(from, &Message::LiveFor { live: Box::new(live), place })
}

fn join<C: Checks>(play: &mut Play<Client<C>>, plan: &Plan) -> (LiveHeader, Vec<Effect>) {
    let live = play.cast.live(plan);
    let place = place(play, plan);
    let effects = show(play, live.clone(), place);
    (live, effects)
}

fn bodies(effects: &[Effect]) -> Vec<Vec<u8>> {
    let body = |(_, message)| match message {
        Message::Envelope(envelope) => Some(envelope.body),
        _ => None,
    };
    sent(effects).into_iter().filter_map(body).collect()
}

fn untrusted(effects: &[Effect]) -> Vec<Refused> {
    let reason = |effect: &Effect| match effect {
        Effect::Report(Report::HeaderUntrusted { reason, .. }) => Some(*reason),
        Effect::Report(Report::Refused { kind: "live", reason, .. }) => Some(*reason),
        _ => None,
    };
    effects.iter().filter_map(reason).collect()
}

fn refusals(effects: &[Effect]) -> Vec<Refused> {
    let reason = |effect: &Effect| match effect {
        Effect::Report(Report::Refused { reason, .. }) => Some(*reason),
        _ => None,
    };
    effects.iter().filter_map(reason).collect()
}

fn outcomes(effects: &[Effect]) -> Vec<(u64, Outcome)> {
    let outcome = |effect: &Effect| match effect {
        Effect::Report(Report::Published { request, outcome, .. }) => Some((request.0, *outcome)),
        _ => None,
    };
    effects.iter().filter_map(outcome).collect()
}

fn publish<C: Checks>(play: &mut Play<Client<C>>, request: u64, text: &str) -> Vec<Effect> {
    play.feed(Input::Publish { request: RequestId(request), payload: text.into() })
}

/// The record of a round with the client's envelope and cover of the others.
fn record<C: Checks>(play: &mut Play<Client<C>>, plan: &Plan, live: &LiveHeader, body: &[u8]) -> Record {
    let others = [1, 2].map(|client| (client, play.cast.envelope(client, live).body));
    let envelopes: Vec<_> = [(0, body.to_vec())].into_iter().chain(others).collect();
    play.cast.record(plan, live, &envelopes)
}

fn hear_record<C: Checks>(play: &mut Play<Client<C>>, record: &Record, signers: &[usize]) -> Vec<Effect> {
    let signatures = play.cast.sign_record(record, signers);
    let from = aggregator(play);
    play.hear(from, &Message::Record { record: record.clone(), signatures })
}

#[test]
fn client_that_is_refused_says_so_once_until_it_is_in_again() {
    let mut play = plain();
    let from = aggregator(&play);
    let barred = Message::BundleRefused { reason: Refused::Barred, last: None };
    assert!(!play.machine.is_barred());
    assert_eq!(refusals(&play.hear(from, &barred)), [Refused::Barred]);
    assert!(play.machine.is_barred());
    assert_eq!(refusals(&play.hear(from, &barred)), [], "with each attempt to register it is said again");
    join(&mut play, &Plan::round(1));
    assert!(!play.machine.is_barred());
    assert_eq!(refusals(&play.hear(from, &barred)), [Refused::Barred]);
}

#[test]
fn header_that_gives_no_reason_to_trust_gets_no_envelope() {
    type Change = fn(&mut LiveHeader, &mut Option<Proof>);
    let table: [(&str, Change, Refused); 9] = [
        ("no place", |_, p| *p = None, Refused::NotInRegistry),
        ("another index", |_, p| p.as_mut().unwrap().index ^= 1, Refused::NotInRegistry),
        ("another path", |_, p| p.as_mut().unwrap().path[0].0[0] ^= 1, Refused::NotInRegistry),
        ("no path", |_, p| p.as_mut().unwrap().path.clear(), Refused::NotInRegistry),
        ("another epoch", |_, p| p.as_mut().unwrap().bundle.epoch.0 = 9, Refused::NotInRegistry),
        ("a signature missing", |l, _| drop(l.signatures.pop()), Refused::NotLive),
        ("an altered signature", |l, _| l.signatures[0].signature.0[5] ^= 1, Refused::BadSignature),
        ("an altered nonce", |l, _| l.header.nonce[0] ^= 1, Refused::WrongHeader),
        ("an unsorted roster", |l, _| l.header.servers.swap(0, 1), Refused::UnsortedRoster),
    ];
    for (what, change, reason) in table {
        let mut play = plain();
        let plan = Plan::round(1);
        let (mut live, mut place) = (play.cast.live(&plan), place(&play, &plan));
        change(&mut live, &mut place);
        let effects = show(&mut play, live, place);
        assert_eq!(untrusted(&effects), [reason], "{what}");
        assert!(bodies(&effects).is_empty(), "{what}");
        // The right one is still welcome.
        let (_, effects) = join(&mut play, &plan);
        assert_eq!(bodies(&effects).len(), 1, "{what}");
    }
}

#[test]
fn header_with_other_parameters_is_refused() {
    let mut play = linked(Strict, |_, config| config.params = RoundParams::DEFAULT);
    let (_, effects) = join(&mut play, &Plan::round(1));
    assert_eq!(untrusted(&effects), [Refused::ParamsMismatch]);
}

#[test]
fn rounds_only_rise_and_repeats_get_the_same_bytes() {
    let mut play = plain();
    let plan = Plan::round(5);
    let (live, first) = join(&mut play, &plan);
    let proof = place(&play, &plan);
    let again = show(&mut play, live, proof);
    assert_eq!(bodies(&first), bodies(&again), "resending means the same bytes");
    assert!(!again.iter().any(|effect| matches!(effect, Effect::Work(_))), "nothing is sealed twice");

    let (_, earlier) = join(&mut play, &Plan::round(4));
    assert_eq!((untrusted(&earlier), bodies(&earlier)), (vec![Refused::WrongRound], vec![]));
    let other = Plan { min_participants: 1, ..plan };
    let (_, other) = join(&mut play, &other);
    assert_eq!((untrusted(&other), bodies(&other)), (vec![Refused::Equivocation], vec![]));
}

#[test]
fn without_its_rule_a_client_seals_one_header_twice() {
    let mut play = linked(Without(Check::SealOnce), |_, _| ());
    publish(&mut play, 1, "one");
    publish(&mut play, 2, "two");
    let plan = Plan::round(5);
    let (live, first) = join(&mut play, &plan);
    let proof = place(&play, &plan);
    let again = show(&mut play, live, proof);
    assert_ne!(bodies(&first), bodies(&again));
}

#[test]
fn roster_that_is_too_small_or_lacks_a_pin_is_refused() {
    type Change = fn(&Cast, &mut Config);
    let table: [(&str, Change, &[usize], Option<Refused>); 7] = [
        ("any first roster", |_, _| (), &[1], None),
        ("a floor", |_, c| c.min_servers = Some(3), &[0, 1], Some(Refused::RosterTooSmall)),
        ("a floor that is kept", |_, c| c.min_servers = Some(3), &[0, 1, 3], None),
        ("all pins", |cast, c| c.pins = vec![cast.server(3), cast.server(0)], &[0, 3], None),
        (
            "one pin",
            |cast, c| c.pins = vec![cast.server(3), cast.server(0)],
            &[0, 1, 2],
            Some(Refused::PinMissing),
        ),
        (
            "pins and a floor",
            |cast, c| {
                c.pins = vec![cast.server(0)];
                c.min_servers = Some(2);
            },
            &[0],
            Some(Refused::RosterTooSmall),
        ),
        (
            "a lower floor",
            |cast, c| {
                c.pins = vec![cast.server(0)];
                c.min_servers = Some(1);
            },
            &[0],
            None,
        ),
    ];
    for (what, change, roster, reason) in table {
        let mut play = linked(Strict, change);
        let (_, effects) = join(&mut play, &Plan { roster: roster.to_vec(), ..Plan::round(1) });
        assert_eq!(untrusted(&effects), reason.into_iter().collect::<Vec<_>>(), "{what}");
        assert_eq!(bodies(&effects).is_empty(), reason.is_some(), "{what}");

        let mut play = linked(Without(Check::ClientFloor), change);
        let (_, effects) = join(&mut play, &Plan { roster: roster.to_vec(), ..Plan::round(1) });
        assert_eq!(bodies(&effects).len(), 1, "{what}, without its rule");
    }
}

#[test]
fn client_says_why_it_takes_no_part_each_time_it_is_shown_the_header() {
    let declined = |effects: &[Effect]| {
        let reason = |(_, message)| match message {
            Message::Declined { round, reason, .. } => Some((round.0, reason)),
            _ => None,
        };
        sent(effects).into_iter().filter_map(reason).collect::<Vec<_>>()
    };
    let mut play = linked(Strict, |cast, c| c.pins = vec![cast.server(3), cast.server(0)]);
    let (live, effects) = join(&mut play, &Plan { roster: vec![0, 1], ..Plan::round(1) });
    assert_eq!(declined(&effects), [(1, Refused::PinMissing)]);
    let own = place(&play, &Plan::round(1));
    let again = show(&mut play, live, own);
    assert_eq!((declined(&again).len(), untrusted(&again).len()), (1, 0), "said again, and reported once");
    let why = play.machine.untrusted().cloned().unwrap();
    assert_eq!((why.reason, why.roster.len()), (Refused::PinMissing, 2));
    assert_eq!(play.machine.missed_in(&why.roster), [play.cast.server(3)]);
    let (_, effects) = join(&mut play, &Plan { roster: vec![0, 3], ..Plan::round(2) });
    assert_eq!(declined(&effects), []);
    assert_eq!(play.machine.untrusted(), None);

    // Without pins it misses those of the largest roster that have not said farewell.
    let mut play = plain();
    join(&mut play, &Plan { roster: vec![0, 1, 2], ..Plan::round(1) });
    let (_, effects) = join(&mut play, &Plan { roster: vec![0, 1], ..Plan::round(2) });
    assert_eq!(declined(&effects), [(2, Refused::RosterTooSmall)]);
    let why = play.machine.untrusted().cloned().unwrap();
    assert_eq!(play.machine.missed_in(&why.roster), [play.cast.server(2)]);
}

#[test]
fn farewell_counts_once_and_only_for_a_server_of_the_roster() {
    let mut play = plain();
    let from = aggregator(&play);
    join(&mut play, &Plan { roster: vec![0, 1, 2], ..Plan::round(1) });
    assert_eq!(play.machine.roster_floor(), 3);
    // Not of the roster, not leaving, not signed by the server itself.
    let stranger = play.cast.announce(3, Standing::Leaving);
    let departed = play.cast.announce(2, Standing::Departed);
    let mut forged = play.cast.announce(1, Standing::Leaving);
    forged.server = play.cast.server(2);
    for (announcement, refused) in
        [(stranger, vec![]), (departed, vec![Refused::Malformed]), (forged, vec![Refused::BadSignature])]
    {
        let effects = play.hear(from, &Message::Retired { announcements: vec![announcement] });
        assert_eq!(refusals(&effects), refused);
        assert_eq!(play.machine.roster_floor(), 3);
    }
    let farewell = play.cast.announce(2, Standing::Leaving);
    for _ in 0..2 {
        play.hear(from, &Message::Retired { announcements: vec![farewell] });
        assert_eq!(play.machine.roster_floor(), 2);
    }
    // It leaves only later: a roster with it does not raise the floor again.
    join(&mut play, &Plan { roster: vec![0, 1, 2], ..Plan::round(2) });
    let (_, effects) = join(&mut play, &Plan { roster: vec![0, 1], ..Plan::round(3) });
    assert_eq!(bodies(&effects).len(), 1);
    let (_, effects) = join(&mut play, &Plan { roster: vec![0], ..Plan::round(4) });
    assert_eq!(untrusted(&effects), [Refused::RosterTooSmall]);
}

#[test]
fn message_lands_once_and_under_one_header() {
    let mut play = plain();
    publish(&mut play, 7, "hello");
    let plan = Plan::round(1);
    let (live, effects) = join(&mut play, &plan);
    let record = record(&mut play, &plan, &live, &bodies(&effects)[0]);
    let mut all = Vec::new();
    // Duplicated, incomplete first, and late signatures once more.
    for signers in [&[0, 1][..], &[0, 1], &[1, 2], &[0, 1, 2]] {
        all.extend(hear_record(&mut play, &record, signers));
    }
    assert_eq!(outcomes(&all), [(7, Outcome::Landed)]);
    assert_eq!(play.machine.backlog(), (0, 0));
}

#[test]
fn signatures_under_another_record_confirm_nothing() {
    let mut play = plain();
    publish(&mut play, 7, "hello");
    let plan = Plan::round(1);
    let (live, effects) = join(&mut play, &plan);
    let record = record(&mut play, &plan, &live, &bodies(&effects)[0]);
    hear_record(&mut play, &record, &[0, 1]);
    let from = aggregator(&play);
    let mut other = record.clone();
    other.broadcast[0] ^= 1;
    let foreign = play.cast.sign_record(&other, &[2]);
    let mut renamed = play.cast.sign_record(&record, &[3]);
    renamed[0].server = play.cast.server(2);
    for signatures in [foreign, renamed] {
        let effects = play.hear(from, &Message::RecordSigned { signatures });
        assert_eq!(outcomes(&effects), []);
    }
    let effects = hear_record(&mut play, &other, &[0, 1, 2]);
    assert_eq!((refusals(&effects), outcomes(&effects)), (vec![Refused::Equivocation], vec![]));
    assert_eq!(play.machine.backlog(), (0, 1));
}

#[test]
fn record_that_does_not_fit_its_header_is_refused() {
    type Change = fn(&mut Record);
    let table: [(&str, Change, &[usize], Refused); 7] = [
        ("another log", |r| r.log = LogId([9; 32]), &[0, 1, 2], Refused::WrongLog),
        ("another header", |r| r.header = Digest([9; 32]), &[0, 1, 2], Refused::WrongHeader),
        ("another roster", |r| r.servers.truncate(2), &[0, 1], Refused::WrongRoster),
        ("another past", |r| r.previous = Digest([9; 32]), &[0, 1, 2], Refused::WrongPrevious),
        ("a short broadcast", |r| r.broadcast.truncate(191), &[0, 1, 2], Refused::WrongLength),
        (
            "another client set",
            |r| r.participants = zipnet_core::bitmap::Bitmap::new(2),
            &[0, 1, 2],
            Refused::WrongLength,
        ),
        ("a minority", |_| (), &[0], Refused::BadSignature),
    ];
    let mut play = plain();
    let plan = Plan::round(1);
    let (live, effects) = join(&mut play, &plan);
    let good = record(&mut play, &plan, &live, &bodies(&effects)[0]);
    for (what, change, signers, reason) in table {
        let mut record = good.clone();
        change(&mut record);
        let effects = hear_record(&mut play, &record, signers);
        assert_eq!(refusals(&effects), [reason], "{what}");
    }
    // A round that the client has not seen, by servers that it does not know.
    let mut unseen = good;
    unseen.round = Round(9);
    unseen.servers = vec![play.cast.server(3)];
    assert_eq!(refusals(&hear_record(&mut play, &unseen, &[3])), [Refused::WrongRoster]);
}

#[test]
fn later_record_shows_that_a_round_between_was_abandoned() {
    let mut play = plain();
    let (first, second) = (Plan::round(1), Plan::round(2));
    let (live, effects) = join(&mut play, &first);
    let before = record(&mut play, &first, &live, &bodies(&effects)[0]);
    hear_record(&mut play, &before, &[0, 1, 2]);
    publish(&mut play, 1, "lost");
    let (_, effects) = join(&mut play, &Plan { previous: (1, before.digest()), ..second });
    assert_eq!(bodies(&effects).len(), 1);
    // The client misses the header of round 3 and hears of its record only.
    let third = Plan { previous: (1, before.digest()), ..Plan::round(3) };
    let live = play.cast.live(&third);
    let after = play.cast.record(&third, &live, &[]);
    assert_eq!(outcomes(&hear_record(&mut play, &after, &[0, 1])), [], "provisional records decide nothing");
    assert_eq!(outcomes(&hear_record(&mut play, &after, &[0, 1, 2])), [], "the servers may disclaim it yet");
    assert_eq!(outcomes(&play.wait(DISCLAIM_PATIENCE * RESEND)), [(1, Outcome::Unknown)]);
}

fn disclaim<C: Checks>(play: &mut Play<Client<C>>, disclaimers: Vec<Disclaimer>) -> Vec<Effect> {
    let from = aggregator(play);
    play.hear(from, &Message::Disclaimed { disclaimers })
}

#[test]
fn disclaimers_that_are_not_the_whole_rosters_bring_nothing_back() {
    type Change = fn(&mut Vec<Disclaimer>, &[Disclaimer]);
    let table: [(&str, Change, Refused); 9] = [
        ("one missing", |d, _| d.truncate(2), Refused::WrongRoster),
        ("one alone", |d, _| d.truncate(1), Refused::WrongRoster),
        ("one twice", |d, _| d[1] = d[0], Refused::WrongRoster),
        ("one more", |d, strangers| d.push(strangers[0]), Refused::WrongRoster),
        ("another server's", |d, strangers| d[2] = strangers[0], Refused::WrongRoster),
        ("out of order", |d, _| d.swap(0, 1), Refused::WrongRoster),
        ("under another name", |d, strangers| d[2].signature = strangers[0].signature, Refused::BadSignature),
        ("of another header", |d, strangers| d[2] = strangers[1], Refused::WrongHeader),
        ("altered", |d, _| d[0].signature.0[5] ^= 1, Refused::BadSignature),
    ];
    for abandoned in [false, true] {
        let mut play = plain();
        publish(&mut play, 1, "again");
        let (live, effects) = join(&mut play, &Plan::round(1));
        assert_eq!(bodies(&effects).len(), 1);
        if abandoned {
            join(&mut play, &Plan::round(2));
        }
        let good = play.cast.disclaim(&live.header, &[0, 1, 2]);
        let mut strangers = play.cast.disclaim(&live.header, &[3]);
        let mut header = live.header.clone();
        header.nonce[0] ^= 1;
        strangers.extend(play.cast.disclaim(&header, &[2]));
        for (what, change, reason) in table {
            let mut disclaimers = good.clone();
            change(&mut disclaimers, &strangers);
            assert_eq!(refusals(&disclaim(&mut play, disclaimers)), [reason], "{what}");
            assert_eq!(play.machine.backlog(), (0, 1), "{what}");
        }
        // Of a header under which nothing was sealed: not even looked at.
        let others = play.cast.disclaim(&header, &[0, 1, 2]);
        assert!(disclaim(&mut play, others).is_empty());
        assert_eq!(refusals(&disclaim(&mut play, vec![])), [Refused::Malformed]);
        assert_eq!(play.machine.backlog(), (0, 1));
        disclaim(&mut play, good.clone());
        assert_eq!(play.machine.backlog(), (1, 0));
        assert!(disclaim(&mut play, good).is_empty(), "once is enough");
        assert_eq!(play.machine.backlog(), (1, 0));
    }
}

#[test]
fn disclaimed_message_is_sealed_under_the_next_header_and_lands() {
    let mut play = plain();
    publish(&mut play, 1, "again");
    let (live, first) = join(&mut play, &Plan::round(1));
    let disclaimers = play.cast.disclaim(&live.header, &[0, 1, 2]);
    disclaim(&mut play, disclaimers);
    // Its own header is not a next one.
    let proof = place(&play, &Plan::round(1));
    let again = show(&mut play, live, proof);
    assert!(again.is_empty(), "the envelope is not sent any more, and no other is made");
    let second = Plan::round(2);
    let (live, effects) = join(&mut play, &second);
    assert_ne!(bodies(&first), bodies(&effects));
    let record = record(&mut play, &second, &live, &bodies(&effects)[0]);
    assert_eq!(outcomes(&hear_record(&mut play, &record, &[0, 1, 2])), [(1, Outcome::Landed)]);
    assert_eq!(play.machine.backlog(), (0, 0));
}

#[test]
fn disclaimers_that_come_too_late_change_nothing() {
    let mut play = plain();
    publish(&mut play, 1, "late");
    let (live, _) = join(&mut play, &Plan::round(1));
    join(&mut play, &Plan::round(2));
    let before = DISCLAIM_PATIENCE * RESEND - Duration::from_millis(1);
    assert_eq!(outcomes(&play.wait(before)), []);
    assert_eq!(outcomes(&play.wait(Duration::from_millis(1))), [(1, Outcome::Unknown)]);
    let disclaimers = play.cast.disclaim(&live.header, &[0, 1, 2]);
    assert!(disclaim(&mut play, disclaimers).is_empty(), "the publisher has the say");
    assert_eq!(play.machine.backlog(), (0, 0));
}

#[test]
fn header_that_is_disclaimed_while_sealing_gives_the_message_back() {
    let mut play = plain();
    publish(&mut play, 1, "slow");
    let plan = Plan::round(1);
    let live = play.cast.live(&plan);
    let disclaimers = play.cast.disclaim(&live.header, &[0, 1, 2]);
    let shown = Message::LiveFor { live: Box::new(live), place: place(&play, &plan) };
    let (mut out, mut jobs) = (Outbox::new(), Vec::new());
    let from = aggregator(&play);
    for message in [shown, Message::Disclaimed { disclaimers }] {
        let bytes = wire::encode(&message).to_vec();
        play.machine.handle(play.now, Input::Received { from, bytes: bytes.into() }, &mut out);
        while let Some(effect) = out.pop() {
            if let Effect::Work(job) = effect {
                jobs.push(job);
            }
        }
    }
    assert_eq!(play.machine.backlog(), (1, 0));
    let done = play.cast.clients[0].keyring.perform(&jobs[0], || [0x5a; 32]);
    assert!(play.feed(Input::Done(done)).is_empty(), "the envelope never leaves");
    let (_, effects) = join(&mut play, &Plan::round(2));
    assert_eq!(bodies(&effects).len(), 1);
    assert_eq!(play.machine.backlog(), (0, 1));
}

#[test]
fn message_whose_record_never_comes_is_given_up() {
    let mut play = plain();
    publish(&mut play, 1, "lost");
    join(&mut play, &Plan::round(1));
    let far = (16, Digest([5; 32]));
    let (_, effects) = join(&mut play, &Plan { previous: far, ..Plan::round(17) });
    assert_eq!(outcomes(&effects), []);
    let (_, effects) = join(&mut play, &Plan { previous: far, ..Plan::round(18) });
    assert_eq!(outcomes(&effects), [(1, Outcome::Unknown)]);
}

#[test]
fn header_that_comes_while_sealing_takes_the_message_along() {
    let mut play = plain();
    publish(&mut play, 1, "slow");
    let plans = [Plan::round(1), Plan::round(2)];
    let mut out = Outbox::new();
    let mut jobs = Vec::new();
    for plan in &plans {
        let live = play.cast.live(plan);
        let message = Message::LiveFor { live: Box::new(live), place: place(&play, plan) };
        let (from, bytes) = (aggregator(&play), wire::encode(&message).to_vec());
        play.machine.handle(play.now, Input::Received { from, bytes: bytes.into() }, &mut out);
        while let Some(effect) = out.pop() {
            if let Effect::Work(job) = effect {
                jobs.push(job);
            }
        }
    }
    let with = |job: &Job| matches!(job, Job::Seal { cover: false, .. });
    assert_eq!(jobs.iter().map(with).collect::<Vec<_>>(), [true, true]);
    let done: Vec<Done> =
        jobs.iter().map(|job| play.cast.clients[0].keyring.perform(job, || [0x5a; 32])).collect();
    let late = play.feed(Input::Done(done[0].clone()));
    assert!(late.is_empty(), "the first envelope never leaves");
    let effects = play.feed(Input::Done(done[1].clone()));
    assert_eq!(bodies(&effects).len(), 1);
    assert_eq!(play.machine.backlog(), (0, 1));
}

#[test]
fn lost_key_gives_the_message_back() {
    let mut play = plain();
    publish(&mut play, 1, "kept");
    play.cast.clients[0].keyring.forget_round_key();
    let (_, effects) = join(&mut play, &Plan::round(1));
    assert!(bodies(&effects).is_empty());
    assert_eq!(play.machine.backlog(), (1, 0));
    let (_, effects) = join(&mut play, &Plan::round(2));
    assert_eq!(bodies(&effects).len(), 1, "with its next key it takes part");
}

#[test]
fn another_log_ends_what_was_under_way_and_an_old_one_does_not_come_back() {
    let mut play = plain();
    publish(&mut play, 1, "lost");
    join(&mut play, &Plan::round(8));
    let other = Plan { log: LogId([0x99; 32]), ..Plan::round(1) };
    // Without a place, anybody could show a header of some log.
    let live = play.cast.live(&other);
    let effects = show(&mut play, live, None);
    assert_eq!((untrusted(&effects), outcomes(&effects)), (vec![Refused::WrongLog], vec![]));
    let (_, effects) = join(&mut play, &other);
    assert_eq!((bodies(&effects).len(), outcomes(&effects)), (1, vec![(1, Outcome::Unknown)]));
    // Back in the first log, rounds are still above all sealed ones.
    let (_, effects) = join(&mut play, &Plan::round(8));
    assert_eq!((bodies(&effects).len(), untrusted(&effects)), (0, vec![Refused::AlreadyPromised]));
    let (_, effects) = join(&mut play, &Plan::round(9));
    assert_eq!(bodies(&effects).len(), 1);
}

#[test]
fn publisher_hears_why_a_message_is_not_taken() {
    let mut play = plain();
    let long = "x".repeat(33);
    assert_eq!(
        play.machine.accepts(long.as_bytes()),
        Err(PublishError::TooLong { bytes: 33, payload_bytes: 32 })
    );
    assert_eq!(refusals(&publish(&mut play, 0, &long)), [Refused::WrongLength]);
    for request in 0..4 {
        assert_eq!(refusals(&publish(&mut play, request, "x")), []);
    }
    assert_eq!(play.machine.accepts(b"x"), Err(PublishError::QueueFull { queue_max: 4 }));
    assert_eq!(refusals(&publish(&mut play, 9, "x")), [Refused::TooMany]);
    play.feed(Input::Stop);
    assert_eq!(play.machine.accepts(b"x"), Err(PublishError::Stopping));
    assert_eq!(play.machine.deadline().at, Time::NEVER);
}

#[test]
fn peers_that_are_no_aggregator_are_not_listened_to() {
    let mut play = plain();
    let plan = Plan::round(1);
    let live = Box::new(play.cast.live(&plan));
    let message = Message::LiveFor { live, place: place(&play, &plan) };
    for name in ["server-1", "client-2"] {
        let from = play.cast.peer(name);
        assert_eq!(refusals(&play.hear(from, &message)), [Refused::WrongRole]);
    }
}

/// Every message of a conversation, in an order and number that the network chose: the publisher hears the same.
#[test]
fn repeats_and_reordering_change_no_outcome() {
    let orders: [&[usize]; 5] = [
        &[0, 1, 2, 3, 4],
        &[0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
        &[0, 2, 1, 3, 4, 1],
        &[1, 0, 3, 2, 1, 4],
        &[0, 3, 2, 1, 4, 0],
    ];
    for order in orders {
        let mut play = plain();
        publish(&mut play, 1, "one");
        let first = Plan::round(1);
        let live = play.cast.live(&first);
        let shown = Message::LiveFor { live: Box::new(live.clone()), place: place(&play, &first) };
        let mut body: Option<Vec<u8>> = None;
        let mut all = Vec::new();
        let mut messages = vec![shown];
        let from = aggregator(&play);
        for index in order {
            if messages.len() == 1
                && let Some(body) = &body
            {
                let record = record(&mut play, &first, &live, body);
                let second = Plan { previous: (1, record.digest()), ..Plan::round(2) };
                let next = play.cast.live(&second);
                let signed: Vec<RecordSignature> = play.cast.sign_record(&record, &[0, 1, 2]);
                messages.push(Message::Record { record, signatures: signed[..2].to_vec() });
                messages.push(Message::RecordSigned { signatures: signed });
                messages.push(Message::LiveFor { live: Box::new(next), place: place(&play, &second) });
                messages.push(messages[1].clone());
            }
            let Some(message) = messages.get(*index).cloned() else { continue };
            let effects = play.hear(from, &message);
            body = body.or(bodies(&effects).pop());
            all.extend(effects);
        }
        // What was missed is asked for.
        let effects = play.wait(Duration::from_secs(2));
        if outcomes(&all).is_empty() {
            let asked = |(_, message)| matches!(message, Message::RecordsWanted { .. });
            assert!(sent(&effects).into_iter().any(asked), "{order:?}");
            for message in &messages[1..3] {
                all.extend(play.hear(from, message));
            }
        }
        assert_eq!(outcomes(&all), [(1, Outcome::Landed)], "{order:?}");
    }
}

fn receivers(effects: &[Effect], is_meant: fn(&Message) -> bool) -> Vec<PeerId> {
    sent(effects).into_iter().filter(|(_, message)| is_meant(message)).map(|(to, _)| to).collect()
}

fn envelopes_to(effects: &[Effect]) -> Vec<PeerId> {
    receivers(effects, |message| matches!(message, Message::Envelope(_)))
}

fn bundles_to(effects: &[Effect]) -> Vec<PeerId> {
    receivers(effects, |message| matches!(message, Message::Bundle(_)))
}

/// Somebody who calls himself an aggregator.
const FALSE: PeerId = PeerId([0x66; 32]);

#[test]
fn envelope_goes_to_the_aggregator_that_the_header_names_whoever_shows_it() {
    let mut play = plain();
    let named = aggregator(&play);
    play.feed(Input::Linked { peer: FALSE, role: Role::Aggregator });
    let plan = Plan::round(1);
    let (live, proof) = (play.cast.live(&plan), place(&play, &plan));
    let show = |from: PeerId, play: &mut Play<Client<Strict>>| {
        play.hear(from, &Message::LiveFor { live: Box::new(live.clone()), place: proof.clone() })
    };
    assert_eq!(envelopes_to(&show(FALSE, &mut play)), [named]);
    // Repeats: only the one that is named may have lost it.
    assert_eq!(envelopes_to(&show(FALSE, &mut play)), []);
    assert_eq!(envelopes_to(&show(named, &mut play)), [named]);
    for (peer, expected) in [(FALSE, vec![]), (named, vec![named])] {
        play.feed(Input::Unlinked { peer });
        let effects = play.feed(Input::Linked { peer, role: Role::Aggregator });
        assert_eq!(envelopes_to(&effects), expected);
        assert_eq!(bundles_to(&effects), expected);
    }
}

#[test]
fn round_whose_aggregator_is_out_of_reach_is_not_sealed_and_not_lost() {
    let mut play = plain();
    let named = aggregator(&play);
    play.feed(Input::Unlinked { peer: named });
    play.feed(Input::Linked { peer: FALSE, role: Role::Aggregator });
    publish(&mut play, 7, "hello");
    let plan = Plan::round(1);
    let (live, proof) = (play.cast.live(&plan), place(&play, &plan));
    let message = Message::LiveFor { live: Box::new(live.clone()), place: proof };
    assert_eq!(play.machine.wanted_aggregator(), None, "no header has named one");
    for reported in [vec![Refused::NotAggregator], vec![]] {
        let effects = play.hear(FALSE, &message);
        assert_eq!(untrusted(&effects), reported, "once");
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Work(_))), "nothing is sealed");
    }
    assert_eq!(play.machine.wanted_aggregator(), Some(named));
    assert_eq!(play.machine.backlog(), (1, 0));
    let effects = play.feed(Input::Linked { peer: named, role: Role::Aggregator });
    assert_eq!(bundles_to(&effects), [named], "it shows the round to whom it knows");
    assert_eq!(play.machine.wanted_aggregator(), None);
    let effects = play.hear(named, &message);
    assert_eq!(envelopes_to(&effects), [named]);
    let record = record(&mut play, &plan, &live, &bodies(&effects)[0]);
    // A record proves itself, also from somebody else.
    let signatures = play.cast.sign_record(&record, &[0, 1, 2]);
    let effects = play.hear(FALSE, &Message::Record { record, signatures });
    assert_eq!(outcomes(&effects), [(7, Outcome::Landed)]);
}

#[test]
fn bundle_goes_to_all_aggregators_until_a_trusted_header_names_one() {
    let cast = Cast::new();
    let mut config = cast.client_config();
    config.rekey_after = Duration::from_secs(100);
    let mut play = Play::new(cast, Client::new(config, Strict));
    let named = aggregator(&play);
    let all: Vec<PeerId> = if named < FALSE { vec![named, FALSE] } else { vec![FALSE, named] };
    play.feed(Input::Linked { peer: named, role: Role::Aggregator });
    play.feed(Input::Linked { peer: FALSE, role: Role::Aggregator });
    assert_eq!(bundles_to(&play.wait(RESEND)), all);
    // A header that lists the client not, of no log that it knows, may be from the past.
    let without = Plan { clients: vec![1, 2], ..Plan::round(1) };
    join(&mut play, &without);
    assert_eq!(bundles_to(&play.wait(RESEND)), all);
    join(&mut play, &Plan::round(2));
    let (_, effects) = join(&mut play, &Plan { clients: vec![1, 2], ..Plan::round(3) });
    assert_eq!(untrusted(&effects), [Refused::NotInRegistry]);
    assert_eq!(bundles_to(&play.wait(RESEND)), [named], "now it is known who keeps the registry");
    play.feed(Input::Unlinked { peer: named });
    assert_eq!(bundles_to(&play.wait(RESEND)), [FALSE], "another may have taken its place");
}

#[test]
fn aggregator_of_a_log_begun_anew_is_shown_the_bundle() {
    let mut play = plain();
    join(&mut play, &Plan::round(5));
    play.feed(Input::Linked { peer: FALSE, role: Role::Aggregator });
    let mut header =
        play.cast.live(&Plan { log: LogId([9; 32]), clients: vec![1, 2], ..Plan::round(1) }).header;
    header.aggregator = FALSE;
    let live = play.cast.sign_header(header, &[0, 1, 2], &[]);
    let message = Message::LiveFor { live: Box::new(live), place: None };
    let effects = play.hear(FALSE, &message);
    assert_eq!((untrusted(&effects), bundles_to(&effects)), (vec![Refused::WrongLog], vec![FALSE]));
    assert_eq!(bundles_to(&play.hear(FALSE, &message)), [], "at its pace");
    play.wait(RESEND);
    assert_eq!(bundles_to(&play.hear(FALSE, &message)), [FALSE]);
    assert_eq!(play.machine.wanted_aggregator(), None, "the log of before is not forgotten by that");
}
