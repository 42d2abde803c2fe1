//! A paid request whose client has named its payment (`payment-identifier`): looked up before anything is checked anew, for
//! by now the payment may be spent or over.

use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::answers::{Begin, Bound, Known, Name, Stored};
use super::body::AnswerBody;
use super::connection::Client;
use super::core::Core;
use super::forward::{self, Outbound};
use super::gate::{self, Visit};
use super::hold::{Hold, hold};
use super::rescue::Refused;
use super::sales::Sale;
use super::{drain, stack};
use crate::ledger::evidence::BodyDigest;
use crate::payment::identifier::bound_to;
use crate::payment::permit::Permit;
use crate::payment::reason::{Reason, Refusal};
use crate::proxy::body::RequestBody;
use crate::wire::x402::payload::Payload;

/// Serves it, or gives the answer that it got before.
///
/// # Errors
/// The refusals of any payment, and 409 where the name stands for something else.
pub async fn serve(
    visit: Visit<'_>,
    client: &Rc<Client>,
    (payload, sale): (&Payload, Sale),
    id: &str,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Refused> {
    let core = visit.core;
    let config = &core.shared.config;
    let name = Name { route: config.routes[visit.route].name.clone(), id: id.into() };
    let bound = bound_to(payload, visit.method.as_str(), &visit.target.url(visit.scheme));
    // A name that is known needs no check: only who has the very payload gets what it bought. One that is not known must
    // hold up before its body is read.
    let judged = match core.shared.answers.knows(&name, &bound) {
        Known::Same => Ok(None),
        Known::No => gate::judge_token(&visit, payload).await.map(Some),
        Known::Other => Err(visit.refuse(Reason::IdentifierTaken.into())),
    };
    let mut permit: Option<Permit> = match judged {
        Ok(permit) => permit,
        Err(refused) => {
            drop(sale);
            drain::request_body(core, request).await;
            return Err(refused);
        }
    };
    let mut outbound = stack::outbound(&visit, client, request)?;
    let body = match hold_body(core, &mut outbound).await.map_err(|refusal| visit.refuse(refusal))? {
        BodyDigest::Empty => Sha256::digest(b"").into(),
        BodyDigest::Sha256(digest) => digest,
        // Too long to be held: no name can stand for it.
        BodyDigest::Unknown => {
            let permit = match permit {
                Some(permit) => permit,
                None => gate::judge_token(&visit, payload).await?,
            };
            return stack::buy(&visit, client, (permit, sale), outbound, None).await;
        }
    };
    let until = Instant::now() + config.exact.answer;
    let ticket = loop {
        match core.shared.answers.begin(&name, Bound { request: bound, body }) {
            Begin::First(ticket) => break ticket,
            Begin::Other => return Err(visit.refuse(Reason::IdentifierTaken.into())),
            Begin::Done(stored) => return Ok(give(core, &stored).await),
            Begin::Busy(mut end) => {
                // Checked anew after the wait: by then it may be over.
                permit = None;
                if timeout_at(until, end.changed()).await.is_err() {
                    return Err(visit.refuse(Refusal::from(Reason::PaymentInFlight).retry_after(1)));
                }
            }
        }
    };
    let permit = match permit {
        Some(permit) => permit,
        None => gate::judge_token(&visit, payload).await?,
    };
    stack::buy(&visit, client, (permit, sale), outbound, Some(ticket)).await
}

/// What was stored; if its first way out failed, so that it is owed, it is not owed any more.
async fn give(core: &Core, stored: &Stored) -> Response<AnswerBody> {
    if let Some(turn) = core.shared.store.take_owed(stored.key).await
        && let Err(error) = core.shared.store.redelivered(turn).await
    {
        tracing::error!(%error, payment = %stored.key, "what was owed is served, and that is not written");
    }
    stored.answer()
}

/// Takes the request's body into memory and says what it is; [`BodyDigest::Unknown`] where it is too long for that, and then
/// streams on.
///
/// # Errors
/// The client's fault, when it breaks off or is too slow.
pub async fn hold_body(core: &Core, outbound: &mut Outbound) -> Result<BodyDigest, Refusal> {
    if matches!(outbound.request.body(), RequestBody::Empty) {
        return Ok(BodyDigest::Empty);
    }
    let exact = &core.shared.config.exact;
    outbound.watch.digest.start();
    let mut body = std::mem::replace(outbound.request.body_mut(), RequestBody::Empty);
    let (held, digest) = match hold(&mut body, exact.body_bytes, exact.answer).await {
        Hold::Whole(held) => {
            let digest = BodyDigest::Sha256(Sha256::digest(held.bytes()).into());
            (held, digest)
        }
        Hold::Over(held) => (held, BodyDigest::Unknown),
        Hold::Cut(_) => return Err(forward::client_fault(&outbound.watch).unwrap_or_else(|| Reason::BadRequest.into())),
    };
    *outbound.request.body_mut() = body.with(held);
    Ok(digest)
}
