//! A token payment that comes back: spent, owed, or in doubt.

use bytes::Bytes;
use http::Response;

use super::claim::{OwedGuard, SettlingGuard};
use super::due::Due;
use super::ear::Ear;
use super::remember::{cut, is_event_stream, paid_for};
use super::settle::not_written;
use super::{Charged, Exchange, No, Scene, left};
use crate::ledger::evidence::{BodyDigest, WalletEvidence};
use crate::ledger::store::{Bought, CaptureError, ClaimError, Intent};
use crate::payment::permit::Exact;
use crate::payment::reason::{Reason, Refusal};
use crate::proxy::answers::Ticket;
use crate::proxy::body::{AnswerBody, OriginBody};
use crate::proxy::core::Core;
use crate::proxy::forward::Outbound;
use crate::proxy::hold::{Hold, hold};
use crate::proxy::named::hold_body;

impl Exchange {
    /// The same payment again, after it was claimed, settled or lost before.
    pub(super) async fn come_back(&self, exact: &Exact, outbound: Outbound, mut scene: Scene, error: ClaimError) {
        let store = scene.core.shared.store.clone();
        match error {
            ClaimError::Unresolved => {
                let unresolved = store.unresolved().await.unwrap_or_default();
                let stored = unresolved.into_iter().find(|open| open.request.key == self.permit.key);
                let known = |intent: &Intent| WalletEvidence::decode(&intent.posting.evidence).unwrap_or_default();
                // Whoever has seen a payment on the chain knows what was signed, not the id that was offered with it.
                let same = stored.is_some_and(|open| {
                    let posting = &open.intent.posting;
                    known(&open.intent).request == exact.body
                        && self.is_for(Some(&posting.method), Some(&posting.target))
                });
                if !same {
                    return scene.tell(Err(self.claim_refusal(&error)));
                }
                self.name(Ticket::bind);
                let settling = SettlingGuard::adopt(&store, self.permit.key).await;
                let found = settling.and_then(|settling| {
                    let intent = settling.intent()?;
                    let (due, known) = (Due::intended(exact, intent), known(intent));
                    let url = intent.facilitator.clone();
                    Some((settling, due, known, url))
                });
                let Some((settling, due, known, url)) = found else {
                    return scene.tell(Err(self.claim_refusal(&error)));
                };
                // Only the facilitator that was asked before; one that is no longer configured leaves it unresolved.
                let Some(facilitator) = scene.core.shared.facilitators.find(&url) else {
                    drop(settling);
                    return scene.tell(Err(self.claim_refusal(&error)));
                };
                let end = self.drive(&due, exact, (facilitator, true), &settling, &mut scene).await;
                if self.finish((exact, &due), settling, end, known, true, &mut scene).await.is_some() {
                    self.redeliver(exact, outbound, scene).await;
                }
            }
            ClaimError::Owed => self.redeliver(exact, outbound, scene).await,
            ClaimError::AlreadyCaptured(_) => {
                let mut no = self.claim_refusal(&error);
                if let Ok(Some(bought)) = store.find(self.permit.key).await {
                    let evidence = bought.evidence.as_deref().and_then(|bytes| WalletEvidence::decode(bytes).ok());
                    let same = evidence.is_some_and(|evidence| evidence.request == exact.body);
                    if bought.owed && same && !bought.refunded {
                        // It may have become so just now.
                        return self.redeliver(exact, outbound, scene).await;
                    }
                    no = self.bought_before(exact, &bought);
                }
                scene.tell(Err(no));
            }
            error => scene.tell(Err(self.claim_refusal(&error))),
        }
    }

