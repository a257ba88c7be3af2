//! What will be in the layer: the entries that land, and the directories above them.
//!
//! A plan is a tree above the one below it, which is never changed: what is planned for a path hides
//! what lies there. Directories that are there already stay what they are; they are in the plan
//! because no entry of a layer is without its parents.

use std::collections::BTreeMap;

use super::selection::{Part, Selection};
use super::unpack::Unpacked;
use super::{CopyError, Landing};
use crate::contents::Row;
use crate::contents::resolve::{Led, Lies, Names, follow, plain, resolve};
use crate::contents::view::{Attributes, Shown, View, ViewDir};
use crate::layer::entry::{DEPTH_MAX, PATH_BYTES_MAX};
use crate::layer::{Entry, EntryPath, Mtime};

/// A layer under construction.
pub(super) struct Plan<'a> {
    below: &'a View,
    now: Mtime,
    pub(super) root: Node<'a>,
    groups: u32,
}

/// What is planned for a path.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) what: Placed<'a>,
    /// The group of names of one object; 0 for none.
    pub(super) group: u32,
    pub(super) children: BTreeMap<Box<[u8]>, Node<'a>>,
}

#[derive(Clone, Debug)]
pub(super) enum Placed<'a> {
    /// A directory that is there already.
    There,
    /// A directory that is made.
    Made(Made),
    /// What was selected.
    Selected(Chosen<'a>),
    /// What came out of an archive.
    Unpacked(Box<Unpacked>),
}

/// A row of a selection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen<'a> {
    pub(super) selection: &'a Selection<'a>,
    pub(super) part: &'a Part,
    pub(super) row: Row<'a>,
    /// How many components of the path in the image are those of the destination.
    pub(super) depth: usize,
    /// It is a file that got the name of the destination, or may have got it.
    pub(super) renamed: bool,
}

/// What a directory gets that had to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) owner: (u32, u32),
    pub(super) mode: u32,
    pub(super) mtime: Mtime,
}

impl Placed<'_> {
    fn is_directory(&self) -> bool {
        match self {
            Placed::There | Placed::Made(_) => true,
            Placed::Selected(chosen) => chosen.row.is_directory(),
            Placed::Unpacked(unpacked) => unpacked.is_directory(),
        }
    }

    pub(super) fn lies(&self) -> Lies {
        if self.is_directory() {
            return Lies::Directory;
        }
        let target = match self {
            Placed::Selected(chosen) => chosen.row.symlink(),
            Placed::Unpacked(unpacked) => unpacked.symlink(),
            _ => None,
        };
        target.map_or(Lies::Other, |target| Lies::Link(target.to_vec()))
    }
}

impl<'a> Node<'a> {
    pub(super) fn new(what: Placed<'a>) -> Self {
        Self { what, group: 0, children: BTreeMap::new() }
    }
}

/// Where an instruction copies to, as it was before the first byte was copied.
#[derive(Debug)]
struct Target {
    /// A link at its end was followed.
    path: EntryPath,
    /// It is a directory, or was asked to be one.
    is_directory: bool,
    exists: bool,
}

impl<'a> Plan<'a> {
    pub(super) fn new(below: &'a View, now: Mtime) -> Self {
        Self { below, now, root: Node::new(Placed::There), groups: 0 }
    }

    /// Plans what was selected.
    pub(super) fn land(
        &mut self,
        selection: &'a Selection<'a>,
        landing: &Landing<'_>,
    ) -> Result<(), CopyError> {
        let target = self.target(landing.destination)?;
        if selection.several && !target.is_directory {
            return Err(CopyError::NotADirectory { destination: landing.destination.to_owned() });
        }
        for part in &selection.parts {
            match part.table.rows().next() {
                Some((_, row)) if part.is_file => {
                    self.land_file(selection, part, row, &target, landing)?;
                }
                _ => self.land_all(selection, part, &target, landing)?,
            }
        }
        Ok(())
    }

    fn target(&self, destination: &str) -> Result<Target, CopyError> {
        let asked = destination.ends_with('/') || destination.ends_with("/.");
        let astray = || astray("look at", destination);
        let path = follow(self, destination.as_bytes())?.ok_or_else(astray)?;
        let there = match resolve(self, path.as_bytes())? {
            Led::To(_, lies) => Some(lies),
            Led::Nowhere | Led::Blocked => None,
            Led::Astray => return Err(astray()),
        };
        let is_directory = there == Some(Lies::Directory);
        if asked && there.is_some() && !is_directory {
            return Err(conflict("a file into", &path, "not a directory"));
        }
        Ok(Target { path, is_directory: asked || is_directory, exists: there.is_some() })
    }

