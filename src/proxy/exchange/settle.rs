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
//! With `settle = "first"` the origin is asked after `captured`; if it gives no success, the answer is owed. With
//! `"after_body"` the answer's body is taken between `head` and `intended`; if it breaks off, the payment is released.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use super::after_body::Taken;
use super::claim::{ClaimGuard, SettlingGuard};
use super::due::Due;
use super::remember::paid_for;
use super::{Charged, Exchange, No, Scene, left};
use crate::config::Settle;
use crate::facilitator::{Kind, SettleOutcome, contradiction};
use crate::ledger::evidence::WalletEvidence;
use crate::ledger::store::{CaptureError, ClaimError, Intent, Posting, Receipt, Released};
use crate::payment::offer_receipt;
use crate::payment::permit::Exact;
use crate::payment::reason::{Reason, Refusal};
use crate::proxy::answers::Ticket;
use crate::proxy::body::RequestBody;
use crate::proxy::core::Core;
use crate::proxy::forward::Outbound;
use crate::proxy::named::hold_body;
use crate::wire::amount::Units;
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
    /// Who pays, as it says.
    payer: Option<String>,
}

/// How a settlement ended.
pub(super) enum End {
    /// Money moved.
    Moved(Settled, Bytes),
    /// It did not, and will not.
    Refused(Settled, Bytes),
    /// Nobody knows.
    Unknown(String),
}

