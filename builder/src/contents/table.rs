//! One layer's table of contents, in the one form that it has in memory and on disk.
//!
//! ```text
//! magic, format     8 bytes
//! header            6 × u32: rows, bytes of names, of extras, of passwd, of group, flags
//! rows              72 bytes each, the root first, then level by level: the children of a directory
//!                   are neighbours, sorted by name
//! names             the last component of each path
//! extras            link targets, first names of hard links, extended attributes
//! passwd, group     what `/etc/passwd` and `/etc/group` hold
//! BLAKE3            of all that comes before; on disk only
//!
//! row: name u32 + u16   kind u8   flags u8   mode uid gid u32   a b u32   mtime i64   extra u32
//!      BLAKE3 of the content, 32 bytes
//! ```
//!
//! Integers are little-endian. `a b` are the size of a file, the first child and number of children of
//! a directory, the numbers of a device. Looking a path up takes a binary search per component, and
//! nothing is decoded before it is asked for.

use std::cmp::Ordering;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use thiserror::Error;

use crate::layer::content_id::ContentHasher;
use crate::layer::{ContentId, ContentTimes, Entry, EntryPath, Kind, Mtime, Xattrs};

pub(super) const MAGIC: &[u8; 8] = b"by-toc\0\x01";
pub(super) const HEADER_BYTES: usize = 8 + 6 * 4;
pub(super) const ROW_BYTES: usize = 72;
const CHECKSUM_BYTES: usize = 32;
/// No extra; also: no `/etc/passwd`, no `/etc/group`.
pub(super) const NONE: u32 = u32::MAX;

/// The sorted entries of a layer with the BLAKE3 of each file.
#[derive(Clone, PartialEq, Eq)]
pub struct Table {
    bytes: Vec<u8>,
    places: Places,
}

/// Where the parts of a table begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Places {
    rows: u32,
    names: usize,
    extras: usize,
    passwd: usize,
    group: usize,
}

/// Why a table cannot be made or kept.
#[derive(Debug, Error)]
pub enum TableError {
    /// More entries, or longer names, than a table can number.
    #[error("the layer has too many entries for a table of contents")]
    TooLarge,
    /// A component of the path is a file.
    #[error("{path} lies below {file}, which is not a directory")]
    ParentNotDirectory {
        /// Which entry.
        path: EntryPath,
        /// The component.
        file: EntryPath,
    },
    /// The root would stop being a directory.
    #[error("the layer replaces its root directory with something else")]
    RootReplaced,
    /// Links lead in a circle, or through more than a kernel would follow.
    #[error("the path {0} leads through too many symbolic links")]
    TooManyLinks(EntryPath),
    /// Deeper than any layer is unpacked.
    #[error("{0} is nested too deeply")]
    TooDeep(EntryPath),
    /// The target of a hard link cannot have another name.
    #[error("{path} is a hard link to {target}, which is no file")]
    LinkTarget {
        /// Which entry.
        path: EntryPath,
        /// Its target.
        target: EntryPath,
    },
    /// The file cannot be read or written.
    #[error("cannot keep the table of contents {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a row's kind byte says.
pub(super) mod kind {
    pub(crate) const FILE: u8 = b'f';
    pub(crate) const DIRECTORY: u8 = b'd';
    pub(crate) const SYMLINK: u8 = b'l';
    pub(crate) const CHAR: u8 = b'c';
    pub(crate) const BLOCK: u8 = b'b';
    pub(crate) const FIFO: u8 = b'p';
    pub(crate) const WHITEOUT: u8 = b'w';
    /// A hard link whose target only a layer beneath has.
    pub(crate) const DOWNWARD: u8 = b'h';
}

/// What a row's flags say.
pub(super) mod flag {
    /// A directory that hides what lies beneath.
    pub(crate) const OPAQUE: u8 = 1;
    /// A directory that has no entry: its attributes are those that it has beneath.
    pub(crate) const IMPLICIT: u8 = 2;
    /// A further name of a hard-linked object.
    pub(crate) const LINKED: u8 = 4;
}

/// What the flags of a whole table say.
pub(super) mod trait_flag {
    /// Some of it can only be told above what lies beneath.
    pub(crate) const LOOSE: u32 = 1;
    /// The archive says what the root's attributes are.
    pub(crate) const STATES_ROOT: u32 = 2;
}

/// One entry of a table.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    table: &'a Table,
    index: u32,
}

