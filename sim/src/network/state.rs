//! What is where: links, listeners, dials, connections, and the queue of what will happen.

use core::cmp::Reverse;
use core::task::{Poll, Waker};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use bytes::Bytes;
use zipnet_core::id::PeerId;
use zipnet_core::time::Time;
use zipnet_node::world::{Address, Channel, LinkError};

use super::Delivery;
use super::model::{Model, NetworkConfig, NetworkCounts};
use crate::chain::{Kind, NodeIndex, Recorder, Tamper};
use crate::random::Random;
use crate::runtime::now;

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dialler,
    Acceptor,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Dialler, Self::Acceptor];

    const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Dialler => 0,
            Self::Acceptor => 1,
        }
    }
}

/// The channels that deliver in order.
const RELIABLE: [Channel; 4] = [Channel::Control, Channel::Consensus, Channel::Bulk, Channel::Protocol];

/// The index of a reliable channel's stream; none for datagrams.
const fn stream(channel: Channel) -> Option<usize> {
    match channel {
        Channel::Control => Some(0),
        Channel::Consensus => Some(1),
        Channel::Bulk => Some(2),
        Channel::Protocol => Some(3),
        Channel::Datagram => None,
    }
}

/// What is to be done once the state is unlocked.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) deliveries: Vec<Delivery>,
    pub(super) wakers: Vec<Waker>,
}

pub(super) struct State {
    pub(super) config: NetworkConfig,
    pub(super) counts: NetworkCounts,
    /// Nodes of different groups do not reach each other.
    pub(super) groups: BTreeMap<NodeIndex, u32>,
    /// (from, to) of links that are cut.
    pub(super) cut: BTreeSet<(NodeIndex, NodeIndex)>,
    pub(super) isolated: BTreeSet<NodeIndex>,
    /// Nodes whose process is stopped without being killed.
    pub(super) paused: BTreeSet<NodeIndex>,
    /// The task that delivers.
    pub(super) waker: Option<Waker>,
    /// When that task will look at the queue at the latest.
    pub(super) armed: Option<Time>,
    recorder: Recorder,
    random: Random,
    links: BTreeMap<(NodeIndex, NodeIndex), LinkState>,
    /// By address; stays, closed, when the process ends.
    listeners: BTreeMap<Address, Listener>,
    dials: BTreeMap<u64, Dial>,
    connections: BTreeMap<u64, Connection>,
    /// What will happen, by time and then by the order of being scheduled.
    queue: BinaryHeap<Reverse<Entry>>,
    /// Numbers for dials, connections and entries of the queue; rises with each.
    numbers: u64,
    /// The delivery that [`Tamper::SwapDeliveries`] holds back.
    swapped: Option<(u64, Side, Channel, Bytes)>,
}

/// One direction between two nodes.
struct LinkState {
    /// None: the default.
    model: Option<Model>,
    random: Random,
    /// When the last byte that was sent will have left.
    free_at: Time,
}

struct Listener {
    node: NodeIndex,
    incarnation: u64,
    peer: PeerId,
    /// Whether the process lives.
    open: bool,
    backlog: VecDeque<u64>,
    waker: Option<Waker>,
}

struct Dial {
    from: NodeIndex,
    peer: PeerId,
    address: Address,
    repetitions: u32,
    outcome: Option<Result<u64, LinkError>>,
    waker: Option<Waker>,
}

struct Connection {
    /// By [`Side::index`].
    ends: [End; 2],
    exporter: [u8; 32],
    address: Address,
    incarnation: u64,
    /// Whether the idle timeout is running.
    blocked: bool,
    /// Rises whenever `blocked` changes, so that an old timeout is known as such.
    epoch: u64,
}

struct End {
    node: NodeIndex,
    peer: PeerId,
    life: Life,
    /// Whether the node holds a handle, or will by accepting.
    held: bool,
    inbox: VecDeque<(Channel, Bytes)>,
    waker: Option<Waker>,
    /// Outgoing, by [`stream`].
    streams: [Stream; 4],
    /// Outgoing bytes that the other end has not read.
    outstanding: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    Closed(u32),
    /// The process died.
    Dead,
}

