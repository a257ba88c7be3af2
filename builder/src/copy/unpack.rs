//! ADD of a local archive: recognised by its content, unpacked into the destination.
//!
//! Unlike a layer, an archive knows no whiteouts: a file named `.wh.x` is a file. Its entries come in
//! any order and a layer's are sorted, so the content of its files waits in a file without a name.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::sync::Arc;

use super::plan::{Inside, Made, Node, Placed, Plan, check, join};
use super::selection::{Part, Selection};
use super::{CopyError, Landing};
use crate::contents::Row;
use crate::contents::resolve::{Led, Lies, Names as _, resolve};
use crate::layer::decompress::{DecompressLimits, Decompressor};
use crate::layer::entry::is_written_xattr;
use crate::layer::hashed::{Content as _, HashedRead};
use crate::layer::tar::{Archive, Limits, TarError};
use crate::layer::{Entry, EntryPath, Kind};

const READ_BYTES: usize = 256 << 10;
/// The mode of directories that an archive has no entry for.
const PARENT_MODE: u32 = 0o755;

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
fn is_archive(mut file: &File) -> Result<bool, ArchiveError> {
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

/// An entry of an archive, as it will be in the layer.
#[derive(Clone, Debug)]
pub(super) struct Unpacked {
    pub(super) entry: Entry,
    /// A file's content.
    pub(super) content: Option<Spooled>,
}

/// Where the content of a file waits.
#[derive(Clone, Debug)]
pub(super) struct Spooled {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) digest: [u8; 32],
}

impl Unpacked {
    pub(super) fn is_directory(&self) -> bool {
        self.entry.kind == Kind::Directory
    }

    pub(super) fn symlink(&self) -> Option<&[u8]> {
        match &self.entry.kind {
            Kind::Symlink { target } => Some(target),
            _ => None,
        }
    }
}

/// An archive to be unpacked.
pub(super) struct Opened {
    file: File,
    /// What it is called in messages.
    path: String,
    /// What it hashed to when it was selected.
    content: [u8; 32],
}

/// Opens what was selected if it is an archive, and archives are to be unpacked.
pub(super) fn open(
    selection: &Selection<'_>,
    part: &Part,
    row: Row<'_>,
    landing: &Landing<'_>,
) -> Result<Option<Opened>, CopyError> {
    if !landing.unpack || !selection.unpack || row.kind() != Kind::File {
        return Ok(None);
    }
    let origin = selection.origin(part, row, &EntryPath::root().join(row.name()));
    let path = String::from_utf8_lossy(origin.as_bytes()).into_owned();
    let failed = |source| CopyError::Archive { path: path.clone(), source };
    let opened = selection.bytes(part, row, origin).open_file();
    let file =
        opened.map_err(|source| CopyError::Io { doing: "read", path: path.clone(), source })?;
    let Some(file) = file else { return Ok(None) };
    if !is_archive(&file).map_err(failed)? {
        return Ok(None);
    }
    Ok(Some(Opened { file, path, content: row.content() }))
}

impl Opened {
    /// Plans all that is in the archive below a directory.
    pub(super) fn unpack(
        mut self,
        plan: &mut Plan<'_>,
        into: &EntryPath,
        landing: &Landing<'_>,
    ) -> Result<(), CopyError> {
        let path = self.path.clone();
        let failed = |source| CopyError::Archive { path: path.clone(), source };
        let mut hashed = HashedRead::new(&mut self.file);
        unpack(&mut hashed, plan, into, landing).map_err(|error| match error {
            Failure::Archive(source) => failed(source),
            Failure::Copy(error) => error,
        })?;
        io::copy(&mut hashed, &mut io::sink()).map_err(ArchiveError::Read).map_err(failed)?;
        if hashed.digest() != self.content {
            return Err(CopyError::Changed { path });
        }
        Ok(())
    }
}

/// Why an archive cannot be unpacked: itself, or where it goes.
enum Failure {
    Archive(ArchiveError),
    Copy(CopyError),
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        Failure::Archive(error)
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        Failure::Copy(error)
    }
}

fn unpack(
    file: &mut HashedRead<'_>,
    plan: &mut Plan<'_>,
    into: &EntryPath,
    landing: &Landing<'_>,
) -> Result<(), Failure> {
    let unpacked =
        Decompressor::new(file, 1, DecompressLimits::default()).map_err(ArchiveError::Read)?;
    let mut archive =
        Archive::new(BufReader::with_capacity(READ_BYTES, unpacked), Limits::default());
    let spool = tempfile::tempfile_in(landing.scratch).map_err(ArchiveError::Read)?;
    let mut unpacking = Unpacking { plan, into, landing, spool: Arc::new(spool), end: 0 };
    while let Some(entry) = archive.next_entry().map_err(ArchiveError::Tar)? {
        // The entry of the root says nothing about the destination.
        if !entry.path.is_root() {
            unpacking.put(entry, &mut archive.content())?;
        }
    }
    Ok(())
}