    fn land_file(
        &mut self,
        selection: &'a Selection<'a>,
        part: &'a Part,
        row: Row<'a>,
        target: &Target,
        landing: &Landing<'_>,
    ) -> Result<(), CopyError> {
        let archive = super::unpack::open(selection, part, row, landing)?;
        if let Some(archive) = archive {
            if target.exists && !target.is_directory {
                return Err(conflict("an archive", &target.path, "a file"));
            }
            let into = self.make_directory(&EntryPath::root(), &target.path, landing.made())?;
            return archive.unpack(self, &into, landing);
        }
        let place = match target.is_directory {
            true => target.path.join(row.name()),
            false => target.path.clone(),
        };
        let parent = place.parent().unwrap_or_default();
        let parent = self.make_directory(&EntryPath::root(), &parent, landing.made())?;
        let below = self.below_directory(&parent);
        let chosen = Chosen { selection, part, row, depth: 0, renamed: true };
        let selected = Selected { chosen, first_names: BTreeMap::new() };
        let name = place.name().unwrap_or_default();
        let directory = self.node(&parent);
        selected.put(directory, below.as_ref(), name, row, &place)
    }

    fn land_all(
        &mut self,
        selection: &'a Selection<'a>,
        part: &'a Part,
        target: &Target,
        landing: &Landing<'_>,
    ) -> Result<(), CopyError> {
        if part.states_root() && target.exists && !target.is_directory {
            return Err(conflict("a directory", &target.path, "a file"));
        }
        let into = self.make_directory(&EntryPath::root(), &target.path, landing.made())?;
        if let Some(clash) = &part.conflict {
            return Err(conflict(clash.what, &join(&into, &clash.path), clash.there));
        }
        let first_names = self.first_names(part);
        let below = self.below_directory(&into);
        let root = part.table.root();
        let depth = into.components().count();
        let chosen = Chosen { selection, part, row: root, depth, renamed: false };
        let selected = Selected { chosen, first_names };
        let directory = self.node(&into);
        for row in root.children() {
            let path = into.join(row.name());
            selected.put(directory, below.as_ref(), row.name(), row, &path)?;
        }
        Ok(())
    }

    /// Gives each group of names in a part its number, by the row of the first name.
    fn first_names(&mut self, part: &Part) -> BTreeMap<u32, u32> {
        let mut numbers = BTreeMap::new();
        for (_, row) in part.table.rows() {
            let Some(first) = row.hard_link().and_then(|first| part.table.get(&first)) else {
                continue;
            };
            let group =
                *numbers.entry(first.index()).or_insert_with(|| self.groups.wrapping_add(1));
            self.groups = self.groups.max(group);
            numbers.insert(row.index(), group);
        }
        numbers
    }

    /// Returns the number of a group that a node is in from now on.
    pub(super) fn group_of(&mut self, path: &EntryPath) -> u32 {
        let next = self.groups + 1;
        let node = self.node(path);
        if node.group == 0 {
            node.group = next;
        }
        let group = node.group;
        self.groups = self.groups.max(group);
        group
    }

    /// Makes a directory and those above it where they are missing; returns where it is. The path is
    /// one inside `base`, which no link leads out of.
    pub(super) fn make_directory(
        &mut self,
        base: &EntryPath,
        path: &EntryPath,
        made: Made,
    ) -> Result<EntryPath, CopyError> {
        let made = Made { mtime: self.now, ..made };
        let (mut missing, mut asked) = (Vec::new(), path.clone());
        let mut here = loop {
            let inside = Inside { plan: self, base };
            match resolve(&inside, asked.as_bytes())? {
                Led::To(real, Lies::Directory) => break join(base, &real),
                Led::To(..) | Led::Blocked => {
                    return Err(CopyError::Io {
                        doing: "make the directory",
                        path: absolute(path),
                        source: rustix::io::Errno::NOTDIR.into(),
                    });
                }
                Led::Astray => return Err(astray("make the directory", &absolute(path))),
                Led::Nowhere => {}
            }
            // A link that leads to nothing: the directory is made where it points.
            let place = follow(&inside, asked.as_bytes())?;
            let (Some(place), true) = (place, missing.len() <= DEPTH_MAX) else {
                return Err(astray("make the directory", &absolute(path)));
            };
            let Some(name) = place.name() else { break base.clone() };
            missing.push(name.to_vec());
            asked = place.parent().unwrap_or_default();
        };
        self.node(&here);
        while let Some(name) = missing.pop() {
            let next = here.join(&name);
            check(&next)?;
            // Another name may have led here meanwhile.
            if self.look(&next)? == Lies::Nothing {
                *self.node(&next) = Node::new(Placed::Made(made));
            }
            here = next;
        }
        Ok(here)
    }

