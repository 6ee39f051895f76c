//! A table of the file, and what can stand behind its keys.

use std::ops::Range;

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::diagnostic::Kind;
use crate::reader::{Reader, Value};

/// A table whose keys are taken one by one; what is left at the end is an error.
pub(crate) struct Body<'r, 'a, 't> {
    /// What is known of the file, and where errors go.
    pub(crate) reader: &'r mut Reader<'t>,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    taken: Vec<&'static str>,
}

impl<'r, 'a, 't> Body<'r, 'a, 't> {
    pub(crate) const fn new(reader: &'r mut Reader<'t>, table: &'a DeTable<'a>, span: Range<usize>) -> Self {
        Self { reader, table, span, taken: Vec::new() }
    }

    /// The table in a value, or an error.
    pub(crate) fn of(reader: &'r mut Reader<'t>, value: &'a Value<'a>, expected: &str) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            reader.wrong_type(value, expected);
            return None;
        };
        Some(Self::new(reader, table, value.span()))
    }

    /// The same table, with another place that is shown if something is missing in it.
    pub(crate) fn at(self, span: Range<usize>) -> Self {
        Self { span, ..self }
    }

    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    pub(crate) fn key(&self, name: &str) -> Option<&'a Spanned<DeString<'a>>> {
        self.table.get_key_value(name).map(|(key, _)| key)
    }

    /// The value behind a key, if the key is there.
    pub(crate) fn value(&mut self, name: &'static str) -> Option<&'a Value<'a>> {
        self.taken.push(name);
        self.table.get(name)
    }

    /// The argument behind a key. `None` after an error only.
    pub(crate) fn take<A: Argument>(
        &mut self,
        name: &'static str,
        default: Option<&'static str>,
    ) -> Option<A> {
        if let Some(value) = self.value(name) {
            return A::read(self.reader, value);
        }
        if let Some(default) = default {
            let value = DeValue::parse(default).expect("the defaults are TOML");
            return A::read(self.reader, &value);
        }
        let absent = A::absent();
        if absent.is_none() {
            self.reader.error(
                Kind::Missing,
                self.span(),
                format!("`{name}`: {}", A::shape().words()),
                "nothing",
                None,
            );
        }
        absent
    }

    /// Complains about every key that nobody took.
    pub(crate) fn finish(self) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if !self.taken.contains(&name) {
                self.reader.unknown(
                    Kind::UnknownKey,
                    key.span(),
                    "one of the keys",
                    name,
                    self.taken.iter().copied(),
                );
            }
        }
    }
}

/// A value behind a key.
pub(crate) trait Argument: Sized {
    fn shape() -> Shape;
    /// Reads it; `None` after an error.
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self>;
    /// What it is when the key is missing, if that is allowed.
    fn absent() -> Option<Self> {
        None
    }
    /// The same with everything drawn that is drawn once per run.
    fn resolve(&self, draw: &mut dyn FnMut(u64) -> u64) -> Self;
    /// Its text in TOML; `None` is a missing key.
    fn write(&self) -> Option<String>;
}

/// What an argument looks like in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A whole number.
    Integer {
        /// The least one.
        min: u64,
        /// The greatest one.
        max: u64,
    },
    /// A duration with its unit.
    Duration,
    /// Any text.
    Text,
    /// `true` or `false`.
    Truth,
    /// A name from a closed list, with what each means.
    Word(Vec<(&'static str, &'static str)>),
    /// A node or a selector.
    Node,
    /// The id of a step.
    Step,
    /// The id of a fault.
    Fault,
    /// A table of environment variables.
    Env,
    /// A share of messages.
    Share,
    /// `{ median, p99 }`.
    Latency,
    /// One of two shapes.
    Either(Box<Self>, Box<Self>),
    /// A list.
    List(Box<Self>),
    /// A literal, a range or a choice.
    Drawn(Box<Self>),
}

impl Shape {
    /// The shape in words, to stand behind "expected".
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Duration => "a duration with its unit, such as \"500ms\", \"3s\" or \"2m\"".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Truth => "true or false".to_owned(),
            Self::Word(words) => {
                let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
                format!("one of {}", names.join(", "))
            }
            Self::Node => "a node such as \"server-1\" or \"client:any\"".to_owned(),
            Self::Step => "the id of a step".to_owned(),
            Self::Fault => "the id of a fault".to_owned(),
            Self::Env => "a table of ZIPNET_* variables".to_owned(),
            Self::Share => "{ permille = 5 } or { min_permille = 0, max_permille = 20 }".to_owned(),
            Self::Latency => "{ median = \"20ms\", p99 = \"150ms\" }".to_owned(),
            Self::Either(first, second) => format!("{}, or {}", first.words(), second.words()),
            Self::List(item) => format!("a list, each {}", item.words()),
            Self::Drawn(literal) => format!("{}, {{ min, max }} or a list of them", literal.words()),
        }
    }

    /// The shape as JSON Schema.
    #[must_use]
    pub fn schema(&self) -> Json {
        match self {
            Self::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
            Self::Duration => json!({ "$ref": "#/$defs/duration" }),
            Self::Text => json!({ "type": "string" }),
            Self::Truth => json!({ "type": "boolean" }),
            Self::Word(words) => {
                let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
                json!({ "enum": names })
            }
            Self::Node => json!({ "$ref": "#/$defs/node" }),
            Self::Step | Self::Fault => json!({ "$ref": "#/$defs/id" }),
            Self::Env => json!({ "$ref": "#/$defs/env" }),
            Self::Share => json!({ "$ref": "#/$defs/share" }),
            Self::Latency => {
                let delay = Self::Drawn(Box::new(Self::Duration)).schema();
                json!({
                    "type": "object",
                    "properties": { "median": delay, "p99": delay },
                    "required": ["median", "p99"],
                    "additionalProperties": false,
                })
            }
            Self::Either(first, second) => json!({ "anyOf": [first.schema(), second.schema()] }),
            Self::List(item) => json!({ "type": "array", "items": item.schema(), "minItems": 1 }),
            Self::Drawn(literal) => {
                let literal = literal.schema();
                json!({ "anyOf": [
                    literal,
                    { "type": "object", "properties": { "min": literal, "max": literal },
                      "required": ["min", "max"], "additionalProperties": false },
                    { "type": "array", "items": literal, "minItems": 1 },
                ] })
            }
        }
    }
}
