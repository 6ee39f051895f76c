use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::AsyncRuntime;
use zipnet_core::time::Time;
use zipnet_node::world::{Channel, Connection, Disk, Link, World};
use zipnet_sim::chain::{BLOCK, Kind, Log, NodeIndex, Recorder, Tamper, first_difference};
use zipnet_sim::disk::Crash;
use zipnet_sim::network::{Model, NetworkConfig, Ways};
use zipnet_sim::random::Quantiles;
use zipnet_sim::runtime::SimRuntime;
use zipnet_sim::world::{SimWorld, simulate};

use crate::{address, host, sleep};

/// Dials its neighbour, talks on every kind of channel, commits what it hears, and answers who dials it.
async fn node(world: SimWorld, n: u8) {
    let backend = world.disk().open("heard").unwrap();
    let database = Arc::new(redb::Builder::new().create_with_backend(backend).unwrap());
    let accepting = world.clone();
    drop(SimRuntime::spawn(async move {
        while let Ok(connection) = accepting.link().accept().await {
            let database = Arc::clone(&database);
            drop(SimRuntime::spawn(async move {
                while let Ok((_, message)) = connection.receive().await {
                    let database = Arc::clone(&database);
                    let heard = message.clone();
                    let commit = move || {
                        let table = redb::TableDefinition::<u64, &[u8]>::new("heard");
                        let transaction = database.begin_write()?;
                        transaction.open_table(table)?.insert(0, heard.as_ref())?;
                        transaction.commit()?;
                        Ok::<_, redb::Error>(())
                    };
                    if SimRuntime::spawn_blocking(commit).await.unwrap().is_err() {
                        return;
                    }
                    if connection.send(Channel::Control, message).is_err() {
                        return;
                    }
                }
            }));
        }
    }));
    loop {
        if let Ok(connection) = world.link().dial(&address((n + 1) % 3)).await {
            for channel in [Channel::Consensus, Channel::Datagram, Channel::Protocol].into_iter().cycle() {
                let message = Bytes::copy_from_slice(&world.entropy());
                if connection.send(channel, message).is_err() {
                    break;
                }
                let wait = SimRuntime::timeout(Duration::from_millis(40), connection.receive()).await;
                if matches!(wait, Ok(Err(_))) {
                    break;
                }
            }
        }
        sleep(100).await;
    }
}

/// Three nodes for some seconds, with faults.
fn program(seed: u64, recorder: &Recorder) {
    let model = Model {
        latency: Quantiles::new(Duration::from_millis(3), Duration::from_millis(30)),
        loss_permille: 20,
        duplicate_permille: 20,
        reorder_permille: 20,
        bandwidth: Some(1 << 20),
    };
    let config = NetworkConfig { model, idle_timeout: Duration::from_secs(1), ..NetworkConfig::default() };
    simulate(seed, config, recorder.clone(), Arc::new(|_, _, _| {}), async |simulation| {
        let mut hosts = [0, 1, 2].map(|n| host(&simulation, n));
        for (host, n) in hosts.iter_mut().zip(0..) {
            drop(host.start(move |world| node(world, n)));
        }
        let mut random = simulation.random("faults");
        for _ in 0..6 {
            sleep(500).await;
            let n = u8::try_from(random.below(3)).unwrap();
            let chosen = &mut hosts[usize::from(n)];
            let other = NodeIndex(u32::from((n + 1) % 3));
            match random.below(3) {
                0 => {
                    chosen.kill(*random.pick(&Crash::ALL).unwrap());
                    sleep(100).await;
                    drop(chosen.start(move |world| node(world, n)));
                }
                1 => simulation.network().cut(chosen.index(), other, Ways::One),
                _ => simulation.network().heal(),
            }
        }
    });
}

/// The chain of a program in a process of its own, of which the tests below named `child_*` are the programs.
fn chain_of(child: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("chain::{child}"), "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let found = text.lines().find_map(|line| line.split_once("chain=")).map(|(_, chain)| chain.to_owned());
    found.unwrap_or_else(|| panic!("{child}: {text} {}", String::from_utf8_lossy(&output.stderr)))
}

fn print(recorder: &Recorder) {
    let counts = recorder.counts();
    assert!(recorder.events() > 2 * BLOCK, "{counts:?}");
    for kind in [Kind::Sent, Kind::Delivered, Kind::Dropped, Kind::Timer, Kind::DiskWrite, Kind::DiskSync] {
        assert!(counts.contains_key(&kind), "no {kind:?}");
    }
    let hex: String = recorder.chain().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("\nchain={} {hex}", recorder.events());
}

/// A program that [`chain_of`] starts.
macro_rules! child {
    ($name:ident, $seed:expr, $tamper:expr) => {
        #[test]
        #[ignore = "started by the tests below, in a process of its own"]
        fn $name() {
            let tamper: Option<Tamper> = $tamper;
            let recorder = match tamper {
                Some(tamper) => Recorder::with_tamper(Log::Off, tamper),
                None => Recorder::new(Log::Off),
            };
            program($seed, &recorder);
            print(&recorder);
        }
    };
}

