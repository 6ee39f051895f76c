//! The command line of a node: a flag for every variable of its role.

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use zipnet_core::id::Role;
use zipnet_node::config::{VARIABLES, is_hidden};

const EXIT_CODES: &str = "\
Every flag can be given as a variable: --round-period is ZIPNET_ROUND_PERIOD. A flag wins over a variable, a variable
over the file of --config, that over a systemd credential.

Exit codes: 0 stopped in order, 1 another error, 2 a flag is mistyped, 65 state or a file is corrupt or foreign,
70 an invariant broke, 77 refused by the committee, 78 a value is wrong or a required one is missing.";

/// What a flag says of itself: the variable, what its value is called, its default if it has one, what it does.
type Help = (&'static str, &'static str, &'static str, &'static str);

/// One line for every variable.
const HELP: &[Help] = &[
    (
        "ZIPNET_INSTANCE",
        "NAME",
        "",
        "Name of the instance, like acme.mixer.mainnet; the same on all of its nodes",
    ),
    ("ZIPNET_UNIVERSE", "NAME", "mosaik.universe", "Only for federations that must not meet others"),
    (
        "ZIPNET_SECRET",
        "TEXT",
        "",
        "Seed of this node's identity. Other users of this machine can read flags: prefer a file",
    ),
    ("ZIPNET_SECRET_FILE", "FILE", "", "File that holds the seed of this node's identity"),
    (
        "ZIPNET_COMMITTEE_SECRET",
        "TEXT",
        "",
        "What the servers of the instance share. Prefer a file, as for the secret",
    ),
    ("ZIPNET_COMMITTEE_SECRET_FILE", "FILE", "", "File that holds what the servers of the instance share"),
    (
        "ZIPNET_BOOTSTRAP",
        "PEER,…",
        "",
        "Whom to dial first: what another node prints behind peer= at its start",
    ),
    (
        "ZIPNET_LISTEN",
        "ADDRESS",
        "0.0.0.0:0",
        "Where to listen (UDP); port 0: the system chooses, and the choice is kept",
    ),
    (
        "ZIPNET_ADVERTISE",
        "ADDRESS",
        "derived",
        "Where others reach this node, if that differs from where it listens",
    ),
    ("ZIPNET_STATE_DIR", "FOLDER", "per user, instance and peer", "State folder of this node"),
    (
        "ZIPNET_MIN_PARTICIPANTS",
        "N",
        "1",
        "Smallest round this server takes part in; below 2 there is no anonymity",
    ),
    ("ZIPNET_MIN_SERVERS", "N", "all; all pins", "Smallest roster"),
    ("ZIPNET_AGGREGATOR", "PEER", "the first seen", "The only aggregator this server approves"),
    (
        "ZIPNET_SERVERS",
        "PEER,…",
        "",
        "Client: servers that must be in every roster. Aggregator: servers that it believes",
    ),
    (
        "ZIPNET_ALLOWED_SERVERS",
        "PEER,…",
        "whoever knows the committee secret",
        "Who may be a server of this committee",
    ),
    ("ZIPNET_ROUND_PERIOD", "TIME", "3s", "How often a round is opened"),
    ("ZIPNET_ROUND_DEADLINE", "TIME", "15s", "After how long an unfinished round is given up"),
    ("ZIPNET_FOLD_DEADLINE", "TIME", "2s", "How long envelopes are collected"),
    ("ZIPNET_ANNOUNCE_INTERVAL", "TIME", "15s", "The gossip cycle"),
    ("ZIPNET_MESSAGE", "TEXT", "", "A message to publish; without one every round carries cover traffic"),
    ("ZIPNET_CADENCE", "N", "1", "Publish in every N-th round"),
    ("ZIPNET_STRANGERS_MAX", "N", "4096", "The most connections of nodes that are in no registry"),
    ("ZIPNET_METRICS", "ADDRESS", "off", "Where to offer metrics, readiness and status (HTTP)"),
    ("ZIPNET_FORMAT", "human|json", "human", "How lines are printed"),
    ("ZIPNET_FIRST_VOTERS", "N", "3", "How many voters the first round of a log waits for"),
    (
        "ZIPNET_NEW_LOG",
        "true|false",
        "false",
        "Start a log, set older state aside, and yield to no other log",
    ),
];

