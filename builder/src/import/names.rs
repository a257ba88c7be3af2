//! Giving names to images of the store.

use boatyard_content::repository::{Repository, RepositoryError};
use boatyard_content::{Lease, Root, StoreError};
use boatyard_oci::{Descriptor, Digest, ImageName, Reference, Tag};
use thiserror::Error;

use crate::image::{ImageError, read_manifest};

const NESTED_MAX: usize = 4;

/// Why an image cannot be named.
#[derive(Debug, Error)]
pub enum NameImageError {
    /// Its manifest cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store failed.
    #[error("cannot hold the blob {digest}")]
    Store {
        /// Which blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The repository failed.
    #[error("cannot name the image {name}")]
    Repository {
        /// The name.
        name: ImageName,
        /// Why not.
        #[source]
        source: RepositoryError,
    },
}

/// Gives names to an image or index of the store, taking them from whatever has them now. The
/// images of an index that are here come along; a name with a digest gets no tag.
///
/// # Errors
/// Where a manifest cannot be read, or a repository cannot be written.
pub fn name(
    root: &Root,
    lease: &Lease,
    target: &Descriptor,
    names: &[ImageName],
) -> Result<(), NameImageError> {
    for name in names {
        let tags: &[Tag] = match &name.reference {
            Reference::Tag(tag) => std::slice::from_ref(tag),
            Reference::Digest(_) => &[],
        };
        let naming = Naming { root, lease, name, repository: root.images_of(name) };
        naming.put(target, tags, 0)?;
    }
    Ok(())
}

struct Naming<'a> {
    root: &'a Root,
    lease: &'a Lease,
    name: &'a ImageName,
    repository: Repository,
}

impl Naming<'_> {
    /// Puts a manifest into the repository, those that it lists before it.
    fn put(&self, target: &Descriptor, tags: &[Tag], depth: usize) -> Result<(), NameImageError> {
        if depth >= NESTED_MAX {
            return Err(ImageError::Nested { digest: target.digest.clone() }.into());
        }
        self.hold(&target.digest)?;
        let manifest = read_manifest(&self.root.store(), target)?;
        for blob in manifest.value().blobs() {
            self.hold(&blob.digest)?;
        }
        for child in manifest.value().manifests() {
            if self.hold(&child.digest)? {
                self.put(child, &[], depth + 1)?;
            }
        }
        self.repository
            .put_manifest(&manifest, &target.media_type, tags)
            .map_err(|source| NameImageError::Repository { name: self.name.clone(), source })
    }

    /// Holds a blob; `false` where it is not there.
    fn hold(&self, digest: &Digest) -> Result<bool, NameImageError> {
        let held = self.root.store().hold_blocking(digest, Some(self.lease));
        held.map(|held| held.is_some())
            .map_err(|source| NameImageError::Store { digest: digest.clone(), source })
    }
}
