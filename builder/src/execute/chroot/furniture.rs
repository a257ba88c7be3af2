//! What is put into a tree for the time of a step, and what it replaces.
//!
//! Without mounts, a thing that a step shall see has to lie in the tree. What the image has at
//! that place is moved to a directory beside the tree, which the step cannot see, and back again
//! when the step is over; what the step made of our things goes, as it would with a mount. Both
//! directories are held by descriptor, so a step that moves or replaces `/etc` gains nothing.
//!
//! A directory in which we do this keeps its time of modification: it is set back at once, so
//! that what it says later is what the step did.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::execute::failure::{During, Failure};
use crate::execute::init::mounts::name as kind_name;
use crate::execute::rootfs::{self, Kind, Made, Place, modified, set_modified};
use crate::layer::dir::Dir;

/// The directory beside the tree.
const ASIDE: &str = "aside";
const FURNISH: &str = "make the mount point";

/// What was put into a tree.
pub(super) struct Furniture<'a> {
    root: BorrowedFd<'a>,
    beside: OwnedFd,
    aside: OwnedFd,
    placed: Vec<Placed>,
    made: Vec<Made>,
}

/// A place where something of ours is.
struct Placed {
    place: Place,
    /// What the image's own is called beside the tree, if it has any.
    original: Option<String>,
    /// Where it goes back to, if it was only lent.
    lent: Option<Lent>,
}

/// A directory that was moved into the tree.
struct Lent {
    within: OwnedFd,
    name: String,
    /// Device and inode: at its place there may be another thing by now.
    object: (u64, u64),
}

