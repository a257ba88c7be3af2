//! Advisory locks on files: `flock`, which a killed process gives up by dying.

use std::path::Path;

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};

use crate::store::{Doing as _, StoreError};

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Closing it gives the lock up.
    _file: fs::File,
}

impl Lock {
    /// Waits for a lock that others may share.
    pub(crate) fn shared(path: &Path) -> Result<Lock, StoreError> {
        Lock::take(path, FlockOperation::LockShared)
    }

    /// Waits for a lock that nobody else has.
    pub(crate) fn exclusive(path: &Path) -> Result<Lock, StoreError> {
        Lock::take(path, FlockOperation::LockExclusive)
    }

    /// Takes a lock that nobody else has, or returns `None` where somebody has it.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Lock>, StoreError> {
        let file = open(path)?;
        Ok(try_lock(&file, FlockOperation::NonBlockingLockExclusive)?
            .then_some(Lock { _file: file }))
    }

    fn take(path: &Path, operation: FlockOperation) -> Result<Lock, StoreError> {
        let file = open(path)?;
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno).doing("lock a file of the store"),
            }
        }
    }
}

/// Tries to lock an open file; `false` where another has a lock that forbids it.
pub(crate) fn try_lock(file: &fs::File, operation: FlockOperation) -> Result<bool, StoreError> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).doing("lock a file of the store"),
        }
    }
}

fn open(path: &Path) -> Result<fs::File, StoreError> {
    let open =
        || fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    match open() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).doing("create the directory of locks")?;
            }
            open()
        }
        result => result,
    }
    .doing("open a lock of the store")
}
