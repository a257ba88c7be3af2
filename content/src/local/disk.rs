//! Every change that must survive a power cut, as a trait: so that tests can lose the rest.
//!
//! The store writes through a [`Disk`]. [`RealDisk`] is the file system; the crashing one of
//! [`crate::testing`] remembers what was synced and can say what a power cut would have left.

use std::fmt::Debug;
use std::io::{self, Write as _};
use std::path::Path;

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;

use crate::local::together;

/// The operations on which durability rests. Each error names its path.
pub trait Disk: Debug + Send + Sync {
    /// Creates a file that does not exist, open for writing.
    fn create(&self, path: &Path) -> io::Result<fs::File>;
    /// Appends to an open file.
    fn write(&self, file: &mut fs::File, bytes: &[u8]) -> io::Result<()>;
    /// Cuts an open file.
    fn cut(&self, file: &fs::File, len: u64) -> io::Result<()>;
    /// Makes a file's content durable.
    fn sync(&self, file: &fs::File) -> io::Result<()>;
    /// Makes a directory's entries durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Renames, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Creates a directory. One that exists is fine: then `false`.
    fn make_directory(&self, path: &Path) -> io::Result<bool>;
    /// Deletes a file. One that is not there is fine: then `false`.
    fn remove_file(&self, path: &Path) -> io::Result<bool>;
    /// Deletes an empty directory. One that is not empty, or not there, is fine.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<fs::File> {
        fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(path)
    }

    fn write(&self, file: &mut fs::File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn cut(&self, file: &fs::File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync(&self, file: &fs::File) -> io::Result<()> {
        together::sync(file.file(), || file.sync_data())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let directory = fs::File::open(path)?;
        together::sync(directory.file(), || directory.sync_all())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn make_directory(&self, path: &Path) -> io::Result<bool> {
        match fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<bool> {
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir(path) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}
