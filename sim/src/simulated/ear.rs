//! What a simulation hears of its nodes, the moment they say it.
//!
//! Everything that happens is shown at once to the properties and to the node's metrics. What may be told of it is kept
//! until the engine takes it.

use core::future::poll_fn;
use core::task::{Poll, Waker};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zipnet_core::checks::Mixed;
use zipnet_core::id::{GroupId, PeerId};
use zipnet_core::key::PublicKey;
use zipnet_core::machine::Report;
use zipnet_core::time::Time;
use zipnet_facts::Fact;
use zipnet_node::event::Event;
use zipnet_node::metrics::{BuildInfo, Metrics};
use zipnet_reports::properties::{self, Named, Seen, Subject, Watch};

use crate::cast::NodeId;
use crate::chain::{NodeIndex, Recorder};
use crate::site::Breach;

/// Hears everything. Clones are the same ear.
#[derive(Clone, Debug)]
pub(super) struct Ear(Arc<Mutex<State>>);

/// What is known of one node.
#[derive(Debug)]
struct Known {
    subject: Subject,
    /// The group of the latest process; servers only.
    group: Option<GroupId>,
    metrics: Option<Metrics>,
}

#[derive(Debug)]
struct State {
    recorder: Recorder,
    watch: Watch,
    nodes: Vec<Known>,
    told: Vec<(NodeId, Time, Fact)>,
    /// The round keys that stood in headers, by whose they are.
    announced: BTreeMap<PeerId, BTreeSet<PublicKey>>,
    breach: Option<Breach>,
    waker: Option<Waker>,
}

/// How a process begins.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) instance: &'a str,
    pub(super) build: BuildInfo,
    pub(super) floor: Option<u32>,
    pub(super) group: Option<GroupId>,
}

impl Ear {
    pub(super) fn new(recorder: Recorder, named: Named) -> Self {
        Self(Arc::new(Mutex::new(State {
            recorder,
            watch: Watch::new(named),
            nodes: Vec::new(),
            told: Vec::new(),
            announced: BTreeMap::new(),
            breach: None,
            waker: None,
        })))
    }

    /// A node is part of the run. Called in the order of their places.
    pub(super) fn enrol(&self, subject: Subject) {
        self.state().nodes.push(Known { subject, group: None, metrics: None });
    }

    /// A process of a node begins.
    pub(super) fn started(&self, node: NodeId, now: Time, peer: PeerId, start: Start<'_>) {
        let mut state = self.state();
        let Some(known) = state.nodes.get_mut(node) else { return };
        known.subject.peer = peer;
        known.group = start.group;
        known.metrics = Some(Metrics::new(now, start.instance, peer, &start.build, start.floor));
        state.judge(node, now, Seen::Started(properties::Start { group: start.group }));
    }

    /// A process ended by itself.
    pub(super) fn exited(&self, node: NodeId, now: Time, code: u8) {
        self.state().judge(node, now, Seen::Exited { code });
    }

    /// A process was ended from outside.
    pub(super) fn killed(&self, node: NodeId, now: Time) {
        self.state().judge(node, now, Seen::Killed);
    }

    /// A disk was emptied.
    pub(super) fn disk_lost(&self, node: NodeId, now: Time) {
        self.state().judge(node, now, Seen::DiskLost);
    }

    /// From this moment on this property is not judged.
    pub(super) fn waive(&self, property: &str) {
        self.state().watch.waive(property);
    }

    /// From this moment on the node deviates on purpose, or does no longer.
    pub(super) fn lies(&self, node: NodeId, liar: bool) {
        if let Some(known) = self.state().nodes.get_mut(node) {
            known.subject.liar = liar;
        }
    }

    /// Something that a node reports.
    pub(super) fn observe(&self, node: NodeIndex, now: Time, event: &Event) {
        let Ok(node) = usize::try_from(node.0) else { return };
        self.state().observe(node, now, event);
    }

    /// A vector that a node's keyring has made.
    pub(super) fn mixed(&self, node: NodeId, now: Time, mixed: &Mixed<'_>) {
        self.state().judge(node, now, Seen::Mixed(mixed));
    }

    /// How many finalised rounds had a crowd of each size.
    pub(super) fn crowds(&self) -> BTreeMap<u64, u64> {
        self.state().watch.crowds()
    }

    /// Why nothing can be said about a property, if that is so.
    pub(super) fn cannot_tell(&self, property: &str) -> Option<&'static str> {
        self.state().watch.cannot_tell(property)
    }

    /// What was told since the last call.
    ///
    /// # Errors
    /// The first breach, if there was one.
    pub(super) fn take(&self) -> Result<Vec<(NodeId, Time, Fact)>, Breach> {
        let mut state = self.state();
        match &state.breach {
            Some(breach) => Err(breach.clone()),
            None => Ok(core::mem::take(&mut state.told)),
        }
    }

    /// Resolves when a property is broken.
    pub(super) async fn broken(&self) {
        poll_fn(|context| {
            let mut state = self.state();
            if state.breach.is_some() {
                return Poll::Ready(());
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The group of a node's latest process.
    pub(super) fn group(&self, node: NodeId) -> Option<GroupId> {
        self.state().nodes.get(node)?.group
    }

    /// Reads the metrics of a node's latest process.
    pub(super) fn metrics<T>(&self, node: NodeId, read: impl FnOnce(&Metrics) -> T) -> Option<T> {
        self.state().nodes.get(node)?.metrics.as_ref().map(read)
    }

    /// The round keys of a peer that stood in headers.
    pub(super) fn announced(&self, peer: PeerId) -> BTreeSet<PublicKey> {
        self.state().announced.get(&peer).cloned().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn observe(&mut self, node: NodeId, now: Time, event: &Event) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        if let Some(metrics) = &mut known.metrics {
            metrics.observe(now, event);
        }
        if let Event::Core(Report::RoundOpened { header, .. })
        | Event::Past(Report::RoundOpened { header, .. }) = event
        {
            for server in &header.servers {
                self.announced.entry(server.peer).or_default().insert(server.round_key);
            }
        }
        let fact = event.fact();
        for seen in fact.iter().map(Seen::Fact).chain(beyond_facts(event)) {
            self.judge(node, now, seen);
        }
        self.told.extend(fact.map(|fact| (node, now, fact)));
    }

    fn judge(&mut self, node: NodeId, now: Time, seen: Seen<'_>) {
        if self.breach.is_some() {
            return;
        }
        let Some(known) = self.nodes.get(node) else { return };
        if let Err(violation) = self.watch.see(now, &known.subject, seen) {
            // The event itself was recorded before it was shown.
            let event = self.recorder.events().saturating_sub(1);
            let breach = Breach::of(violation, &known.subject.name);
            self.breach = Some(Breach { place: Some((event, now)), ..breach });
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }
}

/// What no fact tells of an event.
fn beyond_facts(event: &Event) -> Option<Seen<'_>> {
    match event {
        Event::Finished { report: Report::RoundFinalized { record, .. }, .. }
        | Event::Past(Report::RoundFinalized { record, .. })
        | Event::Core(Report::RecordSeen { record, .. }) => Some(Seen::Record(record)),
        Event::Core(Report::Sealed { header, request: Some(request), .. }) => {
            Some(Seen::Sealed { request: *request, header: *header })
        }
        _ => None,
    }
}
