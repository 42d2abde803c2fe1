//! `tollgate ledger restored`

use serde_json::json;

use super::{Failure, LedgerReader, Where, time};
use crate::cli::Exit;
use crate::cli::output::{counted, error, say};
use crate::clock::Clock;
use crate::ledger::restored::{RestoredError, restored};

/// Say that an older copy of the ledger was put back, before a gateway sells with it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What was sold after the copy was made is not in it. So no payment made before now is taken any more, whoever may have bought with
it; agents get a fresh offer. What is sold from now on has numbers of a new writer, for those after the copy's last were given
before. The charges that the copy lacks are lost: exports and answers' receipts are what is left of them.

Stop the gateways, put the copy back, run this, start them again.

Examples:
  tollgate ledger restored
  tollgate ledger restored -c tollgate.toml --json

With --json one object: floor (2026-11-24T12:00:00.000Z), retired (writers that post no more, a number).

Exit codes: 0 done, 1 a gateway runs over the file, or the clock is behind the books.")]
pub struct RestoredCommand {
    #[command(flatten)]
    place: Where,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl RestoredCommand {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let ledger = self.place.location()?;
        let zone = LedgerReader::open(&ledger).map_err(Failure::Open)?.zone()?;
        match restored(&ledger, &zone, Clock::system().now_ms()) {
            Err(RestoredError::Open(failure)) => Err(Failure::Open(failure)),
            Err(failure) => {
                error(failure);
                Ok(Exit::Failed)
            }
            Ok(done) => {
                let floor = time(i64::try_from(done.floor_ms).unwrap_or(i64::MAX));
                if self.json {
                    say(&format!("{}\n", json!({"floor": floor, "retired": done.retired})));
                } else {
                    let retired = counted(done.retired, "writer posts", "writers post");
                    say(&format!("payments made before {floor} are refused from now on; {retired} no more\n"));
                }
                Ok(Exit::Done)
            }
        }
    }
}
