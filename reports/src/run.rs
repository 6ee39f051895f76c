use core::fmt;
use std::{collections::BTreeMap, io};

use serde::{Deserialize, Serialize};

use crate::{Exit, Seconds, Verdict};

/// What one run of one scenario with one seed came to. One line of JSON.
///
/// Everything except `cpu_s` and `wall_s` is the same on every machine and at every repeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// The scenario file, as it was named on the command line or found in a folder.
    pub scenario: String,
    /// The title the scenario gives itself.
    pub title: String,
    /// What every random choice of the run was drawn from.
    pub seed: u64,
    /// The defect that was planted in this run; none in an ordinary one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defect: Option<String>,
    /// Whether real processes were run instead of a simulation. There is no chain then, `events` are lines of logs, and
    /// simulated time is real time.
    #[serde(default, skip_serializing_if = "is_false")]
    pub live: bool,
    /// What the run came to.
    pub verdict: Verdict,
    /// The hash chain over everything that happened, after the last event, in hexadecimal.
    pub chain: String,
    /// How many events the chain holds.
    pub events: u64,
    /// How much time passed inside the simulation.
    pub simulated_s: Seconds,
    /// How much processor time the run took, measured.
    pub cpu_s: Seconds,
    /// How long the run took on the wall clock, measured.
    pub wall_s: Seconds,
    /// Whether the run was made a second time, and did exactly the same.
    #[serde(default)]
    pub repeated: bool,
    /// How often the things happened that every run counts.
    pub counts: Counts,
    /// How often each fault of the scenario fired, by its id. A fault that never fired is here with zero.
    #[serde(default)]
    pub faults: BTreeMap<String, u64>,
    /// Whether each `sometimes` expectation happened in this run, by its id.
    #[serde(default)]
    pub sometimes: BTreeMap<String, bool>,
    /// The samples this run adds to each `threshold` expectation, by its id; lengths of time in milliseconds.
    #[serde(default)]
    pub thresholds: BTreeMap<String, Vec<u64>>,
    /// The steps in the order in which they were reached.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Where each stream stands that the engine draws from, in hexadecimal: `steps`, `faults`, `workloads`. If a simulation
    /// and a run on real processes drew the same numbers in the same order, it is the same in both.
    #[serde(default)]
    pub draws: BTreeMap<String, String>,
    /// What a run on real processes left out, because only a simulation controls it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_controlled: Vec<String>,
    /// Why the verdict is another than held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The chain at regular distances, so that two runs can be compared without their events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<Checkpoint>,
    /// The events in the window that was asked for, one line of text each, beginning with its number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub window: Vec<String>,
}

/// How often the things happened that every run counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Leaders elected.
    pub elections: u64,
    /// Syncs of a simulated disk.
    pub syncs: u64,
    /// Messages delivered.
    pub messages: u64,
    /// Messages lost, cut off or refused by a simulated link.
    pub drops: u64,
    /// Messages delivered a second time by a simulated link.
    pub duplicates: u64,
    /// Nodes that lost their power.
    pub crashes: u64,
    /// Nodes started, first starts included.
    pub starts: u64,
    /// Rounds that were opened.
    pub rounds_opened: u64,
    /// Rounds whose output was finalized.
    pub rounds_finalized: u64,
    /// Rounds that were given up.
    pub rounds_abandoned: u64,
}

/// Why a run did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The always-on check or the id of the expectation or step that was not met.
    pub property: String,
    /// The event, counted from zero in the chain, at which it was noticed.
    pub event: u64,
    /// When it was noticed, in simulated time.
    pub at_s: Seconds,
    /// The node it was noticed on, if it was one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What the scenario says about the expectation, or the check about itself.
    pub sentence: String,
    /// The scenario file of the expectation.
    pub file: String,
    /// The line of the expectation in that file; for an always-on check the line of the title.
    pub line: u64,
    /// What was found instead.
    pub detail: String,
    /// The command that shows it again.
    pub reproduce: String,
}

/// The chain after a number of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// How many events came before.
    pub events: u64,
    /// When the last of them happened, in nanoseconds of simulated time.
    pub at_ns: u64,
    /// The chain after them, in hexadecimal.
    pub chain: String,
}

