//! «No» as an MCP client reads it.
//!
//! | what HTTP would say | the client gets |
//! |---|---|
//! | a 400, 402 or 412 that comes with a fresh offer | a result that asks for a payment |
//! | anything else, such as a payment that was used or is in doubt | a JSON-RPC error: nothing that a client pays on |

use std::rc::Rc;

use serde_json::{Value, json};

use super::Call;
use crate::payment::reason::Refusal;
use crate::proxy::core::Core;
use crate::proxy::exchange::No;
use crate::proxy::rescue::{Extra, Refused};
use crate::wire::mcp::answer::{self, Offered};
use crate::wire::mcp::{REFUSED, events};
use crate::wire::x402;

/// A refusal of what is no call that is taken: with HTTP's status, and a JSON-RPC error.
pub fn of_message(refusal: Refusal, code: i32, id: &str) -> Refused {
    let mut refused = Refused::from(refusal);
    let message = (refused.refusal.reason.status(), error(&refused, code, id));
    refused.extra.message = Some(message);
    refused
}

/// A refusal of a call, as the operator wants it told.
pub fn of_call(call: &Call, mut refused: Refused) -> Refused {
    if call.tells_in_result() {
        refused.extra.message = Some((200, message(call, &refused)));
        refused.extra.offer_body = None;
    }
    refused
}

/// The last event of a stream that had begun before it was known that it is a «no».
pub fn event(core: &Rc<Core>, call: &Call, no: No) -> Vec<u8> {
    let refused = match call.visit(core) {
        Some(visit) => visit.refuse_ended(no),
        None => Refused::from(no.refusal),
    };
    // Whoever is asked by HTTP's status does not look for an offer in a result.
    let text = if call.tells_in_result() { message(call, &refused) } else { error(&refused, REFUSED, &call.id_text) };
    events::event(&text)
}

fn message(call: &Call, refused: &Refused) -> String {
    match &refused.extra.offer_body {
        Some(offer) => {
            let receipt = payment_response(&refused.extra);
            answer::payment_required(&Offered {
                id: &call.id_text,
                kind: call.kind,
                name: &call.name,
                offer,
                receipt: receipt.as_deref(),
                typed: call.typed,
                structured: call.structured,
            })
        }
        None => error(refused, REFUSED, &call.id_text),
    }
}

fn error(refused: &Refused, code: i32, id: &str) -> String {
    let Refused { refusal, extra } = refused;
    let reason = refusal.reason;
    let mut data = json!({"reason": reason.code(), "advice": reason.advice()});
    let members = [
        ("retryAfter", refusal.retry_after.map(Value::from)),
        ("receipt", extra.receipt.as_deref().map(Value::from)),
        ("registrationUrl", extra.registration_url.as_deref().map(Value::from)),
        ("paymentResponse", payment_response(extra).and_then(|json| serde_json::from_str(&json).ok())),
    ];
    for (name, value) in members {
        if let Some(value) = value {
            data[name] = value;
        }
    }
    let message = if refusal.detail.is_empty() { reason.meaning() } else { &refusal.detail };
    answer::error(id, code, message, &data)
}

fn payment_response(extra: &Extra) -> Option<String> {
    let (_, field) = extra.payment_response.as_ref()?;
    String::from_utf8(x402::decode_base64(field.as_bytes())?).ok()
}
