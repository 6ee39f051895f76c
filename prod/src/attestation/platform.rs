//! A quote from the kernel, over configfs-tsm.
//!
//! An entry is a folder below `tsm/report`: what the guest wants to have in the quote is written to `inblob`, and reading
//! `outblob` asks the platform. The base is a parameter, so that tests serve it from a folder of files.

use core::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use zipnet_tdx::measurement::ReportData;
use zipnet_tdx::quote::{QUOTE_BYTES_MAX, Quote};

/// Where entries are made, below the root.
pub const REPORTS: &str = "sys/kernel/config/tsm/report";

/// What the kernel calls TDX.
const PROVIDER: &str = "tdx_guest";

/// How long an attribute of an entry may take to be there.
const ATTRIBUTES: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

/// No two entries of a process have one name.
static ENTRIES: AtomicU64 = AtomicU64::new(0);

/// Why there is no quote.
#[derive(Debug)]
pub enum QuoteError {
    /// The folder for entries is not there.
    NoReports(PathBuf),
    /// The kernel asks another platform.
    Provider(String),
    /// The platform gave nothing.
    Empty,
    /// Somebody else wrote to the entry.
    Generation(String),
    /// It took too long.
    Late(Duration),
    /// What came is no quote, or one that says something else.
    Foreign(String),
    /// The kernel refused something.
    Kernel(&'static str, io::Error),
}

impl fmt::Display for QuoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReports(path) => {
                write!(f, "{} is not there: mount configfs, and load the modules tsm and tdx-guest", path.display())
            }
            Self::Provider(other) => write!(f, "the platform is {other:?} and not {PROVIDER}: load the module tdx-guest"),
            Self::Empty => f.write_str(
                "the quote is empty: the host's quote service does not answer, or the host is not registered with Intel",
            ),
            Self::Generation(other) => write!(f, "somebody else uses the entry: its generation is {other} and not 1"),
            Self::Late(time) => write!(f, "no quote within {} s: the host's quote service hangs", time.as_secs()),
            Self::Foreign(what) => write!(f, "what came is not the quote that was asked for: {what}"),
            Self::Kernel(what, reason) => write!(f, "failed to {what}: {reason}"),
        }
    }
}

impl core::error::Error for QuoteError {}

/// Asks the platform for a quote with this in it. Takes about a second: the kernel looks once a second whether the host
/// has answered. Works in a thread of its own, which puts the entry away however long that takes.
///
/// # Errors
/// If there is none within this time.
pub fn take_quote(root: &Path, report_data: &ReportData, within: Duration) -> Result<Vec<u8>, QuoteError> {
    let reports = root.join(REPORTS);
    if !reports.is_dir() {
        return Err(QuoteError::NoReports(reports));
    }
    let number = ENTRIES.fetch_add(1, Ordering::Relaxed);
    let entry = reports.join(format!("zipnet-{}-{number}", std::process::id()));
    let asked = *report_data;
    let (done, answer) = channel();
    let work = move || {
        let taken = fs::create_dir(&entry)
            .map_err(|reason| QuoteError::Kernel("make an entry", reason))
            .and_then(|()| take(&entry, &asked));
        put_away(&entry);
        // Nobody waits any more if it is late.
        drop(done.send(taken));
    };
    thread::Builder::new()
        .name("quote".to_owned())
        .spawn(work)
        .map_err(|reason| QuoteError::Kernel("start a thread", reason))?;
    match answer.recv_timeout(within) {
        Ok(taken) => taken,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(QuoteError::Late(within)),
    }
}

fn take(entry: &Path, report_data: &ReportData) -> Result<Vec<u8>, QuoteError> {
    let provider = attribute(entry, "provider", "ask who the platform is")?;
    if provider != PROVIDER {
        return Err(QuoteError::Provider(provider));
    }
    fs::write(entry.join("inblob"), report_data.0)
        .map_err(|reason| QuoteError::Kernel("ask for a quote", reason))?;
    let mut quote = Vec::new();
    let limit = QUOTE_BYTES_MAX as u64 + 1;
    soon(|| fs::File::open(entry.join("outblob")))
        .and_then(|file| file.take(limit).read_to_end(&mut quote))
        .map_err(|reason| QuoteError::Kernel("read the quote", reason))?;
    if quote.is_empty() {
        return Err(QuoteError::Empty);
    }
    let generation = attribute(entry, "generation", "ask whose quote it is")?;
    if generation != "1" {
        return Err(QuoteError::Generation(generation));
    }
    let read = Quote::read(&quote).map_err(|refused| QuoteError::Foreign(refused.to_string()))?;
    if read.report_data() != *report_data {
        return Err(QuoteError::Foreign("it has other report data".to_owned()));
    }
    Ok(quote)
}

fn attribute(entry: &Path, name: &str, what: &'static str) -> Result<String, QuoteError> {
    let text =
        soon(|| fs::read_to_string(entry.join(name))).map_err(|reason| QuoteError::Kernel(what, reason))?;
    Ok(text.trim().chars().take(40).collect())
}

/// Tries until it is there.
fn soon<T>(look: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Err(reason) if reason.kind() == ErrorKind::NotFound && start.elapsed() < ATTRIBUTES => {
                thread::sleep(LOOK)
            }
            seen => return seen,
        }
    }
}

/// The kernel puts the attributes away with the entry. In a folder of files, they are files.
fn put_away(entry: &Path) {
    if fs::remove_dir(entry).is_err() {
        drop(fs::remove_dir_all(entry));
    }
}
