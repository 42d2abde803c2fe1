//! One request to the origin: fields put right, sent over a kept connection, once more over a new one where that is safe.

use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};

use super::body::{AnswerBody, BodyWatch, Fault, OriginBody, RequestBody};
use super::connection::Client;
use super::core::Core;
use super::framing;
use super::origin::{ConnectError, Lease, OriginPool};
use super::target::Target;
use super::ticker::Timer;
use super::upgrade;
use crate::config::{HostHeader, Route};
use crate::payment::crawl::Named;
use crate::payment::reason::{Reason, Refusal};
use crate::payment::upto::Said;
use crate::wire::amount::Money;

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// A request as the origin will see it.
pub struct Outbound {
    /// Which origin.
    pub origin: usize,
    /// Method, target and fields already put right, and the client's body, if there is one.
    pub request: Request<RequestBody>,
    /// What the body is doing.
    pub watch: BodyWatch,
    /// A payment rides on it: the origin must not be called twice for it.
    pub paid: bool,
    /// The origin may name the price of its answer.
    pub asks_price: bool,
    /// The connection may go over to another protocol.
    upgrades: bool,
}

impl Outbound {
    /// Rewrites a client's request for an origin: target in its normal form, hop-by-hop and gateway-only fields out, `Via`
    /// and `X-Forwarded-*` in.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] when no request target can be built, which a parsed request does not cause.
    pub fn new(
        core: &Core,
        client: &Client,
        target: &Target,
        origin: usize,
        keep_overrides: bool,
        request: Request<hyper::body::Incoming>,
    ) -> Result<Outbound, Refusal> {
        let watch = BodyWatch::default();
        let request = request.map(|incoming| RequestBody::client(core, incoming, &watch));
        Outbound::of(core, client, target, (origin, keep_overrides), request, watch)
    }

    /// The same for a request whose body has been looked at.
    ///
    /// # Errors
    /// As [`Outbound::new`].
    pub fn of(
        core: &Core,
        client: &Client,
        target: &Target,
        (origin, keep_overrides): (usize, bool),
        request: Request<RequestBody>,
        watch: BodyWatch,
    ) -> Result<Outbound, Refusal> {
        let (mut head, body) = request.into_parts();
        let bad = |_| Refusal::new(Reason::BadRequest, "the request target can't be forwarded");
        let config = core.pools[origin].config();
        let upgrade = upgrade::asked(&head, !matches!(body, RequestBody::Empty));
        framing::strip_request(&mut head.headers, keep_overrides);
        framing::add_via(&mut head.headers, head.version);
        let received = target.authority_value();
        let host = match config.host_header {
            HostHeader::Client => received.clone(),
            HostHeader::Origin => origin_authority(core.pools[origin].as_ref()),
        };
        head.headers.insert(header::HOST, host);
        head.headers.insert(FORWARDED_FOR, client.address_value());
        head.headers.insert(FORWARDED_HOST, received);
        head.headers.insert(FORWARDED_PROTO, HeaderValue::from_static(client.scheme(core)));
        if !(target.is_normal() && head.uri.authority().is_none() && head.uri.scheme().is_none()) {
            let path = PathAndQuery::try_from(target.path_and_query()).map_err(bad)?;
            head.uri = Uri::from(path);
        }
        head.version = Version::HTTP_11;
        head.extensions.clear();
        if let RequestBody::Held(held, None) = &body {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(held.bytes().len()));
        }
        if matches!(body, RequestBody::Client(_)) && !head.headers.contains_key(header::CONTENT_LENGTH) {
            // hyper would take a GET without either for one without a body.
            head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let upgrades = upgrade.is_some();
        if let Some(protocol) = upgrade {
            upgrade::put(&mut head.headers, protocol);
        }
        let request = Request::from_parts(head, body);
        Ok(Outbound { origin, request, watch, paid: false, asks_price: false, upgrades })
    }