child!(child_seed_1, 1, None);
child!(child_seed_2, 2, None);
child!(child_flip_byte, 1, Some(Tamper::FlipByte { delivery: 100 }));
child!(child_swap_deliveries, 1, Some(Tamper::SwapDeliveries { delivery: 100 }));
child!(child_extra_sync, 1, Some(Tamper::ExtraSync { sync: 50 }));

#[test]
fn equal_seeds_have_equal_chains_and_others_have_others() {
    let first = chain_of("child_seed_1");
    assert_eq!(chain_of("child_seed_1"), first);
    assert_ne!(chain_of("child_seed_2"), first);
}

#[test]
fn one_flipped_byte_two_swapped_deliveries_or_one_more_sync_change_the_chain() {
    let right = chain_of("child_seed_1");
    for child in ["child_flip_byte", "child_swap_deliveries", "child_extra_sync"] {
        assert_ne!(chain_of(child), right, "{child}");
    }
}

#[test]
fn the_first_difference_is_found_and_shown() {
    let plain = |log| Recorder::new(log);
    let tampered = |log| Recorder::with_tamper(log, Tamper::FlipByte { delivery: 300 });
    let in_thread = |recorder: Recorder| {
        // A fresh thread is as good as a process for code without counters of its own.
        std::thread::scope(|scope| {
            scope.spawn(|| program(3, &recorder));
        });
        recorder
    };
    let (one, other) = (in_thread(plain(Log::Off)), in_thread(tampered(Log::Off)));
    let window = first_difference(&one.checkpoints(), &other.checkpoints()).expect("they differ");
    assert!(window.end - window.start <= BLOCK);
    let (one, other) =
        (in_thread(plain(Log::Window(window.clone()))), in_thread(tampered(Log::Window(window))));
    let (one, other) = (one.lines(), other.lines());
    let (left, right) = one.iter().zip(&other).find(|(left, right)| left != right).expect("they differ");
    assert!(left.contains(" delivered ") && right.contains(" delivered "), "{left}\n{right}");
    let body = |line: &str| line.rsplit_once(" #").map(|(about, _)| about.to_owned());
    assert_eq!(body(left), body(right), "only the bytes differ");
}

/// A run of so many notes, one in a nanosecond.
fn notes(count: u32, log: Log) -> Recorder {
    let recorder = Recorder::new(log);
    for number in 0..count {
        recorder.record(Time(u64::from(number)), NodeIndex(1), Kind::Note, &[&number.to_le_bytes()], || {
            format!("number {number}\nof many")
        });
    }
    recorder
}

#[test]
fn the_chain_is_the_documented_hash() {
    let recorder = notes(3_000, Log::Off);
    let mut chain = [0; 32];
    for block in (0..3_000_u32).collect::<Vec<_>>().chunks(1_024) {
        let mut bytes = chain.to_vec();
        for number in block {
            bytes.extend(u64::from(*number).to_le_bytes());
            bytes.extend(1_u32.to_le_bytes());
            bytes.push(12);
            bytes.extend(4_u64.to_le_bytes());
            bytes.extend(number.to_le_bytes());
        }
        chain = *blake3::hash(&bytes).as_bytes();
    }
    assert_eq!(recorder.chain(), chain);
    let events: Vec<u64> = recorder.checkpoints().iter().map(|checkpoint| checkpoint.events).collect();
    assert_eq!(events, [1_024, 2_048, 3_000]);
    assert_eq!(recorder.counts()[&Kind::Note], 3_000);
}

#[test]
fn where_records_end_is_part_of_the_chain() {
    let chain = |bodies: &[&[u8]]| {
        let recorder = Recorder::new(Log::Off);
        for body in bodies {
            recorder.record(Time(0), NodeIndex(0), Kind::Note, &[body], String::new);
        }
        recorder.chain()
    };
    assert_ne!(chain(&[b"ab", b"c"]), chain(&[b"a", b"bc"]));
    assert_ne!(chain(&[b""]), chain(&[]));
}

#[test]
fn a_log_has_one_line_per_event_and_does_not_change_the_chain() {
    let plain = notes(2_000, Log::Off);
    let window = notes(2_000, Log::Window(10..12));
    let last = notes(2_000, Log::Last(1));
    assert_eq!(window.chain(), plain.chain());
    let digest = |number: u32| blake3::hash(&number.to_le_bytes()).to_hex()[..8].to_owned();
    let line = |number: u32| format!("{number} {number} n1 note number {number} of many #{}", digest(number));
    assert_eq!(window.lines(), [line(10), line(11)]);
    assert_eq!(last.lines().len(), 1);
    assert!(last.lines()[0].starts_with("1999 1999 n1 note "));
    assert_eq!(first_difference(&plain.checkpoints(), &window.checkpoints()), None);
    assert_eq!(
        first_difference(&plain.checkpoints(), &notes(1_999, Log::Off).checkpoints()),
        Some(1_024..2_000)
    );
    assert_eq!(
        first_difference(&plain.checkpoints(), &notes(1_024, Log::Off).checkpoints()),
        Some(1_024..2_000)
    );
}
