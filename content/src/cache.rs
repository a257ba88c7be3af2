//! A bounded map in memory, for what can be read again from files: what the registry and the cache
//! proxy know of entries, and small bodies.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Keeps what was used last, up to a weight.
///
/// Two generations instead of a list in order of use: what is used moves to the young one; when
/// that has half of the weight it becomes the old one, and what was old is forgotten. So a hit
/// costs one look-up, and what is used at all within a generation stays.
#[derive(Debug)]
pub struct Cache<K, V> {
    weight_max: usize,
    generations: Mutex<Generations<K, V>>,
}

#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    young_weight: usize,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    /// Returns a map that keeps values of this weight in all.
    pub fn new(weight_max: usize) -> Cache<K, V> {
        let generations =
            Generations { young: HashMap::new(), old: HashMap::new(), young_weight: 0 };
        Cache { weight_max, generations: Mutex::new(generations) }
    }

    /// Returns the value of a key, which is used by that.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((value, _)) = generations.young.get(key) {
            return Some(value.clone());
        }
        let (key, (value, weight)) = generations.old.remove_entry(key)?;
        generations.put(key, value.clone(), weight, self.weight_max);
        Some(value)
    }

    /// Forgets a key.
    pub fn remove(&self, key: &K) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.old.remove(key);
        if let Some((_, weight)) = generations.young.remove(key) {
            generations.young_weight -= weight;
        }
    }

    /// Returns how many keys it has.
    pub fn len(&self) -> usize {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.len() + generations.old.len()
    }

    /// Says whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps a value, unless it weighs so much that it would displace everything.
    pub fn put(&self, key: K, value: V, weight: usize) {
        if weight > self.weight_max / 2 {
            return;
        }
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.put(key, value, weight, self.weight_max);
    }
}

impl<K: Eq + Hash, V> Generations<K, V> {
    fn put(&mut self, key: K, value: V, weight: usize, weight_max: usize) {
        if self.young_weight + weight > weight_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        self.old.remove(&key);
        self.young_weight += weight;
        if let Some((_, replaced)) = self.young.insert(key, (value, weight)) {
            self.young_weight -= replaced;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_used_and_stays_within_its_weight() {
        let cache = Cache::new(100);
        cache.put("hot", 1, 10);
        for n in 0..1000 {
            cache.put(if n % 2 == 0 { "a" } else { "b" }, n, 25);
            assert_eq!(cache.get(&"hot"), Some(1), "{n}");
        }
        let generations = cache.generations.lock().unwrap();
        let weigh = |map: &HashMap<&str, (i32, usize)>| map.values().map(|v| v.1).sum::<usize>();
        assert!(weigh(&generations.young) + weigh(&generations.old) <= 100);
    }

    #[test]
    fn forgets_what_was_removed_with_its_weight() {
        let cache = Cache::new(100);
        for n in 0..10 {
            cache.put("a", n, 50);
            cache.remove(&"a");
            assert_eq!(cache.get(&"a"), None);
        }
        cache.put("b", 1, 25);
        cache.put("c", 1, 25);
        assert!(cache.generations.lock().unwrap().old.is_empty());
    }

    #[test]
    fn refuses_what_would_displace_everything() {
        let cache = Cache::new(100);
        cache.put("huge", 1, 51);
        assert!(cache.get(&"huge").is_none() && cache.is_empty());
    }
}
