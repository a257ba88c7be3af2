//! The blobs that hold a layer in one packing or another: what the build cache holds.
//!
//! ```text
//! ROOT/cache/encodings/<diff id>/<compression>/<blob digest>   the blob's descriptor, JSON
//! ```
//!
//! The name holds the blob; the collector reads no more than that. The files are not synced: one
//! that a power cut took or tore holds nothing, or is not listed by [`Encodings::of`], and the layer
//! is made again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use boatyard_oci::{Descriptor, DiffId, Digest};
use fs_err as fs;

use crate::lease::Holding;
use crate::local::layout::shard_name;
use crate::local::{Lock, Shared, entries, holdings, read_if_there, touch, write_unsynced};
use crate::store::{Doing as _, StoreError};

/// The encodings of a root.
#[derive(Clone, Debug)]
pub struct Encodings {
    root: Arc<Shared>,
}

/// That a blob holds a layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Encoding {
    /// The layer.
    pub diff_id: DiffId,
    /// How it is packed: the name that was given to [`Encodings::put`].
    pub compression: String,
    /// The blob.
    pub blob: Digest,
}

impl Encodings {
    pub(crate) fn new(root: Arc<Shared>) -> Encodings {
        Encodings { root }
    }

    /// Says that a blob holds a layer, and so holds the blob. `false` where the blob is not there:
    /// then nothing is said.
    ///
    /// `compression` is one file name, such as `gzip`.
    ///
    /// # Errors
    /// Where the file could not be written.
    pub fn put(
        &self,
        diff_id: &DiffId,
        compression: &str,
        blob: &Descriptor,
    ) -> Result<bool, StoreError> {
        let layout = &self.root.layout;
        // As everybody who refers to a blob: a collection that listed the holders before finds the
        // ctime touched.
        let _shared = Lock::shared(&layout.shard_lock(shard_name(&blob.digest)))?;
        if touch(&layout.blob(&blob.digest))?.is_none() {
            return Ok(false);
        }
        let path = self.path(diff_id, compression, &blob.digest);
        if !path.try_exists().doing("look for an encoding")? {
            let descriptor = serde_json::to_vec(blob).expect("texts always serialise");
            write_unsynced(&path, &descriptor)?;
            touch(&layout.blob(&blob.digest))?;
        }
        Ok(true)
    }

    /// Returns the blobs that hold a layer, each with the name of its compression. Whether a blob is
    /// still there, [`crate::Store::hold`] says.
    ///
    /// # Errors
    /// Where the files could not be read.
    pub fn of(&self, diff_id: &DiffId) -> Result<Vec<(String, Descriptor)>, StoreError> {
        let mut found = Vec::new();
        for encoding in self.below(diff_id)? {
            let Encoding { compression, blob, .. } = encoding;
            let bytes = read_if_there(&self.path(diff_id, &compression, &blob))?;
            let descriptor = serde_json::from_slice::<Descriptor>(&bytes.unwrap_or_default());
            let agrees = |descriptor: &Descriptor| descriptor.digest == blob;
            found.extend(descriptor.ok().filter(agrees).map(|found| (compression, found)));
        }
        found.sort_by(|(a, left), (b, right)| (a, &left.digest).cmp(&(b, &right.digest)));
        Ok(found)
    }

    /// Returns all encodings, in no order.
    ///
    /// # Errors
    /// Where a directory cannot be listed.
    pub fn all(&self) -> Result<Vec<Encoding>, StoreError> {
        let mut all = Vec::new();
        for layer in entries(&self.root.layout.encodings()) {
            let name = layer?.file_name();
            if let Some(diff_id) = name.to_str().and_then(|name| name.parse().ok()) {
                all.extend(self.below(&diff_id)?);
            }
        }
        Ok(all)
    }

    /// Returns when an encoding was written; `None` where it is not there.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn written(&self, encoding: &Encoding) -> Result<Option<SystemTime>, StoreError> {
        let Encoding { diff_id, compression, blob } = encoding;
        match fs::metadata(self.path(diff_id, compression, blob)) {
            Ok(metadata) => metadata.modified().map(Some).doing("look at an encoding"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing("look at an encoding"),
        }
    }

    /// Gives up those of the encodings whose blobs no living process relies on, and returns them.
    /// The blobs themselves are the collector's business.
    ///
    /// # Errors
    /// Where leases could not be read, or a file not be deleted.
    pub fn remove(&self, encodings: &[Encoding]) -> Result<Vec<Encoding>, StoreError> {
        let mut shards: BTreeMap<&str, Vec<&Encoding>> = BTreeMap::new();
        for encoding in encodings {
            shards.entry(shard_name(&encoding.blob)).or_default().push(encoding);
        }
        let mut removed = Vec::new();
        for (shard, encodings) in shards {
            // Whoever begins to rely on a blob leases it under the shared lock.
            let _exclusive = Lock::exclusive(&self.root.layout.shard_lock(shard))?;
            let leased = holdings(&self.root.layout)?;
            for encoding in encodings {
                if !leased.contains(&Holding::Blob(encoding.blob.clone())) {
                    self.unlink(encoding)?;
                    removed.push(encoding.clone());
                }
            }
        }
        Ok(removed)
    }

    fn unlink(&self, encoding: &Encoding) -> Result<(), StoreError> {
        let Encoding { diff_id, compression, blob } = encoding;
        let path = self.path(diff_id, compression, blob);
        self.root.disk.remove_file(&path).doing("give up an encoding")?;
        for directory in path.ancestors().skip(1).take(2) {
            // Somebody may be putting another one there: then it stays, or is made again.
            self.root.disk.remove_directory(directory).doing("give up an encoding")?;
        }
        Ok(())
    }

    fn below(&self, diff_id: &DiffId) -> Result<Vec<Encoding>, StoreError> {
        let mut found = Vec::new();
        for compression in entries(&self.directory(diff_id)) {
            let compression = compression?;
            let Ok(name) = compression.file_name().into_string() else { continue };
            for blob in entries(&compression.path()) {
                let blob = blob?.file_name();
                let blob = blob.to_str().and_then(|name| name.parse::<Digest>().ok());
                found.extend(blob.map(|blob| Encoding {
                    diff_id: diff_id.clone(),
                    compression: name.clone(),
                    blob,
                }));
            }
        }
        Ok(found)
    }

    fn directory(&self, diff_id: &DiffId) -> PathBuf {
        self.root.layout.encodings().join(diff_id.to_string())
    }

    fn path(&self, diff_id: &DiffId, compression: &str, blob: &Digest) -> PathBuf {
        self.directory(diff_id).join(compression).join(blob.to_string())
    }
}
