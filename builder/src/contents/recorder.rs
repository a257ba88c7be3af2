//! Recording a table while a layer's entries pass by.
//!
//! An archive is read as if it were unpacked ([`apply`](crate::layer::apply())), as far as that can be
//! told without what lies beneath: a later entry replaces an earlier one, paths lead through the
//! layer's own links. A directory without an entry, and a hard link to what the layer does not have,
//! are noted as such; a [`View`](super::View) finishes them.

use std::collections::VecDeque;

use super::growing::{Beside, Node, What, freeze};
use super::table::{Row, Table, TableError};
use super::view::{Attributes, Shown, View};
use crate::execute::user::FILE_BYTES_MAX;
use crate::layer::entry::DEPTH_MAX;
use crate::layer::{Entry, EntryPath, Kind};

/// As many as Linux follows.
const LINKS_MAX: usize = 40;

/// A table under construction.
#[derive(Debug)]
pub struct Recorder<'a> {
    root: Node<()>,
    beside: Beside,
    groups: u32,
    /// What lies beneath, if that is known.
    beneath: Option<&'a View>,
}

/// Which of the files that a table keeps whole an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Passwd,
    Group,
}

impl Kept {
    /// Says whether the content of an entry is to be kept.
    pub(crate) fn of(entry: &Entry) -> Option<Kept> {
        let kept = Self::at(entry.path.as_bytes())?;
        (entry.kind == Kind::File && entry.size <= FILE_BYTES_MAX).then_some(kept)
    }

    fn at(path: &[u8]) -> Option<Kept> {
        match path {
            b"etc/passwd" => Some(Kept::Passwd),
            b"etc/group" => Some(Kept::Group),
            _ => None,
        }
    }
}

impl Default for Recorder<'_> {
    fn default() -> Self {
        Self { root: Node::implicit(), beside: Beside::default(), groups: 0, beneath: None }
    }
}

impl<'a> Recorder<'a> {
    /// Starts a table above layers that are known: nothing in it will be left open.
    pub(super) fn above(beneath: &'a View) -> Self {
        Self { beneath: Some(beneath), ..Self::default() }
    }

    /// Adds all that another table says.
    pub(crate) fn add_table(&mut self, table: &Table) -> Result<(), TableError> {
        let opaque = |path| Entry::new(path, Kind::OpaqueWhiteout, 0);
        if table.states_root() {
            self.add(&table.root().entry(EntryPath::root()), &[0; 32])?;
        }
        if table.root().is_opaque() {
            self.add(&opaque(EntryPath::root()), &[0; 32])?;
        }
        for (path, row) in table.rows() {
            if !row.is_implicit() {
                self.add(&row.entry(path.clone()), &row.content())?;
            }
            if row.is_opaque() {
                self.add(&opaque(path), &[0; 32])?;
            }
        }
        self.beside.passwd = table.passwd().map(<[u8]>::to_vec);
        self.beside.group = table.group().map(<[u8]>::to_vec);
        Ok(())
    }

    /// Adds an entry as an archive has it, whiteouts interpreted; a later one replaces an earlier.
    /// `content` is the BLAKE3 of a file's bytes.
    ///
    /// # Errors
    /// Fails on an entry that could not be unpacked.
    pub fn add(&mut self, entry: &Entry, content: &[u8; 32]) -> Result<(), TableError> {
        let Some(name) = entry.path.name() else { return self.root_entry(entry) };
        match &entry.kind {
            // What overlayfs itself would read as a whiteout has its effect wherever it runs.
            Kind::Whiteout | Kind::CharDevice { major: 0, minor: 0 } => {
                return self.whiteout(&entry.path, name);
            }
            Kind::OpaqueWhiteout => return self.opaque(&entry.path),
            _ => {}
        }
        let parent = self.make(&entry.path, &entry.path.parent().unwrap_or_default())?;
        let at = parent.join(name);
        match &entry.kind {
            Kind::Directory => self.directory(&parent, name, entry),
            Kind::HardLink { target } => return self.hard_link(&parent, name, entry, target),
            _ => self.put(&parent, name, Node::of(entry, content)),
        }
        // Only what is recorded after this is kept.
        match Kept::at(at.as_bytes()) {
            Some(Kept::Passwd) => self.beside.passwd = None,
            Some(Kept::Group) => self.beside.group = None,
            None => {}
        }
        Ok(())
    }

