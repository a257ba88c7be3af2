//! The bytes of an unpacked layer, in a file without a name: they can be read anywhere.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use boatyard_content::Root;
use boatyard_oci::Digest;
use fs_err as fs;

use super::DeltaError;
use crate::layer::{DecompressLimits, Decompressor};

/// Bytes that were put aside.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    size: u64,
}

impl Spool {
    /// Makes an empty file in the root; no crash leaves anything of it.
    pub(super) fn file(root: &Root) -> io::Result<File> {
        let directory = root.layout().ingests();
        fs::create_dir_all(&directory)?;
        tempfile::tempfile_in(directory)
    }

    /// Takes a file that was written.
    pub(super) fn new(file: File) -> io::Result<Spool> {
        let size = file.metadata()?.len();
        Ok(Spool { file, size })
    }

    /// Unpacks a blob of the root; `None` where it is not there.
    pub(super) fn unpack(root: &Root, blob: &Digest) -> Result<Option<Spool>, DeltaError> {
        let Some(blob) = root.store().open_blocking(blob)? else { return Ok(None) };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut plain = Decompressor::new(blob.into_file(), threads, DecompressLimits::default())?;
        let mut file = Spool::file(root)?;
        io::copy(&mut plain, &mut file)?;
        Ok(Some(Spool::new(file)?))
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Fills a buffer from a place.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Returns a reader of all of it. There is one position: one reader at a time.
    pub(super) fn reader(&self) -> io::Result<impl Read> {
        use std::io::Seek as _;
        let mut file = &self.file;
        file.rewind()?;
        Ok(file)
    }
}
