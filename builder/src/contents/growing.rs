//! A table while it grows: a tree of nodes that may be replaced, which is frozen in the end.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::table::{
    HEADER_BYTES, MAGIC, NONE, ROW_BYTES, Table, TableError, flag, kind, trait_flag,
};
use crate::layer::{Entry, EntryPath, Kind, Xattrs};

/// As many rows as a table may have.
const ROWS_MAX: usize = 1 << 26;

/// What lies at a path, with what the caller wants to find again by the row's number.
#[derive(Clone, Debug)]
pub(crate) struct Node<T> {
    pub(crate) what: What,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) seconds: i64,
    pub(crate) size: u64,
    pub(crate) content: [u8; 32],
    pub(crate) xattrs: Option<Box<Xattrs>>,
    /// The group of names of one object; 0 for none.
    pub(crate) group: u32,
    pub(crate) children: BTreeMap<Box<[u8]>, Node<T>>,
    pub(crate) note: T,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    File,
    Directory {
        opaque: bool,
        /// It has no entry: its attributes are those that it has beneath.
        implicit: bool,
    },
    Symlink(Box<[u8]>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    Whiteout,
    /// A hard link to what only a layer beneath has.
    Downward(Box<EntryPath>),
}

impl<T: Default> Node<T> {
    /// Returns a node of root's with nothing but its kind.
    pub(crate) fn new(what: What, mode: u32) -> Self {
        Self {
            what,
            mode,
            uid: 0,
            gid: 0,
            seconds: 0,
            size: 0,
            content: [0; 32],
            xattrs: None,
            group: 0,
            children: BTreeMap::new(),
            note: T::default(),
        }
    }

    /// Returns a directory that has no entry.
    pub(crate) fn implicit() -> Self {
        Self::new(What::Directory { opaque: false, implicit: true }, 0o755)
    }

    /// Returns what an entry says. Opaque whiteouts and hard links are for the caller.
    pub(crate) fn of(entry: &Entry, content: &[u8; 32]) -> Self {
        let what = match &entry.kind {
            Kind::File => What::File,
            Kind::Directory => What::Directory { opaque: false, implicit: false },
            Kind::Symlink { target } => What::Symlink(target.as_slice().into()),
            Kind::HardLink { target } => What::Downward(Box::new(target.clone())),
            Kind::CharDevice { major, minor } => What::CharDevice(*major, *minor),
            Kind::BlockDevice { major, minor } => What::BlockDevice(*major, *minor),
            Kind::Fifo => What::Fifo,
            Kind::Whiteout | Kind::OpaqueWhiteout => What::Whiteout,
        };
        let is_file = what == What::File;
        // Linux has no permissions of links, but others' archives may.
        let mode = if matches!(what, What::Symlink(_)) { 0o777 } else { entry.mode };
        Self {
            uid: entry.uid,
            gid: entry.gid,
            seconds: entry.mtime.seconds,
            size: if is_file { entry.size } else { 0 },
            content: if is_file { *content } else { [0; 32] },
            xattrs: (!entry.xattrs.is_empty()).then(|| Box::new(entry.xattrs.clone())),
            ..Self::new(what, mode)
        }
    }
}

impl<T: Clone> Node<T> {
    /// Returns a copy without children.
    pub(crate) fn clone_bare(&self) -> Self {
        Self {
            what: self.what.clone(),
            xattrs: self.xattrs.clone(),
            children: BTreeMap::new(),
            note: self.note.clone(),
            ..*self
        }
    }
}

impl<T> Node<T> {
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.what, What::Directory { .. })
    }

    /// Returns what lies at a path below.
    pub(crate) fn get(&self, path: &EntryPath) -> Option<&Node<T>> {
        path.components().try_fold(self, |node, name| node.children.get(name))
    }

    /// Returns what lies at a path below, to change it.
    pub(crate) fn get_mut(&mut self, path: &EntryPath) -> Option<&mut Node<T>> {
        path.components().try_fold(self, |node, name| node.children.get_mut(name))
    }
}

/// What belongs to a table and is no row.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    pub(crate) states_root: bool,
    pub(crate) passwd: Option<Vec<u8>>,
    pub(crate) group: Option<Vec<u8>>,
}

/// Freezes a tree; returns the table, and the notes in the order of its rows.
///
/// # Errors
/// Fails if there is more than a table can number.
pub(crate) fn freeze<T>(mut root: Node<T>, beside: &Beside) -> Result<(Table, Vec<T>), TableError> {
    let mut freezing = Freezing::default();
    freezing.find_first_names(&mut root, &mut HashMap::new(), &EntryPath::root());
    let mut notes = Vec::new();
    let mut waiting = VecDeque::new();
    freezing.add(b"", root, &mut notes, &mut waiting)?;
    while let Some((index, children)) = waiting.pop_front() {
        let first = notes.len();
        let count = children.len();
        for (name, node) in children {
            freezing.add(&name, node, &mut notes, &mut waiting)?;
        }
        freezing.set_children(index, first, count);
    }
    let bytes = freezing.assemble(notes.len(), beside)?;
    Table::from_bytes(bytes).map(|table| (table, notes)).ok_or(TableError::TooLarge)
}

/// The parts of a table.
#[derive(Default)]
struct Freezing {
    rows: Vec<u8>,
    names: Vec<u8>,
    extras: Vec<u8>,
    loose: bool,
    /// The first names of groups, for further names: in the order of `Node::group` minus 1.
    first_names: Vec<EntryPath>,
}

type Waiting<T> = VecDeque<(usize, BTreeMap<Box<[u8]>, Node<T>>)>;