impl Table {
    /// Reads a table; `None` where there is none, or where it is damaged.
    ///
    /// # Errors
    /// Fails if the file is there and cannot be read.
    pub fn read(path: &Path) -> Result<Option<Table>, TableError> {
        let mut bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(TableError::Io { path: path.to_owned(), source }),
        };
        let Some(length) = bytes.len().checked_sub(CHECKSUM_BYTES) else { return Ok(None) };
        if blake3::hash(&bytes[..length]).as_bytes() != &bytes[length..] {
            return Ok(None);
        }
        bytes.truncate(length);
        Ok(Table::from_bytes(bytes))
    }

    /// Writes the table whole and renames it into place. Nothing is synced: what a crash of the
    /// machine damages is found out by its checksum.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TableError> {
        let write = || {
            let parent = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(parent)?;
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(parent)?;
            file.write_all(&self.bytes)?;
            file.write_all(blake3::hash(&self.bytes).as_bytes())?;
            file.persist(path).map_err(|error| error.error).map(drop)
        };
        write().map_err(|source| TableError::Io { path: path.to_owned(), source })
    }

    /// Takes bytes that were built or whose checksum agreed.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Option<Table> {
        let header = bytes.get(..HEADER_BYTES)?;
        if &header[..8] != MAGIC {
            return None;
        }
        let field = |at: usize| u32_at(header, 8 + 4 * at);
        let length = |at| if field(at) == NONE { 0 } else { field(at) as usize };
        let names = HEADER_BYTES.checked_add((field(0) as usize).checked_mul(ROW_BYTES)?)?;
        let extras = names.checked_add(length(1))?;
        let passwd = extras.checked_add(length(2))?;
        let group = passwd.checked_add(length(3))?;
        let end = group.checked_add(length(4))?;
        if end != bytes.len() || field(0) == 0 {
            return None;
        }
        let table =
            Table { places: Places { rows: field(0), names, extras, passwd, group }, bytes };
        table.children_come_later().then_some(table)
    }

    /// A walk ends, and reaches no row twice, if the children of a directory lie behind it and behind
    /// those of all directories before it.
    fn children_come_later(&self) -> bool {
        let mut next = 1;
        for index in 0..self.places.rows {
            let row = Row { table: self, index };
            if row.kind_byte() != kind::DIRECTORY || row.child_count() == 0 {
                continue;
            }
            let end = row.first_child().checked_add(row.child_count());
            let Some(end) = end.filter(|end| *end <= self.places.rows) else { return false };
            if row.first_child() != next || next <= index || !row.names_its_children() {
                return false;
            }
            next = end;
        }
        next == self.places.rows
    }

    /// Returns the root, whose attributes count only if [`states_root`](Self::states_root).
    pub fn root(&self) -> Row<'_> {
        Row { table: self, index: 0 }
    }

    /// Reports whether the layer says what the root's attributes are.
    pub fn states_root(&self) -> bool {
        self.flags() & trait_flag::STATES_ROOT != 0
    }

    /// Reports whether some of it can only be told above what lies beneath.
    pub(super) fn is_loose(&self) -> bool {
        self.flags() & trait_flag::LOOSE != 0
    }

    fn flags(&self) -> u32 {
        u32_at(&self.bytes, 8 + 4 * 5)
    }

    /// Returns what lies at a path, links not followed.
    pub fn get(&self, path: &EntryPath) -> Option<Row<'_>> {
        path.components().try_fold(self.root(), |row, name| row.child(name))
    }

    /// Returns all entries with their paths, in the order of a sorted walk, without the root.
    pub fn rows(&self) -> impl Iterator<Item = (EntryPath, Row<'_>)> {
        self.root().below()
    }

    /// Returns the number of entries, without the root.
    pub fn len(&self) -> usize {
        self.places.rows as usize - 1
    }

    /// Reports whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the identity of what the table says, as [`LayerWriter`](crate::layer::LayerWriter)
    /// computes it of the layer.
    pub fn content_id(&self, times: &ContentTimes) -> ContentId {
        let mut hasher = ContentHasher::new(times.clone());
        let whiteouts = |row: Row<'_>, path: &EntryPath, hasher: &mut ContentHasher| {
            if row.is_opaque() {
                let opaque = Entry::new(path.clone(), Kind::OpaqueWhiteout, 0);
                hasher.add(&opaque, &[0; 32]);
            }
            for child in row.children().filter(|child| child.kind_byte() == kind::WHITEOUT) {
                hasher.add(&Entry::new(path.join(child.name()), Kind::Whiteout, 0), &[0; 32]);
            }
        };
        whiteouts(self.root(), &EntryPath::root(), &mut hasher);
        for (path, row) in self.rows() {
            if row.kind_byte() == kind::WHITEOUT {
                continue;
            }
            let content = if row.is_linked() { [0; 32] } else { row.content() };
            hasher.add(&row.entry(path.clone()), &content);
            if row.is_directory() {
                whiteouts(row, &path, &mut hasher);
            }
        }
        hasher.finish()
    }

    /// Returns what `/etc/passwd` holds, if the layer has it as a file of an acceptable size.
    pub fn passwd(&self) -> Option<&[u8]> {
        self.kept(3, self.places.passwd)
    }

    /// Returns what `/etc/group` holds, if the layer has it as a file of an acceptable size.
    pub fn group(&self) -> Option<&[u8]> {
        self.kept(4, self.places.group)
    }

    fn kept(&self, field: usize, at: usize) -> Option<&[u8]> {
        let length = u32_at(&self.bytes, 8 + 4 * field);
        if length == NONE { None } else { self.bytes.get(at..at + length as usize) }
    }

    /// Returns the bytes that it takes.
    pub fn size_in_memory(&self) -> usize {
        self.bytes.len()
    }

    fn name(&self, at: u32, length: u16) -> &[u8] {
        let start = self.places.names + at as usize;
        self.bytes[..self.places.extras].get(start..start + usize::from(length)).unwrap_or_default()
    }

    fn extra(&self, at: u32) -> Extra<'_> {
        let start = self.places.extras + at as usize;
        Extra(self.bytes[..self.places.passwd].get(start..).unwrap_or_default())
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.rows()).finish()
    }
}

