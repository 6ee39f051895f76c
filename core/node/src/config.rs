//! What an operator set: every variable of the operator contract, read from a map and checked.
//!
//! Nothing here touches the process: the driver collects flags, variables and files into one map (flag over variable over
//! file), calls [`read_files`] for the `…_FILE` variables, then [`Config::from_env`]. The shape of a round and the
//! versions are no variables: they are compiled in and passed as [`Build`], so that committees of mixed versions can be
//! simulated.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zipnet_core::id::{PeerId, Role, Round, UNIVERSE, UniqueId};
use zipnet_core::instance::Instance;
use zipnet_core::key::{CommitteeSecret, Identity, NodeSecret};
use zipnet_core::message::Floors;
use zipnet_core::params::RoundParams;
use zipnet_core::registry::CLIENTS_MAX;
use zipnet_core::wire::SERVERS_MAX;

use crate::slots;
use crate::world::Address;

/// The exit code of a node whose configuration was refused.
pub const EXIT_CONFIG: u8 = 78;

/// The text whose [`UniqueId`] is [`UNIVERSE`].
pub const UNIVERSE_NAME: &str = "mosaik.universe";

/// What a binary was built as. Equal for every node of a committee, or the nodes refuse each other by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// The shape of a round.
    pub params: RoundParams,
    /// How messages are encoded.
    pub wire_version: u8,
    /// How the committee machine applies commands.
    pub machine_version: u32,
}

impl Build {
    /// What this source is built as, with the default shape of a round.
    pub const CURRENT: Self = Self {
        params: RoundParams::DEFAULT,
        wire_version: zipnet_core::wire::WIRE_VERSION,
        machine_version: zipnet_core::committee::MACHINE_VERSION,
    };
}

/// Everything that an operator can set for one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the binary was built as.
    pub build: Build,
    /// `ZIPNET_INSTANCE`.
    pub instance: Instance,
    /// `ZIPNET_UNIVERSE` as text, for log lines.
    pub universe_name: String,
    /// The identifier of that text.
    pub universe: UniqueId,
    /// `ZIPNET_SECRET`. `None` only for a client: a fresh identity is drawn at every start.
    pub secret: Option<Arc<NodeSecret>>,
    /// `ZIPNET_BOOTSTRAP`, in the order given.
    pub bootstrap: Vec<PeerAddress>,
    /// `ZIPNET_LISTEN`; port 0 means that the system chooses.
    pub listen: Address,
    /// `ZIPNET_ADVERTISE`; `None`: derived from where the node listens.
    pub advertise: Option<Address>,
    /// `ZIPNET_STATE_DIR`; `None`: the driver's folder for this user, instance and peer.
    pub state_dir: Option<String>,
    /// `ZIPNET_ANNOUNCE_INTERVAL`: the gossip cycle.
    pub announce_interval: Duration,
    /// `ZIPNET_STRANGERS_MAX`: see [`crate::slots`].
    pub strangers_max: u32,
    /// `ZIPNET_METRICS`; `None`: off.
    pub metrics: Option<Address>,
    /// `RUST_LOG`.
    pub log_filter: String,
    /// `ZIPNET_FORMAT`: how lines are printed.
    pub format: Format,
    /// What only this role has.
    pub part: Part,
}

/// The part of a [`Config`] that depends on the role.
#[derive(Clone, Debug)]
pub enum Part {
    /// Of a committee server.
    Server(ServerPart),
    /// Of the aggregator.
    Aggregator(AggregatorPart),
    /// Of a client.
    Client(ClientPart),
    /// Of a client that only reads.
    Reader(ReaderPart),
}

/// What only a committee server has.
#[derive(Clone, Debug)]
pub struct ServerPart {
    /// `ZIPNET_COMMITTEE_SECRET`.
    pub committee_secret: Arc<CommitteeSecret>,
    /// `ZIPNET_MIN_PARTICIPANTS` and `ZIPNET_MIN_SERVERS`.
    pub floors: Floors,
    /// `ZIPNET_ALLOWED_SERVERS`: who may be a server of this committee; `None`: whoever knows its secret.
    pub allowed: Option<BTreeSet<PeerId>>,
    /// `ZIPNET_AGGREGATOR`: the only aggregator this server approves; `None`: the first one seen.
    pub aggregator: Option<PeerId>,
    /// `ZIPNET_ROUND_PERIOD`.
    pub round_period: Duration,
    /// `ZIPNET_ROUND_DEADLINE`.
    pub round_deadline: Duration,
    /// `ZIPNET_FIRST_VOTERS`: how many voters the first round of a log waits for.
    pub first_voters: u32,
    /// `ZIPNET_NEW_LOG`: start a log, set older state aside, and yield to no other log.
    pub new_log: bool,
}

/// What only the aggregator has.
#[derive(Clone, Debug)]
pub struct AggregatorPart {
    /// `ZIPNET_FOLD_DEADLINE`.
    pub fold_deadline: Duration,
    /// `ZIPNET_SERVERS`: servers that are believed.
    pub pins: BTreeSet<PeerId>,
}

/// What only a client has.
#[derive(Clone, Debug)]
pub struct ClientPart {
    /// `ZIPNET_SERVERS`: servers that must be in every roster.
    pub pins: BTreeSet<PeerId>,
    /// `ZIPNET_MIN_SERVERS`: the smallest roster; `None`: every pin, else the largest roster accepted.
    pub min_servers: Option<u32>,
    /// `ZIPNET_MESSAGE`; `None`: cover traffic in every round.
    pub message: Option<String>,
    /// `ZIPNET_CADENCE`: a message in every round whose turn it is, cover in the others.
    pub cadence: u32,
}

/// What only a reader has: a client that follows the broadcasts, is in no registry and sends no envelopes.
#[derive(Clone, Debug)]
pub struct ReaderPart {
    /// `ZIPNET_SERVERS`: servers that must be in every roster.
    pub pins: BTreeSet<PeerId>,
    /// `ZIPNET_MIN_SERVERS`: the smallest roster; `None`: every pin.
    pub min_servers: Option<u32>,
    /// The first round wanted; `None`: the oldest that can be had. No variable: whoever reads says so each time.
    pub from: Option<Round>,
}

/// A peer, and where it is reached if that was said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerAddress {
    /// Who must answer.
    pub peer: PeerId,
    /// `None`: from the saved address book, then by local discovery.
    pub address: Option<Address>,
}

impl core::str::FromStr for PeerAddress {
    type Err = String;

    /// As [`parse_peer_address`].
    fn from_str(text: &str) -> Result<Self, String> {
        parse_peer_address(text).map_err(|expected| format!("{text} is no peer: write {expected}"))
    }
}

/// How lines are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

