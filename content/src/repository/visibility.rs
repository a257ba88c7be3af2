//! Whether a mirrored repository is everybody's: a file that is there if it is.

use super::{Repository, RepositoryError};
use crate::local::{Staged, make_directories};
use crate::store::Doing as _;

impl Repository {
    fn public_path(&self) -> std::path::PathBuf {
        self.directory.join("_public")
    }

    /// Says whether the upstream last showed this repository to everybody.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn is_public(&self) -> Result<bool, RepositoryError> {
        Ok(self.public_path().try_exists().doing("look whether a repository is public")?)
    }

    /// Notes whether the upstream shows this repository to everybody; durable when it returns.
    ///
    /// # Errors
    /// Where the file could not be written or deleted.
    pub fn set_public(&self, public: bool) -> Result<(), RepositoryError> {
        if self.is_public()? == public {
            return Ok(());
        }
        let _lock = self.lock()?;
        if public {
            make_directories(&*self.root.disk, &self.directory)?;
            let mut staged = Staged::new(&*self.root.disk);
            staged.put(self.public_path(), b"")?;
            return Ok(staged.publish()?);
        }
        self.root
            .disk
            .remove_file(&self.public_path())
            .doing("note that a repository is private")?;
        Ok(self.root.disk.sync_directory(&self.directory).doing("sync a directory")?)
    }
}
