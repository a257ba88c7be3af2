//! Asking the upstream for manifests, and keeping them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use boatyard_content::repository::StoredManifest;
use boatyard_content::{Expected, IngestKey};
use boatyard_oci::{
    Descriptor, Digest, ImageName, Manifest, MediaType, Raw, Reference, RegistryHost,
    RepositoryName,
};
use boatyard_upstream::{Client, ClientError};
use http::StatusCode;

use super::{Mirror, MirrorError, Shared};

/// How long it counts that a repository is everybody's, or is not.
const VISIBLE_FOR: Duration = Duration::from_secs(3600);

impl Mirror {
    /// Asks where a reference points, and fetches that manifest unless it is kept.
    pub(super) async fn fetch_manifest(
        self: Arc<Self>,
        repository: RepositoryName,
        reference: Reference,
    ) -> Result<StoredManifest, MirrorError> {
        let digest = match &reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(_) => self.resolve(&repository, &reference).await?.digest,
        };
        if let Some(kept) = self.kept_manifest(&repository, &digest)? {
            let mirror = Arc::clone(&self);
            let point = move || mirror.point(&repository, &reference, &digest);
            let pointed = tokio::task::spawn_blocking(point).await;
            pointed.map_err(|_| MirrorError::Lost { upstream: self.upstream() })??;
            return Ok(kept);
        }
        let by_digest = Reference::Digest(digest);
        let (manifest, media_type) = self
            .at_hosts(&repository, &by_digest, async |client, image| client.manifest(image).await)
            .await
            .map_err(|error| self.failed(error, &repository, &reference))?;
        let mirror = Arc::clone(&self);
        let kept = tokio::task::spawn_blocking(move || {
            mirror.keep(&repository, &reference, &manifest, media_type)
        });
        kept.await.map_err(|_| MirrorError::Lost { upstream: self.upstream() })?
    }

    /// Asks where a reference points now. HEAD, which upstreams with limits count least.
    async fn resolve(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Descriptor, MirrorError> {
        self.at_hosts(repository, reference, async |client, image| client.resolve(image).await)
            .await
            .map_err(|error| self.failed(error, repository, reference))
    }

    /// Asks the hosts in their order, until one gives a right answer. That something is not there
    /// is one.
    async fn at_hosts<T>(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        ask: impl AsyncFn(&Client, &ImageName) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut first = None;
        for host in self.hosts() {
            let image = self.image(host, repository, reference);
            match ask(&self.options.client, &image).await {
                Err(error) if !error.is_not_found() => {
                    tracing::info!(%error, "{host} gave no usable answer");
                    first.get_or_insert(error);
                }
                answer => return answer,
            }
        }
        Err(first.expect("a mirror has a host, which was asked"))
    }

    /// Returns the name of something at a host of the upstream.
    pub(super) fn image(
        &self,
        host: &RegistryHost,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> ImageName {
        let prefixed = self.options.prefix.as_ref().map(|prefix| format!("{prefix}/{repository}"));
        let repository =
            prefixed.and_then(|name| name.parse().ok()).unwrap_or_else(|| repository.clone());
        ImageName { registry: host.clone(), repository, reference: reference.clone() }
    }

    /// Keeps a manifest, and points the tag at it that it was asked for by.
    fn keep(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        manifest: &Raw<Manifest>,
        media_type: MediaType,
    ) -> Result<StoredManifest, MirrorError> {
        use std::io::Write as _;
        let lease = self.root.lease()?;
        let digest = manifest.digest();
        if self.store.hold_blocking(digest, Some(&lease))?.is_none() {
            let mut ingest = self.store.ingest_blocking(&IngestKey::random(), &lease)?;
            ingest.also(digest.algorithm());
            ingest.write_all(manifest.bytes()).map_err(|source| {
                boatyard_content::StoreError::Io { doing: "keep a manifest", source }
            })?;
            ingest.commit_blocking(&Expected::digest(digest))?;
        }
        let tags = match reference {
            Reference::Tag(tag) => vec![tag.clone()],
            Reference::Digest(_) => Vec::new(),
        };
        self.kept(repository).put_manifest(manifest, &media_type, &tags)?;
        Ok(StoredManifest { digest: digest.clone(), media_type })
    }

    /// Points a tag at a manifest that is kept, or confirms that it does.
    fn point(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<(), MirrorError> {
        let Reference::Tag(tag) = reference else { return Ok(()) };
        let kept = self.kept(repository);
        if kept.tag(tag)?.as_ref() == Some(digest) {
            return Ok(kept.confirm_tag(tag, SystemTime::from(self.options.clock.now()))?);
        }
        Ok(kept.set_tags(std::slice::from_ref(tag), digest)?)
    }

    /// Refuses what only our credentials open, unless they are everybody's.
    ///
    /// Whether a repository is public is asked without them, by HEAD, and remembered: the answer
    /// is a file beside what is kept, so that it holds while the upstream is down.
    pub(super) async fn check_visible(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Shared<()> {
        let Some(anonymous) = &self.options.anonymous else { return Ok(()) };
        if self.options.shares_private {
            return Ok(());
        }
        let now = self.options.clock.now();
        let visible = match self.visible.get(repository, now) {
            Some(visible) => visible,
            None => match self.ask_visible(anonymous, repository, reference).await? {
                Some(visible) => {
                    self.visible.put(repository.clone(), visible, now, VISIBLE_FOR);
                    visible
                }
                // The next who asks may learn more: this is not remembered.
                None => self.was_public(repository)?,
            },
        };
        self.refuse_unless(visible, repository, reference)
    }

    /// The same from what is known, for what an upstream cannot be asked whether it is everybody's,
    /// such as a blob: the request for a manifest before it has found out.
    pub(super) fn check_known_visible(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Shared<()> {
        if self.options.anonymous.is_none() || self.options.shares_private {
            return Ok(());
        }
        let visible = match self.visible.get(repository, self.options.clock.now()) {
            Some(visible) => visible,
            None => self.was_public(repository)?,
        };
        self.refuse_unless(visible, repository, reference)
    }

    fn refuse_unless(
        &self,
        visible: bool,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Shared<()> {
        if visible {
            return Ok(());
        }
        let (upstream, what) = (self.upstream(), self.what(repository, reference));
        Err(Arc::new(MirrorError::Private { upstream, what }))
    }

    fn was_public(&self, repository: &RepositoryName) -> Shared<bool> {
        self.kept(repository).is_public().map_err(|error| Arc::new(error.into()))
    }

    /// Asks the upstream as a stranger; `None` where its answer does not decide it: nothing came, or
    /// this one reference is not there, which says nothing of the others.
    async fn ask_visible(
        &self,
        anonymous: &Client,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Shared<Option<bool>> {
        if self.options.freshness.offline {
            return Ok(None);
        }
        let image = self.image(self.host(), repository, reference);
        let answer = anonymous.resolve(&image);
        let visible = match tokio::time::timeout(self.options.freshness.patience, answer).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) if error.status().is_some_and(is_refusal) => false,
            _ => return Ok(None),
        };
        let kept = self.kept(repository);
        let noted = tokio::task::spawn_blocking(move || kept.set_public(visible)).await;
        noted
            .map_err(|_| Arc::new(MirrorError::Lost { upstream: self.upstream() }))?
            .map_err(|error| Arc::new(error.into()))?;
        Ok(Some(visible))
    }
}

/// Says whether a status refuses a stranger, as 404, 429 and others do not.
fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