impl Config {
    /// Reads and checks everything at once, so that an operator sees every mistake and not only the first.
    ///
    /// An empty value counts as unset. Variables that do not begin with `ZIPNET_` are ignored, except `RUST_LOG`.
    ///
    /// # Errors
    /// Every mistake; the node exits with [`EXIT_CONFIG`].
    pub fn from_env(
        role: Role,
        env: &BTreeMap<String, String>,
        build: Build,
    ) -> Result<(Self, Vec<Warning>), Vec<ConfigError>> {
        let mut reader = Reader { role, env, errors: Vec::new(), warnings: Vec::new() };
        reader.names();

        let instance = reader.required(INSTANCE).and_then(|name| match Instance::new(name) {
            Ok(instance) => Some(instance),
            Err(error) => {
                reader.refuse(INSTANCE, format!("a name like acme.mixer.mainnet ({error})"));
                None
            }
        });
        reader.seen(INSTANCE);
        let universe_name = reader.text(UNIVERSE_VARIABLE).unwrap_or(UNIVERSE_NAME).to_owned();
        if universe_name.chars().any(|c| is_hidden(c) || c.is_whitespace()) {
            reader.refuse(UNIVERSE_VARIABLE, "a name without spaces".to_owned());
        }
        let universe =
            if universe_name == UNIVERSE_NAME { UNIVERSE } else { UniqueId::from_text(&universe_name) };
        let secret = reader.secret(instance.as_ref());
        let bootstrap = reader.peers(BOOTSTRAP);
        let me = secret.as_ref().map(|secret| Identity::from_secret(secret).peer());
        if bootstrap.iter().any(|first| Some(first.peer) == me) {
            reader.warnings.push(Warning::OwnBootstrap);
        }
        let listen = reader.address(LISTEN).unwrap_or_else(|| Address("0.0.0.0:0".to_owned()));
        let advertise = reader.address(ADVERTISE);
        if advertise.as_ref().is_some_and(|address| is_wildcard(address) || has_no_port(address)) {
            reader.refuse(
                ADVERTISE,
                "where others reach this node: an address of this machine and its port".to_owned(),
            );
        }
        let state_dir = reader.text(STATE_DIR).map(str::to_owned);
        let announce_interval = reader.duration(ANNOUNCE_INTERVAL, Duration::from_secs(15));
        let strangers_max = reader.number(STRANGERS_MAX).unwrap_or(slots::STRANGERS_MAX);
        if strangers_max > slots::STRANGERS_MOST {
            let most = slots::STRANGERS_MOST;
            reader
                .refuse(STRANGERS_MAX, format!("a whole number from 1 to {most}: others need room as well"));
        }
        let metrics = reader.address(METRICS);
        if let Some(address) = &metrics
            && is_wildcard(address)
        {
            reader.warnings.push(Warning::MetricsOnWildcard { address: address.clone() });
        }
        let log_filter = env.get(RUST_LOG).filter(|filter| !filter.is_empty());
        let log_filter = log_filter.map_or_else(|| "info".to_owned(), Clone::clone);
        let format = match reader.text(FORMAT) {
            None | Some("human") => Format::Human,
            Some("json") => Format::Json,
            Some(_) => {
                reader.refuse(FORMAT, "human or json".to_owned());
                Format::Human
            }
        };
        let part = match role {
            Role::Server => reader.server(instance.as_ref()).map(Part::Server),
            Role::Aggregator => {
                let fold_deadline = reader.duration(FOLD_DEADLINE, Duration::from_secs(2));
                let pins: BTreeSet<_> = reader.peers(SERVERS).into_iter().map(|pin| pin.peer).collect();
                if pins.is_empty() && bootstrap.is_empty() {
                    reader.warnings.push(Warning::NobodyToBelieve);
                }
                Some(Part::Aggregator(AggregatorPart { fold_deadline, pins }))
            }
            Role::Client => Some(Part::Client(reader.client(&build.params))),
        };

        let Reader { errors, warnings, .. } = reader;
        match (instance, part) {
            (Some(instance), Some(part)) if errors.is_empty() => Ok((
                Self {
                    build,
                    instance,
                    universe_name,
                    universe,
                    secret,
                    bootstrap,
                    listen,
                    advertise,
                    state_dir,
                    announce_interval,
                    strangers_max,
                    metrics,
                    log_filter,
                    format,
                    part,
                },
                warnings,
            )),
            _ => Err(errors),
        }
    }

    /// The same for a reader, which reads the variables of a client except `ZIPNET_MESSAGE` and `ZIPNET_CADENCE`.
    ///
    /// # Errors
    /// Every mistake.
    pub fn reader_from_env(
        env: &BTreeMap<String, String>,
        build: Build,
    ) -> Result<(Self, Vec<Warning>), Vec<ConfigError>> {
        let (config, mut warnings) = Self::from_env(Role::Client, env, build)?;
        for warning in &mut warnings {
            if *warning == Warning::NoPins {
                *warning = Warning::NoPinsToRead;
            }
        }
        let set = |name: &&str| env.get(*name).is_some_and(|value| !value.is_empty());
        let unused = [MESSAGE, CADENCE].into_iter().filter(set);
        warnings.extend(unused.map(|variable| Warning::UnusedByReader { variable }));
        Ok((config.into_reader(None), warnings))
    }

    /// A client's configuration as that of a reader. Whatever else it was stays as it is.
    #[must_use]
    pub fn into_reader(mut self, from: Option<Round>) -> Self {
        if let Part::Client(ClientPart { pins, min_servers, .. }) = self.part {
            self.part = Part::Reader(ReaderPart { pins, min_servers, from });
        }
        self
    }

    /// What this node is to others: a reader is a client.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self.part {
            Part::Server(_) => Role::Server,
            Part::Aggregator(_) => Role::Aggregator,
            Part::Client(_) | Part::Reader(_) => Role::Client,
        }
    }
}

