//! Variables: those of the process, and those of a file.
//!
//! A file is written as systemd's `EnvironmentFile` is, so that a unit and `--config` read the same from it: nothing in it
//! is replaced by something else. What systemd would pass over without a word is a mistake here. Files hold secrets: no
//! mistake repeats what stands in one, except names of variables.

use core::fmt;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use zipnet_node::config::{ConfigError, VARIABLES, is_hidden, is_plain_name};

/// What the names of our variables begin with.
const PREFIX: &str = "ZIPNET_";

/// The variables of this process. Those of others that are no text are left out.
///
/// # Errors
/// Those of ours that are no text.
pub fn of_process() -> Result<BTreeMap<String, String>, Vec<ConfigError>> {
    take(std::env::vars_os())
}

fn take(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, Vec<ConfigError>> {
    let mut taken = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (name, value) in variables {
        let ours = name.as_bytes().starts_with(PREFIX.as_bytes())
            || ["RUST_LOG", "CREDENTIALS_DIRECTORY"].iter().any(|ours| name == *ours);
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => drop(taken.insert(name, value)),
            (Ok(variable), Err(_)) if ours => mistakes.push(ConfigError::NoText { variable }),
            (Err(name), _) if ours => {
                mistakes.push(ConfigError::NoText { variable: name.to_string_lossy().into_owned() });
            }
            (Ok(_) | Err(_), _) => {}
        }
    }
    if mistakes.is_empty() { Ok(taken) } else { Err(mistakes) }
}

/// A variable that a file sets.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// Where in the file, counted from one.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Setting {
    /// Whether a node could read it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.name.starts_with(PREFIX) || self.name == "RUST_LOG"
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("line", &self.line).finish_non_exhaustive()
    }
}

/// What is wrong with a line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Counted from one.
    pub line: usize,
    /// Which variable it is about, as far as that can be told.
    pub variable: Option<String>,
    /// What is wrong, and what to write.
    pub what: &'static str,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(variable) = &self.variable {
            write!(f, ", {variable}")?;
        }
        write!(f, ": {}", self.what)
    }
}

const MARK: &str = "the file begins with a byte order mark: save it as UTF-8 without one";
const NO_TEXT: &str = "this is not UTF-8";
const NO_SIGN: &str = "this is no variable: write NAME=value";
const EXPORT: &str = "a file of variables is no script: write NAME=value, without export";
const NO_NAME: &str = "what stands before the = is no name of a variable: write NAME=value";
const OPEN: &str = "the value begins with a quote that the line does not end: end it";
const HIDDEN: &str = "the value has a character that is not seen: write it anew";
const COMMENT: &str = "a comment ends with \\: end it with something else";
const TWO: &str = "the value has another variable in it: write a line for each, and end no line with \\";

/// Reads the text of a file.
///
/// # Errors
/// Every mistake. After a quote that is not ended, nothing can be told from the rest.
pub fn read(bytes: &[u8]) -> Result<Vec<Setting>, Vec<Mistake>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(reason) => {
            let before = bytes.get(..reason.valid_up_to()).unwrap_or_default();
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let begun = std::str::from_utf8(before.get(start..).unwrap_or_default()).unwrap_or_default();
            return Err(vec![Mistake { line, variable: known(begun), what: NO_TEXT }]);
        }
    };
    if text.starts_with('\u{feff}') {
        return Err(vec![Mistake { line: 1, variable: None, what: MARK }]);
    }
    let mut reader = Reader { rest: text.chars(), line: 1 };
    let (mut settings, mut mistakes) = (Vec::new(), Vec::new());
    while let Some(first) = reader.next() {
        if is_break(first) || first.is_ascii_whitespace() {
            continue;
        }
        if matches!(first, '#' | ';') {
            // Versions of systemd differ in whether the next line belongs to it.
            if reader.key(String::new(), true).0.ends_with('\\') {
                mistakes.push(Mistake { line: reader.line, variable: None, what: COMMENT });
            }
            continue;
        }
        let line = reader.line;
        match reader.setting(first) {
            Ok(setting) => settings.push(setting),
            Err(mistake) => {
                let open = mistake.what == OPEN;
                mistakes.push(Mistake { line, ..mistake });
                if open {
                    break;
                }
            }
        }
    }
    if mistakes.is_empty() { Ok(settings) } else { Err(mistakes) }
}

