//! One node: the loop that feeds a role machine and carries out its effects.
//!
//! [`run`] is what the server, aggregator and client binaries spawn, and what the simulator spawns. Everything that
//! happens to a node goes through one queue; whatever decides is in a machine ([`zipnet_core`]) or in a pure rule
//! ([`crate::meeting`], [`crate::frame`]); the loop only connects them.
//!
//! - `astray`: what a server without a log does
//! - `believed`: whom an aggregator believed, across its restarts
//! - `connections`: from a fresh connection to a link, and what arrives
//! - `control`: how the node's owner talks to it
//! - `identity`: the store id in the state folder
//! - `links`: which connections are links
//! - `member`: a server's machine under consensus
//! - `membership`: who leads, who votes, whether two logs have met
//! - `own_rounds`: which rounds concern this process
//! - `peers`: where the others are, and whom to dial
//! - `view`: what status pages show

mod astray;
mod believed;
mod connections;
mod control;
mod identity;
mod links;
mod member;
mod membership;
#[cfg(test)]
mod memory;
mod own_rounds;
mod peers;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem::Discriminant;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::{mpsc, oneshot};
use futures_util::future::{AbortHandle, Either, abortable, join_all, select};
use futures_util::{SinkExt, StreamExt};
use openraft_rt::AsyncRuntime;
use zipnet_core::aggregator::{self, Aggregator, Believed};
use zipnet_core::checks::{Check, Checks};
use zipnet_core::client::{self, Client, PublishError};
use zipnet_core::id::{Epoch, LogId, PeerId, RaftId, Role, Round, StoreId};
use zipnet_core::instance::machine_signature;
use zipnet_core::key::{Identity, NodeSecret};
use zipnet_core::keyring::{Begun, Keyring, Worked};
use zipnet_core::machine::{Deadline, Done, Effect, Job, Outbox, Report, RequestId};
use zipnet_core::message::{Command, Message};
use zipnet_core::random::Random;
use zipnet_core::reader::{self, Reader};
use zipnet_core::server::{self, Server};
use zipnet_core::time::Time;
use zipnet_core::{committee, wire};

use self::control::{Control, Replies};
pub use self::control::{Controls, Exit, Handle, Known, Made, Receipt, control};
use self::links::{Links, Routes};
use self::member::Member;
use self::own_rounds::OwnRounds;
use crate::allowance::Allowances;
use crate::config::{Config, Part, PeerAddress};
use crate::consensus::{self, Consensus, Fault, OpenError, Settings, lock};
use crate::event::{Event, Observer};
use crate::founding::Step;
use crate::frame::{Farewell, Frame, Own, Refusal};
use crate::gossip::book::PeerBook;
use crate::gossip::{self, Gossip};
use crate::meeting::{Admission, ConnectionId, Duplicates, majority};
use crate::remembered;
use crate::slots::Slots;
use crate::status::Finalized;
use crate::world::{Address, Channel, Connection, Link, LinkError, World};

/// How often the loop looks after links, peers and membership.
const HOUSEKEEPING: Duration = Duration::from_millis(500);
/// The wait after a first failed dial; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest wait between dials of one address.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// After how long without a majority a leader says that nobody leads: the others may have elected another one.
const DESERTED: Duration = Duration::from_secs(6);
/// How long another server has reached more voters than the leader before it is asked to lead.
const OUTREACHED: Duration = Duration::from_secs(5);
/// How long an orderly stop of a server may take.
const STOP_BUDGET: Duration = Duration::from_secs(4);
/// How long of that the partial of the open round may take.
const PARTIAL_BUDGET: Duration = Duration::from_secs(2);
/// After how long something that did not show up is sent again.
const RESEND: Duration = Duration::from_secs(1);
/// How long a round key is used, until the next pause between rounds.
const REKEY: Duration = Duration::from_secs(24 * 60 * 60);
/// How much longer it lives at the most if there is no pause. Longer than a round takes, so that no round of an honest
/// committee is lost to it.
const REKEY_GRACE: Duration = Duration::from_secs(60 * 60);

/// How long a server that was met with another log stands in the status page.
const OTHER_LOG_NOTED: Duration = Duration::from_secs(10 * 60);

/// How long it stands in the status page that a peer refuses this node. Whoever is refused tries again much sooner.
const TURNED_AWAY_NOTED: Duration = Duration::from_secs(60);

/// The most messages of a client that wait for their round.
const QUEUE_MAX: usize = 1024;

/// Arrivals that wait for the loop, besides one of each connection.
const INBOUND_MAX: usize = 64;

/// A connection of this world.
type Conn<W> = <<W as World>::Link as Link>::Connection;
/// When the loop wakes by itself, and the sleep until then.
type Alarm<W> = (Time, Pin<Box<<<W as World>::Runtime as AsyncRuntime>::Sleep>>);
/// The consensus of a server.
type Group<W, C> = Consensus<W, Member<W, C>, Routes<Conn<W>>>;

