//! Lines for people and for machines, on standard error.
//!
//! A node must never wait for whoever reads its lines: they are handed to a thread of their own, and if that falls far
//! behind, lines are dropped and counted.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use env_filter::Filter;
use zipnet_node::config::Format;
use zipnet_node::event::{Level, Line};

/// Lines that wait to be written.
const WAITING_MAX: usize = 8_192;

/// Where a process writes its lines. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    format: Format,
    filter: Filter,
    lines: Mutex<Option<SyncSender<String>>>,
    dropped: AtomicU64,
    writer: Mutex<Option<JoinHandle<()>>>,
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
        let writer = std::thread::spawn(move || write(&waiting));
        Ok(Self(Arc::new(Inner {
            format,
            filter,
            lines: Mutex::new(Some(lines)),
            dropped: AtomicU64::new(0),
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

    /// Waits until everything is written. Lines that come later are lost.
    pub fn close(&self) {
        drop(self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // A writer that panicked has nothing left to write.
            drop(writer.join());
        }
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

fn write(waiting: &Receiver<String>) {
    let mut to = std::io::stderr().lock();
    while let Ok(text) = waiting.recv() {
        // Nobody is left to tell that nobody reads.
        drop(to.write_all(text.as_bytes()).and_then(|()| to.flush()));
    }
}

/// One line with its end.
fn render(format: Format, now: SystemTime, line: &Line) -> String {
    let now = humantime::format_rfc3339_micros(now);
    match format {
        Format::Human => {
            let mut text = String::new();
            writeln!(text, "{now} {:>5} {}: {}", line.level.name(), line.target, line.text)
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
    use std::time::{Duration, UNIX_EPOCH};

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
        journal.close();
        let refused = Journal::start(Format::Human, "info,zipnet=loud").expect_err("no such level");
        assert!(refused.starts_with("RUST_LOG=info,zipnet=loud is not understood: write "), "{refused}");
    }
}
