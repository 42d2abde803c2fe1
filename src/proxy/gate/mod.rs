//! The gate of a priced route: no payment → an offer; a payment → the checks, cheap and local first; then a permit.

mod exact;
mod open;
mod passes;
pub mod rules;
mod signed;

pub use self::open::Opened;
pub(super) use self::signed::credit_period;

use std::net::IpAddr;
use std::rc::Rc;

use http::Method;
use http::header::{self, HeaderMap};

use super::core::{Core, Shared};
use super::exchange::No;
use super::mcp::Call;
use super::rescue::{Extra, Kind, Refused};
use super::target::Target;
use crate::config::Charge;
use crate::payment::id::{Resource, SealedId};
use crate::payment::offer::PreparedOffer;
use crate::payment::permit::Permit;
use crate::payment::pieces::Filling;
use crate::payment::presented::{Presented, Words, presented};
use crate::payment::quoted::RouteKey;
use crate::payment::reason::{Reason, Refusal};
use crate::payment::{batch, crawl, page};
use crate::wire::amount::Money;
use crate::wire::signature::RequestView;
use crate::wire::x402::payload::{FIELD_BYTES_MAX, Payload};

/// A request at the gate: what offers and refusals are made from.
pub struct Visit<'a> {
    /// The core it runs on.
    pub core: &'a Rc<Core>,
    /// `http` or `https`, as the client sees us.
    pub scheme: &'static str,
    /// Its normal form.
    pub target: &'a Target,
    /// Its route, by the index.
    pub route: usize,
    /// The offer of its route, to whom it claims to be.
    pub offer: &'a PreparedOffer,
    /// What x402 v1 knows that by.
    pub key: &'a RouteKey,
    /// Its method as received.
    pub method: &'a Method,
    /// The network that it comes from, where that counts.
    pub network: Option<IpAddr>,
    /// The client shows that it can sign requests.
    pub signs: bool,
    /// Whose words refusals are told in.
    pub words: Words,
    /// A browser wants a page to show.
    pub is_browser: bool,
    /// Its payment was dear to read.
    pub is_long: bool,
    /// What it calls, at an MCP server.
    pub call: Option<&'a Call>,
}

/// A payment field that is longer costs about as much to read as a signature to verify, or more: 50 to 400 µs of JSON.
const LONG_BYTES: usize = 4096;

/// Whether reading a request's payment is dear.
pub fn is_long(headers: &HeaderMap) -> bool {
    let fields = ["payment-signature", "x-payment"].into_iter();
    // What is over the limit is refused unread.
    fields.flat_map(|name| headers.get_all(name)).any(|value| (LONG_BYTES..=FIELD_BYTES_MAX).contains(&value.len()))
}

/// The payment of a request; one that is dear to read is not read for a network that has failed too often.
///
/// # Errors
/// As [`presented`]; 429.
pub fn read(core: &Core, network: Option<&IpAddr>, headers: &HeaderMap) -> Result<Presented, Refusal> {
    if let Some(network) = network.filter(|_| is_long(headers)) {
        core.shared.failures.has(network, core.shared.clock.now_ms()).map_err(too_often)?;
    }
    presented(headers)
}

/// Decides about a request to a priced route that carries a payment.
///
/// # Errors
/// The refusal of the first check that failed.
pub async fn judge(visit: &Visit<'_>, presented: Presented, headers: &HeaderMap) -> Result<Permit, Refused> {
    verdict(visit, presented, headers).await.map_err(|refusal| visit.refuse(refusal))
}

/// The same without what a client is told.
///
/// # Errors
/// The refusal of the first check that failed.
pub async fn verdict(visit: &Visit<'_>, presented: Presented, headers: &HeaderMap) -> Result<Permit, Refusal> {
    visit.has_patience()?;
    let judged = match presented {
        Presented::Payment(payment) => visit.deferred(payment, headers).await,
        Presented::X402(payload) if payload.scheme == batch::SCHEME => visit.batch(&payload, headers).await,
        Presented::Crawl(bid) => visit.crawl(bid, headers).await,
        Presented::X402(payload) => visit.exact(&payload).await,
        Presented::Nothing => Err(Reason::PaymentRequired.into()),
    };
    judged.map_err(|refusal| visit.noted(refusal))
}

/// The same as [`judge`] for a token payment, which needs nothing but itself.
///
/// # Errors
/// The refusal of the first check that failed.
pub async fn judge_token(visit: &Visit<'_>, payload: &Payload) -> Result<Permit, Refused> {
    visit.has_patience().map_err(|refusal| visit.refuse(refusal))?;
    visit.exact(payload).await.map_err(|refusal| visit.refuse(visit.noted(refusal)))
}

