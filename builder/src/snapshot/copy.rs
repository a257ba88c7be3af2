//! Snapshots without mounts: the whole tree is copied for each step, by reference where the file
//! system can.
//!
//! Every name is laid down as a file of its own, also where several share an inode beneath: what
//! is written through one of them parts it from the others, as in an overlay, so that a layer does
//! not depend on how its snapshot was made.
//!
//! What the step changed is found without reading: whatever is done to an object changes its inode
//! or its ctime, which nobody can set. Those are remembered of all that was laid down. An object
//! that was still young when the last one was, by the clock of the file system, might have changed
//! within the same tick, and counts as changed. All of that is moved into an upper directory such
//! as an overlay's, which the cleaner then compares with what lies beneath, and goes the way of
//! every other.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, SeekFrom, ioctl_ficlone, seek, statat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::clean::{At, CleanError};
use super::overlay::MountError;
use crate::layer::dir::{Dir, Form, Object, ObjectKind};
use crate::layer::entry::{DEPTH_MAX, EntryPath, Kind, is_written_xattr};
use crate::layer::stack::{Beneath, MergedDir, Stack};
use crate::layer::whiteout;

/// What was laid down, as it was then.
#[derive(Debug)]
pub(super) struct Laid {
    root: LaidDir,
    /// When all was laid down, by the clock of the file system.
    end: Time,
}

/// Seconds and nanoseconds.
type Time = (i64, i64);

#[derive(Debug, Default)]
struct LaidDir {
    names: BTreeMap<Vec<u8>, LaidObject>,
}

#[derive(Debug)]
struct LaidObject {
    /// `None` for a device that this process may not make.
    state: Option<State>,
    /// What is in it, if it is a directory.
    directory: Option<LaidDir>,
}

/// What changes when an object changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    inode: u64,
    ctime: Time,
}

/// Copies what lies beneath, and the stubs where nothing does, into an empty directory.
pub(super) fn lay(into: &Path, beneath: &Stack, stubs: &Stack) -> Result<Laid, MountError> {
    let lay = || -> Result<Laid, (EntryPath, io::Error)> {
        let path = EntryPath::root();
        let directory = Dir::open_in(Form::Plain, into).of(&path)?;
        let root = lay_directory(&directory, &path, Some(beneath.root()), Some(stubs.root()))?;
        let end = now(into).map_err(|error| (path, error))?;
        Ok(Laid { root, end })
    };
    lay().map_err(|(path, source)| MountError::Copy { path: path.to_string(), source })
}

/// Asks the file system for the time.
fn now(directory: &Path) -> io::Result<Time> {
    let file = tempfile::tempfile_in(directory)?;
    Ok(time(&rustix::fs::fstat(&file)?))
}

fn time(stat: &rustix::fs::Stat) -> Time {
    (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(i64::MAX))
}

/// Returns the tree as something that can be mounted elsewhere; where nothing can, or shall be, the
/// directory.
pub(super) fn open(merged: &Path, mounted: bool) -> Result<OwnedFd, MountError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = if mounted { open_tree(CWD, merged, flags) } else { Err(Errno::PERM) };
    mount
        .or_else(|_| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(merged, flags, Mode::empty())
        })
        .map_err(|errno| MountError::Open { path: merged.to_owned(), source: errno.into() })
}

type LayResult<T> = Result<T, (EntryPath, io::Error)>;

