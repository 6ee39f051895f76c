//! The command `zipnet`: what operators ask of running nodes.
//!
//! - `node`: which node is meant
//! - `standing`: status, members, rounds, plan, waiting
//! - `keeping`: backup, restore
//! - `leaving`: stop, retire, wipe
//! - `approving`: approve another aggregator; `refusing`: refuse clients
//! - `compat`: may two binaries serve one instance
//! - `bench`: a committee under load
//! - `tail`: what an instance broadcasts; `evidence`: files that it writes about servers that lie
//! - `local`: a network of processes on this machine; `processes`: how they are run

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::signal::unix::{SignalKind, signal};
use zipnet_world::environment;

use crate::flags;
use crate::process::{EXIT_CONFIG, print_about};

mod approving;
mod bench;
mod compat;
mod evidence;
mod keeping;
mod leaving;
mod local;
mod node;
mod processes;
mod refusing;
mod standing;
mod tail;

const EXIT_CODES: &str = "\
A node is found by its state folder: --state-dir, or --instance where only one node of that instance runs on this machine.
zipnet speaks with it through the socket in that folder, so it runs as the node's user or as root.

Exit codes: 0 done, 1 it did not come to that (not ready, refused, no answer), 2 a flag is mistyped, 78 a value is wrong.";

/// How a command of the tool ends.
type Outcome = Result<u8, String>;

/// What `main` of the tool is.
#[must_use]
pub fn main() -> ExitCode {
    let matches = match flags::parse(command()) {
        Ok(matches) => matches,
        Err(code) => return ExitCode::from(flags::finish(code)),
    };
    if flags::print_generated(command(), &matches) {
        return ExitCode::from(flags::finish(0));
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(reason) => {
            flags::say(&format!("error: failed to start threads: {reason}"));
            return ExitCode::FAILURE;
        }
    };
    let environment = match environment::of_process() {
        Ok(environment) => environment,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| flags::say(&format!("error: {mistake}")));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let outcome = runtime.block_on(act(&matches, &environment));
    runtime.shutdown_background();
    ExitCode::from(flags::finish(outcome.unwrap_or_else(|sentence| {
        flags::say(&format!("error: {sentence}"));
        1
    })))
}

async fn act(matches: &ArgMatches, environment: &BTreeMap<String, String>) -> Outcome {
    match matches.subcommand() {
        Some(("status", matches)) => {
            standing::status(&node::find(matches, environment).await?, matches).await
        }
        Some(("members", matches)) => {
            standing::members(&node::find(matches, environment).await?, matches).await
        }
        Some(("rounds", matches)) => {
            standing::rounds(&node::find(matches, environment).await?, matches).await
        }
        Some(("wait", matches)) => standing::wait(&node::find(matches, environment).await?, matches).await,
        Some(("plan", matches)) => standing::plan(&node::find(matches, environment).await?, matches).await,
        Some(("retire", matches)) => leaving::retire(&node::find(matches, environment).await?, matches).await,
        Some(("approve", matches)) => {
            approving::approve(&node::find(matches, environment).await?, matches).await
        }
        Some(("refuse", matches)) => {
            refusing::refuse(&node::find(matches, environment).await?, matches).await
        }
        Some(("stop", matches)) => leaving::stop(&node::find(matches, environment).await?).await,
        Some(("wipe", matches)) => leaving::wipe(matches),
        Some(("backup", matches)) => keeping::backup(&node::folder(matches, environment)?, matches),
        Some(("restore", matches)) => keeping::restore(matches),
        Some(("compat", matches)) => compat::compare(matches),
        Some(("tail", matches)) => tail::run(matches, environment).await,
        Some(("evidence", matches)) => evidence::run(matches),
        Some(("parts", matches)) => standing::parts(&node::find(matches, environment).await?, matches).await,
        Some(("local", matches)) => local::run(matches).await,
        Some(("bench", matches)) => bench::run(matches).await,
        Some(("keys", _)) => {
            flags::print(&fresh_secret());
            Ok(0)
        }
        Some(("build-info", matches)) => {
            print_about(matches);
            Ok(0)
        }
        _ => unreachable!("clap requires one of the commands"),
    }
}

/// A secret that nobody can guess, as the documents ask for it.
fn fresh_secret() -> String {
    format!("{}\n", hex::encode(zipnet_world::world::random()))
}

