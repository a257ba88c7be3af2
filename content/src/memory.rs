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
use crate::ingest::{Expected, Ingest, IngestKey, Landed, Sink};
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
    suspended: HashMap<IngestKey, Vec<u8>>,
    busy: HashSet<IngestKey>,
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
        let bytes = shelves.suspended.get(key).cloned().unwrap_or_default();
        let sink = MemorySink { store: self.clone(), key: key.clone(), bytes };
        Ok(Ingest::new(Box::new(sink)))
    }

    async fn discard(&self, key: &IngestKey) -> Result<(), StoreError> {
        let mut shelves = self.shelves();
        if shelves.busy.contains(key) {
            return Err(StoreError::IngestBusy { key: key.clone() });
        }
        shelves.suspended.remove(key);
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

struct MemorySink {
    store: MemoryStore,
    key: IngestKey,
    bytes: Vec<u8>,
}

impl Sink for MemorySink {
    fn offset(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn also(&mut self, _algorithm: Algorithm) {}

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn save(&mut self) -> Result<(), StoreError> {
        self.store.shelves().suspended.insert(self.key.clone(), self.bytes.clone());
        Ok(())
    }

    fn commit(mut self: Box<Self>, expected: &Expected) -> Result<Landed, StoreError> {
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let mut shelves = self.store.shelves();
        shelves.suspended.remove(&self.key);
        let info =
            BlobInfo { digest: Digest::of(expected.algorithm(), &bytes), size: bytes.len() as u64 };
        expected.check(&info)?;
        Ok(match shelves.blobs.insert(info.digest.clone(), bytes) {
            None => Landed::New(info),
            Some(_) => Landed::AlreadyPresent(info),
        })
    }

    fn abort(self: Box<Self>) -> Result<(), StoreError> {
        self.store.shelves().suspended.remove(&self.key);
        Ok(())
    }
}

impl Drop for MemorySink {
    fn drop(&mut self) {
        self.store.shelves().busy.remove(&self.key);
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
