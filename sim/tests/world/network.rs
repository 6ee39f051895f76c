use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::AsyncRuntime;
use zipnet_core::id::PeerId;
use zipnet_core::time::Time;
use zipnet_node::world::{Address, Channel, Connection, Link, LinkError, World};
use zipnet_sim::chain::{Kind, NodeIndex};
use zipnet_sim::disk::Crash;
use zipnet_sim::network::{Model, SimConnection, Ways};
use zipnet_sim::random::Quantiles;
use zipnet_sim::runtime::{SimRuntime, now};
use zipnet_sim::world::{Host, Simulation};

use crate::{address, host, run, sleep};

const A: NodeIndex = NodeIndex(0);
const B: NodeIndex = NodeIndex(1);

/// What B saw, and when.
type Seen = Arc<Mutex<Vec<(Time, Result<(Channel, Bytes), LinkError>)>>>;

/// Starts two machines; B accepts one connection and notes what it receives. Returns A's end.
async fn connect(simulation: &Simulation) -> (SimConnection, Seen, [Host; 2]) {
    let (mut a, mut b) = (host(simulation, 0), host(simulation, 1));
    let seen = Seen::default();
    let notes = Arc::clone(&seen);
    let _process = b.start(move |world| async move {
        let connection = world.link().accept().await.unwrap();
        assert_eq!(connection.dialled(), None);
        loop {
            let received = connection.receive().await;
            let over = received.is_err();
            notes.lock().unwrap().push((now(), received));
            if over {
                break;
            }
        }
        std::future::pending::<()>().await;
    });
    let slot = Arc::new(Mutex::new(None));
    let hand_out = Arc::clone(&slot);
    let _process = a.start(move |world| async move {
        let connection = world.link().dial(&address(1)).await.unwrap();
        assert_eq!(connection.dialled(), Some(address(1)));
        assert_eq!(connection.peer(), PeerId([1; 32]));
        *hand_out.lock().unwrap() = Some(connection);
        std::future::pending::<()>().await;
    });
    sleep(1_000).await;
    let connection = slot.lock().unwrap().take().expect("the dial succeeded");
    (connection, seen, [a, b])
}