/// Whether a client shows that it can sign requests: it names itself as a signing agent, or asks for `deferred`.
pub fn signs(headers: &HeaderMap) -> bool {
    let names_it = |value: &header::HeaderValue| value.to_str().is_ok_and(|text| text.contains("deferred"));
    headers.contains_key("signature-agent") || headers.get_all(header::ACCEPT).iter().any(names_it)
}

fn too_often(seconds: u64) -> Refusal {
    Refusal::from(Reason::RateLimited).retry_after(seconds)
}

/// Who asks, as far as it is counted.
#[derive(Clone, Copy)]
pub struct Asker<'s> {
    /// By which configuration.
    pub shared: &'s Shared,
    /// The network that the request comes from, where that counts.
    pub network: Option<IpAddr>,
    /// What is only observed uses nothing up that is charged elsewhere.
    pub observes: bool,
}

impl<'s> Asker<'s> {
    /// Whether one more payment or signature from this network is looked at.
    ///
    /// # Errors
    /// [`Reason::RateLimited`]
    pub fn has_patience(&self) -> Result<(), Refusal> {
        let Some(network) = &self.network else { return Ok(()) };
        self.shared.failures.has(network, self.shared.clock.now_ms()).map_err(too_often)
    }

    /// Notes a refusal against the network if it took curve work or a fetch to find.
    pub fn noted(&self, refusal: Refusal) -> Refusal {
        use Reason::{DirectoryUnavailable, InvalidSignature, KeyUnknown, PaymentRefused};
        let is_costly = matches!(refusal.reason, InvalidSignature | KeyUnknown | DirectoryUnavailable | PaymentRefused);
        if is_costly { self.counted(refusal) } else { refusal }
    }

    /// Notes a refusal against the network.
    fn counted(&self, refusal: Refusal) -> Refusal {
        if let Some(network) = self.network.as_ref() {
            // What is over the limit by now was looked at already.
            _ = self.shared.failures.take(network, self.shared.clock.now_ms());
        }
        refusal
    }

    /// Notes a request of a proven agent.
    fn meet(&self, agent: &str) -> Result<(), Refusal> {
        let (requests, now_ms) = (&self.shared.agent_requests, self.shared.clock.now_ms());
        let left = if self.observes { requests.has(&agent, now_ms) } else { requests.take(&agent, now_ms) };
        left.map_err(too_often)
    }
}

