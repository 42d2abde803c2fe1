//! What a client pays with: `PAYMENT-SIGNATURE` (v2) and `X-PAYMENT` (v1), base64 of JSON.
//!
//! ```text
//! v2 {"x402Version":2,"resource":{"url":…},"accepted":{"scheme":"exact","network":"eip155:8453",…},"payload":{…}}
//! v1 {"x402Version":1,"scheme":"exact","network":"base","payload":{"signature":"0x…","authorization":{…}}}
//! ```
//!
//! Source: x402 `specs/x402-specification-v2.md` §5, `specs/schemes/exact/scheme_exact_evm.md`, `…_svm.md`.

use serde_json::{Map, Value};

use super::{Version, decode_base64, json};
use crate::wire::evm::address::Address;
use crate::wire::evm::eip3009::Authorization;
use crate::wire::evm::from_hex;
use crate::wire::evm::permit2::{PermitAuthorization, Witness};
use crate::wire::evm::u256::U256;

/// Longest field that is read, bytes of base64.
pub const FIELD_BYTES_MAX: usize = 16 * 1024;

/// A payment as a client presents it.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload {
    /// The version that it is written in.
    pub version: Version,
    /// `exact`
    pub scheme: String,
    /// As the client wrote it: CAIP-2 in v2, a name such as `base` in v1.
    pub network: String,
    /// The offer that is taken; only in v2.
    pub accepted: Option<Accepted>,
    /// `resource.url`, a hint at what is paid for; only in v2.
    pub resource_url: Option<String>,
    /// What the scheme needs.
    pub kind: PayloadKind,
    /// The extensions that the client echoes; empty in v1.
    pub extensions: Map<String, Value>,
    /// All of it as it was read, for the facilitator: it sees exactly what was checked here.
    pub raw: Value,
}

/// The offer that a client says it takes. What counts is what was offered; see
/// [`Requirements::matches`](super::requirements::Requirements::matches).
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// `exact`
    pub scheme: String,
    /// `eip155:8453`
    pub network: String,
    /// In the asset's smallest unit: `10000`.
    pub amount: String,
    /// Contract or mint.
    pub asset: String,
    /// Who is paid.
    pub pay_to: String,
    /// Seconds.
    pub max_timeout_seconds: u64,
    /// What the scheme needs; empty when absent.
    pub extra: Map<String, Value>,
}

/// What a payment is made of, by scheme.
#[derive(Debug, Clone, PartialEq)]
pub enum PayloadKind {
    /// A token transfer that the payer signed for anybody to submit.
    Eip3009 {
        /// What was signed.
        authorization: Authorization,
        /// 65 bytes; others for wallets that are contracts.
        signature: Vec<u8>,
    },
    /// A transfer through the Permit2 contract.
    Permit2 {
        /// What was signed.
        authorization: PermitAuthorization,
        /// 65 bytes; others for wallets that are contracts.
        signature: Vec<u8>,
    },
    /// A partly signed transaction of Solana.
    Svm {
        /// Its bytes, at least one; see [`svm::message`](super::svm::message).
        transaction: Vec<u8>,
    },
    /// Of another scheme, or of a form of it that is not read here.
    Other(Value),
}

impl Payload {
    /// Reads the field's value: base64 of either alphabet, padding optional, at most [`FIELD_BYTES_MAX`] bytes.
    /// Unknown members are kept and ignored.
    ///
    /// # Errors
    /// Says what is wrong; [`PayloadError::code`] is x402's word for it.
    pub fn decode(field: &[u8], version: Version) -> Result<Payload, PayloadError> {
        if field.len() > FIELD_BYTES_MAX {
            return Err(PayloadError::TooLong);
        }
        let bytes = decode_base64(field).ok_or(PayloadError::Base64)?;
        let raw = json::parse(&bytes).map_err(|e| PayloadError::Json(e.to_string()))?;
        Payload::from_json(raw, version)
    }

