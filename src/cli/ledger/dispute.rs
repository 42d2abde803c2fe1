//! `tollgate ledger dispute`

use serde_json::json;

use super::correction::{Target, refused};
use super::{Failure, Where, owner};
use crate::cli::Exit;
use crate::cli::output::say;

/// Note that a charge is contested, and how that ended.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A charge may be disputed for `ledger.dispute_days` (30) after it was made, and again after a rejection, three times in all. A
dispute changes no sum: that is for its end.
  --uphold    the agent is right: a charge on credit is voided with it; one that was settled when it was bought you refund
  --reject    it is not; the charge stands

Examples:
  tollgate ledger dispute 281474976710657 --reason \"the page was empty\"
  tollgate ledger list --state disputed
  tollgate ledger verify 281474976710657                 whether the agent signed for that page at that price
  tollgate ledger dispute 281474976710657 --uphold
  tollgate ledger dispute 281474976710657 --reject --reason \"delivered: 5,120 bytes\"

With --json one object: entry, n (the posting), number (of the dispute, from 1), state, and void (of the charge, or null).
Exit codes: 0 noted; 1 refused; 2 bad usage; 5 no such entry.")]
pub struct Dispute {
    #[command(flatten)]
    place: Where,
    /// Which charge: its number, its payment's key in hex, or the id of its offer.
    #[arg(value_name = "ID")]
    id: String,
    /// Why, for whoever reads the books later.
    #[arg(long, value_name = "TEXT", value_parser = super::line, required_unless_present = "uphold")]
    reason: Option<String>,
    /// End it: the agent is right.
    #[arg(long)]
    uphold: bool,
    /// End it: the charge is right.
    #[arg(long, conflicts_with = "uphold")]
    reject: bool,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl Dispute {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let Some(target) = Target::find(&self.place, &self.id)? else { return Ok(Exit::NotFound) };
        let end = match (self.uphold, self.reject) {
            (true, _) => Some("upheld"),
            (_, true) => Some("rejected"),
            _ => None,
        };
        let n = target.n;
        let order = json!({"do": "dispute", "entry": n.to_string(), "end": end, "reason": self.reason});
        let answer = match owner::order(&target.ledger, &target.zone, target.config.as_ref(), &order) {
            Ok(answer) => answer,
            Err(reason) => return Ok(refused(&reason)),
        };
        if self.json {
            let object = json!({"entry": n.to_string(), "n": answer["n"], "number": answer["number"], "state": answer["state"],
                "void": answer["void"]});
            say(&format!("{object}\n"));
            return Ok(Exit::Done);
        }
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let (number, state) = (&answer["number"], text("state"));
        let what = match (end, answer["void"].as_str()) {
            (Some("upheld"), Some(void)) => format!("; the charge is voided, by entry {void}"),
            (Some("upheld"), None) if answer["at_once"] == true => {
                format!(
                    "\nits money moved when it was bought: send it back, then say\n  tollgate ledger refund {n} --reference TEXT"
                )
            }
            _ => String::new(),
        };
        say(&format!("dispute {number} of entry {n} is {state} (entry {}){what}\n", text("n")));
        Ok(Exit::Done)
    }
}
