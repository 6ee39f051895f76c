//! Liars: real nodes with one named deviation.
//!
//! A liar runs the same node as everybody else. It leaves out the rule that would stop an honest node from doing the
//! deed, and what arrives at it and leaves it is changed on the way, signed with its own key. One that copies a round key
//! announces it from its next start on. What needs more than that has files of its own:
//!
//! - `overheard`: what servers tell each other about the log
//! - `coup`: what a lying server makes of that
//! - `stranger`: those that belong to nobody, and a server that sends anything

use core::fmt;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use zipnet_core::bitmap::Bitmap;
use zipnet_core::checks::Check;
use zipnet_core::committee;
use zipnet_core::id::{Digest, PeerId, UniqueId};
use zipnet_core::key::{Identity, NodeSecret};
use zipnet_core::message::{Aggregate, Command, Message, Partial, RecordSignature};
use zipnet_core::wire;
use zipnet_node::world::Channel;
use zipnet_scenarios::words::Deviation;

use crate::defect::{Announced, Switch};
use crate::network::Tap;
use crate::runtime::now;

mod coup;
mod overheard;
mod stranger;

pub(crate) use self::overheard::Overheard;
pub(crate) use self::stranger::Hearsay;

use self::coup::{Coup, Plot, Way};
use self::stranger::Stranger;

/// How many headers are remembered.
const HEADERS_MAX: usize = 16;

/// Whether those who deviate in this way have to know what servers tell each other, or have something to tell each other
/// themselves.
pub(crate) const fn concerns_log(deviation: Deviation) -> bool {
    matches!(
        deviation,
        Deviation::LeadUninvited
            | Deviation::TakeBackAggregate
            | Deviation::TakeBackRecord
            | Deviation::SignTwoRecords
    )
}

/// How a node deviates. Survives restarts of the node; clones are the same.
#[derive(Clone)]
pub(crate) struct Liar {
    shared: Arc<Mutex<Shared>>,
    /// What the node leaves out while it lies.
    left_out: Arc<AtomicU64>,
    announced: Announced,
    overheard: Overheard,
}

struct Shared {
    deviation: Deviation,
    identity: Option<Identity>,
    /// By header: the one client whose envelope is let in.
    chosen: BTreeMap<Digest, PeerId>,
    /// A server's partials of the last two headers, the older one first.
    partials: Vec<Partial>,
    coup: Coup,
    stranger: Stranger,
}

impl Liar {
    /// One that is honest so far, with what its kind shares: what servers tell each other, and what strangers do.
    pub(crate) fn new(overheard: Overheard, hearsay: Hearsay) -> Self {
        let shared = Shared {
            deviation: Deviation::Honest,
            identity: None,
            chosen: BTreeMap::new(),
            partials: Vec::new(),
            coup: Coup::default(),
            stranger: Stranger::new(hearsay),
        };
        let (left_out, announced) = (Arc::default(), Announced::default());
        Self { shared: Arc::new(Mutex::new(shared)), left_out, announced, overheard }
    }

    /// From now on it deviates in this way. `other` is whose round key it copies, if it copies one.
    pub(crate) fn deviate(&self, deviation: Deviation, other: Option<&Self>) {
        self.with(|shared| shared.deviation = deviation);
        let left_out = match deviation {
            Deviation::SingleParticipant | Deviation::ForgeParticipants => {
                Switch::bit(Check::ParticipantFloor)
            }
            _ => 0,
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
            shared.coup = Coup::default();
            shared.stranger.is_called(identity(), &secret);
        });
    }

    /// A server of this committee begins.
    pub(crate) fn serves(&self, config: &committee::Config) {
        self.overheard.serves(config);
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
    fn receives(&self, from: PeerId, channel: Channel, message: &Bytes) -> bool {
        self.with(|shared| match (shared.deviation, channel) {
            // It learns nothing, and so is never given a vote.
            (Deviation::LeadUninvited, Channel::Consensus | Channel::Bulk) => false,
            (
                Deviation::TakeBackAggregate | Deviation::TakeBackRecord,
                Channel::Consensus | Channel::Bulk,
            ) => {
                let lost = shared.coup.keeps(Way::In, from, message, now());
                if let Some(identity) = shared.identity.as_ref().filter(|_| lost) {
                    shared.coup.answered(message, identity, &self.overheard);
                }
                !lost
            }
            (Deviation::TakeBackAggregate, Channel::Protocol) => {
                !shared.captures(Plot::Aggregate, from, message, &self.overheard)
            }
            (Deviation::TakeBackRecord, Channel::Protocol) => {
                !shared.captures(Plot::Record, from, message, &self.overheard)
            }
            (Deviation::SingleParticipant | Deviation::ForgeParticipants, Channel::Protocol) => {
                shared.lets_in(from, message)
            }
            (deviation, _) if stranger::is_one(deviation) => {
                shared.stranger.hears(deviation, from, channel, message)
            }
            _ => true,
        })
    }

    fn sends(&self, to: PeerId, channel: Channel, message: Bytes) -> Vec<(Channel, Bytes)> {
        let log = matches!(channel, Channel::Consensus | Channel::Bulk);
        if log {
            self.overheard.hear(&message);
        }
        self.with(|shared| {
            if stranger::is_one(shared.deviation) {
                return shared.stranger.says(shared.deviation, to, channel, &message);
            }
            let mut said = match shared.said(to, channel, &message, &self.overheard) {
                Said::AsItIs => vec![(channel, message)],
                Said::Instead(messages) => messages,
            };
            said.extend(shared.coup.waiting(to));
            said
        })
    }
}

