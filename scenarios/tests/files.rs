//! The scenario files of this repository.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use zipnet_scenarios::scenario::Expectation;
use zipnet_scenarios::words::{Guard, Property, Word as _};
use zipnet_scenarios::{Scenario, list, read, schema, verbs};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder(name: &str) -> Vec<PathBuf> {
    list(&root().join(name)).expect("the folder is part of the repository")
}

fn load(path: &Path) -> Scenario {
    let text = std::fs::read_to_string(path).expect("the file can be read");
    let name = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    match read(&name, &text) {
        Ok(scenario) => scenario,
        Err(diagnostics) => {
            let all: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
            panic!("{}", all.join("\n"));
        }
    }
}

fn all() -> Vec<PathBuf> {
    ["runbooks", "misuse", "faults", "canaries"].into_iter().flat_map(folder).collect()
}

/// Numbers that are the same every time.
fn draws() -> impl FnMut(u64) -> u64 {
    let mut state = 7_u64;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below.max(1)
    }
}

#[test]
fn every_file_is_right() {
    let mut wrong = String::new();
    for path in all() {
        let text = std::fs::read_to_string(&path).expect("the file can be read");
        if let Err(diagnostics) = read(&path.display().to_string(), &text) {
            for diagnostic in diagnostics {
                wrong += &format!("{diagnostic}\n\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_file_and_its_resolved_form_say_the_same() {
    for path in all() {
        let scenario = load(&path);
        let again = read("again", &scenario.to_toml()).expect("what is written can be read");
        assert_eq!(again.to_toml(), scenario.to_toml(), "{}", path.display());

        let resolved = scenario.resolve(&mut draws());
        assert_eq!(resolved, scenario.resolve(&mut draws()), "{}", path.display());
        let text = resolved.to_toml();
        let again = match read("resolved", &text) {
            Ok(again) => again,
            Err(diagnostics) => panic!("{}: {}\n{text}", path.display(), diagnostics[0]),
        };
        assert_eq!(again.to_toml(), text, "{}", path.display());
        // Everything is decided: nothing is drawn any more.
        let mut drawn = 0;
        let twice = again.resolve(&mut |_| {
            drawn += 1;
            0
        });
        assert_eq!((drawn, twice.to_toml()), (0, text), "{}", path.display());
    }
}

#[test]
fn every_row_of_the_table_has_its_runbook_and_its_misuse() {
    for row in ["01", "02", "03", "04", "05", "06", "07", "09", "10", "11", "12", "13"] {
        for name in ["runbooks", "misuse"] {
            let found = folder(name).iter().any(|path| {
                let file = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
                file.starts_with(row)
            });
            assert!(found, "row {row} has no file in {name}");
        }
    }
}

#[test]
fn runbooks_have_faults_and_misuses_have_controls() {
    for path in folder("runbooks") {
        let scenario = load(&path);
        assert!(!scenario.faults.is_empty(), "{}", path.display());
        assert!(scenario.runbook.is_some(), "{}", path.display());
        assert!(scenario.control.is_none() && scenario.canary.is_none(), "{}", path.display());
        for fault in &scenario.faults {
            let watched = scenario.expects.iter().any(|expect| {
                matches!(&expect.what, Expectation::Sometimes {
                    situation: verbs::Sometimes::FaultFired { fault: id }, ..
                } if id.0 == fault.id)
            });
            assert!(watched, "{}: nobody looks whether `{}` fires", path.display(), fault.id);
        }
    }
    for path in folder("misuse") {
        let scenario = load(&path);
        assert!(scenario.control.is_some() && scenario.canary.is_none(), "{}", path.display());
        assert!(scenario.runbook.is_some(), "{}", path.display());
    }
}

#[test]
fn each_property_has_a_canary() {
    let canaries: Vec<_> =
        folder("canaries").iter().map(|path| load(path).canary.expect("a canary")).collect();
    assert!(canaries.len() >= 10);
    for (property, name, _) in Property::ALL {
        assert!(canaries.iter().any(|canary| canary.property == *property), "{name} has none");
    }
    let defects: BTreeSet<Guard> = canaries.iter().map(|canary| canary.defect).collect();
    assert_eq!(defects.len(), canaries.len(), "one defect each");
}

#[test]
fn every_verb_is_used() {
    let text: String =
        all().iter().map(|path| std::fs::read_to_string(path).expect("the file can be read")).collect();
    for table in verbs::tables() {
        let key = table.name.rsplit('.').next().expect("a place has a name");
        for verb in table.verbs {
            let used = text.lines().any(|line| {
                line.starts_with(&format!("{key}.{} = ", verb.name))
                    || line.starts_with(&format!("  {{ {} = ", verb.name))
            });
            // A condition is one verb for `until` and `eventually`.
            assert!(used || key == "eventually", "`{key}.{}` is used by no file", verb.name);
        }
    }
}

#[test]
fn every_verb_stands_in_the_guide() {
    let guide = std::fs::read_to_string(root().join("../docs/scenarios.md"))
        .expect("the guide is part of the repository");
    for table in verbs::tables() {
        for verb in table.verbs {
            assert!(guide.contains(&format!("`{}`", verb.name)), "`{}` is not explained", verb.name);
            for row in verb.arguments {
                assert!(
                    guide.contains(&format!("`{}`", row.name)),
                    "`{}` of `{}` is not explained",
                    row.name,
                    verb.name
                );
            }
        }
    }
}

#[test]
fn the_operators_sentences_stand_in_the_steps() {
    let says: Vec<String> = folder("runbooks")
        .iter()
        .flat_map(|path| load(path).steps.into_iter().map(|step| step.say))
        .collect();
    for sentence in [
        "Stop the target server with SIGTERM. Wait for graceful exit (under 5 s).",
        "Replace the binary / restart the container / whatever triggered the rollout.",
        "Start the server with the same ZIPNET_INSTANCE, ZIPNET_SECRET, and ZIPNET_COMMITTEE_SECRET as before.",
        "Observe mosaik_groups_leader_is_local on the remaining servers — election should settle within a few seconds.",
        "Once the restarted server’s log shows round finalized, move to the next one.",
        "Provision the new node. Assign it a fresh ZIPNET_SECRET seed.",
        "Start it with --bootstrap <peer_id_of_any_existing_server>.",
        "Wait for the new server’s log to print round finalized — it has caught up.",
        "Announce the removal at least one gossip cycle ahead (default 15 s) so catalog entries expire cleanly.",
        "SIGTERM the target node.",
        "Verify the remaining servers still form a majority and continue to finalize rounds (round finalized events in the logs).",
        "Wipe DH secrets on decommission.",
        "Remove the old server (above).",
        "Add a new server with a fresh ZIPNET_SECRET (above).",
        "Stop every client, aggregator, and committee server on this instance.",
        "Distribute the new ZIPNET_COMMITTEE_SECRET to all committee members.",
        "Start the committee first,",
        "Stand up the new deployment under a new instance name (acme.mainnet.v2).",
        "Retirement itself is just stopping every server under the old instance name.",
        "On a fresh universe with no existing seed peers, start the first server without --bootstrap",
    ] {
        assert!(says.iter().any(|say| say.contains(sentence)), "no step says: {sentence}");
    }
}

#[test]
fn canaries_must_be_named() {
    let runs = list(root()).expect("the folder is there");
    assert!(runs.iter().any(|path| path.ends_with("misuse/02-majority-restart.toml")));
    assert!(!runs.iter().any(|path| path.components().any(|part| part.as_os_str() == "canaries")));
    assert!(!folder("canaries").is_empty());
    let file = root().join("canaries/chain-records.toml");
    assert_eq!(list(&file).expect("it is there"), [file]);
    assert!(list(&root().join("nowhere")).is_err());
    assert_eq!(list(&root().join("src")).expect("it is there"), Vec::<PathBuf>::new());
}

#[test]
fn the_schema_is_current() {
    let path = root().join("schema/scenario.v1.json");
    let now = schema::text();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &now).expect("the schema can be written");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == now,
        "schema/scenario.v1.json is old: UPDATE=1 cargo test -p zipnet-scenarios rewrites it"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        if let Err(diagnostics) = read("any", &text) {
            for diagnostic in diagnostics {
                prop_assert!(!diagnostic.to_string().is_empty());
            }
        }
    }

    #[test]
    fn a_damaged_scenario_never_panics(
        file in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        len in 0_usize..40,
        put in "[\\PC\n\"{}\\[\\]=.0-9-]{0,12}",
    ) {
        let files = all();
        let text = std::fs::read_to_string(&files[file.index(files.len())]).expect("the file can be read");
        let chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        let damaged: String = chars[..at]
            .iter()
            .copied()
            .chain(put.chars())
            .chain(chars[chars.len().min(at + len)..].iter().copied())
            .collect();
        match read("damaged", &damaged) {
            Ok(scenario) => {
                let text = scenario.resolve(&mut draws()).to_toml();
                prop_assert!(read("again", &text).is_ok(), "{}", text);
            }
            Err(diagnostics) => {
                prop_assert!(!diagnostics.is_empty());
                for diagnostic in diagnostics {
                    prop_assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
                    prop_assert!(!diagnostic.to_string().is_empty());
                }
            }
        }
    }
}
