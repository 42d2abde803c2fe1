//! The facilitator of `run --sandbox`: checks payments for real, and moves nothing.
//!
//! Signatures, amounts, receivers and times are judged as by any other; each authorisation is taken once. Payers have all
//! the money in the world, so the only networks are those whose money is for tests. It forgets everything when the
//! process ends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::payment::exact::{self, ExactError};
use crate::payment::key::PaymentKey;
use crate::payment::upto;
use crate::wire::evm::address::Address;
use crate::wire::evm::eip712::{Domain, keccak256};
use crate::wire::evm::to_hex;
use crate::wire::x402::Version;
use crate::wire::x402::assets::ASSETS;
use crate::wire::x402::facilitator::SupportedKind;
use crate::wire::x402::json;
use crate::wire::x402::network::Network;
use crate::wire::x402::payload::{Payload, PayloadKind};
use crate::wire::x402::requirements::Requirements;

/// How far ahead of the offer's `maxTimeoutSeconds` an authorisation may end; the gateway has already been stricter.
const SKEW_S: u64 = 3600;
/// Authorisations that are remembered until they end; more are not settled.
const USED_MAX: usize = 100_000;

/// The built-in facilitator.
pub struct Sandbox {
    clock: Clock,
    /// What was settled, and when its authorisation ends (Unix seconds).
    used: Mutex<HashMap<PaymentKey, u64>>,
}

/// A payment that holds.
struct Good {
    payer: Address,
    key: PaymentKey,
    ends_s: u64,
    digest: [u8; 32],
    amount: u128,
}

/// Why one does not: x402's word, and a text for people.
struct Bad {
    reason: &'static str,
    message: String,
    payer: Option<Address>,
}

impl Sandbox {
    /// One that has settled nothing.
    pub fn new(clock: Clock) -> Sandbox {
        Sandbox { clock, used: Mutex::default() }
    }

    /// `exact` on every test network with a known token, in both versions, and `upto`.
    pub fn supported() -> Vec<SupportedKind> {
        let mut kinds: Vec<SupportedKind> = Vec::new();
        for asset in ASSETS {
            let Ok(network) = Network::parse(asset.network) else { continue };
            if network.evm_chain_id().is_none() || network.is_testnet() != Some(true) {
                continue;
            }
            let names = [(1, network.v1_name()), (2, Some(network.as_str()))];
            for (version, name) in names.into_iter().filter_map(|(version, name)| Some((version, name?))) {
                if kinds.iter().all(|kind| (kind.version, kind.network.as_str()) != (version, name)) {
                    // `upto` is of version 2 alone.
                    for scheme in ["exact", upto::SCHEME].into_iter().take(version as usize) {
                        let (scheme, network) = (scheme.to_owned(), name.to_owned());
                        kinds.push(SupportedKind { version, scheme, network, extra: Map::new() });
                    }
                }
            }
        }
        kinds
    }

    /// The answer of `POST /verify`, always with status 200.
    pub fn verify(&self, body: &[u8]) -> Bytes {
        let used = |good: &Good| self.used().contains_key(&good.key);
        let answer = match self.check(body) {
            Ok(good) if used(&good) => refused_verify(&already_used(&good)),
            Ok(good) => json!({"isValid": true, "payer": good.payer.to_string(), "sandbox": true}),
            Err(bad) => refused_verify(&bad),
        };
        answer.to_string().into()
    }

    /// The answer of `POST /settle`, always with status 200. The transaction is made up: the keccak-256 of what was signed.
    pub fn settle(&self, body: &[u8]) -> Bytes {
        let network = network_named(body);
        let answer = match self.check(body).and_then(|good| self.spend(good)) {
            Ok(good) => json!({
                "success": true,
                "payer": good.payer.to_string(),
                "transaction": to_hex(&keccak256(&[&good.digest])),
                "network": network,
                "amount": good.amount.to_string(),
                "sandbox": true,
            }),
            Err(bad) => {
                let mut answer = json!({"success": false, "errorReason": bad.reason, "errorMessage": bad.message});
                if let Some(payer) = bad.payer {
                    answer["payer"] = payer.to_string().into();
                }
                answer["transaction"] = "".into();
                answer["network"] = network.into();
                answer["sandbox"] = true.into();
                answer
            }
        };
        answer.to_string().into()
    }

