//! The steps of a scenario, in order.

use zipnet_reports::{Seconds, Step, StepOutcome, Verdict};
use zipnet_scenarios::node::{NodeRef, Which};
use zipnet_scenarios::scenario::{Expectation, ForEach, StepId, Until};
use zipnet_scenarios::verbs::{Check as Examined, Condition};

use super::condition::Wait;
use super::{End, Found, Going, Pending, Run};
use crate::cast::NodeId;
use crate::site::{Judged, Site};

/// How a node ends that the committee refuses.
const EXIT_REFUSED: u64 = 77;

impl<S: Site> Run<'_, S> {
    /// Every step, in order.
    pub(super) async fn procedure(&mut self) -> Going {
        let steps = &self.scenario.steps;
        let mut next = 0;
        while let Some(step) = steps.get(next) {
            let Some(for_each) = &step.for_each else {
                self.carry_out_step(next).await?;
                next += 1;
                continue;
            };
            let body = steps
                .iter()
                .skip(next + 1)
                .take_while(|other| other.with.as_ref().is_some_and(|with| with.0 == step.id));
            let end = next + 1 + body.count();
            for node in self.turns(for_each) {
                self.each = Some(node);
                for step in next..end {
                    self.carry_out_step(step).await?;
                }
            }
            self.each = None;
            next = end;
        }
        self.step = None;
        Ok(())
    }

    /// Whose turns a group is done for.
    fn turns(&self, for_each: &ForEach) -> Vec<NodeId> {
        match for_each {
            ForEach::Role(role) => self.up(0, *role),
            ForEach::Nodes(nodes) => nodes.iter().filter_map(|node| self.site.cast().find(node)).collect(),
        }
    }

    async fn carry_out_step(&mut self, place: usize) -> Going {
        let Some(step) = self.scenario.steps.get(place) else { return Ok(()) };
        let turn = self.each.map(|node| format!("[{}]", self.name(node))).unwrap_or_default();
        self.site.note(&format!("step {}{turn}", step.id));
        let now = self.now();
        self.steps.push(Step {
            id: format!("{}{turn}", step.id),
            say: step.say.clone(),
            started_s: Seconds::from_nanos(now.0),
            ended_s: None,
            outcome: StepOutcome::Unfinished,
        });
        self.step = Some(place);
        self.mark = self.witness.mark(now);
        self.acted.clear();
        self.begun.entry(step.id.clone()).or_insert(now);
        // Whoever is refused may take its time to give up.
        self.allowed_exits.retain(|(_, code)| *code == EXIT_REFUSED);
        let exits = self.exits_of(place);
        self.allowed_exits.extend(exits);
        self.turn_faults(Some(&step.id))?;
        let done = self.do_and_see(place).await;
        let now = self.now();
        if let Some(record) = self.steps.last_mut() {
            record.outcome = match &done {
                Ok(()) => StepOutcome::Done,
                Err(End::Found(found)) if found.property == step.id => StepOutcome::Failed,
                Err(End::Found(_) | End::Interrupted | End::Broken(_)) => StepOutcome::Unfinished,
            };
            if done.is_ok() {
                record.ended_s = Some(Seconds::from_nanos(now.0));
            }
        }
        done?;
        let mut groups = Vec::new();
        for node in 0..self.site.cast().len() {
            groups.push(self.site.group(node).await);
        }
        self.groups.insert(step.id.clone(), groups);
        for expect in 0..self.scenario.expects.len() {
            self.begin_eventually(expect, Some(&step.id)).await?;
        }
        Ok(())
    }

    async fn do_and_see(&mut self, place: usize) -> Going {
        let Some(step) = self.scenario.steps.get(place) else { return Ok(()) };
        let already = if step.acts.is_empty() { Vec::new() } else { self.already(&step.untils).await };
        for act in &step.acts {
            self.act(&act.verb, act.place.line).await?;
        }
        for (until, wait) in already {
            if self.is_met(&wait, until.place.line).await? {
                let detail = format!(
                    "{} was so before the `do` of this step, and is so right after it: waiting for it proves nothing; say \
                     it with `check`, or wait for what the `do` changes",
                    until.condition.verb()
                );
                return Err(self.failed(Verdict::Inconclusive, Some(until.place.line), detail));
            }
        }
        for until in &step.untils {
            let wait = self.begin_wait(&until.condition, self.mark.clone()).await?;
            let end = self.now().after(until.within.duration());
            loop {
                self.look()?;
                if self.is_met(&wait, until.place.line).await? {
                    break;
                }
                if self.now() >= end {
                    let told = self.told(&wait).await;
                    let detail =
                        format!("{} was not so within {}: {told}", until.condition.verb(), until.within);
                    return Err(self.failed_on(
                        Verdict::NotConverged,
                        until.place.line,
                        wait.about(),
                        detail,
                    ));
                }
                self.pass(self.now().after(S::LOOK)).await?;
            }
        }
        for check in &step.checks {
            self.look()?;
            match self.examine(&check.verb).await? {
                Judged::Holds => {}
                Judged::Fails { node, how } => {
                    let detail = format!("{}: {how}", check.verb.verb());
                    return Err(self.failed_on(Verdict::Violated, check.place.line, node, detail));
                }
                Judged::Unseen(why) => {
                    let why = format!("{}: {why}", check.verb.verb());
                    self.not_judged(&step.id, &step.say, check.place.line, why);
                }
            }
        }
        Ok(())
    }

    /// What a step waits for and what is so before it does anything, as far as that can be told without drawing a node.
    async fn already<'u>(&mut self, untils: &'u [Until]) -> Vec<(&'u Until, Wait)> {
        let mut already = Vec::new();
        for until in untils.iter().filter(|until| is_fixed(&until.condition)) {
            // Nodes that are yet to be started are not there to be looked at.
            let Ok(wait) = self.begin_wait(&until.condition, self.mark.clone()).await else { continue };
            if self.is_met(&wait, until.place.line).await.unwrap_or(false) {
                already.push((until, wait));
            }
        }
        already
    }

    /// How processes may end by themselves in a step, as far as it says so.
    fn exits_of(&self, place: usize) -> Vec<(NodeId, u64)> {
        let Some(step) = self.scenario.steps.get(place) else { return Vec::new() };
        let waited = step.untils.iter().filter_map(|until| match &until.condition {
            Condition::Exited { node, code } => Some((node, code.get())),
            Condition::Refused { node, .. } => Some((node, EXIT_REFUSED)),
            _ => None,
        });
        let checked = step.checks.iter().filter_map(|check| match &check.verb {
            Examined::ExitCode { node: Some(node), equals } => Some((node, equals.get())),
            Examined::Refused { node, .. } => Some((node, EXIT_REFUSED)),
            _ => None,
        });
        let mut exits = Vec::new();
        for (nodes, code) in waited.chain(checked) {
            exits.extend(nodes.0.iter().flat_map(|node| self.everyone(node)).map(|node| (node, code)));
        }
        exits
    }

    /// A failure of the step that is carried out, on the node whose turn it is.
    pub(super) fn failed(&self, verdict: Verdict, line: Option<u32>, detail: String) -> End {
        let step = self.step.and_then(|step| self.scenario.steps.get(step));
        End::Found(Box::new(Found {
            verdict,
            property: step.map_or_else(|| "procedure".to_owned(), |step| step.id.clone()),
            sentence: step.map(|step| step.say.clone()).unwrap_or_default(),
            line: line.or_else(|| step.map(|step| step.place.line)).unwrap_or(1),
            node: self.each.map(|node| self.name(node).to_owned()),
            detail,
            place: None,
        }))
    }

    /// A failure of the step that is carried out, on this node if there is one.
    pub(super) fn failed_on(&self, verdict: Verdict, line: u32, node: Option<NodeId>, detail: String) -> End {
        let mut end = self.failed(verdict, Some(line), detail);
        if let (End::Found(found), Some(node)) = (&mut end, node) {
            found.node = Some(self.name(node).to_owned());
        }
        end
    }

    /// The time of an `eventually` begins if it begins here: at the end of this step, or of the last one.
    pub(super) async fn begin_eventually(&mut self, expect: usize, step: Option<&str>) -> Going {
        let Some(expected) = self.scenario.expects.get(expect) else { return Ok(()) };
        let Expectation::Eventually { condition, within, after } = &expected.what else { return Ok(()) };
        if after.as_ref().map(|StepId(id)| id.as_str()) != step {
            return Ok(());
        }
        let mark = self.witness.mark(self.now());
        let wait = self.begin_wait(condition, mark).await?;
        let until = self.now().after(within.duration());
        self.pending.retain(|pending| pending.expect != expect);
        self.pending.push(Pending { expect, wait, until });
        Ok(())
    }

    /// Looks at every `eventually` whose time runs.
    pub(super) async fn check_pending(&mut self) -> Going {
        let mut open = Vec::new();
        for pending in core::mem::take(&mut self.pending) {
            let Some(expected) = self.scenario.expects.get(pending.expect) else { continue };
            if self.is_met(&pending.wait, expected.place.line).await? {
                continue;
            }
            if self.now() >= pending.until {
                let told = self.told(&pending.wait).await;
                return Err(End::Found(Box::new(Found {
                    verdict: Verdict::NotConverged,
                    property: expected.id.clone(),
                    sentence: expected.say.clone(),
                    line: expected.place.line,
                    node: pending.wait.about().map(|node| self.name(node).to_owned()),
                    detail: format!("{} did not come true in time: {told}", pending.wait.verb()),
                    place: None,
                })));
            }
            open.push(pending);
        }
        self.pending = open;
        Ok(())
    }
}

/// Whether the nodes of a condition are the same before and after something was done.
fn is_fixed(condition: &Condition) -> bool {
    let fixed = |node: &NodeRef| match node.which {
        Which::Number(_) | Which::All | Which::Each => true,
        Which::Any | Which::Rest | Which::Leader | Which::Follower | Which::Target => false,
    };
    match condition {
        Condition::RoundsFinalized { node, .. }
        | Condition::LogEvent { node, .. }
        | Condition::Exited { node, .. }
        | Condition::Refused { node, .. }
        | Condition::Outcome { node, .. } => node.0.iter().all(fixed),
        Condition::Status { node, names, .. } => node.0.iter().chain(names).all(fixed),
        Condition::Voters { includes, excludes, .. } => {
            let nodes = [includes, excludes].into_iter().flatten();
            nodes.flat_map(|nodes| &nodes.0).all(fixed)
        }
        Condition::Leader {} | Condition::Registered { .. } | Condition::Stalled { .. } => true,
    }
}
