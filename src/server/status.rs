//! The admin listener: whether the gateway lives, whether it is ready and why not, and its counts.

use std::convert::Infallible;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, watch};

use super::core_thread::Serving;
use super::{Phase, StartError};
use crate::ledger::ledger_store::LedgerStore;
use crate::ledger::store::{Health, Store as _};
use crate::proxy::listener::{Bound, Listener};
use crate::telemetry::metrics::{self, State};

/// Connections at a time; the next waits.
const CONNECTIONS_MAX: usize = 64;
/// For a request's head, and for a connection between two.
const PATIENCE: Duration = Duration::from_secs(30);
/// Shortest token.
const TOKEN_BYTES_MIN: usize = 16;

/// What the answers are made from.
pub(super) struct Status {
    pub(super) store: Arc<LedgerStore>,
    pub(super) serving: watch::Receiver<Serving>,
    pub(super) phase: watch::Receiver<Phase>,
}

/// Reads `admin.token_file`, as a digest.
///
/// # Errors
/// [`StartError::Token`]
pub(super) fn token(path: Option<&Path>) -> Result<Option<[u8; 32]>, StartError> {
    let Some(path) = path else { return Ok(None) };
    let failed = |reason: String| StartError::Token { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
    let token = text.trim();
    if token.len() < TOKEN_BYTES_MIN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(failed(format!("expected one line of at least {TOKEN_BYTES_MIN} visible characters")));
    }
    Ok(Some(Sha256::digest(token).into()))
}

/// Answers at these sockets until this is dropped.
pub(super) async fn serve(sockets: Vec<Bound>, status: Status) {
    let status = Rc::new(status);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accept = |socket: Bound| accept(socket, status.clone(), room.clone());
    let mut accepting: tokio::task::JoinSet<()> = tokio::task::JoinSet::new();
    sockets.into_iter().for_each(|socket| drop(accepting.spawn_local(accept(socket))));
    while accepting.join_next().await.is_some() {}
}

async fn accept(socket: Bound, status: Rc<Status>, room: Arc<Semaphore>) {
    let Ok(listener) = Listener::new(socket) else { return };
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok(socket) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let status = status.clone();
        tokio::task::spawn_local(async move {
            let _place = place;
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = status.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 * 1024);
            let _ = builder.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

impl Status {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let known = matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
        if known && !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(self.may_read(request.headers())),
            "/metrics" if !self.may_read(request.headers()) => {
                let mut response =
                    text(StatusCode::UNAUTHORIZED, "send `Authorization: Bearer` with the token of admin.token_file\n");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "here are /healthz, /readyz and /metrics\n"),
        }
    }

    fn may_read(&self, headers: &HeaderMap) -> bool {
        let Some(expected) = self.serving.borrow().token else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given =
            given.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
        // Digests are compared, so that the time says nothing of the token.
        given.is_some_and(|(_, token)| Sha256::digest(token.trim())[..] == expected[..])
    }

    /// Why it is not ready, by what is concerned.
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if *self.phase.borrow() > Phase::Serving {
            problems.push(("draining", "the gateway is ending".to_owned()));
        }
        if let Health::Closed(reason) = self.store.health() {
            problems.push(("ledger", reason.to_string()));
        } else if self.serving.borrow().shared.terms().is_none() {
            problems.push(("ledger", "the terms of offers are not durable yet".to_owned()));
        }
        if let Some(reason) = self.store.disagreement() {
            problems.push(("secrets", reason));
        }
        problems
    }

    /// `{"ready": false, "problems": [{"of": "ledger", "reason": "…"}]}`; reasons only for whoever may read them.
    fn ready(&self, in_full: bool) -> Response<Full<Bytes>> {
        let problems = self.problems();
        let told: Vec<Value> = problems
            .iter()
            .map(|(of, reason)| if in_full { json!({"of": of, "reason": reason}) } else { json!({ "of": of }) })
            .collect();
        let body = json!({"ready": problems.is_empty(), "problems": told});
        let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut response = text(status, &format!("{body}\n"));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let serving = self.serving.borrow();
        let telemetry = &serving.shared.telemetry;
        let state = State {
            ready: self.problems().is_empty(),
            ledger_open: serving.shared.is_open(),
            started_s: telemetry.started_s,
            reloads: [&telemetry.reloads_taken, &telemetry.reloads_refused].map(|n| n.load(Ordering::Relaxed)),
            lines_lost: telemetry.lines_lost.load(Ordering::Relaxed),
        };
        // Writing to a string does not fail.
        let body = metrics::encode(telemetry.tallies.totals(), state).unwrap_or_default();
        let mut response = text(StatusCode::OK, &body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
        response
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
