//! One run as a process: started, awaited, its answer read; made twice where determinism is checked.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zipnet_reports::{Exit, RunResult};

use crate::live::process::own_binary;
use crate::{determinism, one};

/// One run to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Which task it belongs to.
    pub(crate) task: usize,
    /// Which part of the task.
    pub(crate) part: Part,
    /// The scenario file.
    pub(crate) scenario: PathBuf,
    /// What stood in it when it was read.
    pub(crate) text: Arc<str>,
    /// The seed.
    pub(crate) seed: u64,
    /// The folder of the binaries to run instead of a simulation.
    pub(crate) live: Option<PathBuf>,
    /// The defect to plant.
    pub(crate) defect: Option<String>,
    /// Whether to make the run twice and compare.
    pub(crate) repeat: bool,
    /// Where the artefacts of the run go.
    pub(crate) out: Option<PathBuf>,
}

/// The two things a scenario is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything must hold.
    Sweep,
    /// A planted defect must be found.
    Hunt,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It has a result.
    Finished(Box<RunResult>),
    /// It has none, and should have one: a bug in the simulator.
    Broken(Broken),
    /// It was killed or not even started because the sweep ends.
    Cut,
}

/// A run that died, or answered with something that is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// One sentence.
    pub(crate) what: String,
    /// The end of what the process said.
    pub(crate) said: String,
    /// The command that shows it again.
    pub(crate) reproduce: String,
}

/// Keeps the processes of a sweep together, and ends them together.
#[derive(Debug, Default)]
pub(crate) struct Fence {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    closed: Option<&'static str>,
    /// What the first run said that could not write its artefacts.
    unwritten: Option<String>,
    next: u64,
    running: BTreeMap<u64, Running>,
}

/// A process that runs.
#[derive(Clone, Debug)]
struct Running {
    child: Arc<Mutex<Child>>,
    /// It has processes of its own to end, and does so when it is asked to.
    is_asked_first: bool,
}

impl Fence {
    /// Lets no further process start, and ends those that run. The first reason stays. Who was asked and goes on is
    /// killed by the second call.
    pub(crate) fn close(&self, reason: &'static str) {
        self.close_softly(reason);
        let running: Vec<_> = self.inner().running.values_mut().map(Running::end).collect();
        for (child, asked) in running {
            let mut child = lock(&child);
            // Both fail only for a process that has ended, which is what is wanted.
            drop(if asked { terminate(&child) } else { child.kill() });
        }
    }

    /// Lets no further process start; those that run may finish.
    pub(crate) fn close_softly(&self, reason: &'static str) {
        self.inner().closed.get_or_insert(reason);
    }

    /// Whether no further process may start.
    pub(crate) fn is_closed(&self) -> bool {
        self.reason().is_some()
    }

