//! What a batch writes, each table in one statement: a call to a server costs as much as a row.

use std::collections::HashMap;

use crate::ledger::{
    chain::Hash,
    entry::{Entry, PostingKey},
    rollup::{RollupKey, Rollups, Sums},
    sql::{Session, SqlResult, Value},
};

/// Inserts entries into a ledger on a server; a posting key that is taken is an error.
pub(in crate::ledger) fn entries(connection: &Session, rows: &[(Entry<'_>, Hash)]) -> SqlResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    fn of<'r, T>(rows: &'r [(Entry<'_>, Hash)], of: impl Fn(&'r Entry<'r>) -> Option<T>) -> Vec<Option<T>> {
        rows.iter().map(|(entry, _)| of(entry)).collect()
    }
    let hashes: Vec<Option<&[u8]>> = rows.iter().map(|(_, hash)| Some(&hash[..])).collect();
    let values = [
        Value::Ints(&of(rows, |e| Some(e.n))),
        Value::Blobs(&of(rows, |e| Some(e.key.as_bytes()))),
        Value::Ints(&of(rows, |e| Some(e.kind as i64))),
        Value::Ints(&of(rows, |e| Some(e.at_ms))),
        Value::Ints(&of(rows, |e| Some(e.wall_ms))),
        Value::Ints(&of(rows, |e| Some(e.book_day))),
        Value::Texts(&of(rows, |e| Some(e.account))),
        Value::Texts(&of(rows, |e| Some(e.agent))),
        Value::Texts(&of(rows, |e| e.agent_key)),
        Value::Texts(&of(rows, |e| Some(e.route))),
        Value::Texts(&of(rows, |e| Some(e.scheme))),
        Value::Texts(&of(rows, |e| Some(e.asset))),
        Value::Ints(&of(rows, |e| Some(e.amount))),
        Value::Ints(&of(rows, |e| e.list_amount)),
        Value::Ints(&of(rows, |e| Some(e.period))),
        Value::Blobs(&of(rows, |e| e.table_hash)),
        Value::Ints(&of(rows, |e| e.status)),
        Value::Ints(&of(rows, |e| e.ref_n)),
        Value::Texts(&of(rows, |e| e.method)),
        Value::Texts(&of(rows, |e| e.target)),
        Value::Blobs(&of(rows, |e| e.target_salt)),
        Value::Blobs(&of(rows, |e| e.target_digest)),
        Value::Blobs(&of(rows, |e| e.evidence)),
        Value::Blobs(&of(rows, |e| e.evidence_digest)),
        Value::Blobs(&hashes),
    ];
    let insert = "INSERT INTO entries SELECT * FROM unnest(?1::bigint[], ?2::bytea[], ?3::bigint[], ?4::bigint[], \
                  ?5::bigint[], ?6::bigint[], ?7::text[], ?8::text[], ?9::text[], ?10::text[], ?11::text[], ?12::text[], \
                  ?13::bigint[], ?14::bigint[], ?15::bigint[], ?16::bytea[], ?17::bigint[], ?18::bigint[], ?19::text[], \
                  ?20::text[], ?21::bytea[], ?22::bytea[], ?23::bytea[], ?24::bytea[], ?25::bytea[])";
    connection.execute(insert, &values).map(drop)
}

/// The numbers of those of these postings that stand in a ledger on a server.
pub(in crate::ledger) fn numbers(connection: &Session, keys: &[PostingKey]) -> SqlResult<HashMap<PostingKey, i64>> {
    let keys: Vec<Option<&[u8]>> = keys.iter().map(|key| Some(key.as_bytes())).collect();
    let find = "SELECT key, n FROM entries WHERE key = ANY(?1)";
    let found =
        connection.all(find, &[Value::Blobs(&keys)], |row| Ok((PostingKey::from_bytes(row.get(0)?), row.get(1)?)))?;
    Ok(found.into_iter().filter_map(|(key, n)| Some((key?, n))).collect())
}

/// Adds sums to the roll-ups, in the order of their keys.
pub(in crate::ledger) fn rollups(connection: &Session, rollups: &Rollups<&str>) -> SqlResult<()> {
    let rows: Vec<(&RollupKey<&str>, &Sums)> = rollups.iter().collect();
    if rows.is_empty() {
        return Ok(());
    }
    let ints = |of: fn(&RollupKey<&str>, &Sums) -> i64| -> Vec<Option<i64>> {
        rows.iter().map(|(key, sums)| Some(of(key, sums))).collect()
    };
    fn texts<'r>(
        rows: &[(&RollupKey<&'r str>, &Sums)],
        of: fn(&RollupKey<&'r str>) -> &'r str,
    ) -> Vec<Option<&'r str>> {
        rows.iter().map(|(key, _)| Some(of(key))).collect()
    }
    let values = [
        Value::Ints(&ints(|key, _| key.book_day)),
        Value::Texts(&texts(&rows, |key| key.account)),
        Value::Texts(&texts(&rows, |key| key.agent)),
        Value::Texts(&texts(&rows, |key| key.route)),
        Value::Texts(&texts(&rows, |key| key.scheme)),
        Value::Texts(&texts(&rows, |key| key.asset)),
        Value::Ints(&ints(|key, _| key.slot)),
        Value::Ints(&ints(|_, sums| sums.captures)),
        Value::Ints(&ints(|_, sums| sums.captured)),
        Value::Ints(&ints(|_, sums| sums.voids)),
        Value::Ints(&ints(|_, sums| sums.voided)),
        Value::Ints(&ints(|_, sums| sums.refunds)),
        Value::Ints(&ints(|_, sums| sums.refunded)),
    ];
    let add = "INSERT INTO rollups AS r (book_day, account, agent, route, scheme, asset, slot, captures, captured, voids, \
               voided, refunds, refunded) SELECT * FROM unnest(?1::bigint[], ?2::text[], ?3::text[], ?4::text[], \
               ?5::text[], ?6::text[], ?7::bigint[], ?8::bigint[], ?9::bigint[], ?10::bigint[], ?11::bigint[], \
               ?12::bigint[], ?13::bigint[]) ON CONFLICT (book_day, account, agent, route, scheme, asset, slot) \
               DO UPDATE SET captures = r.captures + excluded.captures, captured = r.captured + excluded.captured, \
               voids = r.voids + excluded.voids, voided = r.voided + excluded.voided, \
               refunds = r.refunds + excluded.refunds, refunded = r.refunded + excluded.refunded";
    connection.execute(add, &values).map(drop)
}
