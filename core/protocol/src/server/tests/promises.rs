//! What one honest server keeps, whatever the log and snapshots say: the attacks that a holder of the committee secret,
//! a leader, or a snapshot of either can try, each with what comes of it.

use super::*;
use crate::committee::BadSnapshot;
use crate::committee::tests::cast::Binding;
use crate::fold::xor_into;
use crate::id::UniqueId;
use crate::key::{Identity, NodeSecret, Signature};
use crate::slot::{SlotContent, pad_payload, read_slots};

/// What an adversary computes by itself: the true rules without signatures.
#[derive(Clone, Copy, Debug)]
struct Forge;

impl Checks for Forge {
    fn enforce(&self, _: Check) -> bool {
        true
    }

    fn verify(&self, _: &PeerId, _: &Digest, _: &Signature) -> bool {
        true
    }
}

fn forge(snapshot: &[u8]) -> Committee<Forge> {
    let mut forge = Committee::new(Cast::config(), Forge);
    forge.restore(snapshot).unwrap();
    forge
}

/// Signs a bundle in the name of a member of the cast.
fn identity(kind: &str, peer: PeerId) -> Identity {
    let mut all = (0..5).map(|i| {
        Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text(&std::format!("{kind} {i}")).0))
    });
    all.find(|identity| identity.peer() == peer).unwrap()
}

fn with_key_of(bundle: &Bundle, kind: &str, key: PublicKey) -> Bundle {
    let mut copy = bundle.clone();
    copy.round_key = key;
    copy.signature = identity(kind, copy.peer).sign(&copy.digest());
    copy
}

/// What the keys of these servers take off an envelope of a client.
fn strip(
    play: &mut Play,
    liars: &[usize],
    header: &Arc<Header>,
    client: &Bundle,
    envelope: &[u8],
) -> Vec<u8> {
    let mut opened = envelope.to_vec();
    for liar in liars {
        let member = &mut play.cast.servers[*liar];
        let (key_epoch, clients) = (member.bundle.epoch, [End::from(client)].into());
        let (header, aggregate) = (Arc::clone(header), Digest::default());
        let job = Job::MakePartial { key_epoch, header, aggregate, clients };
        if let Done::PartialMade(pad) = member.keyring.perform(&job, || [0x5a; 32]) {
            xor_into(&mut opened, &pad.body);
        }
    }
    opened
}

fn messages(header: &Header, vector: &[u8]) -> usize {
    let slots = read_slots(&header.params, &header.digest(), vector);
    slots.filter(|slot| matches!(slot, SlotContent::Message(_))).count()
}

fn partial_of(play: &Play) -> Option<Partial> {
    let me = play.cast.server(0);
    play.log.iter().rev().find_map(|command| match command {
        Command::SubmitPartial(partial) if partial.server == me => Some(partial.clone()),
        _ => None,
    })
}

/// Two servers with one round key, one of them honest: the envelope of a client still wears the honest one's pad.
#[test]
fn a_copied_server_key_takes_no_pad_off() {
    let mut play = Play::new();
    play.go(Step::Started);
    assert!(play.server.is_registered());
    let honest = play.cast.servers[0].bundle.round_key;
    let copy = with_key_of(&play.cast.servers[1].bundle, "server", honest);
    play.cast.servers[1].bundle = copy;
    play.go(Step::Live);
    let open = play.server.committee().open().unwrap().clone();
    assert_eq!(open.header.servers[0].round_key, open.header.servers[1].round_key);
    let text = pad_payload(b"who wrote this?", &open.header.params).unwrap();
    let envelope = play.cast.clients[2].seal(&open.header, Some(text));
    let victim = play.cast.clients[2].bundle.clone();
    let opened = strip(&mut play, &[1, 2], &open.header, &victim, &envelope);
    assert_eq!(messages(&open.header, &opened), 0);
    let opened = strip(&mut play, &[2], &open.header, &victim, &envelope);
    assert_eq!(messages(&open.header, &opened), 0);
}

