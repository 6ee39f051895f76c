//! Approving an aggregator in the place of one that is gone for good.

use std::path::Path;

use clap::ArgMatches;

use super::Outcome;
use super::node::order;
use crate::flags;

/// Has a server approve an aggregator, for as long as its process runs.
///
/// # Errors
/// If nobody answers, or the node is no server.
pub(super) async fn approve(folder: &Path, matches: &ArgMatches) -> Outcome {
    let peer = matches.get_one::<String>("aggregator").expect("it is required");
    let page = order(folder, &format!("/approve/{peer}"))
        .await?
        .map_err(|sentence| format!("failed to {sentence}"))?;
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
