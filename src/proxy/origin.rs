//! A core's connections to one origin: HTTP/1.1 over TCP, TLS or a Unix socket, kept open and used again, last in first out.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::body::RequestBody;
use super::socket::Socket;
use super::ticker::{Elapsed, Ticker, Timer};
use crate::config::Origin;

/// Largest read buffer of an origin connection; hyper grows it with the answers.
const READ_BUFFER_MAX: usize = 128 * 1024;

/// The pool of one origin on one core.
pub struct OriginPool {
    config: Origin,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    ticker: Rc<Ticker>,
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    sender: SendRequest<RequestBody>,
    since_ms: u64,
}

/// A connection in use; dropped, it closes.
pub struct Lease {
    sender: Option<SendRequest<RequestBody>>,
    pool: Rc<OriginPool>,
    /// It served a request before, so it may have been closed by the origin without our knowing.
    pub reused: bool,
}

/// Why an origin can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Name, route or refusal.
    #[error("cannot connect to {0}: {1}")]
    Io(String, io::Error),
    /// `connect_seconds` passed.
    #[error("no connection to {0} in time")]
    Timeout(String),
    /// HTTP/1.1 could not begin.
    #[error("{0}")]
    Http(hyper::Error),
}

impl OriginPool {
    /// An empty pool; `tls` for an `https` origin.
    pub fn new(config: &Origin, tls: Option<Arc<rustls::ClientConfig>>, ticker: &Rc<Ticker>) -> Rc<OriginPool> {
        let name = ServerName::try_from(config.host.clone());
        let tls = tls.and_then(|tls| Some((TlsConnector::from(tls), name.ok()?)));
        Rc::new(OriginPool { config: config.clone(), tls, ticker: ticker.clone(), idle: RefCell::default() })
    }

    /// What the operator set for this origin.
    pub fn config(&self) -> &Origin {
        &self.config
    }

    /// A connection, kept or new.
    ///
    /// # Errors
    /// [`ConnectError`] when a new one is needed and fails.
    pub async fn lease(self: &Rc<Self>) -> Result<Lease, ConnectError> {
        match self.kept() {
            Some(lease) => Ok(lease),
            None => self.connect().await,
        }
    }

    /// A kept connection that is still open.
    fn kept(self: &Rc<Self>) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        // The newest last; one that is not ready yet (its last answer just ended) is passed over.
        let at = idle.iter().rposition(|i| i.sender.is_ready())?;
        let sender = idle.remove(at).sender;
        idle.retain(|i| !i.sender.is_closed());
        Some(Lease { sender: Some(sender), pool: self.clone(), reused: true })
    }

    /// A new connection.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(self: &Rc<Self>) -> Result<Lease, ConnectError> {
        let connecting = Box::pin(self.dial());
        let sender = match self.ticker.timeout(self.config.connect, connecting).await {
            Ok(sender) => sender?,
            Err(Elapsed) => return Err(ConnectError::Timeout(self.authority())),
        };
        Ok(Lease { sender: Some(sender), pool: self.clone(), reused: false })
    }

    async fn dial(&self) -> Result<SendRequest<RequestBody>, ConnectError> {
        let failed = |e| ConnectError::Io(self.authority(), e);
        if let Some(path) = &self.config.socket {
            let socket = UnixStream::connect(path).await.map_err(failed)?;
            return handshake(TokioIo::new(Socket::Unix(socket))).await;
        }
        let socket = TcpStream::connect((self.config.host.as_str(), self.config.port)).await.map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        match &self.tls {
            None => handshake(TokioIo::new(Socket::Tcp(socket))).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), socket).await.map_err(failed)?;
                handshake(TokioIo::new(stream)).await
            }
        }
    }

    fn authority(&self) -> String {
        match &self.config.socket {
            Some(path) => format!("unix:{}", path.display()),
            None => format!("{}:{}", self.config.host, self.config.port),
        }
    }

    /// Closes connections unused for longer than `idle_seconds`; called by the core once in a while.
    pub fn sweep(&self) {
        let oldest = self.ticker.now_ms().saturating_sub(self.config.idle.as_millis() as u64);
        self.idle.borrow_mut().retain(|i| i.since_ms >= oldest && !i.sender.is_closed());
    }
}

async fn handshake<S>(io: TokioIo<S>) -> Result<SendRequest<RequestBody>, ConnectError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .writev(false)
        .max_buf_size(READ_BUFFER_MAX)
        .handshake(io)
        .await
        .map_err(ConnectError::Http)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "origin connection ended");
        }
    });
    Ok(sender)
}

impl Lease {
    /// The connection, to send one request.
    pub fn sender(&mut self) -> Option<&mut SendRequest<RequestBody>> {
        self.sender.as_mut()
    }

    /// Puts the connection back for the next request.
    pub fn give_back(mut self) {
        let Some(sender) = self.sender.take() else { return };
        let mut idle = self.pool.idle.borrow_mut();
        if !sender.is_closed() && idle.len() < self.pool.config.idle_connections {
            idle.push(Idle { sender, since_ms: self.pool.ticker.now_ms() });
        }
    }

    /// A deadline on this core.
    pub fn timer(&self) -> Timer {
        self.pool.ticker.timer()
    }
}
