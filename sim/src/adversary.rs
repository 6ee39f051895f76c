//! Liars: real nodes with one named deviation.
//!
//! A liar runs the same node as everybody else. It leaves out the rule that would stop an honest node from doing the
//! deed, and what arrives at it and leaves it is changed on the way, signed with its own key. One that copies a round key
//! announces it from its next start on.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use zipnet_core::bitmap::Bitmap;
use zipnet_core::checks::Check;
use zipnet_core::id::{Digest, PeerId, UniqueId};
use zipnet_core::key::{Identity, NodeSecret};
use zipnet_core::message::{Aggregate, Command, Message, Partial};
use zipnet_core::wire;
use zipnet_node::world::Channel;
use zipnet_scenarios::words::Deviation;

pub(crate) use self::stranger::Overheard;
use self::stranger::Stranger;
use crate::defect::{Announced, Switch};
use crate::network::Tap;

mod stranger;

/// How many headers are remembered.
const HEADERS_MAX: usize = 16;

/// How a node deviates. Survives restarts of the node; clones are the same.
#[derive(Clone)]
pub(crate) struct Liar {
    shared: Arc<Mutex<Shared>>,
    /// What the node leaves out while it lies.
    left_out: Arc<AtomicU64>,
    announced: Announced,
}

struct Shared {
    deviation: Deviation,
    identity: Option<Identity>,
    /// By header: the one client whose envelope is let in.
    chosen: BTreeMap<Digest, PeerId>,
    /// A server's partials of the last two headers, the older one first.
    partials: Vec<Partial>,
    stranger: Stranger,
}

impl Liar {
    /// One that is honest so far. What strangers overhear they share.
    pub(crate) fn new(overheard: &Overheard) -> Self {
        let shared = Shared {
            deviation: Deviation::Honest,
            identity: None,
            chosen: BTreeMap::new(),
            partials: Vec::new(),
            stranger: Stranger::new(overheard.clone()),
        };
        let (left_out, announced) = (Arc::default(), Announced::default());
        Self { shared: Arc::new(Mutex::new(shared)), left_out, announced }
    }

    /// From now on it deviates in this way. `other` is whose round key it copies, if it copies one.
    pub(crate) fn deviate(&self, deviation: Deviation, other: Option<&Self>) {
        self.with(|shared| shared.deviation = deviation);
        let left_out = match deviation {
            Deviation::Honest
            | Deviation::StalePartial
            | Deviation::CopyServerKey
            | Deviation::CopyClientKey
            | Deviation::ClaimLog
            | Deviation::RefuseEverybody
            | Deviation::Usurp
            | Deviation::Flood
            | Deviation::Babble => 0,
            Deviation::SingleParticipant | Deviation::ForgeParticipants => {
                Switch::bit(Check::ParticipantFloor)
            }
        };
        self.left_out.store(left_out, Ordering::SeqCst);
        let copies = matches!(deviation, Deviation::CopyServerKey | Deviation::CopyClientKey);
        self.announced.copy(other.filter(|_| copies).map(Self::announced));
    }

    /// Whether it deviates.
    pub(crate) fn is_lying(&self) -> bool {
        self.with(|shared| shared.deviation != Deviation::Honest)
    }

    /// Signs with this secret: 64 hexadecimal digits.
    pub(crate) fn is_called(&self, secret: &str) {
        let secret = UniqueId::from_text(secret).0;
        let identity = || Identity::from_secret(&NodeSecret::from_bytes(secret));
        self.with(|shared| {
            shared.identity = Some(identity());
            shared.stranger.is_called(identity(), &secret);
        });
    }

    /// Which rules the node leaves out, as long as it lies.
    pub(crate) fn switch(&self) -> Switch {
        Switch(Arc::clone(&self.left_out))
    }

    /// Which round key the node announces.
    pub(crate) fn announced(&self) -> Announced {
        self.announced.clone()
    }

    /// What changes the node's messages.
    pub(crate) fn tap(&self) -> Arc<dyn Tap> {
        Arc::new(self.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Shared) -> T) -> T {
        act(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Liar({})", self.with(|shared| shared.deviation))
    }
}

impl Tap for Liar {
    /// Envelopes of all clients but one are lost on the way.
    fn receives(&self, from: PeerId, channel: Channel, message: &Bytes) -> bool {
        self.with(|shared| {
            if stranger::is_one(shared.deviation) {
                return shared.stranger.hears(shared.deviation, from, channel, message);
            }
            if shared.deviation == Deviation::Honest || channel != Channel::Protocol {
                return true;
            }
            let Ok(Message::Envelope(envelope)) = wire::decode(message) else { return true };
            while shared.chosen.len() >= HEADERS_MAX {
                shared.chosen.pop_first();
            }
            *shared.chosen.entry(envelope.header).or_insert(from) == from
        })
    }

    fn sends(&self, to: PeerId, channel: Channel, message: Bytes) -> Vec<(Channel, Bytes)> {
        let said = self.with(|shared| {
            let deviates = stranger::is_one(shared.deviation);
            deviates.then(|| shared.stranger.says(shared.deviation, to, channel, &message))
        });
        if let Some(said) = said {
            return said;
        }
        let changed = match wire::decode(&message) {
            Ok(decoded) if channel == Channel::Protocol => self.with(|shared| shared.change(decoded)),
            Ok(_) | Err(_) => None,
        };
        vec![(channel, changed.map_or(message, |changed| Bytes::from_owner(wire::encode(&changed))))]
    }
}

impl Shared {
    /// What is sent instead of a message; `None` if it is left alone.
    fn change(&mut self, message: Message) -> Option<Message> {
        match (message, &self.identity) {
            (Message::Aggregate(aggregate), Some(identity))
                if self.deviation == Deviation::ForgeParticipants =>
            {
                Some(Message::Aggregate(forged(aggregate, identity)))
            }
            (Message::Propose(Command::SubmitPartial(partial)), _) => {
                let stale = self.remember(partial)?;
                let lies = self.deviation == Deviation::StalePartial;
                lies.then_some(Message::Propose(Command::SubmitPartial(stale)))
            }
            _ => None,
        }
    }

    /// The partial of the header before this one's.
    fn remember(&mut self, partial: Partial) -> Option<Partial> {
        if self.partials.last().is_none_or(|last| last.header != partial.header) {
            self.partials.push(partial);
        }
        if self.partials.len() > 2 {
            self.partials.remove(0);
        }
        (self.partials.len() == 2).then(|| self.partials[0].clone())
    }
}

/// The same aggregate, said to hold everybody.
fn forged(mut aggregate: Aggregate, identity: &Identity) -> Aggregate {
    let len = aggregate.participants.len();
    if let Some(everybody) = Bitmap::from_ones(len, 0..len) {
        aggregate.participants = everybody;
        aggregate.signature = identity.sign(&aggregate.digest());
    }
    aggregate
}
