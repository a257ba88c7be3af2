//! Failures to log in, counted by the client's address and by the user's name.
//!
//! The first few are free: people mistype. After them each failure doubles the time for which
//! further tries are refused unlooked at, up to a minute. Whoever's password was verified lately
//! is not held up by others' failures: see the cache of verified passwords.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many failures are free, of an address and of a user (from whatever address).
const ADDRESS_FREE: u32 = 10;
const USER_FREE: u32 = 30;
/// The longest time for which tries are refused.
const WAIT_SECONDS_MAX: u64 = 60;
/// How long a failure counts after the last one.
const REMEMBERED_SECONDS: u64 = 15 * 60;
/// How many addresses and users are remembered: about 1 MB.
const ENTRIES_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    /// A keyed hash of the name, so that long names take no more memory.
    User(u64),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: u64,
}

/// The failures of all clients. Time comes as that since the start.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    hasher: RandomState,
    failures: Mutex<HashMap<Key, Failures>>,
}

impl Throttle {
    fn keys(&self, address: Option<IpAddr>, user: &str) -> impl Iterator<Item = Key> + use<> {
        let user = Key::User(self.hasher.hash_one(user));
        address.map(|address| Key::Address(prefix(address))).into_iter().chain([user])
    }

    /// Says for how many seconds tries are refused yet; zero: they are not.
    pub(crate) fn wait(&self, address: Option<IpAddr>, user: &str, now: Duration) -> u64 {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = |key| {
            let Some(of) = failures.get(&key) else { return 0 };
            (of.last + wait_after(key, of.count)).saturating_sub(now.as_secs())
        };
        self.keys(address, user).map(wait).max().unwrap_or(0)
    }

    /// Notes a failure.
    pub(crate) fn fail(&self, address: Option<IpAddr>, user: &str, now: Duration) {
        let now = now.as_secs();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for key in self.keys(address, user) {
            make_room(&mut failures, key, now);
            let of = failures.entry(key).or_insert(Failures { count: 0, last: now });
            if now.saturating_sub(of.last) > REMEMBERED_SECONDS {
                of.count = 0;
            }
            *of = Failures { count: of.count.saturating_add(1), last: now };
        }
    }

    /// Forgets all failures.
    pub(crate) fn clear(&self) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.failures.lock().unwrap().len()
    }
}

fn make_room(failures: &mut HashMap<Key, Failures>, key: Key, now: u64) {
    if failures.len() < ENTRIES_MAX || failures.contains_key(&key) {
        return;
    }
    failures.retain(|_, of| now.saturating_sub(of.last) <= REMEMBERED_SECONDS);
    if failures.len() < ENTRIES_MAX {
        return;
    }
    // Who failed least has the least to gain from being forgotten. An eighth goes at once, so that
    // a flood does not sort everything for each of its requests.
    let mut least: Vec<(u32, u64, Key)> =
        failures.iter().map(|(key, of)| (of.count, of.last, *key)).collect();
    least.sort_unstable_by_key(|(count, last, _)| (*count, *last));
    for (_, _, key) in least.into_iter().take(ENTRIES_MAX / 8) {
        failures.remove(&key);
    }
}

fn wait_after(key: Key, count: u32) -> u64 {
    let free = match key {
        Key::Address(_) => ADDRESS_FREE,
        Key::User(_) => USER_FREE,
    };
    match count.checked_sub(free) {
        None => 0,
        Some(more) => 1_u64.checked_shl(more).map_or(WAIT_SECONDS_MAX, |s| s.min(WAIT_SECONDS_MAX)),
    }
}

/// One client of IPv6 has 2^64 addresses.
fn prefix(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => address.into(),
            None => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Option<IpAddr> {
        Some([10, 0, 0, last].into())
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn failures_cost_more_and_more() {
        let throttle = Throttle::default();
        let mut waits = Vec::new();
        for _ in 0..18 {
            throttle.fail(address(1), "alice", at(100));
            waits.push(throttle.wait(address(1), "bob", at(100)));
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(throttle.wait(address(1), "bob", at(159)), 1);
        assert_eq!(throttle.wait(address(1), "bob", at(160)), 0);
        assert_eq!(throttle.wait(address(2), "bob", at(100)), 0, "others are not held up");
        throttle.fail(address(1), "alice", at(100 + 2 * REMEMBERED_SECONDS));
        assert_eq!(throttle.wait(address(1), "alice", at(100 + 2 * REMEMBERED_SECONDS)), 0);
    }

    #[test]
    fn many_addresses_are_slowed_as_one_user() {
        let throttle = Throttle::default();
        for last in 0..40 {
            throttle.fail(address(last), "alice", at(0));
        }
        assert!(throttle.wait(address(200), "alice", at(0)) > 0);
        assert_eq!(throttle.wait(address(200), "bob", at(0)), 0);
    }

    #[test]
    fn memory_is_bounded_and_the_worst_are_remembered() {
        let throttle = Throttle::default();
        for _ in 0..20 {
            throttle.fail(address(1), "worst", at(0));
        }
        for n in 0..2 * ENTRIES_MAX as u32 {
            throttle.fail(Some(IpAddr::from(n.to_be_bytes())), "other", at(1));
        }
        assert!(throttle.len() <= ENTRIES_MAX);
        assert!(throttle.wait(address(1), "x", at(1)) > 0);
        let one = |text: &str| prefix(text.parse().unwrap());
        assert_eq!(one("2001:db8::1"), one("2001:db8::ffff"));
        assert_eq!(one("::ffff:10.0.0.1"), one("10.0.0.1"));
    }
}
