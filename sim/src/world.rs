//! The world of one node, the machine it runs on, and the run as a whole.
//!
//! [`simulate`] starts a run. A [`Host`] is a machine: it has an address, an identity, a disk and a clock, and runs one
//! process at a time, which sees it as a [`SimWorld`]. Stopping, killing and restarting are orders to the host.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft_rt::AsyncRuntime;
use zipnet_core::id::PeerId;
use zipnet_core::time::Time;
use zipnet_node::event::{Event, Observer};
use zipnet_node::world::{Address, World};

use crate::chain::{Kind, NodeIndex, Recorder};
use crate::disk::{Crash, Platter, SimDisk};
use crate::network::{Network, NetworkConfig, SimLink, Tap};
use crate::random::Random;
use crate::runtime::{Local, SimRuntime, enrol, now};

/// Is told everything that nodes observe, in order: which node, when by virtual time, what.
pub type Sink = Arc<dyn Fn(NodeIndex, Time, &Event) + Send + Sync>;

/// Midnight of 2026-01-01 UTC in seconds since the Unix epoch: what right clocks show when a simulation begins.
pub const WALL_CLOCK_START: u64 = 1_767_225_600;

/// Runs a simulation to its end on this thread and returns what it returns.
///
/// A panic in any node ends the run as a panic of this function.
pub fn simulate<T, F: Future<Output = T>>(
    seed: u64,
    config: NetworkConfig,
    recorder: Recorder,
    sink: Sink,
    run: impl FnOnce(Simulation) -> F,
) -> T {
    SimRuntime::for_seed(seed).block_on(async move {
        let random = Random::new(seed);
        let network = Network::start(config, recorder.clone(), &random.fork("network"));
        run(Simulation { network, recorder, random, sink, hosts: Arc::default() }).await
    })
}

/// What belongs to a run as a whole. Clones are the same run.
#[derive(Clone)]
pub struct Simulation {
    network: Network,
    recorder: Recorder,
    random: Random,
    sink: Sink,
    /// How many machines were made.
    hosts: Arc<Mutex<u32>>,
}

impl Simulation {
    /// Makes a machine with an empty disk and a right clock, on which nothing runs.
    #[must_use]
    pub fn host(&self, name: &str, address: Address, peer: PeerId) -> Host {
        let index = {
            let mut hosts = lock(&self.hosts);
            let index = NodeIndex(*hosts);
            *hosts += 1;
            index
        };
        let random = self.random.fork(&format!("host {}", index.0));
        let platter = Platter::new(index, self.recorder.clone(), random.fork("disk"));
        let id = madsim::runtime::Handle::current().create_node().name(name).build().id();
        let local = Local {
            node: index,
            recorder: self.recorder.clone(),
            random: random.fork("runtime"),
            platter: platter.clone(),
        };
        enrol(id, local);
        let entropy = Arc::new(Mutex::new(Entropy { random: random.fork("entropy"), drawn: Vec::new() }));
        let simulation = self.clone();
        Host {
            simulation,
            index,
            name: name.to_owned(),
            address,
            peer,
            platter,
            clock: WallClock::default(),
            entropy,
            id,
            incarnation: 0,
            tap: None,
            running: None,
        }
    }

    /// The network of the run.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// What records the run.
    #[must_use]
    pub const fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The stream of this name. Use one name for one concern; `network` and `host …` are taken.
    #[must_use]
    pub fn random(&self, name: &str) -> Random {
        self.random.fork(name)
    }

    /// Virtual time since the run began.
    #[must_use]
    pub fn now(&self) -> Time {
        now()
    }

    /// Records something that the simulator did or saw.
    pub fn note(&self, text: &str) {
        self.recorder.note(now(), NodeIndex::NOBODY, Kind::Note, text);
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("random", &self.random).finish_non_exhaustive()
    }
}

/// What a machine draws its secrets from, and what was drawn: whoever simulates a burglary knows what to look for.
#[derive(Debug)]
struct Entropy {
    random: Random,
    drawn: Vec<[u8; 32]>,
}

/// A machine, and the process on it if one runs.
pub struct Host {
    simulation: Simulation,
    index: NodeIndex,
    name: String,
    address: Address,
    peer: PeerId,
    platter: Platter,
    clock: WallClock,
    entropy: Arc<Mutex<Entropy>>,
    id: madsim::task::NodeId,
    /// How many processes ran on this machine.
    incarnation: u64,
    /// Between the process of the next start and the network.
    tap: Option<Arc<dyn Tap>>,
    /// Whether the process of this incarnation lives; none if it was killed or none was started.
    running: Option<Arc<Mutex<Life>>>,
}

