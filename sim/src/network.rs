//! The simulated network: connections over links that delay, lose, repeat, reorder and are cut.
//!
//! Connections behave like QUIC. The four reliable channels deliver in order and independently of each other: loss
//! shows as the delay of a retransmission, and a cut holds messages back until it heals. A connection whose path has
//! been cut, or whose other end has died without a word, for the whole idle timeout breaks at both ends; a healthy one
//! stays open however idle, since keep-alives are implied. Datagrams are lost, repeated and reordered as drawn.
//!
//! One task delivers for everybody, from one queue ordered by time and then by the order of sending; what is due is
//! delivered together, because no sleep of the runtime is shorter than a millisecond.
//!
//! - [`model`]: how a link behaves, what is counted.
//! - [`link`]: the traits of the node on top.
//! - `state`: what is where.

use core::fmt;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::Poll;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use openraft_rt::AsyncRuntime;
use zipnet_core::id::PeerId;
use zipnet_core::time::Time;
use zipnet_node::world::{Address, Channel};

use crate::chain::{NodeIndex, Recorder};
use crate::random::Random;
use crate::runtime::{SimRuntime, Sleep, is_running, now};

pub mod link;
pub mod model;
mod state;

pub use link::{SimConnection, SimLink, Tap};
pub use model::{Model, NetworkConfig, NetworkCounts, Ways};

use state::{Effects, State};

/// A message that reached a node.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// When.
    pub at: Time,
    /// Who sent it.
    pub from: NodeIndex,
    /// Who got it.
    pub to: NodeIndex,
    /// On which channel.
    pub channel: Channel,
    /// What it said.
    pub message: Bytes,
}

/// Sees every delivered message, in order.
pub type Observer = Arc<dyn Fn(&Delivery) + Send + Sync>;

/// The network that all nodes of a run share. Clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    observer: Mutex<Option<Observer>>,
}

impl Network {
    /// A network without nodes. Starts the task that delivers; call it within a simulation, outside of any node.
    #[must_use]
    pub fn start(config: NetworkConfig, recorder: Recorder, random: &Random) -> Self {
        let state = State::new(config, recorder, random.clone());
        let network = Self(Arc::new(Shared { state: Mutex::new(state), observer: Mutex::default() }));
        drop(SimRuntime::spawn(deliver(Arc::downgrade(&network.0))));
        network
    }

    /// Lets a function see every delivered message. It must not call the network.
    pub fn observe(&self, observer: Observer) {
        *self.0.observer.lock().unwrap_or_else(PoisonError::into_inner) = Some(observer);
    }

    /// Makes a machine listen at an address for as long as `incarnation` of it lives. Takes the address over from
    /// whoever had it.
    #[must_use]
    pub fn bind(&self, node: NodeIndex, incarnation: u64, peer: PeerId, address: Address) -> SimLink {
        self.act(|state, _| state.bind(node, incarnation, peer, &address));
        SimLink::new(self.clone(), node, incarnation, peer, address)
    }

    /// A process died without a word: its peers notice by the idle timeout.
    pub fn kill(&self, node: NodeIndex) {
        self.act(|state, effects| state.kill(node, effects));
    }

    /// A process ended: whatever connections it left open are closed with this code.
    pub fn exit(&self, node: NodeIndex, code: u32) {
        self.act(|state, effects| state.exit(node, code, effects));
    }

    /// A process does nothing until [`Network::resume`], and so does not keep its connections alive.
    pub fn pause(&self, node: NodeIndex) {
        self.act(|state, effects| {
            state.paused.insert(node);
            state.paths_changed(effects);
        });
    }

    /// Undoes [`Network::pause`].
    pub fn resume(&self, node: NodeIndex) {
        self.act(|state, effects| {
            state.paused.remove(&node);
            state.paths_changed(effects);
        });
    }

    /// Cuts the links between nodes of different groups; nodes in no group keep all their links. Replaces an earlier
    /// partition.
    pub fn partition(&self, groups: &[BTreeSet<NodeIndex>]) {
        let groups = groups
            .iter()
            .zip(0_u32..)
            .flat_map(|(nodes, group)| nodes.iter().map(move |node| (*node, group)))
            .collect::<BTreeMap<_, _>>();
        self.act(|state, effects| {
            state.counts.partitions += 1;
            state.fault(&format!("partition {groups:?}"));
            state.groups = groups;
            state.paths_changed(effects);
        });
    }

