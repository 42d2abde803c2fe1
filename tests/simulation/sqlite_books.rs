//! The tables of a ledger's file, as the equations look at them.

use rusqlite::Connection;
use tollgate::{
    ledger::{close::HeadRecord, correction::State, entry::PostingKey, outcomes, store::Delivery},
    payment::key::PaymentKey,
};

use super::stores::{Books, Closed, Open, Posted, Rollup, Stated, Writer, change};

/// Everything that the equations look at.
pub fn read(connection: &Connection) -> rusqlite::Result<Books> {
    let transaction = connection.unchecked_transaction()?;
    let all = |sql: &str, each: &mut dyn FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>| {
        let mut statement = transaction.prepare_cached(sql)?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            each(row)?;
        }
        Ok::<(), rusqlite::Error>(())
    };
    let mut books = Books {
        floor_ms: transaction.query_row("SELECT replay_floor_ms FROM book", (), |r| r.get(0))?,
        ..Books::default()
    };
    all("SELECT slot, epoch, seq, at_ms, open_day FROM writers", &mut |row| {
        books.writers.push(Writer {
            slot: row.get(0)?,
            epoch: row.get(1)?,
            seq: row.get(2)?,
            at_ms: row.get(3)?,
            open_day: row.get(4)?,
        });
        Ok(())
    })?;
    let sql =
        "SELECT n, key, at_ms, book_day, account, asset, scheme, amount, period, ref_n, status FROM entries ORDER BY n";
    all(sql, &mut |row| {
        let key = PostingKey::from_bytes(row.get_ref(1)?.as_blob().unwrap()).unwrap();
        let (amount, status): (i64, Option<i64>) = (row.get(7)?, row.get(10)?);
        books.entries.push(Posted {
            n: row.get(0)?,
            kind: key.kind(),
            key: key.payment(),
            at_ms: row.get(2)?,
            day: row.get(3)?,
            account: row.get(4)?,
            asset: row.get(5)?,
            scheme: row.get(6)?,
            amount,
            change: change(key.kind(), key.number(), status == Some(State::Failed.code()), amount),
            period: row.get(8)?,
            ref_n: row.get(9)?,
        });
        Ok(())
    })?;
    all("SELECT key, account, asset, period, amount FROM claims WHERE state IN ('s', 'u')", &mut |row| {
        let key = PaymentKey::from_bytes(row.get_ref(0)?.as_blob().unwrap()).unwrap();
        let open = Open { account: row.get(1)?, asset: row.get(2)?, period: row.get(3)?, amount: row.get(4)? };
        books.open.insert(key, open);
        Ok(())
    })?;
    all("SELECT outcomes FROM batches WHERE outcomes IS NOT NULL", &mut |row| {
        let records = outcomes::decode(row.get_ref(0)?.as_blob().unwrap()).unwrap();
        books.outcomes.extend(records.iter().map(|record| (record.n, record.delivery)));
        Ok(())
    })?;
    books.outcomes.sort_by_key(|(n, _): &(i64, Delivery)| *n);
    all("SELECT book_day, account, asset, captured - voided - refunded FROM rollups", &mut |row| {
        let rollup = Rollup { day: row.get(0)?, account: row.get(1)?, asset: row.get(2)?, net: row.get(3)? };
        books.rollups.push(rollup);
        Ok(())
    })?;
    all("SELECT from_day, until, heads FROM closes ORDER BY until", &mut |row| {
        let heads = HeadRecord::decode_all(row.get_ref(2)?.as_blob().unwrap()).unwrap();
        let heads = heads.iter().map(|head| (head.slot, head.seq)).collect();
        books.closes.push(Closed { from: row.get(0)?, until: row.get(1)?, heads });
        Ok(())
    })?;
    all("SELECT account, asset, total FROM statements", &mut |row| {
        books.statements.push(Stated { account: row.get(0)?, asset: row.get(1)?, total: row.get(2)? });
        Ok(())
    })?;
    Ok(books)
}
