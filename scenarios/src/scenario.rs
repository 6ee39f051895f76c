//! The model, and how it is read.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue};

use crate::body::{Argument, Body};
use crate::diagnostic::{Diagnostic, Kind};
use crate::env::{Env, Setting};
use crate::node::{NodeRef, Nodes, Role, Which};
use crate::reader::{Reader, Sizes, Value};
use crate::runbook::RUNBOOKS;
use crate::value::{Draw, Int, Share, Span};
use crate::verbs::{
    Always, Check, Condition, Do, FaultDo, Sometimes, UNTIL_WITHIN, Verbs, WorkloadDo, read_call,
};
use crate::words::{Deviation, Guard, Metric, Property, Stat, Word as _};

pub use crate::argument::{Bootstrap, FaultId, Identity, Latency, StepId};
pub use crate::reader::Place;

/// The version of the format, `schema = 1`.
pub const FORMAT: u64 = 1;

/// A procedure, what happens meanwhile, and what must be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// One line for lists.
    pub title: String,
    /// For the reader: what this is about and why it must hold.
    pub prose: String,
    /// Labels to select by, such as `runbook` and `smoke`.
    pub tags: Vec<String>,
    /// The section of the operators' documents that is carried out, `document#section`.
    pub runbook: Option<String>,
    /// Where a run ends if nothing else ends it.
    pub limits: Limits,
    /// The deployments; the first one is that of `[topology]`, and its name is empty.
    pub deployments: Vec<Deployment>,
    /// What links do to messages.
    pub network: Network,
    /// What clients do all the time.
    pub workloads: Vec<Workload>,
    /// What goes wrong meanwhile.
    pub faults: Vec<Fault>,
    /// The procedure, in order.
    pub steps: Vec<Step>,
    /// What must be seen.
    pub expects: Vec<Expect>,
    /// What statistics over all runs must stay within.
    pub thresholds: Vec<Threshold>,
    /// The one defect that this scenario must find.
    pub canary: Option<Canary>,
    /// The rule without which this scenario must fail.
    pub control: Option<Control>,
}

/// Where a run ends if nothing else ends it; the run is then inconclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In simulated time.
    pub time_limit: Span,
    /// In events.
    pub max_events: u64,
}

/// Nodes that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// What stands in front of its nodes' names; empty for the main one.
    pub name: String,
    /// How many servers there are, up or down.
    pub servers: u32,
    /// How many aggregators.
    pub aggregators: u32,
    /// How many clients.
    pub clients: u32,
    /// Which of them are not started at the beginning.
    pub down: Vec<NodeRef>,
    /// How many voters a log's first round waits for.
    pub first_voters: u32,
    /// The round parameters of the installed binaries.
    pub params: Params,
    /// Variables of every node that reads them.
    pub env: Env,
    /// Variables of the servers, on top of `env`.
    pub server_env: Env,
    /// Variables of the aggregators, on top of `env`.
    pub aggregator_env: Env,
    /// Variables of the clients, on top of `env`.
    pub client_env: Env,
}

impl Deployment {
    /// How many nodes of a role there are, up or down.
    #[must_use]
    pub const fn count(&self, role: Role) -> u32 {
        match role {
            Role::Server => self.servers,
            Role::Aggregator => self.aggregators,
            Role::Client => self.clients,
        }
    }

    /// The variables that a node of a role starts with.
    #[must_use]
    pub fn env_of(&self, role: Role) -> Env {
        let own = match role {
            Role::Server => &self.server_env,
            Role::Aggregator => &self.aggregator_env,
            Role::Client => &self.client_env,
        };
        let mut env = Env::default();
        for (name, setting) in self.env.0.iter().chain(&own.0) {
            let reads =
                crate::env::variable_named(name).is_some_and(|variable| variable.roles.contains(&role));
            if reads {
                env.0.insert(name, setting.clone());
            }
        }
        env
    }

    /// Whether the node with this number is started at the beginning.
    #[must_use]
    pub fn starts(&self, role: Role, number: u32) -> bool {
        !self.down.iter().any(|node| {
            node.role == role && (node.which == Which::All || node.which == Which::Number(number))
        })
    }
}

/// The parameters of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// How many slots.
    pub num_slots: u64,
    /// Bytes of each.
    pub slot_bytes: u64,
    /// Bytes of each slot's tag.
    pub tag_len: u64,
}

impl Params {
    /// The bytes that a slot has for a payload.
    #[must_use]
    pub const fn payload_len(&self) -> u64 {
        self.slot_bytes.saturating_sub(self.tag_len)
    }
}

/// What links do to messages, before any fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// How long a message takes.
    pub latency: Latency,
    /// How many messages are lost.
    pub loss: Share,
    /// How many arrive twice.
    pub duplicate: Share,
    /// How many are overtaken by later ones.
    pub reorder: Share,
    /// How many KiB pass from one node to another in a second; further ones queue. 0: any number.
    pub bandwidth_kib: Draw<Int<0, BANDWIDTH_KIB_MAX>>,
}

/// Something that clients do all the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name in this file.
    pub id: String,
    /// What it is, for the reader.
    pub say: String,
    /// Where it stands.
    pub place: Place,
    /// The steps during which it goes on; none is all the time.
    pub during: Vec<StepId>,
    /// What is done.
    pub act: WorkloadDo,
}

/// Something that goes wrong now and then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name in this file.
    pub id: String,
    /// What it is, for the reader.
    pub say: String,
    /// Where it stands.
    pub place: Place,
    /// The steps during which it may fire; none is all the time.
    pub during: Vec<StepId>,
    /// How many nodes it may have in its hold at once.
    pub at_once: u64,
    /// How often it fires in each carrying out of a step, at most; none is any number.
    pub times: Option<u64>,
    /// What is done.
    pub act: FaultDo,
}