fn lay_directory(
    into: &Dir,
    path: &EntryPath,
    beneath: Option<&MergedDir>,
    stubs: Option<&MergedDir>,
) -> LayResult<LaidDir> {
    let names = |merged: Option<&MergedDir>| merged.map_or(Ok(Vec::new()), MergedDir::names);
    let mut all = names(beneath).of(path)?;
    all.extend(names(stubs).of(path)?);
    let mut laid = LaidDir::default();
    for name in all {
        if laid.names.contains_key(&name) {
            continue;
        }
        let path = path.join(&name);
        let (found, stub) = (child(beneath, &name).of(&path)?, child(stubs, &name).of(&path)?);
        let object = match (found, stub) {
            (Beneath::Directory(found), Beneath::Directory(stub)) => {
                lay_subdirectory(into, &name, &path, Some(&found), Some(&stub))
            }
            (Beneath::Directory(found), _) => {
                lay_subdirectory(into, &name, &path, Some(&found), None)
            }
            (Beneath::Nothing, Beneath::Directory(stub)) => {
                lay_subdirectory(into, &name, &path, None, Some(&stub))
            }
            (Beneath::Object(from, object), _)
            | (Beneath::Nothing, Beneath::Object(from, object)) => {
                lay_object(into, &name, &from, &object).of(&path)
            }
            (Beneath::Nothing, Beneath::Nothing) => continue,
        }?;
        laid.names.insert(name, object);
    }
    Ok(laid)
}

fn lay_subdirectory(
    into: &Dir,
    name: &[u8],
    path: &EntryPath,
    beneath: Option<&MergedDir>,
    stubs: Option<&MergedDir>,
) -> LayResult<LaidObject> {
    into.make_dir(name).of(path)?;
    let inside = lay_directory(&into.subdir(name).of(path)?, path, beneath, stubs)?;
    if let Some(top) = beneath.and_then(MergedDir::top).or_else(|| stubs.and_then(MergedDir::top)) {
        let object = top.own().of(path)?;
        copy_attributes(into, name, top, b".", &object).of(path)?;
    }
    let state = Some(state(into, name).of(path)?);
    Ok(LaidObject { state, directory: Some(inside) })
}

fn lay_object(into: &Dir, name: &[u8], from: &Dir, object: &Object) -> io::Result<LaidObject> {
    let absent = LaidObject { state: None, directory: None };
    match object.kind {
        ObjectKind::File => copy_content(&from.open_file(name)?, &into.create_file(name)?)?,
        ObjectKind::Symlink => into.make_symlink(name, &from.read_link(name)?)?,
        ObjectKind::CharDevice { major, minor } => {
            if !may_make(into.make_device(name, &Kind::CharDevice { major, minor }))? {
                return Ok(absent);
            }
        }
        ObjectKind::BlockDevice { major, minor } => {
            if !may_make(into.make_device(name, &Kind::BlockDevice { major, minor }))? {
                return Ok(absent);
            }
        }
        ObjectKind::Fifo => into.make_device(name, &Kind::Fifo)?,
        // Layers hold none of these.
        ObjectKind::Socket | ObjectKind::Whiteout | ObjectKind::Directory => return Ok(absent),
    }
    copy_attributes(into, name, from, name, object)?;
    Ok(LaidObject { state: Some(state(into, name)?), directory: None })
}

/// Copies what lies in a directory, with owners, attributes, modes and times.
pub(crate) fn copy_tree(from: &Dir, into: &Dir) -> io::Result<()> {
    for name in from.all_names()? {
        let Some(object) = from.stat(&name)? else { continue };
        if object.kind == ObjectKind::Directory {
            into.make_dir(&name)?;
            copy_tree(&from.subdir(&name)?, &into.subdir(&name)?)?;
            copy_attributes(into, &name, from, &name, &object)?;
        } else {
            lay_object(into, &name, from, &object)?;
        }
    }
    Ok(())
}

fn may_make(made: rustix::io::Result<()>) -> rustix::io::Result<bool> {
    match made {
        Err(Errno::PERM) => Ok(false),
        made => made.map(|()| true),
    }
}

