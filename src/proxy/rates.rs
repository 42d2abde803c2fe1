//! How often somebody may: token buckets in fixed memory, without a lock.
//!
//! A bucket is the time at which it would be full again (GCRA), in a slot that a keyed hash of the name finds. Two names may
//! share a slot, and nobody can choose with whom: with a slot for each of the busiest thousands it hardly happens, and what
//! happens then is that they share a bucket.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::Rate;

/// Buckets of one kind: 128 KiB.
const SLOTS: usize = 16 * 1024;

/// How far apart the times of two requests may be that are served at once.
const APART_US: u64 = 60_000_000;

/// Buckets of one kind.
pub struct Buckets {
    /// Unix µs; empty where no rate is set.
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
    /// For one token.
    interval_us: u64,
    /// For all that a bucket holds.
    whole_us: u64,
}

impl Buckets {
    /// Full buckets.
    pub fn new(rate: Rate) -> Buckets {
        let interval_us = 60_000_000_u64.checked_div(rate.per_minute).unwrap_or(0);
        Buckets {
            slots: (0..if interval_us == 0 { 0 } else { SLOTS }).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            interval_us,
            whole_us: interval_us.saturating_mul(rate.burst.max(1)),
        }
    }

    /// Whether a token is left; else the seconds until one is.
    ///
    /// # Errors
    /// Seconds, at least 1.
    pub fn has(&self, name: &impl Hash, now_ms: u64) -> Result<(), u64> {
        let Some(slot) = self.slot(name) else { return Ok(()) };
        self.after(slot.load(Ordering::Relaxed), now_ms).map(|_| ())
    }

    /// Takes a token.
    ///
    /// # Errors
    /// As [`Buckets::has`]; then nothing is taken.
    pub fn take(&self, name: &impl Hash, now_ms: u64) -> Result<(), u64> {
        let Some(slot) = self.slot(name) else { return Ok(()) };
        let mut full_us = slot.load(Ordering::Relaxed);
        loop {
            let after_us = self.after(full_us, now_ms)?;
            match slot.compare_exchange_weak(full_us, after_us, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(changed) => full_us = changed,
            }
        }
    }

    /// When a bucket that is full at `full_us` is full again after one more token was taken.
    fn after(&self, full_us: u64, now_ms: u64) -> Result<u64, u64> {
        let now_us = now_ms.saturating_mul(1000);
        // Time was set back: it begins anew. Cores may differ by little in what time it is.
        let is_stale = full_us > now_us.saturating_add(self.whole_us).saturating_add(APART_US);
        let full_us = if is_stale { now_us } else { full_us.max(now_us) };
        let after_us = full_us.saturating_add(self.interval_us);
        match after_us.checked_sub(now_us.saturating_add(self.whole_us)) {
            None | Some(0) => Ok(after_us),
            Some(wait_us) => Err(wait_us.div_ceil(1_000_000)),
        }
    }

    fn slot(&self, name: &impl Hash) -> Option<&AtomicU64> {
        let at = usize::try_from(self.hasher.hash_one(name) % SLOTS as u64).ok()?;
        self.slots.get(at)
    }
}

/// The network whose clients share a bucket: IPv4 /24, IPv6 /56. None for this machine: a proxy on it that is not trusted would
/// stand for everybody.
pub fn network(ip: Option<IpAddr>) -> Option<IpAddr> {
    let ip = ip.filter(|ip| !ip.is_loopback())?;
    Some(match ip {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & (u32::MAX << 8))),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 72))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_795_540_000_000;

    #[test]
    fn a_bucket_empties_by_its_burst_and_fills_by_its_rate() {
        let buckets = Buckets::new(Rate { per_minute: 60, burst: 3 });
        for _ in 0..3 {
            assert_eq!(buckets.take(&"a", NOW_MS), Ok(()));
        }
        assert_eq!(buckets.take(&"a", NOW_MS), Err(1));
        assert_eq!(buckets.has(&"a", NOW_MS + 999), Err(1));
        assert_eq!(buckets.has(&"a", NOW_MS + 1000), Ok(()));
        assert_eq!(buckets.take(&"a", NOW_MS + 1000), Ok(()));
        assert_eq!(buckets.take(&"a", NOW_MS + 1000), Err(1));
        // Looking takes nothing, and a long rest gives no more than the burst.
        let later_ms = NOW_MS + 3_600_000;
        for _ in 0..3 {
            assert_eq!((buckets.has(&"a", later_ms), buckets.take(&"a", later_ms)), (Ok(()), Ok(())));
        }
        assert_eq!(buckets.take(&"a", later_ms), Err(1));
        // A clock that was set back locks nobody out.
        assert_eq!(buckets.take(&"a", NOW_MS), Ok(()));
    }

    #[test]
    fn slow_rates_say_when_to_come_back_and_none_is_no_limit() {
        let slow = Buckets::new(Rate { per_minute: 1, burst: 1 });
        assert_eq!((slow.take(&1, NOW_MS), slow.take(&1, NOW_MS + 1)), (Ok(()), Err(60)));
        let none = Buckets::new(Rate { per_minute: 0, burst: 0 });
        assert!((0..1000).all(|_| none.take(&1, NOW_MS).is_ok()) && none.slots.is_empty());
    }

    #[test]
    fn many_threads_take_no_more_than_there_is() {
        let buckets = Buckets::new(Rate { per_minute: 60, burst: 100 });
        let taken = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        if buckets.take(&"a", NOW_MS).is_ok() {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 100);
    }

    #[test]
    fn neighbours_share_a_bucket() {
        let check = |ip: &str, expect: Option<&str>| {
            assert_eq!(network(Some(ip.parse().unwrap())), expect.map(|net| net.parse().unwrap()), "{ip}");
        };
        check("192.0.2.77", Some("192.0.2.0"));
        check("2001:db8:1:2345:6::1", Some("2001:db8:1:2300::"));
        check("127.0.0.1", None);
        check("::1", None);
        assert_eq!(network(None), None);
    }
}
