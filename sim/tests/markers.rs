//! What stands where in the workspace: defects nowhere but in the simulator, simulated platforms in nothing that ships, and
//! files in no wide circle.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::Command;

use zipnet_sim::defect::markers;

#[path = "markers/circles.rs"]
mod circles;

/// What a release build of the whole workspace makes: executables and libraries of our packages, with their names.
fn artifacts() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--workspace", "--message-format=json"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut artifacts = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        let ours = message["manifest_path"].as_str().is_some_and(|path| Path::new(path).starts_with(root));
        if message["reason"] != "compiler-artifact" || !ours {
            continue;
        }
        let name = message["target"]["name"].as_str().unwrap().to_owned();
        for file in message["filenames"].as_array().unwrap() {
            artifacts.push((name.clone(), PathBuf::from(file.as_str().unwrap())));
        }
    }
    artifacts
}

fn holds(bytes: &[u8], marker: &str) -> bool {
    bytes.windows(marker.len()).any(|window| window == marker.as_bytes())
}

#[test]
fn what_only_simulations_may_hold_is_in_nothing_that_ships() {
    let artifacts = artifacts();
    let mut platforms = 0;
    let simulator = |name: &str| name == "zipnet-sim" || name == "zipnet_sim";
    let mut found = 0;
    for (name, path) in &artifacts {
        let bytes = std::fs::read(path).unwrap();
        for marker in markers() {
            let holds = holds(&bytes, marker);
            assert!(!holds || simulator(name), "{marker} stands in {}", path.display());
        }
        let simulates_platforms = ["zipnet_tdx_mock", "zipnet_fuzz_targets"].contains(&name.as_str());
        let holds_platform = holds(&bytes, zipnet_tdx_mock::MARKER);
        assert!(!holds_platform || simulates_platforms, "a simulated platform stands in {}", path.display());
        platforms += usize::from(holds_platform);
        if name == "zipnet-sim" {
            found += 1;
            for marker in markers() {
                assert!(holds(&bytes, marker), "the search does not find {marker} in {}", path.display());
            }
        }
    }
    assert_eq!(found, 1, "the workspace has one simulator");
    assert!(platforms > 0, "the search does not find the simulated platform where it is");
    for library in ["zipnet_core", "zipnet_node", "zipnet-server", "zipnet-tdx"] {
        assert!(artifacts.iter().any(|(name, _)| name == library), "{library} was searched");
    }
}
