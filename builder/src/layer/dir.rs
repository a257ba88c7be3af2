//! A directory held by its descriptor, and what can be done to the objects in it.
//!
//! Every name given here is one component, and no call follows a symbolic link in it: whatever the
//! content of a tree says, an operation touches the object of that name in that directory or fails.
//! Extended attributes of objects that cannot be opened go through `/proc/self/fd/N/name`, in which
//! the first part is our own descriptor and the last is not followed.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::fs::{RenameFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use super::entry::{EntryPath, Kind, Mtime, Xattrs};
use crate::ids;

/// What lies in a directory that hides everything beneath it, in the form [`Form::Plain`].
const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// How the trees of layers say what of the layers beneath is gone.
///
/// Whiteouts are devices 0:0 where overlayfs reads them. Overlayfs itself takes none when a tree
/// lies on it, as in a container: there they are sockets, which no layer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// Overlayfs's, mounted by root: attributes `trusted.*`.
    #[default]
    Trusted,
    /// Overlayfs's, mounted in a user namespace: attributes `user.*`.
    User,
    /// Ours, for trees that are never mounted: it takes no right, and nothing of the file system.
    Plain,
}

impl Form {
    /// Returns what overlayfs calls a directory that hides everything beneath it.
    fn opaque(self) -> Option<&'static [u8]> {
        match self {
            Form::Trusted => Some(b"trusted.overlay.opaque"),
            Form::User => Some(b"user.overlay.opaque"),
            Form::Plain => None,
        }
    }
}

/// A directory, and the form of the tree that it is in.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    form: Form,
}

/// What lies under a name.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) kind: ObjectKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: Mtime,
    /// Whether the object has more names than this one; always so for directories.
    pub(crate) has_other_names: bool,
    /// Device and inode number: equal for two names of one object.
    pub(crate) identity: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    File,
    Directory,
    Symlink,
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
    /// A character device 0:0; see [`Form`].
    Whiteout,
}

impl From<OwnedFd> for Dir {
    fn from(directory: OwnedFd) -> Self {
        Self { fd: directory, form: Form::default() }
    }
}

