//! `tollgate ledger audit`

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Failure, LedgerReader, Where, amount, hex, in_full, money};
use crate::cli::Exit;
use crate::cli::output::{counted, error, say};
use crate::ledger::audit::AuditReport;
use crate::wire::jwk::{Jwk, PublicKey, signing_key};

/// Prove the books: every link of the chain, every sum, recomputed from the file alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ends with 0 and the chain's head if the books are whole, with 1 and the first thing that is wrong if they are not. The
head is worth keeping elsewhere: whoever rewrites the whole file cannot keep it.

Examples:
  tollgate ledger audit
  tollgate ledger audit -c /etc/tollgate/tollgate.toml --json
  tollgate ledger audit --key gateway.jwk --key last-years-gateway.jwk

Closes are signed with the gateway's key: their signatures are checked with the keys that are named, private or public halves
as JWK, and the one of the configuration; one of another key is wrong then. Without any they are counted.

With --json one object:
  ok           true or false
  entries, captures, voids, refunds, unproven, dropped                   numbers; refunds without those that failed
  charged      {asset: decimal text}, less what was voided and refunded: {\"USD\": \"0.01\"}
  closes, signed, verified, statements                                   numbers; verified: signatures that were checked
  writers      list of {slot, entries, batches (numbers), head (hex text)}
  finding      null, or {place, what, expected, found (text)}, the first thing that is wrong")]
pub struct Audit {
    #[command(flatten)]
    place: Where,
    /// A key that closes may be signed with; may be repeated.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (ledger, config) = self.place.location_and_config()?;
        let reader = LedgerReader::open(&ledger).map_err(Failure::Open)?;
        let configured = config.as_ref().and_then(|config| config.signing.key_file.clone());
        // A gateway that has not run yet has no key, and has signed nothing.
        let files = self.keys.into_iter().chain(configured.filter(|path| path.exists()));
        let keys = match files.map(|path| public_key(&path)).collect::<Result<Vec<_>, _>>() {
            Ok(keys) => keys,
            Err(reason) => {
                error(reason);
                return Ok(Exit::Unusable);
            }
        };
        let mut progress = Progress::new("entries");
        let report = reader.audit_with_keys(&keys, |done, total| progress.step(done, total));
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
            "    charged {charged} in {} less {}{}; {} unproven\n",
            counted(report.captures, "capture", "captures"),
            counted(report.voids, "void", "voids"),
            if report.refunds > 0 {
                format!(" and {}", counted(report.refunds, "refund", "refunds"))
            } else {
                String::new()
            },
            report.unproven
        );
    }
    if report.closes > 0 {
        let verified = match (report.signed, report.verified) {
            (0, _) => "none signed".to_owned(),
            (signed, verified) if signed == verified => format!("{signed} signed and verified"),
            (signed, _) => format!("{signed} signed, not checked: name the gateway's key with --key or -c"),
        };
        text += &format!(
            "    {}, {verified}; {}\n",
            counted(report.closes, "close", "closes"),
            counted(report.statements, "statement", "statements")
        );
    }
    text
}

/// A key's public half.
fn public_key(path: &Path) -> Result<PublicKey, String> {
    let failed = |reason: String| format!("{}: {reason}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    // What serde says may quote a private key.
    let jwk: Jwk = serde_json::from_str(&text).map_err(|e| {
        let place = format!("line {}, column {}", e.line(), e.column());
        failed(format!("not a JWK: expected a JSON object with kty, crv and x, found something else at {place}"))
    })?;
    let key = match jwk.d {
        // A private half must be whole.
        Some(_) => signing_key(&text).map(|key| Jwk::from_public(&key.verifying_key())).map_err(failed)?,
        None => jwk,
    };
    key.public_key(true).map_err(|e| failed(e.to_string()))
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
        "refunds": report.refunds,
        "unproven": report.unproven,
        "dropped": report.dropped,
        "closes": report.closes,
        "signed": report.signed,
        "verified": report.verified,
        "statements": report.statements,
        "charged": charged.collect::<serde_json::Map<_, _>>(),
        "writers": writers.collect::<Vec<_>>(),
        "finding": report.finding.as_ref().map(|finding| json!({
            "place": finding.place.to_string(), "what": finding.what,
            "expected": finding.expected, "found": finding.found,
        })),
    })
}

/// Says how far it is: on a terminal in place, else a line every few seconds.
pub(super) struct Progress {
    /// What is counted.
    what: &'static str,
    terminal: bool,
    next: Instant,
    shown: bool,
}

impl Progress {
    pub(super) fn new(what: &'static str) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        // Short audits say nothing.
        Progress { what, terminal, next: Instant::now() + Duration::from_secs(1), shown: false }
    }

    pub(super) fn step(&mut self, done: u64, total: u64) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let mut err = std::io::stderr();
        if self.terminal {
            self.next = now + Duration::from_millis(200);
            self.shown = true;
            let _ = write!(err, "\r{done} of {total} {}\u{1b}[K", self.what);
        } else {
            self.next = now + Duration::from_secs(5);
            let _ = writeln!(err, "{done} of {total} {}", self.what);
        }
    }

    pub(super) fn end(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}
