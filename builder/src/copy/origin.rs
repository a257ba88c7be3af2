//! The trees that are copied from, as [`select`](super::select()) reads them.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, major, minor, openat2, readlinkat, statat,
};
use rustix::io::Errno;

use super::{At as _, CopyError};
use crate::contents::growing::{Node, What};
use crate::contents::resolve::{Lies, Names};
use crate::contents::view::{Attributes, Shown, View, ViewDir};
use crate::context::directory::Directory;
use crate::context::ignore::Matched;
use crate::layer::entry::{DEPTH_MAX, is_written_xattr};
use crate::layer::{EntryPath, Kind};

/// Where a row of a selection came from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Note {
    /// The source that it belongs to.
    pub(super) source: u32,
    /// The layer that has it.
    pub(super) layer: u32,
    /// Its number among the files to be hashed, plus 1.
    pub(super) to_hash: u32,
}

/// A tree that is copied from.
pub(super) trait Origin: Names<Error = CopyError> {
    /// Returns the names in a directory, sorted.
    fn names(&self, directory: &EntryPath) -> Result<Vec<Vec<u8>>, CopyError>;

    /// Says whether the path, or something below it, may be copied.
    fn is_visible(&self, path: &EntryPath, is_directory: bool) -> Result<bool, CopyError>;

    /// Reads a directory without what is in it; `None` where there is none.
    fn directory(&self, path: &EntryPath, load: &Load) -> Result<Option<Node<Note>>, CopyError>;

    /// Reads what lies at a path that leads through directories only, with all below it.
    fn load(&self, path: &EntryPath, load: &mut Load) -> Result<Option<Node<Note>>, CopyError>;
}

/// What is common to all that a selection reads.
#[derive(Default)]
pub(super) struct Load {
    /// The number of the source that is read.
    pub(super) source: u32,
    /// The files of a context that were met, to be hashed.
    pub(super) files: Vec<ToHash>,
    /// Names of one object, by device and inode or by layer and first name.
    groups: HashMap<Object, u32>,
}

/// A file to be hashed.
pub(super) struct ToHash {
    pub(super) path: EntryPath,
    pub(super) stat: Stat,
}

#[derive(PartialEq, Eq, Hash)]
enum Object {
    Inode(u64, u64),
    FirstName(usize, EntryPath),
}

impl Load {
    fn group(&mut self, object: Object) -> u32 {
        let next = u32::try_from(self.groups.len() + 1).unwrap_or(u32::MAX);
        *self.groups.entry(object).or_insert(next)
    }
}

/// A build context, or one of which nothing is hidden.
#[derive(Clone, Copy)]
pub(super) struct ContextTree<'a> {
    pub(super) directory: &'a Directory,
    pub(super) sees_all: bool,
}

/// Opens something of a context; no link in its path is followed.
pub(super) fn open_in_context(
    context: &Directory,
    path: &EntryPath,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let name = if path.is_root() { b"." } else { path.as_bytes() };
    openat2(context.fd(), name, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Opens a regular file of a context, to be read.
pub(super) fn open_file_in_context(context: &Directory, path: &EntryPath) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(open_in_context(context, path, flags)?))
}

impl Names for ContextTree<'_> {
    type Error = CopyError;

    fn look(&self, path: &EntryPath) -> Result<Lies, CopyError> {
        let Some(name) = path.name() else { return Ok(Lies::Directory) };
        let parent = path.parent().unwrap_or_default();
        let parent = self.open_directory(&parent)?;
        let Some(stat) = look(&parent, name).at("look at", text(path))? else {
            return Ok(Lies::Nothing);
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Lies::Directory,
            // What is ignored leads nowhere, either.
            FileType::Symlink if !self.is_visible(path, false)? => Lies::Nothing,
            FileType::Symlink => {
                let target = readlinkat(&parent, name, Vec::new());
                Lies::Link(target.at("read the link", text(path))?.into_bytes())
            }
            _ => Lies::Other,
        })
    }
}

