//! An account as its agent reads it.
//!
//! ```json
//! {"account":"acme","agent":"https://signer.example.com","blocked":false,
//!  "limits":[{"asset":"USD","period":"month","starts":"2026-11-01T00:00:00Z","ends":"2026-12-01T00:00:00Z",
//!             "limit":"100.00 USD","used":"0.01 USD","left":"99.99 USD"}],
//!  "entries":[{"n":"281474976710657","kind":"capture","at":"2026-11-24T12:00:00.000Z","amount":"0.01 USD","asset":"USD",
//!              "route":"/paid/*","method":"GET","target":"https://…/paid/a","scheme":"deferred","status":200,"of":null,
//!              "state":"delivered","delivery":"complete","dispute":null}],
//!  "statements":[{"number":1,"from":"2026-11-01","until":"2026-12-01","asset":"USD","gross":"0.01 USD",
//!                 "corrections":"0.00 USD","total":"0.01 USD","state":"sent"}],
//!  "next":"/.well-known/tollgate/account?limit=50&before=1.55"}
//! ```
//!
//! A balance that was paid in beforehand has no period: `{"asset":"prepaid:USD","left":"5.00 USD"}`.
//!
//! Numbers of entries are text: they are longer than what JSON readers keep exactly. `until` is the day after the last. `delivery`
//! is null while an answer is on its way, or where its end is not known near its charge.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::PATH;
use crate::config::{Account, Period};
use crate::ledger::correction::{self, text};
use crate::ledger::day::{self, day_text};
use crate::ledger::entry::Kind;
use crate::ledger::read::Listed;
use crate::ledger::statements::Statement;
use crate::ledger::store::Delivery;
use crate::ledger::view::{Cursor, PAGE_MAX, Question, View};
use crate::payment::reason::{Reason, Refusal};
use crate::proxy::gate::credit_period;
use crate::wire::amount::{Asset, Prepaid, Units};

/// Entries of a page where none are asked for.
const PAGE: usize = 50;

/// What a query asks for: `limit=100&before=1.55`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    before: Option<Cursor>,
    most: usize,
}

impl Asked {
    /// So many entries at most.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    pub(super) fn parse(query: &str) -> Result<Asked, Refusal> {
        let mut asked = Asked { before: None, most: PAGE };
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "before" => {
                    let wrong =
                        || Refusal::new(Reason::BadRequest, "`before` must be as `next` of an earlier page has it");
                    asked.before = Some(Cursor::parse(value).ok_or_else(wrong)?);
                }
                "limit" => {
                    let most = value.parse().ok().filter(|most| (1..=PAGE_MAX).contains(most));
                    let wrong = || Refusal::new(Reason::BadRequest, format!("`limit` must be from 1 to {PAGE_MAX}"));
                    asked.most = most.ok_or_else(wrong)?;
                }
                _ => return Err(Refusal::new(Reason::BadRequest, "the query may have `limit` and `before`")),
            }
        }
        Ok(asked)
    }
}

/// What to look up for it.
pub(super) fn question(account: &Account, agent: &str, asked: Asked, now_ms: u64) -> Question {
    let period = day::credit_period(credit_period(account.period), now_ms);
    let of = |fund: Fund| (fund.asset.to_string(), if fund.limit.is_some() { period } else { day::BALANCE });
    Question {
        account: account.name.to_string(),
        agent: agent.to_owned(),
        periods: funds(account).into_iter().map(of).collect(),
        before: asked.before,
        most: asked.most,
    }
}

/// What an account buys from.
struct Fund {
    asset: Asset,
    /// In each period; none of a balance.
    limit: Option<Units>,
}

/// In the order in which they are taken from.
fn funds(account: &Account) -> Vec<Fund> {
    let allowance = account.allowance.as_ref();
    let allowance = allowance.map(|allowance| Fund { asset: Asset::Requests, limit: Some(allowance.requests) });
    let currency = account.credit.currency;
    let money = if account.prepaid {
        Fund { asset: Asset::Prepaid(Prepaid::of(currency)), limit: None }
    } else {
        Fund { asset: currency.into(), limit: Some(account.limit()) }
    };
    allowance.into_iter().chain([money]).collect()
}

