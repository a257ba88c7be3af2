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
        let from = self.source_parent(source)?;
        let from_name = source.path.file_name().unwrap_or_default();
        self.entry(&from, from_name, &source.path, &directory, &name, &place)
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
            if self.is_seen(from, &name, &source)? {
                self.entry(from, &name, &source, into, &name, &place)?;
            }
        }
        Ok(())
    }

    /// Says whether the filter lets an entry be seen, or something below it.
    fn is_seen(&self, from: &OwnedFd, name: &OsStr, path: &Path) -> Result<bool, CopyError> {
        let Some(stat) = look(from, name).at("look at", path.as_os_str())? else {
            return Ok(false);
        };
        let text = path.to_string_lossy();
        let is_directory = kind_of(&stat) == FileType::Directory;
        if !self.tree.filter.hides(&text, is_directory) {
            return Ok(true);
        }
        if !is_directory || !self.tree.filter.may_descend(&text) {
            return Ok(false);
        }
        let directory = open_directory(from, name).at("open", path.as_os_str())?;
        has_visible(self.tree, &directory, path)
    }

    /// Copies one entry under a name into a directory.
    fn entry(
        &mut self,
        from: &OwnedFd,
        from_name: &OsStr,
        from_path: &Path,
        into: &OwnedFd,
        name: &OsStr,
        place: &Path,
    ) -> Result<(), CopyError> {
        let Some(stat) = look(from, from_name).at("look at", from_path.as_os_str())? else {
            return Ok(());
        };
        let there = look(into, name).at("look at", place.as_os_str())?;
        let there_is_directory =
            there.as_ref().is_some_and(|there| kind_of(there) == FileType::Directory);
        let kind = kind_of(&stat);
        if kind == FileType::Directory {
            if there.is_some() && !there_is_directory {
                return Err(conflict("a directory", place, "not a directory"));
            }
            return self.directory(from, from_name, from_path, into, name, place, &stat);
        }
        if there_is_directory {
            return Err(conflict("a file", place, "a directory"));
        }
        if there.is_some() {
            unlinkat(into, name, AtFlags::empty()).at("replace", place.as_os_str())?;
        }
        if stat.st_nlink > 1 && self.link(&stat, into, name, place)? {
            return Ok(());
        }
        match kind {
            FileType::RegularFile => self.file(from, from_name, from_path, into, name, place),
            FileType::Symlink => self.symlink(from, from_name, into, name, place, &stat),
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                mknodat(into, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)
                    .at("make", place.as_os_str())?;
                self.attributes_by_name(into, name, place, &stat)
            }
            _ => Ok(()),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "two places, each a directory, a name, a path")]
    fn directory(
        &mut self,
        from: &OwnedFd,
        from_name: &OsStr,
        from_path: &Path,
        into: &OwnedFd,
        name: &OsStr,
        place: &Path,
        stat: &Stat,
    ) -> Result<(), CopyError> {
        match mkdirat(into, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).at("make the directory", place.as_os_str()),
        }
        let from = open_directory(from, from_name).at("open", from_path.as_os_str())?;
        let into = open_directory(into, name).at("open", place.as_os_str())?;
        self.children(&from, from_path, &into, place)?;
        self.xattrs(&from, &into, place)?;
        self.attributes(&into, stat, place)
    }

    fn file(
        &mut self,
        from: &OwnedFd,
        from_name: &OsStr,
        from_path: &Path,
        into: &OwnedFd,
        name: &OsStr,
        place: &Path,
    ) -> Result<(), CopyError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source =
            openat(from, from_name, flags, Mode::empty()).at("read", from_path.as_os_str())?;
        let stat = stat_of(&source).at("look at", from_path.as_os_str())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = openat(into, name, flags, Mode::from_raw_mode(0o600))
            .at("create", place.as_os_str())?;
        let (mut source, mut target) = (File::from(source), File::from(target));
        io::copy(&mut source, &mut target).at("copy to", place.as_os_str())?;
        let (source, target) = (OwnedFd::from(source), OwnedFd::from(target));
        self.owner(&target, &stat, place)?;
        self.xattrs(&source, &target, place)?;
        self.mode_and_time(&target, &stat, place)?;
        if stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), place.to_path_buf());
        }
        Ok(())
    }

    fn symlink(
        &self,
        from: &OwnedFd,
        from_name: &OsStr,
        into: &OwnedFd,
        name: &OsStr,
        place: &Path,
        stat: &Stat,
    ) -> Result<(), CopyError> {
        let target = readlinkat(from, from_name, Vec::new()).at("read the link", from_name)?;
        symlinkat(&*OsString::from_vec(target.into_bytes()), into, name)
            .at("make the link", place.as_os_str())?;
        let (uid, gid) = self.owner_of(stat);
        chownat(into, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .at("set the owner of", place.as_os_str())?;
        utimensat(into, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
            .at("set the time of", place.as_os_str())
    }

    /// Makes a further name of a file that was copied before; `false` for the first.
    fn link(
        &self,
        stat: &Stat,
        into: &OwnedFd,
        name: &OsStr,
        place: &Path,
    ) -> Result<bool, CopyError> {
        let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) else { return Ok(false) };
        let parent = first.parent().unwrap_or(Path::new("/"));
        let directory =
            inside::open_directory(self.root, parent.as_os_str()).at("open", parent.as_os_str())?;
        let first_name = first.file_name().unwrap_or_default();
        linkat(&directory, first_name, into, name, AtFlags::empty())
            .at("make the link", place.as_os_str())?;
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
    fn attributes_by_name(
        &self,
        into: &OwnedFd,
        name: &OsStr,
        place: &Path,
        stat: &Stat,
    ) -> Result<(), CopyError> {
        let (uid, gid) = self.owner_of(stat);
        chownat(into, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .at("set the owner of", place.as_os_str())?;
        rustix::fs::chmodat(into, name, self.mode_of(stat), AtFlags::empty())
            .at("set the mode of", place.as_os_str())?;
        utimensat(into, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
            .at("set the time of", place.as_os_str())
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
