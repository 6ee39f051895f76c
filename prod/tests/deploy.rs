//! What operators get around the binaries speaks of metrics, variables and procedures that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use zipnet_core::id::Role;
use zipnet_core::machine::Abandonment;
use zipnet_facts::Refusal;
use zipnet_prod::flags;

const METRICS: &str = include_str!("../../core/node/src/metrics/server.txt");
const METRICS_SOURCE: &str = include_str!("../../core/node/src/metrics.rs");
const RULES: &str = include_str!("../deploy/prometheus/zipnet.rules.yml");
const RULES_TEST: &str = include_str!("../deploy/prometheus/zipnet.rules.test.yml");
const DASHBOARD: &str = include_str!("../deploy/grafana/zipnet.json");

/// The names that a server's page of metrics has, with those of the parts of histograms.
fn emitted() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in METRICS.lines() {
        let name = match line.strip_prefix("# TYPE ") {
            Some(rest) => rest.split(' ').next(),
            None if line.starts_with('#') => None,
            None => line.split('{').next(),
        };
        names.extend(name.map(str::to_owned));
    }
    names
}

/// Every word that looks like the name of one of our metrics or recorded numbers.
fn named(text: &str) -> BTreeSet<&str> {
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !of_a_name(c))
        .filter(|word| ["zipnet_", "mosaik_", "zipnet:"].iter().any(|prefix| word.starts_with(prefix)))
        // What a pattern begins with is no name.
        .filter(|word| !word.ends_with(':'))
        .collect()
}

fn after<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.trim_start().strip_prefix(key)).map(str::trim)
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("a list");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets
        .map(|target| target["expr"].as_str().expect("each target asks for something").to_owned())
        .collect()
}

#[test]
fn the_page_of_metrics_shows_every_metric_of_the_source() {
    let emitted = emitted();
    let table = METRICS_SOURCE.split("\nmod tests").next().expect("the first part");
    let declared: Vec<_> = after(table, "const ")
        .filter_map(|line| line.split_once(": &str = \"")?.1.strip_suffix("\";"))
        .filter(|name| name.starts_with("zipnet_") || name.starts_with("mosaik_"))
        .collect();
    assert!(declared.len() > 10, "{declared:?}");
    for name in declared {
        assert!(emitted.contains(name), "{name}");
    }
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_exist() {
    let emitted = emitted();
    let recorded: BTreeSet<_> = after(RULES, "- record: ").collect();
    let mut asked = 0;
    for text in [without_comments(RULES), without_comments(RULES_TEST), expressions().join("\n")] {
        for name in named(&text) {
            assert!(emitted.contains(name) || recorded.contains(name), "{name}");
            asked += 1;
        }
    }
    assert!(asked > 30, "only {asked} names were found");
    let dashboard = expressions().join("\n");
    for name in &emitted {
        assert!(dashboard.contains(name.as_str()), "the dashboard does not show {name}");
    }
    assert!(named(&dashboard).iter().all(|name| !name.starts_with("zipnet:")), "it works without the rules");
}

#[test]
fn rules_ask_for_labels_and_reasons_that_exist() {
    let text = without_comments(RULES) + &expressions().join("\n");
    let known = |name: &str| {
        METRICS.contains(&format!("{{{name}="))
            || METRICS.contains(&format!(",{name}="))
            || ["job", "instance"].contains(&name)
    };
    for selector in
        text.split(" (").flat_map(|part| part.split('{').skip(1)).filter_map(|part| part.split('}').next())
    {
        for (label, _) in selector.split(',').filter_map(|part| part.split_once('=')) {
            let label = label.trim_end_matches(['!', '~']);
            assert!(known(label) || ["alertname", "alertstate"].contains(&label), "{label} in {selector}");
        }
    }
    for reasons in text.split("reason=").skip(1) {
        let reasons = reasons.trim_start_matches(['~', '"']).split('"').next().unwrap_or_default();
        for reason in reasons.split('|') {
            let refusals = Refusal::ALL.iter().map(|refusal| refusal.name());
            let mut known = refusals.chain(Abandonment::ALL.iter().map(|abandonment| abandonment.name()));
            assert!(known.any(|known| known == reason), "{reason}");
        }
    }
}

#[test]
fn alerts_say_what_to_do_and_are_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("inside the workspace");
    let alerts: Vec<_> = RULES.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        let name = alert.lines().next().unwrap_or_default();
        for key in ["severity: ", "summary: ", "action: "] {
            assert_eq!(after(alert, key).count(), 1, "{name} has no {key}");
        }
        let runbook = after(alert, "runbook: ").next().unwrap_or_default();
        assert!(root.join(runbook).is_file(), "{name} names {runbook}");
        assert!(RULES_TEST.contains(name), "{name} has no test");
    }
}

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let variables = dashboard["templating"]["list"].as_array().expect("a list");
    let names: Vec<_> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "instance_name"]);
    let panels = dashboard["panels"].as_array().expect("a list");
    let ids: BTreeSet<_> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
    assert_eq!(panels[0]["title"], "Health");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
    }
    for expression in expressions() {
        assert!(expression.contains("$instance_name"), "{expression} mixes instances");
    }
}

#[test]
fn examples_list_every_variable_of_their_role() {
    for (role, example) in [
        (Role::Server, include_str!("../deploy/env/server.env")),
        (Role::Aggregator, include_str!("../deploy/env/aggregator.env")),
        (Role::Client, include_str!("../deploy/env/client.env")),
    ] {
        let is_name = |name: &str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        let listed: BTreeSet<_> = example
            .lines()
            .filter_map(|line| line.trim_start_matches('#').split_once('='))
            .map(|(name, _)| name)
            .filter(|name| is_name(name))
            .collect();
        let read: BTreeSet<_> =
            flags::variables(role).map(|(variable, _)| variable).chain(["RUST_LOG"]).collect();
        assert_eq!(listed, read);
    }
}

#[test]
fn what_ships_is_what_the_benches_measure() {
    let workspace = include_str!("../../Cargo.toml");
    let profile = |name: &str| -> BTreeSet<String> {
        let (_, section) =
            workspace.split_once(&format!("[profile.{name}]\n")).expect("the profile is there");
        let settings = section.lines().take_while(|line| !line.starts_with('['));
        settings
            .filter(|line| line.contains('=') && !line.starts_with("inherits"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(profile("dist"), profile("bench"));
    assert!(profile("dist").contains("lto = \"thin\"") && profile("dist").contains("codegen-units = 1"));
    let package = include_str!("../deploy/package");
    assert!(package.contains("cargo build --profile dist ") && package.contains("--profile dist --no-build"));
}

#[test]
fn what_the_package_lists_exists() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let manifest = include_str!("../Cargo.toml");
    let assets: Vec<_> = after(manifest, "[\"").filter_map(|line| line.split('"').next()).collect();
    assert!(assets.len() > 10, "{assets:?}");
    for asset in assets.iter().filter(|asset| !asset.contains("target/")) {
        let path = folder.join(asset.trim_end_matches('*').trim_end_matches("*.service"));
        assert!(path.exists(), "{asset}");
    }
    for example in ["server.env", "aggregator.env", "client.env"] {
        assert!(folder.join("deploy/env").join(example).is_file());
    }
}
