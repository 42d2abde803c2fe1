//! The rows of `archives`, and dropping what they name; by the ledger's writer.

use std::collections::BTreeMap;

use super::{Drops, Part, Referred, Summary, lines};
use crate::ledger::{
    audit::Finding,
    batch::{BatchError, sort},
    books::Books,
    chain::Hash,
    entry::{EntryNumber, PostingKey},
    file,
    postgres::schema,
    sql::{Begin, Session, SqlError, SqlResult, params},
    store::Unavailable,
    witness::{Subject, Witness},
    witnessed,
};

/// Why nothing is archived or dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// Only closed days are archived.
    #[error("the days before {until} are not all closed; `tollgate settle --until {until}` closes them")]
    Open {
        /// What was asked for.
        until: String,
    },
    /// The file is no archive, or damaged.
    #[error("{file}: {what}")]
    File {
        /// Which.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The books are not whole.
    #[error("the books are not whole: {0}; run `tollgate ledger audit`")]
    Books(Box<Finding>),
    /// The archive is of other books, or not of these any more.
    #[error("{0}; make another archive, under a new name")]
    Stale(String),
    /// The books can't be read.
    #[error("the ledger could not be read: {0}; run `tollgate ledger audit`")]
    Sql(#[from] SqlError),
    /// The ledger is closed, or its disk failed.
    #[error("{0}; the archive is whole: ask again")]
    Unavailable(Unavailable),
}

/// A row of `archives`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Kept {
    pub(in crate::ledger) part: Part,
    pub(in crate::ledger) drops: Drops,
    pub(in crate::ledger) digest: Hash,
    pub(in crate::ledger) done_seq: i64,
}

/// Whether the layout has the table: a ledger that is only read may be of an earlier one.
pub(in crate::ledger) fn is_there(session: &Session) -> SqlResult<bool> {
    let layout: i64 = match session.sqlite() {
        Some(file) => file::layout(file)?,
        None => session.cell("SELECT version FROM book", &[])?,
    };
    Ok(layout >= 2)
}

/// All of them, each writer's in their order.
pub(in crate::ledger) fn all(session: &Session) -> SqlResult<Vec<Kept>> {
    if !is_there(session)? {
        return Ok(Vec::new());
    }
    let select = "SELECT slot, last_batch, dropped, first_batch, first_seq, last_seq, at_ms, head_before, head, digest, \
                  done_seq, state FROM archives ORDER BY slot, last_batch, dropped";
    session.all(select, &[], |row| {
        let wrong = |what: &str| SqlError::shape(format!("a row of archives: {what}"));
        let state = serde_json::from_str(row.get(11)?).map_err(|error| wrong(&error.to_string()))?;
        let (state, referred) = lines::parse_state(&state).ok_or_else(|| wrong("its state"))?;
        let part = Part {
            slot: row.get(0)?,
            batches: (row.get(3)?, row.get(1)?),
            seqs: (row.get(4)?, row.get(5)?),
            at_ms: row.get(6)?,
            before: row.get(7)?,
            after: row.get(8)?,
            state,
            referred,
        };
        let drops = Drops::from_name(row.get(2)?).ok_or_else(|| wrong("what it drops"))?;
        Ok(Kept { part, drops, digest: row.get(9)?, done_seq: row.get(10)? })
    })
}

/// A posting that an archive has kept for others, if one has.
pub(in crate::ledger) fn referred(session: &Session, key: &PostingKey) -> SqlResult<Option<Referred>> {
    let kept = all(session)?.into_iter().flat_map(|kept| kept.part.referred);
    Ok(kept.into_iter().find(|posting| posting.key == *key))
}

