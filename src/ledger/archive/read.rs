//! Reading an archive: its last lines, or all of it, proved link by link.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    ArchiveError, Part, SCHEMA, Summary,
    lines::{self, BatchLine, EntryLine},
    write::stopped,
};
use crate::ledger::{
    audit::{Walked, checkpoint::unhex},
    chain::{self, Hash},
    day::days_since_1970,
    entry::EntryNumber,
    targets,
};

/// What is read of an archive.
pub enum Item<'i> {
    /// A posting, whose link holds.
    Entry(&'i EntryLine),
    /// A batch, whose link holds, and what the chain adds up to there.
    Batch(&'i BatchLine, &'i Walked),
}

/// Reads the end of an archive: what it says of itself, without looking at the rest.
///
/// # Errors
/// [`ArchiveError::File`].
pub fn summary(path: &Path) -> Result<Summary, ArchiveError> {
    let failed = |what: &str| ArchiveError::File { file: path.display().to_string(), what: what.to_owned() };
    let io = |error: io::Error| failed(&error.to_string());
    let mut file = File::open(path).map_err(io)?;
    let mut first = String::new();
    BufReader::new(&file).take(LINE_BYTES).read_line(&mut first).map_err(io)?;
    let head = header(&first).map_err(|what| failed(&what))?;
    let tail = last_lines(&mut file).map_err(io)?;
    let mut tail = tail.lines().rev();
    let (Some(end), Some(parts)) = (tail.next(), tail.next()) else { return Err(failed("it is cut off")) };
    end_of(head, parts, end).ok_or_else(|| failed("it is cut off, or its end is damaged"))
}

/// The longest first line.
const LINE_BYTES: u64 = 1 << 16;

/// The last two lines, and perhaps some before.
fn last_lines(file: &mut File) -> io::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut back = 1 << 16;
    loop {
        let from = length.saturating_sub(back);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        if lines > 2 || from == 0 {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        back *= 4;
    }
}

/// Ledger and first day that is not in it.
fn header(line: &str) -> Result<([u8; 16], i64), String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("this is no archive: {error}"))?;
    match value["schema"].as_str() {
        Some(SCHEMA) => {}
        Some(other) if other.starts_with("tollgate.archive/") => {
            return Err(format!("its form is {other}, this version knows {SCHEMA}; run the newer version"));
        }
        _ => return Err("this is no archive: expected an object with `schema`".to_owned()),
    }
    let until = value["until"].as_str().and_then(|day| day.parse().ok()).map(days_since_1970);
    let ledger = value["ledger"].as_str().and_then(unhex);
    ledger.zip(until).ok_or_else(|| "its first line is damaged".to_owned())
}

fn end_of((ledger_id, until): ([u8; 16], i64), parts: &str, end: &str) -> Option<Summary> {
    let (parts, end): (Value, Value) = (serde_json::from_str(parts).ok()?, serde_json::from_str(end).ok()?);
    let signature = match &end["end"]["signature"] {
        Value::Null => None,
        by => Some((unhex(by["thumbprint"].as_str()?)?, unhex(by["ed25519"].as_str()?)?)),
    };
    let seen = |pair: &Value| Some((pair[0].as_i64()?, pair[1].as_i64()?));
    Some(Summary {
        ledger_id,
        until,
        parts: parts["parts"].as_array()?.iter().map(lines::parse_part).collect::<Option<_>>()?,
        seen: parts["seen"].as_array()?.iter().map(seen).collect::<Option<_>>()?,
        digest: unhex(end["end"]["digest"].as_str()?)?,
        signature,
    })
}