/// The variables that a role reads, each with the flag that stands for it.
pub fn variables(role: Role) -> impl Iterator<Item = (&'static str, String)> {
    let reads = move |(_, roles): &&(&str, &[Role])| roles.contains(&role);
    VARIABLES.iter().filter(reads).map(|(variable, _)| (*variable, flag(variable)))
}

/// The default of a variable as this page documents it; empty if there is none.
#[must_use]
pub fn default_of(variable: &str) -> &'static str {
    help_of(variable).map_or("", |(_, _, default, _)| default)
}

fn help_of(variable: &str) -> Option<&'static Help> {
    HELP.iter().find(|(name, ..)| *name == variable)
}

/// `ZIPNET_ROUND_PERIOD` is `round-period`.
fn flag(variable: &str) -> String {
    variable.trim_start_matches("ZIPNET_").to_ascii_lowercase().replace('_', "-")
}

/// The whole command line of a node.
#[must_use]
pub fn command(role: Role) -> Command {
    let (name, what) = match role {
        Role::Server => ("zipnet-server", "Runs a committee server of a zipnet instance"),
        Role::Aggregator => ("zipnet-aggregator", "Runs the aggregator of a zipnet instance"),
        Role::Client => (
            "zipnet-client",
            "Runs a client of a zipnet instance: publishes messages, or sends cover traffic",
        ),
    };
    let mut command = Command::new(name)
        .about(what)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXIT_CODES)
        .max_term_width(110)
        .args_override_self(true)
        .subcommand(
            Command::new("check")
                .about("Say whether this node could start with this configuration; start nothing"),
        )
        .subcommand(
            Command::new("config")
                .about("About the configuration")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(
                    Command::new("show").about("Print the configuration, secrets left out").arg(
                        Arg::new("origin")
                            .long("origin")
                            .action(ArgAction::SetTrue)
                            .help("Say where each value comes from"),
                    ),
                ),
        )
        .subcommand(
            Command::new("keys")
                .about("About this node's keys")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(
                    Command::new("id").about("Print the peer id that belongs to the secret in this instance"),
                ),
        )
        // Its format is that of the lines.
        .subcommand(Command::new("build-info").about(ABOUT_BUILD))
        .subcommand(completions_command())
        .subcommand(Command::new("man").about("Print the manual page"));
    for (variable, flag) in variables(role) {
        let (_, value, default, help) =
            help_of(variable).expect("a test holds that every variable has its line");
        let help =
            if default.is_empty() { (*help).to_owned() } else { format!("{help} [default: {default}]") };
        let secret = variable.contains("SECRET") && !variable.ends_with("_FILE");
        let mut argument =
            Arg::new(variable).long(flag).value_name(*value).help(help).global(true).hide_env_values(secret);
        if variable == "ZIPNET_FORMAT" {
            argument = argument.value_parser(PossibleValuesParser::new(["human", "json"]));
        }
        if variable == "ZIPNET_NEW_LOG" {
            argument = argument.num_args(0..=1).require_equals(true).default_missing_value("true");
        }
        command = command.arg(argument);
    }
    command = command.arg(Arg::new("RUST_LOG").long("log").value_name("FILTER").global(true).help(
        "Which lines are printed, like info,zipnet_node=debug; the variable is RUST_LOG [default: info]",
    ));
    command = command.arg(
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .global(true)
            .value_parser(clap::value_parser!(PathBuf))
            .help("File of variables, a line NAME=value each; the variable is ZIPNET_CONFIG"),
    );
    if role == Role::Client {
        command = command.arg(Arg::new("stdin").long("stdin").action(ArgAction::SetTrue).help(
            "Publish every line of standard input, print what became of each, and stop after the last",
        ));
    }
    command
}