/// Up to which entry the rows of each writer count as dropped.
pub(in crate::ledger) fn gone(session: &Session) -> SqlResult<BTreeMap<i64, i64>> {
    if !is_there(session)? {
        return Ok(BTreeMap::new());
    }
    let gone = "SELECT slot, max(last_seq) FROM archives WHERE dropped = 'rows' GROUP BY slot";
    Ok(session.all(gone, &[], |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect())
}

/// The end of the rows that are dropped of a writer, if any are: last batch and head.
pub(in crate::ledger) fn gone_head(session: &Session, slot: i64) -> SqlResult<Option<(i64, Hash)>> {
    if !is_there(session)? {
        return Ok(None);
    }
    let last =
        "SELECT last_batch, head FROM archives WHERE dropped = 'rows' AND slot = ?1 ORDER BY last_batch DESC LIMIT 1";
    session.first(last, params![slot], |row| Ok((row.get(0)?, row.get(1)?)))
}

impl Books {
    /// Notes an archive, and has the chain say so: from here on what it has counts as dropped. Twice is once.
    pub(in crate::ledger) fn note_archive(
        &mut self,
        summary: &Summary,
        drops: Drops,
    ) -> Result<Result<(), ArchiveError>, BatchError> {
        let faults = self.faults.clone();
        let transaction = self.connection.begin(Begin::Write).map_err(sort)?;
        if transaction.sqlite().is_none() {
            schema::lock(&transaction).map_err(sort)?;
        }
        if summary.ledger_id != self.book.ledger_id {
            return Ok(Err(ArchiveError::Stale("the archive is of another ledger".to_owned())));
        }
        let mut head = witnessed::own_head(&transaction, self.slot, self.lease, &self.head)?;
        let mut witnesses = Vec::new();
        let before = all(&transaction).map_err(sort)?;
        for part in &summary.parts {
            let same =
                |kept: &&Kept| (kept.part.slot, kept.part.batches.1, kept.drops) == (part.slot, part.batches.1, drops);
            match before.iter().find(same) {
                Some(kept) if kept.digest == summary.digest => continue,
                Some(_) => {
                    return Ok(Err(ArchiveError::Stale("another archive of these days was used already".to_owned())));
                }
                None => {}
            }
            if let Some(why) = unfit(&transaction, &before, part, drops).map_err(sort)? {
                return Ok(Err(ArchiveError::Stale(why)));
            }
            if let Some(n) = referred_since(&transaction, summary, part).map_err(sort)? {
                return Ok(Err(ArchiveError::Stale(format!(
                    "entry {n} was posted about something in it since it was made"
                ))));
            }
            let state = lines::state(part).to_string();
            witnesses.push(witness(part, drops, &summary.digest, &state));
            transaction
                .execute(
                    "INSERT INTO archives (slot, last_batch, dropped, first_batch, first_seq, last_seq, at_ms, head_before, \
                     head, digest, done_seq, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                    params![
                        part.slot,
                        part.batches.1,
                        drops.name(),
                        part.batches.0,
                        part.seqs.0,
                        part.seqs.1,
                        part.at_ms,
                        &part.before,
                        &part.after,
                        &summary.digest,
                        part.seqs.0 - 1,
                        &state,
                    ],
                )
                .map_err(sort)?;
        }
        if witnesses.is_empty() {
            return Ok(Ok(()));
        }
        witnessed::append(&transaction, self.slot, &mut head, &witnesses).map_err(sort)?;
        witnessed::commit(transaction, head, (&mut self.head, &mut self.attempted), &*faults)?;
        Ok(Ok(()))
    }

    /// Drops some of what archives have taken over: how many entries and batches, 0 when nothing is left.
    pub(in crate::ledger) fn drop_archived(&mut self, most: i64) -> Result<u64, BatchError> {
        let faults = self.faults.clone();
        let disk = |error: SqlError| BatchError::Disk(error.to_string());
        let transaction = self.connection.begin(Begin::Write).map_err(sort)?;
        let done = drop_some(&transaction, most).map_err(sort)?;
        faults.before_commit().map_err(|error| disk(error.into()))?;
        transaction.commit().map_err(disk)?;
        faults.after_commit().map_err(|error| disk(error.into()))?;
        Ok(done)
    }
}

