//! The one table of verbs: the model's enums, the reader and the schema come from it.
//!
//! What an engine does for each verb, when a condition counts as met and what the defaults mean is `docs/scenarios.md`;
//! the sentences here are what an editor shows.

use toml::de::DeValue;

use crate::argument::{Bootstrap, FaultId, Identity, Latency, StepId};
use crate::body::{Argument, Body, Shape};
use crate::diagnostic::Kind;
use crate::env::Env;
use crate::node::{NodeRef, Nodes};
use crate::reader::{Place, Reader, Value};
use crate::value::{Draw, Int, Permille, Share, Span, Spread};
use crate::words::{
    Apply, Cause, Deviation, DiskFate, Foretold, LogEvent, Metric, Outcome, Plan, Reason, Signal, Since,
    State, Subject,
};

/// A verb of a place, as the documentation and the schema show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verb {
    /// Its name, the key in the file.
    pub name: &'static str,
    /// What it means, in sentences.
    pub doc: &'static str,
    /// What can stand in its table.
    pub arguments: Vec<Row>,
}

/// An argument of a verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// Its type, unit and range.
    pub shape: Shape,
    /// What a missing key means, as TOML; none if it means that nothing is asked.
    pub default: Option<&'static str>,
    /// Whether the key must be there.
    pub required: bool,
}

/// The verbs of a place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceTable {
    /// Where the verbs stand, for example `step.do`.
    pub name: &'static str,
    /// The arguments that every verb of this place has besides its own.
    pub common: Vec<Row>,
    /// The verbs.
    pub verbs: Vec<Verb>,
}

