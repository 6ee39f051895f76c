//! Metrics, readiness and status over HTTP: the same on the address of `ZIPNET_METRICS` and on the admin socket.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use zipnet_core::time::Time;
use zipnet_node::config::parse_peer;
use zipnet_node::event::Event;
use zipnet_node::metrics::Metrics;
use zipnet_node::node::Handle;
use zipnet_node::plan::{Plan, Step};
use zipnet_node::status::{Status, View};

/// What a process knows of its node. Clones are the same.
#[derive(Clone)]
pub struct Observed {
    /// Talks to the node.
    pub handle: Handle,
    metrics: Arc<Mutex<Metrics>>,
    now: Arc<dyn Fn() -> Time + Send + Sync>,
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
        Self { handle, metrics: Arc::new(Mutex::new(metrics)), now: Arc::new(now) }
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

async fn metrics(State(observed): State<Observed>) -> Response {
    let now = (observed.now)();
    let text = observed.metrics.lock().unwrap_or_else(PoisonError::into_inner).render(now);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Without `?verbose` the answer is one word, as the systems that ask expect.
async fn readiness(State(observed): State<Observed>, RawQuery(query): RawQuery) -> Response {
    let Some((_, status)) = observed.status().await else { return gone() };
    let verbose =
        query.is_some_and(|query| query.split('&').any(|word| word.split('=').next() == Some("verbose")));
    let mut text = String::from(if status.ready { "ready\n" } else { "not ready\n" });
    if verbose {
        for (title, sentences) in [("cause", &status.causes), ("note", &status.notes)] {
            for sentence in sentences {
                text.push_str(&format!("{title}: {sentence}\n"));
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
        "remove" => Step::Remove(peer),
        "add" => Step::Add,
        _ => return (StatusCode::NOT_FOUND, "no such step: stop, remove or add\n").into_response(),
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
