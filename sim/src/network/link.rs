//! The node's traits on top of the simulated network.

use core::fmt;
use core::future::{Future, poll_fn};
use core::task::Poll;
use std::sync::Arc;

use bytes::Bytes;
use zipnet_core::id::PeerId;
use zipnet_node::world::{Address, Channel, Connection, Link, LinkError};

use super::Network;
use super::state::Side;
use crate::chain::NodeIndex;

/// Stands between a process and the network: what a dishonest node does to its own messages.
pub trait Tap: Send + Sync {
    /// What is sent instead of a message, in order.
    fn sends(&self, to: PeerId, channel: Channel, message: Bytes) -> Vec<(Channel, Bytes)>;
    /// Whether a message is let through to the process.
    fn receives(&self, from: PeerId, channel: Channel, message: &Bytes) -> bool;
}

/// The network as one incarnation of a node reaches it.
#[derive(Clone)]
pub struct SimLink {
    network: Network,
    node: NodeIndex,
    incarnation: u64,
    peer: PeerId,
    address: Address,
    tap: Option<Arc<dyn Tap>>,
}

impl SimLink {
    pub(super) const fn new(
        network: Network,
        node: NodeIndex,
        incarnation: u64,
        peer: PeerId,
        address: Address,
    ) -> Self {
        Self { network, node, incarnation, peer, address, tap: None }
    }

    /// The same with a tap on every connection to come.
    #[must_use]
    pub fn with_tap(self, tap: Option<Arc<dyn Tap>>) -> Self {
        Self { tap, ..self }
    }
}

impl fmt::Debug for SimLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLink")
            .field("node", &self.node)
            .field("incarnation", &self.incarnation)
            .field("peer", &self.peer)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Link for SimLink {
    type Connection = SimConnection;

    fn address(&self) -> Address {
        self.address.clone()
    }

    fn dial(&self, address: &Address) -> impl Future<Output = Result<SimConnection, LinkError>> + Send {
        let address = address.clone();
        async move {
            let number =
                self.network.act(|state, effects| state.dial(self.node, self.peer, address, effects));
            let waiting = Dial { network: &self.network, number };
            let id = poll_fn(|context| {
                self.network.act(|state, _| state.poll_dial(waiting.number, context.waker()))
            })
            .await?;
            Ok(SimConnection::new(&self.network, id, Side::Dialler, self.tap.clone()))
        }
    }

    fn accept(&self) -> impl Future<Output = Result<SimConnection, LinkError>> + Send {
        poll_fn(|context| {
            let accepted = self
                .network
                .act(|state, _| state.poll_accept(&self.address, self.incarnation, context.waker()));
            match accepted {
                Poll::Ready(Ok(id)) => {
                    let tap = self.tap.clone();
                    Poll::Ready(Ok(SimConnection::new(&self.network, id, Side::Acceptor, tap)))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
    }
}

/// A dial under way; dropping it gives it up.
struct Dial<'a> {
    network: &'a Network,
    number: u64,
}

impl Drop for Dial<'_> {
    fn drop(&mut self) {
        self.network.act(|state, effects| state.forget_dial(self.number, effects));
    }
}

/// One end of a connection.
#[derive(Clone)]
pub struct SimConnection(Arc<Handle>);

struct Handle {
    network: Network,
    id: u64,
    side: Side,
    peer: PeerId,
    exporter: [u8; 32],
    dialled: Option<Address>,
    tap: Option<Arc<dyn Tap>>,
}

impl SimConnection {
    fn new(network: &Network, id: u64, side: Side, tap: Option<Arc<dyn Tap>>) -> Self {
        let (peer, exporter, dialled) = network.lock().describe(id, side);
        Self(Arc::new(Handle { network: network.clone(), id, side, peer, exporter, dialled, tap }))
    }
}

impl Connection for SimConnection {
    fn peer(&self) -> PeerId {
        self.0.peer
    }

    fn exporter(&self) -> [u8; 32] {
        self.0.exporter
    }

    fn dialled(&self) -> Option<Address> {
        self.0.dialled.clone()
    }

    fn send(&self, channel: Channel, message: Bytes) -> Result<(), LinkError> {
        let Handle { network, id, side, peer, tap, .. } = &*self.0;
        let Some(tap) = tap else {
            return network.act(|state, effects| state.send(*id, *side, channel, message, effects));
        };
        for (channel, message) in tap.sends(*peer, channel, message) {
            network.act(|state, effects| state.send(*id, *side, channel, message, effects))?;
        }
        Ok(())
    }

    fn receive(&self) -> impl Future<Output = Result<(Channel, Bytes), LinkError>> + Send {
        let Handle { network, id, side, peer, tap, .. } = &*self.0;
        poll_fn(move |context| {
            loop {
                let polled = network.lock().poll_receive(*id, *side, context.waker());
                match (&polled, tap) {
                    (Poll::Ready(Ok((channel, message))), Some(tap))
                        if !tap.receives(*peer, *channel, message) => {}
                    _ => return polled,
                }
            }
        })
    }

    fn close(&self, code: u32) {
        let Handle { network, id, side, .. } = &*self.0;
        network.act(|state, effects| state.close(*id, *side, code, effects));
    }
}

impl fmt::Debug for SimConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimConnection")
            .field("id", &self.0.id)
            .field("side", &self.0.side)
            .field("peer", &self.0.peer)
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.network.act(|state, effects| state.drop_handle(self.id, self.side, effects));
    }
}