/// Replaces each `…_FILE` variable by the content of its file, without the line break at the end.
///
/// # Errors
/// If a variable and its `…_FILE` are both set, or `read` fails.
pub fn read_files(
    env: &mut BTreeMap<String, String>,
    mut read: impl FnMut(&str) -> Result<String, String>,
) -> Result<(), Vec<ConfigError>> {
    let mut errors = Vec::new();
    for (file, variable) in [(SECRET_FILE, SECRET), (COMMITTEE_SECRET_FILE, COMMITTEE_SECRET)] {
        let Some(path) = env.remove(file).filter(|path| !path.is_empty()) else { continue };
        if env.get(variable).is_some_and(|value| !value.is_empty()) {
            errors.push(ConfigError::Twice { variable, file });
            continue;
        }
        match read(&path) {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                match line_of_secret(text) {
                    Ok(()) => drop(env.insert(variable.to_owned(), text.to_owned())),
                    Err(why) => errors.push(ConfigError::Unreadable { file, path, why: why.to_owned() }),
                }
            }
            Err(why) => errors.push(ConfigError::Unreadable { file, path, why }),
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Whether the content of a file is one secret.
fn line_of_secret(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        Err("it is empty: write the secret into it")
    } else if text.starts_with('\u{feff}') {
        Err("it begins with a byte order mark: save it as UTF-8 without one")
    } else if text.contains(['\n', '\r']) {
        Err("it has several lines: leave the one that is the secret")
    } else if text.starts_with("ZIPNET_") {
        Err("it begins with the name of a variable: leave the secret alone")
    } else if has_hidden(text) {
        Err("it begins or ends with a space, or has a character that is not seen: leave the secret alone")
    } else {
        Ok(())
    }
}

/// Whether a text may be another one than it looks.
fn has_hidden(text: &str) -> bool {
    text.trim() != text || text.chars().any(is_hidden)
}

/// Reads a duration as the documents write it: `500ms`, `3s`, `2m`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}

/// Reads 64 hexadecimal digits.
#[must_use]
pub fn parse_peer(text: &str) -> Option<PeerId> {
    if text.len() != 64 {
        return None;
    }
    let mut peer = [0; 32];
    for (byte, digits) in peer.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = digits else { return None };
        let high = char::from(*high).to_digit(16)?;
        let low = char::from(*low).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(PeerId(peer))
}

/// Reads the `peer=` value that a node prints at its start, or a bare peer id.
///
/// # Errors
/// With the sentence that says what to write.
pub fn parse_peer_address(text: &str) -> Result<PeerAddress, String> {
    let text = text.strip_prefix("peer=").unwrap_or(text);
    let (peer, address) = match text.split_once('@') {
        Some((peer, address)) => (peer, Some(address)),
        None => (text, None),
    };
    let Some(peer) = parse_peer(peer) else {
        return Err("the peer= value that another node prints at its start: 64 hexadecimal digits, \
                    or those followed by @host:port"
            .to_owned());
    };
    let address = match address {
        None => None,
        Some(address) => Some(parse_address(address).ok_or_else(|| {
            format!("the peer= value that another node prints at its start: {}…@host:port", peer.short())
        })?),
    };
    Ok(PeerAddress { peer, address })
}

/// Reads `host:port`.
#[must_use]
pub fn parse_address(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let port_is_plain = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let host_is_plain = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_[]:%".contains(&byte))
        && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'));
    let fits = text.len() <= ADDRESS_LEN_MAX && port.parse::<u16>().is_ok();
    (port_is_plain && host_is_plain && fits).then(|| Address(text.to_owned()))
}

/// The longest address: a DNS name has at most 253 characters, but none that is used for servers comes near.
pub const ADDRESS_LEN_MAX: usize = 200;

/// Whether an address means every interface of the machine.
#[must_use]
pub fn is_wildcard(address: &Address) -> bool {
    let Some((host, _)) = address.0.rsplit_once(':') else { return false };
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<core::net::IpAddr>();
    host == "*" || ip.is_ok_and(|ip| ip.to_canonical().is_unspecified())
}

/// Whether a character does something else than stand there: it cannot be seen, or changes what others look like.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        // Soft hyphens and fillers, line and paragraph separators, what turns the direction of writing, and what has no
        // width.
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Whether a text has the form of a variable's name, and no more: it may be repeated without repeating a secret that
/// stands where a name belongs.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// The longest name of a variable that is repeated.
const NAME_LEN_MAX: usize = 40;

/// The longest value that is repeated where it is not understood: what is longer may be a secret in the wrong place.
const VALUE_LEN_MAX: usize = 32;

/// Whether a value may be repeated: it can be seen, and no other variable slipped into it.
#[must_use]
pub fn is_plain_value(value: &str) -> bool {
    !value.is_empty() && !value.contains("ZIPNET_") && !value.chars().any(is_hidden)
}

/// Whether an address leaves the port to the system.
fn has_no_port(address: &Address) -> bool {
    address.0.rsplit_once(':').is_some_and(|(_, port)| port.parse() == Ok(0_u16))
}

/// Something that works but that an operator should know. Its text is the sentence that operators read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The node secret is short.
    ShortSecret,
    /// The committee secret is short.
    ShortCommitteeSecret,
    /// Rounds with one participant are allowed.
    NoAnonymity {
        /// `ZIPNET_MIN_PARTICIPANTS`.
        min_participants: u32,
    },
    /// Any aggregator will do.
    AnyAggregator,
    /// An aggregator is told of no server.
    NobodyToBelieve,
    /// A client pins no server.
    NoPins,
    /// A reader pins no server.
    NoPinsToRead,
    /// The metrics are offered to everyone.
    MetricsOnWildcard {
        /// `ZIPNET_METRICS`.
        address: Address,
    },
    /// A variable that this role does not read.
    Unused {
        /// Its name.
        variable: &'static str,
        /// Of the node.
        role: Role,
    },
    /// A variable that a reader does not read.
    UnusedByReader {
        /// Its name.
        variable: &'static str,
    },
    /// A server's first round does not wait for three voters.
    FewFirstVoters {
        /// `ZIPNET_FIRST_VOTERS`.
        first_voters: u32,
    },
    /// A new log is started on request.
    NewLog,
    /// A name or secret that can be written in two ways which look the same.
    NotAscii {
        /// The variable.
        variable: &'static str,
    },
    /// A node is told to start from itself.
    OwnBootstrap,
    /// Rounds are given up sooner than the next one is opened.
    PeriodAboveDeadline {
        /// `ZIPNET_ROUND_PERIOD`.
        period: Duration,
        /// `ZIPNET_ROUND_DEADLINE`.
        deadline: Duration,
    },
    /// A time that is too short for messages to go there and back.
    ShortTime {
        /// The variable.
        variable: &'static str,
        /// Its value.
        time: Duration,
    },
    /// More servers are asked for than there can be.
    FloorTooHigh {
        /// The variable.
        variable: &'static str,
        /// Its value.
        floor: u32,
        /// The most there can be.
        most: u32,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortSecret => f.write_str(
                "ZIPNET_SECRET is short: whoever guesses it is this node; use 64 random hexadecimal digits",
            ),
            Self::ShortCommitteeSecret => f.write_str(
                "ZIPNET_COMMITTEE_SECRET is short: whoever guesses it joins the committee; use 64 random hexadecimal digits",
            ),
            Self::NoAnonymity { min_participants } => write!(
                f,
                "ZIPNET_MIN_PARTICIPANTS={min_participants}: a round with one participant has no anonymity; set it to at least 2"
            ),
            Self::AnyAggregator => f.write_str(
                "ZIPNET_AGGREGATOR is not set: the first aggregator seen is approved, and it chooses who takes part",
            ),
            Self::NobodyToBelieve => f.write_str(
                "neither ZIPNET_SERVERS nor ZIPNET_BOOTSTRAP is set: at its first start this aggregator believes the first servers that it meets",
            ),
            Self::NoPins => f.write_str(
                "ZIPNET_SERVERS is not set: this client's anonymity rests on the network's word about who the servers are",
            ),
            Self::NoPinsToRead => f.write_str(
                "ZIPNET_SERVERS is not set: this reader believes the first roster that it sees",
            ),
            Self::UnusedByReader { variable } => write!(f, "{variable} has no effect on a reader"),
            Self::MetricsOnWildcard { address } => write!(
                f,
                "ZIPNET_METRICS={address} listens on every interface: bind it to an address that only your monitoring reaches"
            ),
            Self::Unused { variable: SERVERS, role: Role::Server } => f.write_str(
                "ZIPNET_SERVERS has no effect on a server: it says which servers a client's rounds must have; who may be a \
                 server is said by ZIPNET_ALLOWED_SERVERS",
            ),
            Self::Unused { variable, role } => {
                write!(f, "{variable} has no effect on {}", role_with_article(*role))
            }
            Self::FewFirstVoters { first_voters } => write!(
                f,
                "ZIPNET_FIRST_VOTERS={first_voters}: a committee of fewer than 3 servers stops when one of them stops"
            ),
            Self::NewLog => f.write_str(
                "ZIPNET_NEW_LOG is set: this server starts a log and yields to no other; older state is set aside",
            ),
            Self::NotAscii { variable } => write!(
                f,
                "{variable} has letters beyond ASCII: some can be written in two ways that look the same, and are not"
            ),
            Self::OwnBootstrap => f.write_str(
                "ZIPNET_BOOTSTRAP names this node itself: nobody is met there; name other nodes only",
            ),
            Self::PeriodAboveDeadline { period, deadline } => write!(
                f,
                "ZIPNET_ROUND_PERIOD is {} ms and ZIPNET_ROUND_DEADLINE only {} ms: a deadline is usually some periods; \
                 see that the two are not interchanged",
                period.as_millis(),
                deadline.as_millis()
            ),
            Self::ShortTime { variable, time } => write!(
                f,
                "{variable} is {} ms: messages hardly go there and back in that time; set it to at least {} ms",
                time.as_millis(),
                TIME_USUAL.as_millis()
            ),
            Self::FloorTooHigh { variable, floor, most } => write!(
                f,
                "{variable}={floor}: there are at most {most}, so there will be no round"
            ),
        }
    }
}

