//! `tollgate ledger`: the books, of a running gateway too.

mod audit;
mod list;
mod resolve;
mod show;

use std::path::PathBuf;

use super::output::error;
use super::{Exit, color};
use crate::config;
use crate::ledger::read::{LedgerReader, ReadError};
use crate::ledger::sqlite::OpenError;
use crate::ledger::store::Delivery;
use crate::wire::amount::{Currency, Money, Units};

pub(super) use list::listing;

/// For the help of `tollgate ledger`.
pub(super) const EXAMPLES: &str = "\
Examples:
  tollgate ledger list --ledger tollgate.sqlite
  tollgate ledger show 281474976710657
  tollgate ledger audit -c tollgate.toml

No gateway needs to stop for it.";

/// Look at the books; no gateway needs to stop for it.
#[derive(Debug, clap::Subcommand)]
pub enum Ledger {
    List(list::List),
    Show(show::Show),
    Audit(audit::Audit),
    Resolve(resolve::Resolve),
}

impl Ledger {
    pub(super) fn run(self) -> Exit {
        let done = match self {
            Ledger::List(list) => list.run(),
            Ledger::Show(show) => show.run(),
            Ledger::Audit(audit) => audit.run(),
            Ledger::Resolve(resolve) => resolve.run(),
        };
        done.unwrap_or_else(|failure| {
            match failure {
                Failure::Missing(path) => error(format_args!(
                    "{} is not there; a gateway makes it when it first starts (name it with --ledger FILE or -c CONFIG)",
                    path.display()
                )),
                Failure::Config(text) => {
                    super::output::note(&text);
                    return Exit::Unusable;
                }
                Failure::Open(failure) => {
                    error(failure);
                    return Exit::Failed;
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
}

/// Which ledger.
#[derive(Debug, clap::Args)]
pub struct Where {
    /// The ledger's file.
    #[arg(long, value_name = "FILE", default_value = "tollgate.sqlite", conflicts_with = "config")]
    ledger: PathBuf,
    /// The configuration that names it.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

enum Failure {
    Missing(PathBuf),
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
    /// The file.
    fn path(&self) -> Result<PathBuf, Failure> {
        let path = match &self.config {
            None => self.ledger.clone(),
            Some(path) => match config::load(path, std::env::vars()) {
                Ok(config) => config.ledger.path,
                Err(errors) => return Err(Failure::Config(errors.render(color()))),
            },
        };
        if path.exists() { Ok(path) } else { Err(Failure::Missing(path)) }
    }

    fn open(&self) -> Result<LedgerReader, Failure> {
        LedgerReader::open(&self.path()?).map_err(Failure::Open)
    }
}

/// `2026-11-24T12:00:00.000Z`
fn time(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(at) => format!("{at:.3}"),
        Err(_) => format!("{ms} ms"),
    }
}

/// Ledger units as decimal text without the asset: `0.01`.
fn amount(units: i64, asset: &str) -> String {
    let money = Units::new(units).and_then(|units| Some(Money { units, currency: Currency::parse(asset).ok()? }));
    match money {
        Some(money) => money.to_string().split(' ').next().unwrap_or_default().to_owned(),
        // The books of another version: never guess decimals.
        None => format!("{units}e-6"),
    }
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
