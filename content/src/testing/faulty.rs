//! A disk that fails when it is told to: full, or broken.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use fs_err as fs;

use crate::local::disk::{Disk, RealDisk};

/// A disk on which, after a number of changes, every further one fails.
#[derive(Debug)]
pub struct FaultyDisk {
    left: AtomicI64,
    kind: io::ErrorKind,
}

impl FaultyDisk {
    /// Returns a disk on which `changes` changes succeed and the next fail with `kind`.
    pub fn after(changes: i64, kind: io::ErrorKind) -> FaultyDisk {
        FaultyDisk { left: AtomicI64::new(changes), kind }
    }

    /// Lets so many further changes succeed.
    pub fn fail_after(&self, changes: i64) {
        self.left.store(changes, Ordering::SeqCst);
    }

    /// Lets everything succeed from now on.
    pub fn heal(&self) {
        self.left.store(i64::MAX, Ordering::SeqCst);
    }

    fn spend(&self, path: &Path) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        Err(io::Error::new(self.kind, format!("injected fault at {}", path.display())))
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<fs::File> {
        self.spend(path)?;
        RealDisk.create(path)
    }

    fn write(&self, file: &mut fs::File, bytes: &[u8]) -> io::Result<()> {
        self.spend(file.path())?;
        RealDisk.write(file, bytes)
    }

    fn cut(&self, file: &fs::File, len: u64) -> io::Result<()> {
        self.spend(file.path())?;
        RealDisk.cut(file, len)
    }

    fn sync(&self, file: &fs::File) -> io::Result<()> {
        self.spend(file.path())?;
        RealDisk.sync(file)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.spend(path)?;
        RealDisk.sync_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.spend(to)?;
        RealDisk.rename(from, to)
    }

    fn make_directory(&self, path: &Path) -> io::Result<bool> {
        self.spend(path)?;
        RealDisk.make_directory(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<bool> {
        RealDisk.remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_directory(path)
    }
}
