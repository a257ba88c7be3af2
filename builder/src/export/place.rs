//! Where exported files go: an archive or a directory.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::ExportError;
use crate::layer::tar::Writer;
use crate::layer::{Entry, EntryPath, Kind};

/// Takes files by name, in the order in which they come.
pub(crate) trait Place {
    /// Makes a directory.
    fn directory(&mut self, name: &str) -> io::Result<()>;
    /// Writes a file of exactly `size` bytes.
    fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> io::Result<()>;
}

impl<W: Write> Place for Writer<W> {
    fn directory(&mut self, name: &str) -> io::Result<()> {
        self.append(&Entry::new(path(name)?, Kind::Directory, 0o755), &mut io::empty())
    }

    fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let entry = Entry { size, ..Entry::new(path(name)?, Kind::File, 0o644) };
        self.append(&entry, content)
    }
}

fn path(name: &str) -> io::Result<EntryPath> {
    EntryPath::parse(name.as_bytes()).map_err(io::Error::other)
}

/// A directory in which there is nothing yet.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Makes a directory, or takes an empty one.
    pub(super) fn new(path: &Path) -> Result<Directory, ExportError> {
        let failed = |source| ExportError::Directory { directory: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        match fs::read_dir(path).map_err(failed)?.next() {
            None => Ok(Directory(path.to_owned())),
            Some(_) => Err(ExportError::NotEmpty(path.to_owned())),
        }
    }
}

impl Place for Directory {
    fn directory(&mut self, name: &str) -> io::Result<()> {
        fs::create_dir_all(self.0.join(name))
    }

    fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut file = fs::File::create(self.0.join(name))?;
        let written = io::copy(content, &mut file)?;
        if written != size {
            return Err(io::Error::other(format!("there are {written} bytes, not {size}")));
        }
        Ok(())
    }
}

/// Writes files, each name once.
pub(crate) struct Files<'a> {
    place: &'a mut dyn Place,
    written: BTreeSet<String>,
}

impl<'a> Files<'a> {
    pub(super) fn new(place: &'a mut dyn Place) -> Self {
        Self { place, written: BTreeSet::new() }
    }

    pub(super) fn directory(&mut self, name: &str) -> Result<(), ExportError> {
        if !self.written.insert(name.to_owned()) {
            return Ok(());
        }
        self.place.directory(name).map_err(|source| write_error(name, source))
    }

    pub(super) fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        let mut content = bytes;
        self.stream(name, bytes.len() as u64, &mut content)
    }

    pub(super) fn stream(
        &mut self,
        name: &str,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), ExportError> {
        if !self.written.insert(name.to_owned()) {
            return Ok(());
        }
        self.place.file(name, size, content).map_err(|source| write_error(name, source))
    }

    /// Says whether a file was written already, so that its bytes need not be made again.
    pub(super) fn has(&self, name: &str) -> bool {
        self.written.contains(name)
    }
}

fn write_error(name: &str, source: io::Error) -> ExportError {
    ExportError::Write { name: name.to_owned(), source }
}
