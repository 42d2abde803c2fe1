//! Payments whose settlement had no verdict, looked into without being asked: a facilitator that is declared idempotent is
//! told to settle once more, which says what became of the first time. Only a success ends a payment here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::facilitator::{Facilitators, SettleOutcome};
use crate::ledger::resolve::{Resolution, asked_amount, end};
use crate::ledger::store::{Store, Unresolved};
use crate::wire::x402::facilitator::SettleVerdict;

/// How often; a payment that stays unresolved is asked about half as often each time, down to every ten minutes.
const EVERY: Duration = Duration::from_secs(15);
const ROUNDS_MAX: u64 = 40;

/// Runs until it is dropped.
pub(super) async fn run(store: Arc<dyn Store>, facilitators: Facilitators) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut round: u64 = 0;
    loop {
        every.tick().await;
        let unresolved = store.unresolved();
        if unresolved.is_empty() {
            round = 0;
            continue;
        }
        round += 1;
        // 1, 2, 4, 8, … and then each ROUNDS_MAX.
        if !round.is_power_of_two() && !round.is_multiple_of(ROUNDS_MAX) {
            continue;
        }
        for payment in unresolved {
            look_into(&*store, &facilitators, &payment).await;
        }
    }
}

async fn look_into(store: &dyn Store, facilitators: &Facilitators, payment: &Unresolved) {
    let key = payment.request.key;
    let Some(facilitator) = facilitators.find(&payment.intent.facilitator) else { return };
    if !facilitators.idempotent(facilitator) {
        return;
    }
    // In hand: the payer, should he come back meanwhile, waits.
    let Some(settling) = store.adopt(key) else { return };
    let body = Bytes::from(payment.intent.payload.clone());
    let SettleOutcome::Verdict(SettleVerdict::Success(settled), _) = facilitators.settle(facilitator, body).await
    else {
        return store.unknown(settling);
    };
    if settled.amount.is_some() && settled.amount != asked_amount(&payment.intent) {
        tracing::error!(payment = %key, "the facilitator says that it settled another amount; `ledger resolve` ends it");
        return store.unknown(settling);
    }
    let resolution = Resolution {
        moved: true,
        transaction: settled.transaction,
        by: "facilitator",
        reason: "settled, as the facilitator says when it is asked again".to_owned(),
    };
    match end(store, settling, &resolution).await {
        Ok(_) => tracing::info!(payment = %key, "a payment is resolved: money had moved, its answer is owed"),
        Err(error) => tracing::warn!(payment = %key, %error, "a payment that moved money could not be resolved yet"),
    }
}
