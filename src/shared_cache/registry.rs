//! A cache in a registry: a manifest under a tag.
//!
//! The tag is moved with `If-Match`, which our registry looks at. Others do not, so it is read again
//! after it was written: who finds somebody else's manifest there merges once more. Between the last
//! look of one and the write of another, records of one can get lost at such a registry: a later build
//! runs those steps again, no more.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use boatyard_builder::cache::shared::{Depot, INLINE, Ledger};
use boatyard_content::{Lease, Root};
use boatyard_oci::{
    Descriptor, Digest, ImageConfig, ImageManifest, ImageName, Manifest, MediaType, Reference,
};
use boatyard_upstream::distribution::{PushError, pull_blobs, push_blobs};
use boatyard_upstream::{Client, NoProgress, Outcome, TransferProgress};
use tokio::runtime::Handle;

use super::{Exchange, Keeper, Kept, Writing, Written};
use crate::remote::failure;
use crate::report::{Context as _, Failure, Result};

/// The most images of an index whose configurations are read.
const IMAGES_MAX: usize = 16;

/// A cache in a registry.
pub(super) struct RegistryKeeper<'a> {
    exchange: &'a Exchange<'a>,
    client: &'a Client,
    image: &'a ImageName,
    depot: Arc<Repository>,
}

/// The repository that its blobs are in.
struct Repository {
    runtime: Handle,
    client: Client,
    image: ImageName,
    root: Arc<Root>,
    lease: Lease,
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.image.familiar())
    }
}

impl Depot for Repository {
    fn fetch(&self, blob: &Descriptor) -> std::result::Result<(), Box<dyn Error + Send + Sync>> {
        let store = self.root.store();
        let blobs = std::slice::from_ref(blob);
        let fetch = pull_blobs(&self.client, &self.image, blobs, &store, &self.lease, &NoProgress);
        Ok(self.runtime.block_on(fetch)?)
    }
}

/// Counts what is sent.
#[derive(Default)]
struct Counting(AtomicU64);

impl TransferProgress for Counting {
    fn started(&self, _blob: &Descriptor) {}
    fn advanced(&self, _digest: &Digest, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
    fn finished(&self, _digest: &Digest, _outcome: Outcome) {}
}

impl<'a> RegistryKeeper<'a> {
    pub(super) fn new(
        exchange: &'a Exchange<'a>,
        client: &'a Client,
        image: &'a ImageName,
    ) -> RegistryKeeper<'a> {
        let depot = Arc::new(Repository {
            runtime: exchange.runtime.clone(),
            client: client.clone(),
            image: image.clone(),
            root: Arc::clone(exchange.root),
            lease: exchange.lease.clone(),
        });
        RegistryKeeper { exchange, client, image, depot }
    }

    fn name(&self) -> String {
        self.image.familiar()
    }

    /// Fetches a blob and returns its bytes.
    fn bytes(&self, blob: &Descriptor, most: usize) -> Result<bytes::Bytes> {
        let failed = || format!("cannot read {} of {}", blob.digest, self.name());
        if blob.size > most as u64 {
            return Err(Failure::new(failed()).because(format!("it has {} bytes", blob.size)));
        }
        self.depot.fetch(blob).context(failed())?;
        let there = self.exchange.root.store().open_blocking(&blob.digest).context(failed())?;
        let there = there.ok_or_else(|| Failure::new(failed()))?;
        boatyard_content::Blob::File(there).into_bytes(most).context(failed())
    }

    /// Reads what an image's configuration says of its steps.
    fn inline(&self, manifest: &ImageManifest) -> Result<Ledger> {
        let bytes = self.bytes(&manifest.config, ImageConfig::SIZE_MAX)?;
        let config = ImageConfig::parse(bytes).context(format!("cannot read {}", self.name()))?;
        let text = config.value().extra.get(INLINE).and_then(|text| text.as_str());
        let ledger = text.map(Ledger::from_text).transpose();
        Ok(ledger.context(format!("cannot read the cache in {}", self.name()))?.unwrap_or_default())
    }

