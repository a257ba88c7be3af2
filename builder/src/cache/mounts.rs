//! The caches that steps mount: directories that outlive builds and are no part of an image.
//!
//! ```text
//! ROOT/cache/mounts/<name>/       0700; <name> says which cache it is, and of several which one
//!     lock                        held by the steps that use it: together, or one alone
//!     about                       what it is, as JSON; its time says when it was used last
//!     fs/                         what steps keep there, with the owners that they gave it
//! ROOT/cache/mounts/.removed-*    being removed
//! ```
//!
//! A cache is for whoever asks for the same: the same `id`, or where none was given the same target
//! in the same project; with the same first owner and mode, and the same beginning. The ids that this
//! process can give to files count too: another map could not read what the first one wrote.
//!
//! Several processes use one: who takes it names it in his lease, then locks it. A step's processes
//! keep the lock as long as they live, so that nobody takes over before they are gone. Who removes
//! one locks it alone and moves it out of the way, so whoever has got a lock looks whether the
//! directory still has its name.
//!
//! Nothing is synced: after a power cut a cache may hold torn files, as any program's cache may.

mod take;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fs_err as fs;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::usage::{YOUNG, is_older};
use super::{Cache, CacheError, Doing as _, files};
use crate::ids;
use crate::layer::ContentId;
use crate::layer::dir::Dir;

pub use take::{Taken, Use};

const FORMAT: &[u8] = b"boatyard cache mount 1\n";
const LOCK: &str = "lock";
const ABOUT: &str = "about";
/// Where steps keep things, in the directory of a cache.
pub const CONTENT: &str = "fs";
const REMOVED: &str = ".removed-";

/// What a cache is known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheId {
    /// What keeps it apart from those of others: `BUILDKIT_CACHE_MOUNT_NS`, mostly empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its `id`, or where none was given its target.
    pub id: String,
    /// The project and platform that it belongs to, where no `id` was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The owner of its root, when it is made.
    pub owner: (u32, u32),
    /// The mode of its root, when it is made.
    pub mode: u32,
    /// The identity of what it begins with, if it is not empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
}

impl CacheId {
    /// Names what a cache begins with.
    pub fn set_seed(&mut self, seed: &ContentId) {
        self.seed = Some(seed.to_string());
    }

    /// Returns the name of its directory.
    pub fn name(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT);
        let map = ids::map_name().unwrap_or_default();
        let numbers = [self.owner.0, self.owner.1, self.mode].map(|number| number.to_string());
        let texts = [&map, &self.namespace, &self.id].into_iter().chain(&numbers);
        for text in texts {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        for text in [&self.project, &self.seed] {
            hasher.update(&[u8::from(text.is_some())]);
            let text = text.as_deref().unwrap_or_default();
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

impl fmt::Display for CacheId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.project {
            Some(project) => write!(f, "{} of {project}", self.id),
            None => f.write_str(&self.id),
        }
    }
}

/// What is written about a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// What it is known by.
    #[serde(flatten)]
    pub id: CacheId,
    /// When it was made.
    pub created: Timestamp,
}

/// A cache that is kept.
#[derive(Clone, Debug)]
pub struct KeptMount {
    /// The name of its directory.
    pub name: String,
    /// What it is; `None` where that cannot be read any more.
    pub about: Option<About>,
    /// When it was used last, give or take an hour.
    pub used: SystemTime,
    /// What it takes on the disk.
    pub bytes: u64,
    /// A step uses it.
    pub is_locked: bool,
}

/// The caches of a root that steps mount. All of it is blocking code.
#[derive(Clone, Debug)]
pub struct CacheMounts {
    pub(super) directory: PathBuf,
}

impl Cache {
    /// Returns the caches that steps mount.
    pub fn mounts(&self) -> CacheMounts {
        CacheMounts { directory: self.directory.join("mounts") }
    }
}

impl CacheMounts {
    /// Returns the caches of the root at a path, which need not be there.
    pub fn below(root: &Path) -> CacheMounts {
        CacheMounts { directory: root.join("cache/mounts") }
    }

    /// Says whether there is any.
    ///
    /// # Errors
    /// Where they cannot be listed.
    pub fn is_empty(&self) -> Result<bool, CacheError> {
        Ok(self.names()?.is_empty())
    }

    /// Lists them, in no order.
    ///
    /// # Errors
    /// Where they cannot be listed.
    pub fn list(&self) -> Result<Vec<KeptMount>, CacheError> {
        let mut kept = Vec::new();
        for name in self.names()? {
            let path = self.directory.join(&name);
            let about = files::read(&path.join(ABOUT)).doing("read about a cache mount")?;
            let used = files::size_and_time(&path.join(ABOUT)).doing("look at a cache mount")?;
            let is_locked = !matches!(lock_alone(&path.join(LOCK)), Ok(Some(_)));
            kept.push(KeptMount {
                about: about.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
                used: used.map_or_else(SystemTime::now, |(_, used)| used),
                bytes: bytes_below(&path),
                is_locked,
                name,
            });
        }
        Ok(kept)
    }

    /// Removes a cache; `false` where a step uses it, or it is not there.
    ///
    /// # Errors
    /// Where it cannot be removed whole.
    pub fn remove(&self, name: &str) -> Result<bool, CacheError> {
        let path = self.directory.join(name);
        let doing = "remove a cache mount";
        let Some(_lock) = lock_alone(&path.join(LOCK)).doing(doing)? else { return Ok(false) };
        let away = fresh_directory(&self.directory, REMOVED).doing(doing)?;
        fs::rename(&path, &away).doing(doing)?;
        remove_tree(&away).doing(doing)?;
        Ok(true)
    }

    /// Removes what killed processes were removing.
    ///
    /// # Errors
    /// Where something cannot be removed.
    pub(super) fn tidy(&self) -> Result<(), CacheError> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.doing("list the cache mounts")?,
        };
        for entry in entries {
            let path = entry.doing("list the cache mounts")?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            let found = files::size_and_time(&path).doing("look at a cache mount")?;
            let is_left = found.is_some_and(|(_, time)| is_older(time, YOUNG, SystemTime::now()));
            if is_left && name.starts_with(REMOVED.as_bytes()) {
                remove_tree(&path).doing("remove a cache mount")?;
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, CacheError> {
        let paths = files::list(&self.directory).doing("list the cache mounts")?;
        let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        Ok(paths.iter().filter_map(name).collect())
    }
}

/// Locks a cache alone; `None` where somebody uses it, or it is not there any more.
fn lock_alone(path: &Path) -> io::Result<Option<fs::File>> {
    // One that was not finished has no lock yet, and nobody in it.
    let opened = fs::OpenOptions::new().create(true).append(true).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(super::step_lock::is_named(&file, path)?.then_some(file)),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes an empty directory of a name that starts like this, for this user alone.
fn fresh_directory(parent: &Path, prefix: &str) -> io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(prefix).permissions(std::fs::Permissions::from_mode(0o700));
    Ok(builder.tempdir_in(parent)?.keep())
}

/// Removes a tree, however deep. Somebody else may be at it, too.
fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = Dir::open(path).and_then(|directory| directory.remove_content());
    match removed.map_err(io::Error::from).and_then(|()| fs::remove_dir(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Returns what a tree takes on the disk, as far as it can be read.
fn bytes_below(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut linked = std::collections::HashSet::new();
    let mut directories = vec![path.to_path_buf()];
    let mut bytes = 0;
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                directories.push(entry.path());
            } else if found.nlink() > 1 && !linked.insert((found.dev(), found.ino())) {
                continue;
            }
            bytes += found.blocks() * 512;
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