impl Visit<'_> {
    /// The refusal with what helps the client: a fresh offer for 400, 402 and 412, where to register for an unknown agent.
    pub fn refuse(&self, mut refusal: Refusal) -> Refused {
        let shared = &*self.core.shared;
        let mut extra = Extra::default();
        let crawler_price = self.offer.crawler_price();
        if refusal.error.is_none() && (self.words != Words::Crawl || crawler_price.is_some()) {
            refusal.error = self.words.of(refusal.reason).map(Into::into);
        }
        if let Some(price) = crawler_price {
            extra.crawler_price = (refusal.reason.status() == 402).then(|| price.to_owned());
            extra.crawler_error = match self.words {
                Words::Crawl => refusal.error.clone(),
                _ if refusal.reason == Reason::PaymentRequired => Some(crawl::MISSING_PRICE.into()),
                _ => None,
            };
        }
        match refusal.reason {
            Reason::SignatureAgentUnknown => extra.registration_url = shared.config.deferred.registration_url.clone(),
            reason if matches!(reason.status(), 400 | 402 | 412) => {
                // Without randomness or a signing key there is no offer to make.
                let Some(ids) = self.fresh_ids() else { return Refusal::from(Reason::Internal).into() };
                let resource = self.url();
                let signed = match &shared.key {
                    Some(key) => {
                        let now = shared.clock.now_ms() / 1000;
                        self.offer.sign(key, self.target.authority(), &resource, now)
                    }
                    None => Vec::new(),
                };
                let filling = Filling {
                    resource: &resource,
                    ids: &ids,
                    signed: &signed,
                    error: refusal.error.as_deref().unwrap_or(reason.code()),
                    message: if refusal.detail.is_empty() { reason.meaning() } else { &refusal.detail },
                };
                if self.call.is_some_and(Call::tells_in_result) {
                    extra.offer_body = Some(self.offer.json(&filling));
                    return Refused { refusal, extra: Box::new(extra) };
                }
                extra.offer_body = Some(self.offer.body(&filling, self.signs));
                extra.asked_signature = self.offer.asked(&shared.rules);
                extra.kind = if self.offer.is_text() { Kind::Text } else { Kind::Json };
                if self.is_browser && reason == Reason::PaymentRequired {
                    extra.kind = Kind::Html;
                    extra.offer_body = Some(page::page(self.offer, &filling, &self.page_words()));
                }
                extra.vary = self.varies();
                extra.offer_field = self.offer.field(&filling);
            }
            _ => {}
        }
        Refused { refusal, extra: Box::new(extra) }
    }

    fn asker(&self) -> Asker<'_> {
        let observes = self.core.shared.config.routes[self.route].observes();
        Asker { shared: &self.core.shared, network: self.network, observes }
    }

    /// Whether one more payment or signature from this network is looked at.
    fn has_patience(&self) -> Result<(), Refusal> {
        self.asker().has_patience()
    }

    /// Notes a refusal against the network if it took curve work, a fetch or much reading to find.
    pub fn noted(&self, refusal: Refusal) -> Refusal {
        if self.is_long { self.asker().counted(refusal) } else { self.asker().noted(refusal) }
    }

    /// The refusal of an exchange, likewise.
    pub fn refuse_ended(&self, no: No) -> Refused {
        let mut refused = self.refuse(no.refusal);
        refused.extra.receipt = no.receipt.map(|n| n.to_string());
        refused.extra.payment_response = no.payment_response;
        if let Some(price) = no.price {
            self.names_price(&mut refused, *price);
        }
        refused
    }

    /// «Payment required» at the price that the origin names.
    pub fn refuse_at(&self, price: Money) -> Refused {
        let mut refused = self.refuse(Reason::PaymentRequired.into());
        self.names_price(&mut refused, price);
        refused
    }

    fn names_price(&self, refused: &mut Refused, price: Money) {
        let text = crawl::text_of(price);
        if refused.extra.kind == Kind::Html {
            let filling = Filling { resource: &self.url(), ids: &[], signed: &[], error: "", message: "" };
            let words = page::Words { price: Some(&text), ..self.page_words() };
            refused.extra.offer_body = Some(page::page(self.offer, &filling, &words));
            refused.extra.crawler_price = Some(text);
            return;
        }
        let Refusal { reason, detail, .. } = &refused.refusal;
        let message = if detail.is_empty() { reason.meaning() } else { detail };
        refused.extra.offer_body = Some(format!("{message}\nPrice: {text}\n"));
        refused.extra.crawler_price = Some(text);
    }

    /// What a page says besides the offer.
    fn page_words(&self) -> page::Words<'_> {
        let config = &self.core.shared.config;
        page::Words {
            description: config.routes[self.route].description.as_deref(),
            seller: config.operator.name.as_deref().unwrap_or_else(|| self.target.host()),
            email: config.operator.email.as_deref(),
            terms_url: config.deferred.terms_url.as_deref(),
            registration_url: config.deferred.registration_url.as_deref(),
            price: None,
        }
    }

    /// What the body of an offer depends on.
    fn varies(&self) -> Option<&'static str> {
        let has_page = self.call.is_none() && self.core.shared.config.offers.html;
        let for_agents = self.core.shared.config.routes[self.route].charge == Charge::Agents;
        match (has_page || for_agents, self.offer.has_two_bodies()) {
            (false, false) => None,
            (false, true) => Some("Accept, Signature-Agent"),
            (true, false) => Some("Accept, User-Agent"),
            (true, true) => Some("Accept, Signature-Agent, User-Agent"),
        }
    }

    /// An id for each entry of the offer.
    fn fresh_ids(&self) -> Option<Vec<String>> {
        let shared = &*self.core.shared;
        let (now_ms, resource) = (shared.clock.now_ms(), self.resource());
        let seal = |entry: &crate::payment::offer::Entry| {
            let random = self.core.thread.random()?;
            SealedId::seal(&shared.secrets, now_ms, random, &entry.term, entry.amount, &resource).map(|id| id.to_text())
        };
        self.offer.entries.iter().map(seal).collect()
    }

    fn resource(&self) -> Resource<'_> {
        Resource {
            method: self.method.as_str(),
            authority: self.target.authority(),
            path: self.target.path(),
            query: self.target.query().unwrap_or(""),
            tool: self.call.map_or("", |call| &call.tool),
        }
    }

    /// What is sold, as offers name it.
    fn url(&self) -> String {
        match self.call {
            Some(call) if call.tells_in_result() => call.url(),
            _ => self.target.url(self.scheme),
        }
    }

    /// What is sold, as the books name it.
    pub fn booked(&self) -> String {
        let url = self.target.url(self.scheme);
        self.call.map_or_else(|| url.clone(), |call| call.booked(&url))
    }

    fn view<'h>(&'h self, headers: &'h HeaderMap) -> RequestView<'h> {
        RequestView {
            method: self.method.as_str(),
            scheme: self.scheme,
            authority: self.target.authority(),
            path: self.target.raw_path(),
            query: self.target.query(),
            headers,
        }
    }
}
