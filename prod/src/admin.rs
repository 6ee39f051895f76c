//! Orders to a running node: HTTP over a socket in its state folder, which only its user can open.
//!
//! `GET` pages are those of [`crate::observation`] and, on a server, `/refused` and `/parts/<round>`. `POST /stop`, `/retire`, `/retire/<peer id>`,
//! `/refuse/<client>`, `/unrefuse/<client>` and, on a client, `/publish` give orders. `curl --unix-socket` speaks it as well as [`ask`] does.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as Segment, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use zipnet_core::checks::Strict;
use zipnet_core::id::{PeerId, Role, Round};
use zipnet_core::machine::RequestId;
use zipnet_node::config::parse_peer;
use zipnet_node::meeting::{NoRemoval, Removal, may_retire};
use zipnet_node::node::Handle;
use zipnet_node::status::View;
use zipnet_world::network::DEAD_AFTER;

use crate::observation::{self, Observed, gone, json, pages};
use crate::parts;
use crate::refusals::Refusals;

/// The socket.
const SOCKET: &str = "admin.sock";

/// How long a node may take to answer. A retirement takes [`DEAD_AFTER`].
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
struct Desk {
    observed: Observed,
    /// Of a server.
    refusals: Option<Refusals>,
    /// Of the last message that was published here; `ZIPNET_MESSAGE` is the first.
    last_request: Arc<AtomicU64>,
}

