//! `tollgate settle`

use serde_json::{Value, json};

use super::{Failure, LedgerReader, Where, amount, ended, in_full, money, owner, symbol};
use crate::agent::offer::shortened;
use crate::cli::Exit;
use crate::cli::output::{Paint, error, note, say, table};
use crate::clock::Clock;
use crate::ledger::closing::CloseError;
use crate::ledger::day::{BookZone, day_text, days_since_1970};
use crate::ledger::statements::Statement;

pub(in crate::cli) const EXAMPLES: &str = "\
Closes the book days before DAY, in the ledger's time zone, and makes a statement for each account and asset that had
anything in them. Nothing is posted in a closed day: what comes later, a refund of something sold before too, falls on the
next statement. Settling the same DAY twice changes nothing and prints the same.
A running gateway is told through its socket beside the ledger, which only its owner can use, and goes on selling; without
one the ledger is opened here. With a key of the gateway's own ([signing] key_file) the close is signed.

Examples:
  tollgate settle --until 2026-12-01                      everything up to and including November
  tollgate settle --until 2026-12-01 -c tollgate.toml --json

With --json an object a statement, of the form tollgate.statement/1:
  schema       tollgate.statement/1
  number, account, state                         state: closed, sent, paid, disputed
  from, until                                    book days; until is not included
  asset        USD, or a token's CAIP-19 name;   symbol: USDC, or null
  gross, corrections, total                      decimal text, or null for tokens that are not known
  gross_units, corrections_units, total_units    as text, in 10^-6 of the currency or 10^-decimals of a token
  head         of the ledger's chain, hex
What went wrong is said as text on standard error.

Exit codes: 0 closed, 1 closed already up to a later day, or not closed; 2 DAY has not begun; 3 the database can't be reached";

/// Close book days, and make statements of what is owed for them.
#[derive(Debug, clap::Args)]
pub struct Settle {
    #[command(flatten)]
    place: Where,
    /// The first day that stays open, today at the latest: 2026-12-01.
    #[arg(long, value_name = "DAY")]
    until: jiff::civil::Date,
    /// Print a JSON object a statement.
    #[arg(long)]
    json: bool,
}

impl Settle {
    pub(in crate::cli) fn run(self) -> Exit {
        ended(self.settle())
    }

    fn settle(&self) -> Result<Exit, Failure> {
        let (ledger, config) = self.place.location_and_config()?;
        let reader = LedgerReader::open(&ledger).map_err(Failure::Open)?;
        let zone = reader.zone()?;
        // The owner's clock decides; what this one knows to be wrong is not asked for.
        let (until, now_ms) = (days_since_1970(self.until), Clock::system().now_ms());
        if let Some(today) = BookZone::from_name(&zone).map(|zone| zone.book_day(now_ms, i64::MIN))
            && until > today
        {
            error(format_args!("--until: {}", CloseError::Future { today, until }));
            return Ok(Exit::Unusable);
        }
        let order = json!({"do": "settle", "until": self.until.to_string()});
        if let Err(reason) = owner::order(&ledger, &zone, config.as_ref(), &order) {
            error(reason);
            return Ok(Exit::Failed);
        }
        let mut statements = reader.statements(None)?;
        statements.retain(|statement| statement.until == until);
        if self.json {
            say(&statements.iter().map(|statement| format!("{}\n", to_json(statement))).collect::<String>());
            return Ok(Exit::Done);
        }
        let first = reader.close(until)?.map_or(until, |close| close.from_day);
        let days = span(first, until);
        if statements.is_empty() {
            note(&format!("closed {days}, days of {zone}: nothing was sold in them"));
            return Ok(Exit::Done);
        }
        say(&format!("closed {days}, days of {zone}\n{}", listing(&statements)));
        Ok(Exit::Done)
    }
}

/// A table of statements.
pub(super) fn listing(statements: &[Statement]) -> String {
    let header = ["NUMBER", "ACCOUNT", "FROM", "UNTIL", "GROSS", "CORRECTIONS", "TOTAL", "STATE"];
    let mut cells = vec![header.map(str::to_owned).to_vec()];
    cells.extend(statements.iter().map(|statement| {
        let asset = &*statement.asset;
        vec![
            statement.number.to_string(),
            shortened(&statement.account),
            day_text(statement.from_day),
            day_text(statement.until),
            money(statement.gross, asset),
            money(-statement.corrections, asset),
            money(statement.total, asset) + &in_full(asset),
            statement.state.name().to_owned(),
        ]
    }));
    let text = table(&cells);
    let (header, rest) = text.split_once('\n').unwrap_or((&text, ""));
    format!("{}\n{rest}", Paint::stdout().bold(header))
}

/// The members that every form of a statement has.
pub(super) fn to_json(statement: &Statement) -> Value {
    let asset = &*statement.asset;
    json!({
        "schema": "tollgate.statement/1",
        "number": statement.number,
        "account": statement.account,
        "state": statement.state.name(),
        "from": day_text(statement.from_day),
        "until": day_text(statement.until),
        "asset": asset,
        "symbol": symbol(asset),
        "gross": amount(statement.gross, asset),
        "corrections": amount(-statement.corrections, asset),
        "total": amount(statement.total, asset),
        "gross_units": statement.gross.to_string(),
        "corrections_units": (-statement.corrections).to_string(),
        "total_units": statement.total.to_string(),
        "head": super::hex(&statement.head),
    })
}

/// `2026-11-01 up to and including 2026-11-30`
pub(super) fn span(from_day: i64, until: i64) -> String {
    match until - from_day {
        ..=0 => format!("the days before {}", day_text(until)),
        1 => day_text(from_day),
        _ => format!("{} up to and including {}", day_text(from_day), day_text(until - 1)),
    }
}
