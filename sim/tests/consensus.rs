//! Consensus on the simulated runtime and disk: openraft's own suite, and crashes at every operation.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft_rt::AsyncRuntime;
use zipnet_core::checks::{Check, Checks, Strict};
use zipnet_core::id::{PeerId, RaftId, StoreId};
use zipnet_node::consensus::types::{Entry, LogId, Payload, Vote};
use zipnet_node::consensus::{
    Command, CorruptSnapshot, LogStore, Machine, MachineStore, Members, NodeId, OnEvent, Source, Types,
};
use zipnet_node::world::Address;
use zipnet_sim::chain::{Log, Recorder};
use zipnet_sim::disk::Crash;
use zipnet_sim::network::NetworkConfig;
use zipnet_sim::runtime::SimRuntime;
use zipnet_sim::world::{Host, SimWorld, Simulation, simulate};

type C = Types<SimRuntime>;

fn run<T, F: Future<Output = T>>(seed: u64, body: impl FnOnce(Simulation) -> F) -> T {
    simulate(seed, NetworkConfig::default(), Recorder::new(Log::Off), Arc::new(|_, _, _| {}), body)
}

fn host(simulation: &Simulation) -> Host {
    simulation.host("server-1", Address("server-1:7000".into()), PeerId([1; 32]))
}

fn id() -> RaftId {
    RaftId { peer: PeerId([1; 32]), store: StoreId(1) }
}

fn deaf() -> OnEvent {
    Arc::new(|_| ())
}

#[test]
fn openraft_accepts_the_storage() {
    run(1, async |simulation| {
        Suite::<C, _, _, _, _>::test_all(Builder(simulation)).await.unwrap();
    });
}

/// A machine of its own for every test of the suite.
struct Builder(Simulation);

impl StoreBuilder<C, LogStore<SimWorld>, MachineStore<SimWorld, Silent>> for Builder {
    async fn build(
        &self,
    ) -> Result<((), LogStore<SimWorld>, MachineStore<SimWorld, Silent>), openraft::StorageError<C>> {
        // The world outlives its process until the machine is switched off, which happens to none of these.
        let world = host(&self.0).start(async |world| world).await;
        let log = LogStore::open(&world, &Strict, id(), deaf()).await.unwrap();
        let machine = Arc::new(Mutex::new(Silent));
        let machine = MachineStore::open(&world, id(), machine, deaf()).await.unwrap();
        Ok(((), log, machine))
    }
}

struct Silent;

impl Machine for Silent {
    fn apply(&mut self, _: u64, _: u64, _: &[u8]) {}

    fn members(&mut self, _: u64, _: &Members) {}

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _: &[u8], _: Source) -> Result<(), CorruptSnapshot> {
        Ok(())
    }

    fn examine(&self, _: &[u8]) -> Result<(), CorruptSnapshot> {
        Ok(())
    }

    fn followed(&self) -> Option<u64> {
        None
    }

    fn follow(&mut self, _: Option<u64>) {}
}

/// What a process was told to be durable: the vote's term and the last entry.
type Acknowledged = Arc<Mutex<(u64, u64)>>;

/// Votes and appends until the power fails.
async fn write<C: Checks>(world: SimWorld, checks: C, acknowledged: Acknowledged) {
    let mut log = LogStore::open(&world, &checks, id(), deaf()).await.unwrap();
    let (mut term, mut index) = check(&mut log, &acknowledged).await;
    loop {
        term += 1;
        log.save_vote(&Vote::new(term, NodeId(id()))).await.unwrap();
        acknowledged.lock().unwrap().0 = term;
        for _ in 0..3 {
            log.blocking_append([entry(index + 1), entry(index + 2)]).await.unwrap();
            index += 2;
            acknowledged.lock().unwrap().1 = index;
        }
    }
}

/// What the log holds, which is everything acknowledged.
async fn check(log: &mut LogStore<SimWorld>, acknowledged: &Acknowledged) -> (u64, u64) {
    let term = log.read_vote().await.unwrap().map_or(0, |vote| vote.leader_id.term);
    let entries = log.try_get_log_entries(..).await.unwrap();
    let last = u64::try_from(entries.len()).unwrap();
    assert!(entries.into_iter().eq((1..=last).map(entry)), "holes or other entries");
    let (term_known, last_known) = *acknowledged.lock().unwrap();
    assert!(term >= term_known && last >= last_known, "lost: {term} {last}, acknowledged {acknowledged:?}");
    (term, last)
}

fn entry(index: u64) -> Entry {
    let command = vec![7; usize::try_from(index * 61 % 3_000).unwrap()];
    Entry::new(LogId::new_term_index(1, index), Payload::Normal(Command(command.into())))
}

/// Whether everything acknowledged survives a power failure at this operation.
fn survives<C: Checks>(checks: C, operation: u64, crash: Crash) -> bool {
    run(operation, async |simulation| {
        let mut host = host(&simulation);
        let acknowledged = Acknowledged::default();
        host.platter().arm(operation);
        let (kept, its_checks) = (Arc::clone(&acknowledged), checks.clone());
        let _process = host.start(|world| write(world, its_checks, kept));
        while !host.is_frozen() {
            SimRuntime::sleep(Duration::from_millis(5)).await;
        }
        host.kill(crash);
        let process = host.start(|world| async move {
            let mut log = LogStore::open(&world, &Strict, id(), deaf()).await.unwrap();
            let nothing = Acknowledged::default();
            check(&mut log, &nothing).await
        });
        let (term, last) = process.await;
        let (term_known, last_known) = *acknowledged.lock().unwrap();
        term >= term_known && last >= last_known
    })
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_every_operation() {
    for operation in 1..=120 {
        for crash in Crash::ALL {
            assert!(survives(Strict, operation, crash), "operation {operation}, {crash:?}");
        }
    }
}

/// Every check but one.
#[derive(Clone, Debug)]
struct Without(Check);

impl Checks for Without {
    fn enforce(&self, check: Check) -> bool {
        check != self.0
    }
}

#[test]
fn a_build_that_does_not_sync_is_found() {
    for check in [Check::VoteSynced, Check::AppendSynced] {
        let lost = (1..=120).any(|operation| !survives(Without(check), operation, Crash::LoseAll));
        assert!(lost, "{check:?}");
    }
}
