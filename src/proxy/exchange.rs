//! A paid request from claim to answer, as a task of the gateway that outlives the client.
//!
//! ```text
//! state          what is durable      the client leaves            the process dies
//! ------------------------------------------------------------------------------------------------
//! claimed        nothing              origin call cancelled,       nothing given, nothing charged
//!                                     claim released
//! origin called  nothing              the same                     the same
//! head, charged  nothing              the same                     the same
//! capturing      perhaps the row      nothing is cancelled         the row stands without outcome (unproven), or
//!                                                                  it never was: nothing given
//! captured       the row              answer not sent: voided      unproven
//! answering      the row              outcome: client left         unproven
//! ended          row and outcome      -                            -
//! ```
//!
//! A claim is released by dropping its guard, so also by a panic. Once `capture` was called the guard is empty.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use tokio::sync::oneshot;

use super::body::{AnswerBody, BodyWatch, OriginBody};
use super::connection::Client;
use super::core::Core;
use super::delivery::Tracker;
use super::forward::{self, Outbound};
use super::rescue;
use crate::ledger::evidence::Evidence;
use crate::ledger::store::{CaptureError, Claim, ClaimError, ClaimRequest, Look, Posting, Receipt, Released, Store};
use crate::payment::permit::Permit;
use crate::payment::reason::{Reason, Refusal};

/// What the task sends back: an answer, or why there is none, with the receipt of the capture that came before.
type Verdict = Result<Response<AnswerBody>, (Refusal, Option<String>)>;

/// A permitted request, complete in itself.
pub struct Exchange {
    /// What was paid.
    pub permit: Permit,
    /// The route, by its index.
    pub route: usize,
    /// Scheme, authority, path and query as they were bought.
    pub target: Arc<str>,
    /// The method as received.
    pub method: Arc<str>,
}

impl Exchange {
    /// Runs the exchange to its end, whatever becomes of the client.
    ///
    /// # Errors
    /// Why no paid answer came of it; the payment is released unless the refusal says that it was used.
    pub async fn run(self, outbound: Outbound, core: Rc<Core>, client: Rc<Client>) -> Verdict {
        let (answer, heard) = oneshot::channel();
        tokio::task::spawn_local(self.task(outbound, core, client, answer));
        // The task drops its end only by a panic; its claim is released by then.
        heard.await.unwrap_or_else(|_| Err((Reason::Internal.into(), None)))
    }

    async fn task(
        self,
        mut outbound: Outbound,
        core: Rc<Core>,
        client: Rc<Client>,
        mut answer: oneshot::Sender<Verdict>,
    ) {
        let _counted = Counted::new(&core);
        let store = core.shared.store.clone();
        let mut claim = match self.claim(&store).await {
            Ok(claim) => claim,
            Err(refused) => {
                let _ = answer.send(Err(refused));
                return;
            }
        };
        self.tell_origin(outbound.request.headers_mut());
        outbound.paid = true;
        let upload = outbound.watch.clone();
        // Until the capture is queued, a client that leaves ends the exchange: the guard releases.
        let forwarded = tokio::select! {
            biased;
            () = answer.closed() => return,
            forwarded = forward::forward(&core, outbound) => forwarded,
        };
        let response = match forwarded {
            Ok(response) => response,
            Err(refusal) => {
                // An upload that the client broke off is a drop too, an origin that fails is not.
                if refusal.reason.status() >= 500 {
                    claim.why = Released::OriginFailed;
                }
                let _ = answer.send(Err((refusal, None)));
                return;
            }
        };
        let route = &core.shared.config.routes[self.route];
        if !route.charge_on.charges(response.status().as_u16()) {
            claim.why = Released::OriginFailed;
            drop(claim);
            let mut response = forward::unpaid(response);
            make_private(response.headers_mut());
            let _ = answer.send(Ok(response));
            return;
        }
        // From here nothing cancels: the capture is queued before this call returns.
        let captured = claim.capture(self.posting(&core, response.status())).await;
        let verdict = match captured {
            Ok(receipt) => Ok(self.answer(&core, &client, response, (receipt, upload))),
            Err(CaptureError::Lost) => Err((Reason::AlreadyUsed.into(), None)),
            Err(CaptureError::Unavailable(why)) => {
                tracing::error!(%why, "a capture was not made durable; its answer is withheld");
                Err((Refusal::from(Reason::LedgerUnavailable).retry_after(5), None))
            }
        };
        // An answer that can't be handed over is dropped here; its tracker reports that.
        let _ = answer.send(verdict);
    }

