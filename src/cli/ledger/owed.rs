//! `tollgate ledger list --state owed`: whom to give money back, should their answers never be fetched.

use serde_json::{Value, json};

use super::show::visible;
use super::{amount, money, symbol, time};
use crate::agent::offer::shortened;
use crate::cli::output::table;
use crate::ledger::owed::{Fetch, Owed};

pub(super) fn to_text(rows: &[Owed]) -> String {
    let header = ["ENTRY", "OWED SINCE", "AMOUNT", "FETCH", "PAYER", "TRANSACTION", "REQUEST"];
    let mut cells = vec![header.map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|owed| {
        vec![
            owed.n.to_string(),
            time(owed.since_ms),
            // What is still to be given back.
            money(owed.amount - owed.refunded, &owed.asset),
            fetch(owed).to_owned(),
            owed.payer.clone(),
            owed.transaction.as_deref().map_or_else(|| "-".to_owned(), visible),
            request(owed).map_or_else(|| "-".to_owned(), |request| shortened(&request)),
        ]
    }));
    table(&cells)
}

pub(super) fn to_json(owed: &Owed) -> Value {
    json!({
        "n": owed.n.to_string(),
        "payment": owed.key.to_string(),
        "payer": owed.payer,
        "network": owed.asset.split_once('/').map(|(network, _)| network),
        "asset": owed.asset,
        "symbol": symbol(&owed.asset),
        "amount": amount(owed.amount, &owed.asset),
        "units": owed.amount,
        "refunded": amount(owed.refunded, &owed.asset),
        "refunded_units": owed.refunded,
        "transaction": owed.transaction,
        "paid_at": time(owed.paid_ms),
        "owed_since": time(owed.since_ms),
        "route": owed.route,
        "request": request(owed),
        "fetch": fetch(owed),
    })
}

/// Whether its payer can still have the answer, and else why not.
fn fetch(owed: &Owed) -> &'static str {
    match owed.fetch {
        Fetch::Yes => "yes",
        Fetch::Lapsed => "no: lapsed",
        Fetch::Refunded => "no: refunded in part",
        Fetch::Version1 => "no: x402 v1",
        Fetch::Body => "no: body not read",
        Fetch::Dropped => "no: evidence dropped",
        Fetch::Expired => "no: expired",
    }
}

fn request(owed: &Owed) -> Option<String> {
    Some(format!("{} {}", owed.method.as_deref()?, owed.target.as_deref().unwrap_or("(target dropped)")))
}
