//! Runs the conversations of a folder.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// What the lines of a role's conversations mean.
pub(crate) trait Stage {
    /// Something happens at this moment; returns what the machine does about it, a line each.
    fn act(&mut self, now: Duration, words: &[&str]) -> Vec<String>;

    /// What the machine waits for, in a line.
    fn waits(&self) -> String;
}

/// Compares every conversation of the folder with what a fresh stage gives, or rewrites it.
///
/// # Panics
/// If they differ, or the folder holds none.
pub(crate) fn check<S: Stage>(folder: &str, stage: impl Fn() -> S) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(!files.is_empty(), "{} holds no conversation", folder.display());
    let mut different = Vec::new();
    for path in files {
        let written = std::fs::read_to_string(&path).unwrap();
        let played = play(&written, stage());
        if written != played {
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&path, played).unwrap();
            } else {
                different.push(format!("{}: {}", path.display(), first_difference(&written, &played)));
            }
        }
    }
    assert!(different.is_empty(), "{}\nUPDATE=1 rewrites the files", different.join("\n"));
}

fn play(written: &str, mut stage: impl Stage) -> String {
    let mut blocks = Vec::new();
    for block in written.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let mut played = String::new();
        let mut acts = Vec::new();
        for line in block.lines().take_while(|line| *line != "----") {
            writeln!(played, "{line}").unwrap();
            if !line.starts_with('#') && !line.is_empty() {
                acts.push(line);
            }
        }
        if !acts.is_empty() {
            played.push_str("----\n");
            for act in acts {
                let (now, words) = act.split_once(' ').unwrap_or_else(|| panic!("no time in `{act}`"));
                for line in stage.act(moment(now), &words.split_whitespace().collect::<Vec<_>>()) {
                    writeln!(played, "{line}").unwrap();
                }
            }
            writeln!(played, "{}", stage.waits()).unwrap();
        }
        blocks.push(played);
    }
    blocks.join("\n")
}

fn moment(text: &str) -> Duration {
    let parse = |digits: &str| digits.parse().unwrap_or_else(|_| panic!("`{text}` is not a time"));
    match text.strip_suffix("ms") {
        Some(digits) => Duration::from_millis(parse(digits)),
        None => Duration::from_secs(parse(text.strip_suffix('s').unwrap_or(""))),
    }
}

fn first_difference(written: &str, played: &str) -> String {
    let mut lines = written.lines().zip(played.lines()).enumerate();
    let line = lines.find(|(_, (written, played))| written != played);
    line.map_or_else(
        || "one is longer than the other".into(),
        |(index, (written, played))| format!("line {}\n  written: {written}\n  played:  {played}", index + 1),
    )
}