/// Copies a file's bytes: by reference where the file system can, and holes stay holes.
fn copy_content(from: &std::fs::File, to: &std::fs::File) -> io::Result<()> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let size = from.metadata()?.len();
    let mut at = 0;
    while at < size {
        let data = match seek(from, SeekFrom::Data(at)) {
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            // A file system that does not know.
            Err(Errno::INVAL) => at,
            data => data?,
        };
        let end = match seek(from, SeekFrom::Hole(data)) {
            Err(Errno::INVAL) => size,
            end => end?,
        };
        seek(from, SeekFrom::Start(data))?;
        seek(to, SeekFrom::Start(data))?;
        // In the kernel, where both lie on one file system.
        io::copy(&mut io::Read::take(from, end - data), &mut &*to)?;
        at = end;
    }
    to.set_len(size)
}

/// Gives an object the owner, attributes, mode and time of another.
fn copy_attributes(
    into: &Dir,
    name: &[u8],
    from: &Dir,
    from_name: &[u8],
    object: &Object,
) -> rustix::io::Result<()> {
    into.set_owner(name, object.uid, object.gid)?;
    for (xattr, value) in from.xattrs(from_name)? {
        if is_written_xattr(&xattr) || xattr.starts_with(b"system.posix_acl_") {
            into.set_xattr(name, &xattr, &value)?;
        }
    }
    if object.kind != ObjectKind::Symlink {
        into.set_mode(name, object.mode)?;
    }
    into.set_mtime(name, object.mtime)
}

fn state(directory: &Dir, name: &[u8]) -> rustix::io::Result<State> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(State { inode: stat.st_ino, ctime: time(&stat) })
}

fn child(directory: Option<&MergedDir>, name: &[u8]) -> rustix::io::Result<Beneath> {
    directory.map_or(Ok(Beneath::Nothing), |directory| directory.child(name))
}

/// Moves what changed since the tree was laid down into an empty upper directory.
pub(super) fn collect(
    merged: &Path,
    laid: &Laid,
    beneath: &Stack,
    upper: &Dir,
) -> Result<(), CleanError> {
    let path = EntryPath::root();
    let merged = Dir::open_in(Form::Plain, merged).at("open", &path)?;
    let place =
        Place { merged: &merged, upper, path: &path, beneath: Some(beneath.root()), depth: 0 };
    Collector { end: laid.end }.directory(&place, &laid.root)
}

struct Collector {
    end: Time,
}

/// A directory after the step.
struct Place<'a> {
    merged: &'a Dir,
    upper: &'a Dir,
    path: &'a EntryPath,
    beneath: Option<&'a MergedDir>,
    depth: usize,
}

impl Collector {
    fn directory(&self, place: &Place<'_>, laid: &LaidDir) -> Result<(), CleanError> {
        if place.depth > DEPTH_MAX {
            return Err(CleanError::TooDeep { path: place.path.clone() });
        }
        let names = checked_names(place.merged, place.path)?;
        for name in &names {
            self.object(place, name, laid.names.get(name))?;
        }
        for (name, object) in &laid.names {
            if object.state.is_some() && names.binary_search(name).is_err() {
                self.gone(place, name)?;
            }
        }
        Ok(())
    }

    fn object(
        &self,
        place: &Place<'_>,
        name: &[u8],
        laid: Option<&LaidObject>,
    ) -> Result<(), CleanError> {
        let path = place.path.join(name);
        let Some(object) = place.merged.stat(name).at("read", &path)? else { return Ok(()) };
        // Neither has a place in a layer.
        if object.kind == ObjectKind::Whiteout {
            return self.gone(place, name);
        }
        let now = state(place.merged, name).at("read", &path)?;
        let before = laid.and_then(|laid| laid.state);
        if object.kind == ObjectKind::Directory
            && let Some(inside) = laid.and_then(|laid| laid.directory.as_ref())
            && before.is_some_and(|before| before.inode == now.inode)
        {
            return self.same_directory(place, name, &object, inside, self.is_same(before, now));
        }
        if self.is_same(before, now) {
            return Ok(());
        }
        rustix::fs::renameat(place.merged, name, place.upper, name).at("move", &path)?;
        if object.kind == ObjectKind::Directory {
            let moved = place.upper.subdir(name).at("open", &path)?;
            let beneath = child(place.beneath, name).at("look beneath", &path)?;
            hide(&moved, &path, directory(&beneath), place.depth + 1)?;
        }
        Ok(())
    }