/// The life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    Ended,
}

impl Host {
    /// Starts a process: spawns the future that `program` makes, on this machine. Gives access to its end.
    ///
    /// # Panics
    /// If a process runs.
    pub fn start<T, F>(&mut self, program: impl FnOnce(SimWorld) -> F) -> Process<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        assert!(!self.is_running(), "{} runs already", self.name);
        let handle = madsim::runtime::Handle::current();
        if self.incarnation > 0 {
            handle.restart(self.id);
        }
        self.incarnation += 1;
        self.note(&format!("start {} {}", self.name, self.incarnation));
        let link =
            self.simulation.network.bind(self.index, self.incarnation, self.peer, self.address.clone());
        let link = link.with_tap(self.tap.clone());
        let world = SimWorld(Arc::new(Inner {
            node: self.index,
            link,
            disk: self.platter.mount(),
            clock: self.clock.clone(),
            entropy: Arc::clone(&self.entropy),
            recorder: self.simulation.recorder.clone(),
            sink: Arc::clone(&self.simulation.sink),
        }));
        let life = Arc::new(Mutex::new(Life::Running));
        let output = Arc::new(Mutex::new(Output { value: None, waker: None }));
        let future = program(world);
        let process = Process { output: Arc::clone(&output) };
        let end = End {
            life: Arc::clone(&life),
            network: self.simulation.network.clone(),
            recorder: self.simulation.recorder.clone(),
            index: self.index,
            id: self.id,
        };
        let node = handle.get_node(self.id).expect("the node was made with the host");
        drop(node.spawn(async move {
            let value = future.await;
            end.reached();
            let waker = {
                let mut output = lock(&output);
                output.value = Some(value);
                output.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }));
        self.running = Some(life);
        process
    }

    /// Ends the process without a word, as SIGKILL or a power failure does, and decides what its disk kept. Peers
    /// notice by the idle timeout. Does the same to the disk if no process runs.
    pub fn kill(&mut self, crash: Crash) {
        // Disk and network first: what the futures of the process do while they are dropped reaches nobody.
        self.platter.power_off();
        self.simulation.network.kill(self.index);
        if self.is_running() {
            self.note(&format!("kill {} {}", self.name, crash.name()));
            madsim::runtime::Handle::current().kill(self.id);
        }
        self.platter.crash(crash);
        self.running = None;
    }

    /// Stops the process without killing it (SIGSTOP): it does nothing, its peers' messages pile up, and connections
    /// break after the idle timeout.
    pub fn pause(&self) {
        if self.is_running() {
            self.note(&format!("pause {}", self.name));
            madsim::runtime::Handle::current().pause(self.id);
            self.simulation.network.pause(self.index);
        }
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        if self.is_running() {
            self.note(&format!("resume {}", self.name));
            self.simulation.network.resume(self.index);
            madsim::runtime::Handle::current().resume(self.id);
        }
    }

