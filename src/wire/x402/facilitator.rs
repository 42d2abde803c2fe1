//! What is said to a facilitator and what it answers. Source: x402 `specs/x402-specification-v2.md` §7.
//!
//! Whether money moved is read from an answer here, and nowhere else: an answer that does not say it plainly is
//! [`SettleVerdict::Unknown`], never a failure.

use serde_json::{Map, Value, json};

use super::Version;
use super::json;
use super::payload::Payload;
use super::requirements::{Requirements, ResourceInfo};

/// Longest answer that is read, bytes.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Reason of a settlement that may still succeed.
pub const SETTLEMENT_PENDING: &str = "settlement_pending";

/// What a facilitator says when it has certainly sent no transaction. Everything else may hide one.
const DEFINITE: [&str; 18] = [
    "insufficient_funds",
    "insufficient_balance",
    "payload_signature",
    "evm_signature",
    "valid_before",
    "valid_after",
    "recipient_mismatch",
    "value_mismatch",
    "authorization_value",
    "network_mismatch",
    "missing_eip712_domain",
    "undeployed_smart_wallet",
    "permit2_allowance_required",
    "invalid_payload",
    "invalid_payment_requirements",
    "unsupported_scheme",
    "settlement_exceeds_amount",
    "upto_unauthorized_facilitator",
];

/// Whether a refusal to settle says for certain that no money moved and none will by this attempt: a known reason, and no
/// transaction.
pub fn is_definite(reason: &str, settled: &Settled) -> bool {
    settled.transaction.is_empty() && DEFINITE.iter().any(|word| reason.contains(word))
}

/// The body of `POST /verify` and `POST /settle`: the payment as the client sent it, and what *we* ask, in the version of
/// the payment. `None` for a v1 payment on a network that v1 has no name for.
pub fn request(payload: &Payload, requirements: &Requirements, resource: &ResourceInfo<'_>) -> Option<Value> {
    let requirements = match payload.version {
        Version::V1 => requirements.to_v1(resource)?,
        Version::V2 => requirements.to_v2(),
    };
    let version = payload.version.number();
    Some(json!({"x402Version": version, "paymentPayload": payload.raw, "paymentRequirements": requirements}))
}

/// The answer of `POST /verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whether the payment would settle.
    pub valid: bool,
    /// Why not: `insufficient_funds`.
    pub reason: Option<String>,
    /// Who pays.
    pub payer: Option<String>,
    /// For people.
    pub message: Option<String>,
}

/// The answer of `POST /settle`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Whether the money moved.
    pub success: bool,
    /// Why not: `insufficient_funds`.
    pub reason: Option<String>,
    /// The transaction on the network; empty where there is none.
    pub transaction: String,
    /// As the facilitator writes it.
    pub network: Option<String>,
    /// Who paid.
    pub payer: Option<String>,
    /// What moved, in the asset's smallest unit.
    pub amount: Option<String>,
}

/// What an answer of `/verify` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyVerdict {
    /// The payment would settle.
    Valid(Verified),
    /// It would not.
    Invalid(Verified),
    /// The answer does not say; asking again is safe.
    Unknown(String),
}

/// What an answer of `/settle` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettleVerdict {
    /// The money moved.
    Success(Settled),
    /// The facilitator says why it did not: reason and answer.
    Refused(String, Settled),
    /// It may have moved, or still may.
    Unknown {
        /// What stands in the way of a verdict.
        why: String,
        /// The answer, where one could be read; a pending one may name its transaction.
        answer: Option<Settled>,
    },
}

impl Verified {
    /// Reads an answer, unknown members ignored.
    ///
    /// # Errors
    /// Which member has no or the wrong type.
    pub fn from_json(value: &Value) -> Result<Verified, AnswerError> {
        let members = value.as_object().ok_or(AnswerError::Json)?;
        Ok(Verified {
            valid: boolean(members, "isValid")?,
            reason: text(members, "invalidReason")?,
            payer: text(members, "payer")?,
            message: text(members, "invalidMessage")?,
        })
    }
}

