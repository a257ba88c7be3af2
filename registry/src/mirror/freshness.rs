//! When a mirrored tag is asked for again, and what is answered meanwhile: pure decisions.
//!
//! A digest never changes; a tag may. What is kept of a tag is fresh for `tag_ttl` after the
//! upstream last confirmed it, whoever asked then. After that the next pull asks, by HEAD, and all
//! others wait for that one answer. An upstream that failed is left alone for a moment: what is
//! kept is answered at once, what is not fails at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// How long things count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreshnessOptions {
    /// How long a tag is not asked for again.
    pub tag_ttl: Duration,
    /// How long what the upstream does not have is not asked for again.
    pub negative_ttl: Duration,
    /// How long an upstream that failed is left alone.
    pub rest: Duration,
    /// How long somebody waits for an upstream where something is kept to be answered instead.
    pub patience: Duration,
    /// How long somebody waits for an upstream's word where nothing is kept.
    pub deadline: Duration,
    /// The upstream is never asked.
    pub offline: bool,
}

impl Default for FreshnessOptions {
    fn default() -> FreshnessOptions {
        FreshnessOptions {
            tag_ttl: Duration::from_secs(300),
            negative_ttl: Duration::from_secs(30),
            rest: Duration::from_secs(3),
            patience: Duration::from_secs(2),
            deadline: Duration::from_secs(10),
            offline: false,
        }
    }
}

/// What to do about a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Answer with what is kept.
    Fresh,
    /// Ask the upstream; answer with what is kept where it does not answer in time.
    Revalidate,
    /// Ask the upstream: nothing is kept.
    Absent,
}

impl FreshnessOptions {
    /// Decides about a tag that was last confirmed at a time, if it is kept at all.
    pub fn decide(&self, confirmed: Option<SystemTime>, now: Timestamp) -> Freshness {
        let Some(confirmed) = confirmed else { return Freshness::Absent };
        if self.offline {
            return Freshness::Fresh;
        }
        let age = SystemTime::from(now).duration_since(confirmed);
        match age {
            Ok(age) if age < self.tag_ttl => Freshness::Fresh,
            // A clock that was set back must not keep a tag fresh for years.
            Err(ahead) if ahead.duration() < self.tag_ttl => Freshness::Fresh,
            _ => Freshness::Revalidate,
        }
    }
}

/// Remembers things for a while; bounded.
#[derive(Debug)]
pub(crate) struct Remembered<K, V> {
    entries: Mutex<HashMap<K, (Timestamp, V)>>,
    most: usize,
}

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    pub(crate) fn new(most: usize) -> Remembered<K, V> {
        Remembered { entries: Mutex::default(), most }
    }

    /// Returns what is remembered still.
    pub(crate) fn get(&self, key: &K, now: Timestamp) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).filter(|(until, _)| now < *until).map(|(_, value)| value.clone())
    }

    pub(crate) fn put(&self, key: K, value: V, now: Timestamp, during: Duration) {
        let Ok(until) = now.checked_add(during) else { return };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.most {
            entries.retain(|_, (until, _)| now < *until);
        }
        // Full of what still counts: then this is not remembered, which costs a request.
        if entries.len() < self.most {
            entries.insert(key, (until, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn decisions() {
        let options = FreshnessOptions::default();
        let offline = FreshnessOptions { offline: true, ..options.clone() };
        let always = FreshnessOptions { tag_ttl: Duration::ZERO, ..options.clone() };
        let confirmed = Some(SystemTime::from(at(0)));
        let table = [
            (&options, None, 0, Freshness::Absent),
            (&options, confirmed, 0, Freshness::Fresh),
            (&options, confirmed, 299, Freshness::Fresh),
            (&options, confirmed, 300, Freshness::Revalidate),
            (&options, confirmed, -10, Freshness::Fresh),
            (&options, confirmed, -86_400, Freshness::Revalidate),
            (&always, confirmed, 0, Freshness::Revalidate),
            (&offline, confirmed, 86_400, Freshness::Fresh),
            (&offline, None, 0, Freshness::Absent),
        ];
        for (options, confirmed, now, expected) in table {
            assert_eq!(options.decide(confirmed, at(now)), expected, "at {now}");
        }
    }

    #[test]
    fn what_is_remembered_is_forgotten_in_time_and_bounded() {
        let remembered = Remembered::new(2);
        let second = Duration::from_secs(1);
        remembered.put("a", 1, at(0), second);
        remembered.put("b", 2, at(0), 10 * second);
        remembered.put("c", 3, at(0), second);
        assert_eq!((remembered.get(&"a", at(0)), remembered.get(&"c", at(0))), (Some(1), None));
        assert_eq!(remembered.get(&"a", at(1)), None);
        remembered.put("c", 3, at(1), second);
        assert_eq!((remembered.get(&"c", at(1)), remembered.get(&"b", at(1))), (Some(3), Some(2)));
    }
}
