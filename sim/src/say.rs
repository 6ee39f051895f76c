//! What the command says: results on standard output, everything else on standard error.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;
use zipnet_reports::Exit;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Human,
    /// One line of JSON per run.
    Json,
}

/// Why results could not be printed, the first time.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// Notes whether results could be printed; [`finish`] tells.
pub(crate) fn note(printed: io::Result<()>) {
    if let Err(reason) = printed {
        FAILURE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }
}

/// The exit code of a command that would have ended with `exit`. A reader that went away is no error: whoever pipes into
/// `head` has seen enough. If results could not be printed for another reason, that is said, and nothing held.
pub(crate) fn finish(exit: Exit) -> Exit {
    match &*FAILURE.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(reason) if reason.kind() != io::ErrorKind::BrokenPipe => {
            warn(&format!("error: failed to print: {reason}"));
            if exit == Exit::Held { Exit::Violated } else { exit }
        }
        Some(_) | None => exit,
    }
}

/// Prints a line of results.
pub(crate) fn say(line: &str) {
    let mut to = io::stdout().lock();
    note(to.write_all(format!("{line}\n").as_bytes()).and_then(|()| to.flush()));
}

/// Prints a line of talk.
pub(crate) fn warn(line: &str) {
    let mut to = io::stderr().lock();
    drop(to.write_all(format!("{line}\n").as_bytes()).and_then(|()| to.flush()));
}