    /// Whether a process lives. One whose disk is frozen counts as living until it is killed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|life| *lock(life) == Life::Running)
    }

    /// Whether the power of the disk failed under the process ([`Platter::arm`]): it waits to be killed.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.platter.is_off()
    }

    /// The place of this machine in the order in which the machines of the run were made.
    #[must_use]
    pub const fn index(&self) -> NodeIndex {
        self.index
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the process listens.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Who the process proves to be.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// The process of the next start proves to be someone else.
    pub const fn set_peer(&mut self, peer: PeerId) {
        self.peer = peer;
    }

    /// What stands between the process of the next start and the network.
    pub fn set_tap(&mut self, tap: Option<Arc<dyn Tap>>) {
        self.tap = tap;
    }

    /// All secret randomness that processes on this machine have drawn.
    #[must_use]
    pub fn drawn_entropy(&self) -> Vec<[u8; 32]> {
        lock(&self.entropy).drawn.clone()
    }

    /// The disk.
    #[must_use]
    pub const fn platter(&self) -> &Platter {
        &self.platter
    }

    /// The wall clock.
    #[must_use]
    pub const fn clock(&self) -> &WallClock {
        &self.clock
    }

    /// How many processes were started.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    fn note(&self, text: &str) {
        self.simulation.recorder.note(now(), self.index, Kind::Note, text);
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("index", &self.index)
            .field("name", &self.name)
            .field("peer", &self.peer)
            .field("incarnation", &self.incarnation)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

/// What happens when a process ends by itself.
struct End {
    life: Arc<Mutex<Life>>,
    network: Network,
    recorder: Recorder,
    index: NodeIndex,
    id: madsim::task::NodeId,
}

impl End {
    /// The tasks of the process end with it, and its sockets are closed. Its unsynced writes stay in the cache.
    fn reached(&self) {
        self.recorder.note(now(), self.index, Kind::Note, "exit");
        self.network.exit(self.index, 0);
        *lock(&self.life) = Life::Ended;
        madsim::runtime::Handle::current().kill(self.id);
    }
}

/// The end of a process as a future: what it returned. Waits for ever if the process is killed.
#[derive(Debug)]
pub struct Process<T> {
    output: Arc<Mutex<Output<T>>>,
}

#[derive(Debug)]
struct Output<T> {
    value: Option<T>,
    waker: Option<core::task::Waker>,
}

impl<T> Process<T> {
    /// What the process returned, if it has ended by itself and nobody asked before.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        lock(&self.output).value.take()
    }
}

impl<T> Future for Process<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut output = lock(&self.output);
        if let Some(value) = output.value.take() {
            return Poll::Ready(value);
        }
        output.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// A clock that may lie. Clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct WallClock(Arc<Mutex<Skew>>);

/// How a clock differs from the right time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skew {
    /// Seconds that it is ahead; negative if it is behind.
    pub offset_s: i64,
    /// Microseconds that it gains in every second of virtual time since the run began.
    pub drift_ppm: i64,
}

impl WallClock {
    /// How the clock differs.
    #[must_use]
    pub fn skew(&self) -> Skew {
        *lock(&self.0)
    }

    /// Makes it differ in this way.
    pub fn set_skew(&self, skew: Skew) {
        *lock(&self.0) = skew;
    }

    /// Moves it by so many seconds at once.
    pub fn jump(&self, seconds: i64) {
        let mut skew = lock(&self.0);
        skew.offset_s = skew.offset_s.saturating_add(seconds);
    }

    /// Seconds since the Unix epoch as it shows them when this much of virtual time has passed.
    #[must_use]
    pub fn read(&self, at: Time) -> u64 {
        let Skew { offset_s, drift_ppm } = self.skew();
        let drift_ns = i128::from(at.0) * i128::from(drift_ppm) / 1_000_000;
        let seconds = (i128::from(at.0) + drift_ns).div_euclid(1_000_000_000)
            + i128::from(WALL_CLOCK_START)
            + i128::from(offset_s);
        u64::try_from(seconds.max(0)).unwrap_or(u64::MAX)
    }
}

/// The world as one process sees it.
#[derive(Clone)]
pub struct SimWorld(Arc<Inner>);

struct Inner {
    node: NodeIndex,
    link: SimLink,
    disk: SimDisk,
    clock: WallClock,
    /// Of the machine, so that no restart repeats it.
    entropy: Arc<Mutex<Entropy>>,
    recorder: Recorder,
    sink: Sink,
}

impl SimWorld {
    /// The machine.
    #[must_use]
    pub fn node(&self) -> NodeIndex {
        self.0.node
    }
}

impl World for SimWorld {
    type Runtime = SimRuntime;
    type Link = SimLink;
    type Disk = SimDisk;

    fn link(&self) -> &SimLink {
        &self.0.link
    }

    fn disk(&self) -> &SimDisk {
        &self.0.disk
    }

    fn now(&self) -> Time {
        now()
    }

    fn wall_clock(&self) -> u64 {
        self.0.clock.read(now())
    }

    fn entropy(&self) -> [u8; 32] {
        let mut entropy = lock(&self.0.entropy);
        let bytes = entropy.random.bytes();
        entropy.drawn.push(bytes);
        bytes
    }
}

impl Observer for SimWorld {
    fn observe(&self, event: Event) {
        self.0.recorder.note(now(), self.0.node, Kind::Effect, &format!("{event:?}"));
        (self.0.sink)(self.0.node, now(), &event);
    }
}

impl fmt::Debug for SimWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimWorld({})", self.0.node)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
