use zipnet_core::id::{LogId, Round, StoreId};
use zipnet_core::machine::Abandonment;

use super::sample::{
    Judge, again, header_digest, lines_lost, log_started, made, opened, partial, peer, record, sealed,
    started, subject,
};
use super::*;

impl Property for Box<dyn Property> {
    fn name(&self) -> &'static str {
        self.as_ref().name()
    }

    fn sentence(&self) -> &'static str {
        self.as_ref().sentence()
    }

    fn see(&mut self, now: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        self.as_mut().see(now, subject, seen)
    }

    fn cannot_tell(&self) -> Option<&'static str> {
        self.as_ref().cannot_tell()
    }
}

/// Every property that there is.
fn every() -> impl Iterator<Item = Box<dyn Property>> {
    all().into_iter().chain(named().properties())
}

/// Nobody in the facts of these tests has participants.
fn named() -> Named {
    Named { no_mixed_groups: true, never_unblinded_below: Some(0) }
}

/// What honest nodes may say before anything else was seen of them.
fn first_facts() -> Vec<Fact> {
    let abandoned = Fact::RoundAbandoned {
        round: Round(1),
        index: 0,
        header: header_digest(1, 1),
        reason: Abandonment::Unsigned,
        missing: Vec::new(),
    };
    let first = record(1, Digest::default());
    let reports = [
        opened(1, 1),
        partial(1, header_digest(1, 1), 7),
        made(1, 7, 0, 0),
        sealed(1),
        first.finalized(),
        first.applied(),
        first.seen(),
        abandoned,
        log_started(1),
    ];
    let store = StoreId(1);
    let mut facts = vec![
        Fact::Leader { leader: Some(peer("server-1")), store: Some(store), term: 1, local: true },
        Fact::Leader { leader: None, store: None, term: 0, local: false },
        Fact::VoteSynced { term: 0, candidate: peer("server-1"), store },
        Fact::Appended { index: 0, term: 0 },
        Fact::Truncated { after: None },
        Fact::EntryApplied { index: 0, term: 0, digest: Digest::default() },
        Fact::SnapshotTaken { index: 0 },
        Fact::SnapshotInstalled { index: 0 },
        Fact::LogYielded { own: LogId([2; 32]), other: LogId([1; 32]), store },
        Fact::Opened { store, last_log: None, term: 0 },
        Fact::Opened { store, last_log: Some(0), term: 0 },
        Fact::Spawning { role: Role::Server, peer: peer("server-1") },
        lines_lost(),
    ];
    facts.extend(reports.iter().cloned().map(again));
    facts.extend(reports);
    facts
}

#[test]
fn nobody_is_accused_by_what_comes_first() {
    for fact in first_facts() {
        for before in [None, Some(started()), Some(Seen::Killed), Some(Seen::DiskLost)] {
            for property in every() {
                let name = property.name();
                let mut judge = Judge::new(property);
                // Nor is somebody else who says the same.
                for server in ["server-1", "server-2"] {
                    if let Some(before) = before {
                        judge.see(server, before).unwrap_or_else(|told| panic!("{name}: {told}"));
                    }
                }
                for server in ["server-1", "server-2"] {
                    judge
                        .fact(server, fact.clone())
                        .unwrap_or_else(|told| panic!("{name}, {fact:?}: {told}"));
                }
            }
        }
    }
}

/// What one server tells, in order.
fn life() -> Vec<Fact> {
    let opened_disk = |last_log, term| Fact::Opened { store: StoreId(1), last_log, term };
    vec![
        opened_disk(None, 0),
        Fact::Appended { index: 0, term: 1 },
        Fact::EntryApplied { index: 0, term: 1, digest: Digest::default() },
        log_started(1),
        opened(1, 1),
        partial(1, header_digest(1, 1), 7),
        made(1, 7, 0, 0),
        Fact::PartialApplied {
            round: Round(1),
            index: 1,
            header: header_digest(1, 1),
            aggregate: Digest([7; 32]),
            server: peer("server-2"),
        },
        record(1, Digest::default()).finalized(),
        Fact::Spawning { role: Role::Server, peer: peer("server-1") },
        opened_disk(Some(0), 1),
        opened(2, 2),
    ]
}

#[test]
fn nobody_is_accused_by_what_follows_a_first_fact() {
    // Begun anywhere.
    for begin in 0..life().len() {
        for property in every() {
            let name = property.name();
            let mut judge = Judge::new(property);
            for fact in life().into_iter().skip(begin) {
                let text = format!("{name}, {fact:?}");
                judge.fact("server-1", fact).unwrap_or_else(|told| panic!("{text}: {told}"));
            }
        }
    }
}

#[test]
fn nobody_is_accused_by_a_gap() {
    // Any stretch of a life is missing, told of as that.
    let life = life();
    for begin in 0..=life.len() {
        for end in begin..=life.len() {
            for property in every() {
                let name = property.name();
                let mut judge = Judge::new(property);
                judge.see("server-1", started()).expect("a start");
                judge.see("server-2", started()).expect("a start");
                let (before, after) = (&life[..begin], &life[end..]);
                for fact in before.iter().chain([&lines_lost()]).chain(after) {
                    judge
                        .fact("server-1", fact.clone())
                        .unwrap_or_else(|told| panic!("{name} without {begin}..{end}, {fact:?}: {told}"));
                }
            }
        }
    }
}

#[test]
fn each_has_a_name_of_its_own_and_a_sentence() {
    let names: BTreeSet<_> = every().map(|property| property.name()).collect();
    assert_eq!(names.len(), every().count());
    for property in every() {
        assert_eq!(sentence(property.name()), Some(property.sentence()));
        assert!(property.sentence().ends_with('.'));
    }
    assert_eq!(sentence("no-property"), None);
}

#[test]
fn who_has_seen_nothing_can_tell_nothing() {
    let watch = Watch::new(named());
    for property in every() {
        assert!(watch.cannot_tell(property.name()).is_some(), "{}", property.name());
    }
}

#[test]
fn what_is_named_is_judged_like_the_others() {
    for (named, judged) in [(Named::default(), false), (named(), true)] {
        let mut watch =
            Watch::new(Named { never_unblinded_below: named.never_unblinded_below.map(|_| 2), ..named });
        let found = watch.see(Time::default(), &subject("server-1"), Seen::Fact(&made(1, 7, 1, 1)));
        assert_eq!(found, Ok(()), "one of two");
        let fact = record(1, Digest::default()).finalized();
        let found = watch.see(Time::default(), &subject("server-1"), Seen::Fact(&fact));
        assert_eq!(found.err().map(|violation| violation.property), judged.then_some("never-unblinded"));
    }
}

#[test]
fn what_is_waived_is_not_judged_any_more() {
    let mut watch = Watch::default();
    let fact = made(1, 7, 1, 2);
    watch.see(Time::default(), &subject("server-1"), Seen::Fact(&fact)).expect_err("below the floor");
    watch.waive("participant-floor");
    watch.see(Time::default(), &subject("server-1"), Seen::Fact(&fact)).expect("it is not judged");
    assert!(watch.cannot_tell("participant-floor").is_some());
}