impl Freezing {
    /// Of the names of one object the first in a walk has no group any more, the others the number
    /// of the first name.
    fn find_first_names<T>(
        &mut self,
        node: &mut Node<T>,
        known: &mut HashMap<u32, u32>,
        path: &EntryPath,
    ) {
        if node.group != 0 {
            let next = u32::try_from(self.first_names.len() + 1).unwrap_or(u32::MAX);
            let number = *known.entry(node.group).or_insert(next);
            node.group = if number == next { 0 } else { number };
            if number == next {
                self.first_names.push(path.clone());
            }
        }
        for (name, child) in &mut node.children {
            if child.group != 0 || !child.children.is_empty() {
                self.find_first_names(child, known, &path.join(name));
            }
        }
    }

    fn add<T>(
        &mut self,
        name: &[u8],
        node: Node<T>,
        notes: &mut Vec<T>,
        waiting: &mut Waiting<T>,
    ) -> Result<(), TableError> {
        if notes.len() >= ROWS_MAX {
            return Err(TableError::TooLarge);
        }
        let (kind, mut flags, a_b) = fields(&node);
        if node.group != 0 {
            flags |= flag::LINKED;
        }
        self.loose |= kind == kind::DOWNWARD || (flags & flag::IMPLICIT != 0 && !name.is_empty());
        let extra = self.extra(&node)?;
        let at = u32::try_from(self.names.len()).map_err(|_| TableError::TooLarge)?;
        let length = u16::try_from(name.len()).map_err(|_| TableError::TooLarge)?;
        self.names.extend_from_slice(name);
        self.rows.extend_from_slice(&at.to_le_bytes());
        self.rows.extend_from_slice(&length.to_le_bytes());
        self.rows.extend_from_slice(&[kind, flags]);
        for number in [node.mode, node.uid, node.gid, a_b.0, a_b.1] {
            self.rows.extend_from_slice(&number.to_le_bytes());
        }
        self.rows.extend_from_slice(&node.seconds.to_le_bytes());
        self.rows.extend_from_slice(&extra.to_le_bytes());
        self.rows.extend_from_slice(&node.content);
        if !node.children.is_empty() {
            waiting.push_back((notes.len(), node.children));
        }
        notes.push(node.note);
        Ok(())
    }

    fn extra<T>(&mut self, node: &Node<T>) -> Result<u32, TableError> {
        let link: &[u8] = match &node.what {
            What::Symlink(target) => target,
            What::Downward(target) => target.as_bytes(),
            _ => &[],
        };
        if link.is_empty() && node.group == 0 && node.xattrs.is_none() {
            return Ok(NONE);
        }
        let at = self.extras.len();
        let first = (node.group as usize).checked_sub(1).and_then(|at| self.first_names.get(at));
        let first = first.map_or(&[][..], EntryPath::as_bytes);
        put(&mut self.extras, link);
        put(&mut self.extras, first);
        for (name, value) in node.xattrs.iter().flat_map(|xattrs| xattrs.iter()) {
            self.extras.push(1);
            put(&mut self.extras, name);
            put(&mut self.extras, value);
        }
        self.extras.push(0);
        u32::try_from(at).ok().filter(|at| *at != NONE).ok_or(TableError::TooLarge)
    }

    fn set_children(&mut self, index: usize, first: usize, count: usize) {
        let at = index * ROW_BYTES + 20;
        for (at, number) in [(at, first), (at + 4, count)] {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            self.rows[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
    }

    fn assemble(self, rows: usize, beside: &Beside) -> Result<Vec<u8>, TableError> {
        let length = |length: usize| {
            u32::try_from(length).ok().filter(|length| *length != NONE).ok_or(TableError::TooLarge)
        };
        let kept = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(Ok(NONE), |b| length(b.len()));
        let mut flags = if self.loose { trait_flag::LOOSE } else { 0 };
        if beside.states_root {
            flags |= trait_flag::STATES_ROOT;
        }
        let header = [
            length(rows)?,
            length(self.names.len())?,
            length(self.extras.len())?,
            kept(&beside.passwd)?,
            kept(&beside.group)?,
            flags,
        ];
        let parts = [&self.rows, &self.names, &self.extras];
        let mut bytes = Vec::with_capacity(
            HEADER_BYTES
                + parts.iter().map(|part| part.len()).sum::<usize>()
                + beside.passwd.as_ref().map_or(0, Vec::len)
                + beside.group.as_ref().map_or(0, Vec::len),
        );
        bytes.extend_from_slice(MAGIC);
        header.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        for part in [&beside.passwd, &beside.group].into_iter().flatten() {
            bytes.extend_from_slice(part);
        }
        Ok(bytes)
    }
}

/// Returns the kind, the flags, and the two numbers that depend on the kind.
fn fields<T>(node: &Node<T>) -> (u8, u8, (u32, u32)) {
    match &node.what {
        What::File => {
            let halves = (node.size & u64::from(u32::MAX), node.size >> 32);
            let half = |half| u32::try_from(half).unwrap_or_default();
            (kind::FILE, 0, (half(halves.0), half(halves.1)))
        }
        What::Directory { opaque, implicit } => {
            let opaque = if *opaque { flag::OPAQUE } else { 0 };
            (kind::DIRECTORY, opaque | if *implicit { flag::IMPLICIT } else { 0 }, (0, 0))
        }
        What::Symlink(_) => (kind::SYMLINK, 0, (0, 0)),
        What::CharDevice(major, minor) => (kind::CHAR, 0, (*major, *minor)),
        What::BlockDevice(major, minor) => (kind::BLOCK, 0, (*major, *minor)),
        What::Fifo => (kind::FIFO, 0, (0, 0)),
        What::Whiteout => (kind::WHITEOUT, 0, (0, 0)),
        What::Downward(_) => (kind::DOWNWARD, 0, (0, 0)),
    }
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(part);
}
