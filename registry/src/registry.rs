//! What the registry is made of.

use std::sync::Arc;

use boatyard_access::Access;
use boatyard_content::local::LocalStore;
use boatyard_content::repository::{Repositories, Repository, RepositoryError, Space};
use boatyard_content::store::{BlobFile, FileIdentity};
use boatyard_content::{IngestKey, Root};
use boatyard_front::body::MappedBlob;
use boatyard_oci::{Digest, MediaType, RepositoryName};
use bytes::Bytes;
use serde::Deserialize;

use crate::cache::Cache;
use crate::limits::Limits;
use crate::mirror::Mirrors;
use crate::policies::Policies;
use crate::rate::Rates;
use crate::sessions::{self, Sessions};

/// How many blobs the registry remembers the last repository of.
const SOURCES_MAX: usize = 100_000;
/// The largest blob that is kept open.
const KEPT_OPEN_MAX: u64 = 8 * 1024 * 1024;

/// The registry of what was pushed here and of what is mirrored: one value for all requests.
///
/// It keeps no state that the files do not have: what it remembers only saves reading them.
#[derive(Debug)]
pub struct Registry {
    pub(crate) root: Arc<Root>,
    pub(crate) store: LocalStore,
    pub(crate) repositories: Repositories,
    pub(crate) mirrors: Mirrors,
    pub(crate) access: Arc<dyn Access>,
    pub(crate) limits: Limits,
    pub(crate) policies: Policies,
    /// A repository that nobody has: where those are sent who may not read the one they name.
    pub(crate) nowhere: RepositoryName,
    /// The bytes of manifests. A digest's bytes never change; whether a repository has it is read
    /// from the repository each time.
    pub(crate) manifests: Cache<Digest, KnownManifest>,
    /// Blobs of some size that were pulled last, mapped. Whether the file is still the blob's, and
    /// whether a repository has it, is looked up each time.
    pub(crate) blobs: Cache<Digest, OpenBlob>,
    /// In which repository a blob was seen last, for a mount that does not say.
    pub(crate) sources: Cache<Digest, RepositoryName>,
    /// The upload sessions.
    pub(crate) sessions: Sessions,
    /// The requests of each client.
    pub(crate) rates: Rates,
}

/// What a manifest's bytes say, whichever repository it is in.
#[derive(Clone, Debug)]
pub(crate) struct KnownManifest {
    pub(crate) bytes: Bytes,
    /// The `mediaType` inside, with which every push of it had to agree.
    pub(crate) media_type: Option<MediaType>,
}

impl KnownManifest {
    pub(crate) fn new(bytes: Bytes) -> KnownManifest {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Inside {
            media_type: Option<MediaType>,
        }
        let inside = serde_json::from_slice::<Inside>(&bytes).ok();
        KnownManifest { bytes, media_type: inside.and_then(|inside| inside.media_type) }
    }
}

/// A blob that is kept open.
#[derive(Clone, Debug)]
pub(crate) struct OpenBlob {
    pub(crate) file: FileIdentity,
    pub(crate) mapped: MappedBlob,
}

impl Registry {
    /// Maps a blob's file and keeps it so, if it is neither too small nor too large for that. A
    /// large one gains little, and its bytes would keep the disk full longer.
    pub(crate) fn keep_open(
        &self,
        digest: &Digest,
        file: &BlobFile,
    ) -> std::io::Result<Option<OpenBlob>> {
        const WEIGHT_MIN: usize = 1024 * 1024;
        if !(MappedBlob::SIZE_MIN..=KEPT_OPEN_MAX).contains(&file.size()) {
            return Ok(None);
        }
        let open = OpenBlob { file: file.identity(), mapped: MappedBlob::of(file)? };
        let weight = (file.size() as usize).max(WEIGHT_MIN);
        self.blobs.put(digest.clone(), open.clone(), weight);
        Ok(Some(open))
    }

    /// Remembers a manifest's bytes.
    pub(crate) fn remember(&self, digest: &Digest, manifest: &KnownManifest) {
        self.manifests.put(digest.clone(), manifest.clone(), manifest.bytes.len());
    }

    /// Returns the registry of a root, which mirrors other registries too.
    pub fn new(
        root: Arc<Root>,
        mirrors: Mirrors,
        access: Arc<dyn Access>,
        limits: Limits,
    ) -> Arc<Registry> {
        let policies = Policies::none(&root);
        Registry::keeping(root, mirrors, access, limits, policies)
    }

    /// Returns the same, which keeps to what its owner has decided.
    pub fn keeping(
        root: Arc<Root>,
        mirrors: Mirrors,
        access: Arc<dyn Access>,
        limits: Limits,
        policies: Policies,
    ) -> Arc<Registry> {
        Arc::new(Registry {
            store: root.store(),
            repositories: root.repositories(),
            manifests: Cache::new(limits.manifest_cache_bytes_max),
            blobs: Cache::new(limits.blob_cache_bytes_max),
            sources: Cache::new(SOURCES_MAX),
            sessions: Sessions::default(),
            rates: Rates::new(limits.rate.clone()),
            nowhere: nowhere(),
            root,
            mirrors,
            access,
            limits,
            policies,
        })
    }

    /// Ends upload sessions that nobody goes on with, again and again, for ever.
    pub async fn end_stale_uploads(self: Arc<Registry>) {
        // A start does not begin with a walk through all repositories.
        tokio::time::sleep(sessions::look_again(&self.limits).min(sessions::FIRST_LOOK)).await;
        loop {
            let registry = Arc::clone(&self);
            let end = move || {
                let before = sessions::expired_before(&registry.limits);
                let ended = registry.repositories.end_stale_uploads(before)?;
                registry.sessions.end(ended);
                Ok::<_, RepositoryError>(ended)
            };
            match tokio::task::spawn_blocking(end).await {
                Ok(Ok(0)) => {}
                Ok(Ok(ended)) => tracing::info!("{ended} uploads that nobody went on with ended"),
                Ok(Err(error)) => tracing::warn!(%error, "cannot end uploads that have expired"),
                Err(_) => return,
            }
            tokio::time::sleep(sessions::look_again(&self.limits)).await;
        }
    }

    /// Returns a hosted repository, which need not exist.
    pub(crate) fn repository(&self, name: &RepositoryName) -> Repository {
        self.repositories.repository(&Space::Hosted, name)
    }
}

/// Returns a name that nobody can guess, and so nobody can push to.
fn nowhere() -> RepositoryName {
    let key = IngestKey::random().as_str().to_ascii_lowercase();
    format!("nowhere-{key}").parse().expect("letters, digits and single dashes are a name")
}