    /// Returns what is planned for a path, whose parents are directories; a directory that is there
    /// already is noted as such.
    pub(super) fn node(&mut self, path: &EntryPath) -> &mut Node<'a> {
        path.components().fold(&mut self.root, |node, name| {
            node.children.entry(name.into()).or_insert_with(|| Node::new(Placed::There))
        })
    }

    /// Returns what is planned for a path, if anything is.
    pub(super) fn planned(&self, path: &EntryPath) -> Option<&Node<'a>> {
        path.components().try_fold(&self.root, |node, name| node.children.get(name))
    }

    /// Returns a directory as it is below.
    pub(super) fn below_directory(&self, path: &EntryPath) -> Option<ViewDir<'a>> {
        match self.below.shown(path) {
            Shown::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Returns the entry of a directory that is there already.
    pub(super) fn there(&self, path: EntryPath) -> Entry {
        let seen = self.below.get(&path);
        let attributes = Attributes::of(seen.and_then(|seen| seen.row));
        Entry {
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: attributes.mtime,
            xattrs: attributes.xattrs,
            ..Entry::new(path, crate::layer::Kind::Directory, 0)
        }
    }
}

impl Names for Plan<'_> {
    type Error = CopyError;

    fn look(&self, path: &EntryPath) -> Result<Lies, CopyError> {
        match self.planned(path) {
            Some(Node { what: Placed::There, .. }) | None => {
                let Ok(lies) = self.below.look(path);
                Ok(lies)
            }
            Some(node) => Ok(node.what.lies()),
        }
    }
}

/// The plan below a directory, as if that were the root.
pub(super) struct Inside<'p, 'a> {
    pub(super) plan: &'p Plan<'a>,
    pub(super) base: &'p EntryPath,
}

impl Names for Inside<'_, '_> {
    type Error = CopyError;

    fn look(&self, path: &EntryPath) -> Result<Lies, CopyError> {
        self.plan.look(&join(self.base, path))
    }
}

/// A part that lands.
struct Selected<'a> {
    /// What all its rows have in common.
    chosen: Chosen<'a>,
    /// The groups of names, by the numbers of rows.
    first_names: BTreeMap<u32, u32>,
}

impl<'a> Selected<'a> {
    /// Puts a row under a name into a directory, with all below it.
    fn put(
        &self,
        directory: &mut Node<'a>,
        below: Option<&ViewDir<'_>>,
        name: &[u8],
        row: Row<'a>,
        path: &EntryPath,
    ) -> Result<(), CopyError> {
        check(path)?;
        let shown = below.map_or(Shown::Nothing, |below| below.child(name));
        let planned = directory.children.get_mut(name);
        let there = match (&planned, &shown) {
            (Some(node), _) => Some(node.what.is_directory()),
            (None, Shown::Nothing) => None,
            (None, Shown::Directory(_)) => Some(true),
            (None, Shown::Object(..)) => Some(false),
        };
        match (row.is_directory(), there) {
            (true, Some(false)) => return Err(conflict("a directory", path, "not a directory")),
            (false, Some(true)) => return Err(conflict("a file", path, "a directory")),
            _ => {}
        }
        let what = Placed::Selected(Chosen { row, ..self.chosen });
        let group = self.first_names.get(&row.index()).copied().unwrap_or_default();
        if !row.is_directory() {
            let node = Node { what, group, children: BTreeMap::new() };
            directory.children.insert(name.into(), node);
            return Ok(());
        }
        let node = match planned {
            Some(node) => {
                node.what = what;
                node
            }
            None => directory.children.entry(name.into()).or_insert(Node::new(what)),
        };
        let below = match &shown {
            Shown::Directory(below) => Some(below),
            _ => None,
        };
        row.children().try_for_each(|child| {
            self.put(node, below, child.name(), child, &path.join(child.name()))
        })
    }
}

/// Returns a path inside a directory seen from the root.
pub(super) fn join(base: &EntryPath, path: &EntryPath) -> EntryPath {
    plain(base, path.as_bytes())
}

pub(super) fn absolute(path: &EntryPath) -> String {
    format!("/{}", String::from_utf8_lossy(path.as_bytes()))
}

pub(super) fn conflict(what: &'static str, path: &EntryPath, there: &'static str) -> CopyError {
    CopyError::Conflict { what, path: absolute(path), there }
}

fn astray(doing: &'static str, path: &str) -> CopyError {
    CopyError::Io { doing, path: path.to_owned(), source: rustix::io::Errno::LOOP.into() }
}

/// Refuses what no layer can hold.
pub(super) fn check(path: &EntryPath) -> Result<(), CopyError> {
    if path.name().is_some_and(crate::layer::whiteout::is_reserved) {
        return Err(CopyError::Reserved { path: absolute(path) });
    }
    if path.as_bytes().len() > PATH_BYTES_MAX || path.components().count() > DEPTH_MAX {
        return Err(CopyError::TooDeep { path: absolute(path) });
    }
    Ok(())
}