/// What the loop waits for.
#[derive(Debug)]
enum Happening<N> {
    /// Another node opened a connection.
    Accepted(N),
    /// A dial came to its end.
    Dialled { address: Address, result: Result<N, LinkError> },
    /// Something arrived.
    Received { id: ConnectionId, channel: Channel, message: Bytes },
    /// A connection broke or was closed.
    Closed(ConnectionId, LinkError),
    /// Heavy work is done.
    Done(Done),
    /// What an aggregator keeps of whom it believes was written, or not.
    Kept(Result<(), String>),
    /// The address book was written, or not.
    Remembered(Result<(), String>),
    /// The member machine has effects.
    Effects,
    /// Consensus has another leader, or none.
    Led(Option<PeerId>),
    /// Consensus cannot go on.
    Failed { fault: Fault, reason: String },
    /// A change of membership came to its end.
    Changed,
    /// Other votes count in the log than before.
    MembersChanged,
    /// What this proposal builds on survives a crash.
    Firm(Command),
}

/// How the loop ends.
enum End {
    Exit(Exit),
    /// Set the state aside and start anew, as a node that joins.
    Yield(Vec<PeerAddress>),
}

/// Runs a node until it is stopped, refused or broken.
///
/// The configuration is taken as it is; whoever made it has reported what is wrong with it. The node's link listens
/// already. `checks` is [`zipnet_core::checks::Strict`] everywhere but in the simulator.
pub async fn run<W: Observer, C: Checks>(
    world: W,
    checks: C,
    config: Config,
    mut controls: Controls,
) -> Exit {
    let mut bootstrap = config.bootstrap.clone();
    let mut yields = 0_u32;
    loop {
        let end = match Node::start(&world, &checks, &config, bootstrap, yields).await {
            Ok(node) => node.run(&mut controls).await,
            Err(exit) => End::Exit(exit),
        };
        let exit = match end {
            End::Exit(exit) => exit,
            End::Yield(peers) => match identity::set_aside(&world).await {
                Ok(()) => {
                    // Whom the operator named is not forgotten for whoever has the other log.
                    let others = config.bootstrap.iter().filter(|named| !peers.contains(named));
                    bootstrap = peers.iter().chain(others).cloned().collect();
                    yields = yields.saturating_add(1);
                    continue;
                }
                Err(error) => store_failed(error),
            },
        };
        world.observe(Event::Exiting { code: exit.code, reason: exit.reason.clone() });
        return exit;
    }
}

/// The machine of one role.
enum Machine<W: Observer, C: Checks> {
    Server { member: Arc<Mutex<Member<W, C>>>, group: Group<W, C> },
    Aggregator(Box<Aggregator<C>>),
    Client(Box<Client<C>>),
    Reader(Box<Reader<C>>),
}

/// What the loop feeds to whichever machine it has.
#[expect(clippy::large_enum_variant, reason = "each is moved once, from the loop into the machine")]
#[derive(Clone, Debug)]
enum Feed {
    Tick,
    Received { from: PeerId, bytes: Bytes },
    Linked { peer: PeerId, role: Role },
    Unlinked { peer: PeerId },
    Done(Done),
    Stop,
}

/// Dials of one address.
#[derive(Debug, Default)]
struct Dial {
    running: bool,
    failures: u32,
    next: Time,
}

struct Node<W: Observer, C: Checks> {
    world: W,
    checks: C,
    config: Config,
    own: Own,
    identity: Identity,
    keyring: Arc<Mutex<Keyring<C>>>,
    random: Random,
    bootstrap: Vec<PeerAddress>,
    machine: Machine<W, C>,
    outbox: Outbox,
    links: Links<Conn<W>>,
    duplicates: Duplicates,
    admission: Admission,
    book: PeerBook,
    gossip: Option<Gossip>,
    /// Whose entries and rumours no stranger keeps out.
    members: BTreeSet<PeerId>,
    /// Linked peers to which gossip has announced this node.
    rumoured: BTreeSet<PeerId>,
    allowances: Allowances,
    /// The last server with records of another log that was met: who, which log, when.
    other_log: Option<(PeerId, LogId, Time)>,
    /// Peers that matter and refuse this node: why, and since when they do.
    turned_away: BTreeMap<PeerId, (Refusal, Time)>,
    /// Voters that the operator does not allow.
    unlisted: BTreeSet<PeerId>,
    /// How many logs without records this process has given up.
    yields: u32,
    dials: BTreeMap<Address, Dial>,
    store: Option<StoreId>,
    steadfast: bool,
    /// The voters of the log that this server founds with others, if it has none; see [`crate::founding`].
    founders: BTreeSet<RaftId>,
    /// How many voters the first round of a log waits for.
    first_voters: usize,
    /// Since when this server has had no log.
    astray_since: Time,
    /// What it then waits for.
    astray: Option<Step>,
    /// The operator was told about it.
    warned_astray: Option<Discriminant<Step>>,
    /// Who leads, as the machine was told last.
    leader: Option<PeerId>,
    changing: bool,
    /// The voters that linked servers were told last.
    told_voters: (Option<u64>, BTreeSet<RaftId>),
    /// The servers that linked servers were told last that this one is linked with.
    told_reach: BTreeSet<PeerId>,
    /// Since when another server reaches more of the voters than this one, which leads.
    outreached: Option<Time>,
    /// Why rounds stall, by name, as it was last told.
    told_causes: Vec<&'static str>,
    /// When rounds last did not stall, or something that this server knows of stood in the way.
    explained_at: Time,
    /// Links between voters that are cut, as far as this server knows, and since when.
    cut: BTreeMap<(PeerId, PeerId), Time>,
    /// When a server that this one does not know last spoke as a member.
    stranger_at: Option<Time>,
    /// The operator was told that no server that this one knows leads.
    warned_strangers: bool,
    /// What was read back from the disk was reported.
    restored: bool,
    stopping: bool,
    end: Option<End>,
    started: Time,
    /// Since when the present leader leads, as far as this server knows.
    led_since: Time,
    /// When a client last had an aggregator, or a reader anybody to ask.
    bonded_at: Time,
    /// The publisher was told that nobody answers.
    timed_out: bool,
    /// Who waits for what becomes of a message.
    waiting: BTreeMap<RequestId, oneshot::Sender<Known>>,
    /// The rounds that concern this process. A server asks its committee machine instead, here and for the next three.
    own_rounds: OwnRounds,
    /// The newest record of such a round that this node has seen, and when; of any round if it only reads.
    last_seen: Option<(Finalized, Time)>,
    /// How long it took from each of the last two to the next one.
    gaps: [Duration; 2],
    /// How many there were.
    rounds_seen: u64,
    /// Whom an aggregator believed when that was last written or read.
    kept: Believed,
    /// It is being written.
    keeping: bool,
    /// Where others were, as an earlier process knew. They are dialled, and nothing else follows.
    known: BTreeMap<PeerId, Address>,
    /// What of the address book is on disk, or about to be.
    remembered: BTreeMap<PeerId, Address>,
    /// It is being written.
    remembering: bool,
    /// When to look at it again.
    remember_at: Time,
    housekeeping_at: Time,
    announce_at: Time,
    sender: mpsc::UnboundedSender<Happening<Conn<W>>>,
    queue: mpsc::UnboundedReceiver<Happening<Conn<W>>>,
    /// What comes from other nodes. Bounded, so that a peer that floods waits for its turn.
    arrivals: mpsc::Sender<Happening<Conn<W>>>,
    inbound: mpsc::Receiver<Happening<Conn<W>>>,
    acceptor: AbortHandle,
}