    /// Serves what was paid for and not given, once: for the same payment, method, target and body.
    async fn redeliver(&self, exact: &Exact, mut outbound: Outbound, mut scene: Scene) {
        let store = scene.core.shared.store.clone();
        let bought = match store.find(self.permit.key).await {
            Ok(Some(bought)) => bought,
            Ok(None) => return scene.tell(Err(self.claim_refusal(&ClaimError::AlreadyCaptured(None)))),
            Err(why) => return scene.tell(Err(self.claim_refusal(&ClaimError::Unavailable(why)))),
        };
        let evidence = bought.evidence.as_deref().and_then(|bytes| WalletEvidence::decode(bytes).ok());
        let evidence = evidence.filter(|evidence| {
            evidence.request == exact.body && self.is_for(bought.method.as_deref(), bought.target.as_deref())
        });
        let Some(evidence) = evidence else { return scene.tell(Err(self.bought_before(exact, &bought))) };
        if evidence.sealed_id.is_none() {
            // All of a payment of x402 v1 stands on the chain, where anybody can take it from.
            return scene.tell(Err(self.owed_before(exact, &bought)));
        }
        // What a call asks for is part of its target; its body has an id that is another each time.
        if self.call.is_none() {
            let body = tokio::select! {
                biased;
                () = left(&mut scene.ear) => return,
                body = hold_body(&scene.core, &mut outbound) => body,
            };
            match body {
                // What was not known to its end then can't be told from another now.
                Ok(body) if body != BodyDigest::Unknown && body == evidence.body => {}
                Ok(_) => return scene.tell(Err(self.bought_before(exact, &bought))),
                Err(refusal) => return scene.tell(Err(refusal.into())),
            }
        }
        self.name(Ticket::bind);
        let Some(turn) = OwedGuard::take(&store, self.permit.key).await else {
            let owed = bought.owed && !bought.refunded;
            let no = if owed { self.owed_before(exact, &bought) } else { self.bought_before(exact, &bought) };
            return scene.tell(Err(no));
        };
        let (receipt, x402) = (bought.receipt, stored_receipt(&bought));
        let Some(forwarded) = self.forward(outbound, &mut scene, "2").await else { return };
        // An origin that fails once more leaves it owed, for the operator to refund. The client is to know that it has paid.
        let refused = |refusal, x402| Err(paid_for(exact, refusal, receipt, x402));
        let Some(judged) = self.judge_at_leisure(forwarded, &mut scene).await else { return };
        let verdict = match judged {
            Charged::No(Ok(response), _) => Ok(self.paid(&scene.core, response, receipt, x402.as_deref())),
            Charged::No(Err(no), _) => refused(no.refusal, x402),
            Charged::Yes(response) => match self.whole(&scene.core, response).await {
                Err(refusal) => refused(refusal, x402),
                // Whoever is gone by now has been given nothing: it stays owed.
                Ok(_) if scene.ear.as_ref().is_none_or(Ear::is_closed) => return,
                Ok((mut response, copy)) => match turn.redelivered().await {
                    Err(CaptureError::Lost) => Err(self.bought_before(exact, &bought)),
                    Err(error) => Err(not_written(&error)),
                    Ok(receipt) => {
                        self.let_go(&mut response, receipt, x402.as_deref());
                        let response = response.map(|body| AnswerBody::origin(body, None));
                        let answer = self.paid(&scene.core, response, receipt, x402.as_deref());
                        self.remember(&answer, copy);
                        Ok(answer)
                    }
                },
            },
        };
        scene.tell(verdict);
    }

    /// An answer that is owed is taken before it is given, as far as memory allows: one that breaks off is not served.
    async fn whole(
        &self,
        core: &Core,
        response: Response<OriginBody>,
    ) -> Result<(Response<OriginBody>, Option<Bytes>), Refusal> {
        let exact = &core.shared.config.exact;
        if self.call.is_some() || is_event_stream(response.headers()) {
            return self.copy(response).await;
        }
        let (head, mut body) = response.into_parts();
        let held = match hold(&mut body, exact.body_bytes, exact.answer).await {
            Hold::Whole(held) | Hold::Over(held) => held,
            Hold::Cut(error) => return Err(cut(&error)),
        };
        self.copy(Response::from_parts(head, body.with(held))).await
    }

    /// Whether this request is for what was bought.
    fn is_for(&self, method: Option<&str>, target: Option<&str>) -> bool {
        (method, target) == (Some(&*self.method), Some(&*self.target))
    }

    /// «Paid and never given», with the receipt: who reads «spent» would pay again.
    fn owed_before(&self, exact: &Exact, bought: &Bought) -> No {
        No { refusal: Reason::PaymentOwed.into(), ..self.bought_before(exact, bought) }
    }

    /// «Spent», with the receipt.
    fn bought_before(&self, exact: &Exact, bought: &Bought) -> No {
        let refusal = match bought.refunded {
            true => Refusal::new(Reason::PaymentAlreadyUsed, "what it paid is given back; pay anew for what you want"),
            false => Reason::PaymentAlreadyUsed.into(),
        };
        No {
            receipt: Some(bought.receipt.n),
            payment_response: stored_receipt(bought).map(|x402| (exact.version, x402)),
            ..refusal.into()
        }
    }
}

fn stored_receipt(bought: &Bought) -> Option<String> {
    let evidence = WalletEvidence::decode(bought.evidence.as_deref()?).ok()?;
    Some(evidence.receipt).filter(|receipt| !receipt.is_empty())
}
