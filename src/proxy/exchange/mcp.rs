//! A paid call of an MCP server: whether it succeeded is said by the result, so the result is waited for and held back until
//! it is paid. What is no result passes, events as they come.
//!
//! ```text
//! state            the client has          it leaves            then
//! ------------------------------------------------------------------------------------------
//! head, 2xx        JSON: nothing           released             the body is read, at most `answer_bytes`
//!                  events: the head        released             events pass until the one with our id
//! result held      the same                released             a failure passes: released
//!                                                               a success: `capture`, or `intent` and what follows it
//! captured         receipt and result      as on any route      the rest of the stream passes
//! ```
//!
//! Claim, settlement and capture are those of every exchange, so are their crash points: see the module above and `settle`.
//! `tests/mcp/storm.rs` walks them.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use http_body::Body as _;
use serde_json::json;

use super::{Charged, Ear, Exchange, Scene, left, make_private};
use crate::ledger::store::{Receipt, Released};
use crate::payment::permit::{Credit, Means};
use crate::payment::reason::{Reason, Refusal};
use crate::proxy::body::{BodyError, OriginBody};
use crate::proxy::forward;
use crate::proxy::mcp::Call;
use crate::proxy::results::HeldResult;
use crate::wire::mcp::answer::{self, Judged};
use crate::wire::mcp::events::{self, Splitter};
use crate::wire::x402;

/// What a settlement needs before the end of its authorisation.
const SETTLE_MS: u64 = 10_000;

/// Tells proxies in front not to keep events back.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

impl Exchange {
    /// Whether the origin's answer is charged: of a call, when its result is there. `None` when the client left meanwhile.
    pub(super) async fn judge(
        &self,
        forwarded: Result<Response<OriginBody>, Refusal>,
        scene: &mut Scene,
    ) -> Option<Charged> {
        let Some(until_ms) = self.hard_until_ms().filter(|_| self.call.is_some()) else {
            return self.judge_at_leisure(forwarded, scene).await;
        };
        // A result that comes too late to be paid must not be waited for.
        let now_ms = scene.core.shared.clock.now_ms();
        let left_ms = until_ms.saturating_sub(SETTLE_MS).saturating_sub(now_ms);
        let judged = tokio::time::timeout(Duration::from_millis(left_ms), self.judge_at_leisure(forwarded, scene));
        judged.await.unwrap_or_else(|_| {
            let refusal = Refusal::new(Reason::OriginTimeout, "the result did not come before the payment's end");
            // When it ends is its payer's choice: the server has worked for nothing.
            Some(Charged::No(Err(refusal.into()), Released::ClientLeft))
        })
    }

    fn hard_until_ms(&self) -> Option<u64> {
        match &self.permit.means {
            Means::Exact(exact) => Some(exact.hard_until_ms),
            Means::Credit { .. } => None,
        }
    }

    /// The same without regard for the payment's end.
    pub(super) async fn judge_at_leisure(
        &self,
        forwarded: Result<Response<OriginBody>, Refusal>,
        scene: &mut Scene,
    ) -> Option<Charged> {
        match (self.charged(&scene.core, forwarded), self.call.clone()) {
            (Charged::Yes(response), Some(call)) => read(&call, response, scene).await,
            (charged, _) => Some(charged),
        }
    }

    /// Lets go of a result that was held: with its receipt in it. Returns its length in bytes.
    pub(super) fn let_go(
        &self,
        response: &mut Response<OriginBody>,
        receipt: Receipt,
        x402: Option<&str>,
    ) -> Option<usize> {
        let body = response.body_mut();
        let bytes = body.result.take()?.with_receipt(&self.receipt_json(receipt, x402));
        let length = bytes.len();
        body.put_in_front(bytes);
        Some(length)
    }

    /// The payment response as a result carries it.
    fn receipt_json(&self, receipt: Receipt, x402: Option<&str>) -> String {
        let settled = x402.and_then(|field| x402::decode_base64(field.as_bytes()));
        if let Some(json) = settled.and_then(|bytes| String::from_utf8(bytes).ok()) {
            return json;
        }
        let network = match &self.permit.means {
            Means::Credit { by: Credit::Deferred(payment), .. } => &payment.network,
            Means::Credit { by: Credit::Batch(network), .. } => network,
            Means::Credit { by: Credit::Crawl(_) | Credit::Pass, .. } => "",
            Means::Exact(exact) => exact.requirements.network.as_str(),
        };
        let mut json = json!({"success": true, "transaction": receipt.n.to_string(), "network": network,
            "payer": &*self.permit.agent});
        if let Some(charged) = self.charged_money() {
            json["amount"] = json!(charged.wire().amount.to_string());
        }
        json.to_string()
    }
}

/// Reads an answer as far as its result.
async fn read(call: &Call, mut response: Response<OriginBody>, scene: &mut Scene) -> Option<Charged> {
    let headers = response.headers_mut();
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let is_plain = matches!(text(header::CONTENT_ENCODING).to_ascii_lowercase().as_str(), "" | "identity");
    let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if !is_plain {
        return Some(unclear("it is encoded, although it was asked for as it is"));
    }
    match kind.as_str() {
        "application/json" => {
            forget_digests(headers);
            read_json(call, response, scene).await
        }
        "text/event-stream" => {
            forget_digests(headers);
            headers.insert(BUFFERING, HeaderValue::from_static("no"));
            make_private(headers);
            read_events(call, response, scene).await
        }
        // Such as 202: there is nothing to pay for.
        _ if response.body().is_end_stream() => Some(uncharged(response, Released::OriginFailed)),
        _ => Some(unclear("it is neither JSON nor an event stream")),
    }
}

