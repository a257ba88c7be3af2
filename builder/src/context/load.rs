//! Bringing a context here: wherever it is, its files end in a directory.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};

use super::archive::{self, ArchiveError};
use super::directory::{Directory, DirectoryError};
use super::location::Location;
use crate::base::Say;
use crate::snapshot::layers::Temporary;
use crate::snapshot::{Layers, LayersError};
use crate::source::git::GitAddress;
use crate::source::{Fetch, FetchError};

/// The largest Dockerfile that is taken from a stream or a URL.
const DOCKERFILE_BYTES_MAX: u64 = 16 << 20;

/// Why a context cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The directory cannot be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// It could not be fetched.
    #[error("cannot fetch {what}")]
    Fetch {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// The build may not fetch anything.
    #[error("this build takes nothing from elsewhere")]
    NoFetch,
    /// It is no archive of a context.
    #[error("cannot unpack the context")]
    Archive(#[from] ArchiveError),
    /// It cannot be read.
    #[error("cannot read the context")]
    Read(#[source] io::Error),
    /// It is neither an archive nor a Dockerfile.
    #[error("it is no archive, and too large to be a Dockerfile")]
    TooLarge,
    /// There is no room to unpack it in.
    #[error("cannot make a directory for the context")]
    Room(#[from] LayersError),
    /// Standard input is for one thing.
    #[error("a named context cannot come from standard input")]
    Stdin,
}

/// What brings contexts here.
#[derive(Clone, Copy)]
pub struct Loader<'a> {
    /// Where there is room for what is brought.
    pub layers: &'a Layers,
    /// What fetches, if that may be.
    pub fetch: Option<&'a dyn Fetch>,
    /// Is told how it goes.
    pub say: &'a Say<'a>,
}

/// What came of a context.
#[derive(Debug)]
pub enum Loaded {
    /// Files.
    Tree(Tree),
    /// One file that is no archive: a Dockerfile, if it is the context of a build.
    File(Vec<u8>),
}

/// Files that were brought here, for as long as this lives.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
    temporary: Temporary,
}

impl Tree {
    /// Returns the text of a file of it; links lead nowhere else. `None` where there is none.
    ///
    /// # Errors
    /// Where it is there and cannot be read.
    pub fn read(&self, name: &Path) -> io::Result<Option<Vec<u8>>> {
        super::directory::read_inside(&self.path, name, DOCKERFILE_BYTES_MAX)
    }

    /// Makes a context of it; `dockerfile` is the Dockerfile's place in it, if it is there.
    ///
    /// # Errors
    /// Where it, or its ignore file, cannot be read.
    pub fn into_context(self, dockerfile: Option<&Path>) -> Result<Directory, DirectoryError> {
        Directory::of_tree(&self.path, self.temporary, dockerfile)
    }
}

impl Loader<'_> {
    /// Brings a context that is not of this machine.
    ///
    /// # Errors
    /// Where it cannot be had.
    pub fn load(&self, location: &Location, stdin: impl Read) -> Result<Loaded, LoadError> {
        match location {
            Location::Directory(path) => {
                Err(LoadError::Directory(DirectoryError::NotADirectory { path: path.clone() }))
            }
            Location::Git(address) => self.git(address).map(Loaded::Tree),
            Location::Http(url) => {
                let file = self.file(url)?;
                self.stream(file)
            }
            Location::Stdin => self.stream(stdin),
        }
    }

    /// Brings a context that has a name.
    pub(crate) fn named(&self, location: &Location) -> Result<Directory, LoadError> {
        match location {
            Location::Directory(path) => Ok(Directory::open(path, None)?),
            Location::Stdin => Err(LoadError::Stdin),
            Location::Git(_) => match self.load(location, io::empty())? {
                Loaded::Tree(tree) => Ok(tree.into_context(None)?),
                Loaded::File(_) => Err(LoadError::TooLarge),
            },
            Location::Http(url) => {
                let mut file = self.file(url)?;
                let (is_archive, _) = archive::peek(&file).map_err(LoadError::Read)?;
                file.rewind().map_err(LoadError::Read)?;
                let (path, temporary) = self.room()?;
                match is_archive {
                    true => archive::unpack(&file, &path)?,
                    false => {
                        // A file that is no archive is the only one of its context.
                        let mut own = fs_err::File::create(path.join(last_part(url)))
                            .map_err(LoadError::Read)?;
                        io::copy(&mut file, &mut own).map_err(LoadError::Read)?;
                    }
                }
                Ok(Tree { path, temporary }.into_context(None)?)
            }
        }
    }

    fn git(&self, address: &GitAddress) -> Result<Tree, LoadError> {
        let fetch = self.fetch.ok_or(LoadError::NoFetch)?;
        let failed = |source| LoadError::Fetch { what: address.to_string(), source };
        let commit = fetch.commit(address, self.say).map_err(failed)?;
        let (path, temporary) = self.room()?;
        let keep = address.keep_git_dir().unwrap_or(false);
        fetch.checkout(address, &commit, keep, &path, self.say).map_err(failed)?;
        Ok(Tree { path, temporary })
    }

    fn file(&self, url: &str) -> Result<File, LoadError> {
        let fetch = self.fetch.ok_or(LoadError::NoFetch)?;
        let fetched = fetch.file(url, None, self.say).map_err(|source| {
            let what = url.split(['?', '#']).next().unwrap_or_default();
            LoadError::Fetch { what: what.to_owned(), source }
        })?;
        Ok(fetched.file)
    }

    fn stream(&self, reader: impl Read) -> Result<Loaded, LoadError> {
        let (is_archive, reader) = archive::peek(reader).map_err(LoadError::Read)?;
        if is_archive {
            let (path, temporary) = self.room()?;
            archive::unpack(reader, &path)?;
            return Ok(Loaded::Tree(Tree { path, temporary }));
        }
        let mut bytes = Vec::new();
        reader.take(DOCKERFILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(LoadError::Read)?;
        if bytes.len() as u64 > DOCKERFILE_BYTES_MAX {
            return Err(LoadError::TooLarge);
        }
        Ok(Loaded::File(bytes))
    }

    fn room(&self) -> Result<(PathBuf, Temporary), LoadError> {
        let temporary = self.layers.temporary("context-")?;
        let path = temporary.path().join("files");
        fs_err::create_dir(&path).map_err(LoadError::Read)?;
        Ok((path, temporary))
    }
}

fn last_part(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let name = path.split_once("://").and_then(|(_, rest)| rest.rsplit_once('/'));
    match name.map(|(_, name)| name) {
        None | Some("" | "." | "..") => "context",
        Some(name) => name,
    }
}
