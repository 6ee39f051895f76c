//! A scenario as a file that can be read again.

use core::fmt::Write as _;

use crate::argument::{StepId, quoted};
use crate::body::Argument;
use crate::env::{Env, write_setting};
use crate::node::Nodes;
use crate::scenario::{Amount, Deployment, Expectation, ForEach, Resolved, Scenario, Step};
use crate::verbs::Verbs as _;
use crate::words::Word as _;

/// Lines of `key = value`, and tables.
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn table(&mut self, head: &str) {
        self.line("");
        self.line(head);
    }

    fn key(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value {
            self.line(&format!("{key} = {value}"));
        }
    }

    /// `do.verb = { … }` for one, `do = [{ verb = { … } }, …]` for several.
    fn calls(&mut self, key: &str, calls: &[(&'static str, Vec<(String, String)>)]) {
        match calls {
            [] => {}
            [(verb, arguments)] => self.line(&format!("{key}.{verb} = {}", inline(arguments))),
            calls => {
                self.line(&format!("{key} = ["));
                for (verb, arguments) in calls {
                    self.line(&format!("  {{ {verb} = {} }},", inline(arguments)));
                }
                self.line("]");
            }
        }
    }
}

fn inline(arguments: &[(String, String)]) -> String {
    if arguments.is_empty() {
        return "{}".to_owned();
    }
    let mut out = String::from("{ ");
    for (index, (name, value)) in arguments.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(out, "{comma}{name} = {value}").expect("writing to a text does not fail");
    }
    out.push_str(" }");
    out
}

impl Resolved {
    /// The scenario as a file that can be read again.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.scenario().to_toml()
    }
}

impl Scenario {
    /// The scenario as a file that can be read again. Comments and the order of keys are not kept.
    #[must_use]
    pub fn to_toml(&self) -> String {
        written(self)
    }
}

/// The whole scenario; what is as by default is written out as well.
fn written(scenario: &Scenario) -> String {
    let mut page = Page(String::new());
    page.line("schema = 1");
    page.key("title", scenario.title.write());
    page.key("prose", scenario.prose.write());
    if !scenario.tags.is_empty() {
        page.key("tags", scenario.tags.write());
    }
    page.key("runbook", scenario.runbook.write());

    page.table("[limits]");
    page.key("time_limit", scenario.limits.time_limit.write());
    page.key("max_events", Some(scenario.limits.max_events.to_string()));

    for deployment in &scenario.deployments {
        write_deployment(&mut page, deployment);
    }

    page.table("[network]");
    page.key("latency", scenario.network.latency.write());
    page.key("loss", scenario.network.loss.write());
    page.key("duplicate", scenario.network.duplicate.write());
    page.key("reorder", scenario.network.reorder.write());
    page.key("bandwidth_kib", scenario.network.bandwidth_kib.write());

    for workload in &scenario.workloads {
        page.table("[[workload]]");
        head(&mut page, &workload.id, &workload.say);
        during(&mut page, &workload.during);
        page.calls("do", &[workload.act.write()]);
    }
    for fault in &scenario.faults {
        page.table("[[fault]]");
        head(&mut page, &fault.id, &fault.say);
        during(&mut page, &fault.during);
        page.key("at_once", Some(fault.at_once.to_string()));
        page.key("times", fault.times.map(|times| times.to_string()));
        page.calls("do", &[fault.act.write()]);
    }
    for step in &scenario.steps {
        write_step(&mut page, step);
    }
    for expect in &scenario.expects {
        page.table("[[expect]]");
        head(&mut page, &expect.id, &expect.say);
        match &expect.what {
            Expectation::Always(property) => page.calls("always", &[property.write()]),
            Expectation::Eventually { condition, within, after } => {
                let (verb, mut arguments) = condition.write();
                arguments.extend(argument("within", within));
                arguments.extend(argument("after", after));
                page.calls("eventually", &[(verb, arguments)]);
            }
            Expectation::Sometimes { situation, during } => {
                let (verb, mut arguments) = situation.write();
                arguments.extend(argument("during", during));
                page.calls("sometimes", &[(verb, arguments)]);
            }
        }
    }
    for threshold in &scenario.thresholds {
        page.table("[[threshold]]");
        head(&mut page, &threshold.id, &threshold.say);
        page.key("metric", threshold.metric.write());
        page.key("stat", threshold.stat.write());
        page.key("min", threshold.min.and_then(amount));
        page.key("max", threshold.max.and_then(amount));
    }
    if let Some(canary) = &scenario.canary {
        page.table("[canary]");
        page.line(&format!("defect = \"{}\"", canary.defect.name()));
        page.key("nodes", canary.nodes.write());
        page.line(&format!("property = \"{}\"", canary.property.name()));
    }
    if let Some(control) = &scenario.control {
        page.table("[control]");
        page.line(&format!("guard = \"{}\"", control.guard.name()));
        page.key("nodes", control.nodes.write());
    }
    page.0
}