    /// Does not ask for another protocol.
    pub fn stay_http(&mut self) {
        self.upgrades = false;
        self.request.headers_mut().remove(header::UPGRADE);
        self.request.headers_mut().remove(header::CONNECTION);
    }
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

fn origin_authority(pool: &OriginPool) -> HeaderValue {
    let config = pool.config();
    let host = if config.host.contains(':') { format!("[{}]", config.host) } else { config.host.clone() };
    let default = if config.https { 443 } else { 80 };
    let text = if config.port == default { host } else { format!("{host}:{}", config.port) };
    // A host that the configuration accepted is ASCII.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("origin"))
}

/// Sends the request and waits for the origin's head.
///
/// # Errors
/// 502, 504, or the client's own fault when its body broke off (400, 408).
pub async fn forward(core: &Core, outbound: Outbound) -> Result<Response<OriginBody>, Refusal> {
    let Outbound { origin, request, watch, paid, asks_price, upgrades } = outbound;
    let reads = Reads { paid, asks_price, upgrades };
    let pool = &core.pools[origin];
    let mut lease = pool.lease().await.map_err(connect_refusal)?;
    // Kept only where it may be needed: a connection that was idle may have been closed under us.
    let spare = (lease.reused && !paid && is_safe_to_repeat(&request)).then(|| Box::new(copy_of_head(&request)));
    let failure = match send(pool, &mut lease, request, &watch).await {
        Ok(response) => return finish(pool, lease, response, reads),
        Err(failure) => failure,
    };
    let repeat = failure.unsent.or(spare).filter(|_| lease.reused && failure.closed);
    match repeat {
        // Rare: boxed, so that it does not make every request's future larger.
        Some(request) => Box::pin(once_more(pool, *request, &watch, reads)).await,
        None => Err(failure.refusal),
    }
}

async fn once_more(
    pool: &Rc<OriginPool>,
    request: Request<RequestBody>,
    watch: &BodyWatch,
    reads: Reads,
) -> Result<Response<OriginBody>, Refusal> {
    let mut lease = pool.connect().await.map_err(connect_refusal)?;
    match send(pool, &mut lease, request, watch).await {
        Ok(response) => finish(pool, lease, response, reads),
        Err(failure) => Err(failure.refusal),
    }
}

/// A second copy does no harm (RFC 9110 §9.2.2), and there is nothing of it that went away with the first.
fn is_safe_to_repeat(request: &Request<RequestBody>) -> bool {
    matches!(request.body(), RequestBody::Empty)
        && matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

fn copy_of_head(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Why there is no answer from the origin.
struct Failure {
    /// What the client is told.
    refusal: Refusal,
    /// The request, if no byte of it went out.
    unsent: Option<Box<Request<RequestBody>>>,
    /// The connection ended without an answer.
    closed: bool,
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Failure {
        Failure { refusal: reason.into(), unsent: None, closed: false }
    }
}

async fn send(
    pool: &Rc<OriginPool>,
    lease: &mut Lease,
    request: Request<RequestBody>,
    watch: &BodyWatch,
) -> Result<Response<hyper::body::Incoming>, Failure> {
    let limit = pool.config().head;
    let timer = lease.timer();
    timer.arm(limit);
    let sender = lease.sender().ok_or(Reason::Internal)?;
    let mut sending = pin!(sender.try_send_request(request));
    let waited = std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = sending.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        poll_deadline(&timer, limit, watch, cx).map(|()| None)
    });
    match waited.await {
        Some(Ok(response)) => Ok(response),
        Some(Err(mut error)) => {
            let unsent = error.take_message().map(Box::new);
            Err(failure(error.error(), unsent, watch))
        }
        None => Err(Reason::OriginTimeout.into()),
    }
}

/// The head's deadline counts from the last byte of the request that went out; while the client is waited for, its own
/// deadline runs.
fn poll_deadline(timer: &Timer, limit: Duration, watch: &BodyWatch, cx: &std::task::Context<'_>) -> Poll<()> {
    loop {
        std::task::ready!(timer.poll_due(cx));
        let since = watch.moved_ms.get().map(|ms| Duration::from_millis(timer.now_ms().saturating_sub(ms)));
        match since.and_then(|since| limit.checked_sub(since)).filter(|left| !left.is_zero()) {
            _ if watch.waiting.get() => timer.arm(limit),
            Some(left) => timer.arm(left),
            None => return Poll::Ready(()),
        }
    }
}

fn failure(error: &hyper::Error, unsent: Option<Box<Request<RequestBody>>>, watch: &BodyWatch) -> Failure {
    let closed = error.is_canceled() || error.is_closed() || error.is_incomplete_message() || is_reset(error);
    let refusal = client_fault(watch).unwrap_or_else(|| {
        tracing::warn!(%error, "the origin gave no answer");
        Refusal::from(Reason::OriginInvalid)
    });
    Failure { refusal, unsent, closed }
}

/// What the client is told whose request body ended early.
pub fn client_fault(watch: &BodyWatch) -> Option<Refusal> {
    Some(match watch.fault.get()? {
        Fault::Slow => Refusal::from(Reason::BodyTooSlow),
        Fault::Digest => Refusal::from(Reason::ContentDigestMismatch),
        Fault::Broken => Refusal::new(Reason::BadRequest, "the request body broke off or is malformed"),
    })
}

fn is_reset(error: &hyper::Error) -> bool {
    let io = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    io.is_some_and(|e| matches!(e.kind(), ConnectionReset | BrokenPipe | ConnectionAborted))
}

fn connect_refusal(error: ConnectError) -> Refusal {
    tracing::warn!(%error, "the origin can't be reached");
    Refusal::from(match error {
        ConnectError::Timeout(_) => Reason::OriginTimeout,
        ConnectError::Io(..) | ConnectError::Http(_) => Reason::OriginUnreachable,
    })
}

/// What of an answer's head is for the gateway.
#[derive(Clone, Copy)]
struct Reads {
    paid: bool,
    asks_price: bool,
    upgrades: bool,
}

fn finish(
    pool: &Rc<OriginPool>,
    lease: Lease,
    mut response: Response<hyper::body::Incoming>,
    Reads { paid, asks_price, upgrades }: Reads,
) -> Result<Response<OriginBody>, Refusal> {
    let idle = pool.config().body_idle;
    let switch = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let protocol = response.headers().get(header::UPGRADE).cloned().filter(|_| upgrades);
        let Some(protocol) = protocol else {
            tracing::warn!("the origin switches to another protocol, which it was not asked to");
            return Err(Reason::OriginInvalid.into());
        };
        Some((protocol, hyper::upgrade::on(&mut response)))
    } else {
        None
    };
    let (mut head, incoming) = response.into_parts();
    let said = if paid { Said::of(&head.headers) } else { None };
    let named = if asks_price { Named::of(&head.headers) } else { None };
    framing::strip_response(&mut head.headers);
    framing::add_via(&mut head.headers, head.version);
    // The client's side speaks its own version.
    head.version = Version::HTTP_11;
    head.extensions.clear();
    // For the exchange: what the origin takes of the payment.
    if let Some(said) = said {
        head.extensions.insert(said);
    }
    if let Some(named) = named {
        head.extensions.insert(named);
    }
    if let Some((protocol, origin)) = switch {
        upgrade::put(&mut head.headers, protocol);
        head.extensions.insert(origin);
    }
    Ok(Response::from_parts(head, OriginBody::new(incoming, lease, idle)))
}

/// What a success of the origin costs: what it says itself, where it was asked, or what the route does. Its word is taken
/// out.
///
/// # Errors
/// It can't be read.
pub fn price_of<B>(response: &mut Response<B>, route: &Route) -> Result<Money, Refusal> {
    let price = route.price.ok_or(Reason::Internal)?;
    response.extensions_mut().remove::<Named>().map_or(Ok(price), |named| named.price(price.currency))
}

/// The origin's answer as the client gets it, when nothing was paid.
pub fn unpaid(response: Response<OriginBody>) -> Response<AnswerBody> {
    response.map(|body| AnswerBody::origin(body, None))
}