/// A verb and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<V> {
    /// Where.
    pub place: Place,
    /// The verb with its arguments.
    pub verb: V,
}

/// A condition that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Until {
    /// Where it stands.
    pub place: Place,
    /// What is waited for.
    pub condition: Condition,
    /// The longest that it may take.
    pub within: Span,
}

/// Whose turns a step is repeated for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForEach {
    /// Every node of a role of the main deployment that is up when the group begins, by number.
    Role(Role),
    /// These nodes, in this order; all of one role.
    Nodes(Vec<NodeRef>),
}

/// A step of the procedure: do, wait, check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name in this file.
    pub id: String,
    /// What the operator reads.
    pub say: String,
    /// Where it stands.
    pub place: Place,
    /// It and the steps `with` it are done wholly for each of these in turn.
    pub for_each: Option<ForEach>,
    /// The step with `for_each` whose turns this one shares.
    pub with: Option<StepId>,
    /// What is done, in order.
    pub acts: Vec<Placed<Do>>,
    /// What is waited for afterwards, in order, each with its own bound.
    pub untils: Vec<Until>,
    /// What must be so at the end.
    pub checks: Vec<Placed<Check>>,
}

/// Something that must be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// Its name in this file.
    pub id: String,
    /// The sentence that a failure prints.
    pub say: String,
    /// Where it stands.
    pub place: Place,
    /// What must be seen.
    pub what: Expectation,
}

/// The kinds of expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// At every event of every run.
    Always(Always),
    /// In every run, within a bound.
    Eventually {
        /// What.
        condition: Condition,
        /// The bound.
        within: Span,
        /// The step at whose end the time begins; none is the last one.
        after: Option<StepId>,
    },
    /// In at least one run of a sweep.
    Sometimes {
        /// What.
        situation: Sometimes,
        /// The step during which it must happen; none is at any time.
        during: Option<StepId>,
    },
}

/// A number of a [`Threshold`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Amount {
    /// For a metric that counts.
    Count(u64),
    /// For a metric that is a length of time.
    Time(Span),
}

/// A bound on a statistic over all runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// Its name in this file.
    pub id: String,
    /// The sentence that a failure prints.
    pub say: String,
    /// Where it stands.
    pub place: Place,
    /// What is measured: the greatest value that any server had in a run.
    pub metric: Metric,
    /// Over the runs.
    pub stat: Stat,
    /// It must not be below this.
    pub min: Option<Amount>,
    /// It must not be above this.
    pub max: Option<Amount>,
}

/// The one defect that a scenario must find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// The rule that is not enforced.
    pub defect: Guard,
    /// Where it is not enforced; none is everywhere.
    pub nodes: Option<Nodes>,
    /// The property that must be reported as violated.
    pub property: Property,
}

/// The rule without which a scenario must fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The rule.
    pub guard: Guard,
    /// Where it is not enforced; none is everywhere.
    pub nodes: Option<Nodes>,
}

/// A scenario in which everything that the seed decides beforehand is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved(Scenario);

impl Resolved {
    /// The scenario, with literals in place of what was drawn.
    #[must_use]
    pub const fn scenario(&self) -> &Scenario {
        &self.0
    }
}

impl Scenario {
    /// The deployment of `[topology]`.
    #[must_use]
    pub fn main(&self) -> &Deployment {
        self.deployments.first().expect("a scenario is read with its topology")
    }

    /// The deployment that a reference names.
    #[must_use]
    pub fn deployment(&self, node: &NodeRef) -> &Deployment {
        let name = node.instance.as_deref().unwrap_or("");
        self.deployments
            .iter()
            .find(|deployment| deployment.name == name)
            .expect("references are checked when a scenario is read")
    }

    /// The step with this id.
    #[must_use]
    pub fn step(&self, id: &StepId) -> &Step {
        self.steps.iter().find(|step| step.id == id.0).expect("ids are checked when a scenario is read")
    }

    /// Decides what the seed decides beforehand. `draw(n)` returns a number below `n`.
    ///
    /// The order of the draws is that of the fields of this model, steps and lists in the order of the file, variables
    /// by name; a literal draws nothing. What is drawn at every occurrence ([`crate::value::Spread`]) stays as it is.
    #[must_use]
    pub fn resolve(&self, draw: &mut dyn FnMut(u64) -> u64) -> Resolved {
        let mut resolved = self.clone();
        for deployment in &mut resolved.deployments {
            deployment.env = deployment.env.resolve(draw);
            deployment.server_env = deployment.server_env.resolve(draw);
            deployment.aggregator_env = deployment.aggregator_env.resolve(draw);
            deployment.client_env = deployment.client_env.resolve(draw);
        }
        let network = &mut resolved.network;
        network.latency = network.latency.resolve(draw);
        network.loss = network.loss.resolve(draw);
        network.duplicate = network.duplicate.resolve(draw);
        network.reorder = network.reorder.resolve(draw);
        network.bandwidth_kib = network.bandwidth_kib.resolve(draw);
        for workload in &mut resolved.workloads {
            workload.act = workload.act.resolve(draw);
        }
        for fault in &mut resolved.faults {
            fault.act = fault.act.resolve(draw);
        }
        for step in &mut resolved.steps {
            for act in &mut step.acts {
                act.verb = act.verb.resolve(draw);
            }
            for until in &mut step.untils {
                until.condition = until.condition.resolve(draw);
            }
            for check in &mut step.checks {
                check.verb = check.verb.resolve(draw);
            }
        }
        for expect in &mut resolved.expects {
            expect.what = match &expect.what {
                Expectation::Always(property) => Expectation::Always(property.resolve(draw)),
                Expectation::Eventually { condition, within, after } => Expectation::Eventually {
                    condition: condition.resolve(draw),
                    within: *within,
                    after: after.clone(),
                },
                Expectation::Sometimes { situation, during } => {
                    Expectation::Sometimes { situation: situation.resolve(draw), during: during.clone() }
                }
            };
        }
        Resolved(resolved)
    }
}

