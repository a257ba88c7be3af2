//! One run of a step at a time, whoever asks: a lock on a file that is named after its key.
//!
//! The file goes with the lock, so that they do not pile up. Therefore whoever got a lock looks
//! whether its file still has the name: if not, another one may have been made there, and locked.
//! A process that is killed gives its lock up, and who waited takes over; its file goes with the
//! next lock on that key, or with [`sweep`].

use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

const WAIT_MIN: Duration = Duration::from_millis(5);
const WAIT_MAX: Duration = Duration::from_millis(100);

/// The right to run a step. Dropping it gives it up.
#[derive(Debug)]
pub struct StepLock {
    path: PathBuf,
    /// Locked as long as it is open.
    _file: fs::File,
}

impl StepLock {
    /// Waits for the lock on a path, and calls `waiting` while another has it; `None` where that
    /// says to give up.
    pub(super) fn take(
        path: &Path,
        waiting: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> io::Result<Option<StepLock>> {
        let mut wait = WAIT_MIN;
        loop {
            if let Some(lock) = StepLock::try_take(path)? {
                return Ok(Some(lock));
            }
            if waiting().is_break() {
                return Ok(None);
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    /// Takes the lock, or returns `None` where another has it.
    fn try_take(path: &Path) -> io::Result<Option<StepLock>> {
        let open = || fs::OpenOptions::new().create(true).append(true).open(path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
                open()?
            }
            file => file?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        // Who had it before may have taken the file away: then the name is free, or another's.
        let is_named = is_named(&file, path)?;
        Ok(is_named.then(|| StepLock { path: path.to_path_buf(), _file: file }))
    }
}

/// Says whether an open file is the one of this name.
pub(super) fn is_named(file: &fs::File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the files that killed processes left in a directory of locks.
pub(super) fn sweep(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        // Taken and dropped: the file goes unless somebody has it.
        StepLock::try_take(&entry?.path())?;
    }
    Ok(())
}

impl Drop for StepLock {
    fn drop(&mut self) {
        // While it is locked: what lies there is ours. One that stays costs a name.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(path: &Path) -> StepLock {
        let mut wait = || ControlFlow::Continue(());
        StepLock::take(path, &mut wait).unwrap().unwrap()
    }

    #[test]
    fn one_at_a_time_and_nothing_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("steps/key");
        let runs = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock = take(&path);
                        assert_eq!(runs.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        runs.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(!path.exists());
    }

    #[test]
    fn who_waits_takes_over_when_the_owner_dies() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let owner = fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        flock(&owner, FlockOperation::NonBlockingLockExclusive).unwrap();
        let mut owner = Some(owner);
        // It dies: its descriptor is closed, and its file stays.
        let mut dies = || {
            drop(owner.take());
            ControlFlow::Continue(())
        };
        let taken = StepLock::take(&path, &mut dies).unwrap();
        assert!(taken.is_some() && path.exists());
        drop(taken);
        assert!(!path.exists());
    }

    #[test]
    fn who_waits_can_give_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let _held = take(&path);
        let mut asked = 0;
        let mut give_up = || {
            asked += 1;
            if asked == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert!(StepLock::take(&path, &mut give_up).unwrap().is_none());
    }

    #[test]
    fn a_sweep_takes_only_what_nobody_has() {
        let directory = tempfile::tempdir().unwrap();
        let (held, left) = (directory.path().join("held"), directory.path().join("left"));
        fs::write(&left, "").unwrap();
        let _held = take(&held);
        sweep(directory.path()).unwrap();
        assert!(held.exists() && !left.exists());
    }
}
