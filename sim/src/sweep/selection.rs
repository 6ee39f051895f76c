//! From paths on the command line to scenarios, and what of them a sweep has to know.

use core::fmt;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zipnet_reports::Exit;
use zipnet_scenarios::scenario::{Amount, Expectation, Threshold};
use zipnet_scenarios::words::Word as _;
use zipnet_scenarios::{Diagnostic, Scenario};

/// A scenario that was read, as the parent of its runs knows it. The runs read the file themselves.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    /// The file.
    pub(crate) path: String,
    /// What stood in it: every run is of this text, whatever becomes of the file.
    pub(crate) text: Arc<str>,
    /// Folder and name without the extension; unique within a selection.
    pub(crate) name: String,
    /// The title it gives itself.
    pub(crate) title: String,
    /// What it can be selected by.
    pub(crate) tags: Vec<String>,
    /// The defect it must find, if it is a canary.
    pub(crate) canary: Option<Planted>,
    /// The defect without which it is no misuse, if it has a control.
    pub(crate) control: Option<Planted>,
    /// What must happen in at least one seed.
    pub(crate) sometimes: Vec<Demand>,
    /// What must fire in at least one seed.
    pub(crate) faults: Vec<Demand>,
    /// What must hold for a statistic over all seeds.
    pub(crate) thresholds: Vec<Threshold>,
}

/// Something in a scenario that is judged over all its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Its id.
    pub(crate) id: String,
    /// The sentence that says what it is for.
    pub(crate) say: String,
    /// Its line in the file.
    pub(crate) line: u32,
}

/// A defect that is planted on purpose, and what must be seen then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planted {
    /// The guard that is removed.
    pub(crate) defect: String,
    /// The property that must be reported; any failure will do if there is none.
    pub(crate) property: Option<String>,
}

/// Why a path cannot be run.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// There is nothing readable at the path.
    Path {
        /// The path.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// There is a file, but no scenario in it.
    Invalid {
        /// Everything that is wrong with it; at least one.
        diagnostics: Vec<Diagnostic>,
    },
}

impl Unreadable {
    /// The exit code of a process that has only this to report.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Path { reason, .. } if reason.kind() == io::ErrorKind::InvalidData => Exit::InvalidScenario,
            Self::Path { .. } => Exit::Configuration,
            Self::Invalid { .. } => Exit::InvalidScenario,
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { path, reason } => {
                write!(f, "error: failed to read {}: {reason}", path.display())
            }
            Self::Invalid { diagnostics } => {
                for (index, diagnostic) in diagnostics.iter().enumerate() {
                    let gap = if index == 0 { "" } else { "\n\n" };
                    write!(f, "{gap}{diagnostic}")?;
                }
                Ok(())
            }
        }
    }
}

/// Reads every scenario that the paths stand for, or says what is wrong with each that cannot be read.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Selected>, Vec<Unreadable>> {
    let mut files = BTreeSet::new();
    let mut selected: Vec<Selected> = Vec::new();
    let mut refusals = Vec::new();
    for path in paths {
        match zipnet_scenarios::list(path) {
            Err(reason) => refusals.push(Unreadable::Path { path: path.clone(), reason }),
            Ok(found) => {
                for file in found {
                    if !files.insert(file.clone()) {
                        continue;
                    }
                    match read_text(&file).and_then(|text| Ok((parse(&file, &text)?, text))) {
                        Ok((scenario, text)) => {
                            selected.push(Selected::new(&file, text.into(), &scenario, &selected));
                        }
                        Err(refusal) => refusals.push(refusal),
                    }
                }
            }
        }
    }
    if refusals.is_empty() { Ok(selected) } else { Err(refusals) }
}

/// Reads one scenario file.
pub(crate) fn read_one(path: &Path) -> Result<Scenario, Unreadable> {
    parse(path, &read_text(path)?)
}

fn read_text(path: &Path) -> Result<String, Unreadable> {
    std::fs::read_to_string(path).map_err(|reason| Unreadable::Path { path: path.to_owned(), reason })
}

/// Reads the text of a scenario file.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Scenario, Unreadable> {
    zipnet_scenarios::read(&path.display().to_string(), text)
        .map_err(|diagnostics| Unreadable::Invalid { diagnostics })
}

impl Selected {
    fn new(path: &Path, text: Arc<str>, scenario: &Scenario, others: &[Self]) -> Self {
        let sometimes = scenario.expects.iter().filter(|expect| match expect.what {
            Expectation::Sometimes { .. } => true,
            Expectation::Always(_) | Expectation::Eventually { .. } => false,
        });
        Self {
            path: path.display().to_string(),
            text,
            name: name(path, others),
            title: scenario.title.clone(),
            tags: scenario.tags.clone(),
            canary: scenario.canary.as_ref().map(|canary| Planted {
                defect: canary.defect.name().to_owned(),
                property: Some(canary.property.name().to_owned()),
            }),
            control: scenario
                .control
                .as_ref()
                .map(|control| Planted { defect: control.guard.name().to_owned(), property: None }),
            sometimes: sometimes
                .map(|expect| Demand {
                    id: expect.id.clone(),
                    say: expect.say.clone(),
                    line: expect.place.line,
                })
                .collect(),
            faults: scenario
                .faults
                .iter()
                .map(|fault| Demand { id: fault.id.clone(), say: fault.say.clone(), line: fault.place.line })
                .collect(),
            thresholds: scenario.thresholds.clone(),
        }
    }
}

/// A bound as a sample is: a count, or milliseconds.
pub(crate) const fn bound(amount: Amount) -> u64 {
    match amount {
        Amount::Count(count) => count,
        Amount::Time(span) => span.millis(),
    }
}

/// `folder/stem`, with a number behind it where that is taken.
fn name(path: &Path, others: &[Selected]) -> String {
    let word = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let stem = word(path.file_stem()).unwrap_or_default();
    let short = match word(path.parent().and_then(Path::file_name)) {
        Some(folder) => format!("{folder}/{stem}"),
        None => stem,
    };
    let is_taken = |name: &str| others.iter().any(|other| other.name == name);
    let numbered = (2_u64..).map(|number| format!("{short}-{number}"));
    core::iter::once(short.clone())
        .chain(numbered)
        .find(|name| !is_taken(name))
        .expect("there are more numbers than scenarios")
}
