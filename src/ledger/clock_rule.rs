//! When the wall clock may be trusted with money.

/// The step that closes priced routes, 5 min.
const STEP_MS: u64 = 300_000;

/// Compares process time (wall clock at start, advanced by the monotonic clock) with the wall clock, and with what the
/// books say. One wrong jump must not push the replay floor or the book day for good.
#[derive(Clone, Copy, Debug)]
pub struct ClockRule {
    /// Posting time of the last batch before this process, Unix ms; 0 in a new ledger.
    last_posting_ms: u64,
    /// The replay floor that this process found, Unix ms; 0 in a new ledger.
    floor_ms: u64,
}

impl ClockRule {
    /// A rule for a ledger whose last posting was at that time and whose replay floor stands there; Unix ms, 0 in a new one.
    ///
    /// The floor was raised to at least 5 min before the time of its process, whatever its ttl and skew, so it tells of a
    /// clock that was ahead also when that process posted nothing.
    pub fn new(last_posting_ms: u64, floor_ms: u64) -> ClockRule {
        ClockRule { last_posting_ms, floor_ms }
    }

    /// Why priced routes must stay closed, or `None`. `now_ms` is process time, `wall_ms` the wall clock.
    pub fn check(&self, now_ms: u64, wall_ms: u64) -> Option<String> {
        let apart_s = wall_ms.abs_diff(now_ms) / 1000;
        if wall_ms.abs_diff(now_ms) > STEP_MS {
            let side = if wall_ms > now_ms { "ahead of" } else { "behind" };
            return Some(format!(
                "the wall clock is {apart_s} s {side} the time since start; set it right, or restart the gateway if it is"
            ));
        }
        if now_ms.saturating_add(STEP_MS) < self.last_posting_ms {
            let behind_s = (self.last_posting_ms - now_ms) / 1000;
            return Some(format!("the clock is {behind_s} s behind the ledger's last posting; set it right"));
        }
        // Every offer that is made now would be refused as too old.
        if now_ms < self.floor_ms {
            let behind_s = (self.floor_ms - now_ms).div_ceil(1000);
            return Some(format!(
                "the clock is {behind_s} s behind the ledger's replay floor; set it right, or wait if it was ahead earlier"
            ));
        }
        None
    }

    /// The operator's word that the clock is right although the books are ahead of it.
    pub fn accept(&mut self) {
        *self = ClockRule { last_posting_ms: 0, floor_ms: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_over_five_minutes_closes_until_it_agrees_again() {
        let rule = ClockRule::new(0, 0);
        let now = 10_000_000;
        assert_eq!(rule.check(now, now), None);
        assert_eq!(rule.check(now, now + STEP_MS), None);
        assert!(rule.check(now, now + STEP_MS + 1).unwrap().contains("300 s ahead"));
        assert!(rule.check(now, now - STEP_MS - 1000).unwrap().contains("301 s behind"));
        assert_eq!(rule.check(now, now - STEP_MS), None);
    }

    #[test]
    fn a_start_long_before_the_last_posting_is_closed_until_accepted() {
        let mut rule = ClockRule::new(1_000_000, 0);
        assert!(rule.check(600_000, 600_000).unwrap().contains("400 s behind the ledger"));
        rule.accept();
        assert_eq!(rule.check(600_000, 600_000), None);
    }

    #[test]
    fn a_start_below_the_replay_floor_is_closed_until_time_has_passed_it() {
        let mut rule = ClockRule::new(0, 1_000_000);
        let reason = rule.check(995_500, 995_500).unwrap();
        assert!(reason.contains("5 s behind the ledger's replay floor"), "{reason}");
        assert_eq!(rule.check(1_000_000, 1_000_000), None);
        rule.accept();
        assert_eq!(rule.check(0, 0), None);
    }
}
