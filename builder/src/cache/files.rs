//! The small files of the cache, any of which somebody else may remove at any time.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::usage::{YOUNG, is_older};
use fs_err as fs;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};

/// How deep the cache's own directories are.
const DEPTH_MAX: usize = 2;

/// Reads a file that may be absent.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    absent_is_none(fs::read(path))
}

/// Appends to a file that may be absent, in one write.
pub(super) fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let open = || fs::OpenOptions::new().create(true).append(true).open(path);
    let mut file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            open()?
        }
        file => file?,
    };
    file.write_all(bytes)
}

/// Removes a file that may be absent; `false` where it was.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    Ok(absent_is_none(fs::remove_file(path))?.is_some())
}

/// Lists a directory that may be absent, without files that are being written.
pub(super) fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(entries) = absent_is_none(fs::read_dir(directory))? else { return Ok(Vec::new()) };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// Lists the files below a directory that may be absent, at most two directories down.
pub(super) fn walk(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![(directory.to_path_buf(), 0)];
    while let Some((directory, depth)) = directories.pop() {
        for path in list(&directory)? {
            if depth < DEPTH_MAX && path.is_dir() {
                directories.push((path, depth + 1));
            } else {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Removes files that were being written, long ago, when their process was killed. What lies in
/// `others` is not ours to judge.
pub(super) fn remove_left(directory: &Path, others: &Path, now: SystemTime) -> io::Result<()> {
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let Some(entries) = absent_is_none(fs::read_dir(&directory))? else { continue };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                directories.extend((path != others).then_some(path));
            } else if entry.file_name().as_encoded_bytes().starts_with(b".")
                && size_and_time(&path)?.is_some_and(|(_, time)| is_older(time, YOUNG, now))
            {
                remove(&path)?;
            }
        }
    }
    Ok(())
}

/// Returns the size and the time of modification of a file that may be absent.
pub(super) fn size_and_time(path: &Path) -> io::Result<Option<(u64, SystemTime)>> {
    absent_is_none(fs::metadata(path).and_then(|file| Ok((file.len(), file.modified()?))))
}

/// Sets a file's time of modification to now. One that is absent stays so.
pub(super) fn touch(path: &Path) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    let touched = utimensat(CWD, path, &times, AtFlags::empty());
    absent_is_none(touched.map_err(io::Error::from)).map(|_| ())
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
