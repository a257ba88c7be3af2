//! What is kept: found, opened, put and given up.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};

use boatyard_content::BlobFile;
use boatyard_content::entries::EntryKey;
use boatyard_content::store::StoreError;
use boatyard_oci::Digest;
use bytes::Bytes;
use http::HeaderMap;

use super::{Engine, Shared};
use crate::entry::{Entry, variant_key};
use crate::target::Target;

/// Up to this size, a body that is used stays in memory.
const SMALL_MAX: u64 = 64 * 1024;
/// How long after one use of an entry the next is noted, in seconds.
const USE_GRAIN: i64 = 1800;

/// What is known of the variants of a target.
#[derive(Debug)]
pub(super) struct Known {
    stamp: Option<std::time::SystemTime>,
    vary: Vec<String>,
    variants: Vec<(EntryKey, Arc<Entry>)>,
    used: AtomicI64,
    /// When it was last noted how a request for it was answered, in seconds.
    pub(super) noted: AtomicI64,
}

/// The bytes of a blob, ready to be sent.
#[derive(Clone, Debug)]
pub(super) enum Opened {
    Memory(Bytes),
    File(Arc<BlobFile>),
}

impl Known {
    pub(super) fn choose(&self, request: &HeaderMap) -> Option<&Arc<Entry>> {
        static ONLY: LazyLock<EntryKey> = LazyLock::new(|| variant_key(&[], |_| Vec::new()));
        if self.vary.is_empty() {
            return self.variants.iter().find(|(key, _)| *key == *ONLY).map(|(_, entry)| entry);
        }
        let values = |name: &str| request.get_all(name).iter().cloned().collect();
        let wanted = variant_key(&self.vary, values);
        self.variants.iter().find(|(key, _)| *key == wanted).map(|(_, entry)| entry)
    }

    fn weight(&self) -> usize {
        let of = |entry: &Arc<Entry>| {
            let headers = entry.policy.headers.iter();
            512 + headers.map(|(name, value)| name.as_str().len() + value.len() + 64).sum::<usize>()
        };
        256 + self.variants.iter().map(|(_, entry)| of(entry)).sum::<usize>()
    }
}

impl Shared {
    /// Reads what is kept of a target. Blocking.
    fn load(&self, key: &EntryKey) -> Result<Arc<Known>, StoreError> {
        let entries = self.root.entries();
        // The stamp first: what changes meanwhile is read again the next time.
        let stamp = entries.stamp(key);
        let kept = entries.get(key)?;
        let variants = kept.variants.iter().filter_map(|variant| {
            Some((variant.key.clone(), Arc::new(Entry::of_variant(&kept.vary, variant)?)))
        });
        let variants = variants.collect();
        let vary = kept.vary.clone();
        let (used, noted) = (AtomicI64::new(0), AtomicI64::new(0));
        Ok(Arc::new(Known { stamp, vary, variants, used, noted }))
    }

    /// Opens a blob. Blocking.
    pub(super) fn open(&self, digest: &Digest) -> Option<Opened> {
        use std::os::unix::fs::FileExt as _;
        let file = match self.store.open_blocking(digest) {
            Ok(file) => file?,
            Err(error) => {
                tracing::warn!(%digest, %error, "a blob cannot be opened");
                return None;
            }
        };
        if file.size() > SMALL_MAX {
            let file = Arc::new(file);
            self.open.put(digest.clone(), Arc::clone(&file), 1);
            return Some(Opened::File(file));
        }
        let mut bytes = vec![0; file.size() as usize];
        if let Err(error) = file.file().read_exact_at(&mut bytes, 0) {
            tracing::warn!(%digest, %error, "a blob cannot be read");
            return None;
        }
        let bytes = Bytes::from(bytes);
        self.small.put(digest.clone(), bytes.clone(), bytes.len() + 128);
        Some(Opened::Memory(bytes))
    }
}

impl Engine {
    /// Returns what is kept of a target for a request with these headers.
    pub(super) async fn kept(&self, target: &Target, request: &HeaderMap) -> Option<Arc<Entry>> {
        let known = self.known(&target.key()).await?;
        let entry = known.choose(request)?;
        // Keys are hashes: that two targets share one is not to be believed, but costs nothing.
        (entry.target == *target).then(|| Arc::clone(entry))
    }

    /// Returns what is known of a target, where that still holds.
    pub(super) fn known_in_memory(&self, key: &EntryKey) -> Option<Arc<Known>> {
        let known = self.shared.known.get(key)?;
        // Other processes change entries, too.
        if self.shared.root.entries().stamp(key) == known.stamp {
            return Some(known);
        }
        self.shared.known.remove(key);
        None
    }

    async fn known(&self, key: &EntryKey) -> Option<Arc<Known>> {
        if let Some(known) = self.known_in_memory(key) {
            return Some(known);
        }
        let wanted = key.clone();
        match self.blocking(move |shared| shared.load(&wanted)).await? {
            Ok(known) if known.variants.is_empty() => None,
            Ok(known) => {
                let weight = known.weight();
                self.shared.known.put(key.clone(), Arc::clone(&known), weight);
                Some(known)
            }
            Err(error) => {
                tracing::warn!(%key, %error, "an entry cannot be read, and counts as absent");
                None
            }
        }
    }

    /// Notes that an entry is used, at most every half hour.
    pub(super) fn mark_used(&self, target: &Target) {
        let key = target.key();
        if let Some(known) = self.shared.known.get(&key) {
            self.mark_known_used(&key, &known);
        }
    }

    pub(super) fn mark_known_used(&self, key: &EntryKey, known: &Known) {
        let now = self.shared.options.clock.now().as_second();
        let last = known.used.load(Ordering::Relaxed);
        if now - last < USE_GRAIN || known.used.swap(now, Ordering::Relaxed) != last {
            return;
        }
        let (shared, key) = (Arc::clone(&self.shared), key.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = shared.root.entries().mark_used(&key) {
                tracing::debug!(%error, "a use is not noted");
            }
        });
    }

    /// Keeps an entry, whose blob is in a lease of the caller. `false` where it could not be.
    pub(super) async fn keep(&self, entry: &Arc<Entry>) -> bool {
        let kept = Arc::clone(entry);
        let put = self.blocking(move |shared| {
            let entries = shared.root.entries();
            let put = entries.put(&kept.target.key(), &kept.vary(), &kept.to_variant());
            put.and_then(|put| entries.mark_used(&kept.target.key()).map(|()| put))
        });
        let put = put.await;
        self.shared.known.remove(&entry.target.key());
        match put {
            Some(Ok(put)) => put,
            Some(Err(error)) => {
                tracing::warn!(target = %entry.target, %error, "an entry cannot be kept");
                false
            }
            None => false,
        }
    }

    /// Gives up what is kept of a target.
    ///
    /// # Errors
    /// Where a file cannot be deleted.
    pub async fn forget(&self, target: &Target) -> Result<(), StoreError> {
        let key = target.key();
        let removed = key.clone();
        let removed = self.blocking(move |shared| shared.root.entries().remove(&removed)).await;
        self.shared.known.remove(&key);
        self.forget_absent(target);
        removed.unwrap_or(Ok(()))
    }
}
