//! What each account owes in each period: captures that are stored, and claims in memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{day, open_accounts::total_of, passes::is_of_pass};
use crate::wire::amount::{Asset, Units};

/// Who, of what, in which period.
pub(super) type UseKey = (Arc<str>, Asset, i64);

/// `used` = stored + claimed. Claimed is never negative, and stored is so only where more was paid in than bought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    /// Captures less voids and top-ups, as `account_use` has it.
    stored: i64,
    /// Live claims.
    claimed: i64,
}

/// Grows with the accounts and the periods in which they bought; periods long past are dropped.
#[derive(Debug, Default)]
pub(super) struct Credit {
    table: Mutex<HashMap<UseKey, Use>>,
    /// When the passes are over whose requests are counted here, Unix ms, by the entries that bought them.
    passes: Mutex<HashMap<i64, u64>>,
    /// A database that several gateways share keeps it.
    elsewhere: bool,
}

impl Credit {
    pub(super) fn new(elsewhere: bool) -> Credit {
        Credit { elsewhere, ..Credit::default() }
    }

    pub(super) fn is_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// Takes `amount`, or says what is used already, of which limit; nothing of a balance. An open account also takes it `within` the total of all of
    /// them.
    pub(super) fn take(
        &self,
        key: &UseKey,
        amount: Units,
        limit: Units,
        within: Option<Units>,
    ) -> Result<(), (i64, Units)> {
        if self.elsewhere {
            return Ok(());
        }
        let mut table = self.lock();
        let limits = [Some(limit), within];
        for (key, limit) in counted(key).zip(limits).filter_map(|(key, limit)| Some((key, limit?))) {
            let now = table.get(&key).copied().unwrap_or_default();
            let used = now.stored.saturating_add(now.claimed);
            if used.checked_add(amount.get()).is_none_or(|sum| sum > limit.get()) {
                return Err((used, limit));
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

    /// A top-up is stored.
    pub(super) fn top_up(&self, key: &UseKey, amount: Units) {
        if self.elsewhere {
            return;
        }
        let mut table = self.lock();
        let now = table.entry(key.clone()).or_default();
        now.stored = now.stored.saturating_sub(amount.get());
    }

    /// What is left of a balance; `None` where a database knows.
    pub(super) fn balance(&self, key: &UseKey) -> Option<i64> {
        let used = |now: &Use| now.stored.saturating_add(now.claimed);
        (!self.elsewhere).then(|| -self.lock().get(key).map_or(0, used))
    }

    /// A pass was found in the ledger; until it is over, what is known of it here stands.
    pub(super) fn know(&self, key: &UseKey, stored: i64, ends_ms: u64) {
        if self.elsewhere {
            return;
        }
        let mut table = self.lock();
        table.entry(key.clone()).or_insert(Use { stored, claimed: 0 });
        // Under the lock of the table, or a sweep in between would drop what nobody looks up again.
        self.passes.lock().unwrap_or_else(PoisonError::into_inner).insert(key.2, ends_ms);
    }

    /// Claimed and captured.
    pub(super) fn used(&self, key: &UseKey) -> Units {
        self.lock().get(key).map_or(Units::ZERO, |now| units(now.stored.saturating_add(now.claimed)))
    }

    /// Sets what is stored to what the ledger says; claims stay. Passes are not among the rows, unless they were asked for here.
    pub(super) fn load(&self, rows: Vec<(UseKey, i64)>) {
        let mut table = self.lock();
        table.values_mut().for_each(|now| now.stored = 0);
        for (key, stored) in rows {
            table.entry(key).or_default().stored = stored;
        }
    }

    /// The passes that were asked for.
    pub(super) fn passes(&self) -> Vec<UseKey> {
        self.lock().keys().filter(|key| is_of_pass(key.2)).cloned().collect()
    }

    /// Drops periods before these, `(day, month)`, and passes that were over before this time, that nothing claims any more.
    pub(super) fn sweep(&self, oldest: (i64, i64), passes_ms: u64) {
        let mut table = self.lock();
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |period: i64| passes.get(&period).is_none_or(|ends_ms| *ends_ms < passes_ms);
        table.retain(|(_, _, period), now| {
            let is_past = if is_of_pass(*period) { is_over(*period) } else { is_before(*period, oldest) };
            now.claimed != 0 || !is_past
        });
        passes.retain(|_, ends_ms| *ends_ms >= passes_ms);
    }

    fn change(&self, key: &UseKey, change: impl Fn(&mut Use)) {
        let mut table = self.lock();
        for key in counted(key) {
            if let Entry::Occupied(mut occupied) = table.entry(key) {
                change(occupied.get_mut());
                // What is known of a pass is not looked up again, and an empty balance is still one.
                let stays = is_of_pass(occupied.key().2) || occupied.key().2 == day::BALANCE;
                if *occupied.get() == Use::default() && !stays {
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
pub(super) fn is_before(period: i64, oldest: (i64, i64)) -> bool {
    period != day::BALANCE && period < if period > 999_999 { oldest.0 } else { oldest.1 }
}

pub(super) fn units(count: i64) -> Units {
    Units::new(count.max(0)).unwrap_or(Units::ZERO)
}
