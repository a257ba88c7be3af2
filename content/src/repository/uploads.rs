//! Upload sessions: which ingest belongs to which repository.

use std::path::PathBuf;

use super::{Repository, RepositoryError};
use crate::ingest::IngestKey;
use crate::local::{Staged, changed, discard_ingest, entries};
use crate::store::{Doing as _, StoreError};

impl Repository {
    fn upload_path(&self, key: &IngestKey) -> PathBuf {
        self.directory.join("_uploads").join(key.as_str())
    }

    /// Begins an upload session and returns the key of its ingest.
    ///
    /// # Errors
    /// Where its file could not be written.
    pub fn begin_upload(&self) -> Result<IngestKey, RepositoryError> {
        let key = IngestKey::random();
        self.make("_uploads")?;
        let mut staged = Staged::new(&*self.root.disk);
        staged.put(self.upload_path(&key), jiff::Timestamp::now().to_string().as_bytes())?;
        staged.publish()?;
        Ok(key)
    }

    /// Says whether this upload session is one of this repository.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn has_upload(&self, key: &IngestKey) -> Result<bool, RepositoryError> {
        Ok(self.upload_path(key).try_exists().doing("look for an upload session")?)
    }

    /// Ends an upload session. The ingest is the caller's to commit or discard, before.
    ///
    /// # Errors
    /// Where the file could not be deleted.
    pub fn end_upload(&self, key: &IngestKey) -> Result<(), RepositoryError> {
        self.root.disk.remove_file(&self.upload_path(key)).doing("end an upload session")?;
        Ok(())
    }

    /// Ends the sessions in which nothing was written since `before`, with what they wrote.
    pub(crate) fn end_stale_uploads(
        &self,
        before: std::time::SystemTime,
    ) -> Result<u64, RepositoryError> {
        let mut ended = 0;
        for entry in entries(&self.directory.join("_uploads")) {
            let name = entry?.file_name();
            let Some(key) = name.to_str().and_then(|name| name.parse::<IngestKey>().ok()) else {
                continue;
            };
            let data = self.root.layout.ingest(&key).join("data");
            let last = changed(&data)?.max(changed(&self.upload_path(&key))?);
            if last.is_some_and(|last| last < before) {
                match discard_ingest(&self.root, &key) {
                    Err(StoreError::IngestBusy { .. }) => continue,
                    result => result?,
                }
                self.end_upload(&key)?;
                ended += 1;
            }
        }
        Ok(ended)
    }
}
