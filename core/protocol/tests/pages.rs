//! What the pages say is tested: every test, property and scenario that `docs/adversary.md` names exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All sources below a folder, as one text for each.
fn sources(folder: &Path, out: &mut Vec<String>) {
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    for path in entries.map(|entry| entry.expect("an entry can be read").path()) {
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            sources(&path, out);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            out.push(std::fs::read_to_string(&path).expect("a source is text"));
        }
    }
}

/// Everything between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The table of the section about tests: what is promised, and what shows it.
fn table(page: &str) -> Vec<(&str, &str)> {
    let (_, section) = page.split_once("\n## How this is tested\n").expect("the page has the section");
    let rows =
        section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    rows.skip(1).collect()
}

#[test]
fn every_promise_names_what_shows_it_and_that_exists() {
    let page =
        std::fs::read_to_string(root().join("docs/adversary.md")).expect("the page is part of the source");
    let mut texts = Vec::new();
    ["core", "sim", "prod", "reports", "fuzz"]
        .iter()
        .for_each(|folder| sources(&root().join(folder), &mut texts));
    let has = |what: &str| texts.iter().any(|text| text.contains(what));
    let is_test = |name: &str| has(&format!("fn {name}("));
    let mut checks = Vec::new();
    sources(&root().join("reports/src/properties"), &mut checks);
    let is_property = |name: &str| checks.iter().any(|text| text.contains(&format!("        \"{name}\"\n")));
    let is_scenario = |name: &str| root().join("scenarios").join(name).with_extension("toml").exists();
    let is_bench = |name: &str| has(&format!("name: \"{name}\""));
    let exists = |name: &str| is_test(name) || is_property(name) || is_scenario(name) || is_bench(name);
    let rows = table(&page);
    assert!(rows.len() > 20, "the table is there");
    let mut named = BTreeSet::new();
    for (promise, shown_by) in rows {
        let names: Vec<_> = quoted(shown_by).collect();
        assert!(!names.is_empty(), "nothing shows that {promise}");
        for name in &names {
            assert!(exists(name), "{name} shows nothing: {promise}");
        }
        named.extend(names);
    }
    // The sentences above the table name tests as well.
    let is_name = |word: &&str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        word.matches('_').count() > 2 && word.chars().all(plain)
    };
    for name in quoted(&page).filter(is_name) {
        assert!(is_test(name), "the page names {name}");
    }
    assert!(named.len() > 60, "the names were found");
    assert!(!exists("a_test_that_nobody_has_written") && !exists("misuse/99-none") && !exists("no-property"));
}
