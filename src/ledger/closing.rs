//! Closing book days: what is in them is final, and statements are made of it.
//!
//! One transaction of the writer, the only one that posts, so no posting runs beside it:
//!
//! | step | in the transaction | a crash here leaves |
//! |---|---|---|
//! | asked | nothing | nothing closed; ask again |
//! | begun | the writers' rows are read, `until` is held against the last close and today | nothing closed |
//! | moved | `open_day = until` in every writer's row | nothing closed |
//! | sealed | the row of `closes`: all heads, signed | nothing closed |
//! | witnessed | an empty batch at the end of this writer's chain with the digest of that row ([`super::witness`]) | nothing closed |
//! | stated | a row of `statements` for each account and asset with a posting in the span, its first event `closed` | nothing closed |
//! | committed | – | all of it; whoever asked and was not told asks again and gets the same answer |
//!
//! Postings queue up meanwhile and are written after it, with the open day that it has left: they read it in their own
//! transaction. So a posting is in a closed span and on its statement, or in an open day and on a later one; voids and refunds
//! of captures that were stated before fall on the next statement. A commit of which nobody knows whether it took place is
//! treated as any other: the file is opened anew, and asking again tells. `tests/ledger/closing.rs` walks the steps, with a
//! disk that fails and a process that dies at each.

use super::{
    batch::{BatchError, sort},
    books::{Books, int},
    close::{Close, CloseSignature, HeadRecord},
    day::day_text,
    entry::SETTLED_AT_ONCE,
    sql::{Begin, Row, Session, SqlError, SqlResult, params},
    statements::{self, StatementState},
    store::Unavailable,
    witness::Witness,
    witnessed,
};
use crate::payment::gateway_key::GatewayKey;

/// Why days are not closed; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// Days before an earlier close are closed for good.
    #[error("the days before {} are closed already: expected that day or a later one, found {}", day_text(*.closed), day_text(*.until))]
    Earlier {
        /// The first day that is open.
        closed: i64,
        /// What was asked for.
        until: i64,
    },
    /// Something may still be posted in them.
    #[error("{} has not begun in the ledger's zone: expected today, {}, or an earlier day", day_text(*.until), day_text(*.today))]
    Future {
        /// Today, in the ledger's zone.
        today: i64,
        /// What was asked for.
        until: i64,
    },
    /// The file refused it.
    #[error("the days could not be closed: {0}")]
    Refused(String),
    /// The ledger is closed, or its disk failed: whether the days are closed can be asked again.
    #[error("{0}; ask again: closing twice changes nothing")]
    Unavailable(Unavailable),
}

impl Books {
    /// Closes the days before `until` and makes their statements; an earlier close of the same day is returned as it is.
    pub(super) fn close_days(
        &mut self,
        until: i64,
        now_ms: u64,
        key: Option<&GatewayKey>,
    ) -> Result<Result<Close, CloseError>, BatchError> {
        let faults = self.faults.clone();
        let transaction = self.connection.begin(Begin::Write).map_err(sort)?;
        if let Some(lease) = self.lease {
            // No gateway posts, and none comes, until this is done.
            lease.lock_all(&transaction).map_err(sort)?;
        }
        let mut head = witnessed::own_head(&transaction, self.slot, self.lease, &self.head)?;
        let last = last_close(&transaction).map_err(sort)?;
        if let Some(last) = last.as_ref().filter(|last| last.until == until) {
            return Ok(Ok(last.clone()));
        }
        // Before the first close, the days before 1970 count as closed.
        let closed = last.as_ref().map_or(head.open_day, |last| last.until);
        if until < closed {
            return Ok(Err(CloseError::Earlier { closed, until }));
        }
        let today = self.zone.book_day(now_ms, i64::MIN);
        if until > today {
            return Ok(Err(CloseError::Future { today, until }));
        }
        let from_day = match &last {
            Some(last) => last.until,
            None => first_day(&transaction).map_err(sort)?.map_or(until, |first| first.min(until)),
        };
        // Clocks of gateways differ, and one may be set back: no close is made before the last.
        let last_ms = last.map_or(0, |last| last.at_ms).max(last_posting(&transaction).map_err(sort)?);
        let mut close = Close {
            from_day,
            until,
            at_ms: last_ms.max(int(now_ms)),
            heads: heads(&transaction).map_err(sort)?,
            signature: None,
        };
        close.signature = key.map(|key| key.sign_close(&close.signed_bytes(&self.book.ledger_id)));
        fill(&transaction, &close).map_err(sort)?;
        (head.at_ms, head.open_day) = (close.at_ms, until);
        witnessed::append(&transaction, self.slot, &mut head, &[Witness::of_close(&close)]).map_err(sort)?;
        witnessed::commit(transaction, head, (&mut self.head, &mut self.attempted), &*faults)?;
        Ok(Ok(close))
    }
}

