//! The verdict on a token payment (`exact`, `upto`), as far as it can be had without a chain: junk is refused before a
//! facilitator is asked, and the payment gets the key that makes it single-use.
//!
//! ```text
//! offer echoed → receiver → amount → times → signature → key
//! ```
//!
//! Balance, nonce and the signatures of contract wallets are the facilitator's to check.

use crate::wire::evm::address::Address;
use crate::wire::evm::ecdsa::{self, SIGNATURE_BYTES};
use crate::wire::evm::eip712::Domain;
use crate::wire::evm::eip3009::Authorization;
use crate::wire::evm::permit2::{EXACT_PROXY, PERMIT2, PermitAuthorization, UPTO_PROXY};
use crate::wire::evm::u256::U256;
use crate::wire::x402::Version;
use crate::wire::x402::network::Network;
use crate::wire::x402::payload::{Payload, PayloadKind};
use crate::wire::x402::requirements::{Mismatch, Requirements};
use crate::wire::x402::svm::{self, SvmError};

use super::key::PaymentKey;

/// Seconds that an authorisation must still hold: what the facilitators leave for a block to be made.
pub const BLOCK_MARGIN_S: u64 = 6;

/// A payment that holds up locally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Who says that he pays; unknown on Solana, where the facilitator reads it from the transaction.
    pub payer: Option<Address>,
    /// What makes the payment single-use.
    pub key: PaymentKey,
    /// Whether the signature proves the payer: false for wallets that are contracts, and on Solana. Until a facilitator
    /// agrees, an unproven payment may be somebody else's words.
    pub recovered: bool,
    /// Unix seconds, when the authorisation ends; `None` where it does not say.
    pub valid_before: Option<u64>,
}

/// Checks a payment of any kind against what is asked. `skew_s` forgives a difference of clocks.
///
/// # Errors
/// The first check that fails; [`ExactError::code`] is x402's word for it.
pub fn check(payload: &Payload, requirements: &Requirements, now_s: u64, skew_s: u64) -> Result<Checked, ExactError> {
    match &payload.accepted {
        Some(accepted) => requirements.matches(accepted)?,
        // Version 1 echoes no price: the current one decides.
        None => matches_v1(payload, requirements)?,
    }
    match &payload.kind {
        PayloadKind::Eip3009 { authorization, signature } => {
            check_eip3009(authorization, signature, requirements, now_s, skew_s)
        }
        PayloadKind::Permit2 { authorization, signature } => {
            check_permit2(authorization, signature, requirements, now_s, skew_s)
        }
        PayloadKind::Svm { transaction } => check_svm(transaction, requirements),
        PayloadKind::Other(_) => Err(ExactError::Form),
    }
}

fn matches_v1(payload: &Payload, requirements: &Requirements) -> Result<(), ExactError> {
    debug_assert_eq!(payload.version, Version::V1);
    if payload.scheme != requirements.scheme {
        return Err(Mismatch::Scheme.into());
    }
    match Network::from_v1_name(&payload.network) {
        Ok(network) if network == requirements.network => Ok(()),
        _ => Err(Mismatch::Network.into()),
    }
}

/// Checks an EIP-3009 authorisation for `requirements`.
///
/// # Errors
/// The first check that fails: requirements, receiver, value, times, signature.
pub fn check_eip3009(
    authorization: &Authorization,
    signature: &[u8],
    requirements: &Requirements,
    now_s: u64,
    skew_s: u64,
) -> Result<Checked, ExactError> {
    let (chain_id, asset, pay_to) = on_chain(requirements)?;
    if requirements.scheme != "exact" || transfer_method(requirements).is_some_and(|method| method != "eip3009") {
        return Err(ExactError::Unsupported);
    }
    let text = |name: &str| requirements.extra.get(name).and_then(|v| v.as_str()).map(str::to_owned);
    let (Some(name), Some(version)) = (text("name"), text("version")) else {
        return Err(ExactError::Requirements("extra.name and extra.version"));
    };
    if authorization.to != pay_to {
        return Err(ExactError::Recipient);
    }
    if authorization.value != U256::from(requirements.amount) {
        return Err(ExactError::Value);
    }
    check_times(authorization.valid_after, authorization.valid_before, requirements, now_s, skew_s)?;
    let domain = Domain { name, version: Some(version), chain_id, verifying_contract: asset };
    let recovered = check_signature(signature, &authorization.digest(&domain), &authorization.from)?;
    Ok(Checked {
        payer: Some(authorization.from),
        key: PaymentKey::from_eip3009(&requirements.network, &asset, &authorization.from, &authorization.nonce),
        recovered,
        valid_before: seconds(authorization.valid_before),
    })
}

