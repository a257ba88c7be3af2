//! Bringing a context here: wherever it is, its files end in a directory.

use super::directory::{Directory, DirectoryError};
use super::location::Location;

/// Why a context cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The directory cannot be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// It is of a kind that is only known so far.
    #[error("contexts of Git repositories and URLs are not supported yet")]
    Kind,
}

/// Brings a context.
///
/// # Errors
/// Where it cannot be had.
pub fn load(location: &Location) -> Result<Directory, LoadError> {
    match location {
        Location::Directory(path) => Ok(Directory::open(path, None)?),
        Location::Git(_) | Location::Http(_) | Location::Stdin => Err(LoadError::Kind),
    }
}
