//! `/.well-known/tollgate/account`: an agent's own account. A signed GET shows it, a signed POST contests a charge.
//!
//! On every host that sells something, before any route, where there are accounts. The signature is one that proves an agent and
//! buys nothing: tag `web-bot-auth`, for this host, method, path and query, at most 300 s long; that of a POST covers
//! `content-digest`, too. Who signed must belong to an account; a blocked one may look, too, and contest what it was charged.
//!
//! **What is shown.** The account owes, so its limits and statements are shown to each of its agents. Entries are those that the
//! asking agent made: what another one bought, and where, is between that one and the operator, who has the whole list.
//!
//! **Replays.** Whoever copies a signed GET could repeat it for as long as the signature stands; it tells him what its answer has
//! told him. A POST counts once: [`crate::ledger::correction`].
//!
//! | dispute | the process dies before the commit | after it |
//! |---|---|---|
//! | signature, body, text checked | nothing; send it again | – |
//! | ordered, as the operator's are (`ledger::correcting`) | nothing; send it again | it stands; the same request, or another one for the same charge, is told its number |
//! | answered | – | it stands |

mod dispute;
mod page;

pub use self::dispute::Disputes;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;

use super::body::AnswerBody;
use super::connection::Client;
use super::core::Core;
use super::gate::Asker;
use super::rescue::{Extra, Refused};
use super::target::Target;
use super::{drain, rates};
use crate::config::{Account, Config};
use crate::identity::AgentKey;
use crate::ledger::views::PATIENCE;
use crate::payment::reason::{Reason, Refusal};
use crate::payment::signed::{self, AGENT_FIELD, Candidate, Cover, Server};
use crate::wire::content_digest;
use crate::wire::signature::RequestView;

/// Where it is.
pub const PATH: &str = "/.well-known/tollgate/account";
/// What signatures must cover.
const LOOK: Cover = Cover { field: AGENT_FIELD, server: Server::Either, has_id: false, whole: true };
const CONTEST: Cover = Cover { field: content_digest::FIELD, ..LOOK };

/// Whether a request is for it.
pub fn is_wanted(config: &Config, target: &Target) -> bool {
    let has_accounts = !config.accounts.is_empty() || config.open_accounts.is_some();
    target.path() == PATH && has_accounts && config.table.has_priced(target.host())
}

/// Serves it.
///
/// # Errors
/// The refusal of the first check that failed.
pub async fn serve(
    core: &Rc<Core>,
    client: &Rc<Client>,
    target: &Target,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Refused> {
    let asker = Asker { shared: &core.shared, network: rates::network(client.ip), observes: false };
    let cover = match *request.method() {
        Method::GET | Method::HEAD => &LOOK,
        Method::POST => &CONTEST,
        _ => {
            let mut refused = Refused::from(Refusal::from(Reason::MethodNotAllowed));
            refused.extra.allow = Some("GET, HEAD, POST".to_owned());
            drain::request_body(core, request).await;
            return Err(refused);
        }
    };
    let view = RequestView {
        method: request.method().as_str(),
        scheme: client.scheme(core),
        authority: target.authority(),
        path: target.raw_path(),
        query: target.query(),
        headers: request.headers(),
    };
    let who = match signer(asker, &view, cover).await {
        Ok(who) => who,
        Err(refusal) => {
            drain::request_body(core, request).await;
            return Err(told(core, refusal, cover));
        }
    };
    let body = if *request.method() == Method::POST {
        dispute::open(core, &who, request).await
    } else {
        let looked = look(core, &who, target).await;
        drain::request_body(core, request).await;
        looked
    };
    Ok(answer(body.map_err(|refusal| told(core, refusal, cover))?))
}

/// Who has signed.
struct Who<'s> {
    candidate: Candidate,
    key: Arc<AgentKey>,
    account: Cow<'s, Account>,
}

async fn signer<'s>(asker: Asker<'s>, view: &RequestView<'_>, cover: &Cover) -> Result<Who<'s>, Refusal> {
    if !is_signed(view.headers) {
        return Err(Reason::SignatureRequired.into());
    }
    asker.has_patience()?;
    let now_ms = asker.shared.clock.now_ms();
    let candidates = signed::candidates(view, cover, &asker.shared.rules, now_ms)?;
    let signer = asker.signer(candidates, now_ms).await;
    let (candidate, key, account) = signer.map_err(|refusal| asker.noted(refusal))?;
    Ok(Who { candidate, key, account })
}

fn is_signed(headers: &HeaderMap) -> bool {
    ["signature-agent", "signature-input", "signature"].iter().all(|name| headers.contains_key(*name))
}

/// The refusal with what helps: what to sign, where to register.
fn told(core: &Core, refusal: Refusal, cover: &Cover) -> Refused {
    let shared = &core.shared;
    let mut extra = Extra::default();
    use Reason::{InvalidSignature, SignatureAgentUnknown, SignatureExpired, SignatureRequired};
    match refusal.reason {
        SignatureRequired | InvalidSignature | SignatureExpired => {
            extra.asked_signature = HeaderValue::try_from(cover.asked(&shared.rules)).ok();
        }
        SignatureAgentUnknown => extra.registration_url = shared.config.deferred.registration_url.clone(),
        _ => {}
    }
    Refused { refusal, extra: Box::new(extra) }
}

/// The account as the query asks for it.
async fn look(core: &Core, who: &Who<'_>, target: &Target) -> Result<String, Refusal> {
    let asked = page::Asked::parse(target.query().unwrap_or(""))?;
    let now_ms = core.shared.clock.now_ms();
    let most = asked.most();
    let view = core.shared.views.ask(page::question(&who.account, &who.key.record.agent, asked, now_ms));
    let late = || Refusal::from(Reason::LedgerUnavailable).retry_after(5);
    let view = core.thread.ticker.timeout(PATIENCE, Box::pin(view)).await.map_err(|_| late())?;
    let view = view.map_err(|unavailable| Refusal { detail: unavailable.0.to_string(), ..late() })?;
    Ok(page::to_json(&who.account, &who.key.record.agent, (&view, most), now_ms).to_string())
}

fn answer(body: String) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::made(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