impl Settled {
    /// Reads an answer, unknown members ignored.
    ///
    /// # Errors
    /// Which member has no or the wrong type.
    pub fn from_json(value: &Value) -> Result<Settled, AnswerError> {
        let members = value.as_object().ok_or(AnswerError::Json)?;
        Ok(Settled {
            success: boolean(members, "success")?,
            reason: text(members, "errorReason")?,
            transaction: text(members, "transaction")?.unwrap_or_default(),
            network: text(members, "network")?,
            payer: text(members, "payer")?,
            amount: text(members, "amount")?,
        })
    }
}

/// What the answer of `/verify` says. A refusal counts at any status, a consent only at 2xx.
pub fn verify_verdict(status: u16, body: &[u8]) -> VerifyVerdict {
    match answer(body).and_then(|value| Verified::from_json(&value)) {
        Ok(verified) if !verified.valid => VerifyVerdict::Invalid(verified),
        Ok(verified) if (200..300).contains(&status) => VerifyVerdict::Valid(verified),
        Ok(_) => VerifyVerdict::Unknown(format!("status {status} with `isValid` true")),
        Err(error) => VerifyVerdict::Unknown(format!("status {status}: {error}")),
    }
}

/// What the answer of `/settle` says, whatever its status: some facilitators send verdicts with 4xx and 5xx, and pending
/// ones with 200.
pub fn settle_verdict(status: u16, body: &[u8]) -> SettleVerdict {
    let settled = match answer(body).and_then(|value| Settled::from_json(&value)) {
        Ok(settled) => settled,
        Err(error) => return SettleVerdict::Unknown { why: format!("status {status}: {error}"), answer: None },
    };
    if settled.success {
        return SettleVerdict::Success(settled);
    }
    match &settled.reason {
        Some(reason) if reason == SETTLEMENT_PENDING => {
            SettleVerdict::Unknown { why: SETTLEMENT_PENDING.to_owned(), answer: Some(settled) }
        }
        reason => {
            let reason = reason.clone().filter(|r| !r.is_empty()).unwrap_or_else(|| "unexpected_settle_error".into());
            SettleVerdict::Refused(reason, settled)
        }
    }
}

/// A way to pay that a facilitator takes: an entry of `kinds` in the answer of `GET /supported`.
#[derive(Debug, Clone, PartialEq)]
pub struct SupportedKind {
    /// 1 or 2.
    pub version: u64,
    /// `exact`
    pub scheme: String,
    /// CAIP-2 in v2, a name such as `base` in v1.
    pub network: String,
    /// What offers of this kind must carry: `feePayer` on Solana.
    pub extra: Map<String, Value>,
}

/// The ways to pay in an answer of `GET /supported`; entries that can't be read are left out.
///
/// # Errors
/// When there is no list.
pub fn supported(body: &[u8]) -> Result<Vec<SupportedKind>, AnswerError> {
    let value = answer(body)?;
    let kinds = value.get("kinds").and_then(Value::as_array).ok_or(AnswerError::Member("kinds"))?;
    let kind = |entry: &Value| {
        Some(SupportedKind {
            version: entry.get("x402Version")?.as_u64()?,
            scheme: entry.get("scheme")?.as_str()?.to_owned(),
            network: entry.get("network")?.as_str()?.to_owned(),
            extra: entry.get("extra").and_then(Value::as_object).cloned().unwrap_or_default(),
        })
    };
    Ok(kinds.iter().filter_map(kind).collect())
}

fn answer(body: &[u8]) -> Result<Value, AnswerError> {
    if body.len() > ANSWER_BYTES_MAX {
        return Err(AnswerError::TooLong);
    }
    json::parse(body).map_err(|_| AnswerError::Json)
}

fn boolean(members: &Map<String, Value>, name: &'static str) -> Result<bool, AnswerError> {
    members.get(name).and_then(Value::as_bool).ok_or(AnswerError::Member(name))
}

fn text(members: &Map<String, Value>, name: &'static str) -> Result<Option<String>, AnswerError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(AnswerError::Member(name)),
    }
}

/// Why an answer says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Longer than [`ANSWER_BYTES_MAX`].
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    /// Not a JSON object, or one that can be read in several ways.
    #[error("the answer is not a JSON object")]
    Json,
    /// A member is absent or of another type.
    #[error("`{0}` is missing or malformed in the answer")]
    Member(&'static str),
}
