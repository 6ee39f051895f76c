//! A watch channel that wakes its waiters in the order in which they subscribed.
//!
//! tokio's spreads its waiters over several lists and picks among them with a random number generator of its own, so
//! that two runs of one seed would differ.

use core::future::poll_fn;
use core::task::{Poll, Waker};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use openraft_rt::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use openraft_rt::{OptionalSend, OptionalSync};

/// The watch channel of [`crate::runtime::SimRuntime`].
#[derive(Clone, Copy, Debug)]
pub struct SimWatch;

impl Watch for SimWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let channel = Arc::new(Channel { value: RwLock::new(init), state: Mutex::default() });
        channel.state().senders = 1;
        let receiver = Receiver::subscribe(&channel, 0);
        (Sender { channel }, receiver)
    }
}

/// The sending half.
#[derive(Debug)]
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

impl<T: OptionalSend + OptionalSync> WatchSender<SimWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.channel.state().receivers == 0 {
            return Err(SendError(value));
        }
        *self.channel.write() = value;
        self.channel.changed();
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = modify(&mut self.channel.write());
        if modified {
            self.channel.changed();
        }
        modified
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.channel.read()
    }

    fn subscribe(&self) -> Receiver<T> {
        let version = self.channel.state().version;
        Receiver::subscribe(&self.channel, version)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.channel.state().senders += 1;
        Self { channel: Arc::clone(&self.channel) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let wakers = {
            let mut state = self.channel.state();
            state.senders -= 1;
            if state.senders > 0 {
                return;
            }
            core::mem::take(&mut state.waiting)
        };
        wakers.into_values().for_each(Waker::wake);
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<T> {
    channel: Arc<Channel<T>>,
    /// The place in the order of waking.
    id: u64,
    /// The version that this receiver has seen.
    seen: u64,
}

impl<T> Receiver<T> {
    fn subscribe(channel: &Arc<Channel<T>>, seen: u64) -> Self {
        let mut state = channel.state();
        state.receivers += 1;
        state.subscriptions += 1;
        let id = state.subscriptions;
        drop(state);
        Self { channel: Arc::clone(channel), id, seen }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<SimWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        poll_fn(|context| {
            let mut state = self.channel.state();
            if state.version != self.seen {
                self.seen = state.version;
                return Poll::Ready(Ok(()));
            }
            if state.senders == 0 {
                return Poll::Ready(Err(RecvError(())));
            }
            state.waiting.insert(self.id, context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.channel.read()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        self.seen = self.channel.state().version;
        self.channel.read()
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self::subscribe(&self.channel, self.seen)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.channel.state();
        state.receivers -= 1;
        let waker = state.waiting.remove(&self.id);
        drop(state);
        drop(waker);
    }
}

#[derive(Debug)]
struct Channel<T> {
    value: RwLock<T>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Rises with every change.
    version: u64,
    senders: usize,
    receivers: usize,
    /// Receivers that ever existed.
    subscriptions: u64,
    /// Who waits for a change, by the id of the receiver.
    waiting: BTreeMap<u64, Waker>,
}

impl<T> Channel<T> {
    fn changed(&self) {
        let wakers = {
            let mut state = self.state();
            state.version += 1;
            core::mem::take(&mut state.waiting)
        };
        wakers.into_values().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.value.write().unwrap_or_else(PoisonError::into_inner)
    }
}
