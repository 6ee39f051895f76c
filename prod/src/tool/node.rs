//! Which node is meant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admin;
use zipnet_world::addresses::instance_folder;

/// The state folder of the node that the flags mean. If they name an instance, the node that runs there has said that it
/// is of it.
///
/// # Errors
/// The sentence that says what to write.
pub(super) async fn find(
    matches: &ArgMatches,
    environment: &BTreeMap<String, String>,
) -> Result<PathBuf, String> {
    let Meant { folder, instance } = Meant::read(matches, environment);
    if let Some(folder) = folder {
        if let Some(instance) = matches.get_one::<String>("instance") {
            belongs(&folder, instance).await?;
        }
        return Ok(folder);
    }
    let (instance, parent) = beside(instance, environment)?;
    let mut running = Vec::new();
    for folder in folders(&parent) {
        // One that was killed leaves its socket behind.
        if admin::is_answered(&folder).await {
            running.push(folder);
        }
    }
    let folder = only(running, &format!("node of {instance} runs with its state in {}", parent.display()))?;
    belongs(&folder, &instance).await?;
    Ok(folder)
}

/// The state folder that the flags mean, whether its node runs or not.
///
/// # Errors
/// The sentence that says what to write.
pub(super) fn folder(
    matches: &ArgMatches,
    environment: &BTreeMap<String, String>,
) -> Result<PathBuf, String> {
    let Meant { folder, instance } = Meant::read(matches, environment);
    if let Some(folder) = folder {
        return Ok(folder);
    }
    let (instance, parent) = beside(instance, environment)?;
    only(folders(&parent), &format!("node of {instance} has its state in {}", parent.display()))
}

/// What flags and variables say.
struct Meant {
    folder: Option<PathBuf>,
    instance: Option<String>,
}

impl Meant {
    /// A flag for the instance is more than a variable for the folder.
    fn read(matches: &ArgMatches, environment: &BTreeMap<String, String>) -> Self {
        let flag = |flag: &str| matches.get_one::<String>(flag).cloned();
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        let instance = flag("instance");
        let folder = flag("state-dir")
            .or_else(|| if instance.is_some() { None } else { variable("ZIPNET_STATE_DIR") })
            .map(PathBuf::from);
        Self { folder, instance: instance.or_else(|| variable("ZIPNET_INSTANCE")) }
    }
}

/// An instance, and where the state folders of its nodes lie.
fn beside(
    instance: Option<String>,
    environment: &BTreeMap<String, String>,
) -> Result<(String, PathBuf), String> {
    let instance = instance
        .ok_or_else(|| "say which node is meant: --state-dir FOLDER, or --instance NAME".to_owned())?;
    let parent = instance_folder(environment, &instance)?;
    Ok((instance, parent))
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten();
    let mut folders: Vec<_> =
        entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn only(mut found: Vec<PathBuf>, what: &str) -> Result<PathBuf, String> {
    match found.len() {
        0 => Err(format!("no {what}")),
        1 => Ok(found.remove(0)),
        several => {
            let found: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
            Err(format!("{several} times a {what}: choose one with --state-dir: {}", found.join(", ")))
        }
    }
}

/// Whether the node that runs there is of this instance, by its own word.
async fn belongs(folder: &Path, instance: &str) -> Result<(), String> {
    let status: Value = page(folder, "/status").await?;
    match status["instance"].as_str() {
        Some(said) if said == instance => Ok(()),
        said => Err(format!(
            "the node in {} is of the instance {}, not of {instance}",
            folder.display(),
            said.unwrap_or("that it does not name")
        )),
    }
}

/// Asks for a page of data.
///
/// # Errors
/// The sentence that says that nobody answers, or what was answered.
pub(super) async fn page<T: DeserializeOwned>(folder: &Path, path: &str) -> Result<T, String> {
    let answer = admin::ask(folder, path, None).await?;
    if answer.status != 200 {
        return Err(answer.body.trim().to_owned());
    }
    serde_json::from_str(&answer.body)
        .map_err(|reason| format!("failed to read the answer of the node: {reason}"))
}

/// Gives a node an order. What it says about it, or why it refuses.
///
/// # Errors
/// The sentence that says that nobody answers.
pub(super) async fn order(folder: &Path, path: &str) -> Result<Result<Value, String>, String> {
    let answer = admin::ask(folder, path, Some(Vec::new())).await?;
    let page: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    if answer.status != 200 {
        let sentence = page["refused"].as_str().or(page["error"].as_str()).unwrap_or(answer.body.trim());
        return Ok(Err(sentence.to_owned()));
    }
    Ok(Ok(page))
}
