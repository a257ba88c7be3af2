//! The local store itself: blobs as files under their digests.

use std::fmt;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use boatyard_oci::{Algorithm, Digest};
use fs_err as fs;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use rustix::fs::RawDir;

use crate::gc::SweepPermit;
use crate::ingest::{Growing, Ingest, IngestKey, blocking};
use crate::lease::{Holding, Lease};
use crate::local::ingest::{LocalSink, discard, follow};
use crate::local::layout::shard_name;
use crate::local::lock::Lock;
use crate::local::root::Shared;
use crate::store::{Blob, BlobFile, BlobInfo, Doing as _, FileIdentity, Store, StoreError};

/// The blobs of a root. Cloning is cheap, and all clones are one.
#[derive(Clone, Debug)]
pub struct LocalStore {
    root: Arc<Shared>,
}

impl LocalStore {
    pub(crate) fn new(root: Arc<Shared>) -> LocalStore {
        LocalStore { root }
    }

    /// Opens a blob, in blocking code.
    ///
    /// # Errors
    /// Where the file is there but cannot be opened.
    pub fn open_blocking(&self, digest: &Digest) -> Result<Option<BlobFile>, StoreError> {
        match fs::File::open(self.root.layout.blob(digest)) {
            Ok(file) => {
                let metadata = file.metadata().doing("look at a blob")?;
                Ok(Some(BlobFile::new(file, &metadata)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing("open a blob"),
        }
    }

    /// Visits all blobs, in no order, in blocking code.
    ///
    /// # Errors
    /// Where a directory cannot be listed.
    pub fn each_blocking(&self, visit: &mut dyn FnMut(BlobInfo)) -> Result<(), StoreError> {
        for algorithm in Algorithm::ALL {
            for shard in entries(&self.root.layout.algorithm(algorithm)) {
                self.each_in_shard(algorithm, &shard?.path(), visit)?;
            }
        }
        Ok(())
    }

    /// Visits the blobs of a shard, by its directory.
    pub(crate) fn each_in_shard(
        &self,
        algorithm: Algorithm,
        shard: &Path,
        visit: &mut dyn FnMut(BlobInfo),
    ) -> Result<(), StoreError> {
        for entry in entries(shard) {
            let entry = entry?;
            let name = entry.file_name();
            let digest = name.to_str().and_then(|hex| Digest::from_parts(algorithm, hex).ok());
            let Some(digest) = digest else { continue };
            match entry.metadata() {
                Ok(metadata) => visit(BlobInfo { digest, size: metadata.len() }),
                // The collector took it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).doing("look at a blob"),
            }
        }
        Ok(())
    }

    /// Says whether a blob's name still leads to a file that was opened under it: whoever keeps
    /// one open asks before it is used again, for it may have been collected or quarantined.
    ///
    /// One system call.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn is_blob(&self, digest: &Digest, file: FileIdentity) -> Result<bool, StoreError> {
        match fs::metadata(self.root.layout.blob(digest)) {
            Ok(metadata) => Ok(FileIdentity::of(&metadata) == file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).doing("look for a blob"),
        }
    }

    /// Looks for a blob, in blocking code.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn stat_blocking(&self, digest: &Digest) -> Result<Option<BlobInfo>, StoreError> {
        let size = match fs::metadata(self.root.layout.blob(digest)) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).doing("look for a blob"),
        };
        Ok(Some(BlobInfo { digest: digest.clone(), size }))
    }

    /// As [`Store::hold`], in blocking code.
    ///
    /// # Errors
    /// Where the lease could not be written or the file system does not answer.
    pub fn hold_blocking(
        &self,
        digest: &Digest,
        lease: Option<&Lease>,
    ) -> Result<Option<BlobInfo>, StoreError> {
        let layout = &self.root.layout;
        let _shared = Lock::shared(&layout.shard_lock(shard_name(digest)))?;
        if let Some(lease) = lease {
            lease.add(&Holding::Blob(digest.clone()))?;
        }
        let size = touch(&layout.blob(digest))?;
        Ok(size.map(|size| BlobInfo { digest: digest.clone(), size }))
    }

    /// Begins or takes up an ingest, in blocking code.
    ///
    /// # Errors
    /// As [`Store::ingest`].
    pub fn ingest_blocking(&self, key: &IngestKey, lease: &Lease) -> Result<Ingest, StoreError> {
        let sink = LocalSink::open(Arc::clone(&self.root), key.clone(), lease.clone())?;
        Ok(Ingest::new(Box::new(sink)))
    }

    /// As [`Store::discard`], in blocking code.
    ///
    /// # Errors
    /// Where somebody writes it, or its files could not be deleted.
    pub fn discard_blocking(&self, key: &IngestKey) -> Result<(), StoreError> {
        discard(&self.root, key)
    }

    /// As [`Store::remove`], in blocking code.
    ///
    /// # Errors
    /// Where the permit is for other blobs, or the file could not be deleted.
    pub fn remove_blocking(&self, digest: &Digest, permit: &SweepPermit) -> Result<(), StoreError> {
        if !permit.covers(digest) {
            return Err(StoreError::NotPermitted { digest: digest.clone() });
        }
        self.root.disk.remove_file(&self.root.layout.blob(digest)).doing("delete a blob")?;
        Ok(())
    }

    /// Returns the blobs, read directory by directory.
    fn names(&self) -> impl Iterator<Item = Result<BlobInfo, StoreError>> + use<> {
        let layout = self.root.layout.clone();
        let shards = Algorithm::ALL.into_iter().flat_map(move |algorithm| {
            entries(&layout.algorithm(algorithm)).map(move |entry| (algorithm, entry))
        });
        shards.flat_map(|(algorithm, shard)| {
            let (failure, shard) = match shard {
                Ok(shard) => (None, Some(shard)),
                Err(error) => (Some(Err(error)), None),
            };
            let blobs = shard.into_iter().flat_map(|shard| entries(&shard.path()));
            failure.into_iter().chain(blobs.filter_map(move |entry| match entry {
                Ok(entry) => info(algorithm, &entry).transpose(),
                Err(error) => Some(Err(error)),
            }))
        })
    }
}

