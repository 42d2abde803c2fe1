//! What each account owes in each period: captures that are stored, and claims in memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::open_accounts::total_of;
use crate::wire::amount::{Asset, Units};

/// Who, of what, in which period.
pub(super) type UseKey = (Arc<str>, Asset, u32);

/// `used` = stored + claimed, both never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    /// Captures less voids, as `account_use` has it.
    stored: i64,
    /// Live claims.
    claimed: i64,
}

/// Grows with the accounts and the periods in which they bought; periods long past are dropped.
#[derive(Debug, Default)]
pub(super) struct Credit {
    table: Mutex<HashMap<UseKey, Use>>,
    /// A database that several gateways share keeps it.
    elsewhere: bool,
}

impl Credit {
    pub(super) fn new(elsewhere: bool) -> Credit {
        Credit { table: Mutex::default(), elsewhere }
    }

    pub(super) fn is_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// Takes `amount`, or says what is used already, of which limit. An open account also takes it `within` the total of all of
    /// them.
    pub(super) fn take(
        &self,
        key: &UseKey,
        amount: Units,
        limit: Units,
        within: Option<Units>,
    ) -> Result<(), (Units, Units)> {
        if self.elsewhere {
            return Ok(());
        }
        let mut table = self.lock();
        let limits = [Some(limit), within];
        for (key, limit) in counted(key).zip(limits).filter_map(|(key, limit)| Some((key, limit?))) {
            let now = table.get(&key).copied().unwrap_or_default();
            let used = now.stored.saturating_add(now.claimed);
            if used.checked_add(amount.get()).is_none_or(|sum| sum > limit.get()) {
                return Err((units(used), limit));
            }
        }
        for key in counted(key) {
            let now = table.entry(key).or_default();
            now.claimed = now.claimed.saturating_add(amount.get());
        }
        Ok(())
    }

    /// A claim of an earlier process that has not ended.
    pub(super) fn claim_again(&self, key: &UseKey, amount: Units) {
        let mut table = self.lock();
        for key in counted(key) {
            let now = table.entry(key).or_default();
            now.claimed = now.claimed.saturating_add(amount.get());
        }
    }

    /// A claim ended and `captured` of it is stored now; zero for a release.
    pub(super) fn settle(&self, key: &UseKey, claimed: Units, captured: Units) {
        self.change(key, |now| {
            now.claimed -= claimed.get();
            now.stored = now.stored.saturating_add(captured.get());
        });
    }

    /// A void is stored.
    pub(super) fn void(&self, key: &UseKey, amount: i64) {
        self.change(key, |now| now.stored = now.stored.saturating_sub(amount));
    }

    /// Claimed and captured.
    pub(super) fn used(&self, key: &UseKey) -> Units {
        self.lock().get(key).map_or(Units::ZERO, |now| units(now.stored.saturating_add(now.claimed)))
    }

    /// Sets what is stored to what the ledger says; claims stay.
    pub(super) fn load(&self, rows: Vec<(UseKey, i64)>) {
        let mut table = self.lock();
        table.values_mut().for_each(|now| now.stored = 0);
        for (key, stored) in rows {
            table.entry(key).or_default().stored = stored;
        }
    }

    /// Drops periods before these, `(day, month)`, that nothing claims any more.
    pub(super) fn sweep(&self, oldest: (u32, u32)) {
        self.lock().retain(|(_, _, period), now| now.claimed != 0 || !is_before(*period, oldest));
    }

    fn change(&self, key: &UseKey, change: impl Fn(&mut Use)) {
        let mut table = self.lock();
        for key in counted(key) {
            if let Entry::Occupied(mut occupied) = table.entry(key) {
                change(occupied.get_mut());
                if *occupied.get() == Use::default() {
                    occupied.remove();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UseKey, Use>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a change counts: for the account, and for all open ones if it is one of them.
fn counted(key: &UseKey) -> impl Iterator<Item = UseKey> + use<> {
    let total = total_of(&key.0).map(|total| (Arc::from(total), key.1.clone(), key.2));
    [key.clone()].into_iter().chain(total)
}

/// Whether a period, `20261124` or `202611`, lies before `(day, month)` of its form.
pub(super) fn is_before(period: u32, oldest: (u32, u32)) -> bool {
    period < if period > 999_999 { oldest.0 } else { oldest.1 }
}

fn units(count: i64) -> Units {
    Units::new(count.max(0)).unwrap_or(Units::ZERO)
}