/// Reads a scenario, or says everything that is wrong with it in the order of the file.
pub fn read(file: &str, text: &str) -> Result<Scenario, Vec<Diagnostic>> {
    let mut reader = Reader::new(file, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            reader.error(Kind::Syntax, span, "TOML 1.0", error.message().replace('\n', ", "), None);
        }
        return Err(reader.into_diagnostics());
    }
    let scenario = root_of(&mut reader, root.get_ref());
    match scenario {
        Some(scenario) if reader.diagnostics.is_empty() => Ok(scenario),
        Some(_) | None => Err(reader.into_diagnostics()),
    }
}

fn root_of(reader: &mut Reader<'_>, root: &DeTable<'_>) -> Option<Scenario> {
    let mut body = Body::new(reader, root, 0..0);
    let schema = body.take::<Int<FORMAT, FORMAT>>("schema", None);
    let title = sentence(&mut body, "title");
    let prose = sentence(&mut body, "prose");
    let tags = body.take::<Option<Vec<String>>>("tags", None);
    let limits = limits(&mut body);
    let deployments = deployments(&mut body);
    let runbook = runbook(&mut body, deployments.as_ref().and_then(|all| all.first()));
    let network = network(&mut body);

    collect_ids(&mut body);
    // With a broken topology every node would be unknown; one error is better than fifty.
    let deployments = deployments?;

    let room = deployments.iter().map(|deployment| deployment.params.payload_len()).min().unwrap_or(0);
    let workloads = each(&mut body, "workload", |body, place| workload(body, place, room));
    let faults = each(&mut body, "fault", fault);
    let steps = steps(&mut body);
    let overruled = overruled(steps.as_deref().unwrap_or_default());
    let expects = each(&mut body, "expect", |body, place| {
        let span = body.span();
        let found = expect(body, place)?;
        if let Expectation::Always(always) = &found.what
            && let Some(deviation) = overruled.get(always.verb())
        {
            let expected = format!("a property that is promised against \"{deviation}\"");
            body.reader.error(Kind::Unreachable, span, expected, format!("`{}`", always.verb()), None);
            return None;
        }
        Some(found)
    });
    let thresholds = each(&mut body, "threshold", threshold);
    let canary = one(&mut body, "canary", |body| {
        let defect = body.take("defect", None);
        let nodes = body.take("nodes", None);
        let property = body.take("property", None);
        Some(Canary { defect: defect?, nodes: nodes?, property: property? })
    });
    let control = one(&mut body, "control", |body| {
        let guard = body.take("guard", None);
        let nodes = body.take("nodes", None);
        Some(Control { guard: guard?, nodes: nodes? })
    });
    body.finish();
    schema?;
    let scenario = Scenario {
        title: title?,
        prose: prose?,
        tags: tags?.unwrap_or_default(),
        runbook: runbook?,
        limits: limits?,
        deployments,
        network: network?,
        workloads: workloads?,
        faults: faults?,
        steps: steps?,
        expects: expects?,
        thresholds: thresholds?,
        canary: canary?,
        control: control?,
    };
    Some(scenario)
}

/// The properties that are not promised against what some node does, and the deviation.
fn overruled(steps: &[Step]) -> BTreeMap<&'static str, Deviation> {
    let acts = steps.iter().flat_map(|step| &step.acts);
    let deviations = acts.filter_map(|act| match &act.verb {
        Do::Lie { deviation, .. } => Some(*deviation),
        _ => None,
    });
    let properties =
        |deviation: Deviation| deviation.overrules().iter().map(move |of| (of.name(), deviation));
    deviations.flat_map(properties).collect()
}

/// A text that people read: it must be there and say something.
fn sentence(body: &mut Body<'_, '_, '_>, name: &'static str) -> Option<String> {
    let expected = format!("`{name}`: a sentence for the people who read this");
    let Some(value) = body.value(name) else {
        body.reader.error(Kind::Missing, body.span(), expected, "nothing", None);
        return None;
    };
    let text = String::read(body.reader, value)?;
    if text.trim().is_empty() {
        body.reader.error(Kind::Missing, value.span(), expected, "an empty text", None);
        return None;
    }
    Some(text)
}

/// A table that may be missing.
fn one<T>(
    body: &mut Body<'_, '_, '_>,
    name: &'static str,
    read: impl FnOnce(&mut Body<'_, '_, '_>) -> Option<T>,
) -> Option<Option<T>> {
    let Some(value) = body.value(name) else {
        return Some(None);
    };
    let mut table = Body::of(body.reader, value, &format!("a table `[{name}]`"))?;
    let read = read(&mut table);
    table.finish();
    read.map(Some)
}

/// The tables of `[[name]]`.
fn each<T>(
    body: &mut Body<'_, '_, '_>,
    name: &'static str,
    mut read: impl FnMut(&mut Body<'_, '_, '_>, Place) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(value) = body.value(name) else {
        return Some(Vec::new());
    };
    let DeValue::Array(items) = value.get_ref() else {
        body.reader.wrong_type(value, format!("tables `[[{name}]]`"));
        return None;
    };
    let mut all = Vec::new();
    let mut good = true;
    for item in items {
        let Some(mut table) = Body::of(body.reader, item, &format!("a table `[[{name}]]`")) else {
            good = false;
            continue;
        };
        let place = table.reader.place(item.span().start);
        let read = read(&mut table, place);
        table.finish();
        match read {
            Some(read) => all.push(read),
            None => good = false,
        }
    }
    good.then_some(all)
}

fn limits(body: &mut Body<'_, '_, '_>) -> Option<Limits> {
    let read = |body: &mut Body<'_, '_, '_>| {
        let time = body.take::<Span>("time_limit", Some("'10m'"));
        let events = body.take::<Int<1, 1_000_000_000>>("max_events", Some("5000000"));
        Some(Limits { time_limit: time?, max_events: events?.get() })
    };
    match one(body, "limits", read)? {
        Some(limits) => Some(limits),
        None => read(&mut Body::new(body.reader, &DeTable::new(), 0..0)),
    }
}

