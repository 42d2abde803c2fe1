//! Ending a payment of which nobody knew whether it moved money: by the operator's word, a facilitator's, or a chain's.

use std::sync::Arc;

use serde_json::{Value, json};

use super::evidence::WalletEvidence;
use super::settling::{Intent, Settling};
use super::store::{CaptureError, Posting, Receipt, Store};
use crate::payment::key::PaymentKey;
use crate::wire::x402::Version;
use crate::wire::x402::receipt;

/// Longest reason that is kept, bytes.
pub const REASON_BYTES_MAX: usize = 500;

/// How a payment is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Whether money moved.
    pub moved: bool,
    /// The transaction on the network, where there is one.
    pub transaction: String,
    /// `operator`, `facilitator`, `chain`.
    pub by: &'static str,
    /// For whoever reads the books later.
    pub reason: String,
    /// Now, Unix ms: «failed» is refused while the payment could still move money. `None` takes it at any time.
    pub not_before_ms: Option<u64>,
}

/// Why a payment is not resolved; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Not among the unresolved ones, or in somebody's hand right now.
    #[error("this payment is not unresolved; `tollgate ledger list --state unresolved` lists those that are")]
    NotUnresolved,
    /// It may still move money.
    #[error("it can move money until {0} ms (Unix time): look again then, or say --force")]
    TooEarly(u64),
    /// See [`REASON_BYTES_MAX`].
    #[error("the reason must have 1 to {REASON_BYTES_MAX} bytes")]
    Reason,
    /// The posting was not made, or not yet.
    #[error(transparent)]
    Ledger(#[from] CaptureError),
}

/// Ends an unresolved payment. If money moved, the capture is posted and its answer is owed: the payer fetches it by sending
/// the payment again. If not, the payment is spent.
///
/// # Errors
/// [`ResolveError`].
pub async fn resolve(store: &dyn Store, key: PaymentKey, resolution: &Resolution) -> Result<Receipt, ResolveError> {
    if !(1..=REASON_BYTES_MAX).contains(&resolution.reason.len()) {
        return Err(ResolveError::Reason);
    }
    let settling = store.adopt(key).await.ok_or(ResolveError::NotUnresolved)?;
    if let Some(now_ms) = resolution.not_before_ms
        && !resolution.moved
        && now_ms < settling.intent().hard_until_ms
    {
        let until = settling.intent().hard_until_ms;
        store.unknown(settling);
        return Err(ResolveError::TooEarly(until));
    }
    end(store, settling, resolution).await
}

/// The same for a payment that is in hand already.
///
/// # Errors
/// [`ResolveError::Ledger`].
pub async fn end(store: &dyn Store, settling: Settling, resolution: &Resolution) -> Result<Receipt, ResolveError> {
    let posting = posting(settling.intent(), resolution);
    let posted = if resolution.moved {
        store.settled(settling, posting, true).await
    } else {
        store.failed(settling, posting).await
    };
    Ok(posted?)
}

/// The intent's posting, with what is known now.
fn posting(intent: &Intent, resolution: &Resolution) -> Posting {
    let known = WalletEvidence::decode(&intent.posting.evidence).unwrap_or_default();
    let settled =
        json!({"resolvedBy": resolution.by, "reason": resolution.reason, "transaction": resolution.transaction});
    let evidence = WalletEvidence {
        settled: settled.to_string().into_bytes(),
        receipt: receipt(intent, resolution).unwrap_or_default(),
        ..known
    };
    Posting { evidence: evidence.encode(), ..intent.posting.clone() }
}

/// What was asked for, in the asset's smallest unit.
pub fn asked_amount(intent: &Intent) -> Option<String> {
    let asked: Value = serde_json::from_slice(&intent.payload).ok()?;
    let amount = |name: &str| Some(asked["paymentRequirements"].get(name)?.as_str()?.to_owned());
    amount("amount").or_else(|| amount("maxAmountRequired"))
}

/// Who signed what a facilitator was asked, where that is said: `0x857b…`.
pub fn payer(asked: &Value) -> Option<&str> {
    let from = |kind: &str| asked.pointer(&format!("/paymentPayload/payload/{kind}/from")).and_then(Value::as_str);
    from("authorization").or_else(|| from("permit2Authorization"))
}

/// The payment response that the payer gets, in the version of the payment.
fn receipt(intent: &Intent, resolution: &Resolution) -> Option<String> {
    let asked: Value = serde_json::from_slice(&intent.payload).ok()?;
    let text = |pointer: &str| asked.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let version = if asked["x402Version"] == 1 { Version::V1 } else { Version::V2 };
    let receipt = receipt::Receipt {
        success: resolution.moved,
        error_reason: (!resolution.moved).then(|| "invalid_transaction_state".to_owned()),
        transaction: resolution.transaction.clone(),
        network: text("/paymentRequirements/network")?,
        payer: payer(&asked).map(str::to_owned),
        amount: asked_amount(intent).filter(|_| resolution.moved),
        extensions: serde_json::Map::new(),
    };
    Some(receipt.encode(version))
}

/// What an operator needs to see of an unresolved payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The payment.
    pub key: PaymentKey,
    /// Who pays.
    pub agent: Arc<str>,
    /// For what: method and target.
    pub what: String,
    /// How much, in ledger units.
    pub amount: i64,
    /// Of what.
    pub asset: String,
    /// Who was asked to settle.
    pub facilitator: Arc<str>,
    /// When it can no longer move money, Unix ms.
    pub hard_until_ms: u64,
}
