//! The content ID: what a layer says, whatever its times and its archive's bytes are.
//!
//! BLAKE3 over the entries in the order of a sorted walk. Each field is either of fixed size or has
//! its length before it, so no two sequences of entries give the same bytes:
//!
//! ```text
//! "boatyard layer content 1\n"
//! per entry:  type (1 byte)  path (length, bytes)
//!             unless a whiteout:
//!             mode uid gid (u32)  time (1 byte: 0 = not part; else 1, then i64 seconds)
//!             link target or its path (length, bytes)  major minor (u32)
//!             size (u64)  BLAKE3 of the content (32 bytes, zeros if no file)
//!             number of extended attributes (u64), each: name, value (length, bytes)
//! ```
//!
//! Integers are little-endian, lengths u64. A hard link names the first path of its group. The golden
//! vectors below fix the format: where one changes, every cache in the world is lost.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

use super::entry::{Entry, EntryPath, Kind, is_written_xattr};

const FORMAT: &[u8] = b"boatyard layer content 1\n";

/// Identifies what a layer changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId([u8; 32]);

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a content ID is 64 lower-case hexadecimal digits")]
pub struct ContentIdError;

impl ContentId {
    /// Returns the hash itself, to feed into a key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentId {
    type Err = ContentIdError;

    fn from_str(text: &str) -> Result<Self, ContentIdError> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ContentIdError);
        }
        let hash = blake3::Hash::from_hex(text).map_err(|_| ContentIdError)?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// Which times of modification are part of a layer's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentTimes {
    /// All of them.
    All,
    /// None: a build context's files have whatever time their checkout had.
    None,
    /// Those outside of the step's own run, in seconds: `touch -d` counts, "now" does not.
    Outside(RangeInclusive<i64>),
}

impl ContentTimes {
    fn of(&self, seconds: i64) -> Option<i64> {
        let counts = match self {
            Self::All => true,
            Self::None => false,
            Self::Outside(run) => !run.contains(&seconds),
        };
        counts.then_some(seconds)
    }
}

/// Computes a content ID, entry by entry.
#[derive(Debug)]
pub(super) struct ContentHasher {
    hasher: blake3::Hasher,
    times: ContentTimes,
}

impl ContentHasher {
    pub(super) fn new(times: ContentTimes) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT);
        Self { hasher, times }
    }

    /// Adds an entry. `content` is the BLAKE3 of a file's bytes, zeros for everything else.
    pub(super) fn add(&mut self, entry: &Entry, content: &[u8; 32]) {
        self.hasher.update(&[type_byte(&entry.kind)]);
        self.bytes(entry.path.as_bytes());
        if matches!(entry.kind, Kind::Whiteout | Kind::OpaqueWhiteout) {
            return;
        }
        for number in [entry.mode, entry.uid, entry.gid] {
            self.hasher.update(&number.to_le_bytes());
        }
        match self.times.of(entry.mtime.seconds) {
            Some(seconds) => self.hasher.update(&[1]).update(&seconds.to_le_bytes()),
            None => self.hasher.update(&[0]),
        };
        self.bytes(link(&entry.kind));
        let (major, minor) = device(&entry.kind);
        self.hasher.update(&major.to_le_bytes()).update(&minor.to_le_bytes());
        self.hasher.update(&entry.size.to_le_bytes()).update(content);
        let xattrs = || entry.xattrs.iter().filter(|(name, _)| is_written_xattr(name));
        self.hasher.update(&(xattrs().count() as u64).to_le_bytes());
        for (name, value) in xattrs() {
            self.bytes(name);
            self.bytes(value);
        }
    }

    pub(super) fn finish(self) -> ContentId {
        ContentId(*self.hasher.finalize().as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
}

fn type_byte(kind: &Kind) -> u8 {
    match kind {
        Kind::File => b'f',
        Kind::Directory => b'd',
        Kind::Symlink { .. } => b'l',
        Kind::HardLink { .. } => b'h',
        Kind::CharDevice { .. } => b'c',
        Kind::BlockDevice { .. } => b'b',
        Kind::Fifo => b'p',
        Kind::Whiteout => b'w',
        Kind::OpaqueWhiteout => b'o',
    }
}

fn link(kind: &Kind) -> &[u8] {
    match kind {
        Kind::Symlink { target } => target,
        Kind::HardLink { target } => EntryPath::as_bytes(target),
        _ => &[],
    }
}

fn device(kind: &Kind) -> (u32, u32) {
    match kind {
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => (*major, *minor),
        _ => (0, 0),
    }
}
