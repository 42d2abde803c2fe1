//! What gateways that are gone have left: freed, or handed on. Only here is a claim ended that its own gateway did not end.

use std::collections::HashSet;

use super::{bulk, claims::give_back, lease::NOW_MS};
use crate::{
    ledger::{
        entry::{Kind, PostingKey},
        outcomes,
        sql::{Begin, Session, SqlResult, Value, params},
        steps,
    },
    payment::key::PaymentKey,
};

/// Rows that one transaction looks at.
const ROWS: i64 = 1000;

/// Captures of gateways that are gone: of those whose outcome is not in the books nobody knows whether the answer left, so that
/// it can be had once more. How many there are.
pub(super) fn reckon(session: &Session) -> SqlResult<u64> {
    let writers = format!("SELECT slot, CASE WHEN lease_until < {NOW_MS} THEN epoch ELSE epoch - 1 END FROM writers");
    let writers = session.all(&writers, &[], |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)))?;
    let mut found = 0;
    for (slot, gone) in writers {
        let transaction = session.begin(Begin::Write)?;
        transaction.run("SET LOCAL synchronous_commit = off")?;
        let captured = "SELECT key, n FROM claims WHERE state = 'c' AND epoch > 0 AND slot = ?1 AND epoch <= ?2 \
                        ORDER BY key LIMIT ?3 FOR UPDATE SKIP LOCKED";
        let captured = transaction
            .all(captured, params![slot, gone, ROWS], |row| Ok((row.get::<Vec<u8>>(0)?, row.get::<i64>(1)?)))?;
        let Some(first) = captured.iter().map(|(_, n)| *n).min() else { continue };
        let told = told_since(&transaction, slot, first)?;
        let over = over(&transaction, captured.iter().filter(|(_, n)| !told.contains(n)))?;
        let keys: Vec<Option<&[u8]>> = captured.iter().map(|(key, _)| Some(&key[..])).collect();
        let states: Vec<Option<&str>> = captured
            .iter()
            .map(|(_, n)| Some(if *n == 0 || told.contains(n) || over.contains(n) { "c" } else { "o" }))
            .collect();
        transaction.execute(
            "UPDATE claims c SET state = u.state, epoch = -c.epoch FROM unnest(?1::bytea[], ?2::text[]) AS u(key, state) \
             WHERE c.key = u.key AND c.state = 'c' AND c.epoch > 0",
            &[Value::Blobs(&keys), Value::Texts(&states)],
        )?;
        transaction.commit()?;
        found += states.iter().filter(|state| **state == Some("o")).count() as u64;
    }
    Ok(found)
}

/// Those of these captures whose answer is not to be had any more, told or not: served again or lapsed, voided, refunded.
fn over<'a>(session: &Session, captures: impl Iterator<Item = &'a (Vec<u8>, i64)>) -> SqlResult<HashSet<i64>> {
    let payments: Vec<(PaymentKey, i64)> =
        captures.filter_map(|(key, n)| Some((PaymentKey::from_bytes(key)?, *n))).collect();
    let ends = [Kind::Void, Kind::Redelivered, Kind::Lapsed];
    let ends: Vec<PostingKey> =
        payments.iter().flat_map(|(payment, _)| ends.map(|kind| PostingKey::new(kind, payment, 0))).collect();
    let ended: HashSet<PaymentKey> = bulk::numbers(session, &ends)?.keys().map(PostingKey::payment).collect();
    let mut over = HashSet::new();
    for (payment, n) in payments {
        if ended.contains(&payment) || steps::is_refunded(session, &payment)? {
            over.insert(n);
        }
    }
    Ok(over)
}

/// Captures of a slot, from this one on, whose outcome is in the books.
fn told_since(session: &Session, slot: i64, first: i64) -> SqlResult<HashSet<i64>> {
    let batch = "SELECT batch_seq FROM batches WHERE slot = ?1 AND n_first <= ?2 ORDER BY batch_seq DESC LIMIT 1";
    let batch: i64 = session.first(batch, params![slot, first], |row| row.get(0))?.unwrap_or_default();
    let outcomes = "SELECT outcomes FROM batches WHERE slot = ?1 AND batch_seq >= ?2 AND outcomes IS NOT NULL";
    let records = session.all(outcomes, params![slot, batch], |row| Ok(outcomes::decode(row.get(0)?)))?;
    Ok(records.into_iter().flatten().flatten().map(|record| record.n).collect())
}

/// Frees what dead slots, and tasks that overstayed every deadline, still hold, and gives the credit back; drops what is below
/// the replay floor. How many rows were touched.
pub(super) fn sweep(session: &Session) -> SqlResult<u64> {
    let transaction = session.begin(Begin::Write)?;
    transaction.run("SET LOCAL synchronous_commit = off")?;
    // Locked in the order of their keys; what another transaction has in hand is looked at the next time.
    let dead = format!(
        "SELECT c.key, c.state FROM claims c JOIN writers w ON w.slot = c.slot \
         WHERE c.state IN ('r', 's', 'v') AND (c.epoch <> w.epoch OR w.lease_until < {NOW_MS} \
         OR (c.state <> 's' AND c.hard_until_ms < {NOW_MS})) ORDER BY c.key LIMIT {ROWS} FOR UPDATE OF c SKIP LOCKED"
    );
    let dead = transaction.all(&dead, &[], |row| Ok((row.get::<Vec<u8>>(0)?, row.get::<String>(1)?)))?;
    let mut touched = 0;
    let mut freed = Vec::new();
    for (key, state) in &dead {
        let next = match state.as_str() {
            // It was never captured, and can't be any more: the fence looks for this state.
            "r" => "f",
            "s" => "u",
            _ => "o",
        };
        let update = "UPDATE claims SET state = ?2, doubtful = CASE WHEN ?2 = 'u' THEN 1 ELSE 0 END WHERE key = ?1 \
                      RETURNING account, asset, period, amount";
        let held = transaction.one(update, params![key, next], |row| {
            Ok((row.get::<String>(0)?, row.get::<String>(1)?, row.get::<i64>(2)?, row.get::<i64>(3)?))
        })?;
        touched += 1;
        if next == "f" {
            freed.push(held);
        }
    }
    touched += transaction.execute(
        "DELETE FROM claims WHERE key IN (SELECT key FROM claims \
         WHERE paid_at_ms < (SELECT replay_floor_ms FROM book) AND state IN ('c', 'f', 'b') ORDER BY key LIMIT ?1 FOR UPDATE SKIP LOCKED)",
        params![ROWS * 5],
    )?;
    // Behind all rows of claims, as everywhere.
    let freed =
        freed.iter().map(|(account, asset, period, amount)| (account.as_str(), asset.as_str(), *period, *amount));
    give_back(&transaction, freed)?;
    transaction.commit()?;
    Ok(touched)
}