#[derive(Default)]
struct Stream {
    /// When the last message sent will arrive.
    last: Time,
    under_way: VecDeque<Bytes>,
    /// How many of them, from the front, have arrived but for a cut.
    due: usize,
    /// A cut stopped a message; later ones wait behind it.
    stopped: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Time,
    number: u64,
    action: Action,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    /// A dial reaches the listener.
    Hello {
        dial: u64,
    },
    /// The answer to it reaches the dialler.
    Answer {
        dial: u64,
        refused: bool,
    },
    /// Nobody answered for too long.
    GiveUp {
        dial: u64,
    },
    /// A connection reaches the acceptor.
    Accept {
        connection: u64,
    },
    /// The next message of a stream of this end arrives.
    Message {
        connection: u64,
        dialler: bool,
        channel: usize,
    },
    /// The path healed: what was stopped arrives.
    Release {
        connection: u64,
        dialler: bool,
        channel: usize,
    },
    Datagram {
        connection: u64,
        dialler: bool,
        message: Bytes,
    },
    /// The close of this end arrives at the other.
    Close {
        connection: u64,
        dialler: bool,
        code: u32,
    },
    /// The idle timeout, if the connection is still in this epoch.
    Break {
        connection: u64,
        epoch: u64,
    },
}

const fn side(dialler: bool) -> Side {
    if dialler { Side::Dialler } else { Side::Acceptor }
}

impl State {
    pub(super) fn new(config: NetworkConfig, recorder: Recorder, random: Random) -> Self {
        Self {
            config,
            counts: NetworkCounts::default(),
            groups: BTreeMap::new(),
            cut: BTreeSet::new(),
            isolated: BTreeSet::new(),
            paused: BTreeSet::new(),
            waker: None,
            armed: None,
            recorder,
            random,
            links: BTreeMap::new(),
            listeners: BTreeMap::new(),
            dials: BTreeMap::new(),
            connections: BTreeMap::new(),
            queue: BinaryHeap::new(),
            numbers: 0,
            swapped: None,
        }
    }

    /// When something will happen next.
    pub(super) fn next(&self) -> Option<Time> {
        self.queue.peek().map(|Reverse(entry)| entry.at)
    }

    /// Does what is due.
    pub(super) fn run(&mut self, time: Time, effects: &mut Effects) {
        while self.next().is_some_and(|at| at <= time) {
            let Some(Reverse(entry)) = self.queue.pop() else { return };
            match entry.action {
                Action::Hello { dial } => self.hello(dial, effects),
                Action::Answer { dial, refused } => self.answer(dial, refused, effects),
                Action::GiveUp { dial } => self.finish_dial(dial, Err(LinkError::Unreachable), effects),
                Action::Accept { connection } => self.arrive_connection(connection, effects),
                Action::Message { connection, dialler, channel } => {
                    self.arrive(connection, side(dialler), channel, effects);
                }
                Action::Release { connection, dialler, channel } => {
                    self.release(connection, side(dialler), channel, effects);
                }
                Action::Datagram { connection, dialler, message } => {
                    self.arrive_datagram(connection, side(dialler), message, effects);
                }
                Action::Close { connection, dialler, code } => {
                    self.arrive_close(connection, side(dialler), code, effects);
                }
                Action::Break { connection, epoch } => self.idle_timeout(connection, epoch, effects),
            }
        }
    }

    // Nodes.

    pub(super) fn bind(&mut self, node: NodeIndex, incarnation: u64, peer: PeerId, address: &Address) {
        let listener =
            Listener { node, incarnation, peer, open: true, backlog: VecDeque::new(), waker: None };
        self.listeners.insert(address.clone(), listener);
    }

    pub(super) fn kill(&mut self, node: NodeIndex, effects: &mut Effects) {
        self.forget_process(node);
        for id in self.connections_of(node) {
            let connection = self.connections.get_mut(&id).expect("listed a line above");
            for end in connection.ends.iter_mut().filter(|end| end.node == node) {
                end.life = Life::Dead;
                end.inbox.clear();
                end.waker = None;
            }
            self.path_changed(id, effects);
        }
    }

