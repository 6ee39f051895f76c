//! What an instance broadcasts, as it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};
use zipnet::{Broadcast, Config, Doubt, Message, Reader, Round};
use zipnet_node::config::{Build, Config as NodeConfig, is_hidden};

use super::{Outcome, evidence};
use crate::flags;

/// How long a link may take, if no other time is said.
const CONNECT: Duration = Duration::from_secs(30);

const INFALLIBLE: &str = "writing to a string does not fail";

/// Flags that stand for variables, with what they say of themselves. Of the environment nothing else is read: a reader is
/// nobody, whatever the nodes of this machine are.
const VARIABLES: [(&str, &str, &str, &str); 5] = [
    ("instance", "ZIPNET_INSTANCE", "NAME", "Name of the instance"),
    ("universe", "ZIPNET_UNIVERSE", "NAME", "Only for federations that must not meet others"),
    (
        "bootstrap",
        "ZIPNET_BOOTSTRAP",
        "PEER,…",
        "Whom to dial first: what a node prints behind peer= at its start",
    ),
    (
        "servers",
        "ZIPNET_SERVERS",
        "PEER,…",
        "Servers that must be in every roster, a majority of which must have signed",
    ),
    ("min-servers", "ZIPNET_MIN_SERVERS", "N", "Smallest roster"),
];

/// The command line.
pub(super) fn command() -> Command {
    let mut command = Command::new("tail")
        .about("Print the messages of every round as they are broadcast, each signature checked")
        .after_help(
            "Exit codes: 0 done, 1 something did not hold, which standard error names, or it did not come to --count \
             rounds, 2 a flag is mistyped, 78 a value is wrong.",
        );
    for (flag, variable, value, help) in VARIABLES {
        let help = format!("{help}; the variable is {variable}");
        command = command.arg(Arg::new(flag).long(flag).value_name(value).help(help));
    }
    command
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDR")
                .value_parser(clap::value_parser!(SocketAddr))
                .help("Where its socket is bound, for example because of a firewall [default: 0.0.0.0:0]"),
        )
        .arg(
            Arg::new("from")
                .long("from")
                .value_name("ROUND")
                .value_parser(round)
                .help("First round, like r7 [default: the oldest that can be had]"),
        )
        .arg(
            Arg::new("count")
                .long("count")
                .value_name("N")
                .value_parser(clap::value_parser!(u64).range(1..))
                .help("Stop after so many rounds"),
        )
        .arg(Arg::new("within").long("within").value_name("TIME").value_parser(super::duration).help(
            "Stop after this time, like 500ms, 60s or 2m; with --count, it is an error if they have not come",
        ))
        .arg(
            Arg::new("state-dir")
                .long("state-dir")
                .value_name("FOLDER")
                .help("Where to keep the address book [default: a folder that is removed at the end]"),
        )
        .arg(Arg::new("evidence").long("evidence").value_name("FOLDER").help(
            "Where to write evidence, a file for each server that has signed two records of a round; zipnet evidence \
             verify judges it",
        ))
        .arg(flags::format_argument())
}

pub(super) fn round(text: &str) -> Result<Round, String> {
    let number = text.strip_prefix('r').unwrap_or(text);
    number.parse().map(Round).map_err(|_| "write a round like r7".to_owned())
}

/// How broadcasts are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Human,
    Json,
}

/// Follows the broadcasts.
///
/// # Errors
/// If nobody answers, or the rounds do not come in time.
pub(super) async fn run(matches: &ArgMatches, environment: &BTreeMap<String, String>) -> Outcome {
    let within: Option<Duration> = matches.get_one("within").copied();
    let config = match config(matches, environment, within) {
        Ok(config) => config,
        Err(mistakes) => {
            mistakes.to_string().lines().for_each(|mistake| flags::say(&format!("error: {mistake}")));
            return Ok(78);
        }
    };
    let style = match matches.get_one::<String>("format").map(String::as_str) {
        Some("json") => Style::Json,
        _ => Style::Human,
    };
    let count: Option<u64> = matches.get_one("count").copied();
    let started = tokio::time::Instant::now();
    let mut asked = pin!(super::asked_to_end()?);
    let mut reader = tokio::select! {
        reader = Reader::connect(config) => reader.map_err(|reason| reason.to_string())?,
        () = &mut asked => return Ok(u8::from(count.is_some())),
    };
    let folder = matches.get_one::<String>("evidence").map(Path::new);
    let until = within.map(|within| started + within);
    let outcome = follow(&mut reader, (style, folder), count, until, asked).await;
    let closed = reader.close().await.map_err(|reason| reason.to_string());
    let code = outcome?;
    closed.map(|()| code)
}