    fn is_same(&self, before: Option<State>, now: State) -> bool {
        before == Some(now) && now.ctime < self.end
    }

    /// A directory that was laid down, and is still there.
    fn same_directory(
        &self,
        place: &Place<'_>,
        name: &[u8],
        object: &Object,
        inside: &LaidDir,
        is_same: bool,
    ) -> Result<(), CleanError> {
        let path = place.path.join(name);
        let merged = place.merged.subdir(name).at("open", &path)?;
        place.upper.make_dir(name).at("make", &path)?;
        let upper = place.upper.subdir(name).at("open", &path)?;
        let beneath = child(place.beneath, name).at("look beneath", &path)?;
        let (beneath, depth) = (directory(&beneath), place.depth + 1);
        let below = Place { merged: &merged, upper: &upper, path: &path, beneath, depth };
        self.directory(&below, inside)?;
        if is_same && upper.names().at("list", &path)?.is_empty() {
            return place.upper.remove_dir(name).at("remove", &path);
        }
        copy_attributes(place.upper, name, &merged, b".", object).at("set the attributes of", &path)
    }

    fn gone(&self, place: &Place<'_>, name: &[u8]) -> Result<(), CleanError> {
        let path = place.path.join(name);
        match child(place.beneath, name).at("look beneath", &path)? {
            Beneath::Nothing => Ok(()),
            _ => place.upper.make_whiteout(name).at("make the whiteout of", &path),
        }
    }
}

fn directory(beneath: &Beneath) -> Option<&MergedDir> {
    match beneath {
        Beneath::Directory(directory) => Some(directory),
        _ => None,
    }
}

/// Hides, in a directory that is new as a whole, what lies beneath it; and removes the sockets.
fn hide(
    new: &Dir,
    path: &EntryPath,
    beneath: Option<&MergedDir>,
    depth: usize,
) -> Result<(), CleanError> {
    if depth > DEPTH_MAX {
        return Err(CleanError::TooDeep { path: path.clone() });
    }
    let mtime = new.own().at("read", path)?.mtime;
    let names = checked_names(new, path)?;
    for name in &names {
        let path = path.join(name);
        match new.stat(name).at("read", &path)?.map(|object| object.kind) {
            Some(ObjectKind::Whiteout) => new.unlink(name).at("remove", &path)?,
            Some(ObjectKind::Directory) => {
                let beneath = child(beneath, name).at("look beneath", &path)?;
                let inside = new.subdir(name).at("open", &path)?;
                hide(&inside, &path, directory(&beneath), depth + 1)?;
            }
            _ => {}
        }
    }
    let hidden = beneath.map_or(Ok(Vec::new()), MergedDir::names).at("look beneath", path)?;
    for name in hidden {
        if new.stat(&name).at("read", path)?.is_none() {
            new.make_whiteout(&name).at("make the whiteout of", &path.join(&name))?;
        }
    }
    new.set_own_mtime(mtime).at("set the time of", path)
}

/// Returns the names in a directory that the step wrote, none of which may mean something to us.
fn checked_names(directory: &Dir, path: &EntryPath) -> Result<Vec<Vec<u8>>, CleanError> {
    let names = directory.all_names().at("list", path)?;
    match names.iter().find(|name| whiteout::is_reserved(name)) {
        Some(name) => Err(CleanError::Reserved(path.join(name))),
        None => Ok(names),
    }
}

/// Names the object when the kernel refuses.
trait Of<T> {
    fn of(self, path: &EntryPath) -> LayResult<T>;
}

impl<T, E: Into<io::Error>> Of<T> for Result<T, E> {
    fn of(self, path: &EntryPath) -> LayResult<T> {
        self.map_err(|error| (path.clone(), error.into()))
    }
}
