//! May two binaries serve one instance?

use std::path::Path;
use std::process::{Command, Stdio};

use clap::ArgMatches;

use super::Outcome;
use crate::about::About;
use crate::flags;

/// Compares two binaries, or what they said of themselves.
///
/// # Errors
/// If one of them does not say what it was built as.
pub(super) fn compare(matches: &ArgMatches) -> Outcome {
    let read = |name: &str| about(Path::new(matches.get_one::<String>(name).expect("it is required")));
    let (old, new) = (read("old")?, read("new")?);
    let crossed = old.boundaries(&new);
    if crossed.is_empty() {
        flags::print(&format!(
            "{} and {} may serve one instance: roll one node at a time\n",
            old.version, new.version
        ));
        flags::print("measurement: not compared; where attestation is on, accept both measurements first\n");
        return Ok(0);
    }
    for boundary in crossed {
        flags::print(&format!("boundary crossed: {boundary}\n"));
    }
    flags::print("nodes of the two refuse each other: retire and replace the instance\n");
    Ok(1)
}

/// What a binary was built as, or a file that holds that.
fn about(path: &Path) -> Result<About, String> {
    let failed = |reason: String| format!("failed to read the build-info of {}: {reason}", path.display());
    let content = std::fs::read(path).map_err(|reason| failed(reason.to_string()))?;
    let text = if content.first() == Some(&b'{') {
        content
    } else {
        let told = Command::new(path)
            .args(["build-info", "--format", "json"])
            .stdin(Stdio::null())
            .output()
            .map_err(|reason| failed(reason.to_string()))?;
        if !told.status.success() {
            return Err(failed(format!("it ended with {}", told.status)));
        }
        told.stdout
    };
    serde_json::from_slice(&text).map_err(|reason| failed(reason.to_string()))
}
