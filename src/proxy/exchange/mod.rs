//! A paid request from claim to answer, as a task of the gateway that outlives the client.
//!
//! ```text
//! state          what is durable      the client leaves            the process dies
//! ------------------------------------------------------------------------------------------------
//! claimed        nothing              origin call cancelled,       nothing given, nothing charged
//!                                     claim released
//! origin called  nothing              the same                     the same
//! head, charged  nothing              the same                     the same
//! body checked   nothing              the same                     the same
//! capturing      perhaps the row      nothing is cancelled         the row stands without outcome (unproven), or
//!                                                                  it never was: nothing given
//! captured       the row              answer not sent: voided      unproven: see `redeem`
//! answering      the row              outcome: client left         unproven
//! ended          row and outcome      -                            -
//! ```
//!
//! A claim is released by dropping its guard, so also by a panic. Once `capture` was called the guard is empty. Payments
//! that move money while the request is served have more states: see `settle`.

mod after_body;
mod answer;
mod claim;
mod come_back;
mod content;
mod due;
mod ear;
mod mcp;
mod redeem;
mod remember;
mod settle;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::Response;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::oneshot;

pub use self::answer::{make_private, millionths};
use self::ear::Ear;
use super::answers::Ticket;
use super::body::{AnswerBody, BodyWatch, OriginBody};
use super::connection::Client;
use super::core::Core;
use super::forward::{self, Outbound};
use super::mcp::Call;
use super::sales::Sale;
use super::trace::Uncharged;
use crate::ledger::evidence::{Evidence, WalletEvidence};
use crate::ledger::store::{CaptureError, Posting, Released};
use crate::payment::crawl;
use crate::payment::permit::{Credit, Fund, Means, Permit, Proof};
use crate::payment::reason::{Reason, Refusal};
use crate::wire::amount::{Money, Units};
use crate::wire::x402::Version;

/// What the task sends back: an answer, or why there is none.
type Verdict = Result<Response<AnswerBody>, No>;

/// A refusal, with what the client is told about a payment that has been used or tried.
pub struct No {
    /// Why.
    pub refusal: Refusal,
    /// The number of the capture that came before.
    pub receipt: Option<i64>,
    /// x402's payment response.
    pub payment_response: Option<(Version, String)>,
    /// The price that the origin names.
    pub price: Option<Box<Money>>,
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> No {
        No { refusal, receipt: None, payment_response: None, price: None }
    }
}

impl From<Reason> for No {
    fn from(reason: Reason) -> No {
        Refusal::from(reason).into()
    }
}

/// A permitted request, complete in itself.
pub struct Exchange {
    /// What was paid.
    pub permit: Permit,
    /// Keeps the books until its task has ended.
    pub sale: Sale,
    /// The route, by its index.
    pub route: usize,
    /// Scheme, authority, path and query as they were bought.
    pub target: Arc<str>,
    /// The method as received.
    pub method: Arc<str>,
    /// What the request's body is doing.
    pub upload: BodyWatch,
    /// The turn of a payment that its client has named.
    pub ticket: RefCell<Option<Ticket>>,
    /// What is called, at an MCP server.
    pub call: Option<Rc<Call>>,
    /// The price that the origin has named, once it has.
    pub named: Cell<Option<Money>>,
    /// What was posted, in ledger units; none for an answer that is served again.
    pub posted: Cell<Option<Units>>,
    /// It is taken from a pass or an allowance: which of [`Permit::instead`].
    pub without_charge: Cell<Option<usize>>,
    /// Who pays, once the facilitator has told it.
    pub payer: RefCell<Option<Arc<str>>>,
}

/// What an exchange runs with.
struct Scene {
    core: Rc<Core>,
    client: Rc<Client>,
    /// Where the verdict goes; empty once the client was told.
    ear: Option<Ear>,
    call: Option<Rc<Call>>,
}

impl Exchange {
    /// Runs the exchange to its end, whatever becomes of the client.
    ///
    /// # Errors
    /// Why no paid answer came of it; the payment is released unless the refusal says that it was used.
    pub async fn run(self, outbound: Outbound, core: Rc<Core>, client: Rc<Client>) -> Verdict {
        let (answer, heard) = oneshot::channel();
        let scene = Scene { core, client, ear: Some(Ear::Head(answer)), call: self.call.clone() };
        let counted = Counted::new(&scene.core);
        tokio::task::spawn_local(async move {
            let _counted = counted;
            match &self.permit.means {
                Means::Credit { proof, .. } => self.on_credit(proof, outbound, scene).await,
                Means::Exact(exact) => self.on_chain(exact, outbound, scene).await,
            }
        });
        // The task drops its end only by a panic; its claim is released by then.
        heard.await.unwrap_or_else(|_| Err(Reason::Internal.into()))
    }

