//! What other machines' caches hold, for one build: records to find, and blobs to fetch when they are
//! needed.
//!
//! A record is found here after this machine's own. Its layer is known by its names alone, so a step
//! that is followed by steps that are found moves no byte. Whoever needs bytes asks
//! [`Imports::bring`]: the blob is fetched, its layer is hashed, and only where content and diff ID are
//! what the record says does it become part of this machine's cache, with all records that name it.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use boatyard_content::{Root, StoreError};
use boatyard_oci::{Descriptor, DiffId, Digest};
use thiserror::Error;

use super::{Ledger, SharedLayer, SharedMount, SharedRecord};
use crate::cache::mounts::CacheId;
use crate::cache::{Cache, CacheError, Key, Record, near};
use crate::contents::Tables;
use crate::layer::rewrite::{RewriteError, rewrite};
use crate::layer::{ContentTimes, DecompressLimits, Decompressor, Restamp, WriteOptions};
use crate::once::OnceFor;

/// Where the blobs of a shared cache are: a registry's repository, or a directory.
pub trait Depot: fmt::Display + Send + Sync {
    /// Brings a blob into the store of the build, whose lease holds it then. What arrives has the
    /// digest and the size that the descriptor says.
    ///
    /// # Errors
    /// Where it is not there, or not what it should be.
    fn fetch(&self, blob: &Descriptor) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// A ledger, and where its blobs are.
pub struct Source {
    /// What it says.
    pub ledger: Ledger,
    /// Where its blobs are.
    pub depot: Arc<dyn Depot>,
}

/// Why a blob of a shared cache could not be had.
#[derive(Debug, Error)]
pub enum ImportError {
    /// It was not brought.
    #[error("cannot fetch the blob {digest} from the cache {depot}")]
    Fetch {
        /// Which.
        digest: Digest,
        /// From where.
        depot: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A layer of a base image was not brought.
    #[error("cannot fetch the layers of {name}")]
    Base {
        /// Of which image.
        name: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It was brought, and cannot be read.
    #[error("cannot read the blob {digest} of the cache {depot}")]
    Read {
        /// Which.
        digest: Digest,
        /// From where.
        depot: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error("cannot read the blob {digest} from the store")]
    Store {
        /// Which.
        digest: Digest,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// It is no layer.
    #[error("the blob {digest} of the cache {depot} is no layer")]
    Layer {
        /// Which.
        digest: Digest,
        /// From where.
        depot: String,
        /// Why not.
        #[source]
        source: RewriteError,
    },
    /// It is another layer.
    #[error("the blob {digest} of the cache {depot} is not the layer that its record says")]
    Other {
        /// Which.
        digest: Digest,
        /// From where.
        depot: String,
    },
    /// This machine's cache could not be written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// The caches that a build imports. Empty, it knows nothing.
#[derive(Default)]
pub struct Imports {
    sources: Vec<Source>,
    records: HashMap<Key, (usize, usize)>,
    layers: HashMap<DiffId, (usize, usize)>,
    /// Where a blob is, and which layer it is, if it is one.
    blobs: HashMap<Digest, (usize, Option<usize>)>,
    /// Where the layers of base images are that are fetched when they are needed.
    bases: Mutex<HashMap<Digest, Arc<dyn Depot>>>,
    brought: OnceFor<Digest, ()>,
    failure: Mutex<Option<String>>,
}

impl fmt::Debug for Imports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depots = self.sources.iter().map(|source| source.depot.to_string());
        f.debug_list().entries(depots).finish()
    }
}

impl Imports {
    /// Returns what these caches hold; where two know a thing, the first counts.
    pub fn new(sources: Vec<Source>) -> Imports {
        let mut imports = Imports::default();
        for (at, source) in sources.iter().enumerate() {
            for (place, shared) in source.ledger.records.iter().enumerate() {
                for key in &shared.keys {
                    imports.records.entry(*key).or_insert((at, place));
                }
            }
            for (place, layer) in source.ledger.layers.iter().enumerate() {
                imports.layers.entry(layer.diff_id.clone()).or_insert((at, place));
                for blob in &layer.blobs {
                    let digest = blob.blob.digest.clone();
                    imports.blobs.entry(digest).or_insert((at, Some(place)));
                }
            }
            for blob in source.ledger.mounts.iter().flat_map(SharedMount::blobs) {
                imports.blobs.entry(blob.digest.clone()).or_insert((at, None));
            }
        }
        Imports { sources, ..imports }
    }

    /// Says whether nothing is imported.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Returns the caches.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Returns the record of a key.
    pub fn find(&self, key: &Key) -> Option<&SharedRecord> {
        let (source, place) = self.records.get(key)?;
        self.sources[*source].ledger.records.get(*place)
    }

    /// Returns a layer.
    pub fn layer(&self, diff_id: &DiffId) -> Option<&SharedLayer> {
        let (source, place) = self.layers.get(diff_id)?;
        self.sources[*source].ledger.layers.get(*place)
    }

    /// Returns what a cache mount held elsewhere.
    pub fn mount(&self, id: &CacheId) -> Option<&SharedMount> {
        self.sources.iter().flat_map(|source| &source.ledger.mounts).find(|mount| mount.id == *id)
    }

    /// Returns the record that says most about why a step is not found.
    pub fn nearest(&self, now: &Record) -> Option<Record> {
        let records = self.sources.iter().flat_map(|source| &source.ledger.records);
        near::best_of(records.map(|shared| &shared.record), now).cloned()
    }

    /// Brings the layers of all records, one blob of each, and so makes them this machine's own.
    /// Returns how many bytes they have.
    ///
    /// # Errors
    /// At the first that cannot be had.
    pub fn bring_all(
        &self,
        root: &Arc<Root>,
        tables: &Tables,
        threads: usize,
    ) -> Result<u64, ImportError> {
        let layers = self.sources.iter().flat_map(|source| &source.ledger.layers);
        let mut bytes = 0;
        for blob in layers.filter_map(|layer| layer.blobs.first()) {
            self.bring(root, tables, threads, &blob.blob)?;
            bytes += blob.blob.size;
        }
        Ok(bytes)
    }

    /// Notes where the blobs of a base image are, which nobody has fetched yet.
    pub fn promise<'a>(
        &self,
        blobs: impl IntoIterator<Item = &'a Descriptor>,
        depot: &Arc<dyn Depot>,
    ) {
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases.extend(blobs.into_iter().map(|blob| (blob.digest.clone(), Arc::clone(depot))));
    }

    fn base(&self, digest: &Digest) -> Option<Arc<dyn Depot>> {
        self.bases.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// Returns where a blob is.
    pub fn depot(&self, digest: &Digest) -> Option<Arc<dyn Depot>> {
        let source = self.blobs.get(digest).map(|(source, _)| &self.sources[*source]);
        source.map(|source| Arc::clone(&source.depot)).or_else(|| self.base(digest))
    }

    /// Returns why a blob could not be had that a cache had promised, if that happened.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Brings a blob into the store; `false` where no cache and no base image has it. Others that
    /// want the same one wait for it.
    ///
    /// # Errors
    /// Where it cannot be had, or is not what its ledger says.
    pub fn bring(
        &self,
        root: &Arc<Root>,
        tables: &Tables,
        threads: usize,
        blob: &Descriptor,
    ) -> Result<bool, ImportError> {
        let Some((source, layer)) = self.blobs.get(&blob.digest) else {
            let Some(base) = self.base(&blob.digest) else { return Ok(false) };
            let fetched = base.fetch(blob);
            let name = || base.to_string();
            fetched.map_err(|source| ImportError::Base { name: name(), source })?;
            return Ok(true);
        };
        let source = &self.sources[*source];
        let layer = layer.and_then(|place| source.ledger.layers.get(place));
        let brought = self.brought.of(&blob.digest, || {
            let digest = blob.digest.clone();
            source.depot.fetch(blob).map_err(|error| ImportError::Fetch {
                digest,
                depot: source.depot.to_string(),
                source: error,
            })?;
            let Some(layer) = layer else { return Ok(()) };
            Arrived { root, tables, threads, source, layer, blob }.adopt()
        });
        match brought {
            Ok(_) => Ok(true),
            Err(error) => {
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert_with(|| one_line(&error));
                Err(error)
            }
        }
    }
}

/// The blob of a layer that is in the store now.
struct Arrived<'a> {
    root: &'a Arc<Root>,
    tables: &'a Tables,
    threads: usize,
    source: &'a Source,
    layer: &'a SharedLayer,
    blob: &'a Descriptor,
}

impl Arrived<'_> {
    /// Makes the layer, and the records that name it, this machine's own.
    fn adopt(&self) -> Result<(), ImportError> {
        let cache = Cache::open(self.root);
        let SharedLayer { diff_id, times, chosen, blobs } = self.layer;
        let records = || {
            let records = self.source.ledger.records.iter();
            records.filter(|shared| shared.record.layer.diff_id == *diff_id)
        };
        let Some(first) = records().next() else { return Ok(()) };
        self.check(first)?;
        let same = blobs.iter().find(|known| known.blob.digest == self.blob.digest);
        if let Some(known) = same {
            cache.put_encoding(diff_id, &known.encoding, &known.blob)?;
        }
        let content = &first.record.layer.content;
        cache.adopt(content, *times, diff_id, chosen)?;
        for shared in records().filter(|shared| shared.record.layer.content == *content) {
            cache.put(&shared.keys, &shared.record)?;
        }
        Ok(())
    }

