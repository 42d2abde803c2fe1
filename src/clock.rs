//! The only reader of time.
//!
//! Time in a running process is the wall clock at start, advanced by the monotonic clock: a wall clock that is set wrong
//! while we run can neither age a payment nor move a book day.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// A cheap handle; clones tell the same time.
#[derive(Clone)]
pub struct Clock(Arc<Source>);

enum Source {
    System {
        start: Instant,
        /// Unix ms at `start`; moved by [`Clock::accept_wall`] only.
        anchor_ms: AtomicU64,
    },
    Manual {
        now_ms: AtomicU64,
        /// Wall clock minus process time.
        wall_offset_ms: AtomicI64,
    },
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Clock {
        Clock(Arc::new(Source::System { start: Instant::now(), anchor_ms: AtomicU64::new(system_wall_ms()) }))
    }

    /// A clock for tests that stands still at `start_ms` (Unix ms) until it is moved.
    pub fn manual(start_ms: u64) -> Clock {
        Clock(Arc::new(Source::Manual { now_ms: AtomicU64::new(start_ms), wall_offset_ms: AtomicI64::new(0) }))
    }

    /// Unix ms of this process: never falls, unless [`Clock::accept_wall`] says so.
    pub fn now_ms(&self) -> u64 {
        match &*self.0 {
            Source::System { start, anchor_ms } => {
                let elapsed = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                anchor_ms.load(Ordering::Relaxed).saturating_add(elapsed)
            }
            Source::Manual { now_ms, .. } => now_ms.load(Ordering::Relaxed),
        }
    }

    /// Unix ms as the machine's wall clock tells it now, right or wrong.
    pub fn wall_ms(&self) -> u64 {
        match &*self.0 {
            Source::System { .. } => system_wall_ms(),
            Source::Manual { now_ms, wall_offset_ms } => {
                now_ms.load(Ordering::Relaxed).saturating_add_signed(wall_offset_ms.load(Ordering::Relaxed))
            }
        }
    }

    /// Makes the wall clock of now the time of this process; the operator's word that it is right.
    pub fn accept_wall(&self) {
        let wall_ms = self.wall_ms();
        match &*self.0 {
            Source::System { start, anchor_ms } => {
                let elapsed = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                anchor_ms.store(wall_ms.saturating_sub(elapsed), Ordering::Relaxed);
            }
            Source::Manual { now_ms, wall_offset_ms } => {
                now_ms.store(wall_ms, Ordering::Relaxed);
                wall_offset_ms.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Moves a manual clock forward, wall clock included; a system clock ignores it.
    pub fn advance(&self, ms: u64) {
        if let Source::Manual { now_ms, .. } = &*self.0 {
            now_ms.fetch_add(ms, Ordering::Relaxed);
        }
    }

    /// Sets the wall clock of a manual clock `offset_ms` apart from process time; a system clock ignores it.
    pub fn step_wall(&self, offset_ms: i64) {
        if let Source::Manual { wall_offset_ms, .. } = &*self.0 {
            wall_offset_ms.store(offset_ms, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({} ms)", self.now_ms())
    }
}

/// Zero for a clock before 1970.
fn system_wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_step_does_not_move_process_time_until_accepted() {
        let clock = Clock::manual(1_000_000);
        clock.step_wall(-400_000);
        assert_eq!((clock.now_ms(), clock.wall_ms()), (1_000_000, 600_000));
        clock.accept_wall();
        clock.advance(5);
        assert_eq!((clock.now_ms(), clock.wall_ms()), (600_005, 600_005));
    }

    #[test]
    fn the_system_clock_agrees_with_the_wall() {
        let clock = Clock::system();
        assert!(clock.now_ms().abs_diff(clock.wall_ms()) < 60_000);
        clock.accept_wall();
        assert!(clock.now_ms().abs_diff(clock.wall_ms()) < 60_000);
    }
}
