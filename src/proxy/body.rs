//! Bodies on their way through: requests to the origin, answers to the client. Both stream with backpressure.

mod content;
mod upload;

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

pub use self::content::Fit;
pub use self::upload::{BodyWatch, ClientBody, Fault, RequestBody};
use super::core::Core;
use super::delivery::Tracker;
use super::framing;
use super::hold::Held;
use super::meter::Meter;
use super::origin::Lease;
use super::results::{Events, HeldResult, Next};
use super::ticker::Timer;
use crate::telemetry::access::Line;

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

    /// Leaves out what the gateway made: the answer to HEAD has only its length.
    pub fn leave_out(&mut self) -> Option<usize> {
        match &mut self.content {
            Content::Made(bytes) => Some(bytes.take().map_or(0, |bytes| bytes.len())),
            Content::Origin(..) | Content::Events(_) => None,
        }
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
        if let Some(served) = &mut this.served {
            served.waits_for_client(polled.is_ready());
            if let (Some((line, _)), Poll::Ready(Some(Ok(frame)))) = (&mut served.line, &polled) {
                line.bytes += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
            }
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
    /// What was taken of it before the answer was given.
    held: Option<Box<Held>>,
    /// The result of a call, kept back until it is paid.
    pub result: Option<Box<HeldResult>>,
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
            held: None,
            result: None,
        };
        body.release_at_end();
        body
    }

    /// The same body with what was taken of it in front again.
    pub fn with(mut self, held: Held) -> OriginBody {
        // It was too long before already: nothing was taken of it, and what is in front stays there.
        if self.held.is_none() || !held.is_empty() || held.is_whole() {
            self.held = Some(Box::new(held));
        }
        self
    }

    /// Puts bytes before those that are still to come.
    pub fn put_in_front(&mut self, bytes: impl Into<Bytes>) {
        self.held = Some(Box::new(Held::of(bytes.into(), self.done)));
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
        if let Some(held) = &mut this.held {
            match held.frame() {
                None if held.is_whole() => return Poll::Ready(None),
                None => this.held = None,
                frame => return Poll::Ready(frame.map(Ok)),
            }
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
        let over = self.done || self.incoming.is_end_stream();
        match &self.held {
            Some(held) => held.is_empty() && (held.is_whole() || over),
            None => over,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.held {
            Some(held) if held.is_whole() || self.done => held.hint(&SizeHint::with_exact(0)),
            Some(held) => held.hint(&self.incoming.size_hint()),
            None => self.incoming.size_hint(),
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
    /// Its line in the access log, and when it came.
    line: Option<(Box<Line>, Instant)>,
}

impl Served {
    /// `None` when the core serves as many requests as it may.
    pub fn enter(core: &Rc<Core>, meter: &Rc<Meter>) -> Option<Served> {
        meter.enter();
        let served = Served { core: core.clone(), meter: meter.clone(), answer: meter.follow(), line: None };
        let in_flight = core.thread.open.in_flight.get() + 1;
        core.thread.open.in_flight.set(in_flight);
        (in_flight <= core.in_flight_max).then_some(served)
    }
}

impl Served {
    /// The request has this line in the access log; what is still missing is added at its end.
    pub fn log(&mut self, line: Box<Line>, came: Instant) {
        self.line = Some((line, came));
    }

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
        if let Some((mut line, came)) = self.line.take() {
            line.total_ms = milliseconds(came.elapsed());
            if let Some(log) = self.core.shared.telemetry.access() {
                log.take(line);
            }
        }
        self.core.thread.open.in_flight.set(self.core.thread.open.in_flight.get().saturating_sub(1));
        self.meter.leave();
    }
}

/// For a line.
pub fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerBody")
    }
}
