//! When a tag or manifest was last used: the mtime of an empty file.

use std::time::{Duration, SystemTime};

use boatyard_oci::Reference;
use fs_err as fs;

use super::{Repository, RepositoryError};
use crate::store::Doing as _;

/// How exact the time is: a use within this time of the last one is not written.
const GRAIN: Duration = Duration::from_secs(3600);

impl Repository {
    /// Notes that a tag or manifest was used now.
    ///
    /// # Errors
    /// Where the file could not be written.
    pub fn mark_used(&self, reference: &Reference) -> Result<(), RepositoryError> {
        let now = SystemTime::now();
        let recent = self
            .last_used(reference)?
            .is_some_and(|last| now.duration_since(last).is_ok_and(|since| since < GRAIN));
        if recent {
            return Ok(());
        }
        let path = self.make("_used")?.join(reference.to_string());
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .doing("note a use")?;
        file.into_file().set_modified(now).doing("note a use").map_err(RepositoryError::from)
    }

    /// Notes that a tag or manifest was last used then, as a backup remembers it.
    ///
    /// # Errors
    /// Where the file could not be written.
    pub fn set_used(&self, reference: &Reference, at: SystemTime) -> Result<(), RepositoryError> {
        let path = self.make("_used")?.join(reference.to_string());
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.doing("note a use")?.into_file();
        file.set_modified(at).doing("note a use").map_err(RepositoryError::from)
    }

    /// Returns when a tag or manifest was last used, give or take an hour; `None` where nobody
    /// noted it, which counts as now.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn last_used(&self, reference: &Reference) -> Result<Option<SystemTime>, RepositoryError> {
        match fs::metadata(self.directory.join("_used").join(reference.to_string())) {
            Ok(metadata) => Ok(metadata.modified().ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Ok(Err(error).doing("look for a use")?),
        }
    }
}
