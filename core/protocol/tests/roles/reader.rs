//! What a reader believes, and for which reason it refuses everything else.

use std::time::Duration;

use zipnet_core::bitmap::Bitmap;
use zipnet_core::checks::Strict;
use zipnet_core::evidence::{Contradiction, NoEvidence};
use zipnet_core::id::{Digest, LogId, PeerId, Role, Round};
use zipnet_core::machine::{Effect, Report};
use zipnet_core::message::{Message, Record, RecordSignature};
use zipnet_core::params::RoundParams;
use zipnet_core::reader::{CONFIRM_PATIENCE, Config, GAP_PATIENCE, Input, Reader, START_PATIENCE};
use zipnet_core::refused::Refused;
use zipnet_core::wire;

use crate::cast::{Cast, LOG, Plan, Play, RESEND, sent};

type Stage = Play<Reader<Strict>>;

fn linked(change: impl Fn(&Cast, &mut Config)) -> Stage {
    let cast = Cast::new();
    let mut config = cast.reader_config();
    change(&cast, &mut config);
    let mut play = Play::new(cast, Reader::new(config, Strict));
    let peer = aggregator(&play);
    play.feed(Input::Linked { peer, role: Role::Aggregator });
    play
}

fn aggregator(play: &Stage) -> PeerId {
    play.cast.aggregator.keyring.peer()
}

/// The record of a round behind another one, of these servers.
fn record(cast: &mut Cast, round: u64, previous: Digest, roster: &[usize]) -> Record {
    let mut plan = Plan::round(round);
    plan.roster = roster.to_vec();
    plan.previous = (round - 1, previous);
    let live = cast.live(&plan);
    let envelopes: Vec<_> = (0..3).map(|client| (client, cast.envelope(client, &live).body)).collect();
    cast.record(&plan, &live, &envelopes)
}

/// Records 1 to `count`, each naming the one before it.
fn chain(cast: &mut Cast, count: u64) -> Vec<Record> {
    let mut previous = Digest::default();
    let mut records = Vec::new();
    for round in 1..=count {
        let record = record(cast, round, previous, &[0, 1, 2]);
        previous = record.digest();
        records.push(record);
    }
    records
}

fn hear(play: &mut Stage, record: &Record, signatures: Vec<RecordSignature>) -> Vec<Effect> {
    let from = aggregator(play);
    play.hear(from, &Message::Record { record: record.clone(), signatures })
}

/// With the signatures of the whole roster.
fn hear_signed(play: &mut Stage, record: &Record) -> Vec<Effect> {
    let signatures = play.cast.sign_record(record, &[0, 1, 2]);
    hear(play, record, signatures)
}

fn seen(effects: &[Effect]) -> Vec<(u64, bool)> {
    let seen = |effect: &Effect| match effect {
        Effect::Report(Report::RecordSeen { record, confirmed, .. }) => Some((record.round.0, *confirmed)),
        _ => None,
    };
    effects.iter().filter_map(seen).collect()
}

fn refusals(effects: &[Effect]) -> Vec<Refused> {
    let reason = |effect: &Effect| match effect {
        Effect::Report(Report::Refused { reason, .. }) => Some(*reason),
        _ => None,
    };
    effects.iter().filter_map(reason).collect()
}

fn missing(effects: &[Effect]) -> Vec<(u64, u64)> {
    let gap = |effect: &Effect| match effect {
        Effect::Report(Report::RecordsMissing { from, oldest, .. }) => Some((from.0, oldest.0)),
        _ => None,
    };
    effects.iter().filter_map(gap).collect()
}

fn wanted(effects: &[Effect]) -> Vec<(PeerId, u64)> {
    let from = |(to, message)| match message {
        Message::RecordsWanted { from } => Some((to, from.0)),
        _ => None,
    };
    sent(effects).into_iter().filter_map(from).collect()
}