/// A name that can stand in front of `-server-1` without being mistaken for a role.
fn instance_name(body: &mut Body<'_, '_, '_>, others: &[Deployment]) -> Option<String> {
    let value = body.value("name");
    let expected = "`name`: lower-case letters and digits, not the name of a role";
    let Some(value) = value else {
        body.reader.error(Kind::Missing, body.span(), expected, "nothing", None);
        return None;
    };
    let name = String::read(body.reader, value)?;
    let plain = !name.is_empty()
        && name.len() <= 16
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        && Role::ALL.into_iter().all(|role| !name.starts_with(role.name()));
    if !plain {
        body.reader.error(
            Kind::UnknownWord,
            value.span(),
            expected,
            format!("`{}`", name.escape_debug()),
            None,
        );
        return None;
    }
    if others.iter().any(|other| other.name == name) {
        body.reader.error(
            Kind::DuplicateId,
            value.span(),
            "a name of its own",
            format!("`{name}` again"),
            None,
        );
        return None;
    }
    Some(name)
}

fn deployments(body: &mut Body<'_, '_, '_>) -> Option<Vec<Deployment>> {
    let Some(value) = body.value("topology") else {
        body.reader.error(
            Kind::Missing,
            body.span(),
            "`[topology]` with `servers`, `aggregators` and `clients`",
            "nothing",
            None,
        );
        return None;
    };
    let mut table = Body::of(body.reader, value, "a table `[topology]`")?;
    let main = deployment(&mut table, String::new());
    table.finish();
    let mut all: Vec<Deployment> = main.into_iter().collect();
    let mut good = !all.is_empty();
    let others = each(body, "instance", |body, _| {
        let name = instance_name(body, &all);
        let instance = deployment(body, name.clone().unwrap_or_else(|| "?".to_owned()));
        let instance = instance.filter(|_| name.is_some());
        all.extend(instance.clone());
        instance
    });
    good &= others.is_some();
    good.then_some(all)
}

fn deployment(body: &mut Body<'_, '_, '_>, name: String) -> Option<Deployment> {
    let mut count = |key: &'static str, least: u64, why: &str| {
        let read = body.take::<Int<0, 10_000>>(key, None)?;
        if read.get() < least {
            let span = body.value(key).map_or_else(|| body.span(), toml::Spanned::span);
            body.reader.error(
                Kind::ImpossibleTopology,
                span,
                format!("at least {least}: {why}"),
                format!("`{key} = {}`", read.get()),
                None,
            );
            return None;
        }
        u32::try_from(read.get()).ok()
    };
    let servers = count("servers", 1, "without a server there is no committee");
    let aggregators = count("aggregators", 1, "without an aggregator no round gets its aggregate");
    let clients = count("clients", 1, "without a client there is nothing to broadcast");
    let sizes = Sizes(BTreeMap::from([
        (Role::Server, servers.unwrap_or(0)),
        (Role::Aggregator, aggregators.unwrap_or(0)),
        (Role::Client, clients.unwrap_or(0)),
    ]));
    let known = servers.is_some() && aggregators.is_some() && clients.is_some();
    if known {
        body.reader.sizes.insert(name.clone(), sizes);
    }
    let down = if known {
        body.take::<Option<Nodes>>("down", None)
    } else {
        body.value("down");
        None
    };
    let first = body.take::<Int<1, 64>>("first_voters", Some("3"));
    if let (Some(first), Some(servers)) = (first, servers)
        && first.get() > u64::from(servers)
    {
        let span = body.key("servers").map_or_else(|| body.span(), toml::Spanned::span);
        body.reader.error(
            Kind::ImpossibleTopology,
            span,
            format!(
                "at least {} servers: a log's first round waits for that many voters (`first_voters` asks for fewer)",
                first.get()
            ),
            format!("`servers = {servers}`, with which no majority can come about"),
            None,
        );
    }
    let params = params(body);
    let mut env = |key: &'static str, roles: &[Role]| {
        if !known {
            body.value(key);
            return None;
        }
        body.reader.env_of = roles.to_vec();
        let env = body.take::<Env>(key, None);
        body.reader.env_of = Role::ALL.to_vec();
        env
    };
    let common = env("env", &Role::ALL);
    let server_env = env("server_env", &[Role::Server]);
    let aggregator_env = env("aggregator_env", &[Role::Aggregator]);
    let client_env = env("client_env", &[Role::Client]);
    let deployment = Deployment {
        down: down?.map(|nodes| nodes.0).unwrap_or_default(),
        name,
        servers: servers?,
        aggregators: aggregators?,
        clients: clients?,
        first_voters: u32::try_from(first?.get()).ok()?,
        params: params?,
        env: common?,
        server_env: server_env?,
        aggregator_env: aggregator_env?,
        client_env: client_env?,
    };
    floors(body, &deployment);
    Some(deployment)
}

fn params(body: &mut Body<'_, '_, '_>) -> Option<Params> {
    let default = Params { num_slots: 64, slot_bytes: 256, tag_len: 16 };
    let Some(value) = body.value("params") else {
        return Some(default);
    };
    let mut table = Body::of(body.reader, value, "a table of round parameters")?;
    let num_slots = table.take::<Int<1, 4096>>("num_slots", Some("64"));
    let slot_bytes = table.take::<Int<32, 65_536>>("slot_bytes", Some("256"));
    let tag_len = table.take::<Int<8, 31>>("tag_len", Some("16"));
    table.finish();
    Some(Params { num_slots: num_slots?.get(), slot_bytes: slot_bytes?.get(), tag_len: tag_len?.get() })
}

