//! Offers: prepared once per route, completed per request with the resource, an id and the reason.
//!
//! The same entry goes into the JSON body (as the `deferred` proposal has it, `extras`) and, where x402 v2 clients can parse
//! it, into `PAYMENT-REQUIRED` (as x402 v2 has it, `extra`).

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::reason::Reason;
use super::terms::{Template, Term};
use crate::wire::amount::{Money, Units};

/// Most bytes that all the fields of an offer may take: Node's clients break at 16 KiB, proxies at 8.
pub const FIELD_BYTES_MAX: usize = 8 * 1024 - 1024;

/// What the operator says about deferred payments.
#[derive(Debug, Clone)]
pub struct DeferredTerms {
    /// `tollgate:deferred`
    pub network: String,
    /// `merchant`
    pub pay_to: String,
    /// Empty for none.
    pub terms_url: String,
    /// How long an offer stands, seconds.
    pub ttl: u64,
}

/// An offer for one route, all but the resource, the id and the reason.
#[derive(Debug)]
pub struct PreparedOffer {
    /// The terms that ids of this offer commit to.
    pub term: Arc<Term>,
    /// The price.
    pub amount: Units,
    body: Pieces,
    /// Absent where v2 clients could not parse the entry: a network without a colon, or an asset that is no plain currency.
    field: Option<Pieces>,
}

/// JSON text with holes: `pieces[0] hole pieces[1] hole …`.
#[derive(Debug)]
struct Pieces(Vec<String>);

/// Stand where a value goes in; JSON escapes none of them, and no configured text can hold them (control characters).
const RESOURCE: &str = "<resource>";
const ID: &str = "<id>";
const REASON: &str = "<reason>";
const MESSAGE: &str = "<message>";

impl PreparedOffer {
    /// Prepares the offer of a route at `price`.
    pub fn new(
        price: Money,
        terms: &DeferredTerms,
        description: Option<&str>,
        mime_type: Option<&str>,
    ) -> PreparedOffer {
        let wire = price.wire();
        let template = Template {
            ttl: terms.ttl,
            class: "public".into(),
            scheme: "deferred".into(),
            network: terms.network.clone(),
            asset: wire.asset(),
            decimals: wire.decimals(),
            pay_to: terms.pay_to.clone(),
            terms_url: terms.terms_url.clone(),
        };
        let holes = Holes::new(&[
            &terms.network,
            &terms.pay_to,
            &terms.terms_url,
            description.unwrap_or(""),
            mime_type.unwrap_or(""),
        ]);
        let mut extras = json!({"id": holes.of(ID), "price": price.to_string(), "version": super::terms::VERSION, "class": template.class, "ttl": terms.ttl, "decimals": template.decimals});
        if !terms.terms_url.is_empty() {
            extras["termsUrl"] = json!(terms.terms_url);
        }
        let amount = wire.amount.to_string();
        let mut entry = json!({"scheme": "deferred", "network": terms.network, "resource": holes.of(RESOURCE)});
        let mut resource = json!({"url": holes.of(RESOURCE)});
        for (name, value) in [("description", description), ("mimeType", mime_type)] {
            if let Some(value) = value {
                entry[name] = json!(value);
                resource[name] = json!(value);
            }
        }
        for (name, value) in [("amount", &amount), ("asset", &template.asset), ("payTo", &terms.pay_to)] {
            entry[name] = json!(value);
        }
        entry["maxTimeoutSeconds"] = json!(terms.ttl);
        entry["extras"] = extras.clone();
        let body = json!({"accepts": [entry], "error": holes.of(REASON), "message": holes.of(MESSAGE)});
        let field = (terms.network.contains(':') && !wire.millionths).then(|| {
            let entry = json!({"scheme": "deferred", "network": terms.network, "amount": amount, "asset": template.asset,
                "payTo": terms.pay_to, "maxTimeoutSeconds": terms.ttl, "extra": extras});
            holes.cut(&json!({"x402Version": 2, "error": holes.of(REASON), "resource": resource, "accepts": [entry]}))
        });
        PreparedOffer { body: holes.cut(&body), field, term: Term::new(template), amount: price.units }
    }

    /// The 402 body: JSON. `resource` is the absolute URL, `detail` what is wrong with this request (may be empty).
    pub fn body(&self, resource: &str, id: &str, reason: Reason, detail: &str) -> String {
        let message: &str = if detail.is_empty() { reason.meaning() } else { detail };
        self.body.fill(&[resource, id, reason.code(), message])
    }