impl<'a> Row<'a> {
    /// Returns the last component of its path; empty for the root.
    pub fn name(&self) -> &'a [u8] {
        let row = self.bytes();
        self.table.name(u32_at(row, 0), u16::from_le_bytes([row[4], row[5]]))
    }

    /// Returns what it is. A further name of a hard-linked file is [`Kind::File`] here; see
    /// [`hard_link`](Self::hard_link).
    pub fn kind(&self) -> Kind {
        let (major, minor) = (self.first_child(), self.child_count());
        match self.kind_byte() {
            kind::DIRECTORY => Kind::Directory,
            kind::SYMLINK => Kind::Symlink { target: self.link().to_vec() },
            kind::CHAR => Kind::CharDevice { major, minor },
            kind::BLOCK => Kind::BlockDevice { major, minor },
            kind::FIFO => Kind::Fifo,
            kind::WHITEOUT => Kind::Whiteout,
            kind::DOWNWARD => Kind::HardLink { target: path_of(self.link()) },
            _ => Kind::File,
        }
    }

    /// Returns the first name of the object, if this is a further one.
    pub fn hard_link(&self) -> Option<EntryPath> {
        self.is_linked().then(|| {
            path_of(self.extra().map_or(&[][..], |mut extra| {
                extra.take();
                extra.take()
            }))
        })
    }

    /// Returns its permissions.
    pub fn mode(&self) -> u32 {
        u32_at(self.bytes(), 8)
    }

    /// Returns its owner.
    pub fn uid(&self) -> u32 {
        u32_at(self.bytes(), 12)
    }

    /// Returns its group.
    pub fn gid(&self) -> u32 {
        u32_at(self.bytes(), 16)
    }

    /// Returns the bytes of a file's content, 0 for everything else.
    pub fn size(&self) -> u64 {
        if self.kind_byte() != kind::FILE {
            return 0;
        }
        u64::from(self.first_child()) | u64::from(self.child_count()) << 32
    }

    /// Returns its time of modification, in whole seconds.
    pub fn mtime(&self) -> Mtime {
        let mut seconds = [0; 8];
        seconds.copy_from_slice(&self.bytes()[28..36]);
        Mtime::from_seconds(i64::from_le_bytes(seconds))
    }

    /// Returns the BLAKE3 of a file's content, zeros for everything else.
    pub fn content(&self) -> [u8; 32] {
        let mut content = [0; 32];
        content.copy_from_slice(&self.bytes()[40..72]);
        content
    }

    /// Returns its extended attributes.
    pub fn xattrs(&self) -> Xattrs {
        let Some(mut extra) = self.extra() else { return Xattrs::new() };
        extra.take();
        extra.take();
        let mut xattrs = Xattrs::new();
        while !extra.0.is_empty() && extra.count_down() {
            xattrs.insert(extra.take().to_vec(), extra.take().to_vec());
        }
        xattrs
    }

    /// Returns the entry that a layer has for it.
    pub fn entry(&self, path: EntryPath) -> Entry {
        let kind = match self.hard_link() {
            Some(target) => Kind::HardLink { target },
            None => self.kind(),
        };
        Entry {
            path,
            size: if kind == Kind::File { self.size() } else { 0 },
            kind,
            mode: self.mode(),
            uid: self.uid(),
            gid: self.gid(),
            mtime: self.mtime(),
            xattrs: self.xattrs(),
        }
    }

    /// Reports whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind_byte() == kind::DIRECTORY
    }

    /// Returns what a directory holds under a name.
    pub fn child(&self, name: &[u8]) -> Option<Row<'a>> {
        let (mut low, mut high) = self.child_range();
        while low < high {
            let middle = low + (high - low) / 2;
            let row = Row { table: self.table, index: middle };
            match row.name().cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(row),
            }
        }
        None
    }

    /// Returns what a directory holds, sorted by name.
    pub fn children(&self) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let (table, (first, end)) = (self.table, self.child_range());
        (first..end).map(move |index| Row { table, index })
    }

    /// Reports whether all that a directory holds has a name, each once and sorted.
    fn names_its_children(&self) -> bool {
        let is_name = |name: &[u8]| {
            !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
        };
        self.children().all(|child| is_name(child.name()))
            && self.children().zip(self.children().skip(1)).all(|(a, b)| a.name() < b.name())
    }

    /// Returns all that lies below a directory, with paths that begin there.
    pub(crate) fn below(&self) -> impl Iterator<Item = (EntryPath, Row<'a>)> + use<'a> {
        Walk { table: self.table, levels: vec![self.child_range()], path: EntryPath::root() }
    }

    /// Returns its number in the table.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn is_opaque(&self) -> bool {
        self.flags() & flag::OPAQUE != 0
    }

    pub(super) fn is_implicit(&self) -> bool {
        self.flags() & flag::IMPLICIT != 0
    }

    pub(super) fn is_linked(&self) -> bool {
        self.flags() & flag::LINKED != 0
    }

    pub(super) fn kind_byte(&self) -> u8 {
        self.bytes()[6]
    }

    /// Returns a symbolic link's target.
    pub(crate) fn link(&self) -> &'a [u8] {
        self.extra().map_or(&[], |mut extra| extra.take())
    }

    /// Returns its target if it is a symbolic link.
    pub(crate) fn symlink(&self) -> Option<&'a [u8]> {
        (self.kind_byte() == kind::SYMLINK).then(|| self.link())
    }

    fn flags(&self) -> u8 {
        self.bytes()[7]
    }

    fn first_child(&self) -> u32 {
        u32_at(self.bytes(), 20)
    }

    fn child_count(&self) -> u32 {
        u32_at(self.bytes(), 24)
    }

    fn child_range(&self) -> (u32, u32) {
        if !self.is_directory() {
            return (0, 0);
        }
        (self.first_child(), self.first_child() + self.child_count())
    }

    fn extra(&self) -> Option<Extra<'a>> {
        let at = u32_at(self.bytes(), 36);
        (at != NONE).then(|| self.table.extra(at))
    }

    fn bytes(&self) -> &'a [u8] {
        let at = HEADER_BYTES + self.index as usize * ROW_BYTES;
        &self.table.bytes[at..at + ROW_BYTES]
    }
}