    /// Why no further process may start.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        self.inner().closed
    }

    /// What a run said that has a result and could not write all that was asked for.
    pub(crate) fn unwritten(&self) -> Option<String> {
        self.inner().unwritten.clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Running {
    /// The process, and whether it is only asked to end this time.
    fn end(&mut self) -> (Arc<Mutex<Child>>, bool) {
        (Arc::clone(&self.child), core::mem::take(&mut self.is_asked_first))
    }
}

fn terminate(child: &Child) -> std::io::Result<()> {
    let id = i32::try_from(child.id()).map_err(std::io::Error::other)?;
    Ok(kill(Pid::from_raw(id), Signal::SIGTERM)?)
}

/// Makes the run, and once more if the job says so.
pub(crate) fn run(job: &Job, fence: &Fence) -> Outcome {
    match attempt(job, fence) {
        Ok(result) => Outcome::Finished(Box::new(result)),
        Err(Trouble::Cut) => Outcome::Cut,
        Err(Trouble::Broken(what, said)) => Outcome::Broken(Broken {
            what,
            said,
            reproduce: match &job.live {
                None => one::reproduce(&job.scenario, job.seed, job.defect.as_deref()),
                Some(folder) => one::reproduce_live(&job.scenario, job.seed, folder),
            },
        }),
    }
}

enum Trouble {
    Cut,
    Broken(String, String),
}

fn attempt(job: &Job, fence: &Fence) -> Result<RunResult, Trouble> {
    let first = start(job, job.out.as_deref(), None, fence)?;
    if !job.repeat {
        return Ok(first);
    }
    let second = start(job, None, None, fence)?;
    if determinism::agree(&first, &second) {
        return Ok(RunResult { repeated: true, ..first });
    }
    let reproduce = one::reproduce(&job.scenario, job.seed, job.defect.as_deref());
    determinism::diverged(first, &second, reproduce, |window| {
        let window = format!("{}..{}", window.start, window.end);
        Ok((start(job, None, Some(&window), fence)?, start(job, None, Some(&window), fence)?))
    })
}

/// Starts this binary again for one run, and waits for its answer.
fn start(job: &Job, out: Option<&Path>, window: Option<&str>, fence: &Fence) -> Result<RunResult, Trouble> {
    let broken = |what: String| Trouble::Broken(what, String::new());
    let binary = own_binary().map_err(|reason| broken(format!("failed to find itself: {reason}")))?;
    let mut command = Command::new(binary);
    // A run depends on its scenario and seed, so it gets no environment that could tell two machines apart.
    command.env_clear().args(arguments(job, out, window));
    if job.live.is_some() {
        // Nodes have folders somewhere; where that is does not tell on what they do.
        command.env("TMPDIR", std::env::temp_dir());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());

    let (number, child) = {
        let mut inner = fence.inner();
        if inner.closed.is_some() && window.is_none() {
            return Err(Trouble::Cut);
        }
        let child = command.spawn().map_err(|reason| broken(format!("failed to start a run: {reason}")))?;
        let (number, child) = (inner.next, Arc::new(Mutex::new(child)));
        inner.next += 1;
        let running = Running { child: Arc::clone(&child), is_asked_first: job.live.is_some() };
        inner.running.insert(number, running);
        (number, child)
    };
    let (stdin, stdout, stderr) = {
        let mut child = lock(&child);
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    };
    if let Some(mut stdin) = stdin {
        // One that has ended already says why.
        drop(stdin.write_all(job.text.as_bytes()));
    }
    let (stdout, stderr) = std::thread::scope(|scope| {
        let stderr = scope.spawn(move || read(stderr));
        (read(stdout), stderr.join().unwrap_or_default())
    });
    // Both pipes are closed, so that the process has ended or is about to: this keeps nobody from killing it.
    let status = lock(&child).wait();
    fence.inner().running.remove(&number);

    let status = status.map_err(|reason| broken(format!("failed to wait for a run: {reason}")))?;
    let said = String::from_utf8_lossy(&stderr).into_owned();
    if status.code() == Some(Exit::Configuration.code().into())
        && let Ok(result) = one::answer(&String::from_utf8_lossy(&stdout))
    {
        fence.inner().unwritten.get_or_insert(said);
        return Ok(result);
    }
    if !status.success() {
        return Err(if fence.is_closed() && (status.code().is_none() || job.live.is_some()) {
            Trouble::Cut
        } else {
            Trouble::Broken(format!("the run ended with {status} and without a result"), said)
        });
    }
    one::answer(&String::from_utf8_lossy(&stdout)).map_err(|refusal| Trouble::Broken(refusal, said))
}

fn arguments(job: &Job, out: Option<&Path>, window: Option<&str>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "one".into(),
        "--scenario".into(),
        job.scenario.clone().into(),
        // The file may have been changed since it was read.
        "--read-stdin".into(),
    ];
    arguments.extend(["--seed".into(), job.seed.to_string().into()]);
    match &job.defect {
        Some(name) => arguments.extend(["--defect".into(), name.into()]),
        None => arguments.push("--strict".into()),
    }
    if let Some(folder) = &job.live {
        arguments.extend(["--live".into(), folder.into()]);
        arguments.extend(["--parent".into(), std::process::id().to_string().into()]);
    }
    if let Some(out) = out {
        arguments.extend(["--out".into(), out.into()]);
    }
    if let Some(window) = window {
        arguments.extend(["--window".into(), window.into()]);
    }
    arguments
}

fn read(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read before an error is kept; if it is not enough, the answer is refused.
        drop(pipe.read_to_end(&mut bytes));
    }
    bytes
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
