//! Where the entries of a layer go.

use std::io::{Read, Write};

use crate::contents::{Table, TableError};
use crate::layer::tree::TreeWriter;
use crate::layer::{Entry, LayerWriter, WriteError, Written};

/// The bytes of a file, and their BLAKE3 once they were read.
pub trait Content: Read {
    /// Returns the BLAKE3 of what was read.
    fn digest(&self) -> [u8; 32];
}

/// Takes the entries of a layer in order, as [`LayerWriter`] wants them.
pub trait Entries {
    /// Takes the next entry; `content` is a file's, and is read to its end.
    ///
    /// # Errors
    /// Fails if the entry cannot be written, or its content not read.
    fn append(&mut self, entry: Entry, content: &mut dyn Content) -> Result<(), WriteError>;
}

/// Writes a layer's archive, its table, and where it is wanted its tree, in one pass.
#[derive(Debug)]
pub struct LayerOut<W> {
    archive: LayerWriter<W>,
    tree: Option<TreeWriter>,
}

impl<W: Write> LayerOut<W> {
    /// Starts a layer.
    pub fn new(archive: LayerWriter<W>, tree: Option<TreeWriter>) -> LayerOut<W> {
        LayerOut { archive, tree }
    }

    /// Ends it.
    ///
    /// # Errors
    /// Fails if what remains cannot be written.
    pub fn finish(self) -> Result<(W, Written, Result<Table, TableError>), WriteError> {
        let _ = (self.archive, self.tree);
        unimplemented!()
    }
}

impl<W: Write> Entries for LayerOut<W> {
    fn append(&mut self, _entry: Entry, _content: &mut dyn Content) -> Result<(), WriteError> {
        unimplemented!()
    }
}