fn message(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// The numbers that arrived on a channel.
fn numbers(seen: &Seen, wanted: Channel) -> Vec<u32> {
    let number = |bytes: &Bytes| u32::from_be_bytes(bytes.as_ref().try_into().unwrap());
    let seen = seen.lock().unwrap();
    seen.iter()
        .filter_map(|(_, received)| received.as_ref().ok())
        .filter(|(channel, _)| *channel == wanted)
        .map(|(_, bytes)| number(bytes))
        .collect()
}

/// How the connection ended at B, and when.
fn end(seen: &Seen) -> Option<(Time, LinkError)> {
    let seen = seen.lock().unwrap();
    seen.iter().find_map(|(at, received)| received.as_ref().err().map(|error| (*at, *error)))
}

fn lossy(loss_permille: u32) -> Model {
    Model {
        latency: Quantiles::new(Duration::from_millis(20), Duration::from_millis(150)),
        loss_permille,
        duplicate_permille: 0,
        reorder_permille: 0,
        bandwidth: None,
    }
}

#[test]
fn both_ends_know_each_other_and_a_secret_of_the_connection() {
    run(1, async |simulation| {
        let (mut a, mut b) = (host(&simulation, 0), host(&simulation, 1));
        let accepted = b.start(|world| async move {
            let (one, other) = (world.link().accept().await.unwrap(), world.link().accept().await.unwrap());
            [(one.peer(), one.exporter()), (other.peer(), other.exporter())]
        });
        let dialled = a.start(|world| async move {
            let one = world.link().dial(&address(1)).await.unwrap();
            sleep(100).await;
            let other = world.link().dial(&address(1)).await.unwrap();
            sleep(100).await;
            [one.exporter(), other.exporter()]
        });
        let [(peer, one), (_, other)] = accepted.await;
        assert_eq!(peer, PeerId([0; 32]));
        assert_eq!(dialled.await, [one, other]);
        assert_ne!(one, other);
    });
}

#[test]
fn loss_only_delays_and_each_channel_keeps_its_order() {
    for seed in 0..5 {
        run(seed, async |simulation| {
            simulation.network().set_default_model(lossy(200));
            let (connection, seen, _hosts) = connect(&simulation).await;
            for number in 0..200 {
                let channel = [Channel::Consensus, Channel::Protocol][usize::try_from(number % 2).unwrap()];
                connection.send(channel, message(number)).unwrap();
                sleep(1).await;
            }
            sleep(60_000).await;
            assert_eq!(numbers(&seen, Channel::Consensus), (0..200).step_by(2).collect::<Vec<_>>());
            assert_eq!(numbers(&seen, Channel::Protocol), (1..200).step_by(2).collect::<Vec<_>>());
            let all: Vec<Time> = seen.lock().unwrap().iter().map(|(at, _)| *at).collect();
            assert!(all.is_sorted());
            assert!(simulation.network().counts().retransmitted > 10);
            assert_eq!(simulation.network().counts().dropped, 0);
        });
    }
}

#[test]
fn datagrams_are_lost_repeated_and_reordered() {
    run(3, async |simulation| {
        let (connection, seen, _hosts) = connect(&simulation).await;
        let model = Model { duplicate_permille: 100, reorder_permille: 100, ..lossy(100) };
        simulation.network().set_model(A, B, model);
        for number in 0..1_000 {
            connection.send(Channel::Datagram, message(number)).unwrap();
            sleep(1).await;
        }
        sleep(10_000).await;
        let arrived = numbers(&seen, Channel::Datagram);
        let counts = simulation.network().counts();
        assert!((50..150).contains(&counts.dropped), "{counts:?}");
        assert!((50..150).contains(&counts.duplicated) && (50..150).contains(&counts.reordered));
        assert_eq!(u64::try_from(arrived.len()).unwrap(), 1_000 - counts.dropped + counts.duplicated);
        assert!(!arrived.is_sorted());
        let recorded = simulation.recorder().counts();
        assert_eq!(recorded[&Kind::Dropped], counts.dropped);
        assert_eq!(recorded[&Kind::Duplicated], counts.duplicated);
        assert_eq!(recorded[&Kind::Delivered], counts.delivered);
        assert_eq!(recorded[&Kind::Sent], counts.sent);
    });
}

#[test]
fn a_short_cut_holds_messages_back() {
    run(1, async |simulation| {
        let (connection, seen, _hosts) = connect(&simulation).await;
        simulation.network().cut(A, B, Ways::Both);
        for number in 0..10 {
            connection.send(Channel::Protocol, message(number)).unwrap();
            sleep(500).await;
        }
        assert!(numbers(&seen, Channel::Protocol).is_empty());
        simulation.network().mend(A, B);
        for number in 10..20 {
            connection.send(Channel::Protocol, message(number)).unwrap();
        }
        sleep(15_000).await;
        assert_eq!(numbers(&seen, Channel::Protocol), (0..20).collect::<Vec<_>>());
        assert_eq!(end(&seen), None);
        assert!(simulation.network().counts().held >= 10);
    });
}

#[test]
fn a_one_way_cut_stops_one_direction_and_breaks_the_connection_after_the_idle_timeout() {
    run(1, async |simulation| {
        let (connection, seen, _hosts) = connect(&simulation).await;
        let start = now();
        simulation.network().cut(B, A, Ways::One);
        assert!(simulation.network().is_cut(B, A) && !simulation.network().is_cut(A, B));
        connection.send(Channel::Control, message(1)).unwrap();
        sleep(9_000).await;
        assert_eq!(numbers(&seen, Channel::Control), [1]);
        connection.send(Channel::Control, message(2)).unwrap();
        assert_eq!(connection.receive().await, Err(LinkError::Closed(0)));
        let lasted = now().since(start);
        assert!(lasted >= Duration::from_secs(10) && lasted < Duration::from_millis(10_010), "{lasted:?}");
        assert_eq!(connection.send(Channel::Control, message(3)), Err(LinkError::Closed(0)));
        sleep(100).await;
        assert_eq!(end(&seen).map(|(_, error)| error), Some(LinkError::Closed(0)));
        assert_eq!(simulation.network().counts().broken, 1);
    });
}

#[test]
fn an_idle_connection_stays_open() {
    run(1, async |simulation| {
        let (connection, seen, _hosts) = connect(&simulation).await;
        sleep(3_600_000).await;
        connection.send(Channel::Control, message(1)).unwrap();
        sleep(100).await;
        assert_eq!(numbers(&seen, Channel::Control), [1]);
    });
}

#[test]
fn a_killed_peer_is_noticed_by_the_idle_timeout_only() {
    run(1, async |simulation| {
        let (connection, _seen, [_a, mut b]) = connect(&simulation).await;
        let start = now();
        b.kill(Crash::KeepAll);
        let _process = b.start(|world| async move { world.link().accept().await.unwrap() });
        connection.send(Channel::Control, message(1)).unwrap();
        assert_eq!(connection.receive().await, Err(LinkError::Closed(0)));
        assert!(now().since(start) >= Duration::from_secs(10));
        assert_eq!(simulation.network().counts().dropped, 1);
    });
}

#[test]
fn a_paused_peer_is_noticed_by_the_idle_timeout_but_gets_what_was_sent_if_it_returns_in_time() {
    run(1, async |simulation| {
        let (connection, seen, [_a, b]) = connect(&simulation).await;
        b.pause();
        connection.send(Channel::Control, message(1)).unwrap();
        sleep(9_000).await;
        assert!(numbers(&seen, Channel::Control).is_empty());
        b.resume();
        sleep(100).await;
        assert_eq!(numbers(&seen, Channel::Control), [1]);
        b.pause();
        assert_eq!(connection.receive().await, Err(LinkError::Closed(0)));
        b.resume();
        sleep(100).await;
        assert_eq!(end(&seen).map(|(_, error)| error), Some(LinkError::Closed(0)));
    });
}

#[test]
fn a_process_that_ends_closes_its_connections() {
    run(1, async |simulation| {
        let (mut a, mut b) = (host(&simulation, 0), host(&simulation, 1));
        let _process = b.start(|world| async move {
            let connection = world.link().accept().await.unwrap();
            connection.send(Channel::Bulk, message(8)).unwrap();
            // Nobody drops this handle.
            Box::leak(Box::new(connection)).peer()
        });
        let start = now();
        let process = a.start(|world| async move {
            let connection = world.link().dial(&address(1)).await.unwrap();
            [connection.receive().await, connection.receive().await]
        });
        assert_eq!(process.await, [Ok((Channel::Bulk, message(8))), Err(LinkError::Closed(0))]);
        assert!(now().since(start) < Duration::from_secs(1));
        assert!(!b.is_running());
    });
}

#[test]
fn a_close_carries_its_code_and_comes_after_what_was_sent() {
    run(1, async |simulation| {
        simulation.network().set_default_model(lossy(300));
        let (connection, seen, _hosts) = connect(&simulation).await;
        for number in 0..50 {
            connection.send(Channel::Protocol, message(number)).unwrap();
        }
        connection.close(42);
        connection.close(43);
        assert_eq!(connection.receive().await, Err(LinkError::Closed(42)));
        sleep(20_000).await;
        assert_eq!(numbers(&seen, Channel::Protocol), (0..50).collect::<Vec<_>>());
        assert_eq!(end(&seen).map(|(_, error)| error), Some(LinkError::Closed(42)));
    });
}

#[test]
fn a_dial_fails_fast_where_nobody_listens_and_slowly_where_nobody_is() {
    run(1, async |simulation| {
        let (mut a, mut b) = (host(&simulation, 0), host(&simulation, 1));
        let _process = b.start(async |_| ());
        sleep(10).await;
        let network = simulation.network().clone();
        let process = a.start(move |world| async move {
            let mut tries = Vec::new();
            for target in [address(1), Address("nowhere:1".into()), address(0)] {
                if target == address(0) {
                    network.isolate(B);
                }
                let target = if target == address(0) { address(1) } else { target };
                let start = now();
                let outcome = world.link().dial(&target).await.map(|_| ());
                tries.push((outcome, now().since(start).as_millis()));
            }
            tries
        });
        let tries = process.await;
        assert!(tries.iter().all(|(outcome, _)| *outcome == Err(LinkError::Unreachable)));
        assert!(tries[0].1 < 20 && tries[1].1 >= 5_000 && tries[2].1 >= 5_000, "{tries:?}");
    });
}

#[test]
fn partitions_part_groups_and_heal() {
    run(1, async |simulation| {
        let network = simulation.network();
        let [c, d] = [NodeIndex(2), NodeIndex(3)];
        network.partition(&[[A, B].into(), [c].into()]);
        assert!(network.is_cut(A, c) && network.is_cut(c, B));
        assert!(!network.is_cut(A, B) && !network.is_cut(A, d) && !network.is_cut(d, c));
        network.isolate(d);
        assert!(network.is_cut(A, d) && network.is_cut(d, A));
        network.heal();
        assert!(!network.is_cut(A, c) && !network.is_cut(A, d));
        assert_eq!(network.counts().partitions + network.counts().isolations + network.counts().heals, 3);
    });
}

#[test]
fn bandwidth_spaces_messages_out_and_full_queues_refuse() {
    run(1, async |simulation| {
        let (connection, seen, _hosts) = connect(&simulation).await;
        let model = Model { bandwidth: Some(1 << 20), ..Model::local() };
        simulation.network().set_model(A, B, model);
        let start = now();
        let megabyte = Bytes::from(vec![7; 1 << 20]);
        for _ in 0..64 {
            connection.send(Channel::Protocol, megabyte.clone()).unwrap();
        }
        assert_eq!(connection.send(Channel::Protocol, megabyte.clone()), Err(LinkError::Full));
        assert_eq!(
            connection.send(Channel::Protocol, vec![0; (80 << 20) + 1].into()),
            Err(LinkError::TooLarge)
        );
        assert_eq!(connection.send(Channel::Datagram, vec![0; 1_401].into()), Err(LinkError::TooLarge));
        sleep(70_000).await;
        let last = seen.lock().unwrap().last().unwrap().0;
        assert!((64_000..64_100).contains(&last.since(start).as_millis()));
        connection.send(Channel::Protocol, megabyte).unwrap();
    });
}

#[test]
fn observers_see_every_delivery() {
    run(1, async |simulation| {
        let observed = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&observed);
        simulation.network().observe(Arc::new(move |delivery| {
            notes.lock().unwrap().push((delivery.from, delivery.to, delivery.message.clone()));
        }));
        let (connection, _seen, _hosts) = connect(&simulation).await;
        connection.send(Channel::Protocol, message(5)).unwrap();
        SimRuntime::sleep(Duration::from_millis(50)).await;
        assert_eq!(*observed.lock().unwrap(), [(A, B, message(5))]);
    });
}
