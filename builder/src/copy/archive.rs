//! ADD of a local archive: recognised by its content, unpacked into the destination.
//!
//! Unlike a layer, an archive knows no whiteouts: a file named `.wh.x` is a file. Its entries are
//! untrusted; each is put by one name into a directory that was resolved inside the destination.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, chownat,
    linkat, makedev, mkdirat, mknodat, openat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::inside::{self, Made};
use super::{CopyOptions, kind_of, look};
use crate::layer::decompress::{DecompressLimits, Decompressor};
use crate::layer::entry::{Entry, EntryPath, Kind, Mtime};
use crate::layer::tar::{Archive, Limits, TarError};

/// Why an archive cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file cannot be read or decompressed.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// The archive is damaged.
    #[error("the archive is damaged")]
    Tar(#[source] TarError),
    /// An entry cannot be put in its place.
    #[error("cannot make {path}")]
    Entry {
        /// Which entry.
        path: EntryPath,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Says whether a file is a tar, perhaps compressed: whether its first header can be read.
/// The file's position is at its start afterwards.
///
/// # Errors
/// Where the file cannot be read.
pub fn is_archive(mut file: &File) -> Result<bool, ArchiveError> {
    let found = match Decompressor::new(file, 1, DecompressLimits::default()) {
        Ok(unpacked) => {
            let mut archive = Archive::new(BufReader::new(unpacked), Limits::default());
            matches!(archive.next_entry(), Ok(Some(_)))
        }
        Err(_) => false,
    };
    file.seek(SeekFrom::Start(0)).map_err(ArchiveError::Read)?;
    Ok(found)
}

/// Unpacks an archive below a directory.
///
/// # Errors
/// Where the archive is damaged or an entry cannot be made.
pub fn unpack(
    file: File,
    into: BorrowedFd<'_>,
    options: CopyOptions<'_>,
) -> Result<(), ArchiveError> {
    let unpacked =
        Decompressor::new(file, 1, DecompressLimits::default()).map_err(ArchiveError::Read)?;
    let mut archive =
        Archive::new(BufReader::with_capacity(256 << 10, unpacked), Limits::default());
    let mut directories: Vec<(PathBuf, Mtime)> = Vec::new();
    while let Some(entry) = archive.next_entry().map_err(ArchiveError::Tar)? {
        // The entry of the root says nothing about the destination.
        if entry.path.is_root() {
            continue;
        }
        let failed =
            |errno: io::Error| ArchiveError::Entry { path: entry.path.clone(), source: errno };
        let placing = Placing { into, options, entry: &entry };
        placing.put(&mut archive.content()).map_err(failed)?;
        if entry.kind == Kind::Directory {
            directories.push((placing.path(), entry.mtime));
        }
    }
    // Last, since whatever is made in a directory changes its time.
    for (path, mtime) in directories.into_iter().rev() {
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
            && let Ok(parent) = inside::open_directory(into, parent.as_os_str())
        {
            let _ = utimensat(&parent, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW);
        }
    }
    Ok(())
}

struct Placing<'a> {
    into: BorrowedFd<'a>,
    options: CopyOptions<'a>,
    entry: &'a Entry,
}

impl Placing<'_> {
    fn path(&self) -> PathBuf {
        Path::new("/").join(OsStr::from_bytes(self.entry.path.as_bytes()))
    }

    fn put(&self, content: &mut dyn io::Read) -> io::Result<()> {
        let path = self.path();
        let parent = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or_default();
        let owner = self.options.owner.unwrap_or((0, 0));
        let directory = inside::make_directory(self.into, parent, Made { owner, mode: 0o755 })?;
        let there = look(&directory, name)?;
        let there_is_directory =
            there.as_ref().is_some_and(|stat| kind_of(stat) == FileType::Directory);
        match (there.is_some(), there_is_directory, &self.entry.kind) {
            (true, true, Kind::Directory) | (false, ..) => {}
            (_, true, _) => unlinkat(&directory, name, AtFlags::REMOVEDIR)?,
            _ => unlinkat(&directory, name, AtFlags::empty())?,
        }
        if let Kind::HardLink { target } = &self.entry.kind {
            return Ok(self.link(target, &directory, name)?);
        }
        self.make(&directory, name, content)?;
        self.attributes(&directory, name)
    }

    fn make(
        &self,
        directory: &OwnedFd,
        name: &OsStr,
        content: &mut dyn io::Read,
    ) -> io::Result<()> {
        let mode = Mode::from_raw_mode(0o600);
        match &self.entry.kind {
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut file = File::from(openat(directory, name, flags, mode)?);
                io::copy(content, &mut file)?;
            }
            Kind::Directory => match mkdirat(directory, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            },
            Kind::Symlink { target } => {
                symlinkat(OsStr::from_bytes(target), directory, name)?;
            }
            Kind::CharDevice { major, minor } => {
                let device = makedev(*major, *minor);
                mknodat(directory, name, FileType::CharacterDevice, mode, device)?;
            }
            Kind::BlockDevice { major, minor } => {
                let device = makedev(*major, *minor);
                mknodat(directory, name, FileType::BlockDevice, mode, device)?;
            }
            Kind::Fifo => mknodat(directory, name, FileType::Fifo, mode, 0)?,
            Kind::HardLink { .. } | Kind::Whiteout | Kind::OpaqueWhiteout => {}
        }
        Ok(())
    }

    fn link(&self, target: &EntryPath, directory: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        let target = Path::new("/").join(OsStr::from_bytes(target.as_bytes()));
        let parent = target.parent().unwrap_or(Path::new("/"));
        let from = inside::open_directory(self.into, parent.as_os_str())?;
        let from_name = target.file_name().unwrap_or_default();
        linkat(&from, from_name, directory, name, AtFlags::empty())
    }

    fn attributes(&self, directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let entry = self.entry;
        let (uid, gid) = self.options.owner.unwrap_or((entry.uid, entry.gid));
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            let is_directory = entry.kind == Kind::Directory;
            let mode = self.options.mode.map_or(entry.mode, |mode| mode(entry.mode, is_directory));
            self.xattrs(directory, name)?;
            chmodat(directory, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        utimensat(directory, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    fn xattrs(&self, directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
        if self.entry.xattrs.is_empty() || self.entry.kind != Kind::File {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(directory, name, flags, Mode::empty())?;
        for (xattr, value) in &self.entry.xattrs {
            if !crate::layer::entry::is_written_xattr(xattr) {
                continue;
            }
            let flags = rustix::fs::XattrFlags::empty();
            match rustix::fs::fsetxattr(&file, OsStr::from_bytes(xattr), value, flags) {
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

fn times(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: i64::from(mtime.nanoseconds),
        },
    }
}