/// One step of a scenario, as it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The id of the step; for a step of a `for_each` with its element in brackets.
    pub id: String,
    /// What the scenario says about it.
    pub say: String,
    /// When it began, in simulated time.
    pub started_s: Seconds,
    /// When it ended, in simulated time; missing if the run ended first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_s: Option<Seconds>,
    /// How it ended.
    pub outcome: StepOutcome,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepOutcome {
    /// What it waited for happened, and what it checked was so.
    Done,
    /// What it waited for did not happen in time, or what it checked was not so.
    Failed,
    /// The run ended before the step did.
    Unfinished,
}

/// Something that should be a result line is not.
#[derive(Debug)]
pub enum LineError {
    /// There is no complete line.
    Missing,
    /// The line is not a result.
    Invalid {
        /// What the reader of JSON says.
        reason: serde_json::Error,
    },
    /// Something follows the line.
    Trailing,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl RunResult {
    /// The result as one line of JSON, line end included.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("every key is text and every value is plain data");
        line.push('\n');
        line
    }

    /// Writes the result as one line, in one piece, and flushes it: whoever kills the process later finds the line
    /// whole.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write_line(&self, mut to: impl io::Write) -> io::Result<()> {
        to.write_all(self.to_line().as_bytes())?;
        to.flush()
    }

    /// Reads what [`RunResult::to_line`] wrote.
    ///
    /// # Errors
    /// If the text is anything but exactly one complete line.
    pub fn from_line(text: &str) -> Result<Self, LineError> {
        let (line, rest) = text.split_once('\n').ok_or(LineError::Missing)?;
        if !rest.is_empty() {
            return Err(LineError::Trailing);
        }
        serde_json::from_str(line).map_err(|reason| LineError::Invalid { reason })
    }

    /// The result without what only a comparison of two runs needs.
    #[must_use]
    pub fn without_checkpoints(&self) -> Self {
        Self { checkpoints: Vec::new(), window: Vec::new(), ..self.clone() }
    }

    /// The exit code of a process that has only this run to report.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.verdict.exit()
    }
}

impl Counts {
    /// The counts with their names, in the order in which they are shown.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 10] {
        let Self {
            elections,
            syncs,
            messages,
            drops,
            duplicates,
            crashes,
            starts,
            rounds_opened,
            rounds_finalized,
            rounds_abandoned,
        } = *self;
        [
            ("rounds finalized", rounds_finalized),
            ("abandoned", rounds_abandoned),
            ("opened", rounds_opened),
            ("elections", elections),
            ("syncs", syncs),
            ("messages", messages),
            ("drops", drops),
            ("duplicates", duplicates),
            ("crashes", crashes),
            ("starts", starts),
        ]
    }

    /// Adds the counts of another run.
    pub const fn add(&mut self, other: &Self) {
        let Self {
            elections,
            syncs,
            messages,
            drops,
            duplicates,
            crashes,
            starts,
            rounds_opened,
            rounds_finalized,
            rounds_abandoned,
        } = other;
        self.elections = self.elections.saturating_add(*elections);
        self.syncs = self.syncs.saturating_add(*syncs);
        self.messages = self.messages.saturating_add(*messages);
        self.drops = self.drops.saturating_add(*drops);
        self.duplicates = self.duplicates.saturating_add(*duplicates);
        self.crashes = self.crashes.saturating_add(*crashes);
        self.starts = self.starts.saturating_add(*starts);
        self.rounds_opened = self.rounds_opened.saturating_add(*rounds_opened);
        self.rounds_finalized = self.rounds_finalized.saturating_add(*rounds_finalized);
        self.rounds_abandoned = self.rounds_abandoned.saturating_add(*rounds_abandoned);
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("expected a result line, found no complete line"),
            Self::Invalid { reason } => write!(f, "expected a result line, found something else: {reason}"),
            Self::Trailing => f.write_str("expected one result line, found more behind it"),
        }
    }
}

