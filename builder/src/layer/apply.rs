//! Unpacking a layer into a directory of its own, in overlayfs's form.
//!
//! The archive is untrusted. Each entry's directory is found component by component, by descriptors
//! (`cursor`); the last component is never followed, and what is made is made by that one name in
//! that one directory. So no sequence of entries reaches outside, whatever links it holds.
//!
//! The layer is read as if it were unpacked over the layers beneath, although it is not: a symbolic
//! link of a lower layer in an entry's path is followed, a directory that the archive leaves out has
//! the attributes that it has beneath, and the target of a hard link that only a lower layer has is
//! copied. [`Reliance`] says whether anything of the kind happened: such a tree fits one stack only.
//!
//! The caller gives an empty directory that nobody else sees, and shows it only after the diff ID
//! in [`Applied`] is the promised one.

mod cursor;
pub(super) mod place;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::path::Path;

use boatyard_oci::{Algorithm, DiffId, Hasher};
use rustix::io::Errno;
use thiserror::Error;

use self::cursor::{Cursor, Missing};
use super::dir::{Dir, ObjectKind};
use super::entry::{Entry, EntryPath, Kind, Mtime};
use super::hashed::{Content, HashedRead, Keeping};
use super::stack::{Beneath, Stack};
use super::tar::{Archive, Limits, TarError};
use super::whiteout::{self, Meaning, WhiteoutError};
use crate::contents::recorder::{Kept, Recorder};
use crate::contents::{Table, TableError};

const READ_BYTES: usize = 256 << 10;

/// What an unpacked layer took from the layers beneath it, so that it fits no other stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reliance {
    /// Directories without an entry, or links of lower layers in paths.
    pub implicit_parents: bool,
    /// Hard links to files of lower layers.
    pub hard_links_downward: bool,
    /// Whiteouts, opaque ones too.
    pub whiteouts: bool,
}

impl Reliance {
    /// Reports whether the tree is the same above any stack.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// What was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The digest of all bytes of the archive, whatever follows its end included.
    pub diff_id: DiffId,
    /// Bytes of the archive.
    pub uncompressed_size: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Whether the archive says what the root's attributes are.
    pub root_attributes: bool,
    /// What the tree took from the layers beneath.
    pub reliance: Reliance,
    /// What the archive says; `None` where that is more than a table can hold.
    pub table: Option<Table>,
}

