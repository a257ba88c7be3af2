//! A file that others change while we use it: read again whenever its `stat` is another.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fs_err as fs;

/// What of a file changes when somebody writes it or puts another in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a file says, and when it said so.
pub(crate) struct Watched<T> {
    path: PathBuf,
    known: Mutex<(Option<Stamp>, Arc<T>)>,
}

impl<T> Watched<T> {
    /// Reads a file for the first time.
    pub(crate) fn open<E>(
        path: PathBuf,
        read: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<Watched<T>, E> {
        let stamp = stamp(&path).unwrap_or(None);
        let value = Arc::new(read(&path)?);
        Ok(Watched { path, known: Mutex::new((stamp, value)) })
    }

    /// Returns what the file says now. Where it cannot be read, what it said before still holds,
    /// and the log says so once for each change.
    pub(crate) fn get<E: std::error::Error>(
        &self,
        read: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Arc<T> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(now) = stamp(&self.path) else { return Arc::clone(&known.1) };
        if now != known.0 {
            known.0 = now;
            match read(&self.path) {
                Ok(value) => known.1 = Arc::new(value),
                Err(error) => tracing::error!(
                    "{} was changed and cannot be used; what it said before still holds: {}",
                    self.path.display(),
                    chain(&error)
                ),
            }
        }
        Arc::clone(&known.1)
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({})", self.path.display())
    }
}

fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns an error and what is behind it in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Result<String, io::Error> {
        match fs::read_to_string(path) {
            Ok(text) if text == "bad" => Err(io::Error::other("bad")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            result => result,
        }
    }

    #[test]
    fn a_change_is_seen_at_once_and_a_bad_one_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let watched = Watched::open(path.clone(), read).unwrap();
        assert_eq!(*watched.get(read), "");
        for (write, seen) in [("one", "one"), ("bad", "one"), ("three", "three")] {
            crate::private::write(&path, write.as_bytes(), false).unwrap();
            assert_eq!(*watched.get(read), seen);
        }
        let unread = |_: &Path| -> Result<String, io::Error> { panic!("nothing changed") };
        assert_eq!(*watched.get(unread), "three");
        fs::remove_file(&path).unwrap();
        assert_eq!(*watched.get(read), "");
    }
}