    /// Keeps the bytes of a file that was just added.
    pub(crate) fn keep(&mut self, kept: Kept, bytes: Vec<u8>) {
        match kept {
            Kept::Passwd => self.beside.passwd = Some(bytes),
            Kept::Group => self.beside.group = Some(bytes),
        }
    }

    /// Ends the table.
    ///
    /// # Errors
    /// Fails if it became too large.
    pub fn finish(mut self) -> Result<Table, TableError> {
        // What was kept counts only if it is still there.
        let is_file = |path: &[u8]| {
            let path = EntryPath::parse(path).unwrap_or_default();
            self.root.get(&path).is_some_and(|node| node.what == What::File && node.group == 0)
        };
        let (passwd, group) = (is_file(b"etc/passwd"), is_file(b"etc/group"));
        self.beside.passwd.take_if(|_| !passwd);
        self.beside.group.take_if(|_| !group);
        freeze(self.root, &self.beside).map(|(table, _)| table)
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), TableError> {
        match entry.kind {
            Kind::OpaqueWhiteout => self.hide(&EntryPath::root()),
            Kind::Directory => {
                let stated = Node::of(entry, &[0; 32]);
                let opaque = self.is_opaque(&EntryPath::root());
                let children = std::mem::take(&mut self.root.children);
                let what = What::Directory { opaque, implicit: false };
                self.root = Node { what, children, ..stated };
                self.beside.states_root = true;
            }
            _ => return Err(TableError::RootReplaced),
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &EntryPath, name: &[u8]) -> Result<(), TableError> {
        let Some(parent) = self.enter(path, &path.parent().unwrap_or_default(), false)? else {
            return Ok(());
        };
        let nothing_beneath = self.beneath.is_some_and(|_| {
            self.is_hidden(&parent) || matches!(self.shown(&parent.join(name)), Shown::Nothing)
        });
        let Some(directory) = self.root.get_mut(&parent) else { return Ok(()) };
        match directory.children.get_mut(name) {
            None if nothing_beneath => {}
            None => drop(directory.children.insert(name.into(), Node::new(What::Whiteout, 0))),
            // This layer put a directory here: a whiteout means only what lies beneath it.
            Some(there) => {
                if let What::Directory { opaque, .. } = &mut there.what {
                    *opaque = true;
                }
            }
        }
        Ok(())
    }

    fn opaque(&mut self, path: &EntryPath) -> Result<(), TableError> {
        if let Some(directory) = self.enter(path, path, false)? {
            self.hide(&directory);
        }
        Ok(())
    }

    fn hide(&mut self, directory: &EntryPath) {
        if let Some(Node { what: What::Directory { opaque, .. }, .. }) =
            self.root.get_mut(directory)
        {
            *opaque = true;
        }
    }

    fn is_opaque(&self, directory: &EntryPath) -> bool {
        let there = self.root.get(directory).map(|node| &node.what);
        matches!(there, Some(What::Directory { opaque: true, .. }))
    }

    fn directory(&mut self, parent: &EntryPath, name: &[u8], entry: &Entry) {
        let mut node = Node::of(entry, &[0; 32]);
        let Some(directory) = self.root.get_mut(parent) else { return };
        let hides = match directory.children.remove(name) {
            Some(Node { what: What::Directory { opaque, .. }, children, .. }) => {
                node.children = children;
                opaque
            }
            // What stood here hid what lies beneath, and the directory in its place must go on to.
            Some(_) => true,
            None => false,
        };
        node.what = What::Directory { opaque: hides, implicit: false };
        directory.children.insert(name.into(), node);
    }

    fn put(&mut self, parent: &EntryPath, name: &[u8], node: Node<()>) {
        if let Some(directory) = self.root.get_mut(parent) {
            directory.children.insert(name.into(), node);
        }
    }

    fn hard_link(
        &mut self,
        parent: &EntryPath,
        name: &[u8],
        entry: &Entry,
        target: &EntryPath,
    ) -> Result<(), TableError> {
        let wrong = || TableError::LinkTarget { path: entry.path.clone(), target: target.clone() };
        let target_name = target.name().ok_or_else(wrong)?;
        let target_parent = self.look(&entry.path, &target.parent().unwrap_or_default())?;
        let target_path =
            target_parent.map_or_else(|| target.clone(), |parent| parent.join(target_name));
        if target_path == parent.join(name) {
            return Ok(());
        }
        let groups = &mut self.groups;
        let linked = match self.root.get_mut(&target_path) {
            Some(there) if there.is_directory() || there.what == What::Whiteout => {
                return Err(wrong());
            }
            Some(there) => {
                if there.group == 0 && !matches!(there.what, What::Downward(_)) {
                    *groups += 1;
                    there.group = *groups;
                }
                there.clone()
            }
            None => match self.beneath_of(&target_path) {
                Some(row) => {
                    let entry = Entry { kind: row.kind(), ..row.entry(entry.path.clone()) };
                    Node::of(&Entry { size: row.size(), ..entry }, &row.content())
                }
                None => {
                    let kind = Kind::HardLink { target: target_path };
                    Node::of(&Entry { kind, ..entry.clone() }, &[0; 32])
                }
            },
        };
        self.put(parent, name, linked);
        Ok(())
    }

    /// Finds a directory, and makes it where it is missing; returns where it is. `entry` is the path
    /// for errors.
    fn make(&mut self, entry: &EntryPath, directory: &EntryPath) -> Result<EntryPath, TableError> {
        self.enter(entry, directory, true)
            .map(|entered| entered.unwrap_or_else(|| directory.clone()))
    }

    /// The same; where nothing lies beneath, a directory that is missing is made only with `make`.
    fn enter(
        &mut self,
        entry: &EntryPath,
        directory: &EntryPath,
        make: bool,
    ) -> Result<Option<EntryPath>, TableError> {
        let plain = self.root.get(directory).is_some_and(Node::is_directory);
        if plain && directory.components().count() <= DEPTH_MAX {
            return Ok(Some(directory.clone()));
        }
        let mut way = Way::to(directory);
        while let Some(name) = way.next(entry)? {
            let there = self.root.get(&way.path).and_then(|here| here.children.get(&*name));
            let missing = match there {
                Some(node) if node.is_directory() => {
                    way.go(&name);
                    continue;
                }
                Some(Node { what: What::Symlink(target), .. }) => {
                    way.follow(target);
                    continue;
                }
                Some(node) if node.what == What::Whiteout => {
                    Node::new(What::Directory { opaque: true, implicit: false }, 0o755)
                }
                Some(_) if make => {
                    let (path, file) = (entry.clone(), way.path.join(&name));
                    return Err(TableError::ParentNotDirectory { path, file });
                }
                Some(_) => return Ok(None),
                None => match self.missing(&way.path, &name, make) {
                    Missing::Node(node) => *node,
                    Missing::Link(target) => {
                        way.follow(&target);
                        continue;
                    }
                    Missing::Nothing => return Ok(None),
                },
            };
            if let Some(here) = self.root.get_mut(&way.path) {
                here.children.insert(name.clone(), missing);
            }
            way.go(&name);
        }
        Ok(Some(way.path))
    }

    /// Says what becomes of a directory that the layer has no entry for.
    fn missing(&self, parent: &EntryPath, name: &[u8], make: bool) -> Missing {
        if self.beneath.is_none() {
            return Missing::Node(Box::new(Node::implicit()));
        }
        let shown = match self.is_hidden(parent) {
            true => Shown::Nothing,
            false => self.shown(&parent.join(name)),
        };
        let directory = What::Directory { opaque: false, implicit: false };
        match shown {
            Shown::Directory(beneath) => {
                let attributes = Attributes::of(beneath.top().map(|(_, row)| row));
                let xattrs = attributes.xattrs;
                Missing::Node(Box::new(Node {
                    uid: attributes.uid,
                    gid: attributes.gid,
                    seconds: attributes.mtime.seconds,
                    xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
                    ..Node::new(directory, attributes.mode)
                }))
            }
            Shown::Object(_, row) if matches!(row.kind(), Kind::Symlink { .. }) => {
                Missing::Link(row.link().to_vec())
            }
            _ if make => Missing::Node(Box::new(Node::new(directory, 0o755))),
            _ => Missing::Nothing,
        }
    }

    fn shown(&self, path: &EntryPath) -> Shown<'a> {
        self.beneath.map_or(Shown::Nothing, |beneath| beneath.shown(path))
    }

