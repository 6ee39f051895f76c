//! Lines for people and for machines, on standard error.
//!
//! A node must never wait for whoever reads its lines: they are handed to a thread of their own, and if that falls far
//! behind, lines are dropped and counted.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use env_filter::Filter;
use serde::Serialize;
use zipnet_core::id::PeerId;
use zipnet_facts::{Account, Fact, Level};
use zipnet_node::config::Format;

use crate::flags;

/// Lines that wait to be written.
const WAITING_MAX: usize = 8_192;
/// A reader that takes no line for so long is waited for no longer at the end.
const STUCK_AFTER: Duration = Duration::from_millis(400);
/// How long the last lines may take, however slowly they are read.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// The end of the year 9999, since 1970: timestamps go no further.
const LATEST: Duration = Duration::from_secs(253_402_300_799);

/// Where a process writes its lines. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    format: Format,
    filter: Filter,
    /// Whose process this is, once that is known.
    node: OnceLock<PeerId>,
    next: Mutex<Next>,
    dropped: AtomicU64,
    /// How many lines were.
    written: Arc<AtomicU64>,
    /// Ends with the writer.
    writer: Mutex<Option<Receiver<()>>>,
}

/// What is written next.
#[derive(Debug)]
struct Next {
    /// The number of the next fact.
    seq: u64,
    /// To the writer, as long as there is one.
    lines: Option<SyncSender<String>>,
}

impl Journal {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// If `filter` is not in the syntax of `RUST_LOG`.
    pub fn start(format: Format, filter: &str) -> Result<Self, String> {
        let filter = env_filter::Builder::new()
            .try_parse(filter)
            .map_err(|reason| {
                format!("RUST_LOG={filter} is not understood: write a filter like info,zipnet_node=debug ({reason})")
            })?
            .build();
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let written = Arc::new(AtomicU64::new(0));
        let (end, writer) = channel();
        let to = io::stderr()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|reason| format!("failed to use standard error: {reason}"))?;
        // Without the lock of standard error, which whoever else has something to say would wait for.
        let count = Arc::clone(&written);
        drop(std::thread::spawn(move || {
            write(&waiting, File::from(to), &count);
            drop(end);
        }));
        Ok(Self(Arc::new(Inner {
            format,
            filter,
            node: OnceLock::new(),
            next: Mutex::new(Next { seq: 0, lines: Some(lines) }),
            dropped: AtomicU64::new(0),
            written,
            writer: Mutex::new(Some(writer)),
        })))
    }

    /// Whatever is told from here on is of this node.
    pub fn identify(&self, node: PeerId) {
        self.0.node.get_or_init(|| node);
    }

    /// Writes what is told of an event, if anything is and the filter wants it. Every fact takes a number, so that whoever
    /// reads the lines of everything knows whether one is missing.
    pub fn tell(&self, fact: Fact) {
        let wanted = self.wants(&fact);
        let Some(mut next) = self.next() else { return };
        let dropped = if wanted { self.0.dropped.swap(0, Ordering::Relaxed) } else { 0 };
        if dropped > 0 {
            if self.hand_over(&next, Fact::LinesLost { count: dropped }) {
                next.seq = next.seq.saturating_add(1);
            } else {
                self.0.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        if wanted && !self.hand_over(&next, fact) {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
        next.seq = next.seq.saturating_add(1);
    }

    /// What is written next. None while this thread is at it already: a panic there has to end the process all the same.
    fn next(&self) -> Option<MutexGuard<'_, Next>> {
        if !std::thread::panicking() {
            return Some(self.0.next.lock().unwrap_or_else(PoisonError::into_inner));
        }
        // Another thread needs it for a moment only.
        let until = Instant::now() + STUCK_AFTER;
        loop {
            match self.0.next.try_lock() {
                Ok(next) => return Some(next),
                Err(TryLockError::Poisoned(next)) => return Some(next.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => return None,
            }
        }
    }

    fn wants(&self, fact: &Fact) -> bool {
        let (level, target) = (fact.level(), fact.target());
        let level = match level {
            Level::Error => log::Level::Error,
            Level::Warn => log::Level::Warn,
            Level::Info => log::Level::Info,
            Level::Debug => log::Level::Debug,
            Level::Trace => log::Level::Trace,
        };
        self.0.filter.enabled(&log::Metadata::builder().level(level).target(target).build())
    }

    /// Gives a fact to the writer: whether that is not too slow. After the last line nothing is lost any more.
    fn hand_over(&self, next: &Next, fact: Fact) -> bool {
        let account = Account { seq: next.seq, node: self.0.node.get().copied(), fact };
        let text = render(self.0.format, SystemTime::now(), &account);
        next.lines.as_ref().is_none_or(|lines| lines.try_send(text).is_ok())
    }

    /// Waits until everything is written, or nothing was for a while: whether it is. Lines that come later are lost.
    #[must_use]
    pub fn close(&self) -> bool {
        drop(self.next().and_then(|mut next| next.lines.take()));
        match self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(writer) => drain(&writer, &self.0.written),
            None => true,
        }
    }
}

/// Whether the writer came to the end.
fn drain(writer: &Receiver<()>, written: &AtomicU64) -> bool {
    let begun = Instant::now();
    let mut before = written.load(Ordering::Relaxed);
    loop {
        match writer.recv_timeout(STUCK_AFTER) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = written.load(Ordering::Relaxed);
        if now == before || begun.elapsed() > CLOSE_MAX {
            return false;
        }
        before = now;
    }
}

fn write(waiting: &Receiver<String>, mut to: File, written: &AtomicU64) {
    while let Ok(text) = waiting.recv() {
        // Nobody is left to tell that nobody reads.
        drop(to.write_all(text.as_bytes()));
        written.fetch_add(1, Ordering::Relaxed);
    }
}

/// A line for programs.
#[derive(Serialize)]
struct Printed<'a> {
    /// RFC 3339, in UTC.
    timestamp: String,
    level: &'static str,
    target: &'static str,
    #[serde(flatten)]
    account: &'a Account,
    /// The sentence that people read. Its words may change; the fields do not.
    message: String,
}

