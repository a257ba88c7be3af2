//! Pulling: an image, or all images of an index, from a registry into a store.
//!
//! Manifests first, top down, then the blobs that the store lacks, several at once. Each blob is
//! fetched as [`crate::transfer`] does it: resumed where its connection broke or its process
//! died, and never kept if its length or digest is wrong.

mod fetch;

use std::collections::{BTreeMap, HashSet};

use boatyard_content::{Expected, IngestKey, Lease, Store, StoreError};
use boatyard_oci::manifest::ManifestError;
use boatyard_oci::{Descriptor, Digest, ImageName, Manifest, MediaType, Platform, Raw, Reference};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::client::Client;
use super::error::ClientError;
use super::progress::TransferProgress;
use super::resolve::passed_over;
use super::select;
use crate::registries_conf::Source;
use crate::transfer::TransferError;

/// How deep indexes may lie in indexes.
const DEPTH_MAX: usize = 4;
/// The most manifests of one pull.
const MANIFESTS_MAX: usize = 1000;

/// What of an index is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platforms<'a> {
    /// The one image that runs on this platform.
    One(&'a Platform),
    /// All that it lists, attestations too.
    All,
}

/// What was pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// What the name pointed at.
    pub top: Descriptor,
    /// Every manifest on the way, each after those that it lists, the top last: the order in which
    /// [`super::push`] takes them. Their bytes are in the store as well.
    pub manifests: Vec<(Raw<Manifest>, MediaType)>,
    /// The platform that was chosen from an index, in the index's words.
    pub platform: Option<Platform>,
}

impl Pulled {
    /// Returns the manifest of the image that was chosen; with [`Platforms::All`], the first one.
    pub fn image(&self) -> Option<&Raw<Manifest>> {
        self.manifests
            .iter()
            .map(|(manifest, _)| manifest)
            .find(|manifest| matches!(manifest.value(), Manifest::Image(_)))
    }
}

/// A pull that failed. What was fetched whole stays in the store as long as the lease.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry did not give what was asked for.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The index has nothing for the platform.
    #[error("{image} has nothing for {wanted}: it offers {offered}")]
    NoPlatform {
        /// The image.
        image: String,
        /// The platform that was asked for.
        wanted: Box<Platform>,
        /// What there is.
        offered: String,
    },
    /// Indexes in indexes in indexes.
    #[error("{image} lists more than {DEPTH_MAX} levels or {MANIFESTS_MAX} manifests")]
    TooDeep {
        /// The image.
        image: String,
    },
    /// A manifest has another size than the index says.
    #[error(
        "manifest {digest} from {registry} has {got} bytes, not the {expected} that the index says"
    )]
    ManifestSize {
        /// The manifest.
        digest: Digest,
        /// The registry.
        registry: String,
        /// What the index says.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// A blob was not brought, or not as it was promised.
    #[error("cannot fetch blob {digest}")]
    Blob {
        /// The blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: TransferError,
    },
    /// The store failed.
    #[error("{digest} cannot be kept in {store}")]
    Store {
        /// The blob or manifest.
        digest: Digest,
        /// The store.
        store: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A manifest in the store is none: the store is damaged.
    #[error("what the store has for manifest {digest} cannot be read")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// Why.
        #[source]
        source: ManifestError,
    },
}

/// Pulls an image into a store. All of it is in `lease` when this returns.
///
/// Mirrors are tried in their order. The first that has the top manifest gives the rest; what it
/// then lacks comes from the registry itself.
///
/// # Errors
/// Where the registry does not give all of it, whole and genuine, or the store fails.
pub async fn pull(
    client: &Client,
    image: &ImageName,
    platforms: Platforms<'_>,
    store: &dyn Store,
    lease: &Lease,
    progress: &dyn TransferProgress,
) -> Result<Pulled, PullError> {
    pull_parts(client, image, (platforms, &|_, _| true), (store, lease), progress).await
}

/// Pulls what says what an image is, and none of its layers: manifests and configurations. They are
/// in `lease` when this returns; [`pull_blobs`] brings the rest.
///
/// # Errors
/// As [`pull`].
pub async fn pull_manifests(
    client: &Client,
    image: &ImageName,
    platforms: Platforms<'_>,
    store: &dyn Store,
    lease: &Lease,
    progress: &dyn TransferProgress,
) -> Result<Pulled, PullError> {
    let is_config = |manifest: &Manifest, blob: &Descriptor| match manifest {
        Manifest::Image(image) => image.config.digest == blob.digest,
        Manifest::Index(_) => false,
    };
    pull_parts(client, image, (platforms, &is_config), (store, lease), progress).await
}

