//! Which node is meant.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ArgMatches;
use serde::de::DeserializeOwned;

use crate::admin;
use zipnet_world::addresses::instance_folder;

/// The state folder of the node that the flags mean.
///
/// # Errors
/// The sentence that says what to write.
pub(super) fn find(matches: &ArgMatches, environment: &BTreeMap<String, String>) -> Result<PathBuf, String> {
    let given = |flag: &str, variable: &str| {
        let flag = matches.get_one::<String>(flag).cloned();
        flag.or_else(|| environment.get(variable).filter(|value| !value.is_empty()).cloned())
    };
    if let Some(folder) = given("state-dir", "ZIPNET_STATE_DIR") {
        return Ok(PathBuf::from(folder));
    }
    let Some(instance) = given("instance", "ZIPNET_INSTANCE") else {
        return Err("say which node is meant: --state-dir FOLDER, or --instance NAME".to_owned());
    };
    let parent = instance_folder(environment, &instance)?;
    let mut running: Vec<_> = std::fs::read_dir(&parent)
        .map(|entries| {
            entries
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .filter(|path| admin::is_there(path))
                .collect()
        })
        .unwrap_or_default();
    running.sort();
    match running.as_slice() {
        [] => Err(format!("no node of {instance} runs with its state in {}", parent.display())),
        [one] => Ok(one.clone()),
        several => {
            let several: Vec<_> = several.iter().map(|path| path.display().to_string()).collect();
            Err(format!(
                "{} nodes of {instance} run here: choose one with --state-dir: {}",
                several.len(),
                several.join(", ")
            ))
        }
    }
}

/// Asks for a page of data.
///
/// # Errors
/// The sentence that says that nobody answers, or what was answered.
pub(super) async fn page<T: DeserializeOwned>(folder: &std::path::Path, path: &str) -> Result<T, String> {
    let answer = admin::ask(folder, path, None).await?;
    if answer.status != 200 {
        return Err(answer.body.trim().to_owned());
    }
    serde_json::from_str(&answer.body)
        .map_err(|reason| format!("failed to read the answer of the node: {reason}"))
}