/// What becomes of a message.
enum Said {
    AsItIs,
    Instead(Vec<(Channel, Bytes)>),
}

impl Shared {
    /// Envelopes of all clients but one are lost on the way.
    fn lets_in(&mut self, from: PeerId, message: &[u8]) -> bool {
        let Ok(Message::Envelope(envelope)) = wire::decode(message) else { return true };
        while self.chosen.len() >= HEADERS_MAX {
            self.chosen.pop_first();
        }
        *self.chosen.entry(envelope.header).or_insert(from) == from
    }

    /// Whether a proposal is lost because its sender is captured, or is to be.
    fn captures(&mut self, plot: Plot, from: PeerId, message: &[u8], overheard: &Overheard) -> bool {
        let Ok(Message::Propose(command)) = wire::decode(message) else { return false };
        self.coup.proposed(plot, from, &command, now(), overheard)
    }

    fn said(&mut self, to: PeerId, channel: Channel, message: &Bytes, overheard: &Overheard) -> Said {
        if channel == Channel::Control
            && let Some(identity) = &self.identity
        {
            self.coup.controls(identity.peer(), message);
        }
        let log = matches!(channel, Channel::Consensus | Channel::Bulk);
        match self.deviation {
            Deviation::LeadUninvited if channel == Channel::Datagram || log => {
                self.coup.lead(to, now(), overheard);
                Said::AsItIs
            }
            Deviation::ForkLog if log => match self.coup.fork(to, message) {
                Some(other) => Said::Instead(vec![(channel, other)]),
                None => Said::AsItIs,
            },
            Deviation::TakeBackAggregate | Deviation::TakeBackRecord
                if log && self.coup.keeps(Way::Out, to, message, now()) =>
            {
                Said::Instead(Vec::new())
            }
            Deviation::ForgeParticipants | Deviation::StalePartial | Deviation::SignTwoRecords
                if channel == Channel::Protocol =>
            {
                let Ok(decoded) = wire::decode(message) else { return Said::AsItIs };
                let messages = self.change(decoded, overheard);
                if messages.is_empty() {
                    return Said::AsItIs;
                }
                let encoded = |message| (channel, Bytes::from_owner(wire::encode(&message)));
                Said::Instead(messages.into_iter().map(encoded).collect())
            }
            _ => Said::AsItIs,
        }
    }

    /// What is sent instead of a message; nothing if it is left alone.
    fn change(&mut self, message: Message, overheard: &Overheard) -> Vec<Message> {
        let Some(identity) = &self.identity else { return Vec::new() };
        match (self.deviation, message) {
            (Deviation::ForgeParticipants, Message::Aggregate(aggregate)) => {
                vec![Message::Aggregate(forged(aggregate, identity))]
            }
            (Deviation::StalePartial, Message::Propose(Command::SubmitPartial(partial))) => {
                let stale = self.remember(partial);
                stale.map(|stale| Message::Propose(Command::SubmitPartial(stale))).into_iter().collect()
            }
            (Deviation::SignTwoRecords, Message::Propose(Command::SignRecord(own))) => {
                let second = signed_otherwise(&own, identity);
                overheard.with(|heard| heard.handed_on = Some(second));
                Vec::new()
            }
            (
                Deviation::SignTwoRecords,
                message @ (Message::Record { .. } | Message::RecordSigned { .. }),
            ) => {
                let second = overheard.with(|heard| heard.handed_on).flatten();
                let further = second.map(|second| Message::RecordSigned { signatures: [second].into() });
                [message].into_iter().chain(further).collect()
            }
            _ => Vec::new(),
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

/// A signature under a record of the same round that there never was.
fn signed_otherwise(own: &RecordSignature, identity: &Identity) -> RecordSignature {
    let mut other = *own;
    other.record.0[0] ^= 1;
    other.signature = identity.sign(&other.signed_digest());
    other
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