/// Reads all of an archive and proves it: its digest, every link of every chain from where it begins, digests of targets and
/// evidence, what the chains add up to. `start` is what a chain had added up to before a batch, where that is known.
///
/// # Errors
/// [`ArchiveError::File`] with the line, or whatever `each` says.
pub fn verify(
    path: &Path,
    start: impl Fn(i64, i64) -> Option<Walked>,
    mut each: impl FnMut(Item<'_>) -> Result<(), ArchiveError>,
) -> Result<Summary, ArchiveError> {
    let summary = summary(path)?;
    let mut number = 0;
    let failed = |number: u64, what: &str| ArchiveError::File {
        file: path.display().to_string(),
        what: format!("line {number}: {what}"),
    };
    let mut file = BufReader::new(File::open(path).map_err(|error| failed(0, &error.to_string()))?);
    let mut digest = Sha256::new();
    let mut parts = summary.parts.iter();
    let mut walk: Option<Walk<'_>> = None;
    let mut ended = false;
    let mut line = String::new();
    loop {
        line.clear();
        number += 1;
        if file.read_line(&mut line).map_err(|error| failed(number, &error.to_string()))? == 0 {
            break;
        }
        if ended {
            return Err(failed(number, "something stands behind its end"));
        }
        let value: Value = serde_json::from_str(&line).map_err(|error| failed(number, &error.to_string()))?;
        if let Some(value) = value.get("entry") {
            let entry = EntryLine::parse(value).ok_or_else(|| failed(number, "this is no entry"))?;
            if walk.is_none() {
                walk = parts.next().map(|part| Walk::begin(part, &start));
            }
            let walk = walk.as_mut().ok_or_else(|| failed(number, "an entry of no writer"))?;
            walk.entry(&entry).map_err(|what| at_line(what, |what| failed(number, what)))?;
            each(Item::Entry(&entry))?;
        } else if let Some(value) = value.get("batch") {
            let batch = BatchLine::parse(value).ok_or_else(|| failed(number, "this is no batch"))?;
            if walk.is_none() {
                walk = parts.next().map(|part| Walk::begin(part, &start));
            }
            let open = walk.as_mut().ok_or_else(|| failed(number, "a batch of no writer"))?;
            open.batch(&batch).map_err(|what| at_line(what, |what| failed(number, what)))?;
            each(Item::Batch(&batch, &open.state))?;
            if batch.batch().batch_seq == open.part.batches.1 {
                open.end().map_err(|what| failed(number, &what))?;
                walk = None;
            }
        } else if value.get("end").is_some() {
            let found: Hash = digest.clone().finalize().into();
            if found != summary.digest {
                return Err(failed(number, "its digest is not that of the lines before"));
            }
            ended = true;
        }
        digest.update(&line);
    }
    if !ended || walk.is_some() || parts.next().is_some() {
        return Err(failed(number, "it is cut off"));
    }
    Ok(summary)
}

enum Wrong {
    What(String),
    Stopped(ArchiveError),
}

fn at_line(wrong: Wrong, failed: impl Fn(&str) -> ArchiveError) -> ArchiveError {
    match wrong {
        Wrong::What(what) => failed(&what),
        Wrong::Stopped(ArchiveError::Books(finding)) => failed(&finding.to_string()),
        Wrong::Stopped(other) => other,
    }
}

/// A part as it is walked.
struct Walk<'p> {
    part: &'p Part,
    /// Whether what came before is known, so that sums can be held against it.
    knows_start: bool,
    state: Walked,
    hash: Hash,
    seq: i64,
}

impl<'p> Walk<'p> {
    fn begin(part: &'p Part, start: &impl Fn(i64, i64) -> Option<Walked>) -> Walk<'p> {
        let known = start(part.slot, part.batches.0)
            .or_else(|| (part.batches.0 == 1).then(|| Walked::begin(part.slot, part.before)));
        let unknown = || {
            let mut state = Walked::begin(part.slot, part.before);
            (state.batch_seq, state.seq) = (part.batches.0 - 1, part.seqs.0 - 1);
            state
        };
        let (knows_start, state) = (known.is_some(), known.unwrap_or_else(unknown));
        Walk { part, knows_start, seq: state.seq, hash: part.before, state }
    }

    fn entry(&mut self, line: &EntryLine) -> Result<(), Wrong> {
        let wrong = |what: &str| Err(Wrong::What(what.to_owned()));
        let entry = line.entry();
        self.seq += 1;
        if EntryNumber::from_n(entry.n) != (EntryNumber { slot: self.part.slot, seq: self.seq }) {
            return wrong("an entry is missing, or in another place");
        }
        if let (Some(salt), Some(digest)) = (entry.target_salt, entry.target_digest) {
            let whole = targets::whole(entry.target, entry.evidence);
            if whole.is_some_and(|target| chain::target_digest(salt, &target) != digest) {
                return wrong("its target's digest is that of another target");
            }
        }
        match (entry.evidence, entry.evidence_digest) {
            (Some(evidence), digest) if digest != Some(&chain::evidence_digest(evidence)[..]) => {
                return wrong("its evidence's digest is that of other evidence");
            }
            _ => {}
        }
        self.hash = chain::entry(&self.hash, &entry);
        if self.hash != line.hash {
            return wrong("the entry's hash is not that of its columns");
        }
        // Without what came before, a later posting may be about a capture that is not known here.
        if self.knows_start { self.state.count(&entry).map_err(|stop| Wrong::Stopped(stopped(stop))) } else { Ok(()) }
    }

    fn batch(&mut self, line: &BatchLine) -> Result<(), Wrong> {
        let batch = line.batch();
        if (batch.slot, batch.batch_seq) != (self.part.slot, self.state.batch_seq + 1) {
            return Err(Wrong::What("a batch is missing, or in another place".to_owned()));
        }
        if batch.n_last.is_some_and(|n| EntryNumber::from_n(n).seq != self.seq) {
            return Err(Wrong::What("an entry of the batch is missing".to_owned()));
        }
        self.hash = chain::batch(&self.hash, &batch);
        if self.hash != line.head {
            return Err(Wrong::What("the batch's head is not that of its columns".to_owned()));
        }
        if self.knows_start {
            self.state.end(&batch, self.seq, self.hash).map_err(|stop| Wrong::Stopped(stopped(stop)))
        } else {
            (self.state.batch_seq, self.state.seq) = (batch.batch_seq, self.seq);
            Ok(())
        }
    }

    fn end(&self) -> Result<(), String> {
        if self.hash != self.part.after || self.seq != self.part.seqs.1 {
            return Err("the chain ends elsewhere than the archive says".to_owned());
        }
        if self.knows_start && !self.state.is_as_noted(&self.part.state) {
            return Err("its entries add up to something else than the archive says".to_owned());
        }
        Ok(())
    }
}
