//! Which blobs were pushed into a repository.

use boatyard_oci::Digest;

use super::{Repository, RepositoryError, Told};
use crate::local::Staged;
use crate::local::entries;
use crate::local::journal::{Change, EventKind};
use crate::local::touch;
use crate::store::{Doing as _, StoreError};

impl Repository {
    fn blob_path(&self, digest: &Digest) -> std::path::PathBuf {
        self.directory.join("_blobs").join(digest.to_string())
    }

    /// Says whether a blob was pushed here. The answer is no promise: see
    /// [`Repository::hold_blob`].
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, RepositoryError> {
        Ok(self.blob_path(digest).try_exists().doing("look for a blob's link")?)
    }

    /// Says whether a blob was pushed here, and if so keeps it here for the collector's grace
    /// period: for whoever tells a client.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn hold_blob(&self, digest: &Digest) -> Result<bool, RepositoryError> {
        let _lock = self.lock_shared()?;
        Ok(touch(&self.blob_path(digest))?.is_some())
    }

    /// Says that a blob was pushed here; durable when it returns. The caller's lease holds it.
    ///
    /// # Errors
    /// Where the link could not be written.
    pub fn link_blob(&self, digest: &Digest) -> Result<(), RepositoryError> {
        let _lock = self.lock_shared()?;
        if touch(&self.blob_path(digest))?.is_some() {
            return Ok(());
        }
        self.make("_blobs")?;
        self.tell(vec![Told::of(EventKind::Blob, Change::Put, digest)])?;
        let write = || {
            let mut staged = Staged::new(&*self.root.disk);
            staged.put(self.blob_path(digest), b"")?;
            staged.publish()
        };
        Ok(self.refer(std::slice::from_ref(digest), write)?)
    }

    /// Takes a blob out of this repository; `false` where it was not there. The blob itself is
    /// the collector's business.
    ///
    /// # Errors
    /// [`RepositoryError::BlobReferenced`] while a manifest here needs it.
    pub fn unlink_blob(&self, digest: &Digest) -> Result<bool, RepositoryError> {
        let _lock = self.lock()?;
        if !self.has_blob(digest)? {
            return Ok(false);
        }
        for manifest in self.manifests()? {
            if self.refs(&manifest)?.contains(digest) {
                let (digest, by) = (digest.clone(), manifest);
                return Err(RepositoryError::BlobReferenced { digest, by });
            }
        }
        self.tell(vec![Told::of(EventKind::Blob, Change::Delete, digest)])?;
        self.remove_link(digest)?;
        Ok(true)
    }

    /// Takes a blob out of a mirrored repository, also where a manifest here needs it: it can be
    /// fetched again. `false` where it was not there.
    ///
    /// # Errors
    /// Where the link could not be deleted.
    pub fn forget_blob(&self, digest: &Digest) -> Result<bool, RepositoryError> {
        let _lock = self.lock()?;
        if !self.has_blob(digest)? {
            return Ok(false);
        }
        self.tell(vec![Told::of(EventKind::Blob, Change::Delete, digest)])?;
        self.remove_link(digest)?;
        Ok(true)
    }

    /// Deletes a link and makes that durable; the caller has the lock.
    fn remove_link(&self, digest: &Digest) -> Result<(), StoreError> {
        self.root.disk.remove_file(&self.blob_path(digest)).doing("unlink a blob")?;
        self.root.disk.sync_directory(&self.directory.join("_blobs")).doing("sync a directory")
    }

    /// Returns the blobs that were pushed here, in no order.
    ///
    /// # Errors
    /// Where the directory cannot be listed.
    pub fn blobs(&self) -> Result<Vec<Digest>, RepositoryError> {
        let mut digests = Vec::new();
        for entry in entries(&self.directory.join("_blobs")) {
            digests
                .extend(entry?.file_name().to_str().and_then(|name| name.parse::<Digest>().ok()));
        }
        Ok(digests)
    }

    /// Unlinks the blobs that no manifest here needs and that nobody was told of since `before`:
    /// what is left of pushes that never came to an end, and of manifests that were deleted.
    pub(crate) fn unlink_unneeded(
        &self,
        before: std::time::SystemTime,
        dry_run: bool,
    ) -> Result<Vec<Digest>, RepositoryError> {
        let is_old = |digest: &Digest| {
            Ok::<_, StoreError>(
                crate::local::changed(&self.blob_path(digest))?
                    .is_some_and(|changed| changed < before),
            )
        };
        let mut candidates = Vec::new();
        for digest in self.blobs()? {
            if is_old(&digest)? {
                candidates.push(digest);
            }
        }
        if candidates.is_empty() {
            return Ok(candidates);
        }
        let _lock = self.lock()?;
        let mut needed = std::collections::HashSet::new();
        for manifest in self.manifests()? {
            needed.extend(self.refs(&manifest)?);
        }
        let mut unlinked = Vec::new();
        for digest in candidates {
            if !needed.contains(&digest) && is_old(&digest)? {
                if !dry_run {
                    self.tell(vec![Told::of(EventKind::Blob, Change::Delete, &digest)])?;
                    self.root.disk.remove_file(&self.blob_path(&digest)).doing("unlink a blob")?;
                }
                unlinked.push(digest);
            }
        }
        if !unlinked.is_empty() && !dry_run {
            let directory = self.directory.join("_blobs");
            self.root.disk.sync_directory(&directory).doing("sync a directory")?;
        }
        Ok(unlinked)
    }
}
