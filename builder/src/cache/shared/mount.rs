//! What steps keep in cache mounts, as it travels between machines, in increments.
//!
//! ```text
//! SharedMount ── files ──▶ FileList: paths, owners, modes, times; of files, their pieces
//!             └─ packs ──▶ zstd: pieces one after another, 16 MiB of them or a little more
//! ```
//!
//! A piece is a file, or 4 MiB of a larger one, and is known by its hash. An export writes the pieces
//! that no earlier pack has; a pack that is needed by less than half is written anew. What arrives is
//! laid out where a cache of the same id is not there yet: what is there is left alone.
//!
//! Regular files, directories and symbolic links travel, with owner, mode and time; extended
//! attributes, devices and names that are no UTF-8 do not. A file in which a secret of the build stands
//! does not either.

mod gather;
mod restore;

use std::io::{self, Read as _};

use boatyard_content::StoreError;
use boatyard_oci::Descriptor;
use jiff::Timestamp;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::gather::{Gathered, Gathering};
use super::{FILES, PACK};
use crate::cache::CacheError;
use crate::cache::mounts::CacheId;
use crate::layer::Mtime;

/// How many bytes a pack has, unpacked, before another is begun.
const PACK_BYTES: u64 = 16 << 20;
/// How many it has at most.
const PACK_BYTES_MAX: u64 = PACK_BYTES + PIECE_BYTES;
/// The most bytes of one piece.
const PIECE_BYTES: u64 = 4 << 20;
/// The most bytes of a list, as it is sent.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// The same, unpacked.
const LIST_UNPACKED_MAX: u64 = 512 << 20;
/// The most bytes of all files of one cache.
const FILES_BYTES_MAX: u64 = 64 << 30;
/// The most packs of one cache.
const PACKS_MAX: usize = 5_000;
const ZSTD_LEVEL: i32 = 3;
const VERSION: u32 = 1;

/// A cache mount as another machine left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedMount {
    /// Which cache it is.
    pub id: CacheId,
    /// When it was told.
    pub used: Timestamp,
    /// The list of its files.
    pub files: Descriptor,
    /// Their contents.
    pub packs: Vec<Descriptor>,
}

/// The files of a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileList {
    version: u32,
    /// How many bytes each pack has, unpacked.
    packs: Vec<u64>,
    /// Sorted by path: a directory before what is in it.
    files: Vec<File>,
}

/// A file, directory or symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    path: String,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Seconds and nanoseconds.
    mtime: (i64, u32),
    #[serde(flatten)]
    kind: FileKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum FileKind {
    Directory,
    Symlink { target: String },
    File { size: u64, pieces: Vec<Piece> },
}

/// A part of a file, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Piece {
    /// BLAKE3.
    hash: String,
    size: u64,
    /// The pack, counted from 0.
    pack: usize,
    /// Its first byte there, unpacked.
    offset: u64,
}

/// Why a cache mount does not travel.
#[derive(Debug, Error)]
pub enum MountError {
    /// The file system refused.
    #[error("cannot {doing} `{path}` of a cache mount")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The path below the cache.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A pack or list cannot be written or read.
    #[error("cannot {doing} of a cache mount")]
    Blob {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error("cannot {doing} of a cache mount")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The list is none.
    #[error("the list of a cache mount's files is not of its form")]
    Form(#[source] serde_json::Error),
    /// What the list says cannot be.
    #[error("the list of a cache mount's files says what cannot be: {0}")]
    List(String),
    /// There is too much of it.
    #[error("a cache mount is too large to travel: {0}")]
    TooLarge(String),
    /// A blob is not where it should be.
    #[error("cannot bring a blob of a cache mount")]
    Bring(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The build cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl SharedMount {
    /// Returns its blobs.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.packs.iter().chain([&self.files])
    }

    /// Says whether it is what we could have written.
    pub(super) fn is_sound(&self) -> bool {
        self.packs.len() <= PACKS_MAX
            && self.files.media_type.as_str() == FILES
            && self.files.size <= LIST_BYTES_MAX
            && self.packs.iter().all(|pack| pack.media_type.as_str() == PACK)
    }
}

impl FileList {
    /// Reads a list.
    ///
    /// # Errors
    /// Where it is too large, or none.
    pub fn from_bytes(bytes: &[u8]) -> Result<FileList, MountError> {
        let unpack = |source| MountError::Blob { doing: "unpack the list of files", source };
        let plain = zstd::stream::read::Decoder::new(bytes).map_err(unpack)?;
        let mut text = Vec::new();
        let read = plain.take(LIST_UNPACKED_MAX + 1).read_to_end(&mut text).map_err(unpack)?;
        if read as u64 > LIST_UNPACKED_MAX {
            return Err(MountError::TooLarge("the list of its files".to_owned()));
        }
        let list: FileList = serde_json::from_slice(&text).map_err(MountError::Form)?;
        list.check()?;
        Ok(list)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let text = serde_json::to_vec(self).expect("texts and numbers always serialise");
        zstd::bulk::compress(&text, ZSTD_LEVEL).expect("memory takes all that is written to it")
    }

    /// Checks that sizes agree and stay within bounds.
    fn check(&self) -> Result<(), MountError> {
        let wrong = |what: &str| Err(MountError::List(what.to_owned()));
        if self.version != VERSION {
            return wrong("its version is not known");
        }
        if self.packs.len() > PACKS_MAX || self.packs.iter().any(|size| *size > PACK_BYTES_MAX) {
            return wrong("its packs are too many, or too large");
        }
        let mut all = 0_u64;
        for file in &self.files {
            let FileKind::File { size, pieces } = &file.kind else { continue };
            let mut sum = 0_u64;
            for piece in pieces {
                let end = piece.offset.checked_add(piece.size);
                let pack = self.packs.get(piece.pack);
                if !matches!((end, pack), (Some(end), Some(pack)) if end <= *pack) {
                    return wrong("a piece lies outside of its pack");
                }
                sum = sum.saturating_add(piece.size);
            }
            if sum != *size {
                return wrong("the pieces of a file are not its size");
            }
            all = all.saturating_add(sum);
        }
        match all > FILES_BYTES_MAX {
            true => Err(MountError::TooLarge(format!("{all} bytes"))),
            false => Ok(()),
        }
    }
}

impl File {
    fn mtime(&self) -> Mtime {
        Mtime { seconds: self.mtime.0, nanoseconds: self.mtime.1.min(999_999_999) }
    }
}

fn failed(doing: &'static str, path: &str) -> impl Fn(io::Error) -> MountError {
    let path = path.to_owned();
    move |source| MountError::File { doing, path: path.clone(), source }
}

fn refused(doing: &'static str, path: &str) -> impl Fn(Errno) -> MountError {
    let failed = failed(doing, path);
    move |errno| failed(errno.into())
}

#[cfg(test)]
mod tests;