    /// Claim, origin, capture, answer.
    async fn on_credit(&self, proof: &Proof, outbound: Outbound, mut scene: Scene) {
        if let Err(refusal) = self.expect_content(proof, &outbound) {
            return scene.tell(Err(refusal.into()));
        }
        let store = scene.core.shared.store.clone();
        let mut claim = match self.claim(&store).await {
            Ok(claim) => claim,
            Err(error) => return self.redeem(proof, outbound, scene, error).await,
        };
        let upload = outbound.watch.clone();
        let Some(forwarded) = self.forward(outbound, &mut scene, "1").await else { return };
        let Some(charged) = self.judge(forwarded, &mut scene).await else { return };
        let response = match self.ask(&scene.core, charged) {
            Charged::Yes(response) => response,
            Charged::No(verdict, why) => {
                claim.why = why;
                drop(claim);
                return scene.tell(verdict);
            }
        };
        match self.content_fits(&mut scene).await {
            Some(Ok(())) => {}
            // The claim is released.
            Some(Err(refusal)) => {
                drop((claim, response));
                return scene.tell(Err(refusal.into()));
            }
            None => return,
        }
        let mut posting = self.posting(&scene.core, response.status().as_u16(), None);
        if let Some(price) = self.named.get() {
            posting.list_amount = price.units;
            if self.without_charge.get().is_none() {
                // The claim was for the bid; what is less goes back to the account.
                posting.amount = price.units;
                self.posted.set(Some(price.units));
            }
        }
        // From here nothing cancels: the capture is queued before this call returns.
        let captured = claim.capture(posting).await;
        let verdict = match captured {
            Ok(receipt) => Ok(self.answer(&scene.core, &scene.client, response, (receipt, upload), None)),
            Err(CaptureError::Lost) => Err(self.used().into()),
            Err(CaptureError::Unavailable(why)) => {
                tracing::error!(%why, "a capture was not made durable; its answer is withheld");
                Err(Refusal::from(Reason::LedgerUnavailable).retry_after(5).into())
            }
        };
        // An answer that can't be handed over is dropped here; its tracker reports that.
        scene.tell(verdict);
    }

    /// Asks the origin. `None` when the client left meanwhile: whoever holds a claim releases it.
    async fn forward(
        &self,
        mut outbound: Outbound,
        scene: &mut Scene,
        attempt: &'static str,
    ) -> Option<Result<Response<OriginBody>, Refusal>> {
        self.tell_origin(outbound.request.headers_mut(), attempt);
        outbound.paid = true;
        outbound.asks_price = matches!(&self.permit.means, Means::Credit { by: Credit::Crawl(Some(_)), .. });
        tokio::select! {
            biased;
            () = left(&mut scene.ear) => None,
            forwarded = forward::forward(&scene.core, outbound) => Some(forwarded),
        }
    }

    /// Whether the origin's answer is charged; if not, what the client gets and what the release is put down to.
    fn charged(&self, core: &Core, forwarded: Result<Response<OriginBody>, Refusal>) -> Charged {
        match forwarded {
            // An upload that the client broke off is a drop too, an origin that fails is not.
            Err(refusal) if refusal.reason.status() < 500 => Charged::No(Err(refusal.into()), Released::ClientLeft),
            Err(refusal) => Charged::No(Err(refusal.into()), Released::OriginFailed),
            Ok(response) if core.shared.config.routes[self.route].charge_on.charges(response.status().as_u16()) => {
                Charged::Yes(response)
            }
            Ok(response) => {
                let mut response = forward::unpaid(response);
                make_private(response.headers_mut());
                response.extensions_mut().insert(Uncharged);
                Charged::No(Ok(response), Released::OriginFailed)
            }
        }
    }

    /// What an answer costs whose origin names its price: nothing, which is given uncharged, what the bid pays, or more.
    fn ask(&self, core: &Core, charged: Charged) -> Charged {
        let Means::Credit { by: Credit::Crawl(Some(bid)), .. } = &self.permit.means else { return charged };
        let Charged::Yes(mut response) = charged else { return charged };
        let route = &core.shared.config.routes[self.route];
        let refused =
            |refusal: Refusal, price| Charged::No(Err(No { price, ..refusal.into() }), Released::OriginFailed);
        match forward::price_of(&mut response, route) {
            Err(refusal) => refused(refusal, None),
            Ok(price) if price.units == Units::ZERO => {
                let mut response = forward::unpaid(response);
                make_private(response.headers_mut());
                response.extensions_mut().insert(Uncharged);
                // Nobody lost anything by it.
                Charged::No(Ok(response), Released::NotAsked)
            }
            Ok(price) => match bid.pays(price) {
                Err(refusal) => refused(refusal, Some(Box::new(price))),
                Ok(()) => {
                    self.named.set(Some(price));
                    Charged::Yes(response)
                }
            },
        }
    }

