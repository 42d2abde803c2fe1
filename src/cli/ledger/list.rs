//! `tollgate ledger list`

use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use serde_json::{Value, json};

use super::{Failure, Where, amount, delivery, hex, money, owed, symbol, time};
use crate::agent::offer::shortened;
use crate::cli::Exit;
use crate::cli::output::{Paint, note, say, table};
use crate::clock::Clock;
use crate::ledger::correction;
use crate::ledger::read::{Filter, Listed, State};
use crate::ledger::resolve::Open;

/// List what was paid, newest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate ledger list
  tollgate ledger list --since 24h --account example-crawler
  tollgate ledger list --state unproven            charged, and no word yet of what became of the answer
  tollgate ledger list --state unresolved          sent to be settled, and no word whether money moved
  tollgate ledger list --state owed                money moved and nobody got the answer: whom to refund
  tollgate ledger list --state disputed            contested, and waiting for your word
  tollgate ledger list --state cut                 cut off or not sent, and charged all the same
  tollgate ledger list --json --limit 0 | jq -r 'select(.kind == \"capture\") | [.at, .account, .amount] | @tsv'

With --json each line is an object. Text, or null where an entry has none:
  n            the entry's number; as text, since JSON readers round numbers of this size
  ref          the number of the capture that the entry is about
  kind, at (2026-11-24T12:00:00.000Z), account, agent, route, scheme, asset, method, target
  symbol       of a known token, USDC
  amount       decimal, 0.01; null for tokens that are not known
  key          the payment's key, hex
  state        delivered, unproven, voided, owed or refunded (all of it) of a capture; sent, done or failed of a posting about a
               refund; open, upheld or rejected of one about a dispute
  dispute      what the last dispute of a capture is
  refunded     what was given back of a capture, decimal
Numbers, or null:
  units        the amount in millionths of the currency; of a token in 10^-decimals, at most 10^-9
  status       the origin's; 0 where it was settled before the origin was asked
And outcome    null, or {delivery (text), bytes, ms (numbers)}

With --state owed and --json: n, payment, payer, network, asset, symbol, amount, units, refunded, refunded_units, transaction,
paid_at, owed_since, route, request, fetch. The last says whether the payer may still have the answer by sending the same request again:
  yes                 once, in one of three turns; give it some time before you refund
  no: lapsed          the turns are over, and the payer was told to ask you for a refund
  no: refunded in part
  no: x402 v1         anybody could copy such a payment from the chain
  no: body not read   the request's body had not ended when it was paid, so that no other can be told to be the same
  no: evidence dropped, no: expired      older than what the books keep, or remember of payments")]
pub struct List {
    #[command(flatten)]
    place: Where,
    /// At most so many; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// None before: a time (2026-11-24T12:00:00Z), a day in UTC (2026-11-24), or an age (90m, 24h, 7d).
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<u64>,
    /// Of this account only.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Charges in this state only.
    #[arg(long)]
    state: Option<StateName>,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateName {
    /// Charged, and it is known what became of the answer.
    Delivered,
    /// Charged, and it is not known.
    Unproven,
    /// Charged and given back.
    Voided,
    /// Sent to be settled, and it is not known whether money moved; not charged yet.
    Unresolved,
    /// Charged, money moved, and nobody got the answer.
    Owed,
    /// Charged, money moved, and all of it was given back.
    Refunded,
    /// Contested, and not decided.
    Disputed,
    /// Charged, although the origin cut the answer off or nothing was sent: the client's side had held it up, or the account has no
    /// voids left that day (ledger.voids_per_day).
    Cut,
}

impl List {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if matches!(self.state, Some(StateName::Unresolved)) {
            return self.unresolved();
        }
        if matches!(self.state, Some(StateName::Owed)) {
            return self.owed();
        }
        let limit = if self.limit == 0 { usize::MAX - 1 } else { self.limit };
        let filter = Filter {
            // One more, to tell whether there is more.
            limit: limit + 1,
            since_ms: self.since,
            account: self.account,
            state: self.state.and_then(|state| match state {
                StateName::Delivered => Some(State::Delivered),
                StateName::Unproven => Some(State::Unproven),
                StateName::Voided => Some(State::Voided),
                StateName::Refunded => Some(State::Refunded),
                StateName::Disputed => Some(State::Disputed),
                StateName::Cut => Some(State::Cut),
                StateName::Unresolved | StateName::Owed => None,
            }),
        };
        let mut rows = self.place.open()?.list(&filter)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        if self.json {
            say(&rows.iter().map(|row| format!("{}\n", row_json(row))).collect::<String>());
        } else if rows.is_empty() {
            note("no entries");
        } else {
            say(&listing(&rows, Paint::stdout()));
        }
        if more {
            note(&format!("there are more than {limit}; --limit shows more, --limit 0 all"));
        }
        Ok(Exit::Done)
    }
}

