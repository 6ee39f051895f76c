//! What a node says when it is asked: HTTP over the socket in its state folder.
//!
//! A request is one connection, and it is small. What is asked for stands in `docs/operating.md`.

use core::time::Duration;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::stopwatch::Stopwatch;

/// What a node answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// 200 and so on.
    pub(super) status: u16,
    pub(super) body: String,
}

/// Asks the node that uses a state folder. A payload makes it an order.
///
/// # Errors
/// If nobody answers in time, or not in HTTP.
pub(super) fn ask(
    folder: &Path,
    path: &str,
    payload: Option<&[u8]>,
    patience: Duration,
) -> io::Result<Answer> {
    let watch = Stopwatch::start();
    let directory = File::open(folder)?;
    // Paths of sockets may have about a hundred bytes, folders more.
    let socket = format!("/proc/self/fd/{}/admin.sock", directory.as_raw_fd());
    let mut stream = UnixStream::connect(socket)?;
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let left = || patience.checked_sub(watch.elapsed()).filter(|left| !left.is_zero()).ok_or_else(late);
    let (method, payload) = payload.map_or(("GET", &[][..]), |payload| ("POST", payload));
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: zipnet\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        payload.len()
    );
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(&[head.as_bytes(), payload].concat())?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 16_384];
    loop {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => bytes.extend_from_slice(chunk.get(..len).unwrap_or_default()),
            Err(reason) if reason.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            Err(reason) => return Err(reason),
        }
    }
    parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

/// Reads a whole answer. None if it is cut off, or is something else.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = (bytes.get(..end)?, bytes.get(end + 4..)?);
    let head = str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let header = |name: &str| {
        let mut all = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        all.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let body = if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        joined(body)?
    } else {
        match header("content-length") {
            Some(length) => body.get(..length.parse().ok()?)?.to_vec(),
            None => body.to_vec(),
        }
    };
    Some(Answer { status, body: String::from_utf8(body).ok()? })
}

/// The chunks of a body, put together.
fn joined(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let len = str::from_utf8(rest.get(..end)?).ok()?.split(';').next()?.trim();
        let len = usize::from_str_radix(len, 16).ok()?;
        rest = rest.get(end + 2..)?;
        if len == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..len)?);
        rest = rest.get(len..)?.strip_prefix(b"\r\n")?;
    }
}

/// The value of a metric in thousandths, summed over its labels; a metric that is shown without a value has none yet. None
/// if the page does not have it.
pub(super) fn metric(page: &str, name: &str) -> Option<u64> {
    let samples = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let rest = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest,
        };
        thousandths(rest.strip_prefix(' ')?.split(' ').next()?)
    });
    let shown = page
        .lines()
        .any(|line| line.strip_prefix("# TYPE ").is_some_and(|typed| typed.split(' ').next() == Some(name)));
    samples.fold(shown.then_some(0), |sum, value| Some(sum.unwrap_or(0_u64).saturating_add(value)))
}

fn thousandths(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let whole: u64 = whole.parse().ok()?;
    let decimals: u64 = format!("{decimals:0<3}").get(..3)?.parse().ok()?;
    whole.checked_mul(1_000)?.checked_add(decimals)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let text = b"HTTP/1.1 409 Conflict\r\nContent-Length: 5\r\nconnection: close\r\n\r\nhello";
        assert_eq!(parse(text), Some(Answer { status: 409, body: "hello".to_owned() }));
        for len in 0..text.len() {
            assert_eq!(parse(&text[..len]), None, "{len} bytes were read");
        }
    }

    #[test]
    fn chunks_are_put_together() {
        let text = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n";
        assert_eq!(parse(text).map(|answer| answer.body).as_deref(), Some("hello world"));
        assert_eq!(parse(&text[..text.len() - 6]), None);
    }

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let page = include_str!("../../../core/node/src/metrics/server.txt");
        for (name, value) in [
            ("zipnet_rejected_total", Some(4_000)),
            ("zipnet_client_registry_size", Some(4_000)),
            ("zipnet_round_stalled_seconds", Some(10_500)),
            ("mosaik_groups_leader_is_local", Some(1_000)),
            ("zipnet_roster_servers", Some(3_000)),
            ("zipnet_roster", None),
        ] {
            assert_eq!(metric(page, name), value, "{name}");
        }
        assert_eq!(metric("# TYPE zipnet_round_stall_cause gauge\n", "zipnet_round_stall_cause"), Some(0));
    }

    #[test]
    fn a_node_that_does_not_answer_is_given_up() {
        let folder = std::env::temp_dir().join(format!("zipnet-admin-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let patience = Duration::from_millis(50);
        assert_eq!(ask(&folder, "/status", None, patience).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(folder.join("admin.sock")).unwrap();
        assert_eq!(ask(&folder, "/status", None, patience).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(listener);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
