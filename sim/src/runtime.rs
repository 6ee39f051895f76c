//! openraft's runtime on madsim: its tasks and its virtual time, and nothing else of it.

use core::cell::RefCell;
use core::fmt;
use core::future::{Future, pending};
use core::ops::{Add, AddAssign, Sub, SubAssign};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::BTreeMap;
use std::io;

use madsim::runtime::Runtime;
use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot};
use zipnet_core::time::Time;

use crate::chain::{Kind, NodeIndex, Recorder};
use crate::disk::Platter;
use crate::random::Random;
use crate::watch::SimWatch;

/// The runtime of a simulated node.
///
/// The functions of [`AsyncRuntime`] have no receiver: which node they act for follows from the task that calls them.
/// [`enrol`] tells what belongs to a node.
pub struct SimRuntime {
    runtime: Runtime,
}

impl SimRuntime {
    /// An empty simulation. One thread can run one after the other, not two at once; two in one process share
    /// counters of madsim, so whoever compares chains starts a process for each.
    #[must_use]
    pub fn for_seed(seed: u64) -> Self {
        LOCALS.take();
        let scheduler = Random::new(seed).fork("scheduler").bits();
        Self { runtime: Runtime::with_seed_and_config(scheduler, madsim::Config::default()) }
    }
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimRuntime")
    }
}

/// What the tasks of one node find around them.
#[derive(Debug)]
pub struct Local {
    /// The node.
    pub node: NodeIndex,
    /// Where its timers are recorded.
    pub recorder: Recorder,
    /// What openraft draws from, and how long blocking work takes.
    pub random: Random,
    /// Where its blocking work happens.
    pub platter: Platter,
}

thread_local! {
    /// By madsim's id of the node. A simulation is one thread.
    static LOCALS: RefCell<BTreeMap<madsim::task::NodeId, Local>> = const { RefCell::new(BTreeMap::new()) };
}

/// Says what belongs to a node of madsim. Stays over its restarts.
pub fn enrol(id: madsim::task::NodeId, local: Local) {
    LOCALS.with_borrow_mut(|locals| locals.insert(id, local));
}

/// What belongs to the node whose task is running; nothing for the simulator's own tasks.
fn with_local<T>(act: impl FnOnce(&mut Local) -> T) -> Option<T> {
    let id = madsim::plugin::node();
    LOCALS.with_borrow_mut(|locals| locals.get_mut(&id).map(act))
}

/// Virtual time since the simulation began.
///
/// # Panics
/// Outside a simulation.
#[must_use]
pub fn now() -> Time {
    Time(nanos(madsim::time::TimeHandle::current().elapsed()))
}

/// Whether a simulation is under way in this thread.
pub(crate) fn is_running() -> bool {
    madsim::runtime::Handle::try_current().is_ok()
}

impl AsyncRuntime for SimRuntime {
    type JoinError = madsim::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = madsim::task::JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = SimInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = Random;
    type Mpsc = TokioMpsc;
    type Watch = SimWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        madsim::task::spawn(future)
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep::after(duration)
    }

    fn sleep_until(deadline: SimInstant) -> Sleep {
        Sleep::after(deadline - <SimInstant as openraft_rt::Instant>::now())
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep(duration) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: SimInstant, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep_until(deadline) }
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> Random {
        // A generator is handed out by value: give a child that the next caller does not get as well.
        with_local(|local| Random::new(local.random.bits())).unwrap_or_else(|| Random::new(0))
    }

    fn new(_threads: usize) -> Self {
        Self::for_seed(0)
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.runtime.block_on(future)
    }

    /// Runs the function inline, after the time that the disk takes. If the power failed meanwhile, the caller is
    /// gone: it never resumes, and so cannot tell anybody about a write that did not happen.
    async fn spawn_blocking<F, T>(function: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let delay = with_local(|local| local.platter.delay(&mut local.random));
        Self::sleep(delay.unwrap_or_default()).await;
        let disk = with_local(|local| local.platter.clone());
        if disk.as_ref().is_some_and(Platter::is_off) {
            pending::<()>().await;
        }
        let result = function();
        if disk.as_ref().is_some_and(Platter::is_off) {
            pending::<()>().await;
        }
        Ok(result)
    }
}

/// Waits in virtual time, at least one millisecond as tokio does.
///
/// madsim's future of this name adds a timer at every poll and removes none; this one adds one for each task that it
/// is polled from.
#[derive(Debug)]
pub struct Sleep {
    inner: madsim::time::Sleep,
    registered: Option<Waker>,
    done: bool,
}

impl Sleep {
    fn after(duration: Duration) -> Self {
        let now = madsim::time::TimeHandle::current();
        // Whoever waits for longer than a run can last waits for ever, without an overflow.
        let inner = now.sleep(duration.min(Duration::from_secs(1 << 32)));
        Self { inner, registered: None, done: false }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.inner.is_elapsed() {
            if !self.done {
                self.done = true;
                let _: Option<()> = with_local(|local| {
                    local.recorder.record(now(), local.node, Kind::Timer, &[], String::new);
                });
            }
            return Poll::Ready(());
        }
        if self.registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            return Poll::Pending;
        }
        self.registered = Some(context.waker().clone());
        Pin::new(&mut self.inner).poll(context)
    }
}

/// A future with a deadline; the future is polled first.
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F> fmt::Debug for Timeout<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout").field("sleep", &self.sleep).finish_non_exhaustive()
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(Elapsed))
    }
}

/// The deadline of a [`Timeout`] passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wait: the deadline passed")
    }
}

impl core::error::Error for Elapsed {}

/// A moment of virtual time.
///
/// The simulation begins a year after the first moment that can be expressed, so that "an hour ago" exists from the
/// beginning. Arithmetic saturates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SimInstant(u64);

const YEAR: u64 = 365 * 86_400 * 1_000_000_000;

impl openraft_rt::Instant for SimInstant {
    fn now() -> Self {
        Self(now().0.saturating_add(YEAR))
    }
}

impl Add<Duration> for SimInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for SimInstant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for SimInstant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl Sub for SimInstant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl SubAssign<Duration> for SimInstant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
