//! Base images: found among those of this machine, or fetched, several at once.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use boatyard_content::repository::RepositoryError;
use boatyard_content::{Lease, Root};
use boatyard_oci::{Descriptor, Digest, History, ImageConfig, ImageName, Platform, Reference};

use crate::image::{Image, ImageError};
use crate::solve::LayerStack;

/// An image to build on.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// Its name, as it was asked for.
    pub name: ImageName,
    /// Its manifest and configuration.
    pub image: Image,
    /// Its configuration, with a history that has as many layers as there are.
    pub config: ImageConfig,
    /// It was not fetched for this build.
    pub was_here: bool,
}

impl BaseImage {
    /// Returns the digest of its manifest.
    pub fn digest(&self) -> &Digest {
        &self.image.descriptor.digest
    }
}

/// Takes what is being done, for people.
pub type Say<'a> = dyn Fn(&str) + Sync + 'a;

/// Fetches an image into the images of this machine, and says how that goes. Or fetches into the store
/// what says what it is, and no layer: then it returns what the name points at, and the build's
/// [`Imports`](crate::cache::shared::Imports) know where the layers are.
pub type Pull<'a> = dyn Fn(&ImageName, &Platform, &Say<'_>) -> Result<Option<Descriptor>, Box<dyn Error + Send + Sync>>
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
    /// It was fetched, and is not here.
    #[error("{name} was fetched, but is not here: something deletes images meanwhile")]
    Vanished {
        /// Which.
        name: String,
    },
    /// It is for another platform.
    #[error("{name} is for {own}, not for {wanted}")]
    Platform {
        /// Which.
        name: String,
        /// For what.
        wanted: Box<Platform>,
        /// What it is for.
        own: Box<Platform>,
    },
    /// What is here of it cannot be used.
    #[error("cannot use what is here of {name}")]
    Image {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// The images of this machine cannot be read.
    #[error("cannot look for {name} here")]
    Look {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// The base images of a build: each is looked for once.
pub struct Bases<'a> {
    root: Arc<Root>,
    lease: Lease,
    pull: &'a Pull<'a>,
    /// Looks upstream first, for a newer image of the same tag.
    always_pull: bool,
    /// Images that have no name here.
    given: Vec<Descriptor>,
    known: Mutex<HashMap<(ImageName, Platform), Arc<Slot>>>,
}

/// An image that is being looked for, or was found. Who looks holds the lock: others wait.
type Slot = Mutex<Option<Found>>;

#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) image: Arc<BaseImage>,
    /// Its layers: the stages that begin with it share what is unpacked of them.
    pub(crate) stack: LayerStack,
}