impl std::fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.name().escape_ascii();
        write!(f, "{name} {:?} {:o} {}:{}", self.kind(), self.mode(), self.uid(), self.gid())
    }
}

/// What a row could not say in its fixed size: target, first name, attributes.
#[derive(Clone, Copy)]
struct Extra<'a>(&'a [u8]);

impl<'a> Extra<'a> {
    /// Takes bytes with their length before them.
    fn take(&mut self) -> &'a [u8] {
        let Some((length, rest)) = self.0.split_at_checked(4) else { return &[] };
        let length = u32_at(length, 0) as usize;
        let Some((taken, rest)) = rest.split_at_checked(length) else {
            self.0 = &[];
            return &[];
        };
        self.0 = rest;
        taken
    }

    /// Takes the sign that another attribute follows.
    fn count_down(&mut self) -> bool {
        let more = self.0.first() == Some(&1);
        self.0 = self.0.get(1..).unwrap_or_default();
        more
    }
}

/// A walk over the rows below one.
struct Walk<'a> {
    table: &'a Table,
    /// The next row and the end of each directory on the way.
    levels: Vec<(u32, u32)>,
    /// The directory of the last level.
    path: EntryPath,
}

impl<'a> Iterator for Walk<'a> {
    type Item = (EntryPath, Row<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (next, end) = self.levels.last_mut()?;
            if next < end {
                let row = Row { table: self.table, index: *next };
                *next += 1;
                let path = self.path.join(row.name());
                if row.is_directory() {
                    self.levels.push(row.child_range());
                    self.path = path.clone();
                }
                return Some((path, row));
            }
            self.levels.pop();
            self.path = self.path.parent().unwrap_or_default();
        }
    }
}

fn path_of(bytes: &[u8]) -> EntryPath {
    EntryPath::parse(bytes).unwrap_or_default()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}
