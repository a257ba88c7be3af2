//! The tables that a root keeps.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use boatyard_oci::{Algorithm, DiffId, Hasher};
use thiserror::Error;

use super::recorder::{Kept, Recorder};
use super::{Table, TableError};
use crate::layer::dir::Dir;
use crate::layer::hashed::{Content as _, HashedRead, Keeping};
use crate::layer::tar::TarError;
use crate::layer::whiteout::{self, Meaning, WhiteoutError};
use crate::layer::{
    Archive, ContentTimes, DecompressLimits, Decompressor, EntryPath, Limits, Restamp, WriteError,
    WriteOptions,
};

const READ_BYTES: usize = 256 << 10;

/// Why a layer's table cannot be had.
#[derive(Debug, Error)]
pub enum TablesError {
    /// It cannot be made or kept.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The blob cannot be read or decompressed.
    #[error("cannot read the layer {diff_id}")]
    Read {
        /// Which layer.
        diff_id: DiffId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive is damaged.
    #[error("cannot read the layer {diff_id}")]
    Archive {
        /// Which layer.
        diff_id: DiffId,
        /// What is wrong.
        #[source]
        source: TarError,
    },
    /// A name starts with `.wh.` and is no whiteout.
    #[error("{path} is not allowed in a layer")]
    Whiteout {
        /// Which entry.
        path: EntryPath,
        /// What is wrong.
        #[source]
        source: WhiteoutError,
    },
    /// The bytes are not those that the image's configuration promises.
    #[error("the layer's bytes hash to {actual}, but the image promises {expected}")]
    WrongDiffId {
        /// From the configuration.
        expected: DiffId,
        /// Of the bytes.
        actual: DiffId,
    },
    /// The unpacked tree cannot be read.
    #[error("cannot read the unpacked layer {diff_id}")]
    Tree {
        /// Which layer.
        diff_id: DiffId,
        /// Why.
        #[source]
        source: WriteError,
    },
}

/// The tables of one root, shared by all who clone it.
#[derive(Clone, Debug)]
pub struct Tables(Arc<Shelf>);

#[derive(Debug)]
struct Shelf {
    directory: PathBuf,
    /// What somebody in this process has in hand.
    read: Mutex<HashMap<DiffId, Weak<Table>>>,
}

impl Tables {
    /// Opens the tables below ROOT.
    pub fn open(root: &Path) -> Tables {
        let (directory, read) = (root.join("contents"), Mutex::default());
        Tables(Arc::new(Shelf { directory, read }))
    }

    /// Returns a layer's table, if it was recorded.
    ///
    /// # Errors
    /// Fails if it is there and cannot be read.
    pub fn find(&self, diff_id: &DiffId) -> Result<Option<Arc<Table>>, TablesError> {
        if let Some(table) = self.known().get(diff_id).and_then(Weak::upgrade) {
            return Ok(Some(table));
        }
        let table = Table::read(&self.path(diff_id))?;
        Ok(table.map(|table| self.know(diff_id, table)))
    }

    /// Keeps a layer's table. Where it cannot be written, only the caller has it: it can be made
    /// again.
    pub fn put(&self, diff_id: &DiffId, table: Table) -> Arc<Table> {
        if let Err(error) = table.write(&self.path(diff_id)) {
            tracing::warn!(%diff_id, error = &error as &dyn std::error::Error, "a table is lost");
        }
        self.know(diff_id, table)
    }

    /// Makes a layer's table from its blob, however that is packed, and keeps it.
    ///
    /// # Errors
    /// Fails on a blob that is damaged or not the promised one.
    pub fn scan(
        &self,
        diff_id: &DiffId,
        blob: impl Read,
        threads: usize,
    ) -> Result<Arc<Table>, TablesError> {
        let failed = |source| TablesError::Read { diff_id: diff_id.clone(), source };
        let damaged = |source| TablesError::Archive { diff_id: diff_id.clone(), source };
        let blob = Decompressor::new(blob, threads, DecompressLimits::default()).map_err(failed)?;
        let hashing = Hashing { inner: blob, hasher: Hasher::new(Algorithm::Sha256) };
        let buffered = BufReader::with_capacity(READ_BYTES, hashing);
        let mut archive = Archive::new(buffered, Limits::default());
        let mut recorder = Recorder::default();
        while let Some(entry) = archive.next_entry().map_err(damaged)? {
            let path = entry.path.clone();
            let entry = match whiteout::interpret(entry) {
                Ok(Meaning::Entry(entry)) => entry,
                Ok(Meaning::Ignored) => continue,
                Err(source) => return Err(TablesError::Whiteout { path, source }),
            };
            let mut content = archive.content();
            let mut hashed = HashedRead::new(&mut content);
            match Kept::of(&entry) {
                Some(kept) => {
                    let mut keeping = Keeping::new(&mut hashed);
                    io::copy(&mut keeping, &mut io::sink()).map_err(failed)?;
                    let bytes = keeping.into_bytes();
                    recorder.add(&entry, &hashed.digest())?;
                    recorder.keep(kept, bytes);
                }
                None => {
                    io::copy(&mut hashed, &mut io::sink()).map_err(failed)?;
                    recorder.add(&entry, &hashed.digest())?;
                }
            }
        }
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(failed)?;
        let actual = DiffId::new(rest.into_inner().hasher.finish());
        if actual != *diff_id {
            return Err(TablesError::WrongDiffId { expected: diff_id.clone(), actual });
        }
        Ok(self.put(diff_id, recorder.finish()?))
    }

    /// Makes a layer's table from its unpacked tree (`LayerDir::tree`), and keeps it. For layers that
    /// we wrote: only those say all that their tree shows.
    ///
    /// # Errors
    /// Fails if the tree cannot be read.
    pub fn read_tree(&self, diff_id: &DiffId, tree: &Path) -> Result<Arc<Table>, TablesError> {
        let failed = |source| TablesError::Tree { diff_id: diff_id.clone(), source };
        let tree = Dir::open(tree).map_err(|errno| {
            failed(WriteError::Entry { path: EntryPath::root(), source: errno.into() })
        })?;
        let options = WriteOptions { times: ContentTimes::None, restamp: Restamp::AS_MADE };
        let (written, table) =
            crate::snapshot::archive_tree(&tree, io::sink(), options).map_err(failed)?;
        if written.diff_id != *diff_id {
            let (expected, actual) = (diff_id.clone(), written.diff_id);
            return Err(TablesError::WrongDiffId { expected, actual });
        }
        Ok(self.put(diff_id, table.ok_or(TableError::TooLarge)?))
    }

    fn path(&self, diff_id: &DiffId) -> PathBuf {
        let digest = diff_id.digest();
        self.0.directory.join(digest.algorithm().name()).join(digest.hex())
    }

    fn know(&self, diff_id: &DiffId, table: Table) -> Arc<Table> {
        let table = Arc::new(table);
        self.known().insert(diff_id.clone(), Arc::downgrade(&table));
        table
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<DiffId, Weak<Table>>> {
        self.0.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hashes what is read.
struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