impl<'a> Bases<'a> {
    /// Returns the bases that are in a root, or that `pull` can bring there.
    pub fn new(root: Arc<Root>, lease: Lease, pull: &'a Pull<'a>, always_pull: bool) -> Bases<'a> {
        Bases { root, lease, pull, always_pull, given: Vec::new(), known: Mutex::default() }
    }

    /// Adds images that are found by their digests, whatever name these are asked for with.
    #[must_use]
    pub(crate) fn with_given(self, given: &[Descriptor]) -> Bases<'a> {
        Bases { given: given.to_vec(), ..self }
    }

    /// Finds an image. A tag that is here is taken as it is; what is not here is fetched.
    ///
    /// # Errors
    /// Where it is nowhere, is for another platform, or is damaged.
    pub(crate) fn resolve(
        &self,
        name: &ImageName,
        platform: &Platform,
        say: &Say<'_>,
    ) -> Result<Found, BaseError> {
        let slot = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry((name.clone(), platform.clone())).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*slot {
            return Ok(found.clone());
        }
        let image = Arc::new(self.find(name, platform, say)?);
        let stack = LayerStack::image(&image);
        Ok(slot.insert(Found { image, stack }).clone())
    }

    /// Returns the images that were found: what they were asked for by, for what, and what was taken.
    pub(crate) fn all(&self) -> Vec<(ImageName, Platform, Digest)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let slots: Vec<_> = known.iter().map(|(key, slot)| (key.clone(), slot.clone())).collect();
        drop(known);
        let found = slots.into_iter().filter_map(|((name, platform), slot)| {
            let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            Some((name, platform, slot.as_ref()?.image.digest().clone()))
        });
        let mut all: Vec<_> = found.collect();
        all.sort_by_key(|(name, platform, _)| (name.to_string(), platform.to_string()));
        all
    }

    /// Returns an image that was found before.
    pub(crate) fn known(&self, name: &ImageName, platform: &Platform) -> Option<Found> {
        let slot = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.get(&(name.clone(), platform.clone()))?)
        };
        slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn find(
        &self,
        name: &ImageName,
        platform: &Platform,
        say: &Say<'_>,
    ) -> Result<BaseImage, BaseError> {
        let by_digest = matches!(name.reference, Reference::Digest(_));
        let here = if self.always_pull && !by_digest { None } else { self.look(name, platform)? };
        if let Some(base) = here {
            say(&format!("{} is among the images of this machine", name.familiar()));
            return Ok(base);
        }
        say(&format!("fetching from {}", name.registry));
        let lent = (self.pull)(name, platform, say)
            .map_err(|source| BaseError::Pull { name: name.familiar(), source })?;
        let fetched = match lent {
            Some(top) => self.open(name, platform, &top, false)?,
            None => self.look(name, platform)?,
        };
        let fetched = fetched.ok_or_else(|| BaseError::Vanished { name: name.familiar() })?;
        Ok(BaseImage { was_here: false, ..fetched })
    }

    /// Reads an image of this machine, and holds all of it; `None` where it, or a part of it, is
    /// not here.
    fn look(&self, name: &ImageName, platform: &Platform) -> Result<Option<BaseImage>, BaseError> {
        let Some(target) = self.target(name)? else { return Ok(None) };
        self.open(name, platform, &target, true)
    }

    /// Reads an image of the store, and holds it: its layers too, where it is to be `whole`.
    fn open(
        &self,
        name: &ImageName,
        platform: &Platform,
        target: &Descriptor,
        whole: bool,
    ) -> Result<Option<BaseImage>, BaseError> {
        let unusable = |source| BaseError::Image { name: name.familiar(), source };
        let store = self.root.store();
        let image = match Image::open(&store, target, Some(platform)) {
            Err(ImageError::Missing { .. } | ImageError::Platform { .. }) => return Ok(None),
            image => image.map_err(unusable)?,
        };
        let own = image.config.value().platform();
        if !image.config.value().os.is_empty() && !platform.runs(&own) {
            let (wanted, own) = (Box::new(platform.clone()), Box::new(own));
            return Err(BaseError::Platform { name: name.familiar(), wanted, own });
        }
        let parts = [("manifest", &image.descriptor), ("configuration", &image.manifest.config)];
        let layers = image.manifest.layers.iter().filter(|_| whole).map(|layer| ("layer", layer));
        for (what, part) in parts.into_iter().chain(layers) {
            match store.hold_blocking(&part.digest, Some(&self.lease)) {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(source) => {
                    let digest = part.digest.clone();
                    return Err(unusable(ImageError::Store { what, digest, source }));
                }
            }
        }
        let config = with_whole_history(image.config.value().clone());
        Ok(Some(BaseImage { name: name.clone(), image, config, was_here: true }))
    }

    /// Finds the manifest or index that a name means on this machine.
    fn target(&self, name: &ImageName) -> Result<Option<Descriptor>, BaseError> {
        let failed = |error: RepositoryError| BaseError::Look {
            name: name.familiar(),
            source: error.into(),
        };
        let repository = self.root.images_of(name);
        let digest = match &name.reference {
            Reference::Digest(digest) => Some(digest.clone()),
            Reference::Tag(tag) => repository.tag(tag).map_err(failed)?,
        };
        let Some(digest) = digest else { return Ok(None) };
        if let Some(given) = self.given.iter().find(|given| given.digest == digest) {
            return Ok(Some(given.clone()));
        }
        let Some(stored) = repository.manifest(&digest).map_err(failed)? else { return Ok(None) };
        let info = self.root.store().stat_blocking(&digest);
        let info = info.map_err(|error| failed(error.into()))?;
        Ok(info.map(|info| Descriptor::new(stored.media_type, stored.digest, info.size)))
    }
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