/// Returns what a file among the blobs is; `None` where its name is no digest.
fn info(algorithm: Algorithm, entry: &fs::DirEntry) -> Result<Option<BlobInfo>, StoreError> {
    let name = entry.file_name();
    let Some(digest) = name.to_str().and_then(|hex| Digest::from_parts(algorithm, hex).ok()) else {
        return Ok(None);
    };
    match entry.metadata() {
        Ok(metadata) => Ok(Some(BlobInfo { digest, size: metadata.len() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing("look at a blob"),
    }
}

/// Returns the entries of a directory that may be absent. A file in its place has none: what does not
/// belong there is for fsck to tell, and hinders nobody else.
pub(crate) fn entries(
    directory: &Path,
) -> impl Iterator<Item = Result<fs::DirEntry, StoreError>> + use<> {
    let (entries, failure) = match fs::read_dir(directory) {
        Ok(entries) => (Some(entries), None),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            (None, None)
        }
        Err(error) => (None, Some(error)),
    };
    let failure = failure.map(Err);
    entries.into_iter().flatten().chain(failure).map(|entry| entry.doing("list a directory"))
}

/// How many bytes of a directory are read at a time.
const NAMES_BYTES: usize = 64 << 10;

/// Visits the names in a directory that may be absent, in no order and with `.` and `..`: without an
/// allocation for each, unlike [`entries`]. A page of a long list passes over most of them.
pub(crate) fn each_name(directory: &Path, visit: &mut dyn FnMut(&str)) -> Result<(), StoreError> {
    let opened = match fs::File::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.doing("list a directory")?.into_file(),
    };
    let mut buffer = Vec::with_capacity(NAMES_BYTES);
    let mut names = RawDir::new(opened, buffer.spare_capacity_mut());
    while let Some(entry) = names.next() {
        let entry = entry.doing("list a directory")?;
        if let Ok(name) = entry.file_name().to_str() {
            visit(name);
        }
    }
    Ok(())
}

/// Reads a small file that may be absent.
///
/// Four system calls, where `fs::read` makes seven to learn the size first: the registry reads two
/// such files for every manifest that it serves.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing("read a file"),
    };
    let mut bytes = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(bytes)),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).doing("read a file"),
        }
    }
}

/// Sets a file's ctime to now and returns its size, or `None` where it is absent.
///
/// The collector leaves alone whatever changed within its grace period, so this is how a blob is
/// kept that a client was told of.
pub(crate) fn touch(path: &Path) -> Result<Option<u64>, StoreError> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    match utimensat(CWD, path, &times, AtFlags::empty()) {
        Ok(()) => {}
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno).doing("touch a blob"),
    }
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing("look at a blob"),
    }
}

/// Returns a file's ctime, or `None` where it is absent.
pub(crate) fn changed(path: &Path) -> Result<Option<SystemTime>, StoreError> {
    use std::os::unix::fs::MetadataExt as _;
    match fs::symlink_metadata(path) {
        Ok(metadata) => {
            let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
            let nanos = u32::try_from(metadata.ctime_nsec()).unwrap_or(0);
            Ok(Some(UNIX_EPOCH + Duration::new(seconds, nanos)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing("look at a file"),
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store at {}", self.root.layout.root().display())
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn stat(&self, digest: &Digest) -> Result<Option<BlobInfo>, StoreError> {
        let (store, digest) = (self.clone(), digest.clone());
        blocking(move || store.stat_blocking(&digest)).await
    }

    async fn open(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        let (store, digest) = (self.clone(), digest.clone());
        blocking(move || Ok(store.open_blocking(&digest)?.map(Blob::File))).await
    }

    async fn hold(&self, digest: &Digest, lease: &Lease) -> Result<Option<BlobInfo>, StoreError> {
        let (store, digest, lease) = (self.clone(), digest.clone(), lease.clone());
        blocking(move || store.hold_blocking(&digest, Some(&lease))).await
    }

    async fn touch(&self, digest: &Digest) -> Result<Option<BlobInfo>, StoreError> {
        let (store, digest) = (self.clone(), digest.clone());
        blocking(move || store.hold_blocking(&digest, None)).await
    }

    async fn ingest(&self, key: &IngestKey, lease: &Lease) -> Result<Ingest, StoreError> {
        let (store, key, lease) = (self.clone(), key.clone(), lease.clone());
        blocking(move || store.ingest_blocking(&key, &lease)).await
    }

    async fn follow(&self, key: &IngestKey) -> Result<Option<Growing>, StoreError> {
        let (root, key) = (Arc::clone(&self.root), key.clone());
        blocking(move || follow(&root, &key)).await
    }

    async fn discard(&self, key: &IngestKey) -> Result<(), StoreError> {
        let (root, key) = (Arc::clone(&self.root), key.clone());
        blocking(move || discard(&root, &key)).await
    }

    fn list(&self) -> BoxStream<'_, Result<BlobInfo, StoreError>> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1024);
        let names = self.names();
        tokio::task::spawn_blocking(move || {
            for name in names {
                if sender.blocking_send(name).is_err() {
                    return;
                }
            }
        });
        stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|name| (name, receiver))
        })
        .boxed()
    }

    async fn remove(&self, digest: &Digest, permit: &SweepPermit) -> Result<(), StoreError> {
        tokio::task::block_in_place(|| self.remove_blocking(digest, permit))
    }
}
