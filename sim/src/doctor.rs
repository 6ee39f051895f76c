//! Can this machine and this build run simulations?

use core::num::NonZero;
use std::path::Path;

use zipnet_reports::Exit;

use crate::say::say;

/// Prints what matters about this machine and this build; fails if something is in the way.
pub(crate) fn examine(out: &Path) -> Exit {
    say(&format!("ok    version          {}", env!("CARGO_PKG_VERSION")));
    // Without the flag this crate does not compile.
    say("ok    compiler flag    --cfg madsim is set");
    say(&format!("ok    cores            {}, which is how many runs there are at a time", cores()));
    say(&match memory_mib() {
        Some(available) if available < MEMORY_MIB_PER_RUN.saturating_mul(cores_u64()) => format!(
            "warn  memory           {available} MiB available; a run may take {MEMORY_MIB_PER_RUN}: lower --jobs"
        ),
        Some(available) => format!("ok    memory           {available} MiB available"),
        None => "ok    memory           unknown on this system".to_owned(),
    });
    say(if cfg!(debug_assertions) {
        "ok    profile          dev, debug assertions on: they find bugs first, and runs take about three times as long"
    } else {
        "ok    profile          release, debug assertions off"
    });

    let mut exit = Exit::Held;
    match std::env::current_exe() {
        Ok(path) => say(&format!("ok    own binary       {}", path.display())),
        Err(reason) => {
            say(&format!("FAIL  own binary       not found, so that no run can be started: {reason}"));
            exit = exit.and(Exit::Internal);
        }
    }
    match writable(out) {
        Ok(()) => say(&format!("ok    results          {} can be written to", out.display())),
        Err(reason) => {
            say(&format!("FAIL  results          failed to write to {}: {reason}", out.display()));
            exit = exit.and(Exit::Configuration);
        }
    }
    exit
}

/// How many cores this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The target of one simulated run, in MiB.
const MEMORY_MIB_PER_RUN: u64 = 100;

fn cores_u64() -> u64 {
    u64::try_from(cores()).unwrap_or(u64::MAX)
}

/// What the system says can still be used, where it says so.
fn memory_mib() -> Option<u64> {
    let table = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1_024)
}

/// Whether a file can be made in the folder. Leaves nothing behind.
fn writable(folder: &Path) -> std::io::Result<()> {
    let probe = folder.join(format!(".zipnet-sim-doctor-{}", std::process::id()));
    std::fs::write(&probe, b"probe")?;
    std::fs::remove_file(&probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_can_not_be_written_to() {
        assert!(writable(Path::new("/nowhere/at/all")).is_err());
        assert!(writable(&std::env::temp_dir()).is_ok());
    }
}
