//! A `tower` layer that pays: `PayLayer` over any HTTP client.
//!
//! Request: sent as it is, so its body must be `Clone` (`Full<Bytes>`, `String`); its URI must be absolute. The one thing
//! that is added: with an agent's key, and where the request has no Accept of its own, an Accept that takes anything and
//! names `deferred` (`*/*, application/json;scheme=deferred;q=0.1`). Gateways that also sell for tokens show offers that
//! only signers can read (a price that is no whole cents) to those who name it; with an Accept of its own a request may
//! therefore find no offer for its agent there. Answer: anything but a 402 passes through untouched. A 402 is read
//! (bounded); the first offer in the server's order that the [`Means`] can pay within the budget is signed and the request
//! sent once more.
//!
//! One request never pays twice. When a signed request ends without a clear answer (connection lost, or 503 with one of
//! [`UNCLEAR`]), the *same* payment goes out again, at most [`PayLayer::resends`] times, after Retry-After: its id or nonce
//! buys once however often it arrives. A token transfer is signed once for a request, and not sent after its end. A fresh
//! offer that comes with a later refusal is left to the caller.
//!
//! What a hostile server gains: the price of one offer within the budget for each request that is sent to it; signatures
//! that are good for its own authority only, or one transfer to the receiver that it named.

use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header, request, response};
use http_body::Body;
use http_body_util::{BodyExt as _, Limited};
use tower::{Layer, Service, ServiceExt as _};

use super::budget::{Budget, OverBudget};
use super::means::Means;
use super::offer::{self, BODY_BYTES_MAX, Offer, OfferError, Way};
use super::signer::{SignError, SignedPayment};
use crate::clock::Clock;
use crate::payment::presented::PAYMENT_FIELDS;
use crate::wire::agent_url::AgentUrl;
use crate::wire::signature::RequestView;

/// Longest Retry-After that is waited for.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Seconds before its end after which a token transfer is not sent any more: no block would take it.
const END_MARGIN_S: i64 = 6;
/// Reason codes of a 503 after which the same payment goes out again.
pub const UNCLEAR: [&str; 6] = [
    "payment_in_flight",
    "settlement_pending",
    "facilitator_unavailable",
    "directory_unavailable",
    "ledger_unavailable",
    "overloaded",
];
/// First wait after a lost connection; doubled each time.
const WAIT_FIRST: Duration = Duration::from_millis(250);

