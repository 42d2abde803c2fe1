//! Inside one transaction: entries get their numbers and hashes, and what follows from them is summed.

use std::collections::{BTreeMap, HashMap};

use super::{
    batch::{BatchError, sort},
    chain::{self, Hash},
    entry::{Entry, EntryNumber, Kind, PostingKey},
    file::Head,
    open_accounts::total_of,
    postgres::{self, bulk},
    rollup::{self, RollupKey, Rollups},
    rows,
    sql::{Session, SqlResult, params},
    top_up,
};

/// Numbers, chains and inserts, and keeps the sums of what was inserted.
pub(super) struct Poster<'t, 'e> {
    transaction: &'t Session,
    slot: i64,
    head: &'t mut Head,
    rollups: Rollups<&'e str>,
    used: BTreeMap<(&'e str, &'e str, i64), i64>,
    /// Of a ledger on a server: rows are inserted all at once, at the end.
    bulk: Option<Bulk<'e>>,
}

/// Rows that wait, and which posting keys are taken and which are not.
struct Bulk<'e> {
    rows: Vec<(Entry<'e>, Hash)>,
    /// Keys that were looked up, with the entry's number where there is one.
    known: HashMap<PostingKey, Option<i64>>,
}

impl<'t, 'e> Poster<'t, 'e> {
    pub(super) fn new(transaction: &'t Session, slot: i64, head: &'t mut Head) -> Poster<'t, 'e> {
        Poster { transaction, slot, head, rollups: Rollups::new(), used: BTreeMap::new(), bulk: None }
    }

    /// Inserts all rows at the end, each call to a server being dear. `keys` are those that will be inserted or asked for, as
    /// far as that is known before. Who else inserts one of them at this moment makes the transaction fail as a conflict.
    pub(super) fn in_bulk(&mut self, keys: &[PostingKey]) -> SqlResult<()> {
        let found = bulk::numbers(self.transaction, keys)?;
        let known = keys.iter().map(|key| (*key, found.get(key).copied())).collect();
        self.bulk = Some(Bulk { rows: Vec::new(), known });
        Ok(())
    }

    /// The number of the posting with this key.
    pub(super) fn find(&self, key: &PostingKey) -> SqlResult<Option<i64>> {
        match self.bulk.as_ref().and_then(|bulk| bulk.known.get(key)) {
            Some(n) => Ok(*n),
            None => {
                let find = "SELECT n FROM entries WHERE key = ?1";
                self.transaction.first(find, params![key.as_bytes()], |row| row.get(0))
            }
        }
    }

    /// Changes what an account has used.
    pub(super) fn change_use(
        &mut self,
        account: &'e str,
        asset: &'e str,
        period: i64,
        change: i64,
    ) -> Result<(), BatchError> {
        let used = self.used.entry((account, asset, period)).or_default();
        *used = used.checked_add(change).ok_or_else(|| BatchError::Row("a sum is too large".to_owned()))?;
        Ok(())
    }

    pub(super) fn connection(&self) -> &'t Session {
        self.transaction
    }

    pub(super) fn slot(&self) -> i64 {
        self.slot
    }

    pub(super) fn next_n(&self) -> i64 {
        EntryNumber { slot: self.slot, seq: self.head.seq + 1 }.n()
    }

    /// The number, or `None` when the posting key is taken; then nothing has changed, and the number is free.
    pub(super) fn insert(&mut self, entry: &Entry<'e>) -> Result<Option<i64>, BatchError> {
        let hash: Hash = chain::entry(&self.head.hash, entry);
        let is_free = match self.bulk {
            None => rows::insert(self.transaction, entry, &hash).map_err(sort)?,
            Some(_) => self.find(&entry.key).map_err(sort)?.is_none(),
        };
        if !is_free {
            return Ok(None);
        }
        if let Some(bulk) = &mut self.bulk {
            bulk.known.insert(entry.key, Some(entry.n));
            bulk.rows.push((entry.clone(), hash));
        }
        self.head.hash = hash;
        self.head.seq += 1;
        if let Some(change) = rollup::change(entry) {
            self.rollups.add(RollupKey::of(entry), change);
        }
        let change = match entry.kind {
            // On a server the claim has taken it already.
            Kind::Capture if self.bulk.is_none() => entry.amount,
            Kind::Void => -entry.amount,
            Kind::Topup => top_up::change(entry),
            _ => return Ok(Some(entry.n)),
        };
        self.change_use(entry.account, entry.asset, entry.period, change)?;
        Ok(Some(entry.n))
    }

    pub(super) fn finish(self) -> SqlResult<()> {
        if let Some(bulk) = &self.bulk {
            postgres::claims::change_use(self.transaction, self.used.into_iter())?;
            bulk::entries(self.transaction, &bulk.rows)?;
            return bulk::rollups(self.transaction, &self.rollups);
        }
        let mut used = self.used.clone();
        for ((account, asset, period), change) in &self.used {
            if let Some(total) = total_of(account) {
                let sum = used.entry((total, asset, *period)).or_default();
                *sum = sum.saturating_add(*change);
            }
        }
        for ((account, asset, period), change) in &used {
            self.transaction.execute(
                "INSERT INTO account_use VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (account, asset, period) DO UPDATE SET used = account_use.used + excluded.used",
                params![account, asset, period, change],
            )?;
        }
        for (key, sums) in self.rollups.iter() {
            self.transaction.execute(
                "INSERT INTO rollups (book_day, account, agent, route, scheme, asset, slot, captures, captured, voids, \
                 voided, refunds, refunded) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT \
                 (book_day, account, agent, route, scheme, asset, slot) DO UPDATE SET \
                 captures = rollups.captures + excluded.captures, captured = rollups.captured + excluded.captured, \
                 voids = rollups.voids + excluded.voids, voided = rollups.voided + excluded.voided, \
                 refunds = rollups.refunds + excluded.refunds, refunded = rollups.refunded + excluded.refunded",
                params![
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
                    sums.refunds,
                    sums.refunded,
                ],
            )?;
        }
        Ok(())
    }
}