    /// Takes the JSON that the field holds.
    ///
    /// # Errors
    /// As [`Payload::decode`].
    pub fn from_json(raw: Value, version: Version) -> Result<Payload, PayloadError> {
        let members = raw.as_object().ok_or(PayloadError::Member("payload"))?;
        match members.get("x402Version").and_then(Value::as_u64) {
            Some(number) if number == version.number() => {}
            _ => return Err(PayloadError::Version(version.number())),
        }
        let (accepted, resource_url, extensions) = match version {
            Version::V1 => (None, None, Map::new()),
            Version::V2 => {
                let accepted = Accepted::from_json(members.get("accepted").ok_or(PayloadError::Member("accepted"))?)?;
                let resource = optional_object(members, "resource")?;
                let url = resource
                    .and_then(|r| r.get("url"))
                    .map(|url| url.as_str().map(str::to_owned).ok_or(PayloadError::Member("resource.url")));
                let extensions = optional_object(members, "extensions")?.cloned().unwrap_or_default();
                (Some(accepted), url.transpose()?, extensions)
            }
        };
        let (scheme, network) = match &accepted {
            Some(accepted) => (accepted.scheme.clone(), accepted.network.clone()),
            None => {
                (string(members, "scheme", "scheme")?.to_owned(), string(members, "network", "network")?.to_owned())
            }
        };
        let inner = members.get("payload").ok_or(PayloadError::Member("payload"))?;
        let kind = PayloadKind::from_json(&scheme, inner)?;
        Ok(Payload { version, scheme, network, accepted, resource_url, kind, extensions, raw })
    }
}

impl Accepted {
    fn from_json(value: &Value) -> Result<Accepted, PayloadError> {
        let members = value.as_object().ok_or(PayloadError::Member("accepted"))?;
        let text = |name, path| string(members, name, path).map(str::to_owned);
        // Some clients write whole numbers as `60.0`.
        let whole = |v: &Value| {
            v.as_u64().or_else(|| v.as_f64().filter(|f| f.fract() == 0.0 && (0.0..1e15).contains(f)).map(|f| f as u64))
        };
        Ok(Accepted {
            scheme: text("scheme", "accepted.scheme")?,
            network: text("network", "accepted.network")?,
            amount: text("amount", "accepted.amount")?,
            asset: text("asset", "accepted.asset")?,
            pay_to: text("payTo", "accepted.payTo")?,
            max_timeout_seconds: members
                .get("maxTimeoutSeconds")
                .and_then(whole)
                .ok_or(PayloadError::Member("accepted.maxTimeoutSeconds"))?,
            extra: match members.get("extra") {
                None | Some(Value::Null) => Map::new(),
                Some(extra) => extra.as_object().cloned().ok_or(PayloadError::Member("accepted.extra"))?,
            },
        })
    }
}

impl PayloadKind {
    fn from_json(scheme: &str, value: &Value) -> Result<PayloadKind, PayloadError> {
        let members = value.as_object().ok_or(PayloadError::Member("payload"))?;
        if scheme != "exact" && scheme != "upto" {
            return Ok(PayloadKind::Other(value.clone()));
        }
        let of = ["authorization", "permit2Authorization", "transaction"].map(|name| members.get(name));
        match of {
            [Some(authorization), None, None] => Ok(PayloadKind::Eip3009 {
                authorization: authorization_from_json(authorization)?,
                signature: signature(members)?,
            }),
            [None, Some(authorization), None] => Ok(PayloadKind::Permit2 {
                authorization: permit_from_json(authorization)?,
                signature: signature(members)?,
            }),
            [None, None, Some(transaction)] => {
                let bytes = transaction.as_str().and_then(|text| decode_base64(text.as_bytes()));
                let transaction = bytes.filter(|bytes| !bytes.is_empty());
                Ok(PayloadKind::Svm { transaction: transaction.ok_or(PayloadError::Member("payload.transaction"))? })
            }
            [None, None, None] => Ok(PayloadKind::Other(value.clone())),
            // Which of them the facilitator would take is not for us to guess.
            _ => Err(PayloadError::Ambiguous),
        }
    }
}

