//! Asking again for a generation that is being published, though no client asks: so that it is whole
//! when the next one does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::set::{Asking, Set};

/// How often at most: three days, five minutes apart.
const TRIES_MAX: usize = 900;

impl Set {
    /// Begins to ask again until what is incomplete is whole, or given up, unless that is being done.
    pub(super) fn retry(self: &Arc<Set>, asking: Asking<'_>) {
        let Some(fetcher) = asking.fetcher.share() else { return };
        if self.retrying.swap(true, Ordering::SeqCst) {
            return;
        }
        let (set, request) = (Arc::clone(self), asking.request.clone());
        tokio::spawn(async move {
            let mut wait = set.options.retry_first;
            for _ in 0..TRIES_MAX {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(set.options.retry_max.max(Duration::from_secs(1)));
                if set.state().pending.is_none() {
                    break;
                }
                set.check(Asking { request: &request, fetcher: &*fetcher }).await;
            }
            set.retrying.store(false, Ordering::SeqCst);
        });
    }
}