type BoxError = Box<dyn Error + Send + Sync>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Ask = dyn Fn(&Offer) -> bool + Send + Sync;
type Watch = dyn Fn(Event<'_>) + Send + Sync;
type Pause = dyn Fn(Duration) -> Boxed<()> + Send + Sync;

/// Wraps HTTP clients so that they pay.
///
/// ```no_run
/// # use tollgate::agent::{Agent, Budget, PayLayer, http::HttpClient};
/// # use tollgate::wire::{agent_url::AgentUrl, amount::Money, jwk};
/// # use tower::{Layer as _, ServiceExt as _};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let key = jwk::signing_key(&std::fs::read_to_string("agent.jwk")?)?;
/// let agent = Agent::new(AgentUrl::parse("https://signer.example.com")?, key);
/// let layer = PayLayer::new(agent, Budget::up_to(Money::parse("0.05 USD")?));
/// // Or from a wallet: PayLayer::new(Wallet::parse(&std::fs::read_to_string("wallet.key")?)?, …)
/// let client = layer.layer(HttpClient::new(None)?);
/// let request = http::Request::get("https://example.com/articles/1").body(http_body_util::Full::default())?;
/// let answer = client.oneshot(request).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PayLayer(Payer);

/// A client that pays.
#[derive(Clone)]
pub struct Pay<S> {
    inner: S,
    payer: Arc<Payer>,
}

#[derive(Clone)]
struct Payer {
    means: Means,
    budget: Budget,
    ask: Arc<Ask>,
    watch: Arc<Watch>,
    resends: u32,
    clock: Clock,
    pause: Arc<Pause>,
}

/// What happens on the way, for who watches.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A 402 came, with these offers.
    Offered(&'a [Offer]),
    /// The payment goes out, for the first time.
    Paying {
        /// For what.
        offer: &'a Offer,
        /// With these fields.
        payment: &'a SignedPayment,
    },
    /// The same payment goes out again.
    Resending {
        /// What became of it the last time.
        why: &'a str,
        /// After this wait.
        after: Duration,
    },
}

/// Stands in the extensions of an answer to a signed request.
#[derive(Debug, Clone)]
pub struct Paid {
    /// What was committed to; whether it was charged, the answer tells (`Payment-Response`).
    pub offer: Offer,
    /// How often the same payment went out again.
    pub resends: u32,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PayError<E> {
    /// The client failed before anything was signed.
    #[error("{0}")]
    Unpaid(E),
    /// The 402 has no offer that could be paid. Nothing was signed.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// All offers ask more than the budget. Nothing was signed.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    /// The callback said no. Nothing was signed.
    #[error("the offer of {} was declined", .0.price)]
    Declined(Box<Offer>),
    /// The request can't be signed.
    #[error("the request can't be signed: {0}")]
    Sign(String),
    /// The payment went out and no answer came: it may have been charged, once.
    #[error("{} may have been charged; no answer came: {last}", offer.price)]
    Ambiguous {
        /// What was committed to.
        offer: Box<Offer>,
        /// How the last attempt ended.
        last: String,
    },
}

impl PayLayer {
    /// Pays with `means` (an [`Agent`](super::Agent), a [`Wallet`](super::Wallet), or both), for each request at most what
    /// `budget` says.
    pub fn new(means: impl Into<Means>, budget: Budget) -> PayLayer {
        PayLayer(Payer {
            means: means.into(),
            budget,
            ask: Arc::new(|_| true),
            watch: Arc::new(|_| {}),
            resends: 3,
            clock: Clock::system(),
            pause: Arc::new(|wait| Box::pin(tokio::time::sleep(wait))),
        })
    }

    /// Asks before each payment; false declines.
    pub fn ask(mut self, ask: impl Fn(&Offer) -> bool + Send + Sync + 'static) -> PayLayer {
        self.0.ask = Arc::new(ask);
        self
    }

    /// Tells what happens.
    pub fn watch(mut self, watch: impl Fn(Event<'_>) + Send + Sync + 'static) -> PayLayer {
        self.0.watch = Arc::new(watch);
        self
    }

    /// How often at most one payment is sent again (3).
    pub fn resends(mut self, resends: u32) -> PayLayer {
        self.0.resends = resends;
        self
    }

    /// Another clock, and another way to wait than tokio's timer.
    pub fn time(mut self, clock: Clock, pause: impl Fn(Duration) -> Boxed<()> + Send + Sync + 'static) -> PayLayer {
        (self.0.clock, self.0.pause) = (clock, Arc::new(pause));
        self
    }
}

impl<S> Layer<S> for PayLayer {
    type Service = Pay<S>;

    fn layer(&self, inner: S) -> Pay<S> {
        Pay { inner, payer: Arc::new(self.0.clone()) }
    }
}

impl<S, B, R> Service<Request<B>> for Pay<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Display + Send,
    B: Clone + Send + Sync + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = PayError<S::Error>;
    type Future = Boxed<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(PayError::Unpaid)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready is taken; a clone gets ready for the next.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        Box::pin(exchange(self.payer.clone(), inner, request))
    }
}

async fn exchange<S, B, R>(
    payer: Arc<Payer>,
    mut inner: S,
    mut request: Request<B>,
) -> Result<Response<R>, PayError<S::Error>>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Display,
    B: Clone,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let pays_itself = PAYMENT_FIELDS.iter().any(|name| request.headers().contains_key(*name));
    if !pays_itself {
        payer.means.announce(request.headers_mut());
    }
    let unsigned = request.clone();
    let answer = inner.call(request).await.map_err(PayError::Unpaid)?;
    if answer.status() != StatusCode::PAYMENT_REQUIRED || pays_itself {
        return Ok(answer);
    }
    let offers = read_offers(answer, payer.now()).await.2?;
    (payer.watch)(Event::Offered(&offers));
    let payable = payer.payable(&offers)?;
    let offer = payer.budget.choose(&payable).ok_or(OfferError::None)??.clone();
    if !(payer.ask)(&offer) {
        return Err(PayError::Declined(Box::new(offer)));
    }
    let (head, body) = unsigned.into_parts();
    let mut payment = payer.sign(&head, &offer).map_err(PayError::Sign)?;
    (payer.watch)(Event::Paying { offer: &offer, payment: &payment });
    let mut resends = 0;
    loop {
        let mut request = Request::from_parts(head.clone(), body.clone());
        for (name, value) in &payment.fields {
            // A signature that the caller made cannot cover the payment: ours takes its place.
            request.headers_mut().insert(name, value.clone());
        }
        let sent = match inner.ready().await {
            Ok(inner) => inner.call(request).await,
            Err(error) => Err(error),
        };
        let (why, wait, answer) = match sent {
            Ok(answer) => match unclear(&answer) {
                Some((why, wait)) => (why, wait.max(WAIT_FIRST), Some(answer)),
                None => return Ok(paid(answer, offer, resends)),
            },
            Err(error) => (error.to_string(), WAIT_FIRST * (1 << resends.min(7)), None),
        };
        let ends = match offer.way {
            Way::Deferred { .. } => offer.expires,
            Way::Exact(_) => Some(payment.expires.saturating_sub(END_MARGIN_S)),
        };
        let ends_first = ends.is_some_and(|ends| ends <= payer.now() + wait.as_secs().cast_signed());
        if resends >= payer.resends || wait > WAIT_MAX || ends_first {
            return match answer {
                Some(answer) => Ok(paid(answer, offer, resends)),
                None => Err(PayError::Ambiguous { offer: Box::new(offer), last: why }),
            };
        }
        drop(answer);
        resends += 1;
        (payer.watch)(Event::Resending { why: &why, after: wait });
        (payer.pause)(wait).await;
        if payment.expires <= payer.now() {
            // Another signature under the same id is the same payment; another transfer would be another one.
            let renewed = match offer.way {
                Way::Deferred { .. } => payer.sign(&head, &offer),
                Way::Exact(_) => Err(format!("{why}; the transfer ended while waiting")),
            };
            payment = match renewed {
                Ok(payment) => payment,
                Err(last) => return Err(PayError::Ambiguous { offer: Box::new(offer), last }),
            };
        }
    }
}