impl<W: Observer, C: Checks> Node<W, C> {
    async fn start(
        world: &W,
        checks: &C,
        config: &Config,
        bootstrap: Vec<PeerAddress>,
        yields: u32,
    ) -> Result<Self, Exit> {
        let joins = yields > 0;
        let mut random = Random::new(world.entropy());
        let drawn = || Arc::new(NodeSecret::from_bytes(world.entropy()));
        let secret = config.secret.clone().unwrap_or_else(drawn);
        let identity = Identity::from_secret(&secret);
        let me = identity.peer();
        let role = config.role();
        world.observe(Event::Spawning { role, peer: me });

        let build = config.build;
        let signature = machine_signature(build.wire_version, build.machine_version, &build.params);
        let (committee_secret, floors) = match &config.part {
            Part::Server(part) => (Some(Arc::clone(&part.committee_secret)), Some(part.floors)),
            Part::Aggregator(_) | Part::Client(_) | Part::Reader(_) => (None, None),
        };
        let group = committee_secret.as_ref().map(|secret| secret.group_id(&config.instance, &signature));
        let mut incarnation = [0; 16];
        random.fill(&mut incarnation);
        let own = Own {
            peer: me,
            role,
            instance: config.instance.id(),
            universe: config.universe,
            wire_version: build.wire_version,
            params: build.params,
            machine_signature: signature,
            committee_secret,
            incarnation,
        };
        let keyring =
            Keyring::with_checks(checks.clone(), &secret, role, own.instance, group, floors, world.entropy());
        let (sender, queue) = mpsc::unbounded();
        let (arrivals, inbound) = mpsc::channel(INBOUND_MAX);
        let links = Links::new(Slots::new(config.strangers_max));
        let mut known = remembered::load(world).await;
        // What the operator wrote goes before what was known.
        known.retain(|peer, _| *peer != me && !bootstrap.iter().any(|named| named.peer == *peer));
        let mut steadfast = false;
        let mut store = None;
        let mut founders = BTreeSet::new();
        let mut first_voters = 0;
        let mut kept = Believed::default();
        let machine = match &config.part {
            Part::Server(part) => {
                let group = group.expect("servers have a committee secret");
                steadfast = part.new_log && !joins;
                if steadfast {
                    identity::set_aside(world).await.map_err(store_failed)?;
                }
                let mut entropy = world.entropy();
                if !checks.enforce(Check::FreshStore) {
                    entropy = me.0;
                }
                let settled = identity::settle(world, me, group, entropy).await.map_err(store_failed)?;
                let (id, former) = (settled.store, settled.former);
                if let Some(read) = settled.moved {
                    let text = "the state folder is of another committee secret, machine or round parameters: \
                                it was set aside, and this server joins as a new one";
                    world.observe(Event::Warned(text.to_owned()));
                    if let Err(reason) = read {
                        world.observe(Event::Warned(format!(
                            "what was set aside names no voters: failed to {reason}"
                        )));
                    }
                }
                store = Some(id);
                let had_place = former.is_some();
                founders = former.map(|former| former.founders()).unwrap_or_default();
                if !founders.contains(&RaftId { peer: me, store: id }) {
                    founders.clear();
                }
                // There are no two majorities of those who had a vote, so nobody else has to be waited for. Whoever was alone
                // has not had a committee yet.
                first_voters = usize::try_from(part.first_voters).unwrap_or(usize::MAX);
                if founders.len() > 1 {
                    first_voters = first_voters.min(majority(founders.len()));
                }
                let server = server::Config {
                    committee: committee::Config { instance: own.instance, group, params: build.params },
                    me,
                    floors: part.floors,
                    round_period: part.round_period,
                    round_deadline: part.round_deadline,
                    aggregator: part.aggregator,
                    first_round_voters: first_voters,
                    resend: RESEND,
                    rekey_after: REKEY,
                    key_age_max: REKEY + REKEY_GRACE.max(part.round_deadline.saturating_mul(4)),
                    partial_budget: PARTIAL_BUDGET,
                    stop_budget: STOP_BUDGET,
                };
                let server = Server::new(server, checks.clone(), world.entropy());
                let member = Member::new(world.clone(), me, server, sender.clone());
                let member = Arc::new(Mutex::new(member));
                let raft = RaftId { peer: me, store: id };
                let routes = links.routes();
                let on_event = on_event(world.clone(), sender.clone());
                let opened = Consensus::open(
                    world.clone(),
                    checks.clone(),
                    raft,
                    Settings::default(),
                    Arc::clone(&member),
                    routes,
                    on_event,
                );
                let group: Group<W, C> = opened.await.map_err(open_failed)?;
                let state = group.state();
                world.observe(Event::Opened { store: id, last_log: state.last_log, term: state.term });
                lock(&member).opened(state.last_log.unwrap_or(0));
                // Whoever belonged to a committee begins anew with that one, also if it cannot tell any more who that was,
                // unless its operator says otherwise.
                let alone = if checks.enforce(Check::FoundTogether) {
                    bootstrap.is_empty() && !had_place
                } else {
                    bootstrap.is_empty() || !founders.is_empty()
                };
                if group.was_fresh() && (alone && !joins || steadfast) {
                    group
                        .start_group()
                        .await
                        .map_err(|error| disk_failed(format!("start a group: {error}")))?;
                }
                Machine::Server { member, group }
            }
            Part::Aggregator(part) => {
                kept = believed::load(world, own.instance).await;
                let settings = aggregator::Config {
                    instance: own.instance,
                    me,
                    epoch: Epoch(1),
                    params: build.params,
                    pins: part.pins.iter().copied().collect(),
                    bootstrap: bootstrap.iter().map(|peer| peer.peer).collect(),
                    believed: kept.clone(),
                    fold_deadline: part.fold_deadline,
                    resend: RESEND,
                    expire_after: config.announce_interval.saturating_mul(2),
                };
                Machine::Aggregator(Box::new(Aggregator::new(settings, checks.clone())))
            }
            Part::Client(part) => {
                let settings = client::Config {
                    instance: own.instance,
                    me,
                    epoch: Epoch(1),
                    queue_max: QUEUE_MAX,
                    params: build.params,
                    pins: part.pins.iter().copied().collect(),
                    min_servers: part.min_servers,
                    cadence: part.cadence,
                    resend: RESEND,
                    rekey_after: REKEY,
                    key_age_max: REKEY + REKEY_GRACE,
                };
                Machine::Client(Box::new(Client::new(settings, checks.clone())))
            }
            Part::Reader(part) => {
                let settings = reader::Config {
                    pins: part.pins.iter().copied().collect(),
                    min_servers: part.min_servers,
                    from: part.from,
                    params: build.params,
                    resend: RESEND,
                };
                Machine::Reader(Box::new(Reader::new(settings, checks.clone())))
            }
        };
        let gossips = match role {
            Role::Server | Role::Aggregator => true,
            Role::Client => false,
        };
        let gossip = gossips.then(|| Gossip::new(me, world.wall_clock(), random.fork("gossip")));
        let address = gossips.then(|| config.advertise.clone().unwrap_or_else(|| world.link().address()));
        let network = config.universe_name.clone();
        let instance = config.instance.name().to_owned();
        world.observe(Event::Up { network, instance, peer: me, address, role });
        world.observe(Event::Booting { role });

        let now = world.now();
        let (accepting, acceptor) = abortable(accept(world.link().clone(), arrivals.clone()));
        drop(W::Runtime::spawn(async move { accepting.await.unwrap_or_default() }));
        let mut node = Self {
            world: world.clone(),
            checks: checks.clone(),
            config: config.clone(),
            duplicates: Duplicates::new(me, random.next_u64()),
            book: PeerBook::new(me, own.instance, config.announce_interval),
            own,
            identity,
            keyring: Arc::new(Mutex::new(keyring)),
            random,
            bootstrap,
            machine,
            outbox: Outbox::new(),
            links,
            admission: Admission::new(),
            gossip,
            members: BTreeSet::new(),
            rumoured: BTreeSet::new(),
            allowances: Allowances::new(),
            other_log: None,
            turned_away: BTreeMap::new(),
            unlisted: BTreeSet::new(),
            yields,
            dials: BTreeMap::new(),
            store,
            steadfast,
            founders,
            first_voters,
            astray_since: now,
            astray: None,
            warned_astray: None,
            leader: None,
            changing: false,
            told_voters: (None, BTreeSet::new()),
            told_reach: BTreeSet::new(),
            outreached: None,
            told_causes: Vec::new(),
            explained_at: now,
            cut: BTreeMap::new(),
            stranger_at: None,
            warned_strangers: false,
            restored: false,
            stopping: false,
            end: None,
            started: now,
            led_since: now,
            bonded_at: now,
            timed_out: false,
            own_rounds: OwnRounds::default(),
            waiting: BTreeMap::new(),
            last_seen: None,
            gaps: [Duration::ZERO; 2],
            rounds_seen: 0,
            kept,
            keeping: false,
            remembered: BTreeMap::new(),
            known,
            remembering: false,
            remember_at: now,
            housekeeping_at: now,
            announce_at: now,
            sender,
            queue,
            arrivals,
            inbound,
            acceptor,
        };
        node.announce();
        node.look_whom_to_believe();
        Ok(node)
    }

