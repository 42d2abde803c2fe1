//! What an agent is shown of the books: its own entries a page at a time, what its account has used, its latest statements.
//!
//! There is no index by agent, which every capture would pay for. So a page looks at some thousand numbers of each writer, at
//! some thousand more while nothing is found, and says where the next one goes on: a page may be empty and not be the last.

use std::fmt;

use super::{
    entry::{EntryNumber, Kind, PostingKey},
    listing::listed,
    outcomes::{self, Record},
    read::{Fate, LedgerReader, Listed, ReadError},
    rows, settlements,
    sql::{Begin, Session, SqlResult, params},
    statements::{self, Statement},
    steps,
};

/// Most entries of a page.
pub const PAGE_MAX: usize = 100;
/// Most statements that are shown, the latest.
const STATEMENTS_MAX: i64 = 50;
/// A page ends with the entry that takes it over so many bytes of targets.
const TARGET_BYTES: usize = 256 * 1024;
/// Numbers of all writers together that a step looks at, and steps of a page in which nothing is found.
const WINDOW: i64 = 20_000;
const STEPS_MAX: usize = 10;
/// Writers whose entries are shown.
const WRITERS_MAX: usize = 64;
/// Batches behind a capture that are looked through for what became of its answer.
const BATCHES_MAX: i64 = 1000;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whose.
    pub account: String,
    /// What this agent bought of it.
    pub agent: String,
    /// Of what, and in which periods, the use is wanted: `("USD", 202611)`.
    pub periods: Vec<(String, i64)>,
    /// Where an earlier page ended.
    pub before: Option<Cursor>,
    /// At most so many entries, up to [`PAGE_MAX`].
    pub most: usize,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// For each period that was asked for, in ledger units: what is in the books, and with a server also what is being bought.
    pub used: Vec<i64>,
    /// Latest first.
    pub entries: Vec<Listed>,
    /// Where the next page begins; none behind the last.
    pub next: Option<Cursor>,
    /// Of the account, latest first.
    pub statements: Vec<Statement>,
}

/// Where a page ends: of each writer the entry below which nothing was shown, `1.281-2.55`. It gives nobody anything: whose entries
/// are shown is asked anew for each page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(Vec<EntryNumber>);

impl Cursor {
    /// Reads what [`fmt::Display`] wrote; `None` for any other text.
    pub fn parse(text: &str) -> Option<Cursor> {
        let number = |text: &str, most: i64| {
            let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
            text.parse::<i64>().ok().filter(|number| is_plain && *number <= most)
        };
        let mut found: Vec<EntryNumber> = Vec::new();
        for part in text.split('-') {
            let (slot, seq) = part.split_once('.')?;
            let at = EntryNumber { slot: number(slot, 32_767)?, seq: number(seq, (1 << 48) - 1)? };
            if found.len() == WRITERS_MAX || at.seq < 2 || found.last().is_some_and(|last| last.slot >= at.slot) {
                return None;
            }
            found.push(at);
        }
        Some(Cursor(found))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, EntryNumber { slot, seq }) in self.0.iter().enumerate() {
            write!(f, "{}{slot}.{seq}", if at == 0 { "" } else { "-" })?;
        }
        Ok(())
    }
}

impl LedgerReader {
    /// Whether an account has ever used anything.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn has_used(&self, account: &str) -> Result<bool, ReadError> {
        let used = "SELECT 1 FROM account_use WHERE account = ?1 LIMIT 1";
        Ok(self.connection.first(used, params![account], |_| Ok(()))?.is_some())
    }

    /// What an agent is shown, as it was at one moment.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn view(&self, question: &Question) -> Result<View, ReadError> {
        let transaction = self.connection.begin(Begin::Read)?;
        let used = "SELECT used FROM account_use WHERE account = ?1 AND asset = ?2 AND period = ?3";
        let used = question.periods.iter().map(|(asset, period)| {
            let key = params![&question.account, asset, *period];
            Ok(transaction.first(used, key, |row| row.get::<i64>(0))?.unwrap_or_default())
        });
        let used = used.collect::<SqlResult<_>>()?;
        let statements = statements::latest(&transaction, &question.account, STATEMENTS_MAX)?;
        let (mut entries, next) = page(&transaction, question)?;
        tell(&transaction, &mut entries)?;
        Ok(View { used, entries, next, statements })
    }
}

/// A writer's entries, read from its end.
struct Tail {
    slot: i64,
    /// Entries from this one on were shown, or are none of this agent's.
    seq: i64,
    found: Vec<Listed>,
    /// There are more in the window than were read.
    is_cut: bool,
}