    /// Takes the key and the credit; the ledger is asked about the key only after that.
    async fn claim(&self, store: &Arc<dyn Store>) -> Result<ClaimGuard, (Refusal, Option<String>)> {
        let permit = &self.permit;
        let request = ClaimRequest {
            key: permit.key,
            paid_at_ms: permit.paid_at_ms,
            account: permit.account.clone(),
            amount: permit.amount,
            asset: permit.asset.clone(),
            limit: permit.limit,
            period: permit.period,
            purchase: None,
        };
        let claim = store.claim(request).await.map_err(|e| self.claim_refusal(&e))?;
        let mut guard = ClaimGuard { store: store.clone(), claim: Some(claim), why: Released::ClientLeft };
        match store.look(permit.key).await {
            Ok(Look::Unknown) => Ok(guard),
            Ok(Look::Captured(n)) => Err(self.claim_refusal(&ClaimError::AlreadyCaptured(n))),
            Err(why) => {
                guard.why = Released::OriginFailed;
                Err(self.claim_refusal(&ClaimError::Unavailable(why)))
            }
        }
    }

    fn claim_refusal(&self, error: &ClaimError) -> (Refusal, Option<String>) {
        let mut receipt = None;
        let refusal = match error {
            ClaimError::AlreadyCaptured(n) => {
                receipt = n.map(|n| n.to_string());
                Reason::AlreadyUsed.into()
            }
            ClaimError::Burnt => {
                Refusal::new(Reason::AlreadyUsed, "three attempts with this offer failed; it is spent, uncharged")
            }
            ClaimError::Owed => Reason::PaymentAlreadyUsed.into(),
            ClaimError::Unresolved => Refusal::from(Reason::SettlementPending).retry_after(10),
            ClaimError::PayerUnresolved => Refusal::from(Reason::PaymentUnresolved).retry_after(30),
            ClaimError::BelowFloor => Refusal::from(Reason::OfferExpired),
            ClaimError::InFlight => Refusal::from(Reason::PaymentInFlight).retry_after(1),
            ClaimError::CreditExhausted { .. } => {
                let now = self.permit.proof.verified_ms / 1000;
                let wait = self.permit.period_ends.saturating_sub(now).max(1);
                Refusal::from(Reason::CreditExhausted).retry_after(wait)
            }
            ClaimError::Throttled => Refusal::from(Reason::TooManyClaims).retry_after(10),
            ClaimError::Unavailable(why) => {
                tracing::warn!(%why, "a claim was refused");
                Refusal::from(Reason::LedgerUnavailable).retry_after(5)
            }
        };
        (refusal, receipt)
    }

