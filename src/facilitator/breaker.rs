//! A facilitator that fails again and again is left alone for a while.
//!
//! ```text
//! closed --failures in a row--> open --hold--> one probe --success--> closed
//!                                 ^               |
//!                                 '-- hold × 2 ---'
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::state::Limits;

/// The state of one facilitator's breaker.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Failures in a row.
    failures: u32,
    /// Until when nothing is asked, and how long that was since it opened or failed its probe; `None` while closed.
    open: Option<(Instant, Duration)>,
    /// A probe is under way.
    probing: bool,
}

impl Breaker {
    /// Whether a call may be made; else how long to wait.
    pub(super) fn available(&self, now: Instant) -> Result<(), Duration> {
        match self.open {
            Some((until, _)) if now < until => Err(until - now),
            Some(_) if self.probing => Err(Duration::from_secs(1)),
            _ => Ok(()),
        }
    }

    /// As [`Breaker::available`], and takes the turn: true for the probe, whose end must be told to [`Breaker::ended`].
    pub(super) fn admit(&mut self, now: Instant) -> Result<bool, Duration> {
        self.available(now)?;
        let probe = self.open.is_some();
        self.probing |= probe;
        Ok(probe)
    }

    /// The probe is over, whatever came of it.
    pub(super) fn ended(&mut self) {
        self.probing = false;
    }

    /// An answer that says something: true if that closed the breaker.
    pub(super) fn succeeded(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// No answer, or none that says anything: true if that opened the breaker, or kept it open after a probe.
    pub(super) fn failed(&mut self, now: Instant, limits: &Limits) -> bool {
        self.failures = self.failures.saturating_add(1);
        let hold = match self.open {
            None if self.failures >= limits.failures => limits.hold,
            Some((until, hold)) if now >= until => (hold * 2).min(limits.hold_max),
            // Not yet; or a call that began before it opened, which says nothing new.
            _ => return false,
        };
        self.open = Some((now + hold, hold));
        true
    }

    /// Whether calls are refused, or would be but for a probe.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_waits_longer_each_time() {
        let limits = Limits::default();
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..4 {
            assert!(!breaker.failed(now, &limits));
        }
        assert!(!breaker.succeeded());
        for _ in 0..4 {
            assert!(!breaker.failed(now, &limits) && breaker.admit(now) == Ok(false));
        }
        assert!(breaker.failed(now, &limits) && breaker.is_open());
        for hold in [5, 10, 20, 40, 60, 60].map(Duration::from_secs) {
            assert_eq!(breaker.admit(now), Err(hold));
            assert!(!breaker.failed(now, &limits), "a call that began before");
            now += hold - Duration::from_millis(1);
            assert_eq!(breaker.available(now), Err(Duration::from_millis(1)));
            now += Duration::from_millis(1);
            assert_eq!(breaker.admit(now), Ok(true));
            assert!(breaker.admit(now).is_err(), "one probe at a time");
            assert!(breaker.failed(now, &limits));
            breaker.ended();
        }
        now += Duration::from_secs(60);
        assert_eq!(breaker.admit(now), Ok(true));
        breaker.ended();
        assert_eq!(breaker.admit(now), Ok(true), "a probe that came to nothing leaves room for the next");
        assert!(breaker.succeeded());
        breaker.ended();
        assert!(!breaker.is_open() && breaker.admit(now) == Ok(false));
    }
}