fn config(
    matches: &ArgMatches,
    environment: &BTreeMap<String, String>,
    within: Option<Duration>,
) -> Result<Config, zipnet::Mistakes> {
    let mut variables = BTreeMap::new();
    for (flag, variable, ..) in VARIABLES {
        let given = matches.get_one::<String>(flag).or_else(|| environment.get(variable));
        if let Some(value) = given {
            variables.insert(variable.to_owned(), value.clone());
        }
    }
    let (_, warnings) = NodeConfig::reader_from_env(&variables, Build::CURRENT).map_err(zipnet::Mistakes)?;
    warnings.iter().for_each(|warning| flags::say(&format!("warning: {warning}")));
    let mut config =
        Config::from_variables(&variables)?.connect_timeout(within.unwrap_or(CONNECT).min(CONNECT));
    if let Some(address) = matches.get_one::<SocketAddr>("listen") {
        config = config.listen(*address);
    }
    if let Some(from) = matches.get_one::<Round>("from") {
        config = config.from(*from);
    }
    if let Some(folder) = matches.get_one::<String>("state-dir") {
        config = config.state_dir(Path::new(folder));
    }
    Ok(config)
}

/// Prints until there is enough.
async fn follow(
    reader: &mut Reader,
    (style, folder): (Style, Option<&Path>),
    count: Option<u64>,
    until: Option<tokio::time::Instant>,
    mut asked: Pin<&mut impl Future<Output = ()>>,
) -> Outcome {
    let over = async {
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let mut tally = Tally::default();
    loop {
        tokio::select! {
            item = reader.next() => {
                let Some(item) = item else { return Err("the reader has ended by itself".to_owned()) };
                tally.take(&item);
                match item {
                    Ok(broadcast) => flags::print(&style.render(&broadcast)),
                    Err(doubt) => {
                        let sentence = format!("{}: {doubt}", tally.weight(&doubt));
                        if tally.is_news(&sentence) {
                            flags::say(&sentence);
                        }
                        keep_evidence(&doubt, folder);
                    }
                }
                // A reader that has seen enough is an end as well.
                if count.is_some_and(|count| tally.rounds >= count) || flags::is_cut_off() {
                    return Ok(tally.code());
                }
            }
            () = &mut over => return match count {
                Some(count) => Err(format!("waited for {count} rounds, and {} came", tally.rounds)),
                None => Ok(tally.code()),
            },
            () = &mut asked => return Ok(tally.code()),
        }
    }
}

/// Writes what convicts a server into the folder. That it cannot be written stops no reading.
fn keep_evidence(doubt: &Doubt, folder: Option<&Path>) {
    let (Doubt::Contradicted { evidence, .. }, Some(folder)) = (doubt, folder) else { return };
    for pair in evidence {
        match evidence::write(folder, pair) {
            Ok(path) => flags::say(&format!("evidence against {}: {}", pair.server(), path.display())),
            Err(reason) => flags::say(&format!("error: {reason}")),
        }
    }
}

/// What was printed so far.
#[derive(Debug, Default)]
struct Tally {
    /// Each counted once, although it may be printed twice.
    rounds: u64,
    last: Option<(zipnet::LogId, Round)>,
    failed: bool,
    /// What was said about doubts, each once: whoever sends one bad record sends more.
    said: BTreeSet<String>,
}

/// Different sentences about doubts that are said.
const SAID_MAX: usize = 1_000;

impl Tally {
    fn take(&mut self, item: &Result<Broadcast, Doubt>) {
        match item {
            Ok(broadcast) => {
                let place = (broadcast.log, broadcast.round);
                if self.last.is_none_or(|last| last.0 != place.0 || last.1 < place.1) {
                    self.rounds += 1;
                    self.last = Some(place);
                }
            }
            Err(doubt) => self.failed |= self.is_failure(doubt),
        }
    }

    /// Before the first round, it is only said where reading begins.
    fn is_failure(&self, doubt: &Doubt) -> bool {
        !matches!(doubt, Doubt::Missing { .. }) || self.rounds > 0
    }

    fn weight(&self, doubt: &Doubt) -> &'static str {
        if self.is_failure(doubt) { "error" } else { "note" }
    }

    fn is_news(&mut self, sentence: &str) -> bool {
        self.said.len() < SAID_MAX && self.said.insert(sentence.to_owned())
    }

    fn code(&self) -> u8 {
        u8::from(self.failed)
    }
}

impl Style {
    /// A round, with the line breaks at its end.
    pub(super) fn render(self, broadcast: &Broadcast) -> String {
        match self {
            Self::Human => human(broadcast),
            Self::Json => record(broadcast).to_string() + "\n",
        }
    }
}

fn human(broadcast: &Broadcast) -> String {
    let standing = if broadcast.confirmed { "confirmed" } else { "provisional" };
    let mut text = format!("{}  {} participants  {standing}\n", broadcast.round, broadcast.participants);
    for message in &broadcast.messages {
        let said = match printable(message.trimmed()) {
            Some(said) => said.to_owned(),
            None => format!("0x{}", hex::encode(message.trimmed())),
        };
        writeln!(text, "    {said}").expect(INFALLIBLE);
    }
    if broadcast.garbled > 0 {
        writeln!(text, "    ({} garbled)", broadcast.garbled).expect(INFALLIBLE);
    }
    text
}

