//! Do real nodes and the core come to the same records?
//!
//! The committed commands of a server that really ran are applied once more, by the core alone: no network, no clock, no
//! disk. What comes out is compared with the records that a reader verified while the committee ran.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use redb::{DatabaseError, ReadOnlyDatabase};
use serde::Deserialize;
use zipnet_core::checks::Strict;
use zipnet_core::committee::{self, Committee};
use zipnet_core::machine::Report;
use zipnet_core::message::Command;
use zipnet_core::wire;
use zipnet_node::consensus::recording::{self, Recorded, Recording};
use zipnet_node::consensus::{LOG_FILE, MACHINE_FILE};
use zipnet_reports::Exit;

use crate::say::{say, warn};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// The state folder of a server that has stopped.
    #[arg(value_name = "FOLDER")]
    state: PathBuf,
    /// What a reader got, a record on each line.
    #[arg(long, value_name = "FILE")]
    records: PathBuf,
    /// Alter one byte of a recorded partial first: the comparison must fail then.
    #[arg(long)]
    canary: bool,
}

/// What a reader says of a record.
#[derive(Clone, Debug, Deserialize)]
struct Seen {
    log: String,
    round: u64,
    digest: String,
}

/// (log, round): digest of the record.
type Records = BTreeMap<(String, u64), String>;

/// Compares, and says what differs.
pub(crate) fn run(flags: &Flags) -> Exit {
    let (recording, seen) = match (read(&flags.state), seen(&flags.records)) {
        (Ok(recording), Ok(seen)) => (recording, seen),
        (recording, seen) => {
            for sentence in [recording.err(), seen.err()].into_iter().flatten() {
                warn(&format!("error: {sentence}"));
            }
            return Exit::InvalidScenario;
        }
    };
    let mut recording = recording;
    if flags.canary && !alter(&mut recording, &seen) {
        warn("error: no partial of a round that the reader saw was recorded");
        return Exit::NothingSelected;
    }
    let applied = match apply(&recording) {
        Ok(applied) => applied,
        Err(sentence) => {
            warn(&format!("error: {sentence}"));
            return Exit::InvalidScenario;
        }
    };
    let differences = compare(&applied.records, &seen);
    differences.iter().for_each(|difference| warn(&format!("error: {difference}")));
    say(&format!(
        "{} commands of {}, {} refused by the rules, make {} records; a reader saw {} of them, {} differ",
        applied.commands,
        flags.state.display(),
        applied.refused,
        applied.records.len(),
        seen.len(),
        differences.len()
    ));
    if seen.is_empty() {
        warn("error: there is nothing to compare");
        return Exit::NothingSelected;
    }
    if differences.is_empty() { Exit::Held } else { Exit::Diverged }
}

/// Reads the log of a server that has stopped, whether in order or not.
pub(crate) fn read(folder: &Path) -> Result<Recording, String> {
    recording::read(&open(folder, LOG_FILE)?, &open(folder, MACHINE_FILE)?)
        .map_err(|reason| format!("failed to {reason} in {}", folder.display()))
}

/// Opens a database of a server. One that was killed left it as it was: a copy is repaired then, and the server's own is
/// not touched.
fn open(folder: &Path, name: &str) -> Result<ReadOnlyDatabase, String> {
    let path = folder.join(name);
    let failed = |reason: String| format!("failed to read {}: {reason}", path.display());
    match redb::Builder::new().open_read_only(&path) {
        Ok(database) => Ok(database),
        Err(DatabaseError::RepairAborted) => repaired(&path).map_err(failed),
        Err(reason) => Err(failed(format!("{reason}; does the server still run?"))),
    }
}

/// A repaired copy, which is gone once it is closed.
fn repaired(path: &Path) -> Result<ReadOnlyDatabase, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let copy = std::env::temp_dir().join(format!("zipnet-conform-{}-{name}", std::process::id()));
    let open = || {
        let mut from = File::open(path).map_err(|reason| reason.to_string())?;
        // Whoever has put something there is not followed.
        let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy);
        let mut to = to.map_err(|reason| format!("failed to copy it to {}: {reason}", copy.display()))?;
        io::copy(&mut from, &mut to)
            .map_err(|reason| format!("failed to copy it to {}: {reason}", copy.display()))?;
        drop(to);
        let whole = redb::Builder::new().open(&copy).map_err(|reason| reason.to_string())?;
        drop(whole);
        redb::Builder::new().open_read_only(&copy).map_err(|reason| reason.to_string())
    };
    let opened = open();
    // What cannot be removed is a file in a folder for such files.
    drop(std::fs::remove_file(&copy));
    opened
}

fn seen(path: &Path) -> Result<Records, String> {
    let failed = |reason: String| format!("failed to read {}: {reason}", path.display());
    let file = File::open(path).map_err(|reason| failed(reason.to_string()))?;
    let mut records = Records::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|reason| failed(reason.to_string()))?;
        let seen: Seen =
            serde_json::from_str(&line).map_err(|reason| failed(format!("line {}: {reason}", number + 1)))?;
        if let Some(before) = records.insert((seen.log, seen.round), seen.digest.clone())
            && before != seen.digest
        {
            return Err(failed(format!(
                "line {}: round {} has another record before",
                number + 1,
                seen.round
            )));
        }
    }
    Ok(records)
}

/// Changes a byte in the middle of the last partial of a round that the reader saw. False if there is none.
fn alter(recording: &mut Recording, seen: &Records) -> bool {
    let partial = recording.entries.iter_mut().rev().find_map(|entry| {
        let Recorded::Command { command, .. } = entry else { return None };
        let Ok(Command::SubmitPartial(partial)) = wire::decode_command(command) else { return None };
        seen.contains_key(&(partial.log.to_string(), partial.round.0)).then_some(command)
    });
    let Some(partial) = partial else { return false };
    let mut bytes = partial.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    *partial = bytes.into();
    true
}

