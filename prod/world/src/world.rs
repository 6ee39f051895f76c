//! Everything that one process gives to its node.

use core::fmt;
use core::future::Future;
use core::num::NonZero;
use core::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use zipnet_core::checks::Strict;
use zipnet_core::time::Time;
use zipnet_node::config::Config;
use zipnet_node::event::{Event, Observer};
use zipnet_node::node::{self, Controls, Exit};
use zipnet_node::world::{Disk, World};

use crate::disk::Folder;
use crate::network::QuicLink;
use crate::runtime::Runtime;

/// Is told everything that the node observes, in order. Must not block.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// The world of one process. Clones are the same world. `D` is a [`Folder`] in production; tests put a disk of their own
/// in its place.
pub struct RealWorld<D = Folder> {
    link: QuicLink,
    disk: D,
    started: Instant,
    sink: Sink,
}

impl<D: Disk> RealWorld<D> {
    /// Puts a world together. Time begins now.
    #[must_use]
    pub fn new(link: QuicLink, disk: D, sink: Sink) -> Self {
        Self { link, disk, started: Instant::now(), sink }
    }
}

impl<D: Clone> Clone for RealWorld<D> {
    fn clone(&self) -> Self {
        Self {
            link: self.link.clone(),
            disk: self.disk.clone(),
            started: self.started,
            sink: Arc::clone(&self.sink),
        }
    }
}

impl<D> fmt::Debug for RealWorld<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealWorld").field("link", &self.link).finish_non_exhaustive()
    }
}

/// Runs a node in this world, with every rule enforced, until it is stopped, refused or broken.
///
/// The same as [`zipnet_node::node::run`], compiled here once: whoever calls that compiles consensus and database anew, which
/// takes minutes.
#[must_use]
pub fn run(
    world: RealWorld,
    config: Config,
    controls: Controls,
) -> Pin<Box<dyn Future<Output = Exit> + Send>> {
    Box::pin(node::run(world, Strict, config, controls))
}

/// Fresh secret randomness of the operating system.
///
/// # Panics
/// If there is none: nothing that needs a secret can be done then.
#[must_use]
pub fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("an operating system that cannot give random bytes runs no node");
    bytes
}

impl<D: Disk> World for RealWorld<D> {
    type Runtime = Runtime;
    type Link = QuicLink;
    type Disk = D;

    fn link(&self) -> &QuicLink {
        &self.link
    }

    fn disk(&self) -> &D {
        &self.disk
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn wall_clock(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn entropy(&self) -> [u8; 32] {
        random()
    }

    fn threads(&self) -> usize {
        std::thread::available_parallelism().map_or(1, NonZero::get)
    }
}

impl<D: Disk> Observer for RealWorld<D> {
    fn observe(&self, event: Event) {
        (self.sink)(event);
    }
}