fn authorization_from_json(value: &Value) -> Result<Authorization, PayloadError> {
    let members = value.as_object().ok_or(PayloadError::Member("payload.authorization"))?;
    let nonce = string(members, "nonce", "authorization.nonce")?;
    Ok(Authorization {
        from: address(members, "from", "authorization.from")?,
        to: address(members, "to", "authorization.to")?,
        value: number(members, "value", "authorization.value")?,
        valid_after: number(members, "validAfter", "authorization.validAfter")?,
        valid_before: number(members, "validBefore", "authorization.validBefore")?,
        nonce: from_hex(nonce)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(PayloadError::Member("authorization.nonce"))?,
    })
}

fn permit_from_json(value: &Value) -> Result<PermitAuthorization, PayloadError> {
    let object =
        |value: Option<&Value>, path| value.and_then(Value::as_object).cloned().ok_or(PayloadError::Member(path));
    let members = object(Some(value), "payload.permit2Authorization")?;
    let permitted = object(members.get("permitted"), "permit2Authorization.permitted")?;
    let witness = object(members.get("witness"), "permit2Authorization.witness")?;
    Ok(PermitAuthorization {
        from: address(&members, "from", "permit2Authorization.from")?,
        token: address(&permitted, "token", "permitted.token")?,
        amount: number(&permitted, "amount", "permitted.amount")?,
        spender: address(&members, "spender", "permit2Authorization.spender")?,
        nonce: number(&members, "nonce", "permit2Authorization.nonce")?,
        deadline: number(&members, "deadline", "permit2Authorization.deadline")?,
        witness: Witness {
            to: address(&witness, "to", "witness.to")?,
            facilitator: match witness.get("facilitator") {
                None => None,
                Some(_) => Some(address(&witness, "facilitator", "witness.facilitator")?),
            },
            valid_after: number(&witness, "validAfter", "witness.validAfter")?,
        },
    })
}

fn string<'a>(members: &'a Map<String, Value>, name: &str, path: &'static str) -> Result<&'a str, PayloadError> {
    members.get(name).and_then(Value::as_str).ok_or(PayloadError::Member(path))
}

fn address(members: &Map<String, Value>, name: &str, path: &'static str) -> Result<Address, PayloadError> {
    Address::parse(string(members, name, path)?).map_err(|_| PayloadError::Member(path))
}

fn number(members: &Map<String, Value>, name: &str, path: &'static str) -> Result<U256, PayloadError> {
    U256::parse(string(members, name, path)?).map_err(|_| PayloadError::Member(path))
}

fn signature(members: &Map<String, Value>) -> Result<Vec<u8>, PayloadError> {
    let path = "payload.signature";
    from_hex(string(members, "signature", path)?).ok_or(PayloadError::Member(path))
}

fn optional_object<'a>(
    members: &'a Map<String, Value>,
    name: &'static str,
) -> Result<Option<&'a Map<String, Value>>, PayloadError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_object().map(Some).ok_or(PayloadError::Member(name)),
    }
}

/// Why a field is no payment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Longer than [`FIELD_BYTES_MAX`].
    #[error("the payment is longer than {FIELD_BYTES_MAX} bytes")]
    TooLong,
    /// Not base64.
    #[error("the payment is not base64")]
    Base64,
    /// Not JSON that can be read in one way only.
    #[error("the payment is not JSON: {0}")]
    Json(String),
    /// `x402Version` is absent or not the one of the field.
    #[error("`x402Version` must be {0} in this field")]
    Version(u64),
    /// A member is absent or of another type or shape.
    #[error("`{0}` is missing or malformed")]
    Member(&'static str),
    /// Members of several kinds of payment stand side by side.
    #[error("the payload holds more than one of `authorization`, `permit2Authorization` and `transaction`")]
    Ambiguous,
}

impl PayloadError {
    /// x402's word for it: `invalid_payload`, `invalid_x402_version`.
    pub fn code(&self) -> &'static str {
        match self {
            PayloadError::Version(_) => "invalid_x402_version",
            _ => "invalid_payload",
        }
    }
}