    /// Reads what the images of an index say.
    fn of_index(&self, images: &[Descriptor]) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        for image in images.iter().filter(|it| it.media_type.is_image_manifest()).take(IMAGES_MAX) {
            let mut name = self.image.clone();
            name.reference = Reference::Digest(image.digest.clone());
            let read = self.exchange.runtime.block_on(self.client.manifest(&name));
            let (manifest, _) = read.context(format!("cannot read {}", name.familiar()))?;
            if let Manifest::Image(manifest) = manifest.value()
                && Ledger::of_manifest(manifest).is_ok_and(|ledger| ledger.is_none())
            {
                ledger.merge(&self.inline(manifest)?);
            }
        }
        Ok(ledger)
    }

    /// Sends blobs; those that neither this machine nor the registry has come from where they are.
    fn send(&self, blobs: &[Descriptor], writing: &Writing<'_>, sent: &Counting) -> Result<()> {
        let store = self.exchange.root.store();
        let failed = |error: PushError| {
            failure(format!("cannot push the cache {}", self.name()), &self.image.registry, error)
        };
        let mut lent = BTreeSet::new();
        loop {
            let mount_from = writing.mount_from;
            let push = push_blobs(self.client, self.image, blobs, &store, mount_from, sent);
            match self.exchange.runtime.block_on(push) {
                Ok(()) => return Ok(()),
                Err(PushError::Missing { digest }) if lent.insert(digest.clone()) => {
                    let blob = blobs.iter().find(|blob| blob.digest == digest);
                    let blob = blob.ok_or_else(|| failed(PushError::Missing { digest }))?;
                    (writing.lend)(blob)?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Deletes what was replaced, so that nothing but this tag keeps what nobody needs. A registry
    /// that does not let us has its own ways.
    fn delete(&self, before: &Digest) {
        let mut old = self.image.clone();
        old.reference = Reference::Digest(before.clone());
        if let Err(error) = self.exchange.runtime.block_on(self.client.delete_manifest(&old)) {
            tracing::debug!(%error, "what the cache was before stays in the registry");
        }
    }
}

impl Keeper for RegistryKeeper<'_> {
    fn depot(&self) -> Arc<dyn Depot> {
        Arc::clone(&self.depot) as Arc<dyn Depot>
    }

    fn read(&self) -> Result<Option<Kept>> {
        let read = self.exchange.runtime.block_on(self.client.manifest(self.image));
        let (manifest, _) = match read {
            Ok(manifest) => manifest,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => {
                let what = format!("cannot read the cache {}", self.name());
                return Err(failure(what, &self.image.registry, error));
            }
        };
        let version = Some(manifest.digest().clone());
        let (ledger, is_image) = match manifest.value() {
            Manifest::Index(index) => (self.of_index(&index.manifests)?, true),
            Manifest::Image(image) => {
                let what = || format!("cannot read the cache {}", self.name());
                match Ledger::of_manifest(image).context(what())? {
                    None => (self.inline(image)?, true),
                    Some(records) => {
                        let most = usize::try_from(records.size).unwrap_or(usize::MAX);
                        let bytes = self.bytes(records, most)?;
                        (Ledger::from_bytes(&bytes).context(what())?, false)
                    }
                }
            }
        };
        Ok(Some(Kept { ledger, version, is_image }))
    }

    fn write(&self, writing: &Writing<'_>) -> Result<Written> {
        let what = || format!("cannot write the cache {}", self.name());
        let bytes = writing.ledger.to_bytes();
        let tag = self.image.reference.to_string();
        let manifest = writing.ledger.manifest(&bytes, &tag).context(what())?;
        self.exchange.store(&bytes)?;
        let Manifest::Image(image) = manifest.value() else { return Err(Failure::new(what())) };
        let new = image.layers.iter().filter(|blob| !writing.known.contains(&blob.digest));
        let new: Vec<Descriptor> = new.chain([&image.config]).cloned().collect();
        let sent = Counting::default();
        self.send(&new, writing, &sent)?;
        let media_type = MediaType::OCI_MANIFEST;
        let put = self.client.put_manifest_over(self.image, &manifest, &media_type, writing.over);
        match self.exchange.runtime.block_on(put) {
            Ok(()) => {}
            Err(error) => {
                return match error.status().map(|status| status.as_u16()) {
                    Some(412) => Ok(Written::Conflict),
                    // It says that a blob is not there.
                    Some(400 | 404) if !writing.known.is_empty() => Ok(Written::Lost),
                    _ => Err(failure(what(), &self.image.registry, error)),
                };
            }
        }
        let there = self.exchange.runtime.block_on(self.client.resolve(self.image));
        let there = there.map_err(|error| failure(what(), &self.image.registry, error))?;
        if there.digest != *manifest.digest() {
            return Ok(Written::Conflict);
        }
        if let Some(before) = writing.over.filter(|before| *before != manifest.digest()) {
            self.delete(before);
        }
        Ok(Written::Done(sent.0.load(Ordering::Relaxed) + manifest.size()))
    }
}
