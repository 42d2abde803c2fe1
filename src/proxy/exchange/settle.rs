//! A token payment from claim to answer: a facilitator checks it, the origin answers, the facilitator moves the money.
//!
//! ```text
//! state       what is durable    the client leaves           the process dies
//! ---------------------------------------------------------------------------------------------------------
//! claimed     nothing            released                    nothing moved; the payment is good again
//! verified    nothing            released                    the same
//! head        nothing            released                    the same; the origin may be called a second time
//! intended    intent             nothing is cancelled        unresolved: looked into before anything else
//! settling    intent             nothing is cancelled        unresolved
//! settled     perhaps a capture  answer not sent: owed       unresolved, or captured and unproven
//! captured    capture            answer not sent: owed       unproven
//! refused     failure            -                           -
//! unknown     intent             -                           unresolved
//! ```
//!
//! With `settle = "first"` the origin is asked after `captured`; if it gives no success, the answer is owed.

use bytes::Bytes;
use http::StatusCode;

use super::claim::{ClaimGuard, SettlingGuard};
use super::{Charged, Exchange, No, Scene, left};
use crate::config::Settle;
use crate::facilitator::{Kind, SettleOutcome, contradiction};
use crate::ledger::evidence::WalletEvidence;
use crate::ledger::store::{Bought, CaptureError, ClaimError, Intent, Receipt, Released};
use crate::payment::permit::Exact;
use crate::payment::reason::{Reason, Refusal};
use crate::proxy::body::RequestBody;
use crate::proxy::core::Core;
use crate::proxy::forward::{self, Outbound};
use crate::wire::x402::Version;
use crate::wire::x402::facilitator::{SettleVerdict, Settled, VerifyVerdict, is_definite};
use crate::wire::x402::receipt;

/// Longest reason of a facilitator that is passed on; some send whole stack traces.
const REASON_BYTES_MAX: usize = 200;
/// When a client whose settlement has no verdict yet should ask again, seconds.
const RETRY_SECONDS: u64 = 10;

/// A payment that a facilitator has accepted; it alone may settle it.
struct Verified {
    facilitator: usize,
    answer: Bytes,
}

/// How a settlement ended.
enum End {
    /// Money moved.
    Moved(Settled, Bytes),
    /// It did not, and will not.
    Refused(Settled, Bytes),
    /// Nobody knows.
    Unknown(String),
}

impl Exchange {
    /// Claim, verify, origin, intent, settle, capture, answer.
    pub(super) async fn on_chain(&self, exact: &Exact, outbound: Outbound, mut scene: Scene) {
        let store = scene.core.shared.store.clone();
        let mut claim = match self.claim(&store).await {
            Ok(claim) => claim,
            Err(error) => return self.come_back(exact, outbound, scene, error).await,
        };
        claim.why = Released::NotAsked;
        let verified = tokio::select! {
            biased;
            // No attempt yet, or three hasty strangers who name a payment could spend it.
            () = left(&mut scene.ear) => return,
            verified = self.verify(exact, &scene.core) => verified,
        };
        let verified = match verified {
            Ok(verified) => verified,
            Err(no) => {
                drop(claim);
                return scene.tell(Err(no));
            }
        };
        claim.why = Released::ClientLeft;
        if scene.core.shared.config.routes[self.route].settle == Settle::First {
            let settled = self.settle(exact, claim, verified, None, &mut scene).await;
            if let Some((captured, receipt)) = settled {
                self.serve_settled(exact, outbound, scene, captured, &receipt).await;
            }
            return;
        }
        let upload = outbound.watch.clone();
        let Some(forwarded) = self.forward(outbound, &mut scene, "1").await else { return };
        let Some(charged) = self.judge(forwarded, &mut scene).await else { return };
        let response = match charged {
            Charged::Yes(response) => response,
            Charged::No(verdict, why) => {
                claim.why = why;
                drop(claim);
                return scene.tell(verdict);
            }
        };
        let settled = self.settle(exact, claim, verified, Some(response.status()), &mut scene).await;
        if let Some((captured, receipt)) = settled {
            let answer = self.answer(&scene.core, &scene.client, response, (captured, upload), Some(&receipt));
            scene.tell(Ok(answer));
        }
    }