fn command() -> Command {
    let node = |command: Command| {
        command
            .arg(
                Arg::new("state-dir")
                    .long("state-dir")
                    .value_name("FOLDER")
                    .help("State folder of the node; the variable is ZIPNET_STATE_DIR"),
            )
            .arg(
                Arg::new("instance")
                    .long("instance")
                    .value_name("NAME")
                    .help("The only node of this instance on this machine; the variable is ZIPNET_INSTANCE"),
            )
    };
    let asks = |command: Command| node(command).arg(flags::format_argument());
    let peer = |help: &'static str| Arg::new("peer").value_name("PEER").help(help);
    Command::new("zipnet")
        .about("Asks running zipnet nodes how they stand, and tells them what to do")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXIT_CODES)
        .max_term_width(110)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(asks(Command::new("status").about("How a node stands, and why there are no rounds if there are none")))
        .subcommand(asks(Command::new("members").about("The servers of the committee as this node sees them")))
        .subcommand(asks(Command::new("rounds").about("The newest rounds that this server holds")))
        .subcommand(
            node(Command::new("parts").about("Write down what the record of a round was made of, for whoever audits it")).arg(
                Arg::new("round")
                    .required(true)
                    .value_name("ROUND")
                    .value_parser(tail::round)
                    .help("One of the 8 newest that this server has seen from their beginning, like r7"),
            ),
        )
        .subcommand(
            asks(Command::new("wait").about("Wait until a node is ready, votes, or has finalised more rounds"))
                .arg(
                    Arg::new("for")
                        .required(true)
                        .value_name("WHAT")
                        .value_parser(PossibleValuesParser::new(["ready", "leader", "vote", "rounds"]))
                        .help(
                            "ready: it would answer /readyz with yes; leader: somebody leads; vote: the server's present disk \
                             has the vote, and no other one of it; rounds: --count more",
                        ),
                )
                .arg(
                    Arg::new("count")
                        .long("count")
                        .value_name("N")
                        .default_value("1")
                        .value_parser(clap::value_parser!(u64).range(1..))
                        .help("How many rounds"),
                )
                .arg(
                    Arg::new("within")
                        .long("within")
                        .value_name("TIME")
                        .default_value("60s")
                        .value_parser(duration)
                        .help("How long to wait, like 500ms, 60s or 2m"),
                ),
        )
        .subcommand(
            asks(Command::new("plan").about("What would follow from stopping, removing or adding a server, or from an empty disk"))
                .arg(
                    Arg::new("step")
                        .required(true)
                        .value_name("STEP")
                        .value_parser(PossibleValuesParser::new(["stop", "replace-disk", "remove", "add"])),
                )
                .arg(peer("The server, by its peer id or the beginning of it; without it, the node that is asked")),
        )
        .subcommand(
            node(Command::new("retire").about("Announce that a server leaves for good, or that another one is dead"))
                .arg(peer("With --dead: the dead server, by its peer id or the beginning of it"))
                .arg(
                    Arg::new("dead")
                        .long("dead")
                        .action(ArgAction::SetTrue)
                        .requires("peer")
                        .help("The server is dead for good and cannot say so itself"),
                ),
        )
        .subcommand(
            node(Command::new("approve").about("Approve another aggregator on this server, in the place of the log's"))
                .arg(
                    Arg::new("aggregator")
                        .required(true)
                        .value_name("PEER")
                        .help("The aggregator, by its whole peer id"),
                ),
        )
        .subcommand(
            asks(Command::new("refuse").about("Refuse a client on this server, withdraw that, or list who is refused"))
                .arg(
                    Arg::new("client")
                        .value_name("CLIENT")
                        .help("The client, by its peer id or the beginning of it; without it, all that are refused are listed"),
                )
                .arg(
                    Arg::new("withdraw")
                        .long("withdraw")
                        .action(ArgAction::SetTrue)
                        .requires("client")
                        .help("Refuse it no more"),
                ),
        )
        .subcommand(node(Command::new("stop").about("Ask a node for an orderly stop, as SIGTERM does")))
        .subcommand(
            Command::new("wipe")
                .about("Delete the state folder of a node that does not run")
                .arg(Arg::new("state-dir").long("state-dir").value_name("FOLDER").required(true).help("The state folder"))
                .arg(
                    Arg::new("yes")
                        .long("yes")
                        .action(ArgAction::SetTrue)
                        .help("Do it; without this, only say what would be deleted and what follows"),
                ),
        )
        .subcommand(
            node(Command::new("backup").about("Write down what may be restored of a node: its port and its address book")).arg(
                Arg::new("to").long("to").value_name("FILE").help("Where to write it [default: standard output]"),
            ),
        )
        .subcommand(
            Command::new("restore")
                .about("Make a state folder from a backup, for a node that comes back on a new disk")
                .arg(Arg::new("from").long("from").value_name("FILE").required(true).help("The backup"))
                .arg(
                    Arg::new("state-dir")
                        .long("state-dir")
                        .value_name("FOLDER")
                        .required(true)
                        .help("The state folder to make; it must hold no state"),
                ),
        )
        .subcommand(
            Command::new("compat")
                .about("Say which compatibility boundaries lie between two binaries, or their saved build-info")
                .arg(Arg::new("old").required(true).value_name("OLD").help("A node's binary, or a file with its build-info as JSON"))
                .arg(Arg::new("new").required(true).value_name("NEW").help("The same of the other version")),
        )
        .subcommand(tail::command())
        .subcommand(evidence::command())
        .subcommand(local::command())
        .subcommand(bench::command())
        .subcommand(Command::new("keys").about("Print a fresh random secret: 64 hexadecimal digits"))
        .subcommand(flags::about_command())
        .subcommand(flags::completions_command())
        .subcommand(Command::new("man").about("Print the manual page"))
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let time = zipnet_node::config::parse_duration(text).filter(|time| *time <= TIME_MAX);
    time.ok_or_else(|| "write a time like 500ms, 60s or 2m, up to a year (525600m)".to_owned())
}

/// The longest time that is waited for anything.
const TIME_MAX: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 60 * 60);

/// Waits until this command is asked to end: by Ctrl-C, by SIGTERM, or because its terminal is gone. Take it before
/// anything is started that must not be left behind.
fn asked_to_end() -> Result<impl Future<Output = ()>, String> {
    let listen = |kind| signal(kind).map_err(|reason| format!("failed to listen for signals: {reason}"));
    let mut kinds =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    Ok(async move {
        tokio::select! {
            _ = kinds.0.recv() => {}
            _ = kinds.1.recv() => {}
            _ = kinds.2.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        command().debug_assert();
    }

    #[test]
    fn fresh_secrets_are_long_and_differ() {
        let (one, other) = (fresh_secret(), fresh_secret());
        assert_ne!(one, other);
        assert_eq!(one.len(), 65);
        assert_eq!(duration("525600m"), Ok(TIME_MAX));
        assert!(
            ["525601m", "18446744073709551615s", "307445734561825860m"]
                .iter()
                .all(|text| duration(text).is_err())
        );
        assert!(!zipnet_core::key::NodeSecret::is_short(one.trim()));
    }
}
