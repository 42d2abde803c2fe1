//! Payments whose settlement had no verdict, looked into without being asked. Where a node of the chain is configured, it
//! says whether the transfer took place; failed is only what is over and did not, at a block that can't be taken back. A
//! facilitator that is declared idempotent is told to settle once more, and only its success ends the payment.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use super::core_thread::Serving;
use crate::facilitator::chain::{Authorized, Fate, Node};
use crate::facilitator::{Facilitators, SettleOutcome, contradiction};
use crate::ledger::resolve::{Resolution, asked_amount, end, payer};
use crate::ledger::settling::Intent;
use crate::ledger::store::{Store, Unresolved};
use crate::wire::amount::Asset;
use crate::wire::evm::address::Address;
use crate::wire::evm::from_hex;
use crate::wire::x402::Version;
use crate::wire::x402::facilitator::SettleVerdict;
use crate::wire::x402::requirements::Requirements;

/// How often; a payment that stays unresolved is asked about half as often each time, down to every ten minutes.
const EVERY: Duration = Duration::from_secs(15);
const ROUNDS_MAX: u64 = 40;

/// Runs until it is dropped.
pub(super) async fn run(store: Arc<dyn Store>, serving: watch::Receiver<Serving>) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut round: u64 = 0;
    loop {
        every.tick().await;
        // What can't be asked now is asked the next time.
        let unresolved = store.unresolved().await.unwrap_or_default();
        if unresolved.is_empty() {
            round = 0;
            continue;
        }
        round += 1;
        // 1, 2, 4, 8, … and then each ROUNDS_MAX.
        if !round.is_power_of_two() && !round.is_multiple_of(ROUNDS_MAX) {
            continue;
        }
        let judges = {
            let serving = serving.borrow();
            Judges { facilitators: serving.shared.facilitators.clone(), nodes: serving.nodes.clone() }
        };
        for payment in unresolved {
            look_into(&*store, &judges, &payment).await;
        }
    }
}

async fn look_into(store: &dyn Store, judges: &Judges, payment: &Unresolved) {
    let key = payment.request.key;
    // Taken in hand for nothing, it would turn away its payer for a moment.
    if !judges.can_tell(payment) {
        return;
    }
    // In hand: the payer, should he come back meanwhile, waits.
    let Some(settling) = store.adopt(key).await else { return };
    let found = match judges.chain(payment).await {
        Some(resolution) => Some(resolution),
        None => judges.facilitator(payment).await,
    };
    let Some(resolution) = found else { return store.unknown(settling) };
    let moved = resolution.moved;
    match end(store, settling, &resolution).await {
        Ok(_) => tracing::info!(payment = %key, moved, by = resolution.by, "a payment is resolved"),
        Err(error) => tracing::warn!(payment = %key, %error, "a payment could not be resolved yet"),
    }
}

/// Whom to ask.
struct Judges {
    facilitators: Facilitators,
    nodes: Arc<Vec<(Asset, Node)>>,
}

impl Judges {
    /// Whether there is anybody to ask about a payment.
    fn can_tell(&self, payment: &Unresolved) -> bool {
        let has_node = self.nodes.iter().any(|(asset, _)| *asset == payment.request.asset);
        let facilitator = self.facilitators.find(&payment.intent.facilitator);
        has_node || facilitator.is_some_and(|facilitator| self.facilitators.idempotent(facilitator))
    }

    async fn chain(&self, payment: &Unresolved) -> Option<Resolution> {
        let (_, node) = self.nodes.iter().find(|(asset, _)| *asset == payment.request.asset)?;
        let resolution = |moved, transaction, reason: &str| {
            Some(Resolution { moved, transaction, by: "chain", reason: reason.to_owned(), not_before_ms: None })
        };
        match node.fate(&authorized(&payment.intent)?).await {
            Ok(Fate::Moved(transaction)) => resolution(true, transaction, "the transfer is final on the chain"),
            Ok(Fate::Expired) => {
                resolution(false, String::new(), "the authorisation ended unused, finally on the chain")
            }
            Ok(Fate::Open) => None,
            Ok(Fate::Unclear) => {
                let key = payment.request.key;
                tracing::warn!(payment = %key, "its nonce is used, but no transfer was found; `ledger resolve` ends it");
                None
            }
            Err(why) => {
                tracing::warn!(why, "a node could not be asked about a payment");
                None
            }
        }
    }

    async fn facilitator(&self, payment: &Unresolved) -> Option<Resolution> {
        let facilitator = self.facilitators.find(&payment.intent.facilitator)?;
        if !self.facilitators.idempotent(facilitator) {
            return None;
        }
        let body = Bytes::from(payment.intent.payload.clone());
        let SettleOutcome::Verdict(SettleVerdict::Success(settled), _) =
            self.facilitators.settle(facilitator, body).await
        else {
            return None;
        };
        let asked: Value = serde_json::from_slice(&payment.intent.payload).ok()?;
        let version = if asked["x402Version"] == 1 { Version::V1 } else { Version::V2 };
        let requirements = Requirements::from_json(&asked["paymentRequirements"], version)?;
        if let Some(what) = contradiction(&settled, &requirements, payer(&asked)) {
            let key = payment.request.key;
            tracing::error!(payment = %key, what, "the facilitator contradicts itself; `ledger resolve` ends it");
            return None;
        }
        Some(Resolution {
            moved: true,
            transaction: settled.transaction,
            by: "facilitator",
            reason: "settled, as the facilitator says when it is asked again".to_owned(),
            not_before_ms: None,
        })
    }
}

/// The transfer that was signed; `None` for other kinds of payments.
fn authorized(intent: &Intent) -> Option<Authorized> {
    let asked: Value = serde_json::from_slice(&intent.payload).ok()?;
    let text = |pointer: &str| asked.pointer(pointer).and_then(Value::as_str);
    let address = |pointer: &str| Address::parse(text(pointer)?).ok();
    Some(Authorized {
        token: address("/paymentRequirements/asset")?,
        from: address("/paymentPayload/payload/authorization/from")?,
        to: address("/paymentRequirements/payTo")?,
        value: asked_amount(intent)?.parse().ok()?,
        nonce: from_hex(text("/paymentPayload/payload/authorization/nonce")?)?.try_into().ok()?,
        valid_before_s: text("/paymentPayload/payload/authorization/validBefore")?.parse().ok()?,
    })
}
