//! Cleaning an upper directory until it is what its archive would unpack to.
//!
//! Overlayfs leaves more in it than the step changed: files that were copied up and changed back,
//! whiteouts of things that nobody beneath has, directories marked as opaque, attributes of its own,
//! copies of the mount points beneath. What stays is what an archive says, in one form:
//!
//! - An entry that equals what lies beneath goes, unless it is a directory above one that stays, or
//!   shares an inode with one. Equal times do not prove equal content: that is compared too.
//! - Opaque directories become whiteouts of the names that are gone: every reader of layers agrees
//!   on those, and what was removed and made again as it was is no change.
//! - Whiteouts stay where something lies beneath. What only the stubs have leaves no trace.
//! - Times are whole seconds; attributes that no layer holds are removed, and so
//!   are sockets.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

use rustix::io::Errno;
use thiserror::Error;

use crate::layer::dir::{Dir, Object, ObjectKind};
use crate::layer::entry::{DEPTH_MAX, EntryPath, Mtime, PATH_BYTES_MAX, Xattrs, is_written_xattr};
use crate::layer::stack::{Beneath, MergedDir, Stack};
use crate::layer::whiteout;

const REDIRECTS: [&[u8]; 2] = [b"trusted.overlay.redirect", b"user.overlay.redirect"];
const COMPARE_BYTES: usize = 64 << 10;

/// Why an upper directory cannot be made into a layer.
#[derive(Debug, Error)]
pub enum CleanError {
    /// The name is one that layers use for whiteouts.
    #[error(
        "{0} cannot be part of an image: names that start with `.wh.` mark what a layer removes"
    )]
    Reserved(EntryPath),
    /// Deeper than any layer that we would unpack again.
    #[error("{path} is nested more than {DEPTH_MAX} directories deep")]
    TooDeep {
        /// The directory.
        path: EntryPath,
    },
    /// Overlayfs moved a directory without its content; our mounts forbid that.
    #[error("{0} was renamed by the kernel in a way that cannot be read")]
    Redirected(EntryPath),
    /// The file system refused.
    #[error("cannot {action} {path}")]
    Object {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: EntryPath,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Cleans an upper directory, and returns what stays in it with a time that came along from a layer
/// beneath which is not one of `base`. Nothing may have it mounted any more.
pub(super) fn clean(
    upper: &Dir,
    beneath: &Stack,
    base: &Stack,
    stubs: &Stack,
) -> Result<HashSet<EntryPath>, CleanError> {
    let (directories, links, inherited) = (Vec::new(), HashMap::new(), HashSet::new());
    let mut cleaner = Cleaner { upper, directories, links, inherited };
    let root = Place {
        directory: upper,
        path: &EntryPath::root(),
        beneath: Some(beneath.root()),
        base: Some(base.root()),
        stubs: Some(stubs.root()),
        hidden: false,
    };
    cleaner.directory(&root)?;
    cleaner.finish_links()?;
    cleaner.finish_directories()?;
    cleaner.reset_root()?;
    Ok(cleaner.inherited)
}

struct Cleaner<'a> {
    upper: &'a Dir,
    /// Those inside before those around them.
    directories: Vec<Directory>,
    /// By device and inode number.
    links: HashMap<(u64, u64), Links>,
    inherited: HashSet<EntryPath>,
}

/// A directory of the upper one, and what lies beneath it.
struct Place<'a> {
    directory: &'a Dir,
    path: &'a EntryPath,
    beneath: Option<&'a MergedDir>,
    /// What of it the base image brought.
    base: Option<&'a MergedDir>,
    stubs: Option<&'a MergedDir>,
    /// Whether what lies beneath is hidden by an opaque directory, this one or one around it.
    hidden: bool,
}

/// A directory whose time is set, or that goes, once its content is final.
struct Directory {
    path: EntryPath,
    mtime: Mtime,
    goes_if_empty: bool,
}

