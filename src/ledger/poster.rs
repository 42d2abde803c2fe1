//! Inside one transaction: entries get their numbers and hashes, and what follows from them is summed.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::{
    batch::{BatchError, sort},
    chain::{self, Hash},
    entry::{Entry, EntryNumber, Kind},
    file::{Head, SLOT},
    rollup::{self, RollupKey, Rollups, Sums},
    rows,
};

/// Numbers, chains and inserts, and keeps the sums of what was inserted.
pub(super) struct Poster<'t, 'e> {
    transaction: &'t Connection,
    head: &'t mut Head,
    rollups: Rollups<&'e str>,
    used: BTreeMap<(&'e str, &'e str, i64), i64>,
}

impl<'t, 'e> Poster<'t, 'e> {
    pub(super) fn new(transaction: &'t Connection, head: &'t mut Head) -> Poster<'t, 'e> {
        Poster { transaction, head, rollups: Rollups::new(), used: BTreeMap::new() }
    }

    pub(super) fn connection(&self) -> &'t Connection {
        self.transaction
    }

    pub(super) fn next_n(&self) -> i64 {
        EntryNumber { slot: SLOT, seq: self.head.seq + 1 }.n()
    }

    /// The number, or `None` when the posting key is taken; then nothing has changed, and the number is free.
    pub(super) fn insert(&mut self, entry: &Entry<'e>) -> Result<Option<i64>, BatchError> {
        let hash: Hash = chain::entry(&self.head.hash, entry);
        if !rows::insert(self.transaction, entry, &hash).map_err(sort)? {
            return Ok(None);
        }
        self.head.hash = hash;
        self.head.seq += 1;
        if let Some(change) = rollup::change(entry) {
            self.rollups.add(RollupKey::of(entry), change);
        }
        let change = match entry.kind {
            Kind::Capture => entry.amount,
            Kind::Void => -entry.amount,
            _ => return Ok(Some(entry.n)),
        };
        let key = (entry.account, entry.asset, entry.period);
        let used = self.used.entry(key).or_default();
        *used = used.checked_add(change).ok_or_else(|| BatchError::Row("a sum is too large".to_owned()))?;
        Ok(Some(entry.n))
    }

    pub(super) fn finish(self) -> rusqlite::Result<()> {
        for ((account, asset, period), change) in &self.used {
            let mut statement = self.transaction.prepare_cached(
                "INSERT INTO account_use VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT DO UPDATE SET used = used + excluded.used",
            )?;
            statement.execute((account, asset, period, change))?;
        }
        for (key, sums) in self.rollups.iter() {
            let mut statement = self.transaction.prepare_cached(
                "INSERT INTO rollups (book_day, account, agent, route, scheme, asset, slot, captures, captured, voids, \
                 voided) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO UPDATE SET \
                 captures = captures + excluded.captures, captured = captured + excluded.captured, \
                 voids = voids + excluded.voids, voided = voided + excluded.voided",
            )?;
            statement.execute((
                key.book_day,
                key.account,
                key.agent,
                key.route,
                key.scheme,
                key.asset,
                key.slot,
                sums.captures,
                sums.captured,
                sums.voids,
                sums.voided,
            ))?;
            add_refunds(self.transaction, key, sums)?;
        }
        Ok(())
    }
}

/// Adds refunds, which are rare, to a row that is there.
fn add_refunds(connection: &Connection, key: &RollupKey<&str>, sums: &Sums) -> rusqlite::Result<()> {
    if (sums.refunds, sums.refunded) == (0, 0) {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "UPDATE rollups SET refunds = refunds + ?8, refunded = refunded + ?9 WHERE book_day = ?1 AND account = ?2 \
         AND agent = ?3 AND route = ?4 AND scheme = ?5 AND asset = ?6 AND slot = ?7",
    )?;
    statement.execute((
        key.book_day,
        key.account,
        key.agent,
        key.route,
        key.scheme,
        key.asset,
        key.slot,
        sums.refunds,
        sums.refunded,
    ))?;
    Ok(())
}
