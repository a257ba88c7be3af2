//! How many requests a client may make in a second.
//!
//! Each client has a bucket that holds [`RateLimit::burst`] requests and is filled at
//! [`RateLimit::per_second`]; a request takes one out. The bucket is a single number, the moment at
//! which it will be full again. So many clients are remembered that whoever pretends to be many
//! cannot fill the memory; one that is forgotten has a full bucket again.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use boatyard_front::client_of;

use crate::cache::Cache;

/// How many clients are remembered.
const CLIENTS_MAX: usize = 100_000;

/// A limit on the requests of one client: an IPv4 address, or a /64 of IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many requests in a second; 0 where there is no limit.
    pub per_second: u32,
    /// How many at once, after a time without any.
    pub burst: u32,
    /// Clients of this machine are not counted: they are its owner's, or those of a proxy in front
    /// of it, which look like one.
    pub spares_loopback: bool,
}

/// The requests of all clients.
#[derive(Debug)]
pub(crate) struct Rates {
    limit: RateLimit,
    began: Instant,
    /// When each client's bucket is full again, in nanoseconds since the beginning.
    full: Cache<IpAddr, Arc<AtomicU64>>,
}

impl Rates {
    pub(crate) fn new(limit: RateLimit) -> Rates {
        Rates { limit, began: Instant::now(), full: Cache::new(CLIENTS_MAX) }
    }

    /// Counts a request; the error is how long to wait before the next one.
    pub(crate) fn count(&self, address: IpAddr) -> Result<(), Duration> {
        let client = client_of(address);
        let is_spared = self.limit.spares_loopback && client.is_loopback();
        if self.limit.per_second == 0 || is_spared {
            return Ok(());
        }
        self.count_at(client, self.began.elapsed())
    }

    fn count_at(&self, client: IpAddr, now: Duration) -> Result<(), Duration> {
        let full = self.full.get(&client).unwrap_or_else(|| {
            let full = Arc::new(AtomicU64::new(0));
            self.full.put(client, Arc::clone(&full), 1);
            full
        });
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        let one = 1_000_000_000 / u64::from(self.limit.per_second);
        let bucket = one * u64::from(self.limit.burst.max(1));
        let mut wait = 0;
        let counted = full.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full| {
            let after = full.max(now) + one;
            wait = after.saturating_sub(now + bucket);
            (wait == 0).then_some(after)
        });
        counted.map(drop).map_err(|_| Duration::from_nanos(wait))
    }

    pub(crate) fn limit(&self) -> &RateLimit {
        &self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(per_second: u32, burst: u32) -> Rates {
        Rates::new(RateLimit { per_second, burst, spares_loopback: false })
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn a_burst_and_then_so_many_in_a_second() {
        let rates = rates(10, 5);
        let at = |ms| rates.count_at(CLIENT, Duration::from_millis(ms));
        for _ in 0..5 {
            assert_eq!(at(0), Ok(()));
        }
        assert_eq!(at(0), Err(Duration::from_millis(100)));
        assert_eq!(at(60), Err(Duration::from_millis(40)), "a refused one costs nothing");
        assert_eq!(at(100), Ok(()));
        assert!(at(100).is_err());
        // Quiet for long, it has its burst again, and no more.
        let allowed = (0..100).filter(|_| at(60_000).is_ok()).count();
        assert_eq!(allowed, 5);
        let other = "192.0.2.2".parse().unwrap();
        assert_eq!(rates.count_at(other, Duration::ZERO), Ok(()));
    }

    #[test]
    fn without_a_limit_and_from_here_all_are_allowed() {
        let unlimited = rates(0, 0);
        let limit = RateLimit { per_second: 1, burst: 1, spares_loopback: true };
        let spared = Rates::new(limit);
        for _ in 0..100 {
            assert_eq!(unlimited.count(CLIENT), Ok(()));
            assert_eq!(spared.count("127.0.0.1".parse().unwrap()), Ok(()));
            assert_eq!(spared.count("::ffff:127.0.0.1".parse().unwrap()), Ok(()));
        }
        assert_eq!(spared.count(CLIENT), Ok(()));
        assert!(spared.count(CLIENT).is_err());
    }

    #[test]
    fn whoever_pretends_to_be_many_fills_nothing() {
        let rates = rates(1, 1);
        for n in 0..300_000_u32 {
            let _ = rates.count_at(IpAddr::V4(n.into()), Duration::ZERO);
        }
        assert!(rates.full.len() <= CLIENTS_MAX);
    }
}
