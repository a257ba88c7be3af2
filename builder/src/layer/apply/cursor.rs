//! Finding an entry's directory in the layer that is being unpacked and the layers beneath.
//!
//! The cursor stands in one directory and knows all the directories above it by descriptor, so the
//! next entry of the same directory costs nothing. It moves one component at a time, never through
//! `..` of the kernel and never through a link of the kernel: a link's target is read and its
//! components are walked in turn, from the layer's root if it is absolute.

use std::collections::VecDeque;

use rustix::io::Errno;

use super::{ApplyError, At, place};
use crate::layer::dir::{Dir, ObjectKind};
use crate::layer::entry::{DEPTH_MAX, EntryPath, Mtime, PATH_BYTES_MAX};
use crate::layer::stack::{Beneath, MergedDir};

/// As many as Linux follows.
const LINKS_MAX: usize = 40;

/// What to do about a directory that this layer does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make it: as it is beneath, or 0755 of root's.
    Make,
    /// Make it if a lower layer has it.
    MakeIfBeneath,
    /// Make nothing; stand where only a lower layer has a directory.
    Look,
}

/// How entering a directory went.
#[derive(Debug, Default)]
pub(super) struct Entered {
    /// Whether the directory exists, so that the cursor stands in it.
    pub(super) found: bool,
    /// Whether it was found, or made, with the help of lower layers.
    pub(super) relied: bool,
    /// The directories that were made, with the time that they shall have.
    pub(super) made: Vec<(EntryPath, Mtime)>,
}

/// A place in the layer that is being unpacked.
pub(super) struct Cursor {
    root: Level,
    levels: Vec<Level>,
    path: EntryPath,
}

struct Level {
    name: Vec<u8>,
    /// `None` where only a lower layer has the directory.
    own: Option<Dir>,
    /// What lies beneath; `None` until somebody asks.
    beneath: Option<MergedDir>,
}

impl Cursor {
    pub(super) fn new(own: Dir, beneath: MergedDir) -> Self {
        let root = Level { name: Vec::new(), own: Some(own), beneath: Some(beneath) };
        Self { root, levels: Vec::new(), path: EntryPath::root() }
    }

    /// Returns the layer's root.
    pub(super) fn root(&self) -> &Dir {
        self.root.own.as_ref().expect("the root was given as a directory")
    }

    /// Returns where the cursor stands, all links resolved.
    pub(super) fn path(&self) -> &EntryPath {
        &self.path
    }

    /// Returns the directory in which the cursor stands; `None` if this layer does not have it.
    pub(super) fn own(&self) -> Option<&Dir> {
        self.levels.last().unwrap_or(&self.root).own.as_ref()
    }

    /// Returns the directory in which the cursor stands, after it was entered to write there.
    pub(super) fn writable(&self) -> &Dir {
        self.own().expect("only `Missing::Look` leads where this layer has no directory")
    }

    /// Returns what the layers beneath show under a name here.
    pub(super) fn beneath(&mut self, name: &[u8]) -> Result<Beneath, Errno> {
        self.merged(self.levels.len())?.child(name)
    }

    /// Returns the names that the layers beneath show here.
    pub(super) fn names_beneath(&mut self) -> Result<Vec<Vec<u8>>, Errno> {
        self.merged(self.levels.len())?.names()
    }

    /// Goes back to the root and forgets what was cached: something that hides was put in place.
    pub(super) fn forget(&mut self) {
        self.truncate(0);
    }

