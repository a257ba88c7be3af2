//! Layers into blobs, off the critical path: the next step runs while the last one is compressed.
//!
//! One thread takes the layers in turn and compresses each on all cores. It reads a layer's tree
//! again, so what it writes is checked against the diff ID that the snapshot got.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use boatyard_content::{Expected, IngestKey, Landed, Lease, Root, StoreError};
use boatyard_oci::{Descriptor, DiffId, MediaType};

use crate::layer::compress::{Compression, Compressor};
use crate::layer::{ContentTimes, WriteError, WriteOptions};
use crate::snapshot::LayerDir;

/// How many layers may wait; a build that is further ahead waits too.
const QUEUE_MAX: usize = 64;

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
    layer: LayerDir,
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

/// The thread that packs. Dropping it waits for what it is at.
#[derive(Debug)]
pub struct Packer {
    queue: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

/// How layers are packed.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// How they are compressed.
    pub compression: Compression,
    /// On how many threads.
    pub threads: usize,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Option<i64>,
}

impl Packer {
    /// Starts the thread. Blobs land in the root, held by the lease.
    pub fn start(root: Arc<Root>, lease: Lease, options: PackOptions) -> Packer {
        let (queue, work) = sync_channel::<Work>(QUEUE_MAX);
        let thread = std::thread::spawn(move || {
            for work in work {
                work.end(pack(&root, &lease, &work.layer, options));
            }
        });
        Packer { queue: Some(queue), thread: Some(thread) }
    }

    /// Packs a layer when its turn comes.
    pub fn pack(&self, layer: LayerDir) -> Packing {
        let packing = Packing::default();
        let work = Work { layer, packing: packing.clone() };
        if let Some(queue) = &self.queue {
            // If the thread is gone, the work comes back, and its drop tells who waits.
            let _ = queue.send(work);
        }
        packing
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pack(
    root: &Root,
    lease: &Lease,
    layer: &LayerDir,
    options: PackOptions,
) -> Result<Descriptor, PackError> {
    let diff_id = || layer.diff_id().clone();
    let store_failed = |source| PackError::Store { diff_id: diff_id(), source };
    let compress_failed = |source| PackError::Compress { diff_id: diff_id(), source };
    let ingest = root.store().ingest_blocking(&IngestKey::random(), lease).map_err(store_failed)?;
    let mut sink =
        Compressor::new(ingest, options.compression, options.threads).map_err(compress_failed)?;
    let write = WriteOptions { times: ContentTimes::None, epoch: options.epoch };
    let written = layer
        .archive(&mut sink, write)
        .map_err(|source| PackError::Write { diff_id: diff_id(), source })?;
    if written.diff_id != *layer.diff_id() {
        return Err(PackError::Changed { expected: diff_id(), actual: written.diff_id });
    }
    let ingest = sink.finish().map_err(compress_failed)?;
    let landed = ingest.commit_blocking(&Expected::any()).map_err(store_failed)?;
    let (Landed::New(blob) | Landed::AlreadyPresent(blob)) = landed;
    let media_type = match options.compression {
        Compression::None => MediaType::OCI_LAYER,
        Compression::Gzip { .. } => MediaType::OCI_LAYER_GZIP,
        Compression::Zstd { .. } => MediaType::OCI_LAYER_ZSTD,
    };
    Ok(Descriptor::new(media_type, blob.digest, blob.size))
}
