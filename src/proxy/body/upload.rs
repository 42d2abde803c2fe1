//! Request bodies on their way to the origin.

use std::cell::Cell;
use std::future::poll_fn;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::BodyError;
use super::content::SignedContent;
use crate::payment::reason::{Reason, Refusal};
use crate::proxy::core::Core;
use crate::proxy::digest::Digesting;
use crate::proxy::hold::Held;
use crate::proxy::ticker::Timer;

/// What ended a request body early, so that the answer can say whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It stopped, or came too slowly.
    Slow,
    /// The client broke off, or its framing was wrong.
    Broken,
    /// It is not the body whose digest was signed.
    Digest,
}

/// A request body towards the origin.
pub enum RequestBody {
    /// None; such a request may be sent again.
    Empty,
    /// The client's.
    Client(ClientBody),
    /// What was taken of it before, and what is left of it.
    Held(Box<Held>, Option<ClientBody>),
}

/// The client's body under its deadlines; trailers are dropped.
pub struct ClientBody {
    incoming: Incoming,
    idle: Duration,
    min_rate: u64,
    timer: Timer,
    started_ms: u64,
    bytes: u64,
    watch: BodyWatch,
}

/// What the forwarding side can see of a body that it has handed away.
#[derive(Clone, Debug, Default)]
pub struct BodyWatch(Rc<Watched>);

/// See [`BodyWatch`].
#[derive(Debug, Default)]
pub struct Watched {
    /// Why it ended early.
    pub fault: Cell<Option<Fault>>,
    /// When the last of it went on, ms since the core started: the origin's deadline starts anew with each byte.
    pub moved_ms: Cell<Option<u64>>,
    /// The origin took all there is and the client has to send more: its deadline runs, not the origin's.
    pub waiting: Cell<bool>,
    /// The client still has to send some of it.
    pub open: Cell<bool>,
    /// Its digest, where somebody asks for it.
    pub digest: Digesting,
    /// Whether it is the body that was signed for, where a payment says so.
    pub content: SignedContent,
}

impl Deref for BodyWatch {
    type Target = Watched;

    fn deref(&self) -> &Watched {
        &self.0
    }
}

impl RequestBody {
    /// What was read whole and looked at.
    pub fn whole(bytes: Bytes) -> RequestBody {
        RequestBody::Held(Box::new(Held::of(bytes, true)), None)
    }

    /// The same body with what was taken of it in front again.
    pub fn with(self, held: Held) -> RequestBody {
        match self {
            RequestBody::Client(rest) if !held.is_whole() => RequestBody::Held(Box::new(held), Some(rest)),
            // It was too long before already: nothing was taken of it.
            RequestBody::Held(before, rest) if !held.is_whole() && held.is_empty() => RequestBody::Held(before, rest),
            RequestBody::Held(_, rest) if !held.is_whole() => RequestBody::Held(Box::new(held), rest),
            _ => RequestBody::Held(Box::new(held), None),
        }
    }

    /// Puts a client's body under the deadlines of the configuration.
    pub fn client(core: &Core, incoming: Incoming, watch: &BodyWatch) -> RequestBody {
        if incoming.is_end_stream() {
            return RequestBody::Empty;
        }
        let limits = &core.shared.config.server.limits;
        watch.open.set(true);
        RequestBody::Client(ClientBody {
            incoming,
            idle: limits.body_idle,
            min_rate: limits.body_min_rate,
            timer: core.thread.ticker.timer(),
            started_ms: core.thread.ticker.now_ms(),
            bytes: 0,
            watch: watch.clone(),
        })
    }
}

impl RequestBody {
    /// A client's body, whole, if it has at most so many bytes.
    ///
    /// # Errors
    /// The client's fault.
    pub async fn read(core: &Core, incoming: Incoming, most: usize) -> Result<Bytes, Refusal> {
        let too_large = || Refusal::new(Reason::BodyTooLarge, format!("the body has more than {most} bytes"));
        if incoming.size_hint().lower() > most as u64 {
            return Err(too_large());
        }
        let mut body = RequestBody::client(core, incoming, &BodyWatch::default());
        let mut bytes = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let data = match frame.map(Frame::into_data) {
                Ok(Ok(data)) => data,
                Ok(Err(_)) => continue,
                Err(BodyError::Client(Fault::Slow)) => return Err(Reason::BodyTooSlow.into()),
                Err(_) => return Err(Refusal::new(Reason::BadRequest, "the request body broke off or is malformed")),
            };
            if bytes.len() + data.len() > most {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.into())
    }
}

impl ClientBody {
    fn too_slow(&self) -> bool {
        let ms = self.timer.now_ms().saturating_sub(self.started_ms);
        ms > self.idle.as_millis() as u64 && self.bytes < self.min_rate.saturating_mul(ms) / 1000
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.watch.waiting.set(false);
                    self.watch.moved_ms.set(Some(self.timer.now_ms()));
                    // Trailers could smuggle fields past the gate.
                    let Ok(data) = frame.into_data() else { continue };
                    self.bytes += data.len() as u64;
                    self.watch.digest.feed(&data);
                    self.watch.content.feed(&data);
                    self.watch.open.set(!self.incoming.is_end_stream());
                    if self.incoming.is_end_stream() {
                        self.watch.digest.finish();
                    }
                    if self.too_slow() {
                        return self.fail(Fault::Slow);
                    }
                    // The last of a body that does not fit must not reach the origin, also where its end is known by its
                    // length alone.
                    let is_all = self.incoming.is_end_stream() || self.incoming.size_hint().exact() == Some(0);
                    if is_all && !self.watch.content.finish() {
                        return self.fail(Fault::Digest);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(_))) => return self.fail(Fault::Broken),
                Poll::Ready(None) => {
                    self.watch.waiting.set(false);
                    self.watch.open.set(false);
                    self.watch.digest.finish();
                    if !self.watch.content.finish() {
                        return self.fail(Fault::Digest);
                    }
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    if !self.watch.waiting.replace(true) {
                        self.timer.arm(self.idle);
                    }
                    ready!(self.timer.poll_due(cx));
                    return self.fail(Fault::Slow);
                }
            }
        }
    }

    fn fail(&self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.watch.fault.set(Some(fault));
        Poll::Ready(Some(Err(BodyError::Client(fault))))
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        // Nobody waits for the client any more.
        self.watch.waiting.set(false);
        self.watch.content.give_up();
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Client(body) => body.poll_data(cx),
            RequestBody::Held(held, rest) => match (held.frame(), rest) {
                (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
                (None, Some(rest)) => rest.poll_data(cx),
                (None, None) => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Client(body) => body.incoming.is_end_stream(),
            RequestBody::Held(held, rest) => {
                held.is_empty() && rest.as_ref().is_none_or(|rest| rest.incoming.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Client(body) => body.incoming.size_hint(),
            RequestBody::Held(held, rest) => {
                held.hint(&rest.as_ref().map_or(SizeHint::with_exact(0), |rest| rest.incoming.size_hint()))
            }
        }
    }
}
