//! How long the other end may keep us waiting, where each byte that it moves earns it time.
//!
//! A limit on the silence between two bytes is no limit: who sends one a minute is never silent for
//! long, and holds a connection for years. So waits are added up, and what was moved is taken off
//! at the least rate that is allowed: one that keeps above it can be silent for the whole time
//! again and again, one below it runs out.

use std::time::Duration;

/// The waits of one direction of one connection or body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    most: Duration,
    /// Bytes in a second; 0 where any byte will do.
    rate_min: u64,
    spent: Duration,
}

impl Patience {
    pub(crate) fn new(most: Duration, rate_min: u64) -> Patience {
        Patience { most, rate_min, spent: Duration::ZERO }
    }

    /// Returns for how long the next wait may be.
    pub(crate) fn left(&self) -> Duration {
        self.most.saturating_sub(self.spent)
    }

    /// After this wait, so many bytes were moved.
    pub(crate) fn moved(&mut self, waited: Duration, bytes: usize) {
        let earned = (bytes as u64).saturating_mul(1000).checked_div(self.rate_min);
        let earned = earned.map_or(Duration::MAX, Duration::from_millis);
        self.spent = self.spent.saturating_add(waited).saturating_sub(earned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_byte_a_minute_runs_out_and_the_least_rate_never_does() {
        let mut slow = Patience::new(60 * SECOND, 1000);
        slow.moved(50 * SECOND, 1);
        assert_eq!(slow.left(), 10 * SECOND + Duration::from_millis(1));
        slow.moved(50 * SECOND, 1);
        assert_eq!(slow.left(), Duration::ZERO);
        let mut steady = Patience::new(60 * SECOND, 1000);
        for _ in 0..100 {
            steady.moved(50 * SECOND, 50_000);
            assert_eq!(steady.left(), 60 * SECOND);
        }
    }

    #[test]
    fn what_was_moved_makes_up_for_earlier_waits_alone() {
        let mut patience = Patience::new(60 * SECOND, 1000);
        patience.moved(SECOND, usize::MAX);
        patience.moved(30 * SECOND, 10_000);
        assert_eq!(patience.left(), 40 * SECOND);
    }

    #[test]
    fn without_a_least_rate_any_byte_will_do() {
        let mut patience = Patience::new(60 * SECOND, 0);
        patience.moved(59 * SECOND, 1);
        assert_eq!(patience.left(), 60 * SECOND);
    }
}
