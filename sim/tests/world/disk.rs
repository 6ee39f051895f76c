use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use zipnet_node::world::Disk;
use zipnet_sim::chain::{Log, NodeIndex, Recorder};
use zipnet_sim::disk::{Crash, Platter, SimBackend};
use zipnet_sim::random::Random;

use crate::{host, run, sleep};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");

fn platter(seed: u64) -> Platter {
    Platter::new(NodeIndex(0), Recorder::new(Log::Off), Random::new(seed))
}

fn open(backend: SimBackend) -> Result<Database, redb::DatabaseError> {
    redb::Builder::new().create_with_backend(backend)
}

/// Writes one entry and waits for the disk. Its length and bytes follow from its key.
fn commit(database: &Database, key: u64, quick: bool) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(redb::Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(quick);
    transaction.open_table(TABLE)?.insert(key, entry(key).as_slice())?;
    transaction.commit()?;
    Ok(())
}

fn entry(key: u64) -> Vec<u8> {
    let mut bytes = vec![0; 1 + usize::try_from(key * 37 % 6_000).unwrap()];
    Random::new(key).fill(&mut bytes);
    bytes
}

/// All keys, whose values are checked.
fn keys(database: &Database) -> Result<Vec<u64>, redb::Error> {
    let read = database.begin_read()?;
    let table = match read.open_table(TABLE) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut keys = Vec::new();
    for item in table.iter()? {
        let (key, value) = item?;
        assert_eq!(value.value(), entry(key.value()));
        keys.push(key.value());
    }
    Ok(keys)
}

/// One life of a database: armed to crash at an operation, it commits until then, crashes, and is opened again, with
/// further crashes during recovery.
fn crash_at(operation: u64, crash: Crash) {
    let platter = platter(operation);
    let mut acknowledged = 0;
    for life in 0..4 {
        let disk = platter.mount();
        let armed = if life == 0 { operation } else { 1 + operation % 17 };
        if life < 3 {
            platter.arm(armed);
        }
        let Ok(backend) = disk.open("log") else { panic!("the file cannot be opened") };
        if let Ok(database) = open(backend) {
            let found = keys(&database).unwrap_or_else(|error| panic!("{operation} {crash:?}: {error}"));
            let last = u64::try_from(found.len()).unwrap();
            assert_eq!(found, (1..=last).collect::<Vec<_>>(), "{operation} {crash:?}: holes");
            // One more than acknowledged may have survived: the commit at which the power failed.
            assert!(
                (acknowledged..=acknowledged + 1).contains(&last),
                "{operation} {crash:?}: {last} instead of {acknowledged}"
            );
            acknowledged = last;
            let goal = if life == 3 { acknowledged + 3 } else { u64::MAX };
            while acknowledged < goal
                && commit(&database, acknowledged + 1, operation.is_multiple_of(2)).is_ok()
            {
                acknowledged += 1;
            }
            assert_eq!(life == 3, acknowledged == goal, "{operation} {crash:?}");
        } else {
            assert!(life < 3 && disk.is_frozen(), "{operation} {crash:?}: a healthy disk cannot be opened");
        }
        platter.crash(crash);
    }
}

#[test]
fn every_acknowledged_commit_survives_every_crash_point() {
    run(1, async |_| {
        for operation in 1..=100 {
            for crash in Crash::ALL {
                crash_at(operation, crash);
            }
        }
    });
}

#[test]
fn a_disk_that_lies_about_syncs_loses_acknowledged_commits() {
    run(1, async |_| {
        let platter = platter(1);
        let database = open(platter.mount().open("log").unwrap()).unwrap();
        commit(&database, 1, false).unwrap();
        platter.lie_about_syncs(true);
        commit(&database, 2, false).unwrap();
        platter.power_off();
        drop(database);
        platter.lie_about_syncs(false);
        platter.crash(Crash::LoseAll);
        assert_eq!(keys(&open(platter.mount().open("log").unwrap()).unwrap()).unwrap(), [1]);
    });
}

#[test]
fn what_was_written_before_a_process_was_killed_is_there_if_the_machine_went_on() {
    run(1, async |_| {
        for (crash, expected) in [(Crash::KeepAll, 5), (Crash::LoseAll, 0)] {
            let platter = platter(1);
            let disk = platter.mount();
            let backend = disk.open("file").unwrap();
            let len = backend.len().unwrap();
            backend.set_len(len + 1).unwrap();
            backend.sync_data().unwrap();
            backend.write(len, &[5]).unwrap();
            platter.power_off();
            assert!(disk.is_frozen() && backend.write(len, &[6]).is_err() && backend.sync_data().is_err());
            platter.crash(crash);
            assert!(disk.is_frozen() && disk.open("file").is_err(), "an old mount is dead");
            let backend = platter.mount().open("file").unwrap();
            let mut byte = [9];
            backend.read(len, &mut byte).unwrap();
            assert_eq!(byte, [expected]);
        }
    });
}

#[test]
fn a_file_is_open_once_and_set_aside_without_loss() {
    run(1, async |_| {
        let platter = platter(1);
        let disk = platter.mount();
        let backend = disk.open("log").unwrap();
        assert!(disk.open("log").is_err());
        drop(backend);
        drop(disk.open("log").unwrap());
        disk.set_aside(&["node", "log"]).unwrap();
        assert!(!disk.exists("log").unwrap());
        drop(disk.open("log").unwrap());
        disk.set_aside(&["node", "log"]).unwrap();
        assert_eq!(platter.names(), ["aside-0/log", "aside-1/log"]);
    });
}

#[test]
fn a_disk_survives_restarts_of_its_host() {
    run(1, async |simulation| {
        let mut host = host(&simulation, 0);
        for round in 0..5 {
            let _process = host.start(move |world| async move {
                use zipnet_node::world::World;
                let database = open(world.disk().open("log").unwrap()).unwrap();
                assert_eq!(keys(&database).unwrap().len(), round);
                commit(&database, u64::try_from(round).unwrap() + 1, false).unwrap();
                sleep(1_000_000).await;
            });
            sleep(10).await;
            host.kill(Crash::ALL[round % 4]);
        }
        assert_eq!(host.platter().counts().crashes, 5);
    });
}
