//! How fast bytes come, over a while.

use std::time::Duration;

use jiff::Timestamp;

/// Bytes counted since a moment.
#[derive(Debug)]
pub(super) struct Pace {
    since: Timestamp,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(now: Timestamp) -> Pace {
        Pace { since: now, bytes: 0 }
    }

    /// Counts bytes; says whether, over the last `over`, at least `rate_min` a second came.
    pub(super) fn suffices(
        &mut self,
        bytes: u64,
        now: Timestamp,
        rate_min: u64,
        over: Duration,
    ) -> bool {
        self.bytes += bytes;
        let passed = Duration::try_from(now.duration_since(self.since)).unwrap_or_default();
        if passed < over {
            return true;
        }
        let enough = u128::from(self.bytes) * 1000 >= u128::from(rate_min) * passed.as_millis();
        *self = Pace::new(now);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_over_a_while_and_then_anew() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let at = |seconds| start + jiff::SignedDuration::from_secs(seconds);
        let over = Duration::from_secs(10);
        let mut pace = Pace::new(start);
        for (bytes, seconds, expected) in
            [(0, 9, true), (1000, 10, true), (999, 19, true), (0, 20, false), (0, 21, true)]
        {
            assert_eq!(pace.suffices(bytes, at(seconds), 100, over), expected, "{seconds}");
        }
    }
}
