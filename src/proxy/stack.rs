//! The way of a request, on one screen. Each step is a module of this name; the first that says no answers, through
//! `rescue`, which alone chooses status and fields.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::answers::Ticket;
use super::body::{AnswerBody, Served};
use super::connection::Client;
use super::core::{Core, Thread};
use super::documents::{self, Document};
use super::exchange::{self, Exchange};
use super::forward::{self, Outbound};
use super::gate::rules::{self, Claim};
use super::gate::{self, Visit};
use super::prices::has_credentials;
use super::rescue::{self, Refused};
use super::sales::Sale;
use super::target::Target;
use super::trace::Trace;
use super::{account, agents, drain, forwarded, framing, mcp, named, observe, rates};
use crate::config::{Charge, Config, Discovery, Route};
use crate::payment::crawl;
use crate::payment::offer::PreparedOffer;
use crate::payment::permit::Permit;
use crate::payment::presented::{Presented, Words};
use crate::payment::quoted::RouteKey;
use crate::payment::reason::{Reason, Refusal};
use crate::pricing::Found;
use crate::telemetry::tally::Verdict;
use crate::wire::amount::Units;

/// How often a priced request looks whether the books have been handed over.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Serves one request of a connection.
///
/// # Errors
/// None: a refusal is an answer, too.
pub async fn serve(
    thread: Rc<Thread>,
    client: Rc<Client>,
    mut request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let Some(core) = thread.core() else {
        return Ok(rescue::response(Refusal::from(Reason::Overloaded).into()));
    };
    let came = Instant::now();
    let is_head = *request.method() == Method::HEAD;
    let Some(mut served) = Served::enter(&core, &client.meter) else {
        let refusal = Refusal::from(Reason::Overloaded).retry_after(1);
        core.tally.refused(Reason::Overloaded);
        core.tally.answered(None, Verdict::Failed, came.elapsed());
        return Ok(rescue::response(refusal.into()));
    };
    let cors = core.shared.config.server.cors && request.headers().contains_key(header::ORIGIN);
    let mut trace = Trace::begin(&core, came);
    let answered = match forwarded::original(&core, &client, &mut request) {
        Ok(client) => {
            trace.asked(&core, &client, &request);
            answer(&core, &client, &trace.route, request).await
        }
        Err(refusal) => Err(refusal.into()),
    };
    let mut response = match answered {
        Ok(mut response) => {
            trace.answered(&core, &mut response, &mut served);
            response
        }
        Err(mut refused) => {
            trace.refused(&core, &refused, &mut served);
            refused.extra.cors = cors;
            rescue::response(refused)
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        client.tunnel.take_from(&mut response);
    } else if core.thread.draining.get() && !client.multiplexed {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    // Over HTTP/1.1 the HTTP layer leaves it out, over HTTP/2 it does not.
    if is_head && let Some(length) = response.body_mut().leave_out() {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    Ok(response.map(|body| body.serving(served)))
}

async fn answer(
    core: &Rc<Core>,
    client: &Rc<Client>,
    on_route: &Cell<Option<usize>>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Refused> {
    let config = &*core.shared.config;
    framing::check(&request).map_err(closing)?;
    let strict = |host: &str| config.table.has_priced(host);
    let target = Target::of(&request, client.https(core), config.server.limits.url_bytes, strict)?;
    if account::is_wanted(config, &target) {
        return Box::pin(account::serve(core, client, &target, request)).await;
    }
    let route = match find(config, &target, &request)? {
        At::Route(index) => Some(index),
        At::Free => None,
        At::Preflight(methods) => return Ok(rescue::preflight(&methods, config.server.cors)),
    };
    on_route.set(route);
    if let Some((index, sold)) = route.and_then(|index| Some((index, config.mcp.endpoint(index)?))) {
        // Boxed: other requests do not carry what it needs.
        return Box::pin(mcp::serve(core, client, &target, (index, sold), request)).await;
    }
    let priced = route.filter(|index| core.shared.offers[*index].is_some());
    if let Some(index) = priced.filter(|index| config.routes[*index].observes()) {
        return Box::pin(observed(core, client, &target, index, request)).await;
    }
    let claim = match &priced {
        Some(index) if !config.routes[*index].agents.is_empty() => {
            rules::claim(&config.routes[*index], client, request.headers())?
        }
        _ => Claim::Usual,
    };
    let charged = |index: usize| match claim {
        Claim::Usual => pays(config, &config.routes[index], request.headers()),
        Claim::Free => false,
        Claim::Dearer(_) => true,
    };
    let Some(index) = priced.filter(|index| charged(*index)) else {
        let passed = pass(core, client, &target, route.map(|index| &config.routes[index]), request).await;
        return if claim == Claim::Free { passed.map(alone) } else { passed };
    };
    let (offer, key) = offer_to(core, index, claim).ok_or_else(|| Refusal::from(Reason::Internal))?;
    let sale = match open(core).await {
        Ok(sale) => sale,
        Err(refusal) => {
            drain::request_body(core, request).await;
            return Err(refusal.into());
        }
    };
    let method = request.method().clone();
    let signs = gate::signs(request.headers());
    let network = rates::network(client.ip);
    let presented = gate::read(core, network.as_ref(), request.headers());
    let words = Words::of_request(request.headers(), &presented);
    let scheme = client.scheme(core);
    let is_browser = config.offers.html && agents::is_browser(request.headers(), &config.identity.crawlers);
    let visit = Visit {
        core,
        scheme,
        target: &target,
        route: index,
        offer,
        key,
        method: &method,
        network,
        signs,
        words,
        is_browser,
        is_long: gate::is_long(request.headers()),
        call: None,
    };
    if !config.routes[index].agents.is_empty()
        && let Some(admitted) = Box::pin(visit.admits(request.headers())).await
    {
        match admitted {
            Ok(()) => {
                drop(sale);
                let passed = pass(core, client, &target, Some(&config.routes[index]), request);
                return Box::pin(passed).await.map(alone);
            }
            // With a payment the gate has the last word.
            Err(refusal) if matches!(presented, Ok(Presented::Nothing)) => {
                let refused = visit.refuse(refusal);
                drain::request_body(core, request).await;
                return Err(refused);
            }
            Err(_) => {}
        }
    }
    if config.routes[index].pass.is_some() && matches!(presented, Ok(Presented::Nothing)) {
        // Boxed, for the same reason as below.
        match Box::pin(visit.repeats(request.headers())).await {
            Ok(None) => {}
            Ok(Some(permit)) => {
                let outbound = outbound(&visit, client, request)?;
                return Box::pin(buy(&visit, client, (permit, sale), outbound, None)).await;
            }
            Err(refusal) => {
                let refused = visit.refuse(refusal);
                drain::request_body(core, request).await;
                return Err(refused);
            }
        }
    }
    let refused = match presented {
        // Boxed, for the same reason as below.
        Ok(Presented::Nothing) if config.routes[index].origin_price => {
            drop(sale);
            return Box::pin(ask_price(visit, client, request)).await;
        }
        Ok(Presented::Nothing) => visit.refuse(Reason::PaymentRequired.into()),
        // Boxed: what a payment needs must not make the future of a free request larger.
        Ok(presented) => return Box::pin(paid(visit, client, (presented, sale), request)).await,
        Err(refusal) => visit.refuse(visit.noted(refusal)),
    };
    drop(sale);
    drain::request_body(core, request).await;
    Err(refused)
}

/// What is offered on a route to whoever claims this, and what x402 v1 knows it by; `None` on a free one.
pub(super) fn offer_to(core: &Core, route: usize, claim: Claim) -> Option<(&PreparedOffer, &RouteKey)> {
    let shared = &*core.shared;
    let claimed = match claim {
        Claim::Dearer(rule) => shared.claimed.get(route)?.get(rule).and_then(Option::as_ref),
        _ => None,
    };
    match claimed {
        Some(of) => Some((&of.offer, &of.key)),
        None => Some((shared.offers.get(route)?.as_ref()?, shared.route_keys.get(route)?)),
    }
}

/// A request to a route that only observes.
async fn observed(
    core: &Rc<Core>,
    client: &Rc<Client>,
    target: &Target,
    index: usize,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Refused> {
    let watch = observe::page(core, client, (target, index), &request);
    let passed = pass(core, client, target, Some(&core.shared.config.routes[index]), request).await;
    match watch {
        Some(watch) => watch.answered(passed),
        None => passed,
    }
}

/// Whether whoever asks pays for a route that has a price.
pub(super) fn pays(config: &Config, route: &Route, headers: &HeaderMap) -> bool {
    route.charge == Charge::Everyone || agents::is_one(headers, &config.identity.crawlers)
}

/// A sale begins, if the books are open, or will be soon.
pub(super) async fn open(core: &Core) -> Result<Sale, Refusal> {
    let Some(sale) = core.thread.sales.begin() else {
        let detail = "this process is ending and has given its books away; send the same request on a new connection";
        return Err(Refusal::new(Reason::LedgerUnavailable, detail).retry_after(1));
    };
    // Boxed: free requests do not carry what waits.
    if core.shared.is_open() || Box::pin(handed_over(core)).await {
        return Ok(sale);
    }
    Err(Refusal::from(Reason::LedgerUnavailable).retry_after(5))
}

/// Waits for the books while the gateway is young: another process may be handing them over. Whether they are open.
async fn handed_over(core: &Core) -> bool {
    let shared = &*core.shared;
    // A process that is told to end before it had them hands them on, too.
    let waits = || shared.clock.now_ms() < shared.awaited_until_ms;
    while shared.terms.get().is_none() && waits() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    shared.is_open()
}

/// A request without a payment, of which the origin says what it costs: nothing, and the answer passes, or a price, and it
/// does not. Where that is known from the last time, it is not asked.
async fn ask_price(
    visit: Visit<'_>,
    client: &Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Refused> {
    let core = visit.core;
    let route = &core.shared.config.routes[visit.route];
    let (prices, now_ms) = (&core.shared.prices, core.shared.clock.now_ms());
    if let Some(price) = prices.get(visit.target, request.headers(), now_ms) {
        drain::request_body(core, request).await;
        return Err(visit.refuse_at(price));
    }
    let is_shared = !has_credentials(request.headers());
    let mut outbound = outbound(&visit, client, request)?;
    outbound.asks_price = true;
    outbound.stay_http();
    let (name, value) = (crawl::ORIGIN_FIELD, HeaderValue::from_static(crawl::ORIGIN_VALUE_IN_BAND));
    outbound.request.headers_mut().insert(name, value);
    let mut response = forward::forward(core, outbound).await?;
    if !route.charge_on.charges(response.status().as_u16()) {
        return Ok(forward::unpaid(response));
    }
    match forward::price_of(&mut response, route) {
        Ok(price) if price.units == Units::ZERO => Ok(forward::unpaid(response)),
        Ok(price) => {
            prices.learn(visit.target, price, is_shared, response.headers(), now_ms);
            Err(visit.refuse_at(price))
        }
        Err(refusal) => Err(visit.refuse(refusal)),
    }
}

/// A request with a payment: through the gate, then by a task that outlives the client.
async fn paid(
    visit: Visit<'_>,
    client: &Rc<Client>,
    (presented, sale): (Presented, Sale),
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Refused> {
    let core = visit.core;
    if let Presented::X402(payload) = &presented {
        match core.shared.config.exact.identifier.named(payload) {
            Ok(None) => {}
            Ok(Some(id)) => return named::serve(visit, client, (payload, sale), &id, request).await,
            Err(refusal) => {
                drain::request_body(core, request).await;
                return Err(visit.refuse(refusal));
            }
        }
    }
    let permit = match gate::judge(&visit, presented, request.headers()).await {
        Ok(permit) => permit,
        Err(refused) => {
            drop(sale);
            drain::request_body(core, request).await;
            return Err(refused);
        }
    };
    let outbound = outbound(&visit, client, request)?;
    buy(&visit, client, (permit, sale), outbound, None).await
}

/// A paid request as its origin gets it.
pub(super) fn outbound(
    visit: &Visit<'_>,
    client: &Rc<Client>,
    mut request: Request<Incoming>,
) -> Result<Outbound, Refused> {
    let route = &visit.core.shared.config.routes[visit.route];
    if !route.charge_on.charges(206) {
        // A part would be a success that is not charged.
        request.headers_mut().remove(header::RANGE);
        request.headers_mut().remove(header::IF_RANGE);
    }
    Ok(Outbound::new(visit.core, client, visit.target, route.origin, false, request)?)
}

/// What is permitted, by a task that outlives the client; `ticket` where the client has named its payment.
pub(super) async fn buy(
    visit: &Visit<'_>,
    client: &Rc<Client>,
    (permit, sale): (Permit, Sale),
    outbound: Outbound,
    ticket: Option<Ticket>,
) -> Result<Response<AnswerBody>, Refused> {
    let core = visit.core;
    let (target, method) = (Arc::from(visit.booked()), Arc::from(visit.method.as_str()));
    let (upload, ticket) = (outbound.watch.clone(), RefCell::new(ticket));
    let exchange = Exchange {
        permit,
        sale,
        route: visit.route,
        target,
        method,
        call: None,
        upload,
        ticket,
        named: Cell::default(),
        posted: Cell::default(),
        without_charge: Cell::default(),
        payer: RefCell::default(),
    };
    let ended = exchange.run(outbound, core.clone(), client.clone()).await;
    ended.map_err(|no| {
        if no.price.is_some() {
            core.shared.prices.forget(visit.target);
        }
        visit.refuse_ended(no)
    })
}

/// A request that passes free: straight to the origin.
async fn pass(
    core: &Core,
    client: &Client,
    target: &Target,
    route: Option<&Route>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Refused> {
    let (origin, overrides) = route.map_or((0, false), |r| (r.origin, r.allow_method_override));
    if let Some(document) = documents::wanted(&core.shared, target, request.method()) {
        return Box::pin(documented(core, client, target, (document, origin), request)).await;
    }
    let outbound = Outbound::new(core, client, target, origin, overrides, request)?;
    let mut response = forward::unpaid(forward::forward(core, outbound).await?);
    if route.is_some_and(|route| route.price.is_some() && route.charge == Charge::Agents) {
        // People pass where agents pay: a cache in front must not mix them up.
        response.headers_mut().append(header::VARY, HeaderValue::from_static("User-Agent"));
    }
    Ok(response)
}

/// An answer that others pay for.
fn alone(mut response: Response<AnswerBody>) -> Response<AnswerBody> {
    exchange::make_private(response.headers_mut());
    response
}

/// A request for what the gateway may answer itself: the origin's answer goes before ours.
async fn documented(
    core: &Core,
    client: &Client,
    target: &Target,
    (document, origin): (Document, usize),
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Refused> {
    let asked = request.headers().clone();
    let ours = || document.answer(&core.shared, target, client.scheme(core), &asked);
    if core.shared.config.discovery == Discovery::Always {
        drain::request_body(core, request).await;
        return Ok(ours());
    }
    let outbound = Outbound::new(core, client, target, origin, false, request)?;
    let response = forward::forward(core, outbound).await?;
    Ok(if documents::is_absent(response.status()) { ours() } else { forward::unpaid(response) })
}

/// What a request is for.
enum At {
    Route(usize),
    Free,
    /// A preflight for a priced route, with the methods that it may name.
    Preflight(String),
}

fn find(config: &Config, target: &Target, request: &Request<Incoming>) -> Result<At, Refused> {
    // No route can name it, and nothing that has a price is behind it.
    if target.is_whole_server() {
        let served = config.table.serves(target.host());
        return if served { Ok(At::Free) } else { Err(Refusal::from(Reason::MisdirectedHost).into()) };
    }
    let find = |method: &str| config.table.find(target.host(), target.path(), method);
    // A preflight for an MCP server is its own to answer: it knows what fields its clients send.
    let asks = |index: usize| config.routes[index].price.is_some() && !config.routes[index].observes();
    let priced = |index: usize| asks(index) && config.mcp.endpoint(index).is_none();
    // What a preflight asks for decides: priced → answered here; free → the origin's to answer.
    if let Some(wanted) = preflight_for(request.method(), request.headers())
        && let Found::Route(index) = find(wanted)
    {
        let (route, headers) = (&config.routes[index], request.headers());
        // Where people pass free, what they send is the origin's to allow.
        let ours = priced(index) && (pays(config, route, headers) || agents::is_announced(headers));
        return Ok(if ours { At::Preflight(allowed_methods(route)) } else { At::Route(index) });
    }
    match find(request.method().as_str()) {
        Found::Route(index) => Ok(At::Route(index)),
        Found::Free | Found::AlwaysFree => Ok(At::Free),
        Found::MethodNotAllowed(allow) => {
            let mut refused = Refused::from(Refusal::from(Reason::MethodNotAllowed));
            refused.extra.allow = Some(allow.to_owned());
            Err(refused)
        }
        Found::UnknownHost => Err(Refusal::from(Reason::MisdirectedHost).into()),
    }
}

/// The method that a preflight asks about (Fetch standard, CORS-preflight request).
fn preflight_for<'h>(method: &Method, headers: &'h HeaderMap) -> Option<&'h str> {
    let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    (*method == Method::OPTIONS && headers.contains_key(header::ORIGIN)).then_some(())?;
    wanted.to_str().ok()
}

fn allowed_methods(route: &Route) -> String {
    if route.methods.is_empty() {
        return "GET, HEAD, POST, PUT, PATCH, DELETE".to_owned();
    }
    let mut methods: Vec<&str> = route.methods.iter().map(|m| &**m).collect();
    // A route for GET takes HEAD too.
    if let Some(get) = methods.iter().position(|m| *m == "GET")
        && !methods.contains(&"HEAD")
    {
        methods.insert(get + 1, "HEAD");
    }
    methods.join(", ")
}

/// Framing in doubt: answer, and never read this connection again.
fn closing(refusal: Refusal) -> Refused {
    let mut refused = Refused::from(refusal);
    refused.extra.close = true;
    refused
}