    pub(super) fn exit(&mut self, node: NodeIndex, code: u32, effects: &mut Effects) {
        self.forget_process(node);
        for id in self.connections_of(node) {
            for side in Side::BOTH {
                if self.connections.get(&id).is_some_and(|found| found.end(side).node == node) {
                    self.close(id, side, code, effects);
                    self.drop_handle(id, side, effects);
                }
            }
        }
    }

    fn forget_process(&mut self, node: NodeIndex) {
        self.paused.remove(&node);
        for listener in self.listeners.values_mut().filter(|listener| listener.node == node) {
            listener.open = false;
            listener.backlog.clear();
            listener.waker = None;
        }
        self.dials.retain(|_, dial| dial.from != node);
    }

    fn connections_of(&self, node: NodeIndex) -> Vec<u64> {
        let has = |connection: &Connection| connection.ends.iter().any(|end| end.node == node);
        self.connections.iter().filter(|(_, connection)| has(connection)).map(|(id, _)| *id).collect()
    }

    // Dialling and accepting. The handshake takes the dialler one round trip; the acceptor has the connection half a
    // round trip later.

    pub(super) fn dial(
        &mut self,
        from: NodeIndex,
        peer: PeerId,
        address: Address,
        effects: &mut Effects,
    ) -> u64 {
        let number = self.number();
        self.note(from, Kind::Connection, &format!("dial {address}"));
        let to = self.listeners.get(&address).map(|listener| listener.node);
        self.dials.insert(number, Dial { from, peer, address, repetitions: 0, outcome: None, waker: None });
        if let Some(to) = to {
            let delay = self.reliable_delay(from, to, 0);
            self.schedule(now().after(delay), Action::Hello { dial: number }, effects);
        }
        let deadline = now().after(self.config.dial_timeout);
        self.schedule(deadline, Action::GiveUp { dial: number }, effects);
        number
    }

    pub(super) fn poll_dial(&mut self, number: u64, waker: &Waker) -> Poll<Result<u64, LinkError>> {
        let Some(dial) = self.dials.get_mut(&number) else {
            return Poll::Ready(Err(LinkError::Unreachable));
        };
        if let Some(outcome) = dial.outcome.take() {
            self.dials.remove(&number);
            return Poll::Ready(outcome);
        }
        dial.waker = Some(waker.clone());
        Poll::Pending
    }

    /// The dialling future was dropped. A connection that it did not get to see is closed.
    pub(super) fn forget_dial(&mut self, number: u64, effects: &mut Effects) {
        if let Some(Dial { outcome: Some(Ok(connection)), .. }) = self.dials.remove(&number) {
            self.drop_handle(connection, Side::Dialler, effects);
        }
    }

    pub(super) fn poll_accept(
        &mut self,
        address: &Address,
        incarnation: u64,
        waker: &Waker,
    ) -> Poll<Result<u64, LinkError>> {
        match self.listeners.get_mut(address) {
            Some(listener) if listener.open && listener.incarnation == incarnation => {
                if let Some(connection) = listener.backlog.pop_front() {
                    return Poll::Ready(Ok(connection));
                }
                listener.waker = Some(waker.clone());
                Poll::Pending
            }
            Some(_) | None => Poll::Ready(Err(LinkError::Closed(0))),
        }
    }

    fn hello(&mut self, number: u64, effects: &mut Effects) {
        let Some(dial) = self.dials.get(&number) else { return };
        let Some(listener) = self.listeners.get(&dial.address) else { return };
        let (from, to) = (dial.from, listener.node);
        if self.is_cut(from, to) {
            self.repeat_hello(number, effects);
            return;
        }
        let refused = !listener.open || listener.backlog.len() >= self.config.backlog_max;
        let delay = self.reliable_delay(to, from, 0);
        self.schedule(now().after(delay), Action::Answer { dial: number, refused }, effects);
    }