    async fn run(mut self, controls: &mut Controls) -> End {
        if let Part::Client(part) = &self.config.part
            && let Some(message) = part.message.clone()
        {
            // Its length was checked with the configuration, and nothing else waits yet.
            self.publish(RequestId(0), message.into_bytes()).unwrap_or_default();
        }
        let mut orphaned = false;
        let mut alarm: Option<Alarm<W>> = None;
        loop {
            self.tick();
            self.effects();
            if let Some(end) = self.end.take() {
                self.close(&end).await;
                return end;
            }
            let due = self.due();
            // An alarm that rings too early does no harm; a fresh one for every input would cost more.
            let now = self.world.now();
            let (_, sleep) = match alarm.take() {
                Some((at, sleep)) if at <= due && at > now => alarm.insert((at, sleep)),
                Some(_) | None => {
                    let sleep = Box::pin(W::Runtime::sleep(due.since(now)));
                    alarm.insert((due, sleep))
                }
            };
            let asked =
                async { if orphaned { std::future::pending().await } else { controls.0.next().await } };
            let happens = select(self.queue.next(), self.inbound.next());
            match select(happens, select(pin!(asked), sleep.as_mut())).await {
                Either::Left((
                    Either::Left((Some(happening), _)) | Either::Right((Some(happening), _)),
                    _,
                )) => self.happened(happening),
                // The loop holds a sender of each of its queues.
                Either::Left((Either::Left((None, _)) | Either::Right((None, _)), _)) => {
                    unreachable!("the queues do not end")
                }
                Either::Right((Either::Left((Some(control), _)), _)) => self.asked(control),
                // Nobody is left who could ask for a stop.
                Either::Right((Either::Left((None, _)), _)) => {
                    orphaned = true;
                    self.stop();
                }
                Either::Right((Either::Right(((), _)), _)) => alarm = None,
            }
        }
    }

