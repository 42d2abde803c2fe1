//! Making an archive: written, made durable, read back, and only then given its name.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    ArchiveError, Drops, Part, SCHEMA, Summary,
    lines::{self, hex},
    read,
    selection::{self, Selected},
};
use crate::{
    ledger::{
        audit::{Stop, Walked},
        backup::{new_name, sync_folder},
        chain::Hash,
        day::day_text,
        entry::EntryNumber,
        read::{LedgerReader, ReadError},
        rows,
        sql::{Begin, Session, params},
    },
    payment::gateway_key::GatewayKey,
};

/// What is archived.
#[derive(Clone, Copy)]
pub struct Order<'k> {
    /// The first day that is not.
    pub until: i64,
    /// What will be dropped.
    pub drops: Drops,
    /// Signs it.
    pub key: Option<&'k GatewayKey>,
    /// The wall clock, Unix ms.
    pub now_ms: u64,
}

/// An archive that was made.
#[derive(Debug)]
pub struct Made {
    /// What is in it; `None` when nothing may be archived, and there is no file.
    pub summary: Option<Summary>,
    /// Why less is in it than was asked for.
    pub held: Vec<String>,
}

impl LedgerReader {
    /// Archives the book days before `order.until` into `path`, which must not be there. `progress` hears of entries.
    ///
    /// # Errors
    /// See [`ArchiveError`]; there is no file then.
    pub fn archive(
        &self,
        path: &Path,
        order: Order<'_>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Made, ArchiveError> {
        let owed: Vec<i64> = self.owed().map_err(read_error)?.iter().map(|owed| owed.n).collect();
        let transaction = self.connection.begin(Begin::Read)?;
        let closed: i64 = transaction.cell("SELECT coalesce(max(until), 0) FROM closes", &[])?;
        if order.until > closed {
            return Err(ArchiveError::Open { until: day_text(order.until) });
        }
        let ledger_id = &self.book.ledger_id;
        let (selected, held) =
            selection::select(&transaction, ledger_id, order.until, order.drops, order.now_ms, &owed)?;
        if selected.is_empty() {
            return Ok(Made { summary: None, held });
        }
        let new = new_name(path);
        let file = |error: io::Error| ArchiveError::File { file: path.display().to_string(), what: error.to_string() };
        let out = File::options().create(true).write(true).truncate(true).mode(0o600).open(&new).map_err(file)?;
        let mut out = Lines { out: BufWriter::new(out), digest: Sha256::new() };
        let written = self.lines(&transaction, &order, &selected, &mut out, &mut progress).and_then(|()| {
            let out = out.out.into_inner().map_err(|error| file(error.into_error()))?;
            out.sync_all().map_err(file)
        });
        let start = |slot: i64, batch: i64| {
            selected.iter().find(|s| s.slot == slot && s.batches.0 == batch).map(|s| s.start.clone())
        };
        let made = written.and_then(|()| {
            let summary = read::verify(&new, start, |_| Ok(()))?;
            fs::rename(&new, path).and_then(|()| sync_folder(path)).map_err(file)?;
            Ok(summary)
        });
        if made.is_err() {
            let _ = fs::remove_file(&new);
        }
        Ok(Made { summary: Some(made?), held })
    }