impl Origin for ContextTree<'_> {
    fn names(&self, directory: &EntryPath) -> Result<Vec<Vec<u8>>, CopyError> {
        names(self.open_directory(directory)?).at("list", text(directory))
    }

    fn is_visible(&self, path: &EntryPath, is_directory: bool) -> Result<bool, CopyError> {
        let patterns = self.directory.patterns();
        let name = text(path).to_string_lossy();
        if self.sees_all || patterns.is_empty() || !patterns.matches(&name, is_directory) {
            return Ok(true);
        }
        if !is_directory || !patterns.may_descend(&name) {
            return Ok(false);
        }
        let mut visible = false;
        let matched = self.matched(path);
        for name in self.names(path)? {
            let below = path.join(&name);
            let is_directory = self.look(&below)? == Lies::Directory;
            let text = text(&below).to_string_lossy();
            visible = visible
                || !patterns.matches_in(&text, &matched)
                || (is_directory && self.is_visible(&below, true)?);
        }
        Ok(visible)
    }

    fn directory(&self, path: &EntryPath, load: &Load) -> Result<Option<Node<Note>>, CopyError> {
        let directory = self.open_directory(path)?;
        let stat = rustix::fs::fstat(&directory).at("look at", text(path))?;
        let what = What::Directory { opaque: false, implicit: false };
        let note = Note { source: load.source, ..Note::default() };
        Ok(Some(Node { note, ..context_node(what, &stat) }))
    }

    fn load(&self, path: &EntryPath, load: &mut Load) -> Result<Option<Node<Note>>, CopyError> {
        let Some(name) = path.name() else {
            let directory = self.open_directory(path)?;
            let stat = rustix::fs::fstat(&directory).at("look at", text(path))?;
            let mut node = context_node(What::Directory { opaque: false, implicit: false }, &stat);
            node.children = self.children(&directory, path, &self.matched(path), load)?;
            return Ok(Some(node));
        };
        let parent_path = path.parent().unwrap_or_default();
        let parent = self.open_directory(&parent_path)?;
        self.object(&parent, name, path, &self.matched(&parent_path), load)
    }
}

impl ContextTree<'_> {
    fn open_directory(&self, path: &EntryPath) -> Result<OwnedFd, CopyError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        open_in_context(self.directory, path, flags).at("open", text(path))
    }

    /// Returns which lines of the ignore file match a directory.
    fn matched(&self, directory: &EntryPath) -> Matched {
        let patterns = self.directory.patterns();
        let mut path = EntryPath::root();
        directory.components().fold(patterns.root(), |matched, name| {
            path = path.join(name);
            patterns.enter(&text(&path).to_string_lossy(), &matched)
        })
    }

    fn children(
        &self,
        directory: &OwnedFd,
        path: &EntryPath,
        matched: &Matched,
        load: &mut Load,
    ) -> Result<BTreeMap<Box<[u8]>, Node<Note>>, CopyError> {
        if path.components().count() >= DEPTH_MAX {
            return Err(CopyError::TooDeep { path: path.to_string() });
        }
        let mut children = BTreeMap::new();
        for name in names(directory).at("list", text(path))? {
            let below = path.join(&name);
            if let Some(node) = self.object(directory, &name, &below, matched, load)? {
                children.insert(name.into(), node);
            }
        }
        Ok(children)
    }

    /// Reads one object; `None` where nothing of it can be seen or copied.
    fn object(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        path: &EntryPath,
        matched: &Matched,
        load: &mut Load,
    ) -> Result<Option<Node<Note>>, CopyError> {
        let Some(stat) = look(parent, name).at("look at", text(path))? else { return Ok(None) };
        let patterns = self.directory.patterns();
        let filters = !self.sees_all && !patterns.is_empty();
        let shown = text(path).to_string_lossy();
        let hidden = filters && patterns.matches_in(&shown, matched);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if hidden && kind != FileType::Directory {
            return Ok(None);
        }
        let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
        let what = match kind {
            FileType::Directory => {
                let inside =
                    if filters { patterns.enter(&shown, matched) } else { matched.clone() };
                if hidden && !patterns.may_descend_in(&shown, &inside) {
                    return Ok(None);
                }
                let directory = super::open_directory(parent, OsStr::from_bytes(name))
                    .at("open", text(path))?;
                let children = self.children(&directory, path, &inside, load)?;
                if hidden && children.is_empty() {
                    return Ok(None);
                }
                let what = What::Directory { opaque: false, implicit: false };
                let note = Note { source: load.source, ..Note::default() };
                return Ok(Some(Node { children, note, ..context_node(what, &stat) }));
            }
            FileType::RegularFile => What::File,
            FileType::Symlink => {
                let target = readlinkat(parent, name, Vec::new());
                let target = target.at("read the link", text(path))?.into_bytes();
                What::Symlink(target.into())
            }
            FileType::CharacterDevice => What::CharDevice(major, minor),
            FileType::BlockDevice => What::BlockDevice(major, minor),
            FileType::Fifo => What::Fifo,
            _ => return Ok(None),
        };
        let mut node = context_node(what, &stat);
        node.note.source = load.source;
        if node.what == What::File {
            node.size = u64::try_from(stat.st_size).unwrap_or_default();
            if stat.st_nlink > 1 {
                node.group = load.group(Object::Inode(stat.st_dev, stat.st_ino));
            }
            load.files.push(ToHash { path: path.clone(), stat });
            node.note.to_hash = u32::try_from(load.files.len()).unwrap_or(u32::MAX);
        }
        Ok(Some(node))
    }
}

