//! Entries and batches ↔ rows.

use super::{
    chain::{self, Batch, Hash},
    entry::{Entry, EntryNumber, Kind, PostingKey},
    file::Head,
    sql::{Row, Session, SqlError, SqlResult, params},
};

/// The columns of an entry, in table order.
pub(super) const COLUMNS: &str = "n, key, kind, at_ms, wall_ms, book_day, account, agent, agent_key, route, scheme, \
     asset, amount, list_amount, period, table_hash, status, ref_n, method, target, target_salt, target_digest, \
     evidence, evidence_digest, hash";

/// Reads a row of [`COLUMNS`]; its texts stay in the row.
pub(super) fn read<'a>(row: &'a Row<'_>) -> SqlResult<(Entry<'a>, Hash)> {
    let entry = Entry {
        n: row.get(0)?,
        key: PostingKey::from_bytes(row.get(1)?).ok_or_else(|| invalid(1, "not a posting key"))?,
        kind: Kind::from_number(row.get(2)?).ok_or_else(|| invalid(2, "not a kind of posting"))?,
        at_ms: row.get(3)?,
        wall_ms: row.get(4)?,
        book_day: row.get(5)?,
        account: row.get(6)?,
        agent: row.get(7)?,
        agent_key: row.get(8)?,
        route: row.get(9)?,
        scheme: row.get(10)?,
        asset: row.get(11)?,
        amount: row.get(12)?,
        list_amount: row.get(13)?,
        period: row.get(14)?,
        table_hash: row.get(15)?,
        status: row.get(16)?,
        ref_n: row.get(17)?,
        method: row.get(18)?,
        target: row.get(19)?,
        target_salt: row.get(20)?,
        target_digest: row.get(21)?,
        evidence: row.get(22)?,
        evidence_digest: row.get(23)?,
    };
    Ok((entry, row.get(24)?))
}

/// Inserts an entry; false when its posting key is taken.
pub(super) fn insert(connection: &Session, entry: &Entry<'_>, hash: &Hash) -> SqlResult<bool> {
    let insert = "INSERT INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, \
                  ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25) ON CONFLICT (key) DO NOTHING";
    let values = params![
        entry.n,
        entry.key.as_bytes(),
        entry.kind as i64,
        entry.at_ms,
        entry.wall_ms,
        entry.book_day,
        entry.account,
        entry.agent,
        entry.agent_key,
        entry.route,
        entry.scheme,
        entry.asset,
        entry.amount,
        entry.list_amount,
        entry.period,
        entry.table_hash,
        entry.status,
        entry.ref_n,
        entry.method,
        entry.target,
        entry.target_salt,
        entry.target_digest,
        entry.evidence,
        entry.evidence_digest,
        hash,
    ];
    Ok(connection.execute(insert, values)? == 1)
}

/// Inserts a batch.
pub(super) fn insert_batch(connection: &Session, batch: &Batch<'_>, head: &Hash) -> SqlResult<()> {
    connection.execute(
        "INSERT INTO batches VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![batch.slot, batch.batch_seq, batch.n_first, batch.n_last, batch.at_ms, head, batch.outcomes],
    )?;
    Ok(())
}

/// The columns that [`read_batch`] takes.
pub(super) const BATCH_COLUMNS: &str = "slot, batch_seq, n_first, n_last, at_ms, outcomes, head";

/// Reads a row of [`BATCH_COLUMNS`].
pub(super) fn read_batch<'a>(row: &'a Row<'_>) -> SqlResult<(Batch<'a>, Hash)> {
    let batch = Batch {
        slot: row.get(0)?,
        batch_seq: row.get(1)?,
        n_first: row.get(2)?,
        n_last: row.get(3)?,
        at_ms: row.get(4)?,
        outcomes: row.get(5)?,
    };
    Ok((batch, row.get(6)?))
}

/// Whether the end of a writer's chain is what its row says: the last batch is recomputed from its entries, and nothing
/// comes after it.
///
/// # Errors
/// `Ok(Err(what))` when it is not.
pub(super) fn check_tail(connection: &Session, slot: i64, genesis: Hash, head: &Head) -> SqlResult<Result<(), String>> {
    let first = EntryNumber { slot, seq: 0 }.n();
    let last_n = EntryNumber { slot, seq: head.seq }.n();
    let last: Option<i64> = connection.cell(
        "SELECT max(n) FROM entries WHERE n BETWEEN ?1 AND ?2",
        params![first, EntryNumber { slot: slot + 1, seq: 0 }.n() - 1],
    )?;
    if last.unwrap_or(first) != last_n {
        return Ok(Err(format!("the last entry is {}, the writer's row says {last_n}", last.unwrap_or(first))));
    }
    let batches = format!("SELECT {BATCH_COLUMNS} FROM batches WHERE slot = ?1 ORDER BY batch_seq DESC LIMIT 2");
    let mut statement = connection.prepare(&batches)?;
    let mut rows = statement.query(params![slot])?;
    let (batch_seq, stored, n_first, at_ms, n_last, outcomes) = match rows.next()? {
        None if head.batch_seq == 0 && head.hash == genesis => return Ok(Ok(())),
        None => return Ok(Err(format!("no batch, the writer's row says {}", head.batch_seq))),
        Some(row) => {
            let (batch, stored) = read_batch(&row)?;
            let outcomes = batch.outcomes.map(<[u8]>::to_vec);
            (batch.batch_seq, stored, batch.n_first, batch.at_ms, batch.n_last, outcomes)
        }
    };
    if (batch_seq, stored) != (head.batch_seq, head.hash) {
        return Ok(Err(format!("the last batch is {batch_seq}, the writer's row says {}", head.batch_seq)));
    }
    let mut hash = match rows.next()? {
        Some(row) => read_batch(&row)?.1,
        None => genesis,
    };
    if let (Some(first), Some(last)) = (n_first, n_last) {
        let entries = format!("SELECT {COLUMNS} FROM entries WHERE n BETWEEN ?1 AND ?2 ORDER BY n");
        let mut entries = connection.prepare(&entries)?;
        let mut entries = entries.query(params![first, last])?;
        while let Some(row) = entries.next()? {
            let (entry, stored) = read(&row)?;
            hash = chain::entry(&hash, &entry);
            if hash != stored {
                return Ok(Err(format!("entry {} is not as it was written", entry.n)));
            }
        }
    }
    let batch = Batch { slot, batch_seq, n_first, n_last, at_ms, outcomes: outcomes.as_deref() };
    if chain::batch(&hash, &batch) != stored {
        return Ok(Err(format!("batch {batch_seq} is not as it was written")));
    }
    Ok(Ok(()))
}

fn invalid(column: usize, what: &str) -> SqlError {
    SqlError::shape(format!("column {column}: {what}"))
}
