//! A chain that is written anew, as whoever forges books would; in a file or on a server.

use tollgate::ledger::{
    chain::{self, Batch, Hash},
    entry::{Entry, Kind, PostingKey},
};

/// A row as text: numbers in decimal, bytes in hexadecimal.
pub type Row = Vec<Option<String>>;

/// Books that can be read and changed beside their gateway.
pub trait Books {
    /// What a statement returns.
    fn rows(&self, sql: &str) -> Vec<Row>;
    /// Runs statements; how many rows they changed.
    fn change(&self, sql: &str) -> u64;
}

impl Books for rusqlite::Connection {
    fn rows(&self, sql: &str) -> Vec<Row> {
        use rusqlite::types::ValueRef;
        let mut statement = self.prepare(sql).unwrap();
        let columns = statement.column_count();
        let text = |value: ValueRef<'_>| match value {
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(number.to_string()),
            ValueRef::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
            ValueRef::Blob(bytes) => Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
            ValueRef::Real(_) => panic!("the books have no fractions"),
        };
        let read = |row: &rusqlite::Row<'_>| (0..columns).map(|i| row.get_ref(i).map(text)).collect();
        statement.query_map((), read).unwrap().map(Result::unwrap).collect()
    }

    fn change(&self, sql: &str) -> u64 {
        let before = self.total_changes();
        self.execute_batch(sql).unwrap();
        self.total_changes() - before
    }
}

/// The bytes of a column.
pub fn bytes(column: &Option<String>) -> Vec<u8> {
    let hex = column.as_ref().unwrap();
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// As they stand in a statement.
pub fn literal(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{hex}'")
}

/// Computes every hash of writer 1 anew, as whoever forges books would.
pub fn rechain(books: &impl Books) {
    let id: [u8; 16] = bytes(&books.rows("SELECT ledger_id FROM book")[0][0]).try_into().unwrap();
    let mut hash: Hash = chain::genesis(&id, 1);
    let entries = books.rows("SELECT * FROM entries ORDER BY n");
    let mut changes = String::new();
    let batches = "SELECT slot, batch_seq, n_first, n_last, at_ms, outcomes FROM batches ORDER BY batch_seq";
    for row in books.rows(batches) {
        let outcomes = row[5].is_some().then(|| bytes(&row[5]));
        let batch = Batch {
            slot: int(&row[0]).unwrap(),
            batch_seq: int(&row[1]).unwrap(),
            n_first: int(&row[2]),
            n_last: int(&row[3]),
            at_ms: int(&row[4]).unwrap(),
            outcomes: outcomes.as_deref(),
        };
        if let (Some(first), Some(last)) = (batch.n_first, batch.n_last) {
            for entry in entries.iter().filter(|entry| (first..=last).contains(&int(&entry[0]).unwrap())) {
                hash = relinked(entry, &hash);
                let n = entry[0].as_ref().unwrap();
                changes += &format!("UPDATE entries SET hash = {} WHERE n = {n};", literal(&hash));
            }
        }
        hash = chain::batch(&hash, &batch);
        changes += &format!("UPDATE batches SET head = {} WHERE batch_seq = {};", literal(&hash), batch.batch_seq);
    }
    changes += &format!("UPDATE writers SET head = {}", literal(&hash));
    books.change(&changes);
}

fn int(column: &Option<String>) -> Option<i64> {
    column.as_ref().map(|number| number.parse().unwrap())
}

fn relinked(row: &Row, previous: &Hash) -> Hash {
    let text = |i: usize| row[i].as_deref().unwrap();
    let number = |i: usize| int(&row[i]).unwrap();
    let blob = |i: usize| row[i].is_some().then(|| bytes(&row[i]));
    let blobs = [15, 20, 21, 22, 23].map(blob);
    let [table_hash, target_salt, target_digest, evidence, evidence_digest] = blobs.each_ref().map(Option::as_deref);
    let entry = Entry {
        n: number(0),
        key: PostingKey::from_bytes(&bytes(&row[1])).unwrap(),
        kind: Kind::from_number(number(2)).unwrap(),
        at_ms: number(3),
        wall_ms: number(4),
        book_day: number(5),
        account: text(6),
        agent: text(7),
        agent_key: row[8].as_deref(),
        route: text(9),
        scheme: text(10),
        asset: text(11),
        amount: number(12),
        list_amount: int(&row[13]),
        period: number(14),
        table_hash,
        status: int(&row[16]),
        ref_n: int(&row[17]),
        method: row[18].as_deref(),
        target: row[19].as_deref(),
        target_salt,
        target_digest,
        evidence,
        evidence_digest,
    };
    chain::entry(previous, &entry)
}
