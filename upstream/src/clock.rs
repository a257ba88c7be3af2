//! The clock: time, waiting and chance come in through one trait, so that tests choose them.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use jiff::Timestamp;

/// What a client asks about time and chance.
#[async_trait::async_trait]
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the time of day: a token's age and a `Retry-After` date are measured with it.
    fn now(&self) -> Timestamp;

    /// Waits.
    async fn sleep(&self, duration: Duration);

    /// Returns a number in `0.0..1.0`, another one each time: it spreads retries.
    fn jitter(&self) -> f64;
}

/// The machine's clock and its randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait::async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn jitter(&self) -> f64 {
        // A new RandomState has new keys, so the hash of nothing is a number nobody can foresee.
        let number = RandomState::new().build_hasher().finish() >> 11;
        number as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_range_and_differs() {
        let numbers: Vec<f64> = (0..50).map(|_| SystemClock.jitter()).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        assert!(numbers.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
