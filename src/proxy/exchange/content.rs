//! A payment whose signature covers the body's digest: nothing is charged before all of the body was read, and fits.

use std::time::Duration;

use super::{Exchange, Scene, left};
use crate::payment::permit::Proof;
use crate::payment::reason::{Reason, Refusal};
use crate::proxy::body::{Fit, RequestBody};
use crate::proxy::forward::{Outbound, client_fault};

impl Exchange {
    /// Begins to check the body, before any of it goes on; what is here already is checked at once.
    ///
    /// # Errors
    /// [`Reason::ContentDigestMismatch`]: the origin is not asked.
    pub(super) fn expect_content(&self, proof: &Proof, outbound: &Outbound) -> Result<(), Refusal> {
        let Some(digest) = &proof.content else { return Ok(()) };
        let content = &self.upload.content;
        content.expect(digest);
        let is_whole = match outbound.request.body() {
            RequestBody::Empty => true,
            RequestBody::Client(_) => false,
            RequestBody::Held(held, rest) => {
                content.feed(held.bytes());
                rest.is_none()
            }
        };
        if is_whole && !content.finish() { Err(Reason::ContentDigestMismatch.into()) } else { Ok(()) }
    }

    /// Waits for the end of a body that is checked, after an answer that is to be charged came before it. `None` when the
    /// client left meanwhile.
    ///
    /// # Errors
    /// It does not fit, broke off, or the origin does not take it.
    pub(super) async fn content_fits(&self, scene: &mut Scene) -> Option<Result<(), Refusal>> {
        let content = &self.upload.content;
        let origin = scene.core.shared.config.routes[self.route].origin;
        let limit = scene.core.pools[origin].config().head;
        loop {
            match content.known() {
                Some(Fit::Fits) => return Some(Ok(())),
                Some(Fit::Differs) => return Some(Err(Reason::ContentDigestMismatch.into())),
                Some(Fit::Gone) => {
                    let why = "the origin answered without reading the body that was signed for";
                    let by_origin = || Refusal::new(Reason::OriginInvalid, why);
                    return Some(Err(client_fault(&self.upload).unwrap_or_else(by_origin)));
                }
                None => {}
            }
            tokio::select! {
                biased;
                () = left(&mut scene.ear) => return None,
                () = content.moved() => {}
                () = tokio::time::sleep(limit) => {
                    let now = scene.core.thread.ticker.now_ms();
                    let still = |at: u64| Duration::from_millis(now.saturating_sub(at)) >= limit;
                    // A client that sends nothing has a deadline of its own.
                    if !self.upload.waiting.get() && self.upload.moved_ms.get().is_none_or(still) {
                        return Some(Err(Reason::OriginTimeout.into()));
                    }
                }
            }
        }
    }
}
