//! The same machine over time, judged with what it would have fetched.

use zipnet_tdx::collateral::{Collateral, Standing};
use zipnet_tdx::date::{DAY, Date};
use zipnet_tdx::refused::Reason;
use zipnet_tdx_mock::platform::FMSPC;
use zipnet_tdx_mock::timeline::{Recovery, Timeline, Update};
use zipnet_tdx_mock::vendor::Level;

use crate::scene::{SINCE, Scene};

const fn day(number: u64) -> Date {
    SINCE.after(number * DAY)
}

/// A recovery that is published on day 100 and asked of everybody on day 300.
fn recovery() -> Timeline {
    let mut level = Level::default_at(day(90));
    level.sgx[1] = 6;
    Timeline {
        recoveries: vec![Recovery {
            early: day(100),
            standard: day(300),
            level,
            advisory: "INTEL-SA-09999".to_owned(),
        }],
        ..Timeline::quiet(FMSPC, SINCE)
    }
}

/// What becomes of the machine on a day, with collateral of an earlier one.
fn verdict(timeline: &Timeline, update: Update, fetched: Date, now: Date) -> Result<(), Reason> {
    let mut scene = Scene::new();
    scene.bulletin = timeline.fetch(fetched, update);
    scene.now = now;
    scene.judge().map(drop).map_err(|refused| refused.reason())
}

#[test]
fn the_early_collateral_tells_what_the_standard_one_will_refuse() {
    let timeline = recovery();
    for (number, standard, early) in [
        (99, Ok(()), Ok(())),
        (100, Ok(()), Err(Reason::TcbStatus)),
        (299, Ok(()), Err(Reason::TcbStatus)),
        (300, Err(Reason::TcbStatus), Err(Reason::TcbStatus)),
    ] {
        let now = day(number);
        assert_eq!(verdict(&timeline, Update::Standard, now, now), standard, "day {number}");
        assert_eq!(verdict(&timeline, Update::Early, now, now), early, "day {number}");
    }
    // Collateral from before the day hides it, but not from a manifest that asks for the number.
    let mut scene = Scene::new();
    scene.bulletin = timeline.fetch(day(299), Update::Standard);
    scene.now = day(301);
    assert!(scene.judge().is_ok());
    scene.manifest.evaluation_number_min = 21;
    assert_eq!(scene.judge().unwrap_err().reason(), Reason::EvaluationNumber);
}

#[test]
fn who_stops_fetching_is_warned_a_week_before_the_first_refusal() {
    let timeline = Timeline::quiet(FMSPC, SINCE);
    let collateral = |day| {
        let scene = Scene::new();
        Collateral::from_json(&scene.vendor.collateral(&timeline.fetch(day, Update::Standard))).unwrap()
    };
    let last = collateral(day(10));
    let first = |condition: &dyn Fn(Date) -> bool| (10..100).find(|number| condition(day(*number))).unwrap();
    let warned = first(&|now| last.standing(now) != Standing::Ok);
    let refused = first(&|now| verdict(&timeline, Update::Standard, day(10), now).is_err());
    assert_eq!((warned, refused), (26, 40));
    assert!(warned + 7 <= refused);
    // Who fetches every day is never warned.
    assert!((10..300).all(|number| collateral(day(number)).standing(day(number)) == Standing::Ok));
}

#[test]
fn a_list_that_comes_late_refuses_nobody_before_the_old_one_is_over() {
    let mut timeline = Timeline::quiet(FMSPC, SINCE);
    // The second one comes a week after the first one is over.
    timeline.pck_lists = vec![(day(0), day(30)), (day(37), day(67))];
    for (number, expected) in [
        (8, Ok(())),
        (29, Ok(())),
        (30, Err(Reason::CollateralExpired)),
        (36, Err(Reason::CollateralExpired)),
        (37, Ok(())),
    ] {
        let now = day(number);
        assert_eq!(verdict(&timeline, Update::Standard, now, now), expected, "day {number}");
    }
    let scene = Scene::new();
    let on = |number| {
        let bulletin = timeline.fetch(day(number), Update::Standard);
        Collateral::from_json(&scene.vendor.collateral(&bulletin)).unwrap().standing(day(number))
    };
    assert_eq!(
        (on(15), on(16), on(29), on(30), on(37)),
        (Standing::Ok, Standing::Soon, Standing::Soon, Standing::Expired, Standing::Ok)
    );
}

#[test]
fn a_machine_is_refused_from_the_list_on_that_names_it() {
    let mut timeline = Timeline::quiet(FMSPC, SINCE);
    timeline.revoked = vec![(day(50), Scene::new().machine().serial())];
    for (fetched, now, expected) in [
        (49, 49, Ok(())),
        (49, 60, Ok(())),
        (50, 50, Err(Reason::CertificateRevoked)),
        (60, 60, Err(Reason::CertificateRevoked)),
    ] {
        assert_eq!(
            verdict(&timeline, Update::Standard, day(fetched), day(now)),
            expected,
            "{fetched}, {now}"
        );
    }
}