    async fn verify(&self, exact: &Exact, core: &Core) -> Result<Verified, No> {
        let kind = Kind {
            version: exact.version,
            scheme: exact.scheme.to_owned(),
            network: match exact.version {
                Version::V1 => exact.requirements.network.v1_name().unwrap_or_default().to_owned(),
                Version::V2 => exact.requirements.network.to_string(),
            },
        };
        let facilitators = &core.shared.facilitators;
        // A Solana payment names the one that pays its fee.
        let is_svm = exact.requirements.network.is_svm();
        let fixed = is_svm.then(|| facilitators.first_for(kind.version, &kind.scheme, &kind.network)).flatten();
        match facilitators.verify(&kind, Bytes::from(exact.body.clone()), fixed).await {
            Ok((facilitator, VerifyVerdict::Valid(_), answer)) => Ok(Verified { facilitator, answer }),
            Ok((_, VerifyVerdict::Invalid(verified), _)) => {
                let reason = short(verified.reason.as_deref().unwrap_or("unexpected_verify_error"));
                let code = match reason {
                    "permit2_allowance_required" => Reason::AllowanceRequired,
                    _ => Reason::PaymentRefused,
                };
                Err(Refusal::new(code, format!("the facilitator refused it: {reason}")).error(reason).into())
            }
            Ok((_, VerifyVerdict::Unknown(why), _)) => Err(unavailable(5, &why)),
            Err(error) => Err(unavailable(error.retry_after, &error.why)),
        }
    }

    /// From the intent to the capture, whatever becomes of the client. `None` when there is no capture, or nobody who waits
    /// for its answer any more: the client has been told then.
    async fn settle(
        &self,
        exact: &Exact,
        claim: ClaimGuard,
        verified: Verified,
        status: Option<StatusCode>,
        scene: &mut Scene,
    ) -> Option<(Receipt, String)> {
        // Not asked yet, where it is settled first.
        let status = status.map_or(0, |status| status.as_u16());
        let facilitators = scene.core.shared.facilitators.clone();
        let known = self.evidence(exact, &verified.answer, status);
        let intent = Intent {
            posting: self.posting(&scene.core, status, Some(known.clone())),
            facilitator: facilitators.url(verified.facilitator).into(),
            payload: exact.body.clone().into_bytes(),
            hard_until_ms: exact.hard_until_ms,
        };
        let settling = match claim.intend(intent).await {
            Ok(settling) => settling,
            Err(error) => {
                scene.tell(Err(not_written(&error)));
                return None;
            }
        };
        let end = self.drive(&exact.body, exact, (verified.facilitator, false), &settling, scene).await;
        self.finish(exact, settling, end, known, false, scene).await
    }