/// Opens the socket.
///
/// # Errors
/// What the file system says.
pub fn open(folder: &Path) -> io::Result<UnixListener> {
    let directory = File::open(folder)?;
    let path = reach(&directory);
    match std::fs::remove_file(&path) {
        // Of a process that was killed: the folder is locked, so nobody listens there.
        Ok(()) => {}
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => {}
        Err(reason) => return Err(reason),
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Closes the socket for those who come later.
pub fn close(folder: &Path) {
    // A socket that is left behind is replaced at the next start.
    drop(std::fs::remove_file(folder.join(SOCKET)));
}

/// Whether a process listens at the socket of the folder.
pub async fn is_answered(folder: &Path) -> bool {
    let Ok(directory) = File::open(folder) else { return false };
    UnixStream::connect(reach(&directory)).await.is_ok()
}

/// The path of the socket through its open folder: paths of sockets may have about a hundred bytes, folders more.
fn reach(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

/// Serves the socket until the process ends.
pub async fn serve(listener: UnixListener, observed: Observed, refusals: Option<Refusals>) {
    let desk = Desk { observed: observed.clone(), refusals, last_request: Arc::default() };
    let orders = Router::new()
        .route("/stop", post(stop))
        .route("/retire", post(retire))
        .route("/retire/{peer}", post(retire_dead))
        .route("/approve/{peer}", post(approve))
        .route("/refused", get(refused_clients))
        .route("/parts/{round}", get(record_parts))
        .route(
            "/refuse/{client}",
            post(async |desk: State<Desk>, client: Segment<String>| change_refusal(desk, client, true).await),
        )
        .route(
            "/unrefuse/{client}",
            post(async |desk: State<Desk>, client: Segment<String>| {
                change_refusal(desk, client, false).await
            }),
        )
        .route("/publish", post(publish))
        .with_state(desk);
    observation::serve(listener, pages().with_state(observed).merge(orders)).await;
}

async fn stop(State(desk): State<Desk>) -> Response {
    desk.observed.handle.stop();
    json(&serde_json::json!({ "stopping": true }))
}

async fn retire(State(desk): State<Desk>) -> Response {
    let handle = desk.observed.handle.clone();
    match judged(&handle, |view| view.removal(view.me, false)).await {
        Some(Ok(advice)) => {
            handle.retire();
            json(&serde_json::json!({ "advice": advice }))
        }
        Some(Err(refusal)) => not_removed(refusal),
        None => gone(),
    }
}

/// Whether a retirement is safe; `None` if the node has ended.
///
/// A link to a server that died lasts for a while. So whoever is to be counted on is looked at twice, with that time in
/// between.
async fn judged(
    handle: &Handle,
    removal: impl Fn(&View) -> Removal,
) -> Option<Result<Option<String>, NoRemoval>> {
    let first = may_retire(&removal(&handle.view().await?), &Strict);
    if first.is_err() {
        return Some(first);
    }
    tokio::time::sleep(DEAD_AFTER).await;
    Some(may_retire(&removal(&handle.view().await?), &Strict))
}

async fn retire_dead(State(desk): State<Desk>, Segment(peer): Segment<String>) -> Response {
    let Some(peer): Option<PeerId> = parse_peer(&peer) else {
        return no_peer(&peer);
    };
    let handle = desk.observed.handle.clone();
    match judged(&handle, |view| view.removal(peer, true)).await {
        Some(Ok(advice)) => {
            handle.retire_dead(peer);
            json(&serde_json::json!({ "advice": advice }))
        }
        Some(Err(refusal)) => not_removed(refusal),
        None => gone(),
    }
}

fn no_peer(written: &str) -> Response {
    wrong(&format!("{written} is no peer id: write its 64 hexadecimal digits"))
}

/// The aggregator may be known by rumour only, or not yet: whoever is named is waited for.
async fn approve(State(desk): State<Desk>, Segment(peer): Segment<String>) -> Response {
    let Some(peer): Option<PeerId> = parse_peer(&peer) else {
        return no_peer(&peer);
    };
    let handle = desk.observed.handle.clone();
    let Some(view) = handle.view().await else { return gone() };
    if view.role != Role::Server {
        return refused("approve an aggregator: only a server does that");
    }
    handle.approve(peer);
    json(&serde_json::json!({
        "aggregator": view.aggregator.map(|known| known.to_string()),
        "linked": view.linked.contains(&peer),
    }))
}

/// A record and what it was made of: what the reference in Python audits.
async fn record_parts(State(desk): State<Desk>, Segment(round): Segment<u64>) -> Response {
    let Some(made) = desk.observed.handle.parts(Round(round)).await else {
        return (StatusCode::NOT_FOUND, "this node does not hold the parts of that round\n").into_response();
    };
    let pieces = stream::iter(parts::pieces(made).map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response()
}

/// Whom the operator of this server refuses, and what has become of that.
async fn refused_clients(State(desk): State<Desk>) -> Response {
    let Some(refusals) = &desk.refusals else { return wrong(NO_SERVER) };
    let clients = match refusals.clients() {
        Ok(clients) => clients,
        Err(sentence) => return refused(&sentence),
    };
    let Some(view) = desk.observed.handle.view().await else { return gone() };
    let none = BTreeSet::new();
    let own = view.refusals.get(&view.me).unwrap_or(&none);
    let clients: Vec<_> = clients
        .iter()
        .map(|client| {
            serde_json::json!({
                "client": client.to_string(),
                "refused": own.contains(client),
                "registered": view.unrefused.contains(client),
            })
        })
        .collect();
    json(&serde_json::json!({ "clients": clients, "most": view.refused_max }))
}

/// Refuses a client, or withdraws that. It is named by its peer id, or by the beginning of it if it is registered or
/// stands on the list.
async fn change_refusal(
    State(desk): State<Desk>,
    Segment(written): Segment<String>,
    refuse: bool,
) -> Response {
    let Some(refusals) = &desk.refusals else { return wrong(NO_SERVER) };
    let client = match parse_peer(&written) {
        Some(client) => client,
        None => match find(refusals, &desk.observed.handle, &written).await {
            Ok(client) => client,
            Err(sentence) => return refused(&sentence),
        },
    };
    match refusals.change(&client, refuse) {
        Ok(changed) => json(&serde_json::json!({ "client": client.to_string(), "changed": changed })),
        Err(sentence) => refused(&sentence),
    }
}

/// The client whose peer id begins so.
async fn find(refusals: &Refusals, handle: &Handle, written: &str) -> Result<PeerId, String> {
    let begins = |client: &PeerId| client.to_string().starts_with(&written.to_lowercase());
    let mut fits: BTreeSet<PeerId> = refusals.clients()?.into_iter().filter(begins).collect();
    fits.extend(handle.clients(written.to_lowercase()).await.ok_or("the node has ended")?);
    let mut fits = fits.into_iter();
    match (fits.next(), fits.next()) {
        (Some(client), None) => Ok(client),
        (None, _) => Err(format!(
            "no client whose peer id begins with {written} is registered or refused: write all of its 64 digits"
        )),
        (Some(_), Some(_)) => {
            Err(format!("several clients have a peer id that begins with {written}: write more of it"))
        }
    }
}

/// What other roles answer about refusals.
const NO_SERVER: &str = "only a server refuses clients";

async fn publish(State(desk): State<Desk>, payload: Bytes) -> Response {
    let request = desk.last_request.fetch_add(1, Ordering::Relaxed) + 1;
    match desk.observed.handle.submit(RequestId(request), payload.to_vec()).await {
        Some(Ok(_)) => {
            (StatusCode::ACCEPTED, json(&serde_json::json!({ "request": request }))).into_response()
        }
        Some(Err(reason)) => wrong(&reason.to_string()),
        None => wrong("only a client publishes"),
    }
}

/// A removal that is not safe, with the stable name of the reason.
fn not_removed(refusal: NoRemoval) -> Response {
    let said = serde_json::json!({ "refused": refusal.to_string(), "reason": refusal.why.name() });
    (StatusCode::CONFLICT, json(&said)).into_response()
}

fn refused(sentence: &str) -> Response {
    (StatusCode::CONFLICT, json(&serde_json::json!({ "refused": sentence }))).into_response()
}

fn wrong(sentence: &str) -> Response {
    (StatusCode::BAD_REQUEST, json(&serde_json::json!({ "error": sentence }))).into_response()
}

/// What a node answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 200 and so on.
    pub status: u16,
    /// The text.
    pub body: String,
}

/// Asks the node that uses a state folder. `payload` makes it an order.
///
/// # Errors
/// The sentence that says that nobody answers there.
pub async fn ask(folder: &Path, path: &str, payload: Option<Vec<u8>>) -> Result<Answer, String> {
    in_time(folder, async {
        let response = send(folder, path, payload).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    })
    .await
}

/// Reads a long page piece by piece, as long as `take` wants more.
///
/// # Errors
/// What was answered instead, or that the answer ended too early: then what was taken is not all.
pub async fn read(folder: &Path, path: &str, mut take: impl FnMut(&str) -> bool) -> Result<(), String> {
    let response = in_time(folder, send(folder, path, None)).await?;
    let is_page = response.status() == StatusCode::OK;
    let mut body = response.into_body();
    if !is_page {
        let said = in_time(folder, async { body.collect().await.map_err(io::Error::other) }).await?;
        return Err(String::from_utf8_lossy(&said.to_bytes()).trim().to_owned());
    }
    let next = async |body: &mut Incoming| body.frame().await.transpose().map_err(io::Error::other);
    while let Some(frame) = in_time(folder, next(&mut body)).await? {
        let piece = frame.into_data().unwrap_or_default();
        // Pages are ASCII.
        if !take(&String::from_utf8_lossy(&piece)) {
            return Ok(());
        }
    }
    Ok(())
}

/// Waits no longer for a node than one may take.
async fn in_time<T>(folder: &Path, asking: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    let nobody = |reason: String| format!("no node answers in {}: {reason}", folder.display());
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map_err(|reason| nobody(reason.to_string())),
        Err(_) => Err(nobody(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

async fn send(folder: &Path, path: &str, payload: Option<Vec<u8>>) -> io::Result<hyper::Response<Incoming>> {
    let directory = File::open(folder)?;
    let stream = UnixStream::connect(reach(&directory)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends with the request.
    drop(tokio::spawn(connection));
    let method = if payload.is_some() { "POST" } else { "GET" };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "zipnet")
        .body(Full::new(Bytes::from(payload.unwrap_or_default())))
        .map_err(io::Error::other)?;
    sender.send_request(request).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Answers one request with these bytes, and hangs up.
    fn answers(folder: &Path, pieces: &[&str]) {
        let listener = open(folder).expect("the folder is writable");
        let pieces: Vec<_> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
        drop(tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("somebody asks");
            let mut request = [0; 1024];
            drop(stream.read(&mut request).await);
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.expect("it listens");
            }
        }));
    }

    async fn read_all(folder: &Path) -> (Result<(), String>, String) {
        let mut whole = String::new();
        let read = read(folder, "/parts/7", |piece| {
            whole.push_str(piece);
            true
        });
        (read.await, whole)
    }

    #[tokio::test]
    async fn a_page_is_read_in_one_piece_or_in_many_and_half_of_it_is_an_error() {
        let folder = tempfile::tempdir().expect("the machine has a temporary folder");
        answers(folder.path(), &["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", "0123456789"]);
        assert_eq!(read_all(folder.path()).await, (Ok(()), "0123456789".to_owned()));
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        answers(folder.path(), &[head, "5\r\n01234\r\n", "5\r\n56789\r\n", "0\r\n\r\n"]);
        assert_eq!(read_all(folder.path()).await, (Ok(()), "0123456789".to_owned()));
        answers(folder.path(), &[head, "5\r\n01234\r\n"]);
        let (read, some) = read_all(folder.path()).await;
        assert!(read.is_err_and(|sentence| sentence.contains("no node answers")), "it ended too early");
        assert_eq!(some, "01234");
        answers(folder.path(), &["HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\n", "none\n"]);
        assert_eq!(read_all(folder.path()).await, (Err("none".to_owned()), String::new()));
    }
}
