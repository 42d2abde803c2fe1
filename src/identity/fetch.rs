//! One fetch of a key directory: a checked address, one GET, bounds on everything.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::{Body, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    error::FetchError,
    freshness::{fresh_for, retry_after},
    guard::{Admission, is_global},
    resolve::Resolve,
};
use crate::{
    clock::Clock,
    wire::{
        agent_url::AgentUrl,
        directory::{Directory, DirectoryKey, MEDIA_TYPE, WELL_KNOWN},
        jwk::JwkError,
        signature::directory::{Answer, check},
    },
};

/// Media types of a directory; the plain ones in leniency.
const MEDIA_TYPES: [&str; 3] = [MEDIA_TYPE, "application/json", "application/jwk-set+json"];
/// What is asked for where the agent is a key set, which may be there for others, too.
const KEY_SET_TYPES: &str =
    "application/jwk-set+json, application/http-message-signatures-directory+json, application/json";
const USER_AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));
/// Bytes and fields of the head of an answer; more ends the fetch.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEAD_FIELDS_MAX: usize = 64;
/// Addresses that are tried, in the resolver's order.
const DIALS_MAX: usize = 4;

/// Fetches directories; clones are cheap.
#[derive(Clone)]
pub struct Fetcher {
    /// Verifies `https` agents.
    pub tls: Arc<ClientConfig>,
    /// Names → addresses.
    pub resolver: Arc<dyn Resolve>,
    /// For `Retry-After` dates.
    pub clock: Clock,
    /// For the whole fetch, resolving included.
    pub deadline: Duration,
    /// Longest body.
    pub body_bytes_max: usize,
    /// Most keys, usable or not.
    pub keys_max: usize,
    /// Accept the published test key.
    pub allow_test_keys: bool,
    /// Clock difference that a directory's own signature is forgiven, seconds.
    pub skew: i64,
    /// Refuse a directory that none of its keys has signed.
    pub require_signed: bool,
}

/// A directory that was read.
#[derive(Debug)]
pub struct Fetched {
    /// Its usable keys; none is an answer too.
    pub keys: Vec<DirectoryKey>,
    /// The index of each other key, and what is wrong with it.
    pub skipped: Vec<(usize, JwkError)>,
    /// SHA-256 of the body.
    pub digest: [u8; 32],
    /// How long it may be used without asking again.
    pub fresh_for: Duration,
}

impl Fetcher {
    /// Reads an agent's directory.
    ///
    /// # Errors
    /// [`FetchError`]; nothing is known then about the agent's keys.
    pub async fn fetch(&self, agent: &AgentUrl, admission: Admission) -> Result<Fetched, FetchError> {
        let (headers, body) = timeout(self.deadline, self.read(agent, admission))
            .await
            .unwrap_or(Err(FetchError::Deadline(self.deadline)))?;
        let mut skipped = Vec::new();
        let keys = Directory::parse(&body, self.keys_max, self.allow_test_keys, |i, error| skipped.push((i, error)))
            .map_err(FetchError::Directory)?;
        let answer = Answer {
            authority: &agent.authority(),
            status: StatusCode::OK.as_u16(),
            headers: &headers,
            body: &body,
            now: (self.clock.now_ms() / 1000).cast_signed(),
            skew: self.skew,
        };
        let is_signed = check(&answer, &keys).map_err(FetchError::Signature)?;
        // One without keys only takes keys away.
        if self.require_signed && !is_signed && !keys.is_empty() {
            return Err(FetchError::Unsigned);
        }
        Ok(Fetched { keys, skipped, digest: Sha256::digest(&body).into(), fresh_for: fresh_for(&headers) })
    }

