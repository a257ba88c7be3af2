//! Writing a cleaned upper directory as a layer: everything in it is an entry, in a sorted walk.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};

use crate::contents::Table;
use crate::layer::dir::{Dir, Object, ObjectKind};
use crate::layer::entry::{Entry, EntryPath, Kind, Mtime, is_written_xattr};
use crate::layer::{LayerWriter, WriteError, WriteOptions, Written};

/// Writes the archive of a cleaned upper directory, and records its table. `inherited` are the paths
/// whose times are those of the layers beneath. Where times become others
/// than they were, the directory's become so too.
pub(crate) fn write<W: Write>(
    upper: &Dir,
    sink: W,
    options: WriteOptions,
    inherited: HashSet<EntryPath>,
) -> Result<(Written, Option<Table>), WriteError> {
    let restamps = !options.restamp.is_as_made();
    archive(upper, sink, options, restamps, inherited)
}

/// Writes the archive of a tree, which stays as it is, and records its table.
pub(crate) fn read<W: Write>(
    tree: &Dir,
    sink: W,
    options: WriteOptions,
) -> Result<(Written, Option<Table>), WriteError> {
    archive(tree, sink, options, false, HashSet::new())
}

fn archive<W: Write>(
    upper: &Dir,
    sink: W,
    options: WriteOptions,
    restamps: bool,
    inherited: HashSet<EntryPath>,
) -> Result<(Written, Option<Table>), WriteError> {
    let writer = LayerWriter::new(sink, options);
    let mut walk = Walk { writer, restamps, inherited, first_names: HashMap::new() };
    walk.directory(upper, &EntryPath::root())?;
    walk.writer.finish_with_table().map(|(_, written, table)| (written, table))
}

struct Walk<W> {
    writer: LayerWriter<W>,
    restamps: bool,
    /// What has its time from the layers beneath.
    inherited: HashSet<EntryPath>,
    /// The first path of each inode that has several, which carries the content, and its time.
    first_names: HashMap<(u64, u64), (EntryPath, Mtime)>,
}

impl<W: Write> Walk<W> {
    fn directory(&mut self, directory: &Dir, path: &EntryPath) -> Result<(), WriteError> {
        let mut objects = Vec::new();
        for name in directory.names().at(path)? {
            if let Some(object) = directory.stat(&name).at(path)? {
                objects.push((name, object));
            }
        }
        // Whiteouts come first; the sort is stable, and each half stays sorted by name.
        objects.sort_by_key(|(_, object)| object.kind != ObjectKind::Whiteout);
        for (name, object) in objects {
            self.object(directory, &name, &path.join(&name), &object)?;
        }
        Ok(())
    }

    fn object(
        &mut self,
        directory: &Dir,
        name: &[u8],
        path: &EntryPath,
        object: &Object,
    ) -> Result<(), WriteError> {
        let Some(kind) = self.kind(directory, name, path, object).at(path)? else { return Ok(()) };
        let mut entry = Entry::new(path.clone(), kind, 0);
        let is_whiteout = entry.kind == Kind::Whiteout;
        if !is_whiteout {
            (entry.mode, entry.uid, entry.gid) = (object.mode, object.uid, object.gid);
            // Under its first name it may have got another one.
            let first = self.first_names.get(&object.identity).filter(|_| object.has_other_names);
            entry.mtime = first.map_or(object.mtime, |(_, mtime)| *mtime);
            entry.xattrs = directory.xattrs(name).at(path)?;
            entry.xattrs.retain(|name, _| is_written_xattr(name));
        }
        if entry.kind == Kind::File {
            entry.size = object.size;
            let mut file = directory.open_file(name).at(path)?;
            let stamp = self.append(entry, &mut file)?;
            return self.restamp(directory, name, path, stamp);
        }
        let is_directory = entry.kind == Kind::Directory;
        let stamp = self.append(entry, &mut io::empty())?;
        if !is_whiteout {
            self.restamp(directory, name, path, stamp)?;
        }
        if is_directory {
            self.directory(&directory.subdir(name).at(path)?, path)?;
        }
        Ok(())
    }

    /// Returns what the object is in an archive; `None` for a socket, which has no place in one.
    fn kind(
        &mut self,
        directory: &Dir,
        name: &[u8],
        path: &EntryPath,
        object: &Object,
    ) -> rustix::io::Result<Option<Kind>> {
        // Overlayfs makes all its whiteouts one inode; they are no hard links of the image.
        let linkable = !matches!(object.kind, ObjectKind::Directory | ObjectKind::Whiteout);
        if object.has_other_names && linkable {
            if let Some((first, _)) = self.first_names.get(&object.identity) {
                return Ok(Some(Kind::HardLink { target: first.clone() }));
            }
            self.first_names.insert(object.identity, (path.clone(), object.mtime));
        }
        Ok(Some(match object.kind {
            ObjectKind::File => Kind::File,
            ObjectKind::Directory => Kind::Directory,
            ObjectKind::Symlink => Kind::Symlink { target: directory.read_link(name)? },
            ObjectKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            ObjectKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
            ObjectKind::Fifo => Kind::Fifo,
            ObjectKind::Whiteout => Kind::Whiteout,
            ObjectKind::Socket => return Ok(None),
        }))
    }

    /// Writes an entry, and returns the time that it got.
    fn append(&mut self, entry: Entry, content: &mut dyn Read) -> Result<Mtime, WriteError> {
        if self.inherited.contains(&entry.path) {
            self.writer.inherit_next();
        }
        let stamp = self.writer.stamp(&entry);
        self.writer.append(entry, content).map(|_| stamp)
    }

    fn restamp(
        &self,
        directory: &Dir,
        name: &[u8],
        path: &EntryPath,
        stamp: Mtime,
    ) -> Result<(), WriteError> {
        match self.restamps {
            true => directory.set_mtime(name, stamp).at(path),
            false => Ok(()),
        }
    }
}

trait At<T> {
    fn at(self, path: &EntryPath) -> Result<T, WriteError>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, path: &EntryPath) -> Result<T, WriteError> {
        self.map_err(|errno| WriteError::Entry { path: path.clone(), source: errno.into() })
    }
}
