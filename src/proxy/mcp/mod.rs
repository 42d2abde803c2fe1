//! The way of a request to an MCP server that sells tools, prompts or resources: the body is read, for it alone says what
//! is called.
//!
//! ```text
//! representation, size → messages → fields against body → what is called → free: on, byte for byte
//!                                                                        → a price: the gate, then an exchange;
//!                                                                          observed: on, as if it were free
//! ```
//!
//! Nothing here trusts what a server might read differently: see `wire::mcp`.

mod call;
pub mod refusal;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;

pub use self::call::Call;
use self::call::Carrier;
use super::body::{AnswerBody, BodyWatch, RequestBody};
use super::connection::Client;
use super::core::Core;
use super::exchange::Exchange;
use super::forward::{self, Outbound};
use super::gate::{self, rules};
use super::observe::{self, Watch};
use super::rates;
use super::rescue::Refused;
use super::sales::Chance;
use super::stack;
use super::target::Target;
use crate::payment::presented::{Presented, Words, presented_in_call};
use crate::payment::reason::{Reason, Refusal};
use crate::pricing::Selectors;
use crate::wire::mcp::request::{self, Body, Id, Message};
use crate::wire::mcp::{HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, Kind, events, fields, uri};

/// Methods that an MCP server may be sent: calls, streams, the end of a session, preflights.
const METHODS: [Method; 5] = [Method::POST, Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS];
/// Longest name or URI that is sold, bytes.
const NAME_BYTES_MAX: usize = 2048;

/// Serves a request to the path of an MCP server; `route` is what the table has there, and `sold` what has a price.
pub(super) async fn serve(
    core: &Rc<Core>,
    client: &Rc<Client>,
    target: &Target,
    (route, sold): (usize, &Selectors),
    mut request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Refused> {
    let config = &core.shared.config;
    let origin = config.routes[route].origin;
    if !METHODS.contains(request.method()) {
        let mut refused = Refused::from(Refusal::from(Reason::MethodNotAllowed));
        refused.extra.allow = Some("GET, HEAD, POST, DELETE, OPTIONS".to_owned());
        return Err(refused);
    }
    // A stream that resumes another could bring the result of a call that was given up before it was paid.
    request.headers_mut().remove(events::LAST_EVENT_ID);
    if request.method() != Method::POST {
        if !request.body().is_end_stream() {
            return Err(Refusal::new(Reason::BadRequest, "only POST carries a message").into());
        }
        let outbound = Outbound::new(core, client, target, origin, false, request)?;
        return Ok(forward::unpaid(forward::forward(core, outbound).await?));
    }
    // Until it is known what is called.
    let chance = core.thread.sales.chance();
    let (head, incoming) = request.into_parts();
    if let Err(detail) = fields::representation(&head.headers) {
        let refusal = Refusal::new(Reason::UnsupportedMediaType, detail);
        return Err(refusal::of_message(refusal, INVALID_REQUEST, ""));
    }
    let body = match RequestBody::read(core, incoming, config.mcp.request_bytes).await {
        Ok(body) => body,
        Err(refusal) => return Err(refusal::of_message(refusal, INVALID_REQUEST, "")),
    };
    let messages = request::read(&body).map_err(|error| invalid(error.code(), error.to_string(), ""))?;
    let message = match &messages {
        Body::One(message) => message,
        Body::Batch(messages) => {
            let mut watches = Vec::new();
            for message in messages {
                let priced = called(message, sold)?.filter(|(_, _, index)| config.routes[*index].price.is_some());
                let observed = priced.filter(|(_, _, index)| config.routes[*index].observes());
                if let Some((_, _, index)) = observed {
                    watches.extend(observe::refused_call(core, index, Reason::InvalidMessage, &head.headers));
                }
                if message.is_cut() || priced.is_some() && observed.is_none() {
                    let detail = "a batch can't hold calls that have a price, nor payments; send each by itself";
                    return Err(invalid(INVALID_REQUEST, detail, ""));
                }
            }
            let request = Request::from_parts(head, RequestBody::whole(body));
            drop(chance);
            let passed = pass(core, client, target, origin, request).await;
            return watches.into_iter().fold(passed, |passed, watch| watch.answered(passed));
        }
    };
    fields::check(&head.headers, message).map_err(|detail| {
        refusal::of_message(Refusal::new(Reason::HeaderMismatch, detail), HEADER_MISMATCH, message.id_text)
    })?;
    let priced = called(message, sold)?.filter(|(_, _, index)| config.routes[*index].price.is_some());
    let is_whole = matches!(message.id, Id::Text(_) | Id::Number(_));
    let carrier = |presented: &Result<Presented, Refusal>| Carrier {
        target: target.clone(),
        scheme: client.scheme(core),
        network: rates::network(client.ip),
        signs: gate::signs(&head.headers),
        words: Words::of_request(&head.headers, presented),
        typed: fields::is_typed(&head.headers),
        signal: config.mcp.signal,
        structured: config.mcp.structured,
    };
    let mut watch: Option<Watch> = None;
    if let Some((kind, name, index)) = priced.filter(|(_, _, index)| config.routes[*index].observes()) {
        watch = if is_whole && !message.asks_for_task() {
            let presented = presented_in_call(&head.headers, message.payment);
            let call = Rc::new(Call::new(message, (kind, name), index, carrier(&presented)));
            observe::call(core, client, call, presented, &head.headers)
        } else {
            observe::refused_call(core, index, Reason::InvalidMessage, &head.headers)
        };
    }
    let Some((kind, name, index)) = priced.filter(|(_, _, index)| !config.routes[*index].observes()) else {
        let whole = if message.is_cut() { message.forwarded().into() } else { body.clone() };
        let mut request = Request::from_parts(head, RequestBody::whole(whole));
        if message.is_cut() {
            forget_digests(request.headers_mut());
        }
        drop(chance);
        let passed = pass(core, client, target, origin, request).await;
        return match watch {
            Some(watch) => watch.answered(passed),
            None => passed,
        };
    };
    if !is_whole {
        let detail = "a call that has a price needs an id: a text, or a whole number up to 2^53";
        return Err(invalid(INVALID_REQUEST, detail, message.id_text));
    }
    if message.asks_for_task() {
        // Its client could leave before the answer, and fetch unpaid what the task has made.
        let detail = "a call that has a price can't run as a task; send it without `params.task`";
        return Err(invalid(INVALID_PARAMS, detail, message.id_text));
    }
    let presented = presented_in_call(&head.headers, message.payment);
    let call = Rc::new(Call::new(message, (kind, name), index, carrier(&presented)));
    let request = (Request::from_parts(head, RequestBody::whole(message.forwarded().into())), message.is_cut());
    buy(core, client, (call.clone(), chance), presented, request)
        .await
        .map_err(|refused| refusal::of_call(&call, refused))
}

/// What a message calls that is sold.
fn called<'m>(message: &'m Message<'_>, sold: &Selectors) -> Result<Option<(Kind, &'m str, usize)>, Refused> {
    let Some((kind, name)) = &message.call else { return Ok(None) };
    let invalid = |detail| Err(invalid(INVALID_PARAMS, detail, message.id_text));
    if *kind == Kind::Resource && sold.sells_resources() && !uri::is_normal(name) {
        return invalid("the URI could name a resource that has another spelling; send it as URL parsers leave it");
    }
    let Some(index) = sold.find(*kind, name) else { return Ok(None) };
    if name.len() > NAME_BYTES_MAX {
        return invalid("the name is longer than 2048 bytes");
    }
    Ok(Some((*kind, name, index)))
}