impl GatewayKey {
    fn sign_close(&self, message: &[u8]) -> CloseSignature {
        CloseSignature { thumbprint: self.thumbprint_bytes(), signature: self.sign(message) }
    }
}

fn fill(transaction: &Session, close: &Close) -> SqlResult<()> {
    transaction.execute("UPDATE writers SET open_day = ?1 WHERE open_day < ?1", params![close.until])?;
    let signature = close.signature.map(|signature| signature.encode());
    transaction.execute(
        "INSERT INTO closes (until, from_day, at_ms, heads, signature) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![close.until, close.from_day, close.at_ms, &close.encode_heads(), signature.as_ref().map(|s| &s[..])],
    )?;
    let mut number: i64 = transaction.cell("SELECT coalesce(max(number), 0) FROM statements", &[])?;
    // A token that moved with its capture is owed by nobody.
    let sums = format!(
        "SELECT account, asset, CAST(SUM(captured) AS BIGINT), CAST(SUM(voided) + SUM(refunded) AS BIGINT), \
         MIN(CASE WHEN scheme IN ({SETTLED_AT_ONCE}) THEN 1 ELSE 0 END) FROM rollups WHERE book_day >= ?1 \
         AND book_day < ?2 AND (captures <> 0 OR voids <> 0 OR refunds <> 0 OR refunded <> 0) \
         GROUP BY account, asset ORDER BY account, asset"
    );
    let mut sums = transaction.prepare(&sums)?;
    let mut rows = sums.query(params![close.from_day, close.until])?;
    while let Some(row) = rows.next()? {
        number += 1;
        let (gross, corrections): (i64, i64) = (row.get(2)?, row.get(3)?);
        let total = gross.checked_sub(corrections).ok_or(SqlError::shape("a sum is too large"))?;
        transaction.execute(
            "INSERT INTO statements (number, account, asset, until, gross, corrections, total, head) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                number,
                row.get::<&str>(0)?,
                row.get::<&str>(1)?,
                close.until,
                gross,
                corrections,
                total,
                &close.head(),
            ],
        )?;
        statements::insert_event(transaction, number, 1, StatementState::Closed, close.at_ms, None)?;
        let reason = statements::why_paid(row.get(1)?, row.get(4)?);
        if reason.is_some() {
            statements::insert_event(transaction, number, 2, StatementState::Paid, close.at_ms, reason)?;
        }
    }
    Ok(())
}

/// The day of the first entry of any writer.
fn first_day(connection: &Session) -> SqlResult<Option<i64>> {
    let first = "SELECT min(book_day) FROM entries WHERE n IN (SELECT (slot << 48) + 1 FROM writers)";
    connection.cell(first, &[])
}

/// When any writer posted last.
fn last_posting(connection: &Session) -> SqlResult<i64> {
    connection.cell("SELECT coalesce(max(at_ms), 0) FROM writers", &[])
}

fn heads(connection: &Session) -> SqlResult<Vec<HeadRecord>> {
    let record = |row: &Row<'_>| {
        Ok(HeadRecord { slot: row.get(0)?, seq: row.get(1)?, batch_seq: row.get(2)?, head: row.get(3)? })
    };
    connection.all("SELECT slot, seq, batch_seq, head FROM writers ORDER BY slot", &[], record)
}

/// The columns that [`read_close`] takes.
pub(super) const CLOSE_COLUMNS: &str = "until, from_day, at_ms, heads, signature";

/// Reads a row of [`CLOSE_COLUMNS`].
pub(super) fn read_close(row: &Row<'_>) -> SqlResult<Close> {
    let wrong = |column: usize, what: &str| SqlError::shape(format!("column {column}: {what}"));
    let heads = HeadRecord::decode_all(row.get(3)?).ok_or_else(|| wrong(3, "not records of 56 bytes"))?;
    let signature: Option<&[u8]> = row.get(4)?;
    let signature =
        signature.map(|bytes| CloseSignature::decode(bytes).ok_or_else(|| wrong(4, "not 96 bytes"))).transpose()?;
    Ok(Close { until: row.get(0)?, from_day: row.get(1)?, at_ms: row.get(2)?, heads, signature })
}

fn last_close(connection: &Session) -> SqlResult<Option<Close>> {
    let last = format!("SELECT {CLOSE_COLUMNS} FROM closes ORDER BY until DESC LIMIT 1");
    connection.first(&last, &[], read_close)
}