#[test]
fn each_forged_record_is_refused_for_its_own_reason() {
    type Forge = fn(&mut Cast, &mut Record, &mut Vec<RecordSignature>);
    let table: [(&str, Forge, Refused); 18] = [
        ("an altered slot", |_, r, _| r.broadcast[3] ^= 1, Refused::BadSignature),
        ("another log", |_, r, _| r.log = LogId([9; 32]), Refused::BadSignature),
        ("another header", |_, r, _| r.header.0[0] ^= 1, Refused::BadSignature),
        ("another participant", |_, r, _| r.participants = Bitmap::new(3), Refused::BadSignature),
        ("another predecessor", |_, r, _| r.previous.0[0] ^= 1, Refused::BadSignature),
        ("no signature", |_, _, s| s.clear(), Refused::BadSignature),
        ("one signature of three", |_, _, s| s.truncate(1), Refused::BadSignature),
        ("an altered signature", |_, _, s| s[2].signature.0[9] ^= 1, Refused::BadSignature),
        ("a signature of another round", |_, _, s| s[0].round = Round(7), Refused::BadSignature),
        ("a signature twice", |_, _, s| s[1] = s[0], Refused::Duplicate),
        ("another's signature", |_, _, s| s[0].server = PeerId([7; 32]), Refused::NotInRoster),
        ("a stranger's signature", |c, r, s| s.extend(c.sign_record(r, &[3])), Refused::NotInRoster),
        ("too short", |_, r, _| r.broadcast.truncate(5), Refused::WrongLength),
        ("round 0", |_, r, _| r.round = Round(0), Refused::WrongRound),
        ("an unsorted roster", |_, r, _| r.servers.swap(0, 1), Refused::UnsortedRoster),
        ("a server twice", |_, r, _| r.servers[1] = r.servers[0], Refused::UnsortedRoster),
        ("no roster", |_, r, _| r.servers.clear(), Refused::UnsortedRoster),
        (
            "a roster of strangers",
            |c, r, s| {
                r.servers = vec![c.server(3)];
                *s = c.sign_record(r, &[3]);
            },
            Refused::WrongRoster,
        ),
    ];
    for (what, forge, reason) in table {
        let mut play = linked(|_, _| ());
        let records = chain(&mut play.cast, 2);
        assert_eq!(seen(&hear_signed(&mut play, &records[0])), [(1, true)]);
        let mut forged = records[1].clone();
        let mut signatures = play.cast.sign_record(&forged, &[0, 1, 2]);
        forge(&mut play.cast, &mut forged, &mut signatures);
        let effects = hear(&mut play, &forged, signatures);
        assert_eq!((seen(&effects), refusals(&effects)), (vec![], vec![reason]), "{what}");
        // The right one is still welcome.
        assert_eq!(seen(&hear_signed(&mut play, &records[1])), [(2, true)], "{what}");
    }
}

#[test]
fn no_byte_of_a_record_or_its_signatures_may_differ() {
    let mut play = linked(|_, _| ());
    let records = chain(&mut play.cast, 2);
    hear_signed(&mut play, &records[0]);
    let signatures = play.cast.sign_record(&records[1], &[0, 1, 2]);
    let bytes = wire::encode(&Message::Record { record: records[1].clone(), signatures });
    let from = aggregator(&play);
    for place in 0..bytes.len() {
        for mask in [1, 0x80] {
            let mut bytes = bytes.to_vec();
            bytes[place] ^= mask;
            let effects = play.feed(Input::Received { from, bytes: bytes.into() });
            assert_eq!(seen(&effects), [], "byte {place}");
            assert_eq!(refusals(&effects).len(), 1, "byte {place}");
        }
    }
    assert_eq!(seen(&play.feed(Input::Received { from, bytes: bytes.to_vec().into() })), [(2, true)]);
}

#[test]
fn no_byte_of_a_late_signature_may_differ() {
    let mut play = linked(|_, _| ());
    let records = chain(&mut play.cast, 1);
    let signatures = play.cast.sign_record(&records[0], &[0, 1, 2]);
    hear(&mut play, &records[0], signatures[..2].to_vec());
    let bytes = wire::encode(&Message::RecordSigned { signatures: signatures[2..].to_vec() });
    let from = aggregator(&play);
    for place in 0..bytes.len() {
        let mut bytes = bytes.to_vec();
        bytes[place] ^= 1;
        assert_eq!(seen(&play.feed(Input::Received { from, bytes: bytes.into() })), [], "byte {place}");
    }
    assert_eq!(seen(&play.feed(Input::Received { from, bytes: bytes.to_vec().into() })), [(1, true)]);
}