/// A mistake in the configuration. Its text names the variable and what to write, and never repeats a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A required variable is not set.
    Missing {
        /// Its name.
        variable: &'static str,
        /// Of the node.
        role: Role,
    },
    /// No variable has this name.
    Unknown {
        /// As it was written.
        variable: String,
        /// The name that is closest to it.
        nearest: &'static str,
    },
    /// A value that cannot be read.
    Invalid {
        /// The variable.
        variable: &'static str,
        /// What it was set to.
        value: String,
        /// What it should be.
        expected: String,
    },
    /// The committee secret belongs to servers only.
    SecretForOtherRole {
        /// The variable.
        variable: &'static str,
        /// Of the node.
        role: Role,
    },
    /// A variable that is no text.
    NoText {
        /// Its name, as far as that is one.
        variable: String,
    },
    /// A name or secret that does not look like what it is.
    Hidden {
        /// The variable.
        variable: &'static str,
    },
    /// A message does not fit into a slot.
    MessageTooLong {
        /// Bytes of the message.
        len: usize,
        /// Bytes of a payload.
        len_max: usize,
    },
    /// A variable and its file are both set.
    Twice {
        /// The variable.
        variable: &'static str,
        /// Its `…_FILE`.
        file: &'static str,
    },
    /// A file could not be read.
    Unreadable {
        /// The `…_FILE` variable.
        file: &'static str,
        /// What it was set to.
        path: String,
        /// What the file system said.
        why: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { variable, role } => {
                write!(f, "{variable} is not set: {} requires it", role_with_article(*role))
            }
            Self::Unknown { variable, nearest } if is_plain_name(variable) => {
                write!(f, "{variable} is not a variable of zipnet: did you mean {nearest}?")
            }
            Self::Unknown { nearest, .. } => {
                write!(
                    f,
                    "a variable like {nearest} is not a variable of zipnet: write {nearest} if you mean that"
                )
            }
            Self::Invalid { variable, value, expected }
                if is_plain_value(value) && value.len() <= VALUE_LEN_MAX =>
            {
                write!(f, "{variable}={value} is not understood: write {expected}")
            }
            Self::Invalid { variable, expected, .. } => {
                write!(f, "{variable} is not understood: write {expected}")
            }
            Self::NoText { variable } if is_plain_name(variable) => {
                write!(f, "{variable} is not UTF-8: write it as text")
            }
            Self::NoText { variable } => {
                write!(f, "a variable like {} is not UTF-8: write it as text", nearest(variable))
            }
            Self::Hidden { variable } => write!(
                f,
                "{variable} begins or ends with a space, or has a character that is not seen: what looks the same would be \
                 something else; write it without"
            ),
            Self::SecretForOtherRole { variable, role } => write!(
                f,
                "{variable} was given to {}: only committee servers may hold it; remove it from this machine",
                role_with_article(*role)
            ),
            Self::MessageTooLong { len, len_max } => {
                write!(f, "ZIPNET_MESSAGE has {len} bytes: a payload holds at most {len_max}")
            }
            Self::Twice { variable, file } => {
                write!(f, "{variable} and {file} are both set: set one of them")
            }
            Self::Unreadable { file, path, why } if is_path(path) => {
                write!(f, "{file}={path} cannot be read: {why}")
            }
            Self::Unreadable { file, why, .. } => write!(
                f,
                "{file} cannot be read: {why}; it is not repeated, for it may be a secret: write the path of a file, from / on"
            ),
        }
    }
}

impl core::error::Error for ConfigError {}

impl ConfigError {
    /// The variable that is wrong, if it is one of this table.
    #[must_use]
    pub const fn variable(&self) -> Option<&'static str> {
        match self {
            Self::Missing { variable, .. }
            | Self::Invalid { variable, .. }
            | Self::SecretForOtherRole { variable, .. }
            | Self::Hidden { variable }
            | Self::Twice { variable, .. }
            | Self::Unreadable { file: variable, .. } => Some(variable),
            Self::MessageTooLong { .. } => Some(MESSAGE),
            Self::Unknown { .. } | Self::NoText { .. } => None,
        }
    }
}

/// Whether a text is the path of a file, rather than a secret that stands where its file belongs.
#[must_use]
pub fn is_path(text: &str) -> bool {
    ["/", "./", "../"].iter().any(|start| text.starts_with(start)) && is_plain_value(text)
}

/// The variable whose name is closest to what was written.
fn nearest(written: &str) -> &'static str {
    let nearest = VARIABLES.iter().min_by_key(|(variable, _)| distance(variable, written));
    nearest.map_or(INSTANCE, |(variable, _)| variable)
}

const fn role_with_article(role: Role) -> &'static str {
    match role {
        Role::Server => "a server",
        Role::Aggregator => "the aggregator",
        Role::Client => "a client",
    }
}

const INSTANCE: &str = "ZIPNET_INSTANCE";
const UNIVERSE_VARIABLE: &str = "ZIPNET_UNIVERSE";
const SECRET: &str = "ZIPNET_SECRET";
const SECRET_FILE: &str = "ZIPNET_SECRET_FILE";
const COMMITTEE_SECRET: &str = "ZIPNET_COMMITTEE_SECRET";
const COMMITTEE_SECRET_FILE: &str = "ZIPNET_COMMITTEE_SECRET_FILE";
const BOOTSTRAP: &str = "ZIPNET_BOOTSTRAP";
const LISTEN: &str = "ZIPNET_LISTEN";
const ADVERTISE: &str = "ZIPNET_ADVERTISE";
const STATE_DIR: &str = "ZIPNET_STATE_DIR";
const MIN_PARTICIPANTS: &str = "ZIPNET_MIN_PARTICIPANTS";
const MIN_SERVERS: &str = "ZIPNET_MIN_SERVERS";
const AGGREGATOR: &str = "ZIPNET_AGGREGATOR";
const SERVERS: &str = "ZIPNET_SERVERS";
const ALLOWED_SERVERS: &str = "ZIPNET_ALLOWED_SERVERS";
const ROUND_PERIOD: &str = "ZIPNET_ROUND_PERIOD";
const ROUND_DEADLINE: &str = "ZIPNET_ROUND_DEADLINE";
const FOLD_DEADLINE: &str = "ZIPNET_FOLD_DEADLINE";
const ANNOUNCE_INTERVAL: &str = "ZIPNET_ANNOUNCE_INTERVAL";
const MESSAGE: &str = "ZIPNET_MESSAGE";
const CADENCE: &str = "ZIPNET_CADENCE";
const STRANGERS_MAX: &str = "ZIPNET_STRANGERS_MAX";
const METRICS: &str = "ZIPNET_METRICS";
const FORMAT: &str = "ZIPNET_FORMAT";
const FIRST_VOTERS: &str = "ZIPNET_FIRST_VOTERS";
const NEW_LOG: &str = "ZIPNET_NEW_LOG";
const RUST_LOG: &str = "RUST_LOG";

