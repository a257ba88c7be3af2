//! The reading side of a write in progress.
//!
//! A writer that [announces](crate::Ingest::announce) its ingest lets others read what it has
//! written so far, in this process and in others. They learn all there is to know from the open
//! file itself: how long it is, whether its writer has made it read-only (then its bytes are what
//! was promised), or whether it was deleted before that. Nobody tells them anything, so nothing
//! is lost with a writer that dies.
//!
//! Bytes of an announced ingest never change once they are written. Whoever goes on with one
//! after its writer died appends; whoever must begin anew begins another file, which readers
//! notice by [`Growing::is_same`].
//!
//! What is read here is *not checked yet*. Whoever passes it on withholds the last bytes until
//! [`Growth::Whole`].

use std::fmt;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fs_err as fs;
use fs_err::os::unix::fs::FileExt as _;

use crate::memory::MemoryIngest;
use crate::store::{Blob, BlobFile, Doing as _, FileIdentity, StoreError};

/// The bits of a mode that let somebody write: a file without them is whole.
const WRITABLE: u32 = 0o222;

/// How far a write in progress has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// So many bytes are written, by somebody who may go on or may have died.
    Growing(u64),
    /// These are all, and they are what was promised.
    Whole(u64),
    /// They were given up: they were wrong, or nobody wanted them any more.
    Dropped,
}

/// A piece of what is being read while it arrives.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Bytes(Bytes),
    /// All the rest: the object is whole, and this range of the blob is left of it.
    Rest(Blob, Range<u64>),
}

/// An announced ingest, opened to be read. What is open can be read whatever happens to the name.
pub struct Growing {
    held: Held,
    note: Bytes,
}

enum Held {
    File { file: fs::File, identity: FileIdentity },
    Memory(Arc<MemoryIngest>),
}

impl fmt::Debug for Growing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Growing").field("note", &self.note).finish_non_exhaustive()
    }
}

impl Growing {
    /// Wraps the data of an ingest of the local store.
    pub(crate) fn in_file(file: fs::File, note: Bytes) -> Result<Growing, StoreError> {
        let identity = FileIdentity::of(&file.metadata().doing("look at an ingest")?);
        Ok(Growing { held: Held::File { file, identity }, note })
    }

    pub(crate) fn in_memory(bytes: Arc<MemoryIngest>, note: Bytes) -> Growing {
        Growing { held: Held::Memory(bytes), note }
    }

    /// Returns what the writer announced of it.
    pub fn note(&self) -> &Bytes {
        &self.note
    }

    /// Looks how far it has come. One system call.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn growth(&self) -> Result<Growth, StoreError> {
        match &self.held {
            Held::Memory(bytes) => Ok(bytes.growth()),
            Held::File { file, .. } => {
                let metadata = file.metadata().doing("look at an ingest")?;
                Ok(if metadata.mode() & WRITABLE == 0 {
                    Growth::Whole(metadata.len())
                } else if metadata.nlink() == 0 {
                    Growth::Dropped
                } else {
                    Growth::Growing(metadata.len())
                })
            }
        }
    }

    /// Reads up to `most` bytes from a place on: fewer where there are no more yet. Blocking.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn read_at(&self, offset: u64, most: usize) -> Result<Bytes, StoreError> {
        let file = match &self.held {
            Held::Memory(bytes) => return Ok(bytes.read_at(offset, most)),
            Held::File { file, .. } => file,
        };
        let mut buffer = BytesMut::zeroed(most);
        let mut filled = 0;
        while filled < most {
            match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).doing("read an ingest"),
            }
        }
        buffer.truncate(filled);
        Ok(buffer.freeze())
    }

    /// Says whether both read the same bytes: not where one was begun anew.
    pub fn is_same(&self, other: &Growing) -> bool {
        match (&self.held, &other.held) {
            (Held::File { identity: one, .. }, Held::File { identity: two, .. }) => one == two,
            (Held::Memory(one), Held::Memory(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }

    /// Returns the blob that it has become, by its own open file: `None` before it is whole.
    ///
    /// # Errors
    /// Where the file cannot be opened once more.
    pub fn blob(&self) -> Result<Option<Blob>, StoreError> {
        let Growth::Whole(size) = self.growth()? else { return Ok(None) };
        match &self.held {
            Held::Memory(bytes) => Ok(Some(Blob::Memory(bytes.read_at(0, size as usize)))),
            Held::File { file, .. } => {
                // Not a clone: those share one position. And not by a name: it may have none now.
                let descriptor = std::os::fd::AsRawFd::as_raw_fd(file);
                let file = fs::File::open(format!("/proc/self/fd/{descriptor}"));
                let file = file.doing("open a blob")?;
                let metadata = file.metadata().doing("look at a blob")?;
                Ok(Some(Blob::File(BlobFile::new(file, &metadata))))
            }
        }
    }
}