/// A context's owners and extended attributes mean nothing in an image.
fn context_node(what: What, stat: &Stat) -> Node<Note> {
    Node { seconds: stat.st_mtime, ..Node::new(what, stat.st_mode & 0o7777) }
}

fn look(parent: impl AsFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn names(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    use std::os::unix::ffi::OsStringExt;
    Ok(super::names(directory)?.into_iter().map(OsStringExt::into_vec).collect())
}

/// A stage or an image.
pub(super) struct StackTree<'a>(pub(super) &'a View);

impl Names for StackTree<'_> {
    type Error = CopyError;

    fn look(&self, path: &EntryPath) -> Result<Lies, CopyError> {
        let Ok(lies) = self.0.look(path);
        Ok(lies)
    }
}

impl Origin for StackTree<'_> {
    fn names(&self, directory: &EntryPath) -> Result<Vec<Vec<u8>>, CopyError> {
        Ok(self.0.names(directory))
    }

    fn is_visible(&self, _path: &EntryPath, _is_directory: bool) -> Result<bool, CopyError> {
        Ok(true)
    }

    fn directory(&self, path: &EntryPath, load: &Load) -> Result<Option<Node<Note>>, CopyError> {
        let directory = self.0.get(path);
        Ok(directory.map(|seen| directory_node(&Attributes::of(seen.row), load)))
    }

    fn load(&self, path: &EntryPath, load: &mut Load) -> Result<Option<Node<Note>>, CopyError> {
        let mut links = Vec::new();
        let shown = match path.is_root() {
            true => {
                let (directory, row) = self.0.root();
                let mut node = directory_node(&Attributes::of(row), load);
                node.children = stack_children(&directory, path, load, &mut links)?;
                Some(node)
            }
            false => stack_object(self.0.shown(path), path, load, &mut links)?,
        };
        let Some(mut node) = shown else { return Ok(None) };
        // The first name does not say that there are others.
        for (layer, first, group) in links {
            let below =
                EntryPath::parse(first.as_bytes().strip_prefix(path.as_bytes()).unwrap_or(b""));
            let below = below.unwrap_or_default();
            let first = if first.starts_with(path) { node.get_mut(&below) } else { None };
            if let Some(first) =
                first.filter(|first| first.what == What::File && first.note.layer as usize == layer)
            {
                first.group = group;
            }
        }
        Ok(Some(node))
    }
}

type Links = Vec<(usize, EntryPath, u32)>;

fn stack_children(
    directory: &ViewDir<'_>,
    path: &EntryPath,
    load: &mut Load,
    links: &mut Links,
) -> Result<BTreeMap<Box<[u8]>, Node<Note>>, CopyError> {
    let mut children = BTreeMap::new();
    for (name, shown) in directory.children() {
        if let Some(node) = stack_object(shown, &path.join(name), load, links)? {
            children.insert(name.into(), node);
        }
    }
    Ok(children)
}

fn stack_object(
    shown: Shown<'_>,
    path: &EntryPath,
    load: &mut Load,
    links: &mut Links,
) -> Result<Option<Node<Note>>, CopyError> {
    let (layer, row) = match shown {
        Shown::Nothing => return Ok(None),
        Shown::Directory(directory) => {
            let row = directory.top().map(|(_, row)| row);
            let mut node = directory_node(&Attributes::of(row), load);
            node.children = stack_children(&directory, path, load, links)?;
            return Ok(Some(node));
        }
        Shown::Object(layer, row) => (layer, row),
    };
    let kind = row.kind();
    if let Kind::HardLink { target } = &kind {
        let source = io::Error::other(format!("it is a hard link to {target}, which no layer has"));
        return Err(source).at("copy", text(path));
    }
    let mut entry = row.entry(path.clone());
    let is_file = kind == Kind::File;
    entry.xattrs.retain(|name, _| is_file && is_written_xattr(name));
    (entry.kind, entry.size) = (kind, row.size());
    let mut node = Node::of(&entry, &row.content());
    node.note =
        Note { source: load.source, layer: u32::try_from(layer).unwrap_or_default(), to_hash: 0 };
    if let Some(first) = row.hard_link().filter(|_| is_file) {
        node.group = load.group(Object::FirstName(layer, first.clone()));
        links.push((layer, first, node.group));
    }
    Ok(Some(node))
}

fn directory_node(attributes: &Attributes, load: &Load) -> Node<Note> {
    let mut xattrs = attributes.xattrs.clone();
    xattrs.retain(|name, _| is_written_xattr(name));
    Node {
        uid: attributes.uid,
        gid: attributes.gid,
        seconds: attributes.mtime.seconds,
        xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
        note: Note { source: load.source, ..Note::default() },
        ..Node::new(What::Directory { opaque: false, implicit: false }, attributes.mode)
    }
}

pub(super) fn text(path: &EntryPath) -> &OsStr {
    OsStr::from_bytes(path.as_bytes())
}