/// A call that has a price: to the gate with its payment, then an exchange.
async fn buy(
    core: &Rc<Core>,
    client: &Rc<Client>,
    (call, chance): (Rc<Call>, Chance),
    presented: Result<Presented, Refusal>,
    (mut request, is_cut): (Request<RequestBody>, bool),
) -> Result<Response<AnswerBody>, Refused> {
    let sale = stack::open(core).await?;
    drop(chance);
    let visit = call.visit(core).ok_or_else(|| Refusal::from(Reason::Internal))?;
    let route = &core.shared.config.routes[call.route];
    if !route.agents.is_empty() {
        rules::claim(route, client, request.headers()).map_err(|refusal| visit.refuse(refusal))?;
        match Box::pin(visit.admits(request.headers())).await {
            Some(Ok(())) => {
                drop(sale);
                if is_cut {
                    forget_digests(request.headers_mut());
                }
                return pass(core, client, &call.target, route.origin, request).await;
            }
            // With a payment the gate has the last word.
            Some(Err(refusal)) if matches!(presented, Ok(Presented::Nothing)) => return Err(visit.refuse(refusal)),
            _ => {}
        }
    }
    let presented = presented.map_err(|refusal| visit.refuse(refusal))?;
    let permit = gate::judge(&visit, presented, request.headers()).await?;
    // Not before: a signature may cover what changes here. Encoded, the result could not be looked at.
    request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    // A part of a result could not be judged, and its status need not be one that is charged.
    request.headers_mut().remove(header::RANGE);
    request.headers_mut().remove(header::IF_RANGE);
    if is_cut {
        forget_digests(request.headers_mut());
    }
    let outbound = Outbound::of(core, client, &call.target, (route.origin, false), request, BodyWatch::default())?;
    let target = Arc::from(visit.booked());
    let exchange = Exchange {
        permit,
        sale,
        route: call.route,
        target,
        method: Arc::from("POST"),
        call: Some(call.clone()),
        upload: outbound.watch.clone(),
        ticket: RefCell::default(),
        named: Cell::default(),
        posted: Cell::default(),
        without_charge: Cell::default(),
        payer: RefCell::default(),
    };
    exchange.run(outbound, core.clone(), client.clone()).await.map_err(|no| visit.refuse_ended(no))
}

/// What is free goes on as it came, and its answer as it comes.
async fn pass(
    core: &Rc<Core>,
    client: &Client,
    target: &Target,
    origin: usize,
    request: Request<RequestBody>,
) -> Result<Response<AnswerBody>, Refused> {
    let outbound = Outbound::of(core, client, target, (origin, false), request, BodyWatch::default())?;
    Ok(forward::unpaid(forward::forward(core, outbound).await?))
}

/// Fields about bytes from which a payment was cut.
fn forget_digests(headers: &mut HeaderMap) {
    for name in ["content-digest", "repr-digest", "digest", "content-md5"] {
        headers.remove(name);
    }
}

fn invalid(code: i32, detail: impl Into<String>, id: &str) -> Refused {
    refusal::of_message(Refusal::new(Reason::InvalidMessage, detail), code, id)
}