    /// Reports whether this layer hides what lies beneath a directory of its own.
    fn is_hidden(&self, directory: &EntryPath) -> bool {
        let mut above = Some(directory.clone());
        while let Some(path) = above {
            if self.is_opaque(&path) {
                return true;
            }
            above = path.parent();
        }
        false
    }

    /// Returns the file of a layer beneath that a hard link means.
    fn beneath_of(&self, target: &EntryPath) -> Option<Row<'a>> {
        let parent = target.parent().unwrap_or_default();
        match self.shown(target) {
            Shown::Object(_, row) if !self.is_hidden(&parent) => Some(row),
            _ => None,
        }
    }

    /// Finds a directory that the layer itself has; `None` where it does not.
    fn look(
        &self,
        entry: &EntryPath,
        directory: &EntryPath,
    ) -> Result<Option<EntryPath>, TableError> {
        let mut way = Way::to(directory);
        while let Some(name) = way.next(entry)? {
            match self.root.get(&way.path).and_then(|here| here.children.get(&*name)) {
                Some(node) if node.is_directory() => way.go(&name),
                Some(Node { what: What::Symlink(target), .. }) => way.follow(target),
                _ => return Ok(None),
            }
        }
        Ok(Some(way.path))
    }
}

/// What becomes of a directory that the layer has no entry for.
enum Missing {
    /// It is made.
    Node(Box<Node<()>>),
    /// It is a link of a layer beneath.
    Link(Vec<u8>),
    Nothing,
}