/// A client with the round key of another one: each has its own pad in the partial of the honest server.
#[test]
fn a_copied_client_key_leaves_every_pad_in_the_partial() {
    let mut play = Play::new();
    play.go(Step::Approved);
    let key = play.cast.clients[2].bundle.round_key;
    play.cast.clients[1].bundle = with_key_of(&play.cast.clients[1].bundle, "client", key);
    play.go(Step::Live);
    let open = play.server.committee().open().unwrap().clone();
    let text = pad_payload(b"words of client 0", &open.header.params).unwrap();
    let envelope = play.cast.clients[0].seal(&open.header, Some(text));
    let body = vec![0; open.header.params.vector_bytes()];
    let everybody = Bitmap::from_ones(3, 0..3).unwrap();
    let aggregate = play.cast.aggregator.aggregate(&open.header, everybody, body);
    play.commit(&Command::SubmitAggregate(aggregate));
    let Some(Command::SubmitPartial(partial)) = play.proposed.front().cloned() else { panic!() };
    let mut stripped = envelope;
    xor_into(&mut stripped, &partial.body);
    let victim = play.cast.clients[0].bundle.clone();
    let opened = strip(&mut play, &[1, 2], &open.header, &victim, &stripped);
    assert_eq!(messages(&open.header, &opened), 0, "two pads of clients are still on");
}

/// The state before the round, as if it were of another log.
fn detour(before: &[u8]) -> Vec<u8> {
    let mut detour = before.to_vec();
    detour[1..33].copy_from_slice(&OTHER_LOG.0);
    detour
}

/// A snapshot in which a second aggregate is in under the header of an open round.
fn second_aggregate(play: &Play, header: &Header, before: &[u8], participants: &[u32]) -> Vec<u8> {
    let mut forge = forge(before);
    forge.apply(1, &Command::OpenRound(header.clone()), &mut Vec::new()).unwrap();
    for index in 0..3 {
        let signature = HeaderSignature {
            log: LOG,
            round: header.round,
            header: header.digest(),
            server: play.cast.server(index),
            refused: Bitmap::new(header.clients.count),
            signature: Signature::default(),
        };
        forge.apply(1, &Command::SignHeader(signature), &mut Vec::new()).unwrap();
    }
    let aggregate = Aggregate {
        log: LOG,
        round: header.round,
        header: header.digest(),
        participants: Bitmap::from_ones(3, participants.iter().copied()).unwrap(),
        body: vec![0; header.params.vector_bytes()],
        signature: Signature::default(),
    };
    forge.apply(1, &Command::SubmitAggregate(aggregate), &mut Vec::new()).unwrap();
    forge.snapshot()
}

/// One header, one partial: neither a detour over another log nor a snapshot with another aggregate gets a second one.
#[test]
fn no_snapshot_gets_a_second_partial() {
    let mut play = Play::at(Step::Enrolled);
    let before = play.server.committee().snapshot();
    let header = play.header();
    play.commit(&Command::OpenRound(header.clone()));
    play.go(Step::Aggregated);
    assert!(partial_of(&play).is_some());

    assert_eq!(play.install(&detour(&before)), Err(BadSnapshot::OtherLog));
    assert_eq!(play.install(&before), Err(BadSnapshot::GoesBack));
    let unsigned = second_aggregate(&play, &header, &before, &[0, 1]);
    assert_eq!(play.install(&unsigned), Err(BadSnapshot::BadSignature));

    // All signatures are good, since the others are the adversary's as well; and the honest one's is in the log.
    let open = play.server.committee().open().unwrap().clone();
    let mut plain = forge(&before);
    plain.apply(1, &Command::OpenRound(header.clone()), &mut Vec::new()).unwrap();
    for signature in open.signatures.values() {
        plain.apply(1, &Command::SignHeader(signature.clone()), &mut Vec::new()).unwrap();
    }
    let body = vec![0; header.params.vector_bytes()];
    let two = Bitmap::from_ones(3, [0, 1]).unwrap();
    let aggregate = play.cast.aggregator.aggregate(&header, two, body);
    plain.apply(1, &Command::SubmitAggregate(aggregate), &mut Vec::new()).unwrap();
    assert_eq!(play.install(&plain.snapshot()), Ok(()), "nothing in it can be seen to be wrong");
    for effects in [play.feed(Input::Tick), play.wait(RESEND), play.wait(RESEND)] {
        assert!(!asks_for_partial(&effects), "{effects:?}");
    }
    // Nor does the keyring make one, whatever its machine would say.
    let clients = [End::from(&play.cast.clients[0].bundle)].into();
    let job = Job::MakePartial {
        key_epoch: Epoch(1),
        header: Arc::new(header),
        aggregate: Digest::default(),
        clients,
    };
    let done = play.cast.servers[0].keyring.perform(&job, || [0x5a; 32]);
    assert!(matches!(done, Done::Withheld { .. }), "{done:?}");
}