/// What the core made of a log.
#[derive(Debug, Default)]
struct Applied {
    commands: usize,
    refused: usize,
    records: Records,
}

fn apply(recording: &Recording) -> Result<Applied, String> {
    let mut applied = Applied::default();
    let Some(config) = config(recording)? else { return Ok(applied) };
    let mut committee = Committee::new(config, Strict);
    if let Some(snapshot) = &recording.snapshot {
        let restored = committee.restore(snapshot);
        restored
            .map_err(|_| "failed to read the snapshot: it is none of this committee machine".to_owned())?;
        let kept = committee.records().iter().map(|kept| (kept.record.log, kept.record.round, kept.digest));
        applied
            .records
            .extend(kept.map(|(log, round, digest)| ((log.to_string(), round.0), digest.to_string())));
    }
    for entry in &recording.entries {
        match entry {
            Recorded::Members(members) => committee.set_voters(members.peers()),
            Recorded::Command { index, command } => {
                applied.commands += 1;
                let mut reports = Vec::new();
                committee.chain(*index, command);
                let done = wire::decode_command(command)
                    .is_ok_and(|command| committee.apply(*index, &command, &mut reports).is_ok());
                applied.refused += usize::from(!done);
                for report in reports {
                    if let Report::RoundFinalized { record, digest, .. } = report {
                        applied.records.insert((record.log.to_string(), record.round.0), digest.to_string());
                    }
                }
            }
        }
    }
    Ok(applied)
}

/// The committee that the log is of, as its own commands name it. None if no round was ever opened.
fn config(recording: &Recording) -> Result<Option<committee::Config>, String> {
    let (mut header, mut instance) = (None, None);
    for entry in &recording.entries {
        let Recorded::Command { index, command } = entry else { continue };
        match wire::decode_command(command) {
            Ok(Command::OpenRound(opened)) => header = header.or(Some((opened.group, opened.params))),
            Ok(Command::RegisterServer { bundle, .. }) => instance = instance.or(Some(bundle.instance)),
            Ok(Command::ChangeClients(batch)) => {
                instance = instance.or(batch.register.first().map(|bundle| bundle.instance));
            }
            Ok(_) => {}
            Err(reason) => return Err(format!("failed to {reason} at index {index}")),
        }
    }
    Ok(match (header, instance) {
        (Some((group, params)), Some(instance)) => Some(committee::Config { instance, group, params }),
        _ => None,
    })
}

/// Every record of the reader must be one of the core, and within what the reader saw none of the core may be missing.
fn compare(applied: &Records, seen: &Records) -> Vec<String> {
    let mut differences = Vec::new();
    for ((log, round), digest) in seen {
        match applied.get(&(log.clone(), *round)) {
            Some(made) if made == digest => {}
            Some(made) => differences
                .push(format!("round {round}: the core makes record {made}, the reader saw {digest}")),
            None => differences
                .push(format!("round {round}: the reader saw record {digest}, the core makes none")),
        }
    }
    let (first, last) = (seen.keys().next(), seen.keys().next_back());
    for ((log, round), digest) in applied {
        let key = (log.clone(), *round);
        let within = first.is_some_and(|first| *first <= key) && last.is_some_and(|last| key <= *last);
        if within && !seen.contains_key(&key) {
            differences.push(format!("round {round}: the core makes record {digest}, the reader saw none"));
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(rows: &[(u64, &str)]) -> Records {
        rows.iter().map(|(round, digest)| (("log".to_owned(), *round), (*digest).to_owned())).collect()
    }

    #[test]
    fn every_difference_is_named() {
        let applied = records(&[(1, "a"), (2, "b"), (3, "c"), (4, "d")]);
        assert_eq!(compare(&applied, &records(&[(2, "b"), (3, "c")])), Vec::<String>::new());
        let table: [(&[(u64, &str)], &str); 3] = [
            (&[(2, "x")], "round 2: the core makes record b, the reader saw x"),
            (&[(5, "e")], "round 5: the reader saw record e, the core makes none"),
            (&[(1, "a"), (3, "c")], "round 2: the core makes record b, the reader saw none"),
        ];
        for (rows, expected) in table {
            assert_eq!(compare(&applied, &records(rows)), [expected]);
        }
    }

    #[test]
    fn the_database_of_a_server_that_was_killed_is_read_and_left_alone() {
        let scratch = std::env::temp_dir().join(format!("zipnet-conform-test-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).unwrap();
        let table = redb::TableDefinition::<u64, u64>::new("t");
        let running = redb::Database::create(scratch.join("running")).unwrap();
        let change = running.begin_write().unwrap();
        change.open_table(table).unwrap().insert(1, 2).unwrap();
        change.commit().unwrap();
        // What the disk of a killed process holds.
        std::fs::copy(scratch.join("running"), scratch.join("killed")).unwrap();
        let before = std::fs::read(scratch.join("killed")).unwrap();
        let refused = redb::Builder::new().open_read_only(scratch.join("killed"));
        assert!(matches!(refused, Err(DatabaseError::RepairAborted)), "it needs no repair");
        let whole = open(&scratch, "killed").unwrap();
        let read = redb::ReadableDatabase::begin_read(&whole).unwrap();
        let value = redb::ReadableTable::get(&read.open_table(table).unwrap(), 1).unwrap().unwrap().value();
        assert_eq!(value, 2);
        assert!(std::fs::read(scratch.join("killed")).unwrap() == before, "the server's own was changed");
        assert!(open(&scratch, "running").err().unwrap().contains("does the server still run?"));
        drop(running);
        std::fs::remove_dir_all(&scratch).unwrap();
    }
}