/// The names of one inode.
#[derive(Default)]
struct Links {
    names: Vec<EntryPath>,
    changed: bool,
    inherits: bool,
    /// The inodes beneath: more than one means that the step linked what was separate.
    beneath: HashSet<(u64, u64)>,
    /// Set once all names were compared.
    mtime: Mtime,
}

impl Cleaner<'_> {
    fn directory(&mut self, place: &Place<'_>) -> Result<(), CleanError> {
        let path = place.path;
        if path.components().count() > DEPTH_MAX || path.as_bytes().len() > PATH_BYTES_MAX {
            return Err(CleanError::TooDeep { path: path.clone() });
        }
        let names = place.directory.names().at("list", place.path)?;
        for name in &names {
            self.object(place, name)?;
        }
        if !place.hidden {
            return Ok(());
        }
        let Some(beneath) = place.beneath else { return Ok(()) };
        for name in beneath.names().at("list what lies beneath", place.path)? {
            if names.binary_search(&name).is_err() {
                let path = place.path.join(&name);
                place.directory.make_whiteout(&name).at("make the whiteout of", &path)?;
            }
        }
        Ok(())
    }

    fn object(&mut self, place: &Place<'_>, name: &[u8]) -> Result<(), CleanError> {
        let path = place.path.join(name);
        let Some(object) = place.directory.stat(name).at("read", &path)? else { return Ok(()) };
        let beneath = child(place.beneath, name).at("look beneath", &path)?;
        let stub = child(place.stubs, name).at("look beneath", &path)?;
        match object.kind {
            ObjectKind::Whiteout if matches!(beneath, Beneath::Nothing) => {
                place.directory.unlink(name).at("remove", &path)
            }
            ObjectKind::Whiteout => Ok(()),
            ObjectKind::Socket => {
                place.directory.unlink(name).at("remove", &path)?;
                match beneath {
                    Beneath::Nothing => Ok(()),
                    _ => place.directory.make_whiteout(name).at("make the whiteout of", &path),
                }
            }
            _ if whiteout::is_reserved(name) => Err(CleanError::Reserved(path)),
            ObjectKind::Directory => self.subdirectory(place, name, &object, &beneath, &stub),
            _ => self.leaf(place, name, &object, &beneath, &stub),
        }
    }

    fn subdirectory(
        &mut self,
        place: &Place<'_>,
        name: &[u8],
        object: &Object,
        beneath: &Beneath,
        stub: &Beneath,
    ) -> Result<(), CleanError> {
        let path = place.path.join(name);
        let directory = place.directory.subdir(name).at("open", &path)?;
        let opaque = directory.is_opaque().at("read", &path)?;
        let xattrs = self.written_xattrs(place, name, &path)?;
        let merged = |beneath: &Beneath| match beneath {
            Beneath::Directory(merged) => Some(merged.clone()),
            _ => None,
        };
        let base = child(place.base, name).at("look beneath", &path)?;
        let (lower, lower_base, stubs) = (merged(beneath), merged(&base), merged(stub));
        let inside = Place {
            directory: &directory,
            path: &path,
            beneath: lower.as_ref(),
            base: lower_base.as_ref(),
            stubs: stubs.as_ref(),
            hidden: opaque || (place.hidden && lower.is_some()),
        };
        self.directory(&inside)?;
        let goes_if_empty = match (lower.as_ref().and_then(MergedDir::top), stubs) {
            (Some(top), _) => {
                let below = top.own().at("read beneath", &path)?;
                let below_xattrs = written(top.xattrs(b".").at("read beneath", &path)?);
                if inherits(object, &below, &base).at("read beneath", &path)? {
                    self.inherited.insert(path.clone());
                }
                same_attributes(object, &below) && xattrs == below_xattrs
            }
            (None, stubs) => stubs.is_some() && matches!(beneath, Beneath::Nothing),
        };
        let mtime = Mtime::from_seconds(object.mtime.seconds);
        self.directories.push(Directory { path, mtime, goes_if_empty });
        Ok(())
    }

    fn leaf(
        &mut self,
        place: &Place<'_>,
        name: &[u8],
        object: &Object,
        beneath: &Beneath,
        stub: &Beneath,
    ) -> Result<(), CleanError> {
        let path = place.path.join(name);
        let xattrs = self.written_xattrs(place, name, &path)?;
        let (unchanged, identity) = match (beneath, stub) {
            (Beneath::Object(lower, below), _) => {
                let pair = Pair { upper: place.directory, lower, name, object, below };
                let below_xattrs = || lower.xattrs(name).map(written);
                let unchanged = same_attributes(object, below)
                    && xattrs == below_xattrs().at("read beneath", &path)?
                    && pair.same_content().at("compare", &path)?;
                (unchanged, Some(below.identity))
            }
            (Beneath::Nothing, Beneath::Object(lower, below)) => {
                let pair = Pair { upper: place.directory, lower, name, object, below };
                (pair.same_content().at("compare", &path)?, Some(below.identity))
            }
            _ => (false, None),
        };
        let inherits = match beneath {
            Beneath::Object(_, below) => {
                let base = child(place.base, name).at("look beneath", &path)?;
                inherits(object, below, &base).at("read beneath", &path)?
            }
            _ => false,
        };
        let mtime = Mtime::from_seconds(object.mtime.seconds);
        if object.has_other_names {
            let links = self.links.entry(object.identity).or_default();
            links.names.push(path);
            links.changed |= !unchanged;
            links.inherits |= inherits;
            links.beneath.extend(identity);
            links.mtime = mtime;
            return Ok(());
        }
        if unchanged {
            return place.directory.unlink(name).at("remove", &path);
        }
        if inherits {
            self.inherited.insert(path.clone());
        }
        place.directory.set_mtime(name, mtime).at("set the time of", &path)
    }

    /// Removes the attributes that no layer holds, and returns the others.
    fn written_xattrs(
        &self,
        place: &Place<'_>,
        name: &[u8],
        path: &EntryPath,
    ) -> Result<Xattrs, CleanError> {
        let xattrs = place.directory.xattrs(name).at("read", path)?;
        for foreign in xattrs.keys().filter(|xattr| !is_written_xattr(xattr)) {
            if REDIRECTS.contains(&foreign.as_slice()) {
                return Err(CleanError::Redirected(path.clone()));
            }
            match place.directory.remove_xattr(name, foreign) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                // The host's labels are the host's: every object has one.
                Err(Errno::PERM | Errno::ACCESS) if foreign.starts_with(b"security.") => {}
                Err(errno) => return Err(errno).at("remove a foreign attribute of", path),
            }
        }
        Ok(written(xattrs))
    }

    /// Removes inodes that are, under all their names, what lies beneath.
    fn finish_links(&mut self) -> Result<(), CleanError> {
        for links in std::mem::take(&mut self.links).into_values() {
            let stays = links.changed || links.beneath.len() != 1;
            for path in &links.names {
                let (parent, name) = self.parent(path)?;
                if stays {
                    if links.inherits {
                        self.inherited.insert(path.clone());
                    }
                    parent.set_mtime(&name, links.mtime).at("set the time of", path)?;
                } else {
                    parent.unlink(&name).at("remove", path)?;
                }
            }
        }
        Ok(())
    }

    fn parent(&self, path: &EntryPath) -> Result<(Dir, Vec<u8>), CleanError> {
        let parent = path.parent().unwrap_or_default();
        let directory = self.upper.descend(&parent).at("open", &parent)?;
        Ok((directory, path.name().unwrap_or_default().to_vec()))
    }

    fn finish_directories(&mut self) -> Result<(), CleanError> {
        for Directory { path, mtime, goes_if_empty } in &self.directories {
            let (parent, name) = self.parent(path)?;
            if *goes_if_empty {
                match parent.remove_dir(&name) {
                    Ok(()) => continue,
                    Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                    Err(errno) => return Err(errno).at("remove", path),
                }
            }
            parent.set_mtime(&name, *mtime).at("set the time of", path)?;
        }
        Ok(())
    }

    /// No archive of ours has an entry of the root, so its attributes are not the layer's.
    fn reset_root(&self) -> Result<(), CleanError> {
        let root = EntryPath::root();
        let reset = || -> rustix::io::Result<()> {
            for xattr in self.upper.xattrs(b".")?.keys() {
                match self.upper.remove_xattr(b".", xattr) {
                    Err(Errno::PERM | Errno::ACCESS) if xattr.starts_with(b"security.") => {}
                    removed => removed?,
                }
            }
            self.upper.set_owner(b".", 0, 0)?;
            self.upper.set_mode(b".", 0o755)?;
            self.upper.set_own_mtime(Mtime::default())
        };
        reset().at("reset the attributes of", &root)
    }
}

