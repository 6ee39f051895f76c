//! Status, members, rounds, plan, and waiting for them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use serde::Deserialize;
use serde_json::Value;
use zipnet_node::config::parse_peer;
use zipnet_node::status::ServerStatus;

use super::Outcome;
use super::node::page;
use crate::{admin, flags};

/// How often a node is asked while something is waited for.
const LOOK: Duration = Duration::from_millis(200);

const INFALLIBLE: &str = "writing to a string does not fail";

fn is_json(matches: &ArgMatches) -> bool {
    matches.get_one::<String>("format").is_some_and(|format| format == "json")
}

/// The whole page.
///
/// # Errors
/// If nobody answers.
pub(super) async fn status(folder: &Path, matches: &ArgMatches) -> Outcome {
    let path = if is_json(matches) { "/status" } else { "/status?table" };
    let answer = admin::ask(folder, path, None).await?;
    if answer.status != 200 {
        return Err(answer.body.trim().to_owned());
    }
    flags::print(&answer.body);
    Ok(0)
}

/// The servers.
///
/// # Errors
/// If nobody answers.
pub(super) async fn members(folder: &Path, matches: &ArgMatches) -> Outcome {
    let page: Value = page(folder, "/status").await?;
    if is_json(matches) {
        flags::print(&format!("{}\n", page["servers"]));
        return Ok(0);
    }
    let members = members_of(&page)?;
    let mut text = format!("{:<66}{:<9}{:<12}{:<8}{:<8}\n", "server", "vote", "standing", "linked", "roster");
    for member in members {
        let yes = |yes| if yes { "yes" } else { "no" };
        let line = format!(
            "{:<66}{:<9}{:<12}{:<8}{:<8}{}",
            member.peer,
            member.vote,
            member.standing,
            yes(member.linked),
            yes(member.in_roster),
            if member.leader { "leads" } else { "" }
        );
        writeln!(text, "{}", line.trim_end()).expect(INFALLIBLE);
    }
    flags::print(&text);
    Ok(0)
}

fn members_of(page: &Value) -> Result<Vec<ServerStatus>, String> {
    serde_json::from_value(page["servers"].clone())
        .map_err(|reason| format!("failed to read the answer of the node: {reason}"))
}

/// A round as the page of a server shows it.
#[derive(Debug, Deserialize)]
struct Round {
    round: u64,
    digest: String,
    participants: u32,
    servers: Vec<String>,
    confirmed: bool,
}

/// The newest rounds.
///
/// # Errors
/// If nobody answers.
pub(super) async fn rounds(folder: &Path, matches: &ArgMatches) -> Outcome {
    if is_json(matches) {
        let page: Value = page(folder, "/records").await?;
        flags::print(&format!("{page}\n"));
        return Ok(0);
    }
    let rounds: Vec<Round> = page(folder, "/records").await?;
    let mut text =
        format!("{:<10}{:<14}{:<9}{:<11}record\n", "round", "participants", "servers", "confirmed");
    for round in rounds {
        writeln!(
            text,
            "{:<10}{:<14}{:<9}{:<11}{}",
            format!("r{}", round.round),
            round.participants,
            round.servers.len(),
            if round.confirmed { "yes" } else { "not yet" },
            round.digest
        )
        .expect(INFALLIBLE);
    }
    flags::print(&text);
    Ok(0)
}

/// What a record was made of, as JSON.
///
/// # Errors
/// If nobody answers, or the server does not have it.
pub(super) async fn parts(folder: &Path, matches: &ArgMatches) -> Outcome {
    let round: zipnet::Round = *matches.get_one("round").expect("it is required");
    let path = format!("/parts/{}", round.0);
    let print = |piece: &str| {
        flags::print(piece);
        !flags::is_cut_off()
    };
    admin::read(folder, &path, print).await.map(|()| 0)
}

