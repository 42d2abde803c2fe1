//! A transfer: who signed it, and whether it is what was booked.

use serde_json::Value;

use super::{Booked, Checks, signed::seal};
use crate::{
    ledger::{entry::Entry, evidence::WalletEvidence},
    payment::{
        exact::{self, Checked, ExactError},
        token::{Token, UNIT_DECIMALS_MAX},
    },
    wire::x402::{Version, assets, payload::Payload, requirements::Requirements},
};

/// Seconds by which clocks may have differed when the payment was verified; as much as any configuration allows.
const SKEW_S: u64 = 300;

/// Whether a transfer holds, as far as that can be told without a chain.
#[derive(Debug)]
pub enum Transfer {
    /// What was signed can't be read.
    Unreadable,
    /// It does not hold.
    Broken(ExactError),
    /// It holds, but for a signature that only the network can judge: a contract's, or Solana's.
    Unproven(Box<(Checked, Requirements)>),
    /// The payer signed it.
    Signed(Box<(Checked, Requirements)>),
}

/// Checks the transfer of an evidence, at the time at which it was verified.
pub fn transfer(evidence: &WalletEvidence) -> Transfer {
    let Some((payload, requirements)) = asked(evidence) else { return Transfer::Unreadable };
    match exact::check(&payload, &requirements, evidence.verified_ms / 1000, SKEW_S) {
        Err(error) => Transfer::Broken(error),
        Ok(checked) if checked.recovered && checked.payer.is_some() => {
            Transfer::Signed(Box::new((checked, requirements)))
        }
        Ok(checked) => Transfer::Unproven(Box::new((checked, requirements))),
    }
}

/// What the facilitator was asked.
fn asked(evidence: &WalletEvidence) -> Option<(Payload, Requirements)> {
    let request: Value = serde_json::from_str(&evidence.request).ok()?;
    let version = match request.get("x402Version")?.as_u64()? {
        1 => Version::V1,
        2 => Version::V2,
        _ => return None,
    };
    let payload = Payload::from_json(request.get("paymentPayload")?.clone(), version).ok()?;
    Some((payload, Requirements::from_json(request.get("paymentRequirements")?, version)?))
}

pub(super) fn check(entry: &Entry<'_>, evidence: &WalletEvidence, checks: &mut Checks) {
    let same_request = entry.method == Some(&evidence.method) && entry.target.is_none_or(|t| t == evidence.target);
    let (ok, failed) = ("entry and evidence name the same request", "entry and evidence name different requests");
    checks.test("resource", same_request, ok, failed);
    match evidence.sealed_id {
        None => checks.skip("offer_id", "paid without an offer's id"),
        Some(id) => {
            let booked = Booked::parse(&evidence.target);
            seal(id, evidence.template_digest, &evidence.method, booked.as_ref(), checks);
        }
    }
    let (found, proven) = match transfer(evidence) {
        Transfer::Unreadable => return checks.test("transfer", false, "", "what was signed can't be read"),
        Transfer::Broken(error) => return checks.test("transfer", false, "", error.to_string()),
        Transfer::Unproven(found) => (found, false),
        Transfer::Signed(found) => (found, true),
    };
    let (checked, requirements) = *found;
    if proven {
        checks.test("transfer", true, "its signature recovers to the payer", "");
    } else {
        checks.unproven("transfer", "only the network tells who signed: a contract's signature, or Solana's");
    }
    match checked.payer {
        Some(payer) => {
            let is_named = entry.agent.to_ascii_lowercase().ends_with(&payer.to_string().to_ascii_lowercase());
            checks.test("payer", is_named, format!("{payer}"), format!("{payer} signed, {} is booked", entry.agent));
        }
        None => checks.skip("payer", "the transaction names it, which only the network reads"),
    }
    let holds = checked.key == entry.key.payment();
    checks.test("payment_key", holds, "it is made of what was signed", "it is that of another payment");
    amount(entry, &requirements, checks);
}

/// What was booked is what was signed; in `upto` no more.
fn amount(entry: &Entry<'_>, requirements: &Requirements, checks: &mut Checks) {
    let asset = Token::book_name(&requirements.network, &requirements.asset);
    if asset.as_str() != entry.asset {
        let detail = format!("{} is signed for, {} is booked", asset.as_str(), entry.asset);
        return checks.test("amount", false, "", detail);
    }
    let named = requirements.extra.get("decimals").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let decimals = assets::find_caip19(entry.asset).map(|token| token.decimals).or(named);
    let Some(decimals) = decimals else { return checks.skip("amount", "the token's decimals are not known") };
    let finer = decimals.saturating_sub(UNIT_DECIMALS_MAX);
    let signed = 10_u128.checked_pow(finer).map_or(0, |finer| requirements.amount / finer);
    let booked = u128::from(entry.amount.unsigned_abs());
    let holds = if requirements.scheme == "upto" { booked <= signed } else { booked == signed };
    let detail = format!("{booked} units booked, {signed} signed for");
    checks.test("amount", holds && entry.amount >= 0, detail.clone(), detail);
}
