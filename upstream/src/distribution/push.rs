//! Pushing: manifests and their blobs from a store into a registry.
//!
//! Blobs first, several at once: each is looked for, then mounted, then sent. Then the manifests
//! in the order in which they are given, those below by digest, the top one by the image's name.

use std::collections::BTreeMap;

use boatyard_content::{Store, StoreError};
use boatyard_oci::{
    Descriptor, Digest, ImageName, Manifest, MediaType, Raw, Reference, RepositoryName,
};
use futures_util::{TryStreamExt as _, stream};

use super::client::Client;
use super::error::ClientError;
use super::mount::Mount;
use super::progress::{Outcome, TransferProgress};
use super::upload::{Session, Upload};
use crate::registries_conf::Source;
use crate::token::{Scope, ScopeSet};

/// The most repositories that are asked for one blob.
const MOUNTS_MAX: usize = 4;

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of the top manifest.
    pub digest: Digest,
}

/// A push that failed. What arrived stays; the same push again sends only the rest.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry did not take it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is nothing to push.
    #[error("there is no manifest to push")]
    Nothing,
    /// A blob that a manifest needs is not in the store.
    #[error("blob {digest} is not in the store: pull or build the image again")]
    Missing {
        /// The blob.
        digest: Digest,
    },
    /// A blob has another size than its descriptor says.
    #[error("blob {digest} has {got} bytes, not the {expected} that the manifest says")]
    Size {
        /// The blob.
        digest: Digest,
        /// What the manifest says.
        expected: u64,
        /// What there is.
        got: u64,
    },
    /// The store failed.
    #[error("blob {digest} cannot be read from the store")]
    Store {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: StoreError,
    },
}

/// Pushes an image: `manifests` has each after those that it lists, the top one last, as
/// [`super::Pulled::manifests`] does. `mount_from` are repositories of the same registry that may
/// have some of the blobs.
///
/// # Errors
/// Where the registry does not take all of it, or the store lacks a part.
pub async fn push(
    client: &Client,
    image: &ImageName,
    manifests: &[(Raw<Manifest>, MediaType)],
    store: &dyn Store,
    mount_from: &[RepositoryName],
    progress: &dyn TransferProgress,
) -> Result<Pushed, PushError> {
    let ((top, top_type), below) = manifests.split_last().ok_or(PushError::Nothing)?;
    let source = client.destination(image)?;
    let mount_from = others(&source, mount_from);
    let scopes = scopes(&source, &mount_from);
    let push = Push { client, source: &source, scopes: &scopes, store, mount_from, progress };
    push.blobs(manifests).await?;
    for (manifest, media_type) in below {
        push.manifest(&Reference::Digest(manifest.digest().clone()), manifest, media_type).await?;
    }
    push.manifest(&image.reference, top, top_type).await?;
    Ok(Pushed { digest: top.digest().clone() })
}

/// Pushes some blobs into an image's repository, for a manifest that the caller puts there. What the
/// store lacks must be there, or in one of `mount_from`.
///
/// # Errors
/// Where the registry does not take one of them, or the store lacks it.
pub async fn push_blobs(
    client: &Client,
    image: &ImageName,
    blobs: &[Descriptor],
    store: &dyn Store,
    mount_from: &[RepositoryName],
    progress: &dyn TransferProgress,
) -> Result<(), PushError> {
    let source = client.destination(image)?;
    let mount_from = others(&source, mount_from);
    let scopes = scopes(&source, &mount_from);
    let push = Push { client, source: &source, scopes: &scopes, store, mount_from, progress };
    push.each(blobs.iter().cloned()).await
}

/// Returns the repositories that blobs may be mounted from.
fn others<'a>(source: &Source, mount_from: &'a [RepositoryName]) -> Vec<&'a RepositoryName> {
    mount_from.iter().filter(|from| **from != source.repository).take(MOUNTS_MAX).collect()
}

/// Returns one token's scopes for all: a mount needs the right to read the other repository too.
fn scopes(source: &Source, mount_from: &[&RepositoryName]) -> ScopeSet {
    let mut scopes = ScopeSet::from([Scope::push(&source.repository)]);
    scopes.extend(mount_from.iter().map(|from| Scope::pull(from)));
    scopes
}

struct Push<'a> {
    client: &'a Client,
    source: &'a Source,
    scopes: &'a ScopeSet,
    store: &'a dyn Store,
    mount_from: Vec<&'a RepositoryName>,
    progress: &'a dyn TransferProgress,
}

impl Push<'_> {
    async fn blobs(&self, manifests: &[(Raw<Manifest>, MediaType)]) -> Result<(), PushError> {
        let mut wanted = BTreeMap::new();
        for (manifest, _) in manifests {
            for blob in manifest.value().blobs() {
                wanted.entry(blob.digest.clone()).or_insert_with(|| blob.clone());
            }
        }
        self.each(wanted.into_values()).await
    }

    async fn each(&self, blobs: impl Iterator<Item = Descriptor>) -> Result<(), PushError> {
        stream::iter(blobs.map(Ok))
            .try_for_each_concurrent(self.client.options().concurrency.max(1), |blob| async move {
                self.progress.started(&blob);
                let outcome = self.blob(&blob).await?;
                self.progress.finished(&blob.digest, outcome);
                Ok(())
            })
            .await
    }

    async fn blob(&self, blob: &Descriptor) -> Result<Outcome, PushError> {
        let upload = Upload {
            client: self.client,
            source: self.source,
            scopes: self.scopes,
            store: self.store,
            progress: self.progress,
            blob,
        };
        if upload.exists().await? {
            return Ok(Outcome::AlreadyThere);
        }
        let session = match self.mount(&upload).await? {
            Mount::Done => return Ok(Outcome::Mounted),
            Mount::Session(session) => session,
        };
        upload.send(session).await?;
        Ok(Outcome::Transferred)
    }

    /// Tries the repositories that may have it; otherwise there is a session to send it into.
    async fn mount(&self, upload: &Upload<'_>) -> Result<Mount, PushError> {
        let mut open: Option<Session> = None;
        for from in &self.mount_from {
            let asked =
                self.client.mount(self.source, &upload.blob.digest, from, self.scopes).await;
            match asked {
                Ok(Mount::Done) => {
                    if let Some(session) = open {
                        upload.cancel(session).await;
                    }
                    return Ok(Mount::Done);
                }
                Ok(Mount::Session(session)) => {
                    if let Some(earlier) = open.replace(session) {
                        upload.cancel(earlier).await;
                    }
                }
                // Only an offer: a registry that refuses it may still take the blob.
                Err(error) if error.status().is_some() && !error.is_retryable() => {
                    tracing::debug!(%error, %from, "cannot mount");
                }
                Err(error) => return Err(error.into()),
            }
        }
        match open {
            Some(session) => Ok(Mount::Session(session)),
            None => Ok(Mount::Session(upload.open().await?)),
        }
    }

    async fn manifest(
        &self,
        reference: &Reference,
        manifest: &Raw<Manifest>,
        media_type: &MediaType,
    ) -> Result<(), PushError> {
        self.client
            .put_manifest_at(self.source, reference, manifest, media_type, self.scopes)
            .await?;
        Ok(())
    }
}
