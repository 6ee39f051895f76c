//! Leaving: stopping, retiring, wiping.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde_json::Value;
use zipnet_world::disk::{Content, Folder};

use super::Outcome;
use super::node::{order, page};
use super::standing::server;
use crate::{admin, flags};

/// Asks for an orderly stop.
///
/// # Errors
/// If nobody answers.
pub(super) async fn stop(folder: &Path) -> Outcome {
    admin::ask(folder, "/stop", Some(Vec::new())).await.map(|_| 0)
}

/// Announces that a server leaves for good.
///
/// # Errors
/// If nobody answers, or the committee would be lost.
pub(super) async fn retire(folder: &Path, matches: &ArgMatches) -> Outcome {
    let status: Value = page(folder, "/status").await?;
    let me = status["peer"].as_str().unwrap_or_default().to_owned();
    let peer = match matches.get_one::<String>("peer") {
        Some(written) => server(&status, written)?,
        None => me.clone(),
    };
    let dead = matches.get_flag("dead");
    if !dead && peer != me {
        return Err(format!(
            "a server announces its own leave: ask the node {peer} itself, or use --dead if it is dead for good"
        ));
    }
    let path = if dead { format!("/retire/{peer}") } else { "/retire".to_owned() };
    let page = order(folder, &path).await?.map_err(|sentence| format!("failed to {sentence}"))?;
    if let Some(advice) = page["advice"].as_str() {
        flags::say(&format!("advice: {advice}"));
    }
    flags::say(if dead {
        "asked: the others testify once they have failed to reach it, and it loses its vote"
    } else {
        "announced: stop the server one gossip cycle (15 s) later; then wipe its state and destroy its ZIPNET_SECRET"
    });
    Ok(0)
}

/// Deletes a state folder, or says what that means.
///
/// # Errors
/// If a node runs there, or something cannot be deleted.
pub(super) fn wipe(matches: &ArgMatches) -> Outcome {
    let given = PathBuf::from(matches.get_one::<String>("state-dir").expect("it is required"));
    let failed = |reason: std::io::Error| format!("failed to wipe {}: {reason}", given.display());
    if !given.is_dir() {
        return Err(format!("failed to wipe {}: there is no such folder", given.display()));
    }
    // A link is not the folder.
    let path = given.canonicalize().map_err(failed)?;
    let content = Content::of(&path).map_err(failed)?;
    if !content.is_state() {
        return Err(format!("failed to wipe {}: it is no state folder of a node", given.display()));
    }
    let folder = Folder::open(&path).map_err(|reason| format!("failed to {reason}"))?;
    let list = |paths: &[PathBuf]| {
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    flags::say(&format!("{}: {}", path.display(), list(&content.known)));
    if !content.foreign.is_empty() {
        flags::say(&format!("no node made these, and they are left alone: {}", list(&content.foreign)));
    }
    if !matches.get_flag("yes") {
        flags::say(
            "this deletes the log, the vote and the address book of the node. Under the same ZIPNET_SECRET it comes back \
             as a new member of its committee, and its old vote counts until then. If a majority of the committee loses \
             its state at once, the log is lost. Round keys are in memory only: none is here. Run again with --yes",
        );
        return Ok(1);
    }
    let left = folder.wipe().map_err(failed)?;
    if !left.known.is_empty() {
        return Err(format!("failed to wipe {}: {} is there again", path.display(), list(&left.known)));
    }
    flags::say("wiped. For a server that was removed for good, destroy its ZIPNET_SECRET as well");
    Ok(0)
}
