//! The quarantine: blobs whose bytes are not what their names say, out of everybody's way.
//!
//! ```text
//! ROOT/quarantine/<digest>        the first that was found of this name
//! ROOT/quarantine/<digest>.<n>    later ones
//! ROOT/quarantine/strays/<name>   files among the blobs that are none
//! ```
//!
//! Nothing here is ever read by a server, held, or deleted by us: a person may want to look. The name
//! that a blob had is free at once, so whoever writes the right bytes puts it right.

use std::path::{Path, PathBuf};

use boatyard_oci::Digest;
use fs_err as fs;

use crate::local::layout::shard_name;
use crate::local::{Lock, Root, entries, make_directories};
use crate::store::{Doing as _, FileIdentity, StoreError};

/// A file in the quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The name that it had.
    pub digest: Digest,
    /// Where it is now.
    pub path: PathBuf,
    /// How many bytes it has.
    pub size: u64,
}

/// Moves a blob to the quarantine, if its name still leads to the file that was found wrong; `None`
/// where it does not: somebody has put it right meanwhile, or the collector has taken it.
///
/// # Errors
/// Where the file could not be moved.
pub fn put_aside(
    root: &Root,
    digest: &Digest,
    found: FileIdentity,
) -> Result<Option<PathBuf>, StoreError> {
    let layout = root.layout();
    // Whoever lands or holds a blob has the shared lock.
    let _lock = Lock::exclusive(&layout.shard_lock(shard_name(digest)))?;
    if !root.store().is_blob(digest, found)? {
        return Ok(None);
    }
    let place = free_place(root, &layout.quarantine(), &digest.to_string())?;
    move_to(root, &layout.blob(digest), &place)?;
    Ok(Some(place))
}

/// Moves a file that is no blob out of the directories of blobs.
///
/// # Errors
/// Where it could not be moved.
pub(crate) fn put_stray_aside(root: &Root, path: &Path) -> Result<PathBuf, StoreError> {
    let below = path.strip_prefix(root.path()).unwrap_or(path).to_string_lossy().replace('/', "_");
    let place = free_place(root, &root.layout().quarantine().join("strays"), &below)?;
    move_to(root, path, &place)?;
    Ok(place)
}

/// Returns what lies in the quarantine under the names of blobs, in no order.
///
/// # Errors
/// Where it cannot be listed.
pub fn list(root: &Root) -> Result<Vec<Quarantined>, StoreError> {
    let mut found = Vec::new();
    for entry in entries(&root.layout().quarantine()) {
        let entry = entry?;
        let name = entry.file_name();
        let digest = name.to_str().and_then(|name| name.split('.').next()?.parse().ok());
        let Some(digest) = digest else { continue };
        let size = entry.metadata().doing("look into the quarantine")?.len();
        found.push(Quarantined { digest, path: entry.path(), size });
    }
    Ok(found)
}

/// Returns a path that nobody has: names differ by digest, and whoever moves a blob has its lock.
fn free_place(root: &Root, directory: &Path, name: &str) -> Result<PathBuf, StoreError> {
    make_directories(&*root.shared().disk, directory)?;
    let mut place = directory.join(name);
    for number in 2.. {
        if fs::symlink_metadata(&place).is_err() {
            break;
        }
        place = directory.join(format!("{name}.{number}"));
    }
    Ok(place)
}

fn move_to(root: &Root, from: &Path, to: &Path) -> Result<(), StoreError> {
    let disk = &*root.shared().disk;
    disk.rename(from, to).doing("move a file to the quarantine")?;
    for directory in [to.parent(), from.parent()].into_iter().flatten() {
        disk.sync_directory(directory).doing("sync a directory")?;
    }
    Ok(())
}
