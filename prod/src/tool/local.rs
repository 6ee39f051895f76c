//! A whole instance on this machine: real processes, real sockets on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use zipnet::{Config, Reader};

use super::Outcome;
use super::processes::{Network, Node, bin_dir, keep};
use super::tail::Style;
use crate::{admin, flags};

/// The command line.
pub(super) fn command() -> Command {
    let count = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .default_value(default)
            .value_parser(clap::value_parser!(u16).range(1..=1000))
            .help(help)
    };
    Command::new("local")
        .about("Run a whole instance on this machine until Ctrl-C: servers, an aggregator and clients as processes")
        .arg(count("servers", "3", "Servers"))
        .arg(count("clients", "4", "Clients; each publishes a message in every round"))
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .value_name("N")
                .value_parser(clap::value_parser!(u64).range(1..))
                .help("Stop by itself after so many rounds"),
        )
        .arg(
            Arg::new("period")
                .long("period")
                .value_name("TIME")
                .default_value("2s")
                .value_parser(super::duration)
                .help("How often a round is opened"),
        )
        .arg(bin_dir())
        .arg(keep())
}

/// Runs the network.
///
/// # Errors
/// If a node cannot be started, or ends by itself.
pub(super) async fn run(matches: &ArgMatches) -> Outcome {
    let number = |name: &str| usize::from(*matches.get_one::<u16>(name).expect("it has a default"));
    let (servers, clients) = (number("servers"), number("clients"));
    let rounds = matches.get_one("rounds").copied();
    let period: Duration = *matches.get_one("period").expect("it has a default");
    let asked = super::asked_to_end()?;

    let mut network = Network::new(matches, "local.demo", "info,zipnet_node::roles::client=debug")?;
    let time = format!("{}ms", period.as_millis());
    network.servers = vec![
        ("ZIPNET_ROUND_PERIOD", time.clone()),
        ("ZIPNET_MIN_PARTICIPANTS", clients.min(2).to_string()),
        ("ZIPNET_FIRST_VOTERS", servers.min(3).to_string()),
    ];
    network.aggregator = vec![("ZIPNET_FOLD_DEADLINE", time)];
    let mut nodes = Vec::new();
    let outcome = tokio::select! {
        outcome = go_on(&mut network, &mut nodes, (servers, clients), period, rounds) => outcome,
        () = asked => Ok(0),
    };
    flags::say("stopping every node in order");
    let ended = network.stop(nodes).await;
    outcome.and_then(|code| ended.map(|()| code))
}

async fn go_on(
    network: &mut Network,
    nodes: &mut Vec<Node>,
    (servers, clients): (usize, usize),
    period: Duration,
    rounds: Option<u64>,
) -> Outcome {
    for (role, count) in [("server", servers), ("aggregator", 1), ("client", clients)] {
        for number in 1..=count {
            let node = network.start(role, &format!("{role}-{number}")).await?;
            flags::say(&format!("{:<14}peer={}", node.name, node.peer));
            nodes.push(node);
        }
    }
    flags::say("every node is up; each client publishes a message in every round. Ctrl-C stops them all");
    let clients = nodes.iter().filter(|node| node.name.starts_with("client"));
    let clients: Vec<_> = clients.map(|node| (node.name.clone(), node.folder.clone())).collect();
    let mut reader = Reader::connect(reading(network)?).await.map_err(|reason| reason.to_string())?;
    let outcome = tokio::select! {
        outcome = watch(network, nodes, &mut reader, rounds) => outcome,
        () = publish(clients, period) => unreachable!("clients publish until the end"),
    };
    let closed = reader.close().await.map_err(|reason| reason.to_string());
    outcome.and_then(|code| closed.map(|()| code))
}

/// Of a reader that prints what is broadcast. It begins with the first round.
fn reading(network: &Network) -> Result<Config, String> {
    let config = Config::new(network.instance()).map_err(|mistakes| mistakes.to_string())?;
    let config =
        config.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).state_dir(&network.folder("reader"));
    match network.bootstrap() {
        Some(first) => Ok(config.bootstrap(first.parse()?)),
        None => Ok(config),
    }
}

/// Has every client publish now and then.
async fn publish(clients: Vec<(String, PathBuf)>, period: Duration) {
    let mut number = 0_u64;
    loop {
        number += 1;
        for (name, folder) in &clients {
            let text = format!("hello number {number} of {name}");
            // A client that is not ready yet keeps the message.
            drop(admin::ask(folder, "/publish", Some(text.into_bytes())).await);
        }
        tokio::time::sleep(period).await;
    }
}

/// Prints what is broadcast, and what else is worth seeing, until enough rounds were read.
async fn watch(
    network: &mut Network,
    nodes: &mut [Node],
    reader: &mut Reader,
    rounds: Option<u64>,
) -> Outcome {
    let mut seen = 0;
    let mut look = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            said = network.sayings.recv() => {
                let Some((name, line)) = said else { return Err("every node has ended".to_owned()) };
                let text = line["message"].as_str().unwrap_or_default();
                if line["event"] == "published" || line["level"] == "ERROR" {
                    flags::print(&format!("{name:<14}{text}\n"));
                }
            }
            item = reader.next() => match item {
                None => return Err("the reader has ended by itself".to_owned()),
                Some(Err(doubt)) => return Err(doubt.to_string()),
                Some(Ok(broadcast)) => {
                    flags::print(&Style::Human.render(&broadcast));
                    // One that was provisional comes again.
                    seen += u64::from(broadcast.confirmed);
                    if rounds.is_some_and(|rounds| seen >= rounds) {
                        return Ok(0);
                    }
                }
            },
            _ = look.tick() => {
                nodes.iter_mut().try_for_each(Node::check)?;
                if flags::is_cut_off() {
                    return Ok(0);
                }
            }
        }
    }
}