/// Two objects of one name.
struct Pair<'a> {
    upper: &'a Dir,
    lower: &'a Dir,
    name: &'a [u8],
    object: &'a Object,
    below: &'a Object,
}

impl Pair<'_> {
    fn same_content(&self) -> rustix::io::Result<bool> {
        if self.object.kind != self.below.kind {
            return Ok(false);
        }
        match self.object.kind {
            ObjectKind::Symlink => {
                Ok(self.upper.read_link(self.name)? == self.lower.read_link(self.name)?)
            }
            ObjectKind::File if self.object.size != self.below.size => Ok(false),
            ObjectKind::File => {
                let files = (self.upper.open_file(self.name)?, self.lower.open_file(self.name)?);
                same_bytes(files.0, files.1)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            }
            _ => Ok(true),
        }
    }
}

fn same_bytes(left: impl Read, right: impl Read) -> io::Result<bool> {
    let mut left = io::BufReader::with_capacity(COMPARE_BYTES, left);
    let mut right = io::BufReader::with_capacity(COMPARE_BYTES, right);
    loop {
        let (one, other) = (io::BufRead::fill_buf(&mut left)?, io::BufRead::fill_buf(&mut right)?);
        let length = one.len().min(other.len());
        if length == 0 {
            return Ok(one.len() == other.len());
        }
        if one[..length] != other[..length] {
            return Ok(false);
        }
        io::BufRead::consume(&mut left, length);
        io::BufRead::consume(&mut right, length);
    }
}

