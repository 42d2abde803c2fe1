//! What a payment has to be: an entry of `accepts`, and `paymentRequirements` for the facilitator.

use serde_json::{Map, Value, json};

use super::Version;
use super::network::Network;
use super::payload::Accepted;

/// What is asked for one resource, in one way to pay.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirements {
    /// `exact`
    pub scheme: String,
    /// `eip155:8453`
    pub network: Network,
    /// In the asset's smallest unit: `10_000` is 0.01 USDC.
    pub amount: u128,
    /// Contract or mint.
    pub asset: String,
    /// Who is paid.
    pub pay_to: String,
    /// How long the payment may take, seconds, above 0.
    pub max_timeout_seconds: u64,
    /// What the scheme needs: `name` and `version` of the token on Ethereum, `feePayer` on Solana.
    pub extra: Map<String, Value>,
}

/// What v1 says about the resource in each entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceInfo<'a> {
    /// Absolute: `https://a.example/p`.
    pub url: &'a str,
    /// Empty for none.
    pub description: &'a str,
    /// Empty for none.
    pub mime_type: &'a str,
}

impl Requirements {
    /// As v2 writes it.
    pub fn to_v2(&self) -> Value {
        let mut entry = json!({
            "scheme": self.scheme,
            "network": self.network.as_str(),
            "amount": self.amount.to_string(),
            "asset": self.asset,
            "payTo": self.pay_to,
            "maxTimeoutSeconds": self.max_timeout_seconds,
        });
        if !self.extra.is_empty() {
            entry["extra"] = Value::Object(self.extra.clone());
        }
        entry
    }

    /// As v1 writes it; `None` on a network that v1 has no name for.
    pub fn to_v1(&self, resource: &ResourceInfo<'_>) -> Option<Value> {
        let mut entry = json!({
            "scheme": self.scheme,
            "network": self.network.v1_name()?,
            "maxAmountRequired": self.amount.to_string(),
            "resource": resource.url,
            "description": resource.description,
            "mimeType": resource.mime_type,
            "payTo": self.pay_to,
            "maxTimeoutSeconds": self.max_timeout_seconds,
            "asset": self.asset,
        });
        if !self.extra.is_empty() {
            entry["extra"] = Value::Object(self.extra.clone());
        }
        Some(entry)
    }

    /// Reads what [`Requirements::to_v2`] or [`Requirements::to_v1`] wrote; `None` when a member is absent or malformed.
    pub fn from_json(value: &Value, version: Version) -> Option<Requirements> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let (network, amount) = match version {
            Version::V1 => (Network::from_v1_name(text("network")?), text("maxAmountRequired")?),
            Version::V2 => (Network::parse(text("network")?), text("amount")?),
        };
        Some(Requirements {
            scheme: text("scheme")?.to_owned(),
            network: network.ok()?,
            amount: amount.parse().ok()?,
            asset: text("asset")?.to_owned(),
            pay_to: text("payTo")?.to_owned(),
            max_timeout_seconds: value.get("maxTimeoutSeconds")?.as_u64()?,
            extra: value.get("extra").and_then(Value::as_object).cloned().unwrap_or_default(),
        })
    }

    /// Whether the offer that a client echoes is this one: by value, in any order of members, addresses of Ethereum in
    /// any case. Members that the client added to `extra` do not matter as long as all of ours are there unchanged.
    ///
    /// # Errors
    /// The first member that differs.
    pub fn matches(&self, accepted: &Accepted) -> Result<(), Mismatch> {
        let checks = [
            (accepted.scheme == self.scheme, Mismatch::Scheme),
            (accepted.network == self.network.as_str(), Mismatch::Network),
            (accepted.amount == self.amount.to_string(), Mismatch::Amount),
            (self.network.same_address(&accepted.asset, &self.asset), Mismatch::Asset),
            (self.network.same_address(&accepted.pay_to, &self.pay_to), Mismatch::PayTo),
            (accepted.max_timeout_seconds == self.max_timeout_seconds, Mismatch::MaxTimeoutSeconds),
        ];
        if let Some((_, mismatch)) = checks.into_iter().find(|(same, _)| !same) {
            return Err(mismatch);
        }
        match self.extra.iter().find(|(name, value)| accepted.extra.get(*name) != Some(value)) {
            Some((name, _)) => Err(Mismatch::Extra(name.clone())),
            None => Ok(()),
        }
    }
}

/// Which member of an echoed offer differs from the one that was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// `scheme`
    #[error("`accepted.scheme` is not the one offered")]
    Scheme,
    /// `network`
    #[error("`accepted.network` is not the one offered")]
    Network,
    /// `amount`
    #[error("`accepted.amount` is not the one offered")]
    Amount,
    /// `asset`
    #[error("`accepted.asset` is not the one offered")]
    Asset,
    /// `payTo`
    #[error("`accepted.payTo` is not the one offered")]
    PayTo,
    /// `maxTimeoutSeconds`
    #[error("`accepted.maxTimeoutSeconds` is not the one offered")]
    MaxTimeoutSeconds,
    /// A member of `extra`, by its name.
    #[error("`accepted.extra.{0}` is not the one offered")]
    Extra(String),
}

impl Mismatch {
    /// x402's word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Mismatch::Scheme => "invalid_scheme",
            Mismatch::Network => "invalid_network",
            _ => "invalid_payment_requirements",
        }
    }
}
