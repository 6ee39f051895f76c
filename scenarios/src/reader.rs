//! The walk over a parsed file: where things stand, what is known so far, and what was wrong.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use crate::diagnostic::{Diagnostic, Kind, nearest};
use crate::node::Role;

/// A place in the file, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column in characters.
    pub column: u32,
}

pub(crate) type Value<'t> = Spanned<DeValue<'t>>;

/// How many nodes of each role a deployment has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes(pub(crate) BTreeMap<Role, u32>);

impl Sizes {
    pub(crate) fn of(&self, role: Role) -> u32 {
        self.0.get(&role).copied().unwrap_or(0)
    }
}

pub(crate) struct Reader<'t> {
    file: &'t str,
    text: &'t str,
    /// Per deployment; the main one has the empty name.
    pub(crate) sizes: BTreeMap<String, Sizes>,
    /// The steps' ids in the order of the file.
    pub(crate) steps: Vec<String>,
    /// The faults' ids.
    pub(crate) faults: Vec<String>,
    /// The role whose nodes take turns where we are, if they do.
    pub(crate) each: Option<Role>,
    /// Whether `each` is not known because of an error that was already named.
    pub(crate) each_unknown: bool,
    /// The roles whose variables are allowed where we are.
    pub(crate) env_of: Vec<Role>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// What must not be repeated: literal secrets as they stand in the file.
    secrets: Vec<String>,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            text,
            sizes: BTreeMap::new(),
            steps: Vec::new(),
            faults: Vec::new(),
            each: None,
            each_unknown: false,
            env_of: Role::ALL.to_vec(),
            diagnostics: Vec::new(),
            secrets: Vec::new(),
        }
    }

    pub(crate) fn place(&self, offset: usize) -> Place {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let count = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
        Place { line: count(before.matches('\n').count()), column: count(before[start..].chars().count()) }
    }

    /// Notes an error. The reading goes on, so that a file's errors are found in one go.
    pub(crate) fn error(
        &mut self,
        kind: Kind,
        span: Range<usize>,
        expected: impl Into<String>,
        found: impl Into<String>,
        suggestion: Option<String>,
    ) {
        let place = self.place(span.start);
        let index = usize::try_from(place.line - 1).unwrap_or(0);
        let snippet =
            self.text.split('\n').nth(index).unwrap_or("").trim_end_matches('\r').replace('\t', " ");
        let rest = snippet.chars().count() + 1;
        let column = usize::try_from(place.column).unwrap_or(1);
        let wanted = self.text.get(span.start..span.end).map_or(1, |meant| meant.chars().count());
        let len = wanted.min(rest.saturating_sub(column)).max(1);
        self.diagnostics.push(Diagnostic {
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            kind,
            expected: expected.into(),
            found: found.into(),
            suggestion,
            snippet,
            len: u32::try_from(len).unwrap_or(1),
        });
    }

    /// Keeps what stands at a place out of everything that is said about the file.
    pub(crate) fn conceal(&mut self, span: Range<usize>) {
        let secrets = self.text.get(span).unwrap_or("").lines();
        let secrets = secrets.map(|line| line.replace('\t', " ").trim_matches(['"', '\'', ' ']).to_owned());
        self.secrets.extend(secrets.filter(|secret| !secret.is_empty()));
    }

    /// Everything that is wrong, in the order of the file.
    pub(crate) fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut diagnostics = self.diagnostics;
        diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column, diagnostic.kind));
        // One slip can break two rules; the first one said at a place is enough.
        diagnostics.dedup_by(|later, first| {
            (later.line, later.column, later.kind) == (first.line, first.column, first.kind)
                && later.expected == first.expected
        });
        for diagnostic in &mut diagnostics {
            for secret in &self.secrets {
                let stars = "*".repeat(secret.chars().count());
                diagnostic.snippet = diagnostic.snippet.replace(secret, &stars);
                diagnostic.found = diagnostic.found.replace(secret, &stars);
            }
            // What is no TOML was not read, so nobody knows where in the line a secret begins.
            if diagnostic.kind == Kind::Syntax && diagnostic.snippet.contains("_SECRET") {
                diagnostic.snippet = "(a line with a secret)".to_owned();
                diagnostic.len = 1;
            }
        }
        diagnostics
    }

    pub(crate) fn wrong_type(&mut self, value: &Value<'_>, expected: impl Into<String>) {
        let found = found(value.get_ref());
        self.error(Kind::WrongType, value.span(), expected, found, None);
    }

    /// A name that is not in the list of those that can stand here.
    pub(crate) fn unknown<'a>(
        &mut self,
        kind: Kind,
        span: Range<usize>,
        what: &str,
        written: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        let known: Vec<&str> = known.into_iter().collect();
        let expected = if known.is_empty() {
            format!("{what}, of which there are none here")
        } else if known.len() <= 24 {
            format!("{what}: {}", known.join(", "))
        } else {
            what.to_owned()
        };
        let suggestion = nearest(written, known);
        self.error(kind, span, expected, format!("`{written}`"), suggestion);
    }
}

/// What stands there, in words.
pub(crate) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text \"{}\"", text.escape_debug()),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the fraction {number}"),
        DeValue::Boolean(truth) => format!("{truth}"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
