//! An image's file system: its layers unpacked, and read as one.
//!
//! The layers are unpacked into the cache that builds use, and read as overlayfs would show them,
//! without a mount. What another layer hides does not appear; what has several names within one
//! layer is a hard link here too.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;

use boatyard_content::local::LocalStore;
use boatyard_oci::ChainId;
use fs_err as fs;
use jiff::Timestamp;

use super::docker::open;
use super::{ExportError, Image};
use crate::base::Say;
use crate::layer::dir::{Dir, Object, ObjectKind};
use crate::layer::stack::{Beneath, MergedDir};
use crate::layer::tar::Writer;
use crate::layer::{DecompressLimits, Entry, EntryPath, Kind, Limits, Mtime, Stack, apply};
use crate::snapshot::{self, LayerDir, Layers, LayersError, Unpack};

/// Returns the unpacked layers of an image, the base first; those that are not there yet are
/// unpacked, and `say` is told. Their lease holds them.
///
/// # Errors
/// Where a layer is missing, hostile or damaged.
pub fn unpack(
    layers: &Layers,
    store: &LocalStore,
    image: &Image,
    threads: usize,
    say: &Say<'_>,
) -> Result<Vec<LayerDir>, ExportError> {
    let mut stack: Vec<LayerDir> = Vec::new();
    let mut chain: Option<ChainId> = None;
    for (descriptor, diff_id) in image.layers() {
        let above = match &chain {
            Some(chain) => chain.push(diff_id),
            None => ChainId::of(std::slice::from_ref(diff_id)).expect("one layer is a chain"),
        };
        let layer = match layers.find(diff_id, &above)? {
            Some(layer) => layer,
            None => {
                say(&format!("unpacking {}", descriptor.digest));
                layers.unpack(Unpack {
                    blob: open(store, descriptor)?,
                    diff_id,
                    lowers: &stack,
                    threads,
                    limits: Limits::default(),
                    decompress: DecompressLimits::default(),
                })?
            }
        };
        stack.push(layer);
        chain = Some(above);
    }
    Ok(stack)
}

/// The file system of an image.
#[derive(Clone, Copy, Debug)]
pub struct Root<'a> {
    /// The directory that holds it in an archive of several; without one it is all of it.
    pub name: Option<&'a str>,
    /// Its layers, the base first.
    pub layers: &'a [LayerDir],
}

