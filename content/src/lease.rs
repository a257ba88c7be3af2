//! Leases: what a running process relies on.

use std::fmt;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use boatyard_oci::Digest;

use crate::store::{Doing as _, StoreError};

/// A set of digests that must live while somebody works with them.
///
/// In the local store it is a file among the process's leases; the collector reads it, and takes
/// it for void once the process is gone. Dropping the lease gives up all that it holds.
#[derive(Clone, Debug)]
pub struct Lease {
    file: Option<Arc<LeaseFile>>,
}

#[derive(Debug)]
struct LeaseFile {
    file: Mutex<fs_err::File>,
}

/// What a line of a lease names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holding {
    /// A blob.
    Blob(Digest),
    /// An unpacked layer, by the name of its directory below `layers/`.
    Layer(String),
    /// A build's cache mount, by the name of its directory.
    Mount(String),
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holding::Blob(digest) => write!(f, "blob {digest}"),
            Holding::Layer(name) => write!(f, "layer {name}"),
            Holding::Mount(name) => write!(f, "mount {name}"),
        }
    }
}

impl Holding {
    /// Reads a line of a lease; `None` where it is cut short or not known.
    pub(crate) fn parse(line: &str) -> Option<Holding> {
        let (kind, name) = line.split_once(' ')?;
        match kind {
            "blob" => name.parse().ok().map(Holding::Blob),
            "layer" => Some(Holding::Layer(name.to_owned())),
            "mount" => Some(Holding::Mount(name.to_owned())),
            _ => None,
        }
    }
}

impl Lease {
    /// Returns a lease that holds nothing, for stores without a collector.
    pub fn unheld() -> Lease {
        Lease { file: None }
    }

    /// Returns a lease whose holdings are appended to `file`.
    pub(crate) fn in_file(file: fs_err::File) -> Lease {
        Lease { file: Some(Arc::new(LeaseFile { file: Mutex::new(file) })) }
    }

    /// Holds something from now on.
    ///
    /// For a blob, call [`crate::Store::hold`], which looks for it in the same step.
    ///
    /// # Errors
    /// Where the lease's file could not be written.
    pub fn add(&self, holding: &Holding) -> Result<(), StoreError> {
        let Some(file) = &self.file else { return Ok(()) };
        let line = format!("{holding}\n");
        let mut file = file.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write: the collector sees the line whole or not at all.
        file.write_all(line.as_bytes()).doing("add to a lease")
    }

    /// Gives up all that it holds, unless a clone is left.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for LeaseFile {
    fn drop(&mut self) {
        let file = self.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        // A lease that stays behind keeps garbage until the process ends: no more than that.
        let _ = fs_err::remove_file(file.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_skips_a_torn_line() {
        let holdings = [
            Holding::Blob(Digest::sha256(b"x")),
            Holding::Layer("root/diff/sha256/ab".into()),
            Holding::Mount("apt".into()),
        ];
        for holding in holdings {
            assert_eq!(Holding::parse(&holding.to_string()), Some(holding));
        }
        assert_eq!(Holding::parse("blob sha256:12"), None);
        assert_eq!(Holding::parse("bl"), None);
    }
}
