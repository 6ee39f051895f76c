//! The documented `ZIPNET_*` variables, and what each may hold in a scenario.

use std::collections::BTreeMap;

use toml::de::DeValue;

use crate::argument::{node, quoted};
use crate::body::{Argument, Shape};
use crate::diagnostic::Kind;
use crate::node::Role;
use crate::reader::{Reader, Value};
use crate::value::{NotSpan, Span};

/// What a variable holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Any text.
    Text,
    /// A secret; in a scenario `secret:<label>`, which stands for bytes that the engine derives from the label.
    Secret,
    /// A duration.
    Duration,
    /// A whole number.
    Count {
        /// The least one.
        min: u64,
        /// The greatest one.
        max: u64,
    },
    /// `true` or `false`.
    Flag,
    /// Peers, separated by commas; in a scenario the names of nodes.
    Nodes,
    /// Something that the engine sets for each node.
    Engine,
}

/// A variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Who reads it.
    pub roles: &'static [Role],
    /// What it holds.
    pub holds: Holds,
}

const ALL: &[Role] = &Role::ALL;
const SERVER: &[Role] = &[Role::Server];
const AGGREGATOR: &[Role] = &[Role::Aggregator];
const CLIENT: &[Role] = &[Role::Client];

/// Every documented variable.
pub const VARIABLES: &[Variable] = &[
    variable("ZIPNET_INSTANCE", ALL, Holds::Text),
    variable("ZIPNET_UNIVERSE", ALL, Holds::Text),
    variable("ZIPNET_SECRET", ALL, Holds::Secret),
    variable("ZIPNET_SECRET_FILE", ALL, Holds::Engine),
    variable("ZIPNET_COMMITTEE_SECRET", SERVER, Holds::Secret),
    variable("ZIPNET_COMMITTEE_SECRET_FILE", SERVER, Holds::Engine),
    variable("ZIPNET_BOOTSTRAP", ALL, Holds::Nodes),
    variable("ZIPNET_LISTEN", ALL, Holds::Engine),
    variable("ZIPNET_ADVERTISE", ALL, Holds::Engine),
    variable("ZIPNET_STATE_DIR", ALL, Holds::Engine),
    variable("ZIPNET_MIN_PARTICIPANTS", SERVER, Holds::Count { min: 1, max: 10_000 }),
    variable("ZIPNET_MIN_SERVERS", &[Role::Server, Role::Client], Holds::Count { min: 1, max: 64 }),
    variable("ZIPNET_AGGREGATOR", SERVER, Holds::Nodes),
    variable("ZIPNET_SERVERS", &[Role::Aggregator, Role::Client], Holds::Nodes),
    variable("ZIPNET_ALLOWED_SERVERS", SERVER, Holds::Nodes),
    variable("ZIPNET_ROUND_PERIOD", SERVER, Holds::Duration),
    variable("ZIPNET_ROUND_DEADLINE", SERVER, Holds::Duration),
    variable("ZIPNET_FOLD_DEADLINE", AGGREGATOR, Holds::Duration),
    variable("ZIPNET_ANNOUNCE_INTERVAL", ALL, Holds::Duration),
    variable("ZIPNET_MESSAGE", CLIENT, Holds::Text),
    variable("ZIPNET_CADENCE", CLIENT, Holds::Count { min: 1, max: 1_000_000 }),
    variable("ZIPNET_STRANGERS_MAX", &[Role::Server, Role::Aggregator], Holds::Count { min: 1, max: 12_288 }),
    variable("ZIPNET_METRICS", ALL, Holds::Engine),
    variable("ZIPNET_FORMAT", ALL, Holds::Engine),
    variable("ZIPNET_FIRST_VOTERS", SERVER, Holds::Count { min: 1, max: 64 }),
    variable("ZIPNET_NEW_LOG", SERVER, Holds::Flag),
    variable("RUST_LOG", ALL, Holds::Text),
];

const fn variable(name: &'static str, roles: &'static [Role], holds: Holds) -> Variable {
    Variable { name, roles, holds }
}

/// The variable with this name.
#[must_use]
pub fn variable_named(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

/// What stands behind a secret's value in a scenario.
pub const SECRET_PREFIX: &str = "secret:";

/// A value: a literal, or one of several that is drawn once for the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// A literal; the empty text takes the variable away.
    Fixed(String),
    /// A choice, never empty.
    Choice(Vec<String>),
}

impl Setting {
    /// The value. In a resolved scenario the only one; before that the first of the choice.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Fixed(text) => text,
            Self::Choice(texts) => texts.first().map_or("", String::as_str),
        }
    }

    /// Everything it can be.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        match self {
            Self::Fixed(text) => core::slice::from_ref(text),
            Self::Choice(texts) => texts,
        }
    }
}

/// Variables with their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env(pub BTreeMap<&'static str, Setting>);

impl Env {
    /// The value of a variable, if it is set here. See [`Setting::text`].
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Setting::text)
    }
}

impl Argument for Env {
    fn shape() -> Shape {
        Shape::Env
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        read(reader, value)
    }
    fn absent() -> Option<Self> {
        Some(Self(BTreeMap::new()))
    }
    fn resolve(&self, draw: &mut dyn FnMut(u64) -> u64) -> Self {
        resolve(self, draw)
    }
    fn write(&self) -> Option<String> {
        write(self)
    }
}

fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Env> {
    let DeValue::Table(table) = value.get_ref() else {
        reader.wrong_type(value, "a table of ZIPNET_* variables");
        return None;
    };
    let roles = reader.env_of.clone();
    let mut env = Env::default();
    let mut good = true;
    for (key, value) in table {
        let name: &str = key.get_ref();
        let allowed = |variable: &&Variable| roles.iter().any(|role| variable.roles.contains(role));
        let Some(variable) = variable_named(name) else {
            if name.contains("SECRET") {
                reader.conceal(value.span());
            }
            let known: Vec<&str> = VARIABLES.iter().filter(allowed).map(|variable| variable.name).collect();
            let suggestion = crate::diagnostic::nearest(name, known);
            reader.error(
                Kind::UnknownVariable,
                key.span(),
                "a documented variable",
                format!("`{name}`"),
                suggestion,
            );
            good = false;
            continue;
        };
        if !allowed(&variable) {
            let readers: Vec<&str> = variable.roles.iter().map(|role| role.name()).collect();
            let here: Vec<&str> = roles.iter().map(|role| role.name()).collect();
            reader.error(
                Kind::UnknownVariable,
                key.span(),
                format!("a variable of the {}", here.join(" or ")),
                format!("`{name}`, which only the {} reads", readers.join(" and the ")),
                None,
            );
            good = false;
            continue;
        }
        match setting(reader, value) {
            Some(setting) if holds(reader, variable, &setting, value) => {
                env.0.insert(variable.name, setting);
            }
            Some(_) | None => good = false,
        }
    }
    good.then_some(env)
}

fn setting(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Setting> {
    let expected = "the variable's value as a text, as in a shell, or a list of such texts";
    let texts: Option<Vec<String>> = match value.get_ref() {
        DeValue::String(text) => return Some(Setting::Fixed(text.clone().into_owned())),
        DeValue::Array(items) => {
            items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
        }
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => None,
    };
    match texts {
        Some(texts) if !texts.is_empty() => Some(Setting::Choice(texts)),
        Some(_) | None => {
            reader.wrong_type(value, expected);
            None
        }
    }
}

fn holds(reader: &mut Reader<'_>, variable: &Variable, setting: &Setting, value: &Value<'_>) -> bool {
    let mut good = true;
    for text in setting.texts() {
        let found = || format!("the text \"{}\"", text.escape_debug());
        // The empty text takes a variable away, whatever it holds.
        if text.is_empty() && variable.holds != Holds::Engine {
            continue;
        }
        match variable.holds {
            Holds::Text => {}
            Holds::Secret => {
                let label = text.strip_prefix(SECRET_PREFIX);
                if !label.is_some_and(|label| !label.is_empty() && label.len() <= 32) {
                    reader.conceal(value.span());
                    reader.error(
                        Kind::SecretLiteral,
                        value.span(),
                        format!("`{SECRET_PREFIX}<label>` for {}: a scenario is published", variable.name),
                        "a literal secret",
                        None,
                    );
                    good = false;
                }
            }
            Holds::Duration => match Span::parse(text) {
                Ok(_) => {}
                Err(NotSpan::TooLong | NotSpan::NoNumber | NotSpan::NoUnit | NotSpan::WrongUnit) => {
                    reader.error(
                        Kind::WrongUnit,
                        value.span(),
                        format!(
                            "a duration with its unit for {}, such as \"500ms\" or \"3s\"",
                            variable.name
                        ),
                        found(),
                        None,
                    );
                    good = false;
                }
            },
            Holds::Count { min, max } => {
                if !text.parse::<u64>().is_ok_and(|number| (min..=max).contains(&number)) {
                    reader.error(
                        Kind::OutOfRange,
                        value.span(),
                        format!("a whole number from {min} to {max} for {}", variable.name),
                        found(),
                        None,
                    );
                    good = false;
                }
            }
            Holds::Flag => {
                if !matches!(text.as_str(), "true" | "false") {
                    reader.error(
                        Kind::OutOfRange,
                        value.span(),
                        format!("`true` or `false` for {}", variable.name),
                        found(),
                        None,
                    );
                    good = false;
                }
            }
            Holds::Nodes => {
                for name in text.split(',') {
                    good &= node(reader, name.trim(), value.span()).is_some();
                }
            }
            Holds::Engine => {
                reader.error(
                    Kind::UnknownVariable,
                    value.span(),
                    format!("nothing: {} is set for each node by the engine", variable.name),
                    found(),
                    None,
                );
                good = false;
            }
        }
    }
    good
}

fn resolve(env: &Env, draw: &mut dyn FnMut(u64) -> u64) -> Env {
    Env(env
        .0
        .iter()
        .map(|(name, setting)| {
            let text = match setting {
                Setting::Fixed(text) => text.clone(),
                Setting::Choice(texts) => {
                    let count = u64::try_from(texts.len()).unwrap_or(u64::MAX).max(1);
                    let index = usize::try_from(draw(count).min(count - 1)).unwrap_or(0);
                    texts.get(index).cloned().unwrap_or_default()
                }
            };
            (*name, Setting::Fixed(text))
        })
        .collect())
}

fn write(env: &Env) -> Option<String> {
    if env.0.is_empty() {
        return None;
    }
    let settings: Vec<String> =
        env.0.iter().map(|(name, setting)| format!("{name} = {}", write_setting(setting))).collect();
    Some(format!("{{ {} }}", settings.join(", ")))
}

pub(crate) fn write_setting(setting: &Setting) -> String {
    match setting {
        Setting::Fixed(text) => quoted(text),
        Setting::Choice(texts) => {
            let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            format!("[{}]", texts.join(", "))
        }
    }
}
