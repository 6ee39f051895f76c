//! How whoever runs a node talks to it.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::BTreeSet;

use futures_channel::{mpsc, oneshot};
use futures_util::FutureExt as _;
use zipnet_core::client::PublishError;
use zipnet_core::committee::SignedRecord;
use zipnet_core::id::{PeerId, Round};
use zipnet_core::machine::{Outcome, RequestId};
use zipnet_core::parts::Entries;

use crate::status::View;

/// What a node is asked to do.
#[derive(Debug)]
pub(super) enum Control {
    Stop,
    Publish { request: RequestId, payload: Vec<u8>, reply: Option<Replies> },
    Retire,
    RetireDead(PeerId),
    Approve(PeerId),
    Refuse(BTreeSet<PeerId>),
    Clients { begins: String, reply: oneshot::Sender<Vec<PeerId>> },
    Parts { round: Round, reply: oneshot::Sender<Option<Made>> },
    View(oneshot::Sender<View>),
}

/// Who waits for what becomes of a message.
#[derive(Debug)]
pub(super) struct Replies {
    /// Whether the client takes it.
    pub(super) accepted: oneshot::Sender<Result<(), PublishError>>,
    /// What became of it.
    pub(super) known: oneshot::Sender<Known>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// What.
    pub outcome: Outcome,
    /// The last round that it was sealed for.
    pub round: Round,
}

/// Resolves to what became of a message that a client has taken, and to nothing if the node ends before that is known.
/// Dropping it takes nothing back.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Known>);

impl Future for Receipt {
    type Output = Option<Known>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Known>> {
        self.0.poll_unpin(context).map(Result::ok)
    }
}

/// A record that a server holds, and what it was made of.
#[derive(Clone, Debug)]
pub struct Made {
    /// The record with the signatures that it has.
    pub record: SignedRecord,
    /// All commands of the log since the record before, with their positions.
    pub entries: Entries,
}

/// Talks to a running node. Clones talk to the same one; all calls return at once.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::UnboundedSender<Control>);

/// The node's end of its [`Handle`]s.
#[derive(Debug)]
pub struct Controls(pub(super) mpsc::UnboundedReceiver<Control>);

/// Makes a handle and the end that [`crate::node::run`] takes.
#[must_use]
pub fn control() -> (Handle, Controls) {
    let (sender, receiver) = mpsc::unbounded();
    (Handle(sender), Controls(receiver))
}

impl Handle {
    /// Asks for an orderly stop, as SIGTERM does.
    pub fn stop(&self) {
        self.send(Control::Stop);
    }

    /// Has a client publish a message, for whoever does not wait for what becomes of it. The caller chooses `request` and
    /// does not repeat it. Other roles ignore it.
    pub fn publish(&self, request: RequestId, payload: Vec<u8>) {
        self.send(Control::Publish { request, payload, reply: None });
    }

    /// The same, and says whether the client takes the message. `None` if the node has ended or is no client.
    pub async fn submit(
        &self,
        request: RequestId,
        payload: Vec<u8>,
    ) -> Option<Result<Receipt, PublishError>> {
        let ((accepted, answer), (known, receipt)) = (oneshot::channel(), oneshot::channel());
        self.send(Control::Publish { request, payload, reply: Some(Replies { accepted, known }) });
        Some(answer.await.ok()?.map(|()| Receipt(receipt)))
    }

    /// Has a server announce that it leaves for good. It is stopped afterwards, one gossip cycle later.
    pub fn retire(&self) {
        self.send(Control::Retire);
    }

    /// Tells a server that another one is dead for good.
    pub fn retire_dead(&self, server: PeerId) {
        self.send(Control::RetireDead(server));
    }

    /// Tells a server that its operator approves an aggregator, for as long as this process runs.
    pub fn approve(&self, aggregator: PeerId) {
        self.send(Control::Approve(aggregator));
    }

    /// Tells a server all clients that its operator refuses. Whoever is not among them is refused no more.
    pub fn refuse(&self, clients: BTreeSet<PeerId>) {
        self.send(Control::Refuse(clients));
    }

    /// Registered clients whose peer id begins with these hexadecimal digits, two at most. `None` if the node has ended.
    pub async fn clients(&self, begins: String) -> Option<Vec<PeerId>> {
        let (sender, receiver) = oneshot::channel();
        self.send(Control::Clients { begins, reply: sender });
        receiver.await.ok()
    }

    /// A record of the newest rounds with what it was made of. `None` if this node does not have it, or has ended.
    pub async fn parts(&self, round: Round) -> Option<Made> {
        let (sender, receiver) = oneshot::channel();
        self.send(Control::Parts { round, reply: sender });
        receiver.await.ok().flatten()
    }

    /// How the node stands. `None` if it has ended.
    pub async fn view(&self) -> Option<View> {
        let (sender, receiver) = oneshot::channel();
        self.send(Control::View(sender));
        receiver.await.ok()
    }

    /// A node that has ended needs no more orders.
    fn send(&self, control: Control) {
        drop(self.0.unbounded_send(control));
    }
}

/// How a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Of the process.
    pub code: u8,
    /// Why, as a sentence without a full stop.
    pub reason: String,
}

impl Exit {
    /// A clean stop.
    pub(super) fn clean() -> Self {
        Self { code: 0, reason: "stopped in order".to_owned() }
    }
}
