//! `tollgate ledger report`

use clap::ValueEnum;
use serde_json::json;

use super::{Failure, Span, Where, amount, money, symbol};
use crate::agent::offer::shortened;
use crate::cli::Exit;
use crate::cli::output::{Paint, note, say, table};
use crate::ledger::day::day_text;
use crate::ledger::report::{By, Line};

/// Sums by day, account, agent, route, scheme or status.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A sum is of one asset: dollars and tokens are not added up. Days are book days, in the ledger's time zone. It takes as
long for many entries as for few.

Examples:
  tollgate ledger report                                         per day
  tollgate ledger report --by account --since 2026-11-01 --until 2026-12-01
  tollgate ledger report --by route --account example-crawler --json

With --json each line is an object of the form tollgate.report/1:
  schema       tollgate.report/1
  by, group    account, example-crawler; a day as 2026-11-24
  asset        USD, or a token's CAIP-19 name;  symbol: USDC, or null
  captures, voids, refunds                       counts
  captured, voided, refunded, net                decimal text, or null for tokens that are not known
  captured_units, voided_units, refunded_units, net_units    as text, in 10^-6 of the currency or 10^-decimals of a token")]
pub struct Report {
    #[command(flatten)]
    place: Where,
    /// What each line is about.
    #[arg(long, value_enum, default_value = "day")]
    by: ByName,
    #[command(flatten)]
    span: Span,
    /// Of this account only.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ByName {
    /// Book days.
    Day,
    /// Who owes.
    Account,
    /// Who signed or paid.
    Agent,
    /// What was sold.
    Route,
    /// How it was paid.
    Scheme,
    /// What became of it: captured, voided, refunded.
    Status,
}

impl ByName {
    fn by(self) -> By {
        match self {
            ByName::Day => By::Day,
            ByName::Account => By::Account,
            ByName::Agent => By::Agent,
            ByName::Route => By::Route,
            ByName::Scheme => By::Scheme,
            ByName::Status => By::Status,
        }
    }

    fn name(self) -> &'static str {
        match self {
            ByName::Day => "day",
            ByName::Account => "account",
            ByName::Agent => "agent",
            ByName::Route => "route",
            ByName::Scheme => "scheme",
            ByName::Status => "status",
        }
    }
}

impl Report {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let reader = self.place.open()?;
        let mut lines = reader.report(self.by.by(), self.span.days(), self.account.as_deref())?;
        if self.by == ByName::Day {
            for line in &mut lines {
                line.group = line.group.parse().map_or_else(|_| line.group.clone(), day_text);
            }
        }
        if self.json {
            say(&lines.iter().map(|line| format!("{}\n", self.line_json(line))).collect::<String>());
            return Ok(Exit::Done);
        }
        let zone = reader.zone()?;
        if lines.is_empty() {
            note(&format!("nothing was charged: {}", self.span.text(&zone)));
            return Ok(Exit::Done);
        }
        let header = [&*self.by.name().to_uppercase(), "CAPTURES", "CAPTURED", "VOIDED", "REFUNDED", "NET"];
        let mut cells = vec![header.map(str::to_owned).to_vec()];
        cells.extend(lines.iter().map(|line| {
            let sums = &line.sums;
            vec![
                shortened(&line.group),
                sums.captures.to_string(),
                money(sums.captured, &line.asset),
                money(sums.voided, &line.asset),
                money(sums.refunded, &line.asset),
                money(line.net(), &line.asset),
            ]
        }));
        let text = table(&cells);
        let (header, rest) = text.split_once('\n').unwrap_or((&text, ""));
        say(&format!("{}\n{}\n{rest}", self.span.text(&zone), Paint::stdout().bold(header)));
        Ok(Exit::Done)
    }

    fn line_json(&self, line: &Line) -> serde_json::Value {
        let (sums, asset) = (&line.sums, &*line.asset);
        json!({
            "schema": "tollgate.report/1",
            "by": self.by.name(),
            "group": line.group,
            "asset": asset,
            "symbol": symbol(asset),
            "captures": sums.captures,
            "voids": sums.voids,
            "refunds": sums.refunds,
            "captured": amount(sums.captured, asset),
            "voided": amount(sums.voided, asset),
            "refunded": amount(sums.refunded, asset),
            "net": amount(line.net(), asset),
            "captured_units": sums.captured.to_string(),
            "voided_units": sums.voided.to_string(),
            "refunded_units": sums.refunded.to_string(),
            "net_units": line.net().to_string(),
        })
    }
}