struct Unpacking<'p, 'a> {
    plan: &'p mut Plan<'a>,
    into: &'p EntryPath,
    landing: &'p Landing<'p>,
    spool: Arc<File>,
    /// The bytes in the spool.
    end: u64,
}

impl Unpacking<'_, '_> {
    fn put(&mut self, mut entry: Entry, content: &mut dyn Read) -> Result<(), Failure> {
        let name = entry.path.name().unwrap_or_default().to_vec();
        let made = Made { mode: PARENT_MODE, ..self.landing.made() };
        let parent = entry.path.parent().unwrap_or_default();
        let parent = self.plan.make_directory(self.into, &parent, made)?;
        let place = parent.join(&name);
        check(&place)?;
        let there = self.plan.look(&place)?;
        let is_directory = entry.kind == Kind::Directory;
        if there == Lies::Directory && !is_directory && !self.is_empty(&place) {
            let source = rustix::io::Errno::NOTEMPTY.into();
            return Err(ArchiveError::Entry { path: entry.path, source }.into());
        }
        if let Kind::HardLink { target } = &entry.kind {
            return self.link(&entry, target, &place);
        }
        let content = match entry.kind {
            Kind::File => Some(self.spool(&entry, content)?),
            _ => None,
        };
        (entry.uid, entry.gid) = self.landing.owner.unwrap_or((entry.uid, entry.gid));
        let changes = !matches!(entry.kind, Kind::Symlink { .. });
        if let Some(change) = self.landing.mode.filter(|_| changes) {
            entry.mode = change(entry.mode, is_directory);
        }
        entry.xattrs.retain(|name, _| content.is_some() && is_written_xattr(name));
        let unpacked = Placed::Unpacked(Box::new(Unpacked { entry, content }));
        let node = self.plan.node(&place);
        match is_directory && there == Lies::Directory {
            true => node.what = unpacked,
            false => *node = Node::new(unpacked),
        }
        Ok(())
    }

    /// Gives an object another name. It must be in the layer: no entry can name what lies below.
    fn link(
        &mut self,
        entry: &Entry,
        target: &EntryPath,
        place: &EntryPath,
    ) -> Result<(), Failure> {
        let failed = |text: &str| ArchiveError::Entry {
            path: entry.path.clone(),
            source: io::Error::other(format!("the target of the hard link, {target}, {text}")),
        };
        let inside = Inside { plan: self.plan, base: self.into };
        let parent = target.parent().unwrap_or_default();
        let name = target.name().ok_or_else(|| failed("is a directory"))?;
        let Led::To(parent, Lies::Directory) = resolve(&inside, parent.as_bytes())? else {
            return Err(failed("does not exist").into());
        };
        let first = join(self.into, &parent).join(name);
        if first == *place {
            return Ok(());
        }
        let what = match self.plan.planned(&first) {
            Some(node) if node.what.lies() == Lies::Directory => {
                return Err(failed("is a directory").into());
            }
            Some(node) => node.what.clone(),
            None if self.plan.look(&first)? == Lies::Nothing => {
                return Err(failed("does not exist").into());
            }
            None => return Err(failed("is in the image and not in the archive").into()),
        };
        let group = self.plan.group_of(&first);
        let mut node = Node::new(what);
        node.group = group;
        *self.plan.node(place) = node;
        Ok(())
    }

    fn is_empty(&self, place: &EntryPath) -> bool {
        let planned = self.plan.planned(place).is_none_or(|node| node.children.is_empty());
        let below = self.plan.below_directory(place);
        planned && below.is_none_or(|directory| directory.children().is_empty())
    }

    fn spool(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<Spooled, ArchiveError> {
        let failed = |source| ArchiveError::Entry { path: entry.path.clone(), source };
        let mut file = &*self.spool;
        file.seek(SeekFrom::Start(self.end)).map_err(failed)?;
        let mut hashed = HashedRead::new(content);
        let copied = io::copy(&mut hashed, &mut file).map_err(failed)?;
        file.flush().map_err(failed)?;
        if copied != entry.size {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        let (offset, digest) = (self.end, hashed.digest());
        self.end += copied;
        Ok(Spooled { file: Arc::clone(&self.spool), offset, digest })
    }
}
