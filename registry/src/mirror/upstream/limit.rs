//! Keeping within the limit of a mirror.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use boatyard_content::gc::{self, GcError, GcOptions};
use jiff::Timestamp;

use super::Mirror;
use crate::mirror::evict;

/// How often it is looked at most: listing what is kept takes a moment where that is much.
const EVERY: Duration = Duration::from_secs(60);

/// When it is looked whether the limit is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looked {
    last: Option<Timestamp>,
    /// Somebody waits until he may look.
    is_due: bool,
}

impl Looked {
    /// Returns how long to wait before looking, `None` where somebody does so already.
    fn due(&mut self, now: Timestamp) -> Option<Duration> {
        if self.is_due {
            return None;
        }
        self.is_due = true;
        let next = self.last.and_then(|last| last.checked_add(EVERY).ok());
        Some(next.map_or(Duration::ZERO, |next| {
            now.duration_until(next).try_into().unwrap_or(Duration::ZERO)
        }))
    }
}

impl Mirror {
    /// Looks whether the limit is kept, now or when it may be looked again: whatever landed before
    /// this call is counted.
    pub(super) async fn look_at_limit(self: Arc<Self>) {
        if self.options.bytes_max.is_none() {
            return;
        }
        let now = self.options.clock.now();
        let due = self.looked.lock().unwrap_or_else(PoisonError::into_inner).due(now);
        let Some(wait) = due else { return };
        tokio::time::sleep(wait).await;
        // It ends as it may: the next that lands looks again.
        let _ = tokio::task::spawn_blocking(move || self.keep_within_limit()).await;
    }

    /// Forgets what was not pulled for longest where there is too much, and has the collector
    /// delete it. Blocks.
    pub(super) fn keep_within_limit(&self) {
        let Some(bytes_max) = self.options.bytes_max else { return };
        let now = self.options.clock.now();
        let looked = Looked { last: Some(now), is_due: false };
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = looked;
        match evict::evict(&self.root, &self.space(), bytes_max, SystemTime::from(now)) {
            Ok(evicted) if evicted.forgotten.is_empty() => {}
            Ok(evicted) => {
                let bytes: u64 = evicted.forgotten.iter().map(|blob| blob.size).sum();
                let count = evicted.forgotten.len();
                tracing::info!("the mirror of {} forgot {count} blobs, {bytes} bytes", self.host());
                match gc::collect(&self.root, &GcOptions::default()) {
                    Ok(_) | Err(GcError::Running) => {}
                    Err(error) => tracing::warn!(%error, "what was forgotten is not deleted yet"),
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the mirror of {} is not within its limit", self.host());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lands_early_is_looked_at_later() {
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let mut looked = Looked::default();
        assert_eq!(looked.due(at(0)), Some(Duration::ZERO));
        assert_eq!(looked.due(at(0)), None, "one looks for both");
        looked = Looked { last: Some(at(0)), is_due: false };
        assert_eq!(looked.due(at(20)), Some(EVERY - Duration::from_secs(20)));
        looked = Looked { last: Some(at(0)), is_due: false };
        assert_eq!(looked.due(at(90)), Some(Duration::ZERO));
    }
}
