//! `tollgate ledger topup`

use serde_json::json;

use super::correction::refused;
use super::{Failure, Where, line, money, owner};
use crate::cli::Exit;
use crate::cli::output::{error, say};
use crate::config::Config;
use crate::ledger::read::LedgerReader;
use crate::server::admin::orders;
use crate::wire::amount::{Asset, Money, Prepaid, Units};

/// An amount with its currency.
fn amount(text: &str) -> Result<Money, String> {
    let money = Money::parse(text).map_err(|error| error.to_string())?;
    if money.units == Units::ZERO { Err("expected more than nothing".to_owned()) } else { Ok(money) }
}

/// Note what an account with a balance has paid in, or was paid back.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For accounts with `prepaid` in the configuration: they buy from what was paid in, and owe nothing. The gateway that runs counts it
at once. You receive or send the money; the books note it. Which accounts have a balance the gateway that runs knows; without one, -c says it.
The reference is your own word for the transfer: the same reference of an account is the same transfer, so that a command that was
cut off can be given again. What was typed wrong is taken back with --back, under another reference.

Examples:
  tollgate ledger topup example-crawler \"50 USD\" --reference \"invoice 17\" -c tollgate.toml
  tollgate ledger topup example-crawler \"20 USD\" --reference \"transfer 9\" --back -c tollgate.toml
  tollgate ledger balance example-crawler

With --json one object: account, n (the posting), way (paid_in, paid_back), amount, asset, balance, balance_units, reference, and
posted: false where it was so already.
Exit codes: 0 noted, or so already; 1 refused; 2 bad usage, or no such account with a balance in the configuration.")]
pub struct Topup {
    #[command(flatten)]
    place: Where,
    /// The account's name.
    #[arg(value_name = "ACCOUNT", value_parser = line)]
    account: String,
    /// How much: "50 USD".
    #[arg(value_name = "AMOUNT", value_parser = amount)]
    amount: Money,
    /// What tells it from other transfers of this account.
    #[arg(long, value_name = "TEXT", value_parser = line)]
    reference: String,
    /// It was paid back to the account.
    #[arg(long)]
    back: bool,
    /// Why, for whoever reads the books later.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl Topup {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (ledger, config) = self.place.location_and_config()?;
        let fits = |config: &Config| orders::fits(config, &self.account, self.amount, self.back);
        if let Some(Err(reason)) = config.as_ref().map(fits) {
            error(reason);
            return Ok(Exit::Unusable);
        }
        let zone = LedgerReader::open(&ledger).map_err(Failure::Open)?.zone()?;
        let order = json!({"do": "topup", "account": self.account, "amount": self.amount.to_string(), "back": self.back,
            "reference": self.reference, "reason": self.reason});
        let answer = match owner::order(&ledger, &zone, config.as_ref(), &order) {
            Ok(answer) => answer,
            Err(reason) => return Ok(refused(&reason)),
        };
        let asset = Asset::Prepaid(Prepaid::of(self.amount.currency));
        let n = answer["n"].as_str().unwrap_or_default();
        let balance = answer["balance"].as_i64().unwrap_or_default();
        if self.json {
            let way = if self.back { "paid_back" } else { "paid_in" };
            let object = json!({"account": self.account, "n": n, "way": way, "amount": super::amount(self.amount.units.get(), asset.as_str()),
                "asset": asset.as_str(), "balance": super::amount(balance, asset.as_str()), "balance_units": balance,
                "reference": self.reference.trim(), "posted": answer["posted"]});
            say(&format!("{object}\n"));
        } else {
            let way = if self.back { "paid back" } else { "paid in" };
            let was = if answer["posted"] == false { " already, nothing was posted" } else { "" };
            let left = money(balance, self.amount.currency.as_str());
            say(&format!("{}: {} {way}{was} (entry {n}); the balance is {left}\n", self.account, self.amount));
        }
        Ok(Exit::Done)
    }
}
