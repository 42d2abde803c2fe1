//! Orders about what was charged.
//!
//! ```text
//! {"do":"void","entries":["281474976710657"],"reason":"…","unproven_since":{"1":12}}
//!     -> {"answers":[{"entry":"…","void":"…","units":10000,"asset":"USD"}, {"entry":"…","error":"…","left":true}]}
//! {"do":"refund","entry":"…","reference":"…","units":4000,"reason":"…","state":"sent"}
//!     -> {"n":"…","number":1,"state":"sent","units":4000,"asset":"…","posted":true}
//! {"do":"dispute","entry":"…","reason":"…"}                   -> {"n":"…","number":1,"state":"open", …}
//! {"do":"dispute","entry":"…","end":"upheld","reason":"…"}    -> {"n":"…","number":1,"state":"upheld","void":"…", …}
//! ```
//!
//! `unproven_since` (the last batch of each writer), `units` and `state` may be absent. `left`: it became known meanwhile what became of the answer.

use serde_json::{Value, json};

use super::orders::text;
use crate::ledger::correction::{Seen, State};
use crate::ledger::ledger_store::LedgerStore;
use crate::ledger::store::{By, CorrectError, Corrected, Order, Store as _, What};
use crate::wire::amount::Units;

pub(super) async fn void(order: &Value, store: &LedgerStore) -> Result<Value, String> {
    let seen = |(slot, batch): (&String, &Value)| Some((slot.parse().ok()?, batch.as_i64()?));
    let unproven_since = match &order["unproven_since"] {
        Value::Object(batches) => {
            let seen: Option<Seen> = batches.iter().map(seen).collect();
            Some(seen.ok_or("expected `unproven_since` to have a batch for each writer")?)
        }
        _ => None,
    };
    let entries = order["entries"].as_array().map_or(&[][..], |entries| entries);
    let numbers: Option<Vec<i64>> = entries.iter().map(|entry| entry.as_str()?.parse().ok()).collect();
    let numbers = numbers.ok_or("expected `entries` to be a list of entries' numbers")?;
    let (what, reason) = (What::Void { unproven_since }, text(order, "reason"));
    let of = |n: &i64| Order { n: *n, what: what.clone(), reason: reason.clone(), by: By::Operator };
    let results = post(store, numbers.iter().map(of).collect()).await?;
    let voided = results.iter().filter(|result| result.is_ok()).count();
    if voided > 0 {
        tracing::info!(voided, reason, "the operator voided charges");
    }
    let answers = numbers.iter().zip(results).map(|(n, result)| match result {
        Ok(done) => {
            json!({"entry": n.to_string(), "void": done.n.to_string(), "units": done.amount, "asset": done.asset})
        }
        Err(error) => {
            let left = matches!(error, CorrectError::Proven(_) | CorrectError::OnItsWay(_));
            json!({"entry": n.to_string(), "error": error.to_string(), "left": left})
        }
    });
    Ok(json!({"answers": answers.collect::<Vec<_>>()}))
}

pub(super) async fn refund(order: &Value, store: &LedgerStore) -> Result<Value, String> {
    let amount = match &order["units"] {
        Value::Null => None,
        units => Some(units.as_i64().and_then(Units::new).ok_or("expected `units` to be a count of ledger units")?),
    };
    let state = match &order["state"] {
        Value::Null => None,
        name => {
            let known = [State::Sent, State::Done, State::Failed];
            let state = known.into_iter().find(|state| name == state.name());
            Some(state.ok_or("expected `state` to be `sent`, `done` or `failed`")?)
        }
    };
    one(order, What::Refund { reference: text(order, "reference"), amount, state }, store).await
}

pub(super) async fn dispute(order: &Value, store: &LedgerStore) -> Result<Value, String> {
    let what = match order["end"].as_str() {
        None => What::Dispute,
        Some("upheld") => What::Uphold,
        Some("rejected") => What::Reject,
        Some(_) => return Err("expected `end` to be `upheld` or `rejected`".to_owned()),
    };
    one(order, what, store).await
}

async fn one(order: &Value, what: What, store: &LedgerStore) -> Result<Value, String> {
    let n = text(order, "entry").parse().map_err(|_| "expected `entry` to be an entry's number")?;
    let order = Order { n, what, reason: text(order, "reason"), by: By::Operator };
    let results = post(store, vec![order]).await?;
    let done = results.into_iter().next().ok_or("nothing was ordered")?.map_err(|e| e.to_string())?;
    let Corrected { number, amount, ref asset, at_once, .. } = done;
    let state = done.state.map(State::name);
    if !done.was {
        tracing::info!(entry = n, n = done.n, number, state, "the operator noted a refund or a dispute");
    }
    Ok(json!({"n": done.n.to_string(), "number": number, "state": state, "units": amount, "asset": asset,
        "void": done.void_n.map(|n| n.to_string()), "at_once": at_once, "posted": !done.was}))
}

async fn post(store: &LedgerStore, orders: Vec<Order>) -> Result<Vec<Result<Corrected, CorrectError>>, String> {
    let results = store.correct(orders).await;
    results.map_err(|unavailable| format!("{unavailable}; look at the entry before you order it again"))
}
