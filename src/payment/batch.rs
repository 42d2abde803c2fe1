//! `batch-settlement` on credit: a commitment in `PAYMENT-SIGNATURE` that a message signature proves, settled later.
//!
//! ```text
//! signature fields → coverage → times → agent → [key] → signature → payload → amount, asset → fresh, or id → offer
//! ```
//!
//! With an id of ours in `accepted.extra.id` a payment is bound to one request, as a `deferred` one; without, it is good
//! for a moment and its signature makes it single-use («pre-authorised», no offer asked for first).
//!
//! Source: x402 `specs/schemes/batch-settlement/scheme_batch_settlement_cloudflare.md`,
//! `specs/extensions/http-message-signatures.md`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::reason::{Reason, Refusal};
use super::signed::{Cover, Server, TAG};
use super::terms::{self, Template};
use crate::wire::amount::WireAmount;
use crate::wire::jwk::Algorithm;
use crate::wire::x402::payload::{Accepted, Payload, PayloadKind};

/// The scheme, as offers name it.
pub const SCHEME: &str = "batch-settlement";
/// `extra.version`: of the scheme on this kind of network.
pub const VERSION: &str = "1.0.0";
/// The extension that says how to sign.
pub const EXTENSION: &str = "http-message-signatures";

/// What the operator says about payments in batches.
#[derive(Debug, Clone)]
pub struct BatchTerms {
    /// `tollgate:402`
    pub network: String,
    /// `merchant`
    pub pay_to: String,
    /// Empty for none.
    pub terms_url: String,
    /// Where an agent gets an account; empty for none.
    pub registration_url: String,
}

impl BatchTerms {
    /// The terms of an offer that stands for `ttl` seconds.
    pub fn template(&self, wire: &WireAmount, ttl: u64) -> Template {
        Template {
            ttl,
            class: terms::PUBLIC.into(),
            scheme: SCHEME.into(),
            network: self.network.clone(),
            asset: wire.asset(),
            decimals: wire.decimals(),
            pay_to: self.pay_to.clone(),
            terms_url: self.terms_url.clone(),
        }
    }

    /// What the offer's extension says.
    pub fn extension(&self) -> Value {
        let url = &self.registration_url;
        let schemes = Algorithm::ALL.map(Algorithm::name);
        json!({"info": {"registrationUrl": url, "signatureSchemes": schemes, "tags": [TAG]}})
    }
}

/// An entry of `accepts`, in x402 v2.
pub fn entry(template: &Template, amount: u128, id: &str) -> Value {
    let Template { ttl, network, asset, pay_to, .. } = template;
    json!({"scheme": SCHEME, "network": network, "amount": amount.to_string(), "asset": asset, "payTo": pay_to,
        "maxTimeoutSeconds": ttl, "extra": extra(template, Some(id))})
}

/// `extra` of an entry: the scheme's version, and the template's members, so that the id can be recomputed.
fn extra(template: &Template, id: Option<&str>) -> Map<String, Value> {
    let Template { ttl, class, decimals, terms_url, .. } = template;
    let mut extra = Map::new();
    extra.insert("version".into(), json!(VERSION));
    if let Some(id) = id {
        extra.insert("id".into(), json!(id));
    }
    let members = [
        ("idVersion", json!(terms::VERSION)),
        ("class", json!(class)),
        ("ttl", json!(ttl)),
        ("decimals", json!(decimals)),
    ];
    extra.extend(members.map(|(name, value)| (name.to_owned(), value)));
    if !terms_url.is_empty() {
        extra.insert("termsUrl".into(), json!(terms_url));
    }
    extra
}

/// The id that a payment names, one of ours or not.
pub fn id_of(payload: &Payload) -> Option<&str> {
    payload.accepted.as_ref()?.extra.get("id")?.as_str()
}

/// What proves a payment for an offer of ours.
pub const COVER: Cover = Cover { field: "payment-signature", server: Server::Authority, has_id: true, whole: false };

/// What a signature must cover to prove the payment.
pub fn cover(payload: &Payload) -> Cover {
    Cover { has_id: id_of(payload).is_some(), ..COVER }
}

