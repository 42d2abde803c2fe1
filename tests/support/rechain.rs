//! A chain that is written anew, as whoever forges books would.

use rusqlite::Connection;
use tollgate::ledger::{
    chain::{self, Batch, Hash},
    entry::{Entry, Kind, PostingKey},
};

/// Computes every hash of writer 1 anew, as whoever forges books would.
pub fn rechain(sql: &Connection) {
    let id: [u8; 16] = sql.query_row("SELECT ledger_id FROM book", (), |row| row.get(0)).unwrap();
    let mut hash: Hash = chain::genesis(&id, 1);
    let mut batches = sql
        .prepare("SELECT slot, batch_seq, n_first, n_last, at_ms, outcomes FROM batches ORDER BY batch_seq")
        .unwrap();
    let mut batches = batches.query(()).unwrap();
    while let Some(row) = batches.next().unwrap() {
        let batch = Batch {
            slot: row.get(0).unwrap(),
            batch_seq: row.get(1).unwrap(),
            n_first: row.get(2).unwrap(),
            n_last: row.get(3).unwrap(),
            at_ms: row.get(4).unwrap(),
            outcomes: row.get_ref(5).unwrap().as_blob_or_null().unwrap(),
        };
        if let (Some(first), Some(last)) = (batch.n_first, batch.n_last) {
            (first..=last).for_each(|n| hash = relink(sql, n, &hash));
        }
        hash = chain::batch(&hash, &batch);
        sql.execute("UPDATE batches SET head = ?1 WHERE batch_seq = ?2", (hash, batch.batch_seq)).unwrap();
    }
    sql.execute("UPDATE writers SET head = ?1", [hash]).unwrap();
}

fn relink(sql: &Connection, n: i64, previous: &Hash) -> Hash {
    let mut statement = sql.prepare("SELECT * FROM entries WHERE n = ?1").unwrap();
    let mut rows = statement.query([n]).unwrap();
    let row = rows.next().unwrap().unwrap();
    let text = |i| row.get_ref(i).unwrap().as_str().unwrap();
    let maybe_text = |i| row.get_ref(i).unwrap().as_str_or_null().unwrap();
    let maybe_bytes = |i| row.get_ref(i).unwrap().as_blob_or_null().unwrap();
    let int = |i| row.get::<_, i64>(i).unwrap();
    let maybe_int = |i| row.get::<_, Option<i64>>(i).unwrap();
    let hash = chain::entry(
        previous,
        &Entry {
            n,
            key: PostingKey::from_bytes(row.get_ref(1).unwrap().as_blob().unwrap()).unwrap(),
            kind: Kind::from_number(int(2)).unwrap(),
            at_ms: int(3),
            wall_ms: int(4),
            book_day: int(5),
            account: text(6),
            agent: text(7),
            agent_key: maybe_text(8),
            route: text(9),
            scheme: text(10),
            asset: text(11),
            amount: int(12),
            list_amount: maybe_int(13),
            period: int(14),
            table_hash: maybe_bytes(15),
            status: maybe_int(16),
            ref_n: maybe_int(17),
            method: maybe_text(18),
            target: maybe_text(19),
            target_salt: maybe_bytes(20),
            target_digest: maybe_bytes(21),
            evidence: maybe_bytes(22),
            evidence_digest: maybe_bytes(23),
        },
    );
    sql.execute("UPDATE entries SET hash = ?1 WHERE n = ?2", (hash, n)).unwrap();
    hash
}
