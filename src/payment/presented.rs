//! Which payment a request carries: none, exactly one, or a mistake.

use http::{HeaderMap, HeaderName};

use super::batch;
use super::crawl::{self, Bid};
use super::reason::{Reason, Refusal};
use crate::wire::deferred::Payment;
use crate::wire::signature;
use crate::wire::x402::payload::{FIELD_BYTES_MAX, Payload, PayloadError};
use crate::wire::x402::{self, Version};

/// The fields that carry a payment, of any scheme; stripped before a request is forwarded.
pub const PAYMENT_FIELDS: [&str; 5] =
    ["payment", "payment-signature", "x-payment", "crawler-exact-price", "crawler-max-price"];

/// What a request carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Presented {
    /// No payment field.
    Nothing,
    /// A `Payment` field.
    Payment(Payment),
    /// `PAYMENT-SIGNATURE` or `X-PAYMENT`.
    X402(Box<Payload>),
    /// `crawler-exact-price` or `crawler-max-price`.
    Crawl(Bid),
}

/// Whose words a refusal is told in, besides ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// Nobody else's.
    Ours,
    /// Those of `batch-settlement`.
    Batch,
    /// Those of pay per crawl.
    Crawl,
}

impl Words {
    /// The words of the scheme that a request pays with, as far as it can be told.
    pub fn of_request(headers: &HeaderMap, presented: &Result<Presented, Refusal>) -> Words {
        match presented {
            _ if crawl::is_presented(headers) => Words::Crawl,
            Ok(Presented::X402(payload)) if payload.scheme == batch::SCHEME => Words::Batch,
            _ => Words::Ours,
        }
    }

    /// The word for a reason, where there is one.
    pub fn of(self, reason: Reason) -> Option<&'static str> {
        match self {
            Words::Ours => None,
            Words::Batch => batch::word(reason),
            Words::Crawl => Some(crawl::word(reason)),
        }
    }
}

/// Finds the one payment of a request.
///
/// # Errors
/// 400 for several payments or an unreadable one; 402 for a `deferred` one that stands in the wrong field.
pub fn presented(headers: &HeaderMap) -> Result<Presented, Refusal> {
    let mut found = None;
    for name in PAYMENT_FIELDS {
        if headers.contains_key(name)
            && let Some(other) = found.replace(name)
        {
            return Err(Refusal::new(Reason::SeveralPayments, format!("`{other}` and `{name}` are both present")));
        }
    }
    match found {
        None => Ok(Presented::Nothing),
        Some("payment") => {
            let text = signature::field(headers, &HeaderName::from_static("payment"))
                .map_err(|e| Refusal::new(Reason::InvalidPayment, e.to_string()))?
                .unwrap_or_default();
            Payment::parse(&text)
                .map(Presented::Payment)
                .map_err(|e| Refusal::new(Reason::InvalidPayment, format!("`Payment`: {e}")))
        }
        Some(name @ ("payment-signature" | "x-payment")) => {
            payload(headers, name).map(|payload| Presented::X402(Box::new(payload)))
        }
        Some(name) => Bid::read(headers, name).map(Presented::Crawl),
    }
}

/// The one payment of an MCP call: in its fields, or in its body (JSON, `params._meta["x402/payment"]`), or the same in
/// both, as some clients send it.
///
/// # Errors
/// As [`presented`]; 400 for two that differ.
pub fn presented_in_call(headers: &HeaderMap, payment: Option<&str>) -> Result<Presented, Refusal> {
    let in_fields = presented(headers)?;
    let Some(payment) = payment else { return Ok(in_fields) };
    let invalid = |error: PayloadError| {
        Refusal::new(Reason::InvalidPayment, format!("`_meta[\"x402/payment\"]`: {error}")).error(error.code())
    };
    if payment.len() > FIELD_BYTES_MAX / 4 * 3 {
        return Err(invalid(PayloadError::TooLong));
    }
    let raw = x402::json::parse(payment.as_bytes()).map_err(|e| invalid(PayloadError::Json(e.to_string())))?;
    let version =
        if raw.get("x402Version").and_then(serde_json::Value::as_u64) == Some(1) { Version::V1 } else { Version::V2 };
    let payload = Payload::from_json(raw, version).map_err(invalid)?;
    if payload.scheme == "deferred" {
        return Err(Reason::UsePaymentField.into());
    }
    match in_fields {
        Presented::Nothing => Ok(Presented::X402(Box::new(payload))),
        Presented::X402(other) if other.raw == payload.raw => Ok(Presented::X402(other)),
        _ => {
            let detail = "a field and `_meta` carry different payments";
            Err(Refusal::new(Reason::SeveralPayments, detail))
        }
    }
}

