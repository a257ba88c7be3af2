//! The file tree of an image, reached by descriptor so that nothing in it leads outside.
//!
//! An image is hostile: its `/etc/resolv.conf` may be a symbolic link to `/root/.ssh/id_rsa`,
//! its `/proc` one to `/etc`. The kernel resolves such links inside the root (`RESOLVE_IN_ROOT`);
//! where something has to be made, `make` walks name by name and resolves them itself.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
    fchown, fstat, futimens, mkdirat, openat, openat2, readlinkat, statat, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// How many symbolic links a path may lead through, as in the kernel.
const LINKS_MAX: usize = 40;
/// How often a path is resolved anew on a machine that renames directories all the time.
const OPEN_ATTEMPTS: usize = 128;

/// Why something in an image cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootfsError {
    /// The kernel refuses.
    #[error("cannot open {path} in the image")]
    Open {
        /// The path in the image.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It should be a regular file.
    #[error("{path} in the image is not a regular file")]
    NotAFile {
        /// The path in the image.
        path: String,
    },
    /// It is larger than anything honest.
    #[error("{path} in the image is larger than {limit} bytes")]
    TooLarge {
        /// The path in the image.
        path: String,
        /// How large it may be.
        limit: u64,
    },
}

/// Returns the location of `path` inside `root`, such as the source of a bind mount.
///
/// Links are followed inside the root, and `..` stops there. The descriptor is `O_PATH`: what is
/// there was neither read nor touched.
///
/// # Errors
///
/// If there is nothing, or the path leads through a magic link of `/proc`.
pub fn locate(root: impl AsFd, path: &str) -> Result<OwnedFd, RootfsError> {
    open(root, path, OFlags::PATH).map_err(cannot_open(path))
}

/// Reads a regular file of at most `limit` bytes inside `root`; `None` if there is none.
///
/// # Errors
///
/// If it cannot be read, is not a regular file, or is larger than `limit`.
pub fn read_file(root: impl AsFd, path: &str, limit: u64) -> Result<Option<Vec<u8>>, RootfsError> {
    // A FIFO must not block us, and a device must not be touched before it is looked at.
    let located = match open(&root, path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        other => other.map_err(cannot_open(path))?,
    };
    let before = fstat(&located).map_err(cannot_open(path))?;
    if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
        return Err(RootfsError::NotAFile { path: path.to_owned() });
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open(&root, path, flags).map_err(cannot_open(path))?;
    let opened = fstat(&file).map_err(cannot_open(path))?;
    if (opened.st_dev, opened.st_ino) != (before.st_dev, before.st_ino) {
        return Err(cannot_open(path)(Errno::AGAIN));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| RootfsError::Open { path: path.to_owned(), source })?;
    if bytes.len() as u64 > limit {
        return Err(RootfsError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(Some(bytes))
}

fn cannot_open(path: &str) -> impl Fn(Errno) -> RootfsError {
    move |errno| RootfsError::Open { path: path.to_owned(), source: errno.into() }
}

/// Opens `path` inside `root`; `..` and absolute links stay inside, magic links are refused.
pub(super) fn open(root: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // The kernel asks to try again when something was renamed anywhere meanwhile.
    for _ in 0..OPEN_ATTEMPTS {
        match openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// What kind of thing to make where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An empty file.
    File,
    /// An empty directory.
    Directory,
}

/// A file or directory that was made, with what it takes to undo that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    /// The directory it is in, as bytes, resolved: without links and `..`.
    parent: Vec<u8>,
    /// Its name in that directory.
    name: Vec<u8>,
    /// Its inode number: at its place there may be another thing by now.
    inode: u64,
    /// The directory's time of modification before and after, in seconds and nanoseconds.
    before: (i64, i64),
    after: (i64, i64),
}

/// Opens `path` inside `root` as a location, and makes what is missing of it.
///
/// The last name is made as `kind` says, the names before it as directories, all with the usual
/// modes, and given to `owner` if there is one. `made` is told of each.
pub(super) fn make(
    root: BorrowedFd<'_>,
    path: &str,
    kind: Kind,
    owner: Option<(u32, u32)>,
    made: &mut dyn FnMut(Made) -> Result<(), Errno>,
) -> Result<OwnedFd, Errno> {
    match open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut walk = Walk::new(root, path)?;
    while let Some(name) = walk.pending.pop() {
        let last = walk.pending.is_empty();
        if walk.step(&name)? == Found::Nothing {
            let kind = if last { kind } else { Kind::Directory };
            made(walk.create(name, kind, owner)?)?;
        }
    }
    Ok(walk.finish())
}

/// Where a path leads: a name, and the directory that has it or would have it.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory, open for reading.
    pub(super) directory: OwnedFd,
    /// The name, which is neither a link nor `..`.
    pub(super) name: OsString,
}

/// Finds the place of `path` inside `root`, following links there, whether there is anything or
/// not. Directories that are missing above it are made, and `made` is told of each.
pub(super) fn place(
    root: BorrowedFd<'_>,
    path: &str,
    made: &mut dyn FnMut(Made) -> Result<(), Errno>,
) -> Result<Place, Errno> {
    let mut walk = Walk::new(root, path)?;
    while let Some(name) = walk.pending.pop() {
        if walk.step(&name)? == Found::Something {
            continue;
        }
        if walk.pending.is_empty() {
            return walk.place(name);
        }
        made(walk.create(name, Kind::Directory, None)?)?;
    }
    if walk.here.len() == 1 {
        // The root itself has no place inside it.
        return Err(Errno::BUSY);
    }
    let (name, _) = walk.here.pop().expect("there is more than the root");
    walk.place(name)
}

/// Whether a name was there.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Something,
    Nothing,
}

