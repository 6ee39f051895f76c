//! Lines for people and for machines, on standard error.
//!
//! A node must never wait for whoever reads its lines: they are handed to a thread of their own, and if that falls far
//! behind, lines are dropped and counted.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use env_filter::Filter;
use zipnet_node::config::Format;
use zipnet_node::event::{Level, Line};

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
    lines: Mutex<Option<SyncSender<String>>>,
    dropped: AtomicU64,
    /// How many lines were.
    written: Arc<AtomicU64>,
    /// Ends with the writer.
    writer: Mutex<Option<Receiver<()>>>,
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
            lines: Mutex::new(Some(lines)),
            dropped: AtomicU64::new(0),
            written,
            writer: Mutex::new(Some(writer)),
        })))
    }

    /// Writes a line, if the filter wants it.
    pub fn write(&self, line: &Line) {
        let level = match line.level {
            Level::Error => log::Level::Error,
            Level::Warn => log::Level::Warn,
            Level::Info => log::Level::Info,
            Level::Debug => log::Level::Debug,
        };
        let metadata = log::Metadata::builder().level(level).target(line.target).build();
        if !self.0.filter.enabled(&metadata) {
            return;
        }
        let dropped = self.0.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            self.hand_over(render(self.0.format, SystemTime::now(), &lost(dropped)), dropped);
        }
        self.hand_over(render(self.0.format, SystemTime::now(), line), 1);
    }

    /// Gives a text to the writer; if it is too slow, `count` lines are lost.
    fn hand_over(&self, text: String, count: u64) {
        let lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = lines.as_ref()
            && let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = lines.try_send(text)
        {
            self.0.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written, or nothing was for a while: whether it is. Lines that come later are lost.
    #[must_use]
    pub fn close(&self) -> bool {
        drop(self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
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

fn lost(count: u64) -> Line {
    Line {
        level: Level::Warn,
        target: "zipnet_node::roles::common",
        name: "lines-lost",
        text: format!("{count} lines were lost: whoever reads them is too slow"),
    }
}

fn write(waiting: &Receiver<String>, mut to: File, written: &AtomicU64) {
    while let Ok(text) = waiting.recv() {
        // Nobody is left to tell that nobody reads.
        drop(to.write_all(text.as_bytes()));
        written.fetch_add(1, Ordering::Relaxed);
    }
}

/// One line with its end. A clock that is beyond what can be written is shown as the nearest time that can.
fn render(format: Format, now: SystemTime, line: &Line) -> String {
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
            let mut text = serde_json::json!({
                "timestamp": now.to_string(),
                "level": line.level.name(),
                "target": line.target,
                "event": line.name,
                "message": line.text,
            })
            .to_string();
            text.push('\n');
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_one_shape() {
        let line = Line {
            level: Level::Info,
            target: "zipnet_node::committee",
            name: "round-finalized",
            text: "committee: round finalized round=r7 participants=3".to_owned(),
        };
        let now = UNIX_EPOCH + Duration::from_micros(1_767_225_600_000_001);
        assert_eq!(
            render(Format::Human, now, &line),
            "2026-01-01T00:00:00.000001Z  INFO zipnet_node::committee: committee: round finalized round=r7 \
             participants=3\n"
        );
        assert_eq!(
            render(Format::Json, now, &line),
            "{\"event\":\"round-finalized\",\"level\":\"INFO\",\"message\":\"committee: round finalized round=r7 \
             participants=3\",\"target\":\"zipnet_node::committee\",\"timestamp\":\"2026-01-01T00:00:00.000001Z\"}\n"
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
    fn clocks_that_are_far_off_are_no_reason_to_end() {
        let line = Line { level: Level::Info, target: "t", name: "n", text: "one\n\x1b[2Jtwo".to_owned() };
        let far = Duration::from_secs(1 << 40);
        for (now, shown) in [
            (UNIX_EPOCH - far, "1970-01-01T00:00:00.000000Z"),
            (UNIX_EPOCH - Duration::from_nanos(1), "1970-01-01T00:00:00.000000Z"),
            (UNIX_EPOCH + far, "9999-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(
                render(Format::Human, now, &line),
                format!("{shown}  INFO t: one\\n\\u{{1b}}[2Jtwo\n")
            );
            assert!(render(Format::Json, now, &line).contains(shown));
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
