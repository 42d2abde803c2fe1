//! Rows with their witnesses: written in one transaction, and read back for an audit or a change of the layout.
//!
//! | point | a crash or a failing disk leaves |
//! |---|---|
//! | asked, the writer's own row read and locked | nothing |
//! | the rows and the empty batch with their witnesses written, not committed | nothing |
//! | committed, nobody told | both; whoever asks again finds the rows |
//!
//! The batch goes to the chain of the writer that carries the order out: the gateway's own, or, where no gateway runs, that of
//! the command that has the file's lock or a slot of its own. A commit of which nobody knows whether it took place is that of
//! any batch: the ledger is opened anew, and its chain must stand where it stood before, or after.

use super::{
    archive::rows::is_there,
    batch::{BatchError, seal},
    chain::Hash,
    closing::{CLOSE_COLUMNS, read_close},
    entry::EntryNumber,
    faults::Faults,
    file::{self, Head},
    postgres::lease::Lease,
    sql::{Session, SqlError, SqlResult, Transaction, params},
    statements::StatementState,
    witness::{Subject, Witness, encode},
};

/// The first layout whose ledgers have a witness for each row that needs one.
pub(super) const LAYOUT: i64 = 3;

/// The row of this process's writer, locked, if it is as this process has left it.
pub(super) fn own_head(
    transaction: &Session,
    slot: i64,
    lease: Option<Lease>,
    known: &Head,
) -> Result<Head, BatchError> {
    let head = match lease {
        None => file::head(transaction, slot),
        Some(lease) => lease.lock_head(transaction),
    };
    let head = head.map_err(|error| BatchError::Disk(error.to_string()))?;
    head.filter(|head| (head.seq, head.hash) == (known.seq, known.hash))
        .ok_or_else(|| BatchError::Disk("another process wrote to the ledger".to_owned()))
}

/// Appends an empty batch with these witnesses to a writer's chain.
pub(super) fn append(transaction: &Session, slot: i64, head: &mut Head, witnesses: &[Witness]) -> SqlResult<()> {
    let n_before = EntryNumber { slot, seq: head.seq }.n();
    seal(transaction, slot, head, n_before, Some(&encode(witnesses)))
}

/// Has a writer's chain say what rows of an earlier layout are, in the transaction that changes it; nothing, where there are none.
pub(super) fn make_up(transaction: &Session, slot: i64, head: &mut Head) -> SqlResult<()> {
    match &all(transaction)?[..] {
        [] => Ok(()),
        rows => append(transaction, slot, head, rows),
    }
}

/// Commits what has moved a writer's chain to `head`; memory follows once it is on disk. Until then `attempted` says where the
/// chain may stand.
pub(super) fn commit(
    transaction: Transaction<'_>,
    head: Head,
    (own, attempted): (&mut Head, &mut Option<Head>),
    faults: &dyn Faults,
) -> Result<(), BatchError> {
    let unknown = |error: SqlError| BatchError::Disk(error.to_string());
    *attempted = Some(head);
    faults.before_commit().map_err(|error| unknown(error.into()))?;
    transaction.commit().map_err(unknown)?;
    faults.after_commit().map_err(|error| unknown(error.into()))?;
    *attempted = None;
    *own = head;
    Ok(())
}

/// What the rows that need a witness are now, in order.
pub(super) fn all(session: &Session) -> SqlResult<Vec<Witness>> {
    let closes = format!("SELECT {CLOSE_COLUMNS} FROM closes ORDER BY until");
    let mut all = session.all(&closes, &[], |row| Ok(Witness::of_close(&read_close(row)?)))?;
    // The first event, and that a transfer is paid, are its close's.
    let events = "SELECT number, i, state, at_ms, reason FROM statement_events WHERE i > 2 OR (i = 2 AND state <> ?1) \
                  ORDER BY number, i";
    all.extend(session.all(events, params![StatementState::Paid.name()], |row| {
        Ok(Witness::of_event(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    })?);
    if !is_there(session)? {
        return Ok(all);
    }
    let archives = "SELECT dropped, slot, last_batch, first_batch, first_seq, last_seq, at_ms, head_before, head, digest, \
                    state FROM archives ORDER BY dropped, slot, last_batch";
    all.extend(session.all(archives, &[], |row| {
        let (slot, last_batch) = (row.get(1)?, row.get(2)?);
        let of = match row.get::<&str>(0)? {
            "rows" => Subject::Rows { slot, last_batch },
            _ => Subject::Evidence { slot, last_batch },
        };
        let numbers = [slot, last_batch, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?];
        let hashes: [Hash; 3] = [row.get(7)?, row.get(8)?, row.get(9)?];
        Ok(Witness::of_archive(of, numbers, hashes.each_ref(), row.get(10)?))
    })?);
    Ok(all)
}
