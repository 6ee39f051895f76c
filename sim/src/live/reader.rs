//! A reader of each deployment: `zipnet tail`, which checks every signature, roster and link of the chain by itself.

use core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use zipnet_core::time::Time;

use super::process::Process;
use super::tail::Tail;

/// The file name of its binary.
pub(super) const BINARY: &str = "zipnet";

/// How long one that has given up is left alone.
const PAUSE: Duration = Duration::from_secs(2);

/// A reader. It begins as soon as it knows a node, and again whenever it has given up.
#[derive(Debug)]
pub(super) struct Reader {
    binary: PathBuf,
    instance: String,
    listens: SocketAddr,
    state: PathBuf,
    printed: Tail,
    complaints: PathBuf,
    process: Option<Process>,
    /// When it may begin.
    next: Time,
}

impl Reader {
    /// The reader of an instance; it does not run yet. What it prints goes below `logs`.
    pub(super) fn new(
        name: &str,
        instance: &str,
        binaries: &Path,
        listens: SocketAddr,
        state: &Path,
        logs: &Path,
    ) -> Self {
        Self {
            binary: binaries.join(BINARY),
            instance: instance.to_owned(),
            listens,
            state: state.join(name),
            printed: Tail::new(logs.join(format!("{name}.out"))),
            complaints: logs.join(format!("{name}.log")),
            process: None,
            next: Time::default(),
        }
    }

    /// Starts it if it does not run and `peers` are known. The lines that it has printed since the last call.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn look(&mut self, now: Time, peers: &str) -> io::Result<Vec<String>> {
        if let Some(process) = &mut self.process
            && process.ended()?.is_some()
        {
            self.process = None;
            self.next = now.after(PAUSE);
        }
        if self.process.is_none() && self.next <= now && !peers.is_empty() {
            let arguments = [
                "tail",
                "--format=json",
                &format!("--instance={}", self.instance),
                &format!("--bootstrap={peers}"),
                &format!("--listen={}", self.listens),
                &format!("--state-dir={}", self.state.display()),
            ];
            let (out, complaints) = (self.printed.path(), &self.complaints);
            let process = Process::start(&self.binary, &arguments, &BTreeMap::new(), out, complaints)?;
            self.process = Some(process);
        }
        self.printed.lines(false)
    }
}
