//! Blobs of an upstream: from here where they are here, else while they arrive.

use std::sync::Arc;

use boatyard_content::repository::Repository;
use boatyard_content::{BlobFile, Lease, Piece};
use boatyard_oci::{Descriptor, Digest, MediaType, Reference, RepositoryName};
use boatyard_upstream::transfer::{Failure, Source};
use boatyard_upstream::{ClientError, Reader, Wanted};
use futures_util::{Stream, StreamExt as _};

use super::vouch::Known;
use super::{Mirror, MirrorError, Shared};

/// A blob that a mirror gives.
pub(crate) enum Found {
    /// It is here.
    Here(BlobFile),
    /// It is being fetched.
    Arriving(Arriving),
}

/// A blob that is being fetched.
pub(crate) struct Arriving {
    mirror: Arc<Mirror>,
    repository: RepositoryName,
    digest: Digest,
    wanted: Wanted,
    lease: Lease,
    reader: Reader,
}

impl Arriving {
    /// Returns its size, where the manifest or the upstream said it.
    pub(crate) fn size(&self) -> Option<u64> {
        self.reader.size()
    }

    /// Returns its bytes within a range, as they come.
    pub(crate) fn pieces(
        self,
        range: std::ops::Range<u64>,
    ) -> impl Stream<Item = Result<Piece, Failure>> + Send + 'static {
        let Arriving { mirror, repository, digest, wanted, lease, reader } = self;
        let mut told = Some((mirror, repository, digest, wanted, lease));
        reader.within(range).into_stream().inspect(move |piece| {
            // The rest comes when all of it is here and right: then the repository has it.
            if let Ok(Piece::Rest(..)) = piece
                && let Some((mirror, repository, digest, wanted, lease)) = told.take()
            {
                tokio::spawn(mirror.landed(repository, digest, wanted, lease));
            }
        })
    }
}

impl Mirror {
    /// Finds a blob, and begins to fetch it where it is not here.
    ///
    /// # Errors
    /// Where it is not here and the upstream does not give it.
    pub(crate) async fn blob(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Shared<Found> {
        let reference = Reference::Digest(digest.clone());
        let (upstream, what) = (self.upstream(), self.what(repository, &reference));
        let wanted = match self.look(repository, digest).await? {
            Known::Here(file) => return Ok(Found::Here(file)),
            Known::Named(blob) => *blob,
            // Nothing here says that the upstream has it, and the store may have it as somebody's
            // secret: the upstream has to say so first.
            Known::Nothing => self.describe(repository, digest).await?,
        };
        self.may_ask(&upstream, &what)?;
        let lease = self.root.lease().map_err(|error| Arc::new(error.into()))?;
        let sources = self.sources(repository, digest).map_err(|error| {
            Arc::new(MirrorError::Upstream {
                upstream: upstream.clone(),
                what: what.clone(),
                source: Arc::new(error),
            })
        })?;
        let wanted = Wanted::described(&wanted);
        match self.options.transfers.open(&wanted, sources, &lease).await {
            Ok(reader) => {
                let (mirror, repository) = (Arc::clone(self), repository.clone());
                let digest = digest.clone();
                Ok(Found::Arriving(Arriving { mirror, repository, digest, wanted, lease, reader }))
            }
            Err(failure) => Err(Arc::new(self.transfer_failed(failure, upstream, what))),
        }
    }

    /// Returns the size of a blob, without fetching it.
    ///
    /// # Errors
    /// Where it is not here and the upstream does not have it.
    pub(crate) async fn blob_size(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Shared<u64> {
        match self.look(repository, digest).await? {
            Known::Here(file) => Ok(file.size()),
            Known::Named(blob) => Ok(blob.size),
            Known::Nothing => Ok(self.describe(repository, digest).await?.size),
        }
    }

    /// Asks the upstream how large a blob is.
    async fn describe(&self, repository: &RepositoryName, digest: &Digest) -> Shared<Descriptor> {
        let reference = Reference::Digest(digest.clone());
        let image = self.image(self.host(), repository, &reference);
        let octets = MediaType::new("application/octet-stream");
        let mut blob = Descriptor::new(octets, digest.clone(), 1);
        // Not every registry answers HEAD with a length; the first byte comes with that of all.
        let asked = async {
            let stream = self.options.client.blob(&image, &blob, Some(0..=0)).await?;
            Ok(stream.whole_size())
        };
        let size = self.asked(repository, &reference, asked).await?;
        let (upstream, what) = (self.upstream(), self.what(repository, &reference));
        blob.size = size.ok_or_else(|| Arc::new(MirrorError::Sizeless { upstream, what }))?;
        Ok(blob)
    }

    /// Returns what is here of a repository, for somebody who asks for a blob of it and may see it.
    ///
    /// # Errors
    /// Where the repository is not everybody's.
    pub(crate) fn readable(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Shared<Repository> {
        self.check_known_visible(repository, &Reference::Digest(digest.clone()))?;
        Ok(self.kept(repository))
    }

    /// Looks for a blob here, for somebody who may see the repository.
    async fn look(self: &Arc<Self>, repository: &RepositoryName, digest: &Digest) -> Shared<Known> {
        self.check_known_visible(repository, &Reference::Digest(digest.clone()))?;
        let (mirror, repository, digest) = (Arc::clone(self), repository.clone(), digest.clone());
        tokio::task::spawn_blocking(move || mirror.known(&repository, &digest))
            .await
            .map_err(|_| Arc::new(MirrorError::Lost { upstream: self.upstream() }))?
            .map_err(Arc::new)
    }

    /// Returns what a transfer fetches a blob from.
    pub(super) fn sources(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<Arc<dyn Source>>, ClientError> {
        let reference = Reference::Digest(digest.clone());
        let mut sources = Vec::new();
        for host in self.hosts() {
            let image = self.image(host, repository, &reference);
            sources.extend(self.options.client.blob_sources(&image, digest)?);
        }
        Ok(sources)
    }

    pub(super) fn transfer_failed(
        &self,
        failure: Failure,
        upstream: String,
        what: String,
    ) -> MirrorError {
        if failure.reason::<ClientError>().is_some_and(ClientError::is_not_found) {
            return MirrorError::Absent { upstream, what };
        }
        MirrorError::Transfer { what, source: failure }
    }

    /// Notes that a repository has a blob now.
    async fn landed(
        self: Arc<Self>,
        repository: RepositoryName,
        digest: Digest,
        wanted: Wanted,
        lease: Lease,
    ) {
        let kept = self.kept(&repository);
        let linked = tokio::task::spawn_blocking(move || {
            kept.link_blob(&digest)
                .and_then(|()| kept.mark_used(&Reference::Digest(digest.clone())))
                .inspect_err(|error| {
                    tracing::warn!(%error, "{repository} does not remember that it has {digest}");
                })
        });
        // It is read to its end a moment before it has its name in the store, by which it counts.
        let landed = async {
            let reader = self.options.transfers.open(&wanted, Vec::new(), &lease).await?;
            reader.landed().await
        };
        let (Ok(Ok(())), Ok(_)) = tokio::join!(linked, landed) else { return };
        drop(lease);
        self.look_at_limit().await;
    }
}