    /// Checks that the bytes are the layer that a record says, and keeps its table.
    fn check(&self, shared: &SharedRecord) -> Result<(), ImportError> {
        let digest = || self.blob.digest.clone();
        let depot = || self.source.depot.to_string();
        let opened = self.root.store().open_blocking(&self.blob.digest);
        let opened = opened.map_err(|source| ImportError::Store { digest: digest(), source })?;
        let other = || ImportError::Other { digest: digest(), depot: depot() };
        let file = opened.ok_or_else(other)?.into_file();
        let limits = DecompressLimits {
            // Whatever else it is, it is not the layer then.
            bytes_max: shared.record.layer.size.saturating_add(1),
            ..DecompressLimits::default()
        };
        let read = |source| ImportError::Read { digest: digest(), depot: depot(), source };
        let plain = Decompressor::new(file, self.threads, limits).map_err(read)?;
        let times = ContentTimes::Noted(self.layer.chosen.clone());
        let options = WriteOptions { times, restamp: Restamp::AS_MADE };
        let (_, written, table) = rewrite(plain, io::sink(), options)
            .map_err(|source| ImportError::Layer { digest: digest(), depot: depot(), source })?;
        let layer = &shared.record.layer;
        if written.diff_id != layer.diff_id || written.content_id != layer.content {
            return Err(other());
        }
        if let Some(table) = table {
            self.tables.put(&layer.diff_id, table);
        }
        Ok(())
    }
}

/// Returns an error with all its reasons, as one line.
pub fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text.push_str(&format!(": {deeper}"));
        cause = deeper.source();
    }
    text
}
