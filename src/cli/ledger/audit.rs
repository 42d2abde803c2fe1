//! `tollgate ledger audit`

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Failure, Where, amount, hex, in_full, money};
use crate::cli::Exit;
use crate::cli::output::{counted, say};
use crate::ledger::audit::AuditReport;

/// Prove the books: every link of the chain, every sum, recomputed from the file alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ends with 0 and the chain's head if the books are whole, with 1 and the first thing that is wrong if they are not. The
head is worth keeping elsewhere: whoever rewrites the whole file cannot keep it.

Examples:
  tollgate ledger audit
  tollgate ledger audit -c /etc/tollgate/tollgate.toml --json

With --json one object:
  ok           true or false
  entries, captures, voids, unproven, dropped                            numbers
  charged      {asset: decimal text}, {\"USD\": \"0.01\"}
  writers      list of {slot, entries, batches (numbers), head (hex text)}
  finding      null, or {place, what, expected, found (text)}, the first thing that is wrong")]
pub struct Audit {
    #[command(flatten)]
    place: Where,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let reader = self.place.open()?;
        let mut progress = Progress::new();
        let report = reader.audit(|done, total| progress.step(done, total));
        progress.end();
        let report = report?;
        if self.json {
            say(&format!("{}\n", to_json(&report)));
        } else {
            say(&to_text(&report));
        }
        Ok(if report.finding.is_none() { Exit::Done } else { Exit::Failed })
    }
}

fn to_text(report: &AuditReport) -> String {
    if let Some(finding) = &report.finding {
        return format!("wrong: {finding}\n({} before it held)\n", counted(report.entries, "entry", "entries"));
    }
    let batches: i64 = report.writers.iter().map(|writer| writer.batches).sum();
    let entries = |count: u64| counted(count, "entry", "entries");
    let mut text = format!("ok: {}, {}", entries(report.entries), counted(batches, "batch", "batches"));
    match &report.writers[..] {
        [] => text += ", head none\n",
        [writer] => text += &format!(", head {}\n", hex(&writer.head)),
        writers => {
            text.push('\n');
            for writer in writers {
                text += &format!(
                    "  writer {}: {}, head {}\n",
                    writer.slot,
                    entries(writer.entries.unsigned_abs()),
                    hex(&writer.head)
                );
            }
        }
    }
    let charged = report.charged.iter().map(|(asset, units)| money(*units, asset) + &in_full(asset));
    let charged = charged.collect::<Vec<_>>().join(", ");
    if !charged.is_empty() {
        text += &format!(
            "    charged {charged} in {} less {}; {} unproven\n",
            counted(report.captures, "capture", "captures"),
            counted(report.voids, "void", "voids"),
            report.unproven
        );
    }
    text
}

fn to_json(report: &AuditReport) -> Value {
    let writers = report.writers.iter().map(|writer| {
        json!({ "slot": writer.slot, "entries": writer.entries, "batches": writer.batches, "head": hex(&writer.head) })
    });
    let charged = report.charged.iter().map(|(asset, units)| {
        let raw = || json!({ "units": units });
        (asset.clone(), amount(*units, asset).map_or_else(raw, |amount| json!(amount)))
    });
    json!({
        "ok": report.finding.is_none(),
        "entries": report.entries,
        "captures": report.captures,
        "voids": report.voids,
        "unproven": report.unproven,
        "dropped": report.dropped,
        "charged": charged.collect::<serde_json::Map<_, _>>(),
        "writers": writers.collect::<Vec<_>>(),
        "finding": report.finding.as_ref().map(|finding| json!({
            "place": finding.place.to_string(), "what": finding.what,
            "expected": finding.expected, "found": finding.found,
        })),
    })
}

/// Says how far it is: on a terminal in place, else a line every few seconds.
struct Progress {
    terminal: bool,
    next: Instant,
    shown: bool,
}

impl Progress {
    fn new() -> Progress {
        let terminal = std::io::stderr().is_terminal();
        // Short audits say nothing.
        Progress { terminal, next: Instant::now() + Duration::from_secs(1), shown: false }
    }

    fn step(&mut self, done: u64, total: u64) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let mut err = std::io::stderr();
        if self.terminal {
            self.next = now + Duration::from_millis(200);
            self.shown = true;
            let _ = write!(err, "\r{done} of {total} entries\u{1b}[K");
        } else {
            self.next = now + Duration::from_secs(5);
            let _ = writeln!(err, "{done} of {total} entries");
        }
    }

    fn end(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}
