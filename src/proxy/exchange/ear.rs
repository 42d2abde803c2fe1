//! Where a verdict goes: the client waits for an answer, or takes events of one that has begun.

use http::Response;
use http::response::Parts;
use tokio::sync::oneshot;

use super::Verdict;
use crate::proxy::body::AnswerBody;
use crate::proxy::core::Core;
use crate::proxy::mcp::{Call, refusal};
use crate::proxy::results::{self, EventSender};

/// The client, as long as it was not told how its request ended.
pub(super) enum Ear {
    /// It waits for the head.
    Head(oneshot::Sender<Verdict>),
    /// It has the head, and takes events.
    Stream(EventSender),
}

impl Ear {
    /// Sends the head of an event stream, whose end the verdict will be.
    pub(super) fn begin(self, head: Parts) -> Ear {
        match self {
            Ear::Head(waiting) => {
                let (sender, events) = results::stream();
                // A client that has left is seen by the sender.
                let _ = waiting.send(Ok(Response::from_parts(head, AnswerBody::events(events))));
                Ear::Stream(sender)
            }
            begun => begun,
        }
    }

    /// Hands the verdict over. In a stream it is the last event, or what follows the events.
    pub(super) fn tell(self, verdict: Verdict, core: &std::rc::Rc<Core>, call: Option<&Call>) {
        match self {
            Ear::Head(waiting) => _ = waiting.send(verdict),
            Ear::Stream(sender) => {
                let body = match (verdict, call) {
                    (Ok(response), _) => response.into_body(),
                    (Err(no), Some(call)) => AnswerBody::made(refusal::event(core, call, no)),
                    // Only calls have streams.
                    (Err(_), None) => AnswerBody::made(""),
                };
                sender.end(body);
            }
        }
    }

    /// Resolves when the client has left.
    pub(super) async fn closed(&mut self) {
        match self {
            Ear::Head(waiting) => waiting.closed().await,
            Ear::Stream(sender) => sender.closed().await,
        }
    }

    /// Whether the client has left.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Ear::Head(waiting) => waiting.is_closed(),
            Ear::Stream(sender) => sender.is_closed(),
        }
    }
}
