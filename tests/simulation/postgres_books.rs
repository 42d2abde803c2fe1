//! The tables of a ledger on a server, as the equations look at them.

use tollgate::{
    ledger::{close::HeadRecord, correction::State, entry::PostingKey, outcomes, store::Delivery},
    payment::key::PaymentKey,
};

use super::{
    postgres::ByName,
    postgres_server::Database,
    stores::{Books, Closed, Open, Posted, Rollup, Stated, Writer, change},
};

/// One transaction, one call: everything as it is at one moment.
const ALL: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; \
    SELECT replay_floor_ms FROM book; \
    SELECT slot, epoch, seq, at_ms, open_day, secret_fps FROM writers ORDER BY slot; \
    SELECT n, key, at_ms, book_day, account, asset, scheme, amount, period, ref_n, status FROM entries ORDER BY n; \
    SELECT key, state, account, asset, period, amount FROM claims WHERE state IN ('r', 's', 'u'); \
    SELECT outcomes FROM batches WHERE outcomes IS NOT NULL; \
    SELECT book_day, account, asset, captured - voided - refunded FROM rollups; \
    SELECT from_day, until, heads FROM closes ORDER BY until; \
    SELECT account, asset, total FROM statements; \
    SELECT account, asset, period, used FROM account_use; \
    COMMIT";

/// What was read.
pub struct Read {
    pub books: Books,
    /// The slot of each process.
    pub slots: ByName,
}

struct Row(Vec<Option<String>>);

impl Row {
    fn text(&self, column: usize) -> String {
        self.0[column].clone().unwrap()
    }

    fn number(&self, column: usize) -> i64 {
        self.maybe(column).unwrap()
    }

    fn maybe(&self, column: usize) -> Option<i64> {
        self.0[column].as_ref().map(|text| text.parse().unwrap())
    }

    fn bytes(&self, column: usize) -> Vec<u8> {
        let text = self.text(column);
        let hex = text.strip_prefix("\\x").unwrap();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }
}

/// Everything that the equations look at.
pub fn read(database: &mut Database) -> Read {
    let mut answers = database.answers(ALL).into_iter().skip(1).map(|rows| rows.into_iter().map(Row));
    let mut next = || answers.next().unwrap();
    let mut books = Books { floor_ms: next().next().unwrap().number(0), ..Books::default() };
    let mut slots = ByName::new();
    for row in next() {
        let (slot, epoch, seq) = (row.number(0), row.number(1), row.number(2));
        books.writers.push(Writer { slot, epoch, seq, at_ms: row.number(3), open_day: row.number(4) });
        if row.0[5].is_some() {
            slots.insert(row.text(5), slot);
        }
    }
    for row in next() {
        let key = PostingKey::from_bytes(&row.bytes(1)).unwrap();
        let (amount, status) = (row.number(7), row.maybe(10));
        books.entries.push(Posted {
            n: row.number(0),
            kind: key.kind(),
            key: key.payment(),
            at_ms: row.number(2),
            day: row.number(3),
            account: row.text(4),
            asset: row.text(5),
            scheme: row.text(6),
            amount,
            change: change(key.kind(), key.number(), status == Some(State::Failed.code()), amount),
            period: row.number(8),
            ref_n: row.maybe(9),
        });
    }
    let mut live = std::collections::BTreeMap::new();
    for row in next() {
        let key = PaymentKey::from_bytes(&row.bytes(0)).unwrap();
        let (period, amount) = (row.number(4), row.number(5));
        match row.text(1).as_str() {
            "r" => _ = live.insert(key, amount),
            _ => _ = books.open.insert(key, Open { account: row.text(2), asset: row.text(3), period, amount }),
        }
    }
    books.live = Some(live);
    for row in next() {
        let records = outcomes::decode(&row.bytes(0)).unwrap();
        books.outcomes.extend(records.iter().map(|record| (record.n, record.delivery)));
    }
    books.outcomes.sort_by_key(|(n, _): &(i64, Delivery)| *n);
    for row in next() {
        let rollup = Rollup { day: row.number(0), account: row.text(1), asset: row.text(2), net: row.number(3) };
        books.rollups.push(rollup);
    }
    for row in next() {
        let heads = HeadRecord::decode_all(&row.bytes(2)).unwrap();
        let heads = heads.iter().map(|head| (head.slot, head.seq)).collect();
        books.closes.push(Closed { from: row.number(0), until: row.number(1), heads });
    }
    for row in next() {
        books.statements.push(Stated { account: row.text(0), asset: row.text(1), total: row.number(2) });
    }
    for row in next() {
        books.used.insert((row.text(0), row.text(1), row.number(2)), row.number(3));
    }
    Read { books, slots }
}
