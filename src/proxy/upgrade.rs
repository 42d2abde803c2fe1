//! Connections that go over to another protocol, WebSocket mostly (RFC 9110 §7.8): asked of the origin, and once it has said
//! 101 and the client has been told so, bytes both ways.
//!
//! ```text
//! request with Upgrade -> route, payment -> origin says 101 -> captured, where it has a price -> 101 to the client -> tunnel
//! ```
//!
//! What the client sends before its 101 waits here. What it bought is the 101; how long the tunnel then lasts is for the
//! limits and the two ends.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, Version, request};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use super::core::Thread;
use super::framing::connection_tokens;
use super::ticker::Ticker;
use crate::config::Limits;

/// What a request asks its connection to become: `websocket`. Nothing where it can't: over HTTP/2, with a body, or to
/// another version of HTTP, which would be a way past the gate.
pub fn asked(head: &request::Parts, has_body: bool) -> Option<HeaderValue> {
    if head.version != Version::HTTP_11 || has_body || !lists_upgrade(&head.headers) {
        return None;
    }
    let lines = head.headers.get_all(header::UPGRADE).iter().filter_map(|line| line.to_str().ok());
    let protocols = lines.flat_map(|line| line.split(',')).map(str::trim);
    let kept: Vec<&str> = protocols.filter(|protocol| !protocol.is_empty() && !is_http_or_tls(protocol)).collect();
    if kept.is_empty() { None } else { HeaderValue::try_from(kept.join(", ")).ok() }
}

fn lists_upgrade(headers: &HeaderMap) -> bool {
    connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

fn is_http_or_tls(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or(protocol);
    ["h2c", "h2", "http", "tls"].iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// Puts the fields of a switch, which end at each hop, onto a message for the next.
pub fn put(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::UPGRADE, protocol);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
}

/// Where the origin's end of a tunnel waits until the client has its 101.
#[derive(Debug, Default)]
pub struct Waiting(RefCell<Option<OnUpgrade>>);

impl Waiting {
    /// Takes the origin's end out of an answer that switches.
    pub fn take_from<B>(&self, response: &mut Response<B>) {
        if let Some(origin) = response.extensions_mut().remove::<OnUpgrade>() {
            self.0.replace(Some(origin));
        }
    }

    /// The origin's end, if there is one.
    pub fn take(&self) -> Option<OnUpgrade> {
        self.0.take()
    }
}

/// Passes bytes both ways until an end closes, nothing moves for too long, or the time is over. `early` is what the client
/// sent before its 101 was out.
pub async fn tunnel(
    thread: &Thread,
    limits: &Limits,
    client: impl AsyncRead + AsyncWrite + Unpin,
    early: Bytes,
    origin: OnUpgrade,
) {
    let Ok(origin) = origin.await else {
        tracing::debug!("the origin's end of a tunnel is gone");
        return;
    };
    let moved = Rc::new(Moved { ticker: thread.ticker.clone(), ms: Cell::new(thread.ticker.now_ms()) });
    let mut client = Watched { io: client, early, moved: moved.clone() };
    let mut origin = Watched { io: TokioIo::new(origin), early: Bytes::new(), moved: moved.clone() };
    let copying = pin!(copy_bidirectional(&mut client, &mut origin));
    let over = pin!(too_long(&moved, limits.tunnel_idle, limits.tunnel));
    tokio::select! {
        copied = copying => {
            if let Err(error) = copied {
                tracing::debug!(%error, "a tunnel broke");
            }
        }
        why = over => tracing::debug!(why, "a tunnel is closed"),
    }
}

/// When bytes moved last, in either direction.
struct Moved {
    ticker: Rc<Ticker>,
    ms: Cell<u64>,
}

async fn too_long(moved: &Moved, idle: Duration, total: Duration) -> &'static str {
    let started_ms = moved.ticker.now_ms();
    let timer = moved.ticker.timer();
    loop {
        let now_ms = moved.ticker.now_ms();
        let since = |ms: u64| Duration::from_millis(now_ms.saturating_sub(ms));
        let idle_left = idle.saturating_sub(since(moved.ms.get()));
        let total_left = if total.is_zero() { idle_left } else { total.saturating_sub(since(started_ms)) };
        if idle_left.is_zero() {
            return "nothing moved for too long";
        }
        if total_left.is_zero() {
            return "its time is over";
        }
        timer.arm(idle_left.min(total_left));
        poll_fn(|cx| timer.poll_due(cx)).await;
    }
}

/// An end of a tunnel that says when bytes move.
struct Watched<S> {
    io: S,
    early: Bytes,
    moved: Rc<Moved>,
}

impl<S> Watched<S> {
    fn moved(&self) {
        self.moved.ms.set(self.moved.ticker.now_ms());
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let first = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early.split_to(first));
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.moved();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.moved();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn of(fields: &[(&str, &str)], version: Version, has_body: bool) -> Option<String> {
        let mut request = Request::get("/").version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        asked(&head, has_body).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn only_other_protocols_are_asked_for() {
        let both =
            |upgrade: &str| of(&[("connection", "keep-alive, Upgrade"), ("upgrade", upgrade)], Version::HTTP_11, false);
        assert_eq!(both("websocket").as_deref(), Some("websocket"));
        assert_eq!(both("h2c, websocket").as_deref(), Some("websocket"));
        for stripped in ["h2c", "H2C", "HTTP/3", "TLS/1.0", "", ", ,"] {
            assert_eq!(both(stripped), None, "{stripped}");
        }
        assert_eq!(of(&[("upgrade", "websocket")], Version::HTTP_11, false), None, "not listed");
        let fields = [("connection", "upgrade"), ("upgrade", "websocket")];
        assert_eq!(of(&fields, Version::HTTP_11, true), None, "its body would be taken for what comes after 101");
        assert_eq!(of(&fields, Version::HTTP_10, false), None);
        assert_eq!(of(&fields, Version::HTTP_2, false), None);
    }
}