/// Whether the commitment pays `price`, in whole minor units of a currency. More is fine; the price is charged.
///
/// # Errors
/// [`Reason::InvalidPayment`] for a payload that is none of this scheme, [`Reason::PriceNotAcceptable`] for too little or
/// something else.
pub fn pays(payload: &Payload, price: &WireAmount) -> Result<(), Refusal> {
    let PayloadKind::Other(members) = &payload.kind else { return Err(malformed("`payload` is of another scheme")) };
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let (Some(amount), Some(asset)) = (text("amount"), text("asset")) else {
        return Err(malformed("`payload.amount` and `payload.asset` must be text"));
    };
    let digits = !amount.is_empty() && amount.bytes().all(|b| b.is_ascii_digit());
    let amount: u128 = amount
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| malformed("`payload.amount` must be a count of the asset's smallest unit"))?;
    let WireAmount { amount: least, .. } = *price;
    if asset != price.asset() || amount < least {
        let detail = format!("`payload` commits to less than {least} of {}, or to another asset", price.asset());
        return Err(Refusal::new(Reason::PriceNotAcceptable, detail));
    }
    Ok(())
}

fn malformed(detail: &str) -> Refusal {
    Refusal::new(Reason::InvalidPayment, detail)
}

/// Whether the offer that the client echoes is this one, by value. In `extra`, members that are left out or added do not
/// matter; the id is looked at elsewhere.
///
/// # Errors
/// [`Reason::PriceNotAcceptable`], naming the first member that differs.
pub fn accepts(accepted: &Accepted, template: &Template, amount: u128) -> Result<(), Refusal> {
    let checks = [
        ("scheme", accepted.scheme == template.scheme),
        ("network", accepted.network == template.network),
        ("amount", accepted.amount == amount.to_string()),
        ("asset", accepted.asset == template.asset),
        ("payTo", accepted.pay_to == template.pay_to),
        ("maxTimeoutSeconds", accepted.max_timeout_seconds == template.ttl),
    ];
    let ours = extra(template, None);
    let mut extras = ours.iter().map(|(name, value)| (name, accepted.extra.get(name).is_none_or(|v| v == value)));
    let wrong = match checks.into_iter().find(|(_, same)| !same) {
        Some((name, _)) => name.to_owned(),
        None => match extras.find(|(_, same)| !same) {
            Some((name, _)) => format!("extra.{name}"),
            None => return Ok(()),
        },
    };
    Err(Refusal::new(Reason::PriceNotAcceptable, format!("`accepted.{wrong}` is not the one offered")))
}

/// The scheme's word for a refusal, where it has one.
pub fn word(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Blocked | Reason::AgentBlocked => "blocked",
        Reason::PriceNotAcceptable
        | Reason::UnsupportedScheme
        | Reason::UnknownOffer
        | Reason::OfferExpired
        | Reason::OtherResource => "price_not_acceptable",
        Reason::PaymentFailed => "payment_failed",
        Reason::InvalidSignature | Reason::SignatureExpired | Reason::KeyUnknown => "invalid_signature",
        Reason::SignatureAgentUnknown => "signature_agent_unknown",
        Reason::InvalidPayment | Reason::AlreadyUsed => "invalid_payment_signature",
        Reason::OriginUnreachable | Reason::OriginInvalid | Reason::OriginTimeout | Reason::AnswerTooLong => {
            "origin_error"
        }
        _ => return None,
    })
}

/// What a payment response says.
#[derive(Debug, Clone, Copy)]
pub struct Confirmation<'a> {
    /// `tollgate:402`
    pub network: &'a str,
    /// Host of the agent: `signer.example.com`.
    pub payer: &'a str,
    /// What was charged.
    pub charged: WireAmount,
    /// When, Unix seconds.
    pub timestamp: u64,
    /// What the books know it by.
    pub id: &'a str,
}

impl Confirmation<'_> {
    /// The value of `PAYMENT-RESPONSE`, with the extension `offer-receipt` where there is one. Clients of the scheme's first
    /// text read `timestamp` beside the amount, later ones in `extra`.
    pub fn encode(&self, signed: Option<Value>) -> String {
        let Confirmation { network, payer, charged, timestamp, id } = self;
        let mut json = json!({"success": true, "transaction": "", "network": network, "payer": payer,
            "amount": charged.amount.to_string(), "asset": charged.asset(), "timestamp": timestamp,
            "extra": {"timestamp": timestamp, "id": id}});
        if let Some(signed) = signed {
            json["extensions"] = json!({super::offer_receipt::EXTENSION: signed});
        }
        STANDARD.encode(json.to_string())
    }
}

#[cfg(test)]
#[path = "batch/tests.rs"]
mod tests;