/// Every variable, and the roles that read it.
pub const VARIABLES: &[(&str, &[Role])] = &[
    (INSTANCE, ALL),
    (UNIVERSE_VARIABLE, ALL),
    (SECRET, ALL),
    (SECRET_FILE, ALL),
    (COMMITTEE_SECRET, SERVER),
    (COMMITTEE_SECRET_FILE, SERVER),
    (BOOTSTRAP, ALL),
    (LISTEN, ALL),
    (ADVERTISE, ALL),
    (STATE_DIR, ALL),
    (MIN_PARTICIPANTS, SERVER),
    (MIN_SERVERS, &[Role::Server, Role::Client]),
    (AGGREGATOR, SERVER),
    (SERVERS, &[Role::Aggregator, Role::Client]),
    (ALLOWED_SERVERS, SERVER),
    (ROUND_PERIOD, SERVER),
    (ROUND_DEADLINE, SERVER),
    (FOLD_DEADLINE, &[Role::Aggregator]),
    (ANNOUNCE_INTERVAL, ALL),
    (MESSAGE, CLIENT),
    (CADENCE, CLIENT),
    (STRANGERS_MAX, &[Role::Server, Role::Aggregator]),
    (METRICS, ALL),
    (FORMAT, ALL),
    (FIRST_VOTERS, SERVER),
    (NEW_LOG, SERVER),
];

const ALL: &[Role] = &[Role::Server, Role::Aggregator, Role::Client];
const SERVER: &[Role] = &[Role::Server];
const CLIENT: &[Role] = &[Role::Client];

/// The longest time that can be set.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Times below it are warned about.
const TIME_USUAL: Duration = Duration::from_millis(50);
/// The most servers of a committee.
#[expect(clippy::cast_possible_truncation, reason = "a few hundred")]
const SERVERS_MOST: u32 = SERVERS_MAX as u32;

/// Collects mistakes and warnings while the values are read.
struct Reader<'a> {
    role: Role,
    env: &'a BTreeMap<String, String>,
    errors: Vec<ConfigError>,
    warnings: Vec<Warning>,
}

impl<'a> Reader<'a> {
    /// Looks at every name that is set: unknown ones, and those of other roles.
    fn names(&mut self) {
        for (name, value) in self.env {
            if !name.starts_with("ZIPNET_") || value.is_empty() {
                continue;
            }
            let Some((variable, roles)) = VARIABLES.iter().find(|(variable, _)| variable == name) else {
                self.errors.push(ConfigError::Unknown { variable: name.clone(), nearest: nearest(name) });
                continue;
            };
            if roles.contains(&self.role) {
                continue;
            }
            if [COMMITTEE_SECRET, COMMITTEE_SECRET_FILE].contains(variable) {
                self.errors.push(ConfigError::SecretForOtherRole { variable, role: self.role });
            } else {
                self.warnings.push(Warning::Unused { variable, role: self.role });
            }
        }
    }

