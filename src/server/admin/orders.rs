//! What the owner of a ledger can ask of it, as JSON.
//!
//! ```text
//! {"do":"resolve","payment":"03…","moved":true,"transaction":"0x…","reason":"…"}  ->  {"n":"281474976710657"}
//! {"do":"settle","until":"2026-12-01"}                                            ->  {"until":"2026-12-01"}
//! {"do":"mark","number":3,"state":"sent","reason":"by mail"}                      ->  {"number":3,"state":"sent"}
//! {"do":"archive","file":"/…/november.jsonl","drop":"rows"}                        ->  {"entries":1200}
//! {"do":"drop","most":1000}                                                       ->  {"dropped":1000}, 0 when nothing is left
//! {"do":"void" …}, {"do":"refund" …}, {"do":"dispute" …}                          ->  see `corrections`
//! {"do":"topup","account":"acme","amount":"50 USD","back":false,"reference":"…"}  ->  {"n":"…","balance":50000000,"posted":true}
//! anything that is refused                                                        ->  {"error":"…"}
//! ```

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::corrections;
use crate::config::Config;
use crate::ledger::archive::{self, Drops};
use crate::ledger::correction::Rules;
use crate::ledger::day::{day_text, days_since_1970};
use crate::ledger::ledger_store::LedgerStore;
use crate::ledger::resolve::{Resolution, resolve};
use crate::ledger::statements::{Mark, StatementState};
use crate::ledger::top_up::{TopUp, Way};
use crate::payment::gateway_key::GatewayKey;
use crate::payment::key::PaymentKey;
use crate::wire::amount::Money;

/// Does what an order says, through the ledger's writer. `key` signs what is signed.
///
/// # Errors
/// Says why not; nothing has changed, or it says what is not known.
pub async fn carry_out(
    order: &Value,
    store: &LedgerStore,
    key: Option<Arc<GatewayKey>>,
    config: Option<&Config>,
) -> Result<Value, String> {
    match order["do"].as_str() {
        Some("resolve") => end_payment(order, store).await,
        Some("settle") => settle(order, store, key).await,
        Some("mark") => mark(order, store).await,
        Some("void") => corrections::void(order, store).await,
        Some("refund") => corrections::refund(order, store).await,
        Some("dispute") => corrections::dispute(order, store).await,
        Some("topup") => top_up(order, store, config).await,
        Some("archive") => archive(order, store).await,
        Some("drop") => {
            let most =
                order["most"].as_i64().filter(|most| *most > 0).ok_or("expected `most` to be a number over 0")?;
            Ok(json!({"dropped": store.drop_archived(most).await.map_err(|e| e.to_string())?}))
        }
        _ => Err("expected `do` to be `resolve`, `settle`, `mark`, `archive`, `drop`, `void`, `refund`, `dispute` or `topup`"
            .to_owned()),
    }
}

/// What a configuration says about corrections.
pub fn ledger_rules(config: &Config) -> Rules {
    let ledger = &config.ledger;
    Rules { dispute_days: ledger.dispute_days, voids_per_day: ledger.voids_per_day, keep_targets: ledger.keep_targets }
}

pub(super) fn text(order: &Value, name: &str) -> String {
    order[name].as_str().unwrap_or_default().to_owned()
}

async fn end_payment(order: &Value, store: &LedgerStore) -> Result<Value, String> {
    let now_ms = store.now_ms();
    let key = PaymentKey::from_hex(&text(order, "payment")).ok_or("expected `payment` to be a payment key in hex")?;
    let moved = order["moved"].as_bool().ok_or("expected `moved` to be true or false")?;
    let resolution = Resolution {
        moved,
        transaction: text(order, "transaction"),
        by: "operator",
        reason: text(order, "reason"),
        not_before_ms: (order["force"] != true).then_some(now_ms),
    };
    let receipt = resolve(store, key, &resolution).await.map_err(|e| e.to_string())?;
    tracing::info!(payment = %key, moved, n = receipt.n, "the operator resolved a payment");
    Ok(json!({"n": receipt.n.to_string()}))
}

async fn settle(order: &Value, store: &LedgerStore, key: Option<Arc<GatewayKey>>) -> Result<Value, String> {
    let until: jiff::civil::Date =
        text(order, "until").parse().map_err(|_| "expected `until` to be a day, 2026-12-01")?;
    let close = store.close_days(days_since_1970(until), key).await.map_err(|e| e.to_string())?;
    tracing::info!(%until, "the operator closed the days before");
    Ok(json!({"until": day_text(close.until)}))
}

async fn mark(order: &Value, store: &LedgerStore) -> Result<Value, String> {
    let number = order["number"].as_i64().ok_or("expected `number` to be a statement's number")?;
    let state = StatementState::from_name(&text(order, "state"));
    let state = state.ok_or("expected `state` to be `sent`, `paid` or `disputed`")?;
    let mark = Mark { number, state, reason: text(order, "reason") };
    store.mark(mark).await.map_err(|e| e.to_string())?;
    tracing::info!(number, state = state.name(), "the operator marked a statement");
    Ok(json!({"number": number, "state": state.name()}))
}

/// Whether a transfer fits the accounts of a configuration: a slip of the pen would be money that nobody can spend. What is left can
/// be paid back whatever has become of its account.
///
/// # Errors
/// Says what does not fit.
pub fn fits(config: &Config, account: &str, money: Money, back: bool) -> Result<(), String> {
    let found = config.accounts.iter().find(|found| *found.name == *account);
    match found {
        _ if back => Ok(()),
        None => Err(format!("no account of the configuration has the name `{}`", account.escape_debug())),
        Some(found) if !found.prepaid => {
            let help = "write `prepaid` instead of `credit` first";
            Err(format!("the account `{account}` has no balance, it buys on credit: {help}"))
        }
        Some(found) if found.credit.currency != money.currency => {
            Err(format!("the account `{account}` counts in {}, not in {}", found.credit.currency, money.currency))
        }
        Some(_) => Ok(()),
    }
}

async fn top_up(order: &Value, store: &LedgerStore, config: Option<&Config>) -> Result<Value, String> {
    let money = Money::parse(&text(order, "amount")).map_err(|e| e.to_string())?;
    let way = if order["back"] == true { Way::Back } else { Way::In };
    let config = config.ok_or("which accounts have a balance stands in the configuration: name it with -c")?;
    fits(config, &text(order, "account"), money, way == Way::Back)?;
    let (account, reference, reason) = (text(order, "account"), text(order, "reference"), text(order, "reason"));
    let top_up = TopUp { account: account.into(), money, way, reference, reason };
    let done = store.top_up(top_up).await.map_err(|e| e.to_string())?;
    Ok(json!({"n": done.n.to_string(), "balance": done.balance, "posted": !done.was}))
}

/// Whoever orders it has read the archive through; here its end is enough, which has what the ledger keeps of it.
async fn archive(order: &Value, store: &LedgerStore) -> Result<Value, String> {
    let drops = Drops::from_name(&text(order, "drop")).filter(|drops| *drops != Drops::Nothing);
    let drops = drops.ok_or("expected `drop` to be `evidence` or `rows`")?;
    let file = text(order, "file");
    let summary = archive::read::summary(Path::new(&file)).map_err(|e| e.to_string())?;
    let entries = summary.entries();
    store.note_archive(summary, drops).await.map_err(|e| e.to_string())?;
    tracing::info!(file, entries, drop = drops.name(), "the operator archived closed days");
    Ok(json!({"entries": entries}))
}
