//! `payment-identifier`: a client's own name for a payment, so that the same request gets the same answer again.
//!
//! ```text
//! offer     "extensions":{"payment-identifier":{"info":{"required":false}}}
//! payment   "extensions":{"payment-identifier":{"info":{"required":false,"id":"pay_7d5d747be160e280504c099d984bcfe0"}}}
//! ```
//!
//! Source: x402 `specs/extensions/payment_identifier.md`.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::reason::{Reason, Refusal};
use super::upto;
use crate::wire::x402::Version;
use crate::wire::x402::payload::Payload;

/// The extension's id.
pub const EXTENSION: &str = "payment-identifier";
/// Shortest and longest identifier, bytes.
const BYTES: std::ops::RangeInclusive<usize> = 16..=128;

/// Whether clients may name their payments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Names are ignored.
    #[default]
    Off,
    /// Who likes.
    Optional,
    /// Everybody who pays a token by x402 v2; v1 has no extensions.
    Required,
}

impl Mode {
    /// What an offer says; `None` when it says nothing. The schema, which is always the same, is left out to save bytes.
    pub fn extension(self) -> Option<Value> {
        (self != Mode::Off).then(|| json!({"info": {"required": self == Mode::Required}}))
    }

    /// The name of a payment, where it has one that counts.
    ///
    /// # Errors
    /// 400 for one that is malformed, and for none where one is required.
    pub fn named(self, payload: &Payload) -> Result<Option<String>, Refusal> {
        let is_token = payload.scheme == "exact" || payload.scheme == upto::SCHEME;
        if self == Mode::Off || !is_token || payload.version == Version::V1 {
            return Ok(None);
        }
        let bad = |what: &str| Refusal::new(Reason::InvalidIdentifier, what).error("invalid_payload");
        let info = match payload.extensions.get(EXTENSION) {
            None | Some(Value::Null) => None,
            Some(extension) => Some(
                extension
                    .get("info")
                    .and_then(Value::as_object)
                    .ok_or_else(|| bad("`extensions.payment-identifier` has no `info`"))?,
            ),
        };
        match info.and_then(|info| info.get("id")) {
            None if self == Mode::Required => Err(bad("`extensions.payment-identifier.info.id` is required here")),
            None => Ok(None),
            Some(Value::String(id)) if is_identifier(id) => Ok(Some(id.clone())),
            Some(_) => Err(bad("`extensions.payment-identifier.info.id` must be 16 to 128 of A-Z, a-z, 0-9, `_`, `-`")),
        }
    }
}

fn is_identifier(id: &str) -> bool {
    BYTES.contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// What a name stands for besides the body: SHA-256 over the very payload, method and target, each with its length in front.
pub fn bound_to(payload: &Payload, method: &str, target: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [&payload.raw.to_string(), method, target] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(extensions: &Value, version: Version) -> Payload {
        let mut json = json!({"x402Version": version.number(), "scheme": "exact", "network": "base", "payload": {}});
        if version == Version::V2 {
            json = json!({"x402Version": 2, "payload": {}, "accepted": {"scheme": "exact", "network": "eip155:8453",
                "amount": "1", "asset": "0x", "payTo": "0x", "maxTimeoutSeconds": 1}});
        }
        json["extensions"] = extensions.clone();
        Payload::from_json(json, version).unwrap()
    }

    #[test]
    fn what_is_named_counts_where_it_may() {
        let named = |mode: Mode, info: Value| {
            let extensions = json!({EXTENSION: {"info": info}});
            mode.named(&payload(&extensions, Version::V2)).map_err(|refusal| refusal.reason)
        };
        let id = "pay_7d5d747be160e280504c099d984bcfe0";
        assert_eq!(named(Mode::Optional, json!({"required": false, "id": id})), Ok(Some(id.to_owned())));
        assert_eq!(named(Mode::Optional, json!({"id": "a".repeat(16)})), Ok(Some("a".repeat(16))));
        assert_eq!(named(Mode::Required, json!({"id": "A-_9".repeat(32)})), Ok(Some("A-_9".repeat(32))));
        assert_eq!(named(Mode::Off, json!({"id": 7})), Ok(None));
        assert_eq!(named(Mode::Optional, json!({"required": false})), Ok(None));
        assert_eq!(named(Mode::Required, json!({"required": true})), Err(Reason::InvalidIdentifier));
        for bad in
            [json!("a".repeat(15)), json!("a".repeat(129)), json!("a b c d e f g h i"), json!("é".repeat(16)), json!(7)]
        {
            assert_eq!(named(Mode::Optional, json!({"id": bad})), Err(Reason::InvalidIdentifier), "{bad}");
        }
        for bad in [json!(7), json!([]), json!({}), json!({"info": "x"})] {
            let named = Mode::Optional.named(&payload(&json!({EXTENSION: bad}), Version::V2));
            assert_eq!(named.map_err(|refusal| refusal.reason), Err(Reason::InvalidIdentifier), "{bad}");
        }
        assert_eq!(Mode::Required.named(&payload(&Value::Null, Version::V1)), Ok(None), "v1 has no extensions");
        assert!(Mode::Required.named(&payload(&Value::Null, Version::V2)).is_err());
    }

    #[test]
    fn a_name_is_bound_to_every_byte_of_what_was_asked() {
        let one = payload(&json!({}), Version::V2);
        let other = payload(&json!({"x": 1}), Version::V2);
        let bound = bound_to(&one, "GET", "https://a.example/b");
        assert_eq!(bound, bound_to(&one.clone(), "GET", "https://a.example/b"));
        assert_ne!(bound, bound_to(&other, "GET", "https://a.example/b"));
        assert_ne!(bound, bound_to(&one, "GETh", "ttps://a.example/b"));
        assert_ne!(bound, bound_to(&one, "GET", "https://a.example/c"));
    }
}
