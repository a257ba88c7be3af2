//! Small files that must not be lost: created whole and renamed into place, with grouped syncs.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::local::disk::Disk;
use crate::store::{Doing as _, StoreError};

/// How often a directory is made that somebody else removes, empty as it is.
const DIRECTORY_TRIES_MAX: usize = 8;

/// Files that become visible one after the other, and durable together.
///
/// The order, which the crashing disk tests:
/// 1. each file is written under a temporary name beside its place, and synced;
/// 2. [`Staged::publish`] renames them, in the order in which they were put;
/// 3. every directory that changed is synced once.
#[derive(Debug)]
pub(crate) struct Staged<'a> {
    disk: &'a dyn Disk,
    files: Vec<(PathBuf, PathBuf)>,
}

impl<'a> Staged<'a> {
    /// Returns an empty group.
    pub(crate) fn new(disk: &'a dyn Disk) -> Staged<'a> {
        Staged { disk, files: Vec::new() }
    }

    /// Writes and syncs a file beside its place; its directory is made where it is missing.
    pub(crate) fn put(&mut self, path: PathBuf, bytes: &[u8]) -> Result<(), StoreError> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        make_directories(self.disk, parent)?;
        let staged = parent.join(temporary_name());
        let mut file = self.disk.create(&staged).doing("create a file")?;
        self.files.push((staged, path));
        self.disk.write(&mut file, bytes).doing("write a file")?;
        self.disk.sync(&file).doing("sync a file")
    }

    /// Puts everything in its place and makes that durable.
    pub(crate) fn publish(mut self) -> Result<(), StoreError> {
        let mut directories = BTreeSet::new();
        for (staged, path) in std::mem::take(&mut self.files) {
            self.disk.rename(&staged, &path).doing("put a file in its place")?;
            directories.extend(path.parent().map(Path::to_path_buf));
        }
        directories
            .iter()
            .try_for_each(|directory| self.disk.sync_directory(directory))
            .doing("sync a directory")
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        for (staged, _) in &self.files {
            // What stays behind has a temporary name, which the collector knows.
            let _ = self.disk.remove_file(staged);
        }
    }
}

/// Returns a name that no tag, digest or repository has: it starts with a dot.
pub(crate) fn temporary_name() -> String {
    format!(".new-{}", uuid::Uuid::new_v4().simple())
}

/// Makes a directory and its parents, and makes their entries durable.
pub(crate) fn make_directories(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    match disk.make_directory(path) {
        Ok(false) => Ok(()),
        Ok(true) => match path.parent() {
            Some(parent) => disk.sync_directory(parent).doing("sync a directory"),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().ok_or(error).doing("create a directory")?;
            make_directories(disk, parent)?;
            make_directories(disk, path)
        }
        Err(error) => Err(error).doing("create a directory"),
    }
}

/// Writes one small file whole: after a crash the old one is there or the new one.
///
/// # Errors
/// Where it could not be written; then the old one is untouched.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut staged = Staged::new(&crate::local::disk::RealDisk);
    staged.put(path.to_path_buf(), bytes)?;
    staged.publish()
}

/// Writes one small file of a cache whole, and syncs nothing: readers see the old one or the new
/// one, but after a power cut it can be gone, empty or torn. So its content must show that.
///
/// # Errors
/// Where it could not be written; then the old one is untouched.
pub fn write_unsynced(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let staged = stage_unsynced(path, bytes)?;
    let renamed = fs::rename(&staged, path).doing("put a file in its place");
    if renamed.is_err() {
        let _ = fs::remove_file(&staged);
    }
    renamed
}

/// As [`write_unsynced`], unless there is such a file: then `false`.
///
/// # Errors
/// Where it could not be written.
pub fn create_unsynced(path: &Path, bytes: &[u8]) -> Result<bool, StoreError> {
    let staged = stage_unsynced(path, bytes)?;
    let linked = match fs::hard_link(&staged, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).doing("put a file in its place"),
    };
    // What stays behind has a temporary name, which sweeps know.
    let _ = fs::remove_file(&staged);
    linked
}

fn stage_unsynced(path: &Path, bytes: &[u8]) -> Result<PathBuf, StoreError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let staged = parent.join(temporary_name());
    let mut written = fs::write(&staged, bytes);
    for _ in 0..DIRECTORY_TRIES_MAX {
        if !matches!(&written, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
        fs::create_dir_all(parent).doing("create a directory")?;
        written = fs::write(&staged, bytes);
    }
    if written.is_err() {
        let _ = fs::remove_file(&staged);
    }
    written.doing("write a file")?;
    Ok(staged)
}
