//! One client connection: HTTP/1.1 or HTTP/2 (prior knowledge), limits, deadlines, drain.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use tokio::net::TcpStream;

use super::core::Core;
use super::io::{ClientIo, Sniffed};
use super::meter::{Expired, Meter};
use super::stack;
use crate::config::Limits;

/// The client end of a connection.
pub struct Client {
    /// What it is doing.
    pub meter: Rc<Meter>,
    /// HTTP/2: several requests share it.
    pub multiplexed: bool,
    address: HeaderValue,
}

impl Client {
    /// The peer's address, for `X-Forwarded-For`.
    pub fn address_value(&self) -> HeaderValue {
        self.address.clone()
    }

    /// Whether the client sees us as `https`: what the operator says, else what the socket is.
    pub fn https(&self, core: &Core) -> bool {
        core.shared.config.server.public_url.as_ref().is_some_and(|url| url.https)
    }

    /// `http` or `https`.
    pub fn scheme(&self, core: &Core) -> &'static str {
        if self.https(core) { "https" } else { "http" }
    }
}

/// Serves a connection until it ends.
pub async fn serve(core: Rc<Core>, mut socket: TcpStream, peer: SocketAddr) {
    let limits = &core.shared.config.server.limits;
    let meter = Meter::new(&core.ticker, limits);
    let mut sniffed = Sniffed::default();
    // Silence before the first byte counts against the head's deadline, too.
    let sniffing = Box::pin(sniffed.read(&mut socket));
    let sniffed_in_time = tokio::select! {
        sniffed = core.ticker.timeout(limits.header, sniffing) => sniffed,
        // Nothing was asked yet.
        () = core.drain.notified() => return,
    };
    let Ok(Ok(multiplexed)) = sniffed_in_time else { return };
    if multiplexed {
        meter.set_multiplexed();
    }
    let ip = match peer.ip() {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 => v4,
    };
    // Digits, points and colons: always a valid field value.
    let address = HeaderValue::try_from(ip.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
    let client = Rc::new(Client { meter: meter.clone(), multiplexed, address });
    let io = ClientIo::new(socket, sniffed, meter.clone(), core.ticker.timer());
    let service = {
        let core = core.clone();
        service_fn(move |request: Request<Incoming>| stack::serve(core.clone(), client.clone(), request))
    };
    if multiplexed {
        let mut connection = pin!(http2_builder(limits).serve_connection(io, service));
        drive(&core, &meter, connection.as_mut(), |c| c.graceful_shutdown()).await;
    } else {
        let mut connection = pin!(http1_builder(limits).serve_connection(io, service));
        drive(&core, &meter, connection.as_mut(), |c| c.graceful_shutdown()).await;
    }
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

/// Runs a connection to its end or its deadline; when the gateway drains, it ends after its answers.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    core: &Core,
    meter: &Meter,
    mut connection: Pin<&mut C>,
    shutdown: impl Fn(Pin<&mut C>),
) {
    let mut drain = pin!(core.drain.notified());
    let mut draining = false;
    std::future::poll_fn(|cx| {
        if !draining && (core.draining.get() || drain.as_mut().poll(cx).is_ready()) {
            draining = true;
            shutdown(connection.as_mut());
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(%error, "client connection ended");
            }
            return Poll::Ready(());
        }
        match std::task::ready!(meter.poll_expired(cx)) {
            Expired::Idle if !draining => {
                draining = true;
                shutdown(connection.as_mut());
                // Polled again at once, so that the shutdown goes out.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Expired::Idle | Expired::Stuck => Poll::Ready(()),
        }
    })
    .await;
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