/// Says whether a blob of a manifest is fetched.
type IsWanted = dyn Fn(&Manifest, &Descriptor) -> bool + Sync;

async fn pull_parts(
    client: &Client,
    image: &ImageName,
    (platforms, is_wanted): (Platforms<'_>, &IsWanted),
    (store, lease): (&dyn Store, &Lease),
    progress: &dyn TransferProgress,
) -> Result<Pulled, PullError> {
    let sources = client.sources(image)?;
    let mut pull = Pull { client, image, sources, platforms, store, lease, progress, chosen: None };
    let (top, media_type) = pull.top().await?;
    let descriptor = Descriptor::new(media_type.clone(), top.digest().clone(), top.size());
    let mut manifests = pull.tree(top, media_type).await?;
    manifests.reverse();
    pull.blobs(&manifests, is_wanted).await?;
    // Last, so that a manifest in the store has there what was wanted of it.
    for (manifest, _) in &manifests {
        pull.land(manifest).await?;
    }
    Ok(Pulled { top: descriptor, manifests, platform: pull.chosen })
}

/// Brings some blobs of an image's repository into a store, where they are in `lease` when this
/// returns; what is there is not fetched. For whoever knows them without pulling the image.
///
/// # Errors
/// Where the registry does not give all of them, whole and genuine, or the store fails.
pub async fn pull_blobs(
    client: &Client,
    image: &ImageName,
    blobs: &[Descriptor],
    store: &dyn Store,
    lease: &Lease,
    progress: &dyn TransferProgress,
) -> Result<(), PullError> {
    let sources = client.sources(image)?;
    let platforms = Platforms::All;
    let pull = Pull { client, image, sources, platforms, store, lease, progress, chosen: None };
    pull.each(blobs.iter().cloned()).await
}

struct Pull<'a> {
    client: &'a Client,
    image: &'a ImageName,
    sources: Vec<Source>,
    platforms: Platforms<'a>,
    store: &'a dyn Store,
    lease: &'a Lease,
    progress: &'a dyn TransferProgress,
    chosen: Option<Platform>,
}

