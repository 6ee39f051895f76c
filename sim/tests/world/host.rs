use std::collections::BTreeSet;

use zipnet_core::time::Time;
use zipnet_node::world::World;
use zipnet_sim::disk::Crash;
use zipnet_sim::world::{Skew, WALL_CLOCK_START, WallClock};

use crate::{host, run, sleep};

#[test]
fn entropy_never_repeats_over_restarts() {
    run(5, async |simulation| {
        let mut seen = BTreeSet::new();
        let mut hosts = [host(&simulation, 0), host(&simulation, 1)];
        for _ in 0..4 {
            for host in &mut hosts {
                for entropy in host.start(async |world| [world.entropy(), world.entropy()]).await {
                    assert!(seen.insert(entropy));
                }
            }
        }
    });
}

#[test]
fn a_killed_process_does_nothing_more_and_its_tasks_are_dropped() {
    struct Last(std::sync::Arc<std::sync::atomic::AtomicU32>);
    impl Drop for Last {
        fn drop(&mut self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
    run(1, async |simulation| {
        let mut host = host(&simulation, 0);
        let dropped = std::sync::Arc::default();
        let last = Last(std::sync::Arc::clone(&dropped));
        let _process = host.start(move |_| async move {
            drop(<zipnet_sim::runtime::SimRuntime as openraft_rt::AsyncRuntime>::spawn(async move {
                let _last = last;
                sleep(10_000).await;
                panic!("the process lives");
            }));
            sleep(20_000).await;
        });
        sleep(5_000).await;
        host.kill(Crash::Torn);
        sleep(20_000).await;
        assert_eq!(dropped.load(std::sync::atomic::Ordering::SeqCst), 1);
    });
}

#[test]
fn a_paused_process_goes_on_where_it_was() {
    run(1, async |simulation| {
        let mut host = host(&simulation, 0);
        let process = host.start(async |_| sleep(1_000).await);
        sleep(500).await;
        host.pause();
        sleep(5_000).await;
        assert!(host.is_running());
        host.resume();
        sleep(2).await;
        assert!(process.take().is_some());
    });
}

#[test]
fn clocks_lie_as_told() {
    let clock = WallClock::default();
    let hour = Time(3_600 * 1_000_000_000);
    assert_eq!(clock.read(hour), WALL_CLOCK_START + 3_600);
    clock.set_skew(Skew { offset_s: -10, drift_ppm: 1_000_000 });
    assert_eq!(clock.read(hour), WALL_CLOCK_START + 7_200 - 10);
    clock.jump(20);
    assert_eq!(clock.read(hour), WALL_CLOCK_START + 7_200 + 10);
    clock.set_skew(Skew { offset_s: i64::MIN, drift_ppm: 0 });
    assert_eq!(clock.read(hour), 0);
}