/// Checks a Permit2 authorisation for `requirements`, of `exact` or `upto`.
///
/// # Errors
/// The first check that fails: requirements, spender, token, amount, receiver, times, signature.
pub fn check_permit2(
    authorization: &PermitAuthorization,
    signature: &[u8],
    requirements: &Requirements,
    now_s: u64,
    skew_s: u64,
) -> Result<Checked, ExactError> {
    let (chain_id, asset, pay_to) = on_chain(requirements)?;
    let is_upto = match (requirements.scheme.as_str(), transfer_method(requirements)) {
        ("exact", Some("permit2")) => false,
        ("upto", _) => true,
        _ => return Err(ExactError::Unsupported),
    };
    if authorization.spender != if is_upto { UPTO_PROXY } else { EXACT_PROXY } {
        return Err(ExactError::Spender);
    }
    if authorization.token != asset {
        return Err(ExactError::Token);
    }
    if authorization.amount != U256::from(requirements.amount) {
        return Err(ExactError::PermitAmount);
    }
    if authorization.witness.to != pay_to {
        return Err(ExactError::PermitRecipient);
    }
    let facilitator = match is_upto.then(|| requirements.extra.get("facilitatorAddress")).flatten() {
        Some(address) => Some(
            address
                .as_str()
                .and_then(|text| Address::parse(text).ok())
                .ok_or(ExactError::Requirements("extra.facilitatorAddress"))?,
        ),
        None if is_upto => return Err(ExactError::Requirements("extra.facilitatorAddress")),
        None => None,
    };
    if authorization.witness.facilitator != facilitator {
        return Err(if is_upto { ExactError::Facilitator } else { ExactError::NoFacilitator });
    }
    check_times(authorization.witness.valid_after, authorization.deadline, requirements, now_s, skew_s).map_err(
        |error| match error {
            ExactError::ValidAfter => ExactError::PermitTooEarly,
            _ => ExactError::PermitDeadline,
        },
    )?;
    let recovered = check_signature(signature, &authorization.digest(chain_id), &authorization.from)
        .map_err(|_| ExactError::PermitSignature)?;
    Ok(Checked {
        payer: Some(authorization.from),
        key: PaymentKey::from_permit2(&requirements.network, &PERMIT2, &authorization.from, authorization.nonce),
        recovered,
        valid_before: seconds(authorization.deadline),
    })
}

/// Checks the shape of a Solana transaction; what it transfers is the facilitator's to read.
///
/// # Errors
/// When it is no transaction or another network is asked for.
pub fn check_svm(transaction: &[u8], requirements: &Requirements) -> Result<Checked, ExactError> {
    if requirements.scheme != "exact" || !requirements.network.is_svm() {
        return Err(ExactError::Unsupported);
    }
    let message = svm::message(transaction)?;
    let key = PaymentKey::from_svm_message(&requirements.network, message);
    Ok(Checked { payer: None, key, recovered: false, valid_before: None })
}

/// Chain, token and receiver of requirements on a chain of Ethereum.
fn on_chain(requirements: &Requirements) -> Result<(u64, Address, Address), ExactError> {
    let chain_id = requirements.network.evm_chain_id().ok_or(ExactError::Unsupported)?;
    let asset = Address::parse(&requirements.asset).map_err(|_| ExactError::Requirements("asset"))?;
    let pay_to = Address::parse(&requirements.pay_to).map_err(|_| ExactError::Requirements("payTo"))?;
    Ok((chain_id, asset, pay_to))
}

fn transfer_method(requirements: &Requirements) -> Option<&str> {
    requirements.extra.get("assetTransferMethod").and_then(|v| v.as_str())
}

/// `after ≤ now`, and the end neither too near to settle nor so far that the payment would have to be remembered for ever.
fn check_times(
    after: U256,
    before: U256,
    requirements: &Requirements,
    now_s: u64,
    skew_s: u64,
) -> Result<(), ExactError> {
    if after > U256::from(now_s) {
        return Err(ExactError::ValidAfter);
    }
    let latest = now_s.saturating_add(requirements.max_timeout_seconds).saturating_add(skew_s);
    if before < U256::from(now_s.saturating_add(BLOCK_MARGIN_S)) || before > U256::from(latest) {
        return Err(ExactError::ValidBefore);
    }
    Ok(())
}