/// A path being resolved: the directories from the root to here, and the names still to come.
///
/// Going up means returning to the descriptor that we came from: a directory moved meanwhile
/// cannot take us out of the root.
struct Walk {
    here: Vec<(OsString, OwnedFd)>,
    /// In reverse order.
    pending: Vec<OsString>,
    links: usize,
}

impl Walk {
    fn new(root: BorrowedFd<'_>, path: &str) -> Result<Walk, Errno> {
        let here = vec![(OsString::new(), root.try_clone_to_owned().map_err(|_| Errno::MFILE)?)];
        let mut walk = Walk { here, pending: Vec::new(), links: 0 };
        walk.push(OsStr::new(path));
        Ok(walk)
    }

    fn push(&mut self, path: &OsStr) {
        let names = path.as_bytes().split(|&byte| byte == b'/').rev();
        let names = names.filter(|name| !name.is_empty() && *name != b".");
        self.pending.extend(names.map(|name| OsStr::from_bytes(name).to_owned()));
    }

    fn directory(&self) -> BorrowedFd<'_> {
        self.here.last().expect("the root is never popped").1.as_fd()
    }

    fn step(&mut self, name: &OsStr) -> Result<Found, Errno> {
        if name == ".." {
            if self.here.len() > 1 {
                self.here.pop();
            }
            return Ok(Found::Something);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = match openat(self.directory(), name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            other => other?,
        };
        if FileType::from_raw_mode(fstat(&entry)?.st_mode) != FileType::Symlink {
            self.here.push((name.to_owned(), entry));
            return Ok(Found::Something);
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::LOOP);
        }
        let target = OsString::from_vec(readlinkat(&entry, "", Vec::new())?.into_bytes());
        if Path::new(&target).is_absolute() {
            self.here.truncate(1);
        }
        self.push(&target);
        Ok(Found::Something)
    }

    fn create(
        &mut self,
        name: OsString,
        kind: Kind,
        owner: Option<(u32, u32)>,
    ) -> Result<Made, Errno> {
        let directory = self.directory();
        let before = modified(directory)?;
        let flags = match kind {
            Kind::Directory => {
                mkdirat(directory, &name, Mode::from_raw_mode(0o755))?;
                OFlags::DIRECTORY
            }
            Kind::File => OFlags::CREATE | OFlags::EXCL,
        };
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = openat(directory, &name, flags, Mode::from_raw_mode(0o644))?;
        if let Some((uid, gid)) = owner {
            fchown(&entry, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        let made = Made {
            parent: self.path(),
            name: name.as_bytes().to_owned(),
            inode: fstat(&entry)?.st_ino,
            before,
            after: modified(directory)?,
        };
        self.here.push((name, entry));
        Ok(made)
    }

    fn path(&self) -> Vec<u8> {
        let names: Vec<&[u8]> = self.here.iter().map(|(name, _)| name.as_bytes()).collect();
        names.join(&b'/')
    }

    fn place(&self, name: OsString) -> Result<Place, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(self.directory(), ".", flags, Mode::empty())?;
        Ok(Place { directory, name })
    }

    fn finish(mut self) -> OwnedFd {
        self.here.pop().expect("the root is never popped").1
    }
}

/// Removes what was made, newest first, where it is still there and still empty.
///
/// A directory above gets its old time back, unless the step changed it too.
pub(super) fn remove(root: BorrowedFd<'_>, made: &[Made]) {
    for made in made.iter().rev() {
        // What cannot be removed is not ours any more: the step put something there.
        let _ = made.remove(root);
    }
}

impl Made {
    fn remove(&self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        let parent = OsStr::from_bytes(if self.parent.is_empty() { b"." } else { &self.parent });
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = openat2(root, parent, flags, Mode::empty(), resolve)?;
        let name = OsStr::from_bytes(&self.name);
        let found = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if found.st_ino != self.inode {
            return Ok(());
        }
        let untouched = modified(parent.as_fd())? == self.after;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => unlinkat(&parent, name, AtFlags::REMOVEDIR)?,
            FileType::RegularFile if found.st_size == 0 => {
                unlinkat(&parent, name, AtFlags::empty())?;
            }
            _ => return Ok(()),
        }
        if untouched {
            set_modified(parent.as_fd(), self.before)?;
        }
        Ok(())
    }
}

pub(super) fn modified(directory: BorrowedFd<'_>) -> Result<(i64, i64), Errno> {
    let stat = fstat(directory)?;
    Ok((stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)))
}

pub(super) fn set_modified(
    directory: BorrowedFd<'_>,
    (seconds, nanos): (i64, i64),
) -> Result<(), Errno> {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps {
        last_access: omit,
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos },
    };
    futimens(directory, &times)
}
