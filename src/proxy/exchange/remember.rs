//! The answer of a token payment on its way out; what its client may ask for again is kept (`payment-identifier`).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};

use super::{Exchange, No, Scene};
use crate::ledger::store::Receipt;
use crate::payment::permit::Exact;
use crate::payment::reason::{Reason, Refusal};
use crate::proxy::answers::{Stored, Ticket};
use crate::proxy::body::{AnswerBody, BodyError, OriginBody};
use crate::proxy::hold::{Hold, hold};

/// Longest answer that is kept.
const COPY_BYTES_MAX: usize = 64 * 1024;
/// How long an answer may take to be whole; then it streams and is not kept.
const PATIENCE: Duration = Duration::from_secs(5);

impl Exchange {
    /// Hands over an answer that was paid just now.
    pub(super) async fn hand_over(
        &self,
        exact: &Exact,
        response: Response<OriginBody>,
        (captured, x402): (Receipt, &str),
        mut scene: Scene,
    ) {
        let verdict = match self.copy(response).await {
            Ok((response, copy)) => {
                let upload = self.upload.clone();
                let answer = self.answer(&scene.core, &scene.client, response, (captured, upload), Some(x402));
                self.remember(&answer, copy);
                // Found out on delivery, a client that is back at once would find it neither owed nor served.
                if scene.ear.as_ref().is_none_or(|ear| ear.is_closed()) {
                    scene.core.shared.store.owe(self.permit.key, captured);
                }
                Ok(answer)
            }
            Err(refusal) => {
                scene.core.shared.store.owe(self.permit.key, captured);
                Err(paid_for(exact, refusal, captured, Some(x402.to_owned())))
            }
        };
        scene.tell(verdict);
    }

    /// For a client that named its payment: the whole of a small answer, before a byte of it is given.
    ///
    /// # Errors
    /// The origin broke off, and nothing has been given.
    pub(super) async fn copy(
        &self,
        response: Response<OriginBody>,
    ) -> Result<(Response<OriginBody>, Option<Bytes>), Refusal> {
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if self.ticket.borrow().is_none() || switches || is_event_stream(response.headers()) {
            return Ok((response, None));
        }
        let (head, mut body) = response.into_parts();
        let (held, copy) = match hold(&mut body, COPY_BYTES_MAX, PATIENCE).await {
            Hold::Whole(held) => {
                let copy = held.bytes().clone();
                (held, Some(copy))
            }
            Hold::Over(held) => (held, None),
            Hold::Cut(error) => return Err(cut(&error)),
        };
        Ok((Response::from_parts(head, body.with(held)), copy))
    }

    /// Keeps the answer as it goes out.
    pub(super) fn remember(&self, answer: &Response<AnswerBody>, copy: Option<Bytes>) {
        let (Some(body), Some(ticket)) = (copy, &mut *self.ticket.borrow_mut()) else { return };
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        // Its length is that of what is kept, or what HEAD would have had.
        headers.remove(header::TRANSFER_ENCODING);
        ticket.store(Stored { key: self.permit.key, status, headers, body });
    }

    /// Says what the payment's name stands for from now on.
    pub(super) fn name(&self, say: fn(&mut Ticket)) {
        if let Some(ticket) = &mut *self.ticket.borrow_mut() {
            say(ticket);
        }
    }
}

/// Whether an answer may take as long as it likes.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// The origin broke a paid answer off, of which nothing has been given.
pub(super) fn cut(error: &BodyError) -> Refusal {
    tracing::warn!(%error, "the origin cut a paid answer; it is owed");
    Refusal::new(Reason::OriginInvalid, "the origin broke off; send the same payment again")
}

/// «No» to a client whose money has moved.
pub(super) fn paid_for(exact: &Exact, refusal: Refusal, captured: Receipt, x402: Option<String>) -> No {
    No { receipt: Some(captured.n), payment_response: x402.map(|x402| (exact.version, x402)), ..refusal.into() }
}