impl<'a> Furniture<'a> {
    /// Begins with the directory beside the tree.
    pub(super) fn new(root: BorrowedFd<'a>) -> Result<Furniture<'a>, Failure> {
        const MAKE: &str = "make a directory beside";
        let (beside, aside) = make_aside(root).during(MAKE, "the tree")?;
        Ok(Furniture { root, beside, aside, placed: Vec::new(), made: Vec::new() })
    }

    /// Puts what `create` makes, under the name it is given in the directory it is given, at
    /// `path`. What is there is set aside, if it is of the same kind.
    pub(super) fn put<T>(
        &mut self,
        path: &str,
        kind: Kind,
        create: impl FnOnce(BorrowedFd<'_>, &OsStr) -> Result<T, Errno>,
    ) -> Result<T, Failure> {
        let mut tell = |made| {
            self.made.push(made);
            Ok(())
        };
        let place = rootfs::place(self.root, path, &mut tell).during(FURNISH, path)?;
        let found = look(&place.directory, &place.name).during(FURNISH, path)?;
        if let Some(found) = &found {
            check_kind(path, FileType::from_raw_mode(found.st_mode), kind)?;
        }
        let before = modified(place.directory.as_fd()).during(FURNISH, path)?;
        let original = found.map(|_| self.placed.len().to_string());
        if let Some(original) = &original {
            renameat(&place.directory, &place.name, &self.aside, original)
                .during("set aside", path)?;
        }
        self.placed.push(Placed { place, original, lent: None });
        let place = &self.placed.last().expect("it was just added").place;
        let made = create(place.directory.as_fd(), &place.name).during(FURNISH, path)?;
        set_modified(place.directory.as_fd(), before).during(FURNISH, path)?;
        Ok(made)
    }

    /// Moves the directory `name` of `within` to `path`. It returns there when the tree is cleared,
    /// unless the step moved it elsewhere.
    pub(super) fn lend(&mut self, path: &str, within: &OwnedFd, name: &str) -> Result<(), Failure> {
        let lent = self.put(path, Kind::Directory, |parent, at| {
            let found = statat(within, name, AtFlags::SYMLINK_NOFOLLOW)?;
            renameat(within, name, parent, at)?;
            Ok((found.st_dev, found.st_ino))
        })?;
        let within = within.try_clone().map_err(|_| Errno::MFILE).during(FURNISH, path)?;
        let placed = self.placed.last_mut().expect("it was just added");
        placed.lent = Some(Lent { within, name: name.to_owned(), object: lent });
        Ok(())
    }

    /// Puts an empty directory at `path`, which must not be a link in the image: other paths of
    /// ours start with it, and must mean there what they mean to us.
    pub(super) fn put_directory(&mut self, path: &str, mode: u32) -> Result<OwnedFd, Failure> {
        let name = path.trim_start_matches('/');
        if let Some(found) = look(self.root, OsStr::new(name)).during(FURNISH, path)? {
            check_kind(path, FileType::from_raw_mode(found.st_mode), Kind::Directory)?;
        }
        self.put(path, Kind::Directory, |parent, name| make_directory(parent, name, mode))
    }

    /// Puts a file at `path`, which may be a link in the image.
    pub(super) fn put_file(&mut self, path: &str, content: &[u8]) -> Result<(), Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        self.put(path, Kind::File, |parent, name| {
            let file = openat(parent, name, flags, Mode::from_raw_mode(0o644))?;
            let written = std::fs::File::from(file).write_all(content);
            written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })
    }

    /// Removes all that was put into the tree, and returns what was set aside.
    ///
    /// All of it is tried; what failed first is reported.
    pub(super) fn clear(self) -> Result<(), Failure> {
        let mut result = Ok(());
        for Placed { place, original, lent } in self.placed.iter().rev() {
            if let Some(lent) = lent {
                let path = place.name.to_string_lossy();
                let returned = take_back(place, lent).during("take back, after the step,", &path);
                result = result.and(returned);
            }
            let original = original.as_ref().map(|name| (&self.aside, name.as_str()));
            let path = place.name.to_string_lossy();
            let restored = restore(place, original).during("restore, after the step,", &path);
            result = result.and(restored);
        }
        rootfs::remove(self.root, &self.made);
        // It holds nothing any more, or what the step left no place for: then it goes with the
        // snapshot.
        let _ = unlinkat(&self.beside, ASIDE, AtFlags::REMOVEDIR);
        result
    }
}

fn make_aside(root: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beside = openat(root, "..", flags, Mode::empty())?;
    let (inner, outer) = (fstat(root)?, fstat(&beside)?);
    if (inner.st_dev, inner.st_ino) == (outer.st_dev, outer.st_ino) {
        // The root of a mount has nothing beside it.
        return Err(Errno::XDEV);
    }
    mkdirat(&beside, ASIDE, Mode::RWXU)?;
    let aside = openat(&beside, ASIDE, flags, Mode::empty())?;
    Ok((beside, aside))
}

/// Makes a directory of this mode, whatever our mask, and opens it.
pub(super) fn make_directory(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    mode: u32,
) -> Result<OwnedFd, Errno> {
    mkdirat(parent, name, Mode::from_raw_mode(mode))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Moves what was lent to where it came from. What the step put in its place stays, to be removed.
fn take_back(place: &Place, lent: &Lent) -> Result<(), Errno> {
    let Some(found) = look(&place.directory, &place.name)? else { return Ok(()) };
    if (found.st_dev, found.st_ino) != lent.object {
        return Ok(());
    }
    let left = modified(place.directory.as_fd())?;
    renameat(&place.directory, &place.name, &lent.within, &lent.name)?;
    set_modified(place.directory.as_fd(), left)
}

fn restore(place: &Place, original: Option<(&OwnedFd, &str)>) -> Result<(), Errno> {
    let directory = &place.directory;
    let left = modified(directory.as_fd())?;
    let owned = directory.try_clone().map_err(|_| Errno::MFILE)?;
    match Dir::from(owned).remove(place.name.as_bytes()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    if let Some((aside, original)) = original {
        match renameat(aside, original, directory, &place.name) {
            // The step removed the directory: what was in it is gone too.
            Err(Errno::NOENT) => {}
            other => other?,
        }
    }
    set_modified(directory.as_fd(), left)
}

fn check_kind(path: &str, found: FileType, wanted: Kind) -> Result<(), Failure> {
    let wanted = match wanted {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
    };
    if (found == FileType::Directory) == (wanted == FileType::Directory) {
        return Ok(());
    }
    let name = |kind| kind_name(kind).to_owned();
    Err(Failure::Kind { path: path.to_owned(), found: name(found), wanted: name(wanted) })
}

/// Looks at a name in a directory, not through a link; `None` where there is nothing.
fn look(parent: impl AsFd, name: &OsStr) -> Result<Option<Stat>, Errno> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