/// Writes the file systems that stacks of layers make as one archive. With an epoch, that is the
/// time of all files.
///
/// # Errors
/// Where a layer cannot be read, or the sink fails.
pub fn tar<W: Write>(
    roots: &[Root<'_>],
    epoch: Option<Timestamp>,
    sink: W,
) -> Result<W, ExportError> {
    let mtime = epoch.map(|epoch| Mtime::from_seconds(epoch.as_second()));
    let mut writer = Writer::new(sink);
    for root in roots {
        let stack = snapshot::stack(root.layers).map_err(LayersError::from)?;
        let mut path = EntryPath::root();
        if let Some(name) = root.name {
            path = path.join(name.as_bytes());
            let mut entry = Entry::new(path.clone(), Kind::Directory, 0o755);
            entry.mtime = mtime.unwrap_or_default();
            writer
                .append(&entry, &mut io::empty())
                .map_err(|source| ExportError::Write { name: name.to_owned(), source })?;
        }
        let mut walk = Walk { writer, mtime, first_names: HashMap::new() };
        walk.directory(stack.root(), &path)?;
        writer = walk.writer;
    }
    writer.finish().map_err(ExportError::End)
}

/// Writes the file system that a stack of layers makes into a directory. What is in it already
/// stays, unless something of the image has the same name.
///
/// # Errors
/// Where a layer cannot be read, or the directory cannot be written.
pub fn local(
    layers: &[LayerDir],
    epoch: Option<Timestamp>,
    directory: &Path,
) -> Result<(), ExportError> {
    let failed = |source| ExportError::Directory { directory: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(failed)?;
    let (reader, sink) = io::pipe().map_err(failed)?;
    std::thread::scope(|scope| {
        let root = Root { name: None, layers };
        let write = move || tar(&[root], epoch, io::BufWriter::new(sink)).map(drop);
        let written = scope.spawn(write);
        let applied = apply(reader, directory, &Stack::default(), Limits::default());
        let written = written.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let applied = applied
            .map_err(|source| ExportError::Local { directory: directory.to_owned(), source });
        match written {
            // What could not be applied was not taken: that is the reason.
            Err(error) if !is_broken_pipe(&error) => Err(error),
            _ => applied.map(drop),
        }
    })
}

fn is_broken_pipe(error: &ExportError) -> bool {
    match error {
        ExportError::Write { source, .. } | ExportError::End(source) => {
            source.kind() == io::ErrorKind::BrokenPipe
        }
        _ => false,
    }
}

/// A walk through the merged layers, in the order of names.
struct Walk<W> {
    writer: Writer<W>,
    /// The time of all files, instead of their own.
    mtime: Option<Mtime>,
    /// The first path of each inode that has several: it carries the content.
    first_names: HashMap<(u64, u64), EntryPath>,
}

impl<W: Write> Walk<W> {
    fn directory(&mut self, merged: &MergedDir, path: &EntryPath) -> Result<(), ExportError> {
        for name in merged.names().at(path)? {
            let path = path.join(&name);
            match merged.child(&name).at(&path)? {
                Beneath::Nothing => {}
                Beneath::Directory(child) => {
                    // A merged directory has the attributes of its topmost part.
                    let Some(top) = child.top() else { continue };
                    let own = top.own().at(&path)?;
                    let entry = entry(&path, Kind::Directory, &own);
                    self.append(entry, top, b".", &mut io::empty())?;
                    self.directory(&child, &path)?;
                }
                Beneath::Object(directory, object) => {
                    self.object(&directory, &name, &path, &object)?;
                }
            }
        }
        Ok(())
    }

    fn object(
        &mut self,
        directory: &Dir,
        name: &[u8],
        path: &EntryPath,
        object: &Object,
    ) -> Result<(), ExportError> {
        let kind = match object.kind {
            ObjectKind::File => Kind::File,
            ObjectKind::Symlink => Kind::Symlink { target: directory.read_link(name).at(path)? },
            ObjectKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            ObjectKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
            ObjectKind::Fifo => Kind::Fifo,
            // A socket has no place in an archive, and the rest was met before.
            ObjectKind::Socket | ObjectKind::Whiteout | ObjectKind::Directory => return Ok(()),
        };
        if object.has_other_names {
            if let Some(first) = self.first_names.get(&object.identity) {
                let link = entry(path, Kind::HardLink { target: first.clone() }, object);
                return self.append(link, directory, name, &mut io::empty());
            }
            self.first_names.insert(object.identity, path.clone());
        }
        let mut entry = entry(path, kind, object);
        if entry.kind == Kind::File {
            entry.size = object.size;
            let mut content = directory.open_file(name).at(path)?;
            return self.append(entry, directory, name, &mut content);
        }
        self.append(entry, directory, name, &mut io::empty())
    }

    fn append(
        &mut self,
        mut entry: Entry,
        directory: &Dir,
        name: &[u8],
        content: &mut dyn Read,
    ) -> Result<(), ExportError> {
        entry.xattrs = directory.xattrs(name).at(&entry.path)?;
        entry.mtime = self.mtime.unwrap_or(entry.mtime);
        self.writer
            .append(&entry, content)
            .map_err(|source| ExportError::Write { name: entry.path.to_string(), source })
    }
}

fn entry(path: &EntryPath, kind: Kind, object: &Object) -> Entry {
    let mode = if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { object.mode };
    let mut entry = Entry::new(path.clone(), kind, mode);
    (entry.uid, entry.gid, entry.mtime) = (object.uid, object.gid, object.mtime);
    entry
}

trait At<T> {
    fn at(self, path: &EntryPath) -> Result<T, ExportError>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, path: &EntryPath) -> Result<T, ExportError> {
        self.map_err(|errno| ExportError::Read { path: path.to_string(), source: errno.into() })
    }
}
