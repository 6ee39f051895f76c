//! The types that arguments can have: how each is read, written, drawn and described.

use toml::de::DeValue;

use crate::body::{Argument, Body, Shape};
use crate::diagnostic::Kind;
use crate::node::{NodeRef, Nodes, Role, Which};
use crate::reader::{Reader, Value, found};
use crate::value::{Draw, Drawn, Int, NotSpan, Scalar, Share, Span, Spread};
use crate::words::{
    Apply, Cause, Deviation, DiskFate, Foretold, Guard, LogEvent, Metric, Outcome, Plan, Property, Reason,
    Signal, Since, Stat, State, Subject, Word,
};

/// A TOML text. Control characters are escaped, so that everything that can be read can be written.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Reads a text or complains.
pub(crate) fn text<'a>(
    reader: &mut Reader<'_>,
    value: &'a Value<'_>,
    expected: impl FnOnce() -> String,
) -> Option<&'a str> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        reader.wrong_type(value, expected());
    }
    text
}

impl Argument for String {
    fn shape() -> Shape {
        Shape::Text
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        text(reader, value, || Self::shape().words()).map(str::to_owned)
    }
    fn resolve(&self, _: &mut dyn FnMut(u64) -> u64) -> Self {
        self.clone()
    }
    fn write(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Argument for bool {
    fn shape() -> Shape {
        Shape::Truth
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            reader.wrong_type(value, Self::shape().words());
        }
        truth
    }
    fn resolve(&self, _: &mut dyn FnMut(u64) -> u64) -> Self {
        *self
    }
    fn write(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Argument for Span {
    fn shape() -> Shape {
        Shape::Duration
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        let expected = Self::shape().words();
        let written = match value.get_ref() {
            DeValue::String(text) => text,
            DeValue::Integer(_) | DeValue::Float(_) => {
                let found = format!("{} without a unit", found(value.get_ref()));
                reader.error(Kind::WrongUnit, value.span(), expected, found, None);
                return None;
            }
            DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                reader.wrong_type(value, expected);
                return None;
            }
        };
        let written: &str = written;
        match Self::parse(written) {
            Ok(span) => Some(span),
            Err(NotSpan::TooLong) => {
                let expected = format!("a duration of at most {}", Self::MAX);
                reader.error(Kind::OutOfRange, value.span(), expected, found(value.get_ref()), None);
                None
            }
            Err(NotSpan::NoNumber | NotSpan::NoUnit | NotSpan::WrongUnit) => {
                let suggestion = nearest_span(written);
                reader.error(Kind::WrongUnit, value.span(), expected, found(value.get_ref()), suggestion);
                None
            }
        }
    }
    fn resolve(&self, _: &mut dyn FnMut(u64) -> u64) -> Self {
        *self
    }
    fn write(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }
}

/// The duration that was probably meant: `3 sec` is `3s`, `5 mins` is `5m`.
fn nearest_span(written: &str) -> Option<String> {
    let written = written.trim();
    let end = written.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = written.split_at(end);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "millis" | "msec" | "msecs" | "milliseconds" | "ms" => "ms",
        "sec" | "secs" | "second" | "seconds" | "s" => "s",
        "min" | "mins" | "minute" | "minutes" | "m" => "m",
        "hour" | "hours" | "hr" | "hrs" | "h" => "h",
        _ => return None,
    };
    (!number.is_empty()).then(|| format!("{number}{unit}"))
}

impl<const MIN: u64, const MAX: u64> Argument for Int<MIN, MAX> {
    fn shape() -> Shape {
        Shape::Integer { min: MIN, max: MAX }
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        let Some(number) = value.get_ref().as_integer() else {
            reader.wrong_type(value, Self::shape().words());
            return None;
        };
        let number = u64::from_str_radix(number.as_str(), number.radix()).ok().and_then(Self::new);
        if number.is_none() {
            reader.error(Kind::OutOfRange, value.span(), Self::shape().words(), found(value.get_ref()), None);
        }
        number
    }
    fn resolve(&self, _: &mut dyn FnMut(u64) -> u64) -> Self {
        *self
    }
    fn write(&self) -> Option<String> {
        Some(self.get().to_string())
    }
}

impl<A: Argument> Argument for Option<A> {
    fn shape() -> Shape {
        A::shape()
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        A::read(reader, value).map(Some)
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
    fn resolve(&self, draw: &mut dyn FnMut(u64) -> u64) -> Self {
        self.as_ref().map(|value| value.resolve(draw))
    }
    fn write(&self) -> Option<String> {
        self.as_ref().and_then(A::write)
    }
}

impl<A: Argument> Argument for Vec<A> {
    fn shape() -> Shape {
        Shape::List(Box::new(A::shape()))
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        let Some(items) = value.get_ref().as_array() else {
            reader.wrong_type(value, Self::shape().words());
            return None;
        };
        if items.is_empty() {
            reader.error(Kind::Missing, value.span(), Self::shape().words(), "an empty list", None);
            return None;
        }
        // Every item is read, so that every item's error is seen.
        let read: Vec<Option<A>> = items.iter().map(|item| A::read(reader, item)).collect();
        read.into_iter().collect()
    }
    fn resolve(&self, draw: &mut dyn FnMut(u64) -> u64) -> Self {
        self.iter().map(|item| item.resolve(draw)).collect()
    }
    fn write(&self) -> Option<String> {
        let items: Vec<String> = self.iter().filter_map(A::write).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

impl<T: Argument + Scalar> Argument for Drawn<T> {
    fn shape() -> Shape {
        Shape::Drawn(Box::new(T::shape()))
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(_) => Vec::read(reader, value).map(Self::Choice),
            DeValue::Table(_) => {
                let mut body = Body::of(reader, value, &Self::shape().words())?;
                let min = body.take::<T>("min", None);
                let max = body.take::<T>("max", None);
                body.finish();
                let (min, max) = (min?, max?);
                if min > max {
                    reader.error(
                        Kind::OutOfRange,
                        value.span(),
                        "`min` not above `max`",
                        "a range that holds nothing",
                        None,
                    );
                    return None;
                }
                Some(Self::Range { min, max })
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => T::read(reader, value).map(Self::Fixed),
        }
    }
    fn resolve(&self, draw: &mut dyn FnMut(u64) -> u64) -> Self {
        Self::Fixed(self.draw(draw))
    }
    fn write(&self) -> Option<String> {
        match self {
            Self::Fixed(value) => value.write(),
            Self::Range { min, max } => Some(format!("{{ min = {}, max = {} }}", min.write()?, max.write()?)),
            Self::Choice(values) => values.write(),
        }
    }
}

impl<T: Argument + Scalar> Argument for Draw<T> {
    fn shape() -> Shape {
        Drawn::<T>::shape()
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        Drawn::read(reader, value).map(Self)
    }
    fn resolve(&self, draw: &mut dyn FnMut(u64) -> u64) -> Self {
        Self(self.0.resolve(draw))
    }
    fn write(&self) -> Option<String> {
        self.0.write()
    }
}

impl<T: Argument + Scalar> Argument for Spread<T> {
    fn shape() -> Shape {
        Drawn::<T>::shape()
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        Drawn::read(reader, value).map(Self)
    }
    fn resolve(&self, _: &mut dyn FnMut(u64) -> u64) -> Self {
        self.clone()
    }
    fn write(&self) -> Option<String> {
        self.0.write()
    }
}

impl Argument for Share {
    fn shape() -> Shape {
        Shape::Share
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        let mut body = Body::of(reader, value, &Self::shape().words())?;
        let share = if body.key("permille").is_some() {
            body.take("permille", None).map(|share| Self { min: share, max: share })
        } else {
            let min = body.take("min_permille", None);
            let max = body.take("max_permille", None);
            min.zip(max).map(|(min, max)| Self { min, max })
        };
        body.finish();
        let share = share?;
        if share.min > share.max {
            reader.error(
                Kind::OutOfRange,
                value.span(),
                "`min_permille` not above `max_permille`",
                "a range that holds nothing",
                None,
            );
            return None;
        }
        Some(share)
    }
    fn resolve(&self, draw: &mut dyn FnMut(u64) -> u64) -> Self {
        let share = if self.min == self.max {
            self.min
        } else {
            Drawn::Range { min: self.min, max: self.max }.draw(draw)
        };
        Self { min: share, max: share }
    }
    fn write(&self) -> Option<String> {
        Some(if self.min == self.max {
            format!("{{ permille = {} }}", self.min.get())
        } else {
            format!("{{ min_permille = {}, max_permille = {} }}", self.min.get(), self.max.get())
        })
    }
}

macro_rules! word_arguments {
    ($($Word:ident),+) => { $(
        impl Argument for $Word {
            fn shape() -> Shape {
                Shape::Word(Self::ALL.iter().map(|(_, name, doc)| (*name, doc.trim())).collect())
            }
            fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
                let written = text(reader, value, || Self::shape().words())?;
                let word = Self::parse(written);
                if word.is_none() {
                    let known = Self::ALL.iter().map(|(_, name, _)| *name);
                    reader.unknown(Kind::UnknownWord, value.span(), "one of", written, known);
                }
                word
            }
            fn resolve(&self, _: &mut dyn FnMut(u64) -> u64) -> Self {
                *self
            }
            fn write(&self) -> Option<String> {
                Some(quoted(self.name()))
            }
        }
    )+ };
}

word_arguments!(
    Apply, Cause, Deviation, DiskFate, Foretold, Guard, LogEvent, Metric, Outcome, Plan, Property, Reason,
    Signal, Since, Stat, State, Subject
);

impl Argument for NodeRef {
    fn shape() -> Shape {
        Shape::Node
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        let written = text(reader, value, || Self::shape().words())?.to_owned();
        node(reader, &written, value.span())
    }
    fn resolve(&self, _: &mut dyn FnMut(u64) -> u64) -> Self {
        self.clone()
    }
    fn write(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// Reads a node's name and looks it up in the topology.
pub(crate) fn node(reader: &mut Reader<'_>, written: &str, span: std::ops::Range<usize>) -> Option<NodeRef> {
    let instances: Vec<&str> =
        reader.sizes.keys().map(String::as_str).filter(|name| !name.is_empty()).collect();
    let parsed = NodeRef::parse(written, instances);
    let Some(node) = parsed else {
        let known = known_nodes(reader);
        reader.unknown(
            Kind::UnknownNode,
            span,
            "a node of the topology, or a selector such as `server:any`",
            written,
            known.iter().map(String::as_str),
        );
        return None;
    };
    let count =
        reader.sizes.get(node.instance.as_deref().unwrap_or("")).map_or(0, |sizes| sizes.of(node.role));
    let wrong = match node.which {
        Which::Number(number) if number == 0 || number > count => Some(if count == 0 {
            format!("a node that exists; the topology has no {}", node.role)
        } else {
            format!("a {0} from {0}-1 to {0}-{count}", node.role)
        }),
        Which::Each if reader.each != Some(node.role) && !reader.each_unknown => Some(match reader.each {
            None => {
                format!("a node; `{}:each` exists only in a step with `for_each`, or `with` one", node.role)
            }
            Some(role) => format!("`{role}:each`, for the steps here run for each {role}"),
        }),
        Which::Leader | Which::Follower if node.role != Role::Server => {
            Some("a selector of servers: only servers lead or follow".to_owned())
        }
        Which::Number(_)
        | Which::All
        | Which::Any
        | Which::Each
        | Which::Rest
        | Which::Leader
        | Which::Follower
        | Which::Target => {
            (count == 0).then(|| format!("a node that exists; the topology has no {}", node.role))
        }
    };
    if let Some(expected) = wrong {
        let known = known_nodes(reader);
        // A number is off or a selector does not fit; another selector is no better guess.
        let suggestion = matches!(node.which, Which::Number(_))
            .then(|| crate::diagnostic::nearest(written, known.iter().map(String::as_str)))
            .flatten();
        reader.error(Kind::UnknownNode, span, expected, format!("`{written}`"), suggestion);
        return None;
    }
    Some(node)
}

/// Names to suggest: the topology's nodes (the first and last few of many) and the selectors.
fn known_nodes(reader: &Reader<'_>) -> Vec<String> {
    let mut known = Vec::new();
    for (instance, sizes) in &reader.sizes {
        let front = if instance.is_empty() { String::new() } else { format!("{instance}-") };
        for role in Role::ALL {
            let count = sizes.of(role);
            known.extend((1..=count.min(64)).map(|number| format!("{front}{role}-{number}")));
            if count > 0 {
                known.extend(
                    Which::SELECTORS
                        .into_iter()
                        .filter(|(which, _)| {
                            let leads = matches!(which, Which::Leader | Which::Follower);
                            let turn = *which == Which::Each;
                            (!leads || role == Role::Server) && (!turn || reader.each == Some(role))
                        })
                        .map(|(_, selector)| format!("{front}{role}:{selector}")),
                );
            }
        }
    }
    known
}

impl Argument for Nodes {
    fn shape() -> Shape {
        Shape::Either(Box::new(Shape::Node), Box::new(Shape::List(Box::new(Shape::Node))))
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        if value.get_ref().is_array() {
            Vec::read(reader, value).map(Self)
        } else {
            NodeRef::read(reader, value).map(|node| Self(vec![node]))
        }
    }
    fn resolve(&self, _: &mut dyn FnMut(u64) -> u64) -> Self {
        self.clone()
    }
    fn write(&self) -> Option<String> {
        match self.0.as_slice() {
            [node] => node.write(),
            nodes => nodes.to_vec().write(),
        }
    }
}

/// The id of a step of the same file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepId(pub String);

/// The id of a fault of the same file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId(pub String);

macro_rules! id_arguments {
    ($($Id:ident, $Shape:ident, $known:ident;)+) => { $(
        impl Argument for $Id {
            fn shape() -> Shape {
                Shape::$Shape
            }
            fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
                let written = text(reader, value, || Self::shape().words())?.to_owned();
                if reader.$known.contains(&written) {
                    return Some(Self(written));
                }
                let known = reader.$known.clone();
                let what = Self::shape().words();
                reader.unknown(Kind::UnknownId, value.span(), &what, &written, known.iter().map(String::as_str));
                None
            }
            fn resolve(&self, _: &mut dyn FnMut(u64) -> u64) -> Self {
                self.clone()
            }
            fn write(&self) -> Option<String> {
                Some(quoted(&self.0))
            }
        }
    )+ };
}

id_arguments! {
    StepId, Step, steps;
    FaultId, Fault, faults;
}

/// Whose `ZIPNET_SECRET` a node starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// `"same"`: its own, as ever.
    Same,
    /// `"fresh"`: one that nobody has had before.
    Fresh,
    /// `"server-2"`: that of another node.
    Of(NodeRef),
}

/// Whom a node is told to dial first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// `"default"`: what its `ZIPNET_BOOTSTRAP` says, or else the deployment's first server (which itself has none).
    Default,
    /// `"none"`: nobody.
    None,
    /// These nodes.
    Nodes(Nodes),
}

impl Argument for Identity {
    fn shape() -> Shape {
        Shape::Either(
            Box::new(Shape::Word(vec![
                ("same", "its own ZIPNET_SECRET, as ever"),
                ("fresh", "a ZIPNET_SECRET that nobody has had before"),
            ])),
            Box::new(Shape::Node),
        )
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        match value.get_ref().as_str() {
            Some("same") => Some(Self::Same),
            Some("fresh") => Some(Self::Fresh),
            Some(_) | None => NodeRef::read(reader, value).map(Self::Of),
        }
    }
    fn resolve(&self, _: &mut dyn FnMut(u64) -> u64) -> Self {
        self.clone()
    }
    fn write(&self) -> Option<String> {
        match self {
            Self::Same => Some(quoted("same")),
            Self::Fresh => Some(quoted("fresh")),
            Self::Of(node) => node.write(),
        }
    }
}

impl Argument for Bootstrap {
    fn shape() -> Shape {
        Shape::Either(
            Box::new(Shape::Word(vec![
                ("default", "its ZIPNET_BOOTSTRAP, or else the deployment's first server"),
                ("none", "nobody"),
            ])),
            Box::new(Nodes::shape()),
        )
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        match value.get_ref().as_str() {
            Some("default") => Some(Self::Default),
            Some("none") => Some(Self::None),
            Some(_) | None => Nodes::read(reader, value).map(Self::Nodes),
        }
    }
    fn resolve(&self, _: &mut dyn FnMut(u64) -> u64) -> Self {
        self.clone()
    }
    fn write(&self) -> Option<String> {
        match self {
            Self::Default => Some(quoted("default")),
            Self::None => Some(quoted("none")),
            Self::Nodes(nodes) => nodes.write(),
        }
    }
}

/// The delay of a message: half of them take less than the median, 99 of 100 less than `p99`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// The delay that half of the messages stay below.
    pub median: Draw<Span>,
    /// The delay that 99 of 100 messages stay below; not below the median.
    pub p99: Draw<Span>,
}

impl Argument for Latency {
    fn shape() -> Shape {
        Shape::Latency
    }
    fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Self> {
        let mut body = Body::of(reader, value, &Self::shape().words())?;
        let median = body.take::<Draw<Span>>("median", None);
        let p99 = body.take::<Draw<Span>>("p99", None);
        body.finish();
        let (median, p99) = (median?, p99?);
        if median.0.greatest() > p99.0.least() {
            reader.error(
                Kind::OutOfRange,
                value.span(),
                "`median` not above `p99`",
                "a distribution that is none",
                None,
            );
            return None;
        }
        Some(Self { median, p99 })
    }
    fn resolve(&self, draw: &mut dyn FnMut(u64) -> u64) -> Self {
        Self { median: self.median.resolve(draw), p99: self.p99.resolve(draw) }
    }
    fn write(&self) -> Option<String> {
        Some(format!("{{ median = {}, p99 = {} }}", self.median.write()?, self.p99.write()?))
    }
}