fn asks_for_partial(effects: &[Effect]) -> bool {
    let partial = |effect: &Effect| {
        matches!(effect, Effect::Work(Job::MakePartial { .. }) | Effect::Propose(Command::SubmitPartial(_)))
    };
    effects.iter().any(partial)
}

/// With the server's own rules gone, the key still makes one partial per header.
#[test]
fn a_machine_that_was_talked_into_it_gets_nothing_from_the_key() {
    let mut play = Play::with(Cast::new(), Without(Check::PromiseKept));
    play.go(Step::Enrolled);
    let before = play.server.committee().snapshot();
    let header = play.header();
    play.commit(&Command::OpenRound(header.clone()));
    play.go(Step::Aggregated);
    let first = play.log.iter().filter(|command| matches!(command, Command::SubmitPartial(_))).count();
    assert_eq!(first, 1);
    // As if a snapshot had moved it there: the state before, and the same opening again.
    play.server.restore(&before).unwrap();
    play.server.promise = None;
    play.server.signed = None;
    play.proposed.clear();
    play.commit(&Command::OpenRound(header));
    for step in [Step::Live, Step::Aggregated] {
        while let Some(command) = play.cast.next(play.server.committee(), step) {
            let effects = play.commit(&command);
            let proposed = kinds(&effects);
            assert!(!proposed.contains(&"submit-partial"), "{proposed:?}");
        }
    }
}

/// A record that no log has made is not signed, whatever a snapshot says of it.
#[test]
fn a_forged_record_is_not_signed() {
    let mut play = Play::at(Step::Aggregated);
    let at_aggregate = play.server.committee().snapshot();
    play.go(Step::Confirmed);
    let genuine = play.server.committee().records().back().unwrap().clone();
    assert!(genuine.confirmed());
    let forged = {
        let mut forge = forge(&at_aggregate);
        let open = forge.open().unwrap().clone();
        for index in 0..3 {
            let server = play.cast.server(index);
            if open.partials.contains_key(&server) {
                continue;
            }
            let partial = Partial {
                log: LOG,
                round: open.header.round,
                header: open.digest,
                aggregate: open.aggregate.as_ref().unwrap().digest,
                server,
                body: vec![u8::try_from(index).unwrap() * 7; open.header.params.vector_bytes()],
                signature: Signature::default(),
            };
            forge.apply(1, &Command::SubmitPartial(partial), &mut Vec::new()).unwrap();
        }
        forge
    };
    let other = forged.records().back().unwrap().digest;
    assert_ne!(other, genuine.digest);
    assert_eq!(play.install(&forged.snapshot()), Err(BadSnapshot::Contradicts));

    // To a server that has not seen the round end, the forged record looks as good as any. It is followed, not signed.
    let mut behind = Play::at(Step::Aggregated);
    assert_eq!(behind.install(&forged.snapshot()), Ok(()));
    for effects in [behind.feed(Input::Tick), behind.wait(RESEND)] {
        assert!(!kinds(&effects).contains(&"sign-record"), "{effects:?}");
    }
    assert_eq!(behind.server.followed(), Some(Round(1)));
    // What its own log makes later, it signs again.
    behind.wait(RESEND);
    behind.settle();
    behind.go(Step::Enrolled);
    for step in [Step::Opened, Step::Live, Step::Aggregated, Step::Finalized] {
        while let Some(command) = behind.cast.next(behind.server.committee(), step) {
            behind.commit(&command);
            behind.settle();
        }
    }
    let newest = behind.server.committee().records().back().unwrap();
    assert_eq!(newest.record.round, Round(2));
    assert!(newest.signatures.contains_key(&behind.cast.server(0)), "it vouches for what it has seen made");
}

/// One record of a round, also where the process has forgotten nothing and the state says another thing.
#[test]
fn two_records_of_one_round_are_not_signed() {
    let mut play = Play::at(Step::Confirmed);
    let mut kept = play.server.committee().records().back().unwrap().clone();
    assert!(play.server.vouches_for(&kept));
    kept.digest = Digest([9; 32]);
    assert!(!play.server.vouches_for(&kept));
    // Nor an older one than the process remembers.
    for round in 10..30 {
        play.server.records_signed.insert(Round(round), Digest::default());
        if play.server.records_signed.len() > RECORDS_SIGNED {
            play.server.records_signed.pop_first();
        }
    }
    assert!(!play.server.vouches_for(&kept));
}