fn record(broadcast: &Broadcast) -> Value {
    let slot = |message: &Message| match printable(message.trimmed()) {
        Some(text) => json!({ "slot": message.slot, "text": text }),
        None => json!({ "slot": message.slot, "hex": hex::encode(&message.bytes) }),
    };
    let servers: Vec<_> = broadcast.servers.iter().map(ToString::to_string).collect();
    let slots: Vec<_> = broadcast.messages.iter().map(slot).collect();
    json!({
        "round": broadcast.round.0,
        "log": broadcast.log.to_string(),
        "digest": broadcast.digest.to_string(),
        "previous": broadcast.previous.to_string(),
        "participants": broadcast.participants,
        "servers": servers,
        "confirmed": broadcast.confirmed,
        "slots": slots,
        "collisions": broadcast.garbled,
    })
}

/// The bytes as text, if it does nothing but stand there: whoever wrote it is not trusted with the reader's terminal.
fn printable(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.chars().any(is_hidden)).then_some(text)
}

#[cfg(test)]
mod tests {
    use zipnet::{Digest, LogId, PeerId, Refused};

    use super::*;

    fn broadcast(round: u64, said: &[&[u8]]) -> Broadcast {
        let message = |(slot, said): (usize, &&[u8])| {
            let mut bytes = said.to_vec();
            bytes.resize(12, 0);
            Message { slot: u32::try_from(slot).unwrap(), bytes }
        };
        Broadcast {
            log: LogId([1; 32]),
            round: Round(round),
            digest: Digest([2; 32]),
            previous: Digest([3; 32]),
            confirmed: true,
            participants: 3,
            servers: vec![PeerId([4; 32])],
            messages: said.iter().enumerate().map(message).collect(),
            garbled: 1,
        }
    }

    #[test]
    fn people_see_text_and_nothing_that_acts_on_their_terminal() {
        let said: [&[u8]; 6] = [
            b"hello",
            "sch\u{f6}n".as_bytes(),
            b"\x1b[2Jgone",
            b"two\nlines",
            "\u{202e}evil".as_bytes(),
            b"\xff\x00\xfe",
        ];
        assert_eq!(
            Style::Human.render(&broadcast(7, &said)),
            "r7  3 participants  confirmed\n    hello\n    sch\u{f6}n\n    0x1b5b324a676f6e65\n    \
             0x74776f0a6c696e6573\n    0xe280ae6576696c\n    0xff00fe\n    (1 garbled)\n"
        );
        for c in ['\u{0}', '\u{7}', '\u{7f}', '\u{9b}', '\u{2028}', '\u{200b}', '\u{2066}', '\u{feff}'] {
            assert_eq!(printable(c.to_string().as_bytes()), None, "{c:?}");
        }
    }

    #[test]
    fn scripts_get_one_object_for_each_record() {
        let line = Style::Json.render(&broadcast(7, &[b"hello", b"\x1b"]));
        assert_eq!(line.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "collisions",
                "confirmed",
                "digest",
                "log",
                "participants",
                "previous",
                "round",
                "servers",
                "slots"
            ]
        );
        assert_eq!(
            (&value["round"], &value["collisions"], &value["confirmed"]),
            (&json!(7), &json!(1), &json!(true))
        );
        assert_eq!(value["slots"][0], json!({ "slot": 0, "text": "hello" }));
        assert_eq!(value["slots"][1], json!({ "slot": 1, "hex": format!("1b{}", "00".repeat(11)) }));
    }

    #[test]
    fn rounds_are_counted_once_and_doubts_fail_once_reading_has_begun() {
        let missing = Err(Doubt::Missing { log: LogId([1; 32]), from: Round(3), oldest: Round(7) });
        let mut tally = Tally::default();
        tally.take(&missing);
        assert_eq!((tally.code(), tally.rounds), (0, 0));
        let provisional = Broadcast { confirmed: false, ..broadcast(7, &[]) };
        for item in [Ok(provisional), Ok(broadcast(8, &[])), Ok(broadcast(7, &[]))] {
            tally.take(&item);
        }
        assert_eq!((tally.code(), tally.rounds), (0, 2));
        tally.take(&missing);
        assert_eq!(tally.code(), 1);
        assert!(tally.is_news("the first") && tally.is_news("another"));
        assert!(!tally.is_news("the first"));
        let mut tally = Tally::default();
        tally.take(&Err(Doubt::Refused { reason: Refused::BadSignature, from: PeerId([4; 32]) }));
        assert_eq!(tally.code(), 1);
    }

    #[test]
    fn what_the_nodes_of_this_machine_are_is_not_read() {
        let flags = ["tail", "--instance", "acme.mainnet", "--from", "r7"];
        let matches = command().get_matches_from(flags);
        let environment =
            [("ZIPNET_COMMITTEE_SECRET", "x"), ("ZIPNET_STATE_DIR", "/x"), ("ZIPNET_INSTANCE", "other")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let config = format!("{:?}", config(&matches, &environment, None).unwrap());
        assert!(config.contains("acme.mainnet") && config.contains("Round(7)"), "{config}");
        assert!(!config.contains("/x") && !config.contains("other"), "{config}");
        assert!(round("r7").is_ok() && round("7").is_ok() && round("seven").is_err());
    }
}