    fn check(&self, body: &[u8]) -> Result<Good, Bad> {
        let (payload, mut requirements) = read(body)?;
        let amount = requirements.amount;
        let network = requirements.network.clone();
        if network.is_testnet() != Some(true) {
            return bad(
                "invalid_network",
                format!("the sandbox moves no money: {network} is not a known test network"),
            );
        }
        let (payer, most) = match &payload.kind {
            PayloadKind::Eip3009 { authorization, .. } => (authorization.from, amount),
            PayloadKind::Permit2 { authorization, .. } if requirements.scheme == upto::SCHEME => {
                (authorization.from, authorization.amount.as_u128().unwrap_or_default())
            }
            PayloadKind::Permit2 { authorization, .. } => (authorization.from, amount),
            _ => return bad("unsupported_scheme", "the sandbox takes EIP-3009 and Permit2 authorisations only"),
        };
        if amount > most {
            let message = "more is asked than was signed".to_owned();
            let reason = "invalid_upto_evm_payload_settlement_exceeds_amount";
            return Err(Bad { reason, message, payer: Some(payer) });
        }
        // What was signed is checked, whatever of it is asked for.
        requirements.amount = most;
        let now_s = self.clock.now_ms() / 1000;
        let failed = |error: ExactError| Bad { reason: error.code(), message: error.to_string(), payer: Some(payer) };
        let checked = exact::check(&payload, &requirements, now_s, SKEW_S).map_err(failed)?;
        if !checked.recovered {
            let (reason, message) =
                ("invalid_exact_evm_payload_undeployed_smart_wallet", "the sandbox has no contracts");
            return Err(Bad { reason, message: message.to_owned(), payer: Some(payer) });
        }
        // `check` has read the same members; without one of them it fails.
        let incomplete = || failed(ExactError::Requirements("extra"));
        let text = |name: &str| requirements.extra.get(name).and_then(Value::as_str).map(str::to_owned);
        let chain_id = network.evm_chain_id().ok_or_else(incomplete)?;
        let digest = match &payload.kind {
            PayloadKind::Eip3009 { authorization, .. } => authorization.digest(&Domain {
                name: text("name").ok_or_else(incomplete)?,
                version: text("version"),
                chain_id,
                verifying_contract: Address::parse(&requirements.asset).map_err(|_| incomplete())?,
            }),
            PayloadKind::Permit2 { authorization, .. } => authorization.digest(chain_id),
            PayloadKind::Svm { .. } | PayloadKind::Other(_) => return Err(incomplete()),
        };
        Ok(Good { payer, key: checked.key, ends_s: checked.valid_before.unwrap_or(u64::MAX), digest, amount })
    }

    /// Takes an authorisation, once.
    fn spend(&self, good: Good) -> Result<Good, Bad> {
        let now_s = self.clock.now_ms() / 1000;
        let mut used = self.used();
        if used.len() >= USED_MAX {
            // One that has ended is refused for its time.
            used.retain(|_, ends_s| *ends_s >= now_s);
        }
        let full = used.len() >= USED_MAX;
        match used.entry(good.key) {
            Entry::Occupied(_) => Err(already_used(&good)),
            Entry::Vacant(_) if full => bad("unexpected_settle_error", "the sandbox remembers no more payments"),
            Entry::Vacant(entry) => {
                entry.insert(good.ends_s);
                Ok(good)
            }
        }
    }

    fn used(&self) -> std::sync::MutexGuard<'_, HashMap<PaymentKey, u64>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("settled", &self.used().len()).finish_non_exhaustive()
    }
}

fn bad<T>(reason: &'static str, message: impl Into<String>) -> Result<T, Bad> {
    Err(Bad { reason, message: message.into(), payer: None })
}

fn already_used(good: &Good) -> Bad {
    let reason = "invalid_exact_evm_nonce_already_used";
    Bad { reason, message: "this authorisation was settled before".to_owned(), payer: Some(good.payer) }
}

fn refused_verify(bad: &Bad) -> Value {
    let mut answer = json!({"isValid": false, "invalidReason": bad.reason, "invalidMessage": bad.message});
    if let Some(payer) = bad.payer {
        answer["payer"] = payer.to_string().into();
    }
    answer["sandbox"] = true.into();
    answer
}

/// As the requirements write it, for the answer.
fn network_named(body: &[u8]) -> String {
    let network = |value: Value| Some(value.get("paymentRequirements")?.get("network")?.as_str()?.to_owned());
    json::parse(body).ok().and_then(network).unwrap_or_default()
}

fn read(body: &[u8]) -> Result<(Payload, Requirements), Bad> {
    let Ok(Value::Object(mut request)) = json::parse(body) else {
        return bad("invalid_payload", "the request is not a JSON object");
    };
    let version = match request.get("x402Version").and_then(Value::as_u64) {
        Some(1) => Version::V1,
        Some(2) => Version::V2,
        _ => return bad("invalid_x402_version", "`x402Version` must be 1 or 2"),
    };
    let payload = request.remove("paymentPayload").unwrap_or_default();
    let payload = Payload::from_json(payload, version).map_err(|error| Bad {
        reason: error.code(),
        message: error.to_string(),
        payer: None,
    })?;
    let requirements = request.remove("paymentRequirements").unwrap_or_default();
    match Requirements::from_json(&requirements, version) {
        Some(requirements) => Ok((payload, requirements)),
        None => bad("invalid_payment_requirements", "`paymentRequirements` is incomplete or malformed"),
    }
}
