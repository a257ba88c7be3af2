//! Base images of which only manifests and configuration are fetched at first.
//!
//! Where a build imports caches, its steps may all be found there, and then nobody reads a file of the
//! base. Its layers come all at once when the first of them is needed; until then the image is not
//! among those of this machine, which have all their layers.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use boatyard_builder::cache::shared::{Depot, Imports};
use boatyard_builder::import;
use boatyard_content::{Lease, Root};
use boatyard_oci::{Descriptor, ImageName, Platform};
use boatyard_upstream::distribution::pull_blobs;
use boatyard_upstream::{Client, NoProgress, Platforms};
use tokio::runtime::Handle;

use crate::remote::Mover;
use crate::report::{Context as _, Result};

/// An image whose layers are fetched when the first of them is needed.
struct LazyBase {
    runtime: Handle,
    client: Client,
    name: ImageName,
    /// What the name pointed at when it was asked for.
    top: Descriptor,
    blobs: Vec<Descriptor>,
    root: Arc<Root>,
    lease: Lease,
    /// All of it is here. Who fetches holds the lock: others wait.
    is_here: Mutex<bool>,
}

impl fmt::Display for LazyBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name.familiar())
    }
}

impl Depot for LazyBase {
    fn fetch(&self, _blob: &Descriptor) -> std::result::Result<(), Box<dyn Error + Send + Sync>> {
        let mut is_here = self.is_here.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_here {
            return Ok(());
        }
        let (store, name) = (self.root.store(), &self.name);
        let fetch = pull_blobs(&self.client, name, &self.blobs, &store, &self.lease, &NoProgress);
        self.runtime.block_on(fetch)?;
        import::name(&self.root, &self.lease, &self.top, std::slice::from_ref(name))?;
        *is_here = true;
        Ok(())
    }
}

/// Fetches an image's manifests and configuration, and has `imports` know where its layers are.
/// Returns what its name points at; `None` where all of it is here, and among the images of this
/// machine.
pub fn fetch(
    mover: Mover<'_>,
    (runtime, root): (&Handle, &Arc<Root>),
    name: &ImageName,
    platform: &Platform,
    imports: &Imports,
) -> Result<Option<Descriptor>> {
    let pulled = runtime.block_on(mover.fetch_manifests(name, Platforms::One(platform)))?;
    let blobs = pulled.manifests.iter().flat_map(|(manifest, _)| manifest.value().blobs());
    let blobs: Vec<Descriptor> = blobs.cloned().collect();
    let mut is_whole = true;
    for blob in &blobs {
        let held = root.store().hold_blocking(&blob.digest, Some(mover.lease));
        is_whole &= held.context(format!("cannot hold {}", blob.digest))?.is_some();
    }
    if is_whole {
        mover.keep(name, &pulled.top)?;
        return Ok(None);
    }
    let base: Arc<dyn Depot> = Arc::new(LazyBase {
        runtime: runtime.clone(),
        client: mover.client.clone(),
        name: name.clone(),
        top: pulled.top.clone(),
        blobs: blobs.clone(),
        root: Arc::clone(root),
        lease: mover.lease.clone(),
        is_here: Mutex::new(false),
    });
    imports.promise(&blobs, &base);
    Ok(Some(pulled.top))
}
