//! COPY and ADD: files from a context, a stage or a heredoc into the tree of a step.
//!
//! Both trees are reached by descriptor and untrusted: every path is resolved inside its root, and
//! what is written is written by one name in one directory. The destination is a mounted snapshot,
//! whose upper directory then holds exactly what changed.
//!
//! [`select`] finds the sources, [`place`] writes them; [`archive`] unpacks what ADD recognises.

pub mod archive;
pub mod entries;
mod hash;
pub(crate) mod inside;
mod origin;
pub mod place;
mod plan;
mod read;
pub mod select;
pub mod selection;
mod unpack;
mod words;
pub mod write;

pub use entries::{Entries, LayerOut};
pub use selection::{SelectOptions, Selection, Source, select};
pub use write::{Landing, make_directory, write};

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

/// What a tree hides from whoever copies from it: `.dockerignore`, `--exclude`.
///
/// Paths are relative to the tree's root, with `/` between names.
pub trait Filter: Sync {
    /// Says whether the path is left out.
    fn hides(&self, path: &str, is_directory: bool) -> bool;
    /// Says whether something below a directory that is left out may not be.
    fn may_descend(&self, directory: &str) -> bool;
}

/// A filter that hides nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everything;

impl Filter for Everything {
    fn hides(&self, _path: &str, _is_directory: bool) -> bool {
        false
    }

    fn may_descend(&self, _directory: &str) -> bool {
        true
    }
}

/// A tree that is copied from.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    /// Its root directory.
    pub root: BorrowedFd<'a>,
    /// What cannot be seen of it.
    pub filter: &'a dyn Filter,
    /// Whether owners and extended attributes are copied: those of an image are, those of a
    /// context mean nothing.
    pub keeps_owners: bool,
    /// What it is called in messages: `the build context`, `stage build`.
    pub name: &'a str,
}

/// How to copy.
#[derive(Clone, Copy, Default)]
pub struct CopyOptions<'a> {
    /// Who owns what is made; what the source says, or root, if nobody is named.
    pub owner: Option<(u32, u32)>,
    /// Makes the mode of an entry from the one it has: `--chmod`.
    pub mode: Option<&'a dyn Fn(u32, bool) -> u32>,
    /// Archives are unpacked: ADD.
    pub unpack: bool,
}

/// Why something could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source without wildcards is not there.
    #[error("`{path}` is not in {tree}")]
    Missing {
        /// The source as it was written.
        path: String,
        /// Where it was looked for.
        tree: String,
        /// It is there, but `.dockerignore` leaves it out.
        ignored: bool,
    },
    /// Several sources need a directory to go to.
    #[error(
        "there are several sources, so the destination `{destination}` must be a directory and end with /"
    )]
    NotADirectory {
        /// The destination.
        destination: String,
    },
    /// A directory would replace a file, or a file a directory.
    #[error("cannot copy {what} onto {path}, which is {there}")]
    Conflict {
        /// `a directory` or `a file`.
        what: &'static str,
        /// Where.
        path: String,
        /// What is there.
        there: &'static str,
    },
    /// The pattern cannot be read.
    #[error("`{pattern}` is not a pattern")]
    Pattern {
        /// As it was written.
        pattern: String,
    },
    /// An archive cannot be unpacked.
    #[error("cannot unpack `{path}`")]
    Archive {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: archive::ArchiveError,
    },
    /// A file is not what it was when it was selected.
    #[error("`{path}` changed while it was copied")]
    Changed {
        /// Which.
        path: String,
    },
    /// A name is one that layers use for whiteouts.
    #[error(
        "{path} cannot be part of an image: names that start with `.wh.` mark what a layer removes"
    )]
    Reserved {
        /// Where it would go.
        path: String,
    },
    /// Deeper than any layer that we would unpack again.
    #[error("{path} is nested too deeply")]
    TooDeep {
        /// The directory.
        path: String,
    },
    /// There is more than can be numbered.
    #[error("cannot keep in mind what is copied")]
    Table(#[source] crate::contents::TableError),
    /// The layer cannot be written.
    #[error("cannot write the layer")]
    Write(#[source] crate::layer::WriteError),
    /// The file system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Names the deed and the path in a [`CopyError`].
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &OsStr) -> Result<T, CopyError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, doing: &'static str, path: &OsStr) -> Result<T, CopyError> {
        self.map_err(|error| CopyError::Io {
            doing,
            path: path.to_string_lossy().into_owned(),
            source: error.into(),
        })
    }
}

/// Copies sources to a destination inside `root`, as COPY and ADD do.
///
/// `destination` is absolute; if it ends in `/`, it is a directory.
///
/// # Errors
/// Where a source is missing, kinds conflict, or a tree cannot be read or written.
pub fn copy(
    tree: Tree<'_>,
    sources: &[String],
    root: BorrowedFd<'_>,
    destination: &str,
    options: CopyOptions<'_>,
) -> Result<(), CopyError> {
    let mut found = Vec::new();
    for source in sources {
        found.extend(select::select(tree, source)?);
    }
    let several = sources.len() > 1 || found.len() > 1;
    let target = place::Target::find(root, destination)?;
    if several && !target.is_directory() && !destination.ends_with('/') {
        return Err(CopyError::NotADirectory { destination: destination.to_owned() });
    }
    let mut placing = place::Placing::new(tree, root, options);
    found.iter().try_for_each(|source| placing.put(source, &target))
}

/// One thing to copy: found inside the tree, top-level links followed.
#[derive(Debug)]
pub struct Found {
    /// Its path within the tree, without links, relative.
    pub path: PathBuf,
    /// The name it was found under: where it goes in a directory.
    pub name: OsString,
    /// What it is.
    pub stat: Stat,
}

impl Found {
    pub(crate) fn is_directory(&self) -> bool {
        kind_of(&self.stat) == FileType::Directory
    }
}

pub(crate) fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Opens a directory by name, never through a link.
pub(crate) fn open_directory(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Looks at a name in a directory, not through a link; `None` where there is nothing.
pub(crate) fn look(parent: impl AsFd, name: &OsStr) -> Result<Option<Stat>, Errno> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Returns the names in a directory, sorted: the same order on every file system.
pub(crate) fn names(directory: impl AsFd) -> Result<Vec<OsString>, Errno> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_unstable();
    Ok(names)
}

pub(crate) fn stat_of(file: impl AsFd) -> Result<Stat, Errno> {
    fstat(file)
}

#[cfg(test)]
mod tests;
