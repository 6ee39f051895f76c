//! Refusing clients.

use std::fmt::Write as _;
use std::path::Path;

use clap::ArgMatches;
use serde::Deserialize;
use serde_json::Value;

use super::Outcome;
use super::node::{order, page};
use crate::flags;

/// What a server says of the clients that its operator refuses.
#[derive(Debug, Deserialize)]
struct List {
    clients: Vec<Listed>,
    most: usize,
}

#[derive(Debug, Deserialize)]
struct Listed {
    client: String,
    refused: bool,
    registered: bool,
}

/// Refuses a client, withdraws that, or lists who is refused.
///
/// # Errors
/// If nobody answers, or the list cannot be changed.
pub(super) async fn refuse(folder: &Path, matches: &ArgMatches) -> Outcome {
    let Some(client) = matches.get_one::<String>("client") else { return list(folder, matches).await };
    let withdraw = matches.get_flag("withdraw");
    if !client.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(format!(
            "{client} is no peer id: write its 64 hexadecimal digits, or the beginning of them"
        ));
    }
    let path = format!("/{}/{client}", if withdraw { "unrefuse" } else { "refuse" });
    let page = order(folder, &path).await??;
    let client = page["client"].as_str().unwrap_or(client);
    flags::say(&match (page["changed"] == true, withdraw) {
        (true, false) => format!(
            "refused: {client} is out of the registry once this server has said so in the log. Other servers refuse it \
             if their operators say so as well"
        ),
        (false, false) => format!("{client} was on the list"),
        (true, true) => format!(
            "withdrawn: {client} may come back once no server refuses it and 16 rounds were opened since it was refused"
        ),
        (false, true) => format!("{client} was not on the list"),
    });
    Ok(0)
}

async fn list(folder: &Path, matches: &ArgMatches) -> Outcome {
    if matches.get_one::<String>("format").is_some_and(|format| format == "json") {
        let page: Value = page(folder, "/refused").await?;
        flags::print(&format!("{page}\n"));
        return Ok(0);
    }
    let list: List = page(folder, "/refused").await?;
    let mut text = format!("{:<66}state\n", "client");
    for Listed { client, refused, registered } in list.clients {
        let state = match (refused, registered) {
            (true, _) => "refused".to_owned(),
            (false, false) => "not registered".to_owned(),
            (false, true) => format!("registered: one server keeps out {} at most", list.most),
        };
        writeln!(text, "{client:<66}{state}").expect("writing to a string does not fail");
    }
    flags::print(&text);
    Ok(0)
}