    /// When the loop has something to do if nothing happens first.
    fn due(&self) -> Time {
        let machine = match &self.machine {
            Machine::Server { member, .. } => lock(member).server.deadline(),
            Machine::Aggregator(machine) => machine.deadline(),
            Machine::Client(machine) => machine.deadline(),
            Machine::Reader(machine) => machine.deadline(),
        };
        let gossip = self.gossip.as_ref().map_or(Time::NEVER, Gossip::deadline);
        machine.at.min(gossip).min(self.housekeeping_at).min(self.duplicates.deadline())
    }

    /// Does what is due.
    fn tick(&mut self) {
        let now = self.world.now();
        let machine: Deadline = match &self.machine {
            Machine::Server { member, .. } => lock(member).server.deadline(),
            Machine::Aggregator(machine) => machine.deadline(),
            Machine::Client(machine) => machine.deadline(),
            Machine::Reader(machine) => machine.deadline(),
        };
        if machine.at <= now {
            self.feed(Feed::Tick);
        }
        if self.gossip.as_ref().is_some_and(|gossip| gossip.deadline() <= now) {
            self.gossip(gossip::Input::Tick);
        }
        if self.duplicates.deadline() <= now {
            let mut orders = Vec::new();
            self.duplicates.tick(now, &mut orders);
            self.obey(orders);
        }
        if self.housekeeping_at <= now {
            self.housekeeping_at = now.after(HOUSEKEEPING);
            self.housekeep(now);
        }
    }

    fn happened(&mut self, happening: Happening<Conn<W>>) {
        match happening {
            Happening::Accepted(connection) => self.connected(connection),
            Happening::Dialled { address, result } => self.dialled(address, result),
            Happening::Received { id, channel, message } => self.received(id, channel, message),
            Happening::Closed(id, error) => {
                if let (LinkError::Violation(violation), Some(entry)) = (error, self.links.get(id)) {
                    self.rejected("link", violation.name(), entry.peer);
                }
                self.closed(id, None);
            }
            Happening::Done(done) => self.feed(Feed::Done(done)),
            Happening::Kept(result) => self.believed_kept(result),
            Happening::Remembered(result) => self.has_remembered(result),
            Happening::Effects => {}
            Happening::Led(leader) => self.led(leader),
            Happening::Failed { fault, reason } => {
                self.world.observe(Event::Fatal(reason.clone()));
                let Exit { code, reason } = match fault {
                    Fault::Disk => disk_failed(reason),
                    Fault::Data => data_failed(reason),
                    Fault::Core => Exit { code: 70, reason },
                };
                self.exit(code, reason);
            }
            Happening::Changed => self.changing = false,
            Happening::MembersChanged => {
                self.tell_voters();
                self.look_whom_to_believe();
            }
            Happening::Firm(command) => self.propose(command),
        }
    }

