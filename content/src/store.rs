//! The contract of a store, and what comes out of one.

use std::fmt::{Debug, Display};
use std::io::{self, Read};
use std::path::PathBuf;

use async_trait::async_trait;
use boatyard_oci::Digest;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::gc::SweepPermit;
use crate::ingest::{Growing, Ingest, IngestKey};
use crate::lease::Lease;
pub use crate::local::Mapping;

/// What is known of a blob without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name.
    pub digest: Digest,
    /// The number of its bytes.
    pub size: u64,
}

/// An opened blob. What is open can be read to its end even if the collector deletes it.
#[derive(Debug)]
pub enum Blob {
    /// A file of the local store.
    File(BlobFile),
    /// Bytes in memory.
    Memory(Bytes),
}

impl Blob {
    /// Returns the number of bytes.
    pub fn size(&self) -> u64 {
        match self {
            Blob::File(file) => file.size(),
            Blob::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Returns a reader of the bytes, for blocking code.
    pub fn into_reader(self) -> Box<dyn Read + Send> {
        match self {
            Blob::File(file) => Box::new(file.into_file()),
            Blob::Memory(bytes) => Box::new(io::Cursor::new(bytes)),
        }
    }

    /// Reads the whole of a small blob, for blocking code.
    ///
    /// # Errors
    /// Where it has more than `most` bytes, or cannot be read.
    pub fn into_bytes(self, most: usize) -> Result<Bytes, StoreError> {
        let size = self.size();
        if size > most as u64 {
            return Err(StoreError::TooLarge { size, most: most as u64 });
        }
        match self {
            Blob::Memory(bytes) => Ok(bytes),
            Blob::File(file) => {
                let mut bytes = Vec::with_capacity(most.min(size as usize));
                file.into_file()
                    .read_to_end(&mut bytes)
                    .map_err(|source| StoreError::Io { doing: "read a blob", source })?;
                Ok(bytes.into())
            }
        }
    }
}

/// A blob that is a file: it can be sent by the kernel, and mapped.
///
/// Only the local store makes one, of files that nobody ever writes or cuts again.
#[derive(Debug)]
pub struct BlobFile {
    file: fs_err::File,
    size: u64,
    identity: FileIdentity,
}

/// Which file a path led to: as long as that file is open, no other one has the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    pub(crate) fn of(metadata: &std::fs::Metadata) -> FileIdentity {
        use std::os::unix::fs::MetadataExt as _;
        FileIdentity { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl BlobFile {
    /// Wraps a file of the local store that holds a whole blob.
    pub(crate) fn new(file: fs_err::File, metadata: &std::fs::Metadata) -> BlobFile {
        BlobFile { file, size: metadata.len(), identity: FileIdentity::of(metadata) }
    }

    /// Returns which file it is, for [`crate::local::LocalStore::is_blob`].
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// Returns the open file.
    pub fn file(&self) -> &std::fs::File {
        self.file.file()
    }

    /// Returns the number of bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Maps the whole blob into memory, to be read only.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn map(&self) -> io::Result<Mapping> {
        Mapping::of(self)
    }

    /// Returns the open file, by value; its position is at the start.
    pub fn into_file(self) -> fs_err::File {
        self.file
    }
}

/// A store of blobs under the digests of their bytes.
///
/// The life of a blob: [`Store::ingest`] begins a write, bytes are appended, and
/// [`Ingest::commit`] checks the digest and gives the blob its name. Until then nobody sees it;
/// afterwards it is complete and never changes. It lives as long as somebody holds it: a
/// repository (see [`crate::repository`]), or a [`Lease`].
///
/// Laws, which [`crate::testing::suite`] checks on every store:
/// - What `commit` returned as landed can be opened, whole, whatever happens to the process.
/// - A commit that fails leaves nothing behind under any name.
/// - Two that write the same bytes both succeed, and there is one blob.
/// - An ingest has one writer at a time; one that was suspended goes on where it stopped.
/// - Bytes of an announced ingest do not change, and whoever takes it up goes on behind them all.
/// - What [`Store::hold`] found, or `commit` landed, stays while the lease lives.
///
/// ```
/// # async fn example(store: &dyn boatyard_content::Store) -> Result<(), boatyard_content::StoreError> {
/// use boatyard_content::{Expected, IngestKey, Lease};
/// let lease = Lease::unheld();
/// let mut ingest = store.ingest(&IngestKey::random(), &lease).await?;
/// ingest.append("hello".into()).await?;
/// let landed = ingest.commit(Expected::any()).await?;
/// assert!(store.open(&landed.info().digest).await?.is_some());
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Store: Debug + Display + Send + Sync {
    /// Looks whether a blob is there. The answer is no promise: see [`Store::hold`].
    async fn stat(&self, digest: &Digest) -> Result<Option<BlobInfo>, StoreError>;

    /// Opens a blob.
    async fn open(&self, digest: &Digest) -> Result<Option<Blob>, StoreError>;

    /// Appends the digest to the lease, then looks: what is found stays while the lease lives.
    async fn hold(&self, digest: &Digest, lease: &Lease) -> Result<Option<BlobInfo>, StoreError>;

    /// Looks, and keeps what it finds for the collector's grace period: for whoever tells a
    /// client that a blob exists.
    async fn touch(&self, digest: &Digest) -> Result<Option<BlobInfo>, StoreError>;

    /// Begins a write, or takes up the one of this key that was put aside:
    /// [`Ingest::offset`] says where. The blob joins the lease in the step in which it lands.
    ///
    /// # Errors
    /// [`StoreError::IngestBusy`] where another writer has this key.
    async fn ingest(&self, key: &IngestKey, lease: &Lease) -> Result<Ingest, StoreError>;

    /// Opens what somebody is writing under this key and has
    /// [announced](Ingest::announce), to read it while it grows; or what a writer that died has
    /// left of it. `None` where there is no such ingest, or its bytes cannot be relied on.
    async fn follow(&self, key: &IngestKey) -> Result<Option<Growing>, StoreError>;

    /// Drops an ingest that was put aside. One that is not there is fine.
    async fn discard(&self, key: &IngestKey) -> Result<(), StoreError>;

    /// Lists the blobs, in no order.
    fn list(&self) -> BoxStream<'_, Result<BlobInfo, StoreError>>;

    /// Deletes a blob. Only the collector can have a permit.
    async fn remove(&self, digest: &Digest, permit: &SweepPermit) -> Result<(), StoreError>;
}

/// What a store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bytes have another digest than was promised.
    #[error("the bytes have the digest {got}, not {expected}")]
    DigestMismatch {
        /// What was promised.
        expected: Digest,
        /// What they have.
        got: Digest,
    },
    /// There are more or fewer bytes than was promised.
    #[error("there are {got} bytes, not {expected}")]
    SizeMismatch {
        /// What was promised.
        expected: u64,
        /// What there are.
        got: u64,
    },
    /// A blob is larger than the caller reads at once.
    #[error("the blob has {size} bytes, more than the {most} that are read at once")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        most: u64,
    },
    /// Another writer, in this process or another, has the ingest.
    #[error("ingest {key} is being written by somebody else")]
    IngestBusy {
        /// Which.
        key: IngestKey,
    },
    /// A file or directory could not be used. The source names it.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed; it names the path.
        #[source]
        source: io::Error,
    },
    /// A file of the store holds something else than it should.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The collector's permit is for other blobs: a bug of ours.
    #[error("the collector may not delete {digest} now; this is a bug in Boatyard")]
    NotPermitted {
        /// The blob.
        digest: Digest,
    },
    /// The thread that did the work panicked: a bug of ours.
    #[error("a worker thread of the store stopped; this is a bug in Boatyard")]
    Worker,
}

impl StoreError {
    /// Says whether the disk, or the user's share of it, is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self, StoreError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// Adds to an I/O error what was being done.
pub(crate) trait Doing<T> {
    /// Names the deed in a [`StoreError::Io`].
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { doing, source })
    }
}

impl<T> Doing<T> for Result<T, rustix::io::Errno> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|errno| StoreError::Io { doing, source: errno.into() })
    }
}