/// Floors that the topology can never reach.
fn floors(body: &mut Body<'_, '_, '_>, deployment: &Deployment) {
    let floors = [
        ("ZIPNET_MIN_PARTICIPANTS", deployment.clients, "clients"),
        ("ZIPNET_MIN_SERVERS", deployment.servers, "servers"),
    ];
    for (name, count, what) in floors {
        for (key, env) in [
            ("env", &deployment.env),
            ("server_env", &deployment.server_env),
            ("client_env", &deployment.client_env),
        ] {
            let greatest = env
                .0
                .get(name)
                .map(Setting::texts)
                .unwrap_or_default()
                .iter()
                .filter_map(|text| text.parse::<u64>().ok())
                .max();
            if let Some(greatest) = greatest.filter(|greatest| *greatest > u64::from(count)) {
                let span = body.key(key).map_or_else(|| body.span(), toml::Spanned::span);
                body.reader.error(
                    Kind::ImpossibleTopology,
                    span,
                    format!("{name} of at most {count}: the topology has {count} {what}"),
                    format!("{greatest}, with which no round can come about"),
                    None,
                );
            }
        }
    }
}

fn runbook(body: &mut Body<'_, '_, '_>, main: Option<&Deployment>) -> Option<Option<String>> {
    let Some(value) = body.value("runbook") else {
        return Some(None);
    };
    let name = String::read(body.reader, value)?;
    let Some((_, least)) = RUNBOOKS.iter().find(|(known, _)| *known == name) else {
        let known = RUNBOOKS.iter().map(|(known, _)| *known);
        body.reader.unknown(
            Kind::UnknownWord,
            value.span(),
            "a section of the operators' documents, `document#section`",
            &name,
            known,
        );
        return None;
    };
    if let Some(main) = main.filter(|main| main.servers < *least) {
        body.reader.error(
            Kind::ImpossibleTopology,
            value.span(),
            format!("at least {least} servers for this procedure"),
            format!("`servers = {}`", main.servers),
            None,
        );
        return None;
    }
    Some(Some(name))
}

/// More than any network has.
pub(crate) const BANDWIDTH_KIB_MAX: u64 = 1_000_000_000;

fn network(body: &mut Body<'_, '_, '_>) -> Option<Network> {
    const LATENCY: &str = "{ median = '20ms', p99 = '150ms' }";
    const NONE: &str = "{ permille = 0 }";
    let read = |body: &mut Body<'_, '_, '_>| {
        let latency = body.take("latency", Some(LATENCY));
        let loss = body.take("loss", Some(NONE));
        let duplicate = body.take("duplicate", Some(NONE));
        let reorder = body.take("reorder", Some(NONE));
        let bandwidth = body.take("bandwidth_kib", Some("0"));
        Some(Network {
            latency: latency?,
            loss: loss?,
            duplicate: duplicate?,
            reorder: reorder?,
            bandwidth_kib: bandwidth?,
        })
    };
    match one(body, "network", read)? {
        Some(network) => Some(network),
        None => {
            let empty = DeTable::new();
            read(&mut Body::new(body.reader, &empty, 0..0))
        }
    }
}

/// Finds the ids before anything refers to them, and those that stand twice.
fn collect_ids(body: &mut Body<'_, '_, '_>) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for table in ["step", "fault", "workload", "expect", "threshold"] {
        let Some(items) = body.value(table).and_then(|value| value.get_ref().as_array()) else {
            continue;
        };
        for item in items {
            let Some(value) = item.get_ref().get("id") else {
                continue;
            };
            let Some(id) = value.get_ref().as_str() else {
                continue;
            };
            if !seen.insert(id.to_owned()) {
                let found = format!("`{}` again", id.escape_debug());
                body.reader.error(Kind::DuplicateId, value.span(), "an id of its own", found, None);
            }
            match table {
                "step" => body.reader.steps.push(id.to_owned()),
                "fault" => body.reader.faults.push(id.to_owned()),
                _ => {}
            }
        }
    }
}

/// An id in kebab case.
fn id(body: &mut Body<'_, '_, '_>) -> Option<String> {
    let expected = "`id`: lower-case letters, digits and hyphens";
    let Some(value) = body.value("id") else {
        body.reader.error(Kind::Missing, body.span(), expected, "nothing", None);
        return None;
    };
    let id = String::read(body.reader, value)?;
    let plain = id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if id.is_empty() || id.len() > 64 || !plain {
        let found = format!("the text \"{}\"", id.escape_debug());
        body.reader.error(Kind::UnknownId, value.span(), expected, found, None);
        return None;
    }
    Some(id)
}

/// The single verb behind `do` of a workload or fault.
fn act<V: Verbs>(body: &mut Body<'_, '_, '_>, place: &str) -> Option<V> {
    let Some(value) = body.value("do") else {
        let names: Vec<&str> = V::table().iter().map(|verb| verb.name).collect();
        body.reader.error(
            Kind::Missing,
            body.span(),
            format!("`do` with one of {}", names.join(", ")),
            "nothing",
            None,
        );
        return None;
    };
    read_call(body.reader, value, place, |_| Some(())).map(|(_, verb, ())| verb)
}

