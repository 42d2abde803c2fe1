//! A writer's chain, link by link.

use super::{Audit, Place, Progress, Stop, Walked, WriterReport, closes::Passed, finding, references, same, same_hash};
use crate::ledger::{
    chain::{self, Batch, Hash},
    close::Close,
    day::day_text,
    entry::EntryNumber,
    file::Head,
    rows,
    sql::{Rows, params},
    targets,
};

/// What is expected of what no archive has taken over.
const KEPT: &str = "one, for no archive was noted that has it";

impl Audit<'_> {
    /// Walks the chain of one writer, from its beginning, or, where an earlier audit has seen it, from there. What that one has
    /// counted is not counted again; its links are read again unless only what is new is asked for.
    pub(super) fn writer(
        &mut self,
        slot: i64,
        head: &Head,
        closes: &[Close],
        progress: &mut impl FnMut(&Progress<'_>),
    ) -> Result<(), Stop> {
        let genesis = chain::genesis(self.ledger_id, slot);
        let seen = self.options.from.and_then(|from| from.walked.iter().find(|walked| walked.slot == slot));
        let mut passed = Passed::new(closes, slot);
        let mut at = Link { slot, batch_seq: 0, seq: 0, at_ms: 0, hash: genesis };
        let mut walked = Walked::begin(slot, genesis);
        // What was archived and dropped is walked with its archive, or taken on trust.
        if let Some(part) = self.gone.of(slot) {
            at = Link { slot, batch_seq: part.batches.1, seq: part.seqs.1, at_ms: part.at_ms, hash: part.after };
            walked = part.state.clone();
            passed.skip(at.batch_seq);
            self.done += walked.entries;
        }
        let seen = seen.filter(|seen| seen.batch_seq > at.batch_seq).cloned();
        let skips = self.options.from.is_some_and(|from| self.options.only_new || !from.complete);
        if let Some(seen) = &seen {
            if skips {
                self.done -= walked.entries;
                at = self.at_checkpoint(seen)?;
                passed.skip(at.batch_seq);
            }
            walked = seen.clone();
        }
        passed.batch(at.batch_seq, at.seq, &at.hash, at.at_ms)?;
        self.walked.push(walked);
        let connection = self.connection;
        let first = EntryNumber { slot, seq: at.seq }.n();
        let next_slot = EntryNumber { slot: slot + 1, seq: 0 }.n();
        let entries = format!("SELECT {} FROM entries WHERE n > ?1 AND n < ?2 ORDER BY n", rows::COLUMNS);
        let batches = format!(
            "SELECT {} FROM batches WHERE slot = ?1 AND batch_seq > ?2 ORDER BY batch_seq",
            rows::BATCH_COLUMNS
        );
        let (mut entries, mut batches) = (connection.prepare(&entries)?, connection.prepare(&batches)?);
        let mut entries = entries.query(params![first, next_slot])?;
        let mut batches = batches.query(params![slot, at.batch_seq])?;
        self.place = Place::Batch { slot, batch_seq: at.batch_seq + 1 };
        while let Some(row) = batches.next()? {
            let is_new = seen.as_ref().is_none_or(|seen| seen.batch_seq <= at.batch_seq);
            let (batch, stored) = rows::read_batch(&row)?;
            at = self.batch(at, &batch, &stored, &mut entries, passed.open_day, is_new)?;
            if let Some(seen) = seen.as_ref().filter(|seen| seen.batch_seq == at.batch_seq) {
                same_checkpoint(seen, &at)?;
            }
            passed.batch(at.batch_seq, at.seq, &at.hash, at.at_ms)?;
            progress(&Progress { done: self.done, total: self.total, state: self });
            self.place = Place::Batch { slot, batch_seq: at.batch_seq + 1 };
        }
        if let Some(seen) = seen.as_ref().filter(|seen| seen.batch_seq > at.batch_seq) {
            return Err(finding(
                Place::Batch { slot, batch_seq: at.batch_seq + 1 },
                "the batch, which an earlier audit has seen",
                format!("batches up to {}", seen.batch_seq),
                "none",
            ));
        }
        let last_n = EntryNumber { slot, seq: at.seq }.n();
        self.place = Place::Entry(last_n + 1);
        if let Some(row) = entries.next()? {
            let n: i64 = row.get(0)?;
            return Err(finding(Place::Entry(n), "an entry after the last batch", "none", n));
        }
        let place = Place::Writer(slot);
        same(place.clone(), "its batches", at.batch_seq, head.batch_seq)?;
        same(place.clone(), "its entries", at.seq, head.seq)?;
        same(place.clone(), "its last posting time", at.at_ms, head.at_ms)?;
        same_hash(place, "its head", &at.hash, &head.hash)?;
        passed.end(at.batch_seq)?;
        self.report.writers.push(WriterReport { slot, entries: at.seq, batches: at.batch_seq, head: at.hash });
        Ok(())
    }

    /// Where an earlier audit was, if the chain still passes through it.
    fn at_checkpoint(&mut self, seen: &Walked) -> Result<Link, Stop> {
        let (slot, batch_seq) = (seen.slot, seen.batch_seq);
        self.place = Place::Batch { slot, batch_seq };
        let select = format!("SELECT {} FROM batches WHERE slot = ?1 AND batch_seq = ?2", rows::BATCH_COLUMNS);
        let found = self.connection.first(&select, params![slot, batch_seq], |row| {
            let (batch, head) = rows::read_batch(row)?;
            Ok((batch.at_ms, head))
        })?;
        let Some((at_ms, hash)) = found else {
            return Err(finding(self.place.clone(), "the batch, which an earlier audit has seen", "one", "none"));
        };
        let at = Link { slot, batch_seq, seq: seen.seq, at_ms, hash };
        same_checkpoint(seen, &at)?;
        self.done += seen.entries;
        Ok(at)
    }

    /// Checks the next batch with its entries; those that are new are counted.
    fn batch(
        &mut self,
        before: Link,
        batch: &Batch<'_>,
        stored: &Hash,
        entries: &mut Rows<'_>,
        open_day: i64,
        is_new: bool,
    ) -> Result<Link, Stop> {
        let Link { slot, batch_seq, mut seq, at_ms, mut hash } = before;
        let batch_seq = batch_seq + 1;
        let place = Place::Batch { slot, batch_seq };
        same(place.clone(), "the next batch's number", batch_seq, batch.batch_seq)?;
        if let Some(n_last) = batch.n_last {
            let number = |seq| EntryNumber { slot, seq }.n();
            let expected = Some(number(seq + 1));
            same(place.clone(), "its first entry", format!("{expected:?}"), format!("{:?}", batch.n_first))?;
            while number(seq) < n_last {
                seq += 1;
                hash = self.entry(number(seq), entries, hash, (at_ms, open_day), is_new)?;
            }
        }
        if batch.at_ms < at_ms {
            return Err(finding(place, "its time", format!("at least {at_ms}"), batch.at_ms));
        }
        hash = chain::batch(&hash, batch);
        same_hash(place.clone(), "its head", &hash, stored)?;
        let at = Link { slot, batch_seq, seq, at_ms: batch.at_ms, hash };
        if is_new && let Some(walked) = self.walked.last_mut() {
            walked.end(batch, seq, hash)?;
        }
        Ok(at)
    }

    /// Checks the entry that must come next, after a time and no earlier than the open day, and returns its hash.
    fn entry(
        &mut self,
        n: i64,
        rows: &mut Rows<'_>,
        previous: Hash,
        (at_ms, open_day): (i64, i64),
        is_new: bool,
    ) -> Result<Hash, Stop> {
        let place = Place::Entry(n);
        self.place = place.clone();
        let Some(row) = rows.next()? else { return Err(finding(place, "the entry", n, "none")) };
        let found: i64 = row.get(0)?;
        same(place.clone(), "the next entry's number", n, found)?;
        let (entry, stored) = rows::read(&row)?;
        match (entry.target, entry.target_salt, entry.target_digest) {
            // Where only a part of it is kept, the evidence has it whole.
            (column, Some(salt), Some(digest)) => {
                if let Some(target) = targets::whole(column, entry.evidence) {
                    same_hash(place.clone(), "its target's digest", digest, &chain::target_digest(salt, &target))?;
                }
            }
            (Some(_), ..) => return Err(finding(place, "its target", "salt and digest beside it", "none")),
            (None, None, Some(_)) if !self.gone.lets_go(n) => {
                return Err(finding(place, "its target's salt", KEPT, "none"));
            }
            (None, ..) => {}
        }
        match (entry.evidence, entry.evidence_digest) {
            (Some(evidence), Some(digest)) => {
                same_hash(place.clone(), "its evidence's digest", digest, &chain::evidence_digest(evidence))?;
            }
            (Some(_), None) => return Err(finding(place, "its evidence", "a digest beside it", "none")),
            (None, Some(_)) if !self.gone.lets_go(n) => return Err(finding(place, "its evidence", KEPT, "none")),
            (None, _) => {}
        }
        let hash = chain::entry(&previous, &entry);
        same_hash(place.clone(), "the hash of its columns", &hash, &stored)?;
        same(place.clone(), "the kind in its key", entry.kind.name(), entry.key.kind().name())?;
        if entry.at_ms < at_ms {
            return Err(finding(place, "its time", format!("at least {at_ms}"), entry.at_ms));
        }
        if entry.book_day < open_day {
            let expected = format!("{} or later, for the days before are closed", day_text(open_day));
            return Err(finding(place, "its book day", expected, day_text(entry.book_day)));
        }
        if entry.amount < 0 {
            return Err(finding(place, "its amount", "not negative", entry.amount));
        }
        self.done += 1;
        if is_new {
            references::check(&self.known(), &entry)?;
            if let Some(walked) = self.walked.last_mut() {
                walked.count(&entry)?;
            }
        }
        Ok(hash)
    }
}

/// Where the walk is: the end of a batch.
#[derive(Clone, Copy)]
struct Link {
    slot: i64,
    batch_seq: i64,
    seq: i64,
    at_ms: i64,
    hash: Hash,
}

/// The chain passes through where an earlier audit was.
fn same_checkpoint(seen: &Walked, at: &Link) -> Result<(), Stop> {
    let place = Place::Batch { slot: at.slot, batch_seq: at.batch_seq };
    same(place.clone(), "its last entry, as an earlier audit has seen it", seen.seq, at.seq)?;
    same_hash(place, "its head, as an earlier audit has seen it", &seen.head, &at.hash)
}
