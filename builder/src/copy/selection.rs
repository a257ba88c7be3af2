//! The first half of a COPY: what is copied, and its identity.

use crate::contents::Table;
use crate::contents::view::{OpenFile, View};
use crate::context::directory::Directory;
use crate::context::stat_cache::StatCache;
use crate::copy::CopyError;
use crate::layer::ContentId;

/// What is copied from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// The build context.
    Context {
        /// Its files.
        directory: &'a Directory,
        /// What they hashed to before.
        known: &'a StatCache,
    },
    /// A stage or an image.
    Stack {
        /// Its tree.
        view: &'a View,
        /// What it is called in messages: `stage build`.
        name: &'a str,
        /// Opens its files. Only [`write`](super::write()) does, so it may unpack a layer first.
        open: &'a OpenFile<'a>,
    },
    /// A file in the Dockerfile, of mode 0644.
    Heredoc {
        /// Its delimiter; the part after the last slash is the file's name.
        name: &'a str,
        /// Its content, expanded.
        body: &'a [u8],
    },
}

/// How to select.
#[derive(Clone, Copy, Debug)]
pub struct SelectOptions {
    /// Archives will be unpacked: ADD.
    pub unpack: bool,
    /// Threads that read and hash.
    pub threads: usize,
}

/// What the sources of an instruction mean: their entries with the content of each file.
pub struct Selection<'a> {
    _source: Source<'a>,
}

impl Selection<'_> {
    /// Returns what is copied, by names relative to the destination; times are not those of the
    /// sources.
    pub fn table(&self) -> &Table {
        unimplemented!()
    }

    /// Returns the identity of what is copied: names, types, modes, owners where they are kept, link
    /// targets and content; never times.
    pub fn content_id(&self) -> ContentId {
        unimplemented!()
    }
}

/// Finds what the words of an instruction mean (none for a heredoc), and hashes it.
///
/// # Errors
/// Where a source is missing, or the tree cannot be read.
pub fn select<'a>(
    _source: Source<'a>,
    _words: &[String],
    _options: SelectOptions,
) -> Result<Selection<'a>, CopyError> {
    unimplemented!()
}
