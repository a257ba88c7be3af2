//! Keeping within a byte limit: what was not used for longest is forgotten first.
//!
//! Nothing is forgotten that an ecosystem needs, and who reads something reads on: its file is
//! open. An entry that cannot be looked at counts nothing, stops nobody, and is forgotten. Blobs
//! are the collector's to delete: they stay while anything else on the root holds them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use boatyard_content::entries::EntryKey;
use boatyard_content::gc::{self, GcError, GcOptions};
use boatyard_content::store::StoreError;
use boatyard_oci::Digest;

use super::{Engine, Shared};

/// After how much of the limit has come anew it is looked again: one part of so many.
const SHARE: u64 = 20;
/// How many blobs are remembered that could not be deleted yet; the collector finds the others.
const FORGOTTEN_MAX: usize = 10_000;

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub key: EntryKey,
    /// Its blobs.
    pub blobs: Vec<Digest>,
    /// When it was last used, give or take an hour.
    pub used: SystemTime,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// The bytes of all blobs before.
    pub bytes: u64,
    /// How many entries were forgotten.
    pub entries: u64,
    /// How many bytes the collector deleted of them.
    pub freed: u64,
}

impl Engine {
    /// Sweeps if enough has come since the last time.
    pub(super) fn swept_after(&self, bytes: u64) {
        let shared = &self.shared;
        let Some(most) = shared.settings().bytes_max else { return };
        let since = shared.since_sweep.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if since < most / SHARE {
            return;
        }
        shared.since_sweep.store(0, Ordering::Relaxed);
        let shared = Arc::clone(shared);
        tokio::task::spawn_blocking(move || match shared.sweep(most) {
            Ok(evicted) if evicted.entries == 0 => {}
            Ok(evicted) => tracing::info!(?evicted, "the cache proxy is within its limit again"),
            Err(error) => tracing::warn!(%error, "the cache proxy is not within its limit"),
        });
    }

    /// Forgets what was not used for longest until no more than `most` bytes are kept.
    ///
    /// # Errors
    /// Where entries cannot be listed.
    pub async fn sweep(&self, most: u64) -> Result<Evicted, StoreError> {
        self.blocking(move |shared| shared.sweep(most)).await.unwrap_or(Ok(Evicted::default()))
    }
}

impl Shared {
    fn sweep(&self, most: u64) -> Result<Evicted, StoreError> {
        let Ok(mut forgotten) = self.forgotten.try_lock() else { return Ok(Evicted::default()) };
        let entries = self.root.entries();
        let now = SystemTime::now();
        let mut sizes: HashMap<Digest, u64> = HashMap::new();
        let mut held = Vec::new();
        for key in entries.keys()? {
            let used = entries.last_used(&key).ok().flatten().unwrap_or(now);
            let blobs = entries.blobs(&key);
            // It may be broken, or not be there yet, or just have come.
            let comes = || entries.is_being_written(&key) || !entries.blobs(&key).is_empty();
            if blobs.is_empty() && comes() {
                continue;
            }
            for blob in &blobs {
                let size = || self.store.stat_blocking(blob).ok().flatten();
                sizes.entry(blob.clone()).or_insert_with(|| size().map_or(0, |info| info.size));
            }
            held.push(Held { key, blobs, used });
        }
        let needed: HashSet<Digest> =
            self.options.ecosystems.iter().flat_map(|ecosystem| ecosystem.needed()).collect();
        let bytes = sizes.values().sum();
        let doomed = choose(held, &sizes, &needed, most);
        let mut blobs = std::mem::take(&mut *forgotten);
        let mut count = 0;
        for entry in &doomed {
            match entries.remove(&entry.key) {
                Ok(()) => count += 1,
                Err(error) => {
                    tracing::warn!(key = %entry.key, %error, "an entry cannot be forgotten");
                    continue;
                }
            }
            self.known.remove(&entry.key);
            for blob in &entry.blobs {
                self.small.remove(blob);
                self.open.remove(blob);
                blobs.push(blob.clone());
            }
        }
        let options = GcOptions { grace: self.settings().grace, ..GcOptions::default() };
        let freed = match gc::collect_only(&self.root, &blobs, &options) {
            Ok(report) => report.freed_bytes(),
            Err(GcError::Running) => 0,
            Err(error) => {
                tracing::warn!(%error, "what was forgotten is not deleted yet");
                0
            }
        };
        // The next sweep tries again.
        blobs.retain(|blob| matches!(self.store.stat_blocking(blob), Ok(Some(_))));
        blobs.truncate(FORGOTTEN_MAX);
        *forgotten = blobs;
        Ok(Evicted { bytes, entries: count, freed })
    }
}

/// Chooses what to forget: what cannot be read, then the longest unused.
fn choose(
    mut held: Vec<Held>,
    sizes: &HashMap<Digest, u64>,
    needed: &HashSet<Digest>,
    most: u64,
) -> Vec<Held> {
    let mut holders: HashMap<Digest, usize> = HashMap::new();
    for blob in held.iter().flat_map(|entry| &entry.blobs) {
        *holders.entry(blob.clone()).or_default() += 1;
    }
    let mut left: u64 = sizes.values().sum();
    held.sort_by(|one, other| one.used.cmp(&other.used).then_with(|| one.key.cmp(&other.key)));
    held.retain(|entry| {
        if entry.blobs.is_empty() {
            return true;
        }
        if left <= most || entry.blobs.iter().any(|blob| needed.contains(blob)) {
            return false;
        }
        for blob in &entry.blobs {
            let others = holders.get_mut(blob).map_or(0, |count| {
                *count -= 1;
                *count
            });
            if others == 0 {
                left = left.saturating_sub(sizes.get(blob).copied().unwrap_or(0));
            }
        }
        true
    });
    held
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_longest_unused_go_first_and_nothing_that_is_needed() {
        let blob = |name: &str| Digest::sha256(name.as_bytes());
        let entry = |name: &str, blobs: &[&str], used| Held {
            key: EntryKey::of(name),
            blobs: blobs.iter().map(|name| blob(name)).collect(),
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(used),
        };
        let held = vec![
            entry("new", &["n"], 40),
            entry("index", &["i"], 10),
            entry("old", &["o"], 20),
            entry("twin", &["o"], 30),
            entry("broken", &[], 50),
        ];
        let sizes: HashMap<_, _> =
            ["n", "i", "o"].into_iter().map(|name| (blob(name), 10)).collect();
        let needed = HashSet::from([blob("i")]);
        let keys = |most| {
            let chosen = choose(held.clone(), &sizes, &needed, most);
            chosen.into_iter().map(|entry| entry.key).collect::<HashSet<_>>()
        };
        let names = |names: &[&str]| names.iter().map(|name| EntryKey::of(name)).collect();
        assert_eq!(keys(30), names(&["broken"]));
        assert_eq!(keys(20), names(&["broken", "old", "twin"]), "both, or no byte is won");
        assert_eq!(keys(0), names(&["broken", "old", "twin", "new"]));
    }
}