    /// Moves to a directory. `entry` is the path for errors.
    pub(super) fn enter(
        &mut self,
        entry: &EntryPath,
        directory: &EntryPath,
        missing: Missing,
    ) -> Result<Entered, ApplyError> {
        let kept = self.common(directory).at("open", entry)?;
        self.truncate(kept);
        let mut pending: VecDeque<Vec<u8>> =
            directory.components().skip(kept).map(<[u8]>::to_vec).collect();
        let (mut entered, mut links) = (Entered::default(), 0);
        while let Some(name) = pending.pop_front() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    self.truncate(self.levels.len().saturating_sub(1));
                    continue;
                }
                _ => {}
            }
            match self.step(entry, &name, missing, &mut entered)? {
                Step::Into => {}
                Step::Nowhere => return Ok(entered),
                Step::Link(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(ApplyError::TooManyLinks(entry.clone()));
                    }
                    if target.starts_with(b"/") {
                        self.truncate(0);
                    }
                    for component in target.split(|byte| *byte == b'/').rev() {
                        pending.push_front(component.to_vec());
                    }
                }
            }
        }
        entered.found = true;
        Ok(entered)
    }

    /// Takes one component.
    fn step(
        &mut self,
        entry: &EntryPath,
        name: &[u8],
        missing: Missing,
        entered: &mut Entered,
    ) -> Result<Step, ApplyError> {
        let path = self.path.join(name);
        let own = match self.own() {
            Some(own) => own.stat(name).at("read", &path)?.map(|object| object.kind),
            None => None,
        };
        match own {
            Some(ObjectKind::Directory) => self.descend(entry, name, None).map(|()| Step::Into),
            Some(ObjectKind::Symlink) => {
                self.writable().read_link(name).at("read the link", &path).map(Step::Link)
            }
            Some(ObjectKind::Whiteout) if missing == Missing::Make => {
                self.writable().unlink(name).at("replace", &path)?;
                self.make(entry, name, None, entered)?;
                self.writable().set_opaque(b".").at("hide what lies beneath", &path)?;
                Ok(Step::Into)
            }
            Some(ObjectKind::Whiteout) => Ok(Step::Nowhere),
            Some(_) if missing == Missing::Make => {
                Err(ApplyError::ParentNotDirectory { path: entry.clone(), file: path })
            }
            Some(_) => Ok(Step::Nowhere),
            None => self.step_beneath(entry, name, missing, entered),
        }
    }

    /// Takes a component that this layer does not have.
    fn step_beneath(
        &mut self,
        entry: &EntryPath,
        name: &[u8],
        missing: Missing,
        entered: &mut Entered,
    ) -> Result<Step, ApplyError> {
        let path = self.path.join(name);
        match self.beneath(name).at("look beneath", &path)? {
            Beneath::Object(lower, object) if object.kind == ObjectKind::Symlink => {
                entered.relied = true;
                lower.read_link(name).at("read the link beneath", &path).map(Step::Link)
            }
            Beneath::Directory(merged) if missing == Missing::Look => {
                self.push(entry, name, None, Some(merged)).map(|()| Step::Into)
            }
            Beneath::Directory(merged) => {
                self.make(entry, name, Some(merged), entered).map(|()| Step::Into)
            }
            _ if missing == Missing::Make => {
                self.make(entry, name, None, entered).map(|()| Step::Into)
            }
            _ => Ok(Step::Nowhere),
        }
    }

    /// Makes a directory that has no entry, with the attributes that it has beneath.
    fn make(
        &mut self,
        entry: &EntryPath,
        name: &[u8],
        beneath: Option<MergedDir>,
        entered: &mut Entered,
    ) -> Result<(), ApplyError> {
        entered.relied = true;
        let path = self.path.join(name);
        let own = self.writable();
        own.make_dir(name).at("make the directory", &path)?;
        let lower = beneath.as_ref().and_then(MergedDir::top);
        let mtime = place::copy_directory_attributes(lower, own, name, &path)?;
        entered.made.push((path, mtime));
        self.descend(entry, name, beneath)
    }

    fn descend(
        &mut self,
        entry: &EntryPath,
        name: &[u8],
        beneath: Option<MergedDir>,
    ) -> Result<(), ApplyError> {
        let own = self.writable().subdir(name).at("open", &self.path.join(name))?;
        self.push(entry, name, Some(own), beneath)
    }

    fn push(
        &mut self,
        entry: &EntryPath,
        name: &[u8],
        own: Option<Dir>,
        beneath: Option<MergedDir>,
    ) -> Result<(), ApplyError> {
        let path = self.path.join(name);
        if self.levels.len() >= DEPTH_MAX || path.as_bytes().len() > PATH_BYTES_MAX {
            return Err(ApplyError::TooDeep(entry.clone()));
        }
        self.path = path;
        self.levels.push(Level { name: name.to_vec(), own, beneath });
        Ok(())
    }

    /// Returns the merged directory beneath a level, found from the nearest one above it.
    fn merged(&mut self, depth: usize) -> Result<&MergedDir, Errno> {
        let known = (0..=depth).rev().find(|depth| self.level(*depth).beneath.is_some());
        for depth in known.unwrap_or(0)..depth {
            let above = self.level(depth).beneath.clone().unwrap_or_default();
            let level = &self.levels[depth];
            let hidden = level.own.as_ref().map_or(Ok(false), Dir::is_opaque)?;
            let merged = match above.child(&level.name)? {
                Beneath::Directory(merged) if !hidden => merged,
                _ => MergedDir::default(),
            };
            self.levels[depth].beneath = Some(merged);
        }
        let level = if depth == 0 { &mut self.root } else { &mut self.levels[depth - 1] };
        Ok(level.beneath.get_or_insert_default())
    }

    fn level(&self, depth: usize) -> &Level {
        if depth == 0 { &self.root } else { &self.levels[depth - 1] }
    }

    /// Returns how many levels a path shares with where the cursor stands, as far as they are
    /// still what the layer has: an entry may have replaced one in between.
    fn common(&self, directory: &EntryPath) -> Result<usize, Errno> {
        let mut kept = 0;
        for (level, component) in self.levels.iter().zip(directory.components()) {
            let Some(own) = level.own.as_ref().filter(|_| level.name == component) else { break };
            let above = self.level(kept).own.as_ref();
            let now = above.map_or(Ok(None), |above| above.stat(component))?;
            if now.map(|object| object.identity) != Some(own.own()?.identity) {
                break;
            }
            kept += 1;
        }
        Ok(kept)
    }

    fn truncate(&mut self, depth: usize) {
        while self.levels.len() > depth {
            self.levels.pop();
            self.path = self.path.parent().unwrap_or_default();
        }
    }
}

enum Step {
    /// The cursor stands in it.
    Into,
    /// There is no such directory.
    Nowhere,
    /// It is a link with this target.
    Link(Vec<u8>),
}