    /// Asks the facilitator to settle, once more if it gave no verdict. A client that has waited long enough is told to come
    /// back; the call goes on. `doubtful`: an earlier attempt had no verdict, so only a success resolves it.
    async fn drive(
        &self,
        body: &str,
        exact: &Exact,
        (facilitator, doubtful): (usize, bool),
        settling: &SettlingGuard,
        scene: &mut Scene,
    ) -> End {
        let facilitators = scene.core.shared.facilitators.clone();
        let patience = scene.core.shared.config.exact.answer;
        let attempts = async {
            let mut doubtful = doubtful;
            let mut why = String::new();
            for _ in 0..2 {
                match facilitators.settle(facilitator, Bytes::from(body.to_owned())).await {
                    SettleOutcome::NotSent(reason) => why = reason,
                    SettleOutcome::Verdict(SettleVerdict::Success(settled), raw) => {
                        return match contradiction(&settled, &exact.requirements, exact.payer.as_deref()) {
                            None => End::Moved(settled, raw),
                            Some(what) => End::Unknown(what),
                        };
                    }
                    // After an attempt without a verdict, «nonce already used» may mean that that one paid.
                    SettleOutcome::Verdict(SettleVerdict::Refused(reason, settled), raw)
                        if !doubtful && is_definite(&reason, &settled) =>
                    {
                        return End::Refused(settled, raw);
                    }
                    SettleOutcome::Verdict(SettleVerdict::Refused(reason, _), _) => {
                        (doubtful, why) = (true, short(&reason).to_owned());
                    }
                    SettleOutcome::Verdict(SettleVerdict::Unknown { why: reason, .. }, _) => {
                        (doubtful, why) = (true, reason);
                    }
                }
            }
            // Nothing may have been sent at all: the same payment may be tried again.
            End::Unknown(why)
        };
        let mut attempts = std::pin::pin!(attempts);
        if !scene.has_told() {
            tokio::select! {
                biased;
                end = &mut attempts => return end,
                () = tokio::time::sleep(patience) => {}
                // It goes on, but the client may already ask for the same thing with another payment.
                () = left(&mut scene.ear) => {}
            }
            settling.in_doubt();
            scene.tell(Err(Refusal::from(Reason::SettlementPending).retry_after(RETRY_SECONDS).into()));
        }
        attempts.await
    }

    /// Posts how a settlement ended, and tells the client if there is no answer for it.
    async fn finish(
        &self,
        exact: &Exact,
        settling: SettlingGuard,
        end: End,
        known: WalletEvidence,
        owed: bool,
        scene: &mut Scene,
    ) -> Option<(Receipt, String)> {
        let status = known.origin_status;
        match end {
            End::Moved(settled, raw) => {
                let receipt = self.receipt(exact, &settled);
                let evidence = WalletEvidence { settled: raw.to_vec(), receipt: receipt.clone(), ..known };
                let posting = self.posting(&scene.core, status, Some(evidence));
                // Who is gone now is owed from the start: found out on delivery, a client that is back at once would get 409.
                if scene.ear.as_ref().is_some_and(|ear| ear.is_closed()) {
                    scene.ear = None;
                }
                let owed = owed || scene.has_told();
                match settling.settled(posting, owed).await {
                    Ok(captured) if !scene.has_told() => Some((captured, receipt)),
                    Ok(_) => None,
                    Err(error) => {
                        tracing::error!(%error, payment = %self.permit.key, "money moved and its capture is not durable yet");
                        scene.tell(Err(Refusal::from(Reason::SettlementPending).retry_after(RETRY_SECONDS).into()));
                        None
                    }
                }
            }
            End::Refused(settled, raw) => {
                let reason = short(settled.reason.as_deref().unwrap_or("unexpected_settle_error")).to_owned();
                let response = self.receipt(exact, &Settled { reason: Some(reason.clone()), ..settled });
                let evidence = WalletEvidence { settled: raw.to_vec(), receipt: response.clone(), ..known };
                let posting = self.posting(&scene.core, status, Some(evidence));
                if let Err(error) = settling.failed(posting).await {
                    tracing::error!(%error, payment = %self.permit.key, "a failed settlement is not durable yet");
                }
                let detail = format!("the facilitator did not move the money: {reason}");
                let refusal = Refusal::new(Reason::SettlementFailed, detail).error(&reason);
                scene.tell(Err(No { refusal, receipt: None, payment_response: Some((exact.version, response)) }));
                None
            }
            End::Unknown(why) => {
                tracing::warn!(%why, payment = %self.permit.key, "a settlement ended without a verdict");
                drop(settling);
                scene.tell(Err(Refusal::from(Reason::SettlementPending).retry_after(RETRY_SECONDS).into()));
                None
            }
        }
    }