    /// Says to the origin who paid; what a client said in these fields was taken out before.
    fn tell_origin(&self, headers: &mut HeaderMap, attempt: &'static str) {
        let reference = self.permit.reference();
        let fields = [
            ("tollgate-agent", &*self.permit.agent),
            ("tollgate-account", &*self.permit.account),
            ("tollgate-payment-id", reference.as_str()),
            ("tollgate-attempt", attempt),
        ];
        let crawl = match &self.permit.means {
            Means::Credit { by: Credit::Crawl(None), .. } => Some((crawl::ORIGIN_FIELD, crawl::ORIGIN_VALUE)),
            Means::Credit { by: Credit::Crawl(_), .. } => Some((crawl::ORIGIN_FIELD, crawl::ORIGIN_VALUE_IN_BAND)),
            _ => None,
        };
        for (name, value) in fields.into_iter().chain(crawl) {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }

    /// What this is taken from, once it is claimed.
    fn fund(&self) -> &Fund {
        let instead = self.without_charge.get().and_then(|which| self.permit.instead.get(which));
        instead.unwrap_or(&self.permit.fund)
    }

    /// What the payer is told that it cost, where that is money of a currency.
    fn charged_money(&self) -> Option<Money> {
        let price = self.named.get().or_else(|| self.permit.price());
        if self.without_charge.get().is_some() {
            price.map(|price| Money { units: Units::ZERO, ..price })
        } else {
            price
        }
    }

    /// The posting of this payment; `wallet` is what there is as evidence of one that was settled.
    fn posting(&self, core: &Core, status: u16, wallet: Option<WalletEvidence>) -> Posting {
        let permit = &self.permit;
        self.posted.set(Some(self.fund().amount));
        let config = &core.shared.config;
        let (scheme, key, evidence) = match &permit.means {
            Means::Credit { by, proof } => {
                let (term, id) = permit.quote.as_ref().map_or((None, None), |(term, id)| (Some(term), Some(id)));
                let evidence = Evidence {
                    sealed_id: id.map(|id| *id.as_bytes()),
                    template_digest: term.map(|term| term.digest),
                    signature_base: proof.base.clone().into_bytes(),
                    signature: proof.signature.clone(),
                    thumbprint: proof.key.thumbprint.to_string(),
                    directory_digest: proof.key.directory_digest,
                    verified_ms: proof.verified_ms,
                    method: self.method.to_string(),
                    target: self.target.to_string(),
                    origin_status: status,
                };
                (by.scheme(), Some(&proof.key), evidence.encode())
            }
            Means::Exact(exact) => (exact.scheme, None, wallet.unwrap_or_default().encode()),
        };
        Posting {
            agent: self.payer.borrow().clone().unwrap_or_else(|| permit.agent.clone()),
            agent_key: key.map(|key| key.thumbprint.clone()),
            route: config.routes[self.route].name.clone(),
            scheme,
            amount: self.fund().amount,
            list_amount: permit.list_amount,
            table_hash: config.table_hash,
            status,
            method: self.method.clone(),
            target: self.target.clone(),
            evidence,
            key: key.cloned(),
            // What costs nothing buys none.
            grant: permit.grant.filter(|_| self.without_charge.get().is_none()),
        }
    }
}

/// Whether an answer of the origin is charged.
enum Charged {
    Yes(Response<OriginBody>),
    No(Verdict, Released),
}

impl Scene {
    /// Hands the verdict over, once; later ones have nobody who waits for them.
    fn tell(&mut self, verdict: Verdict) {
        if let Some(ear) = self.ear.take() {
            ear.tell(verdict, &self.core, self.call.as_deref());
        }
    }

    /// Whether the client has been told something, so that nobody waits for an answer.
    fn has_told(&self) -> bool {
        self.ear.is_none()
    }
}

/// Resolves when the client has left before it was told anything.
async fn left(ear: &mut Option<Ear>) {
    match ear {
        Some(ear) => ear.closed().await,
        None => std::future::pending().await,
    }
}

/// Counts an exchange while it runs: the drain waits for it.
struct Counted(Rc<Core>);

impl Counted {
    fn new(core: &Rc<Core>) -> Counted {
        core.thread.open.exchanges.set(core.thread.open.exchanges.get() + 1);
        Counted(core.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.thread.open.exchanges.set(self.0.thread.open.exchanges.get().saturating_sub(1));
    }
}