impl Pull<'_> {
    /// Fetches the top manifest, and leaves the source that had it the first of those to ask.
    async fn top(&mut self) -> Result<(Raw<Manifest>, MediaType), PullError> {
        loop {
            match self.client.manifest_at(&self.sources[0], &self.image.reference).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) if self.sources.len() == 1 => return Err(error.into()),
                Err(error) => {
                    passed_over(&self.sources[0], error);
                    self.sources.remove(0);
                }
            }
        }
    }

    /// Returns all manifests that are wanted, each before those that it lists.
    async fn tree(
        &mut self,
        top: Raw<Manifest>,
        media_type: MediaType,
    ) -> Result<Vec<(Raw<Manifest>, MediaType)>, PullError> {
        let mut seen = HashSet::from([top.digest().clone()]);
        let mut tree = vec![(top, media_type)];
        let mut level_start = 0;
        for _ in 0..=DEPTH_MAX {
            let level_end = tree.len();
            let mut wanted = Vec::new();
            for (manifest, _) in &tree[level_start..] {
                let listed = self.wanted(manifest.value().manifests())?;
                wanted.extend(listed.into_iter().filter(|entry| seen.insert(entry.digest.clone())));
            }
            if wanted.is_empty() {
                return Ok(tree);
            }
            if tree.len() + wanted.len() > MANIFESTS_MAX {
                break;
            }
            let this = &*self;
            let fetched: Vec<_> = stream::iter(wanted)
                .map(|entry| async move { this.child(&entry).await })
                .buffered(self.client.options().concurrency.max(1))
                .try_collect()
                .await?;
            tree.extend(fetched);
            level_start = level_end;
        }
        Err(PullError::TooDeep { image: self.image.to_string() })
    }

    /// Returns the entries of an index that are wanted.
    fn wanted(&mut self, entries: &[Descriptor]) -> Result<Vec<Descriptor>, PullError> {
        let known = |entry: &&Descriptor| {
            entry.media_type.is_index() || entry.media_type.is_image_manifest()
        };
        match self.platforms {
            Platforms::All => Ok(entries.iter().filter(known).cloned().collect()),
            Platforms::One(_) if entries.is_empty() => Ok(Vec::new()),
            Platforms::One(wanted) => {
                let entry =
                    select::choose(entries, wanted).ok_or_else(|| PullError::NoPlatform {
                        image: self.image.to_string(),
                        wanted: Box::new(wanted.clone()),
                        offered: select::offered(entries),
                    })?;
                self.chosen = entry.platform.clone().or_else(|| self.chosen.take());
                Ok(vec![entry.clone()])
            }
        }
    }

    /// Returns a manifest that an index lists, from the store where it is there.
    async fn child(&self, entry: &Descriptor) -> Result<(Raw<Manifest>, MediaType), PullError> {
        if let Some(manifest) = self.stored(entry).await? {
            return Ok((manifest, entry.media_type.clone()));
        }
        let reference = Reference::Digest(entry.digest.clone());
        let mut last = None;
        for source in &self.sources {
            match self.client.manifest_at(source, &reference).await {
                Ok((manifest, _)) if manifest.size() != entry.size => {
                    return Err(PullError::ManifestSize {
                        digest: entry.digest.clone(),
                        registry: source.registry.to_string(),
                        expected: entry.size,
                        got: manifest.size(),
                    });
                }
                Ok(manifest) => return Ok(manifest),
                Err(error) => last = Some(passed_over(source, error)),
            }
        }
        Err(last.expect("there is always the registry itself").into())
    }

    async fn stored(&self, entry: &Descriptor) -> Result<Option<Raw<Manifest>>, PullError> {
        let held = self.store.hold(&entry.digest, self.lease).await;
        if held.map_err(|source| self.store_error(&entry.digest, source))?.is_none() {
            return Ok(None);
        }
        let blob = self.store.open(&entry.digest).await;
        let Some(blob) = blob.map_err(|source| self.store_error(&entry.digest, source))? else {
            return Ok(None);
        };
        let bytes = tokio::task::spawn_blocking(move || blob.into_bytes(Manifest::SIZE_MAX))
            .await
            .expect("reading a blob does not panic")
            .map_err(|source| self.store_error(&entry.digest, source))?;
        Manifest::parse_expecting(bytes, &entry.media_type, &entry.digest)
            .map(Some)
            .map_err(|source| PullError::Manifest { digest: entry.digest.clone(), source })
    }

    /// Fetches the wanted blobs of all manifests, each once, several at a time.
    async fn blobs(
        &self,
        manifests: &[(Raw<Manifest>, MediaType)],
        is_wanted: &IsWanted,
    ) -> Result<(), PullError> {
        let mut wanted = BTreeMap::new();
        for (manifest, _) in manifests {
            let own = manifest.value();
            for blob in own.blobs().into_iter().filter(|blob| is_wanted(own, blob)) {
                wanted.entry(blob.digest.clone()).or_insert_with(|| blob.clone());
            }
        }
        self.each(wanted.into_values()).await
    }

    async fn each(&self, blobs: impl Iterator<Item = Descriptor>) -> Result<(), PullError> {
        stream::iter(blobs.map(Ok))
            .try_for_each_concurrent(self.client.options().concurrency.max(1), |blob| async move {
                self.blob(&blob).await
            })
            .await
    }

    async fn land(&self, manifest: &Raw<Manifest>) -> Result<(), PullError> {
        let digest = manifest.digest();
        let fails = |source| self.store_error(digest, source);
        if self.store.hold(digest, self.lease).await.map_err(fails)?.is_some() {
            return Ok(());
        }
        let mut ingest =
            self.store.ingest(&IngestKey::random(), self.lease).await.map_err(fails)?;
        ingest.also(digest.algorithm());
        ingest.append(manifest.bytes().clone()).await.map_err(fails)?;
        ingest.commit(Expected::digest(digest)).await.map_err(fails)?;
        Ok(())
    }

    fn store_error(&self, digest: &Digest, source: StoreError) -> PullError {
        PullError::Store { digest: digest.clone(), store: self.store.to_string(), source }
    }
}
