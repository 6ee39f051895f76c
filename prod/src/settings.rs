//! What an operator set, and where: a flag wins over a variable, a variable over the file of `--config`, that over a systemd
//! credential.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;
use zipnet_core::message::Role;
use zipnet_node::config::{Build, Config, ConfigError, Warning, read_files};

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
    /// The file of `--config`.
    File(PathBuf),
    /// The environment.
    Variable,
    /// The command line.
    Flag,
}

impl core::fmt::Display for Origin {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Credential(path) => write!(f, "credential {}", path.display()),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Variable => f.write_str("variable"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Every value that was set.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<String, (String, Origin)>);

impl Settings {
    /// Collects what was set. `environment` is that of the process.
    ///
    /// # Errors
    /// The sentence that says which file can not be read.
    pub fn collect(
        role: Role,
        matches: &ArgMatches,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
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
            for (name, value) in read(&path)? {
                settings.put(&name, value, Origin::File(path.clone()));
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
        if self.0.get(&twin).is_some_and(|(_, other)| *other < origin) {
            self.0.remove(&twin);
        }
        self.0.insert(name.to_owned(), (value, origin));
    }

    /// The configuration.
    ///
    /// # Errors
    /// Every mistake.
    pub fn config(&self, role: Role) -> Result<(Config, Vec<Warning>), Vec<ConfigError>> {
        let mut values: BTreeMap<_, _> =
            self.0.iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect();
        read_files(&mut values, |path| std::fs::read_to_string(path).map_err(|reason| reason.to_string()))?;
        Config::from_env(role, &values, Build::CURRENT)
    }

    /// The configuration as lines, secrets left out.
    #[must_use]
    pub fn show(&self, role: Role, origins: bool) -> String {
        let mut text = String::new();
        for (variable, _) in variables(role).chain([("RUST_LOG", String::new())]) {
            let line = match self.0.get(variable) {
                Some((value, origin)) => {
                    let secret = variable.contains("SECRET") && !variable.ends_with("_FILE");
                    let value = if secret { "(not shown)" } else { value.as_str() };
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
fn read(path: &Path) -> Result<Vec<(String, String)>, String> {
    let unreadable = |reason: String| format!("{CONFIG}={} can not be read: {reason}", path.display());
    let lines = dotenvy::from_path_iter(path).map_err(|reason| unreadable(reason.to_string()))?;
    lines.collect::<Result<_, _>>().map_err(|reason| unreadable(reason.to_string()))
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
                    export ZIPNET_METRICS='127.0.0.1:9100'\n";
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
        assert!(line(&shown, "ZIPNET_ROUND_DEADLINE=9s").ends_with("node.env"), "{shown}");
        assert!(line(&shown, "ZIPNET_SECRET=(not shown)").ends_with("node.env"), "{shown}");
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
        assert!(errors[0].to_string().contains("are both set"), "{errors:?}");
        let set = settings(&["--secret", "a"], &[("ZIPNET_SECRET_FILE", "/b")]);
        assert!(!set.show(Role::Server, false).contains("/b"));
    }

    #[test]
    fn a_file_that_can_not_be_read_is_named() {
        let matches = command(Role::Server).get_matches_from(["zipnet-server", "--config", "/no/such.env"]);
        let refused = Settings::collect(Role::Server, &matches, &BTreeMap::new()).expect_err("missing");
        assert!(refused.starts_with("ZIPNET_CONFIG=/no/such.env can not be read: "), "{refused}");
    }
}
