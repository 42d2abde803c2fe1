//! Bodies on their way through: requests to the origin, answers to the client. Both stream with backpressure.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::core::Core;
use super::delivery::Tracker;
use super::framing;
use super::held::{Events, Held, Next};
use super::meter::Meter;
use super::origin::Lease;
use super::ticker::Timer;

/// What ended a request body early, so that the answer can say whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It stopped, or came too slowly.
    Slow,
    /// The client broke off, or its framing was wrong.
    Broken,
}

/// A request body towards the origin.
pub enum RequestBody {
    /// None; such a request may be sent again.
    Empty,
    /// The client's.
    Client(ClientBody),
    /// What was read and looked at.
    Whole(Bytes),
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
}

impl Deref for BodyWatch {
    type Target = Watched;

    fn deref(&self) -> &Watched {
        &self.0
    }
}

impl RequestBody {
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
            timer: core.ticker.timer(),
            started_ms: core.ticker.now_ms(),
            bytes: 0,
            watch: watch.clone(),
        })
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
                    self.watch.open.set(!self.incoming.is_end_stream());
                    if self.too_slow() {
                        return self.fail(Fault::Slow);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(_))) => return self.fail(Fault::Broken),
                Poll::Ready(None) => {
                    self.watch.waiting.set(false);
                    self.watch.open.set(false);
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
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Client(body) => body.poll_data(cx),
            RequestBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            RequestBody::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Client(body) => body.incoming.is_end_stream(),
            RequestBody::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Client(body) => body.incoming.size_hint(),
            RequestBody::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

/// An answer's body.
pub struct AnswerBody {
    content: Content,
    /// Present while the request counts as being served.
    served: Option<Served>,
}

enum Content {
    Made(Option<Bytes>),
    Origin(OriginBody, Option<Box<Tracker>>),
    /// Events that pass before it is known how they end.
    Events(Events),
}

impl AnswerBody {
    /// A body that the gateway made.
    pub fn made(bytes: impl Into<Bytes>) -> AnswerBody {
        let bytes = bytes.into();
        AnswerBody { content: Content::Made((!bytes.is_empty()).then_some(bytes)), served: None }
    }

    /// The origin's body; a paid one with its tracker.
    pub fn origin(body: OriginBody, tracker: Option<Tracker>) -> AnswerBody {
        AnswerBody { content: Content::Origin(body, tracker.map(Box::new)), served: None }
    }

    /// Events as they come, then what follows them.
    pub fn events(events: Events) -> AnswerBody {
        AnswerBody { content: Content::Events(events), served: None }
    }

    /// The request counts as served until this body is gone.
    pub fn serving(mut self, served: Served) -> AnswerBody {
        served.waits_for_client(true);
        self.served = Some(served);
        self
    }
}

impl AnswerBody {
    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Content::Events(events) = &mut self.content {
            match ready!(events.poll_next(cx)) {
                Next::Event(event) => return Poll::Ready(Some(Ok(Frame::data(event)))),
                Next::End(body) => self.take_over(*body),
                Next::Over => return Poll::Ready(None),
            }
        }
        match &mut self.content {
            Content::Made(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Content::Origin(body, None) => Pin::new(body).poll_frame(cx),
            Content::Origin(body, Some(tracker)) => poll_tracked(body, tracker, cx),
            // Nothing that follows events has events.
            Content::Events(_) => Poll::Ready(None),
        }
    }

    /// Goes on as another body, which is on its way to the client from now on.
    fn take_over(&mut self, mut end: AnswerBody) {
        self.content = std::mem::replace(&mut end.content, Content::Made(None));
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = this.poll_content(cx);
        if let Some(served) = &this.served {
            served.waits_for_client(polled.is_ready());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Made(bytes) => bytes.is_none(),
            Content::Origin(body, _) => body.is_end_stream(),
            Content::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Events(_) => SizeHint::default(),
            Content::Made(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Content::Origin(body, _) => body.size_hint(),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // The HTTP layer does not poll a body that says it ended, nor the body of an answer to HEAD.
        if let Content::Origin(body, Some(tracker)) = &mut self.content {
            if self.served.is_none() {
                // It was never handed to the client's connection.
                tracker.on_not_sent();
            } else if body.is_end_stream() {
                tracker.on_end();
            }
        }
    }
}

fn poll_tracked(
    body: &mut OriginBody,
    tracker: &mut Tracker,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    tracker.on_poll();
    let polled = Pin::new(&mut *body).poll_frame(cx);
    match &polled {
        Poll::Pending => tracker.on_waiting(),
        Poll::Ready(Some(Ok(frame))) => {
            tracker.on_bytes(frame.data_ref().map_or(0, Bytes::len));
            if body.is_end_stream() {
                tracker.on_end();
            }
        }
        Poll::Ready(Some(Err(_))) => tracker.on_origin_cut(),
        Poll::Ready(None) => tracker.on_end(),
    }
    polled
}

/// The origin's body under its idle deadline; gives the connection back at its end.
pub struct OriginBody {
    incoming: Incoming,
    lease: Option<Lease>,
    idle: Duration,
    timer: Option<Timer>,
    waiting: bool,
    /// All of it has come.
    done: bool,
    /// Bytes of it that were looked at and have not gone on.
    front: Option<Bytes>,
    /// What is kept back until it is paid.
    pub held: Option<Box<Held>>,
}

impl OriginBody {
    /// Wraps a body that came over `lease`.
    pub fn new(incoming: Incoming, lease: Lease, idle: Duration) -> OriginBody {
        let mut body = OriginBody {
            incoming,
            lease: Some(lease),
            idle,
            timer: None,
            waiting: false,
            done: false,
            front: None,
            held: None,
        };
        body.release_at_end();
        body
    }

    /// Puts bytes before those that are still to come.
    pub fn put_in_front(&mut self, bytes: impl Into<Bytes>) {
        self.front = Some(bytes.into()).filter(|bytes| !bytes.is_empty());
    }

    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl Body for OriginBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(front) = this.front.take() {
            return Poll::Ready(Some(Ok(Frame::data(front))));
        }
        if this.done {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.waiting = false;
                this.release_at_end();
                // What an origin may not say in its head it may not say in its trailers.
                let frame = match frame.into_trailers() {
                    Ok(mut trailers) => {
                        framing::strip_response(&mut trailers);
                        Frame::trailers(trailers)
                    }
                    Err(frame) => frame,
                };
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.done = true;
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                this.lease = None;
                Poll::Ready(Some(Err(BodyError::Origin(error))))
            }
            Poll::Pending => {
                let Some(lease) = &this.lease else { return Poll::Pending };
                let timer = this.timer.get_or_insert_with(|| lease.timer());
                if !this.waiting {
                    this.waiting = true;
                    timer.arm(this.idle);
                }
                ready!(timer.poll_due(cx));
                this.lease = None;
                Poll::Ready(Some(Err(BodyError::OriginIdle)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.front.is_none() && (self.done || self.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.front {
            None => self.incoming.size_hint(),
            Some(front) if self.done || self.incoming.is_end_stream() => SizeHint::with_exact(front.len() as u64),
            Some(_) => SizeHint::default(),
        }
    }
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client's request body.
    #[error("the request body broke off: {0:?}")]
    Client(Fault),
    /// The origin's answer.
    #[error("the origin broke off: {0}")]
    Origin(hyper::Error),
    /// The origin's answer stopped.
    #[error("the origin sent nothing for too long")]
    OriginIdle,
}

/// Counts a request as being served, on its core and its connection.
pub struct Served {
    core: Rc<Core>,
    meter: Rc<Meter>,
    /// Its answer, where the meter follows it.
    answer: Option<usize>,
}

impl Served {
    /// `None` when the core serves as many requests as it may.
    pub fn enter(core: &Rc<Core>, meter: &Rc<Meter>) -> Option<Served> {
        meter.enter();
        let served = Served { core: core.clone(), meter: meter.clone(), answer: meter.follow() };
        let in_flight = core.in_flight.get() + 1;
        core.in_flight.set(in_flight);
        (in_flight <= core.in_flight_max).then_some(served)
    }
}

impl Served {
    fn waits_for_client(&self, waits: bool) {
        if let Some(answer) = self.answer {
            self.meter.waits_for_client(answer, waits);
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(answer) = self.answer {
            self.meter.unfollow(answer);
        }
        self.core.in_flight.set(self.core.in_flight.get().saturating_sub(1));
        self.meter.leave();
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerBody")
    }
}
