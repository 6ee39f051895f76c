use std::sync::{Arc, Mutex};

use openraft_rt::watch::{Watch, WatchReceiver, WatchSender};
use openraft_rt::{AsyncRuntime, Instant};
use zipnet_sim::runtime::{SimInstant, SimRuntime, now};
use zipnet_sim::watch::SimWatch;

use crate::{host, run, sleep};

#[test]
fn the_runtime_passes_the_suite_of_openraft() {
    openraft_rt::testing::Suite::<SimRuntime>::test_all();
}

/// Counts wakes in a common list.
struct Note(u32, Arc<Mutex<Vec<u32>>>);

impl std::task::Wake for Note {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[test]
fn a_watch_wakes_in_the_order_of_subscription() {
    let (sender, first) = SimWatch::channel(0);
    let second = sender.subscribe();
    let third = first.clone();
    let woken = Arc::new(Mutex::new(Vec::new()));
    let mut receivers = [third, second, first];
    let mut waiting: Vec<_> = receivers.iter_mut().map(|receiver| Box::pin(receiver.changed())).collect();
    for (number, future) in [3, 2, 1].into_iter().zip(&mut waiting) {
        let waker = Arc::new(Note(number, Arc::clone(&woken))).into();
        let mut context = std::task::Context::from_waker(&waker);
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    sender.send(1).unwrap();
    assert_eq!(*woken.lock().unwrap(), [1, 2, 3]);
}

#[test]
fn time_passes_only_by_waiting() {
    run(1, async |_| {
        let before = SimInstant::now();
        let start = now();
        sleep(3_600_000).await;
        let passed = now().since(start);
        assert!(passed.as_millis() >= 3_600_000 && passed.as_millis() < 3_600_002, "{passed:?}");
        assert_eq!(SimInstant::now() - before, passed);
    });
}

#[test]
fn blocking_work_on_a_frozen_disk_never_answers() {
    run(1, async |simulation| {
        let mut host = host(&simulation, 0);
        let platter = host.platter().clone();
        let process = host.start(move |_| async move {
            SimRuntime::spawn_blocking(|| ()).await.unwrap();
            SimRuntime::spawn_blocking(move || platter.power_off()).await.unwrap();
        });
        sleep(1_000).await;
        assert!(process.take().is_none() && host.is_running() && host.is_frozen());
        host.kill(zipnet_sim::disk::Crash::LoseAll);
        let process = host.start(|_| SimRuntime::spawn_blocking(|| 7));
        assert_eq!(process.await.unwrap(), 7);
        assert!(!host.is_running());
    });
}
