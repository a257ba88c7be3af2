//! Taking a cache for a step.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use boatyard_content::Lease;
use boatyard_content::lease::Holding;
use boatyard_content::local::write_unsynced;
use fs_err as fs;
use jiff::Timestamp;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use super::{ABOUT, About, CONTENT, CacheId, CacheMounts, LOCK, fresh_directory, remove_tree};
use crate::cache::{CacheError, Doing as _, Storing as _, mark_used, step_lock};
use crate::ids;

const WAIT_MIN: Duration = Duration::from_millis(5);
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How many caches there are of one id at most, where each step gets one of its own.
const PRIVATE_MAX: u32 = 256;

/// Who may use a cache at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Whoever wants to, but those who want it alone.
    Together,
    /// One; another one waits.
    Alone,
    /// One; another one takes another cache of the same id, which is kept as well.
    AnyAlone,
}

/// A cache that was taken. It is free again when this is dropped, and when every process is gone
/// that the lock was handed to.
#[derive(Debug)]
pub struct Taken {
    path: PathBuf,
    lock: fs::File,
}

impl Taken {
    /// Returns the directory that holds it, as [`CONTENT`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the lock, to be handed to whoever shall keep it.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn lock(&self) -> io::Result<OwnedFd> {
        Ok(self.lock.file().try_clone()?.into())
    }
}

/// How a cache is made that is not there yet: in an empty directory.
pub type Fill<'a> = dyn FnMut(&Path) -> io::Result<()> + 'a;

impl CacheMounts {
    /// Takes a cache, and makes it where it is not there yet. `waiting` is called now and then while
    /// somebody else uses it; where it says so, waiting ends with `None`.
    ///
    /// Whoever takes several takes them in the order of their names, lest two wait for one another.
    ///
    /// # Errors
    /// Where it cannot be made, locked or named in the lease.
    pub fn take(
        &self,
        id: &CacheId,
        by: Use,
        lease: &Lease,
        fill: &mut Fill<'_>,
        waiting: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Option<Taken>, CacheError> {
        let name = id.name();
        let mut wait = WAIT_MIN;
        loop {
            let many = if by == Use::AnyAlone { PRIVATE_MAX } else { 1 };
            for number in 0..many {
                let name = match number {
                    0 => name.clone(),
                    number => format!("{name}-{number}"),
                };
                let lock = self.try_lock(&name, by, lease)?;
                if let Some(taken) = lock {
                    taken.make(id, fill)?;
                    return Ok(Some(taken));
                }
            }
            if waiting().is_break() {
                return Ok(None);
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    /// Takes a cache to read it; `None` where it is not there, or a step has it alone.
    ///
    /// # Errors
    /// Where it cannot be locked or named in the lease.
    pub fn read(&self, id: &CacheId, lease: &Lease) -> Result<Option<Taken>, CacheError> {
        self.try_lock(&id.name(), Use::Together, lease)
    }

    fn try_lock(&self, name: &str, by: Use, lease: &Lease) -> Result<Option<Taken>, CacheError> {
        const DOING: &str = "lock a cache mount";
        // Named first: whoever prunes looks there before anything else.
        lease.add(&Holding::Mount(name.to_owned())).storing(DOING)?;
        let path = self.directory.join(name);
        make_private(&path).doing("make a cache mount")?;
        let open = || fs::OpenOptions::new().create(true).append(true).open(path.join(LOCK));
        let lock = match open() {
            // It was removed just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            lock => lock.doing(DOING)?,
        };
        let operation = match by {
            Use::Together => FlockOperation::NonBlockingLockShared,
            Use::Alone | Use::AnyAlone => FlockOperation::NonBlockingLockExclusive,
        };
        match flock(&lock, operation) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
            Err(errno) => return Err(errno.into()).doing(DOING),
        }
        let is_there = step_lock::is_named(&lock, &path.join(LOCK)).doing(DOING)?;
        Ok(is_there.then_some(Taken { path, lock }))
    }
}

impl Taken {
    /// Makes what is missing of a cache, and notes that it is used.
    fn make(&self, id: &CacheId, fill: &mut Fill<'_>) -> Result<(), CacheError> {
        let content = self.path.join(CONTENT);
        if fs::symlink_metadata(&content).is_err() {
            self.fill(id, &content, fill).doing("make a cache mount")?;
        }
        let about = self.path.join(ABOUT);
        if about.exists() {
            return mark_used(&about).doing("note the use of a cache mount");
        }
        let text = About { id: id.clone(), created: Timestamp::now() };
        let text = serde_json::to_vec(&text).expect("it has only string keys");
        write_unsynced(&about, &text).storing("write about a cache mount")
    }

    /// Fills a directory and gives it its name, unless somebody was faster who uses it together.
    fn fill(&self, id: &CacheId, content: &Path, fill: &mut Fill<'_>) -> io::Result<()> {
        let fresh = fresh_directory(&self.path, ".new-")?;
        let made = fill(&fresh).and_then(|()| {
            if id.seed.is_none() {
                if !ids::is_single() {
                    chown(&fresh, Some(id.owner.0), Some(id.owner.1))?;
                }
                fs::set_permissions(&fresh, std::fs::Permissions::from_mode(id.mode))?;
            }
            match renameat_with(CWD, &fresh, CWD, content, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => Ok(()),
                renamed => Ok(renamed?),
            }
        });
        remove_tree(&fresh)?;
        made
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path)
}
