//! `tollgate ledger`: the books, of a running gateway too.

mod archive;
mod audit;
mod backup;
mod balance;
mod checkpoint;
mod correction;
mod dispute;
mod export;
mod list;
mod matters;
mod observed;
mod owed;
mod owner;
mod progress;
mod refund;
mod report;
mod resolve;
mod restored;
mod settle;
mod settled;
mod show;
mod statement;
mod statements;
mod topup;
mod verify;
mod void;

use std::path::PathBuf;

use super::output::error;
use super::{Exit, color};
use crate::agent::offer::shortened;
use crate::config::{self, Config, Options};
use crate::ledger::day::days_since_1970;
use crate::ledger::ledger_store::OpenError;
use crate::ledger::location::Location;
use crate::ledger::read::{LedgerReader, ReadError};
use crate::ledger::report::Days;
use crate::ledger::store::Delivery;
use crate::payment::token::UNIT_DECIMALS_MAX;
use crate::wire::amount::{Asset, Money, Units};
use crate::wire::x402::assets;

pub(super) use list::listing;
pub(super) use settle::{EXAMPLES as SETTLE_EXAMPLES, Settle};

/// For the help of `tollgate ledger`.
pub(super) const EXAMPLES: &str = "\
Examples:
  tollgate ledger list --ledger tollgate.sqlite
  tollgate ledger show 281474976710657
  tollgate ledger report --by account --since 2026-11-01 --until 2026-12-01
  tollgate ledger observed --by route
  tollgate ledger export --format csv -o november.csv --since 2026-11-01 --until 2026-12-01
  tollgate ledger statement 3 -c tollgate.toml --format html -o statement-3.html
  tollgate ledger audit -c tollgate.toml
  tollgate ledger backup -o copy.sqlite
  tollgate ledger void 281474976710657 --reason \"the page was empty\"
  tollgate ledger refund 281474976710658 --reference 0x9c1a…
  tollgate ledger topup example-crawler \"50 USD\" --reference \"invoice 17\"

With --json, too, what went wrong is said as text on standard error, and the exit code tells.
No gateway needs to stop for it.";

/// Look at the books, and correct them; no gateway needs to stop for it.
#[derive(Debug, clap::Subcommand)]
pub enum Ledger {
    List(list::List),
    Show(show::Show),
    Report(report::Report),
    Observed(observed::ObservedCommand),
    Export(export::Export),
    Audit(audit::Audit),
    Verify(verify::Verify),
    Statements(statements::Statements),
    Statement(statement::StatementCommand),
    Resolve(resolve::Resolve),
    Void(void::Void),
    Refund(refund::Refund),
    Topup(topup::Topup),
    Balance(balance::Balance),
    Dispute(dispute::Dispute),
    Archive(archive::Archive),
    Backup(backup::Backup),
    Restored(restored::RestoredCommand),
}

impl Ledger {
    pub(super) fn run(self) -> Exit {
        let done = match self {
            Ledger::List(list) => list.run(),
            Ledger::Show(show) => show.run(),
            Ledger::Report(report) => report.run(),
            Ledger::Observed(observed) => observed.run(),
            Ledger::Export(export) => export.run(),
            Ledger::Audit(audit) => audit.run(),
            Ledger::Verify(verify) => verify.run(),
            Ledger::Statements(statements) => statements.run(),
            Ledger::Statement(statement) => statement.run(),
            Ledger::Resolve(resolve) => resolve.run(),
            Ledger::Void(void) => void.run(),
            Ledger::Refund(refund) => refund.run(),
            Ledger::Topup(topup) => topup.run(),
            Ledger::Balance(balance) => balance.run(),
            Ledger::Dispute(dispute) => dispute.run(),
            Ledger::Archive(archive) => archive.run(),
            Ledger::Backup(backup) => backup.run(),
            Ledger::Restored(restored) => restored.run(),
        };
        ended(done)
    }
}

/// Says what failed.
fn ended(done: Result<Exit, Failure>) -> Exit {
    done.unwrap_or_else(|failure| {
        match failure {
            Failure::Missing(path) => error(format_args!(
                "{} is not there; a gateway makes it when it first starts (name it with --ledger FILE or -c CONFIG)",
                path.display()
            )),
            Failure::Url(what) => {
                error(format_args!("--ledger: expected a file or `postgres://user@host/database`: {what}"));
                return Exit::Unusable;
            }
            Failure::Config(text) => {
                super::output::note(&text);
                return Exit::Unusable;
            }
            Failure::Open(failure) => {
                error(&failure);
                return exit_of(&failure);
            }
            Failure::Read(failure @ ReadError::NotAnId(_)) => {
                error(failure);
                return Exit::Unusable;
            }
            Failure::Read(failure) => {
                error(failure);
                return Exit::Failed;
            }
        }
        Exit::NotFound
    })
}

/// Whose move it is when a ledger can't be opened.
fn exit_of(failure: &OpenError) -> Exit {
    match failure {
        OpenError::Unreachable { .. } => Exit::Unreachable,
        OpenError::Refused { .. } => Exit::Refused,
        _ => Exit::Failed,
    }
}