impl List {
    /// What to refund, as far as nobody fetches it.
    fn owed(&self) -> Result<Exit, Failure> {
        let mut rows = self.place.open()?.owed()?;
        rows.retain(|owed| {
            self.since.is_none_or(|since| owed.since_ms.unsigned_abs() >= since)
                && self.account.as_deref().is_none_or(|account| account == owed.account)
        });
        let more = self.limit != 0 && rows.len() > self.limit;
        if more {
            rows.truncate(self.limit);
        }
        if self.json {
            say(&rows.iter().map(|row| format!("{}\n", owed::to_json(row))).collect::<String>());
        } else if rows.is_empty() {
            note("nobody is owed an answer");
        } else {
            say(&owed::to_text(&rows));
        }
        if more {
            note(&format!("there are more than {}; --limit shows more, --limit 0 all", self.limit));
        }
        Ok(Exit::Done)
    }

    /// Those are no entries: what is listed is the intents without an end.
    fn unresolved(&self) -> Result<Exit, Failure> {
        let rows = self.place.open()?.unresolved()?;
        if self.json {
            let line = |open: &Open| {
                json!({"payment": open.key.to_string(), "agent": &*open.agent, "request": open.what, "asset": open.asset,
                    "amount": amount(open.amount, &open.asset), "units": open.amount, "facilitator": &*open.facilitator,
                    "valid_until": time(i64::try_from(open.hard_until_ms).unwrap_or(i64::MAX))})
            };
            say(&rows.iter().map(|open| format!("{}\n", line(open))).collect::<String>());
            return Ok(Exit::Done);
        }
        if rows.is_empty() {
            note("no payment is unresolved");
            return Ok(Exit::Done);
        }
        let header = ["PAYMENT", "VALID UNTIL", "AMOUNT", "PAYER", "FACILITATOR", "REQUEST"];
        let mut cells = vec![header.map(str::to_owned).to_vec()];
        cells.extend(rows.iter().map(|open| {
            vec![
                open.key.to_string(),
                time(i64::try_from(open.hard_until_ms).unwrap_or(i64::MAX)),
                money(open.amount, &open.asset),
                open.agent.to_string(),
                open.facilitator.to_string(),
                shortened(&open.what),
            ]
        }));
        say(&table(&cells));
        Ok(Exit::Done)
    }
}

/// Rows as a table with its header.
pub fn listing(rows: &[Listed], paint: Paint) -> String {
    let header = ["ENTRY", "TIME", "KIND", "AMOUNT", "ACCOUNT", "STATE", "STATUS", "REQUEST"];
    let mut cells = vec![header.map(str::to_owned).to_vec()];
    for row in rows {
        let request = match (&row.method, &row.target, row.ref_n) {
            (Some(method), Some(target), _) => format!("{method} {}", shortened(target)),
            (Some(method), None, _) => format!("{method} (target dropped)"),
            (None, _, Some(capture)) => format!("of {capture}"),
            (None, _, None) => "-".to_owned(),
        };
        cells.push(vec![
            row.n.to_string(),
            time(row.at_ms),
            row.kind.name().to_owned(),
            money(row.amount, &row.asset),
            shortened(&row.account),
            state_text(row),
            // Settled before the origin was asked: none yet.
            row.status.filter(|status| *status != 0).map_or_else(|| "-".to_owned(), |status| status.to_string()),
            request,
        ]);
    }
    let text = table(&cells);
    match text.split_once('\n') {
        Some((header, rest)) => format!("{}\n{rest}", paint.bold(header)),
        None => text,
    }
}