fn head(page: &mut Page, id: &str, say: &str) {
    page.line(&format!("id = {}", quoted(id)));
    page.line(&format!("say = {}", quoted(say)));
}

fn during(page: &mut Page, steps: &[StepId]) {
    if !steps.is_empty() {
        page.key("during", steps.to_vec().write());
    }
}

fn argument(name: &str, value: &impl Argument) -> Option<(String, String)> {
    Some((name.to_owned(), value.write()?))
}

fn amount(amount: Amount) -> Option<String> {
    match amount {
        Amount::Count(count) => Some(count.to_string()),
        Amount::Time(span) => span.write(),
    }
}

fn write_deployment(page: &mut Page, deployment: &Deployment) {
    if deployment.name.is_empty() {
        page.table("[topology]");
    } else {
        page.table("[[instance]]");
        page.line(&format!("name = {}", quoted(&deployment.name)));
    }
    page.line(&format!("servers = {}", deployment.servers));
    page.line(&format!("aggregators = {}", deployment.aggregators));
    page.line(&format!("clients = {}", deployment.clients));
    if !deployment.down.is_empty() {
        page.key("down", Nodes(deployment.down.clone()).write());
    }
    page.line(&format!("first_voters = {}", deployment.first_voters));
    let params = deployment.params;
    page.line(&format!(
        "params = {{ num_slots = {}, slot_bytes = {}, tag_len = {} }}",
        params.num_slots, params.slot_bytes, params.tag_len
    ));
    write_env(page, "env", &deployment.env);
    write_env(page, "server_env", &deployment.server_env);
    write_env(page, "aggregator_env", &deployment.aggregator_env);
    write_env(page, "client_env", &deployment.client_env);
}

fn write_env(page: &mut Page, key: &str, env: &Env) {
    for (name, setting) in &env.0 {
        page.line(&format!("{key}.{name} = {}", write_setting(setting)));
    }
}

fn write_step(page: &mut Page, step: &Step) {
    page.table("[[step]]");
    head(page, &step.id, &step.say);
    match &step.for_each {
        None => {}
        Some(ForEach::Role(role)) => page.line(&format!("for_each = \"{role}\"")),
        Some(ForEach::Nodes(nodes)) => page.key("for_each", nodes.write()),
    }
    page.key("with", step.with.write());
    let acts: Vec<_> = step.acts.iter().map(|act| act.verb.write()).collect();
    page.calls("do", &acts);
    let untils: Vec<_> = step
        .untils
        .iter()
        .map(|until| {
            let (verb, mut arguments) = until.condition.write();
            arguments.extend(argument("within", &until.within));
            (verb, arguments)
        })
        .collect();
    page.calls("until", &untils);
    let checks: Vec<_> = step.checks.iter().map(|check| check.verb.write()).collect();
    page.calls("check", &checks);
}
