//! What the process takes of its machine, as metrics of the names that Prometheus has for it.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ticks of processor time in a second, as Linux shows them to processes.
const TICKS: u64 = 100;

/// When the process started. Take it once: a restart is seen by it.
#[must_use]
pub fn started() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The metrics. What the system does not say is left out.
#[must_use]
pub fn render(started: Duration) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count().to_string());
    let start = format!("{}.{:03}", started.as_secs(), started.subsec_millis());
    let mut text = String::new();
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            "counter",
            "Processor time that was used.",
            processor_time(&read("stat")),
        ),
        ("process_max_fds", "gauge", "The most files that may be open.", files_max(&read("limits"))),
        ("process_open_fds", "gauge", "Files that are open.", files),
        ("process_resident_memory_bytes", "gauge", "Memory in use.", memory(&read("status"))),
        ("process_start_time_seconds", "gauge", "When the process started, since 1970.", Some(start)),
    ] {
        if let Some(value) = value {
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}")
                .expect("writing to a string does not fail");
        }
    }
    text
}

/// Of `/proc/self/stat`, behind the name in brackets, which may hold anything.
fn processor_time(stat: &str) -> Option<String> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let ticks = user.checked_add(system)?;
    Some(format!("{}.{:02}", ticks / TICKS, ticks % TICKS))
}

fn memory(status: &str) -> Option<String> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib.checked_mul(1_024)?.to_string())
}

fn files_max(limits: &str) -> Option<String> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(soft.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_shown_as_prometheus_names_it() {
        let stat = "1 (a) b) S 1 1 1 0 -1 4 1 0 0 0 1234 66 0 0 20 0 1 0 100 1 1";
        assert_eq!(processor_time(stat).as_deref(), Some("13.00"));
        assert_eq!(memory("VmPeak:\t 9 kB\nVmRSS:\t  2048 kB\n").as_deref(), Some("2097152"));
        assert_eq!(
            files_max("Max processes  1 1\nMax open files   1024   4096   files\n").as_deref(),
            Some("1024")
        );
        assert_eq!(
            (processor_time(""), memory("VmRSS: x"), files_max("Max open files unlimited")),
            (None, None, None)
        );
        let text = render(Duration::from_millis(1_500));
        assert!(text.ends_with("\nprocess_start_time_seconds 1.500\n"), "{text}");
        assert_eq!(text.matches("# TYPE process_").count(), 5, "{text}");
    }
}