/// The variable whose name a line begins with.
fn known(line: &str) -> Option<String> {
    let line = line.trim_start();
    let names = VARIABLES.iter().map(|(name, _)| *name).filter(|name| line.starts_with(name));
    names.max_by_key(|name| name.len()).map(str::to_owned)
}

const fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

struct Reader<'a> {
    rest: core::str::Chars<'a>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    /// Adds to `begun` what comes before the = sign, or the line's end; whether the sign was there. Comments have none.
    fn key(&mut self, mut begun: String, comment: bool) -> (String, bool) {
        loop {
            match self.rest.clone().next() {
                None => return (begun, false),
                Some(c) if is_break(c) => return (begun, false),
                Some('=') if !comment => {
                    self.next();
                    return (begun, true);
                }
                Some(c) => {
                    self.next();
                    begun.push(c);
                }
            }
        }
    }

    fn setting(&mut self, first: char) -> Result<Setting, Mistake> {
        let line = self.line;
        let (key, sign) = self.key(first.to_string(), false);
        let name = key.trim_end().to_owned();
        let told = |what| Mistake { line, variable: known(&key), what };
        if !sign {
            return Err(told(NO_SIGN));
        }
        let is_name = !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let value = self.value().map_err(|what| Mistake {
            variable: is_plain_name(&name).then(|| name.clone()).or_else(|| known(&name)),
            ..told(what)
        })?;
        if name.starts_with("export ") {
            return Err(told(EXPORT));
        }
        if !is_name {
            return Err(told(NO_NAME));
        }
        let wrong = if value.chars().any(is_hidden) {
            Some(HIDDEN)
        } else if name.starts_with(PREFIX) && value.contains(PREFIX) && value.contains('=') {
            Some(TWO)
        } else {
            None
        };
        match wrong {
            Some(what) if is_plain_name(&name) => Err(Mistake { line, variable: Some(name), what }),
            Some(what) => Err(told(what)),
            None => Ok(Setting { line, name, value }),
        }
    }

    /// What stands behind the sign, up to the end of the line.
    fn value(&mut self) -> Result<String, &'static str> {
        let mut value = String::new();
        // Blanks at the end of what stands without quotes do not count; up to here they do.
        let mut kept = 0;
        let mut plain = false;
        while let Some(c) = self.next() {
            match c {
                c if is_break(c) => break,
                '\\' => {
                    plain = true;
                    // A line break behind it is left out.
                    if let Some(next) = self.next().filter(|next| !is_break(*next)) {
                        value.push(next);
                    }
                    kept = value.len();
                }
                '\'' | '"' if !plain => {
                    self.quoted(c, &mut value)?;
                    kept = value.len();
                }
                c if c.is_ascii_whitespace() => {
                    if plain {
                        value.push(c);
                    }
                }
                c => {
                    plain = true;
                    value.push(c);
                    kept = value.len();
                }
            }
        }
        value.truncate(kept);
        Ok(value)
    }

    fn quoted(&mut self, quote: char, value: &mut String) -> Result<(), &'static str> {
        loop {
            match self.next() {
                None => return Err(OPEN),
                Some(c) if c == quote => return Ok(()),
                Some(c) if is_break(c) => return Err(OPEN),
                Some('\\') if quote == '"' => match self.next() {
                    None => return Err(OPEN),
                    Some(c) if is_break(c) => {}
                    Some(c @ ('"' | '\\' | '`' | '$')) => value.push(c),
                    Some(c) => value.extend(['\\', c]),
                },
                Some(c) => value.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        read(text.as_bytes()).unwrap().into_iter().map(|set| (set.name, set.value)).collect()
    }

    /// What systemd makes of the same lines.
    #[test]
    fn files_are_read_as_systemd_reads_them() {
        for (line, value) in [
            ("A=plain", "plain"),
            ("A = blanks around ", "blanks around"),
            ("A=", ""),
            ("A=two words", "two words"),
            ("A=$HOME and ${HOME} and `id`", "$HOME and ${HOME} and `id`"),
            ("A='single $x \\ \" '", "single $x \\ \" "),
            ("A=\"double \\$x \\\\ \\\" \\n\"", "double $x \\ \" \\n"),
            ("A=\"one\" 'two'", "onetwo"),
            ("A=\"one\"two three ", "onetwo three"),
            ("A=it's", "it's"),
            ("A=a # no comment", "a # no comment"),
            ("A=a\\ b\\\\c\\ ", "a b\\c "),
            ("A=a\\\nb", "ab"),
            ("A=\"a\\\nb\"", "ab"),
            ("A=x=y==", "x=y=="),
            ("A=a\r", "a"),
        ] {
            let read = pairs(&format!("# first\n\n;second = x\n{line}\n  B=next"));
            let expected = [("A".to_owned(), value.to_owned()), ("B".to_owned(), "next".to_owned())];
            assert_eq!(read, expected, "{line}");
        }
        assert_eq!(pairs("A=1\nA=2").len(), 2, "the last one is what counts, for whoever takes them");
    }

    #[test]
    fn mistakes_name_line_and_variable_and_nothing_else() {
        let secret = "zq7Secret";
        for (text, said) in [
            (format!("X=1\nZIPNET_SECRET {secret}"), format!("line 2, ZIPNET_SECRET: {NO_SIGN}")),
            (format!("# {secret}\\\nA=b"), format!("line 1: {COMMENT}")),
            (format!("X=1\n{secret}"), format!("line 2: {NO_SIGN}")),
            (format!("export ZIPNET_SECRET={secret}"), format!("line 1: {EXPORT}")),
            (format!("ZIPNET_SECRET: {secret}=="), format!("line 1, ZIPNET_SECRET: {NO_NAME}")),
            (format!("ZIPNET_SECRET=\"{secret}\nA=b"), format!("line 1, ZIPNET_SECRET: {OPEN}")),
            (format!("ZIPNET_SECRET='{secret}"), format!("line 1, ZIPNET_SECRET: {OPEN}")),
            (
                format!("ZIPNET_LISTEN=\"a\nZIPNET_SECRET=\"{secret}\n"),
                format!("line 1, ZIPNET_LISTEN: {OPEN}"),
            ),
            (format!("ZIPNET_LISTEN=a\\\nZIPNET_SECRET={secret}\n"), format!("line 1, ZIPNET_LISTEN: {TWO}")),
            (format!("ZIPNET_LISTEN=a ZIPNET_SECRET={secret}\n"), format!("line 1, ZIPNET_LISTEN: {TWO}")),
            (format!("\nZIPNET_SECRET={secret}\u{200b}\n"), format!("line 2, ZIPNET_SECRET: {HIDDEN}")),
            (format!("\u{feff}ZIPNET_SECRET={secret}"), format!("line 1: {MARK}")),
        ] {
            let mistakes = read(text.as_bytes()).expect_err(&text);
            assert_eq!(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>(), [said], "{text}");
        }
        let latin = [b"A=b\nZIPNET_SECRET=".as_slice(), b"zq\xe9"].concat();
        let mistakes = read(&latin).expect_err("no UTF-8");
        assert_eq!(mistakes[0].to_string(), format!("line 2, ZIPNET_SECRET: {NO_TEXT}"));
        assert_eq!(read(b"one\ntwo\nA=b").expect_err("two lines").len(), 2);
        let shown = format!("{:?}", read(format!("ZIPNET_SECRET={secret}").as_bytes()).unwrap());
        assert!(!shown.contains(secret), "{shown}");
    }

    #[test]
    fn variables_of_others_may_be_anything_and_ours_are_named() {
        let bytes = |text: &[u8]| OsString::from_vec(text.to_vec());
        let foreign = (bytes(b"L\xe9"), bytes(b"x"));
        let odd = (bytes(b"LESSCHARSET"), bytes(b"\xff"));
        let plain = (bytes(b"ZIPNET_INSTANCE"), bytes(b"acme"));
        let taken = take([foreign.clone(), odd.clone(), plain.clone()]).expect("ours is a text");
        assert_eq!(taken, BTreeMap::from([("ZIPNET_INSTANCE".to_owned(), "acme".to_owned())]));
        let secret = (bytes(b"ZIPNET_SECRET"), bytes(b"zq7\xff"));
        let name = (bytes(b"ZIPNET_\xff"), bytes(b"zq7"));
        let mistakes = take([foreign, odd, plain, secret, name]).expect_err("two are no text");
        let said: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "ZIPNET_SECRET is not UTF-8: write it as text",
                "a variable like ZIPNET_SECRET is not UTF-8: write it as text"
            ]
        );
    }
}
