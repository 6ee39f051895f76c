//! Processes of nodes: started, signalled, awaited, and never left behind.
//!
//! A node is started through this very binary (`zipnet-sim guard`), which asks the system to be killed when its parent
//! is gone and then becomes the node. So no node outlives its run, however that ends.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use zipnet_reports::Exit;

use crate::say::warn;

/// A process, and whose child it is.
#[derive(Debug, Args)]
pub(crate) struct Guard {
    /// The process without which the command must not go on.
    #[arg(long)]
    parent: i32,
    /// The command with its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// This very binary. Where the system offers it, by a name that stays right if the file is replaced meanwhile.
pub(crate) fn own_binary() -> io::Result<PathBuf> {
    let held = PathBuf::from("/proc/self/exe");
    if held.exists() { Ok(held) } else { std::env::current_exe() }
}

/// Becomes the command. Returns only if that fails.
pub(crate) fn guard(flags: &Guard) -> Exit {
    if let Err(reason) = tie(flags.parent, Signal::SIGKILL) {
        warn(&format!("error: failed to tie this process to its parent: {reason}"));
        return Exit::Internal;
    }
    let Some((program, arguments)) = flags.command.split_first() else { return Exit::Usage };
    let reason = Command::new(program).args(arguments).exec();
    warn(&format!("error: failed to start {}: {reason}", program.display()));
    Exit::Internal
}

/// Asks the system to send this process a TERM when its parent is gone.
///
/// # Errors
/// If it is gone already, or the system refuses.
pub(crate) fn end_with(parent: i32) -> io::Result<()> {
    tie(parent, Signal::SIGTERM)
}

fn tie(parent: i32, signal: Signal) -> io::Result<()> {
    signal_after_parent(signal)?;
    // The parent may have ended before the system was asked.
    if getppid().as_raw() == parent { Ok(()) } else { Err(io::Error::other("the parent has ended")) }
}

/// Asks for a signal when the thread that started this process is gone.
#[cfg(target_os = "linux")]
fn signal_after_parent(signal: Signal) -> io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(signal)?)
}

/// There is no such request here: nodes are killed by a run that ends, but outlive one that is killed itself.
#[cfg(not(target_os = "linux"))]
fn signal_after_parent(_: Signal) -> io::Result<()> {
    Ok(())
}

/// A running node. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// It is frozen.
    pub(super) paused: bool,
}

/// How a process ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this code.
    Code(u8),
    /// By this signal, which this run did not send.
    Signal(i32),
}

/// The code with which Rust ends a process whose main thread panicked.
const PANICKED: u8 = 101;

impl Process {
    /// Starts a binary with these arguments and exactly these variables. What it prints is appended to the files.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn start(
        binary: &Path,
        arguments: &[&str],
        environment: &BTreeMap<String, String>,
        stdout: &Path,
        stderr: &Path,
    ) -> io::Result<Self> {
        let append =
            |path: &Path| -> io::Result<File> { OpenOptions::new().create(true).append(true).open(path) };
        let mut command = Command::new(own_binary()?);
        command
            .args(["guard", "--parent", &std::process::id().to_string(), "--"])
            .arg(binary)
            .args(arguments);
        command.env_clear().envs(environment);
        command.stdin(Stdio::null()).stdout(append(stdout)?).stderr(append(stderr)?);
        // An interrupt at the terminal is for the run, which then ends its nodes.
        command.process_group(0);
        Ok(Self { child: command.spawn()?, paused: false })
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn ended(&mut self) -> io::Result<Option<Ended>> {
        Ok(self.child.try_wait()?.map(Ended::of))
    }

    /// Asks for an orderly stop.
    pub(super) fn terminate(&mut self) {
        self.resume();
        self.signal(Signal::SIGTERM);
    }

    /// Freezes it.
    pub(super) fn pause(&mut self) {
        self.signal(Signal::SIGSTOP);
        self.paused = true;
    }

    /// Lets it go on.
    pub(super) fn resume(&mut self) {
        if core::mem::take(&mut self.paused) {
            self.signal(Signal::SIGCONT);
        }
    }

    /// Its number in the system. It is nobody else's until [`Process::ended`] has said that it is over.
    pub(super) fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("the system's numbers of processes are small"))
    }

    fn signal(&self, signal: Signal) {
        // It fails only for a process that has ended, and whoever looks next will see that.
        kill(self.id(), signal).unwrap_or_default();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Ended {
    fn of(status: ExitStatus) -> Self {
        match (status.code().and_then(|code| u8::try_from(code).ok()), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }

    /// The exit code; none if a signal ended it.
    pub(super) const fn code(self) -> Option<u8> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) => None,
        }
    }
}

impl core::fmt::Display for Ended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Code(PANICKED) => write!(f, "code {PANICKED}, which is a panic"),
            Self::Code(code) => write!(f, "code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "the signal {signal}"),
                Err(_) => write!(f, "the signal {number}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(Ended::of(ExitStatus::from_raw(77 << 8)).code(), Some(77));
        assert_eq!(Ended::of(ExitStatus::from_raw(9)), Ended::Signal(9));
        assert_eq!(Ended::Signal(9).code(), None);
        assert_eq!(Ended::Signal(9).to_string(), "the signal SIGKILL");
        assert!(Ended::Code(101).to_string().contains("panic"));
    }
}
