//! `tollgate ledger archive`

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::json;

use super::correction::refused;
use super::progress::Progress;
use super::{Failure, LedgerReader, Where, hex, owner};
use crate::cli::Exit;
use crate::cli::output::{counted, note, say};
use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::archive::read::verify;
use crate::ledger::archive::write::Order;
use crate::ledger::archive::{ArchiveError, Drops, Summary};
use crate::ledger::audit::AuditOptions;
use crate::ledger::day::{day_text, days_since_1970};
use crate::ledger::location::Location;

/// Rows that the ledger's owner drops at once: selling waits no longer than that.
const AT_ONCE: i64 = 1000;

/// Put closed days into a file of their own, and let the ledger go of their evidence or rows.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Archived are the book days before DAY, which must be closed (`tollgate settle`), with all there is of them: entries, batches, outcomes,
evidence, the keys of who signed, the chain before and after. With a key of the gateway's own ([signing] key_file) it is signed. The
file is on disk and has been read back and proved before anything is dropped. Before that, the books are audited.

  --drop evidence   targets and evidence: URLs, signatures, most of the bytes. `ledger verify` can't prove those entries any more
  --drop rows       entries and batches. Sums, statements and the chain's head stay; listings and exports end there, and what is
                    dropped can't be voided, refunded or disputed any more

What stays, whatever DAY says: postings above the replay floor or of the last 24 hours, the last entry and batches of each writer,
and everything from the first entry on that is not settled, is owed, or has a refund or dispute without an end. Audit both together:
`ledger audit --archive FILE`; without the file, an audit takes what was dropped as rows on trust, and says so. With it, links,
digests and sums are proved again; that each entry builds on others of its payment was looked at before it was archived.
Interrupted, the same command goes on. A file keeps its size, and in its free parts what was there, until it is copied: `ledger backup`
writes a copy without.

Examples:
  tollgate ledger archive --until 2026-12-01 -o november.jsonl
  tollgate ledger archive --until 2026-12-01 -o november.jsonl --drop evidence -c tollgate.toml
  tollgate ledger audit --archive november.jsonl

With --json one object: file, entries, until, digest (hex text) or null where there was nothing to archive, dropped (rows that this
command dropped), held (list of text: why less was archived).

Exit codes: 0 done, 1 not archived, or not dropped; it says what is there.")]
pub struct Archive {
    #[command(flatten)]
    place: Where,
    /// The first book day that is not archived: 2026-12-01.
    #[arg(long, value_name = "DAY")]
    until: jiff::civil::Date,
    /// The archive. One that is there already, of the same days, is used.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What the ledger lets go of.
    #[arg(long)]
    drop: Option<Dropped>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Dropped {
    Evidence,
    Rows,
}

impl Archive {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (ledger, config) = self.place.location_and_config()?;
        let reader = LedgerReader::open(&ledger).map_err(Failure::Open)?;
        let zone = reader.zone()?;
        let drops = match self.drop {
            None => Drops::Nothing,
            Some(Dropped::Evidence) => Drops::Evidence,
            Some(Dropped::Rows) => Drops::Rows,
        };
        let (summary, held) = match self.archive(&reader, config.as_ref(), drops) {
            Ok(made) => made,
            Err(Stopped::Said(reason)) => return Ok(refused(&reason)),
            Err(Stopped::Failed(failure)) => return Err(failure),
        };
        held.iter().for_each(|why| note(why));
        let dropped = match drops {
            Drops::Nothing => 0,
            _ => match self.let_go(&ledger, &zone, config.as_ref(), summary.as_ref(), drops) {
                Ok(dropped) => dropped,
                Err(reason) => return Ok(refused(&reason)),
            },
        };
        self.tell(summary.as_ref(), &held, dropped, drops);
        Ok(Exit::Done)
    }

