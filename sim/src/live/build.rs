//! The binaries of nodes, of one build or of several.

use core::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use zipnet_core::params::RoundParams;
use zipnet_scenarios::node::Role;
use zipnet_scenarios::scenario::Params;

use super::reader;

/// What makes the binaries.
pub(crate) const BUILD: &str = "cargo build --release -p zipnet-prod";

/// Where other builds are, below the folder of the first one: each in a folder of its own.
const OTHERS: &str = "builds";

/// The binaries of all roles, of each build that there is.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    folder: PathBuf,
    own: Build,
    others: Vec<(Build, PathBuf)>,
}

/// What binaries say that they were built as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Build {
    pub(super) wire_version: u64,
    pub(super) machine_version: u64,
    pub(super) params: Shape,
}

impl Build {
    /// The same, as nodes know it; none if no node can be built like that.
    pub(super) fn node(&self) -> Option<zipnet_node::config::Build> {
        let number = |number: u64| u32::try_from(number).ok();
        let Shape { num_slots, slot_bytes, tag_len } = self.params;
        Some(zipnet_node::config::Build {
            params: RoundParams::new(number(num_slots)?, number(slot_bytes)?, number(tag_len)?).ok()?,
            wire_version: u8::try_from(self.wire_version).ok()?,
            machine_version: number(self.machine_version)?,
        })
    }
}

/// The shape of the rounds that they make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Shape {
    pub(super) num_slots: u64,
    pub(super) slot_bytes: u64,
    pub(super) tag_len: u64,
}

impl Binaries {
    /// Looks for the binaries in a folder and for other builds below it, and asks all of them what they were built as.
    ///
    /// # Errors
    /// What is missing or does not fit, and what to do about it.
    pub(crate) fn find(folder: &Path) -> Result<Self, String> {
        let own = build_in(folder)?;
        let mut others = Vec::new();
        for entry in fs::read_dir(folder.join(OTHERS)).into_iter().flatten() {
            let folder =
                entry.map_err(|reason| format!("read {}/{OTHERS}: {reason}", folder.display()))?.path();
            if folder.is_dir() {
                others.push((build_in(&folder)?, folder));
            }
        }
        others.sort_by(|(_, one), (_, other)| one.cmp(other));
        Ok(Self { folder: folder.to_owned(), own, others })
    }

    /// Where the first build is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The first build, with rounds of this shape.
    pub(super) fn with(&self, params: &Params) -> Build {
        let Params { num_slots, slot_bytes, tag_len, .. } = *params;
        Build { params: Shape { num_slots, slot_bytes, tag_len }, ..self.own }
    }

    /// Where the binaries of a build are, if they are anywhere.
    pub(super) fn of(&self, build: Build) -> Option<&Path> {
        if build == self.own {
            return Some(&self.folder);
        }
        self.others.iter().find(|(other, _)| *other == build).map(|(_, folder)| folder.as_path())
    }
}

/// The file name of the binary of a role.
pub(super) fn binary(role: Role) -> String {
    format!("zipnet-{role}")
}

/// What the binaries in a folder were built as.
fn build_in(folder: &Path) -> Result<Build, String> {
    let mut builds = Vec::new();
    for name in Role::ALL.into_iter().map(binary).chain([reader::BINARY.to_owned()]) {
        let path = folder.join(&name);
        if !path.is_file() {
            return Err(format!(
                "there is no {name} in {}; build it with `{BUILD}`, or name its folder with --bin-dir",
                folder.display()
            ));
        }
        builds.push(asked(&path)?);
    }
    match builds.as_slice() {
        [build, others @ ..] if others.iter().all(|other| other == build) => Ok(*build),
        _ => Err(format!(
            "the binaries in {} were built as different things; build all of them with `{BUILD}`",
            folder.display()
        )),
    }
}

/// Asks a binary what it was built as.
fn asked(path: &Path) -> Result<Build, String> {
    let output = Command::new(path).args(["build-info", "--format", "json"]).env_clear().output();
    let output = output.map_err(|reason| format!("{} cannot be started: {reason}", path.display()))?;
    serde_json::from_slice(&output.stdout).map_err(|reason| {
        format!(
            "{} does not say what it was built as (`build-info --format json`): {reason}; build it again with `{BUILD}`",
            path.display()
        )
    })
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wire_version, machine_version, params } = self;
        write!(f, "wire version {wire_version}, machine version {machine_version}, {params}")
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} slots of {} bytes with tags of {}", self.num_slots, self.slot_bytes, self.tag_len)
    }
}