    fn repeat_hello(&mut self, number: u64, effects: &mut Effects) {
        let Some(dial) = self.dials.get_mut(&number) else { return };
        dial.repetitions += 1;
        let delay = self.config.model.retransmission(dial.repetitions);
        self.schedule(now().after(delay), Action::Hello { dial: number }, effects);
    }

    fn answer(&mut self, number: u64, refused: bool, effects: &mut Effects) {
        let Some(dial) = self.dials.get(&number) else { return };
        if dial.outcome.is_some() {
            return;
        }
        let Some(listener) = self.listeners.get(&dial.address) else { return };
        let (from, to) = (dial.from, listener.node);
        if self.is_cut(to, from) {
            self.repeat_hello(number, effects);
            return;
        }
        if refused || !listener.open {
            self.finish_dial(number, Err(LinkError::Unreachable), effects);
            return;
        }
        let mut ends = [End::new(from, dial.peer), End::new(to, listener.peer)];
        let (address, incarnation) = (dial.address.clone(), listener.incarnation);
        let id = self.number();
        let exporter = self.random.fork(&format!("exporter {id}")).bytes();
        let arrives = now().after(self.reliable_delay(from, to, 0));
        // What the dialler sends does not overtake the end of the handshake.
        ends[Side::Dialler.index()].streams.iter_mut().for_each(|stream| stream.last = arrives);
        let connection = Connection { ends, exporter, address, incarnation, blocked: false, epoch: 0 };
        self.connections.insert(id, connection);
        self.counts.connected += 1;
        self.note(from, Kind::Connection, &format!("connected c{id} to {to}"));
        self.schedule(arrives, Action::Accept { connection: id }, effects);
        self.finish_dial(number, Ok(id), effects);
        self.path_changed(id, effects);
    }

    fn finish_dial(&mut self, number: u64, outcome: Result<u64, LinkError>, effects: &mut Effects) {
        let Some(dial) = self.dials.get_mut(&number) else { return };
        if dial.outcome.is_some() {
            return;
        }
        dial.outcome = Some(outcome);
        effects.wakers.extend(dial.waker.take());
        if outcome.is_err() {
            self.counts.unreachable += 1;
            let (from, text) = (dial.from, format!("unreachable {}", dial.address));
            self.note(from, Kind::Connection, &text);
        }
    }

    fn arrive_connection(&mut self, id: u64, effects: &mut Effects) {
        let Some(connection) = self.connections.get(&id) else { return };
        let [dialler, acceptor] = &connection.ends;
        if acceptor.life != Life::Open {
            return;
        }
        if self.is_cut(dialler.node, acceptor.node) {
            let delay = self.config.model.retransmission(2);
            self.schedule(now().after(delay), Action::Accept { connection: id }, effects);
            return;
        }
        let (node, incarnation) = (acceptor.node, connection.incarnation);
        let Some(listener) = self.listeners.get_mut(&connection.address) else { return };
        if listener.open && listener.incarnation == incarnation {
            listener.backlog.push_back(id);
            effects.wakers.extend(listener.waker.take());
            self.note(node, Kind::Connection, &format!("accepts c{id}"));
        }
    }

    // Connections.

    /// (peer at the other end, exporter, dialled address).
    pub(super) fn describe(&self, id: u64, side: Side) -> (PeerId, [u8; 32], Option<Address>) {
        let Some(connection) = self.connections.get(&id) else { return (PeerId::default(), [0; 32], None) };
        let dialled = (side == Side::Dialler).then(|| connection.address.clone());
        (connection.end(side.other()).peer, connection.exporter, dialled)
    }

