//! `tollgate ledger audit`

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::checkpoint::Mark;
use super::progress::Progress;
use super::{Failure, LedgerReader, Where, amount, hex, in_full, money};
use crate::cli::Exit;
use crate::cli::output::{counted, error, say};
use crate::clock::Clock;
use crate::ledger::audit::{AuditOptions, AuditReport};
use crate::ledger::ledger_store::OpenError;
use crate::ledger::read::ReadError;
use crate::wire::directory::Directory;
use crate::wire::jwk::{Jwk, PublicKey, signing_key};

/// Keys of one file.
const KEYS_MAX: usize = 1000;

/// Prove the books: every link of the chain, every sum, recomputed from the file alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ends with 0 and the chain's head if the books are whole, with 1 and the first thing that is wrong if they are not, with 2 if a
key or checkpoint can't be used. The head is worth keeping elsewhere: whoever rewrites the whole file cannot keep it.

Examples:
  tollgate ledger audit
  tollgate ledger audit -c /etc/tollgate/tollgate.toml --json
  tollgate ledger audit --key gateway.jwk --key last-years-gateway.jwk
  tollgate ledger audit --resume /mnt/elsewhere/audit.json
  tollgate ledger audit --archive october.jsonl --archive november.jsonl

Closes are signed with the gateway's key: their signatures are checked with the keys that are named, private or public halves
as JWK or lists of public ones (JWKS), and the one of the configuration; one of another key is wrong then. Without any they are counted.

With --resume the audit writes where it is to FILE every few seconds. Interrupted, the same command goes on from there. After an
audit that found nothing wrong, the next one begins at its end: the chain must still pass through it, so that history that was
rewritten is found, which no audit can see from the books alone; links before it are read again, references and sums are not.
With --only-new they are not read either: of what lies before, only the number of rows is looked at. Keep FILE where whoever can
write the ledger can't.

With --archive the links of what was dropped are read there, back to the chain's beginning. Without, they are taken on trust: what
their archives said that they add up to stands in the ledger, and the audit says how many entries that is.

A chain also says which days were closed, which steps were taken with each statement (sent, paid, disputed), why and when, and
which archives were made to drop something: what was changed there or taken out is named, the latest close as any other.

Keys and the terms of offers must be there for whatever was sold with them.

What no audit can prove: when keys were seen and terms were loaded, and what was only observed. Nothing covers them; it is looked
at whether they can be. Nor, from the books alone, that nothing was cut off from their very end: that a chain was once longer
shows in a checkpoint (--resume), and in the statements that were sent, which have its head.

With --json one object:
  ok           true or false
  entries, captures, voids, refunds, unproven, dropped                   numbers; refunds without those that failed
  charged      {asset: decimal text}, less what was voided and refunded: {\"USD\": \"0.01\"}
  archives, archived, trusted      numbers: archives that were audited, entries that are only in archives, those that were not audited
  closes, signed, verified, statements                                   numbers; verified: signatures that were checked
  writers      list of {slot, entries, batches (numbers), head (hex text)}
  finding      null, or {place, what, expected, found (text)}, the first thing that is wrong")]
pub struct Audit {
    #[command(flatten)]
    place: Where,
    /// A key that closes may be signed with, or several as JWKS; may be repeated.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Go on from where FILE says that an earlier audit was, and write there how far this one is.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Read nothing again that an earlier audit has seen.
    #[arg(long, requires = "resume")]
    only_new: bool,
    /// An archive to audit with the ledger; may be repeated.
    #[arg(long = "archive", value_name = "FILE")]
    archives: Vec<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (ledger, config) = self.place.location_and_config()?;
        let reader = match LedgerReader::open(&ledger) {
            Ok(reader) => reader,
            // Not «run an audit»: this is one.
            Err(OpenError::Corrupt { path, what }) => {
                error(format_args!("{} is damaged: {what}; restore a backup", path.display()));
                return Ok(Exit::Failed);
            }
            Err(failure) => return Err(Failure::Open(failure)),
        };
        let configured = config.as_ref().and_then(|config| config.signing.key_file.clone());
        // A gateway that has not run yet has no key, and has signed nothing.
        let files = self.keys.into_iter().chain(configured.filter(|path| path.exists()));
        let keys = match files.map(|path| public_keys(&path)).collect::<Result<Vec<_>, _>>() {
            Ok(keys) => keys.concat(),
            Err(reason) => {
                error(reason);
                return Ok(Exit::Unusable);
            }
        };
        let mut mark = match self.resume.map(|path| Mark::open(path, &reader.ledger_id())).transpose() {
            Ok(mark) => mark,
            Err(reason) => {
                error(reason);
                return Ok(Exit::Unusable);
            }
        };
        let from = mark.as_ref().and_then(|mark| mark.from.clone());
        let options = AuditOptions {
            keys: &keys,
            now_ms: Some(Clock::system().now_ms()),
            from: from.as_ref(),
            only_new: self.only_new,
            archives: &self.archives,
        };
        let mut progress = Progress::new("entries");
        let done = reader.audit_from(&options, |at| {
            progress.step(at.done, at.total);
            if let Some(mark) = &mut mark {
                mark.step(at);
            }
        });
        progress.end();
        let (report, end) = match done {
            Ok(done) => done,
            Err(ReadError::Sql(failure)) => {
                error(format_args!("the ledger could not be read: {failure}; audit it again, or restore a backup"));
                return Ok(Exit::Failed);
            }
            Err(other) => return Err(other.into()),
        };
        let kept = match (mark, end) {
            (Some(mark), Some(end)) => mark.keep(&end),
            _ => Ok(()),
        };
        if self.json {
            say(&format!("{}\n", to_json(&report)));
        } else {
            say(&to_text(&report));
        }
        if let Err(reason) = kept {
            error(reason);
            return Ok(Exit::Failed);
        }
        Ok(if report.finding.is_none() { Exit::Done } else { Exit::Failed })
    }
}

pub(super) fn to_text(report: &AuditReport) -> String {
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
    if report.archived > 0 || report.archives > 0 {
        let trusted = match report.trusted {
            0 => "all of them audited".to_owned(),
            trusted => format!("{} on trust: name their archives with --archive", entries(trusted)),
        };
        let files = counted(report.archives, "archive", "archives");
        text += &format!("    {} archived and dropped, {trusted}; {files} audited\n", entries(report.archived));
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

/// A key's public half, or the keys of a directory.
fn public_keys(path: &Path) -> Result<Vec<PublicKey>, String> {
    let failed = |reason: String| format!("{}: {reason}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    if let Ok(directory) = Directory::parse(text.as_bytes(), KEYS_MAX, true, |_, _| ()) {
        let keys: Vec<PublicKey> = directory.into_iter().map(|key| key.public).collect();
        return if keys.is_empty() { Err(failed("no key of it can be used".to_owned())) } else { Ok(keys) };
    }
    // What serde says may quote a private key.
    let jwk: Jwk = serde_json::from_str(&text).map_err(|e| {
        let place = format!("line {}, column {}", e.line(), e.column());
        failed(format!("not a JWK or a list of them (JWKS): expected a JSON object with kty, crv and x, found something else at {place}"))
    })?;
    let key = match jwk.d {
        // A private half must be whole.
        Some(_) => signing_key(&text).map(|key| Jwk::from_public(&key.verifying_key())).map_err(failed)?,
        None => jwk,
    };
    Ok(vec![key.public_key(true).map_err(|e| failed(e.to_string()))?])
}

pub(super) fn to_json(report: &AuditReport) -> Value {
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
        "archives": report.archives,
        "archived": report.archived,
        "trusted": report.trusted,
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
