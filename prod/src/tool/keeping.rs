//! Backup and restore of what may be restored.
//!
//! Votes and log are left out on purpose: a server that forgets a vote it gave can break the agreement of its committee.
//! What is kept is where the node is reached and where its peers were, so that a new disk finds its way back; the server
//! then joins as a new member, gets the log from the others, and its old vote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde::{Deserialize, Serialize};
use zipnet_node::config::parse_peer_address;
use zipnet_node::remembered;
use zipnet_world::disk::{Content, Folder, OWN, PORT};

use super::Outcome;
use crate::flags;

/// The format of a backup.
const FORMAT: u32 = 1;

/// A backup.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Backup {
    /// Of this file.
    zipnet_backup: u32,
    /// What others write behind `--bootstrap`; none if the node never ran.
    node: Option<String>,
    /// The port that the system chose.
    port: Option<u16>,
    /// The address book: `<peer id>@<host:port>` each.
    peers: Vec<String>,
}

impl Backup {
    fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("it is plain data") + "\n"
    }
}

/// The value of a required flag.
fn given<'a>(matches: &'a ArgMatches, flag: &str) -> &'a String {
    matches.get_one(flag).expect("clap requires it")
}

/// Writes a backup. The node may run meanwhile.
///
/// # Errors
/// If the folder is none of a node, or the file cannot be written.
pub(super) fn backup(folder: &Path, matches: &ArgMatches) -> Outcome {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    if !Content::of(folder).is_ok_and(|content| content.is_state()) {
        return Err(format!("failed to back up {}: it is no state folder of a node", folder.display()));
    }
    let backup = Backup {
        zipnet_backup: FORMAT,
        node: read(OWN).map(|line| line.trim().to_owned()),
        port: read(PORT).and_then(|port| port.trim().parse().ok()),
        peers: read(remembered::FILE).unwrap_or_default().lines().map(str::to_owned).collect(),
    };
    let text = backup.text();
    match matches.get_one::<String>("to") {
        Some(path) => {
            std::fs::write(path, text).map_err(|reason| format!("failed to write {path}: {reason}"))?
        }
        None => flags::print(&text),
    }
    flags::say(
        "keep ZIPNET_SECRET and, of a server, ZIPNET_COMMITTEE_SECRET apart from it: they are in no backup",
    );
    Ok(0)
}

/// Makes a state folder from a backup. Only one without state is taken.
///
/// # Errors
/// If the backup cannot be read, or the folder holds state.
pub(super) fn restore(matches: &ArgMatches) -> Outcome {
    let (from, path) = (given(matches, "from"), PathBuf::from(given(matches, "state-dir")));
    let failed = |reason: String| format!("failed to restore {from} into {}: {reason}", path.display());
    let text = std::fs::read_to_string(from).map_err(|reason| failed(reason.to_string()))?;
    let backup = read(&text).map_err(failed)?;
    let folder = Folder::open(&path).map_err(|reason| format!("failed to {reason}"))?;
    let entries = std::fs::read_dir(&path).map_err(|reason| failed(reason.to_string()))?;
    let names: Vec<_> =
        entries.filter_map(Result::ok).map(|entry| entry.file_name()).filter(|name| name != "lock").collect();
    if !names.is_empty() {
        return Err(failed("the folder holds state already; restore into an empty one".to_owned()));
    }
    if let Some(port) = backup.port {
        folder.write(PORT, &format!("{port}\n")).map_err(|reason| failed(reason.to_string()))?;
    }
    let peers: BTreeMap<_, _> = backup.peers.iter().filter_map(|line| remembered::entry(line)).collect();
    folder.write(remembered::FILE, &remembered::text(&peers)).map_err(|reason| failed(reason.to_string()))?;
    flags::say(&format!(
        "restored: start the node with the secrets of {}. A server joins as a new member and gets the log from the others",
        backup.node.as_deref().unwrap_or("before")
    ));
    Ok(0)
}

/// Reads a backup.
fn read(text: &str) -> Result<Backup, String> {
    let backup: Backup =
        serde_json::from_str(text).map_err(|reason| format!("it is no backup of a node: {reason}"))?;
    if backup.zipnet_backup != FORMAT {
        return Err(format!("its format is {}, and only {FORMAT} is known", backup.zipnet_backup));
    }
    match backup.peers.iter().find_map(|line| parse_peer_address(line).err()) {
        Some(reason) => Err(format!("a peer in it cannot be read: expected {reason}")),
        None => Ok(backup),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_backup_is_refused_with_the_reason() {
        let peer = "ab".repeat(32);
        let good = format!("{{\"zipnet_backup\":1,\"node\":null,\"port\":4000,\"peers\":[\"{peer}@a:1\"]}}");
        assert_eq!(read(&good).unwrap().port, Some(4000));
        let table = [
            (good.replace(":1,", ":2,"), "its format is 2, and only 1 is known"),
            (good.replace("@a:1", "@nowhere"), "a peer in it cannot be read"),
            (good.replace("port", "vote"), "it is no backup of a node"),
            (good.replace("4000", "400000"), "it is no backup of a node"),
            (String::new(), "it is no backup of a node"),
        ];
        for (text, reason) in table {
            let refused = read(&text).expect_err(reason);
            assert!(refused.starts_with(reason), "{refused}");
        }
    }
}