    pub(super) fn send(
        &mut self,
        id: u64,
        side: Side,
        channel: Channel,
        message: Bytes,
        effects: &mut Effects,
    ) -> Result<(), LinkError> {
        let connection = self.connections.get_mut(&id).ok_or(LinkError::Closed(0))?;
        let (from, to) = (connection.end(side).node, connection.end(side.other()).node);
        match connection.end(side).life {
            Life::Open => {}
            Life::Closed(code) => return Err(LinkError::Closed(code)),
            Life::Dead => return Err(LinkError::Closed(0)),
        }
        let stream = stream(channel);
        let limit =
            if stream.is_some() { self.config.message_bytes_max } else { self.config.datagram_bytes_max };
        if message.len() > limit {
            return Err(LinkError::TooLarge);
        }
        let end = connection.end_mut(side);
        if end.outstanding + message.len() > self.config.queue_bytes_max {
            self.counts.refused_full += 1;
            return Err(LinkError::Full);
        }
        end.outstanding += message.len();
        self.counts.sent += 1;
        self.counts.sent_bytes += len(&message);
        self.message(Kind::Sent, from, to, id, channel, &message);
        match stream {
            Some(channel) => {
                let delay = self.reliable_delay(from, to, message.len());
                let connection = self.connections.get_mut(&id).expect("found above");
                let stream = &mut connection.end_mut(side).streams[channel];
                stream.last = stream.last.max(now().after(delay));
                stream.under_way.push_back(message);
                let at = stream.last;
                let dialler = side == Side::Dialler;
                self.schedule(at, Action::Message { connection: id, dialler, channel }, effects);
            }
            None => self.send_datagram(id, side, from, to, message, effects),
        }
        Ok(())
    }