    fn asked(&mut self, control: Control) {
        match (control, &self.machine) {
            (Control::Stop, _) => self.stop(),
            (Control::Publish { request, payload, reply }, Machine::Client(_)) => {
                let accepted = self.publish(request, payload);
                match (accepted, reply) {
                    // Whoever asked may be gone.
                    (accepted, Some(Replies { accepted: answer, known })) => {
                        if accepted.is_ok() {
                            self.waiting.insert(request, known);
                        }
                        answer.send(accepted).ok();
                    }
                    (Ok(()), None) => {}
                    (Err(error), None) => {
                        let text = format!("failed to publish a message: {error}");
                        self.world.observe(Event::Warned(text));
                    }
                }
            }
            (Control::Publish { .. }, _) => {}
            (Control::Retire, Machine::Server { member, .. }) => lock(member).handle(server::Input::Retire),
            (Control::RetireDead(server), Machine::Server { member, .. }) => {
                lock(member).handle(server::Input::RetireDead { server });
            }
            (Control::Approve(aggregator), Machine::Server { member, .. }) => {
                lock(member).handle(server::Input::Approve { aggregator });
            }
            (Control::Refuse(clients), Machine::Server { member, .. }) => {
                lock(member).handle(server::Input::Refuse { clients });
            }
            (Control::Retire | Control::RetireDead(_) | Control::Approve(_) | Control::Refuse(_), _) => {}
            (Control::Clients { begins, reply }, machine) => {
                let found = match machine {
                    Machine::Server { member, .. } => {
                        let member = lock(member);
                        let clients = member.server.committee().clients().iter().map(|(client, _)| *client);
                        clients.filter(|client| client.to_string().starts_with(&begins)).take(2).collect()
                    }
                    Machine::Aggregator(_) | Machine::Client(_) | Machine::Reader(_) => Vec::new(),
                };
                // Whoever asked may be gone.
                drop(reply.send(found));
            }
            (Control::Parts { round, reply }, machine) => {
                let made = match machine {
                    Machine::Server { member, .. } => {
                        let member = lock(member);
                        let records = member.server.committee().records().iter();
                        let record = records.rev().find(|kept| kept.record.round == round).cloned();
                        let entries = member.server.parts().of(round).cloned();
                        record.zip(entries).map(|(record, entries)| Made { record, entries })
                    }
                    Machine::Aggregator(_) | Machine::Client(_) | Machine::Reader(_) => None,
                };
                drop(reply.send(made));
            }
            // Whoever asked may be gone.
            (Control::View(reply), _) => drop(reply.send(self.view())),
        }
    }