    /// Makes the archive, or takes the one that is there.
    fn archive(
        &self,
        reader: &LedgerReader,
        config: Option<&Config>,
        drops: Drops,
    ) -> Result<(Option<Summary>, Vec<String>), Stopped> {
        let until = days_since_1970(self.until);
        let said = |error: ArchiveError| Stopped::Said(error.to_string());
        if self.output.exists() {
            let summary = verify(&self.output, |_, _| None, |_| Ok(())).map_err(said)?;
            let file = self.output.display();
            if summary.ledger_id != reader.ledger_id() {
                return Err(Stopped::Said(format!("{file} is there already, and of another ledger; name a new file")));
            }
            if summary.until != until {
                let of = day_text(summary.until);
                return Err(Stopped::Said(format!("{file} is there already, until {of}; name a new file")));
            }
            return Ok((Some(summary), Vec::new()));
        }
        let now_ms = Clock::system().now_ms();
        let mut progress = Progress::new("entries audited");
        let options = AuditOptions { now_ms: Some(now_ms), ..AuditOptions::default() };
        let audited = reader.audit_from(&options, |at| progress.step(at.done, at.total));
        progress.end();
        if let Some(finding) = audited.map_err(|error| Stopped::Failed(error.into()))?.0.finding {
            return Err(Stopped::Said(format!("the books are not whole: {finding}")));
        }
        let key = owner::gateway_key(config).map_err(Stopped::Said)?;
        let mut progress = Progress::new("entries archived");
        let order = Order { until, drops, key: key.as_ref(), now_ms };
        let made = reader.archive(&self.output, order, |done, total| progress.step(done, total));
        progress.end();
        made.map(|made| (made.summary, made.held)).map_err(said)
    }

    /// Has the ledger's owner note the archive, and drop what it has.
    fn let_go(
        &self,
        ledger: &Location,
        zone: &str,
        config: Option<&Config>,
        summary: Option<&Summary>,
        drops: Drops,
    ) -> Result<u64, String> {
        if summary.is_some() {
            let file = std::fs::canonicalize(&self.output).map_err(|e| format!("{}: {e}", self.output.display()))?;
            let file = file.to_str().ok_or("the archive's name is no UTF-8")?;
            owner::order(ledger, zone, config, &json!({"do": "archive", "file": file, "drop": drops.name()}))?;
        }
        let total = summary.map_or(0, |summary| summary.entries().unsigned_abs());
        let mut progress = Progress::new("entries dropped");
        let mut dropped = 0;
        loop {
            let answer = owner::order(ledger, zone, config, &json!({"do": "drop", "most": AT_ONCE}));
            let some = match answer {
                Ok(answer) => answer["dropped"].as_u64().unwrap_or_default(),
                Err(reason) => {
                    progress.end();
                    return Err(reason);
                }
            };
            if some == 0 {
                progress.end();
                return Ok(dropped);
            }
            dropped += some;
            progress.step(dropped.min(total), total);
        }
    }

    fn tell(&self, summary: Option<&Summary>, held: &[String], dropped: u64, drops: Drops) {
        let file: &Path = &self.output;
        if self.json {
            let object = json!({
                "file": summary.map(|_| file.display().to_string()),
                "entries": summary.map(Summary::entries),
                "until": self.until.to_string(),
                "digest": summary.map(|summary| hex(&summary.digest)),
                "dropped": dropped,
                "held": held,
            });
            return say(&format!("{object}\n"));
        }
        let Some(summary) = summary else {
            return note("nothing can be archived yet");
        };
        let entries = counted(summary.entries(), "entry", "entries");
        let what = match drops {
            Drops::Nothing => "nothing dropped",
            Drops::Evidence => "their targets and evidence dropped",
            Drops::Rows => "their rows dropped",
        };
        say(&format!("{}: {entries}, digest {}; {what}\n", file.display(), hex(&summary.digest)));
    }
}

enum Stopped {
    Said(String),
    Failed(Failure),
}
