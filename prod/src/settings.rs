//! What an operator set, and where: a flag wins over a variable, a variable over the file of `--config`, that over a systemd
//! credential.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;
use zipnet_core::id::Role;
use zipnet_node::config::{Build, Config, ConfigError, is_path, is_plain_name, is_plain_value, read_files};
use zipnet_world::environment::{self, Setting};

use crate::flags::{default_of, variables};

/// The variable of `--config`, which no configuration holds.
const CONFIG: &str = "ZIPNET_CONFIG";
/// Where systemd puts the credentials of a unit.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// Secrets that may be a credential, and its name.
const CREDENTIAL_NAMES: [(&str, &str); 2] =
    [("ZIPNET_SECRET", "zipnet-secret"), ("ZIPNET_COMMITTEE_SECRET", "zipnet-committee-secret")];

/// Where a value comes from. The later wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A file that systemd handed to the unit.
    Credential(PathBuf),
    /// The file of `--config`, and the line in it.
    File(PathBuf, usize),
    /// The environment.
    Variable,
    /// The command line.
    Flag,
}

impl core::fmt::Display for Origin {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Credential(path) => write!(f, "credential {}", path.display()),
            Self::File(path, line) => write!(f, "file {}, line {line}", path.display()),
            Self::Variable => f.write_str("variable"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Every value that was set.
#[derive(Clone, Default)]
pub struct Settings {
    values: BTreeMap<String, (String, Origin)>,
    /// What the file of `--config` has that nobody reads.
    warnings: Vec<String>,
}

impl core::fmt::Debug for Settings {
    /// Values may be secrets.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

impl Settings {
    /// Collects what was set. `environment` is that of the process.
    ///
    /// # Errors
    /// Sentences that say which file cannot be read, and why.
    pub fn collect(
        role: Role,
        matches: &ArgMatches,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<String>> {
        let mut settings = Self::default();
        let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        if let Some(folder) = set(CREDENTIALS) {
            for (variable, name) in CREDENTIAL_NAMES {
                let path = Path::new(folder).join(name);
                let reads = variables(role).any(|(known, _)| known == variable);
                if reads && path.exists() {
                    let file = format!("{variable}_FILE");
                    settings.put(&file, path.display().to_string(), Origin::Credential(path.clone()));
                }
            }
        }
        let file = matches.get_one::<PathBuf>("config").cloned();
        if let Some(path) = file.or_else(|| set(CONFIG).map(PathBuf::from)) {
            for set in read(&path)? {
                let Setting { line, name, value } = &set;
                if set.is_ours() && name != CONFIG {
                    settings.put(name, value.clone(), Origin::File(path.clone(), *line));
                    continue;
                }
                let name = if is_plain_name(name) { name } else { "what it sets" };
                settings.warnings.push(format!(
                    "{}, line {line}: {name} is not read: names begin with ZIPNET_, or are RUST_LOG",
                    shown(&path)
                ));
            }
        }
        for (name, value) in environment {
            let ours = name.starts_with("ZIPNET_") && name != CONFIG || name == "RUST_LOG";
            if ours && !value.is_empty() {
                settings.put(name, value.clone(), Origin::Variable);
            }
        }
        for (variable, _) in variables(role).chain([("RUST_LOG", "log".to_owned())]) {
            if matches.value_source(variable) == Some(ValueSource::CommandLine)
                && let Some(value) = matches.get_one::<String>(variable)
            {
                settings.put(variable, value.clone(), Origin::Flag);
            }
        }
        Ok(settings)
    }

    /// Takes in a value from an origin that is stronger than all before it. A secret and the file that holds it are the
    /// same setting: the stronger one replaces the other, and only two of one origin contradict each other.
    fn put(&mut self, name: &str, value: String, origin: Origin) {
        let twin = match name.strip_suffix("_FILE") {
            Some(secret) => secret.to_owned(),
            None => format!("{name}_FILE"),
        };
        // Lines of one file are of one origin.
        let weaker = |other: &Origin| {
            *other < origin && !matches!((other, &origin), (Origin::File(..), Origin::File(..)))
        };
        if self.values.get(&twin).is_some_and(|(_, other)| weaker(other)) {
            self.values.remove(&twin);
        }
        self.values.insert(name.to_owned(), (value, origin));
    }

    /// The configuration.
    ///
    /// # Errors
    /// Every mistake.
    pub fn config(&self, role: Role) -> Result<(Config, Vec<String>), Vec<String>> {
        let mut values: BTreeMap<_, _> =
            self.values.iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect();
        let read = |path: &str| std::fs::read_to_string(path).map_err(|reason| reason.to_string());
        let (config, warnings) = read_files(&mut values, read)
            .and_then(|()| Config::from_env(role, &values, Build::CURRENT))
            .map_err(|mistakes| {
                mistakes.into_iter().map(|mistake| self.sentence(mistake)).collect::<Vec<_>>()
            })?;
        Ok((config, self.warnings.iter().cloned().chain(warnings.iter().map(ToString::to_string)).collect()))
    }

    /// What is wrong, and where it was set. What stands in a file is not repeated: it may have slipped from another line.
    fn sentence(&self, mistake: ConfigError) -> String {
        let name = match &mistake {
            ConfigError::Unknown { variable, .. } => Some(variable.as_str()),
            _ => mistake.variable(),
        };
        let Some((_, origin @ Origin::File(..))) = name.and_then(|name| self.values.get(name)) else {
            return mistake.to_string();
        };
        let mistake = match mistake {
            ConfigError::Invalid { variable, expected, .. } => {
                ConfigError::Invalid { variable, value: String::new(), expected }
            }
            other => other,
        };
        format!("{origin}: {mistake}")
    }

    /// The variables whose values are not understood: a secret may have slipped into them.
    fn wrong(&self, role: Role) -> BTreeSet<&'static str> {
        let secret = |name: &str| name.contains("SECRET") && !name.ends_with("_FILE");
        let values =
            self.values.iter().filter(|(name, _)| !name.ends_with("_FILE")).map(|(name, (value, _))| {
                // Nothing is said of secrets, and stretching them takes long.
                (name.clone(), if secret(name) { "0".repeat(64) } else { value.clone() })
            });
        let mistakes = Config::from_env(role, &values.collect(), Build::CURRENT).err().unwrap_or_default();
        let invalid = |mistake: &ConfigError| matches!(mistake, ConfigError::Invalid { .. });
        mistakes.iter().filter(|mistake| invalid(mistake)).filter_map(ConfigError::variable).collect()
    }

    /// The configuration as lines, secrets left out.
    #[must_use]
    pub fn show(&self, role: Role, origins: bool) -> String {
        let mut text = String::new();
        let wrong = self.wrong(role);
        for (variable, _) in variables(role).chain([("RUST_LOG", String::new())]) {
            let line = match self.values.get(variable) {
                Some((value, origin)) => {
                    let file = variable.ends_with("_FILE");
                    let secret = variable.contains("SECRET") && !(file && is_path(value));
                    let value = if wrong.contains(variable) {
                        "(not understood)"
                    } else if secret || !is_plain_value(value) {
                        "(not shown)"
                    } else {
                        value.as_str()
                    };
                    if origins {
                        format!("{variable}={value}  # {origin}")
                    } else {
                        format!("{variable}={value}")
                    }
                }
                None => {
                    let default = if variable == "RUST_LOG" { "info" } else { default_of(variable) };
                    let default = if default.is_empty() { "not set" } else { default };
                    if origins {
                        format!("# {variable}: {default}  # default")
                    } else {
                        format!("# {variable}: {default}")
                    }
                }
            };
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

/// The variables that a file sets.
fn read(path: &Path) -> Result<Vec<Setting>, Vec<String>> {
    let unreadable = |reason: String| format!("{CONFIG}={} cannot be read: {reason}", shown(path));
    let text = std::fs::read(path).map_err(|reason| vec![unreadable(reason.to_string())])?;
    environment::read(&text)
        .map_err(|mistakes| mistakes.iter().map(|mistake| unreadable(mistake.to_string())).collect())
}

/// A path that was given, unless it is something else.
fn shown(path: &Path) -> String {
    let path = path.display().to_string();
    if is_plain_value(&path) { path } else { "(not shown)".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::command;

    fn settings(arguments: &[&str], environment: &[(&str, &str)]) -> Settings {
        let matches = command(Role::Server).get_matches_from([&["zipnet-server"], arguments].concat());
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::collect(Role::Server, &matches, &environment).unwrap()
    }

    fn line<'a>(shown: &'a str, name: &str) -> &'a str {
        shown.lines().find(|line| line.starts_with(name)).unwrap_or_default()
    }

    #[test]
    fn flags_win_over_variables_over_files_over_credentials() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("node.env");
        let text = "# of this node\nZIPNET_ROUND_PERIOD=1s\nZIPNET_ROUND_DEADLINE=\"9s\"\nZIPNET_SECRET=from-file\n\
                    ZIPNET_METRICS='127.0.0.1:9100'\n";
        std::fs::write(&file, text).unwrap();
        std::fs::write(scratch.path().join("zipnet-secret"), "credential\n").unwrap();
        std::fs::write(scratch.path().join("zipnet-committee-secret"), "committee\n").unwrap();
        let folder = scratch.path().to_str().unwrap();
        let set = settings(
            &["--round-period", "3s", "--config", file.to_str().unwrap()],
            &[
                ("ZIPNET_ROUND_PERIOD", "2s"),
                ("ZIPNET_INSTANCE", "acme.mainnet"),
                ("CREDENTIALS_DIRECTORY", folder),
                ("PATH", "/bin"),
            ],
        );
        let shown = set.show(Role::Server, true);
        assert_eq!(line(&shown, "ZIPNET_ROUND_PERIOD="), "ZIPNET_ROUND_PERIOD=3s  # flag");
        assert_eq!(line(&shown, "ZIPNET_INSTANCE="), "ZIPNET_INSTANCE=acme.mainnet  # variable");
        assert!(line(&shown, "ZIPNET_ROUND_DEADLINE=9s").ends_with("node.env, line 3"), "{shown}");
        assert!(line(&shown, "ZIPNET_SECRET=(not shown)").ends_with("node.env, line 4"), "{shown}");
        assert!(line(&shown, "ZIPNET_COMMITTEE_SECRET_FILE=").contains("# credential"), "{shown}");
        assert_eq!(line(&shown, "# ZIPNET_UNIVERSE"), "# ZIPNET_UNIVERSE: mosaik.universe  # default");
        assert!(!shown.contains("from-file") && !shown.contains("PATH"), "{shown}");
        let (config, _) = set.config(Role::Server).expect("complete");
        assert_eq!(config.metrics.unwrap().0, "127.0.0.1:9100");
    }

    #[test]
    fn a_secret_and_its_file_of_one_origin_contradict_each_other() {
        let set = settings(&[], &[("ZIPNET_SECRET", "a"), ("ZIPNET_SECRET_FILE", "/b")]);
        let errors = set.config(Role::Server).expect_err("both are variables");
        assert!(errors[0].contains("are both set"), "{errors:?}");
        let set = settings(&["--secret", "a"], &[("ZIPNET_SECRET_FILE", "/b")]);
        assert!(!set.show(Role::Server, false).contains("/b"));
    }

    #[test]
    fn a_file_that_can_not_be_read_is_named() {
        let matches = command(Role::Server).get_matches_from(["zipnet-server", "--config", "/no/such.env"]);
        let refused = Settings::collect(Role::Server, &matches, &BTreeMap::new()).expect_err("missing");
        assert!(refused[0].starts_with("ZIPNET_CONFIG=/no/such.env cannot be read: "), "{refused:?}");
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_by_line_and_not_repeated() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("node.env");
        let text = "ZIPNET_INSTANCE=acme\nSECRET=a\nZIPNET_SECRET=$HOME\nZIPNET_COMMITTEE_SECRET=b\n\
                    ZIPNET_ROUND_PERIOD=zq7\nZIPNET_SECRET_FILE=/b\nzq7=x\n";
        std::fs::write(&file, text).unwrap();
        let place = |line: usize| format!("file {}, line {line}: ", file.display());
        let set = settings(&["--config", file.to_str().unwrap()], &[("HOME", "/home/me")]);
        let refused = set.config(Role::Server).expect_err("two of one secret");
        assert_eq!(
            refused,
            [place(3) + "ZIPNET_SECRET and ZIPNET_SECRET_FILE are both set: set one of them"]
        );
        std::fs::write(&file, text.replace("ZIPNET_SECRET_FILE=/b", "ZIPNET_CADENZ=1")).unwrap();
        let set = settings(&["--config", file.to_str().unwrap()], &[("HOME", "/home/me")]);
        let refused = set.config(Role::Server).expect_err("two mistakes");
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(refused[0].starts_with(&(place(6) + "ZIPNET_CADENZ is not a variable")), "{refused:?}");
        assert!(refused[1].starts_with(&(place(5) + "ZIPNET_ROUND_PERIOD is not understood")), "{refused:?}");
        std::fs::write(&file, text.replace("=zq7", "=3s").replace("ZIPNET_SECRET_FILE=/b", "")).unwrap();
        let set = settings(&["--config", file.to_str().unwrap()], &[("HOME", "/home/me")]);
        assert_eq!(set.values["ZIPNET_SECRET"].0, "$HOME", "nothing is replaced");
        let (_, warnings) = set.config(Role::Server).expect("complete");
        assert!(warnings[0].contains("line 2: SECRET is not read"), "{warnings:?}");
        assert!(warnings[1].contains("line 7: what it sets is not read"), "{warnings:?}");
    }
}