    async fn read(&self, agent: &AgentUrl, admission: Admission) -> Result<(HeaderMap, Vec<u8>), FetchError> {
        let addresses = self.addresses(agent, admission).await?;
        let tcp = self.dial(&addresses).await?;
        if !agent.https() {
            return self.exchange(agent, tcp).await;
        }
        let host = agent.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|error| FetchError::Tls(io::Error::other(error)))?;
        let tls = TlsConnector::from(self.tls.clone()).connect(name, tcp).await.map_err(FetchError::Tls)?;
        self.exchange(agent, tls).await
    }

    /// The addresses to dial: resolved once, each of them checked.
    async fn addresses(&self, agent: &AgentUrl, admission: Admission) -> Result<Vec<SocketAddr>, FetchError> {
        let literal: Option<IpAddr> = agent.host().trim_start_matches('[').trim_end_matches(']').parse().ok();
        let addresses = match literal {
            Some(ip) => vec![SocketAddr::new(ip, agent.port())],
            None => self.resolver.resolve(agent.host(), agent.port(), admission).await.map_err(FetchError::Resolve)?,
        };
        // One private address among public ones is no accident: the whole answer is refused.
        if !admission.private_ok && !addresses.iter().all(|address| is_global(address.ip())) {
            return Err(FetchError::Address);
        }
        Ok(addresses)
    }

    async fn dial(&self, addresses: &[SocketAddr]) -> Result<TcpStream, FetchError> {
        let tried = &addresses[..addresses.len().min(DIALS_MAX)];
        let mut failed = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
        for (i, address) in tried.iter().enumerate() {
            // An address that swallows packets must leave time for the next one.
            let last = i + 1 == tried.len();
            let patience = if last { self.deadline } else { self.deadline / 3 };
            match timeout(patience, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(FetchError::Connect(failed))
    }

    async fn exchange(
        &self,
        agent: &AgentUrl,
        stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<(HeaderMap, Vec<u8>), FetchError> {
        let request = Request::get(agent.key_set().unwrap_or(WELL_KNOWN))
            .header(header::HOST, agent.authority())
            .header(header::ACCEPT, if agent.key_set().is_some() { KEY_SET_TYPES } else { MEDIA_TYPE })
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| FetchError::Internal(error.to_string()))?;
        let mut http = http1::Builder::new();
        http.max_buf_size(HEAD_BYTES_MAX).max_headers(HEAD_FIELDS_MAX);
        let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(FetchError::Http)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(FetchError::Http)?;
            let (head, body) = response.into_parts();
            check_head(head.status, &head.headers, self.clock.now_ms())?;
            Ok((head.headers, read_body(body, self.body_bytes_max).await?))
        };
        let (mut answer, mut connection) = (pin!(answer), pin!(connection));
        // The connection lives inside this future: when the deadline drops it, the socket closes.
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            // Its error, if any, reaches `answer` as well.
            _ = &mut connection => {}
        }
        answer.await
    }
}

fn check_head(status: StatusCode, headers: &HeaderMap, now_ms: u64) -> Result<(), FetchError> {
    if status != StatusCode::OK {
        return Err(FetchError::Status { status: status.as_u16(), retry_after: retry_after(headers, now_ms) });
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let essence = match (types.next(), types.next()) {
        (Some(one), None) => one.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim(),
        _ => "",
    };
    if !MEDIA_TYPES.iter().any(|media_type| essence.eq_ignore_ascii_case(media_type)) {
        return Err(FetchError::MediaType);
    }
    let plain = |coding: &header::HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Err(FetchError::Encoding);
    }
    Ok(())
}

/// Stops reading at the first byte beyond `max`.
async fn read_body(body: Incoming, max: usize) -> Result<Vec<u8>, FetchError> {
    if body.size_hint().lower() > max as u64 {
        return Err(FetchError::TooLarge { max });
    }
    let (mut body, mut read) = (body, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(FetchError::Http)?.into_data() else { continue };
        if data.len() > max - read.len() {
            return Err(FetchError::TooLarge { max });
        }
        read.extend_from_slice(&data);
    }
    Ok(read)
}