#[test]
fn records_are_shown_in_the_order_of_their_chain() {
    let mut play = linked(|_, _| ());
    let records = chain(&mut play.cast, 5);
    let order = [1, 0, 4, 3, 2];
    let shown: Vec<_> =
        order.iter().flat_map(|index| seen(&hear_signed(&mut play, &records[*index]))).collect();
    assert_eq!(shown, [(1, true), (2, true), (3, true), (4, true), (5, true)]);
    assert_eq!(play.machine.tip(), Some((LOG, Round(5), records[4].digest())));
    assert_eq!(play.machine.held(), 0);
}

#[test]
fn a_later_record_does_not_overtake_one_that_waits_for_signatures() {
    let mut play = linked(|_, _| ());
    let records = chain(&mut play.cast, 2);
    let two = play.cast.sign_record(&records[0], &[0, 1]);
    assert_eq!(seen(&hear(&mut play, &records[0], two)), []);
    assert_eq!(seen(&hear_signed(&mut play, &records[1])), []);
    assert_eq!(seen(&play.wait(RESEND * CONFIRM_PATIENCE)), [(1, false), (2, true)]);
}

#[test]
fn a_gap_is_reported_and_never_bridged() {
    let mut play = linked(|_, _| ());
    let records = chain(&mut play.cast, 6);
    hear_signed(&mut play, &records[0]);
    for record in &records[3..5] {
        assert_eq!(seen(&hear_signed(&mut play, record)), []);
    }
    assert_eq!(play.machine.held(), 2);
    let effects = play.wait(RESEND * (GAP_PATIENCE - 1));
    assert_eq!((seen(&effects), missing(&effects)), (vec![], vec![]));
    let effects = play.wait(RESEND);
    assert_eq!(missing(&effects), [(2, 4)]);
    assert_eq!(seen(&effects), [(4, true), (5, true)]);
    // What was missing comes after all: too late to stand where it belongs.
    let effects = hear_signed(&mut play, &records[2]);
    assert_eq!((seen(&effects), refusals(&effects)), (vec![], vec![]));
    assert_eq!(seen(&hear_signed(&mut play, &records[5])), [(6, true)]);
}

#[test]
fn the_oldest_that_can_be_had_is_named_if_an_older_one_was_asked_for() {
    for (from, named) in [(None, vec![]), (Some(Round(2)), vec![(2, 3)]), (Some(Round(3)), vec![])] {
        let mut play = linked(|_, config| config.from = from);
        let records = chain(&mut play.cast, 3);
        let mut effects = hear_signed(&mut play, &records[2]);
        effects.extend(play.wait(RESEND * START_PATIENCE));
        assert_eq!((missing(&effects), seen(&effects)), (named, vec![(3, true)]), "{from:?}");
    }
}

#[test]
fn two_records_of_a_round_are_reported_with_who_signed_both() {
    let mut play = linked(|_, _| ());
    let records = chain(&mut play.cast, 1);
    hear_signed(&mut play, &records[0]);
    let mut other = records[0].clone();
    other.broadcast[0] ^= 1;
    // Unsigned, it is nobody's fault but the sender's.
    assert_eq!(refusals(&hear(&mut play, &other, vec![])), [Refused::BadSignature]);
    let signatures = play.cast.sign_record(&other, &[1]);
    let effects = hear(&mut play, &other, signatures.clone());
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Report(Report::RecordContradicted { log, round, seen, other, servers, evidence }) => {
            Some(((*log, *round, *seen, *other, servers.clone()), evidence.clone()))
        }
        _ => None,
    });
    let server = play.cast.server(1);
    let (told, evidence) = told.expect("it is told");
    assert_eq!(told, (LOG, Round(1), records[0].digest(), other.digest(), vec![server]));
    let [pair] = evidence[..] else { panic!("one server has signed both") };
    assert_eq!((pair.verify(), pair.server(), pair.other), (Ok(()), server, signatures[0]));
    assert_eq!(pair.one.record, records[0].digest());
    assert_eq!(refusals(&effects), [Refused::Equivocation]);
    // It is told once, and a signature alone is evidence as well.
    let effects = hear(&mut play, &other, signatures.clone());
    assert!(!effects.iter().any(|it| matches!(it, Effect::Report(Report::RecordContradicted { .. }))));
    let mut play = linked(|_, _| ());
    hear_signed(&mut play, &records[0]);
    let from = aggregator(&play);
    let effects = play.hear(from, &Message::RecordSigned { signatures });
    assert!(effects.iter().any(|it| matches!(it, Effect::Report(Report::RecordContradicted { .. }))));
}

