//! Whole images, fetched ahead of whoever will ask for them.

use std::sync::Arc;

use boatyard_oci::{Digest, Reference, RegistryHost, RepositoryName};
use boatyard_upstream::distribution::PullError;
use boatyard_upstream::{ClientError, Platforms, Pulled, TransferProgress, Wanted, pull};

use super::{Mirror, MirrorError, Shared};

/// Why an image could not be fetched ahead.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The upstream did not give it.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// What was fetched could not be kept.
    #[error(transparent)]
    Kept(#[from] MirrorError),
}

impl Mirror {
    /// Fetches an image with its layers, for one platform or for all, as if clients had pulled it.
    ///
    /// # Errors
    /// Where the upstream does not give all of it, or it cannot be kept.
    pub async fn fetch(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        platforms: Platforms<'_>,
        progress: &dyn TransferProgress,
    ) -> Result<Pulled, FetchError> {
        let repository = self.canonical(repository.clone());
        let lease = self.root.lease().map_err(MirrorError::from)?;
        let image = self.image(self.host(), &repository, reference);
        let pulled =
            pull(&self.options.client, &image, platforms, &self.store, &lease, progress).await?;
        self.take(&repository, reference, &pulled)?;
        self.keep_within_limit();
        Ok(pulled)
    }

    fn take(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        pulled: &Pulled,
    ) -> Result<(), MirrorError> {
        let kept = self.kept(repository);
        let mark = |digest: &Digest| kept.mark_used(&Reference::Digest(digest.clone()));
        for (manifest, media_type) in &pulled.manifests {
            for blob in manifest.value().blobs() {
                kept.link_blob(&blob.digest)?;
                mark(&blob.digest)?;
            }
            let is_top = *manifest.digest() == pulled.top.digest;
            let tags = match reference {
                Reference::Tag(tag) if is_top => vec![tag.clone()],
                _ => Vec::new(),
            };
            kept.put_manifest(manifest, media_type, &tags)?;
        }
        Ok(())
    }

    /// Brings something again that was here and is lost: a manifest's bytes, or a blob's.
    ///
    /// # Errors
    /// Where the upstream does not give it.
    pub async fn refill(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
        is_manifest: bool,
    ) -> Shared<()> {
        let reference = Reference::Digest(digest.clone());
        let (upstream, what) = (self.upstream(), self.what(repository, &reference));
        self.may_ask(&upstream, &what)?;
        if is_manifest {
            let fetched = Arc::clone(self).fetch_manifest(repository.clone(), reference).await;
            return fetched.map(drop).map_err(Arc::new);
        }
        let lease = self.root.lease().map_err(|error| Arc::new(error.into()))?;
        let sources = self
            .sources(repository, digest)
            .map_err(|error| Arc::new(self.failed(error, repository, &reference)))?;
        let wanted = Wanted::blob(digest);
        let landed = async {
            let reader = self.options.transfers.open(&wanted, sources, &lease).await?;
            reader.landed().await
        };
        let landed = landed.await;
        landed.map(drop).map_err(|failure| Arc::new(self.transfer_failed(failure, upstream, what)))
    }

    /// Says whether the upstream answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn reach(&self) -> Result<(), ClientError> {
        self.options.client.reach(self.host()).await
    }

    /// Says whether this is the mirror of a registry, or called so.
    pub fn answers_to(&self, name: &RegistryHost) -> bool {
        self.host() == name || self.name() == name.as_str()
    }

    /// Returns how many bytes it may keep.
    pub fn bytes_max(&self) -> Option<u64> {
        self.options.bytes_max
    }

    /// Says whether the upstream is never asked.
    pub fn is_offline(&self) -> bool {
        self.options.freshness.offline
    }
}
