//! How many claims an account dropped lately: each cost an origin call that nobody pays.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{Mutex, PoisonError},
};

/// Drops that an account may have at once.
pub(super) const DROPS_MAX: u64 = 120;
/// Ms in which one drop is forgotten: 120 in a minute.
const FORGET_MS: u64 = 500;
/// Memory is fixed: accounts share buckets, by a hash that nobody outside can foresee.
const BUCKETS: usize = 4096;

/// A leaky bucket for each account.
#[derive(Debug)]
pub(super) struct Drops {
    buckets: Vec<Mutex<Bucket>>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    drops: u64,
    /// Up to when drops have been forgotten.
    at_ms: u64,
}

impl Drops {
    pub(super) fn new() -> Drops {
        Drops { buckets: (0..BUCKETS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Counts a dropped claim.
    pub(super) fn count(&self, account: &str, now_ms: u64) {
        self.with(account, now_ms, |bucket| bucket.drops = (bucket.drops + 1).min(DROPS_MAX));
    }

    /// Whether the account may not claim now.
    pub(super) fn is_throttled(&self, account: &str, now_ms: u64) -> bool {
        self.with(account, now_ms, |bucket| bucket.drops >= DROPS_MAX)
    }

    fn with<T>(&self, account: &str, now_ms: u64, act: impl FnOnce(&mut Bucket) -> T) -> T {
        let index = self.hasher.hash_one(account) as usize % BUCKETS;
        let mut bucket = self.buckets[index].lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = now_ms.saturating_sub(bucket.at_ms) / FORGET_MS;
        if bucket.drops <= forgotten {
            *bucket = Bucket { drops: 0, at_ms: now_ms };
        } else {
            bucket.drops -= forgotten;
            bucket.at_ms += forgotten * FORGET_MS;
        }
        act(&mut bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_throttles_one_account_until_a_drop_is_forgotten() {
        let drops = Drops::new();
        for _ in 0..DROPS_MAX {
            assert!(!drops.is_throttled("a", 1000));
            drops.count("a", 1000);
        }
        assert!(drops.is_throttled("a", 1499));
        assert!(!drops.is_throttled("a", 1500));
        drops.count("a", 1500);
        assert!(drops.is_throttled("a", 1500));
        assert!(!drops.is_throttled("a", 70_000));
    }
}
