//! Turns: how many objects are fetched at once, from one upstream and in all.
//!
//! Both queues are first come, first served. The upstream's turn is waited for before the common
//! one, so that who waits for a slow upstream keeps nobody from the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::TransferError;
use super::limits::Limits;

/// The turns of all transfers of a process.
#[derive(Debug)]
pub(crate) struct Admission {
    total: Arc<Semaphore>,
    upstreams: Mutex<HashMap<String, Arc<Semaphore>>>,
    limits: Limits,
}

/// A turn, as long as it lives.
#[derive(Debug)]
pub(crate) struct Turn {
    _upstream: OwnedSemaphorePermit,
    _total: OwnedSemaphorePermit,
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Admission {
        let total = Arc::new(Semaphore::new(limits.total.clamp(1, Semaphore::MAX_PERMITS)));
        Admission { total, upstreams: Mutex::default(), limits }
    }

    /// Waits for a turn.
    pub(crate) async fn enter(&self, upstream: &str) -> Result<Turn, TransferError> {
        let queue = self.upstream(upstream);
        let turn = async {
            let upstream = queue.acquire_owned().await.ok()?;
            let total = Arc::clone(&self.total).acquire_owned().await.ok()?;
            Some(Turn { _upstream: upstream, _total: total })
        };
        match tokio::time::timeout(self.limits.queue, turn).await {
            Ok(Some(turn)) => Ok(turn),
            // The queues are never closed.
            Ok(None) => Err(TransferError::Stopped),
            Err(_) => {
                let after = self.limits.queue;
                Err(TransferError::Queue { upstream: upstream.to_owned(), after })
            }
        }
    }

    fn upstream(&self, name: &str) -> Arc<Semaphore> {
        let mut upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of which nobody else has a share are idle.
        upstreams.retain(|known, queue| known == name || Arc::strong_count(queue) > 1);
        let most = self.limits.per_upstream.clamp(1, Semaphore::MAX_PERMITS);
        let queue =
            upstreams.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(most)));
        Arc::clone(queue)
    }
}
