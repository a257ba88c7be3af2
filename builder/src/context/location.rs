//! Where a context is, as people write it: a directory, a Git repository, a URL, standard input.

use std::path::PathBuf;

use crate::source::git::{GitAddress, GitAddressError};

/// Where a context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A Git repository, or a directory of one.
    Git(Box<GitAddress>),
    /// A URL of an archive; as the context of a build also of a Dockerfile.
    Http(String),
    /// An archive on standard input, or a Dockerfile.
    Stdin,
}

impl Location {
    /// Reads a context as it stands on the command line.
    ///
    /// # Errors
    /// Where it names a Git repository in a way that cannot be right.
    pub fn parse(text: &str) -> Result<Location, GitAddressError> {
        if text == "-" {
            return Ok(Location::Stdin);
        }
        if let Some(address) = GitAddress::parse_context(text)? {
            return Ok(Location::Git(Box::new(address)));
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Location::Http(text.to_owned()));
        }
        Ok(Location::Directory(PathBuf::from(text)))
    }
}