    fn text(&self, variable: &'static str) -> Option<&'a str> {
        self.env.get(variable).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Refuses what may be another text than it looks, and warns of what may be written in two ways.
    fn seen(&mut self, variable: &'static str) {
        let Some(text) = self.text(variable) else { return };
        if has_hidden(text) {
            self.errors.push(ConfigError::Hidden { variable });
        } else if !text.is_ascii() {
            self.warnings.push(Warning::NotAscii { variable });
        }
    }

    fn required(&mut self, variable: &'static str) -> Option<&'a str> {
        let value = self.text(variable);
        if value.is_none() {
            self.errors.push(ConfigError::Missing { variable, role: self.role });
        }
        value
    }

    fn refuse(&mut self, variable: &'static str, expected: String) {
        let value = self.text(variable).unwrap_or_default().to_owned();
        self.errors.push(ConfigError::Invalid { variable, value, expected });
    }

    /// Texts are stretched for the instance, so that there is no secret without one.
    fn secret(&mut self, instance: Option<&Instance>) -> Option<Arc<NodeSecret>> {
        let text = match self.role {
            Role::Server | Role::Aggregator => self.required(SECRET),
            Role::Client => self.text(SECRET),
        }?;
        self.seen(SECRET);
        if NodeSecret::is_short(text) {
            self.warnings.push(Warning::ShortSecret);
        }
        // Stretching costs time, and a node with mistakes does not start.
        let instance = instance.filter(|_| self.errors.is_empty())?;
        Some(Arc::new(NodeSecret::from_text(text, instance)))
    }

    fn server(&mut self, instance: Option<&Instance>) -> Option<ServerPart> {
        let committee_secret = self.required(COMMITTEE_SECRET);
        self.seen(COMMITTEE_SECRET);
        if committee_secret.is_some_and(CommitteeSecret::weak) {
            self.warnings.push(Warning::ShortCommitteeSecret);
        }
        let participants = self.floor(MIN_PARTICIPANTS, CLIENTS_MAX).unwrap_or(1);
        if participants < 2 {
            self.warnings.push(Warning::NoAnonymity { min_participants: participants });
        }
        let servers = self.floor(MIN_SERVERS, SERVERS_MOST);
        let aggregator = self.text(AGGREGATOR).and_then(|text| match parse_peer_address(text) {
            Ok(peer) => Some(peer.peer),
            Err(expected) => {
                self.refuse(AGGREGATOR, expected);
                None
            }
        });
        if self.text(AGGREGATOR).is_none() {
            self.warnings.push(Warning::AnyAggregator);
        }
        let round_period = self.duration(ROUND_PERIOD, Duration::from_secs(3));
        let round_deadline = self.duration(ROUND_DEADLINE, Duration::from_secs(15));
        if round_period > round_deadline {
            self.warnings
                .push(Warning::PeriodAboveDeadline { period: round_period, deadline: round_deadline });
        }
        let first_voters = self.floor(FIRST_VOTERS, SERVERS_MOST).unwrap_or(3);
        if first_voters < 3 {
            self.warnings.push(Warning::FewFirstVoters { first_voters });
        }
        let new_log = match self.text(NEW_LOG) {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(_) => {
                self.refuse(NEW_LOG, "true or false".to_owned());
                false
            }
        };
        if new_log {
            self.warnings.push(Warning::NewLog);
        }
        let allowed = self.text(ALLOWED_SERVERS).is_some().then(|| self.peers(ALLOWED_SERVERS));
        let allowed = allowed.map(|peers| peers.into_iter().map(|peer| peer.peer).collect());
        Some(ServerPart {
            allowed,
            // Stretching costs time, and a node with mistakes does not start.
            committee_secret: match (committee_secret, instance) {
                (Some(text), Some(instance)) if self.errors.is_empty() => {
                    Arc::new(CommitteeSecret::from_text(text, instance))
                }
                _ => return None,
            },
            floors: Floors { participants, servers },
            aggregator,
            round_period,
            round_deadline,
            first_voters,
            new_log,
        })
    }

    fn client(&mut self, params: &RoundParams) -> ClientPart {
        let pins: BTreeSet<_> = self.peers(SERVERS).into_iter().map(|pin| pin.peer).collect();
        if self.text(SERVERS).is_none() {
            self.warnings.push(Warning::NoPins);
        }
        let message = self.text(MESSAGE).map(str::to_owned);
        if let Some(len) = message.as_ref().map(String::len)
            && len > params.payload_bytes()
        {
            self.errors.push(ConfigError::MessageTooLong { len, len_max: params.payload_bytes() });
        }
        ClientPart {
            pins,
            min_servers: self.floor(MIN_SERVERS, SERVERS_MOST),
            message,
            cadence: self.number(CADENCE).unwrap_or(1),
        }
    }

    fn duration(&mut self, variable: &'static str, default: Duration) -> Duration {
        let Some(text) = self.text(variable) else { return default };
        match parse_duration(text) {
            Some(duration) if !duration.is_zero() && duration <= TIME_MAX => {
                if duration < TIME_USUAL {
                    self.warnings.push(Warning::ShortTime { variable, time: duration });
                }
                duration
            }
            Some(_) | None => {
                let expected = "a duration above zero like 500ms, 3s or 2m, up to a day (1440m)";
                self.refuse(variable, expected.to_owned());
                default
            }
        }
    }

    /// A number of servers or participants.
    fn floor(&mut self, variable: &'static str, most: u32) -> Option<u32> {
        let floor = self.number(variable)?;
        if floor > most {
            self.warnings.push(Warning::FloorTooHigh { variable, floor, most });
        }
        Some(floor)
    }

    fn number(&mut self, variable: &'static str) -> Option<u32> {
        let text = self.text(variable)?;
        match text.parse() {
            Ok(number) if number > 0 => Some(number),
            Ok(_) | Err(_) => {
                self.refuse(variable, "a whole number above zero".to_owned());
                None
            }
        }
    }

    fn address(&mut self, variable: &'static str) -> Option<Address> {
        let address = parse_address(self.text(variable)?);
        if address.is_none() {
            self.refuse(variable, "an address and a port like 10.0.0.7:4000".to_owned());
        }
        address
    }

    fn peers(&mut self, variable: &'static str) -> Vec<PeerAddress> {
        let Some(text) = self.text(variable) else { return Vec::new() };
        let mut peers = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match parse_peer_address(item) {
                Ok(peer) => peers.push(peer),
                Err(expected) => {
                    self.errors.push(ConfigError::Invalid { variable, value: item.to_owned(), expected });
                }
            }
        }
        peers
    }
}

/// How many letters must be put, dropped or replaced to make one text out of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(b.bytes()) {
            let above = *cell;
            *cell = (before + 1).min(above + 1).min(diagonal + usize::from(left != right));
            diagonal = above;
            before = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn build() -> Build {
        Build::CURRENT
    }

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn server(more: &[(&str, &str)]) -> Result<(Config, Vec<Warning>), Vec<ConfigError>> {
        let mut all = env(&[(INSTANCE, "acme.mainnet"), (SECRET, HEX), (COMMITTEE_SECRET, HEX)]);
        all.extend(env(more));
        Config::from_env(Role::Server, &all, build())
    }

    fn client(more: &[(&str, &str)]) -> Result<(Config, Vec<Warning>), Vec<ConfigError>> {
        let mut all = env(&[(INSTANCE, "acme.mainnet")]);
        all.extend(env(more));
        Config::from_env(Role::Client, &all, build())
    }

    fn sentences<T: fmt::Display>(all: &[T]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_text_is_another_secret_in_another_instance_and_digits_are_not() {
        let secrets = |instance: &str, text: &str| {
            let (config, _) =
                server(&[(INSTANCE, instance), (SECRET, text), (COMMITTEE_SECRET, text)]).expect("complete");
            let Part::Server(part) = config.part else { panic!("a server") };
            (config.secret.expect("it was set"), part.committee_secret)
        };
        let text = "a text that is long enough for no warning";
        let (here, there) = (secrets("acme.here", text), secrets("acme.there", text));
        assert!(here.0 != there.0 && here.1 != there.1);
        assert_eq!(secrets("acme.here", HEX), secrets("acme.there", HEX));
        // Without an instance there is no secret, and the instance is what is asked for.
        let errors = server(&[(INSTANCE, ""), (SECRET, text)]).expect_err("no instance");
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["ZIPNET_INSTANCE is not set: a server requires it"]
        );
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let (config, warnings) = server(&[]).expect("complete");
        assert_eq!(config.role(), Role::Server);
        assert_eq!(config.universe, UNIVERSE);
        assert_eq!(config.listen.0, "0.0.0.0:0");
        assert_eq!(config.announce_interval, Duration::from_secs(15));
        assert_eq!(config.metrics, None);
        assert_eq!(config.log_filter, "info");
        let Part::Server(part) = &config.part else { panic!("a server has a server's part") };
        assert_eq!(part.floors, Floors { participants: 1, servers: None });
        assert_eq!(part.round_period, Duration::from_secs(3));
        assert_eq!(part.round_deadline, Duration::from_secs(15));
        assert_eq!((part.first_voters, part.new_log), (3, false));
        assert_eq!(warnings, [Warning::NoAnonymity { min_participants: 1 }, Warning::AnyAggregator]);

        let mut all = env(&[(INSTANCE, "acme.mainnet"), (SECRET, HEX)]);
        let (config, warnings) = Config::from_env(Role::Aggregator, &all, build()).expect("complete");
        let Part::Aggregator(part) = config.part else { panic!("an aggregator has its part") };
        assert_eq!((part.fold_deadline, part.pins.len()), (Duration::from_secs(2), 0));
        assert_eq!(warnings, [Warning::NobodyToBelieve]);

        all.remove(SECRET);
        let (config, warnings) = Config::from_env(Role::Client, &all, build()).expect("complete");
        assert!(config.secret.is_none());
        let Part::Client(part) = config.part else { panic!("a client has its part") };
        assert_eq!((part.cadence, part.message, part.min_servers), (1, None, None));
        assert_eq!(warnings, [Warning::NoPins]);
    }

    #[test]
    fn documented_one_shot_command_is_read() {
        let (config, warnings) = server(&[
            (COMMITTEE_SECRET, "your-committee-secret"),
            (SECRET, "stable-node-seed"),
            (MIN_PARTICIPANTS, "2"),
            (ROUND_PERIOD, "500ms"),
            (ROUND_DEADLINE, "2m"),
            (BOOTSTRAP, &format!("{HEX}@10.0.0.7:4000, peer={HEX}@[::1]:7,{HEX}")),
        ])
        .expect("complete");
        let Part::Server(part) = &config.part else { panic!("a server has a server's part") };
        assert_eq!(part.floors.participants, 2);
        assert_eq!(part.round_period, Duration::from_millis(500));
        assert_eq!(part.round_deadline, Duration::from_secs(120));
        let addresses: Vec<_> = config.bootstrap.iter().map(|peer| peer.address.clone()).collect();
        assert_eq!(
            addresses,
            [Some(Address("10.0.0.7:4000".to_owned())), Some(Address("[::1]:7".to_owned())), None]
        );
        assert!(!warnings.contains(&Warning::NoAnonymity { min_participants: 2 }));
    }

    #[test]
    fn who_may_be_a_server_is_read_from_its_own_variable() {
        let (config, _) = server(&[]).expect("complete");
        let Part::Server(part) = config.part else { panic!("a server has a server's part") };
        assert_eq!(part.allowed, None);
        let other = HEX.replace('0', "9");
        let (config, _) =
            server(&[(ALLOWED_SERVERS, &format!("{HEX}@10.0.0.7:4000,{other}"))]).expect("complete");
        let Part::Server(part) = config.part else { panic!("a server has a server's part") };
        let expected: BTreeSet<_> = [HEX, &other].map(|hex| parse_peer(hex).expect("64 digits")).into();
        assert_eq!(part.allowed, Some(expected));
        assert!(server(&[(ALLOWED_SERVERS, "server-1")]).is_err(), "a mistake does not leave the door open");

        let (config, warnings) = server(&[(SERVERS, HEX)]).expect("complete");
        let Part::Server(part) = config.part else { panic!("a server has a server's part") };
        assert_eq!(part.allowed, None, "a client's list means something else");
        assert!(sentences(&warnings)[0].ends_with("is said by ZIPNET_ALLOWED_SERVERS"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let errors = Config::from_env(Role::Server, &BTreeMap::new(), build()).expect_err("nothing is set");
        assert_eq!(
            sentences(&errors),
            [
                "ZIPNET_INSTANCE is not set: a server requires it",
                "ZIPNET_SECRET is not set: a server requires it",
                "ZIPNET_COMMITTEE_SECRET is not set: a server requires it",
            ]
        );
        let errors = client(&[(INSTANCE, "")]).expect_err("an empty value counts as unset");
        assert_eq!(sentences(&errors), ["ZIPNET_INSTANCE is not set: a client requires it"]);
    }

    #[test]
    fn misspelt_variables_name_the_nearest() {
        let errors = server(&[("ZIPNET_MIN_PARTICIPANT", "2"), ("ZIPNET_ROUND_PERIODE", "3s")]);
        assert_eq!(
            sentences(&errors.expect_err("two are misspelt")),
            [
                "ZIPNET_MIN_PARTICIPANT is not a variable of zipnet: did you mean ZIPNET_MIN_PARTICIPANTS?",
                "ZIPNET_ROUND_PERIODE is not a variable of zipnet: did you mean ZIPNET_ROUND_PERIOD?",
            ]
        );
    }

    #[test]
    fn committee_secret_is_refused_elsewhere_and_never_repeated() {
        let errors = client(&[(COMMITTEE_SECRET, "hunter2")]).expect_err("it belongs to servers");
        assert_eq!(
            sentences(&errors),
            ["ZIPNET_COMMITTEE_SECRET was given to a client: only committee servers may hold it; \
              remove it from this machine"]
        );
        let (config, _) = server(&[]).expect("complete");
        assert!(!format!("{config:?}").contains(&HEX[..16]));
    }

    #[test]
    fn values_that_can_not_be_read_say_what_to_write() {
        for (variable, value) in [
            (ROUND_PERIOD, "3"),
            (ROUND_PERIOD, "0s"),
            (ROUND_PERIOD, "3 s"),
            (ROUND_PERIOD, "-3s"),
            (ROUND_DEADLINE, "1h"),
            (ROUND_DEADLINE, "99999999999999999999s"),
            (ROUND_DEADLINE, "999999999999999999m"),
            (ROUND_PERIOD, "99999999999999999m"),
            (FIRST_VOTERS, "4294967296"),
            (ANNOUNCE_INTERVAL, "1441m"),
            (ADVERTISE, "0.0.0.0:0"),
            (ADVERTISE, "0.0.0.0:4000"),
            (ADVERTISE, "10.0.0.7:0"),
            (ADVERTISE, "[::0]:4000"),
            (ADVERTISE, "[::ffff:0.0.0.0]:4000"),
            (MIN_PARTICIPANTS, "0"),
            (MIN_PARTICIPANTS, "many"),
            (MIN_SERVERS, "-1"),
            (AGGREGATOR, "f5e28a69e6"),
            (BOOTSTRAP, "10.0.0.7:4000"),
            (BOOTSTRAP, "f5e28a69e6@10.0.0.7:4000"),
            (METRICS, "9100"),
            (METRICS, "host:port"),
            (LISTEN, "::1:80"),
            (NEW_LOG, "maybe"),
            (FORMAT, "xml"),
            (UNIVERSE_VARIABLE, "two words"),
        ] {
            let errors = server(&[(variable, value)]).expect_err(value);
            assert_eq!(errors.len(), 1, "{variable}={value}: {errors:?}");
            assert_eq!(errors[0].variable(), Some(variable));
            let sentence = errors[0].to_string();
            assert!(
                sentence.starts_with(&format!("{variable}={value} is not understood: write ")),
                "{sentence}"
            );
        }
        let errors = server(&[(BOOTSTRAP, &format!("{HEX}@nowhere"))]).expect_err("no port");
        assert!(errors[0].to_string().ends_with("0011223344…@host:port"), "{}", errors[0]);
        let errors = client(&[(MESSAGE, &"x".repeat(241))]).expect_err("too long");
        assert_eq!(sentences(&errors), ["ZIPNET_MESSAGE has 241 bytes: a payload holds at most 240"]);
    }

    #[test]
    fn warnings_are_the_sentences_that_operators_read() {
        let (_, warnings) = server(&[
            (SECRET, "x"),
            (COMMITTEE_SECRET, "y"),
            (METRICS, "0.0.0.0:9100"),
            (MESSAGE, "hello"),
            (FIRST_VOTERS, "1"),
            (NEW_LOG, "true"),
        ])
        .expect("complete");
        assert_eq!(
            sentences(&warnings),
            [
                "ZIPNET_MESSAGE has no effect on a server",
                "ZIPNET_SECRET is short: whoever guesses it is this node; use 64 random hexadecimal digits",
                "ZIPNET_METRICS=0.0.0.0:9100 listens on every interface: bind it to an address that only your \
                 monitoring reaches",
                "ZIPNET_COMMITTEE_SECRET is short: whoever guesses it joins the committee; use 64 random \
                 hexadecimal digits",
                "ZIPNET_MIN_PARTICIPANTS=1: a round with one participant has no anonymity; set it to at least 2",
                "ZIPNET_AGGREGATOR is not set: the first aggregator seen is approved, and it chooses who takes part",
                "ZIPNET_FIRST_VOTERS=1: a committee of fewer than 3 servers stops when one of them stops",
                "ZIPNET_NEW_LOG is set: this server starts a log and yields to no other; older state is set aside",
            ]
        );
    }

    #[test]
    fn a_reader_reads_the_variables_of_a_client_that_concern_it() {
        let all = env(&[(INSTANCE, "acme.mainnet"), (MIN_SERVERS, "2"), (MESSAGE, "hello"), (CADENCE, "2")]);
        let (config, warnings) = Config::reader_from_env(&all, build()).expect("complete");
        assert_eq!((config.role(), config.secret.is_none()), (Role::Client, true));
        let Part::Reader(part) = &config.part else { panic!("a reader has its part") };
        assert_eq!((part.pins.len(), part.min_servers, part.from), (0, Some(2), None));
        assert_eq!(
            sentences(&warnings),
            [
                "ZIPNET_SERVERS is not set: this reader believes the first roster that it sees",
                "ZIPNET_MESSAGE has no effect on a reader",
                "ZIPNET_CADENCE has no effect on a reader",
            ]
        );
        let (config, warnings) =
            Config::reader_from_env(&env(&[(INSTANCE, "acme.mainnet"), (SERVERS, HEX)]), build())
                .expect("complete");
        let Part::Reader(part) = &config.part else { panic!("a reader has its part") };
        assert_eq!((part.pins.len(), warnings), (1, vec![]));
    }

    #[test]
    fn files_stand_in_for_their_variables() {
        let mut all = env(&[(SECRET_FILE, "/run/secret"), (INSTANCE, "acme.mainnet")]);
        read_files(&mut all, |path| Ok(format!("content of {path}\n"))).expect("readable");
        assert_eq!(all, env(&[(SECRET, "content of /run/secret"), (INSTANCE, "acme.mainnet")]));

        let mut all = env(&[(SECRET_FILE, "/run/secret"), (SECRET, "x")]);
        let errors = read_files(&mut all, |_| Ok(String::new())).expect_err("set twice");
        assert_eq!(
            sentences(&errors),
            ["ZIPNET_SECRET and ZIPNET_SECRET_FILE are both set: set one of them"]
        );

        let mut all = env(&[(COMMITTEE_SECRET_FILE, "/run/secret")]);
        let errors = read_files(&mut all, |_| Err("no such file".to_owned())).expect_err("unreadable");
        assert_eq!(
            sentences(&errors),
            ["ZIPNET_COMMITTEE_SECRET_FILE=/run/secret cannot be read: no such file"]
        );
    }

    #[test]
    fn what_looks_like_something_else_is_refused_or_warned_about() {
        for variable in [INSTANCE, SECRET, COMMITTEE_SECRET] {
            for value in
                ["acme.main ", " acme", "acme\u{200b}", "\u{feff}acme", "acme\u{ad}x", "a\ncme", "acme\u{a0}"]
            {
                let errors = server(&[(variable, value)]).expect_err(value);
                let said = sentences(&errors).join("\n");
                assert!(said.contains(variable) && !said.contains(value), "{variable}={value:?}: {said}");
            }
            for value in ["caf\u{e9}.acme", "cafe\u{301}.acme"] {
                let (_, warnings) = server(&[(variable, value)]).expect("it can be seen");
                assert!(warnings.contains(&Warning::NotAscii { variable }), "{warnings:?}");
            }
        }
        let errors = server(&[(UNIVERSE_VARIABLE, "mosaik\u{200b}")]).expect_err("not seen");
        assert!(!errors[0].to_string().contains('\u{200b}'));
    }

    #[test]
    fn a_file_holds_one_secret_and_nothing_that_is_not_seen() {
        for (text, why) in [
            ("\u{feff}zq7", "it begins with a byte order mark"),
            ("zq7\n\n", "it has several lines"),
            ("zq7\nzq8\n", "it has several lines"),
            ("", "it is empty"),
            ("\n", "it is empty"),
            ("zq7 \n", "it begins or ends with a space"),
            ("zq\u{0}7", "it begins or ends with a space"),
            ("ZIPNET_SECRET=zq7\n", "it begins with the name of a variable"),
        ] {
            let mut all = env(&[(SECRET_FILE, "/run/secret")]);
            let errors = read_files(&mut all, |_| Ok(text.to_owned())).expect_err(text);
            let said = errors[0].to_string();
            assert!(
                said.starts_with(&format!("ZIPNET_SECRET_FILE=/run/secret cannot be read: {why}")),
                "{said}"
            );
            assert!(!said.contains("zq"), "{said}");
        }
        for text in ["zq7", "zq7\n", "zq7\r\n", "zq 7\n"] {
            let mut all = env(&[(SECRET_FILE, "/run/secret")]);
            assert_eq!(read_files(&mut all, |_| Ok(text.to_owned())), Ok(()), "{text:?}");
        }
        let mut all = env(&[(SECRET_FILE, "zq7")]);
        let errors =
            read_files(&mut all, |_| Err("no such file".to_owned())).expect_err("it is the secret itself");
        assert!(!errors[0].to_string().contains("zq7"), "{}", errors[0]);
    }

    #[test]
    fn mistakes_repeat_no_variable_that_slipped_into_another() {
        let swallowed = format!("3s\n{SECRET}=zq7");
        for value in [&*swallowed, "3s ZIPNET_SECRET=zq7", "3s\x1b[2Jzq7"] {
            let errors = server(&[(ROUND_PERIOD, value)]).expect_err(value);
            let said = errors[0].to_string();
            assert!(said.starts_with("ZIPNET_ROUND_PERIOD is not understood: write "), "{said}");
        }
        let errors =
            server(&[("ZIPNET_SECRETzq7", "x"), ("ZIPNET_\x1b[2J", "x")]).expect_err("no such names");
        let said = sentences(&errors).join("\n");
        assert!(!said.contains("zq7") && !said.contains('\x1b'), "{said}");
    }

    #[test]
    fn values_that_hardly_work_are_warned_about() {
        let said = |more: &[(&str, &str)]| sentences(&server(more).expect("complete").1).join("\n");
        let usual = said(&[]);
        for (more, word) in [
            (
                &[(ROUND_PERIOD, "16s")] as &[_],
                "ZIPNET_ROUND_PERIOD is 16000 ms and ZIPNET_ROUND_DEADLINE only 15000 ms",
            ),
            (
                &[(ROUND_PERIOD, "1ms"), (ROUND_DEADLINE, "1ms")],
                "ZIPNET_ROUND_DEADLINE is 1 ms: messages hardly",
            ),
            (&[(MIN_SERVERS, "4294967295")], "ZIPNET_MIN_SERVERS=4294967295: there are at most 256"),
            (&[(MIN_PARTICIPANTS, "4294967295")], "ZIPNET_MIN_PARTICIPANTS=4294967295: there are at most"),
            (&[(FIRST_VOTERS, "257")], "ZIPNET_FIRST_VOTERS=257: there are at most 256"),
        ] {
            assert!(!usual.contains(word) && said(more).contains(word), "{}", said(more));
        }
        let me = Identity::from_secret(&NodeSecret::from_text(
            HEX,
            &Instance::new("acme.mainnet").expect("a name"),
        ));
        let word = "ZIPNET_BOOTSTRAP names this node itself";
        assert!(said(&[(BOOTSTRAP, &format!("{}@10.0.0.7:4000", me.peer()))]).contains(word));
        assert!(!said(&[(BOOTSTRAP, &format!("{HEX}@10.0.0.7:4000"))]).contains(word));
    }

    #[test]
    fn every_variable_is_documented() {
        let page = include_str!("../../../docs/operating.md");
        for (variable, _) in VARIABLES {
            assert!(page.contains(&format!("`{variable}`")), "{variable}");
        }
    }
}