/// Reads a 402 within bounds: its head, its body as far as it was read, and what it offers. `now` in Unix seconds.
pub async fn read_offers<R>(answer: Response<R>, now: i64) -> (response::Parts, Bytes, Result<Vec<Offer>, OfferError>)
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let (head, body) = answer.into_parts();
    let (body, cut) = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => (body.to_bytes(), None),
        Err(error) => (Bytes::new(), Some(error.to_string())),
    };
    let offers = offer::read(&head.headers, &body, now).map_err(|error| match cut {
        Some(reason) => OfferError::Syntax { place: "the body", reason },
        None => error,
    });
    (head, body, offers)
}

impl Payer {
    /// Unix seconds.
    fn now(&self) -> i64 {
        (self.clock.now_ms() / 1000).cast_signed()
    }

    /// The offers that there are means for.
    fn payable(&self, offers: &[Offer]) -> Result<Vec<Offer>, OfferError> {
        let payable: Vec<Offer> = offers.iter().filter(|offer| self.means.can_pay(offer)).cloned().collect();
        if payable.is_empty() && !offers.is_empty() {
            let mut schemes: Vec<String> = offers.iter().map(|offer| format!("`{}`", offer.scheme())).collect();
            schemes.dedup();
            return Err(OfferError::NoMeans(schemes.join(", ")));
        }
        Ok(payable)
    }

    fn sign(&self, head: &request::Parts, offer: &Offer) -> Result<SignedPayment, String> {
        let target = Target::of(head)?;
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| format!("no randomness: {error}"))?;
        let signed = self.means.sign(&target.view(head), offer, self.now(), random);
        signed.map_err(|error: SignError| error.to_string())
    }
}

/// Where a request goes, as signatures name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    origin: AgentUrl,
    authority: String,
}

impl Target {
    /// The target of a request with an absolute URI.
    ///
    /// # Errors
    /// Says what is wrong with the URI.
    pub fn of(head: &request::Parts) -> Result<Target, String> {
        let (Some(scheme), Some(authority)) = (head.uri.scheme_str(), head.uri.authority()) else {
            return Err("its URI must be absolute, `https://example.com/page`".to_owned());
        };
        // Origins and agents have one normal form: lower case, no default port, no user.
        let origin =
            AgentUrl::parse(&format!("{scheme}://{authority}")).map_err(|error| format!("its URI: {error}"))?;
        Ok(Target { authority: origin.authority(), origin })
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &AgentUrl {
        &self.origin
    }

    /// Host, with the port unless it is the scheme's default: what Host says.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The request as a signature sees it.
    pub fn view<'v>(&'v self, head: &'v request::Parts) -> RequestView<'v> {
        RequestView {
            method: head.method.as_str(),
            scheme: if self.origin.https() { "https" } else { "http" },
            authority: &self.authority,
            path: head.uri.path(),
            query: head.uri.query(),
            headers: &head.headers,
        }
    }
}

/// Whether an answer leaves open what became of the payment, and how long to wait then.
fn unclear<R>(answer: &Response<R>) -> Option<(String, Duration)> {
    let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let reason = text("tollgate-reason").filter(|reason| UNCLEAR.contains(reason))?;
    if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    let wait = text(header::RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok()).unwrap_or(1);
    Some((format!("503 {reason}"), Duration::from_secs(wait)))
}

fn paid<R>(mut answer: Response<R>, offer: Offer, resends: u32) -> Response<R> {
    answer.extensions_mut().insert(Paid { offer, resends });
    answer
}

#[cfg(test)]
mod tests;
