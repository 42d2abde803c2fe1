//! The x402 extension `offer-receipt`: what is offered and what was bought, signed by the gateway's key.
//!
//! Source: x402 `specs/extensions/extension-offer-and-receipt.md`, format `jws`.

use serde_json::{Value, json};

use super::gateway_key::GatewayKey;

/// The extension's name.
pub const EXTENSION: &str = "offer-receipt";
/// `version` of both payloads.
const VERSION: u32 = 1;

/// An entry of an offer, as it is signed.
#[derive(Debug, Clone, Copy)]
pub struct Offered<'a> {
    /// `exact`
    pub scheme: &'a str,
    /// CAIP-2
    pub network: &'a str,
    /// Contract, mint, or ISO 4217.
    pub asset: &'a str,
    /// Who is paid.
    pub pay_to: &'a str,
    /// In the asset's smallest unit.
    pub amount: &'a str,
    /// Unix seconds.
    pub valid_until: u64,
}

impl Offered<'_> {
    /// The offer of `resource`, which `authority` sells, signed.
    pub fn sign(&self, key: &GatewayKey, authority: &str, resource: &str) -> String {
        let Offered { scheme, network, asset, pay_to, amount, valid_until } = self;
        key.jws(
            authority,
            &json!({"version": VERSION, "resourceUrl": resource, "scheme": scheme, "network": network, "asset": asset,
                "payTo": pay_to, "amount": amount, "validUntil": valid_until}),
        )
    }
}

/// What stands in the offer's extension for the signed entry `signature`, which is entry `index` of `accepts`.
pub fn offer_entry(index: usize, signature: &str) -> Value {
    json!({"format": "jws", "acceptIndex": index, "signature": signature})
}

/// A payment that bought something.
#[derive(Debug, Clone, Copy)]
pub struct Bought<'a> {
    /// What, `https://example.com/a`.
    pub resource: &'a str,
    /// CAIP-2, also for payments of v1.
    pub network: &'a str,
    /// Who paid.
    pub payer: &'a str,
    /// Unix seconds.
    pub issued_at: u64,
    /// Where the money moved; names payer and purchase to everybody who sees the receipt.
    pub transaction: Option<&'a str>,
}

impl Bought<'_> {
    /// The extension of the payment response, signed in the name of `authority`.
    pub fn extension(&self, key: &GatewayKey, authority: &str) -> Value {
        let Bought { resource, network, payer, issued_at, transaction } = self;
        let mut payload = json!({"version": VERSION, "network": network, "resourceUrl": resource, "payer": payer,
            "issuedAt": issued_at});
        if let Some(transaction) = transaction.filter(|t| !t.is_empty()) {
            payload["transaction"] = json!(transaction);
        }
        json!({"info": {"receipt": {"format": "jws", "signature": key.jws(authority, &payload)}}})
    }
}
