//! Files that only their owner reads: written whole, in a directory that only they enter.
//!
//! ```text
//! ROOT/access/             0700
//!     users                htpasswd lines: name:hash
//!     tokens/<sha256>      an API token, under the digest of its text
//!     used/<sha256>        its time is when the token was last used, to the hour
//!     signing-key          PKCS #8, Ed25519: what bearer tokens are signed with
//!     lock                 held while users or tokens are changed
//! ```

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};

/// A file of ours that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub struct FileError {
    doing: &'static str,
    #[source]
    source: io::Error,
}

pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, FileError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, FileError> {
        self.map_err(|source| FileError { doing, source })
    }
}

/// Makes a directory and what is above it; nobody else may enter it.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path)?;
    match path.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Writes a file whole, 0600: after a crash the old one is there or the new one. With `create`,
/// only where there is none: then `false`.
///
/// 1. The bytes are written under a temporary name, and synced.
/// 2. The file is renamed, or linked, into its place.
/// 3. The directory is synced.
pub(crate) fn write(path: &Path, bytes: &[u8], create: bool) -> io::Result<bool> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    make_directory(directory)?;
    let staged = directory.join(format!(".new-{}", uuid::Uuid::new_v4().simple()));
    let written = stage(&staged, bytes).and_then(|()| {
        if !create {
            return fs::rename(&staged, path).map(|()| true);
        }
        match fs::hard_link(&staged, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    });
    if create || written.is_err() {
        let _ = fs::remove_file(&staged);
    }
    let written = written?;
    fs::File::open(directory)?.sync_all()?;
    Ok(written)
}

fn stage(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    options.options_mut().mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes a file for good; `false` where there was none.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(true)
}

/// A lock that one process has at a time, as long as this lives.
#[derive(Debug)]
pub(crate) struct Locked {
    _file: File,
}

impl Locked {
    /// Waits for the lock of a directory, which is made where it is missing.
    pub(crate) fn wait(directory: &Path) -> io::Result<Locked> {
        make_directory(directory)?;
        let path: PathBuf = directory.join("lock");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(false);
        options.options_mut().mode(0o600);
        let file = options.open(path)?.into_file();
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(Locked { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn nobody_else_reads_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access/users");
        assert!(write(&path, b"one", true).unwrap());
        assert!(!write(&path, b"two", true).unwrap(), "there is one");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert!(write(&path, b"two", false).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing stays");
        assert!(remove(&path).unwrap() && !remove(&path).unwrap());
    }
}