    /// The same payment again, after it was claimed, settled or lost before.
    async fn come_back(&self, exact: &Exact, outbound: Outbound, mut scene: Scene, error: ClaimError) {
        let store = scene.core.shared.store.clone();
        match error {
            ClaimError::Unresolved => {
                let stored = store.unresolved().into_iter().find(|open| open.request.key == self.permit.key);
                // Whoever has seen a payment on the chain knows what was signed, not the id that was offered with it.
                let same = stored.is_some_and(|open| {
                    let posting = &open.intent.posting;
                    open.intent.payload == exact.body.as_bytes()
                        && self.is_for(Some(&posting.method), Some(&posting.target))
                });
                let settling = SettlingGuard::adopt(&store, self.permit.key).filter(|_| same);
                let Some(settling) = settling else { return scene.tell(Err(self.claim_refusal(&error))) };
                let (known, url) = match settling.intent() {
                    Some(intent) => (
                        WalletEvidence::decode(&intent.posting.evidence).unwrap_or_default(),
                        intent.facilitator.clone(),
                    ),
                    None => return scene.tell(Err(self.claim_refusal(&error))),
                };
                // Only the facilitator that was asked before; one that is no longer configured leaves it unresolved.
                let Some(facilitator) = scene.core.shared.facilitators.find(&url) else {
                    drop(settling);
                    return scene.tell(Err(self.claim_refusal(&error)));
                };
                let body = known.request.clone();
                let end = self.drive(&body, exact, (facilitator, true), &settling, &mut scene).await;
                if self.finish(exact, settling, end, known, true, &mut scene).await.is_some() {
                    self.redeliver(exact, outbound, scene).await;
                }
            }
            ClaimError::Owed => self.redeliver(exact, outbound, scene).await,
            ClaimError::AlreadyCaptured(_) => {
                let mut no = self.claim_refusal(&error);
                if let Ok(Some(bought)) = store.find(self.permit.key).await {
                    no = self.bought_before(exact, &bought);
                }
                scene.tell(Err(no));
            }
            error => scene.tell(Err(self.claim_refusal(&error))),
        }
    }

    /// The origin's answer to a payment that was settled first; what is no success is owed.
    async fn serve_settled(&self, exact: &Exact, outbound: Outbound, mut scene: Scene, captured: Receipt, x402: &str) {
        let upload = outbound.watch.clone();
        let (store, key) = (scene.core.shared.store.clone(), self.permit.key);
        let owed = move || store.owe(key, captured);
        let Some(forwarded) = self.forward(outbound, &mut scene, "1").await else { return owed() };
        let verdict = match self.charged(&scene.core, forwarded) {
            Charged::Yes(response) => {
                Ok(self.answer(&scene.core, &scene.client, response, (captured, upload), Some(x402)))
            }
            // The money has moved, and the client is to know.
            Charged::No(verdict, _) => {
                owed();
                match verdict {
                    Ok(response) => Ok(self.paid(&scene.core, response, captured, Some(x402))),
                    Err(no) => Err(No {
                        receipt: Some(captured.n.to_string()),
                        payment_response: Some((exact.version, x402.to_owned())),
                        ..no
                    }),
                }
            }
        };
        scene.tell(verdict);
    }

    /// Serves what was paid for and not given, once: the same payment, method and target, and no body that could differ.
    async fn redeliver(&self, exact: &Exact, outbound: Outbound, mut scene: Scene) {
        let store = scene.core.shared.store.clone();
        let bought = match store.find(self.permit.key).await {
            Ok(Some(bought)) => bought,
            Ok(None) => return scene.tell(Err(self.claim_refusal(&ClaimError::AlreadyCaptured(None)))),
            Err(why) => return scene.tell(Err(self.claim_refusal(&ClaimError::Unavailable(why)))),
        };
        let evidence = bought.evidence.as_deref().and_then(|bytes| WalletEvidence::decode(bytes).ok());
        let same = evidence.is_some_and(|evidence| evidence.request == exact.body)
            && self.is_for(bought.method.as_deref(), bought.target.as_deref());
        // A body that could differ was not bought; that of a call is part of the target.
        let is_same_body = match outbound.request.body() {
            RequestBody::Empty => true,
            RequestBody::Whole(_) => self.call.is_some(),
            RequestBody::Client(_) => false,
        };
        if !same || !is_same_body {
            return scene.tell(Err(self.bought_before(exact, &bought)));
        }
        let receipt = match store.redeliver(self.permit.key).await {
            Ok(receipt) => receipt,
            Err(CaptureError::Lost) => return scene.tell(Err(self.bought_before(exact, &bought))),
            Err(error) => return scene.tell(Err(not_written(&error))),
        };
        let Some(forwarded) = self.forward(outbound, &mut scene, "2").await else { return };
        let Some(judged) = self.judge_at_leisure(forwarded, &mut scene).await else { return };
        let x402 = stored_receipt(&bought);
        // Whatever the origin says: the money has moved, and the client is to know.
        let verdict = match judged {
            Charged::Yes(mut response) => {
                self.let_go(&mut response, receipt, x402.as_deref());
                Ok(self.paid(&scene.core, forward::unpaid(response), receipt, x402.as_deref()))
            }
            Charged::No(Ok(response), _) => Ok(self.paid(&scene.core, response, receipt, x402.as_deref())),
            Charged::No(Err(no), _) => Err(No {
                receipt: Some(receipt.n.to_string()),
                payment_response: x402.map(|x402| (exact.version, x402)),
                ..no
            }),
        };
        scene.tell(verdict);
    }

