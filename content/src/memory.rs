//! A store in memory, for tests and for what is thrown away.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use boatyard_oci::{Algorithm, Digest};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use crate::gc::SweepPermit;
use crate::ingest::{Expected, Growing, Growth, Ingest, IngestKey, Landed, Sink};
use crate::lease::Lease;
use crate::store::{Blob, BlobInfo, Store, StoreError};

/// A store whose blobs are gone with it.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    shelves: Arc<Mutex<Shelves>>,
}

#[derive(Debug, Default)]
struct Shelves {
    blobs: HashMap<Digest, Bytes>,
    ingests: HashMap<IngestKey, Arc<MemoryIngest>>,
    busy: HashSet<IngestKey>,
}

/// A write in progress, which others may read.
#[derive(Debug, Default)]
pub(crate) struct MemoryIngest {
    inner: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    saved: Option<usize>,
    note: Option<Bytes>,
    ended: Option<Growth>,
}

impl MemoryIngest {
    pub(crate) fn growth(&self) -> Growth {
        let written = self.lock();
        written.ended.unwrap_or(Growth::Growing(written.bytes.len() as u64))
    }

    pub(crate) fn read_at(&self, offset: u64, most: usize) -> Bytes {
        let written = self.lock();
        let start = written.bytes.len().min(offset as usize);
        let end = written.bytes.len().min(start.saturating_add(most));
        Bytes::copy_from_slice(&written.bytes[start..end])
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStore {
    /// Returns an empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store in memory")
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn stat(&self, digest: &Digest) -> Result<Option<BlobInfo>, StoreError> {
        let size = self.shelves().blobs.get(digest).map(|bytes| bytes.len() as u64);
        Ok(size.map(|size| BlobInfo { digest: digest.clone(), size }))
    }

    async fn open(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        Ok(self.shelves().blobs.get(digest).cloned().map(Blob::Memory))
    }

    async fn hold(&self, digest: &Digest, _lease: &Lease) -> Result<Option<BlobInfo>, StoreError> {
        self.stat(digest).await
    }

    async fn touch(&self, digest: &Digest) -> Result<Option<BlobInfo>, StoreError> {
        self.stat(digest).await
    }

    async fn ingest(&self, key: &IngestKey, _lease: &Lease) -> Result<Ingest, StoreError> {
        let mut shelves = self.shelves();
        if !shelves.busy.insert(key.clone()) {
            return Err(StoreError::IngestBusy { key: key.clone() });
        }
        let ingest = Arc::clone(shelves.ingests.entry(key.clone()).or_default());
        {
            let mut written = ingest.lock();
            let kept = match written.note {
                Some(_) => written.bytes.len(),
                None => written.saved.unwrap_or_default(),
            };
            written.bytes.truncate(kept);
        }
        let sink = MemorySink { store: self.clone(), key: key.clone(), ingest };
        Ok(Ingest::new(Box::new(sink)))
    }

    async fn follow(&self, key: &IngestKey) -> Result<Option<Growing>, StoreError> {
        let ingest = self.shelves().ingests.get(key).cloned();
        Ok(ingest.and_then(|ingest| {
            let note = ingest.lock().note.clone()?;
            Some(Growing::in_memory(ingest, note))
        }))
    }

    async fn discard(&self, key: &IngestKey) -> Result<(), StoreError> {
        let mut shelves = self.shelves();
        if shelves.busy.contains(key) {
            return Err(StoreError::IngestBusy { key: key.clone() });
        }
        shelves.end(key, Growth::Dropped);
        Ok(())
    }

    fn list(&self) -> BoxStream<'_, Result<BlobInfo, StoreError>> {
        let infos: Vec<_> = self
            .shelves()
            .blobs
            .iter()
            .map(|(digest, bytes)| {
                Ok(BlobInfo { digest: digest.clone(), size: bytes.len() as u64 })
            })
            .collect();
        stream::iter(infos).boxed()
    }

    async fn remove(&self, digest: &Digest, permit: &SweepPermit) -> Result<(), StoreError> {
        if !permit.covers(digest) {
            return Err(StoreError::NotPermitted { digest: digest.clone() });
        }
        self.shelves().blobs.remove(digest);
        Ok(())
    }
}

impl Shelves {
    /// Takes an ingest away, and tells those who read it how it ended.
    fn end(&mut self, key: &IngestKey, how: Growth) {
        if let Some(ingest) = self.ingests.remove(key) {
            ingest.lock().ended = Some(how);
        }
    }
}

struct MemorySink {
    store: MemoryStore,
    key: IngestKey,
    ingest: Arc<MemoryIngest>,
}

impl Sink for MemorySink {
    fn offset(&self) -> u64 {
        self.ingest.lock().bytes.len() as u64
    }

    fn also(&mut self, _algorithm: Algorithm) {}

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.ingest.lock().bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn save(&mut self) -> Result<(), StoreError> {
        let mut written = self.ingest.lock();
        written.saved = Some(written.bytes.len());
        Ok(())
    }

    fn announce(&mut self, note: &Bytes) -> Result<(), StoreError> {
        self.ingest.lock().note = Some(note.clone());
        Ok(())
    }

    fn commit(
        self: Box<Self>,
        expected: &Expected,
        agreed: &dyn Fn(),
    ) -> Result<Landed, StoreError> {
        let bytes = Bytes::copy_from_slice(&self.ingest.lock().bytes);
        let mut shelves = self.store.shelves();
        let info =
            BlobInfo { digest: Digest::of(expected.algorithm(), &bytes), size: bytes.len() as u64 };
        let checked = expected.check(&info);
        let how = if checked.is_ok() { Growth::Whole(info.size) } else { Growth::Dropped };
        shelves.end(&self.key, how);
        checked?;
        agreed();
        Ok(match shelves.blobs.insert(info.digest.clone(), bytes) {
            None => Landed::New(info),
            Some(_) => Landed::AlreadyPresent(info),
        })
    }

    fn abort(self: Box<Self>) -> Result<(), StoreError> {
        self.store.shelves().end(&self.key, Growth::Dropped);
        Ok(())
    }
}

impl Drop for MemorySink {
    fn drop(&mut self) {
        let mut shelves = self.store.shelves();
        shelves.busy.remove(&self.key);
        let kept = {
            let written = self.ingest.lock();
            written.saved.is_some() || written.note.is_some()
        };
        if !kept {
            shelves.end(&self.key, Growth::Dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passes_the_suite() {
        crate::testing::suite::all(&MemoryStore::new(), &Lease::unheld()).await;
    }
}
