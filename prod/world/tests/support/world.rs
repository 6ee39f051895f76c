//! A node within the process that tests it, whose words are seen and may be replaced on their way out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::task::JoinHandle;
use zipnet_core::checks::Strict;
use zipnet_core::id::{PeerId, Role, UniqueId};
use zipnet_core::key::{Identity, NodeSecret};
use zipnet_core::time::Time;
use zipnet_node::config::{Build, Config};
use zipnet_node::event::{Event, Observer};
use zipnet_node::node::{self, Exit, Handle};
use zipnet_node::slots::Origin;
use zipnet_node::world::{Address, Channel, Connection, Disk, Link, LinkError, World};
use zipnet_world::network::{Limits, QuicConnection, QuicLink};
use zipnet_world::runtime::Runtime;
use zipnet_world::world::{RealWorld, Sink};

/// Sees a message before it leaves, and says what leaves instead; `None` leaves it as it is.
pub(crate) type Watch = Arc<dyn Fn(PeerId, Channel, &Bytes) -> Option<Vec<Bytes>> + Send + Sync>;

/// The real world, seen on its way out, with a wall clock that can be set.
pub(crate) struct Seen<D> {
    real: RealWorld<D>,
    link: SeenLink,
    /// Seconds by which the wall clock is ahead.
    pub(crate) ahead: Arc<AtomicU64>,
}

impl<D: Clone> Clone for Seen<D> {
    fn clone(&self) -> Self {
        Self { real: self.real.clone(), link: self.link.clone(), ahead: Arc::clone(&self.ahead) }
    }
}

impl<D> std::fmt::Debug for Seen<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seen")
    }
}

impl<D: Disk> World for Seen<D> {
    type Runtime = Runtime;
    type Link = SeenLink;
    type Disk = D;

    fn link(&self) -> &SeenLink {
        &self.link
    }

    fn disk(&self) -> &D {
        self.real.disk()
    }

    fn now(&self) -> Time {
        self.real.now()
    }

    fn wall_clock(&self) -> u64 {
        self.real.wall_clock() + self.ahead.load(Ordering::Relaxed)
    }

    fn entropy(&self) -> [u8; 32] {
        self.real.entropy()
    }
}

impl<D: Disk> Observer for Seen<D> {
    fn observe(&self, event: Event) {
        self.real.observe(event);
    }
}

#[derive(Clone)]
pub(crate) struct SeenLink {
    real: QuicLink,
    watch: Watch,
}

impl Link for SeenLink {
    type Connection = SeenConnection;

    fn address(&self) -> Address {
        self.real.address()
    }

    async fn dial(&self, address: &Address) -> Result<SeenConnection, LinkError> {
        let real = self.real.dial(address).await?;
        Ok(SeenConnection { real, watch: Arc::clone(&self.watch) })
    }

    async fn accept(&self) -> Result<SeenConnection, LinkError> {
        let real = self.real.accept().await?;
        Ok(SeenConnection { real, watch: Arc::clone(&self.watch) })
    }
}

#[derive(Clone)]
pub(crate) struct SeenConnection {
    real: QuicConnection,
    watch: Watch,
}

impl Connection for SeenConnection {
    fn peer(&self) -> PeerId {
        self.real.peer()
    }

    fn exporter(&self) -> [u8; 32] {
        self.real.exporter()
    }

    fn dialled(&self) -> Option<Address> {
        self.real.dialled()
    }

    fn origin(&self) -> Option<Origin> {
        self.real.origin()
    }

    fn trust(&self) {
        self.real.trust();
    }

    fn send(&self, channel: Channel, message: Bytes) -> Result<(), LinkError> {
        match (self.watch)(self.real.peer(), channel, &message) {
            None => self.real.send(channel, message),
            Some(instead) => instead.into_iter().try_for_each(|message| self.real.send(channel, message)),
        }
    }

    async fn receive(&self) -> Result<(Channel, Bytes), LinkError> {
        self.real.receive().await
    }

    fn close(&self, code: u32) {
        self.real.close(code);
    }
}

/// A node that runs as a task.
pub(crate) struct Task {
    pub(crate) handle: Handle,
    pub(crate) ahead: Arc<AtomicU64>,
    /// What others write behind `--bootstrap`.
    pub(crate) peer: String,
    link: QuicLink,
    node: JoinHandle<Exit>,
}

impl Task {
    /// Starts a node with these variables, on this disk. Call it within a runtime.
    pub(crate) fn start<D: Disk>(
        role: Role,
        variables: &BTreeMap<String, String>,
        disk: D,
        watch: Watch,
        sink: Sink,
    ) -> Self {
        let (config, _) = Config::from_env(role, variables, Build::CURRENT).expect("the variables are right");
        let secret = config.secret.clone().unwrap_or_else(|| Arc::new(NodeSecret::from_bytes([0x0b; 32])));
        let identity = Identity::from_secret(&secret);
        let limits = Limits { vector_bytes: config.build.params.vector_bytes() };
        let any = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let link = QuicLink::bind(&identity, any, None, limits).expect("loopback has free ports");
        let peer = format!("{}@{}", identity.peer(), link.address());
        let ahead = Arc::new(AtomicU64::new(0));
        let world = Seen {
            real: RealWorld::new(link.clone(), disk, sink),
            link: SeenLink { real: link.clone(), watch },
            ahead: Arc::clone(&ahead),
        };
        let (handle, controls) = node::control();
        let node = tokio::spawn(node::run(world, Strict, config, controls));
        Self { handle, ahead, peer, link, node }
    }

    /// Stops the node in order.
    pub(crate) async fn stop(self) -> Exit {
        self.handle.stop();
        let exit = self.node.await.expect("a node does not panic");
        self.link.shut_down(zipnet_world::network::FAREWELL).await;
        exit
    }
}

/// The variables of a node, with short periods.
pub(crate) fn variables(
    role: Role,
    name: &str,
    folder: &Path,
    bootstrap: Option<&str>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        ("ZIPNET_INSTANCE", "acme.tests".to_owned()),
        ("ZIPNET_SECRET", UniqueId::from_text(&format!("the secret of {name} in these tests")).to_string()),
        ("ZIPNET_STATE_DIR", folder.display().to_string()),
        ("ZIPNET_ANNOUNCE_INTERVAL", "2s".to_owned()),
    ]);
    match role {
        Role::Server => {
            all.insert("ZIPNET_COMMITTEE_SECRET", "c0".repeat(32));
            all.insert("ZIPNET_MIN_PARTICIPANTS", "2".to_owned());
            all.insert("ZIPNET_ROUND_PERIOD", "300ms".to_owned());
            all.insert("ZIPNET_ROUND_DEADLINE", "5s".to_owned());
        }
        Role::Aggregator => drop(all.insert("ZIPNET_FOLD_DEADLINE", "300ms".to_owned())),
        // One server may leave, and rounds go on.
        Role::Client => drop(all.insert("ZIPNET_MIN_SERVERS", "2".to_owned())),
    }
    if let Some(bootstrap) = bootstrap {
        all.insert("ZIPNET_BOOTSTRAP", bootstrap.to_owned());
    }
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