/// Waits, and says what was missing if it was in vain.
///
/// # Errors
/// If it did not come to that in time.
pub(super) async fn wait(folder: &Path, matches: &ArgMatches) -> Outcome {
    let within: Duration = *matches.get_one("within").expect("it has a default");
    let count: u64 = *matches.get_one("count").expect("it has a default");
    let what = matches.get_one::<String>("for").expect("it is required").as_str();
    let until = Instant::now() + within;
    let mut rounds = RoundsSeen::default();
    loop {
        // A node that is being started does not answer yet.
        let answer: Result<Value, String> = page(folder, "/status").await;
        let missing = match &answer {
            Err(sentence) => sentence.clone(),
            Ok(page) => {
                rounds.look(page["finalized_count"].as_u64().unwrap_or(0));
                let met = match what {
                    "ready" => page["ready"] == true,
                    "leader" => page["leader"].is_string(),
                    "vote" => page["votes"] == true,
                    _ => rounds.more >= count,
                };
                if met {
                    return Ok(0);
                }
                causes(page)
            }
        };
        if Instant::now() >= until {
            return Err(format!("waited {} for {what} in vain: {missing}", seconds(within)));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How many rounds a node saw finished while it was looked at. It counts from zero whenever it starts, and what it reads
/// of the past it does not count.
#[derive(Debug, Default)]
struct RoundsSeen {
    /// What the node said last.
    last: Option<u64>,
    more: u64,
}

impl RoundsSeen {
    fn look(&mut self, count: u64) {
        let more = match self.last {
            None => 0,
            // It was started in between.
            Some(last) => count.checked_sub(last).unwrap_or(count),
        };
        self.more = self.more.saturating_add(more);
        self.last = Some(count);
    }
}

fn seconds(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

fn causes(page: &Value) -> String {
    let causes = page["causes"].as_array().into_iter().flatten();
    let causes: Vec<_> = causes.filter_map(|cause| cause["text"].as_str()).collect();
    if causes.is_empty() { "the node names no cause".to_owned() } else { causes.join("; ") }
}

/// What would follow from a step.
///
/// # Errors
/// If nobody answers.
pub(super) async fn plan(folder: &Path, matches: &ArgMatches) -> Outcome {
    let step = matches.get_one::<String>("step").expect("it is required");
    let status: Value = page(folder, "/status").await?;
    let peer = match matches.get_one::<String>("peer") {
        Some(written) => server(&status, written)?,
        None => status["peer"].as_str().unwrap_or_default().to_owned(),
    };
    let format = if is_json(matches) { "" } else { "?table" };
    let answer = admin::ask(folder, &format!("/plan/{step}/{peer}{format}"), None).await?;
    flags::print(&answer.body);
    Ok(u8::from(answer.status != 200))
}

/// The peer id of a server that is known to the node, by the beginning of it.
///
/// # Errors
/// If there is none or there are several.
pub(super) fn server(status: &Value, written: &str) -> Result<String, String> {
    if parse_peer(written).is_some() {
        return Ok(written.to_owned());
    }
    let written = written.trim_start_matches("server-");
    let members = members_of(status)?;
    let fits: Vec<_> = members.iter().filter(|member| member.peer.starts_with(written)).collect();
    match fits.as_slice() {
        [one] => Ok(one.peer.clone()),
        [] => {
            let known: Vec<_> = members.iter().map(|member| member.server.as_str()).collect();
            Err(format!(
                "no server of the committee has a peer id that begins with {written}; known are {}",
                known.join(", ")
            ))
        }
        several => Err(format!(
            "{} servers have a peer id that begins with {written}: write more of it",
            several.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_counted_from_the_first_look_on() {
        let mut rounds = RoundsSeen::default();
        let more: Vec<_> = [7, 7, 9, 0, 1, 3]
            .into_iter()
            .map(|count| {
                rounds.look(count);
                rounds.more
            })
            .collect();
        assert_eq!(more, [0, 0, 2, 2, 3, 5], "the node was started again after the third look");
    }

    #[test]
    fn servers_are_named_by_the_beginning_of_their_peer_id() {
        let member = |peer: &str| {
            serde_json::json!({ "server": &peer[..10], "peer": peer, "leader": false, "vote": "voter",
                                "standing": "registered", "linked": true, "in_roster": true })
        };
        let (one, other) = ("ab".repeat(32), "ac".repeat(32));
        let status = serde_json::json!({ "servers": [member(&one), member(&other)] });
        assert_eq!(server(&status, "ab").as_deref(), Ok(one.as_str()));
        assert_eq!(server(&status, &format!("server-{}", &other[..10])).as_deref(), Ok(other.as_str()));
        assert!(server(&status, "a").expect_err("two").contains("write more of it"));
        assert!(server(&status, "ff").expect_err("none").contains("known are ababababab, acacacacac"));
        assert_eq!(server(&status, &"ff".repeat(32)).as_deref(), Ok("ff".repeat(32).as_str()));
    }
}