impl core::error::Error for LineError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RunResult {
        RunResult {
            scenario: "scenarios/runbooks/cold-start.toml".into(),
            title: "Cold start".into(),
            seed: u64::MAX,
            defect: Some("floor-ignored".into()),
            live: true,
            verdict: Verdict::Violated,
            chain: "00ff".into(),
            events: 4_096,
            simulated_s: Seconds::from_millis(61_007),
            cpu_s: Seconds::from_millis(1_200),
            wall_s: Seconds::from_millis(1_300),
            repeated: true,
            counts: Counts { elections: 1, syncs: 2, messages: 3, drops: 4, ..Counts::default() },
            faults: [("lossy".into(), 0)].into(),
            sometimes: [("abandoned".into(), true)].into(),
            thresholds: [("duration".into(), vec![1, 2])].into(),
            steps: vec![Step {
                id: "swap[server-1]".into(),
                say: "Stop it.\nWait.".into(),
                started_s: Seconds::from_millis(1),
                ended_s: None,
                outcome: StepOutcome::Unfinished,
            }],
            draws: [("steps".into(), "0102030405060708".into())].into(),
            not_controlled: vec!["the network".into()],
            failure: Some(Failure {
                property: "floor".into(),
                event: 4_095,
                at_s: Seconds::from_millis(61_000),
                node: Some("server-1".into()),
                sentence: "Never \"below\" the floor.".into(),
                file: "scenarios/runbooks/cold-start.toml".into(),
                line: 12,
                detail: "1 participant, floor 2".into(),
                reproduce: "zipnet-sim run scenarios/runbooks/cold-start.toml --seed 1".into(),
            }),
            checkpoints: vec![Checkpoint { events: 1_024, at_ns: 5, chain: "aa".into() }],
            window: vec!["7 timer".into()],
        }
    }

    #[test]
    fn a_line_reads_back_as_the_same_result() {
        let result = sample();
        let line = result.to_line();
        assert_eq!(line.find('\n'), Some(line.len() - 1), "a line holds one line end, at its end");
        assert_eq!(RunResult::from_line(&line).unwrap(), result);
    }

    #[test]
    fn every_truncation_of_a_line_is_refused() {
        let line = sample().to_line();
        for len in 0..line.len() {
            if let Some(part) = line.get(..len) {
                assert!(RunResult::from_line(part).is_err(), "{len} bytes were read");
            }
        }
    }

    #[test]
    fn what_follows_a_line_is_refused() {
        let line = sample().to_line();
        assert!(matches!(RunResult::from_line(&format!("{line}x")), Err(LineError::Trailing)));
        assert!(matches!(RunResult::from_line("{}\n"), Err(LineError::Invalid { .. })));
    }

    #[test]
    fn the_line_has_the_documented_keys_and_plain_numbers() {
        let value: serde_json::Value = serde_json::from_str(&sample().to_line()).unwrap();
        for key in
            ["scenario", "seed", "verdict", "chain", "events", "simulated_s", "cpu_s", "counts", "faults"]
        {
            assert!(value.get(key).is_some(), "{key} is missing");
        }
        assert_eq!(value["seed"], u64::MAX);
        assert_eq!(value["verdict"], "violated");
        assert_eq!(value["simulated_s"].to_string(), "61.007");
    }

    #[test]
    fn an_ordinary_result_is_short() {
        let result = RunResult {
            defect: None,
            live: false,
            not_controlled: Vec::new(),
            failure: None,
            ..sample().without_checkpoints()
        };
        let line = result.to_line();
        for absent in ["defect", "live", "not_controlled", "failure", "checkpoints", "window"] {
            assert!(!line.contains(absent), "{absent} is written although there is nothing in it");
        }
        assert_eq!(RunResult::from_line(&line).unwrap(), result);
    }

    #[test]
    fn counts_add_up_field_by_field() {
        let one = Counts {
            elections: 1,
            syncs: 2,
            messages: 3,
            drops: 4,
            duplicates: 5,
            crashes: 6,
            starts: 7,
            rounds_opened: 8,
            rounds_finalized: 9,
            rounds_abandoned: 10,
        };
        let mut sum = one;
        sum.add(&one);
        for ((name, twice), (_, once)) in sum.named().into_iter().zip(one.named()) {
            assert_eq!(twice, once * 2, "{name}");
        }
    }
}