impl Exchange {
    /// Claim, verify, origin, intent, settle, capture, answer.
    pub(super) async fn on_chain(&self, exact: &Exact, mut outbound: Outbound, mut scene: Scene) {
        if !matches!(outbound.request.body(), RequestBody::Empty) {
            self.upload.digest.start();
        }
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
        if let Err(error) = self.confirmed(exact, verified.payer.as_deref(), &mut claim).await {
            drop(claim);
            return scene.tell(Err(self.claim_refusal(&error)));
        }
        claim.why = Released::ClientLeft;
        if scene.core.shared.config.routes[self.route].settle == Settle::First {
            let due = Due::all(&self.permit, exact);
            // The same body fetches the answer, should it be owed.
            let held = tokio::select! {
                biased;
                () = left(&mut scene.ear) => return,
                held = hold_body(&scene.core, &mut outbound) => held,
            };
            if let Err(refusal) = held {
                drop(claim);
                return scene.tell(Err(refusal.into()));
            }
            let settled = self.settle(exact, (claim, due), verified, None, &mut scene).await;
            if let Some((captured, receipt)) = settled {
                self.serve_settled(exact, outbound, scene, captured, &receipt).await;
            }
            return;
        }
        let Some(forwarded) = self.forward(outbound, &mut scene, "1").await else { return };
        let Some(charged) = self.judge(forwarded, &mut scene).await else { return };
        let mut response = match charged {
            Charged::Yes(response) => response,
            Charged::No(verdict, why) => {
                claim.why = why;
                drop(claim);
                return scene.tell(verdict);
            }
        };
        let due = match Due::of(&self.permit, exact, &mut response) {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(%error, route = %scene.core.shared.config.routes[self.route].name,
                    "what the origin takes of an `upto` payment can't be settled; the answer is withheld, uncharged");
                claim.why = Released::OriginFailed;
                drop(claim);
                return scene.tell(Err(Reason::OriginAmount.into()));
            }
        };
        if scene.core.shared.config.routes[self.route].settle == Settle::AfterBody {
            response = match self.take(exact, response, &mut scene).await {
                Taken::Ready(response) => response,
                Taken::Cut(refusal) => {
                    // A client that breaks its own request off makes the origin give up.
                    let clients_doing = self.upload.open.get() || self.upload.fault.get().is_some();
                    claim.why = if clients_doing { Released::ClientLeft } else { Released::OriginFailed };
                    drop(claim);
                    return scene.tell(Err(refusal.into()));
                }
                Taken::Left => return,
            };
        }
        let status = Some(response.status());
        let settled = if due.units == Units::ZERO {
            self.settle_nothing(exact, (claim, due), verified, status, &mut scene).await
        } else {
            self.settle(exact, (claim, due), verified, status, &mut scene).await
        };
        if let Some((captured, receipt)) = settled {
            self.hand_over(exact, response, (captured, &receipt), scene).await;
        }
    }

    /// A payer whom only the facilitator could tell is who it says, now that it has.
    async fn confirmed(&self, exact: &Exact, said: Option<&str>, claim: &mut ClaimGuard) -> Result<(), ClaimError> {
        let Some(payer) = exact.payer.as_deref().or(said).filter(|_| !exact.proven) else { return Ok(()) };
        let payer: Arc<str> = format!("{}:{}", exact.requirements.network, short(payer)).into();
        claim.pays(self.purchase(payer.clone())).await?;
        *self.payer.borrow_mut() = Some(payer);
        Ok(())
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
        let fixed = match exact.requirements.extra.get("facilitatorAddress").and_then(|v| v.as_str()) {
            // Only the one that was signed can settle; the first while none has said what it is called.
            Some(address) => facilitators.named(&kind, address),
            // A Solana payment names the one that pays its fee.
            None if exact.requirements.network.is_svm() => {
                facilitators.first_for(kind.version, &kind.scheme, &kind.network)
            }
            None => None,
        };
        match facilitators.verify(&kind, Bytes::from(exact.body.clone()), fixed).await {
            Ok((facilitator, VerifyVerdict::Valid(said), answer)) => {
                Ok(Verified { facilitator, answer, payer: said.payer })
            }
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
        (claim, due): (ClaimGuard, Due),
        verified: Verified,
        status: Option<StatusCode>,
        scene: &mut Scene,
    ) -> Option<(Receipt, String)> {
        // Not asked yet, where it is settled first.
        let status = status.map_or(0, |status| status.as_u16());
        let facilitators = scene.core.shared.facilitators.clone();
        let known = self.evidence(exact, &verified.answer, status);
        let intent = Intent {
            posting: self.posting_of(&due, &scene.core, known.clone()),
            facilitator: facilitators.url(verified.facilitator).into(),
            payload: due.body.clone().into_bytes(),
            hard_until_ms: exact.hard_until_ms,
        };
        let settling = match claim.intend(intent).await {
            Ok(settling) => settling,
            Err(error) => {
                scene.tell(Err(not_written(&error)));
                return None;
            }
        };
        self.name(Ticket::bind);
        let end = self.drive(&due, exact, (verified.facilitator, false), &settling, scene).await;
        self.finish((exact, &due), settling, end, known, false, scene).await
    }

    /// The origin takes nothing: nobody is asked to settle, and nothing moves. A capture of nothing is posted all the same,
    /// for an answer is given, and an authorisation that could be used again would fetch one more each time.
    async fn settle_nothing(
        &self,
        exact: &Exact,
        (claim, due): (ClaimGuard, Due),
        verified: Verified,
        status: Option<StatusCode>,
        scene: &mut Scene,
    ) -> Option<(Receipt, String)> {
        let network = Some(exact.requirements.network.to_string());
        let (payer, amount) = (exact.payer.clone(), Some("0".to_owned()));
        let settled = Settled { success: true, reason: None, transaction: String::new(), network, payer, amount };
        let receipt = self.receipt(&scene.core, exact, &due, &settled);
        let status = status.map_or(0, |status| status.as_u16());
        let evidence = WalletEvidence { receipt: receipt.clone(), ..self.evidence(exact, &verified.answer, status) };
        match claim.capture(self.posting_of(&due, &scene.core, evidence)).await {
            Ok(captured) => {
                self.name(Ticket::bind);
                Some((captured, receipt))
            }
            Err(error) => {
                scene.tell(Err(not_written(&error)));
                None
            }
        }
    }

    /// The posting of a settlement, or of its intent.
    fn posting_of(&self, due: &Due, core: &Core, evidence: WalletEvidence) -> Posting {
        let posting = self.posting(core, evidence.origin_status, Some(evidence));
        self.posted.set(Some(due.units));
        Posting { amount: due.units, ..posting }
    }

    /// Asks the facilitator to settle, once more if it gave no verdict. A client that has waited long enough is told to come
    /// back; the call goes on. `doubtful`: an earlier attempt had no verdict, so only a success resolves it.
    pub(super) async fn drive(
        &self,
        due: &Due,
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
                match facilitators.settle(facilitator, Bytes::from(due.body.clone())).await {
                    SettleOutcome::NotSent(reason) => why = reason,
                    SettleOutcome::Verdict(SettleVerdict::Success(settled), raw) => {
                        return match contradiction(&settled, &due.requirements, exact.payer.as_deref()) {
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
    pub(super) async fn finish(
        &self,
        (exact, due): (&Exact, &Due),
        settling: SettlingGuard,
        end: End,
        known: WalletEvidence,
        owed: bool,
        scene: &mut Scene,
    ) -> Option<(Receipt, String)> {
        match end {
            End::Moved(settled, raw) => {
                let receipt = self.receipt(&scene.core, exact, due, &settled);
                let evidence = WalletEvidence { settled: raw.to_vec(), receipt: receipt.clone(), ..known };
                let posting = self.posting_of(due, &scene.core, evidence);
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
                self.name(Ticket::free);
                let reason = short(settled.reason.as_deref().unwrap_or("unexpected_settle_error")).to_owned();
                let response =
                    self.receipt(&scene.core, exact, due, &Settled { reason: Some(reason.clone()), ..settled });
                let evidence = WalletEvidence { settled: raw.to_vec(), receipt: response.clone(), ..known };
                let posting = self.posting_of(due, &scene.core, evidence);
                if let Err(error) = settling.failed(posting).await {
                    tracing::error!(%error, payment = %self.permit.key, "a failed settlement is not durable yet");
                }
                let detail = format!("the facilitator did not move the money: {reason}");
                let refusal = Refusal::new(Reason::SettlementFailed, detail).error(&reason);
                scene.tell(Err(No { payment_response: Some((exact.version, response)), ..refusal.into() }));
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

    /// The origin's answer to a payment that was settled first; what is no success is owed.
    async fn serve_settled(&self, exact: &Exact, outbound: Outbound, mut scene: Scene, captured: Receipt, x402: &str) {
        let (store, key) = (scene.core.shared.store.clone(), self.permit.key);
        let owed = move || store.owe(key, captured);
        let Some(forwarded) = self.forward(outbound, &mut scene, "1").await else { return owed() };
        let verdict = match self.charged(&scene.core, forwarded) {
            Charged::Yes(response) => return self.hand_over(exact, response, (captured, x402), scene).await,
            // The money has moved, and the client is to know.
            Charged::No(verdict, _) => {
                owed();
                match verdict {
                    Ok(response) => Ok(self.paid(&scene.core, response, captured, Some(x402))),
                    Err(no) => Err(paid_for(exact, no.refusal, captured, Some(x402.to_owned()))),
                }
            }
        };
        scene.tell(verdict);
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
            body: self.upload.digest.known(),
        }
    }

    /// The payment response, base64.
    fn receipt(&self, core: &Core, exact: &Exact, due: &Due, settled: &Settled) -> String {
        let mut receipt = receipt::Receipt::new(settled, &exact.requirements.network, exact.version);
        // What a facilitator says of itself must not break the client's reading of the answer.
        receipt.transaction = short(&receipt.transaction).to_owned();
        receipt.payer = receipt.payer.as_deref().map(short).map(str::to_owned);
        if settled.success {
            let payer = receipt.payer.as_deref().or(exact.payer.as_deref());
            let network = exact.requirements.network.as_str();
            let signed = payer.and_then(|payer| self.signed_receipt(core, network, payer, &receipt.transaction));
            receipt.extensions.extend(signed.map(|signed| (offer_receipt::EXTENSION.to_owned(), signed)));
            receipt.amount.get_or_insert_with(|| due.requirements.amount.to_string());
        }
        receipt.encode(exact.version)
    }
}

fn unavailable(retry_after: u64, why: &str) -> No {
    tracing::warn!(why, "no facilitator could be asked");
    Refusal::from(Reason::FacilitatorUnavailable).retry_after(retry_after.max(1)).into()
}

pub(super) fn not_written(error: &CaptureError) -> No {
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