/// `room` is how many bytes a payload may have.
fn workload(body: &mut Body<'_, '_, '_>, place: Place, room: u64) -> Option<Workload> {
    let id = id(body);
    let say = sentence(body, "say");
    let during = body.take::<Option<Vec<StepId>>>("during", None);
    let act = act(body, "workload.do");
    if let Some(WorkloadDo::Publish { payload_bytes, .. }) = &act {
        let greatest = payload_bytes.0.greatest().get();
        if greatest > room {
            let span = body.key("do").map_or_else(|| body.span(), toml::Spanned::span);
            body.reader.error(
                Kind::OutOfRange,
                span,
                format!("payloads of at most {room} bytes, for a slot has no room for more"),
                format!("{greatest} bytes"),
                None,
            );
        }
    }
    Some(Workload { id: id?, say: say?, place, during: during?.unwrap_or_default(), act: act? })
}

fn fault(body: &mut Body<'_, '_, '_>, place: Place) -> Option<Fault> {
    let id = id(body);
    let say = sentence(body, "say");
    let during = body.take::<Option<Vec<StepId>>>("during", None);
    let at_once = body.take::<Int<1, 64>>("at_once", Some("1"));
    let times = body.take::<Option<Int<1, 64>>>("times", None);
    let act = act(body, "fault.do");
    Some(Fault {
        id: id?,
        say: say?,
        place,
        during: during?.unwrap_or_default(),
        at_once: at_once?.get(),
        times: times?.map(Int::get),
        act: act?,
    })
}

/// One table of a verb, or a list of such tables.
fn calls<'a, 't>(value: Option<&'a Value<'t>>) -> Vec<&'a Value<'t>> {
    match value {
        None => Vec::new(),
        Some(value) => match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => vec![value],
        },
    }
}

/// The verbs of a list, all of them read even after an error.
fn placed<V: Verbs>(body: &mut Body<'_, '_, '_>, key: &'static str, place: &str) -> Option<Vec<Placed<V>>> {
    let read: Vec<Option<Placed<V>>> = calls(body.value(key))
        .into_iter()
        .map(|call| {
            let (place, verb, ()) = read_call(body.reader, call, place, |_| Some(()))?;
            Some(Placed { place, verb })
        })
        .collect();
    read.into_iter().collect()
}

/// What is known about the steps read so far.
#[derive(Default)]
struct Before {
    /// The `for_each` whose group is open, with the role of its turns if that could be read.
    group: Option<(String, Option<Role>)>,
    /// Whether any step started a node.
    started: bool,
}

fn steps(body: &mut Body<'_, '_, '_>) -> Option<Vec<Step>> {
    let mut before = Before::default();
    let found = body.key("step").is_some();
    let down: Vec<NodeRef> = down_at_first(body);
    let steps = each(body, "step", |body, place| step(body, place, &mut before, &down));
    body.reader.each = None;
    if !found {
        body.reader.error(Kind::Missing, 0..0, "at least one `[[step]]`", "nothing", None);
        return None;
    }
    steps
}

/// The nodes of the main deployment that `down` names.
fn down_at_first(body: &mut Body<'_, '_, '_>) -> Vec<NodeRef> {
    let Some(down) = body.value("topology").and_then(|topology| topology.get_ref().get("down")) else {
        return Vec::new();
    };
    calls(Some(down)).into_iter().filter_map(|value| NodeRef::parse(value.get_ref().as_str()?, [])).collect()
}

fn step(body: &mut Body<'_, '_, '_>, place: Place, before: &mut Before, down: &[NodeRef]) -> Option<Step> {
    let id = id(body);
    let say = sentence(body, "say");
    body.reader.each = None;
    body.reader.each_unknown = false;
    let for_each = match body.value("for_each") {
        None => Some(None),
        Some(value) => for_each(body.reader, value, before, down).map(Some),
    };
    let with = match body.value("with") {
        None => Some(None),
        Some(value) => with(body.reader, value, before, &for_each).map(Some),
    };
    match (&for_each, &with) {
        (Some(Some(list)), _) => {
            let role = match list {
                ForEach::Role(role) => Some(*role),
                ForEach::Nodes(nodes) => nodes.first().map(|node| node.role),
            };
            before.group = id.clone().map(|id| (id, role));
        }
        (None, _) => before.group = id.clone().map(|id| (id, None)),
        (Some(None), Some(None)) => before.group = None,
        // The group stays open for the steps behind this one.
        (Some(None), _) => {}
    }
    if body.key("for_each").is_some() || body.key("with").is_some() {
        body.reader.each = before.group.as_ref().and_then(|(_, role)| *role);
        // The slip in `for_each` or `with` was named; every `:each` after it would be a second complaint about it.
        body.reader.each_unknown = body.reader.each.is_none() || with.is_none();
    }

    let acts = placed::<Do>(body, "do", "step.do");
    let untils: Vec<Option<Until>> = calls(body.value("until"))
        .into_iter()
        .map(|call| {
            let bound = |body: &mut Body<'_, '_, '_>| body.take::<Span>("within", Some(UNTIL_WITHIN));
            let (place, condition, within) = read_call(body.reader, call, "step.until", bound)?;
            condition_fits(body.reader, call, &condition);
            Some(Until { place, condition, within })
        })
        .collect();
    let untils: Option<Vec<Until>> = untils.into_iter().collect();
    let checks = placed::<Check>(body, "check", "step.check");
    for (check, call) in checks.iter().flatten().zip(calls(body.value("check"))) {
        check_fits(body.reader, call, &check.verb);
    }
    for (act, call) in acts.iter().flatten().zip(calls(body.value("do"))) {
        act_fits(body.reader, call, &act.verb);
        before.started |= matches!(act.verb, Do::Start { .. });
    }
    if body.key("do").is_none() && body.key("until").is_none() && body.key("check").is_none() {
        body.reader.error(
            Kind::Missing,
            body.span(),
            "`do`, `until` or `check`",
            "a step that does nothing",
            None,
        );
    }
    body.reader.each = None;
    body.reader.each_unknown = false;
    Some(Step {
        id: id?,
        say: say?,
        place,
        for_each: for_each?,
        with: with?,
        acts: acts?,
        untils: untils?,
        checks: checks?,
    })
}