    fn send_datagram(
        &mut self,
        id: u64,
        side: Side,
        from: NodeIndex,
        to: NodeIndex,
        message: Bytes,
        effects: &mut Effects,
    ) {
        let queued = self.queue_for_bandwidth(from, to, message.len());
        let model = self.model(from, to);
        let random = &mut self.link(from, to).random;
        let (latency, repeated) = (model.latency.draw(random), model.latency.draw(random));
        let lost = random.permille(model.loss_permille);
        let duplicated = random.permille(model.duplicate_permille);
        let reordered = random.permille(model.reorder_permille);
        let dialler = side == Side::Dialler;
        if lost {
            self.drop_message(id, side, Channel::Datagram, &message);
            return;
        }
        let mut at = now().after(queued).after(latency);
        if reordered {
            self.counts.reordered += 1;
            at = at.after(latency * 3);
        }
        if duplicated {
            self.counts.duplicated += 1;
            self.message(Kind::Duplicated, from, to, id, Channel::Datagram, &message);
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.end_mut(side).outstanding += message.len();
            }
            let again = Action::Datagram { connection: id, dialler, message: message.clone() };
            self.schedule(at.after(repeated), again, effects);
        }
        self.schedule(at, Action::Datagram { connection: id, dialler, message }, effects);
    }

    pub(super) fn poll_receive(
        &mut self,
        id: u64,
        side: Side,
        waker: &Waker,
    ) -> Poll<Result<(Channel, Bytes), LinkError>> {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Poll::Ready(Err(LinkError::Closed(0)));
        };
        let end = connection.end_mut(side);
        if let Some((channel, message)) = end.inbox.pop_front() {
            connection.end_mut(side.other()).outstanding -= message.len();
            return Poll::Ready(Ok((channel, message)));
        }
        match end.life {
            Life::Open => {
                end.waker = Some(waker.clone());
                Poll::Pending
            }
            Life::Closed(code) => Poll::Ready(Err(LinkError::Closed(code))),
            Life::Dead => Poll::Ready(Err(LinkError::Closed(0))),
        }
    }

    pub(super) fn close(&mut self, id: u64, side: Side, code: u32, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (from, to) = (connection.end(side).node, connection.end(side.other()).node);
        let end = connection.end_mut(side);
        if end.life != Life::Open {
            return;
        }
        end.life = Life::Closed(code);
        effects.wakers.extend(end.waker.take());
        let unread: usize = end.inbox.drain(..).map(|(_, message)| message.len()).sum();
        // After everything that was sent before.
        let last = end.streams.iter().map(|stream| stream.last).max().unwrap_or_default();
        connection.end_mut(side.other()).outstanding -= unread;
        self.note(from, Kind::Connection, &format!("close c{id} {code}"));
        let at = last.max(now().after(self.reliable_delay(from, to, 0)));
        let dialler = side == Side::Dialler;
        self.schedule(at, Action::Close { connection: id, dialler, code }, effects);
        self.path_changed(id, effects);
    }

    /// The last handle of this end is gone.
    pub(super) fn drop_handle(&mut self, id: u64, side: Side, effects: &mut Effects) {
        self.close(id, side, 0, effects);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.end_mut(side).held = false;
            self.forget_if_over(id);
        }
    }

    fn arrive(&mut self, id: u64, side: Side, channel: usize, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (from, to) = (connection.end(side).node, connection.end(side.other()).node);
        let stream = &mut connection.end_mut(side).streams[channel];
        stream.due += 1;
        if stream.stopped {
            self.counts.held += 1;
            return;
        }
        if self.is_cut(from, to) {
            self.counts.held += 1;
            let connection = self.connections.get_mut(&id).expect("found above");
            connection.end_mut(side).streams[channel].stopped = true;
            return;
        }
        self.deliver_due(id, side, channel, effects);
    }

    fn release(&mut self, id: u64, side: Side, channel: usize, effects: &mut Effects) {
        let Some(connection) = self.connections.get(&id) else { return };
        if self.is_cut(connection.end(side).node, connection.end(side.other()).node) {
            return;
        }
        let connection = self.connections.get_mut(&id).expect("found above");
        connection.end_mut(side).streams[channel].stopped = false;
        self.deliver_due(id, side, channel, effects);
    }

    fn deliver_due(&mut self, id: u64, side: Side, channel: usize, effects: &mut Effects) {
        while let Some(connection) = self.connections.get_mut(&id) {
            let stream = &mut connection.end_mut(side).streams[channel];
            if stream.due == 0 {
                return;
            }
            stream.due -= 1;
            let message = stream.under_way.pop_front().expect("a due message is under way");
            self.deliver(id, side, RELIABLE[channel], message, effects);
        }
    }

    fn arrive_datagram(&mut self, id: u64, side: Side, message: Bytes, effects: &mut Effects) {
        let Some(connection) = self.connections.get(&id) else { return };
        if self.is_cut(connection.end(side).node, connection.end(side.other()).node) {
            self.drop_message(id, side, Channel::Datagram, &message);
        } else {
            self.deliver(id, side, Channel::Datagram, message, effects);
        }
    }

    /// Gives a message to the other end, unless nobody is there. Carries out [`Tamper`].
    fn deliver(&mut self, id: u64, side: Side, channel: Channel, message: Bytes, effects: &mut Effects) {
        let delivery = self.counts.delivered;
        match self.recorder.tamper() {
            Some(Tamper::FlipByte { delivery: chosen }) if chosen == delivery => {
                let mut bytes = message.to_vec();
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
                self.hand_over(id, side, channel, bytes.into(), effects);
            }
            Some(Tamper::SwapDeliveries { delivery: chosen })
                if chosen == delivery && self.swapped.is_none() =>
            {
                self.swapped = Some((id, side, channel, message));
            }
            _ => {
                self.hand_over(id, side, channel, message, effects);
                if let Some((id, side, channel, message)) = self.swapped.take() {
                    self.hand_over(id, side, channel, message, effects);
                }
            }
        }
    }

    fn hand_over(&mut self, id: u64, side: Side, channel: Channel, message: Bytes, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (from, to) = (connection.end(side).node, connection.end(side.other()).node);
        let end = connection.end_mut(side.other());
        if end.life != Life::Open {
            self.drop_message(id, side, channel, &message);
            return;
        }
        end.inbox.push_back((channel, message.clone()));
        effects.wakers.extend(end.waker.take());
        self.counts.delivered += 1;
        self.counts.delivered_bytes += len(&message);
        self.message(Kind::Delivered, to, from, id, channel, &message);
        effects.deliveries.push(Delivery { at: now(), from, to, channel, message });
    }

    fn drop_message(&mut self, id: u64, side: Side, channel: Channel, message: &Bytes) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (from, to) = (connection.end(side).node, connection.end(side.other()).node);
        connection.end_mut(side).outstanding -= message.len();
        self.counts.dropped += 1;
        self.message(Kind::Dropped, from, to, id, channel, message);
    }

    fn arrive_close(&mut self, id: u64, side: Side, code: u32, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (from, to) = (connection.end(side).node, connection.end(side.other()).node);
        let waits = connection.end(side).streams.iter().any(|stream| !stream.under_way.is_empty());
        if self.is_cut(from, to) {
            // A close is sent once; the other end finds out by the idle timeout.
            return;
        }
        if waits {
            let at = now().after(Duration::from_millis(5));
            let dialler = side == Side::Dialler;
            self.schedule(at, Action::Close { connection: id, dialler, code }, effects);
            return;
        }
        let connection = self.connections.get_mut(&id).expect("found above");
        let end = connection.end_mut(side.other());
        if end.life == Life::Open {
            end.life = Life::Closed(code);
            effects.wakers.extend(end.waker.take());
            self.note(to, Kind::Connection, &format!("closed c{id} {code}"));
        }
        self.path_changed(id, effects);
    }

    fn idle_timeout(&mut self, id: u64, epoch: u64, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.blocked || connection.epoch != epoch {
            return;
        }
        let mut broken = Vec::new();
        for end in &mut connection.ends {
            if end.life == Life::Open {
                end.life = Life::Closed(0);
                effects.wakers.extend(end.waker.take());
                broken.push(end.node);
            }
        }
        self.counts.broken += 1;
        for node in broken {
            self.note(node, Kind::Connection, &format!("broken c{id}"));
        }
        self.forget_if_over(id);
    }

    fn forget_if_over(&mut self, id: u64) {
        let over = self.connections.get(&id).is_some_and(|connection| {
            connection.ends.iter().all(|end| end.life == Life::Dead || (end.life != Life::Open && !end.held))
        });
        if over {
            self.connections.remove(&id);
        }
    }

    // Paths.

    pub(super) fn is_cut(&self, from: NodeIndex, to: NodeIndex) -> bool {
        if from == to {
            return false;
        }
        let apart = match (self.groups.get(&from), self.groups.get(&to)) {
            (Some(one), Some(other)) => one != other,
            (Some(_) | None, None) | (None, Some(_)) => false,
        };
        apart
            || self.cut.contains(&(from, to))
            || self.isolated.contains(&from)
            || self.isolated.contains(&to)
    }

    /// Follows every connection after a fault began or ended.
    pub(super) fn paths_changed(&mut self, effects: &mut Effects) {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.path_changed(id, effects);
        }
    }

    /// Starts or stops the idle timeout, and lets what was stopped continue.
    fn path_changed(&mut self, id: u64, effects: &mut Effects) {
        let Some(connection) = self.connections.get(&id) else { return };
        let [one, other] = &connection.ends;
        let (from, to) = (one.node, other.node);
        let open = connection.ends.iter().filter(|end| end.life == Life::Open).count();
        let (forth, back) = (self.is_cut(from, to), self.is_cut(to, from));
        let silent = self.paused.contains(&from) || self.paused.contains(&to);
        let blocked = open == 1 || (open == 2 && (forth || back || silent));
        let connection = self.connections.get_mut(&id).expect("found above");
        if blocked != connection.blocked {
            connection.blocked = blocked;
            connection.epoch += 1;
            let epoch = connection.epoch;
            if blocked {
                let at = now().after(self.config.idle_timeout);
                self.schedule(at, Action::Break { connection: id, epoch }, effects);
            }
        }
        for (side, cut) in [(Side::Dialler, forth), (Side::Acceptor, back)] {
            if !cut {
                self.schedule_releases(id, side, effects);
            }
        }
        self.forget_if_over(id);
    }

    fn schedule_releases(&mut self, id: u64, side: Side, effects: &mut Effects) {
        for channel in 0..RELIABLE.len() {
            let Some(connection) = self.connections.get(&id) else { return };
            if !connection.end(side).streams[channel].stopped {
                continue;
            }
            let (from, to) = (connection.end(side).node, connection.end(side.other()).node);
            let model = self.model(from, to);
            let random = &mut self.link(from, to).random;
            // The sender tries again at some moment of its retransmission timer.
            let delay = model.latency.draw(random) + random.duration(Duration::ZERO, model.retransmission(1));
            let dialler = side == Side::Dialler;
            self.schedule(now().after(delay), Action::Release { connection: id, dialler, channel }, effects);
        }
    }

    /// How long a message of a reliable channel takes from this moment: waiting for bandwidth, latency, and a
    /// retransmission for every time it is lost.
    fn reliable_delay(&mut self, from: NodeIndex, to: NodeIndex, bytes: usize) -> Duration {
        let mut delay = self.queue_for_bandwidth(from, to, bytes);
        let model = self.model(from, to);
        let random = &mut self.link(from, to).random;
        delay += model.latency.draw(random);
        let mut repetitions = 0;
        while repetitions < 16 && random.permille(model.loss_permille) {
            delay += model.retransmission(repetitions);
            repetitions += 1;
        }
        self.counts.retransmitted += u64::from(repetitions);
        delay
    }

    /// Takes up the link for these bytes; how long until the last of them has left.
    fn queue_for_bandwidth(&mut self, from: NodeIndex, to: NodeIndex, bytes: usize) -> Duration {
        let transmission = self.model(from, to).transmission(bytes);
        if transmission.is_zero() {
            return transmission;
        }
        let link = self.link(from, to);
        link.free_at = link.free_at.max(now()).after(transmission);
        link.free_at.since(now())
    }

    pub(super) fn set_model(&mut self, from: NodeIndex, to: NodeIndex, model: Model) {
        self.link(from, to).model = Some(model);
    }

    pub(super) fn reset_models(&mut self) {
        self.links.values_mut().for_each(|link| link.model = None);
    }

    fn model(&self, from: NodeIndex, to: NodeIndex) -> Model {
        self.links.get(&(from, to)).and_then(|link| link.model).unwrap_or(self.config.model)
    }

    /// Each link draws from a stream of its own.
    fn link(&mut self, from: NodeIndex, to: NodeIndex) -> &mut LinkState {
        let random = &self.random;
        self.links.entry((from, to)).or_insert_with(|| LinkState {
            model: None,
            random: random.fork(&format!("link {} {}", from.0, to.0)),
            free_at: Time::default(),
        })
    }

    // The queue and the records.

    fn schedule(&mut self, at: Time, action: Action, effects: &mut Effects) {
        let number = self.number();
        self.queue.push(Reverse(Entry { at, number, action }));
        if self.armed.is_none_or(|armed| at < armed) {
            effects.wakers.extend(self.waker.take());
        }
    }

    const fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn fault(&self, text: &str) {
        self.note(NodeIndex::NOBODY, Kind::Fault, text);
    }

    fn note(&self, node: NodeIndex, kind: Kind, text: &str) {
        self.recorder.note(now(), node, kind, text);
    }

    /// Records something about a message: at whom, the node at the other side, the connection, and every byte.
    fn message(
        &self,
        kind: Kind,
        node: NodeIndex,
        other: NodeIndex,
        id: u64,
        channel: Channel,
        message: &Bytes,
    ) {
        let about = [id.to_le_bytes(), u64::from(other.0).to_le_bytes()].concat();
        let tag = [stream(channel).map_or(4, |index| u8::try_from(index).expect("four streams"))];
        self.recorder.record(now(), node, kind, &[&about, &tag, message], || {
            format!("c{id} {other} {channel:?} {} bytes", message.len())
        });
    }
}

impl Connection {
    const fn end(&self, side: Side) -> &End {
        &self.ends[side.index()]
    }

    const fn end_mut(&mut self, side: Side) -> &mut End {
        &mut self.ends[side.index()]
    }
}

impl End {
    fn new(node: NodeIndex, peer: PeerId) -> Self {
        Self {
            node,
            peer,
            life: Life::Open,
            held: true,
            inbox: VecDeque::new(),
            waker: None,
            streams: Default::default(),
            outstanding: 0,
        }
    }
}

fn len(message: &Bytes) -> u64 {
    u64::try_from(message.len()).expect("lengths fit 64 bits")
}