/// Why a layer cannot be unpacked.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The archive is damaged or too large.
    #[error("the layer's archive cannot be unpacked")]
    Archive(#[from] TarError),
    /// The bytes after the archive's end cannot be read.
    #[error("cannot read the layer to its end")]
    Rest(#[source] io::Error),
    /// A name starts with `.wh.` and is no whiteout.
    #[error("{path} is not allowed in a layer")]
    Whiteout {
        /// Which entry.
        path: EntryPath,
        /// What is wrong.
        #[source]
        source: WhiteoutError,
    },
    /// The root would stop being a directory.
    #[error("the layer replaces its root directory with something else")]
    RootReplaced,
    /// A component of the path is a file.
    #[error("{path} lies below {file}, which is not a directory")]
    ParentNotDirectory {
        /// Which entry.
        path: EntryPath,
        /// The component.
        file: EntryPath,
    },
    /// Links lead in a circle, or through more than a kernel would follow.
    #[error("the path {0} leads through too many symbolic links")]
    TooManyLinks(EntryPath),
    /// Deeper than a kernel's path could reach.
    #[error("{0} is nested too deeply")]
    TooDeep(EntryPath),
    /// No layer has the target of a hard link.
    #[error("{path} is a hard link to {target}, which does not exist")]
    LinkTargetMissing {
        /// Which entry.
        path: EntryPath,
        /// Its target.
        target: EntryPath,
    },
    /// The target of a hard link cannot have another name.
    #[error("{path} is a hard link to {target}, which is a directory")]
    LinkTargetDirectory {
        /// Which entry.
        path: EntryPath,
        /// Its target.
        target: EntryPath,
    },
    /// An attribute that rules the host, not the image.
    #[error("{path} has the extended attribute `{name}`, which no layer may set")]
    TrustedXattr {
        /// Which entry.
        path: EntryPath,
        /// The attribute.
        name: String,
    },
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

/// Unpacks an uncompressed archive into an empty directory, above `lowers` and in their form.
///
/// Reads to the end of `archive`, so that the diff ID covers every byte.
///
/// # Errors
/// Fails on a hostile or damaged archive and when the file system does. What was unpacked until
/// then is the caller's to remove.
pub fn apply<R: Read>(
    archive: R,
    into: &Path,
    lowers: &Stack,
    limits: Limits,
) -> Result<Applied, ApplyError> {
    let hashing = Hashing { inner: archive, hasher: Hasher::new(Algorithm::Sha256), bytes: 0 };
    let mut archive = Archive::new(BufReader::with_capacity(READ_BYTES, hashing), limits);
    let mut applier = Applier::new(into, lowers)?;
    let mut recording = Ok(Recorder::default());
    while let Some(entry) = archive.next_entry()? {
        applier.entries += 1;
        let path = entry.path.clone();
        match whiteout::interpret(entry) {
            Ok(Meaning::Entry(entry)) => {
                let mut content = archive.content();
                let put = |content: &mut dyn Content| applier.entry(&entry, content);
                recording = record(recording, &entry, &mut content, put)?;
            }
            Ok(Meaning::Ignored) => {}
            Err(source) => return Err(ApplyError::Whiteout { path, source }),
        }
    }
    applier.set_directory_times()?;
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(ApplyError::Rest)?;
    let Hashing { hasher, bytes, .. } = rest.into_inner();
    Ok(Applied {
        diff_id: DiffId::new(hasher.finish()),
        uncompressed_size: bytes,
        entries: applier.entries,
        root_attributes: applier.root_attributes,
        reliance: applier.reliance,
        table: recording.and_then(Recorder::finish).ok(),
    })
}

/// Puts an entry, and adds it to the table with the hash of what was read for it.
fn record<'a>(
    recording: Result<Recorder<'a>, TableError>,
    entry: &Entry,
    content: &mut dyn Read,
    put: impl FnOnce(&mut dyn Content) -> Result<(), ApplyError>,
) -> Result<Result<Recorder<'a>, TableError>, ApplyError> {
    let mut hashed = HashedRead::new(content);
    let kept = Kept::of(entry);
    let mut bytes = None;
    if kept.is_some() {
        let mut keeping = Keeping::new(&mut hashed);
        put(&mut keeping)?;
        bytes = Some(keeping.into_bytes());
    } else {
        put(&mut hashed)?;
    }
    Ok(recording.and_then(|mut recorder| {
        recorder.add(entry, &hashed.digest())?;
        if let (Some(kept), Some(bytes)) = (kept, bytes) {
            recorder.keep(kept, bytes);
        }
        Ok(recorder)
    }))
}

/// A layer that is being unpacked.
struct Applier {
    cursor: Cursor,
    /// Set at the very end: whatever is made in a directory changes its time.
    directory_times: BTreeMap<EntryPath, Mtime>,
    entries: u64,
    root_attributes: bool,
    reliance: Reliance,
    buffer: Vec<u8>,
}

impl Applier {
    fn new(into: &Path, lowers: &Stack) -> Result<Self, ApplyError> {
        let root = Dir::open_in(lowers.form(), into).at("open", &EntryPath::root())?;
        Ok(Self {
            cursor: Cursor::new(root, lowers.root().clone()),
            directory_times: BTreeMap::new(),
            entries: 0,
            root_attributes: false,
            reliance: Reliance::default(),
            buffer: Vec::new(),
        })
    }

    fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), ApplyError> {
        match (&entry.kind, entry.path.name()) {
            (Kind::OpaqueWhiteout, _) => self.opaque(&entry.path),
            (Kind::Whiteout, Some(name)) => self.whiteout(&entry.path, name),
            // What overlayfs itself would read as a whiteout has its effect wherever it runs.
            (Kind::CharDevice { major: 0, minor: 0 }, Some(name)) => {
                self.whiteout(&entry.path, name)
            }
            (Kind::HardLink { target }, Some(name)) => self.hard_link(entry, name, target),
            (_, Some(name)) => self.place(entry, name, content),
            (Kind::Directory, None) => self.root(entry),
            // umoci CVE-2021-29136: a link named `/.` took the place of the root itself.
            (_, None) => Err(ApplyError::RootReplaced),
        }
    }

    fn root(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        self.root_attributes = true;
        place::set_attributes(self.cursor.root(), b".", entry)?;
        self.directory_times.insert(EntryPath::root(), entry.mtime);
        Ok(())
    }

    fn whiteout(&mut self, path: &EntryPath, name: &[u8]) -> Result<(), ApplyError> {
        self.reliance.whiteouts = true;
        // Where nothing lies beneath there is nothing to hide, and overlayfs would list the device
        // in a directory that only this layer has.
        if !self.enter(path, &path.parent().unwrap_or_default(), Missing::MakeIfBeneath)? {
            return Ok(());
        }
        let beneath = self.cursor.beneath(name).at("look beneath", path)?;
        let parent = self.cursor.writable();
        match (parent.stat(name).at("read", path)?, beneath) {
            (_, Beneath::Nothing) => Ok(()),
            (None, _) => parent.make_whiteout(name).at("make the whiteout of", path),
            // This layer put a directory here: a whiteout means only what lies beneath it.
            (Some(object), Beneath::Directory(_)) if object.kind == ObjectKind::Directory => {
                parent.set_opaque(name).at("hide what lies beneath", path)?;
                self.cursor.forget();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn opaque(&mut self, path: &EntryPath) -> Result<(), ApplyError> {
        self.reliance.whiteouts = true;
        let Some(name) = path.name() else { return self.opaque_root() };
        if !self.enter(path, &path.parent().unwrap_or_default(), Missing::MakeIfBeneath)? {
            return Ok(());
        }
        if !matches!(self.cursor.beneath(name).at("look beneath", path)?, Beneath::Directory(_)) {
            return Ok(());
        }
        if !self.enter(path, path, Missing::MakeIfBeneath)? {
            return Ok(());
        }
        let directory = self.cursor.writable();
        directory.set_opaque(b".").at("hide what lies beneath", path)?;
        self.cursor.forget();
        Ok(())
    }

    /// Overlayfs heeds no opaque root: everything in it is hidden one by one.
    fn opaque_root(&mut self) -> Result<(), ApplyError> {
        let root = EntryPath::root();
        self.enter(&root, &root, Missing::Make)?;
        for name in self.cursor.names_beneath().at("list what lies beneath", &root)? {
            self.whiteout(&root.join(&name), &name)?;
        }
        Ok(())
    }

    fn place(
        &mut self,
        entry: &Entry,
        name: &[u8],
        content: &mut dyn Read,
    ) -> Result<(), ApplyError> {
        self.enter(&entry.path, &entry.path.parent().unwrap_or_default(), Missing::Make)?;
        let path = self.cursor.path().join(name);
        if entry.kind == Kind::Directory {
            self.make_directory(&path, name)?;
            self.directory_times.insert(path, entry.mtime);
        } else {
            self.clear(&path, name)?;
            let parent = self.cursor.writable();
            let made = place::make(parent, name, entry, content, &mut self.buffer)?;
            if !made {
                return Ok(());
            }
        }
        let parent = self.cursor.writable();
        place::set_attributes(parent, name, entry)
    }

    /// Makes a directory, or keeps the one that this layer has already.
    fn make_directory(&mut self, path: &EntryPath, name: &[u8]) -> Result<(), ApplyError> {
        let parent = self.cursor.writable();
        let existing = parent.stat(name).at("read", path)?.map(|object| object.kind);
        if existing == Some(ObjectKind::Directory) {
            return Ok(());
        }
        self.clear(path, name)?;
        let parent = self.cursor.writable();
        parent.make_dir(name).at("make the directory", path)?;
        // What stood here hid what lies beneath, and the directory in its place must go on to.
        if existing.is_some() {
            parent.set_opaque(name).at("hide what lies beneath", path)?;
        }
        Ok(())
    }

    /// Removes what this layer put under a name before, without following it.
    fn clear(&mut self, path: &EntryPath, name: &[u8]) -> Result<(), ApplyError> {
        let parent = self.cursor.writable();
        match parent.remove(name) {
            Err(Errno::NOENT) => Ok(()),
            Ok(()) => {
                self.directory_times.retain(|directory, _| !directory.starts_with(path));
                Ok(())
            }
            Err(errno) => Err(errno).at("replace", path),
        }
    }

    fn hard_link(
        &mut self,
        entry: &Entry,
        name: &[u8],
        target: &EntryPath,
    ) -> Result<(), ApplyError> {
        let missing =
            || ApplyError::LinkTargetMissing { path: entry.path.clone(), target: target.clone() };
        let target_name = target.name().ok_or_else(|| ApplyError::LinkTargetDirectory {
            path: entry.path.clone(),
            target: target.clone(),
        })?;
        let target_path = self.link_target(entry, target, target_name)?.ok_or_else(missing)?;
        let target_parent = target_path.parent().unwrap_or_default();
        let from = self.cursor.root().descend(&target_parent).at("open", &target_parent)?;
        self.enter(&entry.path, &entry.path.parent().unwrap_or_default(), Missing::Make)?;
        let path = self.cursor.path().join(name);
        if path == target_path {
            return Ok(());
        }
        self.clear(&path, name)?;
        let parent = self.cursor.writable();
        match parent.make_link(name, &from, target_name) {
            Err(Errno::NOENT) => Err(missing()),
            made => made.at("link", &entry.path),
        }
    }

    /// Finds a link's target in this layer, or copies it here from beneath. Returns where it is.
    fn link_target(
        &mut self,
        entry: &Entry,
        target: &EntryPath,
        name: &[u8],
    ) -> Result<Option<EntryPath>, ApplyError> {
        let parent = target.parent().unwrap_or_default();
        if !self.enter(&entry.path, &parent, Missing::Look)? {
            return Ok(None);
        }
        let path = self.cursor.path().join(name);
        let own = match self.cursor.own() {
            Some(parent) => parent.stat(name).at("read", &path)?.map(|object| object.kind),
            None => None,
        };
        let is_directory =
            || ApplyError::LinkTargetDirectory { path: entry.path.clone(), target: target.clone() };
        match own {
            Some(ObjectKind::Whiteout) => return Ok(None),
            Some(ObjectKind::Directory) => return Err(is_directory()),
            Some(_) => return Ok(Some(path)),
            None => {}
        }
        match self.cursor.beneath(name).at("look beneath", &path)? {
            Beneath::Nothing => Ok(None),
            Beneath::Directory(_) => Err(is_directory()),
            Beneath::Object(lower, object) => {
                self.reliance.hard_links_downward = true;
                let parent = path.parent().unwrap_or_default();
                if !self.enter(&entry.path, &parent, Missing::MakeIfBeneath)? {
                    return Ok(None);
                }
                let own = self.cursor.writable();
                place::copy_up(&lower, &object, own, name, &path)?;
                Ok(Some(path))
            }
        }
    }

    /// Moves the cursor to a directory; returns whether there is one now.
    fn enter(
        &mut self,
        entry: &EntryPath,
        directory: &EntryPath,
        missing: Missing,
    ) -> Result<bool, ApplyError> {
        let entered = self.cursor.enter(entry, directory, missing)?;
        self.reliance.implicit_parents |= entered.relied;
        for (path, mtime) in entered.made {
            self.directory_times.insert(path, mtime);
        }
        Ok(entered.found)
    }

    fn set_directory_times(&self) -> Result<(), ApplyError> {
        for (path, mtime) in &self.directory_times {
            let directory = self.cursor.root().descend(path).at("open", path)?;
            directory.set_own_mtime(*mtime).at("set the time of", path)?;
        }
        Ok(())
    }
}

/// Names what was tried, and on what, when the kernel refuses.
trait At<T> {
    fn at(self, action: &'static str, path: &EntryPath) -> Result<T, ApplyError>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, action: &'static str, path: &EntryPath) -> Result<T, ApplyError> {
        self.map_err(io::Error::from).at(action, path)
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &EntryPath) -> Result<T, ApplyError> {
        self.map_err(|source| ApplyError::Object { action, path: path.clone(), source })
    }
}

/// Hashes and counts what is read.
struct Hashing<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
