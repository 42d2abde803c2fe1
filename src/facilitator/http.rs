//! Calls to a facilitator's server: HTTP/1.1 with TLS, bounds on everything, no redirects.
//!
//! A settlement always gets a connection of its own. On a kept one, a server that closes it just then leaves open whether
//! it read the request; on a fresh one, whatever goes wrong before the request is known to have sent nothing. The extra
//! round trips are small beside the seconds that a chain takes. Questions that can be repeated share kept connections.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::tls;
use crate::wire::x402::facilitator::ANSWER_BYTES_MAX;

const USER_AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));
/// Bytes and fields of the head of an answer.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const HEAD_FIELDS_MAX: usize = 100;
/// Connections that are kept for the next question, and for how long.
const KEPT_MAX: usize = 8;
const KEPT_FOR: Duration = Duration::from_secs(30);

/// A facilitator's server.
pub struct Http {
    url: String,
    /// Without brackets.
    host: String,
    port: u16,
    authority: HeaderValue,
    /// Before `/verify`; empty or with a slash at its start.
    path: String,
    authorization: Option<HeaderValue>,
    tls: Option<Arc<ClientConfig>>,
    kept: Mutex<Vec<(Connection, Instant)>>,
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Seconds, where it says when to come back.
    pub(super) retry_after: Option<u64>,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// There was no connection: nothing of the request went out.
    NotSent(String),
    /// The request may have been read.
    Lost {
        why: String,
        /// What it was waiting for.
        at: Stage,
    },
}

/// How far a call came that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The connection broke before the answer began.
    Head,
    /// The answer broke off or is too long.
    Body,
    /// The deadline passed.
    Late,
}

/// What is asked.
pub(super) struct Ask<'a> {
    /// `/verify`
    pub(super) path: &'a str,
    /// `None` makes it a GET.
    pub(super) body: Option<Bytes>,
    /// Whether asking twice is harmless: may go over a kept connection.
    pub(super) repeatable: bool,
    pub(super) connect: Duration,
    pub(super) deadline: Instant,
}

/// Why a URL can't be a facilitator's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another form.
    #[error("expected `https://` or `http://`, a host and a path, without user, query or fragment")]
    Form,
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(String),
}

