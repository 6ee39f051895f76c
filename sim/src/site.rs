//! Where a procedure is carried out: simulated machines, or processes of this one.
//!
//! The engine is the same in both worlds. It knows nodes by their place in the [`Cast`], gives orders through a [`Site`],
//! and hears what nodes tell. What a site does not control or cannot see it says by name; nothing is passed over.

use core::fmt;
use core::time::Duration;
use std::borrow::Cow;

use serde::Deserialize;
use zipnet_core::id::{GroupId, PeerId};
use zipnet_core::machine::RequestId;
use zipnet_core::time::Time;
use zipnet_facts::Fact;
use zipnet_node::status::Status;
use zipnet_reports::properties::{Named, Violation, sentence};
use zipnet_reports::{Checkpoint, Counts};
use zipnet_scenarios::Scenario;
use zipnet_scenarios::scenario::Expectation;
use zipnet_scenarios::verbs::Always;
use zipnet_scenarios::words::{self, Apply, Deviation, DiskFate};

use crate::cast::{Cast, Hint, NodeId};
use crate::wires::Paths;

/// Where a procedure is carried out.
///
/// Calls that are not async take no time that the run could notice.
pub(crate) trait Site {
    /// The longest time between two looks.
    const LOOK: Duration;

    /// All nodes.
    fn cast(&self) -> &Cast;

    /// All nodes, to be given other variables and secrets.
    fn cast_mut(&mut self) -> &mut Cast;

    /// The time since the run began.
    fn now(&self) -> Time;

    /// Lets time pass: this much, or less if something happened that ends the run.
    async fn sleep(&mut self, wait: Duration);

    /// What happened since the last call, in order.
    ///
    /// # Errors
    /// Why the run does not go on.
    fn hear(&mut self) -> Result<Vec<Heard>, Stop>;

    /// Everything that was said before the end of the run has been said.
    ///
    /// # Errors
    /// Why the run ends in another way.
    fn conclude(&mut self) -> Result<(), Stop>;

    /// Whether more is to be heard before [`Site::conclude`], at most for a few seconds.
    fn is_awaited(&mut self) -> bool;

    /// How much has happened; a run has a limit.
    fn events(&self) -> u64;

    /// Writes something into the record of the run.
    fn note(&self, text: &str);

    /// A defect is to be planted.
    ///
    /// # Errors
    /// If that is not possible here.
    fn plant(&mut self, defect: &str) -> Result<(), Refusal>;

    // What is done to nodes.

    /// Whether a process lives.
    fn is_up(&self, node: NodeId) -> bool;

    /// How the latest process ended, if it ended by itself.
    fn exit(&self, node: NodeId) -> Option<&Ended>;

    /// Starts a process. Whoever runs already goes on.
    ///
    /// # Errors
    /// Why that is not possible here.
    fn start(&mut self, node: NodeId, hint: &Hint) -> Result<Started, Refusal>;

    /// Asks for an orderly stop; [`Site::hear`] tells of the end.
    fn terminate(&mut self, node: NodeId);

    /// Ends a process without a word; what it wrote stays.
    ///
    /// # Errors
    /// If this machine does not do it.
    fn kill(&mut self, node: NodeId) -> Result<(), Stop>;

    /// Lets the disk fail at one of its next operations. Says whether it can.
    fn arm(&mut self, node: NodeId, operations: u64) -> bool;

    /// Takes that back.
    fn disarm(&mut self, node: NodeId);

    /// Whether the disk has failed.
    fn is_frozen(&self, node: NodeId) -> bool;

    /// Cuts the power of a machine.
    ///
    /// # Errors
    /// If this machine does not do it.
    fn crash(&mut self, node: NodeId, disk: DiskFate) -> Result<(), Stop>;

    /// Freezes a process.
    fn pause(&mut self, node: NodeId);

    /// Lets a frozen process go on.
    fn resume(&mut self, node: NodeId);

    /// Sets the clock of a machine forward or back. Says whether it can.
    fn set_clock(&mut self, node: NodeId, seconds: i64) -> bool;

    /// Deletes the state folder of a machine on which nothing runs.
    ///
    /// # Errors
    /// If this machine does not do it.
    fn empty_disk(&mut self, node: NodeId) -> Result<(), Stop>;

    /// Installs another binary; the next process is of it.
    ///
    /// # Errors
    /// Why that is not possible here.
    fn install(&mut self, node: NodeId, upgrade: &Upgrade) -> Result<(), Refusal>;