fn for_each(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    before: &Before,
    down: &[NodeRef],
) -> Option<ForEach> {
    if value.get_ref().is_array() {
        let nodes = Vec::<NodeRef>::read(reader, value)?;
        let role = nodes.first().map(|node| node.role);
        let numbered = |node: &NodeRef| matches!(node.which, Which::Number(_)) && Some(node.role) == role;
        if !nodes.iter().all(numbered) {
            reader.error(
                Kind::Unreachable,
                value.span(),
                "single nodes of one role, such as [\"server-1\", \"server-2\"]",
                "a list of others",
                None,
            );
            return None;
        }
        return Some(ForEach::Nodes(nodes));
    }
    let written = crate::argument::text(reader, value, || {
        "a role (\"server\", \"aggregator\", \"client\") or a list of nodes".to_owned()
    })?
    .to_owned();
    let Some(role) = Role::ALL.into_iter().find(|role| role.name() == written) else {
        reader.unknown(
            Kind::UnknownWord,
            value.span(),
            "a role or a list of nodes",
            &written,
            Role::ALL.map(Role::name),
        );
        return None;
    };
    let count = reader.sizes.get("").map_or(0, |sizes| sizes.of(role));
    let absent = |number| {
        down.iter().any(|node| {
            node.role == role && (node.which == Which::All || node.which == Which::Number(number))
        })
    };
    if !before.started && (1..=count).all(absent) {
        reader.error(
            Kind::Unreachable,
            value.span(),
            format!("a role with a node that is up; every {role} is `down`, and no step before this one starts any"),
            format!("`{written}`"),
            None,
        );
        return None;
    }
    Some(ForEach::Role(role))
}

fn with(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    before: &Before,
    for_each: &Option<Option<ForEach>>,
) -> Option<StepId> {
    let id = StepId::read(reader, value)?;
    if for_each.as_ref().is_some_and(Option::is_some) {
        reader.error(Kind::Unreachable, value.span(), "`for_each` or `with`, not both", "both", None);
        return None;
    }
    match &before.group {
        Some((open, _)) if *open == id.0 => Some(id),
        Some((open, _)) => {
            let (expected, open) = (format!("`{open}`, whose group is open here"), open.clone());
            reader.error(Kind::Unreachable, value.span(), expected, format!("`{}`", id.0), Some(open));
            None
        }
        None => {
            reader.error(
                Kind::Unreachable,
                value.span(),
                "a step with `for_each` directly before, with nothing between but steps `with` it",
                format!("`{}`", id.0),
                None,
            );
            None
        }
    }
}

/// More servers asked for than there are.
fn servers_fit(reader: &mut Reader<'_>, call: &Value<'_>, count: u64) {
    let servers = reader.sizes.get("").map_or(0, |sizes| sizes.of(Role::Server));
    if count > u64::from(servers) {
        reader.error(
            Kind::ImpossibleTopology,
            call.span(),
            format!("at most {servers}: the topology has {servers} servers"),
            format!("{count} servers"),
            None,
        );
    }
}

fn clients_fit(reader: &mut Reader<'_>, call: &Value<'_>, count: u64) {
    let clients = reader.sizes.get("").map_or(0, |sizes| sizes.of(Role::Client));
    if count > u64::from(clients) {
        reader.error(
            Kind::ImpossibleTopology,
            call.span(),
            format!("at most {clients}: the topology has {clients} clients"),
            format!("{count} clients"),
            None,
        );
    }
}

fn condition_fits(reader: &mut Reader<'_>, call: &Value<'_>, condition: &Condition) {
    match condition {
        Condition::Voters { count, .. } => servers_fit(reader, call, count.get()),
        Condition::Registered { servers, clients } => {
            if let Some(servers) = servers {
                servers_fit(reader, call, servers.get());
            }
            if let Some(clients) = clients {
                clients_fit(reader, call, clients.get());
            }
            if servers.is_none() && clients.is_none() {
                asks_for_nothing(reader, call, "`servers` or `clients`");
            }
        }
        Condition::RoundsFinalized { .. }
        | Condition::LogEvent { .. }
        | Condition::Leader { .. }
        | Condition::Exited { .. }
        | Condition::Stalled { .. }
        | Condition::Status { .. }
        | Condition::Refused { .. }
        | Condition::Outcome { .. } => {}
    }
}

fn check_fits(reader: &mut Reader<'_>, call: &Value<'_>, check: &Check) {
    match check {
        Check::Voters { exactly, .. } => servers_fit(reader, call, exactly.get()),
        Check::Leaders { exactly } => servers_fit(reader, call, exactly.get()),
        Check::Registry { servers, clients } => {
            if let Some(servers) = servers {
                servers_fit(reader, call, servers.get());
            }
            if let Some(clients) = clients {
                clients_fit(reader, call, clients.get());
            }
            if servers.is_none() && clients.is_none() {
                asks_for_nothing(reader, call, "`servers` or `clients`");
            }
        }
        Check::Roster { count, includes, excludes } => {
            if let Some(count) = count {
                servers_fit(reader, call, count.get());
            }
            if count.is_none() && includes.is_none() && excludes.is_none() {
                asks_for_nothing(reader, call, "`count`, `includes` or `excludes`");
            }
        }
        Check::Metric { equals, at_least, .. } => {
            if equals.is_none() && at_least.is_none() {
                asks_for_nothing(reader, call, "`equals` or `at_least`");
            }
        }
        Check::ExitCode { .. }
        | Check::AnnouncedDeparture { .. }
        | Check::NoRoundFinalized { .. }
        | Check::LogEvent { .. }
        | Check::NoLogEvent { .. }
        | Check::LogOrder { .. }
        | Check::Status { .. }
        | Check::Readiness { .. }
        | Check::GroupId { .. }
        | Check::SameLog { .. }
        | Check::Refused { .. }
        | Check::Wiped { .. }
        | Check::OpensNoPastRound { .. }
        | Check::RoundNumbersContinue { .. }
        | Check::RoundsWentOn { .. }
        | Check::Plan { .. } => {}
    }
}

