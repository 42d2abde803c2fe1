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
offer, amount, payment key. `ledger audit` proves the whole book.

Exit codes:
  0   everything holds, and who committed to it is shown
  1   something does not hold
  6   not proven: nothing failed, but the agent's key is missing or damaged, retention dropped the evidence, or only a network
      can tell who signed

Examples:
  tollgate ledger verify 281474976710657
  tollgate ledger verify 281474976710657 --json

With --json one object:
  ok, proven    nothing failed; and everything was shown: true or false
  n, kind       the entry's number as text; capture
  checks        list of {name, result, detail}; result: ok, failed, not_proven, not_applicable")]
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
        Ok(match (verified.holds(), verified.is_proven()) {
            (false, _) => Exit::Failed,
            (true, false) => Exit::NotProven,
            (true, true) => Exit::Done,
        })
    }
}

fn word(result: CheckResult) -> &'static str {
    match result {
        CheckResult::Ok => "ok",
        CheckResult::Failed => "failed",
        CheckResult::Unproven => "not_proven",
        CheckResult::NotApplicable => "not_applicable",
    }
}

fn to_text(verified: &Verified, paint: Paint) -> String {
    let cells = verified.checks.iter().map(|check| {
        let result = match check.result {
            CheckResult::NotApplicable => "n/a",
            CheckResult::Unproven => "?",
            result => word(result),
        };
        vec![result.to_owned(), check.name.replace('_', " "), shortened(&check.detail)]
    });
    let text = table(&cells.collect::<Vec<_>>());
    let painted = text.lines().map(|line| {
        let line = match line.split(' ').next() {
            Some("failed") => paint.red(line),
            Some("?") => paint.yellow(line),
            _ => line.to_owned(),
        };
        format!("{line}\n")
    });
    let end = match (verified.holds(), verified.unproven()) {
        (false, _) => paint.red("IT DOES NOT HOLD"),
        (true, Some(check)) => paint.yellow(&format!("not proven: {}", check.detail)),
        (true, None) => paint.green("nothing failed"),
    };
    format!("entry {}, {}\n{}{end}\n", verified.n, verified.kind.name(), painted.collect::<String>())
}

fn to_json(verified: &Verified) -> Value {
    let check = |check: &crate::ledger::verify::Check| json!({"name": check.name, "result": word(check.result), "detail": check.detail});
    json!({
        "ok": verified.holds(),
        "proven": verified.is_proven(),
        "n": verified.n.to_string(),
        "kind": verified.kind.name(),
        "checks": verified.checks.iter().map(check).collect::<Vec<_>>(),
    })
}