/// Whether the signature proves `from`; a longer one than an account's is left to the facilitator.
fn check_signature(signature: &[u8], digest: &[u8; 32], from: &Address) -> Result<bool, ExactError> {
    if signature.len() > SIGNATURE_BYTES {
        return Ok(false);
    }
    if ecdsa::recover(digest, signature) == Some(*from) { Ok(true) } else { Err(ExactError::Signature) }
}

fn seconds(value: U256) -> Option<u64> {
    value.as_u128().and_then(|value| u64::try_from(value).ok())
}

/// Why a payment is refused without asking a facilitator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExactError {
    /// The client takes an offer that was not made.
    #[error(transparent)]
    Offer(#[from] Mismatch),
    /// A scheme, network or form of payment that is not the one asked for.
    #[error("the payload is not of the kind that the offer asks for")]
    Unsupported,
    /// Scheme and network are those asked for, what carries the money is nothing known.
    #[error("`payload` has neither `authorization` nor `permit2Authorization` nor `transaction`")]
    Form,
    /// What is asked for is itself incomplete: a mistake of the gateway's operator, not of the client.
    #[error("the offer has no valid {0}")]
    Requirements(&'static str),
    /// Pays somebody else.
    #[error("`authorization.to` is not `payTo`")]
    Recipient,
    /// Another amount.
    #[error("`authorization.value` is not the amount")]
    Value,
    /// Not valid yet.
    #[error("`authorization.validAfter` is in the future")]
    ValidAfter,
    /// Ends too soon or too late.
    #[error(
        "`authorization.validBefore` must be at least {BLOCK_MARGIN_S} s ahead and at most the offer's \
         `maxTimeoutSeconds`"
    )]
    ValidBefore,
    /// Not signed by the payer.
    #[error("the signature is not by `authorization.from`")]
    Signature,
    /// Lets another contract move the money.
    #[error("`permit2Authorization.spender` is not x402's proxy")]
    Spender,
    /// Another token.
    #[error("`permitted.token` is not the asset")]
    Token,
    /// Another amount, in a permit.
    #[error("`permitted.amount` is not the amount")]
    PermitAmount,
    /// Pays somebody else, in a permit.
    #[error("`witness.to` is not `payTo`")]
    PermitRecipient,
    /// Lets another facilitator settle.
    #[error("`witness.facilitator` is not the offer's `facilitatorAddress`")]
    Facilitator,
    /// Names a facilitator where none settles alone.
    #[error("`witness.facilitator` has no place in `exact`")]
    NoFacilitator,
    /// Not valid yet, in a permit.
    #[error("`witness.validAfter` is in the future")]
    PermitTooEarly,
    /// Ends too soon or too late, in a permit.
    #[error(
        "`permit2Authorization.deadline` must be at least {BLOCK_MARGIN_S} s ahead and at most the offer's \
         `maxTimeoutSeconds`"
    )]
    PermitDeadline,
    /// Not signed by the payer, in a permit.
    #[error("the signature is not by `permit2Authorization.from`")]
    PermitSignature,
    /// No transaction of Solana.
    #[error(transparent)]
    Transaction(#[from] SvmError),
}

impl ExactError {
    /// x402's word for it, as the specification or the official facilitators have it.
    pub fn code(&self) -> &'static str {
        match self {
            ExactError::Offer(mismatch) => mismatch.code(),
            ExactError::Unsupported => "unsupported_scheme",
            ExactError::Requirements(_) => "invalid_payment_requirements",
            ExactError::Recipient => "invalid_exact_evm_payload_recipient_mismatch",
            ExactError::Value => "invalid_exact_evm_payload_authorization_value_mismatch",
            ExactError::ValidAfter => "invalid_exact_evm_payload_authorization_valid_after",
            ExactError::ValidBefore => "invalid_exact_evm_payload_authorization_valid_before",
            ExactError::Signature => "invalid_exact_evm_payload_signature",
            ExactError::Spender => "invalid_permit2_spender",
            ExactError::Token => "permit2_token_mismatch",
            ExactError::PermitAmount => "permit2_amount_mismatch",
            ExactError::PermitRecipient => "invalid_permit2_recipient_mismatch",
            ExactError::PermitTooEarly => "permit2_not_yet_valid",
            ExactError::PermitDeadline => "permit2_deadline_expired",
            ExactError::PermitSignature => "invalid_permit2_signature",
            ExactError::Facilitator => "upto_unauthorized_facilitator",
            ExactError::Form | ExactError::NoFacilitator | ExactError::Transaction(_) => "invalid_payload",
        }
    }
}