/// What `build-info` does, which every binary has.
const ABOUT_BUILD: &str = "Print what this binary was built as";

/// `build-info` of a command without a format of its own.
#[must_use]
pub fn about_command() -> Command {
    Command::new("build-info").about(ABOUT_BUILD).arg(format_argument())
}

/// `--format human|json`.
#[must_use]
pub fn format_argument() -> Arg {
    Arg::new("format")
        .long("format")
        .value_name("FORMAT")
        .value_parser(PossibleValuesParser::new(["human", "json"]))
        .default_value("human")
        .help("How to print it")
}

/// `completions`, which every binary has.
#[must_use]
pub fn completions_command() -> Command {
    Command::new("completions").about("Print completions for a shell").arg(
        Arg::new("shell")
            .required(true)
            .value_name("SHELL")
            .value_parser(clap::value_parser!(clap_complete::Shell)),
    )
}

/// Prints completions or the manual page, if that was asked for.
#[must_use]
pub fn print_generated(mut command: Command, matches: &ArgMatches) -> bool {
    let mut text = Vec::new();
    match matches.subcommand() {
        Some(("completions", matches)) => {
            let shell: clap_complete::Shell = *matches.get_one("shell").expect("it is required");
            let name = command.get_name().to_owned();
            clap_complete::generate(shell, &mut command, name, &mut text);
        }
        Some(("man", _)) => {
            clap_mangen::Man::new(command).render(&mut text).expect("writing to a vector does not fail");
        }
        _ => return false,
    }
    print(&String::from_utf8_lossy(&text));
    true
}

/// Reads the command line.
///
/// # Errors
/// The code to exit with: 0 if help was asked for, 2 for a mistyped flag, 78 for a wrong or missing value. What there is
/// to say has been said.
pub fn parse(command: Command) -> Result<ArgMatches, u8> {
    command.try_get_matches().map_err(|refusal| {
        let asked_for_help = !refusal.use_stderr();
        if !asked_for_help && std::env::args_os().any(|argument| is_secret(&argument)) {
            // Whatever is not understood may be a part of it.
            say(&format!(
                "error: {}. No argument is repeated, for one is a secret: quote a value that has spaces, or use \
                 --secret-file",
                refusal.kind()
            ));
        } else {
            note(refusal.print());
        }
        match refusal.kind() {
            _ if asked_for_help => 0,
            ErrorKind::InvalidValue
            | ErrorKind::ValueValidation
            | ErrorKind::NoEquals
            | ErrorKind::TooManyValues
            | ErrorKind::TooFewValues
            | ErrorKind::WrongNumberOfValues
            | ErrorKind::InvalidUtf8
            | ErrorKind::MissingRequiredArgument => 78,
            _ => 2,
        }
    })
}

/// Whether an argument is the flag of a secret, with its value or before it.
fn is_secret(argument: &std::ffi::OsStr) -> bool {
    let argument = argument.to_string_lossy();
    let flag = argument.split('=').next().unwrap_or_default();
    (flag.starts_with("--secret") || flag.starts_with("--committee-secret")) && !flag.ends_with("-file")
}

/// What has become of data that was to be printed: why it could not be, the first time.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

fn failure() -> MutexGuard<'static, Option<io::Error>> {
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(printed: io::Result<()>) {
    if let Err(reason) = printed {
        failure().get_or_insert(reason);
    }
}

/// Prints data. Whether it could be is asked for at the end, by [`finish`], and by whoever prints without one.
pub fn print(text: &str) {
    let mut to = io::stdout().lock();
    note(to.write_all(text.as_bytes()).and_then(|()| to.flush()));
}