/// A line of text that says something, for whoever reads the books later.
fn line(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("expected a line of text".to_owned()),
        _ if text.contains(char::is_control) => Err("expected one line of text".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// Which ledger.
#[derive(Debug, clap::Args)]
pub struct Where {
    /// The ledger's file, or the URL of its database (`postgres://user@host/database`; of a socket in /run/postgresql
    /// `postgres://user@%2Frun%2Fpostgresql/database`; its password from PGPASSWORD).
    #[arg(long, value_name = "FILE", default_value = "tollgate.sqlite", conflicts_with = "config")]
    ledger: String,
    /// The configuration that names it.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

enum Failure {
    Missing(PathBuf),
    Url(String),
    Config(String),
    Open(OpenError),
    Read(ReadError),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        Failure::Read(error)
    }
}

impl Where {
    /// Where it is.
    fn location(&self) -> Result<Location, Failure> {
        Ok(self.location_and_config()?.0)
    }

    /// Where it is, and the configuration where one was named.
    fn location_and_config(&self) -> Result<(Location, Option<Config>), Failure> {
        let config = match &self.config {
            None => None,
            // One that is made for `run --sandbox` names no facilitator, which books do not need.
            Some(path) => match config::load(path, std::env::vars()) {
                Ok(config) => Some(config),
                Err(errors) => {
                    let options = Options { sandbox: true };
                    let tried = config::load_with(path, std::env::vars(), options);
                    Some(tried.map_err(|_| Failure::Config(errors.render(color())))?)
                }
            },
        };
        let location = match &config {
            Some(config) => config.ledger.location.clone(),
            None => {
                let password = std::env::var("PGPASSWORD").ok();
                Location::parse(&self.ledger, password.as_deref()).map_err(Failure::Url)?
            }
        };
        match location.file() {
            Some(path) if !path.exists() => Err(Failure::Missing(path.to_owned())),
            _ => Ok((location, config)),
        }
    }

    fn open(&self) -> Result<LedgerReader, Failure> {
        LedgerReader::open(&self.location()?).map_err(Failure::Open)
    }
}

/// Which book days, in the ledger's time zone.
#[derive(Debug, clap::Args)]
pub struct Span {
    /// From this book day on: 2026-11-01.
    #[arg(long, value_name = "DAY")]
    since: Option<jiff::civil::Date>,
    /// Up to this book day, which is not included: 2026-12-01.
    #[arg(long, value_name = "DAY")]
    until: Option<jiff::civil::Date>,
}

impl Span {
    fn days(&self) -> Days {
        let (since, until) = (self.since.map(days_since_1970), self.until.map(days_since_1970));
        Days { since: since.unwrap_or(Days::ALL.since), until: until.unwrap_or(Days::ALL.until) }
    }

    /// `2026-11-01 up to and including 2026-11-30, days of Europe/Berlin`
    fn text(&self, zone: &str) -> String {
        let last = self.until.and_then(|day| day.yesterday().ok());
        let days = match (self.since, last) {
            (None, None) => "all days".to_owned(),
            (Some(first), None) => format!("from {first} on"),
            (None, Some(last)) => format!("up to and including {last}"),
            (Some(first), Some(last)) => format!("{first} up to and including {last}"),
        };
        format!("{days}, days of {zone}")
    }
}

/// `2026-11-24T12:00:00.000Z`
fn time(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(at) => format!("{at:.3}"),
        Err(_) => format!("{ms} ms"),
    }
}

/// Ledger units as decimal text without the asset: `0.01`, `-0.01`; `None` for a token whose decimals are not known.
fn amount(units: i64, asset: &str) -> Option<String> {
    if units < 0 {
        return Some(format!("-{}", amount(units.checked_neg()?, asset)?));
    }
    if let Some(token) = assets::find_caip19(asset) {
        return Some(decimal(units, token.decimals.min(UNIT_DECIMALS_MAX)));
    }
    let asset = Asset::parse(asset)?;
    if asset == Asset::Requests {
        return Some(units.to_string());
    }
    let money = Money { units: Units::new(units)?, currency: asset.currency()? };
    Some(money.to_string().split(' ').next().unwrap_or_default().to_owned())
}

/// Ledger units with what they are of: `0.01 USD`, `0.01 USDC`; where decimals are not known, `7 units of …`.
fn money(units: i64, asset: &str) -> String {
    match amount(units, asset) {
        Some(amount) if asset.starts_with("prepaid:") => format!("{amount} {} prepaid", &asset["prepaid:".len()..]),
        Some(amount) => format!("{amount} {}", symbol(asset).unwrap_or(asset)),
        // Never guess decimals.
        None => format!("{units} units of {}", shortened(asset)),
    }
}

/// `USDC`, of a token that is known.
fn symbol(asset: &str) -> Option<&'static str> {
    assets::find_caip19(asset).map(|token| token.symbol)
}

/// The asset's full name in brackets, where [`money`] shows only a token's symbol.
fn in_full(asset: &str) -> String {
    symbol(asset).map_or_else(String::new, |_| format!(" ({asset})"))
}

/// A count of 10^-decimals, with two decimals at least where there are so many: `0.01`, `12.50`, `0.000001`.
fn decimal(units: i64, decimals: u32) -> String {
    let step = 10_u64.pow(decimals);
    let (sign, count) = (if units < 0 { "-" } else { "" }, units.unsigned_abs());
    let mut text = format!("{:0width$}", count % step, width = decimals as usize);
    while text.len() > 2 && text.ends_with('0') {
        text.pop();
    }
    if decimals == 0 { format!("{sign}{count}") } else { format!("{sign}{}.{text}", count / step) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn delivery(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Complete => "complete",
        Delivery::ClientLeft => "client_left",
        Delivery::ClientStalled => "client_stalled",
        Delivery::OriginCut => "origin_cut",
        Delivery::NotSent => "not_sent",
    }
}
