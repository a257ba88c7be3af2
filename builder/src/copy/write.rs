//! The second half of a COPY: the layer.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::plan::{Chosen, Made, Node, Placed, Plan, absolute};
use super::read::{Ahead, Bytes, Job, Jobs, ReadFailure, read_ahead};
use super::selection::Selection;
use super::{CopyError, Entries, Source};
use crate::contents::View;
use crate::contents::resolve::plain;
use crate::layer::entry::is_written_xattr;
use crate::layer::hashed::HashedRead;
use crate::layer::{Entry, EntryPath, Kind, Mtime};

/// Where what was selected goes, and what becomes of it there.
#[derive(Clone, Copy)]
pub struct Landing<'a> {
    /// The tree below; an empty one for `--link`.
    pub below: &'a View,
    /// The destination, absolute; a directory if it ends in `/`.
    pub destination: &'a str,
    /// Who owns what is made; what the source says, or root, if nobody is named.
    pub owner: Option<(u32, u32)>,
    /// Makes the mode of an entry from the one it has: `--chmod`.
    pub mode: Option<&'a dyn Fn(u32, bool) -> u32>,
    /// Archives are unpacked: ADD.
    pub unpack: bool,
    /// The time of directories that are made, and of heredocs.
    pub now: Mtime,
    /// Threads that read ahead.
    pub threads: usize,
    /// A directory for the contents of archives that are unpacked.
    pub scratch: &'a Path,
}

impl Landing<'_> {
    /// Returns what directories get that have to be made.
    pub(super) fn made(&self) -> Made {
        let mode = self.mode.map_or(0o755, |mode| mode(0o755, true));
        Made { owner: self.owner.unwrap_or((0, 0)), mode, mtime: self.now }
    }
}

/// Writes the entries of the layer that copies what was selected, in order.
///
/// # Errors
/// Where kinds conflict, a file changed since it was selected, or something cannot be read or
/// written.
pub fn write(
    selections: &[Selection<'_>],
    landing: &Landing<'_>,
    out: &mut dyn Entries,
) -> Result<(), CopyError> {
    let mut plan = Plan::new(landing.below, landing.now);
    for selection in selections {
        plan.land(selection, landing)?;
    }
    emit(&plan, landing, out)
}

/// Writes the entries of the layer that makes a directory and those above it: WORKDIR. None where it
/// is there already.
///
/// # Errors
/// Where something else is in the way, or the layer cannot be written.
pub fn make_directory(
    below: &View,
    path: &str,
    owner: (u32, u32),
    now: Mtime,
    out: &mut dyn Entries,
) -> Result<(), CopyError> {
    let mut plan = Plan::new(below, now);
    let path = plain(&EntryPath::root(), path.as_bytes());
    plan.make_directory(&EntryPath::root(), &path, Made { owner, mode: 0o755, mtime: now })?;
    let landing = Landing {
        below,
        destination: "/",
        owner: None,
        mode: None,
        unpack: false,
        now,
        threads: 1,
        scratch: Path::new("/"),
    };
    emit(&plan, &landing, out)
}

/// An entry of the layer.
struct Listed<'p, 'a> {
    path: EntryPath,
    node: &'p Node<'a>,
    /// The first name of an object that has several.
    first: Option<Box<EntryPath>>,
}

/// Lists a plan in the order of a layer. Directories that are there already are part of it only if
/// something below them is.
struct Listing<'p, 'a> {
    listed: Vec<Listed<'p, 'a>>,
    /// The first names of groups.
    first: HashMap<u32, EntryPath>,
}

impl<'p, 'a> Listing<'p, 'a> {
    fn list(&mut self, directory: &'p Node<'a>, path: &EntryPath) {
        for (name, node) in &directory.children {
            let path = path.join(name);
            let before = self.listed.len();
            let first = self.first.get(&node.group).cloned().map(Box::new);
            if node.group != 0 && first.is_none() {
                self.first.insert(node.group, path.clone());
            }
            self.listed.push(Listed { path: path.clone(), node, first });
            self.list(node, &path);
            if matches!(node.what, Placed::There) && self.listed.len() == before + 1 {
                self.listed.pop();
            }
        }
    }
}

fn emit(plan: &Plan<'_>, landing: &Landing<'_>, out: &mut dyn Entries) -> Result<(), CopyError> {
    let mut listing = Listing { listed: Vec::new(), first: HashMap::new() };
    listing.list(&plan.root, &EntryPath::root());
    let listed = listing.listed;
    let files = Files(listed.iter().filter(|listed| listed.has_content()).collect());
    read_ahead(&files, landing.threads, |ahead| {
        listed.iter().try_for_each(|listed| {
            let entry = listed.entry(plan, landing);
            match ahead.next_if(listed.has_content()) {
                Some(content) => append_file(out, entry, content, &listed.source()),
                None => append(out, entry),
            }
        })
    })
}

/// The entries with content.
struct Files<'l, 'p, 'a>(Vec<&'l Listed<'p, 'a>>);