/// A row as the object of `--json`.
pub fn row_json(row: &Listed) -> Value {
    let outcome = row.fate.and_then(|fate| fate.outcome);
    json!({
        "n": row.n.to_string(),
        "kind": row.kind.name(),
        "at": time(row.at_ms),
        "account": row.account,
        "agent": row.agent,
        "route": row.route,
        "scheme": row.scheme,
        "asset": row.asset,
        "symbol": symbol(&row.asset),
        "amount": amount(row.amount, &row.asset),
        "units": row.amount,
        "status": row.status,
        "method": row.method,
        "target": row.target,
        "key": hex(row.payment.as_bytes()),
        "ref": row.ref_n.map(|n| n.to_string()),
        "state": state(row),
        "dispute": row.fate.and_then(|fate| fate.dispute).map(correction::State::name),
        "refunded": row.fate.filter(|fate| fate.refunded > 0).and_then(|fate| amount(fate.refunded, &row.asset)),
        "outcome": outcome.map(|outcome| json!({
            "delivery": delivery(outcome.delivery), "bytes": outcome.bytes, "ms": outcome.ms,
        })),
    })
}

/// What became of a capture, or what a refund, a dispute or a top-up is; `None` for other kinds.
pub fn state(row: &Listed) -> Option<&'static str> {
    let Some(fate) = row.fate else { return row.step };
    Some(fate.state().name())
}

/// The same with what else is open.
fn state_text(row: &Listed) -> String {
    let text = state(row).unwrap_or("-");
    let disputed = row.fate.is_some_and(|fate| fate.is(State::Disputed));
    if disputed { format!("{text}, disputed") } else { text.to_owned() }
}

fn since(text: &str) -> Result<u64, String> {
    since_at(text, Clock::system().wall_ms())
}

/// Unix ms of a time, a day or an age before `now_ms`.
fn since_at(text: &str, now_ms: u64) -> Result<u64, String> {
    let ms = |at: Timestamp| u64::try_from(at.as_millisecond()).unwrap_or(0);
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(ms(at));
    }
    if let Ok(day) = text.parse::<Date>()
        && let Ok(start) = TimeZone::UTC.to_timestamp(day.to_datetime(jiff::civil::Time::midnight()))
    {
        return Ok(ms(start));
    }
    let age = text.char_indices().next_back().and_then(|(last, unit)| {
        let hours = match unit {
            'm' => SignedDuration::from_mins(1),
            'h' => SignedDuration::from_hours(1),
            'd' => SignedDuration::from_hours(24),
            _ => return None,
        };
        let count: i32 = text[..last].parse().ok().filter(|count| *count >= 0)?;
        hours.checked_mul(count)?.as_millis().try_into().ok()
    });
    let expected = "expected 2026-11-24T12:00:00Z, 2026-11-24, or an age such as 90m, 24h or 7d";
    age.map(|age: u64| now_ms.saturating_sub(age)).ok_or_else(|| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_a_day_or_an_age() {
        let now = 1_800_000_000_000;
        for (text, expect) in [
            ("2026-11-24T12:00:00Z", Some(1_795_521_600_000)),
            ("2026-11-24T13:00:00+01:00", Some(1_795_521_600_000)),
            ("2026-11-24", Some(1_795_478_400_000)),
            ("90m", Some(now - 5_400_000)),
            ("24h", Some(now - 86_400_000)),
            ("7d", Some(now - 604_800_000)),
            ("1969-01-01", Some(0)),
            ("-1h", None),
            ("h", None),
            ("", None),
            ("1é", None),
            ("yesterday", None),
        ] {
            assert_eq!(since_at(text, now).ok(), expect, "{text}");
        }
    }

    #[test]
    fn amounts_are_exact_text() {
        let usdc = "eip155:84532/erc20:0x036cbd53842c5426634e7929541ec2318f3dcf7e";
        for (units, asset, text, with) in [
            (10_000, "USD", Some("0.01"), "0.01 USD"),
            (1, "USD", Some("0.000001"), "0.000001 USD"),
            (5_000_000, "JPY", Some("5"), "5 JPY"),
            (10_000, usdc, Some("0.01"), "0.01 USDC"),
            (1, usdc, Some("0.000001"), "0.000001 USDC"),
            (12_500_000, usdc, Some("12.50"), "12.50 USDC"),
            (7, "eip155:1/erc20:0xabc", None, "7 units of eip155:1/erc20:0xabc"),
            (7, "0xabc", None, "7 units of 0xabc"),
        ] {
            assert_eq!((amount(units, asset).as_deref(), money(units, asset).as_str()), (text, with));
        }
    }
}
