//! A node inside this process, from its first link to its end.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zipnet_core::id::{PeerId, Role};
use zipnet_node::config::Config as NodeConfig;
use zipnet_node::event::Event;
use zipnet_node::frame::Refusal;
use zipnet_node::node::{self, Exit, Handle};
use zipnet_world::ground::{Ground, GroundError};
use zipnet_world::network::FAREWELL;
use zipnet_world::world::{RealWorld, run};

use crate::config::Mistakes;

/// Why a publisher or a reader could not begin. Nothing runs any more.
#[derive(Debug)]
pub enum ConnectError {
    /// A value is wrong or missing.
    Config(Mistakes),
    /// The state folder or the port cannot be had, or a peer to start from has no address.
    Ground(GroundError),
    /// Nobody of the instance answered in time: it was retired, or never existed under this name, or the peers to start
    /// from are not reachable. Or somebody answered, and no round counted the publisher in.
    ConnectTimeout {
        /// The instance's name.
        instance: String,
        /// How long it was tried.
        after: Duration,
        /// Whether somebody of the instance answered.
        answered: bool,
    },
    /// Whoever answered does not talk to this node, and nobody else did in time.
    Refused {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: Refusal,
    },
    /// The node ended before it was linked.
    Ended(Ended),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(mistakes) => write!(f, "{mistakes}"),
            Self::Ground(refusal) => write!(f, "{refusal}"),
            Self::ConnectTimeout { instance, after, answered: false } => {
                let after = after.as_millis();
                write!(
                    f,
                    "ConnectTimeout: nobody of instance {instance} answered for {after} ms; it may have been retired"
                )
            }
            Self::ConnectTimeout { instance, after, answered: true } => {
                let after = after.as_millis();
                write!(
                    f,
                    "ConnectTimeout: instance {instance} answered, but no round counted this client in for {after} ms; \
                     it may have been retired, or wait for servers or clients"
                )
            }
            Self::Refused { peer, reason } => {
                write!(f, "refused by {} ({}): {reason}", peer.short(), reason.name())
            }
            Self::Ended(ended) => write!(f, "{ended}"),
        }
    }
}

impl core::error::Error for ConnectError {}

impl From<Mistakes> for ConnectError {
    fn from(mistakes: Mistakes) -> Self {
        Self::Config(mistakes)
    }
}

/// The node did not end in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What the code of its process would be; `docs/operating.md` lists them.
    pub code: u8,
    /// Why, as a sentence.
    pub reason: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the node ended with code {}: {}", self.code, self.reason)
    }
}

impl core::error::Error for Ended {}

/// A running node. Dropping it asks for an orderly stop, and does not wait for it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) handle: Handle,
    task: Option<JoinHandle<Exit>>,
}

/// What concerns the first link.
#[derive(Debug)]
enum News {
    Linked(Role),
    Refused(PeerId, Refusal),
}

impl Running {
    /// Starts a node and waits for its first link with a peer of one of these roles. `sink` is told everything that
    /// happens to it, and must not block.
    pub(crate) async fn start(
        config: NodeConfig,
        timeout: Duration,
        roles: &[Role],
        sink: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<Self, ConnectError> {
        let homes = ["HOME", "XDG_STATE_HOME"].into_iter();
        let environment: BTreeMap<_, _> =
            homes.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect();
        let Ground { config, folder, link, passing, .. } =
            Ground::take(config, &environment).map_err(ConnectError::Ground)?;
        let instance = config.instance.name().to_owned();
        let (told, mut news) = mpsc::unbounded_channel();
        let observe = move |event: Event| {
            let first = match &event {
                Event::Linked { role, .. } => Some(News::Linked(*role)),
                Event::PeerRefused { peer, reason } | Event::RefusedByPeer { peer, reason } => {
                    Some(News::Refused(*peer, *reason))
                }
                _ => None,
            };
            if let Some(first) = first {
                // Nobody listens after the first link.
                told.send(first).ok();
            }
            sink(&event);
        };
        let world = RealWorld::new(link.clone(), folder, Arc::new(observe));
        let (handle, controls) = node::control();
        let task = tokio::spawn(async move {
            let exit = run(world, config, controls).await;
            link.shut_down(FAREWELL).await;
            passing.forget();
            exit
        });
        let mut running = Self { handle, task: Some(task) };
        let mut refused = None;
        let linked = async {
            loop {
                match news.recv().await {
                    Some(News::Linked(role)) if roles.contains(&role) => return true,
                    Some(News::Linked(_)) => {}
                    Some(News::Refused(peer, reason)) => refused = Some((peer, reason)),
                    // The node is gone, and with it whoever tells.
                    None => return false,
                }
            }
        };
        let linked = tokio::time::timeout(timeout, linked).await;
        if linked == Ok(true) {
            return Ok(running);
        }
        let ended = running.end().await;
        Err(match (refused, ended) {
            (Some((peer, reason)), _) => ConnectError::Refused { peer, reason },
            (None, Err(ended)) => ConnectError::Ended(ended),
            (None, Ok(())) => ConnectError::ConnectTimeout { instance, after: timeout, answered: false },
        })
    }

    /// Stops the node in order and waits for its end.
    pub(crate) async fn end(&mut self) -> Result<(), Ended> {
        self.handle.stop();
        let Some(task) = self.task.take() else { return Ok(()) };
        let exit = match task.await {
            Ok(exit) => exit,
            Err(reason) => Exit { code: 70, reason: format!("an invariant broke: {reason}") },
        };
        if exit.code == 0 { Ok(()) } else { Err(Ended { code: exit.code, reason: exit.reason }) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
    }
}
