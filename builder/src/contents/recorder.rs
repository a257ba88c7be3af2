//! Recording a table while a layer's entries pass by.

use crate::contents::{Table, TableError};
use crate::layer::Entry;

/// A table under construction.
#[derive(Debug, Default)]
pub struct Recorder {}

impl Recorder {
    /// Adds an entry as an archive has it, whiteouts interpreted; a later one replaces an earlier.
    /// `content` is the BLAKE3 of a file's bytes.
    ///
    /// # Errors
    /// Fails if the table becomes too large.
    pub fn add(&mut self, _entry: &Entry, _content: &[u8; 32]) -> Result<(), TableError> {
        unimplemented!()
    }

    /// Ends the table.
    ///
    /// # Errors
    /// Fails if the table becomes too large.
    pub fn finish(self) -> Result<Table, TableError> {
        unimplemented!()
    }
}