fn asks_for_nothing(reader: &mut Reader<'_>, call: &Value<'_>, expected: &str) {
    reader.error(Kind::Missing, call.span(), expected, "nothing", None);
}

fn act_fits(reader: &mut Reader<'_>, call: &Value<'_>, act: &Do) {
    let wrong_role = |nodes: &[NodeRef], role: Role| nodes.iter().find(|node| node.role != role).cloned();
    if let Do::Refuse { client, .. } = act
        && let Some(stranger) = wrong_role(&client.0, Role::Client)
    {
        let expected = format!("a {}", Role::Client);
        reader.error(Kind::UnknownNode, call.span(), expected, format!("`{stranger}`"), None);
    }
    if let Do::Approve { aggregator, .. } = act
        && let Some(stranger) = wrong_role(core::slice::from_ref(aggregator), Role::Aggregator)
    {
        let expected = format!("a {}", Role::Aggregator);
        reader.error(Kind::UnknownNode, call.span(), expected, format!("`{stranger}`"), None);
    }
    let (stranger, role) = match act {
        Do::Retire { node, .. } => (wrong_role(core::slice::from_ref(node), Role::Server), Role::Server),
        Do::Approve { node, .. } | Do::Refuse { node, .. } => {
            (wrong_role(&node.0, Role::Server), Role::Server)
        }
        Do::Publish { node, .. } => (wrong_role(&node.0, Role::Client), Role::Client),
        Do::Start { .. }
        | Do::Stop { .. }
        | Do::Crash { .. }
        | Do::Restart { .. }
        | Do::Wait { .. }
        | Do::SetEnv { .. }
        | Do::Wipe { .. }
        | Do::Partition { .. }
        | Do::Heal { .. }
        | Do::Upgrade { .. }
        | Do::Lie { .. } => (None, Role::Server),
    };
    if let Some(stranger) = stranger {
        reader.error(Kind::UnknownNode, call.span(), format!("a {role}"), format!("`{stranger}`"), None);
    }
    let (Do::Start { node, env, .. } | Do::SetEnv { node, env }) = act else {
        return;
    };
    for node in &node.0 {
        for name in env.0.keys() {
            let variable = crate::env::variable_named(name).expect("the env was read with the same table");
            if !variable.roles.contains(&node.role) {
                reader.error(
                    Kind::UnknownVariable,
                    call.span(),
                    format!("variables of the {}", node.role),
                    format!("`{name}`, which it does not read"),
                    None,
                );
            }
        }
    }
}

fn expect(body: &mut Body<'_, '_, '_>, place: Place) -> Option<Expect> {
    let id = id(body);
    let say = sentence(body, "say");
    let always = body.value("always");
    let eventually = body.value("eventually");
    let sometimes = body.value("sometimes");
    let what = match (always, eventually, sometimes) {
        (Some(value), None, None) => read_call(body.reader, value, "expect.always", |_| Some(()))
            .map(|(_, property, ())| Expectation::Always(property)),
        (None, Some(value), None) => {
            let common = |body: &mut Body<'_, '_, '_>| {
                let within = body.take::<Span>("within", Some(UNTIL_WITHIN));
                let after = body.take::<Option<StepId>>("after", None);
                Some((within?, after?))
            };
            let read = read_call(body.reader, value, "expect.eventually", common);
            if let Some((_, condition, _)) = &read {
                condition_fits(body.reader, value, condition);
            }
            read.map(|(_, condition, (within, after))| Expectation::Eventually { condition, within, after })
        }
        (None, None, Some(value)) => {
            let common = |body: &mut Body<'_, '_, '_>| body.take::<Option<StepId>>("during", None);
            read_call(body.reader, value, "expect.sometimes", common)
                .map(|(_, situation, during)| Expectation::Sometimes { situation, during })
        }
        (None, None, None) => {
            // A misspelt kind is named by the check for unknown keys; this one says that something is missing.
            body.reader.error(
                Kind::Missing,
                body.span(),
                "`always`, `eventually` or `sometimes`",
                "an expectation of nothing",
                None,
            );
            None
        }
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            body.reader.error(
                Kind::UnknownKey,
                body.span(),
                "one of `always`, `eventually` and `sometimes`",
                "several",
                None,
            );
            None
        }
    };
    Some(Expect { id: id?, say: say?, place, what: what? })
}

fn threshold(body: &mut Body<'_, '_, '_>, place: Place) -> Option<Threshold> {
    let id = id(body);
    let say = sentence(body, "say");
    let metric = body.take::<Metric>("metric", None);
    let stat = body.take::<Stat>("stat", None);
    let mut bound = |key: &'static str| {
        let Some(value) = body.value(key) else {
            return Some(None);
        };
        if metric?.is_time() {
            Span::read(body.reader, value).map(|span| Some(Amount::Time(span)))
        } else {
            Int::<0, 1_000_000_000>::read(body.reader, value).map(|count| Some(Amount::Count(count.get())))
        }
    };
    let min = bound("min");
    let max = bound("max");
    if min == Some(None) && max == Some(None) {
        body.reader.error(Kind::Missing, body.span(), "`min` or `max`", "nothing", None);
        return None;
    }
    Some(Threshold { id: id?, say: say?, place, metric: metric?, stat: stat?, min: min?, max: max? })
}
