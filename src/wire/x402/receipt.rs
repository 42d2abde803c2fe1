//! What a client gets for a payment: `PAYMENT-RESPONSE` (v2) and `X-PAYMENT-RESPONSE` (v1), base64 of JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::facilitator::Settled;
use super::network::Network;
use super::{Version, decode_base64, json};

/// Longest field that is read, bytes of base64.
const FIELD_BYTES_MAX: usize = 64 * 1024;

/// x402's SettlementResponse. Source: `specs/x402-specification-v2.md` §5.3.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// Whether money moved, or will.
    pub success: bool,
    /// Why not: `insufficient_funds`.
    pub error_reason: Option<String>,
    /// The transaction on the network; empty on failure or when nothing is on chain.
    pub transaction: String,
    /// CAIP-2 in v2, a name such as `base` in v1.
    pub network: String,
    /// Who paid.
    pub payer: Option<String>,
    /// What was settled, in the asset's smallest unit; v1 has no such member.
    pub amount: Option<String>,
    /// By name; v1 has such a member for `offer-receipt` only.
    pub extensions: Map<String, Value>,
}

impl Receipt {
    /// The receipt of what a facilitator settled or refused, on `network`, for a client of `version`.
    pub fn new(settled: &Settled, network: &Network, version: Version) -> Receipt {
        let name = match version {
            Version::V1 => network.v1_name().unwrap_or(network.as_str()),
            Version::V2 => network.as_str(),
        };
        Receipt {
            success: settled.success,
            error_reason: settled.reason.clone(),
            transaction: settled.transaction.clone(),
            network: name.to_owned(),
            payer: settled.payer.clone(),
            amount: settled.amount.clone(),
            extensions: Map::new(),
        }
    }

    /// The field's value: base64, standard alphabet, padded.
    pub fn encode(&self, version: Version) -> String {
        let mut members = json!({"success": self.success});
        if let Some(reason) = &self.error_reason {
            members["errorReason"] = json!(reason);
        }
        members["transaction"] = json!(self.transaction);
        members["network"] = json!(self.network);
        if let Some(payer) = &self.payer {
            members["payer"] = json!(payer);
        }
        if let Some(amount) = self.amount.as_ref().filter(|_| version == Version::V2) {
            members["amount"] = json!(amount);
        }
        if !self.extensions.is_empty() {
            members["extensions"] = Value::Object(self.extensions.clone());
        }
        STANDARD.encode(members.to_string())
    }

    /// Reads the field of either version; `None` when it is no receipt.
    pub fn decode(field: &[u8]) -> Option<Receipt> {
        if field.len() > FIELD_BYTES_MAX {
            return None;
        }
        let value = json::parse(&decode_base64(field)?).ok()?;
        let settled = Settled::from_json(&value).ok()?;
        let extensions = value.get("extensions").and_then(Value::as_object).cloned().unwrap_or_default();
        Some(Receipt {
            success: settled.success,
            error_reason: settled.reason,
            transaction: settled.transaction,
            network: settled.network?,
            payer: settled.payer,
            amount: settled.amount,
            extensions,
        })
    }
}
