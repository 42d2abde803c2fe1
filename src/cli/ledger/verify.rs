//! `tollgate ledger verify`

use serde_json::{Value, json};

use super::{Failure, Where};
use crate::agent::offer::shortened;
use crate::cli::Exit;
use crate::cli::output::{Paint, error, say, table};
use crate::ledger::verify::{CheckResult, Verified};

/// Prove one entry offline, from its evidence alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
ID is an entry's number, a payment's key in hex, or the id of its offer as it stands in `Payment`. Looked at are its link of the
chain, the signature and key of its agent or the wallet's signature, and whether what was signed is what was booked: resource,
offer, amount, payment key. Ends with 0 if nothing failed, else with 1. `ledger audit` proves the whole book.

Examples:
  tollgate ledger verify 281474976710657
  tollgate ledger verify 281474976710657 --json

With --json one object:
  ok, n, kind   true or false; the entry's number as text; capture
  checks        list of {name, result, detail}; result: ok, failed, not_applicable")]
pub struct Verify {
    #[command(flatten)]
    place: Where,
    /// Which entry.
    #[arg(value_name = "ID")]
    id: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let Some(verified) = self.place.open()?.verify(&self.id)? else {
            error(format_args!("no entry of this ledger is {}", shortened(&self.id)));
            return Ok(Exit::NotFound);
        };
        if self.json {
            say(&format!("{:#}\n", to_json(&verified)));
        } else {
            say(&to_text(&verified, Paint::stdout()));
        }
        Ok(if verified.holds() { Exit::Done } else { Exit::Failed })
    }
}

fn word(result: CheckResult) -> &'static str {
    match result {
        CheckResult::Ok => "ok",
        CheckResult::Failed => "failed",
        CheckResult::NotApplicable => "not_applicable",
    }
}

fn to_text(verified: &Verified, paint: Paint) -> String {
    let cells = verified.checks.iter().map(|check| {
        let result = if check.result == CheckResult::NotApplicable { "n/a" } else { word(check.result) };
        vec![result.to_owned(), check.name.replace('_', " "), shortened(&check.detail)]
    });
    let text = table(&cells.collect::<Vec<_>>());
    let painted = text.lines().map(|line| {
        let line = if line.starts_with("failed") { paint.red(line) } else { line.to_owned() };
        format!("{line}\n")
    });
    let end = match verified.holds() {
        true => paint.green("nothing failed"),
        false => paint.red("IT DOES NOT HOLD"),
    };
    format!("entry {}, {}\n{}{end}\n", verified.n, verified.kind.name(), painted.collect::<String>())
}

fn to_json(verified: &Verified) -> Value {
    let check = |check: &crate::ledger::verify::Check| json!({"name": check.name, "result": word(check.result), "detail": check.detail});
    json!({
        "ok": verified.holds(),
        "n": verified.n.to_string(),
        "kind": verified.kind.name(),
        "checks": verified.checks.iter().map(check).collect::<Vec<_>>(),
    })
}