impl Jobs for Files<'_, '_, '_> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn job(&self, number: usize) -> Option<Job<'_>> {
        self.0.get(number).and_then(|listed| listed.job())
    }
}

fn append(out: &mut dyn Entries, entry: Entry) -> Result<(), CopyError> {
    out.append(entry, &mut HashedRead::new(&mut io::empty())).map_err(CopyError::Write)
}

fn append_file(
    out: &mut dyn Entries,
    entry: Entry,
    mut content: Ahead<'_>,
    source: &str,
) -> Result<(), CopyError> {
    let appended = out.append(entry, &mut content);
    match content.failure() {
        Some(ReadFailure::Changed) => Err(CopyError::Changed { path: source.to_owned() }),
        Some(ReadFailure::Io(source_error)) => {
            let path = source.to_owned();
            Err(CopyError::Io { doing: "read", path, source: source_error })
        }
        None => appended.map_err(CopyError::Write),
    }
}

impl Listed<'_, '_> {
    fn has_content(&self) -> bool {
        self.first.is_none()
            && match &self.node.what {
                Placed::Selected(chosen) => chosen.row.kind() == Kind::File,
                Placed::Unpacked(unpacked) => unpacked.content.is_some(),
                Placed::There | Placed::Made(_) => false,
            }
    }

    fn job(&self) -> Option<Job<'_>> {
        match &self.node.what {
            Placed::Selected(chosen) => Some(Job {
                bytes: chosen.bytes(&self.path),
                size: chosen.row.size(),
                digest: chosen.row.content(),
            }),
            Placed::Unpacked(unpacked) => unpacked.content.as_ref().map(|content| Job {
                bytes: Bytes::Spool(&content.file, content.offset),
                size: unpacked.entry.size,
                digest: content.digest,
            }),
            Placed::There | Placed::Made(_) => None,
        }
    }

    /// Returns what messages call the source of a file.
    fn source(&self) -> String {
        match &self.node.what {
            Placed::Selected(chosen) => {
                String::from_utf8_lossy(chosen.origin(&self.path).as_bytes()).into_owned()
            }
            _ => absolute(&self.path),
        }
    }

    fn entry(&self, plan: &Plan<'_>, landing: &Landing<'_>) -> Entry {
        let path = self.path.clone();
        let mut entry = match &self.node.what {
            Placed::There => plan.there(path),
            Placed::Made(made) => Entry {
                uid: made.owner.0,
                gid: made.owner.1,
                mtime: made.mtime,
                ..Entry::new(path, Kind::Directory, made.mode)
            },
            Placed::Selected(chosen) => chosen.entry(path, landing),
            Placed::Unpacked(unpacked) => Entry { path, ..unpacked.entry.clone() },
        };
        entry.xattrs.retain(|name, _| is_written_xattr(name));
        if let Some(target) = &self.first {
            entry.kind = Kind::HardLink { target: EntryPath::clone(target) };
            entry.size = 0;
        }
        entry
    }
}

impl Chosen<'_> {
    /// Returns where it came from; `path` is where it goes.
    fn origin(&self, path: &EntryPath) -> EntryPath {
        let landed = match self.renamed {
            true => EntryPath::root().join(self.row.name()),
            false => path.components().skip(self.depth).fold(EntryPath::root(), |at, n| at.join(n)),
        };
        self.selection.origin(self.part, self.row, &landed)
    }

    fn bytes(&self, path: &EntryPath) -> Bytes<'_> {
        self.selection.bytes(self.part, self.row, self.origin(path))
    }

    fn entry(&self, path: EntryPath, landing: &Landing<'_>) -> Entry {
        let row = self.row;
        let mut entry = row.entry(path);
        (entry.kind, entry.size) = (row.kind(), row.size());
        (entry.uid, entry.gid) = landing.owner.unwrap_or((entry.uid, entry.gid));
        let is_symlink = matches!(entry.kind, Kind::Symlink { .. });
        if let Some(change) = landing.mode.filter(|_| !is_symlink) {
            entry.mode = change(entry.mode, row.is_directory());
        }
        if matches!(self.selection.source, Source::Heredoc { .. }) {
            entry.mtime = landing.now;
        }
        entry
    }
}
