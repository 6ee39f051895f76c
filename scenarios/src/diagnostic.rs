//! What is wrong with a file, where, and what was probably meant.

use core::fmt;

use serde::Serialize;

/// Which rule of the format was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The text is not TOML.
    Syntax,
    /// A key that the format does not have at this place.
    UnknownKey,
    /// A verb that the format does not have at this place.
    UnknownVerb,
    /// A word that is not in the closed list which is asked for.
    UnknownWord,
    /// A node that the topology does not have, or a selector that means nothing here.
    UnknownNode,
    /// A step or fault id that the file does not have.
    UnknownId,
    /// A `ZIPNET_*` variable that is not documented, or not for this role.
    UnknownVariable,
    /// Two things with one id.
    DuplicateId,
    /// Something that must be there is not.
    Missing,
    /// A value of another type than expected.
    WrongType,
    /// A duration without a unit, or with one that does not exist.
    WrongUnit,
    /// A number or duration outside its range.
    OutOfRange,
    /// The nodes that are asked for cannot do what is asked of them.
    ImpossibleTopology,
    /// A secret stands in the file.
    SecretLiteral,
    /// A `for_each` that selects nothing, or a `with` that does not belong to one.
    Unreachable,
}

/// One error in a scenario file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file as it was named by the caller.
    pub file: String,
    /// The line, counted from one.
    pub line: u32,
    /// The column in characters, counted from one.
    pub column: u32,
    /// Which rule was broken.
    pub kind: Kind,
    /// What would have been right.
    pub expected: String,
    /// What stands there.
    pub found: String,
    /// The nearest known name, if one is near enough.
    pub suggestion: Option<String>,
    /// The whole line of the file.
    pub snippet: String,
    /// How many characters of the snippet are meant; at least one.
    pub len: u32,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: expected {}, found {}", self.expected, self.found)?;
        let gutter = self.line.to_string().len();
        writeln!(f, "{:gutter$}--> {}:{}:{}", "", self.file, self.line, self.column)?;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{} | {}", self.line, self.snippet)?;
        let indent = usize::try_from(self.column.saturating_sub(1)).unwrap_or(0);
        let carets = "^".repeat(usize::try_from(self.len).unwrap_or(1).max(1));
        write!(f, "{:gutter$} | {:indent$}{carets}", "", "")?;
        if let Some(name) = &self.suggestion {
            write!(f, " did you mean `{name}`?")?;
        }
        Ok(())
    }
}

impl core::error::Error for Diagnostic {}

/// The candidate nearest to what was written, if it is near enough to be meant.
#[must_use]
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let written: Vec<char> = written.chars().take(80).collect();
    // A third of the letters may differ: `log-evnt` is a slip, `banana` is not one for any verb.
    let most = (written.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&written, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// Edits between two words: letters inserted, removed, replaced, or two neighbours swapped.
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let verbs = ["start", "stop", "restart", "rounds-finalized"];
        assert_eq!(nearest("stpo", verbs).as_deref(), Some("stop"));
        assert_eq!(nearest("round-finalised", verbs).as_deref(), Some("rounds-finalized"));
        assert_eq!(nearest("banana", verbs), None);
        assert_eq!(nearest("", verbs), None);
    }
}
