//! `tollgate ledger backup`

use std::path::PathBuf;

use serde_json::{Value, json};

use super::audit::{to_json, to_text};
use super::progress::Progress;
use super::{Failure, LedgerReader, Where};
use crate::cli::Exit;
use crate::cli::output::{error, say};
use crate::clock::Clock;
use crate::ledger::audit::AuditOptions;
use crate::ledger::backup::{BackupError, Copy};

/// Copy the ledger's file, while a gateway may go on writing it, and audit the copy.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The copy is whole and of one moment. It gets its name once it is on disk and its audit has found nothing wrong; else there is
none. After an older copy was put back: `tollgate ledger restored`. A database is copied by `pg_dump`, at any time.

Examples:
  tollgate ledger backup -o /mnt/elsewhere/tollgate-2026-11-24.sqlite
  tollgate ledger backup -c tollgate.toml -o copy.sqlite --json

With --json one object: file, bytes, audit (as `ledger audit --json` prints it).

Exit codes: 0 copied and whole, 1 not copied, or the books are not whole, 2 the ledger is no file.")]
pub struct Backup {
    #[command(flatten)]
    place: Where,
    /// The copy; it must not be there yet.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Backup {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let ledger = self.place.location()?;
        let Some(file) = ledger.file() else {
            error("this ledger is a database: copy it with `pg_dump`, at any time");
            return Ok(Exit::Unusable);
        };
        match self.copy(file) {
            Err(BackupError::Open(failure)) => Err(Failure::Open(failure)),
            Err(failure) => {
                error(failure);
                Ok(Exit::Failed)
            }
            Ok(done) => done,
        }
    }

    fn copy(&self, file: &std::path::Path) -> Result<Result<Exit, Failure>, BackupError> {
        let copy = Copy::make(file, &self.output)?;
        let mut progress = Progress::new("entries of the copy");
        let options = AuditOptions { now_ms: Some(Clock::system().now_ms()), ..AuditOptions::default() };
        let audited = LedgerReader::open(copy.path())
            .map_err(Failure::Open)
            .and_then(|reader| Ok(reader.audit_from(&options, |at| progress.step(at.done, at.total))?.0));
        progress.end();
        let report = match audited {
            Ok(report) => report,
            Err(failure) => return Ok(Err(failure)),
        };
        let whole = report.finding.is_none();
        let bytes = if whole { Some(copy.name()?) } else { None };
        if self.json {
            let file = bytes.map_or(Value::Null, |_| json!(self.output.display().to_string()));
            say(&format!("{}\n", json!({"file": file, "bytes": bytes, "audit": to_json(&report)})));
        } else {
            say(&to_text(&report));
        }
        if !whole {
            error("not copied: the books are not whole");
        }
        Ok(Ok(if whole { Exit::Done } else { Exit::Failed }))
    }
}
