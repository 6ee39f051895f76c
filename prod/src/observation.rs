//! Metrics, readiness and status over HTTP: the same on the address of `ZIPNET_METRICS` and on the admin socket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::AbortHandle;
use zipnet_core::time::Time;
use zipnet_node::config::parse_peer;
use zipnet_node::event::Event;
use zipnet_node::metrics::Metrics;
use zipnet_node::node::Handle;
use zipnet_node::plan::{Plan, Step};
use zipnet_node::status::{Status, View};

use crate::usage;

/// What a process knows of its node. Clones are the same.
#[derive(Clone)]
pub struct Observed {
    /// Talks to the node.
    pub handle: Handle,
    metrics: Arc<Mutex<Metrics>>,
    now: Arc<dyn Fn() -> Time + Send + Sync>,
    started: Duration,
}

impl core::fmt::Debug for Observed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Observed").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Observed {
    /// Counts from zero. `now` is the node's monotonic time.
    #[must_use]
    pub fn new(handle: Handle, metrics: Metrics, now: impl Fn() -> Time + Send + Sync + 'static) -> Self {
        Self { handle, metrics: Arc::new(Mutex::new(metrics)), now: Arc::new(now), started: usage::started() }
    }

    /// Takes in an event.
    pub fn observe(&self, event: &Event) {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner).observe((self.now)(), event);
    }

    /// How the node stands.
    async fn status(&self) -> Option<(View, Status)> {
        let view = self.handle.view().await?;
        let status = Status::of(&view);
        Some((view, status))
    }
}

/// The pages.
pub fn pages() -> Router<Observed> {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/records", get(records))
        .route("/plan/{step}/{peer}", get(plan))
}

/// The most connections at one door; whoever comes then takes the place of the one that came first.
const CONNECTIONS_MAX: usize = 64;
/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last, with its answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers whoever comes, one request for each connection, until the process ends. Those that are slow hold up nobody.
pub async fn serve<L: Listener>(mut listener: L, pages: Router) {
    let mut guests: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let (stream, _) = listener.accept().await;
        guests.retain(|guest| !guest.is_finished());
        if guests.len() >= CONNECTIONS_MAX
            && let Some(first) = guests.pop_front()
        {
            first.abort();
        }
        let service = TowerToHyperService::new(pages.clone());
        let answering = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIMEOUT)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        let guest = tokio::spawn(async move {
            // Nobody is left to tell that an answer did not arrive.
            drop(tokio::time::timeout(CONNECTION_TIMEOUT, answering).await);
        });
        guests.push_back(guest.abort_handle());
    }
}

async fn metrics(State(observed): State<Observed>) -> Response {
    let now = (observed.now)();
    let mut text = observed.metrics.lock().unwrap_or_else(PoisonError::into_inner).render(now);
    text.push_str(&usage::render(observed.started));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Without `?verbose` the answer is one word, as the systems that ask expect.
async fn readiness(State(observed): State<Observed>, RawQuery(query): RawQuery) -> Response {
    let Some((_, status)) = observed.status().await else { return gone() };
    let verbose =
        query.is_some_and(|query| query.split('&').any(|word| word.split('=').next() == Some("verbose")));
    let mut text = String::from(if status.ready { "ready\n" } else { "not ready\n" });
    if verbose {
        for (title, matters) in [("cause", &status.causes), ("note", &status.notes)] {
            for matter in matters {
                text.push_str(&format!("{title}: {matter}\n"));
            }
        }
    }
    let code = if status.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, text).into_response()
}

/// Data, or with `?table` what people read.
async fn status(State(observed): State<Observed>, RawQuery(query): RawQuery) -> Response {
    match observed.status().await {
        Some((_, status)) if query.as_deref() == Some("table") => status.to_string().into_response(),
        Some((_, status)) => json(&status),
        None => gone(),
    }
}

async fn plan(
    State(observed): State<Observed>,
    Path((step, peer)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(peer) = parse_peer(&peer) else {
        return (StatusCode::BAD_REQUEST, "no peer id\n").into_response();
    };
    let step = match step.as_str() {
        "stop" => Step::Stop(peer),
        "replace-disk" => Step::ReplaceDisk(peer),
        "remove" => Step::Remove(peer),
        "add" => Step::Add,
        _ => {
            return (StatusCode::NOT_FOUND, "no such step: stop, replace-disk, remove or add\n")
                .into_response();
        }
    };
    let Some((view, _)) = observed.status().await else { return gone() };
    let plan = Plan::of(&view, step);
    let code = if plan.safe { StatusCode::OK } else { StatusCode::CONFLICT };
    match query.as_deref() {
        Some("table") => (code, plan.to_string()).into_response(),
        _ => (code, json(&plan)).into_response(),
    }
}

async fn records(State(observed): State<Observed>) -> Response {
    let Some((view, _)) = observed.status().await else { return gone() };
    let records: Vec<_> = view
        .records
        .iter()
        .map(|record| {
            let servers: Vec<_> = record.servers.iter().map(ToString::to_string).collect();
            serde_json::json!({
                "log": record.log.to_string(),
                "round": record.round.0,
                "digest": record.digest.to_string(),
                "previous": record.previous.to_string(),
                "participants": record.participants,
                "servers": servers,
                "confirmed": record.confirmed,
            })
        })
        .collect();
    json(&records)
}

/// Data as JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Response {
    let text = serde_json::to_string(value).expect("what is shown is plain data");
    ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
}

/// The node has ended, and the process is about to.
pub(crate) fn gone() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the node has ended\n").into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn those_that_are_slow_hold_up_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = listener.local_addr().unwrap();
        let served = tokio::spawn(serve(listener, Router::new().route("/livez", get(async || "ok\n"))));
        let mut slow = Vec::new();
        for _ in 0..3 * CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(door).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost:").await.unwrap();
            slow.push(stream);
        }
        let asking = async {
            let mut stream = TcpStream::connect(door).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer =
            tokio::time::timeout(REQUEST_TIMEOUT / 2, asking).await.expect("not behind the slow ones");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
        // The first of them were sent away.
        let mut rest = Vec::new();
        let left = tokio::time::timeout(REQUEST_TIMEOUT / 2, slow[0].read_to_end(&mut rest)).await;
        assert!(left.is_ok(), "the first one still has its place");
        // The last one is, once its time is over.
        let last = slow.last_mut().unwrap();
        let left = tokio::time::timeout(REQUEST_TIMEOUT * 2, last.read_to_end(&mut rest)).await;
        assert!(left.is_ok(), "a request may take as long as it likes");
        served.abort();
    }
}
