//! `settle = "after_body"`: the answer is taken before money moves, so that one that is cut costs nothing.
//!
//! Nothing is durable yet: a client that leaves, an origin that breaks off and a process that dies leave a payment that is
//! good again.

use std::time::Duration;

use http::Response;

use super::{Exchange, Scene, left};
use crate::payment::permit::Exact;
use crate::payment::reason::{Reason, Refusal};
use crate::payment::upto;
use crate::proxy::body::OriginBody;
use crate::proxy::hold::{Hold, hold};

/// What a settlement needs before the end of its authorisation.
const SETTLE: Duration = Duration::from_secs(10);

/// What came of waiting for an answer's body.
pub(super) enum Taken {
    /// It may be settled: all of it is here, or as much as is waited for and the rest streams.
    Ready(Response<OriginBody>),
    /// It broke off, or is too long: the client gets this, and pays nothing.
    Cut(Refusal),
    /// The client is gone, nothing was settled.
    Left,
}

impl Exchange {
    /// Waits for the body, as far as memory and the life of the authorisation allow.
    pub(super) async fn take(&self, exact: &Exact, response: Response<OriginBody>, scene: &mut Scene) -> Taken {
        let shared = scene.core.shared.clone();
        let patience = Duration::from_millis(exact.hard_until_ms.saturating_sub(shared.clock.now_ms()));
        let (head, mut body) = response.into_parts();
        let held = tokio::select! {
            biased;
            () = left(&mut scene.ear) => return Taken::Left,
            held = hold(&mut body, shared.config.exact.body_bytes, patience.saturating_sub(SETTLE)) => held,
        };
        match held {
            // Whoever may still name an amount must not have been served by then.
            Hold::Over(_) if exact.scheme == upto::SCHEME => Taken::Cut(Reason::AnswerTooLong.into()),
            Hold::Whole(held) | Hold::Over(held) => Taken::Ready(Response::from_parts(head, body.with(held))),
            Hold::Cut(error) => {
                tracing::warn!(%error, "the origin cut its answer before the end");
                Taken::Cut(Refusal::new(Reason::OriginInvalid, "the origin broke off in the middle of its answer"))
            }
        }
    }
}
