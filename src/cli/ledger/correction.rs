//! What the commands that correct charges have in common.

use super::{Failure, LedgerReader, Where};
use crate::agent::offer::shortened;
use crate::cli::Exit;
use crate::cli::output::error;
use crate::config::Config;
use crate::ledger::location::Location;

/// The entry that a command is about, and whose ledger it is in.
pub(super) struct Target {
    pub(super) ledger: Location,
    pub(super) zone: String,
    pub(super) config: Option<Config>,
    pub(super) n: i64,
    pub(super) asset: String,
}

impl Target {
    /// The entry of a number, a payment's key or an offer's id; says so when there is none.
    pub(super) fn find(place: &Where, id: &str) -> Result<Option<Target>, Failure> {
        let (ledger, config) = place.location_and_config()?;
        let reader = LedgerReader::open(&ledger).map_err(Failure::Open)?;
        let Some(shown) = reader.show(id)? else {
            missing(id);
            return Ok(None);
        };
        let zone = reader.zone()?;
        Ok(Some(Target { ledger, zone, config, n: shown.listed.n, asset: shown.listed.asset }))
    }
}

pub(super) fn missing(id: &str) {
    error(format_args!("no entry of this ledger is {}", shortened(id)));
}

/// The owner's words for why not.
pub(super) fn refused(reason: &str) -> Exit {
    error(reason);
    Exit::Failed
}
