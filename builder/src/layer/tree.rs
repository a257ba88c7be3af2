//! Writing a layer's tree: what unpacking its archive would make.

use std::fs::File;
use std::io;
use std::path::Path;

use super::WriteError;
use super::apply::place;
use super::dir::Dir;
use super::entry::{Entry, EntryPath, Kind, Mtime};

/// A tree that is being written, entry by entry, in the order of a sorted walk.
#[derive(Debug)]
pub struct TreeWriter {
    root: Dir,
    /// The directories from the root to where the last entry was put.
    open: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    path: EntryPath,
    directory: Dir,
    mtime: Mtime,
}

/// A file of the tree whose content comes.
#[derive(Debug)]
pub(crate) struct TreeFile {
    file: File,
    entry: Entry,
    ends_in_hole: bool,
}

impl TreeWriter {
    /// Starts in an empty directory (`FreshLayer::tree`).
    ///
    /// # Errors
    /// Fails if the directory cannot be opened.
    pub fn new(into: &Path) -> Result<TreeWriter, WriteError> {
        let root = Dir::open(into).at(&EntryPath::root())?;
        Ok(TreeWriter { root, open: Vec::new() })
    }

    /// Makes what an entry says; a file's content comes afterwards.
    pub(crate) fn begin(&mut self, entry: &Entry) -> Result<Option<TreeFile>, WriteError> {
        let path = &entry.path;
        let Some(name) = path.name() else { return Ok(None) };
        self.leave(&path.parent().unwrap_or_default())?;
        let parent = self.open.last().map_or(&self.root, |level| &level.directory);
        let mtime = Mtime::from_seconds(entry.mtime.seconds);
        let entry = Entry { mtime, ..entry.clone() };
        match &entry.kind {
            Kind::File => {
                let file = parent.create_file(name).at(path)?;
                return Ok(Some(TreeFile { file, entry, ends_in_hole: false }));
            }
            Kind::Directory => {
                parent.make_dir(name).at(path)?;
                place::set_attributes(parent, name, &entry).at(path)?;
                let directory = parent.subdir(name).at(path)?;
                self.open.push(Level { path: path.clone(), directory, mtime: entry.mtime });
            }
            Kind::HardLink { target } => {
                let from = target.parent().unwrap_or_default();
                let from = self.root.descend(&from).at(path)?;
                parent.make_link(name, &from, target.name().unwrap_or_default()).at(path)?;
            }
            Kind::Whiteout => parent.make_whiteout(name).at(path)?,
            Kind::OpaqueWhiteout => parent.set_opaque(name).at(path)?,
            _ => {
                let made = place::make(parent, name, &entry, &mut io::empty(), &mut Vec::new());
                if made.at(path)? {
                    place::set_attributes(parent, name, &entry).at(path)?;
                }
            }
        }
        Ok(None)
    }

    /// Ends the tree.
    ///
    /// # Errors
    /// Fails if the times of directories cannot be set.
    pub fn finish(mut self) -> Result<(), WriteError> {
        self.leave(&EntryPath::root())?;
        self.root.set_own_mtime(Mtime::default()).at(&EntryPath::root())
    }

    /// Goes up to a directory. Whatever is made in one changes its time, so that is set now.
    fn leave(&mut self, directory: &EntryPath) -> Result<(), WriteError> {
        while let Some(level) = self.open.pop_if(|level| !directory.starts_with(&level.path)) {
            level.directory.set_own_mtime(level.mtime).at(&level.path)?;
        }
        Ok(())
    }
}

impl TreeFile {
    /// Writes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !bytes.is_empty() {
            self.ends_in_hole = place::write_run(&mut self.file, bytes)?;
        }
        Ok(())
    }

    /// Gives the file its attributes.
    pub(crate) fn finish(self) -> Result<(), WriteError> {
        let path = &self.entry.path;
        if self.ends_in_hole {
            self.file.set_len(self.entry.size).at(path)?;
        }
        place::set_file_attributes(&self.file, &self.entry).at(path)
    }
}

trait At<T> {
    fn at(self, path: &EntryPath) -> Result<T, WriteError>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, path: &EntryPath) -> Result<T, WriteError> {
        self.map_err(io::Error::from).at(path)
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &EntryPath) -> Result<T, WriteError> {
        self.map_err(|source| WriteError::Entry { path: path.clone(), source })
    }
}

impl<T> At<T> for Result<T, super::ApplyError> {
    fn at(self, path: &EntryPath) -> Result<T, WriteError> {
        self.map_err(io::Error::other).at(path)
    }
}
