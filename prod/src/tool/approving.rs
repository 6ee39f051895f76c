//! Approving an aggregator in the place of one that is gone for good.

use std::path::Path;

use clap::ArgMatches;
use serde_json::Value;

use super::Outcome;
use crate::{admin, flags};

/// Has a server approve an aggregator, for as long as its process runs.
///
/// # Errors
/// If nobody answers, or the node is no server.
pub(super) async fn approve(folder: &Path, matches: &ArgMatches) -> Outcome {
    let peer = matches.get_one::<String>("aggregator").expect("it is required");
    let answer = admin::ask(folder, &format!("/approve/{peer}"), Some(Vec::new())).await?;
    let page: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    if answer.status != 200 {
        let sentence = page["refused"].as_str().or(page["error"].as_str()).unwrap_or(answer.body.trim());
        return Err(format!("failed to {sentence}"));
    }
    if page["aggregator"].as_str() == Some(peer) {
        flags::say("it is the aggregator of the log already");
    } else {
        flags::say(
            "approved: it becomes the aggregator of the log once a majority of the servers have approved it, each by this \
             command",
        );
    }
    if page["linked"] != true {
        flags::say(
            "this server is not linked with it yet: start it with ZIPNET_BOOTSTRAP naming a server of this committee",
        );
    }
    flags::say(
        "this holds until the server stops: set ZIPNET_AGGREGATOR to the same id before it starts again",
    );
    Ok(0)
}