/// An x402 payload; a `deferred` one is told where it belongs, whole or not.
fn payload(headers: &HeaderMap, name: &'static str) -> Result<Payload, Refusal> {
    let mut lines = headers.get_all(name).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err(Refusal::new(Reason::SeveralPayments, format!("`{name}` stands more than once")));
    };
    let version = if name == "x-payment" { Version::V1 } else { Version::V2 };
    match Payload::decode(line.as_bytes(), version) {
        Ok(payload) if payload.scheme == "deferred" => Err(Reason::UsePaymentField.into()),
        Ok(payload) => Ok(payload),
        Err(error) => {
            let invalid = Refusal::new(Reason::InvalidPayment, format!("`{name}`: {error}"));
            match payload_scheme(line.as_bytes()).as_deref() {
                Some("deferred") => Err(Reason::UsePaymentField.into()),
                Some(batch::SCHEME) => Err(invalid.error("invalid_payment_signature")),
                _ => Err(invalid.error(error.code())),
            }
        }
    }
}

/// The `scheme` of a v2 (`accepted.scheme`) or v1 (`scheme`) payload that lacks something else.
fn payload_scheme(text: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(&x402::decode_base64(text)?).ok()?;
    let scheme = json.pointer("/accepted/scheme").or_else(|| json.pointer("/scheme"))?;
    scheme.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &[(&'static str, &str)], expect: Result<bool, Reason>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let found = presented(&headers).map(|p| p != Presented::Nothing).map_err(|r| r.reason);
        assert_eq!(found, expect, "{fields:?}");
    }

    #[test]
    fn a_call_carries_its_payment_once_or_the_same_twice() {
        let v1 = r#"{"x402Version":1,"scheme":"exact","network":"base","payload":{"a":1}}"#;
        let spaced = v1.replace(',', ", ");
        let other = v1.replace("\"a\":1", "\"a\":2");
        use base64::Engine as _;
        let field = base64::engine::general_purpose::STANDARD.encode(v1);
        let check = |fields: &[(&'static str, &str)], payment: Option<&str>| {
            let fields = fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            let headers: HeaderMap = fields.collect();
            presented_in_call(&headers, payment).map(|p| p != Presented::Nothing).map_err(|r| r.reason)
        };
        assert_eq!(check(&[], None), Ok(false));
        assert_eq!(check(&[], Some(v1)), Ok(true));
        assert_eq!(check(&[("x-payment", &field)], Some(&spaced)), Ok(true));
        assert_eq!(check(&[("x-payment", &field)], Some(&other)), Err(Reason::SeveralPayments));
        let payment = r#"scheme="deferred", network="n", id="a""#;
        assert_eq!(check(&[("payment", payment)], Some(v1)), Err(Reason::SeveralPayments));
        assert_eq!(check(&[("payment", payment)], None), Ok(true));
        for wrong in ["[]", "{}", r#"{"x402Version":2,"x402Version":1}"#, &format!("\"{}\"", "a".repeat(20_000))] {
            assert_eq!(check(&[], Some(wrong)), Err(Reason::InvalidPayment), "{wrong}");
        }
        let deferred = v1.replace("exact", "deferred");
        assert_eq!(check(&[], Some(&deferred)), Err(Reason::UsePaymentField));
    }

    #[test]
    fn exactly_one_payment_is_read() {
        let payment = r#"scheme="deferred", network="n", id="a""#;
        use base64::Engine as _;
        let b64 = |json: &str| base64::engine::general_purpose::STANDARD.encode(json);
        check(&[], Ok(false));
        check(&[("payment", payment)], Ok(true));
        check(&[("payment", "scheme=deferred"), ("payment", "network=n, id=a")], Ok(true));
        check(&[("payment", "scheme=deferred")], Err(Reason::InvalidPayment));
        check(&[("payment", payment), ("x-payment", "e30=")], Err(Reason::SeveralPayments));
        check(&[("crawler-exact-price", "USD 1"), ("crawler-max-price", "USD 1")], Err(Reason::SeveralPayments));
        check(&[("crawler-exact-price", "USD 1")], Ok(true));
        check(&[("crawler-max-price", "USD 1"), ("crawler-max-price", "USD 1")], Err(Reason::SeveralPayments));
        check(&[("crawler-max-price", "1 USD")], Err(Reason::InvalidPayment));
        check(&[("crawler-max-price", "USD 1"), ("payment", payment)], Err(Reason::SeveralPayments));
        check(&[("payment-signature", "e30="), ("payment-signature", "e30=")], Err(Reason::SeveralPayments));
        check(&[("payment-signature", "!")], Err(Reason::InvalidPayment));
        check(
            &[("payment-signature", &b64(r#"{"x402Version":2,"accepted":{"scheme":"deferred"}}"#))],
            Err(Reason::UsePaymentField),
        );
        check(
            &[("payment-signature", &b64(r#"{"x402Version":2,"accepted":{"scheme":"exact"}}"#))],
            Err(Reason::InvalidPayment),
        );
        check(&[("x-payment", &b64(r#"{"x402Version":1,"scheme":"exact"}"#))], Err(Reason::InvalidPayment));
        let whole = r#"{"x402Version":1,"scheme":"exact","network":"base","payload":{}}"#;
        check(&[("x-payment", &b64(whole))], Ok(true));
        check(&[("payment-signature", &b64(whole))], Err(Reason::InvalidPayment));
    }
}
