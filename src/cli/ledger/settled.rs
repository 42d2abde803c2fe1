//! The proof of a token payment: what the wallet signed, what the facilitator said.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::show::visible;
use super::{hex, time};
use crate::ledger::evidence::{BodyDigest, WalletEvidence};
use crate::ledger::verify::{Transfer, transfer};
use crate::wire::x402::receipt::Receipt;

pub(super) fn to_json(evidence: &WalletEvidence) -> Value {
    let receipt = Receipt::decode(evidence.receipt.as_bytes());
    json!({
        "offer_id": evidence.sealed_id.map(|id| URL_SAFE_NO_PAD.encode(id)),
        "template_digest": evidence.template_digest.map(|digest| hex(&digest)),
        "request": answer(evidence.request.as_bytes()),
        "verified": answer(&evidence.verified),
        "settled": answer(&evidence.settled),
        "receipt": receipt.map(|receipt| json!({
            "success": receipt.success,
            "transaction": receipt.transaction,
            "network": receipt.network,
            "payer": receipt.payer,
            "amount": receipt.amount,
        })),
        "verified_at": time(evidence.verified_ms.cast_signed()),
        "method": evidence.method,
        "target": evidence.target,
        "origin_status": evidence.origin_status,
        "body_sha256": match evidence.body {
            BodyDigest::Sha256(digest) => Some(hex(&digest)),
            BodyDigest::Empty | BodyDigest::Unknown => None,
        },
        "verifies": verdict(evidence).0,
    })
}

pub(super) fn to_text(evidence: &WalletEvidence, line: &mut impl FnMut(&str, &str)) {
    if let Some(id) = evidence.sealed_id {
        line("offer id", &URL_SAFE_NO_PAD.encode(id));
    }
    if let Some(digest) = evidence.template_digest {
        line("template", &hex(&digest));
    }
    match evidence.body {
        BodyDigest::Empty => {}
        BodyDigest::Unknown => line("body", "its digest is not known: it had not ended"),
        BodyDigest::Sha256(digest) => line("body", &format!("SHA-256 {}", hex(&digest))),
    }
    line("verified", &time(evidence.verified_ms.cast_signed()));
    if let Some(receipt) = Receipt::decode(evidence.receipt.as_bytes()) {
        let payer = receipt.payer.map_or_else(String::new, |payer| format!(", paid by {}", visible(&payer)));
        let place = visible(&receipt.network);
        let transaction = visible(Some(&*receipt.transaction).filter(|t| !t.is_empty()).unwrap_or("none"));
        line("transaction", &format!("{transaction} on {place}{payer}"));
    }
    if answer(&evidence.settled).get("sandbox").is_some_and(|sandbox| *sandbox == true) {
        line("SANDBOX", "settled on paper: no money moved");
    }
    line("checked now", &verdict(evidence).1);
    // Before its settlement an intent has only the first.
    for (name, said) in [("/verify said", &evidence.verified), ("/settle said", &evidence.settled)] {
        if !said.is_empty() {
            line(name, &visible(&String::from_utf8_lossy(said)));
        }
    }
    line("signed", &format!("\n{}", visible(&format!("{:#}", answer(evidence.request.as_bytes())))));
}

/// The kept start of an answer: JSON where it is whole, else text; null where there is none.
fn answer(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes)))
}

/// Whether the transfer holds, as far as that can be told without a chain, and in words.
fn verdict(evidence: &WalletEvidence) -> (Option<bool>, String) {
    match transfer(evidence) {
        Transfer::Unreadable => (None, "what was signed can't be read by this version".to_owned()),
        Transfer::Broken(error) => (Some(false), format!("THE TRANSFER DOES NOT HOLD: {error}")),
        Transfer::Signed(found) => {
            let payer = found.0.payer.map_or_else(String::new, |payer| payer.to_string());
            (Some(true), format!("the transfer is signed by {payer}"))
        }
        Transfer::Unproven(_) => {
            (None, "only the network tells who signed: a contract's signature, or Solana's".to_owned())
        }
    }
}