/// Pairs of signatures that convict a server.
fn convicted(effects: &[Effect]) -> Vec<Contradiction> {
    let pairs = effects.iter().filter_map(|effect| match effect {
        Effect::Report(Report::RecordContradicted { evidence, .. }) => Some(evidence.clone()),
        _ => None,
    });
    pairs.flatten().collect()
}

#[test]
fn who_signed_both_is_convicted_once_whichever_came_first() {
    let mut play = linked(|_, _| ());
    let records = chain(&mut play.cast, 1);
    let mut other = records[0].clone();
    other.broadcast[0] ^= 1;
    let (first, late) =
        (play.cast.sign_record(&records[0], &[0, 1]), play.cast.sign_record(&records[0], &[2]));
    let theirs = play.cast.sign_record(&other, &[1, 2]);
    hear(&mut play, &records[0], first);
    let pairs = convicted(&hear(&mut play, &other, theirs.clone()));
    assert_eq!(pairs.iter().map(Contradiction::server).collect::<Vec<_>>(), [play.cast.server(1)]);
    // The third one signs the record that was believed after the other one.
    let from = aggregator(&play);
    let signed = Message::RecordSigned { signatures: late };
    let pairs = convicted(&play.hear(from, &signed));
    assert_eq!(pairs.iter().map(Contradiction::server).collect::<Vec<_>>(), [play.cast.server(2)]);
    assert_eq!(pairs[0].verify(), Ok(()));
    for _ in 0..2 {
        assert_eq!(convicted(&hear(&mut play, &other, theirs.clone())), []);
        assert_eq!(convicted(&play.hear(from, &signed)), []);
    }
}

#[test]
fn two_signatures_convict_only_their_server_and_only_under_two_records_of_one_round() {
    let mut play = linked(|_, _| ());
    let records = chain(&mut play.cast, 2);
    let mut other = records[0].clone();
    other.broadcast[0] ^= 1;
    let mut sign = |record: &Record, server: usize| play.cast.sign_record(record, &[server])[0];
    let (one, two) = (sign(&records[0], 0), sign(&other, 0));
    let verify = |one, other| Contradiction { one, other }.verify();
    assert_eq!(verify(one, two), Ok(()));
    assert_eq!(verify(two, one), Ok(()));
    assert_eq!(verify(one, one), Err(NoEvidence::SameRecord));
    assert_eq!(verify(one, sign(&other, 1)), Err(NoEvidence::Servers));
    assert_eq!(verify(one, sign(&records[1], 0)), Err(NoEvidence::Rounds));
    for place in 0..64 {
        let mut forged = two;
        forged.signature.0[place] ^= 1;
        assert_eq!(verify(one, forged), Err(NoEvidence::BadSignature));
    }
    assert_eq!(verify(one, RecordSignature { log: LogId([9; 32]), ..two }), Err(NoEvidence::Rounds));
    assert_eq!(
        verify(one, RecordSignature { record: Digest([9; 32]), ..two }),
        Err(NoEvidence::BadSignature)
    );
}

