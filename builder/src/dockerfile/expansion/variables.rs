//! Where an expansion finds the values.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

/// The variables that a word may use.
pub trait Variables {
    /// Returns the value of a variable; nothing if it is unset, which is not the same as empty.
    fn get(&self, name: &str) -> Option<String>;
}

/// No variables at all.
impl Variables for () {
    fn get(&self, _name: &str) -> Option<String> {
        None
    }
}

/// Pairs of name and value; the last one of a name wins, as in an environment.
impl<K: AsRef<str>, V: AsRef<str>> Variables for [(K, V)] {
    fn get(&self, name: &str) -> Option<String> {
        let found = self.iter().rev().find(|(key, _)| key.as_ref() == name);
        found.map(|(_, value)| value.as_ref().to_owned())
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Variables for Vec<(K, V)> {
    fn get(&self, name: &str) -> Option<String> {
        Variables::get(self.as_slice(), name)
    }
}

impl<K: AsRef<str>, V: AsRef<str>, const N: usize> Variables for [(K, V); N] {
    fn get(&self, name: &str) -> Option<String> {
        Variables::get(self.as_slice(), name)
    }
}

impl<V: AsRef<str>> Variables for BTreeMap<String, V> {
    fn get(&self, name: &str) -> Option<String> {
        Self::get(self, name).map(|value| value.as_ref().to_owned())
    }
}

impl<V: AsRef<str>, S: BuildHasher> Variables for HashMap<String, V, S> {
    fn get(&self, name: &str) -> Option<String> {
        Self::get(self, name).map(|value| value.as_ref().to_owned())
    }
}

impl<T: Variables + ?Sized> Variables for &T {
    fn get(&self, name: &str) -> Option<String> {
        (**self).get(name)
    }
}
