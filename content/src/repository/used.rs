//! When a tag or manifest was last used: the mtime of an empty file.

use std::time::{Duration, SystemTime};

use boatyard_oci::Reference;
use fs_err as fs;

use super::{Repositories, Repository, RepositoryError, Space};
use crate::local::{Staged, make_directories};
use crate::store::Doing as _;

/// How exact the time is: a use within this time of the last one is not written.
const GRAIN: Duration = Duration::from_secs(3600);

impl Repositories {
    /// Returns since when the uses of what is hosted are noted; nothing where they never were.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn uses_noted_since(&self) -> Result<Option<SystemTime>, RepositoryError> {
        match fs::metadata(self.space_directory(&Space::Hosted).join("_used")) {
            Ok(metadata) => Ok(metadata.modified().ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Ok(Err(error).doing("look since when uses are noted")?),
        }
    }

    /// Says that the uses of what is hosted are noted from now on. Did they before, nothing
    /// changes.
    ///
    /// # Errors
    /// Where the file could not be written.
    pub fn begin_noting_uses(&self) -> Result<(), RepositoryError> {
        if self.uses_noted_since()?.is_some() {
            return Ok(());
        }
        let hosted = self.space_directory(&Space::Hosted);
        make_directories(&*self.root.disk, &hosted)?;
        let mut staged = Staged::new(&*self.root.disk);
        staged.put(hosted.join("_used"), b"")?;
        Ok(staged.publish()?)
    }
}

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

    /// Forgets when something was used that is gone. A file that stays is small, and harmless.
    pub(super) fn forget_use(&self, name: &str) {
        let _ = fs::remove_file(self.directory.join("_used").join(name));
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