    /// From now on a node deviates. Says whether what it says proves nothing any more.
    ///
    /// # Errors
    /// Why that is not possible here.
    fn deviate(&mut self, node: NodeId, deviation: Deviation) -> Result<bool, Refusal>;

    /// From this moment on this property is not judged.
    fn waive(&mut self, property: &str);

    /// Makes the network like this.
    fn wire(&mut self, paths: Paths);

    /// Remembers everything that is ever on the disk of a machine, for [`Site::break_in`].
    fn keep_history(&mut self, node: NodeId);

    // What nodes are asked.

    /// The longest payload that the binary of a node takes, in bytes.
    fn payload_bytes(&self, node: NodeId) -> usize;

    /// Hands a payload to a client: the number under which it takes it.
    ///
    /// # Errors
    /// What the client does not do.
    fn publish(&mut self, node: NodeId, payload: Vec<u8>) -> Result<RequestId, String>;

    /// Gives a server an order.
    ///
    /// # Errors
    /// What it answers instead.
    fn order(&mut self, server: NodeId, order: &Order) -> Result<(), String>;

    /// Asks for the retirement of a server, with the tool's own checks before it. `asked` is another server of its committee
    /// that is up, the leader if there is one.
    async fn retire(&mut self, server: NodeId, asked: Option<NodeId>, dead: bool) -> Later<Retired>;

    /// How a node stands. None if it does not answer.
    async fn status(&self, node: NodeId) -> Option<Status>;

    /// Whether a node says that it is ready, and what it says besides.
    ///
    /// # Errors
    /// What it answers instead.
    async fn readiness(&self, node: NodeId) -> Result<(bool, String), String>;

    /// What a server foretells of a step.
    ///
    /// # Errors
    /// What it answers instead.
    async fn plan(&self, node: NodeId, step: words::Plan, server: PeerId) -> Result<Foreseen, String>;

    /// The group of a server, as text.
    async fn group(&self, node: NodeId) -> Option<String>;

    /// A metric in thousandths, summed over its labels.
    fn metric(&self, node: NodeId, name: &str) -> Option<u64>;

    /// What is left in the state folder of a node, if anything is.
    ///
    /// # Errors
    /// If that cannot be told.
    fn left_on_disk(&self, node: NodeId) -> Result<Option<String>, String>;

    /// A burglar has what is or ever was on the disk of a machine. Which round keys does that give?
    fn break_in(&self, node: NodeId) -> Later<Judged>;

    /// Whether writes that were not synced were ever lost.
    fn writes_were_lost(&self) -> bool;

    // What came of it.

    /// What only a simulation does, and was left out here.
    fn left_out(&self) -> Vec<String>;

    /// Why nothing can be said about a property, if that is so.
    fn cannot_tell(&self, always: &Always) -> Option<&'static str>;

    /// Where whoever looks for a cause finds more, beside the node's last lines.
    fn more(&self) -> Option<String>;

    /// What was counted, beside rounds and elections.
    fn outcome(&self) -> Outcome;
}

/// Something that happened.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are told")]
#[derive(Debug)]
pub(crate) enum Heard {
    /// A node told something.
    Told {
        /// Which.
        node: NodeId,
        /// When.
        at: Time,
        /// What.
        told: Told,
    },
    /// A process ended by itself.
    Ended {
        /// Where.
        node: NodeId,
        /// It was told to stop.
        asked: bool,
    },
}

/// What a node told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// A fact.
    Fact(Fact),
    /// A line of a log as it stands there.
    Line {
        /// The name of what happened, if it is one of the node's own lines.
        event: Option<String>,
        /// The text that people read.
        text: String,
        /// What happened, if this build knows it.
        fact: Option<Fact>,
    },
}

impl Told {
    /// The stable name of what happened.
    pub(crate) fn name(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Fact(fact) => Some(Cow::Borrowed(fact.name())),
            Self::Line { event, .. } => event.clone().map(Cow::Owned),
        }
    }

    /// What happened.
    pub(crate) const fn fact(&self) -> Option<&Fact> {
        match self {
            Self::Fact(fact) => Some(fact),
            Self::Line { fact, .. } => fact.as_ref(),
        }
    }

    /// The text that people read.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Fact(fact) => fact.text(),
            Self::Line { text, .. } => text.clone(),
        }
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The exit code; none if it was ended by a signal.
    pub(crate) code: Option<u8>,
    /// In words that fit behind "ended with".
    pub(crate) how: String,
}

