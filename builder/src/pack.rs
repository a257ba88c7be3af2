//! Layers into blobs, off the critical path: the next step runs while the last one is compressed.
//!
//! One thread takes the layers in turn and compresses each on all cores. It reads a layer's tree
//! again, or a blob that is packed otherwise, so what it writes is checked against the diff ID that
//! the layer has. What was packed is noted for later builds. The
//! thread is started by the first layer: a build that packs nothing has none.

use std::collections::HashMap;
use std::io::{self, Read as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use boatyard_content::{BlobInfo, Expected, Ingest, IngestKey, Landed, Lease, Root, StoreError};
use boatyard_oci::{Algorithm, Descriptor, DiffId, Hasher, MediaType};

use crate::cache::{Cache, CacheError};
use crate::layer::compress::{Compression, Compressor};
use crate::layer::{
    ContentTimes, DecompressLimits, Decompressor, Restamp, WriteError, WriteOptions, Written,
};
use crate::solve::{StackedLayer, Trees, TreesError};

/// How many layers may wait; a build that is further ahead waits too.
const QUEUE_MAX: usize = 64;
const COPY_BYTES: usize = 256 << 10;

/// Why a layer could not be made a blob.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Its tree cannot be read, or the blob not written.
    #[error("cannot pack the layer {diff_id}")]
    Write {
        /// Which layer.
        diff_id: DiffId,
        /// Why.
        #[source]
        source: WriteError,
    },
    /// The compressor failed, or the blob could not be written.
    #[error("cannot compress the layer {diff_id}")]
    Compress {
        /// Which layer.
        diff_id: DiffId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store did not take the blob.
    #[error("cannot store the layer {diff_id}")]
    Store {
        /// Which layer.
        diff_id: DiffId,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// It is there in another packing, and cannot be unpacked.
    #[error("cannot unpack the layer {diff_id} to pack it anew")]
    Tree {
        /// Which layer.
        diff_id: DiffId,
        /// Why.
        #[source]
        source: TreesError,
    },
    /// What was packed cannot be noted for later builds.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The build failed meanwhile.
    #[error("the build was cancelled")]
    Cancelled,
    /// No blob can be begun.
    #[error("cannot begin a blob")]
    Begin(#[from] StoreError),
    /// The compressor's threads cannot be started.
    #[error("cannot start to compress")]
    Start(#[source] io::Error),
    /// The tree changed since the snapshot was frozen.
    #[error("the layer {expected} is now {actual}: something changed it on disk")]
    Changed {
        /// What it was.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// The packing thread stopped.
    #[error("the thread that packs layers stopped; this is a bug in Boatyard")]
    Worker,
}

/// A layer's blob, once it is there. Clones wait for the same blob: stages share layers.
#[derive(Clone, Debug, Default)]
pub struct Packing(Arc<Ticket>);

#[derive(Debug, Default)]
struct Ticket {
    packed: Mutex<Option<Result<Descriptor, Arc<PackError>>>>,
    done: Condvar,
}

impl Packing {
    /// Waits for the blob.
    ///
    /// # Errors
    /// Where the layer could not be packed.
    pub fn wait(&self) -> Result<Descriptor, Arc<PackError>> {
        let mut packed = self.0.packed.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = &*packed {
                return result.clone();
            }
            packed = self.0.done.wait(packed).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A layer in the queue. However it ends, those who wait are told.
struct Work {
    /// The layer, and those below it.
    stack: Vec<StackedLayer>,
    compression: Compression,
    packing: Packing,
}

impl Work {
    fn end(&self, result: Result<Descriptor, PackError>) {
        let mut packed = self.packing.0.packed.lock().unwrap_or_else(PoisonError::into_inner);
        packed.get_or_insert(result.map_err(Arc::new));
        self.packing.0.done.notify_all();
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.end(Err(PackError::Worker));
    }
}

/// The thread that packs. Dropping it ends what it is at, and nothing more is packed.
pub(crate) struct Packer {
    press: Arc<Press>,
    line: Mutex<Line>,
}

/// What packs.
struct Press {
    root: Arc<Root>,
    lease: Lease,
    trees: Arc<Trees>,
    cache: Cache,
    threads: usize,
    stopped: AtomicBool,
}

#[derive(Default)]
struct Line {
    /// Layers that are packed, or will be: stages share them.
    known: HashMap<(DiffId, Compression), Packing>,
    queue: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

/// Returns how the cache names a packing.
pub(crate) fn encoding(compression: Compression) -> String {
    match compression {
        Compression::None => "none".to_owned(),
        Compression::Gzip { level } => format!("gzip-{level}"),
        Compression::Zstd { level } => format!("zstd-{level}"),
    }
}

impl Packer {
    /// Returns a packer that has nothing to do. Blobs land in the root, held by the lease.
    pub(crate) fn new(
        root: Arc<Root>,
        lease: Lease,
        trees: Arc<Trees>,
        cache: Cache,
        threads: usize,
    ) -> Packer {
        let stopped = AtomicBool::new(false);
        let press = Arc::new(Press { root, lease, trees, cache, threads, stopped });
        Packer { press, line: Mutex::default() }
    }

    /// Packs the topmost layer of a stack when its turn comes.
    pub(crate) fn pack(&self, stack: Vec<StackedLayer>, compression: Compression) -> Packing {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(top) = stack.last() else { return Packing::default() };
        let wanted = (top.diff_id().clone(), compression);
        if let Some(packing) = line.known.get(&wanted) {
            return packing.clone();
        }
        let packing = Packing::default();
        line.known.insert(wanted, packing.clone());
        let work = Work { stack, compression, packing: packing.clone() };
        if line.queue.is_none() {
            let (queue, works) = sync_channel::<Work>(QUEUE_MAX);
            let press = Arc::clone(&self.press);
            let pack = move || {
                works
                    .into_iter()
                    .for_each(|work| work.end(press.pack(&work.stack, work.compression)));
            };
            (line.queue, line.thread) = (Some(queue), Some(std::thread::spawn(pack)));
        }
        let queue = line.queue.clone();
        // Others need the line while this one waits for room.
        drop(line);
        if let Some(queue) = queue {
            // If the thread is gone, the work comes back, and its drop tells who waits.
            let _ = queue.send(work);
        }
        packing
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        // Whoever wanted a blob has waited for it: what is left nobody wants.
        self.press.stopped.store(true, Ordering::Relaxed);
        let line = self.line.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(line.queue.take());
        if let Some(thread) = line.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Packer {
    /// Begins a blob that a layer's archive is written to.
    pub(crate) fn sink(&self, compression: Compression) -> Result<Sink, PackError> {
        self.press.sink(compression)
    }

    /// Ends such a blob, of the layer that was written to it.
    pub(crate) fn land(&self, sink: Sink, written: &Written) -> Result<Descriptor, PackError> {
        self.press.land(sink, &written.diff_id)
    }
}

/// A blob that is being packed. Dropped before it landed, nothing of it stays.
pub(crate) struct Sink {
    /// `None` once it lands, or is dropped.
    compressor: Option<Compressor<Ingest>>,
    compression: Compression,
    has_landed: bool,
    key: IngestKey,
    root: Arc<Root>,
}

impl Sink {
    fn compressor(&mut self) -> io::Result<&mut Compressor<Ingest>> {
        self.compressor.as_mut().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Sink {
    fn land(mut self, diff_id: &DiffId) -> Result<BlobInfo, PackError> {
        let compressor = self.compressor.take().ok_or(PackError::Worker)?;
        let ingest = compressor
            .finish()
            .map_err(|source| PackError::Compress { diff_id: diff_id.clone(), source })?;
        let landed = ingest
            .commit_blocking(&Expected::any())
            .map_err(|source| PackError::Store { diff_id: diff_id.clone(), source })?;
        self.has_landed = true;
        let (Landed::New(blob) | Landed::AlreadyPresent(blob)) = landed;
        Ok(blob)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.compressor()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.compressor()?.flush()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Whoever holds the ingest's lock keeps it from being discarded.
        drop(self.compressor.take());
        if !self.has_landed {
            let _ = self.root.store().discard_blocking(&self.key);
        }
    }
}

impl Press {
    fn pack(
        &self,
        stack: &[StackedLayer],
        compression: Compression,
    ) -> Result<Descriptor, PackError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(PackError::Cancelled);
        }
        let Some(top) = stack.last() else { return Err(PackError::Worker) };
        let diff_id = || top.diff_id().clone();
        if let Some(blob) = self.find(top.diff_id(), compression)? {
            return Ok(blob);
        }
        let mut sink = self.sink(compression)?;
        // A base's archive is what it is: only its own bytes have its diff ID.
        let actual = match top.blob() {
            Some(blob) => self.repack(top, blob, &mut sink)?,
            None => self.archive(stack, top, &mut sink)?,
        };
        if actual != *top.diff_id() {
            return Err(PackError::Changed { expected: diff_id(), actual });
        }
        self.land(sink, top.diff_id())
    }

    /// Returns the blob of an earlier packing, held.
    fn find(
        &self,
        diff_id: &DiffId,
        compression: Compression,
    ) -> Result<Option<Descriptor>, PackError> {
        let wanted = encoding(compression);
        for (name, blob) in self.cache.encodings(diff_id)? {
            let held = |blob: &Descriptor| {
                self.root.store().hold_blocking(&blob.digest, Some(&self.lease))
            };
            if name == wanted && matches!(held(&blob), Ok(Some(_))) {
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    /// Packs the bytes of a blob anew.
    fn repack(
        &self,
        layer: &StackedLayer,
        blob: &Descriptor,
        sink: &mut Sink,
    ) -> Result<DiffId, PackError> {
        let diff_id = || layer.diff_id().clone();
        let failed = |source| PackError::Compress { diff_id: diff_id(), source };
        let blob = self.trees.open(blob, &|_| {});
        let blob = blob.map_err(|source| PackError::Tree { diff_id: diff_id(), source })?;
        let plain = Decompressor::new(blob, self.threads, DecompressLimits::default());
        let mut plain = plain.map_err(failed)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(PackError::Cancelled);
            }
            let read = plain.read(&mut buffer).map_err(failed)?;
            if read == 0 {
                return Ok(DiffId::new(hasher.finish()));
            }
            hasher.update(&buffer[..read]);
            sink.write_all(&buffer[..read]).map_err(failed)?;
        }
    }

    /// Packs a layer's tree.
    fn archive(
        &self,
        stack: &[StackedLayer],
        layer: &StackedLayer,
        sink: &mut Sink,
    ) -> Result<DiffId, PackError> {
        let diff_id = || layer.diff_id().clone();
        let unpacked = self.trees.find(layer).and_then(|found| match found {
            Some(tree) => Ok(Some(tree)),
            None => self.trees.of(stack, &|_| {}).map(|mut trees| trees.pop()),
        });
        let tree = unpacked.map_err(|source| PackError::Tree { diff_id: diff_id(), source })?;
        let tree = tree.ok_or(PackError::Worker)?;
        // Its times are what they are to be.
        let options = WriteOptions { times: ContentTimes::None, restamp: Restamp::AS_MADE };
        let written = tree
            .archive(sink, options)
            .map_err(|source| PackError::Write { diff_id: diff_id(), source })?;
        Ok(written.diff_id)
    }

    fn sink(&self, compression: Compression) -> Result<Sink, PackError> {
        let key = IngestKey::fleeting();
        let ingest = self.root.store().ingest_blocking(&key, &self.lease)?;
        let compressor = Compressor::new(ingest, compression, self.threads);
        Ok(Sink {
            compressor: Some(compressor.map_err(PackError::Start)?),
            compression,
            has_landed: false,
            key,
            root: Arc::clone(&self.root),
        })
    }

    /// Lets a blob land, and notes it for later builds.
    fn land(&self, sink: Sink, diff_id: &DiffId) -> Result<Descriptor, PackError> {
        let compression = sink.compression;
        let blob = sink.land(diff_id)?;
        let media_type = match compression {
            Compression::None => MediaType::OCI_LAYER,
            Compression::Gzip { .. } => MediaType::OCI_LAYER_GZIP,
            Compression::Zstd { .. } => MediaType::OCI_LAYER_ZSTD,
        };
        let blob = Descriptor::new(media_type, blob.digest, blob.size);
        self.cache.put_encoding(diff_id, &encoding(compression), &blob)?;
        Ok(blob)
    }
}