#[test]
fn pins_and_floor_hold_for_every_roster() {
    /// Pins, floor, roster, and what becomes of it.
    type Row = (&'static [usize], Option<u32>, &'static [usize], Result<(), Refused>);
    let table: [Row; 6] = [
        (&[0, 1], None, &[0, 1, 2], Ok(())),
        (&[0, 3], None, &[0, 1, 2], Err(Refused::PinMissing)),
        (&[0], Some(3), &[0, 1, 2], Ok(())),
        (&[0], Some(4), &[0, 1, 2], Err(Refused::RosterTooSmall)),
        (&[], Some(2), &[1], Err(Refused::RosterTooSmall)),
        (&[0], None, &[0], Ok(())),
    ];
    for (pins, min_servers, roster, expected) in table {
        let mut play = linked(|cast, config| {
            config.pins = pins.iter().map(|index| cast.server(*index)).collect();
            config.min_servers = min_servers;
        });
        let record = record(&mut play.cast, 1, Digest::default(), roster);
        let signatures = play.cast.sign_record(&record, roster);
        let effects = hear(&mut play, &record, signatures);
        let reasons: Vec<_> = expected.err().into_iter().collect();
        assert_eq!(refusals(&effects), reasons, "{pins:?} {min_servers:?} {roster:?}");
        assert_eq!(seen(&effects).is_empty(), expected.is_err(), "{pins:?} {min_servers:?} {roster:?}");
    }
}

#[test]
fn strangers_in_a_roster_do_not_outvote_those_who_are_trusted() {
    // Pinned: server 1. The other three sign without it.
    let mut play = linked(|cast, config| config.pins = vec![cast.server(0)]);
    let record = record(&mut play.cast, 1, Digest::default(), &[0, 1, 2, 3]);
    let signatures = play.cast.sign_record(&record, &[1, 2, 3]);
    assert_eq!(refusals(&hear(&mut play, &record, signatures)), [Refused::BadSignature]);
    let signatures = play.cast.sign_record(&record, &[0, 1, 2, 3]);
    assert_eq!(seen(&hear(&mut play, &record, signatures)), [(1, true)]);
}

#[test]
fn other_parameters_are_refused() {
    let mut play = linked(|_, config| config.params = RoundParams::DEFAULT);
    let records = chain(&mut play.cast, 1);
    assert_eq!(refusals(&hear_signed(&mut play, &records[0])), [Refused::WrongLength]);
}

#[test]
fn requests_are_repeated_and_go_to_one_server_after_the_other() {
    let mut play = linked(|_, _| ());
    let servers = [0, 1].map(|index| play.cast.server(index));
    for peer in servers {
        let effects = play.feed(Input::Linked { peer, role: Role::Server });
        assert_eq!(wanted(&effects), [(peer, 1)]);
    }
    let records = chain(&mut play.cast, 1);
    hear_signed(&mut play, &records[0]);
    let mut asked = Vec::new();
    for _ in 0..4 {
        let effects = play.wait(RESEND);
        let (server, from) = wanted(&effects)[1];
        assert_eq!((wanted(&effects)[0], from), ((aggregator(&play), 2), 2));
        asked.push(server);
    }
    assert!(servers.iter().all(|server| asked.iter().filter(|asked| *asked == server).count() == 2));
    for peer in servers.into_iter().chain([aggregator(&play)]) {
        play.feed(Input::Unlinked { peer });
    }
    assert_eq!(wanted(&play.wait(RESEND)), []);
}

#[test]
fn records_are_not_hoarded() {
    let mut play = linked(|_, _| ());
    let records = chain(&mut play.cast, 80);
    hear_signed(&mut play, &records[0]);
    for record in records[2..].iter().rev() {
        hear_signed(&mut play, record);
    }
    assert_eq!(play.machine.held(), 64);
    let effects = hear_signed(&mut play, &records[1]);
    assert_eq!(seen(&effects).len(), 64);
    assert_eq!(wanted(&play.wait(RESEND)), [(aggregator(&play), 66)]);
    assert!(missing(&play.wait(Duration::from_secs(60))).is_empty());
}

#[test]
fn a_replayed_log_does_not_take_the_place_of_the_present_one() {
    let mut play = linked(|_, _| ());
    let old = chain(&mut play.cast, 2);
    for record in &old {
        hear_signed(&mut play, record);
    }
    let mut plan = Plan::round(1);
    plan.log = LogId([0x11; 32]);
    let live = play.cast.live(&plan);
    let fresh = play.cast.record(&plan, &live, &[]);
    assert_eq!(seen(&hear_signed(&mut play, &fresh)), [(1, true)]);
    for record in &old {
        assert_eq!(seen(&hear_signed(&mut play, record)), []);
    }
    assert_eq!(play.machine.tip(), Some((plan.log, Round(1), fresh.digest())));
}
