//! What a context's files hashed to when they last looked as they do now.

use std::path::Path;

/// The stat cache of one context.
#[derive(Debug, Default)]
pub struct StatCache {}

impl StatCache {
    /// Opens the cache of a context below ROOT; an absent or damaged one is empty.
    pub fn open(_root: &Path, _context: &super::directory::Directory) -> StatCache {
        StatCache {}
    }

    /// Keeps what was learned, whole. A failure costs time, not correctness.
    pub fn save(&self) -> std::io::Result<()> {
        unimplemented!()
    }
}
