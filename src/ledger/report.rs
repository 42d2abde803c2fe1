//! Sums and whole ranges of the books, by book day.
//!
//! Sums come from roll-ups: their time grows with days, accounts and routes, not with entries. Ranges are read entry by
//! entry, oldest first, in memory that does not grow.

use super::archive;
use super::entry::{Entry, EntryNumber};
use super::read::{LedgerReader, ReadError};
use super::rollup::Sums;
use super::rows;
use super::sql::{Begin, Row, Session, SqlResult, params};

/// Book days, whole days since 1970-01-01 in the ledger's zone: from `since`, up to but not including `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days {
    /// The first.
    pub since: i64,
    /// The one after the last.
    pub until: i64,
}

impl Days {
    /// All there are.
    pub const ALL: Days = Days { since: i64::MIN, until: i64::MAX };
}

/// What sums are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Book days.
    Day,
    /// Who owes.
    Account,
    /// Who signed or paid.
    Agent,
    /// What was sold.
    Route,
    /// How it was paid.
    Scheme,
    /// What became of it: `captured`, `voided`, `refunded`.
    Status,
}

/// Sums of one group in one asset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The group: a book day as a number, or a name.
    pub group: String,
    /// `USD`, or a token's CAIP-19 name.
    pub asset: String,
    /// What was charged and given back.
    pub sums: Sums,
}

impl Line {
    /// Captured less voided and refunded, in ledger units.
    pub fn net(&self) -> i64 {
        self.sums.captured.saturating_sub(self.sums.voided).saturating_sub(self.sums.refunded)
    }
}

impl LedgerReader {
    /// Sums of these days, of one account or all, in order of groups.
    ///
    /// # Errors
    /// [`ReadError::Sql`], also for sums beyond 64 bits.
    pub fn report(&self, by: By, days: Days, account: Option<&str>) -> Result<Vec<Line>, ReadError> {
        let column = match by {
            By::Day => "book_day",
            By::Account => "account",
            By::Agent => "agent",
            By::Route => "route",
            By::Scheme => "scheme",
            By::Status => "asset",
        };
        let sums = ["captures", "captured", "voids", "voided", "refunds", "refunded"]
            .map(|column| format!("CAST(SUM({column}) AS BIGINT)"))
            .join(", ");
        let select = format!(
            "SELECT CAST({column} AS TEXT), asset, {sums} FROM rollups WHERE book_day >= ?1 AND book_day < ?2 \
             AND (captures <> 0 OR voids <> 0 OR refunds <> 0 OR refunded <> 0) AND (CAST(?3 AS TEXT) IS NULL OR account = ?3) GROUP BY {column}, asset ORDER BY {column}, asset"
        );
        let line = |row: &Row<'_>| {
            let [captures, captured, voids, voided, refunds, refunded] =
                [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?];
            let sums = Sums { captures, captured, voids, voided, refunds, refunded };
            Ok(Line { group: row.get(0)?, asset: row.get(1)?, sums })
        };
        let lines = self.connection.all(&select, params![days.since, days.until, account], line)?;
        Ok(if by == By::Status { lines.iter().flat_map(by_status).collect() } else { lines })
    }

    /// The last day of which something was archived and dropped; `None` where nothing was.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn last_day_dropped(&self) -> Result<Option<i64>, ReadError> {
        let gone = archive::rows::all(&self.connection)?;
        let rows = gone.iter().filter(|kept| kept.drops == archive::Drops::Rows);
        Ok(rows.filter_map(|kept| kept.part.state.last_day()).max())
    }

    /// How many entries these days have, of all accounts.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn count(&self, days: Days) -> Result<u64, ReadError> {
        let ranges = ranges(&self.connection, days)?;
        Ok(ranges.iter().map(|(first, last)| last.abs_diff(*first) + 1).sum())
    }

    /// Each entry of these days, oldest first within each writer, until `each` says to stop.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn each(&self, days: Days, mut each: impl FnMut(&Entry<'_>) -> bool) -> Result<(), ReadError> {
        // One view of a ledger that goes on growing.
        let transaction = self.connection.begin(Begin::Read)?;
        let select = format!("SELECT {} FROM entries WHERE n BETWEEN ?1 AND ?2 ORDER BY n", rows::COLUMNS);
        let mut statement = transaction.prepare(&select)?;
        for range in ranges(&transaction, days)? {
            let mut found = statement.query(params![range.0, range.1])?;
            while let Some(row) = found.next()? {
                if !each(&rows::read(&row)?.0) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// A line for each thing that became of charges, where there is any.
fn by_status(all: &Line) -> impl Iterator<Item = Line> {
    let Sums { captures, captured, voids, voided, refunds, refunded } = all.sums;
    let line = |group: &str, sums| Line { group: group.to_owned(), asset: all.asset.clone(), sums };
    let lines = [
        line("captured", Sums { captures, captured, ..Sums::default() }),
        line("voided", Sums { voids, voided, ..Sums::default() }),
        line("refunded", Sums { refunds, refunded, ..Sums::default() }),
    ];
    lines.into_iter().filter(|line| line.sums != Sums::default())
}

/// The first and last entry of these days, for each writer that has any. Numbers are dense and book days never fall, so
/// that halving finds them.
pub(super) fn ranges(connection: &Session, days: Days) -> SqlResult<Vec<(i64, i64)>> {
    let slots = "SELECT slot, seq FROM writers ORDER BY slot";
    let slots: Vec<(i64, i64)> = connection.all(slots, &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let gone = archive::rows::gone(connection)?;
    let mut found = Vec::new();
    for (slot, last) in slots {
        let n = |seq: i64| EntryNumber { slot, seq }.n();
        // What was archived and dropped is not there to be asked.
        let gone = gone.get(&slot).copied().unwrap_or_default();
        // The first of gone + 1..=last whose day is not before `limit`; last + 1 if there is none.
        let first_from = |limit: i64| -> SqlResult<i64> {
            let (mut low, mut high) = (gone + 1, last + 1);
            while low < high {
                let middle = low + (high - low) / 2;
                let on: i64 = connection.cell("SELECT book_day FROM entries WHERE n = ?1", params![n(middle)])?;
                if on < limit { low = middle + 1 } else { high = middle }
            }
            Ok(low)
        };
        let (first, end) = (first_from(days.since)?, first_from(days.until)?);
        if first < end {
            found.push((n(first), n(end - 1)));
        }
    }
    Ok(found)
}