/// A store that has never registered knows nothing of what its identity did before.
#[test]
fn a_store_that_lost_its_disk_signs_nothing_of_its_former_life() {
    let mut play = Play::at(Step::Finalized);
    // The record is made; its signature is still missing when the disk is lost.
    play.proposed.clear();
    play.cast.servers[0].keyring.forget_round_key();
    let log = core::mem::take(&mut play.log);
    play.server = Server::new(config(&play.cast), Strict, [0x66; 32]);
    play.connect();
    for command in &log {
        let effects = play.commit(command);
        assert!(!kinds(&effects).contains(&"sign-record"), "{command:?}");
    }
    assert!(play.server.committee().records().back().is_some());
    play.wait(RESEND);
    play.settle();
    assert!(play.server.is_registered());
    assert_eq!(play.server.followed(), Some(play.server.committee().opened()));
    assert!(!kinds(&play.wait(RESEND)).contains(&"sign-record"));
}

/// "I gave no partial and never will" is not said of a header under which one was given.
#[test]
fn no_false_disclaimer() {
    let mut play = Play::at(Step::Enrolled);
    let before = play.server.committee().snapshot();
    let header = play.header();
    play.commit(&Command::OpenRound(header.clone()));
    play.go(Step::Aggregated);
    assert!(partial_of(&play).is_some());
    assert!(play.install(&detour(&before)).is_err());
    assert!(play.install(&before).is_err());
    // The key remembers by itself.
    let (log, round, digest) = (header.log, header.round, header.digest());
    let job = Job::Disclaim { key_epoch: Epoch(1), log, round, header: digest };
    let done = play.cast.servers[0].keyring.perform(&job, || [0x5a; 32]);
    assert!(matches!(done, Done::Withheld { .. }), "{done:?}");
    let effects = play.commit(&Command::OpenRound(play.header()));
    assert!(disclaimers(&effects).is_empty());
}

/// A leader that never lets a round end keeps no key alive by it.
#[test]
fn a_key_ends_at_its_age_whatever_is_open() {
    let mut play = Play::at(Step::Live);
    let key = play.cast.servers[0].keyring.round_key();
    assert!(key.is_some());
    play.wait(REKEY);
    assert_eq!(play.cast.servers[0].keyring.round_key(), key, "between rounds only");
    play.wait(KEY_AGE_MAX - REKEY);
    assert_ne!(play.cast.servers[0].keyring.round_key(), key, "but not for ever");
    play.proposed.clear();
    let aggregate = play.cast.next(play.server.committee(), Step::Aggregated).unwrap();
    assert!(!kinds(&play.commit(&aggregate)).contains(&"submit-partial"));
    play.wait(RESEND);
    play.settle();
    assert!(play.server.is_registered(), "with another key");
    assert!(play.server.committee().open().is_none(), "the round that lists the old one is given up");
}

/// A bundle that was made in the moment in which a snapshot came announces no key any more.
#[test]
fn a_bundle_made_before_a_snapshot_is_not_used() {
    let mut play = Play::at(Step::Enrolled);
    let snapshot = play.server.committee().snapshot();
    let stale = play.cast.servers[0].renew(9);
    let mut out = Outbox::new();
    play.server.install(&snapshot, &mut out).unwrap();
    let Some(Effect::Work(job @ Job::ForgetKey)) = out.pop() else { panic!("the key goes first") };
    assert!(out.is_empty());
    let forgotten = play.cast.servers[0].keyring.perform(&job, || [0x5a; 32]);
    play.server.handle(play.now, Input::Done(Done::BundleMade(stale.clone())), &mut out);
    while out.pop().is_some() {}
    play.server.handle(play.now, Input::Done(forgotten), &mut out);
    while out.pop().is_some() {}
    assert_ne!(play.server.bundle, Some(stale));
    play.wait(RESEND);
    play.wait(RESEND);
    play.settle();
    assert!(play.server.is_registered());
    assert_eq!(
        play.server.bundle.as_ref().map(|bundle| bundle.round_key),
        play.cast.servers[0].keyring.round_key()
    );
}

/// The cast's own keys are told apart, or copies of keys would go unnoticed.
#[test]
fn nobody_in_the_cast_shares_a_round_key() {
    let cast = Cast::new();
    let all = cast.servers.iter().chain(&cast.clients).chain([&cast.aggregator, &cast.rival]);
    let keys: BTreeSet<_> = all.clone().map(|member| member.bundle.round_key).collect();
    assert_eq!(keys.len(), all.count());
    assert!(!Binding { bound: false }.enforce(Check::PromiseKept));
}
