//! `tollgate ledger refund`

use clap::ValueEnum;
use serde_json::json;

use super::correction::{Target, refused};
use super::{Failure, Where, amount, line, money, owner, symbol};
use crate::cli::Exit;
use crate::cli::output::{error, say};
use crate::payment::token::UNIT_DECIMALS_MAX;
use crate::wire::amount::{AmountError, LEDGER_DECIMALS, parse_decimal};
use crate::wire::x402::assets;

/// An amount without a sign and without its asset; how fine it may be depends on the asset.
fn plain(text: &str) -> Result<String, String> {
    if text.starts_with(|c: char| c.is_ascii_digit()) { Ok(text.to_owned()) } else { Err(no_amount(text)) }
}

fn no_amount(text: &str) -> String {
    format!("expected an amount such as `0.004`, more than nothing and in the charge's asset, found `{text}`")
}

/// Note that money of a settled payment goes back, and what became of that.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For `exact` and `upto`, whose money moved when it was bought: you send it back, the books note it. A payment that is given back,
in part too, is not served any more, by the gateway that runs neither. Refunds of a charge add up to it at most; one that failed
does not count. What was charged on credit is taken back with `ledger void`.
The reference is your own word for the transfer, its transaction on the chain for one: the same reference is the same refund, so
that a command that was cut off can be given again.
  without --state, or sent    it is on its way; counted from now on
  done                        it has arrived
  failed                      it has not: its amount may be refunded again, under another reference

Examples:
  tollgate ledger list --state owed                                          whom to refund
  tollgate ledger refund 281474976710657 --reference 0x9c1a…                  all of it
  tollgate ledger refund 281474976710657 --reference 0x9c1a… --state done
  tollgate ledger refund 281474976710657 --reference mail-17 --amount 0.004 --reason \"half a page\"

With --json one object: entry, n (the posting), number (of the refund, from 1), state, reference, amount, units, asset, symbol, and
posted: false where it was so already.
Exit codes: 0 noted, or so already; 1 refused; 2 bad usage; 5 no such entry.")]
pub struct Refund {
    #[command(flatten)]
    place: Where,
    /// Of which charge: its number, its payment's key in hex, or the id of its offer.
    #[arg(value_name = "ID")]
    id: String,
    /// What tells it from other refunds of the same charge.
    #[arg(long, value_name = "TEXT", value_parser = line)]
    reference: String,
    /// How much, in the charge's asset: 0.004. Default: all that is left.
    #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true, value_parser = plain)]
    amount: Option<String>,
    /// How much, in the books' units; for a token whose decimals are not known.
    #[arg(long, value_name = "N", conflicts_with = "amount")]
    units: Option<i64>,
    /// Why, for whoever reads the books later.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// What it is, or has become.
    #[arg(long)]
    state: Option<RefundState>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RefundState {
    /// On its way.
    Sent,
    /// Arrived.
    Done,
    /// Not arrived, and it will not.
    Failed,
}

impl RefundState {
    fn name(self) -> &'static str {
        match self {
            RefundState::Sent => "sent",
            RefundState::Done => "done",
            RefundState::Failed => "failed",
        }
    }
}

impl Refund {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let Some(target) = Target::find(&self.place, &self.id)? else { return Ok(Exit::NotFound) };
        let units = match self.units(&target.asset) {
            Ok(units) => units,
            Err(reason) => {
                error(reason);
                return Ok(Exit::Unusable);
            }
        };
        let order = json!({"do": "refund", "entry": target.n.to_string(), "reference": self.reference, "units": units,
            "reason": self.reason, "state": self.state.map(RefundState::name)});
        let answer = match owner::order(&target.ledger, &target.zone, target.config.as_ref(), &order) {
            Ok(answer) => answer,
            Err(reason) => return Ok(refused(&reason)),
        };
        let (asset, units) =
            (answer["asset"].as_str().unwrap_or_default(), answer["units"].as_i64().unwrap_or_default());
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        if self.json {
            let object = json!({"entry": target.n.to_string(), "n": text("n"), "number": answer["number"],
                "state": text("state"), "reference": self.reference.trim(), "amount": amount(units, asset), "units": units,
                "asset": asset, "symbol": symbol(asset), "posted": answer["posted"]});
            say(&format!("{object}\n"));
        } else {
            let (number, state, n) = (&answer["number"], text("state"), text("n"));
            let was = if answer["posted"] == false { " already, nothing was posted" } else { "" };
            say(&format!("refund {number} of entry {}: {}, {state}{was} (entry {n})\n", target.n, money(units, asset)));
        }
        Ok(Exit::Done)
    }

    /// In ledger units of the asset.
    fn units(&self, asset: &str) -> Result<Option<i64>, String> {
        let Some(text) = &self.amount else {
            let wrong = "--units: expected 1 or more";
            return self.units.map(|units| if units > 0 { Ok(units) } else { Err(wrong.to_owned()) }).transpose();
        };
        let decimals = match assets::find_caip19(asset) {
            Some(token) => token.decimals.min(UNIT_DECIMALS_MAX),
            None if asset.contains('/') => {
                return Err(format!(
                    "the decimals of {asset} are not known: say --units, and `ledger show` what was paid"
                ));
            }
            None => LEDGER_DECIMALS,
        };
        let units = parse_decimal(text, decimals).map_err(|wrong| match wrong {
            AmountError::Shape(text) => format!("--amount: {}", no_amount(&text)),
            wrong => format!("--amount: {wrong}"),
        })?;
        Ok(Some(units.get()))
    }
}