impl Http {
    /// See [`Endpoint::http`](super::Endpoint::http).
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn new(
        url: &str,
        authorization: Option<HeaderValue>,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Http, UrlError> {
        let url = url.strip_suffix('/').unwrap_or(url);
        let uri: Uri = url.parse().map_err(|_| UrlError::Form)?;
        let authority = uri.authority().ok_or(UrlError::Form)?;
        if url.contains(['?', '#']) || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(UrlError::Form);
        }
        let (default_port, tls) = match uri.scheme_str() {
            Some("http") => (80, None),
            Some("https") => (443, Some(tls.map_or_else(|| tls::client::http(None), Ok).map_err(UrlError::Tls)?)),
            _ => return Err(UrlError::Form),
        };
        let authorization = authorization.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Ok(Http {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| UrlError::Form)?,
            path: uri.path().trim_end_matches('/').to_owned(),
            authorization,
            tls,
            kept: Mutex::default(),
            url: url.to_owned(),
        })
    }

    /// Without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks, within the deadline.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, Failed> {
        if ask.repeatable
            && let Some(kept) = self.kept()
        {
            match self.over(kept, &ask).await {
                // It may have been closed for idleness: its neighbours then too.
                Err(Failed::Lost { at: Stage::Head, .. }) => self.forget(),
                answer => return answer,
            }
        }
        let connecting = timeout_at(ask.deadline.min(Instant::now() + ask.connect), self.connect());
        let connection = match connecting.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(Failed::NotSent(format!("no connection: {error}"))),
            Err(_) => return Err(Failed::NotSent("no connection in time".to_owned())),
        };
        self.over(connection, &ask).await
    }

    async fn over(&self, mut connection: Connection, ask: &Ask<'_>) -> Result<Answer, Failed> {
        let request = self.request(ask).map_err(|error| Failed::NotSent(error.to_string()))?;
        let exchange = async {
            let broken = |error: hyper::Error| {
                let why = format!("the connection broke: {}", full_text(&error));
                Failed::Lost { why, at: Stage::Head }
            };
            // A kept connection becomes ready, or turns out to be closed.
            connection.sender.ready().await.map_err(broken)?;
            let response = connection.sender.send_request(request).await.map_err(broken)?;
            let (head, body) = response.into_parts();
            let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
            let body = read(body).await.map_err(|why| Failed::Lost { why, at: Stage::Body })?;
            Ok(Answer { status: head.status, retry_after, body })
        };
        match timeout_at(ask.deadline, exchange).await {
            Ok(answer) => {
                if ask.repeatable && answer.is_ok() {
                    self.keep(connection);
                }
                answer
            }
            Err(_) => Err(Failed::Lost { why: "no answer in time".to_owned(), at: Stage::Late }),
        }
    }

    /// A request target is never empty (RFC 9112 §3.2.1).
    fn target(&self, path: &str) -> String {
        let target = format!("{}{path}", self.path);
        if target.is_empty() { "/".to_owned() } else { target }
    }

    fn request(&self, ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder()
            .method(if ask.body.is_some() { Method::POST } else { Method::GET })
            .uri(self.target(ask.path))
            .header(header::HOST, self.authority.clone())
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity");
        if ask.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        if !ask.repeatable {
            request = request.header(header::CONNECTION, "close");
        }
        request.body(Full::new(ask.body.clone().unwrap_or_default()))
    }

    async fn connect(&self) -> io::Result<Connection> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        match &self.tls {
            None => Connection::over(tcp).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
                Connection::over(TlsConnector::from(tls.clone()).connect(name, tcp).await?).await
            }
        }
    }

    fn kept(&self) -> Option<Connection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(connection, since)| since.elapsed() < KEPT_FOR && !connection.sender.is_closed());
        kept.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, connection: Connection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push((connection, Instant::now()));
        }
    }

    fn forget(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A connection and the task that drives it; the socket closes with it.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Connection {
    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<Connection> {
        let mut http = http1::Builder::new();
        http.max_buf_size(HEAD_BYTES_MAX).max_headers(HEAD_FIELDS_MAX);
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driver = tokio::spawn(async move {
            // Its error, if any, reaches the exchange as well.
            let _ = connection.await;
        });
        Ok(Connection { sender, driver })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Stops reading at the first byte beyond [`ANSWER_BYTES_MAX`].
async fn read(mut body: Incoming) -> Result<Bytes, String> {
    let too_long = || format!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
    if body.size_hint().lower() > ANSWER_BYTES_MAX as u64 {
        return Err(too_long());
    }
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the answer broke off: {}", full_text(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > ANSWER_BYTES_MAX - read.len() {
            return Err(too_long());
        }
        read.extend_from_slice(&data);
    }
    Ok(read.into())
}

/// An error with its causes: hyper's own text alone says little.
fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_base_for_paths() {
        let of = |url: &str| Http::new(url, None, None).map(|http| (http.url, http.host, http.port, http.path));
        let target = |url: &str, path: &str| Http::new(url, None, None).unwrap().target(path);
        assert_eq!((target("http://a", ""), target("http://a/b/", "")), ("/".into(), "/b".into()));
        assert_eq!(
            (target("http://a", "/verify"), target("http://a/b", "/verify")),
            ("/verify".into(), "/b/verify".into())
        );
        let parts = |url: &str, host: &str, port, path: &str| Ok((url.into(), host.into(), port, path.into()));
        assert_eq!(of("https://x402.example/"), parts("https://x402.example", "x402.example", 443, ""));
        assert_eq!(of("http://[::1]:81/a/b/"), parts("http://[::1]:81/a/b", "::1", 81, "/a/b"));
        for url in ["", "x402.example", "/a", "ftp://a", "https://u:p@a", "https://a?b", "https://a/#b", "https://"] {
            assert_eq!(of(url), Err(UrlError::Form), "{url}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let http = Http::new("https://a", Some(HeaderValue::from_static("Bearer s3cret")), None).unwrap();
        let request = http.request(&Ask {
            path: "/verify",
            body: None,
            repeatable: true,
            connect: Duration::ZERO,
            deadline: Instant::now(),
        });
        let shown = format!("{http:?} {request:?}");
        assert!(!shown.contains("s3cret") && shown.contains("Sensitive"), "{shown}");
    }
}