impl Dir {
    /// Opens a directory by its path on the host, which is trusted.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::open_in(Form::default(), path)
    }

    /// Opens a directory of a tree in `form`.
    pub(crate) fn open_in(form: Form, path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map(|fd| Self { fd, form })
    }

    /// Opens a directory in this one.
    pub(crate) fn subdir(&self, name: &[u8]) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        Ok(Self { fd, form: self.form })
    }

    /// Opens a directory somewhere below, through directories only.
    pub(crate) fn descend(&self, path: &EntryPath) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_root() { b"." } else { path.as_bytes() };
        let fd = rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve)?;
        Ok(Self { fd, form: self.form })
    }

    /// Returns what lies under a name, if anything does. `.` is the directory itself.
    pub(crate) fn stat(&self, name: &[u8]) -> Result<Option<Object>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(self.object(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Returns the directory's own attributes.
    pub(crate) fn own(&self) -> Result<Object> {
        rustix::fs::fstat(&self.fd).map(|stat| self.object(&stat))
    }

    /// A socket is one where overlayfs reads the tree; else it is a whiteout.
    fn object(&self, stat: &Stat) -> Object {
        let mut object = Object::from(stat);
        if self.form == Form::Plain && object.kind == ObjectKind::Socket {
            object.kind = ObjectKind::Whiteout;
        }
        object
    }

    /// Returns the names in the directory, sorted.
    pub(crate) fn names(&self) -> Result<Vec<Vec<u8>>> {
        let mut names = self.all_names()?;
        if self.form == Form::Plain {
            names.retain(|name| name != OPAQUE_NAME);
        }
        Ok(names)
    }

    /// Returns all names, also that of the sign in [`Form::Plain`] that hides what lies beneath.
    pub(crate) fn all_names(&self) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Opens a file to read it.
    pub(crate) fn open_file(&self, name: &[u8]) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map(File::from)
    }

    /// Opens a file that is there to write to it.
    pub(crate) fn open_to_write(&self, name: &[u8]) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map(File::from)
    }

    /// Makes a file that did not exist.
    pub(crate) fn create_file(&self, name: &[u8]) -> Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    }

    pub(crate) fn make_dir(&self, name: &[u8]) -> Result<()> {
        rustix::fs::mkdirat(&self.fd, name, Mode::RWXU)
    }

    pub(crate) fn make_symlink(&self, name: &[u8], target: &[u8]) -> Result<()> {
        rustix::fs::symlinkat(target, &self.fd, name)
    }

    /// Gives an object, which is no directory, another name.
    pub(crate) fn make_link(&self, name: &[u8], from: &Self, target: &[u8]) -> Result<()> {
        rustix::fs::linkat(&from.fd, target, &self.fd, name, AtFlags::empty())
    }

    pub(crate) fn make_device(&self, name: &[u8], kind: &Kind) -> Result<()> {
        let (file_type, (major, minor)) = match kind {
            Kind::CharDevice { major, minor } => (FileType::CharacterDevice, (*major, *minor)),
            Kind::BlockDevice { major, minor } => (FileType::BlockDevice, (*major, *minor)),
            _ => (FileType::Fifo, (0, 0)),
        };
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(&self.fd, name, file_type, Mode::empty(), device)
    }

    /// Makes the sign that what lies beneath under this name is gone.
    pub(crate) fn make_whiteout(&self, name: &[u8]) -> Result<()> {
        match self.form {
            Form::Plain => rustix::fs::mknodat(&self.fd, name, FileType::Socket, Mode::empty(), 0),
            _ => self.make_device(name, &Kind::CharDevice { major: 0, minor: 0 }),
        }
    }

    pub(crate) fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        rustix::fs::readlinkat(&self.fd, name, Vec::new()).map(std::ffi::CString::into_bytes)
    }

    /// Removes an object that is no directory.
    pub(crate) fn unlink(&self, name: &[u8]) -> Result<()> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, name: &[u8]) -> Result<()> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
    }

    /// Removes an object with all that is in it.
    pub(crate) fn remove(&self, name: &[u8]) -> Result<()> {
        match self.unlink(name) {
            Err(Errno::ISDIR) => {}
            other => return other,
        }
        self.subdir(name)?.remove_content()?;
        self.remove_dir(name)
    }

    /// Removes all that is in the directory.
    ///
    /// However deep it is, this takes two descriptors and no recursion: what lies two levels down
    /// is first moved up one.
    pub(crate) fn remove_content(&self) -> Result<()> {
        let mut moved = 0_u64;
        loop {
            let names = self.all_names()?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                match self.unlink(&name) {
                    Err(Errno::ISDIR) => {}
                    other => {
                        other?;
                        continue;
                    }
                }
                self.hoist(&self.subdir(&name)?, &mut moved)?;
                self.remove_dir(&name)?;
            }
        }
    }

    /// Empties a directory of this one: removes its files and moves its directories here.
    fn hoist(&self, directory: &Self, moved: &mut u64) -> Result<()> {
        for name in directory.all_names()? {
            match directory.unlink(&name) {
                Err(Errno::ISDIR) => {}
                other => {
                    other?;
                    continue;
                }
            }
            loop {
                *moved += 1;
                let to = format!(".moved-{moved}").into_bytes();
                let flags = RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(&directory.fd, name.as_slice(), &self.fd, to, flags)
                {
                    Err(Errno::EXIST) => {}
                    other => break other?,
                }
            }
        }
        Ok(())
    }

    /// Gives an object to somebody. Where this process has one id, everything stays its own.
    pub(crate) fn set_owner(&self, name: &[u8], uid: u32, gid: u32) -> Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        given(rustix::fs::chownat(&self.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// Sets permissions. The object must be known not to be a symbolic link.
    pub(crate) fn set_mode(&self, name: &[u8], mode: u32) -> Result<()> {
        rustix::fs::chmodat(&self.fd, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
    }

    pub(crate) fn set_mtime(&self, name: &[u8], mtime: Mtime) -> Result<()> {
        rustix::fs::utimensat(&self.fd, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(crate) fn set_own_mtime(&self, mtime: Mtime) -> Result<()> {
        rustix::fs::futimens(&self.fd, &timestamps(mtime))
    }

    /// Returns all extended attributes of an object.
    pub(crate) fn xattrs(&self, name: &[u8]) -> Result<Xattrs> {
        let path = self.magic_path(name);
        let list = match read_sized(|buffer| rustix::fs::llistxattr(path.as_slice(), buffer)) {
            Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
            list => list?,
        };
        let mut xattrs = Xattrs::new();
        for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let value = read_sized(|buffer| rustix::fs::lgetxattr(path.as_slice(), name, buffer));
            match value {
                Ok(value) => drop(xattrs.insert(name.to_vec(), value)),
                Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(xattrs)
    }

    pub(crate) fn set_xattr(&self, name: &[u8], xattr: &[u8], value: &[u8]) -> Result<()> {
        rustix::fs::lsetxattr(self.magic_path(name).as_slice(), xattr, value, XattrFlags::empty())
    }

    pub(crate) fn remove_xattr(&self, name: &[u8], xattr: &[u8]) -> Result<()> {
        rustix::fs::lremovexattr(self.magic_path(name).as_slice(), xattr)
    }

    /// Hides all that lies beneath a directory.
    pub(crate) fn set_opaque(&self, name: &[u8]) -> Result<()> {
        match self.form.opaque() {
            Some(opaque) => self.set_xattr(name, opaque, b"y"),
            None => match self.subdir(name)?.create_file(OPAQUE_NAME) {
                Ok(_) | Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(errno),
            },
        }
    }

    /// Reports whether this directory hides all that lies beneath it.
    pub(crate) fn is_opaque(&self) -> Result<bool> {
        let Some(opaque) = self.form.opaque() else {
            return self.stat(OPAQUE_NAME).map(|found| found.is_some());
        };
        let mut value = [0_u8; 8];
        match rustix::fs::fgetxattr(&self.fd, opaque, &mut value[..]) {
            Ok(length) => Ok(&value[..length] == b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn magic_path(&self, name: &[u8]) -> Vec<u8> {
        let mut path = format!("/proc/self/fd/{}/", self.fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        path
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<&Stat> for Object {
    fn from(stat: &Stat) -> Self {
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => ObjectKind::Directory,
            FileType::Symlink => ObjectKind::Symlink,
            FileType::CharacterDevice if (major, minor) == (0, 0) => ObjectKind::Whiteout,
            FileType::CharacterDevice => ObjectKind::CharDevice { major, minor },
            FileType::BlockDevice => ObjectKind::BlockDevice { major, minor },
            FileType::Fifo => ObjectKind::Fifo,
            FileType::Socket => ObjectKind::Socket,
            _ => ObjectKind::File,
        };
        let mtime = Mtime {
            seconds: stat.st_mtime,
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        };
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            mtime,
            has_other_names: stat.st_nlink > 1,
            identity: (stat.st_dev, stat.st_ino),
        }
    }
}

/// Calls with growing buffers: the size may change between asking for it and reading.
fn read_sized(mut read: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    const BYTES_MAX: usize = 64 << 10; // the kernel's XATTR_SIZE_MAX and XATTR_LIST_MAX
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < BYTES_MAX => buffer.resize(BYTES_MAX, 0),
            Err(errno) => return Err(errno),
        }
    }
}

/// Gives an open file to somebody, as [`Dir::set_owner`] does.
pub(crate) fn set_file_owner(file: &File, uid: u32, gid: u32) -> Result<()> {
    given(rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
}

fn given(given: Result<()>) -> Result<()> {
    match given {
        Err(Errno::INVAL | Errno::PERM) if ids::is_single() => Ok(()),
        given => given,
    }
}

pub(crate) fn timestamps(mtime: Mtime) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
