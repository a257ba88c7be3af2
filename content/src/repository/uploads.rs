//! Upload sessions: which ingest belongs to which repository.

use std::path::PathBuf;
use std::time::SystemTime;

use super::{Repositories, Repository, RepositoryError, Space, names};
use crate::ingest::IngestKey;
use crate::local::{Staged, changed, discard_ingest, entries, read_if_there};
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
        self.begin_upload_of("")
    }

    /// Begins an upload session that belongs to somebody, in one line of whatever words.
    ///
    /// # Errors
    /// Where its file could not be written.
    pub fn begin_upload_of(&self, owner: &str) -> Result<IngestKey, RepositoryError> {
        let key = IngestKey::random();
        self.make("_uploads")?;
        let mut staged = Staged::new(&*self.root.disk);
        let text = format!("{}\n{owner}", jiff::Timestamp::now());
        staged.put(self.upload_path(&key), text.as_bytes())?;
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

    /// Returns whose an upload session is; `None` where this repository has no such session.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub fn upload_owner(&self, key: &IngestKey) -> Result<Option<String>, RepositoryError> {
        let Some(bytes) = read_if_there(&self.upload_path(key))? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        Ok(Some(text.split_once('\n').map_or("", |(_, owner)| owner).to_owned()))
    }

    /// Ends an upload session. The ingest is the caller's to commit or discard, before.
    ///
    /// # Errors
    /// Where the file could not be deleted.
    pub fn end_upload(&self, key: &IngestKey) -> Result<(), RepositoryError> {
        self.root.disk.remove_file(&self.upload_path(key)).doing("end an upload session")?;
        Ok(())
    }

    /// Returns how many upload sessions there are.
    ///
    /// # Errors
    /// Where the directory cannot be listed.
    pub fn uploads(&self) -> Result<usize, RepositoryError> {
        let mut count = 0;
        for entry in entries(&self.directory.join("_uploads")) {
            let name = entry?.file_name();
            count += usize::from(name.to_str().is_some_and(|name| !name.starts_with('.')));
        }
        Ok(count)
    }

    /// Returns the upload sessions, and how many bytes came in each.
    ///
    /// # Errors
    /// Where the directory cannot be listed.
    pub fn upload_sizes(&self) -> Result<Vec<(IngestKey, u64)>, RepositoryError> {
        let mut sizes = Vec::new();
        for entry in entries(&self.directory.join("_uploads")) {
            let name = entry?.file_name();
            let Some(key) = name.to_str().and_then(|name| name.parse::<IngestKey>().ok()) else {
                continue;
            };
            // Of one that nothing was sent to yet there is no file.
            let data = fs_err::metadata(self.root.layout.ingest(&key).join("data"));
            sizes.push((key, data.map_or(0, |data| data.len())));
        }
        Ok(sizes)
    }

    /// Ends the sessions in which nothing was written since `before`, with what they wrote.
    ///
    /// # Errors
    /// Where files cannot be listed or deleted.
    pub fn end_stale_uploads(&self, before: SystemTime) -> Result<usize, RepositoryError> {
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

impl Repositories {
    /// Returns how many upload sessions all hosted repositories have.
    ///
    /// # Errors
    /// Where a directory cannot be listed.
    pub fn uploads(&self) -> Result<usize, RepositoryError> {
        self.hosted()?.iter().map(Repository::uploads).sum()
    }

    /// Ends the sessions of all hosted repositories in which nothing was written since `before`.
    ///
    /// # Errors
    /// Where files cannot be listed or deleted.
    pub fn end_stale_uploads(&self, before: SystemTime) -> Result<usize, RepositoryError> {
        self.hosted()?.iter().map(|repository| repository.end_stale_uploads(before)).sum()
    }

    fn hosted(&self) -> Result<Vec<Repository>, RepositoryError> {
        let names = names::list_all(&self.space_directory(&Space::Hosted))?;
        Ok(names.iter().map(|name| self.repository(&Space::Hosted, name)).collect())
    }
}