/// A path that is walked component by component, through links.
struct Way {
    path: EntryPath,
    depth: usize,
    links: usize,
    pending: VecDeque<Box<[u8]>>,
}

impl Way {
    fn to(path: &EntryPath) -> Way {
        let pending = path.components().map(Into::into).collect();
        Way { path: EntryPath::root(), depth: 0, links: 0, pending }
    }

    /// Takes the next component that is a name.
    fn next(&mut self, entry: &EntryPath) -> Result<Option<Box<[u8]>>, TableError> {
        if self.links > LINKS_MAX {
            return Err(TableError::TooManyLinks(entry.clone()));
        }
        while let Some(name) = self.pending.pop_front() {
            match &*name {
                b"" | b"." => {}
                b".." => {
                    self.depth = self.depth.saturating_sub(1);
                    self.path = self.path.parent().unwrap_or_default();
                }
                _ if self.depth >= DEPTH_MAX => return Err(TableError::TooDeep(entry.clone())),
                _ => return Ok(Some(name)),
            }
        }
        Ok(None)
    }

    fn go(&mut self, name: &[u8]) {
        self.depth += 1;
        self.path = self.path.join(name);
    }

    fn follow(&mut self, target: &[u8]) {
        self.links += 1;
        if target.starts_with(b"/") {
            (self.path, self.depth) = (EntryPath::root(), 0);
        }
        for component in target.split(|byte| *byte == b'/').rev() {
            self.pending.push_front(component.into());
        }
    }
}
