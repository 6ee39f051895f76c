//! Scenarios and results for the tests of a sweep.

use zipnet_reports::{Counts, Failure, RunResult, Seconds, Verdict};

use super::Options;
use super::choice::{Choice, Permille, Shard};
use super::selection::{Planted, Selected};
use crate::say::Format;

pub(crate) fn options() -> Options {
    Options {
        seeds: Choice::Default,
        live: None,
        jobs: 1,
        shard: Shard { index: 0, count: 1 },
        wall_budget: None,
        fail_fast: false,
        check_determinism: Permille(0),
        control: false,
        defect: None,
        junit: None,
        format: Format::Human,
        out: None,
    }
}

pub(crate) fn plain() -> Selected {
    Selected {
        path: "scenarios/runbooks/sample.toml".into(),
        text: "".into(),
        name: "runbooks/sample".into(),
        title: "Sample".into(),
        tags: Vec::new(),
        canary: None,
        control: None,
        sometimes: Vec::new(),
        faults: Vec::new(),
        thresholds: Vec::new(),
    }
}

pub(crate) fn canary() -> Selected {
    let planted = Planted { defect: "broadcast-from-log".into(), property: Some("agreement".into()) };
    Selected { canary: Some(planted), ..plain() }
}

pub(crate) fn result(seed: u64, verdict: Verdict) -> RunResult {
    RunResult {
        scenario: plain().path,
        title: plain().title,
        seed,
        defect: None,
        live: false,
        verdict,
        chain: blake3::hash(&seed.to_le_bytes()).to_hex().to_string(),
        events: 1_000,
        simulated_s: Seconds::from_millis(60_000),
        cpu_s: Seconds::from_millis(100),
        wall_s: Seconds::from_millis(110),
        repeated: false,
        counts: Counts::default(),
        faults: [].into(),
        sometimes: [].into(),
        thresholds: [].into(),
        steps: Vec::new(),
        not_controlled: Vec::new(),
        failure: None,
        checkpoints: Vec::new(),
        draws: std::collections::BTreeMap::new(),
        window: Vec::new(),
    }
}

pub(crate) fn failed(seed: u64, property: &str) -> RunResult {
    let failure = Failure {
        property: property.to_owned(),
        event: 999,
        at_s: Seconds::from_millis(41_310),
        node: Some("server-2".into()),
        sentence: "It must hold.".into(),
        file: plain().path,
        line: 79,
        detail: "found, it did not".into(),
        reproduce: format!("zipnet-sim run {} --seed {seed}", plain().path),
    };
    RunResult { failure: Some(failure), ..result(seed, Verdict::Violated) }
}