fn witness(part: &Part, drops: Drops, digest: &Hash, state: &str) -> Witness {
    let (slot, last_batch) = (part.slot, part.batches.1);
    let of = match drops {
        Drops::Rows => Subject::Rows { slot, last_batch },
        _ => Subject::Evidence { slot, last_batch },
    };
    let numbers = [slot, last_batch, part.batches.0, part.seqs.0, part.seqs.1, part.at_ms];
    Witness::of_archive(of, numbers, [&part.before, &part.after, digest], state)
}

/// Why a part does not fit the chain as it is, or what was archived before.
fn unfit(session: &Session, before: &[Kept], part: &Part, drops: Drops) -> SqlResult<Option<String>> {
    let (first, last) = part.batches;
    let head = "SELECT head FROM batches WHERE slot = ?1 AND batch_seq = ?2";
    let found: Option<Hash> = session.first(head, params![part.slot, last], |row| row.get(0))?;
    if found != Some(part.after) {
        return Ok(Some(format!("writer {} has another chain than the archive", part.slot)));
    }
    let of = |kept: &&Kept| kept.part.slot == part.slot && (drops == Drops::Evidence || kept.drops == Drops::Rows);
    let end = before.iter().filter(of).map(|kept| kept.part.batches.1).max().unwrap_or_default();
    if end + 1 != first {
        return Ok(Some(format!("of writer {} an archive must begin with batch {}, not {first}", part.slot, end + 1)));
    }
    Ok(None)
}

/// A posting that came after the archive was made and is about something in the part.
fn referred_since(session: &Session, summary: &Summary, part: &Part) -> SqlResult<Option<i64>> {
    let slots: Vec<i64> = session.all("SELECT slot FROM writers", &[], |row| row.get(0))?;
    let n = |slot: i64, seq: i64| EntryNumber { slot, seq }.n();
    for slot in slots {
        let seen = summary.seen.iter().find(|(of, _)| *of == slot).map_or(0, |(_, seq)| *seq);
        let since = "SELECT n FROM entries WHERE n > ?1 AND n < ?2 AND ref_n BETWEEN ?3 AND ?4 LIMIT 1";
        let (from, to) = (n(part.slot, part.seqs.0), n(part.slot, part.seqs.1));
        let found = session.first(since, params![n(slot, seen), n(slot + 1, 0), from, to], |row| row.get(0))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn drop_some(session: &Session, most: i64) -> SqlResult<u64> {
    let waiting =
        "SELECT slot, last_batch, dropped, last_seq, done_seq FROM archives ORDER BY slot, last_batch, dropped";
    let waiting: Vec<(i64, i64, String, i64, i64)> =
        session.all(waiting, &[], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?;
    for (slot, last_batch, dropped, last_seq, done_seq) in waiting {
        let rows = dropped == Drops::Rows.name();
        if done_seq < last_seq {
            let end = last_seq.min(done_seq + most);
            let change = if rows {
                "DELETE FROM entries WHERE n > ?1 AND n <= ?2"
            } else {
                "UPDATE entries SET target = NULL, target_salt = NULL, evidence = NULL WHERE n > ?1 AND n <= ?2"
            };
            let n = |seq: i64| EntryNumber { slot, seq }.n();
            session.execute(change, params![n(done_seq), n(end)])?;
            let done = "UPDATE archives SET done_seq = ?4 WHERE slot = ?1 AND last_batch = ?2 AND dropped = ?3";
            session.execute(done, params![slot, last_batch, &dropped, end])?;
            return Ok((end - done_seq).unsigned_abs());
        }
        if rows {
            let gone = "DELETE FROM batches WHERE slot = ?1 AND batch_seq <= ?2 AND batch_seq < \
                        (SELECT min(batch_seq) FROM batches WHERE slot = ?1) + ?3";
            let gone = session.execute(gone, params![slot, last_batch, most])?;
            if gone > 0 {
                return Ok(gone);
            }
        }
    }
    Ok(0)
}