fn page(connection: &Session, question: &Question) -> SqlResult<(Vec<Listed>, Option<Cursor>)> {
    let most = question.most.clamp(1, PAGE_MAX);
    let mut tails: Vec<Tail> = begin(connection, question.before.as_ref())?
        .into_iter()
        .map(|at| Tail { slot: at.slot, seq: at.seq, found: Vec::new(), is_cut: false })
        .collect();
    let window = WINDOW / (tails.len().max(1) as i64);
    for _ in 0..STEPS_MAX {
        for tail in &mut tails {
            tail.read(connection, question, (most, window))?;
        }
        if tails.iter().any(|tail| !tail.found.is_empty()) || tails.iter().all(|tail| tail.seq <= 1) {
            break;
        }
    }
    let mut found: Vec<Listed> = tails.iter_mut().flat_map(|tail| std::mem::take(&mut tail.found)).collect();
    found.sort_unstable_by_key(|row| std::cmp::Reverse((row.at_ms, row.n)));
    let mut bytes = 0;
    let mut end = 0;
    while end < found.len().min(most) && bytes < TARGET_BYTES {
        bytes += found[end].target.as_deref().map_or(0, str::len);
        end += 1;
    }
    let left = found.split_off(end);
    for tail in &mut tails {
        let of_slot = |row: &&Listed| EntryNumber::from_n(row.n).slot == tail.slot;
        let shown = found.iter().rev().find(of_slot).map(|row| EntryNumber::from_n(row.n).seq);
        let first_left = left.iter().find(of_slot).map(|row| EntryNumber::from_n(row.n).seq + 1);
        // What was read and not shown comes with the next page.
        tail.seq = match (first_left, tail.is_cut, shown) {
            (Some(seq), ..) => seq,
            (None, true, Some(seq)) => seq,
            _ => tail.seq,
        };
    }
    let next: Vec<EntryNumber> =
        tails.iter().filter(|tail| tail.seq > 1).map(|tail| EntryNumber { slot: tail.slot, seq: tail.seq }).collect();
    Ok((found, (!next.is_empty()).then_some(Cursor(next))))
}

/// Where each writer's part of a page begins. Who is not in the cursor began to write after the first page.
fn begin(connection: &Session, before: Option<&Cursor>) -> SqlResult<Vec<EntryNumber>> {
    let writers = "SELECT slot, seq FROM writers ORDER BY slot DESC LIMIT ?1";
    let mut writers = connection.all(writers, params![WRITERS_MAX as i64], |row| {
        Ok(EntryNumber { slot: row.get(0)?, seq: row.get::<i64>(1)? + 1 })
    })?;
    writers.reverse();
    let Some(Cursor(before)) = before else { return Ok(writers) };
    let end = |slot| writers.iter().find(|writer| writer.slot == slot).map(|writer| writer.seq);
    Ok(before.iter().filter_map(|at| Some(EntryNumber { seq: at.seq.min(end(at.slot)?), ..*at })).collect())
}

impl Tail {
    /// The next window, unless something was found before.
    fn read(&mut self, connection: &Session, question: &Question, (most, window): (usize, i64)) -> SqlResult<()> {
        if self.seq <= 1 || !self.found.is_empty() {
            return Ok(());
        }
        let n = |seq| EntryNumber { slot: self.slot, seq }.n();
        let low = (self.seq - window).max(1);
        // What was signed is not shown, and may be large; an intent is no charge yet.
        let columns = rows::COLUMNS.replace("evidence, evidence_digest", "NULL, evidence_digest");
        let select = format!(
            "SELECT {columns} FROM entries WHERE n >= ?1 AND n < ?2 AND account = ?3 AND agent = ?4 AND kind <> {} \
             ORDER BY n DESC LIMIT ?5",
            Kind::Intent as u8
        );
        let values = params![n(low), n(self.seq), &question.account, &question.agent, most as i64 + 1];
        self.found = connection.all(&select, values, |row| Ok(listed(&rows::read(row)?.0, None)))?;
        self.is_cut = self.found.len() > most;
        if self.is_cut {
            self.found.truncate(most);
            return Ok(());
        }
        self.seq = low;
        if low > 1 && self.found.is_empty() {
            // Over what an archive has taken, in one step.
            let before = "SELECT n FROM entries WHERE n > ?1 AND n < ?2 ORDER BY n DESC LIMIT 1";
            let before: Option<i64> = connection.first(before, params![n(0), n(low)], |row| row.get(0))?;
            self.seq = before.map_or(1, |n| EntryNumber::from_n(n).seq + 1);
        }
        Ok(())
    }
}

