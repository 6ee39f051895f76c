//! The command `zipnet-tdx`: images, quotes, and what they are judged by. It asks no node.
//!
//! - `measuring`: what MR_TD a firmware image will have
//! - `verifying`: is this quote acceptable
//! - `releasing`: release manifests
//! - `standing`: how collateral and platforms stand
//! - `doctor`: what a guest or a host lacks; [`platform`]: a quote from the kernel
//!
//! What is acceptable is decided in `zipnet_tdx`.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Arg, ArgMatches, Command};
use zipnet_tdx::collateral::{COLLATERAL_BYTES_MAX, Collateral};
use zipnet_tdx::date::Date;
use zipnet_tdx::manifest::{MANIFEST_BYTES_MAX, ReleaseKey, SignedManifest};
use zipnet_tdx::quote::QUOTE_BYTES_MAX;

use crate::flags;

mod doctor;
mod measuring;
pub mod platform;
mod releasing;
mod standing;
mod verifying;

const EXIT_CODES: &str = "\
Nothing is fetched: collateral comes as files, and the time is this machine's unless --at says otherwise.

Exit codes: 0 good; 1 refused, or something is to be done soon; 2 expired, or refused today (collateral and tcb-status);
64 a flag is mistyped, 65 a file cannot be read or is not what it should be, 78 a value is wrong or missing.";

/// A flag is mistyped. The tool for nodes says 2, which means something else here.
const EXIT_USAGE: u8 = 64;
/// A file is not what it should be.
const EXIT_DATA: u8 = 65;

/// How a command ends: with a code, or with a sentence about a file.
type Outcome = Result<u8, String>;

/// What `main` of the tool is.
#[must_use]
pub fn main() -> ExitCode {
    let matches = match flags::parse(command()) {
        Ok(matches) => matches,
        Err(2) => return ExitCode::from(flags::finish(EXIT_USAGE)),
        Err(code) => return ExitCode::from(flags::finish(code)),
    };
    if flags::print_generated(command(), &matches) {
        return ExitCode::from(flags::finish(0));
    }
    let outcome = match matches.subcommand() {
        Some(("measure", matches)) => measuring::measure(matches),
        Some(("verify", matches)) => verifying::verify(matches),
        Some(("manifest", matches)) => releasing::act(matches),
        Some(("collateral", matches)) => standing::collateral(matches),
        Some(("tcb-status", matches)) => standing::tcb_status(matches),
        Some(("doctor", matches)) => doctor::act(matches),
        _ => unreachable!("clap requires one of the commands"),
    };
    ExitCode::from(flags::finish(outcome.unwrap_or_else(|sentence| {
        flags::say(&format!("error: {sentence}"));
        EXIT_DATA
    })))
}

fn command() -> Command {
    Command::new("zipnet-tdx")
        .about("Measures images, judges quotes of Intel TDX, and keeps the lists that they are judged by")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXIT_CODES)
        .max_term_width(110)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(measuring::command())
        .subcommand(verifying::command())
        .subcommand(releasing::command())
        .subcommand(standing::collateral_command())
        .subcommand(standing::tcb_status_command())
        .subcommand(doctor::command())
        .subcommand(flags::completions_command())
        .subcommand(Command::new("man").about("Print the manual page"))
}

/// `--at TIME`.
fn at_argument() -> Arg {
    Arg::new("at")
        .long("at")
        .value_name("TIME")
        .value_parser(clap::value_parser!(Date))
        .help("Judge as of this time, like 2026-01-12T00:00:00Z [default: now]")
}

/// The time of `--at`, or else of this machine.
fn time(matches: &ArgMatches) -> Date {
    matches.get_one("at").copied().unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Date(since.map_or(0, |since| since.as_secs()))
    })
}

/// An argument that is a file.
fn file_argument(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(value).value_parser(clap::value_parser!(PathBuf)).help(help)
}

/// `--key HEX`.
fn key_argument() -> Arg {
    Arg::new("key")
        .long("key")
        .value_name("HEX")
        .value_parser(clap::value_parser!(ReleaseKey))
        .help("The release key that must have signed the manifest")
}

fn path<'a>(matches: &'a ArgMatches, name: &str) -> &'a Path {
    matches.get_one::<PathBuf>(name).expect("it is required")
}

fn is_json(matches: &ArgMatches) -> bool {
    matches.get_one::<String>("format").is_some_and(|format| format == "json")
}

/// The bytes of a file, if they are no more than so many. One more is read, so that whoever judges them sees it.
fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|reason| format!("failed to read {}: {reason}", path.display()))?;
    Ok(bytes)
}

fn read_text(path: &Path, bytes_max: usize) -> Result<String, String> {
    String::from_utf8(read(path, bytes_max)?)
        .map_err(|_| format!("failed to read {}: it is no text", path.display()))
}

fn read_quote(path: &Path) -> Result<Vec<u8>, String> {
    read(path, QUOTE_BYTES_MAX)
}

fn read_collateral(path: &Path) -> Result<Collateral, String> {
    let text = read_text(path, COLLATERAL_BYTES_MAX)?;
    Collateral::from_json(&text).map_err(|reason| format!("{}: failed to {reason}", path.display()))
}

/// All collateral of a flag.
fn read_all_collateral(matches: &ArgMatches, name: &str) -> Result<Vec<Collateral>, String> {
    matches.get_many::<PathBuf>(name).into_iter().flatten().map(|path| read_collateral(path)).collect()
}

fn read_manifest(path: &Path) -> Result<SignedManifest, String> {
    let text = read_text(path, MANIFEST_BYTES_MAX)?;
    text.parse().map_err(|reason| format!("{}: failed to {reason}", path.display()))
}

/// Another line of a text.
fn line(text: &mut String, line: impl core::fmt::Display) {
    text.push_str(&format!("{line}\n"));
}

/// A number of seconds as people say it.
fn span(seconds: u64) -> String {
    const HOUR: u64 = 60 * 60;
    match seconds {
        0..HOUR => format!("{} min", seconds / 60),
        HOUR..172_800 => format!("{} h", seconds / HOUR),
        _ => format!("{} days", seconds / (24 * HOUR)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        command().debug_assert();
    }

    #[test]
    fn spans_are_said_in_the_unit_that_fits() {
        let spans = [59, 3_599, 3_600, 172_799, 172_800, 40 * 86_400].map(span);
        assert_eq!(spans, ["0 min", "59 min", "1 h", "47 h", "2 days", "40 days"]);
    }
}
