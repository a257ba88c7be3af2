//! Writing what was selected into the destination.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, chownat,
    fchmod, fchown, futimens, linkat, mkdirat, mknodat, openat, readlinkat, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

use super::inside::{self, Made};
use super::select::has_visible;
use super::{At as _, CopyError, CopyOptions, Found, Tree, archive, kind_of, look, names};
use super::{open_directory, stat_of};

/// Where an instruction copies to, as it was before the first byte was copied.
#[derive(Debug)]
pub struct Target {
    /// Absolute, inside the root; a link at its end was followed.
    path: PathBuf,
    /// It is a directory, or was asked to be one.
    is_directory: bool,
    exists: bool,
}

impl Target {
    /// Looks at the destination.
    pub(super) fn find(root: BorrowedFd<'_>, destination: &str) -> Result<Target, CopyError> {
        let asked = destination.ends_with('/') || destination.ends_with("/.");
        let path =
            inside::follow(root, Path::new(destination)).at("look at", OsStr::new(destination))?;
        let kind = inside::kind_at(root, &path).at("look at", path.as_os_str())?;
        let is_directory = kind == Some(FileType::Directory);
        if asked && kind.is_some() && !is_directory {
            return Err(conflict("a file into", &path, "not a directory"));
        }
        Ok(Target { path, is_directory: asked || is_directory, exists: kind.is_some() })
    }

    /// Says whether it is a directory, or will be one.
    pub fn is_directory(&self) -> bool {
        self.is_directory
    }
}

fn conflict(what: &'static str, path: &Path, there: &'static str) -> CopyError {
    CopyError::Conflict { what, path: path.to_string_lossy().into_owned(), there }
}

/// A name in an open directory, and the path that it is known by.
#[derive(Clone, Copy)]
struct Spot<'a> {
    directory: &'a OwnedFd,
    name: &'a OsStr,
    path: &'a Path,
}

impl Spot<'_> {
    fn look(&self) -> Result<Option<Stat>, CopyError> {
        look(self.directory, self.name).at("look at", self.path.as_os_str())
    }

    fn open_directory(&self) -> Result<OwnedFd, CopyError> {
        open_directory(self.directory, self.name).at("open", self.path.as_os_str())
    }
}