    fn stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.world.observe(Event::Departing);
            self.feed(Feed::Stop);
        }
    }

    fn publish(&mut self, request: RequestId, payload: Vec<u8>) -> Result<(), PublishError> {
        let Machine::Client(machine) = &mut self.machine else { return Ok(()) };
        machine.accepts(&payload)?;
        let input = client::Input::Publish { request, payload };
        machine.handle(self.world.now(), input, &mut self.outbox);
        Ok(())
    }

    fn exit(&mut self, code: u8, reason: String) {
        self.end.get_or_insert(End::Exit(Exit { code, reason }));
    }

    /// Gives an input to the machine.
    fn feed(&mut self, feed: Feed) {
        self.effects();
        let now = self.world.now();
        match &mut self.machine {
            Machine::Server { member, .. } => lock(member).handle(match feed {
                Feed::Tick => server::Input::Tick,
                Feed::Received { from, bytes } => server::Input::Received { from, bytes },
                Feed::Linked { peer, role } => server::Input::Linked { peer, role },
                Feed::Unlinked { peer } => server::Input::Unlinked { peer },
                Feed::Done(done) => server::Input::Done(done),
                Feed::Stop => server::Input::Stop,
            }),
            Machine::Aggregator(machine) => {
                let before = machine.registry().map(|registry| registry.version());
                let input = match feed {
                    Feed::Tick => aggregator::Input::Tick,
                    Feed::Received { from, bytes } => aggregator::Input::Received { from, bytes },
                    Feed::Linked { peer, role } => aggregator::Input::Linked { peer, role },
                    Feed::Unlinked { peer } => aggregator::Input::Unlinked { peer },
                    Feed::Done(done) => aggregator::Input::Done(done),
                    Feed::Stop => aggregator::Input::Stop,
                };
                machine.handle(now, input, &mut self.outbox);
                // The registry's size is a metric of the aggregator as well.
                if let Some(registry) = machine.registry()
                    && before != Some(registry.version())
                {
                    let (version, count) = (registry.version(), registry.len());
                    self.outbox.report(Report::ClientsChanged { version, count });
                }
                if let Some(record) = machine.newest() {
                    let (round, participants) = (record.round, record.participants.count_ones());
                    self.saw_finalized(round, participants);
                }
            }
            Machine::Client(machine) => {
                let input = match feed {
                    Feed::Tick => client::Input::Tick,
                    Feed::Received { from, bytes } => client::Input::Received { from, bytes },
                    Feed::Linked { peer, role } => client::Input::Linked { peer, role },
                    Feed::Unlinked { peer } => client::Input::Unlinked { peer },
                    Feed::Done(done) => client::Input::Done(done),
                    Feed::Stop => client::Input::Stop,
                };
                machine.handle(now, input, &mut self.outbox);
            }
            Machine::Reader(machine) => {
                let input = match feed {
                    Feed::Tick => reader::Input::Tick,
                    Feed::Received { from, bytes } => reader::Input::Received { from, bytes },
                    Feed::Linked { peer, role } => reader::Input::Linked { peer, role },
                    Feed::Unlinked { peer } => reader::Input::Unlinked { peer },
                    Feed::Done(_) => unreachable!("a reader has no work that needs a secret"),
                    Feed::Stop => reader::Input::Stop,
                };
                machine.handle(now, input, &mut self.outbox);
            }
        }
        self.effects();
    }

    /// Carries out every effect that waits, and those that follow from them.
    fn effects(&mut self) {
        let mut done = VecDeque::new();
        loop {
            let effect = match &self.machine {
                Machine::Server { member, .. } => lock(member).take_effect(),
                Machine::Aggregator(_) | Machine::Client(_) | Machine::Reader(_) => self.outbox.pop(),
            };
            match (effect, &mut self.machine) {
                (Some(effect), _) => self.carry_out(effect, &mut done),
                (None, machine) => {
                    let Some(result) = done.pop_front() else { break };
                    let now = self.world.now();
                    match machine {
                        Machine::Server { member, .. } => lock(member).handle(server::Input::Done(result)),
                        Machine::Aggregator(machine) => {
                            machine.handle(now, aggregator::Input::Done(result), &mut self.outbox);
                        }
                        Machine::Client(machine) => {
                            machine.handle(now, client::Input::Done(result), &mut self.outbox);
                        }
                        Machine::Reader(_) => unreachable!("a reader has no work that needs a secret"),
                    }
                }
            }
        }
        if let Machine::Server { member, .. } = &self.machine
            && lock(member).barred
            && !self.stopping
        {
            self.exit(77, self.refused_for(Refusal::Retired));
        }
    }

    fn carry_out(&mut self, effect: Effect, done: &mut VecDeque<Done>) {
        match effect {
            Effect::Send { to, bytes } => {
                self.links.send_to(&to, Channel::Protocol, Bytes::from_owner(bytes))
            }
            // A record is signed once: what it is made of must not be replaced after a crash.
            Effect::Propose(command @ Command::SignRecord(_)) => self.propose_firmly(command),
            Effect::Propose(command) => self.propose(command),
            Effect::Work(job) => self.work(job, done),
            Effect::Report(report) => {
                match &report {
                    Report::RecordSeen { record, .. } => {
                        self.saw_finalized(record.round, record.participants.count_ones());
                    }
                    Report::AggregateForwarded { round, .. } | Report::Sealed { round, .. } => {
                        self.own_rounds.takes_part(*round);
                    }
                    Report::HeaderUntrusted { round, .. } => self.own_rounds.declines(*round),
                    Report::Published { request, outcome, round } => {
                        if let Some(known) = self.waiting.remove(request) {
                            known.send(Known { outcome: *outcome, round: *round }).ok();
                        }
                    }
                    _ => {}
                }
                self.world.observe(Event::Core(report));
            }
            Effect::Past(report) => self.world.observe(Event::Past(report)),
            Effect::HandOver => self.hand_over(),
            Effect::Stopped => self.end = Some(End::Exit(Exit::clean())),
        }
    }

    /// A record was seen. After a restart others show old ones again: a round in which this process had no part says
    /// nothing about how rounds go at present.
    fn saw_finalized(&mut self, round: Round, participants: u32) {
        let reads = matches!(self.machine, Machine::Reader(_));
        let is_known = self.last_seen.is_some_and(|(seen, _)| seen.round == round);
        if !is_known && (reads || self.own_rounds.has(round)) {
            self.rounds_seen = self.rounds_seen.saturating_add(1);
            let seen = Finalized { round, participants, age: Duration::ZERO };
            let now = self.world.now();
            if let Some((_, before)) = self.last_seen.replace((seen, now)) {
                self.gaps = [self.gaps[1], now.since(before)];
            }
        }
    }

    fn propose(&mut self, command: Command) {
        let Machine::Server { member, group } = &self.machine else { return };
        if group.is_leader() {
            group.propose(wire::encode_command(&command).to_vec());
            return;
        }
        let leader = lock(member).server.leader();
        if let Some(leader) = leader.filter(|leader| *leader != self.own.peer) {
            let bytes = wire::encode(&Message::Propose(command));
            self.links.send_to(&leader, Channel::Protocol, Bytes::from_owner(bytes));
        }
    }

    /// Proposes once what was applied until then is on disk as committed. What the disk refuses, it says elsewhere.
    fn propose_firmly(&self, command: Command) {
        let Machine::Server { group, .. } = &self.machine else { return };
        let (group, sender) = (group.clone(), self.sender.clone());
        drop(W::Runtime::spawn(async move {
            if group.sync_committed().await.is_ok() {
                drop(sender.unbounded_send(Happening::Firm(command)));
            }
        }));
    }

    /// What takes long is done away from the loop, on all threads, and without the keyring: nothing else waits for it.
    fn work(&mut self, job: Job, done: &mut VecDeque<Done>) {
        let begun = lock(&self.keyring).begin(&job, self.world.threads(), || self.world.entropy());
        let shares = match begun {
            Begun::Done(result) => return done.push_back(result),
            Begun::Shared(shares) => shares,
        };
        let (keyring, sender) = (Arc::clone(&self.keyring), self.sender.clone());
        drop(W::Runtime::spawn(async move {
            let working = shares.into_iter().map(|share| W::Runtime::spawn_blocking(move || share.work()));
            let worked: Result<Vec<Worked>, _> = join_all(working).await.into_iter().collect();
            if let Ok(worked) = worked {
                let result = lock(&keyring).finish(&job, worked);
                drop(sender.unbounded_send(Happening::Done(result)));
            }
        }));
    }

    fn housekeep(&mut self, now: Time) {
        for id in self.links.overdue(now) {
            if let Some(entry) = self.links.get(id).filter(|entry| !entry.refused) {
                self.rejected("hello", "overdue", entry.peer);
            }
            self.closed(id, None);
        }
        self.part_from_other_logs();
        self.trust_aggregator();
        self.look_after_book(now);
        self.make_room();
        self.keep_believed();
        self.remember(now);
        if self.announce_at <= now {
            self.announce_at = now.after(self.config.announce_interval);
            self.announce();
            self.book.expire(now);
            self.look_for_unlisted_voters();
            self.other_log.take_if(|(.., at)| now.since(*at) >= OTHER_LOG_NOTED);
            self.turned_away.retain(|_, (_, at)| now.since(*at) < TURNED_AWAY_NOTED);
            let have = self.book.digest();
            let frame: Bytes = Frame::PeersWanted { have }.encode().into();
            for (peer, hello) in self.links.linked() {
                if hello.role != Role::Client {
                    self.links.send_to(peer, Channel::Control, frame.clone());
                }
            }
        }
        self.dial(now);
        self.look_after_founding(now);
        self.look_after_members();
        self.look_after_reach(now);
        if self.own.role == Role::Client {
            self.look_after_bond(now);
        }
        self.look_after_causes();
    }

    /// Says goodbye and lets go of everything.
    async fn close(mut self, end: &End) {
        self.acceptor.abort();
        if self.stopping {
            self.announce();
        }
        self.gossip(gossip::Input::Leave);
        let farewell = match end {
            End::Yield(_) => Farewell::Yielding,
            End::Exit(_) => Farewell::Departing,
        };
        self.links.close_all(farewell);
        if let Machine::Server { group, .. } = &self.machine {
            group.shutdown().await;
        }
        // Whoever takes the state folder next finds nobody writing to it.
        while self.remembering {
            self.remembering = !matches!(self.queue.next().await, Some(Happening::Remembered(_)) | None);
        }
    }
}

