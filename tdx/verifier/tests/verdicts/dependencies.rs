//! What the verifier and what ships may be built with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const MOCK: &str = "zipnet-tdx-mock";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What cargo knows of the workspace and of everything that it is built with.
fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--all-features", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn nothing_can_override_what_intel_says() {
    let metadata = metadata();
    let verifier: Vec<_> = list(&metadata["packages"]).filter(|one| one["name"] == "dcap-qvl").collect();
    assert_eq!(verifier.len(), 1, "one version of it is in the workspace");
    // The words of its errors are read, so it is pinned to the patch.
    assert_eq!(verifier[0]["version"], "0.7.1");
    let known = verifier[0]["features"].as_object().unwrap();
    assert!(known.contains_key("danger-allow-tcb-override"), "the feature has another name: {known:?}");
    let nodes = list(&metadata["resolve"]["nodes"]);
    let node = nodes.filter(|node| node["id"] == verifier[0]["id"]).collect::<Vec<_>>();
    let on: BTreeSet<_> = list(&node[0]["features"]).map(text).collect();
    assert!(on.iter().all(|feature| !feature.contains("danger")), "{on:?}");
    assert_eq!(on, BTreeSet::from(["_anycrypto", "default-x509", "ring"]));
    let rules = include_str!("../../../../deny.toml");
    assert!(rules.contains("features = [{ crate = \"dcap-qvl\", deny = [\"danger-allow-tcb-override\"] }]"));
}

#[test]
fn nothing_that_ships_is_built_with_the_simulated_platform() {
    let metadata = metadata();
    let members: BTreeSet<_> = list(&metadata["workspace_members"]).map(text).collect();
    let packages: BTreeMap<&str, &Value> =
        list(&metadata["packages"]).map(|one| (text(&one["id"]), one)).collect();
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"]["nodes"]).map(|one| (text(&one["id"]), one)).collect();
    // Everything that is linked into a package: what it depends on, tests aside.
    let linked = |from: &str| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(id) = next.pop() {
            for dependency in list(&nodes[id.as_str()]["deps"]) {
                let for_tests = |kind: &Value| kind["kind"] == "dev";
                if !list(&dependency["dep_kinds"]).all(for_tests)
                    && reached.insert(text(&dependency["pkg"]).to_owned())
                {
                    next.push(text(&dependency["pkg"]).to_owned());
                }
            }
        }
        reached
    };
    let name = |id: &str| text(&packages[id]["name"]).to_owned();
    let folder = |id: &str| {
        let manifest = Path::new(text(&packages[id]["manifest_path"])).parent().unwrap();
        manifest.strip_prefix(root()).unwrap().to_owned()
    };
    let mut shipped = BTreeSet::new();
    for member in &members {
        let holds = linked(member).iter().any(|id| name(id) == MOCK);
        let ships =
            !["sim", "fuzz"].iter().any(|one| folder(member).starts_with(one)) && name(member) != MOCK;
        assert!(!(ships && holds), "{} is built with {MOCK}", name(member));
        shipped.extend(ships.then(|| name(member)));
    }
    for expected in ["zipnet-prod", "zipnet", "zipnet-node", "zipnet-tdx", "zipnet-world"] {
        assert!(shipped.contains(expected), "{expected} was looked at: {shipped:?}");
    }
    // The search finds what is there: the verifier's own tests have it.
    let verifier = members.iter().find(|member| name(member) == "zipnet-tdx").unwrap();
    let tests = list(&nodes[*verifier]["deps"]).map(|one| name(text(&one["pkg"])));
    assert!(tests.collect::<BTreeSet<_>>().contains(MOCK));
}