/// A COPY under way.
pub(super) struct Placing<'a> {
    tree: Tree<'a>,
    root: BorrowedFd<'a>,
    options: CopyOptions<'a>,
    /// Where the first name of a file with several is now: device and inode of the source.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<'a> Placing<'a> {
    pub(super) fn new(tree: Tree<'a>, root: BorrowedFd<'a>, options: CopyOptions<'a>) -> Self {
        Placing { tree, root, options, links: HashMap::new() }
    }

    /// Copies one source: a directory's contents, or a file.
    pub(super) fn put(&mut self, source: &Found, target: &Target) -> Result<(), CopyError> {
        if source.is_directory() {
            if target.exists && !target.is_directory {
                return Err(conflict("a directory", &target.path, "a file"));
            }
            return self.put_contents(source, target);
        }
        if self.options.unpack && self.unpack(source, target)? {
            return Ok(());
        }
        let place =
            if target.is_directory { target.path.join(&source.name) } else { target.path.clone() };
        let parent = place.parent().unwrap_or(Path::new("/"));
        let name = place.file_name().unwrap_or_default().to_owned();
        let directory = self.make_directory(parent)?;
        let from_directory = self.source_parent(source)?;
        let from = Spot {
            directory: &from_directory,
            name: source.path.file_name().unwrap_or_default(),
            path: &source.path,
        };
        self.entry(from, Spot { directory: &directory, name: &name, path: &place })
    }

    fn source_parent(&self, source: &Found) -> Result<OwnedFd, CopyError> {
        let parent = source.path.parent().unwrap_or(Path::new(""));
        inside::open_directory(self.tree.root, parent.as_os_str()).at("open", parent.as_os_str())
    }

    /// Makes a directory and its parents: mode 0755 or what `--chmod` says, owned by whom
    /// `--chown` names, or root.
    fn make_directory(&self, path: &Path) -> Result<OwnedFd, CopyError> {
        let owner = self.options.owner.unwrap_or((0, 0));
        let mode = self.options.mode.map_or(0o755, |mode| mode(0o755, true));
        inside::make_directory(self.root, path, Made { owner, mode })
            .at("make the directory", path.as_os_str())
    }

    fn put_contents(&mut self, source: &Found, target: &Target) -> Result<(), CopyError> {
        let from = inside::open_directory(self.tree.root, source.path.as_os_str())
            .at("open", source.path.as_os_str())?;
        let into = self.make_directory(&target.path)?;
        self.children(&from, &source.path, &into, &target.path)?;
        if !target.exists {
            self.attributes(&into, &source.stat, &target.path)?;
        }
        Ok(())
    }

    fn children(
        &mut self,
        from: &OwnedFd,
        from_path: &Path,
        into: &OwnedFd,
        into_path: &Path,
    ) -> Result<(), CopyError> {
        for name in names(from).at("list", from_path.as_os_str())? {
            let (source, place) = (from_path.join(&name), into_path.join(&name));
            let source = Spot { directory: from, name: &name, path: &source };
            if self.is_seen(source)? {
                self.entry(source, Spot { directory: into, name: &name, path: &place })?;
            }
        }
        Ok(())
    }

    /// Says whether the filter lets an entry be seen, or something below it.
    fn is_seen(&self, source: Spot<'_>) -> Result<bool, CopyError> {
        let Some(stat) = source.look()? else { return Ok(false) };
        let text = source.path.to_string_lossy();
        let is_directory = kind_of(&stat) == FileType::Directory;
        if !self.tree.filter.hides(&text, is_directory) {
            return Ok(true);
        }
        if !is_directory || !self.tree.filter.may_descend(&text) {
            return Ok(false);
        }
        has_visible(self.tree, &source.open_directory()?, source.path)
    }

    /// Copies one entry under a name into a directory.
    fn entry(&mut self, from: Spot<'_>, into: Spot<'_>) -> Result<(), CopyError> {
        let Some(stat) = from.look()? else { return Ok(()) };
        let there = into.look()?;
        let there_is_directory =
            there.as_ref().is_some_and(|there| kind_of(there) == FileType::Directory);
        let kind = kind_of(&stat);
        if kind == FileType::Directory {
            if there.is_some() && !there_is_directory {
                return Err(conflict("a directory", into.path, "not a directory"));
            }
            return self.directory(from, into, &stat);
        }
        if there_is_directory {
            return Err(conflict("a file", into.path, "a directory"));
        }
        if there.is_some() {
            unlinkat(into.directory, into.name, AtFlags::empty())
                .at("replace", into.path.as_os_str())?;
        }
        if stat.st_nlink > 1 && self.link(&stat, into)? {
            return Ok(());
        }
        match kind {
            FileType::RegularFile => self.file(from, into),
            FileType::Symlink => self.symlink(from, into, &stat),
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                mknodat(into.directory, into.name, kind, mode, stat.st_rdev)
                    .at("make", into.path.as_os_str())?;
                self.attributes_by_name(into, &stat)
            }
            _ => Ok(()),
        }
    }

    fn directory(&mut self, from: Spot<'_>, into: Spot<'_>, stat: &Stat) -> Result<(), CopyError> {
        match mkdirat(into.directory, into.name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).at("make the directory", into.path.as_os_str()),
        }
        let (source, target) = (from.open_directory()?, into.open_directory()?);
        self.children(&source, from.path, &target, into.path)?;
        self.xattrs(&source, &target, into.path)?;
        self.attributes(&target, stat, into.path)
    }

    fn file(&mut self, from: Spot<'_>, into: Spot<'_>) -> Result<(), CopyError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = openat(from.directory, from.name, flags, Mode::empty())
            .at("read", from.path.as_os_str())?;
        let stat = stat_of(&source).at("look at", from.path.as_os_str())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = openat(into.directory, into.name, flags, Mode::from_raw_mode(0o600))
            .at("create", into.path.as_os_str())?;
        let (mut source, mut target) = (File::from(source), File::from(target));
        io::copy(&mut source, &mut target).at("copy to", into.path.as_os_str())?;
        let (source, target) = (OwnedFd::from(source), OwnedFd::from(target));
        self.owner(&target, &stat, into.path)?;
        self.xattrs(&source, &target, into.path)?;
        self.mode_and_time(&target, &stat, into.path)?;
        if stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), into.path.to_path_buf());
        }
        Ok(())
    }

    fn symlink(&self, from: Spot<'_>, into: Spot<'_>, stat: &Stat) -> Result<(), CopyError> {
        let target = readlinkat(from.directory, from.name, Vec::new())
            .at("read the link", from.path.as_os_str())?;
        symlinkat(&*OsString::from_vec(target.into_bytes()), into.directory, into.name)
            .at("make the link", into.path.as_os_str())?;
        let (uid, gid) = self.owner_of(stat);
        let no_follow = AtFlags::SYMLINK_NOFOLLOW;
        chownat(into.directory, into.name, Some(uid), Some(gid), no_follow)
            .at("set the owner of", into.path.as_os_str())?;
        utimensat(into.directory, into.name, &times(stat), no_follow)
            .at("set the time of", into.path.as_os_str())
    }

    /// Makes a further name of a file that was copied before; `false` for the first.
    fn link(&self, stat: &Stat, into: Spot<'_>) -> Result<bool, CopyError> {
        let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) else { return Ok(false) };
        let parent = first.parent().unwrap_or(Path::new("/"));
        let directory =
            inside::open_directory(self.root, parent.as_os_str()).at("open", parent.as_os_str())?;
        let first_name = first.file_name().unwrap_or_default();
        linkat(&directory, first_name, into.directory, into.name, AtFlags::empty())
            .at("make the link", into.path.as_os_str())?;
        Ok(true)
    }

    fn owner_of(&self, stat: &Stat) -> (Uid, Gid) {
        let (uid, gid) = match self.options.owner {
            Some(owner) => owner,
            None if self.tree.keeps_owners => (stat.st_uid, stat.st_gid),
            None => (0, 0),
        };
        (Uid::from_raw(uid), Gid::from_raw(gid))
    }

    fn mode_of(&self, stat: &Stat) -> Mode {
        let own = stat.st_mode & 0o7777;
        let is_directory = kind_of(stat) == FileType::Directory;
        Mode::from_raw_mode(self.options.mode.map_or(own, |mode| mode(own, is_directory)))
    }

    fn owner(&self, file: &OwnedFd, stat: &Stat, place: &Path) -> Result<(), CopyError> {
        let (uid, gid) = self.owner_of(stat);
        fchown(file, Some(uid), Some(gid)).at("set the owner of", place.as_os_str())
    }

    fn mode_and_time(&self, file: &OwnedFd, stat: &Stat, place: &Path) -> Result<(), CopyError> {
        fchmod(file, self.mode_of(stat)).at("set the mode of", place.as_os_str())?;
        futimens(file, &times(stat)).at("set the time of", place.as_os_str())
    }

    fn attributes(&self, file: &OwnedFd, stat: &Stat, place: &Path) -> Result<(), CopyError> {
        self.owner(file, stat, place)?;
        self.mode_and_time(file, stat, place)
    }

    /// For what cannot be opened without effect: devices and FIFOs.
    fn attributes_by_name(&self, into: Spot<'_>, stat: &Stat) -> Result<(), CopyError> {
        let (uid, gid) = self.owner_of(stat);
        let (directory, name, path) = (into.directory, into.name, into.path.as_os_str());
        chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .at("set the owner of", path)?;
        rustix::fs::chmodat(directory, name, self.mode_of(stat), AtFlags::empty())
            .at("set the mode of", path)?;
        utimensat(directory, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
            .at("set the time of", path)
    }

    /// Copies the extended attributes that a layer holds. Setting them comes after the owner: the
    /// kernel drops capabilities of a file that changes hands.
    fn xattrs(&self, from: &OwnedFd, into: &OwnedFd, place: &Path) -> Result<(), CopyError> {
        if !self.tree.keeps_owners {
            return Ok(());
        }
        let mut list = vec![0; 64 * 1024];
        let len = match rustix::fs::flistxattr(from, &mut list[..]) {
            Ok(len) => len,
            Err(Errno::NOTSUP) => return Ok(()),
            Err(errno) => return Err(errno).at("read the attributes of", place.as_os_str()),
        };
        for name in list[..len].split(|&byte| byte == 0) {
            if !crate::layer::entry::is_written_xattr(name) {
                continue;
            }
            let mut value = vec![0; 64 * 1024];
            let name = OsStr::from_bytes(name);
            let len = rustix::fs::fgetxattr(from, name, &mut value[..])
                .at("read the attributes of", place.as_os_str())?;
            match rustix::fs::fsetxattr(into, name, &value[..len], rustix::fs::XattrFlags::empty())
            {
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(errno) => return Err(errno).at("set the attributes of", place.as_os_str()),
            }
        }
        Ok(())
    }

    /// Unpacks a source that is an archive; `false` where it is not one.
    fn unpack(&self, source: &Found, target: &Target) -> Result<bool, CopyError> {
        let from = self.source_parent(source)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let name = source.path.file_name().unwrap_or_default();
        if kind_of(&source.stat) != FileType::RegularFile {
            return Ok(false);
        }
        let file = openat(&from, name, flags, Mode::empty()).at("read", source.path.as_os_str())?;
        let failed = |error| CopyError::Archive {
            path: source.path.to_string_lossy().into_owned(),
            source: error,
        };
        let file = File::from(file);
        if !archive::is_archive(&file).map_err(failed)? {
            return Ok(false);
        }
        if target.exists && !target.is_directory {
            return Err(conflict("an archive", &target.path, "a file"));
        }
        let into = self.make_directory(&target.path)?;
        archive::unpack(file, into.as_fd(), self.options).map_err(failed)?;
        Ok(true)
    }
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
    }
}