    /// Whether this request is for what was bought.
    fn is_for(&self, method: Option<&str>, target: Option<&str>) -> bool {
        (method, target) == (Some(&*self.method), Some(&*self.target))
    }

    /// «Spent», with the receipt.
    fn bought_before(&self, exact: &Exact, bought: &Bought) -> No {
        No {
            refusal: Reason::PaymentAlreadyUsed.into(),
            receipt: Some(bought.receipt.n.to_string()),
            payment_response: stored_receipt(bought).map(|x402| (exact.version, x402)),
        }
    }

    fn evidence(&self, exact: &Exact, verified: &[u8], status: u16) -> WalletEvidence {
        let quote = self.permit.quote.as_ref();
        WalletEvidence {
            sealed_id: quote.map(|(_, id)| *id.as_bytes()),
            template_digest: quote.map(|(term, _)| term.digest),
            request: exact.body.clone(),
            verified: verified.to_vec(),
            settled: Vec::new(),
            receipt: String::new(),
            verified_ms: self.permit.granted_ms,
            method: self.method.to_string(),
            target: self.target.to_string(),
            origin_status: status,
        }
    }

    /// The payment response, base64.
    fn receipt(&self, exact: &Exact, settled: &Settled) -> String {
        let mut receipt = receipt::Receipt::new(settled, &exact.requirements.network, exact.version);
        // What a facilitator says of itself must not break the client's reading of the answer.
        receipt.transaction = short(&receipt.transaction).to_owned();
        receipt.payer = receipt.payer.as_deref().map(short).map(str::to_owned);
        if settled.success {
            receipt.amount.get_or_insert_with(|| exact.requirements.amount.to_string());
        }
        receipt.encode(exact.version)
    }
}

fn stored_receipt(bought: &Bought) -> Option<String> {
    let evidence = WalletEvidence::decode(bought.evidence.as_deref()?).ok()?;
    Some(evidence.receipt).filter(|receipt| !receipt.is_empty())
}

fn unavailable(retry_after: u64, why: &str) -> No {
    tracing::warn!(why, "no facilitator could be asked");
    Refusal::from(Reason::FacilitatorUnavailable).retry_after(retry_after.max(1)).into()
}

fn not_written(error: &CaptureError) -> No {
    match error {
        CaptureError::Lost => Reason::PaymentAlreadyUsed.into(),
        CaptureError::Unavailable(why) => {
            tracing::error!(%why, "a settlement could not be begun");
            Refusal::from(Reason::LedgerUnavailable).retry_after(5).into()
        }
    }
}

/// The first line of a facilitator's reason, bounded: visible ASCII only, for it goes into answers.
fn short(reason: &str) -> &str {
    let end = reason.bytes().position(|b| !(b' '..=b'~').contains(&b)).unwrap_or(reason.len()).min(REASON_BYTES_MAX);
    &reason[..end]
}
