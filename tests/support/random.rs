//! Numbers that a seed decides.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From `TOLLGATE_TEST_SEED`, and a number that tells this use from others.
    pub fn new(salt: u64) -> Random {
        let seed = seed();
        eprintln!("TOLLGATE_TEST_SEED={seed}");
        Random(seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// From this seed alone.
    pub fn of(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// `TOLLGATE_TEST_SEED`, or the seed of every day.
pub fn seed() -> u64 {
    std::env::var("TOLLGATE_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(8402)
}

/// Whether random tests run far longer.
pub fn is_long() -> bool {
    std::env::var_os("TOLLGATE_TEST_LONG").is_some_and(|v| !v.is_empty())
}
