//! The newest `/versions` that was served of each source.
//!
//! An upstream's servers get a new file one after the other, so an older one may come after a newer.
//! It is not shown: a client that has the newer would have to fetch all of it again, and would not
//! find what it has found. What was served is an entry under a name of its own, so that it stays.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use boatyard_content::entries::{EntryKey, Variant};
use boatyard_content::{Root, StoreError};
use boatyard_oci::Digest;
use jiff::{SignedDuration, Timestamp};

use super::Gem;
use super::listing::Versions;
use crate::entry::Entry;
use crate::target::Target;

/// How many sources are remembered.
const SOURCES_MAX: usize = 1000;
/// How long after the newest was last seen something older is believed: a source may have been
/// restored from a backup.
const BELIEVED_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// The newest of each source.
#[derive(Debug)]
pub(super) struct Newest {
    root: Arc<Root>,
    known: Mutex<HashMap<EntryKey, Arc<Entry>>>,
}

impl Newest {
    pub(super) fn new(root: Arc<Root>) -> Newest {
        Newest { root, known: Mutex::default() }
    }

    /// Returns the newest at a target.
    pub(super) async fn get(&self, target: &Target) -> Option<Arc<Entry>> {
        let key = key(target);
        if let Some(known) = self.known().get(&key) {
            return Some(Arc::clone(known));
        }
        let (root, wanted) = (Arc::clone(&self.root), key.clone());
        let kept = tokio::task::spawn_blocking(move || root.entries().get(&wanted)).await.ok()?;
        let kept = kept.ok()?;
        let entry = kept.variants.first().and_then(|kept| Entry::of_variant(&[], kept))?;
        let entry = Arc::new(entry);
        self.remember(key, &entry);
        Some(entry)
    }

    /// Notes the newest; what it replaces is given up.
    async fn set(&self, entry: &Arc<Entry>, before: Option<&Entry>) {
        let key = key(&entry.target);
        self.remember(key.clone(), entry);
        if before.is_some_and(|before| before.blob == entry.blob) {
            return;
        }
        let (root, mut noted) = (Arc::clone(&self.root), (**entry).clone());
        noted.policy.varied.clear();
        let put = tokio::task::spawn_blocking(move || {
            let Variant { blob, note, .. } = noted.to_variant();
            root.entries().put(&key, &[], &Variant { key: key.clone(), blob, note })
        });
        if let Ok(Err(error)) = put.await {
            tracing::warn!(target = %entry.target, %error, "the newest index cannot be noted");
        }
    }

    fn remember(&self, key: EntryKey, entry: &Arc<Entry>) {
        let mut known = self.known();
        if known.len() >= SOURCES_MAX {
            known.clear();
        }
        known.insert(key, Arc::clone(entry));
    }

    fn known(&self) -> MutexGuard<'_, HashMap<EntryKey, Arc<Entry>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gem {
    /// Returns the newer one of what came and what was served, which is noted.
    pub(super) async fn advance(&self, entry: &Arc<Entry>, now: Timestamp) -> Arc<Entry> {
        let newest = self.newest.get(&entry.target).await;
        if let Some(newest) = &newest
            && self.is_older(entry, newest, now).await
        {
            tracing::warn!(
                target = %entry.target,
                "the upstream has an older index than before: the newer one is served"
            );
            return Arc::clone(newest);
        }
        self.newest.set(entry, newest.as_deref()).await;
        Arc::clone(entry)
    }

    async fn is_older(&self, entry: &Entry, newest: &Entry, now: Timestamp) -> bool {
        let is_old = now.duration_since(newest.policy.received) > BELIEVED_AFTER;
        if entry.blob == newest.blob || is_old {
            return false;
        }
        let times = (self.created_at(&entry.blob).await, self.created_at(&newest.blob).await);
        if let (Some(created), Some(newest)) = times
            && created != newest
        {
            return created < newest;
        }
        entry.size < newest.size && self.begins(&newest.blob, &entry.blob).await
    }

    async fn created_at(&self, blob: &Digest) -> Option<Timestamp> {
        self.versions(blob).await?.created_at.as_deref()?.parse().ok()
    }

    /// Returns what a `/versions` says.
    pub(super) async fn versions(&self, blob: &Digest) -> Option<Arc<Versions>> {
        if let Some(versions) = self.versions.get(blob) {
            return Some(versions);
        }
        let (store, wanted) = (self.root.store(), blob.clone());
        let read = tokio::task::spawn_blocking(move || {
            let file = store.open_blocking(&wanted).ok()??;
            Versions::read(file.into_file()).ok()
        });
        let versions = Arc::new(read.await.ok()??);
        self.versions.put(blob.clone(), Arc::clone(&versions), versions.weight());
        Some(versions)
    }

    /// Says whether a blob begins with all of another.
    async fn begins(&self, whole: &Digest, part: &Digest) -> bool {
        let store = self.root.store();
        let (whole, part) = (whole.clone(), part.clone());
        let begins = tokio::task::spawn_blocking(move || {
            let (Some(whole), Some(part)) =
                (store.open_blocking(&whole)?, store.open_blocking(&part)?)
            else {
                return Ok(false);
            };
            let size = part.size();
            let same = same(&mut whole.into_file().take(size), &mut part.into_file());
            same.map_err(|source| StoreError::Io { doing: "compare two indexes", source })
        });
        matches!(begins.await, Ok(Ok(true)))
    }
}

/// Says whether two readers have the same bytes.
fn same(one: &mut dyn Read, two: &mut dyn Read) -> std::io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let read = two.read(&mut right)?;
        if read == 0 {
            return Ok(one.read(&mut left)? == 0);
        }
        if one.read_exact(&mut left[..read]).is_err() || left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

fn key(target: &Target) -> EntryKey {
    EntryKey::of(&format!("gem newest {target}"))
}