    /// The value of `PAYMENT-REQUIRED`, standard base64; `None` where v2 clients could not parse the entry or it would not fit.
    pub fn field(&self, resource: &str, id: &str, reason: Reason) -> Option<String> {
        let json = self.field.as_ref()?.fill(&[reason.code(), resource, id, ""]);
        (json.len() * 4 / 3 <= FIELD_BYTES_MAX).then(|| STANDARD.encode(json))
    }
}

/// Makes hole markers that none of the operator's texts contains.
struct Holes(String);

impl Holes {
    fn new(texts: &[&str]) -> Holes {
        let mut mark = String::from("@");
        while texts.iter().any(|t| t.contains(&mark)) {
            mark.push('@');
        }
        Holes(mark)
    }

    fn of(&self, name: &str) -> String {
        format!("{}{name}{}", self.0, self.0)
    }

    fn cut(&self, json: &serde_json::Value) -> Pieces {
        let mut text = json.to_string();
        for name in [RESOURCE, ID, REASON, MESSAGE] {
            text = text.replace(&self.of(name), "\u{0}");
        }
        Pieces(text.split('\u{0}').map(str::to_owned).collect())
    }
}

impl Pieces {
    fn fill(&self, values: &[&str]) -> String {
        let length = self.0.iter().map(String::len).sum::<usize>() + values.iter().map(|v| v.len()).sum::<usize>() + 32;
        let mut text = String::with_capacity(length);
        for (i, piece) in self.0.iter().enumerate() {
            text.push_str(piece);
            if i + 1 < self.0.len() {
                push_escaped(&mut text, values.get(i).copied().unwrap_or(""));
            }
        }
        text
    }
}

/// Appends `value` as the inside of a JSON string.
fn push_escaped(text: &mut String, value: &str) {
    if !value.bytes().any(|b| b < 0x20 || b == b'"' || b == b'\\') {
        text.push_str(value);
        return;
    }
    let quoted = serde_json::Value::from(value).to_string();
    text.push_str(&quoted[1..quoted.len() - 1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(price: &str, network: &str) -> PreparedOffer {
        let terms = DeferredTerms {
            network: network.into(),
            pay_to: "merchant".into(),
            terms_url: "https://a.example/terms".into(),
            ttl: 300,
        };
        PreparedOffer::new(
            Money::parse(price).unwrap(),
            &terms,
            Some("An article @<id>@ \"quoted\""),
            Some("text/html"),
        )
    }

    #[test]
    fn the_body_is_json_with_one_complete_deferred_entry() {
        let body = prepared("0.01 USD", "tollgate:deferred").body(
            "https://a.example/p?q=\"1\"",
            "abc",
            Reason::PaymentRequired,
            "",
        );
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            body,
            json!({"accepts": [{
                "scheme": "deferred", "network": "tollgate:deferred", "resource": "https://a.example/p?q=\"1\"",
                "description": "An article @<id>@ \"quoted\"", "mimeType": "text/html",
                "amount": "1", "asset": "USD", "payTo": "merchant", "maxTimeoutSeconds": 300,
                "extras": {"id": "abc", "price": "0.01 USD", "version": 1, "class": "public", "ttl": 300, "decimals": 2,
                    "termsUrl": "https://a.example/terms"}}],
                "error": "payment_required", "message": "This resource has a price."})
        );
    }

    #[test]
    fn the_field_is_there_only_where_v2_clients_can_parse_it() {
        let field =
            prepared("0.01 USD", "tollgate:deferred").field("https://a.example/p", "abc", Reason::AlreadyUsed).unwrap();
        let field: serde_json::Value = serde_json::from_slice(&STANDARD.decode(field).unwrap()).unwrap();
        assert_eq!(field["x402Version"], 2);
        assert_eq!(field["error"], "already_used");
        assert_eq!(field["resource"]["url"], "https://a.example/p");
        assert_eq!(field["accepts"][0]["extra"]["id"], "abc");
        for member in ["scheme", "network", "amount", "asset", "payTo", "maxTimeoutSeconds"] {
            assert!(!field["accepts"][0][member].is_null(), "{member}");
        }
        assert!(prepared("0.001 USD", "tollgate:deferred").field("u", "i", Reason::PaymentRequired).is_none());
        assert!(prepared("0.01 USD", "no-colon").field("u", "i", Reason::PaymentRequired).is_none());
        let long = format!("https://a.example/{}", "p".repeat(FIELD_BYTES_MAX));
        assert!(prepared("0.01 USD", "tollgate:deferred").field(&long, "i", Reason::PaymentRequired).is_none());
    }
}
