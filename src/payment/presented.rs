//! Which payment a request carries: none, exactly one, or a mistake.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName};

use super::reason::{Reason, Refusal};
use crate::wire::deferred::Payment;
use crate::wire::signature;

/// The fields that carry a payment, of any scheme; stripped before a request is forwarded.
pub const PAYMENT_FIELDS: [&str; 5] =
    ["payment", "payment-signature", "x-payment", "crawler-exact-price", "crawler-max-price"];
/// Longest `PAYMENT-SIGNATURE` or `X-PAYMENT` that is read.
const PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// What a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// No payment field.
    Nothing,
    /// A `Payment` field.
    Payment(Payment),
}

/// Finds the one payment of a request.
///
/// # Errors
/// 400 for several payments or an unreadable one; 402 for a payment of a scheme that is not served, since the client can
/// pay with another.
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
        Some(name @ ("payment-signature" | "x-payment")) => Err(payload_refusal(headers, name)),
        Some(name) => Err(Refusal::new(
            Reason::UnsupportedScheme,
            format!("`{name}` is pay per crawl, which this resource does not take"),
        )),
    }
}

/// An x402 payload: none of its schemes is served here, but a `deferred` one can be told where it belongs.
fn payload_refusal(headers: &HeaderMap, name: &'static str) -> Refusal {
    let mut lines = headers.get_all(name).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Refusal::new(Reason::SeveralPayments, format!("`{name}` stands more than once"));
    };
    let Some(scheme) = payload_scheme(line.as_bytes()) else {
        return Refusal::new(Reason::InvalidPayment, format!("`{name}` is not base64 of a JSON payment payload"));
    };
    if scheme == "deferred" {
        Refusal::from(Reason::UsePaymentField)
    } else {
        Refusal::new(Reason::UnsupportedScheme, "the payload's scheme is not one of the offers")
    }
}

/// The `scheme` of a v2 (`accepted.scheme`) or v1 (`scheme`) payload.
fn payload_scheme(text: &[u8]) -> Option<String> {
    if text.len() > PAYLOAD_BYTES_MAX {
        return None;
    }
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let json = GeneralPurpose::new(&STANDARD, lenient)
        .decode(text)
        .or_else(|_| GeneralPurpose::new(&URL_SAFE, lenient).decode(text))
        .ok()?;
    let json: serde_json::Value = serde_json::from_slice(&json).ok()?;
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
    fn exactly_one_payment_is_read() {
        let payment = r#"scheme="deferred", network="n", id="a""#;
        let b64 = |json: &str| base64::engine::general_purpose::STANDARD.encode(json);
        check(&[], Ok(false));
        check(&[("payment", payment)], Ok(true));
        check(&[("payment", "scheme=deferred"), ("payment", "network=n, id=a")], Ok(true));
        check(&[("payment", "scheme=deferred")], Err(Reason::InvalidPayment));
        check(&[("payment", payment), ("x-payment", "e30=")], Err(Reason::SeveralPayments));
        check(&[("crawler-exact-price", "USD 1"), ("crawler-max-price", "USD 1")], Err(Reason::SeveralPayments));
        check(&[("crawler-exact-price", "USD 1")], Err(Reason::UnsupportedScheme));
        check(&[("payment-signature", "e30="), ("payment-signature", "e30=")], Err(Reason::SeveralPayments));
        check(&[("payment-signature", "!")], Err(Reason::InvalidPayment));
        check(
            &[("payment-signature", &b64(r#"{"x402Version":2,"accepted":{"scheme":"deferred"}}"#))],
            Err(Reason::UsePaymentField),
        );
        check(
            &[("payment-signature", &b64(r#"{"x402Version":2,"accepted":{"scheme":"exact"}}"#))],
            Err(Reason::UnsupportedScheme),
        );
        check(&[("x-payment", &b64(r#"{"x402Version":1,"scheme":"exact"}"#))], Err(Reason::UnsupportedScheme));
    }
}