    /// Cuts the link from one node to another, or both ways.
    pub fn cut(&self, from: NodeIndex, to: NodeIndex, ways: Ways) {
        self.act(|state, effects| {
            state.counts.cuts += 1;
            state.fault(&format!("cut {from} {to} {ways:?}"));
            state.cut.insert((from, to));
            if ways == Ways::Both {
                state.cut.insert((to, from));
            }
            state.paths_changed(effects);
        });
    }

    /// Undoes [`Network::cut`] between two nodes, in both directions.
    pub fn mend(&self, one: NodeIndex, other: NodeIndex) {
        self.act(|state, effects| {
            state.fault(&format!("mend {one} {other}"));
            state.cut.remove(&(one, other));
            state.cut.remove(&(other, one));
            state.paths_changed(effects);
        });
    }

    /// Cuts all links of a node, also those of connections to come.
    pub fn isolate(&self, node: NodeIndex) {
        self.act(|state, effects| {
            state.counts.isolations += 1;
            state.fault(&format!("isolate {node}"));
            state.isolated.insert(node);
            state.paths_changed(effects);
        });
    }

    /// Undoes [`Network::isolate`].
    pub fn rejoin(&self, node: NodeIndex) {
        self.act(|state, effects| {
            state.fault(&format!("rejoin {node}"));
            state.isolated.remove(&node);
            state.paths_changed(effects);
        });
    }

    /// Undoes every partition, cut and isolation. Models stay.
    pub fn heal(&self) {
        self.act(|state, effects| {
            state.counts.heals += 1;
            state.fault("heal");
            state.groups.clear();
            state.cut.clear();
            state.isolated.clear();
            state.paths_changed(effects);
        });
    }

    /// Sets how the link from one node to another behaves, for messages sent from this moment on.
    pub fn set_model(&self, from: NodeIndex, to: NodeIndex, model: Model) {
        self.act(|state, _| {
            state.counts.models += 1;
            state.fault(&format!("model {from} {to} {model:?}"));
            state.set_model(from, to, model);
        });
    }

    /// Sets how every link behaves that [`Network::set_model`] did not speak of.
    pub fn set_default_model(&self, model: Model) {
        self.act(|state, _| {
            state.counts.models += 1;
            state.fault(&format!("model of all links {model:?}"));
            state.config.model = model;
        });
    }

    /// Gives every link the default model again.
    pub fn reset_models(&self) {
        self.act(|state, _| {
            state.fault("default models");
            state.reset_models();
        });
    }

    /// Whether messages from one node cannot reach another.
    #[must_use]
    pub fn is_cut(&self, from: NodeIndex, to: NodeIndex) -> bool {
        self.lock().is_cut(from, to)
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> NetworkCounts {
        self.lock().counts
    }

    /// Changes the state, and carries out what follows from it once nothing is locked.
    fn act<T>(&self, act: impl FnOnce(&mut State, &mut Effects) -> T) -> T {
        let mut effects = Effects::default();
        let result = act(&mut self.lock(), &mut effects);
        self.0.carry_out(effects);
        result
    }

    /// The same for what is dropped. Tasks of a node that was paused are dropped after the end of the simulation: nothing
    /// follows from them then, and there is no time any more.
    fn let_go(&self, act: impl FnOnce(&mut State, &mut Effects)) {
        if is_running() {
            self.act(act);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl Shared {
    fn carry_out(&self, effects: Effects) {
        let observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(observer) = observer {
            effects.deliveries.iter().for_each(|delivery| observer(delivery));
        }
        for waker in effects.wakers {
            waker.wake();
        }
    }
}

/// Delivers what is due, for as long as the network exists.
async fn deliver(network: Weak<Shared>) {
    let mut sleep: Option<Sleep> = None;
    poll_fn(|context| {
        loop {
            let Some(shared) = network.upgrade() else { return Poll::Ready(()) };
            let mut effects = Effects::default();
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            let time = now();
            state.run(time, &mut effects);
            state.waker = Some(context.waker().clone());
            match (state.next(), state.armed) {
                (None, _) => {
                    sleep = None;
                    state.armed = None;
                }
                // A timer that fires earlier than needed is cheaper than a further one.
                (Some(next), Some(armed)) if sleep.is_some() && armed <= next && armed > time => {}
                (Some(next), _) => {
                    sleep = Some(SimRuntime::sleep(next.since(time)));
                    state.armed = Some(next);
                }
            }
            drop(state);
            shared.carry_out(effects);
            match &mut sleep {
                None => return Poll::Pending,
                Some(waiting) => match Pin::new(waiting).poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => sleep = None,
                },
            }
        }
    })
    .await;
}
