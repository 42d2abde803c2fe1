//! A small HTTP/1.1 client: a connection for each request, TLS, deadlines, streaming bodies, no redirects.
//!
//! Enough for `tollgate pay` and the examples. A crawler brings its own client and wraps it with
//! [`PayLayer`](super::PayLayer).

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header, uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::Service;

use super::layer::Target;
use crate::tls;
use crate::wire::agent_url::AgentUrl;

const USER_AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));

/// The client; clones share their settings.
#[derive(Clone)]
pub struct HttpClient {
    tls: Arc<ClientConfig>,
    deadlines: Deadlines,
}

/// How long a server may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// For name, connection and TLS together (10 s).
    pub connect: Duration,
    /// From the request to the head of the answer (90 s: more than a gateway waits for its origin).
    pub head: Duration,
    /// The longest silence inside an answer (300 s).
    pub body_idle: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        let seconds = Duration::from_secs;
        Deadlines { connect: seconds(10), head: seconds(90), body_idle: seconds(300) }
    }
}

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URI is not one that can be asked.
    #[error("{0}")]
    Url(String),
    /// No connection: nothing was sent.
    #[error("{origin} can't be reached: {reason}")]
    Unreachable {
        /// `https://example.com`.
        origin: String,
        /// What failed.
        reason: String,
    },
    /// A deadline passed after the request was sent.
    #[error("no {0} in time")]
    Late(&'static str),
    /// The connection broke, or the other side does not speak HTTP/1.1.
    #[error("the connection broke: {0}")]
    Broken(String),
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl HttpClient {
    /// A client that trusts the built-in roots, or those of a PEM file instead.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn new(ca_file: Option<&Path>) -> Result<HttpClient, String> {
        Ok(HttpClient { tls: tls::client::http(ca_file)?, deadlines: Deadlines::default() })
    }

    /// With other deadlines.
    pub fn deadlines(mut self, deadlines: Deadlines) -> HttpClient {
        self.deadlines = deadlines;
        self
    }

    async fn send<B>(self, request: Request<B>) -> Result<Response<AnswerBody>, ClientError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (mut head, body) = request.into_parts();
        let target =
            Target::of(&head).map_err(|error| ClientError::Url(format!("the request can't be sent: {error}")))?;
        let host = HeaderValue::try_from(target.authority()).map_err(|error| ClientError::Url(error.to_string()))?;
        head.headers.insert(header::HOST, host);
        head.headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
        head.headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        let mut path = uri::Parts::default();
        path.path_and_query = head.uri.path_and_query().cloned();
        head.uri = Uri::from_parts(path).unwrap_or_default();
        let request = Request::from_parts(head, body);
        let unreachable = |reason| ClientError::Unreachable { origin: target.origin().to_string(), reason };
        let stream = match timeout(self.deadlines.connect, self.connect(target.origin())).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(plain_text(&error))),
            Err(_) => return Err(unreachable("no connection in time".to_owned())),
        };
        let broken = |error: hyper::Error| ClientError::Broken(full_text(&error));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the answer's body, or when that is dropped.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let answer = timeout(self.deadlines.head, sender.send_request(request)).await;
        let answer = answer.map_err(|_| ClientError::Late("answer"))?.map_err(broken)?;
        let idle = self.deadlines.body_idle;
        Ok(answer.map(|incoming| AnswerBody { incoming, idle, silence: Box::pin(sleep(idle)) }))
    }

    async fn connect(&self, origin: &AgentUrl) -> io::Result<Box<dyn Stream>> {
        let host = origin.host().trim_matches(['[', ']']);
        let tcp = TcpStream::connect((host, origin.port())).await?;
        tcp.set_nodelay(true)?;
        if !origin.https() {
            return Ok(Box::new(tcp));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(tokio_rustls::TlsConnector::from(self.tls.clone()).connect(name, tcp).await?))
    }
}

impl<B> Service<Request<B>> for HttpClient
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<AnswerBody>;
    type Error = ClientError;
    type Future = Boxed<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The body of an answer; a server that falls silent ends it with [`ClientError::Late`].
pub struct AnswerBody {
    incoming: Incoming,
    idle: Duration,
    silence: Pin<Box<Sleep>>,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = ClientError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.silence.as_mut().reset(Instant::now() + this.idle);
                Poll::Ready(frame.map(|frame| frame.map_err(|error| ClientError::Broken(full_text(&error)))))
            }
            Poll::Pending => this.silence.as_mut().poll(cx).map(|()| Some(Err(ClientError::Late("more of the body")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Why there is no connection, in words for people: of some reasons the TLS library has none.
fn plain_text(error: &io::Error) -> String {
    use rustls::{CertificateError as Certificate, Error as Tls};
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) else { return error.to_string() };
    let is_authority = |other: &rustls::OtherError| {
        matches!(other.0.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
    };
    let text = match tls {
        Tls::InvalidMessage(_) => "it does not speak TLS there",
        Tls::InvalidCertificate(Certificate::UnknownIssuer) => {
            "its certificate is of no authority that is trusted here"
        }
        Tls::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "its certificate has expired"
        }
        Tls::InvalidCertificate(Certificate::NotValidYet | Certificate::NotValidYetContext { .. }) => {
            "its certificate is not valid yet"
        }
        Tls::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
            "its certificate is for another name"
        }
        Tls::InvalidCertificate(Certificate::Other(other)) if is_authority(other) => {
            "its certificate is an authority's own (a CA), which can't stand for a server"
        }
        Tls::InvalidCertificate(Certificate::Other(other)) => {
            return format!("its certificate can't be used: {}", other.0);
        }
        _ => return error.to_string(),
    };
    text.to_owned()
}

/// An error with its causes: hyper's own text alone says little.
fn full_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