/// Compares what an archive would say of both. What lies beneath has whole seconds, so what was
/// written anew differs, even within the same second and under whatever epoch.
fn same_attributes(object: &Object, below: &Object) -> bool {
    let same_mode = object.kind == ObjectKind::Symlink || object.mode == below.mode;
    object.kind == below.kind
        && same_mode
        && object.mtime == below.mtime
        && (object.uid, object.gid) == (below.uid, below.gid)
}

/// Says whether an object has the time of what lies beneath, which is none of the base's: `base` is
/// what that has in its place. The step did not choose it, and the step that did may have meant now.
fn inherits(object: &Object, below: &Object, base: &Beneath) -> rustix::io::Result<bool> {
    if object.kind != below.kind || object.mtime != below.mtime {
        return Ok(false);
    }
    let identity = match base {
        Beneath::Nothing => None,
        Beneath::Object(_, object) => Some(object.identity),
        Beneath::Directory(merged) => {
            merged.top().map(Dir::own).transpose()?.map(|own| own.identity)
        }
    };
    Ok(identity != Some(below.identity))
}

fn child(directory: Option<&MergedDir>, name: &[u8]) -> rustix::io::Result<Beneath> {
    directory.map_or(Ok(Beneath::Nothing), |directory| directory.child(name))
}

fn written(mut xattrs: Xattrs) -> Xattrs {
    xattrs.retain(|name, _| is_written_xattr(name));
    xattrs
}

/// Names what was tried, and on what, when the kernel refuses.
pub(super) trait At<T> {
    /// Adds what was tried, and on what.
    fn at(self, action: &'static str, path: &EntryPath) -> Result<T, CleanError>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, action: &'static str, path: &EntryPath) -> Result<T, CleanError> {
        self.map_err(|errno| {
            let (path, source) = (path.clone(), errno.into());
            CleanError::Object { action, path, source }
        })
    }
}
