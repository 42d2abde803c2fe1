//! One client connection: HTTP/1.1 or HTTP/2, plain (by prior knowledge) or through TLS (by ALPN); limits, deadlines, drain.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsAcceptor;

use super::core::{Core, Thread};
use super::io::{ClientIo, ClientStream, Sniffed};
use super::meter::{Expired, Meter};
use super::sales::Chance;
use super::socket::Socket;
use super::upgrade::{self, Waiting};
use super::{proxy_header, stack, trace};
use crate::config::Limits;
use crate::payment::reason::Reason;

/// The client end of a connection.
pub struct Client {
    /// What it is doing.
    pub meter: Rc<Meter>,
    /// HTTP/2: several requests share it.
    pub multiplexed: bool,
    /// Its address; none where it came through a Unix socket and nobody trusted says more.
    pub ip: Option<IpAddr>,
    /// The same as a field's value; `unknown` for none (RFC 7239 §6.2).
    address: HeaderValue,
    /// It came by HTTPS, or a trusted proxy says so.
    https: bool,
    /// What its connection goes over to.
    pub tunnel: Rc<Waiting>,
}

impl Client {
    fn new(meter: Rc<Meter>, multiplexed: bool, ip: Option<IpAddr>, https: bool) -> Client {
        // Digits, points and colons: always a valid field value.
        let address = ip.and_then(|ip| HeaderValue::try_from(ip.to_string()).ok());
        let address = address.unwrap_or_else(|| HeaderValue::from_static("unknown"));
        Client { meter, multiplexed, ip, address, https, tunnel: Rc::default() }
    }

    /// The client behind this one, which is a trusted proxy, as far as it tells.
    pub fn behind(&self, ip: Option<IpAddr>, https: Option<bool>) -> Client {
        let (ip, https) = (ip.or(self.ip), https.unwrap_or(self.https));
        let tunnel = self.tunnel.clone();
        Client { tunnel, ..Client::new(self.meter.clone(), self.multiplexed, ip, https) }
    }

    /// The peer's address, for `X-Forwarded-For`.
    pub fn address_value(&self) -> HeaderValue {
        self.address.clone()
    }

    /// Whether the client sees us as `https`: what the operator says, else a trusted proxy, else what the socket is.
    pub fn https(&self, core: &Core) -> bool {
        core.shared.config.server.public_url.as_ref().map_or(self.https, |url| url.https)
    }

    /// `http` or `https`.
    pub fn scheme(&self, core: &Core) -> &'static str {
        if self.https(core) { "https" } else { "http" }
    }
}

/// How long a connection that was just accepted has for its first request when the gateway drains.
const FIRST_BYTES: Duration = Duration::from_secs(1);

/// Serves a connection until it ends; `tls` for one of HTTPS, `chance` that of a request.
pub async fn serve(core: Rc<Core>, socket: Socket, tls: Option<TlsAcceptor>, chance: Chance) {
    let limits = &core.shared.config.server.limits.clone();
    let thread = &core.thread.clone();
    let is_https = tls.is_some();
    let meter = Meter::new(&thread.ticker, limits);
    let opened = {
        // Silence before the first byte counts against the head's deadline, too.
        let mut opening = pin!(thread.ticker.timeout(limits.header, Box::pin(open(core, &meter, socket, tls))));
        tokio::select! {
            opened = &mut opening => opened,
            // Nothing was asked yet; what is on its way is still served.
            () = thread.drain.notified() => match tokio::time::timeout(FIRST_BYTES, opening).await {
                Ok(opened) => opened,
                Err(_) => return,
            },
        }
    };
    let Ok(Ok((stream, client))) = opened else { return };
    if client.multiplexed {
        meter.set_multiplexed();
    }
    let io = TokioIo::new(stream);
    let multiplexed = client.multiplexed;
    let ip = client.ip;
    let client = Rc::new(client);
    let waiting = client.tunnel.clone();
    let service = {
        let thread = thread.clone();
        service_fn(move |request: Request<Incoming>| stack::serve(thread.clone(), client.clone(), request))
    };
    if multiplexed {
        let mut connection = pin!(http2_builder(limits).serve_connection(io, service));
        // What was on its way to us when it was told to end is still served: held to its end.
        _ = drive(thread, &meter, connection.as_mut(), |c| c.graceful_shutdown()).await;
        drop(chance);
    } else {
        let mut connection = http1_builder(limits).serve_connection(io, service);
        let mut chance = Some(chance);
        let ended = drive(thread, &meter, Pin::new(&mut connection), |c| {
            c.graceful_shutdown();
            // It reads no other head.
            drop(chance.take());
        })
        .await;
        drop(chance);
        match (&ended, thread.core()) {
            (Err(Some(error)), Some(core)) if error.is_parse() => trace::unread(&core, ip, is_https, reason_of(error)),
            _ => {}
        }
        if ended.is_ok()
            && let Some(origin) = waiting.take()
        {
            let http1::Parts { io, read_buf, .. } = connection.into_parts();
            // Boxed: other connections do not carry what it needs.
            Box::pin(upgrade::tunnel(thread, limits, io.into_inner(), read_buf, origin)).await;
        }
    }
}