    /// Says to the origin who paid; what a client said in these fields was taken out before.
    fn tell_origin(&self, headers: &mut HeaderMap) {
        let proof = &self.permit.proof;
        let fields = [
            ("tollgate-agent", &*proof.key.agent),
            ("tollgate-account", &*self.permit.account),
            ("tollgate-payment-id", self.permit.payment.id.as_str()),
            ("tollgate-attempt", "1"),
        ];
        for (name, value) in fields {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }

    fn posting(&self, core: &Core, status: StatusCode) -> Posting {
        let permit = &self.permit;
        let config = &core.shared.config;
        let evidence = Evidence {
            sealed_id: Some(*permit.id.as_bytes()),
            template_digest: Some(permit.term.digest),
            signature_base: permit.proof.base.clone().into_bytes(),
            signature: permit.proof.signature.clone(),
            thumbprint: permit.proof.key.thumbprint.to_string(),
            directory_digest: permit.proof.key.directory_digest,
            verified_ms: permit.proof.verified_ms,
            method: self.method.to_string(),
            target: self.target.to_string(),
            origin_status: status.as_u16(),
        };
        Posting {
            agent: permit.proof.key.agent.clone(),
            agent_key: Some(permit.proof.key.thumbprint.clone()),
            route: config.routes[self.route].name.clone(),
            scheme: "deferred",
            amount: permit.amount,
            list_amount: permit.amount,
            table_hash: config.table_hash,
            status: status.as_u16(),
            method: self.method.clone(),
            target: self.target.clone(),
            evidence: evidence.encode(),
            key: Some(permit.proof.key.clone()),
        }
    }

    fn answer(
        &self,
        core: &Core,
        client: &Client,
        response: Response<OriginBody>,
        (receipt, upload): (Receipt, BodyWatch),
    ) -> Response<AnswerBody> {
        let store = core.shared.store.clone();
        let tracker = Tracker::new(store, receipt, client.meter.clone(), client.multiplexed, upload);
        let mut response = response.map(|body| AnswerBody::origin(body, Some(tracker)));
        let headers = response.headers_mut();
        let timestamp = (receipt.at_ms / 1000).cast_signed();
        // Scheme, network and id were read from a structured field, so they fit into one.
        if let Some(value) = self.permit.payment.response_field(timestamp).and_then(|v| HeaderValue::try_from(v).ok()) {
            headers.insert(PAYMENT_RESPONSE, value);
        }
        make_private(headers);
        headers.append(header::VARY, HeaderValue::from_static("Payment, Signature-Agent"));
        if core.shared.config.server.cors {
            rescue::expose_with_origin(headers);
        }
        response
    }
}

/// The payment response of the `deferred` scheme.
const PAYMENT_RESPONSE: HeaderName = HeaderName::from_static("payment-response");

/// What one agent paid for must not reach another from a shared cache.
fn make_private(headers: &mut HeaderMap) {
    let mut directives: Vec<String> = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|d| d.trim().to_owned())
        .filter(|d| !d.is_empty())
        .collect();
    let is = |d: &str, name: &str| d.split('=').next().is_some_and(|n| n.trim().eq_ignore_ascii_case(name));
    directives.retain(|d| !is(d, "public") && !is(d, "s-maxage") && !is(d, "private"));
    directives.insert(0, "private".to_owned());
    // Some caches in front obey these before Cache-Control.
    for name in
        ["cdn-cache-control", "cloudflare-cdn-cache-control", "surrogate-control", "x-accel-expires", "edge-control"]
    {
        headers.remove(name);
    }
    if let Ok(value) = HeaderValue::try_from(directives.join(", ")) {
        headers.insert(header::CACHE_CONTROL, value);
    }
}

/// Counts an exchange while it runs: the drain waits for it.
struct Counted(Rc<Core>);

impl Counted {
    fn new(core: &Rc<Core>) -> Counted {
        core.exchanges.set(core.exchanges.get() + 1);
        Counted(core.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.exchanges.set(self.0.exchanges.get().saturating_sub(1));
    }
}

/// A claim that is released unless it is captured: by an early return, a cancelled origin call, a panic.
struct ClaimGuard {
    store: Arc<dyn Store>,
    claim: Option<Claim>,
    /// What the release is put down to; the client, unless something else is known.
    why: Released,
}

impl ClaimGuard {
    async fn capture(mut self, posting: Posting) -> Result<Receipt, CaptureError> {
        match self.claim.take() {
            Some(claim) => self.store.capture(claim, posting).await,
            None => Err(CaptureError::Lost),
        }
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.store.release(claim, self.why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paid_answer_is_private() {
        let check = |given: &[&str], expect: &str| {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(header::CACHE_CONTROL, value.parse().unwrap());
            }
            make_private(&mut headers);
            assert_eq!(headers.get(header::CACHE_CONTROL).unwrap(), expect, "{given:?}");
            assert_eq!(headers.get_all(header::CACHE_CONTROL).iter().count(), 1);
        };
        check(&[], "private");
        check(&["public, max-age=60"], "private, max-age=60");
        check(&["no-store"], "private, no-store");
        check(&["S-MaxAge=5", "must-revalidate"], "private, must-revalidate");
        check(&["private=\"set-cookie\", max-age=1"], "private, max-age=1");
    }
}