async fn accept<L: Link>(link: L, mut arrivals: mpsc::Sender<Happening<L::Connection>>) {
    while let Ok(connection) = link.accept().await {
        if arrivals.send(Happening::Accepted(connection)).await.is_err() {
            return;
        }
    }
}

/// Brings everything that arrives on a connection into the loop, as fast as the loop takes it.
async fn read<N: Connection>(id: ConnectionId, connection: N, mut arrivals: mpsc::Sender<Happening<N>>) {
    loop {
        let happening = match connection.receive().await {
            Ok((channel, message)) => Happening::Received { id, channel, message },
            Err(error) => Happening::Closed(id, error),
        };
        let last = matches!(happening, Happening::Closed(..));
        if arrivals.send(happening).await.is_err() || last {
            return;
        }
    }
}

/// Hands on what consensus tells, and wakes the loop where it has to act.
fn on_event<W: Observer>(world: W, sender: mpsc::UnboundedSender<Happening<Conn<W>>>) -> consensus::OnEvent {
    Arc::new(move |event| {
        if let consensus::Event::Refused { from, refusal } = event {
            let (kind, reason, peer) = ("consensus", refusal.name(), from.peer);
            return world.observe(Event::Rejected { kind, reason, peer });
        }
        let happening = match &event {
            consensus::Event::Leader { leader, .. } => Some(Happening::Led(leader.map(|leader| leader.peer))),
            consensus::Event::MembersChanged { .. } => Some(Happening::MembersChanged),
            consensus::Event::Failed { fault, reason } => {
                Some(Happening::Failed { fault: *fault, reason: reason.clone() })
            }
            _ => None,
        };
        world.observe(Event::Consensus(event));
        if let Some(happening) = happening {
            drop(sender.unbounded_send(happening));
        }
    })
}

fn disk_failed(reason: String) -> Exit {
    let advice = "see to the disk of the state folder, then start the node again: nothing that it acknowledged is lost";
    Exit { code: 1, reason: format!("failed to {reason}; {advice}") }
}

fn data_failed(reason: String) -> Exit {
    let advice = "keep the state folder for whoever looks into it, and start with an empty one if the other servers \
                  are a majority without this one: the server then joins as a new one";
    Exit { code: 65, reason: format!("failed to {reason}; {advice}") }
}

fn store_failed(error: identity::StoreError) -> Exit {
    match error {
        identity::StoreError::Disk(reason) => disk_failed(reason),
        identity::StoreError::Damaged(reason) => data_failed(reason),
        identity::StoreError::OtherPeer(reason) => Exit { code: 65, reason: format!("failed to {reason}") },
        identity::StoreError::OtherGroup => {
            data_failed("use the state folder: it is still of another committee".to_owned())
        }
    }
}

fn open_failed(error: OpenError) -> Exit {
    if error.is_data() { data_failed(error.to_string()) } else { disk_failed(error.to_string()) }
}
