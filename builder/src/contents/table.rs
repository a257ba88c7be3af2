//! One layer's table of contents.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::layer::{ContentId, ContentTimes, Entry, EntryPath, Kind, Mtime, Xattrs};

/// The sorted entries of a layer with the BLAKE3 of each file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {}

/// Why a table cannot be made or kept.
#[derive(Debug, Error)]
pub enum TableError {
    /// More entries than a table can number.
    #[error("the layer has too many entries for a table of contents")]
    TooLarge,
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

/// One entry of a table.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    _table: &'a Table,
}

impl Table {
    /// Reads a table; `None` where there is none, or where it is damaged.
    ///
    /// # Errors
    /// Fails if the file is there and cannot be read.
    pub fn read(_path: &Path) -> Result<Option<Table>, TableError> {
        unimplemented!()
    }

    /// Writes the table whole and renames it into place.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn write(&self, _path: &Path) -> Result<(), TableError> {
        unimplemented!()
    }

    /// Returns what lies at a path, links not followed.
    pub fn get(&self, _path: &EntryPath) -> Option<Row<'_>> {
        unimplemented!()
    }

    /// Returns all entries with their paths, in the order of a sorted walk, without the root.
    pub fn rows(&self) -> impl Iterator<Item = (EntryPath, Row<'_>)> {
        std::iter::empty()
    }

    /// Returns the number of entries, without the root.
    pub fn len(&self) -> usize {
        unimplemented!()
    }

    /// Reports whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the identity of what the table says, as [`LayerWriter`](crate::layer::LayerWriter)
    /// computes it of the layer.
    pub fn content_id(&self, _times: &ContentTimes) -> ContentId {
        unimplemented!()
    }
}

impl<'a> Row<'a> {
    /// Returns the last component of its path; empty for the root.
    pub fn name(&self) -> &'a [u8] {
        unimplemented!()
    }

    /// Returns what it is. A further name of a hard-linked file is [`Kind::File`] here.
    pub fn kind(&self) -> Kind {
        unimplemented!()
    }

    /// Returns the first name of the file, if this is a further one.
    pub fn hard_link(&self) -> Option<EntryPath> {
        unimplemented!()
    }

    /// Returns its permissions.
    pub fn mode(&self) -> u32 {
        unimplemented!()
    }

    /// Returns its owner.
    pub fn uid(&self) -> u32 {
        unimplemented!()
    }

    /// Returns its group.
    pub fn gid(&self) -> u32 {
        unimplemented!()
    }

    /// Returns the bytes of a file's content, 0 for everything else.
    pub fn size(&self) -> u64 {
        unimplemented!()
    }

    /// Returns its time of modification, in whole seconds.
    pub fn mtime(&self) -> Mtime {
        unimplemented!()
    }

    /// Returns the BLAKE3 of a file's content, zeros for everything else.
    pub fn content(&self) -> [u8; 32] {
        unimplemented!()
    }

    /// Returns its extended attributes.
    pub fn xattrs(&self) -> Xattrs {
        unimplemented!()
    }

    /// Returns the entry that a layer has for it.
    pub fn entry(&self, _path: EntryPath) -> Entry {
        unimplemented!()
    }
}
