//! The second half of a COPY: the layer.

use std::path::Path;

use crate::contents::View;
use crate::copy::selection::Selection;
use crate::copy::{CopyError, Entries};
use crate::layer::Mtime;

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
    /// The time of directories that are made, and of heredocs.
    pub now: Mtime,
    /// Threads that read ahead.
    pub threads: usize,
    /// A directory for the contents of archives that are unpacked.
    pub scratch: &'a Path,
}

/// Writes the entries of the layer that copies what was selected, in order.
///
/// # Errors
/// Where kinds conflict, a file changed since it was selected, or something cannot be read or
/// written.
pub fn write(
    _selections: &[Selection<'_>],
    _landing: &Landing<'_>,
    _out: &mut dyn Entries,
) -> Result<(), CopyError> {
    unimplemented!()
}

/// Writes the entries of the layer that makes a directory and those above it: WORKDIR. None where it
/// is there already.
///
/// # Errors
/// Where something else is in the way, or the layer cannot be written.
pub fn make_directory(
    _below: &View,
    _path: &str,
    _owner: (u32, u32),
    _now: Mtime,
    _out: &mut dyn Entries,
) -> Result<(), CopyError> {
    unimplemented!()
}