impl Ended {
    /// Whether it ended with this code.
    pub(crate) fn is(&self, code: u64) -> bool {
        self.code.is_some_and(|own| u64::from(own) == code)
    }
}

/// A process has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    /// The group that it will have, as far as its variables and its build tell; servers only.
    pub(crate) group: Option<GroupId>,
    /// It deviates on purpose.
    pub(crate) liar: bool,
}

/// What is changed in another binary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upgrade {
    pub(crate) wire_version: Option<u64>,
    pub(crate) machine_version: Option<u64>,
    pub(crate) num_slots: Option<u64>,
    pub(crate) slot_bytes: Option<u64>,
    pub(crate) apply: Apply,
}

/// What an operator has a server do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Approve an aggregator.
    Approve(PeerId),
    /// Refuse a client, or do so no more.
    Refuse { client: PeerId, withdraw: bool },
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Approve(peer) => write!(f, "to approve {}", peer.short()),
            Self::Refuse { client, withdraw: false } => write!(f, "to refuse {}", client.short()),
            Self::Refuse { client, withdraw: true } => write!(f, "to refuse {} no more", client.short()),
        }
    }
}

/// What the tool says about a retirement.
#[derive(Clone, Debug)]
pub(crate) enum Retired {
    /// It is on its way into the log.
    Agreed,
    /// It refuses.
    Refused {
        /// The name of the reason, if it has one.
        reason: Option<String>,
        /// In words.
        text: String,
    },
    /// Nobody could be asked, because of this.
    NotAsked(String),
}

/// What a server foretells of a step.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Foreseen {
    /// What would become of rounds.
    pub(crate) rounds: String,
    pub(crate) consequences: Vec<String>,
}

/// Something that may take its time, while the run goes on.
pub(crate) enum Later<T> {
    /// Here it is.
    Now(T),
    /// It is there as soon as this says so.
    Soon(Box<dyn FnMut() -> Option<T>>),
}

/// What came of a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It is as it must be.
    Holds,
    /// It is not.
    Fails {
        /// Where, if it is one node.
        node: Option<NodeId>,
        /// How it is.
        how: String,
    },
    /// Nothing can be seen of it, because of this.
    Unseen(String),
}

impl From<Result<(), String>> for Judged {
    fn from(verdict: Result<(), String>) -> Self {
        verdict.map_or_else(|how| Self::Fails { node: None, how }, |()| Self::Holds)
    }
}

/// Something cannot be done here, so that the run is inconclusive.
#[derive(Clone, Debug)]
pub(crate) struct Refusal(pub(crate) String);

/// Why a run does not go on.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    /// A property is broken.
    Breach(Breach),
    /// Somebody wants it to end.
    Interrupted,
    /// This machine does not do what it must; nothing is known about the nodes.
    Broken(String),
}

/// A property was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    pub(crate) property: &'static str,
    /// What the property says about itself.
    pub(crate) sentence: &'static str,
    /// The node at which it was noticed.
    pub(crate) node: String,
    /// How, as a sentence fragment that fits behind "violated: ".
    pub(crate) detail: String,
    /// The number and the time of the event at which it was noticed, where events are numbered.
    pub(crate) place: Option<(u64, Time)>,
}

impl Breach {
    /// One of the properties is broken at a node.
    pub(crate) fn of(Violation { property, detail }: Violation, node: &str) -> Self {
        let sentence = sentence(property).unwrap_or_default();
        Self { property, sentence, node: node.to_owned(), detail, place: None }
    }
}

/// What was counted, beside rounds and elections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) counts: Counts,
    pub(crate) live: bool,
    /// In hexadecimal; empty where events are not chained.
    pub(crate) chain: String,
    pub(crate) events: u64,
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// How many finalised rounds had a crowd of each size.
    pub(crate) crowds: Vec<(u64, u64)>,
}

/// The properties that a scenario asks for beyond those that are always on.
pub(crate) fn named(scenario: &Scenario) -> Named {
    let mut named = Named::default();
    for expect in &scenario.expects {
        match &expect.what {
            Expectation::Always(Always::NoMixedGroups {}) => named.no_mixed_groups = true,
            Expectation::Always(Always::NeverUnblinded { below }) => {
                named.never_unblinded_below = u32::try_from(below.get()).ok();
            }
            _ => {}
        }
    }
    named
}
