//! Keeping within the limit of a mirror.

use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use boatyard_content::gc::{self, GcError, GcOptions};

use super::Mirror;
use crate::mirror::evict;

/// How often it is looked at most: listing what is kept takes a moment where that is much.
const EVERY: Duration = Duration::from_secs(60);

impl Mirror {
    /// Forgets what was not pulled for longest where there is too much, and has the collector
    /// delete it. Blocks; does nothing if it was done a moment ago.
    pub(super) fn keep_within_limit(&self) {
        let Some(bytes_max) = self.options.bytes_max else { return };
        let now = self.options.clock.now();
        {
            let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
            let due = limited.and_then(|last| last.checked_add(EVERY).ok());
            if due.is_some_and(|due| now < due) {
                return;
            }
            *limited = Some(now);
        }
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
