//! Which blobs a mirror may give: those that it fetched for a repository, and those that a manifest
//! of the repository names. A digest alone opens nothing: the same bytes may be somebody's secret
//! elsewhere on this root.

use boatyard_content::Blob;
use boatyard_content::repository::Repository;
use boatyard_content::store::BlobFile;
use boatyard_oci::{Descriptor, Digest, Manifest, Reference, RepositoryName};

use super::{Mirror, MirrorError};

/// What is known here of a blob.
#[derive(Debug)]
pub(crate) enum Known {
    /// It is here, and the repository has it.
    Here(BlobFile),
    /// A manifest of the repository names it.
    Named(Box<Descriptor>),
    /// Nothing.
    Nothing,
}

impl Mirror {
    /// Looks for a blob of a repository here. Blocks.
    pub(crate) fn known(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Known, MirrorError> {
        let kept = self.kept(repository);
        if kept.has_blob(digest)?
            && let Some(file) = self.store.open_blocking(digest)?
        {
            kept.mark_used(&Reference::Digest(digest.clone()))?;
            return Ok(Known::Here(file));
        }
        let Some(named) = self.named(&kept, digest)? else { return Ok(Known::Nothing) };
        // Others brought the same bytes: a push, a build, another upstream.
        let lease = self.root.lease()?;
        if self.store.hold_blocking(digest, Some(&lease))?.is_some()
            && let Some(file) = self.store.open_blocking(digest)?
        {
            kept.link_blob(digest)?;
            kept.mark_used(&Reference::Digest(digest.clone()))?;
            return Ok(Known::Here(file));
        }
        Ok(Known::Named(Box::new(named)))
    }

    /// Finds the descriptor of a blob in the manifests that are kept.
    fn named(&self, kept: &Repository, digest: &Digest) -> Result<Option<Descriptor>, MirrorError> {
        for manifest in kept.manifests()? {
            if !kept.refs(&manifest)?.contains(digest) {
                continue;
            }
            let (Some(stored), Some(file)) =
                (kept.manifest(&manifest)?, self.store.open_blocking(&manifest)?)
            else {
                continue;
            };
            let bytes = Blob::File(file).into_bytes(Manifest::SIZE_MAX)?;
            let Ok(parsed) = Manifest::parse_expecting(bytes, &stored.media_type, &manifest) else {
                continue;
            };
            let blobs = parsed.value().blobs();
            if let Some(blob) = blobs.into_iter().find(|blob| blob.digest == *digest) {
                return Ok(Some(blob.clone()));
            }
        }
        Ok(None)
    }
}
