//! One question at a time: whoever asks what is being asked already waits for the same answer.
//!
//! The work goes on in a task of its own, so a caller that goes away stops nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

type Answer<T> = Shared<BoxFuture<'static, Option<T>>>;

/// The questions under way.
pub(crate) struct Flights<K, T> {
    under_way: Arc<Mutex<HashMap<K, Answer<T>>>>,
}

impl<K, T> std::fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flights")
    }
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Flights { under_way: Arc::default() }
    }
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Returns the answer to a question; `ask` runs only where nobody asks the same now. `None`
    /// where it panicked.
    pub(crate) async fn join<F>(&self, key: K, ask: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let answer = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            match under_way.get(&key) {
                Some(answer) => answer.clone(),
                None => {
                    let answer = self.begin(&key, ask());
                    under_way.insert(key, answer.clone());
                    answer
                }
            }
        };
        answer.await
    }

    fn begin(&self, key: &K, work: impl Future<Output = T> + Send + 'static) -> Answer<T> {
        let (under_way, key) = (Arc::clone(&self.under_way), key.clone());
        let task = tokio::spawn(async move {
            // Ends the flight also where the work panics.
            let _landing = Landing { under_way, key };
            work.await
        });
        task.map(Result::ok).boxed().shared()
    }
}

struct Landing<K: Eq + Hash, T> {
    under_way: Arc<Mutex<HashMap<K, Answer<T>>>>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn many_callers_one_question_and_departing_ones_stop_nothing() {
        let flights = Arc::new(Flights::<&str, u32>::default());
        let (asked, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let ask = || {
            let (flights, asked, go) = (Arc::clone(&flights), Arc::clone(&asked), Arc::clone(&go));
            async move {
                flights
                    .join("key", || async move {
                        asked.fetch_add(1, Ordering::Relaxed);
                        go.notified().await;
                        7
                    })
                    .await
            }
        };
        let first = tokio::spawn(ask());
        let others: Vec<_> = (0..10).map(|_| tokio::spawn(ask())).collect();
        while asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        tokio::task::yield_now().await;
        go.notify_one();
        for other in others {
            assert_eq!(other.await.unwrap(), Some(7));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert_eq!(flights.join("key", || async { 8 }).await, Some(8));
    }
}