pub(super) fn to_json(account: &Account, agent: &str, (view, most): (&View, usize), now_ms: u64) -> Value {
    let period = credit_period(account.period);
    let second = |s: u64| Timestamp::from_second(s.cast_signed()).unwrap_or(Timestamp::MAX).to_string();
    let limits = funds(account).into_iter().zip(view.used.iter().copied().chain(std::iter::repeat(0)));
    let limits = limits.map(|(Fund { asset, limit }, used)| {
        let asset = asset.as_str();
        let Some(limit) = limit else { return json!({"asset": asset, "left": money(-used, asset)}) };
        json!({
            "asset": asset,
            "period": match account.period { Period::Day => "day", Period::Month => "month" },
            "starts": second(day::credit_period_start_s(period, now_ms)),
            "ends": second(day::credit_period_end_s(period, now_ms)),
            "limit": money(limit.get(), asset),
            "used": money(used, asset),
            "left": money(limit.get().saturating_sub(used).max(0), asset),
        })
    });
    let limits: Vec<Value> = limits.collect();
    json!({
        "account": &*account.name,
        "agent": agent,
        "blocked": account.blocked,
        "limits": limits,
        "entries": view.entries.iter().map(entry).collect::<Vec<_>>(),
        "statements": view.statements.iter().map(statement).collect::<Vec<_>>(),
        "next": view.next.as_ref().map(|next| format!("{PATH}?limit={most}&before={next}")),
    })
}

fn entry(row: &Listed) -> Value {
    let fate = row.fate.unwrap_or_default();
    let state = match row.kind {
        Kind::Capture => Some(fate.state().name()),
        _ => row.step,
    };
    let delivery = fate.outcome.map(|outcome| match outcome.delivery {
        Delivery::Complete => "complete",
        Delivery::ClientLeft => "client_left",
        Delivery::ClientStalled => "client_stalled",
        Delivery::OriginCut => "origin_cut",
        Delivery::NotSent => "not_sent",
    });
    json!({
        "n": row.n.to_string(),
        "kind": row.kind.name(),
        "at": Timestamp::from_millisecond(row.at_ms).unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        "amount": money(row.amount, &row.asset),
        "asset": row.asset,
        "route": row.route,
        "method": row.method,
        "target": row.target,
        "scheme": row.scheme,
        "status": row.status.filter(|status| *status != 0),
        "of": row.ref_n.map(|n| n.to_string()),
        "state": state,
        "delivery": delivery,
        "dispute": fate.dispute.map(correction::State::name),
    })
}

fn statement(statement: &Statement) -> Value {
    let Statement { number, asset, from_day, until, gross, corrections, total, state, .. } = statement;
    json!({
        "number": number,
        "from": day_text(*from_day),
        "until": day_text(*until),
        "asset": asset,
        "gross": money(*gross, asset),
        "corrections": money(*corrections, asset),
        "total": money(*total, asset),
        "state": state.name(),
    })
}

/// `0.01 USD`, `-0.01 USD`.
fn money(units: i64, asset: &str) -> String {
    let shown = text(units.saturating_abs(), asset);
    if units < 0 { format!("-{shown}") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_for_a_page() {
        let most = |query| Asked::parse(query).map(|asked| (asked.most, asked.before.map(|at| at.to_string())));
        assert_eq!(most(""), Ok((50, None)));
        assert_eq!(most("limit=100&before=1.55"), Ok((100, Some("1.55".to_owned()))));
        for query in
            ["limit=0", "limit=101", "limit=", "limit=-1", "before=", "before=x", "before=%31.5", "account=other", "a"]
        {
            assert_eq!(most(query).unwrap_err().reason, Reason::BadRequest, "{query}");
        }
    }

    #[test]
    fn what_was_given_back_is_below_nothing() {
        assert_eq!((money(10_000, "USD"), money(-10_000, "USD")), ("0.01 USD".to_owned(), "-0.01 USD".to_owned()));
    }
}
