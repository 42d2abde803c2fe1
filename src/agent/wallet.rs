//! A wallet: a key that signs token transfers (EIP-3009), and the field that carries them.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::offer::Transfer;
use super::signer::{Committed, SignError, SignedPayment};
use crate::wire::evm::address::Address;
use crate::wire::evm::ecdsa::{self, SigningKey};
use crate::wire::evm::eip3009::Authorization;
use crate::wire::evm::u256::U256;
use crate::wire::evm::{from_hex, to_hex};
use crate::wire::x402::Version;

/// An account of Ethereum's chains, by its key.
#[derive(Clone)]
pub struct Wallet {
    key: SigningKey,
    address: Address,
}

/// A text holds no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hex digits, or a JSON object with them in `privateKey`")]
pub struct KeyError;

impl Wallet {
    /// The wallet of a key.
    pub fn new(key: SigningKey) -> Wallet {
        let address = ecdsa::address_of(key.verifying_key());
        Wallet { key, address }
    }

    /// Reads a private key: 64 hex digits, with or without `0x`, alone or as `privateKey` or `private_key` of a JSON object.
    ///
    /// # Errors
    /// [`KeyError`] for anything else; it never holds the text.
    pub fn parse(text: &str) -> Result<Wallet, KeyError> {
        let text = text.trim();
        let json: Option<Value> = text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten();
        let member = |json: &Value| {
            let text = json.get("privateKey").or_else(|| json.get("private_key"))?.as_str()?;
            Some(text.to_owned())
        };
        let text = json.as_ref().map_or_else(|| Some(text.to_owned()), member).ok_or(KeyError)?;
        let digits = text.strip_prefix("0x").unwrap_or(&text);
        let bytes = from_hex(&format!("0x{digits}")).filter(|bytes| bytes.len() == 32).ok_or(KeyError)?;
        SigningKey::from_slice(&bytes).map(Wallet::new).map_err(|_| KeyError)
    }

    /// What [`Wallet::parse`] reads: `0x`, 64 hex digits and a line's end.
    pub fn private_text(&self) -> String {
        to_hex(&self.key.to_bytes()) + "\n"
    }

    /// Who pays: `0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266`.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs a transfer that holds from the beginning of time until `now` (Unix seconds) and the offer's lifetime. The
    /// nonce makes it one payment: two signatures with different nonces are two payments.
    ///
    /// # Errors
    /// [`SignError::Unprintable`] when the offer does not fit into a field.
    pub fn sign(&self, transfer: &Transfer, now: i64, nonce: [u8; 32]) -> Result<SignedPayment, SignError> {
        let expires = now.saturating_add_unsigned(transfer.lifetime_s);
        let authorization = Authorization {
            from: self.address,
            to: transfer.pay_to,
            value: U256::from(transfer.amount),
            valid_after: U256::from(0_u64),
            valid_before: U256::from(expires.max(0).unsigned_abs()),
            nonce,
        };
        let signature = ecdsa::sign(&self.key, &authorization.digest(&transfer.domain));
        let payload = json!({
            "signature": to_hex(&signature),
            "authorization": {
                "from": authorization.from.to_string(),
                "to": authorization.to.to_string(),
                "value": authorization.value.to_string(),
                "validAfter": authorization.valid_after.to_string(),
                "validBefore": authorization.valid_before.to_string(),
                "nonce": to_hex(&nonce),
            },
        });
        let entry = &transfer.entry;
        let (name, message) = match transfer.version {
            Version::V1 => {
                let message = json!({"x402Version": 1, "scheme": entry["scheme"], "network": entry["network"],
                    "payload": payload});
                ("x-payment", message)
            }
            Version::V2 => {
                let mut message = json!({"x402Version": 2, "payload": payload});
                if let Some(resource) = &transfer.resource {
                    message["resource"] = resource.clone();
                }
                message["accepted"] = entry.clone();
                ("payment-signature", message)
            }
        };
        let value = HeaderValue::try_from(STANDARD.encode(message.to_string())).map_err(|_| SignError::Unprintable)?;
        Ok(SignedPayment {
            fields: vec![(HeaderName::from_static(name), value)],
            base: in_words(&authorization, transfer),
            payment: Committed::Transfer(authorization),
            expires,
        })
    }
}

/// The typed data, a line each.
fn in_words(authorization: &Authorization, transfer: &Transfer) -> String {
    let Authorization { from, to, value, valid_after, valid_before, nonce } = authorization;
    format!(
        "TransferWithAuthorization of {} ({}) on {}\nfrom: {from}\nto: {to}\nvalue: {value}\nvalidAfter: {valid_after}\n\
         validBefore: {valid_before}\nnonce: {}",
        transfer.token.symbol,
        transfer.token.address,
        transfer.network,
        to_hex(nonce)
    )
}

impl fmt::Debug for Wallet {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wallet({})", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first account of the well-known development mnemonic.
    const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

    #[test]
    fn a_key_is_read_in_each_of_its_forms_and_never_shown() {
        for text in [
            KEY.to_owned(),
            format!("0x{KEY}\n"),
            format!(r#"{{"address": "0x", "privateKey": "0x{KEY}"}}"#),
            format!(r#" {{"private_key": "{KEY}"}}"#),
        ] {
            let wallet = Wallet::parse(&text).unwrap();
            assert_eq!(format!("{wallet:?}"), "Wallet(0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266)");
            assert_eq!(wallet.private_text(), format!("0x{KEY}\n"));
        }
        let (zero, short) = ("0".repeat(64), &KEY[1..]);
        for text in ["", "{}", "0x", r#"{"privateKey": 1}"#, &zero, short, &format!("{KEY}00"), "{\"privateKey\"", "é"]
        {
            assert!(Wallet::parse(text).is_err(), "{text}");
        }
    }
}