async fn read_json(call: &Call, mut response: Response<OriginBody>, scene: &mut Scene) -> Option<Charged> {
    let most = scene.core.shared.config.mcp.answer_bytes;
    let mut bytes = Vec::new();
    loop {
        match chunk(response.body_mut(), scene).await? {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > most => {
                return Some(unclear("it is longer than `mcp.answer_bytes`"));
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(refusal) => return Some(Charged::No(Err(refusal.into()), Released::OriginFailed)),
        }
    }
    let Ok(text) = String::from_utf8(bytes) else { return Some(unclear("it is not UTF-8")) };
    Some(match answer::judge(&text, &call.id) {
        Judged::Success => {
            response.body_mut().result = Some(Box::new(HeldResult::Json(text)));
            Charged::Yes(response)
        }
        judged @ (Judged::Failure | Judged::InputRequired) => {
            response.body_mut().put_in_front(text);
            uncharged(response, released(judged))
        }
        Judged::Unclear(why) => unclear(why),
        Judged::NoAnswer | Judged::NoJson => unclear("it is no JSON-RPC response"),
    })
}

async fn read_events(call: &Call, response: Response<OriginBody>, scene: &mut Scene) -> Option<Charged> {
    let (parts, mut body) = response.into_parts();
    let mut splitter = Splitter::new(scene.core.shared.config.mcp.answer_bytes);
    let mut is_begun = false;
    // Told by HTTP's status, the client waits for the head until something has to pass.
    if call.tells_in_result() {
        scene.begin(parts.clone());
        is_begun = true;
    }
    loop {
        let event = match splitter.event() {
            Ok(Some(event)) => event,
            Ok(None) => match chunk(&mut body, scene).await? {
                Ok(Some(chunk)) => {
                    splitter.push(&chunk);
                    continue;
                }
                Ok(None) => return Some(unclear("the stream ended without a result")),
                Err(refusal) => return Some(Charged::No(Err(refusal.into()), Released::OriginFailed)),
            },
            Err(_) => return Some(unclear("an event is longer than `mcp.answer_bytes`")),
        };
        // Blank data gives a stream its first id, and says nothing.
        let said = events::data(&event).filter(|text| !text.trim().is_empty());
        match said.map_or(Judged::NoAnswer, |text| answer::judge(&text, &call.id)) {
            Judged::NoAnswer => {
                if !is_begun {
                    scene.begin(parts.clone());
                    is_begun = true;
                }
                if !scene.pass(event).await {
                    return None;
                }
            }
            Judged::Success => {
                body.result = Some(Box::new(HeldResult::Event(event, splitter.rest())));
                return Some(Charged::Yes(Response::from_parts(parts, body)));
            }
            judged @ (Judged::Failure | Judged::InputRequired) => {
                body.put_in_front([event, splitter.rest()].concat());
                return Some(uncharged(Response::from_parts(parts, body), released(judged)));
            }
            // To Python's reader, for one, `NaN` is a number.
            Judged::NoJson => return Some(unclear("an event's data is no JSON message")),
            Judged::Unclear(why) => return Some(unclear(why)),
        }
    }
}

/// The next bytes of an answer, or its end. `None` when the client left meanwhile.
async fn chunk(body: &mut OriginBody, scene: &mut Scene) -> Option<Result<Option<Bytes>, Refusal>> {
    loop {
        let frame = tokio::select! {
            biased;
            () = left(&mut scene.ear) => return None,
            frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)) => frame,
        };
        return Some(match frame {
            // Trailers have nothing to say about a result.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Ok(Some(data)),
                Err(_) => continue,
            },
            Some(Err(BodyError::OriginIdle)) => Err(Reason::OriginTimeout.into()),
            Some(Err(_)) => Err(Reason::OriginInvalid.into()),
            None => Ok(None),
        });
    }
}

/// An answer that passes as it is.
fn uncharged(response: Response<OriginBody>, why: Released) -> Charged {
    let mut response = forward::unpaid(response);
    make_private(response.headers_mut());
    Charged::No(Ok(response), why)
}

/// An answer that can't be told from a success that somebody could read: it does not pass.
fn unclear(why: &str) -> Charged {
    let refusal = Refusal::new(Reason::OriginInvalid, format!("the server's answer can't be judged: {why}"));
    Charged::No(Err(refusal.into()), Released::OriginFailed)
}

/// A call that asks the user for more is not over: the next one may carry the same payment, however often.
fn released(judged: Judged) -> Released {
    if judged == Judged::InputRequired { Released::NotAsked } else { Released::OriginFailed }
}

/// Fields about bytes that will not be the same.
fn forget_digests(headers: &mut HeaderMap) {
    for name in ["content-length", "content-digest", "repr-digest", "digest", "content-md5", "etag", "accept-ranges"] {
        headers.remove(name);
    }
}

impl Scene {
    /// The client gets the head of an event stream.
    fn begin(&mut self, head: Parts) {
        self.ear = self.ear.take().map(|ear| ear.begin(head));
    }

    /// An event passes. False when the client has left.
    async fn pass(&mut self, event: Vec<u8>) -> bool {
        match &self.ear {
            Some(Ear::Stream(sender)) => sender.event(event).await,
            _ => false,
        }
    }
}