/// One line with its end. A clock that is beyond what can be written is shown as the nearest time that can.
fn render(format: Format, now: SystemTime, account: &Account) -> String {
    let line = account.fact.line();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().min(LATEST);
    let now = humantime::format_rfc3339_micros(UNIX_EPOCH + since);
    match format {
        Format::Human => {
            let mut text = String::new();
            let said = flags::tame(&line.text).replace('\n', "\\n");
            writeln!(text, "{now} {:>5} {}: {said}", line.level.name(), line.target)
                .expect("writing to a string does not fail");
            text
        }
        Format::Json => {
            let printed = Printed {
                timestamp: now.to_string(),
                level: line.level.name(),
                target: line.target,
                account,
                message: line.text,
            };
            serde_json::to_string(&printed).expect("facts are plain data") + "\n"
        }
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::id::Round;

    use super::*;

    #[test]
    fn lines_have_one_shape() {
        let fact = Fact::AggregateForwarded { round: Round(7), participants: 3 };
        let account = Account { seq: 40, node: Some(PeerId([9; 32])), fact };
        let now = UNIX_EPOCH + Duration::from_micros(1_767_225_600_000_001);
        assert_eq!(
            render(Format::Human, now, &account),
            "2026-01-01T00:00:00.000001Z  INFO zipnet_node::roles::aggregator: aggregator: forwarded aggregate round=r7 \
             participants=3\n"
        );
        let node = "09".repeat(32);
        assert_eq!(
            render(Format::Json, now, &account),
            format!(
                "{{\"timestamp\":\"2026-01-01T00:00:00.000001Z\",\"level\":\"INFO\",\
                 \"target\":\"zipnet_node::roles::aggregator\",\"seq\":40,\"node\":\"{node}\",\
                 \"event\":\"aggregate-forwarded\",\"round\":7,\"participants\":3,\
                 \"message\":\"aggregator: forwarded aggregate round=r7 participants=3\"}}\n"
            )
        );
    }

    #[test]
    fn filters_are_those_of_the_documents() {
        let journal = Journal::start(Format::Human, "info,zipnet_node=info,mosaik=warn").unwrap();
        assert!(journal.close());
        let refused = Journal::start(Format::Human, "info,zipnet=loud").expect_err("no such level");
        assert!(refused.starts_with("RUST_LOG=info,zipnet=loud is not understood: write "), "{refused}");
    }

    #[test]
    fn what_consensus_does_for_each_entry_is_for_whoever_asks_for_everything() {
        let fact = Fact::Appended { index: 7, term: 1 };
        for (filter, wanted) in
            [("info", false), ("debug", false), ("info,zipnet_node::consensus=trace", true)]
        {
            let journal = Journal::start(Format::Human, filter).unwrap();
            assert_eq!(journal.wants(&fact), wanted, "{filter}");
            assert!(journal.close());
        }
    }

    #[test]
    fn clocks_that_are_far_off_are_no_reason_to_end() {
        let fact = Fact::Warning { text: "one\n\x1b[2Jtwo".to_owned() };
        let account = Account { seq: 0, node: None, fact };
        let far = Duration::from_secs(1 << 40);
        for (now, shown) in [
            (UNIX_EPOCH - far, "1970-01-01T00:00:00.000000Z"),
            (UNIX_EPOCH - Duration::from_nanos(1), "1970-01-01T00:00:00.000000Z"),
            (UNIX_EPOCH + far, "9999-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(
                render(Format::Human, now, &account),
                format!("{shown}  WARN zipnet_node::roles::common: one\\n\\u{{1b}}[2Jtwo\n")
            );
            assert!(render(Format::Json, now, &account).contains(shown));
        }
    }

    #[test]
    fn a_writer_that_is_stuck_is_not_waited_for() {
        let (end, writer) = channel();
        let written = AtomicU64::new(1);
        let begun = Instant::now();
        assert!(!drain(&writer, &written), "one line was written, and another one is stuck");
        assert!(begun.elapsed() < CLOSE_MAX);
        drop(end);
        assert!(drain(&writer, &written));
    }
}
