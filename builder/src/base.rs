//! Base images: found among those of this machine, or fetched; and their layers, unpacked.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use boatyard_content::{Lease, Root, StoreError};
use boatyard_oci::{
    Descriptor, Digest, History, ImageConfig, ImageManifest, ImageName, Manifest, MediaType,
    Platform, Raw, Reference,
};

use crate::layer::decompress::DecompressLimits;
use crate::layer::tar::Limits;
use crate::snapshot::{LayerDir, Layers, LayersError, Unpack, layers};

/// An image to build on.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// Its name, as it was asked for.
    pub name: ImageName,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its layers' blobs, bottom first.
    pub layers: Vec<Descriptor>,
    /// Its configuration; its history has as many layers as there are.
    pub config: ImageConfig,
}

/// Takes what is being done, for people.
pub type Say<'a> = dyn Fn(&str) + Sync + 'a;

/// Fetches an image into the images of this machine, and says how that goes.
pub type Pull<'a> = dyn Fn(&ImageName, &Platform, &Say<'_>) -> Result<(), Box<dyn Error + Send + Sync>>
    + Send
    + Sync
    + 'a;

/// Why a base image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// It is not here, and could not be fetched.
    #[error("cannot fetch {name}")]
    Pull {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It is for other platforms.
    #[error("{name} has no image for {wanted}; it has {available}")]
    Platform {
        /// Which.
        name: String,
        /// For what.
        wanted: Box<Platform>,
        /// What it is for.
        available: String,
    },
    /// Part of it is missing or damaged here.
    #[error("{name} is damaged here: {problem}")]
    Damaged {
        /// Which.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The store cannot be read.
    #[error("cannot read {name} here")]
    Store {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A layer cannot be unpacked.
    #[error("cannot unpack a layer of {name}")]
    Unpack {
        /// Which image.
        name: String,
        /// Why.
        #[source]
        source: LayersError,
    },
}

/// The base images of a build: each is looked for once.
pub struct Bases<'a> {
    root: Arc<Root>,
    lease: Lease,
    layers: Layers,
    pull: &'a Pull<'a>,
    /// Looks upstream first, for a newer image of the same tag.
    always_pull: bool,
    threads: usize,
    known: Mutex<HashMap<(ImageName, Platform), Arc<BaseImage>>>,
}

impl<'a> Bases<'a> {
    /// Returns the bases that are in a root, or that `pull` can bring there.
    pub fn new(
        root: Arc<Root>,
        lease: Lease,
        layers: Layers,
        pull: &'a Pull<'a>,
        always_pull: bool,
        threads: usize,
    ) -> Bases<'a> {
        let known = Mutex::default();
        Bases { root, lease, layers, pull, always_pull, threads, known }
    }

    /// Finds an image. A tag that is here is taken as it is; what is not here is fetched.
    ///
    /// # Errors
    /// Where it is nowhere, is for another platform, or is damaged.
    pub fn resolve(
        &self,
        name: &ImageName,
        platform: &Platform,
        say: &Say<'_>,
    ) -> Result<Arc<BaseImage>, BaseError> {
        let key = (name.clone(), platform.clone());
        // The lock is held while fetching: two stages on one image fetch it once.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = known.get(&key) {
            return Ok(Arc::clone(base));
        }
        let by_digest = matches!(name.reference, Reference::Digest(_));
        let here = if self.always_pull && !by_digest { None } else { self.find(name, platform)? };
        let base = match here {
            Some(base) => {
                say(&format!("{} is among the images of this machine", name.familiar()));
                base
            }
            None => {
                say(&format!("fetching from {}", name.registry));
                (self.pull)(name, platform, say)
                    .map_err(|source| BaseError::Pull { name: name.familiar(), source })?;
                self.find(name, platform)?.ok_or_else(|| BaseError::Damaged {
                    name: name.familiar(),
                    problem: "it is gone again after it was fetched".to_owned(),
                })?
            }
        };
        let base = Arc::new(base);
        known.insert(key, Arc::clone(&base));
        Ok(base)
    }

    /// Looks for an image among those of this machine.
    fn find(&self, name: &ImageName, platform: &Platform) -> Result<Option<BaseImage>, BaseError> {
        let store_error = |source| BaseError::Store { name: name.familiar(), source };
        let repository = self.root.images_of(name);
        let digest = match &name.reference {
            Reference::Digest(digest) => Some(digest.clone()),
            Reference::Tag(tag) => {
                repository.tag(tag).map_err(|error| store_error(Box::new(error)))?
            }
        };
        let Some(digest) = digest else { return Ok(None) };
        let stored = repository.manifest(&digest).map_err(|error| store_error(Box::new(error)))?;
        let Some(stored) = stored else { return Ok(None) };
        let manifest = self.manifest(name, &digest, &stored.media_type)?;
        let (digest, manifest) = match manifest.into_value() {
            Manifest::Image(manifest) => (digest, manifest),
            Manifest::Index(index) => {
                match self.choose(name, platform, &index.manifests)? {
                    Some(chosen) => chosen,
                    // The index is here, the image for this platform is not: it can be fetched.
                    None => return Ok(None),
                }
            }
        };
        self.image(name, platform, digest, manifest).map(Some)
    }

    /// Chooses the image for a platform from an index.
    fn choose(
        &self,
        name: &ImageName,
        platform: &Platform,
        manifests: &[Descriptor],
    ) -> Result<Option<(Digest, ImageManifest)>, BaseError> {
        let fits = |descriptor: &&Descriptor| {
            descriptor.platform.as_ref().is_some_and(|own| platform.runs(own))
        };
        let Some(chosen) = manifests.iter().find(fits) else {
            let available: Vec<String> = manifests
                .iter()
                .filter_map(|descriptor| descriptor.platform.as_ref())
                .map(ToString::to_string)
                .collect();
            return Err(BaseError::Platform {
                name: name.familiar(),
                wanted: Box::new(platform.clone()),
                available: available.join(", "),
            });
        };
        let held = self.root.store().hold_blocking(&chosen.digest, Some(&self.lease));
        if held.map_err(|error| self.store_error(name, error))?.is_none() {
            return Ok(None);
        }
        match self.manifest(name, &chosen.digest, &chosen.media_type)?.into_value() {
            Manifest::Image(manifest) => Ok(Some((chosen.digest.clone(), manifest))),
            Manifest::Index(_) => Err(BaseError::Damaged {
                name: name.familiar(),
                problem: "an index lists another index for a platform".to_owned(),
            }),
        }
    }

    fn manifest(
        &self,
        name: &ImageName,
        digest: &Digest,
        media_type: &MediaType,
    ) -> Result<Raw<Manifest>, BaseError> {
        let bytes = self.read(name, digest, Manifest::SIZE_MAX)?;
        Manifest::parse_expecting(bytes, media_type, digest).map_err(|error| BaseError::Damaged {
            name: name.familiar(),
            problem: error.to_string(),
        })
    }

    fn read(
        &self,
        name: &ImageName,
        digest: &Digest,
        most: usize,
    ) -> Result<bytes::Bytes, BaseError> {
        let store = self.root.store();
        store
            .hold_blocking(digest, Some(&self.lease))
            .map_err(|error| self.store_error(name, error))?;
        let blob = store.open_blocking(digest).map_err(|error| self.store_error(name, error))?;
        let blob = blob.ok_or_else(|| missing(name, digest))?;
        boatyard_content::Blob::File(blob)
            .into_bytes(most)
            .map_err(|error| self.store_error(name, error))
    }

    fn store_error(&self, name: &ImageName, source: StoreError) -> BaseError {
        BaseError::Store { name: name.familiar(), source: Box::new(source) }
    }

    fn image(
        &self,
        name: &ImageName,
        platform: &Platform,
        digest: Digest,
        manifest: ImageManifest,
    ) -> Result<BaseImage, BaseError> {
        let damaged = |problem: String| BaseError::Damaged { name: name.familiar(), problem };
        let bytes = self.read(name, &manifest.config.digest, ImageConfig::SIZE_MAX)?;
        let config =
            ImageConfig::parse(bytes).map_err(|error| damaged(error.to_string()))?.into_value();
        if !platform.runs(&config.platform()) && !config.os.is_empty() {
            return Err(BaseError::Platform {
                name: name.familiar(),
                wanted: Box::new(platform.clone()),
                available: config.platform().to_string(),
            });
        }
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(damaged(format!(
                "its configuration names {} layers, its manifest {}",
                config.rootfs.diff_ids.len(),
                manifest.layers.len()
            )));
        }
        let config = with_whole_history(config);
        Ok(BaseImage { name: name.clone(), digest, layers: manifest.layers, config })
    }

    /// Unpacks an image's layers, those that are not unpacked yet; says which it is at.
    ///
    /// # Errors
    /// Where a blob is missing, or is not what the configuration promises.
    pub fn unpack(&self, base: &BaseImage, say: &dyn Fn(&str)) -> Result<Vec<LayerDir>, BaseError> {
        let mut stack: Vec<LayerDir> = Vec::new();
        for (blob, diff_id) in base.layers.iter().zip(&base.config.rootfs.diff_ids) {
            let failed = |source| BaseError::Unpack { name: base.name.familiar(), source };
            let chain = layers::chain_above(&stack, diff_id);
            if let Some(layer) = self.layers.find(diff_id, &chain).map_err(failed)? {
                stack.push(layer);
                continue;
            }
            say(&format!("unpacking {}", blob.digest));
            let store = self.root.store();
            store
                .hold_blocking(&blob.digest, Some(&self.lease))
                .map_err(|error| self.store_error(&base.name, error))?;
            let file = store
                .open_blocking(&blob.digest)
                .map_err(|error| self.store_error(&base.name, error))?
                .ok_or_else(|| missing(&base.name, &blob.digest))?;
            let unpack = Unpack {
                blob: file.into_file(),
                diff_id,
                lowers: &stack,
                threads: self.threads,
                limits: Limits::default(),
                decompress: DecompressLimits::default(),
            };
            let layer = self.layers.unpack(unpack).map_err(failed)?;
            stack.push(layer);
        }
        Ok(stack)
    }
}

fn missing(name: &ImageName, digest: &Digest) -> BaseError {
    BaseError::Damaged { name: name.familiar(), problem: format!("blob {digest} is missing") }
}

/// Returns the configuration with a history entry for each layer: some tools write fewer, and a
/// history must match.
fn with_whole_history(mut config: ImageConfig) -> ImageConfig {
    let told = config.history.iter().filter(|entry| !entry.empty_layer).count();
    let layers = config.rootfs.diff_ids.len();
    if told > layers {
        config.history.clear();
    }
    let told = if told > layers { 0 } else { told };
    for _ in told..layers {
        config.history.push(History {
            created: config.created,
            created_by: "created by boatyard".to_owned(),
            comment: "the history of this layer is not known".to_owned(),
            ..History::default()
        });
    }
    config
}
