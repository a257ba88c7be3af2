//! Paths inside an untrusted root: found, followed and made without a step outside.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, fstat, mkdirat, openat2,
    readlinkat,
};
use rustix::io::Errno;

/// How many links a path may lead through, as in the kernel.
const LINKS_MAX: usize = 40;
/// How often a path is resolved anew while somebody renames directories.
const ATTEMPTS: usize = 128;

/// Opens a path; links and `..` stay inside the root.
pub(crate) fn open(root: impl AsFd, path: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { OsStr::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..ATTEMPTS {
        match openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens a directory, to be listed and written into.
pub(crate) fn open_directory(root: impl AsFd, path: &OsStr) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Follows the links at the end of an absolute path: what is returned is not a link, or is not
/// there. Links on the way are left to [`open`].
pub(crate) fn follow(root: impl AsFd, path: &Path) -> Result<PathBuf, Errno> {
    let mut path = normal(path);
    for _ in 0..LINKS_MAX {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(path);
        };
        let directory = match open(&root, parent.as_os_str(), OFlags::PATH | OFlags::DIRECTORY) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(path),
            Err(errno) => return Err(errno),
        };
        let target = match readlinkat(&directory, name, Vec::new()) {
            Ok(target) => PathBuf::from(OsString::from_vec(target.into_bytes())),
            Err(Errno::INVAL | Errno::NOENT) => return Ok(path),
            Err(errno) => return Err(errno),
        };
        path = normal(&parent.join(target));
    }
    Err(Errno::LOOP)
}

/// Returns an absolute path without `.` and `..`; the latter stops at the root.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// What a directory gets that had to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    /// Its owner and group.
    pub(crate) owner: (u32, u32),
    /// Its permissions.
    pub(crate) mode: u32,
}

/// Opens a directory, and makes it and its parents where they are missing.
pub(crate) fn make_directory(
    root: impl AsFd + Copy,
    path: &Path,
    made: Made,
) -> Result<OwnedFd, Errno> {
    make(root, path, made, LINKS_MAX)
}

fn make(root: impl AsFd + Copy, path: &Path, made: Made, links: usize) -> Result<OwnedFd, Errno> {
    match open_directory(root, path.as_os_str()) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    // A link that leads to nothing: the directory is made where it points.
    let path = follow(root, path)?;
    let (Some(parent), Some(name), Some(links)) =
        (path.parent(), path.file_name(), links.checked_sub(1))
    else {
        return Err(Errno::LOOP);
    };
    let directory = make(root, parent, made, links.max(path.components().count()))?;
    match mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return open_directory(root, path.as_os_str()),
        Err(errno) => return Err(errno),
    }
    let new = super::open_directory(&directory, name)?;
    fchown(&new, Some(Uid::from_raw(made.owner.0)), Some(Gid::from_raw(made.owner.1)))?;
    fchmod(&new, Mode::from_raw_mode(made.mode))?;
    Ok(new)
}

/// Says what is at a path, links followed; `None` where there is nothing.
pub(crate) fn kind_at(root: impl AsFd, path: &Path) -> Result<Option<FileType>, Errno> {
    match open(root, path.as_os_str(), OFlags::PATH) {
        Ok(there) => Ok(Some(FileType::from_raw_mode(fstat(&there)?.st_mode))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