/// What a place in the file accepts: one of several verbs.
pub(crate) trait Verbs: Sized {
    fn table() -> Vec<Verb>;
    /// Reads the arguments of the verb with this name; `None` after an error.
    fn read(name: &str, body: &mut Body<'_, '_, '_>) -> Option<Self>;
    fn resolve(&self, draw: &mut dyn FnMut(u64) -> u64) -> Self;
    /// The verb's name and its arguments as TOML.
    fn write(&self) -> (&'static str, Vec<(String, String)>);
}

macro_rules! default_of {
    () => {
        None
    };
    ($default:literal) => {
        Some($default)
    };
}

macro_rules! verbs {
    ($(#[doc = $doc:literal])+ $Enum:ident { $(
        $(#[doc = $vdoc:literal])+
        $Verb:ident = $name:literal { $(
            $(#[doc = $adoc:literal])+
            $arg:ident : $Type:ty $(= $default:literal)?,
        )* }
    )+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $Enum { $(
            $(#[doc = $vdoc])+
            $Verb { $( $(#[doc = $adoc])+ $arg: $Type, )* },
        )+ }

        impl $Enum {
            /// The verb's name in the file.
            #[must_use]
            pub const fn verb(&self) -> &'static str {
                match self { $( Self::$Verb { .. } => $name, )+ }
            }
        }

        impl Verbs for $Enum {
            fn table() -> Vec<Verb> {
                vec![$( Verb {
                    name: $name,
                    doc: concat!($($vdoc),+).trim(),
                    arguments: vec![$(
                        row::<$Type>(plain(stringify!($arg)), concat!($($adoc),+), default_of!($($default)?)),
                    )*],
                }, )+]
            }

            fn read(name: &str, body: &mut Body<'_, '_, '_>) -> Option<Self> {
                match name {
                    $( $name => {
                        $( let $arg = body.take::<$Type>(plain(stringify!($arg)), default_of!($($default)?)); )*
                        Some(Self::$Verb { $( $arg: $arg?, )* })
                    } )+
                    _ => None,
                }
            }

            fn resolve(&self, draw: &mut dyn FnMut(u64) -> u64) -> Self {
                match self { $(
                    Self::$Verb { $( $arg, )* } => {
                        $( let $arg = $arg.resolve(draw); )*
                        Self::$Verb { $( $arg, )* }
                    }
                )+ }
            }

            fn write(&self) -> (&'static str, Vec<(String, String)>) {
                match self { $(
                    Self::$Verb { $( $arg, )* } => {
                        let arguments: Vec<(&str, Option<String>)> =
                            vec![$( (plain(stringify!($arg)), $arg.write()), )*];
                        ($name, written(arguments))
                    }
                )+ }
            }
        }
    };
}

/// One row of the table of verbs for an argument.
fn row<A: Argument>(name: &'static str, doc: &'static str, default: Option<&'static str>) -> Row {
    let required = default.is_none() && A::absent().is_none();
    let shape: Shape = A::shape();
    Row { name, doc: doc.trim(), shape, default, required }
}

/// A field's name without the mark that lets it be a keyword of Rust.
fn plain(name: &'static str) -> &'static str {
    name.strip_prefix("r#").unwrap_or(name)
}

fn written(arguments: Vec<(&str, Option<String>)>) -> Vec<(String, String)> {
    arguments.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

verbs! {
    /// What a step does. Several stand in a list and are done in order.
    Do {
        /// Starts nodes that are down, as a new process each.
        Start = "start" {
            /// The nodes.
            node: Nodes,
            /// Whose ZIPNET_SECRET they have.
            identity: Identity = "'same'",
            /// What they find in their state folder.
            state: State = "'keep'",
            /// Variables on top of those that they have; they keep them for later starts.
            env: Env,
            /// Whom they dial first.
            bootstrap: Bootstrap = "'default'",
        }
        /// Stops nodes with a signal and waits until they are gone.
        Stop = "stop" {
            /// The nodes.
            node: Nodes,
            /// TERM lets them say goodbye, KILL does not; neither loses a write.
            signal: Signal = "'TERM'",
            /// The longest that this may take.
            within: Span = "'5s'",
        }
        /// Cuts the power of nodes: the process is gone, and writes that were not synced are at risk.
        Crash = "crash" {
            /// The nodes.
            node: Nodes,
            /// What becomes of the writes that were not synced.
            disk: DiskFate = "'torn'",
        }
        /// Ends nodes and starts them again after a while, with the same secrets and state.
        Restart = "restart" {
            /// The nodes.
            node: Nodes,
            /// How they are ended.
            signal: Signal = "'TERM'",
            /// How long they are gone.
            down: Draw<Span> = "'500ms'",
        }
        /// Lets time pass.
        Wait = "wait" {
            /// How much.
            r#for: Draw<Span>,
        }
        /// Changes variables of nodes; a process reads them at its next start.
        SetEnv = "set-env" {
            /// The nodes, up or down.
            node: Nodes,
            /// The variables; the empty text takes one away.
            env: Env,
        }
        /// Deletes the state folders and secrets of nodes that are down.
        Wipe = "wipe" {
            /// The nodes.
            node: Nodes,
        }
        /// Asks for the retirement of a server, with the tool's own checks before it.
        Retire = "retire" {
            /// The server that is to leave the committee for good.
            node: NodeRef,
            /// Whether it is declared dead: nobody waits for its own announcement.
            dead: bool = "false",
            /// Why the tool must refuse; without this it must agree.
            refused: Option<Reason>,
        }
        /// Has the operators of servers approve an aggregator in the place of the one that the log has.
        Approve = "approve" {
            /// The servers.
            node: Nodes,
            /// The aggregator, up or down.
            aggregator: NodeRef,
        }
        /// Has the operators of servers refuse clients, or withdraw that.
        Refuse = "refuse" {
            /// The servers.
            node: Nodes,
            /// The clients, up or down.
            client: Nodes,
            /// Whether they are refused no more.
            withdraw: bool = "false",
        }
        /// Hands a payload to clients.
        Publish = "publish" {
            /// The clients.
            node: Nodes,
            /// The text.
            payload: String,
        }
        /// Cuts the network between nodes and others, until it is healed.
        Partition = "partition" {
            /// The nodes on one side.
            node: Nodes,
            /// Those on the other side; without this all others.
            from: Option<Nodes>,
            /// Whether only messages from `node` to `from` are lost.
            one_way: bool = "false",
        }
        /// Ends every partition that a step made.
        Heal = "heal" {}
        /// Installs another binary on nodes; it takes effect at their next start.
        Upgrade = "upgrade" {
            /// The nodes, up or down.
            node: Nodes,
            /// Its version of the wire format; without this unchanged, as for everything below.
            wire_version: Option<Int<1, 255>>,
            /// Its version of the committee machine, a part of the signature.
            machine_version: Option<Int<1, 255>>,
            /// How many slots a round has.
            num_slots: Option<Int<1, 4096>>,
            /// How many bytes a slot has.
            slot_bytes: Option<Int<32, 65536>>,
            /// Whether it applies commands as its signature says.
            apply: Apply = "'same'",
        }
        /// Makes nodes deviate from the protocol from now on.
        Lie = "lie" {
            /// The nodes.
            node: Nodes,
            /// How.
            deviation: Deviation,
        }
    }
}

verbs! {
    /// What a step waits for, or what must come true in the end.
    Condition {
        /// More rounds are finalised, as seen in the logs of nodes.
        RoundsFinalized = "rounds-finalized" {
            /// How many, counted from the beginning of the step.
            count: Draw<Int<1, 1000>>,
            /// The servers that must have seen them.
            node: Nodes = "'server:all'",
        }
        /// A log line has been printed.
        LogEvent = "log-event" {
            /// By each of these nodes.
            node: Nodes,
            /// Which line.
            event: LogEvent,
            /// How often.
            count: Int<1, 1000> = "1",
            /// Counted from when.
            since: Since = "'step'",
        }
        /// Exactly one server leads, and every server that is up follows it.
        Leader = "leader" {}
        /// The committee has this many voters, and the change is committed.
        Voters = "voters" {
            /// How many.
            count: Int<1, 64>,
            /// Servers that must be among them.
            includes: Option<Nodes>,
            /// Servers that must not be among them.
            excludes: Option<Nodes>,
        }
        /// The registries hold this many nodes, on every server that is up.
        Registered = "registered" {
            /// How many servers.
            servers: Option<Int<0, 64>>,
            /// How many clients.
            clients: Option<Int<0, 10000>>,
        }
        /// Processes have ended by themselves.
        Exited = "exited" {
            /// Each of these nodes.
            node: Nodes,
            /// With this code.
            code: Int<0, 255>,
        }
        /// No round has been finalised anywhere for a while.
        Stalled = "stalled" {
            /// For how long.
            r#for: Span,
        }
        /// The status names a cause.
        Status = "status" {
            /// On each of these nodes.
            node: Nodes,
            /// Which cause.
            cause: Cause,
            /// The node that the sentence names.
            names: Option<NodeRef>,
        }
        /// Somebody has been refused.
        Refused = "refused" {
            /// Each of these nodes.
            node: Nodes,
            /// For this reason, by name in its own log or in that of whoever refused it.
            reason: Reason,
        }
        /// The payloads that steps gave to clients have met a fate.
        Outcome = "outcome" {
            /// Each of these clients.
            node: Nodes,
            /// Which.
            equals: Outcome,
        }
    }
}

verbs! {
    /// What must be so at the end of a step.
    Check {
        /// Processes ended with this code.
        ExitCode = "exit-code" {
            /// Which; without this the nodes of the step's `do`.
            node: Option<Nodes>,
            /// The code.
            equals: Int<0, 255>,
        }
        /// Nodes announced their departure before they left.
        AnnouncedDeparture = "announced-departure" {
            /// Which; without this the nodes of the step's `do`.
            node: Option<Nodes>,
        }
        /// This many servers say that they lead.
        Leaders = "leaders" {
            /// How many.
            exactly: Int<0, 64>,
        }
        /// The committee has this many voters.
        Voters = "voters" {
            /// How many.
            exactly: Int<1, 64>,
            /// Servers that are among them.
            includes: Option<Nodes>,
            /// Servers that are not among them.
            excludes: Option<Nodes>,
        }
        /// No round has been finalised since the beginning of the step.
        NoRoundFinalized = "no-round-finalized" {}
        /// A log line has been printed.
        LogEvent = "log-event" {
            /// By each of these nodes.
            node: Nodes,
            /// Which line.
            event: LogEvent,
            /// How often at least.
            at_least: Int<1, 1000> = "1",
            /// Counted from when.
            since: Since = "'step'",
        }
        /// A log line has not been printed.
        NoLogEvent = "no-log-event" {
            /// By any of these nodes.
            node: Nodes,
            /// Which line.
            event: LogEvent,
            /// Counted from when.
            since: Since = "'step'",
        }
        /// The first occurrences of log lines since the node's start stand in this order.
        LogOrder = "log-order" {
            /// On each of these nodes.
            node: Nodes,
            /// The lines; every one must be there.
            events: Vec<LogEvent>,
        }
        /// The status names a cause.
        Status = "status" {
            /// On each of these nodes.
            node: Nodes,
            /// Which cause.
            cause: Cause,
            /// The node that the sentence names.
            names: Option<NodeRef>,
        }
        /// Readiness is as said.
        Readiness = "readiness" {
            /// On each of these nodes.
            node: Nodes,
            /// Whether the node is ready.
            ready: bool,
            /// A cause that stands among its parts, ready or not.
            cause: Option<Cause>,
        }
        /// A server foretells what would become of rounds; the steps after this one show whether that is so.
        Plan = "plan" {
            /// Each of these servers.
            node: Nodes,
            /// What is thought of.
            step: Plan,
            /// With whom; to add one, whoever.
            server: NodeRef,
            /// What it foretells.
            rounds: Foretold,
        }
        /// The group's id is as it was at the end of another step, or is not.
        GroupId = "group-id" {
            /// On each of these servers.
            node: Nodes = "'server:all'",
            /// The step to compare with.
            since: StepId,
            /// Whether it must differ.
            changed: bool,
        }
        /// Nodes of two kinds are in one group and one log.
        SameLog = "same-log" {
            /// The servers.
            node: Nodes = "'server:all'",
        }
        /// Somebody has been refused since the beginning of the step.
        Refused = "refused" {
            /// Each of these nodes.
            node: Nodes,
            /// For this reason.
            reason: Reason,
        }
        /// The registries hold this many nodes.
        Registry = "registry" {
            /// How many servers.
            servers: Option<Int<0, 64>>,
            /// How many clients.
            clients: Option<Int<0, 10000>>,
        }
        /// The roster of the last header that became live.
        Roster = "roster" {
            /// How many servers it has.
            count: Option<Int<1, 64>>,
            /// Servers in it.
            includes: Option<Nodes>,
            /// Servers not in it.
            excludes: Option<Nodes>,
        }
        /// A metric has a value.
        Metric = "metric" {
            /// On each of these nodes.
            node: Nodes,
            /// Which metric.
            name: Metric,
            /// Exactly this value.
            equals: Option<Int<0, 1000000000>>,
            /// At least this value.
            at_least: Option<Int<0, 1000000000>>,
        }
        /// Nothing is left of the state and the secrets of nodes.
        Wiped = "wiped" {
            /// Which.
            node: Nodes,
        }
        /// With everything that is or was on the disks of nodes, no pad of a past round can be computed.
        OpensNoPastRound = "opens-no-past-round" {
            /// Which.
            node: Nodes,
        }
        /// The first round that was opened in this step has the number after the last one before it.
        RoundNumbersContinue = "round-numbers-continue" {}
        /// Rounds have been finalised all the way since another step.
        RoundsWentOn = "rounds-went-on" {
            /// From the beginning of this step on.
            since: StepId,
            /// The longest time without one.
            gap: Span,
        }
    }
}

verbs! {
    /// What must hold at every event of every run.
    Always {
        /// No two nodes disagree.
        Agreement = "agreement" {
            /// About what.
            on: Subject = "'round-output'",
        }
        /// A finalised round has every rostered signature and partial.
        CompleteRoster = "complete-roster" {}
        /// A broadcast holds what participants submitted, and loses nothing that did not collide.
        Validity = "validity" {}
        /// No keystream masks two vectors or enters two partials.
        KeystreamOnce = "keystream-once" {}
        /// No honest server's partial enters a round below its floor.
        ParticipantFloor = "participant-floor" {}
        /// What was finalised stays finalised.
        Durability = "durability" {}
        /// Round numbers never repeat or go back.
        RoundNumbers = "round-numbers" {}
        /// One leader per term, one command per index.
        OneLeader = "one-leader" {}
        /// One honest server hides who of a round's honest participants wrote what.
        Anonymity = "anonymity" {}
        /// Each record names the digest of the one before it.
        Chain = "chain" {}
        /// No record is made of contributions of nodes with different group ids or logs.
        NoMixedGroups = "no-mixed-groups" {}
        /// No vector of fewer participants than this is ever unblinded, by anyone.
        NeverUnblinded = "never-unblinded" {
            /// The least number of participants.
            below: Int<1, 10000>,
        }
    }
}

verbs! {
    /// What must happen in at least one seed of a sweep.
    Sometimes {
        /// A round is abandoned.
        RoundAbandoned = "round-abandoned" {}
        /// No round is finalised for a while.
        RoundStalled = "round-stalled" {
            /// For how long.
            r#for: Span = "'10s'",
        }
        /// Another server becomes the leader.
        LeaderChanged = "leader-changed" {}
        /// A crash loses or tears writes that were not synced.
        WritesLost = "writes-lost" {}
        /// A fault fires.
        FaultFired = "fault-fired" {
            /// Which.
            fault: FaultId,
        }
    }
}

verbs! {
    /// What a fault does each time it fires.
    FaultDo {
        /// Cuts the power of a node and starts it again.
        Crash = "crash" {
            /// Who; drawn anew each time.
            target: NodeRef,
            /// How long it takes on average from one end to the next firing.
            mean_gap: Span,
            /// How long the node is gone.
            down: Spread<Span>,
            /// What becomes of the writes that were not synced.
            disk: DiskFate = "'torn'",
        }
        /// Cuts a node off from all others.
        Partition = "partition" {
            /// Who; drawn anew each time.
            target: NodeRef,
            /// How long it takes on average from one end to the next firing.
            mean_gap: Span,
            /// How long it lasts.
            lasts: Spread<Span>,
            /// Whether only what the node sends is lost.
            one_way: bool = "false",
        }
        /// Delays everything that a node sends and receives.
        Slow = "slow" {
            /// Who; drawn anew each time.
            target: NodeRef,
            /// How long it takes on average from one end to the next firing.
            mean_gap: Span,
            /// How long it lasts.
            lasts: Spread<Span>,
            /// The delay of each message.
            latency: Latency,
        }
        /// Loses a share of what a node sends and receives.
        Lossy = "lossy" {
            /// Who; drawn anew each time.
            target: NodeRef,
            /// How long it takes on average from one end to the next firing.
            mean_gap: Span,
            /// How long it lasts.
            lasts: Spread<Span>,
            /// How much is lost.
            loss: Share,
        }
        /// Freezes a node: no timer fires and no message is handled until it wakes.
        Pause = "pause" {
            /// Who; drawn anew each time.
            target: NodeRef,
            /// How long it takes on average from one end to the next firing.
            mean_gap: Span,
            /// How long it lasts.
            lasts: Spread<Span>,
        }
        /// Sets a node's wall clock.
        Clock = "clock" {
            /// Who; drawn anew each time.
            target: NodeRef,
            /// How long it takes on average from one firing to the next.
            mean_gap: Span,
            /// How far.
            jump: Spread<Span>,
            /// Whether into the past.
            back: bool = "false",
        }
    }
}

verbs! {
    /// What clients do all the time.
    WorkloadDo {
        /// Clients publish in a share of the rounds; in the others they send cover traffic.
        Publish = "publish" {
            /// Which clients.
            node: Nodes = "'client:all'",
            /// In how many of a thousand rounds each of them publishes.
            permille: Draw<Permille>,
            /// How long a payload is; drawn anew each time.
            payload_bytes: Spread<Int<1, 65536>> = "{ min = 1, max = 200 }",
        }
    }
}

/// The bound of an `until`.
pub const UNTIL_WITHIN: &str = "'60s'";

/// Everything that can stand behind `do`, `until`, `check`, `always`, `eventually` and `sometimes`.
#[must_use]
pub fn tables() -> Vec<PlaceTable> {
    let within = row::<Span>("within", "The longest that this may take.", Some(UNTIL_WITHIN));
    let after = row::<Option<StepId>>(
        "after",
        "The step at whose end the time begins; without this the end of the last step.",
        None,
    );
    let during = row::<Option<StepId>>(
        "during",
        "The step during which it must happen; without this at any time.",
        None,
    );
    let place = |name, common, verbs| PlaceTable { name, common, verbs };
    vec![
        place("step.do", vec![], Do::table()),
        place("step.until", vec![within.clone()], Condition::table()),
        place("step.check", vec![], Check::table()),
        place("workload.do", vec![], WorkloadDo::table()),
        place("fault.do", vec![], FaultDo::table()),
        place("expect.always", vec![], Always::table()),
        place("expect.eventually", vec![within, after], Condition::table()),
        place("expect.sometimes", vec![during], Sometimes::table()),
    ]
}

/// Reads `{ verb = { … } }`. `common` takes the arguments that every verb of the place has.
pub(crate) fn read_call<V: Verbs, C>(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    place: &str,
    common: impl FnOnce(&mut Body<'_, '_, '_>) -> Option<C>,
) -> Option<(Place, V, C)> {
    let DeValue::Table(table) = value.get_ref() else {
        reader.wrong_type(value, format!("a verb of `{place}` as `verb = {{ … }}`"));
        return None;
    };
    let verbs = V::table();
    let mut known = None;
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    for (key, body) in keys {
        let name: &str = key.get_ref();
        if !verbs.iter().any(|verb| verb.name == name) {
            reader.unknown(
                Kind::UnknownVerb,
                key.span(),
                &format!("a verb of `{place}`"),
                name,
                verbs.iter().map(|verb| verb.name),
            );
        } else if known.is_some() {
            reader.error(
                Kind::UnknownKey,
                key.span(),
                "one verb per table; several stand in a list",
                format!("a second verb `{name}`"),
                None,
            );
        } else {
            known = Some((key, body));
        }
    }
    let Some((key, value)) = known else {
        if table.is_empty() {
            reader.error(Kind::Missing, value.span(), format!("a verb of `{place}`"), "an empty table", None);
        }
        return None;
    };
    let body = Body::of(reader, value, &format!("the arguments of `{}`", key.get_ref()))?;
    // A table that is only implied by `do.stop.node = …` has no place of its own.
    let mut body = body.at(key.span());
    let place = body.reader.place(key.span().start);
    let common = common(&mut body);
    let verb = V::read(key.get_ref(), &mut body);
    body.finish();
    Some((place, verb?, common?))
}