    fn lines(
        &self,
        session: &Session,
        order: &Order<'_>,
        selected: &[Selected],
        out: &mut Lines,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<(), ArchiveError> {
        let failed = |error: io::Error| ArchiveError::File { file: "the archive".to_owned(), what: error.to_string() };
        let zone: String = session.cell("SELECT zone FROM book", &[])?;
        let ledger = hex(&self.book.ledger_id);
        let until = day_text(order.until);
        out.line(&json!({"schema": SCHEMA, "ledger": ledger, "zone": zone, "until": until, "made_ms": order.now_ms}))
            .map_err(failed)?;
        let mut parts = Vec::new();
        let mut done = 0;
        let total: i64 = session.cell("SELECT CAST(coalesce(sum(seq), 0) AS BIGINT) FROM writers", &[])?;
        for part in selected {
            parts.push(chain(session, part, |line| {
                done += u64::from(line.get("entry").is_some());
                progress(done, total.unsigned_abs());
                out.line(line).map_err(failed)
            })?);
        }
        if order.drops == Drops::Rows {
            selection::referred(session, &mut parts)?;
        }
        let keys = "SELECT thumbprint, agent, jwk, directory_digest, seen_ms FROM keys ORDER BY thumbprint, agent";
        let mut keys = session.prepare(keys)?;
        let mut keys = keys.query(&[])?;
        while let Some(row) = keys.next()? {
            let (thumbprint, agent): (String, String) = (row.get(0)?, row.get(1)?);
            if parts.iter().any(|part| part.state.has_signer(&thumbprint, &agent)) {
                let digest = hex(row.get::<&[u8]>(3)?);
                let (jwk, seen_ms): (String, i64) = (row.get(2)?, row.get(4)?);
                let key = json!({"thumbprint": thumbprint, "agent": agent, "jwk": jwk, "directory_digest": digest, "seen_ms": seen_ms});
                out.line(&json!({"key": key})).map_err(failed)?;
            }
        }
        let seen = session.all("SELECT slot, seq FROM writers ORDER BY slot", &[], |row| {
            Ok(json!([row.get::<i64>(0)?, row.get::<i64>(1)?]))
        })?;
        out.line(&json!({"parts": parts.iter().map(lines::part).collect::<Vec<_>>(), "seen": seen})).map_err(failed)?;
        let digest: Hash = out.digest.clone().finalize().into();
        let signature = order.key.map(|key| {
            let signature = key.sign(&Summary::signed_bytes(&self.book.ledger_id, &digest));
            json!({"thumbprint": hex(&key.thumbprint_bytes()), "ed25519": hex(&signature)})
        });
        out.line(&json!({"end": {"digest": hex(&digest), "signature": signature}})).map_err(failed)
    }
}

/// Every line of a writer's part.
fn chain(
    session: &Session,
    selected: &Selected,
    mut each: impl FnMut(&Value) -> Result<(), ArchiveError>,
) -> Result<Part, ArchiveError> {
    let Selected { slot, batches: (first, last), start } = selected;
    let mut state: Walked = start.clone();
    let batches = format!(
        "SELECT {} FROM batches WHERE slot = ?1 AND batch_seq BETWEEN ?2 AND ?3 ORDER BY batch_seq",
        rows::BATCH_COLUMNS
    );
    let entries = format!("SELECT {} FROM entries WHERE n > ?1 AND n < ?2 ORDER BY n", rows::COLUMNS);
    let (mut batches, mut entries) = (session.prepare(&batches)?, session.prepare(&entries)?);
    let mut batches = batches.query(params![*slot, *first, *last])?;
    let n = |slot: i64, seq: i64| EntryNumber { slot, seq }.n();
    let mut entries = entries.query(params![n(*slot, start.seq), n(slot + 1, 0)])?;
    while let Some(row) = batches.next()? {
        let (batch, head) = rows::read_batch(&row)?;
        let mut seq = state.seq;
        while batch.n_last.is_some_and(|n_last| n(*slot, seq) < n_last) {
            let Some(row) = entries.next()? else { break };
            let (entry, hash) = rows::read(&row)?;
            state.count(&entry).map_err(stopped)?;
            seq = EntryNumber::from_n(entry.n).seq;
            each(&lines::entry(&entry, &hash))?;
        }
        state.end(&batch, seq, head).map_err(stopped)?;
        each(&lines::batch(&batch, &head))?;
    }
    Ok(Part {
        slot: *slot,
        batches: (*first, *last),
        seqs: (start.seq + 1, state.seq),
        at_ms: state.at_ms,
        before: start.head,
        after: state.head,
        state,
        referred: Vec::new(),
    })
}

/// Lines of JSON and their digest.
struct Lines {
    out: BufWriter<File>,
    digest: Sha256,
}

impl Lines {
    fn line(&mut self, line: &Value) -> io::Result<()> {
        let text = format!("{line}\n");
        self.digest.update(&text);
        self.out.write_all(text.as_bytes())
    }
}

fn read_error(error: ReadError) -> ArchiveError {
    match error {
        ReadError::Sql(error) => ArchiveError::Sql(error),
        other => ArchiveError::Stale(other.to_string()),
    }
}

pub(super) fn stopped(stop: Stop) -> ArchiveError {
    match stop {
        Stop::Finding(finding) => ArchiveError::Books(finding),
        Stop::Sql(error) => ArchiveError::Sql(error),
    }
}
