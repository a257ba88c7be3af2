//! Things of which each is made once, by whoever needs it first.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// What was made, by what it was made for. It lives as long as this.
#[derive(Debug)]
pub(crate) struct OnceFor<K, V>(Mutex<HashMap<K, Place<V>>>);

type Place<V> = Arc<Mutex<Option<Arc<V>>>>;

impl<K, V> Default for OnceFor<K, V> {
    fn default() -> Self {
        OnceFor(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, V> OnceFor<K, V> {
    /// Returns the thing, and makes it where nobody did. Others who want the same one wait; where
    /// it cannot be made, the next of them tries.
    pub(crate) fn of<E>(&self, key: &K, make: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        let place = {
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(places.entry(key.clone()).or_default())
        };
        let mut made = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made {
            return Ok(Arc::clone(made));
        }
        let fresh = Arc::new(make()?);
        *made = Some(Arc::clone(&fresh));
        Ok(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_again_where_that_failed() {
        let things = OnceFor::<&str, u32>::default();
        assert_eq!(things.of(&"a", || Err("no")), Err("no"));
        assert_eq!(things.of(&"a", || Ok::<_, &str>(1)).as_deref(), Ok(&1));
        assert_eq!(things.of(&"a", || Err("no")).as_deref(), Ok(&1));
        assert_eq!(things.of(&"b", || Ok::<_, &str>(2)).as_deref(), Ok(&2));
    }
}
