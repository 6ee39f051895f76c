//! What the servers of a deployment tell each other about the log.
//!
//! Whoever attacks the log is given all of it: the leader's vote, every entry, what is committed, and the states that the
//! committed entries lead to. An adversary that knows less can do less.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use zipnet_core::checks::{Check, Checks};
use zipnet_core::committee::{self, Committee};
use zipnet_core::id::{Digest, PeerId, Round};
use zipnet_core::key::Signature;
use zipnet_core::message::{Command, Header, Partial, RecordSignature};
use zipnet_core::wire;
use zipnet_node::consensus::codec::{Frame, Request, decode_frame};
use zipnet_node::consensus::types::{Entry, LogId, Payload, StoredMembership, Vote};

/// The rules as an adversary computes them: it knows that what it made up itself is not signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsigned;

impl Checks for Unsigned {
    fn enforce(&self, _: Check) -> bool {
        true
    }

    fn verify(&self, _: &PeerId, _: &Digest, _: &Signature) -> bool {
        true
    }
}

/// Listens to all servers of a deployment. Clones hear the same.
#[derive(Clone, Default)]
pub(crate) struct Overheard(Option<Arc<Mutex<Heard>>>);

/// What was heard so far.
#[derive(Default)]
pub(super) struct Heard {
    config: Option<committee::Config>,
    /// Who leads.
    pub(super) leader: Option<Vote>,
    /// What is not applied yet.
    entries: BTreeMap<u64, Entry>,
    pub(super) committed: Option<LogId>,
    applied: Option<u64>,
    pub(super) membership: StoredMembership,
    pub(super) machine: Option<Committee<Unsigned>>,
    /// The newest round that was opened.
    pub(super) round: Option<Opened>,
    /// What one liar gives another to pass on.
    pub(super) handed_on: Option<RecordSignature>,
}

/// A round, with the states of the machine on its way.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) header: Header,
    pub(super) digest: Digest,
    /// Before the aggregate came.
    pub(super) unfolded: Option<Bytes>,
    /// Before the first partial came.
    pub(super) blinded: Option<Bytes>,
    pub(super) partials: BTreeMap<PeerId, Partial>,
}

impl Overheard {
    /// Listens from here on. An [`Overheard`] that was made otherwise hears nothing, and costs nothing.
    pub(crate) fn listening() -> Self {
        Self(Some(Arc::default()))
    }

    /// A server of this committee begins.
    pub(crate) fn serves(&self, config: &committee::Config) {
        self.with(|heard| {
            if heard.config.as_ref().is_none_or(|known| known.group != config.group) {
                *heard = Heard { config: Some(config.clone()), ..Heard::default() };
            }
        });
    }

    /// A server says this to another one.
    pub(super) fn hear(&self, frame: &[u8]) {
        self.with(|heard| {
            if let Ok(Frame::Request(_, request)) = decode_frame(frame) {
                heard.hear(request);
            }
        });
    }

    /// Asks about it. `None` without listening.
    pub(super) fn with<T>(&self, ask: impl FnOnce(&mut Heard) -> T) -> Option<T> {
        let heard = self.0.as_ref()?;
        Some(ask(&mut heard.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl fmt::Debug for Overheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Overheard({})", self.0.is_some())
    }
}

impl Heard {
    /// Whether nothing is under way: every entry that was sent is committed.
    pub(super) fn is_quiet(&self) -> bool {
        self.entries.is_empty() && self.committed.is_some()
    }

    fn hear(&mut self, request: Request) {
        let (vote, committed) = match request {
            Request::Append { vote, entries, commit, .. } => {
                for entry in entries {
                    self.enter(entry);
                }
                (vote, commit)
            }
            Request::Snapshot(vote, meta, snapshot) => {
                let index = meta.last_log_id.map(|last| last.index);
                if index > self.applied
                    && let Some(config) = &self.config
                {
                    let mut machine = Committee::new(config.clone(), Unsigned);
                    if machine.restore(&snapshot).is_ok() {
                        self.machine = Some(machine);
                        self.applied = index;
                        self.membership = meta.last_membership;
                        self.round = None;
                        self.entries.retain(|entry, _| Some(*entry) > index);
                    }
                }
                (vote, meta.last_log_id)
            }
            Request::Vote(_) | Request::PreVote(_) | Request::Transfer { .. } => return,
        };
        if self.leader.is_none_or(|leader| leader.leader_id.term < vote.leader_id.term) {
            self.leader = Some(vote);
        }
        let known = self.committed.map(|committed| committed.index);
        if let Some(committed) = committed.filter(|committed| Some(committed.index) > known) {
            self.committed = Some(committed);
        }
        self.advance();
    }

    fn enter(&mut self, entry: Entry) {
        let index = entry.log_id.index;
        if Some(index) <= self.applied
            || self.entries.get(&index).is_some_and(|own| own.log_id >= entry.log_id)
        {
            return;
        }
        // What came after an entry that is replaced is gone as well.
        self.entries.split_off(&index);
        self.entries.insert(index, entry);
    }

    fn advance(&mut self) {
        let (Some(config), Some(committed)) = (&self.config, self.committed) else { return };
        let config = config.clone();
        let mut machine = self.machine.take().unwrap_or_else(|| Committee::new(config, Unsigned));
        loop {
            let next = self.applied.map_or(0, |applied| applied + 1);
            if next > committed.index || !self.entries.contains_key(&next) {
                break;
            }
            let entry = self.entries.remove(&next).expect("it was there");
            self.applied = Some(next);
            match entry.payload {
                Payload::Normal(command) => self.apply(&mut machine, next, &command.0),
                Payload::Membership(members) => {
                    let voters = members.voter_ids().map(|voter| voter.0.peer).collect();
                    machine.set_voters(voters);
                    self.membership = StoredMembership::new(Some(entry.log_id), members);
                }
                Payload::Blank => {}
            }
        }
        self.machine = Some(machine);
    }

    fn apply(&mut self, machine: &mut Committee<Unsigned>, index: u64, bytes: &[u8]) {
        let decoded = wire::decode_command(bytes);
        let before = match &decoded {
            Ok(Command::SubmitAggregate(_)) => Some(Bytes::from(machine.snapshot())),
            Ok(_) | Err(_) => None,
        };
        machine.chain(index, bytes);
        let Ok(command) = decoded else { return };
        if machine.apply(index, &command, &mut Vec::new()).is_err() {
            return;
        }
        match (command, before) {
            (Command::OpenRound(header), _) => {
                let digest = header.digest();
                self.round =
                    Some(Opened { header, digest, unfolded: None, blinded: None, partials: BTreeMap::new() });
            }
            (Command::SubmitAggregate(_), before) => {
                if let Some(round) = &mut self.round {
                    round.unfolded = before;
                    round.blinded = Some(machine.snapshot().into());
                }
            }
            (Command::SubmitPartial(partial), _) => {
                if let Some(round) = &mut self.round {
                    round.partials.insert(partial.server, partial);
                }
            }
            _ => {}
        }
    }
}

impl Opened {
    /// Its number.
    pub(super) fn number(&self) -> Round {
        self.header.round
    }
}