/// What comes before HTTP: a trusted proxy's header, TLS, the bytes that tell HTTP/1.1 from HTTP/2.
async fn open(
    core: Rc<Core>,
    meter: &Rc<Meter>,
    mut socket: Socket,
    tls: Option<TlsAcceptor>,
) -> io::Result<(ClientStream, Client)> {
    let trust = &core.shared.config.server.trust;
    let mut ip = socket.peer();
    if trust.proxy_protocol && trust.includes(ip) {
        ip = proxy_header::read(&mut socket).await?.or(ip);
    }
    let https = tls.is_some();
    let linger = core.thread.ticker.timer();
    let client = |multiplexed| Client::new(meter.clone(), multiplexed, ip, https);
    let Some(tls) = tls else {
        let mut sniffed = Sniffed::default();
        let multiplexed = sniffed.read(&mut socket).await?;
        let io = ClientIo::new(socket, sniffed, meter.clone(), linger);
        return Ok((ClientStream::Plain(io), client(multiplexed)));
    };
    let io = ClientIo::new(socket, Sniffed::default(), meter.clone(), linger);
    let stream = tls.accept(io).await.inspect_err(|error| tracing::debug!(%error, "no TLS"))?;
    // Only ALPN tells: HTTP/2 without it is none (RFC 9113 §3.2).
    let multiplexed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((ClientStream::Tls(Box::new(stream)), client(multiplexed)))
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Deadlines are the meter's; hyper's would need a timer for each connection.
    builder
        .half_close(false)
        // Head and body in one buffer: measured faster than two parts for small answers.
        .writev(false)
        .header_read_timeout(None)
        .max_headers(limits.header_count)
        .max_buf_size(limits.header_bytes);
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .max_concurrent_streams(100)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_frame_size(16 * 1024)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(Some(20))
        .max_local_error_reset_streams(Some(256))
        .max_send_buf_size(256 * 1024);
    builder
}

/// Why the HTTP layer answered a request by itself, which it could not read: with 400, 414 or 431.
fn reason_of(error: &hyper::Error) -> Reason {
    if !error.is_parse_too_large() {
        return Reason::BadRequest;
    }
    // Only its text tells these two apart; a test holds on to it.
    if error.to_string().starts_with("URI") { Reason::UrlTooLong } else { Reason::HeadersTooLarge }
}

/// Runs a connection to its end or its deadline; when the gateway drains, it ends after its answers. An error where it did not
/// come to an end by itself: the HTTP layer's, or none where a deadline passed.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    thread: &Thread,
    meter: &Meter,
    mut connection: Pin<&mut C>,
    mut shutdown: impl FnMut(Pin<&mut C>),
) -> Result<(), Option<hyper::Error>> {
    let mut drain = pin!(thread.drain.notified());
    let mut draining = false;
    std::future::poll_fn(|cx| {
        let told = thread.draining.get() || drain.as_mut().poll(cx).is_ready();
        // A request whose first bytes are here is still read, and answered.
        if !draining && told && !meter.awaits_head() {
            draining = true;
            shutdown(connection.as_mut());
        }
        let polled = connection.as_mut().poll(cx);
        if thread.draining.get() && !draining && !meter.awaits_head() {
            // Its head is read by now.
            draining = true;
            shutdown(connection.as_mut());
            cx.waker().wake_by_ref();
        }
        if let Poll::Ready(ended) = polled {
            let ended = ended.inspect_err(|error| tracing::debug!(%error, "client connection ended"));
            return Poll::Ready(ended.map_err(Some));
        }
        match std::task::ready!(meter.poll_expired(cx)) {
            Expired::Idle if !draining => {
                draining = true;
                shutdown(connection.as_mut());
                // Polled again at once, so that the shutdown goes out.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Expired::Idle | Expired::Stuck => Poll::Ready(Err(None)),
        }
    })
    .await
}

/// Runs HTTP/2 streams on this core.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
