//! Writing a layer's tree: what unpacking its archive would make.

use std::path::Path;

use super::WriteError;

/// A tree that is being written.
#[derive(Debug)]
pub struct TreeWriter {}

impl TreeWriter {
    /// Starts in an empty directory (`FreshLayer::tree`). Times after `epoch` are set to it.
    ///
    /// # Errors
    /// Fails if the directory cannot be opened.
    pub fn new(_into: &Path, _epoch: Option<i64>) -> Result<TreeWriter, WriteError> {
        unimplemented!()
    }
}
