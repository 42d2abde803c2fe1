//! `tollgate ledger void`

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::correction::{missing, refused};
use super::progress::Progress;
use super::{Failure, LedgerReader, Where, amount, money, owner, symbol};
use crate::cli::Exit;
use crate::cli::output::{counted, error, note, say};
use crate::ledger::day::days_since_1970;
use crate::ledger::entry::is_settled_at_once;
use crate::ledger::read::{Filter, Listed, State};

/// Entries in one order: a line of JSON has an end.
const AT_ONCE: usize = 100;

/// Take charges on credit back.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For `deferred`, `batch-settlement` and pay per crawl. The account has its credit back at once, in the gateway that runs too; the
payment stays spent. A charge of a day that is closed corrects the next statement. A payment that was settled when it was bought
can't be voided: send the money back, and note it with `ledger refund`.
With --unproven: all charges of which nobody knows whether their answers left, because a gateway died over them. Those whose
answers are on their way, or became known meanwhile, are left.

Examples:
  tollgate ledger void 281474976710657 281474976710660 --reason \"wrong page\"
  tollgate ledger list --state unproven
  tollgate ledger void --unproven --account example-crawler --before 2026-11-24 --dry-run
  tollgate ledger void --unproven --reason \"power cut of 23 November\"

With --json an object a charge: entry, void (the posting, null with --dry-run), amount, units, asset, symbol; or entry and error.
Exit codes: 0 all voided; 1 some were refused; 2 bad usage; 5 no such entry.")]
pub struct Void {
    #[command(flatten)]
    place: Where,
    /// Which charges: their numbers, their payments' keys in hex, or the ids of their offers.
    #[arg(value_name = "ID", required_unless_present = "unproven", conflicts_with = "unproven")]
    ids: Vec<String>,
    /// Why, for whoever reads the books later.
    #[arg(long, value_name = "TEXT", value_parser = super::line, required_unless_present = "unproven")]
    reason: Option<String>,
    /// All charges on credit of which nobody knows whether their answers left.
    #[arg(long)]
    unproven: bool,
    /// Of this account only.
    #[arg(long, value_name = "NAME", requires = "unproven")]
    account: Option<String>,
    /// Of earlier book days only: 2026-11-24.
    #[arg(long, value_name = "DAY", requires = "unproven")]
    before: Option<jiff::civil::Date>,
    /// Say what would be voided.
    #[arg(long, requires = "unproven")]
    dry_run: bool,
    /// Print a JSON object a charge.
    #[arg(long)]
    json: bool,
}

impl Void {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (ledger, config) = self.place.location_and_config()?;
        let reader = LedgerReader::open(&ledger).map_err(Failure::Open)?;
        // Before the look: what becomes known after it is told apart.
        let seen = self.unproven.then(|| reader.last_batches()).transpose()?;
        let rows = if self.unproven { self.unproven(&reader)? } else { Vec::new() };
        if self.dry_run {
            self.would(&rows);
            return Ok(Exit::Done);
        }
        let mut numbers: Vec<i64> = rows.iter().rev().map(|row| row.n).collect();
        for id in &self.ids {
            let Some(shown) = reader.show(id)? else {
                missing(id);
                return Ok(Exit::NotFound);
            };
            if !numbers.contains(&shown.listed.n) {
                numbers.push(shown.listed.n);
            }
        }
        let zone = reader.zone()?;
        let reason = self.reason.as_deref().unwrap_or("unproven");
        let mut progress = Progress::new("charges");
        let mut tally = Tally::default();
        for part in numbers.chunks(AT_ONCE) {
            let entries: Vec<String> = part.iter().map(i64::to_string).collect();
            let order = json!({"do": "void", "entries": entries, "reason": reason, "unproven_since": seen});
            let answer = match owner::order(&ledger, &zone, config.as_ref(), &order) {
                Ok(answer) => answer,
                Err(why) => {
                    progress.end();
                    tally.end(self.json);
                    return Ok(refused(&why));
                }
            };
            answer["answers"].as_array().into_iter().flatten().for_each(|answer| tally.add(answer, self.json));
            progress.step(tally.seen, numbers.len() as u64);
        }
        progress.end();
        tally.end(self.json);
        Ok(if tally.refused > 0 { Exit::Failed } else { Exit::Done })
    }

    /// What may be voided as unproven, newest first.
    fn unproven(&self, reader: &LedgerReader) -> Result<Vec<Listed>, Failure> {
        let filter =
            Filter { limit: usize::MAX, since_ms: None, account: self.account.clone(), state: Some(State::Unproven) };
        let before = self.before.map_or(i64::MAX, days_since_1970);
        let mut rows = reader.list(&filter)?;
        rows.retain(|row| !is_settled_at_once(&row.scheme) && row.book_day < before);
        Ok(rows)
    }

    fn would(&self, rows: &[Listed]) {
        let mut tally = Tally { would: true, ..Tally::default() };
        for row in rows.iter().rev() {
            let (entry, void) = (row.n.to_string(), Value::Null);
            tally.add(&json!({"entry": entry, "void": void, "units": row.amount, "asset": row.asset}), self.json);
        }
        tally.end(self.json);
    }
}

/// What became of the charges.
#[derive(Default)]
struct Tally {
    seen: u64,
    voided: u64,
    refused: u64,
    left: u64,
    sums: BTreeMap<String, i64>,
    would: bool,
}

impl Tally {
    fn add(&mut self, answer: &Value, json: bool) {
        self.seen += 1;
        if let Some(why) = answer["error"].as_str() {
            let left = answer["left"] == true;
            if left {
                self.left += 1
            } else {
                self.refused += 1
            }
            match (json, left) {
                (true, _) => say(&format!("{}\n", json!({"entry": answer["entry"], "error": why}))),
                (false, false) => error(why),
                (false, true) => {}
            }
            return;
        }
        let (asset, units) =
            (answer["asset"].as_str().unwrap_or_default(), answer["units"].as_i64().unwrap_or_default());
        self.voided += 1;
        let sum = self.sums.entry(asset.to_owned()).or_default();
        *sum = sum.saturating_add(units);
        if json {
            let object = json!({"entry": answer["entry"], "void": answer["void"], "amount": amount(units, asset),
                "units": units, "asset": asset, "symbol": symbol(asset)});
            say(&format!("{object}\n"));
        } else if self.would {
            say(&format!("{}  {}\n", answer["entry"].as_str().unwrap_or_default(), money(units, asset)));
        }
    }

    fn end(&self, json: bool) {
        if self.left > 0 {
            note(&format!(
                "{} left: their answers are on their way, or known by now",
                counted(self.left, "charge", "charges")
            ));
        }
        if json {
            return;
        }
        let sums: Vec<String> = self.sums.iter().map(|(asset, units)| money(*units, asset)).collect();
        let sums = if sums.is_empty() { String::new() } else { format!(": {}", sums.join(", ")) };
        let did = if self.would { "would be voided" } else { "voided" };
        match self.voided {
            0 if self.refused > 0 => {}
            0 => note("nothing is unproven on credit"),
            voided => say(&format!("{} {did}{sums}\n", counted(voided, "charge", "charges"))),
        }
    }
}
