//! A build context that is a directory, read where it lies.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::ignore::{IgnoreError, Patterns};
use crate::snapshot::layers::Temporary;

/// The largest ignore file that is read, in bytes.
const IGNORE_BYTES_MAX: u64 = 4 << 20;

/// A directory whose files can be copied, and what is left out of it.
#[derive(Debug)]
pub struct Directory {
    root: OwnedFd,
    path: PathBuf,
    patterns: Patterns,
    /// What removes it.
    temporary: Option<Temporary>,
}

/// Why a directory cannot be a context.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be opened.
    #[error("cannot read the build context {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not a directory.
    #[error("the build context {} is not a directory", path.display())]
    NotADirectory {
        /// Which.
        path: PathBuf,
    },
    /// The ignore file is too large, or not text.
    #[error("cannot read {}: it is not an ignore file", path.display())]
    NotText {
        /// Which.
        path: PathBuf,
    },
    /// A line of the ignore file cannot be read.
    #[error("cannot read {}", path.display())]
    Ignore {
        /// Which.
        path: PathBuf,
        /// Which line, and why.
        #[source]
        source: IgnoreError,
    },
}

impl Directory {
    /// Opens a context. Of the ignore files `<Dockerfile>.dockerignore` and
    /// `<context>/.dockerignore`, the first that is there counts, alone.
    ///
    /// # Errors
    /// Where the directory or the ignore file cannot be read.
    pub fn open(path: &Path, dockerfile: Option<&Path>) -> Result<Directory, DirectoryError> {
        let failed = |source| DirectoryError::Open { path: path.to_path_buf(), source };
        if !fs::metadata(path).map_err(failed)?.is_dir() {
            return Err(DirectoryError::NotADirectory { path: path.to_path_buf() });
        }
        let root = fs::File::open(path).map_err(failed)?.into_file().into();
        let beside = dockerfile.map(|file| {
            let mut name = file.as_os_str().to_owned();
            name.push(".dockerignore");
            PathBuf::from(name)
        });
        let ignore = beside
            .into_iter()
            .chain([path.join(".dockerignore")])
            .find(|candidate| candidate.is_file());
        let patterns = ignore.map_or(Ok(Patterns::default()), |file| read_ignore(&file))?;
        Ok(Directory { root, path: path.to_path_buf(), patterns, temporary: None })
    }

    /// Makes a context of files that were brought here. Its ignore files are those of [`Self::open`],
    /// and no link leads to another.
    ///
    /// # Errors
    /// Where the directory or the ignore file cannot be read.
    pub(crate) fn of_tree(
        path: &Path,
        temporary: Temporary,
        dockerfile: Option<&Path>,
    ) -> Result<Directory, DirectoryError> {
        let beside = dockerfile.map(|file| {
            let mut name = file.as_os_str().to_owned();
            name.push(".dockerignore");
            PathBuf::from(name)
        });
        let mut patterns = Patterns::default();
        for name in beside.into_iter().chain([PathBuf::from(".dockerignore")]) {
            let failed = |source| DirectoryError::Open { path: name.clone(), source };
            if let Some(bytes) = read_inside(path, &name, IGNORE_BYTES_MAX).map_err(failed)? {
                patterns = parse_ignore(&name, bytes)?;
                break;
            }
        }
        let directory = Directory::plain(path)?;
        Ok(Directory { patterns, temporary: Some(temporary), ..directory })
    }

    /// Opens a directory of which nothing is left out.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn plain(path: &Path) -> Result<Directory, DirectoryError> {
        let failed = |source| DirectoryError::Open { path: path.to_path_buf(), source };
        let root = fs::File::open(path).map_err(failed)?.into_file().into();
        let patterns = Patterns::default();
        Ok(Directory { root, path: path.to_path_buf(), patterns, temporary: None })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what is left out.
    pub fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    /// Says whether it is there after the build, too.
    pub(crate) fn is_lasting(&self) -> bool {
        self.temporary.is_none()
    }

    /// Returns when it was made, if it came from elsewhere: the time of its newest file, which in a
    /// checkout is the commit's. `None` where that cannot be told.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        if self.is_lasting() {
            return None;
        }
        let mut newest = None;
        let mut waiting = vec![self.path.clone()];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(&directory).ok()? {
                let entry = entry.ok()?;
                let metadata = entry.metadata().ok()?;
                if metadata.is_dir() && entry.file_name() != ".git" {
                    waiting.push(entry.path());
                } else if metadata.is_file() {
                    newest = newest.max(Some(metadata.mtime()));
                }
            }
        }
        Timestamp::from_second(newest?).ok()
    }

    /// Returns its root.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

fn read_ignore(path: &Path) -> Result<Patterns, DirectoryError> {
    let failed = |source| DirectoryError::Open { path: path.to_path_buf(), source };
    let not_text = || DirectoryError::NotText { path: path.to_path_buf() };
    if fs::metadata(path).map_err(failed)?.len() > IGNORE_BYTES_MAX {
        return Err(not_text());
    }
    parse_ignore(path, fs::read(path).map_err(failed)?)
}

fn parse_ignore(path: &Path, bytes: Vec<u8>) -> Result<Patterns, DirectoryError> {
    let not_text = |_| DirectoryError::NotText { path: path.to_path_buf() };
    let text = String::from_utf8(bytes).map_err(not_text)?;
    Patterns::parse(&text)
        .map_err(|source| DirectoryError::Ignore { path: path.to_path_buf(), source })
}

/// Reads a file of a directory that others filled: links are resolved inside it, and it is a regular
/// file. `None` where there is none.
pub(super) fn read_inside(root: &Path, name: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let root = fs::File::open(root)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat2(&root, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        opened => std::fs::File::from(opened?),
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(None);
    }
    if found.len() > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
