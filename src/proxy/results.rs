//! Answers of which a part is kept back until it is paid, and event streams that begin before it is known how they end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::body::AnswerBody;
use crate::wire::mcp::{answer, events};

/// Events that wait for a client that is slow; more wait at the origin.
const EVENTS_WAITING: usize = 2;

/// The result of a call, and what came behind it.
pub enum HeldResult {
    /// A whole JSON answer.
    Json(String),
    /// An event as it came, and bytes of the stream after it.
    Event(Vec<u8>, Vec<u8>),
}

impl HeldResult {
    /// What the client gets once it is paid: with this receipt (JSON) in the result's `_meta`.
    pub fn with_receipt(self, receipt: &str) -> Vec<u8> {
        // What was judged to be a result can take a receipt.
        match self {
            HeldResult::Json(text) => answer::with_receipt(&text, receipt).unwrap_or(text).into_bytes(),
            HeldResult::Event(event, after) => {
                let text = events::data(&event).unwrap_or_default();
                let text = answer::with_receipt(&text, receipt).unwrap_or(text);
                [events::with_data(&event, &text), after].concat()
            }
        }
    }
}

/// The client's side of an event stream.
pub struct Events {
    events: mpsc::Receiver<Bytes>,
    end: Option<oneshot::Receiver<AnswerBody>>,
    /// All events have been taken.
    ended: bool,
}

/// The gateway's side of it.
pub struct EventSender {
    events: mpsc::Sender<Bytes>,
    end: oneshot::Sender<AnswerBody>,
}

/// An event stream, and where its events go in.
pub fn stream() -> (EventSender, Events) {
    let (events, taken) = mpsc::channel(EVENTS_WAITING);
    let (end, ended) = oneshot::channel();
    (EventSender { events, end }, Events { events: taken, end: Some(ended), ended: false })
}

impl EventSender {
    /// Hands an event over, when the client has taken the ones before. False when it has left.
    pub async fn event(&self, event: Vec<u8>) -> bool {
        self.events.send(event.into()).await.is_ok()
    }

    /// Ends the stream with a body that follows the events; dropped, it ends after them.
    pub fn end(self, body: AnswerBody) {
        // A client that has left: the body is dropped here, its tracker reports that.
        let _ = self.end.send(body);
    }

    /// Resolves when the client has left.
    pub async fn closed(&self) {
        self.events.closed().await;
    }

    /// Whether the client has left.
    pub fn is_closed(&self) -> bool {
        self.events.is_closed()
    }
}

/// What comes next of an event stream.
pub enum Next {
    /// An event.
    Event(Bytes),
    /// What follows the events.
    End(Box<AnswerBody>),
    /// Nothing.
    Over,
}

impl Events {
    /// What comes next.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if !self.ended {
            match ready!(self.events.poll_recv(cx)) {
                Some(event) => return Poll::Ready(Next::Event(event)),
                None => self.ended = true,
            }
        }
        let Some(end) = &mut self.end else { return Poll::Ready(Next::Over) };
        let body = ready!(Pin::new(end).poll(cx));
        self.end = None;
        Poll::Ready(body.map_or(Next::Over, |body| Next::End(Box::new(body))))
    }
}
