//! `tollgate ledger balance`

use serde_json::{Value, json};

use super::{Failure, Where, amount, line, money};
use crate::cli::Exit;
use crate::cli::output::say;
use crate::config::Config;
use crate::ledger::day::BALANCE;
use crate::ledger::passes::is_of_pass;
use crate::ledger::read::LedgerReader;
use crate::ledger::standings::Standing;
use crate::wire::amount::Asset;

/// List what accounts have used in each period, and what is left of balances.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
  credit      what was bought in the period, less what was given back; with -c also the limit
  allowance   requests that were not charged
  pass        requests without charge, and as period the entry that bought them
  prepaid     what was paid in, less what was paid back, what was spent, and what is left

Examples:
  tollgate ledger balance
  tollgate ledger balance example-crawler -c tollgate.toml --json

With --json one object a line: account, kind (credit, allowance, pass, prepaid), asset, period (202611, 20261124; none for prepaid), used and
used_units; limit and left where -c names the account; for prepaid paid_in (less what was paid back), left and left_units.
Of a ledger on a server what is being served counts as used.
Exit codes: 0 listed; 5 no ledger.")]
pub struct Balance {
    #[command(flatten)]
    place: Where,
    /// Only this account.
    #[arg(value_name = "ACCOUNT", value_parser = line)]
    account: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Balance {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (ledger, config) = self.place.location_and_config()?;
        let reader = LedgerReader::open(&ledger).map_err(Failure::Open)?;
        for standing in reader.standings(self.account.as_deref())? {
            let limit = config.as_ref().and_then(|config| limit(config, &standing));
            if self.json {
                say(&format!("{}\n", to_json(&standing, limit)));
            } else {
                say(&format!("{}\n", to_text(&standing, limit)));
            }
        }
        Ok(Exit::Done)
    }
}

/// The most that an account may use, as it is configured now.
fn limit(config: &Config, standing: &Standing) -> Option<i64> {
    let account = config.accounts.iter().find(|account| *account.name == *standing.account)?;
    match Asset::parse(&standing.asset)? {
        Asset::Currency(currency) if !account.prepaid && currency == account.credit.currency => {
            Some(account.limit().get())
        }
        Asset::Requests if !is_of_pass(standing.period) => Some(account.allowance.as_ref()?.requests.get()),
        _ => None,
    }
}

fn kind(standing: &Standing) -> &'static str {
    match Asset::parse(&standing.asset) {
        Some(Asset::Prepaid(_)) => "prepaid",
        Some(Asset::Requests) if is_of_pass(standing.period) => "pass",
        Some(Asset::Requests) => "allowance",
        _ => "credit",
    }
}

fn to_json(standing: &Standing, limit: Option<i64>) -> Value {
    let Standing { account, asset, period, used, paid_in, spent } = standing;
    let of = |units: i64| amount(units, asset);
    let mut object = json!({"account": account, "kind": kind(standing), "asset": asset, "period": null});
    if *period == BALANCE {
        object["used"] = json!(of(*spent));
        object["used_units"] = json!(spent);
        object["paid_in"] = json!(of(*paid_in));
        object["left"] = json!(of(-used));
        object["left_units"] = json!(-used);
        return object;
    }
    object["period"] = json!(period);
    object["used"] = json!(of(*used));
    object["used_units"] = json!(used);
    if let Some(limit) = limit {
        object["limit"] = json!(of(limit));
        object["left"] = json!(of((limit - used).max(0)));
    }
    object
}

fn to_text(standing: &Standing, limit: Option<i64>) -> String {
    let Standing { account, asset, period, used, paid_in, spent } = standing;
    if *period == BALANCE {
        let currency = asset.rsplit(':').next().unwrap_or(asset);
        let [paid_in, spent, left] = [*paid_in, *spent, -used].map(|units| money(units, currency));
        return format!("{account}  prepaid: {left} left of {paid_in}, {spent} spent");
    }
    let of = limit.map_or_else(String::new, |limit| format!(" of {}", money(limit, asset)));
    format!("{account}  {} {period}: {}{of} used", kind(standing), money(*used, asset))
}