/// What became of each capture.
fn tell(connection: &Session, entries: &mut [Listed]) -> SqlResult<()> {
    let records = outcomes(connection, entries)?;
    for row in entries.iter_mut().filter(|row| row.kind == Kind::Capture) {
        let find = |kind| settlements::find(connection, &PostingKey::new(kind, &row.payment, 0));
        let refunds = steps::matters(connection, &row.payment, Kind::Refund)?;
        let dispute = steps::matters(connection, &row.payment, Kind::Dispute)?.last().map(|dispute| dispute.state);
        let fate = Fate {
            outcome: records.iter().find(|record| record.n == row.n).copied(),
            void_n: find(Kind::Void)?,
            owed_n: find(Kind::Owed)?,
            redelivered_n: find(Kind::Redelivered)?,
            lapsed_n: find(Kind::Lapsed)?,
            dispute,
            ..Fate::default()
        };
        row.fate = Some(fate.with_refunds(super::correction::refunded(&refunds), row.amount));
    }
    Ok(())
}

/// The outcomes of these captures, as far as they stand near them.
fn outcomes(connection: &Session, entries: &[Listed]) -> SqlResult<Vec<Record>> {
    let mut captures: Vec<i64> = entries.iter().filter(|row| row.kind == Kind::Capture).map(|row| row.n).collect();
    captures.sort_unstable();
    let mut records: Vec<Record> = Vec::new();
    // Of which writer the batches were read, and up to which.
    let mut read = (-1, 0);
    for n in &captures {
        let slot = EntryNumber::from_n(*n).slot;
        let own = batch_of(connection, slot, *n)?;
        let from = if read.0 == slot { own.max(read.1) } else { own };
        let select = "SELECT outcomes FROM batches WHERE slot = ?1 AND batch_seq >= ?2 AND batch_seq < ?3 \
                      AND outcomes IS NOT NULL";
        let found = connection.all(select, params![slot, from, own + BATCHES_MAX], |row| {
            Ok(outcomes::decode(row.get(0)?).unwrap_or_default())
        })?;
        records.extend(found.into_iter().flatten().filter(|record| captures.binary_search(&record.n).is_ok()));
        read = (slot, own + BATCHES_MAX);
    }
    Ok(records)
}

/// The batch of an entry, found by halving: numbers and batches rise together.
fn batch_of(connection: &Session, slot: i64, n: i64) -> SqlResult<i64> {
    let end = "SELECT batch_seq FROM batches WHERE slot = ?1 ORDER BY batch_seq";
    let end = |order: &str| connection.first(&format!("{end} {order} LIMIT 1"), params![slot], |row| row.get::<i64>(0));
    let (Some(mut low), Some(mut high)) = (end("ASC")?, end("DESC")?) else { return Ok(0) };
    let probe = "SELECT batch_seq, n_last FROM batches WHERE slot = ?1 AND batch_seq >= ?2 AND n_last IS NOT NULL \
                 ORDER BY batch_seq LIMIT 1";
    // The first batch whose last entry is not before this one.
    while low < high {
        let middle = low + (high - low) / 2;
        match connection.first(probe, params![slot, middle], |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)))? {
            Some((seq, last)) if last < n => low = (seq + 1).min(high),
            _ => high = middle,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_written_as_it_was(text in "[0-9.-]{0,40}|\\PC{0,20}") {
            if let Some(cursor) = Cursor::parse(&text) {
                proptest::prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn a_cursor_reads_back_and_nothing_else_is_one() {
        for text in ["1.2", "0.2-1.9", "1.281-2.55-32767.281474976710655"] {
            assert_eq!(Cursor::parse(text).map(|cursor| cursor.to_string()).as_deref(), Some(text));
        }
        let many = (1..=65).map(|slot| format!("{slot}.5")).collect::<Vec<_>>().join("-");
        let wrong = [
            "",
            "1",
            "1.",
            ".1",
            "1.1",
            "1.0",
            "01.5",
            "1.05",
            "+1.5",
            "1.-5",
            "2.5-1.5",
            "1.5-1.6",
            "1.5-",
            "1.2.3",
            "32768.5",
            "1.281474976710656",
            "1.99999999999999999999",
            "1.٥",
            &many,
        ];
        for text in wrong {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
