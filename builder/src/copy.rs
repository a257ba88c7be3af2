//! COPY and ADD: files from a context, a stage or a heredoc into the layer of a step.
//!
//! There is no file system between. [`select()`] finds the sources and hashes them, which is what
//! decides whether the step must run; [`write()`] then streams a layer's entries, in order, to
//! [`Entries`]: an archive, and a tree where one is wanted. What the image holds is known from its
//! layers' tables of contents. Both trees are untrusted: every path is resolved inside its root, and
//! a file that is not what it was when it was selected ends the step.

pub mod entries;
mod hash;
mod narrow;
mod origin;
mod plan;
mod read;
pub mod selection;
mod unpack;
mod words;
pub mod write;

pub use entries::{Entries, LayerOut, TreeOut};
pub use selection::{SelectOptions, Selection, Source, select, select_path};
pub use unpack::ArchiveError;
pub use write::{Landing, make_directory, write};

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

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
    /// A pattern of `--exclude` cannot be read.
    #[error("`{pattern}` is not a pattern")]
    Exclude {
        /// As it was written.
        pattern: String,
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
        source: ArchiveError,
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

/// Opens a directory by name, never through a link.
pub(crate) fn open_directory(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
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

#[cfg(test)]
mod tests;
