//! Where lost blobs come from again: the upstreams of what they break, as the configuration has them.
//!
//! A mirrored repository knows its upstream, an image that was pulled its registry, and an entry of
//! the cache proxy its URL. What was only pushed here has no upstream: whoever pushed it has it.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use boatyard_cache_proxy::statistics::Counters;
use boatyard_cache_proxy::{Admitted, Engine, Entry, Request};
use boatyard_content::entries::EntryKey;
use boatyard_content::fsck::{Broken, Loss, Refill, RefillError};
use boatyard_content::repository::Space;
use boatyard_content::{Expected, IngestKey, Root, StoreError};
use boatyard_oci::{Digest, ImageName, Reference};
use boatyard_registry::{Mirror, Mirrors};
use boatyard_upstream::transfer::Failure as TransferFailure;
use boatyard_upstream::transport::Payload;
use boatyard_upstream::{Client, ClientError, Transfers, Wanted};
use http::{HeaderMap, Method};
use tokio::runtime::Handle;

use crate::report::Result;
use crate::world::World;
use crate::{access, mirrors, proxy, remote};

/// Of how many holders of a blob the upstreams are asked.
const ASKED_MAX: usize = 8;
/// How often it is looked whether the proxy's questions have ended.
const POLL: Duration = Duration::from_millis(20);

/// The upstreams of a root.
pub struct Upstreams {
    world: World,
    root: Arc<Root>,
    mirrors: Mirrors,
    client: Client,
    transfers: Transfers,
    /// Reads what is held of archives: only where an entry is lost.
    engine: OnceLock<Option<Engine>>,
    runtime: Handle,
}

impl Upstreams {
    /// Returns those of the configuration. Its work is done in `runtime`, while threads of others
    /// wait for it.
    ///
    /// # Errors
    /// Where the configuration cannot be used.
    pub fn open(world: &World, root: &Arc<Root>, runtime: Handle) -> Result<Upstreams> {
        let transfers = mirrors::transfers(root);
        Ok(Upstreams {
            mirrors: mirrors::open(world, root, &transfers)?,
            client: remote::client(world)?,
            root: Arc::clone(root),
            world: world.clone(),
            engine: OnceLock::new(),
            transfers,
            runtime,
        })
    }

    fn ask_registry(
        &self,
        broken: &Broken,
        digest: &Digest,
    ) -> std::result::Result<String, RefillError> {
        let host = match broken.repository.space() {
            Some(Space::Mirror(host)) => host,
            Some(Space::Images(host)) => host.to_string(),
            Some(Space::Hosted) | None => return Err(RefillError::Nowhere),
        };
        let is_manifest = broken.manifest == *digest;
        let name = broken.repository.name();
        let from = format!("{host}/{name}");
        let is_its = |mirror: &&Arc<Mirror>| {
            broken.repository.is_mirrored() && Some(mirror.space()) == broken.repository.space()
        };
        if let Some(mirror) = self.mirrors.all().iter().find(is_its) {
            let refilled = self.runtime.block_on(mirror.refill(name, digest, is_manifest));
            return refilled.map(|()| from.clone()).map_err(|error| refused(from, error));
        }
        let registry = host.parse().map_err(|error| refused(from.clone(), error))?;
        let reference = Reference::Digest(digest.clone());
        let image = ImageName { registry, repository: name.clone(), reference };
        let fetched = self.runtime.block_on(async {
            match is_manifest {
                true => self.manifest(&image).await,
                false => self.blob(&image, digest).await,
            }
        });
        fetched.map(|()| from.clone()).map_err(|error| refused(from, error))
    }

    async fn manifest(&self, image: &ImageName) -> std::result::Result<(), Unfetched> {
        let (manifest, _) = self.client.manifest(image).await?;
        let lease = self.root.lease()?;
        let mut ingest = self.root.store().ingest_blocking(&IngestKey::random(), &lease)?;
        ingest.also(manifest.digest().algorithm());
        ingest
            .write_all(manifest.bytes())
            .map_err(|source| StoreError::Io { doing: "keep a manifest", source })?;
        ingest.commit_blocking(&Expected::digest(manifest.digest()))?;
        Ok(())
    }

    async fn blob(&self, image: &ImageName, digest: &Digest) -> std::result::Result<(), Unfetched> {
        let lease = self.root.lease()?;
        let sources = self.client.blob_sources(image, digest)?;
        let reader = self.transfers.open(&Wanted::blob(digest), sources, &lease).await?;
        reader.landed().await?;
        Ok(())
    }

    /// Has the cache proxy fetch what an entry says again, as if a client had asked for it.
    fn ask_url(&self, key: &EntryKey, digest: &Digest) -> std::result::Result<String, RefillError> {
        let entry = self.entry(key, digest).ok_or(RefillError::Nowhere)?;
        let from = entry.target.to_string();
        let engine = self.engine.get_or_init(|| {
            let _inside = self.runtime.enter();
            let authority = access::open(&self.world, &self.root, &[]).ok()?;
            let counters = Arc::new(Counters::default());
            proxy::engine(&self.world, &self.root, &authority, counters).ok()
        });
        let engine = engine.as_ref().ok_or(RefillError::Nowhere)?;
        let settings = engine.settings();
        let upstream =
            settings.upstreams.of(&entry.target).map(|(upstream, _)| Arc::clone(upstream));
        let request = Request {
            method: Method::GET,
            target: entry.target.clone(),
            headers: headers(&entry),
            upstream,
            base: None,
            client: ([127, 0, 0, 1], 0).into(),
            admitted: Admitted::default(),
        };
        let answer = self.runtime.block_on(async {
            engine.forget(&entry.target).await?;
            let answer = engine.answer(request, Payload::Empty).await;
            // The flight is the engine's; the answer is kept because what nobody reads is put aside.
            while engine.under_way() > 0 {
                tokio::time::sleep(POLL).await;
            }
            Ok(answer)
        });
        let answer = answer.map_err(|error: StoreError| refused(from.clone(), error))?;
        if answer.status.is_success() {
            return Ok(from);
        }
        Err(refused(from, std::io::Error::other(format!("it answers {}", answer.status))))
    }

    fn entry(&self, key: &EntryKey, digest: &Digest) -> Option<Entry> {
        let kept = self.root.entries().get(key).ok()?;
        let variant = kept.variants.iter().find(|variant| variant.blob == *digest)?;
        Entry::of_variant(&kept.vary, variant)
    }
}

/// Returns the headers that choose the variant.
fn headers(entry: &Entry) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, values) in &entry.policy.varied {
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

impl Refill for Upstreams {
    fn refill(&self, loss: &Loss) -> std::result::Result<String, RefillError> {
        let mut first = None;
        let mut seen = HashSet::new();
        let broken = loss.breaks.iter().filter(|broken| seen.insert(broken.repository.key()));
        for broken in broken.take(ASKED_MAX) {
            match self.ask_registry(broken, &loss.digest) {
                Ok(from) => return Ok(from),
                Err(RefillError::Nowhere) => {}
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        for key in loss.entries.iter().take(ASKED_MAX) {
            match self.ask_url(key, &loss.digest) {
                Ok(from) => return Ok(from),
                Err(RefillError::Nowhere) => {}
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        Err(first.unwrap_or(RefillError::Nowhere))
    }
}

fn refused(
    from: String,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> RefillError {
    RefillError::Refused { from, source: error.into() }
}

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
enum Unfetched {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Transfer(#[from] TransferFailure),
    #[error(transparent)]
    Store(#[from] StoreError),
}