/// Whether nothing more can be printed: the reader went away, or has no room.
#[must_use]
pub fn is_cut_off() -> bool {
    failure().is_some()
}

/// The exit code of a command that would have ended with `code`. A reader that went away has seen enough; if data could
/// not be printed for another reason, that is said, and it is an error.
#[must_use]
pub fn finish(code: u8) -> u8 {
    match &*failure() {
        Some(reason) if reason.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!("error: failed to print: {reason}"));
            if code == 0 { 1 } else { code }
        }
        Some(_) | None => code,
    }
}

/// Says what is wrong, or worth knowing.
pub fn say(text: &str) {
    let mut to = io::stderr().lock();
    // Nobody is left to tell that nothing can be said.
    drop(to.write_all(format!("{}\n", tame(text)).as_bytes()).and_then(|()| to.flush()));
}

/// A text without what acts on a terminal: files and others that it quotes are not trusted with it.
#[must_use]
pub fn tame(text: &str) -> Cow<'_, str> {
    let acts = |c: char| is_hidden(c) && !matches!(c, '\n' | '\t');
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut tamed = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) { tamed.extend(c.escape_unicode()) } else { tamed.push(c) }
    }
    Cow::Owned(tamed)
}

/// The name of the command of a role.
#[must_use]
pub fn binary(role: Role) -> String {
    format!("zipnet-{}", role.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 3] = [Role::Server, Role::Aggregator, Role::Client];

    #[test]
    fn every_variable_has_a_flag_and_a_line_of_help() {
        for role in ROLES {
            command(role).debug_assert();
            for (variable, _) in variables(role) {
                assert!(help_of(variable).is_some(), "{variable}");
            }
        }
        assert_eq!(flag("ZIPNET_ROUND_PERIOD"), "round-period");
        assert!(HELP.iter().all(|(variable, ..)| VARIABLES.iter().any(|(known, _)| known == variable)));
    }

    #[test]
    fn no_command_has_two_flags_of_one_name() {
        fn look(command: &Command, path: &str) {
            let mut flags: Vec<_> = command.get_arguments().filter_map(Arg::get_long).collect();
            flags.sort_unstable();
            assert!(flags.is_sorted_by(|one, other| one < other), "{path}: {flags:?}");
            command.get_subcommands().for_each(|sub| look(sub, &format!("{path} {}", sub.get_name())));
        }
        for role in ROLES {
            let mut command = command(role);
            command.build();
            look(&command, &binary(role));
        }
    }

    #[test]
    fn terminals_are_not_acted_on() {
        assert_eq!(tame("a\tb\nc"), "a\tb\nc");
        assert_eq!(tame("a\x1b[2J\r\u{202e}b"), "a\\u{1b}[2J\\u{d}\\u{202e}b");
        assert!(is_secret("--secret".as_ref()) && is_secret("--committee-secret=x".as_ref()));
        assert!(is_secret("--secrets".as_ref()));
        assert!(!is_secret("--secret-file=x".as_ref()) && !is_secret("--servers".as_ref()));
    }

    #[test]
    fn documented_defaults_are_those_that_hold() {
        let page = include_str!("../../docs/operating.md");
        for (variable, _, default, _) in HELP {
            let row =
                page.lines().find(|line| line.starts_with("| `") && line.contains(&format!("`{variable}`")));
            let row = row.unwrap_or_else(|| panic!("{variable} has no row"));
            let stated = default.split([';', ' ']).next().unwrap_or_default();
            assert!(stated.is_empty() || row.contains(stated), "{variable}: {default} is not in {row}");
        }
    }

    #[test]
    fn flags_of_other_roles_do_not_exist() {
        let refused = command(Role::Client).try_get_matches_from(["zipnet-client", "--round-period", "3s"]);
        assert_eq!(refused.expect_err("a server's").kind(), ErrorKind::UnknownArgument);
    }
}
